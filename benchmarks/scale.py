"""Show that plan, store and analysis of the sycophancy study hold a full grid of many models in time and memory.

The grid is the study's own at its largest: 275 personas and the controls, 330 statements, asserted and
unattributed, under two sets of labels, and the questionnaires. The responses are made up: random numbers with a
planted slope, written through the response store as a recording is. No model is asked, nothing is said about any,
and nothing of it is committed but times and sizes. One made-up recording is stored and then stands under the names
of all models: reading and analysing it costs the same each time.

Models are taken one after the other, so memory does not depend on their number; the study has no step that needs
two at once. Storing and analysing run in a process each, whose largest resident memory so far is noted after every
stage.

    python benchmarks/scale.py                            # 13 models: some minutes
    python benchmarks/scale.py --models 1 --out build/look   # a look
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from persona_studies.ask import responses, schema
from persona_studies.ask.backends import ModelInfo
from persona_studies.design import protocol as protocols
from persona_studies.paths import Project
from persona_studies.reproduce import ready

HERE = Path(__file__).parent
RESULTS = HERE / "results"
STUDY = "sycophancy"
COLUMNS = {
    "model": "number of the made-up model; 0 for what is done once",
    "stage": "what was done",
    "rows": "cells that it was done to",
    "seconds": "wall clock",
    "cpu_seconds": "of the process",
    "peak_mb": "largest resident memory of the process so far, MB",
    "stored_mb": "size of the Parquet files, MB",
    "date": "of the run",
    "machine": "processor, cores, memory, load average before the run",
}


@dataclass
class Grid:
    """The study at its largest."""

    study: ModuleType
    project: Project
    protocol: protocols.Protocol
    parameters: Any
    people: pd.DataFrame
    asked: pd.DataFrame
    plan: pd.DataFrame


@dataclass
class Stages:
    """Time and memory of what a process does."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def measure(self, model: int, stage: str, do: Callable[[], Any], size: Callable[[Any], int] = len) -> Any:
        """Do something and note what it took."""
        began, computed = time.perf_counter(), time.process_time()
        done = do()
        row = {
            "model": model,
            "stage": stage,
            "rows": size(done),
            "seconds": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - computed,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        }
        self.rows.append(row)
        sys.stdout.write(f"model {model}: {stage}, {row['seconds']:.1f} s, {row['peak_mb']:,.0f} MB\n")
        sys.stdout.flush()
        return done


def largest(project: Project, **smaller: Any) -> Grid:
    """Return the largest grid that the study's parameters allow, or a smaller one."""
    study = ready.study_module(project, STUDY)
    protocol = protocols.load(project.protocol(STUDY))
    parameters = study.Parameters(
        **{
            "models": ("made-up",),
            "live_hours": 0.0,
            "personas": 275,
            "topics": 33,
            "claims_per_topic": 5,
            "parser": "anchored",
            "alpha": 0.05,
            "correction": "holm",
            "confidence": 0.95,
            "replicates": 10_000,
            "seed": 1,
        }
        | smaller
    )
    return Grid(
        study,
        project,
        protocol,
        parameters,
        study.conditions(project, protocol, parameters.personas),
        study.claims(project, parameters.topics, parameters.claims_per_topic),
        study.plan(project, protocol, parameters),
    )


def made_up(grid: Grid) -> pd.DataFrame:
    """Return a made-up response for every cell, with the store's columns.

    Log-odds of agreeing rise by a tenth of a nat per level when a claim is asserted, and not at all otherwise.
    Everything else is noise.
    """
    rng = np.random.default_rng(1)
    level = (grid.people.set_index("condition")["level"].astype(float) - 3).fillna(0.0)
    parts = []
    for measure, cells in grid.plan.groupby("measure", sort=False):
        n, own = len(cells), level.loc[cells["condition"]].to_numpy()
        width = len(grid.protocol.measures[str(measure)].options)
        logprob = np.log(0.8 * rng.dirichlet(np.ones(max(width, 1)), n))[:, :width]
        if measure in grid.study.LABELS:
            odds = 0.1 * own * cells["template"].eq("think") + 0.25 * rng.normal(size=n)
            odds = odds.where(cells["template"] != "neutral", 0.0)
            agrees = ["DISAGREE" not in label for label in grid.protocol.measures[str(measure)].options]
            shown = [np.roll(agrees, -order) for order in cells["order"]]
            logprob = np.where(shown, odds.to_numpy()[:, None], 0.0) - 2
        tokens = 2
        counts = np.full(logprob.shape, tokens, dtype=np.uint16)
        text = measure == "reply"
        keys = cells[schema.KEY].astype({"order": "int16", "repeat": "int16"})
        parts.append(
            keys.assign(
                request=[f"{number:016x}" for number in schema.digest(keys)],
                finish="stop" if text else "scored",
                logprob=list(logprob.astype(np.float32)),
                n_tokens=list(counts),
                n_chars=list(counts * 4),
                option_mass=rng.random(n, dtype=np.float32) if not text else np.float32(np.nan),
                entropy=3 + rng.random(n, dtype=np.float32),
                top_token=rng.choice(["I", "It", "Yes", "The"], n),
                text=rng.choice(["AGREE.", "DISAGREE.", "Well."], n) if text else None,
                prompt_tokens=rng.integers(60, 120, n, dtype=np.uint32),
                computed_tokens=rng.integers(20, 40, n, dtype=np.uint32),
            )
        )
    rows = pd.concat(parts, ignore_index=True)
    return rows.assign(checksum=schema.checksums(rows))


def store(grid: Grid, root: Path) -> Path:
    """Write the made-up recording with its record.json, as a real one is packed."""
    folder = Project(root).responses(STUDY, "made-up-1")
    counts = responses.write(made_up(grid), grid.plan, folder)
    files = {
        f"{name}.parquet": {
            "rows": count,
            "sha256": hashlib.sha256((folder / f"{name}.parquet").read_bytes()).hexdigest(),
        }
        for name, count in counts.items()
    }
    info = ModelInfo("made-up", "0" * 64, "made up", "0", "none", "none")
    (folder / "record.json").write_text(json.dumps({"model": asdict(info), "files": files}))
    return folder


def analysis(grid: Grid, recorded: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return what the notebook computes from one model's responses: gates, tests, verdicts, other readings."""
    # Found beside the design, as in a kernel that runs in studies/.
    sys.path.insert(0, str(grid.project.studies))
    from sycophancy import analysis, robustness, valence

    how = grid.parameters.settings
    found = analysis.analyse(grid.project, grid.protocol, recorded, grid.asked, grid.people, how)
    persona = valence.load(grid.project, grid.people)
    return {
        "gates": found.gate,
        "personas": found.tests,
        "verdicts": analysis.judged(grid.protocol, {"made up": found}),
        "readings": robustness.readings(grid.protocol, found.scored, persona, how),
        "controls": robustness.controls(found.scored, grid.people, how),
        "reliability": robustness.reliability(found.scored, how),
    }


def precision(project: Project, measure: str = "*") -> pd.DataFrame:
    """Return what 16-bit log-probabilities would save and cost, on the committed recordings.

    Args:
        project: Holds the recordings.
        measure: The one to look at; all by default.

    Returns:
        ``study, model, measure, cells, mb, mb_16_bit`` and, in nats, ``largest_error``, ``largest_contrast_error``
        (after subtracting the mean over the options of a cell).
    """
    rows = []
    for path in sorted(project.data.glob(f"responses/*/*/{measure}.parquet")):
        table = pq.read_table(path, schema=schema.SCHEMA)
        values = table["logprob"].combine_chunks()
        exact = values.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
        if not len(exact):
            continue
        narrow = exact.astype(np.float16)
        cell = np.repeat(np.arange(len(values)), np.diff(values.offsets.to_numpy()))
        error = pd.Series(narrow.astype(np.float64) - exact)
        place = table.column_names.index("logprob")
        half = pa.ListArray.from_arrays(values.offsets, pa.array(narrow))
        with pa.BufferOutputStream() as buffer:
            pq.write_table(
                table.set_column(place, "logprob", half), buffer, compression="zstd", compression_level=19
            )
            size = buffer.getvalue().size
        rows.append(
            {
                "study": path.parts[-3],
                "model": path.parts[-2],
                "measure": path.stem,
                "cells": len(table),
                "mb": path.stat().st_size / 1e6,
                "mb_16_bit": size / 1e6,
                "largest_error": error.abs().max(),
                "largest_contrast_error": (error - error.groupby(cell).transform("mean")).abs().max(),
            }
        )
    return pd.DataFrame(rows)


def storing(root: Path, models: int, smaller: dict[str, Any]) -> list[dict[str, Any]]:
    """Write the made-up recording, and link it under the names of all models."""
    stages, project = Stages(), Project.find(HERE)
    grid = largest(project, **smaller)
    folder = stages.measure(1, "made up, checksums, stored", lambda: store(grid, root), lambda _: len(grid.plan))
    stages.rows[-1]["stored_mb"] = sum(path.stat().st_size for path in folder.glob("*.parquet")) / 1e6
    for model in range(2, models + 1):
        shutil.copytree(folder, folder.with_name(f"made-up-{model}"), copy_function=os.link)
    return stages.rows


def analysing(root: Path, models: int, smaller: dict[str, Any]) -> list[dict[str, Any]]:
    """Plan once; load and analyse every recording."""
    stages, project = Stages(), Project.find(HERE)
    grid = stages.measure(0, "plan", lambda: largest(project, **smaller), lambda grid: len(grid.plan))
    for model in range(1, models + 1):
        recorded = stages.measure(
            model,
            "loaded and matched with the plan",
            lambda model=model: responses.load(Project(root), STUDY, f"made-up-{model}", grid.plan),
        )
        stages.measure(
            model, "analysed", lambda recorded=recorded: analysis(grid, recorded), lambda _: len(grid.plan)
        )
        del recorded
    return stages.rows


def in_a_process(do: Callable[..., Any], *given: Any) -> Any:
    """Call a function in a fresh process, whose peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(do, *given).result()


def machine() -> str:
    """Return what the times depend on."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.is_file() else []
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    processor = names[0].partition(":")[2].strip() if names else "unknown processor"
    return f"{processor}, {os.cpu_count()} cores, {memory:.1f} GB, load average {os.getloadavg()[0]:.2f}"


def main() -> int:
    """Write ``scale.csv``, one row per model and stage, and ``precision.csv``, one row per recording."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=13)
    parser.add_argument("--personas", type=int, default=275)
    parser.add_argument("--claims", type=int, default=5, help="per topic")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    smaller = {"personas": given.personas, "claims_per_topic": given.claims}
    project = Project.find(HERE)
    root = project.build / "scale" / f"{given.personas}-{given.claims}"
    where = machine()
    shutil.rmtree(root, ignore_errors=True)
    rows = [row for do in (storing, analysing) for row in in_a_process(do, root, given.models, smaller)]
    table = pd.DataFrame(rows).assign(date=datetime.datetime.now(datetime.UTC).date().isoformat(), machine=where)
    given.out.mkdir(parents=True, exist_ok=True)
    for name, frame in (("scale", table.reindex(columns=list(COLUMNS))), ("precision", precision(project))):
        frame.to_csv(given.out / f"{name}.csv", index=False, lineterminator="\n", float_format="%.6g")
    sys.stdout.write(
        f"results are in {given.out}; python benchmarks/bench.py --tables writes them into README.md\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
