"""What a model's report card says of expert personas: the cells that are asked first, and their numbers."""

from __future__ import annotations

import pandas as pd

from expert_personas import analysis, design
from persona_studies.analyse import numbers
from persona_studies.analyse.families import Settings
from persona_studies.design import multiple_choice
from persona_studies.design.protocol import Protocol
from persona_studies.paths import Project

# Measure -> what the card says of it.
MEASURES = {"letter": "accuracy by persona: none, expert, unrelated, little knowledge, controls"}
# Personas as the protocol calls them -> as the card does.
NAMES = {
    design.NO_PERSONA: "no persona",
    "expert, elaborate": "expert of the question's field",
    "unrelated expert": "expert of another field",
    "layperson": "layperson",
    "toddler": "toddler",
    "placebo trait": "placebo trait",
    "filler": "filler text",
    "shuffled expert": "shuffled words of an expert",
    "wrong on purpose": "told to answer wrongly",
}
QUESTIONS = 2


def turns(project: Project, protocol: Protocol, plan: pd.DataFrame) -> pd.Series:
    """Return the turn in which each cell is asked; NaN is after all turns.

    Two questions of MMLU and two of OpenBookQA a turn, in the order in which the protocol chooses them, under every
    persona of the card in its first wording, in all option orders.
    """
    asked, everyone = design.questions(project, protocol), design.people(project, protocol)
    mine = asked[asked["benchmark"].isin(analysis.IN_DOMAIN)]
    seed = protocol.design["sample_seed"]
    rank = pd.concat([multiple_choice.ranks(part, seed) for _, part in mine.groupby("benchmark")])
    met = design.crossed(mine, everyone).merge(everyone[["condition", "paraphrase"]], on="condition")
    met = met[met["persona"].isin(NAMES) & (met["paraphrase"] <= 1)]
    turn = met["item"].map(dict(zip(mine["item"], rank.reindex(mine.index) // QUESTIONS, strict=True)))
    known = pd.Series(turn.to_numpy(dtype=float), index=pd.MultiIndex.from_frame(met[["condition", "item"]]))
    keys = pd.MultiIndex.from_frame(plan[["condition", "item"]])
    return pd.Series(known.reindex(keys).to_numpy(), index=plan.index)


def card(project: Project, protocol: Protocol, recorded: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the numbers of the card, as :mod:`persona_studies.analyse.numbers` makes them, and the gate's checks.

    Accuracy is the mean probability of the right option over all orders, on MMLU and OpenBookQA, which weigh the
    same. Differences are paired within questions.
    """
    if recorded.empty:
        return numbers.stacked([]), numbers.checked([])
    how = Settings.of(protocol, replicates=1000)
    asked, everyone = design.questions(project, protocol), design.people(project, protocol)
    scored = analysis.scores(recorded, asked, everyone)
    gate, _ = analysis.gated(protocol, scored, recorded, asked, how)
    wide = analysis.by_question(scored)
    wide = wide[wide.index.get_level_values("benchmark").isin(analysis.IN_DOMAIN)]
    found = [numbers.means(1, wide, NAMES, unit="questions", part="letters", confidence=how.confidence)]
    if design.NO_PERSONA in wide:
        gaps = wide.sub(wide[design.NO_PERSONA], axis=0).drop(columns=design.NO_PERSONA)
        names = {name: f"{said}, less no persona" for name, said in NAMES.items()}
        found.append(numbers.means(1, gaps, names, unit="questions", part="letters", confidence=how.confidence))
    return numbers.stacked(found), numbers.checked([gate[gate["benchmark"] == "all"].assign(part="letters")])
