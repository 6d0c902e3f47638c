"""Figures of the study of neurodivergence context."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from scipy import stats

from persona_studies.analyse import figures

BLUE, ORANGE, GREEN = sns.color_palette("colorblind")[:3]
CONDITIONS = {"C0": "no profile", "C1": "profile", "C2": "profile and\ndirectives"}


def words(metric: str) -> str:
    """Return a metric's name in words."""
    return metric.replace("_", " ")


def said(contrast: str) -> str:
    """Return a contrast in words.

    >>> said("C1 - C0")
    'profile − none (C1 − C0)'
    """
    first = CONDITIONS[contrast[:2]].replace("\n", " ")
    return f"{first} − none ({contrast.replace('-', '−')})"


def plot_contrasts(table: pd.DataFrame, margin: float, unit: str, doubted: Collection[str] = ()) -> Figure:
    """Draw each metric's contrasts twice: the paper's Wald interval, and the interval over units.

    Args:
        table: Of :func:`neurodivergence.analysis.beside`.
        margin: Half width of the equivalence band.
        unit: Name of the unit.
        doubted: Metrics that failed the gate; drawn grey and hollow.
    """
    tests = {
        "published: Wald, responses, Holm within metric": ("wald_", table["p_wald_holm"] <= 0.05),
        f"unit: {unit}, corrected within study": ("", table["rejected"]),
    }
    both = [
        table[["contrast", "estimate"]].assign(
            label=table["metric"].map(words),
            series=test,
            low=table[f"{kind}low"],
            high=table[f"{kind}high"],
            rejected=rejected,
            gate=table["metric"].isin(doubted),
        )
        for test, (kind, rejected) in tests.items()
    ]
    frame = pd.concat(both, ignore_index=True)
    parts = list(frame.groupby("contrast", sort=False))
    size = (9.5, 1.6 + 0.36 * table["metric"].nunique())
    figure, axes = plt.subplots(
        1, len(parts), figsize=size, sharey=True, sharex=True, layout="constrained", squeeze=False
    )
    for axis, (contrast, rows) in zip(axes[0], parts, strict=True):
        figures.forest(rows, xlabel="difference, standard deviations under C0", margin=margin, axis=axis)
        axis.set_title(said(str(contrast)))
    figures.explain(figure, frame, margin, ncols=2)
    return figure


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
    figure, axes = plt.subplots(1, len(parts), figsize=(11, 3.9), layout="constrained")
    models = list(dict.fromkeys(shares["model"]))
    for axis, (column, label) in zip(axes, parts.items(), strict=True):
        # The colours and shapes of the models in the figure of list density.
        for model, colour, marker, line in zip(models, (ORANGE, GREEN), "s^", ("-", "--"), strict=False):
            rows = shares[shares["model"] == model]
            ticks = rows["condition_id"] + "\n" + rows["condition_id"].map(CONDITIONS)
            axis.plot(ticks, rows[column], line, marker=marker, color=colour, label=model)
        axis.tick_params(axis="x", labelsize=8)
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
        sizes: Sizes of the families of the pooled and of the single contrasts.
    """
    rows = pd.concat([pooled.assign(model="both models"), single], ignore_index=True)
    rows = rows.assign(label=rows["contrast"].map(said), series=rows["model"])
    figure = figures.forest(rows, xlabel="list density, difference in standard deviations under C0", margin=margin)
    tests = np.where(rows["model"] == "both models", *sizes)
    reach = rows["se"] / rows["sd"] * stats.t.isf(alpha / tests / 2, rows["n"] - 1)
    axis, (low, high) = figure.axes[0], (rows["estimate"] - reach, rows["estimate"] + reach)
    thin = "thin: interval at the level of one test of its family"
    axis.hlines(figures.places(rows), low, high, color="0.3", lw=0.8, zorder=1.5, label=thin)
    figures.explain(figure, rows, margin, ncols=3)
    return figure


def plot_noise(table: pd.DataFrame, doubted: Collection[str] = ()) -> Figure:
    """Draw each metric's noise at temperature 0 beside the spread over profiles, and effects beside their noise.

    Args:
        table: Of :func:`neurodivergence.analysis.noise`.
        doubted: Metrics that failed the gate; drawn grey and hollow.
    """
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10.5, 1.5 + 0.33 * len(table)), sharey=True, layout="constrained"
    )
    table = table.assign(place=np.arange(len(table)))
    failed = table["metric"].isin(doubted)
    left.plot(table["noise"], table["place"], "|", color="0.15", ms=12, mew=2.5, label="C0: one prompt, four times")
    for rows, counts in ((table[~failed], True), (table[failed], False)):
        drawn = []
        for name, colour, marker, away in (("C1", BLUE, "o", -0.1), ("C2", ORANGE, "s", 0.1)):
            look: dict[str, Any] = {"marker": marker, "ls": "", "color": colour, "ms": 5, "clip_on": False}
            said = (f"{name}: four profiles", f"{name} − C0") if counts else (None, None)
            drawn += left.plot(rows[f"profiles_{name}"], rows["place"], label=said[0], **look)
            drawn += right.plot(rows[f"effect_{name}"].abs(), rows["place"] + away, label=said[1], **look)
        if not counts:
            figures.fade(*drawn)
    if failed.any():
        left.plot([], [], "o", color=figures.GREY, mfc="white", ms=5, label="grey: gate failed")
    left.set(
        xlabel="spread of the four answers of a model and query\n(standard deviations under C0)", xlim=(0, None)
    )
    for y, width in zip(table["place"], table["null_95"], strict=True):
        right.fill_betweenx([y - 0.35, y + 0.35], 0, width, color="0.8", lw=0)
    right.fill_between([], [], color="0.8", label="95 % of differences of repetitions")
    right.set(xlabel="size of the effect (standard deviations under C0)", xlim=(0, None))
    left.set(yticks=table["place"], yticklabels=map(words, table["metric"]), ylim=(len(table) - 0.4, -0.6))
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
        mine = table[table["metric"] == metric].set_index("domain").loc[domains].reset_index()
        label = mine["domain"].map(words).str.replace("social scripting ", "")
        sides = [
            mine.assign(label=label, series=name, estimate=mine[of], low=mine[low], high=mine[high])
            for name, of, low, high in (
                ("Krippendorff's alpha", "alpha", "low", "high"),
                ("Gwet's AC2, quadratic", "ac2", "ac2_low", "ac2_high"),
            )
        ]
        frame = pd.concat(sides, ignore_index=True)
        figures.forest(frame, xlabel="", axis=axis)
        same = {"color": "0.15", "ms": 10, "mew": 2, "label": "share of equal scores"}
        axis.plot(mine["same"], range(len(mine)), "|", **same)
        axis.axvline(threshold, color="0.2", lw=1, ls="--", label=f"threshold {threshold:.2f}")
        axis.set(title=words(metric), xlim=(-1.05, 1.08))
    for axis in axes.flat[len(metrics) :]:
        axis.set_axis_off()
    figure.supxlabel(
        "agreement: 1 is perfect, 0 is what chance gives (equal scores: their share)", fontsize="medium"
    )
    figures.explain(figure, frame, None)
    return figure


def plot_judges(table: pd.DataFrame, doubted: Collection[str]) -> Figure:
    """Draw effects as a judge sees them in its own model's answers and in the other's.

    Args:
        table: Of :func:`neurodivergence.raters.self_and_cross`.
        doubted: Metrics that failed the gate; drawn grey.
    """
    both = table[table["judged"].isin(["cross", "self"])].drop(columns="rejected")
    label = both["hypothesis"].map(words).str.replace(" - ", " − ")
    frame = both.assign(label=label, series=both["judged"] + "-judged", gate=both["metric"].isin(doubted))
    return figures.forest(frame, xlabel="effect in standard deviations of scores under C0", legend=True)


def plot_scopes(table: pd.DataFrame, alpha: float, doubted: Collection[str] = ()) -> Figure:
    """Draw adjusted p of every pooled contrast under three scopes of the correction, for both tests.

    Args:
        table: Of :func:`neurodivergence.paper.scopes`.
        doubted: Hypotheses about metrics that failed the gate; drawn grey.
    """
    tests = list(dict.fromkeys(table["test"]))
    names = list(dict.fromkeys(table["hypothesis"]))
    figure, axes = plt.subplots(
        1, len(tests), figsize=(10.5, 1.6 + 0.23 * len(names)), sharey=True, layout="constrained"
    )
    marks: Sequence[tuple[str, str, str, object]] = (
        ("within_metric", "within metric (2)", "o", GREEN),
        ("within_study", f"within study ({len(names)})", "s", BLUE),
        ("all", "all contrasts, models included", "^", ORANGE),
    )
    for axis, test in zip(axes, tests, strict=True):
        rows = table[table["test"] == test]
        axis.axvline(alpha, color="0.2", lw=1, ls="--")
        failed = rows["hypothesis"].isin(doubted).to_numpy()
        for column, label, marker, colour in marks:
            look: dict[str, Any] = {"marker": marker, "ls": "", "color": colour, "mfc": "none", "ms": 5, "mew": 1.3}
            p, place = rows[column].clip(lower=1e-8).to_numpy(), np.arange(len(rows))
            axis.plot(p[~failed], place[~failed], label=label, **look)
            figures.fade(*axis.plot(p[failed], place[failed], **look))
        axis.set(xscale="log", xlim=(5e-9, 2), title=test, xlabel="adjusted p (below 1e-8 drawn at 1e-8)")
        axis.set(yticks=range(len(names)), yticklabels=[words(n).replace(" - ", " − ") for n in names])
        axis.set(ylim=(len(names) - 0.5, -0.5))
        axis.tick_params(axis="y", labelsize=8)
    if doubted:
        axes[0].plot([], [], "o", color=figures.GREY, mfc="none", ms=5, mew=1.3, label="grey: gate failed")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure
