"""Data sets whose truth is a PNG of labels an image: PASCAL VOC 2012, ADE20K, Cityscapes, and any folder.

Each is read in its official layout, with no conversion.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from topdown.data.base import Annotation, ImageSet, check_masks, check_size, read_labels, stored_size, voc_colours
from topdown.data.records import inside
from topdown.data.report import DOUBTFUL, LEFT_OUT
from topdown.datasets import DATASETS

VOC_CATEGORIES = (
    'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow', 'diningtable', 'dog',
    'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor',
)  # fmt: skip
VOC_HELP, ADE_HELP, CITYSCAPES_HELP = (DATASETS[name].help for name in ('voc', 'ade20k', 'cityscapes'))
CITYSCAPES_THINGS = {
    24: 'person', 25: 'rider', 26: 'car', 27: 'truck', 28: 'bus', 29: 'caravan', 30: 'trailer', 31: 'train',
    32: 'motorcycle', 33: 'bicycle',
}  # fmt: skip
IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')


class LabelMaps(ImageSet):
    """Images whose truth is one label map each, or begins with one."""

    @abstractmethod
    def label_path(self, i: int) -> Path:
        """The file of the image's labels."""

    def true_size(self, i: int) -> tuple[int, int] | None:
        """From the header of the labels; None where there are none, as in training."""
        return stored_size(self.label_path(i)) if self.label_path(i).is_file() else None

    def read_map(self, i: int) -> np.ndarray:
        """The labels (H, W) int64, compared with the image's size."""
        labels = read_labels(self.label_path(i))
        check_size(self.path(i), labels.shape, self.report)
        return labels

    def masks(self, i: int, labels: np.ndarray, values: list[int]) -> np.ndarray:
        """(H, W) and O values -> (O, H, W) bool."""
        check_masks(self.label_path(i), len(values), labels.size)
        return labels[None] == np.array(values, labels.dtype)[:, None, None]


class VocSegmentation(LabelMaps):
    """PASCAL VOC 2012 segmentation: val, 1,449 images with instances; train, the 10,582 images of 'trainaug'.

    The training list is made from the data: images of VOC's train list and of both lists of the Semantic Boundaries
    Dataset, without VOC's validation images (or ``trainaug.txt`` among VOC's lists, if somebody put it there). Masks
    of training images are not read.

    Args:
        root: folder with ``VOCdevkit/VOC2012/`` (or that folder itself) and ``benchmark_RELEASE/dataset/``.
        split: 'train' or 'val'.
        image_size, mask_size, limit, protocol: see ``ImageSet``.

    Raises:
        FileNotFoundError: if a folder or list is missing, naming it and the remedy.
    """

    def __init__(self, root: str | Path, split: str, image_size: int, mask_size: int, limit=0, protocol='oclf') -> None:
        root = Path(root).expanduser()
        places = (root / 'VOCdevkit' / 'VOC2012', root / 'VOC2012', root)
        self.folder = next((p for p in places if (p / 'JPEGImages').is_dir()), None)
        if self.folder is None:
            raise FileNotFoundError(f'{places[0]} is missing. {VOC_HELP}')
        lists = self.folder / 'ImageSets' / 'Segmentation'
        ids = _read_list(lists / 'val.txt', VOC_HELP)
        if split == 'train':
            ids = self._train_ids(root, lists, set(ids))
        elif split != 'val':
            raise ValueError(f"split must be 'train' or 'val', got {split!r}")
        names = dict(enumerate(VOC_CATEGORIES, 1))
        super().__init__(ids, names, image_size, mask_size, limit, protocol)

    @staticmethod
    def _train_ids(root: Path, lists: Path, val: set[str]) -> list[str]:
        if (lists / 'trainaug.txt').is_file():
            return sorted(set(_read_list(lists / 'trainaug.txt', VOC_HELP)) - val)
        places = (root / 'benchmark_RELEASE' / 'dataset', root / 'SBD', root / 'dataset')
        boundaries = next((p for p in places if (p / 'train.txt').is_file()), None)
        if boundaries is None:
            raise FileNotFoundError(f'{places[0] / "train.txt"} is missing. {VOC_HELP}')
        ids = set(_read_list(lists / 'train.txt', VOC_HELP))
        for name in ('train.txt', 'val.txt'):
            ids |= set(_read_list(boundaries / name, VOC_HELP))
        return sorted(ids - val)

    def path(self, i: int) -> Path:
        """The image's file."""
        return self.folder / 'JPEGImages' / f'{self.ids[i]}.jpg'

    def label_path(self, i: int) -> Path:
        """The map of objects."""
        return self.folder / 'SegmentationObject' / f'{self.ids[i]}.png'

    def annotation(self, i: int) -> Annotation:
        """Instances from SegmentationObject, of the class that most of each has in SegmentationClass; 255 is void."""
        instances = self.read_map(i)
        path = self.folder / 'SegmentationClass' / f'{self.ids[i]}.png'
        classes = read_labels(path)
        if classes.shape != instances.shape:
            given, other = (f'{m.shape[0]} x {m.shape[1]}' for m in (classes, instances))
            raise ValueError(f'{path} is {given} pixels, {self.label_path(i)} is {other}: they do not belong together')
        objects, categories = [], []
        for o in np.unique(instances[(instances != 0) & (instances != 255)]):
            found, counts = np.unique(classes[instances == o], return_counts=True)
            counts[(found == 0) | (found == 255)] = 0
            if not counts.any():
                self.report.add(LEFT_OUT, 'an object without a class', f'{self.file_name(i)}, object {o}')
                continue
            objects.append(o)
            categories.append(found[counts.argmax()])
            if categories[-1] not in self.category_names:
                self.report.add(DOUBTFUL, f'class {categories[-1]} is none of VOC', self.file_name(i))
        inner = np.setdiff1d(classes[instances == 255], (0, 255))
        if len(inner):
            reason = f'object 255 is taken for a border, as in VOC, but the class map has {inner[0]} there'
            self.report.add(DOUBTFUL, reason, self.file_name(i))
        masks = self.masks(i, instances, objects)
        crowd, colours = np.zeros(len(masks), bool), np.array(voc_colours()) @ (1, 256, 65_536)
        order = np.argsort(colours[np.array(objects, int) % 256])
        return Annotation(masks, np.array(categories, np.int64), crowd, instances == 255, order=order)


class Ade20k(LabelMaps):
    """ADE20K's scene-parsing benchmark: 20,210 training and 2,000 validation images, 150 classes.

    It has no instances: the region of a class counts as one object. Label 0 is unlabelled: void.

    Args:
        root: folder with ``ADEChallengeData2016/`` (or that folder itself).
        split: 'train' or 'val'.
        image_size, mask_size, limit, protocol: see ``ImageSet``.

    Raises:
        FileNotFoundError: if a folder is missing, naming it and the remedy.
    """

    def __init__(self, root: str | Path, split: str, image_size: int, mask_size: int, limit=0, protocol='oclf') -> None:
        root = Path(root).expanduser()
        folder = root / 'ADEChallengeData2016' if (root / 'ADEChallengeData2016').is_dir() else root
        part = part_of(split, 'training', 'validation')
        self.images, self.labels = (folder / kind / part for kind in ('images', 'annotations'))
        need_folders((self.images, self.labels), ADE_HELP)
        info = folder / 'objectInfo150.txt'
        names = {n: f'class {n}' for n in range(1, 151)}
        if info.is_file():
            rows = [line.split('\t') for line in info.read_text('utf-8', 'replace').splitlines()[1:]]
            if not all(re.fullmatch(r'\d{1,9}', row[0], re.ASCII) for row in rows):
                raise ValueError(f'{info} does not begin its lines with numbers of classes: get it again')
            names = {int(row[0]): row[-1].strip() for row in rows}
        super().__init__(_stems(self.images, ADE_HELP), names, image_size, mask_size, limit, protocol)

    def path(self, i: int) -> Path:
        """The image's file."""
        return self.images / f'{self.ids[i]}.jpg'

    def label_path(self, i: int) -> Path:
        """The file of the image's labels."""
        return self.labels / f'{self.ids[i]}.png'

    def annotation(self, i: int) -> Annotation:
        """One mask per class."""
        labels = self.read_map(i)
        present = [c for c in np.unique(labels) if c]
        if present and present[-1] > 150:
            raise ValueError(
                f'{self.label_path(i)} holds label {present[-1]}: ADE20K counts its classes from 1 to 150, and 0 is '
                'unlabelled (a copy that counts from 0 has 255 for that: add 1 to all, and write 0 for 255)'
            )
        categories = np.array(present, np.int64)
        return Annotation(self.masks(i, labels, present), categories, np.zeros(len(present), bool), labels == 0)


class Cityscapes(LabelMaps):
    """Cityscapes, fine annotations: 2,975 training and 500 validation images; objects of ten classes of things.

    Values from 1000 are class * 1000 + instance. A thing's class without an instance number is a group: a crowd region.
    Ids 0 to 6 are void, other stuff is background.

    Args:
        root: folder with ``leftImg8bit/`` and ``gtFine/``.
        split: 'train' or 'val'.
        image_size, mask_size, limit, protocol: see ``ImageSet``.

    Raises:
        FileNotFoundError: if a folder is missing, naming it and the remedy.
    """

    def __init__(self, root: str | Path, split: str, image_size: int, mask_size: int, limit=0, protocol='oclf') -> None:
        root = Path(root).expanduser()
        part = part_of(split)
        self.images, self.labels = root / 'leftImg8bit' / part, root / 'gtFine' / part
        need_folders((self.images, self.labels), CITYSCAPES_HELP)
        found = self.images.glob('*/*_leftImg8bit.png')
        ids = sorted(f'{p.parent.name}/{p.name.removesuffix("_leftImg8bit.png")}' for p in found)
        if not ids:
            raise FileNotFoundError(f'{self.images} holds no images. {CITYSCAPES_HELP}')
        super().__init__(ids, CITYSCAPES_THINGS, image_size, mask_size, limit, protocol)

    def path(self, i: int) -> Path:
        """The image's file."""
        return self.images / self.file_name(i)

    def file_name(self, i: int) -> str:
        """City and name."""
        return f'{self.ids[i]}_leftImg8bit.png'

    def label_path(self, i: int) -> Path:
        """The map of instances."""
        return self.labels / f'{self.ids[i]}_gtFine_instanceIds.png'

    def annotation(self, i: int) -> Annotation:
        """Instances and groups of things."""
        labels = self.read_map(i)
        values = [v for v in np.unique(labels) if v >= 1000 or v in CITYSCAPES_THINGS]
        strange = [v for v in np.unique(labels) if 33 < v < 1000 or v >= 34_000]
        if strange:
            reason = f'holds id {strange[0]}, as no file of Cityscapes does: was it cut to 8 bits?'
            self.report.add(DOUBTFUL, reason, self.label_path(i).name)
        if len(values) > 1 and max(values) < 1000:
            self.report.add(DOUBTFUL, 'has things and not one instance number', self.label_path(i).name)
        categories = np.array([v // 1000 if v >= 1000 else v for v in values], np.int64)
        crowd = np.array([v < 1000 for v in values], bool)
        return Annotation(self.masks(i, labels, values), categories, crowd, labels <= 6)


class LabelFolder(LabelMaps):
    """Any images with PNGs of instance labels: 0 is background, every other value an object of one category.

    Images may lie in subfolders; their labels lie in the same ones.

    Args:
        root: folder with ``train/`` and ``val/``, each with ``images/`` and ``labels/``.
        split: 'train' or 'val'.
        image_size, mask_size, limit, protocol: see ``ImageSet``.
        void: label of pixels of unknown truth; -1 for none.

    Raises:
        FileNotFoundError: if a folder is missing, naming it and the remedy.
    """

    dataset, kind, suffixes = 'folder', 'images', IMAGES  # its name in DATASETS; what is labelled, its folder

    def __init__(
        self, root: str | Path, split: str, image_size: int, mask_size: int, limit=0, protocol='oclf', void=-1
    ) -> None:
        folder, remedy = Path(root).expanduser() / part_of(split), DATASETS[self.dataset].help
        self.images, self.labels, self.void = folder / self.kind, folder / 'labels', void
        need_folders((self.images, self.labels) if self.labelled else (self.images,), remedy)
        self.files: dict[str, str] = {}  # path without its suffix, below images/ -> with it
        for name in names_below(self.images, self.suffixes):
            stem = str(Path(name).with_suffix(''))
            if stem in self.files:
                raise ValueError(
                    f'{self.images}: {self.files[stem]} and {name} share the labels {stem}.png: give one another name'
                )
            self.files[stem] = name
        if not self.files:
            raise FileNotFoundError(f'{self.images} holds no {self.kind}. {remedy}')
        super().__init__(sorted(self.files), {1: 'object'}, image_size, mask_size, limit, protocol)

    def path(self, i: int) -> Path:
        """The image's file."""
        return self.images / self.file_name(i)

    def file_name(self, i: int) -> str:
        """Path below images/."""
        return self.files[self.ids[i]]

    def label_path(self, i: int) -> Path:
        """The file of the image's labels."""
        return self.labels / f'{self.ids[i]}.png'

    def annotation(self, i: int) -> Annotation:
        """One mask per label."""
        labels = self.read_map(i)
        found, counts = np.unique(labels, return_counts=True)
        present = [o for o in found if o not in (0, self.void)]
        void = None if self.void < 0 else labels == self.void
        if self.void < 0 and 255 in present and 254 not in present:
            reason = 'label 255 is an object here; if it means unknown, set void_label=255'
            self.report.add(DOUBTFUL, reason, self.file_name(i))
        tiny = (counts < 1e-3 * labels.size).sum()
        if tiny >= 20 and tiny > len(found) / 2:
            self.report.add(DOUBTFUL, f'has {tiny} labels of few pixels: a soft edge?', self.file_name(i))
        masks = self.masks(i, labels, present)
        return Annotation(masks, np.ones(len(present), np.int64), np.zeros(len(present), bool), void)


def part_of(split: str, train: str = 'train', val: str = 'val') -> str:
    """What a split is called in a layout."""
    if split not in ('train', 'val'):
        raise ValueError(f"split must be 'train' or 'val', got {split!r}")
    return train if split == 'train' else val


def need_folders(folders: tuple[Path, ...], remedy: str) -> None:
    """Raise ``FileNotFoundError`` with the remedy if one is missing."""
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f'{folder} is missing. {remedy}')


def names_below(folder: Path, suffixes: tuple[str, ...] = IMAGES) -> list[str]:
    """Paths of files below a folder that end so, sorted."""
    return sorted(p.relative_to(folder).as_posix() for p in _images(folder.rglob('*'), suffixes))


def _images(files: Iterable[Path], suffixes: tuple[str, ...] = IMAGES) -> list[Path]:
    """Those that are images by their names; those that begin with ._ are what macOS leaves beside real ones."""
    return [p for p in files if p.suffix.lower() in suffixes and not p.name.startswith('._')]


def _stems(folder: Path, remedy: str) -> list[str]:
    stems = sorted(p.stem for p in _images(folder.iterdir()))
    if not stems:
        raise FileNotFoundError(f'{folder} holds no images. {remedy}')
    return stems


def _read_list(path: Path, remedy: str) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f'{path} is missing. {remedy}')
    try:
        return [inside(name) for name in path.read_text('utf-8', 'replace').split()]
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None
