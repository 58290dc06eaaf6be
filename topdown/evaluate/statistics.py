"""How sure a mean is: intervals over images, spread over seeds, and paired comparisons. Arrays in, numbers out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import optimize, stats


class Interval(NamedTuple):
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float


class Comparison(NamedTuple):
    """A against B on the same images (or seeds)."""

    difference: Interval  # mean of a - b
    p_value: float  # two-sided sign-flip permutation test of a mean difference of zero
    count: int  # pairs used


def bootstrap_interval(values: np.ndarray, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean of values and its percentile bootstrap interval (Efron 1979); NaN values (no object) are left out.

    Args:
        values: (V,), one per image.
        level: of confidence, in (0, 1).
        resamples: bootstrap samples.
        seed: of the resampling.

    Raises:
        ValueError: if ``level`` is out of range or no value is left.
    """
    values = _clean(values, level)
    mean = float(values.mean())
    if len(values) == 1 or np.all(values == values[0]):
        return Interval(mean, mean, mean)
    found = stats.bootstrap(
        (values,), np.mean, confidence_level=level, n_resamples=resamples, method='percentile',
        rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return Interval(mean, float(found.low), float(found.high))


def ratio_interval(
    hits: np.ndarray, counts: np.ndarray, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Share of hits among all items, and its percentile bootstrap interval over images.

    Images are drawn, not items: items of one image are not independent of each other.

    Args:
        hits, counts: (V,), hits and items of every image; images without items are left out.
        level, resamples, seed: as in ``bootstrap_interval``.

    Raises:
        ValueError: if lengths differ, ``level`` is out of range or no image has an item.
    """
    hits, counts = np.asarray(hits, float), np.asarray(counts, float)
    if hits.shape != counts.shape or hits.ndim != 1:
        raise ValueError(f'hits and counts must be arrays of one length, got shapes {hits.shape} and {counts.shape}')
    hits, counts = hits[counts > 0], _clean(np.where(counts > 0, counts, np.nan), level)
    mean = float(hits.sum() / counts.sum())
    if len(hits) == 1 or np.all(hits == mean * counts):
        return Interval(mean, mean, mean)
    found = stats.bootstrap(
        (hits, counts), lambda a, b, axis: a.sum(axis) / b.sum(axis), paired=True, vectorized=True,
        confidence_level=level, n_resamples=resamples, method='percentile', rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return Interval(mean, float(found.low), float(found.high))


def compare(a: np.ndarray, b: np.ndarray, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Comparison:
    """Paired comparison: values of two models on the same images, in the same order.

    Pairs with a NaN are left out. The p-value is that of a permutation test that flips the signs of differences; with
    few pairs all flips are enumerated.

    Args:
        a, b: (V,), one per image.
        level, resamples, seed: as in ``bootstrap_interval``; ``resamples`` also bounds the permutations.

    Raises:
        ValueError: if lengths differ or no pair is left.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f'a and b must be arrays of one length, got shapes {a.shape} and {b.shape}')
    difference = _clean(a - b)
    test = stats.permutation_test(
        (difference,), lambda x, axis: x.mean(axis=axis), permutation_type='samples', vectorized=True,
        n_resamples=resamples, rng=np.random.default_rng(seed),
    )  # fmt: skip
    return Comparison(bootstrap_interval(difference, level, resamples, seed), float(test.pvalue), len(difference))


def seed_interval(values: np.ndarray, level: float = 0.95) -> Interval:
    """Mean over seeds and Student's t interval of it; with one seed the interval is NaN: nothing is known of it.

    Args:
        values: (R,), one per run.
        level: of confidence, in (0, 1).

    Raises:
        ValueError: if ``level`` is out of range or no value is left.
    """
    values = _clean(values, level)
    mean = float(values.mean())
    if len(values) == 1:
        return Interval(mean, float('nan'), float('nan'))
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    return Interval(mean, mean - half, mean + half)


def prediction_interval(values: np.ndarray, count: int = 1, level: float = 0.95) -> Interval:
    """Where the mean of so many further runs is to be expected, given some runs: Student's t prediction interval.

    ::

        mean +- t_{R-1} s sqrt(1 / R + 1 / count)

    Args:
        values: (R,), one per run, five at least: fewer say too little of their own spread.
        count: further runs whose mean is meant.
        level: of confidence, in (0, 1).

    Raises:
        ValueError: if ``level`` or ``count`` is out of range or there are fewer than five values.
    """
    values = _clean(values, level)
    if len(values) < 5 or count < 1:
        raise ValueError(f'needs five runs at least and one to predict, got {len(values)} and {count}')
    mean = float(values.mean())
    width = stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1)
    half = float(width * (1 / len(values) + 1 / count) ** 0.5)
    return Interval(mean, mean - half, mean + half)


def smallest_difference(spread: float, count: int, level: float = 0.95, power: float = 0.8) -> float:
    """The smallest true difference that an interval over so many pairs would tell from zero this often.

    The interval is ``seed_interval``'s. With a true difference delta, its statistic has a non-central t distribution::

        P(t_{R-1}(delta sqrt(R) / spread) > t_{R-1, (1 + level) / 2}) = power

    Args:
        spread: standard deviation of a pair's difference. Of two models that scatter alike and have nothing to do with
            each other, it is sqrt(2) times that of one.
        count: R, pairs.
        level: of confidence, in (0, 1).
        power: share of repetitions in which the interval lies above zero, in (0, 1).

    Returns:
        In the unit of ``spread``; NaN if that is NaN, or for a single pair, which has no interval.

    Raises:
        ValueError: if ``level``, ``power``, ``count`` or ``spread`` is out of range.
    """
    if not (0 < level < 1 and 0 < power < 1 and count >= 1 and not spread < 0):
        raise ValueError(
            'level and power must lie between 0 and 1, count be 1 at least and spread not negative, got '
            f'level={level}, power={power}, count={count}, spread={spread}'
        )
    if count == 1 or np.isnan(spread):
        return float('nan')
    free, bound = count - 1, stats.t.ppf((1 + level) / 2, count - 1)
    shift = optimize.brentq(lambda shift: stats.nct.sf(bound, free, shift) - power, 0, 10 * bound)
    return float(shift * spread / count**0.5)


def _clean(values: np.ndarray, level: float = 0.95) -> np.ndarray:
    if not 0 < level < 1:
        raise ValueError(f'level must lie between 0 and 1, got {level}')
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    if not len(values):
        raise ValueError('no values: every image was without objects, or there was none')
    return values
