"""The verdict on a claim, by one rule for every study."""

from __future__ import annotations

import math
from dataclasses import dataclass

from persona_studies.design.protocol import Claim

REPRODUCED = "reproduced"
SAME_DIRECTION = "same direction, not significant"
CONTRADICTED = "contradicted"
HETEROGENEOUS = "heterogeneous"
INCONCLUSIVE = "inconclusive"
UNINFORMATIVE = "uninformative"
NOT_TESTABLE = "not testable here"

SIGNS = {
    REPRODUCED: "✓",
    SAME_DIRECTION: "≈",
    CONTRADICTED: "✗",
    HETEROGENEOUS: "⇄",
    INCONCLUSIVE: "?",
    UNINFORMATIVE: "∅",
    NOT_TESTABLE: "–",
}
"""A second cue beside the words, so that nothing hangs on a colour."""

MEANINGS = {
    REPRODUCED: "significant after correction with the claimed sign; for a claim of no effect, equivalent to none",
    SAME_DIRECTION: "the claimed sign, not significant, with power enough or power not known",
    CONTRADICTED: "significant with the opposite sign, or equivalent to no effect where one is claimed",
    HETEROGENEOUS: "models or sets move significantly in opposite directions",
    INCONCLUSIVE: "too little power, or the opposite sign; for a claim of no effect, not equivalent",
    UNINFORMATIVE: "a measure behind it failed its validity gate, whatever the p-value",
    NOT_TESTABLE: "what it takes is not public, or not part of the recordings",
}
"""One line per verdict, for the legend of a table."""


@dataclass(frozen=True)
class Evidence:
    """What a hypothesis came to.

    Attributes:
        estimate: Effect on the scale of the claim's smallest effect of interest.
        rejected: Whether its test was rejected within its family after correction.
        equivalent: Whether an equivalence test put the effect inside the smallest effect of interest. For a claim
            of no effect in one direction: whether a one-sided test excluded an effect of that size in it.
        power: Power of the test for the smallest effect of interest, where it can be computed.
        informative: Whether the validity gate of every measure behind it was passed.
        reason: Why not, when it was not.
    """

    estimate: float
    rejected: bool
    equivalent: bool = False
    power: float | None = None
    informative: bool = True
    reason: str = ""


def verdict(claim: Claim, evidence: Evidence | None, *, least_power: float = 0.8) -> tuple[str, str]:
    """Return the verdict on a claim and the reason for it in one line.

    In this order: not testable here; uninformative (a gate failed, or the estimate is undefined);
    reproduced or contradicted (rejected, by sign); contradicted (equivalent to nothing of interest);
    inconclusive (the power for the smallest effect of interest is below ``least_power``, or the sign is the
    opposite without being significant); same direction, not significant.

    A claim of no effect is reproduced by equivalence alone, contradicted by a rejection that is not equivalent,
    and otherwise inconclusive: a test that is not significant shows nothing. A claim of no effect in one direction
    ("does not improve") is decided alike by that direction alone; a significant effect in the other agrees with it.
    A claim of an effect without a direction is reproduced by either sign.
    """
    if claim.not_testable is not None or evidence is None:
        return NOT_TESTABLE, claim.not_testable or "no evidence in this run"
    if not evidence.informative or math.isnan(evidence.estimate):
        return UNINFORMATIVE, evidence.reason or "the estimate is undefined"
    if claim.direction == "none":
        if evidence.equivalent:
            return REPRODUCED, f"equivalent to less than {claim.smallest_effect}"
        if evidence.rejected:
            return (
                CONTRADICTED,
                f"significant after correction, and not equivalent to less than {claim.smallest_effect}",
            )
        return INCONCLUSIVE, f"neither significant nor equivalent to less than {claim.smallest_effect}"
    if claim.direction in ("not positive", "not negative"):
        denied = claim.direction.removeprefix("not ")
        if evidence.equivalent:
            return REPRODUCED, f"a {denied} effect of {claim.smallest_effect} or more is excluded"
        if evidence.rejected and (evidence.estimate > 0) == (denied == "positive"):
            return CONTRADICTED, f"significant after correction, and {denied}"
        return INCONCLUSIVE, f"a {denied} effect of {claim.smallest_effect} is neither shown nor excluded"
    as_claimed = (evidence.estimate > 0) == (claim.direction == "positive")
    if claim.direction == "either":
        if evidence.rejected:
            return REPRODUCED, "significant after correction; the claim names no direction"
    elif evidence.rejected:
        sign = "as claimed" if as_claimed else "opposite to the claim"
        return (REPRODUCED if as_claimed else CONTRADICTED), f"significant after correction, {sign}"
    if evidence.equivalent:
        return CONTRADICTED, f"equivalent to less than {claim.smallest_effect}"
    if evidence.power is not None and evidence.power < least_power:
        return INCONCLUSIVE, f"not significant; power {evidence.power:.2f} for an effect of {claim.smallest_effect}"
    if claim.direction == "either":
        return INCONCLUSIVE, "not significant after correction, nor equivalent to no effect"
    if as_claimed:
        return SAME_DIRECTION, "not significant after correction"
    return INCONCLUSIVE, "opposite sign, not significant after correction"
