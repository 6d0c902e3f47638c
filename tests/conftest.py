"""A miniature project that every test may damage."""

from __future__ import annotations

import io
import json
import shutil
import signal
import ssl
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from persona_studies import cli
from persona_studies.analyse import tables
from persona_studies.ask import packing, recording
from persona_studies.ask.backends.endpoint import calls
from persona_studies.design import sources
from persona_studies.paths import Project
from persona_studies.reproduce import notebooks, runs, verify
from tests.kit.grids import answer, small_plan
from tests.kit.local_hub import Client, LocalHub
from tests.kit.misbehaving_server import CANARY
from tests.kit.runs import sign
from tests.kit.simulated import SimulatedBackend

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from nbformat import NotebookNode


CERTIFICATES = ssl.create_default_context()


def at_hand(project: Project, *ids: str) -> list[Path]:
    """Return where sources lie; skip the test, with the address, where one is neither cached nor mirrored."""
    paths = {id: sources.locate(project, id) for id in ids}
    for id, path in paths.items():
        if path is None:
            pytest.skip(f"source {id} is not at hand: {sources.load(project)[id].address}")
    return [path for path in paths.values() if path]


def drawn(figure: Figure) -> int:
    """Draw a figure and return how many characters its SVG has; a PNG beside it would take as long again."""
    from matplotlib import pyplot

    text = io.StringIO()
    figure.savefig(text, format="svg")
    pyplot.close(figure)
    return len(text.getvalue())


# First of all, so that no test imports it the slow way.
nbformat = notebooks.nbformat()
new_code_cell, new_markdown_cell = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell
new_notebook, new_output = nbformat.v4.new_notebook, nbformat.v4.new_output

PARAMETERS = 'alpha = 0.05  # error rate\nrounds = 3  # how often\nlabel = "x"  # a text\nkinds = ["a"]  # a list'
MODULE = """
from typing import Literal

from persona_studies.design import parameters
from pydantic import Field


class Parameters(parameters.Parameters):
    alpha: float = Field(gt=0, lt=1, description="error rate")
    rounds: int = Field(ge=1, le=10, description="how often")
    label: str = Field(description="a text")
    kinds: tuple[Literal["a", "b"], ...] = Field(min_length=1, description="a list")
"""
OPEN = """from toy.design import Parameters

parameters = Parameters.from_namespace(globals())"""
# A project and the words of a command -> its exit code, and what it said.
Call = Callable[..., tuple[int, str]]
WORK = """import os
from pathlib import Path

out = Path(os.environ["PERSONA_STUDIES_OUT"])
for name in ("tables", "figures"):
    (out / name).mkdir(exist_ok=True)
(out / "tables" / "result.csv").write_text(f"alpha,rounds\\n{parameters.alpha},{parameters.rounds}\\n")
print(parameters.alpha)"""


def notebook(*cells: str, parameters: str = PARAMETERS, tagged: int = 1) -> NotebookNode:
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


def project_at(root: Path, *cells: str, **how: object) -> Project:
    """Make a project whose study ``toy`` holds the given code cells."""
    for folder in ("studies/toy", "data/items", "data/published", "lib"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "pyproject.toml").write_text("")
    (root / "uv.lock").write_text("version = 1\n")
    (root / "data" / "sources.toml").write_text("")
    (root / "studies" / "toy" / "protocol.toml").write_text('study = "toy"\ntitle = "A toy"\n')
    (root / "studies" / "toy" / "design.py").write_text(MODULE)
    made = notebook(OPEN, *(cells or (WORK,)), **how)  # type: ignore[arg-type]
    (root / "studies" / "toy.ipynb").write_text(json.dumps(made, indent=1))
    return Project(root)


@pytest.fixture
def make_project(tmp_path: Path) -> Callable[..., Project]:
    """Return :func:`project_at` for a folder of the test."""
    return partial(project_at, tmp_path / "project")


@pytest.fixture
def toy_project(make_project: Callable[..., Project]) -> Project:
    return make_project()


@pytest.fixture(scope="session")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A toy project whose study has been run, for tests to copy: a kernel takes a second."""
    project = project_at(tmp_path_factory.mktemp("executed") / "project")
    runs.run(project, "toy")
    return project


def copied(whole: Project, tmp_path: Path) -> Project:
    """Return a copy of a project that was made once, for one test to damage."""
    return Project(Path(shutil.copytree(whole.root, tmp_path / "project")))


@pytest.fixture
def run_project(executed: Project, tmp_path: Path) -> Project:
    """The toy project with a completed run in ``build/toy``."""
    return copied(executed, tmp_path)


MODEL = """    model: str = Field(description="a model")


def plan(project, protocol, parameters, *, texts=False):
    from tests.kit.grids import small_plan
    return small_plan(parameters.rounds)
"""


@pytest.fixture(scope="session")
def recorded_once(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = project_at(
        tmp_path_factory.mktemp("recorded") / "project", parameters=PARAMETERS + '\nmodel = "simulated"  # a model'
    )
    project.design("toy").write_text(project.design("toy").read_text() + MODEL)
    plan = small_plan(3)
    recording.record(project, "toy", plan, SimulatedBackend(answer))
    packing.pack(project, "toy", plan, "simulated")
    return project


@pytest.fixture
def recorded(recorded_once: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A toy study whose grid grows with ``rounds``, recorded up to 3."""
    monkeypatch.setattr("persona_studies.design.protocol.load", lambda _: None)
    return copied(recorded_once, tmp_path)


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Return a function that runs a command in this process: its exit code, and what it and its children said."""

    def call(project: Project, *arguments: str) -> tuple[int, str]:
        monkeypatch.setenv("PERSONA_STUDIES_ROOT", str(project.root))
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["persona-studies", *arguments])
        before = signal.getsignal(signal.SIGTERM)
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        signal.signal(signal.SIGTERM, before)
        said, complained = capfd.readouterr()
        return int(ended.value.code or 0), said + complained

    return call


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and pauses of clients of a local server: a key that may show nowhere, hardly a pause before a retry.

    A client reads all certificates when it is made, for 40 ms; a local server shows none.
    """
    openai = pytest.importorskip("openai", reason="extra `api` is not installed")
    monkeypatch.setattr(calls, "BACKOFF", 0.002)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    client = partial(openai.DefaultAsyncHttpxClient, verify=CERTIFICATES)
    monkeypatch.setattr(openai, "DefaultAsyncHttpxClient", client)


@pytest.fixture(scope="session")
def hub_and_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalHub, Client]]:
    """A hub, and a process whose library knows no other one."""
    hub = LocalHub()
    client = Client(hub, tmp_path_factory.mktemp("home"))
    yield hub, client
    client.close()
    hub.close()


def build(project: Project) -> Path:
    """Write what a completed run of the toy study would have written."""
    folder = project.build / "toy"
    for kind in ("tables", "figures"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame({"claim": ["one", "two"], "r": [0.25, -0.5], "n": [55, 55], "rejected": [True, False]})
    tables.save(frame, folder / "tables" / "result.csv")
    Image.fromarray(np.full((4, 5, 3), 200, dtype=np.uint8)).save(folder / "figures" / "plot.png")
    (folder / "figures" / "plot.svg").write_text("<svg/>")
    notebook = notebooks.read(project.notebook("toy"))
    notebook.cells[-1].outputs = [new_output("stream", name="stdout", text="0.05\n")]
    notebooks.write(notebook, folder / "toy.ipynb")
    sign(project, folder, {})
    return folder


@pytest.fixture(scope="session")
def accepted_once(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project, plan = project_at(tmp_path_factory.mktemp("accepted") / "project"), small_plan(2)
    recording.record(project, "toy", plan, SimulatedBackend(answer))
    packing.pack(project, "toy", plan, "simulated")
    build(project)
    assert verify.accept(project, "toy", confirm=lambda _: True) is not None
    build(project)
    return project


@pytest.fixture
def accepted(accepted_once: Project, tmp_path: Path) -> Project:
    """A recorded toy study whose reference is accepted and whose build is current."""
    return copied(accepted_once, tmp_path)
