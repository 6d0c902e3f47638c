"""Random-effects combination of one effect over several models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import nan, sqrt, tanh

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from persona_studies.analyse.stats.estimate import Array, fraction, is_constant, vector
from persona_studies.errors import StatisticsError


@dataclass(frozen=True)
class RandomEffects:
    """Mean effect, and how much effects differ between models.

    Attributes:
        estimate: Mean of the effects' distribution.
        low: Lower limit of its interval.
        high: Upper limit.
        p: Two-sided p-value of a mean of zero.
        se: Standard error the interval rests on.
        prediction_low: Lower limit for the effect in a further model.
        prediction_high: Upper limit.
        tau2: Variance of true effects between models.
        i2: Share of the variation that is not sampling error, (Q - df)/Q, at least 0.
        q: Cochran's Q.
        q_p: p-value of no variation between models.
        k: Effects that entered.
        confidence: Coverage of both intervals.
        reason: What is undefined, or was left out, and why.
    """

    estimate: float
    low: float = nan
    high: float = nan
    p: float = nan
    se: float = nan
    prediction_low: float = nan
    prediction_high: float = nan
    tau2: float = nan
    i2: float = nan
    q: float = nan
    q_p: float = nan
    k: int = 0
    confidence: float = nan
    reason: str = ""


def random_effects(
    effects: ArrayLike,
    variances: ArrayLike,
    *,
    confidence: float = 0.95,
) -> RandomEffects:
    """Combine effects by a random-effects model.

    Effects are weighted by 1/(variance + tau²), tau² by Paule and Mandel (1982). The interval is that of Hartung,
    Knapp, Sidik and Jonkman with t(k - 1), better with few models than a normal one. The prediction interval is
    estimate ± t(k - 2)·sqrt(tau² + se²), with the se of the normal interval (Higgins, Thompson and Spiegelhalter
    2009, JRSS A 172, 137-159). ``statsmodels.stats.meta_analysis.combine_effects`` is not used: its Paule-Mandel
    iteration returns tau² = 0 when rounding carries it past the root.

    Args:
        effects: One per model, on a scale where sampling errors are about normal; NaN (undefined there) is
            left out, and the reason says how many were.
        variances: Sampling variance of each.

    Returns:
        With one effect: that effect and its normal interval, the rest undefined. Without: all undefined.

    Raises:
        StatisticsError: lengths differ, or a variance is not positive.

    Examples:
        >>> pooled = random_effects([0.10, 0.30, 0.35, 0.60], [0.02, 0.03, 0.02, 0.04])
        >>> round(pooled.estimate, 3), round(pooled.low, 3), round(pooled.high, 3), round(pooled.tau2, 4)
        (0.311, -0.002, 0.623, 0.0126)
    """
    fraction("confidence", confidence)
    y, v = vector("effects", effects), vector("variances", variances)
    if len(y) != len(v):
        raise StatisticsError(f"{len(y)} effects but {len(v)} variances.")
    usable = ~np.isnan(y)
    y, v = y[usable], v[usable]
    if not (v > 0).all():
        raise StatisticsError(f"Sampling variances must be positive: {v.tolist()}.")
    k = len(y)
    left_out = f"{(~usable).sum()} of {len(usable)} effects undefined, left out" if k < len(usable) else ""
    if k < 2:
        few = "undefined (no effect)" if k == 0 else "one effect: variation between models undefined"
        reason = "; ".join(filter(None, [few, left_out]))
        alone = RandomEffects(nan, k=k, confidence=confidence, reason=reason)
        return alone if k == 0 else _of_one(alone, float(y[0]), sqrt(v[0]))
    return _pooled(y, v, confidence, left_out)


def _of_one(alone: RandomEffects, effect: float, se: float) -> RandomEffects:
    """Return one effect with its normal interval."""
    half = float(stats.norm.ppf((1 + alone.confidence) / 2)) * se
    p = float(2 * stats.norm.sf(abs(effect) / se))
    return replace(alone, estimate=effect, low=effect - half, high=effect + half, p=p, se=se)


def _pooled(y: Array, v: Array, confidence: float, left_out: str) -> RandomEffects:
    """Combine at least two effects; ``left_out`` says how many others were undefined."""
    k, df = len(y), len(y) - 1
    q = _heterogeneity(y, v, 0.0)
    tau2 = _paule_mandel(y, v)
    weights = 1 / (v + tau2)
    mean = float(weights @ y / weights.sum())
    se = float(1 / np.sqrt(weights.sum()))
    reasons = [left_out]
    if k == 2:
        reasons.append("prediction interval undefined (2 effects)")
    used = se * sqrt(_heterogeneity(y, v, tau2) / df)
    if is_constant(y):
        used = nan
        reasons.append("HKSJ interval undefined (identical effects)")
    half = float(stats.t.ppf((1 + confidence) / 2, df)) * used
    further = float(stats.t.ppf((1 + confidence) / 2, k - 2)) * sqrt(tau2 + se**2) if k > 2 else nan
    return RandomEffects(
        estimate=mean,
        low=mean - half,
        high=mean + half,
        p=float(2 * stats.t.sf(abs(mean) / used, df)),
        se=used,
        prediction_low=mean - further,
        prediction_high=mean + further,
        tau2=tau2,
        i2=max(0.0, 1 - df / q) if q > 0 else 0.0,
        q=q,
        q_p=float(stats.chi2.sf(q, df)),
        k=k,
        confidence=confidence,
        reason="; ".join(filter(None, reasons)),
    )


def random_effects_correlation(r: ArrayLike, n: ArrayLike, *, confidence: float = 0.95) -> RandomEffects:
    """Combine Pearson correlations by :func:`random_effects` on Fisher's z, with variance 1/(n - 3).

    Args:
        r: One correlation per model; NaN is left out.
        n: Units behind each.

    Returns:
        Estimate and both intervals transformed back to correlations; ``se`` and ``tau2`` stay on the scale of
        z. All undefined when a correlation is exactly 1 or -1, whose z is infinite.

    Raises:
        StatisticsError: a correlation outside [-1, 1], or fewer than 4 units behind one.

    Examples:
        >>> pooled = random_effects_correlation([0.3, 0.5, 0.4], [100, 120, 90])
        >>> round(pooled.estimate, 3), pooled.k
        (0.408, 3)
    """
    values, units = vector("r", r), vector("n", n)
    known = ~np.isnan(values)
    if (np.abs(values[known]) > 1).any():
        raise StatisticsError(f"A correlation lies in [-1, 1]: {values.tolist()}.")
    if len(values) != len(units) or not (units[known] > 3).all():
        raise StatisticsError("Each correlation needs the number of units behind it, at least 4.")
    if (np.abs(values[known]) == 1).any():
        reason = "undefined (a correlation is exactly 1 or -1)"
        return RandomEffects(nan, k=int(known.sum()), confidence=confidence, reason=reason)
    z = random_effects(
        np.arctanh(values),
        np.where(known, 1 / (units - 3), nan),
        confidence=confidence,
    )
    return replace(
        z,
        estimate=tanh(z.estimate),
        low=tanh(z.low),
        high=tanh(z.high),
        prediction_low=tanh(z.prediction_low),
        prediction_high=tanh(z.prediction_high),
    )


def _heterogeneity(y: Array, v: Array, tau2: float) -> float:
    """Return the weighted sum of squared deviations from the mean; Cochran's Q where tau² is 0."""
    weights = 1 / (v + tau2)
    return float(weights @ (y - weights @ y / weights.sum()) ** 2)


def _paule_mandel(y: Array, v: Array) -> float:
    """Return the tau² for which the generalised Q equals its expectation, k - 1 (Paule and Mandel 1982)."""
    df = len(y) - 1
    if _heterogeneity(y, v, 0.0) <= df:
        return 0.0
    # With all weights at most 1/tau², Q is at most this sum over tau².
    most = float(((y - y.mean()) ** 2).sum()) / df
    return float(optimize.brentq(lambda t: _heterogeneity(y, v, t) - df, 0.0, most, xtol=1e-14, rtol=1e-12))
