"""Evaluation of a model, or of any label maps, on a data set; and the baselines every table shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from topdown import metrics
from topdown.data.coco import CocoInstances
from topdown.encoder import FrozenEncoder
from topdown.model import Output, SlotModel

BATCH = 32


@dataclass
class EvalSet:
    """Validation tokens and truth, computed once and used for every model and baseline.

    Truth is kept as label maps (see ``metrics.instance_labels`` and ``metrics.class_labels``), so that one joint
    histogram an image and map is all that an evaluation computes.
    """

    tokens: Tensor  # (V, N, D)
    images: Tensor  # (V, 3, S, S)
    instances: np.ndarray  # (V, M, M) int16
    classes: np.ndarray  # (V, M, M) int16
    image_ids: list[int]
    grid: tuple[int, int]

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def mask_size(self) -> int:
        """M, pixels."""
        return self.instances.shape[-1]


def make_eval_set(
    dataset: CocoInstances, encoder: FrozenEncoder, keep_crowd: bool = False, progress: bool = False
) -> EvalSet:
    """Encode and label a validation set.

    Args:
        dataset: the pictures.
        encoder: the frozen encoder.
        keep_crowd: whether crowd regions count as objects.
        progress: show a bar.
    """
    images, instances, classes, ids = [], [], [], []
    for i in tqdm(range(len(dataset)), desc='reading validation', disable=not progress):
        sample = dataset[i]
        keep = None if keep_crowd else ~sample.crowd
        images.append(sample.image)
        instances.append(metrics.instance_labels(sample.masks, keep).astype(np.int16))
        classes.append(metrics.class_labels(sample.masks, sample.categories, keep).astype(np.int16))
        ids.append(sample.image_id)
    images = torch.stack(images)
    return EvalSet(
        tokens=encode_all(encoder, images),
        images=images,
        instances=np.stack(instances),
        classes=np.stack(classes),
        image_ids=ids,
        grid=encoder.grid,
    )


@torch.no_grad()
def encode_all(encoder: FrozenEncoder, images: Tensor, batch: int = BATCH) -> Tensor:
    """Images (V, 3, S, S) -> tokens (V, N, D) float32 on the CPU, in batches, under bfloat16 autocast."""
    device = next(encoder.parameters()).device
    parts = []
    for part in images.split(batch):
        with torch.autocast(device.type, torch.bfloat16):
            parts.append(encoder(part.to(device)).float().cpu())
    return torch.cat(parts)


def labels_from_masks(masks_BKN: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """Soft masks over patches -> labels (B, size, size): bilinear upsampling, then argmax over slots."""
    maps = masks_BKN.float().unflatten(-1, grid)
    return F.interpolate(maps, (size, size), mode='bilinear', align_corners=False).argmax(dim=1)


def labels_from_patches(labels_BN: Tensor, grid: tuple[int, int], size: int, count: int) -> Tensor:
    """Hard patch labels -> labels (B, size, size), upsampled exactly as soft masks are."""
    return labels_from_masks(F.one_hot(labels_BN.long(), count).transpose(1, 2), grid, size)


def run_model(
    model: SlotModel, data: EvalSet, seed: int = 0, precision: str = 'bf16', limit: int = 0
) -> Iterator[tuple[slice, Output]]:
    """Apply a model to the set batch by batch, in evaluation mode, with noise that depends on the seed alone.

    Yields:
        The slice of images and the model's output on the CPU device it runs on.
    """
    device = next(model.parameters()).device
    config = model.config
    noise = torch.randn(len(data), config.slots, config.slot_size, generator=torch.Generator().manual_seed(seed))
    was_training = model.training
    model.eval()
    count = limit or len(data)
    try:
        for first in range(0, count, BATCH):
            part = slice(first, min(first + BATCH, count))
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == 'bf16'):
                yield part, model(data.tokens[part].to(device), noise[part].to(device))
    finally:
        model.train(was_training)


def predict(model: SlotModel, data: EvalSet, source: str = 'decoder', seed: int = 0, precision: str = 'bf16') -> Tensor:
    """Label maps (V, M, M) uint8 of the whole set.

    Args:
        model: the model.
        data: the set.
        source: 'decoder' for the decoder's masks, 'slots' for slot attention's, 'first' for those of the first pass.
        seed: of the slots' noise.
        precision: bf16 or fp32.

    Raises:
        ValueError: for an unknown source, or 'first' without the top-down pathway.
    """
    if source not in ('decoder', 'slots', 'first'):
        raise ValueError(f"source must be 'decoder', 'slots' or 'first', got {source!r}")
    parts = []
    for _, out in run_model(model, data, seed, precision):
        masks = {'decoder': out.masks, 'slots': out.attention, 'first': out.first_attention}[source]
        if masks is None:
            raise ValueError(f'the model gives no masks of source {source!r}')
        parts.append(labels_from_masks(masks, data.grid, data.mask_size).to('cpu', torch.uint8))
    return torch.cat(parts)


def score(labels: Tensor | np.ndarray, data: EvalSet) -> list[dict[str, float]]:
    """Metrics of predicted label maps (V, M, M), a row an image: fg_ari, mbo_i, mbo_c, miou as shares.

    Raises:
        ValueError: if the number or size of maps is not that of the set.
    """
    labels = np.asarray(labels)
    if labels.shape != data.instances.shape:
        raise ValueError(f'predictions have shape {labels.shape}, the set has {data.instances.shape}')
    rows = []
    for prediction, instances, classes in zip(labels, data.instances, data.classes, strict=True):
        joint = metrics.joint_histogram(instances, prediction)
        by_class = metrics.joint_histogram(classes, prediction)
        rows.append({
            'fg_ari': metrics.fg_ari(joint), 'mbo_i': metrics.mean_best_overlap(joint),
            'mbo_c': metrics.mean_best_overlap(by_class), 'miou': metrics.mean_iou(joint),
        })  # fmt: skip
    return rows


def evaluate_model(model: SlotModel, data: EvalSet, source: str = 'decoder', seed: int = 0) -> dict[str, float]:
    """Mean metrics of a model in percent."""
    return metrics.summarize(score(predict(model, data, source, seed), data))


# --------------------------------------------------------------------------------------------------- baselines


def block_grid(data: EvalSet, count: int) -> Tensor:
    """A fixed grid of ``count`` cells as equal as can be: rows of cells, the last row sharing what is left."""
    rows = max(1, round(count**0.5))
    per_row = [count // rows + (r < count % rows) for r in range(rows)]
    labels = torch.zeros(data.mask_size, data.mask_size, dtype=torch.uint8)
    first = 0
    edges = torch.linspace(0, data.mask_size, rows + 1).round().long().tolist()
    for top, bottom, cells in zip(edges[:-1], edges[1:], per_row, strict=True):
        column = torch.arange(data.mask_size) * cells // data.mask_size
        labels[top:bottom] = (first + column).to(torch.uint8)
        first += cells
    return labels.expand(len(data), -1, -1)


def kmeans(data: EvalSet, features: Tensor, count: int, seed: int = 0) -> Tensor:
    """k-means with ``count`` clusters on the patches of each picture; features (V, N, F) -> labels (V, M, M)."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # many small problems: threads only get in each other's way
        labels = np.stack([
            KMeans(count, n_init=3, random_state=seed).fit_predict(x.double().numpy()) for x in features
        ])  # fmt: skip
    return labels_from_patches(torch.from_numpy(labels), data.grid, data.mask_size, count).to(torch.uint8)


def patch_colours(data: EvalSet) -> Tensor:
    """Mean colour of every patch (V, N, 3)."""
    size = data.images.shape[-1] // data.grid[0]
    return F.avg_pool2d(data.images, size).flatten(2).transpose(1, 2)


def pooled_truth(data: EvalSet) -> Tensor:
    """The upper bound of the patch grid: each patch gets the true label that covers most of it."""
    count = int(data.instances.max()) + 1
    parts = []
    for instances in torch.from_numpy(np.maximum(data.instances, 0)).split(64):
        shares = F.one_hot(instances.long(), count).permute(0, 3, 1, 2).float()
        labels = F.adaptive_avg_pool2d(shares, data.grid).flatten(2).argmax(dim=1)
        parts.append(labels_from_patches(labels, data.grid, data.mask_size, count).to(torch.uint8))
    return torch.cat(parts)


def baselines(
    data: EvalSet, count: int, untrained: Callable[[], SlotModel] | None = None, seed: int = 0
) -> dict[str, list[dict[str, float]]]:
    """Rows per image of every baseline: name -> output of ``score``.

    Args:
        data: the set.
        count: number of segments, the model's K.
        untrained: makes an untrained model (without the pathway: it has no codes yet), for the row
            'random slots' (slot-attention masks).
        seed: of k-means and of the slots' noise.
    """
    rows = {
        'truth pooled to patches': score(pooled_truth(data), data),
        'block grid': score(block_grid(data, count), data),
        'k-means on colours': score(kmeans(data, patch_colours(data), count, seed), data),
        'k-means on tokens': score(kmeans(data, data.tokens, count, seed), data),
    }
    if untrained is not None:
        rows['random slots'] = score(predict(untrained(), data, 'slots', seed), data)
    return rows
