"""A sweep: every choice checked first, finished runs reused, failures kept apart, one curve per claim."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from matplotlib.figure import Figure

from persona_studies.analyse import figures, tables
from persona_studies.errors import ParameterError, PersonaStudiesError
from persona_studies.paths import Project
from persona_studies.reproduce import grid, ready, runs, sweep
from tests.conftest import Call

Make = Callable[..., Project]
# Without pandas: a kernel is up in a third of the time.
WORK = """import csv
import os
import time
from pathlib import Path

assert parameters.rounds != 7, "seven is one too many"
if parameters.rounds == 9:
    time.sleep(600)
out = Path(os.environ["PERSONA_STUDIES_OUT"]) / "tables"
out.mkdir()
estimate = parameters.alpha * parameters.rounds
verdict = "reproduced" if estimate > 0.1 else "inconclusive"
row = {"claim": "one", "layer": "corrected", "statement": "It is <so>.", "estimate": estimate}
row |= {"low": estimate - 0.1, "high": estimate + 0.1, "verdict": verdict, "why": "because"}
limits = {"low": -1.0, "high": 1.0, "rejected": True}
contrasts = [{"persona": who, "difference": d, **limits} for who, d in (("nurse", estimate), ("judge", -estimate))]
for name, rows in (("verdicts", [row, row | {"claim": "two", "estimate": ""}]), ("contrasts", contrasts)):
    with (out / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)"""


@pytest.fixture
def project(make_project: Make) -> Project:
    return make_project(WORK)


def plan(project: Project, text: str) -> list[sweep.Specification]:
    return sweep.specifications(project, "toy", grid.choices(project, "toy", text))


def test_every_combination_is_a_specification(project: Project) -> None:
    found = plan(project, "alpha=0.05,0.1 kinds=a|a,b label=x")
    assert [one.assignments for one in found] == [
        [f"alpha={alpha}", f"kinds={kinds}", "label=x"] for alpha in ("0.05", "0.1") for kinds in ("a", "a,b")
    ]
    assert [one.overrides for one in found] == [
        {},
        {"kinds": ["a", "b"]},
        {"alpha": 0.1},
        {"alpha": 0.1, "kinds": ["a", "b"]},
    ]
    assert found[0].folder == project.build / "toy" and len({one.folder for one in found}) == 4


def test_everything_wrong_with_a_grid_is_said_at_once(project: Project) -> None:
    with pytest.raises(ParameterError) as said:
        grid.choices(project, "toy", "alhpa=0.1 alpha=0.1,2 rounds=3,3 kinds=a|c label")
    for part in (
        "Did you mean 'alpha'",
        "'alpha' cannot be 2",
        "'rounds' takes 3 twice",
        "'kinds'",
        "'label' is not",
    ):
        assert part in str(said.value), part
    for text, message in (
        ("", "names no parameter"),
        ("label='x", "cannot be split"),
        ("alpha=0.1 alpha=0.2", "twice"),
    ):
        with pytest.raises(ParameterError, match=message):
            grid.choices(project, "toy", text)
    with pytest.raises(ParameterError, match="Did you mean 'toy'"):
        grid.choices(project, "toyy", "alpha=0.1")


def test_what_is_not_recorded_says_so_and_loses_nothing_else(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(project: Project, study: str, in_force: object, given: list[str]) -> None:
        if "rounds=2" in given:
            raise ParameterError("2 of 3 planned cells have no response")

    monkeypatch.setattr(ready, "_covered", refuse)
    found = plan(project, "rounds=1,2")
    assert [one.problem for one in found] == [None, "2 of 3 planned cells have no response"]


def test_a_failing_specification_is_listed_and_the_others_drawn(project: Project, command_line: Call) -> None:
    # One is finished before, one runs beside one that fails.
    runs.run(project, "toy", ["rounds=2"])
    code, said = command_line(project, "sweep", "toy", "--grid", "rounds=2,4,7", "-j", "2")
    assert code == 1, said
    assert "3 specifications, 1 finished, 2 to run, 0 that cannot be run" in said
    assert "one (corrected): 0.1 to 0.2, median 0.15; inconclusive 1, reproduced 1" in said
    (folder,) = (project.runs / "toy").glob("sweep-*")
    specified = tables.load(folder / "specifications.csv")
    assert specified["problem"].isna().tolist() == [True, True, False]
    assert "seven is one too many" in specified["problem"][2]
    found = tables.load(folder / "estimates.csv")
    assert found.loc[found["claim"] == "one", "estimate"].tolist() == pytest.approx([0.1, 0.2])
    written = {path.name for path in folder.iterdir()}
    assert written == {
        "specifications.csv",
        "estimates.csv",
        "one-corrected.svg",
        "one-corrected.png",
        "index.html",
    }
    page = (folder / "index.html").read_text()
    assert "It is &lt;so&gt;." in page and "seven is one too many" in page and "It is <so>" not in page
    before = {one.number: (one.folder / "run.json").stat().st_mtime_ns for one in plan(project, "rounds=2,4")}

    cell = ["--table", "contrasts", "--row", "judge", "--estimate", "difference"]
    code, said = command_line(project, "sweep", "toy", "--grid", "rounds=2,4", *cell)
    assert code == 0 and "2 finished, 0 to run" in said and "-0.2 to -0.1" in said, said
    after = {one.number: (one.folder / "run.json").stat().st_mtime_ns for one in plan(project, "rounds=2,4")}
    assert after == before


def test_more_runs_than_the_limit_are_refused_before_the_first(project: Project, command_line: Call) -> None:
    code, said = command_line(project, "sweep", "toy", "--grid", "rounds=1,2,4 alpha=0.1,0.2", "--limit", "5")
    assert code == 2 and "6 runs are more than the limit of 5; to start them: --limit 6" in said
    assert not project.runs.exists() and not project.build.exists()


@pytest.mark.attack
def test_an_interrupted_sweep_leaves_nothing_half_written(project: Project) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "persona_studies.cli", "sweep", "toy", "--grid", "rounds=9"],
        env={**os.environ, "PERSONA_STUDIES_ROOT": str(project.root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    partial = []
    while not partial and process.poll() is None:
        partial = list(project.runs.rglob(".*persona-studies-partial*"))
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert not list(project.runs.rglob(".*persona-studies-partial*")) and not list(project.runs.rglob("run.json"))


def write_runs(project: Project, text: str, verdicts: Callable[[int], pd.DataFrame]) -> list[sweep.Specification]:
    """Write what completed runs would have written."""
    found = plan(project, text)
    for one in found:
        (one.folder / "tables").mkdir(parents=True)
        tables.save(verdicts(one.number), one.folder / "tables" / "verdicts.csv")
    return found


def test_a_row_must_be_told_apart(project: Project) -> None:
    frame = pd.DataFrame({"persona": ["a", "a"], "layer": ["x", "y"], "estimate": [1.0, 2.0]})
    found = write_runs(project, "rounds=1,2", lambda _: frame)
    cell = sweep.Cell("verdicts", ("a", "y"), "estimate")
    assert sweep.gather(found, cell)["estimate"].tolist() == [2.0, 2.0]
    for wrong, message in (
        (sweep.Cell("verdicts", ("a",), "estimate"), "2 rows of .* hold a"),
        (sweep.Cell("verdicts", ("b",), "estimate"), "0 rows"),
        (sweep.Cell("verdicts", ("y",), "p"), "no column 'p'; it has persona"),
        (sweep.Cell("other", ("y",), "p"), "no table 'other'; it wrote verdicts"),
    ):
        with pytest.raises(PersonaStudiesError, match=message):
            sweep.gather(found, wrong)
    with pytest.raises(PersonaStudiesError, match="lacks the column claim"):
        sweep.gather(found)


def test_the_page_tells_analyses_apart_gives_the_unit_and_says_what_nothing_moves(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.data / "units.toml").write_text('[meanings]\nhops = "jumps"\n[toy]\none = "hops"\n')
    frame = pd.DataFrame({"claim": "one", "layer": ["published", "corrected"], "statement": "It is so."})
    frame = frame.assign(low=0.0, high=1.0, verdict="inconclusive", why="")
    found = write_runs(project, "rounds=1,2", lambda number: frame.assign(estimate=[0.5, 0.1 * number]))
    labels = []
    drawn = figures.specification_curve
    monkeypatch.setattr(
        figures, "specification_curve", lambda *a, **how: labels.append(how["ylabel"]) or drawn(*a, **how)
    )
    folder, summary = sweep.write(project, "toy", found, None, "command")
    assert summary["highest"].tolist() == [0.5, 0.2] and labels == ["estimate (hops)"] * 2
    page = BeautifulSoup((folder / "index.html").read_text(), "html.parser")
    titles = [title.get_text() for title in page.select("h2")][1:3]
    assert titles == ["It is so. published", "It is so. corrected"]
    said = ["None of the choices moves this estimate." in part.get_text() for part in page.select("figcaption")]
    assert said == [True, False]


def curve(count: int) -> tuple[pd.DataFrame, Figure]:
    grid = list(itertools.product(["cloze", "letter"], ["holm", "none"], [str(i) for i in range(count // 4)]))
    frame = pd.DataFrame(grid, columns=["measure", "correction", "seed"])
    estimate = np.linspace(-0.1, 0.4, len(frame))
    kinds = ["contradicted", "inconclusive", "uninformative", "reproduced"]
    frame = frame.assign(specification=range(1, len(frame) + 1), estimate=estimate, low=estimate - 0.1)
    frame = frame.assign(high=estimate + 0.1, kind=[kinds[4 * i // len(frame)] for i in range(len(frame))])
    figures.style()
    return frame, figures.specification_curve(frame, ["measure", "correction", "seed"], own=3)


def test_the_curve_shows_every_estimate_and_every_choice() -> None:
    frame, figure = curve(16)
    top, matrix = figure.axes
    drawn = np.concatenate([np.asarray(line.get_ydata()) for line in top.get_lines() if len(line.get_xdata()) < 16])
    assert set(np.round(frame["estimate"], 9)) <= set(np.round(drawn.astype(float), 9))
    shapes = {line.get_marker() for line in top.get_lines() if line.get_marker() != "None"}
    assert shapes == {"X", "D", "s", "o"}
    labels = [text.get_text() for text in matrix.get_yticklabels()]
    assert labels == [
        "measure = cloze",
        "measure = letter",
        "correction = holm",
        "correction = none",
        *(f"seed = {i}" for i in range(4)),
    ]
    dots = [line for line in matrix.get_lines() if line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in dots] == [8] * 4 + [4] * 4


def test_two_drawings_are_identical(tmp_path: Path) -> None:
    written = [figures.save(curve(8)[1], tmp_path / name)[0].read_bytes() for name in ("a", "b")]
    assert written[0] == written[1]
