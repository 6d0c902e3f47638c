"""Power of tests of a mean, and the smallest effect that a design can find."""

from __future__ import annotations

from functools import lru_cache
from math import inf, isnan, nan

import numpy as np
from scipy import optimize, special

from persona_studies.analyse.stats.estimate import fraction
from persona_studies.errors import StatisticsError


def power_mean(effect: float, se: float, df: float, *, alpha: float) -> float:
    """Return the power of the two-sided t test of a mean, or of a mean difference.

    Args:
        effect: True mean, in the units of ``se``.
        se: Standard error of the mean; NaN gives NaN.
        df: Degrees of freedom; infinite for the normal distribution, below 1 gives NaN.
        alpha: Error rate of the test. Under Holm, alpha over the size of the family bounds power from below.

    Raises:
        StatisticsError: alpha outside (0, 1), or a negative standard error.

    References:
        Cohen (1988), Statistical Power Analysis, chapter 2; the noncentral t distribution is scipy's.

    Examples:
        >>> round(power_mean(0.5, 0.2, 24, alpha=0.05), 3)  # R: power.t.test(25, .5, type = "one.sample")
        0.67
    """
    fraction("alpha", alpha)
    if se < 0:
        raise StatisticsError(f"A standard error cannot be negative, as {se} is.")
    if isnan(effect) or isnan(se) or df < 1:
        return nan
    if se == 0:
        return 1.0 if effect else alpha
    shift, edge = abs(effect) / se, _edge(df, alpha)
    if df == inf:
        return float(special.ndtr(shift - edge) + special.ndtr(-edge - shift))
    # Not scipy.stats: its checks take fifty times as long, and a family asks hundreds of times. The far tail is NaN
    # in scipy where it is too small to be told from 0.
    return float(special.nctdtr(df, -shift, -edge) + np.nan_to_num(special.nctdtr(df, shift, -edge)))


def _edge(df: float, alpha: float) -> float:
    """Return the value of t from which a two-sided test rejects."""
    return -float(special.ndtri(alpha / 2) if df == inf else special.stdtrit(df, alpha / 2))


def minimum_detectable_mean(se: float, df: float, *, alpha: float, power: float) -> float:
    """Return the smallest mean that a two-sided t test finds with the given power, in the units of ``se``.

    NaN where the power is undefined.

    Raises:
        StatisticsError: alpha or power outside (0, 1), or power not above alpha.

    Examples:
        >>> round(minimum_detectable_mean(0.2, 24, alpha=0.05, power=0.8), 3)
        0.584
    """
    fraction("power", power)
    if power <= alpha:
        raise StatisticsError(f"A power of {power} is not above alpha, {alpha}: any effect has it.")
    if isnan(power_mean(0.0, se, df, alpha=alpha)):
        return nan
    if se == 0:
        return 0.0
    return se * _detectable(df, alpha, power)


@lru_cache(maxsize=1024)
def _detectable(df: float, alpha: float, power: float) -> float:
    """Return the effect in standard errors that is found with the given power; tests of a family share it."""
    # Twenty standard errors are beyond every power at any alpha in use.
    most = _edge(df, alpha) * 4 + 20
    return float(optimize.brentq(lambda d: power_mean(d, 1.0, df, alpha=alpha) - power, 0.0, most))


def units_needed(effect: float, sd: float, *, alpha: float, power: float = 0.8) -> float:
    """Return how many units a two-sided t test of a mean needs for the given power; NaN where that is undefined.

    Args:
        effect: True mean.
        sd: Standard deviation over units.

    Raises:
        StatisticsError: alpha or power outside (0, 1).

    Examples:
        >>> units_needed(0.5, 1.0, alpha=0.05)  # R: power.t.test(power = .8, delta = .5, type = "one.sample"), 33.4
        34
    """
    fraction("power", power)
    if isnan(effect) or isnan(sd) or effect == 0:
        return nan
    if sd == 0:
        return 2
    # The normal distribution needs fewer units than Student's t, which needs few more.
    least = ((special.ndtri(power) - special.ndtri(alpha / 2)) * sd / effect) ** 2
    n = max(2, int(least) - 1)
    while power_mean(effect, sd / n**0.5, n - 1, alpha=alpha) < power:
        n += 1
    return n
