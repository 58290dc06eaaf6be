"""Label maps that any program predicted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from topdown.data.base import MOST_CELLS, ImageSet, check_masks, crop_masks, read_labels, whole_numbers
from topdown.files import brief

SUFFIXES = ('.png', '.tif', '.tiff', '.npy', '.npz')


def read_predictions(folder: str | Path, dataset: ImageSet, uncut: bool = False) -> np.ndarray:
    """Predicted label maps: for every image a file with a whole number from 0 for every pixel.

    The map of ``s1/a.jpg`` is ``s1/a.png`` (or another of ``SUFFIXES``), or ``a.png`` if no other image of the set
    has that name. It has the size of the cut masks (M x M) or of the whole image; the latter is cut as true masks
    are. An ``.npy`` file, or an ``.npz`` of one array, may instead hold K masks of shares (K, h, w) in [0, 1], of the
    cut square at any resolution, such as a model's patches, or of the whole image: they are upsampled bilinearly, as
    a model's own masks are, and each pixel goes to the largest. (Labels at a patch's resolution would lose 7 to 10
    points of FG-ARI against that, and are refused.)

    Args:
        folder: of the maps.
        dataset: the images, and how they are cut.
        uncut: refuse labels that are cut already, since they cannot serve a second protocol as shares can.

    Returns:
        (V, M, M) uint8, or int32 of more than 256 labels.

    Raises:
        FileNotFoundError: if the folder or a map is missing.
        ValueError: if a map is not a label map or of another size, or is that of two images.
    """
    size, maps = dataset.mask_size, []
    for i, path in enumerate(find_predictions(Path(folder), dataset)):
        whole = dataset.true_size(i) or dataset.annotation(i).masks.shape[1:]
        found = _read_array(path) if path.suffix in ('.npy', '.npz') else read_labels(path)
        soft = found.ndim == 3
        if soft:
            found = _largest(path, found, size, whole)
        if found.shape not in ((size, size), whole):
            raise ValueError(
                f"{path} has shape {found.shape}: labels must have {size} x {size} pixels or the image's "
                f'{whole[0]} x {whole[1]}; at another resolution pass shares (K, h, w) as .npy'
            )
        if uncut and found.shape != whole and not soft:
            raise ValueError(
                f'{path} is cut to {size} x {size}, as one protocol has it: score it under that one, or pass maps of '
                'whole images, which each protocol cuts its own way'
            )
        labels = np.unique(found, return_inverse=True)[1].reshape(1, *found.shape).astype(np.int32)
        labels = (crop_masks(labels, size, dataset.protocol.mask_resize) if found.shape == whole else labels)[0]
        maps.append(labels.astype(np.uint8 if labels.max() < 256 else np.int32))
    return np.stack(maps)


def find_predictions(folder: Path, dataset: ImageSet) -> list[Path]:
    """Where the map of every image is; errors as of ``read_predictions``."""
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder} is not a folder: pass one that holds a map of labels for every image')
    names = [Path(dataset.file_name(i)) for i in range(len(dataset))]
    stems = Counter(name.stem for name in names)
    owners: dict[Path, Path] = {}
    for name in names:
        places = [folder / name.parent] + [folder] * (stems[name.stem] == 1)
        path = next(
            (p / f'{name.stem}{s}' for p in places for s in SUFFIXES if (p / f'{name.stem}{s}').is_file()), None
        )
        if path is None:
            there = ', '.join(sorted(p.name for p in folder.iterdir())[:3]) or 'nothing'
            raise FileNotFoundError(
                f'{folder / name.with_suffix(".png")} is missing, and so are {", ".join(SUFFIXES[1:])}: every image '
                f'of the set needs a map of its labels; the folder holds {there}'
            )
        if path in owners:
            raise ValueError(
                f'{path} would be the labels of both {owners[path]} and {name}: give one of the images another name'
            )
        owners[path] = name
    return list(owners)


def _read_array(path: Path) -> np.ndarray:
    """Labels (h, w) int64 or shares (K, h, w) float32 of a NumPy file."""
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.lib.npyio.NpzFile):
            if (size := sum(part.file_size for part in found.zip.infolist())) > MOST_CELLS:
                raise ValueError(f'it would unpack to {size} bytes')
            (found,) = found.values()
    except Exception as error:  # whatever a damaged file makes NumPy stumble over
        raise ValueError(f'{path} cannot be read as one array ({brief(error)})') from error
    if found.ndim == 3 and found.size and found.dtype.kind in 'bf' and found.min() >= 0 and found.max() <= 1:
        return found.astype(np.float32)
    labels, fault = whole_numbers(found)
    if found.ndim != 2 or fault:
        raise ValueError(
            f'{path} {fault or f"has shape {found.shape}"}; pass labels (h, w) or shares (K, h, w) in [0, 1]'
        )
    return labels


def _largest(path: Path, shares: np.ndarray, size: int, whole: tuple[int, int]) -> np.ndarray:
    """Labels of the largest of K shares: (size, size) of those of a square, ``whole`` of those of the image."""
    height, width = shares.shape[1:]
    target = (size, size) if height == width else whole
    check_masks(path, len(shares), target[0] * target[1])
    if height != width and abs(height / width * whole[1] / whole[0] - 1) > 0.1:
        raise ValueError(
            f'{path} has shares of {height} x {width}: they must be of the cut square or of the whole image, '
            f'{whole[0]} x {whole[1]}'
        )
    return F.interpolate(torch.from_numpy(shares)[None], target, mode='bilinear')[0].argmax(0).numpy()
