"""A local endpoint that speaks the OpenAI protocol and, when told to, misbehaves.

Behind it is no model: numbers are drawn from the texts by a checksum, so that a test knows them. It stands in
for the network, and nothing it answers is ever shown as measured.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.request import Request, urlopen

from persona_studies.ask.backends.openai_compatible import OpenAICompatible
from persona_studies.ask.chat import CHATML

UPSTREAM_SECONDS = 600
# The key that clients are given, which may show nowhere.
CANARY = "sk-canary-0123456789"

Body = dict[str, Any]


def tokens_of(text: str) -> list[str]:
    """Split as a byte-level tokeniser would: turn markers, words with the space before them, marks, line ends."""
    return re.findall(r"<\|\w+\|>|\n| ?\w+| ?[^\w\s]| +", text)


def logprob_of(before: str, token: str) -> float:
    """Return a number between -4 and -1 that depends on the token and what is before it."""
    return -1 - zlib.crc32(f"{before}|{token}".encode()) % 3000 / 1000


def prompt_of(body: Body) -> str:
    if "prompt" in body:
        return str(body["prompt"])
    return "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in body["messages"])


@dataclass(repr=False)
class Server:
    """Start with ``with``; ``behave`` chooses what happens to a call.

    Attributes:
        behave: ``(body, how often this very body was sent before)`` -> name of a behaviour; ``ok`` answers.
        labels: Tokens that a first position lists, with their log-probabilities.
        delay: Seconds that a call takes, by its body.
        echo: Whether prompts come back with log-probabilities: ``yes``, ``no``, ``shifted`` (by one place) or
            ``begin`` (a begin-of-text token first, counted in the offsets).
        upstream: Address of a server that has a model; what is answered is its answer then.
        calls, tokens, most_in_flight, bodies, keys: What the server saw.
    """

    behave: Callable[[Body, int], str] = lambda body, before: "ok"
    labels: dict[str, float] = field(default_factory=lambda: {"A": -0.5, "B": -1.5, " C": -2.5})
    delay: Callable[[Body], float] = lambda body: 0.0
    echo: str = "yes"
    key: str | None = None
    upstream: str | None = None
    calls: int = 0
    tokens: int = 0
    most_in_flight: int = 0
    bodies: list[Body] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    _in_flight: int = 0

    def __enter__(self) -> Server:
        self._lock = threading.Lock()
        self._seen: dict[str, int] = {}
        self.released = threading.Event()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._http = _Listener(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.released.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def enter(self, body: Body, key: str) -> str:
        with self._lock:
            text = json.dumps(body, sort_keys=True)
            before = self._seen.get(text, 0)
            self._seen[text] = before + 1
            self.calls += 1
            self.bodies.append(body)
            self.times.append(time.monotonic())
            self.keys.append(key)
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
        return self.behave(body, before)

    def leave(self) -> None:
        with self._lock:
            self._in_flight -= 1

    def bill(self, n_tokens: int) -> None:
        with self._lock:
            self.tokens += n_tokens


class _Listener(ThreadingHTTPServer):
    # With the usual five, clients that connect at the same moment are turned away.
    request_queue_size = 256


class _Handler(BaseHTTPRequestHandler):
    owner: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers.get("Authorization", "")
        behaviour = self.owner.enter(body, key)
        left = False

        def leave() -> None:
            nonlocal left
            if not left:
                left = True
                self.owner.leave()

        try:
            self.owner.released.wait(self.owner.delay(body))
            self._act(behaviour, body, key, leave)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            leave()

    def _act(self, behaviour: str, body: Body, key: str, leave: Callable[[], None]) -> None:
        name, _, value = behaviour.partition(":")
        if name == "status":
            status, _, message = value.partition(" ")
            error = {"message": message or "no", "code": None, "param": None}
            return self._send({"error": error}, leave, status=int(status))
        if name == "error":
            status, _, rest = value.partition(" ")
            return self._send({"error": json.loads(rest)}, leave, status=int(status))
        if name == "page":
            return self._send_raw(b"<html>Bad gateway</html>", leave, status=int(value))
        if name == "leak":
            # A careless proxy that shows what it was sent.
            return self._send({"error": {"message": f"headers: {key} \x1b[31m"}}, leave, status=int(value))
        if name == "wait":
            return self._send({"error": {"message": "slow down"}}, leave, status=429, after=value)
        if name == "wait-date":
            return self._send(
                {"error": {"message": "slow down"}},
                leave,
                status=503,
                after=formatdate(time.time() + float(value), usegmt=True),
            )
        if name == "gzip":
            # Says that it is packed, and is not.
            return self._send_raw(value.encode(), leave, packed=True)
        if name == "raw":
            # Whatever is written behind the colon, as it is.
            return self._send_raw(value.encode(errors="surrogatepass"), leave)
        if name == "moved":
            self.send_response(307)
            self.send_header("Location", value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        if name == "slow":
            self.owner.released.wait(float(value))
            return None
        if name == "trickle":
            # Every byte comes in time, the answer does not.
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            for _ in range(1000):
                self.wfile.write(b" ")
                self.wfile.flush()
                if self.owner.released.wait(0.02):
                    break
            return None
        if name == "disconnect":
            self.close_connection = True
            return None
        if self.owner.upstream is not None:
            whole = self._passed_on(self.owner.upstream, body)
        else:
            whole = json.dumps(answer(self.owner, body, name)).encode()
        if name == "truncated":
            return self._send_raw(whole[: len(whole) // 2], leave)
        if name == "cut":
            # The connection ends before the promised length.
            self.send_response(200)
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            self.wfile.write(whole[: len(whole) // 2])
            self.wfile.flush()
            self.close_connection = True
            return None
        return self._send_raw(whole, leave)

    def _passed_on(self, upstream: str, body: Body) -> bytes:
        """Return what the server with the model answers."""
        address = f"{upstream}{self.path.removeprefix('/v1')}"
        call = Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urlopen(call, timeout=UPSTREAM_SECONDS) as found:
            whole: bytes = found.read()
        return whole

    def _send(
        self, content: Body, leave: Callable[[], None], *, status: int = 200, after: str | None = None
    ) -> None:
        self._send_raw(json.dumps(content).encode(), leave, status=status, after=after)

    def _send_raw(
        self,
        content: bytes,
        leave: Callable[[], None],
        *,
        status: int = 200,
        after: str | None = None,
        packed: bool = False,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if after is not None:
            self.send_header("Retry-After", after)
        if packed:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        # The client may send its next call as soon as it has this answer.
        leave()
        self.wfile.write(content)
        self.wfile.flush()


def answer(server: Server, body: Body, name: str) -> Body:
    """Return what an endpoint would answer, spoilt as ``name`` says."""
    if name == "schema":
        return {"choices": [{"index": 0, "finish_reason": "stop", "logprobs": {"content": [{"token": 3}]}}]}
    if name == "empty":
        return {"choices": []}
    prompt = prompt_of(body)
    listed = tokens_of(prompt)
    labels = dict(server.labels)
    if name == "missing-label":
        labels.pop("B", None)
    entries = list(labels.items())
    if name == "variants":
        entries = [("A", -0.5), ("A", -0.5), (" A", -2.0), ("B", -1.5), ("a", -3.0), ("B.", -3.5)]
    if name == "very-unlikely":
        entries = [("A", -0.1), ("B", -9999.0), (" C", -math.inf)]
    if name == "positive":
        entries = [("A", 0.7), ("B", -1.0)]
    wants_text = not body.get("logprobs")
    text = f"Answer {zlib.crc32(prompt.encode()) % 1000}" if wants_text else entries[0][0].strip()
    if name == "surrogate":
        text = "half \ud800 a pair"
    finish = {"filtered": "content_filter", "tools": "tool_calls"}.get(name, "stop" if wants_text else "length")
    generated = len(tokens_of(text))
    choice: Body = {"index": 0, "finish_reason": finish}
    if "messages" in body:
        choice["message"] = {"role": "assistant", "content": None if name == "tools" else text}
        listing = [{"token": t, "logprob": lp, "bytes": None} for t, lp in entries]
        choice["logprobs"] = None if wants_text else {"content": [listing[0] | {"top_logprobs": listing}]}
        if name == "no-logprobs":
            choice["logprobs"] = None
        if name == "end-at-once":
            choice |= {"finish_reason": "stop", "logprobs": {"content": []}}
    else:
        choice |= {"text": text, "logprobs": None}
        if not wants_text:
            choice["logprobs"] = {"tokens": [text], "token_logprobs": [-0.5], "top_logprobs": [dict(entries)]}
            choice["logprobs"]["text_offset"] = [len(prompt)]
        if name == "server-form":
            listing = [{"token": t, "logprob": lp} for t, lp in entries]
            choice["logprobs"] = {"content": [listing[0] | {"top_logprobs": listing}]}
        if body.get("echo") or body.get("logprobs") == 5:
            choice |= _echoed(server, body, prompt)
    usage = {"prompt_tokens": len(listed), "completion_tokens": generated}
    server.bill(sum(usage.values()))
    if name == "cached":
        usage["prompt_tokens_details"] = {"cached_tokens": len(listed) - 1}  # type: ignore[assignment]
    return {"model": body.get("model"), "choices": [choice]} | ({} if name == "no-usage" else {"usage": usage})


def _echoed(server: Server, body: Body, prompt: str) -> Body:
    """Score every token of a prompt, and the one that follows it."""
    listed = [*tokens_of(prompt), " next"]
    before = ["".join(listed[:i]) for i in range(len(listed))]
    values: list[float | None] = [logprob_of(b, t) for b, t in zip(before, listed, strict=True)]
    tops: list[Any] = [
        {f"~{zlib.crc32(b.encode())}": -0.3, t: v} for b, t, v in zip(before, listed, values, strict=True)
    ]
    offsets = list(map(len, before))
    if not body.get("echo") or server.echo == "no":
        listed, values, tops, offsets = listed[-1:], values[-1:], tops[-1:], offsets[-1:]
        text = listed[0]
    else:
        text = prompt + listed[-1]
        if server.echo == "shifted":
            values, tops = [*values[1:], -0.5], [*tops[1:], {"x": -0.5}]
        if server.echo == "begin":
            listed = ["<s>", *listed]
            values, tops, offsets = [None, *values], [None, *tops], [0, *(o + 3 for o in offsets)]
        values[0] = tops[0] = None
    logprobs = {"tokens": listed, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}
    return {"text": text, "logprobs": logprobs}


def in_turn(*behaviours: str) -> Callable[[Body, int], str]:
    """Return a ``behave`` that does this to a body the first time, that the second time, then answers."""
    return lambda body, before: behaviours[before] if before < len(behaviours) else "ok"


def always(behaviour: str) -> Callable[[Body, int], str]:
    return lambda body, before: behaviour


def by_text(rules: Iterable[tuple[str, str]]) -> Callable[[Body, int], str]:
    """Return a ``behave`` for prompts that contain a text."""
    found = list(rules)
    return lambda body, before: next((what for text, what in found if text in prompt_of(body)), "ok")


def backend(server: Server, **how: Any) -> OpenAICompatible:
    if how.get("api") == "completions":
        how = {"chat": CHATML} | how
    return OpenAICompatible(**({"name": "toy", "model": "toy-1", "base_url": server.url, "timeout": 20} | how))
