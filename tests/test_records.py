"""Annotation files and predictions as people have them: what must come of each; then thousands of broken ones."""

from __future__ import annotations

import copy
import json
import re
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as mask_tools

from topdown.cli import main
from topdown.data import open_dataset
from topdown.data.coco import CocoInstances
from topdown.data.predictions import read_predictions
from topdown.data.records import NoMask, decode_counts, encode_mask
from topdown.evaluate import metrics
from topdown.evaluate.predict import score
from topdown.evaluate.truth import make_truth_set
from topdown.presets import preset

BOXES = ((slice(40, 140), slice(40, 160)), (slice(180, 300), slice(180, 280)), (slice(20, 120), slice(200, 300)))


def box(rows, columns, shape=(320, 320)):
    mask = np.zeros(shape, bool)
    mask[rows, columns] = True
    return mask


def runs(mask):
    """Uncompressed run-length code of COCO."""
    flat = mask.ravel('F')
    edges = np.flatnonzero(np.diff(flat, prepend=False))
    return {'size': list(mask.shape), 'counts': np.diff([0, *edges, flat.size]).tolist()}


def polygon(rows, columns):
    return [columns.start, rows.start, columns.stop, rows.start, columns.stop, rows.stop, columns.start, rows.stop]


def annotation(number, segmentation, category=1, **changes):
    return {
        'id': number, 'image_id': 1, 'category_id': category, 'segmentation': segmentation, 'iscrowd': 0,
        **changes,
    }  # fmt: skip


def base():
    """Three boxes in a grey image of 320 x 320, the last two of one category."""
    return {
        'images': [{'id': 1, 'file_name': 'a.jpg', 'height': 320, 'width': 320}],
        'categories': [{'id': 1, 'name': 'a'}, {'id': 2, 'name': 'b'}],
        'annotations': [annotation(i + 1, runs(box(*place)), min(i + 1, 2)) for i, place in enumerate(BOXES)],
    }


def write(root, content, size=(320, 320), names=('a.jpg',), encoding='utf-8'):
    (root / 'annotations').mkdir()
    (root / 'annotations' / 'instances_val2017.json').write_text(json.dumps(content), encoding)
    for name in names:
        (root / 'val2017' / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', size[::-1], (120, 120, 120)).save(root / 'val2017' / name)


def predict(root, labels, name='a.png'):
    (root / 'predictions').mkdir(exist_ok=True)
    Image.fromarray(labels.astype(np.uint16)).save(root / 'predictions' / name)


def found_scores(root):
    """FG-ARI, mBO_i, mBO_c and mIoU in percent, and the warnings there were."""
    config = preset('coco', data_root=str(root))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always', UserWarning)
        data = make_truth_set(config, progress=False)
        found = metrics.summarize(score(read_predictions(root / 'predictions', data.dataset), data))
    told = [str(w.message) for w in caught if w.category is UserWarning]
    return [found[name] for name in ('fg_ari', 'mbo_i', 'mbo_c', 'miou')], told


def every(kind, **changes):
    """Change all records of a kind; a function is applied to the field."""

    def edit(content):
        for record in content[kind]:
            for field, new in changes.items():
                record[field] = new(record[field]) if callable(new) else new

    return edit


def drop(kind, *fields):
    return lambda content: [record.pop(field) for record in content[kind] for field in fields]


def number(place, **changes):
    """Change one annotation, or add one."""

    def edit(content):
        rows = content['annotations']
        if place > len(rows):
            rows.append(annotation(place, None, 2))
        rows[place - 1].update(changes)

    return edit


def another(kind, **changes):
    """Repeat the first record with changes."""
    return lambda content: content[kind].append({**content[kind][0], **changes})


def mask(segmentation):
    return number(1, segmentation=segmentation)


def code(counts):
    return mask({'size': [320, 320], 'counts': counts})


def both(*edits):
    return lambda content: [edit(content) for edit in edits]


def categories(first, second):
    def edit(content):
        for record in content['annotations']:
            record['category_id'] = first if record['category_id'] == 1 else second
        for record, new in zip(content['categories'], (first, second), strict=True):
            record['id'] = new

    return edit


def without_segmentation(content):
    number(4)(content)
    content['annotations'][3].pop('segmentation')


def of_lvis(content):
    content['images'][0].pop('file_name')
    content['images'][0]['coco_url'] = 'http://images.example/val2017/a.jpg?size=1'


BASE, D_BASE = (59.6, 66.7, 100.0, 51.5), (45.3, 50.0, 75.0, 34.8)
NO_MASK = r'1 left out: has no mask.*\(annotation 4\)'
NO_AREA = r'1 left out: has no area.*\(annotation 4\)'
CASES = {
    # name: what is changed, the scores, and what the one warning says; half: the prediction misses half of one box
    'base': (lambda content: None, BASE, None),
    'crowd as text': (every('annotations', iscrowd='0'), BASE, None),
    'crowd as bool': (every('annotations', iscrowd=False), BASE, None),
    'crowd as null': (every('annotations', iscrowd=None), BASE, None),
    'no crowd, no id': (drop('annotations', 'iscrowd', 'id'), BASE, None),
    'image ids as text': (every('annotations', image_id='1'), BASE, None),
    'image ids as floats': (every('annotations', image_id=1.0), BASE, None),
    'one image id as text': (number(3, image_id='1'), BASE, None),
    'image ids are words': (both(every('annotations', image_id='x'), every('images', id='x')), BASE, None),
    'category ids as text': (
        both(every('annotations', category_id=str), every('categories', id=str)), BASE, None
    ),
    'category ids as floats': (every('annotations', category_id=float), BASE, None),
    'category without name': (drop('categories', 'name'), BASE, None),
    'no size': (drop('images', 'height', 'width'), BASE, None),
    'no height': (every('images', height=None), BASE, None),
    'size 0': (every('images', height=0, width=0), BASE, None),
    'size as text': (every('images', height='320', width='320'), BASE, None),
    'polygon of two points': (
        number(3, segmentation=[[200, 20, 300, 120]]), (100.0, 77.3, 77.3, 77.3),
        r'1 left out.*three points \(annotation 3\)'
    ),
    'a part of two points': (number(3, segmentation=[[10, 10, 12, 12], polygon(*BOXES[2])]), BASE, None),
    'flat polygon': (number(3, segmentation=polygon(*BOXES[2])), BASE, None),
    'empty': (number(4, segmentation=[], bbox=[10, 200, 50, 50]), BASE, NO_MASK),
    'empty part': (number(4, segmentation=[[]]), BASE, NO_MASK),
    'empty object': (number(4, segmentation={}), BASE, NO_MASK),
    'empty code': (number(4, segmentation={'size': [320, 320], 'counts': []}), BASE, NO_MASK),
    'null': (number(4, segmentation=None), BASE, NO_MASK),
    'missing': (without_segmentation, BASE, NO_MASK),
    'no pixel': (
        number(4, segmentation={'size': [320, 320], 'counts': [320 * 320]}), BASE, NO_AREA
    ),
    'a point': (number(4, segmentation=[[5, 5]]), BASE, NO_AREA),
    'a line': (number(4, segmentation=[[5, 5, 9, 5, 5, 5]]), BASE, NO_AREA),
    'in shares': (
        number(4, segmentation=[[0.1, 0.1, 0.9, 0.1, 0.9, 1.0]]), BASE, NO_AREA
    ),
    'of another image': (
        number(4, image_id=7, segmentation=[polygon(*BOXES[0])]), BASE, r'1 left out: is of image 7.*annotation 4'
    ),
    'unknown category': (number(1, category_id=77), BASE, 'unknown category 77'),
    'back slash': (every('images', file_name='sub\\a.jpg'), BASE, None),
    'half': (lambda content: None, D_BASE, None),
    'half, LVIS': (of_lvis, D_BASE, None),
    **{f'half, category {a}': (categories(a, b), D_BASE, None)
       for a, b in ((40_000, 1), (65_536, 65_537), (65_535, 3), (0, 1), (-1, 1), (3_080_540_388, 2), (2**62, -7))},
}  # fmt: skip


@pytest.mark.parametrize('name', CASES)
def test_cases_that_can_be_scored(name, tmp_path):
    edit, expected, warning = CASES[name]
    content = base()
    edit(content)
    write(tmp_path, content, names=('sub/a.jpg',) if name == 'back slash' else ('a.jpg',))
    labels = box(*BOXES[0]) + 2 * (box(*BOXES[1]) | box(*BOXES[2]))
    if name.startswith('half'):
        labels[:, 100:160][labels[:, 100:160] == 1] = 0
    predict(tmp_path, labels)
    scores, told = found_scores(tmp_path)
    assert scores == pytest.approx(expected, abs=0.05)
    assert len(told) == (warning is not None)
    if warning:
        assert re.search(warning, told[0])


def test_a_byte_order_mark_is_no_matter(tmp_path):
    for encoding in ('utf-8-sig', 'utf-16'):
        root = tmp_path / encoding
        root.mkdir()
        write(root, base(), encoding=encoding)
        predict(root, box(*BOXES[0]) + 2 * (box(*BOXES[1]) | box(*BOXES[2])))
        assert found_scores(root)[0] == pytest.approx(BASE, abs=0.05)


def test_maps_with_hundreds_of_labels(tmp_path):
    first, second = box(slice(40, 140), slice(100, 200), (320, 480)), box(slice(180, 300), slice(250, 380), (320, 480))
    content = base()
    content['images'][0]['width'] = 480
    content['annotations'] = [annotation(1, runs(first)), annotation(2, runs(second), 2)]
    write(tmp_path, content, (320, 480))
    labels = np.arange(320)[:, None].repeat(480, axis=1) // 2 * 2 + 300  # a stripe of two rows each
    labels[first], labels[second] = 2, 258
    predict(tmp_path, labels)
    assert found_scores(tmp_path)[0] == pytest.approx([100, 100, 100, 100])


REFUSED = {
    # name: what is changed, and what the message says
    'two types of ids': (
        another('images', id='x1'), r"image 'x1': ids of images .* such as 'x1' and 1$"
    ),
    'id of an image twice': (
        another('images', file_name='b.jpg'), r'image 1 .number 2.*: id 1 is taken .* a.jpg'
    ),
    'id of a category twice': (another('categories', id='1'), r"category '1': id 1 is taken"),
    'bool as id': (every('images', id=True), r'image number 1: id must be a whole number, got True'),
    'no image id': (drop('annotations', 'image_id'), r'annotation 1: image_id is missing \(and 2 more'),
    'null as image id': (number(2, image_id=None), r'annotation 2: image_id must be a whole number, got None'),
    'bool as category': (number(2, category_id=True), r'annotation 2: category_id must be .* got True'),
    'fraction as category': (number(2, category_id=1.5), r'annotation 2: category_id must be .* got 1.5'),
    'word as category': (number(2, category_id='dog'), r"annotation 2: category_id must be .* got 'dog'"),
    'huge category': (number(2, category_id=10**30), r'annotation 2: category_id must lie from'),
    'list as crowd': (number(2, iscrowd=[]), r'annotation 2: iscrowd must be a whole number, got \[\]'),
    'two as crowd': (number(2, iscrowd=2), r'annotation 2: iscrowd must lie from 0 to 1, got 2'),
    'null as name': (every('images', file_name=None), r'image 1: file_name must be text, got None'),
    'absolute name': (every('images', file_name='/etc/a.jpg'), r'image 1: file_name must be a path below'),
    'name that leads out': (every('images', file_name='..\\..\\a.jpg'), r'image 1: file_name must be a path below'),
    'name of another system': (every('images', file_name='C:\\a.jpg'), r'image 1: file_name must be a path below'),
    'name with NUL': (every('images', file_name='a\0.jpg'), r'image 1: file_name is none that a file can have'),
    'negative size': (every('images', height=-320), r'image 1: height must lie from 0'),
    'fraction as size': (every('images', height=320.5), r'image 1: height must be a whole number, got 320.5'),
    'huge size': (every('images', height=30_000, width=30_000), r'image 1: height and width, 30000 x 30000'),
    'size of another image': (every('images', height=480), r'size 320 x 320, its image 480 x 320'),
    'odd polygon': (mask([[7, *polygon(*BOXES[0])]]), r'annotation 1: .* 9 numbers, which are not pairs'),
    'null in a polygon': (mask([[None, *polygon(*BOXES[0])[1:]]]), r'annotation 1: segmentation must .*None'),
    'NaN in a polygon': (mask([[np.nan, *polygon(*BOXES[0])[1:]]]), r'annotation 1: .* not finite'),
    'text in a polygon': (mask([['1', *polygon(*BOXES[0])[1:]]]), r"annotation 1: segmentation must .*'1'"),
    'far away': (mask([[1e8, *polygon(*BOXES[0])[1:]]]), r'annotation 1: .* coordinate of 1e\+08'),
    'farther away': (mask([[10**400, *polygon(*BOXES[0])[1:]]]), r'annotation 1: .* not finite'),
    'endless outline': (mask([[0, 0, 3000, 3000] * 1000]), r'annotation 1: .* outline of \d+ pixels'),
    'points': (mask([[1, 2], [3, 4], [5, 6]]), r'annotation 1: .* unknown form: points one by one'),
    'rings': (mask([{'exterior': [], 'interiors': []}]), r'annotation 1: .* object of exterior, interiors'),
    'text': (mask('1 2 3'), r'annotation 1: segmentation is of an unknown form'),
    'counts alone': (mask({'counts': [1]}), r'annotation 1: .* unknown form, with counts instead'),
    'size turned': (mask(runs(np.eye(2))), r'annotation 1: .* size 2 x 2, its image 320 x 320'),
    'counts that end early': (code([5, 7]), r'annotation 1: .* fill 12 of 102400'),
    'counts below 0': (code([-1, 102_401]), r'annotation 1: .* whole numbers from 0'),
    'fractional counts': (code([0.5, 102_399.5]), r'annotation 1: .* whole numbers'),
    'text of bytes': (code("b'Xa<T'"), r'annotation 1: .* text of a Python bytes'),
    'no code': (code('hé'), r'annotation 1: .* not compressed run-length code'),
    'a list as annotation': (lambda c: c['annotations'].insert(0, [1]), r'annotation number 1: must be .* got \[1\]'),
    'no annotations': (lambda c: c.pop('annotations'), r'instances_val2017.json has no annotations'),
    'annotations no list': (lambda c: c.update(annotations={}), r'annotations must be a list, got {}'),
}  # fmt: skip


@pytest.mark.parametrize('name', REFUSED)
def test_cases_that_must_be_refused(name, tmp_path):
    edit, message = REFUSED[name]
    content = base()
    edit(content)
    write(tmp_path, content)
    with pytest.raises(ValueError, match=message) as caught:
        CocoInstances(tmp_path, 'val', 32, 32)
    assert str(caught.value).count('\n') == 0
    assert 'instances_val2017.json' in str(caught.value)


def test_check_names_every_record(tmp_path, capsys):
    content = base()
    for edit in (number(1, category_id='dog'), number(2, segmentation=[]), number(3, segmentation=[[1, 2, 3]])):
        edit(content)
    write(tmp_path, content)
    with pytest.raises(SystemExit):
        main(['data', 'check', 'coco', str(tmp_path), '--splits', 'val'])
    printed = capsys.readouterr().out
    for part in (
        'annotation 1: category_id must',
        'left out: annotation 2: has no mask',
        'annotation 3: segmentation has',
    ):
        assert part in printed


def test_one_map_never_serves_two_images(tmp_path):
    content = base()
    content['images'].append({'id': 2, 'file_name': 'a.png', 'height': 320, 'width': 320})
    write(tmp_path, content, names=('a.jpg', 'a.png'))
    predict(tmp_path, box(*BOXES[0]))
    with pytest.raises(ValueError, match=r'a.png would be the labels of both a.jpg and a.png'):
        found_scores(tmp_path)
    (tmp_path / 'val2017' / 's').mkdir()
    (tmp_path / 'val2017' / 'a.png').rename(tmp_path / 'val2017' / 's' / 'a.jpg')
    content['images'][1]['file_name'] = 's/a.jpg'
    (tmp_path / 'annotations' / 'instances_val2017.json').write_text(json.dumps(content))
    with pytest.raises(FileNotFoundError, match=r's/a.png is missing'):
        found_scores(tmp_path)


def test_predictions_for_folders_of_labels_lie_in_the_same_subfolders(tmp_path, capsys):
    for part, place in (('s1', BOXES[0]), ('s2', BOXES[1])):
        for kind in ('val/images', 'val/labels', 'maps'):
            (tmp_path / kind / part).mkdir(parents=True)
        Image.new('RGB', (320, 320)).save(tmp_path / 'val' / 'images' / part / 'a.jpg')
        for kind in ('val/labels', 'maps'):
            Image.fromarray(box(*place).astype(np.uint8)).save(tmp_path / kind / part / 'a.png')
    (tmp_path / 'val' / 'images' / '._b.jpg').write_bytes(b'of macOS')
    main(['evaluate', '--predictions', str(tmp_path / 'maps'), '--dataset', 'folder', '--data-root', str(tmp_path)])
    printed = capsys.readouterr().out
    assert 'folder, 2 images' in printed
    assert printed.count('100.0 [100.0, 100.0]') == len(metrics.METRICS)
    (tmp_path / 'val' / 'images' / 's1' / 'a.bmp').write_bytes(b'')
    with pytest.raises(ValueError, match=r's1/a.bmp and s1/a.jpg share the labels s1/a.png'):
        open_dataset(preset('coco', dataset='folder', data_root=str(tmp_path)), 'val')


@pytest.mark.parametrize('orientation', [1, 3, 6, 8])
def test_images_turned_by_exif_fit_their_truth_or_are_refused(orientation, tmp_path):
    """A white corner tells where up is."""
    upright = np.zeros((20, 30, 3), np.uint8)
    upright[:6, :6] = 255
    turns = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]
    stored = Image.fromarray(np.rot90(upright, turns).copy())
    exif = Image.Exif()
    exif[274] = orientation
    content = base()
    content['annotations'] = [annotation(1, [[0, 0, 6, 0, 6, 6, 0, 6]])]
    write(tmp_path, content)
    stored.save(tmp_path / 'val2017' / 'a.jpg', quality=100, exif=exif)

    def opened(height, width):
        content['images'][0].update(height=height, width=width)
        (tmp_path / 'annotations' / 'instances_val2017.json').write_text(json.dumps(content))
        data = CocoInstances(tmp_path, 'val', 20, 20)
        return data.read_image(0), data.annotation(0), data.report

    image, truth, report = opened(20, 30)
    assert image.shape[1:] == truth.masks.shape[1:] == (20, 30)
    ambiguous = orientation == 3
    assert bool(report.problems) == ambiguous  # upside down has the same size: as stored, and said
    assert (image[0, :6, :6].mean() > 0.9) == (not ambiguous)
    for size in ((21, 30), (30, 31), (30, 20))[: 3 if orientation in (1, 3) else 2]:
        with pytest.raises(ValueError, match=r'a.jpg is \d+ x \d+ pixels, its annotation is for .* do not belong'):
            opened(*size)
    if orientation in (6, 8):  # the file's own rows and columns, as COCO's tools see them
        image, _, report = opened(30, 20)
        assert image.shape[1:] == (30, 20)
        assert not report.problems


def test_a_bomb_is_one_message(tmp_path, monkeypatch):
    write(tmp_path, base())
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    data = CocoInstances(tmp_path, 'val', 32, 32)
    for read in (data.read_image, data.annotation, data.view):
        with pytest.raises(ValueError, match=r'a.jpg cannot be read \(Image size'):
            read(0)


# ------------------------------------------------------------------------------------------------------------ fuzz

NUMBERS = st.one_of(
    st.integers(-3, 70),
    st.integers(),
    st.floats(),
    st.sampled_from([1e8, -1e9, 2**31, 2**63, 10**400, 0.5, True, None, '1']),
)
ANYTHING = st.recursive(
    st.one_of(NUMBERS, st.text(max_size=8), st.sampled_from(['', "b'0'", '../a.jpg', '\ud800', '\0', 'a\\b'])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=8),
        st.dictionaries(st.sampled_from(['size', 'counts', 'id', 'exterior', 'x']), inner, max_size=3),
    ),
    max_leaves=10,
)
CODES = st.characters(min_codepoint=48, max_codepoint=111)
SEGMENTATIONS = st.one_of(
    ANYTHING,
    st.lists(st.lists(NUMBERS, max_size=10), max_size=3),
    st.lists(st.lists(st.floats(-80, 150), min_size=6, max_size=12), min_size=1, max_size=3),
    st.fixed_dictionaries({
        'size': st.one_of(st.just([9, 12]), ANYTHING),
        'counts': st.one_of(st.lists(NUMBERS, max_size=6), st.text(CODES, max_size=9)),
    }),
    st.integers(0, 108).map(lambda n: {'size': [9, 12], 'counts': [n, 108 - n]}),
)  # fmt: skip


def small(segmentation=None):
    """An image of 9 x 12 with two objects and room for a third."""
    return {
        'images': [{'id': 1, 'file_name': 'a.png', 'height': 9, 'width': 12}],
        'categories': [{'id': 1, 'name': 'a'}],
        'annotations': [
            annotation(1, [[1, 1, 5, 1, 5, 5, 1, 5]]), annotation(2, {'size': [9, 12], 'counts': [50, 20, 38]}),
            annotation(3, segmentation),
        ],
    }  # fmt: skip


@st.composite
def broken_files(draw):
    """A file with a drawn segmentation and up to three fields replaced, removed or repeated."""
    content = small(draw(SEGMENTATIONS))
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(['images', 'categories', 'annotations', 'annotations']))
        rows = content.get(kind)
        if not isinstance(rows, list) or not rows:
            continue
        place = draw(st.integers(0, len(rows) - 1))
        change = draw(st.sampled_from(['field', 'field', 'field', 'drop', 'repeat', 'record', 'list']))
        if change == 'repeat':
            rows.append(copy.deepcopy(rows[place]))
        elif change == 'record':
            rows[place] = draw(ANYTHING)
        elif change == 'list':
            content[kind] = draw(ANYTHING)
        elif isinstance(rows[place], dict) and rows[place]:
            field = draw(st.sampled_from(sorted(rows[place])))
            rows[place][field] = draw(ANYTHING)
            if change == 'drop':
                del rows[place][field]
    return content


@pytest.fixture(scope='module')
def fuzz_root(tmp_path_factory):
    root = tmp_path_factory.mktemp('fuzz')
    write(root, small(), (9, 12), ('a.png',))
    return root


def attempt(read):
    """What ``read`` gives, or the one line that it refuses with; no other exception."""
    try:
        return read(), ''
    except (FileNotFoundError, NoMask, ValueError) as error:
        message = str(error)
    assert '\n' not in message
    assert len(message) < 1000
    return None, message


def account(content):
    """How many annotations there are, if they are a list."""
    rows = content.get('annotations')
    return len(rows) if isinstance(rows, list) else 0


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(content=broken_files())
def test_broken_files_are_read_left_out_or_refused(fuzz_root, content):
    path = fuzz_root / 'annotations' / 'instances_val2017.json'
    path.write_text(json.dumps(content))
    data, message = attempt(lambda: CocoInstances(fuzz_root, 'val', 9, 9))
    if data is None:
        assert 'instances_val2017.json' in message
        return
    kept = 0
    for i in range(len(data)):
        truth, message = attempt(lambda i=i: data.annotation(i))
        assert truth or re.search('is missing|do not belong together|cannot be read', message)  # the image's file
        count = len(data._objects[i])
        kept += count
        if truth:
            assert len(truth.masks) == count
            assert truth.masks.any((1, 2)).all()
            assert truth.categories.dtype == np.int64
    left_out = sum(len(places) for (kind, _), places in data.report.entries.items() if kind == 'left out')
    assert kept + left_out == account(content)  # nothing is lost without a word


@settings(max_examples=250, deadline=None, derandomize=True)
@given(segmentation=SEGMENTATIONS)
def test_masks_that_leave_the_check_fill_their_image(segmentation):
    found, message = attempt(lambda: encode_mask(segmentation, 9, 12))
    if found is None:
        assert message
        return
    rle, _ = found
    counts = decode_counts(rle['counts'].decode())
    assert rle['size'] == [9, 12]
    assert counts.sum() == 108
    again = np.repeat(np.arange(len(counts)) % 2, counts).reshape(12, 9).T
    np.testing.assert_array_equal(again, mask_tools.decode(rle))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), shape=st.tuples(st.integers(1, 40), st.integers(1, 300)), share=st.floats(0, 1))
def test_compressed_codes_are_read_as_by_their_makers(seed, shape, share):
    mask = np.random.default_rng(seed).random(shape) < share
    counts = decode_counts(mask_tools.encode(np.asfortranarray(mask, np.uint8))['counts'].decode())
    np.testing.assert_array_equal(np.repeat(np.arange(len(counts)) % 2, counts), mask.ravel('F'))
