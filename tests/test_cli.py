"""The command line as a person meets it: exit codes and messages without tracebacks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from persona_studies.paths import Project


def call(project: Project, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "persona_studies.cli", *arguments],
        cwd=project.root,
        env={**os.environ, "PERSONA_STUDIES_ROOT": str(project.root), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


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
def test_a_mistake_is_named_and_ends_with_2(toy_project: Project, arguments: list[str], message: str) -> None:
    code, said = call(toy_project, *arguments)
    assert (code, message in said) == (2, True), said


def test_verify_without_a_build_fails_and_says_what_to_do(toy_project: Project) -> None:
    code, said = call(toy_project, "verify")
    assert code == 1 and "run make reproduce" in said


def test_every_command_explains_itself(toy_project: Project) -> None:
    code, said = call(toy_project, "--help")
    assert code == 0
    for command in ("run", "record", "verify", "accept", "list", "show"):
        assert command in said


def test_outside_a_project_the_variable_is_named(toy_project: Project) -> None:
    shutil.rmtree(toy_project.studies)
    code, said = call(toy_project, "list")
    assert code == 1 and "PERSONA_STUDIES_ROOT" in said
