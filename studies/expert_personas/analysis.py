"""Scores, contrasts and figures of the study of expert personas."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import Any

import pandas as pd
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from expert_personas.conditions import NAMES, REFERENCE
from expert_personas.design import Parameters
from expert_personas.replies import parse
from persona_studies.analyse import families, verdicts
from persona_studies.analyse import gates as checks
from persona_studies.analyse import multiple_choice as shared
from persona_studies.analyse import stats as lib_stats
from persona_studies.analyse.contrasts import outcome
from persona_studies.analyse.families import Settings
from persona_studies.design.plan import DERIVED
from persona_studies.design.protocol import Hypothesis, Protocol

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
OVERALL = "overall"


def settings(chosen: Parameters) -> Settings:
    """Return how contrasts are tested in a run."""
    return Settings(chosen.alpha, chosen.confidence, chosen.correction, chosen.replicates, chosen.seed)


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


def differences(wide: pd.DataFrame) -> families.Differences:
    """Return how to take the paired differences of a contrast from questions x personas (:func:`by_question`)."""

    def of(contrast: Hypothesis, part: str | None) -> pd.Series:
        if not {contrast.first, contrast.second} <= set(wide):
            return pd.Series(dtype=float, index=wide.index[:0])
        found: pd.Series = wide[contrast.first] - wide[contrast.second]
        return found

    return of


def contrasts(
    scored: pd.DataFrame, protocol: Protocol, chosen: Parameters, usable: list[str], gate: str = ""
) -> pd.DataFrame:
    """Return every declared contrast against no persona, per benchmark and over the usable ones.

    Args:
        scored: As :func:`scores` returns it.
        protocol: Declares the families; a contrast that this run does not ask counts as p = 1.
        chosen: Alpha, correction, confidence, margin, replicates, seed. A contrast that a claim rests on is bounded
            by the claim's own smallest effect.
        usable: Benchmarks that are neither at floor nor at ceiling; the overall contrasts are about these.
        gate: Checks of the measure that failed.

    Returns:
        :data:`persona_studies.analyse.families.COLUMNS`, with ``benchmark, accuracy, reference`` and ``verdict``
        (:func:`persona_studies.analyse.contrasts.outcome`).
    """
    wide, how = by_question(scored), settings(chosen)
    parts = []
    for benchmark in [*dict.fromkeys(scored["benchmark"]), OVERALL]:
        inside = usable if benchmark == OVERALL else [benchmark]
        mine = wide[wide.index.get_level_values("benchmark").isin(inside)]
        names = [OVERALL] if benchmark == OVERALL else [f"{family}_{benchmark}" for family in FAMILIES]
        tests = []
        for name in names:
            family = families.typed(
                protocol,
                name,
                lambda hypothesis: {"first": hypothesis},
                second=REFERENCE,
                on=benchmark,
                measure=chosen.measure,
                outcome="accuracy",
                direction="either",
                smallest_effect=chosen.margin,
            )
            rows = families.estimated(family.contrasts, differences(mine), how)
            tests.append(families.corrected(name, family, rows, how))
        table = _bounded(pd.concat(tests, ignore_index=True), protocol, benchmark, chosen)
        there = table["n"] > 0
        means = {name: _mean(mine, name) for name in table.loc[there, "hypothesis"]}
        parts.append(
            table.assign(
                benchmark=benchmark,
                accuracy=table["hypothesis"].map(means),
                reference=(_mean(mine, REFERENCE) if there.any() else nan),
            )
        )
    whole = pd.concat(parts, ignore_index=True)
    whole["verdict"] = [_came_to(row, gate) for row in whole.to_dict("records")]
    return whole[["benchmark", *families.COLUMNS[:5], "accuracy", "reference", *families.COLUMNS[5:], "verdict"]]


def _came_to(row: Mapping[Any, Any], gate: str) -> str:
    if not row["n"]:
        return "not asked"
    how = {"rejected": row["rejected"], "equivalent": row["bounded"], "direction": row["direction"]}
    return outcome(row["estimate"], **how, gate=gate)


def _bounded(table: pd.DataFrame, protocol: Protocol, benchmark: str, chosen: Parameters) -> pd.DataFrame:
    """Correct the bounds of a benchmark's contrasts in the family of their own that the protocol declares."""
    family = protocol.families["overall_equivalence" if benchmark == OVERALL else f"equivalence_{benchmark}"]
    done = lib_stats.correct(
        table.set_index("hypothesis")["p_bound"].astype(float),
        size=family.size,
        alpha=chosen.alpha,
        method=chosen.correction,
        undefined=family.undefined,
    )
    return table.assign(p_bound_adjusted=done["p_adjusted"].to_numpy(), bounded=done["rejected"].to_numpy())


def _mean(wide: pd.DataFrame, persona: str) -> float:
    """Return accuracy, benchmarks weighing the same."""
    return float(wide[persona].groupby(level="benchmark").mean().mean())


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
    for name, table in scored.items():
        declared = protocol.measures[DERIVED.get(name, name)]
        if name == "text":
            parsed = read["chosen"].notna()
            agree = (read["chosen"] == read["by_letter"])[parsed & read["by_letter"].notna()]
            values = {"parsed": _share(parsed)}
            if "letter" in scored:
                values["agreement"] = _share(agree)
            declared = checks.only(declared, values)
        else:
            state = extremes(accuracy(table, chosen), protocol.design["ceiling"])
            values = {"usable_benchmarks": float((state["status"] == "usable").sum())}
            if name == "letter":
                letters = recorded[recorded["measure"] == "letter"]
                values |= checks.letters(letters, recorded, asked)
            else:
                values["repeatability"] = checks.repeatability(table, "persona", "paraphrase")
        parts.append(checks.declared(declared, values).assign(measure=name))
    whole = pd.concat(parts, ignore_index=True)
    return whole[["measure", "check", "value", "rule", "threshold", "passes"]]


def _share(flags: pd.Series) -> float:
    return float(flags.mean()) if len(flags) else nan


def steerability(scored: dict[str, pd.DataFrame], usable: list[str], chosen: Parameters) -> pd.DataFrame:
    """Say for each measure whether the toddler answers worse than a filler, over the usable benchmarks.

    A check beside the verdicts: a model that no instruction moves shows no effect of any persona.

    Returns:
        ``measure, instruction, against, n, estimate, low, high, p, moved``.
    """
    wide = {name: by_question(table[table["benchmark"].isin(usable)]) for name, table in scored.items()}
    return families.steerability(wide, "toddler", "filler", -1, settings(chosen))


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


# --- Verdicts ---


def verdict_table(
    protocol: Protocol,
    table: pd.DataFrame,
    scored: pd.DataFrame,
    checked: pd.DataFrame,
    moved: pd.DataFrame,
    chosen: Parameters,
) -> pd.DataFrame:
    """Return the verdict on every claim of the first protocol, from the overall contrasts.

    Args:
        protocol: Claims.
        table: Of :func:`contrasts`.
        scored: Of :func:`scores`: who was asked by the measure.
        checked: Of :func:`gates`.
        moved: Of :func:`steerability`.
        chosen: The measure whose gate counts, the model, and the layer that is shown.
    """
    overall = table[(table["benchmark"] == OVERALL) & table["hypothesis"].isin(scored["persona"])]
    steered = moved.set_index("measure")["moved"].to_dict().get(chosen.measure, True)
    found = families.evidence(
        overall, failed={OVERALL: checks.failures(checked, chosen.measure)}, stuck={OVERALL: not steered}
    )
    why = f"this contrast was not asked by the measure {chosen.measure}"
    absent = dict.fromkeys(protocol.claims, why)
    return verdicts.table(protocol, found, layer="corrected", model=chosen.model, absent=absent)


def finding(claims: pd.DataFrame, confirmed: bool) -> str:
    """Say what was found in a few sentences, from the table of claims.

    Args:
        claims: Of :func:`persona_studies.analyse.conclusions.claims`.
        confirmed: Whether a recording of the second protocol is complete.
    """
    rows = claims[claims["estimate"].notna()].drop_duplicates("claim").set_index("claim").to_dict("index")

    def size(name: str, sign: int = 1) -> str:
        limits = sorted(sign * rows[name][limit] for limit in ("low", "high"))
        return f"{sign * rows[name]['estimate']:.3f} [{limits[0]:.3f}, {limits[1]:.3f}]"

    text = ""
    if {"open_question_expert", "open_low_knowledge"} <= set(rows):
        text += (
            "**Nine open models answer MMLU-Pro hardly better with an expert persona than without one, by "
            f"{size('open_question_expert')} in accuracy; a persona that knows little costs them "
            f"{size('open_low_knowledge', -1)}.** "
        )
    if "in_domain" in rows:
        model = rows["in_domain"]["model"]
        text += f"In {model}, an expert persona of the question's field changes accuracy by {size('in_domain')}. "
    if not confirmed:
        text += (
            "No capable model has been recorded yet: claims about answers made here rest on a first recording of a "
            "very small one. "
        )
    counts = claims.drop_duplicates("claim")["verdict"].value_counts()
    return text + f"Of {counts.sum()} claims: {', '.join(f'{n} {name}' for name, n in counts.items())}."


def recomputed(claims: pd.DataFrame) -> pd.DataFrame:
    """Return claims with what the published accuracies give, where a claim is about their mean over models."""
    means = claims["hypothesis"].str.contains("| mmlu_pro,", regex=False)
    shown = claims["estimate"].map("{:+.3f}".format).where(means, "")
    return claims.assign(recomputed=shown)
