"""From requests to token ids, and what sharing saves.

Cells whose prompts start alike are asked one after the other, so that the common start goes through the model
once: the persona (persona-first), or the item where a template puts it before the persona (question-first).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from persona_studies.ask.backends import Backend, Request, Size
from persona_studies.ask.chat import Chat
from persona_studies.errors import BackendError

Encode = Callable[[str, bool], Sequence[int]]


@dataclass(frozen=True)
class Prompt:
    """A request as token ids.

    Attributes:
        prefix: The shared start of the prompt.
        suffix: The rest; at least one token.
        options: Tokens of each option.
    """

    prefix: list[int]
    suffix: list[int]
    options: list[list[int]]

    @property
    def whole(self) -> list[int]:
        return self.prefix + self.suffix

    @property
    def branches(self) -> int:
        """Tokens of the options that must be decoded: all but the last, and shared starts once."""
        return len({tuple(option[:n]) for option in self.options for n in range(1, len(option))})

    def size(self, max_tokens: int = 0) -> Size:
        """Return what the request costs."""
        n = len(self.prefix) + len(self.suffix)
        return Size(
            head=tuple(self.prefix),
            prefix=len(self.prefix),
            suffix=len(self.suffix),
            branches=self.branches + max_tokens,
            logical=sum(n + len(option) - 1 for option in self.options) if self.options else n + max_tokens,
        )


def tokenise(
    request: Request, chat: Chat, encode: Encode, *, model: str, marks: re.Pattern[str] | None = None
) -> Prompt:
    """Render a request and split its tokens at the seam of shared start and rest.

    Tokenising two parts may merge differently at the seam than tokenising them together; only the tokens that
    agree are shared, so the prompt is always the one that the model would see in a single piece. Spaces that end
    a prompt belong to the options: a tokeniser merges a space with the word behind it. A turn marker inside a text
    of the request is read as plain text, so it cannot end a turn.

    Args:
        chat: How the model marks turns.
        encode: ``(text, special)`` -> token ids; ``special`` reads turn markers as such.
        model: Name for error messages.
        marks: Finds the model's turn markers.

    Raises:
        BackendError: an option without tokens, or a label of more than one.
    """
    if marks is not None and marks.search("\n".join((request.system or "", request.shared + request.user))):
        request, encode = _guarded(request, encode, marks)
    head, tail = chat.render(request.system, request.shared, request.user)
    text = (head + tail).rstrip(" ")
    spaces = (head + tail)[len(text) :]
    if request.kind == "letter" and any(len(encode(spaces + label, False)) != 1 for label in request.options):
        # Some tokenisers keep a space apart from a digit.
        text, spaces = head + tail, ""
    whole = list(encode(text, True))
    same = 0
    for a, b in zip(encode(head, True), whole[:-1], strict=False):
        if a != b:
            break
        same += 1
    options = [list(encode(spaces + option, False)) for option in request.options]
    if not all(request.options) or not all(options):
        raise BackendError(f"An option of {request.options} is empty; every option needs at least one token.")
    if request.kind == "letter":
        long = [option for option, tokens in zip(request.options, options, strict=True) if len(tokens) != 1]
        if long:
            raise BackendError(
                f"Labels {long} are more than one token for {model}; `letter` needs one-token labels."
            )
    return Prompt(whole[:same], whole[same:], options)


def _guarded(request: Request, encode: Encode, marks: re.Pattern[str]) -> tuple[Request, Encode]:
    """Return a request whose texts hold a stand-in for every turn marker, and how to tokenise it."""
    texts = (request.system or "", request.shared + request.user)
    free = (chr(code) for code in range(0xE000, 0xF900) if not any(chr(code) in text for text in texts))
    known: dict[str, str] = {}

    def hide(text: str) -> str:
        return marks.sub(lambda found: known.setdefault(found[0], next(free)), text)

    system = None if request.system is None else hide(request.system)
    # A marker that spans the seam of shared and own text belongs to the own one.
    seam = len(request.shared)
    for found in marks.finditer(request.shared + request.user):
        if found.start() < seam < found.end():
            seam = found.start()
    whole = request.shared + request.user
    shared, user = hide(whole[:seam]), hide(whole[seam:])
    stands_for = {stand: mark for mark, stand in known.items()}
    cut = re.compile(f"([{''.join(stands_for)}])")

    def encode_guarded(text: str, special: bool) -> Sequence[int]:
        return [
            token
            for piece in cut.split(text)
            if piece
            for token in (encode(stands_for[piece], False) if piece in stands_for else encode(piece, special))
        ]

    return replace(request, system=system, shared=shared, user=user), encode_guarded


def check_beginning(chat: Chat, encode: Encode, begin: int | None, *, needed: bool, model: str) -> None:
    """Check that a prompt begins with the begin token as often as it must.

    Args:
        chat: How the model marks turns.
        encode: As for :func:`tokenise`.
        begin: The model's begin token; None when it has none.
        needed: Whether the model expects it.
        model: Name for error messages.

    Raises:
        BackendError: the token is there twice, or is needed and missing.
    """
    tokens = list(encode("".join(chat.render(None, "", "Hello.")), True))
    times = next((i for i, token in enumerate(tokens) if token != begin), len(tokens))
    if times > 1 or (needed and times == 0):
        raise BackendError(
            f"Prompts of {model} begin with {times} begin tokens, not with one; its chat template ({chat.name}) "
            "and its tokeniser do not fit together. Say how turns are marked with --chat."
        )


def order(plan: pd.DataFrame) -> pd.DataFrame:
    """Return a plan with cells that share the start of their prompt side by side.

    Measures stay in the plan's order, and so do the starts within a measure.
    """
    # No system turn at all and an empty one are different starts.
    heads = plan[["measure", "system", "shared"]].fillna({"system": "\x00none"})
    start = heads.groupby(["measure", "system", "shared"], sort=False, dropna=False).ngroup()
    measure = plan.groupby("measure", sort=False).ngroup()
    return plan.loc[pd.DataFrame({"m": measure, "s": start}).sort_values(["m", "s"], kind="stable").index]


def cost(requests: Iterable[Request], backend: Backend) -> dict[str, int]:
    """Count tokens with and without sharing.

    Args:
        requests: In the order they are asked.
        backend: Knows how the model tokenises.

    Returns:
        ``starts`` (shared starts that are computed), ``logical, computed``.
    """
    total = {"starts": 0, "logical": 0, "computed": 0}
    before: object = None
    for size in map(backend.size, requests):
        fresh = size.head != before
        before = size.head
        total["starts"] += fresh
        total["logical"] += size.logical
        total["computed"] += size.prefix * fresh + size.suffix + size.branches
    return total
