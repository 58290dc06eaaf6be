"""Rows that every table shows beside a model: they need no training of slots."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from topdown.evaluate.predict import labels_from_patches, predict
from topdown.evaluate.truth import EvalSet
from topdown.model.slot_model import SlotModel

# --------------------------------------------------------------------------------------------------- baselines


def block_grid(data: EvalSet, count: int) -> Tensor:
    """A fixed grid of ``count`` cells as equal as can be: rows of cells, the last row sharing what is left."""
    rows = max(1, round(count**0.5))
    per_row = [count // rows + (r < count % rows) for r in range(rows)]
    labels = torch.zeros(data.mask_size, data.mask_size, dtype=torch.int32)
    first = 0
    edges = torch.linspace(0, data.mask_size, rows + 1).round().long().tolist()
    for top, bottom, cells in zip(edges[:-1], edges[1:], per_row, strict=True):
        column = torch.arange(data.mask_size) * cells // data.mask_size
        labels[top:bottom] = (first + column).int()
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
    return labels_from_patches(torch.from_numpy(labels), data.grid, data.mask_size, count)


def patch_colours(data: EvalSet) -> Tensor:
    """Mean colour of every patch (V, N, 3)."""
    size = data.images.shape[-1] // data.grid[0]
    return F.avg_pool2d(data.images, size).flatten(2).transpose(1, 2)


def pooled_truth(data: EvalSet) -> Tensor:
    """The upper bound of the patch grid: each patch gets the true label that covers most of it."""
    labels = _patch_truth(data)
    return labels_from_patches(labels, data.grid, data.mask_size, int(labels.max()) + 1)


def truth_at_token_means(data: EvalSet) -> Tensor:
    """What the tokens allow to models with one token a segment, were the segments known.

    Every true segment (background included) is given the mean of its patches' tokens, and every patch then goes to the
    nearest mean.
    """
    truth = _patch_truth(data)
    member = F.one_hot(truth, int(truth.max()) + 1).float()
    size = member.sum(1)
    means = member.transpose(1, 2) @ data.tokens / size[..., None].clamp(min=1)
    distance = torch.cdist(data.tokens, means).masked_fill((size == 0)[:, None], float('inf'))
    return labels_from_patches(distance.argmin(-1), data.grid, data.mask_size, member.shape[-1])


def _patch_truth(data: EvalSet) -> Tensor:
    """The true label (V, N) that covers most of each patch."""
    maps = torch.from_numpy(np.maximum(data.instances, 0))
    count, parts = int(maps.max()) + 1, []
    for part in maps.split(64):
        shares = F.one_hot(part.long(), count).permute(0, 3, 1, 2).float()
        parts.append(F.adaptive_avg_pool2d(shares, data.grid).flatten(2).argmax(dim=1))
    return torch.cat(parts)


def baselines(
    data: EvalSet, count: int, untrained: Callable[[], SlotModel] | None = None, seed: int = 0
) -> dict[str, Tensor]:
    """Label maps (V, M, M) of every baseline, by name.

    Args:
        data: the set.
        count: number of segments, the model's K.
        untrained: makes an untrained model (without the pathway: it has no codes yet), for the row
            'random slots' (slot-attention masks).
        seed: of k-means and of the slots' noise.
    """
    labels = {
        'truth pooled to patches': pooled_truth(data),
        'truth at token means': truth_at_token_means(data),
        'one slot': torch.zeros(data.main_truth.regions.shape, dtype=torch.int32),
        'block grid': block_grid(data, count),
        'k-means on colours': kmeans(data, patch_colours(data), count, seed),
        'k-means on tokens': kmeans(data, data.tokens, count, seed),
    }
    if untrained is not None:
        labels['random slots'] = predict(untrained(), data, 'slots', seed)
    return labels
