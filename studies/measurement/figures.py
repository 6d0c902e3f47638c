"""Figures of the study of questionnaires."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from measurement import design
from persona_studies.analyse import families, figures
from persona_studies.design.protocol import Protocol

COLOURS = sns.color_palette("colorblind")
SCALES = {"rating_digits": "labels 1 to 5", "rating_upper": "labels A to E", "rating_lower": "labels a to e"}
MARKERS = {"order": "s", "word": "o", "meaning": "^"}
GROUPS = {"people": 0, "simulated": 4, "PersonaLLM": 2, "LLMPersonality": 3}


def main(tests: pd.DataFrame, who: pd.DataFrame) -> Figure:
    """Draw what every test measures in every recorded model, and alpha and pole r of whoever answered.

    Args:
        tests: Of :func:`measurement.recordings.measured`.
        who: ``who, alpha, median_pole_r, flag``.
    """
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12.5, 5.4), layout="constrained", width_ratios=[0.6 + 0.4 * tests["model"].nunique(), 1.6]
    )
    _tests(left, tests)
    _measures(right, who)
    return figure


def _tests(axis: Axes, tests: pd.DataFrame) -> None:
    """Write what every test measures; blue: its checks pass, orange: something else, white: not recorded."""
    if tests.empty:
        axis.text(0.5, 0.5, "no model is recorded", ha="center")
        axis.axis("off")
        return
    models, names = ([*tests[column].unique()] for column in ("model", "test"))
    for row in tests.to_dict("records"):
        x, y, known = models.index(row["model"]), names.index(row["test"]), row["measures"] != "not recorded yet"
        colour = "white" if not known else COLOURS[0] if row["passes"] else COLOURS[1]
        axis.add_patch(Rectangle((x - 0.48, y - 0.45), 0.96, 0.9, fc=colour, ec="0.6", alpha=0.35 if known else 1))
        words = str(row["measures"]).split(", ")
        said = "\n".join(words[:2]) + (f"\nand {len(words) - 2} more" if len(words) > 2 else "")
        axis.text(x, y, "✓ " * row["passes"] + said, ha="center", va="center", fontsize="small", linespacing=0.95)
    axis.set(
        xlim=(-0.5, len(models) - 0.5),
        ylim=(len(names) - 0.5, -0.5),
        xticks=range(len(models)),
        xticklabels=[str(model).removesuffix("-instruct").replace("coder-", "coder-\n") for model in models],
        yticks=range(len(names)),
        yticklabels=names,
        title="What does each test measure in a recorded model?",
    )
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    kinds = {"its checks pass": COLOURS[0], "something else": COLOURS[1]}
    handles: list[Any] = [Patch(fc=colour, ec="0.6", alpha=0.35, label=name) for name, colour in kinds.items()]
    handles.append(Patch(fc="white", ec="0.6", label="not recorded yet"))
    axis.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.3, -0.1), ncols=3, fontsize="small")


def consistent(table: pd.DataFrame) -> Figure:
    """Draw order against negation consistency, of flan-t5 and of recorded models.

    Args:
        table: Of :func:`measurement.released.flan_table` and :func:`measurement.live.consistency`.
    """
    figure, axis = plt.subplots(figsize=(7.5, 5), layout="constrained")
    wide = table.pivot(index="who", columns="kind", values="kappa")
    yes = table.groupby("who")["yes"].first()
    for kind in ("word", "meaning"):
        drawn = axis.scatter(
            wide["order"], wide[kind], c=yes[wide.index], cmap="viridis", vmin=0, vmax=1, marker=MARKERS[kind], s=55
        )
        axis.scatter([], [], color="0.5", marker=MARKERS[kind], label=f"negation by {kind}")
    # Whoever answers by place alone lies on one spot: their names stand together.
    spots = wide.assign(x=wide["order"].round(2), y=wide["word"].round(2))
    for _, spot in spots.groupby(["x", "y"]):
        left = bool(spot["x"].iloc[0] > 0.2)
        axis.annotate(
            "\n".join(str(name).removeprefix("flan-").replace("-instruct", "") for name in spot.index),
            (spot["x"].iloc[0], spot["y"].iloc[0]),
            xytext=(-9, 0) if left else (9, -4),
            textcoords="offset points",
            ha="right" if left else "left",
            va="bottom" if left and yes[spot.index].max() > 0.5 else "top",
            fontsize="small",
            bbox={"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none"},
            zorder=0.5,  # above the lines, below the marks
        )
    least = min(-0.25, float(np.nanmin(wide[["order", "word", "meaning"]].to_numpy())) - 0.05)
    axis.plot([least, 1], [least, 1], color="0.8", lw=1, zorder=0)
    axis.axhline(0, color="0.4", lw=1, ls=":", zorder=0)
    axis.axhline(0.4, color="0.7", lw=1, ls="--", zorder=0)
    axis.text(least + 0.01, 0.41, "below: low consistency", fontsize="small", color="0.4", va="bottom")
    axis.set(
        xlim=(least, 1.05),
        ylim=(least, 1.05),
        xlabel="kappa, the same item with the options swapped",
        ylabel="kappa, the item and its negation (turned)",
        title="Consistency over order and over negation",
    )
    axis.legend(loc="upper left")
    plt.colorbar(drawn, ax=axis, label="share of items answered yes", shrink=0.8)
    return figure


def _measures(axis: Axes, who: pd.DataFrame) -> None:
    shown = who.dropna(subset=["median_pole_r"]).sort_values("median_pole_r").reset_index(drop=True)
    for place, row in enumerate(shown.to_dict("records")):
        group = next((name for name in GROUPS if str(row["who"]).startswith(name)), "recorded")
        colour = COLOURS[GROUPS.get(group, 1)]
        fill = colour if row["flag"] == "none" else "white"
        axis.plot(row["median_pole_r"], place, "o", color=colour, mfc=fill, ms=8)
        axis.plot(np.clip(row["alpha"], -1, 1), place, "|", color=colour, ms=12, mew=2)
        axis.annotate(
            "" if row["flag"] == "none" else str(row["flag"]),
            (1.05, place),
            fontsize="small",
            color="0.3",
            va="center",
            annotation_clip=False,
        )
    axis.axvline(0, color="0.4", lw=1, ls=":", zorder=0)
    axis.axvspan(0.3, 1.02, color="0.93", zorder=0)
    axis.set(
        yticks=range(len(shown)),
        yticklabels=[str(name).removeprefix("recorded: ").replace("-instruct", "") for name in shown["who"]],
        xlim=(-1.05, 1.02),
        xlabel="correlation, or alpha (cut at −1)",
        title="Do both keyed halves of a questionnaire agree?",
    )
    handles: list[Any] = [
        Line2D([], [], marker="o", ls="", color="0.3", ms=8, label="r of both keyed halves, median"),
        Line2D([], [], marker="o", ls="", color="0.3", mfc="white", ms=8, label="the same, flagged"),
        Line2D([], [], marker="|", ls="", color="0.3", ms=12, mew=2, label="alpha"),
        Patch(color="0.93", label="at least 0.3"),
    ]
    axis.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=4, fontsize="small")


def scales(ratings: pd.DataFrame) -> Figure:
    """Draw every statement's rating under a rising against a falling scale.

    Args:
        ratings: Of :func:`measurement.live.scores`; the blocks without personas.
    """
    cells = ratings[ratings["measure"].str.startswith("rating_")]
    wide = cells.pivot_table(index=["measure", "item", "key"], columns="scale", values="rating").reset_index()
    n = wide["measure"].nunique()
    both = wide[["rising", "falling"]].to_numpy()
    span = (float(np.nanmin(both)) - 0.1, float(np.nanmax(both)) + 0.1)  # one for all panels
    figure, axes = plt.subplots(1, n, figsize=(4 * n, 4), squeeze=False, layout="constrained")
    for axis, (name, part) in zip(axes[0], wide.groupby("measure", sort=False), strict=True):
        for key, label, marker in ((1, "plus-keyed", "o"), (-1, "minus-keyed", "^")):
            mine = part[part["key"] == key]
            axis.plot(
                mine["rising"], mine["falling"], marker, color=COLOURS[0 if key > 0 else 1], label=label, ms=5
            )
        axis.axline((3, 3), slope=1, color="0.7", lw=1, zorder=0, label="the same on both")
        axis.set(xlim=span, ylim=span, aspect="equal", xlabel="mean rating, rising scale", title=SCALES[str(name)])
    axes[0][0].set(ylabel="mean rating (1 to 5), falling scale, turned")
    axes[0][0].legend(loc="lower right")
    return figure


def places(counts: pd.DataFrame) -> Figure:
    """Draw how often each listed place was chosen, by model (:func:`measurement.judging.places`)."""
    models = list(dict.fromkeys(counts["model"]))
    figure, axes = plt.subplots(1, len(models), figsize=(10, 3), sharey=True, layout="constrained")
    for axis, (model, part) in zip(axes, counts.groupby("model", sort=False), strict=True):
        share = part.set_index("place")["answers"].reindex(range(1, 8), fill_value=0)
        axis.bar(share.index, share / share.sum(), color=COLOURS[0])
        axis.axhline(1 / 7, color="0.4", lw=1, ls=":", label="every place alike")
        axis.set(title=f"{model}, n = {share.sum()}", xlabel="listed place of the answer", xticks=range(1, 8))
    axes[0].set(ylabel="share of answers")
    axes[0].legend(loc="upper right", fontsize="small")
    return figure


def induction(table: pd.DataFrame) -> Figure:
    """Draw LLMPersonality's shifts on and off target by method (facts ``settings_induction``)."""
    means = table.groupby(["file", "domain"]).agg(target=("target", "mean"), off=("off", "first")).reset_index()
    files = list(dict.fromkeys(table["file"]))
    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    for place, name in enumerate(files):
        part = means[means["file"] == name]
        for k, (column, marker) in enumerate((("target", "o"), ("off", "s"))):
            x = np.full(len(part), place + (k - 0.5) * 0.25)
            axis.plot(
                x, part[column], marker, color=COLOURS[k], mfc=COLOURS[k] if k == 0 else "white", ms=6, alpha=0.8
            )
            axis.hlines(part[column].mean(), x[0] - 0.1, x[0] + 0.1, color=COLOURS[k], lw=2)
    for k, label in enumerate(("its own domain", "mean |shift| of the other four")):
        axis.plot([], [], "os"[k], color=COLOURS[k], mfc=COLOURS[k] if k == 0 else "white", label=label)
    axis.plot([], [], color="0.3", lw=2, label="mean of five domains")
    axis.axhline(0, color="0.4", lw=1, ls=":")
    axis.set(
        xticks=range(len(files)),
        xticklabels=[name.replace("qa", "questions").replace("_cot", ",\nchain of thought") for name in files],
        ylabel="high less low persona, points of 5",
    )
    axis.legend()
    return figure


def variance(found: pd.DataFrame) -> Figure:
    """Draw variance components and bootstrap intervals (:func:`measurement.psychometrics.generalisability`)."""
    shown = found[found["share"] > 0.005].sort_values("variance").reset_index(drop=True)
    figure, axis = plt.subplots(figsize=(8, 0.8 + 0.35 * len(shown)), layout="constrained")
    axis.hlines(range(len(shown)), shown["low"], shown["high"], color=COLOURS[0], lw=1.5, label="interval")
    axis.plot(shown["variance"], range(len(shown)), "o", color=COLOURS[0], label="variance component")
    names = shown["component"].str.replace(" x ", " × ")
    axis.set(yticks=range(len(shown)), yticklabels=names, xlabel="variance of a rating, points of 5, squared")
    axis.margins(y=0.15)
    axis.legend(loc="lower right", fontsize="small")
    axis.axvline(0, color="0.4", lw=1, ls=":")
    return figure


def trait_methods(matrix: pd.DataFrame, gate: str) -> Figure:
    """Draw the trait-method matrix as a heat map.

    Args:
        matrix: Of :func:`measurement.live.trait_methods`.
        gate: What failed behind it; empty where nothing did.
    """
    ends = [zip(matrix[f"method_{k}"], matrix[f"trait_{k}"], strict=True) for k in (1, 2)]
    names = list(dict.fromkeys(name for end in ends for name in end))
    table = pd.DataFrame(np.eye(len(names)))
    for row in matrix.to_dict("records"):
        one, two = (names.index((row[f"method_{k}"], row[f"trait_{k}"])) for k in (1, 2))
        table.iloc[one, two] = table.iloc[two, one] = float(row["r"])
    labels = [f"{method}, {trait[:3]}." for method, trait in names]
    figure, axis = plt.subplots(figsize=(8, 7), layout="constrained")
    sns.heatmap(table, vmin=-1, vmax=1, cmap="vlag", ax=axis, cbar_kws={"label": "r"})
    axis.set_xticks(np.arange(len(labels)) + 0.5, labels, rotation=90)
    axis.set_yticks(np.arange(len(labels)) + 0.5, labels, rotation=0)
    for k in range(len(design.DOMAINS), len(names), len(design.DOMAINS)):
        axis.axhline(k, color="white", lw=2)
        axis.axvline(k, color="white", lw=2)
    return figures.behind(figure, gate)


UNITS = {"rating": "points of 5", "statement": "nats", "scenario": "points of 5"}


def induced(protocol: Protocol, over: pd.DataFrame, margin: float) -> Figure:
    """Draw how far a paragraph moves its own trait, one panel per outcome, a line per trait and model.

    Args:
        protocol: Says which trait and which outcome a hypothesis is about.
        over: Family ``induction`` of :func:`persona_studies.analyse.conclusions.over_models`.
    """
    mine = families.declared(protocol, over[over["family"] == "induction"]).rename(columns={"on": "trait"})
    # A line of every panel, also where one of them has nothing to combine; random effects last.
    models = sorted(mine["model"].unique(), key=lambda name: name == "random effects")
    lines = pd.MultiIndex.from_product([mine["trait"].unique(), models], names=["trait", "model"])
    # A measure that nobody has answered yet has no panel.
    panels = list(mine.groupby("outcome", sort=False))
    size = (1 + 4 * len(panels), 1.4 + 0.28 * len(lines))
    figure, axes = plt.subplots(1, len(panels), figsize=size, layout="constrained", squeeze=False)
    for place, (axis, (outcome, part)) in enumerate(zip(axes[0], panels, strict=True)):
        shown = part.set_index(["trait", "model"]).reindex(lines).reset_index()
        shown = shown.assign(label=shown["trait"] + ", " + shown["model"].str.removesuffix("-instruct")).fillna(
            {"gate": ""}
        )
        shown["rejected"] = shown["rejected"].eq(True)
        label = f"{outcome}: high less low paragraph, {UNITS[str(outcome)]}"
        figures.forest(shown, xlabel=label, margin=margin, axis=axis, legend=place == len(panels) // 2)
        if place:
            axis.set(yticklabels=[])
    return figure
