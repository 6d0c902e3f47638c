"""A miniature project that every test may damage."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from persona_studies.paths import Project

PARAMETERS = 'alpha = 0.05  # error rate\nrounds = 3  # how often\nlabel = "x"  # a text\nkinds = ["a"]  # a list'
MODULE = """
from typing import Literal

from persona_studies import parameters
from pydantic import Field


class Parameters(parameters.Parameters):
    alpha: float = Field(gt=0, lt=1, description="error rate")
    rounds: int = Field(ge=1, le=10, description="how often")
    label: str = Field(description="a text")
    kinds: tuple[Literal["a", "b"], ...] = Field(min_length=1, description="a list")
"""
OPEN = """from toy import Parameters

parameters = Parameters.from_namespace(globals())"""
WORK = """import os
from pathlib import Path

out = Path(os.environ["PERSONA_STUDIES_OUT"])
for name in ("tables", "figures"):
    (out / name).mkdir(exist_ok=True)
(out / "tables" / "result.csv").write_text(f"alpha,rounds\\n{parameters.alpha},{parameters.rounds}\\n")
print(parameters.alpha)"""


def notebook(*cells: str, parameters: str = PARAMETERS, tagged: int = 1) -> nbformat.NotebookNode:
    """Return a notebook with a parameters cell (or none, or two) and the given code cells."""
    first = [new_code_cell(parameters, metadata={"tags": ["parameters"]} if tagged else {})]
    if tagged == 2:
        first.append(new_code_cell("extra = 1  # again", metadata={"tags": ["parameters"]}))
    made = new_notebook(cells=[new_markdown_cell("# Toy"), *first, *(new_code_cell(cell) for cell in cells)])
    for place, cell in enumerate(made.cells):
        cell.id = f"cell-{place}"
    return made


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell starts its background jobs deaf to Ctrl-C; the tests of interruption need to hear it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def make_project(tmp_path: Path) -> Callable[..., Project]:
    """Return a function that makes a project whose study ``toy`` holds the given code cells."""

    def make(*cells: str, **how: object) -> Project:
        root = tmp_path / "project"
        for folder in ("studies", "data/items", "data/published", "lib"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "pyproject.toml").write_text("")
        (root / "uv.lock").write_text("version = 1\n")
        (root / "data" / "sources.toml").write_text("")
        (root / "studies" / "toy.toml").write_text('study = "toy"\ntitle = "A toy"\n')
        (root / "studies" / "toy.py").write_text(MODULE)
        made = notebook(OPEN, *(cells or (WORK,)), **how)  # type: ignore[arg-type]
        (root / "studies" / "toy.ipynb").write_text(json.dumps(made, indent=1))
        return Project(root)

    return make


@pytest.fixture
def toy_project(make_project: Callable[..., Project]) -> Project:
    return make_project()


MODEL = """    model: str = Field(description="a model")


def plan(project, protocol, parameters, *, texts=False):
    from tests.test_recording import small_plan
    return small_plan(parameters.rounds)
"""


@pytest.fixture
def recorded(make_project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch) -> Project:
    """A toy study whose grid grows with ``rounds``, recorded up to 3."""
    from persona_studies import recording
    from tests.simulated import SimulatedBackend
    from tests.test_recording import answer, small_plan

    project = make_project(parameters=PARAMETERS + '\nmodel = "simulated"  # a model')
    project.module("toy").write_text(project.module("toy").read_text() + MODEL)
    monkeypatch.setattr("persona_studies.protocol.load", lambda _: None)
    plan = small_plan(3)
    recording.record(project, "toy", plan, SimulatedBackend(answer))
    recording.pack(project, "toy", plan, "simulated")
    return project
