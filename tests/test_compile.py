"""``compile=True``: a step is one graph, made once, and gives what it gives without."""

import shutil

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from topdown.model.slot_model import SlotModel
from topdown.presets import VARIANTS, preset
from topdown.train.checkpoint import load_checkpoint
from topdown.train.health import Health
from topdown.train.loop import make_optimizer, train_model

COMPILERS = ('c++', 'g++', 'clang++')


@pytest.fixture(autouse=True)
def anew():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch.compiler.set_stance('default')
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ('name', 'changes'),
    [
        ('smoke', {}), ('smoke', VARIANTS['baseline']), ('smoke', VARIANTS['released_default']),
        ('smoke', {'feedback_rounds': 2, 'decoder': 'mlp'}), ('clevr6_smoke', {}),
        ('smoke', {'decoder': 'diffusion'}),
        ('smoke', {'decoder': 'autoregressive', 'patch_order': 'random', 'input_masking': 0.1}),
    ],
    ids=str,
)  # fmt: skip
def test_from_the_second_step_on_a_step_is_one_graph_that_stays(name, changes):
    """The first step starts the codebook. Which graphs there are does not depend on what they are compiled to."""
    config = preset(name, **changes)
    patches, features = (config.encoder.image_size**2, 3) if config.encoder.name == 'pixels' else (16, 24)
    model = SlotModel(config.model, features, patches).train()
    model.precision = 'bf16'
    call = torch.compile(model, dynamic=False, backend='eager')
    optimizer = make_optimizer(model, config.train)
    for step in range(10):  # ten random orders of patches
        if step == 1:
            assert counters['frames']['ok']
            counters.clear()
        if step == 2:
            torch.compiler.set_stance('fail_on_recompile')
        optimizer.zero_grad()
        call(torch.randn(2, patches, features), need_masks=False).loss.backward()
        optimizer.step()
    assert counters['frames']['ok'] <= 1  # in the second step, if the first differs
    assert not counters['graph_break']


@pytest.mark.skipif(
    not any(map(shutil.which, COMPILERS)), reason=f'compile=True needs a C++ compiler: {", ".join(COMPILERS)}'
)
def test_a_compiled_run_is_the_run_that_is_not_compiled(tiny, tmp_path, monkeypatch):
    config = tiny.with_(num_iterations=1, precision='fp32', eval_every=2, steps=4)  # small: compiling takes its time
    plain = train_model(config, tmp_path / 'plain', progress=False)
    look, counted = Health.look, []

    def counting(self, step, *args):
        counted.append(counters['frames']['ok'])
        return look(self, step, *args)

    monkeypatch.setattr(Health, 'look', counting)
    run = train_model(config.with_(compile=True), tmp_path / 'compiled', progress=False)
    assert counted[0] > 0  # it was compiled
    assert len(set(counted[1:])) == 1  # and not again after step two, in spite of the evaluation
    np.testing.assert_allclose(run.log.loss, plain.log.loss, rtol=1e-5)
    first, second = (load_checkpoint(tmp_path / name / 'checkpoint.safetensors') for name in ('plain', 'compiled'))
    assert torch.equal(first.tensors['random_state'], second.tensors['random_state'])  # it draws alike
    for key in (k for k in first.tensors if k.startswith('model.')):
        torch.testing.assert_close(first.tensors[key], second.tensors[key], atol=1e-4, rtol=1e-3)
