"""The rules a committed notebook keeps: each is broken once and named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from persona_studies.errors import NotebookError
from persona_studies.paths import Project
from persona_studies.reproduce import notebooks

REPOSITORY = Project(Path(__file__).parents[2])


@pytest.fixture
def clean(toy_project: Project) -> Project:
    """The toy study as if it had been executed and accepted."""
    notebook = notebooks.read(toy_project.notebook("toy"))
    for count, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), start=1):
        cell.execution_count = count
    notebooks.write(notebook, toy_project.notebook("toy"))
    return toy_project


def first_is_code(notebook: NotebookNode) -> None:
    notebook.cells[0].source = "no title"


def out_of_order(notebook: NotebookNode) -> None:
    notebook.cells[-1].execution_count = 7


def not_executed(notebook: NotebookNode) -> None:
    notebook.cells[-1].execution_count = None


def an_error(notebook: NotebookNode) -> None:
    notebook.cells[-1].outputs = [new_output("error", ename="ValueError", evalue="x", traceback=[])]


def a_warning(notebook: NotebookNode) -> None:
    notebook.cells[-1].outputs = [new_output("stream", name="stderr", text="careful")]


def a_path(notebook: NotebookNode) -> None:
    notebook.cells[-1].outputs = [new_output("stream", name="stdout", text="see /home/somebody/data.csv")]


def a_silent_figure(notebook: NotebookNode) -> None:
    notebook.cells[-1].outputs = [new_output("display_data", data={"image/png": "eA=="})]


def a_path_hack(notebook: NotebookNode) -> None:
    notebook.cells[-1].source = "import sys\nsys.path.append('..')"


def two_equal_ids(notebook: NotebookNode) -> None:
    notebook.cells.append(new_markdown_cell("again"))
    notebook.cells[-1].id = notebook.cells[0].id


def no_parameters(notebook: NotebookNode) -> None:
    notebook.cells[1].metadata = NotebookNode()


def an_empty_cell(notebook: NotebookNode) -> None:
    notebook.cells[-1].source = " \n"


def not_hashable(notebook: NotebookNode) -> None:
    notebook.cells[1].source = "alpha = {[]: 1}  # a"


def nothing(notebook: NotebookNode) -> None:
    notebook.cells = []


def timing(notebook: NotebookNode) -> None:
    notebook.cells[-1].metadata["execution"] = {"iopub.status.busy": "2026-01-01"}


def test_a_clean_notebook_keeps_every_rule(clean: Project) -> None:
    assert notebooks.problems(clean, "toy") == []


# nbformat mends equal ids when it reads, and says so.
@pytest.mark.filterwarnings("ignore:Non-unique cell id")
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (first_is_code, "The first cell must be a title"),
        (out_of_order, "not executed once, in order"),
        (not_executed, "not executed once, in order"),
        (an_error, "an error is in its output (ValueError)"),
        (a_warning, "it wrote to stderr"),
        (a_path, "it names an absolute path"),
        (a_silent_figure, "a figure has no alt text"),
        (a_path_hack, "it changes sys.path"),
        (two_equal_ids, "not in its committed form"),
        (no_parameters, "No cell is tagged `parameters`"),
        (an_empty_cell, "A code cell is empty"),
        (not_hashable, "'alpha' is not a literal"),
        (nothing, "The first cell must be a title"),
        (timing, "not in its committed form"),
    ],
)
def test_every_broken_rule_is_named(clean: Project, fault: Callable[[NotebookNode], None], message: str) -> None:
    path = clean.notebook("toy")
    notebook = json.loads(path.read_text(), object_hook=NotebookNode)
    fault(notebook)
    path.write_text(json.dumps(notebook, indent=1))
    found = notebooks.problems(clean, "toy")
    assert any(message in problem for problem in found), found
    assert all(problem.startswith("toy.ipynb: ") for problem in found)


def test_normalised_twice_is_the_same_and_without_traces(clean: Project) -> None:
    notebook = notebooks.read(clean.notebook("toy"))
    notebook.metadata["papermill"] = {"duration": 1.0}
    notebook.cells[-1].metadata["papermill"] = {"start_time": "2026"}
    notebook.cells[-1].outputs = [new_output("stream", name="stdout", text=text) for text in ("one ", "line\n")]
    once = nbformat.writes(notebooks.normalise(notebook))
    assert "papermill" not in once
    assert len(notebook.cells[-1].outputs) == 1 and notebook.cells[-1].outputs[0].text == "one line\n"
    assert nbformat.writes(notebooks.normalise(notebook)) == once


def test_only_cells_of_the_first_screen_stand_above_the_parameters(clean: Project) -> None:
    path = clean.notebook("toy")
    notebook = notebooks.read(path)
    declared = notebooks.parameters(notebook)
    above = new_code_cell("places = []", id="above", metadata={"tags": [notebooks.FIRST_SCREEN]})
    notebook.cells.insert(1, above)
    assert notebooks.parameters(notebook) == declared
    above.metadata.tags = []
    with pytest.raises(NotebookError, match="is code cell 2; it must be the first"):
        notebooks.parameters(notebook)


@pytest.mark.parametrize("study", REPOSITORY.names())
def test_every_notebook_has_the_same_first_screen_and_tables(study: str) -> None:
    """First the finding, the claims and the main figure, then the experiment once; provenance at the end."""
    title, screen, *rest = notebooks.read(REPOSITORY.notebook(study)).cells
    assert title.source.startswith("# ") and screen.metadata.tags == [notebooks.FIRST_SCREEN]
    kinds = [sorted({*output.data} - {"text/plain"})[0] for output in screen.outputs]
    assert kinds == ["text/markdown", "text/html", "image/png", "text/markdown"]
    saved = [found for cell in rest if cell.cell_type == "code" for found in notebooks.saved(cell.source)]
    wanted = {"verdicts", "provenance"} | ({"responses"} if REPOSITORY.responses(study).is_dir() else set())
    assert saved[0] == ("table", "example") and saved[-1] == ("table", "provenance")
    assert wanted <= {name for _, name in saved}
    assert any("$" in cell.source for cell in rest if cell.cell_type == "markdown"), "no formula of the outcome"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/home/ada/x", True),
        (r"C:\Users\ada", True),
        (r"C:\\Users\\ada", True),
        (r"A:\n{option_1}", False),
        (r"A:\nSome\n", False),
    ],
)
def test_a_path_of_a_machine_is_told_from_a_line_end(text: str, found: bool) -> None:
    assert bool(notebooks.ABSOLUTE_PATH.search(text)) == found
