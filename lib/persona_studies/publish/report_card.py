"""A model's report card: what personas do to one model, in the measures of all model studies, on one page.

A study takes part with ``report.py`` in its folder: ``MEASURES`` (measure -> what the card says of it), ``turns``
(the turn in which each cell of its latest protocol is asked; a turn is balanced over conditions and holds every
option order) and ``card`` (numbers and checks of the gate, from responses). The quick cells are whole turns of all
studies, as many as fit into :data:`QUICK` cells.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from persona_studies.analyse import numbers, tables
from persona_studies.ask import models, recorded, recording, registry, schema
from persona_studies.ask import workers as processes
from persona_studies.ask.backends import Backend, ModelInfo, kinds
from persona_studies.design import protocol as protocols
from persona_studies.design.protocol import Protocol
from persona_studies.errors import ParameterError, ResponsesError, SourceUnavailable, quoted
from persona_studies.paths import Project
from persona_studies.reproduce import ready

QUICK = 400
# A row of the log has about 1,500 bytes, and a reply at most as many more.
BYTES_PER_CELL = 4_000
GROUP = ["measure", "condition", "item", "template"]

Say = Callable[[str], None]
Infos = Mapping[str, ModelInfo]
"""Study -> the model that answers there: one model, whose recordings may differ in precision."""


@dataclass(frozen=True)
class Part:
    """What one study contributes.

    Attributes:
        study: Its name.
        protocol: Its latest protocol.
        module: Its ``report.py``.
        whole: Every cell that the protocol declares.
        plan: Those that the card is about, with ``turn``.
    """

    study: str
    protocol: Protocol
    module: ModuleType
    whole: pd.DataFrame
    plan: pd.DataFrame


@dataclass(frozen=True)
class Card:
    """The numbers of one model.

    Attributes:
        model: Its name.
        numbers: ``study`` and :data:`persona_studies.analyse.numbers.COLUMNS`; ``gate`` (passed, failed or partly)
            and ``checks``, in words.
        checks: ``study`` and :data:`persona_studies.analyse.numbers.CHECKS`.
        used: Study -> its responses behind the numbers.
    """

    model: str
    numbers: pd.DataFrame
    checks: pd.DataFrame
    used: Mapping[str, pd.DataFrame] = field(default_factory=dict)


# --- Cells --------------------------------------------------------------------------------------------------------


def parts(project: Project, say: Say, *, texts: bool = True) -> list[Part]:
    """Return what every study contributes.

    Args:
        say: Is told of a study whose sources are not available, which is left out.
        texts: Whether texts are wanted, which recording needs and the numbers do not.

    Raises:
        ParameterError: no study takes part.
        SourceUnavailable: of none can the sources be had.
    """
    found, lacking = [], None
    for study in project.names():
        if not (project.folder(study) / "report.py").is_file():
            continue
        in_force, _ = ready.resolve(project, study, [])
        declared = protocols.load(project.protocol(study))
        try:
            whole = ready.study_module(project, study).plan(project, declared, in_force, texts=texts)
        except SourceUnavailable as error:
            lacking = error
            say(f"{study} is left out of the card: {error}")
            continue
        module = ready.study_module(project, study, "report")
        found.append(
            Part(study, declared, module, whole, whole.assign(turn=module.turns(project, declared, whole)))
        )
    if not found:
        raise lacking or ParameterError("No study has a report.py, which says what a card shows of it.")
    return found


def of_kinds(found: Sequence[Part], measures: str | None) -> list[Part]:
    """Return the cells of the kinds of measures that ``--measures`` names; all where it names none.

    Raises:
        ParameterError: an unknown kind.
    """
    known = {kind for part in found for kind in part.plan["kind"]}
    wanted = known if measures is None else {name.strip() for name in measures.split(",")}
    if unknown := sorted(wanted - known):
        raise ParameterError(
            f"--measures {quoted(unknown[0])} is not a kind of measure of a card: {', '.join(sorted(known))}."
        )
    plans = [(part, part.plan[part.plan["kind"].isin(wanted)].reset_index(drop=True)) for part in found]
    return [replace(part, plan=plan) for part, plan in plans if len(plan)]


def askers(project: Project, found: Sequence[Part], model: str, how: Mapping[str, Any]) -> dict[str, Backend]:
    """Load a model for every study, in the precision of what the study has recorded of it; once per precision.

    Args:
        model: As :mod:`persona_studies.ask.models` describes.
        how: Arguments of :func:`persona_studies.ask.recording.load`.

    Raises:
        BackendError: the model cannot be loaded.
        ResponsesError: what is recorded under its name is damaged.
    """
    called = models.known(project, model, how["name"])
    loaded: dict[str | None, Backend] = {}
    made = {}
    # Where something is recorded already, it decides; the others take what was loaded first.
    begun = {part.study: next(recorded.begun(project, part.study, called), None) for part in found}
    for part in sorted(found, key=lambda part: begun[part.study] is None):
        facts = begun[part.study]
        precision = facts[1]["model"]["precision"] if facts is not None else next(iter(loaded), None)
        if precision not in loaded:
            loaded[precision] = recording.load(project, part.study, model, **how)
        made[part.study] = loaded[precision]
    return {part.study: made[part.study] for part in found}


def wanted(
    left: Sequence[Part], askers: Mapping[str, Backend], *, workers: int | None, threads: int | None
) -> dict[int, int]:
    """Return how many processes serve the recording, as ``record`` has them: id of a model -> number."""
    cells: dict[int, int] = {}
    for part in left:
        cells[id(askers[part.study])] = cells.get(id(askers[part.study]), 0) + len(part.plan)
    by_id = {id(asker): asker for asker in askers.values()}
    return {
        key: processes.wanted(by_id[key], cells=count, workers=workers, threads=threads)
        for key, count in cells.items()
    }


def spread(
    project: Project, askers: Mapping[str, Backend], model: str, how: Mapping[str, Any], numbers: Mapping[int, int]
) -> dict[str, Backend]:
    """Return the model in so many processes, of :func:`wanted`."""
    made: dict[int, Backend] = {}
    for asker in askers.values():
        number = numbers.get(id(asker), 1)
        if id(asker) not in made:
            arguments = {**how, "name": asker.info.name, "recorded": asdict(asker.info), "endpoint": None}
            again = partial(models.load, project, model, **arguments)
            made[id(asker)] = processes.Workers(asker, again, number) if number > 1 else asker
    return {study: made[id(asker)] for study, asker in askers.items()}


def answerable(found: Sequence[Part], backend: Backend, say: Say) -> tuple[list[Part], list[str]]:
    """Return the cells that a model can be asked, and in words what a reader must know: which numbers are missing.

    Raises:
        ParameterError: it can be asked nothing.
        BackendError: an endpoint does not answer.
    """
    answered, why_not, note = kinds(backend)
    kept, notes = [], [note] if note else []
    for kind, why in why_not.items():
        names = [
            f"{part.study}: {part.module.MEASURES[measure]}"
            for part in found
            for measure in part.module.MEASURES
            if part.protocol.measures[measure].kind == kind
        ]
        if names:
            notes.append(f"Missing for want of `{kind}` ({why}): {'; '.join(names)}.")
    for line in notes:
        say(line)
    for part in found:
        plan = part.plan[part.plan["kind"].isin(answered)]
        if len(plan):
            kept.append(replace(part, plan=plan.reset_index(drop=True)))
    if not kept:
        raise ParameterError(
            f"{backend.info.name} answers {', '.join(answered)} only, and no such measure is wanted of the card."
        )
    return kept, notes


def quick(found: Sequence[Part]) -> list[Part]:
    """Return the quick cells: the first turns of all studies, whole, as many as fit into :data:`QUICK` cells.

    Raises:
        ParameterError: the first turn alone is larger.
    """
    last = _last(found)
    if last < 0:
        raise ParameterError(
            f"The first turns of the studies' report.py hold more than {QUICK} cells; make them less."
        )
    kept = [replace(part, plan=part.plan[part.plan["turn"] <= last].reset_index(drop=True)) for part in found]
    return [part for part in kept if len(part.plan)]


def _last(found: Sequence[Part]) -> float:
    """Return the last of the quick turns; -1 where not even the first fits."""
    turns = pd.concat([part.plan["turn"] for part in found]).dropna()
    size = turns.value_counts().sort_index().cumsum()
    fitting = size[size <= QUICK]
    return float(fitting.index[-1]) if len(fitting) else -1.0


def to_ask(project: Project, found: Sequence[Part], infos: Infos, cells: int | None) -> list[Part]:
    """Return the cells without a response, at most so many: by turn, and after all turns study by study.

    Raises:
        ParameterError: the cap is smaller than what the first turn lacks, or the disk is too small.
        ResponsesError: what is recorded is damaged, or came from another model.
    """
    left = unanswered(project, found, infos)
    queue = pd.concat([part.plan["turn"].reset_index(drop=True) for part in left], keys=range(len(left)))
    least = int((queue == 0).sum())
    if cells is not None and cells < least:
        raise ParameterError(
            f"--cells {cells} is less than the {least} cells of the first turn, in which position cancels and "
            f"every condition is met; give --cells {least} or more."
        )
    first = queue.sort_values(kind="stable").index[:cells] if cells is not None else queue.index
    taken = [
        replace(part, plan=part.plan.iloc[sorted(place for of, place in first if of == number)])
        for number, part in enumerate(left)
    ]
    needed = BYTES_PER_CELL * len(first)
    if (free := shutil.disk_usage(project.root).free) < needed:
        raise ParameterError(
            f"{len(first):,} answers take up to {needed / 1e6:,.0f} MB, and the disk of {project.root} has "
            f"{free / 1e6:,.0f} MB free. Make room, or ask fewer: --cells N."
        )
    return [part for part in taken if len(part.plan)]


def unanswered(project: Project, found: Sequence[Part], infos: Infos) -> list[Part]:
    """Return the cells without a response."""
    return [
        replace(part, plan=recording.pending(project, part.study, part.plan, infos[part.study])) for part in found
    ]


def by_kind(left: Sequence[Part]) -> pd.DataFrame:
    """Return the cells of all studies as one plan whose measures are their kinds, which is what time depends on."""
    whole = pd.concat([part.plan for part in left], ignore_index=True)
    return whole.assign(measure=whole["kind"])


def record(
    project: Project, left: Sequence[Part], askers: Mapping[str, Backend], hours: float | None
) -> tuple[str | None, int]:
    """Ask what is left: the quick turns of all studies, then the other turns, then the rest.

    Args:
        left: Cells without a response.
        askers: Study -> the model, in the precision that the study is recorded in.

    Returns:
        The cap that ended it, or None; and how many cells failed.
    """
    if not left:
        return None, 0
    started, failed = time.perf_counter(), 0
    last = max(_last(left), 0.0)
    for stage in (0, 1, 2):
        for part in left:
            turn = part.plan["turn"]
            cells = (
                part.plan[np.select([turn.isna(), turn > last], [2, 1], 0) == stage]
                .drop(columns="turn")
                .reset_index(drop=True)
            )
            if cells.empty:
                continue
            rest = None if hours is None else hours - (time.perf_counter() - started) / 3600
            if rest is not None and rest <= 0:
                return f"the cap of {hours:g} hours", failed
            done = recording.record(project, part.study, cells, askers[part.study], hours=rest)
            failed += done.failed
            if done.stopped:
                return f"the cap of {hours:g} hours" if done.stopped.endswith("hours") else done.stopped, failed
    return None, failed


# --- Numbers ------------------------------------------------------------------------------------------------------


def card(project: Project, found: Sequence[Part], model: str, rows: Mapping[str, pd.DataFrame]) -> Card:
    """Return the numbers of one model.

    Args:
        rows: Study -> its responses.
    """
    tables, checks, used = [], [], {}
    for part in found:
        mine = _in_whole(part, rows.get(part.study, pd.DataFrame()))
        if mine.empty:
            continue
        made, checked = part.module.card(project, part.protocol, mine)
        states = {name: _state(checked[checked["part"] == name]) for name in made["part"].unique()}
        made = made.assign(
            study=part.study,
            gate=[states[name][0] for name in made["part"]],
            checks=[states[name][1] for name in made["part"]],
        )
        tables.append(made)
        checks.append(checked.assign(study=part.study))
        used[part.study] = mine
    columns = ["study", *numbers.COLUMNS, "gate", "checks"]
    made = pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)
    order = made["section"].map({name: place for place, name in enumerate(numbers.SECTIONS)})
    made = made.loc[order.sort_values(kind="stable").index].reset_index(drop=True)
    all_checks = (
        pd.concat(checks, ignore_index=True) if checks else pd.DataFrame(columns=["study", *numbers.CHECKS])
    )
    return Card(model, made, all_checks, used)


def _in_whole(part: Part, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the responses of cells that are answered in every planned option order, in the plan's order."""
    if rows.empty:
        return rows
    kind = rows["measure"].map(dict(zip(part.plan["measure"], part.plan["kind"], strict=True)))
    rows = rows[(rows["finish"] != "failed") | (kind == "text")]
    plan = schema.as_recorded(part.plan, rows)
    whole = answered(plan, rows).groupby([plan[name] for name in GROUP], sort=False).transform("all")
    found: pd.DataFrame = plan.loc[whole, schema.KEY].merge(rows, on=schema.KEY)
    return found


def answered(plan: pd.DataFrame, rows: pd.DataFrame) -> pd.Series:
    """Return which cells of a plan have a response among rows."""
    there = np.isin(schema.digest(schema.as_recorded(plan, rows)), schema.digest(rows))
    return pd.Series(there, index=plan.index)


def _state(checks: pd.DataFrame) -> tuple[str, str]:
    """Return whether a part of a gate is passed, and its checks in words.

    ``partly``: what was asked passes, and something was not asked.
    """
    known = checks["value"].notna()
    failed = checks[known & ~checks["passes"].astype(bool)]
    rules, said = {">=": "at least", "<=": "at most"}, []
    for row in failed.to_dict("records"):
        value, threshold = tables.beside(row["value"], row["threshold"], least=2)
        said.append(f"{row['check']} {value}, must be {rules[row['rule']]} {threshold}")
    if unknown := checks.loc[~known, "check"].tolist():
        said.append(f"not measured by these cells: {', '.join(unknown)}")
    return ("failed" if len(failed) else "partly" if unknown or checks.empty else "passed"), "; ".join(said)


def others(project: Project, found: Sequence[Part], mine: Card, say: Say) -> list[Card]:
    """Return the cards of the models that are recorded, on the very cells of a card.

    A model takes part in a measure when it has answered all those cells. A model of a protocol whose recording is
    not complete is not looked at.

    Args:
        say: Is told of a recording that is damaged.
    """
    rows: dict[str, dict[str, pd.DataFrame]] = {}
    for part in found:
        if part.study not in mine.used:
            continue
        used = mine.used[part.study]
        places = [*project.responses(part.study).glob("*"), *(project.recordings / part.study).glob("*")]
        for name in sorted({place.name for place in places if place.is_dir()} - {mine.model}):
            try:
                theirs = list(_same_cells(project, part, used, name))
            except (ResponsesError, ParameterError) as error:
                say(f"{name} is left out of the comparison: {error}")
                continue
            if theirs:
                rows.setdefault(name, {})[part.study] = pd.concat(theirs, ignore_index=True)
    return [made for name in sorted(rows) if len((made := card(project, found, name, rows[name])).numbers)]


def _same_cells(project: Project, part: Part, used: pd.DataFrame, name: str) -> Iterator[pd.DataFrame]:
    """Yield another model's responses to the cells of each measure that it has answered in full."""
    info = _info(project, part.study, name)
    if info is None or incomplete_look(project, part, info):
        return
    rows = recorded.answers(project, part.study, info)
    for _, cells in used.groupby("measure", sort=False):
        theirs = cells[schema.KEY].merge(rows, on=schema.KEY)
        if len(theirs) == len(cells):
            yield theirs


def _info(project: Project, study: str, name: str) -> ModelInfo | None:
    """Return what answered under a name, packed or in the logs."""
    facts = next(recorded.begun(project, study, name), None)
    return None if facts is None else ModelInfo(**facts[1]["model"])


def incomplete_look(project: Project, part: Part, info: ModelInfo) -> bool:
    """Return whether a model is one that the protocol declares, and has not answered its whole plan yet.

    Looking at its responses then is a look before the stopping rule allows one. The weights decide, whatever name
    they were recorded under: asked again under another name, a model is no secret once the declared recording is
    complete.
    """
    known = registry.load(project)
    mine = [
        name
        for name in part.protocol.design.get("models", [])
        if name == info.name or (name in known and known[name].sha256 == info.model_hash)
    ]
    if not mine:
        return False
    recordings = [info, *(one for name in mine if (one := _info(project, part.study, name)) is not None)]
    return not any(answered(part.whole, recorded.answers(project, part.study, one)).all() for one in recordings)


def looks(project: Project, found: Sequence[Part], infos: Infos) -> list[str]:
    """Return in words that a card is a look at a confirmatory recording; empty where it is none."""
    studies = [part.study for part in found if incomplete_look(project, part, infos[part.study])]
    if not studies:
        return []
    return [
        f"{infos[studies[0]].name} is a model of the protocol of {', '.join(studies)}, whose recording is "
        "not complete. This card is a look at its responses: write it into that protocol as a dated amendment "
        "before that recording goes on (docs/report_card.md)."
    ]


def long(cards: Sequence[Card], found: Sequence[Part]) -> pd.DataFrame:
    """Return the numbers of all models, one row per model and number, unrounded."""
    confidence = {part.study: part.protocol.confirmatory.confidence for part in found if part.protocol.confirmatory}
    table = pd.concat([one.numbers.assign(model=one.model) for one in cards], ignore_index=True)
    table["confidence"] = table["study"].map(confidence)
    names = ["model", "section", "study", "number", "estimate", "low", "high", "confidence", "n", "unit"]
    return table[[*names, "gate", "checks"]]


def facts(infos: Infos, served: str | None) -> dict[str, str]:
    """Return what answered, for the end of a page; what differs between studies is named with them.

    Args:
        served: What an endpoint calls the model that answered.
    """
    made: dict[str, str] = {}
    # An endpoint tells no hash of its weights.
    by_name = any(info.backend == "openai-compatible" for info in infos.values())
    for name in ("name", "model_hash", "backend", "version", "schedule", "chat", "precision"):
        by_value: dict[str, list[str]] = {}
        for study, info in infos.items():
            by_value.setdefault(getattr(info, name), []).append(study)
        several = len(by_value) > 1
        title = "revision, or name at the endpoint" if by_name and name == "model_hash" else name
        made[title] = "; ".join(f"{v} ({', '.join(of)})" if several else v for v, of in by_value.items())
    return made | ({"served as": served} if served else {})
