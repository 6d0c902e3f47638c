"""The re-analysis on simulated answers: planted effects are found, none are made up; parts by hand."""

from __future__ import annotations

from math import isnan, sqrt

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats as sp
from statsmodels.stats.multitest import multipletests

from neurodivergence import analysis, paper, raters
from neurodivergence import design as study
from neurodivergence import figures as draw
from neurodivergence import verdicts as judging
from persona_studies.design import protocol as protocols
from persona_studies.design import sources
from persona_studies.errors import ParameterError
from persona_studies.paths import Project
from tests.conftest import drawn
from tests.kit.simulated_neurodivergence import DOMAINS, MODELS, answers, parameters, scores

PROJECT = Project.find()
PROTOCOL = protocols.load(PROJECT.protocol("neurodivergence"))
TEXT = """# Plan
Some words first.

1. Open the **door** now
   - and look
2) Leave

NEXT STEPS:
**Afterwards**
* rest
That is all."""


def test_structure_of_a_text_counted_by_hand() -> None:
    found = study.structure(TEXT)
    assert found["heading_count"] == 3
    assert found["list_density"] == pytest.approx(4 / 11)
    assert found["whitespace_ratio"] == pytest.approx(2 / 11)
    # "Open the **door** now - and look" and "Leave NEXT STEPS: **Afterwards** * rest That is all."
    assert found["step_count"] == 2 and found["mean_step_words"] == pytest.approx((7 + 9) / 2)
    assert found["own_line_words"] == pytest.approx((4 + 1) / 2)
    empty = study.structure("No list here.")
    assert (empty["step_count"], empty["mean_step_words"], empty["own_line_words"]) == (0, 0.0, 0.0)
    assert study.structure("") == dict.fromkeys(found, 0.0) | {"whitespace_ratio": 1.0}


def test_where_a_published_fit_stopped_is_read_from_its_standard_error() -> None:
    """Queries differ; the standard error of a converged fit is exact in a balanced design."""
    rows = answers(np.random.default_rng(3))
    exact = smf.ols("token_count ~ C(condition_id) + C(model) + C(query_id)", rows).fit()
    se = exact.bse["C(condition_id)[T.C2]"]
    refitted = paper.wald(rows, ["token_count"])
    at_zero = sqrt(exact.ssr / exact.df_resid / (exact.ssr / (len(rows) - 4)))
    for factor, stopped in ((1.0, False), (1 / at_zero, True), (1.05, False)):
        said = refitted[["scope", "metric", "contrast", "estimate"]].assign(se=se * factor)
        said["p"] = said["p_holm"] = 2 * sp.norm.sf((said["estimate"] / said["se"]).abs())
        tables = study.Published(said, pd.DataFrame(), pd.DataFrame())
        made = paper.reproduction(refitted, tables, parameters())
        assert (made["at_zero"] == stopped).all() and made["same_decision"].all()
        assert made["se_off"].max() == pytest.approx(0.05 / 1.05 if factor > 1.04 else 0, abs=1e-4)
        [found] = paper.fits(refitted, made).to_dict("records")
        assert found["published_at_zero"] == stopped and found["se_ratio"] == pytest.approx(factor, rel=1e-4)
        assert found["share_between_queries"] == pytest.approx(0.5, abs=0.2)


def test_parameters_refuse_what_the_benchmark_lacks() -> None:
    with pytest.raises(ParameterError, match="metrics"):
        parameters(metrics=["words"])
    with pytest.raises(ParameterError, match="unit"):
        parameters(unit="profile")


def test_a_planted_effect_is_estimated_and_found() -> None:
    rng = np.random.default_rng(1)
    chosen = parameters(metrics=["token_count", "heading_count"], replicates=20_000)
    rows = answers(rng, effects={"C1": 0.8, "C2": 1.2}, heterogeneity=0.3, metrics=("token_count", "heading_count"))
    table = analysis.contrasts(rows, PROTOCOL, chosen).set_index("hypothesis")
    for metric in ("token_count", "heading_count"):
        for condition, effect in (("C1", 0.8), ("C2", 1.2)):
            row = table.loc[f"{metric}: {condition} - C0"]
            assert row["n"] == 24 and row["rejected"] and not row["equivalent"]
            assert row["low"] * row["sd"] < effect < row["high"] * row["sd"]
            assert row["difference"] == pytest.approx(effect, abs=3 * row["se"])
    response = analysis.contrasts(rows, PROTOCOL, chosen.model_copy(update={"unit": "response"}))
    assert set(response["n"]) == {192}
    np.testing.assert_allclose(response["difference"], table["difference"], atol=1e-12)


def test_a_contrast_equals_a_paired_t_test_of_query_means() -> None:
    rows = answers(np.random.default_rng(2), effects={"C2": 0.4}, heterogeneity=0.5)
    chosen = parameters(metrics=["token_count"])
    row = analysis.contrasts(rows, PROTOCOL, chosen).set_index("hypothesis").loc["token_count: C2 - C0"]
    means = rows.pivot_table(index="query_id", columns="condition_id", values="token_count")
    test = sp.ttest_rel(means["C2"], means["C0"])
    interval = test.confidence_interval(0.95)
    unit = analysis.scale(rows, "token_count")
    assert (row["low"] * unit, row["high"] * unit) == pytest.approx((interval.low, interval.high))
    assert row["p"] == pytest.approx(test.pvalue, abs=0.02)
    lower = sp.ttest_1samp((means["C2"] - means["C0"]) / unit, -0.2, alternative="greater").pvalue
    upper = sp.ttest_1samp((means["C2"] - means["C0"]) / unit, 0.2, alternative="less").pvalue
    assert row["p_equivalence"] == pytest.approx(max(lower, upper))


METRICS = ("token_count", "list_density", "heading_count")


def papers_error(rows: pd.DataFrame, metric: str) -> float:
    """Return the paper's standard error of a contrast, which in a balanced design has a closed form."""
    y = rows[metric]
    parts = [y.groupby(rows[name]).transform("mean") for name in ("query_id", "condition_id", "model")]
    residual = y - sum(parts) + 2 * y.mean()
    return float(np.sqrt(2 * (residual**2).sum() / (len(rows) - 24 - 2 - 1) / 192))


def test_family_wise_error_when_queries_answer_in_their_own_way() -> None:
    """The query-level family keeps its error rate; a Wald test with a random intercept alone does not."""
    rng = np.random.default_rng(3)
    metrics = METRICS[:2]
    chosen = parameters(metrics=list(metrics))
    families = 50
    wrong = rejected = 0
    for _ in range(families):
        rows = answers(rng, heterogeneity=0.7, metrics=metrics)
        table = analysis.contrasts(rows, PROTOCOL, chosen)
        wrong += bool(table["rejected"].any())
        d = table.set_index("hypothesis").loc["token_count: C2 - C0", "difference"]
        rejected += abs(d / papers_error(rows, "token_count")) > 1.96
    # At most .05 up to chance in so many families; the four tested here are part of one of 34.
    assert wrong <= sp.binom.ppf(0.999, families, 0.05)
    assert rejected / families > 0.15


def test_the_closed_form_above_is_the_papers_fit_and_its_size_is_estimated() -> None:
    rng = np.random.default_rng(4)
    rows = answers(rng, heterogeneity=0.7)
    chosen = parameters(metrics=["token_count"], replicates=4000)
    fits = paper.wald(rows, ["token_count"])
    se = papers_error(rows, "token_count")
    assert fits["se"].tolist() == pytest.approx([se, se], rel=0.03)
    means = rows.groupby("condition_id")["token_count"].mean()
    assert fits["estimate"].tolist() == pytest.approx([means["C1"] - means["C0"], means["C2"] - means["C0"]])
    both = analysis.beside(analysis.contrasts(rows, PROTOCOL, chosen), fits, rows, chosen)
    # Standard deviation of a mean difference over its Wald standard error, from what was planted.
    truth = np.sqrt(2 * (0.7**2 + 1 / 8) / 24) / se
    assert both["se_ratio"].mean() == pytest.approx(truth, rel=0.3)
    expected = 2 * sp.norm.sf(1.96 / both["se_ratio"])
    np.testing.assert_allclose(both["size_of_wald"], expected, atol=0.05)
    calm = answers(rng)
    steady = analysis.beside(
        analysis.contrasts(calm, PROTOCOL, chosen), paper.wald(calm, ["token_count"]), calm, chosen
    )
    assert steady["size_of_wald"].max() < 0.15


def test_no_effect_is_shown_by_equivalence_only_with_enough_precision() -> None:
    rng = np.random.default_rng(5)
    chosen = parameters(metrics=["token_count"])
    calm = analysis.contrasts(answers(rng), PROTOCOL, chosen.model_copy(update={"margin": 0.5}))
    assert calm["equivalent"].all() and not calm["rejected"].any()
    loose = analysis.contrasts(answers(rng, heterogeneity=2.0), PROTOCOL, chosen)
    assert not loose["equivalent"].any() and not loose["rejected"].any()
    # The power of the test for the margin, and the effect it finds with power .8.
    assert (loose["power_margin"] < 0.2).all() and (loose["minimum_detectable"] > 0.2).all()


def test_opposite_effects_of_two_models_cancel_in_the_pool_alone() -> None:
    rows = answers(np.random.default_rng(6), metrics=("list_density",))
    sign = rows["model"].map({MODELS[0]: -1.0, MODELS[1]: 1.0})
    rows["list_density"] += 1.5 * sign * (rows["condition_id"] == "C2")
    chosen = parameters(metrics=["list_density"], replicates=20_000)
    pooled = analysis.contrasts(rows, PROTOCOL, chosen).set_index("hypothesis").loc["list_density: C2 - C0"]
    single = analysis.by_model(rows, PROTOCOL, chosen).set_index("hypothesis")
    assert not pooled["rejected"] and abs(pooled["estimate"]) < 0.2
    for model, way in zip(MODELS, (-1, 1), strict=True):
        row = single.loc[f"{model} list_density: C2 - C0"]
        assert row["rejected"] and np.sign(row["estimate"]) == way


def test_steps_that_are_more_frequent_but_no_longer() -> None:
    rng = np.random.default_rng(7)
    rows = answers(rng)
    chance = rows["condition_id"].map({"C0": 0.3, "C1": 0.5, "C2": 0.8})
    rows["step_count"] = np.where(rng.random(len(rows)) < chance, 4, 0)
    length = rng.normal(30, 5, len(rows))
    rows["mean_step_words"] = np.where(rows["step_count"] > 0, length, 0.0)
    rows["own_line_words"] = rows["mean_step_words"] / 3
    chosen = parameters(replicates=20_000)
    parts = analysis.steps(rows, PROTOCOL, chosen).set_index("hypothesis")
    assert parts.loc["any steps: C2 - C0", "difference"] == pytest.approx(0.5, abs=0.12)
    assert parts.loc["any steps: C2 - C0", "rejected"]
    assert not parts.loc[["depth: C2 - C0", "own line: C2 - C0"], "rejected"].any()
    # With zeros for answers without steps, the same data give longer steps.
    as_published = analysis.contrasts(rows, PROTOCOL, chosen.model_copy(update={"metrics": ("mean_step_words",)}))
    assert as_published["rejected"].all() and (as_published["estimate"] > 0).all()
    shares = analysis.step_shares(rows).set_index(["model", "condition_id"])
    first = rows[(rows["model"] == MODELS[0]) & (rows["condition_id"] == "C0")]
    assert shares.loc[(MODELS[0], "C0"), "with_steps"] == (first["step_count"] > 0).mean()
    assert shares.loc[(MODELS[0], "C0"), "mean_with_steps"] == pytest.approx(
        first.loc[first["step_count"] > 0, "mean_step_words"].mean()
    )
    assert drawn(draw.plot_steps(shares.reset_index())) > 4_000


def test_a_query_without_steps_in_a_condition_leaves_the_comparison() -> None:
    rows = answers(np.random.default_rng(8)).assign(step_count=1, mean_step_words=10.0, own_line_words=5.0)
    gone = (rows["query_id"] == "Q01") & (rows["condition_id"] == "C0")
    rows.loc[gone, "step_count"] = 0
    parts = analysis.steps(rows, PROTOCOL, parameters()).set_index("hypothesis")
    assert parts.loc["any steps: C2 - C0", "n"] == 24 and parts.loc["depth: C2 - C0", "n"] == 23
    # Nothing varies, so nothing is tested, and the family still counts it.
    assert isnan(parts.loc["depth: C2 - C0", "p"]) and parts.loc["depth: C2 - C0", "p_adjusted"] == 1


def test_noise_of_repetitions_and_spread_over_profiles() -> None:
    rng = np.random.default_rng(9)
    rows = answers(rng, effects={"C2": 1.0})
    shift = dict(zip([f"P{k}" for k in range(1, 5)], rng.normal(0, 3, 4), strict=True))
    rows["token_count"] += np.where(rows["condition_id"] == "C0", 0, rows["profile_id"].map(shift))
    chosen = parameters(metrics=["token_count"])
    effects = analysis.contrasts(rows, PROTOCOL, chosen)
    found = analysis.noise(rows, effects, chosen).iloc[0]
    unit = analysis.scale(rows, "token_count")
    assert found["noise"] * unit == pytest.approx(1, abs=0.15)
    assert found["profiles_C1"] * unit == pytest.approx(np.sqrt(np.var(list(shift.values()), ddof=1) + 1), rel=0.15)
    # Two halves of four repetitions over 48 sets: standard error 1 / sqrt(48).
    assert found["null_95"] * unit == pytest.approx(1.96 / np.sqrt(48), rel=0.2)
    assert found["share"] == pytest.approx(found["noise"] ** 2)
    assert drawn(draw.plot_noise(analysis.noise(rows, effects, chosen))) > 4_000


def test_repeated_calls_that_give_the_same_text_or_not() -> None:
    rows = answers(np.random.default_rng(10))
    same = rows.assign(text=rows["query_id"])
    each = rows.assign(text=[str(place) for place in range(len(rows))])
    chosen = parameters()
    assert analysis.differing_calls(same, chosen)["estimate"] == 0
    assert analysis.differing_calls(each, chosen)["estimate"] == 1
    half = rows.assign(text=np.where(rows["profile_id"].isin(["P1", "P2"]), "a", "b"))
    assert analysis.differing_calls(half, chosen)["estimate"] == pytest.approx(4 / 6)
    assert analysis.repetitions(half, chosen)[["different", "queries"]].to_numpy().tolist() == [[2, 24], [2, 24]]


def test_judges_who_agree_pass_and_others_do_not() -> None:
    chosen = parameters()
    close = raters.agreement(scores(np.random.default_rng(11), slip=0.05), chosen)
    gated = raters.gated(close, PROTOCOL, 2).set_index("metric")
    assert gated["point_passes"].all() and gated["passes"].all()
    assert set(close["domain"]) == {"all", *DOMAINS} and (close["queries"].isin([24, 6])).all()
    noisy = scores(np.random.default_rng(12), slip=0.05)
    lost = noisy["judge"] == MODELS[0]
    noisy.loc[lost, "infantilization"] = np.random.default_rng(13).integers(0, 5, lost.sum())
    gated = raters.gated(raters.agreement(noisy, chosen), PROTOCOL, 2).set_index("metric")
    assert not gated.loc["infantilization", "passes"] and gated.loc["masking_reinforcement", "passes"]
    assert raters.agreement(noisy, parameters(judges=MODELS[:1])).empty
    assert drawn(draw.plot_agreement(close, 0.67)) > 4_000


def test_the_mean_of_two_judges_is_more_reliable_than_one() -> None:
    one = pd.DataFrame([{"domain": "all", "metric": "validation_quality", "alpha": 0.7, "low": 0.55, "high": 0.8}])
    alone, both = (raters.gated(one, PROTOCOL, judges).iloc[0] for judges in (1, 2))
    assert alone["mean_low"] == 0.55 and not alone["passes"] and alone["point_passes"]
    assert both["mean_low"] == pytest.approx(1.1 / 1.55) and both["passes"]


@pytest.mark.parametrize(("sign", "opposite"), [(-1.0, True), (1.0, False)])
def test_models_that_move_apart_are_found_and_named(sign: float, opposite: bool) -> None:
    metrics = ("list_density",)
    chosen = parameters(metrics=list(metrics), replicates=20_000)
    first, second = MODELS
    rows = answers(np.random.default_rng(21), effects={"C2": 1.5}, metrics=metrics)
    moved = (rows["model"] == second) & (rows["condition_id"] == "C2")
    rows.loc[moved, "list_density"] += (sign - 1.0) * 1.5 if opposite else 0.0
    found = analysis.interactions(rows, PROTOCOL, chosen).set_index("hypothesis").loc["list_density: C2 - C0"]
    assert found["rejected"] == opposite
    assert (found["rising"], found["falling"]) == ((first, second) if opposite else ("", ""))
    assert analysis.interactions(rows[rows["model"] == first], PROTOCOL, chosen).empty


def test_a_judge_that_favours_its_own_model_is_found() -> None:
    chosen = parameters(replicates=5000)
    fair = raters.self_and_cross(scores(np.random.default_rng(14), slip=0.3), PROTOCOL, chosen)
    assert not fair.loc[fair["judged"] == "self - cross", "rejected"].astype(bool).any()
    biased = raters.self_and_cross(scores(np.random.default_rng(15), slip=0.3, favour=1.0), PROTOCOL, chosen)
    apart = biased[biased["judged"] == "self - cross"].set_index("hypothesis")
    assert apart.loc["validation_quality: C2 - C0", "rejected"]
    assert apart.loc["validation_quality: C2 - C0", "difference"] == pytest.approx(1, abs=0.25)
    assert not apart.loc["validation_quality: C1 - C0", "rejected"]
    assert drawn(draw.plot_judges(biased, ["validation_quality"])) > 4_000


def test_scopes_only_widen() -> None:
    rng = np.random.default_rng(16)
    chosen = parameters(metrics=list(METRICS))
    rows = answers(rng, effects={"C2": 0.35}, heterogeneity=0.2, metrics=METRICS)
    fits = paper.every_wald(rows, METRICS)
    both = analysis.beside(analysis.contrasts(rows, PROTOCOL, chosen), fits, rows, chosen)
    table = paper.scopes(both, analysis.by_model(rows, PROTOCOL, chosen), fits, chosen)
    assert (table["p"] <= table["within_metric"] + 1e-12).all()
    assert (table["within_metric"] <= table["within_study"] + 1e-12).all()
    assert (table["within_study"] <= table["all"] + 1e-12).all()
    counts = analysis.counted(table, chosen)
    assert (counts["uncorrected"] >= counts["within_metric"]).all() and set(counts["contrasts"]) == {6}
    assert drawn(draw.plot_scopes(table, 0.05)) > 4_000
    assert drawn(draw.plot_contrasts(both, 0.2, "query", doubted=METRICS[:1])) > 4_000
    single = analysis.by_model(rows, PROTOCOL, chosen)
    pooled = analysis.contrasts(rows, PROTOCOL, chosen)
    first = [frame[frame["metric"] == METRICS[0]] for frame in (single, pooled)]
    assert drawn(draw.plot_lists(*first, 0.2, 0.05, [34, 68])) > 4_000
    # The share of metrics that change, decided by each analysis.
    shown = judging.decided(PROTOCOL, both, _no_gates(), _repeated(1.0), 0, chosen).set_index(
        ["hypothesis", "layer"]
    )
    row = shown.loc[("majority", "published")]
    share = (both["p_wald_holm"] <= 0.05).groupby(both["contrast"]).mean().min()
    assert row["estimate"] == pytest.approx(share) and row["rejected"] == (share > 0.5)


def test_the_queries_that_would_decide_most_metrics_are_those_with_which_most_change() -> None:
    names = [*PROTOCOL.families["pooled"].hypotheses]
    metric, contrast = ([name.split(": ")[k] for name in names] for k in (0, 1))
    effect = np.linspace(0.02, 1.2, len(names))

    def decided(n: int) -> tuple[bool, float]:
        both = pd.DataFrame({"hypothesis": names, "metric": metric, "contrast": contrast, "n": n, "se": n**-0.5})
        both = both.assign(p=2 * sp.norm.sf(effect * n**0.5), p_equivalence=1.0, p_wald_holm=1.0)
        both["rejected"] = multipletests(both["p"], 0.05, "holm")[0]
        found = judging.decided(PROTOCOL, both, _no_gates(), _repeated(1.0), 0, parameters())
        row = found.set_index(["hypothesis", "layer"]).loc[("majority", "corrected")]
        return bool(row["rejected"]), float(row["needed"])

    open_, needed = decided(10)
    assert not open_ and needed > 11 and decided(int(needed))[0] and not decided(int(needed) - 1)[0]


def _no_gates() -> pd.DataFrame:
    return raters.gated(pd.DataFrame(), PROTOCOL, 2)


def _repeated(estimate: float) -> dict[str, float]:
    return {"estimate": estimate, "low": np.nan, "high": np.nan, "p_equivalence": np.nan}


def test_verdicts_follow_the_gates_and_the_evidence() -> None:
    metrics = ("token_count", "masking_reinforcement", "list_density")
    rows = answers(np.random.default_rng(17), effects={"C2": -1.0}, metrics=metrics).assign(
        step_count=1, mean_step_words=10.0, own_line_words=5.0
    )
    chosen = parameters(metrics=list(metrics), replicates=20_000)
    fits = paper.every_wald(rows, metrics)
    both = analysis.beside(analysis.contrasts(rows, PROTOCOL, chosen), fits, rows, chosen)
    single, parts = analysis.by_model(rows, PROTOCOL, chosen), analysis.steps(rows, PROTOCOL, chosen)

    def verdicts(gated: pd.DataFrame, **given: object) -> pd.DataFrame:
        with_layer = chosen.model_copy(update=given)
        evidence = pd.concat(
            [
                judging.tested(both, single, parts, pd.DataFrame(), fits, gated, with_layer),
                judging.decided(PROTOCOL, both, gated, _repeated(1.0), 2, with_layer),
            ]
        )
        return judging.verdict_table(PROTOCOL, evidence, with_layer).set_index(["claim", "layer"])

    gate = {"metric": "masking_reinforcement", "alpha": 0.8, "high": 0.9, "threshold": 0.67, "point_passes": True}
    weak = verdicts(pd.DataFrame([{**gate, "low": 0.6, "passes": False}]))
    assert weak.loc[("masking_directives", "published"), "verdict"] == "reproduced"
    assert weak.loc[("masking_directives", "corrected"), "verdict"] == "uninformative"
    assert weak.loc[("alpha_masking", "corrected"), "verdict"] == "same direction, not significant"
    firm = verdicts(pd.DataFrame([{**gate, "low": 0.7, "passes": True}]))
    assert firm.loc[("masking_directives", "corrected"), "verdict"] == "reproduced"
    assert firm.loc[("alpha_masking", "corrected"), "verdict"] == "reproduced"
    # Tables show alpha and the share of equal answers themselves; the claims compare them with .67 and 1.
    assert firm.loc[("alpha_masking", "corrected"), ["estimate", "low", "high"]].tolist() == [0.8, 0.7, 0.9]
    assert firm.loc[("deterministic", "corrected"), "estimate"] == 0
    assert set(firm["model"]) == {"published data", ""}
    why = firm["why"]
    assert why["alpha_masking", "published"] == "the number decides: 0.80 is above 0.67"
    assert why["alpha_masking", "corrected"] == "its interval lies above 0.67"
    assert weak.loc[("alpha_masking", "corrected"), "why"] == "its interval includes 0.67"
    assert why["deterministic", "corrected"] == "100% of repeated calls gave another text"
    assert why["reversals", "published"] == "the number decides: 2 reversed estimates"
    # Planted with the opposite sign; planted where none is claimed; not in this run.
    assert firm.loc[("tokens", "corrected"), "verdict"] == "contradicted"
    assert firm.loc[("list_density", "corrected"), "verdict"] == "contradicted"
    assert firm.loc[("headings", "corrected"), "verdict"] == "not testable here"
    assert firm.loc[("deterministic", "corrected"), "verdict"] == "contradicted"
    assert firm.loc[("reversals", "published"), "verdict"] == "contradicted"
    assert set(
        verdicts(pd.DataFrame([{**gate, "low": 0.7, "passes": True}]), layer="corrected").index.levels[1]
    ) == {"corrected"}


@pytest.mark.parametrize(("significant", "said"), [(True, "heterogeneous"), (False, "inconclusive")])
def test_models_are_heterogeneous_only_where_each_moves_significantly_by_itself(
    significant: bool, said: str
) -> None:
    metrics = ("list_density", "masking_reinforcement")
    chosen = parameters(metrics=list(metrics), layer="corrected")
    rows = answers(np.random.default_rng(23), heterogeneity=1.0, metrics=metrics).assign(
        step_count=1, mean_step_words=10.0, own_line_words=5.0
    )
    fits = paper.every_wald(rows, metrics)
    both = analysis.beside(analysis.contrasts(rows, PROTOCOL, chosen), fits, rows, chosen)
    single = analysis.by_model(rows, PROTOCOL, chosen)
    mine = single["metric"] == "list_density"
    apart = single["model"].map({MODELS[0]: -0.8, MODELS[1]: 0.5})
    single = single.assign(
        estimate=single["estimate"].mask(mine, apart),
        rejected=single["rejected"].astype(bool).mask(mine, significant),
    )
    parts = analysis.steps(rows, PROTOCOL, chosen)
    found = judging.tested(both, single, parts, pd.DataFrame(), fits, _no_gates(), chosen)
    more = judging.decided(PROTOCOL, both, _no_gates(), _repeated(1.0), 0, chosen)
    judged = judging.verdict_table(PROTOCOL, pd.concat([found, more]), chosen).set_index("claim")
    assert judged.loc["list_density", "verdict"] == said
    open_ = judged[judged["verdict"] == "inconclusive"]
    assert "majority" in open_.index and open_["would_decide"].str.endswith(" queries").all()


def test_the_paper_tests_no_equivalence_so_that_no_number_of_answers_shows_no_effect() -> None:
    chosen = parameters(metrics=["masking_reinforcement"])
    rows = answers(np.random.default_rng(3), metrics=("masking_reinforcement",)).assign(
        step_count=1, mean_step_words=10.0, own_line_words=5.0
    )
    fits = paper.every_wald(rows, ("masking_reinforcement",))
    both = analysis.beside(analysis.contrasts(rows, PROTOCOL, chosen), fits, rows, chosen)
    gate = {"metric": "masking_reinforcement", "alpha": 0.8, "low": 0.7, "high": 0.9, "threshold": 0.67}
    gated = pd.DataFrame([{**gate, "point_passes": True, "passes": True}])
    single, parts = analysis.by_model(rows, PROTOCOL, chosen), analysis.steps(rows, PROTOCOL, chosen)
    found = judging.tested(both, single, parts, pd.DataFrame(), fits, gated, chosen)
    more = judging.decided(PROTOCOL, both, gated, _repeated(1.0), 0, chosen)
    judged = judging.verdict_table(PROTOCOL, pd.concat([found, more]), chosen).set_index(["claim", "layer"])
    row = judged.loc[("masking_profile", "published")]
    assert row["verdict"] == "inconclusive" and row["would_decide"] == "no number of queries"


def test_a_recomputed_number_says_how_far_it_is() -> None:
    row = {"scope": "pooled", "contrast": "C2 - C0", "estimate": 83.8021}
    again = pd.DataFrame(
        [
            {**row, "metric": "token_count", "estimate_off": 1e-13},
            {**row, "metric": "heading_count", "estimate": -2.0, "estimate_off": 0.25},
            {**row, "scope": "claude-sonnet-4-6", "metric": "list_density", "estimate_off": 0.0},
        ]
    )
    gated = pd.DataFrame(
        {"metric": ["masking_reinforcement", "refusal", "stereotyping"], "alpha": [0.8085, 0.01, -0.2]}
    )
    printed = gated.assign(alpha=[0.8085, 0.01, -0.3])
    assert judging.recomputed(PROTOCOL, again, gated, printed) == {
        "tokens": "✓ difference in token count 83.8",
        "headings": "✗ difference in heading count −2, off by 0.2",
        "list_density_claude": "✓ difference in list density 83.8",
        "alpha_masking": "✓ alpha 0.808",
        "alpha_others": "✗ largest alpha 0.01, off by 0.1",
    }


def test_text_is_compared_with_tables() -> None:
    contrasts = pd.DataFrame(
        [
            ("pooled", "token_count", "C2 - C0", 10.0, 2e-9),
            ("one", "token_count", "C2 - C0", -4.0, 0.5),
            ("two", "token_count", "C2 - C0", 24.0, 0.5),
            ("pooled", "heading_count", "C2 - C0", 2.0, 0.01),
            ("one", "heading_count", "C2 - C0", 1.0, 0.01),
            ("two", "heading_count", "C2 - C0", 3.0, 0.01),
        ],
        columns=["scope", "metric", "contrast", "estimate", "p_holm"],
    )
    alphas = pd.DataFrame({"metric": ["masking_reinforcement"], "alpha": [0.8085], "n": [576]})
    summary = pd.DataFrame(
        {
            "model": ["one", "one", "two", "two"],
            "condition_id": ["C0", "C2"] * 2,
            "token_count": [90.0, 86, 110, 134],
        }
    )
    said = [
        ("alpha masking_reinforcement", 0.808, "=", 3, True),
        ("alpha masking_reinforcement", 0.835, "=", 3, False),
        ("mean two C2 token_count", 134, "=", 0, True),
        ("p_holm pooled token_count: C2 - C0", 1e-9, "<", 0, False),
        ("change token_count C2", 10, "=", 0, True),
        ("opposite token_count: C2 - C0,heading_count: C2 - C0", 0, "=", 0, False),
        ("ratio heading_count: C2 - C0,token_count: C2 - C0", 2, "<", 0, False),
    ]
    reported = pd.DataFrame(
        [
            {"statement": q, "place": "", "said": s, "relation": r, "decimals": d, "quantity": q}
            for q, s, r, d, _ in said
        ]
    )
    found = paper.mismatches(reported, study.Published(contrasts, alphas, summary))
    assert found["agrees"].tolist() == [agrees for *_, agrees in said]
    assert found["table"].tolist() == pytest.approx([0.8085, 0.8085, 134, 2e-9, 10, 1, 3])


def test_the_source_gives_the_rows_that_are_expected() -> None:
    if sources.locate(PROJECT, "ndbench-responses") is None:
        pytest.skip("the benchmark is not at hand")
    measured, failed_calls = study.answers(PROJECT)
    scored, failed_scores = study.judgments(PROJECT)
    rows = study.responses(PROJECT, measured, scored, parameters())
    assert (len(rows), failed_calls, len(scored), failed_scores) == (576, 85, 1152, 7)
    cells = rows.groupby(["model", "condition_id", "profile_id"]).size()
    assert len(cells) == 24 and (cells == 24).all()
    assert study.CELL == ["model", "condition_id", "profile_id", "query_id"]
    both = rows.merge(measured, on=study.CELL, suffixes=("", "_text"))
    for metric in ("heading_count", "list_density", "whitespace_ratio", "mean_step_words"):
        np.testing.assert_allclose(both[metric], both[f"{metric}_text"], atol=1e-12)
    # Texts themselves stay out of what is kept.
    assert measured["text"].str.fullmatch("[0-9a-f]{16}").all()
    stored = pd.read_csv(sources.fetch(PROJECT, "ndbench-metrics-harm")).merge(rows, on=study.CELL)
    for metric in study.JUDGED:
        np.testing.assert_allclose(stored[f"{metric}_x"], stored[f"{metric}_y"], atol=1e-12)
    one = study.responses(PROJECT, measured, scored, parameters(judges=MODELS[:1], models=MODELS[1:]))
    assert len(one) == 288 and not np.allclose(one["validation_quality"] % 1, 0.5)
