"""The audit: the numbers of its declaration, planted and absent effects, and the rules of its verdicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats as sp
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportions_ztest

from persona_studies.analyse import verdicts
from persona_studies.design.protocol import Claim
from persona_studies.errors import ParameterError
from persona_studies.paths import Project
from released_results import analysis, cells, items, judging, persobench, published, reporting
from released_results import figures as draw
from tests.conftest import drawn
from tests.kit.simulated_released_results import (
    FACTS,
    PROJECT,
    PROTOCOL,
    all_tests,
    answers,
    capabilities,
    judged,
    memory_systems,
    parameters,
)

CHOSEN = parameters(replicates=2000)


@pytest.fixture(scope="module")
def tests() -> pd.DataFrame:
    return all_tests(FACTS, CHOSEN)


@pytest.fixture(scope="module")
def scored() -> pd.DataFrame:
    return persobench.scores(FACTS["persobench_tables"], FACTS["persobench_failures"], FACTS["persobench_scores"])


def of(frame: pd.DataFrame, hypothesis: str) -> pd.Series:
    return frame.set_index("hypothesis").loc[hypothesis]


# --- The declared numbers ---------------------------------------------------------------------------------------


def test_persobench_failures_are_those_of_the_tables() -> None:
    ratios = persobench.failure_ratios(FACTS["persobench_tables"], FACTS["persobench_failures"])
    assert len(ratios) == 48 and (ratios["printed"] - ratios["counted"]).abs().max() <= 0.0005
    focus = ratios[ratios["dataset"] == "FoCus"].pivot(index="model", columns="setting", values="counted")
    assert focus.loc["Qwen2-7B-Instruct"].tolist() == [0.272, 0.509]
    assert focus.loc["Llama3-1-8B-Instruct"].tolist() == [0.050, 0.448]
    assert focus.loc["gpt-4-turbo"].tolist() == [0.012, 0.035]


def test_persobench_scores_with_and_without_failures(scored: pd.DataFrame) -> None:
    off = (scored["printed"] - scored["recomputed"]).abs()
    odd = scored[off > 0.0051]
    assert set(odd["model"]) == {"gpt-3.5-turbo", "gpt-4o-mini", "gpt-4-turbo"} and set(odd["setting"]) == {"COT"}
    # A typed coherence of .45 where the table has .37 explains the difference of GPT-4o-mini.
    mini = odd.set_index("model").loc["gpt-4o-mini"]
    assert mini["printed"] - mini["recomputed"] == pytest.approx(100 * (0.45 - 0.37) / 5, abs=0.01)
    valid = scored[scored["setting"] == "vanilla"].set_index("model")["valid"]
    assert valid.idxmax() == "Gemma-7B-Instruct" and valid.max() == pytest.approx(63.3, abs=0.05)
    assert valid.idxmin() == "gpt-4-turbo" and valid.min() == pytest.approx(45.0, abs=0.06)
    assert persobench.rank_agreement(scored) == pytest.approx(-0.38, abs=0.005)
    gained = persobench.gains(scored)
    assert gained["printed_gain"].max() == pytest.approx(33.14)
    assert (gained["valid_gain"].min(), gained["valid_gain"].max()) == pytest.approx((0.3, 12.3), abs=0.05)
    # Whatever failed replies were worth, the valid mean lies within the bounds.
    assert scored["c_valid"].between(scored["c_worst"], scored["c_best"]).all()


def test_persobench_score_and_gain_follow_the_failures(tests: pd.DataFrame) -> None:
    score, gain = of(tests, "score and failures"), of(tests, "gain and drop of failures")
    assert (score["estimate"], score["low"], score["high"]) == pytest.approx((-0.972, -0.995, -0.849), abs=5e-4)
    assert (gain["estimate"], gain["low"], gain["high"]) == pytest.approx((0.987, 0.928, 0.998), abs=5e-4)
    assert score["family_size"] == 2 and score["rejected"] and gain["rejected"]


def test_persobench_paired_t_as_printed_realigned_and_valid() -> None:
    paired = persobench.paired_t(FACTS["persobench_pairs"], FACTS["persobench_report"]).set_index("metric")
    assert paired["off"].max() < 5e-5 and paired["off"].notna().sum() == 10 and paired["same_sign"].all()
    printed = {"C Score": 9.689, "BERTScore_F1": -9.695, "Dist1": -15.016, "Persona Distance": 4.334}
    printed |= {"UniEval Naturalness": -12.140, "UniEval Coherence": -7.374, "UniEval Overall": 3.946}
    for metric, t in printed.items():
        assert paired.loc[metric, "as_filed"] == pytest.approx(t, abs=6e-4)
    for metric, t in {
        "UniEval Naturalness": -11.508,
        "UniEval Coherence": -6.925,
        "UniEval Overall": 3.761,
    }.items():
        assert paired.loc[metric, "realigned"] == pytest.approx(t, abs=5e-4)
    for metric, t in {"C Score": 14.806, "BERTScore_F1": -27.516, "Persona Distance": 14.450}.items():
        assert paired.loc[metric, "valid"] == pytest.approx(t, abs=5e-4)
    assert set(FACTS["persobench_pairs"].loc[FACTS["persobench_pairs"]["rows"] == "valid", "n"]) == {947}


def test_only_batches_of_200_put_unievals_zeros_on_failed_replies() -> None:
    shown = FACTS["persobench_realignment"]
    right = shown[shown["batch"] == published.BATCH]
    assert (right["zeros_on_failures"] == right["failed"]).all() and (right["engagingness_words"] > 0.65).all()
    others = shown[shown["batch"] != published.BATCH]
    assert (others["zeros_on_failures"] < others["failed"]).all() and (others["engagingness_words"] < 0.6).all()
    llama = shown[(shown["model"] == "Llama3-1-8B-Instruct") & (shown["batch"] == 0)].iloc[0]
    assert (llama["failed"], llama["zeros_on_failures"]) == (50, 3)


def test_personagym() -> None:
    totals = cells.task_means(FACTS["personagym_scores"]).set_index("model")
    claude, gpt = totals.loc["claude_3.5_sonnet", "printed"], totals.loc["gpt_35", "printed"]
    assert round(100 * (claude - gpt) / gpt, 2) == 2.97
    assert totals.loc["claude_3_haiku", ["printed", "task_mean"]].tolist() == pytest.approx([3.64, 3.84])
    assert (totals["difference"].abs() <= 0.0051).sum() == 5


def test_open_character_training(tests: pd.DataFrame) -> None:
    released = FACTS["open_character_training_lighteval"]
    published_layer = analysis.corrected(cells.capabilities(released, CHOSEN, "published"), PROTOCOL, CHOSEN)
    binomial = tests[tests["family"] == "oct"]
    assert ((published_layer["p"] < 0.05).sum(), published_layer["rejected"].sum()) == (19, 14)
    assert ((binomial["p"] < 0.05).sum(), binomial["rejected"].sum()) == (23, 19)
    assert (published_layer["estimate"] < 0).sum() == 28 and published_layer["equivalent"].sum() == 1
    assert of(published_layer, "Qwen misalignment: TruthfulQA")["estimate"] == pytest.approx(-0.191, abs=5e-4)
    assert of(published_layer, "Qwen goodness: WinoGrande")["estimate"] == pytest.approx(0.107, abs=5e-4)
    least = cells.smallest_by_task(released, CHOSEN).set_index("task")["minimum_detectable"]
    declared = {"HellaSwag": 0.020, "TruthfulQA": 0.045, "WinoGrande": 0.052, "ARC": 0.057, "MMLU": 0.133}
    assert {task: round(least[task], 3) for task in declared} == declared
    mmlu = released[released["task"] == "mmlu"]
    assert mmlu["se"].mean() == pytest.approx(0.033, abs=6e-4)
    # Accuracies over questions have the binomial standard error with n - 1; MMLU's is another.
    arc = released[released["task"].str.contains("arc")]
    np.testing.assert_allclose(arc["se"], np.sqrt(arc["mean"] * (1 - arc["mean"]) / 1171), rtol=1e-6)


def test_apc(tests: pd.DataFrame) -> None:
    within = [
        of(tests, f"{score}: {who}")["estimate"]
        for score in ("DeBERTa", "GPT-4")
        for who in ("Alice", "Bob", "Eve")
    ]
    assert within == pytest.approx([0.991, 0.975, 0.994, 0.893, 0.827, 0.885], abs=5e-4)
    bob = of(tests, "DeBERTa: Bob")
    assert (bob["low"], bob["high"]) == pytest.approx((0.84, 1.00), abs=5e-3)
    other = cells.faithfulness_otherwise(FACTS["apc_table"], CHOSEN).set_index(["what", "score"])["estimate"]
    assert other["pooled"].tolist() == pytest.approx([0.706, 0.750], abs=5e-4)
    assert other["centred within characters"].tolist() == pytest.approx([0.927, 0.790], abs=5e-4)
    without = [other[f"without Gemma-7B: {who}", "DeBERTa"] for who in ("Alice", "Bob", "Eve")]
    assert without == pytest.approx([0.809, 0.969, 0.981], abs=6e-4)
    raised = cells.preference_gains(FACTS["apc_table"])["gain"]
    assert len(raised) == 9 and (raised.min(), raised.max()) == pytest.approx((0.4, 1.6))


def test_personamem(tests: pd.DataFrame) -> None:
    typed = items.by_type(FACTS["personamem_32k_gpt4o"], CHOSEN).set_index("question_type")
    whole = typed.loc["all"]
    assert (whole["n"], whole["b"], whole["c"]) == (589, 141, 39)
    assert (round(whole["blind"], 3), round(whole["retrieval"], 3)) == (0.469, 0.642)
    assert analysis.wilson(276, 589, CHOSEN) == pytest.approx((0.429, 0.509), abs=5e-4)
    assert whole["p"] == pytest.approx(9.29e-15, rel=1e-3) and whole["estimate"] == pytest.approx(0.173, abs=5e-4)
    # Declared with plain percentiles: .127 to .215; here bias-corrected.
    assert (whole["low"], whole["high"]) == pytest.approx((0.127, 0.215), abs=0.004)
    declared = {
        "generalizing_to_new_scenarios": (0.088, 0.526, 57),
        "provide_preference_aligned_recommendations": (0.309, 0.636, 55),
        "recall_user_shared_facts": (0.434, 0.667, 129),
        "recalling_facts_mentioned_by_the_user": (0.176, 0.765, 17),
        "suggest_new_ideas": (0.333, 0.538, 93),
        "recalling_the_reasons_behind_previous_updates": (0.737, 0.758, 99),
        "track_full_preference_evolution": (0.655, 0.640, 139),
    }
    for name, (blind, retrieval, n) in declared.items():
        row = typed.loc[name]
        assert (round(row["blind"], 3), round(row["retrieval"], 3), row["n"]) == (blind, retrieval, n)
    by_type = tests[tests["family"] == "personamem_types"]
    assert by_type["rejected"].sum() == 5
    # That two types gain nothing is not shown: neither is equivalent at the margin.
    assert not by_type.loc[~by_type["rejected"], "equivalent"].any()
    letters = items.letters(FACTS["personamem_32k_gpt4o"]).set_index("letter")
    assert (letters.loc["a", "blind"], letters.loc["a", "gold"]) == (224, 143)
    shared, chance = items.repeated_letters(FACTS["personamem_32k_gpt4o"], CHOSEN)
    assert shared > 1.5 * chance


def test_perma(tests: pd.DataFrame) -> None:
    family = tests[tests["family"] == "perma"]
    assert len(family) == 18 and family["rejected"].sum() == 2 and (family["estimate"] < 0).sum() == 11
    for setting, z, holm in (("clean single", 3.69, 0.004), ("noise single", 4.75, 4e-5)):
        row = of(family, f"MemOS: {setting}")
        assert sp.norm.isf(row["p"] / 2) == pytest.approx(z, abs=0.005) and row["p_adjusted"] == pytest.approx(
            holm, rel=0.1
        )
    assert not of(family, "MemOS: clean multi")["rejected"]
    assert cells.noise(FACTS["perma_tables"]).mean() == pytest.approx(-0.002, abs=5e-4)
    alone = FACTS["perma_tables"].set_index(["system", "condition", "metric"])["value"]
    assert alone["GPT-4o-mini", "clean single", "MCQ accuracy"] == 0.780


def test_every_printed_share_is_possible_but_one() -> None:
    ratios = persobench.failure_ratios(FACTS["persobench_tables"], FACTS["persobench_failures"])
    released, perma, maths = (
        FACTS[name] for name in ("open_character_training_lighteval", "perma_tables", "personamath_table")
    )
    checked = analysis.granularity(cells.printed_shares(ratios, released, perma, maths, CHOSEN))
    counts = checked[checked["source"] == "PERMA"].groupby("n")["fits"].agg(["sum", "size"])
    assert counts.loc[423].tolist() == [76, 76] and counts.loc[157].tolist() == [47, 48]
    impossible = checked[~checked["fits"]]
    assert impossible[["source", "value", "n"]].to_numpy().tolist() == [["PERMA", 0.905, 157]]
    # With another n most shares are impossible: the check can fail.
    other = cells.printed_shares(ratios, released, perma, maths, parameters(perma_single=411))
    assert analysis.granularity(other).query("source == 'PERMA' and n == 411")["fits"].mean() < 0.7


def test_personamath(tests: pd.DataFrame) -> None:
    z = {"7B: GSM8K": 1.21, "7B: MATH": 5.31, "13B: GSM8K": 3.76, "13B: MATH": 7.00}
    for name, declared in z.items():
        assert sp.norm.isf(of(tests, name)["p"] / 2) == pytest.approx(declared, abs=0.005)
    assert of(tests, "7B: GSM8K")["p"] == pytest.approx(0.227, abs=5e-4)
    assert [of(tests, name)["rejected"] for name in z] == [False, True, True, True]
    qwen = cells.mathematics_qwen(FACTS["personamath_table"], CHOSEN).set_index("hypothesis")
    assert qwen.loc["GSM8K", "p"] > 0.05 and qwen.loc["MATH", "estimate"] == pytest.approx(0.068)
    sizes = cells.DATA
    assert round(100 * sizes["PersonaMathQA"] / sizes["MetaMathQA"], 1) == 17.8
    assert round(100 * sizes["PersonaMathQA"] / sizes["MathInstruct"]) == 27


def test_characterchat(tests: pd.DataFrame) -> None:
    dialogues = FACTS["characterchat_ratings"]
    shared = items.shared_letters(dialogues).value_counts()
    assert shared.sort_index().tolist() == [3, 24, 31, 37, 5]
    rated = items.ratings(dialogues).set_index("rating")
    assert rated["mean"].round(2).to_dict() == {"mood": 4.30, "solved": 3.21, "active": 4.88, "mean": 4.13}
    assert rated.loc["active", "fives"] == 88 and rated.loc["mean", "spearman"] == pytest.approx(0.02, abs=5e-3)
    family = tests[tests["family"] == "characterchat"]
    assert not family["rejected"].any()
    # Supporters were drawn at random, so permuting within seekers agrees with scipy's p for independent dialogues.
    plain = sp.spearmanr(items.shared_letters(dialogues), dialogues["mood"])
    assert of(family, "mood")["p"] == pytest.approx(plain.pvalue, abs=0.05)


def test_retrieval_by_words() -> None:
    found = items.retrieval(FACTS["personabench_tfidf"], FACTS["synthetic_persona_chat_ranks"], CHOSEN).set_index(
        "what"
    )
    declared = {"recall at 5, noise 0": 0.226, "recall at 5, noise 0.5": 0.154}
    declared |= {"mean reciprocal rank": 0.247, "first rank": 0.138}
    assert found["estimate"].round(3).to_dict() == declared
    assert found["n"].tolist() == [230, 230, 1932, 1932]
    assert FACTS["personabench_tfidf"].groupby("noise")["integer_answers"].sum().tolist() == [4, 4]
    assert ((found["low"] < found["estimate"]) & (found["estimate"] < found["high"])).all()


def test_99_tests_in_nine_families_each_with_what_it_could_find(tests: pd.DataFrame) -> None:
    assert len(tests) == 99
    sizes = tests.groupby("family").size()
    assert {name: PROTOCOL.families[name].size for name in sizes.index} == sizes.to_dict()
    assert (tests["minimum_detectable"] > 0).all() and tests["unit"].notna().all() and (tests["n"] > 0).all()
    assert (tests["p_global"] >= tests["p_adjusted"] - 1e-12).all()
    unpaired = tests["unit"] == "printed cell"
    assert tests.loc[unpaired, "test"].str.contains("unpaired, conservative").all()


def test_verdicts_of_the_release() -> None:
    said = judged(FACTS, CHOSEN)["verdict"]
    assert said.drop("persobench_cot_valid").to_dict() == {
        "persobench_ranking": "contradicted",
        "persobench_cot": "contradicted",
        "persobench_consistency": "reproduced",
        "persobench_naturalness": "reproduced",
        "personagym_sonnet": "not testable here",
        "personagym_mean": "contradicted",
        "personagym_size": "not testable here",
        "oct_goodness": "contradicted",
        "oct_loving": "contradicted",
        "oct_misalignment": "contradicted",
        "oct_convergence": "not testable here",
        "apc_within": "reproduced",
        "apc_pooled": "same direction, not significant",
        "apc_dpo": "same direction, not significant",
        "personamem_history": "inconclusive",
        "personamem_retrieval": "reproduced",
        "personamem_types": "reproduced",
        "perma_memos": "reproduced",
        **dict.fromkeys(
            [f"perma_{s}" for s in ("mem0", "lightmem", "memobase", "evermemos", "supermemory")], "inconclusive"
        ),
        "perma_tokens": "inconclusive",
        "perma_noise": "contradicted",
        "personabench_retrievers": "not testable here",
        "personabench_bottleneck": "not testable here",
        "personamath_7b_gsm8k": "inconclusive",
        "personamath_7b_math": "reproduced",
        "personamath_13b": "reproduced",
        "characterchat_matching": "inconclusive",
        "spc_turing": "not testable here",
        "axis_components": "not testable here",
    }


# --- Planted effects, and none ----------------------------------------------------------------------------------


def test_planted_effects_are_found_and_judged() -> None:
    rng = np.random.default_rng(1)
    facts = FACTS | {
        "personamem_32k_gpt4o": answers(rng, blind=0.4, gain=0.2),
        "open_character_training_lighteval": capabilities(rng, {"misalignment": -0.08}),
        "perma_tables": memory_systems(rng, {"Mem0": 0.2, "Lightmem": -0.2}),
    }
    said = judged(facts, CHOSEN)
    assert said.loc["personamem_retrieval", "verdict"] == verdicts.REPRODUCED
    assert said.loc["personamem_retrieval", "estimate"] == pytest.approx(0.2, abs=0.08)
    assert said.loc["oct_misalignment", "verdict"] == verdicts.CONTRADICTED
    assert said.loc["perma_mem0", "verdict"] == verdicts.REPRODUCED
    assert said.loc["perma_lightmem", "verdict"] == verdicts.CONTRADICTED
    assert said.loc["perma_memos", "verdict"] != verdicts.REPRODUCED


def test_without_effects_the_families_keep_their_error_rate() -> None:
    rng = np.random.default_rng(2)
    chosen = parameters(sources=["Open Character Training", "PERMA"])
    draws, wrong = 40, {"oct": 0, "perma": 0}
    for _ in range(draws):
        parts = [
            cells.capabilities(capabilities(rng, {}), chosen, "corrected"),
            cells.memory(memory_systems(rng, {}), chosen),
        ]
        tests = analysis.corrected(pd.concat(parts, ignore_index=True), PROTOCOL, chosen)
        for family in ("oct", "perma"):
            wrong[family] += bool(tests.loc[tests["family"] == family, "rejected"].any())
    limit = sp.binom.ppf(0.999, draws, 0.05)
    assert wrong["oct"] <= limit and wrong["perma"] <= limit


def test_the_exact_mcnemar_keeps_its_level_and_its_interval_covers() -> None:
    rng = np.random.default_rng(3)
    chosen = parameters(replicates=1000)
    draws, rejected, covered = 60, 0, 0
    for _ in range(draws):
        row = items.mcnemar(items.right(answers(rng, blind=0.5, gain=0.0)), chosen)
        rejected += row["p"] <= 0.05
        covered += row["low"] <= 0 <= row["high"]
    assert rejected <= sp.binom.ppf(0.999, draws, 0.05)
    assert covered >= sp.binom.ppf(0.001, draws, 0.93)


def test_a_planted_match_is_found_within_seekers_and_a_difference_between_seekers_is_not() -> None:
    rng = np.random.default_rng(4)
    dialogues = FACTS["characterchat_ratings"].copy()
    shared = items.shared_letters(dialogues)
    dialogues["mood"] = (2 + shared * 0.7 + rng.normal(0, 0.5, len(dialogues))).round().clip(1, 5)
    # Seekers who share more letters on average are rated higher: no effect within a seeker.
    level = shared.groupby(dialogues["seeker"]).transform("mean")
    dialogues["solved"] = (level * 10).rank(method="dense")
    found = items.matching(dialogues, CHOSEN).set_index("hypothesis")
    assert found.loc["mood", "p"] < 0.001 and found.loc["mood", "low"] > 0.5
    assert found.loc["solved", "p"] > 0.05


def test_equivalence_needs_precision() -> None:
    tight, loose = (analysis.difference(0.001, se, CHOSEN) for se in (0.004, 0.03))
    assert tight["p_equivalence"] < 0.001 and loose["p_equivalence"] > 0.2
    assert loose["minimum_detectable"] == pytest.approx((1.959964 + 0.841621) * 0.03, abs=1e-6)
    assert np.isnan(analysis.difference(0.001, 0.01, CHOSEN, share=False)["p_equivalence"])


def test_two_proportions_are_those_of_statsmodels() -> None:
    made = analysis.two_proportions(0.6, 0.5, 200, CHOSEN)
    z, p = proportions_ztest([120, 100], [200, 200])
    assert made["p"] == pytest.approx(p) and sp.norm.isf(made["p"] / 2) == pytest.approx(z)
    assert made["estimate"] == pytest.approx(0.1) and made["low"] < 0.1 < made["high"]


# --- Rules of verdicts ------------------------------------------------------------------------------------------


def members(*tests: tuple[float, bool, bool], n: int = 423) -> pd.DataFrame:
    """Return tests of one family, each a z test of a mean over n questions with a standard deviation of .6."""
    found = pd.DataFrame(tests, columns=["estimate", "rejected", "equivalent"])
    names, se, away = PROTOCOL.families["perma"].hypotheses[: len(found)], 0.6 / n**0.5, found["estimate"].abs()
    found = found.assign(source="PERMA", family="perma", hypothesis=names, n=n, se=se, margin=0.02)
    return found.assign(p=2 * sp.norm.sf(away / se), p_equivalence=sp.norm.sf((0.02 - away) / se))


def about(direction: str, found: pd.DataFrame) -> verdicts.Verdict:
    claim = PROTOCOL.claims["perma_memos"].model_copy(update={"direction": direction})
    return judging.about_set(claim, found, pd.Series(True, found.index), PROTOCOL, CHOSEN)


@pytest.mark.parametrize(
    ("direction", "found", "verdict"),
    [
        ("positive", members((0.1, True, False), (0.1, True, False), (0.0, False, False)), verdicts.REPRODUCED),
        ("positive", members((0.1, True, False), (0.1, False, False)), verdicts.SAME_DIRECTION),
        ("positive", members((0.1, True, False), (-0.1, False, False)), verdicts.INCONCLUSIVE),
        ("positive", members((0.1, True, False), (-0.1, True, False)), verdicts.HETEROGENEOUS),
        ("positive", members((0.1, False, False), (-0.1, True, False)), verdicts.CONTRADICTED),
        ("positive", members((0.001, False, True), (0.002, False, True)), verdicts.CONTRADICTED),
        ("negative", members((-0.1, True, False)), verdicts.REPRODUCED),
        ("none", members((0.001, False, True), (-0.002, True, True)), verdicts.REPRODUCED),
        ("none", members((0.001, False, True), (-0.1, True, False)), verdicts.CONTRADICTED),
        ("none", members((0.001, False, True), (-0.1, False, False)), verdicts.INCONCLUSIVE),
    ],
)
def test_a_claim_about_several_tests(direction: str, found: pd.DataFrame, verdict: str) -> None:
    said = about(direction, found)
    assert said.word == verdict and said.would_decide.endswith(" questions") == (verdict == verdicts.INCONCLUSIVE)


@pytest.mark.parametrize(
    ("direction", "estimates"),
    [("positive", [0.06, 0.04, -0.005]), ("positive", [0.01, -0.012, 0.0]), ("none", [0.015, 0.001, 0.002])],
)
def test_an_open_claim_about_several_tests_names_the_questions_with_which_counting_decides(
    direction: str, estimates: list[float]
) -> None:
    def decided(n: int) -> bool:
        # By brute force: the same differences from n questions, Holm over the family by another library.
        found = members(*((each, False, False) for each in estimates), n=n)
        whole = [*found["p"], *np.ones(18 - len(found))]
        found["rejected"] = multipletests(whole, 0.05, "holm")[0][: len(found)]
        return about(direction, found.assign(equivalent=found["p_equivalence"] <= 0.05))[0] != verdicts.INCONCLUSIVE

    assert not decided(423)
    said = about(direction, members(*((each, False, False) for each in estimates)))
    needed = int(said.would_decide.removesuffix(" questions").replace(",", ""))
    assert needed > 424 and decided(needed) and not decided(needed - 1)


@pytest.mark.parametrize(
    ("low", "high", "p_equivalence", "verdict"),
    [
        (0.1, 0.3, 0.9, verdicts.SAME_DIRECTION),
        (-0.1, 0.3, 0.9, verdicts.INCONCLUSIVE),
        (-0.3, -0.1, 0.9, verdicts.INCONCLUSIVE),
        (-0.01, 0.01, 0.001, verdicts.CONTRADICTED),
    ],
)
def test_without_a_test_nothing_is_reproduced(low: float, high: float, p_equivalence: float, verdict: str) -> None:
    row = {"estimate": (low + high) / 2, "low": low, "high": high, "p_equivalence": p_equivalence}
    claim: Claim = PROTOCOL.claims["personamem_history"]
    said = judging.about_description(claim, {**row, "unit": "question", "test": "mean, t over models"}, CHOSEN)
    units = "no number of questions" if verdict == verdicts.INCONCLUSIVE else ""
    assert said.word == verdict and said.would_decide == units
    # The least and the largest of some cells are no interval, and are not called one.
    why = judging.about_description(
        claim, {**row, "unit": "question", "test": "median and range of cells"}, CHOSEN
    ).why
    assert ("the cells' range" in why) == (verdict != verdicts.CONTRADICTED) and "interval" not in why


def test_what_several_tests_come_to_is_counted_in_plain_words() -> None:
    up, small = (0.1, True, False), (0.001, False, True)

    def why(direction: str, *rows: tuple[float, bool, bool]) -> str:
        return about(direction, members(*rows)).why

    assert why("positive", up, up) == "2 of 2 significant as claimed"
    assert why("positive", up, (-0.1, True, False)) == "1 of 2 significant as claimed, 1 against"
    assert why("positive", small, small) == "2 of 2 shown small"
    assert why("none", small, up) == "1 of 2 shown small, 1 significant instead"


def test_the_margin_in_force_decides_and_is_printed() -> None:
    said = judged(FACTS, parameters(margin=0.001))
    assert said.loc["perma_noise", "verdict"] == verdicts.INCONCLUSIVE
    wide = judged(FACTS, parameters(margin=0.3))
    assert wide.loc["oct_goodness", "verdict"] == verdicts.REPRODUCED
    assert "0.3" in wide.loc["perma_noise", "why"]


def test_releases_that_are_left_out_are_not_judged() -> None:
    chosen = parameters(sources=["PERMA"])
    said = judged(FACTS, chosen)
    assert said.loc["apc_within", ["verdict", "why"]].tolist() == [
        "not testable here",
        "left out by the parameter sources",
    ]
    assert said.loc["perma_memos", "verdict"] == verdicts.REPRODUCED
    tests = all_tests(FACTS, chosen)
    assert len(tests) == 18 and (tests["p_global"] == tests["p_adjusted"]).all()


def test_the_published_layer_does_not_correct() -> None:
    tests = all_tests(FACTS, parameters(layer="published"))
    assert (tests["p_adjusted"] == tests["p"]).all() and (tests["rejected"] == (tests["p"] <= 0.05)).all()
    assert tests.loc[tests["family"] == "oct", "rejected"].sum() == 19
    naturalness = of(tests, "UniEval Naturalness")
    assert naturalness["test"] == "paired t, as filed"
    valid = all_tests(FACTS, parameters(failures="valid"))
    assert of(valid, "C Score")["n"] == 947


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sources": ["PersoBenc"]}, "Did you mean 'PersoBench'"),
        ({"sources": []}, "sources"),
        ({"layer": "both"}, "corrected, published"),
        ({"failures": "none"}, "worst, valid"),
        ({"alpha": 0.7}, "alpha"),
        ({"margin": 0.0}, "margin"),
        ({"margin_r": 1.0}, "margin_r"),
        ({"correction": "sidak"}, "correction"),
        ({"power": 0.3}, "power"),
        ({"perma_single": 0}, "perma_single"),
        ({"replicates": 10}, "replicates"),
        ({"seed": -1}, "seed"),
        ({"margins": 0.1}, "Did you mean 'margin'"),
    ],
)
def test_bad_parameters_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        parameters(**given)


def test_every_claim_names_tests_that_exist(tests: pd.DataFrame) -> None:
    for name, kind in PROTOCOL.design["sets"].items():
        claim = next(claim for claim in PROTOCOL.claims.values() if claim.hypothesis == name)
        assert claim.family == "sets" and kind["family"] in set(tests["family"])
    said = judged(FACTS, CHOSEN)
    testable = [name for name, claim in PROTOCOL.claims.items() if claim.not_testable is None]
    assert said.loc[testable, "estimate"].notna().all() and said.loc[testable, "n"].notna().all()


def test_claims_of_another_study_are_shown_by_reference(tmp_path: Path) -> None:
    here = judging.elsewhere(Project(tmp_path), PROTOCOL)
    assert here["claim"].tolist() == [*(f"pj{k}" for k in range(1, 7)), "dp1"]
    assert set(here["verdict"]) == {"judged in persona_choice"}
    results = Project(tmp_path).results("persona_choice")
    results.mkdir(parents=True)
    judged_there = {"claim": ["pj2_gpt", "dp10"], "statement": "a persona helps", "published": ".526"}
    pd.DataFrame(judged_there | {"verdict": "reproduced", "why": "significant"}).to_csv(
        results / "verdicts.csv", index=False
    )
    there = judging.elsewhere(Project(tmp_path), PROTOCOL).set_index("claim")
    assert (
        there.loc["pj2_gpt", "verdict"] == "reproduced" and "pj2" not in there.index and "dp10" not in there.index
    )
    assert there.loc["pj1", "verdict"] == "judged in persona_choice"


def test_what_is_said_has_minus_signs_and_names_with_hyphens() -> None:
    assert reporting.minus("Gemma-7B: -0.38, gpt-4-turbo -.1") == "Gemma-7B: −0.38, gpt-4-turbo −.1"


def test_the_figures_are_drawn(tests: pd.DataFrame, scored: pd.DataFrame) -> None:
    said = judged(FACTS, CHOSEN).reset_index()
    typed = items.by_type(FACTS["personamem_32k_gpt4o"], CHOSEN)
    made = {
        "forest": draw.forest(said),
        "correlations": draw.forest(said[said["source"] == "APC"]),
        "none": draw.forest(judged(FACTS, parameters(sources=["PersonaBench"])).reset_index()),
        "failures": draw.failures(scored),
        "memory": draw.memory(typed, ["all"]),
        "capabilities": draw.capabilities(tests[tests["family"] == "oct"].reset_index(drop=True), 0.02),
        "systems": draw.memory_systems(tests[tests["family"] == "perma"].reset_index(drop=True), 0.02),
    }
    for name, figure in made.items():
        assert drawn(figure) > 4_000, name
    assert set(draw.LABELS) <= set(PROTOCOL.claims)


def test_the_committed_verdicts_are_those_of_the_committed_facts() -> None:
    kept = pd.read_csv(PROJECT.results("released_results") / "verdicts.csv").set_index("claim")
    assert kept["verdict"].to_dict() == judged(FACTS, CHOSEN)["verdict"].to_dict()
