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
from jupyter_client.manager import AsyncKernelManager

from persona_studies.ask import packing
from persona_studies.errors import NotebookError, ParameterError, PersonaStudiesError, RunError
from persona_studies.paths import Project
from persona_studies.reproduce import engine, folders, ready, runs, verify
from tests.kit.grids import small_plan
from tests.kit.runs import files

Make = Callable[..., Project]


def leftovers(project: Project) -> list[str]:
    return [p.name for p in project.root.rglob(".*") if p.name.endswith(("partial", "old"))]


def test_two_runs_give_identical_bytes_and_an_unchanged_one_is_not_repeated(run_project: Project) -> None:
    source = run_project.notebook("toy").read_bytes()
    before = files(run_project.build / "toy")
    assert set(before) == {"toy.ipynb", "tables/result.csv", "run.json"}
    assert not runs.run(run_project, "toy").fresh
    failed = run_project.build / "toy.failed.ipynb"
    failed.write_text("")
    again = runs.run(run_project, "toy", force=True)
    assert again.fresh and files(again.folder) == before
    assert run_project.notebook("toy").read_bytes() == source
    # What an earlier failure left is gone too.
    assert leftovers(run_project) == [] and not failed.exists()


def test_a_changed_output_or_input_is_noticed(run_project: Project) -> None:
    folder = run_project.build / "toy"
    expected = runs.key(run_project, "toy", {})
    assert folders.up_to_date(folder, expected)
    (folder / "tables" / "result.csv").write_text("alpha,rounds\n0.06,3\n")
    assert not folders.up_to_date(folder, expected)
    for part, path in {
        "code": run_project.design("toy"),
        "lock": run_project.root / "uv.lock",
        "protocol": run_project.protocol("toy"),
        "data": run_project.sources,
    }.items():
        path.write_text(path.read_text() + "\n# changed\n")
        changed = runs.key(run_project, "toy", {})
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
    assert ready.resolve(toy_project, "toy", ["alpha=0.05"])[1] == {}


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
    "kinds=[a": "is not a list",
    "kinds=a,,b": "cannot be ''",
    "kinds=a,b,a": "names 'a' twice",
    "kinds=" + "[" * 100_000: "is not a list",
    "rounds=" + "[" * 100_000: r"cannot be '\[{199}…: ",
    "rounds=" + "9" * 400: "≤ 10",
    "rounds=1e400": "integer",
    "label=\udcff": "unicode",
}


@pytest.mark.parametrize("assignment", BAD, ids=lambda text: ascii(text)[:20])
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
        (
            "import os; os.kill(os.getpid(), 9)",
            r"kernel died in code cell 3 .*memory ran out: close other programs",
        ),
    ],
)
def test_a_cell_that_does_not_complete_fails_the_run(
    run_project: Project, make_project: Make, cell: str, message: str
) -> None:
    project = run_project
    good = files(project.build / "toy")
    make_project(cell, "print('after')")
    with pytest.raises(RunError, match=message):
        runs.run(project, "toy")
    assert (project.build / "toy.failed.ipynb").is_file()
    assert files(project.build / "toy") == good
    assert leftovers(project) == []


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


RUN = "import sys; from persona_studies import paths\n"
RUN += "from persona_studies.reproduce import runs; from pathlib import Path; "
RUN += "print(runs.run(paths.Project(Path(sys.argv[1])), 'toy', force='force' in sys.argv).fresh)"


def start(project: Project, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(project.root), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.attack
def test_two_runs_at_once_do_not_disturb_each_other(toy_project: Project) -> None:
    both = [start(toy_project), start(toy_project)]
    said = sorted(process.communicate(timeout=120)[0].strip() for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert said == ["False", "True"]
    assert folders.up_to_date(toy_project.build / "toy", runs.key(toy_project, "toy", {}))


@pytest.mark.attack
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


def test_the_kernel_has_an_environment_of_its_own_without_settings_of_a_home(
    make_project: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And without pandas until a cell asks for it; cells that are empty are passed over."""
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00-mine.py").write_text("leaked_profile = 1")
    (tmp_path / "start.py").write_text("leaked_startup = 1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "start.py"))
    project = make_project(
        "import os, sys\nprint(os.environ['OMP_NUM_THREADS'], os.environ['TZ'])\nprint(sys.executable)\n"
        "print(sorted(name for name in globals() if name.startswith('leaked')))\nprint('pandas' in sys.modules)\n"
        "print(get_ipython().kernel.parent.transport)",
        "",
        " \n",
    )
    run = runs.run(project, "toy")
    outputs = json.loads((run.folder / "toy.ipynb").read_text())["cells"][3]["outputs"]
    assert outputs[0]["text"] == ["1 UTC\n", f"{sys.executable}\n", "[]\n", "False\n", "ipc\n"]
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_a_kernel_needs_no_port_where_sockets_have_names(tmp_path: Path) -> None:
    """A port is chosen before it is bound: two kernels that start at once may choose the same one."""
    near, far = AsyncKernelManager(), AsyncKernelManager()
    engine.connect(near, tmp_path)
    engine.connect(far, tmp_path / ("a folder with a name too long for a socket " * 3))
    assert (near.transport, near.ip) == ("ipc", str(tmp_path / "kernel-ipc"))
    assert (far.transport, far.transport_encryption) == ("tcp", "required")


def test_a_notebook_that_prints_where_the_checkout_lies_is_not_accepted(make_project: Make) -> None:
    """Such as a warning, which names the file that it comes from: it would differ in every other checkout."""
    project = make_project("import os, warnings\nwarnings.warn(os.environ['PERSONA_STUDIES_ROOT'])")
    runs.run(project, "toy")
    with pytest.raises(PersonaStudiesError, match="toy cannot be accepted: its notebook prints"):
        verify.accept(project, "toy", confirm=lambda _: True)


SLOW_TO_END = """
import time
handlers = get_ipython().kernel.shell_handlers
answer = handlers["kernel_info_request"]
async def slowly(*message):
    await answer(*message)
    time.sleep(0.5)
handlers["kernel_info_request"] = slowly
"""


def test_a_kernel_is_left_when_it_is_done(make_project: Make, capfd: pytest.CaptureFixture[str]) -> None:
    """papermill's last question is answered before the kernel is done with it, and ending it interrupts it."""
    runs.run(make_project(SLOW_TO_END), "toy")
    assert "KeyboardInterrupt" not in capfd.readouterr().err


def test_a_study_without_a_module_or_class_says_so(toy_project: Project) -> None:
    toy_project.design("toy").write_text("")
    with pytest.raises(PersonaStudiesError, match="no class Parameters"):
        runs.run(toy_project, "toy")
    toy_project.design("toy").unlink()
    with pytest.raises(PersonaStudiesError, match="No module"):
        runs.run(toy_project, "toy")


@pytest.fixture
def no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: pytest.fail("a kernel was started"))


@pytest.mark.usefixtures("no_kernel")
@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("../mine", "holds files and no run.json"),
        ("../mine/note.txt", "is a file"),
        ("../link", "holds files and no run.json"),
        ("../other", "holds a run of another"),
        (".", "is part of the project or holds it"),
        ("..", "is part of the project or holds it"),
        ("data", "is part of the project or holds it"),
        ("data/results/toy", "is part of the project or holds it"),
        ("figures", "is part of the project or holds it"),
        ("lib/new", "is part of the project or holds it"),
        ("../link-to-studies", "is part of the project or holds it"),
        ("build", "is part of the project or holds it"),
    ],
)
def test_a_folder_of_others_is_refused_and_kept(toy_project: Project, place: str, message: str) -> None:
    above = toy_project.root.parent
    for name, text in {"mine/note.txt": "mine", "mine/run.json": "[]", "other/run.json": "{}"}.items():
        (above / name).parent.mkdir(exist_ok=True)
        (above / name).write_text(text)
    other = {"study": "another", "key": {}, "overrides": {}, "outputs": {}}
    (above / "other" / "run.json").write_text(json.dumps(other))
    (above / "link").symlink_to(above / "mine")
    (above / "link-to-studies").symlink_to(toy_project.studies)
    before = files(above)
    with pytest.raises(ParameterError, match=message) as caught:
        runs.run(toy_project, "toy", out=toy_project.root / place)
    assert caught.value.exit_code == 2 and "--out" in str(caught.value)
    assert files(above) == before


def test_a_relative_folder_and_what_others_put_there(toy_project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = toy_project.root.parent / "uv"
    lock = folder.with_name("uv.lock")
    lock.write_text("of somebody else")
    monkeypatch.chdir(folder.parent)
    first = runs.run(toy_project, "toy", out=Path("uv"))
    assert first.folder == folder and lock.read_text() == "of somebody else"
    made = files(folder)
    assert set(made) == {"toy.ipynb", "tables/result.csv", "run.json"}
    (folder / "tables" / "mine.csv").write_text("mine")
    (folder / "notes").mkdir()
    (folder / "notes" / "link").symlink_to("nowhere")
    (folder / "diff.md").write_text("outdated")
    runs.run(toy_project, "toy", out=Path("uv"), force=True)
    assert files(folder) == {**made, "tables/mine.csv": b"mine"}
    assert (folder / "notes" / "link").readlink() == Path("nowhere")
    assert leftovers(toy_project) == []


def test_a_file_of_a_user_is_not_replaced_by_a_new_output(run_project: Project, make_project: Make) -> None:
    project = run_project
    folder = project.build / "toy"
    (folder / "tables" / "more.csv").write_text("mine")
    before = files(folder)
    make_project(
        "import os, pathlib\nplace = pathlib.Path(os.environ['PERSONA_STUDIES_OUT']) / 'tables'\n"
        "place.mkdir()\n(place / 'more.csv').write_text('new')"
    )
    with pytest.raises(RunError, match=r"more\.csv was not written by a run"):
        runs.run(project, "toy")
    assert files(folder) == before


@pytest.mark.attack
def test_a_swap_killed_half_way_is_undone_by_the_next_run(run_project: Project) -> None:
    folder = run_project.build / "toy"
    made = files(folder)
    folder.rename(folders.beside(folder, "old"))
    folders.beside(folder, "partial").mkdir()
    assert not runs.run(run_project, "toy").fresh
    assert files(folder) == made
    runs.run(run_project, "toy", force=True)
    assert leftovers(run_project) == []


@pytest.mark.parametrize("name", ["build", "runs"])
def test_a_file_where_a_folder_must_be(toy_project: Project, name: str) -> None:
    (toy_project.root / name).write_text("")
    with pytest.raises(RunError, match=f"did not complete.*{name}"):
        runs.run(toy_project, "toy", ["alpha=0.1"] if name == "runs" else [])


def test_a_full_disk_keeps_the_earlier_result(run_project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_project.build / "toy"
    before = files(folder)
    write = Path.write_text

    def full(path: Path, *arguments: object, **how: object) -> int:
        if path.name == "run.json":
            raise OSError(28, "No space left on device")
        return write(path, *arguments, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RunError, match=r"No space left on device.*before is still there"):
        runs.run(run_project, "toy", force=True)
    assert files(folder) == before and leftovers(run_project) == []


@pytest.mark.parametrize("text", ["<<<<<<< HEAD\n{}", "[]", '{"cells": 1}', "\xff"])
def test_a_damaged_notebook_is_named(toy_project: Project, text: str) -> None:
    toy_project.notebook("toy").write_bytes(text.encode("latin-1"))
    with pytest.raises(NotebookError, match=r"toy\.ipynb is not a notebook"):
        runs.run(toy_project, "toy")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"study": "toy", "key": {}, "overrides": {}, "outputs": []}'])
def test_a_damaged_run_is_not_up_to_date(run_project: Project, text: str) -> None:
    folder = run_project.build / "toy"
    assert folders.up_to_date(folder, runs.key(run_project, "toy", {}))
    (folder / "run.json").write_text(text)
    assert not folders.up_to_date(folder, runs.key(run_project, "toy", {}))


def test_a_grid_beyond_the_recording_is_bad_input(recorded: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: started.append(1))
    with pytest.raises(ParameterError) as caught:
        runs.run(recorded, "toy", ["rounds=5", "alpha=0.1"])
    said = str(caught.value)
    missing, planned = len(small_plan(5)) - len(small_plan(3)), len(small_plan(5))
    assert caught.value.exit_code == 2 and not started
    assert said.startswith("With rounds=5 alpha=0.1 the plan reaches beyond what is recorded for simulated")
    assert f"{missing} of {planned} planned cells have no response, first measure " in said
    assert 'make record STUDY=toy MODEL=simulated PARAMS="rounds=5 alpha=0.1"' in said
    with pytest.raises(Exception, match="first cell"):
        runs.run(recorded, "toy", ["rounds=2"])
    assert started


@pytest.mark.usefixtures("no_kernel")
def test_a_measure_without_any_recording_is_bad_input(recorded: Project) -> None:
    for path in recorded.responses("toy", "simulated").glob("*.parquet"):
        path.unlink()
    with pytest.raises(ParameterError, match=f"{len(small_plan(2))} of {len(small_plan(2))} planned cells"):
        runs.run(recorded, "toy", ["rounds=2"])


@pytest.mark.usefixtures("no_kernel")
def test_a_recording_in_part_is_refused_with_the_command_that_completes_it(recorded: Project) -> None:
    before = len(small_plan(3))
    packing.pack(recorded, "toy", small_plan(5), "simulated", partly=True, asked_with="-p rounds=5")
    ready.prepare(recorded, "toy", ["rounds=2"])
    with pytest.raises(ParameterError) as refused:
        ready.prepare(recorded, "toy", ["rounds=5"])
    said = str(refused.value)
    assert f"not complete, {before} of {len(small_plan(5))} planned cells have a response" in said
    assert said.endswith('make record STUDY=toy MODEL=simulated FLAGS="-p rounds=5"')


@pytest.mark.usefixtures("no_kernel")
def test_a_measure_that_the_model_cannot_answer_is_no_hole_in_the_grid(recorded: Project) -> None:
    folder = recorded.responses("toy", "simulated")
    record = json.loads((folder / "record.json").read_text())
    del record["files"]["score.parquet"]
    (folder / "record.json").write_text(json.dumps(record))
    ready.prepare(recorded, "toy", ["rounds=2"])
    with pytest.raises(ParameterError, match=r"of 10 planned cells have no response, first measure talk"):
        ready.prepare(recorded, "toy", ["rounds=5"])


@pytest.mark.usefixtures("no_kernel")
def test_a_measure_that_parameters_ask_for_must_be_recorded(recorded: Project) -> None:
    """Here `score` is asked only with more than one round, so that its absence is not the model's."""
    source = recorded.design("toy").read_text()
    by_rounds = (
        "    cells = small_plan(parameters.rounds)\n"
        "    return cells[cells['measure'] == 'talk'] if parameters.rounds == 3 else cells\n"
    )
    recorded.design("toy").write_text(source.replace("    return small_plan(parameters.rounds)\n", by_rounds))
    folder = recorded.responses("toy", "simulated")
    record = json.loads((folder / "record.json").read_text())
    del record["files"]["score.parquet"]
    (folder / "record.json").write_text(json.dumps(record))
    with pytest.raises(ParameterError, match="first measure score"):
        ready.prepare(recorded, "toy", ["rounds=2"])


@pytest.mark.usefixtures("no_kernel")
def test_a_measure_that_is_named_must_be_recorded(recorded: Project) -> None:
    module = recorded.design("toy")
    module.write_text(
        module.read_text().replace(
            'label: str = Field(description="a text")', 'measure: str = Field(description="m")'
        )
    )
    notebook = recorded.notebook("toy")
    notebook.write_text(notebook.read_text().replace('label = \\"x\\"', 'measure = \\"primary\\"'))
    for held in ("primary", "cloze", "talk", "text"):
        ready.prepare(recorded, "toy", ["rounds=2", f"measure={held}"])
    with pytest.raises(
        ParameterError,
        match=r"measure=letter is not in the recording of simulated, which holds score, talk.*--measures letter",
    ):
        ready.prepare(recorded, "toy", ["rounds=2", "measure=letter"])


def test_hidden_files_are_no_studies(toy_project: Project) -> None:
    (toy_project.studies / ".~toy.ipynb").write_text("{}")
    (toy_project.studies / "folder.ipynb").mkdir()
    assert toy_project.names() == ["toy"]
    for name in ("../studies/toy", "toy/../toy", "", ".", "toy\n"):
        with pytest.raises(ParameterError, match="Unknown study"):
            runs.run(toy_project, name)
