"""What is recorded under a model's name, in the logs and in the committed recording, and whether it may go on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from persona_studies.ask import logs, responses, schema
from persona_studies.ask.backends import ModelInfo
from persona_studies.errors import ResponsesError, quoted
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
    """Yield where something is recorded under a name already, and what stands there about its model."""
    target = project.responses(study, name)
    for place, known in (
        *((log, logs.signed(log)) for log in (logs.folder(project, study, name, place) for place in {None, out})),
        (target, responses.description(target)),
    ):
        if known is not None:
            yield place, known


def check_model(project: Project, study: str, info: ModelInfo, out: Path | None = None) -> None:
    """Refuse a model that differs from what is recorded under its name."""
    here = asdict(info)
    for place, known in begun(project, study, info.name, out):
        if (before := known["model"]) != here:
            changed = [name for name in here if before.get(name) != here[name]]
            raise ResponsesError(
                f"{place} was recorded with another {', '.join(changed)} "
                f"({', '.join(str(before.get(name)) for name in changed)}; "
                f"now {', '.join(str(here[name]) for name in changed)}); a recording keeps to one. "
                "Record with what was given the first time, or under another name (--name), "
                "or move that folder away to start anew."
            )


def check_sitting(project: Project, study: str, name: str, sitting: Mapping[str, Any], out: Path | None) -> None:
    """Refuse a sitting whose answers would be to other calls than those under its name, or of another model.

    Args:
        sitting: What :func:`persona_studies.ask.logs.together` keeps of a sitting.

    Raises:
        ResponsesError: a setting has another value than it began with, or the server has another model loaded.
    """
    for place, before in begun(project, study, name, out):
        first, now = before.get("served"), sitting.get("served")
        # A file may have been moved meanwhile.
        if first and now and Path(first).name != Path(now).name:
            raise ResponsesError(
                f"{place} holds answers of what its server calls {quoted(first)}, and now {quoted(now)} answers "
                "under that name. Load the first one again and run the same command, or record this one apart, "
                "with --name."
            )
        settings, others = before.get("settings", {}), sitting.get("settings", {})
        for setting in [each for each in others if each in settings and settings[each] != others[each]]:
            option = f"--{setting.replace('_', '-')}"
            was, now = (json.dumps(each[setting], ensure_ascii=False) for each in (settings, others))
            raise ResponsesError(
                f"{place} was recorded with {option} {quoted(was)}, and now it is {quoted(now)}; answers to "
                f"different calls are not mixed. Run the command with {option} {quoted(was)}, or record apart, "
                "with another --name."
            )
