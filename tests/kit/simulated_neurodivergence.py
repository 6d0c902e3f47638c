"""Simulated answers and scores in the benchmark's design, for tests only."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pandas as pd

from neurodivergence import design as study

MODELS = ["claude-sonnet-4-6", "gpt-5-chat-latest"]
DEFAULTS: dict[str, Any] = {
    "models": MODELS,
    "judges": MODELS,
    "metrics": list(get_args(study.Metric)),
    "unit": "query",
    "layer": "both",
    "margin": 0.2,
    "alpha": 0.05,
    "correction": "holm",
    "confidence": 0.95,
    "replicates": 1000,
    "seed": 1,
}
DOMAINS = ("executive_function", "technical_explanation", "emotional_support", "social_scripting_masking_bait")


def parameters(**given: Any) -> study.Parameters:
    return study.Parameters.check(DEFAULTS | given)


def cells() -> pd.DataFrame:
    """Return the 576 cells: model x condition x profile x query."""
    queries = [(f"Q{place + 1:02d}", DOMAINS[place // 6]) for place in range(24)]
    return pd.DataFrame(
        [
            {
                "model": model,
                "condition_id": condition,
                "profile_id": f"P{profile}",
                "query_id": query,
                "query_domain": domain,
            }
            for model in MODELS
            for condition in study.CONDITIONS
            for profile in range(1, 5)
            for query, domain in queries
        ]
    )


def answers(
    rng: np.random.Generator,
    *,
    effects: dict[str, float] | None = None,
    heterogeneity: float = 0.0,
    metrics: tuple[str, ...] = ("token_count",),
) -> pd.DataFrame:
    """Return answers whose metrics have a query's level, a condition's effect, and noise of one.

    Args:
        rng: Generator.
        effects: Condition -> mean effect, in standard deviations of the noise.
        heterogeneity: Standard deviation of a query's own response to a condition.
        metrics: Names; each is drawn anew.
    """
    table = cells()
    for metric in metrics:
        level = dict(zip(sorted(table["query_id"].unique()), rng.normal(size=24), strict=True))
        own = {
            (query, condition): heterogeneity * rng.normal() for query in level for condition in study.CONDITIONS
        }
        table[metric] = (
            table["query_id"].map(level)
            + table["condition_id"].map({"C0": 0.0, **(effects or {})}).fillna(0.0)
            + [own[key] for key in zip(table["query_id"], table["condition_id"], strict=True)]
            + rng.normal(size=len(table))
        )
    return table


def scores(rng: np.random.Generator, *, slip: float, favour: float = 0.0) -> pd.DataFrame:
    """Return both judges' scores of every answer.

    Args:
        rng: Generator.
        slip: Probability that a judge is a point off.
        favour: How much more C2 raises a score when a judge scores its own model's answers.
    """
    table = cells()
    truth = table["query_id"].map(
        dict(zip(sorted(table["query_id"].unique()), rng.integers(0, 4, 24), strict=True))
    )
    parts = []
    for judge in MODELS:
        part = table.assign(judge=judge)
        bonus = favour * ((part["model"] == judge) & (part["condition_id"] == "C2"))
        for metric in study.JUDGED:
            moved = np.where(rng.random(len(part)) < slip, rng.choice([-1, 1], len(part)), 0)
            value = np.clip(truth + moved + bonus, 0, 4)
            part[metric] = (value > 2).astype(int) if metric == "refusal" else value
        parts.append(part)
    return pd.concat(parts, ignore_index=True)
