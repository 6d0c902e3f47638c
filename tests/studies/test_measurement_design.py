"""The grid of the study of questionnaires: its cells by block, its items and their keys, and its personas."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd
import pytest

from measurement import design
from persona_studies.design.plan import text_hash
from sycophancy import published as ipip
from tests.conftest import at_hand
from tests.kit.simulated_measurement import DEFAULTS, PROJECT, PROTOCOL

CORE = [
    *(*range(1, 9), *range(10, 31), 39, 69, 109, 118, 138, 144, 150, 152, 157, 158, 160, 162, 163, 164, 165, 167),
    *(175, 176, 179, 181, 184, 185, 201, 203, 226, 246, 251, 260, 267, 273, 292),
]
# Words without content of their own; everything else that a persona says must not stand in an item.
PLAIN = set(
    re.findall(
        r"\w+",
        "a an and are as at be by do does down for from get have i in is it me most my no not of off on one other "
        "others out so somebody that the their them then there they this to too up was what when who with you your "
        "yourself myself if put",
    )
)


def plan(**given: Any) -> pd.DataFrame:
    return design.plan(PROJECT, PROTOCOL, design.Parameters.check(DEFAULTS | given))


@pytest.mark.parametrize(
    ("block", "cells"),
    [
        ("A", 24 * 2 * 2 * 2),
        ("B", 60 * 3 * 2 * 2 * 3),
        ("C", 60 * 3 * 2 * 3 * 2),
        ("D", 60 * 2 * 40),
        ("E", 60 * 40),
        ("F", 60 * 2 * (1 + 10) + 60 * 2 * 2),
        ("G", 60 * 2 * 2),
    ],
)
def test_a_block_has_its_cells(block: str, cells: int) -> None:
    assert len(plan(blocks=[block])) == cells


def test_the_grid_is_the_declared_one() -> None:
    whole = plan()
    assert PROTOCOL.confirmatory is not None
    assert len(whole) == 13_512 == sum(PROTOCOL.confirmatory.cells.values())
    assert whole["measure"].value_counts().to_dict() == PROTOCOL.confirmatory.cells
    conditions = whole.loc[whole["measure"] == "induced_rating", "condition"].unique()
    assert len(conditions) == 40
    smaller = plan(items_per_pole=1, wordings=1, labels=["digits"], pairs=["yes_no"], methods=["naive"])
    assert set(map(tuple, smaller[["measure", "condition", "item", "template", "order"]].to_numpy())) <= set(
        map(tuple, whole[["measure", "condition", "item", "template", "order"]].to_numpy())
    )


def test_the_short_form_has_both_poles_of_every_domain_and_facet() -> None:
    plain = design.statements(PROJECT).query("form == 'plain'")
    assert plain["number"].tolist() == CORE
    assert (plain.groupby(["domain", "key"]).size() == 6).all()
    assert (plain.groupby(["domain", "facet"])["key"].sum() == 0).all()


def test_keys_and_texts_are_those_of_the_published_lists() -> None:
    questions, lists = at_hand(PROJECT, "ipip-neo-300", "ipip-neo-300-reversed")
    text, negative = ipip._ipip_texts(questions), ipip.reversed_items(lists)
    keys = design.banks.read(PROJECT.items / "measurement" / "ipip_neo_300.csv", design.Key).set_index("number")
    assert set(keys.index[keys["key"] < 0]) == negative and len(negative) == 148
    for number, row in keys.iterrows():
        assert isinstance(number, int)
        assert row["item_hash"] == text_hash(text[number])
        assert row["domain"][0].upper() == "NEOAC"[(number - 1) % 5] and row["facet"] == (number - 1) // 5 % 6 + 1
    for row in design.statements(PROJECT).query("form == 'plain'").itertuples():
        assert row.i.removeprefix("I ").lower() == text[row.number].lower()


def test_you_is_i_turned_around() -> None:
    turn = {"I am": "you are", "I": "you", "my": "your", "My": "Your", "myself": "yourself", "me": "you"}
    for row in design.statements(PROJECT).itertuples():
        said = re.sub(r"\b(I am|I|my|My|myself|me)\b", lambda found: turn[found[0]], row.i)
        assert row.you == said[0].upper() + said[1:]


def test_a_negation_by_a_word_adds_or_takes_one_not() -> None:
    wide = design.statements(PROJECT).pivot(index="number", columns="form", values="i")
    for plain, word, meaning in wide[["plain", "word", "meaning"]].itertuples(index=False):
        words = [word.lower().split(), plain.lower().split()]
        longer, shorter = sorted(words, key=len, reverse=True)
        without = [each for each in longer if each not in ("not", "do")]
        assert "not" in longer and "not" not in shorter and without == [w for w in shorter if w != "do"]
        assert "not" not in meaning.split()


def test_no_persona_shares_a_content_word_with_an_item() -> None:
    def words(texts: pd.Series) -> set[str]:
        found = {word for text in texts for word in re.findall(r"[a-z]+", text.lower())}
        return {word[:5] for word in found - PLAIN}

    scenarios = design.scenarios(PROJECT)
    asked = words(design.statements(PROJECT)["i"]) | words(scenarios["situation"])
    asked |= words(scenarios["options"].map(" ".join))
    people = design.people(PROJECT, PROTOCOL)
    personas = people[people["role"].isin(["persona", "placebo", "shuffled"])]
    shared = {
        name: words(pd.Series([text])) & asked for name, text in zip(personas["condition"], personas["system"])
    }
    assert not {name: both for name, both in shared.items() if both}
    assert (people["role"] == "persona").sum() == 30 and len(people) == 40


def test_controls_have_the_length_of_a_paragraph() -> None:
    people = design.people(PROJECT, PROTOCOL).set_index("condition")
    lengths = people["system"].dropna().str.split().map(len)
    paragraphs = lengths[people.loc[lengths.index, "method"] == "paragraph"]
    controls = lengths[people.loc[lengths.index, "role"].isin(["placebo", "filler", "shuffled"])]
    assert controls.between(paragraphs.min() - 2, paragraphs.max() + 2).all()


def test_half_of_the_facts_are_false_and_negations_turn_them() -> None:
    facts = design.facts(PROJECT)
    assert len(facts) == 48 and facts.groupby("form")["true"].sum().tolist() == [12, 12]
    assert (facts.groupby("fact")["true"].sum() == 1).all()


def test_scenarios_offer_both_poles_at_every_place() -> None:
    scenarios = design.scenarios(PROJECT)
    assert (scenarios["domain"].value_counts() == 12).all()
    cells = plan(blocks=["F"]).query("condition == 'none' and template == 'do'")
    shown = cells.merge(scenarios.rename(columns={"options": "declared"}), on="item")
    for order, part in shown.groupby("order"):
        first = part["user"].str.extract(r"\nA\. (.*)\nB")[0]
        assert (first == part["declared"].map(lambda options, k=order: options[k])).all()
