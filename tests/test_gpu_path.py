"""What can be shown of the GPU path without a GPU.

Fake tensors have a device and shapes but no values, so whatever asks the device for a value (a host synchronisation)
fails on them. The forward pass is followed on a fake GPU, with the branches that a GPU takes; autograd's engine needs a
driver, so the rest of the step is followed on a fake CPU.
"""

import contextlib

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from topdown import precision
from topdown.model.codebook import Codebook, sum_by_code
from topdown.model.slot_model import SlotModel
from topdown.presets import preset
from topdown.train.loop import make_optimizer


def plain_gru(self, x, h):
    """GRU cell by its equations: the fused GPU kernel does not know fake tensors."""
    r, z, n = (x @ self.weight_ih.T + self.bias_ih).chunk(3, dim=-1)
    hr, hz, hn = (h @ self.weight_hh.T + self.bias_hh).chunk(3, dim=-1)
    r, z = torch.sigmoid(r + hr), torch.sigmoid(z + hz)
    return (1 - z) * torch.tanh(n + r * hn) + z * h


def test_plain_gru_is_the_gru_cell():
    cell = nn.GRUCell(3, 4)
    x, h = torch.randn(5, 3), torch.randn(5, 4)
    torch.testing.assert_close(plain_gru(cell, x, h), cell(x, h))


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
@pytest.mark.parametrize('decoder', ['autoregressive', 'slotwise', 'mlp', 'diffusion'])
@pytest.mark.parametrize(
    'changes', [{}, {'top_down': False}, {'modulate_queries': True, 'feedback_rounds': 2}], ids=str
)
def test_no_training_step_asks_the_device_for_a_value(monkeypatch, device, decoder, changes):
    monkeypatch.setattr(nn.GRUCell, 'forward', plain_gru)
    layers = {'decoder_layers': 2} if decoder in ('autoregressive', 'diffusion') else {}
    config = preset('coco', decoder=decoder, **layers, **changes)
    with FakeTensorMode(), torch.device(device):
        model = SlotModel(config.model, 64, 16).train()
        model.precision = 'bf16' if device == 'cpu' else 'fp32'
        if model.codebook is not None:
            model.codebook._started = True  # the first batch starts it, and may ask
        optimizer = make_optimizer(model, config.train)
        tokens = torch.empty(8, 16, 64)
        out = model(tokens, need_masks=False)
        assert out.loss.device.type == device
        assert out.loss.dtype == torch.float32
        if device == 'cpu':
            out.loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        with pytest.raises(DataDependentOutputException):  # such a question would have been noticed
            out.loss.item()
        if model.codebook is not None and device == 'cuda':
            model.codebook._started = False
            with pytest.raises(DataDependentOutputException):
                model(tokens)


def test_products_follow_the_precision_and_the_loss_is_float32():
    model = SlotModel(preset('coco', top_down=False, decoder='mlp').model, 64, 16).train()
    seen = []
    model.decoder.mlp[1].register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    for name, kind in (('bf16', torch.bfloat16), ('fp32', torch.float32)):
        model.precision = name
        out = model(torch.randn(2, 16, 64))
        assert seen.pop() == kind
        assert out.loss.dtype == torch.float32


def test_the_fused_kernel_gives_what_explicit_attention_gives():
    """A GPU runs scaled_dot_product_attention, a CPU blocks of its own: the same numbers and gradients."""
    from topdown.model.decoders import _CausalAttention

    for count in (1, 2, 9, 10):
        inputs = [torch.randn(8, count, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
        out, theirs = (
            _CausalAttention.apply(*inputs),
            nn.functional.scaled_dot_product_attention(*inputs, is_causal=True),
        )
        torch.testing.assert_close(out, theirs)
        upstream = torch.randn_like(out)
        for a, b in zip(*(torch.autograd.grad(x, inputs, upstream) for x in (out, theirs)), strict=True):
            torch.testing.assert_close(a, b)
    assert torch.autograd.gradcheck(_CausalAttention.apply, inputs)


class Kinds(TorchDispatchMode):
    """What softmaxes and products give."""

    def __init__(self):
        super().__init__()
        self.softmax, self.products = set(), set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if 'softmax' in str(function):
            self.softmax.add(out.dtype)
        if 'addmm' in str(function):
            self.products.add(out.dtype)
        return out


@contextlib.contextmanager
def autocast(name, device):
    """What ``precision.autocast`` is on a GPU: torch's own switches itself off where there is none."""
    torch.set_autocast_enabled('cuda', name == 'bf16')
    torch.set_autocast_dtype('cuda', torch.bfloat16)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if not torch.autocast_decrement_nesting():
            torch.clear_autocast_cache()
        torch.set_autocast_enabled('cuda', False)


@pytest.mark.parametrize('decoder', ['autoregressive', 'slotwise', 'mlp', 'diffusion'])
def test_state_and_softmax_are_float32_on_a_gpu(monkeypatch, decoder):
    """Autocast's rules for GPUs, which differ from a CPU's, applied to tensors without values."""
    states = set()

    def gru(self, x, h):
        states.update((x.dtype, h.dtype, torch.is_autocast_enabled('cuda')))
        return plain_gru(self, x, h)

    monkeypatch.setattr(precision, 'autocast', autocast)
    monkeypatch.setattr(nn.GRUCell, 'forward', gru)
    with FakeTensorMode(), torch.device('cuda'):
        layers = {'decoder_layers': 2} if decoder in ('autoregressive', 'diffusion') else {}
        model = SlotModel(preset('coco', decoder=decoder, **layers).model, 64, 16).train()
        model.precision, model.codebook._started = 'bf16', True
        with Kinds() as kinds:
            out = model(torch.empty(8, 16, 64))
        assert out.slots.dtype == out.attention.dtype == out.masks.dtype == out.loss.dtype == torch.float32
    assert states == {torch.float32, False}
    assert kinds.softmax == {torch.float32}
    assert torch.bfloat16 in kinds.products  # autocast was on


def test_state_and_attention_are_float32_on_a_cpu():
    model = SlotModel(preset('smoke', decoder='autoregressive').model, 64, 16).train()
    model.precision = 'bf16'
    out = model(torch.randn(8, 16, 64))
    kinds = {x.dtype for x in (out.slots, out.attention, out.first_slots, out.first_attention, out.masks, out.loss)}
    assert kinds == {torch.float32}


def test_sums_of_slots_are_a_product_on_a_gpu():
    """Sums of a fixed order; the same as those of a CPU but for rounding, and exact in whole numbers."""
    vectors, index = torch.randn(50, 3), torch.randint(7, (50,))
    whole = vectors.mul(8).round()
    member = (index == torch.arange(8)[:, None]).float()
    torch.testing.assert_close(member @ vectors, sum_by_code(vectors, index, 8))
    assert torch.equal(member @ whole, sum_by_code(whole, index, 8))
    added = []

    class Adds(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if 'index_add' in str(function):
                added.append(args[3].ndim)
            return function(*args, **(kwargs or {}))

    for device, expected in (('cpu', {1, 2}), ('cuda', {1})):  # hits are whole numbers, exact in any order
        with FakeTensorMode(), torch.device(device), Adds():
            book = Codebook(8, 3).train()
            book.start(torch.empty(50, 3))
            book._started = True
            book(torch.empty(5, 10, 3))
        assert set(added) == expected
        added.clear()
