"""What all data sets share: images and their true masks, and how both are cut.

Images and masks are cut as the protocol has it (see ``protocols``): to the same square in the centre, but for rounding.
"""

from __future__ import annotations

import contextlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, default_convert

from topdown.data.report import DOUBTFUL, Report
from topdown.files import brief
from topdown.protocols import PROTOCOLS, Protocol, get_protocol

MOST_PIXELS, MOST_RATIO = 89_478_485, 50
"""Pixels of an image, from where on Pillow warns of a bomb, and its long side by its short one, which grows with the
square that is cut. Memory is asked for only below them."""
MOST_CELLS = 2**32
"""Pixels of all masks of an image together; likewise."""
FORMATS = ('PNG', 'JPEG', 'TIFF', 'BMP', 'GIF', 'PPM', 'WEBP')
"""Of image files. Pillow knows others, some of which start a program."""


@dataclass
class Annotation:
    """The truth of one image, at the image's own size until it is cut."""

    masks: np.ndarray  # (O, H, W) bool, full extents; overlaps allowed
    categories: np.ndarray  # (O,) int64 category ids, of any size and sign
    crowd: np.ndarray  # (O,) bool, regions of several objects
    void: np.ndarray | None = None  # (H, W) bool, pixels of unknown truth; None for none
    ignored: np.ndarray | None = None  # (O,) bool, objects marked as not to be evaluated; None for none
    order: np.ndarray | None = None  # (O,) of objects by the colour of their label; None where labels have no colours

    def cut(self, size: int, resize: str = 'nearest-exact') -> Annotation:
        """The same of the square that is cut from the image, (O, size, size)."""
        void = None if self.void is None else crop_masks(self.void, size, resize)
        return replace(self, masks=crop_masks(self.masks, size, resize), void=void)


class Texts(Sequence[str]):
    """Many short texts in one piece of memory, which loader processes share; as Python's texts, each would copy them.

    Reading a Python object writes to it (its number of references), and a page that is written is shared no more.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        parts = [text.encode() for text in texts]
        self._bytes, self._ends = b''.join(parts), np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, i: int) -> str:
        i = range(len(self))[i]
        return self._bytes[self._ends[i] : self._ends[i + 1]].decode()


class ImageSet(ABC):
    """Images with true masks. A data set says where images lie (``path``) and what is in them (``annotation``).

    ``view`` cuts an image, ``Annotation.cut`` its truth.

    Args:
        ids: of the images, in order.
        category_names: category id -> name.
        image_size: side S of the cut image.
        mask_size: side M of the cut masks, under protocols that have none of their own.
        limit: use the first so many images; 0 for all.
        protocol: one of ``PROTOCOLS``.
    """

    def __init__(
        self,
        ids: list[int] | list[str],
        category_names: dict[int, str],
        image_size: int,
        mask_size: int,
        limit: int = 0,
        protocol: str = 'oclf',
    ) -> None:
        self.ids, self.category_names = ids[: limit or None], category_names
        self.image_size, self.protocol, self._mask_size = image_size, get_protocol(protocol), mask_size
        self.mask_size = self.mask_side(self.protocol)
        self.skip_corrupt, self.image_reader = False, 'pillow'
        self.report = Report(type(self).__name__, len(self.ids))

    official = True
    """Whether files are as the makers of a public data set publish them; those of tools mark other things as crowd."""

    labelled = True
    """Whether there are true masks; without them, nothing can be scored."""

    frames = 1
    """Of a clip: images of the same things in motion, one after another. Sets of clips have a ``clip_order``."""

    recipe = ''
    """What decides, beside files and cutting, what is read of an image; stored tokens are told apart by it."""

    def keeps_crowd(self, setting: str, protocol: str = 'oclf') -> bool:
        """Whether crowd regions are objects, by the setting ``keep_crowd``: auto drops those of official files."""
        rule = get_protocol(protocol).crowd
        return rule == 'keep' or (rule == 'option' and (setting == 'keep' or (setting == 'auto' and not self.official)))

    def mask_side(self, protocol: Protocol) -> int:
        """Side of the cut masks under any protocol."""
        return protocol.mask_side(self.image_size, self._mask_size)

    @abstractmethod
    def path(self, i: int) -> Path:
        """The image's file."""

    @abstractmethod
    def annotation(self, i: int) -> Annotation:
        """The image's truth; here none."""
        nothing = np.zeros((0, self.mask_size, self.mask_size), bool)
        return Annotation(nothing, np.zeros(0, np.int64), np.zeros(0, bool))

    def panoptic(self, i: int) -> Annotation | None:
        """The image's truth from panoptic maps, if the data set has them beside its masks."""
        return None

    @property
    def protocols(self) -> tuple[str, ...]:
        """Those that its truth is at hand for."""
        return tuple(PROTOCOLS)

    def true_size(self, i: int) -> tuple[int, int] | None:
        """Height and width of the image's truth, without reading all of it; None for no truth.

        Images turned by their EXIF orientation are read as it fits (see ``read_image_file``).
        """
        return None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def epoch_length(self) -> int:
        """How many images training sees in one epoch."""
        return len(self)

    def order(self, generator: torch.Generator) -> Tensor:
        """Numbers (``epoch_length``,) of the images of one epoch of training, shuffled: here each image once."""
        return torch.randperm(len(self), generator=generator)

    def file_name(self, i: int) -> str:
        """Path of the image's file below the folder of images: what tells it from all others."""
        return self.path(i).name

    def view(self, i: int, flip: bool = False, at: tuple[float, ...] | None = None) -> Tensor:
        """The cut image alone (3, S, S), for training; ``flip`` and ``at`` (see ``crop_image``) vary it.

        With ``skip_corrupt``, an image that cannot be read is named in a warning, and the next readable one of the
        list takes its place.
        """
        image = None
        for j in range(i, i + len(self)):
            try:
                if (square := self._read_fast(j % len(self), at)) is not None:
                    return square.flip(-1) if flip else square
                image = self.read_image(j % len(self))
                break
            except (OSError, ValueError) as error:
                if not self.skip_corrupt:
                    raise
                warnings.warn(f'{error} (skipped: skip_corrupt=True)', stacklevel=2)
        if image is None:
            raise ValueError(f'not one of {len(self)} images can be read, the first of them {self.path(i)}')
        return self.cut(image, flip, at)

    def _read_fast(self, i: int, at: tuple[float, ...] | None) -> Tensor | None:
        """The cut image by OpenCV, if it is asked for and can be."""
        if self.image_reader != 'opencv' or self.protocol.image_resize != 'bicubic':
            return None
        from topdown.data.fast import read_square

        return read_square(self.path(i), self.true_size(i), self.image_size, at)

    def cut(self, image: Tensor, flip: bool, at: tuple[float, float] | None) -> Tensor:
        """A whole image as ``view`` gives it."""
        image = crop_image(image, self.image_size, at, self.protocol.image_resize)
        return image.flip(-1) if flip else image

    def shown(self, i: int) -> Tensor:
        """What figures show of an image (3, S, S)."""
        return self.view(i)

    def read_image(self, i: int) -> Tensor:
        """The whole image (3, H, W) float32 in [0, 1]."""
        return read_image_file(self.path(i), self.true_size(i))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Images are too small for several threads, which wait for each other where processors are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def load(data: ImageSet, batches: Iterable[list], **options: object) -> Iterator[Tensor]:
    """Cut images (B, 3, S, S) from loader processes; what a file makes one of them raise arrives as one message.

    Args:
        data: the images.
        batches: lists of the arguments of ``view``.
        options: of ``DataLoader``. It draws from a generator of its own: from the global one, resuming would differ.

    Raises:
        OSError, ValueError: as ``view``.
    """
    options |= {'batch_sampler': batches, 'collate_fn': default_convert, 'generator': torch.Generator()}
    for found in DataLoader(_Views(data), **options):
        if isinstance(found, Exception):  # raised by a worker, torch would add its traceback to the message
            raise found
        yield found


class _Views(Dataset):
    """Batches of images, or the error that one of them met."""

    def __init__(self, data: ImageSet) -> None:
        self.data = data

    def __getitems__(self, batch: list) -> Tensor | Exception:
        try:
            with one_thread():
                return default_collate([self.data.view(*arguments) for arguments in batch])
        except (OSError, ValueError) as error:
            return error


def read_image_file(path: Path, size: tuple[int, int] | None = None) -> Tensor:
    """An image file as (3, H, W) float32 in [0, 1]; grayscale images become three equal channels.

    Transparent pixels are shown on white. 16-bit grays are divided by 65,535; grays of 32 bits and floats by 1, 255 or
    65,535, whichever is the first that is not below their largest value.

    Args:
        path: the file.
        size: height and width of its truth. None turns the image as its EXIF orientation says; otherwise the
            image stays as it is stored where that fits (as in COCO's own tools), and is turned where only that fits.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not an image, damaged, or fits ``size`` in neither way.
    """
    with opened(path, 'check the path, or unpack the images again') as image:
        stored, orientation = _header(image)
        turned = _upright(stored, orientation)
        if size is None or (stored != size and turned == size):
            image = ImageOps.exif_transpose(image)
        array = _pixels(image) if size in (None, stored, turned) else None
    if array is None:
        _refuse_size(path, stored, size)
    if array.dtype != np.uint8:
        return torch.from_numpy(_gray(array, path)).expand(3, -1, -1)
    return as_image(array)


def _pixels(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8; (H, W) of wider grays, as they are."""
    if image.mode in ('I', 'F') or image.mode.startswith('I;16'):
        return np.array(image)
    if image.mode in ('RGBA', 'LA', 'PA', 'RGBa', 'La') or 'transparency' in image.info:
        image = image.convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    return np.array(image.convert('RGB'))


def _gray(array: np.ndarray, path: Path) -> np.ndarray:
    """(H, W) float32 in [0, 1] of 16-bit, 32-bit or float grays."""
    low, high = float(array.min()), float(array.max())
    floating = array.dtype.kind == 'f'
    scales = (65_535,) if array.dtype.itemsize == 2 else (1, 255, 65_535) if floating else (255, 65_535)
    scale = next((s for s in scales if high <= s), None)
    if not low >= 0 or scale is None:  # also of NaN
        raise ValueError(f'{path} holds grays from {low:g} to {high:g}: scale them to 8 or 16 bits')
    return (array / scale).astype(np.float32)


def stored_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file, from its header; errors as of ``read_image_file``."""
    with opened(path, 'check the path, or unpack the images again') as image:
        return image.height, image.width


def check_size(path: Path, size: tuple[int, int], report: Report) -> None:
    """Compare an image's header with the size of its truth; errors as of ``read_image_file``.

    An orientation that the size cannot decide about, such as upside down, is entered in the report.
    """
    with opened(path, 'check the path, or unpack the images again') as image:
        stored, orientation = _header(image)
    turned = _upright(stored, orientation)
    if size not in (stored, turned):
        _refuse_size(path, stored, size)
    if stored == turned and orientation != 1:
        reason = f'its EXIF orientation {orientation} fits its truth as well as none: it is read as it is stored'
        report.add(DOUBTFUL, reason, path.name)


def check_masks(path: Path, objects: int, pixels: int) -> None:
    """Refuse masks of so many objects in an image of so many pixels that memory would not do."""
    if objects * pixels > MOST_CELLS:
        raise ValueError(f'{path} has {objects} objects in {pixels} pixels: their masks do not fit into memory')


def _header(image: Image.Image) -> tuple[tuple[int, int], int]:
    """Height and width as stored, and the EXIF orientation, 1 for upright."""
    orientation = image.getexif().get(274, 1)
    return (image.height, image.width), orientation if orientation in range(1, 9) else 1


def _upright(stored: tuple[int, int], orientation: int) -> tuple[int, int]:
    return stored[::-1] if orientation > 4 else stored


def _refuse_size(path: Path, found: tuple[int, ...], size: tuple[int, int]) -> None:
    raise ValueError(
        f'{path} is {found[0]} x {found[1]} pixels, its annotation is for {size[0]} x {size[1]}: they do not belong '
        'together'
    )


@contextlib.contextmanager
def opened(path: Path, missing: str) -> Iterator[Image.Image]:
    """An image file, and one kind of error for whatever is wrong with it."""
    try:
        with open_image(path) as image:
            yield image
    except FileNotFoundError:
        raise FileNotFoundError(f'{path} is missing: {missing}') from None
    except Exception as error:  # a decoder raises whatever a damaged file makes it stumble over
        raise ValueError(f'{path} cannot be read ({brief(error)}): delete it and get it again') from error


def open_image(file: Path | BinaryIO, formats: Sequence[str] = FORMATS) -> Image.Image:
    """An image, not decoded yet, of these formats and of a size that memory is asked for."""
    image = Image.open(file, formats=formats)
    if image.width * image.height > MOST_PIXELS or max(image.size) > MOST_RATIO * min(image.size):
        raise ValueError(f'{image.height} x {image.width} pixels are too many, or too long a strip')
    return image


def as_image(array: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(array).permute(2, 0, 1).float().div_(255)


def read_labels(path: Path) -> np.ndarray:
    """An image of labels as (H, W) int64: palette indices or gray values of any number of bits.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or no label map (see ``label_map``).
    """
    with opened(path, 'every image needs its labels; unpack them again') as image:
        found, fault = label_map(image)
    if fault:
        raise ValueError(f'{path} {fault}')
    return found


def label_map(image: Image.Image) -> tuple[np.ndarray, str]:
    """Labels (H, W) int64 of an open image, and what is wrong if it is not a label map.

    What the file holds decides, not its name: JPEG and other lossy formats, several pages, colours, fractions and
    negative numbers are not labels. Values are those of the file: Pillow spreads grays of 2 and 4 bits over 0 to 255,
    and may invert those of 1 bit in a TIFF.
    """
    nothing = np.zeros((0, 0), np.int64)
    if image.format not in ('PNG', 'TIFF', 'BMP', 'GIF', 'PPM'):
        return nothing, f'is a {image.format} file: labels need a format without loss, such as PNG'
    if getattr(image, 'n_frames', 1) > 1:
        return nothing, f'has {image.n_frames} pages: labels are one map'
    packing = image.tile[0][3] if image.tile else ''
    packing = packing if isinstance(packing, str) else str(packing[0])
    if image.mode == '1' and image.format == 'TIFF':
        return nothing, 'is a TIFF of 1 bit, which programs read inverted or not: save it with 8 bits'
    array = np.array(image)
    if array.ndim != 2:
        return nothing, f'holds colours, shape {array.shape}: labels must be a palette or gray image'
    if packing in ('L;2', 'L;4'):
        array = array // {'L;2': 85, 'L;4': 17}[packing]
    if image.mode == 'P':
        array = _undo_renumbering(array, np.array(image.getpalette()).reshape(-1, 3))
    return whole_numbers(array)


def _undo_renumbering(indices: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Labels of a palette image as they were before a program that makes PNGs smaller renumbered its palette.

    Such programs keep colours and change indices, and turn gray maps of few labels into palettes. A palette of grays
    other than the indices holds gray labels; one of VOC's colours in other places holds VOC's labels.
    """
    used = np.flatnonzero(np.bincount(indices.ravel()))
    colours = palette[used]
    if (colours == colours[:, :1]).all():
        labels = colours[:, 0]
    else:
        known = {tuple(colour): label for label, colour in enumerate(voc_colours())}
        labels = np.array([known.get(tuple(colour), -1) for colour in colours.tolist()])
    if len(set(labels.tolist())) < len(used) or labels.min() < 0:
        return indices  # a palette of its own: indices are labels
    table = np.zeros(256, np.int64)
    table[used] = labels
    return table[indices]


def voc_colours() -> list[tuple[int, int, int]]:
    """VOC's colour of every label: bits 0, 1, 2 of it are the highest bits of red, green and blue, 3, 4, 5 the next."""
    return [
        tuple(sum((label >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8)) for channel in range(3))
        for label in range(256)
    ]


def whole_numbers(array: np.ndarray) -> tuple[np.ndarray, str]:
    """Any array as int64, and what is wrong if it holds more than whole numbers from 0."""
    if array.dtype.kind not in 'biuf' or not (array.size and np.isfinite(array).all()):
        return np.zeros(array.shape, np.int64), f'holds no labels, but {array.dtype} that is empty or not finite'
    if array.min() < 0 or array.max() > 2**62 or (array.dtype.kind == 'f' and (array % 1).any()):
        return np.zeros(array.shape, np.int64), (
            f'holds numbers from {array.min():g} to {array.max():g}: labels are whole numbers from 0'
        )
    return array.astype(np.int64), ''


def crop_image(image: Tensor, size: int, at: tuple[float, ...] | None = None, resize: str = 'bicubic') -> Tensor:
    """(3, H, W) -> (3, size, size): short side to ``size``, crop, clamp to [0, 1].

    The crop lies in the centre, or at shares ``at`` (down, right; each in [0, 1]) of the room there is. ``resize`` is
    one of ``Protocol.image_resize``. Under 'square', which does not clamp, two more shares are of a crop's area, from
    0.75 to 1 of the largest square's, and of its aspect, from 3 / 4 to 4 / 3: it is stretched to a square.
    """
    height, width = image.shape[-2:]
    if resize == 'square':
        area, aspect = (0.75 + at[2] / 4, (4 / 3) ** (2 * at[3] - 1)) if at else (1, 1)
        sides = (round(min(height, width) * share**0.5) for share in (area / aspect, area * aspect))
        image = _levels(crop_square(image, (min(height, next(sides)), min(width, next(sides))), resize, at))
        larger = F.interpolate(image[None], round(size / 0.875), mode='bilinear', antialias=True)
        return F.interpolate(larger / 255, size, mode='bicubic')[0]
    if min(height, width) != size:
        new, mode = short_side(height, width, size, resize), 'bilinear' if resize == 'opencv' else resize
        image = F.interpolate(image[None], new, mode=mode, align_corners=False, antialias=resize == 'bilinear')[0]
        image = _levels(image) / 255 if resize == 'opencv' else image
    return crop_square(image, (size, size), resize, at).clamp(0, 1)


def crop_masks(masks: np.ndarray, size: int, resize: str = 'nearest-exact') -> np.ndarray:
    """(..., H, W) bool or whole numbers -> (..., size, size): short side to ``size`` by nearest neighbour, centre crop.

    ``resize`` is one of ``Protocol.mask_resize``.
    """
    if resize == 'square':
        return crop_masks(crop_square(masks, (min(masks.shape[-2:]),) * 2, resize), size)
    new = short_side(*masks.shape[-2:], size, resize)
    rows, columns = (
        _nearest(old, extent, resize)[first : first + size]
        for old, extent, first in zip(masks.shape[-2:], new, _centre(new, (size, size), resize), strict=True)
    )
    return masks[..., rows[:, None], columns]


def _nearest(old: int, new: int, resize: str) -> np.ndarray:
    """Which of ``old`` places each of ``new`` ones shows: torch's own choice; that in float64 is OpenCV's."""
    if resize == 'opencv':
        return np.minimum(np.arange(new) * (1 / (new / old)), old - 1).astype(int)
    return F.interpolate(torch.arange(old, dtype=torch.float32)[None, None], new, mode=resize)[0, 0].long().numpy()


def _levels(image: Tensor) -> Tensor:
    """As 8 bits have it, uint8."""
    return image.mul(255).add(0.5).to(torch.uint8)


def short_side(height: int, width: int, size: int, resize: str = 'bicubic') -> tuple[int, int]:
    """torchvision's rule: the short side becomes ``size``, the long one int(size * long / short). OpenCV: rounded."""
    if resize == 'opencv':
        return round(height * max(size / height, size / width)), round(width * max(size / height, size / width))
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


def crop_square(image, size: tuple[int, int], resize: str, at: tuple[float, ...] | None = None):
    """(..., H, W) tensor or array -> (..., height, width)."""
    top, left = _centre(image.shape[-2:], size, resize)
    if at is not None:
        top, left = (round(at[n] * (image.shape[n - 2] - size[n])) for n in (0, 1))
    return image[..., top : top + size[0], left : left + size[1]]


def _centre(shape: tuple[int, int] | torch.Size, size: tuple[int, int], resize: str) -> tuple[int, int]:
    whole = int if resize in ('opencv', 'square') else round
    return whole((shape[0] - size[0]) / 2), whole((shape[1] - size[1]) / 2)
