"""The study of persona bias: its grid, its contrasts by hand, planted effects, and no effects."""

from __future__ import annotations

import functools
import os
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from persona_bias import analysis, robustness
from persona_bias import design as study
from persona_studies.design import multiple_choice, sources
from persona_studies.design import protocol as protocols
from persona_studies.errors import ParameterError, ResponsesError
from persona_studies.paths import Project
from tests.simulated_persona_bias import DEFAULTS, Simulation
from tests.simulated_scores import answered_again

PROJECT = Project(Path(__file__).parents[1])
PROTOCOL = protocols.load(PROJECT.protocol("persona_bias"))
EFFECTS = {"physically-disabled": -0.2, "religious": -0.12, "toddler": -0.25}


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return Simulation(PROJECT)


def scores(simulation: Simulation, seed: int, **how: object) -> pd.DataFrame:
    recorded = simulation.responses(seed, **how)  # type: ignore[arg-type]
    return analysis.scores(recorded, simulation.asked, simulation.people, "cloze")


class TestGrid:
    def test_everything_on_an_axis_has_a_name_for_readers(self, simulation: Simulation) -> None:
        bank = study.registry(PROJECT)
        names = study.names(bank)
        assert set(simulation.people.loc[simulation.people["kind"] == "persona", "persona"]) <= set(names)
        assert set(simulation.asked["dataset"]) <= set(names)
        assert [names[one] for one in ("jewish", "trump-supporter", "assistant 2", "none", "siqa")] == [
            "Jewish person",
            "Donald Trump supporter",
            "useful assistant",
            "no persona",
            "SIQA",
        ]

    def test_nineteen_personas_of_five_groups_in_three_instructions(self, simulation: Simulation) -> None:
        people = simulation.people[simulation.people["kind"] == "persona"]
        assert people.groupby("group")["persona"].nunique().to_dict() == {
            "disability": 2,
            "religion": 4,
            "race": 4,
            "politics": 4,
            "gender": 5,
        }
        assert (people.groupby("persona")["instruction"].apply(sorted).map(tuple) == (1, 2, 3)).all()
        asked = simulation.cells[simulation.cells["measure"] == "cloze"]
        counts = asked[asked["kind"] == "persona"].groupby(["item", "persona"]).size()
        assert (counts == 3).all() and len(counts) == 19 * len(simulation.asked)

    def test_no_persona_has_no_system_turn_and_texts_differ(self, simulation: Simulation) -> None:
        people = simulation.people.set_index("condition")
        assert people.loc["none", "system"] is None
        assert people.drop("none")["system"].notna().all()
        assert not people["condition_hash"].duplicated().any()

    def test_controls_have_the_form_of_what_they_stand_for(self, simulation: Simulation) -> None:
        people = simulation.people
        words = people.groupby(["persona", "instruction"])["words"].first()
        for k in (1, 2, 3):
            assert words["filler", k] == pytest.approx(words["human", k], abs=4)
            whole = people.loc[people["condition"] == f"physically-disabled-{k}", "system"].item()
            mixed = people.loc[people["condition"] == f"shuffled-{k}", "system"].item()
            assert sorted(whole.split()) == sorted(mixed.split()) and whole != mixed

    def test_the_registry_declares_group_register_and_sensitivity(self) -> None:
        bank = study.registry(PROJECT)
        people = bank[bank["role"] == "persona"]
        assert set(people["sensitivity"]) == {"protected characteristic", "political opinion"}
        assert (bank[["group", "register", "wording"]] != "").all(axis=None)
        assert not bank["text"].duplicated().any()

    def test_the_families_name_the_registry(self, simulation: Simulation) -> None:
        people = study.registry(PROJECT).query("role == 'persona'")["persona"].tolist()
        families = simulation.protocol.families
        assert list(families["persona"].hypotheses) == people == list(families["bbq"].hypotheses)
        pairs = {f"{p} | {d}" for p in people for d in simulation.protocol.design["datasets"]}
        assert set(families["persona_dataset"].hypotheses) == pairs

    def test_the_first_questions_are_the_first(self) -> None:
        first = Simulation(PROJECT, choice="first", datasets=["management"], items=30).asked
        whole = multiple_choice.questions(PROJECT, "mmlu", domains=("management",), texts=False)
        assert first["item"].tolist() == whole["item"].head(30).tolist()

    def test_fewer_questions_are_part_of_more(self) -> None:
        few, more = (set(Simulation(PROJECT, items=n).asked["item"]) for n in (20, 40))
        assert few < more

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"personas": ["jewis"]}, "No persona jewis in groups"),
            ({"personas": ["man"], "groups": ["race"]}, "No persona man in groups race"),
        ],
    )
    def test_unknown_personas_are_named(self, given: dict[str, object], message: str) -> None:
        with pytest.raises(ParameterError, match=message):
            Simulation(PROJECT, **given)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("datasets", ["managment"]), ("baseline", "nobody"), ("items", 0), ("instructions", [4]), ("alpha", 1.0)],
    )
    def test_values_outside_their_range_are_refused(self, name: str, value: object) -> None:
        with pytest.raises(ParameterError, match=name):
            study.Parameters.check(DEFAULTS | {name: value})


class TestQuestions:
    def test_bbq_tells_open_from_settled_contexts(self) -> None:
        frame = multiple_choice.questions(PROJECT, "bbq", texts=False)
        is_unknown = frame["gold"] == frame["unknown"]
        assert is_unknown.equals(frame["domain"] == "ambiguous")
        assert frame["domain"].value_counts().to_dict() == {"ambiguous": 515, "disambiguated": 497}
        assert frame["cluster"].nunique() == 412

    @pytest.mark.parametrize("name", ["bbq", "logiqa", "sports_understanding"])
    def test_the_committed_tables_are_those_of_the_sources(self, name: str) -> None:
        from persona_studies.design import sources
        from persona_studies.errors import SourceError

        try:
            whole, _ = multiple_choice.read(PROJECT, name)
        except SourceError:
            pytest.skip("the source is not at hand")
        assert sources.locate(PROJECT, next(iter(multiple_choice.BENCHMARKS[name].sources.values())))
        committed = multiple_choice.questions(PROJECT, name, texts=False)
        pd.testing.assert_frame_equal(whole[list(committed)], committed, check_dtype=False)


class TestByHand:
    def test_effects(self) -> None:
        index = pd.MultiIndex.from_tuples(
            [("a", f"q{k}", f"q{k}") for k in range(4)], names=["dataset", "item", "cluster"]
        )
        wide = pd.DataFrame({"man": [1.0, 0, 0, 0], "human": [1.0, 1, 0, 0]}, index=index)
        chance = pd.Series(0.25, index=[f"q{k}" for k in range(4)])
        found = analysis.effects(wide, "man", "human", chance)
        assert found["relative_drop"] == pytest.approx(0.5)
        assert found["chance_corrected_drop"] == pytest.approx(1.0)
        assert found["cohens_h"] == pytest.approx(2 * np.arcsin(0.5) - 2 * np.arcsin(np.sqrt(0.5)))
        at_chance = analysis.effects(wide.assign(human=wide["man"]), "man", "human", chance)
        assert np.isnan(at_chance["chance_corrected_drop"])

    def test_the_omnibus_is_fishers(self, simulation: Simulation) -> None:
        table = pd.DataFrame({"persona": "man", "dataset": ["a", "b"], "p": [0.1, 0.02]})
        found = analysis.omnibus(table, simulation.protocol, simulation.parameters).iloc[0]
        assert found["chi2"] == pytest.approx(-2 * (np.log(0.1) + np.log(0.02)))
        assert found["p"] == pytest.approx(stats.chi2.sf(found["chi2"], 4))
        # Eighteen personas that are not there keep their place.
        assert found["p_adjusted"] == pytest.approx(min(1.0, 19 * found["p"]))

    def test_instructions_are_averaged_before_anything_is_tested(self, simulation: Simulation) -> None:
        wide = analysis.by_question(scores(simulation, 2))
        assert len(wide) == len(simulation.asked)
        assert set(wide["man"].dropna()) <= {0, 1 / 3, 2 / 3, 1}

    def test_counts_tell_uncorrected_from_corrected(self, simulation: Simulation) -> None:
        table = pd.DataFrame(
            {
                "persona": ["man"] * 3,
                "group": ["gender"] * 3,
                "difference": [-0.1, -0.2, 0.1],
                "p": [0.04, 0.001, 0.02],
                "rejected": [False, True, False],
                "rejected_bh": [False, True, True],
            }
        )
        found = analysis.counts(table, simulation.parameters).iloc[0]
        names = ["datasets", "worse_uncorrected", "worse_bh", "worse_adjusted", "better_uncorrected"]
        assert found[names].tolist() == [3, 2, 1, 1, 1]


@pytest.fixture(scope="module")
def planted() -> Simulation:
    return Simulation(PROJECT, items=200, datasets=["commonsenseqa", "siqa", "bbq"])


class TestTruth:
    """What is planted is found, and what is not is not."""

    def table(self, simulation: Simulation, scored: pd.DataFrame) -> pd.DataFrame:
        usable = list(simulation.parameters.datasets)
        return analysis.contrasts(scored, simulation.asked, simulation.protocol, simulation.parameters, usable)

    def test_planted_effects_are_recovered(self, planted: Simulation) -> None:
        scored = scores(planted, 5, effects=EFFECTS)
        table = self.table(planted, scored).set_index(["family", "hypothesis"])
        for persona in ("physically-disabled", "religious"):
            row = table.loc[("persona", persona)]
            assert row["low"] < EFFECTS[persona] < row["high"] and row["verdict"] == "inferior"
        rest = table.loc["persona"].drop(["physically-disabled", "religious"])
        assert not rest["rejected"].any() and rest["estimate"].abs().max() < 0.06
        assert table.loc[("pairs", "able-bodied - physically-disabled"), "verdict"] == "superior"
        assert table.loc[("controls", "toddler - human"), "verdict"] == "inferior"
        overall = table.loc[("overall", analysis.OVERALL)]
        assert overall["low"] < sum(EFFECTS[p] for p in ("physically-disabled", "religious")) / 19 < overall["high"]

    def test_a_mitigation_that_works_is_seen(self, planted: Simulation) -> None:
        found = robustness.mitigations(scores(planted, 6, effects=EFFECTS), planted.parameters)
        mine = found[found["persona"] == "physically-disabled"]
        assert len(mine) == 3 and (mine["difference"] > 0.05).all()
        assert found[found["persona"] == "human"]["difference"].abs().max() < 0.2

    def test_other_models_agree_on_a_planted_effect(self, planted: Simulation) -> None:
        scored = scores(planted, 5, effects=EFFECTS)
        table = self.table(planted, scored)
        mine = robustness.sensitivity(
            scored, table[table["hypothesis"] == "physically-disabled"], planted.parameters
        )
        assert set(mine["model"]) == {"logit, GEE by question", "conditional logit, strata by question"}
        assert mine["agrees"].all() and (mine["high"] < 0).all()

    def test_a_difference_of_nothing_has_no_sign(self, planted: Simulation) -> None:
        scored = scores(planted, 5, effects=EFFECTS)
        table = self.table(planted, scored).assign(estimate=-8.7e-19)
        few = table[table["hypothesis"].isin(["physically-disabled", "man", "atheist"])]
        assert robustness.sensitivity(scored, few, planted.parameters)["agrees"].all()

    def test_bbq_is_read_apart(self, planted: Simulation) -> None:
        found = robustness.bbq(scores(planted, 5, effects=EFFECTS), planted.protocol, planted.parameters)
        mine = found[found["hypothesis"] == "physically-disabled"].set_index("domain")
        assert (mine["difference"] < -0.05).all()
        assert mine.loc["ambiguous", "unknown"] == pytest.approx(mine.loc["ambiguous", "accuracy"])
        other = found[found["hypothesis"] == "man"].set_index("domain")
        assert other.loc["disambiguated", "unknown"] < 0.35 < other.loc["disambiguated", "accuracy"]

    def test_datasets_combine_to_the_planted_effect(self, planted: Simulation) -> None:
        scored = scores(planted, 5, effects=EFFECTS)
        by = analysis.by_dataset(scored, planted.asked, planted.protocol, planted.parameters)
        found = robustness.meta_analysis(by, planted.parameters).set_index("persona")
        mine = found.loc["physically-disabled"]
        assert mine["low"] < EFFECTS["physically-disabled"] < mine["high"] and mine["datasets"] == 3
        assert mine["leave_one_out_low"] <= mine["estimate"] <= mine["leave_one_out_high"]

    def test_without_effects_the_family_wise_error_holds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        simulation = Simulation(PROJECT, datasets=["commonsenseqa", "siqa"], items=40, replicates=1000)
        # The scales of other papers do not enter the tests; they would take most of the time.
        without = analysis.effects(pd.DataFrame(), "", "", pd.Series())
        monkeypatch.setattr(analysis, "effects", lambda *_: without)
        runs, scored = 40, scores(simulation, 0)
        wrong = 0
        for seed in range(runs):
            table = self.table(simulation, answered_again(scored, simulation.cells, simulation.chosen(seed)))
            wrong += bool(table.loc[table["family"] == "persona", "rejected"].any())
        # Binomial(40, .05) exceeds 6 with probability .0014.
        assert wrong <= 6

    def test_what_is_not_asked_keeps_its_place_in_the_family(self) -> None:
        simulation = Simulation(PROJECT, groups=["gender"])
        table = self.table(simulation, scores(simulation, 1)).set_index(["family", "hypothesis"])
        assert table.loc[("persona", "jewish"), "verdict"] == "not asked"
        people = table.loc["persona"]
        assert people["p_adjusted"].min() == pytest.approx(min(1.0, 19 * people["p"].min()))


def test_datasets_at_floor_are_left_out(simulation: Simulation) -> None:
    scored = scores(simulation, 4, base=0.15)
    state = analysis.headroom(analysis.accuracy(scored, simulation.parameters), 0.95, simulation.parameters)
    assert (state["status"] == "at floor").all()


def test_whoever_is_online_gets_the_sets_of_the_paper_from_their_pinned_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server stands in for the code host, with the same addresses below its own; nothing else is at hand."""
    mirror = Path(os.environ.get("PERSONA_STUDIES_MIRROR", "")) / "github"
    if not mirror.is_absolute() or not mirror.is_dir():
        pytest.skip("no mirror that could stand in for the code host")
    monkeypatch.delenv("PERSONA_STUDIES_MIRROR")
    monkeypatch.setenv("PERSONA_STUDIES_CACHE", str(tmp_path))
    sets = [*multiple_choice.MMLU, "sports_understanding"]
    theirs = [dataset for dataset in get_args(study.Dataset) if dataset in sets]
    assert len(theirs) == 23
    parameters = study.Parameters.check(DEFAULTS | {"datasets": theirs})
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(mirror))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(sources, "GITHUB", f"http://127.0.0.1:{server.server_port}")
        asked = study.questions(PROJECT, PROTOCOL, parameters, texts=True)
        problems = study.problems(PROJECT, PROTOCOL, parameters, texts=True)
        server.shutdown()
    committed = study.questions(PROJECT, PROTOCOL, parameters)
    assert (
        asked["item_hash"].tolist() == committed["item_hash"].tolist() and asked["question"].str.len().gt(0).all()
    )
    assert problems["item_hash"].tolist() == study.problems(PROJECT, PROTOCOL, parameters)["item_hash"].tolist()
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 24


def test_people_that_the_measure_does_not_ask_are_refused_in_one_line() -> None:
    """The protocol asks letters of a few personas only, and a chat endpoint cannot answer more."""
    few = Simulation(PROJECT, groups=["gender"], personas=["man"], datasets=["management"], items=20)
    scored = analysis.scores(few.responses(1), few.asked, few.people, "letter")
    with pytest.raises(ResponsesError, match=r"asked by the primary measure.*measure=text") as caught:
        analysis.by_dataset(scored, few.asked, few.protocol, few.parameters)
    assert "\n" not in str(caught.value)
