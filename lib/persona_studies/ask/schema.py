"""The schema of a response row: what identifies it, what it holds, and its checksum.

A row is identified by the plan's identity columns and pinned by the hashes of the texts behind it; texts themselves
are not stored. Log-probabilities have 32 bits: in 16, sums over long options would err by up to a tenth of a nat
(benchmarks/README.md, "Precision of the store").
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from persona_studies.design.plan import HASHES, IDENTITY
from persona_studies.errors import ResponsesError, quoted

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


def check_storable(row: Mapping[str, Any]) -> None:
    """Raise ValueError for values that the store cannot return unchanged."""
    for name in ("logprob", "option_mass", "entropy"):
        values = [value for value in np.atleast_1d(row[name]) if value is not None]
        exact = np.asarray(values, dtype=np.float64)
        if not np.array_equal(exact.astype(np.float32), exact, equal_nan=True):
            raise ValueError(f"{name} {quoted(row[name])} is not single precision")
    counts = {"n_tokens": 2**16, "n_chars": 2**16, "prompt_tokens": 2**32, "computed_tokens": 2**32}
    for name, above in (counts | {"order": 2**15, "repeat": 2**15}).items():
        if any(not 0 <= value < above for value in np.atleast_1d(row[name])):
            raise ValueError(f"{name} {quoted(row[name])} is not between 0 and {above - 1}")


def digest(rows: pd.DataFrame, columns: Sequence[str] = KEY) -> NDArray[np.uint64]:
    """Return a 64-bit hash per row over some columns, for matching cells of large grids."""
    plain = rows[list(columns)].astype({name: "int64" for name in ("order", "repeat") if name in columns})
    # Categories pay where texts stand in many rows each.
    hashed = pd.util.hash_pandas_object(plain, index=False, categorize=len(plain) > 1000)
    return np.asarray(hashed, dtype=np.uint64)


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
            f"{first_cell(twice)}. Two recordings were mixed; move one of the logs away."
        )
    return rows


def as_recorded(plan: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return a plan whose cells of kind ``text`` stand in the option order that they were recorded in.

    A question that is answered in words is asked in one order. Which one is drawn, and a recording that was made
    by another draw is no less one of this cell.

    Args:
        plan: Cells with the column ``kind``.
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


def frame(table: pa.Table) -> pd.DataFrame:
    """Return rows of the schema as a table whose texts are plain objects."""
    rows: pd.DataFrame = table.to_pandas(strings_to_categorical=False)
    for name in ("measure", "condition", "item", "template", "finish", "top_token", *HASHES):
        rows[name] = rows[name].astype(object)
    return rows


def first_cell(rows: pd.DataFrame) -> str:
    """Name the first of some cells."""
    return ", ".join(f"{name} {rows[name].iloc[0]}" for name in IDENTITY)
