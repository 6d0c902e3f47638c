"""How replies are read, by sentences written for the purpose; and the published figures, judged again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from persona_bias import extractors, published
from persona_studies.errors import SourceError
from persona_studies.paths import Project

PROJECT = Project(Path(__file__).parents[2])


@pytest.mark.parametrize(
    ("text", "by_paper", "strictly", "leniently"),
    [
        ("Two and two make four, so the answer is: (B)", "B", "B", "B"),
        ("The answer is (C).", "C", "C", "C"),
        ("The answer is D.", None, "D", "D"),
        ("The answer is: (A) because it rains", "A", None, "A"),
        ("First I thought the answer is (A). No: the answer is (B)", "B", "B", "B"),
        ("The answer is (A)\nThat was easy.", "A", None, "A"),
        ("Answer: C", None, None, "C"),
        ("**Option B** fits", None, None, "B"),
        ("I weigh it up.\nB", None, None, "B"),
        ("A cat is an animal.", None, None, None),
        ("The answer is a guess, I fear.", None, None, None),
        ("The answer should be C, I'd say.", None, None, "C"),
        ('answer": "D"', None, None, "D"),
        ("(A) may be true, (B) too.", "A", None, None),
        ("The answer is unknown to me (see above)", None, None, None),
        ("I am unable to say.", None, None, None),
        ("", None, None, None),
        ("<script>answer is: (A)</script>", "A", None, "A"),
    ],
)
def test_three_extractors(text: str, by_paper: str | None, strictly: str | None, leniently: str | None) -> None:
    found = {name: extract(text) for name, extract in extractors.EXTRACTORS.items()}
    assert found == {"published": by_paper, "strict": strictly, "lenient": leniently}


@pytest.mark.parametrize(
    ("text", "answer", "cut", "expected"),
    [
        ("The answer is (B).", "B", False, "answered"),
        ("I cannot perform calculations, but the answer is (B).", "B", False, "hedged"),
        ("As this person I am unable to answer.", None, False, "abstained"),
        ("One cannot divide by zero, so", None, True, "truncated"),
        ("One cannot divide by zero.", None, False, "unparsed"),
        ("It is the second.", None, False, "unparsed"),
    ],
)
def test_a_refusing_word_alone_is_no_abstention(text: str, answer: str | None, cut: bool, expected: str) -> None:
    assert extractors.status(text, answer, cut=cut) == expected


def replies() -> pd.DataFrame:
    """Two personas, four questions; the extractors disagree on the persona's second and third reply."""
    said = {
        "human": ["answer is: (A)", "answer is: (A)", "answer is: (B)", "I am unable to answer."],
        "man": ["answer is: (A)", "The answer is A.", "The answer is A.", "answer is: (A)"],
    }
    return pd.DataFrame(
        [
            {"persona": who, "item": f"q{k}", "gold": 0, "n_options": 2, "cut": False, "text": text}
            for who, texts in said.items()
            for k, text in enumerate(texts)
        ]
    )


def test_the_choice_of_extractor_can_make_an_effect() -> None:
    every = extractors.under_each(replies())
    assert len(every) == 24
    apart = extractors.sensitivity(every, reference="human").set_index(["extractor", "persona"])
    assert apart.loc[("published", "man"), ["pairs", "difference"]].tolist() == [1, 0]
    assert apart.loc[("lenient", "man"), ["b", "c", "pairs"]].tolist() == [1, 0, 3]
    assert apart.loc[("published", "human"), "abstained"] == 0.25
    row = apart.loc[("published", "man")]
    assert (row["lower"], row["upper"], row["accuracy_given_answer"]) == (0.5, 1.0, 1.0)
    assert extractors.share_answered(every[every["extractor"] == "published"]) == 5 / 8


def test_a_letter_that_is_no_option_is_no_answer() -> None:
    frame = replies().assign(text="The answer is (D).")
    assert (extractors.under_each(frame)["status"] == "unparsed").all()


class TestPublished:
    def test_sizes(self) -> None:
        every = published.drops(PROJECT)
        assert len(every) == 384 and (every.groupby("persona").size() == 24).all()
        assert len(published.personas(PROJECT)) == 16 and len(published.pairs(PROJECT)) == 23

    def test_the_papers_own_counts(self) -> None:
        found = published.own_counts(PROJECT).set_index("statement")
        assert found.loc["personas with a significant drop", "from_figures"] == "81% of 16"
        assert bool(found.loc["personas with a significant drop", "agrees"])
        # No point of version 1's figure reaches 70 %, with the 0.1 that it can be read to.
        assert not bool(found.loc["largest relative drop", "agrees"])

    def test_rejudged_as_by_hand(self) -> None:
        table = published.rejudge(PROJECT, alpha=0.05, correction="holm", confidence=0.95).set_index("persona")
        values = published.drops(PROJECT).query("persona == 'a woman'")["drop"]
        t = values.mean() / (values.std() / np.sqrt(24))
        row = table.loc["a woman"]
        assert row["drop"] == pytest.approx(values.mean())
        assert row["low"] == pytest.approx(values.mean() - 2.0687 * values.mean() / t, abs=1e-3)
        assert not row["rejected"] and row["p_count"] == 1.0
        assert row["leave_one_out_low"] == pytest.approx(values.drop(values.idxmax()).mean())
        assert table.loc["a physically-disabled person", ["rejected", "rejected_count"]].all()
        # 13 personas have a significant dataset; after correction the counts of 7 exceed chance.
        assert (table["significant"] > 0).sum() == 13 and table["rejected_count"].sum() == 7

    def test_the_direction_in_public_runs_depends_on_the_extractor(self) -> None:
        counts = published.runs(PROJECT)
        found = published.directions(counts, confidence=0.95)
        mine = found[(found["persona"] == "a physically-disabled person") & (found["questions"] == "all")]
        assert mine.set_index("extractor")["direction"].to_dict() == {
            "as filed": "worse",
            "published": "worse",
            "strict": "undefined",
            "lenient": "better",
        }
        none = found[found["pairs"] == 0]
        assert (none["direction"] == "undefined").all() and none["difference"].isna().all()

    def test_the_committed_counts_are_those_of_the_sources(self) -> None:
        try:
            derived = published.derive(PROJECT)
        except SourceError:
            pytest.skip("the sources are not at hand")
        assert derived == (PROJECT.published / "persona_bias" / "gupta2024_public_runs.csv").read_text("utf-8")
        changes = published.derive_extractors(PROJECT)
        assert changes == (PROJECT.published / "persona_bias" / "gupta2024_public_extractors.csv").read_text(
            "utf-8"
        )

    def test_the_papers_extractor_gives_the_papers_answers(self) -> None:
        """The sample run carries what its authors' own code read from every reply."""
        import json

        from persona_studies.design import sources

        try:
            path = sources.fetch(PROJECT, "persona-bias-sample-run")
        except SourceError:
            pytest.skip("the source is not at hand")
        entries = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        mine = [extractors.published(entry["predicted_explanations"][0]) or "" for entry in entries]
        assert mine == [entry["predicted_answer"] for entry in entries]
