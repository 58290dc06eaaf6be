"""A part of COCO that a list of image files names, as a data set of its own."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import msgspec

from topdown.data.coco import AGAIN, COCO_HELP
from topdown.data.records import inside
from topdown.files import brief, fresh, write_text


class _Record(msgspec.Struct):
    id: int
    file_name: str = ''
    image_id: int = 0


def read_list(path: Path) -> dict[str, str]:
    """File name -> split, from the columns ``file_name`` and ``split`` of a CSV file.

    Raises:
        ValueError, OSError: if the file cannot be read or holds anything else, naming file and row.
    """
    found = {}
    try:
        with path.open(newline='', encoding='utf-8-sig') as file:
            for number, row in enumerate(csv.DictReader(file), 2):
                name, split = row.get('file_name'), row.get('split')
                if not name or split not in ('train', 'val') or name in found:
                    raise ValueError(f'row {number} needs a new file_name, and train or val as split: {name}, {split}')
                found[inside(name)] = split
    except (ValueError, csv.Error) as error:
        raise ValueError(f'{path} is not a list of images: {brief(error)}') from error
    if not found:
        raise ValueError(f'{path} lists no images')
    return found


def make_subset(listed: Path, root: Path, out: Path) -> dict[str, tuple[int, int]]:
    """Make a data set in COCO's layout of the listed images, and count images and annotations by split.

    The list says which split an image belongs to; in COCO it may be of either. Records are copied as they are written,
    images are hard links where there can be, else copies; annotation files are written last. What is there already
    stays, so that the same call goes on where it was stopped.

    Raises:
        FileNotFoundError: if an image is not in COCO's annotation files or not on the disk, before anything is written.
        ValueError: if the list or an annotation file cannot be read, or ``out`` holds another data set.
    """
    wanted, sources, heads = read_list(listed), {}, {}
    kept = {split: {'images': [], 'annotations': []} for split in ('train', 'val')}
    for own in kept:
        path, split_of = root / 'annotations' / f'instances_{own}2017.json', {}
        if not path.is_file():
            continue
        try:
            heads = msgspec.json.decode(path.read_bytes(), type=dict[str, msgspec.Raw])
            for key in ('images', 'annotations'):
                for raw in msgspec.json.decode(heads.pop(key), type=list[msgspec.Raw]):
                    record = msgspec.json.decode(raw, type=_Record)
                    if key == 'images' and record.file_name in wanted:
                        split_of[record.id] = wanted[record.file_name]
                        sources[record.file_name] = root / f'{own}2017' / record.file_name
                    split = split_of.get(record.id if key == 'images' else record.image_id)
                    if split:
                        kept[split][key].append(raw)
        except (msgspec.MsgspecError, KeyError) as error:
            raise ValueError(f'{path} is not a COCO instances file ({brief(error)}): {AGAIN}') from error
    gone = {name for name, path in sources.items() if not path.is_file()}
    for names, what in ((wanted.keys() - sources.keys(), 'in an annotation file'), (gone, 'among the images')):
        if names:
            raise FileNotFoundError(
                f'{len(names)} of {len(wanted)} images of {listed} are not {what} of {root}, such as {min(names)}. '
                f'{COCO_HELP}'
            )
    files = {split: out / 'annotations' / f'instances_{split}2017.json' for split in kept}
    texts = {files[split]: msgspec.json.encode({**heads, **lists}) for split, lists in kept.items()}
    for target, text in texts.items():
        if target.is_file() and target.read_bytes() != text:
            raise ValueError(f'{target} is of another data set: choose another folder')
    for name, source in sources.items():
        target = out / f'{wanted[name]}2017' / name
        if not target.is_file() or target.stat().st_size != source.stat().st_size:
            with fresh(target) as place:
                try:
                    os.link(source, place)
                except OSError:  # another file system, or one without links
                    shutil.copyfile(source, place)
    for target, text in texts.items():
        write_text(target, text.decode())
    return {split: (len(lists['images']), len(lists['annotations'])) for split, lists in kept.items()}
