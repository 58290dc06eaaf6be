"""Presets and their checks."""

import dataclasses

import pytest

from topdown.config import Config
from topdown.presets import PRESETS, preset


def test_paper_presets_have_the_released_values():
    table = {  # slots, slot size, heads, steps, mask size
        'coco': (7, 256, 8, 500_000, 320), 'voc': (6, 256, 8, 250_000, 320),
        'movi_c': (11, 128, 4, 500_000, 128), 'movi_e': (24, 128, 4, 500_000, 128),
    }  # fmt: skip
    for name, values in table.items():
        c = preset(name)
        found = c.model.slots, c.model.slot_size, c.model.decoder_heads, c.train.steps, c.data.mask_size
        assert found == values
        assert (c.train.lr, c.train.warmup_steps, c.train.half_life, c.train.clip) == (4e-4, 10_000, 100_000, 1.0)
        assert (c.encoder.encoder, c.encoder.block, c.encoder.image_size) == ('vit_base_patch16_224.dino', 12, 224)
        assert (c.train.batch_size, c.model.iterations, c.model.decoder_layers) == (64, 3, 4)
        assert (c.model.code_decay, c.model.dead_below, c.model.commitment) == (0.99, 0.8, 0.0)
        assert not c.encoder.final_norm


@pytest.mark.parametrize('name', PRESETS)
def test_presets_survive_json(name):
    c = preset(name)
    assert Config.from_dict(c.to_dict()) == c
    assert c.name == name


def test_key_tells_experiments_apart_and_survives_new_options():
    keys = {preset(name).key for name in PRESETS}
    assert len(keys) == len(PRESETS)
    c = preset('toybox')
    assert dataclasses.replace(c, name='other').key == c.key  # a name decides nothing
    assert c.with_(void='ignore').key != c.key == c.with_(void='background').key


def test_key_ignores_seed_and_place_only():
    c = preset('toybox')
    assert c.key == c.with_(seed=3).key == c.with_(data_root='/elsewhere').key == c.with_(seeds=9).key
    assert len({c.key, c.with_(steps=7).key, c.with_(slots=3).key, c.with_(toybox={'seed': 1}).key}) == 4


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'slotz': 3}, 'unknown parameter'), ({'slots': 0}, 'slots must'), ({'slots': '3'}, 'slots must be of type'),
        ({'slots': True}, 'of type int'), ({'lr': -1.0}, 'lr must'), ({'precision': 'fp8'}, 'precision'),
        ({'decoder': 'diffusion'}, 'decoder must'), ({'channel': False, 'spatial': False}, 'top_down'),
        ({'quantize': False, 'commitment': 0.1}, 'commitment'), ({'dataset': 'imagenet'}, 'dataset'),
        ({'rounds': 0}, 'rounds must'),
        ({'top_down': False, 'rounds': 2}, 'rounds=2 needs top_down'),
        ({'top_down': False, 'share_weights': False}, 'share_weights=False needs'), ({'void': 'drop'}, 'void'),
        ({'patch_order': 'random'}, 'needs the autoregressive decoder'),
        ({'patch_order': 'zigzag'}, 'patch_order must'),
        ({'attention_heads': 3}, 'attention_heads=3 must divide'), ({'protocol': 'mine'}, 'protocol must'),
        ({'top_down': False, 'commitment': 0.1}, 'commitment needs'), ({'block': 0}, 'block'),
        ({'mask_size': 0}, 'mask_size'), ({'steps': 0}, 'steps'),
    ],
)  # fmt: skip
def test_wrong_parameters_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        preset('toybox', **changes)


def test_unknown_preset_names_the_known_ones():
    with pytest.raises(ValueError, match='smoke, toybox'):
        preset('imagenet')


def test_every_field_says_what_it_is_or_is_plain():
    c = preset('toybox')
    names = [f.name for part in ('data', 'encoder', 'model', 'train') for f in dataclasses.fields(getattr(c, part))]
    assert len(names) == len(set(names)), 'plain names must be unique across the parts'
