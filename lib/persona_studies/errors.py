"""Every error this library raises on purpose.

A message says what was wrong, where, and what to do about it. The command line prints it without a
traceback and exits with ``exit_code``.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

LONGEST = 200


class PersonaStudiesError(Exception):
    """Base class: something the user can mend."""

    exit_code = 1

    def _render_traceback_(self) -> list[str]:
        """Show the message alone in a notebook, as the command line does; IPython asks for this."""
        return [f"{type(self).__name__}: {self}"]


class ParameterError(PersonaStudiesError):
    """A parameter has an unknown name, a wrong type or a value out of range."""

    exit_code = 2


class NotebookError(PersonaStudiesError):
    """A notebook breaks a rule that a run depends on, such as exactly one ``parameters`` cell."""

    exit_code = 2


class ProtocolError(PersonaStudiesError):
    """A protocol file is incomplete or contradicts itself."""

    exit_code = 2


class BankError(PersonaStudiesError):
    """A table that a person edits is not written as its schema declares."""

    exit_code = 2


class RunError(PersonaStudiesError):
    """A notebook was started and did not complete."""


class ResponsesError(PersonaStudiesError):
    """Recorded responses are missing, damaged or belong to another design."""


class BackendError(PersonaStudiesError):
    """A model cannot be loaded or does not answer as the measure needs."""


class BudgetSpent(BackendError):  # noqa: N818 - the end of a budget, not a fault
    """A cap in calls, tokens or money is reached. What was answered before is kept."""


class SourceError(PersonaStudiesError):
    """An external source is not available, or is not what its hash says."""


class SourceUnavailable(SourceError):  # noqa: N818 - a state of the world, not a fault
    """An external source is neither at hand nor to be had from its address now."""


class StatisticsError(PersonaStudiesError, ValueError):
    """Input for which a statistic is not defined and no rule says what to do instead."""


def quoted(value: object) -> str:
    """Return a value as a message shows it: as Python writes it, cut where it is long.

    >>> quoted("a\\x1b[31m"), len(quoted("x" * 1000))
    ("'a\\\\x1b[31m'", 201)
    """
    text = repr(value)
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def nearest(value: str, known: Iterable[str]) -> str:
    """Return the known name that is most like a mistyped one, as a question behind a blank; nothing where none is.

    >>> nearest("sycofancy", ["measurement", "sycophancy"]), nearest("x", ["measurement"])
    (" Did you mean 'sycophancy'?", '')
    """
    return "".join(f" Did you mean {near!r}?" for near in get_close_matches(value, [*known], n=1))


def visible(text: str, kept: str = "\n\t") -> str:
    """Replace control and text-direction characters with blanks.

    >>> visible("a\\x1b[31mb\\u202ec")
    'a [31mb c'
    """
    return "".join(c if c.isprintable() or c in kept else " " for c in text)


def problems(error: ValidationError) -> list[str]:
    """Return what does not fit a declared form, one line each: the place, what it should be, what was found."""
    lines = []
    for problem in error.errors(include_url=False):
        place = ".".join(map(str, problem["loc"])) or "the whole"
        # Of a whole table only what is said about it helps.
        found = "" if isinstance(problem["input"], dict) else f", found {quoted(problem['input'])}"
        lines.append(f"{place}: {problem['msg']}{found}")
    return lines
