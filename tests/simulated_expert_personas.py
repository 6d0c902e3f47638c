"""Simulated answers to the grid of the study of expert personas, for tests only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from expert_personas import analysis
from expert_personas import design as study
from persona_studies.design import protocol as protocols
from persona_studies.design.plan import HASHES, IDENTITY
from persona_studies.paths import Project

DEFAULTS: dict[str, Any] = {
    "model": "simulated",
    "compare": [],
    "live_hours": 0.0,
    "benchmarks": ["openbookqa", "commonsenseqa", "mmlu"],
    "domains": [],
    "questions": 60,
    "conditions": ["baseline", "expert", "layperson", "young_child", "toddler", "placebo", "filler", "shuffled"],
    "placements": ["system", "user"],
    "paraphrases": 3,
    "measure": "cloze",
    "permutations": 0,
    "layer": "both",
    "margin": 0.05,
    "alpha": 0.05,
    "correction": "holm",
    "confidence": 0.95,
    "replicates": 2000,
    "seed": 1,
}


class Simulation:
    """The grid, its questions and personas, and answers with known effects.

    Args:
        project: The checkout.
        given: Parameters that differ from :data:`DEFAULTS`.
    """

    def __init__(self, project: Project, **given: Any) -> None:
        self.parameters = study.Parameters.check(DEFAULTS | given)
        self.protocol = protocols.load(project.protocol("expert_personas"))
        self.asked = study.questions(project, self.protocol, self.parameters)
        self.people = study.people(project, self.protocol, self.parameters)
        self.plan = study.plan(project, self.protocol, self.parameters)
        facts = ["item", "gold", "n_options", "benchmark", *analysis.RELATIONS]
        self.cells = self.plan[[*IDENTITY, *HASHES, "kind"]].rename(columns={"kind": "asked_as"})
        self.cells = self.cells.merge(self.asked[facts], on="item", how="left", sort=False)
        self.cells = self.cells.merge(
            self.people[["condition", "kind", "field", "wording", "placement"]], on="condition", how="left"
        )
        self.persona = analysis.label(self.cells)

    def chosen(self, seed: int, *, base: float = 0.5, effects: dict[str, float] | None = None) -> np.ndarray:
        """Return the chosen place per cell: right with probability ``base`` plus the persona's effect.

        Half of what makes an answer right belongs to the question and is the same under every persona.
        """
        rng = np.random.default_rng(seed)
        own = dict(zip(self.asked["item"], rng.random(len(self.asked)), strict=True))
        chance = base + self.persona.map(effects or {}).fillna(0.0).to_numpy()
        luck = np.where(rng.random(len(self.cells)) < 0.5, self.cells["item"].map(own), rng.random(len(self.cells)))
        right = luck < chance
        n, gold = self.cells["n_options"].to_numpy(), self.cells["gold"].to_numpy()
        return np.where(right, gold, (gold + rng.integers(1, n)) % n)

    def responses(self, seed: int, *, base: float = 0.5, effects: dict[str, float] | None = None) -> pd.DataFrame:
        """Return a response for every cell, which choose as :meth:`chosen` says."""
        chosen = self.chosen(seed, base=base, effects=effects)
        n = self.cells["n_options"].to_numpy()
        shown = (chosen - self.cells["order"].to_numpy()) % n
        letter = (self.cells["asked_as"] == "letter").to_numpy()
        neutral = (self.cells["template"] == "neutral").to_numpy()
        text = (self.cells["asked_as"] == "text").to_numpy()
        frame = self.cells[[*IDENTITY, *HASHES]].copy()
        frame["logprob"] = [
            np.where((np.arange(k) == place) & ~flat, -1.0, -3.0).astype(np.float32)
            for k, place, flat in zip(n, np.where(letter, shown, chosen), neutral, strict=True)
        ]
        frame["n_tokens"] = [np.full(k, 1 if one else 3) for k, one in zip(n, letter, strict=True)]
        frame["n_chars"] = [np.full(k, 1 if one else 12) for k, one in zip(n, letter, strict=True)]
        frame["option_mass"] = 0.9
        frame["text"] = np.where(text, np.array([study.LETTERS[k] + "." for k in chosen]), None)
        frame["finish"] = np.where(text, "stop", "scored")
        return frame
