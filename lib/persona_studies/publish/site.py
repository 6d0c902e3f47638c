"""The studies as a static site: the committed notebooks as pages, and the scoreboard as their index.

A page loads nothing from outside the site and needs no script; one lets a reader sort its tables. What a model
wrote can only be text in it: outputs are reduced to an allowed set of tags, and the pages' content security policy
names the hash of that script and refuses any other.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bleach
import pandas as pd
from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import math_to_image
from PIL import Image

from persona_studies.analyse import claims, tables, verdicts
from persona_studies.design import protocol
from persona_studies.errors import NotebookError
from persona_studies.paths import Project
from persona_studies.publish import evidence, guide, scoreboard, strip
from persona_studies.publish.scoreboard import Board, Part
from persona_studies.reproduce import notebooks

if TYPE_CHECKING:
    from nbformat import NotebookNode

TEMPLATES = Path(__file__).parent / "templates"
TAGS = {
    *("p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "hr", "br", "a"),
    *("em", "strong", "code", "pre", "span", "div", "sub", "sup", "del"),
    *("table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td"),
}
ATTRIBUTES = {
    "*": ["class", "id"],
    "a": ["href", "title"],
    "span": ["aria-hidden"],
    **{name: ["role"] for name in ("table", "thead", "tbody", "tr")},
    "th": ["scope", "colspan", "rowspan", "role"],
    "td": ["colspan", "rowspan", "role", "data-label"],
}
ALIGNED = {"gt_right": "right", "gt_center": "center"}
WORDY = {"long": 60, "medium": 24}  # characters of a cell from which it is not squeezed into a narrow column
GUIDE = "how-to-read"  # no study's name has a hyphen
# Of a line of its own, and within a sentence.
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$(?! )([^$\n]+)(?<! )\$", re.DOTALL)
DEEPEST = 12  # pixels that a formula may reach below its line of text; the style sheet has a class for each
CHECKS = ("gates", "gate")  # names of the table of checks
RESERVED = {"main", "contents", "contents-title", "files", "tables", "figures"}  # identifiers of the template


@dataclass(frozen=True)
class Heading:
    """An entry of a page's table of contents."""

    level: int
    id: str
    text: str


@dataclass(frozen=True)
class Picture:
    """A figure as a page shows it: its name, its text and its size in pixels."""

    name: str
    alt: str
    width: int
    height: int


def build(project: Project) -> Path:
    """Write ``build/site/`` from the committed notebooks, tables and figures, and return that folder.

    Raises:
        NotebookError: a notebook shows a picture that is not saved or has no text, or not all of its verdicts.
        PersonaStudiesError: verdicts or a protocol do not hold (:func:`persona_studies.publish.scoreboard.load`).
    """
    rows, board = scoreboard.load(project), scoreboard.board(project)
    studies = [_Study(project, part, rows[rows["study"] == part.study]) for part in board.parts]
    # Every page is made before the first file is written: an error leaves the last site as it was.
    pages = {f"{study.name}.html": study.page(studies) for study in studies}
    environment = _exporter({"prose": _prose}).environment
    about = {"studies": studies, "board": board, "units": claims.units(project)}
    about |= {"data": claims.PUBLISHED_DATA, "described": strip.described(board), "width": strip.WIDTH}
    about |= {"guide": guide.page(project, board), "rule": scoreboard.CLEAREST}
    for name in ("index", GUIDE):
        pages[f"{name}.html"] = environment.get_template(f"{name}.html.j2").render(**about)
    shutil.rmtree(project.site, ignore_errors=True)
    project.site.mkdir(parents=True)
    for name, page in pages.items():
        (project.site / name).write_text(page.rstrip() + "\n", encoding="utf-8")
    (project.site / "scoreboard.svg").write_text(strip.draw(board), encoding="utf-8")
    style = (TEMPLATES / "site" / "style.css").read_text(encoding="utf-8")
    depths = "".join(f".below-{n} img {{ vertical-align: -{n}px; }}\n" for n in range(DEEPEST + 1))
    (project.site / "style.css").write_text(style + depths + _both_filters(board), encoding="utf-8")
    for study in studies:
        for file, origin in study.files():
            (project.site / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(origin, project.site / file)
        for file, svg in study.formulas.items():
            (project.site / file).parent.mkdir(exist_ok=True)
            (project.site / file).write_bytes(svg)
    return project.site


def _both_filters(board: Board) -> str:
    """Return the style that hides a study without a claim of both filters, and says where no study has one."""
    columns = {f"of-{place}": name for place, name in enumerate(board.models, start=1)}
    columns["of-data"] = claims.PUBLISHED_DATA
    rules = []
    for word, n in board.counts().items():
        for column, name in columns.items() if n else ():
            asked = f".index:has(#show-{slug(word)}:checked):has(#{column}:checked)"
            rules.append(f"{asked} .part:not(:has(.claim.{slug(word)}.{column})) {{ display: none; }}")
            if not any(row.verdict == word and name in row.numbers for part in board.parts for row in part.rows):
                rules.append(f"{asked} .empty {{ display: block; }}")
    return "".join(f"{rule}\n" for rule in rules)


class _Study:
    """A study as a page, and what a template asks about it."""

    def __init__(self, project: Project, part: Part, rows: pd.DataFrame) -> None:
        self.project, self.name, self.part = project, part.study, part
        self.protocol = protocol.load(project.protocol(self.name))
        # A claim's first row is what the scoreboard leads to; further models follow it.
        places = rows.groupby(["claim", "layer"]).cumcount() + 1
        keys = zip(rows["claim"], rows["layer"], places, strict=True)
        self.said = [word for word in scoreboard.ORDER if word in set(rows["verdict"])]
        self.layers = rows["layer"].nunique() > 1
        self.anchors = [f"claim-{claim}-{layer}" + (f"-{n}" if n > 1 else "") for claim, layer, n in keys]
        self.claims = [*rows["claim"].where(~rows["claim"].duplicated(), "")]  # named in its first row
        self.small = [*rows["small"]]
        self.tables = sorted(path.stem for path in project.results(self.name).glob("*.csv"))
        self.figures = sorted(path.stem for path in project.figures(self.name).glob("*.svg"))
        self.made: dict[tuple[str, str], int] = {}
        self.behind: dict[str, list[str]] = {}
        self.proofs: dict[str, list[evidence.Artifact]] = {}
        self.captions: dict[str, str] = {}
        self.headings: list[Heading] = []
        self.formulas: dict[str, bytes] = {}
        self.first: Picture | None = None
        self.words = Markup("")

    def files(self) -> Iterator[tuple[str, Path]]:
        """Yield what a reader may download: its place in the site, and where it is copied from."""
        for name in self.tables:
            yield f"{self.name}/tables/{name}.csv", self.project.results(self.name) / f"{name}.csv"
        for name in self.figures:
            for ending in ("svg", "png"):
                file = f"{name}.{ending}"
                yield f"{self.name}/figures/{file}", self.project.figures(self.name) / file
        for path in (self.project.notebook(self.name), self.project.protocol(self.name)):
            yield f"{self.name}/{path.name}", path

    def page(self, studies: list[_Study]) -> str:
        """Return the page; afterwards ``headings`` and ``first``, the main figure, are known."""
        notebook = notebooks.read(self.project.notebook(self.name))
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for place, cell in enumerate(code, start=1):
            cell.outputs = _captioned(cell.outputs)
            self.made |= dict.fromkeys(notebooks.saved(cell.source), place)
            self.behind |= notebooks.drawn_from(cell.source)
        self.proofs = evidence.load(self.project, self.name, self.made)
        for output in (output for cell in code for output in cell.outputs):
            if caption := output.get("metadata", {}).get("caption"):
                self.captions[notebooks.drawing(output, self.project, self.name).name] = caption
        exporter = _exporter({"prose": self.prose, "picture": self.picture, "table": self.table})
        # Not as resources: nbconvert copies these, and headings are noted while the page is made.
        exporter.environment.globals.update(study=self, studies=studies)
        explained = {"words": self.said, "layers": self.layers}
        self.words = Markup(exporter.environment.get_template("words.html.j2").render(**explained))
        page, _ = exporter.from_notebook_node(notebook)
        return str(page)

    def prose(self, html: str) -> Markup:
        """Return Markdown's HTML, harmless, its headings noted for the table of contents."""
        soup = BeautifulSoup(_harmless(html), "html.parser")
        for tag in soup.find_all(re.compile("^h[1-6]$")):
            text = tag.get_text(" ", strip=True)
            taken = RESERVED | {heading.id for heading in self.headings}
            wanted = slug(text) or "section"
            tag["id"] = next(
                name for name in (wanted, *(f"{wanted}-{n}" for n in range(2, 1000))) if name not in taken
            )
            self.headings.append(Heading(int(tag.name[1]), str(tag["id"]), text))
        for text in soup.find_all(string=FORMULA):
            if not text.find_parent(["code", "pre"]):
                text.replace_with(BeautifulSoup(FORMULA.sub(self.formula, str(Markup.escape(text))), "html.parser"))
        return _scrolling(soup)

    def formula(self, found: re.Match[str]) -> str:
        """Return a formula as a picture with its LaTeX as text; unchanged where that fails."""
        latex = str(Markup(found[1] or found[2]).unescape()).strip()
        if (drawn := _drawn(latex, block=bool(found[1]))) is None:
            return found[0]
        svg, below = drawn
        # A formula that occurs twice is drawn once.
        file = next((file for file, known in self.formulas.items() if known == svg), None)
        file = file or f"{self.name}/formulas/{len(self.formulas) + 1}.svg"
        self.formulas[file] = svg
        kind = Markup('class="inline below-{}"').format(below)
        if found[1]:  # on a narrow screen it scrolls, by the keyboard too
            kind = Markup('class="paper formula" role="group" aria-label="Formula" tabindex="0"')
        return str(Markup('<span {}><img src="{}" alt="{}"></span>').format(kind, file, latex))

    def picture(self, output: NotebookNode) -> Picture:
        """Return the figure that an output shows.

        Raises:
            NotebookError: it says that it is drawn from a table that is not saved.
        """
        shown = notebooks.drawing(output, self.project, self.name)
        with Image.open(self.project.figures(self.name) / f"{shown.name}.png") as image:
            width, height = image.size
        wide = int(output.metadata["image/png"].get("width", width))
        found = Picture(shown.name, shown.alt, wide, round(height * wide / width))
        if lost := set(self.behind.get(shown.name, ())) - set(self.tables):
            raise NotebookError(
                f"{self.name}.ipynb draws figure {shown.name} from a table that it does not save: "
                f"{', '.join(sorted(lost))}. Save it with study.table, or name another in study.figure."
            )
        self.first = self.first or found
        return found

    def table(self, html: str, cell: NotebookNode, place: int, number: int) -> Markup:
        """Return an output's HTML as a table of this site, in a region that scrolls by itself.

        Args:
            html: Of the output; what is in it beside a table is dropped, except where it holds none.
            cell: The cell. Where it saves the verdicts, each row of theirs becomes the target of its claim's link.
            place: Number of the cell in the page.
            number: Of the output in the cell.
        """
        soup = BeautifulSoup(html, "html.parser")
        for tag in soup(["style", "script"]):
            tag.decompose()
        table = soup.table
        if table is None:
            return Markup(_harmless(str(soup)))
        holder = soup.find(id=True)
        called = str(holder["id"]) if holder else ""
        csv = next((name for name in self.tables if name.replace("_", "-") == called), None)
        titles, notes = _taken(table, "tr", "gt_heading"), _taken(table, "tfoot")
        _plain(table)
        if csv == "verdicts":
            table["class"] = "claims"
            _labelled(table)
            self._judged(table, targets=("table", "verdicts") in notebooks.saved(cell.source))
        caption = "".join(
            f'<span class="{kind}">{text}</span>' for kind, text in zip(("title", "subtitle"), titles, strict=False)
        )
        below = "".join(f"<p>{text}</p>" for text in notes)
        words = self.words if csv == "verdicts" else ""
        if csv:
            link = f'<a href="{self.name}/tables/{csv}.csv" download>{csv}.csv</a>{self.cell("table", csv)}'
            below += f'<p class="files">{link}</p>'
        id = f"table-{place}-{number}"
        own = Markup(' id="table-{}"').format(csv) if csv and self.made.get(("table", csv)) == place else ""
        # A caption inside would scroll out of sight with a wide table.
        return Markup(
            f'<div class="result"{own}><p class="caption" id="{id}">{caption or "Table"}</p>{words}'
            f'<div class="scroll" role="group" aria-labelledby="{id}" tabindex="0">{_harmless_table(table)}</div>'
            f'<div class="notes">{below}</div></div>'
        )

    def cell(self, kind: str, name: str) -> Markup:
        """Return a link to the cell that saves a table or a figure; nothing where none names it."""
        place = self.made.get((kind, name))
        return Markup(' <a href="#cell-{0}">cell {0}</a>').format(place) if place else Markup("")

    def evidence(self, claim: str) -> Markup:
        """Return links to the figures and tables that show a claim's number; nothing where none is declared.

        Where its measure failed a check, the table of the checks with their thresholds follows.
        """
        shown = [*self.proofs[claim]]
        if any(row.claim == claim and row.verdict == verdicts.UNINFORMATIVE for row in self.part.rows):
            shown += [("table", name) for name in CHECKS if ("table", name) in self.made and name in self.tables]
        link = Markup('<a href="{0}.html#{1}-{2}">{1} {3}</a>')
        links = [link.format(self.name, kind, name, name.replace("_", " ")) for kind, name in shown]
        return Markup(' <span class="evidence">{}</span>').format(Markup(" ").join(links)) if links else Markup("")

    def _judged(self, table: Tag, *, targets: bool) -> None:
        """Lead from each claim to its evidence in a table of verdicts; with ``targets``, links lead to its rows."""
        rows = [row for body in table.find_all("tbody") for row in body.find_all("tr")]
        if targets and len(rows) != len(self.anchors):
            raise NotebookError(
                f"{self.name}.ipynb shows {len(rows)} of {len(self.anchors)} verdicts in the cell that saves them."
            )
        for row, claim, anchor, small in zip(rows, self.claims, self.anchors, self.small, strict=False):
            if targets:
                row["id"] = anchor
            cells = {str(cell["data-label"]): cell for cell in row.find_all("td")}
            more = {"why": self.evidence(claim) if claim else "", "here": ""}
            for name in more.keys() & cells.keys():
                first, *lines = cells[name].get_text().split("\n")
                below = (Markup(' <span class="unit source">{}</span>').format(line) for line in lines)
                said = Markup("<span>{}{}{}</span>").format(first, Markup("").join(below), more[name])
                cells[name]["class"] = "right" if "right" in cells[name].get_attribute_list("class") else ""
                _fill(cells[name], said)
            if small:
                badge = Markup(cells["verdict"].decode_contents())
                said = Markup('<span>{} <span class="unit source">{}</span></span>').format(badge, small)
                _fill(cells["verdict"], said)


def _fill(cell: Tag, html: Markup) -> None:
    """Put HTML in the place of what a cell holds."""
    cell.clear()
    cell.append(BeautifulSoup(str(html), "html.parser"))


def _prose(html: str) -> Markup:
    """Return Markdown's HTML, harmless."""
    return _scrolling(BeautifulSoup(_harmless(html), "html.parser"))


def _scrolling(soup: BeautifulSoup) -> Markup:
    """Return HTML whose tables scroll by themselves."""
    for table in soup.find_all("table"):
        region = {"class": "scroll", "role": "group", "aria-label": "Table", "tabindex": "0"}
        table.wrap(soup.new_tag("div", attrs=region))
        for head in table.find_all("th"):
            head["scope"] = "col"
    return Markup(str(soup))


def _drawn(latex: str, *, block: bool) -> tuple[bytes, int] | None:
    """Return a formula as SVG, the same bytes each time, and how many pixels of it lie below the line of text.

    None where it cannot be drawn. A formula within a sentence is as large as the text around it.
    """
    known = re.sub(r"\\[bB]igg?(?![a-zA-Z])", "", latex)  # matplotlib knows no \big
    known = known.replace(r"\frac", r"\dfrac") if block else known
    drawn = io.BytesIO()
    with rc_context({"svg.hashsalt": "formula", "mathtext.fontset": "cm", "savefig.transparent": True}):
        try:
            depth = math_to_image(f"${known}$", drawn, prop=FontProperties(size=13), format="svg")
        except ValueError:
            return None
    svg = re.sub(rb"<metadata>.*?</metadata>", b"", drawn.getvalue(), flags=re.DOTALL)
    return svg, min(round(depth * 4 / 3), DEEPEST)


def _exporter(filters: dict[str, Any]) -> Any:
    notebooks.nbformat()  # before nbconvert imports it
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_name="site",
        template_file="study.html.j2",
        extra_template_basedirs=[str(TEMPLATES)],
        exclude_anchor_links=True,
    )
    exporter.environment.autoescape = True
    script = (TEMPLATES / "site" / "sort.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    exporter.environment.globals.update(
        script=Markup(script), digest=digest, signs=verdicts.SIGNS, meanings=verdicts.MEANINGS
    )
    for name, function in {"badge": _badge, "slug": slug, **filters}.items():
        exporter.register_filter(name, function)
    return exporter


def _captioned(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Return the outputs with each picture holding the line of emphasis below it as its caption."""
    kept: list[NotebookNode] = []
    for output in outputs:
        text = output.get("data", {}).get("text/markdown", "")
        if kept and "image/png" in kept[-1].get("data", {}) and re.fullmatch(r"\*[^*].*\*", text, re.DOTALL):
            kept[-1].metadata["caption"] = text[1:-1]
        else:
            kept.append(output)
    return kept


def _taken(table: Tag, name: str, kind: str | None = None) -> list[str]:
    """Remove parts of a table and return the text of their cells, escaped."""
    parts = table.find_all(name, class_=kind) if kind else table.find_all(name)
    texts = [str(Markup.escape(cell.get_text(" ", strip=True))) for part in parts for cell in part.find_all("td")]
    for part in parts:
        part.decompose()
    return texts


def _plain(table: Tag) -> None:
    """Keep of a table's markup what says something: alignment, scopes, line breaks, verdicts, failed gates."""
    grey = [row for row in table.find_all("tr") if tables.GREY in str(row.find("td"))]
    for tag in [table, *table.find_all(True)]:
        aligned = [ALIGNED[name] for name in tag.get_attribute_list("class") if name in ALIGNED]
        aligned += ["verbatim"] * ("pre-wrap" in str(tag.get("style", "")))
        kept = {name: str(tag[name]) for name in ("colspan", "rowspan", "scope") if tag.get(name, "1") != "1"}
        tag.attrs = {**kept, **({"class": " ".join(aligned)} if aligned else {})}
    for row in grey:
        row["class"] = "gated"
    # By name: a selector is matched against every tag, which takes most of a page's time.
    for head in (cell for part in table.find_all("thead") for cell in part.find_all("th")):
        head.attrs.setdefault("scope", "col")
    rows = [row for part in table.find_all("tbody") for row in part.find_all("tr")]
    cells = [[cell for cell in row.find_all(True) if cell.name in ("td", "th")] for row in rows]
    firsts = [row[0] for row in cells if len(row) > 1]  # alone, it is what the row holds
    texts = [cell.get_text(strip=True) for cell in firsts if cell is not None]
    if len(set(texts)) == len(firsts) and all(texts):  # it names the row
        for cell in firsts:
            cell.name = "th"
            cell["scope"] = "row"
    for cell in (cell for row in cells for cell in row):
        word = cell.get_text(strip=True)
        size = next((name for name, least in WORDY.items() if len(word) >= least), None)
        if size and "class" not in cell.attrs:
            cell["class"] = size
        if word in verdicts.SIGNS:
            cell.string = ""
            cell.append(BeautifulSoup(_badge(word), "html.parser"))


def _labelled(table: Tag) -> None:
    """Name the column in every cell, for a narrow screen that stacks them; the roles keep it a table."""
    last = table.thead.find_all("tr")[-1:] if table.thead else []
    heads = [head.get_text(" ", strip=True) for row in last for head in row.find_all("th")]
    table["role"] = "table"
    for part in table.find_all(["thead", "tbody"]):
        part["role"] = "rowgroup"
    for row in table.find_all("tr"):
        row["role"] = "row"
        cells = row.find_all(["td", "th"], recursive=False)
        for cell, head in zip(cells, heads, strict=False):
            kinds = {"col": "columnheader", "row": "rowheader"}
            cell["role"] = kinds.get(str(cell.get("scope")), "cell")
            if cell.name == "td":
                cell["data-label"] = head


def _badge(word: str) -> Markup:
    """Return a verdict with its sign; colour only repeats what both say."""
    return Markup('<span class="verdict {}"><span aria-hidden="true">{}</span> {}</span>').format(
        slug(word), verdicts.SIGNS[word], word
    )


def _harmless(html: str) -> str:
    """Return HTML without anything that could act: whatever is not allowed becomes text."""
    return str(bleach.clean(html, tags=TAGS, attributes=ATTRIBUTES, protocols={"http", "https", "mailto"}))


def _harmless_table(table: Tag) -> str:
    """Return a table of :func:`_plain` as HTML without anything that could act.

    Its attributes are those that this module sets. With allowed tags and plain text only, neither comments nor
    declarations, there is nothing to take away, and it need not be read a second time.
    """
    parts = [table, *table.descendants]
    plain = all(part.name in TAGS if isinstance(part, Tag) else type(part) is NavigableString for part in parts)
    return str(table) if plain else _harmless(str(table))


def slug(text: str) -> str:
    """Return a text as an identifier.

    >>> slug("Same direction, not significant")
    'same-direction-not-significant'
    """
    return "-".join(re.findall(r"\w+", text.lower()))
