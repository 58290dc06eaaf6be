"""What a data set is made of, so that a run can tell whether it still sees what it saw."""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

import torch
from torch import Tensor

from topdown.data.base import ImageSet

MOST_BYTES = 1 << 24
"""Read of a file at most: more than an image has, and the first record of a file of records."""


class Made(NamedTuple):
    """What a split is made of; where it lies is left out."""

    images: Tensor  # (images, 2) int64 in their order: hash of id and name, bytes of the file (-1: there is none)
    content: list[str]  # hashes of the first, middle and last file, and of the categories


def made_of(data: ImageSet) -> Made:
    """Look at every file's size, and into three files."""
    sizes, rows = {}, []
    for i, number in enumerate(data.ids):
        path = data.path(i)
        if path not in sizes:  # files of records hold many images
            sizes[path] = path.stat().st_size if path.is_file() else -1
        named = hashlib.sha256(f'{number}\0{data.file_name(i)}'.encode('utf-8', 'surrogatepass')).digest()
        rows.append([int.from_bytes(named[:8], 'big', signed=True), sizes[path]])
    content = [_sample(data, i) for i in _samples(data)]
    content.append(_hash(json.dumps(sorted(data.category_names.items())).encode()))
    return Made(torch.tensor(rows, dtype=torch.int64).view(-1, 2), content)


def digest(made: dict[str, Made]) -> str:
    """One hash of all splits."""
    parts = [split.encode() + part.images.numpy().tobytes() + json.dumps(part.content).encode()
             for split, part in sorted(made.items())]  # fmt: skip
    return _hash(b''.join(parts))


def difference(then: Made, now: Made, data: ImageSet) -> str:
    """What differs between two states of a data set, of which ``data`` is the one now; empty if nothing does."""
    if len(then.images) != len(now.images):
        return f'{len(now.images)} images instead of {len(then.images)}'
    for column in (0, 1):
        changed = (then.images[:, column] != now.images[:, column]).nonzero()
        if len(changed):
            i = int(changed[0])
            what = f'image {data.ids[i]} ({data.file_name(i)})'
            if column == 0:
                return f'{what}, number {i + 1} of {len(now.images)}, is there instead of another'
            return f'the file of {what} has {int(now.images[i, 1])} bytes instead of {int(then.images[i, 1])}'
    for i, old, new in zip([*_samples(data), None], then.content, now.content):
        if old != new:
            return 'the categories are others' if i is None else f'the content of {data.path(i).name} is another'
    return ''


def _samples(data: ImageSet) -> list[int]:
    return [0, len(data) // 2, len(data) - 1]


def _sample(data: ImageSet, i: int) -> str:
    """Hash of an image's file, or of the image where there is no file."""
    try:
        with data.path(i).open('rb') as file:
            return _hash(file.read(MOST_BYTES))
    except OSError:
        pass
    try:
        return _hash(data.read_image(i).numpy().tobytes())
    except (OSError, ValueError):
        return 'unreadable'


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
