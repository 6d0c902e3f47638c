"""Declared contrasts against scipy, by hand, planted and null; gates and claims from made-up numbers."""

from __future__ import annotations

from math import isnan, nan, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from persona_studies.analyse import families, gates, verdicts
from persona_studies.analyse.families import Settings
from persona_studies.analyse.stats.power import power_mean
from persona_studies.design.protocol import Claim, Family, Hypothesis, Protocol, load
from persona_studies.errors import ProtocolError
from persona_studies.paths import Project

HOW = Settings(alpha=0.05, confidence=0.95, correction="holm", replicates=4999, seed=1)


def contrast(**given: Any) -> Hypothesis:
    return Hypothesis(
        **{
            "first": "a",
            "second": "b",
            "on": "all",
            "measure": "letter",
            "outcome": "accuracy",
            "direction": "either",
            "smallest_effect": 0.1,
            **given,
        }
    )


def series(values: Any, sets: Any = "one") -> pd.Series:
    n = len(values)
    names = [f"q{k}" for k in range(n)]
    labels = [sets] * n if isinstance(sets, str) else sets
    index = pd.MultiIndex.from_arrays(
        [["s"] * n, labels, names, names], names=["stratum", "set", "item", "cluster"]
    )
    return pd.Series(np.asarray(values, dtype=float), index=index)


def family(*contrasts: Hypothesis) -> Family:
    return Family.model_validate(
        {
            "purpose": "p",
            "size": len(contrasts),
            "undefined": "one",
            "hypotheses": [c.model_dump() for c in contrasts],
        }
    )


def test_a_paired_contrast_is_students_and_its_bound_is_scipys() -> None:
    values = np.random.default_rng(1).normal(0.03, 0.2, 80)
    c = contrast(direction="none")
    row = families.estimated({c.name: c}, lambda h, part: series(values), HOW)[c.name]
    test = stats.ttest_1samp(values, 0)
    interval = test.confidence_interval(0.95)
    assert (row["n"], row["df"]) == (80, 79)
    assert [row["estimate"], row["low"], row["high"]] == pytest.approx([values.mean(), interval.low, interval.high])
    upper = stats.ttest_1samp(values, 0.1, alternative="less").pvalue
    lower = stats.ttest_1samp(values, -0.1, alternative="greater").pvalue
    assert row["p_bound"] == pytest.approx(max(upper, lower))
    assert abs(row["p"] - test.pvalue) < 0.03
    for direction, p in (("not positive", upper), ("not negative", lower)):
        one = contrast(direction=direction)
        row = families.estimated({one.name: one}, lambda h, part: series(values), HOW)[one.name]
        assert row["p_bound"] == pytest.approx(p)


def test_a_row_says_what_its_contrast_declares() -> None:
    made = family(contrast(on="triage", within="x"), contrast(on="triage", within="x", interaction="y"))
    named = Family.model_validate({"purpose": "p", "size": 1, "hypotheses": ["told"]})
    declared = Protocol.model_construct(version=1, families={"f": made, "g": named})
    tests = pd.DataFrame({"family": ["f", "f", "g"], "hypothesis": [*made.hypotheses, "told"], "n": [3, 2, 1]})
    found = families.declared(declared, tests)
    assert list(found) == [*tests, *families.PARTS]
    assert found.loc[0, [*families.PARTS]].tolist() == ["a", "b", "triage", "x", "accuracy"]
    assert found["part"].tolist()[:2] == ["x", "x - y"] and found.loc[2, [*families.PARTS]].isna().all()


def test_an_interaction_is_welchs_and_permutes_within_sets() -> None:
    rng = np.random.default_rng(2)
    one, other = rng.normal(0.1, 0.3, 40), rng.normal(-0.05, 0.2, 25)
    row = families.between(series(one), series(other), HOW)
    test = stats.ttest_ind(one, other, equal_var=False)
    interval = test.confidence_interval(0.95)
    assert [row["estimate"], row["low"], row["high"]] == pytest.approx(
        [one.mean() - other.mean(), interval.low, interval.high]
    )
    assert row["df"] == pytest.approx(test.df) and abs(row["p"] - test.pvalue) < 0.02
    # All of one part lies in the first set, all of the other in the second: no permutation changes anything.
    apart = families.between(series(one, ["x"] * 40), series(other, ["y"] * 25), HOW)
    assert apart["estimate"] == row["estimate"] and apart["p"] == 1.0


def test_an_interaction_under_the_null_is_rejected_as_often_as_declared() -> None:
    how = Settings(0.05, 0.95, "holm", 199, 1)
    wrong = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        wrong += families.between(series(rng.normal(0, 1, 30)), series(rng.normal(0, 3, 20)), how)["p"] <= 0.05
    # Binomial with 200 trials at .05: more than 20 have probability .001.
    assert 2 <= wrong <= 20


def test_too_few_items_are_undefined() -> None:
    c = contrast()
    row = families.estimated({c.name: c}, lambda h, part: series([0.1]), HOW)[c.name]
    assert row["n"] == 1 and isnan(row["estimate"]) and isnan(row["p_bound"])
    # What was not asked has no row, until its family is corrected.
    assert families.estimated({c.name: c}, lambda h, part: series([]), HOW) == {}
    for values in ([], [0.1]):
        assert isnan(families.between(series([0.1, 0.2]), series(values), HOW)["estimate"])


def test_a_family_keeps_its_size_and_is_corrected_twice() -> None:
    declared = family(contrast(), contrast(first="c", direction="none"), contrast(first="d"))
    names = list(declared.hypotheses)
    rows = {
        names[0]: {"n": 100, "estimate": 0.2, "se": 0.02, "low": 0.1, "high": 0.3, "p": 0.02, "p_bound": 1.0},
        names[1]: {"n": 100, "estimate": 0.0, "se": 0.02, "low": 0.0, "high": 0.1, "p": 0.9, "p_bound": 0.01},
    }
    table = families.corrected("f", declared, rows, HOW).set_index("hypothesis")
    assert table["p_adjusted"].tolist() == pytest.approx([0.06, 1.0, 1.0])
    assert table["p_bound_adjusted"].tolist() == pytest.approx([1.0, 0.03, 1.0])
    assert table["bounded"].tolist() == [False, True, False] and not table["rejected"].any()
    assert table["n"].tolist() == [100, 100, 0]


def test_a_share_needs_as_many_units_as_its_exact_test() -> None:
    row = families.share(7, 16, null=0.5, how=HOW, direction="positive", smallest_effect=0.3)
    found = families.able({**row, "df": float("nan")}, 3, HOW)

    def power(n: int, true: float = 0.8) -> float:
        rejected = [k for k in range(n + 1) if stats.binomtest(k, n, 0.5).pvalue <= 0.05 / 3]
        return float(stats.binom.pmf(rejected, n, true).sum())

    needed = int(found["n_needed"])
    assert found["power"] == pytest.approx(power(16)) and found["power"] < 0.4
    assert power(needed) >= 0.8 > max(power(n) for n in range(2, needed))
    assert power(16, 0.5 + found["detectable"]) >= 0.8 > power(16, 0.499 + found["detectable"])


def test_more_units_make_a_correlations_bound_what_it_is_with_so_many() -> None:
    r, margin = 0.1, 0.3
    bound = {n: stats.norm.sf((np.arctanh(margin) - np.arctanh(r)) * (n - 3) ** 0.5) for n in (12, 200)}
    row = pd.DataFrame({"n": [12, 0], "se": np.nan, "p": [0.7, np.nan], "p_bound": [bound[12], np.nan]})
    more = families.more_units(row, 200)
    assert more["n"].tolist() == [200, 0] and more["p_bound"].iloc[0] == pytest.approx(bound[200])
    assert more["p"].iloc[0] < 0.7 and more.iloc[1][["p", "p_bound"]].isna().all()


def test_power_and_needed_items_are_those_of_the_t_test_at_the_familys_level() -> None:
    row = {"n": 100, "se": 0.03, "df": 99, "smallest_effect": 0.1, "direction": "either"}
    found = families.able(row, 4, HOW)
    assert found["power"] == pytest.approx(power_mean(0.1, 0.03, 99, alpha=0.05 / 4))
    assert power_mean(found["detectable"], 0.03, 99, alpha=0.05 / 4) == pytest.approx(0.8)
    se = 0.3 / sqrt(found["n_needed"])
    assert power_mean(0.1, se, found["n_needed"] - 1, alpha=0.05 / 4) == pytest.approx(0.8, abs=0.02)
    # With so many items and no effect, both one-sided tests pass in four of five samples, one alone as well.
    rng = np.random.default_rng(1)
    for direction in ("none", "not positive"):
        needed = int(families.able({**row, "direction": direction}, 1, HOW)["n_needed"])
        draws = rng.normal(0, 0.3, (4000, needed))
        means, ses = draws.mean(axis=1), draws.std(axis=1, ddof=1) / sqrt(needed)
        p = [
            families.bound_p(m, s, needed - 1, margin=0.1, direction=direction)
            for m, s in zip(means.tolist(), ses.tolist())
        ]
        assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.8, abs=0.03), direction


def test_counts_are_exact_mcnemar() -> None:
    row = families.of_counts(2, 9, 60, contrast=contrast(direction="none"), how=HOW)
    assert row["p"] == pytest.approx(stats.binomtest(2, 11).pvalue)
    assert row["estimate"] == pytest.approx(-7 / 60) and row["low"] < -7 / 60 < row["high"]
    same = families.of_counts(0, 0, 60, contrast=contrast(direction="not positive", smallest_effect=0.05), how=HOW)
    # No pair differs: Tango's score at the bound is -sqrt(n d / (1 - d)), by hand.
    assert same["p"] == 1.0 and same["p_bound"] == pytest.approx(stats.norm.sf(sqrt(60 * 0.05 / 0.95)))
    assert same["se"] == pytest.approx(sqrt(0.05 * 0.95 / 60)), "something was sampled, so n can be computed"
    assert families.able(same | {"smallest_effect": 0.05, "direction": "not positive"}, 6, HOW)["n_needed"] > 60
    assert families.of_counts(0, 0, 0, contrast=contrast(), how=HOW)["n"] == 0


# --- Gates ---


def test_a_gate_holds_at_its_thresholds_and_fails_without_a_number() -> None:
    thresholds = {"min_option_mass": 0.5, "max_position_dominance": 0.3}
    table = gates.declared(thresholds, {"option_mass": 0.5, "position_dominance": nan})
    assert table[["check", "rule", "threshold", "passes"]].to_numpy().tolist() == [
        ["option mass", ">=", 0.5, True],
        ["position dominance", "<=", 0.3, False],
    ]
    for mass, dominance, passes in ((0.49, 0.3, [False, True]), (nan, 0.31, [False, False])):
        found = gates.declared(thresholds, {"option_mass": mass, "position_dominance": dominance})
        assert found["passes"].tolist() == passes
    both = gates.declared({"min_yes_rate": 0.3, "max_yes_rate": 0.7}, {"yes_rate": 0.2})
    assert both["passes"].tolist() == [False, True]
    assert gates.failures(table) == "picks by place"
    assert gates.failures(table[:1]) == ""
    many = pd.DataFrame({"check": ["option mass", "order r", "order shift", "auc"], "passes": False})
    assert gates.failures(many) == "answers outside options, order changes answers and more"
    # Two checks of one thing are one thing that is wrong.
    assert gates.failures(many[1:3]) == "order changes answers"


def test_every_check_of_a_protocol_has_words_for_a_reason() -> None:
    project = Project(Path(__file__).parents[2])
    measures = [m for name in project.names() for m in load(project.protocol(name)).measures.values()]
    checks = {key.partition("_")[2].replace("_", " ") for measure in measures for key in measure.gate}
    assert checks and checks == {*gates.FAILED}


@pytest.mark.parametrize("gate", [{"option_mass": 0.5}, {"min_mass": 0.5}])
def test_a_threshold_that_nothing_supplies_is_refused(gate: dict[str, float]) -> None:
    with pytest.raises(ProtocolError, match="must be min_ or max_ before one of option_mass"):
        gates.declared(gate, {"option_mass": 0.5})


def test_accuracy_above_chance_and_repeatability() -> None:
    scored = pd.DataFrame({"score": [0.5, 0.7, 0.6, 0.4], "n_options": 4})
    low = stats.t.interval(0.95, 3, loc=0.55, scale=stats.sem(scored["score"]))[0] - 0.25
    assert gates.above_chance(scored, 0.95) == pytest.approx(low)
    assert isnan(gates.above_chance(scored[:1], 0.95))
    cells = pd.DataFrame(
        [("a", w, f"q{k}", k * s) for w, s in ((1, 1.0), (2, 2.0)) for k in range(4)]
        + [("b", w, f"q{k}", k * s) for w, s in ((1, 1.0), (2, -1.0)) for k in range(4)]
        + [("c", 1, f"q{k}", 1.0) for k in range(4)],
        columns=["persona", "wording", "item", "score"],
    )
    assert gates.repeatability(cells, "persona", "wording") == pytest.approx(-1)
    assert gates.repeatability(cells[cells["persona"] == "a"], "persona", "wording") == pytest.approx(1)
    assert isnan(gates.repeatability(cells[cells["persona"] == "c"], "persona", "wording"))


# --- Claims ---


def protocol(**claim: Any) -> Protocol:
    made = family(contrast(direction="none"), contrast(first="c", direction="none"))
    given = {"statement": "s", "source": "s", "published": "p", "family": "f", "hypothesis": made.hypotheses[0]}
    decided = Claim.model_validate({**given, "direction": "none", "smallest_effect": 0.1, **claim})
    return Protocol.model_construct(version=1, families={"f": made}, claims={"claim": decided})


def made_up(declared: Protocol, *given: dict[str, Any]) -> pd.DataFrame:
    base = {"n": 50, "estimate": 0.01, "se": 0.05, "df": 49, "low": -0.1, "high": 0.1, "p": 0.5, "p_bound": 0.5}
    rows = {h: {**base, **row} for h, row in zip(declared.families["f"].hypotheses, given)}
    return families.corrected("f", declared.families["f"], rows, HOW).assign(gate="")


def judged(first: dict[str, Any], **how: Any) -> pd.Series:
    declared = protocol()
    # The family's own gate, and not one of each row.
    tests = made_up(declared, first, {}).drop(columns="gate")
    found = families.evidence(tests, **{"failed": {"f": ""}, "stuck": {}, **how})
    return verdicts.table(declared, found, layer="corrected").iloc[0]


NONE = {"n": 0, "estimate": nan, "se": nan, "p": nan, "p_bound": nan}


def test_a_claim_takes_the_verdict_of_its_hypothesis() -> None:
    row = judged({"p_bound": 0.001})
    assert (row["verdict"], row["estimate"], row["p_equivalence"]) == (verdicts.REPRODUCED, 0.01, 0.002)
    assert judged({"estimate": 0.5, "p": 0.001})["verdict"] == verdicts.CONTRADICTED


def test_an_inconclusive_claim_says_how_many_items_would_decide_it() -> None:
    declared = protocol()
    needed = made_up(declared, {}, {})["n_needed"].iloc[0]
    row = judged({})
    assert row["verdict"] == verdicts.INCONCLUSIVE and needed > 50
    assert row["would_decide"] == f"{needed:,.0f} items"


def test_with_more_items_than_planned_the_effect_as_estimated_says_how_many_would_decide() -> None:
    given = {"se": 0.029, "estimate": 0.06}
    tests = made_up(protocol(), given, {}).iloc[0]
    assert tests["n_needed"] < tests["n"] == 50
    # The first step of a family of two: 80 % power at alpha .025, by the normal distribution.
    reach = stats.norm.isf(0.0125) + stats.norm.isf(0.2)
    n = int(judged(given)["would_decide"].removesuffix(" items"))
    assert n == pytest.approx((reach * 0.029 * sqrt(50) / 0.06) ** 2, rel=0.06)


def test_a_failed_gate_and_a_contrast_that_no_set_is_left_for_are_uninformative() -> None:
    assert judged({"p_bound": 0.001}, failed={"f": "picks by place"})["why"] == "picks by place"
    none = judged(NONE)
    assert none["verdict"] == verdicts.UNINFORMATIVE and "passed the gate" in none["why"]
    assert judged(NONE, failed={})["verdict"] == verdicts.NOT_TESTABLE


def test_not_steerable_is_said_beside_an_absent_effect_only() -> None:
    assert judged({"p_bound": 0.001}, stuck={"f": True})["steerable"] == "no"
    assert judged({"estimate": 0.5, "p": 0.001}, stuck={"f": True})["steerable"] == ""
    assert judged({"p_bound": 0.001}, stuck={"f": False})["steerable"] == ""
