"""Rows that every table shows beside a model: they need no training of slots."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from topdown.evaluate.predict import labels_from_masks, labels_from_patches, predict
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
    """k-means with ``count`` clusters on the patches of each image; features (V, N, F) -> labels (V, M, M)."""
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
    """The truth as hard patch labels: each patch gets the true label that covers most of it.

    This is a reference, not a bound. Hard labels put outlines on the edges of patches, or, since they are upsampled as
    masks are, halfway between centres; soft masks can place an outline anywhere within a patch, and models whose masks
    are soft do score above this row in FG-ARI. See ``truth_as_shares``.
    """
    return labels_from_patches(_patch_truth(data), data.grid, data.mask_size, _truth_count(data))


def truth_as_shares(data: EvalSet) -> Tensor:
    """The truth as soft patch masks: each patch's shares of the true segments, turned into labels as a model's masks.

    Other soft masks may lie closer to the truth after upsampling than its own shares do, so this is not a proven bound
    either, but it is a fairer reference for soft masks than hard patch labels are.
    """
    return torch.cat([labels_from_masks(x, data.grid, data.mask_size) for x in patch_shares(data)])


def truth_at_token_means(data: EvalSet) -> Tensor:
    """What tokens tell apart if each segment is its mean token, were the segments known.

    Every true segment (background included) is given the mean of its patches' tokens, and every patch then goes to the
    nearest mean.
    """
    truth = _patch_truth(data)
    member = F.one_hot(truth, int(truth.max()) + 1).float()
    size = member.sum(1)
    means = member.transpose(1, 2) @ data.tokens / size[..., None].clamp(min=1)
    distance = torch.cdist(data.tokens, means).masked_fill((size == 0)[:, None], float('inf'))
    return labels_from_patches(distance.argmin(-1), data.grid, data.mask_size, member.shape[-1])


def _truth_count(data: EvalSet) -> int:
    """One more than the largest true label of the set."""
    return max(int(data.main_truth.instance.max()), 0) + 1


def patch_shares(data: EvalSet) -> Iterator[Tensor]:
    """Share of every patch that every true segment covers (b, C, N), so many images at a time; row 0 is the ground.

    Pixels that the protocol leaves out count as ground.
    """
    count = _truth_count(data)
    for part in torch.from_numpy(np.maximum(data.instances, 0)).split(64):
        member = F.one_hot(part.long(), count).permute(0, 3, 1, 2).float()
        yield F.adaptive_avg_pool2d(member, data.grid).flatten(2)


def _patch_truth(data: EvalSet) -> Tensor:
    """The true label (V, N) that covers most of each patch."""
    return torch.cat([shares.argmax(dim=1) for shares in patch_shares(data)])


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
        'truth as shares of patches': truth_as_shares(data),
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
