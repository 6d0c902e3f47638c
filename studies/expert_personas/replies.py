"""Replies in words of the study of expert personas: which option they name, and how often."""

from __future__ import annotations

import re
from math import nan

import numpy as np
import pandas as pd

from expert_personas.conditions import NAMES
from expert_personas.design import LETTERS
from persona_studies.analyse import multiple_choice as shared

# Possessive: a reply of a thousand line ends would otherwise be tried in a billion ways.
_LETTER = re.compile(
    r"^\W*+(?:the\s++)?(?:(?:correct|right)\s++)?(?:answer|option)?\s*+(?:is)?\W*+\b([A-J])\b(?![a-z'])", re.I
)


def parse(text: str, n_options: int) -> int | None:
    """Return the option that a reply names by its letter at the start, or None.

    >>> parse("B. because", 4), parse("The answer is (C).", 4), parse("A cat", 4), parse("J", 4)
    (1, 2, None, None)
    """
    found = _LETTER.match(text)
    if not found:
        return None
    letter = found[1]
    # "A cat" and "I think" are words, not options: a bare letter needs a mark or an end after it.
    rest = text[found.end(1) :]
    if (letter.upper() in "AI" and re.match(r"\s+\w", rest)) or letter.islower():
        return None
    place = LETTERS.index(letter)
    return place if place < n_options else None


def _favoured(logprob: np.ndarray, order: int) -> float:
    """Return the option, as declared, whose letter is the most probable in an order; NaN where none is listed."""
    return nan if np.isnan(logprob).all() else float((np.nanargmax(logprob) + order) % len(logprob))


def replies(recorded: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
    """Read the greedy replies and set them beside what the letters' probabilities favour.

    Returns:
        ``condition, item, benchmark, status`` (answered, unparsed, truncated, failed), ``chosen`` (NaN unless
        answered), ``correct, by_letter, text``.
    """
    cells = recorded[recorded["measure"] == "text"].merge(
        asked[["item", "benchmark", "gold", "n_options"]], on="item"
    )
    # Options as declared, whichever order the reply saw.
    cells["chosen"] = shared.named_options(cells, parse).astype("Int64")
    cells["status"] = np.select(
        [cells["finish"] == "failed", cells["chosen"].notna(), cells["finish"] == "length"],
        ["failed", "answered", "truncated"],
        "unparsed",
    )
    cells["correct"] = (cells["chosen"] == cells["gold"]).astype("boolean").where(cells["chosen"].notna())
    letters = recorded[recorded["measure"] == "letter"]
    best = letters.assign(
        by_letter=[_favoured(values, k) for values, k in letters[["logprob", "order"]].to_numpy()]
    )
    best = best[["condition", "item", "order", "by_letter"]]
    # The reply saw one order, so it is compared with that order's probabilities.
    cells = cells.merge(best, on=["condition", "item", "order"], how="left")
    return cells[["condition", "item", "benchmark", "status", "chosen", "correct", "by_letter", "text"]]


def decomposition(read: pd.DataFrame, people: pd.DataFrame) -> pd.DataFrame:
    """Split accuracy into how often a reply answers and how often an answer is right.

    Returns:
        ``persona, n, answered, right_given_answered, accuracy, lower, upper``: the bounds count every reply that
        names no option as wrong, and as right.
    """
    cells = read.merge(people[["condition", "kind"]], on="condition")
    cells["persona"] = cells["kind"].map({**NAMES, "expert": "expert"})
    rows = []
    for persona, group in cells.groupby("persona", sort=False):
        answered = group["status"] == "answered"
        right = float(group.loc[answered, "correct"].astype(float).mean()) if answered.any() else nan
        share = float(answered.mean())
        known = share * right if answered.any() else 0.0
        rows.append(
            {
                "persona": persona,
                "n": len(group),
                "answered": share,
                "right_given_answered": right,
                "accuracy": known,
                "lower": known,
                "upper": known + 1 - share,
            }
        )
    columns = ["persona", "n", "answered", "right_given_answered", "accuracy", "lower", "upper"]
    return pd.DataFrame(rows, columns=columns)
