"""One set of versions: environment.yml, requirements.lock and uv.lock agree."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from persona_studies.paths import Project
from persona_studies.reproduce import notebooks, ready
from tests.kit.locks import uv_lock

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_PYTHON = {"python_full_version": "3.11.0", "python_version": "3.11"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(name: str) -> set[str]:
    """Versions of a package that uv.lock holds for Python 3.11."""
    return {
        package["version"]
        for package in uv_lock()["package"]
        if package["name"] == normal(name)
        and (
            "resolution-markers" not in package
            or any(Marker(marker).evaluate(CONDA_PYTHON) for marker in package["resolution-markers"])
        )
    }


def conda() -> dict[str, str]:
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    return dict(entry.split("=") for entry in entries if isinstance(entry, str) and "=" in entry)


def test_conda_pins_are_those_of_the_lock() -> None:
    pins = {normal(name): version for name, version in conda().items()}
    assert pins.pop("python") == "3.11"
    assert {name: {version} for name, version in pins.items()} == {name: locked(name) for name in pins}


def test_every_default_dependency_is_in_the_conda_environment() -> None:
    wanted = {normal(Requirement(text).name) for text in PROJECT["dependencies"]}
    assert wanted <= {normal(name) for name in conda()}


def test_the_sponsors_packages_are_in_the_default_install() -> None:
    names = {normal(Requirement(text).name) for text in PROJECT["dependencies"]}
    assert {"jupyterlab", "papermill", "pandas", "statsmodels", "pingouin", "seaborn", "huggingface-hub"} <= names


def test_the_pip_lock_names_no_index() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text and "index-url" not in text


def test_binder_installs_the_lock_with_the_python_of_the_conda_environment() -> None:
    runtime = (ROOT / "binder" / "runtime.txt").read_text().strip()
    assert runtime == f"python-{conda()['python']}"
    assert SpecifierSet(PROJECT["requires-python"]).contains(runtime.removeprefix("python-"))
    post_build = ROOT / "binder" / "postBuild"
    assert post_build.stat().st_mode & 0o100
    commands = [line for line in post_build.read_text().splitlines() if not line.startswith("#")]
    named = {word for line in commands for word in line.split() if re.fullmatch(r"[\w/]+\.(lock|json|txt)", word)}
    assert named == {"requirements.lock", "lib/persona_studies/publish/lab/overrides.json"}
    assert all((ROOT / name).is_file() for name in named)
    assert any("--require-hashes -r requirements.lock" in line for line in commands)


def test_the_colab_notebook_names_a_study_and_parameters_that_it_takes() -> None:
    project = Project(ROOT)
    names = notebooks.parameters(notebooks.read(ROOT / "docs" / "colab.ipynb"))
    study = names["study"]
    assert study in project.names() and names["repository"] == ""
    given = ready.parameters_class(project, study).parse(shlex.split(names["parameters"]))
    assert given and set(given) <= set(notebooks.parameters(notebooks.read(project.notebook(study))))


def test_the_colab_notebook_refuses_to_clone_nothing() -> None:
    (install,) = [c.source for c in notebooks.read(ROOT / "docs" / "colab.ipynb").cells if "uv sync" in c.source]
    head, script = install.split("\n", 1)
    assert head == '%%bash -s "$repository"' and "uv sync --quiet --frozen" in script
    done = subprocess.run(["bash", "-s", ""], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr == "Name the repository in the cell above.\n"


def test_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and citation["authors"]
    assert citation["version"] == PROJECT["version"] and citation["license"] == "MIT"


def test_no_recipe_hides_a_failure() -> None:
    recipes = [line[1:] for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("\t")]
    assert recipes and not [line for line in recipes if line.lstrip("@").startswith("-") or "|| true" in line]


def test_every_verb_of_the_makefile_is_listed_by_help() -> None:
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for verb in ["help", "reproduce", "test", "study", "verify", "accept", "lab", "record", "check"]:
        assert re.search(rf"^  make {verb} +\S", said, re.MULTILINE), verb
