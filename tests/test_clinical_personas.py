"""The study of clinical personas: its grid, its outcomes and contrasts by hand, planted effects, and no effects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from clinical_personas import analysis, calibration, outcomes, replies, robustness
from clinical_personas import design as study
from persona_studies.design import multiple_choice
from persona_studies.errors import ParameterError
from persona_studies.paths import Project
from tests.simulated_clinical_personas import DEFAULTS, Simulation
from tests.simulated_scores import answered_again

PROJECT = Project(Path(__file__).parents[1])


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return Simulation(PROJECT)


def scores(simulation: Simulation, seed: int, measure: str = "cloze", **how: Any) -> pd.DataFrame:
    recorded = simulation.responses(seed, **how)
    return outcomes.scores(recorded, simulation.asked, simulation.people, measure)


class TestGrid:
    def test_size(self, simulation: Simulation) -> None:
        assert len(simulation.plan) == 21_260
        assert simulation.plan.groupby("measure").size()["text"] == 6 * 48

    def test_every_case_meets_every_role_style_and_wording(self, simulation: Simulation) -> None:
        cells = simulation.cells
        cells = cells[(cells["measure"] == "cloze") & (cells["template"] != "neutral") & (cells["variant"] == "")]
        per_case = cells[cells["dataset"] == "triage"].groupby("item").size()
        # Eleven of twelve pairs of role and style in three wordings, one without a system turn, and controls.
        assert (per_case == 11 * 3 + 1 + 5 * 3).all() and len(per_case) == 48

    def test_nobody_and_nothing_else_has_no_system_turn(self, simulation: Simulation) -> None:
        people = simulation.people.set_index("condition")
        assert people.loc["none", "system"] is None
        assert people.drop("none")["system"].notna().all()
        assert not people["condition_hash"].duplicated().any()

    def test_controls_have_the_form_of_what_they_stand_for(self, simulation: Simulation) -> None:
        people = simulation.people.set_index("condition")
        for k in (1, 2, 3):
            whole, mixed = people.loc[f"physician-{k}", "system"], people.loc[f"shuffled-{k}", "system"]
            assert sorted(whole.split()) == sorted(mixed.split()) and whole != mixed
            assert people.loc[f"filler-{k}", "words"] == pytest.approx(people.loc[f"physician-{k}", "words"], abs=4)

    def test_care_settings(self, simulation: Simulation) -> None:
        asked = simulation.asked[simulation.asked["variant"] == ""]
        found = asked.groupby(["dataset", "care"]).size().to_dict()
        assert found[("triage", "critical")] == found[("triage", "primary")] == 24
        assert (found[("esi", "critical")], found[("esi", "primary")]) == (45, 25)
        assert found[("medical", "")] == 300 and found[("safety", "")] == 60

    def test_variants_are_of_the_same_cases(self, simulation: Simulation) -> None:
        asked = simulation.asked
        for dataset in ("triage", "esi"):
            mine = asked[asked["dataset"] == dataset]
            assert set(mine.loc[mine["variant"] != "", "cluster"]) <= set(
                mine.loc[mine["variant"] == "", "cluster"]
            )

    @pytest.mark.parametrize(
        ("name", "value"), [("roles", ["doctor"]), ("styles", []), ("cost_ratio", 0.0), ("bins", [])]
    )
    def test_values_outside_their_range_are_refused(self, name: str, value: object) -> None:
        with pytest.raises(ParameterError, match=name):
            study.Parameters.check(DEFAULTS | {name: value})


class TestQuestions:
    @pytest.mark.parametrize("name", ["triage", "esi"])
    def test_the_committed_tables_are_those_of_the_sources(self, name: str) -> None:
        from persona_studies.errors import SourceError

        try:
            whole, _ = multiple_choice.read(PROJECT, name)
        except SourceError:
            pytest.skip("the source is not at hand")
        committed = multiple_choice.questions(PROJECT, name, texts=False)
        whole = whole[list(committed)].astype({column: committed[column].dtype for column in committed})
        pd.testing.assert_frame_equal(whole, committed)

    def test_the_plan_is_the_same_with_texts_and_without(self, simulation: Simulation) -> None:
        """Half of college medicine repeats another domain, which shows only where both are read."""
        from persona_studies.errors import SourceError

        try:
            asked = study.questions(PROJECT, simulation.protocol, simulation.parameters, texts=True)
        except SourceError:
            pytest.skip("the source is not at hand")
        assert asked["item"].tolist() == simulation.asked["item"].tolist()
        assert asked["item_hash"].tolist() == simulation.asked["item_hash"].tolist()

    def test_safety_prompts(self) -> None:
        bank = pd.read_csv(PROJECT.items / "clinical_personas" / "safety_prompts.csv")
        assert bank.groupby("policy").size().to_dict() == dict.fromkeys(bank["policy"].unique(), 12)
        assert bank["policy"].nunique() == 5 and bank["rubric"].str.len().gt(0).all()
        assert (bank["safe"] != bank["risky"]).all() and not bank["text"].duplicated().any()
        # Neither kind of reply is longer on the whole, so that length alone decides nothing.
        assert bank["safe"].str.len().mean() == pytest.approx(bank["risky"].str.len().mean(), rel=0.1)


def cells(chosen: list[int], gold: list[int], **more: Any) -> pd.DataFrame:
    """Return scored cells of vignettes, one case each, under the assistant."""
    frame = pd.DataFrame({"chosen": chosen, "gold": gold})
    items = [f"c{k}" for k in range(len(frame))]
    care = np.where(frame["gold"] < 2, "critical", "primary")
    probability = [np.where(np.arange(4) == k, 0.7, 0.1) for k in chosen]
    about = {
        "condition": "assistant-1",
        "who": "assistant",
        "role": "assistant",
        "style": "neutral",
        "wording": 1,
        "kind": "role",
        "dataset": "triage",
        "variant": "",
        "policy": "",
        "n_options": 4,
    }
    return frame.assign(
        item=items,
        cluster=items,
        care=care,
        correct=(frame["chosen"] == frame["gold"]).astype(float),
        score=(frame["chosen"] == frame["gold"]).astype(float),
        error=(frame["chosen"] - frame["gold"]).astype(float),
        probability=probability,
        confidence=0.7,
        **(about | more),
    )


class TestByHand:
    # Two right, one under by one, one under by three (an emergency sent home), one over by two.
    table = cells([0, 1, 2, 3, 0], [0, 1, 1, 0, 2])

    def test_triage_errors_and_cost(self, simulation: Simulation) -> None:
        row = outcomes.triage_safety(self.table, simulation.parameters).iloc[0]
        assert (row["under"], row["over"], row["severe"]) == pytest.approx((0.4, 0.2, 0.2))
        assert (row["missed"], row["sent_home"]) == pytest.approx((0.5, 0.25))
        assert row["cost"] == pytest.approx((10 * 4 + 2) / 11 / 5)
        # Always the most urgent place costs 0 + 1 + 1 + 0 + 2 places too much.
        assert row["relative_cost"] == pytest.approx((10 * 4 + 2) / 4)
        assert row["net_benefit"] == pytest.approx(2 / 5 - 1 / 5 / 10)
        low, high = outcomes.wilson(0.4, 5, 0.95)
        assert (row["under_low"], row["under_high"]) == (low, high)

    def test_accuracy_in_two_classes(self, simulation: Simulation) -> None:
        row = outcomes.accuracy(self.table, simulation.parameters).iloc[0]
        assert (row["accuracy"], row["halves"], row["absolute_error"]) == pytest.approx((0.4, 0.4, 1.2))
        assert (row["chance"], row["base_rate"]) == (0.25, 0.4)

    def test_a_cost_ratio_turns_cost_and_net_benefit(self) -> None:
        found = outcomes.cost_sweep(self.table, [1.0, 10.0]).set_index(["who", "ratio"])
        # Every probability of a critical place is .8 or .2, so at a ratio of 10 (threshold 1/11) all are treated.
        assert found.loc[("assistant", 10.0), "net_benefit"] == found.loc[("everybody", 10.0), "net_benefit"]
        assert found.loc[("assistant", 1.0), "net_benefit"] == pytest.approx(2 / 5 - 1 / 5)

    def test_consistency(self, simulation: Simulation) -> None:
        other = cells([0, 1, 3, 3, 1], [0, 1, 1, 0, 2], wording=2, condition="assistant-2")
        none = simulation.responses(1).query("measure == 'text'")
        found = outcomes.consistency(
            pd.concat([self.table, other]), none, simulation.asked, simulation.parameters
        ).iloc[0]
        assert found["consistency"] == pytest.approx(0.6)
        assert found["by_chance"] == pytest.approx(0.4 * 0.2 + 0.2 * 0.4 + 0 + 0.2 * 0.4)

    def test_brier_and_its_base(self, simulation: Simulation) -> None:
        scored = scores(simulation, 1)
        row = scored[scored["dataset"] == "triage"].iloc[0]
        outcome = np.arange(4) == row["gold"]
        assert row["brier"] == pytest.approx(((row["probability"] - outcome) ** 2).sum())
        assert row["log_loss"] == pytest.approx(-np.log(row["probability"][row["gold"]]))
        # Four urgencies of twelve vignettes each: stating a quarter for each costs 3/4.
        found = calibration.calibration(scored[scored["who"] == "assistant"], simulation.parameters)
        mine = found.set_index("dataset").loc["triage"]
        assert mine["skill"] == pytest.approx(1 - mine["brier"] / 0.75)

    def test_the_chosen_option_is_the_most_probable(self, simulation: Simulation) -> None:
        for measure in ("cloze", "pmi", "letter"):
            scored = scores(simulation, 2, measure)
            assert scored["chosen"].tolist() == [p.argmax() for p in scored["probability"]]
            assert np.allclose([p.sum() for p in scored["probability"]], 1)

    def test_a_perfectly_recalibrated_forecast_has_slope_one(self, simulation: Simulation) -> None:
        rng = np.random.default_rng(0)
        n = 4000
        stated = rng.uniform(0.3, 0.95, n)
        table = cells([0] * n, [0] * n).assign(
            confidence=stated, correct=(rng.random(n) < stated).astype(float), brier=0.0, log_loss=0.0
        )
        row = calibration.calibration(table.assign(gold=rng.integers(0, 4, n)), simulation.parameters).iloc[0]
        assert row["slope_low"] < 1 < row["slope_high"] and abs(row["intercept"]) < 0.1
        assert row["ece_10_width"] < 0.03

    def test_calibration_errors_differ_as_by_hand(self, simulation: Simulation) -> None:
        right = cells([0, 1, 2, 3], [0, 1, 2, 3])
        wrong = cells([0, 1, 2, 3], [1, 0, 2, 3], who="nurse", role="nurse", condition="nurse-1")
        found = calibration.calibration_differences(pd.concat([right, wrong]), simulation.parameters)
        # Confidence is .7 throughout; the assistant is right in 4 of 4, the nurse in 2 of 4.
        assert found["difference"].tolist() == pytest.approx([0.2 - 0.3] * 2)

    def test_answers_that_only_move_make_an_interaction(self, simulation: Simulation) -> None:
        late = cells([3] * 8, [0, 1, 2, 3] * 2)
        early = cells([0] * 8, [0, 1, 2, 3] * 2, who="physician", role="physician", condition="physician-1")
        found = robustness.moved(pd.concat([late, early]), simulation.parameters).set_index("who").loc["physician"]
        assert found[["critical", "primary", "interaction"]].tolist() == [0.5, -0.5, 1.0]
        assert found["propensity"] == -3 and found["spread"] == 0
        assert found[["sensitivity", "sensitivity_assistant"]].tolist() == pytest.approx([0, 0], abs=1e-9)

    def test_power_far_out_is_one(self, simulation: Simulation) -> None:
        row = {"family": "roles", "hypothesis": "physician - assistant | triage", "se": 0.001}
        table = pd.DataFrame([{**row, "n": 300, "df": 299}])
        found = robustness.power_curve(table, [0.0, 0.4], 0.05)["power"]
        assert found.tolist() == pytest.approx([0.05, 1.0])

    def test_cochran_and_mcnemar(self, simulation: Simulation) -> None:
        right = cells([0, 1, 2, 3], [0, 1, 2, 3])
        wrong = cells([0, 1, 3, 2], [0, 1, 2, 3], who="nurse", role="nurse", condition="nurse-1")
        both = pd.concat([right, wrong])
        found = robustness.cochran(both).iloc[0]
        assert (found["q"], found["df"]) == (2.0, 1)
        paper = robustness.published_way(both, simulation.parameters).set_index("care")
        assert paper.loc["primary", ["b", "c", "p_exact"]].tolist() == [0, 2, 0.5]
        assert paper.loc["critical", "p"] == 1.0
        same = pd.concat([right, right.assign(who="nurse", role="nurse", condition="nurse-1")])
        assert robustness.cochran(same).iloc[0]["p"] == 1.0


@pytest.fixture(scope="module")
def planted(simulation: Simulation) -> pd.DataFrame:
    return scores(
        simulation,
        5,
        accuracy={"physician": 0.35, "toddler": -0.4},
        critical={"nurse": 0.35},
        shift={"bold": 0.6, "cautious": -0.5},
        variant={"Black": 0.5},
        base=0.5,
    )


@pytest.fixture(scope="module")
def table(simulation: Simulation, planted: pd.DataFrame) -> pd.DataFrame:
    found = analysis.contrasts(planted, simulation.protocol, simulation.parameters)
    return found.set_index(["family", "hypothesis"])


class TestTruth:
    """What is planted is found, in its own family; and what is not is not."""

    def test_a_role_that_knows_more(self, table: pd.DataFrame) -> None:
        row = table.loc[("roles", "physician - assistant | medical")]
        assert row["low"] < 0.35 < row["high"] and row["verdict"] == "superior"
        assert not table.loc["roles"].filter(like="nurse", axis=0)["rejected"].any()
        assert table.loc[("calibration", "physician - assistant | medical"), "verdict"] == "lower"
        assert table.loc[("safety", "physician - assistant"), "verdict"] == "lower"
        assert not table.loc[("safety", "nurse - assistant"), "rejected"]

    def test_a_role_that_depends_on_the_setting(self, table: pd.DataFrame) -> None:
        for dataset in ("triage", "esi"):
            care = table.loc["care"].filter(regex=f"nurse.*{dataset}", axis=0)
            row = care.filter(like="interaction", axis=0).iloc[0]
            assert row["low"] < 0.7 < row["high"] and row["rejected"] and row["estimate"] > 0
            assert care.filter(like="critical", axis=0)["estimate"].item() > 0.1
            assert care.filter(like="primary", axis=0)["estimate"].item() < -0.1
        assert not table.loc["care"].filter(like="physician - assistant | esi, inter", axis=0)["rejected"].any()

    def test_styles_controls_and_variants(self, table: pd.DataFrame) -> None:
        assert (table.loc["style"].filter(like="bold", axis=0)["verdict"] == "higher").all()
        assert (table.loc["style"].filter(regex="cautious.*(triage|esi)", axis=0)["verdict"] == "lower").all()
        controls = table.loc["controls", "verdict"]
        assert controls["toddler - assistant"] == "inferior"
        assert controls["shuffled - physician"] == "inferior"
        others = table.loc["controls", "estimate"][
            ["placebo - assistant", "layperson - assistant", "filler - none"]
        ]
        assert (others.abs() < 0.12).all()
        variants = table.loc["variants"]
        assert variants.loc["Black - White | triage", "verdict"] == "higher"
        assert not variants.drop("Black - White | triage")["rejected"].any()

    def test_gates_verdicts_and_finding(
        self, simulation: Simulation, planted: pd.DataFrame, table: pd.DataFrame
    ) -> None:
        recorded = simulation.responses(5)
        read = replies.read(recorded, simulation.asked, simulation.people)
        checked = analysis.gates(
            simulation.protocol,
            {"cloze": planted},
            recorded,
            simulation.asked,
            replies.share_parsed(read),
            simulation.parameters,
        )
        assert not analysis.failures(checked, "cloze")["triage"]
        moved = analysis.steerability({"cloze": planted}, ["triage", "esi"], simulation.parameters)
        assert moved["moved"].tolist() == [True]

        def judged(gate: dict[str, str]) -> pd.DataFrame:
            tests = analysis.contrasts(planted, simulation.protocol, simulation.parameters, failed=gate)
            return analysis.verdict_table(simulation.protocol, tests, planted, moved, simulation.parameters)

        said = judged({}).set_index(["claim", "layer"])
        assert said.loc[("bold", "corrected"), "verdict"] == "reproduced"
        assert said.loc[("cautious", "published"), "verdict"] == "reproduced"
        assert said.loc[("agreement", "corrected"), "verdict"] == "not testable here"
        broken = checked.assign(passes=checked["passes"] & (checked["check"] != "spread"))
        again = judged(analysis.failures(broken, "cloze"))
        mine = again[again["estimate"].notna()]
        assert (mine["verdict"] == "uninformative").all() and mine["why"].str.contains("spread").all()
        assert mine["layer"].value_counts().to_dict() == {"published": 6, "corrected": 6}
        only = simulation.parameters.model_copy(update={"layer": "published"})
        shown = analysis.verdict_table(simulation.protocol, table.reset_index(), planted, moved, only)
        assert set(shown.loc[shown["estimate"].notna(), "layer"]) == {"published"}

    def test_risk_and_sensitivity_to_urgency(self, simulation: Simulation, planted: pd.DataFrame) -> None:
        found = outcomes.risk(planted, simulation.parameters)
        mine = found[(found["dataset"] == "triage") & (found["role"] == "all")].set_index("style")
        assert (
            mine.loc["cautious", "propensity"] < mine.loc["neutral", "propensity"] < mine.loc["bold", "propensity"]
        )
        assert mine["sensitivity"].between(0.4, 1.2).all()

    def test_another_model_agrees(self, simulation: Simulation, planted: pd.DataFrame, table: pd.DataFrame) -> None:
        found = robustness.sensitivity(planted, table.reset_index(), simulation.parameters)
        mine = found[(found["term"] == "physician") & found["dataset"].isin(["triage", "esi"])]
        assert len(mine) == 2 and (mine["agrees"] == "yes").all() and (mine["low"] > 0).all()

    def test_without_effects_the_family_wise_error_holds(self) -> None:
        small = Simulation(PROJECT, datasets=["triage"], replicates=1000)
        families = ("roles", "care", "style", "variants")
        wrong, scored = dict.fromkeys(families, 0), scores(small, 0)
        for seed in range(25):
            again = answered_again(scored, small.cells, small.chosen(seed))
            table = analysis.contrasts(again, small.protocol, small.parameters, families)
            for family, group in table.groupby("family"):
                wrong[str(family)] += bool(group["rejected"].any())
        # Binomial(25, .05) exceeds 5 with probability .001.
        assert max(wrong.values()) <= 5, wrong

    def test_what_is_not_asked_keeps_its_place_in_the_family(self) -> None:
        few = Simulation(PROJECT, datasets=["triage"], roles=["assistant", "physician"], replicates=1000)
        table = analysis.contrasts(scores(few, 1), few.protocol, few.parameters, ("roles", "style"))
        table = table.set_index(["family", "hypothesis"])
        assert table.loc[("roles", "nurse - assistant | triage"), "verdict"] == "not asked"
        roles = table.loc["roles"]
        assert roles["p_adjusted"].min() == pytest.approx(min(1.0, 9 * roles["p"].min()))


def test_always_the_same_answer_fails_the_gate(simulation: Simulation) -> None:
    recorded = simulation.responses(7)
    cloze = (recorded["measure"] == "cloze").to_numpy()
    recorded.loc[cloze, "logprob"] = pd.Series(
        [np.where(np.arange(len(old)) == 1, -1.0, -3.0) for old in recorded.loc[cloze, "logprob"]],
        index=recorded.index[cloze],
    )
    scored = {"cloze": outcomes.scores(recorded, simulation.asked, simulation.people, "cloze")}
    checked = analysis.gates(simulation.protocol, scored, recorded, simulation.asked, 1.0, simulation.parameters)
    # Always "level 2" is right in 41 of 70 cases, far above chance, and measures nothing.
    lacking = analysis.failures(checked, "cloze")["esi"]
    assert "above chance" not in lacking
    assert all(check in lacking for check in ("spread", "kappa", "repeatability"))
