"""Agreement against vcd, published worked examples, statsmodels, and loops over what a bootstrap draws."""

from math import isnan, nan

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from statsmodels.stats.inter_rater import cohens_kappa

from persona_studies.analyse import gates
from persona_studies.analyse.stats.agreement import cohen_kappa, gwet_ac, krippendorff_alpha, raw_agreement
from persona_studies.analyse.stats.estimate import Estimate
from persona_studies.errors import StatisticsError
from tests import reference

CASES = reference.load("agreement")
SCALE = range(5)
HOW = {"replicates": 50, "seed": 1}

# Krippendorff (2011), "Computing Krippendorff's alpha-reliability", example C; in Gwet (2014) and irrCAC the same
# data are called cac.raw4raters.
FOUR_OBSERVERS = [
    [1, 1, nan, 1],
    [2, 2, 3, 2],
    [3, 3, 3, 3],
    [3, 3, 3, 3],
    [2, 2, 2, 2],
    [1, 2, 3, 4],
    [4, 4, 4, 4],
    [1, 1, 2, 1],
    [2, 2, 2, 2],
    [nan, 5, 5, 5],
    [nan, nan, 1, 1],
    [nan, nan, 3, nan],
]
# Krippendorff (2011), example A, two observers; Gwet's cont3x3abstractors as a table (irrCAC, overview).
BINARY = np.array([[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]]).T
ABSTRACTORS = [[13, 0, 0], [0, 20, 7], [0, 4, 56]]


def ratings(case: dict) -> np.ndarray:
    return np.array(case["ratings"], dtype=float)


def units(table: list[list[int]]) -> np.ndarray:
    """Return one row per unit of a contingency table."""
    return np.array([[a, b] for a, row in enumerate(table) for b, n in enumerate(row) for _ in range(n)])


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{np.shape(case['ratings'])}")
def test_equals_r(case: dict) -> None:
    x = ratings(case)
    for weights in ("identity", "linear", "quadratic"):
        how = {"categories": SCALE, "weights": weights, **HOW}
        assert raw_agreement(x, **how).estimate == pytest.approx(case["raw"][weights], abs=1e-12)
        assert gwet_ac(x, **how).estimate == pytest.approx(case["gwet"][weights], abs=1e-12)
        if case["kappa"]:
            assert cohen_kappa(x, **how).estimate == pytest.approx(case["kappa"][weights], abs=1e-12)
    for level, value in case["alpha"].items():
        alpha = krippendorff_alpha(x, categories=SCALE, level=level, **HOW)
        assert alpha.estimate == pytest.approx(value, abs=1e-12)


def test_published_examples() -> None:
    how = {"categories": range(1, 6), **HOW}
    for level, published in (("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)):
        alpha = krippendorff_alpha(FOUR_OBSERVERS, level=level, **how)
        assert alpha.estimate == pytest.approx(published, abs=5e-4) and alpha.n == 11
    assert raw_agreement(FOUR_OBSERVERS, **how).estimate == pytest.approx(0.81818, abs=5e-6)
    ac1 = gwet_ac(FOUR_OBSERVERS, **how)
    assert ac1.estimate == pytest.approx(0.77544, abs=5e-6) and ac1.n == 12
    assert gwet_ac(FOUR_OBSERVERS, weights="quadratic", **how).estimate == pytest.approx(0.914, abs=5e-6)
    binary = krippendorff_alpha(BINARY, categories=(0, 1), level="nominal", **HOW)
    assert binary.estimate == pytest.approx(0.095, abs=5e-4)
    abstractors = cohen_kappa(units(ABSTRACTORS), categories=range(3), **HOW)
    assert abstractors.estimate == pytest.approx(0.7964094, abs=5e-8)


def test_weighted_kappa_equals_statsmodels_on_unequal_steps() -> None:
    x = ratings(CASES[1])
    values = np.array([0.0, 1.0, 2.0, 5.0, 10.0])
    table = np.zeros((5, 5))
    np.add.at(table, tuple(x.astype(int).T), 1)
    distance = (values[:, None] - values) ** 2 / 100
    ours = cohen_kappa(values[x.astype(int)], categories=values, weights="quadratic", **HOW)
    assert ours.estimate == pytest.approx(cohens_kappa(table, weights=distance).kappa, abs=1e-12)


def every(x: np.ndarray, **how: object) -> dict[str, Estimate]:
    return {
        "raw": raw_agreement(x, weights="linear", **how),
        "kappa": cohen_kappa(x, weights="quadratic", **how),
        "gwet": gwet_ac(x, weights="quadratic", **how),
        "alpha": krippendorff_alpha(x, **how),
    }


def clustered(rng: np.random.Generator, clusters: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return simulated ratings by two raters whose agreement is shared within clusters."""
    cluster = np.repeat(np.arange(clusters), size)
    true = rng.integers(0, 5, clusters)[cluster]
    slip = rng.choice([-1, 0, 1], size=clusters)[cluster]
    return np.column_stack([true, np.clip(true + slip, 0, 4)]), cluster


def test_replicates_equal_a_loop_over_drawn_clusters() -> None:
    rng = np.random.default_rng(3)
    x, cluster = clustered(rng, 9, 4)
    x = np.clip(x + rng.integers(-1, 2, x.shape), 0, 4)
    how = {"categories": SCALE, "replicates": 40}
    drawn = np.random.default_rng(7).integers(0, 9, size=(40, 9))
    loop: dict[str, list[float]] = {}
    for clusters in drawn:
        sample = np.concatenate([x[cluster == c] for c in clusters])
        for name, estimate in every(sample, categories=SCALE, replicates=1, seed=1).items():
            loop.setdefault(name, []).append(estimate.estimate)
    for name, whole in every(x, cluster=cluster, seed=7, **how).items():
        assert min(loop[name]) <= whole.low < whole.estimate < whole.high <= max(loop[name])
        gap = np.array(loop[name]) - whole.estimate
        below = np.mean(np.where(np.abs(gap) < 1e-12, 0.5, gap < 0))
        expected = np.quantile(loop[name], norm.cdf(2 * norm.ppf(below) + np.array([-1, 1]) * norm.ppf(0.975)))
        np.testing.assert_allclose([whole.low, whole.high], expected, atol=1e-12)


def test_interval_covers_the_agreement_of_all_clusters() -> None:
    rng = np.random.default_rng(11)
    whole, _ = clustered(rng, 5000, 6)
    truth = {
        name: estimate.estimate for name, estimate in every(whole, categories=SCALE, replicates=1, seed=1).items()
    }
    covered = dict.fromkeys(truth, 0)
    widths = {"clusters": 0.0, "units": 0.0}
    for seed in range(80):
        x, cluster = clustered(rng, 40, 6)
        how = {"categories": SCALE, "replicates": 300, "seed": seed, "confidence": 0.9}
        for name, estimate in every(x, cluster=cluster, **how).items():
            covered[name] += estimate.low <= truth[name] <= estimate.high
            widths["clusters"] += estimate.high - estimate.low
        widths["units"] += sum(e.high - e.low for e in every(x, **how).values())
    assert all(66 <= hits <= 78 for hits in covered.values()), covered
    # Six units of one cluster say the same here: taking them for independent makes intervals too short.
    assert widths["units"] < 0.55 * widths["clusters"]


def test_chance_agreement_is_zero_and_perfect_agreement_one() -> None:
    rng = np.random.default_rng(5)
    at_random = every(rng.integers(0, 5, (4000, 2)), categories=SCALE, replicates=500, seed=1)
    for name in ("kappa", "gwet", "alpha"):
        assert abs(at_random[name].estimate) < 0.05 and at_random[name].low < 0.02
    same = every(np.repeat(rng.integers(0, 5, (30, 1)), 2, axis=1), categories=SCALE, **HOW)
    assert all(estimate.estimate == 1 for estimate in same.values())
    assert all(estimate.reason == "interval undefined (constant)" for estimate in same.values())


def test_one_rare_category_moves_alpha_and_kappa_but_not_ac() -> None:
    x = np.full((100, 2), 4)
    x[:3, 0], x[3:6, 1] = 3, 3
    found = every(x, categories=SCALE, **HOW)
    assert found["raw"].estimate > 0.98 and found["gwet"].estimate > 0.98
    assert found["kappa"].estimate < 0 and found["alpha"].estimate < 0


def test_one_category_only_is_undefined_with_a_reason_and_fails_a_gate() -> None:
    found = every(np.full((12, 2), 3), categories=SCALE, **HOW)
    for name in ("kappa", "alpha"):
        assert isnan(found[name].estimate) and found[name].reason == "undefined (one category only)"
        assert not gates.declared({"min_low": 0.67}, {"low": found[name].low})["passes"].any()
    assert found["gwet"].estimate == 1 and found["raw"].estimate == 1
    rare = np.full((12, 2), 3)
    rare[0] = 1
    partly = krippendorff_alpha(rare, categories=SCALE, replicates=200, seed=1)
    assert partly.estimate == 1 and "statistic undefined in" in partly.reason and isnan(partly.low)


def test_too_few_units_are_undefined_with_a_reason() -> None:
    single = [[1, nan], [nan, 2], [3, nan]]
    for estimate in (
        raw_agreement(single, categories=SCALE, **HOW),
        cohen_kappa(single, categories=SCALE, **HOW),
        krippendorff_alpha(single, categories=SCALE, **HOW),
        raw_agreement([[1, 1], [2, 2]], categories=SCALE, cluster=["a", "a"], **HOW),
    ):
        assert isnan(estimate.estimate) and "fewer than 2" in estimate.reason
    assert gwet_ac(single, categories=SCALE, **HOW).reason == "undefined (no unit has two ratings)"


def test_refuses_what_it_cannot_read() -> None:
    x = [[0, 1], [2, 2], [3, 9]]
    with pytest.raises(StatisticsError, match=r"outside the categories .*\[9\.0\]"):
        krippendorff_alpha(x, categories=SCALE, **HOW)
    with pytest.raises(StatisticsError, match="ascending"):
        raw_agreement(x, categories=[3, 1], **HOW)
    with pytest.raises(StatisticsError, match="two raters, not 3"):
        cohen_kappa([[1, 1, 1], [2, 2, 2]], categories=SCALE, **HOW)
    with pytest.raises(StatisticsError, match="weights must be"):
        gwet_ac([[1, 1], [2, 2]], categories=SCALE, weights="square", **HOW)
    with pytest.raises(StatisticsError, match="level must be"):
        krippendorff_alpha([[1, 1], [2, 1]], categories=SCALE, level="ratio", **HOW)
    with pytest.raises(StatisticsError, match="one cluster per unit"):
        raw_agreement([[1, 1], [2, 2]], categories=SCALE, cluster=["a"], **HOW)
    frame = pd.DataFrame([[1, 1], [2, 2]], index=["u", "v"])
    with pytest.raises(StatisticsError, match="different units"):
        raw_agreement(frame, categories=SCALE, cluster=pd.Series(["a", "b"], index=["v", "u"]), **HOW)
    with pytest.raises(StatisticsError, match="at least 1"):
        raw_agreement(frame, categories=SCALE, replicates=0, seed=1)
