"""Presets and their checks."""

import ast
import copy
import dataclasses
import inspect
import json
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from topdown.config import OWNERS, PARTS, RENAMED, UNDECIDING, Config
from topdown.presets import PRESETS, VARIANTS, preset


def test_paper_presets_have_the_released_values():
    table = {  # slots, slot size, heads, steps, mask size
        'coco': (7, 256, 8, 500_000, 320), 'voc': (6, 256, 8, 250_000, 320),
        'movi_c': (11, 128, 4, 500_000, 128), 'movi_e': (24, 128, 4, 500_000, 128),
    }  # fmt: skip
    for name, values in table.items():
        c = preset(name)
        found = c.model.num_slots, c.model.slot_size, c.model.decoder_heads, c.train.steps, c.data.mask_size
        assert found == values
        assert (c.train.lr, c.train.warmup_steps, c.train.lr_half_life, c.train.grad_clip) == (
            4e-4,
            10_000,
            100_000,
            1.0,
        )
        assert (c.encoder.name, c.encoder.layer, c.encoder.image_size) == ('vit_base_patch16_224.dino', 12, 224)
        assert (c.train.batch_size, c.model.num_iterations, c.model.decoder_layers) == (64, 3, 4)
        assert (c.model.ema_decay, c.model.dead_code_threshold, c.model.commitment_weight) == (0.99, 0.8, 0.0)
        assert not c.encoder.final_norm


@pytest.mark.parametrize('name', PRESETS)
def test_presets_survive_json(name):
    c = preset(name)
    assert Config.from_dict(json.loads(json.dumps(c.to_dict()))) == c
    assert c.name == name


def test_key_tells_experiments_apart_and_survives_new_options():
    keys = {preset(name).key for name in PRESETS}
    assert len(keys) == len(PRESETS)
    c = preset('toybox')
    assert dataclasses.replace(c, name='other').key == c.key  # a name decides nothing
    assert c.with_(void='ignore').key != c.key == c.with_(void='background').key


def test_key_ignores_what_decides_nothing_and_nothing_else():
    c = preset('toybox')
    keys = {c.key}
    for part, kind in PARTS.items():
        for field in dataclasses.fields(kind):
            changed = copy.deepcopy(c)  # whatever the value is, and whether or not it would be allowed
            object.__setattr__(getattr(changed, part), field.name, 'something else')
            if field.name in UNDECIDING:
                assert changed.key == c.key, field.name
            else:
                assert changed.key not in keys, field.name
                keys.add(changed.key)
    places = {f'{split}_{what}' for split in ('train', 'val') for what in ('annotations', 'images')}
    harmless = places | {'data_root', 'seed', 'threads', 'num_workers', 'token_dir', 'tensorboard'}
    assert {'seed', 'data_root'} <= set(UNDECIDING) <= harmless
    assert c.with_(seeds=9).key == c.key


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'slotz': 3}, 'unknown parameter'), ({'num_slots': 0}, 'slots must'),
        ({'num_slots': '3'}, 'slots must be of type'),
        ({'num_slots': True}, 'of type int'), ({'lr': -1.0}, 'lr must'), ({'precision': 'fp8'}, 'precision'),
        ({'decoder': 'diffusion'}, 'decoder must'),
        ({'channel_modulation': False, 'spatial_modulation': False}, 'top_down'),
        ({'quantize': False, 'commitment_weight': 0.1}, 'commitment'), ({'dataset': 'imagenet'}, 'dataset'),
        ({'feedback_rounds': 0}, 'rounds must'),
        ({'top_down': False, 'feedback_rounds': 2}, 'feedback_rounds=2 needs top_down'),
        ({'top_down': False, 'share_weights': False}, 'share_weights=False needs'), ({'void': 'drop'}, 'void'),
        ({'patch_order': 'random'}, 'needs the autoregressive decoder'),
        ({'patch_order': 'zigzag'}, 'patch_order must'),
        ({'num_heads': 3}, 'num_heads=3 must divide'), ({'protocol': 'mine'}, 'protocol must'),
        ({'top_down': False, 'commitment_weight': 0.1}, 'commitment_weight needs'), ({'layer': 0}, 'layer'),
        ({'mask_size': 0}, 'mask_size'), ({'steps': 0}, 'steps'),
    ],
)  # fmt: skip
def test_wrong_parameters_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        preset('toybox', **changes)


DEEP: list = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    'changes',
    [
        {'num_slots': None}, {'num_slots': DEEP}, {'num_slots': 10**5000}, {'top_down': 10**5000}, {'lr': 10**400},
        {'lr': float('inf')}, {'lr': float('nan')}, {'toybox': DEEP}, {'toybox': {'size': DEEP}}, {'toybox': {1: 2}},
        {'toybox': {'size': None}}, {'toybox': None}, {'decoder': DEEP}, {'seeds': 0}, {'seeds': None},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_whatever_a_notebook_passes_gets_one_message(changes):
    with pytest.raises(ValueError, match=next(iter(changes))) as refused:
        preset('toybox', **changes)
    assert len(str(refused.value)) < 2000


def test_unknown_preset_names_the_known_ones():
    with pytest.raises(ValueError, match='smoke, toybox'):
        preset('imagenet')


def test_plain_names_are_unique_across_the_parts():
    names = [f.name for kind in PARTS.values() for f in dataclasses.fields(kind)]
    assert len(names) == len(set(names)) == len(OWNERS)


def test_every_field_says_what_it_is():
    """A text stands under every field, which is where the reference takes it from."""
    for kind in PARTS.values():
        body = ast.parse(inspect.getsource(kind)).body[0].body
        pairs = [(field, text) for field, text in pairwise(body) if isinstance(field, ast.AnnAssign)]
        said = [field.target.id for field, text in pairs if isinstance(text, ast.Expr) and text.value.value]
        assert said == [field.name for field in dataclasses.fields(kind)]


def test_names_of_before_are_read_in_files_and_refused_in_calls():
    config = preset('toybox', num_slots=5, num_iterations=2, layer=4, grad_clip=2.0, top_down=False)
    old = config.to_dict()
    for part in ('encoder', 'model', 'train'):
        for before, now in RENAMED.items():
            if now in old[part]:
                old[part][before] = old[part].pop(now)
    old['encoder']['encoder'] = old['encoder'].pop('name')
    assert not set(RENAMED.values()) & {name for part in ('encoder', 'model', 'train') for name in old[part]}
    assert Config.from_dict(old) == config
    for before, now in RENAMED.items():
        with pytest.raises(ValueError, match=f"'{before}' is called '{now}' now"):
            preset('toybox', **{before: 1})


def test_keys_of_published_rows_have_not_changed():
    """Renaming a field must not part rows from the configuration that made them."""
    rows = pd.read_csv(Path(__file__).parent.parent / 'figures' / 'tables' / 'toybox_ablation.csv')
    for variant, key in rows.groupby('variant').config.first().items():
        assert preset('toybox', **VARIANTS[variant]).key == key, variant
