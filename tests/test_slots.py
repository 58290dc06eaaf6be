"""Slot attention and modulation against slow, obvious NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topdown.slots import InputHead, Modulation, SlotAttention, SlotInit


def layer_norm(x, norm):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5) * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def linear(x, layer):
    out = x @ layer.weight.detach().numpy().T
    return out if layer.bias is None else out + layer.bias.detach().numpy()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def reference(module, slots, inputs, channel, spatial):
    """One pass, image by image, head by head, with the full K x N x C modulation map of the paper."""
    x = layer_norm(inputs, module.norm_inputs)
    k, v = linear(x, module.project_k), linear(x, module.project_v)
    heads, size = module.num_heads, module.head_size
    for _ in range(module.num_iterations):
        q = linear(layer_norm(slots, module.norm_slots), module.project_q)
        updates, maps = np.zeros_like(q), []
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            logits = q[:, part] @ k[:, part].T / np.sqrt(size)
            a = np.exp(logits - logits.max(0)) / np.exp(logits - logits.max(0)).sum(0)
            maps.append(a)
            w = (a + 1e-8) / (a + 1e-8).sum(1, keepdims=True)
            modulation = spatial[:, :, None] * channel[:, None, part]  # (K, N, C / H)
            updates[:, part] = (w[:, :, None] * modulation * v[None, :, part]).sum(1)
        gru = module.gru
        wi, wh = gru.weight_ih.detach().numpy(), gru.weight_hh.detach().numpy()
        gi, gh = updates @ wi.T + gru.bias_ih.detach().numpy(), slots @ wh.T + gru.bias_hh.detach().numpy()
        (ri, zi, ni), (rh, zh, nh) = np.split(gi, 3, 1), np.split(gh, 3, 1)
        r, z = sigmoid(ri + rh), sigmoid(zi + zh)
        slots = (1 - z) * np.tanh(ni + r * nh) + z * slots
        hidden = np.maximum(linear(layer_norm(slots, module.norm_mlp), module.mlp[0]), 0)
        slots = slots + linear(hidden, module.mlp[2])
    return slots, np.mean(maps, 0)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6), batch=st.integers(1, 3), patches=st.integers(2, 20), slots=st.integers(1, 6),
    size=st.sampled_from([4, 8]), heads=st.sampled_from([1, 2, 4]), wider=st.booleans(), modulated=st.booleans(),
)  # fmt: skip
def test_equals_reference(seed, batch, patches, slots, size, heads, wider, modulated):
    torch.manual_seed(seed)
    qkv = 2 * size if wider else size
    module = SlotAttention(6, size, 3, qkv, heads).double()
    inputs, start = torch.randn(batch, patches, 6).double(), torch.randn(batch, slots, size).double()
    channel = torch.randn(batch, slots, qkv).double() if modulated else None
    spatial = torch.rand(batch, slots, patches).double() + 0.5 if modulated else None
    with torch.no_grad():
        found, attention = module(start, *module.keys_values(inputs), channel, spatial)
    for b in range(batch):
        ones = np.ones((slots, qkv)), np.ones((slots, patches))
        scales = (channel[b].numpy(), spatial[b].numpy()) if modulated else ones
        expected, expected_attention = reference(module, start[b].numpy(), inputs[b].numpy(), *scales)
        np.testing.assert_allclose(found[b].numpy(), expected, atol=1e-5)
        np.testing.assert_allclose(attention[b].numpy(), expected_attention, atol=1e-6)


def test_attention_sums_to_one_and_slots_are_exchangeable():
    torch.manual_seed(0)
    module = SlotAttention(8, 8)
    keys_values = module.keys_values(torch.randn(2, 12, 8))
    start, order = torch.randn(2, 5, 8), torch.tensor([3, 1, 4, 0, 2])
    slots, attention = module(start, *keys_values)
    permuted, permuted_attention = module(start[:, order], *keys_values)
    torch.testing.assert_close(attention.sum(1), torch.ones(2, 12))
    torch.testing.assert_close(slots[:, order], permuted)
    torch.testing.assert_close(attention[:, order], permuted_attention)


def test_identity_modulation_is_plain_slot_attention():
    torch.manual_seed(0)
    module = SlotAttention(8, 8)
    keys_values = module.keys_values(torch.randn(2, 12, 8))
    start = torch.randn(2, 5, 8)
    plain = module(start, *keys_values)
    identity = module(start, *keys_values, torch.ones(2, 5, 8), torch.ones(2, 5, 12))
    torch.testing.assert_close(plain, identity)


def test_shifted_scale_has_mean_one():
    attention = torch.rand(2, 3, 10)
    _, spatial = Modulation(4, 6)(torch.randn(2, 3, 4), attention)
    torch.testing.assert_close(spatial.mean(-1), torch.ones(2, 3))
    torch.testing.assert_close(spatial - 1, attention - attention.mean(-1, keepdim=True))
    assert Modulation(4, 6, shift=False)(torch.randn(2, 3, 4), attention)[1] is attention


@pytest.mark.parametrize('predictor', ['linear', 'mlp'])
def test_modulation_parts_can_be_switched(predictor):
    codes, attention = torch.randn(2, 3, 4), torch.rand(2, 3, 10)
    channel, spatial = Modulation(4, 6, spatial=False, predictor=predictor)(codes, attention)
    assert channel.shape == (2, 3, 6)
    assert spatial is None
    channel, spatial = Modulation(4, 6, channel=False)(codes, attention)
    assert channel is None
    assert spatial.shape == (2, 3, 10)


def test_impossible_parameters_are_refused():
    with pytest.raises(ValueError, match='num_heads'):
        SlotAttention(8, 8, num_heads=3)
    with pytest.raises(ValueError, match='num_iterations'):
        SlotAttention(8, 8, num_iterations=0)
    with pytest.raises(ValueError, match='channel=True or spatial=True'):
        Modulation(4, 4, channel=False, spatial=False)
    with pytest.raises(ValueError, match='predictor'):
        Modulation(4, 4, predictor='cubic')


def test_head_and_start():
    head = InputHead(6, 4)
    assert head(torch.randn(2, 5, 6)).shape == (2, 5, 4)
    init = SlotInit(4)
    assert init.log_std.abs().max() < 1.6  # xavier-uniform: the spread starts near one
    noise = torch.randn(2, 3, 4)
    torch.testing.assert_close(init(noise), init.mean + init.log_std.exp() * noise)
