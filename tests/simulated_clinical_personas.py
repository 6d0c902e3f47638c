"""Simulated answers to the grid of the study of clinical personas, for tests only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from clinical_personas import design as study
from clinical_personas import outcomes
from persona_studies.design import protocol as protocols
from persona_studies.design.plan import HASHES, IDENTITY
from persona_studies.paths import Project

DEFAULTS: dict[str, Any] = {
    "model": "simulated",
    "live_hours": 0.0,
    "roles": ["none", "assistant", "physician", "nurse"],
    "styles": ["neutral", "cautious", "bold"],
    "datasets": ["triage", "esi", "medical", "safety"],
    "measure": "cloze",
    "permutations": 0,
    "cost_ratio": 10.0,
    "bins": [5, 10],
    "layer": "both",
    "margin": 0.05,
    "alpha": 0.05,
    "correction": "holm",
    "confidence": 0.95,
    "replicates": 2000,
    "seed": 1,
}
TEXTS = np.array(["Emergency care now.", "Within one day.", "Within one week.", "Self-care."])


class Simulation:
    """The grid, its questions and conditions, and answers with known effects.

    Args:
        project: The checkout.
        given: Parameters that differ from :data:`DEFAULTS`.
    """

    def __init__(self, project: Project, **given: Any) -> None:
        self.parameters = study.Parameters.check(DEFAULTS | given)
        self.protocol = protocols.load(project.protocol("clinical_personas"))
        self.asked = study.questions(project, self.protocol, self.parameters)
        self.people = outcomes.named(study.people(self.protocol, self.parameters))
        self.plan = study.plan(project, self.protocol, self.parameters)
        cells = self.plan[[*IDENTITY, *HASHES, "kind"]].rename(columns={"kind": "asked_as"})
        facts = ["item", "gold", "n_options", "dataset", "cluster", "care", "variant"]
        cells = cells.merge(self.asked[facts], on="item", how="left", sort=False)
        self.cells = cells.merge(self.people[["condition", "role", "style", "who"]], on="condition", how="left")

    def chosen(
        self,
        seed: int,
        *,
        base: float = 0.6,
        accuracy: dict[str, float] | None = None,
        critical: dict[str, float] | None = None,
        shift: dict[str, float] | None = None,
        variant: dict[str, float] | None = None,
    ) -> np.ndarray:
        """Return the chosen place per cell: right with probability ``base`` plus effects, else one place off.

        Most of what makes an answer right belongs to the case and is the same under every condition.

        Args:
            seed: Of the answers.
            base: Probability of the right place.
            accuracy: Role -> what is added to it.
            critical: Role -> what is added in critical and taken away in primary care.
            shift: Style -> probability of one place less urgent (negative: more) whatever is right.
            variant: Mark of gender, ethnicity or sex -> the same.
        """
        rng = np.random.default_rng(seed)
        cells = self.cells
        size, clusters = len(cells), list(dict.fromkeys(self.asked["cluster"]))
        own = [dict(zip(clusters, rng.random(len(clusters)), strict=True)) for _ in range(3)]
        of_case = [cells["cluster"].map(draws).to_numpy() for draws in own]
        luck, side, move = (np.where(rng.random(size) < 0.7, draws, rng.random(size)) for draws in of_case)
        sign = cells["care"].map({"critical": 1.0, "primary": -1.0}).fillna(0.0)
        chance = base + cells["role"].map(accuracy or {}).fillna(0.0)
        chance += sign * cells["role"].map(critical or {}).fillna(0.0)
        n, gold = cells["n_options"].to_numpy(), cells["gold"].to_numpy()
        away = np.where((side < 0.5) & (gold > 0) | (gold == n - 1), gold - 1, gold + 1)
        chosen = np.where(luck < chance, gold, away)
        push = cells["style"].map(shift or {}).fillna(0.0).to_numpy()
        for mark, effect in (variant or {}).items():
            push = push + effect * np.array([mark in words.split() for words in cells["variant"]])
        return np.clip(chosen + np.where(move < np.abs(push), np.sign(push), 0).astype(int), 0, n - 1)

    def responses(self, seed: int, *, sharpness: float = 2.0, **effects: Any) -> pd.DataFrame:
        """Return a response for every cell.

        Args:
            seed: Of the answers.
            sharpness: Log-odds of the chosen against any other option, per character times length.
            effects: Of :meth:`chosen`.
        """
        cells, chosen = self.cells, self.chosen(seed, **effects)
        n = cells["n_options"].to_numpy()
        shown = (chosen - cells["order"].to_numpy()) % n
        letter, text = ((cells["asked_as"] == kind).to_numpy() for kind in ("letter", "text"))
        neutral = (cells["template"] == "neutral").to_numpy()
        frame = cells[[*IDENTITY, *HASHES]].copy()
        high = np.where(neutral, 0.0, sharpness)
        frame["logprob"] = [
            (np.where(np.arange(k) == place, up, 0.0) - 30.0).astype(np.float32)
            for k, place, up in zip(n, np.where(letter, shown, chosen), high, strict=True)
        ]
        frame["n_tokens"] = [np.full(k, 1 if one else 3) for k, one in zip(n, letter, strict=True)]
        frame["n_chars"] = [np.full(k, 1 if one else 12) for k, one in zip(n, letter, strict=True)]
        frame["option_mass"] = 0.9
        frame["text"] = np.where(text, TEXTS[np.minimum(chosen, 3)], None)
        frame["finish"] = np.where(text, "stop", "scored")
        return frame
