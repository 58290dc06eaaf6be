"""What was stated before runs were made, against the runs: comparisons, seeds, and the smallest effect they can show.

A statement is a row of ``figures/stated.csv``: on which date which table was to hold which variants, against which one,
with how many seeds and by which metrics and masks. Whatever stands in no row is exploratory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from topdown.book.tables import NAMES, NOT_RUN, read, read_runs
from topdown.evaluate.statistics import smallest_difference

COLUMNS = ['date', 'table', 'variant', 'against', 'settings', 'seeds', 'metrics', 'masks']

AS_STATED, EXPLORATORY = 'as stated', 'exploratory'


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

    The expected spread of a difference is sqrt(2) times that of the baseline's runs, in the statement's own table or,
    before there is one, in the search for the decoder's settings; the found one is that of the differences by seed.

    Returns:
        The statements' columns, and ``became`` ('as stated', 'not run', or what is missing); for each metric
        ``could_show``, the smallest true difference, in points, that four of five repetitions would tell from zero, by
        the spread expected, and ``can_show``, by the spread found (NaN where there is nothing to know it from).
    """
    figures = Path(figures)
    searched = read_runs(figures / 'tables', 'toybox_category_search')
    rows = []
    for row in read_stated(figures).itertuples(index=False):
        runs = read_runs(figures / 'tables', row.table)
        runs = runs.assign(setting=runs.setting.fillna('') if 'setting' in runs else '')
        found = {'became': _became(row, runs)}
        for metric in row.metrics.split():
            values = (
                runs.pivot_table(index='seed', columns=['setting', 'variant'], values=metric)
                if metric in runs
                else None
            )
            before = _spread(searched, metric) * 2**0.5
            found |= {
                f'could_show {metric}': smallest_difference(before, row.seeds) if np.isfinite(before) else np.nan,
                f'can_show {metric}': _shown(values, row),
            }
        rows.append({**row._asdict(), **found})
    return pd.DataFrame(rows)


def _became(row: tuple, runs: pd.DataFrame) -> str:
    wanted = runs[runs.variant.isin([row.variant, row.against])]
    if not len(wanted[wanted.variant == row.variant]):
        return NOT_RUN
    counts = wanted.groupby(['setting', 'variant']).seed.nunique()
    full = (
        (counts.unstack('variant', fill_value=0) >= row.seeds).reindex(columns=[row.variant, row.against]).all(axis=1)
    )
    early = 'date' in wanted and (wanted.date.astype(str) < row.date).any()
    if early:
        return 'runs are older than the statement'
    return AS_STATED if full.sum() >= row.settings else f'{int(full.sum())} of {row.settings} settings have all seeds'


def _spread(runs: pd.DataFrame, metric: str) -> float:
    """Standard deviation over seeds of the baseline, pooled over settings; NaN if it cannot be known."""
    if metric not in runs or 'setting' not in runs:
        return float('nan')
    variances = runs[runs.variant == 'baseline'].groupby('setting')[metric].var()
    return float(variances.mean() ** 0.5)


def _shown(values: pd.DataFrame | None, row: tuple) -> float:
    if values is None:
        return float('nan')
    settings = [s for s in values.columns.levels[0] if {(s, row.variant), (s, row.against)} <= set(values.columns)]
    variances = [(values[s, row.variant] - values[s, row.against]).var() for s in settings]
    spread = float(np.nanmean(variances) ** 0.5) if np.isfinite(variances).any() else float('nan')
    return smallest_difference(spread, row.seeds) if np.isfinite(spread) else float('nan')


def show_standing(found: pd.DataFrame) -> pd.DataFrame:
    """``standing`` for readers."""
    names = {
        f'{kind} {metric}': f'{said} {name}'
        for metric, name in NAMES.items()
        for kind, said in (('could_show', 'smallest, expected:'), ('can_show', 'smallest, found:'))
    }
    return found.rename(columns=names).round(1)
