"""Several processes under torchrun (gloo, on the CPU) against one: same losses, same codebook, and resumption."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from tests.processes import ENVIRONMENT, ROOT, torchrun
from topdown import distributed
from topdown.model.encoder import make_encoder
from topdown.train.checkpoint import Checkpoint, load_checkpoint
from topdown.train.health import VARYING
from topdown.train.loop import train_model

READ = 'cache_tokens=False'


def command(processes, folder, tiny, *changes, options=()):
    """How the tiny configuration is trained on so many processes, with stored tokens if nothing else is said."""
    settings = [
        f'data_root={tiny.data.data_root}', f'toybox={json.dumps(tiny.data.toybox)}', 'steps=6', 'batch_size=4',
        'eval_every=3', 'checkpoint_every=0', 'eval_images=6', 'codebook_size=8', 'dead_code_threshold=0.2',
        'precision=fp32', *([] if READ in changes else [f'token_dir={folder.parent}/tokens']), *changes,
    ]  # fmt: skip
    words = [f'--{setting}' for setting in settings]
    return torchrun(processes, '--preset', 'smoke', '--folder', str(folder), *options, *words)


def launch(processes, folder, tiny, *changes, options=(), expect=0):
    """Train; returns what was printed."""
    done = subprocess.run(
        command(processes, folder, tiny, *changes, options=options), cwd=ROOT, env=ENVIRONMENT, capture_output=True,
        text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == expect, done.stderr[-3000:]
    return done.stdout + done.stderr


def assert_same(a, b):
    """Losses, evaluations, codebook and weights of two runs."""
    for name, tolerance in (('log', 2e-4), ('evaluations', 0.05)):  # one pixel on a border is 0.004 percent
        first, second = (pd.read_csv(folder / f'{name}.csv') for folder in (a, b))
        columns = [c for c in first if c not in ('lr', *VARYING)]
        np.testing.assert_allclose(first[columns], second[columns], rtol=2e-4, atol=tolerance)
    first, second = (load_file(folder / 'checkpoint.safetensors') for folder in (a, b))
    for key in (k for k in first if k.startswith('model.')):
        torch.testing.assert_close(first[key], second[key], atol=5e-4, rtol=1e-3)  # six steps of 2e-3 moved it
    assert torch.equal(first['random_state'], second['random_state'])  # all processes drew alike


@pytest.mark.parametrize('processes', [2, 4])
def test_shares_are_the_batch_and_gradients_are_averaged(tiny, tmp_path, processes):
    """What goes wrong most often, asserted in every process; see ``tests.processes``."""
    place = {'data_root': tiny.data.data_root, 'toybox': tiny.data.toybox}
    cases = [
        {'precision': 'fp32', 'token_dir': str(tmp_path)},
        {'precision': 'fp32', 'cache_tokens': False, 'num_workers': 1, 'decoder': 'autoregressive'},
        {'precision': 'bf16', 'cache_tokens': False, 'decoder': 'autoregressive', 'patch_order': 'random'},
        {'precision': 'fp32', 'token_dir': str(tmp_path), 'decoder': 'diffusion'},
    ]
    words = torchrun(processes, *(json.dumps(place | case) for case in cases), module='tests.processes')
    done = subprocess.run(words, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ('processes', 'changes'),
    [(2, ['decoder=autoregressive', READ, 'num_workers=1']), (4, [])],
    ids=str,
)
def test_several_processes_equal_one(tiny, tmp_path, processes, changes):
    launch(1, tmp_path / 'one', tiny, *changes)
    printed = launch(processes, tmp_path / 'several', tiny, *changes)
    assert printed.count('fg_ari') == 1  # only the main process speaks
    assert_same(tmp_path / 'one', tmp_path / 'several')


def test_several_processes_equal_one_in_bfloat16(tiny, tmp_path):
    """As far as rounding to 8 bits lets them: by the losses."""
    for processes in (1, 2):
        launch(processes, tmp_path / str(processes), tiny, 'precision=bf16', READ, 'num_workers=1')
    one, two = (pd.read_csv(tmp_path / name / 'log.csv') for name in '12')
    np.testing.assert_allclose(one.loss, two.loss, rtol=5e-4)  # measured: 2e-5


def children(pid):
    """Processes that a process started and theirs."""
    found = []
    for task in Path(f'/proc/{pid}/task').glob('*/children'):
        for child in map(int, task.read_text().split()):
            found += [child, *children(child)]
    return found


def is_rank(pid):
    try:
        return b'topdown.train' in Path(f'/proc/{pid}/cmdline').read_bytes()
    except OSError:
        return False


@pytest.mark.skipif(not Path(f'/proc/self/task/{os.getpid()}/children').exists(), reason='needs /proc')
def test_a_killed_process_ends_the_job_and_the_run_goes_on(tiny, tmp_path):
    changes = ('steps=400', 'eval_every=0', 'checkpoint_every=2', 'log_every=100')
    job = subprocess.Popen(
        command(2, tmp_path, tiny, *changes), cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    checkpoint = tmp_path / 'checkpoint.safetensors'
    try:
        deadline = time.monotonic() + 120
        while not checkpoint.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        ranks = [pid for pid in children(job.pid) if is_rank(pid)]
        assert len(ranks) == 2
        os.kill(ranks[-1], signal.SIGKILL)
        assert job.wait(timeout=60) != 0
    finally:
        for pid in (*children(job.pid), job.pid):
            if job.poll() is None:
                os.kill(pid, signal.SIGKILL)
    stopped = load_checkpoint(checkpoint)  # whole, though a process died while it may have been written
    assert 0 < stopped.step < 400
    launch(1, tmp_path, tiny, *changes)
    assert load_checkpoint(checkpoint).step == 400
    assert pd.read_csv(tmp_path / 'log.csv').step.tolist() == [100, 200, 300, 400]


SAME = """
import torch
from topdown import distributed
distributed.start()
rank = distributed.rank()
assert distributed.same(torch.arange(5.0))
assert not distributed.same(torch.arange(5.0) + rank)
assert not distributed.same(torch.tensor([1.0, -1.0]) * (1 + rank))  # the sums agree, the squares do not
distributed.stop()
"""


def test_processes_notice_that_they_differ(tmp_path):
    (tmp_path / 'same.py').write_text(SAME)
    start = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2']
    done = subprocess.run(
        [*start, str(tmp_path / 'same.py')], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_run_goes_on_with_another_number_of_processes(tiny, tmp_path):
    launch(1, tmp_path / 'one', tiny)
    launch(2, tmp_path / 'stopped', tiny, options=('--stop-at', '3'))
    for processes in (1, 2, 4):
        shutil.copytree(tmp_path / 'stopped', tmp_path / f'on{processes}')
        launch(processes, tmp_path / f'on{processes}', tiny)
        assert_same(tmp_path / 'one', tmp_path / f'on{processes}')


def test_processes_differ_by_rounding_that_training_makes_grow(tiny, tmp_path):
    """Where two processes part from one, and that it is not a different sum.

    A gradient sums over images and patches. Added in two orders, sums of n terms differ by about sqrt(n) units of
    rounding (2^-24 of the largest number). That is all there is after the first step; from then on, training makes
    any such difference grow: one process whose weights are moved once by one unit of rounding parts from itself as far.
    """
    options = ('steps=60', 'eval_every=0', 'log_every=60')
    for processes in (1, 2):
        launch(processes, tmp_path / str(processes), tiny, *options, options=('--stop-at', '1'))
    shutil.copytree(tmp_path / '1', tmp_path / 'nudged')
    one, two = (load_file(tmp_path / name / 'checkpoint.safetensors') for name in '12')
    gradients = [name for name in one if name.endswith('/exp_avg')]
    largest = max(float(one[name].abs().max()) for name in gradients)
    apart = max(float((one[name] - two[name]).abs().max()) for name in gradients)
    assert apart < 2 * (4 * 144) ** 0.5 * 2**-24 * largest
    saved = load_checkpoint(tmp_path / 'nudged' / 'checkpoint.safetensors')
    encoder = make_encoder(saved.config)
    generator = torch.Generator().manual_seed(0)

    def nudged(self, model):
        plain(self, model)
        for parameter in model.parameters():
            up = torch.rand(parameter.shape, generator=generator) < 0.5
            parameter.data = torch.where(up, *(torch.nextafter(parameter.data, torch.tensor(s)) for s in (9.0, -9.0)))

    plain = Checkpoint.load_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, 'load_model', nudged)
        train_model(saved.config, tmp_path / 'nudged', encoder, progress=False)
    for processes in (1, 2):
        launch(processes, tmp_path / str(processes), tiny, *options)
    ends = {name: load_file(tmp_path / name / 'checkpoint.safetensors') for name in ('1', '2', 'nudged')}
    weights = ['model.' + name.removeprefix('optimizer.').removesuffix('/exp_avg') for name in gradients]

    def distance(name):
        return max(float((ends['1'][w] - ends[name][w]).abs().max()) for w in weights)

    print(  # shown with pytest -s
        f'gradients {apart / largest:.1e} of the largest; after 60 steps {distance("2"):.1e}, '
        f'nudged {distance("nudged"):.1e}'
    )
    assert distance('2') < 10 * distance('nudged')
    assert distance('nudged') > 1000 * 2**-24  # it grew


def test_batches_that_cannot_be_shared_out_are_refused(tiny, tmp_path):
    printed = launch(2, tmp_path / 'odd', tiny, 'batch_size=3', expect=1)
    assert 'batch_size=3 cannot be shared out to 2 processes' in printed


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({}, r'memory of each of 4 processes: set token_dir'),
        (
            {'cache_tokens': False, 'eval_images': 3},
            '3 validation images, in clips of 1, cannot be shared out to 4 processes',
        ),
    ],
    ids=str,
)
def test_what_several_processes_cannot_share_is_refused(monkeypatch, tiny, tmp_path, changes, message):
    monkeypatch.setattr(distributed, 'world', lambda: 4)
    monkeypatch.setattr(distributed, 'wait', lambda: None)
    with pytest.raises(ValueError, match=message):
        train_model(tiny.with_(**changes), tmp_path / 'run', progress=False)
    assert not (tmp_path / 'run').exists()


def test_an_epoch_shorter_than_a_batch_ends_all_with_one_message(tiny, tmp_path):
    printed = launch(2, tmp_path / 'short', tiny, 'batch_size=26', READ, expect=1)
    assert printed.count('batch_size=26 exceeds the 24 training images of an epoch') == 1


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
