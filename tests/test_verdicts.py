import math

import pytest

from persona_studies.analyse import verdicts
from persona_studies.analyse.verdicts import Evidence, verdict
from persona_studies.design.protocol import Claim


def claim(**changes: object) -> Claim:
    return Claim.model_validate(
        {
            "statement": "s",
            "source": "s",
            "published": "p",
            "family": "f",
            "hypothesis": "h",
            "smallest_effect": 0.1,
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("evidence", "expected", "why"),
    [
        (None, verdicts.NOT_TESTABLE, "no evidence in this run"),
        (
            Evidence(0.5, True, informative=False, reason="gate failed: option mass"),
            verdicts.UNINFORMATIVE,
            "gate failed: option mass",
        ),
        (Evidence(math.nan, True), verdicts.UNINFORMATIVE, "the estimate is undefined"),
        (Evidence(math.nan, False, reason="undefined (constant)"), verdicts.UNINFORMATIVE, "undefined (constant)"),
        (Evidence(0.5, True), verdicts.REPRODUCED, "significant after correction, as claimed"),
        (Evidence(0.05, True, equivalent=True), verdicts.REPRODUCED, "significant after correction, as claimed"),
        (Evidence(-0.5, True), verdicts.CONTRADICTED, "significant after correction, opposite to the claim"),
        (Evidence(0.01, False, equivalent=True, power=0.9), verdicts.CONTRADICTED, "equivalent to less than 0.1"),
        (
            Evidence(0.2, False, power=0.79),
            verdicts.INCONCLUSIVE,
            "not significant; power 0.79 for an effect of 0.1",
        ),
        (Evidence(0.2, False, power=0.8), verdicts.SAME_DIRECTION, "not significant after correction"),
        (Evidence(0.2, False), verdicts.SAME_DIRECTION, "not significant after correction"),
        (
            Evidence(-0.2, False, power=0.9),
            verdicts.INCONCLUSIVE,
            "opposite sign, not significant after correction",
        ),
    ],
)
def test_every_branch(evidence: Evidence | None, expected: str, why: str) -> None:
    assert verdict(claim(), evidence) == (expected, why)


def test_what_cannot_be_tested_stays_so_whatever_the_evidence() -> None:
    untestable = claim(family=None, hypothesis=None, not_testable="the data are not public")
    assert verdict(untestable, Evidence(0.5, True)) == (verdicts.NOT_TESTABLE, "the data are not public")


@pytest.mark.parametrize(("estimate", "expected"), [(-0.5, verdicts.REPRODUCED), (0.5, verdicts.CONTRADICTED)])
def test_a_claim_of_a_negative_effect(estimate: float, expected: str) -> None:
    assert verdict(claim(direction="negative"), Evidence(estimate, True))[0] == expected


def test_least_power_can_be_set() -> None:
    evidence = Evidence(0.2, False, power=0.6)
    assert verdict(claim(), evidence, least_power=0.5)[0] == verdicts.SAME_DIRECTION


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (Evidence(0.01, False, equivalent=True), verdicts.REPRODUCED),
        (Evidence(0.01, True, equivalent=True), verdicts.REPRODUCED),
        (Evidence(0.3, True), verdicts.CONTRADICTED),
        (Evidence(-0.3, True), verdicts.CONTRADICTED),
        (Evidence(0.01, False, power=0.99), verdicts.INCONCLUSIVE),
    ],
)
def test_a_claim_of_no_effect_needs_equivalence(evidence: Evidence, expected: str) -> None:
    assert verdict(claim(direction="none"), evidence)[0] == expected


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (Evidence(0.01, False, equivalent=True), verdicts.REPRODUCED),
        (Evidence(0.02, True, equivalent=True), verdicts.REPRODUCED),
        (Evidence(-0.3, True, equivalent=True), verdicts.REPRODUCED),
        (Evidence(0.3, True), verdicts.CONTRADICTED),
        (Evidence(-0.3, True), verdicts.INCONCLUSIVE),
        (Evidence(0.01, False, power=0.99), verdicts.INCONCLUSIVE),
    ],
)
def test_a_claim_of_no_gain_is_one_sided(evidence: Evidence, expected: str) -> None:
    assert verdict(claim(direction="not positive"), evidence)[0] == expected
    mirrored = Evidence(-evidence.estimate, evidence.rejected, evidence.equivalent, evidence.power)
    assert verdict(claim(direction="not negative"), mirrored)[0] == expected


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (Evidence(0.3, True), verdicts.REPRODUCED),
        (Evidence(-0.3, True), verdicts.REPRODUCED),
        (Evidence(0.01, False, equivalent=True), verdicts.CONTRADICTED),
        (Evidence(0.01, False, power=0.5), verdicts.INCONCLUSIVE),
        (Evidence(-0.01, False, power=0.99), verdicts.INCONCLUSIVE),
    ],
)
def test_a_claim_without_a_direction_takes_either_sign(evidence: Evidence, expected: str) -> None:
    assert verdict(claim(direction="either"), evidence)[0] == expected
