"""The models that were asked: pairs, Guess-Who and survey of every recording, put together for the verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from persona_choice import choice, guess, published, respondents
from persona_studies.analyse import conclusions, families, gates, reasons
from persona_studies.analyse.families import Settings
from persona_studies.design.protocol import Protocol
from persona_studies.paths import Project

FAMILIES = {
    **dict.fromkeys(choice.FAMILIES, "letter"),
    "guess": guess.MEASURE,
    **dict.fromkeys(("survey_items", "survey_methods"), respondents.MEASURE),
}
"""Family -> the measure that it waits for; the pairs take cloze where letters are not recorded."""


@dataclass(frozen=True)
class Live:
    """What one model's recording comes to; a part that is not recorded to the last cell is None.

    Attributes:
        pairs: Of :func:`persona_choice.choice.analyse`.
        guessed: Of :func:`persona_choice.guess.scores`.
        surveyed: Of :func:`persona_choice.respondents.scores`.
        gate: Checks of every recorded part: ``measure, check, value, rule, threshold, passes``.
        moves: Likewise, whether instructions move the answers; no verdict waits for that.
        tests: Every live family; ``gate`` says which checks behind a row failed. What is not recorded has n = 0.
        failed: Recorded family -> the checks behind it that failed, or nothing.
        stuck: Family -> whether no instruction moves its outcome, which is said beside an effect that is absent.
    """

    pairs: choice.Analysis | None
    guessed: pd.DataFrame | None
    surveyed: pd.DataFrame | None
    gate: pd.DataFrame
    moves: pd.DataFrame
    tests: pd.DataFrame
    failed: Mapping[str, str]
    stuck: Mapping[str, bool]


def analyse(
    project: Project,
    protocol: Protocol,
    recorded: pd.DataFrame,
    asked: pd.DataFrame,
    how: Settings,
    measure: str = "primary",
) -> Live:
    """Run the declared analysis of the complete measures of one recording.

    Args:
        recorded: Responses (:meth:`persona_studies.study.Study.complete`).
        measure: Of the pairs: ``letter``, ``cloze``, or the first of these that is recorded (``primary``).
    """
    held = {*recorded["measure"]}
    wanted = protocol.primary if measure == "primary" else (measure,)
    own = next((name for name in wanted if name in held), None)
    pairs = choice.analyse(protocol, recorded, asked, own, how) if own else None
    guessed = surveyed = None
    checks = {} if pairs is None else {pairs.measure: pairs.gate}
    moves = {} if pairs is None else {pairs.measure: pairs.moves}
    tests = [] if pairs is None else [pairs.tests]
    if guess.MEASURE in held:
        guessed = guess.scores(recorded, guess.characters(project))
        checks[guess.MEASURE] = guess.gate(protocol, guessed, how)
        tests.append(guess.tests(protocol, guessed, how))
    if respondents.MEASURE in held:
        questions, counts = respondents.questions(project), published.committed(project, "survey_counts")
        surveyed = respondents.scores(recorded, questions)
        checks[respondents.MEASURE] = respondents.gate(protocol, surveyed)
        moves[respondents.MEASURE] = respondents.moves(protocol, surveyed)
        known = respondents.people(counts, questions)
        tests.append(respondents.tests(protocol, surveyed, known, how))
    done = {name for table in tests for name in table["family"]}
    tests += [families.corrected(name, protocol.families[name], {}, how) for name in FAMILIES if name not in done]
    needs = {
        name: pairs.measure if pairs and name in choice.FAMILIES else needed
        for name, needed in FAMILIES.items()
        if name in done
    }
    failed = {name: gates.failures(checks[measure]) for name, measure in needs.items()}
    whole = pd.concat(tests, ignore_index=True)
    return Live(
        pairs,
        guessed,
        surveyed,
        _together(checks),
        _together(moves),
        whole.assign(gate=whole["family"].map(failed).fillna("")),
        failed,
        {name: not moves[measure]["passes"].all() for name, measure in needs.items() if measure in moves},
    )


def _together(checks: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the checks of several measures in one table."""
    columns = ["measure", "check", "value", "rule", "threshold", "passes"]
    parts = [table.assign(measure=name) for name, table in checks.items()]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def absent(protocol: Protocol, found: Live | None) -> dict[str, str]:
    """Return the live claims without evidence, and why: the measure that they wait for.

    Args:
        found: Of a model; None where nobody was asked.
    """
    waiting = {
        name: FAMILIES[str(claim.family)] for name, claim in protocol.claims.items() if claim.family in FAMILIES
    }
    if found is None:
        return dict.fromkeys(waiting, "no model is recorded")
    return {
        name: reasons.unrecorded([needs])
        for name, needs in waiting.items()
        if protocol.claims[name].family not in found.failed
    }


def over_models(protocol: Protocol, everyone: Mapping[str, Live], how: Settings) -> pd.DataFrame:
    """Return the live claims' contrasts model by model (:func:`persona_studies.analyse.conclusions.over_models`).

    Returns:
        As there, with ``claim``.
    """
    of = {
        (str(claim.family), str(claim.hypothesis)): name
        for name, claim in protocol.claims.items()
        if claim.family in FAMILIES
    }
    table = conclusions.over_models({name: each.tests for name, each in everyone.items()}, of, how)
    table.insert(0, "claim", [of[pair] for pair in zip(table["family"], table["hypothesis"], strict=True)])
    return table


def cells(planned: pd.DataFrame, everyone: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return what is planned, and what is recorded of each model with its tokens.

    Args:
        planned: ``measure, planned, purpose``.
        everyone: Model -> responses of complete measures.

    Returns:
        ``measure, planned, purpose, model, recorded, logical`` (tokens of all prompts), ``computed`` (tokens that
        went through the model); a measure that no model has answered keeps one row.
    """
    parts = [
        rows.groupby("measure", sort=False)
        .agg(recorded=("item", "size"), logical=("prompt_tokens", "sum"), computed=("computed_tokens", "sum"))
        .reset_index()
        .assign(model=model)
        for model, rows in everyone.items()
    ]
    columns = ["measure", "model", "recorded", "logical", "computed"]
    found = pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
    whole = planned[["measure", "planned", "purpose"]].merge(found, on="measure", how="left")
    count = pd.to_numeric(whole["recorded"]).fillna(0).astype(int)
    return whole.assign(model=whole["model"].fillna(""), recorded=count)
