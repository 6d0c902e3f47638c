"""A study that was copied from another one is refused until nothing in it belongs to that one any more."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from persona_studies.design import protocol
from persona_studies.design.parameters import Parameters
from persona_studies.errors import NotebookError, PersonaStudiesError, ProtocolError
from persona_studies.paths import Project
from persona_studies.reproduce import notebooks, ready, runs
from persona_studies.study import Study
from tests.conftest import project_at
from tests.kit.protocols import GOOD

REPOSITORY = Project(Path(__file__).parents[2])
OPENS = """from persona_studies.study import Study

study = Study.open("toy", parameters)
study.name"""


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The study ``toy``, and what copying its notebook and its folder makes: ``mine``."""
    project = project_at(tmp_path, OPENS)
    project.protocol("toy").write_text(GOOD)
    (project.folder("toy") / "analysis.py").write_text("from toy import design\n\nCLASS = design.Parameters\n")
    shutil.copyfile(project.notebook("toy"), project.notebook("mine"))
    shutil.copytree(project.folder("toy"), project.folder("mine"))
    monkeypatch.setenv("PERSONA_STUDIES_ROOT", str(tmp_path))
    return project


def rename(path: Path) -> None:
    path.write_text(path.read_text().replace("toy", "mine"))


def test_each_place_is_named_until_none_is_left(copied: Project) -> None:
    mine, folder = copied.notebook("mine"), copied.folder("mine")
    text = mine.read_text()
    steps: list[tuple[Callable[[], object], str]] = [
        (lambda: None, r"^mine.ipynb, code cell 2, line 1: imports the study 'toy'; .* \(2 more such places\)$"),
        (
            lambda: mine.write_text(text.replace("from toy.", "from mine.")),
            r'^mine.ipynb, code cell 3, line 3: opens the study \'toy\'; write Study.open\("mine", param.*\(1 ',
        ),
        (lambda: rename(mine), r"^mine/analysis.py, line 1: imports the study 'toy'; import from 'mine' or"),
        (
            lambda: rename(folder / "analysis.py"),
            r"mine/protocol.toml declares the study 'toy'; write study = .mine",
        ),
    ]
    for change, said in steps:
        change()
        with pytest.raises(PersonaStudiesError, match=said):
            runs.run(copied, "mine")
        assert not (copied.build / "mine").exists()
    rename(folder / "protocol.toml")
    ready.prepare(copied, "mine", [])
    ready.prepare(copied, "toy", [])


def test_what_cannot_be_seen_before_is_refused_in_the_kernel(
    copied: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mine(Parameters):
        pass

    Mine.__module__ = "mine.design"
    with pytest.raises(
        NotebookError, match=r"names 'toy', but the parameters are of 'mine'; write Study.open\(\"mi"
    ):
        Study.open("toy", Mine())
    Mine.__module__ = "__main__"
    monkeypatch.setenv("JPY_SESSION_NAME", str(copied.notebook("mine")))
    with pytest.raises(NotebookError, match=r"names 'toy', but the notebook is of 'mine'"):
        Study.open("toy", Mine())
    monkeypatch.setenv("JPY_SESSION_NAME", "/elsewhere/Untitled.ipynb")
    assert Study.open("toy", Mine()).name == "toy"


def test_a_protocol_declares_the_study_of_its_folder(copied: Project) -> None:
    with pytest.raises(ProtocolError, match=r"^mine/protocol.toml declares the study 'toy'"):
        protocol.load(copied.protocol("mine"))


def test_the_notebook_rules_name_it_too(copied: Project) -> None:
    found = [problem for problem in notebooks.problems(copied, "mine") if "the study 'toy'" in problem]
    assert len(found) == 3


@pytest.mark.parametrize("study", REPOSITORY.names())
def test_no_study_imports_a_study(study: str) -> None:
    assert notebooks.foreign(REPOSITORY, study) == []
    for path in REPOSITORY.folder(study).glob("protocol*.toml"):
        assert protocol.load(path).study == study
