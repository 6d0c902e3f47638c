"""Ask an endpoint for each kind of measure, and read the response off its answer."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from persona_studies.ask.backends import Request, Response
from persona_studies.ask.backends.endpoint import tokens
from persona_studies.ask.backends.endpoint.answers import Answer, LackingError, MalformedError, Usage
from persona_studies.ask.backends.endpoint.calls import RefusedError, Session, StoppedError, estimated, text_of
from persona_studies.ask.backends.endpoint.tokens import Position
from persona_studies.ask.backends.endpoint.troubles import printable
from persona_studies.errors import BackendError

if TYPE_CHECKING:
    from persona_studies.ask.backends.openai_compatible import OpenAICompatible

SEED = 0
# The completions of OpenAI itself list five alternatives at most; enough to compare two positions by.
ECHO_ALTERNATIVES = 5
# Characters of an answer that a message quotes.
OPENING = 40
# Two passes over one prompt differ by rounding and batching, two positions of it by far more.
SAME_POSITION = 0.5
THINKING_OFF = (
    'switch the reasoning off, for example --extra \'{"reasoning_effort": "none"}\', or on vLLM, SGLang and '
    'llama-server --extra \'{"chat_template_kwargs": {"enable_thinking": false}}\''
)


@dataclass(frozen=True)
class _Echo:
    """An option in an echoed prompt: its first token, its log-probabilities, the alternatives before it."""

    first: str
    logprobs: list[float]
    top: dict[str, float]
    prompt_tokens: int
    computed: int | None


async def answer(session: Session, request: Request) -> Response:
    """Ask for one cell; a request that the endpoint refuses has a response that says so.

    Raises:
        BackendError: no request would be answered.
        StoppedError: another one failed.
    """
    measure = {"letter": letter, "text": text, "cloze": cloze}[request.kind]
    try:
        return await measure(session, request)
    except RefusedError as refusal:
        reason = str(refusal)
    except StoppedError:
        raise
    except Exception:
        session.stopped.set()
        raise
    backend = session.backend
    length = estimated("".join(part for entry in backend.prompt(request) for part in entry.values()))
    return Response(backend.digest(request), "failed", length, 0, text=reason)


async def letter(session: Session, request: Request) -> Response:
    """Ask for one token with its most probable alternatives, and read the labels off them."""
    body = letter_body(session.backend, request)
    spellings = [(label, " " + label) for label in request.options]
    wanted = [text for pair in spellings for text in pair]
    top, usage = await session.call(body, lambda found: (first_position(session, found, wanted), found.usage))
    probabilities = [sum(math.exp(top[text]) for text in pair if text in top) for pair in spellings]
    length = estimated(text_of(body))
    return Response(
        session.backend.digest(request),
        "scored",
        usage.prompt if usage else length,
        usage.computed if usage else length + 1,
        logprob=tuple(_float32(math.log(p)) if p > 0 else math.nan for p in probabilities),
        n_tokens=(1,) * len(request.options),
        option_mass=_float32(sum(probabilities)),
        top_token=max(top, key=top.__getitem__) if top else None,
    )


def letter_body(backend: OpenAICompatible, request: Request) -> dict[str, Any]:
    """Return the call that asks for one token and its alternatives."""
    many = backend.top_logprobs
    alternatives: dict[str, Any] = (
        {"logprobs": True, "top_logprobs": many} if backend.api == "chat" else {"logprobs": many}
    )
    return _body(backend, request) | {"max_tokens": 1} | alternatives


async def text(session: Session, request: Request) -> Response:
    """Ask for a greedy reply."""
    backend = session.backend
    body = _body(backend, request) | {"max_tokens": request.max_tokens, "seed": SEED}
    if backend.template is not None and backend.template.stop:
        body["stop"] = list(backend.template.stop)
    said, finish, usage = await session.call(body, partial(generated, most=request.max_tokens))
    # Not every server knows `stop`; what it goes on with is a turn of the user that it made up.
    for mark in body.get("stop", ()):
        if mark in said:
            said, finish = said.partition(mark)[0], "stop"
    return Response(
        backend.digest(request),
        finish,
        usage.prompt if usage else estimated(text_of(body)),
        usage.computed if usage else estimated(text_of(body) + said),
        text=said,
    )


def generated(found: Answer, most: int) -> tuple[str, str, Usage | None]:
    """Return a reply, how it ended (``stop`` or ``length``), and its usage.

    A text counts whatever the server calls its end. Nothing counts as the model's answer where something was
    generated and is not shown: reasoning, a call of a tool.

    Args:
        found: The answer.
        most: Tokens that were asked for at most.
    """
    _withheld(found)
    check_length(found, most)
    count = found.usage.generated if found.usage else None
    finish = found.finish if found.finish in ("stop", "length") else "stop"
    if found.finish in ("unknown", "tools") and count is not None and count >= most:
        finish = "length"
    if found.text is not None and found.text.strip():
        return found.text, finish, found.usage
    if found.finish == "tools":
        raise RefusedError(printable(f"the answer ended with {found.ended or 'tool_calls'!r} and holds no text"))
    if found.reasoning:
        used = f"reasoning used up all {most} tokens" if finish == "length" else "only reasoning came back"
        raise RefusedError(f"{used} and no answer; {THINKING_OFF}")
    if count is not None and count > 1:
        raise RefusedError(
            f"the server counts {count} tokens and shows no text (finish_reason {found.ended or 'none'!r}); if it "
            f"hides reasoning, {THINKING_OFF}"
        )
    if found.text is None:
        raise MalformedError("an answer whose content is null")
    return "", finish, found.usage


def check_length(found: Answer, most: int) -> None:
    """Refuse a text of more words than tokens were asked for: a word has at least one token.

    Raises:
        RefusedError: the server sends the prompt along, or something that is not the model's, or does not stop.
    """
    if (words := len((found.text or "").split())) > most:
        raise RefusedError(
            printable(
                f"the text has {words:,} words where {most} tokens were asked for, so the server sends more than "
                f"the reply, or does not keep to max_tokens: {found.text!r}"
            )
        )


def check_not_reasoning(found: Answer) -> None:
    """Refuse an answer of which the first token is a thought: its alternatives are no answers.

    Raises:
        RefusedError: it is.
    """
    if found.reasoning and not (found.text or "").strip():
        raise RefusedError(f"the first token belongs to the reasoning, not to the answer; {THINKING_OFF}")


def check_agrees(found: Answer) -> None:
    """Refuse log-probabilities that do not belong to the answer: of a thought, of a mark, of the prompt.

    Raises:
        RefusedError: the first token that is listed does not open the text.
    """
    if not found.tokens or tokens.is_number(token := found.tokens[0].token) or "\ufffd" in token:
        return
    text, token = (found.text or "").strip(), token.strip()
    if text and token and not (text.startswith(token) or token.startswith(text)):
        # The remedy is never cut off, as a whole message might be.
        shown, opening = printable(repr(token)), printable(repr(text[:OPENING]))
        raise RefusedError(
            f"the first token with log-probabilities is {shown}, and the answer opens with {opening}: they belong "
            f"to something before the answer; {THINKING_OFF}"
        )


def first_position(session: Session, found: Answer, wanted: Collection[str] = ()) -> dict[str, float]:
    """Return the alternatives of the first position: text of a token and its log-probability.

    Args:
        session: Use of the endpoint.
        found: The answer.
        wanted: Texts of the labels.

    Raises:
        LackingError: the server gives no log-probabilities.
        BackendError: it gives no alternatives.
        RefusedError: they belong to the reasoning.
        MalformedError, NoLogprobsError: something in their place.
    """
    _withheld(found)
    check_not_reasoning(found)
    if found.tokens is None:
        raise LackingError(no_logprobs(session))
    if not found.tokens:
        return {}
    check_agrees(found)
    first = found.tokens[0]
    tokens.check(first)
    # The others may be too unlikely for a number, the token that was taken cannot be.
    if not first.alternatives or (first.token in wanted and first.token not in first.alternatives):
        raise MalformedError(f"the first token, {first.token!r}, without a log-probability")
    if len(first.alternatives) == 1 and session.backend.top_logprobs > 1 and 0.0 in first.alternatives.values():
        raise BackendError(no_alternatives(session))
    return dict(first.alternatives)


def no_logprobs(session: Session) -> str:
    """Say that a server gives no log-probabilities."""
    return (
        f"The server at {session.url} returns no log-probabilities for {session.backend.model}, so `letter` "
        "and `cloze` cannot be measured. Start it with them enabled, use another server, or ask only what needs "
        "none: --measures text"
    )


def no_alternatives(session: Session) -> str:
    """Say that a server gives a probability of 1 to the token it took and lists no other."""
    return (
        f"The server at {session.url} lists no alternatives to the first token, only the one it took, with "
        "probability 1, so `letter` cannot be measured. Use another server, or ask only what needs none: "
        "--measures text"
    )


async def cloze(session: Session, request: Request) -> Response:
    """Ask for each option with the prompt before it, and read the option's tokens off the echo.

    A tokeniser merges a space with the word behind it, so spaces that end the prompt are counted with the
    option, where the model would have put them.
    """
    backend = session.backend
    whole = backend.prompt(request)[0]["prompt"]
    prompt = whole.rstrip(" ")
    spaces = whole[len(prompt) :]
    scored = []
    computed = 0
    for option in request.options:
        body = {"model": backend.model, "prompt": whole + option, "temperature": 0, "max_tokens": 1}
        body |= {"echo": True, "logprobs": ECHO_ALTERNATIVES}
        scored.append(await session.call(body, partial(_echoed, session, option=spaces + option)))
        computed += scored[-1].computed if scored[-1].computed else estimated(whole + option)
    if not backend.positions_checked:
        await _check_positions(session, prompt, scored[0])
    mass = {option.first: option.logprobs[0] for option in scored}
    return Response(
        backend.digest(request),
        "scored",
        scored[0].prompt_tokens,
        computed,
        logprob=tuple(_float32(math.fsum(option.logprobs)) for option in scored),
        n_tokens=tuple(len(option.logprobs) for option in scored),
        option_mass=_float32(math.fsum(math.exp(value) for value in mass.values() if not math.isnan(value))),
        top_token=max(scored[0].top, key=scored[0].top.__getitem__) if scored[0].top else None,
    )


async def _check_positions(session: Session, prompt: str, option: _Echo) -> None:
    """Compare the echo's first position of an option with the prompt's own next token.

    llama-cpp-python shifts the echo by one position for models without a begin-of-text token; such numbers
    look like any others.
    """
    body = {"model": session.backend.model, "prompt": prompt, "temperature": 0, "max_tokens": 1}
    top = await session.call(body | {"logprobs": ECHO_ALTERNATIVES}, partial(first_position, session))
    best = max(top, key=top.__getitem__, default="")
    if abs(top.get(best, 0.0) - option.top.get(best, -math.inf)) > SAME_POSITION:
        raise BackendError(
            f"The server at {session.url} reports log-probabilities of the prompt that do not belong to the "
            f"tokens beside them (after the prompt it expects {best!r}, in the echo it does not), so `cloze` "
            "cannot be measured with it. Use vLLM, or the model's file with the llama.cpp backend."
        )
    session.backend.positions_checked = True


def _echoed(session: Session, found: Answer, option: str) -> _Echo:
    """Return the part of an echoed prompt that is the option.

    It is found from the end and by the texts of the tokens. Offsets would not do: vLLM counts the
    begin-of-text token, llama-cpp-python leaves every turn marker out. Tokens that hold a part of a
    character come back as a replacement character or as nothing, so only the ASCII part is compared;
    the turn marker before the option is ASCII, so no token too many is taken.
    """
    _withheld(found)
    listed: tuple[Position, ...] = found.tokens or ()
    if not listed:
        raise BackendError(no_echo(session))
    usage = found.usage
    # The end marker, when it is what the model generates, is counted by some servers and by some not.
    end = len(listed) - (min(usage.generated, 1) if usage else 1)
    wanted = _ascii(option)
    start, seen = end, ""
    while start > 0 and len(seen) <= len(wanted):
        if seen == wanted and _ascii(listed[start - 1].token):
            break
        start -= 1
        seen = _ascii(listed[start].token) + seen
    if seen != wanted or start in (0, end):
        if seen.endswith(wanted) and start < end:
            raise RefusedError(printable(f"the tokeniser merges the start of {option!r} with the prompt"))
        raise BackendError(no_echo(session))
    tokens.check(listed[start])
    return _Echo(
        first=listed[start].token,
        logprobs=[position.logprob for position in listed[start:end]],
        top=listed[start].alternatives,
        prompt_tokens=usage.prompt - (end - start) if usage else start,
        computed=usage.computed if usage else None,
    )


def no_echo(session: Session) -> str:
    """Say that a server does not score the tokens of a prompt."""
    return (
        f"The server at {session.url} does not return the log-probabilities of the prompt token by token "
        "(`echo` with `logprobs` of --api completions), so `cloze` cannot be measured. vLLM does, and "
        "llama-cpp-python's server with logits_all; llama-server and Ollama do not. Use one of those, the "
        "model's file with the llama.cpp backend, or --measures letter,text"
    )


def _withheld(found: Answer) -> None:
    if found.finish == "withheld":
        raise RefusedError(f"the answer was withheld by a content filter ({printable(found.ended)})")
    if found.finish == "broken":
        raise MalformedError(f"the server broke the answer off (finish_reason {found.ended!r})")


def _body(backend: OpenAICompatible, request: Request) -> dict[str, Any]:
    prompt = backend.prompt(request)
    about: dict[str, Any] = {"messages": prompt} if backend.api == "chat" else dict(prompt[0])
    return {"model": backend.model, "temperature": 0} | about


def _ascii(text: str) -> str:
    return text.encode("ascii", "ignore").decode()


def _float32(value: float) -> float:
    """Round to what the store keeps, so that a row's checksum holds after it was stored."""
    return float(np.float32(value))
