"""Reasons of verdicts in plain words, at most eight, where a number, a count of tests or a lack decides."""

from __future__ import annotations

import math
from collections.abc import Sequence

from persona_studies.analyse import tables
from persona_studies.design.protocol import Claim


def by_number(claim: Claim, estimate: float) -> str:
    """Return the reason where no test is made and the number itself decides.

    >>> by_number(Claim(statement="", source="", published="", not_testable="", line=0.05), 0.0514)
    'the number decides: 0.051 is above 0.050'
    """
    room = (claim.smallest_effect or 0.0) if claim.direction == "none" else 0.0
    ends = [claim.line - room, claim.line + room]
    number, low, high = tables.beside(estimate, *ends)
    if claim.direction == "none":
        where = f"{'inside' if abs(estimate - claim.line) <= room else 'outside'} [{low}, {high}]"
    else:
        where = f"{'above' if estimate > claim.line else 'below' if estimate < claim.line else 'equal to'} {low}"
    return f"the number decides: {number} is {where}"


def counted(agree: int, n: int, against: int, *, none: bool = False) -> str:
    """Return the reason where several tests of a claim are counted.

    Args:
        agree: Tests that come out as claimed, of ``n``.
        against: Tests that contradict the claim.
        none: Whether the claim is that there is no effect.

    >>> counted(6, 6, 0), counted(1, 25, 24, none=True)
    ('6 of 6 significant as claimed', '1 of 25 shown small, 24 significant instead')
    """
    said = f"{agree} of {n} {'shown small' if none else 'significant as claimed'}"
    return said + (f", {against} {'significant instead' if none else 'against'}" if against else "")


def unrecorded(measures: Sequence[str]) -> str:
    """Return the reason where a claim waits for measures.

    >>> unrecorded(["letter", "text"]), unrecorded([*"abcdef"])
    ('not recorded yet: letter, text', 'not recorded yet: a, b and 4 more')
    """
    more = len(measures) - 2 if len(measures) > 5 else 0
    return f"not recorded yet: {', '.join(measures[:2] if more else measures)}" + f" and {more} more" * bool(more)


def would_decide(units: float, unit: str) -> str:
    """Say how many units would decide a claim that is open.

    >>> would_decide(1234.0, "questions"), would_decide(math.inf, "questions")
    ('1,234 questions', 'no number of questions')
    """
    return f"{units:,.0f} {unit}" if units < math.inf else f"no number of {unit}"
