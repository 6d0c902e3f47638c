"""Scores, contrasts and figures of the study of expert personas."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import nan, sqrt
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import statsmodels.api as sm
import statsmodels.formula.api as smf
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from expert_personas.design import LETTERS, Parameters
from persona_studies.analyse import multiple_choice as shared
from persona_studies.analyse import scoring, verdicts
from persona_studies.analyse import stats as lib_stats
from persona_studies.analyse.contrasts import outcome
from persona_studies.design.plan import DERIVED
from persona_studies.design.protocol import Protocol

REFERENCE = "no persona"
NAMES = {
    "none": REFERENCE,
    "baseline": "intelligent assistant",
    "layperson": "layperson",
    "young_child": "young child",
    "toddler": "toddler",
    "placebo": "placebo trait",
    "filler": "filler",
    "shuffled": "shuffled expert",
}
RELATIONS = {"in_domain": "in-domain expert", "adjacent": "adjacent expert", "unrelated": "unrelated expert"}
PERSONAS = [
    *("in-domain expert, short", "in-domain expert, elaborate", "adjacent expert", "unrelated expert"),
    *("layperson", "young child", "toddler", "placebo trait", "filler", "shuffled expert", "intelligent assistant"),
    *(
        "in-domain expert, user turn",
        "unrelated expert, user turn",
        "toddler, user turn",
        "placebo trait, user turn",
    ),
]
FAMILIES = ["in_domain", "off_domain", "low_knowledge", "placebo", "user_turn"]


# --- Scores ---


def label(cells: pd.DataFrame) -> pd.Series:
    """Name what a persona is to a question: its kind, or how its field relates to the question's.

    Args:
        cells: ``kind, field, wording, placement`` of the condition; ``in_domain, adjacent, unrelated`` of the
            question.

    Returns:
        Names as the protocol's hypotheses; None for combinations that no hypothesis is about.
    """
    names = cells["kind"].map(NAMES).astype(object)
    expert = cells["kind"] == "expert"
    for relation, name in RELATIONS.items():
        theirs = expert & (cells["field"] == cells[relation])
        if relation == "in_domain":
            names[theirs & (cells["wording"] == "short")] = f"{name}, short"
            names[theirs & (cells["wording"] == "elaborate")] = f"{name}, elaborate"
        else:
            names[theirs & (cells["wording"] == "short")] = name
    moved = (cells["placement"] == "user") & names.notna()
    names[moved] = names[moved].str.removesuffix(", short") + ", user turn"
    return names.where(names.notna(), None)


def scores(recorded: pd.DataFrame, asked: pd.DataFrame, people: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Score every question under every persona, as :func:`multiple_choice_scores.choices` does.

    Args:
        recorded: Responses.
        asked: Questions, as :func:`expert_personas.questions` returns them.
        people: Conditions, as :func:`expert_personas.people` returns them.
        measure: ``cloze``, ``pmi``, ``letter`` or ``text`` (replies that name an option).

    Returns:
        One row per condition and question: ``condition, persona`` (:func:`label`), ``paraphrase, item, benchmark,
        cluster, gold, n_options, chosen`` (0-based), ``correct`` (0 or 1), ``score`` (what is averaged: correct,
        or the right option's probability), ``option_mass, words`` of the persona.
    """
    every = (
        shared.choices(recorded, asked, measure, parse)
        .dropna(subset="score")
        .merge(
            people[["condition", "kind", "field", "wording", "paraphrase", "placement", "words"]], on="condition"
        )
    )
    every["persona"] = label(every)
    every = every[every["persona"].notna()].sort_values(["item", "condition"], kind="stable", ignore_index=True)
    return every[
        [
            "condition",
            "persona",
            "kind",
            "paraphrase",
            "words",
            "item",
            "benchmark",
            "domain",
            "cluster",
            "gold",
            "n_options",
            "chosen",
            "correct",
            "score",
            "option_mass",
        ]
    ]


def scores_by_measure(recorded: pd.DataFrame, asked: pd.DataFrame, people: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return :func:`scores` of every measure that is recorded."""
    held = {*recorded["measure"]}
    names = [name for name in ("cloze", "pmi", "letter", "text") if DERIVED.get(name, name) in held]
    return shared.readable({name: scores(recorded, asked, people, name) for name in names}, recorded)


def by_question(scored: pd.DataFrame, value: str = "score") -> pd.DataFrame:
    """Return questions x personas: the mean over paraphrases, indexed by ``benchmark, item, cluster``."""
    return scored.pivot_table(index=["benchmark", "item", "cluster"], columns="persona", values=value, sort=False)


# --- Contrasts ---


def paired(differences: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Estimate mean differences over questions with a run's settings, as :func:`multiple_choice_scores.paired`."""
    return shared.paired(
        differences,
        confidence=chosen.confidence,
        margin=chosen.margin,
        replicates=chosen.replicates,
        seed=chosen.seed,
    )


def contrasts(scored: pd.DataFrame, protocol: Protocol, chosen: Parameters, usable: list[str]) -> pd.DataFrame:
    """Return every declared contrast against no persona, per benchmark and over the usable ones.

    Args:
        scored: As :func:`scores` returns it.
        protocol: Declares the families; a contrast that this run does not ask counts as p = 1.
        chosen: Alpha, correction, confidence, margin, replicates, seed.
        usable: Benchmarks that are neither at floor nor at ceiling; the overall contrasts are about these.

    Returns:
        ``benchmark, family, contrast, n, accuracy, reference, difference, sd, se, low, high, p, p_adjusted,
        rejected, p_equivalence, p_equivalence_adjusted, equivalent, verdict``.
    """
    wide = by_question(scored)
    parts = []
    for benchmark in [*dict.fromkeys(scored["benchmark"]), "overall"]:
        inside = usable if benchmark == "overall" else [benchmark]
        mine = wide[wide.index.get_level_values("benchmark").isin(inside)]
        names = [f"{family}_{benchmark}" for family in FAMILIES] if benchmark != "overall" else ["overall"]
        rows = []
        for name in names:
            declared = list(protocol.families[name].hypotheses)
            asked = mine.reindex(columns=declared)
            found = paired(asked.sub(mine[REFERENCE], axis=0), chosen).to_dict("index")
            for contrast in declared:
                there = contrast in mine and len(mine) > 0
                rows.append(
                    {
                        "benchmark": benchmark,
                        "family": name,
                        "contrast": contrast,
                        "accuracy": _mean(mine, contrast) if there else nan,
                        "reference": _mean(mine, REFERENCE) if there else nan,
                        **found[contrast],
                    }
                )
        parts.append(_judged(pd.DataFrame(rows), protocol, chosen, benchmark))
    return pd.concat(parts, ignore_index=True)


def _mean(wide: pd.DataFrame, persona: str) -> float:
    """Return accuracy, benchmarks weighing the same."""
    return float(wide[persona].groupby(level="benchmark").mean().mean())


def _judged(table: pd.DataFrame, protocol: Protocol, chosen: Parameters, benchmark: str) -> pd.DataFrame:
    """Correct within families and state the verdict of each contrast."""
    how: dict[str, Any] = {"alpha": chosen.alpha, "method": chosen.correction}
    corrected = []
    for name, rows in table.groupby("family", sort=False):
        family = protocol.families[str(name)]
        done = lib_stats.correct(
            rows.set_index("contrast")["p"], size=family.size, undefined=family.undefined, **how
        )
        corrected.append(done.set_axis(rows.index))
    table[["p_adjusted", "rejected"]] = pd.concat(corrected)[["p_adjusted", "rejected"]]
    family = protocol.families[f"{'overall_equivalence' if benchmark == 'overall' else f'equivalence_{benchmark}'}"]
    done = lib_stats.correct(
        table.set_index("contrast")["p_equivalence"], size=family.size, undefined=family.undefined, **how
    )
    table["p_equivalence_adjusted"] = done["p_adjusted"].to_numpy()
    table["equivalent"] = done["rejected"].to_numpy()
    table["verdict"] = [
        "not asked"
        if row["n"] == 0
        else outcome(row["difference"], rejected=row["rejected"], equivalent=row["equivalent"])
        for row in table.to_dict("records")
    ]
    return table[
        [
            "benchmark",
            "family",
            "contrast",
            "n",
            "accuracy",
            "reference",
            "difference",
            "sd",
            "se",
            "low",
            "high",
            "p",
            "p_adjusted",
            "rejected",
            "p_equivalence",
            "p_equivalence_adjusted",
            "equivalent",
            "verdict",
        ]
    ]


# --- Does the measure measure anything? ---


def accuracy(scored: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Return accuracy per benchmark and persona with an interval over questions, beside chance.

    Returns:
        ``benchmark, persona, n, accuracy, low, high, chance``; chance is the mean of 1 / options per question.
    """
    wide = by_question(scored)
    chance = (1 / scored.drop_duplicates("item").set_index("item")["n_options"]).rename("chance")
    rows = []
    for benchmark, group in wide.groupby(level="benchmark", sort=False):
        for persona in wide.columns:
            values = group[persona].dropna()
            if len(values) < 2:
                continue
            low, high = DescrStatsW(values).tconfint_mean(1 - chosen.confidence)
            rows.append(
                {
                    "benchmark": benchmark,
                    "persona": persona,
                    "n": len(values),
                    "accuracy": values.mean(),
                    "low": low,
                    "high": high,
                    "chance": chance.loc[values.index.get_level_values("item")].mean(),
                }
            )
    return pd.DataFrame(rows)


def extremes(table: pd.DataFrame, ceiling: float) -> pd.DataFrame:
    """Say for every benchmark whether accuracy without a persona is at floor, at ceiling, or usable.

    Args:
        table: Of :func:`accuracy`.
        ceiling: Accuracy that the interval must lie below.
    """
    return shared.extremes(table[table["persona"] == REFERENCE].drop(columns="persona"), ceiling)


def gates(
    protocol: Protocol,
    scored: dict[str, pd.DataFrame],
    recorded: pd.DataFrame,
    asked: pd.DataFrame,
    read: pd.DataFrame,
    chosen: Parameters,
) -> pd.DataFrame:
    """Decide by rule whether each measure counts.

    Args:
        protocol: Thresholds.
        scored: Scores by measure, of those that are recorded.
        recorded: Responses, for position dominance.
        asked: Questions.
        read: Parsed replies, of :func:`replies`.
        chosen: Parameters.

    Returns:
        ``measure, check, value, rule, threshold, passes``.
    """
    parts = []
    for name in [name for name in ("cloze", "pmi") if name in scored]:
        wide = by_question(scored[name])
        thresholds = protocol.measures["cloze"].gate
        fall = _mean(wide, REFERENCE) - _mean(wide, "toddler") if "toddler" in wide else nan
        checks = {
            **_floors(scored[name], thresholds["ceiling"], chosen),
            "fall under the toddler": (fall, ">=", thresholds["positive_control"]),
            "paraphrases agree": (_paraphrases(scored[name]), ">=", thresholds["paraphrases"]),
        }
        parts.append(scoring.gate(checks).assign(measure=name))
    if "letter" in scored:
        thresholds = protocol.measures["letter"].gate
        letters = recorded[recorded["measure"] == "letter"]
        mass = float(letters["option_mass"].astype(float).mean())
        checks = {
            **_floors(scored["letter"], thresholds["ceiling"], chosen),
            "option mass": (mass, ">=", thresholds["min_option_mass"]),
            "position decides": (
                shared.position_dominance(recorded, asked),
                "<=",
                thresholds["max_position_dominance"],
            ),
        }
        parts.append(scoring.gate(checks).assign(measure="letter"))
    if "text" in scored:
        thresholds = protocol.measures["text"].gate
        parsed = read["chosen"].notna()
        agree = (read["chosen"] == read["by_letter"])[parsed & read["by_letter"].notna()]
        checks = {"parsed": (float(parsed.mean()) if len(read) else nan, ">=", thresholds["parsed"])}
        if "letter" in scored:
            agreement = float(agree.mean()) if len(agree) else nan
            checks["agrees with the letters"] = (agreement, ">=", thresholds["agreement"])
        parts.append(scoring.gate(checks).assign(measure="text"))
    whole = pd.concat(parts, ignore_index=True)
    return whole[["measure", "check", "value", "rule", "threshold", "passes"]]


def _floors(scored: pd.DataFrame, ceiling: float, chosen: Parameters) -> dict[str, tuple[float, str, float]]:
    """Return how many benchmarks lie between chance and ceiling; one is enough to go on."""
    table = extremes(accuracy(scored, chosen), ceiling)
    return {"benchmarks between floor and ceiling": (float((table["status"] == "usable").sum()), ">=", 1.0)}


def _paraphrases(scored: pd.DataFrame) -> float:
    """Return the mean correlation over questions between two paraphrases of the same persona (phi)."""
    found = []
    for _, group in scored.groupby("persona", sort=False):
        wide = group.pivot_table(index="item", columns="paraphrase", values="score")
        if wide.shape[1] > 1:
            r = wide.corr().to_numpy()
            found.append(np.nanmean(r[np.triu_indices_from(r, 1)]))
    return float(np.mean(found)) if found else nan


def thresholded(scored: pd.DataFrame, protocol: Protocol) -> pd.DataFrame:
    """Return the share of questions expected right in at least k of m trials, as the paper counts.

    The right option's probability fixes the number of right answers among m drawn at temperature 1 as binomial;
    the share is its mean over questions.

    Args:
        scored: Scores of ``letter``.
        protocol: ``design.thresholds``: trials, and numbers right.

    Returns:
        ``benchmark, persona, trials, at_least, share``.
    """
    design = protocol.design["thresholds"]
    rows = []
    for (benchmark, persona), group in scored.groupby(["benchmark", "persona"], sort=False):
        p = group.groupby("item")["score"].mean()
        rows += [
            {
                "benchmark": benchmark,
                "persona": persona,
                "trials": design["trials"],
                "at_least": k,
                "share": float(stats.binom.sf(k - 1, design["trials"], p).mean()),
            }
            for k in design["correct"]
        ]
    return pd.DataFrame(rows)


# --- Replies ---

# Possessive: a reply of a thousand line ends would otherwise be tried in a billion ways.
_LETTER = re.compile(
    r"^\W*+(?:the\s++)?(?:(?:correct|right)\s++)?(?:answer|option)?\s*+(?:is)?\W*+\b([A-J])\b(?![a-z'])", re.I
)


def parse(text: str, n_options: int) -> int | None:
    """Return the option that a reply names by its letter at the start, or None.

    >>> parse("B. because", 4), parse("The answer is (C).", 4), parse("A cat", 4), parse("J", 4)
    (1, 2, None, None)
    """
    found = _LETTER.match(text)
    if not found:
        return None
    letter = found[1]
    # "A cat" and "I think" are words, not options: a bare letter needs a mark or an end after it.
    rest = text[found.end(1) :]
    if (letter.upper() in "AI" and re.match(r"\s+\w", rest)) or letter.islower():
        return None
    place = LETTERS.index(letter)
    return place if place < n_options else None


def _favoured(logprob: np.ndarray, order: int) -> float:
    """Return the option, as declared, whose letter is the most probable in an order; NaN where none is listed."""
    return nan if np.isnan(logprob).all() else float((np.nanargmax(logprob) + order) % len(logprob))


def replies(recorded: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
    """Read the greedy replies and set them beside what the letters' probabilities favour.

    Returns:
        ``condition, item, benchmark, status`` (answered, unparsed, truncated, failed), ``chosen`` (NaN unless
        answered), ``correct, by_letter, text``.
    """
    cells = recorded[recorded["measure"] == "text"].merge(
        asked[["item", "benchmark", "gold", "n_options"]], on="item"
    )
    # Options as declared, whichever order the reply saw.
    cells["chosen"] = shared.named_options(cells, parse).astype("Int64")
    cells["status"] = np.select(
        [cells["finish"] == "failed", cells["chosen"].notna(), cells["finish"] == "length"],
        ["failed", "answered", "truncated"],
        "unparsed",
    )
    cells["correct"] = (cells["chosen"] == cells["gold"]).astype("boolean").where(cells["chosen"].notna())
    letters = recorded[recorded["measure"] == "letter"]
    best = letters.assign(
        by_letter=[_favoured(values, k) for values, k in letters[["logprob", "order"]].to_numpy()]
    )
    best = best[["condition", "item", "order", "by_letter"]]
    # The reply saw one order, so it is compared with that order's probabilities.
    cells = cells.merge(best, on=["condition", "item", "order"], how="left")
    return cells[["condition", "item", "benchmark", "status", "chosen", "correct", "by_letter", "text"]]


def decomposition(read: pd.DataFrame, people: pd.DataFrame) -> pd.DataFrame:
    """Split accuracy into how often a reply answers and how often an answer is right.

    Returns:
        ``persona, n, answered, right_given_answered, accuracy, lower, upper``: the bounds count every reply that
        names no option as wrong, and as right.
    """
    cells = read.merge(people[["condition", "kind"]], on="condition")
    cells["persona"] = cells["kind"].map({**NAMES, "expert": "expert"})
    rows = []
    for persona, group in cells.groupby("persona", sort=False):
        answered = group["status"] == "answered"
        right = float(group.loc[answered, "correct"].astype(float).mean()) if answered.any() else nan
        share = float(answered.mean())
        known = share * right if answered.any() else 0.0
        rows.append(
            {
                "persona": persona,
                "n": len(group),
                "answered": share,
                "right_given_answered": right,
                "accuracy": known,
                "lower": known,
                "upper": known + 1 - share,
            }
        )
    columns = ["persona", "n", "answered", "right_given_answered", "accuracy", "lower", "upper"]
    return pd.DataFrame(rows, columns=columns)


# --- What the design can show, and other models ---


def power(table: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Return what each contrast's design can detect, from its observed standard error.

    Returns:
        ``benchmark, contrast, n, se, minimum_detectable`` (80 % power, two-sided, before correction),
        ``power_margin`` (of the test of zero against an effect of the margin), ``power_equivalence`` (of the two
        one-sided tests when there is no effect).
    """
    asked = table[table["n"] > 1]
    z = stats.norm.ppf(1 - chosen.alpha / 2)
    inside = chosen.margin / asked["se"] - stats.norm.ppf(1 - chosen.alpha)
    return pd.DataFrame(
        {
            "benchmark": asked["benchmark"],
            "contrast": asked["contrast"],
            "n": asked["n"],
            "se": asked["se"],
            "minimum_detectable": (z + stats.norm.ppf(0.8)) * asked["se"],
            "power_margin": stats.norm.sf(z - chosen.margin / asked["se"]),
            "power_equivalence": np.clip(2 * stats.norm.cdf(inside) - 1, 0, 1),
        }
    ).reset_index(drop=True)


def sensitivity(scored: pd.DataFrame, table: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Return each contrast under other models: logit by GEE, and every wording alone.

    Returns:
        ``contrast, model, estimate, low, high, p``: differences in probability, but log odds ratios for the logit.
    """
    reach = stats.norm.ppf(0.5 + chosen.confidence / 2)
    rows = []
    for contrast in table.loc[table["n"] > 0, "contrast"].unique():
        cells = scored[scored["persona"].isin([REFERENCE, contrast])].copy()
        cells["treated"] = (cells["persona"] == contrast).astype(float)
        cells["correct_cell"] = cells["correct"]
        fit = smf.gee(
            "correct_cell ~ treated + C(benchmark)"
            if cells["benchmark"].nunique() > 1
            else "correct_cell ~ treated",
            groups="item",
            data=cells,
            family=sm.families.Binomial(),
            cov_struct=sm.cov_struct.Exchangeable(),
        ).fit()
        b, se = fit.params["treated"], fit.bse["treated"]
        rows.append(
            {
                "contrast": contrast,
                "model": "logit, GEE by question (log odds ratio)",
                "estimate": b,
                "low": b - reach * se,
                "high": b + reach * se,
                "p": fit.pvalues["treated"],
            }
        )
        wide = by_question(cells)
        wordings = cells[cells["treated"] == 1].pivot_table(
            index=["benchmark", "item", "cluster"], columns="paraphrase", values="score"
        )
        found = paired(wordings.sub(wide[REFERENCE].reindex(wordings.index), axis=0), chosen)
        rows += [
            {
                "contrast": contrast,
                "model": f"wording {paraphrase} alone",
                "estimate": effect["difference"],
                **{name: effect[name] for name in ("low", "high", "p")},
            }
            for paraphrase, effect in found.to_dict("index").items()
        ]
    return pd.DataFrame(rows, columns=["contrast", "model", "estimate", "low", "high", "p"])


def other_models(
    recordings: Mapping[str, pd.DataFrame],
    asked: pd.DataFrame,
    people: pd.DataFrame,
    protocol: Protocol,
    chosen: Parameters,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Analyse further models as this one, each on the questions and wordings that it was asked.

    Args:
        recordings: Responses by model.
        asked: Questions, as :func:`expert_personas.questions` returns them.
        people: Conditions, as :func:`expert_personas.people` returns them.
        protocol: Thresholds and families; each model is a family of its own.
        chosen: Parameters.

    Returns:
        :func:`extremes` (``questions`` for ``n``), :func:`gates` and the overall part of :func:`contrasts`, each
        with a column ``model`` in front.
    """
    states: list[pd.DataFrame] = []
    checks: list[pd.DataFrame] = []
    found: list[pd.DataFrame] = []
    for model, recorded in recordings.items():
        theirs = asked[asked["item"].isin(recorded["item"])]
        scored = scores_by_measure(recorded, theirs, people)
        state = extremes(accuracy(scored[chosen.measure], chosen), protocol.measures["cloze"].gate["ceiling"])
        usable = state.loc[state["status"] == "usable", "benchmark"].tolist()
        checked = gates(protocol, scored, recorded, theirs, replies(recorded, theirs), chosen)
        table = contrasts(scored[chosen.measure], protocol, chosen, usable)
        for parts, part in ((states, state), (checks, checked), (found, table[table["benchmark"] == "overall"])):
            parts.append(part.assign(model=model))
    first = [pd.concat(parts, ignore_index=True) for parts in (states, checks, found)]
    state, checked, table = (whole[["model", *whole.columns.drop("model")]] for whole in first)
    return state, checked, table


def lengths(scored: pd.DataFrame) -> pd.DataFrame:
    """Return effect against length: one row per persona and wording.

    Returns:
        ``persona, paraphrase, words`` (mean over fields), ``n`` (questions), ``difference``: mean over its
        questions, less the same questions without a persona.
    """
    none = scored[scored["persona"] == REFERENCE].set_index("item")["score"]
    rest = scored[scored["persona"] != REFERENCE]
    rest = rest.assign(difference=rest["score"] - rest["item"].map(none))
    groups = rest.groupby(["persona", "paraphrase"], sort=False)
    return groups.agg(words=("words", "mean"), n=("item", "size"), difference=("difference", "mean")).reset_index()


# --- Verdicts ---


def verdict_table(
    protocol: Protocol, table: pd.DataFrame, able: pd.DataFrame, checked: pd.DataFrame, chosen: Parameters
) -> pd.DataFrame:
    """Return the verdict on every claim, from the overall contrasts.

    Args:
        protocol: Claims.
        table: Of :func:`contrasts`.
        able: Of :func:`power`.
        checked: Of :func:`gates`.
        chosen: The measure whose gate counts.
    """
    failed = checked[(checked["measure"] == chosen.measure) & ~checked["passes"]]["check"].tolist()
    overall = table[table["benchmark"] == "overall"].set_index("contrast").to_dict("index")
    strength = able[able["benchmark"] == "overall"].set_index("contrast")["power_margin"].to_dict()
    asked = {*table.loc[table["n"] > 0, "contrast"]}
    rows = []
    for name, claim in protocol.claims.items():
        row: dict[Any, Any] | None = overall.get(claim.hypothesis or "")
        evidence = None
        if row is not None and row["n"] > 0:
            evidence = verdicts.Evidence(
                estimate=float(row["difference"]),
                rejected=bool(row["rejected"]),
                equivalent=bool(row["equivalent"]),
                power=float(strength.get(claim.hypothesis, nan)),
                informative=not failed,
                reason=f"gate of {chosen.measure}: {', '.join(failed)}" if failed else "",
            )
        elif claim.hypothesis in asked:
            reason = f"no benchmark is usable by {chosen.measure}"
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
                "estimate": row["difference"] if row is not None else nan,
                "low": row["low"] if row is not None else nan,
                "high": row["high"] if row is not None else nan,
                "p_adjusted": row["p_adjusted"] if row is not None else nan,
                "p_equivalence_adjusted": row["p_equivalence_adjusted"] if row is not None else nan,
                "verdict": said,
                "why": why,
            }
        )
    return pd.DataFrame(rows)


# --- Figures ---


def plot_accuracy(table: pd.DataFrame) -> Figure:
    """Draw accuracy per persona and benchmark against chance (dashed) and no persona (line)."""
    benchmarks = list(dict.fromkeys(table["benchmark"]))
    figure, axes = plt.subplots(
        1,
        len(benchmarks),
        figsize=(3.4 * len(benchmarks) + 1.6, 5.2),
        sharey=True,
        layout="constrained",
        squeeze=False,
    )
    order = [name for name in [REFERENCE, *PERSONAS] if name in set(table["persona"])]
    for axis, benchmark in zip(axes[0], benchmarks, strict=True):
        rows = table[table["benchmark"] == benchmark].set_index("persona").reindex(order)
        y = np.arange(len(order))
        axis.errorbar(
            rows["accuracy"],
            y,
            xerr=[rows["accuracy"] - rows["low"], rows["high"] - rows["accuracy"]],
            fmt="o",
            ms=4,
            lw=1.2,
            color=sns.color_palette("colorblind")[0],
        )
        lines = {"chance": (rows["chance"].iloc[0], "--"), REFERENCE: (rows.loc[REFERENCE, "accuracy"], "-")}
        # Each label stands on the outer side of its line, in the room above the first row.
        sides = zip(sorted(lines, key=lambda name: lines[name][0]), [("right", -3), ("left", 3)], strict=True)
        for name, (side, away) in sides:
            where, dash = lines[name]
            axis.axvline(where, color="0.4", ls=dash, lw=1)
            axis.annotate(
                name,
                (where, -0.9),
                xytext=(away, 0),
                textcoords="offset points",
                ha=side,
                va="center",
                fontsize="small",
                color="0.3",
            )
        axis.margins(x=0.27)
        axis.set(title=benchmark, xlabel="accuracy", yticks=y, yticklabels=order)
    axes[0][0].set_ylim(len(order) - 0.5, -1.3)
    return figure


def plot_positions(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Draw probability by place and accuracy by the gold's place."""
    for axis, column in zip(axes, ["probability", "accuracy"], strict=True):
        sns.lineplot(table, x="letter", y=column, hue="n_options", marker="o", palette="colorblind", ax=axis)
    axes[0].set(xlabel="place", ylabel="mean probability of the label", ylim=(0, 1))
    axes[1].set(xlabel="place of the right option", ylabel="share of cells answered right", ylim=(0, 1))


def plot_power(table: pd.DataFrame, chosen: Parameters, axes: np.ndarray) -> None:
    """Draw minimum detectable effect and power of the equivalence test against the number of questions."""
    sizes = np.unique(np.geomspace(50, 15_000, 60).astype(int))
    for benchmark, group in table[table["benchmark"] != "overall"].groupby("benchmark", sort=False):
        spread = float((group["se"] * np.sqrt(group["n"])).median())
        se = spread / np.sqrt(sizes)
        z = stats.norm.ppf(1 - chosen.alpha / 2)
        axes[0].plot(sizes, (z + stats.norm.ppf(0.8)) * se, label=str(benchmark))
        inside = chosen.margin / se - stats.norm.ppf(1 - chosen.alpha)
        axes[1].plot(sizes, np.clip(2 * stats.norm.cdf(inside) - 1, 0, 1), label=str(benchmark))
        n = int(group["n"].median())
        axes[0].plot(n, (z + stats.norm.ppf(0.8)) * spread / sqrt(n), "o", color=axes[0].lines[-1].get_color())
    axes[0].axhline(chosen.margin, color="0.5", ls=":")
    axes[0].set(xscale="log", xlabel="questions", ylabel="detectable difference", ylim=(0, None))
    axes[1].set(xscale="log", xlabel="questions", ylabel=f"power to show equivalence within {chosen.margin}")
    axes[1].legend(title="")


def plot_models(table: pd.DataFrame, margin: float) -> Figure:
    """Draw every contrast with its interval, models side by side; filled where significant.

    Args:
        table: ``model, contrast, difference, low, high, rejected``.
        margin: Half width of the equivalence band.
    """
    names, models = list(dict.fromkeys(table["contrast"])), list(dict.fromkeys(table["model"]))
    figure, axis = plt.subplots(figsize=(8, 1.2 + 0.2 * len(names) * max(len(models), 2)), layout="constrained")
    axis.axvspan(-margin, margin, color="0.9", zorder=0)
    axis.axvline(0, color="0.4", lw=1, ls=":", zorder=1)
    colours = sns.color_palette("colorblind")
    for index, model in enumerate(models):
        rows = table[table["model"] == model]
        y = rows["contrast"].map(names.index) + (index - (len(models) - 1) / 2) * 0.6 / len(models)
        colour, marker = colours[index % len(colours)], "os^Dv"[index % 5]
        axis.hlines(y, rows["low"], rows["high"], color=colour, lw=1.3, zorder=2)
        for significant, fill in ((True, colour), (False, "white")):
            chosen = rows["rejected"] == significant
            axis.plot(rows["difference"][chosen], y[chosen], marker, color=colour, mfc=fill, ms=5, zorder=3)
        axis.plot([], [], marker, color=colour, label=model)
    axis.set(
        xlabel="difference in accuracy against no persona",
        yticks=range(len(names)),
        yticklabels=names,
        ylim=(len(names) - 0.5, -0.5),
    )
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(models))
    return figure


def plot_lengths(table: pd.DataFrame, axis: Axes) -> None:
    """Draw a condition's effect against the length of its persona."""
    sns.scatterplot(table, x="words", y="difference", hue="persona", ax=axis, palette="husl", s=30)
    axis.axhline(0, color="0.5", lw=1, ls=":")
    axis.set(xlabel="words of the persona", ylabel="difference in accuracy against no persona")
    axis.legend(title="", bbox_to_anchor=(1, 1), loc="upper left", fontsize="x-small")


def finding(table: pd.DataFrame, judged: pd.DataFrame, state: pd.DataFrame, model: str) -> str:
    """Say what was found in three sentences, from the computed tables."""
    overall = table[(table["benchmark"] == "overall") & (table["n"] > 0)]
    counts = overall["verdict"].value_counts()
    usable = state[state["status"] == "usable"]["benchmark"].tolist()
    largest = max(overall.to_dict("records"), key=lambda row: abs(row["difference"]), default=None)
    told = ", ".join(f"{n} {name}" for name, n in counts.items())
    tested = f"of {len(overall)} contrasts against no persona, {told}" if told else "no contrast could be tested"
    text = f"**{model}**: {tested}. "
    if largest is not None:
        text += (
            f"The largest difference in accuracy is {largest['difference']:+.3f} "
            f"[{largest['low']:.3f}, {largest['high']:.3f}] ({largest['contrast']}). "
        )
    text += f"Usable benchmarks, neither at floor nor at ceiling: {', '.join(usable) or 'none'}. "
    said = judged["verdict"].value_counts()
    return text + "Verdicts on the claims: " + ", ".join(f"{n} {name}" for name, n in said.items()) + "."
