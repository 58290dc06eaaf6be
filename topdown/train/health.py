"""What is watched while a run lasts: that it stays finite, how fast it is, and signs of failure."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from topdown import distributed
from topdown.config import Config
from topdown.model.codebook import perplexity
from topdown.model.encoder import Encoder
from topdown.model.flops import encoder_flops, step_flops
from topdown.model.slot_model import Output, SlotModel
from topdown.precision import ceiling, peak_memory
from topdown.presets import PRESETS
from topdown.train.batches import TrainData

EARLY = 100
"""Steps after which signs of failure count."""
VARYING = ['step_s', 'images_per_s', 'memory_gb', 'waiting']
"""Columns of the log that differ between runs that are the same."""


class Health:
    """Looks at every step without waiting for the device, and makes a row of the log of what it saw."""

    def __init__(self, model: SlotModel, config: Config, data: TrainData) -> None:
        self.model, self.config, self.data = model, config, data
        device = next(model.parameters()).device
        self.not_finite = torch.full((), -1, device=device)  # the first step that was not, -1 for none
        self.since, self.waited, self.steps = time.perf_counter(), 0.0, 0
        self.losses: list[float] = []
        self.said: set[str] = set()

    def timed(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """Batches, and how long they are waited for."""
        waiting = time.perf_counter()
        for batch in batches:
            self.waited += time.perf_counter() - waiting
            yield batch
            waiting = time.perf_counter()

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Time that is not the steps': of evaluation, of saving."""
        began = time.perf_counter()
        yield
        self.since += time.perf_counter() - began

    def look(self, step: int, loss: Tensor, norm: Tensor) -> None:
        """After every step: note the first whose loss or gradient is not finite."""
        bad = ~torch.isfinite(loss.detach() + norm) & (self.not_finite < 0)
        self.not_finite = torch.where(bad, step, self.not_finite)
        self.steps += 1

    def check(self) -> None:
        """Wait for the device, and raise ``FloatingPointError`` if a step was not finite."""
        step = int(self.not_finite)
        if step >= 0:
            images = ', '.join(map(str, self.data.image_ids(step, self.config)))
            raise FloatingPointError(
                f'loss or gradient is not finite at step {step + 1}, images {images}: lower lr, use precision=fp32 or '
                'look at these images; the last checkpoint is from before'
            )

    def row(self, step: int, rate: float, out: Output, norm: Tensor) -> dict[str, float]:
        """A row of the log; ``step_s``, ``images_per_s`` and ``waiting`` (for data, a share) are since the last one.

        What codes are used for is counted over the epoch: ``perplexity``, ``codes_in_use`` and ``revived`` are since
        the first row after its beginning.
        """
        self.check()
        used = revived = spread = float('nan')
        if self.model.codebook is not None:
            tally, options = self.model.codebook.tally, self.config.train
            spread = perplexity(tally[:-2]).item()
            used, revived = (value.item() for value in self.model.codebook.usage())
            epoch, before = self.data.dataset.epoch_length // options.batch_size, (step - 1) // options.log_every
            if step // epoch != before * options.log_every // epoch:
                tally.zero_()
        loss = distributed.mean(out.reconstruction_loss).item()  # waits for the device, so that the time is right
        spent = (time.perf_counter() - self.since) / max(1, self.steps)
        row = {
            'step': step, 'loss': loss, 'lr': rate, 'gradient_norm': norm.item(),
            'perplexity': spread, 'codes_in_use': used, 'revived': revived, 'step_s': spent,
            'images_per_s': self.config.train.batch_size / spent, 'memory_gb': peak_memory(),
            'waiting': self.waited / (spent * self.steps),
        }  # fmt: skip
        self.since, self.waited, self.steps = time.perf_counter(), 0.0, 0
        return row

    def signs(self, row: dict[str, float]) -> Iterator[str]:
        """Signs of failure in a row of the log, each said once."""
        step, options = row['step'], self.config.train
        self.losses.append(row['loss'])
        found = {}
        if step > EARLY:
            found['revived'] = row['revived'] > 0.5 and (
                f'{row["revived"]:.0%} of the codes are revived at every step: there are too few slots for '
                f'codebook_size={self.config.model.codebook_size}; lower it or dead_code_threshold'
            )
            found['few'] = row['codes_in_use'] < 0.1 and f'{row["codes_in_use"]:.1%} of the codes are in use'
        count = len(self.losses)
        if count >= 64 and count.bit_count() == 1 and step > 2 * options.warmup_steps:  # now and then
            before, now = sum(self.losses[count // 2 : -count // 4]), sum(self.losses[-count // 4 :])
            found['plateau'] = now > 0.995 * before and (
                f'the loss has stayed at {4 * now / count:.4f} for half of the steps so far: a plateau, or the end'
            )
        for name, text in found.items():
            if text and name not in self.said:
                self.said.add(name)
                yield text


def doubts(config: Config, objects: list[int]) -> Iterator[str]:
    """What is odd about an experiment, before it begins.

    Args:
        config: the experiment.
        objects: how many there are in each validation image; of training images none are known.
    """
    options, slots = config.train, config.model.num_slots
    if options.warmup_steps >= options.steps:
        yield f'warmup_steps={options.warmup_steps} is not over at the end: lr={options.lr} is never reached'
    if options.lr_half_life > options.steps:
        end = 0.5 ** (options.steps / options.lr_half_life)
        yield f'lr_half_life={options.lr_half_life} is longer than the run: lr hardly falls, to {end:.0%}'
    if crowded := sum(count > slots for count in objects):
        yield (
            f'{crowded} of {len(objects)} validation images hold more objects than num_slots={slots}, up to '
            f'{max(objects)}: some must share a slot'
        )
    usual = PRESETS.get(config.name, config).train.batch_size
    if options.batch_size != usual:
        yield (
            f'batch_size={options.batch_size} images a step, of all {distributed.world()} process(es) together, is not '
            f'the {usual} of preset {config.name!r}, which its lr and steps are made for'
        )
    if not config.encoder.pretrained and not config.encoder.weights and config.encoder.name not in ('pixels', 'tokens'):
        yield f'the weights of encoder {config.encoder.name} are random (pretrained=False): its tokens mean nothing'
    if torch.backends.mps.is_available():
        yield "Apple's GPU (mps) is not supported: the CPU computes"


def price(config: Config, encoder: Encoder, images: int, steps: int) -> str:
    """What so many steps cost: images, epochs, and the least time that this device takes for them.

    The time is that of matrix products at the speed of the fastest one measured here: no run is shorter, and those of
    small models take many times as long. Models of pixels are convolutions, and no time is given. ``images`` are those
    of an epoch.
    """
    seen = steps * config.train.batch_size
    text = f'{seen:,} in all, {seen / images:.1f} epochs'
    if config.model.decoder == 'broadcast':
        return text
    flops = step_flops(config.model, encoder.feature_size, encoder.num_patches)
    flops += 0 if config.train.cache_tokens else encoder_flops(encoder)
    speed = ceiling(encoder.precision, next(encoder.parameters()).device, repeats=4)
    seconds = seen * flops / speed / 1e12 / distributed.world()
    return f'{text}, at least {duration(seconds)} here (its matrix products, at {speed:.2g} TFLOP/s)'


def duration(seconds: float) -> str:
    """Minutes, or hours from one and a half on."""
    return f'{seconds / 60:.1f} min' if seconds < 5400 else f'{seconds / 3600:.1f} h'
