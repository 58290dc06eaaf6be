"""Rows that every table shows beside a model: they need no training of slots."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from topdown.evaluate.predict import labels_from_masks, labels_from_patches, predict
from topdown.evaluate.truth import BATCH, EvalSet, Rows
from topdown.model.slot_model import SlotModel

# --------------------------------------------------------------------------------------------------- baselines


def block_grid(data: EvalSet, count: int) -> Rows:
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
    return _maps(data, lambda i: labels)


def kmeans(data: EvalSet, features: Tensor, count: int, seed: int = 0) -> Rows:
    """k-means with ``count`` clusters on the patches of each image; features (V, N, F) -> labels (V, M, M)."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # many small problems: threads only get in each other's way
        labels = np.stack([
            KMeans(count, n_init=3, random_state=seed).fit_predict(x.double().numpy()) for x in features
        ])  # fmt: skip
    return _maps(data, lambda i: _upsampled(data, torch.from_numpy(labels[i])))


def patch_colours(data: EvalSet) -> Tensor:
    """Mean colour of every patch (V, N, 3)."""
    size = data.dataset.image_size // data.grid[0]
    found = torch.empty(len(data), data.grid[0] * data.grid[1], 3)  # small pieces between large ones would fragment
    for batch in _batches(data):
        found[batch] = F.avg_pool2d(data.images[batch], size).flatten(2).transpose(1, 2)
    return found


def pooled_truth(data: EvalSet) -> Rows:
    """The truth as hard patch labels: each patch gets the true label that covers most of it.

    This is a reference, not a bound. Hard labels put outlines on the edges of patches, or, since they are upsampled as
    masks are, halfway between centres; soft masks can place an outline anywhere within a patch, and models whose masks
    are soft do score above this row in FG-ARI. See ``truth_as_shares``.
    """
    return _maps(data, lambda i: _upsampled(data, _shares(data, i).argmax(dim=0)))


def truth_as_shares(data: EvalSet) -> Rows:
    """The truth as soft patch masks: each patch's shares of the true segments, turned into labels as a model's masks.

    Other soft masks may lie closer to the truth after upsampling than its own shares do, so this is not a proven bound
    either, but it is a fairer reference for soft masks than hard patch labels are.
    """
    return _maps(data, lambda i: labels_from_masks(_shares(data, i)[None], data.grid, data.mask_size)[0])


def truth_at_token_means(data: EvalSet) -> Rows:
    """What tokens tell apart if each segment is its mean token, were the segments known.

    Every true segment (background included) is given the mean of its patches' tokens, and every patch then goes to the
    nearest mean.
    """

    def make(i: int) -> Tensor:
        tokens, owner = data.tokens[i].float(), _shares(data, i).argmax(dim=0)
        member = F.one_hot(owner).float()
        size = member.sum(0)
        means = member.T @ tokens / size[:, None].clamp(min=1)
        return _upsampled(data, torch.cdist(tokens, means).masked_fill(size == 0, float('inf')).argmin(-1))

    return _maps(data, make)


def patch_shares(data: EvalSet) -> Iterator[Tensor]:
    """Share of every patch that every true segment covers (b, C, N), so many images at a time; row 0 is the ground.

    Pixels that the protocol leaves out count as ground.
    """
    count = max(int(data.main_truth.instance.max()), 0) + 1
    for batch in _batches(data):
        parts = [_shares(data, i) for i in range(len(data))[batch]]
        yield torch.stack([F.pad(part, (0, 0, 0, count - len(part))) for part in parts])


def _shares(data: EvalSet, i: int) -> Tensor:
    """Of one image, (C, N): its segments up to its own last one."""
    labels = torch.from_numpy(np.maximum(data.instances[i], 0))
    member = labels == torch.arange(int(labels.max()) + 1)[:, None, None]
    return F.adaptive_avg_pool2d(member.float(), data.grid).flatten(1)


def _batches(data: EvalSet) -> Iterator[slice]:
    return (slice(first, first + BATCH) for first in range(0, len(data), BATCH))


def _maps(data: EvalSet, make: Callable[[int], Tensor]) -> Rows:
    return Rows(lambda rows: torch.stack([make(i) for i in rows]), *data.main_truth.regions.shape)


def _upsampled(data: EvalSet, labels: Tensor) -> Tensor:
    """Labels (N,) of one image's patches -> (M, M)."""
    return labels_from_patches(labels[None], data.grid, data.mask_size, int(labels.max()) + 1)[0]


def baselines(
    data: EvalSet, count: int, untrained: Callable[[], SlotModel] | None = None, seed: int = 0
) -> dict[str, Rows | Tensor]:
    """Label maps (V, M, M) of every baseline, by name; most are made when they are asked for, image by image.

    Args:
        data: the set.
        count: number of segments, the model's K.
        untrained: makes an untrained model (without the pathway: it has no codes yet), for the row
            'random slots' (slot-attention masks).
        seed: of k-means and of the slots' noise.
    """
    one = torch.zeros(data.mask_size, data.mask_size, dtype=torch.uint8)
    labels = {
        'truth as shares of patches': truth_as_shares(data),
        'truth pooled to patches': pooled_truth(data),
        'truth at token means': truth_at_token_means(data),
        'one slot': _maps(data, lambda i: one),
        'block grid': block_grid(data, count),
        'k-means on colours': kmeans(data, patch_colours(data), count, seed),
        'k-means on tokens': kmeans(data, data.tokens, count, seed),
    }
    if untrained is not None:
        labels['random slots'] = predict(untrained(), data, 'slots', seed)
    return labels
