"""The table of what was tried on purpose and survived, figures/tables/reliability.csv: rows come from long forms.

``make fuzz`` writes the inputs, ``make soak`` kills and faults, ``make mutants`` the mutants.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from topdown.files import fresh
from topdown.origin import _commit

ROOT = Path(__file__).parent.parent
TABLE = ROOT / 'figures' / 'tables' / 'reliability.csv'
KILLS, FAULTS, INPUTS, MUTANTS = 'kills', 'faults', 'inputs', 'mutants'
COMMANDS = {KILLS: 'make soak', FAULTS: 'make soak', INPUTS: 'make fuzz', MUTANTS: 'make mutants'}
COLUMNS = ['kind', 'what', 'tried', 'survived', 'how', 'commit', 'command']


def write_rows(kind: str, rows: list[dict[str, object]], path: Path = TABLE) -> pd.DataFrame:
    """Put rows (what, tried, survived, how) in the place of those of their kind, with a sum where there are several."""
    found = pd.DataFrame(rows)
    if len(found) > 1:
        total = {'what': 'all', 'tried': found.tried.sum(), 'survived': found.survived.sum(), 'how': ''}
        found = pd.concat([found, pd.DataFrame([total])], ignore_index=True)
    found = found.assign(kind=kind, commit=_commit(), command=f'`{COMMANDS[kind]}`')
    others = pd.read_csv(path, keep_default_na=False) if path.is_file() else pd.DataFrame(columns=COLUMNS)
    table = pd.concat([others[others.kind != kind], found])[COLUMNS]
    table = table.sort_values('kind', key=lambda kinds: kinds.map(list(COMMANDS).index), kind='stable')
    with fresh(path) as place:
        table.to_csv(place, index=False)
    return table
