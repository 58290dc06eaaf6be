"""The frozen encoder: the shipped one, any other timm ViT, and what happens without weights or network."""

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from topdown.config import EncoderConfig
from topdown.model import encoder as encoder_module
from topdown.model.encoder import SHIPPED, WEIGHTS, FrozenEncoder
from topdown.presets import preset


@pytest.mark.parametrize('name', SHIPPED)
def test_shipped_encoders(name):
    encoder = FrozenEncoder(preset('toybox', encoder=name).encoder)
    assert (encoder.num_patches, encoder.feature_size, encoder.grid) == (144, 128, (12, 12))
    images = torch.rand(2, 3, 96, 96)
    tokens = encoder(images)
    assert tokens.shape == (2, 144, 128)
    assert not tokens.requires_grad
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not encoder.train().vit.training
    normed = (images - 0.65) / 0.25
    torch.testing.assert_close(tokens, encoder.vit.forward_features(normed))
    assert sum((WEIGHTS / f'{name}.safetensors').stat().st_size for name in SHIPPED) < 10e6


@pytest.mark.parametrize('name', SHIPPED)
def test_shipped_tokens_are_standardised(name):
    """Over Toybox images every channel has mean near zero and variance near one (``pretrain.calibrate``)."""
    from topdown.toybox.scenes import ToyboxConfig, scene_at

    scenes = [scene_at(ToyboxConfig(size=96), 'train', i).image for i in range(48)]
    images = torch.stack([torch.from_numpy(s).permute(2, 0, 1) for s in scenes]).float() / 255
    tokens = FrozenEncoder(preset('toybox', encoder=name).encoder)(images).flatten(0, 1)
    assert tokens.mean(0).abs().mean() < 0.15
    assert (tokens.std(0) - 1).abs().mean() < 0.15


@pytest.mark.parametrize(
    ('name', 'size', 'patches'),
    [('vit_tiny_patch16_224', 64, 16), ('vit_small_patch14_dinov2', 56, 16), ('vit_small_patch16_224.dino', 64, 16)],
)
def test_other_vits_at_other_sizes(name, size, patches):
    encoder = FrozenEncoder(EncoderConfig(name, size, layer=3, pretrained=False))
    tokens = encoder(torch.rand(1, 3, size, size))
    assert tokens.shape == (1, patches, encoder.feature_size)


def test_block_and_norm_are_what_they_say():
    config = {'name': 'vit_tiny_patch16_224', 'image_size': 32, 'pretrained': False}
    torch.manual_seed(0)
    encoder = FrozenEncoder(EncoderConfig(**config, layer=12))
    images = torch.rand(1, 3, 32, 32)
    x = (images - encoder.mean) / encoder.std
    vit = encoder.vit
    full = vit.forward_features(x)[:, 1:]  # final norm applied, class token first
    raw = encoder(images)
    torch.testing.assert_close(vit.norm(raw), full)
    encoder.config = EncoderConfig(**config, layer=12, final_norm=True)
    torch.testing.assert_close(encoder(images), full)


def test_fingerprint_depends_on_weights_and_block():
    config = EncoderConfig('vit_toybox_patch8_96', 96, layer=5, pretrained=False)
    torch.manual_seed(0)
    first = FrozenEncoder(config)
    torch.manual_seed(0)
    assert FrozenEncoder(config).fingerprint() == first.fingerprint()
    before = first.fingerprint()
    first.vit.blocks[0].mlp.fc1.bias.data[0] += 1
    assert first.fingerprint() != before


def test_wrong_names_and_sizes_are_refused():
    with pytest.raises(ValueError, match='no model'):
        FrozenEncoder(EncoderConfig('vit_enormous'))
    with pytest.raises(ValueError, match='not a Vision Transformer'):
        FrozenEncoder(EncoderConfig('resnet18', pretrained=False))
    with pytest.raises(ValueError, match='has 5 blocks'):
        FrozenEncoder(EncoderConfig('vit_toybox_patch8_96', 96, layer=6))
    with pytest.raises(ValueError, match='96 x 96'):
        FrozenEncoder(preset('toybox').encoder)(torch.rand(1, 3, 64, 64))


def test_no_network_is_explained(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError('no route to host')

    monkeypatch.setattr(timm, 'create_model', offline)
    with pytest.raises(RuntimeError, match='HF_HOME'):
        FrozenEncoder(preset('coco').encoder)


def test_missing_shipped_weights_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(encoder_module, 'WEIGHTS', tmp_path)
    with pytest.raises(FileNotFoundError, match=r'vit_toybox_patch8_96.safetensors is missing'):
        FrozenEncoder(preset('toybox').encoder)


def test_given_weights_take_the_place_of_shipped_ones(tmp_path):
    own = load_file(WEIGHTS / 'vit_toybox_patch8_96.safetensors')
    own['norm.bias'] = own['norm.bias'] + 1
    save_file(own, tmp_path / 'own.safetensors')
    images = torch.rand(2, 3, 96, 96)
    usual, given = (
        FrozenEncoder(preset('toybox', weights=path).encoder)(images)
        for path in ('', str(tmp_path / 'own.safetensors'))
    )
    torch.testing.assert_close(given, usual + 1)
