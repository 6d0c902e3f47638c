"""Simulated releases with a known truth, for tests only, and the notebook's way from tables to verdicts."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pandas as pd

from persona_studies.design import protocol as protocols
from persona_studies.paths import Project
from released_results import analysis, cells, design, items, judging, persobench, published

PROJECT = Project.find()
PROTOCOL = protocols.load(PROJECT.protocol("released_results"))
FACTS = {name: published.committed(PROJECT, name) for name in published.names(PROJECT)}
DEFAULTS: dict[str, Any] = {
    "sources": list(get_args(design.Source)),
    "layer": "corrected",
    "failures": "worst",
    "alpha": 0.05,
    "correction": "holm",
    "confidence": 0.95,
    "power": 0.8,
    "margin": 0.02,
    "margin_r": 0.2,
    "perma_single": 423,
    "perma_multi": 157,
    "replicates": 1000,
    "seed": 1,
}


def parameters(**given: Any) -> design.Parameters:
    return design.Parameters.check(DEFAULTS | given)


def all_tests(facts: dict[str, pd.DataFrame], chosen: design.Parameters) -> pd.DataFrame:
    """Return all corrected tests of the tables, as the notebook does."""
    scored = persobench.scores(facts["persobench_tables"], facts["persobench_failures"], facts["persobench_scores"])
    parts = [
        persobench.tests(scored, persobench.gains(scored), facts["persobench_pairs"], chosen),
        cells.capabilities(facts["open_character_training_lighteval"], chosen, chosen.layer),
        cells.faithfulness(facts["apc_table"], chosen),
        items.memory_tests(items.by_type(facts["personamem_32k_gpt4o"], chosen)),
        cells.memory(facts["perma_tables"], chosen),
        cells.mathematics(facts["personamath_table"], chosen),
        items.matching(facts["characterchat_ratings"], chosen),
    ]
    return analysis.corrected(pd.concat(parts, ignore_index=True), PROTOCOL, chosen)


def judged(facts: dict[str, pd.DataFrame], chosen: design.Parameters) -> pd.DataFrame:
    """Return the verdict on every claim, by claim."""
    scored = persobench.scores(facts["persobench_tables"], facts["persobench_failures"], facts["persobench_scores"])
    described = analysis.rows(
        [
            persobench.described(persobench.gains(scored), chosen),
            items.blind(facts["personamem_32k_gpt4o"], chosen),
            *cells.described(facts["personagym_scores"], facts["apc_table"], facts["perma_tables"], chosen),
        ]
    )
    return judging.verdict_table(PROTOCOL, all_tests(facts, chosen), described, {}, {}, chosen).set_index("claim")


def answers(
    rng: np.random.Generator, *, blind: float, gain: float, personas: int = 20, each: int = 30
) -> pd.DataFrame:
    """Return answers to four-way questions: right blind with chance ``blind``, by retrieval with ``gain`` more.

    Personas differ by 0.1 (standard deviation) in how easy their questions are.
    """
    n = personas * each
    persona = np.repeat(np.arange(personas), each)
    ease = rng.normal(0, 0.1, personas)[persona]
    letters, gold = np.array(list("abcd")), rng.integers(0, 4, n)

    def said(chance: np.ndarray) -> np.ndarray:
        other = (gold + rng.integers(1, 4, n)) % 4
        return letters[np.where(rng.random(n) < np.clip(chance, 0.02, 0.98), gold, other)]

    return pd.DataFrame(
        {
            "row": np.arange(n),
            "persona_id": persona,
            "question_type": rng.choice(sorted(FACTS["personamem_32k_gpt4o"]["question_type"].unique()), n),
            "gold": letters[gold],
            "gpt4o_none": said(blind + ease),
            "gpt4o_rag": said(blind + gain + ease),
        }
    )


def capabilities(rng: np.random.Generator, effects: dict[str, float]) -> pd.DataFrame:
    """Return lighteval's table: nine tuned models that differ from their base by ``effects`` of their persona."""
    made = FACTS["open_character_training_lighteval"].copy()
    base = made["model"].str.extract(r"^(.*?-it)", expand=False)
    persona = made["model"].str.extract(r"-it-(.*)$", expand=False)
    n = made["task"].map(lambda task: cells.TASKS[task][1])
    own = made[persona.isna()].set_index(["model", "task"])["mean"]
    truth = np.array([own[key] for key in zip(base, made["task"], strict=True)])
    truth += persona.map(effects).fillna(0.0).to_numpy()
    made["mean"] = rng.binomial(n, truth) / n
    made["se"] = np.sqrt(made["mean"] * (1 - made["mean"]) / n)
    return made


def memory_systems(rng: np.random.Generator, effects: dict[str, float]) -> pd.DataFrame:
    """Return PERMA's table with accuracies drawn anew: 0.70 for retrieval, plus ``effects`` of a system."""
    made = FACTS["perma_tables"].copy()
    drawn = made["metric"] == "MCQ Acc."
    n = made.loc[drawn, "condition"].str.endswith("single").map({True: 423, False: 157})
    truth = 0.70 + made.loc[drawn, "system"].map(effects).fillna(0.0)
    made.loc[drawn, "value"] = (rng.binomial(n, truth) / n).round(3)
    return made


def misaligned(
    rng: np.random.Generator, failures: float, rows: int = 1000
) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series]:
    """Return true metrics, the same with UniEval filed as PersoBench files it, and the replies."""
    failed = rng.random(rows) < failures
    words = rng.integers(5, 80, rows)
    true = pd.DataFrame(
        {
            "C Score": np.where(failed, -1.0, rng.choice([-1.0, 0.0, 1.0], rows)),
            "UniEval Coherence": np.where(failed, 0.0, rng.uniform(0.8, 1, rows)),
            "UniEval Engagingness": np.where(failed, 0.0, words / 20 + rng.normal(0, 0.2, rows).clip(-0.2, 0.2)),
        }
    )
    filed = true.copy()
    for start in range(0, rows, published.BATCH):
        batch = slice(start, start + published.BATCH)
        for name in ("UniEval Coherence", "UniEval Engagingness"):
            parsed = true[name].to_numpy()[batch][~failed[batch]]
            filed.iloc[batch, filed.columns.get_loc(name)] = np.r_[parsed, np.zeros(failed[batch].sum())]
    replies = pd.Series([" ".join(["word"] * k) for k in words]).mask(failed)
    return true, filed, replies
