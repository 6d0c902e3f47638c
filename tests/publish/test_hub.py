"""Publishing and fetching a recording through the real client, against a small local hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from persona_studies.ask import packing, recording, responses
from persona_studies.paths import Project
from persona_studies.publish import hub
from tests.kit.grids import answer, contents, small_plan
from tests.kit.local_hub import TOKEN, Client, Done, LocalHub
from tests.kit.simulated import SimulatedBackend

REPO = "someone/recordings"
Call = Callable[[str, Project], Done]


@pytest.fixture
def server(hub_and_client: tuple[LocalHub, Client]) -> LocalHub:
    hub_and_client[0].empty()
    return hub_and_client[0]


@pytest.fixture
def call(hub_and_client: tuple[LocalHub, Client]) -> Callable[[str, Project], Done]:
    return lambda what, project: hub_and_client[1].call(upload if what == "upload" else fetch, project.root)


def upload(root: Path) -> str:
    return hub.upload(Project(root), "toy", "simulated", REPO).revision


def fetch(root: Path) -> Path:
    return hub.fetch(Project(root), "toy", "simulated")


@pytest.fixture
def here(tmp_path: Path) -> Project:
    project = Project(tmp_path / "here")
    plan = small_plan()
    recording.record(project, "toy", plan, SimulatedBackend(answer))
    packing.pack(project, "toy", plan, "simulated")
    return project


@pytest.fixture
def there(here: Project, server: LocalHub, tmp_path: Path, call: Call) -> Project:
    """Another checkout, which knows what was uploaded."""
    done = call("upload", here)
    assert done.returncode == 0, done.stderr
    project = Project(tmp_path / "there")
    project.data.mkdir(parents=True)
    pins = (here.data / "recordings.toml").read_text()
    assert TOKEN not in pins
    (project.data / "recordings.toml").write_text(pins)
    return project


def test_uploaded_and_fetched_are_the_same_bytes(
    here: Project, there: Project, server: LocalHub, call: Call
) -> None:
    done = call("fetch", there)
    assert done.returncode == 0, done.stderr
    assert contents(there.responses("toy", "simulated")) == contents(here.responses("toy", "simulated"))
    assert responses.check(there, "toy") == []
    assert hub.register(there)["toy/simulated"].revision in server.commits
    assert "README.md" in server.head and b"cc0" in server.head["README.md"]
    assert call("fetch", there).returncode == 0


def test_a_branch_that_moved_on_does_not_matter(
    here: Project, there: Project, server: LocalHub, call: Call
) -> None:
    server.head = {"toy/simulated/record.json": b"{}"}
    assert call("fetch", there).returncode == 0
    assert contents(there.responses("toy", "simulated")) == contents(here.responses("toy", "simulated"))


@pytest.mark.parametrize("name", ["record.json", "score.parquet"])
def test_a_tampered_file_is_refused_and_nothing_is_left(
    there: Project, server: LocalHub, name: str, call: Call
) -> None:
    path = f"toy/simulated/{name}"
    sent = bytearray(server.head[path])
    sent[len(sent) // 2] ^= 1
    server.broken[path] = bytes(sent)
    done = call("fetch", there)
    assert done.returncode == 1 and "SourceError" in done.stderr and name in done.stderr
    assert not list(there.responses("toy").glob("*")) and not list(there.responses("toy").glob(".*"))


def test_another_recording_of_that_name_stays(there: Project, server: LocalHub, call: Call) -> None:
    plan = small_plan(3)
    recording.record(there, "toy", plan, SimulatedBackend(answer))
    packing.pack(there, "toy", plan, "simulated")
    before = contents(there.responses("toy", "simulated"))
    done = call("fetch", there)
    assert done.returncode == 1 and "holds another recording" in done.stderr
    assert contents(there.responses("toy", "simulated")) == before


def test_a_record_that_names_files_elsewhere_is_refused(there: Project, server: LocalHub, call: Call) -> None:
    path = "toy/simulated/record.json"
    record = json.loads(server.head[path])
    record["files"] = {"../../evil.parquet": {"rows": 1, "sha256": "0" * 64}}
    server.broken[path] = json.dumps(record).encode()
    pins = there.data / "recordings.toml"
    pinned = hub.register(there)["toy/simulated"]
    pins.write_text(pins.read_text().replace(pinned.sha256, hashlib.sha256(server.broken[path]).hexdigest()))
    done = call("fetch", there)
    assert done.returncode == 1 and "outside its folder" in done.stderr


@pytest.mark.parametrize(
    "status", [401, pytest.param(403, marks=pytest.mark.attack), pytest.param(404, marks=pytest.mark.attack)]
)
def test_refusals_name_the_remedy(here: Project, there: Project, server: LocalHub, status: int, call: Call) -> None:
    server.refuse = status
    for what, project in (("upload", here), ("fetch", there)):
        done = call(what, project)
        assert done.returncode == 1 and "hf auth login" in done.stderr and "Traceback" not in done.stderr


def test_an_unsound_recording_is_not_uploaded(here: Project, server: LocalHub, call: Call) -> None:
    path = here.responses("toy", "simulated") / "score.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    done = call("upload", here)
    assert done.returncode == 1 and "ResponsesError" in done.stderr
    assert not server.commits and not (here.data / "recordings.toml").exists()


def test_what_was_never_uploaded_is_named(here: Project, server: LocalHub, call: Call) -> None:
    done = call("fetch", here)
    assert done.returncode == 1 and "toy/simulated is not in data/recordings.toml" in done.stderr
