"""Two workloads of made-up text with given token lengths, the same for every engine.

A *cell* is one item under one persona with all its options. ``letter`` scores four one-token labels, ``cloze``
four sentences. The text means nothing and says so; only its length matters here.

    python benchmarks/workloads.py cells.json --personas 2 --items 16
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

PERSONA_TOKENS = 200
ITEM_TOKENS = 60
MODEL = "smollm2-135m-instruct"
LABELS = ("A", "B", "C", "D")
SENTENCES = ("I agree.", "I disagree.", "I completely agree.", "I completely disagree.")
OPTIONS = {"letter": LABELS, "cloze": SENTENCES}
ENDINGS = {
    "letter": "\nA. often\nB. sometimes\nC. rarely\nD. never\nAnswer with one letter.",
    "cloze": " Don't you agree?",
}

WHO = ("the ferry", "a neighbour", "the old mill", "my cousin", "the night train", "a gardener", "the library")
DOES = ("waits for", "passes", "remembers", "looks after", "writes to", "stays near", "talks about")
WHAT = ("the market", "a small harbour", "the bridge", "two lanterns", "the orchard", "a quiet road", "the choir")
WHEN = ("in the morning", "every winter", "after the rain", "on Sundays", "before noon", "late at night")
FILLERS = ("again", "here", "now", "too", "then", "there")

Count = Callable[[str], int]


def text_of(tokens: int, seed: str, count: Count, *, opening: str, ending: str = "") -> str:
    """Return made-up text of exactly so many tokens.

    Args:
        tokens: Length of the whole text, opening and ending included.
        seed: The same seed gives the same text.
        count: Number of tokens of a text.
        opening: How the text starts.
        ending: How the text ends.

    Raises:
        ValueError: opening and ending alone are too long, or no filler words give the length.
    """
    if count(opening + ending) > tokens:
        raise ValueError(f"Opening and ending are {count(opening + ending)} tokens, more than {tokens}.")
    rng = random.Random(seed)
    texts = [opening]
    while count(texts[-1] + ending) <= tokens:
        sentence = f"{rng.choice(WHO)} {rng.choice(DOES)} {rng.choice(WHAT)} {rng.choice(WHEN)}."
        texts.append(f"{texts[-1]} {sentence[0].upper()}{sentence[1:]}")
    # Where the filler words do not reach the length exactly, they are tried after one sentence less.
    for text in reversed(texts):
        filled: str | None = text
        while filled is not None and (n := count(filled + ending)) <= tokens:
            if n == tokens:
                return filled + ending
            filled = _filled(filled, ending, tokens, n, count, rng)
    raise ValueError(f"No filler words make {tokens} tokens of {opening!r}.")


def _filled(text: str, ending: str, tokens: int, n: int, count: Count, rng: random.Random) -> str | None:
    """Return the text with one filler word more, or None if none brings it nearer to its length."""
    words = [f"{text} {word}" for word in rng.sample(FILLERS, len(FILLERS))]
    # A word may cost two tokens where it parts a full stop from a line end that were one.
    return next((w for more in (1, 2) for w in words if count(w + ending) == n + more <= tokens), None)


def persona(place: int, tokens: int, count: Count) -> str:
    """Return the system turn of a made-up persona."""
    return text_of(tokens, f"persona {place}", count, opening=f"You are made-up person number {place}.")


def item(kind: str, place: int, tokens: int, count: Count) -> str:
    """Return the user turn of a made-up item."""
    return text_of(tokens, f"item {place}", count, opening=f"Made-up item number {place}:", ending=ENDINGS[kind])


def grid(kind: str, personas: int, items: int, count: Count, *, first: int = 0) -> list[dict[str, Any]]:
    """Return personas x items cells, persona by persona, without what depends on a model's template.

    Args:
        kind: ``letter`` or ``cloze``.
        personas: Number of personas.
        items: Number of items.
        count: Number of tokens of a text.
        first: Number of the first persona and item; other numbers give other texts.
    """
    people = [(p, persona(p, PERSONA_TOKENS, count)) for p in range(first, first + personas)]
    asked = [(i, item(kind, i, ITEM_TOKENS, count)) for i in range(first, first + items)]
    return [
        {"kind": kind, "persona": p, "item": i, "system": system, "user": user, "options": list(OPTIONS[kind])}
        for p, system in people
        for i, user in asked
    ]


def chosen(cells: list[dict[str, Any]], personas: int, items: int) -> list[dict[str, Any]]:
    """Return the cells of the first personas and items."""
    return [cell for cell in cells if cell["persona"] < personas and cell["item"] < items]


def main() -> None:
    """Write cells as prompts and token ids, and the places of the weights, as JSON.

    Runs in a process of its own, so that the process that starts the engines stays small.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--personas", type=int, required=True)
    parser.add_argument("--items", type=int, required=True)
    parser.add_argument("--model", default=MODEL, help="of data/models.toml")
    parser.add_argument("--no-f32", action="store_true", help="make no copy in float32")
    given = parser.parse_args()

    from persona_studies.ask import models, planner, registry, weights
    from persona_studies.ask.backends import Request
    from persona_studies.ask.backends import llama_cpp as backend
    from persona_studies.paths import Project

    project = Project.find(Path(__file__).parent)
    model = models.load(project, given.model, precision="file")
    assert isinstance(model, backend.LlamaCpp)
    made: dict[str, Any] = {}
    for kind in OPTIONS:
        # Number 10000 and above: texts for warming up, which no measured cell shares a start with.
        cells = grid(kind, given.personas, given.items, lambda text: len(model.tokenize(text)))
        warm = grid(kind, 2, 1, lambda text: len(model.tokenize(text)), first=10_000)
        for cell in cells + warm:
            request = Request(kind, cell["system"], "", cell["user"], tuple(cell["options"]))
            prompt = planner.tokenise(
                request, model.chat, lambda t, special: model.tokenize(t, special=special), model=model.info.name
            )
            cell["prompt"] = "".join(model.chat.render(request.system, request.shared, request.user))
            cell["tokens"] = prompt.whole
            cell["prefix"] = len(prompt.prefix)
            cell["option_tokens"] = prompt.options
            cell["logical"] = prompt.size().logical
        made[kind] = {"cells": cells, "warm": warm}
    model.close()
    entry = registry.load(project)[given.model]
    made["file"] = str(weights.fetch(given.model, entry))
    # Converted now, so that no engine's loading time contains it; loading checks the copy.
    f32 = "" if given.no_f32 else str(backend._converted(Path(made["file"]), entry.sha256, "f32"))
    made["f32"] = f32
    made |= {"sha256": entry.sha256, "persona_tokens": PERSONA_TOKENS, "item_tokens": ITEM_TOKENS}
    given.out.write_text(json.dumps(made))


if __name__ == "__main__":
    main()
