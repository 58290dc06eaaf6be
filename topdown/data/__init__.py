"""Data sets: one way to open them all."""

from __future__ import annotations

from topdown.config import Config


def open_dataset(config: Config, split: str, progress: bool = True):
    """The data set of an experiment, as ``CocoInstances``.

    Args:
        config: the experiment; Toybox is made on first use.
        split: 'train' or 'val'.
        progress: show a bar while Toybox is made.

    Raises:
        FileNotFoundError: if ``data_root`` does not hold the data set, saying how to get it.
        ValueError: for a data set without a reader.
    """
    from topdown.data.coco import COCO_HELP, CocoInstances

    data = config.data
    limit = data.eval_images if split == 'val' else 0
    root = data.data_root
    if data.dataset == 'toybox':
        from topdown.data.toybox import ToyboxConfig, make_toybox

        root = make_toybox(ToyboxConfig(**data.toybox), data.data_root, progress=progress)
    elif data.dataset != 'coco':
        raise ValueError(f'there is no reader for dataset {data.dataset!r} in this version; readable: toybox, coco')
    elif not root:
        raise FileNotFoundError(f'preset {config.name!r} needs data_root, the folder that holds COCO 2017. {COCO_HELP}')
    return CocoInstances(root, split, config.encoder.image_size, data.mask_size, limit, data.protocol)
