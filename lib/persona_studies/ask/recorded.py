"""What is recorded under a model's name, in the logs and in the committed recording."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from persona_studies.ask import logs, responses, schema
from persona_studies.ask.backends import ModelInfo
from persona_studies.errors import ResponsesError
from persona_studies.paths import Project


def answers(project: Project, study: str, info: ModelInfo, out: Path | None = None) -> pd.DataFrame:
    """Return every answer there is under a model's name: the logs', and the committed recording's."""
    check_model(project, study, info, out)
    places = [logs.folder(project, study, info.name, place) for place in {None, out}]
    committed = responses.stored(project.responses(study, info.name))
    return schema.merge([committed, *(logs.read(log) for log in places)])


def begun(
    project: Project, study: str, name: str, out: Path | None = None
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield where something is recorded under a name already, and the model that answered there."""
    target = project.responses(study, name)
    for place, known in (
        *((log, logs.signed(log)) for log in (logs.folder(project, study, name, place) for place in {None, out})),
        (target, responses.description(target)),
    ):
        if known is not None:
            yield place, known["model"]


def check_model(project: Project, study: str, info: ModelInfo, out: Path | None = None) -> None:
    """Refuse a model that differs from what is recorded under its name."""
    here = asdict(info)
    for place, before in begun(project, study, info.name, out):
        if before != here:
            changed = [name for name in here if before.get(name) != here[name]]
            raise ResponsesError(
                f"{place} was recorded with another {', '.join(changed)} "
                f"({', '.join(str(before.get(name)) for name in changed)}; "
                f"now {', '.join(str(here[name]) for name in changed)}); a recording keeps to one. "
                "Record with what was given the first time, or under another name (--name), "
                "or move that folder away to start anew."
            )
