"""What commands share: options that several take, the cells they name, and how they print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from persona_studies.errors import ParameterError, quoted, visible
from persona_studies.paths import Project

if TYPE_CHECKING:
    import pandas as pd

    from persona_studies.reproduce.verify import Report

# Everything else is imported where it is used: `--help` and an up-to-date `run` must answer at once.


def given(parameter: list[str] | None, params: str) -> list[str]:
    """Return the parameters of both options, as ``name=value``."""
    from persona_studies.design.parameters import split

    return [*(parameter or []), *split(params)]


def planned(
    project: Project,
    study: str,
    assignments: list[str],
    file: Path | None = None,
    *,
    texts: bool = True,
) -> pd.DataFrame:
    """Return the cells that a study's design asks.

    Args:
        assignments: Parameters as ``name=value``.
        file: What `persona-studies plan` wrote; the cells are then those of this file.
        texts: Whether cells carry their prompts.

    Raises:
        ParameterError: the study asks no model, or two of the arguments exclude each other.
    """
    from persona_studies.design import plan as plans
    from persona_studies.design.protocol import load
    from persona_studies.reproduce import ready

    one_of(file, assignments)
    if file is not None:
        return plans.load(file, study)
    in_force, _ = ready.resolve(project, study, assignments)
    module = ready.study_module(project, study)
    if not hasattr(module, "plan"):
        raise ParameterError(f"{study} asks no model: it analyses what others recorded. Nothing can be planned.")
    cells: pd.DataFrame = module.plan(project, load(project.protocol(study)), in_force, texts=texts)
    measure = str(in_force.model_dump().get("measure"))
    if measure != "primary" and any(one.partition("=")[0].strip() == "measure" for one in assignments):
        # Whoever names a measure wants no other asked.
        cells = plans.of_measures(cells, [measure])
    return cells


def one_of(file: Path | None, assignments: list[str]) -> None:
    """Refuse parameters beside a file whose cells are fixed already."""
    if file is not None and assignments:
        raise ParameterError(
            "Cells are fixed in the file of --plan; give what fixes them to `persona-studies plan`."
        )


def shard_of(text: str) -> tuple[int, int]:
    """Return what ``I/N`` says: the number of a share, and how many there are.

    Raises:
        ParameterError: it is no such text.
    """
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise ParameterError(f"--shard {quoted(text)} is not I/N with I from 1 to N, such as 1/4.")
    return int(part), int(parts)


def short(project: Project, path: Path) -> str:
    """Return a path as messages name it: from the root of the project on."""
    return path.relative_to(project.root).as_posix() if path.is_relative_to(project.root) else str(path)


def print_report(report: Report) -> None:
    """Print a comparison; on a terminal, what differs is red."""
    for artifact in report.artifacts:
        head, *details = artifact.lines()
        typer.secho(head, fg=None if artifact.ok or not sys.stdout.isatty() else "red")
        for line in details:
            say(line)
    say(report.summary())


def complain(text: str) -> None:
    """Print an error, without the control characters of what it quotes."""
    typer.secho(visible(text), err=True, fg="red" if sys.stderr.isatty() else None)


def say(text: str) -> None:
    """Print a line."""
    typer.echo(text)
