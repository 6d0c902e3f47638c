import math
import warnings
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from persona_studies.analyse import gates, reasons, verdicts
from persona_studies.analyse.verdicts import Evidence, verdict
from persona_studies.design.protocol import Claim, Family, Protocol


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
        (Evidence(math.inf, True), verdicts.UNINFORMATIVE, "the estimate is undefined"),
        (Evidence(0.0, False), verdicts.INCONCLUSIVE, "no difference, not significant after correction"),
        (Evidence(math.nan, False, reason="undefined (constant)"), verdicts.UNINFORMATIVE, "undefined (constant)"),
        (Evidence(0.5, True), verdicts.REPRODUCED, "significant after correction, as claimed"),
        (Evidence(0.05, True, equivalent=True), verdicts.REPRODUCED, "significant after correction, as claimed"),
        (Evidence(-0.5, True), verdicts.CONTRADICTED, "significant after correction, opposite to the claim"),
        (Evidence(0.01, False, equivalent=True, power=0.9), verdicts.CONTRADICTED, "shown to be smaller than 0.1"),
        (
            Evidence(0.2, False, power=0.79),
            verdicts.INCONCLUSIVE,
            "not significant; 79% chance to detect 0.1",
        ),
        (
            # Less than .8 is never printed as .8.
            Evidence(0.2, False, power=0.7996),
            verdicts.INCONCLUSIVE,
            "not significant; 79.96% chance to detect 0.1",
        ),
        (Evidence(0.5, True, corrected=False), verdicts.REPRODUCED, "significant without correction, as claimed"),
        (Evidence(0.5, True, why="2 of 3 runs lie above"), verdicts.REPRODUCED, "2 of 3 runs lie above"),
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
    assert verdict(claim(), evidence) == (expected, why, "", "", "")


MIRRORED = {
    **{"positive": "negative", "negative": "positive", "none": "none", "either": "either"},
    **{"not positive": "not negative", "not negative": "not positive"},
}


@pytest.mark.parametrize("direction", MIRRORED)
def test_a_mirrored_claim_has_the_mirrored_verdict(direction: str) -> None:
    for line, away, rejected, equivalent, power, sampled in product(
        (0.0, 0.5), (-0.3, 0.0, 1e-12, 0.3), (False, True), (False, True), (None, 0.1, 0.9), (False, True)
    ):
        how: dict[str, Any] = {"rejected": rejected, "equivalent": equivalent, "power": power, "sampled": sampled}
        own = verdict(claim(direction=direction, line=line), Evidence(line + away, **how))
        other = verdict(claim(direction=MIRRORED[direction], line=-line), Evidence(-line - away, **how))
        assert own[0] == other[0], (line, away, how, own, other)


NEITHER, SHOWN, WRONG = Evidence(0.02, False), Evidence(0.02, False, equivalent=True), Evidence(0.3, True)


@pytest.mark.parametrize(
    ("direction", "line", "evidence", "why"),
    [
        ("none", 0, SHOWN, "shown to be smaller than 0.1"),
        ("none", 0, WRONG, "significant, not shown smaller than 0.1"),
        ("none", 0, NEITHER, "neither significant nor shown smaller than 0.1"),
        ("none", 0.5, SHOWN, "shown to be within 0.1 of 0.5"),
        ("not positive", 0, SHOWN, "a rise of 0.1 or more is excluded"),
        ("not positive", 0, WRONG, "significant after correction, opposite to the claim"),
        ("not negative", 0, NEITHER, "a fall of 0.1 neither shown nor excluded"),
        ("either", 0, WRONG, "significant after correction; the claim names no direction"),
        ("either", 0, NEITHER, "neither significant nor shown smaller than 0.1"),
    ],
)
def test_a_reason_is_in_plain_words(direction: str, line: float, evidence: Evidence, why: str) -> None:
    assert verdict(claim(direction=direction, line=line), evidence).why == why


def test_no_reason_of_the_rule_has_more_than_eight_words() -> None:
    for direction, line, estimate, rejected, equivalent, power, sampled, corrected in product(
        MIRRORED, (0, 0.5), (-0.4, 0.4), *[(False, True)] * 2, (None, 0.1), *[(False, True)] * 2
    ):
        flags = {"sampled": sampled, "corrected": corrected}
        found = Evidence(estimate, rejected, equivalent=equivalent, power=power, **flags)
        why = verdict(claim(direction=direction, line=line), found).why
        assert 0 < len(why.split()) <= 8, why


OTHERS = [
    *(
        reasons.by_number(claim(direction=way, line=1.25), each)
        for way in MIRRORED
        for each in (-0.4, 1.25, 1.2501)
    ),
    *(reasons.counted(1, 25, against, none=none) for against in (0, 24) for none in (False, True)),
    *(reasons.unrecorded([*"abcdefgh"][:n]) for n in range(1, 9)),
]


@pytest.mark.parametrize("reason", OTHERS)
def test_no_other_reason_has_more_than_eight_words(reason: str) -> None:
    assert 0 < len(reason.split()) <= 8, reason


def test_two_failed_checks_and_more_fit_into_a_reason() -> None:
    for pair in product([*gates.FAILED], repeat=2):
        checks = pd.DataFrame({"check": [*pair, "third", "fourth"], "passes": False})
        assert len(gates.failures(checks).split()) <= 8, pair


def test_what_cannot_be_tested_stays_so_whatever_the_evidence() -> None:
    untestable = claim(family=None, hypothesis=None, not_testable="the data are not public", details="Ask them.")
    said = verdict(untestable, Evidence(0.5, True))
    assert said == (verdicts.NOT_TESTABLE, "the data are not public", "", "", "Ask them.")


@pytest.mark.parametrize(("estimate", "expected"), [(-0.5, verdicts.REPRODUCED), (0.5, verdicts.CONTRADICTED)])
def test_a_claim_of_a_negative_effect(estimate: float, expected: str) -> None:
    assert verdict(claim(direction="negative"), Evidence(estimate, True))[0] == expected


@pytest.mark.parametrize(
    ("direction", "estimate", "expected", "why"),
    [
        ("negative", 0.0864, verdicts.CONTRADICTED, "the number decides: 0.09 is above 0.05"),
        ("negative", 0.0502, verdicts.CONTRADICTED, "the number decides: 0.0502 is above 0.0500"),
        ("negative", 0.01, verdicts.REPRODUCED, "the number decides: 0.01 is below 0.05"),
        ("none", 2.0, verdicts.CONTRADICTED, "the number decides: 2.00 is outside [−0.05, 0.15]"),
    ],
)
def test_a_number_that_no_sample_gave_decides_by_itself(
    direction: str, estimate: float, expected: str, why: str
) -> None:
    made = claim(direction=direction, line=0.05)
    assert verdict(made, Evidence(estimate, True, sampled=False)) == (expected, why, "", "", "")
    assert "significant" in verdict(made, Evidence(estimate, True))[1]


def test_a_standard_error_of_0_says_that_there_is_no_sample() -> None:
    row = dict.fromkeys(("low", "high", "p_adjusted", "p_bound_adjusted", "power"), math.nan)
    row |= {"estimate": 0.3, "rejected": True, "bounded": False}
    made = [Evidence.of({**row, "se": se}, reason="").sampled for se in (0.0, 0.1, math.nan)]
    assert made == [False, True, True]


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


# --- Heterogeneous, steerability, and the table of all claims ---


def test_significant_moves_in_opposite_directions_are_heterogeneous() -> None:
    evidence = Evidence(0.02, False, power=0.1, rising=("model a",), falling=("model b", "model c"))
    assert verdict(claim(), evidence) == (
        verdicts.HETEROGENEOUS,
        "1 significantly up, 2 significantly down",
        "",
        "",
        "up: model a; down: model b, model c",
    )


@pytest.mark.parametrize("moved", [{"rising": ("a", "b")}, {"falling": ("a",)}])
def test_moves_in_one_direction_are_not_heterogeneous(moved: dict[str, tuple[str, ...]]) -> None:
    assert verdict(claim(), Evidence(0.5, True, **moved))[0] == verdicts.REPRODUCED


def test_a_failed_gate_goes_before_heterogeneity() -> None:
    evidence = Evidence(0.5, True, informative=False, reason="gate", rising=("a",), falling=("b",))
    assert verdict(claim(), evidence)[0] == verdicts.UNINFORMATIVE


def test_a_model_that_no_instruction_moves_keeps_its_verdict_and_says_so() -> None:
    said = verdict(claim(direction="none"), Evidence(0.01, False, equivalent=True, steerable=False))
    assert said.word == verdicts.REPRODUCED and said.steerable == "no"
    assert [verdict(claim(), Evidence(0.5, True, steerable=known)).steerable for known in (True, None)] == ["", ""]


FAMILY = {"purpose": "p", "hypotheses": ("h", "g"), "size": 2}


def declared(**claims: Claim) -> Protocol:
    """A protocol whose claims rest on the family ``f`` of two hypotheses."""
    return Protocol.model_construct(
        version=1, families={"f": Family.model_validate(FAMILY)}, claims={"first": claim(), **claims}
    )


def test_every_claim_has_one_row_per_layer_with_evidence() -> None:
    found = {
        ("f", "h", "published"): Evidence(0.5, True, low=0.4, high=0.6, p_adjusted=0.01, corrected=False),
        ("f", "h", "corrected"): Evidence(0.5, False, power=0.2),
    }
    told = verdicts.table(declared(second=claim(hypothesis="g")), found, absent={"second": "no letters"})
    assert list(told) == list(verdicts.COLUMNS)
    assert list(zip(told["claim"], told["layer"], told["verdict"], strict=True)) == [
        ("first", "published", verdicts.REPRODUCED),
        ("first", "corrected", verdicts.INCONCLUSIVE),
        ("second", "corrected", verdicts.NOT_TESTABLE),
    ]
    assert told["why"].tolist()[::2] == ["significant without correction, as claimed", "no letters"]
    assert told.loc[0, ["estimate", "low", "high", "p_adjusted"]].tolist() == [0.5, 0.4, 0.6, 0.01]


@pytest.mark.parametrize("layer", verdicts.LAYERS)
def test_the_layer_filters(layer: str) -> None:
    found = {("f", "h", each): Evidence(0.5, True) for each in verdicts.LAYERS}
    assert verdicts.table(declared(), found, layer=layer)["layer"].tolist() == [layer]


def test_an_unknown_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="layer is 'second'; known: published, corrected, both"):
        verdicts.table(declared(), {}, layer="second")


UP, DOWN, LOST = Evidence(0.5, True), Evidence(-0.5, True), Evidence(0.5, True, informative=False, reason="gate")


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (UP, UP, verdicts.REPRODUCED),
        (DOWN, DOWN, verdicts.CONTRADICTED),
        (UP, DOWN, verdicts.HETEROGENEOUS),
        (UP, Evidence(0.1, False, rising=("a",), falling=("b",)), verdicts.HETEROGENEOUS),
        (UP, LOST, verdicts.UNINFORMATIVE),
        (UP, None, verdicts.INCONCLUSIVE),
        (UP, Evidence(0.1, False, power=0.1), verdicts.INCONCLUSIVE),
    ],
)
def test_a_claim_on_two_hypotheses_needs_both(one: Evidence, other: Evidence | None, expected: str) -> None:
    found = {("f", "h", "corrected"): one} | ({("f", "g", "corrected"): other} if other else {})
    told = verdicts.table(declared(first=claim(also=("g",))), found, layer="corrected")
    assert told["verdict"].tolist() == [expected]


def test_a_claim_that_one_of_two_hypotheses_keeps_open_says_how_many_units_would_decide() -> None:
    found = {("f", "h", "corrected"): UP, ("f", "g", "corrected"): Evidence(0.1, False, needed=200)}
    told = verdicts.table(declared(first=claim(also=("g",))), found, layer="corrected").iloc[0]
    assert told["verdict"] == verdicts.INCONCLUSIVE
    assert told["why"] == "1 of 2 tests same direction, not significant" and told["would_decide"] == "200 items"
    assert told["details"].startswith("reproduced: significant after correction, as claimed; same direction, not")


def test_two_hypotheses_that_contradict_each_other_are_counted() -> None:
    found = {("f", "h", "corrected"): UP, ("f", "g", "corrected"): DOWN}
    told = verdicts.table(declared(first=claim(also=("g",))), found, layer="corrected").iloc[0]
    assert told["why"] == "1 reproduced, 1 contradicted"


@pytest.mark.parametrize(("correction", "expected"), [("holm", 0.025), ("bonferroni", 0.025), ("none", 0.05)])
def test_power_is_at_the_level_of_the_family(correction: str, expected: float) -> None:
    assert verdicts.level(Family.model_validate(FAMILY), alpha=0.05, correction=correction) == expected


def mean(direction: str, estimate: float, **how: Any) -> Evidence:
    """Evidence of 25 units with a standard deviation of 1 for a claim about 0.5."""
    facts: dict[str, Any] = {"se": 0.2, "n": 25, "rejected": False, "level": 0.05, "alpha": 0.05, **how}
    return verdicts.of_mean(claim(direction=direction, smallest_effect=0.5), estimate=estimate, **facts)


def test_power_and_units_are_at_the_claims_own_smallest_effect() -> None:
    found = mean("positive", 0.3)
    assert found.power == pytest.approx(0.6697077042) and found.needed == 34
    said = verdict(claim(smallest_effect=0.5), found)
    assert said.word == verdicts.INCONCLUSIVE and said.would_decide == "34 items"


def test_equivalence_is_two_one_sided_tests_at_the_claims_margin() -> None:
    # t = (0.5 - 0.1) / 0.2 = 2 on 24 degrees of freedom.
    assert mean("none", 0.1).p_equivalence == pytest.approx(scipy_stats.t.sf(2.0, 24))
    assert mean("none", 0.1).equivalent and not mean("none", 0.2).equivalent
    assert mean("none", -0.1).p_equivalence == mean("none", 0.1).p_equivalence


def test_equivalence_is_at_the_level_of_the_family() -> None:
    alone, one_of_ten = (mean("none", 0.1, level=level) for level in (0.05, 0.005))
    assert alone.equivalent and not one_of_ten.equivalent
    assert one_of_ten.p_equivalence == pytest.approx(10 * alone.p_equivalence)
    assert (one_of_ten.needed or 0) > (mean("none", 0.3).needed or 0)


def test_an_open_claim_never_calls_for_the_units_at_hand_or_fewer() -> None:
    enough = mean("none", 0.4, se=0.1)
    assert verdict(claim(direction="none", smallest_effect=0.5), enough)[0] == verdicts.INCONCLUSIVE
    assert enough.needed is not None and enough.needed > 25


@pytest.mark.parametrize(
    ("detectable", "effect", "expected"), [(math.inf, 0.1, math.inf), (math.nan, 0.1, None), (0.2, math.nan, None)]
)
def test_units_of_what_is_undefined_are_not_known(detectable: float, effect: float, expected: float | None) -> None:
    how = {"direction": "positive", "smallest": 0.1}
    assert verdicts.units_to_decide(20, 25, effect=effect, detectable=detectable, **how) == expected


def test_where_no_number_of_units_decides_the_row_says_so() -> None:
    said = verdict(claim(direction="none"), Evidence(0.1, False, needed=math.inf))
    assert said.would_decide == "no number of items"


def test_a_denied_gain_is_excluded_from_one_side() -> None:
    assert mean("not positive", -3.0).equivalent and mean("not negative", 3.0).equivalent
    assert not mean("not positive", 3.0).equivalent
    assert mean("not positive", 0.1).p_equivalence == pytest.approx(scipy_stats.t.sf(2.0, 24))


@pytest.mark.parametrize("direction", ["none", "not positive"])
def test_the_units_needed_would_decide(direction: str) -> None:
    """A true zero is decided in about 80 of 100 designs of the size that is called for."""
    n = int(mean(direction, 0.3).needed or 0)
    draws = np.random.default_rng(3).normal(0, 1, size=(1000, n))
    facts = zip(draws.mean(1), draws.std(1, ddof=1) / n**0.5, strict=True)
    decided = [mean(direction, float(m), se=float(se), n=n).equivalent for m, se in facts]
    assert np.mean(decided) == pytest.approx(0.8, abs=0.05)


def test_without_a_standard_error_nothing_is_said_of_power() -> None:
    found = mean("none", 0.0, se=math.nan)
    assert found.power is None and not found.equivalent and found.needed is None


def test_models_are_joined_without_a_warning_and_the_first_that_passed_decides() -> None:
    """A model without evidence leaves columns empty, whose type says nothing of another model's."""
    models = {"none": {}, "lost": {("f", "h", "corrected"): LOST}, "up": {("f", "h", "corrected"): UP}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = verdicts.of_models(declared(first=claim()), models, layer="corrected")
    assert told["model"].tolist() == ["up", "lost"]
    assert told["verdict"].tolist() == [verdicts.REPRODUCED, verdicts.UNINFORMATIVE]
