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

Colour = str | tuple[float, float, float]


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


def _estimate(
    axis: Axes, place: float, limits: tuple[float, float], value: float, marker: str, colour: Colour, filled: bool
) -> None:
    """Draw an interval and its estimate on the line at ``place``; open where nothing was decided."""
    if not np.isnan(limits[0]):
        axis.plot(limits, [place, place], color=colour, lw=1.6, zorder=2)
    axis.plot(value, place, marker, color=colour, mfc=colour if filled else "white", mew=1.4, ms=7, zorder=4)


def _key(marker: str, colour: Colour, label: str, *, filled: bool = True, line: str = "-") -> Line2D:
    """Return an entry of a legend."""
    face = colour if filled else "white"
    return Line2D([], [], marker=marker, color=colour, mfc=face, mew=1.4, ms=7, ls=line, label=label)


def forest(judged: pd.DataFrame) -> Figure:
    """Draw the printed number of every claim against the recomputed interval, the verdict as the marker's shape.

    Args:
        judged: Of :func:`released_results.judging.verdict_table`.
    """
    frame = judged[judged["claim"].isin(list(LABELS)) & judged["estimate"].notna()].set_index("claim")
    frame = frame.loc[[name for name in LABELS if name in frame.index]].reset_index()
    if frame.empty:
        figure, axis = plt.subplots(figsize=(9.6, 1.2), layout="constrained")
        axis.set_axis_off()
        axis.text(0, 0.5, "The chosen releases test no claim on these scales.", fontsize="medium")
        return figure
    correlations = frame["test"].str.contains("Pearson|Spearman")
    panels = [
        (part, label)
        for part, label in (
            (frame[~correlations], "difference on a scale of 0 to 1"),
            (frame[correlations], "correlation"),
        )
        if len(part)
    ]
    heights = [len(part) + 0.6 for part, _ in panels]
    size = (9.6, 0.36 * sum(heights) + 1.5)
    figure, grid = plt.subplots(
        len(panels), 1, figsize=size, height_ratios=heights, layout="constrained", squeeze=False
    )
    for axis, (part, label) in zip(grid[:, 0], panels, strict=True):
        margin = float(part["margin"].max())
        axis.axvspan(-margin, margin, color="0.92", zorder=0)
        axis.axvline(0, color="0.5", lw=1, ls=":", zorder=1)
        for place, row in enumerate(part.to_dict("records")):
            said = row["verdict"]
            limits = (row["low"], row["high"])
            _estimate(axis, place, limits, row["estimate"], MARKERS[said], COLOURS[said], said in DECIDED)
            if not np.isnan(row["printed"]):
                axis.plot(row["printed"], place, "|", color="0.1", ms=15, mew=2.2, zorder=3)
        texts = [f"{LABELS[row['claim']]}  (n = {int(row['n']):,})" for row in part.to_dict("records")]
        axis.set(xlabel=label, yticks=range(len(part)), yticklabels=texts, ylim=(len(part) - 0.4, -0.6))
        if label == "correlation":
            axis.set_xlim(-1.05, 1.05)
    marks = [
        _key(MARKERS[name], colour, name, filled=name in DECIDED)
        for name, colour in COLOURS.items()
        if name in set(frame["verdict"])
    ]
    marks.append(
        Line2D([], [], marker="|", color="0.1", ls="", ms=13, mew=2.2, label="printed, or claimed to be 0")
    )
    figure.legend(handles=marks, loc="outside upper left", ncols=3, fontsize="small")
    return figure


def failures(scored: pd.DataFrame) -> Figure:
    """Draw PersoBench's score against the share of failed replies: as printed, and of parsed replies."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.3), sharex=True, layout="constrained")
    panels = (
        ("printed", "printed score, points", "as printed", LEFT),
        ("valid", "mean of parsed replies, points of 100", "parsed replies only", RIGHT),
    )
    settings = {"vanilla": ("o", PALETTE[0], "direct answer"), "COT": ("^", PALETTE[1], "chain of thought")}
    plain = scored[scored["setting"] == "vanilla"].set_index("model")
    for axis, (column, label, title, places) in zip(axes, panels, strict=True):
        r = float(np.corrcoef(plain["failures"], plain[column])[0, 1])
        axis.set_title(f"{title}: direct answers r = {r:+.2f}".replace("-", "−"), fontsize="medium")
        for _, part in scored.groupby("model"):
            axis.plot(part["failures"], part[column], color="0.8", lw=1, zorder=1)
        for setting, (marker, colour, _) in settings.items():
            part = scored[scored["setting"] == setting]
            axis.plot(part["failures"], part[column], marker, color=colour, ms=7, ls="", zorder=2)
        for row in plain.reset_index().to_dict("records"):
            ha, va, right, up = places[row["model"]]
            axis.annotate(
                SHORT[row["model"]],
                (row["failures"], row[column]),
                xytext=(right, up),
                textcoords="offset points",
                ha=ha,
                va=va,
                fontsize="small",
                color="0.25",
            )
        axis.set(xlabel="share of replies that cannot be parsed", ylabel=label)
        axis.margins(x=0.08, y=0.13)
    axes[0].legend(handles=[_key(*look, line="") for look in settings.values()], loc="upper right")
    return figure


def memory(typed: pd.DataFrame, rejected: Sequence[str], reported: float = 0.5) -> Figure:
    """Draw GPT-4o's accuracy without history and with retrieval, by type of question.

    Args:
        typed: Of :func:`released_results.items.by_type`.
        rejected: Types whose difference is significant.
        reported: Accuracy reported with the whole history.
    """
    last = typed["question_type"] == "all"
    frame = pd.concat([typed[~last].sort_values("blind"), typed[last]])
    figure, axis = plt.subplots(figsize=(9.4, 4.6), layout="constrained")
    for place, row in enumerate(frame.to_dict("records")):
        for what, marker, colour, shift in (
            ("blind", "s", PALETTE[1], -0.14),
            ("retrieval", "o", PALETTE[0], 0.14),
        ):
            limits = (row[f"{what}_low"], row[f"{what}_high"])
            filled = what == "blind" or row["question_type"] in rejected
            _estimate(axis, place + shift, limits, row[what], marker, colour, filled)
    texts = [f"{TYPES[kind]}  (n = {n})" for kind, n in zip(frame["question_type"], frame["n"], strict=True)]
    axis.axhline(len(frame) - 1.5, color="0.85", lw=1)
    axis.set(xlabel="share of right answers", yticks=range(len(frame)), yticklabels=texts)
    axis.set(ylim=(len(frame) - 0.4, -0.6), xlim=(0, 1.02))
    for at, style, said in ((0.25, ":", "chance"), (reported, "--", "reported, whole history")):
        axis.axvline(at, color="0.45", lw=1, ls=style, zorder=1)
        axis.annotate(
            said,
            (at, 1.01),
            xycoords=axis.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize="small",
            color="0.35",
        )
    marks = [
        _key("s", PALETTE[1], "question only (blind)"),
        _key("o", PALETTE[0], "retrieval, significantly better"),
        _key("o", PALETTE[0], "retrieval, not significant", filled=False),
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=3, fontsize="small")
    return figure


SHIFTS = (-0.24, 0.0, 0.24)
OPEN = "open: not significant"


def capabilities(contrasts: pd.DataFrame, margin: float) -> Figure:
    """Draw the 45 contrasts of tuned with untuned models, by persona and task, with the equivalence margin."""
    frame = contrasts.join(contrasts["hypothesis"].str.extract(r"^(?P<model>\w+) (?P<persona>\w+): (?P<task>.+)$"))
    tasks = list(dict.fromkeys(frame["task"]))
    looks = {"Llama": ("o", PALETTE[0]), "Qwen": ("s", PALETTE[1]), "Gemma": ("^", PALETTE[2])}
    figure, axes = plt.subplots(1, 3, figsize=(10.4, 4.6), sharex=True, sharey=True, layout="constrained")
    for axis, (persona, part) in zip(axes, frame.groupby("persona", sort=False), strict=True):
        axis.axvspan(-margin, margin, color="0.9", zorder=0)
        axis.axvline(0, color="0.5", lw=1, ls=":", zorder=1)
        for row in part.to_dict("records"):
            place = tasks.index(row["task"]) + SHIFTS[list(looks).index(row["model"])]
            marker, colour = looks[row["model"]]
            _estimate(axis, place, (row["low"], row["high"]), row["estimate"], marker, colour, row["rejected"])
        axis.set(title=str(persona), yticks=range(len(tasks)), yticklabels=tasks, ylim=(len(tasks) - 0.5, -0.5))
    axes[1].set_xlabel("accuracy, tuned less untuned model")
    marks = [_key(marker, colour, name) for name, (marker, colour) in looks.items()]
    marks.append(_key("o", "0.3", OPEN, filled=False, line=""))
    figure.legend(handles=marks, loc="outside lower center", ncols=4, fontsize="small")
    return figure


def memory_systems(contrasts: pd.DataFrame, margin: float) -> Figure:
    """Draw the accuracy of every memory system less that of retrieval alone, in three settings."""
    frame = contrasts.join(contrasts["hypothesis"].str.extract(r"^(?P<system>.+): (?P<setting>.+)$"))
    systems = list(frame.groupby("system")["estimate"].mean().sort_values(ascending=False).index)
    looks = {
        "clean single": ("o", PALETTE[0], "one domain"),
        "noise single": ("s", PALETTE[1], "one domain, noise"),
        "clean multi": ("^", PALETTE[2], "several domains"),
    }
    figure, axis = plt.subplots(figsize=(9, 4.6), layout="constrained")
    axis.axvspan(-margin, margin, color="0.92", zorder=0)
    axis.axvline(0, color="0.5", lw=1, ls=":", zorder=1)
    for row in frame.to_dict("records"):
        place = systems.index(row["system"]) + SHIFTS[list(looks).index(row["setting"])]
        marker, colour, _ = looks[row["setting"]]
        _estimate(axis, place, (row["low"], row["high"]), row["estimate"], marker, colour, row["rejected"])
    axis.set(xlabel="accuracy, memory system less retrieval alone", ylim=(len(systems) - 0.5, -0.5))
    axis.set(yticks=range(len(systems)), yticklabels=systems)
    marks = [*(_key(*look) for look in looks.values()), _key("o", "0.3", OPEN, filled=False, line="")]
    figure.legend(handles=marks, loc="outside lower center", ncols=4, fontsize="small")
    return figure
