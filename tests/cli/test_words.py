"""Words that are given to make: each is used as it was typed, or refused in one line. No study is run."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tools import words

ROOT = Path(__file__).parents[2]
# What stands in for the Python of an environment: it is ready, and says how it was called.
TELL = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"
STAND_IN = f"""#!/bin/sh
case "$1" in
-c|tools/environment.py) exit 0 ;;
esac
exec {shlex.quote(sys.executable)} -c {shlex.quote(TELL)} "$@"
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The surroundings of a shell with an active environment, in a folder with a blank and an apostrophe."""
    python = tmp_path / "Ada's environment" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STAND_IN)
    python.chmod(0o755)
    kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
    return kept | {"PATH": "/usr/bin:/bin", "VIRTUAL_ENV": str(python.parents[1])}


def make(environment: dict[str, str], *given: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", *given],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def command(environment: dict[str, str], *given: str) -> list[str]:
    """Return the words that persona-studies gets."""
    done = make(environment, *given)
    assert done.returncode == 0, done.stderr
    called, surroundings = json.loads(done.stdout)
    assert called[:2] == ["tools/words.py", "persona_studies"]
    assert surroundings["PYTHONPATH"] == str(ROOT / "lib")
    return words.study(called[2], surroundings) + shlex.split(surroundings["FLAGS"])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["study", "STUDY=sycophancy", "alpha=0.01"], ["--params", "", "--parameter", "alpha=0.01"]),
        (["study", "sycophancy"], ["--params", ""]),
        (["sycophancy"], ["--params", ""]),
        (["sycophancy", "alpha=0.01", "k=3"], ["--params", "", "--parameter", "alpha=0.01", "--parameter", "k=3"]),
        # As the shell splits a list that was not quoted.
        (["study", "PARAMS=alpha=0.01", "personas=50"], ["--params", "alpha=0.01", "--parameter", "personas=50"]),
        (
            ["study", "PARAMS=frames=think,bare label='two words'"],
            ["--params", "frames=think,bare label='two words'"],
        ),
        (["study", 'PARAMS=frames=["think", "bare"]'], ["--params", 'frames=["think", "bare"]']),
        (["study", "PARAMS=model=Ada's"], ["--params", "model=Ada's"]),
        (["study", "PARAMS=a=$HOME b=$(date) c=`date` d=\\n"], ["--params", "a=$HOME b=$(date) c=`date` d=\\n"]),
        (["study", "label=$x 'y' \"z\" #"], ["--params", "", "--parameter", "label=$x 'y' \"z\" #"]),
        (["study", "FLAGS=--force --out '/tmp/a b'"], ["--params", "", "--force", "--out", "/tmp/a b"]),
    ],
)
def test_what_is_typed_reaches_the_study(
    given: list[str], expected: list[str], environment: dict[str, str]
) -> None:
    assert command(environment, *given) == ["run", "sycophancy", *expected]


def test_a_model_in_any_folder_reaches_the_recorder(environment: dict[str, str]) -> None:
    model = "gguf:/home/Ada's models/größer $1.gguf"
    typed = ["record", "persona_bias", f"MODEL={model}", "MEASURES=letter text", "FLAGS=--dry-run", "alpha=0.1"]
    said = command(environment, *typed)
    assert said[:6] == ["record", "persona_bias", "--model", model, "--measures", "letter text"]
    assert said[6:] == ["--params", "", "--parameter", "alpha=0.1", "--dry-run"]


def test_a_model_in_any_folder_reaches_its_report_card(environment: dict[str, str]) -> None:
    model = "/home/Ada's models/größer $1.gguf"
    assert command(environment, "report", f"MODEL={model}", "FLAGS=--quick") == ["report", model, "--quick"]
    done = make(environment, "report", "STUDY=sycophancy")
    assert done.returncode and "make report takes FLAGS MODEL, not STUDY" in done.stderr


def test_a_grid_may_be_given_whole_or_choice_by_choice(environment: dict[str, str]) -> None:
    said = command(environment, "sweep", "GRID=alpha=0.01,0.05", "frames=think|bare")
    assert said == ["sweep", "sycophancy", "--grid", "alpha=0.01,0.05 'frames=think|bare'"]


def test_accept_and_verify_take_the_study_that_is_named(environment: dict[str, str]) -> None:
    for verb in ("accept", "verify"):
        for given in ([verb, "STUDY=sycophancy"], [verb, "sycophancy"]):
            called, surroundings = json.loads(make(environment, *given).stdout)
            assert called == ["-m", "persona_studies", verb, surroundings["STUDY"]] and called[-1] == "sycophancy"
        assert json.loads(make(environment, verb).stdout)[0] == ["-m", "persona_studies", verb]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["study", "sycofancy"], "make knows no 'sycofancy'. Studies: clinical_personas"),
        (["sycophany"], "make knows no 'sycophany'"),
        (["reproduse"], "`make help` lists the commands"),
        (
            ["study", "STUDIE=sycophancy"],
            "takes FLAGS PARAMS STUDY and parameters of the study, not STUDIE",
        ),
        (["study", "PARAM=alpha=0.01"], "not PARAM"),
        (
            ["record", "MODELS=x"],
            "takes FLAGS MEASURES MODEL PARAMS STUDY and parameters of the study, not MODELS",
        ),
        (["study", "MODEL=x"], "not MODEL"),
        (["sweep", "PARAMS=alpha=0.01"], "make sweep takes FLAGS GRID STUDY"),
        (["reproduce", "alpha=0.01"], "make study STUDY=clinical_personas PARAMS="),
        (["reproduce", "STUDY=sycophancy"], "make reproduce takes JOBS, not STUDY"),
        (["run-sycophancy", "alpha=0.01"], "make run-sycophancy takes no variables, not alpha"),
        (["test", "PARAMS=alpha=0.01"], "make test takes FLAGS, not PARAMS"),
        (["reproduce", "OMP_NUM_THREADS=1"], "stands before make: OMP_NUM_THREADS=... make reproduce"),
        (["study", "sycophancy", "STUDY=persona_bias"], "names two studies"),
        (["study", "sycophancy", "persona_bias"], "takes one study, not sycophancy persona_bias"),
        (["STUDY=sycophancy"], "make help takes no variables, not STUDY"),
    ],
)
def test_a_word_that_cannot_be_used_is_refused_in_one_line(
    given: list[str], said: str, environment: dict[str, str]
) -> None:
    done = make(environment, *given)
    assert done.returncode == 2 and done.stdout == ""
    assert said in done.stderr and done.stderr.count("\n") == 1


def test_flags_that_open_a_quotation_are_refused_in_one_line() -> None:
    given = os.environ | {"FLAGS": "--out 'a", "STUDY": "sycophancy"}
    command = [sys.executable, str(ROOT / "tools" / "words.py"), "persona_studies", "run"]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "FLAGS=--out 'a cannot be split into words: No closing quotation; close what it opens.\n"


def test_a_parameter_given_to_make_is_checked_as_any_other() -> None:
    given = os.environ | {"STUDY": "sycophancy", "PARAMS": "", "ASSIGNMENTS": "alfa=0.01\n", "FLAGS": ""}
    command = [sys.executable, str(ROOT / "tools" / "words.py"), "persona_studies", "run"]
    done = subprocess.run(command, env=given, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Unknown parameter 'alfa'. Did you mean 'alpha'?" in done.stderr
