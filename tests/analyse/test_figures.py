import re
from base64 import b64encode
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from persona_studies.analyse import figures
from persona_studies.errors import PersonaStudiesError
from persona_studies.reproduce import verify

ROWS = pd.DataFrame(
    {
        "label": ["one", "two"],
        "estimate": [0.5, 0.0],
        "low": [0.4, -0.1],
        "high": [0.6, 0.1],
        "rejected": [True, False],
    }
)


def draw() -> Figure:
    figures.style()
    return figures.forest(ROWS, xlabel="r", margin=0.1)


def test_two_runs_give_identical_bytes(tmp_path: Path) -> None:
    plt.close("all")  # what another test has left open
    one = [path.read_bytes() for path in figures.save(draw(), tmp_path / "one")]
    other = [path.read_bytes() for path in figures.save(draw(), tmp_path / "other")]
    assert one == other
    assert plt.get_fignums() == []


def test_significant_estimates_are_filled_and_others_are_not() -> None:
    axis = draw().axes[0]
    markers = [line for line in axis.lines if line.get_marker() in ("o", "s")]
    assert [(line.get_marker(), line.get_markerfacecolor() == "white") for line in markers] == [
        ("o", False),
        ("s", True),
    ]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["one", "two"]
    plt.close("all")


def test_what_was_shown_to_be_small_is_a_diamond() -> None:
    axis = figures.forest(ROWS.assign(within=[False, True]), xlabel="r", margin=0.1).axes[0]
    assert [line.get_marker() for line in axis.lines if len(line.get_xdata()) == 1] == ["o", "D"]
    plt.close("all")


def colours(figure: Figure) -> set[str]:
    """Return the colours of lines and marks that are neither black, grey nor white."""
    lines = figure.findobj(plt.Line2D)
    every = [to_rgba(colour) for line in lines for colour in (line.get_color(), line.get_mfc())]
    return {to_hex(colour) for colour in every if max(colour[:3]) - min(colour[:3]) > 0.02}


def test_what_stands_behind_a_failed_gate_is_grey_and_hollow() -> None:
    both = ROWS.assign(rejected=True, within=True, gate=["gate: above chance", ""])
    figure = figures.forest(both, xlabel="r", legend=True)
    failed, passed = (line for line in figure.axes[0].lines if len(line.get_xdata()) == 1)
    assert (failed.get_color(), failed.get_mfc(), failed.get_marker()) == (figures.GREY, "white", "s")
    assert passed.get_color() == passed.get_mfc() != figures.GREY
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == ["significant after correction", "grey: gate failed"]
    plt.close("all")


def test_a_whole_figure_behind_a_failed_gate_has_no_colour_left() -> None:
    figure, (lines, fields) = plt.subplots(1, 2)
    lines.errorbar([0, 1], [1, 2], [0.1, 0.1], fmt="o", label="bars")
    lines.scatter([0], [1])
    lines.bar([0], [1], label="bar")
    lines.annotate("blue", (0, 0), color="blue")
    (reference,) = lines.plot([0, 1], [0, 1], color="0.35")
    fields.imshow([[0, 1]])
    mesh = fields.pcolormesh([[0, 1]])
    lines.legend()
    assert figures.behind(figure, "") is figure and colours(figure) and not figure.get_suptitle()
    figures.behind(figure, "picks by place")
    assert not colours(figure) and figure.get_suptitle() == "grey: behind a failed check: picks by place"
    assert reference.get_color() == "0.35" and mesh.get_cmap().name == "Greys"
    for part in figure.findobj(lambda artist: isinstance(artist, PathCollection | Rectangle)):
        assert all(max(colour[:3]) - min(colour[:3]) < 0.02 for colour in np.atleast_2d(part.get_facecolor()))
    plt.close("all")


def marks(axis: Axes) -> list[tuple[str, float, bool]]:
    """Return shape, place and whether it is filled of every mark."""
    lines = [line for line in axis.lines if len(line.get_xdata()) == 1]
    return [(str(line.get_marker()), float(line.get_ydata()[0]), line.get_mfc() != "white") for line in lines]


def test_series_share_a_line_and_are_named() -> None:
    both = pd.concat([ROWS.assign(series="ours"), ROWS.assign(series="theirs", rejected=False)])
    figure = figures.forest(both, xlabel="r", legend=True)
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["one", "two"]
    assert [(shape, round(place, 3), filled) for shape, place, filled in marks(axis)] == [
        ("o", -0.175, True),
        ("o", 0.825, False),
        ("s", 0.175, False),
        ("s", 1.175, False),
    ]
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == ["ours", "theirs", "significant after correction", "not significant"]
    plt.close("all")


def test_a_verdict_gives_shape_colour_and_filling() -> None:
    verdicts = ["contradicted", "inconclusive"]
    figure = figures.forest(ROWS.assign(said=verdicts, verdict="superior"), xlabel="r", legend=True)
    assert marks(figure.axes[0]) == [("X", 0, True), ("D", 1, False)]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == verdicts
    plt.close("all")


def test_a_figure_without_a_text_is_refused(tmp_path: Path) -> None:
    _, png = figures.save(draw(), tmp_path / "plot")
    with pytest.raises(PersonaStudiesError, match="Figure plot needs an alt text"):
        figures.image(png, alt="a plot")


def test_the_text_reaches_the_page(tmp_path: Path) -> None:
    _, png = figures.save(draw(), tmp_path / "plot")
    data, metadata = figures.image(png, alt="Two estimates, one of them significant.")._repr_mimebundle_()
    assert metadata["image/png"]["alt"] == "Two estimates, one of them significant."
    output = new_output("display_data", data=data, metadata=metadata)
    # The template `lab` of this nbconvert passes alt texts by; `classic` reads them.
    page, _ = HTMLExporter(template_name="classic").from_notebook_node(
        new_notebook(cells=[new_code_cell("", outputs=[output])])
    )
    assert 'alt="Two estimates, one of them significant."' in page
    assert "No description has been provided" not in page


def test_a_user_s_own_settings_change_nothing(tmp_path: Path) -> None:
    one = [path.read_bytes() for path in figures.save(draw(), tmp_path / "one")]
    plt.rcParams.update({"savefig.bbox": "tight", "lines.solid_capstyle": "butt", "axes.titleweight": "bold"})
    assert [path.read_bytes() for path in figures.save(draw(), tmp_path / "other")] == one


def test_a_point_in_a_name_stays(tmp_path: Path) -> None:
    names = [path.name for stem in ("r.1", "r.2") for path in figures.save(draw(), tmp_path / stem)]
    assert names == ["r.1.svg", "r.1.png", "r.2.svg", "r.2.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_a_caption_is_no_html(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []
    monkeypatch.setattr(figures, "display", lambda *things: shown.extend(things))
    _, png = figures.save(draw(), tmp_path / "plot")
    figures.show(
        png, alt='"><script>alert(1)</script> and more text', caption="<script>alert(1)</script> p < .05, n = 3"
    )
    assert shown[1].data == "*&lt;script&gt;alert(1)&lt;/script&gt; p &lt; .05, n = 3*"  # type: ignore[attr-defined]
    data, metadata = shown[0]._repr_mimebundle_()  # type: ignore[attr-defined]
    output = new_output("display_data", data=data, metadata=metadata)
    page, _ = HTMLExporter(template_name="classic").from_notebook_node(
        new_notebook(cells=[new_code_cell("", outputs=[output])])
    )
    assert "<script>alert" not in page


def test_identifiers_do_not_depend_on_the_last_bit_of_a_coordinate(tmp_path: Path) -> None:
    texts = []
    for place, high in enumerate((0.3, 0.1 + 0.2)):
        figure, axis = plt.subplots()
        axis.plot([0, 1], [0, high], "o-")
        axis.set_ylim(0, high)
        svg, _ = figures.save(figure, tmp_path / f"{place}")
        texts.append(svg.read_text("utf-8"))
    assert texts[0] == texts[1] and 'id="p' in texts[0]
    assert not re.search(r'id="[a-zA-Z]\w*?[0-9a-f]{10}"', texts[0])


@pytest.mark.parametrize(
    ("x", "outcome"), [("72.000001", "within tolerance"), ("72.001", "differs"), ("72 1", "differs")]
)
def test_a_drawing_may_be_apart_by_rounding_only(tmp_path: Path, x: str, outcome: str) -> None:
    one, other = tmp_path / "a.svg", tmp_path / "b.svg"
    one.write_text('<svg><path d="M 72 10" style="fill: #1e9999"/></svg>')
    other.write_text(f'<svg><path d="M {x} 10" style="fill: #1e9999"/></svg>')
    assert verify.compare_figures(one, other)[0] == outcome


@pytest.mark.parametrize(("level", "outcome"), [(0x9D, "within tolerance"), (0x9E, "differs")])
def test_a_colour_may_be_apart_by_what_no_eye_sees(tmp_path: Path, level: int, outcome: str) -> None:
    """A value on the edge between two colours of a palette falls to either side, by the processor's last digit."""
    one, other = (tmp_path / name / "a.svg" for name in ("one", "other"))
    for path, red in ((one, 0x99), (other, level)):
        path.parent.mkdir()
        path.write_text(f'<svg><use href="#a99999"/><path d="M 72 10" style="fill: #{red:02x}9999"/></svg>')
        Image.new("RGB", (20, 10), (red, 0x99, 0x99)).save(path.with_suffix(".png"))
    assert verify.compare_figures(one, other)[0] == outcome
    pictures = one.with_suffix(".png"), other.with_suffix(".png")
    assert verify.compare_figures(*pictures)[0] == outcome
    cells = [
        new_code_cell(
            "draw()",
            id="a",
            outputs=[new_output("display_data", {"image/png": b64encode(p.read_bytes()).decode()})],
        )
        for p in pictures
    ]
    for path, cell in zip((one, other), cells):
        path.with_suffix(".ipynb").write_text(nbformat.writes(new_notebook(cells=[cell])))
    books = one.with_suffix(".ipynb"), other.with_suffix(".ipynb")
    assert verify.compare_notebooks(*books)[0] == outcome
