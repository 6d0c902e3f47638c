"""Replies to multiple choice, whatever order the options were shown in."""

from __future__ import annotations

import pandas as pd
import pytest

from persona_studies.analyse import multiple_choice
from persona_studies.design.plan import drawn
from persona_studies.errors import ProtocolError

LETTERS = "ABCD"


def place(text: str, n: int) -> int | None:
    return LETTERS.index(text) if text in LETTERS[:n] else None


def replies(orders: list[int], texts: list[str | None], finish: str = "stop") -> tuple[pd.DataFrame, pd.DataFrame]:
    items = [f"q{n}" for n in range(len(orders))]
    recorded = pd.DataFrame(
        {"measure": "text", "condition": "none", "item": items, "order": orders, "text": texts, "finish": finish}
    )
    return recorded, pd.DataFrame({"item": items, "gold": 2, "n_options": 4})


def test_a_named_place_is_turned_back_to_the_option_as_declared() -> None:
    """Order k shows option (i + k) mod n at place i, so the third option stands at A, B, C, D in turn."""
    recorded, asked = replies([2, 1, 0, 3], ["A", "B", "C", "D"])
    found = multiple_choice.choices(recorded, asked, "text", place)
    assert found["chosen"].tolist() == [2, 2, 2, 2] and found["correct"].tolist() == [1, 1, 1, 1]


def test_a_reply_that_names_none_is_no_answer_and_a_failed_cell_no_reply() -> None:
    recorded, asked = replies([0, 0, 0], ["C", "no idea", None])
    found = multiple_choice.choices(recorded, asked, "text", place)
    assert found["score"].isna().tolist() == [False, True, True]
    recorded, asked = replies([0], ["C"], finish="failed")
    assert multiple_choice.choices(recorded, asked, "text", place)["chosen"].isna().all()
    with pytest.raises(ProtocolError, match="read="):
        multiple_choice.choices(recorded, asked, "text")


def test_a_habit_of_one_place_is_right_by_chance_under_drawn_orders() -> None:
    """Always "A": right in every fourth question where orders are drawn, always or never where they are not."""
    names = pd.Series([f"q{n}" for n in range(2000)])
    orders = drawn(names, 4, seed=3).tolist()
    recorded, asked = replies(orders, ["A"] * len(orders))
    found = multiple_choice.choices(recorded, asked, "text", place)["score"].mean()
    assert found == pytest.approx(0.25, abs=0.04)
