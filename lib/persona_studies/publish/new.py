"""A new study: a small one that works, whose questions, personas and claims are then replaced by one's own."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from pathlib import Path

import nbformat
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import persona_studies
from persona_studies.errors import ParameterError, quoted
from persona_studies.paths import Project

TEMPLATES = Path(__file__).parent / "templates" / "study"
LONGEST = 30
# Names of pages and folders beside those of studies.
TAKEN = {"index", "style", "main", "interactive", "shared", "questions"}
UNITS = """
[{study}]
teacher = "difference in accuracy"
beyond_any_persona = "difference in accuracy"
"""


def write(project: Project, study: str) -> list[Path]:
    """Write a small study that works, and return its files.

    Raises:
        ParameterError: a name that is taken, or that Python or a file system could not use; nothing is written.
    """
    check(project, study)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    text = {path.name: environment.get_template(path.name).render(study=study) for path in TEMPLATES.glob("*.j2")}
    bank = project.items / study
    files = {
        project.folder(study) / "__init__.py": "",
        project.protocol(study): text["protocol.toml.j2"],
        project.design(study): text["design.py.j2"],
        project.folder(study) / "analysis.py": text["analysis.py.j2"],
        bank / "personas.csv": text["personas.csv.j2"],
        bank / "items.csv": text["items.csv.j2"],
        _test(project, study): text["test.py.j2"],
        # Last: with it the study is there.
        project.notebook(study): nbformat.writes(_notebook(text["notebook.py.j2"])) + "\n",
    }
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    units = project.data / "units.toml"
    units.write_text(units.read_text("utf-8").rstrip("\n") + "\n" + UNITS.format(study=study), encoding="utf-8")
    return [*files, units]


def check(project: Project, study: str) -> None:
    """Refuse a name that a new study cannot have.

    Raises:
        ParameterError: the name, why, and what to do.
    """
    if problem := _problem(project, study):
        raise ParameterError(
            f"{quoted(study)} cannot name a new study: {problem}. Use another name, such as own_{_plain(study)}."
        )


def _plain(study: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", study.lower())[: LONGEST - 4].strip("_") or "study"


def _problem(project: Project, study: str) -> str | None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", study) or len(study) > LONGEST:
        return f"it needs small letters, digits and single '_', a letter first, {LONGEST} characters at most"
    if keyword.iskeyword(study) or keyword.issoftkeyword(study):
        return "it is a word of Python"
    for path in (
        *(project.notebook(study), project.folder(study), project.items / study, _test(project, study)),
        *(project.responses(study), project.results(study), project.figures(study)),
    ):
        if path.exists():
            return f"{path.relative_to(project.root)} exists"
    library = {path.stem for path in Path(persona_studies.__file__).parent.rglob("*.py")}
    folders = {path.name for path in project.root.iterdir()}
    makefile = project.root / "Makefile"
    verbs = re.findall(r"^([a-z]+):", makefile.read_text("utf-8"), re.MULTILINE) if makefile.is_file() else []
    if study in {*library, *folders, *verbs, *TAKEN} or study.startswith("test_"):
        return "a module, a folder or a command of this project has that name"
    if study in sys.stdlib_module_names or study in sys.builtin_module_names:
        return "a module of Python has that name"
    if importlib.util.find_spec(study) is not None:
        return "an installed package has that name"
    return None


def _test(project: Project, study: str) -> Path:
    return project.root / "tests" / "studies" / f"test_{study}.py"


def _notebook(text: str) -> nbformat.NotebookNode:
    """Return a notebook; in its text a cell begins with ``# %%``, ``# %% [markdown]``, or its tag in brackets."""
    cells: list[nbformat.NotebookNode] = []
    for kind, source in re.findall(r"^# %%(?: \[([\w-]+)\])?\n(.*?)(?=^# %%|\Z)", text, re.DOTALL | re.MULTILINE):
        cell = new_markdown_cell(source.strip()) if kind == "markdown" else new_code_cell(source.strip())
        cell.metadata = nbformat.NotebookNode({} if kind in ("", "markdown") else {"tags": [kind]})
        cell.id = f"cell-{len(cells):02}"
        cells.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    made = new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})
    return nbformat.NotebookNode(made)
