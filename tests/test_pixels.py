"""Slot attention on pixels: its two ends against naive versions, the model, and a training from end to end."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import topdown
from tests.watch import Watch
from topdown.config import Config, ModelConfig
from topdown.model.encoder import PixelEncoder
from topdown.model.modulation import Scales
from topdown.model.pixels import PixelStem, SoftPosition, SpatialBroadcastDecoder
from topdown.model.slot_attention import InputHead
from topdown.model.slot_model import SlotModel
from topdown.train.loop import load_run, train_model

SMALL = {
    'num_slots': 3, 'slot_size': 6, 'qkv_size': 10, 'codebook_size': 5, 'cnn_size': 4, 'broadcast_size': 2,
    'decoder': 'broadcast',
}  # fmt: skip
SIDE, N = 8, 64


def make(**changes):
    torch.manual_seed(0)
    return SlotModel(ModelConfig(**{**SMALL, **changes}), feature_size=3, num_patches=N)


def pixels(batch=2):
    return 2 * torch.rand(batch, N, 3, generator=torch.Generator().manual_seed(1)) - 1


@pytest.fixture
def tiny():
    """A configuration that trains in a second or two."""
    return topdown.preset(
        'clevr6_smoke', steps=6, batch_size=4, eval_every=3, checkpoint_every=0, eval_images=6,
        toybox={**topdown.preset('clevr6_smoke').data.toybox, 'num_train': 24, 'num_val': 8},
    )  # fmt: skip


@pytest.fixture
def rooted(tiny, tmp_path):
    return tiny.with_(data_root=str(tmp_path / 'data'))


# ------------------------------------------------------------------------------------------------------ the two ends


def test_position_equals_the_hand_formula():
    torch.manual_seed(0)
    position = SoftPosition(5, 7)
    x = torch.randn(2, 5, 5, 7)
    weight, bias = position.project.weight, position.project.bias
    for row in range(5):
        for column in range(5):
            across, down = column / 4, row / 4
            place = torch.tensor([across, down, 1 - across, 1 - down])
            torch.testing.assert_close(position(x)[:, row, column], x[:, row, column] + weight @ place + bias)


def test_stem_equals_its_parts_in_a_row():
    torch.manual_seed(0)
    stem = PixelStem(SIDE, 4, 6)
    x = pixels()
    features = x.transpose(1, 2).reshape(2, 3, SIDE, SIDE)
    for layer in stem.convolutions[::2]:
        features = F.conv2d(features, layer.weight, layer.bias, padding=2).clamp(min=0)
    head = InputHead(4, 6)
    head.load_state_dict(stem.head.state_dict())
    expected = head(stem.position(features.permute(0, 2, 3, 1)).reshape(2, N, 4))
    torch.testing.assert_close(stem(x), expected)
    assert [tuple(layer.weight.shape) for layer in stem.convolutions[::2]] == [(4, 3, 5, 5)] + [(4, 4, 5, 5)] * 3


def enlarge(x, weight, bias, stride):
    """Transposed convolution written out: every input place stamps its kernel; the stamp is centred."""
    height, width, kernel = x.shape[1], x.shape[2], weight.shape[-1]
    out = np.zeros((weight.shape[1], stride * height + kernel, stride * width + kernel))
    for i in range(height):
        for j in range(width):
            stamp = np.einsum('c,cokl->okl', x[:, i, j], weight)
            out[:, i * stride : i * stride + kernel, j * stride : j * stride + kernel] += stamp
    reach = kernel // 2
    return out[:, reach : reach + stride * height, reach : reach + stride * width] + bias[:, None, None]


def test_decoder_equals_a_naive_one():
    torch.manual_seed(0)
    decoder = SpatialBroadcastDecoder(SIDE, 6, 4, 2).double()
    slots = torch.randn(2, 3, 6, dtype=torch.float64)
    out = decoder(slots, torch.zeros(2, N, 3))
    layers = [(m.weight.detach().numpy(), m.bias.detach().numpy(), m.stride[0]) for m in decoder.convolutions[::2]]
    assert [stride for _, _, stride in layers] == [2, 2, 1, 1]
    assert [w.shape[-1] for w, _, _ in layers] == [5, 5, 5, 3]
    for b in range(2):
        drawn = []
        for k in range(3):
            x = decoder.position(slots[b, k].expand(2, 2, 6)).detach().numpy().transpose(2, 0, 1)
            for number, layer in enumerate(layers):
                x = enlarge(x, *layer)
                if number < len(layers) - 1:
                    x = np.maximum(x, 0)
            drawn.append(x)
        drawn = np.stack(drawn)  # (K, 4, S, S)
        alpha = np.exp(drawn[:, 3]) / np.exp(drawn[:, 3]).sum(0)
        expected = (alpha[:, None] * drawn[:, :3]).sum(0).reshape(3, N).T
        np.testing.assert_allclose(out.masks[b].detach(), alpha.reshape(3, N), atol=1e-6)
        np.testing.assert_allclose(out.reconstruction[b].detach(), expected, atol=1e-6)


def test_permuting_slots_permutes_masks_and_leaves_the_image():
    torch.manual_seed(0)
    decoder = SpatialBroadcastDecoder(SIDE, 6, 4, 2)
    slots, order = torch.randn(2, 3, 6), [2, 0, 1]
    out, permuted = (decoder(s, pixels()) for s in (slots, slots[:, order]))
    torch.testing.assert_close(permuted.masks, out.masks[:, order])
    torch.testing.assert_close(permuted.reconstruction, out.reconstruction)
    torch.testing.assert_close(out.masks.sum(1), torch.ones(2, N))
    images, alpha = decoder.draw(slots)
    assert images.shape == (2, 3, N, 3)
    torch.testing.assert_close((alpha[..., None] * images).sum(1), out.reconstruction)


@pytest.mark.parametrize(('side', 'small', 'doublings'), [(8, 8, 0), (32, 8, 2), (48, 6, 3), (128, 8, 4)])
def test_number_of_doublings_follows_from_the_sizes(side, small, doublings):
    decoder = SpatialBroadcastDecoder(side, 2, 2, small)
    assert sum(getattr(m, 'stride', None) == (2, 2) for m in decoder.convolutions) == doublings
    assert decoder(torch.randn(1, 2, 2), torch.zeros(1, side**2, 3)).masks.shape == (1, 2, side**2)


def test_decoder_refuses_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match='broadcast_size=5'):
        SpatialBroadcastDecoder(32, 4, 4, 5)
    with pytest.raises(ValueError, match='broadcast_size=16'):
        SpatialBroadcastDecoder(8, 4, 4, 16)
    with pytest.raises(ValueError, match='64 pixels and got 9'):
        SpatialBroadcastDecoder(8, 4, 4, 2)(torch.randn(1, 2, 4), torch.zeros(1, 9, 3))


def test_pixel_encoder_scales_colours_and_keeps_raster_order():
    encoder = PixelEncoder(topdown.preset('clevr6_smoke', image_size=16).encoder)
    images = torch.rand(2, 3, 16, 16)
    tokens = encoder(images)
    assert tokens.shape == (2, encoder.num_patches, encoder.feature_size) == (2, 256, 3)
    torch.testing.assert_close(tokens[1, 2 * 16 + 5], 2 * images[1, :, 2, 5] - 1)
    assert encoder.grid == (16, 16)
    assert not any(p.requires_grad for p in encoder.parameters())
    with pytest.raises(ValueError, match='16 x 16'):
        encoder(torch.rand(1, 3, 8, 8))


# --------------------------------------------------------------------------------------------------------- the model


@pytest.mark.parametrize('changes', [{}, {'top_down': False}, {'quantize': False}, {'share_weights': False}], ids=str)
def test_shapes_and_gradients(changes):
    model = make(**changes)
    out = model(pixels())
    assert out.slots.shape == (2, 3, 6)
    assert out.attention.shape == out.masks.shape == (2, 3, N)
    assert out.reconstruction.shape == (2, N, 3)
    torch.testing.assert_close(out.masks.sum(1), torch.ones(2, N))
    torch.testing.assert_close(out.attention.sum(1), torch.ones(2, N))
    torch.testing.assert_close(out.reconstruction_loss, ((out.reconstruction - pixels()) ** 2).mean().detach())
    out.loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert all(layer.weight.grad.abs().sum() > 0 for layer in model.head.convolutions[::2])
    assert model.head.position.project.weight.grad.abs().sum() > 0


def test_identity_modulation_is_the_plain_model():
    model, plain = make(quantize=False), make(top_down=False)
    model.modulation.channel.weight.data.zero_()
    model.modulation.channel.bias.data.fill_(1.0)
    model.modulation.spatial = False
    noise = torch.randn(2, 3, 6)
    out, usual = model(pixels(), noise), plain(pixels(), noise)
    torch.testing.assert_close(out.slots, usual.slots)
    torch.testing.assert_close(out.masks, usual.masks)
    torch.testing.assert_close(out.slots, out.first_slots)


def test_the_pathway_is_that_of_tokens():
    model = make(quantize=False).eval()
    noise = torch.randn(2, 3, 6)
    out = model(pixels(), noise)
    keys_values = model.slot_attention.keys_values(model.head(pixels()))
    start = model.slot_init(noise)
    slots, attention = model.slot_attention(start, *keys_values)
    torch.testing.assert_close(out.first_attention, attention)
    spatial = 1 + attention - attention.mean(-1, keepdim=True)
    again, _ = model.slot_attention(start, *keys_values, Scales(model.modulation.channel(slots), spatial))
    torch.testing.assert_close(out.slots, again)


def test_permuting_the_noise_permutes_slots_and_masks():
    model = make(quantize=False)
    noise, order = torch.randn(2, 3, 6), [1, 2, 0]
    out, permuted = model(pixels(), noise), model(pixels(), noise[:, order])
    torch.testing.assert_close(permuted.masks, out.masks[:, order])
    torch.testing.assert_close(permuted.reconstruction, out.reconstruction)


def test_no_tensor_of_size_batch_slots_pixels_width():
    """Modulation makes nothing of width d or C for every slot and pixel."""
    model = make()
    with Watch() as seen:
        model(pixels(), need_masks=False).loss.backward()
    assert 2 * 3 * N in seen.sizes  # attention is
    assert not {2 * 3 * N * 6, 2 * 3 * N * 10} & seen.sizes


# ------------------------------------------------------------------------------------- configuration and training


def test_paper_preset_has_the_released_values():
    c = topdown.preset('clevr6')
    m = c.model
    assert (m.num_slots, m.slot_size, m.qkv_size, m.num_iterations, m.codebook_size) == (7, 64, 128, 3, 512)
    assert (m.cnn_size, m.broadcast_size, m.decoder, c.encoder.image_size) == (64, 8, 'broadcast', 128)
    assert (c.train.steps, c.train.batch_size, c.train.lr, c.data.flip) == (500_000, 64, 4e-4, False)
    assert (c.data.dataset, c.data.mask_size, c.data.eval_images) == ('clevr6', 128, 320)
    model = topdown.build_model(c, topdown.make_encoder(c))
    strides = [m.stride[0] for m in model.decoder.convolutions[::2]]
    assert strides == [2, 2, 2, 2, 1, 1]
    assert model.slot_attention.project_k.weight.shape == (128, 64)


@pytest.mark.parametrize(
    ('name', 'changes', 'message'),
    [
        ('toybox', {'decoder': 'broadcast'}, 'belong together'),
        ('toybox', {'encoder': 'pixels'}, 'belong together'),
        ('clevr6', {'decoder': 'slotwise'}, 'belong together'),
        ('clevr6', {'encoder': 'vit_toybox_patch8_96'}, 'belong together'),
        ('clevr6', {'image_size': 100}, 'broadcast_size=8, doubled'),
        ('clevr6', {'image_size': 4}, 'broadcast_size=8, doubled'),
        ('clevr6', {'broadcast_size': 0}, 'broadcast_size must'),
        ('clevr6', {'cnn_size': 0}, 'cnn_size must'),
    ],
)
def test_settings_that_do_not_fit_are_refused(name, changes, message):
    with pytest.raises(ValueError, match=message):
        topdown.preset(name, **changes)


def test_new_options_leave_the_keys_of_earlier_experiments():
    assert topdown.preset('slotwise').key == '50a9cb2050'
    assert Config(name='any').key == '44136fa355'


def test_training_resumes_and_comes_back_from_its_checkpoint(rooted, tmp_path):
    encoder = topdown.make_encoder(rooted)
    whole = train_model(rooted, tmp_path / 'whole', encoder, progress=False)
    train_model(rooted, tmp_path / 'parts', encoder, progress=False, stop_at=3)
    parts = train_model(rooted, tmp_path / 'parts', encoder, progress=False)
    assert whole.log.loss.tolist() == parts.log.loss.tolist()
    assert np.isfinite(whole.evaluations[['fg_ari', 'mbo_i']].to_numpy()).all()
    model, again, saved = load_run(tmp_path / 'parts' / 'checkpoint.safetensors')
    assert saved.config == rooted
    assert isinstance(again, PixelEncoder)
    states = [m.state_dict() for m in (whole.model, parts.model, model)]
    assert all(torch.equal(states[0][name], state[name]) for state in states[1:] for name in states[0])
    labels, image = [], np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    for _ in range(2):
        cut, found = topdown.segment_image(image, model, again, 64)
        labels.append(found)
    assert cut.shape == (3, 32, 32)
    assert labels[0].shape == (64, 64)
    assert (labels[0] == labels[1]).all()


def test_cached_pixels_are_those_that_are_read(rooted):
    encoder = topdown.make_encoder(rooted)
    dataset = topdown.open_dataset(rooted, 'train', progress=False)
    cached = topdown.TrainData(dataset, encoder, rooted)
    read = topdown.TrainData(dataset, encoder, rooted.with_(cache_tokens=False))
    for a, b in zip(cached.batches(0, 3), read.batches(0, 3), strict=True):
        torch.testing.assert_close(a, b, atol=2**-8, rtol=0)  # kept in bfloat16


def test_evaluation_takes_few_large_images_at_once(monkeypatch, rooted):
    encoder = topdown.make_encoder(rooted)
    data = topdown.make_eval_set(rooted, encoder, progress=False)
    model = topdown.build_model(rooted.with_(top_down=False), encoder)
    usual = topdown.predict(model, data, precision='fp32')
    monkeypatch.setattr('topdown.evaluate.predict.LARGEST', 2048)
    parts = list(topdown.run_model(model, data))
    assert [len(out.slots) for _, out in parts] == [2, 2, 2]
    assert (topdown.predict(model, data, precision='fp32') == usual).float().mean() > 0.999
