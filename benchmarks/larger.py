"""A larger model as filed beside lm-evaluation-harness and llama-cpp-python: same cells, one run.

    python benchmarks/larger.py             # about an hour of one core, 8 GB of disk, 10 GB of memory
    python benchmarks/bench.py --tables     # rewrite the generated parts of README.md

Everything is measured twice, alone and beside a loop that uses a core; one thread per engine, as ``record`` asks.
What else ran on the machine is written down with ``--others``. A run that was interrupted continues. ``--beside``
measures one half alone, and keeps the other as the file has it.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import subprocess
import sys
from pathlib import Path

import bench
import pandas as pd

from persona_studies.paths import Project

TARGET = bench.RESULTS / "larger.csv"
FILED = {"precision": "file", "schedule": "canonical"}
ENGINES = {
    "own": bench.Engine("this engine, canonical, as filed", "this_engine", FILED, whole=True),
    "completions": bench.Engine(
        "llama-cpp-python, `create_completion(logprobs=)`, as filed",
        "completions",
        {"weights": "file"},
        single=("cloze",),
    ),
    "harness": bench.Engine("lm-evaluation-harness, batch 1, f32", "harness", {"batch": 1}, peer=True),
    "prefill": bench.Engine(
        "llama.cpp, one long prefill, as filed", "long_prefill", least={"letter": 4, "cloze": 4}
    ),
}
HALVES = ("nothing", "a busy process")
KEPT = [
    "cells",
    *(f"{name}{part}" for name in ("evaluations_per_s", "times_slower") for part in ("", "_low", "_high")),
    "computed_tokens_per_s",
    "peak_mb",
]


def table(rounds: pd.DataFrame, beside: str) -> pd.DataFrame:
    """Return one row per workload and engine, as ``larger.csv`` keeps it."""
    summary = (
        bench.summarise(rounds, "own")
        .rename(columns={"engine": "role"})
        .reindex(columns=["role", "workload", "status", "reason", *KEPT])
    )
    summary.insert(0, "beside", beside)
    summary.insert(2, "engine", [ENGINES[role].title for role in summary["role"]])
    # A prefill answers nothing: its cells a second mean nothing.
    summary["answers"] = summary["role"] != "prefill"
    return summary.sort_values("workload", ascending=False, kind="stable")


def main() -> int:
    """Measure and write ``larger.csv``; 1 when an engine failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="qwen2.5-coder-1.5b-instruct", help="a GGUF model of data/models.toml")
    parser.add_argument("--personas", type=int, default=2)
    parser.add_argument("--items", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="about how long a peer answers in one round")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds after which a process has failed")
    parser.add_argument("--peers-python", type=Path, help="an interpreter with requirements.txt installed")
    parser.add_argument("--beside", choices=HALVES, help="measure this half alone")
    parser.add_argument("--others", default="nothing", help="what else runs on the machine")
    given = parser.parse_args()

    build = Project.find(bench.HERE).build
    folder = build / "bench" / f"larger-{given.model}"
    folder.mkdir(parents=True, exist_ok=True)
    python, unavailable = bench.peers(given.peers_python, build)
    made = bench.texts(folder, given.personas, given.items, 1, given.limit, given.model, "--no-f32")
    if made is None:
        return 1
    weights, why = (
        bench.converted(build, folder, made, python, 1, given.limit) if not unavailable else (folder, None)
    )
    run = bench.Run(
        folder,
        made,
        {False: Path(sys.executable), True: python},
        unavailable or why,
        weights,
        1,
        given.limit,
        ENGINES,
    )
    facts = {
        "day": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "model": given.model,
        "cpu": bench.processor(),
        "cores": os.cpu_count(),
        "rounds": given.rounds,
        "others": given.others,
    }
    parts = {}
    if given.beside and TARGET.is_file():
        parts = {str(half): rows for half, rows in pd.read_csv(TARGET).groupby("beside")}
    for beside in [given.beside] if given.beside else HALVES:
        run.folder = folder / beside.replace(" ", "-")
        run.folder.mkdir(exist_ok=True)
        noise = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if beside != "nothing" else None
        try:
            rounds = bench.measure(run, list(ENGINES), given.personas, given.items, given.rounds, given.seconds)
        finally:
            if noise is not None:
                noise.kill()
                noise.wait()
        parts[beside] = table(rounds, beside).assign(**facts)
        # At once: the second half takes as long again, and may be stopped.
        found = pd.concat([parts[half] for half in HALVES if half in parts], ignore_index=True)
        found.to_csv(TARGET, index=False, lineterminator="\n", encoding="utf-8", float_format="%.6g")
    failed = bool((found["status"] == "failed").any())
    if not failed:
        shutil.rmtree(folder)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
