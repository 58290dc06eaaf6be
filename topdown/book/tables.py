"""Tables of the book: the paper's figures beside ours, effects with intervals, and the verdict on every claim.

Frames in, frames out; ``read`` and the functions named after it are the only ones that open files. Nothing is invented:
a published cell that was not transcribed is ``NOT_AVAILABLE``, a run that was not made is ``NOT_RUN``, and a cell that
makes no sense (a method on a data set that nobody gave it) is ``NOTHING``.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from topdown.book.summaries import effect_table
from topdown.evaluate.statistics import seed_interval
from topdown.presets import VARIANTS
from topdown.train.journal import read_table as read

NOT_AVAILABLE, NOT_RUN, NOTHING = 'not available', 'not run', '–'


NAMES = {'fg_ari': 'FG-ARI', 'mbo_i': 'mBO_i', 'mbo_c': 'mBO_c', 'miou': 'mIoU', 'ari': 'ARI'}
"""Column of our rows -> name that readers see."""


OURS = {'FG-ARI': 'fg_ari', 'mBO': 'mbo_i', 'mBO_i': 'mbo_i', 'mBO_c': 'mbo_c'}
"""Metric of a published table -> column of our rows that stands beside it."""


_BRIEF = ('FG-ARI', 'mBO_i')


EXPERIMENTS = ('ablation', 'codebook', 'categories', 'difficulty')
"""Experiments that have a table of their own, ``<preset>_<experiment>.csv``."""


HERE, REPORTED = 'this book', 'paper'


# ------------------------------------------------------------------------------------------------------ reading


def read_published(folder: str | Path) -> pd.DataFrame:
    """All transcribed tables of ``figures/paper`` in one frame: table, row, dataset, metric, value, source, note."""
    parts = [read(path) for path in sorted(Path(folder).glob('*.csv')) if path.stem != 'claims']
    return pd.concat([p.astype({'value': str}) for p in parts if len(p)], ignore_index=True)


def read_runs(folder: str | Path, name: str) -> pd.DataFrame:
    """Rows of trained models from ``figures/tables/<name>.csv``, in one form for all tables.

    Args:
        folder: ``figures/tables``.
        name: a preset ('toybox_category') or a preset and an experiment ('toybox_ablation').

    Returns:
        One row per run: variant, seed, the metrics in percent, and what else the file holds; masks of the decoder only.
        Empty, with columns variant and seed, if nothing was run.
    """
    table = read(Path(folder) / f'{name}.csv')
    if 'variant' not in table and 'model' in table:
        table = table.rename(columns={'model': 'variant'})
    if not len(table) or 'variant' not in table:
        return pd.DataFrame({'variant': pd.Series(dtype=str), 'seed': pd.Series(dtype=int)})
    if 'masks' in table:
        table = table[table.masks.isin(['decoder', '-'])]
    if 'experiment' not in table:  # tables of presets hold untrained baselines, too
        table = table[table.variant.isin(VARIANTS)]
    return table.reset_index(drop=True)


# ------------------------------------------------------------------------------------------- published beside ours


def spread(values: Iterable[float]) -> str:
    """'mean ± standard deviation' over seeds, the mean alone for one, ``NOT_RUN`` for none."""
    values = np.asarray(list(values), float)
    values = values[~np.isnan(values)]
    if not len(values):
        return NOT_RUN
    return f'{values.mean():.1f} ± {values.std(ddof=1):.1f}' if len(values) > 1 else f'{values[0]:.1f}'


def side_by_side(
    published: pd.DataFrame,
    here: dict[str, pd.DataFrame],
    ours: Iterable[str] | None = None,
    citations: dict[str, str] | None = None,
) -> pd.DataFrame:
    """Published figures and ours, one row per method and who reports it, one column per data set and metric.

    Data sets never share a column: figures on Toybox stand beside those on COCO, not under them.

    Args:
        published: rows of one table of the paper, and of peers, as ``read_published`` gives them. Rows that have the
            name of one of our variants are that variant.
        here: data set -> our runs on it (columns variant, seed, metrics); an empty frame stands for 'not run'. Data
            sets that the published rows lack get columns of their own, FG-ARI and mBO_i.
        ours: variants that have a row of ours even if nobody ran them; by default those of ``VARIANTS`` that are
            published, too.
        citations: source -> name of who reports; 'paper' for others.

    Returns:
        Strings. Index (method, reported by), columns (data set, metric) and the number of our runs.
    """
    columns = list(dict.fromkeys(zip(published.dataset, published.metric)))
    columns += [(dataset, metric) for dataset in here if dataset not in set(published.dataset) for metric in _BRIEF]
    order = list(dict.fromkeys([*published.dataset, *here]))
    columns = sorted(columns, key=lambda column: order.index(column[0]))
    methods = list(dict.fromkeys(published.row))
    ours = [name for name in methods if name in VARIANTS] if ours is None else list(ours)
    rows: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    for method in dict.fromkeys([*methods, *ours]):
        for source, cells in published[published.row == method].groupby('source', sort=False):
            who = (citations or {}).get(source, REPORTED)
            rows[method, who] = {(c.dataset, c.metric): c.value for c in cells.itertuples()}
        if method not in ours:
            continue
        rows[method, HERE], counts = {}, [0]
        for dataset, metric in columns:
            if dataset in here:
                found = here[dataset][here[dataset].variant == method]
                rows[method, HERE][dataset, metric] = spread(found.get(OURS[metric], []))
                counts.append(len(found))
        rows[method, HERE]['', 'runs'] = str(max(counts))
    cells = [[row.get(column, NOTHING) for column in [*columns, ('', 'runs')]] for row in rows.values()]
    return pd.DataFrame(
        cells,
        index=pd.MultiIndex.from_tuples(rows, names=['method', 'reported by']),
        columns=pd.MultiIndex.from_tuples([*columns, ('', 'runs')]),
    )


# ------------------------------------------------------------------------------------------------------- effects


def effects(
    runs: pd.DataFrame, against: str = 'baseline', metrics: Iterable[str] = ('fg_ari', 'mbo_i')
) -> pd.DataFrame:
    """Every variant minus one of them, over the seeds that both have, in points of percent.

    As ``results.effect_table``, but for tables in the making: empty if nothing can be compared, and of rows that are
    there twice the last one counts.

    Returns:
        variant, metric, difference, low, high (95 % Student's t over seeds, NaN for one seed), p (sign-flip permutation
        test over seeds, which with n seeds is at least 2 / 2^n), seeds. Empty if there is nothing to compare.
    """
    names = ['variant', 'metric', 'difference', 'low', 'high', 'p', 'pairs']
    if against not in set(runs.variant):
        return pd.DataFrame(columns=names).rename(columns={'pairs': 'seeds'})
    once = runs.drop_duplicates(['variant', 'seed'], keep='last')
    found = effect_table(once, against, tuple(metrics)).reindex(columns=names)
    return found[found.pairs > 0].reset_index(drop=True).rename(columns={'pairs': 'seeds'})


def effects_by(
    runs: pd.DataFrame,
    by: str,
    against: str = 'baseline',
    metrics: Iterable[str] = ('fg_ari', 'mbo_i'),
    otherwise: object = None,
) -> pd.DataFrame:
    """``effects`` in every group of a column, with that column first.

    Args:
        runs, against, metrics: see ``effects``.
        by: the column.
        otherwise: group whose runs of ``against`` stand in where a group has none of its own.
    """
    parts = []
    for group, part in runs.groupby(by, sort=False) if by in runs else ():
        if against not in set(part.variant):
            part = pd.concat([part, runs[(runs[by] == otherwise) & (runs.variant == against)]])
        found = effects(part, against, metrics)
        found.insert(0, by, group)
        parts.append(found)
    filled = [part for part in parts if len(part)]
    if not filled:
        return effects(runs.head(0), against, metrics).assign(**{by: []})
    return pd.concat(filled, ignore_index=True)


def show_effects(found: pd.DataFrame) -> pd.DataFrame:
    """Effects as strings: '+0.4 [-0.3, +1.1]', one row per variant, one column per metric."""
    if not len(found):
        return pd.DataFrame({'effect': [NOT_RUN]})
    shown = found.assign(text=[effect_text(r.difference, r.low, r.high) for r in found.itertuples()])
    table = shown.pivot(index='variant', columns='metric', values='text')
    table = table.loc[list(dict.fromkeys(found.variant)), [m for m in NAMES if m in table]].rename(columns=NAMES)
    table['seeds'] = found.groupby('variant').seeds.min()
    return table


def effect_text(difference: float, low: float, high: float) -> str:
    """'+0.4 [-0.3, +1.1]'; without the interval where there is none (one seed)."""
    text = f'{difference:+.1f}'
    return text if np.isnan(low) else f'{text} [{low:+.1f}, {high:+.1f}]'


def say_effects(found: pd.DataFrame, against: str) -> str:
    """Sentences on which variants lie above, below, or not clearly off what they are compared with: a line per metric.

    'Above' and 'below' mean that the 95 % interval over seeds excludes zero.
    """
    if not len(found):
        return NOT_RUN
    words = {1: f'above {against}', -1: f'below {against}', 0: f'not told apart from {against}'}
    lines = []
    for metric, part in found.groupby('metric', sort=False):
        groups: dict[int, list[str]] = {1: [], -1: [], 0: []}
        for row in part.itertuples():
            groups[sign(row.low, row.high)].append(row.variant)
        parts = [f'{words[side]}: {", ".join(names)}' for side, names in groups.items() if names]
        lines.append(wrap(f'{NAMES.get(metric, metric)}: {"; ".join(parts)}.'))
    return '\n'.join(lines)


def wrap(text: str) -> str:
    """Text in lines that fit the book's page."""
    return textwrap.fill(text, 78, subsequent_indent='  ')


def means_table(runs: pd.DataFrame, columns: Iterable[str] = tuple(NAMES), by: str = 'variant') -> pd.DataFrame:
    """Mean ± standard deviation over seeds, one row per variant, and the number of runs; 'not run' if empty."""
    if not len(runs):
        return pd.DataFrame({'runs': [NOT_RUN]})
    groups = runs.groupby(by, sort=False)
    table = pd.DataFrame({NAMES.get(c, c): groups[c].agg(spread) for c in columns if c in runs})
    table['runs'] = groups.size()
    return table


def sign(low: float, high: float) -> int:
    """1 or -1 if the interval lies on one side of zero, else 0."""
    return int(low > 0) - int(high < 0)


# ------------------------------------------------------------------------------------------------- codebook sizes


def with_codebook_size(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs with the column ``codebook_size``, from that column, from ``changes`` or from the variant's name.

    Runs whose size cannot be told are left out.
    """
    sizes = []
    for row in runs.to_dict('records'):
        size = row.get('codebook_size', np.nan)
        if pd.isna(size):
            found = re.search(r'codebook_size\W+(\d+)', str(row.get('changes', '')))
            found = found or re.fullmatch(r'(?:E|codebook|codes)\W*(\d+)', str(row['variant']))
            size = found.group(1) if found else np.nan
        sizes.append(float(size))
    table = runs.assign(codebook_size=pd.Series(sizes, index=runs.index, dtype=float)).dropna(subset='codebook_size')
    return table.astype({'codebook_size': int}).sort_values(['codebook_size', 'seed'], ignore_index=True)


# ------------------------------------------------------------------------------------------------ meaning of codes

PARTITIONS = {'code': 'codes', 'kmeans': 'k-means on slots'}
"""Prefix of a column that ``semantics.measure`` made -> what was held against the truth."""


def meaning(runs: pd.DataFrame) -> pd.DataFrame:
    """Columns such as ``code_category_ami`` as rows: the other columns, and partition, target, measure and value.

    Empty, with these four columns, if no run was measured.
    """
    pattern = re.compile(rf'({"|".join(PARTITIONS)})_(category|position|colour)_(\w+)')
    columns = [name for name in runs if pattern.fullmatch(name)]
    long = runs.melt([name for name in runs if name not in columns], columns, 'column', 'value').dropna(subset='value')
    parts = [pattern.fullmatch(name).groups() for name in long.column]
    names = ['partition', 'target', 'measure']
    found = pd.DataFrame(parts, columns=names, index=long.index).astype(object)
    found['partition'] = found.partition.map(PARTITIONS)
    return long.drop(columns='column').join(found)


def probe_summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of linear probes over seeds, one row per split and set of features, as readers see it.

    Args:
        rows: of ``runs.probes``.

    Returns:
        images (validation or training), features; one column per target, percent right, 'mean [low, high]' with the
        95 % interval (Student's t) over seeds; AMI with category, the mean over seeds, for features that are groups;
        objects, the least of a run; runs.
    """
    found = []
    for (split, name), part in rows.groupby(['split', 'features'], sort=False):
        row: dict[str, object] = {'images': {'val': 'validation', 'train': 'training'}[split], 'features': name}
        for target, values in part.groupby('target', sort=False).accuracy:
            mean, low, high = seed_interval(100 * values.to_numpy())
            row[target] = f'{mean:.1f}' if np.isnan(low) else f'{mean:.1f} [{low:.1f}, {high:.1f}]'
        ami = part[part.target == 'category'].ami.mean()
        row |= {'AMI with category': NOTHING if np.isnan(ami) else f'{ami:.2f}'}
        found.append({**row, 'objects': part.objects.min(), 'runs': part.seed.nunique()})
    return pd.DataFrame(found)
