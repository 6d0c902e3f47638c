"""Correlations: interval, equivalence to nothing of interest, and the mean difference they imply."""

from __future__ import annotations

import warnings
from math import atanh, isnan, nan, sqrt, tanh
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from persona_studies.analyse.stats.estimate import CONSTANT, Array, Estimate, complete, fraction, is_constant
from persona_studies.errors import StatisticsError


def correlation(
    x: ArrayLike,
    y: ArrayLike,
    *,
    method: Literal["pearson", "spearman"] = "pearson",
    confidence: float = 0.95,
) -> Estimate:
    """Correlate two variables over units, with a two-sided p-value and an interval by Fisher's z.

    Coefficients and p-values are scipy's (t distribution with n - 2 degrees of freedom). The interval is
    tanh(atanh(r) ± z·se), with se = 1/sqrt(n - 3) for Pearson and sqrt((1 + r²/2)/(n - 3)) for Spearman
    (Bonett and Wright 2000, Psychometrika 65, 23-28). Nothing is rounded, as it is in ``pingouin.corr``.

    Args:
        x: One value per unit; NaN is missing, and the unit is left out.
        y: Likewise. Two Series must have the same index.
        method: ``pearson`` or ``spearman``.

    Returns:
        The correlation; undefined when either variable is constant or fewer than 3 units are complete.

    Raises:
        StatisticsError: units differ between ``x`` and ``y``, or a value is infinite or no number.

    Examples:
        >>> r = correlation([1, 2, 3, 4, 5], [1, 3, 2, 5, 4])
        >>> round(r.estimate, 3), round(r.low, 3), round(r.high, 3)
        (0.8, -0.28, 0.986)
        >>> correlation([1, 2, 3, 4], [0.5, 0.5, 0.5, 0.5]).reason
        'undefined (constant)'
    """
    fraction("confidence", confidence)
    a, b = complete(x=x, y=y)
    n = len(a)
    if n < 3:
        return Estimate(nan, n=n, reason="undefined (fewer than 3 units)")
    if is_constant(a) or is_constant(b):
        return Estimate(nan, n=n, reason=CONSTANT)
    test = stats.pearsonr(a, b) if method == "pearson" else stats.spearmanr(a, b)
    r = float(np.clip(test.statistic, -1, 1))
    if n == 3:
        reason = "interval undefined (3 units)"
        return Estimate(r, n=n, p=float(test.pvalue), reason=reason)
    se = sqrt((1.0 if method == "pearson" else 1 + r**2 / 2) / (n - 3))
    low, high = _fisher_interval(r, se, confidence)
    return Estimate(r, low, high, float(test.pvalue), n)


def pearson(x: Array, y: Array, axis: int = -1) -> Array:
    """Return Pearson correlations along an axis; NaN where constant. A statistic for :func:`bca`."""
    flat = (np.ptp(x, axis=axis) <= 1e-12 * np.abs(x).max(axis=axis)) | (
        np.ptp(y, axis=axis) <= 1e-12 * np.abs(y).max(axis=axis)
    )
    with warnings.catch_warnings():
        # Constant samples come out as NaN below; scipy would warn once per call as well.
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        r = stats.pearsonr(x, y, axis=axis).statistic
    return np.where(flat, nan, r)


def power_correlation(r: float, n: int, *, alpha: float) -> float:
    """Return the power of the two-sided test of a Pearson correlation, by ``pingouin.power_corr``.

    Args:
        r: True correlation; NaN gives NaN.
        n: Units; with fewer than 5 the power is NaN.
        alpha: Error rate of the test. Under Holm, alpha over the size of the family bounds power from below.

    Raises:
        StatisticsError: r outside [-1, 1] or alpha outside (0, 1).

    Examples:
        >>> round(power_correlation(0.10, 275, alpha=0.05), 3)
        0.381
    """
    fraction("alpha", alpha)
    if abs(r) > 1:
        raise StatisticsError(f"A correlation lies in [-1, 1], not at {r}.")
    if isnan(r) or n < 5:
        return nan
    return 1.0 if abs(r) == 1 else _power(r=r, n=n, alpha=alpha)


def minimum_detectable_correlation(n: int, *, alpha: float, power: float) -> float:
    """Return the smallest Pearson correlation that a two-sided test finds with the given power.

    By ``pingouin.power_corr``. NaN with fewer than 5 units.

    Raises:
        StatisticsError: alpha or power outside (0, 1).

    Examples:
        >>> round(minimum_detectable_correlation(275, alpha=0.05, power=0.80), 3)
        0.168
    """
    fraction("alpha", alpha)
    fraction("power", power)
    return _power(n=n, power=power, alpha=alpha) if n >= 5 else nan


def d_from_r(r: float) -> float:
    """Return the standardised mean difference that a correlation implies after one variable is split at its median.

    Let X and Y be standard bivariate normal with correlation r, and let units be split at the median of X. Then
    E[X | X > 0] = 2φ(0) = -E[X | X < 0]. As E[Y | X] = rX, the means of Y differ by 4rφ(0). Between groups Y has a
    quarter of that difference squared as variance; the total is 1, so the pooled within-group variance is
    1 - 4r²φ(0)², and with φ(0)² = 1/(2π)

        d = 2r·sqrt(2/π) / sqrt(1 - 2r²/π), at most 2.65.

    This is not the usual 2r/sqrt(1 - r²), which holds when X *is* the group and is far larger for a strong r.

    Args:
        r: Correlation in [-1, 1]; NaN gives NaN.

    Raises:
        StatisticsError: r outside [-1, 1].

    Examples:
        >>> round(d_from_r(0.868), 2)
        1.92
    """
    if abs(r) > 1:
        raise StatisticsError(f"A correlation lies in [-1, 1], not at {r}.")
    density, spread = float(stats.norm.pdf(0.0)), 0.25
    return float(r * density / spread / np.sqrt(1 - r**2 * density**2 / spread))


def _power(**known: float) -> float:
    # It brings drawing and modelling libraries that few who import these statistics need.
    import pingouin as pg

    return float(pg.power_corr(**known))


def _fisher_interval(r: float, se: float, confidence: float) -> tuple[float, float]:
    if abs(r) == 1 or isnan(r):
        return r, r
    half = float(stats.norm.ppf((1 + confidence) / 2)) * se
    return tanh(atanh(r) - half), tanh(atanh(r) + half)
