"""topdown data: faults put into a data set, and what is said of each."""

import inspect
import json
import pkgutil

import numpy as np
import pytest
from PIL import Image

from topdown.cli import main
from topdown.data import coco
from topdown.data.base import ImageSet
from topdown.data.check import check
from topdown.data.coco import CocoInstances
from topdown.datasets import DATASETS

from .test_movi import movi_root  # noqa: F401  (a fixture)


@pytest.fixture(autouse=True)
def small_sets(monkeypatch):
    """The fixtures hold four images a split, and count as COCO's own."""
    monkeypatch.setattr(coco, 'is_official', lambda *_: True)
    for split in ('train', 'val'):
        monkeypatch.setitem(DATASETS['coco'].official, split, 4)


def problems(root):
    return check(CocoInstances(root, 'val', 32, 32, strict=False), 'coco', 'val', progress=False).problems


def change(root, edit):
    path = root / 'annotations' / 'instances_val2017.json'
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_a_whole_set_passes(coco_root, capsys):
    main(['data', 'check', 'coco', str(coco_root)])
    printed = capsys.readouterr().out
    assert 'coco train: 4 images, 5 objects, no problems' in printed
    assert 'coco val: 4 images, 5 objects, no problems' in printed
    assert 'note: 1 image(s) without objects' in printed


def test_every_fault_is_named_at_once(coco_root, capsys):
    images = coco_root / 'val2017'
    (images / '000000000007.jpg').unlink()
    damaged = images / '000000000009.jpg'
    damaged.write_bytes(damaged.read_bytes()[:300])
    Image.new('RGB', (10, 10)).save(images / '000000000012.jpg')

    def edit(content):
        rows = content['annotations']
        rows[0]['category_id'] = 99
        rows[1]['segmentation'] = {'size': [60, 80], 'counts': [60 * 80]}  # no pixel
        rows.append({**rows[2], 'id': 77, 'image_id': 4711})
        content['images'].append({'id': 16, 'file_name': '000000000016.jpg', 'height': 9, 'width': 9})

    change(coco_root, edit)
    found = '\n'.join(problems(coco_root))
    for part in (
        '5 images, the official split has 4', 'annotation 77: is of image 4711, which the file does not list',
        '000000000007.jpg is missing',
        '000000000009.jpg cannot be read', '000000000012.jpg is 10 x 10 pixels, its annotation is for 64 x 64',
        '000000000016.jpg is missing', 'annotation 1: unknown category 99',
        'annotation 2: has no area',
    ):  # fmt: skip
        assert part in found
    assert len(problems(coco_root)) == 8
    with pytest.raises(SystemExit) as stop:
        main(['data', 'check', 'coco', str(coco_root), '--splits', 'val'])
    assert stop.value.code == 1
    assert '8 problem(s)' in capsys.readouterr().out


def test_a_damaged_annotation_is_a_problem_not_a_crash(coco_root):
    change(coco_root, lambda content: content['annotations'][0].update(segmentation=[[1.0]]))
    (found,) = problems(coco_root)
    assert found == 'annotation 1: segmentation has a polygon of 1 numbers, which are not pairs of x and y'


def test_label_folders_are_checked_too(tmp_path, capsys):
    for kind in ('images', 'labels'):
        (tmp_path / 'val' / kind).mkdir(parents=True)
    for name in 'ab':
        Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(tmp_path / 'val' / 'images' / f'{name}.png')
    Image.fromarray(np.eye(8, 9, dtype=np.uint8)).save(tmp_path / 'val' / 'labels' / 'a.png')
    with pytest.raises(SystemExit):
        main(['data', 'check', 'folder', str(tmp_path), '--splits', 'val'])
    printed = capsys.readouterr().out
    assert '2 images, 1 objects, 1 problem(s)' in printed
    assert 'b.png is missing' in printed


def test_records_of_clips_are_verified(movi_root, monkeypatch, capsys):  # noqa: F811
    command = ['data', 'check', 'movi_c', str(movi_root), '--splits', 'val']
    with pytest.raises(SystemExit):
        main(command)
    printed = capsys.readouterr().out
    assert 'problem: 72 images, the official split has 6000' in printed  # 250 clips of 24
    assert '1 problem(s)' in printed
    monkeypatch.setitem(DATASETS['movi_c'].official, 'val', 72)
    main(command)
    assert '72 images, 108 objects, no problems' in capsys.readouterr().out
    path = movi_root / 'movi_c' / '128x128' / '1.0.0' / 'movi_c-validation.tfrecord-00001-of-00002'
    content = bytearray(path.read_bytes())
    content[100] ^= 1  # in a field that no reader looks at
    path.write_bytes(content)
    with pytest.raises(SystemExit):
        main(command)
    printed = capsys.readouterr().out
    assert '00001-of-00002: record 0 does not fit its checksum: delete the file and get it again' in printed
    assert '1 problem(s)' in printed


def test_what_a_set_is_registered_with_is_there():
    for known in DATASETS.values():
        assert issubclass(pkgutil.resolve_name(known.reader), ImageSet)
        assert all(callable(pkgutil.resolve_name(name)) for name in (known.make, known.prepare) if name)
        assert known.make or known.help
        takes = inspect.signature(pkgutil.resolve_name(known.reader)).parameters
        assert {*known.settings, *known.fixed} <= set(takes)


def test_list_names_every_set(capsys):
    main(['data', 'list'])
    printed = capsys.readouterr().out
    for name in ('coco', 'voc', 'ade20k', 'cityscapes', 'toybox', 'folder', 'movi_d', 'clevr6', '10582', '1449'):
        assert name in printed
