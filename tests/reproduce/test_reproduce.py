"""All studies by one command: at the same time, only what has changed, and compared with the reference."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from persona_studies.paths import Project
from tests.conftest import Call

# Each study waits for the other, so that neither can end unless both run at the same time.
MEET = """import os, time
from pathlib import Path

root = Path(os.environ["PERSONA_STUDIES_ROOT"])
mine = Path(os.environ["PERSONA_STUDIES_OUT"]).name.split(".")[1]
(root / f"{mine}.here").touch()
for _ in range(1000):
    if len(list(root.glob("*.here"))) == 2:
        break
    time.sleep(0.1)
else:
    raise RuntimeError("alone")"""


def pair(make_project: Callable[..., Project], *cells: str) -> Project:
    """Return a project with two studies of the same cells, ``toy`` and ``twin``."""
    project = make_project(*cells)
    shutil.copytree(project.studies / "toy", project.studies / "twin")
    text = project.notebook("toy").read_text().replace("toy.design", "twin.design")
    project.notebook("twin").write_text(text)
    protocol = project.protocol("twin")
    protocol.write_text(protocol.read_text().replace('study = "toy"', 'study = "twin"'))
    return project


def test_two_studies_run_at_once_and_not_again(make_project: Callable[..., Project], command_line: Call) -> None:
    project = pair(make_project, MEET)
    code, said = command_line(project, "reproduce", "--jobs", "2")
    assert code == 1 and "toy: done, build/toy" in said and "twin: done, build/twin" in said, said
    assert said.count("No reference yet; run make reproduce, then make accept.") == 2
    assert command_line(project, "accept", "--yes")[0] == 0
    made = {study: (project.build / study / "run.json").stat().st_mtime_ns for study in ("toy", "twin")}

    code, said = command_line(project, "reproduce")
    assert code == 0 and "toy: up to date" in said and "twin: up to date" in said, said
    assert "4 of 4 artifacts agree with the reference." in said
    now = {study: (project.build / study / "run.json").stat().st_mtime_ns for study in ("toy", "twin")}
    assert now == made

    # What changed is run again; a study that fails is named, and the others are run and compared.
    design, notebook = project.design("twin"), project.notebook("toy")
    design.write_text(design.read_text() + "\n# another line\n")
    notebook.write_text(notebook.read_text().replace("import os, time", "1 / 0"))
    code, said = command_line(project, "reproduce")
    assert code == 1 and "ZeroDivisionError" in said and "twin: done" in said, said
    assert said.rstrip().endswith("toy did not complete.")
    now = {study: (project.build / study / "run.json").stat().st_mtime_ns for study in ("toy", "twin")}
    assert now["toy"] == made["toy"] and now["twin"] > made["twin"]


@pytest.mark.attack
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_ends_its_runs_and_leaves_nothing_half_written(
    make_project: Callable[..., Project], by: signal.Signals
) -> None:
    project = pair(make_project, "import time\ntime.sleep(600)")
    process = subprocess.Popen(
        [sys.executable, "-m", "persona_studies", "reproduce", "--jobs", "2"],
        cwd=project.root,
        env={**os.environ, "PERSONA_STUDIES_ROOT": str(project.root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while len(list(project.build.glob(".*.persona-studies-partial*"))) < 2 and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(by)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130 and "Interrupted; nothing half-written is left" in said, said
    assert "Traceback" not in said
    assert not list(project.build.glob(".*.persona-studies-partial*")) and not list(project.build.rglob("run.json"))


def test_a_wrong_name_is_refused_before_anything_runs(toy_project: Project, command_line: Call) -> None:
    code, said = command_line(toy_project, "reproduce", "toy", "tot")
    assert code == 2 and "Did you mean 'toy'" in said and not toy_project.build.exists()
