"""Trained models that ship with the package."""

import math

import pandas as pd
import pytest

import topdown
from topdown import VARIANTS, preset
from topdown.train import shipped
from topdown.train.loop import train_model

RUNS = topdown.list_runs()


def test_five_seeds_of_both_models_ship_and_are_rows_of_the_ablation():
    rows = pd.read_csv(topdown.figures_dir() / 'tables' / 'toybox_ablation.csv').set_index(['variant', 'seed'])
    assert sorted(RUNS.index) == sorted(f'toybox/{v}/{s}' for v in ('baseline', 'top-down') for s in range(5))
    for name, run in RUNS.iterrows():
        row = rows.loc[run.variant, run.seed]
        assert (run.fg_ari, run.mbo_i, run.config, run.commit) == (row.fg_ari, row.mbo_i, row.config, row.commit), name
        assert run.config == preset('toybox', **VARIANTS[run.variant]).key
    assert RUNS.MB.sum() < 10


@pytest.mark.parametrize('name', ['toybox/baseline/0', 'toybox/top-down/4'])
def test_a_shipped_model_gives_the_numbers_of_its_row(name):
    run = topdown.load(name)
    encoder = topdown.make_encoder(run.config, 'fp32')
    found = topdown.evaluate_model(run.model, topdown.make_eval_set(run.config, encoder))
    assert found['fg_ari'] == pytest.approx(RUNS.fg_ari[name], abs=0.5)
    assert found['mbo_i'] == pytest.approx(RUNS.mbo_i[name], abs=0.5)
    assert run.evaluations.fg_ari.iloc[-1] == pytest.approx(RUNS.fg_ari[name], abs=1e-6)
    assert run.log.step.iloc[-1] == run.config.train.steps == RUNS.steps[name]
    assert not run.model.training


def test_what_is_not_there_or_damaged_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match='there are toybox/baseline/0'):
        topdown.load('toybox/top-down/99')
    with pytest.raises(ValueError, match='name must'):
        topdown.load(0)
    with pytest.raises(ValueError, match='other encoder weights'):
        topdown.load('toybox/top-down/0', topdown.make_encoder(preset('toybox_category')))
    (tmp_path / 'toybox').mkdir()
    for path in (shipped.FOLDER / 'runs.csv', shipped.FOLDER / 'toybox' / 'top-down-0.safetensors'):
        content = bytearray(path.read_bytes())
        content[-1] ^= path.suffix == '.safetensors'
        (tmp_path / path.relative_to(shipped.FOLDER)).write_bytes(content)
    monkeypatch.setattr(shipped, 'FOLDER', tmp_path)
    with pytest.raises(ValueError, match='damaged'):
        topdown.load('toybox/top-down/0')
    with pytest.raises(FileNotFoundError, match='reinstall'):
        topdown.load('toybox/baseline/0')


def test_a_run_is_shipped_and_comes_back(tiny, encoder, tmp_path, monkeypatch):
    config = tiny.with_(steps=3)
    run = train_model(config, tmp_path / 'run', encoder, progress=False)
    row = {'variant': 'top-down', 'fg_ari': 1.0, 'mbo_i': 2.0, **run.provenance}
    (tmp_path / 'run' / 'row.json').write_text(pd.Series(row).to_json())
    monkeypatch.setattr(shipped, 'FOLDER', tmp_path / 'trained')
    monkeypatch.setattr(shipped, 'EVERY', 1)
    path = shipped.ship(tmp_path / 'run', 'tiny/top-down/0')
    again = topdown.load('tiny/top-down/0', encoder)
    assert again.config.key == config.key
    assert again.log.step.tolist() == run.log.step.tolist()
    for (key, mine), theirs in zip(run.model.state_dict().items(), again.model.state_dict().values(), strict=True):
        assert (mine.float() - theirs.float()).abs().max() <= 1e-3 * max(1.0, mine.float().abs().max()), key
    assert shipped.find(config) == 'tiny/top-down/0'
    assert shipped.find(config.with_(seed=1)) is None
    assert math.isclose(topdown.list_runs().MB.iloc[0], path.stat().st_size / 1e6, abs_tol=0.01)
