"""Records of COCO files made by anybody: each is checked here, and nowhere else, before anything uses it.

A record becomes a checked one, or is left out with a reason, or is refused by a message that names it and its field;
``Report`` keeps what became of which. Masks leave this module as run-length codes that fill their image exactly, so
that only numbers of a sane size ever reach the C library that draws polygons and decodes masks.

COCO writes runs column by column; a compressed code is a string of 6-bit characters (from '0'), five bits of a number
each, low bits first, the sixth for 'goes on'; from the fourth number on, differences to the number before the last.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import urlsplit

import msgspec
import numpy as np
from pycocotools import mask as mask_tools

from topdown.data.base import MOST_PIXELS
from topdown.data.report import DOUBTFUL, LEFT_OUT, NOTE, REFUSED, Report
from topdown.files import brief, read_json

REACH = 10
"""How many image sides a coordinate may lie away from 0."""
LONGEST = 2_000_000
"""Pixels that the outline of a polygon may go through; drawing takes memory by it."""
BIGGEST = 2**63 - 1
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
show = _SHORT.repr
"""Any value as text of a bounded length."""


class NoMask(Exception):
    """An object has no usable mask; the message is the reason."""


@dataclass
class ImageRecord:
    """Where an image lies and how large it is said to be."""

    id: int | str
    name: str  # path below the folder of images, with forward slashes
    size: tuple[int, int] | None  # height and width; None if the record does not say


@dataclass
class ObjectRecord:
    """One annotated object."""

    image: int | str
    category: int
    crowd: bool
    rle: dict  # COCO's compressed code: {'size': [height, width], 'counts': bytes}
    ignored: bool = False  # not to be evaluated, as some evaluators have it


class _Lists(msgspec.Struct):
    """What of a COCO file is wanted where annotations are not."""

    images: object = msgspec.UNSET
    categories: object = msgspec.UNSET


def read_lists(path: Path, remedy: str) -> dict:
    """Images and categories of a COCO file, without a word of its annotations in memory; errors as of ``read_json``.

    Python's own reader takes 2.8 GB and 10 s for the training images of COCO, this one 0.5 GB and a second.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_Lists)
    except (msgspec.MsgspecError, RecursionError):  # also of what Python's reader takes, such as NaN
        return read_json(path, remedy)
    return {name: value for name, value in msgspec.structs.asdict(found).items() if value is not msgspec.UNSET}


def rows_of(content: dict, key: str, path: Path) -> list:
    """One of the lists of a COCO file.

    Raises:
        ValueError: if it is missing or no list.
    """
    if key not in content:
        raise ValueError(
            f'{path} has no {key}: it is not a COCO instances file; use instances_train2017.json and '
            'instances_val2017.json, or such as they, not image lists, captions, keypoints or detection results'
        )
    if not isinstance(content[key], list):
        raise ValueError(f'{path}: {key} must be a list, got {show(content[key])}')
    return content[key]


# --------------------------------------------------------------------------------------------------- single fields


def whole(record: dict, field: str, low: int = -BIGGEST, high: int = BIGGEST) -> int:
    """A field as a whole number: an int, or a float or text that is one. True and False are none.

    Raises:
        ValueError: naming the field.
    """
    if field not in record:
        raise ValueError(f'{field} is missing')
    value = record[field]
    if isinstance(value, str) and re.fullmatch(r'\s*[+-]?\d{1,19}(\.0*)?\s*', value, re.ASCII):
        value = int(value.partition('.')[0])
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f'{field} must be a whole number, got {show(record[field])}')
    if not low <= value <= high:
        raise ValueError(f'{field} must lie from {low} to {high}, got {show(record[field])}')
    return value


def inside(name: str) -> str:
    """A file name as a path below its folder, with forward slashes.

    Raises:
        ValueError: if it is empty, absolute, leads out of the folder or is not one that a file can have.
    """
    path = PurePosixPath(name.replace('\\', '/'))
    if not path.name or '..' in path.parts or path.is_absolute() or PureWindowsPath(name).drive:
        raise ValueError(f'file_name must be a path below the folder of images, got {show(name)}')
    strange = re.search('[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]', name)
    if strange or max(len(part.encode()) for part in path.parts) > 255:
        raise ValueError(f'file_name is none that a file can have: {show(name)}')
    return str(path)


def label(kind: str, record: object, place: int) -> str:
    """What a record is called in messages: by its id, or by its place in the list, counted from 1."""
    known = record.get('id') if isinstance(record, dict) else None
    if isinstance(known, (int, str)) and not isinstance(known, bool):
        return f'{kind} {show(known)}'
    return f'{kind} number {place}'


# ----------------------------------------------------------------------------------------------------- whole lists


def check_all(kind: str, rows: list, report: Report, check: Callable[[dict, str], None]) -> None:
    """Run ``check(record, name)`` over a list; what it refuses or leaves out is entered in the report."""
    names: set[str] = set()
    for place, record in enumerate(rows, 1):
        name = label(kind, record, place)
        name = f'{name} (number {place} of the list)' if name in names else name
        names.add(name)
        try:
            if not isinstance(record, dict):
                raise ValueError(f'must be an object, got {show(record)}')
            check(record, name)
        except NoMask as reason:
            report.add(LEFT_OUT, str(reason), name)
        except ValueError as error:
            report.add(REFUSED, str(error), name)


def check_categories(rows: list, report: Report) -> dict[int, str]:
    """Category id -> name; a category without a name is called by its id."""
    found: dict[int, str] = {}

    def check(record: dict, _: str) -> None:
        number = whole(record, 'id')
        if number in found:
            raise ValueError(f'id {number} is taken by category {found[number]!r}')
        name = record.get('name')
        found[number] = str(number) if name is None or name == '' else str(name)[:200]

    check_all('category', rows, report, check)
    by_name: dict[str, int] = {}
    for number, name in found.items():
        if name in by_name:
            report.add(DOUBTFUL, f'is called {name!r} like category {by_name[name]}', f'category {number}')
        by_name.setdefault(name, number)
    return found


def check_images(rows: list, report: Report) -> tuple[dict[int | str, ImageRecord], Callable[[dict, str], int | str]]:
    """Checked image records by id, and what reads an id of an image from a field of another record.

    Ids are whole numbers; in a file where all are text and one is not a number, they are text.
    """
    raw = [record.get('id') for record in rows if isinstance(record, dict)]
    texts = {value for value in raw if _is_text(value)}
    as_text = bool(texts) and all(isinstance(value, str) for value in raw)
    other = next((value for value in raw if not _is_text(value)), None)

    def key(record: dict, field: str) -> int | str:
        value = record.get(field)
        if as_text:
            return value if isinstance(value, str) else str(whole(record, field))
        if texts and _is_text(value):
            raise ValueError(f'ids of images are of two types, such as {show(value)} and {show(other)}')
        return whole(record, field)

    found: dict[int | str, ImageRecord] = {}
    names: dict[str, int | str] = {}

    def check(record: dict, _: str) -> None:
        number = key(record, 'id')
        if number in found:
            raise ValueError(f'id {number!r} is taken by another image, {found[number].name}')
        found[number] = ImageRecord(number, _name(record), _size(record))
        if found[number].name in names:
            report.add(DOUBTFUL, f'is the file of image {names[found[number].name]!r}', f'image {number!r}')
        names.setdefault(found[number].name, number)

    check_all('image', rows, report, check)
    return found, key


def _is_text(value: object) -> bool:
    """Whether an id is text that is not a number."""
    try:
        whole({'id': value}, 'id')
    except ValueError:
        return isinstance(value, str)
    return False


def _name(record: dict) -> str:
    """Path of the file below its folder: file_name, or, as in LVIS, the last part of coco_url."""
    name, url = record.get('file_name'), record.get('coco_url')
    if name is None and isinstance(url, str):
        name = PurePosixPath(urlsplit(url).path).name
    if not isinstance(name, str):
        raise ValueError(f'file_name must be text, got {show(name)}')
    return inside(name)


def _size(record: dict) -> tuple[int, int] | None:
    """Height and width; None where one of them is missing or 0, which stands for 'unknown'."""
    given = {field: record[field] for field in ('height', 'width') if record.get(field) is not None}
    found = {field: whole(given, field, 0, MOST_PIXELS) for field in given}
    if not all(found.get(field) for field in ('height', 'width')):
        return None
    if found['height'] * found['width'] > MOST_PIXELS:
        raise ValueError(f'height and width, {found["height"]} x {found["width"]}, are more than {MOST_PIXELS} pixels')
    return found['height'], found['width']


def check_objects(
    rows: list, image_key: Callable[[dict, str], int | str], size_of: Callable[[int | str], tuple[int, int] | None],
    listed: dict[int | str, ImageRecord], names: dict[int, str], report: Report, trusted: bool = False,
) -> list[ObjectRecord]:  # fmt: skip
    """Checked objects, in their order.

    Args:
        rows: raw annotations.
        image_key: from ``check_images``.
        size_of: image id -> height and width, or None for an image whose objects are not wanted.
        listed: images of the file; objects of others are left out.
        names: categories of the file; objects of others are kept, and doubtful.
        report: gets all that is not simply used.
        trusted: of COCO's own file, where boxes and areas that do not fit are worth a note only.
    """
    found: list[ObjectRecord] = []
    ids: dict[object, str] = {}
    twins: dict[tuple, str] = {}

    def check(record: dict, name: str) -> None:
        image = image_key(record, 'image_id')
        if image not in listed:
            raise NoMask(f'is of image {image!r}, which the file does not list')
        size = size_of(image)
        if size is None:
            return
        if not {'category_id', 'segmentation'} & set(record):
            raise ValueError('category_id and segmentation are missing: it is not a COCO instances file, but captions?')
        category = whole(record, 'category_id')
        crowd = record.get('iscrowd')  # a bool is one, null or nothing is not a crowd
        crowd = bool(crowd) if crowd is None or isinstance(crowd, bool) else whole(record, 'iscrowd', 0, 1) == 1
        rle, ignored = encode_mask(record.get('segmentation'), *size)
        found.append(ObjectRecord(image, category, crowd, rle, bool(record.get('ignore'))))
        for doubt in compare(record, rle):
            report.add(NOTE if trusted else DOUBTFUL, doubt, name)
        if ignored:
            report.add(NOTE, 'parts of fewer than three points are ignored', name)
        if category not in names:
            report.add(DOUBTFUL, f'unknown category {category}', name)
        if ids.setdefault(record.get('id') if isinstance(record.get('id'), (int, str)) else name, name) is not name:
            report.add(DOUBTFUL, 'several annotations have this id', name)
        first = twins.setdefault((image, category, rle['counts']), name)
        if first is not name:
            report.add(DOUBTFUL, f'repeats {first}', name)

    check_all('annotation', rows, report, check)
    return found


# ----------------------------------------------------------------------------------------------------------- masks


def compare(record: dict, rle: dict) -> list[str]:
    """How a mask contradicts the box and the area that its own record gives, beyond what other ways of drawing explain.

    Contours of OpenCV and rounding move an edge by a pixel or two, and an area by half of the outline.
    """
    found, box = float(mask_tools.area(rle)), mask_tools.toBbox(rle)
    doubts = []
    area, given = record.get('area'), record.get('bbox')
    area = min(max(area, -1e18), 1e18) if type(area) in (int, float) else found  # larger ones may be no floats
    if not abs(found - area) <= box[2] + box[3] + 2 + 0.1 * max(found, area):
        doubts.append('its mask and its area disagree')
    if isinstance(given, list) and len(given) == 4 and all(type(v) in (int, float) and abs(v) < 1e9 for v in given):
        height, width = rle['size']
        x, y, w, h = given
        edges = np.clip([x, y, x + w, y + h], 0, [width, height] * 2)
        apart = np.abs(edges - [box[0], box[1], box[0] + box[2], box[1] + box[3]])
        if apart.max() > 3 + 0.1 * max(box[2:]):
            doubts.append('its mask and its box disagree')
    return doubts


def encode_mask(segmentation: object, height: int, width: int) -> tuple[dict, int]:
    """Polygons, uncompressed or compressed run-length code of anybody -> compressed code that fills the image.

    Returns:
        COCO's compressed code, safe to decode, and how many parts of polygons were ignored.

    Raises:
        NoMask: if there is no mask, or none with a pixel.
        ValueError: if it has a form that is not known, or numbers that no mask has.
    """
    ignored = 0
    counts = segmentation.get('counts') if isinstance(segmentation, dict) else None
    if (
        segmentation is None
        or segmentation in ([], {}, [[]], '')
        or (isinstance(segmentation, dict) and counts in ([], ''))
    ):
        raise NoMask('has no mask, but a box at most: its segmentation is empty or missing')
    if isinstance(segmentation, dict):
        rle = _runs(segmentation, height, width)
    elif isinstance(segmentation, list):
        polygons, ignored = _polygons(segmentation, height, width)
        rle = mask_tools.merge(mask_tools.frPyObjects(polygons, height, width))
    else:
        raise ValueError(f'segmentation is of an unknown form: {show(segmentation)}')
    if not mask_tools.area(rle):
        raise NoMask('has no area: no pixel lies in its mask')
    return rle, ignored


def _numbers(values: list, field: str) -> np.ndarray:
    """(n,) float64, all finite."""
    if not all(type(v) in (int, float) for v in values):
        strange = next(v for v in values if type(v) not in (int, float))
        raise ValueError(f'{field} must hold numbers, got {show(strange)}')
    try:
        found = np.array(values, np.float64)
    except OverflowError:
        found = np.array([np.inf])
    if not np.isfinite(found).all():
        raise ValueError(f'{field} holds a number that is not finite')
    return found


def _polygons(segmentation: list, height: int, width: int) -> tuple[list[list[float]], int]:
    """Polygons of at least three points, within reach of the image; how many shorter parts there were."""
    parts = [segmentation] if all(type(v) in (int, float) for v in segmentation) else segmentation
    if not all(isinstance(part, list) for part in parts):
        strange = next(part for part in parts if not isinstance(part, list))
        form = f'an object of {brief(", ".join(strange))}' if isinstance(strange, dict) else show(strange)
        raise ValueError(f'segmentation is of an unknown form, {form} where a polygon [x1, y1, x2, y2, ...] should be')
    if len(parts) > 2 and all(len(part) == 2 for part in parts):
        raise ValueError('segmentation is of an unknown form: points one by one instead of [[x1, y1, x2, y2, ...]]')
    kept, steps = [], 0.0
    for part in parts:
        points = _numbers(part, 'segmentation')
        if len(points) % 2:
            raise ValueError(f'segmentation has a polygon of {len(points)} numbers, which are not pairs of x and y')
        if len(points) < 6:
            continue
        if np.abs(points).max() > REACH * max(height, width):
            far = points[np.abs(points).argmax()]
            raise ValueError(f'segmentation has a coordinate of {far:g} in an image of {height} x {width}')
        pairs = points.reshape(-1, 2)
        steps += np.abs(np.diff(pairs, axis=0, append=pairs[:1])).max(1).sum()
        kept.append(points.tolist())
    if not kept:
        raise NoMask('has no area: its polygons have fewer than three points')
    if steps > LONGEST:
        raise ValueError(f'segmentation has an outline of {steps:.0f} pixels in an image of {height} x {width}')
    if max(map(max, kept)) <= 1 and min(map(min, kept)) >= 0 and any(v % 1 for part in kept for v in part):
        raise NoMask('has no area: its coordinates lie between 0 and 1, as shares of the image')
    return kept, len(parts) - len(kept)


def _runs(segmentation: dict, height: int, width: int) -> dict:
    """Checked compressed code of a run-length code in either form."""
    if not {'size', 'counts'} <= set(segmentation):
        raise ValueError(
            f'segmentation is of an unknown form, with {brief(", ".join(segmentation))} instead of size and counts'
        )
    size, counts = segmentation['size'], segmentation['counts']
    if not isinstance(size, list) or len(size) != 2:
        raise ValueError(f'size of its segmentation must be [height, width], got {show(size)}')
    size = [whole({'size of its segmentation': v}, 'size of its segmentation') for v in size]
    if size != [height, width]:
        raise ValueError(f'its segmentation has size {size[0]} x {size[1]}, its image {height} x {width}')
    if isinstance(counts, list):
        runs = _numbers(counts, 'counts of its segmentation')
    elif isinstance(counts, str):
        runs = decode_counts(counts)
    else:
        raise ValueError(f'counts of its segmentation must be a list or text, got {show(counts)}')
    if (runs < 0).any() or (runs % 1).any():
        raise ValueError('counts of its segmentation must be whole numbers from 0')
    if runs.sum() != height * width:
        raise ValueError(
            f'counts of its segmentation fill {runs.sum():.0f} of {height * width} pixels, {height} x {width}'
        )
    if isinstance(counts, str):
        return {'size': size, 'counts': counts.encode()}
    return mask_tools.frPyObjects({'size': size, 'counts': runs.astype(np.int64).tolist()}, height, width)


def decode_counts(text: str) -> np.ndarray:
    """Runs (n,) int64 of a compressed code.

    Raises:
        ValueError: if it is none.
    """
    codes = np.frombuffer(text.encode('utf-32-le', 'surrogatepass'), np.uint32).astype(np.int64) - 48
    if (codes < 0).any() or (codes > 63).any() or codes[-1] & 32:
        hint = ": the text of a Python bytes object, b'...', instead of its content" if text[:2] in ("b'", 'b"') else ''
        raise ValueError(f'counts of its segmentation are not compressed run-length code{hint}')
    last = codes & 32 == 0
    ends = np.flatnonzero(last)
    starts = np.append(0, ends[:-1] + 1)
    places = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    if places.max() > 6:
        raise ValueError('counts of its segmentation hold a number of more than 35 bits')
    values = np.add.reduceat((codes & 31) << (5 * places), starts)
    values -= np.where(codes[ends] & 16, 1 << (5 * (places[ends] + 1)), 0)
    values[1::2] = values[1::2].cumsum()
    values[2::2] = values[2::2].cumsum()
    return values
