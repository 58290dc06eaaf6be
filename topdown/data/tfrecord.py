"""TFRecord files and tf.train.Example messages, read and written without TensorFlow.

A TFRecord file is a sequence of records: length (8 bytes, little endian), masked CRC-32C of the length (4 bytes), data,
masked CRC-32C of the data (4 bytes). The data of a record here is a protobuf message ``Example``: a map from names to
lists of bytes, floats or integers. Files are memory-mapped and fields that nobody asks for are skipped, not read: a
MOVi record holds megabytes of flow and depth beside the images. A compressed file is read from its start,
record by record (``read_gzip``).
"""

from __future__ import annotations

import gzip
import mmap
import struct
import weakref
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import numpy as np
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

MAPPED = 128
"""Files that stay mapped."""
LONGEST = 2**28
"""Bytes of a record; memory is asked for only below it."""
_mapped: deque[weakref.ref[RecordFile]] = deque()


_MESSAGES = {  # fields in the order of their numbers
    'BytesList': [('value', 'REPEATED', 'BYTES')],
    'FloatList': [('value', 'REPEATED', 'FLOAT')],
    'Int64List': [('value', 'REPEATED', 'INT64')],
    'Feature': [
        ('bytes_list', 'OPTIONAL', 'BytesList'),
        ('float_list', 'OPTIONAL', 'FloatList'),
        ('int64_list', 'OPTIONAL', 'Int64List'),
    ],
    'Entry': [('key', 'OPTIONAL', 'STRING'), ('value', 'OPTIONAL', 'Feature')],  # what a map is on disk
    'Features': [('feature', 'REPEATED', 'Entry')],
    'Example': [('features', 'OPTIONAL', 'Features')],
}


def _message_class(name: str) -> type[Message]:
    """Protobuf's class of one of the messages above."""
    described = [
        {
            'name': message,
            'field': [
                {'name': field, 'number': number, 'label': f'LABEL_{label}'}
                | ({'type': 'TYPE_MESSAGE', 'type_name': kind} if kind in _MESSAGES else {'type': f'TYPE_{kind}'})
                for number, (field, label, kind) in enumerate(fields, 1)
            ],
        }
        for message, fields in _MESSAGES.items()
    ]
    file = FileDescriptorProto(name='example.proto', syntax='proto3', message_type=described)
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName(name))


_Example, _Feature = _message_class('Example'), _message_class('Feature')


def masked_crc(data: bytes | memoryview) -> int:
    """CRC-32C, rotated and offset as TFRecord stores it."""
    crc = google_crc32c.value(bytes(data))  # it takes no views
    return (crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF


class RecordFile:
    """Records of one file by number.

    A mapped file counts as an open one, and MOVi has more files than a process may have open, so that only those used
    last stay mapped.

    Args:
        path: the file, uncompressed.

    Raises:
        ValueError: if the file is not a TFRecord file, or is cut off.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.spans: list[tuple[int, int]] = []  # offset and length of the data of every record
        self._map: mmap.mmap | None = None
        size = self.path.stat().st_size
        with self.path.open('rb') as file:
            offset = 0
            while offset < size:
                file.seek(offset)
                length = _length(file.read(12), self.path, len(self.spans))
                if offset + 16 + length > size:
                    raise ValueError(f'{self.path} is cut off in record {len(self.spans)}: get it again')
                self.spans.append((offset + 12, length))
                offset += 16 + length

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, number: int) -> memoryview:
        """The data of a record, not copied."""
        if self._map is None:  # made by whoever reads, so that loader processes do not share it
            with self.path.open('rb') as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            _mapped.append(weakref.ref(self))
            while len(_mapped) > MAPPED:
                oldest = _mapped.popleft()()
                if oldest is not None:
                    oldest._map = None  # closed as soon as nobody holds a record of it
        offset, length = self.spans[number]
        return memoryview(self._map)[offset : offset + length]

    def example(self, number: int, names: set[str]) -> dict[str, list[bytes] | np.ndarray]:
        """Fields of a record, see ``parse_example``, whose errors are told with the file and the record."""
        try:
            return parse_example(self[number], names)
        except ValueError as error:
            raise ValueError(f'{self.path}, record {number}: {error}') from error

    def verify(self, number: int) -> bool:
        """Whether the data of a record fits its checksum."""
        offset, length = self.spans[number]
        data = self[number]
        stored = memoryview(self._map)[offset + length : offset + length + 4]
        return masked_crc(data) == struct.unpack('<I', stored)[0]

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), '_map': None}


def read_gzip(path: str | Path, first: int = 0, at: Callable[[int], object] | None = None) -> Iterator[bytes]:
    """Records of a gzip-compressed file, from its start to its end, each checked.

    Args:
        path: the file.
        first: records before that one are neither checked nor given, but still have to be decompressed.
        at: called with the place in the compressed file after every record, for a progress bar.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not compressed, cut off or damaged, naming the record.
    """
    number = 0
    with open(path, 'rb') as compressed, gzip.open(compressed) as file:
        try:
            while header := file.read(12):
                data = _read_whole(file, _length(header, path, number))
                stored = _read_whole(file, 4)
                if number >= first:
                    if masked_crc(data) != struct.unpack('<I', stored)[0]:
                        raise ValueError(f'{path} is damaged (record {number}, checksum of its data): get it again')
                    yield data
                number += 1
                if at:
                    at(compressed.tell())
        except gzip.BadGzipFile as error:
            raise ValueError(f'{path} is not a whole gzip file ({error}, record {number}): get it again') from error
        except zlib.error as error:
            raise ValueError(f'{path} is damaged ({error}, record {number}): get it again') from error
        except EOFError as error:
            raise ValueError(f'{path} is cut off in record {number}: get it again') from error


def _length(header: bytes, path: str | Path, number: int) -> int:
    """Of a record's data, from the twelve bytes before it."""
    if len(header) < 12:
        raise ValueError(f'{path} is cut off after record {number}: get it again')
    (length,), (crc,) = struct.unpack('<Q', header[:8]), struct.unpack('<I', header[8:])
    if masked_crc(header[:8]) != crc:
        what = 'is damaged' if number else 'is not a TFRecord file, or a compressed one'
        raise ValueError(f'{path} {what} (record {number}, checksum of its length)')
    if length > LONGEST:
        raise ValueError(f'{path} is damaged (record {number} of {length} bytes): get it again')
    return length


def _read_whole(file: BinaryIO, length: int) -> bytes:
    data = file.read(length)
    if len(data) < length:
        raise EOFError
    return data


def write_record(file: BinaryIO, data: bytes) -> None:
    """Append one record to an open file."""
    length = struct.pack('<Q', len(data))
    file.write(length + struct.pack('<I', masked_crc(length)) + data + struct.pack('<I', masked_crc(data)))


def make_example(fields: dict[str, list[bytes] | np.ndarray]) -> bytes:
    """A tf.train.Example message of lists of bytes, and of arrays of floats or integers."""
    example = _Example()
    for name, values in fields.items():
        feature = example.features.feature.add(key=name).value
        if isinstance(values, list):
            content = feature.bytes_list
        else:
            content = feature.float_list if values.dtype.kind == 'f' else feature.int64_list
        content.SetInParent()  # an empty list keeps its kind
        content.value.extend(values if isinstance(values, list) else values.tolist())
    return example.SerializeToString()


def parse_example(
    data: bytes | memoryview, names: set[str] | None = None, single: frozenset[str] | set[str] = frozenset()
) -> dict[str, list[bytes] | np.ndarray]:
    """Fields of an Example message.

    Protobuf reads the lists. The way to them is walked here, as protobuf would read, and copy, the whole message.

    Args:
        data: the message.
        names: the fields wanted; all if None.
        single: names of bytes fields all of whose values are one byte long: they come as one uint8 array, and fast.

    Returns:
        Name -> list of bytes (each whole, trailing zeros included), float32 array, int64 array, or uint8 array.

    Raises:
        ValueError: if the data is no such message, or a value of a ``single`` field is not one byte long.
    """
    result: dict[str, list[bytes] | np.ndarray] = {}
    try:
        for features in _parts(memoryview(data), 1):
            for entry in _parts(features, 1):
                parts = dict(_fields(entry))
                name = bytes(parts[1]).decode()
                if names is None or name in names:
                    feature = parts.get(2, memoryview(b''))
                    result[name] = _single_bytes(feature, name) if name in single else _values(feature)
    except (IndexError, KeyError, UnicodeDecodeError, DecodeError) as error:
        raise ValueError(f'this is not a tf.train.Example message ({type(error).__name__}: {error})') from error
    return result


def _single_bytes(feature: memoryview, name: str) -> np.ndarray:
    """A Feature whose values are one byte each, as (n,) uint8.

    Each value is three bytes: its key (10: field 1, length-delimited), its length (1) and itself. Whatever is written
    in another way is left to protobuf, which makes an object of every byte: 240 ms for an image of CLEVR.
    """
    for content in _parts(feature, 1):
        if len(content) % 3 == 0:
            triples = np.frombuffer(content, np.uint8).reshape(-1, 3)
            if (triples[:, 0] == 10).all() and (triples[:, 1] == 1).all():
                return triples[:, 2].copy()
    values = _values(feature)
    wrong = next((v for v in values if not isinstance(v, bytes) or len(v) != 1), None)
    if wrong is not None:
        raise ValueError(f'values of {name} must be single bytes, one is {str(wrong)[:20]}')
    return np.frombuffer(b''.join(values), np.uint8)


def _values(feature: memoryview) -> list[bytes] | np.ndarray:
    for kind, content in _Feature.FromString(feature).ListFields():
        if kind.name == 'bytes_list':
            return list(content.value)
        return np.array(content.value, np.float32 if kind.name == 'float_list' else np.int64)
    return []


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Numbers and contents of a message's fields, all of which have a length in front, as those of an Example do."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        length, at = _varint(message, at)
        if key & 7 != 2 or key < 8 or at + length > len(message):
            raise IndexError('a field is of another kind, or longer than its message')
        yield key >> 3, message[at : at + length]
        at += length


def _parts(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """Contents of the fields of one number."""
    return (content for number, content in _fields(message) if number == wanted)


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Little-endian base-128 integer at a place -> value and the place after it."""
    value = 0
    for shift in range(0, 64, 7):
        byte = data[at]
        value, at = value | (byte & 0x7F) << shift, at + 1
        if not byte & 0x80:
            return value, at
    raise IndexError('a number is longer than 64 bits')
