"""The grid of the study persona_choice: its parameters, its pairs, and what is asked."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import pandas as pd
from pydantic import Field, model_validator

from persona_choice import guess, respondents
from persona_choice import pairs as released
from persona_studies.analyse.families import Settings
from persona_studies.design import banks, parameters
from persona_studies.design import plan as grid
from persona_studies.design.plan import text_hash
from persona_studies.design.protocol import Protocol
from persona_studies.paths import Project

Kind = Literal["none", "full", "key", "age", "placebo", "shuffled", "filler"]
CONTROLS = ("longer", "shorter")
ROBUSTNESS = ("full",)
"""Conditions that are also asked with the profile before the pair."""
Hash12 = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
Hash16 = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class Pair(banks.Row):
    """Two answers to a question, and whom they were shown to; texts by their hashes."""

    unique = (("item",),)

    item: Hash12
    item_hash: Hash16
    respondent: Hash12
    stranger: Hash12
    conversation: str
    gold: Annotated[int, Field(ge=0, le=1)]
    longer: Annotated[int, Field(ge=-1, le=1)]
    words: Annotated[int, Field(ge=1)]
    profile_words: Annotated[int, Field(ge=1)]
    full_hash: Hash16
    key_hash: Hash16
    age_hash: Hash16
    placebo_hash: Hash16
    shuffled_hash: Hash16
    filler_hash: Hash16


class Parameters(parameters.Parameters):
    """Parameters of the notebook; the defaults are in its first code cell."""

    models: tuple[str, ...] = Field(
        description="models whose responses are analysed, the first in full; none: all that are recorded"
    )
    live_hours: float = Field(
        ge=0, description="hours that may be spent asking the first model here; 0 only replays"
    )
    items: int = Field(ge=12, le=600, description="pairs that are asked; the first so many of the bank")
    conditions: tuple[Kind, ...] = Field(min_length=2, description="what is said about the person; none is needed")
    personas: int = Field(ge=4, le=40, description="personas of each kind that are surveyed; the first of the bank")
    orders: int = Field(ge=1, le=2, description="orders of the two answers; 2 lets position cancel")
    measure: Literal["primary", "letter", "cloze"] = Field(description="measure of the choice")
    layer: Literal["both", "published", "corrected"] = Field(
        description="analysis of released data that gives verdicts"
    )
    high: int = Field(ge=2, le=100, description="certainty that counts as high in the released rows")
    margin: float = Field(gt=0, lt=0.5, description="equivalence margin of a difference between shares")
    alpha: float = Field(gt=0, lt=0.5, description="error rate of every family")
    correction: Literal["holm", "bonferroni", "fdr_bh", "none"] = Field(description="correction within a family")
    confidence: float = Field(gt=0.5, lt=1, description="coverage of every interval")
    replicates: int = Field(ge=1000, le=1_000_000, description="bootstrap samples and sign patterns")
    seed: int = Field(ge=0, description="of everything random")

    @property
    def settings(self) -> Settings:
        """How hypotheses are tested."""
        return Settings(self.alpha, self.confidence, self.correction, self.replicates, self.seed)

    @model_validator(mode="after")
    def _reference(self) -> Self:
        if "none" not in self.conditions:
            raise ValueError("conditions lack none, which the gate is judged by; add it")
        return self


def pairs(project: Project, n: int | None = None) -> pd.DataFrame:
    """Return the bank of pairs, or its first ``n``: the fields of :class:`Pair`."""
    found = banks.read(project.items / "persona_choice" / "pairs.csv", Pair)
    return found if n is None else found.head(n)


def plan(project: Project, protocol: Protocol, parameters: Parameters, *, texts: bool = False) -> pd.DataFrame:
    """Return every cell of the live part.

    Args:
        parameters: The extent of the grid: pairs, conditions, orders, personas.
        texts: Whether the texts are wanted, which recording needs and analysis does not; they come from their
            pinned source.
    """
    asked, people = pairs(project, parameters.items), respondents.respondents(project)
    characters = guess.characters(project)
    if texts:
        people, characters = respondents.texts(project, protocol), guess.texts(project, characters)
        asked = asked[["item"]].merge(released.texts(project, protocol), on="item", validate="one_to_one")
    sizes = protocol.confirmatory.sizes if protocol.confirmatory else {}
    few = asked.head(sizes["items_control"])

    def cells(name: str, items: pd.DataFrame, conditions: tuple[str, ...], role: str) -> list[pd.DataFrame]:
        declared = protocol.measures[name]
        return [
            grid.measure(
                name,
                declared.kind,
                conditions=pd.DataFrame(
                    [{"condition": condition, "condition_hash": condition, "system": None, "description": None}]
                ),
                items=said(protocol, items, condition),
                templates=declared.frame(role)[["template", "shared", "user"]],
                labels=declared.labels,
                orders=parameters.orders,
            )
            for condition in conditions
        ]

    conditions, cloze = tuple(parameters.conditions), asked.head(sizes["items_cloze"])
    made = grid.combine(
        [
            *cells("letter", asked, conditions, "asked"),
            *cells("letter", few, CONTROLS, "asked"),
            *cells("cloze", cloze, conditions, "asked"),
            *cells("cloze", few, CONTROLS, "asked"),
            *cells(
                "letter_profile_first", few, tuple(name for name in ROBUSTNESS if name in conditions), "robustness"
            ),
            *respondents.cells(protocol, respondents.questions(project), people.head(parameters.personas)),
            *guess.cells(protocol, characters),
        ]
    )
    if texts:
        made.attrs["gated"] = ["PRISM", "DeepPersona", "SPeCtrum"]
    return made


def said(protocol: Protocol, asked: pd.DataFrame, condition: str) -> pd.DataFrame:
    """Return the pairs with what a condition says about the person of each.

    Returns:
        ``item, item_hash, text, options, condition_hash, description``; texts are None where they are not at hand.
    """
    own = condition in released.PERSONAL
    nothing = pd.Series([None] * len(asked), index=asked.index, dtype=object)
    text = protocol.conditions[condition].text
    hashes = asked[f"{condition}_hash"] if own else pd.Series(text_hash(None, text), index=asked.index)
    return asked[["item", "item_hash"]].assign(
        text=asked.get("text", nothing),
        options=asked.get("options", nothing),
        condition_hash=hashes,
        description=asked.get(condition, nothing) if own else text,
    )
