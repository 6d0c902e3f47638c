"""The study of questionnaires: planted and absent effects, reference responders, components, rules of verdicts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pingouin as pg
import pytest
from scipy.stats import norm
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.multitest import multipletests

from measurement import (
    audits,
    checks,
    design,
    facts,
    figures,
    further,
    judging,
    live,
    psychometrics,
    recordings,
    released,
)
from persona_studies.analyse import conclusions, families, verdicts
from persona_studies.design.protocol import Claim
from persona_studies.errors import SourceUnavailable
from tests.conftest import at_hand
from tests.kit.simulated_measurement import DEFAULTS, PROJECT, PROTOCOL, answers

PARAMETERS = design.Parameters.check(DEFAULTS | {"permutations": 1000})
HOW = PARAMETERS.settings
FACTS = {name: facts.committed(PROJECT, name) for name in facts.FACTS}
PEOPLE = design.people(PROJECT, PROTOCOL)
CORE = design.statements(PROJECT).query("form == 'plain'")
KEYS, OF = CORE["key"].to_numpy(int), CORE["domain"].to_numpy(str)


@pytest.fixture(scope="module")
def plan() -> pd.DataFrame:
    return design.plan(PROJECT, PROTOCOL, PARAMETERS)


@pytest.fixture(scope="module")
def public() -> pd.DataFrame:
    return released.tests(PROTOCOL, FACTS, HOW, 200).assign(gate="")


def run(plan: pd.DataFrame, blocks: str = "ABCDEFG", **truth: Any) -> recordings.Recorded:
    """Return the analysis of a simulated model that answered some blocks, as the notebook makes it."""
    mine = plan[plan["measure"].str.partition("_")[0].map(recordings.BLOCKS).isin([*blocks])].reset_index(drop=True)
    return recordings.analyse(PROJECT, PROTOCOL, PEOPLE, answers(mine, **truth), PARAMETERS)


def judge(**several: recordings.Recorded) -> pd.DataFrame:
    """Return the corrected verdicts on claims about recorded models, by claim and model."""
    found = {
        name: judging.evidence(PROTOCOL, one.tests, FACTS, HOW, stuck=one.stuck) for name, one in several.items()
    }
    table = judging.judged(PROTOCOL, {}, found, {name: one.gate for name, one in several.items()})
    return table[table["layer"] == "corrected"].set_index(["claim", "model"])


def verdict(one: recordings.Recorded) -> pd.DataFrame:
    return judge(simulated=one).droplevel("model")


@pytest.fixture(scope="module")
def able(plan: pd.DataFrame) -> recordings.Recorded:
    """A model that holds opinions and takes personas on."""
    return run(plan)


@pytest.fixture(scope="module")
def first(plan: pd.DataFrame) -> recordings.Recorded:
    """A model that takes whatever is listed first."""
    return run(plan, "ABCD", order=6.0)


# --- Planted and absent effects ---------------------------------------------------------------------


def test_a_model_with_opinions_and_personas_passes_and_is_found(able: recordings.Recorded) -> None:
    assert able.gate["passes"].all() and (able.tests["gate"] == "").all()
    # It takes on personas, and follows neither instruction.
    assert able.stuck and able.moves["moved"].abs().max() < 0.5
    judged = verdict(able)["verdict"]
    assert (judged[["MP1", "MP2", "MP3"]] == "reproduced").all()
    assert (judged[["SH1", "GU1", "GU2", "SH2_live", "TR2"]] == "contradicted").all()
    moved = able.tests[able.tests["family"] == "induction"].set_index("hypothesis")["estimate"]
    # Both poles of a paragraph, 1.5 logits each, in the difference of two log-probabilities.
    assert moved.filter(like="statement").mean() == pytest.approx(3.0, abs=0.2)
    matrix = live.convergence(live.trait_methods(able.scores))
    assert (matrix["convergent"] > 0.9).all() and (matrix["ratio"] < 0.5).all()
    tests = recordings.measured(PROTOCOL, {"able": able}).set_index("test")
    assert tests["passes"].all() and tests["measures"].tolist() == [*["statements"] * 5, *["persona"] * 3]
    assert (tests["moved"].dropna() == 5).all() and (tests["specific"].dropna() == 5).all()
    # It follows no instruction, which is said where a claim about instructions finds nothing, and nowhere else.
    assert (verdict(able)["steerable"] == "").all()
    nothing = able.tests.assign(rejected=False)
    for name, said in (("paragraphs move their trait", False), ("order changes ratings", None)):
        evidence = judging.counted(PROTOCOL, nothing, PROTOCOL.design["sets"][name], 0.25, HOW, stuck=True)
        assert evidence is not None and evidence.steerable is said
    halves = live.halves(able.scores, PEOPLE, 0.95).set_index("domain")
    assert len(halves) == 5 and (halves["low"] < halves["pole_r"]).all() and (halves["low"] > 0.3).all()
    assert (halves[["plus_shift", "minus_shift"]] > 1).all().all()
    assert live.turned(able.scores).groupby("test")["turned"].mean().filter(like="rating").max() < 0.3


def test_without_effects_families_are_equivalent_and_nothing_is_found(plan: pd.DataFrame) -> None:
    wrong = 0
    for seed in range(2):
        one = run(plan, seed=seed, shift=0.0, noise=0.2)
        own = one.tests[one.tests["family"] != "negation"]
        wrong += own.groupby("family")["rejected"].any().sum()
        assert verdict(one).loc["MP1", "verdict"] == "contradicted" or wrong
        tests = recordings.measured(PROTOCOL, {"null": one}).set_index("test")
        assert not tests["passes"].filter(like="persona").any()
    # 18 families at 5 %: more than four false rejections have a probability of .002.
    assert wrong <= 4


def test_an_evaluative_shift_is_not_specific(plan: pd.DataFrame) -> None:
    one = run(plan, "DE", shift=1.0, spill=1.5)
    assert not one.tests[one.tests["family"] == "specificity"]["rejected"].any()
    assert verdict(one).loc["MP3", "verdict"] in ("inconclusive", "contradicted")
    answered = live.questionnaire(one.scores)
    assert answered is not None
    assert psychometrics.flag(psychometrics.summary(answered)) == "one factor"
    tests = recordings.measured(PROTOCOL, {"one factor": one}).set_index("test")["measures"]
    assert tests["rating, with personas"] == tests["statement or negation, with personas"] == "desirability"


def test_a_model_that_takes_what_stands_first_fails_the_gate(first: recordings.Recorded) -> None:
    failed = first.gate[~first.gate["passes"]]
    assert {"order shift", "one option"} <= set(failed[failed["measure"] == "rating_digits"]["check"])
    judged = verdict(first)["verdict"]
    assert judged["GU2"] == "reproduced" and judged["MP2"] == "uninformative"
    assert set(judging.recorded_people(first.scores, "simulated")["flag"]) == {"position"}
    order = first.tests[first.tests["family"] == "order"].set_index("hypothesis")
    assert order["rejected"].all() and (order["estimate"] > 0).all()
    tests = recordings.measured(PROTOCOL, {"first": first}).set_index("test")["measures"]
    assert tests.head(6).str.startswith("position").all() and (tests.tail(2) == "not recorded yet").all()
    turned = live.turned(first.scores).groupby("test")["turned"]
    assert (turned.mean() > 0.8).all() and turned.size().tolist() == [180] * 3
    # Told to choose the first option it does so, and under the fillers as well: that is no steering.
    moves = first.moves.set_index("instruction").loc["choose the first option"]
    assert moves["told"] > 3 and abs(moves["moved"]) < 0.2 and first.stuck


def test_effects_of_order_that_cancel_over_wordings_fail_the_gate(plan: pd.DataFrame) -> None:
    one = run(plan, "C", order={"accurate": 1.0, "agree": -3.0})
    mine = one.gate[one.gate["measure"] == "rating_upper"].set_index("check")
    cells = one.scores.rating[one.scores.rating["measure"] == "rating_upper"]
    sides = cells.groupby("scale")["rating"].mean()
    assert abs(sides["rising"] - sides["falling"]) < 0.25 and not mine.loc["order shift", "passes"]
    tests = recordings.measured(PROTOCOL, {"one": one}).set_index("test")["measures"]
    assert tests["rating, A to E"] == "position"
    shown = live.orders(one.scores, 0.95).set_index(["labels", "wording", "condition"])["shift"]
    assert shown["upper", "accurate", "none"] < -0.25 and shown["upper", "agree", "none"] > 0.25
    assert len(shown) == 18 and abs(shown["upper", "like", "none"]) < 0.25


def test_a_consistent_liar_fails_the_facts_and_nothing_about_negation_counts(plan: pd.DataFrame) -> None:
    one = run(plan, "ABE", facts=-3.0)
    facts_ = one.gate[one.gate["measure"].str.startswith("facts") & (one.gate["check"] == "auc")]
    assert not facts_["passes"].any()
    row = verdict(one).loc["SH2_live"]
    assert row["verdict"] == "uninformative" and "facts" in row["gate"]
    said = one.tests[one.tests["hypothesis"].str.endswith(", statement") & (one.tests["family"] == "induction")]
    assert len(said) == 5 and (said["gate"] == "").all()
    assert (recordings.measured(PROTOCOL, {"liar": one}).head(2)["measures"] == "guessing, no negation").all()


def test_facts_that_are_not_known_when_negated_leave_negation_open_and_order_not(plan: pd.DataFrame) -> None:
    one = run(plan, "AB", facts=6.0, denied=0.0)
    auc = one.gate[one.gate["measure"] == "facts_yes_no"].set_index("check")
    # Together with plain ones, negations that are guessed still pass.
    assert auc.loc["auc", "value"] >= 0.8 and auc.loc["auc plain", "value"] > 0.95
    assert not auc.loc["auc negated", "passes"]
    judged = verdict(one)
    assert (
        judged.loc["SH2_live", "verdict"] == "uninformative"
        and judged.loc["SH2_live", "gate"] == "confuses negated facts"
    )
    assert judged.loc["SH1", "verdict"] == "contradicted"
    tests = recordings.measured(PROTOCOL, {"one": one}).set_index("test")["measures"]
    assert tests["yes or no"] == "no negation"


def test_agreement_with_everything_is_low_consistency(plan: pd.DataFrame) -> None:
    one = run(plan, "AB", agreement=3.0, negation=0.0)
    row = verdict(one).loc["SH2_live"]
    assert row["estimate"] > 0.5 or "undefined" in row["why"]
    assert not one.gate[(one.gate["measure"] == "binary_yes_no") & (one.gate["check"] == "yes rate")][
        "passes"
    ].all()
    table = live.consistency(one.scores, 0.95)
    assert table.groupby("condition").size().to_dict() == dict.fromkeys([live.EVERY, *PROTOCOL.design["binary"]], 6)
    assert (table[table["kind"] == "order"]["agreement"] > 0.9).all()
    assert (table[table["kind"] == "word"]["kappa"].fillna(0) < 0.4).all()
    assert (recordings.measured(PROTOCOL, {"yes": one}).head(2)["measures"] == "agreement, one answer").all()


def test_a_recording_in_part_says_what_is_missing(plan: pd.DataFrame, public: pd.DataFrame) -> None:
    part = plan[plan["measure"].isin(["facts_yes_no", "rating_digits"])].reset_index(drop=True)
    one = run(part)
    row = verdict(one).loc["MP1"]
    assert row["verdict"] == "not testable here"
    assert row["why"] == "not recorded yet: induced_rating, scenario, statement"
    assert one.tests.loc[one.tests["family"] == "order_by_domain", "gate"].eq("").sum() == 5
    assert live.trait_methods(one.scores).empty and one.moves.empty
    nobody = run(plan, "")
    assert nobody.gate.empty and (nobody.tests["gate"] != "").all()
    none = judging.judged(PROTOCOL, judging.evidence(PROTOCOL, public, FACTS, HOW), {}, {}).set_index("claim")
    assert none.loc["SH2", "verdict"].tolist() == ["reproduced", "reproduced"]
    assert none.loc["MP1", "why"] == "no model is recorded"


def test_blocks_say_what_each_model_answered(plan: pd.DataFrame) -> None:
    kept = ("facts_yes_no", "frame")
    lacking = [name for name in plan["measure"].unique() if name not in kept]
    table = recordings.blocks(plan, {"whole": [], "part": lacking}).set_index("block")
    assert table.index.tolist() == [*"ABCDEFG"] and (table["whole"] == "complete").all()
    assert table["part"].to_dict() == {
        "A": "1 of 2 measures",
        **dict.fromkeys("BCDEF", "not recorded yet"),
        "G": "complete",
    }


# --- Several models -----------------------------------------------------------------------------------


def test_the_first_model_decides_unless_another_moves_the_other_way(
    plan: pd.DataFrame, able: recordings.Recorded, first: recordings.Recorded
) -> None:
    turned = run(plan, "D", shift=-1.0)
    assert verdict(turned).loc["MP1", "verdict"] == "contradicted"
    judged = judge(able=able, first=first, turned=turned)["verdict"]
    assert judged["MP1", "able"] == "heterogeneous" and judged["MP1", "turned"] == "contradicted"
    # A model behind a failed gate turns nothing; equivalence is no significant effect in the other direction.
    assert judged["MP1", "first"] == "uninformative"
    assert judged["GU2", "able"] == "contradicted" and judged["GU2", "first"] == "reproduced"
    assert ("TR1", "first") not in judged.index and ("TR1", "able") in judged.index


def test_models_whose_gates_passed_are_combined(able: recordings.Recorded, first: recordings.Recorded) -> None:
    wanted = [("induction", "high - low | openness, rating")]
    how = {"one": able.tests, "same": able.tests, "first": first.tests}
    over = conclusions.over_models(how, wanted, HOW).set_index("model")
    assert over.loc["random effects", "n"] == 2 and "order" in over.loc["first", "gate"]
    assert over.loc["random effects", "estimate"] == pytest.approx(over.loc["one", "estimate"])
    text = recordings.finding(
        PROTOCOL,
        recordings.measured(PROTOCOL, {"able": able, "first": first}),
        pd.DataFrame({"claim": ["SH2"], "layer": ["corrected"], "estimate": [-0.3], "low": [-0.4], "high": [-0.2]}),
        judging.released_people(FACTS["summaries"]),
        released.flan_table(FACTS, 0.95),
    )
    assert text.startswith(
        "**In able, 8 of 8 recorded tests pass their checks**. Paragraphs move 5 (rating), 5 (statement or "
        "negation), 5 (scenario) of five traits. **In first, none of 6 recorded tests passes its checks**; they "
        "show a label or its place (6), one answer, whatever is asked (4)"
    )
    assert "Paragraphs move 5 (rating) of five traits, checks passed or not. Released" in text
    assert "kappa 0.10 [0.00, 0.20]" in text


def test_margins_of_equivalence_are_those_of_the_parameters(able: recordings.Recorded) -> None:
    wide = PARAMETERS.model_copy(update={"margin_rating": 0.5, "margin_probability": 0.2})
    for name, margin in (("order", 0.2), ("wording", 0.5), ("controls", 0.5)):
        after = design.judged_by(PROTOCOL, wide).families[name].contrasts
        for hypothesis, contrast in after.items():
            declared = PROTOCOL.families[name].contrasts[hypothesis].smallest_effect
            assert contrast.smallest_effect == (declared if contrast.outcome == "statement" else margin)
    assert design.judged_by(PROTOCOL, wide).families["induction"] == PROTOCOL.families["induction"]
    assert design.judged_by(PROTOCOL, PARAMETERS) == PROTOCOL


# --- Opt-in blocks ----------------------------------------------------------------------------------


def test_questions_of_other_cultures_are_scored_by_their_grade() -> None:
    at_hand(PROJECT, "measurement-culture-usa")
    chosen = PARAMETERS.model_copy(update={"culture_items": 20, "blocks": ("A",)})
    cells = design.plan(PROJECT, PROTOCOL, chosen).query("measure == 'culture'").reset_index(drop=True)
    assert len(cells) == 20 * 5 and cells["item"].nunique() == 20
    bank = further.questions(PROJECT, 20)
    graded, place = (np.where(np.arange(5) == k, 0.0, -30.0) for k in (1, 0))
    # One model always takes the second highest grade, wherever it stands; the other what stands first.
    by_grade = [np.roll(graded, -k) for k in cells["order"]]
    table = further.culture(cells.assign(logprob=by_grade, option_mass=0.9), bank)
    assert table["questions"].sum() == 20 and len(table) == 5
    assert table["mean"].to_numpy() == pytest.approx(4.0) and (table["same"] == 1).all()
    table = further.culture(cells.assign(logprob=[place] * len(cells), option_mass=0.9), bank)
    assert table["mean"].to_numpy() == pytest.approx(3.0) and (table["same"] == 0).all()


def test_people_are_told_their_answers_and_scored_as_they_are_keyed() -> None:
    at_hand(PROJECT, "measurement-papi-test-set", "measurement-papi-mpi-300-split", "ipip-neo-300")
    chosen = PARAMETERS.model_copy(update={"people": 3, "blocks": ("A",)})
    cells = design.plan(PROJECT, PROTOCOL, chosen).query("measure == 'person'").reset_index(drop=True)
    assert len(cells) == 3 * 180 * 2 and cells["condition"].nunique() == 3
    told = further.People(PROJECT, design.keys(PROJECT), 3)
    assert not {*told.given} & {*told.tested}
    assert (told.conditions()["system"].str.count(r": [1-5]\.") >= 115).all()
    who = cells["condition"].str[-3:].astype(int) - 1
    true = told.raw[who, cells["item"].str[4:].astype(int) - 1]
    shown = np.where(cells["template"].str.endswith("falling"), 6 - true, true)
    exact = [np.where(np.arange(1, 6) == k, 0.0, -30.0) for k in np.nan_to_num(shown, nan=3)]
    scored = told.scores(cells.assign(logprob=exact)).set_index("yardstick")["mean"]
    assert scored.iloc[0] == pytest.approx(0, abs=1e-6) and scored["always neutral"] > 2
    assert scored["model - neutral"] == pytest.approx(-scored["always neutral"])


# --- Reference responders ---------------------------------------------------------------------------


def test_every_reference_responder_is_flagged_and_the_ideal_one_and_people_are_not() -> None:
    table = judging.responders(PROTOCOL, KEYS, OF, seed=1).set_index("who")
    assert table["flag"].to_dict() == {
        "simulated: ideal": "none",
        "simulated: uniform": "no signal",
        "simulated: first": "position",
        "simulated: yes": "acquiescence",
        "simulated: desirable": "one factor",
    }
    ideal, yes = table.loc["simulated: ideal"], table.loc["simulated: yes"]
    assert ideal["median_pole_r"] == pytest.approx(0.90, abs=0.03) and ideal["alpha"] == pytest.approx(
        0.94, abs=0.02
    )
    assert ideal["alpha_unkeyed"] < 0 and ideal["heterotrait"] < 0.1
    assert (
        yes["median_pole_r"] == pytest.approx(-0.90, abs=0.07) and yes["alpha"] < 0 and yes["alpha_unkeyed"] > 0.9
    )
    desirable = table.loc["simulated: desirable"]
    assert desirable["heterotrait"] > 0.9 and desirable["median_pole_r"] > 0.8
    passed = judging.released_people(FACTS["summaries"]).set_index("who")["flag"]
    assert (passed[passed.index.str.startswith("people")] == "none").all() and len(passed) == 6
    assert passed["LLMPersonality: settings"] != "none"


@pytest.mark.parametrize("name", ["ideal", "uniform", "first", "yes", "desirable"])
def test_a_responder_goes_the_way_of_a_recorded_model(name: str, plan: pd.DataFrame) -> None:
    who = PEOPLE["condition"].tolist()
    made = psychometrics.responder(name, KEYS, OF, people=len(who), seed=2)
    cells = plan[plan["measure"] == "induced_rating"].reset_index(drop=True)
    items = CORE["item"].tolist()
    at = [(who.index(c), items.index(i)) for c, i in cells[["condition", "item"]].itertuples(index=False)]
    falling = cells["template"].str.endswith("falling").to_numpy()
    assert made.falling is not None
    said = np.where(falling, 6 - made.falling[tuple(np.array(at).T)], made.rising[tuple(np.array(at).T)])
    logprob = [*np.where(said[:, None] == np.arange(1, 6), 0.0, -30.0)]
    scores = live.scores(PROJECT, cells.assign(logprob=logprob, option_mass=0.99))
    [row] = judging.recorded_people(scores, name).to_dict("records")
    direct = psychometrics.summary(made)
    assert row["flag"] == psychometrics.flag(direct) and (row["flag"] == "none") == (name == "ideal")
    for number in ("median_pole_r", "alpha", "raw_mean", "heterotrait", "order_shift"):
        assert row[number] == pytest.approx(direct[number], nan_ok=True)
    # What the gate is for, it refuses; one factor has no check there.
    refused = not checks.gated(PROTOCOL, scores)["passes"].all()
    assert refused == (name in ("uniform", "first", "yes"))


@pytest.mark.parametrize("name", ["uniform", "first", "yes", "desirable"])
def test_a_responder_is_flagged_under_any_seed_and_size(name: str) -> None:
    for seed, people in ((2, 40), (3, 40), (4, 300)):
        made = psychometrics.responder(name, KEYS, OF, people=people, seed=seed)
        assert psychometrics.flag(psychometrics.summary(made)) != "none"


def test_only_the_correlation_of_domains_catches_the_desirable_responder() -> None:
    row = psychometrics.summary(psychometrics.responder("desirable", KEYS, OF, people=300, seed=5))
    assert psychometrics.flag(row | {"heterotrait": 0.2}) == "none"


# --- Coefficients -----------------------------------------------------------------------------------


def test_variance_components_are_those_of_the_design() -> None:
    rng = np.random.default_rng(1)
    item, scale = rng.normal(0, 2, 400), np.array([-1.0, 1.0])
    cube = item[:, None, None] + scale[None, :, None] + rng.normal(0, 0.5, (400, 2, 3))
    index = pd.MultiIndex.from_product([range(400), range(2), range(3)], names=["item", "scale", "wording"])
    table = pd.DataFrame({"value": cube.ravel()}, index=index).reset_index()
    found = psychometrics.components(table, "value", ["item", "scale", "wording"]).set_index("component")[
        "variance"
    ]
    assert found["item"] == pytest.approx(item.var(ddof=1), rel=0.02) and found["scale"] == pytest.approx(
        2.0, rel=0.1
    )
    assert found["item x scale x wording"] == pytest.approx(0.25, rel=0.1) and found["wording"] < 0.01
    with pytest.raises(ValueError, match="do not cross"):
        psychometrics.components(table.head(11), "value", ["item", "scale", "wording"])


def test_the_bootstrap_of_components_covers_the_estimate() -> None:
    rng = np.random.default_rng(2)
    rows = pd.MultiIndex.from_product([["a", "b"], range(12), range(2)], names=["domain", "item", "scale"])
    own = np.repeat(rng.normal(0, 1, 24), 2)
    table = pd.DataFrame({"value": own + rng.normal(0, 1, 48)}, index=rows).reset_index()
    table["item"] = table["domain"] + table["item"].astype(str)
    found = psychometrics.generalisability(
        table, "value", ["item", "scale"], strata="domain", replicates=150, seed=1, confidence=0.95
    )
    kept = found[found["component"] != "scale"]
    assert ((kept["low"] <= kept["variance"]) & (kept["variance"] <= kept["high"])).all()


def test_phi_rises_with_items_to_what_the_components_say() -> None:
    made = psychometrics.responder("ideal", KEYS, OF, people=300, seed=1)
    curve = psychometrics.dependability(made.keyed[:, OF == "openness"], [1, 12, 1000])["phi"]
    assert curve.is_monotonic_increasing and curve[1] == pytest.approx(0.94, abs=0.02) and curve[2] > 0.99


def test_kappa_is_statsmodels_and_undefined_where_one_answer_takes_all() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 2, 50), rng.integers(0, 2, 50)
    expected = cohens_kappa(pd.crosstab(a, b).to_numpy(), return_results=False)
    assert float(released.kappas(a, b)) == pytest.approx(float(expected))
    assert np.isnan(released.kappas(np.ones(9, int), np.ones(9, int)))


def test_icc_is_pingouins() -> None:
    tuned = FACTS["illusion_scores"].query("tuned")
    setting = tuned[["prompt", "temperature", "run"]].astype(str).agg("-".join, axis=1)
    table = pg.intraclass_corr(
        tuned.assign(setting=setting), targets="model", raters="setting", ratings="agreeableness"
    )
    absolute = table[table["Type"].isin(["ICC2", "ICC(A,1)"])]["ICC"].iloc[0]
    assert judging.icc(FACTS["illusion_scores"], "agreeableness") == pytest.approx(absolute, abs=1e-6)


# --- Released answers -------------------------------------------------------------------------------


def of(public: pd.DataFrame, family: str) -> pd.DataFrame:
    return public[public["family"] == family].set_index("hypothesis")


def test_flan_is_consistent_over_order_and_not_over_negation() -> None:
    table = released.flan_table(FACTS, 0.95).assign(
        same=lambda t: (t["agreement"] * t["items"]).round().astype(int)
    )
    wide = table.pivot(index="who", columns="kind", values="same").loc[[f"flan-t5-{m}" for m in released.FLAN]]
    assert wide["order"].tolist() == [680, 675, 658, 667]
    assert wide["word"].tolist() == [44, 315, 485, 479] and wide["meaning"].tolist() == [46, 231, 419, 421]
    yes = table[table["kind"] == "order"]["yes"].round(3).tolist()
    assert yes == [0.088, 0.880, 0.762, 0.733]
    kappa = table[table["kind"] == "word"]["kappa"].round(2).tolist()
    assert kappa == [-0.06, -0.04, 0.22, 0.33]


def test_the_declared_numbers_of_the_other_releases(public: pd.DataFrame) -> None:
    choices = FACTS["mbti_choices"]
    assert len(choices) == 1080 and choices.groupby("model")["unparsed"].sum().tolist() == [4, 7, 3]
    counts = judging.places(choices).set_index(["model", "place"])["answers"]
    assert counts["InstructGPT"].sum() == 356 and counts["InstructGPT"][[1, 2]].sum() == 33
    papi = FACTS["papi_yardsticks"].set_index(["yardstick", "coding"])["mean"].round(2)
    assert papi["true answers", "as the code does"] == 3.86 and papi["neutral", "stored"] == 3.79
    assert papi["others' item mean", "stored"] == 3.14 and papi["own facet mean, rounded", "stored"] == 2.72
    stability, tied = of(public, "illusion_stability"), of(public, "illusion_dissociation")
    assert (stability["p"] == 2**-5).all() and not stability["rejected"].any() and not tied["rejected"].any()
    assert (tied["p"] < 0.05).sum() == 0
    rows = judging.as_published(public, FACTS, HOW)
    by_row = rows[rows["family"] == "illusion_dissociation"]["p"]
    assert (by_row < 0.05).sum() == 21
    assert FACTS["personallm_types"]["recomputed"].sum() == 3200 and of(public, "personallm")["rejected"].all()
    assert (FACTS["settings_variance"]["recomputed"] == 2500).all()
    shift = FACTS["settings_induction"].groupby(["file", "domain"])[["target", "off"]].mean().groupby("file").mean()
    assert shift.loc["portray"].round(2).tolist() == [2.24, 0.81] and shift.loc["qa"].round(2).tolist() == [
        0.50,
        0.07,
    ]


def test_every_wrong_item_is_named() -> None:
    audit = FACTS["keying_audit"].fillna({"numbers": ""}).set_index(["file", "check"])
    assert audit["wrong"].sum() > 0 and audit.reset_index()["repository"].nunique() == 5
    culture = audit.loc[("datasets/baselines/bfi.csv", "key")]
    assert culture["numbers"] == "9 16 18 21 23 24 28 34 35 37 41 42 43"
    papi = audit.loc[("PAPI/mpi_300.csv", "row is the item's number")]
    assert papi["items"] - papi["wrong"] == 52 and len(papi["numbers"].split()) == papi["wrong"]


def test_keys_read_in_code_are_wrong_as_named() -> None:
    table = pd.read_csv(PROJECT.published / "measurement" / "code_audits.csv").set_index(["repository", "check"])
    # PsyCoT's prompt: S2, S4, S5, S6 and S7 positive; the inventory has 0, 1, 3, 5 and 7.
    wrong = {2, 4, 5, 6, 7} ^ {0, 1, 3, 5, 7}
    row = table.loc[("TaoYang225/PsyCoT", "key of extraversion")]
    assert row["numbers"] == " ".join(f"S{n}" for n in sorted(wrong)) and row["wrong"] == 6 and row["items"] == 8
    reversed_ = {35, 41, 44, 8, 18, 23, 43, 6, 21, 31, 2, 12, 27, 37, 9, 24, 34}
    row = table.loc[("psychology-of-AI/Personality-Illusion", "key")]
    assert {int(row["numbers"])} == audits.BFI_REVERSED ^ reversed_ and (table["commit"].str.len() == 40).all()


def test_effects_of_personas_stand_side_by_side(public: pd.DataFrame) -> None:
    table = released.personallm_effects(FACTS).set_index(["model", "domain"])
    means = of(public, "personallm")["estimate"]
    assert len(table) == 10 and (table["runs"] == 160).all() and (table["pairs"] == 16).all()
    for (model, domain), row in table.iterrows():
        assert row["d_paper"] == pytest.approx(means[f"{model}, {domain}"])
    # Matched types leave out what the other traits do: the two are not the same number.
    assert ((table["d_paper"] - table["d_paired"]).abs() > 0.05).all()


def test_sign_flips_that_cannot_reject_are_known_beforehand() -> None:
    for family, n in (("illusion_stability", 6), ("personallm", 16), ("settings_induction_qa", 8)):
        can = 2.0 ** (1 - n) <= 0.05 / PROTOCOL.families[family].size
        assert can == (family != "illusion_stability")


# --- Rules ------------------------------------------------------------------------------------------


def counted(estimates: list[float], rejected: list[bool], bounded: list[bool], direction: str) -> str:
    tests = set_of(estimates).assign(rejected=rejected, bounded=bounded)
    return verdicts.verdict(SET, decide(tests, direction)).word


SET = Claim(statement="s", source="s", published="p", family="x", hypothesis="h", smallest_effect=0.1, line=0.5)


def set_of(estimates: list[float], n: int = 9, sd: float = 1.5) -> pd.DataFrame:
    """Return the tests of the family about order, each a z test of a mean over n items."""
    size = PROTOCOL.families["order"].size
    assert len(estimates) == size
    z = np.abs(estimates) / (sd / n**0.5)
    edge = (0.1 - np.abs(estimates)) / (sd / n**0.5)
    return pd.DataFrame(
        {"family": "order", "n": n, "hypothesis": [*map(str, range(size))], "estimate": estimates, "gate": ""}
    ).assign(se=sd / n**0.5, p=2 * norm.sf(z), p_bound=norm.sf(edge))


def decide(tests: pd.DataFrame, direction: str) -> verdicts.Evidence:
    evidence = judging.counted(PROTOCOL, tests, {"family": "order", "direction": direction}, 0.1, HOW)
    assert evidence is not None
    return evidence


def test_claims_about_several_tests_are_decided_by_counting() -> None:
    yes, no = [True] * 5, [False] * 5
    up, mixed = [1.0] * 5, [1.0, 1, 1, -1, 1]
    assert counted(up, yes, no, "positive") == "reproduced"
    assert counted([-1] * 5, yes, no, "positive") == "contradicted"
    assert counted(mixed, yes, no, "positive") == "heterogeneous"
    assert counted(up, no, yes, "positive") == "contradicted"
    assert counted(up, no, no, "positive") == "inconclusive"
    assert counted(mixed, yes, no, "either") == "reproduced"
    assert counted([0] * 5, no, yes, "none") == "reproduced"
    assert counted(up, [True, True, True, False, False], no, "none") == "contradicted"
    assert counted(up, [True, False, False, False, False], no, "none") == "inconclusive"


SPREAD = [0.9, 0.5, 0.3, 0.2, 0.05]


@pytest.mark.parametrize(
    ("estimates", "direction"),
    [(SPREAD, "either"), ([0.9, 0.5, -0.3, 0.2, 0.05], "positive"), ([0.05, 0.06, 0.3, 0.02, 0.01], "none")],
)
def test_the_units_that_would_decide_are_those_with_which_counting_decides(
    estimates: list[float], direction: str
) -> None:
    def undecided(n: int) -> bool:
        # By brute force: the same means and spreads from n items, Holm by another library, and the count.
        table = set_of(estimates, n)
        for p, name in (("p", "rejected"), ("p_bound", "bounded")):
            table[name] = multipletests(table[p], 0.05, "holm")[0]
        return verdicts.verdict(SET, decide(table, direction)).word == "inconclusive"

    table = set_of(estimates).assign(rejected=False, bounded=False)
    assert undecided(9)
    needed = decide(table, direction).needed
    assert needed is not None and needed > 10 and not undecided(int(needed)) and undecided(int(needed) - 1)


def test_where_half_the_tests_stay_on_either_side_no_number_decides() -> None:
    # No effect is claimed; two are small, two are not, and one has no estimate.
    table = set_of([0.01, 0.01, 0.9, 0.9, 0.0]).assign(rejected=False, bounded=False)
    table.loc[4, ["estimate", "p", "p_bound"]] = np.nan
    evidence = decide(table, "none")
    assert evidence.needed == np.inf
    assert verdicts.verdict(SET, evidence).would_decide == "no number of items in each test"


def test_units_that_all_point_one_way_need_as_many_as_flips_of_signs_can_tell_apart() -> None:
    # Six of six families of models: p = 1 / 32 each, and 1 / 128 is the first below .05 / 6.
    x = np.linspace(-1.5, -0.5, 6)
    family = PROTOCOL.families["illusion_stability"]

    def tests(n: int) -> pd.DataFrame:
        row = released.of_values(np.resize(x, n), HOW, margin=0.2877, direction="negative")
        made = families.corrected("illusion_stability", family, dict.fromkeys(family.hypotheses, row), HOW)
        return made.assign(gate="")

    declared = PROTOCOL.design["sets"]["tuning lowers spread"]
    found = {n: judging.counted(PROTOCOL, tests(n), declared, 0.25, HOW) for n in (6, 7, 8)}
    assert [each.rejected for each in found.values() if each] == [False, False, True]
    assert found[6] is not None and found[6].needed == 8


def test_as_many_items_with_the_effects_found_do_decide_by_the_declared_test() -> None:
    # Differences of 12 items in each domain; two of five are significant by sign flips, which is not most.
    rng = np.random.default_rng(3)
    shape = rng.normal(size=12)
    shape = (shape - shape.mean()) / shape.std(ddof=1)
    family = PROTOCOL.families["order"]
    means = dict(zip(family.hypotheses, [1.5, 1.4, 0.6, 0.3, 0.1], strict=True))

    def tests(copies: int) -> pd.DataFrame:
        def of(contrast: Any, part: str | None) -> pd.Series:
            x = np.repeat(shape, copies) + means[str(contrast.name)]
            names = np.arange(len(x))
            return pd.Series(x, index=pd.MultiIndex.from_arrays([["all"] * len(x), names, names], names=live.INDEX))

        rows = families.estimated(family.contrasts, of, HOW)
        return families.corrected("order", family, rows, HOW).assign(gate="")

    found = decide(tests(1), "either")
    assert found.estimate == 0.4 and found.needed is not None and 12 < found.needed <= 36
    copies = int(np.ceil(found.needed / 12))
    assert decide(tests(copies), "either").rejected


def test_every_figure_is_drawn_of_a_whole_recording(able: recordings.Recorded, first: recordings.Recorded) -> None:
    made, both = able.scores, {"able": able, "first": first}
    wanted = [("induction", name) for name in PROTOCOL.families["induction"].hypotheses]
    over = conclusions.over_models({name: one.tests for name, one in both.items()}, wanted, HOW)
    tests = recordings.measured(PROTOCOL, both)
    drawn = [
        figures.trait_methods(live.trait_methods(made), "picks by place"),
        figures.scales(made.rating),
        figures.places(judging.places(FACTS["mbti_choices"])),
        figures.main(tests, judging.released_people(FACTS["summaries"])),
        figures.main(tests.head(0), judging.released_people(FACTS["summaries"])),
        figures.consistent(released.flan_table(FACTS, 0.95)),
        figures.induced(PROTOCOL, over, 0.25),
    ]
    assert [len(figure.axes) for figure in drawn] == [2, 3, 3, 2, 2, 2, 3]
    said = {text.get_text() for text in drawn[3].axes[0].texts}
    assert said == {"✓ statements", "✓ persona", "position", "position\none answer", "not recorded yet"}
    # A model that did not answer a block keeps its line, empty.
    assert len({len(axis.get_yticks()) for axis in drawn[6].axes}) == 1
    for figure in drawn:
        figures.plt.close(figure)


@pytest.mark.parametrize("name", facts.FACTS)
def test_a_table_of_facts_is_rederived(name: str) -> None:
    try:
        row = facts.compare(PROJECT, name)
    except SourceUnavailable as absent:
        pytest.skip(str(absent))  # which source, and its address: compared wherever it can be had
    assert row["largest_difference"] == pytest.approx(0, abs=1e-6)
