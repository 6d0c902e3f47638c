"""Pack a recording into its committed form, and take in what was recorded elsewhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock

from persona_studies import files
from persona_studies.ask import logs, recorded, responses, schema
from persona_studies.ask.backends import ModelInfo
from persona_studies.errors import ResponsesError
from persona_studies.paths import Project


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
    """Write a recording as Parquet with its ``record.json``, and return the folder.

    What was packed before stays, also where this plan is smaller. A recording that is packed in part goes on from
    there, in another checkout too; ``record.json`` counts planned and recorded cells until it is complete.

    Args:
        plan: Cells that belong to the recording.
        failed: Whether planned cells may have failed; ``record.json`` then counts them.
        partly: Whether planned cells may be missing, or have failed.
        asked_with: Options of ``record`` that plan these cells, for the message that tells how to go on.

    Raises:
        ResponsesError: nothing is recorded, a cell was recorded twice with different answers, a planned cell is not
            recorded, or has failed.
    """
    log = logs.folder(project, study, model)
    signed = logs.signed(log) or {}
    info = signed.get("model") or (responses.description(project.responses(study, model)) or {}).get("model")
    if info is None:
        raise ResponsesError(f"Nothing of {model} is recorded for {study}: {log} has no model.json.")
    log.mkdir(parents=True, exist_ok=True)
    # The last two shards of a recording may end at the same moment.
    with FileLock(log / "pack.lock"):
        rows = recorded.answers(project, study, ModelInfo(**info), None)
        if not len(rows):
            raise ResponsesError(f"Nothing of {model} is recorded for {study} yet; run record first.")
        target = project.responses(study, model)
        before = responses.description(target) or {}
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
    plan = schema.as_recorded(plan, rows)
    there = plan[np.isin(schema.digest(plan), schema.digest(rows))]
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
    """Write ``record.json`` of packed files. ``state`` says what is unfinished or failed."""
    before = responses.description(target) or {}
    today = logs.today()
    record = {
        "study": study,
        "model": asdict(info),
        "recorded": {
            "first": before.get("recorded", {}).get("first") or signed.get("started") or today,
            "last": today,
        },
        "decoding": "log-probabilities and greedy text; no sampling, no seed",
        **logs.together(before, signed),
        "cells": sum(counts.values()),
        **state,
        "files": {
            f"{name}.parquet": {
                "rows": count,
                "sha256": files.sha256(target / f"{name}.parquet"),
            }
            for name, count in counts.items()
        },
    }
    undated = {name: value for name, value in record.items() if name != "recorded"}
    if before and {name: before.get(name) for name in undated} == undated and set(before) <= set(record):
        return target
    files.write(target / "record.json", json.dumps(record, indent=1) + "\n")
    return target


def take_in(project: Project, origin: Path) -> pd.DataFrame:
    """Check recordings that were made elsewhere and merge them into the project's logs.

    Args:
        origin: What ``record --out`` wrote, ``<study>/<model>/``, at any depth below this folder. Stays as it is.

    Returns:
        One row per recording: ``study, model, rows, new``.

    Raises:
        ResponsesError: nothing there; a link, a pipe or a device among the files; a damaged row; another model
            under the same name; a cell that is recorded here with another answer. Nothing is merged then.
    """
    ready = []
    for place in _unpacked(project, origin):
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
        signed = logs.signed(place)
        assert signed is not None
        info = ModelInfo(**signed["model"])
        if info.name != model:
            raise ResponsesError(f"{place} says it was recorded with {info.name}; its folder was renamed.")
        recorded.check_model(project, study, info, None)
        recorded.check_sitting(project, study, model, signed, None)
        rows = logs.read(place)
        known = recorded.answers(project, study, info, None)
        merged = schema.merge([known, rows])
        row = [*schema.KEY, "checksum"]
        new = merged[~np.isin(schema.digest(merged, row), schema.digest(known, row))]
        ready.append((study, info, signed, len(rows), new))
    report = []
    for study, info, signed, n, new in ready:
        log = logs.folder(project, study, info.name)
        log.mkdir(parents=True, exist_ok=True)
        logs.sign(log, info, signed["started"], signed)
        if len(new):
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in _plain(new))
            name = hashlib.sha256(lines.encode()).hexdigest()[:12]
            files.write(log / f"imported-{name}.jsonl", lines)
        report.append({"study": study, "model": info.name, "rows": n, "new": len(new)})
    return pd.DataFrame(report)


def _unpacked(project: Project, origin: Path) -> list[Path]:
    """Return the folders of logs below a folder.

    Raises:
        ResponsesError: there is none.
    """
    found = sorted(path.parent for path in origin.rglob("model.json"))
    if not found:
        if packed := next(origin.rglob("record.json"), None):
            raise ResponsesError(
                f"{packed.parent} is packed already and needs no import: copy it to {project.data / 'responses'}/"
                "<study>/<model>/, as it is."
            )
        raise ResponsesError(
            f"{origin} holds no recording: no <study>/<model>/model.json below it. Name what record --out wrote."
        )
    return found


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
