"""Any endpoint that speaks the OpenAI protocol: vLLM, llama-server, Ollama, llama-cpp-python, hosted models.

Three measures, as far as the endpoint can answer them (:meth:`OpenAICompatible.interface` asks it):

- ``letter``: one token is asked for with the most probable alternatives. A label that is not among them is
  censored (NaN, never 0), so the option mass is a lower bound. A label counts as the token of exactly its text
  and as the token with one space before it; the probabilities of the two are added.
- ``text``: greedy generation (temperature 0, with a fixed seed). Some servers penalise repetition unless told not
  to, which is not greedy; see ``extra``. Reasoning is no answer: it is left out, and a cell that holds nothing else
  has failed.
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
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Literal

from persona_studies.ask.backends import ModelInfo, Request, RequestKey, Response, Size
from persona_studies.ask.backends.endpoint import address, interface, measures
from persona_studies.ask.backends.endpoint.budget import Budget, Spent
from persona_studies.ask.backends.endpoint.calls import Session, StoppedError, estimated, event_loop
from persona_studies.ask.backends.endpoint.interface import Interface
from persona_studies.ask.chat import Chat
from persona_studies.errors import BackendError, ParameterError

__all__ = ["Budget", "Interface", "OpenAICompatible", "Spent"]

MOST_LOGPROBS = 20
# Fields of a call that say what is measured, and that `extra` must not change.
OURS = {
    "model", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature", "seed", "logprobs",
    "top_logprobs", "echo", "stream", "n", "best_of", "stop", "tools", "response_format",
}  # fmt: skip


class OpenAICompatible:
    """A model behind an endpoint. Making one sends nothing.

    The key is read from the environment variable ``OPENAI_API_KEY`` and sent to ``base_url``, whatever that
    is. A local server without keys works without the variable.

    With ``api="chat"`` the server renders the conversation. No persona means that no system message is
    sent; a template on the server may still add a system text of its own. With ``api="completions"`` the
    prompt is rendered here and contains none. Its begin-of-text marker is left to the server, since vLLM,
    llama-server and llama-cpp-python add it.

    Args:
        name: Short name used in folders and parameters.
        model: Name that the server knows the model by.
        base_url: Address up to and including ``/v1``; None is ``OPENAI_BASE_URL``, or OpenAI's.
        revision: Pinned revision of the weights. It is recorded as ``model_hash``; without it the served
            name stands there, which is *not* a hash and does not change when the weights do.
        api: Which of the two interfaces answers.
        chat: How the model marks turns, see :func:`persona_studies.ask.chat.detect`; needed by ``completions`` and
            not used by ``chat``.
        system_role: Where the persona stands in a chat: a ``system`` message, or the start of the ``user`` turn
            for models that take no system message. ``record.json`` says which.
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
        ParameterError: a value out of range, or a malformed address.
    """

    def __init__(
        self,
        *,
        name: str,
        model: str,
        base_url: str | None = None,
        revision: str | None = None,
        api: Literal["chat", "completions"] = "chat",
        chat: Chat | None = None,
        system_role: Literal["system", "user"] = "system",
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: int = 6,
        top_logprobs: int = MOST_LOGPROBS,
        budget: Budget | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        if find_spec("openai") is None:
            raise BackendError(
                "This model is reached with the package openai, which is not installed here. "
                "Install the extra `api`: make development"
            )
        _check(api, chat, system_role, concurrency, retries, timeout, top_logprobs, extra or {})
        self.address = address.checked(base_url)
        address.key(model, self.address)
        self.model, self.api, self.concurrency, self.system_role = model, api, concurrency, system_role
        self.timeout, self.retries, self.top_logprobs = timeout, retries, top_logprobs
        self.budget = budget if budget is not None else Budget()
        self.extra = dict(extra or {})
        self.template = chat.without_beginning() if api == "completions" and chat is not None else None
        self.positions_checked = False
        self.spellings: set[str] = set()
        # The fewest tokens that the server takes as max_tokens.
        self.least_tokens = 1
        # What the server calls the model that answers, once it has said so.
        self.served: str | None = None
        by_server = "server" if system_role == "system" else "server, persona in the user turn"
        self.info = ModelInfo(
            name=name,
            model_hash=revision or model,
            backend="openai-compatible",
            version=version("openai"),
            schedule="requests",
            chat=self.template.name if self.template is not None else by_server,
            precision="server",
        )

    def interface(self) -> Interface:
        """Ask the endpoint what it can answer, with a few calls.

        Raises:
            BackendError: it does not answer, or takes no system message.
        """
        with event_loop() as loop:
            session = Session(self)
            try:
                return asyncio.run_coroutine_threadsafe(interface.ask(session), loop).result()
            finally:
                asyncio.run_coroutine_threadsafe(session.close(), loop).result()

    def settings(self, kinds: Collection[str]) -> dict[str, Any]:
        """Return the options that change what is asked, for cells of some kinds, and are not in ``info``."""
        return {"extra": self.extra, **({"top_logprobs": self.top_logprobs} if "letter" in kinds else {})}

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
        with event_loop() as loop:
            session = Session(self)
            try:
                drawn = enumerate(requests)
                while True:
                    while failure is None and len(waiting) < self.concurrency:
                        place, request = next(drawn, (-1, None))
                        if request is None:
                            break
                        failure = self._unanswerable(request)
                        if failure is None:
                            waiting[asyncio.run_coroutine_threadsafe(measures.answer(session, request), loop)] = (
                                place
                            )
                    if not waiting:
                        break
                    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                        place, error = waiting.pop(future), future.exception()
                        if error is None:
                            yield place, future.result()
                        elif failure is None and not isinstance(error, StoppedError):
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
        prefix = estimated((request.system or "") + request.shared)
        suffix = estimated(request.user)
        options = [estimated(option) for option in request.options]
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
                f"{self.info.name} is asked through --api chat, which reports no log-probabilities of given "
                "texts, so `cloze` cannot be measured. Use --api completions with a server that returns those "
                "of the prompt (vLLM, llama-cpp-python's server), or --measures letter,text"
            )
        if request.kind != "text" and not (request.options and all(request.options)):
            return BackendError(f"An option of {request.options} is empty, or there is none; each needs a text.")
        if request.kind == "text" and request.max_tokens < 1:
            return BackendError(f"`text` needs max_tokens of at least 1, not {request.max_tokens}.")
        return None

    def prompt(self, request: Request) -> list[dict[str, str]]:
        """Return the messages, or one entry with the whole prompt."""
        if self.template is not None:
            return [{"prompt": "".join(self.template.render(request.system, request.shared, request.user))}]
        user = {"role": "user", "content": request.shared + request.user}
        if request.system and self.system_role == "user":
            return [user | {"content": f"{request.system}\n\n{user['content']}"}]
        if request.system is None or self.system_role == "user":
            # No persona: no system message, not an empty one.
            return [user]
        return [{"role": "system", "content": request.system}, user]

    def digest(self, request: Request) -> str:
        decoding: dict[str, int | float | str] = {"kind": request.kind, "api": self.api, "temperature": 0}
        if request.kind == "text":
            decoding |= {"max_tokens": request.max_tokens, "seed": measures.SEED}
        else:
            # The endpoint tokenises, so the options are told apart by their texts.
            decoding |= {"options": json.dumps(request.options)}
        if self.extra:
            decoding |= {"extra": json.dumps(self.extra, sort_keys=True)}
        if request.kind == "letter":
            decoding |= {"top_logprobs": self.top_logprobs}
        return RequestKey(self.info, self.info.chat, self.prompt(request), [], decoding).digest()


def _check(
    api: str,
    chat: Chat | None,
    system_role: str,
    concurrency: int,
    retries: int,
    timeout: float,
    top_logprobs: int,
    extra: Mapping[str, Any],
) -> None:
    """Refuse values that no endpoint could do anything with."""
    if api not in ("chat", "completions"):
        raise ParameterError(f"api = {api!r} is unknown; it is 'chat' or 'completions'.")
    if api == "completions" and chat is None:
        raise ParameterError(
            "--api completions needs --chat, which says how turns are marked: chatml, gemma, plain, or a file with "
            "a Jinja template, such as the chat_template.jinja of the model's own files (in Python: chat=)."
        )
    if system_role not in ("system", "user"):
        raise ParameterError(f"system_role = {system_role!r} is unknown; it is 'system' or 'user'.")
    if system_role == "user" and api == "completions":
        raise ParameterError(
            "--system-role goes with --api chat; with completions, --chat says where a persona stands."
        )
    for label, value, least in (("concurrency", concurrency, 1), ("retries", retries, 0)):
        if value < least:
            raise ParameterError(f"{label} = {value} must be at least {least}.")
    if not (math.isfinite(timeout) and timeout > 0):
        raise ParameterError(f"timeout = {timeout} must be a positive number of seconds.")
    if not 1 <= top_logprobs <= MOST_LOGPROBS:
        raise ParameterError(f"top_logprobs = {top_logprobs} must be 1 to {MOST_LOGPROBS}.")
    if taken := sorted(OURS & {*extra}):
        raise ParameterError(f"extra holds {', '.join(taken)}, which the measure decides; leave it out of --extra.")
