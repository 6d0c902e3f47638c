"""Execute a notebook with papermill, strictly.

papermill itself only warns of unknown parameters, leaves a half-executed output behind when a cell fails, and
counts ``sys.exit(0)`` as success. Here everything is checked before a kernel starts, the result appears in one
rename when every cell has completed, and a run whose inputs have not changed is not repeated.

A run's folder holds ``<study>.ipynb``, ``tables/``, ``figures/`` and ``run.json``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from persona_studies.errors import ParameterError, RunError
from persona_studies.paths import Project

if TYPE_CHECKING:
    from persona_studies.parameters import Parameters

# One thread each: sums must not depend on how many cores a machine has.
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "TZ": "UTC",
    "LC_ALL": "C.UTF-8",
}
CELL_TIMEOUT = 3600


@dataclass(frozen=True)
class Run:
    """A completed run.

    Attributes:
        study: Name of the study.
        folder: Where notebook, tables and figures are.
        fresh: Whether it was executed now; False when an unchanged one was found.
        overrides: Parameters that differ from the notebook's own.
    """

    study: str
    folder: Path
    fresh: bool
    overrides: dict[str, Any]


def known(project: Project, study: str) -> str:
    """Return the name of a study, or refuse it with the nearest one.

    Raises:
        ParameterError: no such study.
    """
    names = project.names()
    if study not in names:
        near = get_close_matches(study, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ParameterError(f"Unknown study {study!r}.{hint} Studies: {', '.join(names) or 'none'}.")
    return study


def key(project: Project, study: str, overrides: Mapping[str, Any]) -> dict[str, str]:
    """Return a hash of every input that can change a run, by kind.

    The notebook counts with its sources, not its outputs.
    """
    cells = json.loads(project.notebook(study).read_text(encoding="utf-8"))["cells"]
    texts = [[cell["cell_type"], "".join(cell["source"])] for cell in cells]
    data = [project.items, project.published, project.sources, project.data / "models.toml"]
    return {
        "notebook": _digest(json.dumps(texts).encode()),
        "code": _tree(project.root, [*sorted(project.studies.glob("*.py")), project.root / "lib"], "*.py"),
        "lock": _tree(project.root, [project.root / "uv.lock"]),
        "protocol": _tree(project.root, [project.protocol(study)]),
        "data": _tree(project.root, data),
        "responses": _tree(project.root, [project.responses(study)]),
        "parameters": _digest(json.dumps(overrides, sort_keys=True).encode()),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
    }


def up_to_date(folder: Path, expected: Mapping[str, str]) -> bool:
    """Return whether a folder holds a run with these inputs whose outputs are all as it wrote them."""
    try:
        record = json.loads((folder / "run.json").read_text())
        return bool(record["key"] == dict(expected)) and all(
            _digest((folder / name).read_bytes()) == digest for name, digest in record["outputs"].items()
        )
    except (OSError, ValueError, KeyError):
        return False


def resolve(project: Project, study: str, assignments: Iterable[str]) -> tuple[Parameters, dict[str, Any]]:
    """Check parameters given as ``name=value`` against the notebook and its types.

    Returns:
        The parameters in force, and those that differ from the notebook's own.

    Raises:
        ParameterError: a name or value is wrong.
        NotebookError: the notebook's parameters cell is.
    """
    from persona_studies import notebooks

    declared = notebooks.parameters(notebooks.read(project.notebook(known(project, study))))
    model = parameters_class(project, study)
    given = model.parse(assignments)
    defaults = {name: default.value for name, default in declared.items()}
    in_force = model.check({**defaults, **given})
    values = in_force.model_dump(mode="json")
    return in_force, {name: values[name] for name in given if values[name] != defaults.get(name)}


def study_module(project: Project, study: str) -> ModuleType:
    """Import ``studies/<study>.py`` as its notebook does.

    Raises:
        RunError: the study has no module.
    """
    path = project.module(study)
    spec = importlib.util.spec_from_file_location(f"persona_studies_study_{study}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise RunError(f"No module {path.name}; a study declares its Parameters there.")
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
        raise RunError(f"{study}.py declares no class Parameters.") from error
    return found


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
        out: Another folder.
        force: Execute although nothing has changed.

    Raises:
        ParameterError, NotebookError: before anything is started.
        RunError: a cell failed, ended the kernel or took too long; ``<study>.failed.ipynb`` beside the
            folder shows where, and an earlier result stays as it was.
    """
    known(project, study)
    assignments = list(assignments)
    if not assignments and not force and out is None:
        folder = project.build / study
        if up_to_date(folder, key(project, study, {})):
            return Run(study, folder, False, {})
    in_force, overrides = resolve(project, study, assignments)
    _recorded(project, study, in_force.model_dump().get("model"))
    if overrides:
        _covered(project, study, in_force)
    expected = key(project, study, overrides)
    short = _digest(json.dumps(expected, sort_keys=True).encode())[:12]
    folder = out or (project.runs / study / short if overrides else project.build / study)
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f"{folder.name}.lock"):
        if not force and up_to_date(folder, expected):
            return Run(study, folder, False, overrides)
        with _partial(folder) as partial:
            _execute(project, study, overrides, partial, folder.parent / f"{folder.name}.failed.ipynb")
            outputs = {
                path.relative_to(partial).as_posix(): _digest(path.read_bytes())
                for path in sorted(partial.rglob("*"))
                if path.is_file()
            }
            record = {
                "study": study,
                "key": expected,
                "parameters": in_force.model_dump(mode="json"),
                "overrides": overrides,
                "outputs": outputs,
            }
            (partial / "run.json").write_text(json.dumps(record, indent=1) + "\n")
            _swap(partial, folder)
    return Run(study, folder, True, overrides)


def _recorded(project: Project, study: str, model: str | None) -> None:
    """Refuse a model that has no recording, where a study has a parameter of that name."""
    recorded = sorted(path.parent.name for path in project.responses(study).glob("*/record.json"))
    if model is not None and model not in recorded:
        near = get_close_matches(model, recorded, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ParameterError(
            f"Parameter 'model' cannot be {model!r}: it has no recorded responses for {study}.{hint} "
            f"Recorded: {', '.join(recorded) or 'none'}. To record it: make record STUDY={study} MODEL={model}"
        )


def _covered(project: Project, study: str, in_force: Parameters) -> None:
    """Refuse a grid that reaches beyond what is recorded, where a study declares its plan.

    Raises:
        ResponsesError: a planned cell has no recorded response.
    """
    module = study_module(project, study)
    if hasattr(module, "plan"):
        from persona_studies import protocol, responses

        plan = module.plan(project, protocol.load(project.protocol(study)), in_force)
        responses.load(project, study, in_force.model_dump()["model"], plan)


def _execute(project: Project, study: str, overrides: dict[str, Any], partial: Path, failed: Path) -> None:
    """Run every cell into ``partial``; on failure leave the notebook as far as it came at ``failed``."""
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    from persona_studies import notebooks
    from persona_studies.engine import register

    register()
    raw = partial / f"{study}.ipynb"
    environment = {
        **os.environ,
        **ENVIRONMENT,
        "PERSONA_STUDIES_OUT": str(partial),
        "PERSONA_STUDIES_ROOT": str(project.root),
    }
    failed.unlink(missing_ok=True)
    try:
        papermill.execute_notebook(
            str(project.notebook(study)),
            str(raw),
            parameters=overrides,
            engine_name="persona-studies",
            kernel_name="python3",
            language="python",
            cwd=str(project.studies),
            progress_bar={"desc": study} if sys.stderr.isatty() else False,
            record_timing=False,
            environment=environment,
            execution_timeout=CELL_TIMEOUT,
        )
        unfinished = _unfinished(raw)
        trouble = f"{unfinished} ended the kernel" if unfinished else None
    except papermill.PapermillExecutionError as error:
        trouble = f"code cell {error.exec_count} ({_first_line(error.source)}): {error.ename}: {error.evalue}"
    except DeadKernelError:
        trouble = f"the kernel died in {_running(raw)}"
    except CellTimeoutError:
        trouble = f"{_running(raw)} took longer than {CELL_TIMEOUT} s"
    if trouble:
        if raw.exists():
            shutil.move(raw, failed)
        raise RunError(f"{study} did not complete: {trouble}\nThe notebook as far as it came: {failed}")
    notebooks.write(notebooks.read(raw), raw)


def _unfinished(raw: Path) -> str | None:
    """Name the first cell that did not complete. A notebook that ends itself looks like success to papermill."""
    from persona_studies import notebooks

    if not raw.exists():
        return "the first cell"
    for place, cell in enumerate((c for c in notebooks.read(raw).cells if c.cell_type == "code"), start=1):
        ended = any(output.output_type == "error" for output in cell.outputs)
        if cell.execution_count is None or ended:
            return f"code cell {place} ({_first_line(cell.source)})"
    return None


def _running(raw: Path) -> str:
    """Name the last cell that was started."""
    from persona_studies import notebooks

    code = [cell for cell in notebooks.read(raw).cells if cell.cell_type == "code"] if raw.exists() else []
    begun = [place for place, cell in enumerate(code) if cell.metadata.get("papermill", {}).get("start_time")]
    return f"code cell {begun[-1] + 1} ({_first_line(code[begun[-1]].source)})" if begun else "the first cell"


def _first_line(source: str) -> str:
    return (source.strip().splitlines() or ["empty"])[0][:70]


@contextmanager
def _partial(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside the final one and remove what is left of it, whatever happens."""
    partial = folder.parent / f".{folder.name}.partial-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _swap(partial: Path, folder: Path) -> None:
    """Put a finished folder in its place."""
    old = folder.parent / f".{folder.name}.old-{os.getpid()}"
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


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
