"""Recording from an endpoint by the command line: options, caps and what was spent."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from persona_studies import cli
from persona_studies.design import plan as grid
from persona_studies.errors import BackendError, ParameterError
from tests.misbehaving_server import Server
from tests.test_recording import small_plan

pytest.importorskip("openai", reason="extra `api` is not installed")

CANARY = "sk-canary-9876543210"


@pytest.fixture
def cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "toy.ipynb").touch()
    monkeypatch.setenv("PERSONA_STUDIES_ROOT", str(tmp_path))
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    plan = small_plan(20)
    grid.save(plan[plan["measure"] == plan["measure"].iloc[0]], tmp_path / "cells.parquet", "toy")
    return tmp_path / "cells.parquet"


def record(cells: Path, *options: str) -> tuple[int, str, BaseException | None]:
    command = ["record", "toy", "--model", "openai:toy-1", "--plan", str(cells), *options]
    done = CliRunner().invoke(cli.app, command)
    return done.exit_code, done.output, done.exception


def test_a_capped_recording_says_what_was_spent_and_goes_on(cells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        options = ("--api", "completions", "--chat", "chatml", "--revision", "a" * 40)
        code, said, raised = record(cells, *options, "--max-calls", "60")
        assert isinstance(raised, SystemExit), raised
        assert code == 1 and "Spent: 60 calls" in said and "run the same command to go on" in said
        code, said, _ = record(cells, *options)
        assert code == 0 and "complete" in said
        assert all(body["prompt"].startswith("<|im_start|>") for body in server.bodies)
    stored = b"".join(path.read_bytes() for path in (cells.parent / "data").rglob("*") if path.is_file())
    assert b"a" * 40 in stored and CANARY.encode() not in stored


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (("--chat", "chatlm"), BackendError, "Unknown chat template 'chatlm'; known: chatml, gemma, plain"),
        (("--api", "completions"), ParameterError, "chat"),
        (("--max-money", "1"), ParameterError, "price_in"),
    ],
)
def test_bad_options_are_refused_before_a_call(
    cells: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], error: type, message: str
) -> None:
    with Server() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        code, _, raised = record(cells, *options)
        assert code != 0 and isinstance(raised, error) and message in str(raised)
        assert not server.bodies
