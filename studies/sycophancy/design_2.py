"""The grid of the second protocol: agreement in the paper's four labels and in two, and agreeableness by rating."""

from __future__ import annotations

import pandas as pd

from persona_studies.design import plan as plans
from persona_studies.design.plan import text_hash
from persona_studies.design.protocol import Protocol

LABELS = ("labels_four", "labels_two")


def plan(
    protocol: Protocol, *, people: pd.DataFrame, asked: pd.DataFrame, statements: pd.DataFrame
) -> pd.DataFrame:
    """Return every cell of the second protocol.

    Fewer topics make a smaller grid whose cells are the same: the order of a statement's labels depends on its
    place in the bank alone.

    Args:
        protocol: The second protocol.
        people: Conditions, as :func:`sycophancy.design.conditions` returns them.
        asked: Claims and mirrors, one claim per topic, as :func:`sycophancy.design.claims` returns them.
        statements: The questionnaire; its texts are None where only analysis is wanted.
    """
    measures, design = protocol.measures, protocol.design
    inventory = statements[statements["facet"].isin(design["facets"])]
    described = people[people["role"] == "persona"].assign(system=None)
    reference = people[people["condition"].isin(design["reference"])]
    nothing = pd.DataFrame({"item": ["neutral"], "item_hash": [text_hash("")], "text": [""]})

    def cells(name: str, conditions: pd.DataFrame, items: pd.DataFrame, *roles: str) -> pd.DataFrame:
        declared = measures[name]
        return plans.measure(
            name,
            declared.kind,
            conditions=conditions[["condition", "condition_hash", "system", "description"]],
            items=items[["item", "item_hash", "text"]],
            templates=declared.frame(*roles)[["template", "shared", "user"]],
            options=declared.options,
            labels=declared.labels,
            orders=declared.orders,
            max_tokens=declared.max_tokens,
        )

    def labels(name: str) -> list[pd.DataFrame]:
        own = pd.Series(label_orders(asked, measures[name].orders).to_numpy(), index=asked["item"])
        everyone = cells(name, people, asked, "asserted", "unattributed")
        second = cells(name, reference, asked, "asserted, second wording", "unattributed, second wording")
        turned = everyone["order"] == everyone["item"].map(own)
        return [
            cells(name, people, nothing, "neutral"),
            everyone[turned],
            everyone[~turned & everyone["condition"].isin(design["reference"])],
            second[second["order"] == second["item"].map(own)],
        ]

    return plans.combine(
        [
            *(part for name in LABELS for part in labels(name)),
            cells("self_rating", people, inventory),
            cells("other_rating", described, inventory),
            cells("agree_letter", people, _of_topics(asked, design["topics_letter"])),
            cells("reply", people, _of_topics(asked, design["topics_reply"])),
        ]
    )


def label_orders(asked: pd.DataFrame, orders: int) -> pd.Series:
    """Return the order in which each statement's labels are shown: claims in turn, a mirror in the next order.

    So every label stands equally often in every place, for claims and for mirrors, in every condition alike.

    Args:
        asked: Claims and mirrors: ``claim, side``.
        orders: Cyclic orders of the labels.
    """
    number = pd.Series(pd.factorize(asked["claim"])[0], index=asked.index)
    return (number + asked["side"].eq("mirror")) % orders


def _of_topics(asked: pd.DataFrame, topics: int) -> pd.DataFrame:
    return asked[asked["topic"].isin(asked["topic"].unique()[:topics])]
