"""COCO instance annotations, and every data set that is written like them (Toybox)."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_tools
from pycocotools.coco import COCO

from topdown.data.base import Annotation, PictureSet

COCO_HELP = (
    'Download train2017.zip, val2017.zip and annotations_trainval2017.zip from https://cocodataset.org/#download '
    'and unpack them into one folder, so that it holds train2017/, val2017/ and annotations/; '
    'then pass that folder as data_root.'
)


class CocoInstances(PictureSet):
    """Pictures with instance masks from the official layout.

    Args:
        root: folder with ``train2017/``, ``val2017/`` and ``annotations/`` (pictures may also lie in ``images/``).
        split: 'train' or 'val'.
        image_size, mask_size, limit, protocol: see ``PictureSet``.

    Raises:
        FileNotFoundError: if a folder or file is missing, naming it and the remedy.
        ValueError: if the annotation file is not one of COCO instances, or a picture cannot be read.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        image_size: int,
        mask_size: int,
        limit: int = 0,
        protocol: str = 'oclf',
    ) -> None:
        if split not in ('train', 'val'):
            raise ValueError(f"split must be 'train' or 'val', got {split!r}")
        self.root, self.split = Path(root).expanduser(), split
        self.annotation_file = self._find_annotations()
        self.images = self._find_images()
        self.coco = _open_annotations(self.annotation_file)
        names = {c['id']: c['name'] for c in self.coco.loadCats(self.coco.getCatIds())}
        super().__init__(sorted(self.coco.imgs), names, image_size, mask_size, limit, protocol)

    def path(self, i: int) -> Path:
        """The picture's file."""
        return self.images / self.coco.imgs[self.ids[i]]['file_name']

    def annotation(self, i: int) -> Annotation:
        """Masks from polygons or RLE; there may be none."""
        record = self.coco.imgs[self.ids[i]]
        height, width = record['height'], record['width']
        annotations = self.coco.imgToAnns.get(self.ids[i], [])
        masks = np.zeros((len(annotations), height, width), bool)
        for o, annotation in enumerate(annotations):
            masks[o] = decode_mask(annotation['segmentation'], height, width)
        return Annotation(
            masks=masks,
            categories=np.array([a['category_id'] for a in annotations], np.int64),
            crowd=np.array([a.get('iscrowd', 0) for a in annotations], bool),
        )

    def _find_annotations(self) -> Path:
        if not self.root.is_dir():
            raise FileNotFoundError(f'data_root {str(self.root)!r} is not a folder. {COCO_HELP}')
        path = self.root / 'annotations' / f'instances_{self.split}2017.json'
        if not path.is_file():
            raise FileNotFoundError(f'{path} is missing. {COCO_HELP}')
        return path

    def _find_images(self) -> Path:
        for folder in (self.root / f'{self.split}2017', self.root / 'images' / f'{self.split}2017'):
            if folder.is_dir():
                return folder
        raise FileNotFoundError(f'{self.root / f"{self.split}2017"} is missing. {COCO_HELP}')


def decode_mask(segmentation: list | dict, height: int, width: int) -> np.ndarray:
    """COCO polygons, uncompressed RLE or compressed RLE -> (H, W) bool."""
    if isinstance(segmentation, list):
        rle = mask_tools.merge(mask_tools.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation['counts'], list):
        rle = mask_tools.frPyObjects(segmentation, height, width)
    else:
        rle = segmentation
    return mask_tools.decode(rle).astype(bool)


def _open_annotations(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            coco = COCO(str(path))
            if not coco.imgs:
                raise KeyError('images')
            for annotation in list(coco.anns.values())[:1]:
                _ = annotation['segmentation'], annotation['category_id'], annotation['image_id']
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f'{path} is no JSON ({error}): download it again') from error
        except (KeyError, TypeError, AssertionError) as error:
            raise ValueError(
                f'{path} is no COCO instances file (missing {error}): use instances_train2017.json and '
                'instances_val2017.json, not captions, keypoints or detection results'
            ) from error
    return coco
