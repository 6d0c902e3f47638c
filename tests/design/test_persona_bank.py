"""The persona bank keeps the rules that its datasheet states (data/items/README.md, section Personas)."""

import re

import pandas as pd
import pytest

from persona_studies.paths import Project

ITEMS = Project.find().items / "sycophancy"

#: Words of the outcome: with one of these in a persona, the manipulation would be the measure.
OUTCOME = re.compile(
    r"\b((dis)?agree\w*|opinion\w*|argu\w+|debat\w+|flatter\w*|yes|no|claims?|says?|said|believes?)\b",
    re.IGNORECASE,
)
#: Words that would give a background, a placebo or a filler a place on the trait.
AGREEABLENESS = re.compile(
    r"\b(kind(ly|ness|er|est)?|warm\w*|cold-?hearted|help\w*|generous\w*|generosity|trust\w*|suspici\w+|distrust\w*"
    r"|quarrel\w*|stubborn\w*|polite\w*|rude\w*|blunt\w*|gentle|gently|competitive\w*|modest\w*|humble|boast\w*"
    r"|selfish\w*|sympath\w+|compassion\w*|honest\w*|cooperat\w+|friendl\w+|hostil\w+|patient|patiently|charit\w+"
    r"|stingy|tender|cruel\w*|caring|considerate|courte\w+|forgiv\w+|agreeab\w+)\b",
    re.IGNORECASE,
)
#: Pronouns would fail after "You are" or after "The person is"; "their" may stand for other people or things.
PRONOUNS = re.compile(r"\b(he|she|they|you|i|we|his|hers?|him|your|my|our)\b", re.IGNORECASE)
WOMAN = re.compile(r"^an? .{0,80}\b(?:woman|grandmother|mother|widow|daughter)\b")
MAN = re.compile(r"^an? .{0,80}\b(?:man|grandfather|father|widower|son)\b")


def read(name: str) -> pd.DataFrame:
    return pd.read_csv(ITEMS / f"{name}.csv")


def words(texts: pd.Series) -> pd.Series:
    return texts.map(lambda text: len(text.split()))


def offending(texts: pd.Series, *patterns: re.Pattern[str]) -> list[str]:
    return [text for text in texts for pattern in patterns if pattern.search(text)]


@pytest.fixture(scope="module")
def backgrounds() -> pd.DataFrame:
    return read("backgrounds")


@pytest.fixture(scope="module")
def levels() -> pd.DataFrame:
    return read("agreeableness_levels")


@pytest.fixture(scope="module")
def traits() -> pd.DataFrame:
    return read("control_traits")


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("backgrounds", ["background", "occupation", "age", "region", "speech", "text"]),
        ("agreeableness_levels", ["level", "variant", "text"]),
        ("control_traits", ["control", "role", "text"]),
    ],
)
def test_files_are_complete_unique_and_tidy(name: str, columns: list[str]) -> None:
    frame = read(name)
    assert list(frame.columns) == columns
    assert not frame.isna().any(axis=None)
    assert frame["text"].str.lower().is_unique
    for column in frame.select_dtypes(exclude="number"):
        assert (frame[column] == frame[column].str.strip()).all()
        assert not frame[column].str.contains(r"\s{2,}|\n").any()


def test_backgrounds_are_noun_phrases_that_fit_either_person(backgrounds: pd.DataFrame) -> None:
    assert backgrounds["background"].tolist() == [f"b{n:02d}" for n in range(1, 56)]
    assert words(backgrounds["text"]).between(38, 62).all()
    assert backgrounds["text"].str.match(r"an? \d\d-year-old ").all()
    assert not backgrounds["text"].str.contains(r"[.!?;:]").any()
    assert offending(backgrounds["text"], PRONOUNS, re.compile(r"\b(their|them)\b")) == []


def test_the_age_in_a_background_is_its_age_with_the_right_article(backgrounds: pd.DataFrame) -> None:
    for age, text in zip(backgrounds["age"], backgrounds["text"], strict=True):
        article = "an" if age == 18 or 80 <= age <= 89 else "a"
        assert text.startswith(f"{article} {age}-year-old ")


def test_backgrounds_are_neutral(backgrounds: pd.DataFrame) -> None:
    for column in ("text", "speech", "occupation"):
        assert offending(backgrounds[column], OUTCOME, AGREEABLENESS) == []


@pytest.mark.parametrize("size", [11, 22, 33, 44, 55])
def test_leading_backgrounds_are_diverse(backgrounds: pd.DataFrame, size: int) -> None:
    leading = backgrounds.head(size)
    assert leading["occupation"].nunique() >= 0.9 * size
    assert leading["region"].nunique() >= 0.9 * size
    assert leading["speech"].nunique() == size
    assert leading["age"].min() <= 20
    assert leading["age"].max() >= 75
    bands = pd.cut(leading["age"], [17, 30, 45, 60, 90]).value_counts(normalize=True)
    assert bands.min() >= 0.1


def test_gender_is_balanced_where_it_is_marked(backgrounds: pd.DataFrame) -> None:
    marked = pd.DataFrame(
        {
            "woman": backgrounds["text"].str.contains(WOMAN),
            "man": backgrounds["text"].str.contains(MAN),
        }
    )
    assert not marked.all(axis=1).any()
    for size in (22, 33, 44, 55):
        counts = marked.head(size).sum()
        assert counts.min() >= 4
        assert abs(counts["woman"] - counts["man"]) <= 4


def test_every_level_has_every_variant_once(levels: pd.DataFrame) -> None:
    assert (levels.pivot_table(index="level", columns="variant", values="text", aggfunc="size") == 1).all(axis=None)
    assert sorted(levels["level"].unique()) == sorted(levels["variant"].unique()) == [1, 2, 3, 4, 5]


def test_levels_are_balanced_noun_phrases(levels: pd.DataFrame) -> None:
    counts = levels.assign(words=words(levels["text"]))
    assert counts["words"].between(14, 30).all()
    by_variant = counts.groupby("variant")["words"]
    assert (by_variant.max() - by_variant.min()).max() <= 4
    # Length must not stand in for the level.
    by_level = counts.groupby("level")["words"].mean()
    assert by_level.max() - by_level.min() <= 2
    assert levels["text"].str.startswith("someone ").all()
    assert not levels["text"].str.contains(r"[.!?;:]").any()
    assert offending(levels["text"], PRONOUNS) == []


def test_levels_are_graded_by_their_qualifier(levels: pd.DataFrame) -> None:
    qualifier = {1: "extremely ", 2: "rather ", 3: "about as ", 4: "rather ", 5: "extremely "}
    for level, text in zip(levels["level"], levels["text"], strict=True):
        assert text.startswith(f"someone {qualifier[level]}")
    assert levels.query("level == 3")["text"].str.contains("as most people, ").all()


def test_levels_do_not_name_the_outcome(levels: pd.DataFrame) -> None:
    assert offending(levels["text"], OUTCOME) == []


def test_personas_have_fifty_to_a_hundred_words(backgrounds: pd.DataFrame, levels: pd.DataFrame) -> None:
    background, level = words(backgrounds["text"]), words(levels["text"])
    assert background.min() + level.min() >= 50
    assert background.max() + level.max() <= 100


def test_placebo_traits_match_levels_in_form_and_say_nothing_of_the_trait(traits: pd.DataFrame) -> None:
    placebo = traits.query("role == 'placebo'")
    assert placebo["control"].tolist() == [f"placebo_{n:02d}" for n in range(1, 11)]
    assert words(placebo["text"]).between(14, 30).all()
    assert placebo["text"].str.startswith("someone ").all()
    assert not placebo["text"].str.contains(r"[.!?;:]").any()
    assert offending(placebo["text"], OUTCOME, AGREEABLENESS) == []


def test_fillers_describe_nobody_in_the_length_of_a_persona(traits: pd.DataFrame) -> None:
    filler = traits.query("role == 'filler'")
    assert filler["control"].tolist() == [f"filler_{n:02d}" for n in range(1, 6)]
    assert set(traits["role"]) == {"placebo", "filler"}
    assert words(filler["text"]).between(50, 90).all()
    assert filler["text"].str.match(r"[A-Z].*\.$").all()
    person = re.compile(r"\b(who|someone|person|people|man|woman|child\w*)\b", re.IGNORECASE)
    assert offending(filler["text"], OUTCOME, AGREEABLENESS, PRONOUNS, person) == []
