"""Figures of the study of clinical personas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from persona_studies.analyse import families
from persona_studies.analyse import figures as shared
from persona_studies.design.protocol import Protocol

NAMES = {"triage": "vignettes, four urgencies", "esi": "emergency cases, ESI", "medical": "medical questions"}
CARE = {
    "critical": "critical care",
    "primary": "primary care",
    "critical - primary": "interaction:\ncritical less primary",
}
MARKS = {"neutral": "o", "cautious": "v", "bold": "^"}
LINES = ("-", "--", "-.", ":")
# Lines of the mean over models, and what they are.
LABELS: dict[str, dict[str, Any]] = {
    "interval of the mean": {"color": "black", "lw": 2.4},
    "where a further model would lie": {"color": "0.55", "lw": 1},
}


def plot_care(protocol: Protocol, tests: pd.DataFrame, margin: float) -> Figure:
    """Draw what a clinical role does to accuracy in critical and in primary care, and the difference.

    Args:
        protocol: Says what the hypotheses are about.
        tests: Of an analysis; the families care and yardstick are drawn.
        margin: Smallest effect of interest, drawn as a band.
    """
    rows = families.declared(protocol, tests[tests["family"].isin(["care", "yardstick"])])
    rows = rows.assign(label=rows["first"] + " less " + rows["second"])
    figure, axes = plt.subplots(1, len(CARE), figsize=(10, 3.6), layout="constrained", sharex=True, sharey=True)
    for axis, (part, title) in zip(axes, CARE.items(), strict=True):
        mine = rows[rows["part"] == part]
        shared.forest(mine, xlabel="", margin=margin, axis=axis)
        n = "–".join(str(n) for n in sorted(set(mine["n"])))
        axis.set_title(f"{title} (n = {n})")
    figure.supxlabel("difference in accuracy", fontsize="medium")
    shared.explain(figure, rows, margin)
    return figure


def plot_accuracy(table: pd.DataFrame, yardsticks: pd.DataFrame, failed: Mapping[str, str]) -> Figure:
    """Draw accuracy by role and style, one panel per data set, beside chance and other people's answers.

    Args:
        table: Of :func:`clinical_personas.outcomes.accuracy`, roles only.
        yardsticks: ``dataset, who, accuracy``: dashed lines.
        failed: Part of the gate -> checks that failed; its panels say so, and are grey and hollow.
    """
    datasets, roles, styles = (list(dict.fromkeys(table[name])) for name in ("dataset", "role", "style"))
    colours = dict(zip(styles, sns.color_palette("colorblind", len(styles)), strict=True))
    figure, axes = plt.subplots(
        1, len(datasets), figsize=(3.0 * len(datasets) + 0.8, 4.2), layout="constrained", sharey=True, squeeze=False
    )
    gates = [failed.get("medical" if dataset == "medical" else "cases") for dataset in datasets]
    for axis, dataset, gate in zip(axes[0], datasets, gates, strict=True):
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
        said = ", grey: gate failed" if gate else ""
        axis.set(title=f"{NAMES[dataset]}\nn = {rows['n'].iloc[0]}{said}", xticks=range(len(roles)), ylim=(0, 1))
        axis.set_xlim(-0.5, len(roles) + 0.75)
        axis.set_xticklabels(roles, rotation=30, ha="right", rotation_mode="anchor")
    axes[0][0].set_ylabel("accuracy")
    figure.legend(
        *axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(styles), title="style"
    )
    shared.fade(*([figure] if all(gates) else [axis for axis, gate in zip(axes[0], gates, strict=True) if gate]))
    return figure


def plot_reliability(table: pd.DataFrame, gpt3: pd.DataFrame) -> Figure:
    """Draw how often answers are right against how probable they are said to be, one panel per data set.

    Args:
        table: Of :func:`clinical_personas.outcomes.reliability`.
        gpt3: ``probability, frequency, n`` of GPT-3's labels, drawn among the vignettes.
    """
    datasets, roles = list(dict.fromkeys(table["dataset"])), list(dict.fromkeys(table["who"]))
    colours = sns.color_palette("colorblind", len(roles) + 1)
    figure, axes = plt.subplots(
        1, len(datasets), figsize=(3.6 * len(datasets), 4), layout="constrained", sharey=True, squeeze=False
    )
    handles: dict[str, Any] = {}
    for axis, dataset in zip(axes[0], datasets, strict=True):
        axis.axline((0, 0), slope=1, color="0.6", lw=1, ls=":")
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
        # Each panel has the range of its own probabilities: bins that lie close together would hide one another.
        stated = table.loc[table["dataset"] == dataset, "probability"].tolist()
        stated += gpt3["probability"].tolist() if dataset == "triage" else []
        reach = 0.05 * (max(stated) - min(stated)) or 0.05
        axis.set(title=NAMES[dataset], xlabel="probability of the likeliest option")
        axis.set(xlim=(min(stated) - reach, max(stated) + reach), ylim=(-0.03, 1.03))
    axes[0][0].set_ylabel("share right")
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=len(handles))
    return figure


def plot_risk(table: pd.DataFrame) -> Figure:
    """Draw risk propensity and risk sensitivity by style, roles side by side and averaged.

    Args:
        table: Of :func:`clinical_personas.outcomes.risk`.
    """
    styles, roles = (list(dict.fromkeys(table[name])) for name in ("style", "role"))
    colours = dict(zip(roles, sns.color_palette("colorblind", len(roles)), strict=True))
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    panels = (
        ("propensity", "low", "high", "risk propensity\n(places; up is less urgent)"),
        ("sensitivity", "sensitivity_low", "sensitivity_high", "risk sensitivity\n(slope; 1 follows urgency)"),
    )
    for axis, (value, low, high, label) in zip(axes, panels, strict=True):
        for turn, role in enumerate(roles):
            part = table[table["role"] == role]
            x = np.array([styles.index(style) for style in part["style"]])
            reach = np.array([part[value] - part[low], part[high] - part[value]])
            axis.errorbar(
                x + (turn - (len(roles) - 1) / 2) * 0.13, part[value], np.nan_to_num(reach), fmt="osD^"[turn % 4],
                color=colours[role], ms=6 if role == "all" else 4.5, lw=2 if role == "all" else 1.2,
                label="mean of the roles" if role == "all" else role,
            )  # fmt: skip
        axis.axhline(0, color="0.5", lw=1, ls=":")
        axis.set(ylabel=label, xticks=range(len(styles)), xticklabels=styles)
    axes[1].axhline(1, color="0.7", lw=1, ls="--")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(roles))
    return figure


def plot_confusion(table: pd.DataFrame, who: list[str]) -> Figure:
    """Draw which place is assigned to cases of which place, one panel per data set and persona.

    Args:
        table: Of :func:`clinical_personas.outcomes.confusion`.
        who: Personas, one column each.
    """
    datasets = list(dict.fromkeys(table["dataset"]))
    size = (3.1 * len(who), 2.9 * len(datasets))
    figure, axes = plt.subplots(len(datasets), len(who), figsize=size, layout="constrained", squeeze=False)
    for row, dataset in enumerate(datasets):
        for column, name in enumerate(who):
            mine = table[(table["dataset"] == dataset) & (table["who"] == name)]
            wide = mine.pivot(index="true", columns="assigned", values="probability").astype(float)
            counts = mine.drop_duplicates("true").set_index("true")["n"]
            wide.index = pd.Index([f"{place} (n = {counts[place]})" for place in wide.index])
            axis = axes[row][column]
            sns.heatmap(wide, annot=True, fmt=".2f", vmin=0, vmax=1, cmap="Blues", cbar=False, ax=axis, lw=0.5)
            for place in range(len(wide)):
                axis.add_patch(Rectangle((int(counts.index[place]) - 1, place), 1, 1, fill=False, ec="black"))
            axis.set(
                title=f"{NAMES[dataset].split(',')[0]}, {name}", xlabel="assigned", ylabel="" if column else "true"
            )
            axis.tick_params(axis="y", rotation=0, labelleft=not column)
    return figure


def plot_labels(changes: pd.DataFrame, combined: pd.DataFrame, margin: float) -> Figure:
    """Draw how a sex label changes the level that each published model assigns, and the mean over models.

    Args:
        changes: Of :func:`clinical_personas.published.label_changes`.
        combined: Of :func:`clinical_personas.published.labels_combined`.
        margin: Smallest effect of interest, drawn as a band.
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
        axis.plot(
            [whole["prediction_low"], whole["prediction_high"]],
            [last, last],
            **LABELS["where a further model would lie"],
        )
        axis.plot([whole["low"], whole["high"]], [last, last], **LABELS["interval of the mean"])
        axis.plot(whole["difference"], last, "D", color="black", ms=6)
        axis.axvspan(-margin, margin, color="0.9", zorder=0)
        axis.axvline(0, color="0.4", lw=1, ls=":")
        axis.set_title(name.replace(" - ", " − "))
    axes[0].set(yticks=[*range(len(models)), len(models) + 0.4], ylim=(len(models) + 1, -0.6))
    axes[0].set_yticklabels([*(model.split("/")[-1].split("@")[0] for model in models), "all models"])
    figure.supxlabel("change of the assigned level for the same case (right: less urgent)", fontsize=9)
    handles = [
        Line2D([], [], marker="o", color=colour, lw=1.3, ms=4.5, label="a model"),
        Line2D([], [], marker="D", color="black", lw=0, ms=6, label="mean over models"),
        *(Line2D([], [], label=name, **style) for name, style in LABELS.items()),
        Patch(color="0.9", label=f"less than {margin:g} either way"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize="small")
    return figure


def plot_power(curve: pd.DataFrame, margin: float) -> Figure:
    """Draw the power of the physician's contrasts with the assistant over true differences in accuracy.

    Args:
        curve: Of :func:`clinical_personas.robustness.power_curve`.
        margin: Smallest effect of interest, marked.
    """
    figure, axis = plt.subplots(figsize=(6.6, 3.8), layout="constrained")
    names = list(dict.fromkeys(curve["contrast"]))
    for turn, (name, colour) in enumerate(zip(names, sns.color_palette("colorblind", len(names)), strict=True)):
        part = curve[curve["contrast"] == name]
        label = f"{CARE[name].split(':')[0]}, n = {part['n'].iloc[0]}"
        axis.plot(part["effect"], part["power"], ls=LINES[turn % 4], color=colour, lw=1.8, label=label)
    axis.axhline(0.8, color="0.5", lw=1, ls=":")
    axis.axvline(margin, color="0.5", lw=1, ls="--")
    axis.annotate("smallest effect", (margin, 0.5), xytext=(-3, 0), textcoords="offset points", ha="right")
    # As far as there is something to see: every curve near 1, and the smallest effect.
    far = max(margin, curve.loc[curve["power"] < 0.99, "effect"].max())
    axis.set(xlabel="true difference in accuracy", ylabel="power", ylim=(0, 1.02))
    axis.set_xlim(0, min(1.25 * far, curve["effect"].max()))
    axis.legend(loc="lower right", frameon=True, framealpha=1, edgecolor="white")
    return figure
