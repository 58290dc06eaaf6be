"""MOVi clips (Greff et al. 2022, Kubric) from the TFRecord files that their makers publish, without TensorFlow."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from topdown.data.base import Annotation, ImageSet, as_image, check_masks, label_map, open_image
from topdown.data.tfrecord import RecordFile
from topdown.datasets import DATASETS
from topdown.files import brief

FRAMES = 24
"""Of a clip."""
DRAWN = 9
"""Frames of a clip that training sees in one epoch."""


@dataclass
class ClipAnnotation:
    """The truth of one clip; an object keeps its number through all frames."""

    labels: np.ndarray  # (24, H, W) int64, 0 background, o > 0 the visible pixels of object o
    categories: np.ndarray  # (O,) int64 category ids of objects 1 to O, those never seen included


class Movi(ImageSet):
    """Frames of MOVi-C, -D or -E, every frame of every clip an image: 24 a clip, 250 clips for validation.

    An epoch of training has nine frames of every clip, drawn anew each time; validation has all of them.

    Args:
        root: folder with the TFRecord files, in it or in ``<name>/128x128/1.0.0/`` below it.
        split: 'train' or 'val' (the makers' validation split).
        image_size, mask_size, limit, protocol: see ``ImageSet``.
        name: movi_c, movi_d or movi_e.

    Raises:
        FileNotFoundError: if there are no files, saying how to get them.
        ValueError: if a file is damaged, or the set is not whole.
    """

    REMEDY = 'delete the file and get it again'
    frames = FRAMES

    def __init__(
        self,
        root: str | Path,
        split: str,
        image_size: int,
        mask_size: int,
        limit: int = 0,
        protocol: str = 'oclf',
        name: str = 'movi_c',
    ) -> None:
        if split not in ('train', 'val'):
            raise ValueError(f"split must be 'train' or 'val', got {split!r}")
        root, self.split = Path(root).expanduser(), split
        part = {'train': 'train', 'val': 'validation'}[split]
        pattern = f'{name}-{part}.tfrecord-*'
        places = (root / name / '128x128' / '1.0.0', root / '128x128' / '1.0.0', root / '1.0.0', root)
        found = next((files for p in places if (files := sorted(p.glob(pattern)))), None)
        if found is None:
            raise FileNotFoundError(f'{places[0] / pattern} is missing. {DATASETS[name].help}')
        counted = found[0].name.rpartition('-of-')[2]
        whole = int(counted) if counted.isdigit() else len(found)
        if len(found) != whole:
            raise ValueError(f'{found[0].parent} holds {len(found)} of {whole} files of {name} {split}: get the others')
        self.files = [RecordFile(path) for path in found]
        self.clips = [(f, r) for f, file in enumerate(self.files) for r in range(len(file))]
        ids = [clip * FRAMES + frame for clip in range(len(self.clips)) for frame in range(FRAMES)]
        names = {n: f'class {n}' for n in range(1, 100)}
        super().__init__(ids, names, image_size, mask_size, limit, protocol)

    @property
    def epoch_length(self) -> int:
        """Nine images a clip in training, else all."""
        if self.split != 'train':
            return super().epoch_length
        whole, rest = divmod(len(self), FRAMES)  # a limit may cut the last clip
        return whole * DRAWN + min(rest, DRAWN)

    def order(self, generator: torch.Generator) -> Tensor:
        """Numbers of the images of one epoch, shuffled: in training nine different frames of every clip."""
        if self.split != 'train':
            return super().order(generator)
        first = torch.arange(0, len(self), FRAMES)
        draw = torch.rand(len(first), FRAMES, generator=generator)
        draw[first[:, None] + torch.arange(FRAMES) >= len(self)] = 2  # frames that a limit left out come last
        chosen = (first[:, None] + draw.argsort(dim=1)[:, :DRAWN]).flatten()
        chosen = chosen[chosen < len(self)]
        return chosen[torch.randperm(len(chosen), generator=generator)]

    def clip_order(self, generator: torch.Generator, length: int) -> Tensor:
        """As ``order``, but runs of ``length`` frames from random ones on; the first clips give what remains."""
        runs, clips = self.epoch_length // length, len(self) // FRAMES
        first = torch.randperm(max(runs, clips), generator=generator)[:runs] % clips * FRAMES
        first += torch.randint(FRAMES - length + 1, (runs,), generator=generator)
        return (first[:, None] + torch.arange(length)).flatten()

    def path(self, i: int) -> Path:
        """The file that holds the frame."""
        return self.files[self.clips[self.ids[i] // FRAMES][0]].path

    def file_name(self, i: int) -> str:
        """Clip and frame, as if the frame were a file."""
        return f'clip{self.ids[i] // FRAMES:05d}_frame{self.ids[i] % FRAMES:02d}.png'

    def read_image(self, i: int) -> Tensor:
        """The frame (3, H, W) float32 in [0, 1]."""
        frames = self._fields(i, {'video'})['video']
        return as_image(self._open(frames, i, _colours))

    def read_clip(self, clip: int) -> Tensor:
        """All frames of a clip (24, 3, H, W) float32 in [0, 1]."""
        first = clip * FRAMES
        frames = self._fields(first, {'video'})['video']
        return torch.stack([as_image(self._open(frames, first + t, _colours)) for t in range(FRAMES)])

    def annotation(self, i: int) -> Annotation:
        """Visible pixels of every object in the frame; objects keep their order through the frames of a clip."""
        fields = self._fields(i, {'segmentations', 'instances/category'})
        labels = self._labels(fields['segmentations'], i)
        objects = [int(o) for o in np.unique(labels) if o]
        check_masks(self.path(i), len(objects), labels.size)
        masks = labels[None] == np.array(objects, labels.dtype)[:, None, None]
        known = self._categories(fields, i, max(objects, default=0))
        return Annotation(masks, known[np.array(objects, np.int64) - 1], np.zeros(len(objects), bool))

    def read_clip_annotation(self, clip: int) -> ClipAnnotation:
        """Labels of all frames of a clip."""
        first = clip * FRAMES
        fields = self._fields(first, {'segmentations', 'instances/category'})
        labels = np.stack([self._labels(fields['segmentations'], first + t) for t in range(FRAMES)])
        return ClipAnnotation(labels, self._categories(fields, first, int(labels.max())))

    def _categories(self, fields: dict[str, list[bytes] | np.ndarray], i: int, objects: int) -> np.ndarray:
        """(O,) int64, from 1; 1 for all objects of a file that says nothing about categories."""
        if 'instances/category' not in fields:
            return np.ones(objects, np.int64)
        known = np.asarray(fields['instances/category'], np.int64) + 1
        if objects > len(known):
            raise ValueError(
                f'{self.path(i)}: {self.file_name(i)} shows object {objects}, and its clip has {len(known)} categories'
            )
        return known

    def _fields(self, i: int, names: set[str]) -> dict[str, list[bytes] | np.ndarray]:
        file, record = self.clips[self.ids[i] // FRAMES]
        found = self.files[file].example(record, names)
        missing = {n for n in names if n != 'instances/category'} - set(found)
        whole = {n for n, values in found.items() if getattr(values, 'dtype', None) == np.int64}
        missing |= whole ^ ({'instances/category'} & set(found))
        if missing:
            raise ValueError(
                f'{self.path(i)}, record {record}, has no {", ".join(sorted(missing))}: it is not a MOVi file'
            )
        frames = max((len(found[n]) for n in ('video', 'segmentations') if n in found), default=0)
        if frames > FRAMES:
            raise ValueError(f'{self.path(i)}, record {record}, has {frames} frames; clips of MOVi have {FRAMES}')
        return found

    def _labels(self, frames: list[bytes], i: int) -> np.ndarray:
        """A frame of labels (H, W) int64."""
        found, fault = self._open(frames, i, label_map)
        if fault:
            raise ValueError(f'{self.path(i)}: the labels of {self.file_name(i)}: the frame {fault}')
        return found

    def _open(self, frames: list[bytes], i: int, read: Callable[[Image.Image], Any]) -> Any:
        frame = self.ids[i] % FRAMES
        try:
            with open_image(io.BytesIO(frames[frame]), ['PNG']) as image:
                if image.size != open_image(io.BytesIO(frames[0]), ['PNG']).size:
                    raise ValueError('it has another size than the first')
                return read(image)
        except Exception as error:  # a decoder raises whatever a damaged file makes it stumble over
            raise ValueError(
                f'{self.path(i)}: frame {frame} of {self.file_name(i)} cannot be read ({brief(error)})'
            ) from error


def _colours(image: Image.Image) -> np.ndarray:
    return np.array(image.convert('RGB'))
