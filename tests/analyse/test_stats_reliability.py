"""Reliability against psych."""

from math import isnan, nan

import numpy as np
import pandas as pd
import pingouin as pg
import pytest

from persona_studies.analyse.stats.reliability import omega, spearman_brown, split_half
from persona_studies.errors import StatisticsError
from tests import reference

CASES = reference.load("reliability")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"items={len(case['loadings'])}")
def test_omega_equals_psych(case: dict) -> None:
    result = omega(case["items"])
    assert result.estimate == pytest.approx(case["omega"], abs=2e-6)
    # psych::omega divides by the observed instead of the fitted variance of the sum.
    assert result.estimate == pytest.approx(case["omega_psych"], abs=6e-3)
    assert result.n == len(case["items"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"items={len(case['loadings'])}")
def test_alpha_of_pingouin_equals_psych(case: dict) -> None:
    assert pg.cronbach_alpha(pd.DataFrame(case["items"]))[0] == pytest.approx(case["alpha"], abs=1e-10)


def test_omega_is_undefined_with_a_reason() -> None:
    rng = np.random.default_rng(0)
    items = pd.DataFrame(rng.normal(size=(50, 1)) + rng.normal(size=(50, 4)), columns=list("abcd"))
    assert omega(items[["a", "b"]]).reason == "undefined (fewer than 3 items)"
    assert omega(items.assign(b=2.0)).reason == "undefined (constant: b)"
    assert omega(items.head(4)).reason == "undefined (4 units for 4 items)"
    heywood = pd.DataFrame({"a": items["a"], "b": items["a"], "c": items["a"] + 3 * items["c"]})
    assert omega(heywood).reason == "undefined (Heywood case)"
    incomplete = items.copy()
    incomplete.iloc[3, 1] = nan
    assert omega(incomplete) == omega(items.drop(index=3))
    with pytest.raises(StatisticsError):
        omega([1.0, 2.0])


def test_spearman_brown() -> None:
    assert spearman_brown(0.5) == pytest.approx(2 / 3)
    assert spearman_brown(-0.5) == pytest.approx(-2 / 3)
    assert spearman_brown(1) == 1 and spearman_brown(0) == 0 and isnan(spearman_brown(nan))
    with pytest.raises(StatisticsError):
        spearman_brown(1.1)


def test_split_half_recovers_the_reliability_of_parallel_columns() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(size=(4000, 1)) + 2 * rng.normal(size=(4000, 20))
    result = split_half(values, replicates=100, seed=1)
    assert result.estimate == pytest.approx(20 / 24, abs=0.02)
    assert result == split_half(values, replicates=100, seed=1)
    with_gaps = np.where(rng.random(values.shape) < 0.1, nan, values)
    assert split_half(with_gaps, replicates=100, seed=1).estimate == pytest.approx(18 / 22, abs=0.03)


def test_split_half_equals_a_loop_over_its_splits() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=(30, 1)) + rng.normal(size=(30, 7))
    order = np.random.default_rng(9).permuted(np.broadcast_to(np.arange(7), (50, 7)), axis=1)
    loop = [
        spearman_brown(np.corrcoef(values[:, o < 3].mean(axis=1), values[:, o >= 3].mean(axis=1))[0, 1])
        for o in order
    ]
    assert split_half(values, replicates=50, seed=9).estimate == pytest.approx(np.mean(loop), rel=1e-12)


def test_split_half_keeps_clusters_of_columns_together() -> None:
    rng = np.random.default_rng(6)
    pairs = np.repeat(rng.normal(size=(500, 4)), 2, axis=1)
    apart = split_half(pairs, replicates=200, seed=1).estimate
    together = split_half(pairs, column_cluster=[0, 0, 1, 1, 2, 2, 3, 3], replicates=200, seed=1).estimate
    assert apart > 0.5 > 0.15 > abs(together)


def test_split_half_is_undefined_with_a_reason() -> None:
    assert "constant" in split_half(np.ones((5, 4)), replicates=10, seed=1).reason
    assert "fewer than" in split_half(np.ones((2, 4)), replicates=10, seed=1).reason
    sparse = np.arange(20.0).reshape(5, 4)
    sparse[0, 1:] = nan
    assert "no cell" in split_half(sparse, replicates=10, seed=1).reason
