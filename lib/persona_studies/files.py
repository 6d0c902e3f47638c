"""Files: their hash, reading TOML once and by its declared form, and writing in one step."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

from persona_studies.errors import PersonaStudiesError, problems

T = TypeVar("T")


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


def declared(path: Path, form: type[T], refusal: type[PersonaStudiesError]) -> T:
    """Return the content of a TOML file in its declared form, a type of pydantic; no caller may change it.

    Raises:
        PersonaStudiesError: of the kind ``refusal``: no such file, not TOML, or an entry out of form.
    """
    from pydantic import ValidationError

    try:
        found: T = _formed(path.read_text("utf-8"), cast(Any, form))
    except ValidationError as error:
        raise refusal(f"{path} breaks its form, mend it there: {'; '.join(problems(error))}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise refusal(f"{path} cannot be read: {error}; restore it with git checkout.") from error
    return found


@lru_cache(maxsize=64)
def _formed(text: str, form: Any) -> Any:
    """Return a TOML text in a form; a run asks for its sources once per file."""
    from pydantic import TypeAdapter

    return TypeAdapter(form).validate_python(toml(text))


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
