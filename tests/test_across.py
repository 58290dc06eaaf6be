"""Likeness of categories whose objects share a code, on what can be counted by hand."""

import numpy as np
import pytest

from tests.across import shared, similar

ALIKE = np.zeros((4, 4))
ALIKE[1, 2] = ALIKE[2, 1] = 0.8  # categories 1 and 2 are alike, 3 is like none of them
ALIKE[1, 3] = ALIKE[3, 1] = ALIKE[2, 3] = ALIKE[3, 2] = 0.1


def test_only_objects_of_unlike_categories_count():
    codes, kinds = np.array([0, 0, 0, 1, 1]), np.array([1, 1, 2, 1, 3])
    # code 0: (1, 2) twice; code 1: (1, 3) once
    assert shared(codes, kinds, ALIKE) == pytest.approx((0.8 * 2 + 0.1) / 3)


def test_without_a_pair_there_is_nothing_to_say():
    assert np.isnan(shared(np.array([0, 1]), np.array([1, 2]), ALIKE))


def test_codes_that_join_what_is_alike_lie_above_chance_and_others_within():
    kinds = np.tile([1, 2, 3], 60)
    cells = np.repeat(np.arange(9), 20)
    found = similar(np.where(kinds == 3, 1, 0), kinds, cells, ALIKE)
    assert found['shared'] > found['high'] > found['chance'] > found['low']
    blind = np.random.default_rng(1).integers(0, 2, len(kinds))
    found = similar(blind, kinds, cells, ALIKE)
    assert found['low'] <= found['shared'] <= found['high']


def test_codes_that_name_the_place_are_at_chance_exactly():
    kinds, cells = np.tile([1, 2, 3], 60), np.repeat(np.arange(9), 20)
    found = similar(cells, kinds, cells, ALIKE)
    assert found['shared'] == pytest.approx(found['chance']) == pytest.approx(found['high'])
