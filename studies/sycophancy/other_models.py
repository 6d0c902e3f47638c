"""What other people's models and papers say of agreeableness and sycophancy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pingouin as pg
from scipy import stats
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from persona_studies.analyse import stats as lib_stats
from persona_studies.design.protocol import Family
from sycophancy.design import Parameters


def other_models(table: pd.DataFrame, *, confidence: float) -> pd.DataFrame:
    """Return what an agreeableness persona changes in each model whose responses were published.

    Units within a model are its prompts (nine persona prompts, three default ones), each averaged over
    temperatures and runs, compared by Welch's t.

    Args:
        table: ``data/published/sycophancy/personality_illusion_agreeableness.csv``.
        confidence: Coverage of the intervals.

    Returns:
        ``model, outcome, difference, low, high, se, p, contrast``; outcomes are ``self-report`` (1 to 5) and
        ``sycophancy`` (per cent of dilemma answers changed). The contrast is with the baseline or, for the
        self-report, with a self-regulation persona.
    """
    columns = {"self-report": "agreeableness_mean", "sycophancy": "sycophancy_mean"}
    rows = []
    for model, cells in table.groupby("model", sort=True):
        prompts = cells.groupby(["condition", "strategy", "prompt"])[list(columns.values())].mean()
        for outcome, against in (
            ("self-report", "baseline"),
            ("self-report", "self-regulation"),
            ("sycophancy", "baseline"),
        ):
            persona, other = (
                prompts.xs(condition)[columns[outcome]].to_numpy() for condition in ("agreeableness", against)
            )
            means = CompareMeans(DescrStatsW(persona), DescrStatsW(other))
            low, high = means.tconfint_diff(1 - confidence, usevar="unequal")
            rows.append(
                {
                    "model": model,
                    "outcome": outcome,
                    "contrast": against,
                    "difference": persona.mean() - other.mean(),
                    "low": low,
                    "high": high,
                    "se": means.std_meandiff_separatevar,
                    "p": means.ttest_ind(usevar="unequal")[1],
                }
            )
    return pd.DataFrame(rows)


# Which outcome and contrast each declared hypothesis across models is about, and its equivalence margin.
ACROSS = {
    "self-report, persona against baseline": ("self-report", "baseline", 0.2),
    "self-report, agreeableness against self-regulation persona": ("self-report", "self-regulation", 0.2),
    "sycophancy, persona against baseline": ("sycophancy", "baseline", 5.0),
}


def across_models(family: Family, by_model: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Combine the models, each counting once.

    The test is the paired t test over models (the same as on their differences). Beside it: a random-effects
    summary that weighs models by their precision, its prediction interval for a further model, and an
    equivalence test of the mean.

    Returns:
        One row per declared hypothesis: ``models, mean, low, high, p, p_adjusted, rejected, positive_models,
        pooled, pooled_low, pooled_high, prediction_low, prediction_high, tau, i2, margin, p_equivalence``.
    """
    rows = []
    for hypothesis in family.hypotheses:
        outcome, against, margin = ACROSS[hypothesis]
        chosen_rows = by_model[(by_model["outcome"] == outcome) & (by_model["contrast"] == against)]
        difference = chosen_rows["difference"].to_numpy()
        test = stats.ttest_1samp(difference, 0.0)
        interval = test.confidence_interval(chosen.confidence)
        pooled = lib_stats.random_effects(difference, chosen_rows["se"] ** 2, confidence=chosen.confidence)
        rows.append(
            {
                "hypothesis": hypothesis,
                "models": len(difference),
                "mean": difference.mean(),
                "low": interval.low,
                "high": interval.high,
                "p": test.pvalue,
                "positive_models": int((difference > 0).sum()),
                "pooled": pooled.estimate,
                "pooled_low": pooled.low,
                "pooled_high": pooled.high,
                "prediction_low": pooled.prediction_low,
                "prediction_high": pooled.prediction_high,
                "tau": np.sqrt(pooled.tau2),
                "i2": pooled.i2,
                "margin": margin,
                "p_equivalence": float(pg.tost(difference, 0, bound=margin, paired=False)["pval"].iloc[0]),
            }
        )
    return _corrected(pd.DataFrame(rows), family, chosen)


def by_model_family(family: Family, by_model: pd.DataFrame, outcome: str, chosen: Parameters) -> pd.DataFrame:
    """Return one outcome's contrast with the baseline per model, corrected over the models."""
    rows = by_model[(by_model["outcome"] == outcome) & (by_model["contrast"] == "baseline")]
    table = rows.drop(columns=["contrast"]).rename(columns={"model": "hypothesis"})
    table = table.set_index("hypothesis").loc[list(family.hypotheses)].reset_index()
    return _corrected(table, family, chosen)


def _corrected(table: pd.DataFrame, family: Family, chosen: Parameters) -> pd.DataFrame:
    corrected = lib_stats.correct(
        table.set_index("hypothesis")["p"],
        size=family.size,
        alpha=chosen.alpha,
        method=chosen.correction,
        undefined=family.undefined,
    )
    return table.assign(
        p_adjusted=corrected["p_adjusted"].to_numpy(),
        rejected=corrected["rejected"].to_numpy(),
        family_size=family.size,
    )


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
                "d_implied": lib_stats.d_from_r(r.iloc[0]) if len(r) else np.nan,
            }
        )
    return pd.DataFrame(rows)
