"""Paired comparisons: proportions from discordant pairs, and differences by flipping signs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from math import inf, nan, sqrt

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import optimize, stats

from persona_studies.analyse.stats.estimate import Array, Estimate, codes, fraction, same_units, vector
from persona_studies.analyse.stats.resampling import in_chunks
from persona_studies.errors import StatisticsError

# Units up to which all sign patterns are counted: halves of 2^18 sums take 0.05 s.
MOST_EXACT = 36


def mcnemar(b: int, c: int, n: int, *, confidence: float = 0.95) -> Estimate:
    """Test two paired proportions by McNemar's mid-p, and estimate their difference, (b - c) / n.

    - p is twice the smaller tail of Binomial(b + c, 1/2), counting half of the observed probability
      (Fagerland, Lydersen and Laake 2013, BMC Medical Research Methodology 13:91). For b = c it is 1, also
      without discordant pairs, where ``statsmodels``' asymptotic test has p = 0.
    - The interval is Tango's score interval (1998, Statistics in Medicine 17, 891-908), which is defined for every
      table.

    Args:
        b: Pairs with the outcome in the first condition only.
        c: Pairs with the outcome in the second condition only.
        n: All pairs, concordant ones included.

    Raises:
        StatisticsError: negative or fractional counts, or more discordant pairs than pairs.

    Examples:
        >>> test = mcnemar(1, 7, 21)
        >>> round(test.p, 4), round(test.low, 3), round(test.high, 3)
        (0.0391, -0.517, -0.026)
        >>> mcnemar(0, 0, 30).p
        1.0
    """
    fraction("confidence", confidence)
    b, c, n = paired_counts(b, c, n)
    if n == 0:
        return Estimate(nan, n=n, reason="undefined (no pairs)")
    few, m = min(b, c), b + c
    p = min(1.0, 2 * float(stats.binom.cdf(few, m, 0.5) - stats.binom.pmf(few, m, 0.5) / 2))
    return Estimate((b - c) / n, *tango_interval(b, c, n, confidence=confidence), p, n)


def tango_score(b: int, c: int, n: int, difference: float) -> float:
    """Return Tango's score statistic of a difference of paired proportions, standard normal under it.

    (b - c - nΔ) / sqrt(n(2q + Δ(1 - Δ))), where q is the maximum-likelihood estimate of the probability of
    a pair counted in c, given the difference Δ.
    """
    excess = b - c - n * difference
    spread = _tango_spread(b, c, n, difference)
    if spread > 0:
        return excess / spread
    return 0.0 if excess == 0 else inf * np.sign(excess)


def tango_interval(b: int, c: int, n: int, *, confidence: float) -> tuple[float, float]:
    """Return the differences of paired proportions that Tango's score test does not reject."""
    z = float(stats.norm.ppf((1 + confidence) / 2))
    estimate = (b - c) / n
    # At the estimate itself the statistic is 0/0 when all pairs are concordant; just beside it, it is not.
    beside = 1e-12

    def boundary(difference: float, sign: int) -> float:
        return b - c - n * difference + sign * z * _tango_spread(b, c, n, difference)

    low = -1.0 if c == n else optimize.brentq(boundary, -1, estimate - beside, args=(-1,), xtol=1e-14)
    high = 1.0 if b == n else optimize.brentq(boundary, estimate + beside, 1, args=(1,), xtol=1e-14)
    return float(low), float(high)


def sign_flip(
    differences: ArrayLike,
    *,
    cluster: ArrayLike | pd.Series | None = None,
    replicates: int,
    seed: int,
) -> Estimate:
    """Test that paired differences are symmetric about zero: :func:`sign_flips` for a single hypothesis.

    Args:
        differences: One per unit; NaN is left out.
        cluster: Cluster of each unit, such as the passage that several items share.
        replicates: Sign patterns to draw where not all are counted.

    Returns:
        Mean difference and p; ``n`` counts clusters, or units without clusters. No interval.

    Raises:
        StatisticsError: values are infinite or no numbers, or labels do not match.

    Examples:
        >>> sign_flip([0.2, 0.5, 0.1, 0.4, -0.1], replicates=1000, seed=1).p
        0.1875
    """
    same_units(differences=differences, cluster=cluster)
    values = vector("differences", differences)[:, None]
    return _sign_flips(values, cluster, replicates, seed)[0]


def sign_flips(
    differences: pd.DataFrame,
    *,
    cluster: ArrayLike | pd.Series | None = None,
    replicates: int,
    seed: int,
) -> pd.DataFrame:
    """Test each hypothesis of a family: are its paired differences symmetric about zero?

    The statistic is the absolute mean difference. Each unit's difference keeps or changes its sign with
    probability 1/2; units of one cluster change together. A tie that rounding would break counts as extreme.

    - With at most 36 units (clusters), p is exact: the share of all 2^n sign patterns whose statistic is at least
      the observed one.
    - With more, ``replicates`` patterns are drawn at random and p = (extreme + 1) / (replicates + 1), which is
      valid and never 0 (Phipson and Smyth 2010, Statistical Applications in Genetics and Molecular Biology 9:39).
      Its Monte Carlo standard error is sqrt(p (1 - p) / replicates).

    The patterns are drawn once, for the units, and serve every hypothesis. A p-value therefore depends on the
    units and the seed, not on which other hypotheses are tested or in what order.

    Args:
        differences: Units x hypotheses; NaN is left out of its hypothesis.
        cluster: Cluster of each unit, such as the passage that several items share.
        replicates: Sign patterns to draw where not all are counted.

    Returns:
        One row per hypothesis, indexed like the columns of ``differences``; columns as in :class:`Estimate`:
        mean difference and p; ``n`` counts clusters, or units without clusters. No interval.

    Raises:
        StatisticsError: values are infinite or no numbers, or labels do not match.

    Examples:
        >>> family = pd.DataFrame({"a": [0.2, 0.5, 0.1, 0.4, -0.1], "b": [0.2, -0.5, 0.1, 0.4, float("nan")]})
        >>> sign_flips(family, replicates=1000, seed=1)["p"].to_dict()
        {'a': 0.1875, 'b': 0.875}
    """
    same_units(differences=differences, cluster=cluster)
    columns = [vector(f"differences of {name}", column) for name, column in differences.items()]
    values = np.column_stack(columns) if columns else np.empty((len(differences), 0))
    return pd.DataFrame(
        _sign_flips(values, cluster, replicates, seed),
        index=differences.columns,
        columns=[field.name for field in fields(Estimate)],
    )


def _sign_flips(values: Array, cluster: ArrayLike | pd.Series | None, replicates: int, seed: int) -> list[Estimate]:
    """Return one estimate per column of ``values`` (units x hypotheses)."""
    if replicates < 1:
        raise StatisticsError(f"replicates must be at least 1, not {replicates}.")
    units = len(values)
    labels = np.arange(units) if cluster is None else codes("cluster", cluster, units)
    clusters = int(labels.max()) + 1 if units else 0
    known = ~np.isnan(values)
    sums, counts = np.zeros((clusters, values.shape[1])), np.zeros((clusters, values.shape[1]))
    np.add.at(sums, labels, np.where(known, values, 0.0))
    np.add.at(counts, labels, known)
    n = (counts > 0).sum(axis=0)
    exact = n <= MOST_EXACT
    p = np.full(values.shape[1], nan)
    for column in np.flatnonzero(exact & (n > 0)):
        p[column] = _exact_p(sums[counts[:, column] > 0, column])
    drawn = np.flatnonzero(~exact)
    if drawn.size:
        total, least, extreme = sums[:, drawn].sum(axis=0), _least(sums[:, drawn]), np.zeros(len(drawn))
        for kept in _random_signs(clusters, replicates, len(drawn), np.random.default_rng(seed)):
            extreme += (np.abs(2 * (kept @ sums[:, drawn]) - total) >= least).sum(axis=0)
        p[drawn] = (extreme + 1) / (replicates + 1)
    found = []
    for hypothesis in range(values.shape[1]):
        if n[hypothesis] == 0:
            found.append(Estimate(nan, n=0, reason="undefined (no differences)"))
            continue
        estimate = float(values[known[:, hypothesis], hypothesis].mean())
        found.append(Estimate(estimate, p=float(p[hypothesis]), n=int(n[hypothesis])))
    return found


def _exact_p(d: Array) -> float:
    """Return the share of all 2^n sign patterns of ``d`` whose sum is at least as far from 0 as the observed one.

    The sums of one half of the values under all its patterns are looked up among those of the other half, which
    takes 2^(n/2) steps (Horowitz and Sahni 1974, Journal of the ACM 21, 277-292).
    """
    least = _least(d)
    if least <= 0:
        return 1.0
    one, other = (_signed_sums(half) for half in np.array_split(d, 2))
    above = len(other) - np.searchsorted(np.sort(other), least - one)
    # Turning every sign turns the sum: both tails are alike.
    return float(2 * above.sum() / 2.0 ** len(d))


def _signed_sums(d: Array) -> Array:
    """Return the sums of the values under all sign patterns."""
    sums = np.zeros(1)
    for value in d:
        sums = np.concatenate([sums - value, sums + value])
    return sums


def _least(sums: Array) -> Array:
    """Return how far from 0 a sum must lie to count as extreme, per column; ties count."""
    bound: Array = np.abs(sums.sum(axis=0)) - 1e-12 * np.abs(sums).sum(axis=0)
    return bound


def _random_signs(n: int, replicates: int, hypotheses: int, rng: np.random.Generator) -> Iterator[Array]:
    """Yield random patterns of n signs in chunks: patterns x n, 1 where a sign is kept, 0 where it is changed.

    A pattern takes whole words of 64 bits, so that the chunks' size does not change what is drawn.
    """
    width = 8 * -(-n // 64)
    for size in in_chunks(replicates, max(n, hypotheses)):
        drawn = np.frombuffer(rng.bytes(size * width), dtype=np.uint8).reshape(size, width)
        yield np.unpackbits(drawn, axis=1, count=n).astype(np.float64)


def paired_counts(b: int, c: int, n: int) -> tuple[int, int, int]:
    for name, count in (("b", b), ("c", c), ("n", n)):
        if not (np.isfinite(count) and count >= 0 and int(count) == count):
            raise StatisticsError(f"{name} must be a count, not {count}.")
    if b + c > n:
        raise StatisticsError(f"{b} + {c} discordant pairs among {n} pairs.")
    return int(b), int(c), int(n)


def _tango_spread(b: int, c: int, n: int, difference: float) -> float:
    """Return the standard deviation of b - c at the constrained maximum-likelihood estimate."""
    linear = (2 * n - b + c) * difference - b - c
    constant = -c * difference * (1 - difference)
    q = (sqrt(max(0.0, linear**2 - 8 * n * constant)) - linear) / (4 * n)
    return sqrt(max(0.0, n * (2 * q + difference * (1 - difference))))
