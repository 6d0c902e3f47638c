"""Releases with rows: PersonaMem's answers, CharacterChat's ratings, and retrieval by words."""

from __future__ import annotations

from difflib import SequenceMatcher
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats as sp

from persona_studies.analyse import families
from persona_studies.analyse.stats.correlation import minimum_detectable_correlation, pearson
from persona_studies.analyse.stats.equivalence import equivalence_correlation, equivalence_paired_proportions
from persona_studies.analyse.stats.resampling import bca, cluster_bootstrap
from released_results import analysis
from released_results.design import Parameters

# --- PersonaMem -----------------------------------------------------------------------------------------------


def _cluster(values: pd.Series, cluster: pd.Series, parameters: Parameters) -> tuple[float, float]:
    """Return the interval of a mean when whole clusters are drawn."""
    found = cluster_bootstrap(
        values.to_numpy(dtype=float),
        cluster=cluster.to_numpy(),
        confidence=parameters.confidence,
        replicates=parameters.replicates,
        seed=parameters.seed,
    ).to_dict("index")["mean"]
    return float(found["low"]), float(found["high"])


def right(answers: pd.DataFrame) -> pd.DataFrame:
    """Return whether GPT-4o chose the right letter, ``blind`` (the question only) and with ``retrieval``."""
    return answers[["persona_id", "question_type"]].assign(
        blind=answers["gpt4o_none"] == answers["gold"], retrieval=answers["gpt4o_rag"] == answers["gold"]
    )


def mcnemar(answered: pd.DataFrame, parameters: Parameters) -> dict[str, Any]:
    """Compare retrieval with no history on the same questions, by McNemar's exact test.

    With b questions right by retrieval alone and c right without it alone, p is that of b out of b + c at one half.
    The interval of (b - c) / n draws whole personas; equivalence is by Tango's score statistic.
    """
    b, c, n = families.discordant(answered["retrieval"], answered["blind"])
    apart = answered["retrieval"].astype(float) - answered["blind"].astype(float)
    low, high = _cluster(apart, answered["persona_id"], parameters)
    se = float(apart.std(ddof=1) / np.sqrt(n))
    return {
        "unit": "question",
        "n": n,
        "estimate": (b - c) / n,
        "low": low,
        "high": high,
        "p": float(sp.binomtest(b, b + c).pvalue) if b + c else 1.0,
        "minimum_detectable": analysis.minimum_detectable(se, parameters),
        "margin": parameters.margin,
        "p_equivalence": max(equivalence_paired_proportions(b, c, n, margin=parameters.margin)),
        "se": se,
        "b": b,
        "c": c,
    }


def by_type(answers: pd.DataFrame, parameters: Parameters) -> pd.DataFrame:
    """Return both accuracies with intervals over personas, for all questions and each type.

    Returns:
        ``question_type, n, blind, blind_low, blind_high, retrieval, retrieval_low, retrieval_high, b, c`` and the
        difference with its interval, p and equivalence.
    """
    answered = right(answers)
    parts = {"all": answered, **{str(name): part for name, part in answered.groupby("question_type")}}
    rows = []
    for name, part in parts.items():
        row: dict[str, Any] = {"question_type": name, **mcnemar(part, parameters)}
        for what in ("blind", "retrieval"):
            row[what] = float(part[what].mean())
            row[f"{what}_low"], row[f"{what}_high"] = _cluster(part[what], part["persona_id"], parameters)
        rows.append(row)
    return pd.DataFrame(rows)


def memory_tests(typed: pd.DataFrame) -> pd.DataFrame:
    """Return the tests of both families: all questions, and each type."""
    common = {"source": "PersonaMem", "test": "McNemar, exact; interval over personas"}
    found = [
        {
            **{key: value for key, value in row.items() if key in analysis.COLUMNS},
            **common,
            "family": "personamem" if row["question_type"] == "all" else "personamem_types",
            "hypothesis": "retrieval" if row["question_type"] == "all" else row["question_type"],
        }
        for row in typed.to_dict("records")
    ]
    return analysis.rows(found)


def blind(answers: pd.DataFrame, parameters: Parameters, reported: float = 0.5) -> dict[str, Any]:
    """Return the accuracy reported with the whole history, less the blind one with Wilson's interval."""
    known = right(answers)["blind"]
    k, n = int(known.sum()), len(known)
    low, high = analysis.wilson(k, n, parameters)
    se = float(np.sqrt(k / n * (1 - k / n) / n))
    return {
        "source": "PersonaMem",
        "family": "described",
        "hypothesis": "blind",
        "unit": "question",
        "n": n,
        "test": "reported less blind, Wilson",
        "printed": reported - 0.25,
        "estimate": reported - k / n,
        "low": reported - high,
        "high": reported - low,
        "minimum_detectable": analysis.minimum_detectable(se, parameters),
        "margin": parameters.margin,
        "se": se,
    }


def letters(answers: pd.DataFrame) -> pd.DataFrame:
    """Count the letters: right ones, and those that were chosen. ``letter, gold, blind, retrieval``."""
    columns = {"gold": "gold", "gpt4o_none": "blind", "gpt4o_rag": "retrieval"}
    counts = {name: answers[column].value_counts() for column, name in columns.items()}
    return pd.DataFrame(counts).rename_axis("letter").sort_index().reset_index()


def repeated_letters(answers: pd.DataFrame, parameters: Parameters, draws: int = 20) -> tuple[float, float]:
    """Return the mean longest run of right letters that two personas share, and the same with letters shuffled."""
    own = [list(part["gold"]) for _, part in answers.groupby("persona_id")]
    rng = np.random.default_rng(parameters.seed)

    def longest(sequences: list[list[str]]) -> float:
        texts = ["".join(letters) for letters in sequences]
        return float(
            np.mean(
                [
                    SequenceMatcher(None, one, other, autojunk=False).find_longest_match().size
                    for one, other in combinations(texts, 2)
                ]
            )
        )

    shuffled = [longest([list(rng.permutation(letters)) for letters in own]) for _ in range(draws)]
    return longest(own), float(np.mean(shuffled))


# --- CharacterChat --------------------------------------------------------------------------------------------

RATINGS = ("mood", "solved", "active")


def shared_letters(dialogues: pd.DataFrame) -> pd.Series:
    """Return how many of the four MBTI letters seeker and supporter share."""
    pairs = zip(dialogues["seeker_mbti"], dialogues["supporter_mbti"], strict=True)
    return pd.Series([sum(a == b for a, b in zip(one, other, strict=True)) for one, other in pairs])


def matching(dialogues: pd.DataFrame, parameters: Parameters) -> pd.DataFrame:
    """Correlate shared letters with each rating, by ranks; p by permuting supporters within a seeker.

    p = (1 + permutations with an absolute correlation at least as large) / (1 + permutations). The interval draws
    whole seekers.
    """
    shared = sp.rankdata(shared_letters(dialogues))
    rng = np.random.default_rng(parameters.seed)
    groups = dialogues.groupby("seeker").indices.values()
    permuted = np.tile(shared, (parameters.replicates, 1))
    for places in groups:
        permuted[:, places] = rng.permuted(permuted[:, places], axis=1)
    found = []
    for rating in RATINGS:
        ranks = sp.rankdata(dialogues[rating])
        observed = float(pearson(shared, ranks))
        null = pearson(permuted, np.broadcast_to(ranks, permuted.shape), axis=1)
        interval = cluster_bootstrap(
            ranks,
            shared,
            cluster=dialogues["seeker"].to_numpy(),
            confidence=parameters.confidence,
            replicates=parameters.replicates,
            seed=parameters.seed,
        ).to_dict("index")["correlation"]
        extreme = int((np.abs(null) >= abs(observed) - 1e-12).sum())
        found.append(
            {
                "source": "CharacterChat",
                "family": "characterchat",
                "hypothesis": rating,
                "unit": "dialogue",
                "n": len(ranks),
                "test": "Spearman, permuted within seekers",
                "estimate": observed,
                "low": float(interval["low"]),
                "high": float(interval["high"]),
                "p": (1 + extreme) / (1 + parameters.replicates),
                "minimum_detectable": minimum_detectable_correlation(
                    len(ranks), alpha=parameters.alpha, power=parameters.power
                ),
                "margin": parameters.margin_r,
                "p_equivalence": equivalence_correlation(observed, len(ranks), margin=parameters.margin_r),
            }
        )
    return analysis.rows(found)


def ratings(dialogues: pd.DataFrame) -> pd.DataFrame:
    """Return mean, share at the ceiling and correlation with shared letters, per rating and for their mean."""
    frame = dialogues[list(RATINGS)].assign(mean=dialogues[list(RATINGS)].mean(axis=1))
    shared = shared_letters(dialogues)
    return pd.DataFrame(
        [
            {
                "rating": name,
                "mean": float(frame[name].mean()),
                "fives": int((frame[name] == 5).sum()),
                "spearman": float(sp.spearmanr(shared, frame[name]).statistic),
            }
            for name in frame
        ]
    )


# --- Retrieval by words ---------------------------------------------------------------------------------------


def retrieval(recalls: pd.DataFrame, ranks: pd.DataFrame, parameters: Parameters) -> pd.DataFrame:
    """Return what a retriever by words reaches: ``source, what, unit, n, estimate, low, high``.

    Recall at 5 is a mean over questions, its interval draws whole persons: with six of them it is rough. The mean
    reciprocal rank and the share of first ranks draw whole conversations.
    """
    rows: list[dict[str, Any]] = []
    for noise, part in recalls.groupby("noise"):
        weights, sums = part["questions"].to_numpy(dtype=float), part["recall_sum"].to_numpy()
        drawn = bca(
            _ratio,
            sums,
            weights,
            confidence=parameters.confidence,
            replicates=parameters.replicates,
            seed=parameters.seed,
        )
        rows.append(
            {
                "source": "PersonaBench",
                "what": f"recall at 5, noise {noise:g}",
                "unit": f"question, in {len(part)} persons",
                "n": int(weights.sum()),
                "estimate": float(sums.sum() / weights.sum()),
                "low": drawn.low,
                "high": drawn.high,
            }
        )
    for what, values in (
        ("mean reciprocal rank", 1 / ranks["rank"]),
        ("first rank", (ranks["rank"] == 1).astype(float)),
    ):
        low, high = _cluster(values, ranks["conversation"], parameters)
        conversations = ranks["conversation"].nunique()
        row = {
            "source": "Synthetic-Persona-Chat",
            "what": what,
            "unit": f"speaker, in {conversations} conversations",
        }
        rows.append({**row, "n": len(ranks), "estimate": float(values.mean()), "low": low, "high": high})
    return pd.DataFrame(rows)


def _ratio(sums: np.ndarray, weights: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.asarray(sums.sum(axis=axis) / weights.sum(axis=axis))
