"""Encoders by what they can do: a table of names with random weights, weights from files, and no network."""

import functools
import json
import socket
import time
import warnings

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file

from topdown.config import EncoderConfig
from topdown.model.encoder import FrozenEncoder

# name -> side; prefix tokens (class, registers) and norm differ from one to the next
NAMES = {
    'vit_tiny_patch16_224': 64, 'vit_small_patch16_224.dino': 64, 'vit_small_patch8_224.dino': 32,
    'vit_base_patch16_224.dino': 64, 'vit_small_patch14_dinov2.lvd142m': 56,
    'vit_small_patch14_reg4_dinov2.lvd142m': 56, 'vit_base_patch14_reg4_dinov2': 56,
    'vit_small_patch16_dinov3.lvd1689m': 64, 'vit_small_plus_patch16_dinov3': 64, 'vit_base_patch16_224.mae': 64,
    'vit_base_patch16_224.augreg_in21k': 64, 'vit_base_patch16_clip_224.openai': 64,
    'vit_base_patch16_clip_quickgelu_224.openai': 64, 'vit_base_patch32_clip_224': 96,
    'vit_xsmall_patch16_clip_224': 64, 'vit_base_patch16_siglip_224': 64, 'vit_base_patch16_siglip_gap_224': 64,
    'vit_medium_patch16_gap_240': 64, 'vit_medium_patch16_reg4_gap_256': 64, 'vit_little_patch16_reg4_gap_256': 64,
    'vit_betwixt_patch16_reg4_gap_256': 64, 'vit_wee_patch16_reg1_gap_256': 64, 'vit_so150m_patch16_reg4_gap_256': 64,
    'vit_dpwee_patch16_reg1_gap_256': 64, 'vit_mediumd_patch16_rope_reg1_gap_256': 64,
    'vit_small_patch16_rope_224': 64, 'vit_small_patch16_rope_mixed_224': 64, 'eva02_tiny_patch14_224': 56,
    'eva02_small_patch14_224': 56, 'eva02_base_patch14_224': 56, 'beit_base_patch16_224': 64,
    'beitv2_base_patch16_224': 64, 'beit3_base_patch16_224': 64, 'deit_tiny_patch16_224': 64,
    'deit_tiny_distilled_patch16_224': 64, 'deit3_small_patch16_224': 64, 'vit_pe_core_tiny_patch16_384': 64,
    'vit_pe_core_base_patch16_224': 64, 'vit_pe_spatial_tiny_patch16_512': 64, 'vit_base_patch16_rpn_224': 64,
    'vit_relpos_small_patch16_224': 64, 'vit_srelpos_small_patch16_224': 64, 'vit_base_patch16_plus_240': 64,
    'flexivit_small': 64, 'aimv2_large_patch14_224': 56, 'vit_base_mci_224': 64, 'vit_small_r26_s32_224': 96,
}  # fmt: skip
WITHOUT_NORM = ('vit_pe_spatial_tiny_patch16_512',)


@pytest.fixture
def shallow(monkeypatch):
    """Networks of one block: what is tested does not depend on depth, and weights are drawn fast."""
    make = timm.create_model
    monkeypatch.setattr(timm, 'create_model', functools.partial(make, depth=1))


def test_the_table_is_long_enough():
    assert len(NAMES) >= 40


@pytest.mark.parametrize(('name', 'size'), NAMES.items())
def test_tokens_are_those_of_the_patches_in_order(name, size, shallow):
    torch.manual_seed(0)
    encoder = FrozenEncoder(EncoderConfig(name, size, layer=1, pretrained=False))
    rows, columns = encoder.grid
    patch = size // rows
    images = torch.rand(1, 3, size, size)
    usual = encoder(images)
    assert usual.shape == (1, rows * columns, encoder.feature_size)
    assert 0.05 < usual.std() < 20
    assert usual.mean().abs() < usual.std()
    for row, column in ((0, 0), (1, 2 % columns), (rows - 1, columns - 1)):
        changed = images.clone()
        changed[..., row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] = torch.rand(
            3, patch, patch
        )
        moved = (encoder(changed) - usual).norm(dim=-1)[0]
        assert int(moved.argmax()) == row * columns + column
    if name in WITHOUT_NORM:
        with pytest.raises(ValueError, match='has no final norm'):
            FrozenEncoder(EncoderConfig(name, size, layer=1, final_norm=True, pretrained=False))
        return
    torch.manual_seed(0)
    normed = FrozenEncoder(EncoderConfig(name, size, layer=1, final_norm=True, pretrained=False))(images)
    root_mean_square = normed.square().mean(-1).sqrt()
    torch.testing.assert_close(root_mean_square, torch.ones_like(root_mean_square), atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    ('name', 'prefix'),
    [('vit_small_patch14_reg4_dinov2', 5), ('vit_small_patch16_dinov3', 5), ('vit_base_patch16_224.mae', 1),
     ('vit_xsmall_patch16_clip_224', 1), ('vit_base_patch16_siglip_224', 0)],
)  # fmt: skip
def test_class_and_register_tokens_are_dropped_by_the_models_own_count(name, prefix, shallow):
    size = 56 if 'patch14' in name else 64
    encoder = FrozenEncoder(EncoderConfig(name, size, layer=1, final_norm=True, pretrained=False))
    images = torch.rand(2, 3, size, size)
    whole = encoder.vit.forward_features((images - encoder.mean) / encoder.std)
    assert encoder.vit.num_prefix_tokens == prefix
    assert whole.shape[1] == prefix + 16
    torch.testing.assert_close(encoder(images), whole[:, prefix:])


@pytest.mark.parametrize('final_norm', [False, True])
def test_several_blocks_are_joined(final_norm):
    found = {}
    for layers, join in (((2,), ''), ((4,), ''), ((2, 4), 'mean'), ((2, 4), 'concat'), ((2, 5), 'mean')):
        changes = {'layers': layers, 'join': join} if join else {'layer': layers[0]}
        config = EncoderConfig('vit_toybox_patch8_96', 96, final_norm=final_norm, **changes)
        encoder = FrozenEncoder(config)
        torch.manual_seed(0)
        tokens = encoder(torch.rand(2, 3, 96, 96))
        assert tokens.shape == (2, encoder.num_patches, encoder.feature_size)
        found[layers, join] = tokens, encoder.fingerprint()
    two, four = found[(2,), ''][0], found[(4,), ''][0]
    torch.testing.assert_close(found[(2, 4), 'mean'][0], (two + four) / 2)
    assert torch.equal(found[(2, 4), 'concat'][0], torch.cat([two, four], dim=-1))
    assert len({fingerprint for _, fingerprint in found.values()}) == len(found)


def test_blocks_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match='layer=6, but vit_toybox_patch8_96 has 5 blocks'):
        FrozenEncoder(EncoderConfig('vit_toybox_patch8_96', 96, layers=(2, 6)))


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('vitamin_small_224', 'half a patch off'), ('swin_tiny_patch4_window7_224', 'no tokens of equal patches'),
        ('resnet18', 'not a Vision Transformer'), ('convnext_tiny', 'not a Vision Transformer'),
        ('hiera_tiny_224', 'no tokens of equal patches'), ('xcit_small_12_p8_224', 'patch_embed.grid_size'),
        ('samvit_base_patch16', 'num_prefix_tokens'), ('naflexvit_base_patch16_gap', 'patch_embed'),
        ('vit_enormous', 'timm .* has no model'),
    ],
)  # fmt: skip
def test_others_are_refused_with_the_reason_before_anything_is_fetched(name, reason, monkeypatch):
    monkeypatch.setattr('topdown.model.encoder._hub_answers', lambda: True)
    made = timm.create_model

    def watch(*args, **kwargs):
        assert not kwargs.get('pretrained'), 'weights are fetched'
        return made(*args, **kwargs)

    monkeypatch.setattr(timm, 'create_model', watch)
    with pytest.raises(ValueError, match=reason):
        FrozenEncoder(EncoderConfig(name, 224, layer=1))


@pytest.mark.parametrize(
    ('name', 'size', 'near'),
    [('vit_small_patch14_dinov2', 320, '308 and 322'), ('vit_toybox_patch8_96', 100, '96 and 104'),
     ('eva02_tiny_patch14_224', 13, '14$'), ('vit_base_patch16_224.dino', 225, '224 and 240')],
)  # fmt: skip
def test_sides_that_patches_do_not_divide_are_refused(name, size, near):
    with pytest.raises(ValueError, match=rf'not a multiple of the \d+ pixels .* the nearest are {near}'):
        FrozenEncoder(EncoderConfig(name, size, layer=1))


def test_the_shipped_encoder_takes_other_sides():
    usual = FrozenEncoder(EncoderConfig('vit_toybox_patch8_96', 96, layer=5, final_norm=True))
    large = FrozenEncoder(EncoderConfig('vit_toybox_patch8_96', 192, layer=5, final_norm=True))
    assert large.num_patches == 4 * usual.num_patches
    assert torch.equal(large.vit.blocks[0].attn.qkv.weight, usual.vit.blocks[0].attn.qkv.weight)


def test_later_blocks_are_not_computed():
    encoder = FrozenEncoder(EncoderConfig('vit_tiny_patch16_224', 32, layer=2, pretrained=False))
    ran = []
    for block in encoder.vit.blocks:
        block.register_forward_hook(lambda *_: ran.append(1))
    encoder(torch.rand(1, 3, 32, 32))
    assert len(ran) == 2


@pytest.fixture
def weights(tmp_path):
    """A file of a whole model's weights, at its own size and with its classifier."""
    torch.manual_seed(1)
    path = tmp_path / 'vit.safetensors'
    save_file(timm.create_model('vit_tiny_patch16_224').state_dict(), path)
    return path


def test_weights_come_from_a_file(weights):
    encoder = FrozenEncoder(EncoderConfig('vit_tiny_patch16_224', 64, layer=12, weights=str(weights)))
    torch.manual_seed(1)
    made = timm.create_model('vit_tiny_patch16_224').state_dict()
    for name, tensor in encoder.vit.state_dict().items():
        if name != 'pos_embed':  # resampled to the smaller grid
            assert torch.equal(tensor, made[name]), name
    assert encoder.vit.pos_embed.shape[1] == 17


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda s: {f'encoder.{name}': t for name, t in s.items()}, 'such as cls_token: missing'),
        (lambda s: {name: t for name, t in s.items() if 'blocks.3' not in name}, r'blocks\.3\.norm1\.weight: missing'),
        (lambda s: s | {'blocks.0.attn.qkv.bias': torch.zeros(7)}, r'qkv\.bias: \(7,\), needs \(576,\)'),
        (lambda s: s | {'reg_token': torch.zeros(1, 4, 192)}, 'reg_token: the model has no such tensor'),
        (lambda s: {name: t for name, t in s.items() if name != 'norm.bias'}, r'norm\.bias: missing'),
    ],
)  # fmt: skip
def test_another_models_weights_are_refused(weights, tmp_path, change, message):
    other = tmp_path / 'other.safetensors'
    torch.manual_seed(1)
    save_file(change(timm.create_model('vit_tiny_patch16_224').state_dict()), other)
    with pytest.raises(ValueError, match=message):
        FrozenEncoder(EncoderConfig('vit_tiny_patch16_224', 64, layer=12, weights=str(other)))


def test_a_classifier_of_other_classes_does_not_matter(weights, tmp_path):
    torch.manual_seed(1)
    given = timm.create_model('vit_tiny_patch16_224', num_classes=7).state_dict()
    save_file(given, weights)
    found = FrozenEncoder(EncoderConfig('vit_tiny_patch16_224', 64, layer=12, weights=str(weights))).vit.state_dict()
    assert torch.equal(found['blocks.3.mlp.fc1.weight'], given['blocks.3.mlp.fc1.weight'])


def test_files_that_are_no_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'gone\.safetensors: there is no such file'):
        FrozenEncoder(EncoderConfig('vit_tiny_patch16_224', 64, layer=1, weights=str(tmp_path / 'gone.safetensors')))
    (tmp_path / 'text.safetensors').write_text('no weights')
    with pytest.raises(ValueError, match='not a safetensors file'):
        FrozenEncoder(EncoderConfig('vit_tiny_patch16_224', 64, layer=1, weights=str(tmp_path / 'text.safetensors')))


def test_a_folder_of_a_model_is_an_encoder(weights, tmp_path):
    folder = tmp_path / 'mine'
    folder.mkdir()
    weights.rename(folder / 'model.safetensors')
    cfg = {'input_size': [3, 224, 224], 'mean': [0.1, 0.2, 0.3], 'std': [0.5, 0.5, 0.5], 'num_classes': 1000,
           'first_conv': 'patch_embed.proj', 'classifier': 'head'}  # fmt: skip
    (folder / 'config.json').write_text(json.dumps({'architecture': 'vit_tiny_patch16_224', 'pretrained_cfg': cfg}))
    encoder = FrozenEncoder(EncoderConfig(f'local-dir:{folder}', 64, layer=12))
    torch.manual_seed(1)
    made = timm.create_model('vit_tiny_patch16_224')
    assert torch.equal(encoder.vit.blocks[5].mlp.fc1.weight, made.blocks[5].mlp.fc1.weight)
    assert encoder.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_without_a_network_nobody_waits(monkeypatch, tmp_path):
    """The hub's name does not resolve: the error comes at once and says what to do."""
    monkeypatch.setattr(huggingface_hub.constants, 'ENDPOINT', 'https://hub.invalid')
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path))
    for name in ('HTTPS_PROXY', 'https_proxy', 'ALL_PROXY', 'all_proxy'):
        monkeypatch.delenv(name, raising=False)

    def fails(*args, **kwargs):
        raise socket.gaierror('Name or service not known')

    monkeypatch.setattr(socket, 'create_connection', fails)
    began = time.perf_counter()
    with pytest.raises(RuntimeError, match=r'(?s)weights=FILE.*HF_HOME.*HF_HUB_OFFLINE'):
        FrozenEncoder(EncoderConfig('vit_tiny_patch16_224.augreg_in21k', 224, layer=1))
    assert time.perf_counter() - began < 5
    assert not huggingface_hub.constants.HF_HUB_OFFLINE  # nothing stays behind


def test_another_activation_than_the_weights_had_is_said():
    from topdown.model.encoder import _warn_of_activation

    with pytest.warns(UserWarning, match=r'vit_base_patch16_clip_quickgelu_224\.openai has theirs'):
        _warn_of_activation('vit_base_patch16_clip_224.openai')
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        for name in ('vit_base_patch16_clip_quickgelu_224.openai', 'vit_base_patch16_clip_224.laion2b'):
            _warn_of_activation(name)
        _warn_of_activation('vit_base_patch16_224.dino')
    assert not said
