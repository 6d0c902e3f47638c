"""The finding in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from persona_studies.analyse import gates
from sycophancy.analysis import HYPOTHESES, Analysis, missing
from sycophancy.design import STANCES
from sycophancy.published import AGREES
from sycophancy.robustness import NEUTRAL, PUBLISHED, RAW, TWO
from sycophancy.validity import stuck

SAID = {"labels_four": "four labels", "labels_two": "two labels"}


def finding(
    found: Analysis,
    readings: pd.DataFrame,
    beside: pd.DataFrame,
    model: str,
    further: Mapping[str, Analysis] | None = None,
) -> str:
    """Return the finding in Markdown, a paragraph and a list beneath it, made of the computed numbers.

    Args:
        found: Of the model.
        readings: Of :func:`sycophancy.robustness.readings`.
        beside: Of :func:`sycophancy.robustness.convergent`.
        further: Model -> analysis of the models beside it, of which a sentence says what passed.
    """
    rows = found.tests[found.tests["family"] == "personas"].set_index("hypothesis")
    asserted, unattributed, *net, _, _ = HYPOTHESES

    def number(hypothesis: str) -> str:
        return _r(rows.loc[hypothesis])

    if missing(asserted, found.scored):
        return (
            f"**{model} has not been asked by the paper's four labels yet, so that nothing is decided about it.**"
        )
    first, persona = rows.loc[asserted], found.scored.persona
    verb = ("rises" if first["estimate"] > 0 else "falls") if first["rejected"] else "does not change significantly"
    share = persona.groupby("designed")["labels_four p_asserted"].mean()
    read = readings[readings["hypothesis"] == asserted].set_index("reading")
    r = read["r"]
    sets = [
        f"{'not recorded yet' if missing(h, found.scored) else number(h)} under {_said(HYPOTHESES[h][1])}"
        for h in net
    ]
    beneath = [
        f"Before subtraction, agreement goes with the level at r = {r[RAW]:.2f}; the answer to a prompt without a "
        f"statement does so at r = {r[NEUTRAL]:.2f}.",
        *(
            f"Under two labels, after subtraction: {_r(row, 'r')}, which is a reading and not a declared test."
            for _, row in read[read.index == TWO].iterrows()
        ),
        f"Agreement with the same statements when nobody asserts them: {number(unattributed)}.",
        *_stances(beside),
        *_replies(found, beside),
        _checks(found),
        *(_further(name, one) for name, one in (further or {}).items()),
    ]
    return (
        f"**In {model}, agreement with what the user asserts, less the persona's own answer when no statement is "
        f"shown, {verb} with the agreeableness that the persona is designed to have ({number(asserted)}; "
        f"n = {len(persona)} personas of {persona['background'].nunique()} backgrounds).** "
        f"P(agree or partly agree) is {share.iloc[0]:.2f} at level {share.index[0]} and {share.iloc[-1]:.2f} at "
        f"level {share.index[-1]}. Net sycophancy, asserted less unattributed: {', '.join(sets)}.\n\n"
    ) + "\n".join(f"- {line}" for line in beneath)


def _stances(beside: pd.DataFrame) -> list[str]:
    """Return what both stances of published topics say; nothing where the measure failed or is not recorded."""
    other = "; ".join(
        f"{str(name).partition(', ')[2]} {_r(row, 'r')}"
        for name, row in beside[beside["gate"].eq("")].set_index("measure").iterrows()
        if PUBLISHED.get(str(name), ("",))[0] == STANCES
    )
    where = "Opposite stances on published topics (syco-bench) under two labels"
    return [f"{where}, a convergent check in no family of tests: {other}."] if other else []


def _replies(found: Analysis, beside: pd.DataFrame) -> list[str]:
    """Return what replies say, and what the paper's score makes of it; nothing where the measure failed."""
    name = "replies, anchored parser"
    rows = beside[beside["measure"].eq(name) & beside["gate"].eq("")]
    if rows.empty:
        return []
    said = found.scored.said["anchored"].merge(found.scored.persona[["condition", "designed"]], on="condition")
    share = said["status"].isin(AGREES).groupby(said["designed"]).mean()
    partly = said["status"].str.startswith("PARTIALLY").mean()
    return [
        f"Replies in the paper's own form, before subtraction: {share.iloc[0]:.2f} agree or partly agree at level "
        f"{share.index[0]}, {share.iloc[-1]:.2f} at level {share.index[-1]}. {partly:.0%} choose one of the two "
        f"partial labels, which the paper's score does not tell apart: {_r(rows.iloc[0], 'r')}."
    ]


def _checks(found: Analysis) -> str:
    """Return which measures failed their gate, and which no instruction moves."""
    failed = {str(name): gates.failures(part) for name, part in found.gate.groupby("measure", sort=False)}
    bad = [f"{_said(name)} ({why})" for name, why in failed.items() if why]
    passed = (
        f"Checks that failed: {'; '.join(bad)}." if bad else "Every measure that is recorded whole passed its gate."
    )
    still = _unmoved(found)
    return passed + (f" No instruction moves agreement by {still}." if still else "")


def _further(model: str, found: Analysis) -> str:
    """Return what the declared hypotheses come to in a model beside the first one, where its gates passed."""
    rows = found.tests[found.tests["family"] == "personas"].set_index("hypothesis")
    asserted, _, *net, _, _ = HYPOTHESES
    said = {asserted: "agreement with assertions under four labels", net[0]: "net sycophancy under four labels"}
    said[net[1]] = "net sycophancy under two labels"
    passed = [
        f"{words} {_r(row)}"
        for hypothesis, words in said.items()
        for row in [rows.loc[hypothesis]]
        if row["n"] and not row["gate"]
    ]
    if not passed:
        return f"{model} has passed no gate."
    still = _unmoved(found)
    unmoved = f"; no instruction moves its agreement by {still}" if still else ""
    return f"In {model}: {', '.join(passed)}{unmoved}."


def _r(row: Any, estimate: str = "estimate") -> str:
    """Return a correlation with its interval, of a row of a table."""
    return f"r = {row[estimate]:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def _unmoved(found: Analysis) -> str:
    """Return the measures of agreement that no instruction moves."""
    return " and ".join(_said(name) for name in found.scored.agree if stuck(found.steered, name))


def _said(measure: str) -> str:
    """Return a measure's name as the finding says it."""
    return SAID.get(measure, measure.replace("_", " "))
