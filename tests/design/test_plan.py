from pathlib import Path

import pandas as pd
import pytest

from persona_studies.design.plan import (
    HASHES,
    IDENTITY,
    combine,
    drawn,
    measure,
    of_measures,
    sample,
    save,
    union,
)
from persona_studies.errors import ParameterError, ProtocolError
from tests.kit.grids import conditions, items, templates


def test_crosses_everything_once() -> None:
    plan = measure(
        "m",
        "letter",
        conditions=conditions(),
        items=items("cats purr", "dogs bark"),
        templates=templates("{Text}?\nA) {option_1}\nB) {option_2}"),
        options=["Yes", "No"],
        labels=["A", "B"],
        orders=2,
        repeats=3,
    )
    assert len(plan) == 2 * 2 * 2 * 3
    assert not plan.duplicated(IDENTITY).any()
    first = plan.query("item == 'i0' and order == 0").iloc[0]
    turned = plan.query("item == 'i0' and order == 1").iloc[0]
    assert first["user"] == "Cats purr?\nA) Yes\nB) No"
    assert turned["user"] == "Cats purr?\nA) No\nB) Yes"
    assert first["options"] == turned["options"] == ("A", "B")


def test_cyclic_orders_rotate_items_own_options() -> None:
    own = items("which?").assign(options=pd.Series([("x", "y", "z")]))
    plan = measure("m", "cloze", conditions=conditions(), items=own, templates=templates(), orders=3)
    assert list(plan["options"][:3]) == [("x", "y", "z"), ("y", "z", "x"), ("z", "x", "y")]


def test_no_persona_stays_without_system_text() -> None:
    plan = measure("m", "cloze", conditions=conditions(), items=items("a"), templates=templates(), options=["x"])
    assert plan.loc[plan["condition"] == "none", "system"].isna().all()


def test_braces_in_an_item_are_left_alone() -> None:
    plan = measure(
        "m", "cloze", conditions=conditions(), items=items("{option_1} {0}"), templates=templates(), options=["x"]
    )
    assert plan["user"].iloc[0] == "I say that {option_1} {0}."


def test_a_plan_without_texts_has_the_same_identity_and_hashes() -> None:
    full = measure("m", "cloze", conditions=conditions(), items=items("a"), templates=templates(), options=["x"])
    bare_items = items("a").assign(text=pd.Series([None], dtype=object))
    bare = measure("m", "cloze", conditions=conditions(), items=bare_items, templates=templates(), options=["x"])
    assert bare["user"].isna().all()
    pd.testing.assert_frame_equal(full[IDENTITY + HASHES], bare[IDENTITY + HASHES])


@pytest.mark.parametrize("change", [{"user": "I swear that {text}."}, {"shared": "Listen. "}])
def test_template_hash_follows_the_template(change: dict[str, str]) -> None:
    one = measure("m", "cloze", conditions=conditions(), items=items("a"), templates=templates(), options=["x"])
    other = measure(
        "m", "cloze", conditions=conditions(), items=items("a"), templates=templates(**change), options=["x"]
    )
    assert set(one["template_hash"]).isdisjoint(other["template_hash"])


def test_template_hash_follows_the_options() -> None:
    one = measure("m", "cloze", conditions=conditions(), items=items("a"), templates=templates(), options=["x"])
    other = measure("m", "cloze", conditions=conditions(), items=items("a"), templates=templates(), options=["y"])
    assert set(one["template_hash"]).isdisjoint(other["template_hash"])


def test_unknown_kind_and_double_cells_are_refused() -> None:
    with pytest.raises(ProtocolError, match="'cloz'"):
        measure("m", "cloz", conditions=conditions(), items=items("a"), templates=templates())
    part = measure("m", "cloze", conditions=conditions(), items=items("a"), templates=templates(), options=["x"])
    with pytest.raises(ProtocolError, match="twice"):
        combine([part, part])


def test_plans_that_overlap_are_asked_once() -> None:
    def plan(*texts: str, hint: str = "") -> pd.DataFrame:
        asked = templates(f"I say that {{text}}.{hint}")
        return measure("m", "cloze", conditions=conditions(), items=items(*texts), templates=asked, options=["x"])

    both = union([plan("a"), plan("a", "b"), plan("a", "b")])
    pd.testing.assert_frame_equal(
        both.sort_values(IDENTITY, ignore_index=True), plan("a", "b").sort_values(IDENTITY, ignore_index=True)
    )
    with pytest.raises(ProtocolError, match=r"2 cells with different texts, first .*'item': 'i0'"):
        union([plan("a"), plan("a", hint=" Really.")])


def test_an_order_is_drawn_for_each_item_and_is_the_same_for_every_condition() -> None:
    asked = items(*(f"question {n}" for n in range(400)))
    asked["options"] = pd.Series([("w", "x", "y", "z")] * len(asked))
    asked["order"] = drawn(asked["item"], 4, seed=7)
    shown = templates("{text} {option_1} {option_2} {option_3} {option_4}")
    plan = measure("m", "text", conditions=conditions(), items=asked, templates=shown, max_tokens=5)
    assert len(plan) == 2 * 400
    assert (plan.groupby("item")["order"].nunique() == 1).all()
    # 100 expected of each, and a standard deviation of 8.7.
    assert asked["order"].value_counts().between(65, 135).all()
    third = plan[plan["order"] == 2].iloc[0]
    assert third["user"].endswith(" y z w x")
    few = asked.iloc[100:110]
    pd.testing.assert_series_equal(drawn(few["item"], 4, seed=7), few["order"], check_names=False)
    assert not drawn(asked["item"], 4, seed=8).equals(asked["order"])


def test_measures_are_chosen_by_name_and_by_kind() -> None:
    parts = [
        measure(name, kind, conditions=conditions(), items=items("a"), templates=templates(), options=["Yes", "No"])
        for name, kind in (("agree", "cloze"), ("letters", "letter"), ("ratings", "letter"))
    ]
    plan = combine(parts)
    assert of_measures(plan, ["letter"])["measure"].unique().tolist() == ["letters", "ratings"]
    named = plan.assign(measure=plan["measure"].replace("letters", "letter"))
    assert of_measures(named, ["letter"])["measure"].unique().tolist() == ["letter"]
    assert of_measures(plan, ["ratings", "cloze"])["measure"].unique().tolist() == ["agree", "ratings"]
    with pytest.raises(
        ParameterError, match=r"'leter' is not a measure.*'letter'.*agree, letters, ratings; .*cloze, letter"
    ):
        of_measures(plan, ["leter"])


def test_a_sample_is_the_same_in_whatever_order_a_plan_stands() -> None:
    plan = measure("score", "cloze", conditions=conditions(), items=items("a", "b", "c"), templates=templates())
    cells = sample(plan, 3)
    assert len(cells) == 3 and len(sample(plan, 100)) == len(plan)
    again = sample(plan.sample(frac=1, random_state=1), 3)
    assert {*map(tuple, cells[IDENTITY].to_numpy())} == {*map(tuple, again[IDENTITY].to_numpy())}
    others = [{*map(tuple, sample(plan, 3, seed=seed)[IDENTITY].to_numpy())} for seed in range(5)]
    assert len({frozenset(other) for other in others}) > 1


def test_texts_that_may_not_be_passed_on_are_not_written(tmp_path: Path) -> None:
    plan = measure(
        "score", "letter", conditions=conditions(), items=items("a"), templates=templates(), labels=["A"]
    )
    plan.attrs["gated"] = ["a set"]
    with pytest.raises(ProtocolError, match="texts of a set, which may not be passed on"):
        save(plan, tmp_path / "cells.parquet", "toy")
    assert not [*tmp_path.iterdir()]
