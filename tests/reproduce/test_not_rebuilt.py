"""What needs foreign rows that are not available: shown from the reference, counted apart, never as a failure."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import papermill
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_output

from persona_studies import cli
from persona_studies.design import sources
from persona_studies.errors import PersonaStudiesError, SourceError, SourceUnavailable
from persona_studies.paths import Project
from persona_studies.reproduce import notebooks, runs, verify
from tests.conftest import project_at

ROWS = b"x\n1\n2\n3\n"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ADDRESS = f"http://127.0.0.1:9/someone/rows/{COMMIT}/rows.csv"
REGISTER = f"""
[[source]]
id = "foreign-rows"
kind = "github"
repo = "someone/rows"
revision = "{COMMIT}"
path = "rows.csv"
sha256 = "{hashlib.sha256(ROWS).hexdigest()}"
bytes = {len(ROWS)}
licence = "not to be passed on"
redistributable = false
description = "Rows of others."
"""
STUDY = """import os
from pathlib import Path
from IPython.display import Markdown, display
import pandas as pd
from persona_studies.design import sources
from persona_studies.paths import Project

class Study:
    def table(self, frame, name, title):
        place = Path(os.environ["PERSONA_STUDIES_OUT"]) / "tables"
        place.mkdir(exist_ok=True)
        frame.to_csv(place / f"{name}.csv", index=False)
        return frame

study = Study()"""
FIRST = 'first = display(Markdown("below"), display_id=True)'
OWN = 'study.table(pd.DataFrame({"y": [7]}), "own", "Ours")'
FOREIGN = """rows = pd.read_csv(sources.fetch(Project.find(), "foreign-rows"))
first.update(Markdown(f"{len(rows)} rows"))
study.table(rows * 2, "foreign", "Theirs")"""
LAST = "len(study.__class__.__name__)"
TAGGED = (FIRST, FOREIGN)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a mirror and a project whose study has two cells that need a source.

    The study was run and accepted while the source was at hand.
    """
    folder = tmp_path_factory.mktemp("whole")
    place = folder / "mirror" / "github" / "someone" / "rows" / COMMIT
    place.mkdir(parents=True)
    (place / "rows.csv").write_bytes(ROWS)
    made = project_at(folder / "project", STUDY, *(FIRST, OWN, FOREIGN, LAST))
    (made.root / "data" / "sources.toml").write_text(REGISTER)
    notebook = notebooks.read(made.notebook("toy"))
    for cell in notebook.cells:
        if cell.source in TAGGED:
            cell.metadata["tags"] = ["source:foreign-*"]
    notebooks.write(notebook, made.notebook("toy"))
    with pytest.MonkeyPatch.context() as patch:
        alone(patch, folder)
        runs.run(made, "toy")
        assert verify.accept(made, "toy", confirm=lambda _: True) is not None
        # The notebook's outputs are none of its inputs: the build stands.
        assert verify.verify(made, ["toy"]).ok
    return folder


@pytest.fixture(scope="module")
def without(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after a run for which the source could not be had."""
    folder = Path(shutil.copytree(whole, tmp_path_factory.mktemp("without") / "whole"))
    with pytest.MonkeyPatch.context() as patch:
        alone(patch, folder)
        lose(patch)
        done = runs.run(Project(folder / "project"), "toy", force=True)
        assert done.fresh and done.not_rebuilt == {"foreign-*": ADDRESS}
    return folder


def alone(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the mirror in a folder be all that can be reached."""
    monkeypatch.setattr(sources, "GITHUB", "http://127.0.0.1:9")
    monkeypatch.setenv("PERSONA_STUDIES_CACHE", str(folder / "cache"))
    monkeypatch.setenv("PERSONA_STUDIES_MIRROR", str(folder / "mirror"))


@pytest.fixture
def project(whole: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Project:
    """A copy of the accepted project with its mirror."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    alone(monkeypatch, tmp_path)
    return Project(tmp_path / "project")


@pytest.fixture
def incomplete(without: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Project:
    """A copy of the project whose run is without the source, which is still not available."""
    shutil.copytree(without, tmp_path, dirs_exist_ok=True)
    alone(monkeypatch, tmp_path)
    lose(monkeypatch)
    return Project(tmp_path / "project")


def lose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PERSONA_STUDIES_MIRROR")


def statuses(project: Project) -> dict[str, str]:
    return {artifact.name: artifact.status for artifact in verify.verify(project, ["toy"]).artifacts}


def code(project: Project, folder: Path) -> dict[str, NotebookNode]:
    return {c.source: c for c in notebooks.read(folder / "toy.ipynb").cells if c.cell_type == "code"}


def test_with_the_source_everything_is_compared(project: Project) -> None:
    assert set(statuses(project).values()) == {verify.IDENTICAL}
    assert "3 rows" in code(project, project.build / "toy")[FIRST].outputs[0].data["text/markdown"]


def test_without_the_source_committed_results_stand_and_are_counted_apart(
    incomplete: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = incomplete
    done = runs.run(project, "toy")
    assert not done.fresh and done.not_rebuilt == {"foreign-*": ADDRESS}
    assert statuses(project) == {
        "reference files": verify.IDENTICAL,
        "tables/own.csv": verify.IDENTICAL,
        "tables/foreign.csv": verify.NOT_REBUILT,
        "notebook": verify.NOT_REBUILT,
    }
    report = verify.verify(project, ["toy"])
    assert report.ok
    said = "\n".join(report.lines())
    assert f"needs {ADDRESS}" in said and f"2 of 7 code cells need {ADDRESS}" in said
    assert "2 of 4 artifacts agree with the reference; 2 not rebuilt" in said
    shown, committed = code(project, done.folder), code(project, project.studies)
    for source in TAGGED:
        notice, *outputs = shown[source].outputs
        assert notice.data["text/plain"].startswith(f"Not rebuilt: {ADDRESS} could not be fetched")
        assert "\n" not in notice.data["text/plain"]
        assert outputs == committed[source].outputs
    assert shown[OWN].outputs == committed[OWN].outputs and shown[LAST].outputs == committed[LAST].outputs
    assert not (done.folder / "tables" / "foreign.csv").exists()
    assert sorted(path.name for path in done.folder.iterdir()) == ["run.json", "tables", "toy.ipynb"]
    monkeypatch.setattr("sys.argv", ["persona-studies", "run", "toy"])
    monkeypatch.setenv("PERSONA_STUDIES_ROOT", str(project.root))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0 and f"not rebuilt is what needs {ADDRESS}" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["persona-studies", "verify"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0


def test_what_was_built_with_the_source_stays(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    lose(monkeypatch)
    done = runs.run(project, "toy")
    assert not done.fresh and not done.not_rebuilt


def test_an_incomplete_run_is_repeated_once_the_source_is_back(
    incomplete: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert not runs.run(incomplete, "toy").fresh
    monkeypatch.setenv("PERSONA_STUDIES_MIRROR", str(tmp_path / "mirror"))
    assert runs.run(incomplete, "toy").fresh
    assert set(statuses(incomplete).values()) == {verify.IDENTICAL}


def test_an_incomplete_run_is_never_accepted(incomplete: Project) -> None:
    project = incomplete
    before = {path: path.read_bytes() for path in project.results("toy").iterdir()}
    with pytest.raises(PersonaStudiesError, match=f"not rebuilt, because {ADDRESS} could not be fetched"):
        verify.accept(project, "toy", confirm=lambda _: True)
    assert {path: path.read_bytes() for path in project.results("toy").iterdir()} == before


def change_table(project: Project) -> None:
    path = project.results("toy") / "foreign.csv"
    path.write_text(path.read_text().replace("4", "5"))


def remove_table(project: Project) -> None:
    (project.results("toy") / "foreign.csv").unlink()


def change_shown_result(project: Project) -> None:
    path = project.notebook("toy")
    assert path.read_text().count('"3 rows"') == 1
    path.write_text(path.read_text().replace('"3 rows"', '"4 rows"'))


def change_own_result(project: Project) -> None:
    path = project.results("toy") / "own.csv"
    path.write_text(path.read_text().replace("7", "8"))


def change_own_output(project: Project) -> None:
    notebook = notebooks.read(project.notebook("toy"))
    next(c for c in notebook.cells if c.source == LAST).outputs[0].data["text/plain"] = "6"
    notebooks.write(notebook, project.notebook("toy"))


def pretend(project: Project) -> None:
    """Call an own table not rebuilt by tagging its cell in the build alone."""
    path = project.build / "toy" / "run.json"
    made = json.loads(path.read_text())
    del made["outputs"]["tables/own.csv"]
    path.write_text(json.dumps(made))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_table, "data/results/toy/foreign.csv was changed since the reference was accepted"),
        (remove_table, "data/results/toy/foreign.csv is gone since the reference was accepted"),
        (change_shown_result, "studies/toy.ipynb, outputs that need a source, was changed since"),
        (change_own_result, "column y: 8 in the reference, 7 in this run"),
        (change_own_output, "text/plain differs"),
        (pretend, "missing from the run"),
    ],
)
@pytest.mark.parametrize("again", [False, pytest.param(True, marks=pytest.mark.attack)])
def test_tampering_is_found_while_not_rebuilt(
    incomplete: Project, change: Callable[[Project], None], message: str, again: bool
) -> None:
    if again and change is pretend:
        pytest.skip("a new run writes its own record")
    change(incomplete)
    if again:
        runs.run(incomplete, "toy", force=True)
    report = verify.verify(incomplete, ["toy"])
    assert not report.ok and message in "\n".join(report.lines())


def test_other_parameters_are_refused_before_a_kernel_starts(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: pytest.fail("a kernel was started"))
    lose(monkeypatch)
    with pytest.raises(SourceUnavailable, match=rf"rounds changed.*foreign-\*.*{ADDRESS}.*PERSONA_STUDIES_MIRROR"):
        runs.run(project, "toy", ["rounds=4"])
    assert not project.runs.exists()


def test_a_damaged_source_is_an_error_and_not_absent(project: Project) -> None:
    (mirrored,) = Path(os.environ["PERSONA_STUDIES_MIRROR"]).rglob("rows.csv")
    mirrored.write_bytes(ROWS + b"4\n")
    with pytest.raises(SourceError, match="is not the pinned file") as caught:
        runs.run(project, "toy", force=True)
    assert not isinstance(caught.value, SourceUnavailable)


def test_rules_for_committed_notebooks(project: Project) -> None:
    assert notebooks.problems(project, "toy") == []
    notebook = notebooks.read(project.notebook("toy"))
    notebook.cells[-1].metadata["tags"] = ["source:foreing-rows"]
    notebook.cells[-1].outputs = [
        new_output("display_data", data={"text/plain": "x"}, metadata={notebooks.NOTICE: True})
    ]
    notebooks.write(notebook, project.notebook("toy"))
    found = " ".join(notebooks.problems(project, "toy"))
    assert "Tag source:foreing-rows names no source" in found and "committed results and none of its own" in found
    with pytest.raises(SourceError, match="No source is named 'foreing-rows'"):
        runs.run(project, "toy", force=True)
