"""Least squares with standard errors for crossed clusters."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import nan
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from persona_studies.analyse.stats.estimate import CONSTANT, fraction, is_constant
from persona_studies.errors import StatisticsError


def clustered_ols(
    formula: str, data: pd.DataFrame, *, groups: Sequence[str], confidence: float = 0.95
) -> pd.DataFrame:
    """Fit least squares with standard errors clustered one way, or two ways at once.

    Two ways are Cameron, Gelbach and Miller's (2011, Journal of Business and Economic Statistics 29,
    238-249): the variance clustered on the first, plus that on the second, minus that on their combinations,
    each with its small-sample factor G/(G - 1)·(N - 1)/(N - K). Tests refer to t with as many degrees of
    freedom as the smaller number of clusters less one. statsmodels computes all this; added here is that
    clusters may have names, that rows it drops as incomplete are dropped from the clusters too, and that a
    variance that comes out negative is said to be.

    Args:
        formula: Such as ``"agree ~ agreeableness"``.
        data: One row per observation.
        groups: One or two columns of ``data``, such as persona and prompt.
        confidence: Coverage.

    Returns:
        Indexed by ``term``: ``estimate, se, t, df, p, low, high, n, reason``. Undefined for a constant
        response and for collinear predictors, where statsmodels returns numbers made of rounding.

    Raises:
        StatisticsError: not one or two groups, a group column or labels missing, or fewer than two clusters.

    Examples:
        >>> data = pd.DataFrame({
        ...     "agree": [0.1, 0.4, 0.3, 0.9, 0.2, 0.6, 0.5, 0.8],
        ...     "trait": [1, 1, 2, 2, 3, 3, 4, 4],
        ...     "persona": list("aabbccdd"),
        ... })
        >>> table = clustered_ols("agree ~ trait", data, groups=["persona"])
        >>> float(table.loc["trait", "estimate"].round(3)), float(table.loc["trait", "df"])
        (0.1, 3.0)
    """
    fraction("confidence", confidence)
    model, used = _clustered(formula, data, groups)
    if reason := _degenerate(model.endog, model.exog):
        return _undefined(model.exog_names, len(model.endog), reason)
    labels = np.column_stack([pd.factorize(used[name])[0] for name in groups])
    with warnings.catch_warnings():
        # The root of a negative variance; the reason below says so.
        warnings.filterwarnings("ignore", "invalid value encountered in sqrt", RuntimeWarning)
        fit = model.fit(cov_type="cluster", cov_kwds={"groups": labels.squeeze()}, use_t=True)
        se, ratio, p = (np.asarray(values) for values in (fit.bse, fit.tvalues, fit.pvalues))
        limits = fit.conf_int(alpha=1 - confidence).to_numpy()
    return pd.DataFrame(
        {
            "estimate": fit.params.to_numpy(),
            "se": se,
            "t": ratio,
            "df": float(used.nunique().min() - 1),
            "p": p,
            "low": limits[:, 0],
            "high": limits[:, 1],
            "n": int(fit.nobs),
            "reason": np.where(np.isnan(se), "standard error undefined (variance not positive)", ""),
        },
        index=pd.Index(fit.params.index, name="term"),
    )


def _clustered(formula: str, data: pd.DataFrame, groups: Sequence[str]) -> tuple[Any, pd.DataFrame]:
    """Return a model of the complete rows, and the clusters of these rows."""
    if len(groups) not in (1, 2):
        raise StatisticsError(f"Standard errors are clustered on one or two groups, not {len(groups)}.")
    absent = [name for name in groups if name not in data.columns]
    if absent:
        raise StatisticsError(f"No column {', '.join(absent)}; there are {', '.join(map(str, data.columns))}.")
    rows = data.reset_index(drop=True)
    # Only here: most studies fit no model, and the import takes a quarter of a second.
    import statsmodels.formula.api as smf

    model = smf.ols(formula, rows, missing="drop")
    used = rows.loc[model.data.row_labels, list(groups)]
    if used.isna().any(axis=None):
        raise StatisticsError(f"Missing labels in {', '.join(groups)}.")
    if (used.nunique() < 2).any():
        raise StatisticsError(f"Fewer than two clusters: {used.nunique().to_dict()}.")
    return model, used


def _degenerate(endog: NDArray[np.float64], exog: NDArray[np.float64]) -> str:
    """Say why a model has no estimates; empty where it has."""
    if is_constant(endog):
        return CONSTANT
    if np.linalg.matrix_rank(exog) < exog.shape[1]:
        return "undefined (predictors are constant or collinear)"
    return ""


def _undefined(terms: Sequence[str], n: int, reason: str) -> pd.DataFrame:
    columns = dict.fromkeys(("estimate", "se", "t", "df", "p", "low", "high"), nan)
    return pd.DataFrame(columns | {"n": n, "reason": reason}, index=pd.Index(terms, name="term"))
