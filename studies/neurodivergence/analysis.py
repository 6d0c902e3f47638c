"""The benchmark's own analysis, repeated, and the declared one with the query as unit."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from math import nan, sqrt
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from neurodivergence.design import CELL, CONDITIONS, JUDGED, Parameters, Published
from persona_studies.analyse import scoring
from persona_studies.analyse import stats as lib_stats
from persona_studies.analyse.stats.agreement import Level
from persona_studies.analyse.stats.estimate import is_constant
from persona_studies.design.protocol import Protocol

PAIRS = {f"{late} - {early}": (late, early) for early, late in (("C0", "C1"), ("C0", "C2"), ("C1", "C2"))}
PLANNED = ("C1 - C0", "C2 - C0")
BINARY = "refusal"


# --- The paper's analysis ---


def wald(rows: pd.DataFrame, metrics: Iterable[str], scope: str = "pooled") -> pd.DataFrame:
    """Fit the paper's model to every metric: a random intercept per query, conditions and models fixed.

    By Powell's method on the standardised metric. The paper's, lbfgs, can stop at an intercept variance of 0, or
    fail there, by the last digit of a processor. There, statsmodels inverts a matrix of zeros to zeros, which takes
    the queries' means out of the residuals as if each were a parameter, and counts none of them as one.

    Returns:
        ``scope, metric, contrast, estimate, se, p, p_holm`` (over the two contrasts of a metric),
        ``share_between_queries`` (of the variance) and ``se_at_zero`` (of a fit that stopped as above). Constant
        metrics are left out.
    """
    found = []
    formula = "value ~ C(condition_id)" + (" + C(model)" if rows["model"].nunique() > 1 else "")
    for metric in metrics:
        if rows[metric].nunique() < 2:
            continue
        unit = float(rows[metric].std())
        with warnings.catch_warnings():
            # Of a variance near 0, which `share_between_queries` shows.
            warnings.simplefilter("ignore")
            scaled = rows.assign(value=rows[metric] / unit)
            fit = smf.mixedlm(formula, scaled, groups=rows["query_id"]).fit(method=["powell"])
        within = smf.ols(f"{formula} + C(query_id)", scaled).fit()
        uncounted = sqrt(within.df_resid / (within.df_resid + rows["query_id"].nunique() - 1))
        between = float(fit.cov_re.iloc[0, 0])
        names = {f"{late} - C0": f"C(condition_id)[T.{late}]" for late in ("C1", "C2")}
        p = pd.Series({contrast: float(fit.pvalues[name]) for contrast, name in names.items()})
        holm = _holm(p)
        found += [
            {
                "scope": scope,
                "metric": metric,
                "contrast": contrast,
                "estimate": float(fit.params[name]) * unit,
                "se": float(fit.bse[name]) * unit,
                "p": p[contrast],
                "p_holm": holm[contrast],
                "share_between_queries": between / (between + fit.scale),
                "se_at_zero": float(within.bse[name]) * uncounted * unit,
            }
            for contrast, name in names.items()
        ]
    return pd.DataFrame(found)


def _holm(p: pd.Series) -> pd.Series:
    """Return p-values corrected as in the paper, over the contrasts of a metric with C0."""
    return lib_stats.correct(p, size=len(PLANNED), alpha=0.05)["p_adjusted"]


def every_wald(rows: pd.DataFrame, metrics: Iterable[str]) -> pd.DataFrame:
    """Return :func:`wald` over all models, and for each."""
    metrics = list(metrics)
    parts = [wald(rows, metrics)]
    parts += [wald(part, metrics, str(model)) for model, part in rows.groupby("model", sort=True)]
    return pd.concat(parts, ignore_index=True)


def reproduction(refitted: pd.DataFrame, published: Published, chosen: Parameters) -> pd.DataFrame:
    """Return every published contrast beside its refit, where the run has both models, or both judges, it is of.

    A published standard error tells whether its fit stopped at an intercept variance of 0; where it did, it is
    compared with that of such a fit.

    Returns:
        ``scope, metric, contrast, estimate, se, p, p_holm`` as published, ``at_zero`` (where its fit stopped),
        ``refit_se``, ``estimate_off`` (absolute), ``se_off`` (relative), ``same_decision`` (p_holm at .05) and
        ``same_converged`` (that decision, had the fit converged).
    """
    keys = ["scope", "metric", "contrast"]
    both = published.contrasts.merge(refitted, on=keys, suffixes=("", "_here"), how="inner", validate="1:1")
    if len(chosen.models) < 2:
        both = both[both["scope"] != "pooled"]
    if len(chosen.judges) < 2:
        both = both[~both["metric"].isin(JUDGED)]
    at_zero = np.isclose(both["se"], both["se_at_zero"], rtol=1e-3)
    refit_se = both["se_at_zero"].where(at_zero, both["se_here"])
    p = pd.Series(2 * stats.norm.sf((both["estimate_here"] / refit_se).abs()), index=both.index)
    holm = p.groupby([both["scope"], both["metric"]], group_keys=False).apply(_holm)
    significant = both["p_holm"] <= 0.05
    return (
        both[["scope", "metric", "contrast", "estimate", "se", "p", "p_holm"]]
        .assign(
            at_zero=at_zero,
            refit_se=refit_se,
            estimate_off=(both["estimate_here"] - both["estimate"]).abs(),
            se_off=(refit_se / both["se"] - 1).abs(),
            same_decision=(holm.reindex(both.index) <= 0.05) == significant,
            same_converged=(both["p_holm_here"] <= 0.05) == significant,
        )
        .reset_index(drop=True)
    )


def as_published(refitted: pd.DataFrame, reproduced: pd.DataFrame) -> pd.DataFrame:
    """Return the paper's fits with the published standard errors and p-values, where this run has the same data.

    Elsewhere, as when one judge alone counts, the refit stands. What follows then depends on no optimiser.
    """
    keys = ["scope", "metric", "contrast"]
    said = refitted[keys].merge(reproduced[[*keys, "se", "p", "p_holm"]], on=keys, how="left", validate="1:1")
    return refitted.assign(**{name: said[name].fillna(refitted[name]) for name in ("se", "p", "p_holm")})


def checks(
    reproduced: pd.DataFrame,
    rows: pd.DataFrame,
    measured: pd.DataFrame,
    alphas: pd.DataFrame,
    published: Published,
    whole: bool,
) -> pd.DataFrame:
    """Say how far each published quantity is reproduced.

    Returns:
        ``what, compared, agree, largest_difference, tolerance, allowed`` (the tolerance as text).

    Args:
        reproduced: Of :func:`reproduction`.
        rows: Responses.
        measured: Of :func:`neurodivergence.answers`.
        alphas: ``metric, alpha``.
        published: The paper's tables.
        whole: Whether both judges count; published alphas and judged means are about both.
    """
    found = []

    def add(what: str, off: Any, tolerance: float) -> None:
        off = np.abs(np.asarray(off, dtype=float))
        agree = int((off <= tolerance).sum())
        largest = float(off.max()) if len(off) else nan
        row = {"what": what, "compared": len(off), "agree": agree, "largest_difference": largest}
        found.append({**row, "tolerance": tolerance, "allowed": f"{tolerance:g}"})

    add("estimates of contrasts", reproduced["estimate_off"], 1e-6)
    add("standard errors, relative", reproduced["se_off"], 1e-3)
    add("Holm decisions at .05", 1 - reproduced["same_decision"].astype(float), 0)
    if whole:
        both = published.alphas.merge(alphas, on="metric", suffixes=("", "_here"))
        add("Krippendorff alphas", both["alpha"] - both["alpha_here"], 1e-6)
    named = [m for m in published.summary.columns[2:] if whole or m not in JUDGED]
    means = rows.groupby(["model", "condition_id"])[named].mean().stack()
    said = published.summary.set_index(["model", "condition_id"])[named].stack()
    add("means by model and condition", (said - means).dropna(), 5.01e-4)
    ours = rows.merge(measured, on=CELL, suffixes=("", "_text"))
    for metric in ("heading_count", "list_density", "whitespace_ratio", "mean_step_words"):
        add(f"{metric} from the texts", ours[metric] - ours[f"{metric}_text"], 1e-9)
    return pd.DataFrame(found)


def fits(refitted: pd.DataFrame, reproduced: pd.DataFrame) -> pd.DataFrame:
    """Say of the paper's pooled fits where they stopped.

    Returns:
        ``metric, published_at_zero, share_between_queries`` (of the variance, by the converged fit), ``se_ratio``
        of the standard errors of C2 - C0, published over converged; of metrics that are compared.
    """
    both = reproduced.merge(refitted, on=["scope", "metric", "contrast"], suffixes=("", "_here"), validate="1:1")
    both = both.query("scope == 'pooled' and contrast == 'C2 - C0'").reset_index(drop=True)
    return pd.DataFrame(
        {
            "metric": both["metric"],
            "published_at_zero": both["at_zero"],
            "share_between_queries": both["share_between_queries"],
            "se_ratio": both["se"] / both["se_here"],
        }
    )


# --- Query as unit ---


def scale(rows: pd.DataFrame, metric: str) -> float:
    """Return the standard deviation of a metric among responses under C0, within models."""
    without = rows[rows["condition_id"] == "C0"]
    return sqrt(float(without.groupby("model")[metric].var().mean()))


def paired(differences: pd.Series, unit: float, chosen: Parameters) -> dict[str, Any]:
    """Estimate a mean difference over units and test it against zero, and for equivalence.

    Args:
        differences: One per unit, in the metric's own scale; NaN is left out.
        unit: Standard deviation that effects are expressed in.
        chosen: Confidence, margin, alpha, replicates, seed.

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
    low, high = about.tconfint_mean(alpha=1 - chosen.confidence)
    flipped = lib_stats.sign_flip(d, replicates=chosen.replicates, seed=chosen.seed)
    reach = stats.t.ppf(1 - chosen.alpha / 2, len(d) - 1)
    return {
        "n": len(d),
        "difference": float(d.mean()),
        "se": float(about.std_mean * unit),
        "sd": unit,
        "estimate": float(about.mean),
        "low": float(low),
        "high": float(high),
        "p": flipped.p,
        "p_equivalence": float(about.ttost_mean(-chosen.margin, chosen.margin)[0]),
        "minimum_detectable": float((reach + stats.t.ppf(0.8, len(d) - 1)) * about.std_mean),
        "power_margin": lib_stats.power_mean(chosen.margin, about.std_mean, len(d) - 1, alpha=chosen.alpha),
    }


def differences(rows: pd.DataFrame, metric: str, late: str, early: str, chosen: Parameters) -> pd.Series:
    """Return the difference between two conditions per unit; models and profiles weigh the same."""
    if chosen.unit == "response":
        wide = rows.pivot_table(index=["query_id", "model", "profile_id"], columns="condition_id", values=metric)
    else:
        cells = rows.groupby(["query_id", "model", "condition_id"])[metric].mean()
        wide = cells.groupby(["query_id", "condition_id"]).mean().unstack("condition_id")
    return wide[late] - wide[early]


def corrected(table: pd.DataFrame, family: str, protocol: Protocol, chosen: Parameters) -> pd.DataFrame:
    """Add ``p_adjusted, rejected`` within a declared family, and ``equivalent``; what is not there counts as 1."""
    declared = protocol.families[family]
    values = table.set_index("hypothesis")["p"].reindex(list(declared.hypotheses))
    done = lib_stats.correct(
        values, alpha=chosen.alpha, method=chosen.correction, size=declared.size, undefined=declared.undefined
    ).loc[table["hypothesis"]]
    return table.assign(
        family=family,
        p_adjusted=done["p_adjusted"].to_numpy(),
        rejected=done["rejected"].to_numpy(dtype=bool),
        equivalent=table["p_equivalence"] <= chosen.alpha,
    )


def contrasts(rows: pd.DataFrame, protocol: Protocol, chosen: Parameters) -> pd.DataFrame:
    """Return the planned contrasts over models, corrected within the study.

    Returns:
        ``hypothesis, metric, contrast`` and what :func:`paired` and :func:`corrected` give.
    """
    found = [
        {
            "hypothesis": f"{metric}: {contrast}",
            "metric": metric,
            "contrast": contrast,
            **paired(differences(rows, metric, *PAIRS[contrast], chosen), scale(rows, metric), chosen),
        }
        for metric in chosen.metrics
        for contrast in PLANNED
    ]
    return corrected(pd.DataFrame(found), "pooled", protocol, chosen)


def directives(rows: pd.DataFrame, protocol: Protocol, chosen: Parameters) -> pd.DataFrame:
    """Return C2 - C1, what the directives add to the profile; columns as of :func:`contrasts`."""
    found = [
        {
            "hypothesis": f"{metric}: C2 - C1",
            "metric": metric,
            **paired(differences(rows, metric, "C2", "C1", chosen), scale(rows, metric), chosen),
        }
        for metric in chosen.metrics
    ]
    return corrected(pd.DataFrame(found), "directives", protocol, chosen)


def by_model(rows: pd.DataFrame, protocol: Protocol, chosen: Parameters) -> pd.DataFrame:
    """Return the planned contrasts of each model, corrected together; ``hypothesis`` begins with the model."""
    found = [
        {
            "hypothesis": f"{model} {metric}: {contrast}",
            "model": model,
            "metric": metric,
            "contrast": contrast,
            **paired(differences(part, metric, *PAIRS[contrast], chosen), scale(part, metric), chosen),
        }
        for model, part in rows.groupby("model", sort=True)
        for metric in chosen.metrics
        for contrast in PLANNED
    ]
    return corrected(pd.DataFrame(found), "models", protocol, chosen)


def interactions(rows: pd.DataFrame, protocol: Protocol, chosen: Parameters) -> pd.DataFrame:
    """Return whether the models differ in what a condition changes, corrected within the family.

    The estimate is the first model's contrast less the second's, paired by query, in standard deviations under C0.
    With the response as unit it is still taken over queries: a response belongs to one model.

    Returns:
        As :func:`contrasts`, with ``rising`` and ``falling``: the models whose own estimates have that sign, where
        the difference is significant and the signs are opposite. Empty where this run has not two models.
    """
    by_query = chosen.model_copy(update={"unit": "query"})
    models = sorted(rows["model"].unique())
    if len(models) != 2:
        return pd.DataFrame(columns=["hypothesis", "metric", "contrast", "rising", "falling"])
    found = []
    for metric in chosen.metrics:
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
    table = corrected(pd.DataFrame(found), "interaction", protocol, chosen)
    opposite = table["rejected"] & (table["rising"] != "") & (table["falling"] != "")
    return table.assign(rising=table["rising"].where(opposite, ""), falling=table["falling"].where(opposite, ""))


def by_domain(rows: pd.DataFrame, metric: str, chosen: Parameters) -> pd.DataFrame:
    """Return the planned contrasts of a metric in each domain of queries, in the metric's own units.

    A domain holds six queries: a sign flip cannot give a p below 2/64. So this describes; it tests nothing.

    Returns:
        ``domain, contrast, n, difference, low, high``.
    """
    found = []
    for domain, part in rows.groupby("query_domain", sort=True):
        for contrast in PLANNED:
            told = paired(differences(part, metric, *PAIRS[contrast], chosen), 1.0, chosen)
            kept = {name: told[name] for name in ("n", "difference", "low", "high")}
            found.append({"domain": domain, "contrast": contrast, **kept})
    return pd.DataFrame(found)


def beside(table: pd.DataFrame, refitted: pd.DataFrame, rows: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Return the paper's Wald test beside the test by query, in standard deviations.

    ``size_of_wald`` is the error rate that a Wald test at alpha has when query differences are as variable as they
    are and their mean is zero: the share of random sign patterns of the centred differences that it rejects.

    Returns:
        Columns of :func:`contrasts`, and ``wald_se, wald_low, wald_high, p_wald, p_wald_holm`` (within the
        metric), ``se_ratio`` (query over Wald), ``size_of_wald``.
    """
    pooled = refitted[refitted["scope"] == "pooled"].set_index(["metric", "contrast"])
    signs = np.random.default_rng(chosen.seed).choice([-1.0, 1.0], size=(min(chosen.replicates, 20_000), 192))
    reach, rejects = stats.norm.ppf(0.5 + chosen.confidence / 2), stats.norm.ppf(1 - chosen.alpha / 2)
    found = []
    for row in table.to_dict("records"):
        unit = row["sd"] or nan
        fit = pooled.reindex([(row["metric"], row["contrast"])]).iloc[0].astype(object)
        d = differences(rows, row["metric"], *PAIRS[row["contrast"]], chosen).dropna().to_numpy()
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


def steps(rows: pd.DataFrame, protocol: Protocol, chosen: Parameters) -> pd.DataFrame:
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
                    **paired(d, scale(source, metric), chosen),
                }
            )
    return corrected(pd.DataFrame(found), "steps", protocol, chosen)


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


def noise(rows: pd.DataFrame, table: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Compare effects with the differences among four answers to one prompt.

    C0 has no profile: its four answers per model and query are repetitions at temperature 0.

    Args:
        rows: Responses.
        table: Of :func:`contrasts`.
        chosen: Metrics.

    Returns:
        ``metric``; ``noise`` and ``profiles_C1, profiles_C2``: standard deviations of the four answers of a model
        and query, under C0 and with four profiles, in standard deviations under C0; ``share`` of variance under C0
        that is noise; ``effect_C1, effect_C2``; and ``null_95``: the 95 % quantile of the absolute mean difference
        between two random halves of the repetitions over all queries, the size of "effects" when nothing differs.
    """
    rng = np.random.default_rng(chosen.seed)
    halves = rng.permuted(np.tile([1.0, 1.0, -1.0, -1.0], (2000, len(rows) // 12, 1)), axis=2) / 2
    effects = table.set_index(["metric", "contrast"])["estimate"]
    found = []
    for metric in chosen.metrics:
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


def differing_calls(measured: pd.DataFrame, chosen: Parameters) -> dict[str, Any]:
    """Estimate the share of pairs of calls with one prompt whose texts differ, over queries."""
    without = measured[(measured["condition_id"] == "C0") & measured["model"].isin(chosen.models)]
    texts = without.groupby(["query_id", "model"])["text"]
    alike = texts.agg(lambda text: sum(n * (n - 1) for n in text.value_counts()) / (len(text) * (len(text) - 1)))
    return paired((1 - alike).groupby("query_id").mean(), 1.0, chosen)


def repetitions(measured: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Count how many different texts four calls with one prompt gave: ``model, queries, different`` (1 to 4)."""
    without = measured[(measured["condition_id"] == "C0") & measured["model"].isin(chosen.models)]
    texts = without.groupby(["model", "query_id"])["text"].nunique()
    counted = texts.groupby("model").value_counts().rename("queries").reset_index()
    return counted.rename(columns={"text": "different"}).sort_values(["model", "different"], ignore_index=True)


# --- Judges ---


def agreement(scored: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Return how far the judges agree on each metric: over all queries and in each domain.

    Queries are drawn as clusters. Refusal is nominal with two categories, the others ordinal from 0 to 4.

    Returns:
        ``metric, domain, responses, queries, same`` (share of equal scores), ``alpha, low, high``, ``ac2, ac2_low,
        ac2_high`` (quadratic weights), ``kappa`` (quadratic), ``most`` (share of the most frequent score) and
        ``reason`` where alpha or its interval is undefined. Empty with fewer than two judges.
    """
    if len(chosen.judges) < 2:
        return pd.DataFrame()
    scored = scored[scored["model"].isin(chosen.models)]
    found = []
    for metric in (m for m in JUDGED if m in chosen.metrics):
        wide = scored.pivot_table(index=[*CELL, "query_domain"], columns="judge", values=metric)[
            list(chosen.judges)
        ].reset_index()
        for domain in ("all", *sorted(wide["query_domain"].unique())):
            part = wide if domain == "all" else wide[wide["query_domain"] == domain]
            ratings = part[list(chosen.judges)].to_numpy()
            how: dict[str, Any] = {
                "categories": (0, 1) if metric == BINARY else range(5),
                "cluster": part["query_id"].to_numpy(),
                "confidence": chosen.confidence,
                "replicates": chosen.replicates,
                "seed": chosen.seed,
            }
            level: Level = "nominal" if metric == BINARY else "ordinal"
            alpha = lib_stats.krippendorff_alpha(ratings, level=level, **how)
            ac2 = lib_stats.gwet_ac(ratings, weights="quadratic", **how)
            found.append(
                {
                    "metric": metric,
                    "domain": domain,
                    "responses": len(part),
                    "queries": part["query_id"].nunique(),
                    "same": lib_stats.raw_agreement(ratings, **how).estimate,
                    "alpha": alpha.estimate,
                    "low": alpha.low,
                    "high": alpha.high,
                    "ac2": ac2.estimate,
                    "ac2_low": ac2.low,
                    "ac2_high": ac2.high,
                    "kappa": lib_stats.cohen_kappa(ratings, weights="quadratic", **how).estimate,
                    "most": float(pd.Series(ratings.ravel()).value_counts(normalize=True).iloc[0]),
                    "reason": alpha.reason,
                }
            )
    return pd.DataFrame(found)


GATE = [
    *("metric", "alpha", "low", "high", "judges", "mean_reliability", "mean_low", "mean_high"),
    *("threshold", "point_passes", "passes"),
]


def gates(agreed: pd.DataFrame, protocol: Protocol, judges: int) -> pd.DataFrame:
    """Apply the threshold of alpha to its point estimate, as the paper does, and to what the analysis uses.

    The analysis uses the mean over judges, which is more reliable than one judge: of k judges with a single-judge
    reliability of alpha it is k alpha / (1 + (k - 1) alpha) (Spearman-Brown). The lower limit of that must reach
    the threshold. The formula rises with alpha, so the limits of alpha's interval become the limits of the mean's.

    Returns:
        :data:`GATE`.
    """
    threshold = float(protocol.design["alpha_threshold"])
    if agreed.empty:
        return pd.DataFrame(columns=GATE)
    whole = agreed[agreed["domain"] == "all"].assign(judges=judges)
    for name, single in (("mean_reliability", "alpha"), ("mean_low", "low"), ("mean_high", "high")):
        whole[name] = [lib_stats.spearman_brown(value, judges) for value in whole[single].astype(float)]
    limits = {row["metric"]: (row["mean_low"], ">=", threshold) for row in whole.to_dict("records")}
    points = {row["metric"]: (row["alpha"], ">=", threshold) for row in whole.to_dict("records")}
    return (
        whole[GATE[:8]]
        .assign(
            threshold=threshold,
            point_passes=scoring.gate(points)["passes"].to_numpy(),
            passes=scoring.gate(limits)["passes"].to_numpy(),
        )
        .reset_index(drop=True)
    )


def self_and_cross(scored: pd.DataFrame, protocol: Protocol, chosen: Parameters) -> pd.DataFrame:
    """Return effects as each judge sees them: of the other model's answers, of its own, and the difference.

    Returns:
        ``hypothesis, metric, contrast, judged`` (``self, cross, self - cross``), and as :func:`contrasts`;
        differences are corrected together, the effects themselves are not.
    """
    scored = scored[scored["model"].isin(chosen.models) & scored["judge"].isin(chosen.judges)]
    parts = {
        "self": scored[scored["judge"] == scored["model"]],
        "cross": scored[scored["judge"] != scored["model"]],
    }
    query = chosen.model_copy(update={"unit": "query"})
    found = []
    for metric in (m for m in JUDGED if m in chosen.metrics):
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
                    **paired(values, unit, chosen),
                }
                for name, values in d.items()
            ]
    table = pd.DataFrame(found)
    if table.empty:
        return table
    apart = corrected(table[table["judged"] == "self - cross"], "judges", protocol, chosen)
    return table.join(apart[["p_adjusted", "rejected", "equivalent"]])


def levels(scored: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Return mean scores by judge and by whose answer it is: ``metric, judge, model, relation, C0, C1, C2``."""
    scored = scored[scored["model"].isin(chosen.models) & scored["judge"].isin(chosen.judges)]
    judged = [m for m in JUDGED if m in chosen.metrics]
    means = scored.groupby(["judge", "model", "condition_id"])[judged].mean()
    long = means.rename_axis(columns="metric").stack().unstack("condition_id").reset_index()
    long["relation"] = np.where(long["judge"] == long["model"], "self", "cross")
    long["metric"] = pd.Categorical(long["metric"], categories=judged, ordered=True)
    long = long.sort_values(["metric", "judge", "model"], ignore_index=True).astype({"metric": str})
    return long[["metric", "judge", "model", "relation", *CONDITIONS]].rename_axis(columns=None)


# --- Scope of the correction ---


def scopes(both: pd.DataFrame, single: pd.DataFrame, refitted: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Adjust the pooled contrasts within metric, within study, and over all contrasts, models included.

    Args:
        both: Of :func:`beside`.
        single: Of :func:`by_model`.
        refitted: Of :func:`as_published`.
        chosen: Alpha, correction.

    Returns:
        ``hypothesis, test`` (``Wald, responses`` or ``sign flip, queries``), ``p, within_metric, within_study,
        all``.
    """
    each = refitted[refitted["scope"] != "pooled"]
    found = []
    for test, p, others in (
        ("Wald, responses", both.set_index("hypothesis")["p_wald"], each["p"]),
        ("sign flip, queries", both.set_index("hypothesis")["p"], single["p"]),
    ):
        how: dict[str, Any] = {"alpha": chosen.alpha, "method": chosen.correction, "undefined": "one"}
        metric = p.groupby(p.index.str.split(":").str[0], sort=False)
        inside = pd.concat([lib_stats.correct(part, size=len(part), **how)["p_adjusted"] for _, part in metric])
        study = lib_stats.correct(p, size=len(p), **how)["p_adjusted"]
        every = pd.concat([p, others.set_axis([f"model {place}" for place in range(len(others))])])
        over_all = lib_stats.correct(every, size=len(every), **how)["p_adjusted"]
        table = pd.DataFrame({"p": p, "within_metric": inside, "within_study": study, "all": over_all[p.index]})
        found.append(table.rename_axis("hypothesis").reset_index().assign(test=test))
    whole = pd.concat(found, ignore_index=True)
    return whole[["hypothesis", "test", "p", "within_metric", "within_study", "all"]]


def counted(table: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Count what each scope rejects: ``test, contrasts, uncorrected, within_metric, within_study, all``."""
    names = {"p": "uncorrected", "within_metric": "within_metric", "within_study": "within_study", "all": "all"}
    groups = table.groupby("test", sort=False)
    below = {label: groups[column].agg(lambda p: int((p <= chosen.alpha).sum())) for column, label in names.items()}
    return pd.DataFrame({"contrasts": groups.size(), **below}).reset_index()


# --- Text against tables ---


def mismatches(reported: pd.DataFrame, published: Published) -> pd.DataFrame:
    """Compare what the paper's text says with its own tables.

    Args:
        reported: ``statement, place, said, relation, decimals, quantity``; see ``data/published/README.md``.
        published: The paper's tables.

    Returns:
        ``statement, place, said, relation, table, agrees``.
    """
    names = (
        published.contrasts["scope"] + " " + published.contrasts["metric"] + ": " + published.contrasts["contrast"]
    )
    estimates: dict[str, float] = dict(zip(names, published.contrasts["estimate"], strict=True))
    p_holm: dict[str, float] = dict(zip(names, published.contrasts["p_holm"], strict=True))
    alphas: dict[str, float] = dict(zip(published.alphas["metric"], published.alphas["alpha"], strict=True))
    long = published.summary.set_index(["model", "condition_id"]).rename_axis(columns="metric").stack()
    means: dict[Any, float] = long.to_dict()
    pooled: dict[Any, float] = long.groupby(["condition_id", "metric"]).mean().to_dict()
    models = [str(model) for model in published.summary["model"].unique()]

    def value(quantity: str) -> float:
        kind, _, about = quantity.partition(" ")
        if kind == "alpha":
            return alphas[about]
        if kind == "mean":
            return means[tuple(about.split())]
        if kind == "p_holm":
            return p_holm[about]
        if kind == "change":  # of the mean over models, in per cent
            metric, condition = about.split()
            return 100 * (pooled[condition, metric] / pooled["C0", metric] - 1)
        pairs = [[estimates[f"{model} {name}"] for model in models] for name in about.split(",")]
        if kind == "opposite":  # estimates of a model whose sign is not the pooled one's
            whole = [estimates[f"pooled {name}"] for name in about.split(",")]
            return float(sum(one * first < 0 for first, pair in zip(whole, pairs, strict=True) for one in pair))
        if kind == "ratio":  # largest ratio between two models' estimates of one sign
            same = [sorted(map(abs, pair)) for pair in pairs if pair[0] * pair[1] > 0]
            return float(max(high / low for low, high in same))
        raise KeyError(quantity)

    rows = []
    for row in reported.to_dict("records"):
        found = value(row["quantity"])
        if row["relation"] == "=":
            agrees = abs(found - row["said"]) <= 0.5001 * 10.0 ** -row["decimals"]
        else:
            agrees = found < row["said"] if row["relation"] == "<" else found > row["said"]
        shown = {name: row[name] for name in ("statement", "place", "relation", "said")}
        rows.append({**shown, "table": found, "agrees": bool(agrees)})
    return pd.DataFrame(rows)
