"""The command ``persona-studies record``: ask a model every cell of a study's plan."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from persona_studies.cli import flags
from persona_studies.cli.shared import given, planned, say, shard_of, short
from persona_studies.errors import ParameterError
from persona_studies.paths import Project

if TYPE_CHECKING:
    import pandas as pd

    from persona_studies.ask.backends import Backend
    from persona_studies.ask.backends.endpoint.budget import Budget
    from persona_studies.ask.recording import Progress


def record(
    study: flags.Study,
    model: flags.Model = "smollm2-135m-instruct",
    parameter: flags.Assignments = None,
    params: flags.Together = "",
    dry_run: flags.DryRun = False,
    shard: flags.Shard = "1/1",
    sample: flags.Sample = None,
    limit: flags.Limit = None,
    hours: flags.Hours = None,
    cells: flags.Cells = None,
    out: flags.Out = None,
    name: flags.Name = None,
    backend: flags.Runtime = None,
    schedule: flags.Schedule = None,
    precision: flags.Precision = None,
    workers: flags.Workers = None,
    threads: flags.Threads = None,
    api: flags.Api = None,
    chat: flags.Chat = None,
    revision: flags.Revision = None,
    concurrency: flags.Concurrency = None,
    system_role: flags.SystemRole = None,
    measures: flags.Measures = None,
    reask: flags.Reask = "failed",
    timeout: flags.Timeout = None,
    retries: flags.Retries = None,
    top_logprobs: flags.TopLogprobs = None,
    extra: flags.Extra = None,
    max_calls: flags.MaxCalls = None,
    max_tokens: flags.MaxTokens = None,
    max_money: flags.MaxMoney = None,
    price_in: flags.PriceIn = 0.0,
    price_out: flags.PriceOut = 0.0,
) -> None:
    """Ask a model every cell of a study's plan. Interrupted at any moment, it continues where it stopped.

    Exit code 0: every cell of this share has an answer. 1: some have none yet; the same command goes on.
    """
    from persona_studies.ask import models, options, recording

    project, part, again = Project.find(), shard_of(shard), options.asks_again(reask)
    budget = budget_of(model, max_calls, max_tokens, max_money, price_in, price_out)
    only: dict[str, Any] = {"api": api, "revision": revision, "system_role": system_role, "timeout": timeout}
    only |= {"concurrency": concurrency, "retries": retries, "top_logprobs": top_logprobs}
    how: dict[str, Any] = {"backend": backend, "precision": precision, "schedule": schedule}
    endpoint = options.endpoint(model, budget, extra, chat, only, how)
    say(f"{study}: planning its cells, then reaching {models.checked(project, model, name)}")
    asked = planned(project, study, given(parameter, params), cells)
    how |= {"threads": threads or 1, "chat": chat}
    kept: dict[str, Any] = {"out": out, "reask": again}
    shares = {"workers": workers, "threads": threads, "shards": part[1]}
    with telling(budget):
        asker = recording.load(project, study, model, name=name, out=out, endpoint=endpoint, **how)
        asked = options.answerable(asked, asker, measures, say, sample)
        number = _estimated(project, study, asker, asked, limit, kept, **shares)
        if not dry_run:
            asker = _in_processes(project, model, asker, number, how)
            done = recording.record(project, study, asked, asker, shard=part, limit=limit, hours=hours, **kept)
            _ended(project, study, asked, asker, done, **kept)


def budget_of(model: str, *caps: Any) -> Budget | None:
    """Return the caps on what an endpoint may cost; None for a model that is not an endpoint.

    Raises:
        ParameterError: a cap or a price for such a model.
    """
    if not model.startswith("openai:"):
        if any(caps):
            raise ParameterError(f"A cap or a price goes with an endpoint, --model openai:MODEL; {model} is none.")
        return None
    from persona_studies.ask.backends.openai_compatible import Budget

    return Budget(*caps)


@contextmanager
def telling(budget: Budget | None) -> Iterator[None]:
    """Print at the end, whatever ended it, what an endpoint has used."""
    try:
        yield
    finally:
        if budget is not None and (used := budget.spent).calls:
            tokens = used.tokens_in + used.tokens_out
            say(f"Spent: {used.calls:,} calls, {tokens:,} tokens, {used.money:.4f} in money")


def _estimated(
    project: Project,
    study: str,
    asker: Backend,
    asked: pd.DataFrame,
    limit: int | None,
    kept: dict[str, Any],
    **how: Any,
) -> int:
    """Print what is to be asked and how long it takes; return how many processes serve it."""
    from persona_studies.ask import recording
    from persona_studies.ask import workers as processes
    from persona_studies.ask.estimate import estimate, summary

    recording.check_sitting(project, study, asked, asker, kept["out"])
    left = recording.pending(project, study, asked, asker.info, **kept)
    there = len(asked) - len(left)
    say(f"{study}, {asker.info.name}: {len(asked):,} cells planned, {there:,} recorded, {len(left):,} to go")
    if left.empty:
        return 1
    # Before anything is timed, which would count as a core that is not idle.
    number = processes.wanted(asker, cells=min(len(left), limit or len(left)), **how)
    table = estimate(left, asker, say)
    say(table.drop(columns="money").to_string(index=False, float_format=lambda x: f"{x:.3f}"))
    say(summary(table, how["shards"] * number))
    return number


def _in_processes(project: Project, model: str, asker: Backend, number: int, how: dict[str, Any]) -> Backend:
    """Return a model in so many processes; the model itself for one."""
    from persona_studies.ask import models
    from persona_studies.ask import workers as processes

    load = partial(models.load, project, model, name=asker.info.name, recorded=asdict(asker.info), **how)
    return processes.Workers(asker, load, number) if number > 1 else asker


def _ended(
    project: Project,
    study: str,
    asked: pd.DataFrame,
    asker: Backend,
    done: Progress,
    *,
    out: Path | None,
    reask: bool,
) -> None:
    """Let go of the model, print what this sitting came to, and pack; exit with code 1 where cells are left."""
    from persona_studies.ask import packing

    asker.close()
    if done.failed:
        stay = "are asked again by the same command; --reask never leaves them failed" if reask else "stay failed"
        say(f"{done.failed:,} cells failed, and {stay}.")
    if done.stopped:
        say(f"Stopped at {done.stopped}.")
    if done.mine:
        say(f"{done.recorded:,} of {done.planned:,} cells recorded; run the same command to go on.")
        raise typer.Exit(1)
    if out is not None:
        say(f"This share is complete; take it in with: persona-studies import {out}")
    elif done.complete:
        say(f"complete: {short(project, packing.pack(project, study, asked, asker.info.name, failed=not reask))}")
    else:
        say(f"This share is complete; {done.planned - done.recorded:,} cells are with other shares.")
