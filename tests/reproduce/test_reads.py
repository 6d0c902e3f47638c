"""A run depends on what its protocol says it reads, and on nothing else below data/."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from persona_studies.errors import ProtocolError
from persona_studies.paths import Project
from persona_studies.reproduce import imports, reads, runs

REPOSITORY = Project(Path(__file__).parents[2])
SOURCES = """[[source]]
id = "own-rows"
kind = "github"

[[source]]
id = "other"
kind = "github"
"""


@pytest.fixture
def declaring(toy_project: Project) -> Project:
    """The toy study, which names one bank and one source; another bank and source lie beside them."""
    (toy_project.items / "own.csv").write_text("id\n1\n")
    (toy_project.items / "other.csv").write_text("id\n1\n")
    (toy_project.sources).write_text(SOURCES)
    declare(toy_project, 'reads = ["items/own.csv"]\nsources = ["own-*"]\n')
    return toy_project


def declare(project: Project, lines: str) -> None:
    project.protocol("toy").write_text('study = "toy"\ntitle = "A toy"\n' + lines)


STATISTIC = "persona_studies.analyse.stats.agreement"
CHANGES: dict[str, tuple[Callable[[Project], object], str | None]] = {
    "a bank that it names": (lambda p: (p.items / "own.csv").write_text("id\n2\n"), "data"),
    "a bank that it does not name": (lambda p: (p.items / "other.csv").write_text("id\n2\n"), None),
    "a new bank": (lambda p: (p.items / "new.csv").write_text("id\n2\n"), None),
    "the pin of its source": (lambda p: p.sources.write_text(SOURCES.replace("github", "hub", 1)), "sources"),
    "the pin of another source": (
        lambda p: p.sources.write_text(SOURCES.replace('"other"\nkind = "github"', '"other"\nkind = "hub"')),
        None,
    ),
    "another study": (lambda p: made(p.studies / "neighbour" / "design.py").write_text("x = 1\n"), None),
    "its own code": (lambda p: made(p.folder("toy") / "extra.py").write_text("x = 1\n"), "code"),
    "a module that the notebook imports": (lambda p: library(p, "analyse/tables.py", "x = 1\n"), "code"),
    "a module that a module imports": (lambda p: library(p, "files.py", "x = 1\n"), "code"),
    "a module that a function imports": (lambda p: library(p, "analyse/late.py", "x = 1\n"), "code"),
    "the package of a module": (lambda p: library(p, "analyse/__init__.py", "x = 1\n"), "code"),
    "what executes notebooks": (lambda p: library(p, "reproduce/execute.py", "x = 1\n"), "code"),
    "a module of the same wing that it does not import": (
        lambda p: library(p, "analyse/other.py", "x = 1\n"),
        None,
    ),
    "a new module": (lambda p: library(p, "analyse/new.py", "x = 1\n"), None),
    "a way to ask a model": (lambda p: library(p, "ask/backends/own.py", "x = 1\n"), None),
}
LIBRARY = {
    "__init__.py": "",
    "files.py": "",
    "analyse/__init__.py": "",
    "analyse/tables.py": "from persona_studies import files\ndef late():\n    from . import late\n",
    "analyse/late.py": "from persona_studies.ask.backends import own\n",
    "analyse/other.py": "from persona_studies.analyse import tables\n",
    "ask/backends/own.py": "",
    "reproduce/execute.py": "",
}


def library(project: Project, name: str, text: str) -> None:
    made(project.root / "library" / name).write_text(text)


def made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize("what", CHANGES)
def test_the_key_changes_with_what_is_read_and_with_nothing_else(
    declaring: Project, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in LIBRARY.items():
        library(declaring, name, text)
    monkeypatch.setattr(imports, "LIBRARY", declaring.root / "library")
    made(declaring.folder("toy") / "design.py").write_text("from persona_studies.analyse import tables\n")
    before = runs.key(declaring, "toy", {})
    change, expected = CHANGES[what]
    change(declaring)
    after = runs.key(declaring, "toy", {})
    changed = [name for name in before if before[name] != after[name]]
    assert changed == ([expected] if expected else [])


def test_without_a_declaration_everything_counts(toy_project: Project) -> None:
    before = runs.key(toy_project, "toy", {})
    (toy_project.items / "new.csv").write_text("id\n")
    assert runs.key(toy_project, "toy", {})["data"] != before["data"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('reads = ["items/none.csv"]\n', "names data/items/none.csv, which is not there"),
        ('reads = ["../pyproject.toml"]\n', "names data/../pyproject.toml, which is not there"),
        ("reads = 3\n", "`reads` of toy/protocol.toml must be a list of texts"),
        ('sources = ["nothing-*"]\n', "names 'nothing-\\*'; data/sources.toml has none"),
    ],
)
def test_a_declaration_that_leads_nowhere_is_refused(declaring: Project, lines: str, message: str) -> None:
    declare(declaring, lines)
    with pytest.raises(ProtocolError, match=message):
        runs.key(declaring, "toy", {})


def test_a_folder_of_data_may_be_a_link(declaring: Project) -> None:
    before = runs.key(declaring, "toy", {})
    elsewhere = declaring.root.parent / "larger disk"
    shutil.move(declaring.items, elsewhere)
    declaring.items.symlink_to(elsewhere)
    assert runs.key(declaring, "toy", {}) == before
    (elsewhere / "own.csv").write_text("id\n2\n")
    assert runs.key(declaring, "toy", {})["data"] != before["data"]


HELD = """
import sys
from pathlib import Path
from persona_studies.paths import Project
from persona_studies.reproduce import reads
project = Project(Path(sys.argv[1]))
reads.hold_to(project, "toy")
import pandas as pd
print(len(pd.read_csv(project.items / sys.argv[2])))
"""


@pytest.mark.parametrize(
    ("name", "inside", "refused"),
    [("own.csv", True, False), ("other.csv", True, True), ("other.csv", False, False)],
)
def test_a_run_cannot_read_what_it_does_not_declare(
    declaring: Project, monkeypatch: pytest.MonkeyPatch, name: str, inside: bool, refused: bool
) -> None:
    if inside:
        monkeypatch.setenv("PERSONA_STUDIES_OUT", str(declaring.root / "out"))
    else:
        monkeypatch.delenv("PERSONA_STUDIES_OUT", raising=False)
    command = [sys.executable, "-c", HELD, str(declaring.root), name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode != 0) == refused
    if refused:
        assert f"toy reads data/items/{name}, which its protocol does not name" in done.stderr
        assert "add it to `reads` in studies/toy/protocol.toml" in done.stderr


IMPORTING = """
import sys, importlib
from pathlib import Path
from persona_studies.paths import Project
{first}
from persona_studies.reproduce import imports
imports.hold_to(Project(Path(sys.argv[1])), "toy", asks={asks})
{then}
"""
NUMBERS = "importlib.import_module('persona_studies.analyse' + '.numbers')"


@pytest.mark.parametrize(
    ("first", "then", "asks", "refused"),
    [
        ("", NUMBERS, False, "write `from persona_studies.analyse import numbers`"),
        (NUMBERS, "", False, "in a way that cannot be read from its source"),
        ("", "__import__('persona_studies.analyse.numbers')", False, "toy imports persona_studies.analyse.numbers"),
        ("", "import persona_studies.ask.backends.llama_cpp", False, "to ask a model; set live_hours above 0"),
        ("", "import persona_studies.ask.backends.endpoint.budget", True, ""),
        ("", "import persona_studies.files", False, ""),
    ],
)
def test_a_kernel_cannot_import_what_the_key_does_not_count(
    declaring: Project, monkeypatch: pytest.MonkeyPatch, first: str, then: str, asks: bool, refused: str
) -> None:
    monkeypatch.setenv("PERSONA_STUDIES_OUT", str(declaring.root / "out"))
    uses = "import persona_studies.ask.backends, persona_studies.reproduce.imports\n"
    made(declaring.folder("toy") / "design.py").write_text(uses)
    code = IMPORTING.format(first=first, then=then, asks=asks)
    done = subprocess.run(
        [sys.executable, "-c", code, str(declaring.root)], capture_output=True, text=True, check=False
    )
    assert (done.returncode != 0) == bool(refused), done.stderr
    assert refused in done.stderr


def test_a_statistic_is_an_input_of_its_users_only() -> None:
    users = {name for name in REPOSITORY.names() if STATISTIC in imports.modules(REPOSITORY, name)}
    assert "clinical_personas" in users and "persona_choice" not in users


@pytest.mark.parametrize("study", REPOSITORY.names())
def test_every_study_declares_what_it_reads(study: str) -> None:
    assert reads.declared(REPOSITORY, study) is not None
    assert all(path.exists() for path in reads.data(REPOSITORY, study))
    assert reads.pins(REPOSITORY, study)
