"""What a recording lacks, and the command that goes on with it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from persona_studies.ask import registry
from persona_studies.errors import BackendError, ResponsesError
from persona_studies.paths import Project


def to_record(project: Project, study: str, described: Mapping[str, Any], given: str) -> str:
    """Return the command that goes on with a recording.

    Args:
        project: Holds the registry of models.
        study: Name of the study.
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
    flags = [f"--name {model}"] if place else []
    if unfinished := described.get("unfinished"):
        given, again = "", str(unfinished.get("asked_with", ""))
        flags += [again] if again else []
    called = f"MODEL={place or model}" + (f' PARAMS="{given}"' if given else "")
    return f"make record STUDY={study} {called}" + (f' FLAGS="{" ".join(flags)}"' if flags else "")


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
