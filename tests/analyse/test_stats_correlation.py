"""Correlations against R, and where they are undefined."""

from math import isnan, nan

import numpy as np
import pandas as pd
import pingouin as pg
import pytest

from persona_studies.analyse.stats.correlation import (
    correlation,
    d_from_r,
    minimum_detectable_correlation,
    power_correlation,
)
from persona_studies.errors import StatisticsError
from tests import reference


@pytest.mark.parametrize("case", reference.load("correlation"), ids=lambda case: f"n={len(case['x'])}")
def test_equals_r(case: dict) -> None:
    pearson = correlation(case["x"], case["y"])
    assert pearson.n == len(case["x"]) and not pearson.reason
    np.testing.assert_allclose([pearson.estimate, pearson.p], [case["r"], case["p"]], rtol=1e-9)
    np.testing.assert_allclose([pearson.low, pearson.high], case["ci"], rtol=1e-9)
    spearman = correlation(case["x"], case["y"], method="spearman")
    np.testing.assert_allclose([spearman.estimate, spearman.p], [case["rho"], case["rho_p"]], rtol=1e-9)
    np.testing.assert_allclose([spearman.low, spearman.high], case["rho_ci"], rtol=1e-9)


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_a_constant_is_undefined_also_when_rounding_makes_it_vary(method: str) -> None:
    noisy = [0.1 + 0.2, 0.3, 0.3, 0.1 + 0.2, 0.3]
    for constant in ([0.5] * 5, noisy, [0.0] * 5):
        result = correlation([1, 2, 3, 4, 5], constant, method=method)
        assert result.reason == "undefined (constant)"
        assert all(isnan(value) for value in (result.estimate, result.low, result.high, result.p))


def test_few_units_and_missing_values() -> None:
    assert correlation([1, 2], [2, 1]).reason == "undefined (fewer than 3 units)"
    three = correlation([1, 2, 4], [2, 1, 5])
    assert not isnan(three.p) and isnan(three.low) and "interval undefined" in three.reason
    x, y = [1, 2, nan, 4, 5, 7], [1, 3, 2, nan, 5, 4]
    assert correlation(x, y) == correlation([1, 2, 5, 7], [1, 3, 5, 4])
    assert correlation(x, y).n == 4


def test_a_perfect_correlation_has_a_point_as_interval() -> None:
    result = correlation([1, 2, 3, 4, 5], [-2, -4, -6, -8, -10])
    assert (result.estimate, result.low, result.high) == (-1, -1, -1)


def test_series_pair_by_unit_or_not_at_all() -> None:
    a = pd.Series([1.0, 2.0, 3.0, 5.0], index=list("wxyz"))
    with pytest.raises(StatisticsError, match="different units"):
        correlation(a, a[::-1])
    with pytest.raises(StatisticsError, match="different units"):
        correlation(a, a.iloc[:3])
    with pytest.raises(StatisticsError, match="same units"):
        correlation(a, [1.0, 2.0, 3.0])
    with pytest.raises(StatisticsError, match="infinite"):
        correlation([1, 2, 3, np.inf], a)
    with pytest.raises(StatisticsError, match="numbers"):
        correlation(["a", "b", "c", "d"], a)


def test_a_list_of_estimates_is_a_table_with_numeric_columns() -> None:
    table = pd.DataFrame([correlation([1, 2, 3, 4], [1, 3, 2, 4]), correlation([1, 2, 3], [1, 1, 1])])
    assert table["estimate"].dtype == float and table["reason"].tolist() == ["", "undefined (constant)"]


def test_trap_pingouin_rounds_intervals_even_when_told_not_to() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 40))
    exact = correlation(x, y).low
    assert pg.corr(x, y)["CI95"].iloc[0][0] == round(exact, 2) != exact
    before = pg.options["round.column.CI95"]
    try:
        pg.options["round.column.CI95"] = None
        unrounded = pg.corr(x, y)["CI95"].iloc[0][0]
    finally:
        pg.options["round.column.CI95"] = before
    assert unrounded == round(exact, 6) != exact


def test_d_from_r_is_what_splitting_bivariate_normal_data_gives() -> None:
    rng = np.random.default_rng(11)
    n = 200_000
    for r in (0.868, -0.3):
        x = rng.normal(size=n)
        y = r * x + np.sqrt(1 - r**2) * rng.normal(size=n)
        upper = x > 0
        share = upper.mean()
        within = np.sqrt(share * y[upper].var() + (1 - share) * y[~upper].var())
        simulated = (y[upper].mean() - y[~upper].mean()) / within
        assert d_from_r(r) == pytest.approx(simulated, abs=0.02)


def test_d_from_r_closed_form_and_limits() -> None:
    r = 0.868
    assert d_from_r(r) == pytest.approx(2 * r * np.sqrt(2 / np.pi) / np.sqrt(1 - 2 * r**2 / np.pi))
    assert d_from_r(1.0) == pytest.approx(np.sqrt(8 / np.pi) / np.sqrt(1 - 2 / np.pi))
    assert d_from_r(0.0) == 0 and isnan(d_from_r(nan))
    # The textbook conversion is for a variable that is itself dichotomous.
    assert 2 * r / np.sqrt(1 - r**2) > 3.4
    with pytest.raises(StatisticsError):
        d_from_r(1.2)


@pytest.mark.parametrize("case", reference.load("power"), ids=lambda case: f"n={case['n']}")
def test_power_equals_pwr(case: dict) -> None:
    smallest = minimum_detectable_correlation(case["n"], alpha=0.05, power=0.8)
    assert smallest == pytest.approx(case["mde"], abs=5e-5)  # pwr's own tolerance
    assert power_correlation(smallest, case["n"], alpha=0.05) == pytest.approx(0.8, abs=1e-6)
    assert power_correlation(0.1, case["n"], alpha=0.05) == pytest.approx(case["power"], abs=1e-10)


def test_power_at_the_edges() -> None:
    assert isnan(power_correlation(0.5, 4, alpha=0.05)) and isnan(power_correlation(nan, 50, alpha=0.05))
    assert isnan(minimum_detectable_correlation(4, alpha=0.05, power=0.8))
    assert power_correlation(-0.1, 275, alpha=0.05) == power_correlation(0.1, 275, alpha=0.05)
    assert power_correlation(1.0, 10, alpha=0.05) == 1
    with pytest.raises(StatisticsError):
        power_correlation(1.5, 10, alpha=0.05)
    with pytest.raises(StatisticsError):
        minimum_detectable_correlation(10, alpha=0.05, power=80)
