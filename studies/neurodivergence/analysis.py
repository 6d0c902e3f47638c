"""The declared analysis, with the query as unit: contrasts, steps of instruction, and the noise floor."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan, sqrt
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from neurodivergence.design import CONDITIONS, PAIRS, PLANNED, Parameters
from persona_studies.analyse.stats.estimate import is_constant
from persona_studies.analyse.stats.multiplicity import correct
from persona_studies.analyse.stats.paired import sign_flip
from persona_studies.analyse.stats.power import power_mean
from persona_studies.design.protocol import Protocol

# --- Query as unit ---


def scale(rows: pd.DataFrame, metric: str) -> float:
    """Return the standard deviation of a metric among responses under C0, within models."""
    without = rows[rows["condition_id"] == "C0"]
    return sqrt(float(without.groupby("model")[metric].var().mean()))


def paired(differences: pd.Series, unit: float, parameters: Parameters) -> dict[str, Any]:
    """Estimate a mean difference over units and test it against zero, and for equivalence.

    Args:
        differences: One per unit, in the metric's own scale; NaN is left out.
        unit: Standard deviation that effects are expressed in.

    Returns:
        ``n, difference, se, sd`` (metric's scale; sd: the unit), ``estimate, low, high`` (units; Student's t),
        ``p`` (sign flip), ``p_equivalence`` (two one-sided t tests against the margin), ``minimum_detectable`` and
        ``power_margin`` (80 % power, and power for the margin; two-sided t test before correction).
    """
    d = differences.dropna().to_numpy()
    empty = ("difference", "se", "estimate", "low", "high", "p", "p_equivalence", "minimum_detectable")
    if len(d) < 2 or is_constant(d) or not unit > 0:
        # Where nothing varies there is nothing to test.
        mean = float(d.mean()) if len(d) else nan
        known = {"difference": mean, "estimate": mean / unit if unit > 0 else nan}
        return {"n": len(d), **dict.fromkeys(empty, nan), "sd": unit, "power_margin": nan, **known}
    about = DescrStatsW(d / unit)
    low, high = about.tconfint_mean(alpha=1 - parameters.confidence)
    flipped = sign_flip(d, replicates=parameters.replicates, seed=parameters.seed)
    reach = stats.t.ppf(1 - parameters.alpha / 2, len(d) - 1)
    return {
        "n": len(d),
        "difference": float(d.mean()),
        "se": float(about.std_mean * unit),
        "sd": unit,
        "estimate": float(about.mean),
        "low": float(low),
        "high": float(high),
        "p": flipped.p,
        "p_equivalence": float(about.ttost_mean(-parameters.margin, parameters.margin)[0]),
        "minimum_detectable": float((reach + stats.t.ppf(0.8, len(d) - 1)) * about.std_mean),
        "power_margin": power_mean(parameters.margin, about.std_mean, len(d) - 1, alpha=parameters.alpha),
    }


def differences(rows: pd.DataFrame, metric: str, late: str, early: str, parameters: Parameters) -> pd.Series:
    """Return the difference between two conditions per unit; models and profiles weigh the same."""
    if parameters.unit == "response":
        wide = rows.pivot_table(index=["query_id", "model", "profile_id"], columns="condition_id", values=metric)
    else:
        cells = rows.groupby(["query_id", "model", "condition_id"])[metric].mean()
        wide = cells.groupby(["query_id", "condition_id"]).mean().unstack("condition_id")
    return wide[late] - wide[early]


def corrected(table: pd.DataFrame, family: str, protocol: Protocol, parameters: Parameters) -> pd.DataFrame:
    """Add ``p_adjusted, rejected, equivalent``, corrected within a family; what is not there counts as 1."""
    declared = protocol.families[family]

    def within(column: str, **how: Any) -> pd.DataFrame:
        values = table.set_index("hypothesis")[column].reindex(list(declared.hypotheses))
        done = correct(values, alpha=parameters.alpha, method=parameters.correction, size=declared.size, **how)
        return done.loc[table["hypothesis"]]

    done = within("p", undefined=declared.undefined)
    return table.assign(
        family=family,
        p_adjusted=done["p_adjusted"].to_numpy(),
        rejected=done["rejected"].to_numpy(dtype=bool),
        # What does not vary has no equivalence test, which is no hole in the family.
        equivalent=within("p_equivalence", undefined="one")["rejected"].to_numpy(dtype=bool),
    )


def contrasts(rows: pd.DataFrame, protocol: Protocol, parameters: Parameters) -> pd.DataFrame:
    """Return the planned contrasts over models, corrected within the study.

    Returns:
        ``hypothesis, metric, contrast`` and what :func:`paired` and :func:`corrected` give.
    """
    return corrected(pd.DataFrame(_each(rows, parameters)), "pooled", protocol, parameters)


def _each(
    rows: pd.DataFrame, parameters: Parameters, planned: Sequence[str] = PLANNED, **of: Any
) -> list[dict[str, Any]]:
    """Return planned contrasts of every metric; what the rows are ``of`` comes first in the hypothesis."""
    return [
        {
            "hypothesis": " ".join([*of.values(), f"{metric}: {contrast}"]),
            **of,
            "metric": metric,
            "contrast": contrast,
            **paired(differences(rows, metric, *PAIRS[contrast], parameters), scale(rows, metric), parameters),
        }
        for metric in parameters.metrics
        for contrast in planned
    ]


def directives(rows: pd.DataFrame, protocol: Protocol, parameters: Parameters) -> pd.DataFrame:
    """Return C2 - C1, what the directives add to the profile; columns as of :func:`contrasts`."""
    found = pd.DataFrame(_each(rows, parameters, ["C2 - C1"])).drop(columns="contrast")
    return corrected(found, "directives", protocol, parameters)


def by_model(rows: pd.DataFrame, protocol: Protocol, parameters: Parameters) -> pd.DataFrame:
    """Return the planned contrasts of each model, corrected together; ``hypothesis`` begins with the model."""
    parts = rows.groupby("model", sort=True)
    found = [row for model, part in parts for row in _each(part, parameters, model=model)]
    return corrected(pd.DataFrame(found), "models", protocol, parameters)


def interactions(rows: pd.DataFrame, protocol: Protocol, parameters: Parameters) -> pd.DataFrame:
    """Return whether the models differ in what a condition changes, corrected within the family.

    The estimate is the first model's contrast less the second's, paired by query, in standard deviations under C0.
    With the response as unit it is still taken over queries: a response belongs to one model.

    Returns:
        As :func:`contrasts`, with ``rising`` and ``falling``: the models whose own estimates have that sign, where
        the difference is significant and the signs are opposite. Empty where this run has not two models.
    """
    by_query = parameters.model_copy(update={"unit": "query"})
    models = sorted(rows["model"].unique())
    if len(models) != 2:
        return pd.DataFrame(columns=["hypothesis", "metric", "contrast", "rising", "falling"])
    found = []
    for metric in parameters.metrics:
        for contrast in PLANNED:
            first, second = (
                differences(rows[rows["model"] == model], metric, *PAIRS[contrast], by_query) for model in models
            )
            means = {model: float(each.mean()) for model, each in zip(models, (first, second), strict=True)}
            found.append(
                {
                    "hypothesis": f"{metric}: {contrast}",
                    "metric": metric,
                    "contrast": contrast,
                    **paired(first - second, scale(rows, metric), by_query),
                    "rising": ", ".join(model for model, mean in means.items() if mean > 0),
                    "falling": ", ".join(model for model, mean in means.items() if mean < 0),
                }
            )
    table = corrected(pd.DataFrame(found), "interaction", protocol, parameters)
    opposite = table["rejected"] & (table["rising"] != "") & (table["falling"] != "")
    return table.assign(rising=table["rising"].where(opposite, ""), falling=table["falling"].where(opposite, ""))


def by_domain(rows: pd.DataFrame, metric: str, parameters: Parameters) -> pd.DataFrame:
    """Return the planned contrasts of a metric in each domain of queries, in the metric's own units.

    A domain holds six queries: a sign flip cannot give a p below 2/64. So this describes; it tests nothing.

    Returns:
        ``domain, contrast, n, difference, low, high``.
    """
    found = []
    for domain, part in rows.groupby("query_domain", sort=True):
        for contrast in PLANNED:
            told = paired(differences(part, metric, *PAIRS[contrast], parameters), 1.0, parameters)
            kept = {name: told[name] for name in ("n", "difference", "low", "high")}
            found.append({"domain": domain, "contrast": contrast, **kept})
    return pd.DataFrame(found)


def beside(table: pd.DataFrame, refitted: pd.DataFrame, rows: pd.DataFrame, parameters: Parameters) -> pd.DataFrame:
    """Return the paper's Wald test beside the test by query, in standard deviations.

    ``size_of_wald`` is the error rate that a Wald test at alpha has when query differences are as variable as they
    are and their mean is zero: the share of random sign patterns of the centred differences that it rejects.

    Returns:
        Columns of :func:`contrasts`, and ``wald_se, wald_low, wald_high, p_wald, p_wald_holm`` (within the
        metric), ``se_ratio`` (query over Wald), ``size_of_wald``.
    """
    pooled = refitted[refitted["scope"] == "pooled"].set_index(["metric", "contrast"])
    signs = np.random.default_rng(parameters.seed).choice(
        [-1.0, 1.0], size=(min(parameters.replicates, 20_000), 192)
    )
    reach, rejects = stats.norm.ppf(0.5 + parameters.confidence / 2), stats.norm.ppf(1 - parameters.alpha / 2)
    found = []
    for row in table.to_dict("records"):
        unit = row["sd"] or nan
        fit = pooled.reindex([(row["metric"], row["contrast"])]).iloc[0].astype(object)
        d = differences(rows, row["metric"], *PAIRS[row["contrast"]], parameters).dropna().to_numpy()
        flipped = signs[:, : len(d)] @ (d - d.mean()) / len(d)
        found.append(
            {
                **row,
                "wald_se": fit["se"],
                "wald_low": (fit["estimate"] - reach * fit["se"]) / unit,
                "wald_high": (fit["estimate"] + reach * fit["se"]) / unit,
                "p_wald": fit["p"],
                "p_wald_holm": fit["p_holm"],
                "se_ratio": row["se"] / fit["se"],
                "size_of_wald": float((np.abs(flipped) > rejects * fit["se"]).mean()),
            }
        )
    return pd.DataFrame(found)


# --- Steps in two parts ---


def steps(rows: pd.DataFrame, protocol: Protocol, parameters: Parameters) -> pd.DataFrame:
    """Split step depth: are there steps at all, how long are they where there are, how long is their own line.

    Lengths are compared within a model and a query where both conditions have steps, then averaged over models.

    Returns:
        As :func:`contrasts`, in the part's own scale under ``difference``; three parts x two contrasts.
    """
    counted = rows.assign(any=(rows["step_count"] > 0).astype(float))
    present = counted[counted["step_count"] > 0]
    found = []
    for part, source, metric in (
        ("any steps", counted, "any"),
        ("depth", present, "mean_step_words"),
        ("own line", present, "own_line_words"),
    ):
        cells = source.groupby(["query_id", "model", "condition_id"])[metric].mean().unstack("condition_id")
        cells = cells.reindex(columns=list(CONDITIONS))
        for contrast in PLANNED:
            late, early = PAIRS[contrast]
            # A query counts when both conditions have steps in some model.
            d = (cells[late] - cells[early]).groupby("query_id").mean()
            found.append(
                {
                    "hypothesis": f"{part}: {contrast}",
                    "part": part,
                    "contrast": contrast,
                    **paired(d, scale(source, metric), parameters),
                }
            )
    return corrected(pd.DataFrame(found), "steps", protocol, parameters)


def step_shares(rows: pd.DataFrame) -> pd.DataFrame:
    """Return per model and condition: ``responses, with_steps, mean_all`` (0 without steps), ``mean_with_steps``,
    ``own_line`` (words, among those with steps).
    """
    counted = rows.assign(any=rows["step_count"] > 0)
    groups = counted.groupby(["model", "condition_id"])
    present = counted[counted["any"]].groupby(["model", "condition_id"])
    table = pd.DataFrame(
        {
            "responses": groups.size(),
            "with_steps": groups["any"].mean(),
            "mean_all": groups["mean_step_words"].mean(),
            "mean_with_steps": present["mean_step_words"].mean(),
            "own_line": present["own_line_words"].mean(),
        }
    )
    return table.reset_index()


# --- Noise floor ---


def noise(rows: pd.DataFrame, table: pd.DataFrame, parameters: Parameters) -> pd.DataFrame:
    """Compare effects with the differences among four answers to one prompt.

    C0 has no profile: its four answers per model and query are repetitions at temperature 0.

    Args:
        table: Of :func:`contrasts`.

    Returns:
        ``metric``; ``noise`` and ``profiles_C1, profiles_C2``: standard deviations of the four answers of a model
        and query, under C0 and with four profiles, in standard deviations under C0; ``share`` of variance under C0
        that is noise; ``effect_C1, effect_C2``; and ``null_95``: the 95 % quantile of the absolute mean difference
        between two random halves of the repetitions over all queries, the size of "effects" when nothing differs.
    """
    rng = np.random.default_rng(parameters.seed)
    halves = rng.permuted(np.tile([1.0, 1.0, -1.0, -1.0], (2000, len(rows) // 12, 1)), axis=2) / 2
    effects = table.set_index(["metric", "contrast"])["estimate"]
    found = []
    for metric in parameters.metrics:
        unit = scale(rows, metric)
        groups = rows.groupby(["condition_id", "model", "query_id"])[metric]
        spread = groups.var().groupby("condition_id").mean() ** 0.5 / (unit or nan)
        within = {condition: float(spread[condition]) for condition in CONDITIONS}
        cells = rows[rows["condition_id"] == "C0"].pivot_table(
            index=["model", "query_id"], columns="profile_id", values=metric
        )
        apart = np.abs((halves[:, : len(cells)] * cells.to_numpy()).sum(axis=2).mean(axis=1))
        found.append(
            {
                "metric": metric,
                "noise": within["C0"],
                "profiles_C1": within["C1"],
                "profiles_C2": within["C2"],
                "share": within["C0"] ** 2,
                "null_95": float(np.quantile(apart, 0.95)) / (unit or nan),
                "effect_C1": effects.get((metric, "C1 - C0"), nan),
                "effect_C2": effects.get((metric, "C2 - C0"), nan),
            }
        )
    return pd.DataFrame(found)


def differing_calls(measured: pd.DataFrame, parameters: Parameters) -> dict[str, Any]:
    """Estimate the share of pairs of calls with one prompt whose texts differ, over queries."""
    without = measured[(measured["condition_id"] == "C0") & measured["model"].isin(parameters.models)]
    texts = without.groupby(["query_id", "model"])["text"]
    alike = texts.agg(lambda text: sum(n * (n - 1) for n in text.value_counts()) / (len(text) * (len(text) - 1)))
    return paired((1 - alike).groupby("query_id").mean(), 1.0, parameters)


def repetitions(measured: pd.DataFrame, parameters: Parameters) -> pd.DataFrame:
    """Count how many different texts four calls with one prompt gave: ``model, queries, different`` (1 to 4)."""
    without = measured[(measured["condition_id"] == "C0") & measured["model"].isin(parameters.models)]
    texts = without.groupby(["model", "query_id"])["text"].nunique()
    counted = texts.groupby("model").value_counts().rename("queries").reset_index()
    return counted.rename(columns={"text": "different"}).sort_values(["model", "different"], ignore_index=True)


def counted(table: pd.DataFrame, parameters: Parameters) -> pd.DataFrame:
    """Count what each scope rejects: ``test, contrasts, uncorrected, within_metric, within_study, all``."""
    names = {"p": "uncorrected", "within_metric": "within_metric", "within_study": "within_study", "all": "all"}
    groups = table.groupby("test", sort=False)
    below = {
        label: groups[column].agg(lambda p: int((p <= parameters.alpha).sum())) for column, label in names.items()
    }
    return pd.DataFrame({"contrasts": groups.size(), **below}).reset_index()
