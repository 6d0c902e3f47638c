"""The static site: of a toy study with everything that could go wrong in it, and of the studies themselves."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup, Tag
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from persona_studies.analyse import alt as alt_texts
from persona_studies.analyse import tables, verdicts
from persona_studies.errors import NotebookError, PersonaStudiesError
from persona_studies.paths import Project
from persona_studies.publish import scoreboard, site
from persona_studies.reproduce import notebooks
from tests.kit.runs import files

REPOSITORY = Path(__file__).parents[2]
LATEX = re.compile(r"\$(?! )[^$\n]+(?<! )\$|\\(?:[a-zA-Z]+|[,;!])")
LIMIT = 2_000_000  # bytes of a page with the style sheet and every picture that it loads
HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)">'
ALT = "Two estimates, one of them significant."

PROTOCOL = """
study = "toy"
title = "Does a toy play?"
question = "Does it?"
version = 1
exclusions = []
stopping_rule = "none"
[paper]
authors = "Toy et al."
title = "Toys <play>"
year = 2026
venue = "Journal"
url = "https://example.org/paper"
[conditions]
[measures]
[families.all]
purpose = "all"
hypotheses = ["h"]
size = 1
[claims.plays]
statement = "A toy plays."
source = "abstract"
published = "always"
family = "all"
hypothesis = "h"
smallest_effect = 0.1
[claims.sings]
statement = "A toy sings."
source = "abstract"
published = "<b>seldom</b>"
not_testable = "no ears"
"""
UNITS = '[meanings]\nhops = "times that it leaves the ground"\n[toy]\nplays = "hops"\n'
VERDICTS = pd.DataFrame(
    {
        "claim": ["plays", "sings"],
        "layer": "corrected",
        "model": ["published data", ""],
        "statement": ["A toy plays.", "A toy sings."],
        "published": ["always", "<b>seldom</b>"],
        "estimate": [0.5, None],
        "low": [0.4, None],
        "high": [0.6, None],
        "verdict": [verdicts.CONTRADICTED, verdicts.NOT_TESTABLE],
        "why": ["because", "no ears"],
    }
)
SAVE = 'study.table(frame, "verdicts", "Verdicts")'


def shown(frame: pd.DataFrame, name: str, **how: Any) -> nbformat.NotebookNode:
    """The output of a cell that ends in study.table."""
    about = {"title": f"Table of {name}", "subtitle": "n = 2", "notes": ["Note."], **how}
    table = tables.show(frame, id=name.replace("_", "-"), **about)
    return new_output("execute_result", data={"text/html": table.html, "text/plain": table.text}, execution_count=1)


def picture(path: Path, alt: str | None = ALT) -> nbformat.NotebookNode:
    data = {"image/png": base64.b64encode(path.read_bytes()).decode(), "text/plain": "<Image>"}
    return new_output(
        "display_data", data=data, metadata={"image/png": {"width": 90, **({"alt": alt} if alt else {})}}
    )


@pytest.fixture
def make_site(tmp_path: Path) -> Callable[..., Project]:
    """Return a function that makes a project whose study ``toy`` shows its verdicts, a figure and some outputs."""

    def make(
        *outputs: nbformat.NotebookNode,
        alt: str | None = ALT,
        frame: pd.DataFrame = VERDICTS,
        saved: pd.DataFrame = VERDICTS,
    ) -> Project:
        project = Project(tmp_path / "project")
        for folder in (project.folder("toy"), project.results("toy"), project.figures("toy")):
            folder.mkdir(parents=True, exist_ok=True)
        (project.root / "pyproject.toml").write_text("")
        project.protocol("toy").write_text(PROTOCOL)
        (project.data / "units.toml").write_text(UNITS)
        tables.save(saved, project.results("toy") / "verdicts.csv")
        png = project.figures("toy") / "plot.png"
        Image.new("RGB", (300, 200), "white").save(png)
        png.with_suffix(".svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="3" height="2"/>')
        caption = new_output("display_data", data={"text/markdown": "*Caption, n = 2.*", "text/plain": "x"})
        beside = {"would_decide": "would decide: ", "steerable": "steerable: ", "details": ""}
        below = {"why": {name: lead for name, lead in beside.items() if name in frame}}
        cells = [
            new_markdown_cell("# Does a toy play?\n\nIt may."),
            new_code_cell('study.figure(made, "plot")', outputs=[picture(png, alt), caption, *outputs]),
            new_markdown_cell("## Verdicts\n\n### Verdicts\n\n### Files"),
            new_code_cell(SAVE, outputs=[shown(frame, "verdicts", below=below)]),
        ]
        project.notebook("toy").write_text(nbformat.writes(new_notebook(cells=cells)))
        return project

    return make


def read(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def scripts_are_ours(page: BeautifulSoup) -> bool:
    """Whether a page has one script, which sorts its tables, and refuses any other by its policy."""
    (script,) = page.find_all("script")
    digest = base64.b64encode(hashlib.sha256(script.string.encode()).digest()).decode()
    policy = page.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]
    ours = script.string == (site.TEMPLATES / "site" / "sort.js").read_text() and not script.attrs
    return ours and f"script-src 'sha256-{digest}';" in policy


# --- A toy study ------------------------------------------------------------------------------------------------


def test_a_page_shows_tables_figures_and_code(make_site: Callable[..., Project]) -> None:
    project = make_site()
    assert site.build(project) == project.site
    page = read(project.site / "toy.html")
    image = page.select_one("figure img")
    assert image and (image["src"], image["alt"]) == ("toy/figures/plot.svg", ALT)
    assert (image["width"], image["height"]) == ("90", "60")
    assert page.select_one("figcaption").get_text(strip=True) == "Caption, n = 2."
    region = page.select_one(".result .scroll")
    assert region["tabindex"] == "0" and region["role"] == "group"
    assert page.find(id=region["aria-labelledby"]).get_text(" ") == "Table of verdicts n = 2"
    assert page.select_one(".result .notes p").get_text() == "Note."
    assert [th["scope"] for th in region.select("thead th")] == ["col"] * len(VERDICTS.columns)
    assert [th.get_text() for th in region.select("tbody th[scope=row]")] == ["plays", "sings"]
    assert [part.summary.get_text() for part in page.select("details.code")] == ["Code of cell 1", "Code of cell 2"]
    contents = [a["href"] for a in page.select(".contents li a")]
    assert contents == ["#verdicts", "#verdicts-2", "#files-2", "#files", "toy.html"]
    assert page.select_one("figure .files a:last-of-type")["href"] == "#cell-1"
    assert page.select_one(".result .files a:last-of-type")["href"] == "#cell-2"
    assert page.select_one("#files ~ ul a[href='#cell-2']").get_text() == "cell 2"


def test_a_verdict_has_a_sign_and_its_claim_leads_to_it(make_site: Callable[..., Project]) -> None:
    project = make_site()
    (project.data / "answered.toml").write_text('[toy]\nplays = "GPT-9"\n')
    site.build(project)
    row = read(project.site / "toy.html").find(id="claim-plays-corrected")
    assert row.name == "tr" and row.select_one(".verdict.contradicted").get_text() == "✗ contradicted"
    index = read(project.site / "index.html")
    (first,) = index.select(".board tbody tr")
    assert first["class"] == ["claim", "contradicted", "of-data"]
    assert first.a["href"] == "toy.html#claim-plays-corrected"
    assert [cell.get_text(strip=True) for cell in first.select("td")] == [
        "alwaysabstract",
        "–",
        "0.50 [0.40, 0.60]hops; claimed above 0(GPT-9)",
        "✗contradicted",
        "because",
    ]
    failed, held = (item.get_text() for item in index.select(".clearest li"))
    assert failed == (
        "Fails most clearly: A toy plays. "
        "Claimed: hops above 0. Found: 0.50 [0.40, 0.60], published data of GPT-9 (toy)."
    )
    assert held == "Holds most clearly: none, by the rule below."
    words = read(project.site / "toy.html").select_one(".result .words").get_text()
    assert all(f"{verdicts.SIGNS[word]} {word}" in words for word in VERDICTS["verdict"])
    (second,) = index.select(".board details li")
    assert second.a["href"] == "toy.html#claim-sings-corrected" and second.get_text().endswith(" no ears")
    assert "<b>seldom</b>" in second.get_text() and not index.find("b")
    assert "Toys <play>" in index.get_text()


def test_a_claim_leads_to_the_figure_and_the_table_that_show_its_number(make_site: Callable[..., Project]) -> None:
    project = make_site()
    (project.data / "evidence.toml").write_text('[toy]\nall = ["figure plot", "table verdicts"]\n')
    site.build(project)
    index, page = read(project.site / "index.html"), read(project.site / "toy.html")
    links = ["toy.html#figure-plot", "toy.html#table-verdicts"]
    for place in (
        index.select_one(".board tbody tr"),
        index.select_one(".clearest li"),
        page.select_one("tbody tr"),
    ):
        assert [a["href"] for a in place.select(".evidence a")] == links
        assert [a.get_text() for a in place.select(".evidence a")] == ["figure plot", "table verdicts"]
    assert page.find(id="figure-plot").name == "figure" and page.find(id="table-verdicts").find("table")
    assert (
        page.select_one("tbody tr").select_one("td[data-label=why]").get_text()
        == "because figure plot table verdicts"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('dances = ["figure plot"]', r"evidence\.toml names what is no claim and no family of toy: 'dances'"),
        ("play = [", r"evidence\.toml cannot be read: .*git checkout"),
        ('play = "figure plot"', r"evidence\.toml breaks its form, mend it there: .*play"),
        (
            'plays = ["figure pilot"]',
            r"evidence\.toml names what the notebook does not save of toy: 'figure pilot'",
        ),
    ],
)
def test_evidence_that_is_not_there_is_refused(make_site: Callable[..., Project], line: str, message: str) -> None:
    project = make_site()
    (project.data / "evidence.toml").write_text(f"[toy]\n{line}\n")
    with pytest.raises(PersonaStudiesError, match=message):
        site.build(project)


def test_what_stands_beside_a_reason_is_put_below_it(make_site: Callable[..., Project]) -> None:
    beside = {"would_decide": ["9 ears", ""], "steerable": ["no", ""], "details": ["more of it", ""]}
    whole = VERDICTS.assign(**beside)
    project = make_site(frame=whole, saved=whole)
    site.build(project)
    table = read(project.site / "toy.html").select_one("table.claims")
    assert [head.get_text() for head in table.select("thead th")] == list(VERDICTS.columns)
    assert [why.get_text(" ", strip=True) for why in table.select("td[data-label=why]")] == [
        "because would decide: 9 ears steerable: no more of it",
        "no ears",
    ]
    row, *_ = read(project.site / "index.html").select(".board tbody tr")
    assert "not steerable" in row.select_one("[data-label=verdict]").get_text()
    assert "would decide: 9 ears" in row.select_one("[data-label=why]").get_text()


def test_a_prompt_keeps_its_line_breaks(make_site: Callable[..., Project]) -> None:
    table = tables.show(
        pd.DataFrame({"what": ["asked"], "value": ["one\ntwo"]}), id="t", title="T", verbatim=["value"]
    )
    html = new_output("execute_result", data={"text/html": table.html, "text/plain": "x"}, execution_count=1)
    project = make_site(html)
    site.build(project)
    (cell,) = read(project.site / "toy.html").select("#cell-1 td.verbatim")
    assert cell.get_text() == "one\ntwo" and ".verbatim {" in (project.site / "style.css").read_text()


def test_rows_behind_a_failed_gate_are_grey(make_site: Callable[..., Project]) -> None:
    frame = pd.DataFrame({"name": ["a", "b", "c"], "gate": ["gate: kappa", "passed", ""]})
    project = make_site(shown(frame, "checks"))
    site.build(project)
    rows = read(project.site / "toy.html").select_one("#cell-1 .result").select("tbody tr")
    assert [row.get("class") for row in rows] == [["gated"], None, None]


def test_who_answered_is_said_of_declared_claims_only(make_site: Callable[..., Project]) -> None:
    project = make_site()
    (project.data / "answered.toml").write_text('[toy]\nplay = "GPT-9"\n')
    with pytest.raises(PersonaStudiesError, match=r"answered.toml names .* toy does not declare, claim 'play'"):
        scoreboard.load(project)


def test_what_a_model_wrote_stays_text(make_site: Callable[..., Project]) -> None:
    table = f"| reply |\n|---|\n| {HOSTILE} [click](javascript:alert(3)) ![x](https://example.org/x.png) |"
    raw = f'<div onclick="alert(4)"><style>p {{ color: red }}</style><b>{HOSTILE}</b></div>'
    project = make_site(
        new_output("execute_result", data={"text/plain": HOSTILE}, execution_count=1),
        new_output("stream", name="stdout", text=HOSTILE),
        new_output("display_data", data={"text/markdown": table, "text/plain": "x"}),
        new_output("display_data", data={"text/html": raw, "text/plain": "x"}),
        shown(pd.DataFrame({"reply": [HOSTILE, "b"]}), "replies"),
        new_output("display_data", data={"application/javascript": "alert(5)", "text/plain": "script"}),
        alt=f'"> {HOSTILE}',
    )
    site.build(project)
    page = read(project.site / "toy.html")
    assert scripts_are_ours(page) and not page.find("style") and not page.find("iframe")
    assert [image["src"] for image in page.find_all("img")] == ["toy/figures/plot.svg"]
    assert not [
        tag for tag in page.find_all(True) for name in tag.attrs if name.startswith("on") or name == "style"
    ]
    assert not [a for a in page.find_all("a", href=True) if a["href"].startswith("javascript")]
    assert page.get_text().count("<script>alert(1)</script>") >= 4  # each is there to be read
    assert page.find("img")["alt"].startswith('"> <script>')
    policy = page.find("meta", attrs={"http-equiv": "Content-Security-Policy"})
    assert policy and "default-src 'none'" in str(policy["content"]) and "unsafe" not in str(policy["content"])


@pytest.mark.parametrize("alt", [None, "a plot", alt_texts.NONE])
def test_a_figure_without_a_text_of_its_own_is_refused(make_site: Callable[..., Project], alt: str | None) -> None:
    with pytest.raises(NotebookError, match=r"toy\.ipynb: figure plot needs an alt text"):
        site.build(make_site(alt=alt))


def test_a_picture_that_is_not_saved_is_refused(make_site: Callable[..., Project], tmp_path: Path) -> None:
    Image.new("RGB", (3, 3), "red").save(tmp_path / "other.png")
    with pytest.raises(NotebookError, match=r"none of figures/toy/\*\.png; save it with study\.figure"):
        site.build(make_site(picture(tmp_path / "other.png")))


def test_verdicts_that_are_not_all_shown_are_refused(make_site: Callable[..., Project]) -> None:
    with pytest.raises(NotebookError, match="shows 1 of 2 verdicts"):
        site.build(make_site(frame=VERDICTS.head(1)))


def test_an_error_leaves_the_last_site_as_it_was(make_site: Callable[..., Project]) -> None:
    before = files(site.build(make_site()))
    with pytest.raises(NotebookError):
        site.build(make_site(alt=None))
    assert files(make_site().site) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": "maybe"}, r"verdicts\.csv holds what is no verdict: 'maybe'"),
        ({"claim": "dances"}, r"names what the protocol of toy does not declare, claim 'dances'"),
        ({"why": None}, r"lacks the column 'why'"),
        (None, r"verdicts\.csv is missing; run make study STUDY=toy"),
    ],
)
def test_verdicts_that_do_not_hold_are_refused(
    make_site: Callable[..., Project], change: dict[str, str | None] | None, message: str
) -> None:
    project = make_site()
    path = project.results("toy") / "verdicts.csv"
    if change is None:
        path.unlink()
    else:
        ((column, value),) = change.items()
        wrong = VERDICTS.drop(columns=column) if value is None else VERDICTS.assign(**{column: value})
        tables.save(wrong, path)
    with pytest.raises(PersonaStudiesError, match=message):
        site.build(project)


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ("[meanings]\n", r"estimates what has no unit in data/units\.toml: 'plays'"),
        ('[meanings]\n[toy]\nplays = "skips"\n', r"units that data/units\.toml gives no meaning: 'skips'"),
        (None, r"data/units\.toml cannot be read"),
    ],
)
def test_an_estimate_without_a_unit_is_refused(
    make_site: Callable[..., Project], units: str | None, message: str
) -> None:
    project = make_site()
    path = project.data / "units.toml"
    path.unlink() if units is None else path.write_text(units)
    with pytest.raises(PersonaStudiesError, match=message):
        site.build(project)


def test_two_builds_are_identical(make_site: Callable[..., Project]) -> None:
    project = make_site()
    here = files(site.build(project))
    # With another order of whatever is hashed: this process drew its own.
    environment = {**os.environ, "PERSONA_STUDIES_ROOT": str(project.root), "PYTHONHASHSEED": "1"}
    command = [sys.executable, "-m", "persona_studies.cli", "site"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert said.stdout == "build/site/index.html\n"
    assert files(project.site) == here and {"index.html", "toy.html", "style.css"} <= set(here)


# --- The studies ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The repository, with a build folder of its own."""
    root = tmp_path_factory.mktemp("repository")
    for name in ("studies", "data", "figures", "pyproject.toml"):
        (root / name).symlink_to(REPOSITORY / name)
    made = Project(root)
    site.build(made)
    return made


@pytest.fixture(scope="module")
def pages(project: Project) -> dict[str, BeautifulSoup]:
    return {path.name: read(path) for path in sorted(project.site.glob("*.html"))}


@pytest.fixture(scope="module")
def ids(pages: dict[str, BeautifulSoup]) -> dict[str, dict[str, Tag]]:
    """Every identifier of every page with its element: to search a page for each link takes seconds."""
    return {name: {str(tag["id"]): tag for tag in page.find_all(id=True)} for name, page in pages.items()}


def loaded(page: BeautifulSoup) -> Iterator[str]:
    """Yield every address that a browser loads with a page."""
    for tag in page.find_all(["img", "script", "iframe", "source", "audio", "video", "embed", "object", "input"]):
        yield from (str(tag[name]) for name in ("src", "srcset", "data", "poster") if name in tag.attrs)
    for tag in page.find_all("link"):
        yield str(tag["href"])


def test_every_study_has_a_page(project: Project, pages: dict[str, BeautifulSoup]) -> None:
    assert set(pages) == {"index.html", "how-to-read.html", *(f"{name}.html" for name in project.names())}
    linked = {a["href"] for a in pages["index.html"].find_all("a", href=True)}
    assert {f"{name}.html" for name in project.names()} <= linked


def test_nothing_is_loaded_from_elsewhere(project: Project, pages: dict[str, BeautifulSoup]) -> None:
    for name, page in pages.items():
        addresses = [address for address in loaded(page) if address != "data:,"]
        assert "style.css" in addresses
        for address in addresses:
            assert "://" not in address and not address.startswith(("/", "data:")), (name, address)
            assert (project.site / address).is_file(), (name, address)
        assert scripts_are_ours(page) and not page.find(["style", "base"]) and not page.find_all(style=True)
    style = (project.site / "style.css").read_text()
    assert "url(" not in style and "@import" not in style
    for path in project.site.rglob("*.svg"):
        assert "<script" not in path.read_text() and 'href="http' not in path.read_text(), path


def test_a_page_with_what_it_loads_is_small(project: Project, pages: dict[str, BeautifulSoup]) -> None:
    for name, page in pages.items():
        files = {name, *(address for address in loaded(page) if address != "data:,")}
        assert sum((project.site / file).stat().st_size for file in files) < LIMIT, name


def test_a_formula_is_drawn_and_keeps_its_text(project: Project, pages: dict[str, BeautifulSoup]) -> None:
    formulas = [img for page in pages.values() for img in page.select(".formula img")]
    inline = [img for page in pages.values() for img in page.select(".inline img")]
    assert formulas and inline
    assert all((project.site / str(img["src"])).is_file() and img["alt"] for img in (*formulas, *inline))
    for name, page in pages.items():
        shown = BeautifulSoup(str(page.main), "html.parser")
        for code in shown.find_all(["pre", "code"]):
            code.decompose()
        assert not (left := LATEX.findall(shown.get_text())), (name, left)


def test_a_formula_stands_on_its_line_of_text(make_site: Callable[..., Project]) -> None:
    text = r"With $k > 0$ and $\frac{1}{2}$, `$HOME` and $5: $k > 0$ again." + "\n\n" + r"$$\hat\delta$$"
    output = new_output("display_data", data={"text/markdown": text, "text/plain": "x"})
    project = make_site(output)
    site.build(project)
    page, style = read(project.site / "toy.html"), (project.site / "style.css").read_text()
    first, half, again = page.select(".inline img")
    assert (first["alt"], half["alt"]) == ("k > 0", r"\frac{1}{2}") and first["src"] == again["src"] != half["src"]
    assert [img["alt"] for img in page.select(".formula img")] == [r"\hat\delta"]
    # What reaches below the line is lowered by so much: the style sheet has its class.
    (below,) = (name for name in half.parent["class"] if name.startswith("below-"))
    assert below != "below-0" and f".{below} img {{ vertical-align: -" in style
    assert "$HOME" in page.get_text() and "$5" in page.get_text()


def test_links_lead_somewhere(
    project: Project, pages: dict[str, BeautifulSoup], ids: dict[str, dict[str, Tag]]
) -> None:
    for name, page in pages.items():
        for link in page.find_all("a", href=True):
            if link["href"].startswith(("https://", "http://")):
                continue
            file, _, anchor = unquote(str(link["href"])).partition("#")
            assert (project.site / (file or name)).is_file(), (name, link["href"])
            if anchor:
                assert anchor in ids[file or name], (name, link["href"])


def test_identifiers_are_unique(pages: dict[str, BeautifulSoup]) -> None:
    for name, page in pages.items():
        ids = [tag["id"] for tag in page.find_all(id=True)]
        assert len(ids) == len(set(ids)), name


def test_every_claim_leads_to_its_verdict(project: Project, ids: dict[str, dict[str, Tag]]) -> None:
    for part in scoreboard.board(project).parts:
        home = ids["index.html"][f"part-{part.study}"].find_parent(class_="part")
        links = [tag["href"] for tag in home.select("th[scope=row] a, details li a")]
        code = [cell for cell in notebooks.read(project.notebook(part.study)).cells if cell.cell_type == "code"]
        for link, row in zip(links, part.all, strict=True):
            file, _, anchor = str(link).partition("#")
            target = ids[file][anchor]
            assert file == f"{row.study}.html" and target.name == "tr"
            assert target.select_one(".verdict").get_text() == f"{verdicts.SIGNS[row.verdict]} {row.verdict}"
            assert row.statement in [cell.get_text() for cell in target.find_all(["td", "th"])]
            decides = code[int(str(target.find_parent(class_="cell")["id"]).removeprefix("cell-")) - 1]
            assert ("table", "verdicts") in notebooks.saved(decides.source)


def test_every_claim_that_can_be_tested_leads_to_its_evidence(
    project: Project, pages: dict[str, BeautifulSoup], ids: dict[str, dict[str, Tag]]
) -> None:
    for part in scoreboard.board(project).parts:
        home = ids["index.html"][f"part-{part.study}"].find_parent(class_="part")
        for row, shown in zip(part.rows, home.select("tbody tr"), strict=True):
            links = [str(a["href"]) for a in shown.select(".evidence a")]
            assert links, (part.study, row.claim)
            checks = [link for link in links if link.endswith(("#table-gate", "#table-gates"))]
            assert checks or row.verdict != verdicts.UNINFORMATIVE, (part.study, row.claim)
            for link in links:
                target = ids[f"{part.study}.html"][link.partition("#")[2]]
                kind, _, name = str(target["id"]).partition("-")
                assert target.name == ("figure" if kind == "figure" else "div")
                # It stands in the cell that makes it.
                made = target.find_parent(class_="cell").select_one("details.code").get_text()
                assert f'"{name}"' in made, (part.study, link)


def test_every_filter_finds_what_it_counts(project: Project, pages: dict[str, BeautifulSoup]) -> None:
    board, style = scoreboard.board(project), (project.site / "style.css").read_text()
    wanted = {f"show-{site.slug(word)}": (site.slug(word), n) for word, n in board.counts().items() if n}
    index = pages["index.html"]
    offered = {tag["id"] for tag in index.select("input[type=radio]")}
    data = {"of-data", *(f"of-{place}" for place, _ in enumerate(board.models, start=1))}
    assert offered == {"show-any", "of-any", *data, *wanted}
    for name, (kind, n) in wanted.items():
        rows = index.select(f"tr.claim.{kind}") or index.select("details.claim li")
        assert len(rows) == n and f":has(#{name}:checked) :is(.claim:not(.{kind})" in style
    for name in data:
        assert index.select(f"tr.claim.{name}") and f":has(#{name}:checked) :is(.claim:not(.{name})" in style
    for name, (kind, _) in wanted.items():
        for column in data:
            both = f".index:has(#{name}:checked):has(#{column}:checked)"
            assert f"{both} .part:not(:has(.claim.{kind}.{column}))" in style
            assert (f"{both} .empty {{ display: block; }}" in style) != bool(
                index.select(f".claim.{kind}.{column}")
            )
    assert {tag["for"] for tag in index.select("label")} == offered


def test_every_number_says_which_cell_made_it(
    project: Project, pages: dict[str, BeautifulSoup], ids: dict[str, dict[str, Tag]]
) -> None:
    for study in project.names():
        page = pages[f"{study}.html"]
        for item in page.select(".downloads li"):
            file, cell = item.select("a")
            made = ids[f"{study}.html"][str(cell["href"])[1:]].select_one("details.code").get_text()
            name = Path(str(file["href"])).stem
            made_by = {
                f'"{name}"',
                *(f"study.{call}" for call, table in notebooks.STANDARD.items() if table == name),
            }
            assert any(call in made for call in made_by), (study, file["href"])


def test_every_figure_has_its_text_and_its_file(project: Project, pages: dict[str, BeautifulSoup]) -> None:
    for study in project.names():
        outputs = [out for cell in notebooks.read(project.notebook(study)).cells for out in cell.get("outputs", [])]
        declared = [out.metadata["image/png"]["alt"] for out in outputs if "image/png" in out.get("data", {})]
        figures = pages[f"{study}.html"].select("figure")
        assert [figure.img["alt"] for figure in figures] == declared != []
        for figure in figures:
            assert len(figure.img["alt"]) >= alt_texts.SHORTEST and figure.img["alt"] != alt_texts.NONE
            files = [str(a["href"]) for a in figure.select(".files a[download]")]
            assert figure.img["src"] in files and figure.a["href"] == figure.img["src"]
            # The table that it is drawn from, and the cell that saves it.
            assert files[0].startswith(f"{study}/tables/") and figure.select_one(".files a[href^='#cell-']"), files
    assert all(len(image["alt"]) >= alt_texts.SHORTEST for image in pages["index.html"].find_all("img"))


def test_every_table_has_its_file(project: Project, pages: dict[str, BeautifulSoup]) -> None:
    for study in project.names():
        outputs = [out for cell in notebooks.read(project.notebook(study)).cells for out in cell.get("outputs", [])]
        results = pages[f"{study}.html"].select(".result")
        assert len(results) == sum("text/html" in out.get("data", {}) for out in outputs)
        for result in results:
            assert result.select_one(".files a[download]")["href"].endswith(".csv")
        for reference, folder in ((project.results(study), "tables"), (project.figures(study), "figures")):
            for path in [*reference.glob("*.csv"), *reference.glob("*.svg")]:
                file = f"{study}/{folder}/{path.name}"
                assert (project.site / file).read_bytes() == path.read_bytes()
                assert pages[f"{study}.html"].find("a", href=file)


def test_a_page_can_be_found_one_s_way_in(pages: dict[str, BeautifulSoup]) -> None:
    for name, page in pages.items():
        assert page.html["lang"] == "en" and page.title.get_text(strip=True)
        assert len(page.find_all("h1")) == len(page.find_all("main")) == 1
        assert page.find("a")["href"] == "#main" and all(
            nav.attrs.keys() & {"aria-label", "aria-labelledby"} for nav in page.find_all("nav")
        )
        levels = [int(tag.name[1]) for tag in page.main.find_all(["h1", "h2", "h3", "h4"])]
        assert levels[0] == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels)), (name, levels)
        assert all(th.get("scope") for th in page.find_all("th")), name
        for table in page.find_all("table"):
            assert table.find_parent(class_="scroll").get("tabindex") == "0", name
        assert all(not part.has_attr("open") for part in page.find_all("details")), name


def test_a_row_says_that_a_significant_difference_is_too_small_to_matter(
    project: Project, pages: dict[str, BeautifulSoup]
) -> None:
    rows = [row for part in scoreboard.board(project).parts for row in part.rows]
    assert {row.claim for row in rows if row.small} >= {"disability", "able_bodied_pair"}
    for row in rows:
        link = pages["index.html"].select_one(f'.board tbody a[href="{row.study}.html#{row.id}"]')
        cell = link.find_parent("tr").select_one("td[data-label=verdict]").get_text()
        assert cell.endswith(row.small) and ("shown to be smaller" in cell) == bool(row.small)
        own = pages[f"{row.study}.html"].find(id=row.id).select_one("td[data-label=verdict]")
        # One part, which a narrow screen sets beside the name of the column.
        assert own.get_text().endswith(row.small) and len(own.find_all(True, recursive=False)) == 1


def test_numbers_of_the_notebook_reach_the_page(project: Project, pages: dict[str, BeautifulSoup]) -> None:
    for study in project.names():
        text = " ".join(pages[f"{study}.html"].get_text(" ").split())
        for cell in notebooks.read(project.notebook(study)).cells:
            for output in cell.get("outputs", []):
                html = output.get("data", {}).get("text/html")
                for value in BeautifulSoup(html, "html.parser").select("td.gt_row") if html else []:
                    assert " ".join(value.get_text(" ").split()) in text


# --- In a browser ----------------------------------------------------------------------------------------------

BROWSER = REPOSITORY / "tests" / "browser"
BAD = """<!DOCTYPE html><html><head><title>Bad</title></head><body><img src="x.png">
<p style="color: #ccc; background: #fff">pale</p><div style="width: 900px">wide</div>
<p style="color: #aaa; background: linear-gradient(#fff, #eee)">pale on a gradient</p>
<p style="color: #111; background: linear-gradient(#fff, #eee)">dark on a gradient</p>
<a href="#" style="outline: none">a</a>
<script src="https://example.org/x.js"></script><script>alert(1)</script>
</body></html>"""


def examine(folder: Path) -> list[dict[str, Any]]:
    """Open every page of a folder in Chromium; see check.mjs."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not (chromium and shutil.which("node") and (BROWSER / "node_modules").is_dir()):
        pytest.skip("needs Chromium, Node.js and what make test-browser installs")
    command = ["node", str(BROWSER / "check.mjs"), str(folder), chromium]
    found: list[dict[str, Any]] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def wrong(seen: dict[str, Any]) -> dict[str, Any]:
    """Return what is wrong with a page in a view."""
    kinds = ("violations", "incomplete", "pale", "elsewhere", "errors", "broken", "unmarked")
    return {kind: seen[kind] for kind in kinds if seen[kind]}


@pytest.mark.browser
def test_pages_in_a_browser(project: Project) -> None:
    found = examine(project.site)
    assert len(found) == 3 * (2 + len(project.names()))
    for seen in found:
        where = (seen["page"], seen["colorScheme"], seen["width"])
        assert wrong(seen) == {}, where
        assert seen["overflow"] <= 0 and seen["passes"] > 20, where


@pytest.mark.browser
def test_what_a_model_wrote_does_nothing_in_a_browser(make_site: Callable[..., Project]) -> None:
    raw = new_output("display_data", data={"text/html": HOSTILE, "text/plain": "x"})
    marked = new_output("display_data", data={"text/markdown": HOSTILE, "text/plain": "x"})
    replies = shown(pd.DataFrame({"reply": [HOSTILE]}), "replies")
    assert [wrong(seen) for seen in examine(site.build(make_site(raw, marked, replies)))] == [{}] * 9


@pytest.mark.browser
def test_a_bad_page_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text(BAD)
    found = examine(tmp_path)
    assert {"image-alt", "html-has-lang", "color-contrast", "region"} <= {
        rule["rule"] for seen in found for rule in seen["violations"]
    }
    assert any("a script ran: 1" in seen["errors"] for seen in found)
    assert all("https://example.org/x.js" in seen["elsewhere"] and len(seen["broken"]) == 1 for seen in found)
    assert [seen["overflow"] > 0 for seen in found] == [False, False, True] and found[0]["unmarked"]
    for seen in found:
        assert ["on a gradient" in text and "#aaa" in text for text in seen["pale"]] == [True], seen["pale"]
