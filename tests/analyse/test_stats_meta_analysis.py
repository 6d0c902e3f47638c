"""Random effects against metafor."""

from math import isnan, nan

import numpy as np
import pytest

from persona_studies.analyse.stats.meta_analysis import random_effects, random_effects_correlation
from persona_studies.errors import StatisticsError
from tests import reference

CASES = reference.load("meta_analysis")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"k={len(case['effects'])}")
def test_equals_metafor(case: dict) -> None:
    expected = case["pm_hksj"]
    pooled = random_effects(case["effects"], case["variances"])
    for name in ("estimate", "se", "low", "high", "p", "tau2", "q", "q_p", "i2"):
        assert getattr(pooled, name) == pytest.approx(expected[name], rel=1e-8, abs=1e-10), name
    prediction = [nan if limit is None else limit for limit in expected["prediction"]]
    np.testing.assert_allclose([pooled.prediction_low, pooled.prediction_high], prediction, rtol=1e-8)
    assert pooled.k == len(case["effects"])


def test_correlations_are_combined_as_fishers_z() -> None:
    r, n = np.array([0.2, 0.5, 0.35, 0.8]), np.array([55, 275, 120, 275])
    z = random_effects(np.arctanh(r), 1 / (n - 3))
    pooled = random_effects_correlation(r, n)
    assert pooled.tau2 == z.tau2 and pooled.p == z.p and pooled.se == z.se
    assert (pooled.low, pooled.prediction_high) == pytest.approx((np.tanh(z.low), np.tanh(z.prediction_high)))


def test_an_undefined_effect_is_left_out_and_said_so() -> None:
    pooled = random_effects_correlation([0.2, nan, 0.4, 0.3], [55, 55, 55, 55])
    assert pooled.k == 3 and pooled.reason == "1 of 4 effects undefined, left out"
    assert pooled.estimate == random_effects_correlation([0.2, 0.4, 0.3], [55, 55, 55]).estimate


def test_too_few_effects() -> None:
    none = random_effects([nan], [0.1])
    assert isnan(none.estimate) and none.reason.startswith("undefined (no effect)")
    one = random_effects([0.3], [0.01])
    assert (one.estimate, one.low) == pytest.approx((0.3, 0.3 - 1.959964 * 0.1)) and isnan(one.tau2)
    two = random_effects([0.3, 0.5], [0.01, 0.01])
    assert isnan(two.prediction_low) and "2 effects" in two.reason and not isnan(two.low)


def test_identical_effects_give_no_hksj_interval() -> None:
    same = random_effects([0.3, 0.3, 0.3], [0.01, 0.02, 0.03])
    assert same.tau2 == 0 and same.i2 == 0 and isnan(same.low) and isnan(same.p) and "identical" in same.reason


def test_refused() -> None:
    with pytest.raises(StatisticsError, match="positive"):
        random_effects([0.1, 0.2], [0.1, 0.0])
    with pytest.raises(StatisticsError, match="positive"):
        random_effects([0.1, 0.2], [0.1, nan])
    with pytest.raises(StatisticsError, match="2 effects but 1"):
        random_effects([0.1, 0.2], [0.1])
    with pytest.raises(StatisticsError, match="at least 4"):
        random_effects_correlation([0.1, 0.2], [10, 3])
    assert "exactly 1" in random_effects_correlation([0.1, 1.0], [10, 10]).reason
