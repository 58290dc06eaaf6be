"""Batches of training tokens: which images a step sees, and how their tokens come about."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor
from tqdm.auto import tqdm

from topdown import distributed
from topdown.config import Config
from topdown.data.base import ImageSet, load
from topdown.data.token_store import stored_tokens
from topdown.model.encoder import Encoder, encode_all

AHEAD = 4
"""Batches of stored tokens that are read while one is used: enough for a disk's queue, and for a GPU not to wait."""

T, U = TypeVar('T'), TypeVar('U')


class TrainData:
    """Frozen tokens of training images, by image and view.

    With ``cache_tokens`` the tokens of every image, plain and flipped, are computed once and kept as bfloat16, the
    precision the encoder computes them in: in memory, or in ``token_dir`` on disk. Otherwise images are read by
    loader processes and encoded batch by batch.

    Args:
        dataset: the images.
        encoder: the frozen encoder.
        config: the experiment.
        progress: show bars.
    """

    def __init__(self, dataset: ImageSet, encoder: Encoder, config: Config, progress: bool = False) -> None:
        if config.train.cache_tokens and config.data.random_crop:
            raise ValueError('cache_tokens=True cannot serve random_crop=True: every crop needs tokens of its own')
        if dataset.epoch_length < config.train.batch_size:
            raise ValueError(
                f'batch_size={config.train.batch_size} exceeds the {dataset.epoch_length} training images of an epoch'
            )
        if (length := config.model.clip_length) > 1 and not length <= dataset.frames <= len(dataset):
            raise ValueError(f'clip_length={length}: {len(dataset)} images in clips of {dataset.frames} have none')
        self.dataset, self.encoder, self.config = dataset, encoder, config
        self.views: list[Tensor] = []
        if config.train.cache_tokens and config.train.token_dir:
            self.views = stored_tokens(
                dataset,
                lambda images: encode_all(encoder, images),
                f'{encoder.fingerprint()}/{encoder.precision}',
                (encoder.num_patches, encoder.feature_size),
                config.train.token_dir,
                config.data.flip,
                config.train.num_workers,
                progress,
            )
        elif config.train.cache_tokens:
            for flip in (False, True) if config.data.flip else (False,):
                title = f'tokens of training images{", flipped" if flip else ""}'
                parts = []
                for first in tqdm(range(0, len(dataset), 256), desc=title, disable=not progress):
                    indices = range(first, min(first + 256, len(dataset)))
                    images = torch.stack([dataset.view(i, flip) for i in indices])
                    parts.append(encode_all(encoder, images).bfloat16())
                self.views.append(torch.cat(parts))

    def batches(self, first_step: int, last_step: int, config: Config | None = None) -> Iterator[Tensor]:
        """Tokens (B, N, D) float32 for steps first_step to last_step - 1; which images depends on seed and step.

        Args:
            first_step, last_step: of optimisation.
            config: of the run, whose seed orders the images: runs of several seeds may share these tokens. By default
                the one that the tokens were made with.
        """
        device = next(self.encoder.parameters()).device
        plan = _Plan(self.dataset, config or self.config, first_step, last_step)
        if self.views:

            def read(rows: list[tuple]) -> Tensor:
                found = torch.stack([self.views[flip][index] for index, flip, _ in rows])
                return found.pin_memory() if device.type == 'cuda' else found

            for tokens in ahead(read, plan, AHEAD if self.config.train.token_dir else 0):
                yield tokens.to(device, non_blocking=True).float()
            return
        options = {'num_workers': self.config.train.num_workers, 'pin_memory': device.type == 'cuda'}
        for images in load(self.dataset, plan, **options):
            yield self.encoder(images.to(device, non_blocking=True))

    def image_ids(self, step: int, config: Config) -> list[int] | list[str]:
        """Which images all processes together see in a step of an experiment, counted from 0."""
        (rows,) = _Plan(self.dataset, config, step, step + 1, whole=True)
        return [self.dataset.ids[index] for index, _, _ in rows]


class _Plan:
    """Which images, flips and crops every step sees: a function of seed and step alone, so that runs can resume."""

    def __init__(self, dataset: ImageSet, config: Config, first_step: int, last_step: int, whole: bool = False) -> None:
        self.dataset, self.config, self.first, self.last = dataset, config, first_step, last_step
        self.share = slice(None) if whole else distributed.share(config.train.batch_size)

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int, tuple[float, ...] | None]]]:
        batch, seed = self.config.train.batch_size, self.config.train.seed
        per_epoch, length = self.dataset.epoch_length // batch, self.config.model.clip_length
        leader = torch.arange(batch) // length * length  # a clip's frames are flipped and cut as its first is
        order, epoch = torch.empty(0), -1
        for step in range(self.first, self.last):
            if step // per_epoch != epoch:
                epoch = step // per_epoch
                source = _generator(seed, 1, epoch)
                order = self.dataset.order(source) if length == 1 else self.dataset.clip_order(source, length)
            place = step % per_epoch * batch
            source = _generator(seed, 2, step)
            draw, form = (torch.rand(batch, count, generator=source)[leader].tolist() for count in (3, 2))
            rows = [
                (int(i), int(self.config.data.flip and f < 0.5), (*at, *more) if self.config.data.random_crop else None)
                for i, (f, *at), more in zip(order[place : place + batch], draw, form, strict=True)
            ]
            yield rows[self.share]


def ahead(make: Callable[[T], U], items: Iterable[T], count: int) -> Iterator[U]:
    """``make`` of all items, in their order; so many are being made by threads while one is used."""
    if not count:
        yield from map(make, items)
        return
    items, waiting = iter(items), deque()
    with ThreadPoolExecutor(count) as pool:
        try:
            waiting.extend(pool.submit(make, item) for item in itertools.islice(items, count))
            while waiting:
                found = waiting.popleft().result()
                waiting.extend(pool.submit(make, item) for item in itertools.islice(items, 1))
                yield found
        finally:
            for future in waiting:
                future.cancel()


def _generator(seed: int, stream: int, number: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 4 + stream) * 1_000_003 + number)
