"""A register of external files, with one entry."""

from __future__ import annotations

import hashlib
from pathlib import Path

from persona_studies.paths import Project

CONTENT = b"item,text\n1,Trust others.\n"


COMMIT = "0123456789abcdef0123456789abcdef01234567"


ENTRY = {
    "id": "items",
    "kind": "github",
    "repo": "someone/things",
    "revision": COMMIT,
    "path": "data/some items.csv",
    "sha256": hashlib.sha256(CONTENT).hexdigest(),
    "bytes": len(CONTENT),
    "licence": "CC0",
    "redistributable": True,
    "description": "Items.",
}

# What a person uploaded, as data/recordings.toml says it.
PINS = '["toy/simulated"]\nrepo = "a/b"\nrevision = "' + "a" * 40 + '"\nsha256 = "' + "0" * 64 + '"\n'


def register(root: Path, *entries: dict[str, object]) -> Project:
    def literal(value: object) -> str:
        return str(value).lower() if isinstance(value, bool | int) else f"'{value}'"

    lines = [
        line for entry in entries for line in ["[[source]]", *(f"{k} = {literal(v)}" for k, v in entry.items())]
    ]
    (root / "data").mkdir(exist_ok=True)
    (root / "data" / "sources.toml").write_text("\n".join(lines))
    return Project(root)
