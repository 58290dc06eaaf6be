"""TFRecords without TensorFlow: bytes written from the format's specification, and the traps of the format."""

import gzip
import io
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import topdown
from topdown.data import tfrecord
from topdown.data.movi import DRAWN, FRAMES, Movi
from topdown.data.tfrecord import RecordFile, make_example, masked_crc, parse_example, read_gzip, write_record


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
        return field(2, field(1, values.astype('<f4').tobytes()) if len(values) else b'')
    return field(3, field(1, b''.join(varint(int(v)) for v in values)) if len(values) else b'')


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
    mine = make_example({'a': texts, 'b/c': np.array(integers, np.int64), 'd': np.array(floats, np.float32)})
    assert mine == data


def test_trailing_zeros_of_bytes_are_kept():
    assert parse_example(example({'v': [b'x\0\0', b'\0', b'']}))['v'] == [b'x\0\0', b'\0', b'']


def test_single_bytes_keep_their_zeros_and_other_lengths_are_refused():
    values = np.random.default_rng(0).integers(0, 256, 999, np.uint8)
    values[::3] = 0
    data = example({'v': [bytes([v]) for v in values], 'w': [b'ab', b''], 'n': np.array([1])})
    found = parse_example(data, {'v'}, {'v'})
    assert found['v'].dtype == np.uint8
    np.testing.assert_array_equal(found['v'], values)
    for name in 'wn':
        with pytest.raises(ValueError, match=f'values of {name} must be single bytes'):
            parse_example(data, {name}, {name})
    padded_length = field(1, b''.join(b'\x0a\x81\x00' + bytes([v]) for v in (0, 7, 0)))  # 1 in two bytes: allowed
    data = field(1, field(1, field(1, b'v') + field(2, padded_length)))
    assert parse_example(data, single={'v'})['v'].tolist() == [0, 7, 0]


def independent(path, records, compress=False):
    """Records of name -> (values, 'byte', 'float' or 'int') written by another program's protobuf and checksums."""
    library = pytest.importorskip('tfrecord')
    writer = library.TFRecordWriter(str(path))
    for record in records:
        writer.write(record)
    writer.close()
    if compress:
        path.write_bytes(gzip.compress(path.read_bytes()))


@pytest.mark.parametrize('compress', [False, True])
def test_files_of_an_independent_writer_are_read(tmp_path, compress):
    path, rng = tmp_path / 'a.tfrecord', np.random.default_rng(0)
    single = rng.integers(0, 256, 50_000, np.uint8)
    single[::2] = 0
    floats, integers = rng.normal(size=11).astype(np.float32), [0, -1, 2**62, -(2**63), 300]
    records = [
        {
            'text': ([b'x\0\0', b'', b'\0'], 'byte'), 'single': ([bytes([v]) for v in single], 'byte'),
            'floats': (floats.tolist(), 'float'), 'integers': (integers, 'int'), 'number': ([number], 'int'),
            'none': ([], 'float'),
        }
        for number in range(3)
    ]  # fmt: skip
    independent(path, records, compress)
    if compress:
        contents = list(read_gzip(path))
    else:
        file = RecordFile(path)
        contents = [file[n] for n in range(len(file))]
        assert all(file.verify(n) for n in range(3))
    assert len(contents) == 3
    for number, content in enumerate(contents):
        found = parse_example(content, single={'single'})
        assert found['text'] == [b'x\0\0', b'', b'\0']
        np.testing.assert_array_equal(found['single'], single)
        np.testing.assert_array_equal(found['floats'], floats)
        assert found['integers'].tolist() == integers
        assert found['number'].tolist() == [number]
        assert len(found['none']) == 0


def test_messages_are_read_by_another_program(tmp_path):
    library = pytest.importorskip('tfrecord')
    values = {'a': [b'\0', b'xy\0'], 'f': np.array([1.5, -2], np.float32), 'n': np.array([3, -4])}
    found = library.example_pb2.Example.FromString(make_example(values)).features.feature
    assert list(found['a'].bytes_list.value) == values['a']
    assert list(found['f'].float_list.value) == [1.5, -2]
    assert list(found['n'].int64_list.value) == [3, -4]
    with (tmp_path / 'mine').open('wb') as file:
        write_record(file, make_example(values))
    (record,) = library.reader.tfrecord_iterator(str(tmp_path / 'mine'))
    assert bytes(record) == make_example(values)


def test_compressed_files_are_read_in_order_and_faults_named(tmp_path):
    path, raw = tmp_path / 'a.gz', tmp_path / 'raw'
    records = [np.random.default_rng(n).bytes(3000) for n in range(5)]
    write_records(raw, records)
    content = raw.read_bytes()
    path.write_bytes(gzip.compress(content))
    places = []
    assert list(read_gzip(path, at=places.append)) == records
    assert len(places) == 5
    assert list(read_gzip(path, first=3)) == records[3:]
    with pytest.raises(FileNotFoundError):
        next(read_gzip(tmp_path / 'nothing'))
    damaged = bytearray(content)
    damaged[2 * 3016 + 500] ^= 1
    for fault, message in (
        (path.read_bytes()[:9000], 'a.gz is cut off in record 2'),
        (gzip.compress(content[: 3016 + 5]), 'a.gz is cut off after record 1'),
        (gzip.compress(content[: 3016 + 500]), 'a.gz is cut off in record 1'),
        (gzip.compress(damaged), r'a.gz is damaged \(record 2, checksum of its data'),
        (path.read_bytes()[:-8] + bytes(8), r'a.gz is not a whole gzip file .*CRC'),
        (content, 'a.gz is not a whole gzip file'),
        (gzip.compress(b'something else altogether'), 'a.gz is not a TFRecord file'),
    ):
        path.write_bytes(fault)
        with pytest.raises(ValueError, match=message):
            list(read_gzip(path))


def test_more_files_than_a_process_may_open_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tfrecord, 'MAPPED', 3)
    for number in range(8):
        write_records(tmp_path / str(number), [bytes([number]) * 10, b'x'])
    files = [RecordFile(tmp_path / str(number)) for number in range(8)]
    held = files[0][0]
    for _ in range(2):
        assert [bytes(file[0]) for file in files] == [bytes([n]) * 10 for n in range(8)]
        assert sum(file._map is not None for file in files) <= 3
    assert bytes(held) == bytes(10)  # a record stays readable while it is held
    assert all(file.verify(1) for file in files)
    del files[5:]
    assert bytes(files[0][1]) == b'x'


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


def test_clips_have_truth_in_which_objects_keep_their_number(movi_root):
    data = Movi(movi_root, 'val', 32, 32)
    truth = data.read_clip_annotation(1)
    assert truth.labels.shape == (FRAMES, 32, 32)
    assert truth.categories.tolist() == [5, 1, 17]  # object 2 is never seen
    assert [sorted(set(np.unique(labels)) - {0}) for labels in truth.labels[:2]] == [[1, 3], [1]]
    for t in (0, 1, 7):
        frame = data.annotation(FRAMES + t)
        seen = sorted(set(np.unique(truth.labels[t])) - {0})
        np.testing.assert_array_equal(frame.masks, truth.labels[t] == np.array(seen)[:, None, None])
        assert frame.categories.tolist() == truth.categories[np.array(seen) - 1].tolist()


def test_an_epoch_has_nine_frames_of_every_training_clip(movi_root):
    data = Movi(movi_root, 'train', 32, 32)
    assert (len(data), data.epoch_length) == (3 * FRAMES, 3 * DRAWN)

    def epoch(number):
        return data.order(torch.Generator().manual_seed(number))

    order = epoch(0)
    assert torch.equal(order, epoch(0))
    assert not torch.equal(order.sort().values, epoch(1).sort().values)
    assert len(set(order.tolist())) == 3 * DRAWN
    assert torch.bincount(order // FRAMES).tolist() == [DRAWN] * 3
    assert not torch.equal(order // FRAMES, (order // FRAMES).sort().values)  # clips are mixed
    seen = torch.cat([epoch(n) for n in range(30)]) % FRAMES
    assert len(seen.unique()) == FRAMES
    for limit, expected in ((FRAMES + 3, DRAWN + 3), (5, 5), (2 * FRAMES + 20, 3 * DRAWN)):
        data = Movi(movi_root, 'train', 32, 32, limit)
        order = data.order(torch.Generator().manual_seed(0))
        assert len(order) == data.epoch_length == expected == len(order.unique())
        assert order.max() < limit
    data = Movi(movi_root, 'val', 32, 32)
    assert sorted(data.order(torch.Generator()).tolist()) == list(range(3 * FRAMES))


def test_movi_of_an_independent_writer(movi_root):
    expected = Movi(movi_root, 'val', 32, 32)
    records = []
    for number in range(3):
        found = parse_example(expected.files[expected.clips[number][0]][expected.clips[number][1]])
        kinds = {list: 'byte'} | {np.dtype(np.float32): 'float', np.dtype(np.int64): 'int'}
        records.append({
            name: (values if isinstance(values, list) else values.tolist(), kinds[getattr(values, 'dtype', list)])
            for name, values in found.items()
        })  # fmt: skip
    other = movi_root / 'other'
    other.mkdir()
    independent(other / 'movi_c-validation.tfrecord-00000-of-00001', records)
    data = Movi(other, 'val', 32, 32)
    assert len(data) == len(expected)
    for i in (0, 1, 30, 71):
        assert torch.equal(data.read_image(i), expected.read_image(i))
        np.testing.assert_array_equal(data.annotation(i).masks, expected.annotation(i).masks)
        np.testing.assert_array_equal(data.annotation(i).categories, expected.annotation(i).categories)


def test_movi_trains(movi_root, encoder):
    config = topdown.preset(
        'smoke', dataset='movi_c', data_root=str(movi_root), steps=2, batch_size=4, cache_tokens=False, eval_images=6,
        eval_every=0, flip=False, num_workers=1,
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
    with pytest.raises(ValueError, match='not a TFRecord file, or a compressed one'):
        Movi(movi_root, 'train', 32, 32)
    damaged = bytearray(content)
    damaged[500] ^= 1
    second.write_bytes(damaged)
    file = RecordFile(second)
    assert [file.verify(0), file.verify(1)] == [False, True]
    write_records(second, [example({'text': [b'hello']})] * 2)
    with pytest.raises(ValueError, match='no video: it is not a MOVi file'):
        Movi(movi_root, 'train', 32, 32).read_image(FRAMES)
    with pytest.raises(ValueError, match=r'not a tf\.train\.Example'):
        parse_example(b'\xff\xff\xff')
