"""Whatever is changed in a reference, a build or its inputs is noticed and named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from persona_studies import files
from persona_studies.analyse import tables
from persona_studies.errors import PersonaStudiesError
from persona_studies.paths import Project
from persona_studies.reproduce import notebooks, runs, verify

Report = verify.Report


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


def break_manifest(project: Project) -> None:
    (project.results("toy") / "manifest.json").write_text("<<<<<<< HEAD")


def list_manifest(project: Project) -> None:
    (project.results("toy") / "manifest.json").write_text("[1]")


def break_run(project: Project) -> None:
    (project.build / "toy" / "run.json").write_text("{")


def break_picture(project: Project) -> None:
    path = project.figures("toy") / "plot.png"
    path.write_bytes(path.read_bytes()[:40])


def inject_into_reference(project: Project) -> None:
    notebook = notebooks.read(project.notebook("toy"))
    notebook.cells[2].metadata["tags"] = ["injected-parameters"]
    notebooks.write(notebook, project.notebook("toy"))


def link_table(project: Project) -> None:
    path = project.results("toy") / "result.csv"
    other = project.root / "other.csv"
    other.write_text(path.read_text().replace("0.25", "0.35"))
    path.unlink()
    path.symlink_to(other)


def build_with_parameters(project: Project) -> None:
    path = project.build / "toy" / "run.json"
    record = json.loads(path.read_text())
    record["overrides"] = {"alpha": 0.1}
    record["key"] = runs.key(project, "toy", record["overrides"])
    path.write_text(json.dumps(record))


def change_build(project: Project) -> None:
    (project.build / "toy" / "tables" / "result.csv").write_text("claim\none\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_pixel, "5.00% of the pixels differ"),
        (change_output, "code cell 3"),
        (change_response, "score.parquet, row 1"),
        (change_protocol, "protocol changed since; run make reproduce"),
        (change_protocol, "studies/toy/protocol.toml was changed since the reference was accepted"),
        (remove_table, "data/results/toy/result.csv is gone"),
        (remove_table, "not in the reference"),
        (add_figure, "missing from the run"),
        (change_build, "its files were changed"),
        (break_manifest, "manifest.json cannot be read"),
        (list_manifest, "manifest.json cannot be read"),
        (break_run, "its run.json cannot be read; delete build/toy"),
        (break_picture, "cannot be read"),
        (inject_into_reference, "the cells are not the same"),
        (link_table, "column r: 0.35 in the reference, 0.25 in this run (-0.1; 1e-09 allowed)"),
        (build_with_parameters, "parameters changed since; run make reproduce"),
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


def test_a_missing_manifest_is_named(accepted: Project) -> None:
    (accepted.results("toy") / "manifest.json").unlink()
    report = verify.verify(accepted, ["toy"])
    assert not report.ok and "No reference yet" in "\n".join(report.lines())


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


def test_accept_refuses_a_build_with_other_parameters(accepted: Project) -> None:
    build_with_parameters(accepted)
    with pytest.raises(PersonaStudiesError, match="parameters changed since"):
        verify.accept(accepted, "toy", confirm=lambda _: True)


def test_what_a_run_did_not_write_is_neither_compared_nor_accepted(accepted: Project) -> None:
    (accepted.build / "toy" / "tables" / "mine.csv").write_text("x\n1\n")
    (accepted.results("toy") / "README.md").write_text("mine")
    assert verify.verify(accepted, ["toy"]).ok
    verify.accept(accepted, "toy", confirm=lambda _: True)
    assert sorted(path.name for path in accepted.results("toy").iterdir()) == [
        "README.md",
        "manifest.json",
        "result.csv",
    ]


def test_accept_removes_what_the_study_no_longer_makes(accepted: Project) -> None:
    add_figure(accepted)
    verify.accept(accepted, "toy", confirm=lambda _: True)
    assert verify.verify(accepted, ["toy"]).ok
    assert not (accepted.figures("toy") / "other.png").exists()


@pytest.mark.parametrize("after", range(5))
def test_accept_killed_half_way_is_noticed_and_finished_by_the_next(
    accepted: Project, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (*accepted.results("toy").glob("*.csv"), *accepted.figures("toy").iterdir()):
        path.write_bytes(b"other")
    accepted.notebook("toy").write_text(accepted.notebook("toy").read_text().replace('"0.05\\n"', '"0.06\\n"'))
    manifest = accepted.results("toy") / "manifest.json"
    earlier = {name: files.sha256(accepted.root / name) for name in json.loads(manifest.read_text())}
    manifest.write_text(json.dumps(earlier))
    before = accepted.notebook("toy").read_bytes()
    replace, done = Path.replace, []

    def killed(path: Path, target: Path) -> Path:
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(target)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        verify.accept(accepted, "toy", confirm=lambda _: True)
    monkeypatch.undo()
    built = (accepted.build / "toy" / "toy.ipynb").read_bytes()
    assert accepted.notebook("toy").read_bytes() in (before, built)
    # Old or new, every file is whole.
    for path in (*accepted.results("toy").glob("*.csv"), *accepted.figures("toy").glob("*.*g")):
        kind = "figures" if path.suffix != ".csv" else "tables"
        if not path.name.startswith("."):
            assert path.read_bytes() in (b"other", (accepted.build / "toy" / kind / path.name).read_bytes())
    assert not verify.verify(accepted, ["toy"]).ok
    verify.accept(accepted, "toy", confirm=lambda _: True)
    assert verify.verify(accepted, ["toy"]).ok
    assert not [path for path in accepted.root.rglob(".*") if path.name.endswith(".partial")]


def test_a_report_quotes_no_markup_and_no_control_characters() -> None:
    artifact = verify.Artifact("toy", "tables/a|b.csv", verify.DIFFERS, ("a|b \\| <script> `x` ![y](z)\n\x1b[31m",))
    report = Report((artifact,))
    row = report.to_markdown("<b>").splitlines()[-1]
    assert row == (
        "| differs | toy | tables/a\\|b.csv | a\\|b \\\\\\| &lt;script&gt; \\`x\\` !\\[y\\](z)  \\[31m |"
    )
    assert "\x1b" not in "".join(report.lines()) and len(list(report.lines())) == 3


def compared(tmp_path: Path, reference: str, ours: str) -> tuple[str, tuple[str, ...]]:
    for name, text in (("t.csv", reference), ("u.csv", ours)):
        (tmp_path / name).write_bytes(text.encode())
    return verify.compare_tables(tmp_path / "t.csv", tmp_path / "u.csv", {})


@pytest.mark.parametrize(
    ("reference", "ours", "status"),
    [
        ("x\r\n1.5\r\n", "x\n1.5\n", verify.WITHIN),
        ("x\n1\n", "x\n1.0\n", verify.WITHIN),
        ("x\n1\n", "x\n1.0000000001\n", verify.DIFFERS),
        ("x,y\n,1\n", "x,y\n0.0,1\n", verify.DIFFERS),
        ("x,y\n,1\n", "x,y\nNA,1\n", verify.DIFFERS),
        ("x,y\nNone,1\n", "x,y\n,1\n", verify.DIFFERS),
        ("x\ninf\n", "x\n1e308\n", verify.DIFFERS),
        ("x\ninf\n", "x\n-inf\n", verify.DIFFERS),
        ("x\n1e300\n", "x\n-1e300\n", verify.DIFFERS),
        ("x\n0.5\n", "x\nhalf\n", verify.DIFFERS),
        ('x\n"1\n', "x\n1\n", verify.BROKEN),
        ("", "x\n1\n", verify.BROKEN),
        ("x\n\n", "x\n1\n", verify.DIFFERS),
    ],
)
def test_values_that_look_alike(tmp_path: Path, reference: str, ours: str, status: str) -> None:
    found, lines = compared(tmp_path, reference, ours)
    assert found == status, lines
    assert bool(lines) == (status != verify.WITHIN)


def test_many_differences_are_counted(tmp_path: Path) -> None:
    rows = range(1000)
    _, lines = compared(
        tmp_path, "x\n" + "".join(f"{i}.5\n" for i in rows), "x\n" + "".join(f"{i}.7\n" for i in rows)
    )
    assert len(lines) == 6 and lines[-1] == "and 995 more cells"
    assert lines[0] == "row 1 (no name), column x: 0.5 in the reference, 0.7 in this run (+0.2; 1e-09 allowed)"
