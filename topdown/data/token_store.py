"""Tokens of a frozen encoder, computed once and kept on disk.

One file per view (plain, mirrored), memory-mapped and in bfloat16, the precision the encoder computes them in; several
processes can read it at once. A store belongs to one encoder (weights, block, norm), one list of images and one way of
cutting them: its folder is named after the hash of all of these, wherever the images lie, so that a stale store is
never found. Of every image, the store remembers size, time and digest of its file and a digest of its tokens. Whatever
does not fit when a store is opened is encoded, and nothing else: images not done before an interruption, images
that were replaced, tokens that were damaged.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from topdown import distributed
from topdown.data.base import ImageSet, load
from topdown.files import fresh, locked

VERSION = 2


CHUNK = 256
"""Images between two marks of progress."""


ROW = np.dtype([('size', 'i8'), ('time', 'i8'), ('content', 'u8'), ('tokens', 'u8')])
"""What is remembered of an image: size, time and digest of its file, digest of its tokens; zeros: not stored yet."""


def store_key(data: ImageSet, fingerprint: str) -> str:
    """Hash of everything that tokens depend on but the images' content: encoder, names, and how images are cut."""
    names = [(str(data.ids[i]), data.file_name(i)) for i in range(len(data))]
    content = json.dumps({
        'version': VERSION, 'encoder': fingerprint, 'size': data.image_size, 'protocol': data.protocol.name,
        'images': hashlib.sha256(json.dumps(names).encode()).hexdigest(),
        **({'recipe': data.recipe} if data.recipe else {}),
    }, sort_keys=True)  # fmt: skip
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def stored_tokens(
    data: ImageSet,
    encode: Callable[[Tensor], Tensor],
    fingerprint: str,
    shape: tuple[int, int],
    folder: str | Path,
    flip: bool,
    workers: int = 0,
    progress: bool = True,
) -> list[Tensor]:
    """Tokens of every image, plain and, if asked for, mirrored; computed where they are not stored yet.

    Opening reads every stored token once, to compare digests. One process writes at a time; others wait for it.

    Args:
        data: the images.
        encode: images (B, 3, S, S) -> tokens (B, N, D).
        fingerprint: of the encoder.
        shape: (N, D).
        folder: parent of all stores.
        flip: whether the mirrored view is wanted.
        workers: processes that read images.
        progress: show bars, and announce the size beforehand.

    Returns:
        One tensor (images, N, D) bfloat16 a view, memory-mapped.

    Raises:
        OSError: if the disk is too small.
        ValueError: if the encoder makes other tokens of the images now.
    """
    folder, files, views = Path(folder).expanduser() / store_key(data, fingerprint), _Files(data), []
    for name in ('tokens', 'tokens-mirrored') if flip else ('tokens',):

        def look(name: str = name) -> _View:
            place = next(place for n in itertools.count() if files.mostly(place := folder / str(n)))
            return _View(place / f'{name}.bin', files, shape, progress)

        view = look()
        if len(view.to_do) or (view.moved.any() and os.access(view.marks, os.W_OK)):
            with locked(folder, wait=True):
                view = look()  # another process may have written in the meantime
                view.write(encode, name != 'tokens', workers)
        views.append(torch.from_numpy(view.tokens('c')).view(torch.bfloat16))
        _verify(data, encode, views[-1], view.path, name != 'tokens')
    return views


class _Files:
    """Size, time and digest of every image's file."""

    def __init__(self, data: ImageSet) -> None:
        self.data, self.paths = data, [data.path(i) for i in range(len(data))]
        found = {path: path.stat() for path in set(self.paths) if path.is_file()}  # skip_corrupt passes over others
        stamps = [(f.st_size, f.st_mtime_ns) if (f := found.get(path)) else (-1, 0) for path in self.paths]
        self.size, self.time = np.array(stamps, np.int64).T

    def row(self, i: int) -> tuple[int, int, int]:
        """Size, time and digest of one."""
        return int(self.size[i]), int(self.time[i]), _content(self.paths[i], int(self.time[i]))

    def same(self, rows: np.ndarray) -> np.ndarray:
        """Which rows are of these files: the same size, and the same time or, where that differs, content."""
        same = rows['size'] == self.size
        for i in np.flatnonzero(same & (rows['time'] != self.time)):
            same[i] = rows['content'][i] == self.row(i)[2]
        return same

    def mostly(self, place: Path) -> bool:
        """Whether at least half of what a store holds is of these files: else it is of other images of these names."""
        rows = _read_rows(place / 'tokens.rows', len(self.paths))
        known = rows['tokens'] > 0
        return 2 * (known & self.same(rows)).sum() >= known.sum()


class _View:
    """One view's tokens, in ``path``, and what is remembered beside them, one row per image, as it was looked at."""

    def __init__(self, path: Path, files: _Files, shape: tuple[int, int], progress: bool) -> None:
        self.path, self.marks, self.files, self.progress = path, path.with_suffix('.rows'), files, progress
        self.shape = (len(files.paths), *shape)
        self.bytes = int(np.prod(self.shape)) * 2
        whole = path.is_file() and path.stat().st_size == self.bytes
        self.rows = _read_rows(self.marks if whole else None, self.shape[0])
        good = (self.rows['tokens'] > 0) & files.same(self.rows)
        self.moved = good & (self.rows['time'] != files.time)  # the same content at another time
        self.damaged: list[int] = []
        if good.any() and distributed.is_main():
            array = self.tokens('r')
            bar = tqdm(np.flatnonzero(good), desc=f'digests of {path.stem}', disable=not progress, delay=2)
            self.damaged = [i for i in bar if _digest(array[i].tobytes()) != self.rows['tokens'][i]]
        good[self.damaged] = False
        self.to_do = np.flatnonzero(~good)

    def tokens(self, mode: str) -> np.ndarray:
        """The stored numbers, memory-mapped."""
        return np.memmap(self.path, np.int16, mode, shape=self.shape)

    def write(self, encode: Callable[[Tensor], Tensor], mirrored: bool, workers: int) -> None:
        """Encode what has to be, tokens before their rows, so that what an interruption leaves is never trusted."""
        self.path.parent.mkdir(exist_ok=True)
        new = int((self.rows['tokens'] == 0).sum())
        need, free = new * self.bytes // self.shape[0], shutil.disk_usage(self.path.parent).free
        if need > free:
            raise OSError(f'{self.path.parent} has {free / 1e9:.1f} GB free, the tokens need {need / 1e9:.1f} GB')
        if self.damaged:
            warnings.warn(f'{self.path}: tokens of {len(self.damaged)} images are damaged: encoded anew', stacklevel=3)
        if self.progress and len(self.to_do):
            count = f'{new} of {self.shape[0]} images to encode, {len(self.to_do) - new} to encode anew'
            print(f'{self.path}: {self.bytes / 1e9:.2f} GB of tokens, {count}')
        self.rows['time'][self.moved] = self.files.time[self.moved]
        with fresh(self.marks) as place:
            self.rows.tofile(place)
        with self.path.open('ab') as file:
            file.truncate(self.bytes)
        rows, array = np.memmap(self.marks, ROW, 'r+'), self.tokens('r+')
        parts = [self.to_do[first : first + CHUNK] for first in range(0, len(self.to_do), CHUNK)]
        images = load(self.files.data, [[(int(i), mirrored) for i in part] for part in parts], num_workers=workers)
        with tqdm(total=len(self.to_do), desc=self.path.stem, unit='image', disable=not self.progress) as bar:
            for part, batch in zip(parts, images, strict=True):
                found = encode(batch).to(torch.bfloat16).cpu().view(torch.int16).numpy()
                array[part] = found
                array.flush()
                for i, row in zip(part, found, strict=True):
                    rows[i] = (*self.files.row(i), _digest(row.tobytes()))
                rows.flush()
                bar.update(len(part))


def _read_rows(path: Path | None, count: int) -> np.ndarray:
    rows = np.fromfile(path, ROW) if path and path.is_file() else np.zeros(0, ROW)
    return rows if len(rows) == count else np.zeros(count, ROW)


def _digest(content: bytes) -> int:
    return int.from_bytes(hashlib.sha256(content).digest()[:8], 'little') or 1


@functools.lru_cache(2**20)
def _content(path: Path, time: int) -> int:
    """Digest of a file as it was at some time."""
    return _digest(path.read_bytes()) if path.is_file() else 0


def _verify(data: ImageSet, encode: Callable[[Tensor], Tensor], tokens: Tensor, path: Path, mirrored: bool) -> None:
    """The first and the last image are encoded again."""
    rows = sorted({0, len(data) - 1})
    now = encode(torch.stack([data.view(i, mirrored) for i in rows])).float().cpu()
    worst = float((now - tokens[rows].float()).abs().max() / now.abs().max().clamp(min=1e-6))
    if not worst < 0.05:  # bfloat16 and the batch's size leave about one percent
        raise ValueError(
            f'{path} does not hold the tokens that the encoder makes of these images now (relative difference '
            f'{worst:.2f}): it was written by another version of torch or timm; delete its folder'
        )
