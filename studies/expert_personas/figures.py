"""Figures of the study of expert personas."""

from __future__ import annotations

from collections.abc import Collection
from math import sqrt

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from scipy.stats import norm

from expert_personas.design import NO_PERSONA
from persona_studies.analyse import families, figures
from persona_studies.analyse.families import Settings
from persona_studies.analyse.stats.power import minimum_detectable_mean
from persona_studies.design.protocol import Protocol

PERSONAS = [
    *(NO_PERSONA, "expert, elaborate", "expert, short", "unrelated expert", "layperson", "toddler"),
    *("placebo trait", "filler", "shuffled expert", "intelligent assistant", "wrong on purpose"),
]
# Persona -> what it is, for the colours of a figure.
KINDS = {
    **dict.fromkeys(PERSONAS[1:4], "expert"),
    **dict.fromkeys(PERSONAS[4:6], "knows little"),
    **{name: name for name in PERSONAS[6:]},
}
# Families of differences in accuracy, in the order of the main figure.
FAMILIES = ["experts", "low_knowledge", "controls", "yardstick", "steerability"]
COLOURS = sns.color_palette("colorblind")


def contrasts(protocol: Protocol, tests: pd.DataFrame, margin: float) -> Figure:
    """Draw the declared differences in accuracy, family by family.

    Args:
        protocol: Says what the hypotheses are about.
        tests: Of :class:`persona_studies.analyse.conclusions.Analysis`, those of :data:`FAMILIES`.
        margin: Half width of the band of no interest.
    """
    rows = tests.sort_values("family", key=lambda names: names.map(FAMILIES.index), kind="stable")
    rows = families.declared(protocol, rows)
    return forest(rows.assign(label=rows["first"] + " – " + rows["second"]), margin)


def forest(rows: pd.DataFrame, margin: float) -> Figure:
    """Draw differences in accuracy, with a line between families.

    Args:
        rows: ``label, family, estimate, low, high, rejected, gate``.
        margin: Half width of the band of no interest.
    """
    figure, axis = plt.subplots(figsize=(9, 1.3 + 0.29 * max(len(rows), 3)), layout="constrained")
    figures.forest(rows, xlabel="difference in accuracy", margin=margin, legend=True, axis=axis)
    for place in np.flatnonzero(rows["family"].ne(rows["family"].shift()))[1:]:
        axis.axhline(place - 0.5, color="0.8", lw=0.8)
    return figure


def accuracy(table: pd.DataFrame, gate: str, usable: Collection[str]) -> Figure:
    """Draw accuracy per persona and benchmark against chance (dashed) and no persona (line).

    Args:
        table: Of :func:`expert_personas.analysis.accuracy`.
        gate: What failed behind all of it; empty where nothing did.
        usable: Benchmarks whose own gate passed; the others are grey and say so.
    """
    benchmarks = list(dict.fromkeys(table["benchmark"]))
    figure, axes = plt.subplots(
        1, len(benchmarks), figsize=(3.4 * len(benchmarks) + 1.6, 4.2), sharey=True, layout="constrained"
    )
    # As far as there is something to see, in tenths.
    far = min(1.0, np.ceil(10 * table["high"].max() + 0.5) / 10)
    for axis, benchmark in zip(np.atleast_1d(axes), benchmarks, strict=True):
        rows = table[table["benchmark"] == benchmark].set_index("persona").reindex(PERSONAS)
        y = np.arange(len(rows))
        reach = [rows["accuracy"] - rows["low"], rows["high"] - rows["accuracy"]]
        passed = not gate and benchmark in usable
        axis.errorbar(rows["accuracy"], y, xerr=reach, fmt="o", ms=5, lw=1.2, color=COLOURS[0])
        lines = {"chance": (rows["chance"].iloc[0], "--"), NO_PERSONA: (rows.loc[NO_PERSONA, "accuracy"], "-")}
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
        title = benchmark if passed or gate else f"{benchmark} (grey: gate failed)"
        axis.set(title=title, xlabel="accuracy", xlim=(0, far))
        if not passed:
            figures.fade(axis)
        axis.set(yticks=y, yticklabels=PERSONAS, ylim=(len(rows) - 0.5, -1.3))
    return figures.behind(figure, gate)


def positions(table: pd.DataFrame) -> Figure:
    """Draw probability by place and accuracy by the right option's place; dashed: no influence of the place."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for index, (n, rows) in enumerate(table.groupby("n_options", sort=True)):
        for axis, column in zip(axes, ["probability", "accuracy"], strict=True):
            axis.plot(
                rows["letter"], rows[column], "os"[index % 2] + "-", color=COLOURS[index], label=f"{n} options"
            )
        for axis, level in zip(axes, [1 / int(rows["n_options"].iloc[0]), rows["accuracy"].mean()], strict=True):
            axis.axhline(level, color=COLOURS[index], ls="--", lw=1)
    axes[0].plot([], [], "--", color="0.4", lw=1, label="if the place did not matter")
    axes[0].set(xlabel="place", ylabel="mean probability of the label", ylim=(0, 1))
    axes[1].set(xlabel="place of the right option", ylabel="share of cells answered right", ylim=(0, 1))
    axes[0].legend()
    return figure


def power(tests: pd.DataFrame, how: Settings, margin: float) -> Figure:
    """Draw detectable difference, and power to show that there is none, against the number of questions.

    Args:
        tests: Some contrasts: ``first, second, on, n, se, family_size``.
    """
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.4), layout="constrained")
    sizes = np.unique(np.geomspace(30, 480, 40).astype(int))
    for index, row in enumerate(tests.to_dict("records")):
        spread, n, level = row["se"] * sqrt(row["n"]), int(row["n"]), how.alpha / row["family_size"]
        for axis, of in zip(axes, (_detectable, _shows_none), strict=True):
            axis.plot(sizes, [of(spread, k, level, margin) for k in sizes], color=COLOURS[index])
            label = f"{row['first']} – {row['second']}, {row['on']}"
            axis.plot(n, of(spread, n, level, margin), "os^D"[index], color=COLOURS[index], label=label)
    axes[0].axhline(margin, color="0.5", ls=":")
    axes[0].annotate(f"smallest effect of interest, {margin:g}", (sizes[0], margin), ha="left", va="bottom")
    axes[0].set(ylabel="difference found with 80 % power", ylim=(0, None))
    axes[1].axhline(0.8, color="0.5", ls=":")
    axes[1].set(ylabel=f"power to show less than {margin:g}\nwhere there is none")
    # Only where the curves are, and the line that they are read against.
    axes[1].set_ylim(min(0.75, axes[1].get_ylim()[0]), 1.01)
    for axis in axes:
        axis.set(xscale="log", xlabel="questions")
        axis.set_xticks([30, 60, 120, 240, 480], ["30", "60", "120", "240", "480"])
        axis.minorticks_off()
    keys = axes[0].get_legend_handles_labels()
    figure.legend(*keys, loc="outside lower center", ncols=2, fontsize="small", title="mark: this recording")
    return figure


def _detectable(spread: float, n: int, level: float, margin: float) -> float:
    return float(minimum_detectable_mean(spread / sqrt(n), n - 1, alpha=level, power=0.8))


def _shows_none(spread: float, n: int, level: float, margin: float) -> float:
    """Return the power of two one-sided tests where there is no difference (normal approximation)."""
    return float(max(2 * norm.cdf(margin * sqrt(n) / spread - norm.isf(level)) - 1, 0.0))


def lengths(table: pd.DataFrame, margin: float, gate: str) -> Figure:
    """Draw a condition's effect against the length of its persona, by kind of persona.

    Args:
        table: Of :func:`expert_personas.robustness.lengths`.
        margin: Half width of the band of no interest.
        gate: What failed behind it; empty where nothing did.
    """
    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    kinds = table["persona"].map(KINDS)
    for index, kind in enumerate(dict.fromkeys(KINDS.values())):
        rows = table[kinds == kind]
        axis.plot(rows["words"], rows["difference"], "osD^vPX"[index], color=COLOURS[index], ms=6, label=kind)
    axis.axhspan(-margin, margin, color="0.93", zorder=0, label=f"less than {margin:g} either way")
    axis.axhline(0, color="0.5", lw=1, ls=":")
    axis.set(xlabel="words of the persona", ylabel="difference in accuracy against no persona")
    axis.margins(y=0.15)
    axis.legend(bbox_to_anchor=(1, 1), loc="upper left", fontsize="small")
    return figures.behind(figure, gate)
