"""A run's rows and figures, copied to where the book and the README show them."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pandas as pd

from topdown.book.places import figures_dir
from topdown.book.summaries import against_published, check_tables, markdown, mean_and_spread, summary_table

DEFAULT_PRESET = 'toybox'


BEGIN, END = '<!-- results:begin -->', '<!-- results:end -->'


def publish(folder: Path, figures: Path, readme: Path | None = None, pictures: bool = True) -> None:
    """Copy a run's rows and figures to where the book and the README show them.

    Writes ``figures/tables/<preset>.csv`` (all rows), ``<preset>_summary.csv`` (means), ``_uncertainty``, ``_paired``
    and ``_protocols`` where the run has them, the PNGs (the default preset's to ``figures``, others' to
    ``figures/<preset>``), and the table between the markers of the README.

    Args:
        folder: a run's folder, named after its preset, with results.csv.
        figures: the project's ``figures`` folder.
        readme: the file whose table is replaced.
        pictures: copy the PNGs, too.

    Raises:
        ValueError: once all is written, if its rows and those of another table disagree (see ``check_same_runs``).
    """
    results = pd.read_csv(folder / 'results.csv')
    tables = figures / 'tables'
    tables.mkdir(parents=True, exist_ok=True)
    results.to_csv(tables / f'{folder.name}.csv', index=False)
    summary = summary_table(results)
    summary.to_csv(tables / f'{folder.name}_summary.csv', index=False)
    for name in ('uncertainty', 'paired', 'protocols'):
        if (folder / f'{name}.csv').is_file():
            shutil.copy(folder / f'{name}.csv', tables / f'{folder.name}_{name}.csv')
    place = figures if folder.name == DEFAULT_PRESET else figures / folder.name
    for picture in folder.glob('*.png') if pictures else ():
        place.mkdir(exist_ok=True)
        shutil.copy(picture, place / picture.name)
    if readme is not None:
        before, rest = readme.read_text().split(BEGIN)
        after = rest.split(END)[1]
        readme.write_text(f'{before}{BEGIN}\n{markdown(summary)}\n{END}{after}')
    check_tables(tables)


def main(arguments: list[str] | None = None) -> None:
    """Command line: ``python -m topdown.results FOLDER`` prints the result table of a run and lists its figures.

    With ``--publish`` they are also copied to ``figures/`` of the current folder, and those of the default preset into
    its README.
    """
    parser = argparse.ArgumentParser(prog='python -m topdown.results', description='Show the results of a run.')
    parser.add_argument('folder', type=Path, help='folder that holds results.csv, such as runs/toybox')
    parser.add_argument('--publish', action='store_true', help='copy them to figures/, the default to the README too')
    parser.add_argument('--no-pictures', action='store_true', help='with --publish: copy tables only')
    options = parser.parse_args(arguments)
    folder = options.folder
    path = folder / 'results.csv'
    if not path.is_file():
        parser.exit(1, f'error: {path} is missing: run book/03_train_coco.ipynb first\n')
    if options.publish:
        readme = Path('README.md') if folder.name == DEFAULT_PRESET else None
        try:
            publish(folder, Path('figures'), readme, not options.no_pictures)
        except ValueError as error:
            parser.exit(1, f'error: {error}\n')
    results = pd.read_csv(path)
    names = ', '.join(sorted(results['dataset'].unique()))
    print(f'\nResults on {names} (percent, held-out pictures):\n')
    print(mean_and_spread(results, ['model', 'masks']).to_string())
    print('\nFigures:', *sorted(str(p) for p in folder.glob('*.png')), sep='\n  ')
    table = figures_dir() / 'tables' / f'{folder.name}_ablation.csv'
    if table.is_file():
        print(f'\n{against_published(results, pd.read_csv(table))}')


if __name__ == '__main__':
    main()
