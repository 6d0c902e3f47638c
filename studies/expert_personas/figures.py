"""Figures of the study of expert personas."""

from __future__ import annotations

from math import sqrt

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import norm

from expert_personas.analysis import OVERALL, PERSONAS
from expert_personas.conditions import REFERENCE
from expert_personas.design import Parameters
from persona_studies.analyse import stats

KINDS = {
    "expert": "expert",
    "layperson": "knows little",
    "young_child": "knows little",
    "toddler": "knows little",
    "placebo": "placebo trait",
    "filler": "text about nobody",
    "shuffled": "shuffled words",
    "baseline": "intelligent assistant",
}


def plot_accuracy(table: pd.DataFrame) -> Figure:
    """Draw accuracy per persona and benchmark against chance (dashed) and no persona (line)."""
    benchmarks = list(dict.fromkeys(table["benchmark"]))
    figure, axes = plt.subplots(
        1,
        len(benchmarks),
        figsize=(3.4 * len(benchmarks) + 1.6, 5.2),
        sharey=True,
        layout="constrained",
        squeeze=False,
    )
    order = [name for name in [REFERENCE, *PERSONAS] if name in set(table["persona"])]
    for axis, benchmark in zip(axes[0], benchmarks, strict=True):
        rows = table[table["benchmark"] == benchmark].set_index("persona").reindex(order)
        y = np.arange(len(order))
        axis.errorbar(
            rows["accuracy"],
            y,
            xerr=[rows["accuracy"] - rows["low"], rows["high"] - rows["accuracy"]],
            fmt="o",
            ms=4,
            lw=1.2,
            color=sns.color_palette("colorblind")[0],
        )
        lines = {"chance": (rows["chance"].iloc[0], "--"), REFERENCE: (rows.loc[REFERENCE, "accuracy"], "-")}
        # Each label stands on the outer side of its line, in the room above the first row.
        sides = zip(sorted(lines, key=lambda name: lines[name][0]), [("right", -3), ("left", 3)], strict=True)
        for name, (side, away) in sides:
            where, dash = lines[name]
            axis.axvline(where, color="0.4", ls=dash, lw=1)
            axis.annotate(
                name,
                (where, -0.9),
                xytext=(away, 0),
                textcoords="offset points",
                ha=side,
                va="center",
                fontsize="small",
                color="0.3",
            )
        axis.margins(x=0.27)
        axis.set(title=benchmark, xlabel="accuracy", yticks=y, yticklabels=order)
    axes[0][0].set_ylim(len(order) - 0.5, -1.3)
    return figure


def plot_positions(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Draw probability by place and accuracy by the right option's place; dashed: no influence of the place."""
    colours = sns.color_palette("colorblind")
    for index, (n, rows) in enumerate(table.groupby("n_options", sort=True)):
        for axis, column in zip(axes, ["probability", "accuracy"], strict=True):
            axis.plot(
                rows["letter"], rows[column], "os^"[index % 3] + "-", color=colours[index], label=f"{n} options"
            )
        axes[0].axhline(1 / int(rows["n_options"].iloc[0]), color=colours[index], ls="--", lw=1)
    axes[0].plot([], [], "--", color="0.4", lw=1, label="if the place did not matter")
    axes[0].set(xlabel="place", ylabel="mean probability of the label", ylim=(0, 1))
    axes[1].set(xlabel="place of the right option", ylabel="share of cells answered right", ylim=(0, 1))
    axes[0].legend()


def plot_power(table: pd.DataFrame, chosen: Parameters, size: int, axes: np.ndarray) -> None:
    """Draw detectable difference, and power to show equivalence, against the number of questions.

    Args:
        table: Of :func:`expert_personas.analysis.contrasts`.
        chosen: Alpha and margin.
        size: Of the family, which the smallest p-value has to meet.
    """
    sizes = np.unique(np.geomspace(50, 800, 40).astype(int))
    level = chosen.alpha / size
    for index, (benchmark, group) in enumerate(
        table[table["benchmark"] != OVERALL].groupby("benchmark", sort=False)
    ):
        group = group[group["n"] > 1]
        spread, n = float((group["se"] * np.sqrt(group["n"])).median()), int(group["n"].median())
        colour, marker = sns.color_palette("colorblind")[index], "os^Dv"[index % 5]
        found = [stats.minimum_detectable_mean(spread / sqrt(k), k - 1, alpha=level, power=0.8) for k in sizes]
        axes[0].plot(sizes, found, color=colour, label=str(benchmark))
        here = stats.minimum_detectable_mean(spread / sqrt(n), n - 1, alpha=level, power=0.8)
        axes[0].plot(n, here, marker, color=colour)
        power = [_equivalence_power(chosen.margin, spread / sqrt(k), chosen.alpha) for k in sizes]
        axes[1].plot(sizes, power, color=colour, label=str(benchmark))
        axes[1].plot(n, _equivalence_power(chosen.margin, spread / sqrt(n), chosen.alpha), marker, color=colour)
    axes[0].axhline(chosen.margin, color="0.5", ls=":")
    axes[0].annotate(f"smallest effect, {chosen.margin:g}", (sizes[0], chosen.margin), ha="left", va="top")
    axes[0].set(xscale="log", xlabel="questions", ylabel="difference found with 80 % power", ylim=(0, None))
    axes[1].axhline(0.8, color="0.5", ls=":")
    axes[1].set(
        xscale="log", xlabel="questions", ylabel=f"power to show equivalence to less than {chosen.margin:g}"
    )
    axes[1].set(ylim=(0, 1.02))
    for axis in axes:
        axis.set_xticks([50, 100, 200, 400, 800], ["50", "100", "200", "400", "800"])
        axis.minorticks_off()
    axes[1].legend(title="mark: this recording")


def _equivalence_power(margin: float, se: float, alpha: float) -> float:
    """Return the power of two one-sided tests where there is no difference (normal approximation)."""
    return float(max(2 * norm.cdf(margin / se - norm.isf(alpha)) - 1, 0.0))


def plot_models(table: pd.DataFrame, margin: float) -> Figure:
    """Draw every contrast with its interval, models side by side; filled where significant.

    Args:
        table: ``model, hypothesis, estimate, low, high, rejected``.
        margin: Half width of the equivalence band.
    """
    names, models = list(dict.fromkeys(table["hypothesis"])), list(dict.fromkeys(table["model"]))
    figure, axis = plt.subplots(figsize=(8, 1.2 + 0.2 * len(names) * max(len(models), 2)), layout="constrained")
    axis.axvspan(-margin, margin, color="0.9", zorder=0)
    axis.axvline(0, color="0.4", lw=1, ls=":", zorder=1)
    colours = sns.color_palette("colorblind")
    for index, model in enumerate(models):
        rows = table[table["model"] == model]
        y = rows["hypothesis"].map(names.index) + (index - (len(models) - 1) / 2) * 0.6 / len(models)
        colour, marker = colours[index % len(colours)], "os^Dv"[index % 5]
        axis.hlines(y, rows["low"], rows["high"], color=colour, lw=1.3, zorder=2)
        for significant, fill in ((True, colour), (False, "white")):
            chosen = rows["rejected"] == significant
            axis.plot(rows["estimate"][chosen], y[chosen], marker, color=colour, mfc=fill, ms=5, zorder=3)
        axis.plot([], [], marker, color=colour, label=model)
    axis.set(
        xlabel="difference in accuracy against no persona",
        yticks=range(len(names)),
        yticklabels=names,
        ylim=(len(names) - 0.5, -0.5),
    )
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(models))
    return figure


def plot_lengths(table: pd.DataFrame, axis: Axes) -> None:
    """Draw a condition's effect against the length of its persona, by kind of persona."""
    kinds = table["kind"].map(KINDS)
    for index, kind in enumerate(dict.fromkeys(KINDS.values())):
        rows = table[kinds == kind]
        if len(rows):
            colour = sns.color_palette("colorblind")[index]
            axis.plot(rows["words"], rows["difference"], "osD^vP"[index], color=colour, ms=6, label=kind)
    axis.axhline(0, color="0.5", lw=1, ls=":")
    axis.set(xlabel="words of the persona", ylabel="difference in accuracy against no persona")
    axis.legend(bbox_to_anchor=(1, 1), loc="upper left", fontsize="small")
