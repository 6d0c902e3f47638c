"""The benchmark's own analysis, repeated, and the numbers of its text against its tables."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from math import nan, sqrt
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from scipy import stats

from neurodivergence.design import CELL, JUDGED, PLANNED, Parameters, Published
from persona_studies.analyse.stats.multiplicity import correct


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
    return correct(p, size=len(PLANNED), alpha=0.05)["p_adjusted"]


def every_wald(rows: pd.DataFrame, metrics: Iterable[str]) -> pd.DataFrame:
    """Return :func:`wald` over all models, and for each."""
    metrics = list(metrics)
    parts = [wald(rows, metrics)]
    parts += [wald(part, metrics, str(model)) for model, part in rows.groupby("model", sort=True)]
    return pd.concat(parts, ignore_index=True)


def reproduction(refitted: pd.DataFrame, published: Published, parameters: Parameters) -> pd.DataFrame:
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
    if len(parameters.models) < 2:
        both = both[both["scope"] != "pooled"]
    if len(parameters.judges) < 2:
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
        measured: Of :func:`neurodivergence.answers`.
        alphas: ``metric, alpha``.
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


def scopes(
    both: pd.DataFrame, single: pd.DataFrame, refitted: pd.DataFrame, parameters: Parameters
) -> pd.DataFrame:
    """Adjust the pooled contrasts within metric, within study, and over all contrasts, models included.

    Args:
        both: Of :func:`beside`.
        single: Of :func:`by_model`.
        refitted: Of :func:`as_published`.

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
        how: dict[str, Any] = {"alpha": parameters.alpha, "method": parameters.correction, "undefined": "one"}
        metric = p.groupby(both.set_index("hypothesis")["metric"], sort=False)
        inside = pd.concat([correct(part, size=len(part), **how)["p_adjusted"] for _, part in metric])
        study = correct(p, size=len(p), **how)["p_adjusted"]
        every = pd.concat([p, others.set_axis([f"model {place}" for place in range(len(others))])])
        over_all = correct(every, size=len(every), **how)["p_adjusted"]
        table = pd.DataFrame({"p": p, "within_metric": inside, "within_study": study, "all": over_all[p.index]})
        found.append(table.rename_axis("hypothesis").reset_index().assign(test=test))
    whole = pd.concat(found, ignore_index=True)
    return whole[["hypothesis", "test", "p", "within_metric", "within_study", "all"]]


def mismatches(reported: pd.DataFrame, published: Published) -> pd.DataFrame:
    """Compare what the paper's text says with its own tables.

    Args:
        reported: ``statement, place, said, relation, decimals, quantity``; see ``data/published/README.md``.

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
