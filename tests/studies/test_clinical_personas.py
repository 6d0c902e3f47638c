"""The study of clinical personas: its grid, planted effects, none, failed gates, and measures that are missing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from clinical_personas import analysis, design, figures, outcomes, robustness
from persona_studies.analyse import conclusions
from persona_studies.analyse import figures as shared_figures
from persona_studies.analyse.families import Settings
from persona_studies.design import multiple_choice
from persona_studies.errors import ParameterError, SourceError
from tests.kit.simulated_letters import answers, second, tabled

SECOND = second("clinical_personas")
verdicts = SECOND.verdicts
PROJECT = SECOND.project
HOW = Settings(alpha=0.05, confidence=0.95, correction="holm", replicates=1999, seed=1)
DEFAULTS = {
    "models": ["simulated"],
    "live_hours": 0.0,
    "cases": ["triage", "esi"],
    "cost_ratio": 10.0,
    "bins": [5, 10],
    "alpha": 0.05,
    "correction": "holm",
    "confidence": 0.95,
    "replicates": 1999,
    "seed": 1,
}
PARAMETERS = design.Parameters.check(DEFAULTS)
NAMED = ["Emergency care now.", "Within one day.", "Within one week.", "Self-care."]


def run(
    *,
    care: dict[str, float] | None = None,
    moved: dict[str, float] | None = None,
    sets: dict[str, float] | None = None,
    sharp: float = 2.0,
    seed: int = 1,
    model: str = "",
    only: tuple[str, ...] = ("letter", "medical", "text"),
) -> analysis.Analysis:
    """Analyse answers of a model that follows urgency.

    Args:
        care: Who -> what is added to the log-odds of the right option in critical, and subtracted in primary care.
        moved: Who -> places by which all answers move towards the less urgent.
        sets: Data set -> what that is multiplied by among its cases.
        sharp: How closely answers follow the true place.
        seed: Of noise that belongs to a case, and to a case and condition.
        model: Its name.
        only: Measures that are recorded.
    """
    rng = np.random.default_rng(seed)
    own = dict(zip(SECOND.asked["item"], rng.normal(0, 0.5, len(SECOND.asked))))
    who = dict(zip(SECOND.people["condition"], SECOND.people["who"]))
    noise = {(c, i): rng.normal(0, 0.1) for c in who for i in own}

    def probability(cells: pd.DataFrame) -> np.ndarray:
        shares = np.zeros((len(cells), 5))
        columns = ["condition", "item", "gold", "n_options", "care"]
        for row, (condition, item, gold, n, setting) in enumerate(
            cells[columns].itertuples(index=False, name=None)
        ):
            name = who[condition]
            centre = gold + own[item] + noise[condition, item] + (moved or {}).get(name, 0.0)
            logit = -sharp * (np.arange(n) - centre) ** 2 / 2
            sign = {"critical": 1.0, "primary": -1.0}.get(setting, 0.0)
            sign *= (sets or {}).get(item.partition("/")[0], 1.0)
            logit[gold] += sign * (care or {}).get(name, 0.0)
            shares[row, :n] = np.exp(logit - logit.max()) / np.exp(logit - logit.max()).sum()
        return np.clip(shares, 1e-6, None)

    def replies(cells: pd.DataFrame) -> list[str]:
        steps = cells["condition"].map(who).map(moved or {}).fillna(0).round()
        return [NAMED[int(place)] for place in (cells["gold"] + steps).clip(0, 3)]

    recorded = answers(SECOND.plan, SECOND.asked, probability, replies=replies)
    recorded = recorded[recorded["measure"].isin(only)].reset_index(drop=True)
    return analysis.analyse(PROJECT, SECOND.protocol, recorded, SECOND.asked, SECOND.people, HOW, model=model)


@pytest.fixture(scope="module")
def planted() -> analysis.Analysis:
    bold = {f"{role}-bold": 0.6 for role in ("assistant", "physician", "nurse")}
    return run(care={"physician": 1.0, "wrong": 0.0}, moved={**bold, "least-urgent": 1.0, "wrong": 1.5})


@pytest.fixture(scope="module")
def null() -> analysis.Analysis:
    return run()


class TestGrid:
    def test_conditions(self) -> None:
        people = SECOND.people.set_index("condition")
        assert len(people) == 18 and people.loc["none", "system"] is None
        assert people.drop("none")["system"].notna().all() and not people["condition_hash"].duplicated().any()
        whole, mixed = people.loc["physician-1", "system"], people.loc["shuffled-1", "system"]
        assert sorted(whole.split()) == sorted(mixed.split()) and whole != mixed

    def test_care_settings(self) -> None:
        found = SECOND.asked.groupby(["dataset", "care"]).size().to_dict()
        assert found[("triage", "critical")] == found[("triage", "primary")] == 24
        assert (found[("esi", "critical")], found[("esi", "primary")], found[("medical", "")]) == (20, 10, 100)

    def test_fewer_cases_are_cells_of_the_whole_grid(self) -> None:
        few = design.Parameters.check(DEFAULTS | {"cases": ["esi"]})
        plan = design.plan(PROJECT, SECOND.protocol, few)
        assert plan.groupby("measure").size().to_dict() == {"letter": 18 * (30 * 5), "medical": 3960}
        assert set(plan["item_hash"]) < set(SECOND.plan["item_hash"])

    @pytest.mark.parametrize(
        ("name", "value"), [("cases", []), ("cases", ["x"]), ("cost_ratio", 0.0), ("bins", [])]
    )
    def test_values_outside_their_range_are_refused(self, name: str, value: object) -> None:
        with pytest.raises(ParameterError, match=name):
            design.Parameters.check(DEFAULTS | {name: value})

    @pytest.mark.parametrize("name", ["triage", "esi"])
    def test_the_committed_tables_are_those_of_the_sources(self, name: str) -> None:
        try:
            whole = multiple_choice.read(PROJECT, name)
        except SourceError:
            pytest.skip("the source is not at hand")
        committed = multiple_choice.questions(PROJECT, name, texts=False)
        whole = whole[list(committed)].astype({column: committed[column].dtype for column in committed})
        pd.testing.assert_frame_equal(whole, committed)


def test_every_family_is_tested_at_its_size(planted: analysis.Analysis) -> None:
    sizes = planted.tests.groupby("family", sort=False).size()
    assert sizes.to_dict() == {name: family.size for name, family in SECOND.protocol.families.items()}
    n = tabled(planted)["n"]
    assert n.loc[("care", "physician - assistant | cases, critical, accuracy")] == 44
    assert n.loc[("care", "physician - assistant | cases, primary, accuracy")] == 34
    assert n.loc[("care", "physician - assistant | cases, critical - primary, accuracy")] == 78
    assert n.loc[("medical", "physician - filler | medical, accuracy")] == 100
    assert planted.gate["passes"].all()


def test_planted_effects_are_found(planted: analysis.Analysis) -> None:
    found, said = tabled(planted), verdicts(planted)["verdict"]
    for claim in ("critical_gain", "primary_loss", "interaction", "interaction_layperson", "style"):
        assert said[claim] == "reproduced", claim
    assert found.loc[("style", "bold - cautious | cases, place"), "estimate"] == pytest.approx(0.6, abs=0.15)
    assert found.loc[("replies", "physician-bold - physician-cautious | triage, place"), "estimate"] > 0.3
    steer = found.loc["steerability"]
    assert steer["rejected"].all()
    assert (verdicts(planted)["steerable"] == "").all()


def test_an_interaction_is_the_difference_of_its_parts(planted: analysis.Analysis) -> None:
    found = tabled(planted).loc["care"]["estimate"]
    parts = [
        f"physician - assistant | cases, {part}, accuracy" for part in ("critical", "primary", "critical - primary")
    ]
    critical, primary, both = found.loc[parts]
    assert both == pytest.approx(critical - primary)


def test_without_effects_nothing_is_significant_and_claims_are_contradicted(null: analysis.Analysis) -> None:
    model = null.tests[~null.tests["family"].isin(analysis.PUBLISHED)]
    assert not model["rejected"].any()
    said = verdicts(null)
    assert (said.loc[["critical_gain", "primary_loss", "style"], "verdict"] == "contradicted").all()
    assert said.loc[["critical_gain", "style"], "steerable"].tolist() == ["no", "no"]


def test_a_null_is_rejected_no_more_often_than_declared() -> None:
    wrong = 0
    wide = analysis.by_case(run().scored, "score")
    how = Settings(0.05, 0.95, "holm", 499, 1)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        noisy = pd.DataFrame(rng.normal(0.5, 0.2, wide.shape), index=wide.index, columns=wide.columns)
        of = analysis.differences({"accuracy": noisy})
        tests = analysis.families.contrasts(SECOND.protocol, ["care"], of, how)
        wrong += bool(tests["rejected"].any())
    # Binomial with 40 trials at .05: more than seven have probability .001.
    assert wrong <= 7


def test_scores_by_hand() -> None:
    item = SECOND.asked[SECOND.asked["dataset"] == "triage"].iloc[0]
    p = np.array([0.1, 0.2, 0.3, 0.4])
    recorded = answers(SECOND.plan, SECOND.asked, lambda cells: np.tile(np.r_[p, 0.2], (len(cells), 1)))
    row = (
        analysis.scores(recorded, SECOND.asked, SECOND.people)
        .set_index(["condition", "item"])
        .loc[("none", item["item"])]
    )
    gold = int(item["gold"])
    assert row["score"] == pytest.approx(p[gold], abs=1e-6)
    assert row["place"] == pytest.approx(2.0 - gold, abs=1e-6)
    assert row["brier"] == pytest.approx(((p - np.eye(4)[gold]) ** 2).sum(), abs=1e-6)


def test_answers_that_ignore_urgency_fail_the_gate() -> None:
    found = run(sharp=0.0)
    failed = found.gate[~found.gate["passes"]]
    assert {"above chance", "kappa"} <= set(failed.loc[failed["part"] == "cases", "check"])
    said = verdicts(found)
    assert said.loc["interaction", "verdict"] == "uninformative"
    assert (found.tests.loc[found.tests["family"] == "care", "gate"] != "").all()
    assert (found.tests.loc[found.tests["family"] == "published_labels", "gate"] == "").all()


def test_published_rows(null: analysis.Analysis) -> None:
    found = tabled(null)
    committed = pd.read_csv(PROJECT.results("clinical_personas") / "labels.csv").set_index("hypothesis")
    for hypothesis, contrast in SECOND.protocol.families["published_labels"].contrasts.items():
        row, other = (
            found.loc[("published_labels", hypothesis)],
            committed.loc[f"{contrast.first} - {contrast.second}"],
        )
        assert [row["estimate"], row["low"], row["high"], row["p_adjusted"]] == pytest.approx(
            [other["difference"], other["low"], other["high"], other["p_adjusted"]], rel=1e-9
        )
    # By hand from the committed means: physicians .913, GPT-3 in two classes .671.
    row = found.loc[("published_triage", "physicians - GPT-3, two classes | triage, accuracy")]
    assert row["estimate"] == pytest.approx(0.9127 - 0.6708, abs=2e-4)
    assert row["p"] == pytest.approx(2 * stats.t.sf(row["estimate"] / row["se"], row["df"]))
    assert verdicts(null).loc["physicians_gpt3", "verdict"] == "reproduced"


# --- What is not recorded ---


def test_medical_questions_have_a_gate_of_their_own(planted: analysis.Analysis) -> None:
    checks = planted.gate.groupby("part", sort=False)["check"].agg(list).to_dict()
    assert checks["medical"] == ["option mass", "position dominance", "above chance"]
    assert set(checks) == {"cases", "medical", "text"}
    # A model that follows urgency and knows no medicine: only contrasts of medical questions lie behind a gate.
    flat = SECOND.asked["dataset"].eq("medical").to_numpy()
    ignorant = dict(zip(SECOND.asked["item"], flat, strict=True))
    recorded = answers(
        SECOND.plan,
        SECOND.asked,
        lambda cells: np.where(cells["item"].map(ignorant), 0.25, 0.9 + 0 * cells["gold"]),
    )
    found = analysis.analyse(PROJECT, SECOND.protocol, recorded, SECOND.asked, SECOND.people, HOW)
    failed = found.tests.set_index(["family", "hypothesis"])["gate"]
    assert (failed.loc["medical"] == "not above chance").all()
    assert failed.loc[("roles", "nurse - assistant | medical, accuracy")] == "not above chance"
    assert "not above chance" not in failed.loc[("roles", "nurse - assistant | cases, accuracy")]


def test_a_claim_waits_until_its_measure_is_complete() -> None:
    lacking = run(only=("medical", "text"), moved={"physician-bold": 1.0})
    rows = verdicts(lacking)
    assert rows.loc["interaction", ["verdict", "why"]].tolist() == ["not testable here", "not recorded yet: letter"]
    assert rows.loc["labels_female", "verdict"] == "reproduced"
    n = tabled(lacking)["n"]
    assert (n.loc["care"] == 0).all() and (n.loc["medical"] == 100).all() and (n.loc["replies"] == 48).all()
    assert set(lacking.gate["part"]) == {"medical", "text"} and not any(lacking.stuck.values())
    letters = run(only=("letter",), care={"physician": 1.0})
    assert verdicts(letters).loc["interaction", "verdict"] == "reproduced"
    assert (tabled(letters)["n"].loc["replies"] == 0).all() and set(letters.gate["part"]) == {"cases"}
    # What is not recorded keeps its place in the family.
    roles = tabled(letters).loc["roles"]
    assert roles["p_adjusted"].min() == pytest.approx(min(1.0, 6 * roles["p"].min()))


def test_models_that_move_apart_make_a_claim_heterogeneous() -> None:
    found = {"one": run(care={"physician": 1.0}, model="one"), "two": run(care={"physician": -1.0}, model="two")}
    public = analysis.public_tests(PROJECT, SECOND.protocol, HOW)
    table = conclusions.claims(SECOND.protocol, public, found)
    assert set(table["claim"]) == set(SECOND.protocol.claims)
    mine = table[table["claim"] == "interaction"].set_index("model")["verdict"]
    assert mine.to_dict() == {"one": "heterogeneous", "two": "contradicted"}
    said = analysis.finding(table, found["one"], public)
    assert "In one," in said and "No instruction moves accuracy or the assigned place" in said
    blind = run(sharp=0.0)
    said = analysis.finding(conclusions.claims(SECOND.protocol, public, {"blind": blind}), blind, public)
    assert "letters fail their checks (not above chance, agrees by" in said and "significant" not in said
    said = analysis.finding(conclusions.claims(SECOND.protocol, public, {}), None, public)
    assert "No model has been asked under this protocol yet" in said and "physician changes" not in said


@pytest.mark.parametrize(("among", "verdict"), [(-0.5, "heterogeneous"), (0.0, "reproduced")])
def test_sets_of_cases_that_move_apart_are_not_hidden_by_all_cases_together(among: float, verdict: str) -> None:
    found = run(care={"physician": 1.0}, sets={"esi": among}, model="one", only=("letter",))
    pooled = tabled(found).loc[("care", "physician - assistant | cases, critical - primary, accuracy")]
    assert pooled["rejected"] and pooled["estimate"] > 0
    table = conclusions.claims(
        SECOND.protocol, analysis.public_tests(PROJECT, SECOND.protocol, HOW), {"one": found}
    )
    row = analysis.with_sets(table, {"one": found}).set_index("claim").loc["interaction"]
    assert row["verdict"] == verdict and "vignettes alone +" in row["details"]
    assert row["details"].endswith("(not significant)") == (among == 0)
    own = found.by_set[found.by_set["family"] == "care"]
    assert len(own) == 4 and own["p_adjusted"].min() == pytest.approx(4 * own["p"].min())


# --- What is reported beside the tests ---


def by_hand(**more: object) -> pd.DataFrame:
    """Return scored vignettes of the assistant: emergency, 1 day, 1 week, self-care; always .7 on one place."""
    chosen, gold = [0, 2, 2, 1], [0, 1, 2, 3]
    p = [np.where(np.arange(4) == place, 0.7, 0.1) for place in chosen]
    about = {"condition": "assistant-1", "who": "assistant", "role": "assistant", "style": "neutral", "wording": 1}
    frame = pd.DataFrame({"item": list("abcd"), "cluster": list("abcd"), "gold": gold, "chosen": chosen})
    return frame.assign(
        dataset="triage",
        care=["critical", "critical", "primary", "primary"],
        n_options=4,
        probability=p,
        correct=[1.0, 0.0, 1.0, 0.0],
        confidence=0.7,
        score=[each[k] for each, k in zip(p, gold, strict=True)],
        place=[each @ np.arange(4) - k for each, k in zip(p, gold, strict=True)],
        brier=[((each - np.eye(4)[k]) ** 2).sum() for each, k in zip(p, gold, strict=True)],
        **{**about, **more},
    )


def test_accuracy_errors_and_cost_by_hand() -> None:
    row = outcomes.accuracy(by_hand(), 0.95).iloc[0]
    assert (row["accuracy"], row["likeliest"], row["chance"], row["base_rate"]) == pytest.approx(
        (0.4, 0.5, 0.25, 0.25)
    )
    row = outcomes.errors(by_hand(), PARAMETERS).iloc[0]
    assert row["under"] == pytest.approx((0.3 + 0.8 + 0.1 + 0) / 4)
    assert row["over"] == pytest.approx((0 + 0.1 + 0.2 + 0.9) / 4)
    assert row["severe"] == pytest.approx((0.2 + 0.1 + 0 + 0) / 4)
    assert row["missed"] == pytest.approx((0.2 + 0.8) / 2)
    places = 10 * np.array([0.6, 0.9, 0.1, 0]) + np.array([0, 0.1, 0.3, 1.8])
    assert row["cost"] == pytest.approx(places.mean() / 11)
    # Always the most urgent place costs 0 + 1 + 2 + 3 places too much.
    assert row["relative_cost"] == pytest.approx(places.sum() / 6)


def test_confusion_and_calibration_by_hand() -> None:
    found = outcomes.confusion(by_hand()).set_index(["true", "assigned"])["probability"]
    assert found[(2, 3)] == pytest.approx(0.7) and found.groupby("true").sum().tolist() == pytest.approx([1] * 4)
    row = outcomes.calibration(by_hand(), PARAMETERS).iloc[0]
    right, wrong = 0.3**2 + 3 * 0.1**2, 0.9**2 + 0.7**2 + 2 * 0.1**2
    assert row["brier"] == pytest.approx((right + wrong) / 2)
    # Four urgencies of one vignette each: stating a quarter for each costs 3/4.
    assert row["skill"] == pytest.approx(1 - row["brier"] / 0.75)
    assert outcomes.reliability(by_hand(), 1)[["probability", "frequency"]].to_numpy() == pytest.approx(
        np.array([[0.7, 0.5]])
    )


def test_answers_that_only_move_make_an_interaction() -> None:
    late, early = (
        by_hand(**about).assign(
            score=lambda rows, at=at: (rows["gold"] == at).astype(float),
            place=lambda rows, at=at: at - rows["gold"],
        )
        for about, at in (({}, 3), ({"who": "physician", "condition": "physician-1"}, 0))
    )
    row = outcomes.moved(pd.concat([late, early])).set_index("who").loc["physician"]
    assert row[["critical", "primary", "interaction"]].tolist() == [0.5, -0.5, 1.0]
    assert row["propensity"] == -3
    assert row[["sensitivity", "sensitivity_assistant"]].tolist() == pytest.approx([0, 0], abs=1e-9)


def test_risk_follows_the_style_and_the_urgency(planted: analysis.Analysis) -> None:
    found = outcomes.risk(planted.scored, HOW)
    assert set(found["role"]) == {"all", "assistant", "physician", "nurse"}
    mean = found[found["role"] == "all"].set_index("style")
    assert mean.loc["bold", "propensity"] - mean.loc["neutral", "propensity"] == pytest.approx(0.6, abs=0.2)
    assert mean["sensitivity"].between(0.5, 1.2).all()
    test = tabled(planted).loc[("style", "bold - neutral | cases, place"), "estimate"]
    assert mean.loc["bold", "propensity"] - mean.loc["neutral", "propensity"] == pytest.approx(test)


def test_readings_leave_out_sets_and_places(planted: analysis.Analysis) -> None:
    found = robustness.readings(SECOND.protocol, planted.scored, HOW)
    care = found[found["hypothesis"] == "physician - assistant | cases, critical, accuracy"].set_index("reading")
    declared = tabled(planted).loc[("care", "physician - assistant | cases, critical, accuracy")]
    assert care.loc["as declared", "estimate"] == pytest.approx(declared["estimate"])
    assert care.loc["vignettes alone", "n"] == 24 and care.loc["emergency cases alone", "n"] == 20
    assert sum(name.startswith("without") for name in care.index) == 7
    assert (care["estimate"] > 0).all() and "second wording alone" in care.index
    # Nobody but assistant and physician has a second wording.
    style = found[found["hypothesis"] == "bold - cautious | cases, place"]
    assert len(style) == 10 and "second wording alone" not in set(style["reading"])


def test_power_far_out_is_one_and_at_nothing_alpha(planted: analysis.Analysis) -> None:
    found = robustness.power_curve(SECOND.protocol, planted.tests, [0.0, 5.0], 0.05)
    assert found["power"].tolist() == pytest.approx([0.05, 1.0] * 3)
    assert found["n"].unique().tolist() == [44, 34, 78]


def test_figures_are_drawn_from_one_recording(planted: analysis.Analysis) -> None:
    drawn = figures.plot_care(SECOND.protocol, planted.tests, 0.1)
    assert [len(axis.get_yticks()) for axis in drawn.axes] == [6] * 3
    assert "not significant" in [text.get_text() for text in drawn.legends[0].get_texts()]
    confused = outcomes.confusion(planted.scored)
    assert len(figures.plot_confusion(confused, ["assistant", "physician"]).axes) == 4
    assert len(figures.plot_risk(outcomes.risk(planted.scored, HOW)).axes) == 2
    curve = robustness.power_curve(SECOND.protocol, planted.tests, np.linspace(0, 0.4, 5), 0.05 / 6)
    assert shared_figures.behind(drawn, "").get_suptitle() == ""
    said = shared_figures.behind(drawn, "picks by place").get_suptitle()
    assert said == "grey: behind a failed check: picks by place"
    assert len(figures.plot_power(curve, 0.1).axes[0].lines) == 5
