"""A plan is recorded where the notebooks' packages are not, and taken in where they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from persona_studies.ask import packing, recording
from persona_studies.design import plan as plans
from persona_studies.paths import Project
from tests.conftest import Call
from tests.kit.grids import answer, contents, small_plan
from tests.kit.runs import registered
from tests.kit.simulated import SimulatedBackend

ROOT = Path(__file__).parents[2]
# What a GPU machine or a cluster node need not have.
ABSENT = (
    *("jupyterlab", "papermill", "nbformat", "nbclient", "nbconvert", "IPython", "ipykernel"),
    *("pingouin", "statsmodels", "seaborn", "matplotlib", "great_tables", "scipy", "pooch"),
)
CODE = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from persona_studies import cli
from persona_studies.ask import recording
from tests.kit.simulated import SimulatedBackend
from tests.kit.grids import answer
recording.load = lambda *args, **how: SimulatedBackend(answer)
sys.argv = ["persona-studies", *sys.argv[1:]]
cli.main()
"""


def test_recording_a_plan_needs_no_notebook_packages(tmp_path: Path, command_line: Call) -> None:
    here, whole, there = Project(tmp_path / "here"), Project(tmp_path / "whole"), tmp_path / "there"
    plan = small_plan()
    for folder in (here.root, whole.root, there):
        (folder / "studies").mkdir(parents=True)
        registered(folder)
        (folder / "studies" / "toy.ipynb").touch()
    plans.save(plan, there / "cells.parquet", "toy")
    outcomes = []
    for share in ("1/2", "2/2"):
        arguments = ["record", "toy", "--plan", "cells.parquet", "--out", "answers", "--shard", share]
        outcomes.append(
            subprocess.run(
                [sys.executable, "-c", CODE.format(absent=ABSENT), *arguments],
                cwd=there,
                env=os.environ | {"PERSONA_STUDIES_ROOT": str(there), "PYTHONPATH": f"{ROOT}:{ROOT / 'lib'}"},
                capture_output=True,
                text=True,
                timeout=120,
            )
        )
    assert [done.returncode for done in outcomes] == [0, 0], outcomes[0].stderr + outcomes[1].stderr
    code, said = command_line(here, "import", str(there / "answers"), "--plan", str(there / "cells.parquet"))
    assert code == 0 and f"toy, simulated: {len(plan)} answers, {len(plan)} of them new" in said, said
    recording.record(whole, "toy", plan, SimulatedBackend(answer))
    packing.pack(whole, "toy", plan, "simulated")
    assert contents(here.responses("toy", "simulated")) == contents(whole.responses("toy", "simulated"))
