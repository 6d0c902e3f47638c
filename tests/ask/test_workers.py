"""Several processes that answer one recording."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from persona_studies.ask import logs, packing, recording, workers
from persona_studies.ask.backends import Request, Response
from persona_studies.ask.workers import Workers
from persona_studies.design import plan as grid
from persona_studies.errors import BackendError, ParameterError
from persona_studies.paths import Project
from tests.kit.grids import contents, packed, small_plan
from tests.kit.runs import registered
from tests.kit.simulated import Local, Other, SimulatedBackend, Slow, by_request


def asked(conditions: int = 6, items: int = 50) -> list[Request]:
    return [
        Request("cloze", None if c == 0 else f"persona {c}", "", f"item {i}", ("yes", "no"))
        for c in range(conditions)
        for i in range(items)
    ]


def alone(requests: list[Request]) -> dict[int, Response]:
    return dict(SimulatedBackend(by_request).respond(requests))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_answers_do_not_depend_on_the_number_of_processes(number: int) -> None:
    pool = Workers(Slow(), Slow, number)
    found = list(pool.respond(asked()))
    assert len(found) == len(asked())
    assert dict(found) == alone(asked())
    # The same processes answer again, as an estimate does before a recording.
    assert dict(pool.respond(asked()[:20])) == alone(asked()[:20])
    assert list(pool.respond([])) == []
    pool.close()
    assert pool.number == 0 and pool.instructions is None


def test_every_process_has_work(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Workers(Slow(), partial(Slow, 0.002), 3)
    busy: set[int] = set()
    for _ in pool.respond(asked()):
        busy |= {worker.process.pid or 0 for worker in pool._workers if worker.portions}
    pool.close()
    assert len(busy) == 3


def test_portions_share_their_start_and_lose_nothing() -> None:
    requests = [*asked(3, 50), *(Request("text", "p", "", f"say {i}", (), 8) for i in range(9))]
    portions = list(workers._portions(requests))
    together = {place: request for portion in portions for place, request in portion.requests.items()}
    assert together == dict(enumerate(requests))
    assert sum(len(portion.requests) for portion in portions) == len(requests)
    for portion in portions:
        assert len({(r.kind, r.system, r.shared) for r in portion.requests.values()}) == 1
        kind = next(iter(portion.requests.values())).kind
        assert len(portion.requests) <= (workers.TEXTS if kind == "text" else workers.SCORED)


def test_a_recording_by_several_processes_names_the_instruction_set(tmp_path: Path) -> None:
    front = Slow()
    front.instructions = "AVX2 FMA"
    project, pool = Project(tmp_path), Workers(front, Slow, 2)
    recording.record(project, "toy", small_plan(2), pool)
    pool.close()
    signed = logs.signed(logs.folder(project, "toy", "simulated"))
    assert signed is not None and signed["instructions"] == ["AVX2 FMA"]


def test_requests_are_drawn_a_bounded_number_ahead() -> None:
    drawn = 0

    def feed() -> Iterator[Request]:
        nonlocal drawn
        for request in asked(20, 50):
            drawn += 1
            yield request

    pool = Workers(Slow(), Slow, 2)
    answers = pool.respond(feed())
    for _ in range(10):
        next(answers)
    assert drawn <= 10 + 2 * workers.HELD * workers.SCORED + workers.SCORED + 2
    answers.close()
    assert pool.number == 0


@pytest.mark.attack
def test_a_process_that_dies_is_reported_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    pool = Workers(Slow(), partial(Slow, 0.001), 3)
    found = {}
    for place, response in pool.respond(asked()):
        assert place not in found, "answered twice"
        found[place] = response
        if len(found) == 40:
            os.kill(pool._workers[0].process.pid or 0, signal.SIGKILL)
    pool.close()
    assert found == alone(asked())
    assert "has ended (SIGKILL, perhaps for want of memory); the other 2 go on" in capsys.readouterr().err


@pytest.mark.attack
def test_when_all_die_what_was_answered_is_kept() -> None:
    pool = Workers(Slow(), partial(Slow, 0.001), 2)
    found = {}
    with pytest.raises(BackendError, match=r"no other is left\. What was answered is kept.*--workers 1"):
        for place, response in pool.respond(asked()):
            found[place] = response
            if len(found) == 40:
                for worker in pool._workers:
                    os.kill(worker.process.pid or 0, signal.SIGKILL)
    assert len(found) >= 40 and found.items() <= alone(asked()).items()
    pool.close()


@pytest.mark.attack
def test_a_request_that_ends_processes_does_not_end_them_all() -> None:
    pool = Workers(Slow(), partial(Slow, 0.001, deadly="item 7"), 5)
    with pytest.raises(BackendError, match="as another did, at 'item 7'"):
        list(pool.respond(asked(1, 8)))
    assert pool.number == 0
    pool.close()


def test_an_error_of_the_model_is_the_recording_s() -> None:
    pool = Workers(Slow(), partial(Slow, unanswerable="item 33"), 2)
    with pytest.raises(BackendError, match="item 33 exceeds the context"):
        list(pool.respond(asked()))
    pool.close()


def test_another_model_in_a_process_is_refused() -> None:
    with pytest.raises(BackendError, match="loaded another model"):
        Workers(Slow(), Other, 2)


def test_interrupted_by_the_keyboard_no_process_is_left() -> None:
    pool = Workers(Slow(), partial(Slow, 0.001), 2)
    processes = [worker.process for worker in pool._workers]
    answers = pool.respond(asked())
    next(answers)
    with pytest.raises(KeyboardInterrupt):
        answers.throw(KeyboardInterrupt())
    assert not any(process.is_alive() for process in processes)


SCRIPT = """
import sys
from functools import partial
from pathlib import Path
from persona_studies.ask import recording
from persona_studies.ask.workers import Workers
from persona_studies.paths import Project
from tests.kit.grids import small_plan
from tests.kit.simulated import Slow

if __name__ == "__main__":
    pool = Workers(Slow(), partial(Slow, 0.01), int(sys.argv[2]))
    print(*(worker.process.pid for worker in pool._workers), flush=True)
    recording.record(Project(Path(sys.argv[1])), "toy", small_plan(30), pool)
    pool.close()
"""


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.attack
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_a_recording_in_processes_loses_nothing_when_it_is_stopped(tmp_path: Path, blow: signal.Signals) -> None:
    """Stopped at any moment, with any number of processes in each sitting, the recording is the same."""
    script, plan = tmp_path / "record.py", small_plan(30)
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    project = Project(tmp_path / "in-processes")
    log = logs.folder(project, "toy", "simulated") / "1-of-1.jsonl"
    for number, lines in ((2, 10), (3, 60)):
        command = [sys.executable, str(script), str(project.root), str(number)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        children = [int(word) for word in process.stdout.readline().split()]
        assert len(children) == number
        until = time.monotonic() + 60
        while process.poll() is None and (not log.exists() or log.read_bytes().count(b"\n") < lines):
            assert time.monotonic() < until
            time.sleep(0.005)
        process.send_signal(blow)
        _, complaint = process.communicate()
        kept = log.read_bytes().count(b"\n")
        assert lines <= kept < len(plan), complaint.decode()
        while any(map(alive, children)):
            assert time.monotonic() < until, "a worker outlives the process that records"
            time.sleep(0.01)
    pool = Workers(Slow(), Slow, 2)
    assert recording.record(project, "toy", plan, pool).complete
    pool.close()
    single = Project(tmp_path / "alone")
    recording.record(single, "toy", plan, SimulatedBackend(by_request))
    assert packed(project, plan) == packed(single, plan)


COMMAND = """
import sys
from functools import partial
from persona_studies import cli
from persona_studies.ask import models, recording, workers
from tests.kit.simulated import Local

recording.load = lambda *given, **how: Local()
models.load = Local
real = workers.Workers


def slow(front, load, number):
    pool = real(front, partial(Local, pause=0.02), number)
    print("workers", *(worker.process.pid for worker in pool._workers), flush=True)
    return pool


if __name__ == "__main__":
    workers.Workers = slow
    sys.argv = ["persona-studies", "record", "toy", "--plan", "cells.parquet", "--workers", "2"]
    cli.main()
"""


def children(process: subprocess.Popen[str]) -> tuple[list[int], str]:
    """Return the workers of a command, and what it said before it had them."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        if line.startswith("workers"):
            return [int(word) for word in line.split()[1:]], said
        said += line
    raise AssertionError("the command ended before it had workers")


@pytest.mark.attack
def test_the_command_is_interrupted_loses_a_worker_and_is_resumed(tmp_path: Path) -> None:
    """Ctrl-C reaches every process of the terminal's group; then a worker is killed; then the rest is recorded."""
    plan, project = small_plan(30), Project(tmp_path)
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "toy.ipynb").touch()
    grid.save(plan, tmp_path / "cells.parquet", "toy")
    (tmp_path / "command.py").write_text(COMMAND)
    root = Path(__file__).parents[2]
    registered(tmp_path)
    environment = os.environ | {"PYTHONPATH": f"{root}:{root / 'lib'}", "PERSONA_STUDIES_ROOT": str(tmp_path)}
    log = logs.folder(project, "toy", "local") / "1-of-1.jsonl"

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(tmp_path / "command.py")],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def until(process: subprocess.Popen[str], lines: int) -> None:
        last = time.monotonic() + 120
        while process.poll() is None and (not log.exists() or log.read_bytes().count(b"\n") < lines):
            assert time.monotonic() < last
            time.sleep(0.01)

    process = start()
    started, _ = children(process)
    assert len(started) == 2
    until(process, 10)
    os.killpg(process.pid, signal.SIGINT)
    _, complaint = process.communicate(timeout=120)
    assert (
        process.returncode == 130
        and "Interrupted; nothing half-written is left, and the same command goes on." in complaint
    ), complaint
    assert "Traceback" not in complaint, complaint
    kept = log.read_bytes().count(b"\n")
    assert 10 <= kept < len(plan) and not any(map(alive, started))

    process = start()
    started, said = children(process)
    assert f"\n{len(plan) - kept:,} cells; " in said, said
    until(process, kept + 10)
    os.kill(started[0], signal.SIGKILL)
    _, complaint = process.communicate(timeout=120)
    assert process.returncode == 0, complaint
    assert "has ended (SIGKILL, perhaps for want of memory); the other 1 go on" in complaint, complaint
    assert not any(map(alive, started))
    single = Project(tmp_path / "alone")
    recording.record(single, "toy", plan, Local())
    assert contents(project.responses("toy", "local")) == contents(packing.pack(single, "toy", plan, "local"))


def test_idle_cores_are_those_that_are_allowed_and_idle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(workers, "_quotas", lambda root: [])
    for load, idle in ((0.1, 6), (3.2, 5), (7.9, 1), (40.0, 1)):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0), raising=False)
        assert workers.idle_cores() == idle
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0), raising=False)
    monkeypatch.setattr(workers, "_quotas", lambda root: [2])
    assert workers.idle_cores() == 2


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, []),
        ({"cpu.max": "max 100000"}, []),
        ({"cpu.max": "250000 100000\n"}, [2]),
        ({"cpu.max": "50000 100000"}, [1]),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000"}, []),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, [4]),
    ],
)
def test_limits_of_control_groups(tmp_path: Path, files: dict[str, str], cores: list[int]) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert workers._quotas(tmp_path) == cores


def test_processes_are_as_many_as_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "idle_cores", lambda: 3)

    def number(front: SimulatedBackend, **how: int) -> int:
        return workers.wanted(front, **{"cells": 1000, **how})

    assert number(Local()) == 3
    assert number(Local(), cells=workers.FEWEST + 1) == 2
    assert number(Local(), cells=1) == 1
    assert number(Local(), workers=2) == 2
    assert number(Local(), threads=2) == 1
    assert number(Local(), threads=1, workers=2) == 2
    assert number(Local(), shards=4) == 1
    assert number(Slow()) == 1
    assert number(Local("parallel-8")) == 1
    for front in (Slow(), Local("parallel-8")):
        with pytest.raises(ParameterError, match=r"--workers 2 goes with llama\.cpp and its canonical schedule"):
            number(front, workers=2)
