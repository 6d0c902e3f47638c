"""Correction over a declared family."""

import numpy as np
import pandas as pd
import pingouin as pg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from persona_studies.analyse.stats.multiplicity import Correction, correct
from persona_studies.errors import StatisticsError
from tests import reference

p_values = st.lists(
    st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, 0.05, 0.025, 0.01])), min_size=1, max_size=25
)


def family(values: list[float]) -> pd.Series:
    return pd.Series(values, index=[f"h{i}" for i in range(len(values))], dtype=float)


def holm_by_definition(values: np.ndarray) -> np.ndarray:
    """Largest, over the p-values not above p, of p times the number of hypotheses not yet rejected."""
    order = np.argsort(values, kind="stable")
    adjusted = np.empty(len(values))
    running = 0.0
    for rank, position in enumerate(order):
        running = max(running, min(1.0, (len(values) - rank) * values[position]))
        adjusted[position] = running
    return adjusted


@pytest.mark.parametrize("method", ["holm", "bonferroni", "fdr_bh"])
def test_equals_r_p_adjust(method: Correction) -> None:
    for case in reference.load("multiplicity"):
        table = correct(family(case["p"]), size=len(case["p"]), alpha=0.05, method=method)
        np.testing.assert_allclose(table["p_adjusted"], case[method], rtol=0, atol=1e-14)


def test_none_leaves_p_alone_and_rejects_at_the_boundary() -> None:
    table = correct(family([0.05, 0.0500001]), size=2, alpha=0.05, method="none")
    assert table["p_adjusted"].tolist() == [0.05, 0.0500001]
    assert table["rejected"].tolist() == [True, False]


@given(p_values, st.floats(0.001, 0.5))
@settings(max_examples=60, deadline=None)
def test_holm_properties(values: list[float], alpha: float) -> None:
    p = family(values)
    table = correct(p, size=len(p), alpha=alpha)
    np.testing.assert_allclose(table["p_adjusted"], holm_by_definition(p.to_numpy()), rtol=1e-12)
    assert (table["p_adjusted"] >= p).all() and (table["p_adjusted"] <= 1).all()
    assert (table["rejected"] == (table["p_adjusted"] <= alpha)).all()
    assert table.assign(p=p).sort_values(["p", "p_adjusted"])["p_adjusted"].is_monotonic_increasing
    backwards = correct(p[::-1], size=len(p), alpha=alpha)
    pd.testing.assert_frame_equal(backwards.loc[p.index], table)
    bonferroni = correct(p, size=len(p), alpha=alpha, method="bonferroni")
    assert (bonferroni["p_adjusted"] >= table["p_adjusted"] - 1e-15).all()


def test_an_undefined_test_takes_its_place_in_the_family() -> None:
    p = family([0.01, 0.02, np.nan])
    table = correct(p, size=3, alpha=0.05, undefined="one")
    np.testing.assert_allclose(table["p_adjusted"], [0.03, 0.04, 1.0])
    assert table["rejected"].tolist() == [True, True, False]
    with pytest.raises(StatisticsError, match="No p-value for h2"):
        correct(p, size=3, alpha=0.05)


@pytest.mark.parametrize("undefined", ["one", "error"])
@pytest.mark.parametrize("value", [-0.001, 1.001, np.inf, -np.inf])
def test_p_outside_the_unit_interval_is_always_an_error(value: float, undefined: str) -> None:
    with pytest.raises(StatisticsError, match="outside"):
        correct(family([0.1, value]), size=2, alpha=0.05, undefined=undefined)


def test_a_family_is_complete_or_refused() -> None:
    with pytest.raises(StatisticsError, match=r"declared with 13 hypotheses, 2 p-values"):
        correct(family([0.1, 0.2]), size=13, alpha=0.05)
    with pytest.raises(StatisticsError, match="more than once: a"):
        correct(pd.Series([0.1, 0.2], index=["a", "a"]), size=2, alpha=0.05)
    with pytest.raises(StatisticsError, match="alpha"):
        correct(family([0.1]), size=1, alpha=1.0)
    with pytest.raises(StatisticsError, match="numbers"):
        correct(pd.Series(["small"]), size=1, alpha=0.05)
    with pytest.raises(StatisticsError, match="at least one"):
        correct(family([]), size=0, alpha=0.05)


def test_trap_the_default_of_statsmodels_is_holm_sidak() -> None:
    p = [0.01, 0.02, 0.03]
    assert multipletests(p)[1][0] < 0.03 == pytest.approx(multipletests(p, method="holm")[1][0])
    assert correct(family(p), size=3, alpha=0.05)["p_adjusted"].iloc[0] == pytest.approx(0.03)


def test_trap_libraries_disagree_on_nan_and_on_the_boundary() -> None:
    # NaN: statsmodels counts it in the family, pingouin does not, neither says so.
    p = [0.01, 0.02, 0.03, np.nan]
    assert multipletests(p, method="holm")[1][0] == pytest.approx(0.04)
    assert pg.multicomp(p, method="holm")[1][0] == pytest.approx(0.03)
    assert correct(family(p), size=4, alpha=0.05, undefined="one")["p_adjusted"].iloc[0] == pytest.approx(0.04)
    # p = alpha: statsmodels rejects, pingouin does not.
    assert multipletests([0.05], method="holm")[0][0]
    assert not pg.multicomp([0.05], method="holm")[0][0]
    assert correct(family([0.05]), size=1, alpha=0.05)["rejected"].iloc[0]
    # Impossible p-values go through statsmodels without a word.
    assert multipletests([0.01, 1.7, -0.2], method="holm")[1][2] < 0
