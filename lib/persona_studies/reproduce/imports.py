"""Which modules of the library a run depends on: what its notebook and its folder import, and theirs in turn.

Imports are read from the source, wherever they stand in it. A kernel that imports another module is refused, as a
change of that module would not make the run anew.
"""

from __future__ import annotations

import ast
import json
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import persona_studies
from persona_studies.errors import NotebookError
from persona_studies.paths import Project

LIBRARY = Path(persona_studies.__file__).parent
RUNNER = "persona_studies.reproduce.execute"
"""Executes a notebook and brings it into its committed form."""
ASKING = "persona_studies.ask.backends."
"""Modules that ask a model. Its answers count, which are recorded, and not the way to them."""


def modules(project: Project, study: str) -> dict[str, Path]:
    """Return the modules of the library that a run depends on: name -> file.

    Raises:
        NotebookError: the notebook cannot be read.
    """
    return _reached({RUNNER, *_of_study(project, study)})


def hold_to(project: Project, study: str, *, asks: bool) -> None:
    """Refuse, from now on in this process, a module of the library that :func:`modules` does not name.

    Nothing is refused in JupyterLab, where no runner has named the folder of a run.

    Args:
        study: Whose kernel this is.
        asks: Whether the run may ask a model.

    Raises:
        NotebookError: such a module was imported before.
    """
    if not os.environ.get("PERSONA_STUDIES_OUT"):
        return
    watch = _Watch(study, frozenset(modules(project, study)), asks)
    for name in [*sys.modules]:
        watch.find_spec(name)
    sys.meta_path.insert(0, watch)


class _Watch:
    """A finder of modules that finds none, and refuses what a run may not import."""

    def __init__(self, study: str, known: frozenset[str], asks: bool) -> None:
        self.study, self.known, self.asks = study, known, asks

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name in self.known or not name.startswith("persona_studies."):
            return
        if name.startswith(ASKING):
            if self.asks:
                return
            raise NotebookError(f"{self.study} imports {name} to ask a model; set live_hours above 0.")
        raise NotebookError(
            f"{self.study} imports {name} in a way that cannot be read from its source; write `from "
            f"{name.rpartition('.')[0]} import {name.rpartition('.')[2]}`, so that a change of it makes a new run."
        )


def cells(project: Project, study: str) -> list[list[str]]:
    """Return the type and the source of each cell of a notebook; without nbformat, which takes long to import.

    Raises:
        NotebookError: the file is not a notebook.
    """
    path = project.notebook(study)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return [[cell["cell_type"], "".join(cell["source"])] for cell in found]
    except (ValueError, LookupError, TypeError) as error:
        raise NotebookError(f"{path.name} is not a notebook: {error!r}; restore it with git checkout.") from error


def _of_study(project: Project, study: str) -> Iterator[str]:
    """Yield what a notebook and the modules in its folder import."""
    for kind, text in cells(project, study):
        if kind == "code":
            yield from _imported(text, "")
    for place in sorted(project.folder(study).rglob("*.py")):
        yield from _imported(place.read_bytes(), "")


def _reached(names: set[str]) -> dict[str, Path]:
    """Return the modules behind names, and what these import, with the packages that they lie in."""
    found: dict[str, Path] = {}
    left = sorted(names)
    while left:
        parts = left.pop().split(".")
        for name in (".".join(parts[:k]) for k in range(1, len(parts) + 1)):
            if name in found or name.startswith(ASKING) or parts[0] != "persona_studies":
                continue
            if (place := _file(name)) is not None:
                found[name] = place
                package = name if place.name == "__init__.py" else name.rpartition(".")[0]
                left += _of_file(place, place.stat().st_mtime_ns, package)
    return dict(sorted(found.items()))


def _file(name: str) -> Path | None:
    """Return the file of a module, or None: not every name that is imported from a module is one."""
    place = LIBRARY.joinpath(*name.split(".")[1:])
    return next((p for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()), None)


@cache
def _of_file(place: Path, changed: int, package: str) -> frozenset[str]:
    return frozenset(_imported(place.read_bytes(), package))


def _imported(text: str | bytes, package: str) -> Iterator[str]:
    """Yield the names that a source imports; of one that is no Python, none."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        # Whoever runs it says what is wrong, or, of a line for IPython, the kernel refuses what stands beside it.
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
