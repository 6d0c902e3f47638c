"""Rules that a linter keeps are broken here once each, and noticed; what it cannot see is looked for."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

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
