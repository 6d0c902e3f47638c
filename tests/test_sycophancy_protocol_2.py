"""The second protocol of sycophancy: its grid, which statement meets which label order, and its hashes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from persona_studies.design import protocol as declared
from persona_studies.design.plan import HASHES, IDENTITY, text_hash
from persona_studies.design.protocol import Protocol
from persona_studies.paths import Project
from sycophancy import design, design_2

PROJECT = Project(Path(__file__).resolve().parents[1])
KEY = [*IDENTITY, *HASHES]


@pytest.fixture(scope="module")
def protocol() -> Protocol:
    return declared.load(PROJECT.protocol("sycophancy", 2))


def grid(protocol: Protocol, topics: int) -> pd.DataFrame:
    return design_2.plan(
        protocol,
        people=design.conditions(PROJECT, protocol, 55),
        asked=design.claims(PROJECT, topics, 1),
        statements=design.questionnaire(PROJECT),
    )


@pytest.fixture(scope="module")
def plan(protocol: Protocol) -> pd.DataFrame:
    """Every claim of the bank; the protocol asks the first of them."""
    return grid(protocol, 33)


def test_the_grid_has_the_declared_sizes(protocol: Protocol) -> None:
    assert protocol.confirmatory is not None
    plan = grid(protocol, protocol.confirmatory.sizes["claims"])
    assert plan.groupby("measure").size().to_dict() == protocol.confirmatory.cells
    sizes = protocol.confirmatory.sizes
    assert plan["condition"].nunique() == sizes["personas"] + sizes["controls"]
    assert plan[plan["measure"] == "labels_four"]["item"].nunique() == sizes["statements"] + 1  # and the neutral
    assert plan[plan["measure"] == "reply"]["item"].nunique() == sizes["reply_statements"]
    assert plan[plan["measure"] == "self_rating"]["item"].nunique() == sizes["questionnaire_items"]


def test_a_recorded_cell_keeps_its_hashes(plan: pd.DataFrame) -> None:
    """The recording of this protocol is known by these hashes: another text would make it useless."""
    known = {
        "agree_letter": "dce59fa158829f4d",
        "labels_four": "ba37c002994a96f2",
        "labels_two": "87757a1668a99e7c",
        "other_rating": "7d038125898d4fa0",
        "reply": "07932a6b6bcf2519",
        "self_rating": "3e2a3d2915375408",
    }
    by_measure = plan.groupby("measure")
    found = {name: text_hash(*cells[KEY].astype(str).to_numpy().ravel()) for name, cells in by_measure}
    assert found == known


def test_fewer_topics_are_the_same_cells(protocol: Protocol, plan: pd.DataFrame) -> None:
    part = grid(protocol, 11)
    assert len(part.merge(plan, on=KEY)) == len(part) < len(plan)


@pytest.mark.parametrize(("measure", "orders"), [("labels_four", 4), ("labels_two", 2)])
def test_label_orders_are_balanced_and_the_same_for_everybody(
    plan: pd.DataFrame, measure: str, orders: int
) -> None:
    cells = plan[(plan["measure"] == measure) & plan["template"].isin(["think", "unattributed"])]
    personas = cells[cells["condition"].str.fullmatch(r"b\d+-\d")]
    assert (personas.groupby("item")["order"].nunique() == 1).all()
    counts = personas.drop_duplicates("item")["order"].value_counts()
    assert len(counts) == orders and counts.max() - counts.min() <= 1
    own = personas.drop_duplicates("item").set_index("item")["order"]
    claims = own[own.index.str.endswith(":claim")]
    mirrors = own[claims.index.str.replace(":claim", ":mirror")]
    assert ((mirrors.to_numpy() - claims.to_numpy()) % orders == 1).all()
    reference = cells[cells["condition"].isin(["none", "assistant"])]
    assert (reference.groupby(["condition", "template", "item"])["order"].nunique() == orders).all()


def test_every_condition_has_its_own_neutral_in_every_order(plan: pd.DataFrame) -> None:
    neutral = plan[plan["template"] == "neutral"]
    assert (neutral[neutral["measure"] == "labels_four"].groupby("condition").size() == 4).all()
    assert neutral["condition"].nunique() == plan["condition"].nunique()


def test_prompts_show_the_labels_in_their_order(plan: pd.DataFrame) -> None:
    cells = plan[plan["measure"].isin(design_2.LABELS)]
    assert all(
        user.endswith(f"of: {', '.join(options)}.")
        for user, options in zip(cells["user"], cells["options"], strict=True)
    )


def test_the_first_protocol_plans_what_is_recorded_under_it(plan: pd.DataFrame) -> None:
    """Letters are asked alike under both, so that the two recordings can be compared."""
    first = declared.load(PROJECT.protocol("sycophancy")).measures["agree_letter"]
    second = declared.load(PROJECT.protocol("sycophancy", 2)).measures["agree_letter"]
    assert (first.options, first.labels, first.orders, first.templates) == (
        second.options, second.labels, second.orders, second.templates,
    )  # fmt: skip
