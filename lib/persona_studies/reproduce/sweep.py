"""Run one study under many specifications and draw each estimate over all of them.

The specification curve of Simonsohn, Simmons and Nelson (2020, Nature Human Behaviour 4, 1208-1214), its
descriptive part: estimates in order of size, and below them the choices that each rests on. Their joint test under
the null is not computed; it would have to rerun every specification on resampled responses.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from persona_studies.analyse import claims, figures, tables
from persona_studies.errors import PersonaStudiesError
from persona_studies.paths import Project
from persona_studies.reproduce import changes, checkout, folders, grid, pages, processes, ready, runs


@dataclass(frozen=True)
class Specification:
    """One combination of choices.

    Attributes:
        number: Its place in the grid, from 1.
        choices: Parameter -> choice, as it was given.
        overrides: Parameters that differ from the notebook's own.
        folder: Where its run is or will be.
        problem: Why it cannot be run, or did not complete; None otherwise.
        unchanged: Whether its run was there already, of the present inputs.
    """

    number: int
    choices: Mapping[str, str]
    overrides: Mapping[str, Any]
    folder: Path
    problem: str | None = None
    unchanged: bool = False

    @property
    def assignments(self) -> list[str]:
        return [f"{name}={choice}" for name, choice in self.choices.items()]

    @property
    def finished(self) -> bool:
        return folders.description(self.folder) is not None


@dataclass(frozen=True)
class Cell:
    """Another estimate than those of the verdicts: a column of one row of a table.

    Attributes:
        table: Stem of the CSV file.
        row: Texts that the row must hold, each in some column.
        estimate: Column; its interval is found by the names of its neighbours.
    """

    table: str
    row: tuple[str, ...]
    estimate: str


def specifications(project: Project, study: str, choices: Mapping[str, Sequence[str]]) -> list[Specification]:
    """Return every combination of the choices, each checked as far as it can be before a kernel starts.

    One that cannot be run, for want of recorded responses or because two choices exclude each other, says why.
    """
    found = []
    for number, made in enumerate(grid.combinations(choices), start=1):
        given = [f"{name}={choice}" for name, choice in made.items()]
        try:
            _, overrides = ready.resolve(project, study, given)
            folder = runs.place(project, study, overrides)
            unchanged = folders.up_to_date(folder, runs.key(project, study, overrides))
            specification = Specification(number, made, overrides, folder, unchanged=unchanged)
            if not unchanged:
                ready.prepare(project, study, given)
        except PersonaStudiesError as error:
            specification = Specification(number, made, {}, project.runs / study, str(error))
        found.append(specification)
    return found


def run(
    project: Project,
    study: str,
    specified: Sequence[Specification],
    *,
    jobs: int = 1,
    report: Callable[[Specification], None] = lambda _: None,
) -> list[Specification]:
    """Run the specifications that have no problem, each in a process; unchanged ones are passed over.

    Args:
        specified: Of :func:`specifications`.
        jobs: So many at the same time.
        report: Called with each one as it ends.

    Returns:
        The specifications; one whose run did not complete has its reason as problem. An interruption ends the
        running ones cleanly, and a next call goes on from what is finished.
    """
    ended = {specification.number: specification for specification in specified}
    able = {one.number: one for one in specified if one.problem is None and not one.unchanged}
    commands = {
        number: [
            *(sys.executable, "-m", "persona_studies", "run", study),
            *(part for assignment in one.assignments for part in ("-p", assignment)),
        ]
        for number, one in able.items()
    }
    changed = "The inputs of the study changed while the sweep ran; give the same command again."
    with closing(processes.run(project, commands, jobs=jobs)) as finished:
        for number, problem in finished:
            one = able[number]
            ended[number] = replace(one, problem=problem or (None if one.finished else changed))
            report(ended[number])
    return list(ended.values())


def gather(specified: Sequence[Specification], cell: Cell | None = None) -> pd.DataFrame:
    """Collect what every specification that completed came to.

    Args:
        specified: Specifications; those with a problem are passed over.
        cell: Another estimate than the verdicts'.

    Returns:
        One row per specification and claim: ``specification, run``, the parameters of the grid, ``claim, layer,
        statement, estimate, low, high, verdict, why``.

    Raises:
        PersonaStudiesError: a run has no such table, row or column.
    """
    rows = []
    for one in specified:
        if one.problem is None:
            found = _verdicts(one.folder) if cell is None else _cell(one.folder, cell)
            lead = {"specification": one.number, "run": one.folder.name, **one.choices}
            rows += [{**lead, **row} for row in found]
    return pd.DataFrame(rows)


def write(
    project: Project,
    study: str,
    specified: Sequence[Specification],
    cell: Cell | None,
    command: str,
) -> tuple[Path, pd.DataFrame]:
    """Write tables, curves and the page of a sweep into ``runs/<study>/sweep-<key>/``.

    Returns:
        The folder, and one row per claim: ``claim, layer, statement, specifications, lowest, median, highest,
        positive`` (share of estimates above zero) and ``verdicts`` (each with its count).
    """
    folder = _folder(project, study, specified, cell)
    found = gather(specified, cell)
    tables.save(_listed(specified), folder / "specifications.csv")
    tables.save(found, folder / "estimates.csv")
    names = [name for name in specified[0].choices if len({one.choices[name] for one in specified}) > 1]
    own = next((one.number for one in specified if one.problem is None and not one.overrides), None)
    units = claims.units_of(project, study) if cell is None else {}
    curves, summary = [], []
    figures.style()
    for (claim, layer), rows in found.groupby(["claim", "layer"], sort=False):
        drawn = rows.dropna(subset=["estimate"]).sort_values(["estimate", "specification"], ignore_index=True)
        summary.append(_summarised(rows, drawn["estimate"]))
        if len(drawn):
            figure = figures.specification_curve(
                drawn.rename(columns={"verdict": "kind"}),
                names,
                own=own,
                ylabel=_ylabel(cell, units.get(str(claim))),
            )
            stem = re.sub(r"\W+", "-", f"{claim}-{layer}").strip("-").lower() or "curve"
            _, png = figures.save(figure, folder / stem)
            curves.append({**summary[-1], "png": png, "svg": f"{stem}.svg", "alt": _alt(summary[-1], names)})
    pages.write(
        folder / "index.html",
        "sweep.html",
        study=study,
        command=command,
        commit=checkout.commit(project, *checkout.INPUTS),
        specified=specified,
        names=list(specified[0].choices),
        varied=names,
        own=own,
        curves=curves,
        summary=summary,
    )
    return folder, pd.DataFrame(summary)


def _folder(project: Project, study: str, specified: Sequence[Specification], cell: Cell | None) -> Path:
    """Make the folder of a sweep, which is named after its choices and the runs they led to."""
    identity = json.dumps([sorted(str(dict(one.choices)) for one in specified), str(cell)])
    keys = "".join(sorted(one.folder.name for one in specified if one.problem is None))
    name = hashlib.sha256((identity + keys).encode()).hexdigest()[:12]
    folder = project.runs / study / f"sweep-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _listed(specified: Sequence[Specification]) -> pd.DataFrame:
    """Return one row per specification: its number, its choices, its run, and what hindered it."""
    rows = [
        {
            "specification": one.number,
            **one.choices,
            "run": one.folder.name if one.problem is None else None,
            "problem": one.problem,
        }
        for one in specified
    ]
    return pd.DataFrame(rows)


def _summarised(rows: pd.DataFrame, estimates: pd.Series) -> dict[str, Any]:
    """Return what the specifications of one claim in one layer come to."""
    counts = rows["verdict"].value_counts()
    return {
        **{name: rows[name].iloc[0] for name in ("claim", "layer", "statement")},
        "specifications": len(estimates),
        "lowest": estimates.min(),
        "median": estimates.median(),
        "highest": estimates.max(),
        "positive": (estimates > 0).mean() if len(estimates) else float("nan"),
        "verdicts": ", ".join(f"{word} {count}" for word, count in counts.items()),
    }


def _ylabel(cell: Cell | None, unit: str | None) -> str:
    if cell is not None:
        return cell.estimate.replace("_", " ")
    return f"estimate ({unit})" if unit else "estimate"


def _alt(row: Mapping[str, Any], names: Sequence[str]) -> str:
    return (
        f"Specification curve over {', '.join(names) or 'one specification'}: {row['specifications']} estimates "
        f"from {row['lowest']:.3g} to {row['highest']:.3g}, median {row['median']:.3g}, "
        f"{row['positive']:.0%} above zero; verdicts: {row['verdicts']}."
    )


def _verdicts(folder: Path) -> list[dict[str, Any]]:
    frame = _table(folder, changes.VERDICTS)
    columns = ["claim", "layer", "statement", "estimate", "low", "high", "verdict", "why"]
    if absent := [name for name in columns if name not in frame]:
        raise PersonaStudiesError(f"{folder.name}/tables/verdicts.csv lacks the column {', '.join(absent)}.")
    # Of a claim's rows the first decides; others are further models.
    first = frame[columns].drop_duplicates(["claim", "layer"])
    return [{str(name): value for name, value in row.items()} for row in first.to_dict("records")]


def _cell(folder: Path, cell: Cell) -> list[dict[str, Any]]:
    frame = _table(folder, cell.table)
    texts = frame.select_dtypes(exclude="number").astype(str)
    matches = frame[pd.concat([(texts == text).any(axis=1) for text in cell.row], axis=1).all(axis=1)]
    if cell.estimate not in frame:
        present = ", ".join(map(str, frame.columns))
        raise PersonaStudiesError(
            f"{folder.name}/tables/{cell.table}.csv has no column {cell.estimate!r}; it has {present}."
        )
    if len(matches) != 1:
        raise PersonaStudiesError(
            f"{len(matches)} rows of {folder.name}/tables/{cell.table}.csv hold {' and '.join(cell.row)}; "
            "name the row with --row, once per column that tells it apart."
        )
    row = matches.iloc[0]
    low, high = changes.enclosed(frame).get(cell.estimate, (None, None))
    if "rejected" in frame:
        said = "significant" if str(row["rejected"]) == "True" else "not significant"
    else:
        said = str(row["verdict"]) if "verdict" in frame else "no verdict"
    name = ", ".join(cell.row)
    return [
        {
            "claim": f"{cell.table}: {name}",
            "layer": cell.estimate,
            "statement": f"{cell.estimate.replace('_', ' ')} of {name} in {cell.table}.csv",
            "estimate": row[cell.estimate],
            "low": row[low] if low else float("nan"),
            "high": row[high] if high else float("nan"),
            "verdict": said,
            "why": None,
        }
    ]


def _table(folder: Path, name: str) -> pd.DataFrame:
    path = folder / "tables" / f"{name}.csv"
    if not path.is_file():
        present = ", ".join(sorted(p.stem for p in path.parent.glob("*.csv")))
        raise PersonaStudiesError(f"Run {folder.name} wrote no table {name!r}; it wrote {present or 'none'}.")
    return tables.load(path)
