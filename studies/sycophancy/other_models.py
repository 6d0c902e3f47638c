"""What other people's models say of agreeableness and sycophancy: published responses of 12 models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pingouin as pg
from scipy import stats
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from persona_studies.analyse import families, verdicts
from persona_studies.analyse.families import Settings
from persona_studies.analyse.stats.meta_analysis import random_effects
from persona_studies.design.protocol import Protocol
from persona_studies.paths import Project
from sycophancy import published

# Which outcome and contrast each declared hypothesis across models is about, and its smallest effect.
ACROSS = {
    "self-report, persona against baseline": ("self-report", "baseline", 0.2),
    "self-report, agreeableness against self-regulation persona": ("self-report", "self-regulation", 0.2),
    "sycophancy, persona against baseline": ("sycophancy", "baseline", 5.0),
}
BY_MODEL = {"self_report_by_model": "self-report", "sycophancy_by_model": "sycophancy"}


def differences(table: pd.DataFrame, *, confidence: float) -> pd.DataFrame:
    """Return what an agreeableness persona changes in each model whose responses were published.

    Units within a model are its prompts (nine persona prompts, three default ones), each averaged over
    temperatures and runs, compared by Welch's t.

    Args:
        table: ``data/published/sycophancy/personality_illusion_agreeableness.csv``.

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


def tests(project: Project, protocol: Protocol, how: Settings) -> pd.DataFrame:
    """Test the families about published responses: each model, and all of them, each counting once.

    Across models the test is the t test of the models' differences.

    Returns:
        As :func:`persona_studies.analyse.families.corrected`.
    """
    found = differences(published.personality_illusion(project), confidence=how.confidence)
    across = {}
    for hypothesis, (outcome, against, margin) in ACROSS.items():
        values = _of(found, outcome, against)["difference"].to_numpy()
        test = stats.ttest_1samp(values, 0.0)
        interval = test.confidence_interval(how.confidence)
        across[hypothesis] = {
            "n": len(values),
            "estimate": float(values.mean()),
            "se": float(values.std(ddof=1) / np.sqrt(len(values))),
            "df": len(values) - 1,
            "low": float(interval.low),
            "high": float(interval.high),
            "p": float(test.pvalue),
            "p_bound": float(pg.tost(values, 0, bound=margin, paired=False)["pval"].iloc[0]),
        }
    table = families.corrected("across_models", protocol.families["across_models"], across, how)
    table["smallest_effect"] = [ACROSS[h][2] for h in table["hypothesis"]]
    able = pd.DataFrame([families.able(row, len(table), how) for row in table.to_dict("records")])
    parts = [table.assign(direction="either", **able)]
    for name, outcome in BY_MODEL.items():
        rows = _of(found, outcome, "baseline").set_index("model").rename(columns={"difference": "estimate"})
        each = {
            str(model): {"n": 12, **row} for model, row in rows[["estimate", "se", "low", "high", "p"]].iterrows()
        }
        parts.append(families.corrected(name, protocol.families[name], each, how))
    return pd.concat(parts, ignore_index=True)


def _of(found: pd.DataFrame, outcome: str, against: str) -> pd.DataFrame:
    return found[(found["outcome"] == outcome) & (found["contrast"] == against)]


def combined(project: Project, how: Settings) -> pd.DataFrame:
    """Combine the models by precision, and say how much they differ.

    Returns:
        One row per hypothesis across models: ``hypothesis, models, positive, pooled, low, high, prediction_low,
        prediction_high`` (random effects; for a further model), ``tau, i2, q, q_p`` (Cochran's Q and its test).
    """
    found = differences(published.personality_illusion(project), confidence=how.confidence)
    rows = []
    for hypothesis, (outcome, against, _) in ACROSS.items():
        mine = _of(found, outcome, against)
        all_ = random_effects(mine["difference"], mine["se"] ** 2, confidence=how.confidence)
        rows.append(
            {
                "hypothesis": hypothesis,
                "models": all_.k,
                "positive": int((mine["difference"] > 0).sum()),
                "pooled": all_.estimate,
                "low": all_.low,
                "high": all_.high,
                "prediction_low": all_.prediction_low,
                "prediction_high": all_.prediction_high,
                "tau": np.sqrt(all_.tau2),
                "i2": all_.i2,
                "q": all_.q,
                "q_p": all_.q_p,
            }
        )
    return pd.DataFrame(rows)


def evidence(tests: pd.DataFrame) -> dict[tuple[str, str, str], verdicts.Evidence]:
    """Return what every hypothesis across models came to, with the models that move significantly."""
    across = tests[tests["family"] == "across_models"]
    found = families.evidence(across, failed={}, stuck={})
    for name, outcome in BY_MODEL.items():
        each = tests[(tests["family"] == name) & tests["rejected"]]
        rising, falling = (tuple(each.loc[sign * each["estimate"] > 0, "hypothesis"]) for sign in (1, -1))
        key = ("across_models", f"{outcome}, persona against baseline", "corrected")
        found[key] = replace(found[key], rising=rising, falling=falling)
    return found
