"""The study of expert personas: its grid, its scores by hand, planted effects, none, and failed gates."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from expert_personas import analysis, design, robustness
from persona_studies.analyse import multiple_choice as choices
from persona_studies.analyse.families import Settings
from persona_studies.design import multiple_choice
from persona_studies.errors import ParameterError
from persona_studies.reproduce import ready
from tests.kit.simulated_letters import answers, questions_with_level, second, tabled

SECOND = second("expert_personas")
verdicts = SECOND.verdicts
PROJECT = SECOND.project
HOW = Settings(alpha=0.05, confidence=0.95, correction="holm", replicates=2000, seed=1)


@cache
def who() -> dict[tuple[str, str], str]:
    """Return what the protocol calls a condition's persona for a question."""
    met = design.crossed(SECOND.asked, SECOND.people)
    return dict(zip(zip(met["condition"], met["item"]), met["persona"]))


def recorded(
    effects: dict[str, float], *, seed: int = 1, mean: float = 0.55, noise: float = 0.05, **how: float
) -> pd.DataFrame:
    """Return a recording in which personas add to the probability of the right option."""
    level = questions_with_level(SECOND.asked, seed, mean=mean)
    rng = np.random.default_rng(seed + 1000)
    own = {key: rng.normal(0, noise) for key in who()}

    def probability(cells: pd.DataFrame) -> np.ndarray:
        keys, names = list(zip(cells["condition"], cells["item"])), who()
        added = np.array([effects.get(names[key], 0.0) + own[key] for key in keys])
        return np.clip(cells["item"].map(level).to_numpy() + added, 0.01, 0.99)

    return answers(SECOND.plan, SECOND.asked, probability, **how)


def run(effects: dict[str, float], **how: Any) -> analysis.Analysis:
    rows = recorded(effects, **how)
    return analysis.analyse(PROJECT, SECOND.protocol, rows, SECOND.asked, SECOND.people, HOW)


@pytest.fixture(scope="module")
def planted() -> analysis.Analysis:
    return run({"expert, elaborate": 0.1, "layperson": -0.15, "toddler": -0.1, "wrong on purpose": -0.3})


@pytest.fixture(scope="module")
def null() -> analysis.Analysis:
    return run({})


class TestGrid:
    def test_no_persona_has_no_system_turn_and_everything_else_differs(self) -> None:
        people = SECOND.people.set_index("condition")
        assert people.loc["none", "system"] is None and people.index[0] == "none"
        assert people["condition_hash"].is_unique and people.drop("none")["system"].notna().all()

    def test_every_question_meets_every_persona_of_the_protocol(self) -> None:
        met = design.crossed(SECOND.asked, SECOND.people).merge(SECOND.asked[["item", "benchmark"]], on="item")
        counts = met.groupby(["benchmark", "persona"]).size().unstack(fill_value=0)
        wordings = SECOND.protocol.design["wordings"]
        for benchmark, n in SECOND.asked["benchmark"].value_counts().items():
            own = 0 if benchmark == "commonsenseqa" else n
            expected = dict.fromkeys(design.NAMES.values(), n) | {"placebo trait": 2 * n, "shuffled expert": own}
            expected |= {
                f"expert, {kind}": own * len(wordings[f"expert {kind}"]) for kind in ("short", "elaborate")
            }
            assert counts.loc[benchmark].to_dict() == expected | {"unrelated expert": n}

    @pytest.mark.parametrize(("few", "more"), [(20, 60), (60, 120), (120, 300)])
    def test_fewer_questions_are_part_of_more(self, few: int, more: int) -> None:
        small, large = (design.questions(PROJECT, SECOND.protocol, n) for n in (few, more))
        assert set(small["item"]) < set(large["item"])
        assert small["benchmark"].value_counts().to_dict() == {
            "mmlu": few // 2,
            "openbookqa": few // 4,
            "commonsenseqa": few // 4,
        }

    def test_every_subject_has_two_questions_and_its_own_expert(self) -> None:
        mmlu = SECOND.asked[SECOND.asked["benchmark"] == "mmlu"]
        assert mmlu["domain"].value_counts().eq(2).all() and mmlu["domain"].nunique() == 30
        assert (mmlu["in_domain"] != "").all() and (SECOND.asked["in_domain"] != SECOND.asked["unrelated"]).all()

    def test_fillers_and_placebos_have_the_length_of_what_they_stand_for(self) -> None:
        words = SECOND.people.groupby(["kind", "wording"])["words"].mean()
        assert words["filler", ""] == pytest.approx(words["expert", "elaborate"], rel=0.15)
        assert words["placebo", ""] == pytest.approx(words["expert", "short"], rel=0.3)

    def test_a_shuffled_expert_keeps_its_words(self) -> None:
        people = SECOND.people.set_index("condition")["system"]
        whole, mixed = people["expert-virology-elaborate-1@system"], people["shuffled-virology-1@system"]
        assert sorted(whole.split()) == sorted(mixed.split()) and whole != mixed

    def test_an_unknown_domain_is_refused_by_name(self) -> None:
        with pytest.raises(ParameterError, match="mmlu has no domain anatmy"):
            multiple_choice.questions(PROJECT, "mmlu", domains=("anatmy",), texts=False)

    def test_margin_and_alpha_reach_every_test_and_claim(self) -> None:
        in_force, changed = ready.resolve(PROJECT, "expert_personas", ["margin=0.1", "alpha=0.01"])
        assert changed == {"margin": 0.1, "alpha": 0.01}
        judged = design.Parameters.check(in_force.model_dump(mode="json")).judged(SECOND.protocol)
        effects = {c.smallest_effect for family in judged.families.values() for c in family.contrasts.values()}
        assert effects == {0.1}
        floor = judged.claims.pop("permutation_floor")
        assert {claim.smallest_effect for claim in judged.claims.values()} == {0.1} and floor.line == 0.01


class TestScores:
    def test_accuracy_is_the_mean_probability_over_orders(self, planted: analysis.Analysis) -> None:
        condition, item = "none", SECOND.asked["item"].iloc[0]
        row = planted.scored.set_index(["condition", "item"]).loc[(condition, item)]
        level = questions_with_level(SECOND.asked, 1)[item]
        rng = np.random.default_rng(1001)
        own = {key: rng.normal(0, 0.05) for key in who()}[condition, item]
        assert row["score"] == pytest.approx(np.clip(level + own, 0.01, 0.99), abs=1e-5)

    def test_a_model_that_always_says_a_is_right_by_chance(self) -> None:
        rows = recorded({})
        rows["logprob"] = [
            np.where(np.arange(len(p)) == 0, -0.01, -20.0).astype(np.float32) for p in rows["logprob"]
        ]
        scored = analysis.scores(rows, SECOND.asked, SECOND.people)
        assert scored["score"].to_numpy() == pytest.approx(1 / scored["n_options"].to_numpy(), abs=1e-6)
        places = choices.positions(rows, SECOND.asked)
        assert places.loc[places["place"] == 1, "probability"].min() > 0.99
        assert places.loc[places["place"] == 2, "accuracy"].max() == 0.0
        gate, usable = analysis.gated(SECOND.protocol, scored, rows, SECOND.asked, HOW)
        failed = set(gate.loc[(gate["benchmark"] == "all") & ~gate["passes"], "check"])
        assert {"position dominance", "above chance"} <= failed and usable == []

    def test_a_failed_answer_takes_its_question_out_under_that_persona_alone(self) -> None:
        rows = recorded({})
        failed = rows.index[rows["condition"] == "toddler-1@system"][0]
        rows.loc[failed, "finish"] = "failed"
        rows.at[failed, "logprob"] = None
        scored = analysis.scores(rows, SECOND.asked, SECOND.people)
        lost = rows.loc[failed, ["condition", "item"]].tolist()
        assert len(scored) == len(who()) - 1
        assert not ((scored["condition"] == lost[0]) & (scored["item"] == lost[1])).any()
        assert analysis.by_question(scored)["toddler"].isna().sum() == 1

    def test_accuracy_by_persona_is_that_of_its_questions(self, planted: analysis.Analysis) -> None:
        table = analysis.accuracy(planted.scored, HOW).set_index(["benchmark", "persona"])
        row = table.loc[("openbookqa", "expert, short")]
        mine = planted.scored.query("benchmark == 'openbookqa' and persona == 'expert, short'")
        assert row["accuracy"] == pytest.approx(mine["score"].mean()) and row["n"] == 30 and row["chance"] == 0.25
        assert row["low"] < row["accuracy"] < row["high"]
        assert ("commonsenseqa", "expert, short") not in table.index


def test_every_family_is_tested_at_its_size(planted: analysis.Analysis) -> None:
    sizes = planted.tests.groupby("family", sort=False).size()
    assert sizes.to_dict() == {name: family.size for name, family in SECOND.protocol.families.items()}
    assert planted.tests["n"].min() > 0


def test_planted_effects_are_found_with_their_size(planted: analysis.Analysis) -> None:
    found = tabled(planted)
    for family, name, effect in (
        ("experts", "expert, elaborate - no persona | in-domain, accuracy", 0.1),
        ("yardstick", "expert, elaborate - shuffled expert | in-domain, accuracy", 0.1),
        ("low_knowledge", "low knowledge - filler | all, accuracy", -0.125),
        ("steerability", "wrong on purpose - filler | all, accuracy", -0.3),
    ):
        row = found.loc[(family, name)]
        assert row["low"] <= row["estimate"] <= row["high"]
        assert row["estimate"] == pytest.approx(effect, abs=0.03) and row["rejected"], name
    said = verdicts(planted)["verdict"]
    assert said["in_domain"] == "contradicted" and said["placebo_yardstick"] == "contradicted"
    assert said["low_knowledge"] == "reproduced" and said["off_domain"] == "reproduced"
    assert said["threshold_51"] == "contradicted"


def test_without_effects_claims_of_none_are_reproduced_and_the_others_contradicted(null: analysis.Analysis) -> None:
    model = null.tests[~null.tests["family"].isin(analysis.PUBLISHED)]
    assert not model["rejected"].any()
    said = verdicts(null)
    assert (said.loc[["in_domain", "off_domain", "placebo_yardstick"], "verdict"] == "reproduced").all()
    assert said.loc["low_knowledge", "verdict"] == "contradicted"
    assert said["steerable"]["in_domain"] == "no"


def test_a_null_is_rejected_no_more_often_than_declared() -> None:
    wrong = 0
    level = questions_with_level(SECOND.asked, 3)
    usable = list(SECOND.protocol.design["benchmarks"])
    index = pd.MultiIndex.from_frame(SECOND.asked[["benchmark", "item", "cluster"]])
    names = sorted({*who().values(), "low knowledge"})
    how = Settings(0.05, 0.95, "holm", 999, 1)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        noise = rng.normal(0, 0.05, (len(SECOND.asked), len(names)))
        wide = pd.DataFrame(level.to_numpy()[:, None] + noise, index=index, columns=names)
        found = analysis.families.contrasts(SECOND.protocol, ["experts"], analysis.differences(wide, usable), how)
        wrong += bool(found["rejected"].any())
    # Binomial with 60 trials at .05: nine or more have probability .004.
    assert wrong <= 8


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"mean": 0.3}, "not above chance"),
        ({"mass": 0.3}, "answers outside options"),
    ],
)
def test_a_failed_gate_decides_nothing_about_the_model(given: dict[str, float], reason: str) -> None:
    said = verdicts(run({}, **given))
    model = [name for name, claim in SECOND.protocol.claims.items() if claim.family not in analysis.PUBLISHED]
    assert (said.loc[model, "verdict"] == "uninformative").all()
    assert said.loc["in_domain", "why"] == reason
    assert said.loc["open_question_expert", "verdict"] == "reproduced"


def test_a_benchmark_at_floor_is_left_out() -> None:
    low = dict.fromkeys(SECOND.asked.loc[SECOND.asked["benchmark"] == "mmlu", "item"], -0.3)
    level = questions_with_level(SECOND.asked, 1)
    rows = answers(
        SECOND.plan,
        SECOND.asked,
        lambda cells: np.clip(cells["item"].map(level) + cells["item"].map(low).fillna(0), 0.05, 0.95).to_numpy(),
    )
    found = analysis.analyse(PROJECT, SECOND.protocol, rows, SECOND.asked, SECOND.people, HOW)
    assert found.usable == ["openbookqa", "commonsenseqa"]
    row = tabled(found).loc[("experts", "expert, short - no persona | in-domain, accuracy")]
    assert row["n"] == 30
    assert found.gate.set_index(["benchmark", "check"]).loc[("all", "above chance"), "passes"]


def test_thresholds_count_questions() -> None:
    index = pd.MultiIndex.from_tuples(
        [("mmlu", f"q{k}", f"q{k}") for k in range(4)], names=["benchmark", "item", "cluster"]
    )
    wide = pd.DataFrame(
        {"expert, elaborate": [0.9, 0.6, 0.4, 0.1], "no persona": [0.4, 0.6, 0.4, 0.6]}, index=index
    )
    contrast = SECOND.protocol.families["thresholds"].contrasts[
        "expert, elaborate - no persona | in-domain, at least 13 of 25"
    ]
    row = analysis._counted(wide, contrast, SECOND.protocol, HOW)
    assert (row["n"], row["estimate"], row["p"]) == (4, 0.0, 1.0)
    assert analysis.passing(wide["no persona"], 13, 25).tolist() == [False, True, False, True]


def test_published_rows_are_those_of_the_committed_table(null: analysis.Analysis) -> None:
    committed = pd.read_csv(PROJECT.results("expert_personas") / "open_models.csv").set_index("contrast")
    found = tabled(null)
    for family in ("open_models_none", "open_models_placebo"):
        for hypothesis, contrast in SECOND.protocol.families[family].contrasts.items():
            row, other = found.loc[(family, hypothesis)], committed.loc[f"{contrast.first} - {contrast.second}"]
            assert row["estimate"] == pytest.approx(other["estimate"], abs=1e-12)
            assert row["p_adjusted"] == pytest.approx(other["p_adjusted"], rel=1e-9)
    floor = verdicts(null).loc["permutation_floor"]
    assert floor["estimate"] == pytest.approx(432 / 5001) and floor["verdict"] == "contradicted"
    assert SECOND.protocol.claims["permutation_floor"].line == HOW.alpha


def test_other_readings_find_what_is_planted(planted: analysis.Analysis) -> None:
    table = robustness.readings(SECOND.protocol, planted.scored, planted.usable, HOW)
    of = table.set_index(["contrast", "reading"])
    expert = "expert, elaborate - no persona | in-domain, accuracy"
    for wording in (1, 2):
        row = of.loc[(expert, f"wording {wording} alone")]
        assert row["low"] < 0.1 < row["high"] and row["n"] == 90
    logit = of.xs("logit, GEE by question (log odds ratio)", level="reading")
    assert logit.loc[expert, "low"] > 0 and logit["estimate"].notna().all()
    assert logit.loc["low knowledge - no persona | all, accuracy", "high"] < 0
    placebo = logit.loc["placebo trait - no persona | all, accuracy"]
    assert placebo["low"] < 0.1 and placebo["high"] > -0.1
    assert set(table["contrast"]) == {
        c.name
        for name in ("experts", "low_knowledge", "controls")
        for c in SECOND.protocol.families[name].contrasts.values()
        if c.second == design.NO_PERSONA
    }
    assert robustness.readings(SECOND.protocol, planted.scored, [], HOW).empty


def test_an_effect_stands_beside_the_length_of_its_persona(planted: analysis.Analysis) -> None:
    table = robustness.lengths(planted.scored).set_index(["persona", "paraphrase"])
    assert table.loc[("toddler", 1), "difference"] == pytest.approx(-0.1, abs=0.02)
    assert table.loc[("toddler", 1), "words"] == 9 and table.loc[("filler", 1), "words"] > 30
    assert design.NO_PERSONA not in table.index.get_level_values("persona")


def test_the_finding_says_what_stands_behind_it(planted: analysis.Analysis) -> None:
    claims = verdicts(planted).reset_index()
    said = analysis.finding(claims, {"simulated": planted})
    estimate = verdicts(planted).loc["in_domain", "estimate"]
    assert said.startswith("**In simulated,") and f"{estimate:+.3f}" in said
    bad = run({}, mass=0.3)
    said = analysis.finding(verdicts(bad).reset_index(), {"simulated": bad})
    assert said.startswith("**In nine open models") and "fail their checks (answers outside options), so" in said
    assert "No model has been asked" in analysis.finding(claims, {})


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
        whole = multiple_choice.read(PROJECT, "mmlu")
        committed = multiple_choice.questions(PROJECT, "mmlu", texts=False)
        pd.testing.assert_frame_equal(whole[[*multiple_choice.Question.model_fields]], committed, check_dtype=False)
