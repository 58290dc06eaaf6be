"""What was stated before runs were made, against the runs: comparisons, seeds, and the smallest effect they can show.

A statement is a row of ``figures/stated.csv``: on which date which table was to hold which variants, against which one,
with how many seeds and by which metrics and masks. Whatever stands in no row is exploratory.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from topdown.book.tables import NAMES, NOT_RUN, read, read_runs
from topdown.evaluate.statistics import smallest_difference

COLUMNS = ['date', 'table', 'variant', 'against', 'settings', 'seeds', 'metrics', 'masks']

AS_STATED, OLDER = 'as stated', 'runs are older than the statement'


SEARCHED = 'toybox_category_search'
"""Table whose baselines tell, before the runs, how much seeds scatter."""


def read_stated(figures: str | Path) -> pd.DataFrame:
    """The statements, one row a comparison; ``settings`` is how many settings it is to be made in.

    Raises:
        ValueError: if a column is missing.
    """
    path = Path(figures) / 'stated.csv'
    found = read(path)
    if missing := [name for name in COLUMNS if name not in found]:
        raise ValueError(f'{path} lacks the columns {", ".join(missing)}')
    return found


def standing(figures: str | Path) -> pd.DataFrame:
    """Every statement with what became of it, and the smallest differences that it can show.

    Returns:
        The statements' columns, and ``became`` ('as stated', 'not run', or what is missing); for each metric the
        smallest true difference, in points, that four of five repetitions would tell from zero: ``could_show``, by the
        scatter that was to be expected, sqrt(2) times that of the search's baselines, and ``can_show``, by the scatter
        of the differences found (both pooled over settings; NaN where there is nothing to know it from).
    """
    tables = Path(figures) / 'tables'
    searched = [part for _, part in _by_setting(read_runs(tables, SEARCHED))]
    rows = []
    for row in read_stated(figures).itertuples(index=False):
        runs = read_runs(tables, row.table)
        runs = runs[runs.variant.isin([row.variant, row.against])]
        parts = [part for _, part in _by_setting(runs) if part.variant.nunique() == 2]
        whole = sum(part.groupby('variant').seed.nunique().min() >= row.seeds for part in parts)
        became = AS_STATED if whole >= row.settings else f'{whole} of {row.settings} settings have all seeds'
        if not parts:
            became = NOT_RUN
        elif 'date' in runs and (runs.date.astype(str) < row.date).any():
            became = OLDER
        found = {'became': became}
        for metric in row.metrics.split():
            before = _pooled([part[metric] for part in searched]) * 2**0.5
            pairs = [part.pivot_table(index='seed', columns='variant', values=metric) for part in parts]
            after = _pooled([pair[row.variant] - pair[row.against] for pair in pairs])
            found[f'could_show {metric}'] = smallest_difference(before, row.seeds)
            found[f'can_show {metric}'] = smallest_difference(after, row.seeds)
        rows.append({**row._asdict(), **found})
    return pd.DataFrame(rows)


def _by_setting(runs: pd.DataFrame) -> Iterable[tuple[str, pd.DataFrame]]:
    return runs.groupby(runs.setting.fillna('') if 'setting' in runs else lambda _: '')


def _pooled(samples: list[pd.Series]) -> float:
    """Standard deviation within samples, from the mean of their variances; NaN if none has two values."""
    variances = [sample.var() for sample in samples if sample.count() > 1]
    return float(np.mean(variances) ** 0.5) if variances else float('nan')


def show_standing(found: pd.DataFrame) -> pd.DataFrame:
    """``standing`` for readers."""
    names = {
        f'{kind} {metric}': f'{said} {name}'
        for metric, name in NAMES.items()
        for kind, said in (('could_show', 'smallest, expected:'), ('can_show', 'smallest, found:'))
    }
    return found.rename(columns=names).round(1)
