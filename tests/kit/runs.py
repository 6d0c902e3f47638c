"""Folders of files, compared byte by byte; runs written without running."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from persona_studies.paths import Project
from persona_studies.reproduce import runs


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


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
