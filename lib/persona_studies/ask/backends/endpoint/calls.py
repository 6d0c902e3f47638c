"""Calls to an endpoint: sent within a budget, repeated while that helps, and never shown with a key."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin

from persona_studies import network
from persona_studies.ask.backends.endpoint import answers, troubles
from persona_studies.ask.backends.endpoint.address import ADDRESS, KEY, secrets, without_password
from persona_studies.ask.backends.endpoint.answers import Answer, LackingError, MalformedError, ServerError
from persona_studies.ask.backends.endpoint.tokens import NoLogprobsError
from persona_studies.ask.backends.endpoint.troubles import FEW, Asked, Trouble, printable
from persona_studies.errors import BackendError, BudgetSpent

if TYPE_CHECKING:
    import openai

    from persona_studies.ask.backends.openai_compatible import OpenAICompatible

T = TypeVar("T")

BACKOFF = 0.5
# Limits are counted by the minute: all attempts together must last longer.
LIMITED = 8
LONGEST_BACKOFF = 60.0
LONGEST_RETRY_AFTER = 600.0
TURN_MARKERS = 32
HARMLESS = "Say hello."
MOVED = (301, 302, 303, 307, 308)


class RefusedError(Exception):
    """This request has no answer; the recording goes on."""


class StoppedError(Exception):
    """Another request failed, so nothing new is sent."""


class Session:
    """One use of an endpoint: a client and what its calls share. Lives in the event loop's thread.

    An exception of the client holds the request with its headers, so none is ever raised, chained or logged
    from here: what went wrong is first turned into words.
    """

    def __init__(self, backend: OpenAICompatible) -> None:
        import openai

        self.backend = backend
        self._library = openai
        try:
            # A redirect would turn a call into another one, or take the key elsewhere.
            transport = openai.DefaultAsyncHttpxClient(follow_redirects=False)
        # Certificates that cannot be read, a proxy of an unknown kind.
        except (OSError, ValueError) as error:
            where = without_password(backend.address or "The endpoint")
            raise BackendError(f"{where} cannot be asked.{network.advice() or f' {error}'}") from None
        self.client: openai.AsyncOpenAI = openai.AsyncOpenAI(
            # The client insists on a key; servers without keys do not read it.
            api_key=os.environ.get(KEY) or "none",
            base_url=backend.address,
            timeout=backend.timeout,
            max_retries=0,
            http_client=transport,
        )
        self.url = without_password(str(self.client.base_url))
        self.stopped = asyncio.Event()
        self._changed = asyncio.Condition()
        self._on_their_way = 0
        self._not_before = 0.0
        self._turn_markers = TURN_MARKERS

    async def close(self) -> None:
        """Cancel what is on its way and close the connections."""
        # Again and again: a cancellation that arrives while a connection is being made can get lost.
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=0.1)
        await self.client.close()

    async def call(self, body: dict[str, Any], read: Callable[[Answer], T]) -> T:
        """Send a call until it is answered, and return what ``read`` finds in the answer.

        Raises:
            RefusedError: this request has no answer.
            BackendError: no request would have one.
            BudgetSpent: the next call could exceed a cap.
        """
        attempt = 0
        while True:
            outcome = await self._once(body, read)
            if not isinstance(outcome, Trouble):
                return outcome
            if outcome.then == "refuse":
                raise RefusedError(outcome.reason)
            if outcome.then == "stop":
                raise BackendError(outcome.reason)
            if outcome.then == "adapt":
                self.backend.spellings |= {outcome.dropped} if outcome.dropped else set()
                self.backend.least_tokens = max(self.backend.least_tokens, outcome.least)
                continue
            most = self.backend.retries if outcome.attempts is None else min(outcome.attempts, self.backend.retries)
            if attempt >= most:
                # One request that a server cannot answer must not keep the others from being asked.
                if outcome.own and await self._is_well(body, read):
                    raise RefusedError("no log-probabilities" if outcome.whole else outcome.reason)
                if outcome.whole:
                    raise BackendError(outcome.reason)
                raise BackendError(
                    f"{self.url} gave no usable answer in {attempt + 1} attempts; the last: {outcome.reason}. "
                    "What was answered before is kept: see to the server, then start again; --retries and "
                    f"--timeout say how long to wait.{network.advice()}"
                )
            await self._wait(outcome, attempt)
            attempt += 1

    async def _once(self, body: dict[str, Any], read: Callable[[Answer], T]) -> T | Trouble:
        """Send a call once, and read its answer."""
        outcome = await self._counted(self._spelled(body))
        if isinstance(outcome, Trouble):
            return outcome
        try:
            return read(outcome)
        except LackingError as lacking:
            return Trouble(str(lacking), attempts=0, own=True, whole=True)
        except (MalformedError, NoLogprobsError) as malformed:
            return Trouble(printable(self.scrub(str(malformed))), attempts=FEW, own=True)

    async def _is_well(self, body: dict[str, Any], read: Callable[[Answer], T]) -> bool:
        """Return whether the server answers the same call with a harmless text."""
        same = {name: value for name, value in body.items() if name not in ("prompt", "messages", "echo")}
        asked = {"prompt": HARMLESS} if "prompt" in body else {"messages": [{"role": "user", "content": HARMLESS}]}
        try:
            # The echo of another text has none of the options that `read` looks for.
            found = await self._once(same | asked, read if "echo" not in body else lambda answer: answer)
        except RefusedError:
            return False
        return not isinstance(found, Trouble)

    async def _wait(self, outcome: Trouble, attempt: int) -> None:
        if outcome.after is not None and outcome.after > LONGEST_RETRY_AFTER:
            raise BackendError(
                f"{self.url} asks to wait {outcome.after:.0f} s ({outcome.reason}). What was answered before "
                "is kept: start again after that."
            )
        if outcome.after is None:
            # Random, lest all calls that failed together come back together.
            base = BACKOFF * LIMITED if outcome.limited else BACKOFF
            delay = min(base * 2.0**attempt, LONGEST_BACKOFF) * random.uniform(0.5, 1.0)
        else:
            # A server that asks for a pause means all calls.
            delay = outcome.after + BACKOFF * random.uniform(0.0, 1.0)
            self._not_before = max(self._not_before, time.monotonic() + delay)
        await self._pause(delay)

    def _spelled(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return a call's fields as this server spells them."""
        if "logprobs" in body and not body.get("echo"):
            # Only the first token is read, so more of them change nothing.
            body = body | {"max_tokens": max(body["max_tokens"], self.backend.least_tokens)}
        spelled = {name: value for name, value in body.items() if name not in self.backend.spellings}
        if "max_tokens" in self.backend.spellings and "max_tokens" in body:
            spelled["max_completion_tokens"] = body["max_tokens"]
        return spelled

    async def _counted(self, body: dict[str, Any]) -> Answer | Trouble:
        """Send one call as soon as the server's pause is over and the budget has room."""
        while (left := self._not_before - time.monotonic()) > 0 and not self.stopped.is_set():
            await self._pause(left)
        budget = self.backend.budget
        size = len(text_of(body).encode(errors="replace"))
        reserved = (size + self._turn_markers, body.get("max_tokens", body.get("max_completion_tokens", 1)))
        async with self._changed:
            while True:
                if self.stopped.is_set():
                    raise StoppedError
                if budget.reserve(*reserved):
                    break
                if not self._on_their_way:
                    raise BudgetSpent(
                        f"The budget is spent ({budget}; the next call could use {sum(reserved)} tokens). What was "
                        "answered before is kept: raise the cap and start again to continue."
                    )
                # Calls on their way were set aside at their upper bound and will give some of it back.
                await self._changed.wait()
            self._on_their_way += 1
        used = reserved
        try:
            outcome = await self._send(body)
            if isinstance(outcome, Trouble):
                used = reserved if outcome.billed else (0, 0)
            elif outcome.usage is not None:
                used = (outcome.usage.prompt, outcome.usage.generated)
                self._turn_markers = max(self._turn_markers, used[0] - size)
        finally:
            budget.settle(reserved, used)
            self._on_their_way -= 1
            async with self._changed:
                self._changed.notify_all()
        return outcome

    async def _send(self, body: dict[str, Any]) -> Answer | Trouble:
        """Send one call. Never raises an exception of the client."""
        api = self.client.chat.completions if self.backend.api == "chat" else self.client.completions
        create: Any = api.with_raw_response.create
        library = self._library
        asked = Asked(self.url, self.backend.api, self.backend.model, body, tuple(self.backend.extra), self.scrub)
        try:
            async with asyncio.timeout(self.backend.timeout):
                raw = await create(**body, extra_body=self.backend.extra or None)
            return self._of_one_model(answers.read(raw.content))
        except ServerError as error:
            return troubles.judge(error, error.status or 200, asked, inside=True)
        except MalformedError as error:
            return self._malformed(error)
        except NoLogprobsError as error:
            return Trouble(printable(self.scrub(str(error))), attempts=FEW, own=True)
        except (TimeoutError, library.APITimeoutError):
            return Trouble(f"no answer within {self.backend.timeout:g} s (--timeout)")
        except library.APIStatusError as error:
            return self._status(error.response, asked)
        except library.APIConnectionError as error:
            cause = type(error.__cause__).__name__
            # Texts of connection errors may quote a header; the kind says enough.
            sent = cause not in ("ConnectError", "ConnectTimeout")
            return Trouble(f"the connection failed ({causes(error)})", billed=sent, own=sent)
        # What its transport does not turn into errors of its own, such as a proxy's port beyond 65535.
        except (library.OpenAIError, ExceptionGroup, OSError, OverflowError) as error:
            return Trouble(f"the client failed ({type(error).__name__})")

    def _of_one_model(self, answer: Answer) -> Answer | Trouble:
        """Return an answer, unless another model gave it than those before: servers load others meanwhile."""
        before, self.backend.served = self.backend.served, answer.model or self.backend.served
        if before is None or answer.model in (None, before):
            return answer
        self.backend.served = before
        return troubles.stop(
            printable(self.scrub(f"as {answer.model!r}, and before as {before!r}")),
            "A recording holds the answers of one model: load that one again and run the same command, or record "
            "the other one apart, with --name",
            self.url,
        )

    def _malformed(self, error: MalformedError) -> Trouble:
        reason = printable(self.scrub(str(error)))
        if error.stays:
            hint = troubles.version_hint(self.url)
            return troubles.stop(reason, f"Check {ADDRESS}: no model answers there.{hint}", self.url)
        hint = troubles.version_hint(self.url)
        return Trouble(f"{reason}.{hint}" if hint else reason, attempts=FEW, own=True)

    def _status(self, response: Any, asked: Asked) -> Trouble:
        """Judge an answer by its status; a redirect is shown, not followed."""
        status, headers = int(response.status_code), response.headers
        if status in MOVED and (target := headers.get("location")):
            there = urljoin(str(response.request.url), target)
            name = "/chat/completions" if self.backend.api == "chat" else "/completions"
            base = without_password(there.partition("?")[0].rstrip("/").removesuffix(name))
            return troubles.stop(f"{status}, a redirect", f"Ask it there: {ADDRESS}={printable(base)}", self.url)
        content = bytes(response.content)
        error = answers.error_of(content)
        if error is None:
            page = content.lstrip().startswith(b"<")
            words = response.reason_phrase if page or not content.strip() else answers.excerpt(content)
            error = ServerError(words, None, "", "")
        return troubles.judge(error, status, asked, after=headers.get("retry-after"))

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.stopped.wait(), seconds)

    def scrub(self, text: str) -> str:
        """Take the key, and a password in the address, out of a text that a server wrote."""
        for secret in secrets(self.backend.address or ""):
            text = text.replace(secret, "[key]")
        return text


def causes(error: BaseException) -> str:
    """Return the kind of an error and of what set it off first: a certificate, a name, a refused connection."""
    found = [error]
    while (cause := found[-1].__cause__) is not None and cause not in found:
        found.append(cause)
    return ", ".join(dict.fromkeys(type(one).__name__ for one in (found[min(1, len(found) - 1)], found[-1])))


def text_of(body: dict[str, Any]) -> str:
    """Return the text of a call's prompt."""
    return body["prompt"] if "prompt" in body else "".join(message["content"] for message in body["messages"])


def estimated(text: str) -> int:
    """Return about how many tokens a text has, at four characters each."""
    return -(-len(text) // 4)


@contextmanager
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
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
