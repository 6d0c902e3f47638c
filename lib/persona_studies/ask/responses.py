"""The response store: Parquet files of finished recordings, one per measure.

The rows are those of the logs, with the same checksum per row (:mod:`persona_studies.ask.schema`). Layout::

    recordings/<study>/<model>/*.jsonl          one line per response, appended and flushed
    recordings/<study>/<model>/model.json       what records there, and since when
    data/responses/<study>/<model>/*.parquet    one file per measure, sorted by identity
    data/responses/<study>/<model>/record.json  model, backend, schedule, dates, counts, file hashes
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from persona_studies import files
from persona_studies.ask.logs import check_sittings, model_info
from persona_studies.ask.schema import KEY, SCHEMA, as_recorded, checksums, digest, first_cell, frame
from persona_studies.ask.unfinished import incomplete, refusal, to_record
from persona_studies.design.plan import HASHES, IDENTITY
from persona_studies.errors import ParameterError, ResponsesError, quoted
from persona_studies.paths import Project, named

FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.parquet")


def stored(folder: Path) -> pd.DataFrame:
    """Return the rows of a packed recording, all measures together; none where there is no recording.

    Raises:
        ResponsesError: a file is unreadable or damaged.
    """
    frames = [read_parquet(path) for path in sorted(folder.glob("*.parquet"))]
    return pd.concat(frames, ignore_index=True) if frames else frame(SCHEMA.empty_table())


def write(
    rows: pd.DataFrame, plan: pd.DataFrame, folder: Path, *, failed: bool = False, partly: bool = False
) -> dict[str, int]:
    """Write one Parquet file per measure and return the number of rows of each.

    Rows outside the plan are kept, unless the plan names the same cell with other texts. The bytes depend on
    the rows alone, not on the order or the number of sittings they were recorded in.

    Args:
        rows: Answers, each cell once (:func:`merge`).
        plan: Cells that must be there.
        failed: Whether a planned cell may have failed.
        partly: Whether a planned cell may lack a row, or have failed.

    Raises:
        ResponsesError: a planned cell has no row, or has failed; nothing is written then.
    """
    plan = as_recorded(plan, rows)
    missing = plan[~np.isin(digest(plan), digest(rows))]
    if len(missing) and not partly:
        measure = missing["measure"].iloc[0]
        raise ResponsesError(
            f"{(missing['measure'] == measure).sum()} of {(plan['measure'] == measure).sum()} cells of {measure} "
            f"are not recorded, first {first_cell(missing)}; run record again, it continues where it stopped."
        )
    lost = rows[(rows["finish"] == "failed") & np.isin(digest(rows), digest(plan))]
    if len(lost) and not (failed or partly):
        raise ResponsesError(
            f"{len(lost)} of {len(plan)} planned cells failed, first {first_cell(lost)}: {lost['text'].iloc[0]}. "
            "Record again, which asks them anew; or with --reask never, which leaves them failed."
        )
    stale = ~np.isin(digest(rows), digest(plan)) & np.isin(digest(rows, IDENTITY), digest(plan, IDENTITY))
    rows = rows[~stale].sort_values(IDENTITY, kind="stable")
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    # No file takes its place before the last one is written.
    with contextlib.ExitStack() as places:
        for measure, cells in rows.groupby("measure", sort=True):
            name = named(str(measure))
            counts[name] = len(cells)
            table = pa.Table.from_pandas(cells, schema=SCHEMA, preserve_index=False).replace_schema_metadata(None)
            partial = places.enter_context(files.replaced(folder / f"{name}.parquet"))
            pq.write_table(table, partial, compression="zstd", compression_level=19)
    return counts


def recordings(project: Project, study: str) -> list[str]:
    """Return the names of a study's recordings."""
    return sorted(path.parent.name for path in project.responses(study).glob("*/record.json"))


def meant(project: Project, study: str, model: str) -> str:
    """Return the model that a run is about: the named one, or where none is named the only recorded one.

    Returns:
        Empty where none is named and none is recorded.

    Raises:
        ParameterError: none is named, and several are recorded.
    """
    known = recordings(project, study)
    if not model and len(known) > 1:
        raise ParameterError(f"{study} has {len(known)} recordings; name one: model={' or model='.join(known)}")
    return model or "".join(known)


def description(folder: Path) -> dict[str, Any] | None:
    """Return what ``record.json`` says of a packed recording, or None where there is none.

    Raises:
        ResponsesError: the file is not JSON, lacks something, or names files outside its folder.
    """
    path = folder / "record.json"
    if not path.is_file():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
        record["model"] = asdict(model_info(record["model"]))
        for name, file in record["files"].items():
            if not FILE.fullmatch(name):
                raise ValueError(f"it names a file {quoted(name)} outside its folder")
            if not (isinstance(file["sha256"], str) and isinstance(file["rows"], int)):
                raise TypeError(f"sha256 or rows of {name} are not given")
        dict(record.get("recorded", {}))
        check_sittings(record)
        incomplete(record)  # its counts can be added up
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, ParameterError) as error:
        raise ResponsesError(f"{path} is damaged ({error}); restore it with git checkout.") from error
    return record


def load(project: Project, study: str, model: str, plan: pd.DataFrame, *, partly: bool = False) -> pd.DataFrame:
    """Return the recorded response of every planned cell, in plan order.

    Measures that the recording does not hold at all are left out: not every model can be asked every measure.

    Args:
        plan: Cells that are wanted.
        partly: Whether planned cells may be missing from the recording; they are then missing here.

    Returns:
        The plan's identity and hash columns with the response columns of this module beside them.

    Raises:
        ResponsesError: no recording of that model; a row that does not match its checksum; a planned cell
            that is not recorded, or was recorded with other texts.
    """
    folder = project.responses(study, model)
    record = description(folder)
    if record is None:
        known = ", ".join(recordings(project, study)) or "none"
        raise ResponsesError(
            f"No recorded responses of model {model!r} for {study}; recorded: {known}. "
            f"To record: make record STUDY={study} MODEL={model}"
        )
    parts = []
    for measure, cells in plan.groupby("measure", sort=False):
        path = folder / f"{measure}.parquet"
        if not path.is_file() and path.name not in record["files"]:
            if not partly and measure in record.get("unfinished", {}).get("planned", {}):
                raise refusal(project, study, record)
            continue
        if not path.is_file():
            raise ResponsesError(f"{path} is missing, which record.json names; restore it with git checkout.")
        kept = read_parquet(path, record["files"].get(path.name, {}).get("sha256"))
        cells = as_recorded(cells, kept)
        merged = cells[KEY].merge(kept, on=IDENTITY, how="inner" if partly else "left", suffixes=("", "_stored"))
        absent = merged["checksum"].isna()
        if absent.any() and incomplete(record):
            raise refusal(project, study, record)
        if absent.any():
            raise ResponsesError(
                f"{int(absent.sum())} of {len(merged)} planned cells of {measure} are not recorded for {model}, "
                f"first {first_cell(merged[absent])}. "
                f"To record them: {to_record(project, study, record, '...')} with the parameters of this run"
            )
        for name in HASHES:
            changed = merged[name] != merged[f"{name}_stored"]
            if changed.any():
                raise ResponsesError(
                    f"{int(changed.sum())} cells of {measure} were recorded with another {name[:-5]} text than the "
                    f"present one, first {first_cell(merged[changed])}. Restore the text, or record again."
                )
        parts.append(merged.drop(columns=[f"{name}_stored" for name in HASHES]))
    if not any(map(len, parts)):
        raise ResponsesError(f"The recording of {model} for {study} holds none of the {len(plan):,} planned cells.")
    return pd.concat(parts, ignore_index=True)


def statuses(project: Project, study: str, model: str) -> dict[str, dict[str, int]]:
    """Return how the answers of a recording ended: measure -> ``scored, stop, length, failed`` -> cells."""
    found = {}
    for path in sorted(project.responses(study, model).glob("*.parquet")):
        ended = pq.read_table(path, columns=["finish"]).column("finish").to_pandas()
        found[path.stem] = {str(name): int(n) for name, n in ended.value_counts(sort=False).items() if n}
    return found


def answered(project: Project, study: str, model: str, plan: pd.DataFrame) -> int:
    """Return how many cells of a plan a recording holds; no answer is looked at."""
    count = 0
    for measure, cells in plan.groupby("measure", sort=False):
        path = project.responses(study, model) / f"{measure}.parquet"
        if path.is_file():
            kept = pq.read_table(path, columns=KEY).to_pandas().astype(object)
            count += int(np.isin(digest(as_recorded(cells, kept)), digest(kept)).sum())
    return count


def read_parquet(path: Path, sha256: str | None = None) -> pd.DataFrame:
    """Read one measure's file.

    Args:
        sha256: The hash that ``record.json`` names. A file that has it is sound; otherwise every row is checked
            against its checksum.

    Raises:
        ResponsesError: unreadable file or damaged row.
    """
    try:
        data = path.read_bytes()
        rows = frame(pq.read_table(pa.BufferReader(data), schema=SCHEMA))
    except (pa.ArrowException, OSError) as error:
        raise ResponsesError(f"{path.name} cannot be read ({error}); restore it with git checkout.") from error
    if hashlib.sha256(data).hexdigest() == sha256:
        return rows
    changed = np.flatnonzero(rows["checksum"].to_numpy() != np.array(checksums(rows), dtype=object))
    if len(changed):
        raise ResponsesError(
            f"{path.name}, row {changed[0]} ({first_cell(rows.iloc[changed[:1]])}), does not match its checksum: "
            "the recording was changed. Restore it with git checkout."
        )
    return rows


def matrix(frame: pd.DataFrame, column: str = "logprob") -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return a list column as an array, cells x options.

    Raises:
        ResponsesError: the rows differ in their number of options.
    """
    lengths = {len(value) for value in frame[column]}
    if len(lengths) > 1:
        raise ResponsesError(f"Rows with {sorted(lengths)} options cannot form one matrix; select one measure.")
    return np.stack([np.asarray(value, dtype=np.float64) for value in frame[column]])


def check(project: Project, study: str) -> list[str]:
    """Return what is wrong with the committed recordings of a study, one line each; empty when sound."""
    problems = []
    for path in sorted(project.responses(study).glob("*/record.json")):
        model = path.parent.name
        try:
            record = description(path.parent)
        except ResponsesError as error:
            problems.append(f"{model}: {error}")
            continue
        named = (record or {"files": {}})["files"]
        problems += [
            f"{model}/{file.name} is not named by record.json; bring back the record.json that was packed with it."
            for file in sorted(path.parent.glob("*.parquet"))
            if file.name not in named
        ]
        for name, expected in named.items():
            file = path.parent / name
            if not file.is_file():
                problems.append(f"{model}/{name} is missing; restore it with git checkout.")
                continue
            if files.sha256(file) == expected["sha256"]:
                continue
            # Another file than record.json names: look for the rows that were changed.
            try:
                rows = len(read_parquet(file))
            except ResponsesError as error:
                problems.append(f"{model}: {error}")
                continue
            problems.append(
                f"{model}/{name} is not the file that record.json names: sha256 differs, "
                f"{rows} rows where it says {expected['rows']}; restore it with git checkout."
            )
    return problems
