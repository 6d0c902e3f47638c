"""Simulated choices and judges with a known truth, for tests only."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from persona_choice import design
from persona_studies.analyse.families import Settings
from persona_studies.design import protocol as protocols
from persona_studies.paths import Project
from tests.simulated_letters import answers

PROJECT = Project.find()
PROTOCOL = protocols.load(PROJECT.protocol("persona_choice"))
HOW = Settings(0.05, 0.95, "holm", 1000, 1)
DEFAULTS: dict[str, Any] = {
    "model": "",
    "live_hours": 0.0,
    "items": 300,
    "conditions": ["none", "full", "key", "age", "placebo", "shuffled", "filler"],
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
