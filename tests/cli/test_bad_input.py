"""Bad input is refused before anything expensive starts, naming the value, the place and what to do about it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import papermill
import pytest

from persona_studies.analyse import tables
from persona_studies.ask import models, packing, recording, registry, responses
from persona_studies.cli import shared
from persona_studies.design import plan as plans
from persona_studies.design import protocol, sources
from persona_studies.errors import PersonaStudiesError
from persona_studies.paths import Project
from persona_studies.publish import hub
from persona_studies.reproduce import notebooks, runs
from tests.conftest import OPEN, PARAMETERS, notebook
from tests.kit.grids import answer, conditions, items, small_plan, templates
from tests.kit.protocols import GOOD
from tests.kit.registers import ENTRY, register
from tests.kit.simulated import SimulatedBackend

Input = Callable[[Project], object]


def run(*assignments: str, study: str = "toy", out: str | None = None) -> Input:
    return lambda project: runs.run(project, study, assignments, out=project.root / out if out else None)


def cell(parameters: str, *, tagged: int = 1) -> Input:
    """A notebook whose parameters cell is this one."""

    def use(project: Project) -> object:
        made = notebook(OPEN, parameters=parameters, tagged=tagged)
        project.notebook("toy").write_text(json.dumps(made))
        return runs.run(project, "toy")

    return use


def declared(old: str, new: str) -> Input:
    """A protocol that differs in one place from a good one."""

    def use(project: Project) -> object:
        assert old in GOOD
        project.protocol("toy").write_text(GOOD.replace(old, new, 1))
        return protocol.load(project.protocol("toy")), protocol.tolerances(project.protocol("toy"))

    return use


def asked(table: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Input:
    """A bank of conditions, items or templates that differs from a good one."""
    good = {"conditions": conditions(), "items": items("cats purr", "dogs bark"), "templates": templates()}
    return lambda project: plans.measure("m", "cloze", options=["x"], **(good | {table: change(good[table])}))


def planned(change: Callable[[pd.DataFrame], pd.DataFrame], study: str = "toy") -> Input:
    """A file of cells that differs from a good one."""

    def use(project: Project) -> object:
        plans.save(change(small_plan()), project.root / "cells.parquet", study)
        return plans.load(project.root / "cells.parquet", "toy")

    return use


def written(name: str, text: str, read: Input) -> Input:
    """A file of the project with this text."""

    def use(project: Project) -> object:
        (project.root / name).parent.mkdir(parents=True, exist_ok=True)
        (project.root / name).write_text(text)
        return read(project)

    return use


def source(**change: object) -> Input:
    return lambda project: sources.load(register(project.root, ENTRY | change))


def variable(name: str, value: str, read: Input) -> Input:
    def use(project: Project) -> object:
        os.environ[name] = value  # given back by the fixture
        return read(project)

    return use


def recorded(project: Project, change: Callable[[Path], object], name: str = "simulated") -> Path:
    """What ``record --out`` writes, then changed."""
    out = project.root / "elsewhere"
    recording.record(project, "toy", small_plan(), SimulatedBackend(answer), out=out)
    change(out / "toy" / name)
    return out


def swap(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def imported(change: Callable[[Path], object]) -> Input:
    return lambda project: packing.take_in(project, recorded(project, change))


def loaded(
    model: str, plan: pd.DataFrame | None = None, change: Callable[[Path], object] = lambda _: None
) -> Input:
    """A packed recording, then changed, then read."""

    def use(project: Project) -> object:
        recording.record(project, "toy", small_plan(), SimulatedBackend(answer))
        change(packing.pack(project, "toy", small_plan(), "simulated"))
        return responses.load(project, "toy", model, small_plan() if plan is None else plan)

    return use


def endpoint(**how: object) -> Input:
    def use(project: Project) -> object:
        pytest.importorskip("openai", reason="extra `api` is not installed")
        return models.load(project, "openai:toy-1", endpoint=how)

    return use


def spending(**caps: float) -> Input:
    def use(_: Project) -> object:
        from persona_studies.ask.backends.openai_compatible import Budget

        return Budget(**caps)

    return use


PIN = '["toy/simulated"]\nrepo = "a/b"\nrevision = "{revision}"\nsha256 = "' + "0" * 64 + '"\n'
MODEL = """
[mine]
title = "t"
backend = "llama.cpp"
file = "f.gguf"
bytes = 5
licence = "l"
sources = [{ package = "no-such-package", version = "1", file = "f.gguf" }]
"""
ZEROS = 'sha256 = "' + "0" * 64 + '"\n'
FRAME = pd.DataFrame({"x": [1.0, 2.0]})
READ_ONLY_LINK = "a link, a pipe or a device"

# What is wrong: how it comes in, the value, the place and the remedy that the message names.
BAD: dict[str, tuple[Input, str, str, str]] = {
    "misspelt parameter": (run("alhpa=0.1"), "'alhpa'", "parameter", "Did you mean 'alpha'?"),
    "unknown parameter": (run("colour=red"), "'colour'", "parameter", "Parameters: alpha, rounds, label, kinds"),
    "value out of range": (run("alpha=0"), "cannot be 0", "'alpha'", "Allowed: a number, > 0, < 1"),
    "value not a number": (run("alpha=much"), "'much'", "'alpha'", "Allowed: a number"),
    "value undefined": (run("alpha=nan"), "nan", "'alpha'", "Allowed: a number"),
    "value infinite": (run("alpha=Infinity"), "inf", "'alpha'", "Allowed: a number"),
    "fraction for a count": (run("rounds=2.5"), "2.5", "'rounds'", "Allowed: a whole number, ≥ 1, ≤ 10"),
    "count too large": (run("rounds=11"), "11", "'rounds'", "≤ 10"),
    "value not in a list": (run("kinds=a,c"), "'c'", "'kinds'", "Allowed: a list of a, b"),
    "list empty": (run("kinds="), "()", "'kinds'", "not empty"),
    "list not closed": (run("kinds=[a"), "'[a'", "'kinds'", "JSON, or a,b,c"),
    "list names twice": (run("kinds=a,b,a"), "'a'", "'kinds'", "name it once"),
    "assignment without a sign": (run("alpha"), "'alpha'", "NAME=VALUE", "of the form NAME=VALUE"),
    "parameter given twice": (run("alpha=0.1", "alpha=0.2"), "'alpha'", "Parameter", "give it once"),
    "text not unicode": (run("label=\udcff"), r"\udcff", "label=", "type it again"),
    "quotes not closed": (
        lambda _: shared.given(None, "label='x"),
        "label='x",
        "NAME=VALUE",
        "close what it opens",
    ),
    "misspelt study": (run(study="toyy"), "'toyy'", "study", "Did you mean 'toy'?"),
    "study elsewhere": (run(study="../toy"), "'../toy'", "study", "Studies: toy"),
    "output into the data": (run(out="data/new"), "data/new", "--out", "Name a new or an empty folder"),
    "output over a file": (run(out="uv.lock"), "uv.lock", "is a file", "Name a new or an empty folder"),
    "shard beyond the last": (lambda _: shared.shard_of("3/2"), "'3/2'", "--shard", "such as 1/4"),
    "root that is no checkout": (
        variable("PERSONA_STUDIES_ROOT", "/nowhere", lambda _: Project.find()),
        *("/nowhere", "PERSONA_STUDIES_ROOT", "point it at a checkout or unset it"),
    ),
    "mirror that is not a folder": (
        variable("PERSONA_STUDIES_MIRROR", "/nowhere", lambda p: sources.locate(register(p.root, ENTRY), "items")),
        *("/nowhere", "PERSONA_STUDIES_MIRROR", "point it at a mirror or unset it"),
    ),
    "no parameters cell": (cell(PARAMETERS, tagged=0), "parameters", "toy.ipynb", "tag the first code cell"),
    "two parameters cells": (cell(PARAMETERS, tagged=2), "1, 2", "toy.ipynb", "keep one"),
    "computed default": (
        cell("alpha = 1 / 20  # a"),
        "'alpha'",
        "toy.ipynb: The parameters cell, line 1",
        "write out",
    ),
    "default without comment": (cell("alpha = 0.05"), "'alpha'", "line 1", "say behind a # what it is"),
    "default assigned twice": (cell("a = 1  # a\na = 2  # a"), "'a'", "line 2", "keep one"),
    "no notebook": (written("studies/toy.ipynb", "<<<<<<<", run()), "line 1", "toy.ipynb", "git checkout"),
    "kind of measure": (
        declared('kind = "cloze"', 'kind = "closed"'),
        *("'closed'", "toy/protocol.toml", "measures.agree.kind: Input should be 'cloze', 'letter' or 'text'"),
    ),
    "role of a condition": (
        declared('role = "none"', 'role = "nobody"'),
        *("'nobody'", "conditions.none.role", "mend it there"),
    ),
    "key that is none": (declared("version = 1", "version = 1\nstoping = 'x'"), "'x'", "stoping", "mend it there"),
    "key that is missing": (declared("version = 1\n", ""), "version", "toy/protocol.toml", "Field required"),
    "gate that is text": (
        declared("0.05", "'much'"),
        "'much'",
        "measures.agree.gate.min_option_mass",
        "valid number",
    ),
    "size of a family": (declared("size = 2", "size = 3"), "size is 3", "families.main", "mend it there"),
    "hypothesis of no family": (
        declared('hypothesis = "level and agreement"', 'hypothesis = "warmth"'),
        *("'warmth'", "claim rises", "mend it there"),
    ),
    "tolerance that is text": (declared("1e-9", "'none'"), "'none'", "tolerance.default", "mend it there"),
    "tolerance below zero": (declared("1e-9", "-1e-9"), "-1e-09", "default", "greater than or equal to 0"),
    "not TOML": (declared("version = 1", "version = "), "line", "toy/protocol.toml", "mend it there"),
    "slot that nothing fills": (
        asked("templates", lambda t: t.assign(user="I say that {txt}.")),
        *("{txt}", "Template 't' of measure 'm'", "known: Text, description, option_1, text"),
    ),
    "option that is not there": (
        asked("templates", lambda t: t.assign(user="{text}: {option_2}?")),
        *("{option_2}", "Template 't' of measure 'm'", "known: "),
    ),
    "bank without a column": (
        asked("items", lambda t: t.drop(columns="item_hash")),
        *("item_hash", "the items of measure 'm'", "it has item, text"),
    ),
    "item twice in a bank": (asked("items", lambda t: t.assign(item="i0")), "'i0'", "the items", "rename one"),
    "condition without a name": (
        asked("conditions", lambda t: t.assign(condition=["none", None])),
        *("no condition", "Row 2 of the conditions", "fill it in"),
    ),
    "no plan": (
        written("cells.parquet", "PAR1", lambda p: plans.load(p.root / "cells.parquet", "toy")),
        *("4 bytes", "cells.parquet", "persona-studies plan toy"),
    ),
    "plan of another study": (planned(lambda p: p, "other"), "other", "cells.parquet", "persona-studies plan toy"),
    "plan without a column": (planned(lambda p: p.drop(columns="user")), "user", "cells.parquet", "write it again"),
    "plan with an unknown kind": (
        planned(lambda p: p.assign(kind="rank")),
        "'rank'",
        "cells.parquet",
        "write it again",
    ),
    "plan with a text for a number": (
        planned(lambda p: p.assign(order="first")),
        *("first", "cells.parquet", "write it again"),
    ),
    "plan with a cell twice": (planned(lambda p: pd.concat([p, p.head(1)])), "1 cells", "plan", "rename"),
    "plan that leads elsewhere": (
        planned(lambda p: p.assign(measure="../../evil")),
        *("'../../evil'", "cells.parquet", "use letters, digits"),
    ),
    "revision of a source": (source(revision="main"), "'main'", "sources.toml", "40 hex digits"),
    "hash of a source": (source(sha256="abc"), "'abc'", "source.0.sha256", "mend it there"),
    "path of a source": (source(path="../x"), "'../x'", "sources.toml", "must stay inside the repository"),
    "size of a source": (source(bytes=0), "found 0", "source.0.bytes", "greater than 0"),
    "unknown source": (
        lambda p: sources.fetch(register(p.root, ENTRY), "item"),
        *("'item'", "data/sources.toml", "Did you mean 'items'?"),
    ),
    "pin of a recording": (
        written("data/recordings.toml", PIN.format(revision="main"), hub.register),
        *("'main'", "toy/simulated.revision", "mend it there"),
    ),
    "recording not published": (
        lambda p: hub.fetch(p, "toy", "other"),
        *("toy/other", "data/recordings.toml", "Name one of these, or record it"),
    ),
    "model of no hash": (
        written("data/models.toml", MODEL, registry.load),
        *("mine.sha256", "models.toml", "Field required"),
    ),
    "misspelt model": (
        written("data/models.toml", MODEL + ZEROS, lambda p: models.load(p, "mime")),
        *("'mime'", "Unknown model", "Did you mean 'mine'?"),
    ),
    "model without a revision": (
        written("data/models.toml", MODEL.replace("package", "hub") + ZEROS, registry.load),
        *("mine.sources", "models.toml", "mend it there"),
    ),
    "weights that nobody has": (
        written("data/models.toml", MODEL + ZEROS, lambda p: models.load(p, "mine")),
        *("no-such-package==1", "weights of mine", "Run again with a connection"),
    ),
    "name of a recording": (
        lambda p: models.load(p, "openai:toy", name="../My model"),
        *("'../My model'", "name a recording", "Use --name"),
    ),
    "backend of a file": (
        lambda p: models.load(p, "gguf:/x/m.gguf", backend="gpu"),
        *("'gpu'", "m.gguf", "known: llama.cpp, transformers"),
    ),
    "kind of endpoint": (endpoint(api="assistants"), "assistants", "api", "chat"),
    "calls at once": (endpoint(concurrency=0), "0", "concurrency", "1"),
    "cap below zero": (spending(calls=-1), "-1", "Budget: calls", "at least 0"),
    "cap without a price": (spending(money=1.0), "money", "Budget", "price_in and price_out"),
    "nothing to import": (lambda p: packing.take_in(p, p.items), "items", "model.json", "record --out wrote"),
    "import of an unknown study": (
        imported(lambda f: f.parent.rename(f.parent.with_name("other"))),
        *("other", "elsewhere", "keep the folders as record --out made them"),
    ),
    "import of a renamed model": (
        imported(lambda f: f.rename(f.with_name("renamed"))),
        *("simulated", "renamed", "its folder was renamed"),
    ),
    "import of a link": (
        imported(lambda f: (f / "more.jsonl").symlink_to("/dev/zero")),
        *(READ_ONLY_LINK, "more.jsonl", "remove it"),
    ),
    "import of a damaged line": (
        imported(lambda f: (f / "x.jsonl").write_text('{"measure": 1}\n')),
        *("line 1", "x.jsonl", "Delete that line"),
    ),
    "import without a model": (
        imported(lambda f: (f / "model.json").write_text("{}")),
        *("'model'", "model.json", "write what recorded there"),
    ),
    "unknown recording": (loaded("other"), "'other'", "toy", "make record STUDY=toy MODEL=other"),
    "cells beyond a recording": (loaded("simulated", small_plan(8)), "4 of 16", "score", "make record STUDY=toy"),
    "damaged record": (
        loaded("simulated", change=lambda f: (f / "record.json").write_text("{")),
        *("line 1", "record.json", "git checkout"),
    ),
    "record of a model that leads elsewhere": (
        loaded("simulated", change=lambda f: swap(f / "record.json", '"simulated"', '"../x"')),
        *("'../x'", "record.json", "git checkout"),
    ),
    "import of a model that leads elsewhere": (
        imported(lambda f: swap(f / "model.json", '"simulated"', '"../x"')),
        *("'../x'", "model.json", "write what recorded there"),
    ),
    "table with an index": (
        lambda p: tables.save(FRAME.set_index("x"), p.root / "t.csv"),
        *("index", "Table t", "call reset_index()"),
    ),
    "column twice": (
        lambda p: tables.save(pd.concat([FRAME, FRAME], axis=1), p.root / "t.csv"),
        *("x, x", "Table t", "rename one"),
    ),
}


@pytest.fixture(autouse=True)
def nothing_expensive(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PERSONA_STUDIES_ROOT", "PERSONA_STUDIES_MIRROR"):
        monkeypatch.setenv(name, "")  # so that what a case sets is taken back
        monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-unused")
    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: pytest.fail("a kernel was started"))
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("something was fetched or asked"))


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_value_place_and_remedy(toy_project: Project, name: str) -> None:
    use, value, place, remedy = BAD[name]
    with pytest.raises(PersonaStudiesError) as caught:
        use(toy_project)
    said = str(caught.value)
    assert [part for part in (value, place, remedy) if part not in said] == [], said
    assert not toy_project.build.exists() and not toy_project.runs.exists()


def test_there_are_more_than_forty_of_them() -> None:
    assert len(BAD) > 40
    assert notebooks.parameters(notebook(OPEN))  # the good one that they differ from
