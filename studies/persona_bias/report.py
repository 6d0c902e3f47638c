"""What a model's report card says of persona bias: the cells that are asked first, and their numbers."""

from __future__ import annotations

from math import nan

import numpy as np
import pandas as pd

from persona_bias import analysis, design, extractors
from persona_studies.analyse import numbers
from persona_studies.analyse.families import Settings
from persona_studies.design import multiple_choice
from persona_studies.design.protocol import Protocol
from persona_studies.paths import Project

# Measure -> what the card says of it.
MEASURES = {
    "letter": "the fall of accuracy by group of personas",
    "text": "share of replies that name an option",
}
OPTIONS, QUESTIONS = 4, 3
NAMES = {
    "human": "accuracy as a human",
    "placebo": "placebo trait, less a human",
    "disability": "disability, less a human",
    "religion": "religion, less a human",
    "race": "race, less a human",
    "politics": "politics, less a human",
    "gender": "gender, less a human",
}


def turns(project: Project, protocol: Protocol, plan: pd.DataFrame) -> pd.Series:
    """Return the turn in which each cell is asked; NaN is after all turns.

    Three questions with four options a turn, of three sets, in the order in which the protocol chooses them. Each
    is asked as a human, with a placebo trait, and with one persona of every group, which take turns; letters in all
    option orders. Replies begin with the second turn: one question a turn, by all who reply.
    """
    asked, everyone = design.questions(project, protocol), design.people(project, protocol)
    seed = protocol.design["sample_seed"]
    first = everyone[everyone["instruction"] == 1]
    four = asked[asked["n_options"] == OPTIONS].assign(domain=lambda rows: rows["dataset"])
    place = plan["item"].map(dict(zip(four["item"], multiple_choice.ranks(four, seed), strict=True)))
    persona = plan["condition"].map(dict(zip(first["condition"], first["persona"], strict=True)))
    chosen = persona.isin([analysis.REFERENCE, "placebo"])
    members = first[first["persona"].isin(protocol.design["personas"])]
    for _, group in members.groupby("group", sort=False):
        names = group["persona"].tolist()
        own = place.map({k: names[k % len(names)] for k in range(len(four))})
        chosen |= persona == own
    letter = (plan["measure"] == "letter") & chosen & place.notna()
    replied = asked[asked["replied"]].assign(domain=lambda rows: rows["dataset"])
    turn = plan["item"].map(dict(zip(replied["item"], 1 + multiple_choice.ranks(replied, seed), strict=True)))
    found = np.select([letter, plan["measure"] == "text"], [place // QUESTIONS, turn], nan)
    return pd.Series(found, index=plan.index)


def card(project: Project, protocol: Protocol, recorded: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the numbers of the card, as :mod:`persona_studies.analyse.numbers` makes them, and the gate's checks.

    A group's fall is the mean accuracy of its personas less that of a human, paired within questions.
    """
    how = Settings.of(protocol, replicates=1000)
    asked, everyone = design.questions(project, protocol), design.people(project, protocol)
    said = extractors.read(recorded, asked, everyone)
    said = said[said["extractor"] == analysis.EXTRACTOR]
    scored = analysis.scores(recorded, asked, everyone)
    gate, found = analysis.gated(protocol, scored, said, recorded, asked, how), []
    if len(scored):
        wide = by_group(scored, protocol, everyone)
        found.append(numbers.means(2, wide, NAMES, unit="questions", part="letter", confidence=how.confidence))
    if len(said):
        kinds = {
            "name an option": ["answered", "hedged"],
            "abstain or refuse": ["abstained"],
            "not readable, cut or failed": ["unparsed", "truncated", "failed"],
        }
        found.append(numbers.statuses("questions", said["status"], kinds, part="text", confidence=how.confidence))
    return numbers.stacked(found), numbers.checked([gate])


def by_group(scored: pd.DataFrame, protocol: Protocol, everyone: pd.DataFrame) -> pd.DataFrame:
    """Return questions x groups: accuracy of the group's personas less a human's, and the human's own.

    Only the first instruction counts, in which everybody was asked. Questions weigh the same: the protocol has as
    many of every set, and a turn has one question of a set, which gives no interval within it.

    Args:
        scored: Of :func:`persona_bias.analysis.scores`.
        everyone: Of :func:`persona_bias.design.people`.
    """
    group = everyone[everyone["persona"].isin(protocol.design["personas"])].set_index("persona")["group"]
    named = {**group.to_dict(), analysis.REFERENCE: analysis.REFERENCE, "placebo": "placebo"}
    first = scored[scored["instruction"] == 1].assign(group=lambda rows: rows["persona"].map(named))
    index = ["dataset", "item", "cluster"]
    wide = first.pivot_table(index=index, columns="group", values="score", sort=False)
    if analysis.REFERENCE not in wide:
        return wide.iloc[:, :0]
    gaps = wide.drop(columns=analysis.REFERENCE).sub(wide[analysis.REFERENCE], axis=0)
    gaps.insert(0, analysis.REFERENCE, wide[analysis.REFERENCE])
    return numbers.pooled(gaps)
