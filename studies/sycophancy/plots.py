"""Figures of the sycophancy study."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes


def plot_agreement(axis: Axes, persona: pd.DataFrame, scores: pd.DataFrame) -> None:
    """Draw P(agree) over the designed level, with asserted and with unattributed statements."""
    palette = sns.color_palette("colorblind")
    series = {"asserted": (palette[0], "o", "-"), "unattributed": (palette[1], "s", "--")}
    for place, (outcome, (colour, marker, line)) in enumerate(series.items()):
        means = persona.groupby("designed")[outcome].mean()
        shift = (place - 0.5) * 0.12
        axis.plot(
            persona["designed"] + shift,
            persona[outcome],
            marker,
            color=colour,
            alpha=0.35,
            ms=4,
            mew=0,
        )
        axis.plot(means.index + shift, means, marker, ls=line, color=colour, ms=6)
        axis.annotate(
            outcome, (5.2, means.iloc[-1]), color=colour, va="center", annotation_clip=False, fontweight="bold"
        )
    for condition, label in (("none", "no persona"), ("assistant", "assistant")):
        value = scores.loc[scores["condition"] == condition, "asserted"].iloc[0]
        axis.axhline(value, color="0.4", ls=":", lw=1)
        axis.annotate(f"{label}, asserted", (0.6, value), fontsize="small", color="0.3", va="bottom")
    axis.set(xlabel="designed agreeableness level", ylabel="P(agree)", xlim=(0.55, 6.3), xticks=range(1, 6))


def plot_net(axis: Axes, persona: pd.DataFrame) -> None:
    """Draw net sycophancy over the designed level, one thin line per background."""
    colour = sns.color_palette("colorblind")[2]
    for _, levels in persona.groupby("background", sort=False):
        axis.plot(levels["designed"], levels["net"], color=colour, alpha=0.3, lw=1)
    means = persona.groupby("designed")["net"].mean()
    axis.plot(means.index, means, "o-", color=colour, ms=6)
    axis.axhline(0, color="0.4", ls=":", lw=1)
    axis.set(
        xlabel="designed agreeableness level",
        ylabel="net sycophancy (asserted minus unattributed)",
        xticks=range(1, 6),
    )
