"""Execute a notebook with papermill, strictly.

papermill itself only warns of unknown parameters, leaves a half-executed output behind when a cell fails, and
counts ``sys.exit(0)`` as success. Here everything is checked before a kernel starts, the result appears in one
rename when every cell has completed, and a run whose inputs have not changed is not repeated.

A run's folder holds ``<study>.ipynb``, ``tables/``, ``figures/`` and ``run.json``.

Cells that need a source which cannot be had are not executed: they keep their committed outputs, below a line
with the address, and ``run.json`` says so under ``not_rebuilt``.
"""

from __future__ import annotations

import glob
import hashlib
import importlib.util
import json
import math
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import TYPE_CHECKING, Any

from persona_studies.errors import NotebookError, ParameterError, RunError, SourceUnavailable, quoted
from persona_studies.paths import Project
from persona_studies.reproduce import reads

if TYPE_CHECKING:
    import pandas as pd

    from persona_studies.design.parameters import Parameters
    from persona_studies.design.protocol import Protocol

# One thread each: sums must not depend on how many cores a machine has.
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "TZ": "UTC",
    "LC_ALL": "C.UTF-8",
    # IPython runs this file of the user's before the first cell.
    "PYTHONSTARTUP": "",
}
CELL_SECONDS = 3600.0
START_SECONDS = 300
# nbclient passes over cells with this tag.
SKIP = "skip-execution"


@dataclass(frozen=True)
class Run:
    """A completed run.

    Attributes:
        study: Name of the study.
        folder: Where notebook, tables and figures are.
        fresh: Whether it was executed now; False when an unchanged one was found.
        overrides: Parameters that differ from the notebook's own.
        not_rebuilt: Sources that could not be had, by the name that cells give them -> address.
    """

    study: str
    folder: Path
    fresh: bool
    overrides: dict[str, Any]
    not_rebuilt: dict[str, str] = field(default_factory=dict)


def known(project: Project, study: str) -> str:
    """Return the name of a study, or refuse it with the nearest one.

    Raises:
        ParameterError: no such study.
    """
    names = project.names()
    if study not in names:
        near = get_close_matches(study, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ParameterError(f"Unknown study {quoted(study)}.{hint} Studies: {', '.join(names) or 'none'}.")
    return study


def key(project: Project, study: str, overrides: Mapping[str, Any]) -> dict[str, str]:
    """Return a hash of every input that can change a run, by kind.

    The notebook counts with its sources, not its outputs.

    Raises:
        NotebookError: the file is not a notebook.
    """
    path = project.notebook(study)
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts = [[cell["cell_type"], "".join(cell["source"])] for cell in cells]
    except (ValueError, LookupError, TypeError) as error:
        raise NotebookError(f"{path.name} is not a notebook: {error!r}; restore it with git checkout.") from error
    return {
        "notebook": _digest(json.dumps(texts).encode()),
        "code": _tree(project.root, reads.code(project, study), "*.py"),
        "lock": _tree(project.root, [project.root / "uv.lock"]),
        "protocol": _tree(project.root, [project.folder(study)], "*.toml"),
        "data": _tree(project.root, reads.data(project, study)),
        "sources": _digest(json.dumps(reads.pins(project, study), sort_keys=True).encode()),
        "responses": _tree(project.root, [project.responses(study)]),
        "parameters": _digest(json.dumps(overrides, sort_keys=True).encode()),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
    }


def record(folder: Path) -> dict[str, Any] | None:
    """Return what the run in a folder says of itself (``run.json``), or None where no run is.

    Its ``study``, ``key``, ``overrides``, ``outputs`` (path below the folder -> sha256) and ``not_rebuilt``
    (source that could not be had -> address) are there.
    """
    try:
        found: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        found = {"not_rebuilt": {}, **found}
        sound = isinstance(found["study"], str) and all(
            isinstance(found[name], dict) for name in ("key", "overrides", "outputs", "not_rebuilt")
        )
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return found if sound else None


def up_to_date(folder: Path, expected: Mapping[str, str]) -> bool:
    """Return whether a folder holds a run with these inputs whose outputs are all as it wrote them."""
    made = record(folder)
    try:
        return (
            made is not None
            and made["key"] == dict(expected)
            and all(_digest((folder / name).read_bytes()) == digest for name, digest in made["outputs"].items())
        )
    except OSError:
        return False


def resolve(project: Project, study: str, assignments: Iterable[str]) -> tuple[Parameters, dict[str, Any]]:
    """Check parameters given as ``name=value`` against the notebook and its types.

    Returns:
        The parameters in force, and those that differ from the notebook's own.

    Raises:
        ParameterError: a name or value is wrong.
        NotebookError: the notebook's parameters cell is, or the study opens or imports another one.
    """
    from persona_studies.reproduce import notebooks

    path = project.notebook(known(project, study))
    try:
        declared = notebooks.parameters(notebooks.read(path))
    except NotebookError as error:
        raise NotebookError(f"{path.name}: {str(error).removeprefix(f'{path.name} ')}") from error
    if foreign := notebooks.foreign(project, study):
        more = f" ({len(foreign) - 1} more such places)" if len(foreign) > 1 else ""
        raise NotebookError(f"{foreign[0]}{more}")
    model = parameters_class(project, study)
    given = model.parse(assignments)
    defaults = {name: default.value for name, default in declared.items()}
    in_force = model.check({**defaults, **given})
    values = in_force.model_dump(mode="json")
    return in_force, {name: values[name] for name in given if values[name] != defaults.get(name)}


def prepare(project: Project, study: str, assignments: Iterable[str]) -> tuple[Parameters, dict[str, Any]]:
    """Check everything about a run that can be checked before a kernel starts.

    Returns:
        As :func:`resolve`.

    Raises:
        ParameterError: a name or value is wrong, or the grid reaches beyond what is recorded.
        NotebookError: the notebook's parameters cell is wrong.
        ResponsesError: the recording is damaged.
        SourceUnavailable: cells need an external source that cannot be had.
    """
    assignments = list(assignments)
    in_force, overrides = resolve(project, study, assignments)
    # A run that may ask the model itself needs no recording.
    if not in_force.model_dump().get("live_hours"):
        given = in_force.model_dump()
        for parameter, model in [
            ("model", given.get("model")),
            *(("compare", m) for m in given.get("compare", ())),
        ]:
            _recorded(project, study, parameter, model)
        if overrides:
            _covered(project, study, in_force, assignments)
    if overrides and (lacking := _lacking(project, study)):
        raise SourceUnavailable(
            f"{study} cannot be run with {', '.join(overrides)} changed: its cells need {', '.join(lacking)}, and "
            f"{', '.join(lacking.values())} cannot be had. Run again with a connection, or name a folder with a "
            "copy in PERSONA_STUDIES_MIRROR; without other parameters the committed results are shown."
        )
    return in_force, overrides


def place(project: Project, study: str, overrides: Mapping[str, Any]) -> Path:
    """Return the folder of the run with these parameters, whether it has been made or not."""
    if not overrides:
        return project.build / study
    expected = key(project, study, overrides)
    return project.runs / study / _digest(json.dumps(expected, sort_keys=True).encode())[:12]


def seconds(project: Project, study: str) -> float | None:
    """Return how long a run of a study took here, the median of those whose time is known."""
    name = "*.persona-studies-seconds"
    files = [*project.build.glob(f".{study}{name[1:]}"), *(project.runs / study).glob(f".{name}")]
    known = [float(path.read_text()) for path in files]
    return median(known) if known else None


def study_module(project: Project, study: str) -> ModuleType:
    """Import ``studies/<study>/design.py`` as its notebook does.

    Raises:
        RunError: the study has no such module.
    """
    path = project.design(study)
    spec = importlib.util.spec_from_file_location(f"persona_studies_study_{study}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise RunError(f"No module {study}/{path.name}; a study declares its Parameters there.")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pydantic look a class's module up by name.
    sys.modules[spec.name] = module
    # A study's modules import one another, as they do in a kernel that runs in studies/.
    sys.path.insert(0, str(project.studies))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(project.studies))
    return module


def parameters_class(project: Project, study: str) -> type[Parameters]:
    """Return the class ``Parameters`` of a study's module.

    Raises:
        RunError: the study has no module, or its module no such class.
    """
    module = study_module(project, study)
    try:
        found: type[Parameters] = module.Parameters
    except AttributeError as error:
        raise RunError(f"{study}/design.py declares no class Parameters.") from error
    return found


def unchanged(project: Project, study: str) -> Run | None:
    """Return the run in ``build/`` when neither its inputs nor its outputs have changed, and None otherwise.

    A run that left out what needed a source is unchanged as long as that source cannot be had.
    """
    folder = project.build / study
    if not up_to_date(folder, key(project, study, {})):
        return None
    left_out: dict[str, str] = (record(folder) or {})["not_rebuilt"]
    if left_out and left_out != _lacking(project, study):
        return None
    return Run(study, folder, False, {}, left_out)


def run(
    project: Project,
    study: str,
    assignments: Iterable[str] = (),
    *,
    out: Path | None = None,
    force: bool = False,
) -> Run:
    """Execute a study's notebook.

    Args:
        project: The checkout.
        study: Name of the study.
        assignments: Parameters as ``name=value``. Without any, the run is the one that is compared with the
            reference and goes to ``build/<study>``; with some, to ``runs/<study>/<key>``.
        out: Another folder: new, empty, or of an earlier run of this study. What others put into it stays.
        force: Execute although nothing has changed.

    Raises:
        ParameterError, NotebookError: before anything is started.
        RunError: a cell failed, ended the kernel or took too long (``<name>.failed.ipynb`` beside the
            folder shows where), or the file system refused; an earlier result stays as it was.
        SourceUnavailable: with other parameters, a source that cells need cannot be had.
    """
    known(project, study)
    assignments = list(assignments)
    if out is not None:
        # The kernel works in another folder: a relative path would mean another place there.
        out = out.resolve()
        _free(project, study, out)
    if not assignments and not force and out is None and (found := unchanged(project, study)):
        return found
    in_force, overrides = prepare(project, study, assignments)
    # A cell that asks the model may take the hours that were granted for that, and its own time.
    allowed = CELL_SECONDS + 3600 * (in_force.model_dump().get("live_hours") or 0.0)
    lacking = _lacking(project, study)
    expected = key(project, study, overrides)
    folder = out or place(project, study, overrides)
    _free(project, study, folder)
    from filelock import FileLock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(_beside(folder, "lock")):
            _mend(folder)
            if not force and up_to_date(folder, expected) and (record(folder) or {})["not_rebuilt"] == lacking:
                return Run(study, folder, False, overrides, lacking)
            with _partial(folder) as partial:
                started = time.perf_counter()
                failed = folder.parent / f"{folder.name}.failed.ipynb"
                _execute(project, study, overrides, partial, failed, lacking, allowed)
                outputs = {
                    path.relative_to(partial).as_posix(): _digest(path.read_bytes()) for path in _files(partial)
                }
                made = {
                    "study": study,
                    "key": expected,
                    "parameters": in_force.model_dump(mode="json"),
                    "overrides": overrides,
                    "outputs": outputs,
                    "not_rebuilt": lacking,
                }
                (partial / "run.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
                _swap(partial, folder)
                # Beside the run, whose own files are the same whenever it is made.
                _beside(folder, "seconds").write_text(f"{time.perf_counter() - started:.1f}\n")
    except OSError as error:
        raise RunError(f"{study} did not complete: {error}. What was in {folder} before is still there.") from error
    return Run(study, folder, True, overrides, lacking)


def _lacking(project: Project, study: str) -> dict[str, str]:
    """Return the sources that a notebook's cells need and that cannot be had -> address."""
    from persona_studies.design import sources
    from persona_studies.reproduce import notebooks

    patterns = notebooks.source_patterns(notebooks.read(project.notebook(study)))
    return sources.unavailable(project, patterns) if patterns else {}


def _free(project: Project, study: str, folder: Path) -> None:
    """Refuse a folder that a run must not replace, before anything expensive starts."""
    ours = [project.root / name for name in ("studies", "data", "figures", "lib")]
    trees = [project.root, project.build, project.runs, project.recordings]
    made = record(folder)
    if folder in [*map(Path.resolve, trees), *project.root.resolve().parents] or any(
        folder.is_relative_to(place.resolve()) for place in ours
    ):
        reason = "is part of the project or holds it"
    elif folder.exists() and not folder.is_dir():
        reason = "is a file"
    elif os.path.ismount(folder):
        reason = "is a mount point, which cannot be replaced in one step"
    elif made is not None and made["study"] != study:
        reason = f"holds a run of {made['study']}"
    elif made is None and folder.is_dir() and any(folder.iterdir()):
        reason = "holds files and no run.json of an earlier run"
    else:
        return
    raise ParameterError(
        f"{study} cannot be run into {folder}: it {reason}. "
        "Name a new or an empty folder (--out), or move what is there elsewhere."
    )


def _recorded(project: Project, study: str, parameter: str, model: str | None) -> None:
    """Refuse a model that has no recording."""
    from persona_studies.ask import responses
    from persona_studies.ask.models import slug

    recorded = responses.recordings(project, study)
    if model == "":
        responses.meant(project, study, model)
    elif model is not None and slug(model) not in recorded:
        near = get_close_matches(model, recorded, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ParameterError(
            f"Parameter {parameter!r} cannot be {quoted(model)}: it has no recorded responses for {study}.{hint} "
            f"Recorded: {', '.join(recorded) or 'none'}. To record it: make record STUDY={study} MODEL={model}"
        )


def _covered(project: Project, study: str, in_force: Parameters, assignments: list[str]) -> None:
    """Refuse a grid that reaches beyond what is recorded, where a study declares its plan.

    Raises:
        ParameterError: a planned cell has no recorded response.
        ResponsesError: the recording is damaged.
    """
    module = study_module(project, study)
    if not hasattr(module, "plan"):
        return
    import pandas as pd

    from persona_studies.ask import responses, unfinished
    from persona_studies.ask.models import slug
    from persona_studies.design import protocol
    from persona_studies.design.plan import IDENTITY

    declared = protocol.load(project.protocol(study))
    wanted = module.plan(project, declared, in_force)
    model = slug(responses.meant(project, study, in_force.model_dump()["model"]))
    if not model:
        return
    folder = project.responses(study, model)
    record = responses.record_of(folder) or {"files": {}, "model": {"name": model}}
    files = record["files"]
    stored = [
        responses.read_parquet(folder / name, file["sha256"])
        for name, file in files.items()
        if (folder / name).is_file()
    ]
    rows = pd.concat([wanted[IDENTITY].head(0), *stored])
    part = unfinished.incomplete(record)
    if not part:
        wanted = _held(project, study, wanted, rows, declared, in_force)
    wanted = responses.as_recorded(wanted, rows)[IDENTITY]
    recorded = pd.MultiIndex.from_frame(rows[IDENTITY])
    absent = wanted[~pd.MultiIndex.from_frame(wanted).isin(recorded)]
    if len(absent):
        first = ", ".join(f"{name} {value}" for name, value in absent.iloc[0].items())
        given = " ".join(assignments)
        if part:
            raise ParameterError(
                f"Parameter 'model' cannot be {model!r}: its recording for {study} is {part}. "
                f"To complete it: {unfinished.to_record(project, study, record, given)}"
            )
        raise ParameterError(
            f"With {given} the grid reaches beyond what is recorded for {model}: {len(absent):,} of "
            f"{len(wanted):,} planned cells have no response, first {first}. "
            f"To record them: {unfinished.to_record(project, study, record, given)}"
        )


def _held(
    project: Project, study: str, wanted: pd.DataFrame, rows: pd.DataFrame, declared: Protocol, in_force: Parameters
) -> pd.DataFrame:
    """Return the cells of the measures that a recording holds; a model need not answer every measure.

    Raises:
        ParameterError: the measure that was asked for is not one of them.
    """
    from persona_studies.design.plan import DERIVED

    held = {*rows["measure"]}
    if not held:
        return wanted
    asked = in_force.model_dump().get("measure")
    needed = DERIVED.get(str(asked), asked)
    kinds = {*wanted.loc[wanted["measure"].isin(held), "kind"]}
    if asked not in (None, "primary") and needed not in held | kinds:
        model = in_force.model_dump()["model"]
        raise ParameterError(
            f"measure={asked} is not in the recording of {model}, which holds {', '.join(sorted(held))}. "
            f"Leave measure out, or record it: --measures {needed}"
        )
    absent = {*wanted["measure"]} - held
    if not absent:
        return wanted
    # What only the given parameters ask for cannot be left out.
    usual = study_module(project, study).plan(project, declared, resolve(project, study, [])[0])
    return wanted[wanted["measure"].isin(held) | ~wanted["measure"].isin({*usual["measure"]})]


def _execute(
    project: Project,
    study: str,
    overrides: dict[str, Any],
    partial: Path,
    failed: Path,
    lacking: dict[str, str],
    allowed: float,
) -> None:
    """Run every cell whose sources can be had into ``partial``.

    On failure the notebook as far as it came is left at ``failed``.
    """
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    from persona_studies.reproduce import notebooks
    from persona_studies.reproduce.engine import register

    register()
    raw = partial / f"{study}.ipynb"
    failed.unlink(missing_ok=True)
    committed = notebooks.read(project.notebook(study))
    for cell in notebooks.needing(committed, lacking):
        cell.metadata.tags.append(SKIP)
    given = partial / f"{study}.given.ipynb"
    given.write_text(json.dumps(committed), encoding="utf-8")
    # A profile of its own: start-up files and settings in a user's home must not reach a cell.
    profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    environment = {
        **os.environ,
        **ENVIRONMENT,
        "IPYTHONDIR": profile.name,
        "PERSONA_STUDIES_OUT": str(partial),
        "PERSONA_STUDIES_ROOT": str(project.root),
    }
    try:
        papermill.execute_notebook(
            str(given),
            str(raw),
            parameters=overrides,
            engine_name="persona-studies",
            kernel_name="python3",
            language="python",
            cwd=str(project.studies),
            progress_bar={"desc": study} if sys.stderr.isatty() else False,
            record_timing=False,
            environment=environment,
            start_timeout=START_SECONDS,
            execution_timeout=math.ceil(allowed),
        )
        unfinished = _unfinished(raw)
        trouble = f"{unfinished} ended the kernel" if unfinished else None
    except papermill.PapermillExecutionError as error:
        trouble = f"code cell {error.exec_count} ({_first_line(error.source)}): {error.ename}: {error.evalue}"
    except DeadKernelError:
        trouble = (
            f"the kernel died in {_running(raw)}. If nobody ended it, memory ran out: close other programs, "
            "run one study at a time, or choose a smaller grid"
        )
    except CellTimeoutError:
        trouble = f"{_running(raw)} took longer than {allowed:g} s: it hangs, or the grid is too large"
    except RuntimeError as error:  # as nbclient says that a kernel does not answer
        trouble = f"the kernel did not start ({error}); try again when the machine is less busy"
    finally:
        profile.cleanup()
        given.unlink()
    if trouble:
        if raw.exists():
            shutil.move(raw, failed)
        raise RunError(f"{study} did not complete: {trouble}\nThe notebook as far as it came: {failed}")
    executed = notebooks.read(raw)
    if lacking:
        notebooks.keep_outputs(executed, committed, lacking)
        for cell in notebooks.needing(executed, lacking):
            cell.metadata.tags.remove(SKIP)
    notebooks.write(executed, raw)


def _unfinished(raw: Path) -> str | None:
    """Name the first cell that did not complete. A notebook that ends itself looks like success to papermill."""
    from persona_studies.reproduce import notebooks

    if not raw.exists():
        return "the first cell"
    for place, cell in enumerate((c for c in notebooks.read(raw).cells if c.cell_type == "code"), start=1):
        ended = any(output.output_type == "error" for output in cell.outputs)
        # An empty cell is passed over.
        passed = not cell.source.strip() or SKIP in cell.metadata.get("tags", [])
        if ended or (cell.execution_count is None and not passed):
            return f"code cell {place} ({_first_line(cell.source)})"
    return None


def _running(raw: Path) -> str:
    """Name the last cell that was started."""
    from persona_studies.reproduce import notebooks

    code = [cell for cell in notebooks.read(raw).cells if cell.cell_type == "code"] if raw.exists() else []
    begun = [place for place, cell in enumerate(code) if cell.metadata.get("papermill", {}).get("start_time")]
    return f"code cell {begun[-1] + 1} ({_first_line(code[begun[-1]].source)})" if begun else "the first cell"


def _first_line(source: str) -> str:
    return (source.strip().splitlines() or ["empty"])[0][:70]


def _beside(folder: Path, what: str) -> Path:
    """Name a hidden neighbour of a folder. Who holds its lock owns the others; a next run finds what is left."""
    return folder.with_name(f".{folder.name}.persona-studies-{what}")


@contextmanager
def _partial(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside the final one and remove what is left of it, whatever happens."""
    for left in folder.parent.glob(f"{glob.escape(_beside(folder, 'partial').name)}*"):
        shutil.rmtree(left, ignore_errors=True)
    # A name of its own: the kernel of a killed run may live on for a second and write to where it was told.
    partial = _beside(folder, f"partial-{secrets.token_hex(4)}")
    partial.mkdir()
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _swap(partial: Path, folder: Path) -> None:
    """Put a finished folder in the place of an earlier one; files that no run wrote move along.

    Raises:
        RunError: such a file has the name of a new output.
    """
    old = _beside(folder, "old")
    # The comparison with the reference is written after a run and is outdated now.
    written = {"run.json", "diff.md", "diff.html", *((record(folder) or {}).get("outputs", {}))}
    for path in _files(folder):
        name = path.relative_to(folder)
        if name.as_posix() in written:
            continue
        if os.path.lexists(partial / name):
            raise RunError(f"{path} was not written by a run and would be replaced by one; move it elsewhere.")
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, partial / name, follow_symlinks=False)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _mend(folder: Path) -> None:
    """Undo or finish a swap that was killed half-way."""
    old = _beside(folder, "old")
    if old.is_dir() and not folder.exists():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _files(folder: Path) -> list[Path]:
    """Return the files and links below a folder, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or path.is_file())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _tree(root: Path, places: Iterable[Path], pattern: str = "*") -> str:
    """Hash files and the files below folders, by name and content."""
    total = hashlib.sha256()
    for place in places:
        files = sorted(place.rglob(pattern)) if place.is_dir() else [place] if place.is_file() else []
        for path in files:
            if path.is_file() and "__pycache__" not in path.parts:
                total.update(path.relative_to(root).as_posix().encode() + b"\0")
                total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
