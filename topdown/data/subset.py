"""A part of COCO that a list of image files names, as a data set of its own."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import msgspec

from topdown.data.coco import AGAIN, COCO_HELP
from topdown.data.records import inside
from topdown.files import brief, fresh

SPLITS = ('train', 'val')


class _File(msgspec.Struct, omit_defaults=True):
    """A COCO file whose records are kept as they are written."""

    images: list[msgspec.Raw] = []
    annotations: list[msgspec.Raw] = []
    categories: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    licenses: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    info: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Image(msgspec.Struct):
    id: int
    file_name: str


class _Object(msgspec.Struct):
    image_id: int


def read_list(path: Path) -> dict[str, str]:
    """File name -> split, from the columns ``file_name`` and ``split`` of a CSV file.

    Raises:
        FileNotFoundError, ValueError: if there is no such file, or it holds anything else.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path} is missing: name a CSV file with the columns file_name and split')
    try:
        with path.open(newline='', encoding='utf-8-sig') as file:
            rows = [(row.get('file_name'), row.get('split')) for row in csv.DictReader(file)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f'{path} is not a CSV file ({brief(error)})') from error
    found = {}
    for line, (name, split) in enumerate(rows, 2):
        if not name or split not in SPLITS or name in found:
            twice = 'is listed twice' if name in found else 'needs file_name, and train or val as split'
            raise ValueError(f'{path}, row {line}: {name!r} {twice}, got split {split!r}')
        found[inside(name)] = split
    if not found:
        raise ValueError(f'{path} lists no images')
    return found


def make_subset(listed: Path, root: Path, out: Path) -> dict[str, tuple[int, int]]:
    """Make a data set in COCO's layout of the listed images: ``topdown data subset``.

    The list says which split an image belongs to; in COCO it may be of either. Records are copied as they are written,
    images are hard links where there can be, else copies; annotation files are written last. What is there already
    stays, so that the same call goes on where it was stopped.

    Returns:
        Split -> number of images and of annotations.

    Raises:
        FileNotFoundError: if an image is not in COCO's annotation files or not on the disk, before anything is written.
        ValueError: if the list or an annotation file cannot be read, or ``out`` holds another data set.
    """
    wanted, parts, sources = read_list(listed), {split: _File() for split in SPLITS}, {}
    for own in SPLITS:
        path = root / 'annotations' / f'instances_{own}2017.json'
        if not path.is_file():
            continue
        split_of = {}
        try:
            whole = msgspec.json.decode(path.read_bytes(), type=_File)
            for record in whole.images:
                image = msgspec.json.decode(record, type=_Image)
                if image.file_name in wanted:
                    split = split_of[image.id] = wanted[image.file_name]
                    sources[image.file_name] = root / f'{own}2017' / image.file_name
                    parts[split].images.append(record)
            for record in whole.annotations:
                split = split_of.get(msgspec.json.decode(record, type=_Object).image_id)
                if split:
                    parts[split].annotations.append(record)
        except msgspec.MsgspecError as error:
            raise ValueError(f'{path} is not a COCO instances file ({brief(error)}): {AGAIN}') from error
        for part in parts.values():
            part.categories, part.licenses, part.info = whole.categories, whole.licenses, whole.info
    _check(listed, wanted.keys() - sources.keys(), wanted, f'are in no annotation file of {root}')
    gone = {name for name, path in sources.items() if not path.is_file()}
    _check(listed, gone, wanted, f'have no file in {root / "train2017"} or {root / "val2017"}')
    texts = {}
    for split, part in parts.items():
        target = out / 'annotations' / f'instances_{split}2017.json'
        texts[target] = msgspec.json.encode(part)
        if target.is_file() and target.read_bytes() != texts[target]:
            raise ValueError(f'{target} is of another data set: choose another folder')
    for name, source in sources.items():
        target = out / f'{wanted[name]}2017' / name
        if not target.is_file() or target.stat().st_size != source.stat().st_size:
            with fresh(target) as place:
                _link(source, place)
    for target, text in texts.items():
        with fresh(target) as place:
            place.write_bytes(text)
    return {split: (len(part.images), len(part.annotations)) for split, part in parts.items()}


def _check(listed: Path, missing: set[str], wanted: dict[str, str], what: str) -> None:
    if missing:
        raise FileNotFoundError(
            f'{len(missing)} of {len(wanted)} images of {listed} {what}, such as {min(missing)}. {COCO_HELP}'
        )


def _link(source: Path, target: Path) -> None:
    """Hard link, or a copy where file systems differ or know no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
