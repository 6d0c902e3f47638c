import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest

from persona_studies.design import sources
from persona_studies.errors import SourceError, SourceUnavailable
from persona_studies.paths import Project
from tests.kit.registers import COMMIT, CONTENT, ENTRY, register

NOWHERE = "http://127.0.0.1:9"


class Server(ThreadingHTTPServer):
    """Serves CONTENT at the addresses in ``paths`` and notes what it was asked."""

    daemon_threads = True

    def __init__(self, paths: set[str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.paths = paths
        self.gated = False
        self.asked: list[tuple[str, str, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers["Authorization"]))
        known = self.path in self.server.paths
        self.send_response(403 if self.server.gated else 200 if known else 404)
        if self.server.gated:
            self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("ETag", '"etag"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(CONTENT) if known and not self.server.gated else 0))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        if self.path in self.server.paths and not self.server.gated:
            self.wfile.write(CONTENT)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    paths = {
        f"/someone/things/{COMMIT}/data/some%20items.csv",
        f"/datasets/someone/things/resolve/{COMMIT}/data/some%20items.csv",
    }
    with Server(paths) as started:
        thread = threading.Thread(target=started.serve_forever, daemon=True)
        thread.start()
        yield started
        started.shutdown()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PERSONA_STUDIES_MIRROR", raising=False)
    monkeypatch.setenv("PERSONA_STUDIES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "GITHUB", NOWHERE)
    return tmp_path / "cache"


def place(folder: Path, content: bytes, kind: str = "github") -> Path:
    path = folder / kind / "someone/things" / COMMIT / "data" / "some items.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_the_register_of_this_repository_is_valid() -> None:
    register = sources.load(Project.find(Path(__file__)))
    assert {"ipip-neo-300", "ipip-neo-300-reversed", "vader-lexicon"} <= set(register)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"colour": "red"}, "colour: Extra inputs"),
        ({"kind": "ftp"}, "kind: Input should be"),
        ({"revision": "main"}, "40 hex digits"),
        ({"kind": "huggingface", "revision": COMMIT[:7]}, "40 hex digits"),
        ({"kind": "pypi", "repo": "things", "revision": "--upgrade"}, "must be a version"),
        ({"repo": "things"}, "owner/name"),
        ({"repo": "someone/.."}, "owner/name"),
        ({"sha256": "abc"}, "sha256"),
        ({"bytes": 0}, "bytes"),
        ({"licence": " "}, "licence"),
        ({"redistributable": "yes"}, "redistributable"),
        ({"path": "../data"}, "inside the repository"),
        ({"path": "/etc/hosts"}, "inside the repository"),
        ({"path": "data//items"}, "inside the repository"),
        ({"path": "data\\items"}, "inside the repository"),
        ({"path": "C:/items"}, "inside the repository"),
    ],
)
def test_what_breaks_the_form_is_refused(tmp_path: Path, change: dict[str, object], said: str) -> None:
    with pytest.raises(SourceError, match=said):
        sources.load(register(tmp_path, ENTRY | change))


def test_duplicates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="two sources with the id 'items'"):
        sources.load(register(tmp_path, ENTRY, ENTRY | {"path": "other.csv"}))
    with pytest.raises(SourceError, match="as 'items' and 'same'"):
        sources.load(register(tmp_path, ENTRY, ENTRY | {"id": "same"}))


def test_an_unknown_id_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="Did you mean 'items'"):
        sources.fetch(register(tmp_path, ENTRY), "item")


def test_the_mirror_comes_first_and_is_not_written(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = register(tmp_path, ENTRY)
    mirrored = place(tmp_path / "mirror", CONTENT)
    place(own_cache, b"not asked for")
    monkeypatch.setenv("PERSONA_STUDIES_MIRROR", str(tmp_path / "mirror"))
    assert sources.fetch(project, "items") == sources.locate(project, "items") == mirrored
    assert [path for path in (tmp_path / "mirror").rglob("*") if path.is_file()] == [mirrored]


def test_a_mirror_that_is_no_folder_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSONA_STUDIES_MIRROR", str(tmp_path / "mirrror"))
    with pytest.raises(SourceError, match="is not a folder"):
        sources.fetch(register(tmp_path, ENTRY), "items")


def test_a_folder_is_one_source_that_a_mirror_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mirror" / "github" / "someone/things" / COMMIT / "answers"
    folder.mkdir(parents=True)
    for name in ("b.json", "a.json", "notes.txt"):
        (folder / name).write_text(f"{name} says this")
    hashes = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("a.json", "b.json")]
    listed = f"{hashes[0]}  answers/a.json\n{hashes[1]}  answers/b.json\n"
    whole = {"path": "answers/*.json", "sha256": hashlib.sha256(listed.encode()).hexdigest(), "bytes": 32}
    project = register(tmp_path, ENTRY | whole)
    with pytest.raises(SourceUnavailable, match=rf"tree/{COMMIT}/answers.*Clone the repository"):
        sources.fetch(project, "items")
    monkeypatch.setenv("PERSONA_STUDIES_MIRROR", str(tmp_path / "mirror"))
    assert sources.fetch(project, "items") == folder
    (folder / "b.json").write_text("b.json says that")
    with pytest.raises(SourceError, match="is not the pinned file"):
        sources.fetch(project, "items")


def test_the_cache_serves_without_a_connection(tmp_path: Path, own_cache: Path) -> None:
    cached = place(own_cache, CONTENT)
    assert sources.fetch(register(tmp_path, ENTRY), "items") == cached


def test_a_changed_file_is_refused_wherever_it_lies(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = register(tmp_path, ENTRY)
    changed = CONTENT.replace(b"others", b"nobody")
    path = place(own_cache, changed)
    with pytest.raises(SourceError) as refused:
        sources.fetch(project, "items")
    expected = ["'items'", str(path), str(ENTRY["sha256"]), hashlib.sha256(changed).hexdigest(), "Delete it"]
    assert [part for part in expected if part not in str(refused.value)] == []
    place(tmp_path / "mirror", changed)
    monkeypatch.setenv("PERSONA_STUDIES_MIRROR", str(tmp_path / "mirror"))
    with pytest.raises(SourceError, match="Replace the mirror's copy"):
        sources.locate(project, "items")


def test_a_download_is_checked_and_kept(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    project = register(tmp_path, ENTRY)
    assert sources.locate(project, "items") is None
    monkeypatch.setattr(sources, "GITHUB", server.address)
    path = sources.fetch(project, "items")
    assert path.read_bytes() == CONTENT
    assert path == sources.fetch(project, "items") == sources.locate(project, "items")
    assert len(server.asked) == 1


def test_a_wrong_download_is_not_kept(
    tmp_path: Path, own_cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "GITHUB", server.address)
    with pytest.raises(SourceError, match="the pin in data/sources"):
        sources.fetch(register(tmp_path, ENTRY | {"sha256": "0" * 64}), "items")
    with pytest.raises(SourceError, match="HTTP 404"):
        sources.fetch(register(tmp_path, ENTRY | {"path": "gone.csv"}), "items")
    assert [path for path in own_cache.rglob("*") if path.is_file()] == []


def test_without_a_connection_the_error_names_address_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as refused:
        sources.fetch(register(tmp_path, ENTRY), "items")
    message = str(refused.value)
    assert f"{NOWHERE}/someone/things/{COMMIT}/data/some%20items.csv" in message
    assert "PERSONA_STUDIES_MIRROR" in message
    assert f"github/someone/things/{COMMIT}/data/some items.csv" in message


@pytest.mark.skipif(not (shutil.which("pip") or find_spec("pip")), reason="pip is not installed")
def test_a_member_of_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "things-1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("things/items.csv", CONTENT)
        wheel.writestr("things-1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: things\nVersion: 1.2\n")
        wheel.writestr("things-1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    entry = ENTRY | {"kind": "pypi", "repo": "things", "revision": "1.2", "path": "things/items.csv"}
    project = register(tmp_path, entry, entry | {"id": "gone", "path": "gone"}, entry | {"id": "no", "repo": "no"})
    path = sources.fetch(project, "items")
    assert path.read_bytes() == CONTENT
    assert path == sources.locate(project, "items")
    with pytest.raises(SourceError, match="KeyError"):
        sources.fetch(project, "gone")
    with pytest.raises(SourceError, match="No matching distribution"):
        sources.fetch(project, "no")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SourceError, match="pip is not installed"):
        sources.fetch(project, "no")


def on_the_hub(tmp_path: Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    """Fetch in a process of its own: huggingface_hub reads its settings on import."""
    code = (
        "import sys; from pathlib import Path\n"
        "from persona_studies.design import sources; from persona_studies.paths import Project\n"
        "print(sources.fetch(Project(Path(sys.argv[1])), 'items'))"
    )
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_of_the_user"}
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    register(tmp_path, ENTRY | {"kind": "huggingface"})
    command = [sys.executable, "-c", code, str(tmp_path)]
    return subprocess.run(command, env=inherited | own, capture_output=True, text=True, timeout=120, check=False)


def test_the_hub_with_the_users_endpoint_and_token(tmp_path: Path, own_cache: Path, server: Server) -> None:
    done = on_the_hub(tmp_path, server.address)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    path = Path(done.stdout.strip())
    assert path == own_cache / "huggingface/someone/things" / COMMIT / "data" / "some items.csv"
    assert path.read_bytes() == CONTENT
    asked = [(method, token) for method, where, token in server.asked if where.startswith("/datasets/")]
    assert {method for method, _ in asked} == {"HEAD", "GET"}
    assert {token for _, token in asked} == {"Bearer hf_of_the_user"}
    assert [found for found in own_cache.rglob("*") if found.is_file()] == [path]


def test_a_gated_set_says_what_to_do(tmp_path: Path, server: Server) -> None:
    server.gated = True
    done = on_the_hub(tmp_path, server.address)
    assert "SourceUnavailable" in done.stderr
    assert f"Accept its conditions at {server.address}/datasets/someone/things, log in" in done.stderr
    assert "hf_of_the_user" not in done.stderr


def test_the_hub_without_a_connection_fails_soon(tmp_path: Path) -> None:
    started = time.monotonic()
    done = on_the_hub(tmp_path, NOWHERE)
    assert time.monotonic() - started < 30
    assert "is not available from http://127.0.0.1:9/datasets/someone/things" in done.stderr
    assert "PERSONA_STUDIES_MIRROR" in done.stderr
