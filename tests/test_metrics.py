"""Metrics against scikit-learn and brute force over pixels, and the edge cases of the protocols."""

import math
import resource

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from tests.reference import metrics as reference
from topdown.evaluate import metrics
from topdown.protocols import PROTOCOLS

maps = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def one(truth, prediction, classes=None):
    """All metrics of a single image."""
    found = metrics.make_truth([truth], [np.where(truth > 0, 1, 0) if classes is None else classes])
    return metrics.score(np.asarray(prediction)[None], found)[0]


@settings(max_examples=60, deadline=None)
@given(rng=maps, objects=st.integers(1, 5), slots=st.integers(1, 7), side=st.integers(2, 12))
def test_ari_equals_scikit_learn(rng, objects, slots, side):
    truth = rng.integers(0, objects + 1, (side, side))
    prediction = rng.integers(0, slots, (side, side))
    found = one(truth, prediction)
    assert found['ari'] == pytest.approx(adjusted_rand_score(truth.ravel(), prediction.ravel()), abs=1e-9)
    if (truth > 0).any():
        expected = adjusted_rand_score(*reference.foreground(truth, prediction))
        assert found['fg_ari'] == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(rng=maps, objects=st.integers(1, 4), slots=st.integers(1, 5), side=st.integers(2, 10))
def test_everything_equals_brute_force(rng, objects, slots, side):
    truth = rng.integers(-1, objects + 1, (side, side))
    classes = rng.integers(-1, 3, (side, side)) * 7  # ids need not be consecutive
    classes[classes < 0] = metrics.IGNORE
    prediction = rng.integers(0, slots, (side, side))
    found = one(truth, prediction, classes)
    assert found['fg_ari'] == pytest.approx(reference.pair_counting_ari(*reference.foreground(truth, prediction)))
    assert found['ari'] == pytest.approx(reference.pair_counting_ari(*reference.every(truth, prediction)))
    by_class = reference.overlaps(classes, prediction)
    expected = np.mean([max(row) for row in by_class]) if by_class else math.nan
    assert found['mbo_c'] == pytest.approx(expected, nan_ok=True)
    rows = reference.overlaps(truth, prediction)
    if not rows:
        assert all(math.isnan(found[name]) for name in ('mbo_i', 'miou', 'recall', 'corloc'))
        return
    best = [max(row) for row in rows]
    assert found['mbo_i'] == pytest.approx(np.mean(best))
    assert found['miou'] == pytest.approx(reference.mean_iou(rows))
    assert found['recall'] == pytest.approx(np.mean([b >= 0.5 for b in best]))
    assert found['corloc'] == float(max(best) >= 0.5)


@settings(max_examples=20, deadline=None)
@given(rng=maps, count=st.integers(1, 6))
def test_batches_equal_single_images(rng, count):
    truth = rng.integers(-1, 4, (count, 9, 9)) * rng.integers(0, 2, (count, 1, 1))
    classes = np.where(truth > 0, truth % 2 + 1, truth)
    prediction = rng.integers(0, 5, (count, 9, 9))
    together = metrics.score(prediction, metrics.make_truth(truth, classes), batch=4)
    for row, t, c, p in zip(together, truth, classes, prediction):
        assert row == pytest.approx(one(t, p, c), nan_ok=True)


def test_the_truth_gives_its_label_maps_back():
    instances = np.array([[[0, 1, 1], [2, -1, 3]], [[0, 0, 0], [0, 5, 5]]])
    classes = np.array([[[0, 9, 9], [9, 4, 4]], [[0, 0, 0], [0, 9, 9]]])
    truth = metrics.make_truth(instances, classes)
    regions = truth.regions.flatten(1).long()
    assert truth.instance.gather(1, regions).tolist() == [[0, 1, 1, 2, -1, 3], [0, 0, 0, 0, 1, 1]]
    assert truth.ids.tolist() == [4, 9]
    assert truth.category.gather(1, regions).tolist() == [[0, 2, 2, 2, 1, 1], [0, 0, 0, 0, 2, 2]]
    assert truth[1:].category.tolist() == truth.category[1:].tolist()
    assert truth[1:].ids.tolist() == [4, 9]


def test_edge_cases():
    empty = np.zeros((4, 4), int)
    prediction = np.arange(16).reshape(4, 4) % 2
    nothing = one(empty, prediction)
    assert nothing['fg_ari'] == 1.0
    assert math.isnan(nothing['mbo_i'])
    single = empty.copy()
    single[:2] = 1
    assert one(single, prediction)['fg_ari'] == 0.0  # the object is split
    assert one(single, single)['fg_ari'] == 1.0
    assert one(single, empty)['fg_ari'] == 1.0  # one segment holds all of it
    overlapping = np.full((4, 4), metrics.IGNORE)
    assert one(overlapping, prediction)['fg_ari'] == 1.0
    assert math.isnan(one(overlapping, prediction)['mbo_i'])
    perfect = one(single, 1 - single)
    assert perfect == dict.fromkeys(metrics.METRICS, 1.0)


def test_overlaps_of_instances_and_of_classes_by_protocol():
    masks = np.zeros((3, 4, 3), bool)
    masks[0, :2], masks[1, 1:3], masks[2, 2:] = True, True, True
    categories = np.array([9, 4, 4])
    assert metrics.instance_labels(masks).tolist() == [[1] * 3, [-1] * 3, [-1] * 3, [3] * 3]
    assert metrics.class_labels(masks, categories).tolist() == [[2] * 3, [2] * 3, [1] * 3, [1] * 3]
    assert metrics.class_labels(masks, categories, protocol='spot').tolist() == [[2] * 3, [-1] * 3, [-1] * 3, [1] * 3]
    keep = np.array([True, False, False])
    assert metrics.instance_labels(masks, keep).tolist() == [[1] * 3, [1] * 3, [0] * 3, [0] * 3]
    assert metrics.class_labels(masks, categories, keep, 'spot').tolist() == [[2] * 3, [2] * 3, [0] * 3, [0] * 3]
    assert metrics.instance_labels(np.zeros((0, 3, 3), bool)).tolist() == [[0] * 3] * 3
    prediction = np.array([[0] * 3, [0] * 3, [1] * 3, [1] * 3])
    a, b = (metrics.score_image(prediction, masks, categories, protocol=name) for name in ('oclf', 'spot'))
    assert a['mbo_i'] == b['mbo_i']
    assert a['mbo_c'] == 1.0
    assert b['mbo_c'] == 1.0  # the contested rows are left out of both sides
    shifted = np.array([[0] * 3, [1] * 3, [1] * 3, [1] * 3])
    a, b = (metrics.score_image(shifted, masks, categories, protocol=name) for name in ('oclf', 'spot'))
    assert a['mbo_c'] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert b['mbo_c'] == 1.0


@settings(max_examples=60, deadline=None)
@given(rng=maps, count=st.integers(0, 5), side=st.integers(1, 6), protocol=st.sampled_from(['oclf', 'spot']))
def test_class_maps_equal_brute_force(rng, count, side, protocol):
    masks, keep = rng.random((count, side, side)) < 0.4, rng.random(count) < 0.8
    categories = rng.choice([-3, 0, 1, 65536], count)
    expected = reference.class_map(masks, categories, keep, protocol == 'spot')
    assert metrics.class_labels(masks, categories, keep, protocol).tolist() == expected.tolist()


IDS = [-(2**63), -3, -1, 0, 1, 40000, 65535, 65536, 2**40, 2**63 - 1]


@settings(max_examples=60, deadline=None)
@given(
    rng=maps, count=st.integers(1, 5), protocol=st.sampled_from(['oclf', 'spot']),
    ids=st.lists(st.sampled_from(IDS), min_size=3, max_size=3, unique=True).map(sorted),
)  # fmt: skip
def test_any_integer_is_a_category_id(rng, count, protocol, ids):
    """Scores depend on the order of the ids alone, and the truth gives the ids back."""
    masks, classes, keep = rng.random((count, 8, 8)) < 0.3, rng.integers(0, 3, count), rng.random(count) < 0.8
    prediction, named = rng.integers(0, 4, (8, 8)), np.array(ids)[classes]
    usual = metrics.score_image(prediction, masks, classes + 1, keep, protocol)
    assert metrics.score_image(prediction, masks, named, keep, protocol) == pytest.approx(usual, nan_ok=True)
    found = metrics.class_labels(masks, named, keep, protocol)
    truth = metrics.make_truth([metrics.instance_labels(masks, keep)], [found], [named])
    numbers = truth.category[0][truth.regions[0].long()].numpy()
    by_rank = np.array(sorted(set(named.tolist())))
    np.testing.assert_array_equal(numbers > 0, found > 0)
    np.testing.assert_array_equal(truth.ids.numpy()[numbers[found > 0] - 1], by_rank[found[found > 0] - 1])
    np.testing.assert_array_equal(numbers[found <= 0], found[found <= 0])


def test_one_category_has_one_number_in_all_images():
    maps, categories = np.array([[[1, 2]], [[1, 2]], [[0, 0]]]), [np.array([5, 0]), np.array([7, 5, 5]), np.array([])]
    truth = metrics.make_truth(maps, maps, categories)  # class 1 of the first image is category 0, of the second 5
    assert truth.ids.tolist() == [0, 5, 7]
    assert truth.category.gather(1, truth.regions.flatten(1).long()).tolist() == [[1, 2], [2, 3], [0, 0]]


def test_unknown_protocol_names_the_known_ones():
    assert set(PROTOCOLS) == {'oclf', 'spot', 'bench', 'slotdiffusion'}
    with pytest.raises(ValueError, match='oclf, spot, bench, slotdiffusion'):
        metrics.class_labels(np.zeros((1, 2, 2)), np.array([1]), protocol='coco')


def test_histogram_counts_every_pixel_once():
    rng = np.random.default_rng(0)
    regions, prediction = (torch.from_numpy(rng.integers(0, n, (3, 20, 20))) for n in (6, 4))
    joint = metrics.joint_histogram(regions, prediction)
    assert joint.shape == (3, 6, 4)
    assert joint.sum((1, 2)).tolist() == [400] * 3
    assert joint[1, 2, 3] == ((regions[1] == 2) & (prediction[1] == 3)).sum()


def test_summarize_skips_images_without_objects():
    rows = [{'fg_ari': 1.0, 'mbo_i': float('nan')}, {'fg_ari': 0.0, 'mbo_i': 0.25}]
    assert metrics.summarize(rows) == {'fg_ari': 50.0, 'mbo_i': 25.0}
    with pytest.raises(ValueError, match='no images'):
        metrics.summarize([])


def test_bad_input_is_refused():
    truth = metrics.make_truth(np.zeros((2, 4, 4), int), np.zeros((2, 4, 4), int))
    with pytest.raises(ValueError, match='shape'):
        metrics.score(np.zeros((2, 4, 5), int), truth)
    with pytest.raises(ValueError, match='same shape'):
        metrics.joint_histogram(torch.zeros(1, 2, 2), torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match='from 0'):
        metrics.score(np.full((2, 4, 4), -1), truth)
    with pytest.raises(ValueError, match='same shape'):
        metrics.make_truth(np.zeros((1, 2, 2), int), np.zeros((1, 2, 3), int))
    with pytest.raises(ValueError, match='negative'):
        metrics.joint_histogram(torch.full((1, 2, 2), -1), torch.zeros(1, 2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match='true labels must be whole numbers from -1'):
        metrics.make_truth(np.full((1, 2, 2), -2), np.zeros((1, 2, 2), int))
    with pytest.raises(ValueError, match='class 2, but 1 categories'):
        metrics.make_truth(np.full((1, 2, 2), 1), np.full((1, 2, 2), 2), [np.array([7, 7])])
    with pytest.raises(ValueError, match='as many category ids'):
        metrics.class_labels(np.ones((2, 3, 3), bool), np.array([1]))


HALVES = np.repeat([[0], [1]], 4, axis=0) * np.ones((1, 8), int)


def test_labels_of_any_type_and_size_give_the_right_number():
    truth = metrics.make_truth([HALVES], [HALVES])
    expected = metrics.score(HALVES[None], truth)
    kinds = (np.uint8, np.int16, np.uint16, np.uint32, np.uint64, np.int64, np.float16, np.float32, bool)
    for found in [HALVES.astype(kind) for kind in kinds] + [HALVES * 10**9, HALVES * 2**62, torch.from_numpy(HALVES)]:
        assert metrics.score(found[None], truth) == expected
    for kind in kinds[:-1]:
        assert metrics.score(HALVES[None], metrics.make_truth([HALVES.astype(kind)], [HALVES.astype(kind)])) == expected
    assert metrics.score(HALVES[None], metrics.make_truth([HALVES * 10**9], [HALVES * 10**9])) == expected
    assert metrics.score_image(HALVES, HALVES[None].astype(np.float32), [10**9]) == expected[0]


@pytest.mark.parametrize('change', [0.5, np.nan, np.inf, -np.inf, -2.0])
def test_what_is_no_label_is_refused(change):
    truth, wrong = metrics.make_truth([HALVES], [HALVES]), HALVES.astype(float)
    wrong[3, 3] = change
    calls = {
        '^labels must be whole numbers from 0, got float64': lambda: metrics.score(wrong[None], truth),
        '^true labels must be whole numbers from -1': lambda: metrics.make_truth([wrong], [HALVES]),
        '^true classes must be': lambda: metrics.make_truth([HALVES], [wrong]),
        '^masks must be': lambda: metrics.score_image(HALVES, wrong[None], [1]),
        'of a type of whole numbers': lambda: metrics.joint_histogram(torch.from_numpy(wrong), torch.from_numpy(wrong)),
    }
    if change != -2:
        calls['^category ids must be'] = lambda: metrics.score_image(HALVES, HALVES[None] > 0, [change])
    for message, call in calls.items():
        with pytest.raises(ValueError, match=message):
            call()


def test_text_empty_maps_and_other_shapes_are_refused():
    truth = metrics.make_truth([HALVES], [HALVES])
    for call, message in [
        (lambda: metrics.score(HALVES[None].astype(str), truth), 'labels must be whole numbers, got <U'),
        (lambda: metrics.score(HALVES[None].astype(object), truth), 'labels must be whole numbers, got object'),
        (lambda: metrics.score(np.zeros((0, 8, 8), int), truth), 'shape'),
        (lambda: metrics.make_truth([], []), 'no true maps'),
        (lambda: metrics.make_truth(np.zeros((1, 0, 0)), np.zeros((1, 0, 0))), 'true map 0 has no pixels'),
        (lambda: metrics.score_image(HALVES, HALVES > 0, [1]), r'masks must have shape \(O, H, W\), got \(8, 8\)'),
        (lambda: metrics.make_truth([HALVES * 2**40], [HALVES * 2**40]), 'too large'),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_large_labels_and_noise_take_little_memory():
    """Under 1 GB for what took as many cells as the largest label, or as pixels squared."""
    noise, few = np.random.default_rng(0).permutation(320 * 320).reshape(320, 320), np.zeros((4, 320, 320), int)
    few[:, :100], few[:, 100:150] = 1, 2
    truth = metrics.make_truth(few, few)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = metrics.score(np.stack([noise] * 4) * 20_000, truth)
    assert rows == metrics.score(np.stack([noise] * 4), truth)
    assert rows[0]['fg_ari'] == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match='true map 0 has 102400 regions, more than 4096'):
        metrics.make_truth([noise], [noise])
    with pytest.raises(ValueError, match='labels up to 1000000000 are too many'):
        metrics.joint_histogram(torch.zeros(1, 2, 2).int(), torch.full((1, 2, 2), 10**9))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # KB
