"""Protocols bench and slotdiffusion, row for row, by slow evaluators and by hand; all four where they must agree."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

import topdown
from tests.reference import protocols as reference
from topdown.cli import main
from topdown.data.base import crop_image, crop_masks, voc_colours
from topdown.data.coco import CocoInstances
from topdown.evaluate import metrics
from topdown.evaluate.metrics import IGNORE, TruthMaker, score_image, summarize, true_labels
from topdown.evaluate.predict import labels_from_masks, score_model
from topdown.evaluate.truth import make_truth_set
from topdown.protocols import PROTOCOLS
from topdown.train.batches import _Plan

from .test_labels import image as write_image
from .test_labels import palette_png, voc_root  # noqa: F401  (a fixture)
from .test_records import annotation, box, predict, runs, write

random = st.integers(0, 2**32 - 1).map(np.random.default_rng)
BENCH, SLOTDIFFUSION = PROTOCOLS['bench'], PROTOCOLS['slotdiffusion']


def scored(prediction, segments, rules=BENCH):
    """Scores of one image whose label map, instances and classes alike, is given; rules may be changed ones."""
    maker = TruthMaker(1, *segments.shape)
    maker.add(segments, segments)
    return metrics.score(prediction[None], replace(maker.truth(), protocol=rules))[0]


def layers(*rows):
    """Masks (O, H, W) from rows of text: 'aa.' and '.bb' are two objects of three pixels."""
    names = sorted({c for row in rows for word in row for c in word} - {'.'})
    return np.array([[[name in word for word in row.split()] for row in rows] for name in names], bool)


# ------------------------------------------------------------------------------------------ whole images of numbers


@settings(max_examples=150, deadline=None)
@given(rng=random, count=st.integers(0, 4), side=st.integers(2, 7), dense=st.sampled_from([0.2, 0.45, 0.8]))
def test_slotdiffusion_equals_the_slow_evaluator(rng, count, side, dense):
    masks, keep = rng.random((count, side, side)) < dense, rng.random(count) < 0.8
    categories, prediction = rng.choice([3, 7, 65536], count), rng.integers(0, 3, (side, side))
    void = rng.random((side, side)) < 0.15 if rng.random() < 0.5 else None
    found = score_image(prediction, masks, categories, keep, 'slotdiffusion', void)
    expected = reference.slotdiffusion(prediction, masks, categories, keep, void)
    names = {'fg_ari': 'fg_ari_i', 'ari': 'ari_i', 'mbo_i': 'mbo_i', 'mbo_c': 'mbo_c', 'miou': 'miou_i',
             'miou_c': 'miou_c', 'fg_ari_c': 'fg_ari_c'}  # fmt: skip
    assert {name: found[name] for name in names} == pytest.approx(
        {name: expected[other] for name, other in names.items()}, nan_ok=True
    )


@settings(max_examples=150, deadline=None)
@given(rng=random, count=st.integers(0, 4), side=st.integers(1, 7), lowest=st.integers(-1, 1))
def test_bench_equals_the_slow_evaluator(rng, count, side, lowest):
    segments = rng.integers(min(lowest, count), count + 1, (side, side))
    prediction = rng.integers(0, 3, (side, side))
    for rules, skip in ((BENCH, ()), (replace(BENCH, background=()), (0,))):
        found, expected = scored(prediction, segments, rules), reference.bench(prediction, segments, skip)
        assert {name: found[name] for name in expected} == pytest.approx(expected, nan_ok=True)


# ------------------------------------------------------------------------------------------------ rows of the table


def test_versions_are_named():
    assert [v for v in BENCH.imitates.replace(',', '').split() if v[-1].isdigit()][:3] == [
        'b26d2b7',
        'cc1d545',
        'b2f7894',
    ]
    assert all(version in SLOTDIFFUSION.imitates for version in ('eacfc9a', '5709625', '883a932'))


def test_masks_scored(tiny, encoder, monkeypatch):
    assert {name: rules.masks for name, rules in PROTOCOLS.items()} == {
        'oclf': 'decoder', 'spot': 'decoder', 'bench': 'decoder', 'slotdiffusion': 'slots'
    }  # fmt: skip
    from topdown.evaluate import report

    asked = []
    monkeypatch.setattr(report, 'score_model', lambda model, data, sources: asked.append(sources[0]) or score_model(
        model, data, sources))  # fmt: skip
    model = topdown.build_model(tiny.with_(top_down=False), encoder)
    table, _ = report.score_protocols(tiny, tuple(PROTOCOLS), model, encoder)
    assert asked == ['decoder', 'decoder', 'decoder', 'slots']
    assert set(table.protocol) == set(PROTOCOLS)
    report.score_protocols(tiny, ('slotdiffusion',), model, encoder, 'decoder')
    assert asked[-1] == 'decoder'


@pytest.mark.parametrize('size', [(427, 640), (500, 333), (256, 256), (224, 301)])
def test_images_of_bench_are_torchvisions(size):
    array = np.random.default_rng(0).integers(0, 256, (3, *size), np.uint8)
    short = min(size)
    top, left = (size[0] - short) // 2, (size[1] - short) // 2
    square = torch.from_numpy(array)[:, top : top + short, left : left + short]
    larger = tv.resize(square, [256, 256], antialias=True).float() / 255
    expected = F.interpolate(larger[None], scale_factor=0.875, mode='bicubic')[0]
    found = crop_image(torch.from_numpy(array).float() / 255, 224, resize='square')
    assert found.shape == (3, 224, 224)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize('size', [(60, 80), (81, 50), (64, 64), (32, 45)])
def test_images_of_slotdiffusion_are_opencvs(size):
    array = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    factor = 32 / min(size)
    new = [round(extent * factor) for extent in size]
    resized = reference.linear_as_opencv(array, *new)
    top, left = (new[0] - 32) // 2, (new[1] - 32) // 2
    found = 255 * crop_image(torch.from_numpy(array).permute(2, 0, 1).float() / 255, 32, resize='opencv')
    difference = np.abs(found.permute(1, 2, 0).numpy() - resized[top : top + 32, left : left + 32])
    assert difference.max() < 1.01
    assert (difference > 0.01).mean() < 0.01


@pytest.mark.parametrize('size', [(427, 640), (500, 333), (61, 47), (128, 128)])
def test_true_masks_are_cut_as_each_has_it(size):
    labels = np.random.default_rng(0).integers(0, 9, size)
    short = min(size)
    top, left = (size[0] - short) // 2, (size[1] - short) // 2
    square = torch.from_numpy(labels)[None, top : top + short, left : left + short]
    expected = tv.resize(square, [256, 256], InterpolationMode.NEAREST_EXACT)[0].numpy()
    np.testing.assert_array_equal(crop_masks(labels, 256, 'square'), expected)
    new = [round(extent * (32 / short)) for extent in size]
    resized = reference.nearest_as_opencv(labels, *new)
    top, left = (new[0] - 32) // 2, (new[1] - 32) // 2
    np.testing.assert_array_equal(crop_masks(labels, 32, 'opencv'), resized[top : top + 32, left : left + 32])


def test_each_protocol_has_its_mask_size_and_soft_masks_are_upsampled_to_it(tiny, encoder):
    assert [rules.mask_side(224, 320) for rules in PROTOCOLS.values()] == [320, 320, 256, 224]
    data = topdown.make_eval_set(tiny, encoder, protocols=tuple(PROTOCOLS), progress=False)
    sides = {name: truth.regions.shape[-1] for name, truth in data.truth.items()}
    assert sides == {'oclf': 192, 'spot': 192, 'bench': 110, 'slotdiffusion': 96}  # of images of 96
    model = topdown.build_model(tiny.with_(top_down=False), encoder)
    rows = score_model(model, data)['decoder']
    (_, out), = topdown.run_model(model, data)  # fmt: skip
    for name, side in sides.items():
        labels = labels_from_masks(out.masks, data.grid, side)
        pd.testing.assert_frame_equal(pd.DataFrame(rows[name]), pd.DataFrame(metrics.score(labels, data.truth[name])))
    resized = topdown.score(labels_from_masks(out.masks, data.grid, 192), data, 'bench')  # hard labels, made smaller
    soft = summarize(rows['bench'])
    assert summarize(resized)['mbo_i'] == pytest.approx(soft['mbo_i'], abs=2)
    assert summarize(resized) != soft


@pytest.mark.parametrize('name', ['bench', 'slotdiffusion'])
def test_models_train_and_segment_as_a_protocol_cuts(tiny, tmp_path, name):
    config = tiny.with_(protocol=name, random_crop=True, cache_tokens=False, steps=2, eval_every=2)
    run = topdown.train_model(config, tmp_path, progress=False)
    model, encoder, saved = topdown.load_run(tmp_path / 'checkpoint.safetensors')
    assert saved.config.data.protocol == name
    data = topdown.make_eval_set(saved.config, encoder, progress=False)
    assert data.mask_size == data.dataset.mask_size == PROTOCOLS[name].mask_side(96, 192)
    found = summarize(score_model(model, data)['decoder'][name])
    assert found['mbo_i'] == pytest.approx(run.evaluations.mbo_i.iloc[-1], abs=1e-4)
    square, labels = topdown.segment_image(data.dataset.path(0), model, encoder, 96, protocol=name)
    assert torch.equal(square, data.images[0])
    assert labels.shape == (96, 96)


PANOPTIC = {
    'annotations': [{'image_id': 1, 'file_name': 'a.png', 'segments_info': [
        {'id': 70_000, 'category_id': 1, 'iscrowd': 0}, {'id': 300, 'category_id': 1, 'iscrowd': 1},
        {'id': 5, 'category_id': 200, 'iscrowd': 0},
    ]}],
    'categories': [{'id': 1, 'name': 'a', 'isthing': 1}, {'id': 200, 'name': 'sky', 'isthing': 0}],
}  # fmt: skip


@pytest.fixture
def panoptic_root(tmp_path):
    """An image of 320 x 320: two things, one of them a crowd, stuff around them, and a strip of no segment."""
    labels = np.full((320, 320), 5)
    labels[:160, :160], labels[:160, 160:], labels[300:] = 70_000, 300, 0
    write(tmp_path, {
        'images': [{'id': 1, 'file_name': 'a.jpg', 'height': 320, 'width': 320}],
        'categories': [{'id': 1, 'name': 'a'}],
        'annotations': [annotation(1, runs(box(slice(0, 100), slice(0, 100))), 1)],
    })  # fmt: skip
    folder = tmp_path / 'annotations'
    (folder / 'panoptic_val2017.json').write_text(json.dumps(PANOPTIC))
    (folder / 'panoptic_val2017').mkdir()
    colours = np.stack([labels % 256, labels // 256 % 256, labels // 65_536], -1).astype(np.uint8)
    Image.fromarray(colours).save(folder / 'panoptic_val2017' / 'a.png')
    predict(tmp_path, np.repeat([[0], [1]], 160, 0) * np.ones((1, 320), int))
    return tmp_path


def test_truth_of_bench_on_coco_is_panoptic(panoptic_root):
    config = topdown.preset('coco', data_root=str(panoptic_root))
    data = make_truth_set(config.with_(protocol='bench'), protocols=('oclf',), progress=False)
    maps = data.instances[0]
    expected = np.zeros((256, 256), int)
    expected[:128, :128], expected[:128, 128:], expected[240:] = 2, 1, IGNORE  # by id; things, a crowd too; no segment
    np.testing.assert_array_equal(maps, expected)
    assert data.truth['oclf'].instance.max() == 1  # from the instances, as ever
    halves = np.repeat([[0], [1]], 128, 0) * np.ones((1, 256), int)
    (row,) = topdown.score(halves[None], data)
    assert row['mbo_i'] == pytest.approx((0.5 + 0.5 + 112 / 128) / 3)  # those of no segment stay in the union
    assert row['fg_ari'] == 0.0
    assert row['miou'] == pytest.approx((0.5 + 112 / 128) / 3)
    assert math.isnan(row['mbo_c'])


def test_missing_panoptic_files_are_named_with_the_remedy(panoptic_root, capsys):
    folder = panoptic_root / 'annotations'
    arguments = ['evaluate', '--predictions', str(panoptic_root / 'predictions'), '--data-root', str(panoptic_root)]

    def told():
        with pytest.raises(SystemExit):
            main([*arguments, '--protocols', 'bench'])
        return capsys.readouterr().err

    main([*arguments, '--protocols', *PROTOCOLS])
    (folder / 'panoptic_val2017' / 'a.png').unlink()
    assert 'panoptic_val2017/a.png is missing: unpack panoptic_annotations_trainval2017.zip' in told()
    Image.new('RGB', (320, 320), (9, 9, 9)).save(folder / 'panoptic_val2017' / 'a.png')
    assert 'a.png does not fit its image, 320 x 320 pixels, or its segments' in told()
    for content, message in (
        (PANOPTIC | {'annotations': []}, 'the map of image 1 is missing'),
        ({'annotations': []}, 'not a file of panoptic'),
    ):
        (folder / 'panoptic_val2017.json').write_text(json.dumps(content))
        assert message in told()
    (folder / 'panoptic_val2017.json').unlink()
    main([*arguments, '--protocols', 'bench'])  # not COCO's own files: their masks serve
    data = CocoInstances(panoptic_root, 'val', 224, 320)
    assert data.protocols == tuple(PROTOCOLS)
    data.official = True
    assert data.protocols == ('oclf', 'spot', 'slotdiffusion')
    with pytest.raises(FileNotFoundError, match=r'panoptic_val2017.json is missing.*panoptic_annotations_trainval2017'):
        make_truth_set(topdown.preset('coco'), protocols=('bench',), dataset=data, progress=False)


def test_crowd_and_ignored_objects(tmp_path):
    parts = [
        box(slice(0, 100), slice(0, 100)),
        box(slice(120, 200), slice(0, 100)),
        box(slice(220, 300), slice(0, 100)),
    ]
    marks = [{}, {'iscrowd': 1}, {'ignore': 1}]
    write(tmp_path, {
        'images': [{'id': 1, 'file_name': 'a.jpg', 'height': 320, 'width': 320}],
        'categories': [{'id': 1, 'name': 'a'}],
        'annotations': [annotation(i + 1, runs(part), 1) | mark for i, (part, mark) in enumerate(zip(parts, marks))],
    })  # fmt: skip
    counts = {}
    for how in ('auto', 'keep', 'drop'):
        config = topdown.preset('coco', data_root=str(tmp_path), keep_crowd=how)
        data = make_truth_set(config, protocols=tuple(PROTOCOLS), progress=False)
        counts[how] = [int(truth.instance.max()) for truth in data.truth.values()]
    assert counts == {'auto': [3, 3, 3, 1], 'keep': [3, 3, 3, 1], 'drop': [2, 3, 3, 1]}
    content = json.loads((tmp_path / 'annotations' / 'instances_val2017.json').read_text())
    content['annotations'] = [content['annotations'][1]]
    (tmp_path / 'annotations' / 'instances_val2017.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match='use another protocol'):
        make_truth_set(config.with_(protocol='slotdiffusion'), progress=False)


def test_background_counts_as_one_object():
    masks = np.array([[[1, 1, 0, 0]], [[0, 0, 1, 0]]], bool)
    prediction = np.array([[0, 0, 0, 1]])
    found = {name: score_image(prediction, masks, np.array([1, 2]), protocol=name) for name in PROTOCOLS}
    assert {name: row['mbo_i'] for name, row in found.items()} == pytest.approx(
        {'oclf': 1 / 2, 'spot': 1 / 2, 'bench': 2 / 3, 'slotdiffusion': 1 / 2}
    )  # IoU 2 / 3 and 1 / 3 of the objects, 1 of the background
    assert {name: row['miou'] for name, row in found.items()} == pytest.approx(
        {'oclf': 1 / 3, 'spot': 1 / 3, 'bench': 5 / 9, 'slotdiffusion': 5 / 9}
    )


def test_overlapping_instances():
    """Objects a a a . . and . . b b ., the prediction 0 0 1 1 0: pixel 2 is in both."""
    masks = np.array([[[1, 1, 1, 0, 0]], [[0, 0, 1, 1, 0]]], bool)
    prediction = np.array([[0, 0, 1, 1, 0]])
    found = {name: score_image(prediction, masks, np.array([4, 4]), protocol=name) for name in PROTOCOLS}
    # left out: a is 0 0 of 0 0 . 1 0
    assert found['oclf']['mbo_i'] == found['spot']['mbo_i'] == pytest.approx((2 / 3 + 1) / 2)
    assert found['oclf']['mbo_c'] == pytest.approx(1 / 2)  # class 4 is the first four pixels: 2 of 5, or 2 of 4
    assert found['spot']['mbo_c'] == pytest.approx(2 / 4)
    # background and a segment of its own: the prediction is 0 0 2 1 0, the truth a a . b .
    own = found['slotdiffusion']
    assert own['mbo_i'] == pytest.approx((2 / 3 + 1) / 2)
    assert own['miou'] == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)  # the segment of its own matches the background
    assert own['mbo_c'] == pytest.approx(2 / 4)  # of one class or not
    assert own['miou_c'] == pytest.approx((2 / 4 + 1 / 2) / 2)
    # of no segment: a a - b ., pixel 2 stays in segment 1
    assert found['bench']['mbo_i'] == pytest.approx((2 / 3 + 1 / 2 + 1 / 3) / 3)


def test_class_scores():
    masks, categories = np.array([[[1, 0, 0, 0]], [[0, 1, 0, 0]], [[0, 0, 1, 0]]], bool), np.array([1, 1, 2])
    found = {name: score_image(np.array([[0, 0, 0, 1]]), masks, categories, protocol=name) for name in PROTOCOLS}
    assert math.isnan(found['bench']['mbo_c'])
    assert set(found['slotdiffusion']) - set(found['oclf']) == {'miou_c', 'fg_ari_c'}
    assert set(found['bench']) == set(found['oclf']) == set(metrics.METRICS)
    assert found['slotdiffusion']['mbo_c'] == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert found['slotdiffusion']['miou_c'] == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert found['slotdiffusion']['fg_ari_c'] == 0.0


def test_images_without_objects():
    nothing, prediction = np.zeros((0, 2, 2), bool), np.array([[0, 0], [0, 1]])
    found = {name: score_image(prediction, nothing, np.zeros(0, int), protocol=name) for name in PROTOCOLS}
    assert [row['fg_ari'] for row in found.values()] == pytest.approx([1, 1, math.nan, 1], nan_ok=True)
    assert [row['mbo_i'] for row in found.values()] == pytest.approx([math.nan] * 2 + [0.75, math.nan], nan_ok=True)
    assert [row['miou'] for row in found.values()] == pytest.approx([math.nan] * 2 + [0.75, 0.75], nan_ok=True)
    assert found['bench']['ari'] == 0.0
    unknown = scored(prediction, np.full((2, 2), IGNORE))
    assert all(math.isnan(value) for value in unknown.values())  # out of everything


def test_no_background_pixel():
    """Two objects fill the cut: in slotdiffusion the first becomes the background, in bench nothing is special."""
    masks = np.array([[[1, 1, 0, 0, 0]], [[0, 0, 1, 1, 1]]], bool)
    prediction = np.array([[0, 0, 1, 1, 2]])
    found = {name: score_image(prediction, masks, np.array([1, 2]), protocol=name) for name in PROTOCOLS}
    assert found['oclf']['mbo_i'] == found['bench']['mbo_i'] == pytest.approx((1 + 2 / 3) / 2)
    assert found['slotdiffusion']['mbo_i'] == found['slotdiffusion']['mbo_c'] == pytest.approx(2 / 3)
    assert found['bench']['fg_ari'] == found['oclf']['fg_ari'] > 0
    assert found['slotdiffusion']['fg_ari'] == 0.0  # one object, split


def test_objects_erased_by_overlap():
    """Object a lies wholly in b, or b in a later c; d is beside them."""
    a, b, d = ([[0, 1, 0, 0, 0, 0]], [[0, 1, 1, 0, 0, 0]], [[0, 0, 0, 0, 1, 1]])
    prediction = np.array([[0, 1, 2, 0, 3, 3]])

    def found(*masks, protocol='slotdiffusion'):
        return score_image(prediction, np.array(masks, bool), np.arange(len(masks)), protocol=protocol)['mbo_i']

    assert found(b, a, d) == pytest.approx((1 + 0 + 1) / 3)  # a counts 0: d has a higher label
    assert found(d, b, a) == pytest.approx((1 + 1) / 2)  # none has a higher one: not counted
    assert found(a, b, d) == pytest.approx((1 + 1) / 2)  # covered by a later one: not counted
    assert found(b, a, d, protocol='oclf') == pytest.approx((1 + 1) / 2)
    maps = true_labels(np.array([b, a, d], bool), np.arange(3), protocol='slotdiffusion')
    assert maps[2] == (1, 1)


def test_degenerate_ari_and_overflow():
    whole = np.zeros((4, 4), int)
    assert score_image(whole, np.ones((1, 4, 4), bool), np.array([1]), protocol='bench')['fg_ari'] == 1.0
    assert scored(whole, whole)['ari'] == 1.0
    # 256 x 256: products of pairs beyond 63 bits. The released evaluator multiplies int64 numbers, which wrap around
    segments, prediction = np.zeros((256, 256), int), np.zeros((256, 256), int)
    segments[:20, :60], prediction[10:40, :60] = 1, 1
    right = scored(prediction, segments)['ari']
    assert right == pytest.approx(reference.exact_ari(segments, prediction), abs=1e-12)
    wrapped = reference.int64_ari(segments, prediction)
    assert wrapped - right > 0.5
    for side in (64, 128):  # no such products: the same number
        small = segments[:side, :side], prediction[:side, :side]
        assert reference.int64_ari(*small) == pytest.approx(scored(small[1], small[0])['ari'], abs=1e-9)


def test_mean_over_batches():
    nan = float('nan')
    rows = [{'mbo_i': value} for value in (1.0, nan, 0.5, 0.0, nan, nan, 0.25)]
    assert summarize(rows)['mbo_i'] == pytest.approx(100 * (1 + 0.5 + 0 + 0.25) / 4)
    assert summarize(rows, 2)['mbo_i'] == pytest.approx(100 * (2 * 1 + 2 * 0.25 + 1 * 0.25) / 5)  # a batch of none
    assert summarize(rows, 64)['mbo_i'] == pytest.approx(summarize(rows)['mbo_i'])
    assert SLOTDIFFUSION.batch_size == 64
    assert math.isnan(summarize([{'mbo_i': nan}], 2)['mbo_i'])


def test_training_crops_of_bench():
    """0.75 to 1 of the largest square's area, aspect 3 / 4 to 4 / 3, anywhere in the image, stretched to a square."""
    rows, columns = (torch.arange(n, dtype=torch.float32) / 255 for n in (120, 200))
    image = torch.stack([rows[:, None].expand(-1, 200), columns.expand(120, -1), torch.zeros(120, 200)])
    for at, height, width, top, left in (
        ((0, 0, 1, 0.5), 120, 120, 0, 0), ((1, 1, 0, 0.5), 104, 104, 16, 96),
        ((0.5, 1, 0, 1), 90, 120, 15, 80), ((0.5, 0, 0, 0), 120, 90, 0, 0), ((0, 0.5, 1, 0), 120, 104, 0, 48),
    ):  # fmt: skip
        crop = 255 * crop_image(image, 56, at, 'square')
        assert crop.shape == (3, 56, 56)
        for found, first, extent in ((crop[0].mean(1), top, height), (crop[1].mean(0), left, width)):
            expected = first + (torch.arange(56) + 0.5) * extent / 56 - 0.5
            assert (found - expected)[3:-3].abs().max() < 1.1
    config = topdown.preset('smoke', protocol='bench', random_crop=True, batch_size=4)
    (plan,) = _Plan(Shapes(), config, 0, 1)
    assert [len(at) for _, _, at in plan] == [4] * 4
    (usual,) = _Plan(Shapes(), config.with_(protocol='oclf'), 0, 1)
    assert plan == usual  # two shares more that others do not use
    whole = torch.rand(3, 30, 40)
    assert torch.equal(crop_image(whole, 24, usual[0][2]), crop_image(whole, 24, usual[0][2][:2]))
    assert topdown.preset('voc').data.random_crop  # slotdiffusion: VOC's crops are random, COCO's are not
    assert not topdown.preset('coco').data.random_crop


class Shapes:
    """As much of a data set as a plan of batches asks for."""

    epoch_length = 8

    def order(self, generator):
        return torch.randperm(8, generator=generator)


def test_means_over_batches_are_printed(panoptic_root, capsys):
    arguments = ['evaluate', '--predictions', str(panoptic_root / 'predictions'), '--data-root', str(panoptic_root)]
    main([*arguments, '--protocols', 'slotdiffusion', 'bench', '--average-batch', '64'])
    printed = capsys.readouterr().out
    assert 'means of batches of 64' in printed
    assert 'slotdiffusion: as SlotDiffusion eacfc9a' in printed
    assert 'bench: as SmoothSA b26d2b7' in printed
    cells = next(line for line in printed.splitlines() if line.startswith('fg_ari_c')).split()
    assert cells[2] == '-'  # bench has no scores over classes


# --------------------------------------------------------------------------------------------------------- VOC


def test_void_of_voc(voc_root):  # noqa: F811
    config = topdown.preset('voc', data_root=str(voc_root), image_size=48)
    data = make_truth_set(config, protocols=tuple(PROTOCOLS), progress=False)
    assert data.truth['bench'].regions.shape[-1] == 55
    known = {name: (truth.instance[0] == IGNORE)[truth.regions[0].long()].any() for name, truth in data.truth.items()}
    assert {name: bool(value) for name, value in known.items()} == {
        'oclf': False, 'spot': False, 'bench': True, 'slotdiffusion': True
    }  # fmt: skip
    masks, void = np.array([[[1, 1, 0, 0, 0, 0]]], bool), np.array([[0, 0, 1, 0, 0, 0]], bool)
    prediction = np.array([[0, 0, 0, 1, 1, 1]])
    bench, own = (
        score_image(prediction, masks, np.array([1]), None, name, void) for name in ('bench', 'slotdiffusion')
    )
    assert bench['mbo_i'] == pytest.approx((2 / 3 + 1) / 2)  # void stays in segment 0, black is an object
    assert own['mbo_i'] == 1.0  # void is a segment of its own


def test_cut_without_background_in_voc(tmp_path):
    """Bench numbers segments by colour in the cut: with no black pixel the first colour leaves FG-ARI."""
    base = tmp_path / 'VOCdevkit' / 'VOC2012'
    (base / 'ImageSets' / 'Segmentation').mkdir(parents=True)
    (base / 'ImageSets' / 'Segmentation' / 'val.txt').write_text('one\n')
    write_image(base / 'JPEGImages' / 'one.jpg', 64, 64)
    instances = np.repeat([1, 1, 8, 2], 16)[None] * np.ones((64, 1), int)  # colours 128, 64 and 32,768
    for folder, labels in (('SegmentationObject', instances), ('SegmentationClass', np.minimum(instances, 3))):
        palette_png(base / folder / 'one.png', labels)
    colours = [r + 256 * g + 65_536 * b for r, g, b in voc_colours()]
    assert sorted((1, 8, 2), key=lambda label: colours[label]) == [8, 1, 2]
    config = topdown.preset('voc', data_root=str(tmp_path), image_size=56)
    data = make_truth_set(config, protocols=tuple(PROTOCOLS), progress=False)
    prediction = np.repeat([0, 1, 1, 1], 16)[None, None] * np.ones((1, 64, 1), int)
    side = data.truth['bench'].regions.shape[-1]
    assert side == 64
    (row,) = metrics.score(prediction, data.truth['bench'])
    expected = reference.bench(prediction[0], np.select([instances == 8, instances == 1], [0, 1], 2))
    assert row['fg_ari'] == pytest.approx(expected['fg_ari'])
    assert row['mbo_i'] == pytest.approx(expected['mbo_i'])  # all three count, and there is no fourth
    assert row['mbo_i'] == pytest.approx((1 / 2 + 1 / 3 + 1 / 3) / 3)
    slots = crop_masks(prediction, 56, 'opencv')
    own = reference.slotdiffusion(
        slots[0], crop_masks(np.stack([instances == o for o in (1, 2, 8)]), 56, 'opencv'), np.array([1, 2, 3]), [1] * 3
    )
    assert metrics.score(slots, data.truth['slotdiffusion'])[0]['mbo_i'] == pytest.approx(own['mbo_i'])  # 1 is dropped


# ------------------------------------------------------------------------------------------------------ agreement


def test_all_four_agree_on_disjoint_objects(tmp_path, capsys):
    """Whole maps through four cuts, with outlines where all of them cut, and without the background in bench's mBO."""
    size = (32 * 28, 42 * 28)  # 28 pixels are 10 of oclf and spot, 8 of bench and 7 of slotdiffusion

    def part(top, bottom, left, right):
        return box(slice(28 * top, 28 * bottom), slice(28 * left, 28 * right), size)

    parts = [part(3, 20, 7, 20), part(9, 28, 21, 35), part(24, 31, 8, 19)]
    write(tmp_path, {
        'images': [{'id': 1, 'file_name': 'a.png', 'height': size[0], 'width': size[1]}],
        'categories': [{'id': 1, 'name': 'a'}, {'id': 2, 'name': 'b'}],
        'annotations': [annotation(i + 1, runs(mask), 1 + (i == 2)) for i, mask in enumerate(parts)],
    }, size, ('a.png',))  # fmt: skip
    labels = np.arange(size[0])[:, None] // (11 * 28) * 2 + np.arange(size[1])[None] // (20 * 28)
    predict(tmp_path, labels)
    table = tmp_path / 'table.csv'
    main(['evaluate', '--predictions', str(tmp_path / 'predictions'), '--data-root', str(tmp_path), '--table',
          str(table), '--protocols', *PROTOCOLS])  # fmt: skip
    rows = 100 * pd.read_csv(table).set_index('protocol')[list(metrics.METRICS)]
    data = make_truth_set(topdown.preset('coco', data_root=str(tmp_path)), protocols=tuple(PROTOCOLS), progress=False)
    assert 0 < rows.fg_ari['oclf'] < 100
    assert abs(rows.miou['bench'] - rows.miou['slotdiffusion']) < 0.1  # the background counts in both
    for name, truth in data.truth.items():
        cut = crop_masks(labels[None], truth.regions.shape[-1], PROTOCOLS[name].mask_resize)
        (row,) = metrics.score(cut, replace(truth, protocol=replace(PROTOCOLS[name], background=())))
        for metric in ('fg_ari', 'ari', 'mbo_i', 'mbo_c', 'miou'):
            if not math.isnan(row[metric]):
                assert 100 * row[metric] == pytest.approx(rows[metric]['oclf'], abs=0.1)
            if metric not in PROTOCOLS[name].background:
                assert rows[metric][name] == pytest.approx(100 * row[metric], nan_ok=True)
