"""Tokens of a frozen encoder, computed once and kept on disk.

One file a view (plain, mirrored), memory-mapped and in bfloat16, the precision the encoder computes them in; several
processes can read it at once. A store belongs to one encoder (weights, block, norm), one list of pictures and one way
of cutting them: its folder is named after the hash of all of these, so that a stale store is never found. It is
written in pieces and resumes after an interruption.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from topdown.data.base import PictureSet, one_thread
from topdown.files import write_text

VERSION = 1


CHUNK = 256
"""Pictures between two marks of progress."""


class _Pictures(Dataset):
    """Cut pictures from a first one on."""

    def __init__(self, data: PictureSet, first: int, flip: bool) -> None:
        self.data, self.first, self.flip = data, first, flip

    def __len__(self) -> int:
        return len(self.data) - self.first

    def __getitem__(self, i: int) -> Tensor:
        return self.data.view(self.first + i, self.flip)

    def __getitems__(self, indices: list[int]) -> list[Tensor]:
        with one_thread():
            return [self[i] for i in indices]


def store_key(data: PictureSet, fingerprint: str) -> str:
    """Hash of everything that tokens depend on: encoder, pictures and how they are cut."""
    content = json.dumps({
        'version': VERSION, 'encoder': fingerprint, 'size': data.image_size, 'protocol': data.protocol.name,
        'ids': hashlib.sha256(json.dumps([str(i) for i in data.ids]).encode()).hexdigest(),
        'folder': str(data.path(0).parent.resolve()),
    }, sort_keys=True)  # fmt: skip
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def stored_tokens(
    data: PictureSet,
    encode: Callable[[Tensor], Tensor],
    fingerprint: str,
    shape: tuple[int, int],
    folder: str | Path,
    flip: bool,
    workers: int = 0,
    progress: bool = True,
) -> list[Tensor]:
    """Tokens of every picture, plain and, if asked for, mirrored; computed where they are not stored yet.

    Args:
        data: the pictures.
        encode: images (B, 3, S, S) -> tokens (B, N, D).
        fingerprint: of the encoder.
        shape: (N, D).
        folder: parent of all stores.
        flip: whether the mirrored view is wanted.
        workers: processes that read pictures.
        progress: show a bar, and announce the size beforehand.

    Returns:
        One tensor (pictures, N, D) bfloat16 a view, memory-mapped.

    Raises:
        OSError: if the disk is too small.
        ValueError: if a store does not hold what the encoder makes of the pictures now.
    """
    place = Path(folder).expanduser() / store_key(data, fingerprint)
    place.mkdir(parents=True, exist_ok=True)
    size = len(data) * shape[0] * shape[1] * 2
    views = []
    for mirrored in (False, True) if flip else (False,):
        path = place / f'tokens{"-mirrored" if mirrored else ""}.bin'
        if not path.is_file():
            _write(data, encode, shape, path, mirrored, size, workers, progress)
        if path.stat().st_size != size:
            raise ValueError(f'{path} has {path.stat().st_size} bytes instead of {size}: delete it')
        array = np.memmap(path, np.int16, 'c', shape=(len(data), *shape))
        tokens = torch.from_numpy(array).view(torch.bfloat16)
        _verify(data, encode, tokens, path, mirrored)
        views.append(tokens)
    return views


def _write(
    data: PictureSet,
    encode: Callable[[Tensor], Tensor],
    shape: tuple[int, int],
    path: Path,
    mirrored: bool,
    size: int,
    workers: int,
    progress: bool,
) -> None:
    """To ``<path>.part``, with the number of pictures done in ``<path>.done``; moved into place when whole."""
    part, mark = path.with_suffix('.part'), path.with_suffix('.done')
    done = int(mark.read_text()) if mark.is_file() and part.is_file() else 0
    free = shutil.disk_usage(path.parent).free + (part.stat().st_size if part.is_file() else 0)
    if size > free:
        raise OSError(f'{path.parent} has {free / 1e9:.1f} GB free, the tokens need {size / 1e9:.1f} GB')
    if progress:
        print(f'{path}: {size / 1e9:.2f} GB of tokens, {done} of {len(data)} pictures done')
    with part.open('r+b' if done else 'wb') as file:
        file.truncate(size)
    array = np.memmap(part, np.int16, 'r+', shape=(len(data), *shape))
    loader = DataLoader(
        _Pictures(data, done, mirrored), CHUNK, num_workers=workers, generator=torch.Generator(), shuffle=False
    )
    bar = tqdm(total=len(data), initial=done, desc=path.stem, unit='picture', disable=not progress)
    with bar:
        for images in loader:
            tokens = encode(images).to(torch.bfloat16).cpu()
            array[done : done + len(tokens)] = tokens.view(torch.int16).numpy()
            array.flush()
            done += len(tokens)
            write_text(mark, str(done))
            bar.update(len(tokens))
    del array
    os.replace(part, path)
    mark.unlink()


def _verify(data: PictureSet, encode: Callable[[Tensor], Tensor], tokens: Tensor, path: Path, mirrored: bool) -> None:
    """The first and the last picture are encoded again."""
    rows = sorted({0, len(data) - 1})
    now = encode(torch.stack([data.view(i, mirrored) for i in rows])).float().cpu()
    worst = float((now - tokens[rows].float()).abs().max() / now.abs().max().clamp(min=1e-6))
    if not worst < 0.05:  # bfloat16 and the batch's size leave about one percent
        raise ValueError(
            f'{path} does not hold the tokens of these pictures (relative difference {worst:.2f}): pictures were '
            'changed under their names, or the file is damaged; delete it'
        )
