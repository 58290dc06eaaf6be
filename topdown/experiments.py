"""All experiments of the book: which runs they need, how one is made, and how all are made and gathered.

A ``Job`` is one training run that an experiment asks for. ``plan`` lists them, ``run_job`` makes one, and
``python -m topdown.experiments`` makes those that are missing, each through ``book/90_one_run.ipynb``, and gathers the
rows into ``figures/tables/<preset>_<experiment>.csv``. A run that several experiments ask for is made once. What is
done is not done again; what was interrupted goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from tqdm.auto import tqdm

from topdown.config import PRESETS, VARIANTS, Config, preset
from topdown.data import open_dataset
from topdown.encoder import make_encoder
from topdown.evaluate import EvalSet, make_eval_set, predict, run_model, score
from topdown.metrics import summarize
from topdown.results import project_dir
from topdown.semantics import code_meaning
from topdown.train import Run, TrainData, train_model

EXPERIMENTS = ('main', 'ablation', 'codebook', 'categories', 'difficulty')
MAIN = ('baseline', 'top-down', 'six-iterations')
ABLATION = (
    *MAIN, 'channel only', 'spatial only', 'without shifting', 'without quantization', 'mlp predictor', 'two rounds',
    'three rounds', 'separate weights',
)  # fmt: skip
SIZES, PAPER_SIZES = (8, 16, 32, 64, 128, 256, 512, 1024), (128, 256, 512, 1024)
CATEGORIES, CATEGORY_SIZES = (4, 8, 16), (8, 16, 32, 64, 128)
SETTINGS: dict[str, dict[str, object]] = {
    'as it is': {},
    'easy parts': {'toybox': {'dissimilarity': 0.0}},
    'cluttered': {'toybox': {'clutter': 2.0}},
    'many objects': {'toybox': {'min_objects': 7, 'max_objects': 10}, 'slots': 11},
    'few slots': {'slots': 4},
    'many slots': {'slots': 11},
    'tiny codebook': {'codebook_size': 2},
    'plain ground': {'toybox': {'background_contrast': 0.0}},
    'strong ground': {'toybox': {'background_contrast': 1.0}},
}
"""Settings of the experiment on difficulty, as changes to a Toybox preset."""

SEEDS = {'main': 1, 'ablation': 5, 'codebook': 3, 'categories': 1, 'difficulty': 2}
"""Seeds of every experiment on Toybox; presets of the paper's scale, and ``smoke``, get one."""

GROWTH_POINTS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Shares of a run after which ``growth`` measures it."""
GROWTH_SEEDS = 3

NOTEBOOK = '90_one_run.ipynb'
CLUSTER_OPTIONS = {'timeout_min': 2880, 'cpus_per_task': 8}


@dataclass(frozen=True)
class Job:
    """One training run that an experiment asks for."""

    experiment: str
    variant: str
    seed: int
    changes: dict = field(default_factory=dict)
    """Changes to the preset beside the variant's, by their plain names."""
    setting: str = ''
    """What readers call the changes."""

    def __post_init__(self) -> None:
        if self.experiment not in EXPERIMENTS:
            raise ValueError(f'experiment must be one of {", ".join(EXPERIMENTS)}, got {self.experiment!r}')
        if self.variant not in VARIANTS:
            raise ValueError(f'variant must be one of {", ".join(VARIANTS)}, got {self.variant!r}')
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f'seed must be a whole number from 0, got {self.seed!r}')
        if not isinstance(self.changes, dict) or {'seed', 'data_root', 'token_dir'} & set(self.changes):
            raise ValueError(f'changes must name parameters other than seed, data_root, token_dir: {self.changes!r}')

    def config(self, preset_name: str, data_root: str = '', token_dir: str = '', steps: int = 0) -> Config:
        """The run's configuration.

        Args:
            preset_name: of the preset that is changed.
            data_root: folder of the data set.
            token_dir: folder of the shared tokens, used if the preset keeps tokens.
            steps: of optimisation; 0 leaves them to the preset.

        Raises:
            ValueError: for an unknown preset or parameter or an impossible value.
        """
        values = {**VARIANTS[self.variant], **self.changes}
        config = preset(preset_name, seed=self.seed, data_root=data_root, **values)
        if steps:
            config = config.with_(steps=steps)
        return config.with_(token_dir=token_dir) if config.train.cache_tokens and token_dir else config


def parse_changes(text: str) -> dict[str, object]:
    """Changes from JSON, as a notebook's parameter holds them.

    Raises:
        ValueError: if the text is not a JSON object.
    """
    try:
        changes = json.loads(text)
    except (TypeError, json.JSONDecodeError) as error:
        raise ValueError(f'changes must be JSON such as {{"slots": 5}}, got {text!r}: {error}') from error
    if not isinstance(changes, dict):
        raise ValueError(f'changes must be a JSON object such as {{"slots": 5}}, got {text!r}')
    return changes


def revival(base: Config, slots: int, codebook_size: int) -> float:
    """``dead_below`` for other numbers of slots or codes: the same share of the average as the preset's.

    A code is hit batch * slots / codebook_size times a step on average. The preset's threshold is some share of that
    average, which is kept, so that changing the size of the codebook does not also change how readily codes are
    revived.
    """
    model = base.model
    return round(model.dead_below * (slots / model.slots) * (model.codebook_size / codebook_size), 6)


# --------------------------------------------------------------------------------------------------------- plan


def plan(preset_name: str, only: Iterable[str] | None = None) -> list[Job]:
    """The runs that the experiments ask for, in the order of their tables.

    Toybox presets have all experiments but ``main``, whose models are among the ablation's; ``coco`` has the paper's
    main table, ablation and codebook sizes; other presets the main table.

    Args:
        preset_name: a preset.
        only: names of experiments; all that the preset has if None.

    Raises:
        ValueError: for an unknown preset or experiment, or one that the preset does not have.
    """
    base = preset(preset_name)
    toybox = base.data.dataset == 'toybox'
    known = EXPERIMENTS[1:] if toybox else EXPERIMENTS[: 3 if preset_name == 'coco' else 1]
    chosen = list(known if only is None else only)
    for name in chosen:
        if name not in known:
            raise ValueError(f'preset {preset_name!r} has no experiment {name!r}; it has {", ".join(known)}')
    many = toybox and preset_name != 'smoke'
    jobs = []
    for name in known:
        if name in chosen:
            cases = list(_cases(name, toybox))
            seeds = SEEDS[name] if many else 1
            jobs += [
                Job(name, variant, seed, _complete(base, changes), setting)
                for variant, changes, setting in cases
                for seed in range(seeds)
            ]
    return jobs


def _cases(name: str, toybox: bool) -> Iterator[tuple[str, dict[str, object], str]]:
    """Variant, changes and setting of every case of an experiment."""
    if name in ('main', 'ablation'):
        for variant in MAIN if name == 'main' else ABLATION:
            yield variant, {}, ''
    elif name == 'codebook':
        for size in SIZES if toybox else PAPER_SIZES:
            yield 'top-down', {'codebook_size': size}, f'E = {size}'
    elif name == 'categories':
        for count in CATEGORIES:
            known = {} if count == 16 else {'toybox': {'categories': count}}
            for size in CATEGORY_SIZES:
                yield 'top-down', {'codebook_size': size, **known}, f'{count} categories, E = {size}'
    else:
        for setting, changes in SETTINGS.items():
            for variant in ('baseline', 'top-down')[setting == 'tiny codebook' :]:
                yield variant, changes, setting


def _complete(base: Config, changes: dict[str, object]) -> dict[str, object]:
    """Changes with the preset's own Toybox settings kept and the revival threshold scaled."""
    changes = dict(changes)
    if 'toybox' in changes:
        changes['toybox'] = {**base.data.toybox, **changes['toybox']}
    if {'slots', 'codebook_size'} & set(changes):
        sizes = changes.get('slots', base.model.slots), changes.get('codebook_size', base.model.codebook_size)
        changes['dead_below'] = revival(base, *sizes)
    return changes


def job_folder(run_dir: str | Path, config: Config) -> Path:
    """Where a run's checkpoint, logs, executed notebook and row lie."""
    return Path(run_dir) / config.name / 'jobs' / f'{config.key}-seed{config.train.seed}'


def read_row(folder: Path, config: Config) -> dict[str, object] | None:
    """The row of a finished run; None if there is none of this configuration and seed."""
    path = folder / 'row.json'
    if not path.is_file():
        return None
    row = json.loads(path.read_text())
    return row if (row['config'], row['seed']) == (config.key, config.train.seed) else None


# ------------------------------------------------------------------------------------------------------ one run


def run_job(
    job: Job,
    preset_name: str,
    run_dir: str | Path = 'runs',
    data_root: str = '',
    token_dir: str = '',
    steps: int = 0,
    progress: bool = True,
) -> dict[str, object]:
    """Train and measure one run, or go on with it; a finished one is only read.

    Args:
        job: the run.
        preset_name, data_root, token_dir, steps: see ``Job.config``.
        run_dir: parent of all runs.
        progress: show bars.

    Returns:
        The run's row, which is also in ``row.json`` of its folder, written last and at once.

    Raises:
        ValueError, OSError, FloatingPointError: see ``train_model``.
    """
    config = job.config(preset_name, data_root, token_dir, steps)
    folder = job_folder(run_dir, config)
    row = read_row(folder, config)
    if row is not None:
        return row
    began = time.perf_counter()
    encoder = make_encoder(config)
    eval_set = make_eval_set(config, encoder, progress=progress)
    run = train_model(config, folder, encoder, eval_set=eval_set, progress=progress)
    row = {
        'variant': job.variant,
        'changes': json.dumps(job.changes, sort_keys=True),
        **measure_run(run, eval_set),
        'wall_seconds': round(time.perf_counter() - began, 1),
        **run.provenance,
    }
    fresh = folder / f'.row.json.{os.getpid()}'
    fresh.write_text(json.dumps(row, indent=1))
    os.replace(fresh, folder / 'row.json')
    return row


def measure_run(run: Run, data: EvalSet) -> dict[str, object]:
    """Everything the tables show of a trained model.

    Returns:
        Metrics of the decoder's masks in percent; with the prefix ``slots_`` those of slot attention's masks
        where they differ from the decoder's, and with ``first_`` those of the first pass's masks where there
        are two passes; ``train_loss``, the mean of the last tenth of the log, NaN if nothing was logged yet;
        ``val_loss``, the mean reconstruction loss; the number of ``parameters``; for models with a codebook
        what ``code_meaning`` finds.
    """
    model = run.model
    labels = {'': predict(model, data), 'slots_': predict(model, data, 'slots')}
    if torch.equal(labels[''], labels['slots_']):
        del labels['slots_']
    if run.config.model.top_down:
        labels['first_'] = predict(model, data, 'first')
    row: dict[str, object] = {}
    for prefix, found in labels.items():
        row |= {f'{prefix}{name}': value for name, value in summarize(score(found, data)).items()}
    losses = [out.reconstruction_loss.item() * len(out.slots) for _, out in run_model(model, data)]
    row['train_loss'] = float(run.log.loss.tail(max(1, len(run.log) // 10)).mean()) if len(run.log) else float('nan')
    row['val_loss'] = sum(losses) / len(data)
    row['parameters'] = sum(p.numel() for p in model.parameters())
    if model.codebook is not None:
        row['codebook_size'] = model.codebook.size
        row |= code_meaning(model, data)
    return row


def growth(preset_name: str, run_dir: str | Path = 'runs', data_root: str = '', progress: bool = True) -> pd.DataFrame:
    """What codes mean in the course of training: the top-down model, stopped and measured ``GROWTH_POINTS`` times.

    Stopping does not change a run: it goes on bit for bit as if it had not been stopped.

    Returns:
        One row a seed and step, columns as ``measure_run``'s, with ``step`` and the run's provenance.
    """
    rows = []
    encoder = data = eval_set = None
    many = preset(preset_name).data.dataset == 'toybox' and preset_name != 'smoke'
    for seed in range(GROWTH_SEEDS if many else 1):
        job = Job('ablation', 'top-down', seed)
        config = job.config(preset_name, data_root, str(Path(run_dir) / 'tokens'))
        encoder = encoder or make_encoder(config)
        eval_set = eval_set or make_eval_set(config, encoder, progress=progress)
        data = data or TrainData(open_dataset(config, 'train', progress), encoder, config, progress)
        folder = Path(run_dir) / preset_name / 'growth' / f'{config.key}-seed{seed}'
        steps = sorted({max(1, round(config.train.steps * share)) for share in GROWTH_POINTS})
        for step in steps:
            path = folder / f'step{step}.json'
            if not path.is_file():
                run = train_model(config, folder, encoder, data, eval_set, progress, stop_at=step)
                row = {'step': step, 'variant': job.variant, **measure_run(run, eval_set), **run.provenance}
                fresh = path.with_suffix('.new')
                fresh.write_text(json.dumps(row, indent=1))
                os.replace(fresh, path)
            rows.append(json.loads(path.read_text()))
    return pd.DataFrame(rows)


# ----------------------------------------------------------------------------------------------------- all runs


class Task(NamedTuple):
    """A run to be made by a process of its own."""

    job: Job
    config: Config
    folder: Path

    @property
    def name(self) -> str:
        """What the run is called in messages."""
        return ', '.join(filter(None, (self.job.variant, self.job.setting, f'seed {self.job.seed}')))

    @property
    def done(self) -> bool:
        """Whether its row is there."""
        return read_row(self.folder, self.config) is not None


class Places(NamedTuple):
    """Where things are."""

    preset: str
    run_dir: Path
    data_root: str

    @property
    def token_dir(self) -> Path:
        """Store of the encoder's tokens, shared by all runs."""
        return self.run_dir / 'tokens'


def unique_tasks(jobs: Iterable[Job], places: Places) -> list[Task]:
    """Every run once, the first seeds first: whatever is stopped early has compared everything at least once."""
    tasks: dict[Path, Task] = {}
    for job in jobs:
        config = job.config(places.preset, places.data_root, str(places.token_dir))
        folder = job_folder(places.run_dir, config)
        tasks.setdefault(folder, Task(job, config, folder))
    return sorted(tasks.values(), key=lambda task: task.job.seed)


def describe(jobs: list[Job], tasks: list[Task], places: Places, workers: int) -> str:
    """The plan as text: runs an experiment, those done and to do, and how long the rest may take."""
    done = {task.folder for task in tasks if task.done}
    rows = []
    for name in dict.fromkeys(job.experiment for job in jobs):
        folders = [job_folder(places.run_dir, job.config(places.preset)) for job in jobs if job.experiment == name]
        rows.append([name, len(folders), sum(f in done for f in folders), sum(f not in done for f in folders)])
    rows.append(['all, each once', len(tasks), len(done), len(tasks) - len(done)])
    table = pd.DataFrame(rows, columns=['experiment', 'runs', 'done', 'to do']).to_string(index=False)
    lines = [f'preset {places.preset}', table]
    spent = [read_row(t.folder, t.config)['wall_seconds'] for t in tasks if t.folder in done]
    left = len(tasks) - len(done)
    if spent and left:
        mean = sum(spent) / len(spent)
        hours = mean * left / min(workers, left) / 3600
        lines.append(f'{mean:.0f} s a finished run; the rest takes about {hours:.1f} h with {workers} at a time')
    return '\n'.join(lines)


def prepare(tasks: Iterable[Task], progress: bool = True) -> None:
    """Make data sets and shared tokens once, so that the runs do not all make them at the same time.

    Raises:
        OSError, ValueError: if data are missing or do not fit, saying what to do.
    """
    seen = set()
    for task in tasks:
        config = task.config
        needs = json.dumps([vars(config.data), vars(config.encoder), config.train.cache_tokens], sort_keys=True)
        if needs in seen:
            continue
        seen.add(needs)
        train_set = open_dataset(config, 'train', progress)
        open_dataset(config, 'val', progress)
        if config.train.cache_tokens and config.train.token_dir:
            TrainData(train_set, make_encoder(config), config, progress)


def command(task: Task, places: Places, root: Path) -> list[str]:
    """The command that makes one run: its notebook, executed into its folder."""
    texts = {
        'preset': places.preset, 'experiment': task.job.experiment, 'variant': task.job.variant,
        'changes': json.dumps(task.job.changes), 'run_dir': str(places.run_dir), 'data_root': places.data_root,
        'token_dir': str(places.token_dir) if task.config.train.token_dir else '',
    }  # fmt: skip
    found = [sys.executable, '-m', 'papermill', str(root / 'book' / NOTEBOOK), str(task.folder / 'run.ipynb')]
    found += ['--cwd', str(root), '-k', 'python3', '--no-progress-bar', '-p', 'seed', str(task.job.seed)]
    return found + [word for name, text in texts.items() if text for word in ('-r', name, text)]


def run_local(tasks: list[Task], places: Places, workers: int, root: Path, report: Callable[[Task], None]) -> None:
    """Make runs in processes of their own, so many at a time, the cores shared out among them.

    A process that fails or is killed leaves the others running. What a run prints goes to ``run.log`` in its folder.

    Args:
        tasks: what is to be made.
        places: where.
        workers: processes at a time.
        root: the project's folder.
        report: called with every task that ended, whether well or not.
    """
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    environment = {**os.environ, 'OMP_NUM_THREADS': threads, 'MKL_NUM_THREADS': threads}
    environment.pop('TOPDOWN_PRESET', None)  # it would take the place of the preset
    waiting, running = list(tasks), []
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                task = waiting.pop(0)
                with (task.folder / 'run.log').open('w') as log:
                    process = subprocess.Popen(
                        command(task, places, root), cwd=root, env=environment, stdout=log, stderr=log
                    )
                running.append((task, process))
            for task, process in [pair for pair in running if pair[1].poll() is not None]:
                running.remove((task, process))
                report(task)
            time.sleep(0.2)
    finally:
        for _, process in running:
            process.terminate()
        for _, process in running:
            process.wait()


def run_cluster(
    tasks: list[Task],
    places: Places,
    workers: int,
    root: Path,
    report: Callable[[Task], None],
    cluster: str = 'slurm',
    options: dict[str, object] | None = None,
) -> None:
    """Make runs as jobs of a cluster, through submitit, and wait for them; arguments as for ``run_local``.

    Args:
        cluster: 'slurm', or 'local' for processes of this machine, all at once.
        options: of submitit's ``update_parameters``, such as {'slurm_partition': 'gpu', 'gpus_per_node': 1}.

    Raises:
        ImportError: if submitit is not installed.
    """
    try:
        import submitit
    except ImportError as error:
        raise ImportError('engine slurm needs submitit: pip install -e ".[cluster]"') from error
    options = {**CLUSTER_OPTIONS, **(options or {})}
    threads = options['cpus_per_task']
    prefix = ['env', '-u', 'TOPDOWN_PRESET', f'OMP_NUM_THREADS={threads}', f'MKL_NUM_THREADS={threads}']
    executor = submitit.AutoExecutor(folder=places.run_dir / places.preset / 'jobs' / 'cluster', cluster=cluster)
    executor.update_parameters(name='topdown', slurm_array_parallelism=workers, **options)
    with executor.batch():
        sent = [
            executor.submit(submitit.helpers.CommandFunction(prefix + command(task, places, root), cwd=root))
            for task in tasks
        ]
    waiting = list(zip(tasks, sent, strict=True))
    try:
        while waiting:
            for task, job in [pair for pair in waiting if pair[1].done()]:
                waiting.remove((task, job))
                (task.folder / 'run.log').write_text(f'{job.stdout() or ""}\n{job.stderr() or ""}\n')
                report(task)
            time.sleep(0.2 if cluster == 'local' else 10)
    finally:
        for _, job in waiting:
            job.cancel()


def collect(jobs: Iterable[Job], places: Places, tables: Path) -> pd.DataFrame:
    """Gather rows into one table an experiment, a row a run in the order of the plan; missing runs are left out.

    An experiment without a row gets no table. The main table is called after the preset alone.

    Returns:
        experiment, runs found and missing, and the file.
    """
    jobs, summary = list(jobs), []
    for name in dict.fromkeys(job.experiment for job in jobs):
        mine, rows = [job for job in jobs if job.experiment == name], []
        for job in mine:
            config = job.config(places.preset)
            row = read_row(job_folder(places.run_dir, config), config)
            if row is None:
                continue
            first = {
                'experiment': name, 'variant': job.variant, 'setting': job.setting,
                'changes': json.dumps(job.changes, sort_keys=True), 'seed': job.seed,
            }  # fmt: skip
            if config.data.dataset == 'toybox':
                first['categories'] = config.data.toybox.get('categories', 16)
            rows.append({**first, **{key: value for key, value in row.items() if key not in first}})
        path = tables / (f'{places.preset}.csv' if name == 'main' else f'{places.preset}_{name}.csv')
        if rows:
            _write_table(path, rows)
        summary.append([name, len(rows), len(mine) - len(rows), str(path) if rows else '-'])
    return pd.DataFrame(summary, columns=['experiment', 'runs', 'missing', 'table'])


def _write_table(path: Path, rows: list[dict[str, object]]) -> None:
    """Columns in the order of the longest rows, so that those of codes stand together; moved into place when whole."""
    longest = max(rows, key=len)
    columns = list(dict.fromkeys([*longest, *(key for row in rows for key in row)]))
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f'.{path.name}.{os.getpid()}')
    pd.DataFrame(rows, columns=columns).to_csv(fresh, index=False)
    os.replace(fresh, path)


def execute(tasks: list[Task], places: Places, options: argparse.Namespace) -> list[Task]:
    """Make all runs and return those that failed."""
    root = project_dir().resolve()
    if not (root / 'book' / NOTEBOOK).is_file():
        raise FileNotFoundError(f'{root / "book" / NOTEBOOK} is missing: call this from the folder of the project')
    if importlib.util.find_spec('papermill') is None:
        raise ImportError('executing notebooks needs papermill: pip install -e ".[book]"')
    todo, failed = [task for task in tasks if not task.done], []
    for task in todo:
        task.folder.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(tasks), initial=len(tasks) - len(todo), desc='runs', unit='run') as bar:

        def report(task: Task) -> None:
            if task.done:
                bar.update()
            else:
                failed.append(task)
                bar.write(f'failed: {task.name}; see {task.folder / "run.ipynb"}')
            bar.set_postfix(failed=len(failed))

        if options.engine == 'slurm':
            run_cluster(todo, places, options.workers, root, report, options=options.slurm_options)
        else:
            run_local(todo, places, options.workers, root, report)
    return failed


def _last_words(task: Task) -> str:
    """The last line that a failed run left."""
    path = task.folder / 'run.log'
    lines = path.read_text(errors='replace').split('\n') if path.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), 'it said nothing')


def main(arguments: list[str] | None = None) -> None:
    """Command line: ``python -m topdown.experiments --preset toybox`` makes what is missing and gathers the tables."""
    parser = argparse.ArgumentParser(prog='python -m topdown.experiments', description='Make the runs of the book.')
    parser.add_argument('--preset', default='toybox', choices=list(PRESETS))
    parser.add_argument('--only', nargs='+', metavar='NAME', help=f'some of {", ".join(EXPERIMENTS)}')
    parser.add_argument('--workers', type=int, default=1, help='runs at a time; the cores are shared out among them')
    parser.add_argument('--engine', default='local', choices=['local', 'slurm'])
    parser.add_argument(
        '--slurm-options', type=parse_changes, default={}, metavar='JSON',
        help='for submitit, such as \'{"slurm_partition": "gpu", "gpus_per_node": 1}\'',
    )  # fmt: skip
    parser.add_argument('--data-root', default='', help='folder of the data set')
    parser.add_argument('--run-dir', default='runs', help='where runs are kept')
    parser.add_argument('--tables', type=Path, default=Path('figures/tables'), help='where tables are written')
    parser.add_argument('--dry-run', action='store_true', help='print the plan only')
    parser.add_argument('--growth', action='store_true', help='instead: what codes mean in the course of training')
    parser.add_argument('--collect', action='store_true', help='gather the rows that are there only')
    options = parser.parse_args(arguments)
    failed: list[Task] = []
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a request to end stops the runs, too
    try:
        if options.workers < 1:
            raise ValueError(f'workers must be at least 1, got {options.workers}')
        jobs = plan(options.preset, options.only)
        root = project_dir().resolve()
        if options.growth:
            found = growth(options.preset, root / options.run_dir, options.data_root)
            _write_table(root / options.tables / f'{options.preset}_growth.csv', found.to_dict('records'))
            print(found[['step', 'seed', 'fg_ari', 'mbo_i', 'perplexity', 'code_category_ami']].to_string(index=False))
            return
        places = Places(options.preset, root / options.run_dir, options.data_root)
        tasks = unique_tasks(jobs, places)
        print(describe(jobs, tasks, places, options.workers), flush=True)
        if options.dry_run:
            return
        if not options.collect:
            prepare(task for task in tasks if not task.done)
            failed = execute(tasks, places, options)
        print(collect(jobs, places, root / options.tables).to_string(index=False))
    except KeyboardInterrupt:
        parser.exit(130, 'stopped; the same command goes on from here\n')
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        parser.exit(1, f'error: {error}\n')
    if failed:
        lines = [f'{task.name}: {task.folder / "run.ipynb"}\n  {_last_words(task)}' for task in failed]
        parser.exit(1, '\n'.join([f'{len(failed)} runs failed; the same command tries them again:', *lines]) + '\n')


if __name__ == '__main__':
    main()
