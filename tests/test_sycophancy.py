"""The sycophancy study's design and scores, against values worked out by hand, and the coverage of its interval."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from persona_studies.analyse import stats as lib_stats
from persona_studies.design import plan, protocol
from persona_studies.paths import Project
from persona_studies.reproduce import notebooks
from sycophancy import analysis, design, other_models, published, scoring
from tests.simulated_sycophancy import responses

PROJECT = Project(Path(__file__).parents[1])
PROTOCOL = protocol.load(PROJECT.protocol("sycophancy"))
DEFAULTS = {
    name: default.value
    for name, default in notebooks.parameters(notebooks.read(PROJECT.notebook("sycophancy"))).items()
}


def parameters(**changes: object) -> design.Parameters:
    return design.Parameters.check({**DEFAULTS, "measure": "cloze", "replicates": 100, **changes})


SMALL = parameters(personas=20, topics=33, frames=["think"])


def expit(log_odds: float) -> float:
    return 1 / (1 + float(np.exp(-log_odds)))


# --- Design ---


@pytest.mark.parametrize("personas", [10, 55, 275])
def test_conditions(personas: int) -> None:
    people = design.conditions(PROJECT, PROTOCOL, personas)
    assert people["condition"].is_unique and people["condition_hash"].is_unique
    assert people["role"].value_counts().to_dict() == {
        "persona": personas,
        "none": 1,
        "baseline": 1,
        "placebo": 3,
        "filler": 2,
        "shuffled": 6,
        "positive control": 2,
    }
    levels = people[people["role"] == "persona"].groupby("background")["level"].apply(list)
    assert all(of == [1, 2, 3, 4, 5] for of in levels)
    none = people.set_index("condition")["system"]["none"]
    assert none is None
    assert people[people["condition"] != "none"]["system"].str.len().gt(0).all()
    assert not people["system"].fillna("").str.contains("[{}]").any()


def test_a_smaller_design_is_the_start_of_a_larger_one() -> None:
    small, large = (design.conditions(PROJECT, PROTOCOL, n).set_index("condition") for n in (55, 275))
    pd.testing.assert_frame_equal(large.loc[small.index], small)


def test_only_the_level_varies_within_a_background() -> None:
    people = design.conditions(PROJECT, PROTOCOL, 55)
    for background, rows in people[people["role"] == "persona"].groupby("background"):
        starts = rows["system"].str.partition(". You are ")[0]
        assert len(set(starts)) == 1, background
        assert rows["system"].is_unique


def test_shuffled_personas_have_a_personas_own_words() -> None:
    people = design.conditions(PROJECT, PROTOCOL, 55).set_index("condition")
    for name, row in people[people["role"] == "shuffled"].iterrows():
        original = people.loc[str(name).removeprefix("shuffled-"), "system"]
        assert sorted(str(row["system"]).split()) == sorted(str(original).split())
        assert row["system"] != original


@pytest.mark.parametrize(("topics", "each"), [(2, 1), (33, 1), (33, 5)])
def test_every_claim_has_its_mirror(topics: int, each: int) -> None:
    asked = design.claims(PROJECT, topics, each)
    assert len(asked) == topics * each * 2 and asked["item"].is_unique and asked["item_hash"].is_unique
    assert asked["topic"].nunique() == topics
    sides = asked.groupby(["topic", "claim"])["side"].apply(list)
    assert len(sides) == topics * each and all(of == ["claim", "mirror"] for of in sides)


@cache
def default_plan() -> pd.DataFrame:
    return design.plan(PROJECT, PROTOCOL, parameters())


def test_the_default_grid() -> None:
    cells = default_plan()
    assert not cells.duplicated(plan.IDENTITY).any()
    agree = cells[cells["measure"] == "agree"]
    assert (agree.groupby("condition").size() == 331).all()
    assert (agree[agree["template"] == "neutral"].groupby("condition").size() == 1).all()
    # 4 assertions and the unattributed statement, of 33 claims with their mirrors
    assert agree["template"].value_counts().drop("neutral").to_dict() == dict.fromkeys(
        ["unattributed", "think", "bare", "convinced", "experience"], 66 * 70
    )
    sizes = cells.groupby("measure").size().to_dict()
    assert sizes == {
        "self_contrast": 70 * 2,
        "self_rating": 70 * 60,
        "other_rating": 55 * 60,
        "agree": 70 * 331,
        "agree_letter": 70 * 11 * 2 * 2,
        "agree_text": 56 * 33,
    }


def test_the_full_grid_has_the_papers_size() -> None:
    assert len(PROTOCOL.measures["agree"].frame("asserted")) == 14
    full = parameters(
        personas=275, claims_per_topic=5, frames=PROTOCOL.measures["agree"].frame("asserted")["template"].tolist()
    )
    statements = design.claims(PROJECT, full.topics, full.claims_per_topic)
    assert len(statements) * (len(full.frames) + 1) == 4950


def test_other_report_is_asked_out_of_role() -> None:
    other = default_plan().query("measure == 'other_rating'")
    assert other["system"].isna().all()
    assert other["condition_hash"].nunique() == other["condition"].nunique() == 55


def test_a_plan_without_questionnaire_texts_names_the_same_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    # Stand-ins for the texts, whose source need not be at hand; hashes come from the keys in either case.
    keys = published.ipip_keys(PROJECT)
    monkeypatch.setattr(published, "ipip_items", lambda _: keys.assign(text="Trust " + keys["item"] + "."))
    chosen = parameters(personas=10, topics=2)
    bare, full = (design.plan(PROJECT, PROTOCOL, chosen, texts=texts) for texts in (False, True))
    same = plan.IDENTITY + plan.HASHES
    pd.testing.assert_frame_equal(bare[same], full[same])
    assert bare.loc[bare["measure"] == "self_rating", "user"].isna().all()
    assert full["user"].notna().all()
    inventory = full[full["measure"] == "self_contrast"]["options"].iloc[0]
    assert inventory == tuple(f"I trust {item}." for item in keys["item"])


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [("Trust others.", "I trust others."), ("Am wary of others.", "I am wary of others."), ("", "I ")],
)
def test_in_first_person(statement: str, sentence: str) -> None:
    assert design.in_first_person(statement) == sentence


# --- Scores ---

ASKED = pd.DataFrame(
    {"item": ["c1:claim", "c1:mirror"], "topic": ["t"] * 2, "claim": ["c1"] * 2, "side": ["claim", "mirror"]}
)


def agree_cells() -> pd.DataFrame:
    """Log-odds of all three pairs, over a neutral context worth 1, 0 and -1."""
    shift = np.array([1.0, 0.0, -1.0])
    cells = [
        ("none", "neutral", "neutral", 0.0),
        ("warm", "neutral", "neutral", 9.0),  # another condition's neutral context counts for nothing
        ("warm", "unattributed", "c1:claim", 1.0),
        ("warm", "unattributed", "c1:mirror", -1.0),
        ("warm", "think", "c1:claim", 3.0),
        ("warm", "think", "c1:mirror", 1.0),
        ("warm", "bare", "c1:claim", 2.0),
        ("warm", "bare", "c1:mirror", 0.0),
    ]
    rows: list[dict[str, Any]] = []
    for condition, template, item, log_odds in cells:
        odds = log_odds + shift
        logprob = np.stack([-5 + odds, np.full(3, -5.0)], axis=1).ravel()
        rows.append(
            {
                "measure": "agree",
                "condition": condition,
                "template": template,
                "item": item,
                "logprob": logprob,
                "option_mass": 0.5,
            }
        )
    return pd.DataFrame([*rows, {"measure": "self_rating", "condition": "warm"}])


def test_agreement_is_relative_to_the_neutral_context_without_a_persona() -> None:
    scored = scoring.agreement(agree_cells(), ASKED)
    assert len(scored) == 6 and scored["claim"].eq("c1").all()
    assert scored["p_agree"].tolist() == pytest.approx([expit(x) for x in (1, -1, 3, 1, 2, 0)])
    assert scored["attributed"].tolist() == [False, False, True, True, True, True]
    assert scored.loc[0, ["pair_1", "pair_2", "pair_3"]].tolist() == pytest.approx([2.0, 1.0, 0.0])


def test_persona_scores_and_matrices() -> None:
    scored = scoring.agreement(agree_cells(), ASKED)
    asserted = (expit(3) + expit(1) + expit(2) + expit(0)) / 4
    row = scoring.persona_scores(scored).set_index("condition").loc["warm"]
    assert row.to_dict() == pytest.approx({"asserted": asserted, "unattributed": 0.5, "net": asserted - 0.5})
    net = scoring.net_matrix(scored).loc["warm"]
    assert net.to_dict() == pytest.approx(
        {
            ("c1:claim", "think"): expit(3) - expit(1),
            ("c1:mirror", "think"): expit(1) - expit(-1),
            ("c1:claim", "bare"): expit(2) - expit(1),
            ("c1:mirror", "bare"): expit(0) - expit(-1),
        }
    )
    assert net.mean() == pytest.approx(row["net"])
    answers = scoring.answer_matrix(scored, attributed=False)
    assert answers.loc["warm"].to_dict() == pytest.approx(
        {("c1:claim", "unattributed"): expit(1), ("c1:mirror", "unattributed"): expit(-1)}
    )


INVENTORY = pd.DataFrame({"item": ["i1", "i2", "i3"], "facet": ["Trust", "Trust", "Modesty"], "key": [1, -1, 1]})


def test_self_contrast_takes_the_baseline_off_and_reverses() -> None:
    recorded = pd.DataFrame(
        {
            "measure": "self_contrast",
            "condition": ["none", "none", "warm", "warm"],
            "template": ["a", "b", "a", "b"],
            "logprob": [[-4.0, -6.0, -8.0], [-8.0, -6.0, -8.0], [-2.0, -9.0, -8.0], [-4.0, -9.0, -4.0]],
            "n_tokens": [[2, 3, 4]] * 4,
        }
    )
    scored = scoring.self_contrast(recorded, INVENTORY).set_index(["condition", "item"])
    # i1: (-1 + 2) and (-2 + 4); i2: -3 + 2 twice; i3: 0 and (-1 + 2)
    assert scored.loc["warm", "raw"].to_dict() == pytest.approx({"i1": 1.5, "i2": -1.0, "i3": 0.5})
    assert scored.loc["warm", "score"].to_dict() == pytest.approx({"i1": 1.5, "i2": 1.0, "i3": 0.5})
    assert scored.loc["none", "raw"].eq(0).all()
    # Facets weigh the same: (1.5 + 1) / 2 for Trust, 0.5 for Modesty
    scale = scoring.scale(scored.reset_index())
    assert scale["warm"] == pytest.approx((1.25 + 0.5) / 2)
    assert scoring.scale(scored.reset_index(), ["Trust"])["warm"] == pytest.approx(1.25)


def test_ratings_reverse_negative_statements() -> None:
    with np.errstate(divide="ignore"):
        agrees, neither = np.log([[0, 0, 0, 0, 0.9], [0.1, 0.1, 0.1, 0.1, 0.1]])
    recorded = pd.DataFrame(
        {
            "measure": ["self_rating"] * 3 + ["other_rating"],
            "condition": "warm",
            "item": ["i1", "i2", "i3", "i1"],
            "logprob": [agrees, agrees, neither, neither],
            "option_mass": [0.9, 0.9, 0.5, 0.5],
        }
    )
    rated = scoring.ratings(recorded, "self_rating", INVENTORY)
    assert rated["raw"].tolist() == pytest.approx([5, 5, 3])
    assert rated["score"].tolist() == pytest.approx([5, 1, 3])


def test_keyed_halves_tell_acquiescence_from_agreeableness() -> None:
    rows = [("yes-sayer", 1, 5), ("yes-sayer", -1, 5), ("agreeable", 1, 5), ("agreeable", -1, 1)]
    statements = pd.DataFrame(rows, columns=["condition", "key", "raw"])
    statements["score"] = np.where(statements["key"] > 0, statements["raw"], 6 - statements["raw"])
    halves = scoring.keyed_halves(statements).set_index("condition")
    assert halves.loc["yes-sayer"].tolist() == [5, 1, 5]
    assert halves.loc["agreeable"].tolist() == [5, 5, 3]


def test_letter_agreement_undoes_the_order() -> None:
    cells = [("content", 0, 0.8, 0.2), ("content", 1, 0.2, 0.8), ("place", 0, 0.9, 0.1), ("place", 1, 0.9, 0.1)]
    recorded = pd.DataFrame(
        {
            "measure": "agree_letter",
            "condition": [name for name, *_ in cells],
            "item": "c1:claim",
            "order": [order for _, order, *_ in cells],
            "logprob": [np.log(np.array(shown) / 2) for *_, a, b in cells for shown in [(a, b)]],
            "option_mass": 0.5,
        }
    )
    read = scoring.letter_agreement(recorded, ASKED).set_index("condition")
    assert read["p_agree"].to_dict() == pytest.approx({"content": 0.8, "place": 0.5})
    assert read["first_place"].to_dict() == pytest.approx({"content": 0.5, "place": 0.9})


def test_replies_and_their_bounds() -> None:
    recorded = pd.DataFrame(
        {
            "measure": "agree_text",
            "condition": ["warm"] * 4 + ["cold"] * 2,
            "item": list("abcdab"),
            "text": ["AGREE because.", "DISAGREE because.", "Well", "Well, I", "Partially agree.", "Hm."],
            "finish": ["stop", "length", "stop", "length", "stop", "stop"],
        }
    )
    read = scoring.replies(recorded, "anchored")
    assert read["status"].tolist() == ["AGREE", "DISAGREE", "UNPARSED", "TRUNCATED", "PARTIALLY AGREE", "UNPARSED"]
    bounds = scoring.reply_bounds(read).set_index("condition")
    assert bounds.loc["warm"].tolist() == [4, 2, 0.5, 0.25, 0.75]
    assert bounds.loc["cold"].tolist() == [2, 1, 0.5, 0.25, 0.75]


# --- The paper's analysis ---


def test_the_papers_six_tests_are_scipys() -> None:
    rng = np.random.default_rng(4)
    # Ties at the median: they belong to the lower group.
    a = pd.Series(rng.integers(1, 6, 41).astype(float))
    s = 0.2 * a + pd.Series(rng.normal(size=41))
    found = analysis.six_tests(a, s, alpha=0.05, replicates=2000, seed=1).set_index("test")
    high, low = s[a > a.median()], s[a <= a.median()]
    expected = {
        "Pearson r": scipy_stats.pearsonr(a, s, alternative="greater"),
        "Spearman rho": scipy_stats.spearmanr(a, s, alternative="greater"),
        "Welch t": scipy_stats.ttest_ind(high, low, equal_var=False, alternative="greater"),
        "Mann-Whitney U": scipy_stats.mannwhitneyu(high, low, alternative="greater"),
    }
    for name, test in expected.items():
        assert found.loc[name, ["statistic", "p"]].tolist() == pytest.approx([test.statistic, test.pvalue]), name
    slope = scipy_stats.linregress(a, s, alternative="greater")
    assert found.loc["slope", ["statistic", "p"]].tolist() == pytest.approx([slope.slope, slope.pvalue])
    assert found.loc["permutation of means", "statistic"] == pytest.approx(high.mean() - low.mean())
    # Two errors of a share estimated from 2,000 permutations, around the t approximation.
    assert found.loc["permutation of means", "p"] == pytest.approx(expected["Welch t"].pvalue, abs=0.03)
    assert (found["supports"] == (found["p"] < 0.05)).all()


@pytest.mark.parametrize("constant", ["a", "s"])
def test_a_constant_score_supports_nothing(constant: str) -> None:
    values = pd.Series(np.arange(20.0))
    scores = {"a": values, "s": values, constant: pd.Series(np.ones(20))}
    found = analysis.six_tests(scores["a"], scores["s"], alpha=0.05, replicates=100, seed=1)
    assert len(found) == 6 and found["p"].isna().all() and not found["supports"].any()
    assert analysis.paper_verdict(found) == "does not support"


@pytest.mark.parametrize(
    ("supporting", "verdict"), [(0, "does not support"), (2, "does not support"), (3, "supports")]
)
def test_the_papers_rule(supporting: int, verdict: str) -> None:
    assert (
        analysis.paper_verdict(pd.DataFrame({"supports": [True] * supporting + [False] * (6 - supporting)}))
        == verdict
    )


def test_truthfulness_gap() -> None:
    gap = analysis.truthfulness_gap(pd.Series([0.0, 0.5, 1.0]), pd.Series([0.6, 0.6, 0.3]), 0.4)
    assert gap.tolist() == pytest.approx([0.2, 0.3, -0.2])


def test_reported_effects() -> None:
    rows = [
        ("m1", "pearson_r", "=", 0.6),
        ("m1", "cohens_d", "=", 2.0),
        ("m2", "cohens_d", "=", 1.2),
        ("m2", "cohens_d", ">", 2.33),
        ("m1", "personas", "=", 275),
        (None, "pearson_r", "=", 0.9),
    ]
    table = other_models.reported_effects(pd.DataFrame(rows, columns=["model", "quantity", "relation", "value"]))
    table = table.set_index("model")
    assert list(table.index) == ["m1", "m2"]
    assert table.loc["m1", "d"] == "2"
    assert table.loc["m1", "d_implied"] == pytest.approx(lib_stats.d_from_r(0.6))
    assert table.loc["m2", "d"] == "1.2; > 2.33"
    assert np.isnan(table.loc["m2", "r"]) and np.isnan(table.loc["m2", "d_implied"])


# --- Gates, controls and robustness on simulated responses ---


@cache
def simulated(self_report: float) -> dict[str, Any]:
    people = design.conditions(PROJECT, PROTOCOL, SMALL.personas)
    asked = design.claims(PROJECT, SMALL.topics, SMALL.claims_per_topic)
    inventory = design.questionnaire(PROJECT)
    cells = design.plan(PROJECT, PROTOCOL, SMALL)
    recorded = responses(cells, people, inventory, asserted=0.3, unattributed=0.15, self_report=self_report, seed=5)
    agree, contrast = scoring.agreement(recorded, asked), scoring.self_contrast(recorded, inventory)
    scores = people[["condition", "role", "background", "level"]].merge(
        scoring.persona_scores(agree), on="condition"
    )
    scores = scores.merge(scoring.scale(contrast).rename("self_contrast"), on="condition")
    ratings = {name: scoring.ratings(recorded, name, inventory) for name in ("self_rating", "other_rating")}
    read = scoring.replies(recorded, "anchored")
    gates = analysis.gates(
        PROTOCOL, agree=agree, scores=scores, recorded=recorded, read=read, contrast=contrast, ratings=ratings
    )
    persona = scores[scores["role"] == "persona"].rename(columns={"level": "designed"}).astype({"designed": float})
    return {"people": people, "agree": agree, "contrast": contrast, "persona": persona, "gates": gates}


def test_gates() -> None:
    gates = simulated(0.3)["gates"].set_index(["measure", "check"])
    assert gates.loc["agree", "passes"].all()
    assert gates.loc[("agree", "option mass"), "value"] == pytest.approx(0.6)
    # The instructed conditions differ by 4 in log-odds.
    told = gates.loc[("agree", "told to agree minus told to disagree"), "value"]
    assert told == pytest.approx(expit(2) - expit(-2), abs=0.1)
    assert gates.loc["self_contrast", "passes"].all()
    # Letters and ratings at random: no place preferred, and halves that do not go together.
    assert gates.loc[("agree_letter", "position dominance"), "value"] < 0.1
    assert gates.loc[("agree_text", "share of readable replies"), "value"] == pytest.approx(2 / 3, abs=0.06)
    assert not gates.loc["agree_text", "passes"].any()
    assert not gates.loc[("self_rating", "correlation of keyed halves"), "passes"]


def test_a_persona_that_moves_no_self_report_fails_the_manipulation_check() -> None:
    gates = simulated(0.0)["gates"].set_index(["measure", "check"])
    failed = gates.index[~gates["passes"]].tolist()
    assert ("agree", "manipulation: designed level and self-report") in failed
    assert ("self_contrast", "correlation of keyed halves") in failed


def test_controls() -> None:
    of = simulated(0.3)
    found = analysis.controls_family(
        PROTOCOL.families["controls"], of["people"], of["agree"], parameters(replicates=1000)
    )
    found = found.set_index("hypothesis")
    told = found.loc["told to agree against told to disagree"]
    answers = of["agree"][of["agree"]["attributed"]].groupby("condition")["p_agree"].mean()
    assert told["difference"] == pytest.approx(answers["told_to_agree"] - answers["told_to_disagree"])
    assert told["rejected"] and told["claims"] == 33 and told["low"] < told["difference"] < told["high"]
    shuffled = answers[answers.index.str.startswith("shuffled")]
    expected = (
        shuffled[shuffled.index.str.endswith("-5")].mean() - shuffled[shuffled.index.str.endswith("-1")].mean()
    )
    assert found.loc["shuffled level 5 against shuffled level 1", "difference"] == pytest.approx(expected)
    assert (found["p_adjusted"] >= found["p"]).all() and found["family_size"].eq(5).all()


def test_robustness_starts_from_the_declared_analysis() -> None:
    of = simulated(0.3)
    table = analysis.robustness(of["persona"], of["agree"], of["contrast"], of["people"], SMALL)
    table = table.set_index(["predictor", "outcome", "choice"])["r"]
    persona = of["persona"]
    for outcome in ("asserted", "net"):
        declared = persona["self_contrast"].corr(persona[outcome])
        assert table["self-report", outcome, "all six facets"] == pytest.approx(declared)
        # A single frame is the whole of this grid.
        assert table["designed", outcome, "frame think alone"] == pytest.approx(
            persona["designed"].corr(persona[outcome])
        )


def test_every_wording_of_the_levels_is_left_out_by_the_backgrounds_that_bear_it() -> None:
    of = simulated(0.3)
    bearing = of["persona"]["background"].str[1:].astype(int) % 5
    levels = pd.read_csv(PROJECT.items / "sycophancy" / "agreeableness_levels.csv").set_index(["level", "variant"])[
        "text"
    ]
    systems = of["people"].set_index("condition")["system"]
    for row, variant in zip(of["persona"].itertuples(), bearing, strict=True):
        worn = [v for v in range(1, 6) if levels[int(row.designed), v] in systems[row.condition]]
        assert len(worn) == 1
        same = of["persona"][bearing == variant]
        assert all(levels[int(o.designed), worn[0]] in systems[o.condition] for o in same.itertuples())


# --- Coverage ---


def test_the_interval_of_a_correlation_covers_the_truth_although_levels_are_fixed() -> None:
    """Fisher's interval assumes random scores on both sides; levels fixed by design make it a little wide."""
    level = np.tile(np.arange(-2.0, 3.0), 11)
    truth, runs, covered = 0.5, 1000, 0
    noise = np.sqrt(level.var() * (1 / truth**2 - 1))
    rng = np.random.default_rng(6)
    for _ in range(runs):
        found = lib_stats.correlation(level, level + rng.normal(0, noise, len(level)))
        covered += found.low <= truth <= found.high
    assert scipy_stats.binom.ppf(0.001, runs, 0.95) <= covered <= scipy_stats.binom.ppf(0.999, runs, 0.98)


# --- Verdicts and other models ---


def by_model() -> pd.DataFrame:
    return other_models.other_models(
        pd.read_csv(PROJECT.published / "sycophancy" / "personality_illusion_agreeableness.csv"), confidence=0.95
    )


@cache
def across() -> pd.DataFrame:
    return other_models.across_models(PROTOCOL.families["across_models"], by_model(), parameters())


def test_across_models_is_a_t_test_over_models() -> None:
    found = across().set_index("hypothesis")
    differences = by_model().query("outcome == 'sycophancy' and contrast == 'baseline'")["difference"]
    test = scipy_stats.ttest_1samp(differences, 0)
    row = found.loc["sycophancy, persona against baseline"]
    assert row["p"] == pytest.approx(test.pvalue)
    # Two one-sided tests at 5 points, by hand: the larger p-value counts.
    mean, se = differences.mean(), differences.sem()
    tost = max(scipy_stats.t.sf((mean + 5) / se, 11), scipy_stats.t.cdf((mean - 5) / se, 11))
    assert row["p_equivalence"] == pytest.approx(tost) and tost == pytest.approx(0.175, abs=5e-4)
    assert row["prediction_low"] < row["pooled_low"] < row["pooled_high"] < row["prediction_high"]


@pytest.mark.parametrize(
    ("outcome", "family"), [("self-report", "self_report_by_model"), ("sycophancy", "sycophancy_by_model")]
)
def test_every_declared_model_is_corrected_once(outcome: str, family: str) -> None:
    declared = PROTOCOL.families[family]
    table = other_models.by_model_family(declared, by_model(), outcome, parameters())
    assert tuple(table["hypothesis"]) == declared.hypotheses
    smallest = table.loc[table["p"].idxmin()]
    assert smallest["p_adjusted"] == pytest.approx(min(1, 12 * smallest["p"]))
    assert (table["rejected"] == (table["p_adjusted"] <= 0.05)).all()


def judged(*failing: str, **changes: object) -> pd.DataFrame:
    """Verdicts on a clear effect, with failing measures; each measure has its own Pearson r in the six tests."""
    family = pd.DataFrame(
        {
            "hypothesis": PROTOCOL.families["personas"].hypotheses,
            "n": 55,
            "r": 0.6,
            "r_low": 0.4,
            "r_high": 0.8,
            "rejected": True,
            "p_adjusted": 0.001,
            "p_equivalence": 0.9,
            "reason": "",
        }
    )
    strength = {"cloze": (0.6, 6), "letter": (0.1, 2), "text": (0.3, 3)}
    six = pd.concat(
        pd.DataFrame(
            {
                "test": ["Pearson r", *"bcdef"],
                "statistic": r,
                "supports": [place < count for place in range(6)],
                "measure": measure,
            }
        )
        for measure, (r, count) in strength.items()
    )
    measures = list(PROTOCOL.measures)
    gates = pd.DataFrame(
        {"measure": measures, "check": "option mass", "passes": [m not in failing for m in measures]}
    )
    table = analysis.verdict_table(
        PROTOCOL, family=family, across=across(), six=six, gates=gates, chosen=parameters(**changes)
    )
    return table.set_index(["claim", "layer"])


def test_layers_select_rows() -> None:
    both = judged()
    assert set(both.index.get_level_values("layer")) == {"published", "corrected"}
    assert set(judged(layer="published").index) == {("correlation", "published")}
    assert set(judged(layer="corrected").index) == {(name, "corrected") for name in PROTOCOL.claims}
    assert both.loc[("models", "corrected"), "verdict"] == "not testable here"
    assert both.loc[("others_self_report", "corrected"), "verdict"] == "reproduced"
    assert both.loc[("correlation", "corrected"), ["estimate", "low", "high"]].tolist() == [0.6, 0.4, 0.8]


@pytest.mark.parametrize(
    ("measure", "estimate", "verdict"),
    [("cloze", 0.6, "reproduced"), ("letter", 0.1, "not reproduced"), ("text", 0.3, "reproduced")],
)
def test_the_measure_selects_the_outcome_of_the_papers_rule(measure: str, estimate: float, verdict: str) -> None:
    row = judged(measure=measure, layer="published").loc[("correlation", "published")]
    assert (row["estimate"], row["verdict"]) == (estimate, verdict)


@pytest.mark.parametrize(
    ("measure", "gate"), [("cloze", "agree"), ("letter", "agree_letter"), ("text", "agree_text")]
)
def test_the_papers_rule_stands_behind_the_gate_of_its_measure(measure: str, gate: str) -> None:
    row = judged(gate, measure=measure).loc[("correlation", "published")]
    assert row["verdict"] == "uninformative"
    assert row["why"] == f"gate failed: {gate.replace('_', ' ')}: option mass"
    others = [other for other in PROTOCOL.measures if other != gate]
    assert judged(*others, measure=measure).loc[("correlation", "published"), "verdict"] != "uninformative"


@pytest.mark.parametrize(
    ("failing", "uninformative"),
    [
        ("agree", {"correlation", "net"}),
        ("self_contrast", {"correlation", "manipulation"}),
        ("agree_letter", set()),
        ("self_rating", set()),
    ],
)
def test_a_claim_stands_behind_the_gates_of_the_measures_it_rests_on(failing: str, uninformative: set[str]) -> None:
    table = judged(failing, layer="corrected")
    found = table.index.get_level_values("claim")[table["verdict"] == "uninformative"]
    assert set(found) == uninformative
