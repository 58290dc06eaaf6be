"""Result rows with provenance: every number in a table knows the run it came from."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from topdown.config import Config

BEGIN, END = '<!-- results:begin -->', '<!-- results:end -->'
METRICS = ('fg_ari', 'mbo_i', 'mbo_c', 'miou')


def provenance(config: Config, seconds: float) -> dict[str, object]:
    """Where a row comes from: preset and its hash, seed, commit, versions, device, wall time in seconds."""
    return {
        'preset': config.name,
        'config': config.key,
        'seed': config.train.seed,
        'dataset': config.data.dataset,
        'protocol': config.data.protocol,
        'steps': config.train.steps,
        'seconds': round(seconds, 1),
        'commit': _commit(),
        'date': datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%d'),
        'device': torch.cuda.get_device_name() if torch.cuda.is_available() else _cpu(),
        'topdown': version('topdown'),
        'torch': torch.__version__,
        'timm': version('timm'),
        'python': platform.python_version(),
    }


def append_rows(path: str | Path, rows: list[dict[str, object]], same: tuple[str, ...] = ()) -> pd.DataFrame:
    """Add rows to a CSV table and return the whole; earlier rows equal in the columns ``same`` are replaced.

    The file is written beside its target and moved into place.
    """
    path = Path(path)
    table = pd.DataFrame(rows)
    if path.exists():
        old = pd.read_csv(path)
        if same:
            fresh = set(map(tuple, table[list(same)].astype(str).to_numpy()))
            old = old[[tuple(row) not in fresh for row in old[list(same)].astype(str).to_numpy()]]
        table = pd.concat([old, table], ignore_index=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    table.to_csv(temporary, index=False)
    os.replace(temporary, path)
    return table


def mean_and_spread(table: pd.DataFrame, by: str | list[str] = 'model') -> pd.DataFrame:
    """Mean and standard deviation over rows (seeds) of every metric, as 'mean +- std', and the number of rows.

    A single row has no spread and shows the mean alone. Groups keep the order in which they first occur.
    """

    def show(values: pd.Series) -> str:
        mean = f'{values.mean():.1f}'
        return f'{mean} ± {values.std():.1f}' if len(values) > 1 else mean

    groups = table.groupby(by, sort=False)
    result = groups[[m for m in METRICS if m in table]].agg(show)
    result['runs'] = groups.size()
    return result


def project_dir() -> Path:
    """Where a notebook's relative paths start: the current folder, or its parent if that is ``book``."""
    here = Path.cwd()
    return here.parent if here.name == 'book' else here


def publish(folder: Path, figures: Path, readme: Path | None = None) -> None:
    """Copy a run's rows and figures to where the book and the README show them.

    Writes ``figures/tables/<preset>.csv`` (all rows), ``<preset>_summary.csv`` (means), the PNGs, and the
    table between the markers of the README.

    Args:
        folder: a run's folder, named after its preset, with results.csv.
        figures: the project's ``figures`` folder.
        readme: the file whose table is replaced.
    """
    results = pd.read_csv(folder / 'results.csv')
    tables = figures / 'tables'
    tables.mkdir(parents=True, exist_ok=True)
    results.to_csv(tables / f'{folder.name}.csv', index=False)
    summary = summary_table(results)
    summary.to_csv(tables / f'{folder.name}_summary.csv', index=False)
    for picture in folder.glob('*.png'):
        shutil.copy(picture, figures / picture.name)
    if readme is not None:
        before, rest = readme.read_text().split(BEGIN)
        after = rest.split(END)[1]
        readme.write_text(f'{before}{BEGIN}\n{markdown(summary)}\n{END}{after}')


def summary_table(results: pd.DataFrame) -> pd.DataFrame:
    """One row a model and mask source, with the names that readers see."""
    table = mean_and_spread(results, ['model', 'masks']).reset_index()
    names = {'fg_ari': 'FG-ARI', 'mbo_i': 'mBO_i', 'mbo_c': 'mBO_c', 'miou': 'mIoU'}
    return table.rename(columns=names)


def markdown(table: pd.DataFrame) -> str:
    """A frame as a Markdown table."""
    lines = [list(table.columns), ['---'] * len(table.columns), *table.astype(str).to_numpy().tolist()]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def main(arguments: list[str] | None = None) -> None:
    """Command line: ``python -m topdown.results FOLDER`` prints the result table of a run and lists its figures.

    With ``--publish`` they are also copied to ``figures/`` and into the README of the current folder.
    """
    parser = argparse.ArgumentParser(prog='python -m topdown.results', description='Show the results of a run.')
    parser.add_argument('folder', type=Path, help='folder that holds results.csv, such as runs/toybox')
    parser.add_argument('--publish', action='store_true', help='copy them to figures/ and the README')
    options = parser.parse_args(arguments)
    folder = options.folder
    path = folder / 'results.csv'
    if not path.is_file():
        parser.exit(1, f'error: {path} is missing: run book/03_train_coco.ipynb first\n')
    if options.publish:
        publish(folder, Path('figures'), Path('README.md'))
    results = pd.read_csv(path)
    names = ', '.join(sorted(results['dataset'].unique()))
    print(f'\nResults on {names} (percent, held-out pictures):\n')
    print(mean_and_spread(results, ['model', 'masks']).to_string())
    print('\nFigures:', *sorted(str(p) for p in folder.glob('*.png')), sep='\n  ')


def _commit() -> str:
    """Commit of the source tree, with '+' if it has changes; 'unknown' outside a repository."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ['git', 'rev-parse', '--short=10', 'HEAD'], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        changes = subprocess.run(
            ['git', 'status', '--porcelain', '--', '.'], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'
    return commit + ('+' if changes else '')


def _cpu() -> str:
    return f'CPU, {platform.machine()}, {os.cpu_count()} cores'


if __name__ == '__main__':
    main()
