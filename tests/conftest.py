"""Shared fixtures: a tiny Toybox, a tiny configuration, and COCO files in the genuine format."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import Phase, settings
from PIL import Image
from pycocotools import mask as mask_tools

from topdown.model.encoder import make_encoder
from topdown.presets import preset
from topdown.toybox.make import make_toybox
from topdown.toybox.scenes import ToyboxConfig

TINY = {'num_train': 24, 'num_val': 8}
settings.register_profile('no_shrinking', phases=[Phase.explicit, Phase.generate])  # for mutants: any failure will do


@pytest.fixture(scope='session')
def toybox_root(tmp_path_factory):
    """Parent folder of a Toybox of 24 + 8 images."""
    root = tmp_path_factory.mktemp('toybox')
    make_toybox(ToyboxConfig(**TINY), root, progress=False)
    return root


@pytest.fixture(scope='session')
def encoder():
    """The shipped encoder."""
    return make_encoder(preset('smoke'))


@pytest.fixture
def tiny(toybox_root):
    """A configuration that trains in a second or two."""
    return preset(
        'smoke', data_root=str(toybox_root), toybox=TINY, steps=6, batch_size=4, eval_every=3, checkpoint_every=0,
        eval_images=6, codebook_size=8, dead_code_threshold=0.2,
    )  # fmt: skip


@pytest.fixture
def coco_root(tmp_path):
    """Genuine COCO layout: polygons, crowd and compressed RLE, a grayscale image, one without objects."""
    rng = np.random.default_rng(0)
    sizes = {7: (60, 80), 9: (90, 64), 12: (64, 64), 15: (100, 50)}  # id: (height, width)
    crowd = np.zeros((90, 64), bool)
    crowd[5:30, 10:40] = True
    counts, value = [], False
    for run in np.split(crowd.ravel('F'), np.flatnonzero(np.diff(crowd.ravel('F'))) + 1):
        if bool(run[0]) != value:
            counts.append(0)
        counts.append(len(run))
        value = not bool(run[0])
    disk = np.fromfunction(lambda y, x: (y - 30) ** 2 + (x - 30) ** 2 < 300, (64, 64))
    compressed = mask_tools.encode(np.asfortranarray(disk, np.uint8))
    compressed['counts'] = compressed['counts'].decode()
    square = [[20.0, 20.0, 60.0, 20.0, 60.0, 50.0, 20.0, 50.0]]
    two_parts = [[5.0, 5.0, 15.0, 5.0, 15.0, 15.0, 5.0, 15.0], [30.0, 5.0, 40.0, 5.0, 40.0, 15.0, 30.0, 15.0]]
    rows = [
        (7, 3, 0, square), (7, 1, 0, [[40.0, 10.0, 75.0, 10.0, 75.0, 35.0, 40.0, 35.0]]),
        (9, 1, 1, {'size': [90, 64], 'counts': counts}), (9, 3, 0, two_parts), (12, 2, 0, compressed),
    ]  # fmt: skip

    def box_and_area(image, code):
        parts = [code] if isinstance(code, dict) and isinstance(code['counts'], str) else None
        parts = parts or mask_tools.frPyObjects(code, *sizes[image])
        whole = mask_tools.merge(parts if isinstance(parts, list) else [parts])
        return {'area': float(mask_tools.area(whole)), 'bbox': mask_tools.toBbox(whole).tolist()}

    annotations = [
        {'id': i, 'image_id': image, 'category_id': category, 'iscrowd': is_crowd, 'segmentation': segmentation,
         **box_and_area(image, segmentation)}
        for i, (image, category, is_crowd, segmentation) in enumerate(rows, 1)
    ]  # fmt: skip
    images = [{'id': i, 'file_name': f'{i:012d}.jpg', 'height': h, 'width': w} for i, (h, w) in sizes.items()]
    categories = [{'id': i, 'name': name, 'supercategory': 'thing'} for i, name in enumerate('abc', 1)]
    content = {'info': {}, 'licenses': [], 'images': images, 'annotations': annotations, 'categories': categories}
    (tmp_path / 'annotations').mkdir()
    for split in ('train', 'val'):
        (tmp_path / f'{split}2017').mkdir()
        (tmp_path / 'annotations' / f'instances_{split}2017.json').write_text(json.dumps(content))
        for i, (h, w) in sizes.items():
            array = rng.integers(0, 256, (h, w, 3), np.uint8)
            image = Image.fromarray(array[..., 0] if i == 12 else array)
            image.save(tmp_path / f'{split}2017' / f'{i:012d}.jpg')
    return tmp_path
