"""Scores, contrasts and figures of the study of persona bias."""

from __future__ import annotations

from collections.abc import Mapping
from math import asin, nan, sqrt
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import statsmodels.api as sm
from matplotlib.figure import Figure
from scipy import stats
from statsmodels.discrete.conditional_models import ConditionalLogit
from statsmodels.stats.weightstats import DescrStatsW

from persona_bias import extractors
from persona_bias.design import Parameters
from persona_studies.analyse import multiple_choice as shared
from persona_studies.analyse import scoring, verdicts
from persona_studies.analyse import stats as lib_stats
from persona_studies.analyse.contrasts import outcome
from persona_studies.design.plan import DERIVED
from persona_studies.design.protocol import Protocol

OVERALL = "mean of all personas"
EFFECT = ["n", "difference", "sd", "se", "low", "high", "p", "p_equivalence"]


# --- Scores ---


def scores_by_measure(
    recorded: pd.DataFrame, asked: pd.DataFrame, people: pd.DataFrame, extractor: str
) -> dict[str, pd.DataFrame]:
    """Return :func:`scores` of every measure that is recorded."""
    held = {*recorded["measure"]}
    names = [name for name in ("cloze", "pmi", "letter", "text") if DERIVED.get(name, name) in held]
    return shared.readable({name: scores(recorded, asked, people, name, extractor) for name in names}, recorded)


def scores(
    recorded: pd.DataFrame, asked: pd.DataFrame, people: pd.DataFrame, measure: str, extractor: str = "lenient"
) -> pd.DataFrame:
    """Score every question under every condition, as :func:`multiple_choice_scores.choices` does.

    Args:
        recorded: Responses.
        asked: Questions, as :func:`persona_bias.questions` returns them.
        people: Conditions, as :func:`persona_bias.people` returns them.
        measure: ``cloze``, ``pmi``, ``letter`` or ``text`` (replies from which an answer is read).
        extractor: How replies are read.

    Returns:
        One row per condition and question: ``condition, who`` (the persona, with its mitigation or paraphrase),
        ``persona, group, kind, instruction, item, dataset, domain, cluster, gold, n_options, unknown, chosen,
        correct, score, option_mass``.
    """
    about = people.drop(columns=["system", "description", "condition_hash", "words"])
    read = extractors.place(extractor)
    every = shared.choices(recorded, asked, measure, read).dropna(subset="score").merge(about, on="condition")
    every["who"] = every["persona"].where(
        every["variant"] == "",
        every["persona"] + np.where(every["kind"] == "mitigated", " + ", " ") + every["variant"],
    )
    if "unknown" not in every:
        every["unknown"] = nan
    columns = [
        *("condition", "who", "persona", "group", "kind", "instruction", "item", "dataset", "domain", "cluster"),
        *("gold", "n_options", "unknown", "chosen", "correct", "score", "option_mass"),
    ]
    return every.sort_values(["item", "condition"], kind="stable", ignore_index=True)[columns]


def by_question(scored: pd.DataFrame, value: str = "score") -> pd.DataFrame:
    """Return questions x who: the mean over instructions, indexed by ``dataset, item, cluster``.

    Two further columns: the mean of all personas, and of the assistants.
    """
    wide = scored.pivot_table(index=["dataset", "item", "cluster"], columns="who", values=value, sort=False)
    people = scored.loc[scored["kind"] == "persona", "who"].unique()
    assistants = [name for name in wide if str(name).startswith("assistant ")]
    return wide.assign(
        **{
            OVERALL: wide[list(people)].mean(axis=1, skipna=False) if len(people) else nan,
            "assistant": wide[assistants].mean(axis=1, skipna=False) if assistants else nan,
        }
    )


# --- Contrasts ---


def contrast(wide: pd.DataFrame, first: str, second: str, chosen: Parameters) -> dict[str, Any]:
    """Estimate the difference between two columns of :func:`by_question`; undefined where one is not asked."""
    [found] = differences(wide, {first: (first, second)}, chosen).values()
    return found


def differences(
    wide: pd.DataFrame, pairs: Mapping[str, tuple[str, str]], chosen: Parameters
) -> dict[str, dict[str, Any]]:
    """Estimate differences as :func:`contrast` does, with one draw of signs for all.

    Args:
        wide: Of :func:`by_question`.
        pairs: Name -> who, compared with whom.
        chosen: Confidence, margin, replicates, seed.
    """
    asked = {name: wide[a] - wide[b] for name, (a, b) in pairs.items() if a in wide and b in wide}
    found = shared.paired(
        pd.DataFrame(asked, index=wide.index, columns=list(pairs), dtype=float),
        confidence=chosen.confidence,
        margin=chosen.margin,
        replicates=chosen.replicates,
        seed=chosen.seed,
    ).to_dict("index")
    return {str(name): {str(key): value for key, value in row.items()} for name, row in found.items()}


def effects(wide: pd.DataFrame, first: str, second: str, chance: pd.Series) -> dict[str, float]:
    """Return a difference on the scales that papers use, datasets weighing the same.

    Args:
        wide: Of :func:`by_question`.
        first: Who.
        second: Compared with whom.
        chance: Per item, 1 / options.

    Returns:
        ``accuracy, reference, cohens_h, relative_drop`` (fall over the reference's accuracy) and
        ``chance_corrected_drop`` (fall over what the reference has above chance; undefined where that is nothing).
    """
    if first not in wide or second not in wide:
        return dict.fromkeys(["accuracy", "reference", "cohens_h", "relative_drop", "chance_corrected_drop"], nan)
    both = wide[[first, second]].dropna()
    both = both.assign(chance=chance.reindex(both.index.get_level_values("item")).to_numpy())
    a, b, guess = both.groupby(level="dataset").mean().mean()[[first, second, "chance"]]
    return {
        "accuracy": a,
        "reference": b,
        "cohens_h": 2 * asin(sqrt(a)) - 2 * asin(sqrt(b)),
        "relative_drop": (b - a) / b if b > 0 else nan,
        "chance_corrected_drop": (b - a) / (b - guess) if b > guess else nan,
    }


def corrected(table: pd.DataFrame, p: str, family: str, protocol: Protocol, chosen: Parameters) -> pd.DataFrame:
    """Correct a column of p-values within a declared family, whose hypotheses are the column ``hypothesis``.

    Returns:
        ``p_adjusted, rejected``, aligned with the table. What was not asked counts as p = 1.
    """
    return shared.corrected(table, p, protocol.families[family], alpha=chosen.alpha, correction=chosen.correction)


def contrasts(
    scored: pd.DataFrame, asked: pd.DataFrame, protocol: Protocol, chosen: Parameters, usable: list[str]
) -> pd.DataFrame:
    """Return every declared contrast over the usable datasets: all personas, each, pairs, and the controls.

    Args:
        scored: Of :func:`scores`.
        asked: Questions, for chance.
        protocol: Declares the families.
        chosen: Baseline, alpha, correction, confidence, margin, replicates, seed.
        usable: Datasets that are neither at floor nor at ceiling.

    Returns:
        ``family, hypothesis, n, accuracy, reference, difference, sd, se, low, high, cohens_h, relative_drop,
        chance_corrected_drop, p, p_adjusted, rejected, p_equivalence, p_equivalence_adjusted, equivalent,
        verdict``; equivalence is tested for the family ``persona`` within its own family, uncorrected elsewhere.
    """
    wide = by_question(scored)
    wide = wide[wide.index.get_level_values("dataset").isin(usable)]
    chance = (1 / asked.set_index("item")["n_options"]).rename("chance")
    parts = []
    for family in ("overall", "persona", "pairs", "controls"):
        pairs = {}
        for name in protocol.families[family].hypotheses:
            first, _, second = name.partition(" - ")
            pairs[name] = first, second or chosen.baseline
        found = differences(wide, pairs, chosen)
        table = pd.DataFrame(
            [
                {"family": family, "hypothesis": name, **found[name], **effects(wide, *pair, chance)}
                for name, pair in pairs.items()
            ]
        )
        table[["p_adjusted", "rejected"]] = corrected(table, "p", family, protocol, chosen)
        if family == "persona":
            inside = corrected(table, "p_equivalence", "persona_equivalence", protocol, chosen)
            table["p_equivalence_adjusted"], table["equivalent"] = inside["p_adjusted"], inside["rejected"]
        else:
            table["p_equivalence_adjusted"] = table["p_equivalence"]
            table["equivalent"] = table["p_equivalence"] <= chosen.alpha
        parts.append(table)
    whole = pd.concat(parts, ignore_index=True)
    whole[["rejected", "equivalent"]] = whole[["rejected", "equivalent"]].astype(bool)
    whole["verdict"] = [
        "not asked"
        if row["n"] == 0
        else outcome(row["difference"], rejected=row["rejected"], equivalent=row["equivalent"])
        for row in whole.to_dict("records")
    ]
    return whole[
        [
            *("family", "hypothesis", "n", "accuracy", "reference", "difference", "sd", "se", "low", "high"),
            *("cohens_h", "relative_drop", "chance_corrected_drop", "p", "p_adjusted", "rejected"),
            *("p_equivalence", "p_equivalence_adjusted", "equivalent", "verdict"),
        ]
    ]


def by_dataset(scored: pd.DataFrame, asked: pd.DataFrame, protocol: Protocol, chosen: Parameters) -> pd.DataFrame:
    """Return each persona against the baseline on each dataset: the family that the paper does not correct.

    Returns:
        ``hypothesis, persona, group, dataset`` and as :func:`contrasts`; ``p_adjusted, rejected`` within
        persona x dataset, ``p_bh, rejected_bh`` by Benjamini and Hochberg.
    """
    wide = by_question(scored)
    chance = (1 / asked.set_index("item")["n_options"]).rename("chance")
    groups = scored[scored["kind"] == "persona"].drop_duplicates("who").set_index("who")["group"]
    personas = [(who, groups[who]) for who in protocol.families["persona"].hypotheses if who in groups]
    rows = []
    for dataset in dict.fromkeys(asked["dataset"]):
        part = wide[wide.index.get_level_values("dataset") == dataset]
        found = differences(part, {who: (who, chosen.baseline) for who, _ in personas}, chosen)
        for who, group in personas:
            rows.append(
                {
                    "hypothesis": f"{who} | {dataset}",
                    "persona": who,
                    "group": group,
                    "dataset": dataset,
                    **found[who],
                    **effects(part, who, chosen.baseline, chance),
                }
            )
    table = pd.DataFrame(rows)
    declared = protocol.families["persona_dataset"]
    values = table.set_index("hypothesis")["p"]
    inside = values.reindex(list(declared.hypotheses))
    # A dataset that the protocol does not name enlarges the family by its own hypotheses.
    whole = pd.concat([inside, values[~values.index.isin(inside.index)]])
    for method, suffix in ((chosen.correction, "adjusted"), ("fdr_bh", "bh")):
        done = lib_stats.correct(whole, alpha=chosen.alpha, method=method, size=len(whole), undefined="one")
        done = done.loc[table["hypothesis"]]
        table[f"p_{suffix}"] = done["p_adjusted"].to_numpy()
        table["rejected" if suffix == "adjusted" else "rejected_bh"] = done["rejected"].to_numpy()
    return table


def counts(table: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Count the datasets on which each persona is significantly worse: the paper's way, and corrected.

    Args:
        table: Of :func:`by_dataset`.
        chosen: Alpha.

    Returns:
        ``persona, group, datasets, worse_uncorrected, worse_bh, worse_adjusted, better_uncorrected``.
    """
    worse, better = table["difference"] < 0, table["difference"] > 0
    marked = table.assign(
        worse_uncorrected=(table["p"] <= chosen.alpha) & worse,
        worse_bh=table["rejected_bh"].astype(bool) & worse,
        worse_adjusted=table["rejected"].astype(bool) & worse,
        better_uncorrected=(table["p"] <= chosen.alpha) & better,
    )
    columns = ["worse_uncorrected", "worse_bh", "worse_adjusted", "better_uncorrected"]
    groups = marked.groupby(["persona", "group"], sort=False)
    return (
        groups[columns]
        .sum()
        .assign(datasets=groups.size())
        .reset_index()[["persona", "group", "datasets", *columns]]
    )


def omnibus(table: pd.DataFrame, protocol: Protocol, chosen: Parameters) -> pd.DataFrame:
    """Test for each persona whether it differs from the baseline on any dataset.

    Datasets have no question in common, so their p-values are independent and Fisher's method combines them.

    Args:
        table: Of :func:`by_dataset`.
        protocol: Declares the family.
        chosen: Alpha, correction.

    Returns:
        ``hypothesis`` (persona), ``datasets, chi2, p, p_adjusted, rejected``.
    """
    rows = []
    for persona, group in table.groupby("persona", sort=False):
        p = group["p"].dropna()
        found = stats.combine_pvalues(p, method="fisher") if len(p) else None
        rows.append(
            {
                "hypothesis": persona,
                "datasets": len(p),
                "chi2": float(found.statistic) if found else nan,
                "p": float(found.pvalue) if found else nan,
            }
        )
    done = pd.DataFrame(rows)
    done[["p_adjusted", "rejected"]] = corrected(done, "p", "omnibus", protocol, chosen)
    return done


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


# --- Does the measure measure anything? ---


def accuracy(scored: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Return accuracy per dataset and who, with an interval over questions, beside chance.

    Returns:
        ``dataset, who, n, accuracy, low, high, chance``.
    """
    wide = by_question(scored)
    chance = (1 / scored.drop_duplicates("item").set_index("item")["n_options"]).rename("chance")
    rows = []
    for dataset, group in wide.groupby(level="dataset", sort=False):
        for who in wide.columns:
            values = group[who].dropna()
            if len(values) < 2:
                continue
            low, high = DescrStatsW(values).tconfint_mean(1 - chosen.confidence)
            guess = chance.loc[values.index.get_level_values("item")].mean()
            rows.append((dataset, who, len(values), values.mean(), low, high, guess))
    return pd.DataFrame(rows, columns=["dataset", "who", "n", "accuracy", "low", "high", "chance"])


def headroom(table: pd.DataFrame, ceiling: float, chosen: Parameters) -> pd.DataFrame:
    """Say for every dataset whether the baseline is at floor, at ceiling, or usable.

    Args:
        table: Of :func:`accuracy`.
        ceiling: Accuracy that the interval must lie below.
        chosen: Baseline.
    """
    return shared.extremes(table[table["who"] == chosen.baseline].drop(columns="who"), ceiling)


def gates(
    protocol: Protocol,
    scored: dict[str, pd.DataFrame],
    recorded: pd.DataFrame,
    asked: pd.DataFrame,
    parsed: float,
    chosen: Parameters,
) -> pd.DataFrame:
    """Decide by rule whether each measure counts.

    Args:
        protocol: Thresholds.
        scored: Scores by measure, of those that are recorded.
        recorded: Responses, for option mass and position dominance.
        asked: Questions.
        parsed: Share of replies from which an answer is read.
        chosen: Parameters.

    Returns:
        ``measure, check, value, rule, threshold, passes``.
    """
    parts = []
    for name in [name for name in scored if name != "text"]:
        declared = protocol.measures["letter" if name == "letter" else "cloze"].gate
        state = headroom(accuracy(scored[name], chosen), declared["ceiling"], chosen)
        usable = state.loc[state["status"] == "usable", "dataset"]
        checks: dict[str, tuple[float, str, float]] = {
            "datasets between floor and ceiling": (float(len(usable)), ">=", 1.0)
        }
        if name == "letter":
            letters = recorded[recorded["measure"] == "letter"]
            dominance = shared.position_dominance(recorded, asked)
            checks["option mass"] = (
                float(letters["option_mass"].astype(float).mean()),
                ">=",
                declared["min_option_mass"],
            )
            checks["position decides"] = (dominance, "<=", declared["max_position_dominance"])
        else:
            wide = by_question(scored[name])
            wide = wide[wide.index.get_level_values("dataset").isin(usable)]
            fall = -contrast(wide, "toddler", chosen.baseline, chosen)["difference"]
            checks["fall under the toddler"] = (fall, ">=", declared["positive_control"])
            checks["instructions agree"] = (_instructions(scored[name]), ">=", declared["instructions"])
        parts.append(scoring.gate(checks).assign(measure=name))
    if "text" not in scored:
        return pd.concat(parts, ignore_index=True)[["measure", "check", "value", "rule", "threshold", "passes"]]
    checks = {"an answer is read": (parsed, ">=", protocol.measures["text"].gate["parsed"])}
    parts.append(scoring.gate(checks).assign(measure="text"))
    whole = pd.concat(parts, ignore_index=True)
    return whole[["measure", "check", "value", "rule", "threshold", "passes"]]


def _instructions(scored: pd.DataFrame) -> float:
    """Return the mean correlation over questions between two instructions of the same persona (phi)."""
    found = []
    for _, group in scored[scored["kind"] == "persona"].groupby("persona", sort=False):
        wide = group.pivot_table(index="item", columns="instruction", values="score")
        if wide.shape[1] > 1:
            r = wide.corr().to_numpy()
            found.append(np.nanmean(r[np.triu_indices_from(r, 1)]))
    return float(np.mean(found)) if found else nan


# --- BBQ, mitigations, replies ---


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
            table[["p_adjusted", "rejected"]] = corrected(table, "p", "bbq", protocol, chosen)
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


# --- Other models, power ---


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
    declared = table[table["family"] == "persona"].set_index("hypothesis")["difference"]
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


def power(table: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Return what each contrast can detect, from its observed standard error.

    Returns:
        ``family, hypothesis, n, se, minimum_detectable`` (80 % power, two-sided, before correction),
        ``power_margin`` (of the test of zero against an effect of the margin).
    """
    able = table[table["n"] > 1].reset_index(drop=True)
    z = stats.norm.ppf(1 - chosen.alpha / 2)
    return able[["family", "hypothesis", "n", "se"]].assign(
        minimum_detectable=(z + stats.norm.ppf(0.8)) * able["se"],
        power_margin=stats.norm.sf(z - chosen.margin / able["se"]),
    )


# --- Verdicts ---


def verdict_table(
    protocol: Protocol,
    table: pd.DataFrame,
    able: pd.DataFrame,
    checked: pd.DataFrame,
    scored: pd.DataFrame,
    chosen: Parameters,
) -> pd.DataFrame:
    """Return the verdict on every claim.

    Args:
        protocol: Claims.
        table: Of :func:`contrasts`.
        able: Of :func:`power`.
        checked: Of :func:`gates`.
        scored: Of :func:`scores`: who was asked by the measure.
        chosen: The measure whose gate counts.
    """
    asked = {*scored["who"]}
    failed = checked[(checked["measure"] == chosen.measure) & ~checked["passes"]]["check"].tolist()
    found = {(row["family"], row["hypothesis"]): row for row in table.to_dict("records")}
    strength = {(row["family"], row["hypothesis"]): row["power_margin"] for row in able.to_dict("records")}
    empty = dict.fromkeys(["difference", "low", "high", "p_adjusted", "p_equivalence_adjusted"], nan)
    rows = []
    for name, claim in protocol.claims.items():
        key = (claim.family or "", claim.hypothesis or "")
        row: dict[Any, Any] = found.get(key, {**empty, "n": 0})
        evidence = None
        if row["n"] > 0:
            evidence = verdicts.Evidence(
                estimate=float(row["difference"]),
                rejected=bool(row["rejected"]),
                equivalent=bool(row["equivalent"]),
                power=float(strength.get(key, nan)),
                informative=not failed,
                reason=f"gate of {chosen.measure}: {', '.join(failed)}" if failed else "",
            )
        elif claim.hypothesis is not None and asked >= {*claim.hypothesis.split(" - ")}:
            reason = f"no dataset is usable by {chosen.measure}"
            evidence = verdicts.Evidence(nan, rejected=False, informative=False, reason=reason)
        said, why = verdicts.verdict(claim, evidence)
        if evidence is None and claim.not_testable is None:
            why = f"this contrast was not asked by the measure {chosen.measure}"
        rows.append(
            {
                "claim": name,
                "layer": "corrected",
                "statement": claim.statement,
                "published": claim.published,
                "hypothesis": claim.hypothesis or "",
                "estimate": row["difference"],
                "low": row["low"],
                "high": row["high"],
                "p_adjusted": row["p_adjusted"],
                "p_equivalence_adjusted": row["p_equivalence_adjusted"],
                "verdict": said,
                "why": why,
            }
        )
    return pd.DataFrame(rows)


def finding(
    table: pd.DataFrame, tallied: pd.DataFrame, judged: pd.DataFrame, checked: pd.DataFrame, chosen: Parameters
) -> str:
    """Say what was found in three sentences, from the computed tables."""
    people = table[(table["family"] == "persona") & (table["n"] > 0)]
    overall = table[table["family"] == "overall"].iloc[0]
    uncorrected, adjusted = ((tallied[f"worse_{name}"] > 0).sum() for name in ("uncorrected", "adjusted"))
    failed = checked[(checked["measure"] == chosen.measure) & ~checked["passes"]]["check"].tolist()
    told = ", ".join(f"{n} {name}" for name, n in people["verdict"].value_counts().items())
    said = ", ".join(f"{n} {name}" for name, n in judged["verdict"].value_counts().items())
    tested = told or "none could be tested"
    text = (
        f"**{chosen.model}**: personas answer {overall['difference']:+.3f} [{overall['low']:.3f}, "
        f"{overall['high']:.3f}] against {chosen.baseline.replace('-', ' ')} in accuracy; of "
        f"{len(people)} personas, {tested}. Counted the way of the paper, {uncorrected} of {len(tallied)} "
        f"personas are significantly worse on some dataset; after correction over persona x dataset, {adjusted}. "
    )
    if failed:
        text += f"The gate of {chosen.measure} fails ({', '.join(failed)}). "
    return text + f"Verdicts on the claims: {said}."


# --- Figures ---


def plot_drops(table: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Draw the difference per persona: one point per dataset, and the mean with its interval over questions.

    Args:
        table: Of :func:`by_dataset`, with ``mean, mean_low, mean_high`` of the persona joined on.
        names: Of :func:`persona_bias.names`.
    """
    order = list(dict.fromkeys(table["persona"]))
    figure, axis = plt.subplots(figsize=(8.5, 0.34 * len(order) + 1.2), layout="constrained")
    groups = list(dict.fromkeys(table["group"]))
    colours = dict(zip(groups, sns.color_palette("colorblind", len(groups)), strict=True))
    for place, persona in enumerate(order):
        rows = table[table["persona"] == persona]
        first = rows.iloc[0]
        colour = colours[first["group"]]
        axis.plot(rows["difference"], np.full(len(rows), place), "|", color=colour, ms=9, alpha=0.8)
        axis.plot([first["mean_low"], first["mean_high"]], [place, place], color="0.15", lw=1.6)
        axis.plot(first["mean"], place, "o", color=colour, mec="0.15", ms=6)
    axis.axvline(0, color="0.4", lw=1, ls=":")
    labels = [f"{names[persona]} ({table.loc[table['persona'] == persona, 'group'].iloc[0]})" for persona in order]
    axis.set(
        yticks=range(len(order)),
        yticklabels=labels,
        ylim=(len(order) - 0.5, -0.5),
        xlabel="difference in accuracy against the baseline",
    )
    return figure


def plot_heat(table: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Draw the difference by persona and dataset; a dot marks p <= alpha, a ring significance after correction."""
    # Rounded, because shares lie on the edges between colours, where the last digit would decide.
    wide = table.pivot_table(index="persona", columns="dataset", values="difference", sort=False).round(9)
    down, across = ({name: place + 0.5 for place, name in enumerate(names)} for names in (wide.index, wide.columns))
    reach = float(np.nanmax(np.abs(wide.to_numpy()))) or 0.01
    figure, axis = plt.subplots(figsize=(1.0 + 0.75 * wide.shape[1], 1.6 + 0.33 * len(wide)), layout="constrained")
    sns.heatmap(
        wide.rename(index=names, columns=names),
        cmap="PuOr",
        center=0,
        vmin=-reach,
        vmax=reach,
        ax=axis,
        cbar_kws={"label": "difference in accuracy"},
        linewidths=0.5,
    )
    for row in table.dropna(subset="difference").to_dict("records"):
        x, y = across[row["dataset"]], down[row["persona"]]
        if row["p"] <= row["alpha"]:
            axis.plot(x, y, ".", color="black", ms=5)
        if row["rejected"]:
            axis.plot(x, y, "o", mfc="none", mec="black", ms=10)
    axis.set(xlabel="", ylabel="")
    axis.tick_params(axis="x", rotation=45)
    plt.setp(axis.get_xticklabels(), ha="right", rotation_mode="anchor")
    return figure


def plot_meta(table: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Draw each persona's mean over datasets (line: interval; thin line: prediction interval)."""
    figure, axis = plt.subplots(figsize=(8, 0.34 * len(table) + 1.2), layout="constrained")
    colour = sns.color_palette("colorblind")[0]
    for place, row in enumerate(table.to_dict("records")):
        axis.plot([row["prediction_low"], row["prediction_high"]], [place, place], color="0.6", lw=1)
        axis.plot([row["low"], row["high"]], [place, place], color=colour, lw=2.4)
        axis.plot(row["estimate"], place, "o", color=colour, ms=6)
    axis.axvline(0, color="0.4", lw=1, ls=":")
    axis.set(
        yticks=range(len(table)),
        yticklabels=table["persona"].map(names),
        ylim=(len(table) - 0.5, -0.5),
        xlabel="difference in accuracy, combined over datasets",
    )
    return figure
