"""What a data set holds, in numbers and in images, and how fast it is read."""

from __future__ import annotations

import time

import numpy as np
from tqdm.auto import tqdm

from topdown.data.base import ImageSet, one_thread

SHOWN = 6
"""Images of a figure."""


def statistics(data: ImageSet, progress: bool = True) -> dict[str, object]:
    """One row of numbers about a split, from the true masks at their own size; nothing is cut.

    Crowd regions are counted, but are not objects. Shares are percent: ``size_*`` quartiles of an object's share of its
    image; ``overlapping`` of images with a pixel of two objects; ``covered`` and ``unknown`` of an image's
    pixels, the mean over images.

    Args:
        data: the split.
        progress: show a bar.

    Raises:
        ValueError: if it has no images.
    """
    if not len(data):
        raise ValueError('there are no images to describe: check --limit and the folder')
    counts, sizes, categories, crowds = [], [], set(), 0
    overlapping, covered, unknown = [], [], []
    for i in tqdm(range(len(data)), desc='reading true masks', disable=not progress):
        truth = data.annotation(i)
        masks = truth.masks[~truth.crowd]
        times = masks.sum(0, dtype=np.int32)
        counts.append(len(masks))
        sizes += masks.mean((1, 2)).tolist()
        overlapping.append(bool((times > 1).any()))
        covered.append((times > 0).mean())
        unknown.append(0.0 if truth.void is None else truth.void.mean())
        crowds += int(truth.crowd.sum())
        categories |= set(truth.categories[~truth.crowd].tolist())
    low, middle, high = np.percentile(sizes, (25, 50, 75)) if sizes else [np.nan] * 3
    return {
        'images': len(data), 'objects': sum(counts), 'objects_mean': round(float(np.mean(counts)), 2),
        'objects_min': min(counts), 'objects_max': max(counts), 'size_q25': round(100 * float(low), 2),
        'size_median': round(100 * float(middle), 2), 'size_q75': round(100 * float(high), 2),
        'overlapping': round(100 * float(np.mean(overlapping)), 1), 'covered': round(100 * float(np.mean(covered)), 1),
        'unknown': round(100 * float(np.mean(unknown)), 1), 'crowds': crowds, 'categories': len(categories),
    }  # fmt: skip


def first_images(data: ImageSet, count: int = SHOWN) -> tuple[np.ndarray, np.ndarray]:
    """The first images, cut, and labels of their objects, later ones over earlier ones, crowd regions left out.

    Returns:
        (B, S, S, 3) in [0, 1] and (B, M, M) int, 0 for what is no object.
    """
    images, labels = [], []
    for i in range(min(count, len(data))):
        truth = data.annotation(i).cut(data.mask_size, data.protocol.mask_resize)
        found = np.zeros(truth.masks.shape[1:], int)
        for o in np.flatnonzero(~truth.crowd):
            found[truth.masks[o]] = o + 1
        images.append(data.shown(i).permute(1, 2, 0).numpy())
        labels.append(found)
    return np.stack(images), np.stack(labels)


def reading_speed(data: ImageSet) -> float:
    """Images a second that one loader process reads and cuts for training: on one thread, as those do."""
    with one_thread():
        data.view(0)  # what is done once is not counted
        began = time.perf_counter()
        for i in range(len(data)):
            data.view(i)
        return len(data) / (time.perf_counter() - began)
