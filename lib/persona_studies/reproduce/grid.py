"""Grids of runs: choices of parameters, every combination of them, and what a workflow engine needs to run them.

:mod:`persona_studies.reproduce.sweep` works a grid off on this machine, ``workflow/Snakefile`` on this one or a
cluster.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from persona_studies import files
from persona_studies.ask import models
from persona_studies.design.parameters import split
from persona_studies.errors import ParameterError, PersonaStudiesError
from persona_studies.paths import Project
from persona_studies.reproduce import ready


def choices(project: Project, study: str, text: str) -> dict[str, list[str]]:
    """Read ``"alpha=0.01,0.05 correction=holm,none"`` and check every choice.

    Choices are separated by commas; those of a parameter that is a list, whose items take the commas, by bars:
    ``"frames=think|think,bare"``.

    Raises:
        ParameterError: everything that is wrong with the grid, at once.
    """
    words = split(text)
    kind = ready.parameters_class(project, ready.known(project, study))
    found: dict[str, list[str]] = {}
    wrong = [] if words else ["The grid names no parameter; give --grid 'alpha=0.01,0.05 correction=holm,none'."]
    for word in words:
        name, _, given = word.partition("=")
        several = name in kind.model_fields and kind.is_list(name)
        found_twice = name in found
        found[name] = given.split("|" if several else ",")
        if found_twice:
            wrong.append(f"Parameter {name!r} is in the grid twice.")
        values = []
        for choice in found[name]:
            try:
                in_force, _ = ready.resolve(project, study, [f"{name}={choice}"] if "=" in word else [word])
                values.append(in_force.model_dump(mode="json")[name])
            except ParameterError as error:
                wrong.append(str(error))
        wrong += [f"Parameter {name!r} takes {v!r} twice." for i, v in enumerate(values) if v in values[:i]]
    if wrong:
        raise ParameterError("\n".join(dict.fromkeys(wrong)))
    return found


def combinations(varied: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Return every combination of the choices, the last parameter changing fastest.

    >>> combinations({"alpha": ["0.01", "0.05"], "seed": ["1"]})
    [{'alpha': '0.01', 'seed': '1'}, {'alpha': '0.05', 'seed': '1'}]
    """
    return [dict(zip(varied, values, strict=True)) for values in itertools.product(*varied.values())]


def workflow(
    project: Project, studies: Sequence[str], text: str, asked: Sequence[str] = (), *, shards: int = 1
) -> tuple[dict[str, Any], list[str]]:
    """Cross studies with the combinations of a grid and with models that are to be recorded first.

    Args:
        text: As :func:`choices` reads it; empty for the notebooks' own parameters.
        asked: Models to record, as :mod:`persona_studies.ask.models` names them; none analyses what is recorded.
        shards: In how many shares each is recorded.

    Returns:
        What ``workflow/Snakefile`` takes as its configuration: ``models`` (name it is recorded under -> model),
        ``shards`` and ``runs`` (study -> name -> parameters; the name is a hash of those that differ from the
        notebook's own, so that a larger grid keeps the names of a smaller one). And why combinations are left out
        that cannot be run, one line each.

    Raises:
        ParameterError: everything that is wrong with the grid, or nothing of it can be run.
        BackendError: a model that cannot be loaded by its name.
    """
    names = {models.known(project, model): model for model in asked}
    if len(names) < len(asked):
        raise ParameterError(f"Of the models {', '.join(asked)} two are recorded under one name; name each once.")
    found: dict[str, dict[str, str]] = {}
    wrong: list[str] = []
    left_out: list[str] = []
    for study in studies:
        ready.known(project, study)
        try:
            varied = choices(project, study, text) if text else {}
        except ParameterError as error:
            wrong += [f"{study}: {line}" for line in str(error).splitlines()]
            continue
        if "live_hours" in varied:
            wrong.append(f"{study}: live_hours is for one run in a notebook; record a grid with --models.")
        if names:
            fields = ready.parameters_class(project, study).model_fields
            parameter = "models" if "models" in fields else "model"
            if parameter in varied:
                wrong.append(f"{study}: the models are named twice, with --models and in the grid.")
            if not hasattr(ready.study_module(project, study), "plan"):
                wrong.append(f"{study}: its module declares no plan, so that no model can be recorded.")
            varied[parameter] = [*names]
        found[study] = {}
        for combination in combinations(varied) if not wrong else []:
            given = [f"{name}={choice}" for name, choice in combination.items()]
            try:
                _, overrides = (ready.resolve if names else ready.prepare)(project, study, given)
            except PersonaStudiesError as error:
                left_out.append(f"{study}, {' '.join(given)}: {error}")
                continue
            name = hashlib.sha256(json.dumps(overrides, sort_keys=True).encode()).hexdigest()[:12]
            found[study][name] = shlex.join(given)
    if wrong:
        raise ParameterError("\n".join(dict.fromkeys(wrong)))
    if not any(found.values()):
        raise ParameterError("\n".join(["No run of this grid can be made.", *left_out]))
    return {"models": names, "shards": shards, "runs": found}, left_out


def save(found: Mapping[str, Any], out: Path) -> None:
    """Write what :func:`workflow` returns as JSON."""
    files.write(out, json.dumps(found, indent=1) + "\n")


def load(path: Path, study: str) -> list[list[str]]:
    """Return the sets of parameters in a file of :func:`save`, each once whatever the model.

    Raises:
        ParameterError: there is no such file, or it has no run of the study.
    """
    try:
        found = [split(text) for text in json.loads(path.read_text(encoding="utf-8"))["runs"][study].values()]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ParameterError(
            f"{path} does not list runs of {study}; write it with: persona-studies grid {study} --out {path}"
        ) from error
    sets = {tuple(given for given in assignments if not given.startswith("model=")) for assignments in found}
    return [list(given) for given in sorted(sets)]
