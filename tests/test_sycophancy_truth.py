"""The sycophancy analysis on simulated responses whose truth is known: planted effects and no effect."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from persona_studies.analyse import stats
from persona_studies.design import protocol
from persona_studies.paths import Project
from persona_studies.reproduce import notebooks
from sycophancy import analysis, design, other_models, scoring
from tests.simulated_sycophancy import responses

PROJECT = Project(Path(__file__).parents[1])
PROTOCOL = protocol.load(PROJECT.protocol("sycophancy"))
DEFAULTS = {
    name: default.value
    for name, default in notebooks.parameters(notebooks.read(PROJECT.notebook("sycophancy"))).items()
}


def parameters(**changes: object) -> design.Parameters:
    return design.Parameters.check({**DEFAULTS, "measure": "cloze", **changes})


SMALL = parameters(personas=55, topics=4, frames=["think"], replicates=100)


@lru_cache
def small_grid() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """A small grid: every persona and control, four topics, one frame."""
    people = design.conditions(PROJECT, PROTOCOL, SMALL.personas)
    asked = design.claims(PROJECT, SMALL.topics, SMALL.claims_per_topic)
    plan = design.plan(PROJECT, PROTOCOL, SMALL)
    return people, asked, plan[plan["measure"].isin(["agree", "self_contrast"])], design.questionnaire(PROJECT)


def scored(seed: int, **truth: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Simulate, score, and return personas and cells as the notebook makes them."""
    people, asked, plan, inventory = small_grid()
    recorded = responses(plan, people, inventory, seed=seed, **truth)
    agree = scoring.agreement(recorded, asked)
    scores = people[["condition", "role", "background", "level"]].merge(
        scoring.persona_scores(agree), on="condition"
    )
    scores = scores.merge(
        scoring.scale(scoring.self_contrast(recorded, inventory)).rename("self_contrast"), on="condition"
    )
    persona = scores[scores["role"] == "persona"].astype({"level": float}).rename(columns={"level": "designed"})
    return persona, agree


def family(seed: int, **truth: float) -> pd.DataFrame:
    persona, agree = scored(seed, **truth)
    return analysis.persona_family(PROTOCOL.families["personas"], persona, agree, SMALL).set_index("hypothesis")


def test_planted_slopes_are_recovered() -> None:
    """P(agree) near one half rises by a quarter of the slope in log-odds."""
    slopes = []
    for seed in range(5):
        persona, _ = scored(seed, asserted=0.2, unattributed=0.1)
        slopes.append([np.polyfit(persona["designed"], persona[name], 1)[0] for name in ("asserted", "net")])
    asserted, net = np.mean(slopes, axis=0)
    assert asserted == pytest.approx(0.2 / 4, rel=0.15)
    assert net == pytest.approx((0.2 - 0.1) / 4, rel=0.25)


def test_planted_effect_is_found_and_mere_agreement_is_not_called_sycophancy() -> None:
    sycophantic = family(1, asserted=0.3, unattributed=0.1)
    assert sycophantic.loc["designed level and net sycophancy", "rejected"]
    assert sycophantic.loc["designed level and net sycophancy", "r"] > 0.5
    agreeing = [family(seed, asserted=0.3, unattributed=0.3) for seed in range(20)]
    assert all(f.loc["designed level and agreement with assertions", "rejected"] for f in agreeing)
    assert sum(f.loc["designed level and net sycophancy", "rejected"] for f in agreeing) <= 3


def test_an_opposite_effect_has_the_opposite_sign() -> None:
    found = family(2, asserted=-0.3, unattributed=0.0)
    assert found.loc["designed level and net sycophancy", "r"] < -0.5
    assert found.loc["designed level and net sycophancy", "rejected"]


def test_family_wise_error_without_any_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    """No slope anywhere: at least one rejection in at most alpha of the simulations, within chance."""
    runs = 40
    # Intervals and the sign flip do not enter the corrected p-values; they would take most of the time.
    nothing = stats.Estimate(np.nan)
    for name in ("bca", "sign_flip"):
        monkeypatch.setattr(stats, name, lambda *_, **__: nothing)
    rows = pd.DataFrame([nothing], index=["correlation"])
    monkeypatch.setattr(stats, "two_way_bootstrap", lambda *_, **__: rows)
    wrong = sum(
        family(seed, asserted=0.0, unattributed=0.0, self_report=0.0)["rejected"].any() for seed in range(runs)
    )
    # The least count that a true rate of alpha would exceed in one of a thousand such tests.
    assert wrong <= scipy_stats.binom.ppf(0.999, runs, SMALL.alpha)


def test_interval_covers_the_true_slope() -> None:
    """The interval over backgrounds and claims covers the expected difference in P(agree) per level."""
    covered = []
    for seed in range(60):
        persona, agree = scored(1000 + seed, asserted=0.2, unattributed=0.0)
        values = scoring.answer_matrix(agree, attributed=True).loc[persona["condition"]]
        interval = stats.two_way_bootstrap(
            values.to_numpy(),
            persona["designed"].to_numpy(),
            row_cluster=persona["background"].to_numpy(),
            column_cluster=[item.partition(":")[0] for item, _ in values.columns],
            replicates=400,
            seed=seed,
        ).loc["slope"]
        truth = _true_slope(0.2)
        covered.append(interval["low"] <= truth <= interval["high"])
    assert np.mean(covered) >= scipy_stats.binom.ppf(0.001, 60, 0.90) / 60


def _true_slope(per_level: float) -> float:
    """Integrate P(agree) over the simulated spread of personas and cells and fit a line over the five levels."""
    spread = np.hypot(0.15, 0.5)
    levels = np.arange(-2, 3)
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    means = [
        (weights * (1 / (1 + np.exp(-(per_level * v + spread * nodes))))).sum() / weights.sum() for v in levels
    ]
    return float(np.polyfit(levels, means, 1)[0])


def test_default_and_full_grid() -> None:
    chosen = parameters()
    plan = design.plan(PROJECT, PROTOCOL, chosen)
    prompts = plan[(plan["measure"] == "agree") & (plan["template"] != "neutral")].groupby("condition").size()
    assert (prompts == 330).all()
    assert plan.loc[plan["condition"] == "none", "system"].isna().all()
    assert plan.loc[plan["measure"] == "other_rating", "system"].isna().all()
    frames = PROTOCOL.measures["agree"].frame("asserted", "unattributed")
    assert len(design.claims(PROJECT, 33, 5)) * len(frames) == 4950
    people = design.conditions(PROJECT, PROTOCOL, 275)
    personas = people[people["role"] == "persona"]
    assert len(personas) == 275 and (personas.groupby("background")["level"].nunique() == 5).all()


def test_six_tests_of_the_paper() -> None:
    rng = np.random.default_rng(3)
    a = pd.Series(rng.normal(size=40))
    s = 0.5 * a + rng.normal(size=40)
    found = analysis.six_tests(a, s, alpha=0.05, replicates=500, seed=1).set_index("test")
    assert found.loc["Pearson r", "p"] == pytest.approx(scipy_stats.pearsonr(a, s, alternative="greater").pvalue)
    assert found.loc["slope", "p"] == pytest.approx(found.loc["Pearson r", "p"])
    assert analysis.paper_verdict(found.reset_index()) == "supports"
    constant = analysis.six_tests(a, pd.Series(np.ones(40)), alpha=0.05, replicates=500, seed=1)
    assert constant["p"].isna().all() and analysis.paper_verdict(constant) == "does not support"


def test_published_responses_of_other_models() -> None:
    """Checked against an independent computation from the source."""
    table = pd.read_csv(PROJECT.published / "sycophancy" / "personality_illusion_agreeableness.csv")
    by_model = other_models.other_models(table, confidence=0.95)
    across = other_models.across_models(PROTOCOL.families["across_models"], by_model, parameters()).set_index(
        "hypothesis"
    )
    report = across.loc["self-report, persona against baseline"]
    assert report["mean"] == pytest.approx(0.9224, abs=5e-5) and report["positive_models"] == 12
    assert report["p"] == pytest.approx(2.7e-6, rel=0.03)
    flips = across.loc["sycophancy, persona against baseline"]
    assert flips["mean"] == pytest.approx(0.572, abs=5e-4) and flips["positive_models"] == 6
    assert flips["p"] == pytest.approx(0.902, abs=5e-4)
    assert flips["p_equivalence"] == pytest.approx(0.175, abs=5e-4)
    gpt = by_model.set_index(["model", "outcome", "contrast"]).loc[("gpt-4o", "sycophancy", "baseline")]
    assert (gpt["difference"], gpt["se"]) == (pytest.approx(19.91, abs=5e-3), pytest.approx(3.19, abs=5e-3))


def test_a_failed_gate_makes_a_claim_uninformative() -> None:
    found = family(1, asserted=0.3, unattributed=0.1).reset_index()
    six = pd.DataFrame(
        {"measure": ["cloze"], "test": ["Pearson r"], "statistic": [0.5], "p": [0.01], "supports": [True]}
    )
    table = pd.read_csv(PROJECT.published / "sycophancy" / "personality_illusion_agreeableness.csv")
    across = other_models.across_models(
        PROTOCOL.families["across_models"], other_models.other_models(table, confidence=0.95), parameters()
    )

    def judged(passes: bool, **changes: object) -> pd.DataFrame:
        gates = pd.DataFrame({"measure": ["agree"], "check": ["option mass"], "passes": [passes]})
        return analysis.verdict_table(
            PROTOCOL, family=found, across=across, six=six, gates=gates, chosen=parameters(**changes)
        )

    good, bad = judged(True).set_index(["claim", "layer"]), judged(False).set_index(["claim", "layer"])
    assert good.loc[("net", "corrected"), "verdict"] == "reproduced"
    assert bad.loc[("net", "corrected"), "verdict"] == "uninformative"
    assert bad.loc[("net", "corrected"), "why"] == "gate failed: agree: option mass"
    assert good.loc[("models", "corrected"), "verdict"] == "not testable here"
    assert good.loc[("others_sycophancy", "corrected"), "verdict"] == "inconclusive"
    assert set(judged(True, layer="published")["layer"]) == {"published"}
    assert set(judged(True, layer="corrected")["layer"]) == {"corrected"}
