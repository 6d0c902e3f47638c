"""The runner: what papermill lets through is refused, and nothing is ever left half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import papermill
import pytest

from persona_studies import runs
from persona_studies.errors import NotebookError, ParameterError, PersonaStudiesError, RunError
from persona_studies.paths import Project

Make = Callable[..., Project]


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def leftovers(project: Project) -> list[str]:
    return [p.name for p in project.root.rglob(".*") if "partial" in p.name or ".old-" in p.name]


def test_two_runs_give_identical_bytes_and_an_unchanged_one_is_not_repeated(toy_project: Project) -> None:
    source = toy_project.notebook("toy").read_bytes()
    first = runs.run(toy_project, "toy")
    before = files(first.folder)
    assert first.fresh and set(before) == {"toy.ipynb", "tables/result.csv", "run.json"}
    assert not runs.run(toy_project, "toy").fresh
    again = runs.run(toy_project, "toy", force=True)
    assert again.fresh and files(again.folder) == before
    assert toy_project.notebook("toy").read_bytes() == source
    assert leftovers(toy_project) == []


def test_a_changed_output_or_input_is_noticed(toy_project: Project) -> None:
    folder = runs.run(toy_project, "toy").folder
    expected = runs.key(toy_project, "toy", {})
    assert runs.up_to_date(folder, expected)
    (folder / "tables" / "result.csv").write_text("alpha,rounds\n0.06,3\n")
    assert not runs.up_to_date(folder, expected)
    for part, path in {
        "code": toy_project.module("toy"),
        "lock": toy_project.root / "uv.lock",
        "protocol": toy_project.protocol("toy"),
        "data": toy_project.sources,
    }.items():
        path.write_text(path.read_text() + "\n# changed\n")
        changed = runs.key(toy_project, "toy", {})
        assert {name for name in expected if changed[name] != expected[name]} == {part}
        expected = changed


def test_other_parameters_go_elsewhere(toy_project: Project) -> None:
    run = runs.run(toy_project, "toy", ["alpha=0.01", "kinds=a,b", "label=123e4567"])
    assert run.folder.parent == toy_project.runs / "toy"
    assert run.overrides == {"alpha": 0.01, "kinds": ["a", "b"], "label": "123e4567"}
    assert (run.folder / "tables" / "result.csv").read_text() == "alpha,rounds\n0.01,3\n"
    assert not runs.run(toy_project, "toy", ["kinds=a,b", "label=123e4567", "alpha=0.01"]).fresh
    assert not toy_project.build.exists()


def test_a_parameter_at_its_default_is_no_override(toy_project: Project) -> None:
    assert runs.resolve(toy_project, "toy", ["alpha=0.05"])[1] == {}


BAD = {
    "alhpa=0.1": "Did you mean 'alpha'",
    "alpha=0": r"greater than 0.*> 0, < 1",
    "alpha=nan": "cannot be",
    "alpha=Infinity": "finite",
    "alpha=much": "'much'.*a number",
    "alpha": "NAME=VALUE",
    "=1": "NAME=VALUE",
    "rounds=2.5": "integer",
    "rounds=true": "integer",
    "rounds=11": "≤ 10",
    "kinds=": "not empty",
    "kinds=a,c": "Allowed: a list of a, b",
    "kinds=[a": "no list",
}


@pytest.mark.parametrize("assignment", BAD)
def test_bad_parameters_are_refused_before_a_kernel_starts(
    toy_project: Project, assignment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: pytest.fail("a kernel was started"))
    with pytest.raises(ParameterError, match=BAD[assignment]) as caught:
        runs.run(toy_project, "toy", [assignment])
    assert caught.value.exit_code == 2
    assert not toy_project.runs.exists()


def test_a_parameter_given_twice_and_an_unknown_study(toy_project: Project) -> None:
    with pytest.raises(ParameterError, match="'alpha' is given twice"):
        runs.run(toy_project, "toy", ["alpha=0.1", "alpha=0.2"])
    with pytest.raises(ParameterError, match=r"'toyy'.*Did you mean 'toy'"):
        runs.run(toy_project, "toyy")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"tagged": 0}, "No cell is tagged"),
        ({"tagged": 2}, "1, 2 are all tagged"),
        ({"parameters": "alpha = 0.05  # a\nalpha = 0.1  # b"}, "assigned twice"),
        ({"parameters": "alpha = 1 / 20  # a"}, "not a literal"),
        ({"parameters": "alpha = 0.05"}, "no comment"),
        ({"parameters": "import os  # a"}, "only assignments"),
        ({"parameters": "alpha = = 1"}, "not Python, line 1"),
    ],
)
def test_a_bad_parameters_cell_is_refused(make_project: Make, how: dict[str, object], message: str) -> None:
    with pytest.raises(NotebookError, match=message) as caught:
        runs.run(make_project(**how), "toy")
    assert caught.value.exit_code == 2


def test_a_name_the_types_do_not_know_is_refused(make_project: Make) -> None:
    project = make_project(parameters="alpha = 0.05  # a\nbeta = 1  # b")
    with pytest.raises(
        ParameterError, match=r"(?s)missing.*Unknown parameter 'beta'|Unknown parameter 'beta'.*missing"
    ):
        runs.run(project, "toy")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("1 / 0", r"code cell 3 \(1 / 0\): ZeroDivisionError"),
        ("import sys; sys.exit(0)", "code cell 3"),
        ("import os; os.kill(os.getpid(), 9)", "kernel died in code cell 3"),
    ],
)
def test_a_cell_that_does_not_complete_fails_the_run(make_project: Make, cell: str, message: str) -> None:
    project = make_project()
    good = files(runs.run(project, "toy").folder)
    make_project(cell, "print('after')")
    with pytest.raises(RunError, match=message):
        runs.run(project, "toy")
    assert (project.build / "toy.failed.ipynb").is_file()
    assert files(project.build / "toy") == good
    assert leftovers(project) == []
    make_project()
    runs.run(project, "toy", force=True)
    assert not (project.build / "toy.failed.ipynb").exists()


def test_papermill_itself_cannot_slip_an_unknown_name_in(toy_project: Project, tmp_path: Path) -> None:
    with pytest.raises(papermill.PapermillExecutionError, match="Unknown parameter 'alhpa'"):
        papermill.execute_notebook(
            str(toy_project.notebook("toy")),
            str(tmp_path / "out.ipynb"),
            parameters={"alhpa": 0.1},
            kernel_name="python3",
            language="python",
            cwd=str(toy_project.studies),
            progress_bar=False,
        )


RUN = "import sys; from persona_studies import runs, paths; from pathlib import Path; "
RUN += "print(runs.run(paths.Project(Path(sys.argv[1])), 'toy', force='force' in sys.argv).fresh)"


def start(project: Project, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(project.root), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_runs_at_once_do_not_disturb_each_other(toy_project: Project) -> None:
    both = [start(toy_project), start(toy_project)]
    said = sorted(process.communicate(timeout=120)[0].strip() for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert said == ["False", "True"]
    assert runs.up_to_date(toy_project.build / "toy", runs.key(toy_project, "toy", {}))


def test_interrupted_nothing_half_written_is_left(make_project: Make) -> None:
    project = make_project(
        "import os, pathlib, time\n"
        "(pathlib.Path(os.environ['PERSONA_STUDIES_ROOT']) / 'started').touch()\n"
        "time.sleep(60)"
    )
    process = start(project)
    deadline = time.monotonic() + 60
    while not (project.root / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert leftovers(project) == []
    assert not (project.build / "toy").exists()


def test_the_kernel_has_an_environment_of_its_own(make_project: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    project = make_project(
        "import os, sys\nprint(os.environ['OMP_NUM_THREADS'], os.environ['TZ'])\nprint(sys.executable)"
    )
    run = runs.run(project, "toy")
    outputs = json.loads((run.folder / "toy.ipynb").read_text())["cells"][3]["outputs"]
    assert outputs[0]["text"] == ["1 UTC\n", f"{sys.executable}\n"]
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_a_study_without_a_module_or_class_says_so(toy_project: Project) -> None:
    toy_project.module("toy").write_text("")
    with pytest.raises(PersonaStudiesError, match="no class Parameters"):
        runs.run(toy_project, "toy")
    toy_project.module("toy").unlink()
    with pytest.raises(PersonaStudiesError, match="No module"):
        runs.run(toy_project, "toy")
