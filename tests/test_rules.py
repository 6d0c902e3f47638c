"""Rules that a linter keeps are broken here once each, and noticed; what it cannot see is looked for."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

import pytest
from packaging.requirements import Requirement

from persona_studies.reproduce import notebooks

ROOT = Path(__file__).parents[1]
PLANTED = {
    "import pickle": "TID251",
    "from joblib import load": "TID251",
    "import dill": "TID251",
    "import shelve": "TID251",
    "import marshal": "TID251",
    "import pickle\nx = pickle.loads(b'')": "S301",
    "import pandas as pd\nx = pd.read_pickle('x')": "S301",
    "import pandas\nx = pandas.read_pickle('x')": "TID251",
    "import torch\nx = torch.load('x')": "TID251",
    "from torch import load": "TID251",
    "import torch\nx = torch.hub.load('a/b', 'c')": "TID251",
    "from datasets import load_dataset": "TID251",
    "import yaml\nx = yaml.load('x', Loader=yaml.Loader)": "S506",
    "import yaml\nx = yaml.unsafe_load('x')": "TID251",
    "x = eval('1')": "S307",
    "exec('x = 1')": "S102",
    "import subprocess\nsubprocess.run('ls', shell=True)": "S602",
    "import os\nos.system('ls')": "S605",
    "import tarfile\ntarfile.open('x').extractall('y')": "S202",
    "import tempfile\nx = tempfile.mktemp()": "S306",
}


@pytest.mark.parametrize("place", ["lib/persona_studies/planted.py", "studies/planted.py", "tests/planted.py"])
def test_the_linter_bites(place: str) -> None:
    text, expected = "", {}
    for code, rule in PLANTED.items():
        text += code + "\n"
        expected[text.count("\n")] = rule
    said = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--output-format", "json", "--stdin-filename", place, "-"],
        cwd=ROOT,
        input=text,
        capture_output=True,
        text=True,
    )
    found = {(fault["location"]["row"], fault["code"]) for fault in json.loads(said.stdout)}
    assert [(row, rule) for row, rule in expected.items() if (row, rule) not in found] == []


# Arguments that let a file that is read, or a shell, run code.
RUNS_CODE = {"allow_pickle": True, "trust_remote_code": True, "weights_only": False, "shell": True}


def code_of(path: Path) -> list[str]:
    if path.suffix == ".py":
        return [path.read_text("utf-8")]
    # A cell of the shell (%%bash) is no Python.
    code = [cell.source for cell in notebooks.read(path).cells if cell.cell_type == "code"]
    return [source for source in code if not source.startswith("%%bash")]


def arguments_that_run_code(source: str) -> list[str]:
    if not any(name in source for name in RUNS_CODE):
        return []
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [
        f"{keyword.arg} in line {keyword.value.lineno}"
        for call in calls
        for keyword in call.keywords
        if keyword.arg in RUNS_CODE
        and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is not RUNS_CODE[keyword.arg])
    ]


def test_no_argument_lets_a_file_run_code() -> None:
    paths = [
        path for place in ("lib", "studies", "benchmarks", "tests", "docs") for path in (ROOT / place).rglob("*")
    ]
    code = [path for path in paths if path.suffix in (".py", ".ipynb") and ".ipynb_checkpoints" not in path.parts]
    assert len(code) > 100
    assert {
        str(path): found for path in code for text in code_of(path) if (found := arguments_that_run_code(text))
    } == {}


@pytest.mark.parametrize(
    "call", ["f(trust_remote_code=True)", "np.load(p, allow_pickle=x)", "torch.load(p, weights_only=0 > 1)"]
)
def test_such_an_argument_is_noticed(call: str) -> None:
    assert len(arguments_that_run_code(call)) == 1


@pytest.mark.parametrize("call", ["f(trust_remote_code=False)", "np.load(p)", "torch.load(p, weights_only=True)"])
def test_a_harmless_argument_is_not(call: str) -> None:
    assert arguments_that_run_code(call) == []


# Dependencies


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def licences() -> dict[str, str]:
    rows = re.findall(r"^\| ([\w.-]+) +\| (.+?) +\|$", (ROOT / "docs" / "licences.md").read_text(), re.MULTILINE)
    return {normal(name): licence for name, licence in rows if name != "Name"}


def locked() -> set[str]:
    """Return what the lock installs on Linux with the oldest supported Python."""
    linux = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"}
    linux |= {"python_full_version": "3.11.0", "python_version": "3.11", "implementation_name": "cpython"}
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    wanted = [Requirement(line.removesuffix(" \\")) for line in lines if line[:1].isalnum()]
    return {normal(one.name) for one in wanted if one.marker is None or one.marker.evaluate(linux)}


def test_every_locked_dependency_has_a_licence_in_the_list() -> None:
    assert len(locked()) > 100
    assert set(licences()) == locked(), "run make licences"
    assert [name for name, licence in licences().items() if licence in ("", "UNKNOWN")] == []


def test_the_one_copyleft_dependency_is_named_in_the_readme() -> None:
    strong = [name for name, licence in licences().items() if re.search(r"(?<!L)GPL|AGPL|GNU General", licence)]
    assert strong == ["pingouin"]
    assert "pingouin, is GPL-3.0" in (ROOT / "README.md").read_text()


# The house


LIB, STUDIES = ROOT / "lib" / "persona_studies", ROOT / "studies"
WINGS = ("design", "ask", "analyse", "reproduce", "publish")
# A wing imports itself and those before it; these belong to no wing, and those above import all of them.
BELOW, ABOVE = {"errors", "paths", "files", "network"}, {"study", "cli", "__main__"}
MODULE, FUNCTION = 500, 60


def long_parts(path: Path) -> list[str]:
    """Return what is too long in a module: itself, or functions with all that stands in them."""
    source = path.read_text("utf-8")
    lines = len(source.splitlines())
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    return [f"{lines} lines"] * (lines > MODULE) + [f"{name}: {n}" for name, n in lengths.items() if n > FUNCTION]


def test_modules_and_functions_are_short() -> None:
    modules = [path for place in (LIB, STUDIES, ROOT / "tools") for path in sorted(place.rglob("*.py"))]
    assert len(modules) > 100
    found = {path.relative_to(ROOT).as_posix(): parts for path in modules if (parts := long_parts(path))}
    assert found == {}


def test_a_long_function_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "planted.py"
    path.write_text("def outer():\n    def inner():\n" + "        pass\n" * 59 + "\n" * 450)
    assert long_parts(path) == ["511 lines", "outer: 61"]


def imported(source: str, known: Collection[str]) -> set[str]:
    """Return what of the library a module imports when it runs, not for its types alone."""
    tree = ast.parse(source)
    nodes = [*ast.walk(tree)]
    ifs = [node for node in nodes if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    typing = {id(node) for part in ifs for node in ast.walk(part)}
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and id(node) not in typing and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in known else node.module for name in names}
        elif isinstance(node, ast.Import) and id(node) not in typing:
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == "persona_studies"}


@cache
def library() -> Mapping[str, set[str]]:
    """Return what each module of the library imports of it, functions included."""
    paths = {
        ".".join(path.relative_to(ROOT / "lib").with_suffix("").parts).removesuffix(".__init__"): path
        for path in LIB.rglob("*.py")
    }
    return MappingProxyType({name: imported(path.read_text("utf-8"), paths) for name, path in paths.items()})


def circles(graph: Mapping[str, set[str]]) -> list[str]:
    """Return the modules that reach themselves through what they import."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [*graph[start]]
        while waiting:
            if (name := waiting.pop()) not in seen:
                seen.add(name)
                waiting += graph.get(name, ())
        return seen

    return sorted(name for name in graph if name in reached(name))


def arrows_back(graph: Mapping[str, set[str]]) -> list[str]:
    """Return the imports of a wing that lead to a later one, or above all wings."""
    place = {part: n for n, part in enumerate(WINGS)}
    place |= dict.fromkeys(BELOW, -1) | dict.fromkeys(ABOVE, len(WINGS))
    pairs = [(name, other) for name, others in graph.items() for other in others if name.count(".")]
    return sorted(
        f"{name} imports {other}"
        for name, other in pairs
        if other.count(".") and place[name.split(".")[1]] < place[other.split(".")[1]]
    )


def test_imports_run_in_no_circle_and_never_back() -> None:
    graph = library()
    assert len(graph) > 90 and any(graph.values())
    assert circles(graph) == [] and arrows_back(graph) == []


def test_a_circle_and_an_arrow_back_are_noticed() -> None:
    graph = {**library()}
    graph["persona_studies.design.plan"] = {"persona_studies.design.banks", "persona_studies.ask.models"}
    graph["persona_studies.design.banks"] = {"persona_studies.design.plan"}
    assert {"persona_studies.design.banks", "persona_studies.design.plan"} <= {*circles(graph)}
    assert arrows_back(graph) == ["persona_studies.design.plan imports persona_studies.ask.models"]


def face(wing: str) -> set[str]:
    return {*importlib.import_module(f"persona_studies.{wing}").__all__}


@pytest.mark.parametrize("wing", WINGS)
def test_a_face_names_modules_of_its_wing(wing: str) -> None:
    assert [name for name in face(wing) if not importlib.import_module(f"persona_studies.{wing}.{name}")] == []


def hidden(names: Collection[str], own: str = "") -> list[str]:
    """Return the imported modules that a wing keeps to itself; ``own`` is the wing that imports."""
    parts = [name.split(".") for name in names]
    wings = [part for part in parts if len(part) > 1 and part[1] in WINGS and part[1] != own]
    return sorted(".".join(part) for part in wings if len(part) < 3 or part[2] not in face(part[1]))


def test_what_others_import_stands_in_a_face() -> None:
    graph = library()
    found = {name: hidden(others, name.split(".")[1]) for name, others in graph.items() if name.count(".")}
    for path in STUDIES.glob("*/*.py"):
        found[path.relative_to(ROOT).as_posix()] = hidden(imported(path.read_text("utf-8"), graph))
    assert {name: others for name, others in found.items() if others} == {}
    assert hidden({"persona_studies.ask.logs", "persona_studies.ask.models"}) == ["persona_studies.ask.logs"]


def test_a_notebook_imports_its_own_folder_and_the_faces_of_design_and_analyse() -> None:
    graph = library()
    studies = {path.stem for path in STUDIES.glob("*.ipynb")}
    assert len(studies) > 5
    for study in studies:
        source = "\n".join(code_of(STUDIES / f"{study}.ipynb"))
        names = imported(source, graph) - {"persona_studies.study"}
        assert [name for name in names if name.split(".")[1] not in ("design", "analyse")] == [], study
        assert hidden(names) == [], study


def from_tests(source: str) -> list[str]:
    """Return the test modules that a source imports."""
    nodes = [*ast.walk(ast.parse(source))]
    names = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    names += [name.name for node in nodes if isinstance(node, ast.Import) for name in node.names]
    return [name for name in names if re.match(r"tests\.(\w+\.)?test_", name)]


def test_a_test_imports_no_other_test() -> None:
    texts = {path.relative_to(ROOT): path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py")}
    assert {path: found for path, text in texts.items() if (found := from_tests(text))} == {}
    assert from_tests("def test():\n    from tests.ask.test_chat import source") == ["tests.ask.test_chat"]


# A contrast is declared in parts (families.declared): its name is for readers.
TAKEN_APART = re.compile(
    r"\bhypothesis(['\"]\])?\)?(\.astype\(str\))?(\.str)?\.(r?split|r?partition|extract|contains|startswith|endswith)\("
)


def test_nobody_takes_a_hypothesis_apart() -> None:
    texts = {path: path.read_text("utf-8") for part in ("lib", "studies") for path in (ROOT / part).rglob("*.py")}
    texts |= {path: "\n".join(code_of(path)) for path in STUDIES.glob("*.ipynb")}
    assert {path: found for path, text in texts.items() if (found := TAKEN_APART.search(text))} == {}
    assert TAKEN_APART.search('tests["hypothesis"].str.split(" | ")')
    assert TAKEN_APART.search('hypothesis.rpartition(", ")')


def test_tests_lie_where_what_they_test_lies() -> None:
    wings = {path.name for path in (ROOT / "lib" / "persona_studies").iterdir() if (path / "__init__.py").is_file()}
    places = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    assert {place.name for place in places} - {"tests"} == {*wings, "studies"}
    studies = {path.stem for path in (ROOT / "studies").glob("*.ipynb")}
    of_studies = [path.stem.removeprefix("test_") for path in (ROOT / "tests" / "studies").glob("test_*.py")]
    assert all(any(name.startswith(study) for name in of_studies) for study in studies)
