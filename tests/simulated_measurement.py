"""Simulated answers to the grid of the study of questionnaires with a known truth, for tests only."""

from __future__ import annotations

import numpy as np
import pandas as pd

from measurement import design, psychometrics
from persona_studies.design import protocol as protocols
from persona_studies.design.plan import HASHES, IDENTITY
from persona_studies.paths import Project

PROJECT = Project.find()
PROTOCOL = protocols.load(PROJECT.folder("measurement") / "protocol.toml")


def answers(
    plan: pd.DataFrame,
    *,
    seed: int = 1,
    shift: float = 1.0,
    spill: float = 0.0,
    order: float = 0.0,
    negation: float = 1.0,
    facts: float = 3.0,
    noise: float = 0.3,
    agreement: float = 0.0,
    mass: float = 0.9,
) -> pd.DataFrame:
    """Return responses of a model that holds an opinion on every statement.

    Args:
        plan: Cells.
        seed: Of its opinions and of the noise.
        shift: How far a persona moves its own trait, in logits.
        spill: How far it moves all other traits in the desirable or undesirable direction.
        order: Preference for whatever is listed first, in logits.
        negation: What a negation makes of an opinion: 1 turns it around, 0 leaves nothing of it.
        facts: How strongly true facts are told from false ones, in logits.
        noise: Standard deviation over cells.
        agreement: Agreement with whatever is said, in logits.
        mass: Probability of all labels together.
    """
    rng = np.random.default_rng(seed)
    cells = plan[[*IDENTITY, *HASHES]].reset_index(drop=True)
    people = design.people(PROJECT, PROTOCOL).set_index("condition")
    items = design.statements(PROJECT).set_index("item")
    situations = design.scenarios(PROJECT).set_index("item")["domain"]
    true = design.facts(PROJECT).set_index("item")["true"]
    opinion = pd.Series(rng.normal(0, 1, items["number"].nunique()), index=items["number"].unique())
    level = _levels(people, shift, spill)
    logprob, options = [], plan["options"].tolist()
    for row, shown in zip(cells.to_dict("records"), options, strict=True):
        item, condition, off = row["item"], row["condition"], rng.normal(0, noise)
        if item in true.index:
            z = facts * (1 if true[item] else -1) + off
        elif item in situations.index:
            z = level[condition][situations[item]] + off
        else:
            about = items.loc[item]
            sign = 1 if about["form"] == "plain" else -negation
            own = opinion[about["number"]] + about["key"] * level[condition][about["domain"]]
            z = sign * own + agreement + off
        logprob.append(_probabilities(z, row, len(shown), order, mass))
    return cells.assign(
        logprob=logprob, option_mass=np.where(plan["kind"] == "letter", mass, np.nan), finish="scored", text=None
    )


def _levels(people: pd.DataFrame, shift: float, spill: float) -> dict[str, dict[str, float]]:
    found = {}
    for condition, row in people.iterrows():
        level = dict.fromkeys(design.DOMAINS, 0.0)
        if row["trait"]:
            sign = 1 if row["pole"] == "high" else -1
            desirable = sign * psychometrics.DESIRABLE.get(row["trait"], 1)
            for domain in design.DOMAINS:
                level[domain] = spill * desirable * psychometrics.DESIRABLE.get(domain, 1)
            level[row["trait"]] = shift * sign * (1.5 if row["method"] == "paragraph" else 1.0)
        found[str(condition)] = level
    return found


def _probabilities(z: float, row: dict[str, object], n: int, order: float, mass: float) -> np.ndarray:
    """Return log-probabilities in shown order, with ``order`` added to the first place."""
    if n == 5:
        value = np.arange(5) - 2.0
        shown = value * z if str(row["template"]).endswith("rising") else -value * z
        shown = shown - value**2 / 2
    elif n == 4:
        declared = np.array([z, -z, z, -z])
        shown = np.roll(declared, -int(str(row["order"])))
    else:
        declared = np.array([z / 2, -z / 2])
        shown = np.roll(declared, -int(str(row["order"])))
    shown = shown + order * (np.arange(n) == 0)
    made: np.ndarray = np.log(mass * np.exp(shown) / np.exp(shown).sum()).astype(np.float32)
    return made
