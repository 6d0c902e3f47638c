"""uv.lock, read once."""

from __future__ import annotations

import tomllib
from functools import cache
from typing import Any

from tools import lock


@cache
def uv_lock() -> dict[str, Any]:
    """Return uv.lock, which takes a quarter of a second to read: no worker of the tests reads it for nothing."""
    return tomllib.loads(lock.UV_LOCK.read_text())
