"""Simulated responses of the sycophancy study with a known truth; for tests only, never shown as results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
from scipy.special import expit

from persona_studies.analyse import scoring
from persona_studies.ask.schema import KEY
from persona_studies.design import protocol as protocols
from persona_studies.paths import Project
from sycophancy import design

PROJECT = Project(Path(__file__).resolve().parents[2])
PROTOCOL = protocols.load(PROJECT.protocol("sycophancy"))
PARAMETERS = design.Parameters(
    models=("simulated",),
    live_hours=0.0,
    personas=55,
    topics=11,
    claims_per_topic=1,
    parser="anchored",
    alpha=0.05,
    correction="holm",
    confidence=0.95,
    replicates=300,
    seed=1,
)
PEOPLE = design.conditions(PROJECT, PROTOCOL, PARAMETERS.personas)
ASKED = design.claims(PROJECT, PARAMETERS.topics, PARAMETERS.claims_per_topic)
PLAN = design.plan(PROJECT, PROTOCOL, PARAMETERS)
INVENTORY = design.questionnaire(PROJECT)
INSTRUMENT = design.instrument(PROJECT, PROTOCOL)
STANCES = design.stances(PROJECT, PROTOCOL)
# Slopes in nats per level, of agreement with assertions and with unattributed statements.
NOTHING = MappingProxyType({"asserted": 0.0, "unattributed": 0.0})


def responses(
    seed: int,
    *,
    four: Mapping[str, float] = NOTHING,
    two: Mapping[str, float] = NOTHING,
    stances: Mapping[str, float] = NOTHING,
    opinion: float = 0.0,
    instrument: float = 0.0,
    self_report: float = 0.0,
    neutral: float = 0.0,
    instructed: float = 2.0,
    persona_sd: float = 0.1,
    cell_sd: float = 0.3,
    mass: float = 0.9,
    yes: float = 0.0,
    place: float = 0.0,
    measures: tuple[str, ...] = tuple(PROTOCOL.measures),
) -> pd.DataFrame:
    """Return a response for every planned cell of some measures, as the store would.

    Log-odds of agreement are the persona's neutral level, plus what the statement is worth (of opposite sign for
    its mirror), plus the slope on the level, the persona's own deviation and noise of the cell. Letters and replies
    follow the slope of assertions under four labels.

    Args:
        seed: Of everything random.
        four: Slopes under four labels.
        two: Slopes under two labels.
        stances: Slopes of agreement with either of two opposite stances.
        opinion: Nats per level by which the first of two stances gains and the second loses.
        instrument: Nats per level by which the agreeable answer to the second instrument rises.
        self_report: Points per level by which the self- and other-report rise.
        neutral: Nats per level by which everything rises, the neutral prompt included.
        instructed: Nats by which an instruction to agree or disagree moves agreement.
        persona_sd: Spread of personas.
        cell_sd: Spread of cells.
        mass: Probability of the labels together.
        yes: Points by which every rating rises, whatever the statement says, times a persona's own tendency; of
            yes in the second instrument, nats.
        place: Nats by which the label shown first is preferred.
        measures: Which measures are recorded.
    """
    rng = np.random.default_rng(seed)
    names = PEOPLE["condition"]
    level = dict(
        zip(names, (PEOPLE["level"].astype(float) - 3).where(PEOPLE["role"] == "persona", 0.0).fillna(0.0))
    )
    own = dict(zip(names, rng.normal(0, persona_sd, len(names))))
    tendency = dict(zip(names, rng.normal(0, 1, len(names))))
    worth = dict(zip(ASKED["claim"].unique(), rng.normal(0, 1.0, ASKED["claim"].nunique())))
    opinions = np.random.default_rng([seed, 1]).normal(0, 1.0, STANCES["claim"].nunique())
    worth |= dict(zip(STANCES["claim"].unique(), opinions))
    slopes = {"labels_two": two, design.STANCES: stances, design.INSTRUMENT: {"statement": instrument}}
    keyed = INSTRUMENT.set_index("item")["key"]
    told = {"told_to_agree": instructed, "told_to_disagree": -instructed}
    parts = []
    for name in measures:
        cells = PLAN[PLAN["measure"] == name]
        n, who = len(cells), cells["condition"]
        lv, mine = who.map(level).to_numpy(), who.map(own).to_numpy()
        declared = PROTOCOL.measures[name]
        if name.endswith("rating"):
            key = cells["item"].map(INVENTORY.set_index("item")["key"]).to_numpy()
            mean = 3 + key * self_report * lv + yes * who.map(tendency).to_numpy()
            mean = np.clip(mean + rng.normal(0, cell_sd, n), 1.2, 4.8)
            mean = np.where(cells["template"].str.endswith("_falling"), 6 - mean, mean)
            logprob = -((np.arange(1, 6) - mean[:, None]) ** 2)
            logprob = np.log(scoring.shares(logprob) * mass)
        else:
            slope = slopes.get(name, four)
            said = cells["template"].map({t.template: t.role.split(",")[0] for t in declared.templates})
            rise = said.map({**slope, "neutral": 0.0}).to_numpy()
            claim, side = cells["item"].str.partition(":")[[0, 2]].to_numpy().T
            item = np.array([worth.get(c, 0.0) for c in claim]) * np.where(side == "mirror", -1, 1)
            if name == design.STANCES:
                item = item + opinion * lv * np.where(side == "mirror", -1, 1)
            odds = rise * lv + mine + who.map(told).fillna(0.0).to_numpy() + item + rng.normal(0, cell_sd, n)
            odds = neutral * lv + np.where(said == "neutral", 0.4, odds)
            if name == design.INSTRUMENT:
                # The agreeable answer is No where the key says so.
                odds = odds * cells["item"].map(keyed).to_numpy() + yes * who.map(tendency).to_numpy()
            agree = expit(odds)
            if name == "reply":
                texts = np.where(rng.random(n) < agree, "AGREE because.", "DISAGREE because.")
                parts.append(_rows(cells, [None] * n, text=texts, finish="stop"))
                continue
            split = np.array([0.6, 0.4])[: max(len(declared.options) // 2, 1)]
            split = split / split.sum()
            share = np.stack([p * s for s in split for p in (agree, 1 - agree)], axis=1) * mass
            shown = _turned(np.log(share), cells["order"].to_numpy())
            shown[:, 0] += place
            logprob = shown
        parts.append(_rows(cells, list(logprob), finish="scored", option_mass=mass))
    return pd.concat(parts, ignore_index=True)


def _turned(declared: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return columns in the order shown: option ``(i + order) mod n`` at place ``i``."""
    n = declared.shape[1]
    return np.take_along_axis(declared, (np.arange(n)[None, :] + order[:, None]) % n, axis=1)


def _rows(cells: pd.DataFrame, logprob: list[object], **columns: object) -> pd.DataFrame:
    return cells[KEY].assign(logprob=logprob, **{"text": None, "option_mass": np.nan, **columns})
