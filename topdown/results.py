"""Result rows with provenance: every number in a table knows the run it came from."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from topdown.config import Config

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


def main(arguments: list[str] | None = None) -> None:
    """Command line: ``python -m topdown.results FOLDER`` prints the result table of a run and lists its figures."""
    parser = argparse.ArgumentParser(prog='python -m topdown.results', description='Show the results of a run.')
    parser.add_argument('folder', type=Path, help='folder that holds results.csv, such as runs/toybox')
    folder = parser.parse_args(arguments).folder
    path = folder / 'results.csv'
    if not path.is_file():
        parser.exit(1, f'error: {path} is missing: run book/03_train_coco.ipynb first\n')
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
