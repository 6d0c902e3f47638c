"""Scores, contrasts, gates and verdicts of the study of persona bias, by its first protocol."""

from __future__ import annotations

from collections.abc import Mapping
from math import asin, nan, sqrt
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from persona_bias import extractors
from persona_bias.design import Parameters
from persona_studies.analyse import families, verdicts
from persona_studies.analyse import gates as checks
from persona_studies.analyse import multiple_choice as shared
from persona_studies.analyse import stats as lib_stats
from persona_studies.analyse.contrasts import outcome
from persona_studies.analyse.families import Settings
from persona_studies.design.plan import DERIVED
from persona_studies.design.protocol import Family, Hypothesis, Protocol

OVERALL = "mean of all personas"
FAMILIES = ("overall", "persona", "pairs", "controls")


def settings(chosen: Parameters) -> Settings:
    """Return how contrasts are tested in a run."""
    return Settings(chosen.alpha, chosen.confidence, chosen.correction, chosen.replicates, chosen.seed)


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


def typed(protocol: Protocol, name: str, chosen: Parameters) -> Family:
    """Return a family of the first protocol with the contrasts that its names stand for.

    A name is a persona, compared with the baseline of the run, or "first - second".
    """

    def parts(hypothesis: str) -> dict[str, str]:
        first, _, second = hypothesis.partition(" - ")
        return {"first": first, "second": second or chosen.baseline}

    return families.typed(
        protocol,
        name,
        parts,
        on="usable datasets",
        measure=chosen.measure,
        outcome="accuracy",
        direction="either",
        smallest_effect=chosen.margin,
    )


def contrasts(
    scored: pd.DataFrame,
    asked: pd.DataFrame,
    protocol: Protocol,
    chosen: Parameters,
    usable: list[str],
    gate: str = "",
) -> pd.DataFrame:
    """Return every declared contrast over the usable datasets: all personas, each, pairs, and the controls.

    Args:
        scored: Of :func:`scores`.
        asked: Questions, for chance.
        protocol: Declares the families.
        chosen: Baseline, alpha, correction, confidence, margin, replicates, seed. A contrast that a claim rests on
            is bounded by the claim's own smallest effect.
        usable: Datasets that are neither at floor nor at ceiling.
        gate: Checks of the measure that failed.

    Returns:
        :data:`persona_studies.analyse.families.COLUMNS`, the columns of :func:`effects`, and ``verdict``: what the
        contrast came to.
    """
    wide, how = by_question(scored), settings(chosen)
    wide = wide[wide.index.get_level_values("dataset").isin(usable)]
    chance = (1 / asked.set_index("item")["n_options"]).rename("chance")

    def of(contrast: Hypothesis, part: str | None) -> pd.Series:
        if not {contrast.first, contrast.second} <= set(wide):
            return pd.Series(dtype=float, index=wide.index[:0])
        found: pd.Series = wide[contrast.first] - wide[contrast.second]
        return found

    parts = []
    for name in FAMILIES:
        family = typed(protocol, name, chosen)
        table = families.corrected(name, family, families.estimated(family.contrasts, of, how), how)
        sizes = [effects(wide, c.first, c.second, chance) for c in family.contrasts.values()]
        parts.append(pd.concat([table, pd.DataFrame(sizes)], axis=1))
    whole = pd.concat(parts, ignore_index=True)
    whole["verdict"] = [
        outcome(row["estimate"], rejected=row["rejected"], equivalent=row["bounded"], gate=gate)
        if row["n"]
        else "not asked"
        for row in whole.to_dict("records")
    ]
    return whole


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
    how: dict[str, Any] = {"alpha": chosen.alpha, "correction": chosen.correction}
    done[["p_adjusted", "rejected"]] = shared.corrected(done, "p", protocol.families["omnibus"], **how)
    return done


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
    for name, table in scored.items():
        declared = protocol.measures[DERIVED.get(name, name)]
        if name == "text":
            values = {"parsed": parsed}
        else:
            state = headroom(accuracy(table, chosen), protocol.design["ceiling"], chosen)
            values = {"usable_datasets": float((state["status"] == "usable").sum())}
            if name == "letter":
                values |= checks.letters(recorded[recorded["measure"] == "letter"], recorded, asked)
            else:
                people = table[table["kind"] == "persona"]
                values["repeatability"] = checks.repeatability(people, "persona", "instruction")
        parts.append(checks.declared(declared, values).assign(measure=name))
    whole = pd.concat(parts, ignore_index=True)
    return whole[["measure", "check", "value", "rule", "threshold", "passes"]]


def steerability(scored: dict[str, pd.DataFrame], usable: list[str], chosen: Parameters) -> pd.DataFrame:
    """Say for each measure whether the toddler is less accurate than a filler, over the usable datasets.

    A check beside the verdicts: a model that no instruction moves shows no effect of any persona.

    Returns:
        ``measure, instruction, against, n, estimate, low, high, p, moved``.
    """
    wide = {name: by_question(table[table["dataset"].isin(usable)]) for name, table in scored.items()}
    return families.steerability(wide, "toddler", "filler", -1, settings(chosen))


# --- Verdicts ---


def verdict_table(
    protocol: Protocol,
    table: pd.DataFrame,
    scored: pd.DataFrame,
    checked: pd.DataFrame,
    moved: pd.DataFrame,
    chosen: Parameters,
) -> pd.DataFrame:
    """Return the verdict on every claim of the first protocol.

    Args:
        protocol: Claims.
        table: Of :func:`contrasts`.
        scored: Of :func:`scores`: who was asked by the measure.
        checked: Of :func:`gates`.
        moved: Of :func:`steerability`.
        chosen: The measure whose gate counts, and the model.
    """
    asked = {*by_question(scored)}
    there = [{*name.split(" - ")} <= asked for name in table["hypothesis"]]
    steered = moved.set_index("measure")["moved"].to_dict().get(chosen.measure, True)
    found = families.evidence(
        table[there],
        failed=dict.fromkeys(FAMILIES, checks.failures(checked, chosen.measure)),
        stuck=dict.fromkeys(FAMILIES, not steered),
    )
    absent = dict.fromkeys(protocol.claims, f"this contrast was not asked by the measure {chosen.measure}")
    return verdicts.table(protocol, found, layer="corrected", model=chosen.model, absent=absent)


def finding(claims: pd.DataFrame, tallied: pd.DataFrame, model: str, confirmed: bool) -> str:
    """Say what was found in a few sentences, from the computed tables.

    Args:
        claims: Of :func:`persona_studies.analyse.conclusions.claims`.
        tallied: Of :func:`counts`.
        model: Whose responses the first protocol's part is about.
        confirmed: Whether a recording of the second protocol is complete.
    """
    rows = claims[claims["estimate"].notna()].drop_duplicates("claim").set_index("claim").to_dict("index")

    def size(name: str, more: float = 0.0) -> str:
        row = rows[name]
        return f"{row['estimate'] + more:.3f} [{row['low'] + more:.3f}, {row['high'] + more:.3f}]"

    text = ""
    if {"published_share", "published_abstention"} <= set(rows):
        text += (
            f"**In version 1 of the paper a share of {size('published_share', 0.5)} of the personas differs from a "
            "human on more datasets than chance gives, after correction; in the one public run of GPT-3.5, "
            f"{size('published_abstention', 0.5)} of a physically-disabled person's errors are replies without an "
            "answer.** "
        )
    if "any_persona" in rows:
        text += f"In {rows['any_persona']['model']}, personas change accuracy by {size('any_persona')}. "
    uncorrected, adjusted = ((tallied[f"worse_{name}"] > 0).sum() for name in ("uncorrected", "adjusted"))
    text += (
        f"Counted the way of the paper, {uncorrected} of {len(tallied)} personas are significantly worse on some "
        f"dataset in {model}; after correction over persona x dataset, {adjusted}. "
    )
    if not confirmed:
        text += (
            "No capable model has been recorded yet: claims about answers made here rest on a first recording of a "
            "very small one. "
        )
    counted = claims.drop_duplicates("claim")["verdict"].value_counts()
    return text + f"Of {counted.sum()} claims: {', '.join(f'{n} {name}' for name, n in counted.items())}."
