"""The plan of all runs, one run, runs in processes and on a cluster, and the tables made of them."""

import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from topdown import preset
from topdown.book import codes as semantics
from topdown.book import runs, schedule
from topdown.book.plan import DECODERS, MAIN, Job, parse_changes, plan, revival
from topdown.book.runs import run_job
from topdown.book.schedule import Places, unique_tasks
from topdown.cli import main
from topdown.presets import PRESETS, VARIANTS
from topdown.toybox.catalogue import CATEGORIES
from topdown.toybox.scenes import ToyboxConfig, scene_at
from topdown.train.loop import train_model

TINY = {'num_train': 24, 'num_val': 8}
CHANGES = {
    'toybox': TINY, 'steps': 2, 'batch_size': 4, 'eval_every': 0, 'checkpoint_every': 0, 'eval_images': 6,
    'codebook_size': 8, 'dead_code_threshold': 0.2,
}  # fmt: skip


def jobs_for_test(count):
    return [Job('ablation', 'top-down', seed, CHANGES) for seed in range(count)]


# ------------------------------------------------------------------------------------------------------- the plan


def test_plan_of_the_toybox():
    jobs = plan('toybox')
    assert Counter(job.experiment for job in jobs) == {
        'ablation': 40, 'codebook': 15, 'difficulty': 22, 'decoders': 54
    }  # fmt: skip
    tasks = unique_tasks(jobs, Places('toybox', Path('runs'), ''))
    assert len(tasks) == 70 + 45  # those of the autoregressive decoder are in the ablation
    jobs = plan('slotwise')
    assert Counter(job.experiment for job in jobs) == {
        'ablation': 55, 'codebook': 24, 'categories': 15, 'kinds': 72, 'difficulty': 34
    }  # fmt: skip
    tasks = unique_tasks(jobs, Places('slotwise', Path('runs'), ''))
    assert len(tasks) == 116 + 72 - 13  # kinds share 13 with sizes and categories
    assert [task.job.seed for task in tasks] == sorted(task.job.seed for task in tasks)
    assert {job.seed for job in jobs if job.variant == 'separate weights'} == {0, 1, 2, 3, 4}
    assert not any(job.variant == 'baseline' and job.setting == 'tiny codebook' for job in jobs)


def test_decoders_differ_in_nothing_but_the_decoder():
    jobs = plan('toybox', ['decoders'])
    assert Counter(job.setting for job in jobs) == dict.fromkeys(DECODERS, 9)
    assert {(job.variant, job.seed) for job in jobs} == {(variant, seed) for variant in MAIN for seed in range(3)}
    known = {job.config('toybox').key for job in plan('toybox', ['ablation'])}
    for job in jobs:
        config, plain = job.config('toybox'), Job('ablation', job.variant, job.seed).config('toybox')
        changed = {said.split('=')[0] for said in config.differences(plain)}
        assert changed == set(DECODERS[job.setting])
        assert (config.key in known) == (job.setting == 'autoregressive')
        assert config.model.decoder_hidden == 128
    with pytest.raises(ValueError, match='it has ablation'):
        plan('slotwise', ['decoders'])


def test_runs_are_shared_between_experiments():
    keys = {}
    for job in plan('slotwise'):
        keys.setdefault(job.config('slotwise').key, set()).add((job.experiment, job.setting))
    assert keys[preset('slotwise').key] == {
        ('ablation', ''), ('codebook', 'E = 64'), ('categories', '16 categories, E = 64'),
        ('kinds', '16 categories, E = 64'), ('difficulty', 'as it is'),
    }  # fmt: skip


def test_plans_of_the_papers_presets():
    assert {job.experiment for job in plan('coco')} == {'main', 'ablation', 'codebook'}
    assert {job.config('coco').model.codebook_size for job in plan('coco', ['codebook'])} == {128, 256, 512, 1024}
    assert [job.variant for job in plan('movi_e')] == ['baseline', 'top-down', 'six-iterations']
    assert max(job.seed for name in ('smoke', 'coco') for job in plan(name)) == 0
    assert len({job.config('smoke').data.toybox['num_train'] for job in plan('smoke')}) == 1  # its small data are kept


def test_plan_refuses_what_a_preset_does_not_have():
    with pytest.raises(ValueError, match='it has main'):
        plan('voc', ['codebook'])
    with pytest.raises(ValueError, match='unknown preset'):
        plan('cocoa')


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        (('ablations', 'baseline', 0), 'experiment'),
        (('ablation', 'base', 0), 'variant'),
        (('ablation', 'baseline', -1), 'seed'),
        (('ablation', 'baseline', True), 'seed'),
        (('ablation', 'baseline', 0, {'seed': 3}), 'changes'),
    ],
)
def test_jobs_refuse_unknown_things(values, message):
    with pytest.raises(ValueError, match=message):
        Job(*values)


def test_changes_are_json_objects():
    assert parse_changes('{"slots": 5}') == {'num_slots': 5}
    for text in ('slots=5', '[5]', None):
        with pytest.raises(ValueError, match='changes must be'):
            parse_changes(text)
    with pytest.raises(ValueError, match='unknown parameter'):
        Job('ablation', 'top-down', 0, {'slot': 5}).config('smoke')


def test_revival_keeps_the_presets_share_of_the_average():
    for name in ('toybox', 'coco'):
        base = preset(name)
        model, batch = base.model, base.train.batch_size
        share = model.dead_code_threshold / (batch * model.num_slots / model.codebook_size)
        for slots, size in ((model.num_slots, model.codebook_size), (4, 8), (11, 1024)):
            assert revival(base, slots, size) / (batch * slots / size) == pytest.approx(share, rel=1e-3)
        assert revival(base, model.num_slots, model.codebook_size) == model.dead_code_threshold


def test_fewer_categories_are_other_images_and_all_of_them_the_old_ones():
    assert ToyboxConfig().key == '8be456028bb7'  # as before the knob
    assert ToyboxConfig(categories=len(CATEGORIES)).key == ToyboxConfig().key
    assert ToyboxConfig(grey_ground=True).key != ToyboxConfig().key != ToyboxConfig(most_hidden=0.1).key
    few = ToyboxConfig(size=64, categories=4)
    assert few.key != ToyboxConfig(size=64).key
    assert {int(c) for i in range(20) for c in scene_at(few, 'train', i).categories} == {1, 2, 3, 4}
    with pytest.raises(ValueError, match='categories'):
        ToyboxConfig(categories=17)


# -------------------------------------------------------------------------------------------------------- one run


def test_one_run_leaves_a_row_and_is_not_made_again(tmp_path, toybox_root, monkeypatch):
    job = jobs_for_test(1)[0]
    row = run_job(job, 'smoke', tmp_path, str(toybox_root), progress=False)
    config = job.config('smoke')
    folder = runs.job_folder(tmp_path, config)
    assert folder == tmp_path / 'smoke' / 'jobs' / f'{config.key}-seed0'
    assert json.loads((folder / 'row.json').read_text()) == pytest.approx(row, nan_ok=True)
    assert not list(folder.glob('.row*'))
    assert row['config'] == config.key
    assert row['codebook_size'] == 8
    assert {'fg_ari', 'first_fg_ari', 'val_loss', 'parameters', 'perplexity', 'code_category_ami', 'commit'} <= set(row)
    assert 'slots_fg_ari' in row
    monkeypatch.setattr(runs, 'train_model', None)
    assert run_job(job, 'smoke', tmp_path, str(toybox_root)) == pytest.approx(row, nan_ok=True)
    other = job.config('smoke').with_(steps=3)
    assert runs.read_row(folder, other) is None


def test_masks_of_slots_are_scored_where_they_differ(tmp_path, toybox_root):
    changes = {name: value for name, value in CHANGES.items() if name != 'codebook_size'}
    job = Job('ablation', 'baseline', 0, {**changes, 'decoder': 'mlp'})
    row = run_job(job, 'smoke', tmp_path, str(toybox_root), progress=False)
    assert 'slots_fg_ari' in row
    assert 'first_fg_ari' not in row
    assert 'perplexity' not in row


# ------------------------------------------------------------------------------------------------------- all runs

WRITE_ROW = (
    'import json, sys, os, time; time.sleep(float(sys.argv[4])); '
    'json.dump({"config": sys.argv[2], "seed": int(sys.argv[3]), "fg_ari": 1.0, "wall_seconds": 7.0, '
    '"threads": os.environ["OMP_NUM_THREADS"], "preset_variable": os.environ.get("TOPDOWN_PRESET")}, '
    'open(sys.argv[1], "w"))'
)


@pytest.fixture
def fake_runs(monkeypatch):
    """Runs that only write a row; seed 1 fails and seed 2 is killed, as long as ``broken`` holds them."""
    broken = {1, 2}

    def command(task, places, root):
        if task.job.seed in broken:
            return ['sh', '-c', 'echo out of luck; exit 3' if task.job.seed == 1 else 'kill -9 $$']
        name, key = str(task.folder / 'row.json'), task.config.key
        return [sys.executable, '-c', WRITE_ROW, name, key, str(task.job.seed), '0']

    monkeypatch.setattr(schedule, 'command', command)
    monkeypatch.setattr(schedule, 'plan', lambda preset_name, only=None: jobs_for_test(5))
    monkeypatch.setattr(schedule, 'prepare', lambda tasks: None)
    monkeypatch.setenv('TOPDOWN_PRESET', 'smoke')
    return broken


def test_failed_and_killed_runs_leave_the_others_and_are_tried_again(tmp_path, fake_runs, capsys):
    arguments = [
        '--preset',
        'smoke',
        '--workers',
        '2',
        '--run-dir',
        str(tmp_path),
        '--tables',
        str(tmp_path / 'tables'),
    ]
    main(['tables', 'plan', *arguments])
    assert 'all, each once     5     0      5' in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(['tables', *arguments])
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert '2 runs failed' in said
    assert 'out of luck' in said
    assert 'run.ipynb' in said
    table = pd.read_csv(tmp_path / 'tables' / 'smoke_ablation.csv')
    assert table.seed.tolist() == [0, 3, 4]
    assert table.columns[:5].tolist() == ['experiment', 'variant', 'setting', 'changes', 'seed']
    assert table.preset_variable.isna().all()  # the environment's preset does not reach the runs
    assert json.loads(table.changes[0]) == CHANGES
    fake_runs.clear()
    main(['tables', *arguments])
    said = capsys.readouterr().out
    assert 'all, each once     5     3      2' in said
    assert '7 s a finished run' in said
    assert pd.read_csv(tmp_path / 'tables' / 'smoke_ablation.csv').seed.tolist() == [0, 1, 2, 3, 4]


def test_an_interruption_ends_the_runs_and_begins_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(schedule, 'command', lambda task, *_: ['sleep', '60' if task.job.seed else '0'])
    places = Places('smoke', tmp_path, '')
    tasks = unique_tasks(jobs_for_test(5), places)
    for task in tasks:
        task.folder.mkdir(parents=True)

    def interrupt(task):
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        schedule.run_local(tasks, places, 2, tmp_path, interrupt)
    assert time.monotonic() - start < 30
    assert len(list(tmp_path.rglob('run.log'))) <= 3


def test_collecting_says_what_is_missing_and_runs_nothing(tmp_path, fake_runs, capsys):
    fake_runs.update(range(5))
    main(['tables', 'collect', '--preset', 'smoke', '--run-dir', str(tmp_path), '--tables', str(tmp_path / 'tables')])
    assert capsys.readouterr().out.strip().split('\n')[-1].split() == ['ablation', '0', '5', '-']
    assert not (tmp_path / 'tables').exists()


def test_wrong_arguments_are_named(capsys):
    for arguments, message in ((['--only', 'nothing'], "no experiment 'nothing'"), (['--workers', '0'], 'workers')):
        with pytest.raises(SystemExit):
            main(['tables', 'plan', *arguments])
        assert message in capsys.readouterr().err


def test_runs_on_a_cluster(tmp_path, fake_runs, monkeypatch):
    """submitit's own processes stand in for SLURM's; the job of seed 2 is killed, not its command."""
    submitit, fake = pytest.importorskip('submitit'), schedule.command
    monkeypatch.setattr(submitit.core.core.Job, '_results_timeout_s', 1)

    def command(task, *others):
        return ['sh', '-c', 'kill -9 $PPID'] if task.job.seed == 2 else fake(task, *others)

    monkeypatch.setattr(schedule, 'command', command)
    places, ended = Places('smoke', tmp_path, ''), []
    tasks = unique_tasks(jobs_for_test(3), places)
    for task in tasks:
        task.folder.mkdir(parents=True)
    schedule.run_cluster(tasks, places, 2, tmp_path, ended.append, 'local', {'cpus_per_task': 1})
    assert {task.job.seed: task.done for task in ended} == {0: True, 1: False, 2: False}
    assert 'out of luck' in (tasks[1].folder / 'run.log').read_text()
    assert [words in schedule._last_words(tasks[seed]) for seed, words in ((1, 'Failed'), (2, 'any output'))] == [
        True
    ] * 2


def test_data_and_tokens_are_made_beforehand_and_a_run_goes_through_its_notebook(
    tmp_path, toybox_root, monkeypatch, capsys
):
    monkeypatch.setattr(schedule, 'plan', lambda preset_name, only=None: jobs_for_test(1))
    folders = ['--run-dir', str(tmp_path), '--tables', str(tmp_path / 'tables')]
    main(['tables', '--preset', 'smoke', '--data-root', str(toybox_root), *folders])
    assert len(list((tmp_path / 'tokens').glob('*/*/tokens.bin'))) == 1
    table = pd.read_csv(tmp_path / 'tables' / 'smoke_ablation.csv')
    assert np.isfinite(table.fg_ari).all()
    assert table.variant.isin(VARIANTS).all()
    folder = next((tmp_path / 'smoke' / 'jobs').glob('*-seed0'))
    notebook = json.loads((folder / 'run.ipynb').read_text())
    assert notebook['metadata']['papermill']['parameters']['changes'] == json.dumps(CHANGES)


def test_growth_is_measured_along_one_run_that_stopping_does_not_change(tiny, tmp_path, monkeypatch):
    tiny = tiny.with_(log_every=4)  # the first stop is before the first row of the log
    monkeypatch.setattr(runs, 'GROWTH_POINTS', (0.3, 1.0))
    monkeypatch.setitem(PRESETS, 'smoke', tiny)
    found = runs.growth('smoke', tmp_path, progress=False)
    assert found.step.tolist() == [2, 6]
    assert found.mbo_i.between(0, 100).all()
    assert found.train_loss.isna().tolist() == [True, False]
    whole = train_model(tiny, tmp_path / 'whole', progress=False)
    stopped = train_model(tiny, tmp_path / 'smoke' / 'growth' / f'{tiny.key}-seed0', progress=False)
    for (name, a), (_, b) in zip(whole.model.state_dict().items(), stopped.model.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    again = runs.growth('smoke', tmp_path, progress=False)  # read, not made anew
    assert again.equals(found)


def test_probes_are_made_of_the_ablations_own_runs(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PRESETS, 'smoke', tiny)
    monkeypatch.setattr(semantics, 'COVERED', 0.2)  # a model of six steps covers little
    folders = ['--run-dir', str(tmp_path), '--tables', str(tmp_path / 'tables')]
    main(['tables', 'probes', '--preset', 'smoke', *folders])
    found = pd.read_csv(tmp_path / 'tables' / 'smoke_probe.csv')
    assert found.groupby('split').size().to_dict() == {'train': 30, 'val': 30}
    assert (found.config == tiny.key).all()
    assert found[['commit', 'threads', 'precision', 'device']].notna().all(axis=None)
    config = Job('ablation', 'top-down', 0).config('smoke')
    assert [path.name for path in (tmp_path / 'smoke' / 'jobs').iterdir()] == [f'{config.key}-seed0']
    shown = pd.read_csv(tmp_path / 'tables' / 'smoke_probe_summary.csv')
    assert len(shown) == 20
    assert 'mean tokens' in capsys.readouterr().out


def test_tables_are_gathered_and_those_that_disagree_are_named(tmp_path, monkeypatch):
    job = Job('ablation', 'baseline', 0)
    config = job.config('smoke')
    row = {'config': config.key, 'seed': 0, 'steps': config.train.steps, 'threads': 1, 'mbo_i': 50.0}
    folder = runs.job_folder(tmp_path, config)
    folder.mkdir(parents=True)
    (folder / 'row.json').write_text(json.dumps(row))
    places, tables = Places('smoke', tmp_path, ''), tmp_path / 'tables'
    assert schedule.collect([job], places, tables).runs.tolist() == [1]
    pd.DataFrame([{**row, 'mbo_i': 50.1}]).to_csv(tables / 'smoke.csv', index=False)
    with pytest.raises(ValueError, match=r'smoke and smoke_ablation, .* seed 0: mbo_i 50\.100 and 50\.000'):
        schedule.collect([job], places, tables)
    pd.DataFrame([{**row, 'mbo_i': 50.1, 'threads': 2}]).to_csv(tables / 'smoke.csv', index=False)
    schedule.collect([job], places, tables)
