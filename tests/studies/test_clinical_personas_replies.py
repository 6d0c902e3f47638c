"""How an urgency is read from replies, by sentences written for the purpose."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from clinical_personas import replies


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("Emergency care now.", 0),
        ("**Emergency care now**: chest pain may be serious.", 0),
        ("Call 911.", 0),
        ("This person needs immediate medical attention.", 0),
        ("within one day", 1),
        ("The patient should see a doctor within 24 hours.", 1),
        ("I would go for care within one week, I think.", 2),
        ("Within a week.", 2),
        ("Self-care", 3),
        ("Self care at home is enough here.", 3),
        ("This is not an emergency room case; self-care will do.", 3),
        ("There is no need for emergency care. Within one week.", 2),
        ("Within one day rather than self-care.", 1),
        ("Within one week. If it gets worse, go to the emergency room.", 2),
        ("Self-care\nOnly with fever: within one day.", 3),
        # The question's list repeated, or two urgencies at once, name none.
        ("Emergency care now, within one day, within one week, or self-care.", None),
        ("Within one day or within one week.", None),
        ("The options matter. Within one day is possible. Self-care is possible.", None),
        ("See a doctor soon.", None),
        ("One day I was ill for a week.", None),
        ("", None),
        ("<script>self-care</script>", 3),
    ],
)
def test_urgencies(text: str, place: int | None) -> None:
    assert replies.urgency(text) == place


@pytest.mark.parametrize(
    ("text", "cut", "expected"),
    [
        ("Within one day.", False, "answered"),
        ("Within one day and then I woul", True, "answered"),
        ("It depends, but within one day.", False, "hedged"),
        ("As an AI I cannot diagnose, yet emergency care is needed.", False, "hedged"),
        ("I'm sorry, I cannot help with that.", False, "abstained"),
        ("The person has a headache and", True, "truncated"),
        ("The person has a headache.", False, "unparsed"),
    ],
)
def test_what_a_reply_is(text: str, cut: bool, expected: str) -> None:
    assert replies.status(text, replies.urgency(text), cut=cut) == expected


def test_summary_by_hand() -> None:
    read = pd.DataFrame(
        {
            "who": "nurse",
            "condition": "nurse-1",
            "item": list("abcd"),
            "cluster": list("abcd"),
            "gold": [0, 1, 2, 3],
            "status": ["answered", "hedged", "unparsed", "answered"],
            "named": [0, 2, np.nan, 2],
        }
    )
    forced = pd.DataFrame({"condition": "nurse-1", "item": list("abcd"), "chosen": [0, 2, 2, 3]})
    row = replies.summary(read, forced, confidence=0.95, replicates=1000, seed=1).iloc[0]
    assert (row["answered"], row["hedged"], row["unparsed"]) == (0.5, 0.25, 0.25)
    assert row["accuracy_given_answer"] == pytest.approx(1 / 3)
    assert (row["lower"], row["upper"]) == (0.25, 0.5)
    assert (row["under"], row["over"], row["same"]) == pytest.approx((1 / 3, 1 / 3, 2 / 3))
    assert replies.share_parsed(read) == 0.75
    # A model that always chooses the same letter agrees with nothing more than chance would.
    constant = replies.summary(read, forced.assign(chosen=2), confidence=0.95, replicates=1000, seed=1).iloc[0]
    assert constant[["kappa", "kappa_low", "kappa_high"]].isna().all() and constant["same"] == pytest.approx(2 / 3)
