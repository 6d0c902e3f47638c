"""Two one-sided tests against R."""

from math import isnan, nan

import pytest

from persona_studies.analyse.stats.equivalence import equivalence_correlation, equivalence_paired_proportions
from persona_studies.analyse.stats.paired import tango_interval
from persona_studies.errors import StatisticsError
from tests import reference


@pytest.mark.parametrize("case", reference.load("correlation"), ids=lambda case: f"n={len(case['x'])}")
def test_correlation_equals_r(case: dict) -> None:
    expected = case["tost"]
    p = equivalence_correlation(case["r"], len(case["x"]), margin=expected["margin"])
    assert p == pytest.approx(max(expected["p_lower"], expected["p_upper"]), rel=1e-8)


@pytest.mark.parametrize("case", reference.load("paired"), ids=lambda c: f"{c['b']}-{c['c']}-{c['n']}")
def test_paired_proportions_equals_r(case: dict) -> None:
    b, c, n = case["b"], case["c"], case["n"]
    found = equivalence_paired_proportions(b, c, n, margin=case["margin"])
    assert found == pytest.approx((case["p_lower"], case["p_upper"]), abs=1e-8)
    assert tango_interval(b, c, n, confidence=0.9) == pytest.approx(tuple(case["tango90"]), abs=2e-8)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_equivalent_exactly_when_the_interval_lies_within_the_margins(alpha: float) -> None:
    verdicts = set()
    for b, c, n in ((0, 0, 20), (0, 0, 200), (12, 9, 100), (12, 9, 500), (40, 38, 80), (90, 10, 400)):
        low, high = tango_interval(b, c, n, confidence=1 - 2 * alpha)
        for margin in (0.03, 0.1, 0.3):
            within = -margin <= low and high <= margin
            assert (max(equivalence_paired_proportions(b, c, n, margin=margin)) <= alpha) == within
            verdicts.add(within)
    assert verdicts == {True, False}


def test_degenerate() -> None:
    assert isnan(equivalence_correlation(nan, 50, margin=0.1)) and isnan(equivalence_correlation(0, 3, margin=0.1))
    assert equivalence_correlation(1.0, 50, margin=0.1) == 1 == equivalence_correlation(-1.0, 50, margin=0.1)
    assert all(map(isnan, equivalence_paired_proportions(0, 0, 0, margin=0.1)))
    for r, margin in ((0.0, 0.0), (0.0, 1.0), (-1.1, 0.1)):
        with pytest.raises(StatisticsError):
            equivalence_correlation(r, 50, margin=margin)
    with pytest.raises(StatisticsError):
        equivalence_paired_proportions(6, 6, 10, margin=0.1)
