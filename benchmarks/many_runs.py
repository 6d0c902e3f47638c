"""Show that parameterised runs can be made one after the other without end: time and memory do not grow.

A study of three cells, made up for this, is run again and again in one process by the runner that `make study`
uses, each time with another seed: its kernel simulates a thousand numbers and writes one table. Before that, the
parameters of 1,000 such runs are checked and their folders named, as `persona-studies sweep --dry-run` does.

    python benchmarks/many_runs.py                  # 1,000 runs: about an hour on one idle core
    python benchmarks/many_runs.py --runs 20 --out build/look
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from nbformat.v4 import new_code_cell, new_notebook
from scale import machine

from persona_studies.paths import Project
from persona_studies.reproduce import ready, runs

RESULTS = Path(__file__).parent / "results"
NAMED = 1_000
MODULE = """
from pydantic import Field
from persona_studies.design import parameters

class Parameters(parameters.Parameters):
    seed: int = Field(ge=0, description="seed")
"""
CELLS = [
    "seed = 0  # seed",
    "from toy.design import Parameters\n\nParameters.from_namespace(globals())",
    """import os
from pathlib import Path

import numpy as np
import pandas as pd

from persona_studies.analyse import tables

numbers = np.random.default_rng(seed).normal(size=1_000)
tables.save(pd.DataFrame({"mean": [numbers.mean()]}), Path(os.environ["PERSONA_STUDIES_OUT"]) / "mean.csv")""",
]
COLUMNS = {
    "stage": "`named`: parameters checked, folder named; `run`: executed",
    "done": "how many before and with this row",
    "seconds": "wall clock, per run since the row before",
    "cpu_seconds": "of this process and its kernels, per run since the row before",
    "memory_mb": "resident memory of this process now, MB",
    "kernel_peak_mb": "largest resident memory of any kernel so far, MB",
    "open_files": "of this process",
    "runs_mb": "size of all runs' folders, MB",
    "date": "of the measurement",
    "machine": "processor, cores, memory, load average before the runs",
}


def study(root: Path) -> Project:
    """Write the study of three cells."""
    project = Project(root)
    for place in (project.folder("toy"), project.items, project.published, root / "lib"):
        place.mkdir(parents=True)
    for file in (root / "pyproject.toml", root / "uv.lock", project.sources, project.protocol("toy")):
        file.touch()
    notebook = new_notebook(cells=[new_code_cell(source) for source in CELLS])
    notebook.cells[0].metadata["tags"] = ["parameters"]
    project.design("toy").write_text(MODULE)
    project.notebook("toy").write_text(json.dumps(notebook))
    return project


def cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def row(stage: str, done: int, n: int, began: tuple[float, float], project: Project) -> dict[str, Any]:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    sizes = [path.stat().st_size for path in project.runs.rglob("*") if path.is_file()]
    return {
        "stage": stage,
        "done": done,
        "seconds": (time.perf_counter() - began[0]) / n,
        "cpu_seconds": (cpu() - began[1]) / n,
        "memory_mb": pages * resource.getpagesize() / 1e6,
        "kernel_peak_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6,
        "open_files": len([*Path("/proc/self/fd").iterdir()]),
        "runs_mb": sum(sizes) / 1e6,
    }


def measure(project: Project, number: int, every: int) -> Iterator[dict[str, Any]]:
    """Name the folders of many runs, then make some; yield one row per ``every`` of them."""
    began = time.perf_counter(), cpu()
    folders = set()
    for seed in range(1, NAMED + 1):
        _, overrides = ready.prepare(project, "toy", [f"seed={seed}"])
        folders.add(runs.place(project, "toy", overrides))
    assert len(folders) == NAMED
    yield row("named", NAMED, NAMED, began, project)
    for first in range(1, number + 1, every):
        began = time.perf_counter(), cpu()
        last = min(first + every - 1, number)
        for seed in range(first, last + 1):
            made = runs.run(project, "toy", [f"seed={seed}"])
            assert made.fresh and made.folder in folders
        yield row("run", last, last - first + 1, began, project)
    means = {(folder / "mean.csv").read_text() for folder in project.runs.glob("toy/*") if folder.is_dir()}
    assert len(means) == number


def main() -> int:
    """Write ``many_runs.csv``, anew with every row: what was measured before an interruption is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--every", type=int, default=10, help="runs per row")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    root = Project.find(Path(__file__).parent).build / "many_runs"
    shutil.rmtree(root, ignore_errors=True)
    given.out.mkdir(parents=True, exist_ok=True)
    known = {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), "machine": machine()}
    rows = []
    for measured in measure(study(root), given.runs, given.every):
        rows.append(measured | known)
        table = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
        table.to_csv(given.out / "many_runs.csv", index=False, lineterminator="\n", float_format="%.6g")
        sys.stdout.write(f"{measured['stage']} {measured['done']}: {measured['seconds']:.2f} s each\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
