"""JupyterLab as a reader uses it: the index, changed and wrong parameters, a live run that is stopped."""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from jupyter_client.manager import start_new_kernel
from nbformat.v4 import new_code_cell, new_notebook

from persona_studies.ask import logs, schema
from persona_studies.paths import Project
from persona_studies.reproduce import notebooks

REPOSITORY = Path(__file__).parents[2]
BROWSER = REPOSITORY / "tests" / "browser"
# A simulated engine that takes its time, so that there is something to stop.
SIMULATED = textwrap.dedent(f"""
    import sys
    import time

    sys.path.insert(0, {str(REPOSITORY)!r})
    from persona_studies.ask import recording
    from persona_studies.design import parameters, protocol
    from persona_studies.paths import Project
    from persona_studies.study import Study
    from tests.kit.simulated import SimulatedBackend
    from tests.kit.grids import answer, small_plan


    class SimulatedSlowBackend(SimulatedBackend):
        def respond(self, requests):
            for said in super().respond(requests):
                time.sleep(0.1)
                yield said


    recording.load = lambda *_, **__: SimulatedSlowBackend(answer)
    project = Project.find()
    declared = protocol.load(project.protocol("sycophancy"))
    study = Study("simulated_live", project, declared, parameters.Parameters(), project.runs)
    plan = small_plan(30)
    """).strip()
ASK = 'study.ask(lambda: plan, "simulated", hours=1)'
COUNT = 'len(study.responses(plan, "simulated"))'
INTERRUPTED = re.compile(r"ResponsesError: Interrupted: (\d+) of 120 cells have an answer and are kept\.")


@pytest.fixture
def checkout(tmp_path: Path) -> Project:
    """A copy of what JupyterLab shows, so that the checkout stays as it is; its library and data are links."""
    copy = tmp_path / "checkout"
    for folder in ("studies", "figures"):
        shutil.copytree(REPOSITORY / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("Makefile", "README.md", "pyproject.toml", "uv.lock", "requirements.lock"):
        shutil.copy(REPOSITORY / file, copy)
    for folder in ("lib", "tools"):
        (copy / folder).symlink_to(REPOSITORY / folder)
    (copy / "data" / "responses").mkdir(parents=True)
    for path in [*(REPOSITORY / "data").iterdir(), *(REPOSITORY / "data" / "responses").iterdir()]:
        if path.name != "responses":
            (copy / path.relative_to(REPOSITORY)).symlink_to(path)
    live = new_notebook(
        cells=[new_code_cell(source) for source in (SIMULATED, ASK, COUNT)],
        metadata=notebooks.read(REPOSITORY / "studies" / "sycophancy.ipynb").metadata,
    )
    (copy / "studies" / "simulated_live.ipynb").write_text(json.dumps(live))
    return Project(copy)


def kept(project: Project) -> pd.DataFrame:
    """Return the answers in the log of the live run, no cell twice."""
    rows = logs.read(project.recordings / "simulated_live" / "simulated")
    assert not rows.duplicated(schema.KEY).any()
    return rows


@pytest.mark.attack
def test_an_interrupted_kernel_keeps_every_answer_and_goes_on(checkout: Project) -> None:
    manager, client = start_new_kernel(cwd=str(checkout.studies), startup_timeout=120)

    def run(source: str, interrupt_at: int = 0) -> tuple[bool, str]:
        """Return whether a cell ended well and what it printed; interrupt it when so many more answers are kept."""
        asked, before = client.execute(source), len(kept(checkout)) if interrupt_at else 0
        well, printed = True, ""
        while True:
            if interrupt_at and len(kept(checkout)) >= before + interrupt_at:
                manager.interrupt_kernel()
                interrupt_at = 0
            try:
                message = client.get_iopub_msg(timeout=0.1 if interrupt_at else 120)
            except queue.Empty:
                assert interrupt_at, f"the cell did not end: {printed}"
                continue
            content = message["content"]
            if message["parent_header"].get("msg_id") != asked:
                continue
            printed += content.get("text", "") + content.get("data", {}).get("text/plain", "")
            if message["msg_type"] == "error":
                well, printed = False, printed + "\n".join(content["traceback"])
            if content.get("execution_state") == "idle":
                return well, printed

    try:
        assert run(SIMULATED) == (True, "")
        counts = []
        for _ in range(2):
            well, printed = run(ASK, interrupt_at=5)
            said = INTERRUPTED.search(printed)
            assert not well and said, printed
            assert "Traceback" not in printed and "To stop: the square in the toolbar" in printed
            assert int(said[1]) == len(kept(checkout))
            counts.append(len(kept(checkout)))
        assert 5 <= counts[0] < counts[1] < 120
        assert run(ASK)[0]
        assert run(COUNT) == (True, "120") and len(kept(checkout)) == 120
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.fixture
def seen(checkout: Project) -> dict[str, Any]:
    """What a reader sees in Chromium; see lab.mjs."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not (chromium and shutil.which("node") and (BROWSER / "node_modules").is_dir()):
        pytest.skip("needs Chromium, Node.js and what make test-browser installs")
    command = ["node", str(BROWSER / "lab.mjs"), str(checkout.root), "sycophancy", "simulated_live", chromium]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment | {"VIRTUAL_ENV": sys.prefix}, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.browser
def test_jupyterlab_in_a_browser(checkout: Project, seen: dict[str, Any]) -> None:
    studies = Project(REPOSITORY).names()
    # The index: every study, every picture; notebooks before other files; nothing is saved by itself.
    assert seen["index"].startswith("Studies") and seen["links"] == studies and seen["broken"] == 0
    assert seen["files"][: len(studies)] == studies, "folders come first"
    notebooks_first = seen["files"][len(studies) : 2 * len(studies) + 1]
    assert notebooks_first == sorted(f"{name}.ipynb" for name in [*studies, "simulated_live"])
    assert seen["autosave"] == 0

    # Run All with other parameters shows another table, as many cells as the plan has.
    cells = [int(re.search(r"([\d,]+) cells", seen[when])[1].replace(",", "")) for when in ("before", "after")]
    assert cells[0] > cells[1] > 0 and seen["errors"] == 0
    written = pd.read_csv(checkout.runs / "sycophancy" / "interactive" / "tables" / "conditions.csv")
    designed = re.search(r"(\d+) system turns", seen["after"])
    assert designed and written["conditions"].sum() == int(designed[1])

    # A wrong name, in a kernel that still knows the right one, and an impossible value: one message, no traceback.
    (typo,), (impossible,) = seen["typo"], seen["impossible"]
    assert typo.startswith("ParameterError: Unknown parameter 'personnas'. Did you mean 'personas'?")
    assert "Parameter 'personas' cannot be 12" in impossible and "a multiple of 5" in impossible
    assert "Traceback" not in typo + impossible and seen["marked"] == ["[!]"]

    # A live run stops by the button and by the square, keeps its answers, goes on, and takes its button away.
    assert "120 cells" in seen["estimate"]
    counts = [int(INTERRUPTED.search(message)[1]) for (message,) in seen["stopped"]]
    assert 3 <= counts[0] < counts[1] < 120
    assert seen["complete"] == "120" and seen["buttons"] == 0 and len(kept(checkout)) == 120

    committed, used = (notebooks.read(p.notebook("sycophancy")) for p in (Project(REPOSITORY), checkout))
    assert used == committed
