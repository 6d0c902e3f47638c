"""Texts of control conditions that several studies make the same way."""

from __future__ import annotations

import random

SHUFFLE_SEED = 1


def shuffled(text: str) -> str:
    """Return a text's words in random order, the same on every call.

    >>> sorted(shuffled("You are an expert.").split()) == sorted("You are an expert.".split())
    True
    """
    words = text.split()
    rng = random.Random(f"{SHUFFLE_SEED}:{text}")
    while (order := rng.sample(words, len(words))) == words:
        pass
    return " ".join(order)
