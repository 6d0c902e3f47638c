"""The five figures: the forest of claims, and one figure for each release that has something to see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from persona_studies.analyse import figures
from released_results import cells

PALETTE = sns.color_palette("colorblind")
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


TICK: dict[str, Any] = {"marker": "|", "color": "0.1", "ms": 15, "mew": 2.2}
"""The mark of a printed number."""


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
    frame = frame.assign(said=frame["verdict"])
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
        texts = [f"{LABELS[row['claim']]}  (n = {int(row['n']):,})" for row in part.to_dict("records")]
        figures.forest(part.assign(label=texts), xlabel=label, margin=float(part["margin"].max()), axis=axis)
        axis.plot(part["printed"], range(len(part)), ls="", zorder=2.5, label="printed, or claimed to be 0", **TICK)
        if label == "correlation":
            axis.set_xlim(-1.05, 1.05)
    grid[0, 0].fill_between([], [], color="0.9", label="smallest effect of interest, either way")
    figures.explain(figure, frame, None, ncols=3)
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
        for setting, (marker, colour, said) in settings.items():
            part = scored[scored["setting"] == setting]
            axis.plot(part["failures"], part[column], marker, color=colour, ms=7, ls="", label=said, zorder=2)
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
                bbox={"boxstyle": "square,pad=0.05", "fc": "white", "ec": "none"},
                zorder=1.5,  # above the lines, below the marks
            )
        axis.set(xlabel="share of replies that cannot be parsed", ylabel=label)
        axis.margins(x=0.08, y=0.13)
    axes[0].legend(loc="upper right")
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
    texts = [f"{TYPES[kind]}  (n = {n})" for kind, n in zip(frame["question_type"], frame["n"], strict=True)]
    sides = [
        frame[["question_type"]].assign(
            label=texts, series=said, estimate=frame[what], low=frame[f"{what}_low"], high=frame[f"{what}_high"]
        )
        for what, said in (("retrieval", "retrieval"), ("blind", "question only (blind)"))
    ]
    whole = pd.concat(sides, ignore_index=True)
    whole["rejected"] = whole["question_type"].isin(rejected) | (whole["series"] != "retrieval")
    figure, axis = plt.subplots(figsize=(9.4, 4.6), layout="constrained")
    figures.forest(whole, xlabel="share of right answers", axis=axis)
    axis.axhline(len(frame) - 1.5, color="0.85", lw=1)
    axis.set(xlim=(0, 1.02))
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
    figures.explain(figure, whole, None)
    return figure


def capabilities(contrasts: pd.DataFrame, margin: float) -> Figure:
    """Draw the 45 contrasts of tuned with untuned models, by persona and task, with the equivalence margin."""
    frame = contrasts.merge(cells.capability_names(), on="hypothesis")
    frame = frame.rename(columns={"task": "label", "model": "series"})
    figure, axes = plt.subplots(1, 3, figsize=(10.4, 4.6), sharex=True, sharey=True, layout="constrained")
    for axis, (persona, part) in zip(axes, frame.groupby("persona", sort=False), strict=True):
        figures.forest(part, xlabel="", margin=margin, axis=axis)
        axis.set_title(str(persona))
    axes[1].set_xlabel("accuracy, tuned less untuned model")
    figures.explain(figure, frame, margin)
    return figure


def memory_systems(contrasts: pd.DataFrame, margin: float) -> Figure:
    """Draw the accuracy of every memory system less that of retrieval alone, in three settings."""
    frame = contrasts.merge(cells.memory_names(), on="hypothesis")
    settings = {"clean single": "one domain", "noise single": "one domain, noise", "clean multi": "several domains"}
    frame = frame.assign(mean=frame.groupby("system")["estimate"].transform("mean"))
    frame = frame.assign(label=frame["system"], series=frame["setting"].map(settings))
    order = {name: place for place, name in enumerate(settings.values())}
    frame = frame.sort_values("series", key=lambda names: names.map(order), kind="stable")
    frame = frame.sort_values("mean", ascending=False, kind="stable")
    figure, axis = plt.subplots(figsize=(9, 4.6), layout="constrained")
    figures.forest(frame, xlabel="accuracy, memory system less retrieval alone", margin=margin, axis=axis)
    figures.explain(figure, frame, margin, ncols=3)
    return figure
