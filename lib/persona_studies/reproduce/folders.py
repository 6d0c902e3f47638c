"""A run's folder: what it says of itself, and how a finished one takes the place of an earlier one."""

from __future__ import annotations

import glob
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from persona_studies import files
from persona_studies.errors import ParameterError, RunError
from persona_studies.paths import Project


def description(folder: Path) -> dict[str, Any] | None:
    """Return what the run in a folder says of itself (``run.json``), or None where no run is.

    Its ``study``, ``key``, ``overrides``, ``outputs`` (path below the folder -> sha256) and ``not_rebuilt``
    (source that could not be had -> address) are there.
    """
    try:
        found: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        found = {"not_rebuilt": {}, **found}
        sound = isinstance(found["study"], str) and all(
            isinstance(found[name], dict) for name in ("key", "overrides", "outputs", "not_rebuilt")
        )
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return found if sound else None


def up_to_date(folder: Path, expected: Mapping[str, str]) -> bool:
    """Return whether a folder holds a run with these inputs whose outputs are all as it wrote them."""
    made = description(folder)
    try:
        return (
            made is not None
            and made["key"] == dict(expected)
            and all(files.sha256(folder / name) == digest for name, digest in made["outputs"].items())
        )
    except OSError:
        return False


def check_free(project: Project, study: str, folder: Path) -> None:
    """Refuse a folder that a run must not replace, before anything expensive starts."""
    ours = [project.root / name for name in ("studies", "data", "figures", "lib")]
    trees = [project.root, project.build, project.runs, project.recordings]
    made = description(folder)
    if folder in [*map(Path.resolve, trees), *project.root.resolve().parents] or any(
        folder.is_relative_to(place.resolve()) for place in ours
    ):
        reason = "is part of the project or holds it"
    elif folder.exists() and not folder.is_dir():
        reason = "is a file"
    elif os.path.ismount(folder):
        reason = "is a mount point, which cannot be replaced in one step"
    elif made is not None and made["study"] != study:
        reason = f"holds a run of {made['study']}"
    elif made is None and folder.is_dir() and any(folder.iterdir()):
        reason = "holds files and no run.json of an earlier run"
    else:
        return
    raise ParameterError(
        f"{study} cannot be run into {folder}: it {reason}. "
        "Name a new or an empty folder (--out), or move what is there elsewhere."
    )


def beside(folder: Path, what: str) -> Path:
    """Return a hidden sibling path. The holder of the sibling ``lock`` may change the others."""
    return folder.with_name(f".{folder.name}.persona-studies-{what}")


@contextmanager
def partial(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside the final one and remove what is left of it, whatever happens."""
    for left in folder.parent.glob(f"{glob.escape(beside(folder, 'partial').name)}*"):
        shutil.rmtree(left, ignore_errors=True)
    # A name of its own: the kernel of a killed run may live on for a second and write to where it was told.
    made = beside(folder, f"partial-{secrets.token_hex(4)}")
    made.mkdir()
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def swap(partial: Path, folder: Path) -> None:
    """Put a finished folder in the place of an earlier one; files that no run wrote move along.

    Raises:
        RunError: such a file has the name of a new output.
    """
    old = beside(folder, "old")
    # The comparison with the reference is written after a run and is outdated now.
    written = {"run.json", "diff.md", "diff.html", *((description(folder) or {}).get("outputs", {}))}
    for path in contents(folder):
        name = path.relative_to(folder)
        if name.as_posix() in written:
            continue
        if os.path.lexists(partial / name):
            raise RunError(f"{path} was not written by a run and would be replaced by one; move it elsewhere.")
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, partial / name, follow_symlinks=False)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def mend(folder: Path) -> None:
    """Undo or finish a swap that was killed half-way."""
    old = beside(folder, "old")
    if old.is_dir() and not folder.exists():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def contents(folder: Path) -> list[Path]:
    """Return the files and links below a folder, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
