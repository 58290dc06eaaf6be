"""Costs by formula against torch's own counter, and the bounds they must keep."""

import dataclasses

import pytest
import torch

from tests.watch import Watch
from topdown.book.cost import DEVICES, activation_bytes, count_flops, count_parameters, predict_step
from topdown.config import EncoderConfig, ModelConfig
from topdown.model.encoder import build_encoder
from topdown.model.flops import PARTS, encoder_flops, forward_flops, step_flops, vit_flops
from topdown.model.slot_model import SlotModel
from topdown.presets import preset

SMALL = {'num_slots': 3, 'slot_size': 8, 'codebook_size': 5, 'decoder_heads': 2, 'decoder_hidden': 12}
MODELS = [
    {},
    {'top_down': False},
    {'top_down': False, 'num_iterations': 6},
    {'qkv_size': 16},
    {'num_heads': 2, 'feedback_rounds': 3},
    {'quantize': False, 'predictor': 'mlp'},
    {'modulate_queries': True, 'modulate_mlp': True},
    {'share_weights': False},
    {'decoder': 'slotwise'},
    {'decoder': 'mlp'},
    {'decoder': 'diffusion'},
    {'decoder': 'diffusion', 'decoder_layers': 1, 'hint_channels': 4},
    {'decoder_layers': 2},
    {'clip_length': 2, 'top_down': False},
    {'clip_length': 4, 'feedback': 'time'},
]


@pytest.fixture
def make():
    def build(changes):
        config = ModelConfig(**SMALL | changes)
        model = SlotModel(config, 16, 9).train()
        tokens = torch.randn(4, 9, 16)
        model(tokens)  # starts the codebook, whose k-means is not part of a step
        return config, model, tokens

    return build


@pytest.mark.parametrize('changes', MODELS, ids=str)
def test_formula_and_counter_agree_to_the_last_product(make, changes):
    config, model, tokens = make(changes)
    assert set(forward_flops(config, 16, 9)) == set(PARTS)
    assert count_flops(model, tokens) == 4 * sum(forward_flops(config, 16, 9).values())


@pytest.mark.parametrize(
    'changes', [m for m in MODELS if m.get('decoder') in (None, 'diffusion') and 'feedback' not in m], ids=str
)
def test_formula_of_a_training_step(make, changes):
    """Twice the forward pass comes on top, but for the nearest codes (and the last scales of a clip, in time)."""
    config, model, tokens = make(changes)
    assert count_flops(model, tokens, backward=True) == 4 * step_flops(config, 16, 9)


def test_vision_transformer_formula():
    import timm
    from torch.utils.flop_counter import FlopCounterMode

    timm.layers.set_fused_attn(False)
    vit = timm.create_model('vit_tiny_patch16_224', img_size=32, num_classes=0).eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        vit.forward_features(torch.randn(1, 3, 32, 32))
    assert counter.get_total_flops() == vit_flops(192, 12, 5, 3 * 16 * 16, 4)
    encoder = build_encoder(EncoderConfig('vit_tiny_patch16_224', image_size=32, layer=7, pretrained=False))
    counter = FlopCounterMode(display=False)
    with counter:
        encoder(torch.rand(1, 3, 32, 32))
    assert counter.get_total_flops() == encoder_flops(encoder) == vit_flops(192, 7, 5, 3 * 16 * 16, 4)


def test_parameters_are_all_counted(make):
    _, model, _ = make({})
    found = count_parameters(model)
    assert sum(found.values()) - found['codebook'] == sum(p.numel() for p in model.parameters())
    assert found['codebook'] == 5 * 8
    assert found['modulation'] == 8 * 8 + 8


def test_no_tensor_of_slots_times_patches_times_width_is_ever_made():
    slots, width, patches, batch = 16, 64, 100, 2
    config = ModelConfig(num_slots=slots, slot_size=width, codebook_size=32, decoder='slotwise', decoder_hidden=8)
    model = SlotModel(config, 16, patches).train()
    tokens = torch.randn(batch, patches, 16)
    model(tokens)
    with Watch() as largest:
        model(tokens, need_masks=False).loss.backward()
    assert max(largest.sizes) < batch * slots * patches * width / 4
    with Watch() as naive:  # the mode does see what the naive form would make
        torch.ones(batch, slots, patches, 1) * torch.ones(batch, 1, 1, width)
    assert max(naive.sizes) == batch * slots * patches * width


def test_reduced_precision_keeps_fewer_bytes(make):
    _, model, tokens = make({})
    assert activation_bytes(model, tokens, 'bf16') < activation_bytes(model, tokens)


@pytest.mark.parametrize('device', DEVICES, ids=lambda d: d.name)
def test_prediction_adds_up_and_scales_with_the_batch(device):
    config = preset('coco', slot_size=32, decoder_layers=1)
    model = SlotModel(config.model, 64, 16)
    given = (model, 64, 16, 10_000, 10**9, 10**6)
    one = predict_step(device, config.with_(batch_size=64), *given)
    two = predict_step(device, config.with_(batch_size=128), *given)
    assert one.step_ms == pytest.approx(one.encoder_ms + one.model_ms + one.optimizer_ms)
    assert two.encoder_ms == pytest.approx(2 * one.encoder_ms)
    assert two.optimizer_ms == one.optimizer_ms
    assert two.memory_gb - one.memory_gb == pytest.approx(64 * 10_000 / 1e9)


@pytest.mark.parametrize('name', ['coco', 'voc', 'movi_c', 'movi_e'])
def test_presets_of_the_paper_fit_a_card_of_24_gigabytes(name):
    """Weights, moments and what the backward pass needs, with explicit attention, which needs more than a fused one."""
    config = preset(name)
    model = SlotModel(config.model, 768, 196).train()
    tokens = torch.randn(2, 196, 768)
    model(tokens)
    image = activation_bytes(model, tokens, 'bf16') // 2
    smallest = min(DEVICES, key=lambda device: device.memory)
    found = predict_step(smallest, config, model, 768, 196, image, 10**9, 86_000_000)
    assert config.train.batch_size == 64
    assert found.memory_gb < 0.8 * smallest.memory == pytest.approx(19.2)


def test_no_formula_is_made_up_for_an_unknown_decoder():
    config = ModelConfig(decoder='slotwise')
    object.__setattr__(config, 'decoder', 'else')
    with pytest.raises(ValueError, match='count_flops'):
        forward_flops(config, 8, 4)


def test_growth_of_the_pathway_by_formula():
    """Codes grow with E and K, a second pass with K and N, and neither with anything squared; bytes with the batch."""
    base = preset('coco').model

    def pathway(patches=196, **changes):
        found = forward_flops(dataclasses.replace(base, **changes), 768, patches)
        return found['codes and scales'] + found['second pass']

    def second_difference(make, values):
        a, b, c = (make(v) for v in values)
        return c - 2 * b + a

    for name, values in (('num_slots', (4, 8, 12)), ('codebook_size', (256, 512, 768))):
        assert second_difference(lambda v, name=name: pathway(**{name: v}), values) == 0
    assert second_difference(lambda n: pathway(n), (100, 200, 300)) == 0
    whole = [sum(forward_flops(base, 768, n).values()) for n in (100, 200, 300)]
    assert whole[2] - 2 * whole[1] + whole[0] > 0  # the decoder's own attention
    assert pathway(num_slots=14) <= 2 * pathway()
    model = SlotModel(dataclasses.replace(base, slot_size=32, decoder_layers=1, top_down=False), 64, 16)
    few, many = (activation_bytes(model.train(), torch.randn(batch, 16, 64)) for batch in (2, 4))
    assert many == pytest.approx(2 * few, rel=0.2)
