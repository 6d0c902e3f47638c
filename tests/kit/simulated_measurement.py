"""Simulated answers to the grid of the study of questionnaires with a known truth, for tests only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from measurement import design, psychometrics
from persona_studies.design import protocol as protocols
from persona_studies.design.plan import HASHES, IDENTITY
from persona_studies.paths import Project

PROJECT = Project.find()
PROTOCOL = protocols.load(PROJECT.folder("measurement") / "protocol.toml")
DEFAULTS: dict[str, Any] = {
    "models": [],
    "live_hours": 0.0,
    "blocks": list("ABCDEFG"),
    "items_per_pole": 6,
    "wordings": 3,
    "labels": ["digits", "upper", "lower"],
    "pairs": ["true_false", "yes_no"],
    "negations": ["word", "meaning"],
    "methods": ["naive", "words", "paragraph"],
    "culture_items": 0,
    "people": 0,
    "margin_rating": 0.25,
    "margin_probability": 0.05,
    "alpha": 0.05,
    "correction": "holm",
    "permutations": 2000,
    "bootstrap": 200,
    "seed": 1,
}


def answers(
    plan: pd.DataFrame,
    *,
    seed: int = 1,
    shift: float = 1.0,
    spill: float = 0.0,
    order: float | Mapping[str, float] = 0.0,
    negation: float = 1.0,
    facts: float = 3.0,
    denied: float | None = None,
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
        order: Preference for whatever is listed first, in logits; or that in each wording of a rating.
        negation: What a negation makes of an opinion: 1 turns it around, 0 leaves nothing of it.
        facts: How strongly true facts are told from false ones, in logits.
        denied: The same of their negations, where it is another.
        noise: Standard deviation over cells.
        agreement: Agreement with whatever is said, in logits.
        mass: Probability of all labels together.
    """
    rng = np.random.default_rng(seed)
    cells = plan[[*IDENTITY, *HASHES]].reset_index(drop=True)
    items = design.statements(PROJECT).set_index("item")
    opinion = pd.Series(rng.normal(0, 1, items["number"].nunique()), index=items["number"].unique())
    own = opinion.reindex(cells["item"].map(items["number"])).to_numpy()
    sign = np.where(cells["item"].map(items["form"]) == "plain", 1.0, -negation)
    known = cells["item"].map(design.facts(PROJECT).set_index("item")["true"]).map({True: 1.0, False: -1.0})
    situation = cells["item"].map(design.scenarios(PROJECT).set_index("item")["domain"])
    domain = cells["item"].map(items["domain"]).fillna(situation)
    level = _levels(design.people(PROJECT, PROTOCOL).set_index("condition"), shift, spill)
    moved = np.array([level[who].get(of, 0.0) for who, of in zip(cells["condition"], domain, strict=True)])
    z = np.where(situation.notna(), moved, sign * (own + cells["item"].map(items["key"]) * moved) + agreement)
    strength = np.where(cells["item"].str.endswith("-word") & (denied is not None), denied or 0.0, facts)
    z = np.where(known.notna(), strength * known, z) + rng.normal(0, noise, len(cells))
    own = order if isinstance(order, Mapping) else {}
    first = np.array([own.get(name.partition("_")[0], 0.0 if own else order) for name in cells["template"]])
    logprob = pd.Series(index=cells.index, dtype=object)
    size = plan["options"].map(len).to_numpy()
    for n in (2, 4, 5):
        mine = np.flatnonzero(size == n)
        made = _probabilities(
            z[mine], cells.loc[mine, "template"], cells.loc[mine, "order"].to_numpy(int), n, first[mine]
        )
        logprob.iloc[mine] = [*(np.log(mass) + made).astype(np.float32)]
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


def _probabilities(z: np.ndarray, template: pd.Series, order: np.ndarray, n: int, first: np.ndarray) -> np.ndarray:
    """Return log-probabilities, cells x options in shown order, with ``first`` added to the first place."""
    if n == 5:
        value = np.arange(5) - 2.0
        shown = np.where(template.str.endswith("rising"), z, -z)[:, None] * value - value**2 / 2
    else:
        declared = z[:, None] * np.tile([1.0, -1.0], n // 2) / (2 if n == 2 else 1)
        shown = np.take_along_axis(declared, (np.arange(n) + order[:, None]) % n, axis=1)
    made: np.ndarray = log_softmax(shown + first[:, None] * (np.arange(n) == 0), axis=1)
    return made
