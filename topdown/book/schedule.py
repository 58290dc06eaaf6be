"""All runs of the book, made where they are missing and gathered into tables, on this machine or on a cluster."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tqdm.auto import tqdm

from topdown.book.crowds import crowds
from topdown.book.places import project_dir
from topdown.book.plan import Job, plan
from topdown.book.runs import growth, job_folder, probes, read_row
from topdown.book.summaries import check_tables
from topdown.book.tables import probe_summary
from topdown.config import Config
from topdown.data import open_dataset
from topdown.datasets import DATASETS
from topdown.files import fresh
from topdown.model.encoder import make_encoder
from topdown.presets import preset
from topdown.train.batches import TrainData

NOTEBOOK = '90_one_run.ipynb'


CLUSTER_OPTIONS = {'timeout_min': 2880, 'cpus_per_task': 8}


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
    def token_dir(self) -> str:
        """Store of the encoder's tokens, shared by all runs; empty if the preset keeps none."""
        return str(self.run_dir / 'tokens') if preset(self.preset).train.cache_tokens else ''


def unique_tasks(jobs: Iterable[Job], places: Places) -> list[Task]:
    """Every run once, the first seeds first: whatever is stopped early has compared everything at least once."""
    tasks: dict[Path, Task] = {}
    for job in jobs:
        config = job.config(places.preset, places.data_root, places.token_dir)
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
        'token_dir': task.config.train.token_dir,
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
    running: list[subprocess.Popen] = []
    stop = threading.Event()

    def make(task: Task) -> Task:
        with (task.folder / 'run.log').open('w') as log:
            words = command(task, places, root)
            process = subprocess.Popen(words, cwd=root, env=environment, stdout=log, stderr=log)
            running.append(process)
            if stop.is_set():  # begun by a thread that was free just then
                process.terminate()
            process.wait()
        return task

    with ThreadPoolExecutor(workers) as pool:
        try:
            for job in as_completed([pool.submit(make, task) for task in tasks]):
                report(job.result())
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()


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
    of_job = {job.job_id: task for job, task in zip(sent, tasks, strict=True)}
    try:
        for job in submitit.helpers.as_completed(sent, poll_frequency=1):
            task, texts = of_job[job.job_id], [job.stdout(), job.stderr()]
            problem = job.exception()  # the state does not tell: it may be FINISHED after a kill, too
            if problem and not isinstance(problem, submitit.core.utils.FailedJobError):  # that one is in the log
                texts.append(' '.join(str(problem).split('\n')[:2]))
            (task.folder / 'run.log').write_text('\n'.join(filter(None, texts)) + '\n')
            report(task)
    finally:
        for job in sent:
            if not job.done():
                job.cancel()


def collect(jobs: Iterable[Job], places: Places, tables: Path) -> pd.DataFrame:
    """Gather rows into one table per experiment, one row per run in the order of the plan; missing runs are left out.

    An experiment without a row gets no table. The main table, and that of an experiment of the preset's own name, are
    called after the preset alone.

    Returns:
        experiment, runs found and missing, and the file.

    Raises:
        ValueError: once all tables are written, if their rows and those of another table in the folder disagree (see
            ``summaries.check_same_runs``): one of them is old, and both must be made by the same code.
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
            elif name == 'dial':
                first['evidence'] = config.data.evidence
            rows.append({**first, **{key: value for key, value in row.items() if key not in first}})
        path = tables / (f'{places.preset}.csv' if name in ('main', places.preset) else f'{places.preset}_{name}.csv')
        if rows:
            _write_table(path, rows)
        summary.append([name, len(rows), len(mine) - len(rows), str(path) if rows else '-'])
    check_tables(tables)
    return pd.DataFrame(summary, columns=['experiment', 'runs', 'missing', 'table'])


def _write_table(path: Path, rows: list[dict[str, object]]) -> None:
    """Columns in the order of the longest rows, so that those of codes stand together; moved into place when whole."""
    longest = max(rows, key=len)
    columns = list(dict.fromkeys([*longest, *(key for row in rows for key in row)]))
    with fresh(path) as place:
        pd.DataFrame(rows, columns=columns).to_csv(place, index=False)


def execute(
    tasks: list[Task], places: Places, workers: int, engine: str = 'local', slurm_options: dict | None = None
) -> list[Task]:
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

        if engine == 'slurm':
            run_cluster(todo, places, workers, root, report, options=slurm_options)
        else:
            run_local(todo, places, workers, root, report)
    return failed


def _last_words(task: Task) -> str:
    """The last line that a failed run left."""
    path = task.folder / 'run.log'
    lines = path.read_text(errors='replace').split('\n') if path.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), 'it said nothing')


def make_tables(
    preset_name: str,
    only: Sequence[str] | None,
    what: str,
    workers: int,
    engine: str,
    slurm_options: dict[str, object],
    data_root: str,
    run_dir: Path,
    tables: Path,
) -> None:
    """Make the runs behind the book's tables where they are missing, and gather their rows: ``topdown tables``.

    Raises:
        ValueError, OSError, ImportError: if the plan, the data or the engine cannot be.
        RuntimeError: if runs failed, naming them, after all others were made.
    """
    if workers < 1:
        raise ValueError(f'workers must be at least 1, got {workers}')
    jobs, root = plan(preset_name, only), project_dir().resolve()
    if what in ('growth', 'crowds'):
        made = crowds if what == 'crowds' else lambda *places: {'growth': growth(*places)}
        for name, found in made(preset_name, root / run_dir, data_root).items():
            _write_table(root / tables / f'{preset_name}_{name}.csv', found.to_dict('records'))
        check_tables(root / tables)
        said = r'^(step|variant|seed|fg_ari|mbo_i|perplexity|cod\w+_ami|joint_\w+)$'
        print(found.filter(regex=said).to_string(index=False))
        return
    if what == 'probes':
        found = probes(preset_name, root / run_dir, data_root)
        path, summary = root / tables / f'{preset_name}_probe.csv', probe_summary(found)
        _write_table(path, found.to_dict('records'))
        _write_table(path.with_name(f'{path.stem}_summary.csv'), summary.to_dict('records'))
        print(summary.to_string(index=False))
        return
    places = Places(preset_name, root / run_dir, data_root)
    tasks, failed = unique_tasks(jobs, places), []
    known: dict[str, str] = {}
    for task in tasks:  # what is made here lies in a folder named after its settings
        with contextlib.suppress(FileNotFoundError):  # rows may be gathered where the data are not
            read_row(task.folder, task.config, None if DATASETS[task.config.data.dataset].make else known)
    print(describe(jobs, tasks, places, workers), flush=True)
    if what == 'plan':
        return
    if what == 'runs':
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a request to end stops the runs, too
        try:
            prepare(task for task in tasks if not task.done)
            failed = execute(tasks, places, workers, engine, slurm_options)
        except KeyboardInterrupt:
            print('stopped; the same command goes on from here', file=sys.stderr)
            raise SystemExit(130) from None
    print(collect(jobs, places, root / tables).to_string(index=False))
    if failed:
        lines = [f'{task.name}: {task.folder / "run.ipynb"}\n  {_last_words(task)}' for task in failed]
        raise RuntimeError('\n'.join([f'{len(failed)} runs failed; the same command tries them again:', *lines]))
