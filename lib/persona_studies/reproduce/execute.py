"""Execute a notebook's cells with papermill, strictly.

papermill itself leaves a half-executed output behind when a cell fails, and counts ``sys.exit(0)`` as success. Here
a run ends well only when every cell has completed.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from persona_studies.errors import RunError
from persona_studies.paths import Project

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


def execute(
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
    from persona_studies.reproduce import notebooks

    raw = partial / f"{study}.ipynb"
    failed.unlink(missing_ok=True)
    committed = notebooks.read(project.notebook(study))
    for cell in notebooks.needing(committed, lacking):
        cell.metadata.tags.append(SKIP)
    given = partial / f"{study}.given.ipynb"
    given.write_text(json.dumps(committed), encoding="utf-8")
    try:
        trouble = _trouble(project, study, overrides, given, raw, allowed)
    finally:
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


def _trouble(
    project: Project, study: str, overrides: dict[str, Any], given: Path, raw: Path, allowed: float
) -> str | None:
    """Execute ``given`` into ``raw``; return in words why some cell did not complete, None where all did."""
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    from persona_studies.reproduce.engine import register

    register()
    # A profile of its own: start-up files and settings in a user's home must not reach a cell.
    profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    environment = {
        **os.environ,
        **ENVIRONMENT,
        "IPYTHONDIR": profile.name,
        "PERSONA_STUDIES_OUT": str(raw.parent),
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
        return f"{unfinished} ended the kernel" if unfinished else None
    except papermill.PapermillExecutionError as error:
        return f"code cell {error.exec_count} ({_first_line(error.source)}): {error.ename}: {error.evalue}"
    except DeadKernelError:
        return (
            f"the kernel died in {_running(raw)}. If nobody ended it, memory ran out: close other programs, "
            "run one study at a time, or ask less"
        )
    except CellTimeoutError:
        return f"{_running(raw)} took longer than {allowed:g} s: it hangs, or it does too much"
    except RuntimeError as error:  # as nbclient says that a kernel does not answer
        return f"the kernel did not start ({error}); try again when the machine is less busy"
    finally:
        profile.cleanup()


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
