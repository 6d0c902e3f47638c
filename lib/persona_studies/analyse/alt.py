"""Texts that state what a figure shows, for those who do not see it."""

from __future__ import annotations

SHORTEST = 20
# What nbconvert writes where there is none.
NONE = "No description has been provided for this image"


def states(text: str) -> bool:
    """Return whether a text is long enough to state what a figure shows."""
    return len(text) >= SHORTEST and text != NONE
