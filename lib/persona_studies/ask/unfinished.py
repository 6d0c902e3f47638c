"""What a recording lacks, and the command that goes on with it."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from persona_studies.ask import registry
from persona_studies.errors import BackendError, ResponsesError
from persona_studies.paths import Project


def to_record(project: Project, study: str, described: Mapping[str, Any], given: str) -> str:
    """Return the command that goes on with a recording.

    Args:
        described: What its ``record.json`` says.
        given: Parameters of the run that lacks responses.
    """
    facts = described["model"]
    model = facts["name"]
    known: Mapping[str, Any] = {}
    with contextlib.suppress(BackendError):  # a message must not fail for a damaged registry
        known = registry.load(project)
    own = {"llama.cpp": "gguf:FILE", "transformers": "hf:FOLDER", "openai-compatible": "openai:MODEL"}
    place = None if model in known else own.get(facts.get("backend", ""))
    flags = [f"--name {model}", *_of_endpoint(described)] if place else []
    if unfinished := described.get("unfinished"):
        given, again = "", str(unfinished.get("asked_with", ""))
        flags += [again] if again else []
    escaped = " ".join(flags).replace('"', '\\"')
    called = f"MODEL={place or model}" + (f' PARAMS="{given}"' if given else "")
    return f"make record STUDY={study} {called}" + (f' FLAGS="{escaped}"' if flags else "")


def _of_endpoint(described: Mapping[str, Any]) -> Iterator[str]:
    """Yield the options that an endpoint was asked with, without which the recording cannot go on."""
    chat = described["model"].get("chat", "")
    if described["model"].get("backend") != "openai-compatible":
        return
    if not chat.startswith("server"):
        yield f"--api completions --chat {'FILE' if chat.startswith('own') else chat}"
    elif "user turn" in chat:
        yield "--system-role user"
    settings = described.get("settings", {})
    if extra := settings.get("extra"):
        yield f"--extra {shlex.quote(json.dumps(extra))}"
    if "top_logprobs" in settings:
        yield f"--top-logprobs {settings['top_logprobs']}"


def incomplete(described: Mapping[str, Any]) -> str:
    """Say how much of its plan a recording that was packed in part holds; empty where it is complete.

    >>> incomplete({"unfinished": {"planned": {"agree": 10, "reply": 2}, "recorded": {"agree": 5, "reply": 0}}})
    'not complete, 5 of 12 planned cells have a response'
    >>> incomplete({"cells": 5})
    ''
    """
    counts = described.get("unfinished")
    if counts is None:
        return ""
    recorded, planned = (sum(counts[name].values()) for name in ("recorded", "planned"))
    return f"not complete, {recorded:,} of {planned:,} planned cells have a response"


def refusal(project: Project, study: str, described: Mapping[str, Any]) -> ResponsesError:
    """Return the refusal of a recording that was packed in part."""
    return ResponsesError(
        f"The recording of {described['model']['name']} for {study} is {incomplete(described)}. "
        f"To complete it: {to_record(project, study, described, '')}"
    )
