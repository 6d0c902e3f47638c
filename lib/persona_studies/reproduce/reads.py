"""What a run reads below ``data/``: declared in its protocol, hashed into its key, and held to while it runs.

A protocol names under ``reads`` the banks and published tables that its study reads (files or folders below
``data/``), and under ``sources`` the external files (patterns of ids in ``data/sources.toml``). A study whose
protocol names neither depends on all of them.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from persona_studies import files
from persona_studies.errors import ProtocolError
from persona_studies.paths import Project

ALWAYS = ("sources.toml", "models.toml", "recordings.toml", "units.toml", "responses", "results")
"""Registers, and what a study has of its own: not declared, as every study reads them or its own part of them."""


def declared(project: Project, study: str) -> tuple[list[str], list[str]] | None:
    """Return the ``reads`` and ``sources`` of a study's protocol, or None where it names neither.

    Raises:
        ProtocolError: something that is named does not exist, or is not a list of texts.
    """
    try:
        found = files.toml(project.protocol(study).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        # Whoever reads the protocol says what is wrong with it.
        return None
    if "reads" not in found and "sources" not in found:
        return None
    lists = [found.get(name, []) for name in ("reads", "sources")]
    for name, each in zip(("reads", "sources"), lists, strict=True):
        if not isinstance(each, list) or not all(isinstance(entry, str) for entry in each):
            raise ProtocolError(f"`{name}` of {study}/protocol.toml must be a list of texts, mend it there.")
    for entry in lists[0]:
        # By its name, as a folder of data may be a link to a disk with more room.
        outside = Path(entry).is_absolute() or ".." in Path(entry).parts
        if outside or not (project.data / entry).exists():
            raise ProtocolError(f"`reads` of {study}/protocol.toml names data/{entry}, which is not there.")
    return lists[0], lists[1]


def data(project: Project, study: str) -> list[Path]:
    """Return the files and folders below ``data/`` that a run depends on, without responses and registers."""
    named = declared(project, study)
    if named is None:
        return [project.items, project.published, project.sources, project.data / "models.toml"]
    return [project.data / entry for entry in named[0]]


def pins(project: Project, study: str) -> list[dict[str, Any]]:
    """Return the entries of ``data/sources.toml`` that a run depends on; empty where all count as a file.

    Raises:
        ProtocolError: a pattern that fits no source.
    """
    named = declared(project, study)
    if named is None or not named[1]:
        return []
    entries = files.toml(project.sources.read_text("utf-8")).get("source", [])
    found = []
    for pattern in named[1]:
        fitting = [entry for entry in entries if fnmatchcase(str(entry.get("id")), pattern)]
        if not fitting:
            raise ProtocolError(
                f"`sources` of {study}/protocol.toml names {pattern!r}; data/sources.toml has none."
            )
        found += [entry for entry in fitting if entry not in found]
    return found


def hold_to(project: Project, study: str) -> None:
    """Refuse, from now on in this process, to open a file below ``data/`` that the study does not declare.

    The refusal holds while ``PERSONA_STUDIES_OUT`` is set, as the runner sets it for a kernel. What is read without
    being declared would change a run without changing its key.
    """
    named = declared(project, study)
    if named is None or not os.environ.get("PERSONA_STUDIES_OUT"):
        return
    root = str(project.data.resolve()) + os.sep
    allowed = [*named[0], *(name for name in ALWAYS)]

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or not os.environ.get("PERSONA_STUDIES_OUT"):
            return
        path = arguments[0]
        if isinstance(path, str) and path.startswith(root) and not _within(path[len(root) :], allowed):
            place = path[len(root) :].replace(os.sep, "/")
            raise ProtocolError(
                f"{study} reads data/{place}, which its protocol does not name; add it to `reads` in "
                f"studies/{study}/protocol.toml, so that a change of it makes a new run."
            )

    sys.addaudithook(watch)


def _within(path: str, allowed: Iterable[str]) -> bool:
    """Return whether a path below ``data/`` is one of the allowed, or lies in one.

    >>> _within("items/claims.csv", ["items"]), _within("items2/claims.csv", ["items"])
    (True, False)
    """
    parts = Path(path).parts
    return any(parts[: len(Path(entry).parts)] == Path(entry).parts for entry in allowed)
