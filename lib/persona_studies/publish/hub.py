"""Recordings as a Hugging Face data set: uploaded in one commit, fetched at a pinned revision, checked by hash.

``data/recordings.toml`` names what has been uploaded: repository, revision and the hash of each ``record.json``, so
that everybody fetches the same bytes.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
from pathlib import Path

import huggingface_hub
from pydantic import BaseModel, ConfigDict, Field

from persona_studies import files, network
from persona_studies.ask import responses
from persona_studies.errors import ResponsesError, SourceError
from persona_studies.paths import Project

RECORD = "record.json"


class Pin(BaseModel):
    """Where a recording was uploaded to.

    Attributes:
        repo: ``owner/name`` of the data set.
        revision: Commit, 40 hexadecimal digits.
        sha256: Of ``record.json``, which names the hash of every other file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def register(project: Project) -> dict[str, Pin]:
    """Return what ``data/recordings.toml`` names, by ``study/model``.

    Raises:
        SourceError: the file is not TOML, or an entry is out of form.
    """
    path = project.data / "recordings.toml"
    return files.declared(path, dict[str, Pin], SourceError) if path.is_file() else {}


def upload(project: Project, study: str, model: str, repo: str, *, private: bool = False) -> Pin:
    """Upload a packed recording to a data set, and pin it in ``data/recordings.toml``.

    Texts of personas and questions are not part of a recording, so none are uploaded.

    Args:
        model: Name it is recorded under.
        repo: ``owner/name``; made when there is none.
        private: Whether a data set that is made now is private.

    Raises:
        ResponsesError: no such recording, or an unsound one; nothing is uploaded.
        SourceError: the hub refuses, or cannot be reached.
    """
    folder = project.responses(study, model)
    record = responses.description(folder)
    if record is None:
        raise ResponsesError(f"No recording of {model!r} for {study} in {folder}; record it first.")
    problems = [line for line in responses.check(project, study) if line.startswith(f"{model}")]
    for name in record["files"]:
        responses.read_parquet(folder / name)  # every row against its checksum
    if problems:
        raise ResponsesError(f"The recording is not sound and was not uploaded: {' '.join(problems)}")
    place = f"{study}/{model}"
    api = huggingface_hub.HfApi()
    try:
        with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stderr(io.StringIO()):
            whole = Path(scratch)
            (whole / "README.md").write_text(_card(), encoding="utf-8")
            shutil.copytree(folder, whole / place, ignore=lambda _, names: {*names} - {*record["files"], RECORD})
            said = f"# {place}\n\n```json\n{json.dumps(record, indent=1)}\n```\n"
            (whole / place / "README.md").write_text(said, encoding="utf-8")
            api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
            done = api.upload_folder(
                repo_id=repo, folder_path=whole, repo_type="dataset", commit_message=f"Recording of {place}"
            )
    # The library's transports share no base of their errors; a message may carry an address, never the token.
    except Exception as error:
        raise SourceError(
            f"The hub did not take {place} into {repo} ({type(error).__name__}). Log in with `hf auth login` as "
            f"somebody who may write there, or try again with a connection; nothing was pinned.{network.advice()}"
        ) from error
    pin = Pin(repo=repo, revision=done.oid, sha256=files.sha256(folder / RECORD))
    _pin(project, place, pin)
    return pin


def fetch(project: Project, study: str, model: str) -> Path:
    """Download an uploaded recording at its pinned revision, check it, and put it in its place.

    Raises:
        SourceError: not uploaded, not available, or not what its hashes say.
        ResponsesError: another recording of that name is here; it stays.
    """
    place = f"{study}/{model}"
    known = register(project)
    if place not in known:
        raise SourceError(
            f"{place} is not in data/recordings.toml; uploaded: {', '.join(known) or 'none'}. "
            "Name one of these, or record it: make record."
        )
    pin, target = known[place], project.responses(study, model)
    if (target / RECORD).is_file():
        if files.sha256(target / RECORD) == pin.sha256 and not responses.check(project, study):
            return target
        raise ResponsesError(
            f"{target} holds another recording of that name, or a damaged one. Move it away to fetch this one."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as scratch:
        _download(pin, place, Path(scratch))
        folder = Path(scratch) / place
        if not (folder / RECORD).is_file() or files.sha256(folder / RECORD) != pin.sha256:
            raise SourceError(f"{RECORD} of {place} at {pin.repo} is not the one that was pinned.")
        record = responses.description(folder) or {"files": {}}
        for name, expected in record["files"].items():
            if not (folder / name).is_file() or files.sha256(folder / name) != expected["sha256"]:
                raise SourceError(f"{name} of {place} at {pin.repo} is not what record.json says.")
            responses.read_parquet(folder / name)
        whole = Path(scratch) / ".whole"
        whole.mkdir()
        for name in (RECORD, *record["files"]):
            (folder / name).rename(whole / name)
        whole.rename(target)
    return target


def _download(pin: Pin, place: str, target: Path) -> None:
    """Download a recording's files at its pinned revision."""
    wanted = [f"{place}/{RECORD}", f"{place}/*.parquet"]
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            huggingface_hub.snapshot_download(
                pin.repo,
                repo_type="dataset",
                revision=pin.revision,
                local_dir=target,
                allow_patterns=wanted,
            )
    except Exception as error:
        raise SourceError(
            f"{place} is not available from {pin.repo} at {pin.revision} ({type(error).__name__}). "
            "Try again with a connection; if the data set is private, log in with `hf auth login`."
            f"{network.advice()}"
        ) from error


def _pin(project: Project, place: str, pin: Pin) -> None:
    entries = register(project) | {place: pin}
    lines = [
        f'["{name}"]\nrepo = "{entry.repo}"\nrevision = "{entry.revision}"\nsha256 = "{entry.sha256}"\n'
        for name, entry in sorted(entries.items())
    ]
    head = "# Recordings that were uploaded; `persona-studies fetch` reads this.\n\n"
    files.write(project.data / "recordings.toml", head + "\n".join(lines))


def _card() -> str:
    return (
        "---\nlicense: cc0-1.0\ntags:\n- persona\n- large-language-models\n---\n"
        "# Recorded responses\n\nOne folder per study and model: Parquet files with one row per response and "
        "`record.json` with the model's hash, backend, schedule, dates and the hash of every file. Rows carry raw "
        "log-probabilities or greedy text, hashes of the texts behind them, and a checksum; the texts of personas "
        "and questions are not part of it.\n"
    )
