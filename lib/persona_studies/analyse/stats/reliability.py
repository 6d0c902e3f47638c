"""Reliability of scores: internal consistency, split halves, disattenuation."""

from __future__ import annotations

from math import nan

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from persona_studies.analyse.stats.correlation import pearson
from persona_studies.analyse.stats.estimate import Estimate, codes, is_constant, matrix, same_units
from persona_studies.errors import StatisticsError


def omega(items: ArrayLike | pd.DataFrame) -> Estimate:
    """Return McDonald's omega total of a scale with one common factor.

    The one-factor model is fitted to the correlations of the items by iterated principal axes (statsmodels),
    whose fixed point is the minimum-residual solution. With loadings λ and uniquenesses ψ = 1 - λ²,
    omega = (Σλ)² / ((Σλ)² + Σψ): the share of the common factor in the sum of standardised items.

    Items are not turned around: a negative loading lowers omega, as it should when an item was keyed wrongly.

    Args:
        items: Units x items, keyed in one direction; units with a missing item are left out.

    Returns:
        Omega; undefined for fewer than three items (the factor is not identified), no more units than items,
        constant items, or a Heywood case (an item without unique variance).

    Raises:
        StatisticsError: ``items`` is no matrix of finite numbers.

    References:
        McDonald (1999), Test Theory, equation 6.20a; Revelle and Zinbarg (2009), Psychometrika 74, 145-154.

    Examples:
        >>> rng = np.random.default_rng(1)
        >>> scale = rng.normal(size=(500, 1)) + rng.normal(size=(500, 6))
        >>> round(omega(scale).estimate, 2)
        0.83
    """
    scores = matrix("items", items)
    scores = scores[~np.isnan(scores).any(axis=1)]
    n, k = scores.shape
    if k < 3:
        return Estimate(nan, n=n, reason="undefined (fewer than 3 items)")
    if n <= k:
        return Estimate(nan, n=n, reason=f"undefined ({n} units for {k} items)")
    flat = [position for position in range(k) if is_constant(scores[:, position])]
    if flat:
        names = items.columns[flat] if isinstance(items, pd.DataFrame) else flat
        return Estimate(nan, n=n, reason=f"undefined (constant: {', '.join(map(str, names))})")
    from statsmodels.multivariate.factor import Factor

    correlations = np.corrcoef(scores, rowvar=False)
    singular = np.linalg.matrix_rank(correlations) < k
    fit = Factor(corr=correlations, n_factor=1, method="pa", smc=not singular).fit(maxiter=10_000, tol=1e-10)
    loadings = np.asarray(fit.loadings)[:, 0]
    if (loadings**2 > 1 - 1e-6).any():
        return Estimate(nan, n=n, reason="undefined (Heywood case)")
    common = loadings.sum() ** 2
    return Estimate(float(common / (common + (1 - loadings**2).sum())), n=n)


def spearman_brown(r: float, parts: int = 2) -> float:
    """Return the reliability of the mean of ``parts`` parallel parts from that of one, k r / (1 + (k - 1) |r|).

    With two parts it is the reliability of a whole from the correlation of its halves. The absolute
    value keeps the result in [-1, 1] when the halves disagree, where the formula without it runs off
    to minus infinity.

    Examples:
        >>> round(spearman_brown(0.6), 6), round(spearman_brown(0.5, 4), 6)
        (0.75, 0.8)
    """
    if abs(r) > 1:
        raise StatisticsError(f"A correlation lies in [-1, 1], not at {r}.")
    return parts * r / (1 + (parts - 1) * abs(r))


def split_half(
    values: ArrayLike | pd.DataFrame,
    *,
    column_cluster: ArrayLike | pd.Series | None = None,
    replicates: int,
    seed: int,
) -> Estimate:
    """Return the mean split-half reliability of row means over random halves of the columns.

    Each split puts half of the columns (one fewer for an odd number) on one side, correlates the two row
    means over rows, and corrects to full length with :func:`spearman_brown`.

    Args:
        values: Rows (personas) x columns (prompts); NaN is a missing cell.
        column_cluster: Columns with the same label stay on one side, such as a claim and its mirror.

    Returns:
        Undefined for fewer than 3 rows or 2 columns, or when a half is constant or misses a row altogether.

    Raises:
        StatisticsError: ``values`` is no matrix of finite numbers.

    Examples:
        >>> rng = np.random.default_rng(1)
        >>> values = rng.normal(size=(300, 1)) + rng.normal(size=(300, 8))
        >>> round(split_half(values, replicates=200, seed=1).estimate, 2)
        0.88
    """
    if isinstance(values, pd.DataFrame):
        same_units(columns=values.T, column_cluster=column_cluster)
    cells = matrix("values", values)
    cells = cells[~np.isnan(cells).all(axis=1)]
    n, width = cells.shape
    columns = np.arange(width) if column_cluster is None else codes("column_cluster", column_cluster, width)
    k = int(columns.max()) + 1
    if n < 3 or k < 2:
        return Estimate(nan, n=n, reason="undefined (fewer than 3 rows or 2 columns)")
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.broadcast_to(np.arange(k), (replicates, k)), axis=1)
    first = (order < k // 2)[:, columns].T.astype(np.float64)
    known = (~np.isnan(cells)).astype(np.float64)
    filled = np.nan_to_num(cells)
    drawn, rest = known @ first, known @ (1 - first)
    if (drawn == 0).any() or (rest == 0).any():
        return Estimate(nan, n=n, reason="undefined (a row has no cell in one half)")
    r = pearson(filled @ first / drawn, filled @ (1 - first) / rest, axis=0)
    if np.isnan(r).any():
        return Estimate(nan, n=n, reason="undefined (constant)")
    return Estimate(float(np.mean(2 * r / (1 + np.abs(r)))), n=n)
