"""COCO instance annotations, and every data set that is written like them (Toybox)."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_tools

from topdown.data.base import Annotation, PictureSet, check_size, stored_size
from topdown.data.records import ObjectRecord, check_categories, check_images, check_objects, read_json, rows_of
from topdown.data.report import REFUSED, Report

COCO_HELP = (
    'Download train2017.zip, val2017.zip and annotations_trainval2017.zip from https://cocodataset.org/#download '
    'and unpack them into one folder, so that it holds train2017/, val2017/ and annotations/; '
    'then pass that folder as data_root.'
)


class CocoInstances(PictureSet):
    """Pictures with instance masks from the official layout.

    Records are checked while they are read (``records``). Masks are kept as run-length codes, of the pictures used
    only; of training pictures, whose masks nothing needs but a check, none are read before they are asked for, and a
    training file may be a list of images without annotations.

    Args:
        root: folder with ``train2017/``, ``val2017/`` and ``annotations/`` (pictures may also lie in ``images/``).
        split: 'train' or 'val'.
        image_size, mask_size, limit, protocol: see ``PictureSet``.
        strict: stop at records that cannot be used; off: leave them out, and let ``report`` name them.

    Raises:
        FileNotFoundError: if a folder or file is missing, naming it and the remedy.
        ValueError: if the annotation file is not one of COCO instances, or a record cannot be used.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        image_size: int,
        mask_size: int,
        limit: int = 0,
        protocol: str = 'oclf',
        strict: bool = True,
    ) -> None:
        if split not in ('train', 'val'):
            raise ValueError(f"split must be 'train' or 'val', got {split!r}")
        self.root, self.split, self.strict = Path(root).expanduser(), split, strict
        self.annotation_file = self._find_annotations()
        self.images = self._find_images()
        report = Report(str(self.annotation_file))
        content = read_json(self.annotation_file)
        records, _ = check_images(rows_of(content, 'images', self.annotation_file), report)
        ids = sorted(records)
        super().__init__(ids, {}, image_size, mask_size, limit, protocol)
        self.report, report.images = report, len(self.ids)
        self.names = [records[number].name for number in self.ids]
        self.sizes = [records[number].size for number in self.ids]
        self._objects: list[list[ObjectRecord]] | None = None
        if split == 'val' or 'categories' in content:
            self.category_names = check_categories(rows_of(content, 'categories', self.annotation_file), report)
        if split == 'val':
            self._read_objects(content)
        elif strict:
            report.stop()

    def path(self, i: int) -> Path:
        """The picture's file."""
        return self.images / self.names[i]

    def file_name(self, i: int) -> str:
        """Path of the picture's file below the folder of pictures."""
        return self.names[i]

    def true_size(self, i: int) -> tuple[int, int] | None:
        """What the file's record says, if it says anything."""
        return self.sizes[i]

    def annotation(self, i: int) -> Annotation:
        """Masks from polygons or RLE; there may be none."""
        if self._objects is None:
            self._read_objects(read_json(self.annotation_file))
        size = self.sizes[i] or stored_size(self.path(i))
        check_size(self.path(i), size, self.report)
        found = self._objects[i]
        masks = mask_tools.decode([o.rle for o in found]).transpose(2, 0, 1) if found else np.zeros((0, *size))
        return Annotation(
            masks=masks.astype(bool),
            categories=np.array([o.category for o in found], np.int64),
            crowd=np.array([o.crowd for o in found], bool),
        )

    def _read_objects(self, content: dict) -> None:
        """Check the annotations; keep those of the pictures used."""
        if not self.category_names:
            self.category_names = check_categories(rows_of(content, 'categories', self.annotation_file), self.report)
        listed, key = check_images(rows_of(content, 'images', self.annotation_file), Report(''))
        place = {number: i for i, number in enumerate(self.ids)}

        def size_of(number: int | str) -> tuple[int, int] | None:
            if number not in place:
                return None
            try:
                return self.sizes[place[number]] or stored_size(self.path(place[number]))
            except (OSError, ValueError) as error:
                self.report.add(REFUSED, str(error))
                return None

        try:
            rows = rows_of(content, 'annotations', self.annotation_file)
        except ValueError as error:
            self.report.add(REFUSED, str(error))
            rows = []
        found = check_objects(rows, key, size_of, listed, self.category_names, self.report)
        if self.strict:
            self.report.stop()
        by_image = defaultdict(list)
        for record in found:
            by_image[record.image].append(record)
        self._objects = [by_image[number] for number in self.ids]
        self.report.objects = len(found)

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
