"""The command line: ``persona-studies run | sweep | grid | verify | accept | plan | record | import | ...``."""

from __future__ import annotations

import errno
import shlex
import signal
import sys
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona_studies.errors import ParameterError, PersonaStudiesError, quoted, visible
from persona_studies.paths import Project

if TYPE_CHECKING:
    from persona_studies.reproduce.runs import Run
    from persona_studies.reproduce.verify import Report

# Everything else is imported where it is used: `--help` and an up-to-date `run` must answer at once.

# What a full or a closed disk says; other errors of the system are faults of this program.
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO}

app = typer.Typer(
    name="persona-studies",
    help="Run studies of personas in language models, and check what they find against the committed reference.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Studies = Annotated[list[str] | None, typer.Argument(help="Names of studies; all when none is given.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="A parameter; may be repeated."),
]
Version = Annotated[
    int,
    typer.Option(
        "--protocol", min=1, help="Version of the declared design; the sizes of later ones stand in them."
    ),
]
Together = Annotated[
    str, typer.Option("--params", metavar='"NAME=VALUE ..."', help="Several parameters, separated by blanks.")
]

Grid = Annotated[
    str,
    typer.Option(
        "--grid",
        metavar='"NAME=A,B ..."',
        help="Choices of each parameter, separated by commas; by bars where the parameter is a list.",
    ),
]


@app.command()
def run(
    studies: Studies = None,
    parameter: Assignments = None,
    params: Together = "",
    force: Annotated[bool, typer.Option("--force", help="Run although nothing has changed.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; only with one study.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Studies at the same time.")] = 1,
) -> None:
    """Execute studies. With parameters, the run goes to runs/ and is compared with the reference."""
    from persona_studies.reproduce import runs

    project = Project.find()
    chosen = [runs.known(project, study) for study in studies or project.names()]
    assignments = [*(parameter or []), *_split(params)]
    if len(chosen) > 1 and (assignments or out):
        raise ParameterError("Parameters and --out go with one study; name it.")
    if len(chosen) > 1 and jobs > 1:
        if failed := _in_processes(project, chosen, jobs, force):
            raise PersonaStudiesError(f"{', '.join(failed)} did not complete.")
        return
    for study in chosen:
        _say(f"{study}: running" + (f" with {' '.join(assignments)}" if assignments else ""))
        done = runs.run(project, study, assignments, out=out, force=force)
        place = _short(project, done.folder)
        _say_done(project, done)
        if done.overrides:
            from persona_studies.reproduce import changes
            from persona_studies.reproduce import verify as comparison

            # Anew each time: the reference may have changed since the run.
            report = comparison.compare(project, study, done.folder)
            (done.folder / "diff.md").write_text(report.to_markdown(f"{study} with {done.overrides}"))
            for line in changes.write(project, study, done.folder).summary():
                _say(f"  {line}")
            _say(f"{study}: side by side with the reference in {place}/diff.html, cell by cell in {place}/diff.md")


@app.command()
def reproduce(
    studies: Studies = None,
    force: Annotated[bool, typer.Option("--force", help="Run although nothing has changed.")] = False,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, show_default="2, or 1 on one core", help="Studies at the same time."),
    ] = None,
) -> None:
    """Run every study whose inputs have changed, then compare all with the committed reference.

    Each study at the same time takes up to 1 GiB of memory. Exit code 1: a study did not complete, or something
    differs.
    """
    from persona_studies.reproduce import processes, runs
    from persona_studies.reproduce import verify as comparison

    project = Project.find()
    chosen = [runs.known(project, study) for study in studies or project.names()]
    unchanged = {study: None if force else runs.unchanged(project, study) for study in chosen}
    for done in filter(None, unchanged.values()):
        _say_done(project, done)
    to_run = [study for study, done in unchanged.items() if done is None]
    failed = _in_processes(project, to_run, jobs or min(2, processes.cores()), force)
    report = comparison.verify(project, chosen)
    _print(report)
    _say(f"The report is in {_short(project, project.build / 'report.md')}.")
    if failed:
        raise PersonaStudiesError(f"{', '.join(failed)} did not complete.")
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def new(study: Annotated[str, typer.Argument(help="Name: small letters, digits, '_'.")]) -> None:
    """Write a small study that works, run it and make what it shows the reference.

    Its questions, personas and claims are then replaced by one's own; see docs/adding_a_study.md.
    """
    from persona_studies.publish import new as studies

    project = Project.find()
    for path in studies.write(project, study):
        _say(f"{study}: wrote {_short(project, path)}")

    from persona_studies.publish import readme
    from persona_studies.reproduce import runs
    from persona_studies.reproduce import verify as comparison

    runs.run(project, study)
    comparison.accept(project, study, confirm=lambda report: True)
    readme.main()
    _say(f"{study}: runs, and is in the scoreboard and the site (make site). Nothing is recorded yet.")
    _say(f"To record it: make record STUDY={study} MODEL=smollm2-135m-instruct; then make accept STUDY={study}")


@app.command()
def verify(studies: Studies = None) -> None:
    """Compare build/ with the committed reference: one line per artifact, exit 1 when something differs.

    What needs a source that cannot be had is listed as not rebuilt, which is no difference.
    """
    from persona_studies.reproduce import verify as comparison

    project = Project.find()
    report = comparison.verify(project, studies or project.names())
    _print(report)
    _say(f"The report is in {_short(project, project.build / 'report.md')}.")
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def accept(
    studies: Studies = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Make build/ the committed reference, after showing what changes."""
    from persona_studies.reproduce import verify as comparison

    project = Project.find()

    def confirm(report: Report) -> bool:
        _print(report)
        return yes or typer.confirm("Make this the reference?", default=False)

    for study in studies or project.names():
        if comparison.accept(project, study, confirm=confirm) is None:
            _say(f"{study}: the reference stays as it was.")
            raise typer.Exit(1)
        _say(f"{study}: accepted.")


Study = Annotated[str, typer.Argument(help="Name of the study.")]


@app.command()
def sweep(
    study: Study,
    grid: Grid,
    table: Annotated[str | None, typer.Option(help="Take the estimate from this table, not the verdicts.")] = None,
    row: Annotated[list[str] | None, typer.Option(help="Text in the table's row; may be repeated.")] = None,
    estimate: Annotated[str, typer.Option(help="Column of the table.")] = "estimate",
    limit: Annotated[int, typer.Option(min=1, help="Refuse to start more runs than this.")] = 24,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Runs at the same time.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run, run nothing.")] = False,
) -> None:
    """Run a grid of parameters and draw each claim's estimate over all of them, the specification curve.

    Interrupted at any moment, the same command goes on. Exit code 1: some specification did not complete.
    """
    from persona_studies.reproduce import grid as grids
    from persona_studies.reproduce import runs
    from persona_studies.reproduce import sweep as sweeps

    if (table is None) != (row is None):
        raise ParameterError("--table and --row go together: the table, and the row whose estimate is drawn.")
    project = Project.find()
    specified = sweeps.specifications(project, study, grids.choices(project, study, grid))
    ready = [one for one in specified if one.problem is None]
    to_run = [one for one in ready if not runs.up_to_date(one.folder, runs.key(project, study, one.overrides))]
    took = runs.seconds(project, study)
    if not to_run:
        time = "nothing to run"
    elif took is None:
        time = "how long a run takes is not known yet"
    else:
        time = f"about {took * len(to_run) / jobs / 60:.1f} minutes, at {took:.0f} s a run"
    _say(
        f"{study}: {len(specified)} specifications, {len(ready) - len(to_run)} finished, {len(to_run)} to run, "
        f"{len(specified) - len(ready)} that cannot be run; {time}"
    )
    for one in specified:
        if one.problem is not None:
            _say(f"  {one.number}: {' '.join(one.assignments)} cannot be run: {one.problem}")
    if not ready:
        raise ParameterError("No specification of this grid can be run.")
    if len(to_run) > limit:
        raise ParameterError(
            f"{len(to_run)} runs are more than the limit of {limit}; to start them: --limit {len(to_run)}"
        )
    if dry_run:
        return

    def report(one: sweeps.Specification) -> None:
        said = one.problem.splitlines()[0] if one.problem else _short(project, one.folder)
        _say(f"  {one.number}: {' '.join(one.assignments)}: {said}")

    ended = sweeps.run(project, study, specified, jobs=jobs, report=report)
    if all(one.problem for one in ended):
        raise PersonaStudiesError(f"{study}: no specification completed.")
    cell = sweeps.Cell(table, tuple(row), estimate) if table is not None and row else None
    folder, summary = sweeps.write(project, study, ended, cell, _again(study, grid, table, row, estimate))
    for line in summary.to_dict("records"):
        span = f"{line['lowest']:.3g} to {line['highest']:.3g}, median {line['median']:.3g}; "
        said = span if line["specifications"] else ""
        _say(f"{line['claim']} ({line['layer']}): {said}{line['verdicts']}")
    _say(f"{study}: the specification curves are in {_short(project, folder)}/index.html")
    raise typer.Exit(int(any(one.problem for one in ended)))


def _again(study: str, grid: str, table: str | None, row: list[str] | None, estimate: str) -> str:
    """Return the command of a sweep."""
    words = ["persona-studies", "sweep", study, "--grid", grid]
    if table is not None:
        words += ["--table", table, *(part for text in row or [] for part in ("--row", text))]
        words += ["--estimate", estimate]
    return shlex.join(words)


@app.command()
def plan(
    study: Study,
    out: Annotated[Path, typer.Option(help="File to write, e.g. cells.parquet.")],
    parameter: Assignments = None,
    params: Together = "",
    protocol: Version = 1,
    file: Annotated[
        Path | None, typer.Option("--runs", help="Of `persona-studies grid`: the cells of all its runs, each once.")
    ] = None,
) -> None:
    """Write a study's cells with their prompts, to record them where its sources and notebooks are not."""
    from persona_studies.design import plan as plans
    from persona_studies.reproduce import grid

    project = Project.find()
    assignments = [*(parameter or []), *_split(params)]
    if file is not None and (assignments or protocol > 1):
        raise ParameterError("Cells are fixed in the file of --runs; give parameters to `persona-studies grid`.")
    sets = grid.load(file, study) if file is not None else [assignments]
    cells = plans.union(_cells(project, study, given, protocol) for given in sets)
    plans.save(cells, out, study)
    _say(f"{study}: {len(cells):,} cells in {out}")


@app.command(name="grid")
def grid_(
    studies: Annotated[list[str], typer.Argument(help="Names of studies.")],
    out: Annotated[Path, typer.Option(help="File to write, e.g. grid.json.")],
    grid: Grid = "",
    model_names: Annotated[
        str, typer.Option("--models", metavar='"MODEL ..."', help="Models to record first, named as for record.")
    ] = "",
    shards: Annotated[int, typer.Option(min=1, help="Record each model in so many shares.")] = 1,
) -> None:
    """Write the runs of a grid (study x model x parameters) as a file that `make grid` works off, on a cluster too.

    `sweep` with the same study and grid then finds the runs finished and draws the curves.
    """
    from persona_studies.reproduce import grid as grids

    found, left_out = grids.workflow(Project.find(), studies, grid, _split(model_names), shards=shards)
    grids.save(found, out)
    for line in left_out:
        _say(f"left out: {line}")
    planned = sum(map(len, found["runs"].values()))
    recorded = len(found["models"]) * len(studies)
    _say(f"{planned:,} runs, {recorded:,} recordings in {shards:,} shares each, in {out}")


@app.command()
def record(
    study: Study,
    model: Annotated[
        str, typer.Option(help="Of data/models.toml, or gguf:PATH, hf:OWNER/NAME@REVISION, openai:MODEL.")
    ] = "smollm2-135m-instruct",
    parameter: Assignments = None,
    params: Together = "",
    protocol: Version = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Estimate only, record nothing.")] = False,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Record the I-th of N shares, for several processes.")
    ] = "1/1",
    sample: Annotated[
        int | None,
        typer.Option(min=1, help="Ask so many cells only, drawn by a hash: everybody asks the same."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many cells.")] = None,
    hours: Annotated[float | None, typer.Option(min=0, help="Stop after so many hours.")] = None,
    cells: Annotated[
        Path | None, typer.Option("--plan", help="Cells that `persona-studies plan` wrote; needs no sources.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the answers; `persona-studies import` takes them in.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name to record under.")] = None,
    backend: Annotated[str | None, typer.Option(help="llama.cpp or transformers, for a GGUF file.")] = None,
    schedule: Annotated[
        str | None, typer.Option(help="llama.cpp: canonical, parallel; transformers: batched, single.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="file, f32, f16 or bf16; default: what is recorded already, or the model's.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes of llama.cpp, of one thread each; default: one per idle core."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of each process of llama.cpp; 1.")] = None,
    api: Annotated[str, typer.Option(help="Of an endpoint: chat or completions.")] = "chat",
    chat: Annotated[
        str | None,
        typer.Option(
            help="How turns are marked: chatml, gemma, plain or, for a model that runs here, a file with a Jinja "
            "template. Default: the model's own template; needed for --api completions."
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Of the weights behind an endpoint, which cannot be asked for it.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Calls to an endpoint at the same time.")] = 8,
    system_role: Annotated[
        str, typer.Option(help="Where a persona stands in a chat of an endpoint: system, or user.")
    ] = "system",
    measures: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help="Measures or kinds of measures; default: all that the model can be asked."
        ),
    ] = None,
    reask: Annotated[
        str, typer.Option(help="Which cells to ask again: failed, or never (they then stay failed).")
    ] = "failed",
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait for an endpoint's answer; 60.")] = None,
    retries: Annotated[int | None, typer.Option(help="How often a failed call is repeated; 6.")] = None,
    top_logprobs: Annotated[
        int | None, typer.Option(help="Alternatives to ask an endpoint for, 1 to 20; 20.")
    ] = None,
    extra: Annotated[
        str | None, typer.Option(metavar="JSON", help="Further fields of every call to an endpoint.")
    ] = None,
    max_calls: Annotated[int | None, typer.Option(min=1, help="Cap on calls to an endpoint.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Cap on tokens of an endpoint.")] = None,
    max_money: Annotated[float | None, typer.Option(min=0, help="Cap on what an endpoint costs.")] = None,
    price_in: Annotated[float, typer.Option(min=0, help="Price of a million prompt tokens.")] = 0.0,
    price_out: Annotated[float, typer.Option(min=0, help="Price of a million generated tokens.")] = 0.0,
) -> None:
    """Ask a model every cell of a study's grid. Interrupted at any moment, it continues where it stopped.

    Exit code 0: every cell of this share has an answer. 1: some have none yet; the same command goes on.
    """
    from persona_studies.ask import models, options, recording
    from persona_studies.ask import workers as processes
    from persona_studies.ask.estimate import estimate, summary
    from persona_studies.design import plan as grid

    project = Project.find()
    part = _shard(shard)
    assignments = [*(parameter or []), *_split(params)]
    if cells is not None and (assignments or protocol > 1):
        raise ParameterError(
            "Cells are fixed in the file of --plan; give what fixes them to `persona-studies plan`."
        )
    asked = grid.load(cells, study) if cells is not None else _cells(project, study, assignments, protocol)
    again = options.asks_again(reask)
    budget = None
    if model.startswith("openai:"):
        from persona_studies.ask.backends.openai_compatible import Budget

        budget = Budget(max_calls, max_tokens, max_money, price_in, price_out)
    usual = {"api": api, "concurrency": concurrency, "revision": revision, "system_role": system_role}
    only = {"timeout": timeout, "retries": retries, "top_logprobs": top_logprobs}
    endpoint = options.endpoint(model, {**usual, "budget": budget}, extra, chat, only)
    how: dict[str, Any] = {
        "backend": backend,
        "threads": threads or 1,
        "precision": precision,
        "schedule": schedule,
        "chat": chat,
    }
    asker = recording.load(project, study, model, name=name, out=out, endpoint=endpoint, **how)
    called = asker.info.name
    asked = options.answerable(asked, asker, measures, _say)
    asked = asked if sample is None else grid.sample(asked, sample)
    left = recording.pending(project, study, asked, asker.info, out, reask=again)
    _say(
        f"{study}, {called}: {len(asked):,} cells planned, {len(asked) - len(left):,} recorded, {len(left):,} to go"
    )
    if len(left):
        again_there = partial(models.load, project, model, name=called, recorded=asdict(asker.info), **how)
        asker = processes.spread(
            asker,
            again_there,
            cells=min(len(left), limit or len(left)),
            workers=workers,
            threads=threads,
            shards=part[1],
        )
        table = estimate(left, asker)
        _say(table.drop(columns="money").to_string(index=False, float_format=lambda x: f"{x:.3f}"))
        _say(summary(table, part[1] * getattr(asker, "number", 1)))
    if dry_run:
        return
    progress = recording.record(
        project, study, asked, asker, shard=part, limit=limit, hours=hours, out=out, reask=again
    )
    asker.close()
    if budget is not None:
        used = budget.spent
        tokens = used.tokens_in + used.tokens_out
        _say(f"Spent: {used.calls:,} calls, {tokens:,} tokens, {used.money:.4f} in money")
    if progress.failed:
        stay = (
            "stay failed" if not again else "are asked again by the same command; --reask never leaves them failed"
        )
        _say(f"{progress.failed:,} cells failed, and {stay}.")
    if progress.stopped:
        _say(f"Stopped at {progress.stopped}.")
    if progress.mine:
        _say(f"{progress.recorded:,} of {progress.planned:,} cells recorded; run the same command to go on.")
        raise typer.Exit(1)
    if out is not None:
        _say(f"This share is complete; take it in with: persona-studies import {out}")
    elif progress.complete:
        _say(f"complete: {_short(project, recording.pack(project, study, asked, called, failed=not again))}")
    else:
        _say(f"This share is complete; {progress.planned - progress.recorded:,} cells are with other shares.")


@app.command()
def pack(
    study: Study,
    model: Annotated[str, typer.Argument(help="Name it is recorded under.")],
    parameter: Assignments = None,
    params: Together = "",
    protocol: Version = 1,
    partly: Annotated[bool, typer.Option("--partly", help="Pack also where planned cells are missing.")] = False,
) -> None:
    """Write what the logs of a recording hold into data/responses, from where `record` goes on in any checkout.

    `record` does this by itself once every cell has an answer.
    """
    from persona_studies.ask import recording, responses, unfinished

    project = Project.find()
    assignments = [*(parameter or []), *_split(params)]
    cells = _cells(project, study, assignments, protocol, texts=False)
    options = [*(f"-p {word}" for word in assignments), *([f"--protocol {protocol}"] if protocol > 1 else [])]
    place = recording.pack(project, study, cells, model, partly=partly, asked_with=" ".join(options))
    _say(f"{unfinished.incomplete(responses.record_of(place) or {}) or 'complete'}: {_short(project, place)}")


@app.command(name="import")
def import_(
    origin: Annotated[Path, typer.Argument(help="What record --out wrote.")],
    parameter: Assignments = None,
    params: Together = "",
    protocol: Version = 1,
    planned: Annotated[
        Path | None, typer.Option("--plan", help="Cells that were to be recorded, instead of parameters.")
    ] = None,
    measures: Annotated[
        str | None, typer.Option(metavar="A,B", help="Measures or kinds that were recorded; default: all of them.")
    ] = None,
    reask: Annotated[str, typer.Option(help="failed, or never: cells that failed stay failed.")] = "failed",
) -> None:
    """Check what was recorded elsewhere, merge it, and pack each recording that is now complete.

    Exit code 1: a recording lacks cells of its study's grid; what there is has been taken in.
    """
    from persona_studies.ask import options, recording
    from persona_studies.design import plan as grid
    from persona_studies.errors import ResponsesError

    project = Project.find()
    assignments = [*(parameter or []), *_split(params)]
    if planned is not None and (assignments or protocol > 1):
        raise ParameterError(
            "Cells are fixed in the file of --plan; give what fixes them to `persona-studies plan`."
        )
    again = options.asks_again(reask)
    taken = recording.take_in(project, origin)
    lacking = False
    for study, model, rows, new in taken.itertuples(index=False, name=None):
        _say(f"{study}, {model}: {rows:,} answers, {new:,} of them new")
        if planned is not None:
            cells = grid.load(planned, study)
        else:
            cells = _cells(project, study, assignments, protocol, texts=False)
        cells = options.chosen(cells, measures)
        try:
            _say(f"complete: {_short(project, recording.pack(project, study, cells, model, failed=not again))}")
        except ResponsesError as error:
            lacking = True
            _say(str(error))
    raise typer.Exit(int(lacking))


@app.command()
def publish(
    study: Study,
    model: Annotated[str, typer.Argument(help="Name it is recorded under.")],
    repo: Annotated[str, typer.Option(help="OWNER/NAME of the data set on the hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new data set private.")] = False,
) -> None:
    """Upload a packed recording to a Hugging Face data set and pin it in data/recordings.toml."""
    from persona_studies.publish import hub

    project = Project.find()
    done = hub.publish(project, study, model, repo, private=private)
    _say(f"{study}/{model}: {done.repo} at {done.revision}, pinned in data/recordings.toml")


@app.command()
def fetch(
    study: Study,
    model: Annotated[str, typer.Argument(help="Name it is recorded under.")],
) -> None:
    """Download a published recording at its pinned revision and check it."""
    from persona_studies.publish import hub

    project = Project.find()
    _say(f"{study}/{model}: {_short(project, hub.fetch(project, study, model))}")


@app.command()
def site() -> None:
    """Build the committed notebooks, tables and figures as a static site in build/site/."""
    from persona_studies.publish import site as pages

    project = Project.find()
    _say(f"{_short(project, pages.build(project))}/index.html")


@app.command(name="list")
def list_() -> None:
    """List the studies: built, stale or not built."""
    from persona_studies.design.protocol import load
    from persona_studies.reproduce import runs

    project = Project.find()
    for study in project.names():
        folder = project.build / study
        current = runs.up_to_date(folder, runs.key(project, study, {}))
        state = "built" if current else "stale" if (folder / "run.json").exists() else "not built"
        _say(f"{study:<20} {state:<10} {load(project.protocol(study)).title}")


@app.command()
def show(study: Study) -> None:
    """Show a study's question, its parameters with their allowed values, its claims and its artifacts."""
    from persona_studies.design.protocol import load
    from persona_studies.reproduce import notebooks, runs

    project = Project.find()
    declared = notebooks.parameters(notebooks.read(project.notebook(runs.known(project, study))))
    defaults = {name: default.value for name, default in declared.items()}
    protocol = load(project.protocol(study))
    _say(f"{protocol.title}\n{protocol.question}\n\nParameters")
    for row in runs.parameters_class(project, study).describe(defaults).itertuples():
        _say(f"  {row.parameter:<18} {row.default}\n{'':<21}{row.description}; {row.allowed}")
    _say("\nClaims")
    for name, claim in protocol.claims.items():
        _say(f"  {name:<18} {claim.statement}")
    _say("\nArtifacts")
    for path in sorted([*project.results(study).glob("*.csv"), *project.figures(study).glob("*.svg")]):
        _say(f"  {_short(project, path)}")


def main() -> None:
    """Run the command line; errors that a user can mend are printed without a traceback."""
    # A terminated run cleans up like an interrupted one.
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    try:
        code = app(standalone_mode=False)
    except PersonaStudiesError as error:
        _complain(str(error))
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("Interrupted; nothing half-written is left.", err=True)
        sys.exit(130)
    except OSError as error:
        if error.errno not in DISK:
            raise
        place = f"{error.filename}: " if error.filename else ""
        _complain(
            f"{place}{error.strerror or error}. Make room, or make that place writable, and run the same command "
            "again; what was complete before still is."
        )
        sys.exit(1)
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # the parser's own usage errors
            error.show()
            sys.exit(error.exit_code)
        raise
    sys.exit(code or 0)


def _complain(text: str) -> None:
    """Print an error. It may quote what a model or a file said, whose control characters are not for a terminal."""
    typer.secho(visible(text), err=True, fg="red" if sys.stderr.isatty() else None)


def _in_processes(project: Project, studies: list[str], jobs: int, force: bool) -> list[str]:
    """Run each study in a process of its own and return those that did not complete."""
    from persona_studies.reproduce import processes

    command = [sys.executable, "-m", "persona_studies.cli", "run", *(["--force"] if force else [])]
    failed = []
    with closing(
        processes.run(project, {study: [*command, study] for study in studies}, jobs=jobs, shown=True)
    ) as ended:
        for study, problem in ended:
            if problem is not None:
                _complain(problem)
                failed.append(study)
    return failed


def _say_done(project: Project, done: Run) -> None:
    _say(f"{done.study}: {'done' if done.fresh else 'up to date'}, {_short(project, done.folder)}")
    for address in done.not_rebuilt.values():
        _say(f"{done.study}: not rebuilt is what needs {address}; its committed results are shown")


def _cells(project: Project, study: str, assignments: list[str], version: int, *, texts: bool = True) -> Any:
    """Return the cells of a study's grid under some parameters, or those that a later protocol declares."""
    from persona_studies.design.protocol import load
    from persona_studies.reproduce import runs

    in_force, _ = runs.resolve(project, study, assignments)
    module = runs.study_module(project, study)
    if not hasattr(module, "plan"):
        raise ParameterError(f"{study} asks no model: it analyses what others recorded. Nothing can be planned.")
    if version > 1:
        if assignments:
            raise ParameterError(
                f"--protocol {version} fixes what is asked, so {quoted(assignments[0])} has no place; leave the "
                "parameters out, or --protocol."
            )
        if not project.protocol(study, version).is_file():
            known = [n for n in range(1, version) if project.protocol(study, n).is_file()]
            raise ParameterError(
                f"{study} declares no protocol {version}; it has {', '.join(map(str, known))}. Name one of these."
            )
    cells = module.plan(project, load(project.protocol(study, version)), in_force, texts=texts)
    measure = str(in_force.model_dump().get("measure"))
    if measure != "primary" and any(given.partition("=")[0].strip() == "measure" for given in assignments):
        from persona_studies.design import plan as grid

        # Whoever names a measure wants no other asked.
        cells = grid.chosen(cells, [grid.DERIVED.get(measure, measure)])
    return cells


def _split(text: str) -> list[str]:
    from persona_studies.design.parameters import split

    return split(text)


def _shard(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise ParameterError(f"--shard {quoted(text)} is not I/N with I from 1 to N, such as 1/4.")
    return int(part), int(parts)


def _short(project: Project, path: Path) -> str:
    return path.relative_to(project.root).as_posix() if path.is_relative_to(project.root) else str(path)


def _print(report: Report) -> None:
    for line in report.lines():
        good = line.startswith(("identical", "within", "not rebuilt"))
        colour: Any = None if good or line.startswith(" ") or "agree with" in line else "red"
        typer.secho(line, fg=colour if sys.stdout.isatty() else None)


def _say(text: str) -> None:
    typer.echo(text)


if __name__ == "__main__":
    main()
