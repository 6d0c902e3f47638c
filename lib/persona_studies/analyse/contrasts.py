"""What a single contrast came to."""

from __future__ import annotations

SUPERIOR = "superior"
INFERIOR = "inferior"
EQUIVALENT = "equivalent"
INCONCLUSIVE = "inconclusive"


def outcome(estimate: float, *, rejected: bool, equivalent: bool) -> str:
    """Return what one contrast came to: a rejected null hypothesis goes before equivalence.

    A contrast that is both differs from zero by less than the margin; its outcome is the direction.
    """
    if rejected:
        return SUPERIOR if estimate > 0 else INFERIOR
    return EQUIVALENT if equivalent else INCONCLUSIVE
