"""Commands about studies: run them, compare them with the reference, add one, show them."""

from __future__ import annotations

import shlex
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from persona_studies.cli import flags
from persona_studies.cli.shared import complain, given, print_report, say, short
from persona_studies.errors import ParameterError, PersonaStudiesError
from persona_studies.paths import Project

if TYPE_CHECKING:
    from persona_studies.reproduce.runs import Run
    from persona_studies.reproduce.verify import Report


def run(
    studies: flags.Studies = None,
    parameter: flags.Assignments = None,
    params: flags.Together = "",
    force: Annotated[bool, typer.Option("--force", help="Run although nothing has changed.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; only with one study.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Studies at the same time.")] = 1,
) -> None:
    """Execute studies. With parameters, the run goes to runs/ and is compared with the reference."""
    from persona_studies.reproduce import ready, runs

    project = Project.find()
    names = [ready.known(project, study) for study in studies or project.names()]
    assignments = given(parameter, params)
    if len(names) > 1 and (assignments or out):
        raise ParameterError("Parameters and --out go with one study; name it.")
    if len(names) > 1 and jobs > 1:
        if failed := _in_processes(project, names, jobs, force):
            raise PersonaStudiesError(f"{', '.join(failed)} did not complete.")
        return
    for study in names:
        say(f"{study}: running" + (f" with {' '.join(assignments)}" if assignments else ""))
        done = runs.run(project, study, assignments, out=out, force=force)
        place = short(project, done.folder)
        _say_done(project, done)
        if done.overrides:
            from persona_studies.reproduce import changes
            from persona_studies.reproduce import verify as comparison

            # Anew each time: the reference may have changed since the run.
            report = comparison.compare(project, study, done.folder)
            (done.folder / "diff.md").write_text(report.to_markdown(f"{study} with {done.overrides}"))
            for line in changes.write(project, study, done.folder).summary():
                say(f"  {line}")
            say(f"{study}: side by side with the reference in {place}/diff.html, cell by cell in {place}/diff.md")


def reproduce(
    studies: flags.Studies = None,
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
    from persona_studies.reproduce import processes, ready, runs
    from persona_studies.reproduce import verify as comparison

    project = Project.find()
    names = [ready.known(project, study) for study in studies or project.names()]
    unchanged = {study: None if force else runs.unchanged(project, study) for study in names}
    for done in filter(None, unchanged.values()):
        _say_done(project, done)
    to_run = [study for study, done in unchanged.items() if done is None]
    failed = _in_processes(project, to_run, jobs or min(2, processes.cores()), force)
    report = comparison.verify(project, names)
    print_report(report)
    say(f"The report is in {short(project, project.build / 'report.md')}.")
    if failed:
        raise PersonaStudiesError(f"{', '.join(failed)} did not complete.")
    raise typer.Exit(0 if report.ok else 1)


def new(study: Annotated[str, typer.Argument(help="Name: small letters, digits, '_'.")]) -> None:
    """Write a small study that works, run it and make what it shows the reference.

    Its questions, personas and claims are then replaced by one's own; see docs/adding_a_study.md.
    """
    from persona_studies.publish import new as studies

    project = Project.find()
    for path in studies.write(project, study):
        say(f"{study}: wrote {short(project, path)}")

    from persona_studies.publish import readme
    from persona_studies.reproduce import runs
    from persona_studies.reproduce import verify as comparison

    runs.run(project, study)
    comparison.accept(project, study, confirm=lambda report: True)
    readme.main()
    say(f"{study}: runs, and is in the scoreboard and the site (make site). Nothing is recorded yet.")
    say(f"To record it: make record STUDY={study} MODEL=smollm2-135m-instruct; then make accept STUDY={study}")


def verify(studies: flags.Studies = None) -> None:
    """Compare build/ with the committed reference: one line per artifact, exit 1 when something differs.

    What needs a source that is not available is listed as not rebuilt, which counts as no difference.
    """
    from persona_studies.reproduce import verify as comparison

    project = Project.find()
    report = comparison.verify(project, studies or project.names())
    print_report(report)
    say(f"The report is in {short(project, project.build / 'report.md')}.")
    raise typer.Exit(0 if report.ok else 1)


def accept(
    studies: flags.Studies = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Make build/ the committed reference, after showing what changes."""
    from persona_studies.reproduce import verify as comparison

    project = Project.find()

    def confirm(report: Report) -> bool:
        print_report(report)
        return yes or typer.confirm("Make this the reference?", default=False)

    for study in studies or project.names():
        if comparison.accept(project, study, confirm=confirm) is None:
            say(f"{study}: the reference stays as it was.")
            raise typer.Exit(1)
        say(f"{study}: accepted.")


def sweep(
    study: flags.Study,
    grid: flags.Grid,
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
    able = [one for one in specified if one.problem is None]
    to_run = [one for one in able if not one.unchanged]
    time = _time(runs.seconds(project, study), len(to_run), jobs)
    say(
        f"{study}: {len(specified)} specifications, {len(able) - len(to_run)} finished, {len(to_run)} to run, "
        f"{len(specified) - len(able)} that cannot be run; {time}"
    )
    for one in specified:
        if one.problem is not None:
            say(f"  {one.number}: {' '.join(one.assignments)} cannot be run: {one.problem}")
    if not able:
        raise ParameterError("No specification of this grid can be run.")
    if len(to_run) > limit:
        raise ParameterError(
            f"{len(to_run)} runs are more than the limit of {limit}; to start them: --limit {len(to_run)}"
        )
    if dry_run:
        return

    def report(one: sweeps.Specification) -> None:
        said = one.problem.splitlines()[0] if one.problem else short(project, one.folder)
        say(f"  {one.number}: {' '.join(one.assignments)}: {said}")

    ended = sweeps.run(project, study, specified, jobs=jobs, report=report)
    if all(one.problem for one in ended):
        raise PersonaStudiesError(f"{study}: no specification completed.")
    cell = sweeps.Cell(table, tuple(row), estimate) if table is not None and row else None
    folder, summary = sweeps.write(project, study, ended, cell, _again(study, grid, table, row, estimate))
    for line in summary.to_dict("records"):
        span = f"{line['lowest']:.3g} to {line['highest']:.3g}, median {line['median']:.3g}; "
        said = span if line["specifications"] else ""
        say(f"{line['claim']} ({line['layer']}): {said}{line['verdicts']}")
    say(f"{study}: the specification curves are in {short(project, folder)}/index.html")
    raise typer.Exit(int(any(one.problem for one in ended)))


def _time(took: float | None, to_run: int, jobs: int) -> str:
    """Return in words how long some runs take, of which one took so many seconds."""
    if not to_run:
        return "nothing to run"
    if took is None:
        return "how long a run takes is not known yet"
    return f"about {took * to_run / jobs / 60:.1f} minutes, at {took:.0f} s a run"


def _again(study: str, grid: str, table: str | None, row: list[str] | None, estimate: str) -> str:
    """Return the command of a sweep."""
    words = ["persona-studies", "sweep", study, "--grid", grid]
    if table is not None:
        words += ["--table", table, *(part for text in row or [] for part in ("--row", text))]
        words += ["--estimate", estimate]
    return shlex.join(words)


def site() -> None:
    """Build the committed notebooks, tables and figures as a static site in build/site/."""
    from persona_studies.publish import site as pages

    project = Project.find()
    say(f"{short(project, pages.build(project))}/index.html")


def list_() -> None:
    """List the studies: built, stale or not built."""
    from persona_studies.design.protocol import load
    from persona_studies.reproduce import folders, runs

    project = Project.find()
    for study in project.names():
        folder = project.build / study
        current = folders.up_to_date(folder, runs.key(project, study, {}))
        state = "built" if current else "stale" if (folder / "run.json").exists() else "not built"
        say(f"{study:<20} {state:<10} {load(project.protocol(study)).title}")


def show(study: flags.Study) -> None:
    """Show a study's question, its parameters with their allowed values, its claims and its artifacts."""
    from persona_studies.design.protocol import load
    from persona_studies.reproduce import notebooks, ready

    project = Project.find()
    defaults = notebooks.parameters(notebooks.read(project.notebook(ready.known(project, study))))
    protocol = load(project.protocol(study))
    say(f"{protocol.title}\n{protocol.question}\n\nParameters")
    for row in ready.parameters_class(project, study).describe(defaults).itertuples():
        say(f"  {row.parameter:<18} {row.default}\n{'':<21}{row.description}; {row.allowed}")
    say("\nClaims")
    for name, claim in protocol.claims.items():
        say(f"  {name:<18} {claim.statement}")
    say("\nArtifacts")
    for path in sorted([*project.results(study).glob("*.csv"), *project.figures(study).glob("*.svg")]):
        say(f"  {short(project, path)}")


def _in_processes(project: Project, studies: list[str], jobs: int, force: bool) -> list[str]:
    """Run each study in a process of its own and return those that did not complete."""
    from persona_studies.reproduce import processes

    command = [sys.executable, "-m", "persona_studies", "run", *(["--force"] if force else [])]
    failed = []
    with closing(
        processes.run(project, {study: [*command, study] for study in studies}, jobs=jobs, shown=True)
    ) as ended:
        for study, problem in ended:
            if problem is not None:
                complain(problem)
                failed.append(study)
    return failed


def _say_done(project: Project, done: Run) -> None:
    say(f"{done.study}: {'done' if done.fresh else 'up to date'}, {short(project, done.folder)}")
    for address in done.not_rebuilt.values():
        say(f"{done.study}: not rebuilt is what needs {address}; its committed results are shown")
