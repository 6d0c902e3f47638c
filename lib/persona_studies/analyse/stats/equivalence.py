"""Two one-sided tests: whether an effect is small enough to be of no interest."""

from __future__ import annotations

from math import atanh, inf, isnan, nan, sqrt

from scipy import special, stats

from persona_studies.analyse.stats.estimate import fraction
from persona_studies.analyse.stats.paired import paired_counts, tango_score
from persona_studies.errors import StatisticsError


def equivalence_correlation(r: float, n: int, *, margin: float) -> float:
    """Return the larger p of two one-sided tests that a Pearson correlation lies outside ±margin, by Fisher's z.

    Each refers (atanh(r) ± atanh(margin))·sqrt(n - 3) to the normal distribution (Goertzen and Cribbie 2010,
    British Journal of Mathematical and Statistical Psychology 63, 527-537; so does TOSTER).

    Args:
        r: Observed correlation; NaN, such as for a constant variable, is undefined, as are fewer than 4 units.
        margin: Smallest correlation of interest, in (0, 1).

    Raises:
        StatisticsError: r outside [-1, 1], or margin out of range.

    Examples:
        >>> round(equivalence_correlation(0.02, 1000, margin=0.10), 4)
        0.0056
    """
    fraction("margin", margin)
    if abs(r) > 1:
        raise StatisticsError(f"A correlation lies in [-1, 1], not at {r}.")
    if isnan(r) or n < 4:
        return nan
    z = atanh(abs(r)) if abs(r) < 1 else inf
    return float(stats.norm.cdf((z - atanh(margin)) * sqrt(n - 3)))


def equivalence_paired_proportions(b: int, c: int, n: int, *, margin: float) -> tuple[float, float]:
    """Return p of the tests that a difference (b - c)/n of paired proportions is at most -margin, at least margin.

    By Tango's score statistic, so that they are defined without discordant pairs as well, and then depend on n.
    The proportions differ by less than the margin where the larger p is at most alpha; Tango's interval with
    coverage 1 - 2 alpha then lies within ±margin.

    Args:
        b: Pairs with the outcome in the first condition only.
        c: Pairs with the outcome in the second condition only.
        n: All pairs; without any, both p are undefined.
        margin: Smallest difference of interest, in (0, 1).

    Raises:
        StatisticsError: impossible counts, or margin out of range.

    References:
        Tango (1998), Statistics in Medicine 17, 891-908.

    Examples:
        >>> max(equivalence_paired_proportions(40, 41, 1000, margin=0.05)) <= 0.05
        True
        >>> max(equivalence_paired_proportions(0, 0, 20, margin=0.05)) <= 0.05
        False
    """
    fraction("margin", margin)
    b, c, n = paired_counts(b, c, n)
    if n == 0:
        return nan, nan
    lower, upper = (tango_score(b, c, n, limit) for limit in (-margin, margin))
    return float(stats.norm.sf(lower)), float(stats.norm.cdf(upper))


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
