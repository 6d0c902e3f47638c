"""Which commit a checkout is at, and whether its files are the commit's."""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass

from persona_studies.paths import Project

# Inputs of a run; pages and tests do not affect it.
INPUTS = ("studies", "lib", "data", "uv.lock")
# Variables that a hook of git sets, and that would name another repository.
ELSEWHERE = {"GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX"}


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
    """Return the commit that is checked out, or None where there is none that is the project's own.

    A copy without history that lies inside another repository has no commit; nor has one that git refuses to read.
    :func:`absence` says which it is.

    Args:
        places: Report changes of these paths only; otherwise of all that git does not ignore.
    """
    if absence(project):
        return None
    made = _git(project, "log", "-1", "--format=%H %cI").stdout
    # With -z a path is given as it is, and a renamed one is followed by its former name.
    status = _git(project, "status", "--porcelain", "-z", "--no-renames", "--", *places).stdout
    identity, date = made.split()
    return Commit(identity, date, tuple(line[3:] for line in status.split("\0") if line))


def absence(project: Project) -> str:
    """Say why a project has no commit; empty where it has one."""
    try:
        # The way up from the folder to the root of its repository: none, where the folder is the root.
        found = _git(project, "rev-parse", "--show-cdup")
    except OSError:
        return "git is not installed"
    if "safe.directory" in found.stderr:
        trust = f"git config --global --add safe.directory {shlex.quote(str(project.root))}"
        return f"git does not read this folder, which belongs to another user; if you trust it: {trust}"
    if found.returncode or found.stdout.strip():
        return "this folder is not a git checkout"
    if _git(project, "rev-parse", "--verify", "HEAD").returncode:
        return "this checkout has no commit yet"
    return ""


def _git(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "-C", str(project.root), *arguments]
    own = {name: value for name, value in os.environ.items() if name not in ELSEWHERE} | {"LC_ALL": "C"}
    return subprocess.run(command, env=own, capture_output=True, text=True, errors="surrogateescape", check=False)
