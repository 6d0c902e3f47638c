"""Run a study: its notebook is executed unless nothing that it reads has changed.

Everything is checked before a kernel starts (:mod:`persona_studies.reproduce.ready`), and the result appears in one
rename when every cell has completed.

A run's folder holds ``<study>.ipynb``, ``tables/``, ``figures/`` and ``run.json``.

Cells that need a source that is not available are not executed: they keep their committed outputs, below a line
with the address, and ``run.json`` says so under ``not_rebuilt``.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from persona_studies import files
from persona_studies.errors import RunError
from persona_studies.paths import Project
from persona_studies.reproduce import execute, folders, imports, reads, ready


@dataclass(frozen=True)
class Run:
    """A completed run.

    Attributes:
        study: Name of the study.
        folder: Where notebook, tables and figures are.
        fresh: Whether it was executed now; False when an unchanged one was found.
        overrides: Parameters that differ from the notebook's own.
        not_rebuilt: Sources that could not be had, by the name that cells give them -> address.
    """

    study: str
    folder: Path
    fresh: bool
    overrides: dict[str, Any]
    not_rebuilt: dict[str, str] = field(default_factory=dict)


def key(project: Project, study: str, overrides: Mapping[str, Any]) -> dict[str, str]:
    """Return a hash of every input that can change a run, by kind.

    The notebook counts with its sources, not its outputs.

    Raises:
        NotebookError: the file is not a notebook.
    """
    library = _tree(imports.LIBRARY, imports.modules(project, study).values())
    return {
        "notebook": _digest(json.dumps(imports.cells(project, study)).encode()),
        "code": _digest((_tree(project.root, [project.folder(study)], "*.py") + library).encode()),
        "lock": _tree(project.root, [project.root / "uv.lock"]),
        "protocol": _tree(project.root, [project.folder(study)], "*.toml"),
        "data": _tree(project.root, reads.data(project, study)),
        "sources": _digest(json.dumps(reads.pins(project, study), sort_keys=True).encode()),
        "responses": _tree(project.root, [project.responses(study)]),
        "parameters": _digest(json.dumps(overrides, sort_keys=True).encode()),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
    }


def place(project: Project, study: str, overrides: Mapping[str, Any]) -> Path:
    """Return the folder of the run with these parameters, whether it has been made or not."""
    if not overrides:
        return project.build / study
    expected = key(project, study, overrides)
    return project.runs / study / _digest(json.dumps(expected, sort_keys=True).encode())[:12]


def seconds(project: Project, study: str) -> float | None:
    """Return how long a run of a study took here, the median of those whose time is known."""
    name = "*.persona-studies-seconds"
    times = [*project.build.glob(f".{study}{name[1:]}"), *(project.runs / study).glob(f".{name}")]
    known = [float(path.read_text()) for path in times]
    return median(known) if known else None


def unchanged(project: Project, study: str) -> Run | None:
    """Return the run in ``build/`` when neither its inputs nor its outputs have changed, and None otherwise.

    A run that left out what needed a source is unchanged as long as that source is not available.
    """
    folder = project.build / study
    if not folders.up_to_date(folder, key(project, study, {})):
        return None
    left_out: dict[str, str] = (folders.description(folder) or {})["not_rebuilt"]
    if left_out and left_out != ready.lacking(project, study):
        return None
    return Run(study, folder, False, {}, left_out)


def run(
    project: Project,
    study: str,
    assignments: Iterable[str] = (),
    *,
    out: Path | None = None,
    force: bool = False,
) -> Run:
    """Execute a study's notebook.

    Args:
        assignments: Parameters as ``name=value``. Without any, the run is the one that is compared with the
            reference and goes to ``build/<study>``; with some, to ``runs/<study>/<key>``.
        out: Another folder: new, empty, or of an earlier run of this study. What others put into it stays.
        force: Execute although nothing has changed.

    Raises:
        ParameterError, NotebookError: before anything is started.
        RunError: a cell failed, ended the kernel or took too long (``<name>.failed.ipynb`` beside the
            folder shows where), or the file system refused; an earlier result stays as it was.
        SourceUnavailable: with other parameters, a source that cells need is not available.
    """
    ready.known(project, study)
    assignments = list(assignments)
    if out is not None:
        # The kernel works in another folder: a relative path would mean another place there.
        out = out.resolve()
        folders.check_free(project, study, out)
    if not assignments and not force and out is None and (found := unchanged(project, study)):
        return found
    in_force, overrides = ready.prepare(project, study, assignments)
    # A cell that asks the model may take the hours that were granted for that, and its own time.
    allowed = execute.CELL_SECONDS + 3600 * (in_force.model_dump().get("live_hours") or 0.0)
    lacking = ready.lacking(project, study)
    expected = key(project, study, overrides)
    folder = out or place(project, study, overrides)
    folders.check_free(project, study, folder)
    from filelock import FileLock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folders.beside(folder, "lock")):
            folders.mend(folder)
            there = folders.description(folder) or {}
            if not force and folders.up_to_date(folder, expected) and there["not_rebuilt"] == lacking:
                return Run(study, folder, False, overrides, lacking)
            made = {
                "study": study,
                "key": expected,
                "parameters": in_force.model_dump(mode="json"),
                "overrides": overrides,
                "not_rebuilt": lacking,
            }
            _make(project, study, folder, made, allowed)
    except OSError as error:
        raise RunError(f"{study} did not complete: {error}. What was in {folder} before is still there.") from error
    return Run(study, folder, True, overrides, lacking)


def _make(project: Project, study: str, folder: Path, made: dict[str, Any], allowed: float) -> None:
    """Execute a notebook and put the finished run into its folder, with ``run.json``, which says what was made."""
    with folders.partial(folder) as partial:
        started = time.perf_counter()
        failed = folder.parent / f"{folder.name}.failed.ipynb"
        execute.execute(project, study, made["overrides"], partial, failed, made["not_rebuilt"], allowed)
        outputs = {path.relative_to(partial).as_posix(): files.sha256(path) for path in folders.contents(partial)}
        said = json.dumps({**made, "outputs": outputs}, indent=1) + "\n"
        (partial / "run.json").write_text(said, encoding="utf-8")
        folders.swap(partial, folder)
        # Beside the run, whose own files are the same whenever it is made.
        folders.beside(folder, "seconds").write_text(f"{time.perf_counter() - started:.1f}\n")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _tree(root: Path, places: Iterable[Path], pattern: str = "*") -> str:
    """Hash files and the files below folders, by name and content."""
    total = hashlib.sha256()
    for place in places:
        found = sorted(place.rglob(pattern)) if place.is_dir() else [place] if place.is_file() else []
        for path in found:
            if path.is_file() and "__pycache__" not in path.parts:
                total.update(Path(os.path.relpath(path, root)).as_posix().encode() + b"\0")
                total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
