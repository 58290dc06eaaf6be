"""One's own images without any labels, and tokens that any encoder made."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from topdown.data.base import Annotation, ImageSet, read_labels
from topdown.data.labels import LabelFolder, names_below, need_folders, part_of
from topdown.datasets import DATASETS
from topdown.files import brief

HELD_OUT = 0.1
"""Share of images that validation has, where nobody parted them."""


class UnlabelledImages(ImageSet):
    """Images in a folder and the folders below it, without labels: nothing is scored.

    If it holds ``train/`` and ``val/``, these are the splits. Otherwise an image belongs to validation by a hash of its
    path, so that it stays there when others come: about ``HELD_OUT`` of them do, one at least.

    Args:
        root: the folder.
        split: 'train' or 'val'.
        image_size, mask_size, limit, protocol: see ``ImageSet``.

    Raises:
        FileNotFoundError: if there is no such folder, or there are too few images.
    """

    labelled = False

    def __init__(self, root: str | Path, split: str, image_size: int, mask_size: int, limit=0, protocol='oclf') -> None:
        self.folder, part, remedy = Path(root).expanduser(), part_of(split), DATASETS['images'].help
        need_folders((self.folder,), remedy)
        parted = all((self.folder / name).is_dir() for name in ('train', 'val'))
        self.folder = self.folder / part if parted else self.folder
        names = names_below(self.folder)
        if len(names) < (1 if parted else 2):
            raise FileNotFoundError(f'{self.folder} holds {len(names)} image(s). {remedy}')
        if not parted:
            place = {name: hashlib.sha256(name.encode('utf-8', 'surrogatepass')).digest() for name in names}
            order = sorted(names, key=place.get)  # the first is held out whatever its hash, the last is not
            held = {name for name in order[:-1] if place[name][0] < HELD_OUT * 256} | {order[0]}
            names = [name for name in names if (name in held) == (split == 'val')]
        super().__init__(names, {}, image_size, mask_size, limit, protocol)

    def path(self, i: int) -> Path:
        """The image's file."""
        return self.folder / self.ids[i]

    def file_name(self, i: int) -> str:
        """Path below the folder."""
        return self.ids[i]

    def annotation(self, i: int) -> Annotation:
        """No object."""
        return super().annotation(i)


class TokenFolder(LabelFolder):
    """Tokens that any encoder made, a memory-mapped ``.npy`` file an image, and label maps, if there are any.

    A file holds (N, D) floating numbers, the tokens of a square grid row by row, or (R, R, D), finite ones. A label map
    is of the square that the encoder saw, or of an image whose square in the middle that is.

    Args:
        root: folder with ``train/`` and ``val/``, each with ``tokens/`` and perhaps ``labels/``.
        split: 'train' or 'val'.
        image_size: R.
        mask_size, limit, protocol, void: see ``LabelFolder``.
        feature_size: D; 0 for whatever R and D the files have.

    Raises:
        FileNotFoundError: if a folder is missing, naming it and the remedy.
        ValueError: if a file holds no tokens, or tokens of another shape.
    """

    dataset, kind, suffixes = 'tokens', 'tokens', ('.npy',)

    def __init__(
        self, root: str | Path, split: str, image_size: int, *sizes: object, void=-1, feature_size=0, **options: object
    ) -> None:
        self.labelled = (Path(root).expanduser() / split / 'labels').is_dir()
        super().__init__(root, split, image_size, *sizes, void=void, **options)
        first = self._tokens(0).shape
        wanted = (image_size, image_size, feature_size) if feature_size else first
        fix = f'set image_size={first[0]} and feature_size={first[2]}' if first != wanted else 'all must be alike'
        for i in range(len(self)):
            if (found := self._tokens(i).shape) != wanted:
                raise ValueError(f'{self.path(i)} holds tokens of shape {found} instead of {wanted}: {fix}')
        self.image_size = first[0]

    def _tokens(self, i: int) -> np.ndarray:
        """(R, R, D), memory-mapped."""
        try:
            found = np.lib.format.open_memmap(self.path(i), mode='r')  # unlike np.load, it never unpickles
        except Exception as error:  # whatever a damaged file makes NumPy stumble over
            raise ValueError(f'{self.path(i)} is not a NumPy file of numbers ({brief(error)})') from error
        grid = found.shape[:-1]
        side = math.isqrt(math.prod(grid))
        if found.dtype.kind != 'f' or not found.size or grid not in ((side * side,), (side, side)):
            raise ValueError(
                f'{self.path(i)} holds {found.dtype} of shape {found.shape}: tokens are floating numbers (N, D) of a '
                'square grid, or (R, R, D)'
            )
        return found.reshape(side, side, -1)

    def read_image(self, i: int) -> Tensor:
        """Tokens (D, R, R) float32."""
        with np.errstate(over='ignore'):
            tokens = np.array(self._tokens(i), np.float32)
        if not np.isfinite(tokens).all():
            raise ValueError(f'{self.path(i)} holds numbers that are not finite in float32')
        return torch.from_numpy(tokens).permute(2, 0, 1)

    def cut(self, image: Tensor, flip: bool, at: tuple[float, float] | None) -> Tensor:
        """Tokens as they are."""
        if flip or at is not None:
            raise ValueError('tokens are of images as they are: set flip=False and random_crop=False')
        return image

    def shown(self, i: int) -> Tensor:
        """The first three principal components of the tokens as colours (3, R, R)."""
        tokens = self.read_image(i).flatten(1)
        colours = torch.linalg.svd(tokens - tokens.mean(1, keepdim=True), full_matrices=False).Vh[:3]
        low, high = colours.aminmax(dim=1, keepdim=True)
        return ((colours - low) / (high - low).clamp(min=1e-12)).view(3, self.image_size, self.image_size)

    def read_map(self, i: int) -> np.ndarray:
        """The labels (H, W) int64."""
        return read_labels(self.label_path(i))

    def annotation(self, i: int) -> Annotation:
        """One mask per label, if there are labels."""
        return super().annotation(i) if self.labelled else ImageSet.annotation(self, i)
