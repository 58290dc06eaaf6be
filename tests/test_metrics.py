"""Metrics against scikit-learn, SciPy-free brute force, and the edge cases of the protocol."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from topdown import metrics

maps = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@settings(max_examples=60, deadline=None)
@given(rng=maps, objects=st.integers(1, 5), slots=st.integers(1, 7), side=st.integers(2, 12))
def test_fg_ari_equals_scikit_learn_on_foreground(rng, objects, slots, side):
    truth = rng.integers(0, objects + 1, (side, side))
    prediction = rng.integers(0, slots, (side, side))
    foreground = truth > 0
    if not foreground.any():
        return
    expected = adjusted_rand_score(truth[foreground], prediction[foreground])
    assert metrics.fg_ari(metrics.joint_histogram(truth, prediction)) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(rng=maps, objects=st.integers(1, 4), slots=st.integers(1, 5), side=st.integers(2, 10))
def test_overlaps_equal_brute_force(rng, objects, slots, side):
    truth = rng.integers(-1, objects + 1, (side, side))
    prediction = rng.integers(0, slots, (side, side))
    valid = truth != metrics.IGNORE
    ious = [
        [((truth == o) & (prediction == k)).sum() / max(1, ((truth == o) | ((prediction == k) & valid)).sum())
         for k in range(slots)]
        for o in range(1, objects + 1) if (truth == o).any()
    ]  # fmt: skip
    joint = metrics.joint_histogram(truth, prediction)
    if not ious:
        assert math.isnan(metrics.mean_best_overlap(joint))
        return
    assert metrics.mean_best_overlap(joint) == pytest.approx(np.mean([max(row) for row in ious]))
    padded = [row + [0.0] * len(ious) for row in ious]
    matched = max(
        sum(padded[o][k] for o, k in enumerate(columns))
        for columns in itertools.permutations(range(len(padded[0])), len(padded))
    )
    assert metrics.mean_iou(joint) == pytest.approx(matched / len(ious))


def test_edge_cases():
    empty = np.zeros((4, 4), int)
    prediction = np.arange(16).reshape(4, 4) % 2
    joint = metrics.joint_histogram(empty, prediction)
    assert metrics.fg_ari(joint) == 1.0
    assert math.isnan(metrics.mean_best_overlap(joint))
    one = empty.copy()
    one[:2] = 1
    assert metrics.fg_ari(metrics.joint_histogram(one, prediction)) == 0.0
    assert metrics.fg_ari(metrics.joint_histogram(one, one)) == 1.0
    ignored = np.full((4, 4), metrics.IGNORE)
    assert metrics.fg_ari(metrics.joint_histogram(ignored, prediction)) == 1.0
    perfect = metrics.joint_histogram(one, 1 - one)
    assert metrics.mean_best_overlap(perfect) == metrics.mean_iou(perfect) == 1.0


def test_overlapping_instances_are_ignored_and_higher_class_wins():
    masks = np.zeros((2, 3, 3), bool)
    masks[0, :2], masks[1, 1:] = True, True
    assert metrics.instance_labels(masks).tolist() == [[1, 1, 1], [-1, -1, -1], [2, 2, 2]]
    assert metrics.class_labels(masks, np.array([9, 4])).tolist() == [[9] * 3, [9] * 3, [4] * 3]
    keep = np.array([True, False])
    assert metrics.instance_labels(masks, keep).tolist() == [[1] * 3, [1] * 3, [0] * 3]
    assert metrics.instance_labels(np.zeros((0, 3, 3), bool)).tolist() == [[0] * 3] * 3


def test_summarize_skips_images_without_objects():
    rows = [{'fg_ari': 1.0, 'mbo_i': float('nan')}, {'fg_ari': 0.0, 'mbo_i': 0.25}]
    assert metrics.summarize(rows) == {'fg_ari': 50.0, 'mbo_i': 25.0}
    with pytest.raises(ValueError, match='no images'):
        metrics.summarize([])


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match='same shape'):
        metrics.joint_histogram(np.zeros((2, 2), int), np.zeros((2, 3), int))
    with pytest.raises(ValueError, match='negative'):
        metrics.joint_histogram(np.zeros((2, 2), int), np.full((2, 2), -1))
