"""The declared analysis of the second protocol of clinical personas: planted effects, none, and failed gates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from clinical_personas import analysis_2 as analysis
from persona_studies.analyse.families import Settings
from tests.simulated_letters import Second, answers

SECOND = Second("clinical_personas")
PROJECT = SECOND.project
HOW = Settings(alpha=0.05, confidence=0.95, correction="holm", replicates=1999, seed=1)
NAMED = ["Emergency care now.", "Within one day.", "Within one week.", "Self-care."]


def run(
    *,
    care: dict[str, float] | None = None,
    moved: dict[str, float] | None = None,
    sharp: float = 2.0,
    seed: int = 1,
) -> analysis.Analysis:
    """Analyse answers of a model that follows urgency.

    Args:
        care: Who -> what is added to the log-odds of the right option in critical, and subtracted in primary care.
        moved: Who -> places by which all answers move towards the less urgent.
        sharp: How closely answers follow the true place.
        seed: Of noise that belongs to a case, and to a case and condition.
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
            sign = {"critical": 1, "primary": -1}.get(setting, 0)
            logit[gold] += sign * (care or {}).get(name, 0.0)
            shares[row, :n] = np.exp(logit - logit.max()) / np.exp(logit - logit.max()).sum()
        return np.clip(shares, 1e-6, None)

    def replies(cells: pd.DataFrame) -> list[str]:
        steps = cells["condition"].map(who).map(moved or {}).fillna(0).round()
        return [NAMED[int(place)] for place in (cells["gold"] + steps).clip(0, 3)]

    recorded = answers(SECOND.plan, SECOND.asked, probability, replies=replies)
    return analysis.analyse(PROJECT, SECOND.protocol, recorded, SECOND.asked, SECOND.people, HOW)


@pytest.fixture(scope="module")
def planted() -> analysis.Analysis:
    bold = {f"{role}-bold": 0.6 for role in ("none", "assistant", "physician", "nurse")}
    return run(care={"physician": 1.0, "wrong": 0.0}, moved={**bold, "least-urgent": 1.0, "wrong": 1.5})


@pytest.fixture(scope="module")
def null() -> analysis.Analysis:
    return run()


def tabled(found: analysis.Analysis) -> pd.DataFrame:
    return found.tests.set_index(["family", "hypothesis"])


def verdicts(found: analysis.Analysis) -> pd.DataFrame:
    return found.verdicts.set_index("claim")


def test_every_family_is_tested_at_its_size(planted: analysis.Analysis) -> None:
    sizes = planted.tests.groupby("family", sort=False).size()
    assert sizes.to_dict() == {name: family.size for name, family in SECOND.protocol.families.items()}
    n = tabled(planted)["n"]
    assert n.loc[("care", "physician - assistant | cases, critical, accuracy")] == 44
    assert n.loc[("care", "physician - assistant | cases, primary, accuracy")] == 49
    assert n.loc[("care", "physician - assistant | cases, critical - primary, accuracy")] == 118
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
    assert not verdicts(planted)["why"].str.contains("not steerable").any()


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
    assert said.loc["critical_gain", "why"].endswith("not steerable")
    assert said.loc["style", "why"].endswith("not steerable")


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
