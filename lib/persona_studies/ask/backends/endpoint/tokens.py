"""Log-probabilities as servers list them: both forms of the protocol, and the spellings of a token."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Endpoints write -9999 (or minus infinity) where they only know that a token is very unlikely.
CENSORED = -9999.0
# A log-probability above 0 by more than rounding is none.
ABOVE_ZERO = 1e-3
# Different tokens cannot have more probability together than 1; a list of zeros comes to its length.
WHOLE = 1.5
# Tokenisers' own marks of a space before a word.
SPACE_MARKS = "\u2581\u0120"
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
ESCAPED = re.compile(r"\\x([0-9A-Fa-f]{2})")


class NoLogprobsError(Exception):
    """Numbers that are no log-probabilities; the text says what they are."""


@dataclass(frozen=True)
class Position:
    """One place of a text: the token there, its log-probability (NaN: not known), and the alternatives listed.

    ``alternatives`` maps the text of a token to its log-probability. Of two tokens of the same text the more
    probable one counts, lest a token that a server lists twice is added to itself.
    """

    token: str
    logprob: float
    alternatives: dict[str, float]


def positions(logprobs: Any, choice: Mapping[str, Any], whole: Mapping[str, Any]) -> tuple[Position, ...] | None:
    """Return the log-probabilities of a choice, or None where there are none.

    Args:
        logprobs: The choice's ``logprobs``: ``content`` of chats, parallel lists of completions.
        choice: Where llama-server's older versions put ``completion_probabilities``.
        whole: As well.
    """
    if isinstance(logprobs, list):
        return _listed(logprobs)
    if isinstance(logprobs, Mapping):
        if isinstance(content := logprobs.get("content"), list):
            return _listed(content)
        if isinstance(tokens := logprobs.get("tokens"), list) and tokens:
            return _parallel(tokens, logprobs)
        if isinstance(tops := logprobs.get("top_logprobs"), list):
            return tuple(_parallel([None] * len(tops), logprobs))
        return None
    older = choice.get("completion_probabilities") or whole.get("completion_probabilities")
    return _listed(older) if isinstance(older, list) else None


def _listed(entries: list[Any]) -> tuple[Position, ...]:
    found = []
    for entry in entries:
        if not isinstance(entry, Mapping):
            continue
        tops = next((entry[k] for k in ("top_logprobs", "top_probs", "probs") if entry.get(k)), None)
        # The token that was generated is not everywhere among its alternatives.
        own = (spelt(entry), _value(entry))
        found.append(_position(*own, [*([own] if not math.isnan(own[1]) else []), *_pairs(tops)]))
    return tuple(found)


def _parallel(tokens: list[Any], logprobs: Mapping[str, Any]) -> tuple[Position, ...]:
    values = logprobs.get("token_logprobs")
    tops = logprobs.get("top_logprobs")
    n = len(tokens)
    values = values if isinstance(values, list) else [None] * n
    tops = tops if isinstance(tops, list) and tops else [None] * n
    if len(values) != n or len(tops) != n:
        raise NoLogprobsError("lists of tokens and log-probabilities of different lengths")
    found = []
    for token, value, top in zip(tokens, values, tops, strict=True):
        found.append(_position(spelt({"token": token}), number(value), _pairs(top)))
    return tuple(found)


def _pairs(tops: Any) -> list[tuple[str, float]]:
    """Return alternatives as pairs, from a list of objects or from an object of texts and numbers."""
    if isinstance(tops, Mapping):
        return [(spelt({"token": name}), number(value)) for name, value in tops.items()]
    listed = tops if isinstance(tops, list) else []
    return [(spelt(entry), _value(entry)) for entry in listed if isinstance(entry, Mapping)]


def _position(token: str, value: float, pairs: Iterable[tuple[str, float]]) -> Position:
    best: dict[str, float] = {}
    for name, logprob in pairs:
        if logprob > CENSORED:  # neither NaN nor a stand-in for "unlikely"
            best[name] = max(logprob, best.get(name, logprob))
    return Position(token, value if value > CENSORED else math.nan, best)


def check(position: Position) -> None:
    """Refuse numbers that cannot be log-probabilities.

    Raises:
        NoLogprobsError: one is above 0, or together they are more than a whole.
    """
    for token, value in position.alternatives.items():
        if value > ABOVE_ZERO:
            raise NoLogprobsError(f"the log-probability of {token!r} is {value:g}, which is above 0")
    if (total := sum(map(math.exp, position.alternatives.values()))) > WHOLE:
        raise NoLogprobsError(f"the probabilities of the first tokens add up to {total:.2f}")


def spelt(entry: Mapping[str, Any]) -> str:
    """Return a token as the text it stands for.

    Its bytes say so best. Some tokenisers' own spellings mark a space before a word, or write a byte as a number.

    >>> spelt({"token": "\\u2581A"}), spelt({"token": "<0x41>"}), spelt({"token": "x", "bytes": [32, 66]})
    (' A', 'A', ' B')
    """
    raw = entry.get("bytes")
    if isinstance(raw, list) and raw and all(isinstance(b, int) and 0 <= b < 256 for b in raw):
        return bytes(raw).decode(errors="replace")
    token = next((entry[k] for k in ("token", "tok_str", "text", "content") if entry.get(k) is not None), "")
    if not isinstance(token, str):
        return str(token)
    token = token.encode(errors="replace").decode()
    if token.startswith("bytes:"):
        token, pattern = token.removeprefix("bytes:"), ESCAPED
    else:
        pattern = BYTE
    if pieces := pattern.findall(token):
        token = bytes(int(piece, 16) for piece in pieces).decode(errors="replace") + pattern.sub("", token)
    word = token.lstrip(SPACE_MARKS)
    return " " * (len(token) - len(word)) + word


def is_number(token: str) -> bool:
    """Return whether a token's text is an id: servers can be set to list ids.

    >>> is_number("token_id:362"), is_number("362"), is_number("A")
    (True, True, False)
    """
    return bool(re.fullmatch(r"(token_id:)?\d+", token))


def number(found: Any) -> float:
    """Return a number, also one that JSON had to write as a text; NaN where there is none, or plus infinity."""
    if isinstance(found, str):
        try:
            found = float(found)
        except ValueError:
            return math.nan
    if not isinstance(found, int | float) or isinstance(found, bool) or found == math.inf:
        return math.nan
    return float(found)


def whole_number(found: Any) -> int | None:
    """Return a count of at least 0, or None where it is none."""
    value = number(found)
    return int(value) if math.isfinite(value) and value >= 0 and value == int(value) else None


def _value(entry: Mapping[str, Any]) -> float:
    for name in ("logprob", "logprobs", "log_prob"):
        if name in entry:
            return number(entry[name])
    for name in ("prob", "probability"):
        if (value := number(entry.get(name))) >= 0:
            return math.log(value) if value else -math.inf
    return math.nan
