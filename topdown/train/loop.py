"""The training loop: warm-up, decay, clipping, bfloat16 autocast, evaluation, checkpoints, resumption.

``train_model(config, folder)`` is all there is to call; ``topdown train --preset toybox`` does the same from a shell,
and ``torchrun -m topdown.train`` on several processes, GPUs or nodes, with the same global batch and the same losses. A
run that stopped goes on from its last checkpoint, also on another number of processes, and ends, on one CPU process,
bit for bit where it would have.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from topdown import distributed
from topdown.config import Config, TrainConfig
from topdown.data import open_dataset
from topdown.data.base import ImageSet
from topdown.data.digest import difference, digest, made_of
from topdown.evaluate.predict import evaluate_model, object_categories
from topdown.evaluate.truth import EvalSet, make_eval_set
from topdown.files import locked, read_json, write_text
from topdown.model.encoder import Encoder, chosen_precision, make_encoder
from topdown.model.slot_model import SlotModel
from topdown.origin import provenance
from topdown.precision import settle
from topdown.train.batches import TrainData
from topdown.train.checkpoint import Checkpoint, load_checkpoint, random_state, save_checkpoint
from topdown.train.ending import Stopped, on_request
from topdown.train.health import Health, doubts, duration, price
from topdown.train.journal import Journal, open_board
from topdown.train.teach import teaching_loss

BEST, BEST_BY = 'best.safetensors', 'mbo_i'
"""File of the state that was evaluated best, and the metric that says so."""

RUN_FILES = (
    'checkpoint.safetensors', BEST, 'log.csv', 'evaluations.csv', 'provenance.json', 'config.json', '.lock',
    '.lock.owner',
)  # fmt: skip
"""What a run's folder holds."""


@dataclass
class Run:
    """A finished training run."""

    config: Config
    model: SlotModel
    log: pd.DataFrame  # see ``Health.row``
    evaluations: pd.DataFrame  # step, fg_ari, mbo_i, mbo_c, miou (percent); empty where there are no true masks
    seconds: float  # time spent training, evaluations included, over all resumed parts
    provenance: dict[str, object]  # commit, versions, device and so on of the process that finished it


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up times exponential decay: lr min(1, (step + 1) / warmup) 0.5^(step / lr_half_life)."""
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    return config.lr * warm * 0.5 ** (step / config.lr_half_life)


def make_optimizer(model: torch.nn.Module, config: TrainConfig) -> torch.optim.Adam:
    """Adam over all weights; fused: one pass over memory, on CPUs too."""
    return torch.optim.Adam(model.parameters(), lr=config.lr, fused=True)


def compiled(model: torch.nn.Module) -> torch.nn.Module:
    """The model compiled for one shape of batch, drawing the random numbers that it draws when it is not compiled."""
    return torch.compile(model, dynamic=False, options={'fallback_random': True})


def build_model(config: Config, encoder: Encoder) -> SlotModel:
    """A fresh model on the encoder's device and in its precision; its weights depend on ``config.train.seed`` alone."""
    torch.manual_seed(config.train.seed)
    model = SlotModel(config.model, encoder.feature_size, encoder.num_patches)
    model.precision = encoder.precision
    return model.to(next(encoder.parameters()).device)


def train_model(
    config: Config,
    folder: str | Path,
    encoder: Encoder | None = None,
    data: TrainData | None = None,
    eval_set: EvalSet | None = None,
    progress: bool = True,
    stop_at: int | None = None,
) -> Run:
    """Train to ``config.train.steps``, going on from ``folder/checkpoint.safetensors`` if it is there.

    ``log.csv`` and ``evaluations.csv`` grow as it goes. ``best.safetensors`` is the state that was evaluated best
    (``BEST_BY``), kept where that is not the last. Where validation images have no true masks, neither is there.
    SIGINT, SIGTERM and SIGHUP save at the next step and stop.

    Args:
        config: the experiment. A run that goes on may differ in ``config.CHANGEABLE``, and in ``steps``.
        folder: where the checkpoint and the logs are written, by one process at a time.
        encoder, data, eval_set: made from the configuration if None; pass them to share them between runs.
        progress: show a bar, and say what looks like a sign of failure.
        stop_at: end early after this step, as an interruption would, leaving a checkpoint.

    Raises:
        ValueError: if the folder holds a checkpoint of another experiment or of other data.
        FloatingPointError: if loss, gradient or weights are not finite; the checkpoint is from before.
        BlockingIOError: if another process trains in the folder.
        Stopped: if a signal asked for it.
    """
    if config.train.batch_size % (distributed.world() * config.model.clip_length):
        raise ValueError(
            f'batch_size={config.train.batch_size} cannot be shared out to {distributed.world()} processes in '
            f'clips of clip_length={config.model.clip_length}'
        )
    if data is None and config.train.cache_tokens and not config.train.token_dir and distributed.world() > 1:
        raise ValueError(
            f'cache_tokens=True would keep all tokens in the memory of each of {distributed.world()} processes: set '
            'token_dir, a folder that all of them read, or cache_tokens=False'
        )
    progress = progress and distributed.is_main()
    settle(config.train.threads)
    with distributed.main_first():  # missing data is found out first, and leaves no folder behind
        train_set = open_dataset(config, 'train', progress) if data is None else data.dataset
        val_set = open_dataset(config, 'val', progress) if eval_set is None else eval_set.dataset
    sets = {'train': train_set, 'val': val_set}
    if val_set.labelled and -(-len(val_set) // val_set.frames) < distributed.world():
        raise ValueError(
            f'{len(val_set)} validation images, in clips of {val_set.frames}, cannot be shared out to '
            f'{distributed.world()} processes: use fewer processes, or more images (eval_images)'
        )
    with locked(folder) if distributed.is_main() else contextlib.nullcontext():
        return _train(config, Path(folder), sets, encoder, data, eval_set, progress, stop_at)


def _train(
    config: Config,
    folder: Path,
    sets: dict[str, ImageSet],
    encoder: Encoder | None,
    data: TrainData | None,
    eval_set: EvalSet | None,
    progress: bool,
    stop_at: int | None,
) -> Run:
    options = config.train
    made = {split: made_of(images) for split, images in sets.items()}
    path = folder / 'checkpoint.safetensors'
    saved = load_checkpoint(path) if path.exists() else None
    encoder = encoder or make_encoder(config, saved and saved.precision)
    fingerprint = encoder.fingerprint()
    if saved:
        _check_same(saved, config, fingerprint, encoder.precision, path)
        for split in saved.data.keys() & sets.keys():
            if found := difference(saved.data[split], made[split], sets[split]):
                raise ValueError(f'{path} was trained on other data: in {split}, {found}; choose another folder')
    scored = sets['val'].labelled
    first, last = saved.step if saved else 0, min(options.steps, stop_at or options.steps)
    reason = 'as it began' if saved else chosen_precision(config).reason
    report = _Progress(config, first, last, progress and first < last)
    if report.show:
        cost = price(config, encoder, sets['train'].epoch_length, last - first)
        report.say(
            f'steps {first + 1} to {last} of {options.batch_size} images, {cost}, {encoder.precision} ({reason}), '
            f'{torch.get_num_threads()} thread(s)'
        )
    if scored and eval_set is None:
        eval_set = make_eval_set(config, encoder, dataset=sets['val'], progress=progress, shared=True)
    teacher = _teacher(config, encoder) if options.teacher and first < last else None
    model = build_model(config, encoder)
    optimizer = make_optimizer(model, options)
    seconds = saved.seconds if saved else 0.0
    if saved:
        saved.load_model(model)
        saved.load_optimizer(model, optimizer)
        saved.load_random_state()
    call: torch.nn.Module = model
    if distributed.world() > 1:
        # The codebook is in buffers. All processes update it alike, but for the last bits on GPUs of several kinds, so
        # every step begins with that of the first process.
        call = DistributedDataParallel(model)
    if options.compile:
        call = compiled(call)
    if data is None and first < last:  # a finished run needs no tokens
        with distributed.main_first():
            data = TrainData(sets['train'], encoder, config, progress)
    began = time.perf_counter()
    known = saved.log if saved else {}
    board = open_board(folder, first) if options.tensorboard and first < last else None
    log = Journal(folder / 'log.csv', first, known.get('train'), board)
    evaluations = Journal(folder / 'evaluations.csv', first, known.get('eval'), board)
    health = Health(model, config, data)

    def write(target: Path, step: int) -> None:
        spent = seconds + time.perf_counter() - began
        sizes = (encoder.feature_size, encoder.num_patches)
        save_checkpoint(target, model, optimizer, config, step, fingerprint, sizes, spent, made)

    def save(step: int) -> None:
        health.check()
        if not distributed.same(torch.cat([*random_state().values()])):
            raise RuntimeError(
                f'the processes have drawn different random numbers by step {step}: all must run the same version of '
                'this package and of torch; go on from the last checkpoint'
            )
        if distributed.is_main():
            log.sync()
            evaluations.sync()
            write(path, step)

    def evaluate(step: int) -> None:
        health.check()
        if not scored:
            return
        row, before = {'step': step, **evaluate_model(model, eval_set)}, evaluations.read()
        evaluations.add(row)
        if distributed.is_main() and not (len(before) and row[BEST_BY] <= before[BEST_BY].max()):
            if step < last:
                write(folder / BEST, step)
            else:  # the checkpoint is the best
                (folder / BEST).unlink(missing_ok=True)

    if not scored and first < last:
        report.warn('validation images have no true masks: nothing is evaluated along the way')
    objects = distributed.gather_lists((object_categories(eval_set) > 0).sum(1).tolist()) if scored else []
    for doubt in doubts(config, objects) if first < last else ():
        report.warn(doubt)
    with on_request() as request, log, evaluations, report:
        batches = data.batches(first, last, config) if first < last else ()
        for step, tokens in enumerate(health.timed(batches), start=first):
            rate = learning_rate(options, step)
            for group in optimizer.param_groups:
                group['lr'] = rate
            model.train()
            optimizer.zero_grad()  # before the forward pass: gradients and activations need not be there together
            out = call(tokens, need_masks=False)
            loss = out.loss
            if teacher is not None:
                with torch.no_grad(), torch.random.fork_rng():  # as if it were alone
                    masks = teacher(tokens).masks
                loss = loss + options.teacher_weight * teaching_loss(out.attention, masks)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), options.grad_clip)
            optimizer.step()
            health.look(step, loss, norm)
            done = step + 1
            if done % options.log_every == 0 or done == options.steps:
                row = health.row(done, rate, out, norm)
                log.add(row)
                report.loss(done, row['loss'])
                for sign in health.signs(row):
                    report.warn(sign)
            report.step(done)
            stop = distributed.highest(request.number)
            with health.apart():
                if done == options.steps or (options.eval_every and done % options.eval_every == 0):
                    evaluate(done)
                if stop or done == last or (options.checkpoint_every and done % options.checkpoint_every == 0):
                    save(done)
            if stop and done < last:
                raise Stopped(stop, f'stopped at step {done} of {options.steps}; {path} is saved, the same goes on')
        lost = first == last == options.steps and last not in set(evaluations.read().get('step', ()))
        if distributed.from_main(lost):
            evaluate(last)
    if distributed.is_main():
        seconds += time.perf_counter() - began
        found = {**provenance(config, seconds, model.precision), 'data': digest(made)}
        for name, content in (('provenance.json', found), ('config.json', config.to_dict())):
            if first < last or not _is_json(folder / name):
                write_text(folder / name, json.dumps(content, indent=1))
    distributed.wait()
    origin = read_json(folder / 'provenance.json', 'delete it')
    return Run(config, model, log.read(), evaluations.read(), seconds, origin)


def _is_json(path: Path) -> bool:
    """Whether a file is there and whole; versions of before could leave an empty one."""
    try:
        return bool(read_json(path, ''))
    except (OSError, ValueError):
        return False


def load_run(path: str | Path, encoder: Encoder | None = None) -> tuple[SlotModel, Encoder, Checkpoint]:
    """A trained model and its encoder from a checkpoint file.

    Raises:
        FileNotFoundError, ValueError: see ``load_checkpoint``; also if the encoder's weights are not those that the
            model was trained on.
    """
    saved = load_checkpoint(path)
    encoder = encoder or make_encoder(saved.config, saved.precision)
    if encoder.fingerprint() != saved.encoder_fingerprint:
        raise ValueError(f'{path} was trained on tokens of other encoder weights than those loaded now')
    model = build_model(saved.config, encoder)
    model.precision = saved.precision
    saved.load_model(model)
    return model.eval(), encoder, saved


def _teacher(config: Config, encoder: Encoder) -> SlotModel:
    """The trained model that teaches."""
    path = config.train.teacher.replace('{seed}', str(config.train.seed))
    model, _, saved = load_run(path, encoder)
    if saved.step < saved.config.train.steps or model.config.num_slots != config.model.num_slots:
        raise ValueError(
            f'teacher {path} has done {saved.step} of {saved.config.train.steps} steps with {model.config.num_slots} '
            f'slots: it must be at its end, and have num_slots={config.model.num_slots}'
        )
    return model


def _check_same(saved: Checkpoint, config: Config, fingerprint: str, precision: str, path: Path) -> None:
    if found := config.differences(saved.config):
        raise ValueError(
            f'{path} belongs to another experiment ({", ".join(found)}): choose another folder or delete it'
        )
    if config.train.steps < saved.step:
        raise ValueError(f'{path} has done {saved.step} steps, more than steps={config.train.steps}: set more')
    if saved.encoder_fingerprint != fingerprint:
        raise ValueError(f'{path} was trained on tokens of another encoder: choose another folder or delete it')
    if saved.precision != precision:
        raise ValueError(
            f'{path} was trained in {saved.precision}, and the tokens given were made in {precision}: runs that are '
            'compared must compute alike; choose another folder, or go on where it began'
        )


class _Progress:
    """What a run says while it lasts: how long it will take, then a bar in a terminal, or a line now and then.

    Args:
        config: the experiment.
        first, last: steps done before, and at the end.
        show: say anything at all.
    """

    SPEED, PAUSE = 10, 60.0  # steps before the first estimate; seconds between lines

    def __init__(self, config: Config, first: int, last: int, show: bool) -> None:
        self.title = f'{config.name} {"top-down" if config.model.top_down else "baseline"} seed {config.train.seed}'
        self.first, self.last, self.show = first, last, show

    def __enter__(self) -> _Progress:
        self.began = self.said = time.perf_counter()
        self.bar = tqdm(
            total=self.last, initial=self.first, desc=self.title, unit='step', mininterval=2,
            disable=not (self.show and sys.stderr.isatty()),
        )  # fmt: skip
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def warn(self, text: str) -> None:
        """Print a sign of failure, bar or none."""
        if distributed.is_main():
            self.say(f'note: {text}')

    def say(self, text: str) -> None:
        """Print a line at once: papermill and batch systems show no bars."""
        print(f'{self.title}: {text}', flush=True)
        self.said = time.perf_counter()

    def step(self, done: int) -> None:
        """After every step."""
        self.bar.update()
        if self.show and done == self.first + self.SPEED:
            pace = (time.perf_counter() - self.began) / self.SPEED
            self.say(f'{pace:.3f} s a step, {self._left(done)}')

    def loss(self, done: int, loss: float) -> None:
        """Whenever the loss is known."""
        self.bar.set_postfix(loss=f'{loss:.4f}', refresh=False)
        if self.show and self.bar.disable and time.perf_counter() - self.said > self.PAUSE:
            self.say(f'step {done} of {self.last}, loss {loss:.4f}, {self._left(done)}')

    def _left(self, done: int) -> str:
        seconds = (time.perf_counter() - self.began) / (done - self.first) * (self.last - done)
        return f'about {duration(seconds)} to go'
