"""Logs of recordings in progress: one line per response, appended and flushed, and what records there."""

from __future__ import annotations

import contextlib
import datetime
import errno
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
import pyarrow as pa

from persona_studies import files
from persona_studies.ask.backends import ModelInfo, Response
from persona_studies.ask.schema import KEY, SCHEMA, VALUES, check_storable, checksum, frame
from persona_studies.design.plan import IDENTITY
from persona_studies.errors import ParameterError, ResponsesError
from persona_studies.paths import Project, named


def folder(project: Project, study: str, model: str, out: Path | None = None) -> Path:
    """Return where the logs of a recording lie: in the project, or below ``out``."""
    return (out or project.recordings) / named(study) / named(model)


def make(log: Path) -> None:
    """Make a folder of logs.

    Raises:
        ResponsesError: it cannot be made.
    """
    try:
        log.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResponsesError(
            f"{log} cannot be made ({error.strerror or error}); make room, or name another folder with --out."
        ) from error


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
            check_storable(row)
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


def rows_of(folder: Path) -> Iterator[dict[str, Any]]:
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


def read(folder: Path) -> pd.DataFrame:
    """Return the rows of a folder of logs as a table with the store's columns.

    Raises:
        ResponsesError: a damaged line.
    """
    rows = rows_of(folder)
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
    return frame(pa.concat_tables(pieces, promote_options="permissive"))


def signed(log: Path) -> dict[str, Any] | None:
    """Return what a folder of logs says about its model."""
    path = log / "model.json"
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        found["model"] = asdict(model_info(found["model"]))
        if not isinstance(found["started"], str):
            raise TypeError("started is no date")
        check_sittings(found)
    except (ValueError, LookupError, TypeError, RecursionError, ParameterError) as error:
        raise ResponsesError(f"{path} is damaged ({error}); write what recorded there into it again.") from error
    return found


def sign(log: Path, info: ModelInfo, started: str | None = None, sitting: Mapping[str, Any] | None = None) -> None:
    """Write model.json, which names the recording model and how it was asked.

    Args:
        log: Folder of the logs.
        started: Date; today where the log has none.
        sitting: Of :func:`together`.
    """
    before = signed(log) or {}
    now = {
        "model": asdict(info),
        "started": before.get("started") or started or today(),
        **together(before, sitting or {}),
    }
    if now != before:
        # Shards that start at the same moment write the same file.
        files.write(log / "model.json", json.dumps(now, indent=1) + "\n", uuid4().hex)


def together(*sittings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of all sittings of a recording, as entries of model.json and of ``record.json``.

    These are ``instructions``, the instruction sets of the processors; ``served``, what an endpoint calls the model
    that answers; and ``settings``, options that change what an endpoint is asked. What is not known is left out.
    """
    instructions = sorted({each for sitting in sittings for each in sitting.get("instructions", [])})
    served = next((sitting["served"] for sitting in sittings if sitting.get("served")), None)
    settings: dict[str, Any] = {}
    for sitting in reversed(sittings):
        settings |= sitting.get("settings", {})
    known = {"instructions": instructions, "served": served, "settings": dict(sorted(settings.items()))}
    return {name: value for name, value in known.items() if value}


def check_sittings(found: Mapping[str, Any]) -> None:
    """Raise TypeError for entries of :func:`together` that are not of its types."""
    if not isinstance(found.get("served", ""), str):
        raise TypeError("served is no text")
    if not all(isinstance(each, str) for each in found.get("instructions", [])):
        raise TypeError("instructions are no texts")
    if not isinstance(found.get("settings", {}), dict):
        raise TypeError("settings are no object")


def today() -> str:
    """Return the date (UTC) as records hold it."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def model_info(declared: Any) -> ModelInfo:
    """Return what produced a recording, as its ``record.json`` or its log says.

    Raises:
        TypeError, ParameterError: something is missing, unknown or no text, or the name leads to another folder.
    """
    made = ModelInfo(**declared)
    wrong = [name for name, value in asdict(made).items() if not isinstance(value, str)]
    if wrong:
        raise TypeError(f"{', '.join(wrong)} of the model is not a text")
    named(made.name)
    return made
