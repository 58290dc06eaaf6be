"""A part of COCO by a list of files: the same records, images that are the same files, and nothing half-done."""

import json
import os

import numpy as np
import pytest
from PIL import Image

import topdown
from topdown.cli import main
from topdown.data import subset
from topdown.data.coco import CocoInstances

SQUARE = [[2.0, 2.0, 12.0, 2.0, 12.0, 12.0, 2.0, 12.0]]


@pytest.fixture
def coco(tmp_path):
    """Three images of training and two of validation, two objects each; numbers are written as no program would."""
    root, number = tmp_path / 'coco', 0
    (root / 'annotations').mkdir(parents=True)
    for split, ids in (('train', (1, 2, 3)), ('val', (4, 5))):
        (root / f'{split}2017').mkdir()
        images, objects = [], []
        for i in ids:
            Image.fromarray(np.full((20, 30, 3), 40 * i, np.uint8)).save(root / f'{split}2017' / f'{i:012}.jpg')
            images.append({'id': i, 'file_name': f'{i:012}.jpg', 'height': 20, 'width': 30, 'license': 4})
            for category in (1, 3):
                number += 1
                objects.append({
                    'id': number, 'image_id': i, 'category_id': category, 'iscrowd': 0, 'area': 100.0,
                    'bbox': [2.0, 2.0, 10.0, 10.0], 'segmentation': SQUARE,
                })  # fmt: skip
        content = {
            'info': {'year': 2017}, 'licenses': [{'id': 4}], 'images': images, 'annotations': objects,
            'categories': [{'id': 1, 'name': 'person'}, {'id': 3, 'name': 'car'}],
        }  # fmt: skip
        text = json.dumps(content).replace('100.0', '1.0e2')
        (root / 'annotations' / f'instances_{split}2017.json').write_text(text)
    return root


def listed(folder, *rows, head='file_name,split,licence'):
    path = folder / 'ids.csv'
    path.write_text('\n'.join([head, *rows]) + '\n')
    return path


ROWS = ('000000000002.jpg,train,4', '000000000005.jpg,val,4', '000000000001.jpg,val,4')


def test_a_subset_has_the_listed_images_and_their_records_as_they_were(coco, tmp_path, capsys):
    out, ids = tmp_path / 'some', listed(tmp_path, *ROWS)
    main(['data', 'subset', 'coco', '--ids', str(ids), '--data-root', str(coco), '--out', str(out)])
    assert 'train: 1 images, 2 annotations' in capsys.readouterr().out
    val = json.loads((out / 'annotations' / 'instances_val2017.json').read_text())
    assert [image['id'] for image in val['images']] == [1, 5]  # one was of COCO's training images
    assert {record['image_id'] for record in val['annotations']} == {1, 5}
    assert len(val['categories']) == 2
    assert '1.0e2' in (out / 'annotations' / 'instances_val2017.json').read_text()  # records are not written anew
    assert os.path.samefile(out / 'val2017' / '000000000001.jpg', coco / 'train2017' / '000000000001.jpg')
    assert sorted(p.name for p in out.rglob('*.jpg')) == ['000000000001.jpg', '000000000002.jpg', '000000000005.jpg']
    data = CocoInstances(out, 'val', 16, 16)
    assert [len(data.annotation(i).categories) for i in range(len(data))] == [2, 2]
    whole = CocoInstances(coco, 'train', 16, 16)
    assert np.array_equal(data.annotation(0).masks, whole.annotation(0).masks)


def test_a_stopped_subset_goes_on_and_copies_where_links_cannot_be(coco, tmp_path, monkeypatch):
    out, ids = tmp_path / 'some', listed(tmp_path, *ROWS)

    def no_links(*_):
        raise OSError(18, 'Invalid cross-device link')

    copies = []

    def stop(source, target):
        copies.append(source)
        if len(copies) == 2:
            raise KeyboardInterrupt
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(os, 'link', no_links)
    with monkeypatch.context() as stopping:
        stopping.setattr(subset.shutil, 'copyfile', stop)
        with pytest.raises(KeyboardInterrupt):
            subset.make_subset(ids, coco, out)
    assert [path.suffix for path in out.rglob('*') if path.is_file()] == ['.jpg']  # no annotations, no part of a file
    found = subset.make_subset(ids, coco, out)
    assert found == {'train': (1, 2), 'val': (2, 4)}
    assert subset.make_subset(ids, coco, out) == found  # and again, which changes nothing
    copied = out / 'train2017' / '000000000002.jpg'
    assert copied.read_bytes() == (coco / 'train2017' / copied.name).read_bytes()
    assert not os.path.samefile(copied, coco / 'train2017' / copied.name)


@pytest.mark.parametrize(
    ('rows', 'message'),
    [
        ((), 'lists no images'), (('a.jpg,test,4',), 'row 2 needs .*: a.jpg, test'),
        ((ROWS[0], ROWS[0]), 'row 3 needs a new'), (('../a.jpg,train,4',), 'below the folder'),
        ((*ROWS, '7.jpg,val,4'), '1 of 4 images .* not in an annotation file'),
    ],
)  # fmt: skip
def test_lists_that_cannot_be_are_refused_before_anything_is_written(coco, tmp_path, rows, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        subset.make_subset(listed(tmp_path, *rows), coco, tmp_path / 'some')
    assert not (tmp_path / 'some').exists()


def test_other_tables_missing_images_and_other_data_are_named(coco, tmp_path, capsys):
    ids, out = listed(tmp_path, *ROWS), tmp_path / 'some'
    with pytest.raises(ValueError, match=r'row 2 needs .*: None, train'):
        subset.make_subset(listed(tmp_path / 'coco', 'x,train', head='name,split'), coco, out)
    with pytest.raises(FileNotFoundError, match=r'nothing\.csv'):
        subset.make_subset(tmp_path / 'nothing.csv', coco, out)
    with pytest.raises(ValueError, match='is of another data set'):
        subset.make_subset(ids, coco, coco)
    (coco / 'val2017' / '000000000005.jpg').unlink()
    command = ['data', 'subset', 'coco', '--ids', str(ids), '--data-root', str(coco), '--out', str(out)]
    with pytest.raises(SystemExit):
        main(command)
    assert '1 of 3 images' in capsys.readouterr().err
    assert not out.exists()
    (coco / 'annotations' / 'instances_val2017.json').write_text('{"images": 3}')
    with pytest.raises(ValueError, match=r'instances_val2017\.json is not a COCO instances file'):
        subset.make_subset(ids, coco, out)


def test_the_published_list_can_be_read_and_says_licences():
    path = topdown.figures_dir() / 'photos_ids.csv'
    found = subset.read_list(path)
    assert {split: list(found.values()).count(split) for split in ('train', 'val')} == {'train': 2528, 'val': 634}
    assert path.read_text().startswith('file_name,split,licence\n')
