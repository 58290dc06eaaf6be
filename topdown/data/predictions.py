"""Label maps that any program predicted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from topdown.data.base import PictureSet, crop_masks, read_labels


def read_predictions(folder: str | Path, dataset: PictureSet) -> np.ndarray:
    """Predicted label maps: for every picture a PNG with a label from 0 in every pixel.

    The map of ``s1/a.jpg`` is ``s1/a.png``, or ``a.png`` if no other picture of the set has that name. It has the size
    of the cut masks (M x M) or of the whole picture; the latter is cut as true masks are.

    Returns:
        (V, M, M) int32.

    Raises:
        FileNotFoundError: if the folder or a map is missing.
        ValueError: if a map is no label map or of another size, or is that of two pictures.
    """
    size, maps = dataset.mask_size, []
    for i, path in enumerate(find_predictions(Path(folder), dataset)):
        found = read_labels(path)
        whole = dataset.true_size(i) or dataset.annotation(i).masks.shape[1:]
        if found.shape not in ((size, size), whole):
            raise ValueError(
                f"{path} has shape {found.shape}: labels must have {size} x {size} pixels or the picture's "
                f'{whole[0]} x {whole[1]}'
            )
        _, found = np.unique(found, return_inverse=True)  # labels may be any numbers
        found = found.reshape(1, *(whole if found.size == whole[0] * whole[1] else (size, size))).astype(np.int32)
        if found.shape[1:] != (size, size):
            found = crop_masks(found, size, dataset.protocol.mask_resize)
        maps.append(found[0])
    return np.stack(maps)


def find_predictions(folder: Path, dataset: PictureSet) -> list[Path]:
    """Where the map of every picture is; errors as of ``read_predictions``."""
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder} is not a folder: pass one that holds a PNG of labels for every picture')
    names = [Path(dataset.file_name(i)).with_suffix('.png') for i in range(len(dataset))]
    last = Counter(name.name for name in names)
    owners: dict[Path, str] = {}
    for i, name in enumerate(names):
        path = folder / name
        if not path.is_file() and last[name.name] == 1 and (folder / name.name).is_file():
            path = folder / name.name
        if path in owners:
            raise ValueError(
                f'{path} would be the labels of both {owners[path]} and {dataset.file_name(i)}: give one of the '
                'pictures another name'
            )
        if not path.is_file():
            raise FileNotFoundError(f'{path} is missing: every picture of the set needs a map of its labels')
        owners[path] = dataset.file_name(i)
    return list(owners)
