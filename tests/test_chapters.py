"""Helpers of the chapters on single data sets."""

import pandas as pd
import pytest

import topdown
from topdown.book import chapters

PRESETS = ('voc_toybox', 'voc_smoke', 'voc')


@pytest.fixture(autouse=True)
def _plain_place(monkeypatch, tmp_path):
    monkeypatch.delenv('TOPDOWN_PRESET', raising=False)
    monkeypatch.chdir(tmp_path)


def test_parameters_are_checked_and_the_folder_made(tmp_path):
    base, models, folder = chapters.begin('voc_toybox', PRESETS, 'baseline, top-down', 'runs', steps=7, seeds=0)
    assert (base.name, base.train.steps, base.seeds) == ('voc_toybox', 7, topdown.preset('voc_toybox').seeds)
    assert models == ['baseline', 'top-down']
    assert folder == tmp_path / 'runs' / 'voc_toybox'
    own = [chapters.run_folder(folder, 'baseline', base.with_(seed=seed, top_down=False)) for seed in (0, 1)]
    others = [folder / 'jobs' / 'abc-seed0', folder / 'growth', own[0].with_name('top-down-seed0-abc')]
    for place in own + others:
        place.mkdir(parents=True)
        (place / 'checkpoint.safetensors').touch()
    (own[1] / 'notes.txt').touch()
    chapters.begin('voc_toybox', PRESETS, 'baseline', 'runs', steps=7)
    assert all((place / 'checkpoint.safetensors').exists() for place in own)
    chapters.begin('voc_toybox', PRESETS, 'baseline', 'runs', fresh=True, steps=7)
    assert not own[0].exists()
    assert [path.name for path in own[1].iterdir()] == ['notes.txt']  # not made by a run
    assert all((place / 'checkpoint.safetensors').exists() for place in others)


def test_the_environment_takes_the_place_of_the_preset(monkeypatch):
    monkeypatch.setenv('TOPDOWN_PRESET', 'smoke')
    assert chapters.begin('voc_toybox', PRESETS, 'baseline', 'runs')[0].name == 'voc_smoke'
    monkeypatch.setenv('TOPDOWN_PRESET', 'voc')
    assert chapters.begin('voc_toybox', PRESETS, 'baseline', 'runs')[0].name == 'voc'
    monkeypatch.setenv('TOPDOWN_PRESET', 'coco')
    with pytest.raises(ValueError, match="voc in this chapter, got 'coco'"):
        chapters.begin('voc_toybox', PRESETS, 'baseline', 'runs')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'name': 'coco'}, 'preset must be one of voc_toybox'), ({'models': 'basline'}, 'models must be among'),
        ({'fresh': 'yes'}, 'fresh must'), ({'run_dir': None}, 'run_dir must'), ({'models': None}, 'models must'),
        ({'name': []}, 'preset must be of type str'), ({'steps': None}, 'steps must'),
        ({'steps': -1}, 'steps must'), ({'colour': 1}, 'unknown parameter'),
    ],
)  # fmt: skip
def test_impossible_parameters_are_refused_before_anything_is_made(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        chapters.begin(**{'name': 'voc_toybox', 'presets': PRESETS, 'models': 'baseline', 'run_dir': 'runs', **options})
    assert not list(tmp_path.iterdir())


def test_models_are_trained_side_by_side(tiny, tmp_path, encoder):
    config = tiny.with_(seeds=2, steps=3, eval_every=0)
    data = topdown.TrainData(topdown.open_dataset(config, 'train', progress=False), encoder, config)
    eval_set = topdown.make_eval_set(config, encoder, progress=False)
    models = ['baseline', 'top-down']
    found = chapters.train_variants(config, tmp_path, models, encoder, data, eval_set, progress=False)
    assert list(found.runs) == [(name, seed) for seed in (0, 1) for name in models]
    assert set(found.scores) == {'decoder', 'slots'}
    assert len(found.rows) == 4 * 2
    assert {row['seed'] for row in found.rows} == {0, 1}
    assert len(found.log) == 4 * 3
    assert found.evaluations.groupby(['model', 'seed']).size().tolist() == [1] * 4
    again = chapters.train_variants(config, tmp_path, models, encoder, data, eval_set, ('slots',), progress=False)
    assert set(again.scores) == {'slots'}
    pd.testing.assert_frame_equal(again.log, found.log)  # finished runs are not trained again
    labels = {'block grid': topdown.baselines(eval_set, 3)['block grid']}
    rows = pd.DataFrame(found.rows + chapters.baseline_rows(labels, eval_set))
    gains = chapters.gains(rows, models)
    means = rows[rows.masks == 'decoder'].groupby('model').fg_ari.mean()
    grid = rows[rows.model == 'block grid'].fg_ari.item()
    assert gains.fg_ari['top-down', 'block grid'] == pytest.approx(means['top-down'] - grid)
    assert len(gains) == 2
    found.save(tmp_path)
    assert len(pd.read_csv(tmp_path / 'log.csv')) == len(found.log)
    assert len(pd.read_csv(tmp_path / 'evaluations.csv')) == len(found.evaluations)
    assert (tmp_path / 'training.png').stat().st_size > 1000
    results = chapters.write_results(found.rows + chapters.baseline_rows(labels, eval_set), config, tmp_path)
    assert len(pd.read_csv(tmp_path / 'results.csv')) == len(results) == 4 * 2 + 1
    effects = chapters.effects(results, 'baseline', ['fg_ari']).iloc[0]
    by_seed = rows[rows.masks == 'decoder'].pivot(index='seed', columns='model', values='fg_ari')
    assert effects.difference == pytest.approx((by_seed['top-down'] - by_seed['baseline']).mean())
    assert effects.seeds == 2


def test_rivals_are_named_by_who_beats_them():
    scores = {'grid': (10, 90), 'colours': (60, 60), 'nothing': (0, 0), 'a': (50, 80), 'b': (70, 80)}
    rows = [
        {'model': name, 'masks': 'decoder' if name in 'ab' else '-', 'fg_ari': x, 'mbo_i': y, 'mbo_c': 0, 'miou': 0}
        for name, (x, y) in scores.items()
    ]
    said = chapters.say_rivals(pd.DataFrame(rows), ['a', 'b']).splitlines()
    assert said[0] == 'FG-ARI, beaten by all models: grid, nothing; by some: colours.'
    assert said[1] == 'mBO_i, beaten by all models: colours, nothing; by none: grid.'
