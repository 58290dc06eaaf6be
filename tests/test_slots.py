"""Slot attention and modulation against slow, obvious NumPy, gradients by finite differences, and invariants."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erf

from tests.reference.slot_attention import gru, layer_norm, slot_attention
from topdown.model.modulation import Modulation, Scales
from topdown.model.slot_attention import InputHead, SlotAttention, SlotInit


def draw_scales(batch, slots, patches, qkv, hidden, which='csqf'):
    """Random scales, double precision; None for those not named."""
    return Scales(
        torch.randn(batch, slots, qkv).double() if 'c' in which else None,
        torch.rand(batch, slots, patches).double() + 0.5 if 's' in which else None,
        torch.randn(batch, slots, qkv).double() if 'q' in which else None,
        torch.randn(batch, slots, hidden).double() if 'f' in which else None,
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6), batch=st.integers(1, 3), patches=st.integers(2, 20), slots=st.integers(1, 6),
    size=st.sampled_from([4, 8]), heads=st.sampled_from([1, 2, 4]), wider=st.booleans(),
    which=st.sampled_from(['', 'c', 's', 'cs', 'qcf', 'csqf']),
)  # fmt: skip
def test_equals_reference(seed, batch, patches, slots, size, heads, wider, which):
    torch.manual_seed(seed)
    qkv = 2 * size if wider else size
    module = SlotAttention(6, size, 3, qkv, heads).double()
    inputs, start = torch.randn(batch, patches, 6).double(), torch.randn(batch, slots, size).double()
    scales = draw_scales(batch, slots, patches, qkv, module.mlp_size, which)
    with torch.no_grad():
        found, attention = module(start, *module.keys_values(inputs), scales)
    p = {name: t.numpy() for name, t in module.state_dict().items()}
    ones = (slots, qkv), (slots, patches), (slots, qkv), (slots, module.mlp_size)
    for b in range(batch):
        given = [np.ones(shape) if t is None else t[b].numpy() for t, shape in zip(scales, ones, strict=True)]
        expected, weights = slot_attention(p, inputs[b].numpy(), start[b].numpy(), 3, heads, *given)
        np.testing.assert_allclose(found[b].numpy(), expected, atol=1e-10)
        np.testing.assert_allclose(attention[b].numpy(), weights, atol=1e-12)


def test_gradients_equal_finite_differences():
    torch.manual_seed(0)
    module = SlotAttention(5, 4, 2, 6, 2).double()
    inputs, start = torch.randn(1, 4, 5).double(), torch.randn(1, 3, 4).double()
    scales = draw_scales(1, 3, 4, 6, module.mlp_size)

    def run(inputs, start, *scales):
        return module(start, *module.keys_values(inputs), Scales(*scales))

    free = [t.requires_grad_() for t in (inputs, start, *scales)]
    assert torch.autograd.gradcheck(run, free)


def test_reference_gru_equals_torch():
    torch.manual_seed(0)
    cell = torch.nn.GRUCell(5, 4).double()
    update, state = torch.randn(7, 5).double(), torch.randn(7, 4).double()
    p = {f'gru.{name}': t.numpy() for name, t in cell.state_dict().items()}
    np.testing.assert_allclose(gru(update.numpy(), state.numpy(), p), cell(update, state).detach().numpy(), atol=1e-12)


@pytest.mark.parametrize('heads', [1, 2])
def test_attention_shares_out_every_patch_and_slots_are_exchangeable(heads):
    torch.manual_seed(0)
    module = SlotAttention(8, 8, num_heads=heads)
    keys_values = module.keys_values(torch.randn(2, 12, 8))
    start, order = torch.randn(2, 5, 8), torch.tensor([3, 1, 4, 0, 2])
    slots, attention = module(start, *keys_values)
    permuted, permuted_attention = module(start[:, order], *keys_values)
    torch.testing.assert_close(attention.sum(1), torch.full((2, 12), 1 / heads))
    torch.testing.assert_close(slots[:, order], permuted)
    torch.testing.assert_close(attention[:, order], permuted_attention)


def test_identity_modulation_is_plain_slot_attention():
    torch.manual_seed(0)
    module = SlotAttention(8, 8)
    keys_values = module.keys_values(torch.randn(2, 12, 8))
    start = torch.randn(2, 5, 8)
    plain = module(start, *keys_values)
    ones = Scales(torch.ones(2, 5, 8), torch.ones(2, 5, 12), torch.ones(2, 5, 8), torch.ones(2, 5, 32))
    identity = module(start, *keys_values, ones)
    torch.testing.assert_close(plain, identity)


def test_shifted_scale_has_mean_one():
    attention = torch.rand(2, 3, 10)
    spatial = Modulation(4, 6)(torch.randn(2, 3, 4), attention).spatial
    torch.testing.assert_close(spatial.mean(-1), torch.ones(2, 3))
    torch.testing.assert_close(spatial - 1, attention - attention.mean(-1, keepdim=True))
    assert Modulation(4, 6, shift_attention=False)(torch.randn(2, 3, 4), attention).spatial is attention


def test_scales_by_code_equal_hand_formulas():
    torch.manual_seed(0)
    codes, attention = torch.randn(2, 3, 8).double(), torch.rand(2, 3, 10).double()
    for predictor in ('linear', 'mlp'):
        module = Modulation(8, 6, 20, queries=True, mlp=True, predictor=predictor).double()
        scales = module(codes, attention)
        for name, found in (('channel', scales.channel), ('query', scales.query), ('mlp', scales.mlp)):
            p = {key: t.numpy() for key, t in getattr(module, name).state_dict().items()}
            x = codes.numpy()
            if predictor == 'mlp':
                x = x @ p['0.weight'].T + p['0.bias']
                assert x.shape[-1] == 8 // 4
                x = x * (1 + erf(x / 2**0.5)) / 2
                p = {'weight': p['2.weight'], 'bias': p['2.bias']}
            np.testing.assert_allclose(found.detach().numpy(), x @ p['weight'].T + p['bias'], atol=1e-12)


@pytest.mark.parametrize('predictor', ['linear', 'mlp'])
def test_modulation_parts_can_be_switched(predictor):
    codes, attention = torch.randn(2, 3, 4), torch.rand(2, 3, 10)
    found = Modulation(4, 6, spatial_modulation=False, predictor=predictor)(codes, attention)
    assert found.channel.shape == (2, 3, 6)
    assert found.spatial is found.query is found.mlp is None
    found = Modulation(4, 6, channel_modulation=False, predictor=predictor)(codes, attention)
    assert found.channel is None
    assert found.spatial.shape == (2, 3, 10)
    found = Modulation(4, 6, 20, spatial_modulation=False, queries=True, mlp=True, predictor=predictor)(
        codes, attention
    )
    assert (found.query.shape, found.mlp.shape) == ((2, 3, 6), (2, 3, 20))
    assert not torch.equal(found.query, found.channel)  # each has a predictor of its own


def test_impossible_parameters_are_refused():
    with pytest.raises(ValueError, match='num_heads'):
        SlotAttention(8, 8, num_heads=3)
    with pytest.raises(ValueError, match='num_iterations'):
        SlotAttention(8, 8, num_iterations=0)
    with pytest.raises(ValueError, match='something to scale'):
        Modulation(4, 4, channel_modulation=False, spatial_modulation=False)
    with pytest.raises(ValueError, match='predictor'):
        Modulation(4, 4, predictor='cubic')


def test_head_and_start():
    head = InputHead(6, 4)
    x = torch.randn(2, 5, 6)
    p = {name: t.detach().numpy() for name, t in head.state_dict().items()}
    hidden = layer_norm(x.numpy(), p['norm.weight'], p['norm.bias']) @ p['hidden.weight'].T + p['hidden.bias']
    expected = np.maximum(hidden, 0) @ p['out.weight'].T + p['out.bias']
    np.testing.assert_allclose(head(x).detach().numpy(), expected, atol=1e-5)
    init = SlotInit(4)
    noise = torch.randn(2, 3, 4)
    torch.testing.assert_close(init(noise), init.mean + init.log_std.exp() * noise)
