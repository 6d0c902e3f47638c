"""What a run changes against the reference: matched by what rows are about, shown side by side, escaped."""

from __future__ import annotations

import base64
import json
import re
import shlex
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_output
from PIL import Image

from persona_studies.analyse import tables
from persona_studies.paths import Project
from persona_studies.reproduce import changes, checkout, notebooks, pages, ready
from persona_studies.reproduce.changes import Interval
from tests.kit.runs import sign

Make = Callable[..., Project]
HOSTILE = "<script>alert('a')</script> & \"b\" \x1b[31m"
ESTIMATES = pd.DataFrame(
    {
        "persona": ["nurse", "judge", "poet"],
        "n": [10, 10, 10],
        "difference": [0.10, 0.20, 0.30],
        "se": [0.01, 0.01, 0.01],
        "low": [0.05, 0.15, 0.25],
        "high": [0.15, 0.25, 0.35],
        "rejected": [True, True, False],
    }
)


def rows(ours: pd.DataFrame, reference: pd.DataFrame = ESTIMATES, **tolerance: float) -> changes.Table:
    return changes.compare_rows("result", "differs", reference, ours, tolerance)


def test_an_added_row_is_added_and_shifts_nothing() -> None:
    new = pd.DataFrame([{**ESTIMATES.iloc[0].to_dict(), "persona": "clown"}])
    found = rows(pd.concat([ESTIMATES.iloc[:1], new, ESTIMATES.iloc[1:2]], ignore_index=True))
    assert (found.key, found.added, found.removed, found.rows) == (("persona",), ("clown",), ("poet",), 2)
    assert (found.compared, found.estimates, found.decisions, found.others) == (2, (), (), {})


def test_an_estimate_is_compared_with_the_reference_s_interval() -> None:
    ours = ESTIMATES.assign(difference=[0.14, 0.26, 0.30], low=[0.05, 0.15, 0.20])
    found = {estimate.row: estimate for estimate in rows(ours).estimates}
    assert {row: (e.moved, e.outside) for row, e in found.items()} == {
        "nurse": (True, False),
        "judge": (True, True),
        "poet": (False, False),
    }
    assert found["judge"].old == Interval(0.20, 0.15, 0.25) and found["judge"].new == Interval(0.26, 0.15, 0.25)
    assert found["judge"].name == "difference"


def test_flags_are_decisions_and_other_cells_are_counted() -> None:
    found = rows(ESTIMATES.assign(rejected=[True, False, False], se=[0.01, 0.02, 0.03]))
    assert [(d.row, d.name, d.old, d.new) for d in found.decisions] == [("judge", "rejected", "yes", "no")]
    assert found.others == {"se": 2}


def test_within_the_tolerance_of_a_column_nothing_changed() -> None:
    ours = ESTIMATES.assign(difference=ESTIMATES["difference"] + 1e-5)
    assert len(rows(ours).estimates) == 3
    assert rows(ours, **{"result.difference": 1e-4}).estimates == ()


def test_rows_that_share_their_names_are_matched_in_order() -> None:
    twice = pd.DataFrame({"choice": ["a", "a", "b"], "estimate": [1.0, 2.0, 3.0]})
    found = changes.compare_rows("t", "differs", twice, twice.assign(estimate=[1.0, 5.0, 3.0]), {})
    assert (found.rows, found.others, found.added) == (3, {"estimate": 1}, ())


@pytest.mark.parametrize(
    ("frame", "key"),
    [
        (pd.DataFrame({"model": ["a", "a"], "outcome": ["x", "y"], "verdict": ["p", "q"]}), ("model", "outcome")),
        (pd.DataFrame({"n": [1, 2], "power": [0.1, 0.2]}), ("n",)),
        (pd.DataFrame({"power": [0.1, 0.2]}), ()),
        (pd.DataFrame({"model": pd.Series([], dtype=object), "n": pd.Series([], dtype=int)}), ("model",)),
    ],
)
def test_the_key_is_the_shortest_run_of_names(frame: pd.DataFrame, key: tuple[str, ...]) -> None:
    assert changes.compare_rows("t", "identical", frame, frame, {}).key == key


def test_limits_belong_to_the_estimate_of_their_name() -> None:
    frame = pd.DataFrame(
        {"model": ["a"], "mean": [1.0], "se": [0.1], "low": [0.8], "high": [1.2], "pooled": [2.0]}
        | {"pooled_low": [1.0], "pooled_high": [3.0], "bca_low": [0.0], "bca_high": [1.0]}
    )
    found = changes.compare_rows("t", "differs", frame, frame.assign(mean=1.1, pooled=9.0, bca_low=0.5), {})
    assert [(e.name, e.outside) for e in found.estimates] == [("mean", False), ("pooled", True)]
    assert (found.compared, found.others) == (2, {"bca_low": 1})


VERDICTS = pd.DataFrame(
    {
        "claim": ["one", "two", "two"],
        "layer": ["corrected", "published", "corrected"],
        "statement": ["One.", "Two.", "Two."],
        "published": ["yes", "no", "no"],
        "estimate": [0.1, np.nan, 0.3],
        "low": [0.0, np.nan, 0.2],
        "high": [0.2, np.nan, 0.4],
        "verdict": ["reproduced", "reproduced", "inconclusive"],
        "why": ["significant", None, HOSTILE],
    }
)


def test_verdicts_that_changed_come_first() -> None:
    ours = VERDICTS.assign(verdict=["reproduced", "reproduced", "contradicted"]).drop(index=1)
    found = changes.compare_verdicts(VERDICTS, ours)
    assert [(v.claim, v.layer, v.status) for v in found] == [
        ("two", "published", "removed"),
        ("two", "corrected", "changed"),
        ("one", "corrected", "same"),
    ]


def write_run(folder: Path, project: Project, written: dict[str, pd.DataFrame], shade: int) -> None:
    """Write what a run of the toy study would have written, with one figure."""
    for kind in ("tables", "figures"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for name, frame in written.items():
        tables.save(frame, folder / "tables" / f"{name}.csv")
    png = folder / "figures" / "plot.png"
    Image.fromarray(np.full((4, 5, 3), shade, dtype=np.uint8)).save(png)
    notebook = notebooks.read(project.notebook("toy"))
    alt = {"image/png": {"alt": f"Everything is at {shade}: {HOSTILE}"}}
    data = {"image/png": base64.b64encode(png.read_bytes()).decode()}
    notebook.cells[-1].outputs = [new_output("display_data", data=data, metadata=alt)]
    (folder / "toy.ipynb").write_text(json.dumps(notebook))
    overrides = {"alpha": 0.01, "label": HOSTILE.removesuffix(" \x1b[31m"), "kinds": ["a", "b"]}
    sign(project, folder, overrides)


@pytest.fixture
def changed(toy_project: Project) -> changes.Changes:
    reference = toy_project.root / "reference"
    write_run(reference, toy_project, {"result": ESTIMATES, "verdicts": VERDICTS}, 200)
    for kind, place in (("tables", toy_project.results("toy")), ("figures", toy_project.figures("toy"))):
        place.parent.mkdir(parents=True, exist_ok=True)
        (reference / kind).rename(place)
    (reference / "toy.ipynb").rename(toy_project.notebook("toy"))
    folder = toy_project.runs / "toy" / "key"
    ours = ESTIMATES.assign(difference=[0.1, 0.9, 0.3], persona=["nurse", "judge", HOSTILE])
    verdicts = VERDICTS.assign(verdict=["reproduced", "reproduced", "contradicted"])
    write_run(folder, toy_project, {"result": ours, "verdicts": verdicts}, 100)
    return changes.write(toy_project, "toy", folder)


class Page(HTMLParser):
    """Collects what a browser would show, run and load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.tags, self.loads = "", [], []
        self.images: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href", "data", "action")]
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_both_sides_and_loads_nothing(changed: changes.Changes, toy_project: Project) -> None:
    written = (toy_project.runs / "toy" / "key" / "diff.html").read_text()
    page = Page(written)
    assert page.tags.count("script") == 1
    assert "<script>alert" not in written and "\x1b" not in written
    assert all(address and address.startswith(("#", "data:image/png;base64,")) for address in page.loads)
    for part in ("inconclusive", "contradicted", "0.20 [0.15, 0.25]", "0.90 [0.15, 0.25]", "alert('a')"):
        assert part in page.text, part
    assert [image["alt"] for image in page.images] == [
        f"{side}: Everything is at {shade}: {HOSTILE}".replace("\x1b", " ")
        for side, shade in (("Reference", 200), ("This run", 100))
    ]


def test_the_summary_counts_what_the_page_shows(changed: changes.Changes) -> None:
    assert list(changed.summary()) == [
        "verdicts: 1 changed of 3",
        "  two (corrected): inconclusive -> contradicted",
        "decisions in tables (significant, equivalent, gate passed): 0 changed",
        "estimates: 1 changed of 2, 1 of them to a value outside the reference's interval",
        "rows: 1 added, 1 removed",
        "figures: 1 changed of 1",
    ]


def test_the_command_gives_the_same_run(changed: changes.Changes, toy_project: Project) -> None:
    words = shlex.split(changed.command)
    assert words[:3] == ["persona-studies", "run", "toy"] and words[3::2] == ["-p"] * 3
    assert ready.resolve(toy_project, "toy", words[4::2])[1] == changed.record["overrides"]


def test_a_commit_and_what_differs_from_it_are_named(toy_project: Project) -> None:
    git = ["git", "-C", str(toy_project.root), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    assert checkout.commit(toy_project) is None
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*git, *arguments], check=True, capture_output=True)
    found = checkout.commit(toy_project)
    assert found is not None and re.fullmatch(r"[0-9a-f]{40}", found.id) and found.changed == ()
    (toy_project.root / "uv.lock").write_text("version = 2\n")
    (toy_project.root / "notes name.md").write_text("")
    again = checkout.commit(toy_project, "uv.lock")
    assert again is not None and again.changed == ("uv.lock",)
    everything = checkout.commit(toy_project)
    assert everything is not None and set(everything.changed) == {"uv.lock", "notes name.md"}


def test_decimals_show_a_difference() -> None:
    assert pages.pair(Interval(0.4674, 0.2, 0.6), Interval(0.4671, 0.2, 0.6))[0] == "0.46740 [0.20000, 0.60000]"
    assert pages.pair(Interval(0.5, 0.2, 0.6), Interval(0.5, 0.2, 0.7)) == (
        "0.50 [0.20, 0.60]",
        "0.50 [0.20, 0.70]",
    )
    assert pages.pair(Interval(np.nan), Interval(-1.0)) == ("–", "−1.00")
