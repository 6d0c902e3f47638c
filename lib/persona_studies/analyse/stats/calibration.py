"""Calibration of stated probabilities."""

from __future__ import annotations

from math import nan
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from persona_studies.analyse.stats.estimate import Array, Estimate, codes, complete, fraction, same_units
from persona_studies.analyse.stats.resampling import draw, in_chunks
from persona_studies.errors import StatisticsError

Binning = Literal["width", "mass"]


def calibration_bins(
    probability: ArrayLike, outcome: ArrayLike, *, bins: int = 10, binning: Binning = "width"
) -> pd.DataFrame:
    """Return stated probability against observed frequency, per bin: the reliability diagram as a table.

    Args:
        probability: Stated probability that the outcome is 1, per unit; NaN is left out.
        outcome: 0 or 1, per unit.
        binning: ``width``: bins [0, 1/k), [1/k, 2/k), ..., the last one closed. ``mass``: as many units in
            each, as far as ties allow, which always share a bin.

    Returns:
        One row per bin that holds units: ``low, high`` (of the bin), ``n``, ``probability`` (mean stated),
        ``frequency`` (mean outcome), ``gap`` (frequency minus probability).

    Raises:
        StatisticsError: lengths differ, a probability outside [0, 1], an outcome other than 0 or 1.

    Examples:
        >>> table = calibration_bins([0.1, 0.2, 0.8, 0.9], [0, 1, 1, 1], bins=2)
        >>> table["n"].tolist(), table["gap"].round(2).tolist()
        ([2, 2], [0.35, 0.15])
    """
    stated, observed = _units(probability, outcome, bins)
    edges, bin_of = _bins(stated, bins, binning)
    units = pd.DataFrame({"bin": bin_of, "probability": stated, "frequency": observed})
    grouped = units.groupby("bin")
    table = grouped.mean()
    return pd.DataFrame(
        {
            "low": edges[table.index],
            "high": edges[table.index + 1],
            "n": grouped.size().to_numpy(),
            "probability": table["probability"].to_numpy(),
            "frequency": table["frequency"].to_numpy(),
            "gap": (table["frequency"] - table["probability"]).to_numpy(),
        }
    )


def expected_calibration_error(
    probability: ArrayLike,
    outcome: ArrayLike,
    *,
    bins: int = 10,
    binning: Binning = "width",
    cluster: ArrayLike | pd.Series | None = None,
    confidence: float = 0.95,
    replicates: int,
    seed: int,
) -> Estimate:
    """Return the expected calibration error: mean |frequency - probability| over bins, weighted by units.

    The measure is that of Naeini, Cooper and Hauskrecht (2015, AAAI). It is biased upwards, because noise in each
    bin counts as error. Percentiles of its bootstrap are biased twice and never contain 0. So only the upper limit
    is such a percentile. The lower limit is the estimate minus the same quantile of Σ|gap* - gap|, with weights,
    which bounds the error by the triangle inequality. The interval can contain 0, and errs to the wide side.

    Args:
        probability: Stated probability that the outcome is 1, per unit; NaN is left out.
        outcome: 0 or 1, per unit.
        bins: Number of bins; they stay as they are over the resamples.
        binning: As in :func:`calibration_bins`.
        cluster: Units with the same label are resampled together.

    Returns:
        The error with its interval; undefined without units, the interval with fewer than two of them.

    Raises:
        StatisticsError: as :func:`calibration_bins`, or labels do not match.

    Examples:
        >>> stated = np.linspace(0.01, 0.99, 400)
        >>> outcome = np.random.default_rng(0).random(400) < stated
        >>> ece = expected_calibration_error(stated, outcome, replicates=500, seed=1)
        >>> ece.low, round(ece.estimate, 2)
        (0.0, 0.05)
    """
    fraction("confidence", confidence)
    if replicates < 1:
        raise StatisticsError(f"replicates must be at least 1, not {replicates}.")
    groups = _groups(probability, outcome, cluster)
    stated, observed = _units(probability, outcome, bins)
    n, k = len(stated), len(np.unique(groups))
    if n == 0:
        return Estimate(nan, n=0, reason="undefined (no units)")
    surplus, sizes = _surplus(stated, observed, groups, bins, binning)
    gap = surplus.sum(axis=1) / n
    estimate = float(np.abs(gap).sum())
    if k < 2:
        reason = "interval undefined (fewer than 2 units or clusters)"
        return Estimate(estimate, n=k, reason=reason)
    gaps = _resampled(surplus, sizes, replicates, seed)
    level = (1 + confidence) / 2
    high, distance = (float(np.quantile(np.abs(g).sum(axis=0), level)) for g in (gaps, gaps - gap[:, None]))
    return Estimate(estimate, max(0.0, estimate - distance), high, n=k)


def _groups(probability: ArrayLike, outcome: ArrayLike, cluster: ArrayLike | pd.Series | None) -> NDArray[np.int64]:
    """Return the number of each complete unit's cluster, from 0."""
    same_units(probability=probability, outcome=outcome, cluster=cluster)
    labels: ArrayLike | pd.Series = np.arange(np.size(probability)) if cluster is None else cluster
    groups = codes("cluster", labels, np.size(probability))
    usable = ~np.isnan(np.asarray(probability, dtype=float)) & ~np.isnan(np.asarray(outcome, dtype=float))
    return np.asarray(np.unique(groups[usable], return_inverse=True)[1])


def _surplus(
    stated: Array, observed: Array, groups: NDArray[np.int64], bins: int, binning: Binning
) -> tuple[Array, Array]:
    """Return, bins x clusters, the surplus of outcomes over stated probability; and the units of each cluster."""
    k = len(np.unique(groups))
    surplus, sizes = np.zeros((bins, k)), np.bincount(groups, minlength=k).astype(np.float64)
    np.add.at(surplus, (_bins(stated, bins, binning)[1], groups), observed - stated)
    return surplus, sizes


def _resampled(surplus: Array, sizes: Array, replicates: int, seed: int) -> Array:
    """Return the gap of every bin in every replicate, bins x replicates; clusters are drawn whole."""
    rng = np.random.default_rng(seed)
    parts: list[Array] = []
    for size in in_chunks(replicates, len(sizes)):
        weights = draw(rng, len(sizes), size)
        parts.append(surplus @ weights / (sizes @ weights))
    return np.concatenate(parts, axis=1)


def _units(probability: ArrayLike, outcome: ArrayLike, bins: int) -> list[Array]:
    stated, observed = complete(probability=probability, outcome=outcome)
    if bins < 1:
        raise StatisticsError(f"bins must be at least 1, not {bins}.")
    if ((stated < 0) | (stated > 1)).any():
        raise StatisticsError("A probability lies outside [0, 1].")
    if not np.isin(observed, (0, 1)).all():
        raise StatisticsError("An outcome is neither 0 nor 1.")
    return [stated, observed]


def _bins(stated: Array, bins: int, binning: Binning) -> tuple[Array, NDArray[np.intp]]:
    """Return bin edges and the bin of each unit."""
    inner = np.arange(1, bins) / bins
    if binning == "mass" and len(stated):
        inner = np.quantile(stated, inner, method="higher")
    bin_of = np.searchsorted(inner, stated, side="right")
    return np.concatenate([[0.0], inner, [1.0]]), bin_of
