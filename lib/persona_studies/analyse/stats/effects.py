"""Standardised mean differences."""

from __future__ import annotations

from math import nan, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from persona_studies.analyse.stats.estimate import CONSTANT, Estimate, fraction, vector


def hedges_g(x: ArrayLike, y: ArrayLike, *, confidence: float = 0.95) -> Estimate:
    """Return Hedges' g of two independent samples with its noncentral-t interval.

    g = J·(mean(x) - mean(y))/s with the pooled standard deviation s and the exact correction
    J = Γ(m/2) / (sqrt(m/2)·Γ((m - 1)/2)), m = n_x + n_y - 2 (Hedges 1981, Journal of Educational Statistics
    6, 107-128). The limits are those noncentralities of t(m) for which the observed t is a tail quantile
    (Steiger 2004, Psychological Methods 9, 164-182), scaled like g. ``pingouin`` has the approximate
    correction and a normal-theory interval rounded to two decimals.

    Args:
        x: One value per unit of the first group; NaN is left out.
        y: The second group.

    Returns:
        g, with Student's two-sided p; undefined when a group has fewer than 2 units or both are constant.

    Raises:
        StatisticsError: a value is infinite or no number.

    Examples:
        >>> g = hedges_g([5, 6, 7, 8, 9], [3, 4, 4, 5, 6])
        >>> round(g.estimate, 3), round(g.low, 3), round(g.high, 3)
        (1.703, 0.282, 3.057)
    """
    fraction("confidence", confidence)
    a, b = (values[~np.isnan(values)] for values in (vector("x", x), vector("y", y)))
    n = len(a) + len(b)
    if min(len(a), len(b)) < 2:
        reason = "undefined (a group has fewer than 2 units)"
        return Estimate(nan, n=n, reason=reason)
    df = n - 2
    pooled = sqrt(((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)) / df)
    if pooled <= 1e-12 * max(np.abs(a).max(), np.abs(b).max()):
        return Estimate(nan, n=n, reason=CONSTANT)
    scale = sqrt(1 / len(a) + 1 / len(b))
    t = float((a.mean() - b.mean()) / pooled / scale)
    correction = float(np.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) / sqrt(df / 2))
    tail = (1 - confidence) / 2
    low, high = (_noncentrality(t, df, level) * scale * correction for level in (1 - tail, tail))
    p = float(2 * stats.t.sf(abs(t), df))
    return Estimate(t * scale * correction, low, high, p, n)


def _noncentrality(t: float, df: int, level: float) -> float:
    """Return the noncentrality for which the observed t has cumulative probability ``level``."""

    def excess(centre: float) -> float:
        # scipy gives NaN far out, where the probability is 0 or 1 to all digits.
        probability = special.nctdtr(df, centre, t)
        return float(np.nan_to_num(probability, nan=float(centre < t)) - level)

    # The noncentral t is about normal with this spread, so the root lies well within eight of them.
    width = 8 * sqrt(1 + t**2 / (2 * df)) + 8
    return float(optimize.brentq(excess, t - width, t + width, xtol=1e-12, rtol=1e-12))
