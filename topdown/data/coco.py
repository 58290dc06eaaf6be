"""COCO instance annotations, and every data set that is written like them (Toybox)."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_tools

from topdown.data.base import Annotation, ImageSet, Texts, check_masks, check_size, stored_size
from topdown.data.panoptic import Panoptic
from topdown.data.records import ObjectRecord, check_categories, check_images, check_objects, read_lists, rows_of
from topdown.data.report import NOTE, REFUSED, Report
from topdown.datasets import DATASETS
from topdown.files import read_json
from topdown.protocols import PROTOCOLS

COCO_HELP = DATASETS['coco'].help
AGAIN = 'download or export it again'
COCO_CATEGORIES = 'ebcbbc546a89b681'
"""Begins the SHA-256 of '1:person 2:bicycle ...', COCO's categories."""


class CocoInstances(ImageSet):
    """Images with instance masks from a file in COCO's format, of its makers or of any tool.

    Records are checked while they are read (``records``). Masks are kept as run-length codes, of the images used
    only; of training images, whose masks nothing needs but a check, none are read before they are asked for, and a
    training file may be a list of images without annotations.

    Args:
        root: folder with ``train2017/``, ``val2017/`` and ``annotations/``; or one with
            ``annotations/instances_val.json`` and ``images/val/``; or one with one JSON file, and images beside it or
            in a folder.
        split: 'train' or 'val'.
        image_size, mask_size, limit, protocol: see ``ImageSet``.
        annotations, images: file and folder, where they lie elsewhere or are not found.
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
        annotations: str = '',
        images: str = '',
    ) -> None:
        if split not in ('train', 'val'):
            raise ValueError(f"split must be 'train' or 'val', got {split!r}")
        self.root, self.split, self.strict = Path(root).expanduser(), split, strict
        self._other = 'train' if split == 'val' else 'val'
        self.report = report = Report('')
        self.annotation_file = self._find_annotations(annotations)
        report.title = str(self.annotation_file)
        content = (read_json if split == 'val' else read_lists)(self.annotation_file, AGAIN)
        records, _ = check_images(rows_of(content, 'images', self.annotation_file), report)
        if not records and not report.entries:
            report.add(REFUSED, 'lists no images')
        ids = sorted(records)
        super().__init__(ids, {}, image_size, mask_size, limit, protocol)
        self.report, report.images = report, len(self.ids)
        self.names = Texts(records[number].name for number in self.ids)
        self.images = self._find_images(images, self.names[0] if self.names else '')
        self.sizes = np.array([records[number].size or (0, 0) for number in self.ids], np.int32).reshape(-1, 2)
        self._objects: list[list[ObjectRecord]] | None = None
        if split == 'val' or 'categories' in content:
            self.category_names = check_categories(rows_of(content, 'categories', self.annotation_file), report)
        self.official = is_official(self.annotation_file, self.category_names)
        self.panoptic_file = self.annotation_file.with_name(f'panoptic_{split}2017.json')
        self._panoptic: Panoptic | None = None
        if split == 'val':
            self._read_objects(content)
        elif strict:
            report.stop()

    def path(self, i: int) -> Path:
        """The image's file."""
        return self.images / self.names[i]

    def file_name(self, i: int) -> str:
        """Path of the image's file below the folder of images."""
        return self.names[i]

    def true_size(self, i: int) -> tuple[int, int] | None:
        """What the file's record says, if it says anything."""
        height, width = self.sizes[i].tolist()
        return (height, width) if height else None

    def annotation(self, i: int) -> Annotation:
        """Masks from polygons or RLE; there may be none."""
        if self._objects is None:
            self._read_objects(read_json(self.annotation_file, AGAIN))
        size = self.true_size(i) or stored_size(self.path(i))
        check_size(self.path(i), size, self.report)
        found = self._objects[i]
        check_masks(self.path(i), len(found), size[0] * size[1])
        masks = mask_tools.decode([o.rle for o in found]).transpose(2, 0, 1) if found else np.zeros((0, *size))
        return Annotation(
            masks=masks.astype(bool),
            categories=np.array([o.category for o in found], np.int64),
            crowd=np.array([o.crowd for o in found], bool),
            ignored=np.array([o.ignored for o in found], bool),
        )

    def panoptic(self, i: int) -> Annotation | None:
        """Of COCO's own files, and of others that have panoptic maps; errors as of ``Panoptic``."""
        if not (self.official or self.panoptic_file.is_file()):
            return None
        self._panoptic = self._panoptic or Panoptic(self.panoptic_file)
        return self._panoptic.annotation(self.ids[i], self.true_size(i) or stored_size(self.path(i)))

    @property
    def protocols(self) -> tuple[str, ...]:
        """Without those that need panoptic maps, where COCO's are missing."""
        lacking = self.official and not self.panoptic_file.is_file()
        return tuple(name for name, rules in PROTOCOLS.items() if not (rules.panoptic and lacking))

    def _read_objects(self, content: dict) -> None:
        """Check the annotations; keep those of the images used."""
        if not self.category_names:
            self.category_names = check_categories(rows_of(content, 'categories', self.annotation_file), self.report)
        listed, key = check_images(rows_of(content, 'images', self.annotation_file), Report(''))
        place = {number: i for i, number in enumerate(self.ids)}

        def size_of(number: int | str) -> tuple[int, int] | None:
            if number not in place:
                return None
            try:
                return self.true_size(place[number]) or stored_size(self.path(place[number]))
            except (OSError, ValueError) as error:
                self.report.add(REFUSED, str(error))
                return None

        try:
            rows = rows_of(content, 'annotations', self.annotation_file)
        except ValueError as error:
            self.report.add(REFUSED, str(error))
            rows = []
        if not rows and not self.report.lines(REFUSED):
            self.report.add(REFUSED, 'has no annotations: it lists images alone, which can be trained on, not scored')
        found = check_objects(rows, key, size_of, listed, self.category_names, self.report, self.official)
        if self.strict:
            self.report.stop()
        by_image = defaultdict(list)
        for record in found:
            by_image[record.image].append(record)
        self._objects = [by_image[number] for number in self.ids]
        self.report.objects = len(found)

    def _place(self, given: str, *likely: str) -> Path | None:
        """A file or folder that was named, by itself or below the root; else the first likely one that is there."""
        named = [Path(given).expanduser(), self.root / given] if given else [self.root / place for place in likely]
        found = next((path for path in named if path.exists()), None)
        if given and found is None:
            raise FileNotFoundError(f'{given} is missing: check the path')
        return found

    def _find_annotations(self, given: str) -> Path:
        """The file named, or COCO's own, or that of a tool, or the only JSON file of the root."""
        if not self.root.is_dir():
            raise FileNotFoundError(f'data_root {str(self.root)!r} is not a folder. {COCO_HELP}')
        names = [f'annotations/instances_{self.split}{year}.json' for year in ('2017', '')]
        path = self._place(given, *names)
        alone = [*self.root.glob('*.json'), *self.root.glob('annotations/instances*.json')]
        alone = [p for p in alone if not p.name.startswith('._') and self._other not in p.name]
        if path is None and len(alone) == 1:
            path = alone[0]
            self.report.add(NOTE, f'{path.name} is the only annotation file: it serves training and validation alike')
        if path is None:
            also = f', and of {len(alone)} others one must be named as {self.split}_annotations' if alone else ''
            raise FileNotFoundError(f'{self.root / names[0]} is missing{also}. {COCO_HELP}')
        return path

    def _find_images(self, given: str, name: str) -> Path:
        """The folder named, or the likely one that holds the first image, or else the first that is there."""
        usual = (f'{self.split}2017', f'images/{self.split}2017', f'images/{self.split}', self.split, 'images')
        others = [str(p.relative_to(self.root)) for p in (*self.root.glob('*/'), *self.root.glob('images/*/'))]
        others = sorted(place for place in others if self._other not in place)
        holding = [place for place in (*usual, '.', *others) if (self.root / place / name).is_file()]
        path = self._place(given, *holding, *usual)
        if path is None:
            raise FileNotFoundError(f'{self.root / usual[0]} is missing, and no folder there holds {name}. {COCO_HELP}')
        return path


def is_official(path: Path, names: dict[int, str]) -> bool:
    """Whether a file is COCO's own, by its name and by all 80 categories."""
    table = ' '.join(f'{number}:{name}' for number, name in sorted(names.items()))
    known = hashlib.sha256(table.encode('utf-8', 'replace')).hexdigest()
    return path.name in ('instances_train2017.json', 'instances_val2017.json') and known.startswith(COCO_CATEGORIES)
