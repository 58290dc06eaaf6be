"""Benchmark: how long a training step takes, where the time goes, and how far that is from what the hardware can do.

Models are measured in turn, A B A B, in one process, so that a machine whose speed drifts does not favour one of them;
medians and ranges are reported. Tokens are random: no data and no pretrained weights are needed.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from topdown import precision
from topdown.book import cost
from topdown.book.summaries import append_rows
from topdown.config import Config
from topdown.data.base import Annotation, ImageSet
from topdown.evaluate import metrics
from topdown.evaluate.predict import labels_from_masks
from topdown.model.encoder import build_encoder, make_encoder
from topdown.model.slot_model import Output, SlotModel
from topdown.origin import provenance
from topdown.precision import ceiling, peak_rss
from topdown.precision import now as _now
from topdown.presets import VARIANTS
from topdown.train.batches import TrainData
from topdown.train.loop import compiled, make_optimizer

PHASES = ('forward', 'backward', 'clip', 'adam')


GROWTH: dict[str, tuple[int, ...]] = {
    'patches': (196, 400, 784, 1024),
    'num_slots': (4, 7, 16, 32, 64),
    'codebook_size': (64, 512, 2048, 8192),
    'batch_size': (2, 4, 8, 16),
    'slot_size': (64, 128, 256, 512),
}
"""Along which quantities ``grow`` measures, one at a time, the others being the preset's."""


def token_shape(config: Config) -> tuple[int, int, tuple[int, int]]:
    """N, D and the grid of an experiment's tokens, without making the encoder's weights."""
    with torch.device('meta'):
        encoder = build_encoder(dataclasses.replace(config.encoder, pretrained=False, weights=''))
    return encoder.num_patches, encoder.feature_size, encoder.grid


class Stepper:
    """One model's training step on random tokens, timed by phase.

    Args:
        config: the experiment; batch size and precision are used.
        patches, features: N and D.
        device: cpu or cuda.
    """

    def __init__(self, config: Config, patches: int, features: int, device: str = 'cpu') -> None:
        self.config, self.device = config, device
        precision.settle()
        torch.manual_seed(0)
        self.model = SlotModel(config.model, features, patches).to(device).train()
        self.model.precision = precision.choose(config.train.precision, device).name
        self.optimizer = make_optimizer(self.model, config.train)
        self.tokens = torch.randn(config.train.batch_size, patches, features, device=device)
        self.call = compiled(self.model) if config.train.compile else self.model

    @torch.no_grad()
    def apply(self) -> Output:
        """The model on the tokens, in evaluation mode; a codebook that has not started holds zeros."""
        self.model.eval()
        if self.model.codebook is not None:
            self.model.codebook.initialized.fill_(True)
        return self.model(self.tokens)

    def step(self) -> dict[str, float]:
        """One step; seconds by phase, as 'step' their sum, and the 'loss'."""
        marks = [_now(self.device)]
        self.optimizer.zero_grad()
        loss = self.call(self.tokens, need_masks=False).loss
        marks.append(_now(self.device))
        loss.backward()
        marks.append(_now(self.device))
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.train.grad_clip)
        marks.append(_now(self.device))
        self.optimizer.step()
        marks.append(_now(self.device))
        spent = {phase: b - a for phase, a, b in zip(PHASES, marks[:-1], marks[1:], strict=True)}
        return {**spent, 'step': marks[-1] - marks[0], 'loss': loss.item()}


def inference_costs(config: Config, models: Sequence[str], device: str = 'cpu', rounds: int = 10) -> pd.DataFrame:
    """What applying a model costs, slots and decoder's masks included, the encoder not: one image, and 32 at a time.

    Returns:
        One row per batch size and model: batch, model, ms (median, an image), least_ms and most_ms, own_gb (peak memory
        without what importing takes).
    """
    patches, features, _ = token_shape(config)
    rows = []
    for batch in (1, 32):
        steppers = {
            name: Stepper(config.with_(batch_size=batch, **VARIANTS[name]), patches, features, device)
            for name in models
        }
        spent: dict[str, list[float]] = {name: [] for name in steppers}
        for _ in range(rounds + 2):
            for name, stepper in steppers.items():
                began = _now(device)
                stepper.apply()
                spent[name].append(1e3 * (_now(device) - began) / batch)
        for name, stepper in steppers.items():
            times = spent[name][2:]
            found = peak_memory(stepper.config, patches, features, inference=True)
            rows.append({
                'batch': batch, 'model': name, 'ms': statistics.median(times), 'least_ms': min(times),
                'most_ms': max(times), 'own_gb': found['peak_gb'] - found['imports_gb'],
            })  # fmt: skip
    return pd.DataFrame(rows)


def compare(steppers: dict[str, Stepper], rounds: int = 10, warmup: int = 3) -> pd.DataFrame:
    """Steps of all models in turn: one row per model and round, with seconds of the phases and of the step."""
    rows = []
    for number in range(-warmup, rounds):
        for name, stepper in steppers.items():
            spent = stepper.step()
            if number >= 0:
                rows.append({'model': name, 'round': number, **spent})
    return pd.DataFrame(rows)


def parts(stepper: Stepper, rounds: int = 10) -> dict[str, float]:
    """Median seconds of the model's parts, forward and backward, each by itself on detached inputs.

    They add up to about the step without clipping, optimiser and loss.
    """
    model, tokens, device = stepper.model, stepper.tokens, stepper.device
    amp = precision.autocast(model.precision, device)
    with amp, torch.no_grad():
        inputs = model.head(tokens)
        start = model.slot_init(torch.randn(len(tokens), model.config.num_slots, model.config.slot_size, device=device))
        slots, attention = model.slot_attention(start, *model.slot_attention.keys_values(inputs))

    def first() -> Tensor:
        return model.slot_attention(start, *model.slot_attention.keys_values(leaf(inputs)))[0]

    def second() -> Tensor:
        keys, values = (leaf(x) for x in model.slot_attention.keys_values(inputs))
        codes = slots if model.codebook is None else model.codebook(leaf(slots)).codes
        return model.slot_attention(start, keys, values, model.modulation(codes, leaf(attention)))[0]

    def leaf(x: Tensor) -> Tensor:
        return x.detach().requires_grad_()

    todo: dict[str, Callable[[], Tensor]] = {'head': lambda: model.head(tokens), 'first pass': first}
    if model.modulation is not None:
        todo['codes and second pass'] = second
    todo['decoder'] = lambda: model.decoder(leaf(slots), tokens, leaf(attention), False).reconstruction
    times: dict[str, list[float]] = {name: [] for name in todo}
    for _ in range(rounds + 2):
        for name, run in todo.items():
            began = _now(device)
            with amp:
                out = run()
            out.backward(torch.ones_like(out))
            times[name].append(_now(device) - began)
            model.zero_grad()
    return {name: statistics.median(values[2:]) for name, values in times.items()}


def step_flops(stepper: Stepper) -> int:
    """Matrix-product FLOPs of a batch's training step: by formula, or counted by torch for models of pixels."""
    model = stepper.config.model
    batch, patches, features = stepper.tokens.shape
    if model.decoder != 'broadcast':
        return batch * cost.step_flops(model, features, patches)
    return batch * cost.count_flops(stepper.model, stepper.tokens[:1], backward=True)


def peak_memory(
    config: Config, patches: int, features: int, steps: int = 4, inference: bool = False
) -> dict[str, float]:
    """Peak memory in GB of a process that only trains, or only applies the model: in all, and what importing torch and
    the package took of it.

    On a GPU: the allocator's peak, and 0 for importing.
    """
    job = json.dumps([config.to_dict(), patches, features, steps, inference])
    found = subprocess.run(
        [sys.executable, '-m', 'topdown.book.bench', job], capture_output=True, text=True, check=False
    )
    if found.returncode:
        raise RuntimeError(f'the process that measures memory failed:\n{found.stderr[-2000:]}')
    return json.loads(found.stdout.strip().splitlines()[-1])


def _memory_of(job: str) -> dict[str, float]:
    settings, patches, features, steps, inference = json.loads(job)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    imports = peak_rss()
    stepper = Stepper(Config.from_dict(settings), patches, features, device)
    for _ in range(steps):
        stepper.apply() if inference else stepper.step()
    if device == 'cuda':
        return {'peak_gb': torch.cuda.max_memory_allocated() / 1e9, 'imports_gb': 0.0}
    return {'peak_gb': peak_rss(), 'imports_gb': imports}


@torch.no_grad()
def evaluation_times(config: Config, device: str = 'cpu', count: int = 8, repeats: int = 3) -> dict[str, float]:
    """Seconds an image of evaluation: the encoder, the model with masks, label maps, and all metrics together."""
    encoder = build_encoder(dataclasses.replace(config.encoder, pretrained=False, weights='')).to(device)
    model = SlotModel(config.model, encoder.feature_size, encoder.num_patches).to(device)
    size, side = config.data.mask_size, config.encoder.image_size
    images = torch.rand(count, 3, side, side, device=device)
    generator = np.random.default_rng(0)
    small = generator.integers(0, 11, (count, 8, 8))  # ten objects and ground, in blocks
    truth_maps = small.repeat(-(-size // 8), 1).repeat(-(-size // 8), 2)[:, :size, :size]
    truth = metrics.make_truth(truth_maps, truth_maps)
    encoder.precision = model.precision = precision.choose(config.train.precision, device).name
    model.train()
    model(torch.randn(config.train.batch_size, encoder.num_patches, encoder.feature_size, device=device))
    model.eval()
    times: dict[str, list[float]] = {name: [] for name in ('encoder', 'model', 'label maps', 'metrics')}
    for _ in range(repeats + 1):
        marks = [_now(device)]
        tokens = encoder(images)
        marks.append(_now(device))
        out: Output = model(tokens)
        marks.append(_now(device))
        labels = labels_from_masks(out.masks, encoder.grid, size).cpu()
        marks.append(_now(device))
        metrics.score(labels, truth)
        marks.append(_now(device))
        for name, a, b in zip(times, marks[:-1], marks[1:], strict=True):
            times[name].append((b - a) / count)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


class _Noise(ImageSet):
    """JPEG images of noise in a folder, of COCO's usual size: what they show does not matter for speed."""

    def __init__(self, folder: Path, count: int, config: Config) -> None:
        super().__init__(
            list(range(count)), {}, config.encoder.image_size, config.data.mask_size, 0, config.data.protocol
        )
        self.folder = folder
        generator = np.random.default_rng(0)
        for i in range(count):
            small = Image.fromarray(generator.integers(0, 256, (60, 80, 3), np.uint8))
            small.resize((640, 480), Image.Resampling.BICUBIC).save(self.path(i), quality=90)

    def path(self, i: int) -> Path:
        return self.folder / f'{i:06d}.jpg'

    def annotation(self, i: int) -> Annotation:
        return Annotation(np.zeros((0, 480, 640), bool), np.zeros(0, np.int64), np.zeros(0, bool))


def store_speed(config: Config, images: int = 96, steps: int = 10) -> dict[str, float]:
    """Training with the encoder in the loop against training from its stored tokens, in turn, on the same images.

    The encoder's weights are random. One process reads and computes.

    Returns:
        loop_s and store_s, median seconds of a step, reading included; times_faster; write_s, seconds to store one view
        of one image; worst_difference, the largest relative difference of the two losses over the steps.
    """
    config = config.with_(pretrained=False, num_workers=0, cache_tokens=False, steps=steps)
    spent: dict[str, list[float]] = {'loop': [], 'store': []}
    losses: dict[str, list[float]] = {'loop': [], 'store': []}
    with tempfile.TemporaryDirectory() as folder:
        dataset = _Noise(Path(folder), images, config)
        encoder = make_encoder(config)
        began = time.perf_counter()
        stored = TrainData(dataset, encoder, config.with_(cache_tokens=True, token_dir=f'{folder}/tokens'))
        write = (time.perf_counter() - began) / images / len(stored.views)
        streams = {'loop': TrainData(dataset, encoder, config), 'store': stored}
        steppers = {name: Stepper(config, encoder.num_patches, encoder.feature_size) for name in streams}
        batches = {name: data.batches(0, steps) for name, data in streams.items()}
        for step in range(steps):
            for name, stepper in steppers.items():
                began = time.perf_counter()
                stepper.tokens = next(batches[name])
                torch.manual_seed(step)
                found = stepper.step()
                spent[name].append(time.perf_counter() - began)
                losses[name].append(found['loss'])
    loop, store = (statistics.median(spent[name][2:] or spent[name]) for name in ('loop', 'store'))
    worst = max(abs(a / b - 1) for a, b in zip(losses['store'], losses['loop'], strict=True))
    return {
        'loop_s': loop, 'store_s': store, 'times_faster': loop / store, 'write_s': write, 'worst_difference': worst
    }  # fmt: skip


def grow(config: Config, device: str = 'cpu', rounds: int = 3, progress: bool = True) -> pd.DataFrame:
    """Step time and kept activations of baseline and top-down model along each quantity of ``GROWTH``.

    Returns:
        Columns along, value, model, step (median seconds), activations (bytes a batch).
    """
    patches, features, _ = token_shape(config)
    rows = []
    for along, value in tqdm([(a, v) for a, vs in GROWTH.items() for v in vs], disable=not progress, desc='growth'):
        count = value if along == 'patches' else patches
        changed = config if along == 'patches' else config.with_(**{along: value})
        steppers = {
            name: Stepper(changed.with_(**VARIANTS[name]), count, features, device) for name in ('baseline', 'top-down')
        }
        table = compare(steppers, rounds, warmup=2).groupby('model', sort=False)['step'].median()
        for name, stepper in steppers.items():
            kept = cost.activation_bytes(stepper.model, stepper.tokens, stepper.model.precision)
            rows.append({'along': along, 'value': value, 'model': name, 'step': table[name], 'activations': kept})
        del steppers, stepper
        gc.collect()  # optimisers and models refer to each other: gigabytes would wait for the collector
    return pd.DataFrame(rows)


def bench(
    config: Config, models: list[str], device: str = 'cpu', rounds: int = 10, memory: bool = True
) -> dict[str, object]:
    """Everything about an experiment's training step, for several variants of it.

    Args:
        config: preset, batch size and precision.
        models: names of ``topdown.VARIANTS``; the first is the one that overheads refer to.
        device: cpu or cuda.
        rounds: timed steps of each.
        memory: also measure peak memory, in a process of its own for each model.

    Returns:
        A dictionary for JSON: ``models`` (name -> medians, ranges, products, share of the ceiling, memory),
        ``ceiling_tflops``, settings and provenance.

    Raises:
        ValueError: for an unknown model or device.
    """
    unknown = set(models) - set(VARIANTS)
    if unknown:
        raise ValueError(f'models must be among {", ".join(VARIANTS)}, got {", ".join(sorted(unknown))}')
    if rounds < 1:
        raise ValueError(f'rounds must be at least 1, got {rounds}')
    if device == 'cuda' and not torch.cuda.is_available():
        raise ValueError('device=cuda, but torch sees no GPU: use device=cpu or install a CUDA build of torch')
    patches, features, _ = token_shape(config)
    began = time.perf_counter()
    steppers = {name: Stepper(config.with_(**VARIANTS[name]), patches, features, device) for name in models}
    for stepper in steppers.values():
        stepper.step()
    first_step = time.perf_counter() - began  # with compile: its cost
    computed_in = next(iter(steppers.values())).model.precision
    top = ceiling(computed_in, device)
    table = compare(steppers, rounds)
    top = max(top, ceiling(computed_in, device))
    batch, base = config.train.batch_size, models[0]
    reference = table[table.model == base]['step'].to_numpy()
    found: dict[str, object] = {}
    for name, stepper in steppers.items():
        mine = table[table.model == name]
        step = mine['step'].to_numpy()
        flops = step_flops(stepper)
        row = {
            'step_s': float(np.median(step)), 'step_min_s': float(step.min()), 'step_max_s': float(step.max()),
            **{f'{phase}_s': float(mine[phase].median()) for phase in PHASES},
            'parts_s': parts(stepper, rounds),
            'images_per_s': batch / float(np.median(step)), 'tokens_per_s': batch * patches / float(np.median(step)),
            'tflop': flops / 1e12, 'least_s': flops / 1e12 / top,
            'share_of_ceiling': flops / 1e12 / float(np.median(step)) / top,
            'overhead_percent': 100 * float(np.median(step / reference) - 1),
        }  # fmt: skip
        row |= peak_memory(stepper.config, patches, features) if memory else {}
        found[name] = row
    return {
        'preset': config.name, 'batch': batch, 'precision': computed_in, 'device': device,
        'patches': patches, 'features': features, 'rounds': rounds, 'threads': torch.get_num_threads(),
        'compile': config.train.compile, 'first_step_s': first_step, 'ceiling_tflops': top, 'models': found,
        'allocator': os.environ.get('LD_PRELOAD', ''),
        'provenance': provenance(config, time.perf_counter() - began, computed_in),
    }  # fmt: skip


def as_rows(result: dict) -> list[dict[str, object]]:
    """Table rows of a ``bench`` result, one per model, without the parts."""
    shared = {k: result[k] for k in ('preset', 'precision', 'batch', 'device', 'threads', 'ceiling_tflops')}
    origin = {k: result['provenance'][k] for k in ('commit', 'date', 'torch')}
    origin['processor'] = result['provenance']['device']
    rows = []
    for name, row in result['models'].items():
        pieces = {f'{part}_s': seconds for part, seconds in row['parts_s'].items()}
        plain = {k: v for k, v in row.items() if k != 'parts_s'}
        rows.append({'model': name, **shared, **plain, **pieces, **origin})
    return rows


def show(result: dict) -> str:
    """A ``bench`` result as text."""
    lines = [
        f'{result["preset"]}, batch {result["batch"]}, {result["precision"]}, {result["device"]}, '
        f'{result["threads"]} threads; products reach {result["ceiling_tflops"]:.2f} TFLOP/s at best'
    ]
    for name, row in result['models'].items():
        phases = ', '.join(f'{phase} {row[f"{phase}_s"]:.3f}' for phase in PHASES)
        pieces = ', '.join(f'{part} {seconds:.3f}' for part, seconds in row['parts_s'].items())
        lines += [
            f'{name}: step {row["step_s"]:.3f} s [{row["step_min_s"]:.3f}, {row["step_max_s"]:.3f}] ({phases})',
            f'  parts alone, forward and backward: {pieces}',
            f'  {row["images_per_s"]:.1f} images/s, {row["tokens_per_s"]:.0f} tokens/s; {row["tflop"]:.3f} TFLOP, '
            f'at the ceiling {row["least_s"]:.3f} s: {100 * row["share_of_ceiling"]:.0f} % of it; '
            f'overhead {row["overhead_percent"]:+.1f} %',
        ]
        if 'peak_gb' in row:
            lines.append(f'  peak memory {row["peak_gb"]:.2f} GB, of which importing {row["imports_gb"]:.2f} GB')
    return '\n'.join(lines)


def run(
    config: Config,
    models: Sequence[str],
    device: str,
    rounds: int,
    memory: bool,
    evaluation: bool,
    json_path: Path | None,
    table: Path | None,
) -> None:
    """Print what ``bench`` finds, and write it: ``topdown bench``."""
    result = bench(config, list(models), device, rounds, memory)
    print(show(result))
    if evaluation:
        result['evaluation_s'] = evaluation_times(config, device)
        times = ', '.join(f'{name} {1e3 * seconds:.1f} ms' for name, seconds in result['evaluation_s'].items())
        print(f'evaluation of one image: {times}')
    if json_path:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(result, indent=1))
    if table:
        append_rows(table, as_rows(result), same=('model', 'preset', 'precision', 'batch', 'device'))


def run_store(config: Config, table: Path) -> None:
    """Print what ``store_speed`` finds, and add it to a CSV table."""
    computed_in = precision.choose(config.train.precision).name
    row = {'preset': config.name, 'batch': config.train.batch_size, 'precision': computed_in, **store_speed(config)}
    append_rows(table, [{**row, **provenance(config, 0, computed_in)}], same=('preset', 'batch', 'precision'))
    print('\n'.join(f'{name}: {value}' for name, value in row.items()))


def run_inference(config: Config, models: Sequence[str], device: str, rounds: int, table: Path) -> None:
    """Print what ``inference_costs`` finds, and write it to a CSV file."""
    found = inference_costs(config, models, device, rounds)
    computed_in = precision.choose(config.train.precision, device).name
    origin = provenance(config, 0, computed_in)
    found = found.assign(
        **{k: origin[k] for k in ('preset', 'precision', 'device', 'threads', 'torch', 'commit', 'date')}
    )
    append_rows(table, found.to_dict('records'), same=('preset', 'precision', 'device', 'batch', 'model'))
    print(found.iloc[:, :6].round(3).to_string(index=False))


def run_growth(config: Config, device: str, rounds: int, table: Path) -> None:
    """Print what ``grow`` finds, and write it to a CSV file."""
    found = grow(config, device, rounds)
    table.parent.mkdir(parents=True, exist_ok=True)
    found.to_csv(table, index=False)
    print(found.to_string(index=False))


if __name__ == '__main__':  # the process that ``peak_memory`` starts
    print(json.dumps(_memory_of(sys.argv[1])))
