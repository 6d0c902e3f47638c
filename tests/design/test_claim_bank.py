"""The claim bank keeps the rules that its datasheet states (data/items/README.md, section Claims)."""

import re

import pandas as pd
import pytest

from persona_studies.paths import Project

#: Words of the measure, or that would make a claim a matter of fact.
FORBIDDEN = re.compile(
    r"\b((dis)?agree\w*|opinions?|belie(f|fs|ve\w*)|think\w*|thought\w*|right\w*|wrong\w*|tru(e|er|ly|th\w*)|false\w*)\b",
    re.IGNORECASE,
)
NEGATION = re.compile(r"\b(not|never|no)\b|n't\b", re.IGNORECASE)
TOPICS = 33
PER_TOPIC = 5


@pytest.fixture(scope="module")
def bank() -> pd.DataFrame:
    return pd.read_csv(Project.find().items / "sycophancy" / "claims.csv", dtype=str, keep_default_na=False)


@pytest.fixture(scope="module")
def sides(bank: pd.DataFrame) -> pd.Series:
    return pd.concat([bank["text"], bank["mirror"]], ignore_index=True)


def words(texts: pd.Series) -> pd.Series:
    return texts.map(lambda text: len(text.split()))


def negated(texts: pd.Series) -> pd.Series:
    return texts.map(lambda text: bool(NEGATION.search(text)))


def test_every_topic_has_its_claims_in_order(bank: pd.DataFrame) -> None:
    assert list(bank.columns) == ["topic", "topic_title", "claim", "text", "mirror"]
    topics = list(bank["topic"].unique())
    assert len(topics) == TOPICS
    assert list(bank["claim"]) == [f"{topic}_{n}" for topic in topics for n in range(1, PER_TOPIC + 1)]
    assert list(bank["topic"]) == [topic for topic in topics for _ in range(PER_TOPIC)]


def test_a_topic_has_one_slug_and_one_title(bank: pd.DataFrame) -> None:
    assert bank["topic"].str.fullmatch(r"[a-z]+(_[a-z]+)*").all()
    assert bank["topic_title"].str.fullmatch(r"[A-Z][a-z]*( [a-z]+)*").all()
    pairs = bank[["topic", "topic_title"]].drop_duplicates()
    assert len(pairs) == pairs["topic_title"].nunique() == TOPICS


def test_a_side_is_a_short_clause_that_follows_that(sides: pd.Series) -> None:
    assert list(sides[~words(sides).between(5, 14)]) == []
    plain = r"[a-z]+(?:[-'][a-z]+|s')*(?: [a-z]+(?:[-'][a-z]+|')*)*"
    assert list(sides[~sides.str.fullmatch(plain)]) == [], "lower case, single spaces, no stop, no digits"


def test_no_word_of_the_measure(sides: pd.Series) -> None:
    assert [text for text in sides if FORBIDDEN.search(text)] == []


def test_no_side_occurs_twice(sides: pd.Series) -> None:
    assert list(sides[sides.duplicated()]) == []


def test_mirrors_are_as_long_as_texts(bank: pd.DataFrame) -> None:
    difference = words(bank["text"]) - words(bank["mirror"])
    assert list(bank.loc[difference.abs() > 3, "claim"]) == []
    assert abs(difference.mean()) <= 0.4
    first = difference[bank["claim"].str.endswith("_1")]
    assert abs(first.mean()) <= 0.4


def test_negation_is_balanced(bank: pd.DataFrame) -> None:
    text, mirror = negated(bank["text"]), negated(bank["mirror"])
    assert abs(text.sum() - mirror.sum()) <= 15
    assert list(bank.loc[text & mirror, "claim"]) == [], "a claim is negated on one side at most"
    share = (text | mirror).mean()
    assert 0.4 <= share <= 0.6, "about half of the mirrors are plain negations, the others lexical opposites"
    first = bank["claim"].str.endswith("_1")
    assert abs(text[first].sum() - mirror[first].sum()) <= 3
