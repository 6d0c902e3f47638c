"""Kill recorders and runs at random moments, and look at what is left.

    python -m tests.kit.kill recording KILLS SEED FOLDER
    python -m tests.kit.kill live KILLS SEED FOLDER
    python -m tests.kit.kill reproducing KILLS SEED FOLDER

A process of its own, because it forks: a victim starts at once, with everything imported. `recording` asks a
simulated model, `live` the embedded one (extra `live`), `reproducing` runs the notebook of a toy study.
Prints what was seen as one line of JSON; anything lost, wrong or left unfinished is an AssertionError.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import papermill  # noqa: F401 - so that no victim spends its life importing it

from persona_studies.ask import logs, models, packing, recording, responses, schema
from persona_studies.ask.backends import Backend, Request, Response
from persona_studies.paths import Project
from persona_studies.reproduce import engine, folders, runs  # noqa: F401 - the engine, for the same reason
from tests.conftest import MODULE, OPEN, notebook
from tests.kit.grids import answer, contents, small_plan
from tests.kit.runs import files
from tests.kit.simulated import SimulatedBackend

# Two tables, a moment apart, that name the version of the protocol they were made from.
WORK = """import os, time
from pathlib import Path

out, version = Path(os.environ["PERSONA_STUDIES_OUT"]), Path("toy/protocol.toml").read_text().split()[-1]
(out / "tables").mkdir()
(out / "tables" / "first.csv").write_text(f"version\\n{version}\\n")
time.sleep(0.1)
(out / "tables" / "second.csv").write_text(f"version\\n{version}\\n")
print(version)"""


class Reporting:
    """A model that reports an answer once the recorder has asked for the next one."""

    def __init__(self, backend: Backend, report: int) -> None:
        self._backend, self._report = backend, report
        self.info, self.size, self.close = backend.info, backend.size, backend.close

    def respond(self, requests: Iterable[Request]) -> Iterator[tuple[int, Response]]:
        for given in self._backend.respond(requests):
            yield given
            os.write(self._report, b".")


class Slow(SimulatedBackend):
    """Takes a moment for every answer."""

    def _respond(self, request: Request) -> Response:
        time.sleep(0.002)
        return super()._respond(request)


def simulated() -> Backend:
    return Slow(answer)


def embedded() -> Backend:
    return models.load(Project(Path(__file__).parents[2]), "smollm2-135m-instruct")


def victim(work: Callable[[], object]) -> int:
    """Start a process that does one thing."""
    sys.stdout.flush()
    if child := os.fork():
        return child
    try:
        work()
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)


def kill(child: int, after: float) -> bool:
    """Kill a process after so many seconds; return False where it had ended before, which must have been well."""
    deadline = time.monotonic() + after
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0, f"a victim failed by itself: {status}"
            return False
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), f"a victim failed by itself: {status}"
    return status != 0


def whole_lines(log: Path) -> list[bytes]:
    """Return the finished lines of a log, each checked against its checksum."""
    lines = (
        [line for line in log.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        if log.exists()
        else []
    )
    for line in lines:
        row = json.loads(line)
        assert row["checksum"] == schema.checksum(row)
    return lines


def share(
    project: Project, plan: pd.DataFrame, load: Callable[[], Backend], shard: tuple[int, int], report: int
) -> None:
    """Record a share as the command line does, and pack what is complete."""
    backend = load()
    if recording.record(project, "toy", plan, Reporting(backend, report), shard=shard).complete:
        packing.pack(project, "toy", plan, backend.info.name)


def kill_recorders(kills: int, seed: int, root: Path, load: Callable[[], Backend], items: int) -> dict[str, int]:
    """Kill one or two recorders of one store again and again until it is complete, then begin a new one."""
    rng, plan = random.Random(seed), small_plan(items)
    reference = Project(root / "uninterrupted")
    started = time.monotonic()
    with Path(os.devnull).open("wb") as nothing:
        assert not kill(victim(partial(share, reference, plan, load, (1, 1), nothing.fileno())), math.inf)
    span = 1.2 * (time.monotonic() - started)
    [model] = [folder.name for folder in reference.responses("toy").iterdir()]
    expected = contents(reference.responses("toy", model))
    seen = {"kills": 0, "stores": 0, "acknowledged": 0, "torn": 0, "while packing": 0}
    while seen["kills"] < kills:
        project = Project(root / f"store-{seen['stores']}")
        log, target = logs.folder(project, "toy", model), project.responses("toy", model)
        parts = rng.choice([1, 2])
        kept: dict[int, list[bytes]] = {part: [] for part in range(1, parts + 1)}
        while (
            responses.description(target) is None or contents(target) != expected or responses.check(project, "toy")
        ):
            pipes = {part: os.pipe() for part in kept}
            victims = {
                part: victim(partial(share, project, plan, load, (part, parts), pipes[part][1])) for part in kept
            }
            seen["kills"] += sum(kill(child, rng.uniform(0, span)) for child in victims.values())
            for part, (reading, writing) in pipes.items():
                os.close(writing)
                with os.fdopen(reading, "rb") as pipe:
                    acknowledged = len(pipe.read())
                path = log / f"{part}-of-{parts}.jsonl"
                lines = whole_lines(path)
                assert lines[: len(kept[part])] == kept[part], "an answer was lost"
                assert len(lines) >= len(kept[part]) + acknowledged, "an acknowledged answer was lost"
                keys = [json.dumps([json.loads(line)[name] for name in schema.KEY]) for line in lines]
                assert len(set(keys)) == len(keys), "a cell was asked twice"
                kept[part] = lines
                seen["acknowledged"] += acknowledged
                seen["torn"] += len(b"".join(lines)) < (path.stat().st_size if path.exists() else 0)
            # What can be read is right, at any moment of packing, too.
            seen["while packing"] += bool([*target.glob("*.partial*")])
            for path in sorted(target.glob("*.parquet")):
                assert path.read_bytes() == expected[path.name]
        assert len(responses.load(project, "toy", model, plan)) == len(plan)
        shutil.rmtree(project.root)
        seen["stores"] += 1
    return seen


def toy(root: Path, version: int) -> Project:
    """Make a toy study, or change its protocol."""
    project = Project(root)
    for folder in ("studies", "data/items", "data/published", "lib"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in {
        "pyproject.toml": "",
        "uv.lock": "version = 1\n",
        "data/sources.toml": "",
        "studies/toy/design.py": MODULE,
        "studies/toy.ipynb": json.dumps(notebook(OPEN, WORK), indent=1),
        "studies/toy/protocol.toml": f"# version {version:08d}\n",
    }.items():
        if not (root / name).exists() or name.endswith(".toml"):
            (root / name).write_text(text)
    return project


def kill_runs(kills: int, seed: int, root: Path) -> dict[str, int]:
    """Change a study and kill its run again and again; what is there is always one whole run of one version."""
    rng = random.Random(seed)
    seen = {"kills": 0, "versions": 0, "found new": 0, "found earlier": 0, "found between": 0}
    version_of: dict[str, str] = {}
    project, version = toy(root / "project", 0), 0
    started = time.monotonic()
    runs.run(project, "toy")
    span = 1.2 * (time.monotonic() - started)
    version_of[runs.key(project, "toy", {})["protocol"]] = f"{0:08d}"
    while seen["kills"] < kills:
        version += 1
        project = toy(root / "project", version)
        present = runs.key(project, "toy", {})
        version_of[present["protocol"]] = f"{version:08d}"
        while seen["kills"] < kills and not folders.up_to_date(project.build / "toy", present):
            killed = kill(victim(partial(runs.run, project, "toy")), rng.uniform(0, span))
            seen["kills"] += killed
            folder = project.build / "toy"
            if not folder.exists():
                seen["found between"] += 1
                folder = folders.beside(folder, "old")
            made = folders.description(folder)
            assert made is not None, "neither the earlier run nor a new one is there"
            assert folders.up_to_date(folder, made["key"]), "a run's files are not what it wrote"
            found = version_of[made["key"]["protocol"]]
            seen["found new" if found == f"{version:08d}" else "found earlier"] += 1
            for name in ("first", "second"):
                assert (folder / "tables" / f"{name}.csv").read_text() == f"version\n{found}\n"
        done = runs.run(project, "toy")
        assert not [path.name for path in project.build.iterdir() if path.name.endswith(("partial", "old"))]
        if version % 5 == 1:
            # The same as a run that nobody disturbed, byte for byte.
            shutil.rmtree(root / "undisturbed", ignore_errors=True)
            other = runs.run(toy(root / "undisturbed", version), "toy")
            assert files(done.folder) == files(other.folder)
        seen["versions"] += 1
    return seen


if __name__ == "__main__":
    what, kills, seed, folder = sys.argv[1:]
    run = {
        "recording": partial(kill_recorders, load=simulated, items=30),
        "live": partial(kill_recorders, load=embedded, items=4),
        "reproducing": kill_runs,
    }[what]
    begun = time.monotonic()
    result = run(int(kills), int(seed), Path(folder))
    sys.stdout.write(json.dumps(result | {"seconds": round(time.monotonic() - begun, 1)}) + "\n")
