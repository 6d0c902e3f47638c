"""Figures of the study of neurodivergence context."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats

BLUE, ORANGE, GREEN = (sns.color_palette("colorblind")[place] for place in (0, 1, 2))
GREY, PALE = "0.55", "#a9c9e2"


def words(metric: str) -> str:
    """Return a metric's name in words."""
    return metric.replace("_", " ")


def plot_contrasts(table: pd.DataFrame, margin: float, unit: str, doubted: Collection[str] = ()) -> Figure:
    """Draw each metric's contrasts twice: the paper's Wald interval, and the interval over units.

    Args:
        table: Of :func:`neurodivergence.analysis.beside`.
        margin: Half width of the equivalence band.
        unit: Name of the unit.
        doubted: Metrics that failed the gate; drawn pale, with a mark behind the name.
    """
    metrics = list(dict.fromkeys(table["metric"]))
    contrasts = list(dict.fromkeys(table["contrast"]))
    figure, axes = plt.subplots(
        1, len(contrasts), figsize=(9.5, 1.6 + 0.36 * len(metrics)), sharey=True, sharex=True, layout="constrained"
    )
    for axis, contrast in zip(np.atleast_1d(axes), contrasts, strict=True):
        axis.axvspan(-margin, margin, color="0.92", zorder=0)
        axis.axvline(0, color="0.4", lw=1, ls=":", zorder=1)
        for row in table[table["contrast"] == contrast].to_dict("records"):
            pale = row["metric"] in doubted
            for name, shift, marker, colour, significant in (
                ("wald_", -0.17, "s", "0.8" if pale else GREY, row["p_wald_holm"] <= 0.05),
                ("", 0.17, "o", PALE if pale else BLUE, row["rejected"]),
            ):
                place = metrics.index(row["metric"]) + shift
                axis.plot([row[f"{name}low"], row[f"{name}high"]], [place] * 2, color=colour, lw=1.6)
                axis.plot(
                    row["estimate"], place, marker, color=colour, mfc=colour if significant else "white", ms=5
                )
        labels = [words(metric) + (" †" if metric in doubted else "") for metric in metrics]
        axis.set(title=contrast.replace("-", "−"), xlabel="standard deviations under C0")
        axis.set(yticks=range(len(metrics)), yticklabels=labels, ylim=(len(metrics) - 0.4, -0.6))
    handles = [
        Line2D(
            [], [], color=GREY, marker="s", lw=1.5, ms=5, label="published: Wald, responses, Holm within metric"
        ),
        Line2D([], [], color=BLUE, marker="o", lw=1.8, ms=5, label=f"unit: {unit}, corrected within study"),
        *_filled(),
    ]
    if doubted:
        handles.append(
            Line2D([], [], color=PALE, marker="o", lw=1.6, ms=5, label="† judges fail the gate: decides nothing")
        )
    figure.legend(handles=handles, loc="outside upper center", ncols=2, fontsize="small")
    return figure


def _filled() -> list[Line2D]:
    """Return the entries of a legend that say what filled and open marks mean."""
    return [
        Line2D([], [], color="0.3", marker="o", lw=0, ms=5, label="filled: significant after correction"),
        Line2D([], [], color="0.3", marker="o", lw=0, ms=5, mfc="white", label="open: not significant"),
    ]


def plot_steps(shares: pd.DataFrame) -> Figure:
    """Draw step depth with zeros counted, and its parts: share with steps, words where there are steps.

    Args:
        shares: Of :func:`neurodivergence.analysis.step_shares`.
    """
    parts = {
        "mean_all": "words per step,\n0 without steps (published)",
        "with_steps": "share of answers\nwith numbered steps",
        "mean_with_steps": "words per step,\nwhere there are steps",
        "own_line": "words on the numbered line,\nwhere there are steps",
    }
    figure, axes = plt.subplots(1, len(parts), figsize=(11, 3.6), layout="constrained")
    models = list(dict.fromkeys(shares["model"]))
    for axis, (column, label) in zip(axes, parts.items(), strict=True):
        for model, colour, marker, line in zip(models, (BLUE, ORANGE), "os", ("-", "--"), strict=False):
            rows = shares[shares["model"] == model]
            axis.plot(rows["condition_id"], rows[column], line, marker=marker, color=colour, label=model)
        axis.set(title=label, ylim=(0, None))
        axis.title.set_fontsize(10)
        axis.margins(x=0.15)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def plot_lists(
    single: pd.DataFrame, pooled: pd.DataFrame, margin: float, alpha: float, sizes: Sequence[int]
) -> Figure:
    """Draw list density per model beside the pooled contrast, which averages opposite effects.

    The tests are corrected and the intervals are not, so each interval is drawn a second time, thin, at the level
    of one test of its family.

    Args:
        single: Of :func:`neurodivergence.analysis.by_model`, list density alone.
        pooled: Of :func:`neurodivergence.analysis.contrasts`, list density alone.
        margin: Half width of the equivalence band.
        alpha: Error rate of a family.
        sizes: Sizes of the families of the pooled and of the single contrasts.
    """
    rows = pd.concat([pooled.assign(model="both models"), single], ignore_index=True)
    figure, axis = plt.subplots(figsize=(8, 1.5 + 0.42 * len(rows)), layout="constrained")
    axis.axvspan(-margin, margin, color="0.92", zorder=0)
    axis.axvline(0, color="0.4", lw=1, ls=":")
    for place, row in enumerate(rows.to_dict("records")):
        both = row["model"] == "both models"
        colour = "0.3" if both else BLUE
        reach = row["se"] / row["sd"] * stats.t.isf(alpha / sizes[0 if both else 1] / 2, row["n"] - 1)
        axis.plot(row["estimate"] + np.array([-reach, reach]), [place] * 2, color=colour, lw=0.8)
        axis.plot([row["low"], row["high"]], [place] * 2, color=colour, lw=2.6)
        axis.plot(row["estimate"], place, "o", color=colour, mfc=colour if row["rejected"] else "white", ms=6)
    labels = [
        f"{row.model}, {row.contrast}".replace("C1 -", "C1 −").replace("C2 -", "C2 −") for row in rows.itertuples()
    ]
    axis.set(yticks=range(len(rows)), yticklabels=labels, ylim=(len(rows) - 0.5, -0.5))
    axis.set(xlabel="list density, standard deviations under C0")
    handles = [
        *_filled(),
        Line2D([], [], color="0.3", lw=2.6, label="interval, not corrected"),
        Line2D([], [], color="0.3", lw=0.8, label="interval at the level of one test of its family"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, fontsize="small")
    return figure


def plot_noise(table: pd.DataFrame) -> Figure:
    """Draw each metric's noise at temperature 0 beside the spread over profiles, and effects beside their noise.

    Args:
        table: Of :func:`neurodivergence.analysis.noise`.
    """
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10.5, 1.5 + 0.33 * len(table)), sharey=True, layout="constrained"
    )
    place = np.arange(len(table))
    for column, label, colour, marker in (
        ("noise", "C0: one prompt, four times", "0.15", "|"),
        ("profiles_C1", "C1: four profiles", BLUE, "o"),
        ("profiles_C2", "C2: four profiles", ORANGE, "s"),
    ):
        size = 12 if marker == "|" else 5
        left.plot(
            table[column],
            place,
            marker,
            color=colour,
            ms=size,
            mew=2.5 if marker == "|" else 1,
            label=label,
            clip_on=False,
        )
    left.set(
        xlabel="spread of the four answers of a model and query\n(standard deviations under C0)", xlim=(0, None)
    )
    for y, width in zip(place, table["null_95"], strict=True):
        right.fill_betweenx([y - 0.35, y + 0.35], 0, width, color="0.8", lw=0)
    right.plot(table["effect_C1"].abs(), place - 0.1, "o", color=BLUE, ms=5, label="C1 − C0", clip_on=False)
    right.plot(table["effect_C2"].abs(), place + 0.1, "s", color=ORANGE, ms=5, label="C2 − C0", clip_on=False)
    right.fill_between([], [], color="0.8", label="95 % of differences of repetitions")
    right.set(xlabel="size of the effect (standard deviations under C0)", xlim=(0, None))
    left.set(yticks=place, yticklabels=map(words, table["metric"]), ylim=(len(table) - 0.4, -0.6))
    for axis in (left, right):
        axis.legend(loc="lower right", fontsize=8, frameon=True)
    return figure


def plot_agreement(table: pd.DataFrame, threshold: float) -> Figure:
    """Draw alpha, AC2 and the share of equal scores for every judged metric, over all queries and by domain.

    Args:
        table: Of :func:`neurodivergence.raters.agreement`.
        threshold: That alpha must reach.
    """
    metrics, domains = (list(dict.fromkeys(table[name])) for name in ("metric", "domain"))
    figure, axes = plt.subplots(
        2, -(-len(metrics) // 2), figsize=(11, 5.6), sharex=True, sharey=True, layout="constrained"
    )
    for axis, metric in zip(axes.flat, metrics, strict=False):
        axis.axvline(threshold, color="0.2", lw=1, ls="--")
        axis.axvline(0, color="0.4", lw=1, ls=":")
        for row in table[table["metric"] == metric].to_dict("records"):
            place = domains.index(row["domain"])
            axis.plot([row["low"], row["high"]], [place - 0.15] * 2, color=BLUE, lw=1.8)
            axis.plot(row["alpha"], place - 0.15, "o", color=BLUE, ms=5)
            axis.plot([row["ac2_low"], row["ac2_high"]], [place + 0.15] * 2, color=ORANGE, lw=1.8)
            axis.plot(row["ac2"], place + 0.15, "s", color=ORANGE, ms=5)
            axis.plot(row["same"], place, "|", color="0.15", ms=10, mew=2)
        axis.set(title=words(metric), xlim=(-1.05, 1.08))
        axis.set(
            yticks=range(len(domains)), yticklabels=[words(d).replace("social scripting ", "") for d in domains]
        )
        axis.set(ylim=(len(domains) - 0.5, -0.5))
    for axis in axes.flat[len(metrics) :]:
        axis.set_axis_off()
    handles = [
        Line2D([], [], color=BLUE, marker="o", ms=5, label="Krippendorff's alpha"),
        Line2D([], [], color=ORANGE, marker="s", ms=5, label="Gwet's AC2, quadratic"),
        Line2D([], [], color="0.15", marker="|", ms=10, mew=2, lw=0, label="share of equal scores"),
        Line2D([], [], color="0.2", ls="--", lw=1, label=f"threshold {threshold:.2f}"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def plot_judges(table: pd.DataFrame) -> Figure:
    """Draw effects as a judge sees them in its own model's answers and in the other's.

    Args:
        table: Of :func:`neurodivergence.raters.self_and_cross`.
    """
    names = list(dict.fromkeys(table["hypothesis"]))
    figure, axis = plt.subplots(figsize=(8.5, 1.2 + 0.42 * len(names)), layout="constrained")
    axis.axvline(0, color="0.4", lw=1, ls=":")
    for judged, colour, marker, shift in (("cross", BLUE, "o", -0.15), ("self", ORANGE, "s", 0.15)):
        rows = table[table["judged"] == judged]
        place = np.array([names.index(name) for name in rows["hypothesis"]]) + shift
        axis.hlines(place, rows["low"], rows["high"], color=colour, lw=1.8)
        axis.plot(rows["estimate"], place, marker, color=colour, ms=5, lw=0, label=f"{judged}-judged")
    axis.set(yticks=range(len(names)), yticklabels=[words(n).replace(" - ", " − ") for n in names])
    axis.set(ylim=(len(names) - 0.5, -0.5), xlabel="effect in standard deviations of scores under C0")
    axis.legend(loc="best", fontsize=9)
    return figure


def plot_scopes(table: pd.DataFrame, alpha: float) -> Figure:
    """Draw adjusted p of every pooled contrast under three scopes of the correction, for both tests.

    Args:
        table: Of :func:`neurodivergence.paper.scopes`.
        alpha: Error rate.
    """
    tests = list(dict.fromkeys(table["test"]))
    names = list(dict.fromkeys(table["hypothesis"]))
    figure, axes = plt.subplots(
        1, len(tests), figsize=(10.5, 1.6 + 0.23 * len(names)), sharey=True, layout="constrained"
    )
    marks: Sequence[tuple[str, str, str, object]] = (
        ("within_metric", "within metric (2)", "o", GREY),
        ("within_study", f"within study ({len(names)})", "s", BLUE),
        ("all", "all contrasts, models included", "^", ORANGE),
    )
    for axis, test in zip(axes, tests, strict=True):
        rows = table[table["test"] == test]
        axis.axvline(alpha, color="0.2", lw=1, ls="--")
        for column, label, marker, colour in marks:
            shown = rows[column].clip(lower=1e-8)
            axis.plot(shown, range(len(rows)), marker, color=colour, mfc="none", ms=5, mew=1.3, label=label)
        axis.set(xscale="log", xlim=(5e-9, 2), title=test, xlabel="adjusted p (below 1e-8 drawn at 1e-8)")
        axis.set(yticks=range(len(names)), yticklabels=[words(n).replace(" - ", " − ") for n in names])
        axis.set(ylim=(len(names) - 0.5, -0.5))
        axis.tick_params(axis="y", labelsize=8)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure
