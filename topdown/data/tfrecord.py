"""TFRecord files and tf.train.Example messages, read and written without TensorFlow.

A TFRecord file is a sequence of records: length (8 bytes, little endian), masked CRC-32C of the length (4 bytes), data,
masked CRC-32C of the data (4 bytes). The data of a record here is a protobuf message ``Example``: a map from names to
lists of bytes, floats or integers. Files are memory-mapped and fields that nobody asks for are skipped, not read: a
MOVi record holds megabytes of flow and depth beside the pictures. A compressed file is read from its start,
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
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

_POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected
MAPPED = 128
"""Files that stay mapped."""
_mapped: deque[weakref.ref[RecordFile]] = deque()
_BLOCK = 1 << 18  # bytes whose checksum is computed at once; what it needs stays in the processor's cache


def _make_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _make_table()


@lru_cache
def _shift(level: int) -> np.ndarray:
    """Tables (4, 256) uint32 of what 4 * 2^level zero bytes do to a checksum, by the byte of the checksum."""
    if level == 0:
        bits = [1 << bit for bit in range(32)]
        for _ in range(4):
            bits = [value >> 8 ^ _TABLE[value & 0xFF] for value in bits]
    else:
        bits = [int(value) for value in _shifted(np.array([1 << bit for bit in range(32)], np.uint32), level - 1)]
        bits = [int(value) for value in _shifted(np.array(bits, np.uint32), level - 1)]
    tables = np.zeros((4, 256), np.uint32)
    for bit, value in enumerate(bits):
        tables[bit // 8, (np.arange(256) >> bit % 8 & 1).astype(bool)] ^= np.uint32(value)
    return tables


def _shifted(values: np.ndarray, level: int) -> np.ndarray:
    """Checksums (n,) uint32 after 4 * 2^level more zero bytes each."""
    tables, parts = _shift(level), np.ascontiguousarray(values, '<u4').view(np.uint8).reshape(-1, 4)
    result = tables[0].take(parts[:, 0])
    for byte in (1, 2, 3):
        result ^= tables[byte].take(parts[:, byte])
    return result


def crc32c(data: bytes | memoryview, crc: int = 0) -> int:
    """CRC-32C (Castagnoli), going on from the checksum of what came before.

    A checksum is linear: that of two halves is the first one, moved over as many zero bytes as the second half has,
    plus the second one. So words of four bytes are joined two by two, all pairs at once.
    """
    data = memoryview(data).cast('B')
    for first in range(0, len(data), _BLOCK):
        crc = _crc_block(data[first : first + _BLOCK], crc ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
    return crc


def _crc_block(data: memoryview, state: int) -> int:
    if len(data) < 128:
        for byte in data:
            state = state >> 8 ^ _TABLE[(state ^ byte) & 0xFF]
        return state
    lead = -len(data) % 4  # zeros in front change nothing
    padded = np.zeros(lead + len(data), np.uint8)
    padded[lead:] = np.frombuffer(data, np.uint8)
    padded[lead : lead + 4] ^= np.frombuffer(struct.pack('<I', state), np.uint8)
    words, level = padded.view('<u4'), 0
    while len(words) > 1:
        if len(words) % 2:
            words = np.concatenate([np.zeros(1, words.dtype), words])
        words, level = _shifted(words[::2], level) ^ words[1::2], level + 1
    return int(_shifted(words, 0)[0])


def masked_crc(data: bytes | memoryview) -> int:
    """CRC-32C, rotated and offset as TFRecord stores it."""
    crc = crc32c(data)
    return (crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF


class RecordFile:
    """Records of one file by number.

    A mapped file counts as an open one, and MOVi has more files than a process may have open, so that only those used
    last stay mapped.

    Args:
        path: the file, uncompressed.

    Raises:
        ValueError: if the file is no TFRecord file, or is cut off.
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
            raise ValueError(f'{path} is no whole gzip file ({error}, record {number}): get it again') from error
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
        what = 'is damaged' if number else 'is no TFRecord file, or a compressed one'
        raise ValueError(f'{path} {what} (record {number}, checksum of its length)')
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
    entries = []
    for name, values in fields.items():
        if isinstance(values, list):
            feature = _message(1, b''.join(_message(1, value) for value in values))
        elif values.dtype.kind == 'f':
            feature = _message(2, _message(1, values.astype('<f4').tobytes()))
        else:
            feature = _message(3, _message(1, b''.join(_make_varint(int(v)) for v in values)))
        entries.append(_message(1, _message(1, name.encode()) + _message(2, feature)))
    return _message(1, b''.join(entries))


def parse_example(
    data: bytes | memoryview, names: set[str] | None = None, single: frozenset[str] | set[str] = frozenset()
) -> dict[str, list[bytes] | np.ndarray]:
    """Fields of an Example message.

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
        for number, features in _fields(memoryview(data)):
            if number != 1:
                continue
            for entry_number, entry in _fields(features):
                if entry_number != 1:
                    continue
                parts = dict(_fields(entry))
                name = bytes(parts[1]).decode()
                if names is None or name in names:
                    feature = parts.get(2, memoryview(b''))
                    result[name] = _single_bytes(feature, name) if name in single else _values(feature)
    except (IndexError, KeyError, UnicodeDecodeError, struct.error, TypeError) as error:
        raise ValueError(f'this is no tf.train.Example message ({type(error).__name__}: {error})') from error
    return result


def _single_bytes(feature: memoryview, name: str) -> np.ndarray:
    """A Feature whose values are one byte each, as (n,) uint8.

    Each value is three bytes: its key (10: field 1, length-delimited), its length (1) and itself. Whatever is
    written in another way goes through the general parser.
    """
    for kind, content in _fields(feature):
        if kind == 1 and len(content) % 3 == 0:
            triples = np.frombuffer(content, np.uint8).reshape(-1, 3)
            if (triples[:, 0] == 10).all() and (triples[:, 1] == 1).all():
                return triples[:, 2].copy()
    values = _values(feature)
    wrong = next((v for v in values if not isinstance(v, bytes) or len(v) != 1), None)
    if wrong is not None:
        raise ValueError(f'values of {name} must be single bytes, one is {str(wrong)[:20]}')
    return np.frombuffer(b''.join(values), np.uint8)


def _values(feature: memoryview) -> list[bytes] | np.ndarray:
    """A Feature: bytes_list = 1, float_list = 2, int64_list = 3, each with repeated field 1, packed or not."""
    for kind, content in _fields(feature):
        if kind == 1:
            return [bytes(value) for _, value in _fields(content)]
        if kind == 2:
            parts = [
                np.frombuffer(value, '<f4') if isinstance(value, memoryview) else [value]
                for _, value in _fields(content)
            ]
            return np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, np.float32)
        if kind == 3:
            values: list[int] = []
            for _, value in _fields(content):
                if isinstance(value, memoryview):
                    at = 0
                    while at < len(value):
                        number, at = _varint(value, at)
                        values.append(number)
                else:
                    values.append(value)
            return np.array(values, np.uint64).astype(np.int64)
    return []


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int | float]]:
    """Field numbers and values of a message: varints as int, 32-bit as float, the rest as views."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(message, at)
        elif wire == 2:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise IndexError('a field is longer than its message')
            value, at = message[at : at + length], at + length
        elif wire == 5:
            (value,), at = struct.unpack_from('<f', message, at), at + 4
        elif wire == 1:
            value, at = message[at : at + 8], at + 8
        else:
            raise IndexError(f'unknown wire type {wire}')
        yield key >> 3, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Little-endian base-128 integer at a place -> value and the place after it."""
    value, shift = 0, 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
        if shift > 63:
            raise IndexError('a number is longer than 64 bits')


def _message(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return _make_varint(number << 3 | 2) + _make_varint(len(content)) + content


def _make_varint(value: int) -> bytes:
    value, groups = value & (1 << 64) - 1, []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
