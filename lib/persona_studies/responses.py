"""The response store: an append-only log while recording, Parquet once complete.

Both carry the same rows and the same checksum per row. A row is identified by the plan's identity columns
and pinned by the hashes of the texts behind it; texts themselves are not stored.

Layout::

    recordings/<study>/<model>/*.jsonl          one line per response, appended and flushed
    data/responses/<study>/<model>/*.parquet    one file per measure, in plan order
    data/responses/<study>/<model>/record.json  model, backend, schedule, dates, counts, file hashes
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from persona_studies.backends import Response
from persona_studies.errors import ResponsesError
from persona_studies.paths import Project
from persona_studies.plan import HASHES, IDENTITY

KEY = [*IDENTITY, *HASHES]
VALUES = [
    "request",
    "finish",
    "logprob",
    "n_tokens",
    "option_mass",
    "entropy",
    "top_token",
    "text",
    "prompt_tokens",
    "computed_tokens",
]
SCHEMA = pa.schema(
    [
        *((name, pa.dictionary(pa.int32(), pa.string())) for name in ("measure", "condition", "item", "template")),
        *((name, pa.int16()) for name in ("order", "repeat")),
        *((name, pa.dictionary(pa.int32(), pa.string())) for name in HASHES),
        ("request", pa.string()),
        ("finish", pa.dictionary(pa.int32(), pa.string())),
        ("logprob", pa.list_(pa.float32())),
        ("n_tokens", pa.list_(pa.uint16())),
        ("option_mass", pa.float32()),
        ("entropy", pa.float32()),
        ("top_token", pa.dictionary(pa.int32(), pa.string())),
        ("text", pa.string()),
        ("prompt_tokens", pa.uint16()),
        ("computed_tokens", pa.uint16()),
        ("checksum", pa.string()),
    ]
)


def checksum(row: Mapping[Any, Any]) -> str:
    """Return 16 hexadecimal digits over every field of a response row but the checksum itself."""

    def canonical(value: Any) -> str:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "-"
        if isinstance(value, np.ndarray | list | tuple):
            return "[" + ",".join(canonical(v) for v in value) + "]"
        if isinstance(value, float | np.floating):
            return float(value).hex()
        return str(value)

    joined = "\x1f".join(canonical(row[name]) for name in (*KEY, *VALUES))
    return hashlib.blake2b(joined.encode(), digest_size=8).hexdigest()


class Log:
    """One append-only file of a recording."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._drop_torn_tail(path)
        self._file: TextIO = path.open("a", encoding="utf-8")

    def append(self, cell: Mapping[str, Any], response: Response) -> None:
        """Write one response and hand it to the operating system."""
        row = {name: cell[name] for name in KEY} | asdict(response)
        row = {name: row[name] for name in (*KEY, *VALUES)}
        row["order"], row["repeat"] = int(row["order"]), int(row["repeat"])
        line = json.dumps(row | {"checksum": checksum(row)}, ensure_ascii=False)
        self._file.write(line + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    @staticmethod
    def _drop_torn_tail(path: Path) -> None:
        """Cut a last line that a killed process left unfinished, so that the next one starts clean."""
        if not path.exists():
            return
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with path.open("r+b") as file:
                file.truncate(whole)


def read_logs(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield every sound row of a folder of logs.

    A torn last line is passed over; a damaged line elsewhere is an error, because something other than an
    interruption changed the file.

    Raises:
        ResponsesError: a line is not JSON or does not match its checksum.
    """
    for path in sorted(folder.glob("*.jsonl")):
        with path.open(encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith("\n"):
                    continue
                try:
                    row = json.loads(line)
                    sound = row.pop("checksum") == checksum(row)
                except (ValueError, KeyError, TypeError):
                    sound = False
                if not sound:
                    raise ResponsesError(
                        f"{path}, line {number}, is damaged (its checksum does not match). "
                        "Delete that line and record again: only that cell is asked anew."
                    )
                yield row


def cell_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what makes a stored row the answer to a planned cell."""
    return tuple(row[name] for name in KEY)


def write(rows: Iterable[Mapping[str, Any]], plan: pd.DataFrame, folder: Path) -> dict[str, int]:
    """Write one Parquet file per measure, in plan order, and return the number of rows of each.

    The bytes depend on the rows alone, not on the order or the number of sittings they were recorded in.

    Raises:
        ResponsesError: a planned cell has no row.
    """
    found = {cell_key(row): row for row in rows}
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    for measure, cells in plan.groupby("measure", sort=False):
        keys = list(cells[KEY].itertuples(index=False, name=None))
        missing = [key for key in keys if key not in found]
        if missing:
            raise ResponsesError(
                f"{len(missing)} of {len(keys)} cells of {measure} are not recorded, first {missing[0][:4]}; "
                "run record again, it continues where it stopped."
            )
        ordered = [found[key] for key in keys]
        table = pa.Table.from_pylist([dict(row) | {"checksum": checksum(row)} for row in ordered], schema=SCHEMA)
        target = folder / f"{measure}.parquet"
        partial = target.with_suffix(".partial")
        pq.write_table(table, partial, compression="zstd", compression_level=19)
        partial.replace(target)
        counts[str(measure)] = len(ordered)
    return counts


def load(project: Project, study: str, model: str, plan: pd.DataFrame) -> pd.DataFrame:
    """Return the recorded response of every planned cell, in plan order.

    Returns:
        The plan's identity and hash columns with the response columns of this module beside them.

    Raises:
        ResponsesError: no recording of that model; a row that does not match its checksum; a planned cell
            that is not recorded, or was recorded with other texts.
    """
    folder = project.responses(study, model)
    if not (folder / "record.json").is_file():
        known = sorted(path.parent.name for path in project.responses(study).glob("*/record.json"))
        raise ResponsesError(
            f"No recorded responses of model {model!r} for {study}; recorded: {', '.join(known) or 'none'}. "
            f"To record: make record STUDY={study} MODEL={model}"
        )
    parts = []
    for measure, cells in plan.groupby("measure", sort=False):
        path = folder / f"{measure}.parquet"
        if not path.is_file():
            raise ResponsesError(
                f"{model} has no recording of measure {measure} for {study}. "
                f"To record: make record STUDY={study} MODEL={model}"
            )
        stored = read_parquet(path)
        merged = cells[KEY].merge(stored, on=IDENTITY, how="left", suffixes=("", "_stored"))
        absent = merged["checksum"].isna()
        if absent.any():
            raise ResponsesError(
                f"{int(absent.sum())} of {len(merged)} planned cells of {measure} are not recorded for {model}, "
                f"first {_cell(merged[absent])}. To record them: make record STUDY={study} MODEL={model} "
                "PARAMS='...' with the parameters of this run"
            )
        for name in HASHES:
            changed = merged[name] != merged[f"{name}_stored"]
            if changed.any():
                raise ResponsesError(
                    f"{int(changed.sum())} cells of {measure} were recorded with another {name[:-5]} text than the "
                    f"present one, first {_cell(merged[changed])}. Restore the text, or record again."
                )
        parts.append(merged.drop(columns=[f"{name}_stored" for name in HASHES]))
    return pd.concat(parts, ignore_index=True)


def read_parquet(path: Path) -> pd.DataFrame:
    """Read one measure's file and check every row against its checksum.

    Raises:
        ResponsesError: unreadable file or damaged row.
    """
    try:
        table = pq.read_table(path, schema=SCHEMA)
    except (pa.ArrowInvalid, OSError) as error:
        raise ResponsesError(f"{path.name} cannot be read ({error}); restore it with git checkout.") from error
    frame: pd.DataFrame = table.to_pandas(strings_to_categorical=False)
    for name in ("measure", "condition", "item", "template", "finish", "top_token", *HASHES):
        frame[name] = frame[name].astype(object)
    for index, row in enumerate(frame.to_dict("records")):
        if checksum(row) != row["checksum"]:
            raise ResponsesError(
                f"{path.name}, row {index} ({_cell(frame.iloc[[index]])}), does not match its checksum: "
                "the recording was changed. Restore it with git checkout."
            )
    return frame


def _cell(rows: pd.DataFrame) -> str:
    """Name the first of some cells."""
    return ", ".join(f"{name} {rows[name].iloc[0]}" for name in IDENTITY)


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
    for record in sorted(project.responses(study).glob("*/record.json")):
        model = record.parent.name
        declared = json.loads(record.read_text())["files"]
        for name, expected in declared.items():
            path = record.parent / name
            if not path.is_file():
                problems.append(f"{model}/{name} is missing; restore it with git checkout.")
                continue
            if hashlib.sha256(path.read_bytes()).hexdigest() == expected["sha256"]:
                continue
            # Another file than the record names: look for the rows that were changed.
            try:
                rows = len(read_parquet(path))
            except ResponsesError as error:
                problems.append(f"{model}: {error}")
                continue
            problems.append(
                f"{model}/{name} is not the file its record names: sha256 differs, "
                f"{rows} rows where the record says {expected['rows']}; restore it with git checkout."
            )
    return problems
