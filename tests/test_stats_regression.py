"""Clustered standard errors against sandwich."""

from math import nan

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy.stats import t

from persona_studies.analyse import stats
from persona_studies.errors import StatisticsError
from tests import reference

CASE = reference.load("regression")
FORMULA = "agree ~ a + length"


@pytest.fixture
def panel() -> pd.DataFrame:
    frame = pd.DataFrame(CASE["data"])
    return frame.assign(persona="persona " + frame["persona"].astype(str))


@pytest.mark.parametrize(("groups", "name"), [(["persona", "prompt"], "two_way"), (["persona"], "one_way")])
def test_equals_sandwich(panel: pd.DataFrame, groups: list[str], name: str) -> None:
    table = stats.clustered_ols(FORMULA, panel, groups=groups)
    np.testing.assert_allclose(table["estimate"], list(CASE["coefficients"].values()), rtol=1e-10)
    np.testing.assert_allclose(table["se"], list(CASE[name].values()), rtol=1e-10)
    assert (table["df"] == 14).all() and (table["n"] == 260).all()
    np.testing.assert_allclose(table["p"], 2 * t.sf(table["t"].abs(), 14), rtol=1e-10)
    np.testing.assert_allclose(table["high"] - table["estimate"], t.ppf(0.975, 14) * table["se"], rtol=1e-10)


def test_two_ways_is_cameron_gelbach_and_miller(panel: pd.DataFrame) -> None:
    both = panel["persona"] + "/" + panel["prompt"].astype(str)
    variance = {
        name: stats.clustered_ols(FORMULA, panel.assign(both=both), groups=groups)["se"] ** 2
        for name, groups in {
            "a": ["persona"],
            "b": ["prompt"],
            "ab": ["both"],
            "two": ["persona", "prompt"],
        }.items()
    }
    np.testing.assert_allclose(variance["two"], variance["a"] + variance["b"] - variance["ab"], rtol=1e-10)


def test_incomplete_rows_leave_the_clusters_too(panel: pd.DataFrame) -> None:
    gaps = panel.copy()
    gaps.loc[gaps.index[[3, 40, 41]], "agree"] = nan
    groups = ["persona", "prompt"]
    pd.testing.assert_frame_equal(
        stats.clustered_ols(FORMULA, gaps, groups=groups),
        stats.clustered_ols(FORMULA, gaps.dropna(), groups=groups),
    )


def test_a_variance_that_is_not_positive_is_named() -> None:
    # Balanced, with residuals that cancel within each persona and each prompt: nothing is left but minus.
    frame = pd.DataFrame({"persona": [0, 0, 1, 1], "prompt": [0, 1, 0, 1], "y": [1.0, -1.0, -1.0, 1.0]})
    table = stats.clustered_ols("y ~ 1", frame, groups=["persona", "prompt"])
    assert np.isnan(table["se"].iloc[0]) and "not positive" in table["reason"].iloc[0]


def test_constants_are_undefined_where_statsmodels_computes_with_rounding(panel: pd.DataFrame) -> None:
    flat = stats.clustered_ols(FORMULA, panel.assign(agree=0.3), groups=["persona"])
    assert flat["estimate"].isna().all() and (flat["reason"] == "undefined (constant)").all()
    same = stats.clustered_ols(FORMULA, panel.assign(a=2.0), groups=["persona"])
    assert same["p"].isna().all() and same["reason"].str.contains("collinear").all()
    assert same.index.tolist() == ["Intercept", "a", "length"]


def test_refused(panel: pd.DataFrame) -> None:
    with pytest.raises(StatisticsError, match="one or two"):
        stats.clustered_ols(FORMULA, panel, groups=["persona", "prompt", "a"])
    with pytest.raises(StatisticsError, match="No column topic"):
        stats.clustered_ols(FORMULA, panel, groups=["topic"])
    with pytest.raises(StatisticsError, match="Missing labels"):
        stats.clustered_ols(FORMULA, panel.assign(prompt=nan), groups=["prompt"])
    with pytest.raises(StatisticsError, match="Fewer than two"):
        stats.clustered_ols(FORMULA, panel.assign(prompt=1), groups=["prompt"])


def test_trap_statsmodels_wants_numbered_complete_clusters_and_takes_the_normal(panel: pd.DataFrame) -> None:
    named = panel.assign(prompt=panel["prompt"].astype(str))[["persona", "prompt"]].to_numpy()
    with pytest.raises(TypeError):
        smf.ols(FORMULA, panel).fit(cov_type="cluster", cov_kwds={"groups": named})
    numbered = pd.factorize(panel["persona"])[0]
    gaps = panel.copy()
    gaps.loc[gaps.index[0], "agree"] = nan
    with pytest.raises(ValueError, match="length"):
        smf.ols(FORMULA, gaps).fit(cov_type="cluster", cov_kwds={"groups": numbered})
    bare = smf.ols(FORMULA, panel).fit(cov_type="cluster", cov_kwds={"groups": numbered})
    assert not bare.use_t
    assert bare.pvalues["a"] < stats.clustered_ols(FORMULA, panel, groups=["persona"]).loc["a", "p"]
