"""Threads against processes of llama.cpp, on an idle machine and beside a busy process.

    python benchmarks/processes.py                # measure: a few minutes, needs the extra `live`
    python benchmarks/bench.py --tables           # rewrite the generated parts of the README

Each way answers the same requests in turn, several rounds; its rate is the median. The busy process is a loop that
uses one core. What else ran on the machine is written down with ``--others``, beside the load average.
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import os
import time
from functools import partial
from pathlib import Path
from statistics import median

import pandas as pd

from persona_studies.ask import models
from persona_studies.ask.backends import Backend, Request
from persona_studies.ask.workers import Workers
from persona_studies.paths import Project

HERE = Path(__file__).parent
PROJECT = Project(HERE.parent)
TARGET = HERE / "results" / "processes.csv"
OPTIONS = ("I agree.", "I disagree.", "I completely agree.", "I completely disagree.")


def requests(cells: int) -> list[Request]:
    """Return requests as a study asks them: a persona of about 100 tokens, claims of about 40 behind it."""
    persona = "You are someone who {} and is " + "calm and kind to people who come by, " * 10
    claim = "I think that towns need more benches, more trees and more shade in number {}. Don't you agree with me?"
    return [
        Request("cloze", persona.format(f"keeps house {i // 16}"), "", claim.format(i), OPTIONS)
        for i in range(cells)
    ]


def busy() -> None:
    while True:
        pass


def rate(backend: Backend, asked: list[Request]) -> tuple[float, float]:
    """Return evaluations and computed tokens a second."""
    started = time.perf_counter()
    computed = sum(answer.computed_tokens for _, answer in backend.respond(asked))
    seconds = time.perf_counter() - started
    return len(asked) / seconds, computed / seconds


def measure(model: str, precision: str, cells: int, rounds: int) -> pd.DataFrame:
    """Return one row per way and company: ``beside, way, evaluations_per_second, tokens_per_second, load``."""
    load = partial(models.load, PROJECT, model, precision=precision)
    rows = []
    for beside in ("nothing", "a busy process"):
        noise = multiprocessing.get_context("spawn").Process(target=busy, daemon=True)
        if beside != "nothing":
            noise.start()
        found: dict[str, list[tuple[float, float]]] = {}
        for _ in range(rounds):
            for way in ("1 process of 2 threads", "2 processes of 1 thread", "1 process of 1 thread"):
                backend: Backend = load(threads=2 if "2 threads" in way else 1)
                if way.startswith("2 processes"):
                    backend = Workers(backend, load, 2)
                found.setdefault(way, []).append(rate(backend, requests(cells)))
                backend.close()
        for way, rates in found.items():
            rows.append(
                {
                    "day": datetime.datetime.now(datetime.UTC).date().isoformat(),
                    "model": model,
                    "precision": precision,
                    "beside": beside,
                    "way": way,
                    "evaluations_per_second": median(one for one, _ in rates),
                    "tokens_per_second": median(two for _, two in rates),
                    "rounds": rounds,
                    "cells": cells,
                    "load": os.getloadavg()[0],
                    "cores": os.cpu_count(),
                }
            )
        if beside != "nothing":
            noise.terminate()
            noise.join()
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--cells", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--others", default="nothing", help="What else runs on the machine.")
    given = parser.parse_args()
    rows = measure(given.model, given.precision, given.cells, given.rounds)
    rows.assign(others=given.others).to_csv(TARGET, index=False, lineterminator="\n", float_format="%.6g")


if __name__ == "__main__":
    main()
