"""Folders of files, compared byte by byte; copies of this project; runs written without running."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from persona_studies.paths import Project
from persona_studies.reproduce import runs


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def copied(root: Path, *left_out: str) -> Project:
    """Copy what a run of this project's studies needs; folders of these names are left out."""
    this = Path(__file__).parents[2]
    for name in ("studies", "data", "figures"):
        shutil.copytree(this / name, root / name, ignore=shutil.ignore_patterns(*left_out))
    for name in ("pyproject.toml", "uv.lock"):
        shutil.copy(this / name, root / name)
    (root / "lib").mkdir()
    return Project(root)


def registered(root: Path) -> None:
    """Let a project know this project's models by their names."""
    (root / "data").mkdir(exist_ok=True)
    shutil.copy(Path(__file__).parents[2] / "data" / "models.toml", root / "data")


def linked(root: Path) -> Project:
    """Return a project with this one's studies and banks, and no recordings."""
    (root / "data" / "responses").mkdir(parents=True)
    (root / "pyproject.toml").touch()
    this = Path(__file__).parents[2]
    (root / "studies").symlink_to(this / "studies")
    for path in (this / "data").iterdir():
        if path.name not in ("responses", "results"):
            (root / "data" / path.name).symlink_to(path)
    return Project(root)


def sign(project: Project, folder: Path, overrides: Mapping[str, Any]) -> None:
    """Write the record of a run of ``toy`` beside the files that a test made of it."""
    outputs = {name: hashlib.sha256(data).hexdigest() for name, data in files(folder).items() if name != "run.json"}
    record = {
        "study": "toy",
        "key": runs.key(project, "toy", overrides),
        "overrides": overrides,
        "outputs": outputs,
    }
    (folder / "run.json").write_text(json.dumps(record))
