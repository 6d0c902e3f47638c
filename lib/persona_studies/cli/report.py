"""The command ``persona-studies report``: a model's report card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona_studies.cli import flags
from persona_studies.cli.record import budget_of, telling
from persona_studies.cli.shared import say, short
from persona_studies.errors import BackendError, ParameterError, ResponsesError
from persona_studies.paths import Project

if TYPE_CHECKING:
    from persona_studies.ask.backends import Backend
    from persona_studies.publish.report_card import Part

Model = Annotated[
    str, typer.Argument(help="Of data/models.toml, a GGUF file, hf:OWNER/NAME@REVISION, or openai:MODEL.")
]
Quick = Annotated[bool, typer.Option("--quick", help="A first answer in at most 400 cells.")]
Cells = Annotated[int | None, typer.Option(min=1, help="Ask at most so many cells now.")]
Hours = Annotated[
    float | None, typer.Option(min=0, help="Stop after so many hours; 1, unless --quick or --cells is given.")
]


def report(
    model: Model,
    quick: Quick = False,
    cells: Cells = None,
    hours: Hours = None,
    dry_run: flags.DryRun = False,
    name: flags.Name = None,
    precision: flags.Precision = None,
    workers: flags.Workers = None,
    threads: flags.Threads = None,
    api: flags.Api = None,
    chat: flags.Chat = None,
    revision: flags.Revision = None,
    concurrency: flags.Concurrency = None,
    system_role: flags.SystemRole = None,
    measures: flags.Measures = None,
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
    """Record what is missing of all model studies for one model, and write what personas do to it on one page.

    Interrupted at any moment, or stopped at a cap, the same command goes on. The page is
    runs/report/<model>/index.html, its numbers are in numbers.csv beside it.
    """
    from persona_studies.ask import models, options

    project = Project.find()
    if quick and cells is not None:
        raise ParameterError("--quick says how many cells are asked; leave --cells out, or --quick.")
    models.checked(project, model, name)
    budget = budget_of(model, max_calls, max_tokens, max_money, price_in, price_out)
    only: dict[str, Any] = {"api": api, "revision": revision, "system_role": system_role, "timeout": timeout}
    only |= {"concurrency": concurrency, "retries": retries, "top_logprobs": top_logprobs}
    endpoint = options.endpoint(model, budget, extra, chat, only, {"precision": precision})
    load = {"name": name, "endpoint": endpoint, "threads": threads or 1, "precision": precision, "chat": chat}
    if hours is None and cells is None and not quick:
        hours = 1.0
    processes = {"workers": workers, "threads": threads}
    with telling(budget):
        _report(project, model, load, processes, measures, quick=quick, cells=cells, hours=hours, dry_run=dry_run)


def _report(
    project: Project,
    model: str,
    load: Mapping[str, Any],
    processes: Mapping[str, Any],
    measures: str | None,
    *,
    quick: bool,
    cells: int | None,
    hours: float | None,
    dry_run: bool,
) -> None:
    """Estimate, record, and write the page."""
    from persona_studies.ask import recorded
    from persona_studies.publish import report_card, report_page

    found = report_card.of_kinds(report_card.parts(project, say), measures)
    askers = report_card.askers(project, found, model, load)
    infos = {study: asker.info for study, asker in askers.items()}
    name = infos[found[0].study].name
    found, notes = report_card.answerable(found, askers[found[0].study], say)
    notes += [f"Asked by choice: {measures} only."] if measures else []
    found = report_card.quick(found) if quick else found
    left = report_card.to_ask(project, found, infos, cells)
    total, to_go = sum(len(part.plan) for part in found), sum(len(part.plan) for part in left)
    say(f"{name}: {total:,} cells of {len(found)} studies, {to_go:,} to ask now")
    numbers: Mapping[int, int] = {}
    if left:
        numbers = report_card.wanted(left, askers, **processes)
        _estimate(project, left, askers, numbers)
    stopped, served = None, getattr(askers[found[0].study], "served", None)
    broken: BackendError | None = None
    if not dry_run:
        askers = report_card.spread(project, askers, model, load, numbers)
        stopped, broken = _recorded(project, left, askers, hours)
    for asker in {id(asker): asker for asker in askers.values()}.values():
        asker.close()
    if dry_run:
        return
    rows = {part.study: recorded.answers(project, part.study, infos[part.study]) for part in found}
    mine = report_card.card(project, found, name, rows)
    if mine.numbers.empty:
        raise broken or ResponsesError(
            f"Nothing can be said of {name} yet: no cell is answered in all option orders. The same command goes "
            "on; give it a larger cap."
        )
    looks = report_card.looks(project, found, infos)
    cards = [mine, *report_card.others(project, found, mine, say)]
    notes = [*looks, *notes, *([f"The recording broke off: {broken}"] if broken else [])]
    page = report_page.write(project, found, cards, infos, quick=quick, notes=notes, served=served)
    for note in looks:
        say(note)
    if stopped:
        say(f"Stopped at {stopped}.")
    sound = {study: table[table["finish"] != "failed"] for study, table in rows.items()}
    if rest := sum(int((~report_card.answered(part.plan, sound[part.study])).sum()) for part in found):
        say(f"{rest:,} of {total:,} cells have no answer yet; the same command goes on.")
    say(f"{name}: the card is {short(project, page)}, its numbers are in numbers.csv beside it")
    if broken:
        raise broken


def _recorded(
    project: Project, left: Sequence[Part], askers: Mapping[str, Backend], hours: float | None
) -> tuple[str | None, BackendError | None]:
    """Record; return the cap that stopped it, and the error that broke it off."""
    from persona_studies.publish import report_card

    try:
        stopped, failed = report_card.record(project, left, askers, hours)
    except BackendError as error:
        # A server that died or a spent quota: what was answered until then is kept, and is worth its card.
        return None, error
    if failed:
        say(f"{failed:,} cells failed, and are asked again by the same command.")
    return stopped, None


def _estimate(
    project: Project, left: Sequence[Part], askers: Mapping[str, Backend], numbers: Mapping[int, int]
) -> None:
    """Say what the recording takes: cells, tokens, time and money; one that may not go on is refused first."""
    import pandas as pd

    from persona_studies.ask import recording
    from persona_studies.ask.estimate import estimate, summary
    from persona_studies.publish import report_card

    by_asker: dict[int, list[Part]] = {}
    for part in left:
        recording.check_sitting(project, part.study, part.plan, askers[part.study])
        by_asker.setdefault(id(askers[part.study]), []).append(part)
    tables = [estimate(report_card.by_kind(mine), askers[mine[0].study], say) for mine in by_asker.values()]
    table = pd.concat(tables, ignore_index=True)
    shown = table.drop(columns="money").rename(columns={"measure": "kind"})
    say(shown.to_string(index=False, float_format=lambda x: f"{x:.3f}"))
    say(summary(table, max(numbers.values())))
