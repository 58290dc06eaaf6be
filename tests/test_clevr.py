"""CLEVR with masks: the official format, converted once, whole or not at all."""

import gzip
import json
import shutil

import numpy as np
import pytest
import torch

import topdown
from topdown.cli import main
from topdown.data import clevr as module
from topdown.data.clevr import COLUMNS, ENTITIES, HEIGHT, ROWS, WIDTH, Clevr6, convert_scene, prepare_clevr
from topdown.data.tfrecord import RecordFile, make_example, write_record

from .test_movi import independent

SMALL = {'records': 10, 'train': 6, 'val': 3, 'shard': 2, 'workers': 2, 'progress': False}


def scene(number, objects):
    """Image, masks and shapes: background, then so many squares; the first lies outside the cut, two overlap."""
    rng = np.random.default_rng(number)
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    image[::2] = 0
    masks = np.zeros((ENTITIES, HEIGHT, WIDTH, 1), np.uint8)
    for o in range(1, objects + 1):
        top, left = (5, 5) if o == 1 else (40 + 10 * o, 60 + 20 * o)
        masks[o, top : top + 24, left : left + 24] = 255
    masks[0] = 255 * (masks[1:].max(0) == 0)
    shapes = np.r_[0, rng.integers(1, 4, objects), np.zeros(ENTITIES - 1 - objects, int)].astype(np.uint8)
    return image, masks, shapes


def record(number, objects):
    """As the official file has it: one byte a value."""
    image, masks, shapes = scene(number, objects)
    single = {'image': image, 'mask': masks, 'shape': shapes, 'size': shapes, 'material': shapes, 'color': shapes}
    floats = {name: np.zeros(ENTITIES) for name in 'xyz'} | {
        'rotation': np.zeros(ENTITIES), 'pixel_coords': np.zeros(3 * ENTITIES),
        'visibility': (np.arange(ENTITIES) <= objects).astype(float),
    }  # fmt: skip
    return {name: ([bytes([v]) for v in values.ravel()], 'byte') for name, values in single.items()} | {
        name: (values.tolist(), 'float') for name, values in floats.items()
    }


OBJECTS = (3, 7, 6, 4, 10, 5, 3, 6, 7, 4)


@pytest.fixture(scope='module')
def official(tmp_path_factory):
    """The official file in small: ten scenes by an independent writer."""
    path = tmp_path_factory.mktemp('official') / module.OFFICIAL_FILE
    independent(path, [record(n, objects) for n, objects in enumerate(OBJECTS)], compress=True)
    return path


@pytest.fixture
def root(official, tmp_path):
    (tmp_path / module.OFFICIAL_FILE).write_bytes(official.read_bytes())
    return tmp_path


def test_scenes_come_back_pixel_by_pixel(root):
    folder = prepare_clevr(root, **SMALL)
    train, val = (Clevr6(root, split, 192, 192) for split in ('train', 'val'))
    assert train.ids == [0, 2, 3, 5]  # 1 and 4 have more than six objects
    assert val.ids == [7, 9]
    for data in (train, val):
        for i, number in enumerate(data.ids):
            image, masks, shapes = scene(number, OBJECTS[number])
            view, truth = data.view(i), data.annotation(i)
            assert torch.equal((view * 255).round().byte().permute(1, 2, 0), torch.tensor(image[ROWS, COLUMNS]))
            cut = masks[1:, ROWS, COLUMNS, 0] == 255
            seen = cut.any((1, 2))
            assert seen.sum() == OBJECTS[number] - 1  # one lies outside
            np.testing.assert_array_equal(truth.masks, cut[seen])
            assert truth.masks.sum(0).max() == 2  # overlaps survive
            assert truth.categories.tolist() == (shapes[1:][seen].astype(int) + 1).tolist()
            assert set(truth.categories.tolist()) <= set(data.category_names)
            assert data.file_name(i) == f'clevr_{number:06d}.png'
    assert sorted(p.name for p in folder.iterdir()) == [
        'clevr6.json', 'train-00000.tfrecord', 'train-00001.tfrecord', 'train-00002.tfrecord', 'val-00003.tfrecord',
        'val-00004.tfrecord',
    ]  # fmt: skip
    assert all(RecordFile(p).verify(0) for p in folder.glob('*.tfrecord') if len(RecordFile(p)))
    (root / module.OFFICIAL_FILE).unlink()  # not needed any more
    assert prepare_clevr(root, **SMALL) == folder
    assert len(Clevr6(folder, 'train', 32, 32, limit=2)) == 2


def test_an_interrupted_conversion_goes_on_and_is_never_taken_for_whole(root, monkeypatch):
    converted = []

    def stops(data, number, source):
        converted.append(number)
        if number == 3 and len(converted) < 6:
            raise KeyboardInterrupt
        return convert_scene(data, number, source)

    monkeypatch.setattr(module, 'convert_scene', stops)
    with pytest.raises(KeyboardInterrupt):
        prepare_clevr(root, **SMALL)
    folder = root / 'clevr6'
    assert sorted(p.name for p in folder.iterdir()) == ['train-00000.tfrecord']
    with pytest.raises(FileNotFoundError, match='is there, but not prepared, or not to its end: run topdown data prep'):
        Clevr6(root, 'train', 32, 32)
    converted[:] = [None] * 9
    prepare_clevr(root, **SMALL)
    assert [n for n in converted if n is not None] == [2, 3, 4, 5, 7, 8, 9]  # what is there is not done again
    assert Clevr6(root, 'train', 32, 32).ids == [0, 2, 3, 5]
    assert not list(folder.glob('*.part'))
    stamp = (folder / 'val-00004.tfrecord').stat().st_mtime_ns
    (folder / 'train-00002.tfrecord').unlink()
    with pytest.raises(FileNotFoundError, match=r'train-00002.tfrecord is missing: run topdown data prepare'):
        Clevr6(root, 'train', 32, 32)
    prepare_clevr(root, **SMALL)
    assert Clevr6(root, 'train', 32, 32).ids == [0, 2, 3, 5]
    assert (folder / 'val-00004.tfrecord').stat().st_mtime_ns == stamp


def test_faults_of_the_official_file_are_named(root):
    path = root / module.OFFICIAL_FILE
    content = path.read_bytes()
    raw = gzip.decompress(content)
    size = len(raw) // 10
    damaged = bytearray(raw)
    damaged[size * 2 + 5000] ^= 1

    def other(**changes):
        fields = {'image': [b'\1'] * 230_400, 'mask': [b'\1'] * 844_800, 'visibility': np.eye(11)[0]} | changes
        message = make_example({k: v for k, v in fields.items() if v is not None})
        with (root / 'other').open('wb') as file:
            for _ in range(10):
                write_record(file, message)
        return gzip.compress((root / 'other').read_bytes(), 1)

    for fault, message in (
        (content[: len(content) // 2], r'train.tfrecords is cut off in record \d'),
        (gzip.compress(raw[: size * 8], 1), r'train.tfrecords (ends after 8 of 10 scenes|is cut off)'),
        (gzip.compress(damaged, 1), r'train.tfrecords is damaged \(record 2, checksum of its data'),
        (gzip.compress(raw + raw[:size], 1), r'(has more than 10 scenes|cut off in record 10)'),
        (raw, 'train.tfrecords is not a whole gzip file'),
        (other(mask=None), r'record 0 is none of CLEVR with masks .*mask'),
        (other(image=[b'\1'] * 100), 'record 0 is none of CLEVR with masks .*reshape'),
        (other(image=[b'whole image']), 'record 0 is none of CLEVR with masks .*single bytes'),
        (other(), 'record 0 has empty masks'),  # 1 where 255 is meant
        (other(visibility=np.ones(5)), '5 values of visibility instead of 11'),
    ):
        path.write_bytes(fault)
        with pytest.raises(ValueError, match=message):
            prepare_clevr(root, **SMALL)
        assert not (root / 'clevr6' / 'clevr6.json').exists()
        shutil.rmtree(root / 'clevr6')
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r'tfrecords is missing.*topdown data fetch clevr6'):
        prepare_clevr(root, **SMALL)
    with pytest.raises(FileNotFoundError, match=r'clevr6.json is missing.*topdown data fetch clevr6.*data prepare'):
        Clevr6(root, 'train', 32, 32)


def test_a_set_without_shapes_has_one_category(root):
    fields = {'image': [b'\1'] * 230_400, 'mask': [b'\xff'] * 844_800, 'visibility': np.eye(11)[0] + np.eye(11)[1]}
    with (root / 'other').open('wb') as file:
        for _ in range(2):
            write_record(file, make_example(fields))
    (root / module.OFFICIAL_FILE).write_bytes(gzip.compress((root / 'other').read_bytes(), 1))
    prepare_clevr(root, progress=False, records=2, train=1, val=1, shard=1)
    data = Clevr6(root, 'val', 32, 32)
    assert data.category_names == {1: 'object'}
    assert set(data.annotation(0).categories) == {1}


def test_prepared_files_are_checked(root, capsys):
    folder = prepare_clevr(root, **SMALL)
    main(['data', 'check', 'clevr6', str(root)])
    assert 'clevr6 train: 4 images, 14 objects, no problems' in capsys.readouterr().out
    path = folder / 'val-00003.tfrecord'
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[5000] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(SystemExit) as stop:
        main(['data', 'check', 'clevr6', str(root)])
    assert stop.value.code == 1
    assert 'val-00003.tfrecord: record 0 does not fit its checksum: delete the file and prepare again' in (
        capsys.readouterr().out
    )
    path.write_bytes(whole[:-50])
    with pytest.raises(ValueError, match=r'val-00003.tfrecord is cut off in record 0'):
        Clevr6(root, 'val', 32, 32)
    path.write_bytes(b'')
    with pytest.raises(ValueError, match='holds 0 scenes instead of 1: delete the file and prepare again'):
        Clevr6(root, 'val', 32, 32)
    contents = json.loads((folder / 'clevr6.json').read_text())
    for fault in ('{', json.dumps({**contents, 'version': 99}), '[]'):
        (folder / 'clevr6.json').write_text(fault)
        with pytest.raises(ValueError, match=r'clevr6.json (is|holds) .*: delete it and prepare again'):
            Clevr6(root, 'val', 32, 32)


def test_clevr6_trains(root, encoder):
    prepare_clevr(root, **SMALL)
    config = topdown.preset(
        'smoke', dataset='clevr6', data_root=str(root), steps=2, batch_size=4, eval_every=0, eval_images=2,
        num_workers=1, cache_tokens=False,
    )  # fmt: skip
    run = topdown.train_model(config, root / 'run', encoder, progress=False)
    assert np.isfinite(run.evaluations[['fg_ari', 'mbo_i', 'mbo_c', 'miou']].to_numpy()).all()
