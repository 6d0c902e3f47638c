"""Grids for a workflow engine: every run checked before the file is written, and the file read back."""

from __future__ import annotations

import json
import shlex

import pandas as pd
import pytest
from typer.testing import CliRunner

from persona_studies import cli
from persona_studies.design import plan
from persona_studies.errors import BackendError, ParameterError
from persona_studies.paths import Project
from persona_studies.reproduce import grid, ready, sweep
from tests.conftest import Call
from tests.kit.grids import small_plan

TEXT = "alpha=0.05,0.01 label='two words,x'"


def made(project: Project, text: str, *models: str, shards: int = 1) -> dict[str, str]:
    """Return the runs of the toy study."""
    found: dict[str, str] = grid.workflow(project, ["toy"], text, models, shards=shards)[0]["runs"]["toy"]
    return found


def test_the_runs_are_those_of_a_sweep(toy_project: Project) -> None:
    specified = sweep.specifications(toy_project, "toy", grid.choices(toy_project, "toy", TEXT))
    found = made(toy_project, TEXT)
    assert [shlex.split(text) for text in found.values()] == [one.assignments for one in specified]
    assert len(found) == 4
    for text, one in zip(found.values(), specified, strict=True):
        assert ready.resolve(toy_project, "toy", shlex.split(text))[1] == one.overrides


def test_a_larger_grid_keeps_the_names_of_a_smaller_one(toy_project: Project) -> None:
    small, large = made(toy_project, "alpha=0.01"), made(toy_project, "alpha=0.05,0.01,0.1")
    assert small.items() <= large.items()
    assert set(made(toy_project, "")) == set(made(toy_project, "alpha=0.05")), "both are the notebook's own"


def test_everything_wrong_is_said_at_once_and_nothing_is_written(toy_project: Project, command_line: Call) -> None:
    out = toy_project.root / "grid.json"
    code, said = command_line(
        toy_project, "grid", "toy", "--out", str(out), "--grid", "alhpa=1 rounds=0,2 alpha=0.01 live_hours=1"
    )
    assert code == 2
    for message in ("toy: Unknown parameter 'alhpa'", "toy: Parameter 'rounds' cannot be 0", "live_hours"):
        assert message in said
    assert "0.01" not in said and not list(toy_project.root.glob("*grid.json*"))


def test_what_is_not_recorded_is_left_out_or_recorded_first(recorded: Project) -> None:
    (recorded.data / "models.toml").write_text("")
    missing, planned = len(small_plan(5)) - len(small_plan(3)), len(small_plan(5))
    found, left_out = grid.workflow(recorded, ["toy"], "rounds=2,5 model=simulated,other")
    assert [*found["runs"]["toy"].values()] == ["rounds=2 model=simulated"] and found["models"] == {}
    assert [f"{missing} of {planned} planned cells" in line for line in left_out] == [False, True, False]
    assert "toy, rounds=2 model=other: " in left_out[0] and "no recorded responses for toy" in left_out[0]
    with pytest.raises(ParameterError, match=r"(?s)No run of this grid can be made.*rounds=5"):
        grid.workflow(recorded, ["toy"], "rounds=5")
    found, left_out = grid.workflow(recorded, ["toy"], "rounds=2,5", ["gguf:Other.gguf"], shards=3)
    assert (found["models"], found["shards"], left_out) == ({"other": "gguf:Other.gguf"}, 3, [])
    assert [*found["runs"]["toy"].values()] == ["rounds=2 model=other", "rounds=5 model=other"]


def test_models_that_cannot_be_told_apart_or_loaded_are_refused(recorded: Project) -> None:
    (recorded.data / "models.toml").write_text("")
    with pytest.raises(ParameterError, match="under one name"):
        made(recorded, "", "gguf:a/x.gguf", "gguf:b/x.gguf")
    with pytest.raises(BackendError, match="Unknown model 'simulatd'"):
        made(recorded, "", "simulatd")
    with pytest.raises(ParameterError, match="named twice"):
        made(recorded, "model=simulated", "gguf:x.gguf")


def test_a_study_without_a_plan_cannot_be_recorded(toy_project: Project) -> None:
    (toy_project.data / "models.toml").write_text("")
    with pytest.raises(ParameterError, match="declares no plan"):
        made(toy_project, "", "gguf:x.gguf")


def test_the_cells_of_all_runs_are_planned_once(
    recorded: Project, monkeypatch: pytest.MonkeyPatch, command_line: Call
) -> None:
    (recorded.data / "models.toml").write_text("")
    out, cells = recorded.root / "grid.json", recorded.root / "cells.parquet"
    given = ["--grid", "rounds=2,5 alpha=0.01,0.05", "--models", "gguf:a.gguf gguf:b.gguf"]
    code, said = command_line(recorded, "grid", "toy", "--out", str(out), *given)
    assert (code, "8 runs, 2 recordings in 1 shares each" in said) == (0, True), said
    assert grid.load(out, "toy") == [[f"rounds={r}", f"alpha={a}"] for r in (2, 5) for a in (0.01, 0.05)]
    monkeypatch.setenv("PERSONA_STUDIES_ROOT", str(recorded.root))
    done = CliRunner().invoke(cli.app, ["plan", "toy", "--runs", str(out), "--out", str(cells)])
    assert done.exit_code == 0, done.output
    assert_same_cells(plan.load(cells, "toy"), small_plan(5))


def assert_same_cells(one: pd.DataFrame, other: pd.DataFrame) -> None:
    first, second = (frame[plan.IDENTITY].sort_values(plan.IDENTITY, ignore_index=True) for frame in (one, other))
    pd.testing.assert_frame_equal(first, second)


def test_a_file_that_is_no_grid_of_the_study_is_refused(toy_project: Project, command_line: Call) -> None:
    path = toy_project.root / "grid.json"
    for text in ("", "[]", "{}", json.dumps({"runs": {"other": {}}}), json.dumps({"runs": {"toy": [1]}})):
        path.write_text(text)
        with pytest.raises(ParameterError, match="does not list runs of toy"):
            grid.load(path, "toy")
    path.write_text(json.dumps({"runs": {"toy": {"0": ""}}}))
    code, said = command_line(
        toy_project,
        "plan",
        "toy",
        "--runs",
        str(path),
        "-p",
        "alpha=0.01",
        "--out",
        str(path.with_suffix(".parquet")),
    )
    assert code == 2 and "fixed in the file of --runs" in said
