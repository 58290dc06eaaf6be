"""A run's rows and figures, copied to where the book and the README show them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd

from topdown.book.places import figures_dir
from topdown.book.summaries import METRICS, against_published, check_tables, markdown, mean_and_spread, summary_table
from topdown.train.journal import read_table

DEFAULT_PRESET = 'toybox'


BEGIN, END = '<!-- results:begin -->', '<!-- results:end -->'


def publish(folder: Path, figures: Path, readme: Path | None = None, images: bool = True) -> None:
    """Copy a run's rows and figures to where the book and the README show them.

    Writes ``figures/tables/<preset>.csv`` (all rows), ``<preset>_summary.csv`` (means), ``_uncertainty``, ``_paired``
    and ``_protocols`` where the run has them, the PNGs (the default preset's to ``figures``, others' to
    ``figures/<preset>``), and the table between the markers of the README.

    Args:
        folder: a run's folder, named after its preset, with results.csv.
        figures: the project's ``figures`` folder.
        readme: the file whose table is replaced.
        images: copy the PNGs, too.

    Raises:
        ValueError: once all is written, if its rows and those of another table disagree (see ``check_same_runs``).
    """
    results = read_results(folder)
    tables = figures / 'tables'
    tables.mkdir(parents=True, exist_ok=True)
    results.to_csv(tables / f'{folder.name}.csv', index=False)
    summary = summary_table(results)
    summary.to_csv(tables / f'{folder.name}_summary.csv', index=False)
    for name in ('uncertainty', 'paired', 'protocols'):
        if (folder / f'{name}.csv').is_file():
            shutil.copy(folder / f'{name}.csv', tables / f'{folder.name}_{name}.csv')
    place = figures if folder.name == DEFAULT_PRESET else figures / folder.name
    for image in folder.glob('*.png') if images else ():
        place.mkdir(exist_ok=True)
        shutil.copy(image, place / image.name)
    if readme is not None:
        before, rest = readme.read_text().split(BEGIN)
        after = rest.split(END)[1]
        readme.write_text(f'{before}{BEGIN}\n{markdown(summary)}\n{END}{after}')
    check_tables(tables)


def show(folder: Path) -> str:
    """The result table of a run as text, its figures, and what the published interval says of it.

    Raises:
        FileNotFoundError: if the run is not there.
    """
    results = read_results(folder)
    names = ', '.join(sorted(results['dataset'].unique()))
    lines = [f'\nResults on {names} (percent, held-out images):\n']
    lines.append(mean_and_spread(results, ['model', 'masks']).to_string())
    if results[list(METRICS)].isna().all(axis=None):
        lines.append('No scores: the images have no true masks.')
    lines += ['\nFigures:', *(f'  {path}' for path in sorted(folder.glob('*.png')))]
    table = figures_dir() / 'tables' / f'{folder.name}_ablation.csv'
    if table.is_file():
        lines.append(f'\n{against_published(results, pd.read_csv(table))}')
    return '\n'.join(lines)


def read_results(folder: Path) -> pd.DataFrame:
    """Rows of the training chapter's run in a folder.

    Raises:
        FileNotFoundError: if it is not there.
    """
    path = folder / 'results.csv'
    if not path.is_file():
        raise FileNotFoundError(f'{path} is missing: run book/03_train_coco.ipynb first')
    found = read_table(path)
    numbers = found.reindex(columns=list(METRICS)).dtypes.map(pd.api.types.is_numeric_dtype)
    if not numbers.all() or not {'model', 'masks', 'dataset'} <= set(found):
        raise ValueError(f'{path} does not hold the rows of a training chapter: execute it again')
    return found
