"""COCO instance annotations, and every data set that is written like them (Toybox).

Pictures and masks are cut as the protocol has it. Under ``oclf``, pictures are resized as tensors to the short side,
bicubic without antialiasing, clamped to [0, 1] and cropped in the centre; masks are resized nearest-exact and cropped
alike. Under ``spot``, bilinear with antialiasing and nearest.
"""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from pycocotools import mask as mask_tools
from pycocotools.coco import COCO
from torch import Tensor
from torch.utils.data import Dataset

from topdown.protocols import get_protocol

COCO_HELP = (
    'Download train2017.zip, val2017.zip and annotations_trainval2017.zip from https://cocodataset.org/#download '
    'and unpack them into one folder, so that it holds train2017/, val2017/ and annotations/; '
    'then pass that folder as data_root.'
)


@dataclass
class Sample:
    """One picture with its truth."""

    image: Tensor  # (3, S, S) float32 in [0, 1]
    masks: np.ndarray  # (O, M, M) bool, full extents at mask size; overlaps allowed
    categories: np.ndarray  # (O,) int64 category ids
    crowd: np.ndarray  # (O,) bool
    image_id: int
    file_name: str


class CocoInstances(Dataset):
    """Pictures with instance masks from the official layout.

    Args:
        root: folder with ``train2017/``, ``val2017/`` and ``annotations/`` (pictures may also lie in ``images/``).
        split: 'train' or 'val'.
        image_size: side S of the cut picture.
        mask_size: side M of the cut masks.
        limit: use the first so many pictures; 0 for all.
        protocol: oclf or spot.

    Raises:
        FileNotFoundError: if a folder or file is missing, naming it and the remedy.
        ValueError: if the annotation file is not one of COCO instances, or a picture cannot be read.
    """

    def __init__(
        self, root: str | Path, split: str, image_size: int, mask_size: int, limit: int = 0, protocol: str = 'oclf'
    ) -> None:
        if split not in ('train', 'val'):
            raise ValueError(f"split must be 'train' or 'val', got {split!r}")
        self.root, self.split = Path(root).expanduser(), split
        self.image_size, self.mask_size = image_size, mask_size
        self.protocol = get_protocol(protocol)
        self.annotation_file = self._find_annotations()
        self.images = self._find_images()
        self.coco = _open_annotations(self.annotation_file)
        self.ids = sorted(self.coco.imgs)[: limit or None]
        self.category_names = {c['id']: c['name'] for c in self.coco.loadCats(self.coco.getCatIds())}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> Sample:
        """Picture and truth, centre-cropped."""
        image = self.view(i)
        masks, categories, crowd = self.read_truth(i)
        masks = crop_masks(masks, self.mask_size, self.protocol.mask_resize)
        return Sample(image, masks, categories, crowd, self.ids[i], self.file_name(i))

    def file_name(self, i: int) -> str:
        """Name of the picture's file within the folder of pictures."""
        return self.coco.imgs[self.ids[i]]['file_name']

    def view(self, i: int, flip: bool = False, at: tuple[float, float] | None = None) -> Tensor:
        """The cut picture alone (3, S, S), for training; ``flip`` and ``at`` (see ``crop_image``) vary it."""
        image = crop_image(self.read_image(i), self.image_size, at, self.protocol.image_resize)
        return image.flip(-1) if flip else image

    def read_image(self, i: int) -> Tensor:
        """The whole picture (3, H, W) float32 in [0, 1]; grayscale pictures become three equal channels."""
        path = self.images / self.file_name(i)
        if not path.is_file():
            raise FileNotFoundError(
                f'{path} is missing, though {self.annotation_file.name} lists it: unpack the pictures again'
            )
        return read_picture(path)

    def read_truth(self, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Masks (O, H, W) bool, categories (O,), crowd (O,), at the picture's own size; O may be 0."""
        record = self.coco.imgs[self.ids[i]]
        height, width = record['height'], record['width']
        annotations = self.coco.imgToAnns.get(self.ids[i], [])
        masks = np.zeros((len(annotations), height, width), bool)
        for o, annotation in enumerate(annotations):
            masks[o] = decode_mask(annotation['segmentation'], height, width)
        categories = np.array([a['category_id'] for a in annotations], np.int64)
        crowd = np.array([a.get('iscrowd', 0) for a in annotations], bool)
        return masks, categories, crowd

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


def read_picture(path: Path) -> Tensor:
    """A picture file as (3, H, W) float32 in [0, 1]; grayscale pictures become three equal channels.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no picture or damaged.
    """
    try:
        with Image.open(path) as picture:
            array = np.array(picture.convert('RGB'))
    except FileNotFoundError:
        raise FileNotFoundError(f'{path} is missing: check the path') from None
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f'{path} cannot be read ({error}): delete it and get it again') from error
    return torch.from_numpy(array).permute(2, 0, 1).float() / 255


def decode_mask(segmentation: list | dict, height: int, width: int) -> np.ndarray:
    """COCO polygons, uncompressed RLE or compressed RLE -> (H, W) bool."""
    if isinstance(segmentation, list):
        rle = mask_tools.merge(mask_tools.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation['counts'], list):
        rle = mask_tools.frPyObjects(segmentation, height, width)
    else:
        rle = segmentation
    return mask_tools.decode(rle).astype(bool)


def crop_image(image: Tensor, size: int, at: tuple[float, float] | None = None, resize: str = 'bicubic') -> Tensor:
    """(3, H, W) -> (3, size, size): short side to ``size``, crop, clamp to [0, 1].

    The crop lies in the centre, or at shares ``at`` (down, right; each in [0, 1]) of the room there is. ``resize`` is
    'bicubic' (not antialiased) or 'bilinear' (antialiased).
    """
    height, width = image.shape[-2:]
    if min(height, width) != size:
        new = _short_side(height, width, size)
        image = F.interpolate(image[None], new, mode=resize, align_corners=False, antialias=resize == 'bilinear')[0]
    top, left = _centre(image.shape[-2:], size)
    if at is not None:
        top, left = (round(share * (extent - size)) for share, extent in zip(at, image.shape[-2:], strict=True))
    return image[:, top : top + size, left : left + size].clamp(0, 1)


def crop_masks(masks: np.ndarray, size: int, resize: str = 'nearest-exact') -> np.ndarray:
    """(O, H, W) bool or uint8 -> (O, size, size): short side to ``size`` by nearest neighbour, centre crop.

    ``resize`` is 'nearest-exact' or 'nearest'.
    """
    height, width = masks.shape[-2:]
    new = _short_side(height, width, size)
    if new != (height, width) and len(masks):
        resized = F.interpolate(torch.from_numpy(masks)[None].to(torch.uint8), new, mode=resize)
        masks = resized[0].numpy().astype(masks.dtype)
    elif new != (height, width):
        masks = np.zeros((0, *new), masks.dtype)
    top, left = _centre(new, size)
    return masks[:, top : top + size, left : left + size]


def _short_side(height: int, width: int, size: int) -> tuple[int, int]:
    """torchvision's rule: the short side becomes ``size``, the long one int(size * long / short)."""
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


def _centre(shape: tuple[int, int] | torch.Size, size: int) -> tuple[int, int]:
    return round((shape[0] - size) / 2), round((shape[1] - size) / 2)


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
