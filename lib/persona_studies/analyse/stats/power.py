"""Power of tests of a mean, and the smallest effect that a design can find."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import inf, isnan, nan

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special
from scipy import stats as distributions

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


def power_share(effect: float, n: int, *, null: float, alpha: float) -> float:
    """Return the power of the exact two-sided binomial test of a share, which rises in steps with the units.

    Args:
        effect: True share less the null value.
        n: Units.
        null: Value that is tested.
        alpha: Error rate of the test.

    Examples:
        >>> round(power_share(0.3, 16, null=0.5, alpha=0.05), 3)  # R: sum(dbinom(c(0:3, 13:16), 16, .8))
        0.598
    """
    fraction("alpha", alpha)
    successes = _rejecting(n, null, alpha)
    return float(distributions.binom.pmf(successes, n, null + effect).sum())


@lru_cache(maxsize=1024)
def _rejecting(n: int, null: float, alpha: float) -> NDArray[np.int_]:
    """Return the numbers of successes that the exact test of a share rejects."""
    under = distributions.binom.pmf(np.arange(n + 1), n, null)
    # As probable as what was found, or less: scipy's binomtest and R's binom.test allow for rounding likewise.
    ascending = np.sort(under)
    p = np.cumsum(ascending)[np.searchsorted(ascending, under * (1 + 1e-7), side="right") - 1]
    return np.flatnonzero(p <= alpha)


def p_of_more(p: float, ratio: float, *, sides: int = 2) -> float:
    """Return the p-value of so many times the units, were the estimate and the spread of units as found.

    A p-value, of whatever test, stands for a normal deviate, which grows with the root of the number of units.

    Args:
        p: Of the test that was made; NaN gives NaN.
        ratio: Units over those of the test.
        sides: 1 for a test that an effect is small, which grows towards 1 where the effect lies outside.

    Examples:
        >>> round(p_of_more(0.05, 2), 4), round(p_of_more(0.7, 2, sides=1), 3)
        (0.0056, 0.771)
    """
    return float(sides * special.ndtr(special.ndtri(p / sides) * ratio**0.5))


def units_that_decide(decides: Callable[[int], bool], n: int, *, most: int = 10**8) -> float:
    """Return the number of units with which a question is decided, and with one unit fewer is not.

    More units may open a question again, as where all effects are small before some are significant. Numbers are
    tried in steps of a twentieth, so that a stretch that is shorter may be passed over.

    Args:
        decides: Number of units -> whether the question is decided.
        n: Units at hand, with which it is not.
        most: Beyond this nothing is looked for; the number is then infinite.

    Examples:
        >>> units_that_decide(lambda n: n >= 1000, 12), units_that_decide(lambda n: False, 12)
        (1000, inf)
    """
    low, high = n, n + 1
    while not decides(high):
        if high >= most:
            return inf
        low, high = high, high + max(1, high // 20)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high
