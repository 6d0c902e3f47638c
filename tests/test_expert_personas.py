"""The study of expert personas: its grid, its scores by hand, planted effects, and no effects."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from expert_personas import analysis, replies, robustness
from expert_personas import conditions as bank
from expert_personas import design as study
from persona_studies.analyse import gates
from persona_studies.analyse import multiple_choice as multiple_choice_scores
from persona_studies.design import multiple_choice
from persona_studies.errors import ParameterError
from persona_studies.paths import Project
from tests.simulated_expert_personas import Simulation
from tests.simulated_scores import answered_again

PROJECT = Project(Path(__file__).parents[1])
EFFECTS = {"in-domain expert, short": 0.15, "toddler": -0.2, "placebo trait": 0.1}


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return Simulation(PROJECT)


class TestGrid:
    def test_no_persona_has_no_system_turn_and_everything_else_differs(self, simulation: Simulation) -> None:
        people = simulation.people.set_index("condition")
        assert people.loc["none", "system"] is None and people.loc["none", "description"] == ""
        assert not people["condition_hash"].duplicated().any()
        placed = people.drop("none")
        assert placed["system"].notna().equals(placed["placement"] == "system")
        assert (placed["description"] != "").equals(placed["placement"] == "user")

    def test_every_question_meets_every_relation_in_every_wording(self, simulation: Simulation) -> None:
        cells = simulation.cells.assign(persona=simulation.persona)
        asked = cells[(cells["measure"] == "cloze") & (cells["template"] != "neutral")]
        counts = asked.groupby(["item", "persona"]).size().unstack(fill_value=0)
        expected = dict.fromkeys(counts.columns, 3) | {bank.REFERENCE: 1}
        assert set(counts.columns) == {bank.REFERENCE, *simulation.protocol.families["overall"].hypotheses}
        assert all((counts[persona] == n).all() for persona, n in expected.items())

    def test_no_cell_is_asked_that_no_hypothesis_is_about(self, simulation: Simulation) -> None:
        assert simulation.persona.notna().all()

    def test_letters_come_in_every_cyclic_order(self, simulation: Simulation) -> None:
        letters = simulation.cells[simulation.cells["measure"] == "letter"]
        orders = letters.groupby(["condition", "item"])["order"].apply(set)
        n = letters.groupby(["condition", "item"])["n_options"].first()
        assert all(found == set(range(k)) for found, k in zip(orders, n))

    def test_fewer_questions_are_part_of_more(self) -> None:
        sets = ["openbookqa", "commonsenseqa"]
        few = Simulation(PROJECT, questions=20, benchmarks=sets, replicates=1000).plan
        more = Simulation(PROJECT, questions=40, benchmarks=sets, replicates=1000).plan
        keys = [
            *("condition", "item", "template", "order", "measure"),
            "template_hash",
            "item_hash",
            "condition_hash",
        ]
        cloze = few[few["measure"] == "cloze"]
        assert len(cloze.merge(more, on=keys)) == len(cloze)

    def test_the_domain_map_covers_every_domain_with_three_fields(self) -> None:
        mapped = bank.domain_map(PROJECT)
        assert not mapped.duplicated(["benchmark", "domain"]).any()
        for name in get_args(study.Benchmark):
            assert set(multiple_choice.BENCHMARKS[name].sources) <= set(
                mapped.loc[mapped["benchmark"] == name, "domain"]
            )
        assert (mapped[list(bank.RELATIONS)].nunique(axis=1) == 3).all()

    def test_fillers_and_placebos_have_the_length_of_what_they_stand_for(self) -> None:
        people = bank.conditions(PROJECT, ["physics"], placements=["system"])
        words = people.groupby(["kind", "wording"])["words"].mean()
        assert words["filler", ""] == pytest.approx(words["expert", "elaborate"], rel=0.15)
        assert words["placebo", ""] == pytest.approx(words["expert", "short"], rel=0.3)
        assert words["shuffled", ""] == words["expert", "elaborate"]

    def test_a_shuffled_expert_keeps_its_words(self) -> None:
        people = bank.conditions(PROJECT, ["law"], placements=["system"]).set_index("condition")["system"]
        for k in (1, 2, 3):
            whole, mixed = people[f"expert-law-elaborate-{k}@system"], people[f"shuffled-law-{k}@system"]
            assert sorted(whole.split()) == sorted(mixed.split()) and whole != mixed

    def test_an_unknown_domain_is_refused_by_name(self) -> None:
        with pytest.raises(ParameterError, match="mmlu has no domain anatmy"):
            multiple_choice.questions(PROJECT, "mmlu", domains=("anatmy",), texts=False)


class TestScores:
    def table(self, simulation: Simulation, measure: str) -> pd.DataFrame:
        recorded = simulation.responses(3)
        return analysis.scores(recorded, simulation.asked, simulation.people, measure)

    def test_per_character_divides_by_length(self, simulation: Simulation) -> None:
        recorded = simulation.responses(3)
        row = recorded[(recorded["measure"] == "cloze") & (recorded["template"] == "system")].index[0]
        n = len(recorded.at[row, "logprob"])
        recorded.at[row, "logprob"] = np.array([-10.0, -6.0, *[-50.0] * (n - 2)], dtype=np.float32)
        recorded.at[row, "n_chars"] = np.array([20, 10, *[10] * (n - 2)])
        scored = analysis.scores(recorded, simulation.asked, simulation.people, "cloze")
        same = (scored["item"] == recorded.at[row, "item"]) & (scored["condition"] == recorded.at[row, "condition"])
        # -10 / 20 characters is likelier per character than -6 / 10, although less likely as a whole.
        assert scored.loc[same, "chosen"].tolist() == [0]

    def test_pmi_takes_off_the_neutral_context(self, simulation: Simulation) -> None:
        recorded = simulation.responses(3)
        item = simulation.asked["item"].iloc[0]
        gold, n = simulation.asked.iloc[0][["gold", "n_options"]]
        neutral = recorded.index[(recorded["item"] == item) & (recorded["template"] == "neutral")][0]
        other = (gold + 1) % n
        recorded.at[neutral, "logprob"] = np.where(np.arange(n) == other, -9.0, -3.0).astype(np.float32)
        scored = analysis.scores(recorded, simulation.asked, simulation.people, "pmi")
        assert set(scored.loc[scored["item"] == item, "chosen"]) == {other}

    def test_letters_average_over_orders(self, simulation: Simulation) -> None:
        """A model that always says A is right with the chance of every option, in every question."""
        recorded = simulation.responses(3)
        letters = recorded["measure"] == "letter"
        recorded.loc[letters, "logprob"] = recorded.loc[letters, "logprob"].map(
            lambda values: np.where(np.arange(len(values)) == 0, -0.01, -20.0).astype(np.float32)
        )
        scored = analysis.scores(recorded, simulation.asked, simulation.people, "letter")
        assert scored["score"].to_numpy() == pytest.approx(1 / scored["n_options"].to_numpy(), abs=1e-6)
        places = multiple_choice_scores.positions(recorded, simulation.asked)
        assert places.loc[places["place"] == 1, "probability"].min() > 0.99
        assert places.loc[places["place"] == 1, "accuracy"].min() == 1.0
        assert places.loc[places["place"] == 2, "accuracy"].max() == 0.0

    def test_thresholds_follow_the_binomial(self, simulation: Simulation) -> None:
        scored = self.table(simulation, "letter").assign(score=0.5)
        shares = analysis.thresholded(scored, simulation.protocol).set_index("at_least")["share"]
        assert shares[13].iloc[0] == pytest.approx(0.5)
        assert shares[25].iloc[0] == pytest.approx(0.5**25)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("B", 1),
        ("B.", 1),
        ("(C) because", 2),
        ("The answer is D.", 3),
        ("Answer: A", 0),
        ("A. roots", 0),
        ("A cat sat", None),
        ("I think so", None),
        ("E.", None),
        ("because B", None),
        ("", None),
        ("<script>A</script>", None),
    ],
)
def test_replies_are_read_at_their_start(text: str, place: int | None) -> None:
    assert replies.parse(text, 4) == place


class TestTruth:
    """What is planted is found, and what is not is not."""

    def contrasts(self, simulation: Simulation, seed: int, effects: dict[str, float] | None) -> pd.DataFrame:
        recorded = simulation.responses(seed, effects=effects)
        scored = analysis.scores(recorded, simulation.asked, simulation.people, "cloze")
        return self.table(simulation, scored)

    def table(self, simulation: Simulation, scored: pd.DataFrame) -> pd.DataFrame:
        usable = list(simulation.parameters.benchmarks)
        return analysis.contrasts(scored, simulation.protocol, simulation.parameters, usable)

    def test_planted_effects_are_recovered(self) -> None:
        simulation = Simulation(PROJECT, questions=300)
        table = self.contrasts(simulation, 5, EFFECTS)
        overall = table[table["benchmark"] == "overall"].set_index("hypothesis")
        for persona, effect in EFFECTS.items():
            row = overall.loc[persona]
            assert row["low"] < effect < row["high"], persona
            assert row["verdict"] == ("superior" if effect > 0 else "inferior")
        rest = overall.drop(list(EFFECTS))
        assert (rest["low"] < 0).mean() > 0.7 and (rest["high"] > 0).mean() > 0.7
        assert rest["estimate"].abs().max() < 0.05

    def test_without_effects_the_family_wise_error_holds(self) -> None:
        simulation = Simulation(
            PROJECT, questions=40, benchmarks=["commonsenseqa", "mmlu"], replicates=1000, placements=["system"]
        )
        recorded = simulation.responses(0)
        scored = analysis.scores(recorded, simulation.asked, simulation.people, "cloze")
        runs, wrong = 40, 0
        for seed in range(runs):
            table = self.table(simulation, answered_again(scored, simulation.cells, simulation.chosen(seed)))
            wrong += bool(table.loc[table["benchmark"] == "overall", "rejected"].any())
        # Binomial(40, .05) exceeds 6 with probability .0014.
        assert wrong <= 6

    def test_equivalence_is_claimed_when_there_is_nothing_and_not_at_the_margin(self) -> None:
        simulation = Simulation(
            PROJECT,
            questions=1500,
            benchmarks=["mmlu"],
            placements=["system"],
            conditions=["expert", "filler", "shuffled"],
        )
        table = self.contrasts(simulation, 2, {"filler": 0.05})
        mine = table[table["benchmark"] == "mmlu"].set_index("hypothesis")
        assert mine.loc["shuffled expert", "verdict"] == "equivalent"
        assert not mine.loc["filler", "bounded"]

    def test_what_is_not_asked_keeps_its_place_in_the_family(self) -> None:
        simulation = Simulation(PROJECT, conditions=["expert", "toddler"], placements=["system"])
        table = self.contrasts(simulation, 1, EFFECTS)
        absent = table[table["hypothesis"] == "layperson"]
        assert (absent["verdict"] == "not asked").all() and (absent["p_adjusted"] == 1).all()
        overall = table[table["benchmark"] == "overall"].set_index("hypothesis")
        # Holm over the 15 declared, not over the 5 asked.
        assert overall["p_adjusted"].min() == pytest.approx(min(1.0, 15 * overall["p"].min()))


def test_every_benchmark_has_its_families(simulation: Simulation) -> None:
    expected = {
        f"{family}_{name}" for family in [*analysis.FAMILIES, "equivalence"] for name in get_args(study.Benchmark)
    }
    assert set(simulation.protocol.families) == expected | {"overall", "overall_equivalence"}


def test_another_model_is_judged_on_what_it_was_asked(simulation: Simulation) -> None:
    whole = simulation.responses(7, effects=EFFECTS)
    few = study.questions(PROJECT, simulation.protocol, simulation.parameters.model_copy(update={"questions": 30}))
    part = whole[whole["item"].isin(few["item"])]
    states, checks, table = robustness.other_models(
        {"all": whole, "some": part},
        simulation.asked,
        simulation.people,
        simulation.protocol,
        simulation.parameters,
    )
    assert states.groupby("model")["n"].sum().to_dict() == {"all": 180, "some": 90}
    assert set(checks["model"]) == {"all", "some"}
    scored = analysis.scores(whole, simulation.asked, simulation.people, "cloze")
    usable = states.loc[(states["model"] == "all") & (states["status"] == "usable"), "benchmark"].tolist()
    failed = gates.failures(checks[checks["model"] == "all"], "cloze")
    alone = analysis.contrasts(scored, simulation.protocol, simulation.parameters, usable, failed)
    alone = alone[alone["benchmark"] == "overall"].reset_index(drop=True)
    pd.testing.assert_frame_equal(
        table[table["model"] == "all"].drop(columns=["model", "gate"]).reset_index(drop=True), alone
    )
    mine = table[table["model"] == "some"].set_index("hypothesis")
    wide = analysis.by_question(scored[scored["item"].isin(few["item"])])
    difference = (wide["toddler"] - wide[bank.REFERENCE]).groupby(level="benchmark").mean()
    assert mine.loc["toddler", "n"] <= 90
    usable = states.loc[(states["model"] == "some") & (states["status"] == "usable"), "benchmark"]
    assert mine.loc["toddler", "estimate"] == pytest.approx(difference[usable].mean())


def test_benchmarks_at_floor_are_left_out(simulation: Simulation) -> None:
    scored = analysis.scores(simulation.responses(4, base=0.2), simulation.asked, simulation.people, "cloze")
    state = analysis.extremes(analysis.accuracy(scored, simulation.parameters), 0.95).set_index("benchmark")
    assert state.loc["openbookqa", "status"] == "at floor"
    good = analysis.scores(simulation.responses(4, base=0.6), simulation.asked, simulation.people, "cloze")
    assert (analysis.extremes(analysis.accuracy(good, simulation.parameters), 0.95)["status"] == "usable").all()
    best = analysis.scores(simulation.responses(4, base=1.0), simulation.asked, simulation.people, "cloze")
    assert (analysis.extremes(analysis.accuracy(best, simulation.parameters), 0.95)["status"] == "at ceiling").all()


def test_where_every_benchmark_is_at_floor_the_sensitivity_table_is_empty_with_its_columns(
    simulation: Simulation,
) -> None:
    scored = analysis.scores(simulation.responses(4, base=0.2), simulation.asked, simulation.people, "cloze")
    nothing = pd.DataFrame({"hypothesis": ["toddler"], "n": [0]})
    table = robustness.sensitivity(scored, nothing, simulation.parameters)
    assert table.empty and list(table) == ["contrast", "model", "estimate", "low", "high", "p"]


def test_replies_split_into_answered_and_right(simulation: Simulation) -> None:
    recorded = simulation.responses(6)
    text = recorded.index[recorded["measure"] == "text"]
    recorded.loc[text[: len(text) // 4], "text"] = "I cannot say."
    read = replies.replies(recorded, simulation.asked)
    split = replies.decomposition(read, simulation.people)
    assert split["n"].sum() == len(text)
    product = split["answered"] * split["right_given_answered"]
    assert split["accuracy"].to_numpy() == pytest.approx(product.fillna(0).to_numpy())
    assert (split["upper"] - split["lower"]).to_numpy() == pytest.approx(1 - split["answered"].to_numpy())
    assert (read["status"] == "unparsed").sum() == len(text) // 4


class TestQuestions:
    def test_counts_and_keys(self) -> None:
        for name, n in {"mmlu": 13928, "openbookqa": 500, "commonsenseqa": 1196, "medqa": 1273}.items():
            frame = multiple_choice.questions(PROJECT, name, texts=False)
            assert len(frame) == n
            assert not frame["item"].duplicated().any() and not frame["item_hash"].duplicated().any()
            shares = frame["gold"].value_counts(normalize=True)
            assert shares.min() > 0.6 / frame["n_options"].max()

    def test_samples_are_nested_and_even(self) -> None:
        frame = multiple_choice.questions(PROJECT, "mmlu", texts=False)
        few, more = (set(multiple_choice.sample(frame, n, 1)["item"]) for n in (100, 300))
        assert few < more and len(few) == 100
        even = multiple_choice.sample(frame, 57 * 3, 1)["domain"].value_counts()
        assert even.nunique() == 1

    def test_the_committed_tables_are_those_of_the_sources(self) -> None:
        from persona_studies.design import sources
        from persona_studies.errors import SourceError

        try:
            for source in multiple_choice.BENCHMARKS["mmlu"].sources.values():
                if sources.locate(PROJECT, source) is None:
                    pytest.skip("sources are not at hand")
        except SourceError as error:
            pytest.skip(str(error))
        whole, left_out = multiple_choice.read(PROJECT, "mmlu")
        committed = multiple_choice.questions(PROJECT, "mmlu", texts=False)
        pd.testing.assert_frame_equal(whole[[*multiple_choice.Question.model_fields]], committed, check_dtype=False)
        assert left_out["options missing, empty or repeated"] == 9 and left_out["repeated"] == 105
        assert study.LETTERS.startswith("ABCD")

    def test_white_space_that_marks_the_key_is_counted_and_gone(self) -> None:
        from persona_studies.design import sources

        if sources.locate(PROJECT, "mmlu-pro") is None:
            pytest.skip("the source is not at hand")
        frame, counts = multiple_choice.read(PROJECT, "mmlu_pro", ("chemistry",))
        # The number that the source's critics report for these 1,132 questions.
        assert (len(frame), counts["right option marked by white space"]) == (1132, 194)
        assert all(option == option.strip() for options in frame["options"] for option in options)
