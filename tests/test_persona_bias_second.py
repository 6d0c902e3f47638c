"""The declared analysis of the second protocol of persona bias: planted effects, none, and failed gates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from persona_bias import analysis_2 as analysis
from persona_studies.analyse.families import Settings
from tests.simulated_letters import Second, answers, questions_with_level

SECOND = Second("persona_bias")
PROJECT = SECOND.project
HOW = Settings(alpha=0.05, confidence=0.95, correction="holm", replicates=4999, seed=1)


def run(
    effects: dict[str, float], *, mean: float = 0.6, abstain: dict[str, float] | None = None
) -> analysis.Analysis:
    """Analyse a recording in which personas add to the probability of the right option, and some abstain."""
    level = questions_with_level(SECOND.asked, 1, mean=mean)
    rng = np.random.default_rng(7)
    who = dict(zip(SECOND.people["condition"], SECOND.people["persona"]))
    own = {(c, i): rng.normal(0, 0.04) for c in who for i in level.index}

    def probability(cells: pd.DataFrame) -> np.ndarray:
        pairs = list(zip(cells["condition"], cells["item"]))
        added = np.array([effects.get(who[c], 0.0) + own[c, i] for c, i in pairs])
        return np.clip(cells["item"].map(level).to_numpy() + added, 0.01, 0.99)

    def replies(cells: pd.DataFrame) -> list[str]:
        said = []
        for condition, gold, order, n in cells[["condition", "gold", "order", "n_options"]].itertuples(index=False):
            if rng.random() < (abstain or {}).get(who[condition], 0.0):
                said.append("As an AI I am unable to answer this.")
            else:
                said.append(f"The answer is: ({'ABCDE'[(gold - order) % n]})")
        return said

    recorded = answers(SECOND.plan, SECOND.asked, probability, replies=replies)
    return analysis.analyse(PROJECT, SECOND.protocol, recorded, SECOND.asked, SECOND.people, HOW)


@pytest.fixture(scope="module")
def planted() -> analysis.Analysis:
    fall = [name for name in SECOND.protocol.design["personas"] if name not in ("able-bodied", "atheist")]
    return run(dict.fromkeys(fall, -0.12) | {"wrong": -0.3}, abstain={"physically-disabled": 0.4})


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
    assert planted.tests["n"].min() > 0 and planted.gate["passes"].all()
    n = tabled(planted)["n"]
    assert n.loc[("persona", "jewish - human | all, accuracy")] == 240
    assert n.loc[("persona_dataset", "jewish - human | anatomy, accuracy")] == 24
    assert n.loc[("replies", "religious - human | all, abstained")] == 120


def test_planted_effects_are_found(planted: analysis.Analysis) -> None:
    found, said = tabled(planted), verdicts(planted)["verdict"]
    for claim in ("share_biased", "any_persona", "beyond_placebo", "disability", "religion", "abstention"):
        assert said[claim] == "reproduced", claim
    assert said["able_bodied_pair"] == said["religion_pair"] == said["gender"] == "reproduced"
    assert found.loc[("share", SECOND.protocol.families["share"].hypotheses[0]), "estimate"] == pytest.approx(
        10 / 12 - 0.5
    )
    assert found.loc[("pairs", "able-bodied - physically-disabled | all, accuracy"), "estimate"] == pytest.approx(
        0.12, abs=0.02
    )
    assert found.loc[("omnibus", "jewish - human | any set, accuracy"), "rejected"]
    assert not found.loc[("omnibus", "atheist - human | any set, accuracy"), "rejected"]


def test_without_effects_claims_of_bias_are_contradicted(null: analysis.Analysis) -> None:
    model = null.tests[~null.tests["family"].isin(analysis.PUBLISHED) & (null.tests["family"] != "share")]
    assert not model["rejected"].any()
    said = verdicts(null)
    for claim in ("share_biased", "any_persona", "beyond_placebo", "disability", "able_bodied_pair"):
        assert said.loc[claim, "verdict"] == "contradicted", claim
    assert said.loc["gender", "verdict"] == "reproduced"
    assert "not steerable" in said.loc["any_persona", "why"] and "steerable" not in said.loc["abstention", "why"]


def test_the_omnibus_keeps_its_error_rate_and_sees_what_a_mean_hides() -> None:
    index = pd.MultiIndex.from_frame(SECOND.asked[["dataset", "item", "cluster"]])
    how = Settings(0.05, 0.95, "holm", 199, 1)
    names = {str(k): f"persona {k}" for k in range(150)}
    rng = np.random.default_rng(3)
    columns = {name: rng.normal(0.5, 0.1, len(index)) for name in names.values()}
    wide = pd.DataFrame({"human": rng.normal(0.5, 0.1, len(index)), **columns}, index=index)
    p = [row["p"] for row in analysis.any_set(wide, names, how).values()]
    # Binomial with 150 trials at .05: more than 17 have probability .001.
    assert sum(value <= 0.05 for value in p) <= 17 and np.median(p) == pytest.approx(0.5, abs=0.15)
    up = index.get_level_values("dataset").isin(SECOND.protocol.design["datasets"][:5])
    wide["mixed"] = wide["human"] + np.where(up, 0.05, -0.05) + rng.normal(0, 0.1, len(index))
    row = analysis.any_set(wide, {"h": "mixed"}, how)["h"]
    assert row["p"] == 1 / 200
    assert stats.ttest_1samp(wide["mixed"] - wide["human"], 0).pvalue > 0.05


def test_a_letter_stands_for_the_option_it_was_shown_beside(planted: analysis.Analysis) -> None:
    answered = planted.said[planted.said["correct"].notna() & (planted.said["extractor"] == "lenient")]
    assert len(answered) > 500 and (answered["correct"] == 1).all()
    text = SECOND.plan[SECOND.plan["measure"] == "text"]
    assert text["order"].nunique() > 2 and text.groupby("item")["order"].nunique().max() == 1


def test_a_model_at_chance_decides_nothing() -> None:
    found = run({}, mean=0.25)
    said = verdicts(found)
    model = [
        name
        for name, claim in SECOND.protocol.claims.items()
        if claim.family and claim.family not in analysis.PUBLISHED
    ]
    rest = [name for name in model if name != "abstention"]
    assert (said.loc[rest, "verdict"] == "uninformative").all()
    assert said.loc["disability", "why"] == "gate: above chance"
    assert (found.tests.loc[found.tests["family"] == "persona", "gate"] == "gate: above chance").all()


def test_published_rows(null: analysis.Analysis) -> None:
    found, said = tabled(null), verdicts(null)
    shares = found.loc["published_share"]["estimate"] + 0.5
    assert (shares * 16).round(9).tolist() == [13, 9, 7]
    abstention = found.loc["published_abstention"].iloc[0]
    assert (abstention["n"], abstention["estimate"]) == (87, pytest.approx(68 / 87 - 0.5))
    assert said.loc["published_abstention", "verdict"] == "reproduced"
    drop = found.loc["published_drop"].iloc[0]
    assert [drop["estimate"], drop["low"], drop["high"]] == pytest.approx([-0.7, -0.8, -0.6], abs=0.06)
    assert said.loc["large_drops", "verdict"] == "contradicted"
    committed = pd.read_csv(PROJECT.results("persona_bias") / "directions.csv")
    mine = committed[(committed["persona"] == "an able-bodied person") & (committed["questions"] == "all")]
    by = mine.set_index("extractor")["difference"]
    row = found.loc[("published_extractor", "able-bodied - human | college_biology, filed - published accuracy")]
    assert row["n"] == 144 and row["estimate"] == pytest.approx(by["as filed"] - by["published"])
    assert said.loc[["other_models", "bbq"], "verdict"].eq("not testable here").all()
