"""The command line: ``persona-studies run | verify | accept | record | list | show``."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona_studies.errors import ParameterError, PersonaStudiesError
from persona_studies.paths import Project

if TYPE_CHECKING:
    from persona_studies.verify import Report

# Everything else is imported where it is used: `--help` and an up-to-date `run` must answer at once.

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
Together = Annotated[
    str, typer.Option("--params", metavar='"NAME=VALUE ..."', help="Several parameters, separated by blanks.")
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
    from persona_studies import runs

    project = Project.find()
    chosen = [runs.known(project, study) for study in studies or project.names()]
    assignments = [*(parameter or []), *_split(params)]
    if len(chosen) > 1 and (assignments or out):
        raise ParameterError("Parameters and --out go with one study; name it.")
    if len(chosen) > 1 and jobs > 1:
        _in_parallel(chosen, jobs, force)
        return
    for study in chosen:
        _say(f"{study}: running" + (f" with {' '.join(assignments)}" if assignments else ""))
        done = runs.run(project, study, assignments, out=out, force=force)
        place = _short(project, done.folder)
        _say(f"{study}: {'done' if done.fresh else 'up to date'}, {place}")
        if done.overrides and done.fresh:
            from persona_studies import verify as comparison

            report = comparison.compare(project, study, done.folder)
            (done.folder / "diff.md").write_text(report.to_markdown(f"{study} with {done.overrides}"))
        if done.overrides:
            _say(f"{study}: what differs from the reference is in {place}/diff.md")


@app.command()
def verify(studies: Studies = None) -> None:
    """Compare build/ with the committed reference: one line per artifact, exit 1 when something differs."""
    from persona_studies import verify as comparison

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
    from persona_studies import verify as comparison

    project = Project.find()

    def confirm(report: Report) -> bool:
        _print(report)
        return yes or typer.confirm("Make this the reference?", default=False)

    for study in studies or project.names():
        if comparison.accept(project, study, confirm=confirm) is None:
            _say(f"{study}: the reference stays as it was.")
            raise typer.Exit(1)
        _say(f"{study}: accepted.")


@app.command()
def record(
    study: Annotated[str, typer.Argument(help="Name of the study.")],
    model: Annotated[
        str, typer.Option(help="A model of data/models.toml, or gguf:PATH.")
    ] = "smollm2-135m-instruct",
    parameter: Assignments = None,
    params: Together = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Estimate cells and hours, record nothing.")] = False,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Record the I-th of N shares, for several processes.")
    ] = "1/1",
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many cells.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the CPU backend.")] = 2,
) -> None:
    """Ask a model every cell of a study's grid. Interrupted at any moment, it continues where it stopped."""
    from persona_studies import models, recording, runs
    from persona_studies.protocol import load

    project = Project.find()
    in_force, _ = runs.resolve(project, study, [*(parameter or []), *_split(params)])
    part = _shard(shard)
    plan = runs.study_module(project, study).plan(project, load(project.protocol(study)), in_force, texts=True)
    backend = models.load(project, model, threads=threads)
    name = backend.info.name
    left = recording.pending(plan, recording.folder(project, study, name))
    _say(f"{study}, {name}: {len(plan):,} cells planned, {len(plan) - len(left):,} recorded, {len(left):,} to go")
    if len(left):
        table = recording.estimate(left, backend)
        _say(table.to_string(index=False, float_format=lambda x: f"{x:.3f}"))
        _say(f"about {table['hours'].sum() / part[1]:.1f} hours in this process; no money: the model runs here")
    if dry_run:
        return
    progress = recording.record(project, study, plan, backend, shard=part, limit=limit)
    backend.close()
    if not progress.complete:
        _say(f"{progress.recorded:,} of {progress.planned:,} cells recorded; run the same command to go on.")
        raise typer.Exit(0 if limit or part[1] > 1 else 1)
    _say(f"complete: {_short(project, recording.pack(project, study, plan, name))}")


@app.command(name="list")
def list_() -> None:
    """List the studies: built, stale or not built."""
    from persona_studies import runs
    from persona_studies.protocol import load

    project = Project.find()
    for study in project.names():
        folder = project.build / study
        current = runs.up_to_date(folder, runs.key(project, study, {}))
        state = "built" if current else "stale" if (folder / "run.json").exists() else "not built"
        _say(f"{study:<20} {state:<10} {load(project.protocol(study)).title}")


@app.command()
def show(study: Annotated[str, typer.Argument(help="Name of the study.")]) -> None:
    """Show a study's question, its parameters with their allowed values, its claims and its artifacts."""
    from persona_studies import notebooks, runs
    from persona_studies.protocol import load

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
        typer.secho(str(error), err=True, fg="red" if sys.stderr.isatty() else None)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("Interrupted; nothing half-written is left.", err=True)
        sys.exit(130)
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # the parser's own usage errors
            error.show()
            sys.exit(error.exit_code)
        raise
    sys.exit(code or 0)


def _in_parallel(studies: list[str], jobs: int, force: bool) -> None:
    """Run each study in a process of its own."""
    command = [sys.executable, "-m", "persona_studies.cli", "run", *(["--force"] if force else [])]
    with ThreadPoolExecutor(jobs) as pool:
        codes = list(pool.map(lambda study: subprocess.run([*command, study]).returncode, studies))
    failed = [study for study, code in zip(studies, codes, strict=True) if code]
    if failed:
        raise PersonaStudiesError(f"{', '.join(failed)} did not complete.")


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ParameterError(f"{text!r} cannot be split into NAME=VALUE pairs: {error}.") from error


def _shard(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise ParameterError(f"--shard {text!r} is not I/N with I from 1 to N, such as 1/4.")
    return int(part), int(parts)


def _short(project: Project, path: Path) -> str:
    return path.relative_to(project.root).as_posix() if path.is_relative_to(project.root) else str(path)


def _print(report: Report) -> None:
    for line in report.lines():
        good = line.startswith(("identical", "within"))
        colour: Any = None if good or line.startswith(" ") or "agree with" in line else "red"
        typer.secho(line, fg=colour if sys.stdout.isatty() else None)


def _say(text: str) -> None:
    typer.echo(text)


if __name__ == "__main__":
    main()
