"""Faults on purpose: kills, signals, damaged files, changed data, numbers that are not finite."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import topdown
from topdown import distributed
from topdown.book import chapters, runs
from topdown.book.plan import Job
from topdown.cli import main
from topdown.data.digest import made_of
from topdown.files import locked
from topdown.model import encoder as encoders
from topdown.presets import PRESETS
from topdown.train import loop
from topdown.train.checkpoint import load_checkpoint
from topdown.train.ending import Stopped, ending
from topdown.train.health import VARYING, Health, doubts
from topdown.train.journal import Journal, read_log
from topdown.train.loop import train_model
from topdown.train.watch import show, sketch, watch

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}


def weights_equal(a, b):
    """Whether two runs' checkpoints hold the same numbers, data and random state included."""
    first, second = load_file(a / 'checkpoint.safetensors'), load_file(b / 'checkpoint.safetensors')
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def command(folder, tiny, *changes, options=()):
    settings = [
        f'data_root={tiny.data.data_root}', f'toybox={json.dumps(tiny.data.toybox)}', 'batch_size=4', 'eval_every=0',
        'checkpoint_every=0', 'eval_images=6', 'codebook_size=8', 'dead_code_threshold=0.2', *changes,
    ]  # fmt: skip
    words = [sys.executable, '-m', 'topdown.train', '--preset', 'smoke', '--folder', str(folder), *options]
    return words + [f'--{setting}' for setting in settings]


def run(words, **options):
    return subprocess.run(
        words, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False, **options
    )


# ----------------------------------------------------------------------------------------------------- watching


def test_logs_can_be_read_while_the_run_lasts(tiny, tmp_path, encoder, monkeypatch):
    seen = []

    def evaluate(*args):
        seen.append((len(read_log(tmp_path / 'log.csv')), len(read_log(tmp_path / 'evaluations.csv'))))
        seen.append(show(tmp_path))
        return {'fg_ari': 1.0, 'mbo_i': 2.0}

    monkeypatch.setattr(loop, 'evaluate_model', evaluate)
    found = train_model(tiny, tmp_path, encoder, progress=False)
    assert seen[::2] == [(3, 0), (6, 1)]
    assert 'log, step 3' in seen[1]
    assert 'mbo_i' in seen[3]
    columns = ['step', 'loss', 'lr', 'gradient_norm', 'perplexity', 'codes_in_use', 'revived', *VARYING]
    assert list(found.log) == columns
    assert found.log.codes_in_use.between(0.1, 1).all()
    assert found.log.revived.between(0, 0.9).all()
    assert (found.log.images_per_s * found.log.step_s).round(6).eq(4).all()
    assert found.log.memory_gb.between(0.05, 100).all()
    assert found.log.waiting.between(0, 1).all()
    with safe_open(tmp_path / 'checkpoint.safetensors', 'pt') as file:
        assert len(json.dumps(file.metadata())) < 10_000  # the log is not part of it


def test_a_run_is_sketched(tmp_path, capsys):
    assert sketch(pd.Series([0.0, 1.0, 2.0, float('nan')])) == '▁▅█'
    assert sketch(pd.Series([3.0, 3.0])) == '▁▁'
    assert len(sketch(pd.Series(range(1000)), 60)) == 60
    watch(tmp_path, 0.0, rounds=2)
    assert capsys.readouterr().out.count('no log.csv yet') == 2


def test_a_journal_survives_what_a_kill_leaves(tmp_path):
    path = tmp_path / 'log.csv'
    with Journal(path, 0) as journal:
        for step in range(1, 6):
            journal.add({'step': step, 'loss': 1 / step})
    path.write_text(path.read_text() + '6,0.1')  # half a row, no end of line
    with Journal(path, 3) as journal:
        journal.add({'step': 4, 'loss': 0.5, 'more': 7.0})  # a new column
    found = read_log(path)
    assert found.step.tolist() == [1, 2, 3, 4]
    assert found.loss.tolist() == [1 / 1, 1 / 2, 1 / 3, 0.5]
    assert found.more.isna().tolist() == [True, True, True, False]
    path.write_bytes(path.read_bytes() + b'\0\xff\xfe\n')
    Journal(path, 10)
    assert read_log(path).step.tolist() == [1, 2, 3, 4]


def test_tensorboard_is_asked_for_and_needs_to_be_installed(tiny, tmp_path, encoder, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', None)
    with pytest.raises(ImportError, match='pip install tensorboard'):
        train_model(tiny.with_(tensorboard=True), tmp_path, encoder, progress=False)
    shown = []
    board = type('Board', (), {'add_scalar': lambda self, *row: shown.append(row), 'flush': lambda self: None})
    monkeypatch.setattr(loop, 'open_board', lambda folder, step: board())
    found = train_model(tiny.with_(tensorboard=True), tmp_path, encoder, progress=False)
    assert [value for name, value, _ in shown if name == 'log/loss'] == found.log.loss.tolist()
    assert {name for name, _, _ in shown} > {'evaluations/mbo_i', 'log/step_s'}


# ------------------------------------------------------------------------------------- what is missing is made again


def test_what_a_kill_at_the_end_leaves_out_is_made_again(tiny, tmp_path, encoder):
    whole = train_model(tiny, tmp_path, encoder, progress=False)
    (tmp_path / 'provenance.json').write_text('')
    (tmp_path / 'config.json').unlink()
    rows = (tmp_path / 'evaluations.csv').read_text().splitlines()
    (tmp_path / 'evaluations.csv').write_text('\n'.join(rows[:-1]) + '\n')
    (tmp_path / '.checkpoint.safetensors.999999999.part').write_bytes(b'left by a killed process')
    again = train_model(tiny.with_(steps=7), tmp_path, encoder, progress=False, stop_at=6)
    assert again.provenance['steps'] == 7
    again = train_model(tiny, tmp_path, encoder, progress=False)
    assert json.loads((tmp_path / 'config.json').read_text())['train']['steps'] == 7  # of the first call
    pd.testing.assert_frame_equal(again.evaluations, whole.evaluations, check_exact=True)
    pd.testing.assert_frame_equal(again.log, whole.log, check_exact=True)
    train_model(tiny.with_(steps=7), tmp_path, encoder, progress=False)
    assert not list(tmp_path.glob('.*.part'))


# ------------------------------------------------------------------------------------------------------ not finite


@pytest.mark.parametrize('where', ['token', 'gradient', 'last gradient'])
def test_what_is_not_finite_stops_the_run_and_is_never_saved(tiny, tmp_path, encoder, monkeypatch, where):
    tiny = tiny.with_(checkpoint_every=2, log_every=100, eval_every=0)
    bad = 5 if where == 'last gradient' else 3
    data = topdown.TrainData(topdown.open_dataset(tiny, 'train', progress=False), encoder, tiny)
    count = iter(range(100))
    if where == 'token':
        plain = data.batches

        def batches(*args):
            for step, tokens in enumerate(plain(*args)):
                if step == bad:
                    tokens[0, 0, 0] = float('nan')
                yield tokens

        monkeypatch.setattr(data, 'batches', batches)
    else:
        clip = torch.nn.utils.clip_grad_norm_

        def spoiled(parameters, limit):
            parameters = list(parameters)
            if next(count) == bad:
                parameters[0].grad.view(-1)[0] = float('inf')
            return clip(parameters, limit)

        monkeypatch.setattr(torch.nn.utils, 'clip_grad_norm_', spoiled)
    with pytest.raises(FloatingPointError, match=f'not finite at step {bad + 1}, images') as error:
        train_model(tiny, tmp_path, encoder, data, progress=False)
    ids = str(error.value).split('images ')[1].split(':')[0].split(', ')
    assert ids == [str(i) for i in data.image_ids(bad, tiny)]
    assert len(ids) == 4
    saved = load_checkpoint(tmp_path / 'checkpoint.safetensors')
    assert saved.step == bad - 1
    assert all(t.isfinite().all() for t in saved.tensors.values())
    assert ending(error.value)[0] == 3


def test_weights_that_are_not_finite_are_not_saved(tiny, tmp_path, encoder, monkeypatch):
    config = tiny.with_(steps=2, eval_every=0, log_every=100)
    step = torch.optim.Adam.step

    def spoiled(self, *args):
        step(self, *args)
        self.param_groups[0]['params'][0].data.view(-1)[0] = float('nan')

    train_model(config, tmp_path, encoder, progress=False, stop_at=1)
    before = (tmp_path / 'checkpoint.safetensors').read_bytes()
    monkeypatch.setattr(torch.optim.Adam, 'step', spoiled)
    monkeypatch.setattr(loop, 'evaluate_model', lambda *args: {'mbo_i': 1.0})
    with pytest.raises(FloatingPointError, match='is not finite after step 2'):
        train_model(config, tmp_path, encoder, progress=False)
    assert (tmp_path / 'checkpoint.safetensors').read_bytes() == before


def test_rates_that_are_not_finite_are_refused():
    for name in ('lr', 'grad_clip'):
        with pytest.raises(ValueError, match=rf'{name} must be .*finite'):
            topdown.preset('smoke', **{name: float('inf')})


def test_the_best_state_is_kept_where_it_is_not_the_last(tiny, tmp_path, encoder, monkeypatch):
    scores = iter([1.0, 3.0, 2.0, 9.0])
    monkeypatch.setattr(loop, 'evaluate_model', lambda *args: {'mbo_i': next(scores)})
    train_model(tiny.with_(eval_every=2), tmp_path, encoder, progress=False)
    assert load_checkpoint(tmp_path / 'best.safetensors').step == 4
    assert load_checkpoint(tmp_path / 'checkpoint.safetensors').step == 6
    train_model(tiny.with_(eval_every=2, steps=8), tmp_path, encoder, progress=False)
    assert not (tmp_path / 'best.safetensors').exists()  # the last is the best


# -------------------------------------------------------------------------------------------------------- identity


def test_a_run_goes_on_with_other_settings_that_decide_nothing(tiny, tmp_path, encoder):
    whole = train_model(tiny, tmp_path / 'whole', encoder, progress=False)
    train_model(tiny.with_(steps=4, eval_every=0), tmp_path / 'parts', encoder, progress=False)
    free = {'checkpoint_every': 1, 'log_every': 2, 'eval_every': 1, 'num_workers': 1}
    parts = train_model(tiny.with_(**free), tmp_path / 'parts', encoder, progress=False)  # and more steps
    assert weights_equal(tmp_path / 'whole', tmp_path / 'parts')
    kept = whole.log.step.isin(parts.log.step)
    assert whole.log.loss[kept].tolist() == parts.log.loss.tolist()
    with pytest.raises(ValueError, match='has done 6 steps, more than steps=5'):
        train_model(tiny.with_(steps=5), tmp_path / 'parts', encoder, progress=False)


@pytest.mark.parametrize(
    'change', [{'seed': 1}, {'num_slots': 5}, {'lr': 1e-3}, {'void': 'ignore'}, {'layer': 4}, {'ema_decay': 0.9}],
    ids=str,
)  # fmt: skip
def test_settings_that_decide_are_listed_and_refused(tiny, tmp_path, encoder, change):
    train_model(tiny, tmp_path, encoder, progress=False, stop_at=1)
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=f'another experiment .{name}={value!r} instead of'):
        train_model(tiny.with_(**change), tmp_path, encoder, progress=False)


def test_a_changed_default_does_not_pass_for_the_old_one(tiny, tmp_path, encoder, monkeypatch):
    train_model(tiny, tmp_path, encoder, progress=False, stop_at=1)
    later = tiny.with_(ema_decay=0.5)
    monkeypatch.setattr(type(later), 'key', tiny.key)  # as if both were defaults of their time, with one key
    with pytest.raises(ValueError, match=r'ema_decay=0\.5 instead of 0\.99'):
        train_model(later, tmp_path, encoder, progress=False)


# ------------------------------------------------------------------------------------------------------------ data


@pytest.fixture
def own(tiny, tmp_path):
    """The tiny experiment on a copy of its data that may be changed, read as COCO files."""
    source = Path(topdown.open_dataset(tiny, 'val', progress=False).root)
    shutil.copytree(source, tmp_path / 'data')
    return tiny.with_(dataset='coco', data_root=str(tmp_path / 'data'), toybox={}, cache_tokens=False, steps=3)


def change_file(root, place, grow):
    path = sorted((root / 'train2017').iterdir())[place]
    content = path.read_bytes()
    path.write_bytes(content + b'\0' if grow else content[:-1] + bytes([content[-1] ^ 1]))


def drop_last(root, part, split='train'):
    path = root / 'annotations' / f'instances_{split}2017.json'
    content = json.loads(path.read_text())
    gone = content[part].pop()
    if part == 'images':
        content['annotations'] = [a for a in content['annotations'] if a['image_id'] != gone['id']]
    path.write_text(json.dumps(content))


def rename(root):
    path = root / 'annotations' / 'instances_val2017.json'
    content = json.loads(path.read_text())
    content['categories'][0]['name'] = 'renamed'
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ('fault', 'message'),
    [
        (lambda root: drop_last(root, 'images'), 'in train, 23 images instead of 24'),
        (lambda root: change_file(root, 5, grow=True), 'in train, the file of image 6 .* bytes instead of'),
        (lambda root: change_file(root, 12, grow=False), 'in train, the content of .* is another'),
        (rename, 'in val, the categories are others'),
    ],
)
def test_other_data_in_the_same_place_are_refused(own, tmp_path, encoder, fault, message):
    train_model(own, tmp_path / 'run', encoder, progress=False, stop_at=1)
    fault(tmp_path / 'data')
    with pytest.raises(ValueError, match=f'other data: {message}'):
        train_model(own, tmp_path / 'run', encoder, progress=False)


def test_data_may_move(own, tmp_path, encoder):
    train_model(own, tmp_path / 'run', encoder, progress=False, stop_at=1)
    (tmp_path / 'data').rename(tmp_path / 'moved')
    found = train_model(own.with_(data_root=str(tmp_path / 'moved')), tmp_path / 'run', encoder, progress=False)
    assert len(found.provenance['data']) == 16


def test_a_finished_run_is_not_handed_out_as_another_data_sets(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, 'smoke', tiny.with_(steps=2))
    row = runs.run_job(Job('ablation', 'top-down', 0), 'smoke', tmp_path, progress=False)
    again = runs.run_job(Job('ablation', 'top-down', 0), 'smoke', tmp_path, progress=False)
    assert pd.Series(again).equals(pd.Series(row))
    monkeypatch.setattr(runs, 'digest', lambda made: 'another')
    with pytest.raises(ValueError, match='finished run on other data'):
        runs.run_job(Job('ablation', 'top-down', 0), 'smoke', tmp_path, progress=False)


def test_rows_of_other_data_are_not_gathered(own, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PRESETS, 'smoke', own.with_(steps=2))
    root = str(tmp_path / 'data')
    runs.run_job(Job('ablation', 'top-down', 0), 'smoke', tmp_path / 'runs', root, progress=False)
    words = ['tables', 'collect', '--preset', 'smoke', '--data-root', root]
    words += ['--run-dir', str(tmp_path / 'runs'), '--tables', str(tmp_path / 'tables')]
    main(words)
    capsys.readouterr()
    change_file(tmp_path / 'data', 5, grow=True)
    for what in ('collect', 'plan'):
        with pytest.raises(SystemExit):
            main([words[0], what, *words[2:]])
        (line,) = capsys.readouterr().err.splitlines()
        assert re.fullmatch(r'error: .*-seed0 holds a finished run on other data: .*', line)
    (tmp_path / 'data').rename(tmp_path / 'elsewhere')  # without the data, rows are what they are
    main(words)


def test_files_of_many_images_are_looked_at_once(tiny, monkeypatch):
    data = topdown.open_dataset(tiny, 'train', progress=False)
    plain = made_of(data)
    assert (plain.images[:, 1] > 100).all()
    assert len(plain.images[:, 0].unique()) == len(data)
    looked = []
    stat = Path.stat
    monkeypatch.setattr(Path, 'stat', lambda self, **options: looked.append(self) or stat(self, **options))
    one = data.path(0)
    monkeypatch.setattr(data, 'path', lambda i: one)
    made_of(data)
    assert len(looked) <= 2


# --------------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_save_at_the_next_step_and_the_run_goes_on_bit_for_bit(tiny, tmp_path, encoder, monkeypatch, number):
    tiny = tiny.with_(log_every=4)
    whole = train_model(tiny, tmp_path / 'whole', encoder, progress=False)
    look = Health.look

    def interrupted(self, step, *args):
        look(self, step, *args)
        if step == 2:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(Health, 'look', interrupted)
        with pytest.raises(Stopped, match='stopped at step 3 of 6') as stop:
            train_model(tiny, tmp_path / 'parts', encoder, progress=False)
    assert ending(stop.value)[0] == 128 + number
    assert signal.getsignal(number) is before
    assert load_checkpoint(tmp_path / 'parts' / 'checkpoint.safetensors').step == 3
    parts = train_model(tiny, tmp_path / 'parts', encoder, progress=False)
    assert weights_equal(tmp_path / 'parts', tmp_path / 'whole')
    pd.testing.assert_frame_equal(parts.log.drop(columns=VARYING), whole.log.drop(columns=VARYING), check_exact=True)


def test_a_signal_from_outside_ends_a_command_with_one_line(tiny, tmp_path):
    job = subprocess.Popen(
        command(tmp_path, tiny, 'steps=100000', 'log_every=7'), cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (tmp_path / 'log.csv').exists() and job.poll() is None:
        time.sleep(0.02)
    job.terminate()
    _, error = job.communicate(timeout=60)
    assert job.returncode == 143
    assert error.splitlines()[-1].startswith('stopped at step')
    assert 'Traceback' not in error
    assert load_checkpoint(tmp_path / 'checkpoint.safetensors').step >= 7


def test_a_killed_run_goes_on_bit_for_bit(tiny, tmp_path, encoder):
    """The long form, at random times, is ``make soak``."""
    words = command(tmp_path / 'parts', tiny, 'steps=60', 'checkpoint_every=5', 'log_every=2', 'precision=fp32')
    job = subprocess.Popen(words, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / 'parts' / 'checkpoint.safetensors').exists() and job.poll() is None:
        time.sleep(0.01)
    job.kill()
    job.wait()
    saved = load_checkpoint(tmp_path / 'parts' / 'checkpoint.safetensors')
    assert saved.step < 60
    own = topdown.make_encoder(saved.config)
    parts = train_model(saved.config, tmp_path / 'parts', own, progress=False)
    whole = train_model(saved.config, tmp_path / 'whole', own, progress=False)
    assert weights_equal(tmp_path / 'parts', tmp_path / 'whole')
    pd.testing.assert_frame_equal(parts.log.drop(columns=VARYING), whole.log.drop(columns=VARYING), check_exact=True)


def test_two_processes_in_one_folder(tiny, tmp_path, encoder, capsys):
    with locked(tmp_path), pytest.raises(BlockingIOError, match=f'in use by process {os.getpid()}') as error:
        train_model(tiny, tmp_path, encoder, progress=False)
    assert ending(error.value)[0] == 4
    train_model(tiny, tmp_path, encoder, progress=False)  # free again


def test_every_end_has_its_status(tiny, tmp_path, capsys, monkeypatch):
    errors = {
        1: ValueError('no'), 3: FloatingPointError('nan'), 4: BlockingIOError('busy'), 130: KeyboardInterrupt(),
        143: Stopped(signal.SIGTERM, 'stopped at step 1'),
    }  # fmt: skip
    for status, error in errors.items():

        def fail(*args, error=error, **options):
            raise error

        monkeypatch.setattr(loop, 'train_model', fail)
        with pytest.raises(SystemExit) as stop:
            main(['train', '--preset', 'smoke', '--folder', str(tmp_path)])
        assert stop.value.code == status
        assert len(capsys.readouterr().err.splitlines()) == 1


# ----------------------------------------------------------------------------------------------------- checkpoints


@pytest.fixture
def checkpoint(tiny, tmp_path, encoder):
    tiny = tiny.with_(decoder='slotwise')  # which is built for a number of patches
    train_model(tiny, tmp_path / 'run', encoder, progress=False, stop_at=1)
    return tmp_path / 'run' / 'checkpoint.safetensors'


def test_no_flipped_bit_passes(checkpoint, tmp_path):
    content = bytearray(checkpoint.read_bytes())
    rng = np.random.default_rng(0)
    places = [*rng.integers(0, len(content), 150), *rng.integers(0, 6000, 50)]  # weights, and header
    path = tmp_path / 'flipped.safetensors'
    for place in places:
        bit = 1 << int(rng.integers(8))
        content[place] ^= bit
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r'damaged|not a checkpoint'):
            load_checkpoint(path)
        content[place] ^= bit
    path.write_bytes(content)
    assert load_checkpoint(path).step == 1


def as_before(path, **changes):
    """Write a checkpoint in the format before, with a log in its header and no checksum."""
    with safe_open(path, 'pt') as file:
        header = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys() if not name.startswith('data.')}  # noqa: SIM118
    rows = [{'step': 1, 'loss': 1.5, 'lr': 0.1, 'gradient_norm': 1.0, 'perplexity': 2.0}]
    header |= {'format': 'topdown-1', 'log': json.dumps({'train': rows, 'eval': []})}
    del header['sha256'], header['data']
    header |= changes
    save_file(tensors, path, {name: value for name, value in header.items() if value is not None})


def test_checkpoints_of_the_format_before_are_read(tiny, checkpoint, encoder):
    as_before(checkpoint)
    (checkpoint.parent / 'log.csv').unlink()
    found = train_model(tiny.with_(decoder='slotwise'), checkpoint.parent, encoder, progress=False)
    assert found.log.loss[0] == 1.5
    assert found.log.step.tolist() == [1, 2, 3, 4, 5, 6]
    assert set(load_checkpoint(checkpoint).data) == {'train', 'val'}  # from now on, data are known


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'step': None}, 'another version .step'), ({'more': '1'}, 'another version .more'),
        ({'format': 'topdown-9'}, "format 'topdown-9'"), ({'config': '{'}, 'cannot be read'),
        ({'config': '{}'}, 'cannot be read'), ({'config': '[]'}, 'cannot be read'), ({'step': 'x'}, 'cannot be read'),
        ({'feature_size': '8'}, 'cannot be read .* is missing, or another than its model has'),
        ({'num_patches': str(10**12)}, 'cannot be read'), ({'step': '-1'}, 'cannot be read .*step=-1'),
        ({'log': '['}, 'cannot be read'), ({'config': '{"train": {"colour": 1}}'}, 'cannot be read'),
    ],
    ids=str,
)  # fmt: skip
def test_headers_that_do_not_fit_have_one_message(checkpoint, change, message):
    as_before(checkpoint, **change)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(checkpoint)


def test_shipped_weights_are_verified(tmp_path, monkeypatch):
    for name in encoders.SHIPPED:
        content = bytearray((encoders.WEIGHTS / f'{name}.safetensors').read_bytes())
        content[-1] ^= 1
        (tmp_path / f'{name}.safetensors').write_bytes(content)
    monkeypatch.setattr(encoders, 'WEIGHTS', tmp_path)
    for name in encoders.SHIPPED:
        with pytest.raises(ValueError, match=rf'{name}.* is damaged .* reinstall'):
            getattr(encoders, name)(pretrained=True)


# ------------------------------------------------------------------------------------------------------- torchrun


def torchrun(processes, words):
    start = ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}']
    return [words[0], *start, *words[1:]]


def last_words(done):
    """The one message of a command that failed, which torchrun's own report may follow."""
    lines = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1, done.stderr
    assert 'DataLoader' not in done.stderr
    return lines


def test_one_failing_process_ends_all_with_one_message(own, tmp_path):
    words = command(tmp_path / 'run', own, 'dataset=coco', 'cache_tokens=False', 'steps=6', 'num_workers=1')
    words = [word for word in words if not word.startswith('--toybox')]  # data are read, not made
    path = sorted((tmp_path / 'data' / 'train2017').iterdir())[2]
    path.write_bytes(path.read_bytes()[:200])
    for processes in (1, 2):
        found = run(torchrun(processes, words) if processes > 1 else words)
        assert found.returncode == 1
        assert last_words(found)[0].startswith(f'error: {path} cannot be read')


def test_a_full_disk_ends_all_with_one_message(tiny, tmp_path):
    changes = ('steps=4', 'checkpoint_every=2', 'precision=fp32', 'cache_tokens=False')
    words = torchrun(2, command(tmp_path / 'run', tiny, *changes))
    limit = (100_000, 100_000)  # bytes of a file; the checkpoint is larger
    found = run(words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    assert found.returncode == 1
    assert 'checkpoint.safetensors could not be written' in last_words(found)[0]
    assert not list((tmp_path / 'run').glob('*.safetensors*'))
    assert not list((tmp_path / 'run').glob('.*.part'))
    assert run(command(tmp_path / 'run', tiny, 'steps=4', 'precision=fp32')).returncode == 0  # with room again


@pytest.mark.parametrize(
    ('environment', 'message'),
    [
        ({'WORLD_SIZE': '2'}, 'RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set'),
        ({'SLURM_STEP_NUM_TASKS': '2', 'SLURM_PROCID': '0'}, 'srun started 2 tasks'),
    ],
)
def test_launching_that_cannot_work_has_one_line(environment, message, monkeypatch, capsys):
    for name in ('WORLD_SIZE', 'RANK', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT', 'SLURM_STEP_NUM_TASKS'):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as stop:
        main(['train', '--preset', 'smoke'])
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert distributed.highest(3) == 3


# ----------------------------------------------------------------------------------------------- signs of failure


def test_hits_scale_with_the_batch_and_presets_stay_as_they_are():
    assert topdown.preset('coco', batch_size=16).model.dead_code_threshold == pytest.approx(0.2)
    assert topdown.preset('coco', batch_size=16).with_(batch_size=64) == topdown.preset('coco')
    assert topdown.preset('coco', batch_size=16, dead_code_threshold=0.8).model.dead_code_threshold == 0.8
    assert topdown.preset('smoke').model.dead_code_threshold == topdown.preset('toybox').model.dead_code_threshold


def test_signs_of_failure_are_said_once(tiny, encoder):
    health = Health(topdown.build_model(tiny, encoder), tiny.with_(warmup_steps=0), None)
    said = []
    for number in range(1, 200):
        said += health.signs({'step': 10 * number, 'loss': 1.0, 'revived': 0.6, 'codes_in_use': 0.05})
        if number <= 10:
            assert not said  # a hundred steps are early
    assert [text.split()[0] for text in said] == ['60%', '5.0%', 'the']
    falling = Health(health.model, tiny.with_(warmup_steps=0), None)
    for number in range(1, 200):
        row = {'step': 10 * number, 'loss': number**-0.1, 'revived': 0.4, 'codes_in_use': 0.5}
        assert not list(falling.signs(row))
    baseline = {'step': 500, 'loss': 1.0, 'revived': float('nan'), 'codes_in_use': float('nan')}
    assert not list(Health(health.model, tiny, None).signs(baseline))


def test_odd_schedules_are_named(tiny, tmp_path, encoder, capsys):
    plain = topdown.preset('smoke', steps=100, warmup_steps=10, lr_half_life=50)
    few = [0, 7]
    assert not list(doubts(plain, few))
    assert 'is not over' in next(doubts(plain.with_(warmup_steps=100), few))
    assert 'hardly falls, to 50%' in next(doubts(plain.with_(lr_half_life=101), few))
    train_model(tiny.with_(steps=2, warmup_steps=5, lr_half_life=1), tmp_path, encoder, progress=False)
    assert capsys.readouterr().out.count('note: warmup_steps=5') == 1


# ----------------------------------------------------------------------------------------------------- loose ends


def test_the_number_of_loader_processes_changes_nothing(tiny, tmp_path, encoder):
    config = tiny.with_(cache_tokens=False, steps=3, random_crop=True)
    for workers in (0, 1, 3):
        train_model(config.with_(num_workers=workers), tmp_path / str(workers), encoder, progress=False)
    assert weights_equal(tmp_path / '0', tmp_path / '1')
    assert weights_equal(tmp_path / '0', tmp_path / '3')


def test_fresh_empties_runs_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.delenv('TOPDOWN_PRESET', raising=False)
    monkeypatch.chdir(tmp_path)
    data, elsewhere = tmp_path / 'coco_smoke', tmp_path / 'elsewhere'
    base = topdown.preset('smoke', top_down=False, steps=3)
    for place in (data / 'train2017', data / 'annotations', elsewhere):
        place.mkdir(parents=True)
        (place / 'kept.json').touch()
    (tmp_path / 'smoke').symlink_to(data)  # the run's parent is somebody's data
    for seed in range(base.seeds):
        link = chapters.run_folder(tmp_path / 'smoke', 'baseline', base.with_(seed=seed))
        link.symlink_to(elsewhere)
    for name in (*loop.RUN_FILES, 'events.out.tfevents.1'):
        (elsewhere / name).touch()
    chapters.begin('smoke', ['smoke'], 'baseline', '.', fresh=True, steps=3)
    assert [path.name for path in elsewhere.iterdir()] == ['kept.json']
    assert sorted(path.name for path in data.iterdir() if not path.is_symlink()) == ['annotations', 'train2017']
    assert (data / 'train2017' / 'kept.json').exists()
    with locked(elsewhere), pytest.raises(BlockingIOError, match='in use'):
        chapters.begin('smoke', ['smoke'], 'baseline', '.', fresh=True, steps=3)


def test_interventions_of_runs_of_two_kinds_are_not_averaged(tiny, tmp_path, encoder):
    for seed, slots in ((0, 7), (1, 7), (0, 5)):
        config = tiny.with_(seed=seed, num_slots=slots, steps=2, eval_every=0)
        train_model(config, tmp_path / f'top-down-seed{seed}-{config.key}', encoder, progress=False)
    table = tmp_path / 'table.csv'
    main(['interventions', str(tmp_path), '--table', str(table)])
    summary = pd.read_csv(tmp_path / 'table_summary.csv')
    both = summary[summary.intervention == 'both']
    assert sorted(both.runs) == [1, 2]
    assert both.config.nunique() == 2
    by_seed = pd.read_csv(tmp_path / 'table_by_seed.csv')
    assert len(by_seed) == 3
