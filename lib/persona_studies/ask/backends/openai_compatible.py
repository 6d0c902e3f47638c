"""Any endpoint that speaks the OpenAI protocol: vLLM, llama-server, Ollama, llama-cpp-python, hosted models.

Three measures, as far as the endpoint can answer them:

- ``letter``: one token is asked for with the most probable alternatives. A label that is not among them is
  censored (NaN, never 0), so the option mass is a lower bound. A label counts as the token of exactly its text
  and as the token with one space before it; the probabilities of the two are added.
- ``text``: greedy generation (temperature 0, with a fixed seed). Some servers penalise repetition unless told not
  to, which is not greedy; see ``extra``.
- ``cloze``: only ``api="completions"`` with a server that returns the log-probabilities of the prompt
  (``echo``). vLLM and the server of llama-cpp-python do; llama-server and Ollama do not.

What an endpoint does inside is not known here: batches, caches and kernels may differ from one call to the
next, so answers repeat closely but not bit by bit. ``ModelInfo.schedule`` says ``requests``, and
``ModelInfo.precision`` says ``server``.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from persona_studies.ask.backends import ModelInfo, Request, RequestKey, Response, Size
from persona_studies.ask.chat import ChatTemplate
from persona_studies.errors import BackendError, BudgetSpent, ParameterError

if TYPE_CHECKING:
    import openai

T = TypeVar("T")

KEY = "OPENAI_API_KEY"
SEED = 0
BACKOFF = 0.5
LONGEST_BACKOFF = 60.0
LONGEST_RETRY_AFTER = 600.0
LONGEST_REASON = 300
# Endpoints write -9999 (or minus infinity) where they only know that a token is very unlikely.
CENSORED = -9999.0
# The completions of OpenAI itself list five alternatives at most; enough to compare two positions by.
ECHO_ALTERNATIVES = 5
# Two passes over one prompt differ by rounding and batching, two positions of it by far more.
SAME_POSITION = 0.5
TURN_MARKERS = 32


@dataclass(frozen=True)
class Spent:
    """What was used so far.

    Attributes:
        calls: Calls sent, those that failed and were repeated included.
        tokens_in: Tokens of the prompts.
        tokens_out: Tokens generated.
        money: In the currency of the prices.
    """

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    money: float = 0.0


class Budget:
    """Caps on what an endpoint may use.

    Usage is what the server reports. A call is admitted only when its upper bound still fits: one token per
    byte of the prompt, some for turn markers, and the longest answer asked for. A call whose usage the server
    does not report (no ``usage``, a timeout, a lost connection) is counted with that bound, which is about four
    times too high for English; a call that the server refuses uses none.
    """

    def __init__(
        self,
        calls: int | None = None,
        tokens: int | None = None,
        money: float | None = None,
        price_in: float = 0.0,
        price_out: float = 0.0,
    ) -> None:
        """Set the caps; None is no cap.

        Args:
            calls: Calls, including those that are repeated.
            tokens: Tokens of prompts and answers together.
            money: In the currency of the prices.
            price_in: Price of a million prompt tokens.
            price_out: Price of a million generated tokens.

        Raises:
            ParameterError: a negative or undefined value, or a cap on money without prices.
        """
        values = {"calls": calls, "tokens": tokens, "money": money, "price_in": price_in, "price_out": price_out}
        for name, value in values.items():
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ParameterError(f"Budget: {name} = {value} must be a number of at least 0.")
        if money is not None and not (price_in or price_out):
            raise ParameterError("Budget: a cap on money needs price_in and price_out, per million tokens.")
        self.calls, self.tokens, self.money = calls, tokens, money
        self.price_in, self.price_out = price_in, price_out
        self._lock = threading.Lock()
        self._used = (0, 0, 0)
        self._reserved = (0, 0)

    @property
    def spent(self) -> Spent:
        calls, tokens_in, tokens_out = self._used
        return Spent(calls, tokens_in, tokens_out, self.price(tokens_in, tokens_out))

    def price(self, tokens_in: int, tokens_out: int) -> float:
        """Return what so many tokens cost.

        >>> Budget(price_in=2.0, price_out=8.0).price(500_000, 250_000)
        3.0
        """
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6

    def reserve(self, tokens_in: int, tokens_out: int) -> bool:
        """Count a call and set its tokens aside, or return False when a cap would be exceeded."""
        with self._lock:
            calls = self._used[0] + 1
            whole_in = self._used[1] + self._reserved[0] + tokens_in
            whole_out = self._used[2] + self._reserved[1] + tokens_out
            if (
                (self.calls is not None and calls > self.calls)
                or (self.tokens is not None and whole_in + whole_out > self.tokens)
                or (self.money is not None and self.price(whole_in, whole_out) > self.money)
            ):
                return False
            self._used = (calls, *self._used[1:])
            self._reserved = (self._reserved[0] + tokens_in, self._reserved[1] + tokens_out)
            return True

    def settle(self, reserved: tuple[int, int], used: tuple[int, int]) -> None:
        """Replace what was set aside by what was used."""
        with self._lock:
            self._reserved = (self._reserved[0] - reserved[0], self._reserved[1] - reserved[1])
            self._used = (self._used[0], self._used[1] + used[0], self._used[2] + used[1])

    def __str__(self) -> str:
        spent, caps = self.spent, []
        if self.calls is not None:
            caps.append(f"{spent.calls} of {self.calls} calls")
        if self.tokens is not None:
            caps.append(f"{spent.tokens_in + spent.tokens_out} of {self.tokens} tokens")
        if self.money is not None:
            caps.append(f"{spent.money:.4f} of {self.money:.4f} in money")
        return ", ".join(caps) or "no cap"


class OpenAICompatible:
    """A model behind an endpoint."""

    def __init__(
        self,
        *,
        name: str,
        model: str,
        base_url: str | None = None,
        revision: str | None = None,
        api: Literal["chat", "completions"] = "chat",
        chat: ChatTemplate | None = None,
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: int = 6,
        top_logprobs: int = 20,
        budget: Budget | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Describe an endpoint. Nothing is sent.

        The key is read from the environment variable ``OPENAI_API_KEY`` and sent to ``base_url``, whatever that
        is. A local server without keys works without the variable.

        With ``api="chat"`` the server renders the conversation. No persona means that no system message is
        sent; a template on the server may still add a system text of its own. With ``api="completions"`` the
        prompt is rendered here and contains none. Its begin-of-text marker is left to the server, since vLLM,
        llama-server and llama-cpp-python add it.

        Args:
            name: Short name used in folders and parameters.
            model: Name that the server knows the model by.
            base_url: Address up to and including ``/v1``; None is OpenAI's, or ``OPENAI_BASE_URL``.
            revision: Pinned revision of the weights. It is recorded as ``model_hash``; without it the served
                name stands there, which is *not* a hash and does not change when the weights do.
            api: Which of the two interfaces answers.
            chat: How the model marks turns; needed by ``completions`` and not used by ``chat``.
            concurrency: Calls on their way at a time.
            timeout: Seconds for one call, from sending it to the last byte of the answer.
            retries: How often a failed call is repeated.
            top_logprobs: Alternatives to ask for; OpenAI and vLLM allow 20.
            budget: Caps; None counts without a cap.
            extra: Further fields of every call, JSON values, part of the response key. For greedy text:
                ``{"repetition_penalty": 1.0}`` on vLLM, whose default comes with the model, and
                ``{"repeat_penalty": 1.0}`` on llama-cpp-python, Ollama and llama-server. Hosted models may refuse
                fields they do not know.

        Raises:
            BackendError: the extra ``api`` is not installed, or there is no key for a hosted model.
            ParameterError: a value out of range.
        """
        if find_spec("openai") is None:
            raise BackendError(
                "This model is reached with the package openai, which is not installed here. "
                'Install the extra `api`: pip install -e ".[api]"'
            )
        import openai

        if api not in ("chat", "completions"):
            raise ParameterError(f"api = {api!r} is unknown; it is 'chat' or 'completions'.")
        if api == "completions" and chat is None:
            raise ParameterError("api='completions' needs chat=, the template that the prompt is rendered with.")
        for label, value, least in (("concurrency", concurrency, 1), ("retries", retries, 0)):
            if value < least:
                raise ParameterError(f"{label} = {value} must be at least {least}.")
        if not (math.isfinite(timeout) and timeout > 0):
            raise ParameterError(f"timeout = {timeout} must be a positive number of seconds.")
        if not 1 <= top_logprobs <= 20:
            raise ParameterError(f"top_logprobs = {top_logprobs} must be 1 to 20.")
        address = base_url or os.environ.get("OPENAI_BASE_URL")
        key = os.environ.get(KEY)
        if not key and not address:
            raise BackendError(f"{model} is a hosted model and needs a key: set the environment variable {KEY}.")
        if key and not (key.isascii() and key.isprintable() and " " not in key):
            raise BackendError(f"{KEY} holds a character that no key has, such as a line break; set it anew.")
        self.model, self.api, self.concurrency = model, api, concurrency
        self.timeout, self.retries, self.top_logprobs = timeout, retries, top_logprobs
        self.budget = budget if budget is not None else Budget()
        self.extra = dict(extra or {})
        self._openai = openai
        self._base_url = base_url
        self._template = replace(chat, begin="") if api == "completions" and chat is not None else None
        self._positions_checked = False
        self.info = ModelInfo(
            name=name,
            model_hash=revision or model,
            backend="openai-compatible",
            version=version("openai"),
            schedule="requests",
            chat=self._template.name if self._template is not None else "server",
            precision="server",
        )

    def respond(self, requests: Iterable[Request]) -> Iterator[tuple[int, Response]]:
        """Yield ``(place, response)`` as the answers come in; at most ``concurrency`` requests are drawn ahead.

        After a failure nothing new is sent; what is on its way is waited for and yielded, then the error is
        raised. Closing the iterator, or interrupting it, cancels what is on its way.

        Raises:
            BackendError: the endpoint refuses (key, address, model, a parameter it does not know), stays out
                of reach after all retries, or cannot answer a measure.
            BudgetSpent: the next call could exceed a cap.
        """
        waiting: dict[Future[Response], int] = {}
        failure: BaseException | None = None
        with _event_loop() as loop:
            session = _Session(self)
            try:
                drawn = enumerate(requests)
                while True:
                    while failure is None and len(waiting) < self.concurrency:
                        place, request = next(drawn, (-1, None))
                        if request is None:
                            break
                        failure = self._unanswerable(request)
                        if failure is None:
                            waiting[asyncio.run_coroutine_threadsafe(session.answer(request), loop)] = place
                    if not waiting:
                        break
                    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                        place, error = waiting.pop(future), future.exception()
                        if error is None:
                            yield place, future.result()
                        elif failure is None and not isinstance(error, _StoppedError):
                            failure = error
            finally:
                asyncio.run_coroutine_threadsafe(session.close(), loop).result()
        if failure is not None:
            raise failure

    def size(self, request: Request) -> Size:
        """Estimate what a request costs, at four characters to a token.

        Whether a shared start is computed once is up to the server. ``logical`` is what the calls for this
        request are billed for: one call with one token for ``letter``, one for ``text``, and one per option
        for ``cloze``.
        """
        prefix = _estimate((request.system or "") + request.shared)
        suffix = _estimate(request.user)
        options = [_estimate(option) for option in request.options]
        if request.kind == "cloze":
            branches, logical = sum(options), sum(prefix + suffix + option + 1 for option in options)
        else:
            branches = request.max_tokens if request.kind == "text" else 1
            logical = prefix + suffix + branches
        return Size((request.system, request.shared), prefix, suffix, branches, logical)

    def close(self) -> None:
        """Do nothing: connections last as long as :meth:`respond` runs."""

    def _unanswerable(self, request: Request) -> BackendError | None:
        """Return why a request cannot be answered, before anything is sent for it."""
        if request.kind not in ("letter", "text", "cloze"):
            return BackendError(f"Measure of kind {request.kind!r} is unknown; known are letter, cloze and text.")
        if request.kind == "cloze" and self.api == "chat":
            return BackendError(
                f"{self.info.name} is asked through api='chat', which reports no log-probabilities of given "
                "texts, so `cloze` cannot be measured. Use api='completions' with a server that returns those "
                "of the prompt (vLLM, llama-cpp-python's server), or the measures `letter` and `text`."
            )
        if request.kind != "text" and not (request.options and all(request.options)):
            return BackendError(f"An option of {request.options} is empty, or there is none; each needs a text.")
        if request.kind == "text" and request.max_tokens < 1:
            return BackendError(f"`text` needs max_tokens of at least 1, not {request.max_tokens}.")
        return None

    def _prompt(self, request: Request) -> list[dict[str, str]]:
        """Return the messages, or one entry with the whole prompt."""
        if self._template is not None:
            return [{"prompt": "".join(self._template.render(request.system, request.shared, request.user))}]
        user = {"role": "user", "content": request.shared + request.user}
        if request.system is None:
            # No persona: no system message, not an empty one.
            return [user]
        return [{"role": "system", "content": request.system}, user]

    def _digest(self, request: Request) -> str:
        decoding: dict[str, int | float | str] = {"kind": request.kind, "api": self.api, "temperature": 0}
        if request.kind == "text":
            decoding |= {"max_tokens": request.max_tokens, "seed": SEED}
        else:
            # The endpoint tokenises, so the options are told apart by their texts.
            decoding |= {"options": json.dumps(request.options)}
        if self.extra:
            decoding |= {"extra": json.dumps(self.extra, sort_keys=True)}
        if request.kind == "letter":
            decoding |= {"top_logprobs": self.top_logprobs}
        return RequestKey(self.info, self.info.chat, self._prompt(request), [], decoding).digest()


class _Alternative(BaseModel):
    token: str
    logprob: Annotated[float, Field(le=1e-3)]


class _Position(_Alternative):
    top_logprobs: list[_Alternative] | None = None


class _Logprobs(BaseModel):
    """Both forms: ``content`` of chats (and of llama-server), parallel lists of completions."""

    content: list[_Position] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, Annotated[float, Field(le=1e-3)]] | None] | None = None


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    finish_reason: str
    message: _Message | None = None
    text: str | None = None
    logprobs: _Logprobs | None = None


class _Cached(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: Annotated[int, Field(ge=0)]
    completion_tokens: Annotated[int, Field(ge=0)] = 0
    prompt_tokens_details: _Cached | None = None

    @property
    def computed(self) -> int:
        cached = self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None
        return max(self.prompt_tokens - (cached or 0), 0) + self.completion_tokens


class _Answer(BaseModel):
    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: _Usage | None = None


@dataclass(frozen=True)
class _Trouble:
    """Why a call has no usable answer.

    Attributes:
        reason: In words, without anything secret.
        then: ``retry``; ``refuse`` this request; ``stop`` altogether.
        after: Seconds that the server asks to wait.
        billed: Whether the server may have computed something.
    """

    reason: str
    then: Literal["retry", "refuse", "stop"] = "retry"
    after: float | None = None
    billed: bool = True


class _RefusedError(Exception):
    """The model refuses this request; the recording goes on."""


class _MalformedError(Exception):
    """An answer that lacks what was asked for; it is asked again."""


class _StoppedError(Exception):
    """Another request failed, so nothing new is sent."""


class _Session:
    """One call of ``respond``: a client and what its requests share. Lives in the event loop's thread.

    An exception of the client holds the request with its headers, so none is ever raised, chained or logged
    from here: what went wrong is first turned into words.
    """

    def __init__(self, backend: OpenAICompatible) -> None:
        self.backend = backend
        self.client: openai.AsyncOpenAI = backend._openai.AsyncOpenAI(
            # The client insists on a key; servers without keys do not read it.
            api_key=os.environ.get(KEY) or "none",
            base_url=backend._base_url,
            timeout=backend.timeout,
            max_retries=0,
        )
        parts = urlsplit(str(self.client.base_url))
        port = f":{parts.port}" if parts.port else ""
        self.url = f"{parts.scheme}://{parts.hostname}{port}{parts.path}"
        self.stopped = asyncio.Event()
        self.changed = asyncio.Condition()
        self.on_their_way = 0
        self.not_before = 0.0
        self.turn_markers = TURN_MARKERS

    async def answer(self, request: Request) -> Response:
        measure = {"letter": self._letter, "text": self._text, "cloze": self._cloze}[request.kind]
        try:
            return await measure(request)
        except _RefusedError as refusal:
            reason = str(refusal)
        except _StoppedError:
            raise
        except Exception:
            self.stopped.set()
            raise
        length = _estimate("".join(part for entry in self.backend._prompt(request) for part in entry.values()))
        return Response(self.backend._digest(request), "failed", length, 0, text=reason)

    async def close(self) -> None:
        """Cancel what is on its way and close the connections."""
        # Again and again: a cancellation that arrives while a connection is being made can get lost.
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=0.1)
        await self.client.close()

    async def _letter(self, request: Request) -> Response:
        if self.backend.api == "chat":
            alternatives: dict[str, Any] = {"logprobs": True, "top_logprobs": self.backend.top_logprobs}
        else:
            alternatives = {"logprobs": self.backend.top_logprobs}
        body = self._body(request) | {"max_tokens": 1} | alternatives
        top, usage = await self._call(body, lambda answer: (self._top(answer), answer.usage))
        probabilities = [
            sum(math.exp(top[variant]) for variant in (label, " " + label) if variant in top)
            for label in request.options
        ]
        return Response(
            self.backend._digest(request),
            "scored",
            usage.prompt_tokens if usage else _estimate(_text_of(body)),
            usage.computed if usage else _estimate(_text_of(body)) + 1,
            logprob=tuple(_float32(math.log(p)) if p > 0 else math.nan for p in probabilities),
            n_tokens=(1,) * len(request.options),
            option_mass=_float32(sum(probabilities)),
            top_token=max(top, key=top.__getitem__) if top else None,
        )

    async def _text(self, request: Request) -> Response:
        body = self._body(request) | {"max_tokens": request.max_tokens, "seed": SEED}
        if self.backend._template is not None and self.backend._template.stop:
            body["stop"] = list(self.backend._template.stop)
        text, finish, usage = await self._call(body, self._generated)
        return Response(
            self.backend._digest(request),
            finish,
            usage.prompt_tokens if usage else _estimate(_text_of(body)),
            usage.computed if usage else _estimate(_text_of(body) + text),
            text=text,
        )

    async def _cloze(self, request: Request) -> Response:
        """Ask for each option with the prompt before it, and read the option's tokens off the echo.

        A tokeniser merges a space with the word behind it, so spaces that end the prompt are counted with the
        option, where the model would have put them.
        """
        whole = self.backend._prompt(request)[0]["prompt"]
        prompt = whole.rstrip(" ")
        spaces = whole[len(prompt) :]
        scored = []
        computed = 0
        for option in request.options:
            body = {"model": self.backend.model, "prompt": whole + option, "temperature": 0, "max_tokens": 1}
            body |= {"echo": True, "logprobs": ECHO_ALTERNATIVES}
            scored.append(await self._call(body, partial(self._echo, option=spaces + option)))
            computed += scored[-1].computed if scored[-1].computed else _estimate(whole + option)
        if not self.backend._positions_checked:
            await self._check_positions(prompt, scored[0])
        mass = {option.first: option.logprobs[0] for option in scored}
        return Response(
            self.backend._digest(request),
            "scored",
            scored[0].prompt_tokens,
            computed,
            logprob=tuple(_float32(math.fsum(option.logprobs)) for option in scored),
            n_tokens=tuple(len(option.logprobs) for option in scored),
            option_mass=_float32(math.fsum(math.exp(value) for value in mass.values() if not math.isnan(value))),
            top_token=max(scored[0].top, key=scored[0].top.__getitem__) if scored[0].top else None,
        )

    async def _check_positions(self, prompt: str, option: _Echo) -> None:
        """Compare the echo's first position of an option with the prompt's own next token.

        llama-cpp-python shifts the echo by one position for models without a begin-of-text token; such numbers
        look like any others.
        """
        body = {"model": self.backend.model, "prompt": prompt, "temperature": 0, "max_tokens": 1}
        top = await self._call(body | {"logprobs": ECHO_ALTERNATIVES}, self._top)
        best = max(top, key=top.__getitem__, default="")
        if abs(top.get(best, 0.0) - option.top.get(best, -math.inf)) > SAME_POSITION:
            raise BackendError(
                f"The server at {self.url} reports log-probabilities of the prompt that do not belong to the "
                f"tokens beside them (after the prompt it expects {best!r}, in the echo it does not), so `cloze` "
                "cannot be measured with it. Use vLLM, or the model's file with the llama.cpp backend."
            )
        self.backend._positions_checked = True

    def _body(self, request: Request) -> dict[str, Any]:
        prompt = self.backend._prompt(request)
        about: dict[str, Any] = {"messages": prompt} if self.backend.api == "chat" else dict(prompt[0])
        return {"model": self.backend.model, "temperature": 0} | about

    def _top(self, answer: _Answer) -> dict[str, float]:
        """Return the alternatives of the first position: text of a token and its log-probability.

        Two entries of the same text count once, with the larger probability, lest a token that a server lists
        twice is added to itself.
        """
        choice = _first(answer)
        logprobs = choice.logprobs
        if logprobs is None:
            raise BackendError(
                f"The server at {self.url} returns no log-probabilities for {self.backend.model}, so `letter` "
                "and `cloze` cannot be measured. Start it with them enabled, use another server, or the measure "
                "`text`."
            )
        entries: list[tuple[str, float]] = []
        if logprobs.content:
            first = logprobs.content[0]
            entries = [(entry.token, entry.logprob) for entry in (first, *(first.top_logprobs or ()))]
        elif logprobs.top_logprobs:
            entries = list((logprobs.top_logprobs[0] or {}).items())
        elif logprobs.content is None and logprobs.top_logprobs is None:
            raise _MalformedError("log-probabilities in neither of the two known forms")
        top: dict[str, float] = {}
        for token, value in entries:
            if value > CENSORED:
                top[token] = max(value, top.get(token, value))
        return top

    def _generated(self, answer: _Answer) -> tuple[str, str, _Usage | None]:
        choice = _first(answer)
        if choice.finish_reason not in ("stop", "length"):
            raise _RefusedError(_printable(f"the answer ended with {choice.finish_reason!r}"))
        if self.backend.api == "chat":
            if choice.message is None:
                raise _MalformedError("an answer without a message")
            text = choice.message.content or choice.message.refusal or ""
        elif choice.text is None:
            raise _MalformedError("an answer without a text")
        else:
            text = choice.text
        return text, choice.finish_reason, answer.usage

    def _echo(self, answer: _Answer, option: str) -> _Echo:
        """Return the part of an echoed prompt that is the option.

        It is found from the end and by the texts of the tokens. Offsets would not do: vLLM counts the
        begin-of-text token, llama-cpp-python leaves every turn marker out. Tokens that hold a part of a
        character come back as a replacement character or as nothing, so only the ASCII part is compared;
        the turn marker before the option is ASCII, so no token too many is taken.
        """
        logprobs = _first(answer).logprobs
        if logprobs is None or not logprobs.tokens or logprobs.token_logprobs is None:
            raise self._no_echo()
        tokens, values, tops = logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs or []
        if len(values) != len(tokens) or len(tops) not in (0, len(tokens)):
            raise _MalformedError("lists of tokens and log-probabilities of different lengths")
        # The end marker, when it is what the model generates, is counted by some servers and by some not.
        end = len(tokens) - (min(answer.usage.completion_tokens, 1) if answer.usage else 1)
        wanted = _ascii(option)
        start, seen = end, ""
        while start > 0 and len(seen) <= len(wanted):
            if seen == wanted and _ascii(tokens[start - 1]):
                break
            start -= 1
            seen = _ascii(tokens[start]) + seen
        if seen != wanted or start in (0, end):
            if seen.endswith(wanted) and start < end:
                raise _RefusedError(_printable(f"the tokeniser merges the start of {option!r} with the prompt"))
            raise self._no_echo()
        position = tops[start] if tops else None
        return _Echo(
            first=tokens[start],
            logprobs=[math.nan if v is None or v <= CENSORED else v for v in values[start:end]],
            top={token: value for token, value in (position or {}).items() if value > CENSORED},
            prompt_tokens=answer.usage.prompt_tokens - (end - start) if answer.usage else start,
            computed=answer.usage.computed if answer.usage else None,
        )

    def _no_echo(self) -> BackendError:
        return BackendError(
            f"The server at {self.url} does not return the log-probabilities of the prompt token by token "
            "(`echo` with `logprobs` of api='completions'), so `cloze` cannot be measured. vLLM does, and "
            "llama-cpp-python's server with logits_all; llama-server and Ollama do not. Use one of those, the "
            "model's file with the llama.cpp backend, or the measures `letter` and `text`."
        )

    async def _call(self, body: dict[str, Any], read: Callable[[_Answer], T]) -> T:
        """Send a call until it is answered, and return what ``read`` finds in the answer."""
        attempt = 0
        while True:
            outcome = await self._counted(body)
            if isinstance(outcome, _Answer):
                try:
                    return read(outcome)
                except _MalformedError as malformed:
                    outcome = _Trouble(str(malformed))
            if outcome.then == "refuse":
                raise _RefusedError(outcome.reason)
            if outcome.then == "stop":
                raise BackendError(outcome.reason)
            if attempt == self.backend.retries:
                raise BackendError(
                    f"{self.url} gave no usable answer in {attempt + 1} attempts; the last: {outcome.reason}. "
                    "What was answered before is kept: see to the server, then start again."
                )
            if outcome.after is not None and outcome.after > LONGEST_RETRY_AFTER:
                raise BackendError(
                    f"{self.url} asks to wait {outcome.after:.0f} s ({outcome.reason}). What was answered before "
                    "is kept: start again after that."
                )
            if outcome.after is None:
                # Random, lest all calls that failed together come back together.
                delay = min(BACKOFF * 2.0**attempt, LONGEST_BACKOFF) * random.uniform(0.5, 1.0)
            else:
                # A server that asks for a pause means all calls.
                delay = outcome.after + BACKOFF * random.uniform(0.0, 1.0)
                self.not_before = max(self.not_before, time.monotonic() + delay)
            await self._pause(delay)
            attempt += 1

    async def _counted(self, body: dict[str, Any]) -> _Answer | _Trouble:
        """Send one call as soon as the server's pause is over and the budget has room."""
        while (left := self.not_before - time.monotonic()) > 0 and not self.stopped.is_set():
            await self._pause(left)
        budget = self.backend.budget
        size = len(_text_of(body).encode(errors="replace"))
        reserved = (size + self.turn_markers, body["max_tokens"])
        async with self.changed:
            while True:
                if self.stopped.is_set():
                    raise _StoppedError
                if budget.reserve(*reserved):
                    break
                if not self.on_their_way:
                    raise BudgetSpent(
                        f"The budget is spent ({budget}; the next call could use {sum(reserved)} tokens). What was "
                        "answered before is kept: raise the cap and start again to continue."
                    )
                # Calls on their way were set aside at their upper bound and will give some of it back.
                await self.changed.wait()
            self.on_their_way += 1
        used = reserved
        try:
            outcome = await self._send(body)
            if isinstance(outcome, _Trouble):
                used = reserved if outcome.billed else (0, 0)
            elif outcome.usage is not None:
                used = (outcome.usage.prompt_tokens, outcome.usage.completion_tokens)
                self.turn_markers = max(self.turn_markers, used[0] - size)
        finally:
            budget.settle(reserved, used)
            self.on_their_way -= 1
            async with self.changed:
                self.changed.notify_all()
        return outcome

    async def _send(self, body: dict[str, Any]) -> _Answer | _Trouble:
        """Send one call. Never raises an exception of the client."""
        api = self.client.chat.completions if self.backend.api == "chat" else self.client.completions
        create: Any = api.with_raw_response.create
        library = self.backend._openai
        try:
            async with asyncio.timeout(self.backend.timeout):
                raw = await create(**body, extra_body=self.backend.extra or None)
            # Halves of surrogate pairs, which JSON may hold and a file cannot, become question marks.
            content = json.dumps(json.loads(raw.content), ensure_ascii=False).encode(errors="replace")
            return _Answer.model_validate_json(content)
        except (TimeoutError, library.APITimeoutError):
            return _Trouble(f"no answer within {self.backend.timeout:g} s")
        except library.APIStatusError as error:
            return self._status(error)
        except library.APIConnectionError as error:
            cause = type(error.__cause__).__name__
            # Texts of connection errors may quote a header; the kind says enough.
            sent = cause not in ("ConnectError", "ConnectTimeout")
            return _Trouble(f"the connection failed ({cause})", billed=sent)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            where = ".".join(map(str, first["loc"]))
            return _Trouble(_printable(self._scrub(f"not the expected JSON ({first['type']} {where})")))
        except (ValueError, RecursionError):
            return _Trouble("not JSON")
        except library.OpenAIError as error:
            return _Trouble(f"the client failed ({type(error).__name__})")

    def _status(self, error: openai.APIStatusError) -> _Trouble:
        """Judge an answer that is an error, by its status and the parameter it blames."""
        body = error.body
        message = body.get("message") or body.get("detail") or body if isinstance(body, dict) else body
        said = message if isinstance(message, str) else json.dumps(message, default=str)
        reason = _printable(self._scrub(f"{error.status_code} {said or error.response.reason_phrase}"))
        status, code = error.status_code, error.code or ""
        blamed = error.param if isinstance(error.param, str) else ""
        if status == 429 and code == "insufficient_quota":
            return self._stop(reason, "The account has no credit left; add some, then start again.")
        if status in (408, 409, 429) or status >= 500:
            # A model loaded without log-probabilities will not get them by asking again.
            if "logits_all" in said:
                return self._stop(reason, "Start the server with logits_all, which log-probabilities need.")
            return _Trouble(reason, after=_retry_after(error.response.headers.get("retry-after")), billed=False)
        if status in (400, 413, 422):
            # A parameter that the endpoint does not know would fail every request alike.
            unknown = code.startswith(("unsupported", "unknown_parameter")) or "logprobs" in said
            if (
                unknown
                or any(name in said for name in self.backend.extra)
                or blamed in ("temperature", "seed", "echo", "stop", "model")
            ):
                return self._stop(
                    reason,
                    "The endpoint does not take a parameter that this backend needs; use another model or server"
                    f", the other api (now {self.backend.api!r}), a smaller top_logprobs, or no extra fields.",
                )
            return _Trouble(reason, "refuse", billed=False)
        remedies = {
            401: f"Set the environment variable {KEY} to a key of this endpoint.",
            402: "The account has no credit left; add some, then start again.",
            403: f"The key in the environment variable {KEY} may not use {self.backend.model}; ask for access.",
            404: f"Check base_url (it usually ends in /v1), that api={self.backend.api!r} is served there, and the "
            f"model's name {self.backend.model!r}; {self.url}models lists those served.",
        }
        return self._stop(reason, remedies.get(status, "Check base_url and what the endpoint serves."))

    def _stop(self, reason: str, remedy: str) -> _Trouble:
        return _Trouble(f"{self.url} answered {reason}. {remedy}", "stop", billed=False)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.stopped.wait(), seconds)

    def _scrub(self, text: str) -> str:
        """Take the key out of a text that a server wrote."""
        key = os.environ.get(KEY)
        return text.replace(key, "[key]") if key else text


@dataclass(frozen=True)
class _Echo:
    """An option in an echoed prompt: its first token, its log-probabilities, the alternatives before it."""

    first: str
    logprobs: list[float]
    top: dict[str, float]
    prompt_tokens: int
    computed: int | None


@contextmanager
def _event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in a thread of its own, since a notebook's own thread already runs one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="openai-compatible", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _first(answer: _Answer) -> _Choice:
    choice = answer.choices[0]
    if choice.finish_reason == "content_filter":
        raise _RefusedError("the answer was withheld by a content filter")
    return choice


def _retry_after(value: str | None) -> float | None:
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
    return None if math.isnan(seconds) else max(seconds, 0.0)


def _text_of(body: dict[str, Any]) -> str:
    return body["prompt"] if "prompt" in body else "".join(message["content"] for message in body["messages"])


def _estimate(text: str) -> int:
    return -(-len(text) // 4)


def _ascii(text: str) -> str:
    return text.encode("ascii", "ignore").decode()


def _float32(value: float) -> float:
    """Round to what the store keeps, so that a row's checksum holds after it was stored."""
    return float(np.float32(value))


def _printable(text: str) -> str:
    """Escape what a terminal would obey, and trim."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if len(shown) <= LONGEST_REASON else shown[: LONGEST_REASON - 1] + "…"
