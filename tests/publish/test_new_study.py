"""A new study by `docs/adding_a_study.md`: written, run, checked, recorded, accepted and shown."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from persona_studies import cli
from persona_studies.analyse import tables, verdicts
from persona_studies.ask import packing, recording
from persona_studies.ask.backends import Request
from persona_studies.design import protocol
from persona_studies.errors import BankError, ParameterError
from persona_studies.paths import Project
from persona_studies.publish import new, scoreboard, site
from persona_studies.reproduce import folders, notebooks, ready, runs, verify
from tests.kit.simulated import SimulatedBackend

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "adding_a_study.md").read_text("utf-8")
COMMANDS = [line for block in re.findall(r"```\n(.*?)```", GUIDE, re.DOTALL) for line in block.splitlines()]
NAME = "library_cards"
# What a project needs beside its studies.
FILES = [
    *("Makefile", "pyproject.toml", "uv.lock", "README.md", "studies/README.md"),
    *("docs/serving.md", "docs/scoreboard.md", "docs/commands.md"),
    *("data/models.toml", "data/units.toml", "data/sources.toml", "data/responses/README.md"),
    *("tests/__init__.py", "tests/studies/__init__.py", "benchmarks/results/load.csv"),
]


def empty(root: Path) -> Project:
    """Make a project without a study."""
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, root / name)
    (root / "data" / "items").mkdir()
    return Project(root)


def environment(project: Project) -> dict[str, str]:
    return os.environ | {"PERSONA_STUDIES_ROOT": str(project.root), "PYTHONPATH": str(ROOT / "lib")}


def tool(project: Project, *words: str) -> str:
    """Run a command of this environment in the project, and return what it said."""
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=project.root,
        env=environment(project),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which `new` made a study."""
    project = empty(tmp_path_factory.mktemp("checkout"))
    done = CliRunner().invoke(cli.app, ["new", NAME], env={"PERSONA_STUDIES_ROOT": str(project.root)})
    assert done.exit_code == 0 and f"make record STUDY={NAME}" in done.output, done.output
    return project


class TestNew:
    def test_it_has_run_and_agrees_with_its_reference(self, made: Project) -> None:
        assert made.names() == [NAME]
        assert folders.up_to_date(made.build / NAME, runs.key(made, NAME, {}))
        assert verify.verify(made, [NAME]).ok
        assert notebooks.problems(made, NAME) == []

    def test_nothing_is_shown_as_a_result_before_a_model_has_been_asked(self, made: Project) -> None:
        found = tables.load(made.results(NAME) / "verdicts.csv")
        assert set(found["verdict"]) == {verdicts.NOT_TESTABLE} and found["estimate"].isna().all()
        assert (found["why"] == "no model is recorded").all()
        shown = notebooks.finding(notebooks.read(made.notebook(NAME)))
        assert shown.startswith("**Nothing is known yet**: no responses recorded yet")
        assert not (made.results(NAME) / "contrasts.csv").exists()

    def test_it_is_in_the_scoreboard_the_lists_and_the_site(self, made: Project) -> None:
        assert set(scoreboard.load(made)["study"]) == {NAME}
        assert f"[{NAME}](studies/{NAME}.ipynb)" in (made.root / "README.md").read_text()
        assert f"## {NAME}" in (made.studies / "README.md").read_text()
        page = (site.build(made) / f"{NAME}.html").read_text()
        assert "not testable here" in page and "no responses recorded yet" in page

    def test_it_passes_the_checks_of_style(self, made: Project) -> None:
        # The linter looks a module up in the folders of the project: it must see the library.
        (made.root / "lib").symlink_to(ROOT / "lib")
        try:
            tool(made, "ruff", "check", "--no-cache", "studies", "tests")
            tool(made, "ruff", "format", "--no-cache", "--check", "studies", "tests")
        finally:
            (made.root / "lib").unlink()

    @pytest.mark.attack  # Where nothing was checked before, mypy reads every package first, for half a minute.
    def test_it_passes_the_checks_of_types(self, made: Project) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "mypy", *map(str, sorted(made.folder(NAME).glob("*.py")))],
            cwd=ROOT,
            env=os.environ | {"MYPYPATH": str(made.studies)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout

    def test_its_own_test_passes(self, made: Project) -> None:
        assert "failed" not in tool(made, "pytest", "-q", "-n", "0", f"tests/studies/test_{NAME}.py")


@pytest.mark.parametrize("name", ["zebra", "x", "a23456789_123456789_123456789"])
def test_any_name_passes_the_linter(tmp_path: Path, name: str) -> None:
    """Where a name stands in the alphabet and how long it is decides how imports and lines are written."""
    project = empty(tmp_path)
    new.write(project, name)
    (tmp_path / "lib").symlink_to(ROOT / "lib")
    tool(project, "ruff", "check", "--no-cache", "studies", "tests")
    tool(project, "ruff", "format", "--no-cache", "--check", "studies", "tests")


REFUSED = {
    "": "it needs small letters",
    "two words": "it needs small letters",
    "Upper": "it needs small letters",
    "2020_vision": "it needs small letters",
    "hy-phen": "it needs small letters",
    "../up": "it needs small letters",
    "naïve": "it needs small letters",
    "_private": "it needs small letters",
    "a" * 31: "it needs small letters",
    "class": "it is a word of Python",
    "match": "it is a word of Python",
    "json": "a module of Python",
    "test": "a module, a folder or a command of this project",
    "pandas": "an installed package",
    "figures": "a module, a folder or a command of this project",
    "banks": "a module, a folder or a command of this project",
    "data": "a module, a folder or a command of this project",
    "reproduce": "a module, a folder or a command of this project",
    "index": "a module, a folder or a command of this project",
    "test_own": "a module, a folder or a command of this project",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_that_cannot_be_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    project = empty(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ParameterError, match=REFUSED[name]) as refused:
        new.write(project, name)
    assert "\n" not in str(refused.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    remedy = re.search(r"such as (\w+)", str(refused.value))
    assert remedy is not None
    new.check(project, remedy[1])


@pytest.mark.parametrize(
    "place",
    ["studies/own.ipynb", "studies/own", "data/items/own", "tests/studies/test_own.py", "data/responses/own"],
)
def test_what_is_there_is_not_written_over(tmp_path: Path, place: str) -> None:
    project = empty(tmp_path)
    (tmp_path / place).mkdir(parents=True)
    with pytest.raises(ParameterError, match=f"'own' cannot name a new study: {place} exists"):
        new.write(project, "own")


def test_the_command_refuses_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSONA_STUDIES_ROOT", str(empty(tmp_path).root))
    monkeypatch.setattr(sys, "argv", ["persona-studies", "new", "json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2


class TestTheGuide:
    """Every command of the guide, in its order, with a study of its own."""

    def test_every_command_is_one_that_exists(self) -> None:
        verbs = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert len(COMMANDS) >= 10
        for command in COMMANDS:
            words = shlex.split(command)
            if words[0] == "make":
                assert words[1] in verbs, command
                dry = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
                # The study of the guide is not there; every other word is looked at.
                assert dry.returncode == 0, command + dry.stderr
            else:
                assert words[0] in (".venv/bin/persona-studies", ".venv/bin/python"), command

    def test_every_file_of_its_table_is_made(self, made: Project) -> None:
        # Rows that name a table within a file are of files that all studies share.
        listed = re.findall(r"^\| `([^`]+)` \|", GUIDE, re.MULTILINE)
        assert len(listed) == 7
        for name in listed:
            assert (made.root / name).is_file(), name

    def test_followed_with_own_banks_it_ends_in_results(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        project = empty(tmp_path)
        monkeypatch.setenv("PERSONA_STUDIES_ROOT", str(tmp_path))
        new.write(project, NAME)
        # 1. A bank as a spreadsheet writes it: semicolons, byte order mark, line ends of Windows.
        people, items = (project.items / NAME / f"{name}.csv" for name in ("personas", "items"))
        text = people.read_text().replace("teacher who knows", "librarian who knows")
        people.write_bytes(text.replace(",", ";").replace("\n", "\r\n").encode("utf-8-sig"))
        items.write_text(items.read_text() + ",,,,,,\n")
        with pytest.raises(BankError, match=rf"data/items/{NAME}/items.csv, row 26 is empty; delete it"):
            cells(project)
        items.write_text(items.read_text().replace(",,,,,,\n", "sky,Which colour is a clear sky?,blue,green,,,1\n"))
        assert len(cells(project)["item"].unique()) == 25
        # 3. A model that knows the answers, but for the order to answer wrongly.
        record(project)
        # 4. Results, reference, site.
        ran = runs.run(project, NAME)
        verify.accept(project, NAME, confirm=lambda report: True)
        assert verify.verify(project, [NAME]).ok and ran.fresh
        found = scoreboard.load(project)
        assert not set(found["verdict"]) & {verdicts.NOT_TESTABLE, verdicts.UNINFORMATIVE}
        assert found["estimate"].notna().all() and (found["unit"] == "difference in accuracy").all()
        page = (site.build(project) / f"{NAME}.html").read_text()
        assert "simulated" in page and "no responses recorded yet" not in page


def cells(project: Project) -> pd.DataFrame:
    in_force, _ = ready.resolve(project, NAME, [])
    made = ready.study_module(project, NAME)
    plan: pd.DataFrame = made.plan(project, protocol.load(project.protocol(NAME)), in_force)
    return plan


def record(project: Project) -> None:
    """Record a simulated model, as a test may; it is never shown as a result of a study of this project."""
    right = pd.read_csv(project.items / NAME / "items.csv", dtype=str, keep_default_na=False)
    gold = {row["question"]: row[f"option_{row['right']}"] for row in right.to_dict("records")}

    def answer(request: Request) -> tuple[float, ...]:
        question = next(text for text in gold if text in f"{request.shared}{request.user}")
        wrong = "wrong option on purpose" in str(request.system)
        shown = dict(re.findall(r"^([A-D])\. (.*)$", request.user, re.MULTILINE))
        texts = [shown.get(option, option) for option in request.options]
        return tuple(-0.125 if (text == gold[question]) != wrong else -9.0 for text in texts)

    backend, plan = SimulatedBackend(answer), cells(project)
    done = recording.record(project, NAME, plan, backend)
    assert done.complete
    packing.pack(project, NAME, plan, backend.info.name)
    known = json.loads((project.responses(NAME, "simulated") / "record.json").read_text())
    assert known["model"]["name"] == "simulated"
