"""Facts: committed tables of numbers that follow from released files, and whether these files still give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from persona_studies.design import sources
from persona_studies.errors import SourceError
from persona_studies.paths import Project

Find = Callable[[str], Path]
"""Name of a source -> its file."""


@dataclass(frozen=True)
class Fact:
    """A committed table, and how released files give it.

    Attributes:
        make: Makes the table of the project's banks and of the files of sources.
        key: Columns that tell rows apart, where the files give only some of the rows or columns.
        note: What of the files is kept, and under which licence they are.
        mirrored: Whether it needs a source that only a mirror has: a folder, or a file in a source archive.
    """

    make: Callable[[Project, Find], pd.DataFrame]
    key: tuple[str, ...] = ()
    note: str = ""
    mirrored: bool = False


def committed(project: Project, study: str, name: str) -> pd.DataFrame:
    """Return a table of ``data/published/<study>/``. Only an empty field is missing; "NA" is a text."""
    path = project.published / study / f"{name}.csv"
    return pd.read_csv(path, float_precision="round_trip", keep_default_na=False, na_values=[""])


def compare(project: Project, study: str, name: str, fact: Fact, *, tolerance: float) -> dict[str, object]:
    """Make a table again of its sources and compare it with the committed one.

    Args:
        fact: How it is made.
        tolerance: By how much a number may differ.

    Returns:
        ``table, committed`` (rows), ``rederived`` (rows), ``columns`` (compared), ``largest_difference``.

    Raises:
        SourceError: as :func:`check`.
        SourceUnavailable: a source cannot be had.
    """
    known, made = committed(project, study, name), fact.make(project, partial(sources.fetch, project))
    kept = known
    if fact.key:
        kept = made[[*fact.key]].merge(known, on=[*fact.key], validate="1:1")[[*made.columns]]
    off = check(f"data/published/{study}/{name}.csv", kept, made, tolerance=tolerance)
    return {"table": name, "committed": len(known), "rederived": len(made), "columns": len(made.columns)} | {
        "largest_difference": off
    }


def check(place: str, known: pd.DataFrame, made: pd.DataFrame, *, tolerance: float) -> float:
    """Return the largest difference between the numbers of a committed table and those that its source gives.

    Raises:
        SourceError: a row, a column or a text differs, or a number by more than the tolerance.
    """
    numbers = known.select_dtypes("number").columns
    same = list(made.columns) == list(known.columns) and len(made) == len(known)
    if same:
        texts = (each.drop(columns=numbers).astype(object) for each in (known, made))
        one, other = (text.where(text.notna(), "").astype(str).to_numpy() for text in texts)
        values = [each[numbers].astype(float).to_numpy() for each in (known, made)]
        same = (one == other).all() and (pd.isna(values[0]) == pd.isna(values[1])).all()
    off = pd.Series(abs(values[0] - values[1]).ravel()).max() if same and values[0].size else 0.0
    off = 0.0 if pd.isna(off) else float(off)
    if not same or off > tolerance:
        by = f": a number differs by {off:g}" if same else ""
        raise SourceError(
            f"{place} is not what its source gives{by}. Restore it with git checkout, or make it again and look at "
            "the difference."
        )
    return off


def rebuild(project: Project, study: str, tables: Mapping[str, Fact]) -> None:
    """Write every table whose sources give it whole."""
    for name, fact in tables.items():
        if not fact.key:
            made = fact.make(project, partial(sources.fetch, project))
            made.to_csv(project.published / study / f"{name}.csv", index=False, lineterminator="\n")
