"""Notebooks as files: the parameters cell, the committed form, and the rules a committed notebook keeps."""

from __future__ import annotations

import ast
import base64
import hashlib
import importlib
import io
import re
import sys
import tokenize
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from persona_studies import files
from persona_studies.analyse.alt import states
from persona_studies.errors import NotebookError
from persona_studies.paths import Project

if TYPE_CHECKING:
    from nbformat import NotebookNode

ABSOLUTE_PATH = re.compile(r"(?<![\w/.:])(?:/(?:home|Users|tmp|root|mnt|work)/|[A-Z]:\\\\?(?![nrt][^a-z])[\w-]+\\)")
"""A folder of somebody's machine. A drive needs a folder below it: the repr of a text may say ``Answer A:\\n``."""


# A cell that needs foreign rows names their sources in a tag, as in `source:ndbench-*`.
SOURCE_TAG = "source:"
# A cell above the parameters: it holds places for the finding, the table of claims and the main figure.
FIRST_SCREEN = "first-screen"
# An output that says why the others of its cell are the committed ones.
NOTICE = "not_rebuilt"


# Tables that every study has, by the method of a study that writes each.
STANDARD = {
    **{"claims": "verdicts", "recorded": "responses", "provenance": "provenance"},
    **{"example": "example", "released_example": "example"},
}


def nbformat() -> ModuleType:
    """Return the package nbformat, imported where it is used.

    It imports jsonschema, which compiles the grammars of international web addresses if it finds them. No notebook
    has such addresses, and without the grammars the import takes 0.1 seconds instead of 1.4.
    """
    if "nbformat" not in sys.modules and "rfc3987_syntax" not in sys.modules:
        hidden: dict[str, Any] = {"rfc3987_syntax": None}
        sys.modules.update(hidden)
        try:
            return importlib.import_module("nbformat")
        finally:
            del sys.modules["rfc3987_syntax"]
    return importlib.import_module("nbformat")


def read(path: Path) -> NotebookNode:
    """Read a notebook.

    Raises:
        NotebookError: no such file, or not a notebook.
    """
    wrong: dict[str, Exception] = {}
    try:
        notebook: NotebookNode = nbformat().read(path, as_version=4, capture_validation_error=wrong)
        if wrong:
            raise wrong["ValidationError"]
    except FileNotFoundError as error:
        raise NotebookError(f"No notebook {path.name}.") from error
    except Exception as error:  # nbformat raises what JSON and its schema raise
        raise NotebookError(f"{path.name} is not a notebook: {error}; restore it with git checkout.") from error
    return notebook


def write(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook in its committed form."""
    path.write_text(nbformat().writes(normalise(notebook)) + "\n", encoding="utf-8")


def parameters_cell(notebook: NotebookNode) -> NotebookNode:
    """Return the one code cell tagged ``parameters``, the first code cell but those tagged ``first-screen``.

    Cells of the first screen stand above the parameters: they hold places for what the notebook finds.

    Raises:
        NotebookError: there is none, there are several, or other code comes before it.
    """
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = [place for place, cell in enumerate(code, start=1) if "parameters" in cell.metadata.get("tags", [])]
    others = [
        place for place, cell in enumerate(code, start=1) if FIRST_SCREEN not in cell.metadata.get("tags", [])
    ]
    if not tagged:
        raise NotebookError(
            "No cell is tagged `parameters`, so parameters would be ignored silently; tag the first code cell."
        )
    if len(tagged) > 1:
        raise NotebookError(f"Code cells {', '.join(map(str, tagged))} are all tagged `parameters`; keep one.")
    if tagged != others[:1]:
        raise NotebookError(f"The cell tagged `parameters` is code cell {tagged[0]}; it must be the first.")
    first: NotebookNode = code[tagged[0] - 1]
    return first


def parameters(notebook: NotebookNode) -> dict[str, Any]:
    """Return the declared parameters and their values in order: one literal a line, each with a comment.

    Raises:
        NotebookError: anything else stands in the cell, a name occurs twice, or a comment is missing.
    """
    source = parameters_cell(notebook).source
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        said = f"The parameters cell is not Python, line {error.lineno}: {error.msg}; mend it there."
        raise NotebookError(said) from error
    except (ValueError, RecursionError, MemoryError) as error:  # of null bytes, and of brackets without end
        raise NotebookError(f"The parameters cell is not Python ({error!r}); mend it there.") from error
    comments = {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found: dict[str, Any] = {}
    for statement in body:
        where = f"The parameters cell, line {statement.lineno}"
        if not (
            isinstance(statement, ast.Assign)
            and len(statement.targets) == 1
            and isinstance(statement.targets[0], ast.Name)
        ):
            raise NotebookError(f"{where}: only assignments `name = literal  # comment` may stand there.")
        name = statement.targets[0].id
        try:
            value = ast.literal_eval(statement.value)
        except (ValueError, TypeError, RecursionError, MemoryError) as error:
            raise NotebookError(f"{where}: {name!r} is not a literal; write out its value.") from error
        if name in found:
            raise NotebookError(f"{where}: {name!r} is assigned twice; keep one.")
        if not comments.get(statement.end_lineno or statement.lineno):
            raise NotebookError(f"{where}: {name!r} has no comment; say behind a # what it is.")
        found[name] = value
    return found


def foreign(project: Project, study: str) -> list[str]:
    """Return where a study's notebook or code belongs to another study, one line each; empty where it does not.

    A copied study keeps the name of the one that it was copied from until every such place is changed.
    """
    others = {*project.names(), *(path.parent.name for path in project.studies.glob("*/*.py"))} - {study}
    cells = [cell.source for cell in read(project.notebook(study)).cells if cell.cell_type == "code"]
    code = [(f"{study}.ipynb, code cell {place}", source) for place, source in enumerate(cells, start=1)]
    code += [
        (f"{study}/{path.name}", path.read_text("utf-8")) for path in sorted(project.folder(study).glob("*.py"))
    ]
    found = []
    for place, source in code:
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):  # a cell of the shell, or one whose own error says more
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.Import | ast.ImportFrom | ast.Call):
                continue
            where = f"{place}, line {node.lineno}"
            for name in _imported(node) & others:
                remedy = f"import from {study!r} or the library, for no study imports another"
                found.append(f"{where}: imports the study {name!r}; {remedy}.")
            opened = _opened(node)
            if opened not in (None, study):
                found.append(f'{where}: opens the study {opened!r}; write Study.open("{study}", parameters).')
    return found


def _imported(node: ast.AST) -> set[str]:
    """Return the packages that a statement imports."""
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    return {(node.module or "").split(".")[0]} if isinstance(node, ast.ImportFrom) and not node.level else set()


def _opened(node: ast.AST) -> str | None:
    """Return the study that a call of ``Study.open`` names."""
    # By its last name first: to write out what every call calls takes longer than to read the file.
    if not (isinstance(node, ast.Call) and node.args and getattr(node.func, "attr", "") == "open"):
        return None
    if not ast.unparse(node.func).endswith("Study.open"):
        return None
    name = node.args[0]
    return name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else None


def title(notebook: NotebookNode) -> str:
    """Return the heading that a notebook opens with; empty where there is none."""
    first = notebook.cells[0].source if notebook.cells else ""
    return first.splitlines()[0].lstrip("# ") if first.startswith("# ") else ""


def finding(notebook: NotebookNode) -> str:
    """Return what a notebook says it found, the first Markdown that its code shows; empty where it shows none."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    texts = (output.get("data", {}).get("text/markdown") for output in outputs)
    return str(next((text for text in texts if text), "")).strip()


def sources(notebook: NotebookNode) -> list[tuple[str, str]]:
    """Return ``(cell type, source)`` of every cell but an injected one."""
    return [
        (cell.cell_type, cell.source)
        for cell in notebook.cells
        if "injected-parameters" not in cell.metadata.get("tags", [])
    ]


def saved(source: str) -> list[tuple[str, str]]:
    """Return what a cell saves, in its order: ("table" or "figure", name)."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    found = []
    for call in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
        to = call.func
        if not (isinstance(to, ast.Attribute) and isinstance(to.value, ast.Name) and to.value.id == "study"):
            continue
        if to.attr in STANDARD:
            found.append(("table", STANDARD[to.attr]))
        elif to.attr in ("table", "figure") and isinstance(call.args[1], ast.Constant):
            found.append((to.attr, str(call.args[1].value)))
    return found


def drawn_from(source: str) -> dict[str, list[str]]:
    """Return the tables that the figures of a cell are drawn from, as its calls of ``study.figure`` say.

    >>> drawn_from('study.figure(plot, "main", alt="", caption="", tables=["who", "tests"])')
    {'main': ['who', 'tests']}
    """
    found = {}
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        if ast.unparse(call.func) == "study.figure" and isinstance(call.args[1], ast.Constant):
            given = next((word.value for word in call.keywords if word.arg == "tables"), ast.List(elts=[]))
            found[str(call.args[1].value)] = [*dict.fromkeys(str(name) for name in ast.literal_eval(given))]
    return found


@dataclass(frozen=True)
class Drawing:
    """A figure that a notebook shows: the name it is saved under, and its text."""

    name: str
    alt: str


def drawing(output: NotebookNode, project: Project, study: str) -> Drawing:
    """Return which figure of a study an output with a picture shows.

    Raises:
        NotebookError: it is not one of the saved figures, or no text states what it shows.
    """
    shown = hashlib.sha256(base64.b64decode(output.data["image/png"])).hexdigest()
    alt = output.metadata.get("image/png", {}).get("alt", "")
    for path in sorted(project.figures(study).glob("*.png")):
        if files.sha256(path) == shown:
            if not states(alt):
                raise NotebookError(
                    f"{study}.ipynb: figure {path.stem} needs an alt text that states what it shows."
                )
            return Drawing(path.stem, alt)
    raise NotebookError(
        f"{study}.ipynb shows a picture that is none of {project.figures(study).relative_to(project.root)}/*.png; "
        "save it with study.figure, then make accept."
    )


def first_drawing(project: Project, study: str) -> Drawing:
    """Return the figure on a notebook's first screen.

    Raises:
        NotebookError: the notebook shows no figure, or see :func:`drawing`.
    """
    for cell in read(project.notebook(study)).cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                return drawing(output, project, study)
    raise NotebookError(f"{study}.ipynb shows no figure; its first screen needs the main one.")


def source_patterns(notebook: NotebookNode) -> list[str]:
    """Return what the tags of a notebook's cells name as sources, each once, in order."""
    tags = [tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])]
    return list(dict.fromkeys(tag.removeprefix(SOURCE_TAG) for tag in tags if tag.startswith(SOURCE_TAG)))


def needing(notebook: NotebookNode, patterns: Collection[str]) -> list[NotebookNode]:
    """Return the code cells whose tags name one of these sources."""
    tags = {f"{SOURCE_TAG}{pattern}" for pattern in patterns}
    return [c for c in notebook.cells if c.cell_type == "code" and tags.intersection(c.metadata.get("tags", []))]


def keep_outputs(notebook: NotebookNode, committed: NotebookNode, lacking: Mapping[str, str]) -> None:
    """Give cells that were not executed the committed outputs, below a line that says so.

    Args:
        notebook: As executed; its other cells are numbered as if all had been.
        committed: The same cells with their outputs.
        lacking: Sources that are not available -> address.
    """
    kept = {cell.id: cell for cell in needing(committed, lacking)}
    for place, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), start=1):
        if cell.id in kept:
            addresses = [a for pattern, a in lacking.items() if f"{SOURCE_TAG}{pattern}" in cell.metadata.tags]
            said = f"Not rebuilt: {', '.join(addresses)} could not be fetched. Below are the committed results."
            notice = nbformat().v4.new_output("display_data", data={"text/plain": said}, metadata={NOTICE: True})
            cell.outputs = [notice, *kept[cell.id].outputs]
        cell.execution_count = place
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = place


def normalise(notebook: NotebookNode) -> NotebookNode:
    """Return the committed form: nothing in it depends on when, where or by what it was executed."""
    node = nbformat().NotebookNode
    for place, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags", [])
        cell.metadata = node({"tags": tags} if tags else {})
        if "injected-parameters" in tags:
            cell.id = f"injected-{place}"
        if cell.cell_type == "code":
            cell.outputs = _merge_streams(cell.outputs)
            for output in cell.outputs:
                output.pop("transient", None)
    notebook.metadata = node(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    return notebook


def _merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join neighbouring pieces of one stream, which a kernel cuts by the clock."""
    merged: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream" and merged and merged[-1].get("name") == output.name:
            merged[-1].text += output.text
        else:
            merged.append(output)
    return merged


def problems(project: Project, study: str) -> list[str]:
    """Return every rule that a committed notebook breaks, one line each; empty when it keeps them all."""
    path = project.notebook(study)
    notebook = read(path)
    found: list[str] = []
    try:
        parameters(notebook)
    except NotebookError as error:
        found.append(str(error))
    found += foreign(project, study)
    first = notebook.cells[:1]
    if not first or first[0].cell_type != "markdown" or not first[0].source.startswith("# "):
        found.append("The first cell must be a title (`# ...`).")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if any(not cell.source.strip() for cell in code):
        found.append("A code cell is empty; delete it.")
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append("Cells were not executed once, in order, from the first to the last.")
    for place, cell in enumerate(code, start=1):
        found += [f"Code cell {place}: {problem}" for problem in _cell_problems(cell)]
    if patterns := source_patterns(notebook):
        from persona_studies.design.sources import load

        ids = list(load(project))
        unknown = [p for p in patterns if not any(fnmatchcase(id, p) for id in ids)]
        found += [f"Tag {SOURCE_TAG}{pattern} names no source." for pattern in unknown]
    if nbformat().writes(normalise(read(path))) + "\n" != path.read_text(encoding="utf-8"):
        found.append("The file is not in its committed form; run make accept.")
    return [problem if problem.startswith(study) else f"{path.name}: {problem}" for problem in found]


def _cell_problems(cell: NotebookNode) -> list[str]:
    found = []
    texts = [cell.source]
    for output in cell.outputs:
        if NOTICE in output.get("metadata", {}):
            found.append("it shows committed results and none of its own.")
        if output.output_type == "error":
            found.append(f"an error is in its output ({output.ename}).")
        if output.output_type == "stream":
            texts.append(output.text)
            if output.name == "stderr":
                found.append("it wrote to stderr.")
        for kind, data in output.get("data", {}).items():
            if kind.startswith("text/"):
                texts.append("".join(data))
            alt = output.get("metadata", {}).get("image/png", {}).get("alt", "")
            if kind == "image/png" and not states(alt):
                found.append("a figure has no alt text.")
    if any(ABSOLUTE_PATH.search(text) for text in texts):
        found.append("it names an absolute path.")
    if "sys.path" in cell.source:
        found.append("it changes sys.path.")
    return found


def main() -> int:
    """Check every study's notebook; print what is wrong and return 1, or 0."""
    project = Project.find()
    found = [problem for study in project.names() for problem in problems(project, study)]
    sys.stdout.write(
        "".join(f"{problem}\n" for problem in found) or f"{len(project.names())} notebooks keep the rules\n"
    )
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
