"""Ask a model every cell of a plan, and keep every answer: a recording goes on where it was interrupted."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from persona_studies.ask import logs, models, planner, recorded, schema
from persona_studies.ask.backends import Backend, ModelInfo, Request
from persona_studies.ask.first_cells import FirstCells
from persona_studies.errors import BudgetSpent, ResponsesError
from persona_studies.paths import Project

FEED = 4_096


@dataclass(frozen=True)
class Progress:
    """How far a recording is.

    Attributes:
        planned: Cells of the plan.
        recorded: Cells that have an answer; a failed one counts only where it is left so.
        failed: Cells that failed: the model refuses them, or the endpoint gave nothing that is an answer.
        mine: Cells of this process's share that have no answer.
        seconds: Time spent in this sitting.
        stopped: The cap that ended this sitting, if one did.
    """

    planned: int
    recorded: int
    failed: int
    mine: int
    seconds: float
    stopped: str | None = None

    @property
    def complete(self) -> bool:
        return self.recorded == self.planned


def load(
    project: Project, study: str, model: str, *, name: str | None = None, out: Path | None = None, **how: Any
) -> Backend:
    """Load a model to record with, in the precision of what is recorded under its name already.

    Args:
        model: As :mod:`persona_studies.ask.models` describes.
        name: Name to record under; None derives it from the model's.
        out: Folder for the answers, as :func:`record` takes it.
        how: Passed to :func:`persona_studies.ask.models.load`.

    Raises:
        BackendError: the model cannot be loaded.
        ResponsesError: what is recorded under that name is damaged, or the place cannot be written.
    """
    called = models.known(project, model, name)
    check_place(project, study, called, out)
    before = next((facts["model"] for _, facts in recorded.begun(project, study, called, out)), None)
    return models.load(project, model, name=name, recorded=before, **how)


def check_place(project: Project, study: str, name: str, out: Path | None = None) -> None:
    """Refuse a place for the answers that cannot be written, before a model is loaded or asked.

    Raises:
        ResponsesError: it is a file, or a folder that may not be written.
    """
    place = logs.folder(project, study, name, out)
    there = next(path for path in (place, *place.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "may not be written" if there.is_dir() else "is a file"
        raise ResponsesError(f"Answers cannot go to {place}, since {there} {why}; name another folder with --out.")


def check_sitting(
    project: Project, study: str, plan: pd.DataFrame, backend: Backend, out: Path | None = None
) -> dict[str, Any]:
    """Return what is to be kept of a sitting, see :func:`persona_studies.ask.logs.together`.

    Raises:
        ResponsesError: its answers would be to other calls than those recorded under its name, or of another model.
    """
    sitting: dict[str, Any] = {}
    # The last digits of a model that runs here depend on the processor's instruction set.
    if found := getattr(backend, "instructions", None):
        sitting["instructions"] = [found]
    if served := getattr(backend, "served", None):
        sitting["served"] = served
    if (settings := getattr(backend, "settings", None)) is not None:
        sitting["settings"] = settings({*plan["kind"]})
    recorded.check_sitting(project, study, backend.info.name, sitting, out)
    return sitting


def pending(
    project: Project,
    study: str,
    plan: pd.DataFrame,
    info: ModelInfo,
    out: Path | None = None,
    *,
    reask: bool = True,
) -> pd.DataFrame:
    """Return the cells of a plan that have no response, neither in the logs nor in the committed recording.

    Args:
        out: Folder of logs beside the project's own.
        reask: Whether a failed cell counts as one without a response.

    Raises:
        ResponsesError: a log is damaged, or what is recorded under this name came from another model.
    """
    return _without(plan, recorded.answers(project, study, info, out), reask)


def _without(plan: pd.DataFrame, rows: pd.DataFrame, reask: bool) -> pd.DataFrame:
    """Return the cells of a plan that rows do not answer."""
    answers = rows[rows["finish"] != "failed"] if reask else rows
    known = schema.as_recorded(plan, answers)
    return plan[~np.isin(schema.digest(known), schema.digest(answers))]


def record(
    project: Project,
    study: str,
    plan: pd.DataFrame,
    backend: Backend,
    *,
    shard: tuple[int, int] = (1, 1),
    limit: int | None = None,
    hours: float | None = None,
    out: Path | None = None,
    reask: bool = True,
) -> Progress:
    """Ask every cell that has no response yet and append the answers to the log.

    Every answer is on disk before the next one is awaited, so an interruption at any moment costs at most what
    is in flight. Cells that share the start of their prompt are asked one after the other.

    Args:
        plan: Cells with their prompts.
        shard: ``(i, n)``: this process takes every n-th condition, starting with the i-th.
        limit: Ask at most so many cells in this sitting.
        hours: Stop after so many hours.
        out: Folder for the logs instead of the project's own.
        reask: Ask cells again that failed; otherwise they stay failed and count as recorded.

    Raises:
        ResponsesError: the plan holds no texts, a log is damaged or cannot be written, another process writes
            the same shard, or what is recorded under this name came from another model or schedule.
        BackendError: the model does not answer, or its first answers to a measure say nothing; what it answered
            before is kept.
    """
    _texts_there(plan)
    log = logs.folder(project, study, backend.info.name, out)
    part, parts = shard
    # Shares are cut from the whole plan: what is pending changes while other shards record.
    mine = plan[pd.factorize(plan["condition"])[0] % parts == part - 1]
    recorded.check_model(project, study, backend.info, out)
    logs.make(log)
    started, stopped = time.perf_counter(), None
    try:
        with FileLock(log / f"{part}-of-{parts}.lock").acquire(timeout=0):
            logs.sign(log, backend.info, sitting=check_sitting(project, study, mine, backend, out))
            before = recorded.answers(project, study, backend.info, out)
            cells = planner.order(_without(mine, before, reask))
            if limit is not None and limit < len(cells):
                cells, stopped = cells.head(limit), f"the cap of {limit:,} cells"
            answered = {*before.loc[before["finish"] != "failed", "measure"]}
            store = FirstCells(logs.Log(log / f"{part}-of-{parts}.jsonl"), answered, failures_stay=not reask)
            stopped = _ask(cells, backend, store, hours, f"{study} {part}/{parts}") or stopped
    except Timeout as error:
        raise ResponsesError(
            f"Another process is recording shard {part}/{parts} into {log}. Wait for it or stop it; "
            "several at once take a share each: --shard 1/2 and --shard 2/2."
        ) from error
    done = recorded.answers(project, study, backend.info, out)
    return _progress(plan, mine, done, reask, seconds=time.perf_counter() - started, stopped=stopped)


def _progress(plan: pd.DataFrame, mine: pd.DataFrame, done: pd.DataFrame, reask: bool, **how: Any) -> Progress:
    """Count the cells of a plan, and of this process's share, that have an answer or failed."""
    known = np.isin(schema.digest(done), schema.digest(schema.as_recorded(plan, done)))
    return Progress(
        planned=len(plan),
        recorded=len(plan) - len(_without(plan, done, reask)),
        failed=int((done["finish"] == "failed")[known].sum()),
        mine=len(_without(mine, done, reask)),
        **how,
    )


def _texts_there(plan: pd.DataFrame) -> None:
    """Refuse a plan some of whose cells have no text."""
    textless = plan["user"].isna() | plan["shared"].isna() | (plan["options"].isna() & (plan["kind"] != "text"))
    if textless.any():
        first = plan.loc[textless, "measure"].iloc[0]
        raise ResponsesError(
            f"{int(textless.sum())} cells have no text, first of measure {first}: their source is not at hand."
        )


def _ask(cells: pd.DataFrame, backend: Backend, store: FirstCells, hours: float | None, title: str) -> str | None:
    """Ask cells one after the other and store each answer; return the cap that ended this, if one did."""
    started = time.perf_counter()
    waiting: dict[int, dict[str, Any]] = {}
    answers = backend.respond(_feed(cells, waiting))
    bar = tqdm(total=len(cells), unit="cell", desc=title, disable=not _watched())
    try:
        for place, answer in answers:
            store.append(waiting.pop(place), answer)
            bar.update()
            if hours is not None and time.perf_counter() - started > hours * 3600:
                return f"the cap of {hours:g} hours"
        store.finish()
    except BudgetSpent as spent:
        return str(spent)
    finally:
        bar.close()
        store.close()
        if hasattr(answers, "close"):
            answers.close()
    return None


def requests(cells: pd.DataFrame) -> Iterator[Request]:
    """Yield the cells of a plan, with their texts, as a model is asked them."""
    return _feed(cells, {})


def _feed(cells: pd.DataFrame, waiting: dict[int, dict[str, Any]]) -> Iterator[Request]:
    """Yield requests and keep which cell each one was, in pieces so that a long plan is not copied."""
    place = 0
    for start in range(0, len(cells), FEED):
        for cell in cells.iloc[start : start + FEED].to_dict("records"):
            waiting[place] = {str(name): value for name, value in cell.items()}
            place += 1
            yield Request(
                kind=cell["kind"],
                system=cell["system"] if isinstance(cell["system"], str) else None,
                shared=cell["shared"],
                user=cell["user"],
                options=tuple(cell["options"]) if cell["options"] is not None else (),
                max_tokens=cell["max_tokens"],
            )


def _watched() -> bool:
    """Return whether somebody sees a progress bar: a terminal or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules
