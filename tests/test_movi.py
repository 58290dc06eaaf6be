"""TFRecords without TensorFlow: bytes written from the format's specification, and the traps of the format."""

import io
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import topdown
from topdown.data.movi import FRAMES, Movi
from topdown.data.tfrecord import RecordFile, masked_crc, parse_example


def varint(value):
    """Base 128, least significant group first, high bit set on all but the last."""
    value &= (1 << 64) - 1
    groups = []
    while True:
        groups.append(value & 0x7F)
        value >>= 7
        if not value:
            return bytes([g | 0x80 for g in groups[:-1]] + groups[-1:])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(values):
    if isinstance(values, list):  # bytes
        return field(1, b''.join(field(1, v) for v in values))
    if values.dtype.kind == 'f':
        return field(2, field(1, values.astype('<f4').tobytes()))
    return field(3, field(1, b''.join(varint(int(v)) for v in values)))


def example(fields):
    """A serialised tf.train.Example."""
    entries = (field(1, field(1, name.encode()) + field(2, feature(values))) for name, values in fields.items())
    return field(1, b''.join(entries))


def write_records(path, records):
    with path.open('wb') as file:
        for data in records:
            length = struct.pack('<Q', len(data))
            file.write(length + struct.pack('<I', masked_crc(length)) + data + struct.pack('<I', masked_crc(data)))


def test_checksum_is_castagnoli_as_published():
    # RFC 3720, B.4: CRC-32C of 32 zero bytes and of the bytes 0 to 31; then TFRecord's mask
    for data, crc in ((bytes(32), 0x8A9136AA), (bytes(range(32)), 0x46DD794E), (b'123456789', 0xE3069283)):
        assert masked_crc(data) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@settings(max_examples=50, deadline=None)
@given(
    texts=st.lists(st.binary(max_size=40), max_size=4),
    integers=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
    floats=st.lists(st.floats(width=32, allow_nan=False), max_size=5),
)
def test_fields_come_back_as_they_were(texts, integers, floats):
    data = example({'a': texts, 'b/c': np.array(integers, np.int64), 'd': np.array(floats, np.float32)})
    found = parse_example(data)
    assert list(found['a']) == texts
    assert list(found['b/c']) == integers
    np.testing.assert_array_equal(found['d'], np.array(floats, np.float32))
    assert set(parse_example(data, {'a'})) == {'a'}


def test_trailing_zeros_of_bytes_are_kept():
    assert parse_example(example({'v': [b'x\0\0', b'\0', b'']}))['v'] == [b'x\0\0', b'\0', b'']


def test_integers_that_are_not_packed_are_read_too():
    unpacked = field(3, varint(1 << 3) + varint(7) + varint(1 << 3) + varint(300))
    data = field(1, field(1, field(1, b'n') + field(2, unpacked)))
    assert parse_example(data)['n'].tolist() == [7, 300]


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, 'PNG')
    return buffer.getvalue()


def clip_record(seed):
    """One clip: object 1 moves to the right, object 3 is hidden in odd frames; flow is there to be skipped."""
    rng = np.random.default_rng(seed)
    video, segmentations = [], []
    for t in range(FRAMES):
        labels = np.zeros((32, 32), np.uint8)
        labels[4:12, t % 16 : t % 16 + 8] = 1
        if t % 2 == 0:
            labels[20:28, 20:28] = 3
        segmentations.append(png(labels))
        video.append(png(rng.integers(0, 256, (32, 32, 3), np.uint8)))
    return example({
        'backward_flow': [bytes(1000)] * 3, 'instances/category': np.array([4, 0, 16]),
        'segmentations': segmentations, 'video': video, 'metadata/num_instances': np.array([3]),
        'metadata/depth_range': np.array([0.5, 2.5], np.float32),
    })  # fmt: skip


@pytest.fixture
def movi_root(tmp_path):
    folder = tmp_path / 'movi_c' / '128x128' / '1.0.0'
    folder.mkdir(parents=True)
    for part, seeds in (('train', (0, 1)), ('validation', (2, 3))):
        write_records(folder / f'movi_c-{part}.tfrecord-00000-of-00002', [clip_record(seeds[0])])
        write_records(folder / f'movi_c-{part}.tfrecord-00001-of-00002', [clip_record(seeds[1])] * 2)
    return tmp_path


def test_movi_reads_frames_objects_and_categories(movi_root):
    data = Movi(movi_root, 'val', 32, 32)
    assert len(data) == 3 * FRAMES
    truth = data.annotation(2)
    assert truth.masks.sum((1, 2)).tolist() == [64, 64]
    assert truth.categories.tolist() == [5, 17]  # from 1; the object that is never seen does not shift them
    assert truth.masks[0, 4, 2]
    assert data.annotation(3).masks.shape[0] == 1
    assert data.file_name(FRAMES + 3) == 'clip00001_frame03.png'
    clip = data.read_clip(1)
    assert clip.shape == (FRAMES, 3, 32, 32)
    assert torch.equal(clip[5], data.read_image(FRAMES + 5))
    assert not torch.equal(data.read_image(0), data.read_image(FRAMES))


def test_movi_trains(movi_root, encoder):
    config = topdown.preset(
        'smoke', dataset='movi_c', data_root=str(movi_root), steps=2, batch_size=4, cache_tokens=False, eval_images=6,
        eval_every=0, flip=False, workers=1,
    )  # fmt: skip
    run = topdown.train_model(config, movi_root / 'run', encoder, progress=False)
    assert np.isfinite(run.evaluations[['fg_ari', 'mbo_i', 'mbo_c', 'miou']].to_numpy()).all()


def test_missing_and_damaged_files_are_named(movi_root, tmp_path):
    folder = movi_root / 'movi_c' / '128x128' / '1.0.0'
    with pytest.raises(FileNotFoundError, match=r'movi_e-train.*gsutil'):
        Movi(movi_root, 'train', 32, 32, name='movi_e')
    second = folder / 'movi_c-train.tfrecord-00001-of-00002'
    content = second.read_bytes()
    second.unlink()
    with pytest.raises(ValueError, match='1 of 2 files'):
        Movi(movi_root, 'train', 32, 32)
    second.write_bytes(content[:-100])
    with pytest.raises(ValueError, match='cut off in record 1'):
        Movi(movi_root, 'train', 32, 32)
    second.write_bytes(b'\x1f\x8b' + content)
    with pytest.raises(ValueError, match='no TFRecord file, or a compressed one'):
        Movi(movi_root, 'train', 32, 32)
    damaged = bytearray(content)
    damaged[500] ^= 1
    second.write_bytes(damaged)
    file = RecordFile(second)
    assert [file.verify(0), file.verify(1)] == [False, True]
    write_records(second, [example({'text': [b'hello']})] * 2)
    with pytest.raises(ValueError, match='no video: it is no MOVi file'):
        Movi(movi_root, 'train', 32, 32).read_image(FRAMES)
    with pytest.raises(ValueError, match=r'no tf\.train\.Example'):
        parse_example(b'\xff\xff\xff')
