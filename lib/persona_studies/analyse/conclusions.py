"""From tests of declared families to verdicts, and from several analyses to the one table of a study's claims."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from persona_studies.analyse import families, reasons, verdicts
from persona_studies.analyse.claims import PUBLISHED_DATA
from persona_studies.analyse.families import Settings
from persona_studies.analyse.stats.meta_analysis import random_effects
from persona_studies.design.protocol import Claim, Protocol


@dataclass(frozen=True)
class Analysis:
    """What one model's recording comes to.

    Attributes:
        model: The model.
        scored: One row per condition and question or case.
        gate: Checks of the measures: ``check, value, rule, threshold, passes``, and the part that each is about.
        tests: Every family of the protocol as :func:`persona_studies.analyse.families.corrected` returns them,
            those about published data included; ``gate`` says which checks behind a row failed.
        evidence: What every hypothesis about the model came to.
        failed: Family -> the checks behind it that failed.
        stuck: Family -> whether no instruction moves its outcome.
        said: Replies in words, where there are any.
        usable: Sets of items that passed the gate, where sets have one of their own.
        absent: Claim -> the measure that is not recorded yet, in words.
        by_set: Contrasts within each set of items, where a study tests these.
    """

    model: str
    scored: pd.DataFrame
    gate: pd.DataFrame
    tests: pd.DataFrame
    evidence: verdicts.Found
    failed: Mapping[str, str]
    stuck: Mapping[str, bool]
    said: pd.DataFrame = field(default_factory=pd.DataFrame)
    usable: list[str] = field(default_factory=list)
    absent: Mapping[str, str] = field(default_factory=dict)
    by_set: pd.DataFrame = field(default_factory=pd.DataFrame)


def unrecorded(protocol: Protocol, held: Collection[str]) -> dict[str, str]:
    """Return the claims that wait for a measure of the protocol, and for which one.

    Args:
        held: Measures that are recorded to the last cell.
    """
    found = {}
    for name, claim in protocol.claims.items():
        if claim.family is None:
            continue
        family = protocol.families[claim.family]
        parts = [family.contrasts.get(str(h)) for h in (claim.hypothesis, *claim.also)]
        measures = [family.measure if part is None else part.measure for part in parts]
        if missing := [m for m in dict.fromkeys(measures) if m in protocol.measures and m not in held]:
            found[name] = reasons.unrecorded(missing)
    return found


def conclude(
    protocol: Protocol,
    tests: pd.DataFrame,
    public: pd.DataFrame,
    why: Callable[[str, str], str],
    stuck: Mapping[str, bool],
    *,
    model: str,
    scored: pd.DataFrame,
    gate: pd.DataFrame,
    said: pd.DataFrame | None = None,
    usable: Sequence[str] = (),
    held: Collection[str] | None = None,
) -> Analysis:
    """Put an analysis together.

    Args:
        tests: Of the families about the model.
        public: Of the families about published data.
        why: Family and hypothesis -> the checks behind it that failed; empty where none did.
        stuck: Family -> whether no instruction moves its outcome.
        model, scored, gate, said, usable: As in :class:`Analysis`.
        held: Measures that are recorded to the last cell; None where all are. A claim about another one waits.
    """
    marked = tests.assign(
        gate=[
            why(family, hypothesis) for family, hypothesis in zip(tests["family"], tests["hypothesis"], strict=True)
        ]
    )
    whole = pd.concat([marked, public.assign(gate="")], ignore_index=True)
    failed = {name: why(name, protocol.families[name].hypotheses[0]) for name in dict.fromkeys(tests["family"])}
    absent = {} if held is None else unrecorded(protocol, held)
    waiting = {(protocol.claims[name].family, protocol.claims[name].hypothesis) for name in absent}
    found = families.evidence(marked, failed=failed, stuck=stuck)
    found = {key: each for key, each in found.items() if key[:2] not in waiting}
    replies = pd.DataFrame() if said is None else said
    return Analysis(model, scored, gate, whole, found, failed, stuck, replies, [*usable], absent)


def by_model(analyses: Mapping[str, Any], what: str) -> pd.DataFrame:
    """Return a table of every analysis, such as ``gate`` or ``tests``, with the model in front."""
    parts = [getattr(analysis, what).assign(model=model) for model, analysis in analyses.items()]
    # A table without rows says nothing about the types of its columns.
    whole = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    return pd.DataFrame(whole, columns=["model", *whole.columns.drop("model")])


def over_models(
    tests: Mapping[str, pd.DataFrame], hypotheses: Iterable[tuple[str, str]], how: Settings
) -> pd.DataFrame:
    """Return contrasts model by model, and combined over the models whose gate passed.

    A model that was not asked what a contrast rests on has no line.

    Args:
        tests: Model -> its families, with ``gate`` (what behind a row failed; empty where nothing did).
        hypotheses: Family and hypothesis of every contrast that is wanted.

    Returns:
        ``family, hypothesis, model, n`` (items; models on the combined line), ``estimate, low, high, rejected,
        gate``; the combined line is called ``random effects``, has ``i2``, and needs two models that passed.
    """
    rows: list[dict[str, Any]] = []
    for family, hypothesis in hypotheses:
        mine = []
        for model, table in tests.items():
            row = table[(table["family"] == family) & (table["hypothesis"] == hypothesis)].iloc[0]
            if not row["n"]:
                continue
            kept = {name: row[name] for name in ("n", "estimate", "low", "high", "rejected", "gate")}
            rows.append({"family": family, "hypothesis": hypothesis, "model": model, **kept})
            if not row["gate"] and row["se"] > 0:
                mine.append((row["estimate"], row["se"] ** 2))
        if len(mine) > 1:
            effects, variances = zip(*mine, strict=True)
            all_ = random_effects(effects, variances, confidence=how.confidence)
            rows.append(
                {"family": family, "hypothesis": hypothesis, "model": "random effects", "n": all_.k, "gate": ""}
                | {"estimate": all_.estimate, "low": all_.low, "high": all_.high, "i2": all_.i2}
                | {"rejected": bool(all_.p <= how.alpha)}
            )
    columns = ["family", "hypothesis", "model", "n", "estimate", "low", "high", "rejected", "gate", "i2"]
    return pd.DataFrame(rows, columns=columns)


def forest(protocol: Protocol, analyses: Mapping[str, Analysis], outcome: str, how: Settings) -> pd.DataFrame:
    """Return the claims about one outcome, model by model, for :func:`persona_studies.analyse.figures.forest`.

    With two models or more whose gate passed, each contrast has a line of random effects.

    Returns:
        As :func:`over_models`, with ``label``.
    """
    wanted = dict.fromkeys(
        (str(claim.family), str(claim.hypothesis))
        for claim in protocol.claims.values()
        if claim.hypothesis is not None and _about(protocol, claim, outcome)
    )
    tests = {model: analysis.tests for model, analysis in analyses.items()}
    table = over_models(tests, wanted, how)
    parts = families.declared(protocol, table)
    named = zip(parts["first"], parts["second"], parts["model"], strict=True)
    return table.assign(label=[f"{first} - {second}, {model}" for first, second, model in named])


def _about(protocol: Protocol, claim: Claim, outcome: str) -> bool:
    """Return whether a claim rests on a contrast of an outcome that a model's own answers have."""
    contrast = protocol.families[str(claim.family)].contrasts.get(str(claim.hypothesis))
    return contrast is not None and contrast.outcome == outcome and contrast.measure in protocol.measures


def claims(protocol: Protocol, public: pd.DataFrame, analyses: Mapping[str, Analysis]) -> pd.DataFrame:
    """Return the verdicts on every claim of a protocol: the one table of a study's claims.

    A claim about published data has one row. Any other has a row per model that answered what it rests on, the
    deciding one first (:func:`persona_studies.analyse.verdicts.of_models`); where nobody did, one row names the
    measure that it waits for.

    Args:
        public: Tests of its families about published data.
        analyses: Model -> analysis, in the declared order.
    """
    found = {name: one.evidence for name, one in analyses.items()}
    absent = {name: one.absent for name, one in analyses.items()}
    lines = {str(claim.hypothesis): claim.line for claim in protocol.claims.values()}
    return verdicts.of_models(
        protocol,
        {**found, PUBLISHED_DATA: families.evidence(public, failed={}, stuck={}, lines=lines)},
        layer="corrected",
        absent={**absent, PUBLISHED_DATA: unrecorded(protocol, ())},
    )
