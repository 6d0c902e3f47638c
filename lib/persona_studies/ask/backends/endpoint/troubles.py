"""What an error means for a recording: ask again, give this one request up, or stop and say what helps."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from persona_studies.ask.backends.endpoint.address import ADDRESS, KEY, lacks_version
from persona_studies.ask.backends.endpoint.answers import ServerError

LONGEST_REASON = 300
# A misread or half answer is asked for again so often; asking more often would not mend it.
FEW = 3
NO_SYSTEM = re.compile(
    r"(system|developer)[\w' -]{0,40}?(not|n't|un)[\w' -]{0,12}?(support|allow|enable|permit|accept|valid)"
    r"|(not|n't) (support|allow|accept)[\w' ]{0,25}(system|developer)"
    r"|(invalid|unknown|unexpected|unsupported|illegal)[\w':`\" ]{0,25}(system|developer)\b"
    r"|only (the )?user and (assistant|model)|roles? must alternate|role[\w' ]{0,20}must be[^.]{0,20}user",
    re.I,
)
UNKNOWN = re.compile(
    r"unsupported|unknown|unrecognized|unexpected|not support|extra|not permitted|no such|not allowed", re.I
)
LEAST = re.compile(r"(?:minimum|at least|>=|greater than or equal to)\D{0,40}(\d{1,3})\b", re.I)
TOP_LOGPROBS = re.compile(r"top_?logprobs|logprobs", re.I)


@dataclass(frozen=True)
class Trouble:
    """Why a call has no usable answer.

    Attributes:
        reason: In words, without anything secret.
        then: ``retry``; ``refuse`` this request; ``stop`` altogether; ``adapt``: ask at once in another spelling.
        after: Seconds that the server asks to wait.
        billed: Whether the server may have computed something.
        attempts: How often to try at most; None leaves that to the backend.
        dropped: With ``adapt``: the field that the server does not take.
        least: With ``adapt``: the fewest tokens that the server takes as ``max_tokens``.
        own: Whether it may lie with this request alone.
        whole: Whether the reason says already what helps.
        limited: Whether too many calls were sent.
    """

    reason: str
    then: Literal["retry", "refuse", "stop", "adapt"] = "retry"
    after: float | None = None
    billed: bool = True
    attempts: int | None = None
    dropped: str = ""
    least: int = 0
    own: bool = False
    whole: bool = False
    limited: bool = False


@dataclass(frozen=True)
class Asked:
    """What a call asked, as far as its error can be about it.

    Attributes:
        url: Address of the endpoint, as a message may show it.
        api: ``chat`` or ``completions``.
        model: Name of the model.
        body: Fields of the call.
        extra: Names of the further fields.
        scrub: Takes secrets out of a text.
    """

    url: str
    api: str
    model: str
    body: dict[str, Any]
    extra: tuple[str, ...]
    scrub: Callable[[str], str]

    @property
    def has_system(self) -> bool:
        return any(message["role"] == "system" for message in self.body.get("messages", ()))


def judge(
    error: ServerError, status: int, asked: Asked, *, after: str | None = None, inside: bool = False
) -> Trouble:
    """Judge an error by its status, its words and the field that it blames.

    Args:
        error: As the server reports it.
        status: Of HTTP, or the one named inside an answer of status 200 (200 where none is named).
        asked: The call.
        after: The header Retry-After.
        inside: Whether the answer's own status was 200.
    """
    said = asked.scrub(error.words)
    where = f"200 with an error inside{f' ({status})' if status != 200 else ''}" if inside else str(status)
    reason = printable(f"{where}: {said}" if inside else f"{where} {said}")
    if (adapted := _adapted(error, asked)) is not None:
        return Trouble(reason, "adapt", billed=False, dropped=adapted)
    if least := _least(error, asked):
        return Trouble(reason, "adapt", billed=False, least=least)
    if (remedy := _remedy(error, status, asked)) is not None:
        return stop(reason, remedy, asked.url)
    if status in (408, 409, 425, 429) or status >= 500:
        return Trouble(reason, after=retry_after(after), billed=False, own=status >= 500, limited=status == 429)
    if status in (400, 413, 422):
        return Trouble(reason, "refuse", billed=False)
    if status == 200:
        hint = version_hint(asked.url)
        return Trouble(f"{reason}.{hint}" if hint else reason, billed=False, attempts=FEW, own=True)
    return stop(reason, f"Check {ADDRESS} and what the endpoint serves.{version_hint(asked.url)}", asked.url)


def stop(reason: str, remedy: str, url: str) -> Trouble:
    """Return a trouble that would befall every request."""
    return Trouble(f"{url} answered {reason.rstrip('.')}. {remedy}", "stop", billed=False)


def version_hint(url: str) -> str:
    """Return where the interface usually is, for an address that does not say so."""
    return f" The address usually ends in /v1: {ADDRESS}={url.rstrip('/')}/v1" if lacks_version(url) else ""


def _adapted(error: ServerError, asked: Asked) -> str | None:
    """Return a field that means the same by another name, or changes nothing without a draw, and is refused."""
    words = f"{error.words} {error.blamed}"
    if "max_completion_tokens" in words and "max_tokens" in asked.body:
        return "max_tokens"
    if error.blamed == "seed" and "seed" in asked.body:
        return "seed"
    if not UNKNOWN.search(words):
        return None
    sent = (name for name in ("seed", "max_tokens") if name in asked.body)
    return next((name for name in sent if re.search(rf"\b{name}\b", words)), None)


def _least(error: ServerError, asked: Asked) -> int | None:
    """Return the fewest tokens that a server says it takes, where more than that may be asked for."""
    words = f"{error.words} {error.blamed}"
    now = asked.body.get("max_tokens", asked.body.get("max_completion_tokens", 0))
    if "logprobs" not in asked.body or not re.search(r"max_(output_|completion_|new_)?tokens", words):
        return None
    found = LEAST.search(words)
    return int(found[1]) if found and now < int(found[1]) <= 64 else None


def _remedy(error: ServerError, status: int, asked: Asked) -> str | None:
    """Return what helps against an error that every request would meet; None where asking on makes sense."""
    said, blamed, code = error.words, error.blamed, error.code
    if code == "insufficient_quota" or status == 402:
        return "The account has no credit left; add some, then start again."
    if asked.has_system and NO_SYSTEM.search(said):
        return (
            "The model takes no system message. Put the persona at the start of the user turn, which the recording "
            "then says: --system-role user"
        )
    if "logits_all" in said:
        return "Start the server with logits_all, which log-probabilities need."
    if "logprobs" in asked.body and TOP_LOGPROBS.search(f"{said} {blamed}"):
        return (
            "The endpoint does not list as many alternatives, or none: a smaller --top-logprobs (5 is common), or "
            "only what needs none, --measures text"
        )
    if status == 401:
        return f"Set the environment variable {KEY} to a key of this endpoint."
    if status == 403:
        return f"The key in the environment variable {KEY} may not use {asked.model}; ask for access."
    elsewhere = re.search(
        r"unexpected endpoint|unknown (endpoint|path|url|route)|no route|not found|invalid url", said, re.I
    )
    if status in (404, 405) or (status == 200 and elsewhere):
        return (
            f"Check {ADDRESS}, that --api {asked.api} is served there, and the model's name {asked.model!r}; "
            f"{asked.url.rstrip('/')}/models lists those served.{version_hint(asked.url)}"
        )
    if status in (400, 413, 422):
        unknown = code.startswith(("unsupported", "unknown_parameter"))
        mine = blamed in ("temperature", "echo", "stop", "model", "logprobs", "max_tokens")
        extra = [name for name in asked.extra if name in said or name == blamed]
        if extra:
            return f"The endpoint does not take {', '.join(extra)}; leave it out of --extra."
        needed = re.search(r"\b(temperature|max_completion_tokens|max_tokens)\b", said) and UNKNOWN.search(said)
        if unknown or mine or needed:
            return (
                "The endpoint does not take a field that this backend needs: use another model or server, or the "
                f"other interface (--api chat, --api completions; now {asked.api})."
            )
    return None


def retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which holds seconds or a date; None without a sound one."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return None if seconds != seconds else max(seconds, 0.0)


def printable(text: str) -> str:
    """Escape what a terminal would obey, and trim."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if len(shown) <= LONGEST_REASON else shown[: LONGEST_REASON - 1] + "…"
