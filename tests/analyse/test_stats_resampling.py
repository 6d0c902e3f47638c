"""Bootstraps against plain loops with the same draws, coverage, and where they are undefined."""

import time
import tracemalloc
from dataclasses import astuple
from math import isnan, nan

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from persona_studies.analyse.stats import resampling
from persona_studies.analyse.stats.correlation import pearson
from persona_studies.analyse.stats.resampling import bca, cluster_bootstrap, two_way_bootstrap
from persona_studies.errors import StatisticsError


def bias_corrected(estimate: float, distribution: np.ndarray, confidence: float = 0.95) -> list[float]:
    tied = np.abs(distribution - estimate) < 1e-13
    shift = 2 * scipy_stats.norm.ppf(np.mean(np.where(tied, 0.5, distribution < estimate)))
    half = scipy_stats.norm.ppf((1 + confidence) / 2)
    return np.quantile(distribution, scipy_stats.norm.cdf([shift - half, shift + half])).tolist()


def by_loop(
    values: np.ndarray, trait: np.ndarray, rows: np.ndarray, columns: np.ndarray, seed: int, replicates: int
) -> dict[str, np.ndarray]:
    """Draw whole clusters, build each resampled matrix cell by cell, and compute as from raw data."""
    row_rng, column_rng = np.random.default_rng(seed).spawn(2)
    results: dict[str, list[float]] = {"mean": [], "correlation": [], "slope": []}
    n, k = rows.max() + 1, columns.max() + 1
    for _ in range(replicates):
        drawn_rows = np.concatenate([np.flatnonzero(rows == c) for c in row_rng.integers(0, n, size=n)])
        drawn_columns = np.concatenate([np.flatnonzero(columns == c) for c in column_rng.integers(0, k, size=k)])
        means = np.nanmean(values[np.ix_(drawn_rows, drawn_columns)], axis=1)
        line = scipy_stats.linregress(trait[drawn_rows], means)
        results["mean"].append(means.mean())
        results["correlation"].append(line.rvalue)
        results["slope"].append(line.slope)
    return {name: np.array(values) for name, values in results.items()}


@pytest.mark.parametrize("clustered", [False, True], ids=["plain", "clustered"])
@pytest.mark.parametrize("gaps", [0.0, 0.1], ids=["complete", "with gaps"])
def test_two_way_equals_a_loop_with_the_same_draws(
    clustered: bool, gaps: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resampling, "_CHUNK", 1000)  # several chunks, which must not matter
    rng = np.random.default_rng(1)
    trait = rng.normal(size=12)
    values = 0.5 * trait[:, None] + rng.normal(size=(12, 30))
    values[rng.random(values.shape) < gaps] = nan
    rows = np.arange(12) // 2 if clustered else np.arange(12)
    columns = np.arange(30) // 3 if clustered else np.arange(30)
    table = two_way_bootstrap(values, trait, row_cluster=rows, column_cluster=columns, replicates=150, seed=7)
    loop = by_loop(values, trait, rows, columns, 7, 150)
    means = np.nanmean(values, axis=1)
    line = scipy_stats.linregress(trait, means)
    observed = {"mean": means.mean(), "correlation": line.rvalue, "slope": line.slope}
    for name, distribution in loop.items():
        assert table.loc[name, "estimate"] == pytest.approx(observed[name], rel=1e-12)
        limits = table.loc[name, ["low", "high"]].to_numpy(dtype=float)
        np.testing.assert_allclose(limits, bias_corrected(observed[name], distribution), rtol=1e-10)
    assert (table["n"] == rows.max() + 1).all() and (table["reason"] == "").all()


def test_cluster_bootstrap_equals_a_loop_with_the_same_draws() -> None:
    rng = np.random.default_rng(2)
    cluster = np.repeat(list("abcdefgh"), [1, 2, 3, 4, 5, 2, 2, 3])
    x, y = rng.normal(size=(2, len(cluster)))
    table = cluster_bootstrap(y, x, cluster=cluster, replicates=200, seed=3)
    row_rng, _ = np.random.default_rng(3).spawn(2)
    members = [np.flatnonzero(cluster == c) for c in "abcdefgh"]
    drawn = [np.concatenate([members[i] for i in row_rng.integers(0, 8, size=8)]) for _ in range(200)]
    expected = {
        "mean": (y.mean(), np.array([y[i].mean() for i in drawn])),
        "correlation": (np.corrcoef(x, y)[0, 1], np.array([np.corrcoef(x[i], y[i])[0, 1] for i in drawn])),
    }
    for name, (observed, distribution) in expected.items():
        assert table.loc[name, "estimate"] == pytest.approx(observed, rel=1e-12)
        limits = table.loc[name, ["low", "high"]].to_numpy(dtype=float)
        np.testing.assert_allclose(limits, bias_corrected(observed, distribution), rtol=1e-10)


def test_without_a_predictor_there_is_the_mean_alone() -> None:
    values = np.random.default_rng(3).normal(size=(10, 10))
    table = two_way_bootstrap(values, replicates=200, seed=1)
    assert table.index.tolist() == ["mean"]
    pd.testing.assert_frame_equal(table, two_way_bootstrap(values, replicates=200, seed=1))
    assert table.loc["mean", "low"] != two_way_bootstrap(values, replicates=200, seed=2).loc["mean", "low"]


def test_clusters_widen_intervals() -> None:
    rng = np.random.default_rng(4)
    y = np.repeat(rng.normal(size=20), 10)
    width = {
        name: float(table.loc["mean", "high"] - table.loc["mean", "low"])
        for name, table in {
            "units": cluster_bootstrap(y, cluster=np.arange(200), replicates=500, seed=1),
            "clusters": cluster_bootstrap(y, cluster=np.arange(200) // 10, replicates=500, seed=1),
        }.items()
    }
    assert width["clusters"] > 2.5 * width["units"]


def test_two_way_covers_the_correlation_over_all_columns_despite_noise_in_row_means() -> None:
    rng = np.random.default_rng(8)
    covered = 0
    for seed in range(80):
        trait = rng.normal(size=55)
        true = 0.5 * trait + np.sqrt(0.75) * rng.normal(size=55)
        values = true[:, None] + rng.normal(size=20) + 3 * rng.normal(size=(55, 20))
        row = two_way_bootstrap(values, trait, replicates=300, seed=seed).loc["correlation"]
        covered += row["low"] <= 0.5 <= row["high"]
    # Row means have a reliability of .69 here; plain percentiles cover .87.
    assert covered >= 71


def test_full_size_is_fast_and_small() -> None:
    values = np.random.default_rng(5).random((275, 4950), dtype=np.float64)
    tracemalloc.start()
    start = time.process_time()
    two_way_bootstrap(values, np.arange(275.0), replicates=500, seed=1)
    seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 5  # 20 times as many replicates take a few seconds
    assert peak < 200 * 2**20


def test_undefined_with_a_reason() -> None:
    trait = np.arange(10.0)
    flat = two_way_bootstrap(np.full((10, 6), 0.3), trait, replicates=50, seed=1)
    assert flat.loc["correlation", "reason"] == "undefined (constant)" and isnan(
        flat.loc["correlation", "estimate"]
    )
    assert flat.loc["mean", "reason"] == "interval undefined (constant)"
    assert flat.loc["mean", "estimate"] == pytest.approx(0.3)
    assert isnan(flat.loc["mean", "low"])
    two = cluster_bootstrap([1.0, 2.0, 3.0], [1.0, 2.0, 4.0], cluster=[0, 0, 1], replicates=50, seed=1)
    assert "resamples" in two.loc["correlation", "reason"] and isnan(two.loc["correlation", "low"])
    one = cluster_bootstrap([1.0, 2.0, 3.0], cluster=[0, 0, 0], replicates=50, seed=1)
    assert "fewer than 2" in one.loc["mean", "reason"]


def test_incomplete_rows_are_left_out() -> None:
    rng = np.random.default_rng(6)
    values, trait = rng.normal(size=(8, 5)), rng.normal(size=8)
    values[2], trait[5] = nan, nan
    keep = [0, 1, 3, 4, 6, 7]
    pd.testing.assert_frame_equal(
        two_way_bootstrap(values, trait, replicates=60, seed=1),
        two_way_bootstrap(values[keep], trait[keep], replicates=60, seed=1),
    )


def test_labelled_data_must_have_the_same_units() -> None:
    values = pd.DataFrame(np.random.default_rng(1).normal(size=(4, 3)), index=list("abcd"), columns=list("xyz"))
    trait = pd.Series([1.0, 2.0, 3.0, 5.0], index=list("abdc"))
    with pytest.raises(StatisticsError, match="values and predictor are indexed"):
        two_way_bootstrap(values, trait, replicates=10, seed=1)
    with pytest.raises(StatisticsError, match="columns and column_cluster are indexed"):
        two_way_bootstrap(values, column_cluster=pd.Series([0, 0, 1]), replicates=10, seed=1)
    with pytest.raises(StatisticsError, match="values and cluster are indexed"):
        cluster_bootstrap(values["x"], cluster=trait, replicates=10, seed=1)
    assert two_way_bootstrap(values, trait.loc[list("abcd")], replicates=10, seed=1).loc["mean", "n"] == 4


def test_refused() -> None:
    with pytest.raises(StatisticsError, match="predictor has 3"):
        two_way_bootstrap(np.ones((4, 4)), [1, 2, 3], replicates=10, seed=1)
    with pytest.raises(StatisticsError, match="one cluster per unit"):
        two_way_bootstrap(np.ones((4, 4)), row_cluster=[1, 2], replicates=10, seed=1)
    with pytest.raises(StatisticsError, match="missing labels"):
        cluster_bootstrap([1.0, 2.0], cluster=["a", None], replicates=10, seed=1)
    with pytest.raises(StatisticsError, match="confidence"):
        cluster_bootstrap([1.0, 2.0], cluster=["a", "b"], confidence=95, replicates=10, seed=1)
    with pytest.raises(StatisticsError, match="replicates"):
        cluster_bootstrap([1.0, 2.0], cluster=["a", "b"], replicates=0, seed=1)


def test_bca_is_scipys_and_repeats() -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=60)
    y = 0.6 * x + rng.normal(size=60)
    result = bca(pearson, x, y, replicates=1000, seed=5)
    direct = scipy_stats.bootstrap(
        (x, y),
        lambda a, b, axis=-1: scipy_stats.pearsonr(a, b, axis=axis).statistic,
        paired=True,
        vectorized=True,
        n_resamples=1000,
        method="BCa",
        rng=np.random.default_rng(5),
    ).confidence_interval
    assert (result.low, result.high) == pytest.approx(tuple(direct), abs=1e-12)
    again = bca(pearson, x, y, replicates=1000, seed=5)
    assert result.n == 60 and astuple(result) == astuple(again)


def test_trap_a_bootstrap_of_constants_is_nan_without_a_reason() -> None:
    with pytest.warns((scipy_stats.DegenerateDataWarning, RuntimeWarning)):
        bare = scipy_stats.bootstrap(([2.0] * 5,), np.mean, n_resamples=20, rng=np.random.default_rng(1))
    assert isnan(bare.confidence_interval.low)
    constant = bca(np.mean, [2.0] * 5, replicates=20, seed=1)
    assert constant.estimate == 2 and isnan(constant.low) and constant.reason == "interval undefined (constant)"
    undefined = bca(pearson, [1.0, 2, 3, 4], [2.0] * 4, replicates=20, seed=1)
    assert isnan(undefined.estimate) and undefined.reason == "undefined (constant)"
    sometimes = bca(pearson, [1.0, 2, 3], [2.0, 2, 3], replicates=200, seed=1)
    assert sometimes.estimate > 0 and isnan(sometimes.low) and "resamples" in sometimes.reason
    assert "fewer than 2" in bca(np.mean, [1.0], replicates=20, seed=1).reason
