"""Correction over a declared family of hypotheses."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from persona_studies.analyse.stats.estimate import fraction
from persona_studies.errors import StatisticsError

Correction = Literal["holm", "bonferroni", "fdr_bh", "none"]


def correct(
    p: pd.Series,
    *,
    size: int,
    alpha: float,
    method: Correction = "holm",
    undefined: Literal["error", "one"] = "error",
) -> pd.DataFrame:
    """Correct the p-values of one family whose size was fixed in advance, by Holm's step-down method.

    Fixed here is what libraries disagree on: what NaN means, that a family is complete, and that a hypothesis is
    rejected exactly when its adjusted p is at most alpha. statsmodels' ``multipletests``, which gives the same
    adjusted p, collects all garbage of the process at each call: a third of a second in a notebook.

    Args:
        p: p-values, indexed by the names of the hypotheses. NaN is a test that is undefined on these data.
        size: Number of hypotheses the protocol declares.
        alpha: Error rate of the family, in (0, 1).
        method: ``holm`` (family-wise error), ``bonferroni``, ``fdr_bh`` (false discovery rate) or ``none``.
        undefined: ``one`` counts an undefined test as p = 1, so that it still takes its place in the family;
            ``error`` refuses it.

    Returns:
        Indexed like ``p``: ``p_adjusted``, ``rejected``, ``family_size``.

    Raises:
        StatisticsError: the number of hypotheses is not ``size``; a name occurs twice; a p-value lies outside
            [0, 1]; one is NaN and ``undefined`` is "error".

    References:
        Holm (1979), Scandinavian Journal of Statistics 6, 65-70.

    Examples:
        >>> p = pd.Series({"model a": 0.01, "model b": 0.04, "model c": float("nan")})
        >>> correct(p, size=3, alpha=0.05, undefined="one")["p_adjusted"].to_dict()
        {'model a': 0.03, 'model b': 0.08, 'model c': 1.0}
    """
    fraction("alpha", alpha)
    adjusted = _adjusted(np.nan_to_num(_declared(p, size, undefined), nan=1.0), method)
    found = {"p_adjusted": adjusted, "rejected": adjusted <= alpha, "family_size": size}
    return pd.DataFrame(found, index=p.index)


def _declared(p: pd.Series, size: int, undefined: str) -> NDArray[np.float64]:
    """Return the p-values of a whole family, or say why they are not those of one."""
    if len(p) != size:
        raise StatisticsError(f"The family is declared with {size} hypotheses, {len(p)} p-values were given.")
    if size == 0:
        raise StatisticsError("A family holds at least one hypothesis.")
    if p.index.has_duplicates:
        twice = ", ".join(map(str, p.index[p.index.duplicated()].unique()))
        raise StatisticsError(f"Hypotheses named more than once: {twice}.")
    try:
        values = p.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise StatisticsError(f"p-values must be numbers: {error}") from error
    missing = np.isnan(values)
    outside = ~missing & ~((values >= 0) & (values <= 1))
    if outside.any():
        raise StatisticsError(f"p outside [0, 1]: {p[outside].to_dict()}.")
    if missing.any() and undefined != "one":
        names = ", ".join(map(str, p.index[missing]))
        raise StatisticsError(f'No p-value for {names}; a family that allows this declares undefined = "one".')
    return values


def _adjusted(p: NDArray[np.float64], method: Correction) -> NDArray[np.float64]:
    """Return adjusted p-values, each at most 1."""
    if method == "fdr_bh":
        return np.asarray(stats.false_discovery_control(p, method="bh"))
    if method == "none":
        return p
    if method == "bonferroni":
        return np.minimum(p * len(p), 1)
    # Holm: the i-th smallest p times the hypotheses that are left, and never below an earlier one.
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(adjusted, 1)
