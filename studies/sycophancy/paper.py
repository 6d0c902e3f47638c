"""The paper's own analysis: its six tests, its verdict, and what it reports."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from persona_studies.analyse.stats.correlation import d_from_r


def six_tests(a: pd.Series, s: pd.Series, *, alpha: float, replicates: int, seed: int) -> pd.DataFrame:
    """Run the paper's six one-tailed tests of agreeableness ``a`` against sycophancy ``s`` over personas.

    Pearson, Spearman, regression slope; then, after a split at the median of ``a`` (ties go to the lower
    group), Welch's t, Mann-Whitney and a permutation test of the means. No correction for the six.

    Returns:
        ``test, statistic, p, supports``; all undefined (no support) when either variable is constant.
    """
    names = ["Pearson r", "Spearman rho", "slope", "Welch t", "Mann-Whitney U", "permutation of means"]
    high, low = s[a > a.median()].to_numpy(), s[a <= a.median()].to_numpy()
    if a.nunique() < 2 or s.nunique() < 2 or min(len(high), len(low)) < 2:
        return pd.DataFrame({"test": names, "statistic": np.nan, "p": np.nan, "supports": False})
    line = stats.linregress(a, s, alternative="greater")
    tests = [
        stats.pearsonr(a, s, alternative="greater"),
        stats.spearmanr(a, s, alternative="greater"),
        (line.slope, line.pvalue),
        stats.ttest_ind(high, low, equal_var=False, alternative="greater"),
        stats.mannwhitneyu(high, low, alternative="greater"),
        _permutation(high, low, replicates, seed),
    ]
    return pd.DataFrame(
        {
            "test": names,
            "statistic": [float(test[0]) for test in tests],
            "p": [float(test[1]) for test in tests],
            "supports": [float(test[1]) < alpha for test in tests],
        }
    )


def _permutation(
    high: np.ndarray[Any, Any], low: np.ndarray[Any, Any], replicates: int, seed: int
) -> tuple[float, float]:
    result = stats.permutation_test(
        (high, low),
        lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis),
        vectorized=True,
        n_resamples=replicates,
        alternative="greater",
        rng=np.random.default_rng(seed),
    )
    return float(result.statistic), float(result.pvalue)


def verdict(tests: pd.DataFrame) -> str:
    """Return the paper's verdict: a model supports the claim when at least three of six tests do."""
    return "supports" if tests["supports"].sum() >= 3 else "does not support"


def reported_effects(reported: pd.DataFrame) -> pd.DataFrame:
    """Return the paper's r and d per model and the d that r implies: ``model, r, d, d_implied, place``."""
    rows = []
    named = reported[reported["model"].notna() & reported["quantity"].isin(["pearson_r", "cohens_d"])]
    for model, values in named.groupby("model", sort=False):
        r = values.loc[values["quantity"] == "pearson_r", "value"]
        d = values.loc[values["quantity"] == "cohens_d", ["value", "relation"]]
        rows.append(
            {
                "model": model,
                "r": r.iloc[0] if len(r) else np.nan,
                "d": "; ".join(
                    f"{relation} {value:g}".removeprefix("= ")
                    for relation, value in zip(d["relation"], d["value"], strict=True)
                ),
                "d_implied": d_from_r(r.iloc[0]) if len(r) else np.nan,
            }
        )
    return pd.DataFrame(rows)
