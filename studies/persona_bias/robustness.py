"""Personas combined over datasets, BBQ's contexts, mitigations, and other models of the same data."""

from __future__ import annotations

from math import nan, sqrt
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy import stats
from statsmodels.discrete.conditional_models import ConditionalLogit

from persona_bias.analysis import by_question, contrast
from persona_bias.design import Parameters
from persona_studies.analyse import multiple_choice as shared
from persona_studies.analyse import stats as lib_stats
from persona_studies.design.protocol import Protocol


def meta_analysis(table: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Combine each persona's differences over datasets by a random-effects model.

    Args:
        table: Of :func:`by_dataset`.
        chosen: Confidence.

    Returns:
        ``persona, datasets, estimate, low, high, p, tau, i2, prediction_low, prediction_high, leave_one_out_low,
        leave_one_out_high`` (range of the estimate without one dataset). A dataset without any difference has no
        standard error and is left out.
    """
    rows = []
    for persona, group in table.groupby("persona", sort=False):
        kept = group[group["se"] > 0]
        y, v = kept["difference"].to_numpy(), kept["se"].to_numpy() ** 2
        whole = lib_stats.random_effects(y, v, confidence=chosen.confidence)
        without = [
            lib_stats.random_effects(np.delete(y, k), np.delete(v, k), confidence=chosen.confidence).estimate
            for k in range(len(y))
            if len(y) > 1
        ]
        rows.append(
            {
                "persona": persona,
                "datasets": whole.k,
                "estimate": whole.estimate,
                "low": whole.low,
                "high": whole.high,
                "p": whole.p,
                "tau": sqrt(whole.tau2) if whole.k > 1 else nan,
                "i2": whole.i2,
                "prediction_low": whole.prediction_low,
                "prediction_high": whole.prediction_high,
                "leave_one_out_low": min(without, default=nan),
                "leave_one_out_high": max(without, default=nan),
            }
        )
    return pd.DataFrame(rows)


def bbq(scored: pd.DataFrame, protocol: Protocol, chosen: Parameters) -> pd.DataFrame:
    """Return BBQ's two kinds of context apart, per persona against the baseline.

    Where the context leaves the answer open, the right option is the unknown one: its share is the accuracy there.
    The paper's bias score needs to know which answer is the stereotyped one, which the files at hand do not say.

    Returns:
        ``hypothesis`` (persona), ``domain`` (ambiguous, disambiguated), ``accuracy, reference, unknown`` (share of
        the unknown option), ``n, difference, low, high, p``; for ambiguous contexts ``p_adjusted, rejected``.
    """
    cells = scored[scored["dataset"] == "bbq"]
    cells = cells.assign(said_unknown=(cells["chosen"] == cells["unknown"]).astype(float))
    parts = []
    for domain, group in cells.groupby("domain", sort=False):
        wide, unknown = by_question(group), by_question(group, "said_unknown")
        rows = []
        for persona in protocol.families["bbq"].hypotheses:
            there = persona in wide and chosen.baseline in wide
            rows.append(
                {
                    "hypothesis": persona,
                    "domain": domain,
                    "accuracy": wide[persona].mean() if there else nan,
                    "reference": wide[chosen.baseline].mean() if there else nan,
                    "unknown": unknown[persona].mean() if there else nan,
                    **contrast(wide, persona, chosen.baseline, chosen),
                }
            )
        table = pd.DataFrame(rows).drop(columns=["sd", "se", "p_equivalence"])
        if domain == "ambiguous":
            how: dict[str, Any] = {"alpha": chosen.alpha, "correction": chosen.correction}
            table[["p_adjusted", "rejected"]] = shared.corrected(table, "p", protocol.families["bbq"], **how)
        parts.append(table)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def mitigations(scored: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Return what a sentence against bias does to a persona, on the questions that were asked with it.

    Returns:
        ``persona, mitigation, n, with_sentence, without, difference, low, high, p`` (not corrected).
    """
    third = scored[scored["instruction"] == 3]
    wide = by_question(third)
    rows = []
    for name in [who for who in map(str, wide) if " + " in who]:
        persona, mitigation = name.split(" + ")
        both = wide[[name, persona]].dropna()
        effect = contrast(both, name, persona, chosen)
        rows.append(
            {
                "persona": persona,
                "mitigation": mitigation,
                "with_sentence": both[name].mean(),
                "without": both[persona].mean(),
                **{key: effect[key] for key in ("n", "difference", "low", "high", "p")},
            }
        )
    columns = ["persona", "mitigation", "with_sentence", "without", "n", "difference", "low", "high", "p"]
    return pd.DataFrame(rows, columns=columns)


def sensitivity(scored: pd.DataFrame, table: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Return each persona's effect under other models of the same cells: log odds ratios against the baseline.

    Conditional logistic regression with questions as strata, and a logit by GEE with questions as clusters; the
    three instructions of a question are cells of it.

    Args:
        scored: Of the usable datasets.
        table: Of :func:`contrasts`, for the declared analysis's sign.
        chosen: Baseline, confidence.

    Returns:
        ``persona, model, estimate, low, high, p, agrees`` (sign as in the declared analysis, where it has one).
    """
    reach = stats.norm.ppf(0.5 + chosen.confidence / 2)
    declared = table[table["family"] == "persona"].set_index("hypothesis")["estimate"]
    rows = []
    for persona in declared.dropna().index:
        sign = np.sign(np.round(declared[persona], 12))  # a difference of 0 has none, whatever its last digit
        cells = scored[scored["who"].isin([chosen.baseline, persona])]
        treated = (cells["who"] == persona).astype(float).to_numpy()
        right = (cells["correct"] > 0).astype(int).to_numpy()
        groups = pd.factorize(cells["item"])[0]
        design = pd.DataFrame({"const": 1.0, "treated": treated})
        marginal = sm.GEE(
            right, design, groups=groups, family=sm.families.Binomial(), cov_struct=sm.cov_struct.Independence()
        ).fit()
        fits = {"logit, GEE by question": (marginal.params["treated"], marginal.bse["treated"])}
        # Only questions that are answered both ways carry information about a conditional odds ratio.
        sums = pd.Series(right).groupby(groups).transform("mean").to_numpy()
        informative = (sums > 0) & (sums < 1)
        if informative.any() and len(set(treated[informative])) == 2:
            fit = ConditionalLogit(right[informative], treated[informative, None], groups=groups[informative]).fit(
                disp=False
            )
            fits["conditional logit, strata by question"] = (fit.params[0], fit.bse[0])
        for model, (b, se) in fits.items():
            rows.append(
                {
                    "persona": persona,
                    "model": model,
                    "estimate": float(b),
                    "low": float(b - reach * se),
                    "high": float(b + reach * se),
                    "p": float(2 * stats.norm.sf(abs(b / se))) if se > 0 else nan,
                    "agrees": bool(sign in (0, np.sign(b))),
                }
            )
    return pd.DataFrame(rows, columns=["persona", "model", "estimate", "low", "high", "p", "agrees"])
