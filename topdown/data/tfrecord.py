"""TFRecord files and tf.train.Example messages, read without TensorFlow.

A TFRecord file is a sequence of records: length (8 bytes, little endian), masked CRC-32C of the length (4 bytes), data,
masked CRC-32C of the data (4 bytes). The data of a record here is a protobuf message ``Example``: a map from names to
lists of bytes, floats or integers. Files are memory-mapped and fields that nobody asks for are skipped, not read: a
MOVi record holds megabytes of flow and depth beside the pictures.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

_POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected


def _make_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _make_table()


def masked_crc(data: bytes) -> int:
    """CRC-32C, rotated and offset as TFRecord stores it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return (crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF


class RecordFile:
    """Records of one file by number.

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
                header = file.read(12)
                if len(header) < 12:
                    raise ValueError(f'{self.path} is cut off after record {len(self.spans)}: download it again')
                (length,), (crc,) = struct.unpack('<Q', header[:8]), struct.unpack('<I', header[8:])
                if masked_crc(header[:8]) != crc:
                    what = 'is damaged' if self.spans else 'is no TFRecord file, or a compressed one'
                    raise ValueError(f'{self.path} {what} (record {len(self.spans)}, checksum of its length)')
                if offset + 16 + length > size:
                    raise ValueError(f'{self.path} is cut off in record {len(self.spans)}: download it again')
                self.spans.append((offset + 12, length))
                offset += 16 + length

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, number: int) -> memoryview:
        """The data of a record, not copied."""
        if self._map is None:  # made by whoever reads, so that loader processes do not share it
            with self.path.open('rb') as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        offset, length = self.spans[number]
        return memoryview(self._map)[offset : offset + length]

    def verify(self, number: int) -> bool:
        """Whether the data of a record fits its checksum."""
        offset, length = self.spans[number]
        data = bytes(self[number])
        stored = memoryview(self._map)[offset + length : offset + length + 4]
        return masked_crc(data) == struct.unpack('<I', stored)[0]

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), '_map': None}


def parse_example(data: bytes | memoryview, names: set[str] | None = None) -> dict[str, list[bytes] | np.ndarray]:
    """Fields of an Example message.

    Args:
        data: the message.
        names: the fields wanted; all if None.

    Returns:
        Name -> list of bytes (each whole, trailing zeros included), float32 array, or int64 array.

    Raises:
        ValueError: if the data is no such message.
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
                    result[name] = _values(parts.get(2, memoryview(b'')))
    except (IndexError, KeyError, UnicodeDecodeError, struct.error, TypeError) as error:
        raise ValueError(f'this is no tf.train.Example message ({type(error).__name__}: {error})') from error
    return result


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
