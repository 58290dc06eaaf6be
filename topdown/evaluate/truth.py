"""What predictions are scored against: true regions of a split, and its tokens, made once for every model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from topdown.config import Config
from topdown.data import open_dataset
from topdown.data.base import ImageSet
from topdown.data.report import LEFT_OUT, NOTE
from topdown.evaluate import metrics
from topdown.evaluate.metrics import Truth
from topdown.model.encoder import Encoder, encode_all
from topdown.protocols import get_protocol

BATCH = 32


@dataclass
class TruthSet:
    """What predictions are scored against."""

    dataset: ImageSet  # the images
    truth: dict[str, Truth]  # protocol -> true regions at mask size; the first is the main one
    image_ids: list[int] | list[str]
    file_names: list[str]

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
    def instances(self) -> np.ndarray:
        """Label maps (V, M, M) int16: 0 background, instances from 1, ``IGNORE`` left out."""
        return self._map(self.main_truth.instance)

    @property
    def classes(self) -> np.ndarray:
        """Label maps (V, M, M) int16: 0 background, classes from 1 (see ``Truth.ids``), ``IGNORE`` left out."""
        return self._map(self.main_truth.category)

    def _map(self, owner: Tensor) -> np.ndarray:
        regions = self.main_truth.regions
        return owner.to(torch.int16).gather(1, regions.flatten(1).long()).view(regions.shape).numpy()


@dataclass
class EvalSet(TruthSet):
    """Validation tokens and truth, computed once and used for every model and baseline."""

    tokens: Tensor  # (V, N, D)
    images: Tensor  # (V, 3, S, S)
    grid: tuple[int, int]


def make_truth_set(
    config: Config,
    split: str = 'val',
    protocols: tuple[str, ...] = (),
    dataset: ImageSet | None = None,
    progress: bool = True,
) -> TruthSet:
    """Label a split as the experiment's settings have it: protocol, crowd regions and void pixels are its own.

    Args:
        config: the experiment.
        split: 'train' or 'val'.
        protocols: further protocols, beside the experiment's own, to make the truth of: one prediction can then be
            scored under each.
        dataset: the split, if it is open already or is not a data set that ``config`` can name.
        progress: show a bar.

    Raises:
        FileNotFoundError, ValueError: see ``open_dataset``; ValueError also for an unknown protocol.
    """
    dataset = dataset or open_dataset(config, split, progress)
    names = list(dict.fromkeys((config.data.protocol, *protocols)))
    maps: dict[str, tuple[list, list]] = {name: ([], []) for name in names}
    categories, marked = [], []
    for i in tqdm(range(len(dataset)), desc='reading true masks', disable=not progress):
        truth = dataset.annotation(i)
        categories.append(truth.categories)
        marked.append(truth.crowd.sum())
        for name, (instances, classes) in maps.items():
            protocol = get_protocol(name)
            keep = None if dataset.keeps_crowd(config.data.keep_crowd, name) else ~truth.crowd
            cut = truth.cut(dataset.mask_size, protocol.mask_resize)
            for labels, kept in (
                (metrics.instance_labels(cut.masks, keep), instances),
                (metrics.class_labels(cut.masks, cut.categories, keep, name), classes),
            ):
                if config.data.void == 'ignore' and cut.void is not None:
                    labels[cut.void] = metrics.IGNORE
                kept.append(labels.astype(np.int32))
    crowds, objects = np.sum(marked), sum(map(len, categories))
    if not objects and dataset.report.lines(LEFT_OUT):
        raise ValueError(f'no object is left to score; {dataset.report.line()}')
    kept = dataset.keeps_crowd(config.data.keep_crowd, names[0])
    if crowds:
        fate = 'kept' if kept else f'left out under protocol {names[0]}'
        dataset.report.add(NOTE, f'{crowds} of {objects} objects are marked as crowd and {fate} (keep_crowd)')
    if crowds == objects > 0 and not kept:
        raise ValueError(
            f'{dataset.report.title}: all {objects} objects are marked as crowd, and crowds are left out: set '
            'keep_crowd=keep if these are objects, as labelling tools write them'
        )
    dataset.report.objects = objects
    dataset.report.warn()
    return TruthSet(
        dataset=dataset,
        truth={name: metrics.make_truth(*pair, categories) for name, pair in maps.items()},
        image_ids=list(dataset.ids),
        file_names=[dataset.file_name(i) for i in range(len(dataset))],
    )


def make_eval_set(
    config: Config,
    encoder: Encoder,
    split: str = 'val',
    protocols: tuple[str, ...] = (),
    dataset: ImageSet | None = None,
    progress: bool = True,
) -> EvalSet:
    """Encode and label a split, cut as the experiment's protocol has it; arguments as for ``make_truth_set``.

    Images and tokens are kept in memory, each once: at the paper's scale 3 GB each for COCO's 5,000 images.
    """
    known = make_truth_set(config, split, protocols, dataset, progress)
    dataset, size = known.dataset, known.dataset.image_size
    images = torch.empty(len(dataset), 3, size, size)
    tokens = torch.empty(len(dataset), encoder.num_patches, encoder.feature_size)
    for first in tqdm(range(0, len(dataset), BATCH), desc='reading images', disable=not progress):
        for i in range(first, min(first + BATCH, len(dataset))):
            images[i] = dataset.view(i)
        tokens[first : first + BATCH] = encode_all(encoder, images[first : first + BATCH])
    return EvalSet(**vars(known), tokens=tokens, images=images, grid=encoder.grid)
