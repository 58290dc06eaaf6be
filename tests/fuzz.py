"""Every parser on broken input: ``python -m tests.fuzz`` (``make fuzz``) tries over a million and writes its rows.

A parser here is a function that prepares a folder and returns an attempt: it makes one input from a random generator,
mostly a valid one with changes, reads it, and asserts what must hold of what was read. What was left whole must be
read, and come back as it was. An attempt is survived if it ends so, or by one ``ValueError`` or ``OSError`` of one line
that names the file or parameter. Everything else is a failure: other exceptions, several lines, ten seconds, four
gigabytes, or the end of the process.

Input i of a parser depends on the seed, the parser and i alone: ``--only NAME --first I --count 1`` repeats it. What
was tried is kept in runs/fuzz.json, from where the same command goes on, as long as the code is the same.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gzip
import hashlib
import io
import json
import math
import multiprocessing
import os
import random
import re
import resource
import signal
import struct
import tarfile
import tempfile
import time
import unittest.mock
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import DEFAULT

import numpy as np
import pandas as pd
import torch
from google.protobuf.message import DecodeError
from PIL import Image
from pycocotools import mask as mask_tools
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.reference.metrics import every, foreground, mean_iou, overlaps, pair_counting_ari
from tests.reliability import INPUTS, ROOT, write_rows
from topdown import preset
from topdown.book import schedule
from topdown.book.publish import read_results
from topdown.book.runs import read_row
from topdown.book.tables import read
from topdown.cli import main as command_line
from topdown.config import OWNERS, RENAMED, Config
from topdown.data import clevr, fetch, movi, tfrecord
from topdown.data.base import ImageSet, crop_image, read_image_file, read_labels
from topdown.data.coco import CocoInstances
from topdown.data.labels import Ade20k, VocSegmentation
from topdown.data.own import TokenFolder
from topdown.data.panoptic import Panoptic
from topdown.data.predictions import read_predictions
from topdown.data.records import NoMask, decode_counts, encode_mask
from topdown.data.token_store import stored_tokens
from topdown.datasets import Bucket
from topdown.evaluate import metrics
from topdown.model.encoder import WEIGHTS, build_encoder
from topdown.model.slot_model import SlotModel
from topdown.presets import PRESETS
from topdown.toybox.scenes import toybox_config
from topdown.train import checkpoint as checkpoints
from topdown.train.journal import Journal
from topdown.train.loop import make_optimizer
from topdown.train.watch import show

Attempt = Callable[['Source'], None]
SECONDS, MEMORY = 10, 4 << 30
"""What one input may take."""
STATE = ROOT / 'runs' / 'fuzz.json'


class Source(random.Random):
    """Where an input comes from; an attempt says whether it left it whole, so that it must be read."""

    whole = False


class Parser(NamedTuple):
    """Something that reads what others wrote."""

    what: str
    count: int  # inputs of the long form
    names: str  # a message must hold this (regular expression)
    prepare: Callable[[Path], Attempt]


PARSERS: dict[str, Parser] = {}


def parser(what: str, count: int, names: str = '.') -> Callable:
    """Enter a parser by the name of its function."""

    def enter(prepare: Callable[[Path], Attempt]) -> Callable[[Path], Attempt]:
        PARSERS[prepare.__name__] = Parser(what, count, names, prepare)
        return prepare

    return enter


# ---------------------------------------------------------------------------------------------------- broken inputs

NUMBERS = (
    0, 1, -1, 2, 3, 7, 12, 255, 256, 65_535, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, 10**400, 1e8, -1e9, 0.5,
    -0.0, 1e-320, 1e308, math.nan, math.inf, -math.inf,
)  # fmt: skip
TEXTS = (
    '', ' ', '1', '0', '-1', '1e9', 'nan', 'a', 'True', 'null', "b'0'", '0' * 50, '9' * 5000, 'x' * 300, '../a', '..',
    '/', '/etc/passwd', 'C:\\a', 'a\\b', 'a\0b', '\ud800', '\n', 'a\nb', '\u2028', '%s', '{}', '[1]', '{"a": 1}',
    '--help', '=',
)  # fmt: skip
BYTES = (0, 1, 2, 10, 34, 44, 48, 91, 92, 93, 123, 127, 128, 192, 254, 255)


def anything(rng: random.Random, depth: int = 3) -> Any:
    """A value of any type that JSON has."""
    kind = rng.randrange(10 if depth else 7)
    if kind < 3:
        return rng.choice(NUMBERS)
    if kind < 5:
        return rng.choice(TEXTS)
    if kind < 7:
        return rng.choice((None, True, False, rng.randrange(-3, 70), rng.uniform(-80, 150)))
    if kind < 9:
        return [anything(rng, depth - 1) for _ in range(rng.randrange(5))]
    return {rng.choice((*TEXTS[:8], 'id', 'size', 'counts')): anything(rng, depth - 1) for _ in range(rng.randrange(4))}


def places(box: Any) -> Iterator[tuple[Any, Any]]:
    """Every container within one, and every key or number in it."""
    for key in list(box) if isinstance(box, dict) else range(len(box)):
        yield box, key
        if isinstance(box[key], (dict, list)):
            yield from places(box[key])


def change(rng: random.Random, value: Any, new: Callable[[random.Random], Any] = anything) -> Any:
    """A copy with up to three values replaced, removed, repeated, renamed, nested or swapped; at times unchanged."""
    box = [copy.deepcopy(value)]
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        where, key = rng.choice(list(places(box)))
        kind = rng.randrange(9)
        old = where[key]
        if kind == 1 and where is not box:
            del where[key]
        elif kind == 2 and isinstance(where, list) and where is not box:
            where.insert(key, copy.deepcopy(old))
        elif kind == 2 and isinstance(where, dict):
            where[rng.choice((*where, *TEXTS))] = where.pop(key)
        elif kind == 3:
            where[key] = [old]
        elif kind == 4 and isinstance(old, (int, float)):
            where[key] = rng.choice((-old, old + 1, old - 1, float(old) if abs(old) < 2**53 else old, str(old)))
        elif kind == 5 and isinstance(old, str):
            where[key] = damage(rng, old.encode('utf-8', 'replace')).decode('latin-1')
        elif kind == 6:
            other, place = rng.choice(list(places(box)))
            where[key] = copy.deepcopy(other[place])
        else:
            where[key] = new(rng)
    return box[0]


def damage(rng: random.Random, content: bytes, times: tuple[int, ...] = (1, 1, 1, 2, 4, 16)) -> bytes:
    """Bytes with bits flipped, and parts overwritten, removed, repeated or cut off."""
    found = bytearray(content)
    for _ in range(rng.choice(times)):
        at = rng.randrange((min(len(found), 64) if rng.random() < 0.4 else len(found)) + 1)
        kind, length = rng.randrange(8), rng.choice((1, 2, 4, 8, 100))
        if kind < 2 and at < len(found):
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            found[at : at + 1] = bytes([rng.choice(BYTES)])
        elif kind == 3:
            del found[at : at + length]
        elif kind == 4:
            found[at:at] = rng.randbytes(length)
        elif kind == 5 and rng.random() < 0.3:
            del found[at:]
        elif kind == 6:
            found[at:at] = found[at : at + length]
        elif kind == 7:
            number = rng.choice((0, 1, 2**7, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1))
            found[at : at + 4] = struct.pack(rng.choice('<>') + 'I', number)
    return bytes(found)


def text_of(rng: random.Random, value: Any) -> bytes:
    """JSON, at times with damaged text, or nested deeper than a program may go."""
    if rng.random() < 0.01:
        return b'[' * 100_000
    content = json.dumps(value).encode()
    return damage(rng, content) if rng.random() < 0.15 else content


def same(a: Any, b: Any) -> bool:
    """Whether two values are alike in their types, too."""
    return repr(a) == repr(b)


def png(array: np.ndarray, mode: str = 'PNG', **options: Any) -> bytes:
    """An image file."""
    buffer = io.BytesIO()
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(buffer, mode, **options)
    return buffer.getvalue()


def broken_png(rng: random.Random, content: bytes) -> bytes:
    """Damage; at times with checksums that fit, so that it gets to the decoder."""
    if rng.random() < 0.5 or content[:4] != b'\x89PNG':
        return damage(rng, content)
    parts, at = [content[:8]], 8
    while at < len(content):
        (length,) = struct.unpack('>I', content[at : at + 4])
        body = content[at + 4 : at + 8 + length]
        if rng.random() < 0.4:
            body = damage(rng, body, (1, 2))
        parts.append(struct.pack('>I', len(body) - 4 & 0xFFFFFFFF) + body + struct.pack('>I', zlib.crc32(body)))
        at += 12 + length
    return b''.join(parts)


# ------------------------------------------------------------------------------------------------------------- COCO

SQUARE = [[1, 1, 5, 1, 5, 5, 1, 5]]


def segmentation(rng: random.Random) -> tuple[Any, np.ndarray | None]:
    """A segmentation of an image of 9 x 12, and its mask where it was left as it is."""
    mask = np.zeros((9, 12), bool)
    kind = rng.randrange(4)
    if kind == 0:
        first = rng.randrange(1, 100)
        counts = [first, rng.randrange(1, 108 - first)]
        counts.append(108 - sum(counts))
        mask.T.flat[counts[0] : counts[0] + counts[1]] = True
        value: Any = {'size': [9, 12], 'counts': counts}
    elif kind == 1:
        mask = np.random.default_rng(rng.randrange(2**32)).random((9, 12)) < rng.random()
        mask[0, 0] = True
        value = {'size': [9, 12], 'counts': mask_tools.encode(np.asfortranarray(mask, np.uint8))['counts'].decode()}
    elif kind == 2:
        mask[1:5, 1:5] = True
        value = SQUARE
    else:
        return [[rng.uniform(-80, 150) for _ in range(rng.randrange(5, 12))] for _ in range(rng.randrange(1, 4))], None
    changed = change(rng, value)
    if isinstance(changed, dict) and isinstance(changed.get('counts'), str) and rng.random() < 0.5:
        counts = changed['counts']
        at = rng.randrange(len(counts) + 1)
        changed['counts'] = counts[:at] + chr(rng.randrange(48, 112)) + counts[at + rng.randrange(2) :]
    return changed, mask if same(changed, value) else None


@parser('masks of COCO records', 350_000, 'segmentation|has no (mask|area)')
def coco_masks(folder: Path) -> Attempt:
    """Whatever leaves the check fills its image, and decodes as the C library does."""

    def attempt(rng: Source) -> None:
        value, mask = segmentation(rng)
        rng.whole = mask is not None
        rle, _ = encode_mask(value, 9, 12)
        counts = decode_counts(rle['counts'].decode())
        assert rle['size'] == [9, 12]
        assert counts.sum() == 108
        again = np.repeat(np.arange(len(counts)) % 2, counts).reshape(12, 9).T
        assert (again == mask_tools.decode(rle)).all()
        assert mask is None or (again == mask).all()

    return attempt


@parser('COCO annotation files', 60_000, r'instances_val2017\.json|a\.png|images')
def coco_files(folder: Path) -> Attempt:
    """Every annotation is read, left out with a reason, or refused; none is lost."""
    base = {
        'images': [{'id': 1, 'file_name': 'a.png', 'height': 9, 'width': 12}],
        'categories': [{'id': 1, 'name': 'a'}],
        'annotations': [
            {'id': 1, 'image_id': 1, 'category_id': 1, 'segmentation': SQUARE, 'iscrowd': 0, 'area': 16,
             'bbox': [1, 1, 4, 4]},
            {'id': 2, 'image_id': 1, 'category_id': 1, 'iscrowd': 1,
             'segmentation': {'size': [9, 12], 'counts': [50, 20, 38]}},
        ],
    }  # fmt: skip
    (folder / 'annotations').mkdir()
    (folder / 'val2017').mkdir()
    Image.new('RGB', (12, 9)).save(folder / 'val2017' / 'a.png')
    Image.new('RGB', (12, 9)).save(folder / 'a.png')  # outside
    path = folder / 'annotations' / 'instances_val2017.json'

    def attempt(rng: Source) -> None:
        content = change(rng, base)
        path.write_bytes(text_of(rng, content))
        rng.whole = path.read_bytes() == json.dumps(base).encode()
        data = CocoInstances(folder, 'val', 9, 9)
        kept = 0
        for i in range(len(data)):
            data.path(i).resolve().relative_to(folder / 'val2017')
            truth = data.annotation(i)
            assert len(truth.masks) == len(truth.categories) == len(truth.crowd)
            assert truth.masks.any((1, 2)).all()
            assert truth.categories.dtype == np.int64
            kept += len(truth.masks)
        left_out = sum(len(where) for (kind, _), where in data.report.entries.items() if kind == 'left out')
        with contextlib.suppress(ValueError):  # damaged text that is read may not be what was written
            rows = json.loads(path.read_bytes())['annotations']
            assert kept + left_out == len(rows)
        if rng.whole:
            assert truth.masks[0].sum() == 16
            assert truth.masks[1].sum() == 20
            assert truth.crowd.tolist() == [False, True]

    return attempt


@parser('panoptic segments', 20_000, r'panoptic|a\.png')
def panoptic_files(folder: Path) -> Attempt:
    """Things are objects, and the map's file lies in its folder."""
    base = {
        'categories': [{'id': 1, 'isthing': 1}, {'id': 9, 'isthing': 0}],
        'annotations': [
            {'image_id': 4, 'file_name': 'a.png', 'segments_info': [
                {'id': 3, 'category_id': 1}, {'id': 70_000, 'category_id': 1}, {'id': 5, 'category_id': 9},
            ]},
        ],
    }  # fmt: skip
    ids = np.zeros((9, 12), np.int32)
    ids[:3], ids[3:6], ids[7:] = 3, 70_000, 5
    content = png(np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8))
    path, place = folder / 'panoptic.json', folder / 'panoptic' / 'a.png'
    place.parent.mkdir()
    Image.new('RGB', (12, 9)).save(folder / 'a.png')  # outside

    def attempt(rng: Source) -> None:
        path.write_bytes(text_of(rng, change(rng, base)))
        place.write_bytes(broken_png(rng, content) if rng.random() < 0.3 else content)
        rng.whole = path.read_bytes() == json.dumps(base).encode() and place.read_bytes() == content
        found = Panoptic(path)
        for name, _ in found.maps.values():
            (folder / 'panoptic' / name).resolve().relative_to(folder / 'panoptic')
        truth = found.annotation(4, (9, 12))
        assert truth.masks.shape == (len(truth.categories), 9, 12)
        if rng.whole:
            assert (truth.masks == [ids == 3, ids == 70_000]).all()
            assert truth.categories.tolist() == [1, 1]
            assert truth.void.sum() == 12

    return attempt


# --------------------------------------------------------------------------------------------------------- TFRecord


def fields(rng: random.Random) -> dict[str, Any]:
    """Values of a message."""
    return {
        'number': np.array([3, -(2**40)]), 'share': np.array([0.5, 1e9], np.float32), 'text': [b'abc', b'', b'\0\0'],
        'pixels': [bytes([rng.randrange(256)]) for _ in range(5)],
    }  # fmt: skip


@parser('tf.train.Example messages', 150_000, 'tf.train.Example|single bytes')
def messages(folder: Path) -> Attempt:
    """What is read is what protobuf reads."""

    def told(data: bytes) -> dict[str, Any]:
        message = tfrecord._Example.FromString(data)
        found = {}
        for entry in message.features.feature:
            kinds = entry.value.ListFields()
            found[entry.key] = (kinds[0][0].name, list(kinds[0][1].value)) if kinds else ('', [])
        return found

    def attempt(rng: Source) -> None:
        data = tfrecord.make_example(fields(rng))
        broken = damage(rng, data, (0, 1, 1, 2, 3))
        rng.whole = broken == data
        single = frozenset({'pixels'} if rng.random() < 0.3 else ())
        found = tfrecord.parse_example(broken, None, single)
        try:
            expected = told(broken)
        except DecodeError:  # damage that protobuf looks at more closely
            return
        for name, (kind, values) in expected.items():
            read = found.pop(name)
            if name in single:
                assert read.tobytes() == b''.join(values)
            elif kind == 'bytes_list':
                assert read == values
            else:
                np.testing.assert_array_equal(read, np.array(values, read.dtype if len(values) else None))
        assert not found

    return attempt


@parser('TFRecord files, plain and compressed', 25_000, r'r\.tfrecord')
def record_files(folder: Path) -> Attempt:
    """A record that is given and fits its checksum is one that was written."""
    path = folder / 'r.tfrecord'

    def attempt(rng: Source) -> None:
        records = [rng.randbytes(rng.randrange(60)) for _ in range(3)]
        buffer = io.BytesIO()
        for record in records:
            tfrecord.write_record(buffer, record)
        content = original = buffer.getvalue()
        if rng.random() < 0.2:  # a length that is no good, with a checksum that is
            length = struct.pack('<Q', rng.choice((0, 1, 61, 2**31, 2**40, 2**62, 2**63, 2**64 - 1)))
            content = length + struct.pack('<I', tfrecord.masked_crc(length)) + content[12:]
        packed, before = rng.random() < 0.4, rng.random() < 0.5
        if not packed or before:
            content = damage(rng, content, (0, 1, 1, 2))
        if packed:
            content, original = gzip.compress(content, 1, mtime=0), gzip.compress(original, 1, mtime=0)
            content = content if before else damage(rng, content, (1, 1, 2))
        path.write_bytes(content)
        rng.whole = content == original
        if packed:
            found = list(tfrecord.read_gzip(path))
        else:
            file = tfrecord.RecordFile(path)
            found = [bytes(file[i]) for i in range(len(file)) if file.verify(i)]
        assert all(record in [*records, b''] for record in found)
        assert not rng.whole or found == records

    return attempt


def broken_fields(rng: random.Random, base: dict[str, Any]) -> dict[str, Any]:
    """Fields removed, of another type, or with other values."""
    found = dict(base)
    for _ in range(rng.choice((0, 1, 1, 2))):
        name = rng.choice(list(found)) if found else ''
        kind = rng.randrange(7)
        values = found.pop(name, [])
        if kind == 0:
            continue
        if kind == 1:
            values = np.array([rng.choice((0, 1, -1, 2**62, -(2**63))) for _ in range(rng.randrange(30))], np.int64)
        elif kind == 2:
            values = np.array([rng.choice((0, 0.5, math.nan, 1e30)) for _ in range(rng.randrange(30))], np.float32)
        elif kind == 3:
            values = [rng.randbytes(rng.randrange(20)) for _ in range(rng.randrange(30))]
        elif len(values):
            values = list(values) if isinstance(values, list) else values.copy()
            at = rng.randrange(len(values))
            if kind == 4:
                values = values[:at] if rng.random() < 0.5 else [*values, *values][: len(values) + 3]
                values = values if not len(values) or isinstance(values[0], bytes) else np.array(values)
            elif isinstance(values, list):
                other = png(np.zeros(rng.choice(((16, 16, 3), (8, 16), (16, 16, 4), (1, 1))), np.uint8))
                values[at] = broken_png(rng, values[at]) if kind == 5 else other
            else:
                values[at] = rng.choice((-1, 0, 5, 1000))
        found[name] = values if isinstance(values, list) else np.asarray(values)
    return found


@parser('MOVi files', 20_000, r'movi_c-validation\.tfrecord')
def movi_files(folder: Path) -> Attempt:
    """Frames, labels and categories of a clip."""
    path = folder / 'movi_c-validation.tfrecord-00000-of-00001'
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, (movi.FRAMES, 16, 16)).astype(np.uint8)
    labels[:, 0, :3] = (0, 1, 2)
    colours = draw.integers(0, 256, (movi.FRAMES, 16, 16, 3)).astype(np.uint8)
    base = {
        'video': [png(frame) for frame in colours], 'segmentations': [png(frame) for frame in labels],
        'instances/category': np.array([4, 9]),
    }  # fmt: skip

    def attempt(rng: Source) -> None:
        given = broken_fields(rng, base)
        data = tfrecord.make_example(given)
        with path.open('wb') as file:
            tfrecord.write_record(file, damage(rng, data, (1, 1, 2)) if rng.random() < 0.2 else data)
        rng.whole = path.read_bytes()[12:-4] == tfrecord.make_example(base)
        found = movi.Movi(folder, 'val', 16, 16)
        frame = rng.randrange(movi.FRAMES)
        image, truth = found.read_image(frame), found.annotation(frame)
        assert image.shape[0] == 3
        assert 0 <= image.min() <= image.max() <= 1
        assert len(truth.masks) == len(truth.categories)
        if rng.whole:
            assert (image.permute(1, 2, 0).numpy() == colours[frame] / np.float32(255)).all()
            assert (truth.masks == [labels[frame] == 1, labels[frame] == 2]).all()
            assert truth.categories.tolist() == [5, 10]
        if rng.random() < 0.1:
            assert found.read_clip_annotation(0).labels.shape == (movi.FRAMES, *image.shape[1:])

    return attempt


@parser('prepared CLEVR files', 20_000, r'clevr6|val-00000\.tfrecord|topdown data prepare')
def clevr_files(folder: Path) -> Attempt:
    """Scenes and the list of them."""
    entities = np.zeros((192, 192), np.uint16)
    entities[:] = 1
    entities[10:20, 10:20] = 2
    entities[50:60, 50:90] = 4
    image = np.full((192, 192, 3), 90, np.uint8)
    base = {
        'number': np.array([85_000]), 'image': [png(image)], 'masks': [png(entities)], 'shape': np.arange(11),
    }  # fmt: skip
    contents = {
        'version': 1, 'source': 'a', 'shapes': [0, 1, 2],
        'splits': {'train': {}, 'val': {'val-00000.tfrecord': [85_000]}},
    }  # fmt: skip

    def attempt(rng: Source) -> None:
        listed = change(rng, contents) if rng.random() < 0.4 else contents
        (folder / 'clevr6.json').write_bytes(
            text_of(rng, listed) if listed is not contents else json.dumps(contents).encode()
        )
        given = broken_fields(rng, base)
        data = tfrecord.make_example(given)
        with (folder / 'val-00000.tfrecord').open('wb') as file:
            tfrecord.write_record(file, damage(rng, data, (1, 1, 2)) if rng.random() < 0.2 else data)
        record, listing = (folder / 'val-00000.tfrecord').read_bytes(), (folder / 'clevr6.json').read_text('latin-1')
        rng.whole = record[12:-4] == tfrecord.make_example(base) and listing == json.dumps(contents)
        found = clevr.Clevr6(folder, 'val', 16, 16)
        for i in range(len(found)):
            found.path(i).resolve().relative_to(folder)
            shown, truth = found.read_image(i), found.annotation(i)
            assert shown.shape[0] == 3
            assert len(truth.masks) == len(truth.categories)
            if rng.whole:
                assert truth.masks.sum((1, 2)).tolist() == [100, 400]
                assert truth.categories.tolist() == [2, 3]

    return attempt


@parser('records of the official CLEVR file', 1_000, 'official, record 7')
def clevr_official(folder: Path) -> Attempt:
    """One is converted, or refused."""
    draw = np.random.default_rng(0)
    masks = np.zeros((clevr.ENTITIES, clevr.HEIGHT, clevr.WIDTH), np.uint8)
    masks[0], masks[1, 60:90, 90:200] = 255, 255

    def singles(array: np.ndarray) -> list[bytes]:
        return [bytes([value]) for value in array.ravel().tolist()]

    base = {
        'image': singles(draw.integers(0, 256, (clevr.HEIGHT, clevr.WIDTH, 3))), 'mask': singles(masks),
        'visibility': np.array([1.0, 1.0] + [0.0] * 9, np.float32), 'shape': singles(np.arange(11)),
    }  # fmt: skip
    parts = {name: tfrecord.make_example({name: values}) for name, values in base.items()}
    inner = {name: next(tfrecord._fields(memoryview(part)))[1].tobytes() for name, part in parts.items()}

    def attempt(rng: Source) -> None:
        found = dict(inner)
        for name in rng.sample(list(found), rng.choice((0, 1, 1, 2))):
            body = found.pop(name)
            head = damage(rng, body[:60], (1, 1, 2)) + body[60:]
            other = tfrecord.make_example(broken_fields(rng, {name: base[name] if len(base[name]) < 20 else [b'1']}))
            other = b''.join(bytes(part) for _, part in tfrecord._fields(memoryview(other)))
            found |= {name: rng.choice((head, other, body[: rng.randrange(len(body))]))}
        whole, rng.whole = b''.join(found.values()), found == inner
        length = len(whole)
        size = b''
        while length > 127:
            size, length = size + bytes([length & 127 | 128]), length >> 7
        data = b'\n' + size + bytes([length]) + whole
        made = clevr.convert_scene(data, 7, Path('official'))
        if made is not None:
            (content,) = tfrecord.parse_example(made)['masks']
            with Image.open(io.BytesIO(content)) as image:
                bits = np.array(image)
            assert bits.shape == (192, 192)
            assert found != inner or ((bits >> 1 & 1) == masks[1, clevr.ROWS, clevr.COLUMNS] // 255).all()

    return attempt


# ----------------------------------------------------------------------------------------- checkpoints, weights, tokens


def tiny_run(folder: Path) -> Path:
    """A checkpoint of a small model after a step."""
    config = preset('smoke', slot_size=8, codebook_size=4, decoder='slotwise', decoder_hidden=8)
    model = SlotModel(config.model, 6, 4)
    optimizer = make_optimizer(model, config.train)
    out = model(torch.rand(2, 4, 6))
    out.loss.backward()
    optimizer.step()
    made = {split: checkpoints.Made(torch.ones(3, 2, dtype=torch.int64), ['a'] * 4) for split in ('train', 'val')}
    path = folder / 'checkpoint.safetensors'
    checkpoints.save_checkpoint(path, model, optimizer, config, 1, 'e', (6, 4), 1.5, made)
    return path


@parser('checkpoints', 10_000, r'c\.safetensors')
def checkpoint_files(folder: Path) -> Attempt:
    """Damage is noticed; what was changed and signed anew is refused before it is built, or goes into its model."""
    whole = tiny_run(folder)
    content, tensors = whole.read_bytes(), load_file(whole)
    with safe_open(whole, 'pt') as file:
        header = file.metadata()
    path = folder / 'c.safetensors'
    size = 8 + struct.unpack('<Q', content[:8])[0]

    def signed(rng: random.Random) -> None:
        texts = {name: json.loads(value) if name in ('config', 'data') else value for name, value in header.items()}
        if rng.random() < 0.3:
            del texts['data']
            texts |= {'format': 'topdown-1', 'log': {'train': [{'step': 1, 'loss': 1.5}], 'eval': []}}
        name = rng.choice(list(texts))
        texts[name] = change(rng, texts[name])
        texts = texts if rng.random() < 0.8 else change(rng, texts)
        texts = texts if isinstance(texts, dict) else {}
        fields = {
            str(k).encode('utf-8', 'replace').decode(): v if isinstance(v, str) else json.dumps(v)
            for k, v in texts.items()
        }
        fields = {name: value.encode('utf-8', 'replace').decode() for name, value in fields.items()}
        fields.pop('sha256', None)
        given = dict(tensors)
        for _ in range(rng.choice((0, 0, 1, 2))):
            name = rng.choice(list(given))
            kind, tensor = rng.randrange(5), given.pop(name)
            if kind == 1:
                given[rng.choice(('a', f'model.{name}', f'optimizer.{name}'))] = tensor
            elif kind == 2:
                given[name] = tensor.flatten()[: rng.randrange(4)].clone()
            elif kind == 3:
                given[name] = torch.zeros(rng.choice(((), (0,), (1, 0), (3, 3), (2, 2, 2))))
            elif kind == 4:
                given[name] = tensor.to(rng.choice((torch.float64, torch.int8, torch.bool, torch.bfloat16)))
        if fields.get('format') == checkpoints.FORMAT:
            fields['sha256'] = checkpoints._checksum(fields, given)
        save_file(given, path, fields)

    def attempt(rng: Source) -> None:
        plain = rng.random() < 0.4
        if plain:
            head = damage(rng, content[:size]) if rng.random() < 0.5 else content[:size]
            path.write_bytes(head + content[size:] if head != content[:size] else damage(rng, content, (0, 1, 1, 2)))
        else:
            signed(rng)
        rng.whole = path.read_bytes() == content
        saved = checkpoints.load_checkpoint(path)
        if plain:
            assert saved.tensors.keys() == tensors.keys()
            assert all(torch.equal(saved.tensors[name], tensor) for name, tensor in tensors.items())
        model = SlotModel(saved.config.model, saved.feature_size, saved.num_patches)
        optimizer = make_optimizer(model, saved.config.train)
        saved.load_model(model)
        saved.load_optimizer(model, optimizer)
        saved.load_random_state()
        assert saved.step >= 0
        assert all(made.images.shape[1:] == (2,) for made in saved.data.values())
        assert all(isinstance(row, dict) for rows in saved.log.values() for row in rows)

    return attempt


@parser('weights of encoders, shipped and given', 400, r'w\.safetensors|vit_toybox')
def weights(folder: Path) -> Attempt:
    """Another bit of the shipped ones is noticed; given ones that do not fit are refused."""
    path = folder / 'w.safetensors'
    shipped = 'vit_toybox_patch8_96.safetensors'
    content, tensors = (WEIGHTS / shipped).read_bytes(), load_file(WEIGHTS / shipped)
    config = preset('smoke').encoder
    given = preset('smoke', weights=str(path), pretrained=False).encoder

    def attempt(rng: Source) -> None:
        kind = rng.randrange(3)
        if kind == 2:
            names = rng.sample(list(tensors), len(tensors) - rng.choice((0, 1, 2)))
            parts = {name: tensors[name] for name in names}
            name = rng.choice(names)
            parts[name] = rng.choice((parts[name], parts[name].flatten(), torch.zeros(()), parts[name].double()))
            save_file({name: part.contiguous() for name, part in parts.items()}, path)
        else:
            path.write_bytes(damage(rng, content, (0, 1, 1, 2) if kind else (1,)))
        rng.whole = path.read_bytes() == content
        if kind == 0:
            path.rename(folder / shipped)
            with unittest.mock.patch('topdown.model.encoder.WEIGHTS', folder):
                build_encoder(config)
            assert rng.whole
        else:
            build_encoder(given)

    return attempt


class Few(ImageSet):
    """Six images without truth."""

    def __init__(self, folder: Path) -> None:
        super().__init__(list(range(6)), {}, 4, 4)
        self.folder = folder
        for i in range(6):
            Image.fromarray(np.full((4, 4, 3), 40 * i + 20, np.uint8)).save(self.path(i))

    def path(self, i: int) -> Path:
        """The image's file."""
        return self.folder / f'{i}.png'

    def annotation(self, i: int) -> None:
        """None."""


@parser('token stores', 3_000)
def token_stores(folder: Path) -> Attempt:
    """Whatever became of its files, a store gives the tokens that the encoder makes."""
    (folder / 'images').mkdir()
    data = Few(folder / 'images')

    def encode(images: torch.Tensor) -> torch.Tensor:
        return images.reshape(len(images), 6, 8) + torch.arange(8)

    def stored() -> torch.Tensor:
        options = {'flip': False, 'progress': False}
        return stored_tokens(data, encode, 'f', (6, 8), folder / 'store', **options)[0].clone()

    truth = stored()
    files = {path: path.read_bytes() for path in (folder / 'store').glob('*/*/tokens.*')}
    assert len(files) == 2

    def attempt(rng: Source) -> None:
        rng.whole = True  # whatever is damaged is made again
        for path, content in files.items():
            broken = damage(rng, content, (0, 1, 1, 2))
            kind = rng.randrange(10)
            if kind == 0:
                broken = rng.randbytes(len(content))
            path.unlink(missing_ok=True)
            if kind != 1:
                path.write_bytes(broken)
        assert torch.equal(stored(), truth)

    return attempt


@parser('tokens that anybody made, npy', 20_000, r'/a\.npy')
def token_files(folder: Path) -> Attempt:
    """Finite numbers of a square grid."""
    (folder / 'train' / 'tokens').mkdir(parents=True)
    path, tokens = folder / 'train' / 'tokens' / 'a.npy', np.random.default_rng(0).random((16, 3)).astype(np.float32)

    def attempt(rng: Source) -> None:
        shape = rng.choice(((16, 3), (16, 3), (4, 4, 3), (48,), (3, 16), (0, 3), (1, 1, 48), (2, 2, 2, 6)))
        given = tokens.reshape(shape) if shape != (0, 3) else tokens[:0]
        given = given.astype(rng.choice(('f4', 'f4', 'f2', '>f8', 'i4', '?', 'c8', 'U2', 'O')))
        if rng.random() < 0.2 and given.size and given.dtype.kind == 'f':
            given.flat[0] = rng.choice((math.nan, math.inf, 6e4))
        buffer = io.BytesIO()
        np.save(buffer, given, allow_pickle=True)
        content = buffer.getvalue()
        broken = damage(rng, content) if rng.random() < 0.6 else content
        if rng.random() < 0.2:  # a header that promises more than there is
            promised = rng.choice(((10**6, 10**6), (2**62,), (-4, 3), (2**32, 2**32, 3), (0, 10**12)))
            broken = broken.replace(str(given.shape).encode(), str(promised).encode())
        path.write_bytes(broken)
        rng.whole = broken == content and given.tobytes() == tokens.tobytes() and shape in ((16, 3), (4, 4, 3))
        found = TokenFolder(folder, 'train', 4, 8).read_image(0)
        assert found.ndim == 3
        assert found.dtype == torch.float32
        assert found.isfinite().all()
        assert not rng.whole or (found.permute(1, 2, 0).reshape(16, 3).numpy() == tokens).all()

    return attempt


# ----------------------------------------------------------------------------------------------- images and label maps


@parser('label maps: PNG, palette, TIFF, BMP, GIF, PPM', 60_000, r'/l')
def label_files(folder: Path) -> Attempt:
    """Labels are whole numbers from 0."""
    draw = np.random.default_rng(0)
    small, large = draw.integers(0, 7, (9, 12)).astype(np.uint8), draw.integers(0, 40_000, (9, 12)).astype(np.uint16)
    palette = Image.fromarray(small, 'P')
    palette.putpalette(bytes(range(30, 60)))
    bases = [
        (png(small), small), (png(large), large), (png(palette), small), (png(palette, bits=4), small),
        (png(Image.fromarray(small > 3)), small > 3), (png(small, 'TIFF'), small), (png(small, 'BMP'), small),
        (png(palette, 'GIF'), small), (png(small, 'PPM'), small), (png(large, 'TIFF', compression='tiff_lzw'), large),
        (png(small, 'JPEG'), None), (png(draw.integers(0, 9, (9, 12, 3)).astype(np.uint8)), None),
    ]  # fmt: skip

    def attempt(rng: Source) -> None:
        content, labels = rng.choice(bases)
        broken = broken_png(rng, content) if rng.random() < 0.95 else content
        path = folder / 'l.png'
        path.write_bytes(broken)
        rng.whole = broken == content and labels is not None
        found = read_labels(path)
        assert found.dtype == np.int64
        assert found.ndim == 2
        assert found.min() >= 0
        assert not rng.whole or (found == labels).all()

    return attempt


@parser('images: PNG, JPEG, TIFF, BMP, GIF, WebP', 50_000, r'/i')
def image_files(folder: Path) -> Attempt:
    """Colours lie in [0, 1]."""
    draw = np.random.default_rng(0)
    colours = draw.integers(0, 256, (9, 12, 3)).astype(np.uint8)
    shown = Image.fromarray(colours)
    exif = Image.Exif()
    exif[274] = 6
    bases = [
        png(shown), png(shown.convert('L')), png(shown.convert('RGBA')), png(shown.convert('P')),
        png(shown.convert('LA')), png(shown, 'JPEG'), png(shown, 'JPEG', exif=exif, progressive=True),
        png(shown.convert('CMYK'), 'JPEG'),
        png(colours[..., 0].astype(np.uint16) * 200), png(colours[..., 0].astype(np.float32) / 255, 'TIFF'),
        png(colours[..., 0].astype(np.int32), 'TIFF'), png(shown, 'TIFF', compression='tiff_deflate'),
        png(shown, 'BMP'), png(shown, 'GIF'), png(shown, 'WEBP'), png(shown, 'WEBP', lossless=True),
    ]  # fmt: skip
    path = folder / 'i.jpg'

    def attempt(rng: Source) -> None:
        content = rng.choice(bases)
        broken = broken_png(rng, content) if rng.random() < 0.95 else content
        path.write_bytes(broken)
        rng.whole = broken == content
        found = read_image_file(path, rng.choice((None, (9, 12))))
        assert found.dtype == torch.float32
        assert found.shape[0] == 3
        assert 0 <= found.min() <= found.max() <= 1
        assert crop_image(found, 32).shape == (3, 32, 32)
        if broken == bases[0]:
            assert (found.permute(1, 2, 0).numpy() == colours / np.float32(255)).all()

    return attempt


@parser('predictions: npy, npz, PNG', 40_000, r'/a\.(png|npy|npz)')
def predictions(folder: Path) -> Attempt:
    """Labels of the cut square, whatever form they came in."""
    (folder / 'images').mkdir()
    (folder / 'maps').mkdir()

    class One(Few):
        def __init__(self) -> None:
            ImageSet.__init__(self, [0], {}, 8, 8)

        def path(self, i: int) -> Path:
            return folder / 'images' / 'a.jpg'

        def true_size(self, i: int) -> tuple[int, int]:
            return 12, 16

    draw = np.random.default_rng(0)
    labels = draw.integers(0, 4, (8, 8))
    shares = draw.random((3, 4, 4)).astype(np.float32)
    data = One()

    def array(rng: random.Random) -> np.ndarray:
        kind = rng.randrange(6)
        if kind < 2:
            return labels.astype(rng.choice(('u1', 'i2', '>u4', 'i8', 'f2', 'f8', '?', 'c8', 'O', 'U3', 'M8[s]')))
        if kind < 4:
            return shares.astype(rng.choice(('f2', 'f4', '>f8', '?', 'i4')))
        shape = rng.choice(
            ((), (0,), (8, 0), (0, 8, 8), (8, 8), (12, 16), (2, 12, 16), (1, 1, 1), (5000, 1, 1), (1, 2, 3, 4))
        )
        values = rng.choice(NUMBERS[:9] + NUMBERS[18:])
        return np.full(shape, float(values), rng.choice(('f4', 'f8')))

    def attempt(rng: Source) -> None:
        for left in (folder / 'maps').iterdir():
            left.unlink()
        kind = rng.choice(('npy', 'npy', 'npz', 'png'))
        path, buffer, exact = folder / 'maps' / f'a.{kind}', io.BytesIO(), rng.random() < 0.1
        given = labels if exact else array(rng)
        if kind == 'png':
            content = png(given.astype(np.uint8) if given.ndim == 2 and given.size else labels.astype(np.uint8))
            exact = exact or given.ndim != 2
        elif kind == 'npy':
            np.save(buffer, given, allow_pickle=True)
        else:
            arrays = [given] * (1 if exact or rng.random() < 0.9 else 2)
            (np.savez_compressed if rng.random() < 0.5 else np.savez)(buffer, *arrays)
        content = content if kind == 'png' else buffer.getvalue()
        whole = rng.random() < 0.5
        broken = content if whole else broken_png(rng, content)
        if kind == 'npy' and rng.random() < 0.2:  # a header that promises more than there is
            shape = rng.choice(((10**6, 10**6), (2**62,), (-1,), (8, 8, 10**9), (0, 10**12)))
            broken = broken.replace(str(given.shape).encode(), str(shape).encode())
        path.write_bytes(broken)
        rng.whole = given is labels and exact and broken == content
        found = read_predictions(folder / 'maps', data)
        assert found.dtype in (np.uint8, np.int32)
        assert found.shape == (1, 8, 8)
        assert 0 <= found.min() <= found.max() < 8 * 8 * 4
        if rng.whole:
            assert (np.unique(found, return_inverse=True)[1].reshape(8, 8) == labels).all()

    return attempt


# ------------------------------------------------------------------------------------------------------------ settings


def all_typed(config: Config) -> None:
    """Every setting has the type of its field."""
    usual = Config('').settings()
    for name, value in config.settings().items():
        assert type(value) is type(usual[name]) or (isinstance(usual[name], float) and type(value) is int), name


@parser('configurations of files', 80_000)
def configurations(folder: Path) -> Attempt:
    """A dictionary becomes a configuration whose settings have their types."""
    bases = [preset(name).to_dict() for name in ('coco', 'toybox', 'clevr6')]

    def attempt(rng: Source) -> None:
        base = rng.choice(bases)
        given = change(rng, base)
        rng.whole = same(given, base)
        config = Config.from_dict(given)
        all_typed(config)
        assert len(config.key) == 10
        assert not rng.whole or config.to_dict() == base

    return attempt


@parser('parameters of notebooks', 80_000)
def parameters(folder: Path) -> Attempt:
    """``preset(name, **changes)`` and Toybox's own settings."""
    names = [*OWNERS, 'seeds', 'name', 'train', 'data', *RENAMED]
    toybox = {'size': 64, 'categories': 3, 'clutter': 0.5}
    words = ('oclf', 'mlp', 'random', 'ignore', 'movi_c', 'fp32', 'keep')

    def value(rng: random.Random) -> Any:
        return rng.choice((1, 2, 0.5, True, rng.choice(words))) if rng.random() < 0.4 else anything(rng)

    def attempt(rng: Source) -> None:
        changes = {rng.choice(names): value(rng) for _ in range(rng.randrange(4))}
        if rng.random() < 0.3:
            changes['toybox'] = change(rng, toybox)
        chosen = rng.choice((*PRESETS, 'toybox', 'toybox')) if rng.random() < 0.95 else anything(rng)
        rng.whole = not changes and chosen in list(PRESETS)
        config = preset(chosen, **changes)
        all_typed(config)
        toybox_config(config.data.toybox)
        settings = config.settings()
        for name in set(changes) - {'seeds', 'toybox', 'keep_crowd'}:
            kind = type(settings[name])
            assert settings[name] == (kind(changes[name]) if kind in (float, tuple) else changes[name]), name

    return attempt


@parser('command lines', 1_500, '^error: |^status 2')
def command_lines(folder: Path) -> Attempt:
    """One line and a status, and no traceback; ``train`` stops where training would begin."""
    bases = [
        ['train', '--preset', 'smoke', '--steps', '5', '--num-slots', '4', '--top-down', 'False', '--lr', '0.1'],
        ['train', '--preset', 'toybox', '--toybox', '{"size": 64}', '--stop-at', '3', '--folder', 'x'],
        ['tables', 'plan', '--preset', 'smoke', '--only', 'ablation', '--run-dir', 'x', '--workers', '2'],
        ['data', 'check', 'coco', 'nowhere', '--splits', 'val', '--void-label', '3'],
        ['evaluate', '--predictions', 'maps', '--preset', 'coco', '--data-root', 'x', '--protocols', 'oclf', 'spot'],
        ['evaluate', 'x.safetensors'], ['segment', 'a.png', '--checkpoint', 'x', '--size', '32'], ['show', 'x'],
        ['interventions', 'x'], ['data', 'card', 'voc', 'x', '--limit', '3'],
        ['tables', 'collect', '--preset', 'smoke'],
    ]  # fmt: skip
    nothing = SimpleNamespace(evaluations=pd.DataFrame({'step': [1]}))
    os.chdir(folder)

    def attempt(rng: Source) -> None:
        words = change(rng, rng.choice(bases), lambda rng: rng.choice((*TEXTS, *map(str, NUMBERS[:14]))))
        words = [str(word) for word in words] if isinstance(words, list) else [str(words)]
        rng.whole = words in bases[:3]
        said = io.StringIO()
        with (
            contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said),
            unittest.mock.patch('topdown.train.loop.train_model', return_value=nothing),
            unittest.mock.patch.multiple(schedule, prepare=DEFAULT, execute=DEFAULT, growth=DEFAULT, probes=DEFAULT),
        ):  # fmt: skip
            try:
                command_line(words)
            except SystemExit as end:
                status = end.code
            else:
                return
        if status not in (0, None):
            raise ValueError('status 2' if status == 2 else said.getvalue().removesuffix('\n'))

    return attempt


# ------------------------------------------------------------------------------------------------------------- metrics


def label_array(rng: random.Random, base: np.ndarray) -> Any:
    """An array with other types, shapes or values."""
    kind = rng.randrange(8)
    if kind < 3:
        return base
    if kind == 3:
        with np.errstate(all='ignore'):
            return base.astype(rng.choice(('u1', 'u4', 'u8', 'i2', 'f2', 'f8', '?', 'c8', 'O', 'U2', 'M8[s]', 'm8[s]')))
    if kind == 4:
        found = base.astype(rng.choice(('f8', 'i8', 'f4', 'O')))
        with contextlib.suppress(OverflowError, ValueError, TypeError):
            found.flat[rng.randrange(max(1, found.size))] = rng.choice(NUMBERS)
        return found
    if kind == 5:
        return base.reshape(rng.choice(((-1,), (1, *base.shape), base.shape[::-1]))) if base.size else base
    if kind == 6:
        return base[..., : rng.randrange(base.shape[-1])]
    return rng.choice((None, 3, 'a', [], [[1, 2], [3]], base.tolist(), np.zeros((0, 6, 8), bool), np.zeros((6, 8, 0))))


@parser('maps given to the metrics', 60_000)
def metric_inputs(folder: Path) -> Attempt:
    """The number that brute force gives, or a refusal."""

    def attempt(rng: Source) -> None:
        draw = np.random.default_rng(rng.randrange(2**32))
        masks = draw.random((rng.randrange(1, 4), 6, 8)) < 0.4
        labels = draw.integers(0, 4, (6, 8)) * rng.choice((1, 1, 1, 300, 10**9, 2**40))
        categories = draw.integers(-2, 4, len(masks))
        given = [label_array(rng, part) for part in (labels, masks, categories)]
        keep = rng.choice((None, None, np.ones(len(masks), bool), [True], 'a', draw.random(len(masks)) < 0.5))
        rng.whole = all(a is b for a, b in zip(given, (labels, masks, categories))) and keep is None
        found = metrics.score_image(*given, keep, rng.choice(('oclf', 'spot')))
        for name, value in found.items():
            assert math.isnan(value) or (-1 if 'ari' in name else 0) <= value <= 1 + 1e-9, name
        if rng.whole:
            truth = metrics.instance_labels(masks)
            compact = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
            assert abs(found['fg_ari'] - pair_counting_ari(*foreground(truth, compact))) < 1e-9
            assert abs(found['ari'] - pair_counting_ari(*every(truth, compact))) < 1e-9
            rows = overlaps(truth, compact)
            if rows and len(rows) <= compact.max() + 1:
                assert abs(found['miou'] - mean_iou(rows)) < 1e-9

    return attempt


# ----------------------------------------------------------------------------------------------------------- downloads


@parser('listings of buckets', 60_000, 'listing|lists')
def listings(folder: Path) -> Attempt:
    """Every file that is listed goes directly into its folder."""
    digest = 'rL0Y20zC+Fzt72VPzMSk2A=='
    base = {'items': [
        {'name': 'a/x.tfrecord-00000', 'size': '12', 'md5Hash': digest}, {'name': 'a/', 'size': '0'},
        {'name': 'a/y.tfrecord-00001', 'size': '9', 'crc32c': 'AAAAAA=='},
    ]}  # fmt: skip
    bucket = Bucket('b', 'a/', 'into', ('-test.',))

    def attempt(rng: Source) -> None:
        given = change(rng, base)
        content = text_of(rng, given)
        pages = [content, json.dumps({'nextPageToken': '2', 'items': []}).encode() if rng.random() < 0.2 else None]
        if pages[1]:
            pages.reverse()
        rng.whole = content == json.dumps(base).encode()
        answers = iter([page for page in pages if page])
        last = json.dumps({}).encode()
        with unittest.mock.patch.object(fetch, '_read', side_effect=lambda url: next(answers, last)):
            found = fetch.list_bucket(bucket, folder, pause=0)
        for file in found:
            assert file.target.parent == folder / 'into'
            assert file.target.resolve().parent == folder / 'into'
            assert isinstance(file.size, int)
            assert file.size >= 0
        if rng.whole:
            assert [(file.target.name, file.size) for file in found] == [
                ('x.tfrecord-00000', 12), ('y.tfrecord-00001', 9),
            ]  # fmt: skip

    return attempt


NAMES = (
    'a.txt', 'd/b.txt', 'd', 'd/', '../out.txt', '/out.txt', 'd/../../out.txt', '..', '.', '', 'x' * 300, 'a\0b',
    'a\nb', 'C:\\out.txt', 'd\\c.txt', '\udcff', 'a.txt/b',
)  # fmt: skip


@parser('archives: zip, tar, tar.gz', 15_000, r'data\.(zip|tar)|Errno')
def archives(folder: Path) -> Attempt:
    """Nothing gets out of the folder, nothing half is left."""

    def packed(rng: random.Random, kind: str) -> tuple[bytes, dict[str, bytes]]:
        buffer, files = io.BytesIO(), {}
        plain = rng.random() < 0.3
        for _ in range(rng.randrange(1, 4)):
            files[rng.choice(NAMES[:2] if plain else NAMES)] = rng.randbytes(rng.randrange(40))
        if kind == 'zip':
            with warnings.catch_warnings(), zipfile.ZipFile(buffer, 'w', rng.choice((0, 8, 12, 14))) as archive:
                for name, content in files.items():
                    with contextlib.suppress(ValueError, UnicodeError):
                        archive.writestr(zipfile.ZipInfo(name or 'a'), content)
        else:
            with tarfile.open(fileobj=buffer, mode='w:gz' if kind == 'tar.gz' else 'w') as archive:
                for name, content in files.items():
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    if not plain:
                        member.type = rng.choice(
                            (tarfile.REGTYPE,) * 4 + tuple(b'123456gxLS'[i : i + 1] for i in range(10))
                        )
                        member.linkname = rng.choice(NAMES)
                        member.mode = rng.choice((0o644, 0, 0o7777))
                    with contextlib.suppress(ValueError, UnicodeError):
                        archive.addfile(member, io.BytesIO(content))
        return buffer.getvalue(), files if plain else {}

    def attempt(rng: Source) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            place = Path(name)
            (place / 'root' / '.download').mkdir(parents=True)
            kind = rng.choice(('zip', 'tar', 'tar.gz'))
            path = place / 'root' / '.download' / f'data.{kind}'
            content, files = packed(rng, kind)
            broken = damage(rng, content, (0, 0, 1, 1, 2))
            path.write_bytes(broken)
            rng.whole = broken == content and bool(files)
            (place / 'root' / 'kept').write_bytes(b'k')
            try:
                fetch._unpack(path, place / 'root')
            finally:
                assert [p.name for p in place.iterdir()] == ['root']
                assert not (place / 'root' / '.download' / f'{path.name}.unpacked').exists()
                assert not [
                    p
                    for p in (place / 'root').rglob('*')
                    if p.is_symlink() and place not in Path(os.path.realpath(p)).parents
                ]
            if rng.whole:
                assert all((place / 'root' / name).read_bytes() == body for name, body in files.items())

    return attempt


# ------------------------------------------------------------------------------------------- what runs leave, and lists


@parser("rows, tables and logs of runs' folders", 30_000, r'row\.json|\.csv')
def run_files(folder: Path) -> Attempt:
    """A finished run's row, tables and logs, as the book and ``topdown watch`` read them."""
    config = preset('smoke')
    row = {'variant': 'top-down', 'fg_ari': 1.5, 'config': config.key, 'seed': 0, 'wall_seconds': 2.0}
    table = 'model,masks,seed,dataset,fg_ari,mbo_i,mbo_c,miou\na,decoder,0,toybox,1.5,2,3,4\nb,-,1,toybox,1,2,3,4\n'
    log = 'step,loss,lr\n1,0.5,0.1\n2,0.25,0.1\n'

    def attempt(rng: Source) -> None:
        kind = rng.randrange(4)
        if kind == 0:
            given = change(rng, row)
            content = text_of(rng, given)
            (folder / 'row.json').write_bytes(content)
            rng.whole = content == json.dumps(row).encode()
            found = read_row(folder, config)
            assert found is None or (found['config'], found['seed']) == (config.key, 0)
            assert not rng.whole or found == row
        elif kind == 1:
            content = damage(rng, table.encode(), (0, 1, 2, 4))
            (folder / 'results.csv').write_bytes(content)
            rng.whole = content == table.encode()
            found = read_results(folder)
            assert not rng.whole or found.fg_ari.tolist() == [1.5, 1]
        elif kind == 2:
            content = damage(rng, log.encode(), (0, 1, 2, 4))
            (folder / 'log.csv').write_bytes(content)
            rng.whole = content == log.encode()
            assert show(folder)
            read(folder / 'log.csv')
        else:
            content = damage(rng, log.encode(), (0, 1, 2, 4))
            (folder / 'log.csv').write_bytes(content)
            rng.whole = True  # a run goes on, whatever its log is
            with Journal(folder / 'log.csv', 1) as journal:
                journal.add({'step': 2, 'loss': 0.125, 'lr': 0.1})
            found = journal.read()
            assert found.loss.iloc[-1] == 0.125
            assert content != log.encode() or found.loss.tolist() == [0.5, 0.125]

    return attempt


@parser('lists of images and of classes: VOC, ADE20K', 20_000, r'val\.txt|objectInfo150\.txt|images|\.jpg')
def image_lists(folder: Path) -> Attempt:
    """Names stay inside the folder."""
    lists = folder / 'VOC2012' / 'ImageSets' / 'Segmentation'
    lists.mkdir(parents=True)
    (folder / 'VOC2012' / 'JPEGImages').mkdir()
    for part in ('images', 'annotations'):
        (folder / part / 'validation').mkdir(parents=True)
        Image.new('L', (4, 4), 1).save(folder / part / 'validation' / f'a.{"jpg" if part == "images" else "png"}')
    text, info = (
        b'2007_000033\n2007_000042\n',
        b'Idx\tRatio\tTrain\tVal\tName\n1\t0.1\t2\t3\twall\n2\t0.1\t2\t3\tsky, air\n',
    )
    words = [name.encode('utf-8', 'replace') for name in TEXTS]

    def attempt(rng: Source) -> None:
        if rng.random() < 0.5:
            content = damage(rng, text, (0, 1, 2)) + (rng.choice(words) if rng.random() < 0.5 else b'')
            (lists / 'val.txt').write_bytes(content)
            rng.whole = content == text
            data = VocSegmentation(folder, 'val', 4, 4)
            for i in range(len(data)):
                for path in (data.path(i), data.label_path(i)):
                    (path.parent / os.path.normpath(path.name)).relative_to(folder / 'VOC2012')
                    assert '..' not in path.parts
            assert not rng.whole or data.ids == ['2007_000033', '2007_000042']
        else:
            content = damage(rng, info, (0, 1, 2))
            (folder / 'objectInfo150.txt').write_bytes(content)
            rng.whole = content == info
            data = Ade20k(folder, 'val', 4, 4)
            assert all(isinstance(number, int) for number in data.category_names)
            assert not rng.whole or data.category_names == {1: 'wall', 2: 'sky, air'}

    return attempt


# ------------------------------------------------------------------------------------------------------------ running


class TooLong(BaseException):
    """An input took longer than it may."""


def _too_long(*_: object) -> None:
    raise TooLong


def judge(found: Parser, attempt: Attempt, rng: Source) -> tuple[str, str]:
    """'read', 'refused' or 'failed' of one input, and what went wrong."""
    try:
        attempt(rng)
        return 'read', ''
    except NoMask as reason:
        error, kinds = reason, (NoMask,)
    except (ValueError, OSError) as refused:
        error, kinds = refused, (ValueError, OSError, *OSError.__subclasses__())
    except MemoryError:
        return 'failed', 'MemoryError'
    except (Exception, TooLong) as failed:
        return 'failed', f'{type(failed).__name__}: {failed}'[:300]
    message = str(error)
    if type(error) not in kinds:
        return 'failed', f'raw {type(error).__name__}: {message}'[:300]
    if not message or '\n' in message or len(message) > 1500:
        return 'failed', f'message of {len(message.splitlines())} lines, {len(message)} characters: {message}'[:300]
    if not re.search(found.names, message):
        return 'failed', f'names nothing: {message}'[:300]
    if rng.whole:
        return 'failed', f'a whole input is refused: {message}'[:300]
    return 'refused', ''


def source(seed: int, name: str, number: int) -> Source:
    """Of one input."""
    return Source(f'{seed}/{name}/{number}')


def try_all(name: str, seed: int, numbers: range, said: Callable[[int, str, str], object]) -> None:
    """Try inputs, telling of each."""
    found = PARSERS[name]
    before = signal.signal(signal.SIGALRM, _too_long)
    here = os.getcwd()
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter('ignore')
            attempt = found.prepare(Path(folder).resolve())
            for number in numbers:
                signal.alarm(SECONDS)
                outcome = judge(found, attempt, source(seed, name, number))
                signal.alarm(0)
                said(number, *outcome)
            os.chdir(here)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        os.chdir(here)


def _child(name: str, seed: int, numbers: range, counts: Any, problems: Any) -> None:
    used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    torch.set_num_threads(1)

    def said(number: int, outcome: str, problem: str) -> None:
        counts[('read', 'refused', 'failed').index(outcome)] += 1
        counts[3] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if problem:
            problems.put((number, problem))

    try_all(name, seed, numbers, said)


def run(name: str, seed: int, first: int, last: int, state: dict[str, Any]) -> None:
    """Try inputs ``first`` to ``last`` - 1 in a process of its own, and add to what is known of the parser."""
    context = multiprocessing.get_context('fork')
    while first < last:
        counts, problems = context.Array('q', 4, lock=False), context.SimpleQueue()
        began = time.monotonic()
        child = context.Process(target=_child, args=(name, seed, range(first, last), counts, problems))
        child.start()
        found: list[tuple[int, str]] = []
        while child.is_alive():
            child.join(0.2)
            while not problems.empty():
                found.append(problems.get())
        while not problems.empty():
            found.append(problems.get())
        done = sum(counts[:3])
        if child.exitcode and done < last - first:  # it ended on this input
            found.append((first + done, f'the process ended with status {child.exitcode}'))
            counts[2] += 1
            done += 1
        row = state.setdefault(
            name, {'read': 0, 'refused': 0, 'failed': 0, 'seconds': 0.0, 'problems': [], 'megabytes': 0}
        )
        for place, outcome in enumerate(('read', 'refused', 'failed')):
            row[outcome] += counts[place]
        row['seconds'] += time.monotonic() - began
        row['megabytes'] = max(row['megabytes'], counts[3] // 1024)
        row['problems'] += found
        for number, problem in found[:20]:
            print(f'  {name} {number}: {problem}', flush=True)
        first += done


def code() -> str:
    """Hash of all that decides what becomes of an input."""
    digest = hashlib.sha256()
    for path in sorted([*ROOT.glob('topdown/**/*.py'), Path(__file__)]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def told(what: str, row: dict[str, Any]) -> dict[str, Any]:
    """A row of the table."""
    tried = sum(row[key] for key in ('read', 'refused', 'failed'))
    how = f'{row["read"] / tried:.0%} read, {row["refused"] / tried:.0%} refused; {row["megabytes"]} MB at most'
    return {'what': what, 'tried': tried, 'survived': tried - row['failed'], 'how': how}


def main() -> int:
    """Try what has not been tried; 1 if an input was not survived."""
    options = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    options.add_argument('--only', nargs='*', default=list(PARSERS), choices=list(PARSERS), metavar='PARSER')
    options.add_argument('--seed', type=int, default=0)
    options.add_argument('--count', type=int, default=0, help='inputs of each parser; 0: those of the long form')
    options.add_argument('--first', type=int, help='try from this input on, and keep no record')
    given = options.parse_args()
    known = json.loads(STATE.read_text()) if STATE.is_file() else {}
    key = {'code': code(), 'seed': given.seed}
    state = known['rows'] if {**known, **key} == known else {}
    alone = given.first is not None
    state = {} if alone else state
    for name in given.only:
        row, count = state.get(name, {}), given.count or PARSERS[name].count
        first = given.first if alone else sum(row.get(key, 0) for key in ('read', 'refused', 'failed'))
        last = first + count if alone else count
        while first < last:
            step = min(last, first + max(1, count // 20))
            run(name, given.seed, first, step, state)
            first = step
            if not alone:
                STATE.parent.mkdir(exist_ok=True)
                STATE.write_text(json.dumps({**key, 'rows': state}))
        if name in state:
            shown = {key: value for key, value in state[name].items() if key != 'problems'}
            print(f'{PARSERS[name].what}: {shown}', flush=True)
    tried = {name: sum(row[key] for key in ('read', 'refused', 'failed')) for name, row in state.items()}
    failed = sum(row['failed'] for row in state.values())
    print(f'{sum(tried.values())} inputs tried, {failed} not survived')
    if not alone and all(tried.get(name, 0) >= known.count for name, known in PARSERS.items()):
        write_rows(INPUTS, [told(PARSERS[name].what, state[name]) for name in PARSERS])
    return int(failed > 0)


if __name__ == '__main__':
    raise SystemExit(main())
