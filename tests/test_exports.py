"""What labelling tools write of one drawn truth, and small data sets in six layouts: what must come of each.

``data/exports`` holds the files of darwin-py 3.6.3, supervision 0.31.2, datumaro 1.13.12 (as it comes, and with
is_crowd=False), sahi 0.12.8 and labelme2coco 0.2.6 of three drawn images of 96 x 128 (``drawn.npz``: one mask per
object), and those of ``tests.make_exports``, which bear their version. ``tests.exports_table`` makes a table of all.
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from topdown.cli import main
from topdown.data import open_dataset
from topdown.data.base import read_image_file, read_labels
from topdown.data.check import check
from topdown.data.coco import COCO_CATEGORIES, CocoInstances, is_official
from topdown.data.labels import LabelFolder
from topdown.data.predictions import read_predictions
from topdown.data.tfrecord import make_example, write_record
from topdown.evaluate import metrics
from topdown.evaluate.predict import score
from topdown.evaluate.truth import make_truth_set
from topdown.presets import preset

from .test_records import annotation, box, polygon, predict, runs, write

EXPORTS = Path(__file__).parent / 'data' / 'exports'
LAYOUTS = {  # where the tool, or its users, put file and images
    'exact': ('annotations/instances_val2017.json', 'val2017'),
    'supervision': ('annotations.json', 'images'),
    'datumaro': ('annotations/instances_val.json', 'images/val'),
    'datumaro_polygons': ('annotations/instances_val.json', 'images/val'),
    'sahi': ('coco.json', '.'),
    'labelme2coco': ('dataset.json', 'labelme'),
    'darwin_drawn': ('elsewhere/output.json', 'images'),
    'darwin_painted': ('elsewhere/output.json', 'images'),
    **{name: ('elsewhere/out.json', 'images') for name in ('supervision_0.25.1', 'labelformat_0.1.17')},
    **{name: ('elsewhere/out.json', 'images') for name in ('imantics_0.1.12', 'kwcoco_0.9.1', 'kwcoco_masks_0.9.1')},
}


def export(root, tool):
    """Lay out one export; the prediction is the drawn truth."""
    file, images = LAYOUTS[tool]
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_bytes((EXPORTS / f'{tool}.json').read_bytes())
    (root / images).mkdir(parents=True, exist_ok=True)
    for name, masks in np.load(EXPORTS / 'drawn.npz').items():
        Image.new('RGB', (128, 96), (90, 90, 90)).save(root / images / f'{name}.jpg')
        labels = np.zeros((96, 128), int)
        for number, mask in enumerate(masks, 1):
            labels[mask.astype(bool)] = number
        predict(root, labels, f'{name}.png')
    if file.startswith('elsewhere'):
        return {'data_root': '', 'val_annotations': str(root / file), 'val_images': str(root / images)}
    return {'data_root': str(root)}


def scores_of(root, **changes):
    data = make_truth_set(preset('coco', **changes), progress=False)
    found = metrics.summarize(score(read_predictions(root / 'predictions', data.dataset), data))
    return [found[name] for name in ('fg_ari', 'mbo_i', 'mbo_c', 'miou')], data.dataset.report


TOLD = {
    # tool: objects, scores, and what the report says, in one line
    'exact': (16, (100, 100, None, 100), None),
    'supervision': (13, (99.9, None, None, None), r'3 left out: has no mask.* 11, annotation 12, annotation 13'),
    'datumaro': (16, (100, 100, None, 100), '16 of 16 objects are marked as crowd and kept'),
    'datumaro_polygons': (12, (93.5, None, None, None), r'4 left out: .*annotation 4, annotation 11, annotation 12'),
    'sahi': (13, (93.8, None, None, None), r'1 kept: its mask and its area disagree \(annotation 2\)'),
    'labelme2coco': (4, None, r'4 left out: has no mask, but a box at most.*annotation 4'),
    'darwin_drawn': (16, (96.3, None, None, None), r'2 kept: its mask and its area disagree .*2, annotation 3\)'),
    'darwin_painted': (16, (100, 100, 86.5, 100), None),
}  # fmt: skip


@pytest.mark.filterwarnings('ignore:.*(left out|kept):UserWarning')
@pytest.mark.parametrize('tool', TOLD)
def test_exports_of_labelling_tools(tool, tmp_path):
    place = export(tmp_path, tool)
    objects, expected, told = TOLD[tool]
    found, report = scores_of(tmp_path, **place)
    assert report.objects == objects
    assert re.search(told or '', report.line())
    assert 'official' not in report.line()
    for value, wanted in zip(found, expected or ()):
        assert wanted is None or value == pytest.approx(wanted, abs=0.06)


def test_exact_masks_are_read_to_the_pixel(tmp_path):
    for tool in ('exact', 'datumaro'):
        (tmp_path / tool).mkdir()
        data = CocoInstances(export(tmp_path / tool, tool)['data_root'], 'val', 32, 32)
        for i, drawn in enumerate(np.load(EXPORTS / 'drawn.npz').values()):
            np.testing.assert_array_equal(data.annotation(i).masks, drawn.astype(bool))


def test_crowds_are_a_setting(tmp_path, capsys):
    place = export(tmp_path, 'datumaro')
    with pytest.raises(ValueError, match=r'all 16 objects are marked as crowd.*keep_crowd=keep'):
        scores_of(tmp_path, **place, keep_crowd='drop')
    assert scores_of(tmp_path, **place, keep_crowd='drop', protocol='spot')[0][1] > 99
    arguments = ['evaluate', '--predictions', str(tmp_path / 'predictions'), '--data-root', str(tmp_path)]
    with pytest.raises(SystemExit):
        main([*arguments, '--keep-crowd', 'drop'])
    assert 'keep_crowd=keep' in capsys.readouterr().err
    main([*arguments, '--keep-crowd', 'auto'])
    assert '16 of 16 objects are marked as crowd and kept' in capsys.readouterr().out


@pytest.mark.filterwarnings('ignore:.*kept:UserWarning')
def test_crowds_follow_the_settings_and_not_the_opened_set(tmp_path):
    config = preset('coco', **export(tmp_path, 'darwin_drawn'))
    data = open_dataset(config, 'val')
    kept, dropped = (make_truth_set(config.with_(keep_crowd=how), dataset=data) for how in ('keep', 'drop'))
    assert (kept.instances[0].max(), dropped.instances[0].max()) == (9, 9 - 2)
    assert (make_truth_set(config, dataset=data).instances[:] == kept.instances[:]).all()  # auto: not COCO's own file
    data.official = True
    assert (make_truth_set(config, dataset=data).instances[:] == dropped.instances[:]).all()


def test_an_unlabelled_set_of_boxes_says_so(tmp_path):
    write(tmp_path, {
        'images': [{'id': 1, 'file_name': 'a.jpg'}], 'categories': [{'id': 1, 'name': 'a'}],
        'annotations': [annotation(1, [], bbox=[5, 5, 9, 9])],
    })  # fmt: skip
    with pytest.raises(ValueError, match=r'no object is left to score.*1 left out: has no mask'):
        scores_of(tmp_path, data_root=str(tmp_path))


def test_cocos_own_files_are_known_by_name_and_categories(tmp_path):
    named = Path('instances_val2017.json')
    assert len(COCO_CATEGORIES) == 16
    assert not is_official(named, {1: 'person'})
    write(tmp_path, {'images': [{'id': 1, 'file_name': 'a.jpg'}], 'categories': [{'id': 1, 'name': 'person'}],
                     'annotations': [annotation(1, [[5, 5, 90, 5, 90, 90]])]})  # fmt: skip
    report = check(CocoInstances(tmp_path, 'val', 32, 32), 'coco', 'val', progress=False)
    assert not report.problems  # one image is as many as this file has, whatever COCO has


def test_check_and_files_that_lie_anywhere(tmp_path, capsys):
    export(tmp_path, 'darwin_drawn')
    with pytest.raises(SystemExit):
        main(['data', 'check', 'coco', '--val-annotations', str(tmp_path / 'elsewhere' / 'output.json'),
              '--val-images', str(tmp_path / 'images')])  # fmt: skip
    printed = capsys.readouterr().out
    assert 'coco val: 3 images, 16 objects, 2 problem(s)' in printed
    assert 'annotation 2: its mask and its area disagree' in printed
    with pytest.raises(SystemExit):
        main(['data', 'check', 'coco', '--val-annotations', str(tmp_path / 'no.json')])
    assert 'no.json is missing' in capsys.readouterr().err


def test_one_split_never_stands_in_for_the_other(coco_root):
    (coco_root / 'annotations' / 'instances_val2017.json').unlink()
    with pytest.raises(FileNotFoundError, match=r'instances_val2017.json is missing'):
        CocoInstances(coco_root, 'val', 32, 32)


# ---------------------------------------------------------------------------------------------------- label maps

PLACES = ((slice(40, 140), slice(40, 160)), (slice(40, 140), slice(180, 300)), (slice(180, 290), slice(40, 300)))


def drawn(*values, rest=0):
    labels = np.full((320, 320), rest, np.uint16)
    for place, value in zip(PLACES, values):
        labels[place] = value
    return labels


def save(path, labels, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = labels.astype(np.uint8) if labels.max() < 256 else labels
    Image.fromarray(labels).save(path)


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (320, 320), (90, 90, 90)).save(path)


def voc(root, objects, classes):
    folder = root / 'VOCdevkit' / 'VOC2012'
    image(folder / 'JPEGImages' / 'x1.jpg')
    save(folder / 'SegmentationObject' / 'x1.png', objects)
    save(folder / 'SegmentationClass' / 'x1.png', classes)
    (folder / 'ImageSets' / 'Segmentation').mkdir(parents=True)
    (folder / 'ImageSets' / 'Segmentation' / 'val.txt').write_text('x1\n')


def labelled(root, labels):
    image(root / 'val' / 'images' / 'x1.jpg')
    save(root / 'val' / 'labels' / 'x1.png', labels)


def city(root, labels):
    image(root / 'leftImg8bit' / 'val' / 'c' / 'c_0_0_leftImg8bit.png')
    save(root / 'gtFine' / 'val' / 'c' / 'c_0_0_gtFine_instanceIds.png', labels)


def ade(root, labels):
    image(root / 'ADEChallengeData2016' / 'images' / 'validation' / 'x1.jpg')
    save(root / 'ADEChallengeData2016' / 'annotations' / 'validation' / 'x1.png', labels)


def halves():
    """A prediction of three stripes, the first two side by side."""
    labels = np.full((320, 320), 2)
    labels[:160, :150], labels[:160, 150:] = 0, 1
    return labels


def soft():
    y, x = np.mgrid[:320, :320]
    return (255 * np.clip(100.5 - np.hypot(y - 160, x - 160), 0, 1)).round()


MAPS = {
    # name: layout, maps, settings, number of objects, what the report says
    'voc': (voc, (drawn(1, 2, 3), drawn(3, 3, 5)), {}, [3, 3, 5], None),
    'voc, own classes': (voc, (drawn(1, 2, 3), drawn(21, 21, 25)), {}, [21, 21, 25], 'class 21 is none'),
    'voc, no class': (voc, (drawn(1, 2, 3), drawn(0, 3, 5)), {}, [3, 5], '1 left out: .*x1.jpg, object 1'),
    'voc, object 255': (voc, (drawn(1, 2, 255), drawn(3, 3, 5)), {}, [3, 3], r'object 255 is taken .* has 5'),
    'folder': (labelled, (drawn(1, 2, 3),), {}, [1, 1, 1], None),
    'folder, 255': (labelled, (drawn(1, 2, 255),), {}, [1, 1, 1], 'label 255 .* set void_label=255'),
    'folder, void': (labelled, (drawn(1, 2, 255),), {'void_label': 255}, [1, 1], None),
    'folder, soft edges': (labelled, (soft(),), {}, None, r'has \d+ labels of few pixels: a soft edge'),
    'city': (city, (drawn(26_000, 26_001, 24_000, rest=7),), {}, [24, 26, 26], None),
    'city, 8 bits': (city, (drawn(255, 255, 255, rest=7),), {}, [], 'holds id 255'),
    'ade': (ade, (drawn(3, 3, 150),), {}, [3, 150], None),
}  # fmt: skip


@pytest.mark.parametrize('name', MAPS)
def test_label_maps(name, tmp_path):
    make, maps, settings, categories, told = MAPS[name]
    make(tmp_path, *maps)
    dataset = {voc: 'voc', labelled: 'folder', city: 'cityscapes', ade: 'ade20k'}[make]
    config = preset('voc' if dataset == 'voc' else 'coco', dataset=dataset, data_root=str(tmp_path), **settings)
    if told:
        with pytest.warns(UserWarning, match=told):
            data = make_truth_set(config, progress=False)
        assert check(data.dataset, dataset, 'val', progress=False).problems
    else:
        data = make_truth_set(config, progress=False)
    if categories is not None:
        assert sorted(data.dataset.annotation(0).categories.tolist()) == categories
        assert data.dataset.report.objects == len(categories)


def test_label_maps_that_must_be_refused(tmp_path):
    ade(tmp_path, drawn(1, 2, 255))
    data = preset('coco', dataset='ade20k', data_root=str(tmp_path))
    with pytest.raises(ValueError, match=r'x1.png holds label 255: ADE20K counts its classes from 1'):
        make_truth_set(data, progress=False)
    voc(tmp_path, drawn(1, 2, 3), drawn(3, 3, 5)[::2, ::2])
    with pytest.raises(ValueError, match=r'Class/x1.png is 160 x 160 .*Object/x1.png is 320 x 320'):
        make_truth_set(preset('voc', data_root=str(tmp_path)), progress=False)


def test_maps_of_cityscapes_without_instance_numbers(tmp_path):
    city(tmp_path, drawn(26, 26, 24, rest=7))
    data = preset('coco', dataset='cityscapes', data_root=str(tmp_path))
    with pytest.raises(ValueError, match='all 2 objects are marked as crowd'):
        make_truth_set(data, progress=False)
    problems = check(open_dataset(data, 'val'), 'cityscapes', 'val', progress=False).problems
    assert any('has things and not one instance number' in problem for problem in problems)


def test_labels_are_the_values_of_the_file(tmp_path):
    """Palettes, grays of 1 to 16 bits, TIFF; the 4-bit PNG is written by hand, since Pillow writes none."""
    wide = drawn(1, 300, 65_535)
    for name in ('a.png', 'a.tif'):
        Image.fromarray(wide).save(tmp_path / name)
        np.testing.assert_array_equal(read_labels(tmp_path / name), wide)
    palette = Image.fromarray(drawn(1, 2, 3).astype(np.uint8)).convert('P')
    palette.putdata(drawn(1, 2, 3).ravel().tolist())
    palette.putpalette([200, 0, 0, 0, 200, 0, 9, 9, 9, 7, 7, 7])
    palette.save(tmp_path / 'p.png')
    np.testing.assert_array_equal(read_labels(tmp_path / 'p.png'), drawn(1, 2, 3))
    for bits, highest in ((2, 3), (4, 15)):
        (tmp_path / 'few.png').write_bytes(gray_png(np.array([[0, 1], [2, highest]]), bits))
        assert read_labels(tmp_path / 'few.png').tolist() == [[0, 1], [2, highest]]
    Image.fromarray(drawn(1, 1, 1).astype(bool)).save(tmp_path / 'one.png')
    assert read_labels(tmp_path / 'one.png').max() == 1


def gray_png(labels, bits):
    """A gray PNG of 2 or 4 bits a pixel, from its specification."""
    import struct
    import zlib

    def chunk(kind, content):
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))

    height, width = labels.shape
    rows = b''.join(b'\0' + bytes([sum(int(v) << (8 - bits * (x + 1)) for x, v in enumerate(row))]) for row in labels)
    header = struct.pack('>IIBBBBB', width, height, bits, 0, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')


def test_content_decides_what_is_a_label_map(tmp_path):
    gray = Image.fromarray(drawn(1, 2, 3).astype(np.uint8))
    for write_it, message in (
        (lambda path: gray.save(path, 'JPEG'), 'is a JPEG file'),
        (lambda path: Image.fromarray(np.full((9, 9), 0.5, np.float32)).save(path, 'TIFF'), 'whole numbers from 0'),
        (lambda path: gray.save(path, 'TIFF', save_all=True, append_images=[gray]), 'has 2 pages'),
        (lambda path: gray.convert('RGB').save(path, 'PNG'), 'holds colours'),
        (lambda path: gray.convert('1').save(path, 'TIFF'), 'TIFF of 1 bit'),
        (lambda path: path.write_bytes(b'\x89PNG'), 'cannot be read'),
    ):
        write_it(tmp_path / 'a.png')
        with pytest.raises(ValueError, match=message):
            read_labels(tmp_path / 'a.png')


@pytest.mark.parametrize('kind', ['palette', 'gray', 'wide', 'colours', 'many'])
def test_frames_of_clips_are_read_as_all_label_maps(kind, tmp_path):
    def frame(array):
        buffer = io.BytesIO()
        image = Image.fromarray(array)
        if kind == 'palette' and array.ndim == 2:
            image = image.convert('P')
            image.putpalette([3, 3, 3, 250, 0, 0, 0, 250, 0, 0, 0, 250])
            image.putdata(array.ravel().tolist())
        image.save(buffer, 'PNG')
        return buffer.getvalue()

    labels = drawn(1, 2, 3)[::4, ::4].astype(np.uint16 if kind == 'wide' else np.uint8) * (300 if kind == 'wide' else 1)
    if kind == 'colours':
        labels = labels[..., None].repeat(3, axis=2)
    count = 25 if kind == 'many' else 24
    record = make_example({
        'video': [frame(np.zeros((80, 80, 3), np.uint8))] * count, 'segmentations': [frame(labels)] * count,
        'instances/category': np.array([4, 4, 6]),
    })  # fmt: skip
    with (tmp_path / 'movi_c-validation.tfrecord-00000-of-00001').open('wb') as file:
        write_record(file, record)
    config = preset('movi_c', data_root=str(tmp_path))
    refused = {
        'wide': 'shows object 900, and its clip has 3 categories',
        'colours': 'holds colours',
        'many': 'has 25 frames',
    }
    if kind in refused:
        with pytest.raises(ValueError, match=refused[kind]):
            make_truth_set(config, progress=False)
    else:
        data = make_truth_set(config, progress=False)
        assert data.dataset.annotation(0).categories.tolist() == [5, 5, 7]
        assert data.dataset.report.objects == 24 * 3


# ------------------------------------------------------------------------------------------- predictions and images


@pytest.fixture
def wide_root(tmp_path):
    """One image of 427 x 640 with three objects; the second protocol cuts it another way."""
    parts = [box(slice(50, 150), slice(130, 279), (427, 640)), box(slice(61, 213), slice(300, 458), (427, 640)),
             box(slice(230, 400), slice(120, 518), (427, 640))]  # fmt: skip
    write(tmp_path, {
        'images': [{'id': 1, 'file_name': 'a.png', 'height': 427, 'width': 640}],
        'categories': [{'id': 1, 'name': 'a'}, {'id': 2, 'name': 'b'}],
        'annotations': [annotation(i + 1, runs(part), 1 + (i == 2)) for i, part in enumerate(parts)],
    }, (427, 640), ('a.png',))  # fmt: skip
    return tmp_path, sum((i + 1) * part for i, part in enumerate(parts))


def test_every_protocol_cuts_whole_maps_and_none_another_protocols(wide_root, capsys):
    root, labels = wide_root
    predict(root, labels)
    arguments = ['evaluate', '--predictions', str(root / 'predictions'), '--data-root', str(root), '--protocols']
    for order in (['oclf', 'spot'], ['spot', 'oclf']):
        main([*arguments, *order])
        rows = capsys.readouterr().out.splitlines()
        for name in ('fg_ari', 'mbo_i', 'miou'):
            assert next(row for row in rows if row.startswith(name)).count('100.0 [100.0, 100.0]') == 2
    predict(root, labels[:320, :320])
    main([*arguments, 'oclf'])
    with pytest.raises(SystemExit):
        main([*arguments, 'oclf', 'spot'])
    assert 'a.png is cut to 320 x 320' in capsys.readouterr().err


def test_predictions_of_other_kinds(wide_root):
    root, labels = wide_root
    whole = CocoInstances(root, 'val', 32, 320)
    folder = root / 'predictions'
    predict(root, labels)
    expected = read_predictions(folder, whole)
    (folder / 'a.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'a.png is missing, and so are .tif.* holds nothing'):
        read_predictions(folder, whole)
    shares = np.eye(4, dtype=np.float32)[labels].transpose(2, 0, 1)
    for name, array in (
        ('a.npy', labels), ('a.npy', labels.astype(np.uint32)), ('a.npy', labels.astype(np.float64)), ('a.npy', shares),
        ('a.npz', labels), ('a.tif', labels.astype(np.uint8)),
    ):  # fmt: skip
        if name.endswith('npy'):
            np.save(folder / name, array)
        elif name.endswith('npz'):
            np.savez(folder / name, array)
        else:
            Image.fromarray(array).save(folder / name)
        np.testing.assert_array_equal(read_predictions(folder, whole), expected)
        (folder / name).unlink()
    grid = torch.rand(7, 14, 14, generator=torch.Generator().manual_seed(0)).softmax(0)
    np.save(folder / 'a.npy', grid.numpy())
    smooth = torch.nn.functional.interpolate(grid[None], (320, 320), mode='bilinear').argmax(1).numpy()
    np.testing.assert_array_equal(read_predictions(folder, whole), smooth)
    for array, message in (
        (grid.argmax(0).numpy(), r'shape \(14, 14\).*pass shares'), (grid.numpy() * 30, 'pass labels'),
        (np.full((320, 320), 0.5), 'whole numbers from 0'), (np.full((320, 320), -1), 'whole numbers from 0'),
        (np.full((2, 320, 320), np.nan, np.float32), 'pass labels'), (np.array([{}]), 'cannot be read as one array'),
        (np.zeros((3, 14, 18), np.float32), 'shares of 14 x 18'), (np.zeros((0, 0)), 'pass labels'),
    ):  # fmt: skip
        np.save(folder / 'a.npy', array)
        with pytest.raises(ValueError, match=message):
            read_predictions(folder, whole)


def test_labels_of_any_type_are_scored_or_refused():
    truth = metrics.make_truth([drawn(1, 2, 3)], [drawn(1, 1, 2)])
    expected = metrics.score(halves()[None], truth)
    for kind in (np.uint16, np.uint32, np.int64, np.float32):
        assert metrics.score(halves()[None].astype(kind), truth) == expected
    assert metrics.score(halves()[None] * 10**9, truth) == expected
    for wrong in (halves() + 0.5, halves() + np.nan, halves() + np.inf, halves().astype(str)):
        with pytest.raises(ValueError, match='whole numbers'):
            metrics.score(wrong[None], truth)


def test_images_of_many_bits_keep_their_content(tmp_path):
    fine = np.linspace(3_000, 60_000, 96 * 96).reshape(96, 96).round().astype(np.uint16)
    coarse = (fine / 257).round()
    for name, array in {
        '16.png': fine, '16.tif': fine, '32.tif': fine.astype(np.int32),
        'float.tif': (fine / 65_535).astype(np.float32), 'float255.tif': coarse.astype(np.float32),
        '8.png': coarse.astype(np.uint8),
    }.items():  # fmt: skip
        Image.fromarray(array).save(tmp_path / name)
        found = read_image_file(tmp_path / name)
        assert found.shape == (3, 96, 96)
        assert (found - torch.from_numpy(coarse / 255)).abs().max() < 1 / 255
    for wrong in (
        np.full((9, 9), np.nan, np.float32),
        np.full((9, 9), -1.0, np.float32),
        np.full((9, 9), 1e6, np.float32),
    ):
        Image.fromarray(wrong).save(tmp_path / 'x.tif')
        with pytest.raises(ValueError, match='scale them to 8 or 16 bits'):
            read_image_file(tmp_path / 'x.tif')
    Image.new('RGBA', (9, 9), (10, 20, 30, 0)).save(tmp_path / 'clear.png')
    assert (read_image_file(tmp_path / 'clear.png') == 1).all()


def test_masks_that_contradict_their_record_are_named(tmp_path):
    content = {
        'images': [{'id': 1, 'file_name': 'a.jpg', 'height': 320, 'width': 320}],
        'categories': [{'id': 1, 'name': 'a'}, {'id': 2, 'name': 'a'}],
        'annotations': [
            annotation(1, runs(box(*PLACES[0]).T), bbox=[40, 40, 120, 100], area=12_000),  # row by row
            annotation(2, [polygon(*PLACES[1])], bbox=[180, 40, 120, 100], area=12_000),
            annotation(3, [polygon(*PLACES[2])], bbox=[40, 180, 259, 109], area=28_231),  # a contour's loss
            annotation(4, [polygon(*PLACES[1])], 2), annotation(5, [polygon(*PLACES[1])], bbox='none', area=None),
        ],
    }  # fmt: skip
    write(tmp_path, content)
    problems = CocoInstances(tmp_path, 'val', 32, 32).report.problems
    assert problems == [
        "category 2: is called 'a' like category 1", 'annotation 1: its mask and its box disagree',
        'annotation 5: repeats annotation 2',
    ]  # fmt: skip


def test_files_of_macos_are_no_images(tmp_path):
    labelled(tmp_path, drawn(1, 2, 3))
    (tmp_path / 'val' / 'images' / '._x1.jpg').write_bytes(b'resource fork')
    assert LabelFolder(tmp_path, 'val', 32, 32).ids == ['x1']


def test_an_image_list_is_for_training_alone(tmp_path):
    (tmp_path / 'list.json').write_text(json.dumps({'images': [{'id': 1, 'file_name': 's/a.jpg'}]}))
    image(tmp_path / 's' / 'a.jpg')
    data = CocoInstances(tmp_path, 'train', 32, 32)
    assert data.view(0).shape == (3, 32, 32)
    with pytest.raises(ValueError, match=r'list.json has no categories'):
        CocoInstances(tmp_path, 'val', 32, 32)
