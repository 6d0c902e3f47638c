"""Contrasts, gates and verdicts of the study of clinical personas, by its first protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import nan
from typing import Any

import pandas as pd

from clinical_personas.design import Parameters
from clinical_personas.outcomes import ORDINAL, REFERENCE, accuracy, main
from clinical_personas.robustness import published_way
from persona_studies.analyse import families, verdicts
from persona_studies.analyse import gates as checks
from persona_studies.analyse import stats as lib_stats
from persona_studies.analyse.contrasts import BEHIND, INCONCLUSIVE, outcome
from persona_studies.analyse.families import Settings
from persona_studies.design.protocol import Family, Hypothesis, Protocol

INDEX = ["dataset", "item", "cluster", "care"]
CONTROLS = ("placebo", "layperson", "toddler", "filler", "shuffled")
FAMILIES = ("roles", "care", "style", "calibration", "safety", "controls", "variants")
# Outcome of each family, and the smallest difference of interest where no claim names one; None: the margin.
OUTCOMES: dict[str, tuple[str, float | None]] = {
    "roles": ("accuracy", None),
    "care": ("accuracy", 0.1),
    "style": ("place", 0.1),
    "calibration": ("brier", 0.05),
    "safety": ("risky", 0.1),
    "controls": ("accuracy", None),
    "variants": ("assigned place", 0.1),
}
# Outcome -> column of the scores; a safety prompt's error is 1 where the reply is risky.
VALUES = {"accuracy": "score", "place": "error", "brier": "brier", "risky": "error"}


def settings(chosen: Parameters) -> Settings:
    """Return how contrasts are tested in a run."""
    return Settings(chosen.alpha, chosen.confidence, chosen.correction, chosen.replicates, chosen.seed)


# --- Contrasts ---


def by_case(scored: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return cases x who, wordings averaged; indexed by ``dataset, item, cluster, care``."""
    return scored.pivot_table(index=INDEX, columns="who", values=value, sort=False)


def typed(protocol: Protocol, name: str, chosen: Parameters) -> Family:
    """Return a family of the first protocol with the contrasts that its names stand for.

    A name reads "first - second | data set", perhaps with a care setting or "interaction" after a comma.
    """
    measured, smallest = OUTCOMES[name]

    def parts(hypothesis: str) -> dict[str, str]:
        contrast, _, where = hypothesis.partition(" | ")
        first, second = contrast.split(" - ")
        dataset, _, setting = where.partition(", ")
        found = {"first": first, "second": second, "on": dataset or {"safety": "safety"}.get(name, "all")}
        if setting == "interaction":
            return {**found, "within": "critical", "interaction": "primary"}
        return {**found, "within": setting} if setting else found

    return families.typed(
        protocol,
        name,
        parts,
        measure=chosen.measure,
        outcome=measured,
        direction="either",
        smallest_effect=smallest or chosen.margin,
    )


def differences(scored: pd.DataFrame, protocol: Protocol) -> families.Differences:
    """Return how to take the paired differences of a contrast from scores.

    A style is the mean of all roles in that style; "all" is vignettes, emergency cases and medical questions.
    """
    cells = main(scored)
    wide = {value: by_case(cells, value) for value in dict.fromkeys(VALUES.values())}
    roles = cells.loc[cells["kind"] == "role", ["role", "style", "who"]].drop_duplicates()
    for style, group in roles.groupby("style", sort=False):
        if set(group["who"]) <= set(wide["error"]):
            wide["error"][str(style)] = wide["error"][list(group["who"])].mean(axis=1, skipna=False)

    def of(contrast: Hypothesis, part: str | None) -> pd.Series:
        if contrast.outcome == "assigned place":
            mine = marked(scored, contrast, protocol)
        else:
            mine = wide[VALUES[contrast.outcome]]
            inside = [*ORDINAL, "medical"] if contrast.on == "all" else [contrast.on]
            mine = mine[mine.index.get_level_values("dataset").isin(inside)]
        if part is not None:
            mine = mine[mine.index.get_level_values("care") == part]
        if not {contrast.first, contrast.second} <= set(mine):
            return pd.Series(dtype=float, index=mine.index[:0])
        found: pd.Series = mine[contrast.first] - mine[contrast.second]
        return found.dropna()

    return of


def marked(scored: pd.DataFrame, contrast: Hypothesis, protocol: Protocol) -> pd.DataFrame:
    """Return the place that the same case gets with each of two marks of gender, ethnicity or sex label."""
    # Variants are asked in the first wording; so the unmarked case counts in that one alone.
    cells = scored[(scored["dataset"] == contrast.on) & (scored["wording"] <= 1)]
    cells = cells[cells["who"].isin(protocol.design["variant_conditions"])]
    marks = cells["variant"].replace({"": "no label"}) if contrast.on == "esi" else cells["variant"]
    parts = {}
    for mark in (contrast.first, contrast.second):
        mine = cells[marks.map(lambda words, mark=mark: words == mark or mark in words.split()).astype(bool)]
        # First over other marks, then over roles.
        parts[mark] = mine.groupby(["cluster", "who"])["chosen"].mean().groupby(level="cluster").mean()
    wide = pd.DataFrame(parts).dropna()
    wide.index = pd.MultiIndex.from_arrays(
        [[contrast.on] * len(wide), wide.index, wide.index], names=["dataset", "item", "cluster"]
    )
    return wide


def contrasts(
    scored: pd.DataFrame,
    protocol: Protocol,
    chosen: Parameters,
    names: Iterable[str] = FAMILIES,
    failed: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return every declared contrast, corrected within its family.

    Args:
        scored: Of :func:`scores`.
        protocol: Declares the families.
        chosen: Alpha, correction, confidence, margin, replicates, seed.
        names: Which families.
        failed: Data set -> the checks that its measure failed (:func:`failures`).

    Returns:
        :data:`persona_studies.analyse.families.COLUMNS`, ``gate`` and ``verdict``: what the contrast came to,
        marked where a check failed.
    """
    take, how = differences(scored, protocol), settings(chosen)
    parts = []
    for name in names:
        family = typed(protocol, name, chosen)
        table = families.corrected(name, family, families.estimated(family.contrasts, take, how), how)
        on = [family.contrasts[hypothesis].on for hypothesis in table["hypothesis"]]
        gate = [(failed or {}).get(dataset, (failed or {}).get("all", "")) for dataset in on]
        parts.append(table.assign(gate=gate))
    whole = pd.concat(parts, ignore_index=True)
    whole["verdict"] = [_came_to(row) for row in whole.to_dict("records")]
    return whole


def _came_to(row: dict[Any, Any]) -> str:
    if not row["n"]:
        return "not asked"
    if OUTCOMES[row["family"]][0] == "accuracy" or (row["bounded"] and not row["rejected"]):
        return outcome(row["estimate"], rejected=row["rejected"], equivalent=row["bounded"], gate=row["gate"])
    said = ("higher" if row["estimate"] > 0 else "lower") if row["rejected"] else INCONCLUSIVE
    return said + (BEHIND if row["gate"] else "")


# --- Does the measure measure anything? ---


def gates(
    protocol: Protocol,
    scored: dict[str, pd.DataFrame],
    recorded: pd.DataFrame,
    asked: pd.DataFrame,
    parsed: float,
    chosen: Parameters,
) -> pd.DataFrame:
    """Decide by rule whether each measure counts on each data set.

    Args:
        protocol: Thresholds.
        scored: Scores by measure, of those that are recorded.
        recorded: Responses, for option mass and position dominance.
        asked: Questions.
        parsed: Share of replies that name an urgency.
        chosen: Parameters.

    Returns:
        ``measure, dataset`` ("all": counts for every one), ``check, value, rule, threshold, passes``.
    """
    parts = []
    for name, table in scored.items():
        if name == "text":
            found = checks.declared(protocol.measures["text"], {"parsed": parsed})
            parts.append(found.assign(measure=name, dataset="triage"))
            continue
        declared = protocol.measures["letter" if name == "letter" else "cloze"]
        cells = main(table)
        if name == "letter":
            values = checks.letters(recorded[recorded["measure"] == "letter"], recorded, asked)
            parts.append(checks.declared(checks.only(declared, values), values).assign(measure=name, dataset="all"))
        for dataset in dict.fromkeys(cells["dataset"]):
            values = _values(cells[cells["dataset"] == dataset], chosen)
            found = checks.declared(checks.only(declared, values), values)
            parts.append(found.assign(measure=name, dataset=dataset))
    whole = pd.concat(parts, ignore_index=True)
    return whole[["measure", "dataset", "check", "value", "rule", "threshold", "passes"]]


def _values(cells: pd.DataFrame, chosen: Parameters) -> dict[str, float]:
    """Return what the gate of one data set asks about, as a helpful assistant in neutral style."""
    mine = cells[cells["who"] == REFERENCE]
    [reached] = accuracy(mine, chosen).to_dict("records")
    values = {
        "above_chance": reached["low"] - reached["chance"],
        "upper_limit": reached["high"],
        "spread": 1 - float(mine["chosen"].value_counts(normalize=True).max()),
    }
    if mine["wording"].nunique() > 1:
        both = cells[cells["who"].isin([REFERENCE, "physician", "nurse"])]
        values["repeatability"] = checks.repeatability(both.assign(score=both["chosen"]), "who", "wording")
    if reached["dataset"] in ORDINAL:
        values["kappa"] = lib_stats.cohen_kappa(
            mine[["gold", "chosen"]].reset_index(drop=True),
            categories=range(int(mine["n_options"].iloc[0])),
            weights="quadratic",
            cluster=mine["cluster"].reset_index(drop=True),
            confidence=chosen.confidence,
            replicates=chosen.replicates,
            seed=chosen.seed,
        ).low
    return values


def failures(checked: pd.DataFrame, measure: str) -> dict[str, str]:
    """Return the checks that a measure failed, by data set and for "all" (where any data set failed one)."""
    mine = checked[checked["measure"] == measure]
    common = mine[mine["dataset"] == "all"]
    sets = [name for name in dict.fromkeys(checked["dataset"]) if name != "all"]
    found = {name: checks.failures(pd.concat([common, mine[mine["dataset"] == name]])) for name in sets}
    lacking = [name for name in (*ORDINAL, "medical") if found.get(name)]
    return {**found, "all": f"gate of {', '.join(lacking)}" if lacking else ""}


def steerability(scored: dict[str, pd.DataFrame], usable: Iterable[str], chosen: Parameters) -> pd.DataFrame:
    """Say for each measure whether the toddler is less accurate than a filler: a check beside the verdicts.

    Args:
        scored: Scores by measure.
        usable: Data sets that passed the gate of the primary measure.
        chosen: Parameters.

    Returns:
        ``measure, instruction, against, n, estimate, low, high, p, moved``.
    """
    rows = []
    for name, table in scored.items():
        wide = by_case(main(table), "score")
        wide = wide[wide.index.get_level_values("dataset").isin([*usable])]
        if {"toddler", "filler"} <= set(wide):
            found = families.steerable(wide["toddler"] - wide["filler"], -1, settings(chosen))
            rows.append({"measure": name, "instruction": "toddler", "against": "filler", **found})
    columns = ["measure", "instruction", "against", "n", "estimate", "low", "high", "p", "moved"]
    return pd.DataFrame(rows, columns=columns)


# --- Verdicts ---


def verdict_table(
    protocol: Protocol,
    table: pd.DataFrame,
    scored: pd.DataFrame,
    moved: pd.DataFrame,
    chosen: Parameters,
) -> pd.DataFrame:
    """Return the verdict on every claim of the first protocol, in the layers that are shown.

    ``corrected``: the declared contrast, wordings averaged, corrected within its family. ``published``: the first
    wording alone, without correction; accuracy by McNemar's mid-p. A failed gate of its data set makes a claim
    uninformative in either.

    Args:
        protocol: Claims.
        table: Of :func:`contrasts`.
        scored: Of :func:`scores`, for the published layer.
        moved: Of :func:`steerability`.
        chosen: Parameters.
    """
    claimed = dict.fromkeys(claim.family for claim in protocol.claims.values() if claim.family)
    steered = moved.set_index("measure")["moved"].to_dict().get(chosen.measure, True)
    # Only accuracy is what the toddler should lower.
    stuck = {"care": not steered}
    found = families.evidence(table[table["n"] > 0], failed=dict.fromkeys(claimed, ""), stuck=stuck)
    if chosen.layer != "corrected":
        paper = published_tests(scored, protocol, chosen, [str(name) for name in claimed])
        gate = table.set_index(["family", "hypothesis"])["gate"]
        paper = paper.assign(gate=[gate[key] for key in zip(paper["family"], paper["hypothesis"], strict=True)])
        plain = families.evidence(paper[paper["n"] > 0], failed=dict.fromkeys(claimed, ""), stuck={})
        for (family, hypothesis, _), each in plain.items():
            found[family, hypothesis, "published"] = replace(
                each, equivalent=False, p_equivalence=nan, power=None, needed=None, corrected=False
            )
    absent = dict.fromkeys(protocol.claims, f"this contrast was not asked by the measure {chosen.measure}")
    return verdicts.table(protocol, found, layer=chosen.layer, model=chosen.model, absent=absent)


def published_tests(
    scored: pd.DataFrame, protocol: Protocol, chosen: Parameters, names: Iterable[str]
) -> pd.DataFrame:
    """Return the contrasts of some families in the paper's style: the first wording, without correction.

    Accuracy within a care setting is compared by McNemar's test (mid-p) with Tango's interval.
    """
    alone = scored[scored["wording"] <= 1]
    table = contrasts(alone, protocol, chosen.model_copy(update={"correction": "none"}), names)
    counted = published_way(alone, chosen).set_index(["role", "dataset", "care"])[["low", "high", "p"]]
    family = typed(protocol, "care", chosen).contrasts
    for place, row in table[(table["family"] == "care") & (table["n"] > 0)].iterrows():
        contrast = family[str(row["hypothesis"])]
        if contrast.interaction is None:
            key: Any = (contrast.first, contrast.on, contrast.within)
            low, high, p = counted.loc[key]
            columns = ["low", "high", "p", "p_adjusted", "rejected"]
            table.loc[place, columns] = [low, high, p, p, bool(p <= chosen.alpha)]
    return table


def finding(claims: pd.DataFrame, model: str, confirmed: bool) -> str:
    """Say what was found in a few sentences, from the table of claims.

    Args:
        claims: Of :func:`persona_studies.analyse.conclusions.claims`.
        model: Whose responses the first protocol's part is about.
        confirmed: Whether a recording of the second protocol is complete.
    """
    first = claims[claims["estimate"].notna()].drop_duplicates("claim").set_index("claim")
    rows = first.to_dict("index")

    def size(name: str) -> str:
        row = rows[name]
        return f"{row['estimate']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"

    text = ""
    if "physicians_gpt3" in rows:
        text += (
            f"**Physicians triage the 48 vignettes more accurately than GPT-3, by {size('physicians_gpt3')}; "
            f"15 published models move a case by {size('labels_female')} ESI levels where it is marked female and "
            "not male.** "
        )
    if "interaction" in rows:
        row = rows["interaction"]
        text += (
            f"In {row['model']}, what a physician's persona does to accuracy differs between critical and primary "
            f"care by {size('interaction')}"
            + (", but the measure fails its gate. " if row["verdict"] == verdicts.UNINFORMATIVE else ". ")
        )
    if not confirmed:
        text += (
            "No capable model has been recorded yet: claims about answers made here rest on a first recording of "
            f"{model}, a very small one. "
        )
    counts = claims.drop_duplicates("claim")["verdict"].value_counts()
    return text + f"Of {counts.sum()} claims: {', '.join(f'{n} {name}' for name, n in counts.items())}."
