"""What predictions are scored against: true regions of a split, and its tokens, made once for every model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from topdown import distributed
from topdown.config import Config
from topdown.data import open_dataset
from topdown.data.base import ImageSet, load
from topdown.data.report import LEFT_OUT, NOTE
from topdown.data.token_store import stored_tokens
from topdown.evaluate import metrics
from topdown.evaluate.metrics import Truth
from topdown.model.encoder import Encoder, encode_all
from topdown.protocols import get_protocol

BATCH = 32
HALVED_FROM = 2**30
"""Bytes of a set's tokens in float32 from which on they are kept in bfloat16, as training's are."""


class Rows:
    """Something with a row for every image, computed when it is asked for: by number, slice or list of numbers.

    ``shape`` is that of all of it, and ``[:]`` makes all of it.
    """

    def __init__(self, make: Callable[[list[int]], np.ndarray | Tensor], *shape: int) -> None:
        self.make, self.shape = make, shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: int | slice | Sequence[int]) -> np.ndarray | Tensor:
        rows = range(len(self))
        if isinstance(which, slice):
            return self.make(list(rows[which]))
        if np.ndim(which) == 0:
            return self.make([rows[which]])[0]
        return self.make([rows[i] for i in which])


@dataclass
class TruthSet:
    """What predictions are scored against: of a whole split, or of this process's part of it."""

    dataset: ImageSet  # the images of the whole split
    truth: dict[str, Truth]  # protocol -> true regions at mask size; the first is the main one
    image_ids: list[int] | list[str]
    file_names: list[str]
    first: int  # number of the first image in the split

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def mask_size(self) -> int:
        """M, pixels."""
        return self.main_truth.regions.shape[-1]

    @property
    def main_truth(self) -> Truth:
        """Under the experiment's own protocol."""
        return next(iter(self.truth.values()))

    @property
    def instances(self) -> Rows:
        """Label maps (V, M, M) int16: 0 background, instances from 1, ``IGNORE`` left out."""
        return self._maps(self.main_truth.instance)

    @property
    def classes(self) -> Rows:
        """Label maps (V, M, M) int16: 0 background, classes from 1 (see ``Truth.ids``), ``IGNORE`` left out."""
        return self._maps(self.main_truth.category)

    def _maps(self, owner: Tensor) -> Rows:
        regions, owner = self.main_truth.regions, owner.to(torch.int16)

        def make(rows: list[int]) -> np.ndarray:
            return owner[rows].gather(1, regions[rows].flatten(1).long()).view(-1, *regions.shape[1:]).numpy()

        return Rows(make, *regions.shape)


@dataclass
class EvalSet(TruthSet):
    """Validation tokens and truth, computed once and used for every model and baseline."""

    tokens: Tensor  # (V, N, D)
    grid: tuple[int, int]

    @property
    def images(self) -> Rows:
        """Images (V, 3, S, S) float32 in [0, 1], read when they are asked for."""

        def make(rows: list[int]) -> Tensor:
            return torch.stack([self.dataset.shown(self.first + i) for i in rows])

        return Rows(make, len(self), 3, self.dataset.image_size, self.dataset.image_size)


def make_truth_set(
    config: Config,
    split: str = 'val',
    protocols: tuple[str, ...] = (),
    dataset: ImageSet | None = None,
    progress: bool = True,
    shared: bool = False,
) -> TruthSet:
    """Label a split as the experiment's settings have it: protocol, crowd regions and void pixels are its own.

    A byte a pixel of the cut masks is kept for every protocol: at the paper's scale 0.5 GB for COCO's 5,000 images.

    Args:
        config: the experiment.
        split: 'train' or 'val'.
        protocols: further protocols, beside the experiment's own, to make the truth of: one prediction can then be
            scored under each.
        dataset: the split, if it is open already or is not a data set that ``config`` can name.
        progress: show a bar.
        shared: with several processes, whether each makes its own part only; all must call it then.

    Raises:
        FileNotFoundError, ValueError: see ``open_dataset``; also for an unknown protocol, or one whose files are not
            there (see ``ImageSet.protocols``).
    """
    dataset = dataset or open_dataset(config, split, progress)
    names = list(dict.fromkeys((config.data.protocol, *protocols)))
    clips = distributed.share(-(-len(dataset) // dataset.frames)) if shared else slice(0, len(dataset))
    part = range(len(dataset))[clips.start * dataset.frames : clips.stop * dataset.frames]
    sides = {name: dataset.mask_side(get_protocol(name)) for name in names}
    makers = {name: metrics.TruthMaker(len(part), side, side, name) for name, side in sides.items()}
    objects = crowds = 0
    for i in tqdm(part, desc='reading true masks', disable=not progress):
        truth = dataset.annotation(i)
        objects, crowds = objects + len(truth.categories), crowds + int(truth.crowd.sum())
        for name, maker in makers.items():
            rules = maker.protocol
            own = (rules.panoptic and dataset.panoptic(i)) or truth
            dropped = own.crowd if rules.crowd != 'drop' or own.ignored is None else own.crowd | own.ignored
            keep = None if dataset.keeps_crowd(config.data.keep_crowd, name) else ~dropped
            cut = own.cut(sides[name], rules.mask_resize)
            void = cut.void if config.data.void == 'ignore' or rules.void == 'aside' else None
            *maps, erased = metrics.true_labels(cut.masks, cut.categories, keep, name, void, cut.order)
            maker.add(*maps, cut.categories, erased)
    if shared:
        objects, crowds = np.sum(distributed.gather_lists([[objects, crowds]]), axis=0).tolist()
    if not objects and dataset.report.lines(LEFT_OUT):
        raise ValueError(f'no object is left to score; {dataset.report.line()}')
    kept = dataset.keeps_crowd(config.data.keep_crowd, names[0])
    if crowds:
        fate = 'kept' if kept else f'left out under protocol {names[0]}'
        dataset.report.add(NOTE, f'{crowds} of {objects} objects are marked as crowd and {fate} (keep_crowd)')
    if crowds == objects > 0 and not kept:
        remedy = 'set keep_crowd=keep if these are objects, as labelling tools write them'
        remedy = remedy if get_protocol(names[0]).crowd == 'option' else 'use another protocol if these are objects'
        raise ValueError(
            f'{dataset.report.title}: all {objects} objects are marked as crowd, and crowds are left out: {remedy}'
        )
    dataset.report.objects = objects
    dataset.report.warn()
    return TruthSet(
        dataset=dataset,
        truth={name: maker.truth() for name, maker in makers.items()},
        image_ids=[dataset.ids[i] for i in part],
        file_names=[dataset.file_name(i) for i in part],
        first=part.start,
    )


def make_eval_set(
    config: Config,
    encoder: Encoder,
    split: str = 'val',
    protocols: tuple[str, ...] = (),
    dataset: ImageSet | None = None,
    progress: bool = True,
    shared: bool = False,
) -> EvalSet:
    """Encode and label a split, cut as the experiment's protocol has it; arguments as for ``make_truth_set``.

    Tokens are kept in memory; from ``HALVED_FROM`` bytes on in bfloat16, 1.5 GB at the paper's scale for COCO's 5,000
    images, or with ``token_dir`` there, like those of training.
    """
    known = make_truth_set(config, split, protocols, dataset, progress, shared)
    return EvalSet(**vars(known), tokens=_tokens(config, encoder, known, progress), grid=encoder.grid)


def _tokens(config: Config, encoder: Encoder, known: TruthSet, progress: bool) -> Tensor:
    """Tokens (V, N, D) of the set's images."""
    dataset, shape = known.dataset, (encoder.num_patches, encoder.feature_size)
    part = range(known.first, known.first + len(known))
    small = len(dataset) * shape[0] * shape[1] * 4 < HALVED_FROM
    if not small and config.train.cache_tokens and config.train.token_dir:
        own = f'{encoder.fingerprint()}/{encoder.precision}'
        workers, place = config.train.num_workers, config.train.token_dir
        stored = stored_tokens(dataset, lambda x: encode_all(encoder, x), own, shape, place, False, workers, progress)
        return stored[0][part.start : part.stop]
    tokens = torch.empty(len(part), *shape, dtype=torch.float32 if small else torch.bfloat16)
    batches = [part[first : first + BATCH] for first in range(0, len(part), BATCH)]
    images = load(dataset, [[(i,) for i in batch] for batch in batches], num_workers=config.train.num_workers)
    for batch, found in zip(tqdm(batches, desc='reading images', disable=not progress), images, strict=True):
        tokens[batch.start - part.start : batch.stop - part.start] = encode_all(encoder, found)
    return tokens
