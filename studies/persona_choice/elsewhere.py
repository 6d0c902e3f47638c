"""Data sets on the Hub whose files are not at hand here: one call gets a file at a pinned revision.

Nothing of them is needed for any result of this study. ``HF_ENDPOINT`` moves the Hub, ``HF_HOME`` its cache.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from persona_studies.design.protocol import Protocol
from persona_studies.errors import SourceError, SourceUnavailable, nearest, quoted

HUB = "https://huggingface.co"
KINDS = (".parquet", ".csv", ".json", ".jsonl")
SECONDS = 10


@dataclass(frozen=True)
class Table:
    """A table of a data set, and the commit that it is from.

    Attributes:
        frame: The rows.
        revision: 40 hexadecimal digits; name it the next time to get the same rows.
    """

    frame: pd.DataFrame
    revision: str


def load(protocol: Protocol, name: str, path: str, revision: str) -> Table:
    """Return a table of a data set that this study points to, at one commit.

    Args:
        protocol: Names the data sets (``design.elsewhere``).
        name: Of the data set, such as ``PersonaEval``.
        path: A CSV, Parquet or JSON-lines file of it; :func:`files` lists them.
        revision: 40 hexadecimal digits, as :func:`files` returns; a branch would name other rows tomorrow.

    Raises:
        SourceError: an unknown data set, no commit, or a file of another kind.
        SourceUnavailable: the Hub cannot be reached, or does not have the file at that commit.
    """
    repository = _repository(protocol, name)
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise SourceError(
            f"Revision {quoted(revision)} is no commit of 40 hex digits; files() returns the present one."
        )
    kind = Path(path).suffix
    if kind not in KINDS:
        raise SourceError(f"{quoted(path)} is none of {', '.join(KINDS)}; name one that files() lists.")
    try:
        local = hf_hub_download(
            repository, path, repo_type="dataset", revision=revision, endpoint=_endpoint(), etag_timeout=SECONDS
        )
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise _unavailable(repository, error) from error
    return Table(_read(local, kind), revision)


def _read(local: str, kind: str) -> pd.DataFrame:
    if kind == ".parquet":
        return pd.read_parquet(local)
    if kind == ".csv":
        return pd.read_csv(local)
    return pd.read_json(local, lines=kind == ".jsonl")


def files(protocol: Protocol, name: str) -> tuple[str, list[str]]:
    """Return the present commit of a data set, and its files.

    Raises:
        SourceError: an unknown data set.
        SourceUnavailable: the Hub cannot be reached.
    """
    repository = _repository(protocol, name)
    try:
        about = HfApi(endpoint=_endpoint()).dataset_info(repository, timeout=SECONDS)
    except (OSError, HfHubHTTPError) as error:
        raise _unavailable(repository, error) from error
    return str(about.sha), sorted(each.rfilename for each in about.siblings or [])


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", HUB)


def _repository(protocol: Protocol, name: str) -> str:
    known = protocol.design["elsewhere"]
    if name not in known:
        raise SourceError(f"Unknown data set {quoted(name)}.{nearest(name, known)} Known: {', '.join(known)}.")
    return str(known[name]["repository"])


def _unavailable(repository: str, error: Exception) -> SourceUnavailable:
    return SourceUnavailable(
        f"{HUB}/datasets/{repository} is not available ({type(error).__name__}). Run again with a connection; a "
        "gated set needs a login with `hf auth login`."
    )
