"""Simulated choices and judges with a known truth, for tests only."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from persona_choice import design, guess, published, respondents
from persona_studies.analyse.families import Settings
from persona_studies.design import protocol as protocols
from persona_studies.design.plan import HASHES, IDENTITY
from persona_studies.paths import Project
from tests.kit.simulated_letters import answers

PROJECT = Project.find()
PROTOCOL = protocols.load(PROJECT.protocol("persona_choice"))
HOW = Settings(0.05, 0.95, "holm", 1000, 1)
DEFAULTS: dict[str, Any] = {
    "models": [],
    "live_hours": 0.0,
    "items": 300,
    "conditions": ["none", "full", "key", "age", "placebo", "shuffled", "filler"],
    "personas": 20,
    "orders": 2,
    "measure": "primary",
    "layer": "both",
    "high": 80,
    "margin": 0.05,
    "alpha": 0.05,
    "correction": "holm",
    "confidence": 0.95,
    "replicates": 1000,
    "seed": 1,
}


def parameters(**given: Any) -> design.Parameters:
    return design.Parameters.check(DEFAULTS | given)


@cache
def plan(items: int = 300) -> pd.DataFrame:
    return design.plan(PROJECT, PROTOCOL, parameters(items=items))


@cache
def bank(items: int = 300) -> pd.DataFrame:
    return design.pairs(PROJECT, items)


def recorded(
    right: Callable[[pd.DataFrame], np.ndarray], *, items: int = 300, place_bias: float = 0.0, control: float = 0.8
) -> pd.DataFrame:
    """Return letters whose debiased choice is right as often as said.

    Args:
        right: Cells merged with the bank -> probability of the answer rated best.
        items: Pairs.
        place_bias: Added to the log-probability of the first place.
        control: Probability of the answer that a positive control asks for.
    """
    cells = plan(items)[lambda whole: whole["measure"] == "letter"]

    def probability(met: pd.DataFrame) -> np.ndarray:
        p = np.asarray(right(met), dtype=float)
        longer_is_gold = (met["longer"] == met["gold"]).to_numpy()
        for name, toward in (("longer", control), ("shorter", 1 - control)):
            told = (met["condition"] == name).to_numpy()
            p = np.where(told, np.where(longer_is_gold, toward, 1 - toward), p)
        return p

    return answers(cells, bank(items).assign(n_options=2), probability, place_bias=place_bias)


def by_share(shares: dict[str, float], seed: int) -> Callable[[pd.DataFrame], np.ndarray]:
    """Return choices that are right for a random share of pairs under each condition; both orders agree."""

    def right(met: pd.DataFrame) -> np.ndarray:
        drawn = np.full(len(met), 0.5)
        for condition, part in met.groupby("condition"):
            share = shares.get(str(condition), shares["none"])
            items = pd.Index(part["item"].unique())
            # Conditions share a draw for three pairs in four, so that most pairs are decided alike.
            common = np.random.default_rng(seed).random(len(items))
            own = np.random.default_rng([seed, *str(condition).encode()]).random(len(items))
            luck = pd.Series(np.where(own < 0.25, 4 * own, common), items)
            drawn[met.index.get_indexer(part.index)] = np.where(part["item"].map(luck) < share, 0.7, 0.3)
        return drawn

    return right


def scored_rows(cells: pd.DataFrame, logprob: list[np.ndarray], mass: float = 0.9) -> pd.DataFrame:
    """Return responses with given log-probabilities, in shown order."""
    ones = [np.ones(len(values), dtype=int) for values in logprob]
    return cells[[*IDENTITY, *HASHES]].assign(
        logprob=logprob, n_tokens=ones, n_chars=ones, option_mass=mass, text=None, finish="scored"
    )


def guessed(shares: dict[str, float], seed: int, *, told: float = 1.0, prior: float = 3.0) -> pd.DataFrame:
    """Return Guess-Who answers in which a context names its character for a random share of them.

    Args:
        shares: Context -> share of characters that are named; others name the one that a random draw gives.
        seed: Of the draws.
        told: Share that is named when the name is told.
        prior: Spread of the names' own likelihoods, in nats, which the empty profile takes off.
    """
    rng = np.random.default_rng(seed)
    cells = plan()[lambda whole: whole["measure"].isin([guess.MEASURE, guess.OPEN])].reset_index(drop=True)
    fame, logprob = rng.normal(-10, prior, 45), []
    for condition, item in zip(cells["condition"], cells["item"], strict=True):
        gain = rng.normal(0, 0.01, 45)
        if item != "nobody":
            named = rng.random() < (told if condition == "told" else shares.get(condition, 0.0))
            gain[int(item) if named else rng.integers(45)] += 5
        logprob.append(fame + (0 if item == "nobody" else gain))
    return scored_rows(cells, logprob)


def surveyed(
    weights: dict[str, float], seed: int, *, control: float = 0.9, by_label: float = 0.0, noise: float = 0.3
) -> pd.DataFrame:
    """Return survey answers that are people's to some part, and those of a distant mean otherwise.

    Args:
        weights: Condition -> part of people's answers; others take that of ``country``.
        seed: Of the personas' noise.
        control: Probability of the answer that a positive control says.
        by_label: Part that the first label takes, whatever it means.
        noise: Spread of the log-probabilities over personas, in nats.
    """
    rng = np.random.default_rng(seed)
    questions = respondents.questions(PROJECT)
    known = respondents.people(published.committed(PROJECT, "survey_counts"), questions)
    cells = plan()[lambda whole: whole["measure"] == respondents.MEASURE].reset_index(drop=True)
    found = cells["item"].str.extract(r"(\S+) (up|down)$")
    drawn: dict[tuple[str, str], np.ndarray] = {}
    logprob = []
    for condition, item, question, scale in zip(cells["condition"], cells["item"], found[0], found[1], strict=True):
        human = known[question]
        far = np.eye(len(human))[human.argmin()]
        weight = weights.get(condition, weights["country"])
        shares = weight * human + (1 - weight) * far
        if condition in ("content", "discontent") and question in respondents.CONTROL:
            said = np.eye(len(human))[0 if condition == "content" else -1]
            shares = control * said + (1 - control) / len(human)
        who = (condition, item.rsplit(" ", 1)[0])
        drawn.setdefault(who, rng.normal(0, noise if condition in respondents.PERSONAL else 0.0, len(human)))
        shares = (shares + 1e-3) * np.exp(drawn[who])
        shown = shares[::-1] if scale == "down" else shares
        shown = (1 - by_label) * shown / shown.sum() + by_label * np.eye(len(human))[0]
        logprob.append(np.log(shown * 0.9))
    return scored_rows(cells, logprob)
