"""Read what an endpoint sent back, whatever it makes of the protocol.

Servers differ in form and in what they leave out: parts instead of a text, a stream of events instead of one
object, an error in an answer of status 200, usage of -1, an end by another name. Each of these is read for what it
says. What says nothing is an error with the server's own words, never an answer.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from persona_studies.ask.backends.endpoint.replies import reply
from persona_studies.ask.backends.endpoint.tokens import Position, positions, whole_number

LONGEST = 300
# Lines of a stream. A text may hold other characters that end a line, which `splitlines` knows.
LINE = re.compile(r"\r\n|\r|\n")
STOPPED = {
    "stop", "eos", "eos_token", "end_turn", "stop_sequence", "end", "complete", "completed", "done", "finish",
    "finished", "stop_str", "finish_reason_stop",
}  # fmt: skip
CUT = {
    "length", "max_tokens", "max_length", "max_output_tokens", "model_length", "max_new_tokens", "token_limit",
    "context_length", "finish_reason_max_tokens", "max_completion_tokens", "limit",
}  # fmt: skip
WITHHELD = {
    "content_filter", "content-filter", "safety", "recitation", "blocklist", "prohibited_content", "spii",
    "sensitive", "moderation", "refusal_filter", "image_safety",
}  # fmt: skip
BROKEN = {
    "error",
    "abort",
    "aborted",
    "cancelled",
    "canceled",
    "insufficient_system_resource",
    "timeout",
    "network_error",
}
REASONING = ("reasoning_content", "reasoning", "reasoning_text", "thinking", "thought", "reasoning_details")

Finish = Literal["stop", "length", "withheld", "tools", "broken", "unknown"]


class ServerError(Exception):
    """An error that the server reports in an answer of status 200.

    Attributes:
        words: What the server says.
        status: The status it names inside, where it names one.
        code: Its code, a word.
    """

    def __init__(self, words: str, status: int | None, code: str, blamed: str) -> None:
        super().__init__(words)
        self.words, self.status, self.code, self.blamed = words, status, code, blamed


class MalformedError(Exception):
    """An answer that lacks what was asked for.

    Attributes:
        stays: Whether asking again cannot help.
    """

    def __init__(self, reason: str, *, stays: bool = False) -> None:
        super().__init__(reason)
        self.stays = stays


class LackingError(MalformedError):
    """An answer without log-probabilities; the text says what helps where every answer is like that."""


@dataclass(frozen=True)
class Usage:
    """Tokens that the server counted."""

    prompt: int
    generated: int
    cached: int = 0

    @property
    def computed(self) -> int:
        return max(self.prompt - self.cached, 0) + self.generated


@dataclass(frozen=True)
class Answer:
    """An answer in one form.

    Attributes:
        text: What the model wrote, without its reasoning; None where the server gave no text at all.
        reasoning: Whether the model's reasoning stands beside it, or filled it.
        finish: Why it ended.
        ended: The server's word for that.
        tokens: Log-probabilities by position; None where the server gave none.
        usage: None where the server reports none, or numbers that cannot be.
        model: What the server calls the model that answered; None where it does not say.
    """

    text: str | None
    reasoning: bool
    finish: Finish
    ended: str
    tokens: tuple[Position, ...] | None
    usage: Usage | None
    model: str | None = None


def read(content: bytes) -> Answer:
    """Read the body of an answer.

    Raises:
        ServerError: it reports an error.
        MalformedError: it is no answer.
    """
    whole = _object(content)
    if (error := reported_error(whole)) is not None:
        raise error
    choice = _choice(whole)
    if (error := reported_error(choice, inside=True)) is not None:
        raise error
    said = choice.get("message") if isinstance(choice.get("message"), Mapping) else choice.get("delta")
    message: Mapping[str, Any] = said if isinstance(said, Mapping) else {}
    finish, ended = _finish(choice.get("finish_reason", choice.get("stop_reason")))
    text = _content(message.get("content"))
    # An empty content gives way to what stands elsewhere.
    for other in (choice.get("text"), message.get("refusal")):
        if isinstance(other, str) and not (text or "").strip():
            text = other if other.strip() or text is None else text
    reasoning = any(_says(said.get(name)) for said in (message, choice) for name in REASONING)
    if not message and "text" not in choice:
        raise MalformedError("an answer without a message or a text")
    if (message.get("tool_calls") or message.get("function_call")) and not text:
        finish = "tools"
    if text is not None:
        text, thought, ended_before = reply(text.encode(errors="replace").decode())
        reasoning = reasoning or thought
        finish = "stop" if ended_before else finish
    tokens = positions(choice.get("logprobs"), choice, whole)
    model = whole.get("model")
    named = model if isinstance(model, str) and model.strip() else None
    return Answer(text, reasoning, finish, ended, tokens, _usage(whole, choice), named)


def error_of(content: bytes) -> ServerError | None:
    """Return the error that a body reports, whatever the answer's status was."""
    try:
        return reported_error(_object(content))
    except MalformedError:
        return None


def reported_error(found: Mapping[str, Any], *, inside: bool = False) -> ServerError | None:
    """Return the error that an object reports in one of the usual forms.

    Args:
        found: The whole answer, or a choice.
        inside: Whether it is a choice, in which only ``error`` says so.
    """
    error = found.get("error")
    # Some gateways send an error without words, or one that says that there is none, beside every answer.
    if isinstance(error, Mapping) and found.get("choices") and not any(map(_wrong, error.values())):
        return None
    if not error and not inside and not found.get("choices"):
        # vLLM once, FastAPI, Mistral, gateways of several clouds. A message with a role is no error, but a reply in
        # another protocol.
        words = next((found[k] for k in ("message", "detail", "msg", "error_msg", "errors") if found.get(k)), None)
        if isinstance(words, Mapping) and "role" in words:
            return None
        if words is None and found.get("object") != "error":
            return None
        error = {**found, "message": words or "error"}
    if not error:
        return None
    facts: Mapping[str, Any] = error if isinstance(error, Mapping) else {"message": error}
    words = facts.get("message") or facts.get("detail") or facts.get("msg") or facts.get("error") or error
    metadata = facts.get("metadata")
    if isinstance(metadata, Mapping) and metadata.get("raw"):
        # OpenRouter keeps the provider's own words here.
        words = f"{words}: {metadata['raw']}"
    status = next((s for k in ("code", "status", "status_code") if (s := _status(facts.get(k))) is not None), None)
    if status is None:
        status = next((s for k in ("code", "status") if (s := _status(found.get(k))) is not None), None)
    code = next((str(facts[k]) for k in ("code", "type", "status") if isinstance(facts.get(k), str)), "")
    blamed = facts.get("param")
    text = words if isinstance(words, str) else json.dumps(words, default=str, ensure_ascii=False)
    return ServerError(text, status, code, blamed if isinstance(blamed, str) else "")


def excerpt(content: bytes) -> str:
    """Return the beginning of a body, for a message."""
    return content.decode(errors="replace").strip()[:LONGEST]


def _object(content: bytes) -> dict[str, Any]:
    text = _decoded(content).strip()
    if not text:
        raise MalformedError("an empty answer")
    if text.startswith(":"):
        # Comments keep a connection alive, before an answer that is no stream, too.
        lines = LINE.split(text)
        body = [line for line in lines if not line.startswith(":")]
        text = "\n".join(body).strip() if not any(line.startswith("data:") for line in body) else text
    if text.startswith("<"):
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.S | re.I)
        said = f" ({title.group(1).strip()})" if title else ""
        raise MalformedError(f"a page instead of JSON{said}", stays=True)
    if text.startswith(("data:", "event:", ":", "id:", "retry:")):
        return _joined(_events(text), ended="[DONE]" in text)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        lines = [line for line in LINE.split(text) if line.strip() and not line.startswith(":")]
        lines = [line for line in lines if line.replace(" ", "") != "data:[DONE]"]
        if len(lines) == 1 and lines != [text]:
            return _object(lines[0].encode())
        if len(lines) > 1 and all(line.lstrip().startswith("{") for line in lines):
            return _joined(_objects(lines))
        raise MalformedError(f"not JSON: {text[:LONGEST]}") from None
    # Gemini's interface puts an error into a list.
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, dict):
        raise MalformedError(f"JSON that is no object: {text[:LONGEST]}")
    return found


def _decoded(content: bytes) -> str:
    """Return a body as text. JSON is UTF-8; a few servers send UTF-16, which can be told by its zeros."""
    try:
        return content.decode(json.detect_encoding(content))
    except UnicodeDecodeError as error:
        raise MalformedError(f"bytes that are no text in UTF-8, at {error.start:,}: {excerpt(content)}") from None


def _events(text: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of a stream of server-sent events."""
    lines = [line.removeprefix("data:").strip() for line in LINE.split(text) if line.startswith("data:")]
    yield from _objects([line for line in lines if line and line != "[DONE]"])


def _objects(lines: list[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            raise MalformedError(f"a stream with something that is not JSON: {line[:LONGEST]}") from None
        if isinstance(found, dict):
            yield found


def _joined(chunks: Iterator[dict[str, Any]], *, ended: bool = False) -> dict[str, Any]:
    """Put the pieces of a streamed answer together, as if it had been sent in one.

    Args:
        chunks: The pieces.
        ended: Whether the stream says that it is whole; otherwise its last piece must.
    """
    whole: dict[str, Any] = {}
    message: dict[str, Any] = {}
    choice: dict[str, Any] = {}
    listed: list[Any] = []
    texts: dict[str, list[Any]] = {}
    for chunk in chunks:
        if (error := reported_error(chunk)) is not None:
            raise error
        whole |= {k: v for k, v in chunk.items() if v is not None and k != "choices"}
        for piece in _list(chunk.get("choices")):
            if not isinstance(piece, Mapping) or piece.get("index") not in (0, None):
                continue
            choice |= {k: v for k, v in piece.items() if v is not None and k not in ("delta", "text", "logprobs")}
            if isinstance(logprobs := piece.get("logprobs"), Mapping):
                listed.append(logprobs)
            if isinstance(piece.get("text"), str):
                choice["text"] = choice.get("text", "") + piece["text"]
            said = piece.get("delta") or piece.get("message")
            for key, value in (said if isinstance(said, Mapping) else {"content": said}).items():
                if key == "content" and value is not None:
                    texts.setdefault("content", []).append(_content(value) or "")
                elif value is not None:
                    message[key] = value
    if not choice and not message and not texts:
        raise MalformedError("a stream without an answer")
    if not (ended or choice.get("finish_reason") or choice.get("stop_reason")):
        raise MalformedError("a stream that breaks off")
    if message or texts:
        choice["message"] = message | {key: "".join(parts) for key, parts in texts.items()}
    if listed:
        choice["logprobs"] = {
            key: [entry for part in listed for entry in _list(part.get(key))]
            for key in ("content", "tokens", "token_logprobs", "top_logprobs")
            if any(isinstance(part.get(key), list) for part in listed)
        }
    return whole | {"choices": [choice]}


def _list(found: Any) -> list[Any]:
    return found if isinstance(found, list) else []


def _choice(whole: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = whole.get("choices")
    if isinstance(choices, Mapping):
        choices = [choices]
    if not (isinstance(choices, list) and choices and isinstance(choices[0], Mapping)):
        said = json.dumps(whole, default=str, ensure_ascii=False)[:LONGEST]
        raise MalformedError(f"an answer without choices: {said}")
    # Of several, the first is the answer, wherever in the list it stands.
    mappings = [choice for choice in choices if isinstance(choice, Mapping)]
    first: Mapping[str, Any] = next((choice for choice in mappings if choice.get("index") == 0), mappings[0])
    return first


def _content(found: Any) -> str | None:
    """Return a content as text: a text, a part, or a list of parts. Parts of reasoning are no text."""
    if isinstance(found, str):
        return found
    if isinstance(found, Mapping):
        kind = str(found.get("type", "text"))
        if kind in ("thinking", "reasoning", "redacted_thinking", "thought"):
            return None
        known = ("text", "value", "content", "output_text", "refusal")
        inner = next((found[key] for key in known if key in found), None)
        return _content(inner)
    if isinstance(found, list):
        texts = [text for part in found if (text := _content(part)) is not None]
        return "".join(texts) if texts else None
    return None


def _says(found: Any) -> bool:
    """Return whether a field of reasoning holds any."""
    return bool(found.strip() if isinstance(found, str) else found)


def _wrong(found: Any) -> bool:
    """Return whether a field of an error says that something went wrong."""
    return bool(found) and str(found).strip().lower() not in ("0", "ok", "success", "none", "null", "200")


def _finish(found: Any) -> tuple[Finish, str]:
    if isinstance(found, Mapping):
        found = found.get("type") or found.get("reason")
    word = str(found) if found not in (None, "") else ""
    plain = word.lower().rpartition(".")[2]
    known: list[tuple[Finish, set[str]]] = [
        ("stop", STOPPED),
        ("length", CUT),
        ("withheld", WITHHELD),
        ("broken", BROKEN),
        ("tools", {"tool_calls", "function_call", "tool_use"}),
    ]
    return next((name for name, words in known if plain in words), "unknown"), word


def _usage(whole: Mapping[str, Any], choice: Mapping[str, Any]) -> Usage | None:
    """Return the usage, or None where it is missing or cannot be: -1, nothing for a prompt, no number."""
    found = whole.get("usage")
    if not isinstance(found, Mapping):
        vendor = whole.get("x_groq")
        found = vendor.get("usage") if isinstance(vendor, Mapping) else choice.get("usage")
    if not isinstance(found, Mapping):
        return None
    prompt = whole_number(found.get("prompt_tokens", found.get("input_tokens")))
    generated = whole_number(found.get("completion_tokens", found.get("output_tokens", 0)))
    if not prompt or generated is None:
        return None
    details = found.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else found.get("prompt_cache_hit_tokens")
    return Usage(prompt, generated, min(whole_number(cached) or 0, prompt))


def _status(found: Any) -> int | None:
    """Return a number that can be the status of an error."""
    if isinstance(found, str) and found.isdecimal():
        found = int(found)
    is_number = isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
    return int(found) if is_number and 400 <= found < 600 else None
