"""Two one-sided tests against R."""

from math import isnan, nan

import numpy as np
import pytest

from persona_studies.analyse.stats.equivalence import equivalence_correlation, equivalence_paired_proportions
from persona_studies.errors import StatisticsError
from tests import reference


@pytest.mark.parametrize("case", reference.load("correlation"), ids=lambda case: f"n={len(case['x'])}")
def test_correlation_equals_r(case: dict) -> None:
    expected = case["tost"]
    test = equivalence_correlation(case["r"], len(case["x"]), margin=expected["margin"], alpha=0.05)
    assert (test.p_lower, test.p_upper) == pytest.approx((expected["p_lower"], expected["p_upper"]), rel=1e-8)
    assert (test.low, test.high) == pytest.approx(tuple(expected["ci"]), rel=1e-9)
    assert test.p == max(test.p_lower, test.p_upper)


@pytest.mark.parametrize("case", reference.load("paired"), ids=lambda c: f"{c['b']}-{c['c']}-{c['n']}")
def test_paired_proportions_equals_r(case: dict) -> None:
    test = equivalence_paired_proportions(case["b"], case["c"], case["n"], margin=case["margin"], alpha=0.05)
    assert (test.p_lower, test.p_upper) == pytest.approx((case["p_lower"], case["p_upper"]), abs=1e-8)
    np.testing.assert_allclose([test.low, test.high], case["tango90"], atol=2e-8)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_equivalent_exactly_when_the_interval_lies_within_the_margins(alpha: float) -> None:
    verdicts = set()
    for b, c, n in ((0, 0, 20), (0, 0, 200), (12, 9, 100), (12, 9, 500), (40, 38, 80), (90, 10, 400)):
        for margin in (0.03, 0.1, 0.3):
            test = equivalence_paired_proportions(b, c, n, margin=margin, alpha=alpha)
            assert test.equivalent == (test.p <= alpha) == (-margin <= test.low and test.high <= margin)
            verdicts.add(test.equivalent)
    for r, n in ((0.0, 50), (0.05, 500), (-0.02, 3000), (0.3, 100)):
        test = equivalence_correlation(r, n, margin=0.1, alpha=alpha)
        assert test.equivalent == (test.p <= alpha) == (test.low >= -0.1 and test.high <= 0.1)
        verdicts.add(test.equivalent)
    assert verdicts == {True, False}


def test_degenerate() -> None:
    undefined = equivalence_correlation(nan, 50, margin=0.1, alpha=0.05)
    assert not undefined.equivalent and isnan(undefined.p) and undefined.reason == "undefined (no correlation)"
    assert "fewer than 4" in equivalence_correlation(0.0, 3, margin=0.1, alpha=0.05).reason
    perfect = equivalence_correlation(1.0, 50, margin=0.1, alpha=0.05)
    assert perfect.p == 1 and perfect.low == 1
    assert equivalence_paired_proportions(0, 0, 0, margin=0.1, alpha=0.05).reason == "undefined (no pairs)"
    for margin, alpha in ((0.0, 0.05), (0.1, 0.5), (1.0, 0.05), (0.1, 0.0)):
        with pytest.raises(StatisticsError):
            equivalence_correlation(0.0, 50, margin=margin, alpha=alpha)
    with pytest.raises(StatisticsError):
        equivalence_correlation(-1.1, 50, margin=0.1, alpha=0.05)
    with pytest.raises(StatisticsError):
        equivalence_paired_proportions(6, 6, 10, margin=0.1, alpha=0.05)
