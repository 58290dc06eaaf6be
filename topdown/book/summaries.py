"""Result rows and what is said of them: means, spreads, intervals, and comparisons pair by pair."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from topdown.evaluate.statistics import bootstrap_interval, compare, prediction_interval, seed_interval
from topdown.files import fresh

METRICS = ('fg_ari', 'mbo_i', 'mbo_c', 'miou')


CONDITIONS = ('threads', 'precision', 'device')
"""Columns of provenance beside which one configuration and seed may give another number."""


TOLERANCE = 1e-6
"""Largest difference of two metrics, in percent, that counts as none: what writing and reading a table may cost."""


Scores = dict[tuple[str, int], list[dict[str, float]]]


def append_rows(path: str | Path, rows: list[dict[str, object]], same: tuple[str, ...] = ()) -> pd.DataFrame:
    """Add rows to a CSV table and return the whole; earlier rows equal in the columns ``same`` are replaced.

    The file is written beside its target and moved into place.
    """
    path = Path(path)
    table = pd.DataFrame(rows)
    if path.exists():
        old = pd.read_csv(path)
        if same:
            replaced = set(map(tuple, table[list(same)].astype(str).to_numpy()))
            old = old[[tuple(row) not in replaced for row in old[list(same)].astype(str).to_numpy()]]
        table = pd.concat([old, table], ignore_index=True)
    with fresh(path) as place:
        table.to_csv(place, index=False)
    return table


def mean_and_spread(table: pd.DataFrame, by: str | list[str] = 'model') -> pd.DataFrame:
    """Mean and standard deviation over rows (seeds) of every metric, as 'mean +- std', and the number of rows.

    Metrics that no row has, as of images without true masks, are left out, here and in the tables below. A single row
    has no spread and shows the mean alone. Groups keep the order in which they first occur.
    """

    def show(values: pd.Series) -> str:
        mean = f'{values.mean():.1f}'
        return f'{mean} ± {values.std():.1f}' if len(values) > 1 else mean

    groups = table.groupby(by, sort=False)
    result = groups[[m for m in METRICS if m in table and table[m].notna().any()]].agg(show)
    result['runs'] = groups.size()
    return result


def uncertainty_table(scores: Scores) -> pd.DataFrame:
    """Every mean with two intervals, percent: 95 % bootstrap over images, and 95 % Student's t over seeds.

    Args:
        scores: (model, seed) -> one row per image, as ``metrics.score`` gives them, all of the same images.
    """
    rows = []
    for model in dict.fromkeys(model for model, _ in scores):
        table = _stack(scores, model)
        row: dict[str, object] = {'model': model, 'seeds': sum(name == model for name, _ in scores)}
        for name in table:
            values = 100 * table[name]
            images = bootstrap_interval(np.mean(values, axis=0))
            seeds = seed_interval(np.nanmean(values, axis=1))
            row[name] = f'{images.mean:.1f}'
            row[f'{name}, images'] = f'[{images.low:.1f}, {images.high:.1f}]'
            row[f'{name}, seeds'] = '-' if np.isnan(seeds.low) else f'[{seeds.low:.1f}, {seeds.high:.1f}]'
        rows.append(row)
    return pd.DataFrame(rows).set_index('model')


def paired_table(scores: Scores, against: str) -> pd.DataFrame:
    """Every model minus one of them, on the same images (means over seeds) and on the same seeds, points of percent.

    Columns: difference; its 95 % bootstrap interval over images and the p-value of the sign-flip permutation test
    over them; the differences seed by seed and the p-value of the same test over seeds, which with n seeds is at least
    2 / 2^n.

    Args:
        scores: as for ``uncertainty_table``.
        against: the model that is subtracted.

    Raises:
        ValueError: if there is no such model.
    """
    names = list(dict.fromkeys(model for model, _ in scores))
    if against not in names:
        raise ValueError(f'there is no model {against!r} to compare with; there are {", ".join(names)}')
    base = _stack(scores, against)
    rows = []
    for model in names:
        if model == against:
            continue
        table = _stack(scores, model)
        for name in [name for name in table if name in base]:
            a, b = 100 * table[name], 100 * base[name]
            images = compare(a.mean(axis=0), b.mean(axis=0))
            row = {
                'model': f'{model} - {against}',
                'metric': name,
                'difference': f'{images.difference.mean:+.2f}',
                '95 % over images': f'[{images.difference.low:+.2f}, {images.difference.high:+.2f}]',
                'p, images': f'{images.p_value:.3f}',
            }
            if len(a) == len(b) > 1:
                by_seed = np.nanmean(a, axis=1) - np.nanmean(b, axis=1)
                row['by seed'] = ' '.join(f'{d:+.1f}' for d in by_seed)
                row['p, seeds'] = f'{compare(by_seed, np.zeros_like(by_seed)).p_value:.3f}'
            rows.append(row)
    return pd.DataFrame(rows)


def effect_table(
    rows: pd.DataFrame, against: str = 'baseline', metrics: tuple[str, ...] = METRICS, by: str = 'variant'
) -> pd.DataFrame:
    """Every variant's mean over seeds, and its difference to one of them seed by seed.

    Args:
        rows: one per run, with the columns ``by``, seed and the metrics, in percent.
        against: the variant that is subtracted.
        metrics: columns to compare; those that the rows lack are left out.
        by: the column of variants.

    Returns:
        One row per variant and metric: mean, sd (NaN for one run), runs; difference (points), low and high (95 %
        Student's t over the seeds that both have), p (sign-flip permutation test over them, with n seeds at least
        2 / 2^n) and pairs. The difference and its columns are NaN, and pairs 0, for ``against`` itself and for variants
        without a common seed; the interval and p are NaN for one pair.

    Raises:
        ValueError: if there is no such variant, or a variant has several rows of one seed, as rows of several settings
            have: pass those of one setting.
    """
    if against not in set(rows[by]):
        raise ValueError(
            f'there is no {by} {against!r} to compare with; there are {", ".join(map(str, set(rows[by])))}'
        )
    twice = rows[rows.duplicated([by, 'seed'])]
    if len(twice):
        name, seed = twice.iloc[0][[by, 'seed']]
        raise ValueError(f'{by} {name!r} has several rows of seed {seed}: pass the rows of one setting')
    values, found = rows.set_index([by, 'seed']), []
    for name in dict.fromkeys(rows[by]):
        for metric in [m for m in metrics if m in rows]:
            mine = values.loc[name, metric].dropna()
            paired = (mine - values.loc[against, metric]).dropna() if name != against else mine.head(0)
            row = {by: name, 'metric': metric, 'mean': mine.mean(), 'sd': mine.std(), 'runs': len(mine)}
            row |= dict.fromkeys(('difference', 'low', 'high', 'p'), float('nan'))
            if len(paired):
                row['difference'], row['low'], row['high'] = seed_interval(paired.to_numpy())
            if len(paired) > 1:
                row['p'] = compare(paired.to_numpy(), np.zeros(len(paired))).p_value
            found.append({**row, 'pairs': len(paired)})
    return pd.DataFrame(found)


def _stack(scores: Scores, model: str) -> dict[str, np.ndarray]:
    """Metric -> values (seeds, images) of one model; metrics without a value are left out."""
    runs = [rows for (name, _), rows in sorted(scores.items(), key=lambda item: item[0][1]) if name == model]
    found = {name: np.array([[row[name] for row in rows] for rows in runs]) for name in METRICS}
    return {name: values for name, values in found.items() if not np.isnan(values).all()}


def check_same_runs(tables: dict[str, pd.DataFrame]) -> None:
    """One configuration, one seed, one number, in whatever table it stands.

    Compared are the metrics of the decoder's masks at the end of training. Rows may differ only if both record one of
    ``CONDITIONS`` and record it differently; a row that does not say how many threads it had is not excused by that.

    Args:
        tables: name -> rows. Rows without a configuration (baselines without training) and tables without the columns
            config and seed are passed over.

    Raises:
        ValueError: if two rows disagree, naming all such rows.
    """
    parts = []
    for name, table in tables.items():
        if not {'config', 'seed'} <= set(table):
            continue
        for column, final in {'masks': 'decoder', 'intervention': 'both', 'images': 'own', 'by': 'all'}.items():
            if column in table:
                table = table[table[column].isna() | table[column].eq(final)]
        if 'step' in table:
            table = table[table.step.isna() | table.step.eq(table.steps)]
        columns = ['config', 'seed', *CONDITIONS, *METRICS]
        parts.append(table.dropna(subset=['config']).reindex(columns=columns).assign(table=name))
    said = []
    for (config, seed), rows in pd.concat(parts).groupby(['config', 'seed']) if parts else ():
        for a, b in itertools.combinations(rows.to_dict('records'), 2):
            if any(pd.notna(a[c]) and pd.notna(b[c]) and a[c] != b[c] for c in CONDITIONS):
                continue
            far = [f'{m} {a[m]:.3f} and {b[m]:.3f}' for m in METRICS if abs(a[m] - b[m]) > TOLERANCE]
            if far:
                said.append(f'{a["table"]} and {b["table"]}, {config}, seed {seed:.0f}: {", ".join(far)}')
    if said:
        raise ValueError(
            'rows of one configuration and seed disagree; make the older table anew, with the same number of threads:\n'
            + '\n'.join(dict.fromkeys(said))
        )


def check_tables(folder: Path) -> None:
    """``check_same_runs`` over all tables of a folder, such as ``figures/tables``.

    Raises:
        ValueError: see ``check_same_runs``.
    """
    check_same_runs({path.stem: pd.read_csv(path) for path in sorted(folder.glob('*.csv')) if path.stat().st_size})


def summary_table(results: pd.DataFrame) -> pd.DataFrame:
    """One row per model and mask source, with the names that readers see."""
    table = mean_and_spread(results, ['model', 'masks']).reset_index()
    names = {'fg_ari': 'FG-ARI', 'mbo_i': 'mBO_i', 'mbo_c': 'mBO_c', 'miou': 'mIoU'}
    return table.replace({'masks': {'-': '–'}}).rename(columns=names)  # a lone hyphen would start a list in Markdown


def against_published(results: pd.DataFrame, published: pd.DataFrame) -> str:
    """A sentence on whether a run's means lie where published runs of the same configuration predict them.

    Processors of another kind, thread counts and versions change sums in the last bit and, through training, numbers;
    by as much as another seed does.

    Args:
        results: rows of a run, as in results.csv.
        published: one per run, with the column config and the metrics; five seeds or more of a configuration.
    """
    said, outside = [], []
    for (model, config), mine in results[results.masks.eq('decoder')].groupby(['model', 'config'], sort=False):
        known = published[published.config.eq(config)]
        if len(known) < 5:
            continue
        for metric in ('fg_ari', 'mbo_i'):
            low, high = prediction_interval(known[metric].to_numpy(), len(mine))[1:]
            found = mine[metric].mean()
            said.append(f'{model} {metric} {found:.1f} [{low:.1f}, {high:.1f}]')
            outside += [said[-1]] if not low <= found <= high else []
    if not said:
        return 'No published runs have this configuration (five seeds at least): nothing to compare with.'
    verdict = f'outside it: {", ".join(outside)}' if outside else 'all lie within it'
    return f'Against the 95 % prediction interval of the published seeds: {"; ".join(said)}: {verdict}.'


def markdown(table: pd.DataFrame) -> str:
    """A frame as a Markdown table."""
    lines = [list(table.columns), ['---'] * len(table.columns), *table.astype(str).to_numpy().tolist()]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)
