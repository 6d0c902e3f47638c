"""Record a model's responses to a plan: resumable, then packed into the committed form.

What is recorded elsewhere (another machine, a cluster's nodes) goes to a folder of its own and is taken in by
:func:`take_in`.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from persona_studies.ask import models, planner, responses
from persona_studies.ask.backends import Backend, ModelInfo, Request
from persona_studies.ask.first_cells import FirstCells
from persona_studies.errors import BudgetSpent, ParameterError, ResponsesError
from persona_studies.paths import Project, named

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
        project: Holds the recordings.
        study: Name of the study.
        model: As :mod:`persona_studies.ask.models` describes.
        name: Name to record under; None derives it from the model's.
        out: Folder for the answers, as :func:`record` takes it.
        how: Passed to :func:`persona_studies.ask.models.load`.

    Raises:
        BackendError: the model cannot be loaded.
        ResponsesError: what is recorded under that name is damaged.
    """
    called = models.known(project, model, name)
    before = next((facts for _, facts in _begun(project, study, called, out)), None)
    return models.load(project, model, name=name, recorded=before, **how)


def folder(project: Project, study: str, model: str, out: Path | None = None) -> Path:
    """Return where the logs of a recording lie: in the project, or below ``out``."""
    return (out or project.recordings) / named(study) / named(model)


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
        project: Where they lie.
        study: Name of the study.
        plan: Cells.
        info: The model.
        out: Folder of logs beside the project's own.
        reask: Whether a failed cell counts as one without a response.

    Raises:
        ResponsesError: a log is damaged, or what is recorded under this name came from another model.
    """
    return _without(plan, _recorded(project, study, info, out), reask)


def _without(plan: pd.DataFrame, rows: pd.DataFrame, reask: bool) -> pd.DataFrame:
    """Return the cells of a plan that rows do not answer."""
    answers = rows[rows["finish"] != "failed"] if reask else rows
    known = responses.as_recorded(plan, answers)
    return plan[~np.isin(responses.digest(known), responses.digest(answers))]


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
        project: Where the logs lie.
        study: Name of the study.
        plan: Cells with their prompts.
        backend: The model.
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
    textless = plan["user"].isna() | plan["shared"].isna() | (plan["options"].isna() & (plan["kind"] != "text"))
    if textless.any():
        first = plan.loc[textless, "measure"].iloc[0]
        raise ResponsesError(
            f"{int(textless.sum())} cells have no text, first of measure {first}: their source is not at hand."
        )
    log = folder(project, study, backend.info.name, out)
    part, parts = shard
    # Shares are cut from the whole plan: what is pending changes while other shards record.
    mine = plan[pd.factorize(plan["condition"])[0] % parts == part - 1]
    _same_model(project, study, backend.info, out)
    log.mkdir(parents=True, exist_ok=True)
    lock = FileLock(log / f"{part}-of-{parts}.lock")
    stopped = None
    try:
        with lock.acquire(timeout=0):
            _sign(log, backend.info, instructions=_instructions(backend))
            before = _recorded(project, study, backend.info, out)
            cells = planner.order(_without(mine, before, reask))
            started = time.perf_counter()
            if limit is not None and limit < len(cells):
                cells, stopped = cells.head(limit), f"the cap of {limit:,} cells"
            file = responses.Log(log / f"{part}-of-{parts}.jsonl")
            store = FirstCells(file, {*before.loc[before["finish"] != "failed", "measure"]})
            waiting: dict[int, dict[str, Any]] = {}
            answers = backend.respond(_feed(cells, waiting))
            bar = tqdm(total=len(cells), unit="cell", desc=f"{study} {part}/{parts}", disable=not _watched())
            try:
                for place, answer in answers:
                    store.append(waiting.pop(place), answer)
                    bar.update()
                    if hours is not None and time.perf_counter() - started > hours * 3600:
                        stopped = f"the cap of {hours:g} hours"
                        break
                else:
                    store.finish()
            except BudgetSpent as spent:
                stopped = str(spent)
            finally:
                bar.close()
                file.close()
                if hasattr(answers, "close"):
                    answers.close()
    except Timeout as error:
        raise ResponsesError(f"Another process is recording shard {part}/{parts} into {log}.") from error
    done = _recorded(project, study, backend.info, out)
    known = np.isin(responses.digest(done), responses.digest(responses.as_recorded(plan, done)))
    return Progress(
        planned=len(plan),
        recorded=len(plan) - len(_without(plan, done, reask)),
        failed=int((done["finish"] == "failed")[known].sum()),
        mine=len(_without(mine, done, reask)),
        seconds=time.perf_counter() - started,
        stopped=stopped,
    )


def pack(
    project: Project,
    study: str,
    plan: pd.DataFrame,
    model: str,
    *,
    failed: bool = False,
    partly: bool = False,
    asked_with: str = "",
) -> Path:
    """Write a recording as Parquet with its record, and return the folder.

    What was packed before stays, also where this plan is smaller. A recording that is packed in part goes on from
    there, in another checkout too; its record counts planned and recorded cells until it is complete.

    Args:
        project: Holds the logs, and receives the recording.
        study: Name of the study.
        plan: Cells that belong to the recording.
        model: Name of the recording.
        failed: Whether planned cells may have failed; the record then counts them.
        partly: Whether planned cells may be missing, or have failed.
        asked_with: Options of ``record`` that plan these cells, for the message that tells how to go on.

    Raises:
        ResponsesError: nothing is recorded, a cell was recorded twice with different answers, a planned cell is not
            recorded, or has failed.
    """
    log = folder(project, study, model)
    signed = _signed(log) or {}
    info = signed.get("model") or (responses.record_of(project.responses(study, model)) or {}).get("model")
    if info is None:
        raise ResponsesError(f"Nothing of {model} is recorded for {study}: {log} has no model.json.")
    log.mkdir(parents=True, exist_ok=True)
    # The last two shards of a recording may end at the same moment.
    with FileLock(log / "pack.lock"):
        rows = _recorded(project, study, ModelInfo(**info), None)
        if not len(rows):
            raise ResponsesError(f"Nothing of {model} is recorded for {study} yet; run record first.")
        target = project.responses(study, model)
        before = responses.record_of(target) or {}
        counts = responses.write(rows, plan, target, failed=failed, partly=partly)
        lost = rows["finish"] == "failed"
        state: dict[str, Any] = {"failed": int(lost.sum())} if lost.any() else {}
        if unfinished := _unfinished(rows if failed else rows[~lost], plan, counts, before):
            state |= {"complete": False, "unfinished": unfinished | {"asked_with": asked_with}}
        return _seal(target, study, ModelInfo(**info), signed, counts, state)


def _unfinished(
    rows: pd.DataFrame, plan: pd.DataFrame, counts: Mapping[str, int], before: Mapping[str, Any]
) -> dict[str, Any]:
    """Return planned and recorded cells by measure; empty where every one is recorded, of earlier plans too."""
    plan = responses.as_recorded(plan, rows)
    there = plan[np.isin(responses.digest(plan), responses.digest(rows))]
    planned, recorded = ({str(m): int(n) for m, n in t["measure"].value_counts().items()} for t in (plan, there))
    for measure, count in before.get("unfinished", {}).get("planned", {}).items():
        if count > planned.get(measure, 0):
            planned[measure], recorded[measure] = count, min(counts.get(measure, 0), count)
    if planned == recorded:
        return {}
    return {
        "planned": dict(sorted(planned.items())),
        "recorded": {measure: recorded.get(measure, 0) for measure in sorted(planned)},
    }


def _seal(
    target: Path,
    study: str,
    info: ModelInfo,
    signed: Mapping[str, Any],
    counts: Mapping[str, int],
    state: Mapping[str, Any],
) -> Path:
    """Write the record of packed files. ``state`` says what is unfinished or failed."""
    before = responses.record_of(target) or {}
    today = _today()
    record = {
        "study": study,
        "model": asdict(info),
        "recorded": {
            "first": before.get("recorded", {}).get("first") or signed.get("started") or today,
            "last": today,
        },
        "decoding": "log-probabilities and greedy text; no sampling, no seed",
        **_known(before, signed.get("instructions", [])),
        "cells": sum(counts.values()),
        **state,
        "files": {
            f"{name}.parquet": {
                "rows": count,
                "sha256": hashlib.sha256((target / f"{name}.parquet").read_bytes()).hexdigest(),
            }
            for name, count in counts.items()
        },
    }
    undated = {name: value for name, value in record.items() if name != "recorded"}
    if before and {name: before.get(name) for name in undated} == undated and set(before) <= set(record):
        return target
    _replace(target / "record.json", json.dumps(record, indent=1) + "\n")
    return target


def take_in(project: Project, origin: Path) -> pd.DataFrame:
    """Check recordings that were made elsewhere and merge them into the project's logs.

    Args:
        project: Receives the rows.
        origin: What ``record --out`` wrote, ``<study>/<model>/``, at any depth below this folder. Stays as it is.

    Returns:
        One row per recording: ``study, model, rows, new``.

    Raises:
        ResponsesError: nothing there; a link, a pipe or a device among the files; a damaged row; another model
            under the same name; a cell that is recorded here with another answer. Nothing is merged then.
    """
    found = sorted(path.parent for path in origin.rglob("model.json"))
    if not found:
        raise ResponsesError(
            f"{origin} holds no recording: no <study>/<model>/model.json below it. Name what record --out wrote."
        )
    ready = []
    for place in found:
        # What came from elsewhere must not lead elsewhere, nor never end.
        for path in (place, *place.iterdir()):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise ResponsesError(
                    f"{path} is a link, a pipe or a device; a recording consists of files. Copy what it leads to "
                    "into its place, or remove it."
                )
        study, model = place.parent.name, place.name
        if study not in project.names():
            raise ResponsesError(
                f"{place} belongs to no study of this project ({', '.join(project.names())}); "
                "keep the folders as record --out made them, <study>/<model>/."
            )
        signed = _signed(place)
        assert signed is not None
        info = ModelInfo(**signed["model"])
        if info.name != model:
            raise ResponsesError(f"{place} says it was recorded with {info.name}; its folder was renamed.")
        _same_model(project, study, info, None)
        rows = responses.logged(place)
        known = _recorded(project, study, info, None)
        merged = responses.merge([known, rows])
        row = [*responses.KEY, "checksum"]
        new = merged[~np.isin(responses.digest(merged, row), responses.digest(known, row))]
        ready.append((study, info, signed, len(rows), new))
    report = []
    for study, info, signed, n, new in ready:
        log = folder(project, study, info.name)
        log.mkdir(parents=True, exist_ok=True)
        _sign(log, info, signed["started"], instructions=signed.get("instructions", []))
        if len(new):
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in _plain(new))
            name = hashlib.sha256(lines.encode()).hexdigest()[:12]
            _replace(log / f"imported-{name}.jsonl", lines)
        report.append({"study": study, "model": info.name, "rows": n, "new": len(new)})
    return pd.DataFrame(report)


def _recorded(project: Project, study: str, info: ModelInfo, out: Path | None) -> pd.DataFrame:
    """Return every answer there is under a model's name: the logs', and the committed recording's."""
    _same_model(project, study, info, out)
    logs = [folder(project, study, info.name, place) for place in {None, out}]
    committed = responses.stored(project.responses(study, info.name))
    return responses.merge([committed, *(responses.logged(log) for log in logs)])


def _plain(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield rows as a log holds them."""
    for row in rows.to_dict("records"):
        yield {
            str(name): value.tolist()
            if isinstance(value, np.ndarray | np.generic)
            else None
            if value is None or value != value
            else value
            for name, value in row.items()
        }


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


def _begun(project: Project, study: str, name: str, out: Path | None) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield where something is recorded under a name already, and the model that answered there."""
    target = project.responses(study, name)
    for place, known in (
        *((log, _signed(log)) for log in (folder(project, study, name, place) for place in {None, out})),
        (target, responses.record_of(target)),
    ):
        if known is not None:
            yield place, known["model"]


def _same_model(project: Project, study: str, info: ModelInfo, out: Path | None) -> None:
    """Refuse a model that differs from what is recorded under its name."""
    here = asdict(info)
    for place, before in _begun(project, study, info.name, out):
        if before != here:
            changed = [name for name in here if before.get(name) != here[name]]
            raise ResponsesError(
                f"{place} was recorded with another {', '.join(changed)} "
                f"({', '.join(str(before.get(name)) for name in changed)}; "
                f"now {', '.join(str(here[name]) for name in changed)}); a recording keeps to one. "
                "Record with what was given the first time, or under another name (--name), "
                "or move that folder away to start anew."
            )


def _signed(log: Path) -> dict[str, Any] | None:
    """Return what a folder of logs says about its model."""
    path = log / "model.json"
    if not path.is_file():
        return None
    try:
        signed: dict[str, Any] = json.loads(path.read_text("utf-8"))
        signed["model"] = asdict(responses.model_info(signed["model"]))
        if not isinstance(signed["started"], str):
            raise TypeError("started is no date")
        if not all(isinstance(each, str) for each in signed.get("instructions", [])):
            raise TypeError("instructions are no texts")
    except (ValueError, LookupError, TypeError, RecursionError, ParameterError) as error:
        raise ResponsesError(f"{path} is damaged ({error}); write what recorded there into it again.") from error
    return signed


def _sign(log: Path, info: ModelInfo, started: str | None = None, *, instructions: Sequence[str] = ()) -> None:
    """Write model.json, which names the recording model and the processors' instruction sets it ran on."""
    before = _signed(log) or {}
    signed = {
        "model": asdict(info),
        "started": before.get("started") or started or _today(),
        **_known(before, instructions),
    }
    if signed != before:
        _replace(log / "model.json", json.dumps(signed, indent=1) + "\n")


def _instructions(backend: Backend) -> list[str]:
    """Return the processor's instruction set where a backend's last digits depend on it."""
    found: str | None = getattr(backend, "instructions", None)
    return [found] if found else []


def _known(before: Mapping[str, Any], instructions: Sequence[str]) -> dict[str, list[str]]:
    """Return the instruction sets of all sittings, as an entry of a record; none where none is known."""
    found = sorted({*before.get("instructions", []), *instructions})
    return {"instructions": found} if found else {}


def _replace(path: Path, text: str) -> None:
    """Write a file in one step; shards that start at the same moment write the same one."""
    partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _watched() -> bool:
    """Return whether somebody sees a progress bar: a terminal or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()
