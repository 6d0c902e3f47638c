"""The declared analysis of the second protocol of expert personas: planted effects, none, and failed gates."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest

from expert_personas import analysis_2 as analysis
from persona_studies.analyse.families import Settings
from tests.simulated_letters import Second, answers, questions_with_level

SECOND = Second("expert_personas")
PROJECT = SECOND.project
HOW = Settings(alpha=0.05, confidence=0.95, correction="holm", replicates=2000, seed=1)


@cache
def who() -> dict[tuple[str, str], str]:
    """Return what the protocol calls a condition's persona for a question."""
    met = SECOND.design.crossed(SECOND.asked, SECOND.people)
    return dict(zip(zip(met["condition"], met["item"]), met["persona"]))


def run(
    effects: dict[str, float], *, seed: int = 1, mean: float = 0.55, noise: float = 0.05, mass: float = 0.9
) -> analysis.Analysis:
    """Analyse a recording in which personas add to the probability of the right option."""
    level = questions_with_level(SECOND.asked, seed, mean=mean)
    rng = np.random.default_rng(seed + 1000)
    own = {key: rng.normal(0, noise) for key in who()}

    def probability(cells: pd.DataFrame) -> np.ndarray:
        keys, names = list(zip(cells["condition"], cells["item"])), who()
        added = np.array([effects.get(names[key], 0.0) + own[key] for key in keys])
        return np.clip(cells["item"].map(level).to_numpy() + added, 0.01, 0.99)

    recorded = answers(SECOND.plan, SECOND.asked, probability, mass=mass)
    return analysis.analyse(PROJECT, SECOND.protocol, recorded, SECOND.asked, SECOND.people, HOW)


@pytest.fixture(scope="module")
def planted() -> analysis.Analysis:
    return run({"expert, elaborate": 0.1, "layperson": -0.15, "toddler": -0.1, "wrong on purpose": -0.3})


@pytest.fixture(scope="module")
def null() -> analysis.Analysis:
    return run({})


def tabled(found: analysis.Analysis) -> pd.DataFrame:
    return found.tests.set_index(["family", "hypothesis"])


def verdicts(found: analysis.Analysis) -> pd.DataFrame:
    return found.verdicts.set_index("claim")


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
    assert said["why"]["in_domain"].endswith("not steerable")


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


def test_accuracy_is_the_mean_probability_over_orders(planted: analysis.Analysis) -> None:
    condition, item = "none", SECOND.asked["item"].iloc[0]
    row = planted.scored.set_index(["condition", "item"]).loc[(condition, item)]
    level = questions_with_level(SECOND.asked, 1)[item]
    rng = np.random.default_rng(1001)
    own = {key: rng.normal(0, 0.05) for key in who()}[condition, item]
    assert row["score"] == pytest.approx(np.clip(level + own, 0.01, 0.99), abs=1e-5)


@pytest.mark.parametrize(("given", "reason"), [({"mean": 0.3}, "above chance"), ({"mass": 0.3}, "option mass")])
def test_a_failed_gate_decides_nothing_about_the_model(given: dict[str, float], reason: str) -> None:
    said = verdicts(run({}, **given))
    model = [name for name, claim in SECOND.protocol.claims.items() if claim.family not in analysis.PUBLISHED]
    assert (said.loc[model, "verdict"] == "uninformative").all()
    assert said.loc["in_domain", "why"] == f"gate: {reason}"
    assert said.loc["open_question_expert", "verdict"] == "reproduced"


def test_a_benchmark_at_floor_is_left_out() -> None:
    low = dict.fromkeys(SECOND.asked.loc[SECOND.asked["benchmark"] == "mmlu", "item"], -0.3)
    level = questions_with_level(SECOND.asked, 1)
    recorded = answers(
        SECOND.plan,
        SECOND.asked,
        lambda cells: np.clip(cells["item"].map(level) + cells["item"].map(low).fillna(0), 0.05, 0.95).to_numpy(),
    )
    found = analysis.analyse(PROJECT, SECOND.protocol, recorded, SECOND.asked, SECOND.people, HOW)
    assert found.usable == ["openbookqa", "commonsenseqa"]
    row = tabled(found).loc[("experts", "expert, short - no persona | in-domain, accuracy")]
    assert row["n"] == 75
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
    floor = found.loc[("permutation_floor", SECOND.protocol.families["permutation_floor"].hypotheses[0])]
    assert floor["estimate"] == pytest.approx(0.05 - 432 / 5001)
    assert verdicts(null).loc["permutation_floor", "verdict"] == "contradicted"
