"""One run of an experiment: trained, measured, and kept as a row."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pandas as pd
import torch

from topdown.book.codes import code_meaning, probe_table, slot_codes, where_and_what
from topdown.book.plan import Job, plan
from topdown.book.summaries import mean_and_spread
from topdown.config import Config
from topdown.data import open_dataset
from topdown.data.digest import digest, made_of
from topdown.datasets import DATASETS
from topdown.evaluate.clips import score_clips
from topdown.evaluate.metrics import summarize
from topdown.evaluate.predict import interventions, predict, run_model, score
from topdown.evaluate.truth import EvalSet, make_eval_set
from topdown.files import read_json, write_text
from topdown.model.encoder import make_encoder
from topdown.presets import preset
from topdown.train.batches import TrainData
from topdown.train.loop import Run, load_run, train_model

GROWTH_POINTS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Shares of a run after which ``growth`` measures it."""


GROWTH_SEEDS = 3


def job_folder(run_dir: str | Path, config: Config) -> Path:
    """Where a run's checkpoint, logs, executed notebook and row lie."""
    return Path(run_dir) / config.name / 'jobs' / f'{config.key}-seed{config.train.seed}'


def read_row(folder: Path, config: Config, known: dict[str, str] | None = None) -> dict[str, object] | None:
    """The row of a finished run; None if there is none of this configuration and seed.

    With ``known``, data settings and their digests so far, a run on other data than now is a ``ValueError``.
    """
    path = folder / 'row.json'
    if not path.is_file():
        return None
    row = read_json(path, 'delete it and make the run again')
    if (row.get('config'), row.get('seed')) != (config.key, config.train.seed):
        return None
    if known is not None and 'data' in row:
        place = json.dumps(vars(config.data), sort_keys=True)
        if place not in known:
            known[place] = digest({split: made_of(open_dataset(config, split, False)) for split in ('train', 'val')})
        if row['data'] != known[place]:
            raise ValueError(f'{folder} holds a finished run on other data: choose another run_dir, or delete it')
    return row


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
    row = read_row(folder, config, {})
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
    write_text(folder / 'row.json', json.dumps(row, indent=1))
    return row


def measure_run(run: Run, data: EvalSet) -> dict[str, object]:
    """Everything the tables show of a trained model.

    Returns:
        Metrics of the decoder's masks in percent; with the prefix ``slots_`` those of slot attention's masks where they
        differ from the decoder's, and with ``first_`` those of the first pass's masks where there are two passes; of
        models of clips ``score_clips`` and, ending in ``_later``, metrics without first frames; ``train_loss``, the
        mean of the last tenth of the log, NaN if nothing was logged yet, and likewise ``revived``, the share of codes
        revived at a step; ``val_loss``, the mean reconstruction loss; the number of ``parameters``; the shares of
        ``where_and_what``, from ``joint_found`` on; for models with a codebook what ``code_meaning`` finds.
    """
    model = run.model
    labels = {'': predict(model, data), 'slots_': predict(model, data, 'slots')}
    if torch.equal(labels[''], labels['slots_']):
        del labels['slots_']
    if run.config.model.top_down and run.config.model.feedback == 'image':
        labels['first_'] = predict(model, data, 'first')
    row: dict[str, object] = {}
    for prefix, found in labels.items():
        row |= {f'{prefix}{name}': value for name, value in summarize(score(found, data)).items()}
    if run.config.model.clip_length > 1:
        later = [scores for i, scores in enumerate(score(labels[''], data)) if i % data.dataset.frames]
        row |= {f'{name}_later': value for name, value in summarize(later).items()}
        row |= score_clips(labels[''], data, slot_codes(model, data).codes if model.codebook is not None else None)
    losses = [out.reconstruction_loss.item() * len(out.slots) for _, out in run_model(model, data)]
    last = run.log.tail(max(1, len(run.log) // 10)).mean()
    row['train_loss'] = float(last.get('loss', float('nan')))
    row['val_loss'] = sum(losses) / len(data)
    row['parameters'] = sum(p.numel() for p in model.parameters())
    row |= {f'joint_{name.replace(" ", "_")}': share for name, share in where_and_what(model, data).items()}
    if model.codebook is not None:
        row['codebook_size'] = model.codebook.size
        row['revived'] = float(last.get('revived', float('nan')))
        row |= code_meaning(model, data)
    return row


def growth(preset_name: str, run_dir: str | Path = 'runs', data_root: str = '', progress: bool = True) -> pd.DataFrame:
    """What codes mean in the course of training: the top-down model, stopped and measured ``GROWTH_POINTS`` times.

    Stopping does not change a run: it goes on bit for bit as if it had not been stopped.

    Returns:
        One row per seed and step, columns as ``measure_run``'s, with ``step`` and the run's provenance.
    """
    rows = []
    encoder = data = eval_set = None
    base = preset(preset_name)
    many = base.data.dataset == 'toybox' and preset_name != 'smoke'
    token_dir = str(Path(run_dir) / 'tokens') if base.train.cache_tokens else ''
    for seed in range(GROWTH_SEEDS if many else 1):
        job = Job('ablation', 'top-down', seed)
        config = job.config(preset_name, data_root, token_dir)
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
                write_text(path, json.dumps(row, indent=1))
            rows.append(read_json(path, 'delete it and measure again'))
    return pd.DataFrame(rows)


def probes(preset_name: str, run_dir: str | Path = 'runs', data_root: str = '', progress: bool = True) -> pd.DataFrame:
    """What can be read linearly off slots, codes and tokens of a preset's top-down runs, see ``probe_table``.

    Over the validation images, which no model has seen, and, of data sets made here, the training images, seen without
    labels: these are more, and a probe that is fitted on more objects finds more of what is there.

    Runs that are there are used; others are trained, where the main table and the ablation will find them. One whose
    slots cover no objects, such as a run that ended on its plateau, is left out, which is printed.

    Returns:
        One row per split, seed, set of features and target, with the run's provenance.
    """
    rows, encoder, eval_sets, base = [], None, {}, preset(preset_name)
    splits = ('val', 'train') if DATASETS[base.data.dataset].make else ('val',)
    jobs = [job for job in plan(preset_name) if job.variant == 'top-down' and job.experiment in ('main', 'ablation')]
    for job in {job.seed: job for job in jobs}.values():
        config = job.config(preset_name, data_root, str(Path(run_dir) / 'tokens'))
        encoder = encoder or make_encoder(config)
        for split in splits:
            if split not in eval_sets:
                eval_sets[split] = make_eval_set(config, encoder, split, progress=progress)
        run = train_model(config, job_folder(run_dir, config), encoder, eval_set=eval_sets['val'], progress=progress)
        try:
            found = {split: probe_table(run.model, data) for split, data in eval_sets.items()}
        except ValueError as error:  # a run that found nothing
            print(f'seed {job.seed} is left out: {error}')
            continue
        for split, part in found.items():
            rows += [{'variant': job.variant, 'split': split, **row, **run.provenance} for row in part]
    return pd.DataFrame(rows)


def take_apart(folder: Path, table: Path | None) -> None:
    """Print what every top-down run of a folder relies on: ``topdown interventions``.

    Raises:
        FileNotFoundError: if no top-down model was trained there.
    """
    paths = sorted(folder.glob('top-down-seed*/checkpoint.safetensors'))
    if not paths:
        raise FileNotFoundError(f'{folder} holds no top-down-seed*/checkpoint.safetensors: train first')
    rows, before = [], None
    for path in paths:
        model, encoder, saved = load_run(path)
        if saved.config.key != before:
            before, data = saved.config.key, make_eval_set(saved.config, encoder)
        for name, change in interventions(model, data).items():
            found = summarize(score(predict(model, data, change=change), data))
            place = {'intervention': name, 'seed': saved.config.train.seed, 'config': saved.config.key}
            rows.append({**place, **found})
    scores = pd.DataFrame(rows)
    several = ['config'] if scores.config.nunique() > 1 else []  # runs of different kinds are not averaged
    summary = mean_and_spread(scores, [*several, 'intervention']).reset_index()
    print(summary.to_string(index=False))
    if table:
        table.parent.mkdir(parents=True, exist_ok=True)
        scores.to_csv(table, index=False)
        summary.to_csv(table.with_name(f'{table.stem}_summary.csv'), index=False)
        by_seed = scores.pivot(index=[*several, 'seed'], columns='intervention', values='mbo_i')
        by_seed = by_seed[list(summary.intervention.unique())]
        lost = by_seed.sub(by_seed['both'], axis=0).drop(columns='both').round(1).reset_index()
        lost.to_csv(table.with_name(f'{table.stem}_by_seed.csv'), index=False)
