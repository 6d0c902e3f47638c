"""Which commit a checkout is at, and whether its files are the commit's."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from persona_studies.paths import Project

# What a run stands on; a page or a test that changed makes no other run.
INPUTS = ("studies", "lib", "data", "uv.lock")


@dataclass(frozen=True)
class Commit:
    """A commit and what differs from it.

    Attributes:
        id: Its 40-digit hash.
        date: When it was made, ISO 8601 with its time zone.
        changed: Paths below the root that differ from it or are not in it.
    """

    id: str
    date: str
    changed: tuple[str, ...] = ()


def commit(project: Project, *places: str) -> Commit | None:
    """Return the commit that is checked out, or None outside a git repository.

    Args:
        project: The checkout.
        places: Report changes of these paths only; otherwise of all that git does not ignore.
    """
    try:
        made = _git(project, "log", "-1", "--format=%H %cI")
        # With -z a path is given as it is, and a renamed one is followed by its former name.
        status = _git(project, "status", "--porcelain", "-z", "--no-renames", "--", *places)
    except (OSError, subprocess.CalledProcessError):
        return None
    identity, date = made.split()
    return Commit(identity, date, tuple(line[3:] for line in status.split("\0") if line))


def _git(project: Project, *arguments: str) -> str:
    command = ["git", "-C", str(project.root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
