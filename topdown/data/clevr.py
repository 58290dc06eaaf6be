"""CLEVR with masks (Kabra et al. 2019, multi-object datasets): scenes of at most six objects, known as CLEVR6.

The official file is one TFRecord file of 100,000 scenes, compressed as a whole, so that no scene can be read without
decompressing all scenes before it. ``prepare_clevr`` goes through it once and writes what is used of it in small
uncompressed TFRecord files, from which any scene can be read at once::

    root/
      clevr_with_masks_train.tfrecords      the official file; not needed any more once the rest is there
      clevr6/
        train-00000.tfrecord ...            1,000 official scenes each, those with more than six objects left out
        val-00085.tfrecord ...
        clevr6.json                         which scenes are in which file, written last: the set is whole

Splits: the official file has one. Here training has its first 70,000 scenes, as Slot Attention (Locatello et al. 2020)
was trained on, and validation the last 15,000; the 15,000 between them are unused. This choice is this project's.

Images are cut as in the Slot Attention paper, rows 29 to 221 and columns 64 to 256 of 240 x 320, and stored as PNG.
Masks are stored without loss in one 16-bit PNG: bit o of a pixel says that it belongs to entity o, background first.
"""

from __future__ import annotations

import io
import json
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from topdown.data.base import Annotation, ImageSet, as_image, open_image
from topdown.data.records import inside
from topdown.data.tfrecord import RecordFile, make_example, parse_example, read_gzip, write_record
from topdown.datasets import DATASETS
from topdown.files import brief, fresh, read_json, write_text

OFFICIAL_FILE = 'clevr_with_masks_train.tfrecords'
CLEVR_HELP = DATASETS['clevr6'].help
RECORDS, TRAIN, VAL = 100_000, 70_000, 15_000
"""Scenes of the official file, the first ones that are for training, the last ones that are for validation."""
SHARD = 1_000
"""Official scenes a file."""
MOST_OBJECTS = 6
HEIGHT, WIDTH, ENTITIES = 240, 320, 11
ROWS, COLUMNS = slice(29, 221), slice(64, 256)
VERSION = 1


class Clevr6(ImageSet):
    """Scenes of CLEVR with masks that have at most six objects, 192 x 192 pixels.

    Args:
        root: folder that ``prepare_clevr`` was given.
        split: 'train' or 'val'; see the top of this module.
        image_size, mask_size, limit, protocol: see ``ImageSet``.

    Raises:
        FileNotFoundError: if the prepared files are missing, saying how to prepare or how to get them.
        ValueError: if a file is damaged or not the one that was prepared.
    """

    REMEDY = 'delete the file and prepare again'

    def __init__(self, root: str | Path, split: str, image_size: int, mask_size: int, limit=0, protocol='oclf') -> None:
        if split not in ('train', 'val'):
            raise ValueError(f"split must be 'train' or 'val', got {split!r}")
        root = Path(root).expanduser()
        folder = next((p for p in (root / 'clevr6', root) if (p / 'clevr6.json').is_file()), None)
        if folder is None:
            official = find_official(root)
            if official is None:
                raise FileNotFoundError(f'{root / "clevr6" / "clevr6.json"} is missing. {CLEVR_HELP}')
            raise FileNotFoundError(
                f'{official} is there, but not prepared, or not to its end: run topdown data prepare clevr6 {root} '
                '(it goes on where it stopped)'
            )
        found = _read_contents(folder / 'clevr6.json')
        self.files, self.places, ids = [], [], []
        for name, scenes in found['splits'][split].items():
            if not (folder / name).is_file():
                raise FileNotFoundError(f'{folder / name} is missing: run topdown data prepare clevr6 {root} again')
            file = RecordFile(folder / name)
            if len(file) != len(scenes):
                raise ValueError(f'{folder / name} holds {len(file)} scenes instead of {len(scenes)}: {self.REMEDY}')
            self.places += [(len(self.files), record) for record in range(len(scenes))]
            self.files.append(file)
            ids += scenes
        names = {shape + 1: f'shape {shape}' for shape in found['shapes']} or {1: 'object'}
        super().__init__(ids, names, image_size, mask_size, limit, protocol)

    def path(self, i: int) -> Path:
        """The file that holds the scene."""
        return self.files[self.places[i][0]].path

    def file_name(self, i: int) -> str:
        """The scene's number in the official file, as if it were a file."""
        return f'clevr_{self.ids[i]:06d}.png'

    def read_image(self, i: int) -> Tensor:
        """The cut image (3, 192, 192) float32 in [0, 1]."""
        return as_image(self._decode(i, 'image'))

    def annotation(self, i: int) -> Annotation:
        """Visible pixels of every object of which the cut shows any; categories are shapes."""
        file, record = self.places[i]
        entities = self._decode(i, 'masks').astype(np.uint16)
        masks = (entities >> np.arange(1, ENTITIES, dtype=np.uint16)[:, None, None] & 1).astype(bool)
        seen = np.flatnonzero(masks.any((1, 2)))
        shapes = self.files[file].example(record, {'shape'}).get('shape', np.zeros(ENTITIES, np.int64))
        if len(shapes) != ENTITIES or getattr(shapes, 'dtype', None) != np.int64:
            raise ValueError(f'{self.path(i)}: {self.file_name(i)} has no shape for every object: {self.REMEDY}')
        categories = shapes[seen + 1] + 1
        return Annotation(masks[seen], categories, np.zeros(len(seen), bool))

    def _decode(self, i: int, name: str) -> np.ndarray:
        file, record = self.places[i]
        try:
            (content,) = self.files[file].example(record, {name})[name]
            with open_image(io.BytesIO(content), ['PNG']) as image:
                found = np.array(image)
            if found.shape != (192, 192, 3)[: 2 + (name == 'image')]:
                raise ValueError(f'its shape is {found.shape}')
        except Exception as error:  # a decoder raises whatever a damaged file makes it stumble over
            raise ValueError(
                f'{self.path(i)}: {name} of {self.file_name(i)} cannot be read ({brief(error)}): {self.REMEDY}'
            ) from error
        return found


def find_official(root: Path) -> Path | None:
    """The official file in a folder, or in ``clevr_with_masks/`` below it."""
    places = (root / OFFICIAL_FILE, root / 'clevr_with_masks' / OFFICIAL_FILE)
    return next((p for p in places if p.is_file()), None)


def prepare_clevr(
    root: str | Path,
    progress: bool = True,
    workers: int = 2,
    records: int = RECORDS,
    train: int = TRAIN,
    val: int = VAL,
    shard: int = SHARD,
) -> Path:
    """Convert the official file, going on where an earlier call stopped; nothing to do if all is there.

    A file is written under another name and moved into place when it is whole. Scenes of files that are there already
    have to be decompressed again, as the official file has no other way in, but nothing else.

    Args:
        root: folder that holds the official file, and will hold ``clevr6/``.
        progress: show a bar.
        workers: threads that check and cut scenes while the next ones are decompressed.
        records, train, val, shard: scenes of the official file, for training, for validation, and a file.

    Returns:
        The folder ``clevr6``.

    Raises:
        FileNotFoundError: if the official file is missing.
        ValueError: if it is damaged, cut off, or not CLEVR with masks.
    """
    root = Path(root).expanduser()
    folder = root / 'clevr6'
    contents = folder / 'clevr6.json'
    if contents.is_file():
        splits = _read_contents(contents)['splits']
        if all((folder / name).is_file() for part in splits.values() for name in part):
            return folder
    source = find_official(root)
    if source is None:
        raise FileNotFoundError(f'{root / OFFICIAL_FILE} is missing. {CLEVR_HELP}')
    contents.unlink(missing_ok=True)
    folder.mkdir(exist_ok=True)
    parts = {'train': (0, train), 'val': (records - val, records)}
    jobs = [
        (first, min(first + shard, stop), folder / f'{split}-{first // shard:05d}.tfrecord')
        for split, (start, stop) in parts.items()
        for first in range(start, stop, shard)
    ]
    missing = [job for job in jobs if not job[2].is_file()]
    if missing:
        _convert(source, missing, records, max(1, workers), progress)
    splits: dict[str, dict[str, list[int]]] = {split: {} for split in parts}
    shapes: set[int] = set()
    for _, _, path in jobs:
        file = RecordFile(path)
        scenes = [file.example(record, {'number', 'shape'}) for record in range(len(file))]
        splits[path.name.split('-')[0]][path.name] = [int(s['number'][0]) for s in scenes]
        shapes |= {int(shape) for s in scenes for shape in s.get('shape', ())}
    found = {'version': VERSION, 'source': source.name, 'shapes': sorted(shapes), 'splits': splits}
    write_text(contents, json.dumps(found))
    return folder


def _convert(source: Path, jobs: list[tuple[int, int, Path]], records: int, workers: int, progress: bool) -> None:
    """Write the files of the jobs (first scene, scene after the last, path), which are in order."""
    bar = tqdm(
        total=source.stat().st_size, desc=f'preparing {source.name}', unit='B', unit_scale=True, disable=not progress
    )
    number = jobs[0][0]
    with bar, ThreadPoolExecutor(workers) as pool:
        stream = read_gzip(source, number, lambda place: bar.update(place - bar.n))
        for first, stop, path in jobs:
            waiting: list[Future] = []
            with fresh(path) as part, part.open('wb') as file:

                def write(file=file, waiting=waiting) -> None:
                    if scene := waiting.pop(0).result():
                        write_record(file, scene)

                while number < stop:
                    data = next(stream, None)
                    if data is None:
                        raise ValueError(f'{source} ends after {number} of {records} scenes: get it again')
                    number += 1
                    if number <= first:
                        continue
                    waiting.append(pool.submit(convert_scene, data, number - 1, source))
                    if len(waiting) > 2 * workers:  # a scene has three megabytes
                        write()
                while waiting:
                    write()
                if stop == records and next(stream, None) is not None:
                    raise ValueError(f'{source} has more than {records} scenes: it is not the official file')


def convert_scene(data: bytes, number: int, source: Path) -> bytes | None:
    """An official record -> a record of the prepared form; None if it has more than six objects.

    Raises:
        ValueError: if the record is not one of CLEVR with masks.
    """
    where = f'{source}, record {number}'
    try:
        found = parse_example(data, {'image', 'mask', 'visibility', 'shape'}, {'image', 'mask', 'shape'})
        if len(found['visibility']) != ENTITIES or isinstance(found['visibility'], list):
            raise ValueError(f'{len(found["visibility"])} values of visibility instead of {ENTITIES}')
        if found['visibility'][1:].sum() > MOST_OBJECTS:
            return None
        image = found['image'].reshape(HEIGHT, WIDTH, 3)
        masks = found['mask'].reshape(ENTITIES, HEIGHT, WIDTH)
    except (KeyError, ValueError) as error:
        raise ValueError(f'{where} is none of CLEVR with masks ({error})') from error
    inside = masks > 127  # written as 0 and 255
    if not inside.any():
        raise ValueError(f'{where} has empty masks: it is none of CLEVR with masks')
    bits = np.zeros((192, 192), np.uint16)
    for entity, mask in enumerate(inside[:, ROWS, COLUMNS]):
        bits |= mask.astype(np.uint16) << np.uint16(entity)
    fields = {'number': np.array([number]), 'image': [_png(image[ROWS, COLUMNS])], 'masks': [_png(bits)]}
    if 'shape' in found:
        fields['shape'] = found['shape'].astype(np.int64)
    return make_example(fields)


def _png(array: np.ndarray) -> bytes:
    """Compression level 3 takes a quarter of the usual level's time and makes files an eighth larger."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, 'PNG', compress_level=3)
    return buffer.getvalue()


def _read_contents(path: Path) -> dict:
    found = read_json(path, again := 'delete it and prepare again')
    try:
        files = [item for split in ('train', 'val') for item in found['splits'][split].items()]
        numbers = [*found['shapes'], *(scene for _, scenes in files for scene in scenes)]
        sound = all(inside(name) == Path(name).name for name, _ in files) and all(type(n) is int for n in numbers)
    except (ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound or found.get('version') != VERSION:
        raise ValueError(f'{path} is damaged or of another version: {again}')
    return found
