"""Several processes under torchrun (gloo, on the CPU) against one: same losses, same codebook, and resumption."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from topdown import distributed

ROOT = Path(__file__).parent.parent


def launch(processes, folder, tiny, *changes, options=(), expect=0):
    """Train the tiny configuration on so many processes; returns what it printed."""
    arguments = [
        '--preset', 'smoke', '--folder', str(folder), *options, f'data_root={tiny.data.data_root}',
        f'toybox={json.dumps(tiny.data.toybox)}', 'steps=6', 'batch_size=4', 'eval_every=3', 'checkpoint_every=0',
        'eval_images=6', 'codebook_size=8', 'dead_below=0.2', 'precision=fp32', *changes,
    ]  # fmt: skip
    start = [sys.executable]
    if processes > 1:
        start += ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}']
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    done = subprocess.run(
        [*start, '-m', 'topdown.train', *arguments], cwd=ROOT, env=environment, capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == expect, done.stderr[-3000:]
    return done.stdout + done.stderr


def assert_same(a, b):
    """Losses, evaluations, codebook and weights of two runs."""
    for name in ('log', 'evaluations'):
        first, second = (pd.read_csv(folder / f'{name}.csv') for folder in (a, b))
        columns = [c for c in first if c not in ('lr',)]
        np.testing.assert_allclose(first[columns], second[columns], rtol=2e-4, atol=2e-4)
    first, second = (load_file(folder / 'checkpoint.safetensors') for folder in (a, b))
    for key in (k for k in first if k.startswith('model.')):
        torch.testing.assert_close(first[key], second[key], atol=2e-4, rtol=1e-3)
    assert torch.equal(first['random_state'], second['random_state'])  # all processes drew alike


@pytest.mark.parametrize('change', ['decoder=slotwise', 'decoder=autoregressive'])
def test_two_processes_equal_one(tiny, tmp_path, change):
    launch(1, tmp_path / 'one', tiny, change)
    printed = launch(2, tmp_path / 'two', tiny, change)
    assert printed.count('fg_ari') == 1  # only the main process speaks
    assert_same(tmp_path / 'one', tmp_path / 'two')


def test_a_run_goes_on_with_another_number_of_processes(tiny, tmp_path):
    launch(1, tmp_path / 'one', tiny)
    launch(2, tmp_path / 'changing', tiny, options=('--stop-at', '3'))
    launch(1, tmp_path / 'changing', tiny)
    assert_same(tmp_path / 'one', tmp_path / 'changing')


def test_batches_that_cannot_be_shared_out_are_refused(tiny, tmp_path):
    printed = launch(2, tmp_path / 'odd', tiny, 'batch_size=3', expect=1)
    assert 'batch_size=3 cannot be shared out to 2 processes' in printed


def test_alone_everything_is_as_without_processes():
    assert (distributed.rank(), distributed.world(), distributed.is_main()) == (0, 1, True)
    assert distributed.share(7) == slice(0, 7)
    x = torch.randn(3, 2)
    assert distributed.gather(x) is x
    assert distributed.mean(x[0, 0]) == x[0, 0]
    assert distributed.gather_lists([1, 2]) == [1, 2]
    assert distributed.rows(lambda count: torch.ones(count, 4), 3).shape == (3, 4)


def test_shares_cover_everything_once(monkeypatch):
    monkeypatch.setattr(distributed, 'world', lambda: 3)
    found = []
    for rank in range(3):
        monkeypatch.setattr(distributed, 'rank', lambda rank=rank: rank)
        found += range(10)[distributed.share(10)]
    assert found == list(range(10))
