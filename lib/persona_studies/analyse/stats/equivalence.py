"""Two one-sided tests: whether an effect is small enough to be of no interest."""

from __future__ import annotations

from dataclasses import dataclass
from math import atanh, inf, isnan, nan, sqrt, tanh

from scipy import special, stats

from persona_studies.analyse.stats.estimate import fraction
from persona_studies.analyse.stats.paired import paired_counts, tango_interval, tango_score
from persona_studies.errors import StatisticsError


@dataclass(frozen=True)
class Equivalence:
    """Result of two one-sided tests.

    Attributes:
        estimate: The effect.
        low: Lower limit of the interval with coverage 1 - 2 alpha.
        high: Upper limit.
        margin: Effects between -margin and margin are of no interest.
        p_lower: p-value of an effect at or below -margin.
        p_upper: p-value of an effect at or above margin.
        p: The larger of both.
        equivalent: Whether p is at most alpha; the interval then lies within the margins.
        alpha: Error rate of each test.
        n: Units, or pairs.
        method: Statistic used.
        reason: Why undefined; empty otherwise.
    """

    estimate: float
    low: float
    high: float
    margin: float
    p_lower: float
    p_upper: float
    p: float
    equivalent: bool
    alpha: float
    n: int
    method: str
    reason: str = ""


def equivalence_correlation(r: float, n: int, *, margin: float, alpha: float) -> Equivalence:
    """Test whether a Pearson correlation lies within ±margin, by Fisher's z.

    Each one-sided test refers (atanh(r) ± atanh(margin))·sqrt(n - 3) to the normal distribution (Goertzen and
    Cribbie 2010, British Journal of Mathematical and Statistical Psychology 63, 527-537; so does TOSTER).

    Args:
        r: Observed correlation; NaN, such as for a constant variable, is undefined.
        margin: Smallest correlation of interest, in (0, 1).
        alpha: Error rate of each test, in (0, 0.5).

    Raises:
        StatisticsError: r outside [-1, 1], or margin or alpha out of range.

    Examples:
        >>> test = equivalence_correlation(0.02, 1000, margin=0.10, alpha=0.05)
        >>> test.equivalent, round(test.p, 4), round(test.high, 3)
        (True, 0.0056, 0.072)
    """
    fraction("margin", margin)
    _check_alpha(alpha)
    if abs(r) > 1:
        raise StatisticsError(f"A correlation lies in [-1, 1], not at {r}.")
    method = "TOST, Fisher z"
    if isnan(r) or n < 4:
        reason = "undefined (no correlation)" if isnan(r) else "undefined (fewer than 4 units)"
        return Equivalence(r, nan, nan, margin, nan, nan, nan, False, alpha, n, method, reason)
    z = atanh(r) if abs(r) < 1 else inf * r
    root = sqrt(n - 3)
    half = float(stats.norm.isf(alpha)) / root
    p_lower = float(stats.norm.sf((z + atanh(margin)) * root))
    p_upper = float(stats.norm.cdf((z - atanh(margin)) * root))
    p = max(p_lower, p_upper)
    return Equivalence(r, tanh(z - half), tanh(z + half), margin, p_lower, p_upper, p, p <= alpha, alpha, n, method)


def equivalence_paired_proportions(b: int, c: int, n: int, *, margin: float, alpha: float) -> Equivalence:
    """Test whether two paired proportions differ by less than a margin, by Tango's score statistic.

    Args:
        b: Pairs with the outcome in the first condition only.
        c: Pairs with the outcome in the second condition only.
        margin: Smallest difference of interest, in (0, 1).
        alpha: Error rate of each test, in (0, 0.5).

    Returns:
        On the difference (b - c)/n; the interval is Tango's. Without discordant pairs the tests are defined
        as well, and depend on n.

    Raises:
        StatisticsError: impossible counts, or margin or alpha out of range.

    References:
        Tango (1998), Statistics in Medicine 17, 891-908.

    Examples:
        >>> equivalence_paired_proportions(40, 41, 1000, margin=0.05, alpha=0.05).equivalent
        True
        >>> equivalence_paired_proportions(0, 0, 20, margin=0.05, alpha=0.05).equivalent
        False
    """
    fraction("margin", margin)
    _check_alpha(alpha)
    b, c, n = paired_counts(b, c, n)
    method = "TOST, Tango score"
    if n == 0:
        return Equivalence(nan, nan, nan, margin, nan, nan, nan, False, alpha, 0, method, "undefined (no pairs)")
    p_lower = float(stats.norm.sf(tango_score(b, c, n, -margin)))
    p_upper = float(stats.norm.cdf(tango_score(b, c, n, margin)))
    low, high = tango_interval(b, c, n, confidence=1 - 2 * alpha)
    p = max(p_lower, p_upper)
    return Equivalence((b - c) / n, low, high, margin, p_lower, p_upper, p, p <= alpha, alpha, n, method)


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 0.5:
        raise StatisticsError(f"alpha must lie strictly between 0 and 0.5, not {alpha}.")


def equivalence_p(estimate: float, se: float, *, margin: float, df: float = inf) -> float:
    """Return the larger p of two one-sided tests that an effect lies outside ±margin.

    Args:
        se: Its standard error; with an upper bound of it, p is an upper bound wherever the estimate lies inside
            the margins, and at least .5 elsewhere. NaN is undefined.
        margin: Smallest effect of interest, positive.
        df: Degrees of freedom of Student's t; infinite for the normal distribution.

    Raises:
        StatisticsError: margin or se is not positive.

    References:
        Schuirmann (1987), Journal of Pharmacokinetics and Biopharmaceutics 15, 657-680.

    Examples:
        >>> round(equivalence_p(0.01, 0.02, margin=0.05), 4)
        0.0228
    """
    if not margin > 0:
        raise StatisticsError(f"An equivalence margin must be positive, not {margin}.")
    if se <= 0:
        raise StatisticsError(f"A standard error must be positive, not {se}.")
    return float(special.stdtr(df, (abs(estimate) - margin) / se))
