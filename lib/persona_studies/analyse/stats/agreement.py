"""Agreement between raters, with intervals over the clusters that units come in.

Every coefficient here is a function of sums over units: of rating pairs, of contingencies, of shares. So the
sums of each cluster are taken once, a bootstrap sample is a weighted sum of clusters, and all samples together
are one matrix product. statsmodels (kappa), the package krippendorff (alpha) and irrCAC (AC1, AC2) give the same
point estimates; none of them resamples clusters.

Whether ratings count is decided on the lower limit of the interval, with
:func:`persona_studies.analyse.gates.declared`: an interval that is undefined does not pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import nan
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from persona_studies.analyse.stats.estimate import Array, Estimate, codes, fraction, matrix, same_units, vector
from persona_studies.analyse.stats.resampling import bias_corrected, draw, in_chunks
from persona_studies.errors import StatisticsError

Weights = Literal["identity", "linear", "quadratic"]
Level = Literal["nominal", "ordinal", "interval"]


def raw_agreement(
    ratings: ArrayLike | pd.DataFrame,
    *,
    categories: Sequence[float],
    weights: Weights = "identity",
    cluster: ArrayLike | pd.Series | None = None,
    confidence: float = 0.95,
    replicates: int,
    seed: int,
) -> Estimate:
    """Return the mean over units of the share of rater pairs that agree.

    Args:
        ratings: Units x raters; NaN is a missing rating. Units with fewer than two are left out.
        categories: Every value a rating can have, in order, used or not.
        weights: What a pair of ratings a, b counts: ``identity`` 1 if equal and else 0; ``linear``
            1 - |a - b| / range; ``quadratic`` 1 - (a - b)² / range², with the range of the categories.
        cluster: Cluster of each unit, drawn as a whole; without, every unit is its own.

    Returns:
        The agreement and a bias-corrected percentile interval; ``n`` counts units with two or more ratings.

    Raises:
        StatisticsError: a rating is none of the categories, or shapes do not match.

    Examples:
        >>> ratings = [[0, 0], [1, 2], [3, 3], [4, 3], [2, 2], [0, 1]]
        >>> raw_agreement(ratings, categories=range(5), replicates=500, seed=1).estimate
        0.5
        >>> raw_agreement(ratings, categories=range(5), weights="linear", replicates=500, seed=1).estimate
        0.875
    """
    counts, groups, values = _counts(ratings, categories, cluster)
    paired = counts.sum(axis=1) >= 2
    agreed = _agreed(counts, _matrix(values, weights))
    terms = np.column_stack([agreed, paired])

    def statistic(total: Array) -> Array:
        return _ratio(total[..., 0], total[..., 1])

    return _estimate(terms[paired], groups[paired], statistic, "", confidence, replicates, seed)


def cohen_kappa(
    ratings: ArrayLike | pd.DataFrame,
    *,
    categories: Sequence[float],
    weights: Weights = "identity",
    cluster: ArrayLike | pd.Series | None = None,
    confidence: float = 0.95,
    replicates: int,
    seed: int,
) -> Estimate:
    """Return Cohen's kappa of two raters, plain or weighted.

    Chance is what the two raters' own marginal distributions would give.

    Args:
        ratings: Units x 2; units with a missing rating are left out.
        categories: As in :func:`raw_agreement`.
        weights: As in :func:`raw_agreement`.
        cluster: As in :func:`raw_agreement`.

    Returns:
        Undefined when both raters use one and the same category throughout.

    Raises:
        StatisticsError: not two raters; a rating is none of the categories; shapes do not match.

    References:
        Cohen (1968), Psychological Bulletin 70, 213-220.

    Examples:
        >>> ratings = [[0, 0], [1, 2], [3, 3], [4, 3], [2, 2], [0, 1]]
        >>> kappa = cohen_kappa(ratings, categories=range(5), weights="quadratic", replicates=500, seed=1)
        >>> round(kappa.estimate, 3)
        0.852
    """
    coded, groups, values = _coded(ratings, categories, cluster)
    if coded.shape[1] != 2:
        raise StatisticsError(
            f"Cohen's kappa compares two raters, not {coded.shape[1]}; krippendorff_alpha and gwet_ac take more."
        )
    complete = (coded >= 0).all(axis=1)
    k = len(values)
    terms = np.eye(k * k)[coded[complete, 0] * k + coded[complete, 1]]
    weight = _matrix(values, weights)

    def statistic(total: Array) -> Array:
        table = total.reshape(*total.shape[:-1], k, k)
        n = total.sum(axis=-1)
        expected = np.einsum("...i,...j,ij->...", table.sum(axis=-1), table.sum(axis=-2), weight)
        observed = n * (table * weight).sum(axis=(-2, -1))
        return _ratio(observed - expected, n**2 - expected)

    return _estimate(terms, groups[complete], statistic, "one category only", confidence, replicates, seed)


def gwet_ac(
    ratings: ArrayLike | pd.DataFrame,
    *,
    categories: Sequence[float],
    weights: Weights = "identity",
    cluster: ArrayLike | pd.Series | None = None,
    confidence: float = 0.95,
    replicates: int,
    seed: int,
) -> Estimate:
    """Return Gwet's AC1 (identity weights) or AC2 (other weights).

    Chance is the probability that a pair agrees if a random share of ratings were random, which stays low when
    nearly all ratings fall into one category; there kappa and alpha drop although raters agree.

    Args:
        ratings: Units x raters; NaN is a missing rating. Units with one rating count for the distribution of
            categories only.
        categories: As in :func:`raw_agreement`; their number enters the coefficient.
        weights: As in :func:`raw_agreement`.
        cluster: As in :func:`raw_agreement`.

    Returns:
        Defined, and 1, when all ratings are the same; ``n`` counts units with a rating.

    Raises:
        StatisticsError: a rating is none of the categories, or shapes do not match.

    References:
        Gwet (2008), British Journal of Mathematical and Statistical Psychology 61, 29-48; Gwet (2014), Handbook
        of Inter-Rater Reliability, 4th edition, chapters 2 and 3.

    Examples:
        >>> ratings = [[0, 0], [1, 2], [3, 3], [4, 3], [2, 2], [0, 1]]
        >>> round(gwet_ac(ratings, categories=range(5), replicates=500, seed=1).estimate, 3)
        0.379
    """
    counts, groups, values = _counts(ratings, categories, cluster)
    rated = counts.sum(axis=1)
    weight = _matrix(values, weights)
    shares = counts / np.maximum(rated, 1)[:, None]
    terms = np.column_stack([_agreed(counts, weight), rated >= 2, shares])
    k = len(values)

    def statistic(total: Array) -> Array:
        share = total[..., 2:] / total[..., 2:].sum(axis=-1, keepdims=True)
        chance = weight.sum() / (k * (k - 1)) * (share * (1 - share)).sum(axis=-1)
        return _ratio(_ratio(total[..., 0], total[..., 1]) - chance, 1 - chance)

    some = rated >= 1
    return _estimate(terms[some], groups[some], statistic, "no unit has two ratings", confidence, replicates, seed)


def krippendorff_alpha(
    ratings: ArrayLike | pd.DataFrame,
    *,
    categories: Sequence[float],
    level: Level = "ordinal",
    cluster: ArrayLike | pd.Series | None = None,
    confidence: float = 0.95,
    replicates: int,
    seed: int,
) -> Estimate:
    """Return Krippendorff's alpha.

    Args:
        ratings: Units x raters; NaN is a missing rating. Units with fewer than two are left out.
        categories: As in :func:`raw_agreement`.
        level: Squared difference of two ratings: ``nominal`` 0 or 1; ``ordinal`` by the ratings that lie
            between; ``interval`` by their values.
        cluster: As in :func:`raw_agreement`.
        replicates: Bootstrap samples. The difference of ordinal ratings depends on all of them and so is
            taken anew in each.

    Returns:
        Undefined when all ratings are the same; ``n`` counts units with two or more ratings.

    Raises:
        StatisticsError: a rating is none of the categories, or shapes do not match.

    References:
        Krippendorff (2011), Computing Krippendorff's alpha-reliability; Hayes and Krippendorff (2007),
        Communication Methods and Measures 1, 77-89.

    Examples:
        >>> ratings = [[0, 0], [1, 2], [3, 3], [4, 3], [2, 2], [0, 1]]
        >>> round(krippendorff_alpha(ratings, categories=range(5), replicates=500, seed=1).estimate, 3)
        0.889
    """
    counts, groups, values = _counts(ratings, categories, cluster)
    rated = counts.sum(axis=1)
    paired = rated >= 2
    counts, k = counts[paired], len(values)
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(k)
    terms = (pairs / (rated[paired] - 1)[:, None, None]).reshape(-1, k * k)

    def statistic(total: Array) -> Array:
        coincidences = total.reshape(*total.shape[:-1], k, k)
        marginal = coincidences.sum(axis=-1)
        difference = _difference(marginal, values, level)
        n = marginal.sum(axis=-1)
        observed = (coincidences * difference).sum(axis=(-2, -1))
        expected = np.einsum("...i,...j,...ij->...", marginal, marginal, difference)
        return np.asarray(1 - (n - 1) * _ratio(observed, expected))

    return _estimate(terms, groups[paired], statistic, "one category only", confidence, replicates, seed)


def _coded(
    ratings: ArrayLike | pd.DataFrame, categories: Sequence[float], cluster: ArrayLike | pd.Series | None
) -> tuple[NDArray[np.intp], NDArray[np.intp], Array]:
    """Return ratings as positions among the categories (-1 is missing), cluster codes, and the categories."""
    same_units(ratings=ratings, cluster=cluster)
    cells = matrix("ratings", ratings)
    values = vector("categories", list(categories))
    if len(values) < 2 or (np.diff(values) <= 0).any():
        raise StatisticsError(f"categories must be two or more values in ascending order, not {list(categories)}.")
    place = np.minimum(np.searchsorted(values, np.nan_to_num(cells)), len(values) - 1)
    missing = np.isnan(cells)
    foreign = ~missing & (values[place] != cells)
    if foreign.any():
        raise StatisticsError(
            f"Ratings outside the categories {values.tolist()}: {np.unique(cells[foreign]).tolist()}."
        )
    n = len(cells)
    groups = np.arange(n) if cluster is None else codes("cluster", cluster, n)
    return np.where(missing, -1, place), groups, values


def _counts(
    ratings: ArrayLike | pd.DataFrame, categories: Sequence[float], cluster: ArrayLike | pd.Series | None
) -> tuple[Array, NDArray[np.intp], Array]:
    """Return how often each unit got each category, cluster codes, and the categories."""
    coded, groups, values = _coded(ratings, categories, cluster)
    counts = (coded[:, :, None] == np.arange(len(values))).sum(axis=1).astype(np.float64)
    return counts, groups, values


def _matrix(values: Array, weights: Weights) -> Array:
    """Return what each pair of categories counts as agreement: categories x categories."""
    if weights == "identity":
        return np.eye(len(values))
    distance = np.abs(values[:, None] - values) / np.ptp(values)
    if weights in ("linear", "quadratic"):
        return np.asarray(1 - distance ** (1 if weights == "linear" else 2), dtype=np.float64)
    raise StatisticsError(f"weights must be identity, linear or quadratic, not {weights!r}.")


def _difference(marginal: Array, values: Array, level: Level) -> Array:
    """Return the squared difference of each pair of categories: ... x categories x categories."""
    if level == "nominal":
        return 1 - np.eye(len(values))
    if level == "interval":
        return np.asarray((values[:, None] - values) ** 2)
    if level == "ordinal":
        # Ratings up to the middle of each category; between two categories lies the difference.
        middle = np.cumsum(marginal, axis=-1) - marginal / 2
        return np.asarray((middle[..., :, None] - middle[..., None, :]) ** 2)
    raise StatisticsError(f"level must be nominal, ordinal or interval, not {level!r}.")


def _agreed(counts: Array, weight: Array) -> Array:
    """Return the weighted share of each unit's rater pairs that agree; 0 for units without pairs."""
    rated = counts.sum(axis=1)
    agreed = (counts * (counts @ weight - 1)).sum(axis=1)
    return np.asarray(agreed / np.maximum(rated * (rated - 1), 1) * (rated >= 2))


def _ratio(numerator: Array, denominator: Array) -> Array:
    """Divide; NaN where the denominator is 0."""
    safe = np.where(denominator > 0, denominator, nan)
    return np.asarray(numerator / safe)


def _estimate(
    terms: Array,
    cluster: NDArray[np.intp],
    statistic: Callable[[Array], Array],
    undefined: str,
    confidence: float,
    replicates: int,
    seed: int,
) -> Estimate:
    """Return a statistic of sums over units and its interval over clusters.

    Args:
        terms: Units x summands.
        cluster: Cluster of each unit.
        statistic: Takes ... x summed terms, returns ...; NaN where undefined.
        undefined: Why it is, where it is.
    """
    fraction("confidence", confidence)
    if replicates < 1:
        raise StatisticsError(f"replicates must be at least 1, not {replicates}.")
    n = len(terms)
    _, rows = np.unique(cluster, return_inverse=True)
    groups = int(rows.max()) + 1 if n else 0
    if groups < 2:
        reason = "undefined (fewer than 2 units or clusters with two ratings)"
        return Estimate(nan, n=n, reason=reason)
    estimate = float(statistic(terms.sum(axis=0)))
    if np.isnan(estimate):
        return Estimate(nan, n=n, reason=f"undefined ({undefined})")
    sums = np.zeros((groups, terms.shape[1]))
    np.add.at(sums, rows, terms)
    rng = np.random.default_rng(seed)
    parts = [statistic(draw(rng, groups, size).T @ sums) for size in in_chunks(replicates, groups)]
    return bias_corrected(estimate, np.concatenate(parts), confidence, n)
