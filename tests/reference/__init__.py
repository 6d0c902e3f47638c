"""Reference values made with R; see README.md."""

import json
from pathlib import Path
from typing import Any


def load(name: str) -> Any:
    """Return the content of ``<name>.json``."""
    return json.loads((Path(__file__).parent / f"{name}.json").read_text(encoding="utf-8"))
