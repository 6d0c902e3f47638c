"""Figures of the sycophancy study."""

from __future__ import annotations

from collections.abc import Sequence
from posixpath import basename
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from persona_studies.analyse import figures as shared
from sycophancy import scoring
from sycophancy.scoring import Scored

BLUE, ORANGE, GREEN, PINK = (sns.color_palette("colorblind")[k] for k in (0, 1, 2, 4))
# Name -> column, colour, marker, line.
Series = dict[str, tuple[str, Any, str, str]]
# Labels in the order of agreement, then what is no label.
STATUSES = {
    "AGREE": ("agrees", "#2166ac"),
    "PARTIALLY AGREE": ("partially agrees", "#92c5de"),
    "PARTIALLY DISAGREE": ("partially disagrees", "#f4a582"),
    "DISAGREE": ("disagrees", "#b2182b"),
    "REFUSE": ('begins "I\'m sorry" or the like, no label', "#fee08b"),
    "UNPARSED": ("no label that can be read", "0.6"),
    "TRUNCATED": ("cut before a label", "0.8"),
    "FAILED": ("no reply", "0.9"),
}


def agreement(persona: pd.DataFrame, gate: str) -> Figure:
    """Draw agreement over the designed level: raw, over the own neutral prompt, and asserted less unattributed.

    Args:
        persona: Of :class:`sycophancy.scoring.Scored`.
        gate: What failed behind the measures; empty where nothing did.
    """
    figure, axes = plt.subplots(1, 3, figsize=(11.5, 4.2), layout="constrained")
    four = {"asserted": (BLUE, "o", "-"), "unattributed": (ORANGE, "s", "--")}
    raw: Series = {name: (f"labels_four raw_{name}", *style) for name, style in four.items()}
    _levels(axes[0], persona, raw | {"no statement": ("labels_four neutral", PINK, "D", ":")})
    axes[0].set(
        title="agreement with a statement, and the\nanswer to no statement (four labels)",
        ylabel="log-odds of agreeing (nats)",
    )
    _levels(axes[1], persona, {name: (f"labels_four {name}", *style) for name, style in four.items()})
    axes[1].set(
        title="the same, less the persona's own\nanswer to no statement", ylabel="difference of log-odds (nats)"
    )
    sets = {"four labels": ("labels_four net", BLUE, "o", "-"), "two labels": ("labels_two net", GREEN, "^", "--")}
    _levels(axes[2], persona, {name: style for name, style in sets.items() if style[0] in persona})
    axes[2].set(title="net sycophancy:\nasserted less unattributed", ylabel="difference of log-odds (nats)")
    return shared.behind(figure, gate)


def _levels(axis: Axes, persona: pd.DataFrame, series: Series) -> None:
    """Draw personas and their means by level, each series named at its end."""
    ends = []
    for place, (label, (column, colour, marker, line)) in enumerate(series.items()):
        shift = (place - (len(series) - 1) / 2) * 0.14
        axis.plot(persona["designed"] + shift, persona[column], marker, color=colour, alpha=0.35, ms=3.5, mew=0)
        means = persona.groupby("designed")[column].mean()
        axis.plot(means.index + shift, means, marker, ls=line, color=colour, ms=6.5)
        ends.append((float(means.iloc[-1]), label, colour))
    axis.axhline(0, color="0.4", ls=":", lw=1)
    least = 0.07 * float(np.ptp(axis.get_ylim()))
    at = -np.inf
    for height, label, colour in sorted(ends, key=lambda end: end[0]):
        at = max(height, at + least)
        axis.annotate(label, (5.42, at), color=colour, va="center", fontweight="bold", fontsize="small")
    axis.set(xlabel="designed level of agreeableness", xticks=range(1, 6), xlim=(0.6, 7.4))


def correlations(tests: pd.DataFrame, margin: float) -> Figure:
    """Draw the declared family."""
    figure, axis = plt.subplots(figsize=(9, 4), layout="constrained")
    forest(tests.assign(label=tests["hypothesis"].str.replace(", ", ",\n", n=1)), margin, axis)
    shared.explain(figure, tests, margin)
    return figure


def forest(rows: pd.DataFrame, margin: float, axis: Axes) -> None:
    """Draw correlations with their intervals, and say which are not recorded."""
    shared.forest(rows, xlabel="correlation within backgrounds", margin=margin, axis=axis)
    for place in np.flatnonzero(rows["estimate"].isna()).tolist():
        said = axis.text(0, place, "not recorded", va="center", ha="center", color="0.4", fontsize="small")
        said.set_bbox({"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none"})
    axis.set_xlim(-1.05, 1.05)


def models(over: pd.DataFrame, margin: float) -> Figure:
    """Draw one forest per hypothesis, a line per model."""
    parts = list(over.groupby("hypothesis", sort=False))
    figure, axes = plt.subplots(
        2, 3, figsize=(11, 2.2 + 0.62 * 2 * max(len(r) for _, r in parts)), layout="constrained", sharex=True
    )
    several = over["model"] + (" (" + over["n"].astype(int).astype(str) + " models)").where(
        over["model"] == "random effects", ""
    )
    for axis, (hypothesis, rows) in zip(axes.flat, parts, strict=True):
        forest(rows.assign(label=several), margin, axis)
        axis.set_title(str(hypothesis).replace(" and ", "\nand ").replace(", ", ",\n"), fontsize="small")
    # A hypothesis without a combined line has fewer rows: every model keeps its place, so that labels hold.
    longest = max(axes.flat, key=lambda axis: len(axis.get_yticks()))
    for axis in axes.flat:
        axis.set_ylim(longest.get_ylim())
    for axis in axes[:, 1:].flat:
        axis.set_yticks(longest.get_yticks(), [])
    for axis in axes[0]:
        axis.set_xlabel("")
    shared.explain(figure, over, margin)
    return figure


def controls(scored: Scored, everyone: pd.DataFrame, measure: str, steps: pd.DataFrame, gate: str) -> Figure:
    """Draw agreement with assertions under every kind of condition.

    Args:
        measure: ``labels_four`` or ``labels_two``.
        steps: ``control, against, low, high, estimate``: differences from no persona, with intervals.
        gate: What failed behind the measure; empty where nothing did.
    """
    values = scoring.statements(scored.agree[measure], "asserted").mean(axis=1)
    groups: dict[str, Sequence[str]] = {
        "no persona": ["none"],
        "assistant": ["assistant"],
        "filler": everyone.loc[everyone["role"] == "filler", "condition"].tolist(),
        "placebo": everyone.loc[everyone["role"] == "placebo", "condition"].tolist(),
    }
    for role in ("shuffled", "persona"):
        for level, rows in everyone[everyone["role"] == role].groupby(everyone["level"].astype(float)):
            groups[f"{role} level {level:.0f}"] = rows["condition"].tolist()
    groups |= {"told to disagree": ["told_to_disagree"], "told to agree": ["told_to_agree"]}
    none = float(values["none"])
    intervals = steps[(steps["measure"] == measure) & (steps["against"] == "no persona")].set_index("control")
    figure, axis = plt.subplots(figsize=(8, 0.9 + 0.34 * len(groups)), layout="constrained")
    axis.axvline(none, color="0.4", lw=1, ls=":", label="no persona")
    for place, (name, conditions) in enumerate(groups.items()):
        mine = values.loc[list(conditions)]
        colour = ORANGE if name.startswith("persona") else BLUE
        axis.plot(mine, [place] * len(mine), "o", color=colour, alpha=0.35, ms=4, mew=0)
        axis.plot(mine.mean(), place, "D" if name.startswith("persona") else "o", color=colour, ms=7)
        if name in intervals.index:
            axis.plot(none + intervals.loc[name, ["low", "high"]], [place, place], color=colour, lw=1.6)
    axis.set(yticks=range(len(groups)), yticklabels=list(groups), ylim=(len(groups) - 0.5, -0.5))
    axis.set(xlabel="log-odds of agreeing with an assertion, over the own neutral prompt (nats)")
    axis.plot([], [], "o", color="0.3", alpha=0.35, ms=4, mew=0, label="one condition")
    axis.plot([], [], "o", color="0.3", ms=7, label="mean of its kind")
    axis.plot([], [], color="0.3", lw=1.6, label="interval of the difference from no persona")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize="small")
    return shared.behind(figure, gate)


def by_topic(scored: Scored, measure: str, titles: dict[str, str]) -> pd.DataFrame:
    """Return agreement by topic and level, less the topic's mean over levels: ``topic``, and a column per level.

    Topics with the largest rise from the first to the last level stand first.
    """
    values = scoring.statements(scored.agree[measure], "asserted").loc[scored.persona["condition"]]
    mean = values.T.groupby([c.rsplit("_", 1)[0] for c in scoring.claims_of(values)], sort=False).mean().T
    level = mean.groupby(scored.persona["designed"].to_numpy()).mean().T
    level = (level - level.mean(axis=1).to_numpy()[:, None]).loc[
        level[5].sub(level[1]).sort_values(ascending=False).index
    ]
    named = pd.Index([titles.get(str(name), str(name)) for name in level.index], name="topic")
    return level.set_axis(named).rename(columns=str).reset_index()


def topics(table: pd.DataFrame, gate: str) -> Figure:
    """Draw agreement by topic and level (:func:`by_topic`); ``gate`` says what failed behind it."""
    level = table.set_index("topic").round(2) + 0.0  # no negative zero
    reach = float(np.abs(level.to_numpy()).max())
    figure, axis = plt.subplots(figsize=(7, 0.9 + 0.36 * len(level)), layout="constrained")
    sns.heatmap(
        level,
        cmap="RdBu_r",
        center=0,
        vmin=-reach,
        vmax=reach,
        annot=level.map(lambda value: f"{value:+.2f}".replace("-", "−")),
        fmt="",
        linewidths=0.5,
        ax=axis,
        cbar_kws={"label": "log-odds less the topic's mean (nats)"},
    )
    axis.set(xlabel="designed level of agreeableness", ylabel="")
    return shared.behind(figure, gate)


def replies(read: pd.DataFrame, everyone: pd.DataFrame) -> Figure:
    """Draw what replies say, by level and in the reference conditions."""
    about = read.merge(everyone[["condition", "role", "level"]], on="condition")
    group = np.where(
        about["role"] == "persona",
        "persona level " + about["level"].astype(float).fillna(0).astype(int).astype(str),
        about["condition"].str.replace("_", " "),
    )
    wanted = [
        "none",
        "assistant",
        *(f"persona level {k}" for k in range(1, 6)),
        "told to disagree",
        "told to agree",
    ]
    counts = pd.crosstab(group, about["status"]).reindex(index=wanted)
    share = counts.div(counts.sum(axis=1), axis=0)
    figure, axis = plt.subplots(figsize=(9.5, 4.6), layout="constrained")
    start = np.zeros(len(share))
    for status, (label, colour) in STATUSES.items():
        if status in share and share[status].any():
            axis.barh(
                range(len(share)), share[status], left=start, color=colour, edgecolor="white", lw=0.6, label=label
            )
            start = start + share[status].to_numpy()
    axis.set(yticks=range(len(share)), yticklabels=[f"{name} (n = {n})" for name, n in counts.sum(axis=1).items()])
    axis.set(xlabel="share of replies", xlim=(0, 1), ylim=(len(share) - 0.5, -0.5))
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return figure


def others(tests: pd.DataFrame) -> Figure:
    """Draw what an agreeableness persona changes in the 12 models of Han et al. (2025)."""
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained", sharey=True)
    panels = {
        "self_report_by_model": "self-report (points of 1 to 5)",
        "sycophancy_by_model": "answers changed (percentage points)",
    }
    for axis, (family, label) in zip(axes, panels.items(), strict=True):
        rows = tests[tests["family"] == family]
        names = rows["hypothesis"].map(basename)
        shared.forest(rows.assign(label=names), xlabel=f"{label},\npersona minus baseline", axis=axis)
    shared.explain(figure, rows, None)
    return figure
