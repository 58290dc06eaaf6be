"""The two-pass model as a whole."""

import pytest
import torch

from tests.watch import Watch
from topdown.config import ModelConfig
from topdown.model.modulation import Scales
from topdown.model.slot_model import SlotModel
from topdown.presets import VARIANTS

SMALL = {
    'num_slots': 4,
    'slot_size': 8,
    'codebook_size': 6,
    'decoder_layers': 1,
    'decoder_heads': 2,
    'decoder_hidden': 16,
}


def make(**changes):
    torch.manual_seed(0)
    return SlotModel(ModelConfig(**{**SMALL, **changes}), feature_size=12, num_patches=9)


@pytest.mark.parametrize('decoder', ['autoregressive', 'mlp', 'slotwise', 'diffusion'])
@pytest.mark.parametrize(
    'changes',
    [{}, {'top_down': False}, {'quantize': False}, {'channel_modulation': False}, {'spatial_modulation': False},
     {'shift_attention': False}, {'predictor': 'mlp'}, {'qkv_size': 16, 'num_heads': 2}, {'commitment_weight': 0.1},
     {'feedback_rounds': 3}, {'share_weights': False},
     {'modulate_queries': True, 'modulate_mlp': True, 'spatial_modulation': False}, {'input_masking': 0.0}],
    ids=str,
)  # fmt: skip
def test_shapes_and_gradients(decoder, changes):
    model = make(decoder=decoder, **changes)
    out = model(torch.randn(5, 9, 12))
    assert out.slots.shape == (5, 4, 8)
    assert out.attention.shape == out.masks.shape == (5, 4, 9)
    assert out.reconstruction.shape == (5, 9, 12)
    torch.testing.assert_close(out.masks.sum(1), torch.ones(5, 9))
    out.loss.backward()
    # several processes wait for the gradient of everything that is trained: without one, they would wait for ever
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]


def test_both_passes_start_alike_and_the_pathway_can_be_recomputed():
    model = make().eval()
    tokens, noise = torch.randn(3, 9, 12), torch.randn(3, 4, 8)
    model.train()(tokens)
    model.eval()
    out = model(tokens, noise)
    keys_values = model.slot_attention.keys_values(model.head(tokens))
    start = model.slot_init(noise)
    slots, attention = model.slot_attention(start, *keys_values)
    torch.testing.assert_close(out.first_slots, slots)
    torch.testing.assert_close(out.first_attention, attention)
    codes = model.codebook.codes[out.code_index]
    channel = model.modulation.channel(codes)
    torch.testing.assert_close(out.scales.channel, channel)
    spatial = 1 + attention - attention.mean(-1, keepdim=True)
    again, _ = model.slot_attention(start, *keys_values, Scales(channel, spatial))
    torch.testing.assert_close(out.slots, again)


def test_identity_modulation_repeats_the_first_pass():
    model = make(quantize=False)
    model.modulation.channel.weight.data.zero_()
    model.modulation.channel.bias.data.fill_(1.0)
    model.modulation.spatial = False
    out = model(torch.randn(3, 9, 12))
    torch.testing.assert_close(out.slots, out.first_slots)
    torch.testing.assert_close(out.attention, out.first_attention)


def test_gradients_reach_the_first_pass_by_codes_and_by_attention():
    for changes in ({'spatial_modulation': False}, {'channel_modulation': False}):
        model = make(**changes)
        out = model(torch.randn(3, 9, 12))
        source = out.first_slots if 'spatial_modulation' in changes else out.first_attention
        (gradient,) = torch.autograd.grad(out.loss, source)
        assert gradient.abs().sum() > 0


def test_baseline_starts_from_the_same_weights():
    plain, full = make(top_down=False).state_dict(), make().state_dict()
    assert set(plain) < set(full)
    assert all(torch.equal(plain[name], full[name]) for name in plain)


def test_no_tensor_of_size_batch_slots_patches_width():
    """The factored modulation never makes the map it stands for."""
    model = make(decoder='autoregressive')
    with Watch() as seen:
        model(torch.randn(5, 9, 12), need_masks=False).loss.backward()
    assert 5 * 4 * 9 in seen.sizes  # attention is
    assert 5 * 4 * 9 * 8 not in seen.sizes


@pytest.mark.parametrize('name', VARIANTS)
def test_every_variant_trains_and_differs(name):
    """Each variant changes the result of the same weights and noise, or the weights there are."""
    torch.manual_seed(1)
    tokens, noise = torch.randn(3, 9, 12), torch.randn(3, 4, 8)
    given = {'hint_channels': 4 * VARIANTS[name].get('hinted_codes', False)}
    if 'feedback' in VARIANTS[name]:  # of clips: here one of three frames
        given['clip_length'], noise = 3, noise[:1]
    model, plain = make(**VARIANTS[name], **given), make(**given)
    out, usual = model(tokens, noise), plain(tokens, noise)
    out.loss.backward()
    assert torch.isfinite(out.loss)
    if name != 'top-down':
        assert not torch.allclose(out.slots, usual.slots)
    if name == 'released_default':
        assert out.scales.spatial is None
        assert None not in (out.scales.query, out.scales.channel, out.scales.mlp)


def test_rounds_start_from_the_same_slots_and_use_the_last_pass():
    torch.manual_seed(0)
    tokens, noise = torch.randn(3, 9, 12), torch.randn(3, 4, 8)
    model = make(feedback_rounds=2, quantize=False).eval()
    out = model(tokens, noise)
    keys_values = model.slot_attention.keys_values(model.head(tokens))
    start = model.slot_init(noise)
    slots, attention = model.slot_attention(start, *keys_values)
    for _ in range(2):
        slots, attention = model.slot_attention(start, *keys_values, model.modulation(slots, attention))
    torch.testing.assert_close(out.slots, slots)


def test_separate_weights_leave_the_first_pass_alone():
    tokens, noise = torch.randn(3, 9, 12), torch.randn(3, 4, 8)
    model = make(share_weights=False, quantize=False)
    before = model(tokens, noise)
    for p in model.second_attention.parameters():
        p.data.mul_(1.5)
    after = model(tokens, noise)
    torch.testing.assert_close(before.first_slots, after.first_slots)
    assert not torch.allclose(before.slots, after.slots)


def test_without_quantization_the_scales_come_from_the_slots():
    model = make(quantize=False)
    out = model(torch.randn(3, 9, 12))
    torch.testing.assert_close(out.scales.channel, model.modulation.channel(out.first_slots))
    assert model.codebook is None
    assert out.code_index is None
