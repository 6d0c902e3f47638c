"""What a model's report card says of clinical personas: the cells that are asked first, and their numbers."""

from __future__ import annotations

from functools import partial
from math import nan

import numpy as np
import pandas as pd

from clinical_personas import analysis, design, replies
from persona_studies.analyse import numbers
from persona_studies.analyse.families import Settings
from persona_studies.design import multiple_choice
from persona_studies.design.protocol import Protocol
from persona_studies.paths import Project

# Measure -> what the card says of it.
MEASURES = {
    "letter": "triage and calibration as an assistant, a physician and a layperson",
    "text": "share of replies to vignettes that name an urgency",
}
FIRST = ("assistant", "physician", "layperson", "least-urgent")
SPEAKERS = ("assistant", "physician")
VIGNETTES, REPLIES = 4, 2
REFERENCE = analysis.REFERENCE
ROLES = {
    "assistant": "as a helpful assistant",
    "physician": "as an emergency physician",
    "nurse": "as an emergency nurse",
    "layperson": "as a layperson",
    "none": "no persona",
}
LESS = {
    "physician": "physician less assistant",
    "layperson": "layperson less assistant",
    "least-urgent": "told to choose the least urgent, less assistant",
}


def turns(project: Project, protocol: Protocol, plan: pd.DataFrame) -> pd.Series:
    """Return the turn in which each cell is asked; NaN is after all turns.

    Four vignettes a turn, one of each urgency, in an order that follows from their names: letters in all option
    orders as an assistant, a physician and a layperson, and under the order to choose the least urgent option.
    Replies: two vignettes a turn, as an assistant and as a physician.
    """
    asked, everyone = design.questions(project, protocol), design.people(protocol)
    vignettes = asked[asked["dataset"] == "triage"].assign(domain=lambda rows: rows["gold"])
    rank = multiple_choice.ranks(vignettes, protocol.design["sample_seed"])
    place = plan["item"].map(dict(zip(vignettes["item"], rank, strict=True)))
    first = everyone[everyone["wording"] <= 1].set_index("condition")["who"]
    who = plan["condition"].map(first)
    letter = (plan["measure"] == "letter") & who.isin(FIRST) & place.notna()
    text = (plan["measure"] == "text") & who.isin(SPEAKERS)
    return pd.Series(np.select([letter, text], [place // VIGNETTES, place // REPLIES], nan), index=plan.index)


def card(project: Project, protocol: Protocol, recorded: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the numbers of the card, as :mod:`persona_studies.analyse.numbers` makes them, and the gate's checks.

    Probabilities are means over all option orders; vignettes and emergency cases weigh the same, case by case.
    Differences are paired within cases.
    """
    how = Settings.of(protocol, replicates=1000)
    asked, everyone = design.questions(project, protocol), design.people(protocol)
    said = replies.read(recorded, asked, everyone)
    scored = analysis.scores(recorded, asked, everyone)
    # Medical questions are no part of the card.
    gate = analysis.gated(protocol, scored, said, recorded[recorded["measure"] != "medical"], asked, how)
    found = []
    if len(scored):
        found += _triage(
            scored[(scored["style"] == "neutral") & scored["dataset"].isin(analysis.CASES)], how.confidence
        )
    if len(said):
        kinds = {
            "name an urgency": ["answered", "hedged"],
            "abstain or refuse": ["abstained"],
            "not readable, cut or failed": ["unparsed", "truncated", "failed"],
        }
        found.append(numbers.statuses("triage", said["status"], kinds, part="text", confidence=how.confidence))
    return numbers.stacked(found), numbers.checked([gate])


def _triage(plain: pd.DataFrame, confidence: float) -> list[pd.DataFrame]:
    """Return accuracy, assigned place and Brier score by role, and what a physician's persona changes."""
    if plain.empty:
        return []
    mean = partial(numbers.means, unit="cases", part="cases", confidence=confidence)
    wide = {value: analysis.by_case(plain, column) for value, column in analysis.VALUES.items()}
    parts = []
    for section, value, what in (
        (3, "accuracy", "accuracy"),
        (3, "place", "places less urgent"),
        (4, "brier", "Brier score, 0 best to 2 worst"),
    ):
        table = wide[value]
        # A mean place says nothing by itself: it depends on which cases were asked.
        if value != "place":
            parts.append(mean(section, table, {who: f"{what}, {said}" for who, said in ROLES.items()}))
        if REFERENCE in table:
            gaps = table.sub(table[REFERENCE], axis=0)
            moved = ("physician", "layperson", *(["least-urgent"] if value == "place" else []))
            parts.append(mean(section, gaps, {who: f"{what}, {LESS[who]}" for who in moved}))
    return parts
