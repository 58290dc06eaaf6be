"""Toybox in the manner of other data sets, so that chapters on them can be run with nothing to download.

``WideImages`` has what PASCAL VOC has and Toybox lacks: images wider than high, so that a random crop has room, and
a border of unknown truth around every object. ``make_clips`` writes what MOVi is: clips of moving objects, in MOVi's
own format, so that MOVi's own reader reads them.
"""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from torch import Tensor
from tqdm.auto import tqdm

from topdown.data.base import Annotation
from topdown.data.coco import CocoInstances
from topdown.data.movi import FRAMES
from topdown.data.tfrecord import make_example, write_record
from topdown.toybox.make import default_root
from topdown.toybox.scenes import ToyboxConfig, motion_at

BORDER = 2
"""Width of the border of unknown truth, in pixels, half of it on the object; VOC's is about five of 500."""
CLIPS = 'toybox_clips'


class WideImages(CocoInstances):
    """Toybox cut to the middle three quarters of its rows: 4 to 3, as most of VOC's images.

    Objects end at the cut. Pixels within ``BORDER`` / 2 of an object's outline belong to no object and are void.
    Arguments as for ``CocoInstances``.
    """

    def read_image(self, i: int) -> Tensor:
        """The cut image (3, 3 S / 4, S)."""
        image = super().read_image(i)
        return image[:, _middle(image.shape[1])]

    def annotation(self, i: int) -> Annotation:
        """What the cut shows of every object, without its border; objects of which nothing is left are dropped."""
        truth = super().annotation(i)
        rows = _middle(truth.masks.shape[1])
        masks = truth.masks[:, rows]
        reach = {'iterations': BORDER // 2}
        void = np.zeros(masks.shape[1:], bool)
        for mask in masks:
            void |= ndimage.binary_dilation(mask, **reach) & ~ndimage.binary_erosion(mask, border_value=1, **reach)
        masks = masks & ~void
        seen = masks.any((1, 2))
        return Annotation(masks[seen], truth.categories[seen], truth.crowd[seen], void)


def _middle(height: int) -> slice:
    return slice(height // 8, height - height // 8)


def make_clips(config: ToyboxConfig, root: str | Path | None = None, progress: bool = True) -> Path:
    """Write clips of moving toys as TFRecord files of MOVi's format, if they are not there yet.

    Args:
        config: look of the frames; ``num_train`` and ``num_val`` count clips.
        root: parent folder; the clips lie in ``root/clips-<config.key>``. ``default_root()`` if None or empty.
        progress: show a bar.

    Returns:
        The folder, for ``Movi(folder, split, ..., name='toybox_clips')``.
    """
    parent = Path(root).expanduser() if root else default_root()
    folder = parent / f'clips-{config.key}'
    if folder.is_dir():
        return folder
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='.clips-', dir=parent) as temporary:
        part = Path(temporary) / 'clips'
        part.mkdir()
        bar = tqdm(total=config.num_train + config.num_val, desc='making clips', unit='clip', disable=not progress)
        with bar:
            for split, name, count in (('train', 'train', config.num_train), ('val', 'validation', config.num_val)):
                with (part / f'{CLIPS}-{name}.tfrecord-00000-of-00001').open('wb') as file:
                    for index in range(count):
                        write_record(file, _clip(config, split, index))
                        bar.update()
        if not folder.is_dir():  # another process may have been faster
            os.replace(part, folder)
    return folder


def _clip(config: ToyboxConfig, split: str, index: int) -> bytes:
    """One clip as MOVi stores it: PNG frames and label maps, and the category of every object."""
    clip = motion_at(config, split, index, FRAMES)
    return make_example({
        'video': [_png(frame) for frame in clip.frames],
        'segmentations': [_png(labels) for labels in clip.labels],
        'instances/category': clip.categories.astype(np.int64) - 1,
    })  # fmt: skip


def _png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, 'PNG', compress_level=3)
    return buffer.getvalue()
