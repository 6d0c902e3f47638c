"""Simulated answers to the grid of the study of persona bias, for tests only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from persona_bias import design as study
from persona_studies.design import protocol as protocols
from persona_studies.design.plan import HASHES, IDENTITY
from persona_studies.paths import Project

DEFAULTS: dict[str, Any] = {
    "model": "simulated",
    "live_hours": 0.0,
    "groups": ["disability", "religion", "race", "politics", "gender"],
    "personas": [],
    "instructions": [1, 2, 3],
    "datasets": ["management", "commonsenseqa", "bbq"],
    "items": 40,
    "choice": "random",
    "baseline": "human",
    "measure": "cloze",
    "permutations": 0,
    "extractor": "lenient",
    "abstention": "apart",
    "run_code": False,
    "mbpp_problems": 20,
    "layer": "both",
    "margin": 0.05,
    "alpha": 0.05,
    "correction": "holm",
    "confidence": 0.95,
    "replicates": 2000,
    "seed": 1,
}


class Simulation:
    """The grid, its questions and conditions, and answers with known effects.

    Args:
        project: The checkout.
        given: Parameters that differ from :data:`DEFAULTS`.
    """

    def __init__(self, project: Project, **given: Any) -> None:
        self.parameters = study.Parameters.check(DEFAULTS | given)
        self.protocol = protocols.load(project.protocol("persona_bias"))
        self.asked = study.questions(project, self.protocol, self.parameters)
        self.people = study.people(project, self.protocol, self.parameters)
        self.plan = study.plan(project, self.protocol, self.parameters)
        cells = self.plan[[*IDENTITY, *HASHES, "kind"]].rename(columns={"kind": "asked_as"})
        facts = ["item", "gold", "n_options", "dataset"]
        cells = cells.merge(self.asked[facts], on="item", how="left", sort=False)
        self.cells = cells.merge(
            self.people[["condition", "persona", "kind", "variant"]], on="condition", how="left"
        )

    def chosen(self, seed: int, *, base: float = 0.5, effects: dict[str, float] | None = None) -> np.ndarray:
        """Return the chosen place per cell: right with probability ``base`` plus the persona's effect.

        Half of what makes an answer right belongs to the question and is the same under every condition. A
        mitigation takes the effect away.
        """
        rng = np.random.default_rng(seed)
        own = dict(zip(self.asked["item"], rng.random(len(self.asked)), strict=True))
        effect = self.cells["persona"].map(effects or {}).fillna(0.0)
        chance = base + effect.where(self.cells["kind"] != "mitigated", 0.0).to_numpy()
        luck = np.where(rng.random(len(self.cells)) < 0.5, self.cells["item"].map(own), rng.random(len(self.cells)))
        n, gold = self.cells["n_options"].to_numpy(), self.cells["gold"].to_numpy()
        return np.where(luck < chance, gold, (gold + rng.integers(1, n)) % n)

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
        frame["text"] = np.where(text, np.array([f"So the answer is: ({'ABCDEFGHIJ'[k]})" for k in chosen]), None)
        frame["finish"] = np.where(text, "stop", "scored")
        return frame
