"""What every engine's process does: load, warm up, answer, report. Standard library only.

It is started as ``python peers/ENGINE.py JOB ANSWER``, two JSON files. The job holds::

    workload   letter or cloze
    arguments  of this engine
    threads    CPU threads
    file, f32  GGUF files: as filed, and converted
    weights    folder with the same weights for transformers (None when that failed)
    cells      see workloads.py
    warm       two cells that share nothing with the others, or none
    parts      lists of places of cells, each answered and measured by itself, in this order
    started    monotonic clock when the process was started
    seconds    None, or how long a part may take: it is then cut to as many items per persona as fit
    least      fewest items per persona of a part that is cut

The peak of memory is that of the process so far, so later parts show what they need in addition.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

Cell = dict[str, Any]


class Engine(Protocol):
    """A loaded model.

    ``computed`` counts the tokens that went through it, padding included; None where it cannot be known.
    """

    computed: int | None

    def answer(self, cells: list[Cell]) -> list[list[float | None]]:
        """Return a log-probability per cell and option; None where the engine does not tell."""
        ...


def run(load: Callable[[dict[str, Any]], Engine]) -> None:
    """Do the job that the command line names."""
    job = json.loads(Path(sys.argv[1]).read_text())
    engine = load(job)
    loaded = time.monotonic()
    took = 0.0
    for cell in job["warm"]:
        before = time.monotonic()
        engine.answer([cell])
        took = time.monotonic() - before
        if took > 2:
            break
    parts = []
    for places in job["parts"]:
        cells = [job["cells"][place] for place in places]
        if job["seconds"] is not None:
            cells = fitting(cells, job["seconds"], took, job["least"])
        counted = engine.computed
        before = time.monotonic()
        answers = engine.answer(cells)
        after = time.monotonic()
        computed = None if counted is None or engine.computed is None else engine.computed - counted
        part = {
            "cells": len(cells),
            "run_s": after - before,
            "logical_tokens": sum(cell["logical"] for cell in cells),
            "computed_tokens": computed,
            "peak_mb": peak_mb(),
            "answers": [
                {"persona": cell["persona"], "item": cell["item"], "logprob": answer}
                for cell, answer in zip(cells, answers, strict=True)
            ],
        }
        parts.append(part)
    Path(sys.argv[2]).write_text(json.dumps({"load_s": loaded - job["started"], "warm_s": took, "parts": parts}))


def fitting(cells: list[Cell], seconds: float, each: float, least: int) -> list[Cell]:
    """Return the cells of as many items per persona as fit into a time, the same items for every persona."""
    personas = len({cell["persona"] for cell in cells})
    items = max(int(seconds / each / personas), least, 1)
    first = sorted({cell["item"] for cell in cells})[:items]
    return [cell for cell in cells if cell["item"] in first]


def peak_mb() -> float:
    """Return the largest resident memory of this process so far, in MB (10**6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kilobytes on Linux, bytes on macOS.
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
