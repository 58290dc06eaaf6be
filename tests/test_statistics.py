"""Intervals and paired tests: against closed forms, and where they must not be fooled."""

import math

import numpy as np
import pytest
from scipy import stats

from topdown.evaluate.statistics import (
    bootstrap_interval,
    compare,
    ratio_interval,
    seed_interval,
    smallest_difference,
)


def test_bootstrap_agrees_with_the_normal_interval_for_many_values():
    values = np.random.default_rng(0).normal(3, 2, 4000)
    found = bootstrap_interval(values)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.15 * half)
    assert bootstrap_interval(values) == found  # seeded


def test_images_without_objects_are_left_out():
    assert bootstrap_interval([0.5, math.nan, 0.5]) == (0.5, 0.5, 0.5)
    assert compare([1.0, math.nan, 3.0, 2.0], [0.0, 1.0, 2.0, 1.0]).count == 3


def test_pairing_finds_what_unpaired_means_hide():
    rng = np.random.default_rng(1)
    hard = rng.uniform(0, 1, 200)  # images differ far more than models do
    a, b = hard + 0.01 + 0.005 * rng.normal(size=200), hard
    found = compare(a, b)
    assert found.difference.low > 0
    assert found.p_value < 0.01
    assert stats.ttest_ind(a, b).pvalue > 0.3
    assert compare(b, a).difference.mean == pytest.approx(-found.difference.mean)


def test_no_difference_is_not_found():
    rng = np.random.default_rng(2)
    pvalues = [compare(*rng.normal(size=(2, 30)), resamples=400).p_value for _ in range(60)]
    assert np.mean(np.array(pvalues) < 0.05) < 0.17


def test_five_pairs_can_be_no_surer_than_their_flips():
    assert compare(np.arange(1.0, 6.0), np.zeros(5)).p_value == pytest.approx(2 / 2**5)


def test_seed_interval_is_students():
    values = np.array([1.0, 2.0, 4.0])
    found = seed_interval(values)
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert found == pytest.approx((values.mean(), low, high))
    assert math.isnan(seed_interval([1.0]).low)


@pytest.mark.parametrize('function', [bootstrap_interval, seed_interval])
def test_bad_input_is_refused(function):
    with pytest.raises(ValueError, match='no values'):
        function([math.nan])
    with pytest.raises(ValueError, match='level'):
        function([1.0, 2.0], level=1.0)
    with pytest.raises(ValueError, match='one length'):
        compare([1.0], [1.0, 2.0])


def test_shares_count_items_and_draw_images():
    hits, counts = np.array([0, 9, 1]), np.array([1, 9, 0])
    hits[2] = 0  # an image without items
    found = ratio_interval(hits, counts)
    assert found.mean == 0.9  # of items, not of images
    assert (found.low, found.high) == (0.0, 1.0)  # of two images one may be drawn twice
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 5, 3000)
    found = ratio_interval(rng.binomial(counts, 0.3), counts)
    half = 1.96 * math.sqrt(0.3 * 0.7 / counts.sum())  # items of an image independent: the interval of a plain share
    assert found.high - found.low == pytest.approx(2 * half, rel=0.15)
    assert ratio_interval([2, 4], [2, 4]) == (1, 1, 1)
    with pytest.raises(ValueError, match='one length'):
        ratio_interval([1], [1, 2])
    with pytest.raises(ValueError, match='no values'):
        ratio_interval([0], [0])


@pytest.mark.parametrize(('count', 'power'), [(3, 0.8), (5, 0.8), (5, 0.5), (20, 0.9)])
def test_the_smallest_difference_is_seen_as_often_as_asked(count, power):
    delta = smallest_difference(2.0, count, power=power)
    drawn = np.random.default_rng(0).normal(delta, 2.0, (4000, count))
    seen = np.mean([seed_interval(values).low > 0 for values in drawn])
    assert seen == pytest.approx(power, abs=4 * (power * (1 - power) / len(drawn)) ** 0.5)


def test_more_pairs_and_less_spread_show_smaller_differences():
    assert smallest_difference(1.0, 5) < smallest_difference(1.0, 3)
    assert smallest_difference(2.0, 5) == pytest.approx(2 * smallest_difference(1.0, 5))
    assert math.isnan(smallest_difference(1.0, 1))
    for wrong in ({'count': 0}, {'spread': -1.0}, {'power': 1.0}, {'level': 0.0}):
        with pytest.raises(ValueError, match='level and power'):
            smallest_difference(**{'spread': 1.0, 'count': 5, **wrong})
