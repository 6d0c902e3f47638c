"""The response store: append-only logs while recording, Parquet once complete.

Both carry the same rows and the same checksum per row. A row is identified by the plan's identity columns
and pinned by the hashes of the texts behind it; texts themselves are not stored. Log-probabilities have 32 bits:
in 16, sums over long options would err by up to a tenth of a nat (benchmarks/README.md, "Precision of the store").

Layout::

    recordings/<study>/<model>/*.jsonl          one line per response, appended and flushed
    recordings/<study>/<model>/model.json       what records there, and since when
    data/responses/<study>/<model>/*.parquet    one file per measure, sorted by identity
    data/responses/<study>/<model>/record.json  model, backend, schedule, dates, counts, file hashes
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from persona_studies.ask.backends import ModelInfo, Response
from persona_studies.ask.unfinished import incomplete, refusal, to_record
from persona_studies.design.plan import HASHES, IDENTITY
from persona_studies.errors import ParameterError, ResponsesError, quoted
from persona_studies.paths import Project, named

FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.parquet")
KEY = [*IDENTITY, *HASHES]
VALUES = [
    "request",
    "finish",
    "logprob",
    "n_tokens",
    "n_chars",
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
        # Characters of each option as it was asked: texts are not stored, and scores per character need them.
        ("n_chars", pa.list_(pa.uint16())),
        ("option_mass", pa.float32()),
        ("entropy", pa.float32()),
        ("top_token", pa.dictionary(pa.int32(), pa.string())),
        ("text", pa.string()),
        ("prompt_tokens", pa.uint32()),
        ("computed_tokens", pa.uint32()),
        ("checksum", pa.string()),
    ]
)


def checksum(row: Mapping[Any, Any]) -> str:
    """Return 16 hexadecimal digits over every field of a response row but the checksum itself."""
    return _hashed(_canonical(row[name]) for name in (*KEY, *VALUES))


def checksums(rows: pd.DataFrame) -> list[str]:
    """Return the :func:`checksum` of every row of a table, without a mapping per row."""
    columns = [[_canonical(value) for value in rows[name].tolist()] for name in (*KEY, *VALUES)]
    return [_hashed(fields) for fields in zip(*columns, strict=True)]


def _canonical(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return "[" + ",".join(["-" if v != v else v.hex() for v in value.tolist()]) + "]"
    if isinstance(value, np.ndarray | list | tuple):
        return "[" + ",".join([_canonical(v) for v in value]) + "]"
    if isinstance(value, float | np.floating):
        return float(value).hex()
    return str(value)


def _hashed(fields: Iterable[str]) -> str:
    return hashlib.blake2b("\x1f".join(fields).encode(), digest_size=8).hexdigest()


def _storable(row: Mapping[str, Any]) -> None:
    """Refuse with a ValueError what would come back from the store as another value than it went in."""
    for name in ("logprob", "option_mass", "entropy"):
        values = [value for value in np.atleast_1d(row[name]) if value is not None]
        exact = np.asarray(values, dtype=np.float64)
        if not np.array_equal(exact.astype(np.float32), exact, equal_nan=True):
            raise ValueError(f"{name} {quoted(row[name])} is not single precision")
    counts = {"n_tokens": 2**16, "n_chars": 2**16, "prompt_tokens": 2**32, "computed_tokens": 2**32}
    for name, above in (counts | {"order": 2**15, "repeat": 2**15}).items():
        if any(not 0 <= value < above for value in np.atleast_1d(row[name])):
            raise ValueError(f"{name} {quoted(row[name])} is not between 0 and {above - 1}")


class Log:
    """One append-only file of a recording."""

    def __init__(self, path: Path) -> None:
        """Open the file for appending; a last line that a killed process left unfinished is cut off."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        # Unbuffered: what `append` has written is with the operating system, whatever becomes of this process.
        self._file = path.open("ab", buffering=0)
        data = path.read_bytes()
        self._size = data.rfind(b"\n") + 1
        if self._size < len(data):
            self._file.truncate(self._size)

    def append(self, cell: Mapping[str, Any], response: Response) -> None:
        """Write one response to a plan's cell.

        Raises:
            ResponsesError: the answer holds what the store cannot; the disk is full, or the file cannot be
                written. What it held before is whole.
        """
        options = cell["options"] or ()
        row = {name: cell[name] for name in KEY} | asdict(response) | {"n_chars": [len(text) for text in options]}
        row = {name: row[name] for name in (*KEY, *VALUES)}
        row["order"], row["repeat"] = int(row["order"]), int(row["repeat"])
        try:
            _storable(row)
            line = json.dumps(row | {"checksum": checksum(row)}, ensure_ascii=False).encode() + b"\n"
        except ValueError as error:
            raise ResponsesError(
                f"An answer cannot be stored ({error}): {', '.join(f'{name} {cell[name]}' for name in IDENTITY)}. "
                "The backend must give single precision, counts that fit, and text; mend it."
            ) from error
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._size)
            raise ResponsesError(
                f"{self._path} cannot be written ({error.strerror}). Everything answered before is kept; "
                "make room and run the same command to go on."
            ) from error
        self._size += len(line)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.fsync(self._file.fileno())
        self._file.close()


def read_logs(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield every sound row of a folder of logs, its checksum included.

    A torn last line is passed over; a damaged line elsewhere is an error, because something other than an
    interruption changed the file.

    Raises:
        ResponsesError: a line is not JSON or does not match its checksum.
    """
    for path in sorted(folder.glob("*.jsonl")):
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    continue
                try:
                    row = json.loads(line)
                    sound = row["checksum"] == checksum(row) and len(row) == len(KEY) + len(VALUES) + 1
                except (ValueError, LookupError, TypeError, RecursionError):
                    sound = False
                if not sound:
                    raise ResponsesError(
                        f"{path}, line {number}, is damaged (its checksum does not match). "
                        "Delete that line and record again: only that cell is asked anew."
                    )
                yield row


def logged(folder: Path) -> pd.DataFrame:
    """Return the rows of a folder of logs as a table with the store's columns.

    Raises:
        ResponsesError: a damaged line.
    """
    rows = read_logs(folder)
    # In pieces, so that a long log is never held as Python objects.
    pieces = [SCHEMA.empty_table()]
    while piece := list(itertools.islice(rows, 50_000)):
        try:
            pieces.append(pa.Table.from_pylist(piece, schema=SCHEMA))
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            # Its checksum holds, so it was written like this: by another program, or by hand.
            raise ResponsesError(
                f"{folder} holds a row with a value of the wrong type or size ({error}). "
                "It was not written by this recorder; move that log away."
            ) from error
    return _frame(pa.concat_tables(pieces, promote_options="permissive"))


def stored(folder: Path) -> pd.DataFrame:
    """Return the rows of a packed recording, all measures together; none where there is no recording.

    Raises:
        ResponsesError: a file is unreadable or damaged.
    """
    frames = [read_parquet(path) for path in sorted(folder.glob("*.parquet"))]
    return pd.concat(frames, ignore_index=True) if frames else _frame(SCHEMA.empty_table())


def digest(rows: pd.DataFrame, columns: Sequence[str] = KEY) -> NDArray[np.uint64]:
    """Return a 64-bit hash per row over some columns, for matching cells of large grids."""
    plain = rows[list(columns)].astype({name: "int64" for name in ("order", "repeat") if name in columns})
    return np.asarray(pd.util.hash_pandas_object(plain, index=False), dtype=np.uint64)


def merge(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Put rows of several origins together, each cell once. A failed one gives way to a later attempt.

    Raises:
        ResponsesError: a cell was recorded twice, with different answers.
    """
    rows = pd.concat(list(parts), ignore_index=True)
    rows = rows.loc[~rows.duplicated([*KEY, "checksum"])]
    failed = rows["finish"] == "failed"
    if failed.any():
        answered = np.isin(digest(rows), digest(rows[~failed]))
        rows = rows.loc[~failed | ~(answered | rows.duplicated(KEY, keep="last"))]
    twice = rows[rows.duplicated(KEY, keep=False)]
    if len(twice):
        raise ResponsesError(
            f"{twice.duplicated(KEY).sum()} cells were recorded twice with different answers, first "
            f"{_cell(twice)}. Two recordings were mixed; move one of the logs away."
        )
    return rows


def write(
    rows: pd.DataFrame, plan: pd.DataFrame, folder: Path, *, failed: bool = False, partly: bool = False
) -> dict[str, int]:
    """Write one Parquet file per measure and return the number of rows of each.

    Rows outside the plan are kept, unless the plan names the same cell with other texts. The bytes depend on
    the rows alone, not on the order or the number of sittings they were recorded in.

    Args:
        rows: Answers, each cell once (:func:`merge`).
        plan: Cells that must be there.
        folder: Receives the files.
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
            f"are not recorded, first {_cell(missing)}; run record again, it continues where it stopped."
        )
    lost = rows[(rows["finish"] == "failed") & np.isin(digest(rows), digest(plan))]
    if len(lost) and not (failed or partly):
        raise ResponsesError(
            f"{len(lost)} of {len(plan)} planned cells failed, first {_cell(lost)}: {lost['text'].iloc[0]}. "
            "Record again, which asks them anew; or with --reask never, which leaves them failed."
        )
    stale = ~np.isin(digest(rows), digest(plan)) & np.isin(digest(rows, IDENTITY), digest(plan, IDENTITY))
    rows = rows[~stale].sort_values(IDENTITY, kind="stable")
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    for measure, cells in rows.groupby("measure", sort=True):
        counts[named(str(measure))] = len(cells)
        table = pa.Table.from_pandas(cells, schema=SCHEMA, preserve_index=False).replace_schema_metadata(None)
        pq.write_table(table, folder / f"{measure!s}.partial", compression="zstd", compression_level=19)
    for measure in counts:
        (folder / f"{measure}.partial").replace(folder / f"{measure}.parquet")
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


def record_of(folder: Path) -> dict[str, Any] | None:
    """Return the record of a packed recording, or None where there is none.

    Raises:
        ResponsesError: the record is not JSON, lacks something, or names files outside its folder.
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
        incomplete(record)  # its counts can be added up
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, ParameterError) as error:
        raise ResponsesError(f"{path} is damaged ({error}); restore it with git checkout.") from error
    return record


def model_info(declared: Any) -> ModelInfo:
    """Return what produced a recording, as its record or its log says.

    Raises:
        TypeError, ParameterError: something is missing, unknown or no text, or the name leads to another folder.
    """
    made = ModelInfo(**declared)
    wrong = [name for name, value in asdict(made).items() if not isinstance(value, str)]
    if wrong:
        raise TypeError(f"{', '.join(wrong)} of the model is no text")
    named(made.name)
    return made


def load(project: Project, study: str, model: str, plan: pd.DataFrame, *, partly: bool = False) -> pd.DataFrame:
    """Return the recorded response of every planned cell, in plan order.

    Measures that the recording does not hold at all are left out: not every model can be asked every measure.

    Args:
        project: Where the recordings lie.
        study: Name of the study.
        model: Name of the recording.
        plan: Cells that are wanted.
        partly: Whether planned cells may be missing from the recording; they are then missing here.

    Returns:
        The plan's identity and hash columns with the response columns of this module beside them.

    Raises:
        ResponsesError: no recording of that model; a row that does not match its checksum; a planned cell
            that is not recorded, or was recorded with other texts.
    """
    folder = project.responses(study, model)
    record = record_of(folder)
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
            raise ResponsesError(f"{path} is missing, which its record names; restore it with git checkout.")
        kept = read_parquet(path, record["files"].get(path.name, {}).get("sha256"))
        cells = as_recorded(cells, kept)
        merged = cells[KEY].merge(kept, on=IDENTITY, how="inner" if partly else "left", suffixes=("", "_stored"))
        absent = merged["checksum"].isna()
        if absent.any() and incomplete(record):
            raise refusal(project, study, record)
        if absent.any():
            raise ResponsesError(
                f"{int(absent.sum())} of {len(merged)} planned cells of {measure} are not recorded for {model}, "
                f"first {_cell(merged[absent])}. "
                f"To record them: {to_record(project, study, record, '...')} with the parameters of this run"
            )
        for name in HASHES:
            changed = merged[name] != merged[f"{name}_stored"]
            if changed.any():
                raise ResponsesError(
                    f"{int(changed.sum())} cells of {measure} were recorded with another {name[:-5]} text than the "
                    f"present one, first {_cell(merged[changed])}. Restore the text, or record again."
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


def as_recorded(plan: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return a plan whose cells of kind ``text`` stand in the option order that they were recorded in.

    A question that is answered in words is asked in one order. Which one is drawn, and a recording that was made
    by another draw is no less one of this cell.

    Args:
        plan: Cells with the column ``kind``.
        rows: Recorded rows.
    """
    cell = [name for name in IDENTITY if name != "order"]
    drawn = plan["kind"] == "text"
    single = drawn & ~plan.duplicated(cell, keep=False)
    if not single.any():
        return plan
    orders = rows[~rows.duplicated(cell, keep=False)].set_index(cell)["order"]
    wanted = pd.MultiIndex.from_frame(plan.loc[single, cell])
    recorded = orders.reindex(wanted).to_numpy()
    known = ~pd.isna(recorded)
    order = plan["order"].to_numpy().copy()
    order[np.flatnonzero(single)[known]] = recorded[known].astype(order.dtype)
    return plan.assign(order=order)


def read_parquet(path: Path, sha256: str | None = None) -> pd.DataFrame:
    """Read one measure's file.

    Args:
        path: The file.
        sha256: The hash its record names. A file that has it is sound; otherwise every row is checked against
            its checksum.

    Raises:
        ResponsesError: unreadable file or damaged row.
    """
    try:
        data = path.read_bytes()
        frame = _frame(pq.read_table(pa.BufferReader(data), schema=SCHEMA))
    except (pa.ArrowException, OSError) as error:
        raise ResponsesError(f"{path.name} cannot be read ({error}); restore it with git checkout.") from error
    if hashlib.sha256(data).hexdigest() == sha256:
        return frame
    changed = np.flatnonzero(frame["checksum"].to_numpy() != np.array(checksums(frame), dtype=object))
    if len(changed):
        raise ResponsesError(
            f"{path.name}, row {changed[0]} ({_cell(frame.iloc[changed[:1]])}), does not match its checksum: "
            "the recording was changed. Restore it with git checkout."
        )
    return frame


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas(strings_to_categorical=False)
    for name in ("measure", "condition", "item", "template", "finish", "top_token", *HASHES):
        frame[name] = frame[name].astype(object)
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
    for path in sorted(project.responses(study).glob("*/record.json")):
        model = path.parent.name
        try:
            record = record_of(path.parent)
        except ResponsesError as error:
            problems.append(f"{model}: {error}")
            continue
        for name, expected in (record or {"files": {}})["files"].items():
            file = path.parent / name
            if not file.is_file():
                problems.append(f"{model}/{name} is missing; restore it with git checkout.")
                continue
            if hashlib.sha256(file.read_bytes()).hexdigest() == expected["sha256"]:
                continue
            # Another file than the record names: look for the rows that were changed.
            try:
                rows = len(read_parquet(file))
            except ResponsesError as error:
                problems.append(f"{model}: {error}")
                continue
            problems.append(
                f"{model}/{name} is not the file its record names: sha256 differs, "
                f"{rows} rows where the record says {expected['rows']}; restore it with git checkout."
            )
    return problems
