"""Reasons of verdicts in plain words, where a number, a count of tests or a lack of units decides."""

from __future__ import annotations

import math

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
    ('6 of 6 significant as claimed', '1 of 25 shown to be small, 24 significant instead')
    """
    said = f"{agree} of {n} {'shown to be small' if none else 'significant as claimed'}"
    return said + (f", {against} {'significant instead' if none else 'the other way'}" if against else "")


def would_decide(units: float, unit: str) -> str:
    """Say how many units would decide a claim that is open.

    >>> would_decide(1234.0, "questions"), would_decide(math.inf, "questions")
    ('1,234 questions would decide', 'no number of questions would decide')
    """
    return f"{units:,.0f} {unit} would decide" if units < math.inf else f"no number of {unit} would decide"
