"""Paired proportions and sign flips against independent calculations in R."""

from dataclasses import astuple
from itertools import product
from math import inf, nan

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, permutation_test
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from persona_studies.analyse.stats.paired import mcnemar, sign_flip, sign_flips, tango_score
from persona_studies.errors import StatisticsError
from tests import reference

CASES = reference.load("paired")
FLIPS = reference.load("sign_flip")


def name(case: dict) -> str:
    return f"{case['b']}-{case['c']}-{case['n']}"


@pytest.mark.parametrize("case", CASES, ids=name)
def test_mcnemar_equals_r(case: dict) -> None:
    test = mcnemar(case["b"], case["c"], case["n"])
    assert test.p == pytest.approx(case["p"], rel=1e-10)
    # R maximises the likelihood numerically, to about eight digits.
    np.testing.assert_allclose([test.low, test.high], case["tango"], atol=2e-8)
    assert test.estimate == pytest.approx((case["b"] - case["c"]) / case["n"])


def test_published_values() -> None:
    # Fagerland, Lydersen and Laake (2013), airway hyper-responsiveness before and after transplantation.
    test = mcnemar(1, 7, 21)
    assert round(test.p, 4) == 0.0391
    # Fagerland, Lydersen and Laake (2014, Statistics in Medicine 33, 2850-2875), Tango's interval for it.
    assert (round(test.low, 3), round(test.high, 3)) == (-0.517, -0.026)


def test_without_discordant_pairs_there_is_no_evidence_but_an_interval() -> None:
    test = mcnemar(0, 0, 30)
    assert test.p == 1 and test.estimate == 0
    # Without discordant pairs Tango's limits are ±z²/(n + z²).
    z2 = 1.959963984540054**2
    assert (test.low, test.high) == pytest.approx((-z2 / (30 + z2), z2 / (30 + z2)))
    assert mcnemar(0, 0, 0).reason == "undefined (no pairs)"


def test_trap_the_asymptotic_test_of_statsmodels_has_p_zero_without_discordant_pairs() -> None:
    with np.errstate(divide="ignore"):
        assert statsmodels_mcnemar([[5, 0], [0, 5]], exact=False).pvalue == 0
    assert mcnemar(0, 0, 10).p == 1


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 200), st.sampled_from([0.9, 0.95, 0.99]))
@settings(max_examples=60, deadline=None)
def test_mcnemar_properties(b: int, c: int, concordant: int, confidence: float) -> None:
    n = b + c + concordant
    if n == 0:
        return
    test, turned = (
        mcnemar(b, c, n, confidence=confidence),
        mcnemar(c, b, n, confidence=confidence),
    )
    assert 0 < test.p <= 1 and test.p == turned.p
    assert test.low <= test.estimate <= test.high
    assert -1 <= test.low < test.high <= 1
    assert test.low == pytest.approx(-turned.high, abs=1e-9)
    for limit in (test.low, test.high):
        if abs(limit) < 1:
            assert abs(tango_score(b, c, n, limit)) == pytest.approx(norm.ppf((1 + confidence) / 2), rel=1e-5)


def test_impossible_counts_are_refused() -> None:
    for bad in ((-1, 2, 10), (1.5, 2, 10), (6, 5, 10), (nan, 1, 10)):
        with pytest.raises(StatisticsError):
            mcnemar(*bad)


@pytest.mark.parametrize("case", FLIPS, ids=lambda case: f"p={case['p']:.3f}")
def test_sign_flip_equals_r_over_all_patterns(case: dict) -> None:
    result = sign_flip(case["differences"], replicates=1024, seed=1)
    assert result.p == pytest.approx(case["p"], abs=1e-12) and result.n == 10
    assert result.estimate == pytest.approx(np.mean(case["differences"]))
    clustered = sign_flip(case["differences"], cluster=case["cluster"], replicates=1024, seed=1)
    assert clustered.p == pytest.approx(case["p_cluster"], abs=1e-12)
    assert clustered.n == len(set(case["cluster"])) and clustered.estimate == result.estimate


@given(st.lists(st.floats(-1, 1).map(lambda v: round(v, 2)), min_size=2, max_size=8))
@settings(max_examples=40, deadline=None)
def test_sign_flip_is_symmetric_and_exact(differences: list[float]) -> None:
    d = np.array(differences)
    result = sign_flip(d, replicates=256, seed=1)
    assert result.p == sign_flip(-d, replicates=256, seed=2).p
    assert result.p == sign_flip(d[::-1], replicates=256, seed=3).p
    assert result.p == sign_flip(100 * d, replicates=256, seed=1).p
    patterns = np.array(list(product([-1, 1], repeat=len(d))))
    cents = np.rint(100 * d).astype(int)
    assert result.p == np.mean(np.abs(patterns @ cents) >= abs(cents.sum()))


def test_sign_flip_by_monte_carlo_is_close_repeats_and_is_never_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    d = np.random.default_rng(1).normal(0.3, 1, size=36)
    exact = sign_flip(d, replicates=4000, seed=1)
    monkeypatch.setattr("persona_studies.analyse.stats.paired.MOST_EXACT", 35)
    drawn = sign_flip(d, replicates=4000, seed=1)
    assert drawn.p == pytest.approx(exact.p, abs=4 * np.sqrt(exact.p / 4000)) and drawn.p != exact.p
    assert astuple(drawn) == astuple(sign_flip(d, replicates=4000, seed=1))
    assert sign_flip(np.ones(100), replicates=99, seed=1).p == 1 / 100


@pytest.mark.parametrize("n", [1, 2, 5, 20, 36])
def test_sign_flip_of_equal_differences_is_the_sign_test(n: int) -> None:
    positive = -(-2 * n // 3)
    p = sign_flip([0.1] * positive + [-0.1] * (n - positive), replicates=1, seed=1).p
    assert p == pytest.approx(binomtest(positive, n).pvalue, rel=1e-12)


def drawn_family(units: int = 60) -> tuple[pd.DataFrame, list[int]]:
    rng = np.random.default_rng(3)
    family = pd.DataFrame(rng.normal(0.1, 1, size=(units, 4)), columns=list("abcd"))
    family.loc[family.index[::7], "b"] = nan
    family.loc[family.index[12:], "c"] = nan  # few enough for all patterns
    return family, (np.arange(units) // 2).tolist()


@pytest.mark.parametrize("clustered", [False, True])
def test_sign_flips_of_a_family_are_those_of_each_hypothesis_alone(clustered: bool) -> None:
    family, pairs = drawn_family(100)
    cluster = pairs if clustered else None
    whole = sign_flips(family, cluster=cluster, replicates=5000, seed=2)
    pd.testing.assert_frame_equal(
        sign_flips(family[["d", "b", "a"]], cluster=cluster, replicates=5000, seed=2),
        whole.loc[["d", "b", "a"]],
    )
    for name, row in whole.iterrows():
        alone = sign_flip(family[name], cluster=cluster, replicates=5000, seed=2)
        assert astuple(alone)[:1] + astuple(alone)[3:] == (row["estimate"], *row.iloc[3:])
    assert whole["n"].tolist() == ([50, 50, 6, 50] if clustered else [100, 85, 12, 100])


def test_sign_flips_do_not_depend_on_how_many_patterns_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    family, _ = drawn_family()
    whole = sign_flips(family, replicates=1000, seed=2)
    monkeypatch.setattr("persona_studies.analyse.stats.resampling._CHUNK", 1000)
    pd.testing.assert_frame_equal(sign_flips(family, replicates=1000, seed=2), whole)


def test_sign_flips_agree_with_scipy() -> None:
    family, _ = drawn_family()
    ours = sign_flips(family[["a", "d"]], replicates=40_000, seed=1)["p"]
    for name, p in ours.items():
        theirs = permutation_test(
            (family[name],), np.mean, permutation_type="samples", vectorized=True, n_resamples=40_000, rng=1
        ).pvalue
        assert p == pytest.approx(theirs, abs=4 * np.sqrt(2 * p / 40_000))


def test_sign_flips_find_a_planted_effect_and_reject_a_null_at_their_level() -> None:
    rng = np.random.default_rng(5)
    families = pd.DataFrame(rng.standard_t(3, size=(40, 1000)))
    null = sign_flips(families, replicates=1999, seed=1)["p"]
    # Binomial(1000, 0.05) lies between 29 and 73 but once in a thousand times.
    assert 29 <= (null <= 0.05).sum() <= 73
    assert (sign_flips(families + 2, replicates=1999, seed=1)["p"] <= 0.05).mean() > 0.95


def test_sign_flips_refuse_labels_of_other_units() -> None:
    family, pairs = drawn_family()
    with pytest.raises(StatisticsError, match="indexed by different units"):
        sign_flips(family, cluster=pd.Series(pairs, index=family.index[::-1]), replicates=10, seed=1)
    with pytest.raises(StatisticsError, match="differences of b holds infinite"):
        sign_flips(family.replace({"b": {nan: inf}}), replicates=10, seed=1)
    assert sign_flips(family[[]], replicates=10, seed=1).empty


def test_sign_flip_on_thin_data() -> None:
    assert sign_flip([0.5], replicates=10, seed=1).p == 1
    assert sign_flip([0.0, 0.0, 0.0], replicates=10, seed=1).p == 1
    assert sign_flip([1.0, 2.0], cluster=["a", "a"], replicates=10, seed=1).p == 1
    assert sign_flip([nan], replicates=10, seed=1).reason == "undefined (no differences)"
    assert sign_flip([1.0, nan, 2.0], replicates=10, seed=1).n == 2
    with pytest.raises(StatisticsError, match="one cluster per unit"):
        sign_flip([1.0, 2.0], cluster=["a"], replicates=10, seed=1)
    with pytest.raises(StatisticsError, match="replicates"):
        sign_flip([1.0, 2.0], replicates=0, seed=1)
