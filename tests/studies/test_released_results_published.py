"""Facts of the audit, rederived from the pinned files where these are at hand, and from small files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from persona_studies.design import sources
from persona_studies.errors import SourceError, SourceUnavailable
from persona_studies.paths import Project
from released_results import published
from tests.kit.simulated_released_results import FACTS, PROJECT, PROTOCOL, misaligned


@pytest.mark.parametrize("name", published.FACTS)
def test_a_table_of_facts_is_rederived_from_its_pinned_files(name: str) -> None:
    try:
        made = published.compare(PROJECT, name)
    except SourceUnavailable as absent:
        pytest.skip(str(absent))  # which source, and its address: compared wherever it can be had
    assert made["largest_difference"] < 1e-12
    assert made["rederived"] == len(FACTS[name]) or published.FACTS[name].key


def test_every_table_is_rederived_or_its_origin_is_stated() -> None:
    readme = (PROJECT.published / "README.md").read_text(encoding="utf-8")
    stated = {"apc_table", "perma_tables", "personamath_table", "personamem_32k_gpt4o", "persobench_scores"}
    assert set(FACTS) == {*published.FACTS, *stated}
    assert all(f"`{name}.csv`" in readme for name in FACTS)


def test_nothing_is_kept_that_a_licence_forbids() -> None:
    kept = {path.name for path in (PROJECT.published / published.STUDY).iterdir()}
    assert {name for name in kept if "personabench" in name} == {"personabench_tfidf.csv"}
    # Sums over persons; no question, no text, no identifier.
    assert (
        FACTS["personabench_tfidf"].dtypes.map(lambda kind: kind.kind in "if").all()
        and len(FACTS["personabench_tfidf"]) == 12
    )
    for name, table in FACTS.items():
        longest = max(
            (len(str(cell)) for column in table.select_dtypes("object") for cell in table[column]), default=0
        )
        assert longest <= 60, name


@pytest.mark.parametrize(
    ("name", "source", "make"),
    [
        ("apc_table", "APC", published.apc_table),
        ("perma_tables", "PERMA", published.perma_tables),
        ("personamath_table", "PersonaMath", published.personamath_table),
    ],
)
def test_a_readmes_tables_where_the_file_is_at_hand(name: str, source: str, make: object) -> None:
    about = PROTOCOL.design["sources"][source]
    mirror = os.environ.get("PERSONA_STUDIES_MIRROR", "")
    path = Path(mirror) / "github" / about["repository"] / about["commit"] / "README.md"
    if not mirror or not path.is_file():
        pytest.skip(f"github.com/{about['repository']} at {about['commit']}, README.md is not at hand")
    pd.testing.assert_frame_equal(make(path), FACTS[name])  # type: ignore[operator]


def test_the_readme_of_personamath(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(
        "Text.\n\n| Model | GSM8k Pass@1 | MATH Pass@1 |\n|---|---|---|\n| A-7B   | 14.6 | 2.5 |\n"
        "| :rocket: **B-7B** | **68.7** | **24.2**  |\n\nMore.\n"
    )
    made = published.personamath_table(readme)
    assert made.to_dict("records") == [
        {"model": "A-7B", "gsm8k_pass1": 14.6, "math_pass1": 2.5},
        {"model": "B-7B", "gsm8k_pass1": 68.7, "math_pass1": 24.2},
    ]


def test_the_readme_of_perma(tmp_path: Path) -> None:
    head = "| Baseline | MCQ Acc. | Turn=1 |\n|---|---|---|\n"
    readme = tmp_path / "README.md"
    readme.write_text(
        "| Model | Clean | Noise | Clean multi | Noise multi |\n|---|---|---|---|---|\n| **Chat Models** ||||| \n"
        "| M | 0.8 | 0.7 | 0.6 | 0.5 |\n\n" + "\n\n".join([head + f"| RAG | 0.{k} | 0.4 |\n" for k in (1, 2, 3)])
    )
    made = published.perma_tables(readme)
    assert len(made) == 4 + 6 and made.iloc[1].tolist() == ["standalone", "M", "noise single", "MCQ accuracy", 0.7]
    memory = made[made["kind"] == "memory system"].set_index(["condition", "metric"])["value"]
    assert memory["clean multi", "MCQ Acc."] == 0.3 and memory["clean single", "Turn=1"] == 0.4


def test_the_readme_of_apc(tmp_path: Path) -> None:
    rows = []
    for part, methods, span in (("w/o", ("Gemma-7B", "EU", "LCM", "RAG"), 4), ("w/", ("EU", "LCM", "RAG"), 6)):
        for place, method in enumerate(methods):
            first = f'<td rowspan="{span}">{part}</td>' if place == 0 else ""
            cell = "".join(f"<td><b>{place}.{k} (+0.1)</b></td>" for k in range(9))
            rows.append(f"<tr>{first}<td>{method}</td>{cell}</tr>")
    readme = tmp_path / "README.md"
    readme.write_text(f"<table><thead><tr><th>x</th></tr></thead><tbody>{''.join(rows)}</tbody></table>")
    made = published.apc_table(readme)
    assert len(made) == 21 and made["method"].nunique() == 7
    eve = made[(made["character"] == "Eve") & (made["method"] == "RAG+DPO")].iloc[0]
    assert eve[["dAPC_DeBERTa", "dAPC_GPT4", "human"]].tolist() == [2.6, 2.7, 2.8]


def test_personamems_letters(tmp_path: Path) -> None:
    ids = ["q1", "q2", "q3"]
    questions, blind, rag = (tmp_path / name for name in ("questions.csv", "none.csv", "rag.csv"))
    asked = {
        "persona_id": [0, 0, 1],
        "question_id": ids,
        "question_type": "recall",
        "topic": "films",
        "question": "?",
    }
    pd.DataFrame(asked).to_csv(questions, index=False)
    pd.DataFrame({"question_id": ids, "answer": list("abc"), "p": list("aab"), "r": None}).to_csv(
        blind, index=False
    )
    pd.DataFrame({"question_id": ids[::-1], "answer": list("cba"), "p": list("cbd"), "r": "[1 2]"}).to_csv(
        rag, index=False
    )
    made = published.personamem_32k_gpt4o(questions, blind, rag)
    assert list(made.columns) == list(FACTS["personamem_32k_gpt4o"].columns)
    assert made["gpt4o_rag"].tolist() == ["d", "b", "c"] and made["gold"].tolist() == ["a", "b", "c"]
    pd.DataFrame({"question_id": ids, "answer": list("abd"), "p": list("aab"), "r": None}).to_csv(rag, index=False)
    with pytest.raises(SourceError, match="same questions"):
        published.personamem_32k_gpt4o(questions, blind, rag)


@pytest.mark.parametrize("failures", [0.02, 0.3, 0.6])
def test_misaligned_columns_are_realigned(failures: float, tmp_path: Path) -> None:
    true, filed, replies = misaligned(np.random.default_rng(5), failures)
    failed = replies.isna().to_numpy()
    pd.testing.assert_frame_equal(published.realigned(filed, failed), true)
    assert not published.realigned(filed, failed, 100).equals(true)
    paths = (tmp_path / "metrics.csv", tmp_path / "replies.csv")
    filed.to_csv(paths[0], index=False)
    pd.DataFrame({"gen_response": replies}).to_csv(paths[1], index=False)
    shown = published.persobench_realignment({"m": paths}).set_index("batch")
    assert shown.loc[200, "zeros_on_failures"] == failed.sum() and shown.loc[200, "engagingness_words"] > 0.9
    assert shown["engagingness_words"].idxmax() == 200


def test_a_paired_difference_is_hidden_by_failures_and_found_among_parsed_replies(tmp_path: Path) -> None:
    """Two models whose parsed replies differ by .3 in C, while the better one fails more often."""
    rng = np.random.default_rng(6)
    files = {}
    for model, rate, shift in (("first", 0.3, 0.3), ("second", 0.0, 0.0)):
        true, filed, replies = misaligned(rng, rate)
        failed = replies.isna()
        c = np.where(failed, -1.0, rng.normal(shift, 0.2, len(true)))
        files[model] = (tmp_path / f"{model}.csv", tmp_path / f"{model}-replies.csv")
        filed.assign(**{"C Score": c, "response_time": 1.0}).to_csv(files[model][0], index=False)
        pd.DataFrame({"gen_response": replies}).to_csv(files[model][1], index=False)
    pairs = published.persobench_pairs(files).set_index(["metric", "rows"])
    assert pairs.loc[("C Score", "valid"), "difference"] == pytest.approx(0.3, abs=0.05)
    assert pairs.loc[("C Score", "realigned"), "difference"] < 0.0
    assert pairs.loc[("C Score", "valid"), "n"] < 750


def test_best_recall_takes_the_combination_that_is_found_best() -> None:
    assert published.best_recall([["a", "b"], ["b"]], {"b"}) == 1.0
    assert published.best_recall([["a"], ["b"]], {"b"}) == 0.5
    assert published.best_recall([["a"]], set()) == 0.0


def test_a_retriever_of_words_on_a_small_benchmark(tmp_path: Path) -> None:
    def write(name: str, content: object) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return path

    texts = [
        "the cat likes tuna",
        "a long walk in winter",
        "yoga on monday morning",
        "chess with an uncle",
        "rain",
        "train",
    ]
    sessions = [{"session": "s", "segment_id": f"{k}", "text": text} for k, text in enumerate(texts)]
    asked = [("q0", "What does the cat like?", "Basic information"), ("q1", "When is yoga?", "Social")]
    asked += [("q2", "Is it nice?", "Subjective"), ("q3", "Who plays chess?", "Preference")]
    qa = [{"q_id": q, "question": text, "type": kind, "answer": 3 if q == "q3" else "x"} for q, text, kind in asked]
    people = [{"Name": "A", "Eval_Info": {"qa": qa}}, {"Name": "B", "Eval_Info": {"qa": qa}}]
    gold = [
        {"q_id": "q0", "segment_id": {"tuna": ["0"]}},
        {"q_id": "q1", "segment_id": {"monday": ["2"], "x": ["5"]}},
    ]
    gold += [{"q_id": "q3", "segment_id": {"uncle": ["3"]}}]
    files = (write("q.json", people), write("g.json", gold), [write("d.json", [{"Name": "A", "Data": sessions}])])
    made = published.personabench_tfidf({"0": files}, 0.5, k=1)
    assert made.to_dict("records") == [
        {"noise": 0.5, "person": 0, "questions": 3, "recall_sum": 2.5, "integer_answers": 1}
    ]


def test_speakers_are_ranked_by_their_own_personas(tmp_path: Path) -> None:
    personas = ["I keep bees and sell honey", "I repair old motorcycles", "I teach violin to children"]
    talk = "User 1: my bees made honey\n* * User 2: * * the motorcycles are old\nUser 1: bees!"
    rows = [
        (personas[0], personas[1], talk),
        (personas[2], personas[0], "nobody speaks"),
        (personas[2], personas[1], None),
    ]
    path = tmp_path / "test.csv"
    pd.DataFrame(rows, columns=["user 1 personas", "user 2 personas", "Best Generated Conversation"]).to_csv(
        path, index=False
    )
    made = published.synthetic_persona_chat_ranks(path)
    assert made.to_numpy().tolist() == [[0, 1, 1], [0, 2, 1]]


def test_a_changed_fact_is_noticed(tmp_path: Path) -> None:
    if sources.locate(PROJECT, "open-character-training-lighteval") is None:
        pytest.skip("source open-character-training-lighteval is not at hand")
    other = Project(tmp_path)
    (other.published / published.STUDY).mkdir(parents=True)
    other.sources.write_bytes(PROJECT.sources.read_bytes())
    table = FACTS["open_character_training_lighteval"]
    path = other.published / published.STUDY / "open_character_training_lighteval.csv"
    table.assign(mean=table["mean"] + 0.01).to_csv(path, index=False)
    with pytest.raises(
        SourceError, match=r"lighteval\.csv is not what its source gives: a number differs by 0\.01"
    ):
        published.compare(other, "open_character_training_lighteval")
    table.assign(model=table["model"].str.upper()).to_csv(path, index=False)
    with pytest.raises(SourceError, match="is not what its source gives"):
        published.compare(other, "open_character_training_lighteval")
