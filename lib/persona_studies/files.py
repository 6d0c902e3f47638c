"""Files: their hash, reading TOML once, and writing in one step."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any


def sha256(*paths: Path) -> str:
    """Return the SHA-256 of files, read one after the other, in 64 hexadecimal digits."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                total.update(piece)
    return total.hexdigest()


@lru_cache(maxsize=64)
def toml(text: str) -> Mapping[str, Any]:
    """Return the content of a TOML file, which no caller may change.

    A protocol takes 30 ms to read, and one command reads it a dozen times. A byte order mark is passed over.

    Raises:
        tomllib.TOMLDecodeError: the text is not TOML.
    """
    return tomllib.loads(text.removeprefix("\ufeff"))


@contextmanager
def replaced(path: Path, writer: str = "") -> Iterator[Path]:
    """Yield a hidden file beside ``path``; it takes the place of ``path`` when the block ends without an error.

    Readers see the earlier content or the whole new one, never a part. After an error the hidden file is removed.

    Args:
        path: File to write. Its folder must exist.
        writer: Name of this writer, where several may write the same file at the same time.
    """
    partial = path.with_name(".".join(["", path.name, *filter(None, [writer]), "partial"]))
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write(path: Path, content: str | bytes, writer: str = "") -> None:
    """Write a text (in UTF-8, with its line ends as they are) or bytes in one step; see :func:`replaced`."""
    with replaced(path, writer) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
