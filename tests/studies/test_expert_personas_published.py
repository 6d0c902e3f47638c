"""The published layer of the study of expert personas.

Reference values are those of R 4.2.2 (``t.test``, ``p.adjust``, ``qnorm``, all sign patterns) and metafor 3.8-1 on
the committed tables; the call stands beside each.
"""

from __future__ import annotations

import os
import re
from math import isnan, nan, sqrt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from expert_personas import open_models, published
from expert_personas.open_models import (
    CONTRASTS,
    accuracies,
    combine,
    derive_accuracies,
    model_effects,
    role,
)
from expert_personas.published import FAMILY_SIZES, derive_reported, permutation_floor, rejudge, reported
from persona_studies.analyse.contrasts import EQUIVALENT, INCONCLUSIVE, INFERIOR, SUPERIOR, outcome
from persona_studies.analyse.stats.equivalence import equivalence_p
from persona_studies.errors import SourceError, StatisticsError
from persona_studies.paths import Project

PROJECT = Project.find(Path(__file__))


def facts(name: str) -> Path:
    """Return a file of notes, which are not part of the repository."""
    folder = os.environ.get("PERSONA_STUDIES_FACTS")
    if not folder or not (Path(folder) / name).is_file():
        pytest.skip(f"PERSONA_STUDIES_FACTS names no folder with {name}")
    return Path(folder) / name


def frame(*rows: dict[str, object]) -> pd.DataFrame:
    """Return contrasts of the report's form; what a row does not name is as in the first of the report."""
    usual = {
        "benchmark": "mmlu_pro_300",
        "domain": "law",
        "model": "m",
        "persona": "law_expert",
        "relation": "in_domain",
        "estimate": 0.1,
        "low": nan,
        "high": nan,
        "p_relation": "=",
        "p": 0.5,
    }
    return pd.DataFrame([{**usual, **row} for row in rows])


@pytest.fixture(scope="module")
def judged() -> pd.DataFrame:
    return rejudge(reported(PROJECT))


def simulated(effects: dict[str, list[float]], base: float = 0.5) -> pd.DataFrame:
    """Return accuracies of models 0, 1, ... of two series, with the given effects of each persona."""
    count = len(next(iter(effects.values())))
    cells = [
        {"persona": persona, "model": f"m{number}", "series": f"s{number % 2}", "accuracy": base + values[number]}
        for persona, values in {"empty": [0.0] * count, **effects}.items()
        for number in range(count)
    ]
    rows = pd.DataFrame(cells)
    return rows.assign(benchmark="mmlu_pro", role=rows["persona"].map(role))


# --- The committed tables ---------------------------------------------------------------------------------------


def test_the_reported_contrasts_are_those_of_the_notes() -> None:
    built = derive_reported(facts("psr4_published_effects.csv")).to_csv(index=False, lineterminator="\n")
    assert built.encode() == (PROJECT.published / "expert_personas" / "psr4_reported.csv").read_bytes()


def test_accuracies_agree_with_the_notes_digit_for_digit() -> None:
    noted = derive_accuracies(facts("principled_personas_mmlu_pro_acc.csv"))
    committed = accuracies(PROJECT)
    both = noted.merge(committed, how="left", on=["benchmark", "persona", "role", "model", "series", "citation"])
    assert len(both) == len(noted) == 9 * 18
    assert (both["accuracy_x"] == both["accuracy_y"]).all()


def test_every_reported_contrast_is_marked_second_hand_and_possible() -> None:
    table = reported(PROJECT)
    assert len(table) == 18 and (table["basis"] == "notes").all() and table["citation"].notna().all()
    assert not table.duplicated(["benchmark", "domain", "model", "persona"]).any()
    assert table["estimate"].between(-1, 1).all()
    at_hand = table["low"].notna()
    assert at_hand.sum() == 11 and (at_hand == table["high"].notna()).all()
    assert (table["low"][at_hand] <= table["estimate"][at_hand]).all()
    assert set(table.loc[~at_hand, "p_relation"]) == {"<", "<=", "="}


def test_every_model_has_every_persona() -> None:
    table = accuracies(PROJECT)
    assert table["persona"].nunique() == 42 and len(table) == 9 * 42
    assert table.groupby(["persona", "model"]).size().eq(1).all()
    assert table.groupby("series")["model"].nunique().to_dict() == {"Gemma": 3, "Llama": 3, "Qwen": 3}
    counts = table.groupby("role")["persona"].nunique().to_dict()
    experts = {"question_expert": 3, "field_expert": 14, "low_knowledge": 2}
    assert counts == {"education": 4, "none": 1, "placebo_colour": 6, "placebo_name": 12, **experts}


def test_the_citations_of_the_readme_name_the_tables() -> None:
    text = (PROJECT.published / "README.md").read_text("utf-8")
    for name in ("psr4_reported", "principled_personas_mmlu_pro"):
        assert f"## `expert_personas/{name}.csv`" in text


# --- Deriving ---------------------------------------------------------------------------------------------------

NOTES = "benchmark,domain,model,persona,relation,rd,ci_low,ci_high,p,threshold,note\n"


@pytest.mark.parametrize(
    "row",
    [
        "g,all,m,x,in_domain,.1,,,about .05,mean,",
        "g,all,m,x,sideways,.1,,,.05,mean,",
        "g,all,m,x,in_domain,.1,.2,.3,.05,mean,",
        "g,all,m,x,in_domain,.1,.05,,.05,mean,",
        "g,all,m,x,in_domain,.1,,,,mean,",
    ],
    ids=["p", "relation", "interval", "half an interval", "no p"],
)
def test_notes_that_cannot_be_read_are_refused(tmp_path: Path, row: str) -> None:
    path = tmp_path / "notes.csv"
    path.write_text(NOTES + "g,all,m,x,in_domain,.1,.05,.15,<=0.05,mean,\n" + row + "\n")
    with pytest.raises(SourceError, match=r"Rows \[1\] of notes\.csv"):
        derive_reported(path)


def test_bounds_on_p_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "notes.csv"
    rows = [f"g,all,m,{p},in_domain,.1,,,{p},mean," for p in ("<0.001", "<=0.009", "0.03", "< .5")]
    path.write_text(NOTES + "\n".join(rows))
    table = derive_reported(path)
    assert table["p_relation"].tolist() == ["<", "<=", "=", "<"]
    assert table["p"].tolist() == [0.001, 0.009, 0.03, 0.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (",a,b\nempty,.1,1.2\n", "outside"),
        (",a,b\nempty,.1,.2\nempty,.1,.2\n", "repeats"),
        (",a,b\nlevel1,.1,.2\n", "lacks 'empty'"),
        (",a,b\nempty,.1,.2\na dancer,.1,.2\n", "a dancer"),
    ],
)
def test_malformed_accuracies_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wide.csv"
    path.write_text(text)
    with pytest.raises(SourceError, match=message):
        derive_accuracies(path)


def test_a_persona_without_a_value_for_every_model_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text(",Qwen2-x,gemma-y\nempty,.1,.2\nProfessor Smith,.1,\nlevel1,.3,.4\n")
    table = derive_accuracies(path)
    assert table["persona"].tolist() == ["empty", "empty", "level1", "level1"]
    assert table["series"].tolist() == ["Qwen", "Gemma", "Qwen", "Gemma"]
    assert table["accuracy"].tolist() == [0.1, 0.2, 0.3, 0.4]


# --- Verdicts and equivalence -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimate", "rejected", "equivalent", "expected"),
    [
        (0.1, True, False, SUPERIOR),
        (-0.1, True, False, INFERIOR),
        (0.01, True, True, SUPERIOR),
        (0.01, False, True, EQUIVALENT),
        (0.01, False, False, INCONCLUSIVE),
        (nan, False, False, INCONCLUSIVE),
    ],
)
def test_verdicts(estimate: float, rejected: bool, equivalent: bool, expected: str) -> None:
    assert outcome(estimate, rejected=rejected, equivalent=equivalent) == expected


def test_equivalence_is_the_larger_of_two_one_sided_tests() -> None:
    # R: max(pnorm((.01+.05)/.02, lower=F), pnorm((.01-.05)/.02)), and pt with 8 degrees of freedom
    assert equivalence_p(0.01, 0.02, margin=0.05) == pytest.approx(0.0227501319, rel=1e-8)
    assert equivalence_p(-0.01, 0.02, margin=0.05) == equivalence_p(0.01, 0.02, margin=0.05)
    assert equivalence_p(0.01, 0.02, margin=0.05, df=8) == pytest.approx(0.0402581, rel=1e-5)
    assert equivalence_p(0.06, 0.02, margin=0.05) > 0.5
    assert equivalence_p(0.05, 0.02, margin=0.05) == 0.5
    assert isnan(equivalence_p(0.05, nan, margin=0.05))
    for se, margin in ((0.0, 0.05), (-1.0, 0.05), (0.02, 0.0), (0.02, nan)):
        with pytest.raises(StatisticsError, match="positive"):
            equivalence_p(0.01, se, margin=margin)


# --- Prompting Science Report 4 ---------------------------------------------------------------------------------


def test_p_is_rebuilt_from_the_interval(judged: pd.DataFrame) -> None:
    row = judged.set_index(["domain", "model", "persona"]).loc[("chemistry", "gemini-2.0-flash", "law_expert")]
    # R: s <- (.353-.119)/(2*qnorm(.975)); p <- 2*pnorm(-.236/s); p*36; p*432
    assert row["se"] == pytest.approx(0.0596949744602, rel=1e-10)
    assert row["p"] == pytest.approx(7.70382849426e-05, rel=1e-10)
    assert row["p_adjusted"] == pytest.approx(2.77337825793e-03, rel=1e-10)
    assert row["p_adjusted_all"] == pytest.approx(3.32805390952e-02, rel=1e-10)
    assert (row["low"], row["high"]) == pytest.approx((0.119, 0.353), abs=1e-12)
    # Lies below what 5,000 permutations can show, so the report could not have found it in one family of 432.
    assert row["p"] < permutation_floor()["smallest_p"].iloc[0]


def test_holm_is_that_of_r_over_the_whole_declared_family(judged: pd.DataFrame) -> None:
    rows = judged[(judged["family"] == "off-domain") & (judged["benchmark"] == "mmlu_pro_300")]
    # R: p.adjust(c(six p-values, rep(1, 30)), "holm")
    expected = [0.76885775438201, 0.42926546769518, 0.39035289721209, 0.00277337825793, 0.315, 0.315]
    np.testing.assert_allclose(
        rows.sort_values("p_reported")["p_adjusted"].sort_values(), sorted(expected), rtol=1e-9
    )
    assert (rows["family_size"] == 36).all()


def test_most_of_what_the_report_calls_significant_does_not_survive_its_family(judged: pd.DataFrame) -> None:
    assert judged["paper_significant"].all()
    kept = judged[judged["rejected"]]
    assert sorted(zip(kept["model"], kept["persona"], kept["verdict"], strict=True)) == [
        ("gemini-2.0-flash", "law_expert", SUPERIOR),
        ("o4-mini", "toddler", INFERIOR),
        ("o4-mini", "young_child", INFERIOR),
    ]
    assert judged["changed"].sum() == 15 and set(judged.loc[judged["changed"], "verdict"]) == {INCONCLUSIVE}
    assert judged["rejected_all"].sum() == 1
    uncorrected = rejudge(reported(PROJECT), correction="none")
    # p is .05000 for o4-mini's law expert, whose interval starts at .000 and whose reported p is .049.
    assert uncorrected["rejected"].sum() in (17, 18)


def test_a_bound_on_p_is_used_as_a_bound() -> None:
    judged = rejudge(
        frame(
            {"model": "bound", "estimate": 0.02, "p": 0.001, "p_relation": "<"},
            {"model": "exact", "estimate": 0.02, "p": 0.03},
        ),
        sizes={"in-domain": 2},
    ).set_index("model")
    assert judged.loc["bound", "se"] == pytest.approx(0.02 / norm.isf(0.0005))
    assert judged["se_relation"].to_dict() == {"bound": "<=", "exact": "="}
    assert judged.loc["bound", ["low", "high"]].isna().all() and judged.loc["exact", "low"] > 0
    assert judged["p"].tolist() == [0.001, 0.03] and judged["p_adjusted"].tolist() == [0.002, 0.03]
    assert judged["p_basis"].eq("reported").all()
    assert judged["equivalent"].all() and judged["verdict"].eq(SUPERIOR).all()


def test_all_four_verdicts_and_their_parameters() -> None:
    contrasts = frame(
        {"model": "up", "estimate": 0.2, "low": 0.15, "high": 0.25, "p": 0.001},
        {"model": "down", "estimate": -0.2, "low": -0.25, "high": -0.15, "p": 0.001},
        {"model": "nil", "estimate": 0.001, "low": -0.01, "high": 0.012, "p": 0.9},
        {"model": "open", "estimate": 0.03, "low": -0.1, "high": 0.16, "p": 0.7},
    )
    judged = rejudge(contrasts).set_index("model")
    assert judged["verdict"].to_dict() == {
        "up": SUPERIOR,
        "down": INFERIOR,
        "nil": EQUIVALENT,
        "open": INCONCLUSIVE,
    }
    assert judged["verdict_paper"].tolist() == [SUPERIOR, INFERIOR, "not significant", "not significant"]
    assert rejudge(contrasts, margin=0.01).set_index("model").loc["nil", "verdict"] == INCONCLUSIVE
    assert rejudge(contrasts, margin=0.5).set_index("model").loc["open", "verdict"] == EQUIVALENT
    assert rejudge(contrasts, alpha=1e-30).verdict.tolist() == [INCONCLUSIVE] * 4
    narrow, wide = rejudge(contrasts, confidence=0.5), rejudge(contrasts, confidence=0.99)
    assert (narrow["high"] < wide["high"]).all() and (narrow["verdict"] == wide["verdict"]).all()
    assert (judged["questions"] == 100).all()


def test_families_are_kept_apart_by_benchmark_and_relation() -> None:
    contrasts = frame(
        {"p": 0.01},
        {"p": 0.01, "benchmark": "gpqa_diamond", "domain": "physics"},
        {"p": 0.01, "relation": "adjacent"},
        {"p": 0.01, "relation": "unrelated", "persona": "other"},
    )
    judged = rejudge(contrasts)
    assert judged["p_adjusted"].tolist() == pytest.approx([0.18, 0.18, 0.36, 0.36])
    assert judged["p_adjusted_all"].tolist() == [1, 1, 1, 1]
    assert judged["questions"].tolist()[0] == 100 and judged["questions"].isna().tolist() == [
        False,
        True,
        False,
        False,
    ]
    # Adding a contrast to one family leaves the others alone.
    assert rejudge(contrasts.iloc[:3])["p_adjusted"].tolist() == pytest.approx([0.18, 0.18, 0.36])


def test_an_impossible_family_is_refused() -> None:
    with pytest.raises(StatisticsError, match="cannot hold the 2"):
        rejudge(frame({"model": "a"}, {"model": "b"}), sizes={"in-domain": 1})
    with pytest.raises(StatisticsError, match="No size is given for the family 'in-domain'"):
        rejudge(frame({}), sizes={"off-domain": 3})
    with pytest.raises(StatisticsError, match="sideways"):
        rejudge(frame({"relation": "sideways"}))
    for wrong in ({"alpha": 0.0}, {"confidence": 1.0}, {"margin": -0.1}):
        with pytest.raises(StatisticsError):
            rejudge(frame({}), **wrong)


@pytest.mark.filterwarnings("error")
def test_a_family_that_is_wholly_at_hand_needs_no_filling() -> None:
    judged = rejudge(frame({"p": 0.02}), sizes={"in-domain": 1}, tests=1)
    assert judged["p_adjusted"].tolist() == judged["p_adjusted_all"].tolist() == [0.02]


def test_the_design_has_102_tests_per_benchmark_and_outcome() -> None:
    assert sum(FAMILY_SIZES.values()) == 102
    # 36 pairs of nine conditions, six models, two benchmarks
    assert published.PAPER_TESTS == 9 * 8 // 2 * 6 * 2


def test_five_thousand_permutations_cannot_reject_in_a_family_of_432() -> None:
    table = permutation_floor().set_index("family")
    whole = table.loc["all pairwise tests"]
    assert whole["smallest_p"] == 1 / 5001 and whole["first_threshold"] == pytest.approx(1.1574e-4, rel=1e-4)
    assert not whole["reachable"] and whole["smallest_adjusted_p"] == pytest.approx(432 / 5001)
    assert whole["replicates_needed"] == 8639
    assert table.drop("all pairwise tests")["reachable"].all()


@pytest.mark.parametrize(("tests", "alpha"), [(1, 0.05), (18, 0.05), (432, 0.05), (432, 0.01), (7, 0.1), (3, 0.3)])
def test_the_needed_replicates_are_the_fewest(tests: int, alpha: float) -> None:
    needed = int(permutation_floor(sizes={"x": tests}, alpha=alpha)["replicates_needed"].iloc[0])
    assert permutation_floor(sizes={"x": tests}, alpha=alpha, replicates=needed)["reachable"].all() or (
        1 / (needed + 1) == pytest.approx(alpha / tests)
    )
    if needed > 1:
        assert not permutation_floor(sizes={"x": tests}, alpha=alpha, replicates=needed - 1)["reachable"].any()


def test_precise_replicates_have_the_stated_error() -> None:
    row = permutation_floor(sizes={"x": 36}, precision=0.05).iloc[0]
    p = row["first_threshold"]
    assert sqrt(p * (1 - p) / row["replicates_precise"]) / p == pytest.approx(0.05, rel=1e-4)
    for wrong in ({"replicates": 0}, {"sizes": {"x": 0}}, {"alpha": 1.0}, {"precision": 0.0}):
        with pytest.raises(StatisticsError):
            permutation_floor(**wrong)


# --- Principled Personas ----------------------------------------------------------------------------------------


def test_combined_effects_are_those_of_r() -> None:
    table = combine(model_effects(accuracies(PROJECT))).set_index("contrast")
    row = table.loc["question_expert - none"]
    # R: t.test(x); mean(x) + c(-1,1)*qt(.975,8)*sd(x)*sqrt(1+1/9)
    expected = (0.00508705343599, 0.00144864221399, 0.00872546465798)
    assert (row["estimate"], row["low"], row["high"]) == pytest.approx(expected, rel=1e-9)
    assert row["p"] == pytest.approx(0.01216331640880, rel=1e-9)
    assert (row["prediction_low"], row["prediction_high"]) == pytest.approx(
        (-0.00641861308983, 0.01659271996180), rel=1e-9
    )
    # R: p.adjust(p, "holm") over the five contrasts against no persona
    holm = {
        "low_knowledge - none": 0.05268177571715,
        "field_expert - none": 0.03949003547937,
        "placebo_colour - none": 0.00515660393202,
        "placebo_name - none": 0.37433985919209,
        "question_expert - none": 0.03949003547937,
    }
    assert table.loc[list(holm), "p_adjusted"].tolist() == pytest.approx(list(holm.values()), rel=1e-9)
    yardstick = table.loc["field_expert - placebo_colour"]
    assert (yardstick["estimate"], yardstick["p"]) == pytest.approx((0.00139706271455, 0.37724018523166), rel=1e-9)
    # R: all 512 sign patterns
    assert table.loc["field_expert - none", "p_sign_flip"] == 0.0078125
    assert (table["k"] == 9).all() and (table["least_p_sign_flip"] == 2 / 512).all()


def test_equivalence_over_models_is_that_of_r() -> None:
    effects = model_effects(accuracies(PROJECT))
    only = effects[effects["contrast"] == "field_expert - placebo_colour"]
    row = combine(only, margin=0.005).iloc[0]
    # R: max(t.test(y, mu = -.005, alternative = "greater")$p.value,
    #        t.test(y, mu = .005, alternative = "less")$p.value)
    assert row["p_equivalence"] == row["p_equivalence_adjusted"] == pytest.approx(0.0212270262239, rel=1e-9)
    assert row["equivalent"] and row["verdict"] == EQUIVALENT and row["family_size"] == 1
    assert combine(only, margin=0.005, alpha=0.02).iloc[0]["verdict"] == INCONCLUSIVE


def test_planted_effects_are_found_and_nothing_else() -> None:
    rng = np.random.default_rng(7)
    noise = {
        name: rng.normal(0, 0.004, 9).tolist()
        for name in ("level1", "an expert in law", "Yumi", "favorite color is red")
    }
    planted = {**noise, "an uneducated person": (rng.normal(0, 0.004, 9) - 0.05).tolist()}
    table = combine(model_effects(simulated(planted)), margin=0.02).set_index("contrast")
    assert table.loc["low_knowledge - none", "verdict"] == INFERIOR
    assert table.loc["low_knowledge - none", "estimate"] == pytest.approx(np.mean(planted["an uneducated person"]))
    assert set(table.drop("low_knowledge - none")["verdict"]) == {EQUIVALENT}


def test_a_null_is_rejected_at_about_its_level() -> None:
    rng = np.random.default_rng(11)
    personas = ("level1", "an expert in law", "an uneducated person", "favorite color is red", "Yumi")
    effects = model_effects(simulated({name: rng.normal(0, 0.01, 5).tolist() for name in personas}))
    against_none = effects[effects["family"] == open_models.AGAINST_NONE]
    rejected: list[bool] = []
    for _ in range(200):
        none = against_none.assign(effect=rng.normal(0, 0.01, len(against_none)))
        # Without correction; that of a family is compared with R above.
        rejected += combine(none, correction="none")["rejected"].tolist()
    assert np.mean(rejected) == pytest.approx(0.05, abs=3 * sqrt(0.05 * 0.95 / 1000))


def test_series_are_averaged_before_they_count() -> None:
    effects = model_effects(simulated({"level1": [0.01, 0.03, 0.02, 0.05]}))
    (row,) = combine(effects, unit="series").to_dict("records")
    # m0 and m2 are of one series, m1 and m3 of the other: means .015 and .04
    assert (row["k"], row["positive"], row["least_p_sign_flip"]) == (2, 2, 0.5)
    assert row["estimate"] == pytest.approx(0.0275) and row["sd"] == pytest.approx(0.025 / sqrt(2))


def test_every_declared_contrast_is_made() -> None:
    mmlu = model_effects(accuracies(PROJECT))
    assert mmlu["contrast"].nunique() == len(CONTRASTS) == 9
    assert combine(mmlu).groupby("family")["family_size"].first().to_dict() == {
        "against no persona": 5,
        "against placebo": 4,
    }
    wide = mmlu.pivot(index="model", columns="contrast", values="effect")
    difference = wide["question_expert - none"] - wide["placebo_colour - none"]
    np.testing.assert_allclose(wide["question_expert - placebo_colour"], difference, atol=1e-15)
    assert mmlu.groupby("contrast")["personas"].first()["field_expert - none"] == 14


@pytest.mark.parametrize(
    ("values", "reason"),
    [([0.01], "one unit"), ([0.02, 0.02, 0.02], "identical effects"), ([0.0] * 4, "identical")],
)
def test_what_is_undefined_says_so_and_rejects_nothing(values: list[float], reason: str) -> None:
    (row,) = combine(model_effects(simulated({"level1": values}))).to_dict("records")
    assert reason in row["reason"] and isnan(row["p"]) and isnan(row["low"]) and isnan(row["prediction_high"])
    assert (row["p_adjusted"], row["p_equivalence_adjusted"]) == (1, 1)
    assert row["verdict"] == INCONCLUSIVE and row["estimate"] == pytest.approx(values[0])


def test_what_the_open_models_show() -> None:
    table = combine(model_effects(accuracies(PROJECT))).set_index("contrast")
    # A field named without regard to the question costs about as much as a favourite colour.
    assert table.loc[["field_expert - none", "placebo_colour - none"], "verdict"].tolist() == [INFERIOR, INFERIOR]
    assert table.loc["field_expert - placebo_colour", "verdict"] == EQUIVALENT
    assert table.loc["placebo_colour - none", "positive"] == 0


def test_incomplete_or_mixed_accuracies_are_refused() -> None:
    table = simulated({"level1": [0.1, 0.2], "Yumi": [0.0, 0.1]})
    for wrong in (table.iloc[:-1], pd.concat([table, table.tail(1)]), table.assign(accuracy=nan)):
        with pytest.raises(StatisticsError, match="missing or repeated"):
            model_effects(wrong)
    with pytest.raises(StatisticsError, match="No declared contrast"):
        model_effects(table[table["role"] == "none"])
    effects = model_effects(table)
    for wrong in (pd.concat([effects, effects]), effects.assign(effect=nan)):
        with pytest.raises(StatisticsError, match="missing or repeated"):
            combine(wrong)


def test_every_column_is_documented(judged: pd.DataFrame) -> None:
    effects = model_effects(accuracies(PROJECT))
    results = {
        rejudge: judged,
        permutation_floor: permutation_floor(),
        model_effects: effects,
        combine: combine(effects.head(9)),
        derive_reported: reported(PROJECT),
        derive_accuracies: accuracies(PROJECT),
    }
    for function, table in results.items():
        words = set(re.findall(r"\w+", str(function.__doc__).split("Returns:")[1]))
        assert set(table.columns) <= words, function.__name__
