"""Facts of persona_choice rederived from their sources, traps shown, and claims on simulated judges."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from huggingface_hub import close_session

from persona_choice import analysis, elsewhere, judge, pairs, published, surveys
from persona_studies.analyse import verdicts
from persona_studies.errors import SourceError, SourceUnavailable
from tests.conftest import at_hand
from tests.kit.local_hub import LocalHub
from tests.kit.simulated_persona_choice import HOW, PROJECT, PROTOCOL

ROWS = judge.rows(PROJECT)
COUNTS = published.committed(PROJECT, "judge_runs")
SURVEY = published.committed(PROJECT, "survey_counts")
NEEDS = {
    "judge_rows": list(published.PINNED.values()),
    "judge_runs": [],
    "survey_counts": [*published.MEANS.values(), "deeppersona-opencharacter-responses.json"],
    "survey_answers": list(published.MEANS.values()),
    "reddit_task": [published.PINNED["ap_all_features_all_features_command-r-plus_jun5"]],
}


# --- Facts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", published.AGAIN)
def test_a_table_is_what_its_sources_give(name: str) -> None:
    at_hand(PROJECT, *NEEDS[name])
    found = published.compare(PROJECT, name)
    assert found["committed"] == found["rederived"] and found["committed"]


def test_a_changed_count_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    known = published.committed(PROJECT, "judge_runs")
    wrong = known.assign(correct=known["correct"] + (known["run"] == published.RUNS["PRISM GPT-4o key"]))
    monkeypatch.setattr(published, "committed", lambda project, name: wrong)
    with pytest.raises(SourceError, match="judge_runs is not what its source gives"):
        published.compare(PROJECT, "judge_runs")


def test_a_released_file_becomes_rows_without_texts(tmp_path: Path) -> None:
    asked = {"question": "Why?", "conversation_type": "unguided", "user_info": "The person is 18-24 years old."}
    first = {**asked, "asst_A": "No way.", "asst_B": "Because it is.", "ground_truth": "B", "answer": "A"}
    # The same pair in the other order, a refusal and no number.
    second = {**first, "asst_A": first["asst_B"], "asst_B": first["asst_A"], "ground_truth": "A", "answer": "["}
    path = tmp_path / "run.jsonl"
    path.write_text(
        "\n".join(json.dumps(row) for row in ({**first, "certainty": "85"}, {**second, "certainty": "False"}))
    )
    made = published.judge_rows("run", path)
    assert made["pair"].nunique() == 1 and set(made["order"]) == {"AB", "BA"}
    assert made["pair"][0] == pairs.short_hash("Why?\nBecause it is.\nNo way.")
    assert made["longer"].tolist() == ["B", "A"] and made["certainty"].isna().tolist() == [False, True]
    assert published.run_counts(made) == {
        **{"rows": 2, "gold_C": 0, "n_valid": 1, "correct": 0},
        **{"n_high_rows": 1, "k_high_rows": 0, "n_low_rows": 0, "k_low_rows": 0},
    }


def test_no_text_is_committed() -> None:
    rows = published.committed_rows(PROJECT)
    for name in ("pair", "persona", "question"):
        assert rows[name].map(lambda value: re.fullmatch(r"[0-9a-f]{12}|", value) is not None).all()
    longest = rows.select_dtypes("object").drop(columns="run").map(lambda value: len(str(value))).to_numpy().max()
    assert longest <= len("controversy guided")
    bank = (PROJECT.items / "persona_choice" / "pairs.csv").read_text(encoding="utf-8")
    assert "person is" not in bank and max(map(len, re.split(r"[,\n]", bank))) <= 18


# --- What the released rows say: figures that were computed before, by others' code ------------------------------


def test_runs_and_their_traps() -> None:
    runs = judge.runs(ROWS, COUNTS, HOW).set_index("run").round(3)
    assert (runs["printed"] - runs["accuracy"]).abs().drop("PR GPT-3.5 all").max() < 0.001
    assert runs.loc["PR GPT-3.5 all", ["printed", "accuracy", "n"]].tolist() == [0.755, 0.781, 524]
    none = runs.loc["PRISM Command R+ none"]
    assert none[["accuracy", "untied", "n_untied", "says_a"]].tolist() == [0.526, 0.664, 782, 0.234]
    assert runs.loc["PRISM Command R+ all", "longer"] == 0.635
    says = [runs.loc[f"PRISM Command R+ {name}", "says_a"] for name in ("all", "key", "age only")]
    assert says == [0.604, 0.349, 0.296]


def test_shared_pairs_and_their_exact_tests() -> None:
    found = judge.shared_pairs(PROTOCOL, ROWS, HOW).set_index("first")
    help_ = found.loc["PRISM Command R+ all"]
    assert help_[["pairs", "only_first", "only_second"]].tolist() == [453, 71, 38]
    assert help_["p"] == pytest.approx(0.0020, abs=5e-5)
    key = judge.shared_pairs(PROTOCOL, ROWS, HOW)
    assert key["pairs"].tolist()[:2] == [560, 599]
    assert key["p"].tolist()[:2] == pytest.approx([0.2185, 0.8634], abs=1e-4)
    # Joined on the question, most of another task would have been taken for the same one.
    assert (key["questions"] > 1.5 * key["pairs"]).all()


def test_order_moves_more_than_the_persona() -> None:
    found = judge.agreement(PROTOCOL, ROWS).round(3)
    assert found["same_order"].tolist() == [0.957, 0.908, 0.922]
    assert found["swapped"].tolist() == [0.816, 0.800, 0.642]
    assert found["share_same_order"].between(0.46, 0.57).all()


def test_certainty() -> None:
    strata = judge.strata(ROWS, COUNTS, 80)
    tests = judge.strata_tests(PROTOCOL, strata, HOW).set_index("hypothesis")
    assert len(tests) == 24 and tests["rejected"].sum() == 10
    assert tests.loc[["PRISM GPT-4o age only", "PRISM Command R+ age only"], "rejected"].all()
    areas = judge.areas(ROWS, HOW).set_index("run")["auroc"].round(3)
    assert areas[["PRISM GPT-4o key", "PRISM GPT-4o age only"]].tolist() == [0.649, 0.649]
    command = [areas[f"PRISM Command R+ {name}"] for name in ("all", "key", "age only", "none")]
    assert command == [0.607, 0.559, 0.566, 0.523]
    # Another threshold leaves out the runs that only counts are known of.
    assert len(judge.strata(ROWS, COUNTS, 70)) < len(strata)


def test_the_area_is_that_of_a_known_rank_test() -> None:
    from sklearn.metrics import roc_auc_score

    mine = judge.of(ROWS, "PRISM GPT-4o key")
    area = judge.areas(ROWS, HOW).set_index("run").loc["PRISM GPT-4o key", "auroc"]
    assert area == pytest.approx(roc_auc_score(mine["right"], mine["certainty"].astype(int)))


def test_distances_and_floors() -> None:
    aligned, reached = (
        surveys.by_item(SURVEY, people).set_index(["method", "item"])
        for people in (surveys.ALIGNED, dict.fromkeys(published.METHODS, "human_all"))
    )
    assert aligned.loc["DeepPersona", "KS"].round(3).tolist() == [0.200, 0.175, 0.425, 0.450, 0.600, 0.350]
    assert aligned.loc["direct", "KS"].round(3).tolist() == [0.340, 0.150, 0.480, 0.460, 0.360, 0.480]
    means = reached.groupby("method", sort=False).mean().round(3)
    assert means["Wasserstein"].tolist() == [0.194, 0.183, 0.190] and means["JS"].tolist() == [0.466, 0.546, 0.442]
    assert means["KS"].tolist() == [0.382, 0.410, 0.378]
    assert surveys.item_tests(PROTOCOL, SURVEY, HOW)["rejected"].sum() == 17
    floors = surveys.floors(SURVEY, HOW, draws=100).set_index("answers")
    assert floors.loc["every option alike", "KS"] == pytest.approx(0.318, abs=5e-4)
    assert floors.loc["OpenCharacter, single answers", "KS"] == pytest.approx(0.328, abs=5e-4)
    drawn = floors.loc["people drawn at random"]
    assert drawn["KS"].tolist() == pytest.approx([0.075, 0.048], abs=0.006)
    assert surveys.trusting(SURVEY)["trusting"].round(3).tolist() == [0.75, 1.0, 0.945, 0.495]


def test_the_bootstrap_measures_what_the_table_does() -> None:
    people = surveys.Items(SURVEY)
    mine = surveys.means(surveys.rows(PROJECT), "DeepPersona", people, HOW)
    reached = surveys.by_item(SURVEY, dict.fromkeys(published.METHODS, "human_all"))
    table = reached[reached["method"] == "DeepPersona"][[*surveys.DISTANCES]].mean()
    for name in surveys.DISTANCES:
        assert mine[name][0] == pytest.approx(table[name])
        assert len(mine[name][1]) == HOW.replicates


# --- Verdicts -------------------------------------------------------------------------------------------------


def verdict_table(rows: pd.DataFrame, answers: pd.DataFrame, counts: pd.DataFrame = SURVEY) -> pd.DataFrame:
    reached = surveys.by_item(counts, dict.fromkeys(published.METHODS, "human_all"))
    tests = pd.concat(
        [
            judge.contrasts(PROTOCOL, rows, HOW),
            surveys.method_tests(PROTOCOL, answers, surveys.Items(counts), HOW),
        ]
    )
    evidence = analysis.corrected(tests, judge.certain(judge.strata(rows, COUNTS, 80), HOW), reached)
    evidence |= analysis.as_published(PROTOCOL, rows, COUNTS, surveys.by_item(counts, surveys.ALIGNED), HOW)
    return analysis.judged(PROTOCOL, evidence, {}).set_index(["claim", "layer"])


def test_verdicts_of_both_layers() -> None:
    said = verdict_table(ROWS, surveys.rows(PROJECT))["verdict"]
    assert said["pj1", "corrected"] == said["pj4", "corrected"] == said["pj5", "corrected"] == verdicts.CONTRADICTED
    assert said["pj2", "corrected"] == said["pj2", "published"] == verdicts.REPRODUCED
    assert said["pj3", "published"] == verdicts.REPRODUCED and said["pj3", "corrected"] == verdicts.HETEROGENEOUS
    assert said["pj6", "corrected"] == verdicts.INCONCLUSIVE
    assert said["dp1", "corrected"] == said["dp1", "published"] == verdicts.SAME_DIRECTION
    for name in ("sp1", "sp2", "sp3", "personaeval", "personafeedback", "binding", "hachimi"):
        assert said[name, "corrected"] == verdicts.NOT_TESTABLE
    table = verdict_table(ROWS, surveys.rows(PROJECT))
    why, details = table["why"], table["details"]
    assert why["pj2", "published"] == "0.720 against 0.526, significant"
    assert why["pj3", "published"] == "91% of 120 certain replies are right"
    assert why["pj3", "corrected"] == "4 significantly up, 8 significantly down"
    assert why["dp1", "corrected"] == "mean KS 6.9% smaller, its interval includes 0"
    assert why["pj1", "published"] == "1 of 2 tests same direction, not significant"
    assert all(
        re.search(r"\w\.(com|co|org)/", details[name, "corrected"]) for name in ("sp1", "personaeval", "binding")
    )


def simulated(seed: int, *, right: dict[str, float], swap: float = 0.0) -> pd.DataFrame:
    """Return the released rows with replies drawn anew.

    Args:
        seed: Of the draw.
        right: What a run's label ends with -> share right.
        swap: Share of replies that name the first place, whatever stands there.
    """
    rng = np.random.default_rng(seed)
    made = ROWS.copy()
    # One draw per pair: runs agree but for what is planted.
    luck = pd.Series(rng.random(made["pair"].nunique()), index=made["pair"].unique())
    share = np.full(len(made), 0.7)
    for end, value in right.items():
        share = np.where(made["label"].str.endswith(end), value, share)
    correct = made["pair"].map(luck).to_numpy() < share
    other = made["gold"].map({"A": "B", "B": "A", "C": "A"})
    by_place = rng.random(len(made)) < swap
    made["answer"] = np.where(by_place, "A", np.where(correct, made["gold"].replace("C", "B"), other))
    made["certainty"] = rng.integers(1, 101, len(made))
    return made.assign(
        valid=True, right=made["answer"] == made["gold"], first=made["answer"].eq("A") == made["order"].eq("AB")
    )


def test_planted_differences_of_features_and_place_are_found() -> None:
    rows = simulated(1, right={" key": 0.8, "age only": 0.65, "none": 0.55}, swap=0.3)
    found = judge.contrasts(PROTOCOL, rows, HOW).set_index("hypothesis")
    for name in ("GPT-4o", "Command R+"):
        row = found.loc[f"key - age only | {name}, accuracy"]
        assert row["rejected"] and row["low"] < 0.15 * 0.7 < row["high"]
    assert found.loc["all - none | Command R+, accuracy", "rejected"]
    assert found.loc[[h for h in found.index if h.startswith("swapped")], "rejected"].all()


def test_a_judge_without_effects_gives_none() -> None:
    false: dict[str, int] = {}
    for seed in range(6):
        found = judge.contrasts(PROTOCOL, simulated(seed, right={}), HOW)
        for family, part in found.groupby("family"):
            false[str(family)] = false.get(str(family), 0) + bool(part["rejected"].any())
    assert false.pop("pj_length") == 6  # .70 against .635 is planted everywhere
    # Binomial(6, .05): 3 or more have a probability of .002.
    assert max(false.values()) <= 2


def people_like(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    return {item: rng.choice(surveys.answers(SURVEY, "human_all", item), n) for item in published.ITEMS}


def test_personas_like_people_reproduce_the_claim_and_unlike_ones_do_not() -> None:
    rng = np.random.default_rng(4)
    answers = surveys.rows(PROJECT)
    deep = answers["method"] == "DeepPersona"
    near = answers.copy()
    near.loc[deep, [*published.ITEMS]] = pd.DataFrame(people_like(rng, int(deep.sum()))).to_numpy()
    counts = SURVEY[SURVEY["set"] != published.METHODS["DeepPersona"]]
    drawn = ((str(item), float(v)) for item in published.ITEMS for v in near.loc[deep, item])
    counts = pd.concat(
        [counts, published.answer_counts(published.METHODS["DeepPersona"], drawn)], ignore_index=True
    )
    assert verdict_table(ROWS, near, counts)["verdict"]["dp1", "corrected"] == verdicts.REPRODUCED


# --- Elsewhere ------------------------------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    made = LocalHub()
    # The library keeps one client for the whole process, with the proxies of the moment it was made at.
    close_session()
    monkeypatch.setenv("HF_ENDPOINT", made.address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    frame = pd.DataFrame({"prompt": ["Who?"], "gt": [5]})
    made.commits[COMMIT] = {"a/test.csv": frame.to_csv(index=False).encode(), "b.jsonl": b'{"gt": 5}\n'}
    made.datasets["lingfengzhou/PersonaEval"] = (COMMIT, ["b.jsonl", "a/test.csv"])
    yield made
    close_session()
    made.close()


def test_a_set_on_the_hub_is_listed_and_loaded_at_its_commit(hub: LocalHub) -> None:
    revision, names = elsewhere.files(PROTOCOL, "PersonaEval")
    assert (revision, names) == (COMMIT, ["a/test.csv", "b.jsonl"])
    for name in names:
        found = elsewhere.load(PROTOCOL, "PersonaEval", name, revision)
        assert found.frame["gt"].tolist() == [5] and found.revision == COMMIT


def test_what_cannot_be_had_is_said_in_one_line(hub: LocalHub) -> None:
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"name": "PersonaEvil"}, SourceError, "Did you mean 'PersonaEval'"),
        ({"revision": "main"}, SourceError, "no commit of 40 hex digits"),
        ({"path": "a/test.xlsx"}, SourceError, "one that files"),
        ({"path": "missing.csv"}, SourceUnavailable, "datasets/lingfengzhou/PersonaEval is not available"),
        ({"revision": COMMIT[::-1]}, SourceUnavailable, "is not available"),
    ]
    for change, kind, message in cases:
        how = {"name": "PersonaEval", "path": "a/test.csv", "revision": COMMIT} | change
        with pytest.raises(kind, match=message) as caught:
            elsewhere.load(PROTOCOL, **how)
        assert "\n" not in str(caught.value)
    hub.refuse = 503
    with pytest.raises(SourceUnavailable):
        elsewhere.files(PROTOCOL, "PersonaFeedback")
