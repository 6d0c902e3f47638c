"""Bootstrap intervals over units, over clusters, and over rows and columns at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from math import nan
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from persona_studies.analyse.stats.estimate import (
    CONSTANT,
    Array,
    Estimate,
    codes,
    complete,
    fraction,
    is_constant,
    matrix,
    same_units,
    vector,
)
from persona_studies.errors import StatisticsError

# Resampling weights drawn at once; 4 Mi numbers keep a chunk's arrays near 32 MiB each.
_CHUNK = 1 << 22

Interval = Literal["bias-corrected percentiles", "standard errors"]


def bca(
    statistic: Callable[..., Array],
    *samples: ArrayLike,
    confidence: float = 0.95,
    replicates: int,
    seed: int,
) -> Estimate:
    """Return a bias-corrected and accelerated bootstrap interval over units.

    scipy does it (Efron 1987, JASA 82, 171-185); added here is what it leaves to the caller: units are
    resampled whole, incomplete ones are left out, and an interval that cannot be computed says why.

    Args:
        statistic: Called as ``statistic(*samples, axis=axis)`` on arrays with any leading dimensions, such as
            ``numpy.mean`` or :func:`persona_studies.analyse.stats.correlation.pearson`.
        samples: One or more variables over the same units.

    Returns:
        The statistic and its interval. Undefined when the statistic is, or when it does not vary over the
        resamples; the interval alone when it is undefined in some of them.

    Raises:
        StatisticsError: samples over different units, or values that are infinite or no numbers.

    Examples:
        >>> interval = bca(np.mean, [1.0, 2.0, 4.0, 4.5, 7.0, 9.0], replicates=2000, seed=1)
        >>> interval.low < interval.estimate < interval.high
        True
        >>> bca(np.mean, [3.0, 3.0, 3.0], replicates=100, seed=1).reason
        'interval undefined (constant)'
    """
    fraction("confidence", confidence)
    arrays = complete(**{f"sample {number + 1}": sample for number, sample in enumerate(samples)})
    n = len(arrays[0])
    if n < 2:
        reason = "undefined (fewer than 2 units)"
        return Estimate(nan, n=n, reason=reason)
    estimate = float(statistic(*arrays, axis=-1))
    if np.isnan(estimate):
        return Estimate(nan, n=n, reason=CONSTANT)
    how = {"confidence_level": confidence, "n_resamples": replicates, "rng": np.random.default_rng(seed)}
    with warnings.catch_warnings():
        # scipy warns and returns NaN for a degenerate distribution; the reason below says so instead.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        warnings.filterwarnings("ignore", "invalid value encountered", RuntimeWarning)
        result = stats.bootstrap(
            arrays, statistic, paired=True, vectorized=True, batch=max(1, _CHUNK // n), method="BCa", **how
        )
    low, high = map(float, result.confidence_interval)
    reason = _unusable(result.bootstrap_distribution)
    if not reason and np.isnan([low, high]).any():
        reason = "interval undefined (acceleration or bias correction has no finite value)"
    if reason:
        low = high = nan
    return Estimate(estimate, low, high, n=n, reason=reason)


def cluster_bootstrap(
    values: ArrayLike,
    predictor: ArrayLike | None = None,
    *,
    cluster: ArrayLike | pd.Series,
    confidence: float = 0.95,
    replicates: int,
    seed: int,
) -> pd.DataFrame:
    """Bootstrap a mean, and optionally a correlation and slope, by resampling whole clusters.

    Args:
        values: One value per unit; NaN is missing.
        predictor: One value per unit, against which ``values`` is correlated and regressed.
        cluster: Cluster of each unit, such as the background that several personas share.

    Returns:
        Rows ``mean`` and, with a predictor, ``correlation`` and ``slope``; columns as in :class:`Estimate`,
        where ``n`` counts clusters. Intervals are bias-corrected percentiles (Efron 1981, Canadian Journal of
        Statistics 9, 139-158).

    Raises:
        StatisticsError: lengths differ, or values are infinite or no numbers.

    Examples:
        >>> values = [1.0, 1.2, 3.0, 3.1, 2.0, 2.2]
        >>> table = cluster_bootstrap(values, cluster=list("aabbcc"), replicates=500, seed=1)
        >>> float(table.loc["mean", "estimate"].round(3)), int(table.loc["mean", "n"])
        (2.083, 3)
    """
    same_units(values=values, predictor=predictor, cluster=cluster)
    y = vector("values", values)
    a = np.zeros_like(y) if predictor is None else vector("predictor", predictor)
    if len(a) != len(y):
        raise StatisticsError(f"predictor has {len(a)} units, values has {len(y)}.")
    usable = ~(np.isnan(y) | np.isnan(a))
    rows = codes("cluster", cluster, len(y))[usable]
    _, rows = np.unique(rows, return_inverse=True)
    return _bootstrap(
        y[usable, None],
        None if predictor is None else a[usable],
        rows,
        None,
        confidence,
        replicates,
        seed,
    )


def two_way_bootstrap(
    values: ArrayLike | pd.DataFrame,
    predictor: ArrayLike | None = None,
    *,
    row_cluster: ArrayLike | pd.Series | None = None,
    column_cluster: ArrayLike | pd.Series | None = None,
    interval: Interval = "bias-corrected percentiles",
    confidence: float = 0.95,
    replicates: int,
    seed: int,
) -> pd.DataFrame:
    """Bootstrap row means over rows and columns at once, to generalise over both.

    In each replicate rows (personas) and, independently, columns (prompts) are drawn with replacement; a cell
    counts as often as its row times its column was drawn (Owen 2007, "The pigeonhole bootstrap", Annals of
    Applied Statistics 1, 386-411). Row means are taken over the drawn columns; the statistics are their mean
    over the drawn rows, and their correlation and least-squares slope on a predictor of the rows.

    Redrawing columns adds noise to row means a second time and so pulls correlations towards zero. The
    bias-corrected percentile interval (Efron 1981) moves the other way: it covers the correlation with the row mean
    over *all* columns that could have been used, and need not hold the estimate.

    Args:
        values: Rows x columns; NaN is a missing cell, and a row mean is over what remains.
        predictor: One value per row; rows where it is NaN are left out.
        row_cluster: Rows with the same label are drawn together.
        column_cluster: Columns with the same label are drawn together, such as a claim and its mirror.
        interval: ``bias-corrected percentiles``, or ``standard errors`` about the estimate, of Fisher's z for r.
        seed: Seed; rows and columns have generators of their own, spawned from it in this order.

    Returns:
        Rows ``mean`` and, with a predictor, ``correlation`` and ``slope``; columns as in :class:`Estimate`,
        where ``n`` counts rows, or clusters of rows.

    Raises:
        StatisticsError: shapes do not match, or values are infinite or no numbers.

    Examples:
        >>> trait, noise = np.linspace(-1, 1, 30), np.random.default_rng(0).normal(size=(30, 40))
        >>> table = two_way_bootstrap(trait[:, None] + noise, trait, replicates=1000, seed=1)
        >>> bool(table.loc["slope", "low"] < 1 < table.loc["slope", "high"])
        True
    """
    same_units(values=values, predictor=predictor, row_cluster=row_cluster)
    if isinstance(values, pd.DataFrame):
        same_units(columns=values.T, column_cluster=column_cluster)
    cells = matrix("values", values)
    n_rows, n_columns = cells.shape
    rows = np.arange(n_rows) if row_cluster is None else codes("row_cluster", row_cluster, n_rows)
    columns = np.arange(n_columns) if column_cluster is None else codes("column_cluster", column_cluster, n_columns)
    a = np.zeros(n_rows) if predictor is None else vector("predictor", predictor)
    if len(a) != n_rows:
        raise StatisticsError(f"predictor has {len(a)} values for {n_rows} rows.")
    usable = ~np.isnan(cells).all(axis=1) & ~np.isnan(a)
    _, rows = np.unique(rows[usable], return_inverse=True)
    known = None if predictor is None else a[usable]
    return _bootstrap(cells[usable], known, rows, columns, confidence, replicates, seed, interval)


def _bootstrap(
    cells: Array,
    predictor: Array | None,
    rows: NDArray[np.intp],
    columns: NDArray[np.intp] | None,
    confidence: float,
    replicates: int,
    seed: int,
    interval: Interval = "bias-corrected percentiles",
) -> pd.DataFrame:
    """Bootstrap over row clusters and, unless ``columns`` is None, column clusters."""
    fraction("confidence", confidence)
    if replicates < 1:
        raise StatisticsError(f"replicates must be at least 1, not {replicates}.")
    names = ["mean"] if predictor is None else ["mean", "correlation", "slope"]
    n = int(rows.max()) + 1 if rows.size else 0
    if n < 2:
        reason = "undefined (fewer than 2 rows or clusters)"
        undefined = Estimate(nan, n=n, reason=reason)
        return pd.DataFrame([undefined] * len(names), index=pd.Index(names, name="statistic"))
    # Columns that are drawn together enter only through their sums.
    grouped = np.arange(cells.shape[1]) if columns is None else columns
    k = int(grouped.max()) + 1
    totals, counts = (
        _column_sums(np.nan_to_num(cells), grouped, k),
        _column_sums(~np.isnan(cells), grouped, k),
    )
    once = np.ones((k, 1))
    observed = _statistics(totals @ once / (counts @ once), predictor, np.ones((len(cells), 1)))[:, 0]
    row_rng, column_rng = np.random.default_rng(seed).spawn(2)
    parts = []
    for size in in_chunks(replicates, max(n, k, len(cells))):
        row_weights = draw(row_rng, n, size)[rows]
        column_weights = once if columns is None else draw(column_rng, k, size)
        drawn = counts @ column_weights
        means = np.divide(totals @ column_weights, drawn, out=np.full(drawn.shape, nan), where=drawn > 0)
        parts.append(_statistics(np.broadcast_to(means, (len(cells), size)), predictor, row_weights))
    distribution = np.concatenate(parts, axis=1)
    estimates = [
        bias_corrected(float(value), replicated, confidence, n)
        if interval == "bias-corrected percentiles"
        else _standard_error(float(value), replicated, confidence, n, fisher=name == "correlation")
        for name, value, replicated in zip(names, observed, distribution, strict=True)
    ]
    return pd.DataFrame(estimates, index=pd.Index(names, name="statistic"))


def _column_sums(cells: Array | NDArray[np.bool_], columns: NDArray[np.intp], k: int) -> Array:
    """Return sums over the columns of each cluster: rows x clusters."""
    if k == cells.shape[1] and np.array_equal(columns, np.arange(k)):
        return cells.astype(np.float64)
    member = np.zeros((cells.shape[1], k))
    member[np.arange(cells.shape[1]), columns] = 1
    return np.asarray(cells @ member, dtype=np.float64)


def in_chunks(replicates: int, n: int) -> Iterator[int]:
    """Yield how many replicates to draw at a time so that weights of ``n`` things stay within memory."""
    chunk = max(1, _CHUNK // n)
    for start in range(0, replicates, chunk):
        yield min(chunk, replicates - start)


def draw(rng: np.random.Generator, n: int, size: int) -> Array:
    """Return how often each of ``n`` things is drawn in ``size`` bootstrap samples: n x size."""
    drawn = rng.integers(0, n, size=(size, n)) + n * np.arange(size)[:, None]
    times = np.bincount(drawn.ravel(), minlength=n * size).reshape(size, n)
    return np.asarray(times.T, dtype=np.float64)


def _statistics(means: Array, predictor: Array | None, weights: Array) -> Array:
    """Return the mean of row means and, with a predictor, correlation and slope, per replicate.

    Args:
        means: Rows x replicates; NaN where none of a row's cells was drawn.
        predictor: One value per row.
        weights: Rows x replicates.
    """
    weights = np.where(np.isnan(means), 0.0, weights)
    means = np.where(np.isnan(means), 0.0, means)
    total = weights.sum(axis=0)
    total = np.where(total > 0, total, nan)
    mean: Array = (weights * means).sum(axis=0) / total
    if predictor is None:
        return mean[None, :]
    a = predictor[:, None]
    da, ds = a - (weights * a).sum(axis=0) / total, means - mean
    saa, sss = (weights * da**2).sum(axis=0), (weights * ds**2).sum(axis=0)
    sas = (weights * da * ds).sum(axis=0)
    # Below this a variance is rounding: the drawn rows are constant.
    saa = np.where(saa > total * (1e-12 * np.abs(predictor).max()) ** 2, saa, nan)
    varying = sss > total * (1e-12 * np.abs(means).max(axis=0)) ** 2
    r = np.clip(sas / np.sqrt(saa * np.where(varying, sss, nan)), -1, 1)
    return np.stack([mean, r, sas / saa])


def bias_corrected(estimate: float, distribution: Array, confidence: float, n: int) -> Estimate:
    """Return the bias-corrected percentile interval."""
    if np.isnan(estimate):
        return Estimate(nan, n=n, reason=CONSTANT)
    reason = _unusable(distribution)
    ties = np.isclose(distribution, estimate, rtol=1e-12, atol=0)
    below = (np.sum((distribution < estimate) & ~ties) + ties.sum() / 2) / len(distribution)
    if not reason and not 0 < below < 1:
        reason = "interval undefined (all replicates lie on one side of the estimate)"
    if reason:
        return Estimate(estimate, n=n, reason=reason)
    shift = 2 * stats.norm.ppf(below)
    half = stats.norm.ppf((1 + confidence) / 2)
    low, high = np.quantile(distribution, stats.norm.cdf([shift - half, shift + half]))
    return Estimate(estimate, float(low), float(high), n=n)


def _standard_error(estimate: float, distribution: Array, confidence: float, n: int, *, fisher: bool) -> Estimate:
    """Return the normal interval with the standard deviation of the replicates, for a correlation of Fisher's z."""
    if np.isnan(estimate):
        return Estimate(nan, n=n, reason=CONSTANT)
    reason = _unusable(distribution)
    if fisher and not reason and (abs(estimate) == 1 or (np.abs(distribution) == 1).any()):
        reason = "interval undefined (a correlation is exactly 1 or -1)"
    if reason:
        return Estimate(estimate, n=n, reason=reason)
    to, back = (np.arctanh, np.tanh) if fisher else (np.asarray, np.asarray)
    reach = stats.norm.ppf((1 + confidence) / 2) * np.std(to(distribution), ddof=1)
    low, high = back(to(estimate) + np.array([-reach, reach]))
    return Estimate(estimate, float(low), float(high), n=n)


def _unusable(distribution: Array) -> str:
    """Return why a bootstrap distribution gives no interval; empty when it does."""
    undefined = int(np.isnan(distribution).sum())
    if undefined:
        return f"interval undefined (statistic undefined in {undefined} of {len(distribution)} resamples)"
    return "interval undefined (constant)" if is_constant(distribution) else ""
