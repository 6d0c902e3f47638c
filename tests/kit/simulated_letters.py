"""Simulated answers by letter to the grid of any study, for tests only."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd

from persona_studies.analyse import conclusions
from persona_studies.design import protocol as protocols
from persona_studies.design.plan import HASHES, IDENTITY
from persona_studies.design.protocol import Protocol
from persona_studies.paths import Project
from persona_studies.reproduce import ready

Probability = Callable[[pd.DataFrame], np.ndarray]


class Second:
    """The protocol of a study and its grid, each made when it is first asked for."""

    def __init__(self, study: str) -> None:
        self.study = study
        self.project = Project(Path(__file__).parents[2])

    @cached_property
    def design(self) -> ModuleType:
        return import_module(f"{self.study}.design")

    @cached_property
    def protocol(self) -> Protocol:
        return protocols.load(self.project.protocol(self.study))

    @cached_property
    def asked(self) -> pd.DataFrame:
        found: pd.DataFrame = self.design.questions(self.project, self.protocol)
        return found

    @cached_property
    def people(self) -> pd.DataFrame:
        given = (self.protocol,) if self.study == "clinical_personas" else (self.project, self.protocol)
        found: pd.DataFrame = self.design.people(*given)
        return found

    @cached_property
    def plan(self) -> pd.DataFrame:
        return self.planned(texts=False)

    def planned(self, *, texts: bool) -> pd.DataFrame:
        """Return every cell, as the notebook's own parameters plan them."""
        in_force, _ = ready.resolve(self.project, self.study, [])
        module = ready.study_module(self.project, self.study)
        found: pd.DataFrame = module.plan(self.project, self.protocol, in_force, texts=texts)
        return found

    def verdicts(self, found: conclusions.Analysis) -> pd.DataFrame:
        """Return what an analysis of a simulated model comes to, claim by claim."""
        public = found.tests[~found.tests["family"].isin(found.failed)]
        return conclusions.claims(self.protocol, public, {"simulated": found}).set_index("claim")


@cache
def second(study: str) -> Second:
    """Return a protocol and its grid, made once for all files of tests: the largest takes two seconds."""
    return Second(study)


def answers(
    plan: pd.DataFrame,
    asked: pd.DataFrame,
    probability: Probability,
    *,
    mass: float = 0.9,
    place_bias: float = 0.0,
    replies: Callable[[pd.DataFrame], list[str]] | None = None,
) -> pd.DataFrame:
    """Return responses in which the right option has a given probability, and the others share the rest.

    Args:
        plan: Cells.
        asked: Questions: ``item, gold`` and whatever ``probability`` needs.
        probability: Cells merged with their questions -> probability of the right option, or cells x options in
            declared order.
        mass: Probability of all labels together.
        place_bias: What is added to the log-probability of the first place.
        replies: Cells of a text measure -> their replies.
    """
    kinds = plan["kind"].to_numpy()
    cells = plan[[*IDENTITY, *HASHES]].merge(asked.drop(columns=["item_hash"]), on="item", how="left")
    letter = kinds == "letter"
    shares = np.asarray(probability(cells[letter]))
    frame = plan[[*IDENTITY, *HASHES]].reset_index(drop=True)
    logprob: list[np.ndarray | None] = [None] * len(frame)
    rows = cells.loc[letter, ["gold", "n_options", "order"]].itertuples(index=False, name=None)
    for where, (gold, n, order), p in zip(np.flatnonzero(letter), rows, shares):
        if np.ndim(p):
            own = np.asarray(p, dtype=float)[:n]
        else:
            own = np.full(n, (1 - p) / (n - 1))
            own[gold] = p
        shown = np.log(own[(np.arange(n) + order) % n] * mass)
        shown[0] += place_bias
        logprob[where] = shown.astype(np.float32)
    frame["logprob"] = logprob
    frame["n_tokens"] = [None if p is None else np.ones(len(p), dtype=int) for p in logprob]
    frame["n_chars"] = frame["n_tokens"]
    frame["option_mass"] = np.where(letter, mass, np.nan)
    texts = replies(cells[~letter]) if replies is not None else [""] * int((~letter).sum())
    frame["text"] = None
    frame.loc[~letter, "text"] = texts
    frame["finish"] = np.where(letter, "scored", "stop")
    return frame


def questions_with_level(asked: pd.DataFrame, seed: int, *, mean: float = 0.55, spread: float = 0.2) -> pd.Series:
    """Return an own probability of being answered right for every question, between .05 and .95."""
    rng = np.random.default_rng(seed)
    return pd.Series(np.clip(rng.normal(mean, spread, len(asked)), 0.05, 0.95), index=asked["item"])


def tabled(found: conclusions.Analysis) -> pd.DataFrame:
    """Return the tests of an analysis by family and hypothesis."""
    return found.tests.set_index(["family", "hypothesis"])
