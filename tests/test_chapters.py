"""Helpers of the chapters on single data sets."""

import pandas as pd
import pytest

import topdown
from topdown import chapters

PRESETS = ('voc_toybox', 'voc_smoke', 'voc')


@pytest.fixture(autouse=True)
def _plain_place(monkeypatch, tmp_path):
    monkeypatch.delenv('TOPDOWN_PRESET', raising=False)
    monkeypatch.chdir(tmp_path)


def test_parameters_are_checked_and_the_folder_made(tmp_path):
    base, models, folder = chapters.begin('voc_toybox', PRESETS, 'baseline, top-down', 'runs', steps=7, seeds=0)
    assert (base.name, base.train.steps, base.seeds) == ('voc_toybox', 7, 1)
    assert models == ['baseline', 'top-down']
    assert folder == tmp_path / 'runs' / 'voc_toybox'
    (folder / 'old').touch()
    chapters.begin('voc_toybox', PRESETS, 'baseline', 'runs')
    assert (folder / 'old').exists()
    chapters.begin('voc_toybox', PRESETS, 'baseline', 'runs', fresh=True)
    assert not (folder / 'old').exists()


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
        ({'fresh': 'yes'}, 'fresh must'), ({'steps': -1}, 'steps must'), ({'colour': 1}, 'unknown parameter'),
    ],
)  # fmt: skip
def test_impossible_parameters_are_refused_before_anything_is_made(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        chapters.begin(**{'name': 'voc_toybox', 'presets': PRESETS, 'models': 'baseline', 'run_dir': 'runs', **options})
    assert not list(tmp_path.iterdir())


def test_models_are_trained_side_by_side(tiny, tmp_path, encoder):
    config = tiny.with_(seeds=2, steps=3, eval_every=0)
    data = topdown.TrainData(topdown.open_dataset(config, 'train', progress=False), encoder, config)
    eval_set = topdown.make_eval_set(topdown.open_dataset(config, 'val', progress=False), encoder)
    models = ['baseline', 'top-down']
    found = chapters.train_variants(config, tmp_path, models, encoder, data, eval_set, progress=False)
    assert list(found.runs) == [(name, seed) for seed in (0, 1) for name in models]
    assert set(found.scores) == {'decoder', 'slots'}
    assert len(found.rows) == 8
    assert {row['seed'] for row in found.rows} == {0, 1}
    assert len(found.log) == 4 * 3
    assert found.evaluations.groupby(['model', 'seed']).size().tolist() == [1] * 4
    again = chapters.train_variants(config, tmp_path, models, encoder, data, eval_set, ('decoder',), progress=False)
    pd.testing.assert_frame_equal(again.log, found.log)  # finished runs are not trained again
    labels = {'block grid': topdown.baselines(eval_set, 3)['block grid']}
    rows = pd.DataFrame(found.rows + chapters.baseline_rows(labels, eval_set))
    gains = chapters.gains(rows, models)
    means = rows[rows.masks == 'decoder'].groupby('model').fg_ari.mean()
    grid = rows[rows.model == 'block grid'].fg_ari.item()
    assert gains.fg_ari['top-down', 'block grid'] == pytest.approx(means['top-down'] - grid)
    assert len(gains) == 2
