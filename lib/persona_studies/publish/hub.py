"""Recordings as a Hugging Face data set: published in one commit, fetched at a pinned revision, checked by hash.

``data/recordings.toml`` names what has been published: repository, revision and the hash of each record, so that
everybody fetches the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import tempfile
import tomllib
from pathlib import Path

import huggingface_hub
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from persona_studies import network
from persona_studies.ask import responses
from persona_studies.errors import ResponsesError, SourceError, problems
from persona_studies.paths import Project

RECORD = "record.json"


class Published(BaseModel):
    """Where a recording was published.

    Attributes:
        repo: ``owner/name`` of the data set.
        revision: Commit, 40 hexadecimal digits.
        sha256: Of ``record.json``, which names the hash of every other file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def register(project: Project) -> dict[str, Published]:
    """Return what ``data/recordings.toml`` names, by ``study/model``.

    Raises:
        SourceError: the file is not TOML, or an entry is out of form.
    """
    path = project.data / "recordings.toml"
    try:
        entries = tomllib.loads(path.read_text("utf-8")) if path.is_file() else {}
        return TypeAdapter(dict[str, Published]).validate_python(entries)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SourceError(f"{path} cannot be read: {error}; restore it with git checkout.") from error
    except ValidationError as error:
        raise SourceError(f"{path} breaks its form, mend it there: {'; '.join(problems(error))}") from error


def publish(project: Project, study: str, model: str, repo: str, *, private: bool = False) -> Published:
    """Upload a packed recording to a data set, and pin it in ``data/recordings.toml``.

    Texts of personas and questions are not part of a recording, so none are uploaded.

    Args:
        project: Holds the recording.
        study: Name of the study.
        model: Name it is recorded under.
        repo: ``owner/name``; made when there is none.
        private: Whether a data set that is made now is private.

    Raises:
        ResponsesError: no such recording, or an unsound one; nothing is uploaded.
        SourceError: the hub refuses, or cannot be reached.
    """
    folder = project.responses(study, model)
    record = responses.record_of(folder)
    if record is None:
        raise ResponsesError(f"No recording of {model!r} for {study} in {folder}; record it first.")
    problems = [line for line in responses.check(project, study) if line.startswith(f"{model}")]
    for name in record["files"]:
        responses.read_parquet(folder / name)  # every row against its checksum
    if problems:
        raise ResponsesError(f"The recording is not sound and was not uploaded: {' '.join(problems)}")
    place = f"{study}/{model}"
    texts = {
        "README.md": _card(),
        f"{place}/README.md": f"# {place}\n\n```json\n{json.dumps(record, indent=1)}\n```\n",
    }
    operations = [
        *(
            huggingface_hub.CommitOperationAdd(f"{place}/{name}", folder / name)
            for name in (*record["files"], RECORD)
        ),
        *(huggingface_hub.CommitOperationAdd(name, text.encode()) for name, text in texts.items()),
    ]
    api = huggingface_hub.HfApi()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
            done = api.create_commit(repo, operations, repo_type="dataset", commit_message=f"Recording of {place}")
    # The library's transports share no base of their errors; a message may carry an address, never the token.
    except Exception as error:
        raise SourceError(
            f"The hub did not take {place} into {repo} ({type(error).__name__}). Log in with `hf auth login` as "
            f"somebody who may write there, or try again with a connection; nothing was pinned.{network.advice()}"
        ) from error
    published = Published(repo=repo, revision=done.oid, sha256=_sha256(folder / RECORD))
    _pin(project, place, published)
    return published


def fetch(project: Project, study: str, model: str) -> Path:
    """Download a published recording at its pinned revision, check it, and put it in its place.

    Raises:
        SourceError: not published, not available, or not what its hashes say.
        ResponsesError: another recording of that name is here; it stays.
    """
    place = f"{study}/{model}"
    known = register(project)
    if place not in known:
        raise SourceError(
            f"{place} is not in data/recordings.toml; published: {', '.join(known) or 'none'}. "
            "Name one of these, or record it: make record."
        )
    published, target = known[place], project.responses(study, model)
    if (target / RECORD).is_file():
        if _sha256(target / RECORD) == published.sha256 and not responses.check(project, study):
            return target
        raise ResponsesError(
            f"{target} holds another recording of that name, or a damaged one. Move it away to fetch the published."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as scratch:
        folder = Path(scratch) / "whole"
        folder.mkdir()
        _download(published, f"{place}/{RECORD}", folder / RECORD)
        if _sha256(folder / RECORD) != published.sha256:
            raise SourceError(f"{RECORD} of {place} at {published.repo} is not the one that was pinned.")
        record = responses.record_of(folder) or {"files": {}}
        for name, expected in record["files"].items():
            _download(published, f"{place}/{name}", folder / name)
            if _sha256(folder / name) != expected["sha256"]:
                raise SourceError(f"{name} of {place} at {published.repo} is not what its record says.")
            responses.read_parquet(folder / name)
        folder.rename(target)
    return target


def _download(published: Published, path: str, target: Path) -> None:
    """Download one file. It is copied, because the cache holds links."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                found = huggingface_hub.hf_hub_download(
                    published.repo, path, repo_type="dataset", revision=published.revision, local_dir=scratch
                )
        except Exception as error:
            raise SourceError(
                f"{path} is not available from {published.repo} at {published.revision} ({type(error).__name__}). "
                "Try again with a connection; if the data set is private, log in with `hf auth login`."
                f"{network.advice()}"
            ) from error
        shutil.copyfile(found, target)


def _pin(project: Project, place: str, published: Published) -> None:
    entries = register(project) | {place: published}
    lines = [
        f'["{name}"]\nrepo = "{entry.repo}"\nrevision = "{entry.revision}"\nsha256 = "{entry.sha256}"\n'
        for name, entry in sorted(entries.items())
    ]
    path = project.data / "recordings.toml"
    partial = path.with_suffix(".partial")
    partial.write_text(
        "# Recordings that were published; `persona-studies fetch` reads this.\n\n" + "\n".join(lines)
    )
    partial.replace(path)


def _card() -> str:
    return (
        "---\nlicense: cc0-1.0\ntags:\n- persona\n- large-language-models\n---\n"
        "# Recorded responses\n\nOne folder per study and model: Parquet files with one row per response and "
        "`record.json` with the model's hash, backend, schedule, dates and the hash of every file. Rows carry raw "
        "log-probabilities or greedy text, hashes of the texts behind them, and a checksum; the texts of personas "
        "and questions are not part of it.\n"
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
