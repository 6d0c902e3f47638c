"""Whether judges agree, with each other and about their own model's answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from neurodivergence.analysis import corrected, differences, paired, scale
from neurodivergence.design import BINARY, CELL, CONDITIONS, JUDGED, PAIRS, PLANNED, Parameters
from persona_studies.analyse import gates
from persona_studies.analyse.stats.agreement import Level, cohen_kappa, gwet_ac, krippendorff_alpha, raw_agreement
from persona_studies.analyse.stats.reliability import spearman_brown
from persona_studies.design.protocol import Protocol


def agreement(scored: pd.DataFrame, parameters: Parameters) -> pd.DataFrame:
    """Return how far the judges agree on each metric: over all queries and in each domain.

    Queries are drawn as clusters. Refusal is nominal with two categories, the others ordinal from 0 to 4.

    Returns:
        ``metric, domain, responses, queries, same`` (share of equal scores), ``alpha, low, high``, ``ac2, ac2_low,
        ac2_high`` (quadratic weights), ``kappa`` (quadratic), ``most`` (share of the most frequent score) and
        ``reason`` where alpha or its interval is undefined. Empty with fewer than two judges.
    """
    if len(parameters.judges) < 2:
        return pd.DataFrame()
    scored = scored[scored["model"].isin(parameters.models)]
    found = []
    for metric in (m for m in JUDGED if m in parameters.metrics):
        wide = scored.pivot_table(index=[*CELL, "query_domain"], columns="judge", values=metric)[
            list(parameters.judges)
        ].reset_index()
        for domain in ("all", *sorted(wide["query_domain"].unique())):
            part = wide if domain == "all" else wide[wide["query_domain"] == domain]
            ratings = part[list(parameters.judges)].to_numpy()
            how: dict[str, Any] = {
                "categories": (0, 1) if metric == BINARY else range(5),
                "cluster": part["query_id"].to_numpy(),
                "confidence": parameters.confidence,
                "replicates": parameters.replicates,
                "seed": parameters.seed,
            }
            level: Level = "nominal" if metric == BINARY else "ordinal"
            alpha = krippendorff_alpha(ratings, level=level, **how)
            ac2 = gwet_ac(ratings, weights="quadratic", **how)
            found.append(
                {
                    "metric": metric,
                    "domain": domain,
                    "responses": len(part),
                    "queries": part["query_id"].nunique(),
                    "same": raw_agreement(ratings, **how).estimate,
                    "alpha": alpha.estimate,
                    "low": alpha.low,
                    "high": alpha.high,
                    "ac2": ac2.estimate,
                    "ac2_low": ac2.low,
                    "ac2_high": ac2.high,
                    "kappa": cohen_kappa(ratings, weights="quadratic", **how).estimate,
                    "most": float(pd.Series(ratings.ravel()).value_counts(normalize=True).iloc[0]),
                    "reason": alpha.reason,
                }
            )
    return pd.DataFrame(found)


GATE = [
    *("metric", "alpha", "low", "high", "judges", "mean_reliability", "mean_low", "mean_high"),
    *("threshold", "point_passes", "passes"),
]


def gated(agreed: pd.DataFrame, protocol: Protocol, judges: int) -> pd.DataFrame:
    """Apply the threshold of alpha to its point estimate, as the paper does, and to what the analysis uses.

    The analysis uses the mean over judges, which is more reliable than one judge: of k judges with a single-judge
    reliability of alpha it is k alpha / (1 + (k - 1) alpha) (Spearman-Brown). The lower limit of that must reach
    the threshold. The formula rises with alpha, so the limits of alpha's interval become the limits of the mean's.

    Returns:
        :data:`GATE`.
    """
    thresholds = protocol.design["gate"]
    if agreed.empty:
        return pd.DataFrame(columns=GATE)
    whole = agreed[agreed["domain"] == "all"].assign(judges=judges)
    for name, single in (("mean_reliability", "alpha"), ("mean_low", "low"), ("mean_high", "high")):
        whole[name] = [spearman_brown(value, judges) for value in whole[single].astype(float)]
    found = whole[GATE[:8]].assign(threshold=thresholds["min_reliability"])
    for name, value in (("point_passes", "alpha"), ("passes", "mean_low")):
        found[name] = [bool(gates.declared(thresholds, {"reliability": v})["passes"].all()) for v in whole[value]]
    return found.reset_index(drop=True)


def self_and_cross(scored: pd.DataFrame, protocol: Protocol, parameters: Parameters) -> pd.DataFrame:
    """Return effects as each judge sees them: of the other model's answers, of its own, and the difference.

    Returns:
        ``hypothesis, metric, contrast, judged`` (``self, cross, self - cross``), and as :func:`contrasts`;
        differences are corrected together, the effects themselves are not.
    """
    scored = scored[scored["model"].isin(parameters.models) & scored["judge"].isin(parameters.judges)]
    parts = {
        "self": scored[scored["judge"] == scored["model"]],
        "cross": scored[scored["judge"] != scored["model"]],
    }
    query = parameters.model_copy(update={"unit": "query"})
    found = []
    for metric in (m for m in JUDGED if m in parameters.metrics):
        unit = scale(scored, metric)
        for contrast in PLANNED:
            d = {
                name: differences(part, metric, *PAIRS[contrast], query) if len(part) else pd.Series(dtype=float)
                for name, part in parts.items()
            }
            d["self - cross"] = d["self"] - d["cross"]
            found += [
                {
                    "hypothesis": f"{metric}: {contrast}",
                    "metric": metric,
                    "contrast": contrast,
                    "judged": name,
                    **paired(values, unit, parameters),
                }
                for name, values in d.items()
            ]
    table = pd.DataFrame(found)
    if table.empty:
        return table
    apart = corrected(table[table["judged"] == "self - cross"], "judges", protocol, parameters)
    return table.join(apart[["p_adjusted", "rejected", "equivalent"]])


def levels(scored: pd.DataFrame, parameters: Parameters) -> pd.DataFrame:
    """Return mean scores by judge and by whose answer it is: ``metric, judge, model, relation, C0, C1, C2``."""
    scored = scored[scored["model"].isin(parameters.models) & scored["judge"].isin(parameters.judges)]
    judged = [m for m in JUDGED if m in parameters.metrics]
    means = scored.groupby(["judge", "model", "condition_id"])[judged].mean()
    long = means.rename_axis(columns="metric").stack().unstack("condition_id").reset_index()
    long["relation"] = np.where(long["judge"] == long["model"], "self", "cross")
    long["metric"] = pd.Categorical(long["metric"], categories=judged, ordered=True)
    long = long.sort_values(["metric", "judge", "model"], ignore_index=True).astype({"metric": str})
    return long[["metric", "judge", "model", "relation", *CONDITIONS]].rename_axis(columns=None)
