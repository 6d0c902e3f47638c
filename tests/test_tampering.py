"""Whatever is changed in a reference, a build or its inputs is noticed and named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_output
from PIL import Image

from persona_studies import notebooks, recording, runs, tables, verify
from persona_studies.errors import PersonaStudiesError
from persona_studies.paths import Project
from tests.simulated import SimulatedBackend
from tests.test_recording import answer, small_plan

Report = verify.Report


def build(project: Project) -> Path:
    """Write what a completed run of the toy study would have written."""
    folder = project.build / "toy"
    for kind in ("tables", "figures"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame({"claim": ["one", "two"], "r": [0.25, -0.5], "n": [55, 55], "rejected": [True, False]})
    tables.save(frame, folder / "tables" / "result.csv")
    Image.fromarray(np.full((4, 5, 3), 200, dtype=np.uint8)).save(folder / "figures" / "plot.png")
    (folder / "figures" / "plot.svg").write_text("<svg/>")
    notebook = notebooks.read(project.notebook("toy"))
    notebook.cells[-1].outputs = [new_output("stream", name="stdout", text="0.05\n")]
    notebooks.write(notebook, folder / "toy.ipynb")
    outputs = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }
    record = {"study": "toy", "key": runs.key(project, "toy", {}), "overrides": {}, "outputs": outputs}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def accepted(toy_project: Project) -> Project:
    plan = small_plan(2)
    recording.record(toy_project, "toy", plan, SimulatedBackend(answer))
    recording.pack(toy_project, "toy", plan, "simulated")
    build(toy_project)
    assert verify.accept(toy_project, "toy", confirm=lambda _: True) is not None
    build(toy_project)
    return toy_project


def said(project: Project) -> str:
    report = verify.verify(project, ["toy"])
    assert not report.ok
    text = "\n".join(report.lines())
    assert "differs" in (project.build / "report.md").read_text() or "stale" in text or "broken" in text
    return text


def test_an_accepted_build_agrees(accepted: Project) -> None:
    report = verify.verify(accepted, ["toy"])
    assert report.ok, "\n".join(report.lines())
    assert {artifact.name for artifact in report.artifacts} == {
        "recorded responses",
        "reference files",
        "tables/result.csv",
        "figures/plot.png",
        "figures/plot.svg",
        "notebook",
    }
    assert (accepted.build / "report.md").read_text().startswith("# Comparison with the reference")


def test_one_cell_of_a_reference_table(accepted: Project) -> None:
    path = accepted.results("toy") / "result.csv"
    path.write_text(path.read_text().replace("0.25", "0.26"))
    text = said(accepted)
    assert "row 1 (one), column r: 0.26 in the reference, 0.25 in this run" in text
    assert "data/results/toy/result.csv was changed since the reference was accepted" in text


@pytest.mark.parametrize(("old", "new"), [("two", "three"), ("55", "56"), ("True", "False")])
def test_texts_integers_and_flags_have_no_tolerance(accepted: Project, old: str, new: str) -> None:
    accepted.protocol("toy").write_text(accepted.protocol("toy").read_text() + "\n[tolerance]\ndefault = 10.0\n")
    path = accepted.results("toy") / "result.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    assert "in the reference" in said(accepted)


def test_tolerance_of_a_column(toy_project: Project, tmp_path: Path) -> None:
    one, other = tmp_path / "t.csv", tmp_path / "u.csv"
    tables.save(pd.DataFrame({"x": [1.0], "y": [1.0]}), one)
    tables.save(pd.DataFrame({"x": [1.0 + 1e-7], "y": [1.0 + 1e-7]}), other)
    assert verify.compare_tables(one, other, {"t.x": 1e-6, "t.y": 1e-6}) == (verify.WITHIN, ())
    status, lines = verify.compare_tables(one, other, {"t.x": 1e-6})
    assert status == verify.DIFFERS and len(lines) == 1 and "column y" in lines[0]


def test_shape_of_a_table(tmp_path: Path) -> None:
    one, other = tmp_path / "t.csv", tmp_path / "u.csv"
    tables.save(pd.DataFrame({"x": [1.0]}), one)
    tables.save(pd.DataFrame({"x": [1.0, 2.0]}), other)
    assert "1 rows in the reference, 2" in verify.compare_tables(one, other, {})[1][0]
    tables.save(pd.DataFrame({"z": [1.0]}), other)
    assert "columns" in verify.compare_tables(one, other, {})[1][0]


def change_pixel(project: Project) -> None:
    path = project.figures("toy") / "plot.png"
    pixels = np.asarray(Image.open(path)).copy()
    pixels[0, 0] = 0
    Image.fromarray(pixels).save(path)


def change_output(project: Project) -> None:
    path = project.notebook("toy")
    path.write_text(path.read_text().replace('"0.05\\n"', '"0.06\\n"'))


def change_response(project: Project) -> None:
    path = project.responses("toy", "simulated") / "score.parquet"
    frame = pd.read_parquet(path)
    frame.assign(entropy=frame["entropy"].where(frame.index != 1, 0.5)).to_parquet(path, index=False)


def change_protocol(project: Project) -> None:
    project.protocol("toy").write_text(project.protocol("toy").read_text() + "threshold = 2\n")


def remove_table(project: Project) -> None:
    (project.results("toy") / "result.csv").unlink()


def add_figure(project: Project) -> None:
    (project.figures("toy") / "other.png").write_bytes((project.figures("toy") / "plot.png").read_bytes())


def change_build(project: Project) -> None:
    (project.build / "toy" / "tables" / "result.csv").write_text("claim\none\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_pixel, "5.00% of the pixels differ"),
        (change_output, "code cell 3"),
        (change_response, "score.parquet, row 1"),
        (change_protocol, "protocol changed since; run make reproduce"),
        (change_protocol, "studies/toy.toml was changed since the reference was accepted"),
        (remove_table, "data/results/toy/result.csv is gone"),
        (remove_table, "not in the reference"),
        (add_figure, "missing from the run"),
        (change_build, "its files were changed"),
    ],
)
def test_every_kind_of_change_is_named(accepted: Project, change: Callable[[Project], None], message: str) -> None:
    change(accepted)
    assert message in said(accepted)


def test_other_bytes_with_the_same_pixels_are_within_tolerance(accepted: Project) -> None:
    path = accepted.build / "toy" / "figures" / "plot.png"
    Image.open(path).save(path, compress_level=1, pnginfo=None, bits=8)
    if path.read_bytes() == (accepted.figures("toy") / "plot.png").read_bytes():
        Image.open(path).convert("RGBA").save(path)
    status, lines = verify.compare_figures(accepted.figures("toy") / "plot.png", path)
    assert (status, lines) == (verify.WITHIN, ("other bytes, identical pixels",))


def test_not_built_and_nothing_to_compare(toy_project: Project) -> None:
    report = verify.verify(toy_project, ["toy"])
    assert not report.ok and "Not built" in "\n".join(report.lines())
    assert not verify.verify(toy_project, []).ok


def test_accept_shows_the_difference_and_asks(accepted: Project) -> None:
    path = accepted.results("toy") / "result.csv"
    path.write_text(path.read_text().replace("0.25", "0.26"))
    before = path.read_text()
    shown: list[Report] = []

    def refuse(report: Report) -> bool:
        shown.append(report)
        return False

    assert verify.accept(accepted, "toy", confirm=refuse) is None
    assert path.read_text() == before
    assert "0.26 in the reference" in "\n".join(shown[0].lines())
    verify.accept(accepted, "toy", confirm=lambda _: True)
    assert verify.verify(accepted, ["toy"]).ok


def test_accept_refuses_a_stale_or_missing_build(accepted: Project) -> None:
    change_protocol(accepted)
    with pytest.raises(PersonaStudiesError, match="protocol changed since"):
        verify.accept(accepted, "toy", confirm=lambda _: True)
    for path in sorted((accepted.build / "toy").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    with pytest.raises(PersonaStudiesError, match="not built"):
        verify.accept(accepted, "toy", confirm=lambda _: True)
