"""Where a number comes from: every row of a table knows its run."""

from __future__ import annotations

import datetime
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from topdown.config import Config
from topdown.precision import processor, uses_tf32


def provenance(config: Config, seconds: float, precision: str) -> dict[str, object]:
    """Where a row comes from: preset and its hash, seed, commit, versions, device, wall time in seconds.

    ``precision`` is the one that was computed in, bf16 or fp32.
    """
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
        'device': torch.cuda.get_device_name() if torch.cuda.is_available() else processor(),
        'threads': torch.get_num_threads(),
        'precision': precision,
        'tf32': uses_tf32(),
        'topdown': version('topdown'),
        'torch': torch.__version__,
        'timm': version('timm'),
        'python': platform.python_version(),
    }


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
