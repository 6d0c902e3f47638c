"""Figures of the study of persona bias."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy import stats


def pairs(table: pd.DataFrame, names: Mapping[str, str], chosen_alpha: float) -> pd.DataFrame:
    """Return pairs and controls for a forest, with the interval that equivalence is judged by.

    Args:
        table: Of :func:`persona_bias.analysis.contrasts`.
        names: Of :func:`persona_bias.names`.
        chosen_alpha: Two one-sided tests at this level reject where the interval of 1 - 2 alpha lies in the band.
    """
    shown = table[table["family"].isin(["pairs", "controls"]) & (table["n"] > 1)].reset_index(drop=True)
    reach = stats.t.isf(chosen_alpha, shown["df"]) * shown["se"]
    label = [" - ".join(names.get(one, one) for one in pair.split(" - ")) for pair in shown["hypothesis"]]
    return shown.assign(label=label, inner_low=shown["estimate"] - reach, inner_high=shown["estimate"] + reach)


def plot_drops(table: pd.DataFrame, names: Mapping[str, str], margin: float) -> Figure:
    """Draw the difference per persona: one point per dataset, and the mean with its interval over questions.

    Args:
        table: Of :func:`by_dataset`, with ``mean, mean_low, mean_high`` of the persona joined on.
        names: Of :func:`persona_bias.names`.
        margin: Smallest effect of interest, drawn as a band.
    """
    order = list(dict.fromkeys(table["persona"]))
    figure, axis = plt.subplots(figsize=(8.5, 0.34 * len(order) + 1.2), layout="constrained")
    groups = list(dict.fromkeys(table["group"]))
    colours = dict(zip(groups, sns.color_palette("colorblind", len(groups)), strict=True))
    axis.axvspan(-margin, margin, color="0.92", zorder=0)
    for place, persona in enumerate(order):
        rows = table[table["persona"] == persona]
        first = rows.iloc[0]
        colour = colours[first["group"]]
        axis.plot(rows["difference"], np.full(len(rows), place), "|", color=colour, ms=9, alpha=0.8)
        axis.plot([first["mean_low"], first["mean_high"]], [place, place], color="0.15", lw=1.6)
        axis.plot(first["mean"], place, "o", color=colour, mec="0.15", ms=6)
    axis.axvline(0, color="0.4", lw=1, ls=":")
    (tick,) = axis.plot([], [], "|", color="0.4", ms=9, label="one dataset")
    (mean,) = axis.plot([], [], "o-", color="0.15", ms=6, label="mean over usable datasets, with interval")
    band = Patch(color="0.92", label=f"less than {margin:g} either way")
    axis.legend(
        handles=[tick, mean, band], loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3, fontsize="small"
    )
    labels = [f"{names[persona]} ({table.loc[table['persona'] == persona, 'group'].iloc[0]})" for persona in order]
    axis.set(
        yticks=range(len(order)),
        yticklabels=labels,
        ylim=(len(order) - 0.5, -0.5),
        xlabel="difference in accuracy against the baseline",
    )
    return figure


def plot_heat(table: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Draw the difference by persona and dataset; a dot marks p <= alpha, a ring significance after correction."""
    # Rounded, because shares lie on the edges between colours, where the last digit would decide.
    wide = table.pivot_table(index="persona", columns="dataset", values="difference", sort=False).round(9)
    down, across = ({name: place + 0.5 for place, name in enumerate(names)} for names in (wide.index, wide.columns))
    reach = float(np.nanmax(np.abs(wide.to_numpy()))) or 0.01
    figure, axis = plt.subplots(figsize=(1.0 + 0.75 * wide.shape[1], 1.6 + 0.33 * len(wide)), layout="constrained")
    sns.heatmap(
        wide.rename(index=names, columns=names),
        cmap="PuOr",
        center=0,
        vmin=-reach,
        vmax=reach,
        ax=axis,
        cbar_kws={"label": "difference in accuracy"},
        linewidths=0.5,
    )
    for row in table.dropna(subset="difference").to_dict("records"):
        x, y = across[row["dataset"]], down[row["persona"]]
        if row["p"] <= row["alpha"]:
            axis.plot(x, y, ".", color="black", ms=5)
        if row["rejected"]:
            axis.plot(x, y, "o", mfc="none", mec="black", ms=10)
    axis.set(xlabel="", ylabel="")
    axis.tick_params(axis="x", rotation=45)
    plt.setp(axis.get_xticklabels(), ha="right", rotation_mode="anchor")
    return figure


def plot_meta(table: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Draw each persona's mean over datasets (line: interval; thin line: prediction interval)."""
    figure, axis = plt.subplots(figsize=(8, 0.34 * len(table) + 1.2), layout="constrained")
    colour = sns.color_palette("colorblind")[0]
    for place, row in enumerate(table.to_dict("records")):
        axis.plot([row["prediction_low"], row["prediction_high"]], [place, place], color="0.6", lw=1)
        axis.plot([row["low"], row["high"]], [place, place], color=colour, lw=2.4)
        axis.plot(row["estimate"], place, "o", color=colour, ms=6)
    axis.axvline(0, color="0.4", lw=1, ls=":")
    axis.set(
        yticks=range(len(table)),
        yticklabels=table["persona"].map(names),
        ylim=(len(table) - 0.5, -0.5),
        xlabel="difference in accuracy, combined over datasets",
    )
    return figure
