"""What codes mean: how well they agree with the category, the place and the colour of what slots cover.

Arrays in, numbers out, but for ``code_meaning``, which runs a model. The same numbers for k-means on the same slots are
the reference: they say whether the codebook found more, or less, than plain clustering with as many clusters finds.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix
from threadpoolctl import threadpool_limits

from topdown.evaluate.predict import predict, run_model, slot_categories
from topdown.evaluate.truth import EvalSet
from topdown.model.codebook import count_hits, perplexity
from topdown.model.slot_model import SlotModel

MEASURES = ('purity', 'nmi', 'ami', 'accuracy')


TARGETS = ('category', 'position', 'colour')


CELLS = 3
"""Cells on a side of the grid of positions."""


COLOURS = 8
"""Groups of colours."""


def agreement(truth: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """How well a clustering agrees with true groups.

    ``purity`` is the share of items that belong to their cluster's most frequent group; it grows with the number of
    clusters whatever they mean. ``nmi`` is the mutual information over the mean of both entropies, ``ami`` the same
    adjusted for chance: about 0 for independent labels, however many. ``accuracy`` is the share of items that are right
    if each cluster stands for one group and each group for one cluster, chosen to make it largest (Hungarian method).

    Args:
        truth, clusters: (n,) labels.

    Returns:
        The four measures, 1 for identical partitions; NaN with fewer than two items.

    Raises:
        ValueError: if the arrays are not of one length.
    """
    truth, clusters = np.asarray(truth), np.asarray(clusters)
    if truth.shape != clusters.shape or truth.ndim != 1:
        raise ValueError(f'truth and clusters must be arrays of one length, got {truth.shape} and {clusters.shape}')
    if len(truth) < 2:
        return dict.fromkeys(MEASURES, float('nan'))
    table = contingency_matrix(truth, clusters)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return {
        'purity': float(table.max(axis=0).sum() / len(truth)),
        'nmi': float(normalized_mutual_info_score(truth, clusters)),
        'ami': float(adjusted_mutual_info_score(truth, clusters)),
        'accuracy': float(table[rows, columns].sum() / len(truth)),
    }


def slot_cells(labels: np.ndarray, num_slots: int, cells: int = CELLS) -> np.ndarray:
    """Which cell of a ``cells`` x ``cells`` grid holds the centre of mass of every slot's mask.

    Args:
        labels: predicted label maps (V, M, M).
        num_slots: K.
        cells: cells on a side.

    Returns:
        (V, K) int64, cells numbered row by row; -1 for slots without a pixel.
    """
    size = labels.shape[-1]
    mass = np.stack([_per_slot(labels, num_slots, axis) for axis in (None, 0, 1)])
    with np.errstate(invalid='ignore', divide='ignore'):
        place = np.floor((mass[1:] / mass[0] + 0.5) * cells / size)
    row, column = np.nan_to_num(place).astype(np.int64).clip(0, cells - 1)
    return np.where(mass[0] > 0, row * cells + column, -1)


def _per_slot(labels: np.ndarray, num_slots: int, axis: int | None) -> np.ndarray:
    """Number of pixels, or sum of row (axis 0) or column (axis 1) numbers, of every slot's mask: (V, K)."""
    size = labels.shape[-1]
    weight = None if axis is None else np.indices((size, size))[axis].ravel()
    return np.stack([np.bincount(x.ravel(), weight, num_slots)[:num_slots] for x in labels])


def slot_colours(labels: np.ndarray, images: np.ndarray, num_slots: int) -> np.ndarray:
    """Mean colour of the pixels of every slot.

    Args:
        labels: predicted label maps (V, M, M).
        images: (V, 3, S, S); every pixel takes the label nearest to its centre.
        num_slots: K.

    Returns:
        (V, K, 3); NaN for slots without a pixel.
    """
    size = images.shape[-1]
    nearest = ((np.arange(size) + 0.5) * labels.shape[-1] / size).astype(np.int64)
    found = np.full((len(labels), num_slots, 3), np.nan)
    for i, (label, image) in enumerate(zip(labels, images, strict=True)):
        flat = label[nearest][:, nearest].ravel()
        mass = np.bincount(flat, minlength=num_slots)[:num_slots]
        sums = [np.bincount(flat, channel.ravel(), num_slots)[:num_slots] for channel in image]
        there = mass > 0
        found[i, there] = (np.stack(sums, 1)[there]) / mass[there, None]
    return found


def cluster(vectors: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """k-means: (n, d) -> labels (n,), with as many clusters as there are vectors if ``count`` is larger."""
    if not len(vectors):
        return np.zeros(0, np.int64)
    count = min(count, len(np.unique(vectors, axis=0)))
    with threadpool_limits(1):
        return KMeans(count, n_init=1, random_state=seed).fit_predict(vectors.astype(np.float64))


def measure(
    codes: np.ndarray,
    slots: np.ndarray,
    categories: np.ndarray,
    cells: np.ndarray,
    colours: np.ndarray,
    codebook_size: int,
    seed: int = 0,
) -> dict[str, float]:
    """Agreement of codes, and of k-means clusters of the same slots, with category, position and colour.

    All is measured over the slots that cover an object, so that the three numbers can be compared with each other.
    k-means sees all slots of the set, as the codebook does in training; since it is fitted to the very slots that it is
    measured on and the codebook is not, it is a demanding reference.

    Args:
        codes: (V, K) code of every slot.
        slots: (V, K, d) the slots.
        categories: (V, K) true category of the object that a slot covers, 0 for none.
        cells: (V, K) position, see ``slot_cells``.
        colours: (V, K, 3) see ``slot_colours``.
        codebook_size: E, the number of clusters.
        seed: of k-means.

    Returns:
        ``code_category_ami``, ``kmeans_category_ami`` and so on for every target and measure, as shares, and
        ``object_slots``, the number of slots they were measured over.
    """
    chosen = categories > 0
    reference = cluster(slots.reshape(-1, slots.shape[-1]), codebook_size, seed).reshape(codes.shape)
    targets = {
        'category': categories[chosen],
        'position': cells[chosen],
        'colour': cluster(colours[chosen], COLOURS, seed),
    }
    result: dict[str, float] = {'object_slots': int(chosen.sum())}
    for name, found in (('code', codes[chosen]), ('kmeans', reference[chosen])):
        for target, truth in targets.items():
            result |= {f'{name}_{target}_{key}': value for key, value in agreement(truth, found).items()}
    return result


def code_meaning(model: SlotModel, data: EvalSet, seed: int = 0) -> dict[str, float]:
    """What the codes of a model's first-pass slots stand for, over a validation set; see ``measure``.

    A slot covers an object if the IoU of its first-pass mask with the object is at least 0.5.

    Returns:
        What ``measure`` does, and ``perplexity`` and ``codes_used``, over all slots of the set.

    Raises:
        ValueError: for a model without a codebook.
    """
    if model.codebook is None:
        raise ValueError('code_meaning needs a model with a codebook: top_down=True and quantize=True')
    count, size = model.config.num_slots, model.config.codebook_size
    parts = [(out.code_index.cpu(), out.first_slots.float().cpu()) for _, out in run_model(model, data, seed)]
    codes, slots = (torch.cat(x) for x in zip(*parts, strict=True))
    labels = predict(model, data, 'first', seed)
    hits = count_hits(codes.flatten(), size)
    found = measure(
        codes.numpy(),
        slots.numpy(),
        slot_categories(labels, data, count).numpy(),
        slot_cells(labels.numpy(), count),
        slot_colours(labels.numpy(), data.images.numpy(), count),
        size,
        seed,
    )
    return {'perplexity': float(perplexity(hits)), 'codes_used': int((hits > 0).sum()), **found}
