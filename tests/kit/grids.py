"""Small grids of cells, what a simulated model answers to them, and what was packed."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from persona_studies.ask import packing, recording
from persona_studies.ask.backends import Request
from persona_studies.design.parameters import Parameters
from persona_studies.design.plan import combine, measure, text_hash
from persona_studies.paths import Project
from tests.kit.simulated import SimulatedBackend


class WithMeasure(Parameters):
    """Parameters that choose a measure."""

    measure: str


def conditions() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "condition": ["none", "warm"],
            "system": [None, "You are warm."],
            "description": [None, "The person is warm."],
            "condition_hash": [text_hash(None), text_hash("You are warm.")],
        }
    ).astype(object)


def items(*texts: str | None) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "item": [f"i{n}" for n in range(len(texts))],
            "item_hash": [text_hash(text) for text in texts],
            "text": pd.Series(texts, dtype=object),
        }
    )


def templates(user: str = "I say that {text}.", shared: str = "") -> pd.DataFrame:
    return pd.DataFrame({"template": ["t"], "shared": [shared], "user": [user]})


LABELS = ["yes", "no"]


def answer(request: Request) -> tuple[float, ...]:
    rng = random.Random(f"{request.system}{request.user}")
    return tuple(float(np.float32(-rng.random())) for _ in request.options)


def small_plan(n: int = 6) -> pd.DataFrame:
    return _small_plan(n).copy()


@cache
def _small_plan(n: int) -> pd.DataFrame:
    texts = [f"claim {i}" for i in range(n)]
    return combine(
        [
            measure(
                "score",
                "cloze",
                conditions=conditions(),
                items=items(*texts),
                templates=templates(),
                options=LABELS,
            ),
            measure(
                "talk", "text", conditions=conditions(), items=items(*texts), templates=templates(), max_tokens=4
            ),
        ]
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


def packed(project: Project, plan: pd.DataFrame) -> dict[str, bytes]:
    """Pack what a simulated model has answered, and return the files."""
    return contents(packing.pack(project, "toy", plan, "simulated"))


def straight(root: Path, plan: pd.DataFrame) -> dict[str, bytes]:
    """Return the files of a recording that was made in one go, by one process."""
    recording.record(Project(root), "toy", plan, SimulatedBackend(answer))
    return packed(Project(root), plan)
