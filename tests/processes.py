"""What several processes compute, against what one does: ``python -m tests.processes`` writes
figures/tables/processes.csv.

Started by torchrun, ``-m tests.processes CHANGES ...`` asserts in every process, for every set of changes to preset
smoke, what the numbers rest on: that shares of a batch do not overlap and are the batch together, and that gradients
are the mean over processes, which is the gradient of the whole batch in one process.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pandas as pd
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from topdown import distributed
from topdown.config import Config
from topdown.data import open_dataset
from topdown.model.encoder import make_encoder
from topdown.presets import preset
from topdown.train.batches import TrainData, _Plan
from topdown.train.loop import build_model, make_optimizer

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
STEPS = 60
TOLERANCE = {'fp32': 1e-6, 'bf16': 0.03}
"""Of gradients, relative to their norm; measured: 1e-7 and 0.01. Batches of other sizes round otherwise."""


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Compute as a process without others would."""
    with mock.patch.multiple(distributed, world=lambda: 1, rank=lambda: 0):
        yield


def gradient(model: nn.Module) -> torch.Tensor:
    """Of all that is trained, as one vector; what has none raises."""
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


def check_shares(data: TrainData, config: Config) -> None:
    """Over an epoch: shares of a step do not overlap, and all processes' shares are the step's images, in order."""
    batch, seen = config.train.batch_size, []
    steps = len(data.dataset) // batch
    for step, rows in enumerate(_Plan(data.dataset, config, 0, steps)):
        own = [index for index, _, _ in rows]
        every = distributed.gather_lists(own)
        assert len(own) == batch // distributed.world()
        assert len(set(every)) == batch
        assert [data.dataset.ids[i] for i in every] == data.image_ids(step, config)
        seen += every
    assert len(set(seen)) == steps * batch


def check_gradients(data: TrainData, config: Config) -> None:
    """One step of all processes against one of one process on the whole batch, from the same weights and draws."""
    (tokens,) = data.batches(0, 1)
    with alone():
        (whole,) = data.batches(0, 1)
    together = distributed.gather(tokens)
    assert together.shape == whole.shape
    assert (together - whole).norm() < TOLERANCE[data.encoder.precision] * whole.norm()
    model = build_model(config, data.encoder)
    single, local = copy.deepcopy(model), copy.deepcopy(model)
    state = torch.get_rng_state()
    with alone():
        single(together).loss.backward()
    torch.set_rng_state(state)
    local(tokens).loss.backward()
    torch.set_rng_state(state)
    call = DistributedDataParallel(model)  # averages as long as it is there
    call(tokens).loss.backward()
    right, tolerance = gradient(single), TOLERANCE[model.precision]
    assert (gradient(model) - right).norm() < tolerance * right.norm()
    assert (gradient(local) - right).norm() > 5 * tolerance * right.norm()  # of a share alone it is another
    if model.codebook is not None:
        assert distributed.same(model.codebook.codes)
        assert (model.codebook.codes - single.codebook.codes).norm() < tolerance * single.codebook.codes.norm()
    make_optimizer(model, config.train).step()
    assert distributed.same(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert distributed.same(torch.get_rng_state())


def torchrun(processes: int, *words: str, module: str = 'topdown.train') -> list[str]:
    """The command that runs a module on so many processes."""
    start = ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}'] if processes > 1 else []
    return [sys.executable, *start, '-m', module, *words]


def table(folder: Path) -> pd.DataFrame:
    """Preset ``slotwise`` on one, two and four processes, and on one of two threads, whose sums differ as theirs do."""
    rows, first = [], {}
    for precision in ('fp32', 'bf16'):
        for processes, threads in ((1, 1), (2, 1), (4, 1), (1, 2)):
            run = folder / f'{precision}-{processes}-{threads}'
            settings = {
                'folder': run, 'steps': STEPS, 'precision': precision, 'threads': threads,
                'token_dir': folder / 'tokens', 'eval_every': 0, 'eval_images': 8, 'warmup_steps': 10, 'log_every': 1,
                'checkpoint_every': 0,
            }  # fmt: skip
            words = [f'--{name}={value}' for name, value in settings.items()]
            subprocess.run(torchrun(processes, '--preset', 'slotwise', *words), cwd=ROOT, env=ENVIRONMENT, check=True)
            log, saved = pd.read_csv(run / 'log.csv'), load_file(run / 'checkpoint.safetensors')
            trained = {name.split('/')[0].removeprefix('optimizer.') for name in saved if name.endswith('/exp_avg')}
            weights = {name: saved[f'model.{name}'] for name in trained}
            first = weights if processes == threads == 1 else first
            apart = max(float((weights[name] - first[name]).abs().max()) for name in first)
            rows.append({
                'precision': precision, 'processes': processes, 'threads each': threads,
                'gradient norm, step 1': f'{log.gradient_norm.iloc[0]:.7f}',
                f'loss, step {STEPS}': f'{log.loss.iloc[-1]:.5f}',
                f'largest difference of a weight, step {STEPS}': f'{apart:.1e}',
                'steps a second': f'{1 / log.step_s.iloc[10:].median():.1f}',
            })  # fmt: skip
    return pd.DataFrame(rows)


if __name__ == '__main__':
    if len(sys.argv) > 1:
        distributed.start()
        for changes in sys.argv[1:]:
            chosen = preset('smoke', **json.loads(changes))
            encoder = make_encoder(chosen)
            with distributed.main_first():
                known = TrainData(open_dataset(chosen, 'train', progress=False), encoder, chosen)
            check_shares(known, chosen)
            check_gradients(known, chosen)
        distributed.stop()
    else:
        with tempfile.TemporaryDirectory() as place:
            result = table(Path(place))
        result.to_csv(ROOT / 'figures' / 'tables' / 'processes.csv', index=False)
        print(result.to_string(index=False))
