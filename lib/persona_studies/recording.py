"""Record a model's responses to a plan: resumable, then packed into the committed form."""

from __future__ import annotations

import datetime
import hashlib
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from persona_studies import planner, responses
from persona_studies.backends import Backend, Request
from persona_studies.errors import ResponsesError
from persona_studies.paths import Project

WARM_UP = 12


@dataclass(frozen=True)
class Progress:
    """How far a recording is.

    Attributes:
        planned: Cells of the plan.
        recorded: Cells that have a response.
        seconds: Time spent in this sitting.
    """

    planned: int
    recorded: int
    seconds: float

    @property
    def complete(self) -> bool:
        return self.recorded == self.planned


def folder(project: Project, study: str, model: str) -> Path:
    """Return where the log of a recording lies."""
    return project.recordings / study / model


def pending(plan: pd.DataFrame, log: Path) -> pd.DataFrame:
    """Return the cells of a plan that a log holds no response for."""
    done = {responses.cell_key(row) for row in responses.read_logs(log)}
    keys = plan[responses.KEY].itertuples(index=False, name=None)
    return plan[[key not in done for key in keys]]


def estimate(plan: pd.DataFrame, backend: Backend) -> pd.DataFrame:
    """Time a few cells of every measure and extrapolate.

    Nothing is stored. The estimate ignores what neighbouring cells share beyond the first, so it errs on
    the long side.

    Returns:
        One row per measure: ``measure, cells, seconds_per_cell, hours``.
    """
    rows = []
    for measure, cells in plan.groupby("measure", sort=False):
        # Neighbours of one condition, as most cells are recorded.
        sample = cells[cells["condition"] == cells["condition"].iloc[-1]].tail(WARM_UP)
        requests = [_request(cell) for cell in sample.to_dict("records")]
        started = time.perf_counter()
        for _ in backend.respond(requests):
            pass
        each = (time.perf_counter() - started) / len(sample)
        rows.append(
            {
                "measure": measure,
                "cells": len(cells),
                "seconds_per_cell": each,
                "hours": each * len(cells) / 3600,
            }
        )
    return pd.DataFrame(rows)


def record(
    project: Project,
    study: str,
    plan: pd.DataFrame,
    backend: Backend,
    *,
    shard: tuple[int, int] = (1, 1),
    limit: int | None = None,
) -> Progress:
    """Ask every cell that has no response yet and append the answers to the log.

    Every answer is on disk before the next question is asked, so an interruption at any moment costs at most
    the cell in flight.

    Args:
        project: Where the log lies.
        study: Name of the study.
        plan: Cells with their prompts.
        backend: The model.
        shard: ``(i, n)``: this process takes every n-th condition, starting with the i-th.
        limit: Ask at most so many cells in this sitting.

    Raises:
        ResponsesError: the plan holds no texts, the log is damaged, another process writes the same shard,
            or the log was recorded with another model or schedule.
    """
    textless = plan["user"].isna() | plan["shared"].isna()
    if textless.any():
        first = plan.loc[textless, "measure"].iloc[0]
        raise ResponsesError(
            f"{int(textless.sum())} cells have no text, first of measure {first}: their source is not at hand."
        )
    log = folder(project, study, backend.info.name)
    log.mkdir(parents=True, exist_ok=True)
    _same_model(log / "model.json", backend)
    part, parts = shard
    lock = FileLock(log / f"{part}-of-{parts}.lock")
    try:
        with lock.acquire(timeout=0):
            # Shares are cut from the whole plan: what is pending changes while other shards record.
            mine = plan[pd.factorize(plan["condition"])[0] % parts == part - 1]
            # Cells that share a prefix are neighbours, so that each prefix is computed once.
            order = planner.order(pending(mine, log))
            cells = order.head(limit) if limit is not None else order
            started = time.perf_counter()
            log_file = responses.Log(log / f"{part}-of-{parts}.jsonl")
            try:
                rows = cells.to_dict("records")
                answers = backend.respond(_request(cell) for cell in rows)
                for place, answer in tqdm(
                    answers, total=len(rows), unit="cell", desc=study, disable=not sys.stderr.isatty()
                ):
                    log_file.append({str(k): v for k, v in rows[place].items()}, answer)
            finally:
                log_file.close()
    except Timeout as error:
        raise ResponsesError(f"Another process is recording shard {part}/{parts} into {log}.") from error
    left = len(pending(plan, log))
    return Progress(len(plan), len(plan) - left, time.perf_counter() - started)


def pack(project: Project, study: str, plan: pd.DataFrame, model: str) -> Path:
    """Write a complete log as Parquet with its record, and return the folder.

    Raises:
        ResponsesError: a planned cell is not recorded.
    """
    log = folder(project, study, model)
    target = project.responses(study, model)
    counts = responses.write(responses.read_logs(log), plan, target)
    sittings = json.loads((log / "model.json").read_text())
    record = {
        "study": study,
        "model": sittings["model"],
        "recorded": {"first": sittings["started"], "last": _today()},
        "decoding": "log-probabilities and greedy text; no sampling, no seed",
        "cells": sum(counts.values()),
        "files": {
            f"{name}.parquet": {
                "rows": rows,
                "sha256": hashlib.sha256((target / f"{name}.parquet").read_bytes()).hexdigest(),
            }
            for name, rows in counts.items()
        },
    }
    (target / "record.json").write_text(json.dumps(record, indent=1) + "\n")
    return target


def _request(cell: dict[Any, Any]) -> Request:
    return Request(
        kind=cell["kind"],
        system=cell["system"],
        shared=cell["shared"],
        user=cell["user"],
        options=tuple(cell["options"] or ()),
        max_tokens=cell["max_tokens"],
    )


def _same_model(path: Path, backend: Backend) -> None:
    """Write down what records here, or refuse when it differs from what recorded before."""
    info = asdict(backend.info)
    if path.exists():
        before = json.loads(path.read_text())["model"]
        if before != info:
            changed = [name for name in info if before.get(name) != info[name]]
            raise ResponsesError(
                f"{path.parent} was recorded with another {', '.join(changed)} "
                f"({', '.join(str(before.get(name)) for name in changed)}); "
                "a recording keeps to one. Move that folder away to start anew."
            )
        return
    path.write_text(json.dumps({"model": info, "started": _today()}, indent=1) + "\n")


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()
