"""Commands about recordings: plan them, pack them, take them in, upload and fetch them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from persona_studies.cli import flags
from persona_studies.cli.shared import given, one_of, planned, say, short
from persona_studies.errors import ParameterError
from persona_studies.paths import Project


def plan(
    study: flags.Study,
    out: Annotated[Path, typer.Option(help="File to write, e.g. cells.parquet.")],
    parameter: flags.Assignments = None,
    params: flags.Together = "",
    file: Annotated[
        Path | None, typer.Option("--runs", help="Of `persona-studies grid`: the cells of all its runs, each once.")
    ] = None,
) -> None:
    """Write a study's cells with their prompts, to record them where its sources and notebooks are not."""
    from persona_studies.design import plan as plans
    from persona_studies.reproduce import grid

    project = Project.find()
    assignments = given(parameter, params)
    if file is not None and assignments:
        raise ParameterError("Cells are fixed in the file of --runs; give parameters to `persona-studies grid`.")
    sets = grid.load(file, study) if file is not None else [assignments]
    cells = plans.union(planned(project, study, one) for one in sets)
    plans.save(cells, out, study)
    say(f"{study}: {len(cells):,} cells in {out}")


def grid_(
    studies: Annotated[list[str], typer.Argument(help="Names of studies.")],
    out: Annotated[Path, typer.Option(help="File to write, e.g. grid.json.")],
    grid: flags.Grid = "",
    model_names: Annotated[
        str, typer.Option("--models", metavar='"MODEL ..."', help="Models to record first, named as for record.")
    ] = "",
    shards: Annotated[int, typer.Option(min=1, help="Record each model in so many shares.")] = 1,
) -> None:
    """Write the runs of a grid (study x model x parameters) as a file that `make grid` works off, on a cluster too.

    `sweep` with the same study and grid then finds the runs finished and draws the curves.
    """
    from persona_studies.reproduce import grid as grids

    found, left_out = grids.workflow(Project.find(), studies, grid, given(None, model_names), shards=shards)
    grids.save(found, out)
    for line in left_out:
        say(f"left out: {line}")
    runs = sum(map(len, found["runs"].values()))
    recorded = len(found["models"]) * len(studies)
    say(f"{runs:,} runs, {recorded:,} recordings in {shards:,} shares each, in {out}")


def pack(
    study: flags.Study,
    model: Annotated[str, typer.Argument(help="Name it is recorded under.")],
    parameter: flags.Assignments = None,
    params: flags.Together = "",
    partly: Annotated[bool, typer.Option("--partly", help="Pack also where planned cells are missing.")] = False,
) -> None:
    """Write what the logs of a recording hold into data/responses, from where `record` goes on in any checkout.

    `record` does this by itself once every cell has an answer.
    """
    from persona_studies.ask import packing, responses, unfinished

    project = Project.find()
    assignments = given(parameter, params)
    cells = planned(project, study, assignments, texts=False)
    options = [f"-p {word}" for word in assignments]
    place = packing.pack(project, study, cells, model, partly=partly, asked_with=" ".join(options))
    say(f"{unfinished.incomplete(responses.description(place) or {}) or 'complete'}: {short(project, place)}")


def import_(
    origin: Annotated[Path, typer.Argument(help="What record --out wrote.")],
    parameter: flags.Assignments = None,
    params: flags.Together = "",
    file: Annotated[
        Path | None, typer.Option("--plan", help="Cells that were to be recorded, instead of parameters.")
    ] = None,
    measures: Annotated[
        str | None, typer.Option(metavar="A,B", help="Measures or kinds that were recorded; default: all of them.")
    ] = None,
    reask: Annotated[str, typer.Option(help="failed, or never: cells that failed stay failed.")] = "failed",
) -> None:
    """Check what was recorded elsewhere, merge it, and pack each recording that is now complete.

    Exit code 1: a recording lacks cells of its study's plan; what there is has been taken in.
    """
    from persona_studies.ask import options, packing
    from persona_studies.errors import ResponsesError

    project = Project.find()
    assignments = given(parameter, params)
    one_of(file, assignments)
    again = options.asks_again(reask)
    taken = packing.take_in(project, origin)
    lacking = False
    for study, model, rows, new in taken.itertuples(index=False, name=None):
        say(f"{study}, {model}: {rows:,} answers, {new:,} of them new")
        cells = planned(project, study, assignments, file, texts=False)
        cells = options.of_measures(cells, measures)
        try:
            say(f"complete: {short(project, packing.pack(project, study, cells, model, failed=not again))}")
        except ResponsesError as error:
            lacking = True
            say(str(error))
    raise typer.Exit(int(lacking))


def upload(
    study: flags.Study,
    model: Annotated[str, typer.Argument(help="Name it is recorded under.")],
    repo: Annotated[str, typer.Option(help="OWNER/NAME of the data set on the hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new data set private.")] = False,
) -> None:
    """Upload a packed recording to a Hugging Face data set and pin it in data/recordings.toml."""
    from persona_studies.publish import hub

    project = Project.find()
    done = hub.upload(project, study, model, repo, private=private)
    say(f"{study}/{model}: {done.repo} at {done.revision}, pinned in data/recordings.toml")


def fetch(
    study: flags.Study,
    model: Annotated[str, typer.Argument(help="Name it is recorded under.")],
) -> None:
    """Download an uploaded recording at its pinned revision and check it."""
    from persona_studies.publish import hub

    project = Project.find()
    say(f"{study}/{model}: {short(project, hub.fetch(project, study, model))}")
