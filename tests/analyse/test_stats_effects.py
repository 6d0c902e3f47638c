"""Hedges' g against effectsize."""

from math import isnan

import numpy as np
import pingouin as pg
import pytest

from persona_studies.analyse.stats.effects import hedges_g
from persona_studies.errors import StatisticsError
from tests import reference


@pytest.mark.parametrize("case", reference.load("hedges_g"), ids=lambda case: f"g={case['g']:.2f}")
def test_equals_r(case: dict) -> None:
    g = hedges_g(case["x"], case["y"])
    assert g.estimate == pytest.approx(case["g"], rel=1e-9)
    assert g.p == pytest.approx(case["p"], rel=1e-8)
    # effectsize finds the limits by minimisation, to about six digits.
    np.testing.assert_allclose([g.low, g.high], [case["low"], case["high"]], atol=2e-6)


def test_turning_the_groups_around_turns_the_sign() -> None:
    x, y = [5.0, 6, 7, 8, 9], [3.0, 4, 4, 5, 6]
    g, turned = hedges_g(x, y), hedges_g(y, x)
    assert (turned.estimate, turned.low, turned.high) == pytest.approx((-g.estimate, -g.high, -g.low))


def test_effects_far_from_zero_have_intervals() -> None:
    rng = np.random.default_rng(2)
    for n, shift in ((5, 40.0), (138, 25.0), (2500, 3.0)):
        g = hedges_g(rng.normal(shift, size=n), rng.normal(size=n), confidence=0.99)
        assert g.low < g.estimate < g.high and g.low > 0


def test_undefined() -> None:
    constant = hedges_g([0.1 + 0.2, 0.3, 0.3], [0.3, 0.3])
    assert isnan(constant.estimate) and constant.reason == "undefined (constant)"
    assert "fewer than 2" in hedges_g([1.0], [2.0, 3.0]).reason
    assert hedges_g([1.0, 2.0, np.nan], [2.0, 3.0]).n == 4
    with pytest.raises(StatisticsError):
        hedges_g([1.0, np.inf], [2.0, 3.0])


def test_trap_pingouin_takes_the_approximate_correction_and_rounds() -> None:
    x, y = [5.0, 6, 7], [3.0, 4, 6]
    exact = hedges_g(x, y).estimate
    assert pg.compute_effsize(x, y, eftype="hedges") != pytest.approx(exact, rel=1e-3)
    interval = pg.compute_esci(exact, 3, 3, eftype="hedges")
    assert (interval == interval.round(2)).all()
