"""Figures of the study of clinical personas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

NAMES = {
    "triage": "vignettes, four urgencies",
    "esi": "emergency cases, ESI",
    "medical": "medical questions",
    "safety": "safety prompts, safe reply",
}
MARKS = {"neutral": "o", "cautious": "v", "bold": "^"}
LINES = ("-", "--", "-.", ":")
ACCURATE = ("roles", "care", "controls")


def accuracy_contrasts(table: pd.DataFrame) -> pd.DataFrame:
    """Return the contrasts of accuracy in which some case is answered differently, for a forest.

    Args:
        table: Of :func:`clinical_personas.analysis.contrasts`.
    """
    shown = table[table["family"].isin(ACCURATE) & (table["se"] > 0)]
    where = shown["hypothesis"].str.replace(" | ", ", ") + shown["family"].map(
        {"controls": ", all data sets"}
    ).fillna("")
    return shown.assign(label=where + " (" + shown["n"].astype(int).astype(str) + ")").reset_index(drop=True)


def still(table: pd.DataFrame) -> list[str]:
    """Return the contrasts of accuracy in which no case is answered differently, by data set and how many."""
    none = table[table["family"].isin(ACCURATE) & (table["n"] > 1) & ~(table["se"] > 0)]
    sets = none["hypothesis"].str.split(" | ", regex=False).str[1].str.split(",").str[0]
    return [f"{n} of {name}" for name, n in sets.value_counts(sort=False).items()]


def left_out(sets: list[str]) -> str:
    """Say which data sets a figure leaves out, as every role answers every case of them alike."""
    if not sets:
        return ""
    return (
        f"Left out: {' and '.join(NAMES[name] for name in sets)}, where every role assigns one place to every case."
    )


def plot_accuracy(table: pd.DataFrame, yardsticks: pd.DataFrame, failed: Mapping[str, str]) -> Figure:
    """Draw accuracy by role and style, one panel per data set, beside chance and other people's answers.

    Args:
        table: Of :func:`clinical_personas_outcomes.accuracy`, roles only.
        yardsticks: ``dataset, who, accuracy``: dashed lines.
        failed: Data set -> checks that failed, said in its title.
    """
    datasets, roles, styles = (list(dict.fromkeys(table[name])) for name in ("dataset", "role", "style"))
    colours = dict(zip(styles, sns.color_palette("colorblind", len(styles)), strict=True))
    figure, axes = plt.subplots(
        1, len(datasets), figsize=(3.0 * len(datasets) + 0.8, 4.2), layout="constrained", sharey=True, squeeze=False
    )
    for axis, dataset in zip(axes[0], datasets, strict=True):
        rows = table[table["dataset"] == dataset]
        for turn, style in enumerate(styles):
            part = rows[rows["style"] == style]
            x = np.array([roles.index(role) for role in part["role"]]) + (turn - (len(styles) - 1) / 2) * 0.22
            reach = [part["accuracy"] - part["low"], part["high"] - part["accuracy"]]
            axis.errorbar(
                x, part["accuracy"], reach, fmt=MARKS[style], color=colours[style], ms=5, lw=1.4, label=style
            )
        axis.axhline(rows["chance"].iloc[0], color="0.35", lw=1, ls=":")
        right = len(roles) + 0.7
        axis.text(right, rows["chance"].iloc[0] - 0.008, "chance", ha="right", va="top", fontsize=7, color="0.35")
        marks = list(yardsticks[yardsticks["dataset"] == dataset][["who", "accuracy"]].itertuples(index=False))
        if dataset == "esi":
            marks.append(("always\nlevel 2", rows["base_rate"].iloc[0]))
        above = 2.0
        for who, value in sorted(marks, key=lambda mark: -float(mark[1])):
            axis.axhline(value, color="0.55", lw=0.9, ls="--", zorder=0)
            # A label stands above its line, or below where another line is near.
            place, side = (value + 0.006, "bottom") if above - value > 0.12 else (value - 0.008, "top")
            axis.text(right, place, who, ha="right", va=side, fontsize=7, color="0.3", linespacing=0.95)
            above = value
        gate = ", gate failed" if failed.get(dataset) else ""
        axis.set(title=f"{NAMES[dataset]}\nn = {rows['n'].iloc[0]}{gate}", xticks=range(len(roles)), ylim=(0, 1))
        axis.set_xlim(-0.5, len(roles) + 0.75)
        axis.set_xticklabels(roles, rotation=30, ha="right", rotation_mode="anchor")
    axes[0][0].set_ylabel("accuracy")
    figure.legend(
        *axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(styles), title="style"
    )
    return figure


def plot_reliability(table: pd.DataFrame, gpt3: pd.DataFrame) -> Figure:
    """Draw how often answers are right against how probable they are said to be, one panel per data set.

    Args:
        table: Of :func:`clinical_personas_outcomes.reliability`.
        gpt3: ``probability, frequency, n`` of GPT-3's labels, drawn among the vignettes.
    """
    datasets, roles = list(dict.fromkeys(table["dataset"])), list(dict.fromkeys(table["who"]))
    colours = sns.color_palette("colorblind", len(roles) + 1)
    figure, axes = plt.subplots(
        1, len(datasets), figsize=(3.4 * len(datasets), 4.4), layout="constrained", sharey=True, squeeze=False
    )
    handles: dict[str, Any] = {}
    for axis, dataset in zip(axes[0], datasets, strict=True):
        axis.plot([0, 1], [0, 1], color="0.6", lw=1, ls=":")
        for turn, who in enumerate(roles):
            part = table[(table["dataset"] == dataset) & (table["who"] == who)]
            (handles[who],) = axis.plot(
                part["probability"], part["frequency"], marker="osD^"[turn % 4], ls=LINES[turn % 4],
                color=colours[turn], ms=4.5, lw=1.2,
            )  # fmt: skip
        if dataset == "triage" and len(gpt3):
            (handles["GPT-3"],) = axis.plot(
                gpt3["probability"], gpt3["frequency"], "x-", color="0.25", ms=5, lw=1, label="GPT-3"
            )
        axis.set(title=NAMES[dataset], xlim=(0, 1), ylim=(0, 1), xlabel="probability of the chosen option")
        axis.set_aspect("equal")
    axes[0][0].set_ylabel("share right")
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=len(handles))
    return figure


def plot_risk(table: pd.DataFrame) -> Figure:
    """Draw risk propensity and risk sensitivity by style, roles side by side and averaged.

    Args:
        table: Of :func:`clinical_personas_outcomes.risk`, vignettes and emergency cases.
    """
    datasets, styles, roles = (list(dict.fromkeys(table[name])) for name in ("dataset", "style", "role"))
    colours = dict(zip(roles, ["black", *sns.color_palette("colorblind", len(roles) - 1)], strict=True))
    figure, axes = plt.subplots(
        2, len(datasets), figsize=(4.4 * len(datasets), 5.6), layout="constrained", sharex=True, sharey="row",
        squeeze=False,
    )  # fmt: skip
    for column, dataset in enumerate(datasets):
        for row, (value, low, high) in enumerate(
            (("propensity", "low", "high"), ("sensitivity", "sensitivity_low", "sensitivity_high"))
        ):
            axis = axes[row][column]
            for turn, role in enumerate(roles):
                part = table[(table["dataset"] == dataset) & (table["role"] == role)]
                x = np.array([styles.index(style) for style in part["style"]])
                reach = np.array([part[value] - part[low], part[high] - part[value]])
                axis.errorbar(
                    x + (turn - (len(roles) - 1) / 2) * 0.13, part[value], np.nan_to_num(reach),
                    fmt="osD^v"[turn % 5], color=colours[role], ms=6 if role == "all" else 4.5,
                    lw=2 if role == "all" else 1.2, label="all roles" if role == "all" else role,
                )  # fmt: skip
            axis.axhline(0, color="0.5", lw=1, ls=":")
            if row:
                axis.axhline(1, color="0.7", lw=1, ls="--")
                axis.set_xticks(range(len(styles)), styles)
            else:
                axis.set_title(f"{NAMES[dataset]}, n = {part['n'].iloc[0]}")
    axes[0][0].set_ylabel("risk propensity\n(places; up is less urgent)")
    axes[1][0].set_ylabel("risk sensitivity\n(slope; 1 follows urgency)")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(roles))
    return figure


def plot_costs(table: pd.DataFrame, ratio: float) -> Figure:
    """Draw cost and net benefit over the ratio of costs, with the declared ratio marked.

    Args:
        table: Of :func:`clinical_personas_outcomes.cost_sweep`.
        ratio: The declared cost ratio.
    """
    datasets = list(dict.fromkeys(table["dataset"]))
    everyone = [who for who in dict.fromkeys(table["who"]) if who != "everybody"]
    colours = dict(zip(everyone, sns.color_palette("colorblind", len(everyone)), strict=True))
    figure, axes = plt.subplots(
        2, len(datasets), figsize=(4.4 * len(datasets) + 1.2, 6.2), layout="constrained", sharex=True, squeeze=False
    )
    for column, dataset in enumerate(datasets):
        for turn, who in enumerate(everyone):
            part = table[(table["dataset"] == dataset) & (table["who"] == who)]
            for axis, value in zip(axes[:, column], ("relative_cost", "net_benefit"), strict=True):
                axis.plot(
                    part["ratio"], part[value], ls=LINES[turn % 4], color=colours[who], label=who,
                    lw=2.2 if turn >= 4 else 1.5,
                )  # fmt: skip
        everybody = table[(table["dataset"] == dataset) & (table["who"] == "everybody")]
        top, bottom = axes[:, column]
        bottom.plot(everybody["ratio"], everybody["net_benefit"], color="0.6", lw=1, label="everybody is treated")
        top.axhline(1, color="0.5", lw=1, ls=":")
        bottom.axhline(0, color="0.5", lw=1, ls=":")
        reach = float(everybody["net_benefit"].max())
        bottom.set_ylim(-0.35 * reach, 1.1 * reach)
        top.set(yscale="log", xscale="log", title=NAMES[dataset])
        bottom.set(xscale="log", xlabel="cost of under- against over-triage")
        for axis in (top, bottom):
            axis.axvline(ratio, color="0.4", lw=0.9, ls="--")
    axes[0][0].set_ylabel("cost over that of the\nbest constant answer")
    axes[1][0].set_ylabel("net benefit per case")
    handles: dict[str, Any] = {}
    for axis in axes[1]:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=4)
    return figure


def plot_labels(changes: pd.DataFrame, combined: pd.DataFrame) -> Figure:
    """Draw how a sex label changes the level that each published model assigns, and the mean over models.

    Args:
        changes: Of :func:`clinical_personas_published.label_changes`.
        combined: Of :func:`clinical_personas_published.labels_combined`.
    """
    names = list(combined["hypothesis"])
    models = list(dict.fromkeys(changes["model"]))
    colour = sns.color_palette("colorblind")[0]
    figure, axes = plt.subplots(
        1, len(names), figsize=(9.4, 0.29 * len(models) + 1.9), layout="constrained", sharey=True, sharex=True
    )
    for axis, name in zip(axes, names, strict=True):
        rows = changes[changes["hypothesis"] == name].set_index("model").loc[models]
        for place, row in enumerate(rows.to_dict("records")):
            axis.plot([row["low"], row["high"]], [place, place], color=colour, lw=1.3)
            axis.plot(row["difference"], place, "o", color=colour, ms=4.5)
        whole = combined[combined["hypothesis"] == name].iloc[0]
        last = len(models) + 0.4
        axis.plot([whole["prediction_low"], whole["prediction_high"]], [last, last], color="0.55", lw=1)
        axis.plot([whole["low"], whole["high"]], [last, last], color="black", lw=2.4)
        axis.plot(whole["difference"], last, "D", color="black", ms=6)
        axis.axvline(0, color="0.4", lw=1, ls=":")
        axis.set_title(name)
    axes[0].set(yticks=[*range(len(models)), len(models) + 0.4], ylim=(len(models) + 1, -0.6))
    axes[0].set_yticklabels([*(model.split("/")[-1].split("@")[0] for model in models), "all models"])
    figure.supxlabel("change of the assigned level for the same case (right: less urgent)", fontsize=9)
    return figure


def plot_power(curve: pd.DataFrame, margin: float) -> Figure:
    """Draw the power of a role's contrast with the assistant over true differences in accuracy.

    Args:
        curve: Of :func:`clinical_personas_analysis.power_curve`.
        margin: Equivalence margin, marked.
    """
    figure, axis = plt.subplots(figsize=(6.6, 3.8), layout="constrained")
    names = list(dict.fromkeys(curve["dataset"]))
    colours = sns.color_palette("colorblind", len(names))
    for turn, name in enumerate(names):
        part = curve[curve["dataset"] == name]
        axis.plot(
            part["effect"], part["power"], ls=LINES[turn % 4], color=colours[turn], lw=1.8,
            label=f"{NAMES[name].split(',')[0]}, n = {part['n'].iloc[0]}",
        )  # fmt: skip
    axis.axhline(0.8, color="0.5", lw=1, ls=":")
    axis.axvline(margin, color="0.5", lw=1, ls="--")
    axis.set(xlabel="true difference in accuracy", ylabel="power", ylim=(0, 1.02), xlim=(0, curve["effect"].max()))
    axis.legend(loc="lower right")
    return figure
