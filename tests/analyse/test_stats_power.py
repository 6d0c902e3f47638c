"""Power and sizes, against integration and values of R."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from persona_studies.analyse.stats.power import (
    minimum_detectable_mean,
    p_of_more,
    power_mean,
    power_share,
    units_needed,
)
from persona_studies.errors import StatisticsError
from tests import reference


def integrated(shift: float, df: float, alpha: float) -> float:
    """The definition: a normal over the square root of a chi square over its degrees of freedom."""
    edge = stats.t.isf(alpha / 2, df)

    def density(s: float) -> float:
        beyond = (math.erfc((edge * s - shift) / math.sqrt(2)) + math.erfc((edge * s + shift) / math.sqrt(2))) / 2
        x = s * math.sqrt(df)
        chi = (1 - df / 2) * math.log(2) + (df - 1) * math.log(x) - x**2 / 2 - math.lgamma(df / 2)
        return beyond * math.exp(chi) * math.sqrt(df)

    return float(integrate.quad(density, 0, np.inf, limit=200)[0])


@pytest.mark.parametrize("df", [3, 23, 69, 300, 2000])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 34])
def test_power_is_the_integral_without_holes(df: int, alpha: float) -> None:
    shifts = np.linspace(0, 14, 15)
    found = [power_mean(shift, 1.0, df, alpha=alpha) for shift in shifts]
    assert found == pytest.approx([integrated(shift, df, alpha) for shift in shifts], abs=1e-7)
    assert np.all(np.diff(found) > -1e-9) and found[0] == pytest.approx(alpha)


@pytest.mark.parametrize("case", reference.load("power_mean"))
def test_power_and_units_against_r(case: dict[str, float]) -> None:
    n, delta, alpha = int(case["n"]), case["delta"], case["alpha"]
    assert power_mean(delta, 1 / math.sqrt(n), n - 1, alpha=alpha) == pytest.approx(case["power"], abs=1e-8)
    assert units_needed(delta, 1.0, alpha=alpha) == math.ceil(case["needed"])


@pytest.mark.parametrize(("n", "delta", "alpha"), [(25, 0.5, 0.05), (10, 1.0, 0.01), (100, 0.3, 0.05 / 34)])
def test_what_can_be_detected_inverts_power(n: int, delta: float, alpha: float) -> None:
    reached = power_mean(delta, 1 / math.sqrt(n), n - 1, alpha=alpha)
    assert minimum_detectable_mean(1 / math.sqrt(n), n - 1, alpha=alpha, power=reached) == pytest.approx(delta)


def test_without_limit_of_degrees_of_freedom_it_is_the_normal() -> None:
    assert power_mean(2.8, 1.0, math.inf, alpha=0.05) == pytest.approx(
        power_mean(2.8, 1.0, 1e7, alpha=0.05), abs=1e-6
    )


def test_power_is_that_of_simulated_tests() -> None:
    draws = np.random.default_rng(1).normal(0.5, 1.0, size=(20000, 25))
    p = stats.ttest_1samp(draws, 0.0, axis=1).pvalue
    assert np.mean(p <= 0.05) == pytest.approx(power_mean(0.5, 0.2, 24, alpha=0.05), abs=0.01)


@pytest.mark.parametrize(
    ("effect", "se", "df", "expected"),
    [(math.nan, 1, 9, math.nan), (1, math.nan, 9, math.nan), (1, 1, 0, math.nan), (1, 0, 9, 1.0), (0, 0, 9, 0.05)],
)
def test_degenerate_designs(effect: float, se: float, df: float, expected: float) -> None:
    assert power_mean(effect, se, df, alpha=0.05) == pytest.approx(expected, nan_ok=True)


def test_impossible_values_are_refused() -> None:
    with pytest.raises(StatisticsError, match="alpha"):
        power_mean(1, 1, 9, alpha=5)
    with pytest.raises(StatisticsError, match=r"cannot be negative, as -1"):
        power_mean(1, -1, 9, alpha=0.05)
    with pytest.raises(StatisticsError, match=r"A power of 0.04 is not above alpha"):
        minimum_detectable_mean(1, 9, alpha=0.05, power=0.04)


@pytest.mark.parametrize(("n", "null", "effect"), [(16, 0.5, 0.3), (28, 0.5, -0.3), (23, 0.25, 0.2)])
def test_power_of_a_share_is_that_of_the_exact_test(n: int, null: float, effect: float) -> None:
    rejected = [k for k in range(n + 1) if stats.binomtest(k, n, null).pvalue <= 0.05 / 3]
    exact = sum(math.comb(n, k) * (null + effect) ** k * (1 - null - effect) ** (n - k) for k in rejected)
    assert power_share(effect, n, null=null, alpha=0.05 / 3) == pytest.approx(exact)


def test_p_of_more_units_is_that_of_the_same_mean_and_spread() -> None:
    for mean in (0.05, 0.2, 0.4):
        few, many = (2 * stats.norm.sf(mean * n**0.5) for n in (20, 90))
        assert p_of_more(few, 90 / 20) == pytest.approx(many)
        # Whether it is smaller than .3: it is the more likely said so of a small one, the less of a large one.
        few, many = (stats.norm.sf((0.3 - mean) * n**0.5) for n in (20, 90))
        assert p_of_more(few, 90 / 20, sides=1) == pytest.approx(many)
