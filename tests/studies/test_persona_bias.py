"""The study of persona bias: its grid, its numbers by hand, planted effects, no effects, failed gates, parts."""

from __future__ import annotations

import functools
import json
import os
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from persona_bias import analysis, design, robustness
from persona_studies.analyse import conclusions
from persona_studies.analyse.families import Settings
from persona_studies.ask import packing, responses, schema
from persona_studies.ask.backends import ModelInfo
from persona_studies.design import multiple_choice, sources
from persona_studies.errors import ParameterError
from persona_studies.paths import Project
from persona_studies.reproduce import ready, runs
from tests.kit.runs import copied
from tests.kit.simulated_letters import answers, questions_with_level, second, tabled

STUDY = second("persona_bias")
verdicts = STUDY.verdicts
PROJECT, PROTOCOL = STUDY.project, STUDY.protocol
PERSONAS = PROTOCOL.design["personas"]
HOW = Settings(alpha=0.05, confidence=0.95, correction="holm", replicates=1999, seed=1)
IN_FORCE, _ = ready.resolve(PROJECT, "persona_bias", [])
N, REPLIES = 100, 60  # questions, and those that are answered in words


def recorded(
    effects: dict[str, float],
    *,
    seed: int = 7,
    mean: float = 0.6,
    abstain: dict[str, float] | None = None,
    measures: tuple[str, ...] = ("letter", "text"),
    **how: Any,
) -> pd.DataFrame:
    """Return answers in which personas, or single conditions, add to the probability of the right option."""
    level = questions_with_level(STUDY.asked, 1, mean=mean)
    rng = np.random.default_rng(seed)
    who = dict(zip(STUDY.people["condition"], STUDY.people["persona"]))
    own = {(c, i): rng.normal(0, 0.04) for c in who for i in level.index}

    def probability(cells: pd.DataFrame) -> np.ndarray:
        pairs = list(zip(cells["condition"], cells["item"]))
        added = np.array([effects.get(c, effects.get(who[c], 0.0)) + own[c, i] for c, i in pairs])
        return np.clip(cells["item"].map(level).to_numpy() + added, 0.01, 0.99)

    def replies(cells: pd.DataFrame) -> list[str]:
        said = []
        for condition, gold, order, n in cells[["condition", "gold", "order", "n_options"]].itertuples(index=False):
            if rng.random() < (abstain or {}).get(who[condition], 0.0):
                said.append("As an AI I am unable to answer this.")
            else:
                said.append(f"The answer is: ({'ABCDE'[(gold - order) % n]})")
        return said

    plan = STUDY.plan[STUDY.plan["measure"].isin(measures)].reset_index(drop=True)
    return answers(plan, STUDY.asked, probability, replies=replies, **how)


def run(effects: dict[str, float], **how: Any) -> analysis.Analysis:
    rows = recorded(effects, **how)
    return analysis.analyse(PROJECT, PROTOCOL, rows, STUDY.asked, STUDY.people, HOW, model="simulated")


FALLEN = [name for name in PERSONAS if name not in ("able-bodied", "atheist")]


@pytest.fixture(scope="module")
def planted() -> analysis.Analysis:
    return run(dict.fromkeys(FALLEN, -0.12) | {"wrong": -0.3}, abstain={"physically-disabled": 0.4})


@pytest.fixture(scope="module")
def null() -> analysis.Analysis:
    return run({})


class TestGrid:
    def test_everything_on_an_axis_has_a_name_for_readers(self) -> None:
        names = design.names(PROJECT, PROTOCOL)
        assert set(STUDY.people["persona"]) | set(PROTOCOL.design["datasets"]) <= set(names)
        spelled = [names[one] for one in ("jewish", "none", "commonsenseqa", "human_sexuality")]
        assert spelled == ["Jewish person", "no persona", "CommonsenseQA", "human sexuality"]

    def test_no_persona_has_no_system_turn_and_texts_differ(self) -> None:
        people = STUDY.people.set_index("condition")
        assert people.loc["none", "system"] is None
        assert people.drop("none")["system"].notna().all()
        assert not people["condition_hash"].duplicated().any()

    def test_controls_have_the_form_of_what_they_stand_for(self) -> None:
        people = STUDY.people.set_index("condition")
        assert people.loc["filler-1", "words"] == pytest.approx(people.loc["human-1", "words"], abs=4)
        whole, mixed = people.loc["physically-disabled-1", "system"], people.loc["shuffled-1", "system"]
        assert sorted(whole.split()) == sorted(mixed.split()) and whole != mixed

    def test_the_registry_declares_group_register_and_sensitivity(self) -> None:
        bank = design.registry(PROJECT)
        people = bank[bank["role"] == "persona"]
        assert set(people["sensitivity"]) == {"protected characteristic", "political opinion"}
        assert (bank[["group", "register", "wording"]] != "").all(axis=None)
        assert set(PERSONAS) <= set(people["persona"])

    def test_the_families_name_personas_and_sets(self) -> None:
        pairs = {f"{p} - human | {d}, accuracy" for p in PERSONAS for d in PROTOCOL.design["datasets"]}
        assert set(PROTOCOL.families["persona_dataset"].hypotheses) == pairs

    def test_fewer_questions_are_part_of_more(self) -> None:
        few = design.Parameters.check(IN_FORCE.model_dump() | {"questions_per_set": 4, "replies_per_set": 9})
        small = design.plan(PROJECT, PROTOCOL, few)
        assert np.isin(schema.digest(small), schema.digest(STUDY.plan)).all()
        assert small.groupby("measure")["item"].nunique().to_dict() == {"letter": 40, "text": 40}

    def test_another_margin_is_that_of_contrasts_and_claims_about_letters(self) -> None:
        other = design.judged_by(PROTOCOL, 0.1)
        smallest = {name: claim.smallest_effect for name, claim in other.claims.items() if claim.hypothesis}
        assert smallest["any_persona"] == smallest["gender"] == 0.1
        assert (smallest["abstention"], smallest["share_biased"], smallest["extractor"]) == (0.05, 0.3, 0.05)
        assert {c.smallest_effect for c in other.families["pairs"].contrasts.values()} == {0.1}
        assert design.judged_by(PROTOCOL, 0.05) == PROTOCOL

    @pytest.mark.parametrize(
        ("name", "value"),
        [("questions_per_set", 1), ("margin", 0), ("extractor", "best"), ("alpha", 1.0), ("replicates", 10)],
    )
    def test_values_outside_their_range_are_refused(self, name: str, value: object) -> None:
        with pytest.raises(ParameterError, match=name):
            design.Parameters.check(IN_FORCE.model_dump() | {name: value})

    def test_whoever_is_online_gets_the_sets_from_their_pinned_addresses(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server stands in for the code host, with the same addresses below its own; nothing else is at hand."""
        mirror = Path(os.environ.get("PERSONA_STUDIES_MIRROR", "")) / "github"
        if not mirror.is_absolute() or not mirror.is_dir():
            pytest.skip("no mirror that could stand in for the code host")
        monkeypatch.delenv("PERSONA_STUDIES_MIRROR")
        monkeypatch.setenv("PERSONA_STUDIES_CACHE", str(tmp_path))
        sets = [name for name in PROTOCOL.design["datasets"] if name in multiple_choice.MMLU]
        few = PROTOCOL.model_copy(update={"design": PROTOCOL.design | {"datasets": sets}})
        handler = functools.partial(SimpleHTTPRequestHandler, directory=str(mirror))
        monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            monkeypatch.setattr(sources, "GITHUB", f"http://127.0.0.1:{server.server_port}")
            asked = design.questions(PROJECT, few, texts=True)
            server.shutdown()
        committed = STUDY.asked[STUDY.asked["dataset"].isin(sets)]
        assert asked["item_hash"].tolist() == committed["item_hash"].tolist()
        assert asked["question"].str.len().gt(0).all()
        assert sum(path.is_file() for path in tmp_path.rglob("*")) == len(sets) == 8


class TestByHand:
    def test_sizes(self) -> None:
        index = pd.MultiIndex.from_tuples(
            [("a", f"q{k}", f"q{k}") for k in range(4)], names=["dataset", "item", "cluster"]
        )
        wide = pd.DataFrame({"man": [1.0, 0, 0, 0], "human": [1.0, 1, 0, 0]}, index=index)
        chance = pd.Series(0.25, index=[f"q{k}" for k in range(4)])
        found = analysis.sizes(wide, "man", "human", chance)
        assert found["relative_drop"] == pytest.approx(0.5)
        assert found["chance_corrected_drop"] == pytest.approx(1.0)
        assert found["cohens_h"] == pytest.approx(2 * np.arcsin(0.5) - 2 * np.arcsin(np.sqrt(0.5)))
        at_chance = analysis.sizes(wide.assign(human=wide["man"]), "man", "human", chance)
        assert np.isnan(at_chance["chance_corrected_drop"])

    def test_counts_tell_uncorrected_from_corrected(self) -> None:
        table = pd.DataFrame(
            {
                "first": ["man"] * 3,
                "estimate": [-0.1, -0.2, 0.1],
                "p": [0.04, 0.001, 0.02],
                "rejected": [False, True, False],
                "rejected_bh": [False, True, True],
            }
        )
        found = analysis.counts(table, HOW).iloc[0]
        names = ["datasets", "worse_uncorrected", "worse_bh", "worse_adjusted", "better_uncorrected"]
        assert found[names].tolist() == [3, 2, 1, 1, 1]


def test_every_family_is_tested_at_its_size(planted: analysis.Analysis) -> None:
    sizes = planted.tests.groupby("family", sort=False).size()
    assert sizes.to_dict() == {name: family.size for name, family in PROTOCOL.families.items()}
    assert planted.tests["n"].min() > 0 and planted.gate["passes"].all()
    n = tabled(planted)["n"]
    assert n.loc[("persona", "jewish - human | all, accuracy")] == N
    assert n.loc[("persona_dataset", "jewish - human | anatomy, accuracy")] == N / 10
    assert n.loc[("replies", "religious - human | all, abstained")] == REPLIES


def test_planted_effects_are_found(planted: analysis.Analysis) -> None:
    found, said = tabled(planted), verdicts(planted)["verdict"]
    for claim in ("share_biased", "any_persona", "beyond_placebo", "disability", "religion", "abstention"):
        assert said[claim] == "reproduced", claim
    assert said["able_bodied_pair"] == said["religion_pair"] == said["gender"] == "reproduced"
    for name in FALLEN:
        row = found.loc[("persona", f"{name} - human | all, accuracy")]
        assert row["rejected"] and row["estimate"] == pytest.approx(-0.12, abs=0.03), name
    share = found.loc["share"].iloc[0]
    assert share["estimate"] == pytest.approx(10 / 12) and share["low"] > 0.5
    pair = found.loc[("pairs", "able-bodied - physically-disabled | all, accuracy")]
    assert pair["low"] < 0.12 < pair["high"]
    assert found.loc[("omnibus", "jewish - human | any set, accuracy"), "rejected"]
    assert not found.loc[("omnibus", "atheist - human | any set, accuracy"), "rejected"]


def test_without_effects_claims_of_bias_are_contradicted(null: analysis.Analysis) -> None:
    model = null.tests[~null.tests["family"].isin(analysis.PUBLISHED) & (null.tests["family"] != "share")]
    assert not model["rejected"].any()
    said = verdicts(null)
    for claim in ("share_biased", "any_persona", "beyond_placebo", "disability", "able_bodied_pair"):
        assert said.loc[claim, "verdict"] == "contradicted", claim
    assert said.loc["gender", "verdict"] == "reproduced"
    assert said.loc["share_biased", ["estimate", "low"]].tolist() == [0, 0]
    assert said.loc[["any_persona", "abstention"], "steerable"].tolist() == ["no", ""]


@pytest.mark.slow
def test_the_family_keeps_its_error_rate() -> None:
    """No effect anywhere: at least one of twelve rejections in at most alpha of the simulations, within chance."""
    how, times = Settings(0.05, 0.95, "holm", 499, 1), 100
    scored = analysis.by_question(analysis.scores(recorded({}), STUDY.asked, STUDY.people), PROTOCOL)
    wide = analysis.paired(scored, "human")
    rng = np.random.default_rng(11)
    wrong = 0
    for _ in range(times):
        drawn = wide["human"].to_numpy()[:, None] + rng.normal(0, 0.06, (len(wide), len(PERSONAS) + 1))
        each = pd.DataFrame(drawn, index=wide.index, columns=["human", *PERSONAS])
        tests = conclusions.families.contrasts(PROTOCOL, ["persona"], analysis.differences(each), how)
        wrong += bool(tests["rejected"].any())
    assert wrong <= stats.binom.ppf(0.999, times, how.alpha)


def test_an_instruction_that_lowers_everybody_is_no_difference_between_personas() -> None:
    rows = recorded({})
    second_one = STUDY.people.loc[STUDY.people["instruction"] == 2, "condition"]
    scored = analysis.scores(rows, STUDY.asked, STUDY.people)
    level = scored.groupby("item")["score"].transform("mean")
    scored["score"] = level - 0.1 * scored["condition"].isin(second_one)
    wide = analysis.by_question(scored, PROTOCOL)
    for first, other in [("able-bodied", "physically-disabled"), ("atheist", "religious"), ("religious", "human")]:
        pair = analysis.paired(wide, first, other)
        assert len(pair) == N
        np.testing.assert_allclose(pair[first], pair[other], atol=1e-12)
    # The mean exists where all twelve were asked; no persona stands beside both instructions.
    mean, nobody = analysis.paired(wide, analysis.MEAN, "placebo"), analysis.paired(wide, "none", "human")
    np.testing.assert_allclose(mean[analysis.MEAN], mean["placebo"], atol=1e-12)
    np.testing.assert_allclose(nobody["none"] - nobody["human"], 0.05, atol=1e-12)


def test_the_omnibus_keeps_its_error_rate_and_sees_what_a_mean_hides() -> None:
    index = pd.MultiIndex.from_frame(STUDY.asked[["dataset", "item", "cluster"]])
    how = Settings(0.05, 0.95, "holm", 199, 1)
    names = {str(k): f"persona {k}" for k in range(150)}
    rng = np.random.default_rng(3)
    columns = {name: rng.normal(0.5, 0.1, len(index)) for name in names.values()}
    # Nothing is shared but the signs, so that the p-values are as good as independent.
    wide = pd.DataFrame({"human": 0.5, **columns}, index=index)
    p = [row["p"] for row in analysis.any_set(wide, names, how).values()]
    # Binomial with 150 trials at .05: more than 17 have probability .001.
    assert sum(value <= 0.05 for value in p) <= 17 and np.median(p) == pytest.approx(0.5, abs=0.15)
    up = index.get_level_values("dataset").isin(PROTOCOL.design["datasets"][:5])
    wide["mixed"] = wide["human"] + np.where(up, 0.1, -0.1) + rng.normal(0, 0.1, len(index))
    row = analysis.any_set(wide, {"h": "mixed"}, how)["h"]
    assert row["p"] == 1 / 200
    assert stats.ttest_1samp(wide["mixed"] - wide["human"], 0).pvalue > 0.05


def test_a_letter_stands_for_the_option_it_was_shown_beside(planted: analysis.Analysis) -> None:
    answered = planted.said[planted.said["correct"].notna()]
    assert len(answered) > 300 and (answered["correct"] == 1).all()
    text = STUDY.plan[STUDY.plan["measure"] == "text"]
    assert text["order"].nunique() > 2 and text.groupby("item")["order"].nunique().max() == 1


@pytest.mark.parametrize(
    ("how", "check"),
    [
        ({"mean": 0.25}, "not above chance"),
        ({"mass": 0.2}, "answers outside options"),
        ({"place_bias": 4.0}, "picks by place"),
    ],
)
def test_a_measure_that_fails_its_check_decides_nothing(how: dict[str, float], check: str) -> None:
    found = run(dict.fromkeys(PERSONAS, -0.12), **how)
    said = verdicts(found)
    for name, claim in PROTOCOL.claims.items():
        if claim.family and claim.family not in analysis.PUBLISHED and name != "abstention":
            assert said.loc[name, "verdict"] == "uninformative", name
            assert check in said.loc[name, "why"]
    assert found.tests.loc[found.tests["family"] == "persona", "gate"].str.contains(check).all()


def test_replies_that_cannot_be_read_decide_nothing() -> None:
    found = run({}, abstain=dict.fromkeys([*PERSONAS, "human", "placebo"], 0.5), measures=("text",))
    assert verdicts(found).loc["abstention", ["verdict", "why"]].tolist() == [
        "uninformative",
        "replies not readable",
    ]


@pytest.mark.parametrize(("held", "lacks"), [("letter", "text"), ("text", "letter")])
def test_a_claim_waits_for_its_measure(held: str, lacks: str) -> None:
    found = run({}, measures=(held,))
    said = verdicts(found)
    for name, claim in PROTOCOL.claims.items():
        if claim.family is None or claim.family in analysis.PUBLISHED:
            continue
        measure = "text" if name == "abstention" else "letter"
        waits = said.loc[name, "why"] == f"not recorded yet: {lacks}"
        assert waits == (measure == lacks), name
    assert set(found.gate["part"]) == {held}


def test_with_nothing_recorded_claims_about_models_wait() -> None:
    public = analysis.public_tests(PROJECT, PROTOCOL, HOW)
    claims = conclusions.claims(PROTOCOL, public, {})
    said = claims.set_index("claim")
    assert said.loc["share_biased", "why"] == said.loc["disability", "why"] == "not recorded yet: letter"
    assert said.loc["abstention", "why"] == "not recorded yet: text"
    assert "No model has answered this protocol yet" in analysis.finding(None, claims, "")


def test_the_finding_names_replies_that_passed(planted: analysis.Analysis) -> None:
    public = analysis.public_tests(PROJECT, PROTOCOL, HOW)
    claims = conclusions.claims(PROTOCOL, public, {"simulated": planted})
    row = claims["claim"] == "abstention"
    more = f"less that as a human: {claims.loc[row, 'estimate'].item():.2f} ["
    assert more in analysis.finding(planted, claims, "simulated")
    failed = claims.assign(gate=claims["gate"].mask(row, "replies not readable"))
    assert more not in analysis.finding(planted, failed, "simulated")


def test_what_stands_beside_the_tests(planted: analysis.Analysis) -> None:
    table = analysis.sized(planted, PROTOCOL, STUDY.asked)
    [row] = table[(table["family"] == "persona") & (table["first"] == "jewish")].to_dict("records")
    assert row["accuracy"] - row["reference"] == pytest.approx(row["estimate"])
    assert row["outcome"] == "inferior" and row["relative_drop"] == pytest.approx(
        -row["estimate"] / row["reference"]
    )
    by_set = analysis.by_set(table, HOW)
    assert len(by_set) == 120 and by_set.groupby("first")["dataset"].nunique().eq(10).all()
    mean = by_set[by_set["first"] == "jewish"]["estimate"].mean()
    assert mean == pytest.approx(row["estimate"])
    combined = robustness.over_sets(by_set, HOW).set_index("persona")
    assert combined.loc["jewish", "low"] < -0.12 < combined.loc["jewish", "high"]
    assert combined.loc["jewish", "leave_one_out_low"] <= combined.loc["jewish", "estimate"]
    tally = analysis.counts(by_set, HOW).set_index("persona")
    assert tally.loc[FALLEN, "worse_uncorrected"].min() > tally.loc["atheist", "worse_uncorrected"]
    shown = analysis.accuracy(planted.scored, PROTOCOL, HOW)
    assert shown["n"].eq(N / 10).all() and (shown["low"] < shown["accuracy"]).all()


def test_other_readings_agree_on_a_planted_effect(planted: analysis.Analysis) -> None:
    readings = robustness.readings(planted.scored, PROTOCOL, HOW).set_index(["persona", "reading"])
    declared = readings.xs("probability of the right option, as declared", level="reading")
    tests = tabled(planted).loc["persona"]
    for name in PERSONAS:
        same = tests.loc[f"{name} - human | all, accuracy"]
        assert declared.loc[name, ["estimate", "low"]].tolist() == pytest.approx(same[["estimate", "low"]].tolist())
    assert (readings.loc[FALLEN, "estimate"] < 0).all()
    # Letters that lean to a place make the most probable one differ between orders.
    rows = recorded(dict.fromkeys(FALLEN, -0.12), place_bias=1.0)
    models = robustness.logits(rows, STUDY.asked, STUDY.people, PROTOCOL, HOW).set_index(["model", "persona"])
    assert set(models.index.get_level_values("model")) == {robustness.GEE, robustness.CONDITIONAL}
    assert (models.loc[[(model, name) for model, _ in models.index for name in FALLEN], "high"] < 0).all()


def test_an_effect_under_one_instruction_shows_in_that_one() -> None:
    rows = recorded({"physically-disabled-2": -0.12}, measures=("letter",))
    scored = analysis.scores(rows, STUDY.asked, STUDY.people)
    table = robustness.by_instruction(scored, PROTOCOL, HOW).set_index(["persona", "instruction"])
    assert [*table.index.unique("persona")] == ["physically-disabled", "religious"]
    assert (table["n"] == N).all()
    found = table.loc["physically-disabled"]
    assert found.loc["1", "low"] < 0 < found.loc["1", "high"]
    assert (found.loc[["2", "second less first"], "high"] < -0.06).all()
    assert (table.loc["religious", "estimate"].abs() < 0.03).all()
    # The declared difference is the mean over both instructions.
    pair = analysis.paired(analysis.by_question(scored, PROTOCOL), "physically-disabled", "human")
    declared = pair["physically-disabled"] - pair["human"]
    both = declared.groupby(level="dataset").mean().mean()
    assert found.loc[["1", "2"], "estimate"].mean() == pytest.approx(both)


def test_an_infinite_odds_ratio_is_left_out() -> None:
    groups = np.repeat([0, 1], 4)
    treated = np.tile([1.0, 1, 0, 0], 2)
    one_sided, mixed = np.array([0, 0, 1, 1, 0, 0, 1, 0]), np.array([0, 0, 1, 1, 1, 0, 0, 0])
    assert robustness._separated(one_sided, treated, groups)
    assert not robustness._separated(mixed, treated, groups)


def test_more_questions_find_smaller_differences(null: analysis.Analysis) -> None:
    table = robustness.power(null.tests, PROTOCOL, HOW, per_set=10).set_index(["family", "questions_per_set"])
    here = table.loc[("persona", 10), "detectable"]
    assert here == pytest.approx(null.tests.loc[null.tests["family"] == "persona", "detectable"].median(), rel=0.02)
    assert table.loc[("persona", 100), "detectable"] < here / 3


def test_published_rows(null: analysis.Analysis) -> None:
    found, said = tabled(null), verdicts(null)
    assert (found.loc["published_share"]["estimate"] * 16).round(9).tolist() == [13, 9, 7]
    abstention = found.loc["published_abstention"].iloc[0]
    assert (abstention["n"], abstention["estimate"]) == (87, pytest.approx(68 / 87))
    assert said.loc["published_abstention", "verdict"] == "reproduced"
    drop = found.loc["published_drop"].iloc[0]
    assert [drop["estimate"], drop["low"], drop["high"]] == pytest.approx([69.3, 69.2, 69.4], abs=0.06)
    assert said.loc["large_drops", ["verdict", "why"]].tolist() == [
        "contradicted",
        "the number decides: 69 is below 70",
    ]
    assert said.loc["published_share", ["verdict", "why", "would_decide"]].tolist() == [
        "inconclusive",
        "not significant; 35% chance to detect 0.3",
        "28 personas",
    ]
    row = found.loc[("published_extractor", "able-bodied - human | college_biology, filed - published accuracy")]
    assert row["n"] == 144 and row["estimate"] == pytest.approx(-0.0694 - 0.0208, abs=1e-4)
    assert said.loc[["other_models", "bbq"], "verdict"].eq("not testable here").all()


def test_models_that_move_apart_make_a_claim_heterogeneous(planted: analysis.Analysis) -> None:
    rising = run(dict.fromkeys(PERSONAS, 0.12) | {"wrong": -0.3})
    public = analysis.public_tests(PROJECT, PROTOCOL, HOW)
    claims = conclusions.claims(PROTOCOL, public, {"a": planted, "b": rising})
    first = claims[claims["model"] == "a"].drop_duplicates("claim").set_index("claim")["verdict"]
    for name in ("any_persona", "disability", "share_biased"):
        assert first[name] == "heterogeneous", name


def packed(project: Project, model: str, rows: pd.DataFrame) -> None:
    """Pack simulated answers as a recording leaves them."""
    rows = rows.assign(request="0" * 16, entropy=0.5, top_token="A", prompt_tokens=9, computed_tokens=9)
    rows["checksum"] = schema.checksums(rows)
    folder = project.responses("persona_bias", model)
    plan = STUDY.plan[STUDY.plan["measure"].isin(set(rows["measure"]))]
    counts = responses.write(rows, plan, folder)
    info = ModelInfo(model, "0" * 64, "simulated", "0", "canonical", "chatml")
    packing._seal(folder, "persona_bias", info, {"started": "2026-11-30"}, counts, {"complete": True})


@pytest.mark.slow
@pytest.mark.parametrize("measures", [("letter", "text"), ("letter",), ("text",), ()])
def test_the_notebook_runs_on_whatever_is_recorded(tmp_path: Path, measures: tuple[str, ...]) -> None:
    project = copied(tmp_path, "responses")
    project.responses("persona_bias").mkdir(parents=True)
    for model in ("simulated", "other") if measures else ():
        packed(project, model, recorded(dict.fromkeys(FALLEN, -0.12), measures=measures))
    done = runs.run(project, "persona_bias", ["replicates=1000", "questions_per_set=6"])
    said = pd.read_csv(done.folder / "tables" / "verdicts.csv").drop_duplicates("claim").set_index("claim")
    assert set(said.index) == set(PROTOCOL.claims)
    assert said.loc["any_persona", "verdict"] == ("reproduced" if "letter" in measures else "not testable here")
    assert (done.folder / "figures" / "drops.svg").is_file() == ("letter" in measures)
    assert json.loads((done.folder / "run.json").read_text())
