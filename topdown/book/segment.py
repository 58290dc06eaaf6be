"""Segments of image files, written as labels and overlays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from topdown.book.plots import overlay
from topdown.evaluate.segment import NOT_SEEN, segment_image
from topdown.files import fresh
from topdown.train.loop import load_run


def segment_files(
    checkpoint: Path, images: Sequence[Path], out: Path, size: int | str = 'image', source: str = 'decoder'
) -> None:
    """Segment single images: a PNG of labels and an overlay for each, in ``out``.

    Raises:
        FileNotFoundError, ValueError: see ``load_run``, ``segment_targets`` and ``segment_image``.
    """
    model, encoder, saved = load_run(checkpoint)
    for path, target in zip(images, segment_targets(images, out), strict=True):
        image, labels = segment_image(path, model, encoder, size, source, saved.config.data.protocol)
        shown = torch.nn.functional.interpolate(image[None], labels.shape, mode='bilinear', antialias=True)[0]
        painted = overlay(shown.permute(1, 2, 0).numpy().clip(0, 1), labels, clear=NOT_SEEN)
        for file, array in ((target, labels), (overlay_path(target), (255 * painted).round())):
            with fresh(file) as part:
                Image.fromarray(array.astype(np.uint8)).save(part, 'PNG')
        seen = labels[labels != NOT_SEEN]
        print(f'{target}: {len(np.unique(seen))} segments, {1 - seen.size / labels.size:.0%} of pixels not seen')


def segment_targets(images: Sequence[Path], out: Path) -> list[Path]:
    """Where the labels of every image go: ``out`` and its path below the folder that all images share.

    Images that differ in their ending alone keep it in the name.

    Raises:
        ValueError: if a result would take the place of an image, or two results of each other.
    """
    whole = [path.expanduser().resolve() for path in images]
    shared = Path(os.path.commonpath([path.parent for path in whole]))
    stems = [path.relative_to(shared).with_suffix('') for path in whole]
    names = [path.relative_to(shared) if stems.count(stem) > 1 else stem for path, stem in zip(whole, stems)]
    targets = [out / name.with_name(f'{name.name}.png') for name in names]
    written = [path.resolve() for target in targets for path in (target, overlay_path(target))]
    if set(written) & set(whole):
        raise ValueError(
            f'{min(set(written) & set(whole))} is an image and would be written over: choose another --out'
        )
    if len(set(written)) < len(written):
        twice = next(path for path in written if written.count(path) > 1)
        raise ValueError(f'{twice} would be written twice: name every image once')
    return targets


def overlay_path(target: Path) -> Path:
    """Where the overlay goes, beside its labels."""
    return target.with_name(f'{target.stem}_overlay.png')
