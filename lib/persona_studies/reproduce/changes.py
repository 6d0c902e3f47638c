"""What a run with other parameters changes: verdicts, decisions, estimates, rows and figures beside the reference.

:mod:`persona_studies.reproduce.verify` asks whether two files are the same. Here rows are matched by
what they are about, so that one persona more is one row added and not every later row changed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from persona_studies import files
from persona_studies.analyse import tables
from persona_studies.design import protocol
from persona_studies.paths import Project
from persona_studies.reproduce import checkout, folders, notebooks, pages, verify

# Names of what an unprefixed `low` and `high` enclose: the nearest of these to their left.
ESTIMATES = ("estimate", "difference", "mean", "drop", "accuracy", "rate", "share", "value", "ratio", "r", "d")
VERDICTS = "verdicts"
VERDICT_KEY = ("claim", "layer")
CHANGED, SAME, ADDED, REMOVED = "changed", "same", "added", "removed"


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval; what is unknown is NaN."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    @property
    def bounded(self) -> bool:
        return not (math.isnan(self.low) or math.isnan(self.high))


@dataclass(frozen=True)
class Estimate:
    """One estimate before and after.

    Attributes:
        table: Stem of the table.
        row: What the row is about.
        name: Column of the estimate.
        old: In the reference.
        new: In this run.
        moved: Whether the estimate itself differs, or only its interval.
    """

    table: str
    row: str
    name: str
    old: Interval
    new: Interval
    moved: bool

    @property
    def outside(self) -> bool:
        """Whether the new estimate lies outside the reference's interval."""
        return self.old.bounded and not math.isnan(self.new.value) and self.new.value not in self.old


@dataclass(frozen=True)
class Verdict:
    """The verdict on a claim before and after; None where the claim is not in one of the two."""

    claim: str
    layer: str
    statement: str
    published: str
    old: tuple[str, Interval, str] | None
    new: tuple[str, Interval, str] | None

    @property
    def status(self) -> str:
        if self.old is None or self.new is None:
            return ADDED if self.old is None else REMOVED
        return SAME if self.old[0] == self.new[0] else CHANGED


@dataclass(frozen=True)
class Decision:
    """A flag (rejected, equivalent, passes, ...) or a row's own verdict that is another one now."""

    table: str
    row: str
    name: str
    old: str
    new: str


@dataclass(frozen=True)
class Table:
    """One table before and after.

    Attributes:
        name: Stem of the file.
        status: Of :mod:`persona_studies.reproduce.verify`.
        key: Columns that say what a row is about.
        rows: Rows that are in both.
        added: What the rows are about that only this run has.
        removed: What the rows are about that only the reference has.
        columns: Columns that one of the two lacks.
        compared: Estimates in rows that are in both.
        estimates: Those that differ.
        decisions: Flags and verdicts of rows that differ.
        others: Column -> other cells that differ.
    """

    name: str
    status: str
    key: tuple[str, ...] = ()
    rows: int = 0
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    compared: int = 0
    estimates: tuple[Estimate, ...] = ()
    decisions: tuple[Decision, ...] = ()
    others: Mapping[str, int] | None = None

    @property
    def shifted(self) -> bool:
        """Whether the two do not have the same rows and columns."""
        return bool(self.added or self.removed or self.columns)


@dataclass(frozen=True)
class Figure:
    """One figure before and after, as pictures where they are there."""

    name: str
    status: str
    detail: str
    old: Path | None
    new: Path | None
    old_alt: str
    new_alt: str


@dataclass(frozen=True)
class Changes:
    """Everything that a run changes against the reference of its study."""

    study: str
    title: str
    record: Mapping[str, Any]
    declared: Mapping[str, Any]
    folder: str
    verdicts: tuple[Verdict, ...]
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...]
    commit: checkout.Commit | None
    no_commit: str
    lock: str

    @property
    def estimates(self) -> list[Estimate]:
        """Estimates that differ: first those outside the reference's interval, then by table."""
        found = [estimate for table in self.tables for estimate in table.estimates]
        return sorted(found, key=lambda estimate: (not estimate.outside, not estimate.moved))

    @property
    def decisions(self) -> list[Decision]:
        return [decision for table in self.tables for decision in table.decisions]

    @property
    def command(self) -> str:
        """The command that repeats the run, with every parameter that is not the notebook's own."""
        given = [f"-p {shlex.quote(text)}" for text in assignments(self.record["overrides"])]
        return " ".join(["persona-studies run", self.study, *given])

    def summary(self) -> Iterator[str]:
        """Yield a line per kind of change, the verdicts that changed by name."""
        changed = [verdict for verdict in self.verdicts if verdict.status != SAME]
        yield f"verdicts: {len(changed)} changed of {len(self.verdicts)}"
        for verdict in changed:
            old, new = (side[0] if side else "absent" for side in (verdict.old, verdict.new))
            yield f"  {verdict.claim} ({verdict.layer}): {old} -> {new}"
        flags = len(self.decisions)
        yield f"decisions in tables (significant, equivalent, gate passed): {flags} changed"
        moved = [estimate for estimate in self.estimates if estimate.moved]
        outside = sum(estimate.outside for estimate in moved)
        only = len(self.estimates) - len(moved)
        yield (
            f"estimates: {len(moved)} changed of {sum(table.compared for table in self.tables)}, "
            f"{outside} of them to a value outside the reference's interval"
            + (f"; {only} with another interval only" if only else "")
        )
        added, removed = (sum(len(getattr(table, side)) for table in self.tables) for side in (ADDED, REMOVED))
        yield f"rows: {added} added, {removed} removed"
        drawn = sum(figure.status not in verify.GOOD for figure in self.figures)
        yield f"figures: {drawn} changed of {len(self.figures)}"


def assignments(overrides: Mapping[str, Any]) -> list[str]:
    """Return parameters as the command line takes them.

    >>> assignments({"alpha": 0.01, "label": "a b", "kinds": ["a", "b"]})
    ['alpha=0.01', 'label=a b', 'kinds=["a", "b"]']
    """
    return [
        f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in overrides.items()
    ]


def compare(project: Project, study: str, folder: Path) -> Changes:
    """Compare a run with the reference of its study.

    Raises:
        PersonaStudiesError: the folder holds no run.
    """
    status = {artifact.name: artifact for artifact in verify.compare(project, study, folder).artifacts}
    record = folders.description(folder)
    assert record is not None  # verify has read it
    allowed = protocol.tolerances(project.protocol(study))
    found: list[Table] = []
    verdicts: tuple[Verdict, ...] = ()
    for name, artifact in status.items():
        kind, _, file = name.partition("/")
        if kind != "tables":
            continue
        stem = Path(file).stem
        pair = project.results(study) / file, folder / kind / file
        if artifact.status in (verify.MISSING, verify.NEW, verify.BROKEN):
            found.append(Table(stem, artifact.status))
            continue
        a, b = (tables.load(path) for path in pair)
        if stem == VERDICTS and {*VERDICT_KEY, "verdict"} <= {*a.columns} & {*b.columns}:
            verdicts = compare_verdicts(a, b)
        found.append(compare_rows(stem, artifact.status, a, b, allowed))
    reference = notebooks.read(project.notebook(study))
    return Changes(
        study=study,
        title=notebooks.title(reference),
        record=record,
        declared=notebooks.parameters(reference),
        folder=folder.relative_to(project.root).as_posix() if folder.is_relative_to(project.root) else str(folder),
        verdicts=verdicts,
        tables=tuple(found),
        figures=tuple(_figures(project, study, folder, status)),
        commit=checkout.commit(project, *checkout.INPUTS),
        no_commit=checkout.absence(project),
        lock=files.sha256(project.root / "uv.lock"),
    )


def compare_verdicts(reference: pd.DataFrame, ours: pd.DataFrame) -> tuple[Verdict, ...]:
    """Return every claim of either table, those whose verdict changed first.

    A claim's first row is compared with its first row, whichever models they are of, and so on.
    """
    sides: list[dict[tuple[str, str, int], dict[Any, Any]]] = []
    for frame in (reference, ours):
        places = frame.groupby([*VERDICT_KEY]).cumcount()
        keys = zip(*(frame[name].astype(str) for name in VERDICT_KEY), places, strict=True)
        sides.append(dict(zip(keys, frame.to_dict("records"), strict=True)))
    found = []
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        rows = [side.get(key) for side in sides]
        known = rows[1] or rows[0] or {}
        old, new = (
            None if row is None else (str(row["verdict"]), _interval(row), _text(row.get("why"))) for row in rows
        )
        claim, layer, _ = key
        found.append(Verdict(claim, layer, _text(known.get("statement")), _text(known.get("published")), old, new))
    return tuple(sorted(found, key=lambda verdict: verdict.status == SAME))


def compare_rows(
    name: str, status: str, reference: pd.DataFrame, ours: pd.DataFrame, tolerance: Mapping[str, float]
) -> Table:
    """Match the rows of two tables by what they are about and compare them.

    Rows are identified by the shortest run of leading text columns (whole numbers after them) that tells them
    apart in both tables, equal ones by their order.

    Args:
        name: Stem of the table.
        status: How the files compare.
        tolerance: By ``table.column``, and ``default``, as :func:`persona_studies.reproduce.verify.compare_tables`.
    """
    keys = _key(reference, ours)
    a, b = _indexed(reference, keys), _indexed(ours, keys)
    both = [index for index in a.index if index in b.index]
    x, y = a.loc[both], b.loc[both]
    shared = [column for column in a.columns if column in b.columns and column not in keys]

    def differs(column: str) -> Any:
        return _differs(
            x[column], y[column], tolerance.get(f"{name}.{column}", tolerance.get("default", verify.TOLERANCE))
        )

    # The estimates of verdicts are those of other tables and are shown with their verdict.
    limits_of = enclosed(x[shared]) if name != VERDICTS else {}
    estimates = []
    for centre, (low, high) in limits_of.items():
        moved, limits = differs(centre), differs(low) | differs(high)
        for place in np.flatnonzero(moved | limits):
            old, new = (
                Interval(*(float(side[column].iloc[place]) for column in (centre, low, high))) for side in (x, y)
            )
            estimates.append(Estimate(name, _label(both[place]), centre, old, new, bool(moved[place])))
    deciding = [column for column in shared if column == "verdict" or (_is_flag(x[column]) and _is_flag(y[column]))]
    decisions = [
        Decision(name, _label(both[place]), column, _text(x[column].iloc[place]), _text(y[column].iloc[place]))
        for column in (deciding if name != VERDICTS else [])
        for place in np.flatnonzero(differs(column))
    ]
    accounted = {*deciding, *limits_of, *(column for limits in limits_of.values() for column in limits)}
    others = {column: int(differs(column).sum()) for column in shared if column not in accounted}
    return Table(
        name,
        status,
        tuple(keys),
        len(both),
        tuple(_label(index) for index in b.index if index not in a.index),
        tuple(_label(index) for index in a.index if index not in b.index),
        tuple(sorted({*a.columns} ^ {*b.columns})),
        len(both) * len(limits_of),
        tuple(estimates),
        tuple(decisions),
        {column: count for column, count in others.items() if count},
    )


def write(project: Project, study: str, folder: Path) -> Changes:
    """Compare a run with the reference, write ``diff.html`` into its folder, and return the comparison."""
    found = compare(project, study, folder)
    pages.write(folder / "diff.html", "diff.html", changes=found)
    return found


def _figures(project: Project, study: str, folder: Path, status: Mapping[str, verify.Artifact]) -> Iterator[Figure]:
    """Yield the figures by name, those that changed first."""
    places = project.figures(study), folder / "figures"
    alts = [_alts(path) for path in (project.notebook(study), folder / f"{study}.ipynb")]
    stems = sorted({Path(name).stem for name in status if name.startswith("figures/")})
    for stem in sorted(stems, key=lambda stem: all(a.ok for a in _of(status, stem))):
        artifacts = _of(status, stem)
        worst = next((a for a in artifacts if not a.ok), artifacts[0])
        old, new = (path if (path := place / f"{stem}.png").is_file() else None for place in places)
        texts = [
            found.get(files.sha256(path), "") if path else "" for found, path in zip(alts, (old, new), strict=True)
        ]
        yield Figure(stem, worst.status, "; ".join(worst.detail), old, new, *texts)


def _of(status: Mapping[str, verify.Artifact], stem: str) -> list[verify.Artifact]:
    """Return how a figure's files compare, the picture before the drawing."""
    names = [f"figures/{stem}{suffix}" for suffix in (".png", ".svg")]
    return [status[name] for name in names if name in status]


def _alts(notebook: Path) -> dict[str, str]:
    """Return the alt texts of a notebook's pictures by the hash of their bytes."""
    return {
        hashlib.sha256(base64.b64decode(output.data["image/png"])).hexdigest(): output.metadata["image/png"]["alt"]
        for cell in notebooks.read(notebook).cells
        for output in cell.get("outputs", [])
        if "alt" in output.get("metadata", {}).get("image/png", {})
    }


def _key(*frames: pd.DataFrame) -> list[str]:
    """Return the leading columns that tell rows apart in every one of the frames."""
    shared = [column for column in frames[0].columns if all(column in frame.columns for frame in frames)]
    kinds = [[pd.api.types.infer_dtype(frame[c], skipna=True) for frame in frames] for c in shared]
    texts = [
        c for c, kind in zip(shared, kinds, strict=True) if set(kind) <= {"string", "empty"} and c != "verdict"
    ]
    numbers = [c for c, kind in zip(shared, kinds, strict=True) if set(kind) == {"integer"}]
    candidates = texts + numbers
    for count in range(1, len(candidates) + 1):
        if not any(frame.duplicated(candidates[:count]).any() for frame in frames):
            return candidates[:count]
    return texts[:1] or candidates[:1]


def _indexed(frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Index a frame by its key, and by the order of rows that share one."""
    texts = [frame[key].map(_text) for key in keys]
    order = frame.groupby(keys, dropna=False, sort=False).cumcount() if keys else pd.Series(range(len(frame)))
    return frame.set_index(pd.MultiIndex.from_arrays([*texts, order]))


def _label(index: tuple[Any, ...]) -> str:
    *texts, order = index
    name = ", ".join(texts)
    return f"{name} ({order + 1})" if order or not name else name


def enclosed(frame: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Return which columns are estimates with an interval, and the columns of its limits.

    >>> enclosed(pd.DataFrame(columns=["mean", "se", "low", "high", "r", "r_low", "r_high"], dtype=float))
    {'mean': ('low', 'high'), 'r': ('r_low', 'r_high')}
    """
    columns = list(frame.columns)
    found: dict[str, tuple[str, str]] = {}
    for column in columns:
        prefix, _, last = column.rpartition("low")
        if last or (prefix and not prefix.endswith("_")) or f"{prefix}high" not in columns:
            continue
        before = [
            name
            for name in columns[: columns.index(column)]
            if (name == prefix.rstrip("_") if prefix else name in ESTIMATES)
            and pd.api.types.is_numeric_dtype(frame[name])
            and name not in found
        ]
        if before:
            found[before[-1]] = (column, f"{prefix}high")
    return found


def _is_flag(values: pd.Series) -> bool:
    return pd.api.types.infer_dtype(values, skipna=True) == "boolean"


def _differs(x: pd.Series, y: pd.Series, allowed: float) -> Any:
    numbers = [pd.api.types.is_numeric_dtype(side) and not pd.api.types.is_bool_dtype(side) for side in (x, y)]
    if all(numbers):
        return ~np.isclose(x.astype(float), y.astype(float), rtol=allowed, atol=allowed, equal_nan=True)
    return ~((x.astype(object) == y.astype(object)) | (x.isna() & y.isna())).to_numpy(dtype=bool)


def _interval(row: Mapping[Any, Any]) -> Interval:
    return Interval(*(float(row.get(column, math.nan)) for column in ("estimate", "low", "high")))


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "empty"
    return {"True": "yes", "False": "no"}.get(str(value), str(value))
