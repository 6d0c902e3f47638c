"""PersoBench: what unparsed replies do to a score, and what a misaligned column does to a test."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats as sp

from persona_studies.analyse.stats.resampling import bca
from released_results import analysis
from released_results.design import Parameters

SOURCE = "PersoBench"
WORST = {"C Score": -1.0, "Persona Distance": 0.0, "UE Score": 0.0, "UniEval Groundedness": 0.0}
"""The four terms of the printed score that are on a scale of 100, each with its value for a failed reply."""
HAND_TYPED = {("vanilla", "gemini-1.5-pro"), ("COT", "gemini-1.5-pro"), ("COT", "Gemma-7B-Instruct")}
"""Failure shares that were typed as they are; the authors typed all others times ten."""
OTHER_SCALES = {"C Score", "UniEval Engagingness", "UniEval Overall"}
"""From -1 to 1; a sum over sentences; a mean that includes that sum. All other metrics lie between 0 and 1."""
LAYERS = {"released": "as filed", "realigned": "realigned, failures worst", "valid": "realigned, both parsed"}


def scores(tables: pd.DataFrame, failures: pd.DataFrame, printed: pd.DataFrame) -> pd.DataFrame:
    """Return the printed scores beside scores with and without failures, per setting and model, on FoCus.

    - ``recomputed`` follows the printed score's own formula, (100 (C + distance + coherence + groundedness) + i)/5.
      Its instructability i = 1 - t / max(t), with t the failure share as typed (:data:`HAND_TYPED`), is on a scale
      of 1, so that it adds at most 0.2 points. The formula is inferred from the sixteen printed scores.
    - ``worst`` is 100 times the mean of the four terms, failures at their worst value.
    - ``valid`` is the same over the replies that could be parsed: valid = (mean - f worst) / (1 - f).
    - ``c_worst``, ``c_valid``, ``c_best`` are the C score (-1 to 1) with failures at -1, left out, and at 1.
      Whatever the failed replies were worth, the C score lies between the first and the last.
    """
    means = tables[tables["dataset"] == "FoCus"].pivot_table(
        index=["setting", "model"], columns="metric", values="mean"
    )
    counted = failures[failures["dataset"] == "FoCus"].set_index(["setting", "model"])
    frame = printed.set_index(["setting", "model"]).rename(columns={"score": "printed"})
    failed = (counted["failed"] / counted["rows"]).loc[frame.index]
    terms = means.loc[frame.index, list(WORST)]
    valid = (terms - np.outer(failed, list(WORST.values()))).div(1 - failed, axis=0)
    typed = failed * [1 if key in HAND_TYPED else 10 for key in frame.index]
    ability = 1 - typed / typed.groupby("setting").transform("max")
    return frame.assign(
        failures=failed,
        recomputed=(100 * terms.sum(axis=1) + ability) / 5,
        worst=100 * terms.mean(axis=1),
        valid=100 * valid.mean(axis=1),
        c_worst=terms["C Score"],
        c_valid=valid["C Score"],
        c_best=terms["C Score"] + 2 * failed,
    ).reset_index()


def gains(scored: pd.DataFrame) -> pd.DataFrame:
    """Return per model what chain of thought adds: to the printed score, to valid replies, and to parsing.

    Returns:
        ``model, printed_gain, drop_of_failures, valid_gain``, and the bounds of the gain in the C score,
        ``c_gain_low, c_gain_high``: the failed replies of both settings at their least and most favourable value.
    """
    wide = scored.pivot(index="model", columns="setting")
    order = scored.loc[scored["setting"] == "vanilla", "model"]
    return (
        pd.DataFrame(
            {
                "printed_gain": wide["printed"]["COT"] - wide["printed"]["vanilla"],
                "drop_of_failures": wide["failures"]["vanilla"] - wide["failures"]["COT"],
                "valid_gain": wide["valid"]["COT"] - wide["valid"]["vanilla"],
                "c_gain_low": wide["c_worst"]["COT"] - wide["c_best"]["vanilla"],
                "c_gain_high": wide["c_best"]["COT"] - wide["c_worst"]["vanilla"],
            }
        )
        .loc[order]
        .reset_index()
    )


def tests(scored: pd.DataFrame, gained: pd.DataFrame, pairs: pd.DataFrame, parameters: Parameters) -> pd.DataFrame:
    """Return the tests of both families: two correlations over models, thirteen paired t tests over prompts."""
    plain = scored[scored["setting"] == "vanilla"]
    common = {
        "source": SOURCE,
        "family": "persobench_scores",
        "unit": "model",
        "test": "Pearson, Fisher z",
        "printed": 0.0,
    }
    found: list[dict[str, Any]] = [
        {
            **common,
            "hypothesis": "score and failures",
            **analysis.tested_correlation(plain["printed"], plain["failures"], parameters),
        },
        {
            **common,
            "hypothesis": "gain and drop of failures",
            **analysis.tested_correlation(gained["printed_gain"], gained["drop_of_failures"], parameters),
        },
    ]
    kind = {"published": "released"}.get(parameters.layer) or {"worst": "realigned", "valid": "valid"}[
        parameters.failures
    ]
    for row in pairs[pairs["rows"] == kind].to_dict("records"):
        se = row["sd"] / sqrt(row["n"])
        found.append(
            {
                **common,
                "family": "persobench_pairs",
                "hypothesis": row["metric"],
                "unit": "prompt",
                "n": row["n"],
                "test": f"paired t, {LAYERS[kind]}",
                "printed": np.nan,
                **analysis.difference(
                    row["difference"], se, parameters, df=row["n"] - 1, share=row["metric"] not in OTHER_SCALES
                ),
            }
        )
    return analysis.rows(found)


def paired_t(pairs: pd.DataFrame, report: pd.DataFrame) -> pd.DataFrame:
    """Return t of every metric three times (:data:`LAYERS`), beside the t that the authors' report prints.

    Returns:
        ``metric, printed, as_filed, off`` (the difference of both), ``realigned, valid``, and ``same_sign``.
    """
    t = pairs.assign(t=pairs["difference"] / (pairs["sd"] / pairs["n"] ** 0.5)).pivot(
        index="metric", columns="rows", values="t"
    )
    t = t.loc[pairs["metric"].unique()].rename(columns={"released": "as_filed"})
    printed = report.set_index("metric")["t"].reindex(t.index)
    made = t.assign(printed=printed, off=(t["as_filed"] - printed).abs())
    made["same_sign"] = (np.sign(made["as_filed"]) == np.sign(made["realigned"])) & (
        np.sign(made["as_filed"]) == np.sign(made["valid"])
    )
    return made[["printed", "as_filed", "off", "realigned", "valid", "same_sign"]].reset_index()


def bounds(pairs: pd.DataFrame, failures: pd.DataFrame, models: tuple[str, str]) -> pd.DataFrame:
    """Bound the mean difference of every metric with a known range, whatever the failed replies were worth.

    Returns:
        ``metric, worst`` (failures at the worst value), ``valid`` (prompts that both parse), ``low, high``.
    """
    counted = failures[(failures["dataset"] == "FoCus") & (failures["setting"] == "COT")].set_index("model")
    share = (counted["failed"] / counted["rows"]).to_dict()
    first, second = (share[model] for model in models)
    difference = pairs.pivot(index="metric", columns="rows", values="difference").to_dict("index")
    ranges = {name: 1.0 for name in difference if name not in OTHER_SCALES} | {"C Score": 2.0}
    rows = [
        {
            "metric": metric,
            "worst": difference[metric]["realigned"],
            "valid": difference[metric]["valid"],
            "low": difference[metric]["realigned"] - second * width,
            "high": difference[metric]["realigned"] + first * width,
        }
        for metric, width in ranges.items()
    ]
    return pd.DataFrame(rows)


def described(gained: pd.DataFrame, parameters: Parameters) -> dict[str, Any]:
    """Return the mean gain of valid replies over models, with a bootstrap interval: conditional on success."""
    found = bca(
        np.mean,
        gained["valid_gain"],
        confidence=parameters.confidence,
        replicates=parameters.replicates,
        seed=parameters.seed,
    )
    se = float(sp.sem(gained["valid_gain"]))
    return {
        "source": SOURCE,
        "family": "described",
        "hypothesis": "valid replies",
        "unit": "model",
        "n": found.n,
        "test": "mean, bootstrap of models",
        "printed": float(gained["printed_gain"].mean()),
        "estimate": found.estimate,
        "low": found.low,
        "high": found.high,
        "minimum_detectable": analysis.minimum_detectable(se, parameters),
        "se": se,
    }


def failure_ratios(tables: pd.DataFrame, failures: pd.DataFrame) -> pd.DataFrame:
    """Return the printed failure ratio beside the counted one: ``dataset, setting, model, printed, counted``."""
    printed = tables[tables["metric"] == "Failure Ratio"].rename(columns={"mean": "printed"})
    both = printed.merge(failures, on=["dataset", "setting", "model"], validate="1:1")
    return both.assign(counted=both["failed"] / both["rows"])[
        ["dataset", "setting", "model", "rows", "printed", "counted"]
    ]


def rank_agreement(scored: pd.DataFrame) -> float:
    """Return Spearman's correlation of the printed with the valid-only ranking, without chain of thought."""
    plain = scored[scored["setting"] == "vanilla"]
    return float(sp.spearmanr(plain["printed"], plain["valid"]).statistic)
