"""The package against its oracles over random shapes; the published table is within its own limits."""

from pathlib import Path

import pandas as pd
import pytest

from tests import masking
from tests.deviations import LIMITS, metrics_trial, model_trial

TABLES = Path(__file__).parent.parent / 'figures' / 'tables'


@pytest.mark.parametrize('seed', range(8))
def test_ten_optimiser_steps_equal_the_naive_model(seed):
    for name, value in model_trial(seed).items():
        assert value <= LIMITS[name], name


@pytest.mark.parametrize('seed', range(20))
def test_metrics_equal_their_oracles(seed):
    for name, value in metrics_trial(seed).items():
        assert value <= LIMITS[name], name


def test_published_deviations_are_within_the_limits():
    table = pd.read_csv(TABLES / 'deviations.csv')
    assert dict(zip(table.quantity, table.allowed.astype(float), strict=True)) == LIMITS
    assert (table['largest deviation'].astype(float) <= table.allowed.astype(float)).all()


def test_published_effect_of_the_place_of_the_mask_token_is_measured_again():
    table = pd.read_csv(TABLES / 'masking.csv', index_col=['masked, percent', 'seed'])
    for name, value in masking.compare(0, 0.1).items():
        assert value == pytest.approx(table[name][10, 0], rel=0.01, abs=0.06), name
