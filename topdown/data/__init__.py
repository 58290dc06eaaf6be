"""Data sets: one way to open them all."""

from __future__ import annotations

import importlib.util
import pkgutil
from pathlib import Path

from topdown.config import Config
from topdown.datasets import DATASETS
from topdown.presets import preset


def open_dataset(config: Config, split: str, progress: bool = True, strict: bool = True):
    """The data set of an experiment, as a ``ImageSet``.

    Args:
        config: the experiment; Toybox is made on first use.
        split: 'train' or 'val'.
        progress: show a bar while Toybox is made.
        strict: stop at records of COCO files that cannot be used, naming the first; off: leave them out, and let the
            data set's ``report`` name all of them.

    Raises:
        FileNotFoundError: if ``data_root`` does not hold the data set, saying how to get it.
    """
    from topdown.toybox.scenes import toybox_config

    data, known = config.data, DATASETS[config.data.dataset]
    place = {kind: getattr(data, f'{split}_{kind}', '') for kind in ('annotations', 'images')}
    root = data.data_root or (place['annotations'] and str(Path(place['annotations']).parent))
    if known.make:
        root = pkgutil.resolve_name(known.make)(toybox_config(data.toybox), data.data_root, progress=progress)
    elif not root:
        raise FileNotFoundError(f'dataset {data.dataset!r} needs data_root, the folder that holds it. {known.help}')
    limit = data.eval_images if split == 'val' else 0
    given = {'strict': strict, 'void': data.void_label, 'evidence': data.evidence, **place}
    given['feature_size'] = config.encoder.feature_size
    found = pkgutil.resolve_name(known.reader)(
        root, split, config.encoder.image_size, data.mask_size, limit, data.protocol,
        **{name: given[name] for name in known.settings}, **known.fixed,
    )  # fmt: skip
    if split == 'train':  # of validation, warnings come when all its truth was read
        found.report.warn()
    found.image_reader = data.image_reader
    if data.image_reader == 'opencv' and importlib.util.find_spec('cv2') is None:
        raise ValueError('image_reader=opencv needs OpenCV: pip install opencv-python-headless (topdown[fast])')
    found.skip_corrupt = data.skip_corrupt and split == 'train'  # truth and image of validation belong together
    return found


def open_whole(name: str, root: Path | None, split: str, limit: int = 0, strict: bool = True, **changes: object):
    """A ``ImageSet`` by name and folder, at the paper's sizes, or at Toybox's own (which needs no folder).

    ``limit`` keeps the first so many images; for ``strict`` see ``open_dataset``; ``changes`` are of the preset.
    """
    made = bool(DATASETS[name].make)
    if root is None and not made and f'{split}_annotations' not in changes:
        raise ValueError(f'{name} needs ROOT, the folder that holds it')
    config = preset('toybox' if made else 'coco', dataset=name, data_root=str(root or ''), **changes)
    data = open_dataset(config, split, strict=strict)
    data.ids = data.ids[: limit or None]
    return data
