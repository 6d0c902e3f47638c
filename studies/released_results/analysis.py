"""One row per test, whatever it tests: estimate, interval, p, smallest detectable difference, equivalence.

Every function returns rows of :data:`COLUMNS`. Correction within the declared families, and over all of them, is
done once, in :func:`corrected`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, nan, sqrt
from typing import Any

import numpy as np
import pandas as pd
from scipy import special
from scipy import stats as sp
from statsmodels.stats.proportion import proportion_confint

from persona_studies.analyse.stats.correlation import correlation, minimum_detectable_correlation
from persona_studies.analyse.stats.equivalence import equivalence_correlation, equivalence_p
from persona_studies.analyse.stats.multiplicity import correct
from persona_studies.analyse.stats.power import minimum_detectable_mean
from persona_studies.design.protocol import Protocol
from released_results.design import Parameters

COLUMNS = (
    *("source", "family", "hypothesis", "unit", "n", "test", "printed", "estimate", "low", "high"),
    *("p", "minimum_detectable", "margin", "p_equivalence", "se"),
)
ADDED = ("family_size", "p_adjusted", "p_global", "rejected", "rejected_global", "equivalent")
"""What :func:`corrected` adds."""
UNPAIRED = "z, unpaired, conservative"


def minimum_detectable(se: float, parameters: Parameters) -> float:
    """Return the smallest difference that a two-sided z test at alpha finds with the parameters' power."""
    return minimum_detectable_mean(se, inf, alpha=parameters.alpha, power=parameters.power)


def difference(
    estimate: float,
    se: float,
    parameters: Parameters,
    *,
    p: float | None = None,
    df: float = inf,
    share: bool = True,
) -> dict[str, float]:
    """Return interval, p, smallest detectable difference and equivalence of a difference with a standard error.

    Equivalence is by two one-sided tests at ``margin``: p is the larger of both. All by Student's t.

    Args:
        p: p of another test of the same hypothesis, such as the z test with a pooled variance.
        df: Degrees of freedom; infinite for the normal distribution.
        share: Whether the outcome is a share; other scales have no margin among the parameters.
    """
    half = float(special.stdtrit(df, 0.5 + parameters.confidence / 2)) * se
    margin = parameters.margin if share else nan
    outside = equivalence_p(estimate, se, margin=margin, df=df) if share else nan
    return {
        "estimate": estimate,
        "low": estimate - half,
        "high": estimate + half,
        "p": float(2 * special.stdtr(df, -abs(estimate) / se)) if p is None else p,
        "minimum_detectable": minimum_detectable(se, parameters),
        "margin": margin,
        "p_equivalence": outside,
        "se": se,
    }


def two_proportions(first: float, second: float, n: int, parameters: Parameters) -> dict[str, float]:
    """Compare two shares of the same n questions as if the questions were not the same.

    z = (first - second) / sqrt(2 q (1 - q) / n) with q their mean. Answers to the same questions are positively
    correlated, which makes the true standard error smaller: the test is conservative.
    """
    pooled = (first + second) / 2
    z = (first - second) / sqrt(2 * pooled * (1 - pooled) / n)
    se = sqrt((first * (1 - first) + second * (1 - second)) / n)
    return difference(first - second, se, parameters, p=float(2 * sp.norm.sf(abs(z))))


def tested_correlation(
    x: Sequence[float] | pd.Series, y: Sequence[float] | pd.Series, parameters: Parameters
) -> dict[str, float]:
    """Return Pearson's r with Fisher's interval, its smallest detectable value, and equivalence at ``margin_r``."""
    found = correlation(np.asarray(x), np.asarray(y), confidence=parameters.confidence)
    return {
        "estimate": found.estimate,
        "low": found.low,
        "high": found.high,
        "p": found.p,
        "n": found.n,
        "minimum_detectable": minimum_detectable_correlation(
            found.n, alpha=parameters.alpha, power=parameters.power
        ),
        "margin": parameters.margin_r,
        "p_equivalence": equivalence_correlation(found.estimate, found.n, margin=parameters.margin_r),
        "se": nan,
    }


def rows(found: list[dict[str, Any]]) -> pd.DataFrame:
    """Return tests as a table with all of :data:`COLUMNS`."""
    return pd.DataFrame(found).reindex(columns=list(COLUMNS))


def wilson(k: int, n: int, parameters: Parameters) -> tuple[float, float]:
    """Return Wilson's interval of a share."""
    low, high = proportion_confint(k, n, alpha=1 - parameters.confidence, method="wilson")
    return float(low), float(high)


# --- Printed proportions --------------------------------------------------------------------------------------


def fits(printed: float, n: int, decimals: int) -> bool:
    """Return whether some k of n rounds to a printed share, half up or half to even.

    >>> fits(0.905, 157, 3), fits(0.702, 423, 3)
    (False, True)
    """
    step = 10.0**-decimals
    k = np.arange(int(np.floor((printed - step) * n)), int(np.ceil((printed + step) * n)) + 1)
    return bool((np.abs(k / n - printed) <= step / 2 + 1e-9).any())


def granularity(printed: pd.DataFrame) -> pd.DataFrame:
    """Say of every printed share whether it can be k of n.

    Args:
        printed: ``source, what, value, n, decimals``; the decimals that are printed.

    Returns:
        The same with ``fits`` and ``nearest``, the closest share that is possible.
    """
    nearest = (printed["value"] * printed["n"]).round() / printed["n"]
    fitting = [fits(*row) for row in zip(printed["value"], printed["n"], printed["decimals"], strict=True)]
    return printed.assign(fits=fitting, nearest=nearest)


# --- Families -------------------------------------------------------------------------------------------------


def corrected(tests: pd.DataFrame, protocol: Protocol, parameters: Parameters) -> pd.DataFrame:
    """Correct every test within its declared family, and over all tests at once.

    A family whose release is not among the parameters' sources is left out. The papers do not correct: in the
    published layer a test decides by its own p.

    Returns:
        ``tests`` and ``family_size, p_adjusted, p_global, rejected, rejected_global, equivalent``.
    """
    tests = tests[tests["source"].isin(parameters.sources)].reset_index(drop=True)
    if tests.empty:
        return tests.assign(**dict.fromkeys(ADDED, pd.Series(dtype=float)))
    method = parameters.correction if parameters.layer == "corrected" else "none"
    parts = []
    for name, found in tests.groupby("family", sort=False):
        family = protocol.families[str(name)]
        p = found.set_index("hypothesis")["p"].reindex(list(family.hypotheses))
        made = correct(p, size=family.size, alpha=parameters.alpha, method=method, undefined=family.undefined)
        parts.append(
            made.loc[found["hypothesis"], ["family_size", "p_adjusted", "rejected"]].set_index(found.index)
        )
    whole = tests.join(pd.concat(parts))
    everything = correct(
        whole["p"], size=len(whole), alpha=parameters.alpha, method=parameters.correction, undefined="one"
    )
    return whole.assign(
        p_global=everything["p_adjusted"],
        rejected_global=everything["rejected"],
        equivalent=whole["p_equivalence"] <= parameters.alpha,
    )
