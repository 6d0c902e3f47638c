"""Render a model's own chat template in a process of its own.

A template is a program that came with a model file. It runs in jinja2's immutable sandbox, as transformers runs
it, and in a process with a limit on time, memory and output, because a sandbox does not end a loop.

This file is also the script of that process, so it imports nothing of the package.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

# Templates that write today's date are given this one, so that a recording does not depend on its day.
DATE = datetime.datetime(2025, 1, 1)
SECONDS = 10
CHARACTERS = 1_000_000
MEMORY = 1 << 30


@dataclass(frozen=True)
class Rendering:
    """What a template made of a conversation.

    Attributes:
        text: The prompt; None when there is none.
        problem: Why there is none.
    """

    text: str | None
    problem: str = ""


def render(
    source: str,
    conversations: Sequence[Mapping[str, Any]],
    variables: Mapping[str, Any],
    *,
    day: datetime.datetime = DATE,
    seconds: float = SECONDS,
) -> list[Rendering]:
    """Render conversations with a template.

    Args:
        source: The template (Jinja).
        conversations: Variables of each rendering, ``messages`` among them.
        variables: Variables of all renderings, such as ``bos_token``.
        day: The date that the template is told.
        seconds: Time for all renderings together.

    Raises:
        ValueError: the template is not valid Jinja, or does not end within ``seconds``.
    """
    task = {
        "source": source,
        "conversations": list(conversations),
        "variables": dict(variables),
        "day": day.isoformat(),
        "seconds": seconds,
    }
    # -P: this folder is not a place to import modules from.
    command = [sys.executable, "-P", str(Path(__file__))]
    try:
        done = subprocess.run(
            command, input=json.dumps(task).encode(), capture_output=True, timeout=seconds + 20, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"it does not end within {seconds:g} seconds") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise ValueError(
            f"it does not end within {seconds:g} seconds"
            if done.returncode in (-9, -24)
            else f"it stops its process ({lines[-1] if lines else f'code {done.returncode}'})"
        )
    answer = json.loads(done.stdout)
    if "problem" in answer:
        raise ValueError(answer["problem"])
    return [Rendering(**one) for one in answer["renderings"]]


class _RefusalError(jinja2.TemplateError):
    """The template called ``raise_exception``."""


class _Generation(Extension):
    """``{% generation %}`` marks what a model said; the text is the same."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment(day: datetime.datetime) -> ImmutableSandboxedEnvironment:
    """Return an environment with what transformers gives to templates."""

    def refuse(message: str = "") -> None:
        raise _RefusalError(str(message))

    def as_json(value: Any, ensure_ascii: bool = False, **how: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **how)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = as_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = day.strftime
    return environment


def _rendered(template: jinja2.Template, given: Mapping[str, Any], until: float) -> dict[str, Any]:
    pieces, length = [], 0
    try:
        for piece in template.generate(**given):
            length += len(piece)
            if length > CHARACTERS:
                return {"text": None, "problem": f"it writes more than {CHARACTERS:,} characters"}
            if time.monotonic() > until:
                return {"text": None, "problem": "it does not end"}
            pieces.append(piece)
    except _RefusalError as error:
        return {"text": None, "problem": f"it says: {error}"}
    except MemoryError:
        return {"text": None, "problem": f"it needs more than {MEMORY >> 20:,} MB"}
    except RecursionError:
        return {"text": None, "problem": "it calls itself without end"}
    except Exception as error:  # What a foreign program can set off has no common class.
        return {"text": None, "problem": f"{type(error).__name__}: {error}"[:500]}
    return {"text": "".join(pieces)}


def _main() -> None:
    task = json.load(sys.stdin)
    try:
        import resource

        for limit, most in ((resource.RLIMIT_CPU, int(task["seconds"]) + 1), (resource.RLIMIT_AS, MEMORY)):
            resource.setrlimit(limit, (most, most))
    except (ImportError, ValueError, OSError):
        pass  # Not every system has such limits; the parent's timeout is everywhere.
    until = time.monotonic() + task["seconds"]
    try:
        template = _environment(datetime.datetime.fromisoformat(task["day"])).from_string(task["source"])
    except jinja2.TemplateSyntaxError as error:
        answer: dict[str, Any] = {"problem": f"line {error.lineno}: {error.message}"}
    except (RecursionError, MemoryError, ValueError) as error:
        answer = {"problem": f"it cannot be read ({type(error).__name__})"}
    else:
        answer = {
            "renderings": [
                _rendered(template, {**task["variables"], **one}, until) for one in task["conversations"]
            ]
        }
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    _main()
