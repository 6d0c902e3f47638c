"""What a single contrast came to."""

from __future__ import annotations

SUPERIOR = "superior"
INFERIOR = "inferior"
EQUIVALENT = "equivalent"
INCONCLUSIVE = "inconclusive"
BEHIND = " (gate failed)"
"""Stands behind what a contrast came to where its measure failed a check."""


def outcome(estimate: float, *, rejected: bool, equivalent: bool, gate: str = "") -> str:
    """Return what one contrast came to: a rejected null hypothesis goes before equivalence.

    A contrast that is both differs from zero by less than the margin; its outcome is the direction.

    Args:
        rejected: Whether the test of zero was rejected.
        equivalent: Whether the difference was shown to be smaller than the margin.
        gate: Checks of the measure that failed, which mark the outcome.

    >>> outcome(0.1, rejected=True, equivalent=False), outcome(0.0, rejected=False, equivalent=True, gate="mass")
    ('superior', 'equivalent (gate failed)')
    """
    if rejected:
        said = SUPERIOR if estimate > 0 else INFERIOR
    elif equivalent:
        said = EQUIVALENT
    else:
        said = INCONCLUSIVE
    return said + (BEHIND if gate else "")
