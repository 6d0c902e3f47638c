"""Figures: one style, identical bytes on every run, a text for those who do not see them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import Image, Markdown, display
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from PIL import Image as Picture

from persona_studies.analyse.alt import states
from persona_studies.analyse.tables import gated
from persona_studies.errors import PersonaStudiesError

SCREEN_DPI, FILE_DPI = 90, 150
GREY = "0.6"
"""Colour of what stands behind a failed gate, which is hollow too."""


def style() -> None:
    """Set fonts, palette and everything that would make two runs differ, a user's own settings included."""
    mpl.rcdefaults()
    sns.set_theme(context="notebook", style="ticks", palette="colorblind", font_scale=0.85)
    mpl.rcParams.update(
        {
            "font.family": "DejaVu Sans",
            "svg.hashsalt": "persona-studies",
            "svg.fonttype": "path",
            "figure.dpi": SCREEN_DPI,
            "savefig.dpi": FILE_DPI,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.frameon": False,
        }
    )


def save(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Write a figure as SVG and PNG, without date or version, close it, and return both paths."""
    svg, png = stem.with_name(f"{stem.name}.svg"), stem.with_name(f"{stem.name}.png")
    figure.savefig(svg, metadata={"Date": None, "Creator": None})
    svg.write_text(_numbered(svg.read_text("utf-8")), "utf-8")
    figure.savefig(png, metadata={"Software": None})
    plt.close(figure)
    return svg, png


def _numbered(svg: str) -> str:
    """Number the identifiers that matplotlib makes of coordinates: their last bit depends on the processor.

    >>> _numbered('<path id="pfa3ee3fd86"/><use href="#pfa3ee3fd86"/>')
    '<path id="p1"/><use href="#p1"/>'
    """
    found = dict.fromkeys(re.findall(r'id="([a-zA-Z]\w*?[0-9a-f]{10})"', svg))
    number = {name: f"{name[0]}{place}" for place, name in enumerate(found, start=1)}
    return re.sub(r"\b[a-zA-Z]\w*?[0-9a-f]{10}\b", lambda match: number.get(match[0], match[0]), svg)


def image(png: Path, *, alt: str) -> Any:
    """Return a picture with its text, as a notebook shows it.

    Raises:
        PersonaStudiesError: the text is too short to say what the figure shows.
    """
    if not states(alt):
        raise PersonaStudiesError(f"Figure {png.stem} needs an alt text that states what it shows, not {alt!r}.")
    with Picture.open(png) as picture:
        width = round(picture.width * SCREEN_DPI / FILE_DPI)
    return Image(filename=str(png), width=width, alt=alt, metadata={"alt": alt})


def show(png: Path, *, alt: str, caption: str) -> None:
    """Show a saved figure and its caption, whose markup is not HTML."""
    display(image(png, alt=alt), Markdown(f"*{escape(caption, quote=False)}*"))


def forest(
    frame: pd.DataFrame, *, xlabel: str, margin: float | None = None, legend: bool = False, axis: Axes | None = None
) -> Figure:
    """Draw estimates with their intervals, one line each, or one line for each label with several series.

    Args:
        frame: ``label, estimate, low, high``; where ``rejected`` is given, significant ones are filled; where
            ``within`` is given, those that were shown to lie in the band are diamonds. What stands behind a failed
            gate (:func:`persona_studies.analyse.tables.gated`) is grey and hollow. Where ``series`` is given, the
            estimates of one label stand side by side on its line, a shape and a colour to each series. Where
            ``said`` is given, this verdict gives the mark.
        xlabel: What is estimated, with its unit.
        margin: Half width of an equivalence band around zero.
        legend: Whether to say in the figure what shapes, filled, hollow and grey marks and the band mean.
        axis: Where to draw; otherwise a new figure.
    """
    series = [*dict.fromkeys(frame["series"])] if "series" in frame else []
    lines = [*dict.fromkeys(frame["label"])] if series else [*frame["label"]]
    if axis is None:
        height = 0.9 + (0.42 + 0.1 * max(len(series) - 1, 0)) * len(lines) + 0.35 * legend
        _, axis = plt.subplots(figsize=(8, height), layout="constrained")
    if margin is not None:
        axis.axvspan(-margin, margin, color="0.9", zorder=0)
    axis.axvline(0, color="0.4", lw=1, ls=":", zorder=1)
    for place, row in zip(places(frame), frame.to_dict("records"), strict=True):
        look = _look(row, series)
        drawn = axis.plot([row["low"], row["high"]], [place, place], color=look["color"], lw=1.5, zorder=2)
        drawn += axis.plot(row["estimate"], place, ls="", ms=6, zorder=3, **look)
        if gated(row):
            fade(*drawn)
    axis.set(xlabel=xlabel, yticks=range(len(lines)), yticklabels=lines, ylim=(len(lines) - 0.5, -0.5))
    whole = axis.get_figure()
    assert isinstance(whole, Figure)
    if legend:
        explain(whole, frame, margin)
    return whole


def places(frame: pd.DataFrame) -> list[float]:
    """Return how far down :func:`forest` draws each row: its number, or within the line of its label.

    >>> places(pd.DataFrame({"label": ["a", "a", "b"], "series": ["x", "y", "x"]}))
    [-0.175, 0.175, 0.825]
    """
    if "series" not in frame:
        return [float(number) for number in range(len(frame))]
    lines, series = ([*dict.fromkeys(frame[name])] for name in ("label", "series"))
    apart = {name: 0.7 * ((number + 0.5) / len(series) - 0.5) for number, name in enumerate(series)}
    return [lines.index(label) + apart[name] for label, name in zip(frame["label"], frame["series"], strict=True)]


def _look(row: Mapping[Any, Any], series: Sequence[Any] = ()) -> dict[str, Any]:
    """Return shape and colours of an estimate: filled where it is significant, or where its verdict decides."""
    filled = bool(row.get("rejected", True)) and not gated(row)
    shape, colour = "D" if row.get("within") and not gated(row) else "o" if filled else "s", "C0"
    if series:
        place = series.index(row["series"])
        shape, colour = "os^D"[place], f"C{place}"
    if verdict := row.get("said"):
        shape, colour, filled = MARKERS[verdict], COLOURS[verdict], verdict in DECIDED
    return {"marker": shape, "color": colour, "mfc": colour if filled else "white"}


def explain(figure: Figure, frame: pd.DataFrame, margin: float | None, ncols: int | None = None) -> None:
    """Say above the forests of a figure what their marks mean, those that it has.

    Args:
        figure: Of :func:`forest`, in a constrained layout; the legend has its whole width. What else has a label in
            its first part stands in the legend too.
        frame: All rows that are drawn.
        ncols: Columns of the legend; None for one line.
    """
    axis = figure.axes[0]
    more, _ = axis.get_legend_handles_labels()
    series = [*dict.fromkeys(frame["series"])] if "series" in frame else []
    behind = pd.Series([gated(row) for row in frame.to_dict("records")], index=frame.index)
    counts = frame[~behind & frame["estimate"].notna()]
    verdicts = [name for name in MARKERS if name in set(frame["said"])] if "said" in frame else []

    def key(label: str, look: Mapping[str, Any], line: str = "") -> Any:
        return axis.plot([], [], ls=line, ms=6, lw=1.5, zorder=3, label=label, **look)[0]

    handles = [key(str(name), _look({"series": name}, series), "-") for name in series]
    handles += [key(name, _look({"said": name}), "-") for name in verdicts]
    for filled, label in ((True, "significant after correction"), (False, "not significant")):
        if not verdicts and "rejected" in frame and (counts["rejected"].astype(bool) == filled).any():
            plain = {"marker": "o", "color": "0.3", "mfc": "0.3" if filled else "white"}
            handles.append(key(label, plain if series else _look({"rejected": filled})))
    if behind.any():
        handles.append(key("grey: gate failed", _look({"gate": True}), "-"))
        fade(handles[-1])
    handles += more
    if margin is not None:
        handles.append(Patch(color="0.9", label=f"less than {margin:g} either way"))
    figure.legend(handles=handles, loc="outside upper center", ncols=ncols or len(handles), fontsize="small")


def behind(figure: Figure, gate: str) -> Figure:
    """Draw a whole figure as behind a failed gate, and say above it what failed; nothing where nothing did."""
    if gate:
        fade(figure)
        figure.suptitle(f"grey: behind a failed check: {gate}", color="0.4", fontsize="small")
    return figure


def fade(*artists: Artist) -> None:
    """Make grey and hollow what has a colour: so looks, in every figure, what stands behind a failed gate.

    Black and grey stay: reference lines, axes, and what the gate is not about.
    """
    for part in (part for artist in artists for part in artist.findobj()):
        if isinstance(part, Line2D) and _coloured(part.get_color()):
            part.set(color=GREY, markerfacecolor="white")
        elif isinstance(part, Text) and _coloured(part.get_color()):
            part.set_color("0.35")
        elif isinstance(part, Patch) and _coloured(part.get_facecolor()):
            part.set(facecolor="white", edgecolor=GREY)
        elif isinstance(part, Collection) and part.get_array() is not None:
            part.set_cmap("Greys")
        elif isinstance(part, Collection):
            if any(map(_coloured, part.get_facecolor())):
                part.set(facecolor="white", edgecolor=GREY)
            elif any(map(_coloured, part.get_edgecolor())):
                part.set_edgecolor(GREY)


def _coloured(colour: Any) -> bool:
    """Return whether a colour is neither grey nor invisible."""
    *rgb, alpha = to_rgba(colour)
    return bool(alpha) and max(rgb) - min(rgb) > 0.02


MARKERS = {
    "reproduced": "o",
    "same direction, not significant": "^",
    "contradicted": "X",
    "heterogeneous": "P",
    "inconclusive": "D",
    "uninformative": "s",
    "not testable here": "v",
    "significant": "o",
    "not significant": "D",
}
"""Shape per verdict. Filled where the test decided, open elsewhere."""
COLOURS = dict(zip(MARKERS, ("C0", "C4", "C3", "C4", "C4", "0.5", "0.5", "C0", "C4"), strict=True))
"""Colour per verdict, of the palette of :func:`style`: as in the picture of the scoreboard, one for open claims."""
DECIDED = ("reproduced", "contradicted", "heterogeneous", "significant")


def specification_curve(
    frame: pd.DataFrame, names: Sequence[str], *, own: int | None = None, ylabel: str = "estimate"
) -> Figure:
    """Draw estimates in order of size, with intervals, above the choices that each rests on.

    Args:
        frame: ``specification, estimate, low, high, kind`` (the verdict) and the parameters, in drawing order.
        names: Parameters that vary, each shown with all of its choices.
        own: Number of the specification with the notebook's own parameters, which is marked.
        ylabel: What is estimated.
    """
    choices = [(name, choice) for name in names for choice in dict.fromkeys(frame[name].astype(str))]
    width = min(14.0, max(7.0, 3.5 + 0.2 * len(frame)))
    heights = [3.2, 0.35 + 0.26 * max(len(choices), 1)]
    figure, (curve, matrix) = plt.subplots(
        2, 1, figsize=(width, sum(heights) + 0.6), sharex=True, height_ratios=heights, layout="constrained"
    )
    small = 6.5 if len(frame) <= 60 else 3.5
    curve.axhline(0, color="0.4", lw=1, ls=":", zorder=1)
    places = pd.Series(range(len(frame)), index=frame.index)
    curve.vlines(places, frame["low"], frame["high"], color="0.6", lw=1.2 if len(frame) <= 60 else 0.7, zorder=2)
    order = [kind for kind in MARKERS if kind in set(frame["kind"])]
    for kind in [*order, *sorted(set(frame["kind"]) - set(MARKERS))]:
        these = frame["kind"] == kind
        colour = COLOURS.get(kind, "C5")
        curve.plot(
            places[these],
            frame.loc[these, "estimate"],
            MARKERS.get(kind, "P"),
            color=colour,
            mfc=colour if kind in DECIDED else "white",
            ms=small,
            label=f"{kind} ({int(these.sum())})",
            zorder=3,
        )
    curve.set(ylabel=ylabel)
    curve.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    _choices(matrix, frame, choices, places, small)
    if own is not None and (frame["specification"] == own).any():
        here = float(places[frame["specification"] == own].iloc[0])
        for axis in (curve, matrix):
            axis.axvspan(here - 0.5, here + 0.5, color="0.93", zorder=0)
        curve.annotate(
            "as declared",
            (here, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, -2),
            textcoords="offset points",
            ha="center" if 0 < here < len(frame) - 1 else "left" if here == 0 else "right",
            va="top",
            fontsize="small",
            color="0.35",
        )
    return figure


def _choices(
    axis: Axes, frame: pd.DataFrame, choices: Sequence[tuple[str, str]], places: pd.Series, size: float
) -> None:
    """Draw which choices each specification rests on, one row per choice."""
    for row, (name, choice) in enumerate(choices):
        used = places[frame[name].astype(str) == choice]
        axis.plot(places, [row] * len(places), ".", color="0.88", ms=size * 0.6, zorder=1)
        axis.plot(used, [row] * len(used), "o", color="0.15", ms=size * 0.7, zorder=2)
    for row in range(1, len(choices)):
        if choices[row][0] != choices[row - 1][0]:
            axis.axhline(row - 0.5, color="0.8", lw=0.8)
    longest = 40
    labels = [f"{name} = {choice}" for name, choice in choices]
    axis.set(
        yticks=range(len(choices)),
        yticklabels=[text if len(text) <= longest else text[: longest - 1] + "…" for text in labels],
        ylim=(max(len(choices), 1) - 0.5, -0.5),
        xlim=(-0.7, len(frame) - 0.3),
        xticks=[],
        xlabel=f"{len(frame)} specifications, by size of the estimate",
    )
