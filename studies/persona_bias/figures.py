"""Figures of the study of persona bias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from persona_studies.analyse.figures import GREY, behind, forest
from persona_studies.analyse.tables import gated


def contrasts(table: pd.DataFrame, names: Mapping[str, str], margin: float) -> Figure:
    """Draw contrasts with their intervals, and what each came to after correction.

    Args:
        table: Of :func:`persona_bias.analysis.sized`, or of :func:`persona_studies.analyse.conclusions.forest`,
            which names its lines itself, with ``bounded``.
        names: Of :func:`persona_bias.design.names`.
        margin: Smallest effect of interest, drawn as a band.
    """
    shown = table[table["n"] > 1].assign(within=table["bounded"].eq(True))
    if "label" not in shown:
        shown["label"] = [f"{names[a]} - {names[b]}" for a, b in zip(shown["first"], shown["second"], strict=True)]
    shown["label"] = shown["label"].str.replace(" - ", " less ", n=1)
    figure, axis = plt.subplots(figsize=(9, 0.36 * len(shown) + 1.7), layout="constrained")
    forest(shown, xlabel="difference in accuracy", margin=margin, axis=axis)
    figure.legend(handles=_key(margin, shown), loc="outside upper center", ncols=3, fontsize="small")
    return figure


def drops(table: pd.DataFrame, groups: Mapping[str, str], names: Mapping[str, str], margin: float) -> Figure:
    """Draw the difference per persona: one tick per set, and the mean with its interval over questions.

    Args:
        table: Of :func:`persona_bias.analysis.sized`.
        groups: Persona -> group.
        names: Of :func:`persona_bias.design.names`.
        margin: Smallest effect of interest, drawn as a band.
    """
    means = table[(table["family"] == "persona") & (table["n"] > 1)]
    sets = table[table["family"] == "persona_dataset"]
    labels = [f"{names[one]} ({groups[one]})" for one in means["first"]]
    figure = contrasts(means.assign(label=labels), names, margin)
    [axis] = figure.axes
    for place, persona in enumerate(means["first"]):
        own = sets.loc[sets["first"] == persona, "estimate"]
        axis.plot(own, np.full(len(own), place), "|", color="0.45", ms=9, zorder=1.5)
    axis.set_xlabel("difference in accuracy, a persona less a human; ticks: single sets")
    return figure


def _key(margin: float, shown: pd.DataFrame) -> list[Any]:
    """Return what the marks of a forest mean, those that it has; all of it is after correction."""
    blue = sns.color_palette("colorblind")[0]
    failed = pd.Series([gated(row) for row in shown.to_dict("records")], index=shown.index, dtype=bool)
    found = {(bool(row["rejected"]), row["within"]) for row in shown[~failed].to_dict("records")}
    kinds = {
        (True, False): ("o", blue, "significant"),
        (False, True): ("D", "white", f"shown to be less than {margin:g}"),
        (True, True): ("D", blue, f"significant, and shown to be less than {margin:g}"),
        (False, False): ("s", "white", f"not significant, not shown to be less than {margin:g}"),
    }
    marks: list[Any] = [
        Line2D([], [], marker=shape, ls="", color=blue, mfc=fill, ms=6, label=label)
        for kind, (shape, fill, label) in kinds.items()
        if kind in found
    ]
    if failed.any():
        marks.append(Line2D([], [], marker="s", color=GREY, mfc="white", label="grey: behind a failed check"))
    return [*marks, Patch(color="0.9", label=f"less than {margin:g} either way")]


def heat(table: pd.DataFrame, names: Mapping[str, str], alpha: float, gate: str) -> Figure:
    """Draw the difference by persona and set; a dot marks p <= alpha, a ring significance after correction.

    Args:
        table: Of :func:`persona_bias.analysis.by_set`.
        names: Of :func:`persona_bias.design.names`.
        gate: What failed behind it; empty where nothing did.
    """
    # Rounded, because shares lie on the edges between colours, where the last digit would decide.
    wide = table.pivot_table(index="first", columns="dataset", values="estimate", sort=False).round(9)
    down, across = ({name: place + 0.5 for place, name in enumerate(axis)} for axis in (wide.index, wide.columns))
    reach = float(np.nanmax(np.abs(wide.to_numpy()))) or 0.01
    figure, axis = plt.subplots(figsize=(1.0 + 0.75 * wide.shape[1], 2.1 + 0.33 * len(wide)), layout="constrained")
    sns.heatmap(
        wide.rename(index=names, columns=names),
        cmap="PuOr",
        center=0,
        vmin=-reach,
        vmax=reach,
        ax=axis,
        cbar_kws={"label": "difference in accuracy"},
        linewidths=0.5,
    )
    for row in table.dropna(subset="estimate").to_dict("records"):
        x, y = across[row["dataset"]], down[row["first"]]
        if row["p"] <= alpha:
            axis.plot(x, y, "o", color="black", mec="white", ms=5)
        if row["rejected"]:
            axis.plot(x, y, "o", color="black", mfc="none", ms=10)
    axis.set(xlabel="", ylabel="")
    axis.tick_params(axis="x", rotation=45)
    plt.setp(axis.get_xticklabels(), ha="right", rotation_mode="anchor")
    none = "" if table["rejected"].any() else " (none)"
    marks = [
        Line2D(
            [],
            [],
            marker="o",
            ls="",
            color="black",
            mec="white",
            ms=5,
            label=f"p at or below {alpha:g}, not corrected",
        ),
        Line2D(
            [], [], marker="o", ls="", color="black", mfc="none", ms=10, label=f"significant after correction{none}"
        ),
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=2, fontsize="small")
    return behind(figure, gate)


def power(table: pd.DataFrame, margin: float, per_set: int, gate: str) -> Figure:
    """Draw the difference that would be found with a power of .8 over the number of questions per set.

    Args:
        table: Of :func:`persona_bias.robustness.power`.
        margin: Smallest effect of interest, drawn as a line.
        per_set: Questions per set of this run, marked.
        gate: What failed behind it; empty where nothing did.
    """
    figure, axis = plt.subplots(figsize=(8, 3.8), layout="constrained")
    axis.axhline(margin, color="0.4", lw=1, ls="--")
    axis.annotate(
        f"smallest effect of interest, {margin:g}",
        (0.99, margin),
        xycoords=("axes fraction", "data"),
        xytext=(0, -3),
        textcoords="offset points",
        ha="right",
        va="top",
        color="0.4",
        fontsize="small",
    )
    axis.axvline(per_set, color="0.4", lw=1, ls=":")
    styles = zip(table.groupby("contrast", sort=False), "osD", ("-", "--", ":"), strict=False)
    for (name, rows), shape, line in styles:
        axis.plot(rows["questions_per_set"], rows["detectable"], shape, ls=line, ms=5, label=str(name))
    axis.set(xscale="log", xlabel="questions per set (ten sets)", ylabel="difference found\nwith a power of .8")
    ticks = sorted(set(table["questions_per_set"]))
    axis.set_xticks(ticks, [f"{n}, this run" if n == per_set else str(n) for n in ticks])
    # What would be found may be far smaller than what matters.
    axis.set(yscale="log")
    low, high = axis.get_ylim()
    ticks = [n for n in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if low <= n <= high]
    axis.set_yticks(ticks, [f"{n:g}" for n in ticks])
    axis.minorticks_off()
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return behind(figure, gate)


def directions(survived: pd.DataFrame, alpha: float) -> Figure:
    """Draw each reading of public replies, of all questions and of those that both personas answer.

    Args:
        survived: Of :func:`persona_bias.published.directions`.
        alpha: Filled where p is at most this, not corrected.
    """
    kinds = {
        "all": "all questions;\nwithout an answer counts as wrong",
        "answered by both": "questions that both answer",
    }
    order = survived.sort_values("persona", kind="stable")
    order = order[(order["questions"] == "all")][["persona", "extractor"]].reset_index(drop=True)
    figure, axes = plt.subplots(
        1, 2, figsize=(11, 1.6 + 0.33 * len(order)), layout="constrained", sharey=True, width_ratios=[1, 1]
    )
    for axis, (kind, title) in zip(axes, kinds.items(), strict=True):
        rows = order.merge(survived[survived["questions"] == kind], on=["persona", "extractor"], how="left")
        said = rows["answered"].where(rows["pairs"] > 0, 0)
        few = (rows["pairs"] == 0) | (said < rows["questions_asked"] / 2)
        label = rows["persona"].str.replace("^an? ", "", regex=True) + ", " + rows["extractor"]
        label += " (" + said.astype(int).astype(str) + " of " + rows["questions_asked"].astype(str) + ")"
        drawn = rows.assign(
            label=label,
            estimate=rows["difference"],
            rejected=(rows["p"] <= alpha).fillna(False),
            gate=np.where(few, "few answers", ""),
        )
        forest(drawn, xlabel="difference in accuracy against a human", axis=axis)
        axis.set_title(title, fontsize="small")
        for place in np.flatnonzero(rows["pairs"] == 0):
            axis.text(
                0,
                place,
                "no answer",
                ha="center",
                va="center",
                color="0.4",
                fontsize="small",
                backgroundcolor="white",
            )
    figure.legend(handles=_readings(alpha), loc="outside upper center", ncols=3, fontsize="small")
    return figure


def _readings(alpha: float) -> list[Line2D]:
    blue = sns.color_palette("colorblind")[0]
    return [
        Line2D([], [], marker="o", color=blue, label=f"p at or below {alpha:g}, not corrected"),
        Line2D([], [], marker="s", color=blue, mfc="white", label=f"p above {alpha:g}"),
        Line2D(
            [], [], marker="s", color=GREY, mfc="white", label="grey: fewer than half of the replies have an answer"
        ),
    ]
