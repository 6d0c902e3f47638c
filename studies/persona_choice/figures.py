"""Figures of the study; a filled mark always means: decided after correction, or by its limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from persona_studies.analyse import families
from persona_studies.analyse import figures as lib
from persona_studies.design.protocol import Protocol

BLUE, ORANGE, GREEN, RED = (sns.color_palette("colorblind")[place] for place in (0, 1, 2, 3))
SAID = {
    "none": "nothing",
    "full": "whole profile",
    "key": "key features",
    "age": "age only",
    "placebo": "colour, breakfast",
    "shuffled": "another's profile",
    "filler": "a library",
    "longer": "prefers longer",
    "shorter": "prefers shorter",
}

OUTCOMES = {
    "share right": "difference in the share of pairs chosen right",
    "share named": "difference in the share of characters named",
    "KS": "difference in KS distance (left: nearer to people)",
}
"""Outcome of a contrast -> the axis that shows it."""


def _lines(axis: Axes, table: pd.DataFrame, label: str, filled: pd.Series) -> None:
    """Draw one estimate with limits per row, names at the side."""
    for place, (row, solid) in enumerate(zip(table.to_dict("records"), filled, strict=True)):
        axis.plot([row["low"], row["high"]], [place, place], color=BLUE, lw=1.5)
        _mark(axis, row["estimate"], place, bool(solid))
    axis.set(yticks=range(len(table)), yticklabels=table[label], ylim=(len(table) - 0.5, -0.5))


def _mark(axis: Axes, x: Any, y: Any, filled: bool, label: str | None = None) -> None:
    shape, inside = ("o", BLUE) if filled else ("s", "white")
    axis.plot(x, y, shape, color=BLUE, mfc=inside, ms=6, label=label)


def _key(axis: Axes, filled: str, open_: str, **place: Any) -> None:
    """Say beside a panel what its filled and its open marks mean."""
    for solid, said in ((True, filled), (False, open_)):
        _mark(axis, [], [], solid, said)
    axis.legend(fontsize="small", **place)


BELOW = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2)}


def main(
    runs: pd.DataFrame,
    length: pd.DataFrame,
    agreement: pd.DataFrame,
    live: pd.DataFrame | None,
    model: str,
    gate: str,
) -> Figure:
    """Draw accuracy beside the longer answer, agreement by order and, where recorded, the model that was asked.

    Args:
        runs: Of :func:`persona_choice.judge.runs`.
        length: Tests of the family ``pj_length``, with ``on``: which runs are drawn, and which are filled.
        agreement: Of :func:`persona_choice.judge.agreement`.
        live: Of :func:`persona_choice.choice.conditions`.
        model: Whose answers the last panel shows.
        gate: What failed behind them; empty where nothing did.
    """
    figure = plt.figure(figsize=(10, 4.4 if live is None else 8.2), layout="constrained")
    grid = figure.add_gridspec(1 if live is None else 2, 2, width_ratios=[1.2, 1])
    axes = [figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])]
    label = length["on"]
    mine = runs.set_index("run").loc[[f"PRISM {name}" for name in label]].reset_index()
    mine = mine.assign(estimate=mine["untied"], low=mine["untied_low"], high=mine["untied_high"], label=label)
    _lines(axes[0], mine, "label", length["rejected"])
    axes[0].plot(mine["longer"], np.arange(len(mine)), "|", color=ORANGE, ms=16, mew=2.5)
    axes[0].set(xlabel="share right", title="Released judges (PRISM)", xlim=(0.45, 0.8))
    axes[0].axvline(0.5, color="0.4", lw=1, ls=":")
    axes[0].annotate("longer answer", (mine["longer"].iloc[0], -0.35), color=ORANGE, ha="right", fontsize=9)
    _key(axes[0], "better than the longer answer, corrected", "not shown", ncols=2, **BELOW)
    place = np.arange(len(agreement))
    axes[1].plot(agreement["same_order"], place, "o", color=BLUE, ms=8)
    axes[1].plot(agreement["swapped"], place, "X", color=RED, ms=9)
    axes[1].hlines(place, agreement["swapped"], agreement["same_order"], color="0.6", zorder=0)
    axes[1].annotate("same order", (agreement["same_order"].iloc[0], -0.25), color=BLUE, ha="center", fontsize=9)
    axes[1].annotate("swapped", (agreement["swapped"].iloc[0], -0.25), color=RED, ha="center", fontsize=9)
    axes[1].set(
        yticks=place,
        yticklabels=agreement["runs"].str.replace(" / ", "\n", regex=False),
        ylim=(len(agreement) - 0.5, -0.6),
        xlim=(0.5, 1),
        xlabel="pairs with the same answer chosen",
        title="Two runs, same pairs",
    )
    axes[0].set(ylim=(len(mine) - 0.5, -0.9))
    if live is not None:
        axis = figure.add_subplot(grid[1, :])
        choices(axis, live)
        axis.set(title=f"{model}, asked here" + (f"; grey: behind a failed check: {gate}" if gate else ""))
        if gate:
            lib.fade(axis)
    return figure


def choices(axis: Axes, live: pd.DataFrame) -> None:
    """Draw shares right by condition, with the longer answer's share and the weight of the first place."""
    asked = live[~live["condition"].isin(["longer", "shorter"])].reset_index(drop=True)
    asked = asked.assign(estimate=asked["right"], label=asked["condition"].map(SAID))
    _lines(axis, asked, "label", (asked["low"] > 0.5) | (asked["high"] < 0.5))
    axis.plot(asked["longer_right"], np.arange(len(asked)), "|", color=ORANGE, ms=16, mew=2.5)
    axis.plot(asked["first_place"], np.arange(len(asked)), "X", color=RED, ms=8)
    axis.annotate("longer answer", (asked["longer_right"].iloc[0], -0.35), color=ORANGE, ha="right", fontsize=9)
    axis.annotate("P(first place)", (asked["first_place"].iloc[0], -0.35), color=RED, ha="center", fontsize=9)
    axis.axvline(0.5, color="0.4", lw=1, ls=":")
    axis.set(xlabel="share right (cross: probability of what stands first)", ylim=(len(asked) - 0.5, -0.9))
    _key(axis, "limits exclude one half", "limits include one half", ncols=2, **BELOW)


def guesses(table: pd.DataFrame, gate: str) -> Figure:
    """Draw the share of characters named by context, among all names and among those of the series.

    Args:
        table: Of :func:`persona_choice.guess.contexts`.
        gate: What failed behind it; empty where nothing did.
    """
    figure, axis = plt.subplots(figsize=(8, 0.9 + 0.36 * len(table)), layout="constrained")
    chance, place = table["chance"].iloc[0], np.arange(len(table))
    apart = (table["low"] > chance) | (table["high"] < chance)
    _lines(axis, table.assign(estimate=table["right"]), "condition", apart)
    axis.axvline(chance, color="0.4", lw=1, ls=":")
    axis.plot(table["right_show"], place, "X", color=ORANGE, ms=8)
    axis.plot(table["chance_show"], place, "|", color=ORANGE, ms=14, mew=2)
    said = (
        ("among all names", table["right"].iloc[0], BLUE),
        ("in the series", table["right_show"].iloc[0], ORANGE),
    )
    for height, (text, x, colour) in zip((-0.85, -0.4), said, strict=True):
        axis.annotate(text, (x, height), color=colour, ha="right" if x > 0.5 else "left", fontsize=9)
    axis.annotate("chance", (table["chance_show"].iloc[0] + 0.01, -0.4), color=ORANGE, fontsize=9)
    axis.set(xlabel="share of characters named", xlim=(-0.02, 1.02), ylim=(len(table) - 0.5, -1.2))
    return lib.behind(figure, gate)


def survey(table: pd.DataFrame, floors: pd.DataFrame, gate: str) -> Figure:
    """Draw mean KS distances to people by condition, beside what takes no model.

    Args:
        table: Of :func:`persona_choice.respondents.surveyed`.
        floors: Of :func:`persona_choice.respondents.floors`.
        gate: What failed behind the model's answers; empty where nothing did.
    """
    names = [*table["condition"].str.replace("_", " "), *floors["answers"]]
    values = [*table["KS"], *floors["KS"]]
    figure = _bars(names, values, [BLUE] * len(table) + [ORANGE] * len(floors))
    if gate:
        lib.fade(*figure.axes[0].patches[: len(table)], *filter(None, figure.legends[0].legend_handles[:1]))
        figure.axes[0].set_title(f"grey: behind a failed check: {gate}", color="0.4", fontsize="small")
    return figure


def _bars(names: Sequence[str], values: Sequence[float], colours: Sequence[Any]) -> Figure:
    """Draw distances to people as bars with their values."""
    figure, axis = plt.subplots(figsize=(8, 0.8 + 0.33 * len(names)), layout="constrained")
    axis.barh(names, values, color=colours)
    handles = [Patch(color=BLUE, label="answers of a model"), Patch(color=ORANGE, label="no model")]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, fontsize="small")
    for place, value in enumerate(values):
        axis.annotate(f"{value:.3f}", (value, place), xytext=(4, 0), textcoords="offset points", va="center")
    axis.invert_yaxis()
    axis.set(xlabel="mean Kolmogorov-Smirnov distance to people's answers, six items", xlim=(0, 1.15 * max(values)))
    return figure


def models(protocol: Protocol, over: pd.DataFrame, margin: float) -> Figure:
    """Draw the contrasts behind the live claims, model by model (:func:`persona_choice.live.over_models`).

    Each outcome has a panel: a share and a distance have no common axis.
    """
    said = families.declared(protocol, over)
    names = said[["first", "second"]].map(lambda name: SAID.get(name, name.replace("_", " ")))
    label = names["first"] + " less " + names["second"] + ", " + over["model"].str.removesuffix("-instruct")
    panels = [part for _, part in over.assign(label=label).groupby(said["outcome"], sort=False)]
    rows = [len(part) for part in panels]
    size = (8, 0.5 + 0.9 * len(panels) + 0.42 * sum(rows))
    figure = plt.figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(panels), 1, height_ratios=rows, squeeze=False)
    for axis, part in zip(axes[:, 0], panels, strict=True):
        outcome = said["outcome"][part.index[0]]
        lib.forest(part, xlabel=OUTCOMES.get(outcome, outcome), margin=margin, axis=axis)
    lib.explain(figure, over, margin)
    return figure


def certain(cells: pd.DataFrame) -> Figure:
    """Draw accuracy when certain against .80, run by run."""
    figure, axis = plt.subplots(figsize=(8, 0.9 + 0.32 * len(cells)), layout="constrained")
    mine = cells.assign(estimate=cells["accuracy"], label=cells["run"] + " (" + cells["n"].astype(str) + ")")
    _lines(axis, mine, "label", mine["over"] | mine["under"])
    axis.axvline(0.8, color=ORANGE, lw=2, label="claimed: above 0.80")
    axis.set(xlabel="share right when the certainty is high", xlim=(-0.02, 1.02))
    _key(
        axis, "both limits on one side", "limits include 0.80", loc="lower center", bbox_to_anchor=(0.4, 1), ncols=3
    )
    return figure


def surveys(floors: pd.DataFrame) -> Figure:
    """Draw mean KS distances of methods beside what chance and people score."""
    model = floors["answers"].str.contains("mean of three|single")
    colours = [BLUE if mine else ORANGE for mine in model]
    names = [
        f"{name} (n = {int(n)})" if name.startswith("people drawn") else name
        for name, n in zip(floors["answers"], floors["n"], strict=True)
    ]
    return _bars(names, floors["KS"].tolist(), colours)


def calibration(bins: pd.DataFrame, conditions: tuple[str, ...], gate: str) -> Figure:
    """Draw stated against observed share of the first released answer; marks grow with their number of pairs.

    Args:
        bins: Of :func:`persona_choice.choice.bins`.
        conditions: One panel each.
        gate: What failed behind it; empty where nothing did.
    """
    figure, axes = plt.subplots(
        1, len(conditions), figsize=(2.5 * len(conditions), 3.3), layout="constrained", sharey=True, squeeze=False
    )
    for axis, condition in zip(axes[0], conditions, strict=True):
        mine = bins[bins["condition"] == condition]
        axis.plot([0, 1], [0, 1], color="0.6", ls=":")
        axis.scatter(mine["probability"], mine["frequency"], s=10 + 2 * mine["n"], color=BLUE, clip_on=False)
        axis.set(title=SAID[condition], xlabel="stated probability", xlim=(0, 1), ylim=(0, 1))
    axes[0][0].set(ylabel="share that the person rated best")
    return lib.behind(figure, gate)


def power(table: pd.DataFrame, margin: float) -> Figure:
    """Draw the smallest detectable difference and the power of the equivalence test against the number of pairs."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    styles = zip(table["discordance"].unique(), ("-", "--", ":"), (BLUE, GREEN, ORANGE), strict=False)
    for share, line, colour in styles:
        mine, said = table[table["discordance"] == share], f"{share:.0%} of pairs are decided differently"
        for axis, column in ((left, "detectable_family"), (right, "equivalence")):
            axis.plot(mine["n"], mine[column], ls=line, color=colour, marker="o", ms=3, label=said)
    left.axhline(margin, color="0.4", lw=1, ls=":")
    where = {"xytext": (4, -3), "textcoords": "offset points", "va": "top", "fontsize": "small"}
    left.annotate("smallest effect of interest", (0, margin), **where)
    left.set(xlabel="pairs", ylabel="smallest detectable difference", ylim=(0, None))
    right.axhline(0.8, color="0.4", lw=1, ls=":")
    right.set(xlabel="pairs", ylabel=f"power to show less than {margin:g}", ylim=(0, 1.02))
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize="small")
    for axis in (left, right):
        axis.set_xlim(0, 1050)
    return figure
