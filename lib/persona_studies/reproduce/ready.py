"""Everything about a run that can be checked before a kernel starts."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from persona_studies.errors import NotebookError, ParameterError, RunError, SourceUnavailable, nearest, quoted
from persona_studies.paths import Project

if TYPE_CHECKING:
    import pandas as pd

    from persona_studies.design.parameters import Parameters
    from persona_studies.design.protocol import Protocol


def known(project: Project, study: str) -> str:
    """Return the name of a study, or refuse it with the nearest one.

    Raises:
        ParameterError: no such study.
    """
    names = project.names()
    if study not in names:
        hint = nearest(study, names)
        raise ParameterError(f"Unknown study {quoted(study)}.{hint} Studies: {', '.join(names) or 'none'}.")
    return study


def resolve(project: Project, study: str, assignments: Iterable[str]) -> tuple[Parameters, dict[str, Any]]:
    """Check parameters given as ``name=value`` against the notebook and its types.

    Returns:
        The parameters in force, and those that differ from the notebook's own.

    Raises:
        ParameterError: a name or value is wrong.
        NotebookError: the notebook's parameters cell is, or the study opens or imports another one.
    """
    from persona_studies.reproduce import notebooks

    path = project.notebook(known(project, study))
    try:
        defaults = notebooks.parameters(notebooks.read(path))
    except NotebookError as error:
        raise NotebookError(f"{path.name}: {str(error).removeprefix(f'{path.name} ')}") from error
    if foreign := notebooks.foreign(project, study):
        more = f" ({len(foreign) - 1} more such places)" if len(foreign) > 1 else ""
        raise NotebookError(f"{foreign[0]}{more}")
    model = parameters_class(project, study)
    given = model.parse(assignments)
    in_force = model.check({**defaults, **given})
    values = in_force.model_dump(mode="json")
    return in_force, {name: values[name] for name in given if values[name] != defaults.get(name)}


def prepare(project: Project, study: str, assignments: Iterable[str]) -> tuple[Parameters, dict[str, Any]]:
    """Check everything about a run that can be checked before a kernel starts.

    Returns:
        As :func:`resolve`.

    Raises:
        ParameterError: a name or value is wrong, or the plan reaches beyond what is recorded.
        NotebookError: the notebook's parameters cell is wrong.
        ResponsesError: the recording is damaged.
        SourceUnavailable: cells need an external source that is not available.
    """
    assignments = list(assignments)
    in_force, overrides = resolve(project, study, assignments)
    # A run that may ask the model itself needs no recording.
    if not in_force.model_dump().get("live_hours"):
        # A study without a plan asks nobody: its models are those of somebody else's data.
        given = in_force.model_dump() if hasattr(study_module(project, study), "plan") else {}
        for parameter, model in [
            ("model", given.get("model")),
            *((name, m) for name in ("models", "compare") for m in given.get(name, ())),
        ]:
            _recorded(project, study, parameter, model)
        if overrides:
            _covered(project, study, in_force, assignments)
    if overrides and (absent := lacking(project, study)):
        raise SourceUnavailable(
            f"{study} cannot be run with {', '.join(overrides)} changed: its cells need {', '.join(absent)}, and "
            f"{', '.join(absent.values())} are not available. Run again with a connection, or name a folder with a "
            "copy in PERSONA_STUDIES_MIRROR; without other parameters the committed results are shown."
        )
    return in_force, overrides


def study_module(project: Project, study: str, name: str = "design") -> ModuleType:
    """Import ``studies/<study>/<name>.py`` as the study's notebook does.

    Raises:
        RunError: the study has no such module.
    """
    path = project.folder(study) / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"persona_studies_study_{study}_{name}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise RunError(f"No module {study}/{path.name}; a study declares its Parameters there.")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pydantic look a class's module up by name.
    sys.modules[spec.name] = module
    # A study's modules import one another, as they do in a kernel that runs in studies/.
    sys.path.insert(0, str(project.studies))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(project.studies))
    return module


def parameters_class(project: Project, study: str) -> type[Parameters]:
    """Return the class ``Parameters`` of a study's module.

    Raises:
        RunError: the study has no module, or its module no such class.
    """
    module = study_module(project, study)
    try:
        found: type[Parameters] = module.Parameters
    except AttributeError as error:
        raise RunError(f"{study}/design.py declares no class Parameters.") from error
    return found


def lacking(project: Project, study: str) -> dict[str, str]:
    """Return the sources that a notebook's cells need and that are not available -> address."""
    from persona_studies.design import sources
    from persona_studies.reproduce import notebooks

    patterns = notebooks.source_patterns(notebooks.read(project.notebook(study)))
    return sources.unavailable(project, patterns) if patterns else {}


def _recorded(project: Project, study: str, parameter: str, model: str | None) -> None:
    """Refuse a model that has no recording."""
    from persona_studies.ask import recorded, responses, unfinished
    from persona_studies.ask.models import slug

    known = responses.recordings(project, study)
    if model == "":
        responses.meant(project, study, model)
    elif model is not None and slug(model) not in known:
        if (project.recordings / study / slug(model) / "model.json").is_file():
            _, begun = next(recorded.begun(project, study, slug(model)))
            raise ParameterError(
                f"Parameter {parameter!r} cannot be {quoted(model)}: its recording for {study} is not packed. To "
                f"go on with it: {unfinished.to_record(project, study, begun, '')}; to analyse what is complete: "
                f"persona-studies pack {study} {slug(model)} --partly"
            )
        several = [name for name in re.split(r"[\s;|+]+", model) if name]
        if len(several) > 1 and all(slug(name) in known for name in several):
            raise ParameterError(
                f"Parameter {parameter!r} cannot be {quoted(model)}: models are separated by commas, "
                f"{parameter}={','.join(several)}"
            )
        hint = nearest(model, known)
        raise ParameterError(
            f"Parameter {parameter!r} cannot be {quoted(model)}: it has no recorded responses for {study}.{hint} "
            f"Recorded: {', '.join(known) or 'none'}. To record it: make record STUDY={study} "
            f"MODEL={shlex.quote(model)}"
        )


def _covered(project: Project, study: str, in_force: Parameters, assignments: list[str]) -> None:
    """Refuse a plan that reaches beyond what is recorded, where a study declares its plan.

    Raises:
        ParameterError: a planned cell has no recorded response.
        ResponsesError: the recording is damaged.
    """
    module = study_module(project, study)
    if not hasattr(module, "plan"):
        return
    from persona_studies.ask import responses
    from persona_studies.ask.models import slug
    from persona_studies.design import protocol

    declared = protocol.load(project.protocol(study))
    wanted = module.plan(project, declared, in_force)
    given = in_force.model_dump()
    if "models" in given:
        # None named: all that are recorded.
        asked = given["models"] or responses.recordings(project, study)
    else:
        asked = [responses.meant(project, study, given["model"])]
    for model in asked:
        if model:
            _covered_by(project, study, slug(model), declared, wanted, in_force, assignments)


def _covered_by(
    project: Project,
    study: str,
    model: str,
    declared: Protocol,
    wanted: pd.DataFrame,
    in_force: Parameters,
    assignments: list[str],
) -> None:
    """Refuse planned cells that one model's recording lacks.

    A study with the parameter ``models`` leaves out measures of a recording in progress that are not complete, and
    of models that it was not told a model without a complete measure.
    """
    import pandas as pd

    from persona_studies.ask import responses, schema, unfinished
    from persona_studies.design.plan import IDENTITY

    folder = project.responses(study, model)
    record = responses.description(folder) or {"files": {}, "model": {"name": model}}
    files = record["files"]
    stored = [
        responses.read_parquet(folder / name, file["sha256"])
        for name, file in files.items()
        if (folder / name).is_file()
    ]
    rows = pd.concat([wanted[IDENTITY].head(0), *stored])
    part = unfinished.incomplete(record)
    counts = record.get("unfinished", {})
    whole = [name for name, n in counts.get("planned", {}).items() if counts["recorded"].get(name, 0) >= n]
    named = in_force.model_dump().get("models")
    if part and named is not None and (whole or not named):
        wanted, part = wanted[wanted["measure"].isin(whole)], ""
    elif not part:
        wanted = _held(project, study, model, wanted, rows, declared, in_force)
    wanted = schema.as_recorded(wanted, rows)[IDENTITY]
    recorded = pd.MultiIndex.from_frame(rows[IDENTITY])
    absent = wanted[~pd.MultiIndex.from_frame(wanted).isin(recorded)]
    if len(absent):
        first = ", ".join(f"{name} {value}" for name, value in absent.iloc[0].items())
        given = " ".join(assignments)
        if part:
            raise ParameterError(
                f"Parameter {'model' if named is None else 'models'!r} cannot be {model!r}: its recording for "
                f"{study} is {part}{', and none of its measures is complete' if named else ''}. "
                f"To complete it: {unfinished.to_record(project, study, record, given)}"
            )
        raise ParameterError(
            f"With {given} the plan reaches beyond what is recorded for {model}: {len(absent):,} of "
            f"{len(wanted):,} planned cells have no response, first {first}. "
            f"To record them: {unfinished.to_record(project, study, record, given)}"
        )


def _held(
    project: Project,
    study: str,
    model: str,
    wanted: pd.DataFrame,
    rows: pd.DataFrame,
    declared: Protocol,
    in_force: Parameters,
) -> pd.DataFrame:
    """Return the cells of the measures that a recording holds; a model need not answer every measure.

    Raises:
        ParameterError: the measure that was asked for is not one of them.
    """
    held = {*rows["measure"]}
    if not held:
        return wanted
    asked = in_force.model_dump().get("measure")
    kinds = {*wanted.loc[wanted["measure"].isin(held), "kind"]}
    if asked not in (None, "primary") and asked not in held | kinds:
        raise ParameterError(
            f"measure={asked} is not in the recording of {model}, which holds {', '.join(sorted(held))}. "
            f"Leave measure out, or record it: --measures {asked}"
        )
    absent = {*wanted["measure"]} - held
    if not absent:
        return wanted
    # What only the given parameters ask for cannot be left out.
    usual = study_module(project, study).plan(project, declared, resolve(project, study, [])[0])
    return wanted[wanted["measure"].isin(held) | ~wanted["measure"].isin({*usual["measure"]})]
