"""Data sets: one way to open them all."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from topdown.config import Config
from topdown.presets import preset


def open_dataset(config: Config, split: str, progress: bool = True, strict: bool = True):
    """The data set of an experiment, as a ``PictureSet``.

    Args:
        config: the experiment; Toybox is made on first use.
        split: 'train' or 'val'.
        progress: show a bar while Toybox is made.
        strict: stop at records of COCO files that cannot be used, naming the first; off: leave them out, and let the
            data set's ``report`` name all of them.

    Raises:
        FileNotFoundError: if ``data_root`` does not hold the data set, saying how to get it.
        ValueError: for a data set without a reader.
    """
    from topdown.data import labels
    from topdown.data.clevr import CLEVR_HELP, Clevr6
    from topdown.data.coco import COCO_HELP, CocoInstances
    from topdown.data.movi import MOVI_HELP, Movi
    from topdown.data.standins import CLIPS, WidePictures, make_clips
    from topdown.toybox.make import make_toybox
    from topdown.toybox.scenes import toybox_config

    data = config.data
    limit = data.eval_images if split == 'val' else 0
    root = data.data_root
    place = {kind: getattr(data, f'{split}_{kind}', '') for kind in ('annotations', 'images')}
    root = root or (place['annotations'] and str(Path(place['annotations']).parent))
    readers = {
        'toybox': (CocoInstances, ''),
        'toybox_wide': (WidePictures, ''),
        CLIPS: (partial(Movi, name=CLIPS), ''),
        'coco': (partial(CocoInstances, strict=strict, keep_crowd=data.keep_crowd, **place), COCO_HELP),
        'voc': (labels.VocSegmentation, labels.VOC_HELP),
        'ade20k': (labels.Ade20k, labels.ADE_HELP),
        'cityscapes': (labels.Cityscapes, labels.CITYSCAPES_HELP),
        'folder': (partial(labels.LabelFolder, void=data.void_label), labels.FOLDER_HELP),
        **{name: (partial(Movi, name=name), MOVI_HELP.format(name=name)) for name in ('movi_c', 'movi_d', 'movi_e')},
        'clevr6': (Clevr6, CLEVR_HELP),
    }
    if data.dataset not in readers:
        raise ValueError(
            f'there is no reader for dataset {data.dataset!r} in this version; readable: {", ".join(readers)}'
        )
    reader, remedy = readers[data.dataset]
    if data.dataset.startswith('toybox'):
        make = make_clips if data.dataset == CLIPS else make_toybox
        root = make(toybox_config(data.toybox), data.data_root, progress=progress)
    elif not root:
        raise FileNotFoundError(f'dataset {data.dataset!r} needs data_root, the folder that holds it. {remedy}')
    found = reader(root, split, config.encoder.image_size, data.mask_size, limit, data.protocol)
    if data.keep_crowd != 'auto':
        found.keep_crowd = data.keep_crowd == 'keep'
    if split == 'train':  # of validation, warnings come when all its truth was read
        found.report.warn()
    found.skip_corrupt = data.skip_corrupt and split == 'train'  # truth and picture of validation belong together
    return found


def open_whole(name: str, root: Path | None, split: str, limit: int = 0, strict: bool = True, **changes: object):
    """A ``PictureSet`` by name and folder, at the paper's sizes, or at Toybox's own (which needs no folder).

    ``limit`` keeps the first so many images; for ``strict`` see ``open_dataset``; ``changes`` are of the preset.
    """
    if root is None and name != 'toybox' and f'{split}_annotations' not in changes:
        raise ValueError(f'{name} needs ROOT, the folder that holds it')
    config = preset('toybox' if name == 'toybox' else 'coco', dataset=name, data_root=str(root or ''), **changes)
    data = open_dataset(config, split, strict=strict)
    data.ids = data.ids[: limit or None]
    return data
