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

from topdown.book.bench import token_shape
from topdown.book.plan import Job, parse_changes, plan
from topdown.cli import main
from topdown.config import NEEDS, OWNERS, PARTS, RENAMED, UNDECIDING, Config, say_needs
from topdown.datasets import DATASETS
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


def test_scenes_have_the_papers_settings_but_for_what_is_said():
    keep = {'dataset', 'num_slots', 'steps', 'random_crop'}
    paper = preset('coco').settings()
    for name, steps, crop in (('ade20k', 500_000, False), ('cityscapes', 70_000, True)):
        found = preset(name).settings()
        assert {key for key in found if found[key] != paper[key]} <= keep
        assert [found[key] for key in ('dataset', 'num_slots', 'steps', 'random_crop')] == [name, 11, steps, crop]
    epochs = [preset(name).train.steps / DATASETS[name].official['train'] for name in ('voc', 'cityscapes')]
    assert epochs[0] == pytest.approx(epochs[1], rel=0.01)


def test_recipes_of_others_have_their_values():
    """Of DIAS 231969a (its COCO configuration) and SPOT efd9824, as far as they go here."""
    for name, slots in (('coco_short', 7), ('voc_short', 6)):
        c = preset(name)
        assert (c.train.steps, c.train.batch_size, c.train.lr, c.train.warmup_steps) == (100_000, 32, 2e-4, 5_000)
        assert (c.model.num_slots, c.model.decoder_layers, c.model.decoder_heads) == (slots, 4, 4)
        assert (c.data.protocol, c.data.random_crop, c.encoder.final_norm) == ('bench', True, False)
        assert token_shape(c) == (256, 384, (16, 16))
    c = preset('coco_spot')
    assert c.train.steps == 50 * (118_287 // 64)
    assert (c.data.protocol, c.model.patch_order, c.model.input_masking) == ('spot', 'random', 0.0)
    assert (c.model.num_slots, c.model.decoder_heads, c.train.batch_size, c.train.lr) == (7, 6, 64, 4e-4)
    assert token_shape(c) == (196, 768, (14, 14))


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
    assert set(UNDECIDING) == harmless
    assert c.with_(seeds=9).key == c.key


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'slotz': 3}, 'unknown parameter'), ({'num_slots': 0}, 'slots must'),
        ({'num_slots': '3'}, 'slots must be of type'),
        ({'num_slots': True}, 'of type int'), ({'lr': -1.0}, 'lr must'), ({'precision': 'fp8'}, 'precision'),
        ({'decoder': 'flow'}, 'decoder must'),
        ({'channel_modulation': False, 'spatial_modulation': False}, 'top_down'),
        ({'quantize': False, 'commitment_weight': 0.1}, 'commitment'), ({'dataset': 'imagenet'}, 'dataset'),
        ({'feedback_rounds': 0}, 'rounds must'),
        ({'top_down': False, 'feedback_rounds': 2}, 'feedback_rounds=2 needs top_down'),
        ({'top_down': False, 'share_weights': False}, 'share_weights=False needs'), ({'void': 'drop'}, 'void'),
        ({'decoder': 'slotwise', 'patch_order': 'random'}, "needs decoder='autoregressive'"),
        ({'patch_order': 'zigzag'}, 'patch_order must'),
        ({'num_heads': 3}, 'num_heads=3 must divide'), ({'protocol': 'mine'}, 'protocol must'),
        ({'top_down': False, 'commitment_weight': 0.1}, 'commitment_weight=0.1 needs'), ({'layer': 0}, 'layer'),
        ({'layers': (3, 2)}, 'layers must be two blocks or more, rising'), ({'layers': (0, 2)}, 'counted from 1'),
        ({'layers': 3}, 'several numbers'), ({'layers': (2, 2)}, 'rising'), ({'layers': [2]}, 'two blocks or more'),
        ({'layers': ('2', 3)}, 'layers must be of type int'), ({'join': 'concat'}, 'needs layers'),
        ({'layers': [2, 3], 'join': 'sum'}, "join must be 'mean' or 'concat'"),
        ({'encoder': 'tokens'}, 'needs feature_size'),
        ({'mask_size': 0}, 'mask_size'), ({'steps': 0}, 'steps'),
    ],
)  # fmt: skip
def test_wrong_parameters_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        preset('toybox', **changes)


CHANGED = {
    'toybox': {'seed': 1}, 'predictor': 'mlp', 'patch_order': 'random', 'token_dir': '/tokens',
    'train_annotations': '/a.json', 'train_images': '/a', 'val_annotations': '/b.json', 'val_images': '/b',
    'layers': (2, 4), 'feedback': 'time',
}  # fmt: skip
UNMET = {
    'top_down': False, 'quantize': False, 'cache_tokens': False, 'decoder': 'mlp', 'dataset': 'voc',
    'spatial_modulation': False, 'hinted_codes': False, 'layers': (3, 6), 'encoder': 'vit_tiny_patch16_224',
    'feedback': 'time',
}  # fmt: skip


@pytest.mark.parametrize('name', NEEDS)
def test_settings_without_effect_are_refused(name):
    """Each alone beside each setting it needs being otherwise; and each is a setting, as is all that it needs."""
    base = preset('coco', clip_length=2)  # of clips, so that every setting could have an effect
    settings = base.settings()
    assert {name, *NEEDS[name]} <= set(settings)
    for need, values in NEEDS[name].items():
        unmet = {need: UNMET[need]}
        if UNMET[need] in values:
            unmet = {need: not UNMET[need] if isinstance(UNMET[need], bool) else 'slotwise'}
        if unmet[need] in values:  # these decoders have tokens: pixels have none
            unmet = {'decoder': 'broadcast', 'encoder': 'pixels', 'image_size': 128}
        value = CHANGED.get(name, not settings[name] if isinstance(settings[name], bool) else 0.5)
        value = 2 if isinstance(settings[name], int) and not isinstance(settings[name], bool) else value
        with pytest.raises(ValueError, match=f'{name}=.* needs .*{need}=.*without which it has no effect'):
            base.with_(**unmet, **{name: value})
        assert base.with_(**unmet, **{name: settings[name]}) == base.with_(**unmet)  # no change, no harm


def test_several_blocks_pass_through_json_and_the_command_line(tmp_path):
    config = preset('coco', layers=[9, 12], join='concat')
    assert config.encoder.layers == config.encoder.blocks == (9, 12)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert len({preset('coco', **c).key for c in ({}, {'layers': (9, 12)}, {'layers': (9, 12), 'join': 'concat'})}) == 3
    main(['train', '--preset', 'smoke', '--folder', str(tmp_path), '--layers', '3', '5', '--join', 'concat',
          '--steps', '1'])  # fmt: skip
    saved = json.loads((tmp_path / 'config.json').read_text())['encoder']
    assert (saved['layers'], saved['join']) == ([3, 5], 'concat')


def test_turning_something_off_with_what_it_needs_is_no_fault():
    config = preset('toybox', token_dir='/tokens', commitment_weight=0.1, feedback_rounds=2)
    assert config.with_(cache_tokens=False, token_dir='').train.token_dir == ''
    off = config.with_(top_down=False, commitment_weight=0.0, feedback_rounds=1)
    assert off.model.codebook_size == config.model.codebook_size  # a baseline keeps what its preset says


def test_settings_without_effect_are_named_in_help_and_book(capsys):
    page = (Path(__file__).parent.parent / 'book' / 'api_settings.md').read_text()
    for name in NEEDS:
        assert f'`{name}` needs {say_needs(name)}' in page, 'the list of api_settings.md is made of NEEDS'
    with pytest.raises(SystemExit):
        main(['train', '--help'])
    printed = ' '.join(capsys.readouterr().out.replace('│', ' ').split())
    for name in ('token_dir', 'patch_order', 'codebook_size'):
        assert f'Needs {say_needs(name)}.' in printed


def test_settings_without_effect_are_refused_on_the_command_line(tmp_path, capsys):
    command = ['train', '--preset', 'smoke', '--folder', str(tmp_path)]
    for wrong, message in [
        (['--seeds', '3'], 'seeds'), (['--cache-tokens', 'False', '--token-dir', '/tokens'], 'token_dir='),
        (['--decoder-hidden', '3'], 'decoder_hidden=3 needs'),
        (['--top-down', 'False', '--codebook-size', '9'], 'codebook_size=9 needs'),
    ]:  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            main([*command, *wrong])
        assert stop.value.code in (1, 2)
        assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_toybox_changes_the_fields_it_names():
    base = preset('clevr6_smoke')
    changed = base.with_(toybox={'max_objects': 3})
    assert changed.data.toybox == {**base.data.toybox, 'max_objects': 3} != base.data.toybox
    changes = parse_changes('{"toybox": {"max_objects": 3}}')
    assert Job('ablation', 'top-down', 0, changes).config('clevr6_smoke').data.toybox == changed.data.toybox


def test_a_threshold_among_changes_is_not_scaled_by_the_batch_and_one_left_out_is(tmp_path):
    both = Job('ablation', 'top-down', 0, {'batch_size': 8, 'dead_code_threshold': 0.2}).config('toybox')
    assert both.model.dead_code_threshold == 0.2
    scaled = Job('ablation', 'top-down', 0, {'batch_size': 8}).config('toybox')
    assert scaled.model.dead_code_threshold == 0.5 * preset('toybox').model.dead_code_threshold
    main(['train', '--preset', 'smoke', '--folder', str(tmp_path), '--batch-size', '4', '--steps', '1'])
    shown = json.loads((tmp_path / 'config.json').read_text())['model']
    assert shown['dead_code_threshold'] == 0.5 * preset('smoke').model.dead_code_threshold


def test_plans_keep_the_keys_of_published_rows():
    tables = [('slotwise', name) for name in ('ablation', 'codebook', 'categories', 'difficulty')]
    for base, name in [*tables, ('toybox', 'ablation')]:
        rows = pd.read_csv(Path(__file__).parent.parent / 'figures' / 'tables' / f'{base}_{name}.csv')
        keys = {job.config(base).key for job in plan(base, [name])}
        assert set(rows.config) == keys, (base, name)


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
    rows = pd.read_csv(Path(__file__).parent.parent / 'figures' / 'tables' / 'slotwise_ablation.csv')
    for variant, key in rows.groupby('variant').config.first().items():
        assert preset('slotwise', **VARIANTS[variant]).key == key, variant
