"""Settings of the surroundings that keep programs from the network are named, with what is wrong with them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from persona_studies import network
from persona_studies.ask.backends.openai_compatible import OpenAICompatible
from persona_studies.design import sources
from persona_studies.errors import BackendError, SourceUnavailable
from tests.kit.registers import ENTRY, register


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Surroundings without any setting for the network."""
    for name in (*network.CERTIFICATES, *network.PROXIES, *network.INDICES, *network.HUBS, "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def listening() -> Iterator[int]:
    """A port that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed() -> int:
    """A port that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def test_without_settings_there_is_nothing_to_say() -> None:
    assert network.wrong_settings() == [] and network.advice() == ""


@pytest.mark.parametrize(
    "name", ["HTTPS_PROXY", "http_proxy", "ALL_PROXY", "PIP_PROXY", "PIP_INDEX_URL", "UV_DEFAULT_INDEX"]
)
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("nonsense.invalid", "no host is named nonsense.invalid"),
        ("http://me:secret@nonsense.invalid:3128", "no host is named nonsense.invalid"),
        ("ftp://127.0.0.1", "ftp:// is no proxy or web address"),
        ("http://127.0.0.1:99999", "its port is not a number from 0 to 65535"),
        ("http://127.0.0.1:port", "its port is not a number from 0 to 65535"),
        ("http://", "it names no host"),
        ("http://a..b", "cannot be the name of a host"),
    ],
)
def test_an_address_that_cannot_work_is_named(
    name: str, value: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    (said,) = network.wrong_settings()
    assert said.startswith(f"{name}=") and problem in said and "secret" not in said
    assert network.advice().endswith(f"{said}; correct or unset it.")


def test_a_proxy_is_tried(listening: int, closed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{listening}")
    # Through a proxy that answers, the index is the proxy's business.
    monkeypatch.setenv("PIP_INDEX_URL", "http://nonsense.invalid")
    assert network.wrong_settings() == []
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{closed}")
    (said,) = network.wrong_settings()
    assert said.startswith(f"HTTPS_PROXY=http://127.0.0.1:{closed} (127.0.0.1 refuses at port {closed}")


def test_several_indices_are_tried_each(listening: int, closed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_INDEX", f"mine=http://127.0.0.1:{listening} http://127.0.0.1:{closed}/simple")
    (said,) = network.wrong_settings()
    assert said.startswith(f"UV_INDEX=http://127.0.0.1:{closed}/simple (")


@pytest.mark.parametrize("name", network.CERTIFICATES)
def test_certificates_must_be_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, str(tmp_path / "missing.pem"))
    assert network.wrong_settings() == [f"{name}={tmp_path}/missing.pem (no such file)"]
    (tmp_path / "missing.pem").write_text("")
    assert network.wrong_settings() == []


@pytest.mark.parametrize("kind", ["github", "huggingface", "pypi"])
def test_a_source_that_cannot_be_fetched_names_the_setting(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = {"repo": "things", "revision": "0.1.2"} if kind == "pypi" else {}
    project = register(tmp_path, ENTRY | {"kind": kind} | pinned)
    monkeypatch.delenv("PERSONA_STUDIES_MIRROR", raising=False)
    monkeypatch.setenv("PERSONA_STUDIES_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in ("HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://nonsense.invalid:1")
    with pytest.raises(SourceUnavailable) as caught:
        sources.fetch(project, str(ENTRY["id"]))
    said = str(caught.value)
    assert "HTTPS_PROXY=http://nonsense.invalid:1 (no host is named nonsense.invalid)" in said and "\n" not in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SSL_CERT_FILE", "/missing.pem"),
        ("ALL_PROXY", "foo://x"),
        ("HTTP_PROXY", "http://nonsense.invalid:1"),
        ("HTTP_PROXY", "http://127.0.0.1:99999"),
    ],
)
def test_an_endpoint_that_cannot_be_asked_names_the_setting(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    endpoint = OpenAICompatible(name="x", model="x", base_url="http://endpoint.invalid/v1", retries=0)
    with pytest.raises(BackendError) as caught:
        endpoint.interface()
    said = str(caught.value)
    assert f"{name}={value} (" in said and "endpoint.invalid" in said and "\n" not in said
