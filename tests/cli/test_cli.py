"""The command line as a person meets it: exit codes and messages without tracebacks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from persona_studies.paths import Project
from tests.conftest import Call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "toyy"], "Did you mean 'toy'"),
        (["run", "toy", "-p", "alhpa=1"], "Did you mean 'alpha'"),
        (["run", "toy", "--params", "alpha=1 rounds=0"], "'rounds' cannot be 0"),
        (["run", "toy", "--params", "label='x"], "cannot be split"),
        (["run", "--no-such-option"], "No such option"),
        (["record", "toy", "--shard", "3/2"], "not I/N"),
        (["show", "other"], "Unknown study 'other'"),
        (["verify", "other"], "Unknown study 'other'"),
    ],
)
def test_a_mistake_is_named_and_ends_with_2(
    toy_project: Project, command_line: Call, arguments: list[str], message: str
) -> None:
    code, said = command_line(toy_project, *arguments)
    assert (code, message in said) == (2, True), said


def test_verify_without_a_build_fails_and_says_what_to_do(toy_project: Project, command_line: Call) -> None:
    code, said = command_line(toy_project, "verify")
    assert code == 1 and "run make reproduce" in said


def test_every_command_explains_itself(toy_project: Project, command_line: Call) -> None:
    code, said = command_line(toy_project, "--help")
    assert code == 0
    for command in ("run", "record", "verify", "accept", "list", "show"):
        assert command in said


def test_outside_a_project_the_variable_is_named(toy_project: Project, command_line: Call) -> None:
    shutil.rmtree(toy_project.studies)
    code, said = command_line(toy_project, "list")
    assert code == 1 and "PERSONA_STUDIES_ROOT" in said


def test_a_process_of_its_own_ends_with_that_code_and_without_a_traceback(toy_project: Project) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "persona_studies.cli", "run", "toy", "-p", "alhpa=1"],
        cwd=toy_project.root,
        env={**os.environ, "PERSONA_STUDIES_ROOT": str(toy_project.root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "Did you mean 'alpha'" in done.stderr and "Traceback" not in done.stderr
