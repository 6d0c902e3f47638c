"""The five figures: the forest of claims, and one figure for each release that has something to see."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from persona_studies.analyse.figures import DECIDED, MARKERS

PALETTE = sns.color_palette("colorblind")
COLOURS = {
    "reproduced": PALETTE[2],
    "same direction, not significant": PALETTE[0],
    "contradicted": PALETTE[3],
    "heterogeneous": PALETTE[4],
    "inconclusive": PALETTE[1],
    "uninformative": "0.5",
}


LABELS = {
    "personamem_history": "PersonaMem: reported less blind",
    "personamem_retrieval": "PersonaMem: retrieval less blind",
    "personamem_types": "PersonaMem: the same, median of 7 types",
    "perma_memos": "PERMA: MemOS less retrieval, median of 3",
    "perma_evermemos": "PERMA: EverMemOS less retrieval",
    "perma_memobase": "PERMA: Memobase less retrieval",
    "perma_mem0": "PERMA: Mem0 less retrieval",
    "perma_supermemory": "PERMA: Supermemory less retrieval",
    "perma_lightmem": "PERMA: Lightmem less retrieval",
    "perma_noise": "PERMA: noise less none, 10 models",
    "personamath_7b_gsm8k": "PersonaMath 7B less MetaMath: GSM8K",
    "personamath_7b_math": "PersonaMath 7B less MetaMath: MATH",
    "personamath_13b": "PersonaMath 13B less MetaMath, lower of 2",
    "oct_goodness": "Character training: goodness, clearest of 15",
    "oct_loving": "Character training: loving, clearest of 15",
    "oct_misalignment": "Character training: misalignment, clearest of 15",
    "persobench_naturalness": "PersoBench: naturalness, Llama less GPT-4o-mini",
    "persobench_ranking": "PersoBench: score with unparsed replies",
    "persobench_cot": "PersoBench: gain with fewer unparsed replies",
    "apc_within": "APC: with human scores, median of 6",
    "apc_pooled": "APC: the same, pooled",
    "characterchat_matching": "CharacterChat: shared letters, median of 3",
}
"""Claim -> its line in the forest. Claims on a scale of their own stand in the table only."""


def _interval(axis: Axes, place: float, row: pd.Series, verdict: str) -> None:
    colour = COLOURS[verdict]
    if not np.isnan(row["low"]):
        axis.plot([row["low"], row["high"]], [place, place], color=colour, lw=1.6, zorder=2)
    face = colour if verdict in DECIDED else "white"
    axis.plot(row["estimate"], place, MARKERS[verdict], color=colour, mfc=face, mew=1.4, ms=7.5, zorder=4)
    if not np.isnan(row["printed"]):
        axis.plot(row["printed"], place, "|", color="0.1", ms=15, mew=2.2, zorder=3)


def forest(judged: pd.DataFrame) -> Figure:
    """Draw the printed number of every claim against the recomputed interval, the verdict as the marker's shape.

    Args:
        judged: Of :func:`released_results.judging.verdict_table`.
    """
    frame = judged.set_index("claim").loc[[name for name in LABELS if name in set(judged["claim"])]]
    frame = frame[frame["estimate"].notna()]
    correlations = frame["test"].str.contains("Pearson|Spearman")
    parts = [frame[~correlations], frame[correlations]]
    heights = [len(part) + 0.6 for part in parts]
    figure, axes = plt.subplots(
        2, 1, figsize=(9.6, 0.36 * sum(heights) + 1.5), height_ratios=heights, layout="constrained"
    )
    for axis, part, label in zip(axes, parts, ("difference on a scale of 0 to 1", "correlation"), strict=True):
        axis.axvline(0, color="0.5", lw=1, ls=":", zorder=1)
        if label.startswith("difference"):
            margin = float(part["margin"].max())
            axis.axvspan(-margin, margin, color="0.92", zorder=0)
        for place, (_, row) in enumerate(part.iterrows()):
            _interval(axis, place, row, row["verdict"])
        texts = [f"{LABELS[str(name)]}  (n = {int(row['n']):,})" for name, row in part.iterrows()]
        axis.set(xlabel=label, yticks=range(len(part)), yticklabels=texts, ylim=(len(part) - 0.4, -0.6))
    axes[1].set_xlim(-1.05, 1.05)
    said = [name for name in COLOURS if name in set(frame["verdict"])]
    marks = [
        Line2D(
            [],
            [],
            marker=MARKERS[name],
            color=COLOURS[name],
            ls="-",
            ms=7.5,
            mew=1.4,
            mfc=COLOURS[name] if name in DECIDED else "white",
            label=name,
        )
        for name in said
    ]
    marks.append(
        Line2D([], [], marker="|", color="0.1", ls="", ms=13, mew=2.2, label="printed, or claimed to be 0")
    )
    figure.legend(handles=marks, loc="outside upper left", ncols=2, fontsize="small")
    return figure


def failures(scored: pd.DataFrame) -> Figure:
    """Draw PersoBench's score against the share of failed replies: as printed, and of parsed replies."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.3), sharex=True, layout="constrained")
    columns = (("printed", "printed score, points"), ("valid", "mean of parsed replies, points of 100"))
    plain = scored[scored["setting"] == "vanilla"]
    for axis, (column, label), name in zip(axes, columns, ("as printed", "parsed replies only"), strict=True):
        r = float(np.corrcoef(plain["failures"], plain[column])[0, 1])
        axis.set_title(f"{name}: direct answers r = {r:+.2f}".replace("-", "−"), fontsize="medium")
        for setting, marker, colour in (("vanilla", "o", PALETTE[0]), ("COT", "^", PALETTE[1])):
            part = scored[scored["setting"] == setting]
            axis.plot(part["failures"], part[column], marker, color=colour, ms=7, ls="")
        wide = scored.pivot(index="model", columns="setting")
        for model in wide.index:
            axis.annotate(
                "",
                (wide["failures"]["COT"][model], wide[column]["COT"][model]),
                (wide["failures"]["vanilla"][model], wide[column]["vanilla"][model]),
                arrowprops={"arrowstyle": "-", "color": "0.75", "lw": 1},
                zorder=0,
            )
        axis.set(xlabel="share of replies that cannot be parsed", ylabel=label)
        axis.margins(x=0.08, y=0.13)
    _name_models(axes[0], scored, "printed", LEFT)
    _name_models(axes[1], scored, "valid", RIGHT)
    marks = [
        Line2D([], [], marker=marker, color=colour, ls="", ms=7, label=label)
        for marker, colour, label in (("o", PALETTE[0], "direct answer"), ("^", PALETTE[1], "chain of thought"))
    ]
    axes[0].legend(handles=marks, loc="upper right")
    return figure


SHORT = {
    "Qwen2-7B-Instruct": "Qwen2-7B",
    "Llama3-1-8B-Instruct": "Llama-3.1-8B",
    "Mistral-7B-Instruct": "Mistral-7B",
    "Gemma-7B-Instruct": "Gemma-7B",
    "gemini-1.5-pro": "Gemini-1.5",
    "gpt-3.5-turbo": "GPT-3.5",
    "gpt-4o-mini": "GPT-4o-mini",
    "gpt-4-turbo": "GPT-4-turbo",
}
# Where each model's name stands beside its direct answer: horizontal and vertical alignment, shift in points.
LEFT = {
    "Qwen2-7B-Instruct": ("right", "top", 2, -6),
    "Llama3-1-8B-Instruct": ("left", "bottom", 7, 1),
    "Mistral-7B-Instruct": ("right", "top", -3, -3),
    "Gemma-7B-Instruct": ("right", "top", -6, -2),
    "gemini-1.5-pro": ("left", "top", 4, -4),
    "gpt-3.5-turbo": ("left", "top", 8, 4),
    "gpt-4o-mini": ("left", "top", 6, -3),
    "gpt-4-turbo": ("left", "top", 2, -7),
}
RIGHT = {
    "Qwen2-7B-Instruct": ("right", "bottom", -2, 6),
    "Llama3-1-8B-Instruct": ("left", "bottom", 4, 3),
    "Mistral-7B-Instruct": ("right", "top", 4, -6),
    "Gemma-7B-Instruct": ("center", "bottom", 0, 7),
    "gemini-1.5-pro": ("left", "top", 5, -4),
    "gpt-3.5-turbo": ("left", "top", 7, 3),
    "gpt-4o-mini": ("left", "top", 7, 2),
    "gpt-4-turbo": ("left", "top", 6, -1),
}


def _name_models(
    axis: Axes, scored: pd.DataFrame, column: str, places: dict[str, tuple[str, str, int, int]]
) -> None:
    plain = scored[scored["setting"] == "vanilla"].set_index("model")
    for model, (ha, va, right, up) in places.items():
        axis.annotate(
            SHORT[model],
            (plain.loc[model, "failures"], plain.loc[model, column]),
            xytext=(right, up),
            textcoords="offset points",
            ha=ha,
            va=va,
            fontsize="small",
            color="0.25",
        )


TYPES = {
    "generalizing_to_new_scenarios": "generalise to new scenarios",
    "provide_preference_aligned_recommendations": "recommend by preference",
    "recall_user_shared_facts": "recall shared facts",
    "recalling_facts_mentioned_by_the_user": "recall facts mentioned",
    "recalling_the_reasons_behind_previous_updates": "recall reasons of updates",
    "suggest_new_ideas": "suggest new ideas",
    "track_full_preference_evolution": "track how preferences changed",
    "all": "all questions",
}


def memory(typed: pd.DataFrame, rejected: Sequence[str], reported: float = 0.5) -> Figure:
    """Draw GPT-4o's accuracy without history and with retrieval, by type of question.

    Args:
        typed: Of :func:`released_results.items.by_type`.
        rejected: Types whose difference is significant.
        reported: Accuracy reported with the whole history.
    """
    frame = pd.concat(
        [typed[typed["question_type"] != "all"].sort_values("blind"), typed[typed["question_type"] == "all"]]
    )
    figure, axis = plt.subplots(figsize=(9.4, 4.6), layout="constrained")
    axis.axvline(0.25, color="0.45", lw=1, ls=":")
    axis.axvline(reported, color="0.45", lw=1, ls="--")
    for place, row in enumerate(frame.to_dict("records")):
        for what, marker, colour, shift in (
            ("blind", "s", PALETTE[1], -0.14),
            ("retrieval", "o", PALETTE[0], 0.14),
        ):
            filled = what == "blind" or row["question_type"] in rejected
            axis.plot([row[f"{what}_low"], row[f"{what}_high"]], [place + shift] * 2, color=colour, lw=1.6)
            axis.plot(
                row[what], place + shift, marker, color=colour, mfc=colour if filled else "white", ms=7, mew=1.4
            )
    texts = [f"{TYPES[kind]}  (n = {n})" for kind, n in zip(frame["question_type"], frame["n"], strict=True)]
    axis.axhline(len(frame) - 1.5, color="0.85", lw=1)
    axis.set(
        xlabel="share of right answers",
        yticks=range(len(frame)),
        yticklabels=texts,
        ylim=(len(frame) - 0.4, -0.6),
        xlim=(0, 1.02),
    )
    top = axis.get_xaxis_transform()
    axis.text(0.25, 1.01, "chance", transform=top, ha="center", va="bottom", fontsize="small", color="0.35")
    axis.text(
        reported,
        1.01,
        "reported, whole history",
        transform=top,
        ha="center",
        va="bottom",
        fontsize="small",
        color="0.35",
    )
    marks = [
        Line2D([], [], marker="s", color=PALETTE[1], ls="-", ms=7, label="question only (blind)"),
        Line2D([], [], marker="o", color=PALETTE[0], ls="-", ms=7, label="retrieval, significantly better"),
        Line2D(
            [],
            [],
            marker="o",
            color=PALETTE[0],
            mfc="white",
            ls="-",
            ms=7,
            mew=1.4,
            label="retrieval, not significant",
        ),
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=3, fontsize="small")
    return figure


def capabilities(contrasts: pd.DataFrame, margin: float) -> Figure:
    """Draw the 45 contrasts of tuned with untuned models, by persona and task, with the equivalence margin."""
    parts = contrasts["hypothesis"].str.extract(r"^(?P<model>\w+) (?P<persona>\w+): (?P<task>.+)$")
    frame = contrasts.join(parts)
    tasks = list(dict.fromkeys(frame["task"]))
    looks = {"Llama": ("o", PALETTE[0]), "Qwen": ("s", PALETTE[1]), "Gemma": ("^", PALETTE[2])}
    figure, axes = plt.subplots(1, 3, figsize=(10.4, 4.6), sharex=True, sharey=True, layout="constrained")
    for axis, (persona, chosen) in zip(axes, frame.groupby("persona", sort=False), strict=True):
        axis.axvspan(-margin, margin, color="0.9", zorder=0)
        axis.axvline(0, color="0.5", lw=1, ls=":", zorder=1)
        for shift, (model, (marker, colour)) in zip((-0.24, 0, 0.24), looks.items(), strict=True):
            for row in chosen[chosen["model"] == model].to_dict("records"):
                place = tasks.index(row["task"]) + shift
                axis.plot([row["low"], row["high"]], [place] * 2, color=colour, lw=1.5, zorder=2)
                axis.plot(
                    row["estimate"],
                    place,
                    marker,
                    color=colour,
                    mfc=colour if row["rejected"] else "white",
                    ms=6,
                    mew=1.3,
                    zorder=3,
                )
        axis.set(title=str(persona), yticks=range(len(tasks)), yticklabels=tasks, ylim=(len(tasks) - 0.5, -0.5))
    axes[1].set_xlabel("accuracy, tuned less untuned model")
    marks = [Line2D([], [], marker=m, color=c, ls="-", ms=6, label=name) for name, (m, c) in looks.items()]
    marks.append(Line2D([], [], marker="o", color="0.3", mfc="white", ls="", ms=6, label="open: not significant"))
    figure.legend(handles=marks, loc="outside lower center", ncols=4, fontsize="small")
    return figure


def memory_systems(contrasts: pd.DataFrame, margin: float) -> Figure:
    """Draw the accuracy of every memory system less that of retrieval alone, in three settings."""
    parts = contrasts["hypothesis"].str.extract(r"^(?P<system>.+): (?P<setting>.+)$")
    frame = contrasts.join(parts)
    systems = frame.groupby("system")["estimate"].mean().sort_values(ascending=False).index
    looks = {
        "clean single": ("o", PALETTE[0], "one domain"),
        "noise single": ("s", PALETTE[1], "one domain, noise"),
        "clean multi": ("^", PALETTE[2], "several domains"),
    }
    figure, axis = plt.subplots(figsize=(9, 4.6), layout="constrained")
    axis.axvspan(-margin, margin, color="0.92", zorder=0)
    axis.axvline(0, color="0.5", lw=1, ls=":", zorder=1)
    for shift, (setting, (marker, colour, _)) in zip((-0.24, 0, 0.24), looks.items(), strict=True):
        for row in frame[frame["setting"] == setting].to_dict("records"):
            place = list(systems).index(row["system"]) + shift
            axis.plot([row["low"], row["high"]], [place] * 2, color=colour, lw=1.6, zorder=2)
            axis.plot(
                row["estimate"],
                place,
                marker,
                color=colour,
                mfc=colour if row["rejected"] else "white",
                ms=6.5,
                mew=1.3,
                zorder=3,
            )
    axis.set(
        xlabel="accuracy, memory system less retrieval alone",
        yticks=range(len(systems)),
        yticklabels=systems,
        ylim=(len(systems) - 0.5, -0.5),
    )
    marks = [Line2D([], [], marker=m, color=c, ls="-", ms=6.5, label=text) for m, c, text in looks.values()]
    marks.append(Line2D([], [], marker="o", color="0.3", mfc="white", ls="", ms=6.5, label="open: not significant"))
    figure.legend(handles=marks, loc="outside lower center", ncols=4, fontsize="small")
    return figure
