"""Kills, full and closed disks, jumping clocks, two processes on one store: nothing lost, nothing wrong read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from persona_studies.ask import logs, recording, responses
from persona_studies.ask.backends import Request, Response
from persona_studies.errors import ResponsesError, RunError
from persona_studies.paths import Project
from persona_studies.reproduce import execute, folders, runs
from tests.conftest import WORK, build
from tests.kit.grids import answer, contents, packed, small_plan, straight
from tests.kit.runs import files, registered
from tests.kit.simulated import SimulatedBackend

pytestmark = pytest.mark.attack

Make = Callable[..., Project]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "project" / "studies").mkdir(parents=True)
    registered(tmp_path / "project")
    return Project(tmp_path / "project")


def python(code: str, *arguments: object, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run code with the tests at hand, and the arguments in ``sys.argv``."""
    return subprocess.run(
        [*prefix, sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
    )


# Kills


@pytest.mark.parametrize(
    ("what", "kills"),
    [
        pytest.param("recording", 200, marks=pytest.mark.slow),
        pytest.param("reproducing", 200, marks=pytest.mark.slow),
        pytest.param("live", 20, marks=pytest.mark.live),
    ],
)
def test_killed_at_random_moments(what: str, kills: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.kit.kill", what, str(kills), "1", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["kills"] >= kills
    sys.stdout.write(f"{what}: {done.stdout}")


# Disks


RECORD = """
import sys
from pathlib import Path
from persona_studies import cli
from persona_studies.ask import recording
from tests.kit.runs import files
from tests.kit.simulated import SimulatedBackend
from tests.kit.grids import answer
recording.load = lambda *args, **how: SimulatedBackend(answer)
sys.argv = ["persona-studies", *sys.argv[1:]]
cli.main()
"""
LIMITED = "import resource, sys; limit = int(sys.argv.pop(1)); "
LIMITED += "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))\n"


@pytest.fixture
def cells(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    from persona_studies.design import plan as plans

    monkeypatch.setenv("PERSONA_STUDIES_ROOT", str(project.root))
    (project.studies / "toy.ipynb").touch()
    plans.save(small_plan(), project.root / "cells.parquet", "toy")
    return project.root / "cells.parquet"


def test_a_disk_that_fills_while_packing_keeps_the_log(project: Project, cells: Path) -> None:
    recording.record(project, "toy", small_plan(), SimulatedBackend(answer))
    kept = files(project.recordings)
    done = python(LIMITED + RECORD, 600, "record", "toy", "--plan", cells)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "Make room" in done.stderr and "run the same command again" in done.stderr
    assert {name: data for name, data in files(project.recordings).items() if name in kept} == kept
    assert not contents(project.responses("toy", "simulated")) and not responses.check(project, "toy")
    assert python(RECORD, "record", "toy", "--plan", cells).returncode == 0
    assert len(responses.load(project, "toy", "simulated", small_plan())) == len(small_plan())


def test_a_disk_that_fills_while_running_keeps_the_earlier_run(toy_project: Project) -> None:
    before = files(runs.run(toy_project, "toy").folder)
    toy_project.protocol("toy").write_text("# changed\n")
    code = LIMITED + "from persona_studies.cli import main; sys.argv[0] = 'persona-studies'; main()"
    os.environ["PERSONA_STUDIES_ROOT"] = str(toy_project.root)
    try:
        done = python(code, 200, "run", "toy")
    finally:
        del os.environ["PERSONA_STUDIES_ROOT"]
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "toy did not complete" in done.stderr
    assert files(toy_project.build / "toy") == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None or subprocess.run([mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", place]).returncode:
        pytest.skip("a file system can be mounted by root only")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_full_file_system_loses_no_answer(project: Project, small_disk: Path) -> None:
    plan, backend = small_plan(60), SimulatedBackend(answer)
    with pytest.raises(ResponsesError, match=r"No space left on device.*make room and run the same command"):
        recording.record(project, "toy", plan, backend, out=small_disk)
    log = next(small_disk.rglob("*.jsonl"))
    kept = log.read_bytes()
    assert kept.endswith(b"\n") and kept.count(b"\n") in (backend.asked, backend.asked - 1)
    subprocess.run(["mount", "-o", "remount,size=1m", small_disk], check=True)
    again = SimulatedBackend(answer)
    assert recording.record(project, "toy", plan, again, out=small_disk).complete
    assert log.read_bytes().startswith(kept) and again.asked == len(plan) - kept.count(b"\n")


def without_the_rights_of_root() -> tuple[str, ...]:
    """Return what starts a process that keeps to the permissions of files."""
    if os.geteuid():
        return ()
    drop = shutil.which("setpriv")
    if drop is None:
        pytest.skip("root may write everywhere, and setpriv is not installed")
    return (drop, "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")


CLOSED = {
    "log": ("recordings", ["record", "toy", "--plan", "cells.parquet"]),
    "packed": ("data/responses/toy", ["record", "toy", "--plan", "cells.parquet"]),
    "build": ("build", ["run", "toy", "--force"]),
    "report": ("build", ["verify", "toy"]),
    "reference": ("data/results/toy", ["accept", "toy", "--yes"]),
}


@pytest.mark.parametrize(
    "case", [name if name == "log" else pytest.param(name, marks=pytest.mark.slow) for name in CLOSED]
)
def test_a_folder_that_may_not_be_written(accepted: Project, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from persona_studies.design import plan as plans

    place, command = CLOSED[case]
    plans.save(small_plan(4), accepted.root / "cells.parquet", "toy")
    (accepted.responses("toy") / "simulated").rename(accepted.responses("toy") / "earlier")
    record = accepted.responses("toy") / "earlier" / "record.json"
    record.write_text(record.read_text().replace('"simulated"', '"earlier"'))
    shutil.rmtree(accepted.recordings)
    accepted.recordings.mkdir()
    registered(accepted.root)
    if case == "reference":
        build(accepted)
    before = files(accepted.root)
    monkeypatch.setenv("PERSONA_STUDIES_ROOT", str(accepted.root))
    monkeypatch.chdir(accepted.root)
    folder = accepted.root / place
    folder.chmod(0o555)
    try:
        done = python(RECORD, *command, prefix=without_the_rights_of_root())
    finally:
        folder.chmod(0o755)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "Permission denied" in done.stderr and place.split("/")[-1] in done.stderr, done.stderr
    after = files(accepted.root)
    assert {name: after.get(name) for name in before} == before


# Clocks


def test_a_clock_that_jumps_changes_no_answer(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, now = small_plan(), time.time()
    jumps = iter([now, now + 1e6, now - 1e6] * 10_000)
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    monkeypatch.setattr(recording, "_watched", lambda: True)  # with its progress bar, which reads that clock
    assert recording.record(project, "toy", plan, SimulatedBackend(answer), limit=9).recorded == 9
    progress = recording.record(project, "toy", plan, SimulatedBackend(answer), hours=1)
    assert progress.complete and progress.stopped is None and 0 <= progress.seconds < 3600
    monkeypatch.undo()
    assert packed(project, plan) == straight(tmp_path / "other", plan)


def test_what_is_current_is_decided_by_content_not_by_dates(make_project: Make) -> None:
    project = make_project(WORK)
    runs.run(project, "toy")
    for path in sorted(project.root.rglob("*")):
        os.utime(path, (4e9, 4e9))
    assert not runs.run(project, "toy").fresh
    protocol = project.protocol("toy")
    protocol.write_text(protocol.read_text().replace("A toy", "B toy"))
    os.utime(protocol, (0, 0))
    assert runs.run(project, "toy").fresh


# Two processes on one store


class Meeting(SimulatedBackend):
    """Answers only once another process has begun, too."""

    def __init__(self, mine: Path, other: Path) -> None:
        super().__init__(answer)
        self._mine, self._other = mine, other

    def respond(self, requests: Iterable[Request]) -> Iterator[tuple[int, Response]]:
        self._mine.touch()
        while not self._other.exists():
            time.sleep(0.001)
        yield from super().respond(requests)


SHARE = """
import sys, time
from pathlib import Path
from persona_studies.ask import packing, recording
from persona_studies.paths import Project
from tests.cli.test_faults import Meeting
from tests.kit.grids import small_plan
root, part, stores = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
Path(root / f"ready-{part}").touch()
while not (root / f"ready-{3 - part}").exists():
    time.sleep(0.001)
meeting = Meeting(root / f"begun-{part}", root / f"begun-{3 - part}")
for again in range(stores):
    project = Project(root / f"store-{again}")
    done = recording.record(project, "toy", small_plan(2), meeting, shard=(part, 2))
    if done.complete:
        packing.pack(project, "toy", small_plan(2), "simulated")
"""


@pytest.mark.parametrize("stores", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_two_shards_that_start_and_end_together(tmp_path: Path, stores: int) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", SHARE, tmp_path, part, str(stores)], env=environment, stderr=subprocess.PIPE
        )
        for part in "12"
    ]
    said = [process.communicate(timeout=300)[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    for again in range(stores):
        project = Project(tmp_path / f"store-{again}")
        assert len(responses.load(project, "toy", "simulated", small_plan(2))) == len(small_plan(2))
        assert responses.check(project, "toy") == []


def test_a_power_cut_leaves_zeros_at_the_end(project: Project) -> None:
    """Some file systems extend a file before its data: the tail is then no line at all."""
    plan = small_plan()
    recording.record(project, "toy", plan, SimulatedBackend(answer), limit=5)
    log = next(logs.folder(project, "toy", "simulated").glob("*.jsonl"))
    kept = log.read_bytes()
    log.write_bytes(kept + bytes(4096))
    backend = SimulatedBackend(answer)
    assert recording.record(project, "toy", plan, backend).complete
    assert backend.asked == len(plan) - 5 and log.read_bytes().startswith(kept) and b"\0" not in log.read_bytes()


# Kernels


def test_a_cell_that_hangs_is_named_and_ended(make_project: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project()
    good = files(runs.run(project, "toy").folder)
    make_project(
        "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True:\n    time.sleep(1)"
    )
    monkeypatch.setattr(execute, "CELL_SECONDS", 10)
    with pytest.raises(RunError) as caught:
        runs.run(project, "toy")
    said = str(caught.value)
    assert "code cell 3 (import signal, time) took longer than 10 s" in said
    assert "it hangs, or it does too much" in said and "toy.failed.ipynb" in said
    assert files(project.build / "toy") == good


def test_a_cell_without_memory_fails_the_run(make_project: Make) -> None:
    project = make_project(
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))\nrows = bytearray(1 << 32)"
    )
    with pytest.raises(RunError, match=r"code cell 3 \(import resource\): MemoryError"):
        runs.run(project, "toy")
    assert not (project.build / "toy").exists()


def test_a_run_killed_while_its_kernel_lives_on_is_not_mixed_with_the_next(make_project: Make) -> None:
    """The kernel of a killed run writes on for a moment; the next run has a folder of its own."""
    project = make_project(WORK)
    folder = project.build / "toy"
    folder.parent.mkdir()
    with folders.partial(folder) as one, folders.partial(folder) as other:
        assert one != other and other.is_dir()
        assert not one.exists()
    assert not list(project.build.iterdir())
