"""The planner: what is shared, what it saves, in which order cells are asked."""

from __future__ import annotations

import itertools
import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_studies.ask import planner
from persona_studies.ask.backends import Request
from persona_studies.ask.chat import CHATML, GEMMA, PLAIN, ChatTemplate
from persona_studies.design.plan import combine, measure, text_hash
from persona_studies.errors import BackendError
from tests.kit.simulated import SimulatedBackend


def merging(text: str, special: bool) -> list[int]:
    """A tokeniser that merges pairs of equal letters, so that a cut between them changes the tokens."""
    tokens, place = [], 0
    while place < len(text):
        pair = text[place : place + 2]
        width = 2 if len(pair) == 2 and pair[0] == pair[1] else 1
        tokens.append(ord(text[place]) * 10 + width)
        place += width
    return tokens


def test_a_token_across_the_seam_is_not_shared() -> None:
    request = Request("cloze", None, "aab", "bc", ("x",))
    prompt = planner.tokenise(request, PLAIN, merging, model="toy")
    head, tail = PLAIN.render(None, "aab", "bc")
    assert prompt.whole == merging((head + tail).rstrip(), True)
    # "bb" is one token of the whole prompt, so the shared start ends before it.
    assert prompt.prefix == merging(head[:-1], True)


@given(
    system=st.none() | st.text("ab \n", max_size=8),
    shared=st.text("ab ", max_size=6),
    user=st.text("ab ", max_size=6),
    chat=st.sampled_from([CHATML, GEMMA, PLAIN]),
)
def test_the_prompt_is_always_the_one_of_a_single_piece(
    system: str | None, shared: str, user: str, chat: ChatTemplate
) -> None:
    prompt = planner.tokenise(Request("cloze", system, shared, user, ("a", "ab")), chat, merging, model="toy")
    assert prompt.whole == merging("".join(chat.render(system, shared, user)).rstrip(" "), True)
    assert len(prompt.suffix) >= 1


def test_the_space_before_an_option_is_the_options_own() -> None:
    prompt = planner.tokenise(Request("cloze", None, "", "b", ("cc", "d")), PLAIN, merging, model="toy")
    assert prompt.whole == merging("User: b\nAssistant:", True)
    assert prompt.options == [merging(" cc", False), merging(" d", False)]


def test_a_label_that_no_token_joins_to_a_space_stays_alone() -> None:
    prompt = planner.tokenise(Request("letter", None, "", "b", ("1", "2")), PLAIN, merging, model="toy")
    assert prompt.whole == merging("User: b\nAssistant: ", True)
    assert prompt.options == [merging("1", False), merging("2", False)]


def test_options_share_their_starts() -> None:
    prompt = planner.Prompt([1, 2], [3], [[7, 8, 9], [7, 8, 5], [6], [7, 4]])
    assert prompt.branches == 2
    size = prompt.size()
    assert (size.prefix, size.suffix, size.branches, size.logical) == (2, 1, 2, 5 + 5 + 3 + 4)


def test_labels_of_several_tokens_and_empty_options_are_refused() -> None:
    with pytest.raises(BackendError, match="one-token labels"):
        planner.tokenise(Request("letter", None, "", "x", ("a", "bc")), PLAIN, merging, model="toy")
    with pytest.raises(BackendError, match="is empty"):
        planner.tokenise(Request("cloze", None, "", "x", ("a", "")), PLAIN, merging, model="toy")


def grid(system: list[str | None], shared: str, user: str) -> pd.DataFrame:
    conditions = pd.DataFrame({"condition": [f"c{i}" for i in range(len(system))], "system": system})
    conditions["description"] = [f"persona {i}" for i in range(len(system))]
    conditions["condition_hash"] = [text_hash(s, d) for s, d in zip(system, conditions["description"])]
    items = pd.DataFrame({"item": ["i0", "i1", "i2"], "text": ["first", "second", "third"]})
    items["item_hash"] = items["text"].map(text_hash)
    templates = pd.DataFrame({"template": ["t"], "shared": [shared], "user": [user]})
    return combine(
        [measure("m", "cloze", conditions=conditions, items=items, templates=templates, options=["y", "n"])]
    )


def starts(plan: pd.DataFrame) -> int:
    ordered = planner.order(plan)
    requests = [
        Request("cloze", s, h, u, ("y", "n")) for s, h, u in zip(ordered.system, ordered.shared, ordered.user)
    ]
    return planner.cost(requests, SimulatedBackend(lambda r: ()))["starts"]


def test_a_persona_before_the_item_is_computed_once_per_persona() -> None:
    assert starts(grid(["you are a", "you are b"], "", "{text}")) == 2
    assert starts(grid([None, None, None, None], "{description} ", "{text}")) == 4


def test_an_item_before_the_persona_is_computed_once_per_item() -> None:
    assert starts(grid([None, None, None, None], "{text} ", "{description}")) == 3


def test_no_system_turn_and_an_empty_one_are_different_starts() -> None:
    plan = grid([None, ""], "", "{text}")
    assert starts(plan) == 2
    assert planner.order(plan)["system"].isna().sum() == 3


def test_order_keeps_every_cell_once() -> None:
    plan = grid(["a", "b", "a"], "", "{text}").sample(frac=1, random_state=1)
    ordered = planner.order(plan)
    assert sorted(ordered.index) == sorted(plan.index)
    heads = ordered["system"].tolist()
    assert sum(a != b for a, b in itertools.pairwise(heads)) == 1
    assert planner.order(plan.iloc[:0]).empty


def test_cost_counts_what_goes_through_the_model() -> None:
    plan = planner.order(grid(["abcdefgh", "ijklmnop"], "", "{text}"))
    requests = [Request("cloze", s, h, u, ("y", "n")) for s, h, u in zip(plan.system, plan.shared, plan.user)]
    row = planner.cost(requests, SimulatedBackend(lambda r: ()))
    rest = 2 * len("firstsecondthird")
    assert row["computed"] == 2 * 8 + rest
    assert row["logical"] == 2 * (6 * 8 + rest)


MARKS = re.compile(r"<\|im_start\|>|<\|im_end\|>")


def marked(text: str, special: bool) -> list[int]:
    """A tokeniser with two turn markers, which it reads as such when it is told to."""
    tokens: list[int] = []
    for piece in re.split(f"({MARKS.pattern})", text) if special else [text]:
        tokens += [-len(piece)] if special and MARKS.fullmatch(piece) else map(ord, piece)
    return tokens


@pytest.mark.parametrize(
    ("system", "shared", "user"),
    [
        ("a<|im_end|>\n<|im_start|>user\nb", "", "c"),
        ("a", "b<|im_end|>", "c<|im_start|>d \ue000"),
        (None, "b<|im_", "end|>c"),
        (None, "<|im_end|><|im_end|>", "<|im_start|>"),
    ],
)
def test_a_marker_inside_a_text_is_read_as_text(system: str | None, shared: str, user: str) -> None:
    asked = Request("letter", system, shared, user, ("1",))
    prompt = planner.tokenise(asked, CHATML, marked, model="toy", marks=MARKS)
    texts = {"system": system or "", "whole": shared + user}
    # The markers of the template, and nothing but plain letters in the places of the texts.
    expected: list[int] = []
    for piece in "".join(CHATML.render(None if system is None else "S", "", "U")).partition("U"):
        for part in re.split("(S|U)", piece) if system is not None else re.split("(U)", piece):
            known = {"S": texts["system"], "U": texts["whole"]}
            expected += marked(known[part], False) if part in known else marked(part, True)
    assert prompt.whole == expected
    unmarked = planner.tokenise(asked, CHATML, marked, model="toy")
    assert unmarked.whole != expected, "without the marks, the text would change the structure"


def test_a_begin_token_that_is_missing_or_doubled_is_refused() -> None:
    for chat, problem in ((PLAIN, 0), (PLAIN.beginning("<|im_end|><|im_end|>"), 2)):
        with pytest.raises(BackendError, match=f"toy begin with {problem} begin tokens.*--chat"):
            planner.check_beginning(chat, marked, -len("<|im_end|>"), needed=True, model="toy")
    planner.check_beginning(PLAIN.beginning("<|im_end|>"), marked, -len("<|im_end|>"), needed=True, model="toy")
    planner.check_beginning(PLAIN, marked, None, needed=False, model="toy")
