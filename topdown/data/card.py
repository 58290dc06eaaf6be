"""What a data set holds, in numbers and in images, and how fast it is read."""

from __future__ import annotations

import copy
import importlib.util
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional as transforms
from tqdm.auto import tqdm

from topdown.data import open_whole
from topdown.data.base import ImageSet, load, one_thread
from topdown.files import write_text
from topdown.precision import processor

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


def reading_speed(data: ImageSet, workers: int = 0, batch: int = 16) -> float:
    """Images a second that are read and cut for training, each process on one thread.

    Args:
        data: the images, of which there must be some batches for every worker.
        workers: loader processes; 0 reads in this one. Their start, and their first batches, are not counted.
        batch: images that a loader process hands over at a time.
    """
    if workers:
        plan = [[(i,) for i in range(first, min(first + batch, len(data)))] for first in range(0, len(data), batch)]
        stream = load(data, plan, num_workers=workers)
        for _ in range(min(workers, len(plan) - 1)):
            next(stream)
        began = time.perf_counter()
        count = sum(len(images) for images in stream)
        return count / (time.perf_counter() - began)
    with one_thread():
        data.view(0)  # what is done once is not counted
        began = time.perf_counter()
        for i in range(len(data)):
            data.view(i)
        return len(data) / (time.perf_counter() - began)


class _Torchvision:
    """The images of a set as much public training code reads them, to compare speed with: torchvision's decoder and, on
    tensors, its bicubic resize without antialiasing."""

    def __init__(self, data: ImageSet) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def view(self, i: int) -> Tensor:
        image, size = decode_image(str(self.data.path(i)), ImageReadMode.RGB), [self.data.image_size] * 2
        image = transforms.to_dtype(image, torch.float32, scale=True)
        image = transforms.resize(image, size[:1], transforms.InterpolationMode.BICUBIC, antialias=False)
        return transforms.center_crop(image, size).clamp_(0, 1)


def write_speed(
    name: str, root: Path | None, count: int, workers: Sequence[int], protocol: str, table: Path | None
) -> None:
    """Print images a second of a data set's training split, by way of reading and number of loader processes, and
    write them to a CSV file: ``topdown data speed``."""
    data = open_whole(name, root, 'train', count, protocol=protocol)
    ways = {'pillow': data, 'opencv': copy.copy(data), 'torchvision': _Torchvision(data)}
    ways['opencv'].image_reader = 'opencv'
    if importlib.util.find_spec('cv2') is None or data.protocol.image_resize != 'bicubic':
        del ways['opencv']
    rows = pd.DataFrame([
        {'reader': way, 'workers': number, 'images_per_s': round(reading_speed(images, number), 1)}
        for number in workers for way, images in ways.items()
    ])  # fmt: skip
    print(f'{name}, {protocol}, {len(data)} images to {data.image_size} x {data.image_size}')
    print(rows.to_string(index=False))
    if table:
        rows = rows.assign(dataset=name, protocol=protocol, images=len(data), cores=os.cpu_count(), device=processor())
        write_text(table, rows.to_csv(index=False))
