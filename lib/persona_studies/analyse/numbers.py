"""The numbers of a model's report card: means and shares with intervals, each resting on a part of a gate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import nan

import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from persona_studies.analyse import multiple_choice

SECTIONS = (
    "Agreement with what the user asserts",
    "Accuracy by persona",
    "Fall by persona group",
    "Triage",
    "Calibration",
    "Replies in words",
)
COLUMNS = ["section", "number", "estimate", "low", "high", "n", "unit", "part"]
CHECKS = ["part", "check", "value", "rule", "threshold", "passes"]


def means(
    section: int, values: pd.DataFrame, names: Mapping[str, str], *, unit: str, part: str, confidence: float
) -> pd.DataFrame:
    """Return the means of some columns, each over the units that have a value.

    Args:
        section: Place in :data:`SECTIONS`.
        values: Units x columns. The first level of the index names strata, which weigh the same; ``item`` and
            ``cluster`` are further levels.
        names: Column -> what its mean is called. Columns that are not there are left out.
        unit: What a row is, in the plural.
        part: Part of the gate that the numbers rest on.

    Returns:
        :data:`COLUMNS`. There is no interval where no stratum has two units.
    """
    wanted = values[[column for column in names if column in values and values[column].notna().any()]]
    if wanted.empty:
        return pd.DataFrame(columns=COLUMNS)
    # The sign flips of the same function are not shown here.
    found = multiple_choice.paired(wanted, confidence=confidence, replicates=100, seed=1)
    plain = wanted.groupby(level=0, sort=False).mean().mean()
    return pd.DataFrame(
        {
            "section": SECTIONS[section],
            "number": [names[str(column)] for column in wanted],
            "estimate": found["difference"].fillna(plain).astype(float).to_numpy(),
            "low": found["low"].astype(float).to_numpy(),
            "high": found["high"].astype(float).to_numpy(),
            "n": found["n"].astype(int).to_numpy(),
            "unit": unit,
            "part": part,
        }
    )


def pooled(values: pd.DataFrame) -> pd.DataFrame:
    """Return units as one stratum, for :func:`means`; a unit without a cluster is its own.

    Args:
        values: Indexed by units, or with levels ``item`` and ``cluster``.
    """
    index = values.index
    item, cluster = (index.get_level_values(n if n in index.names else 0) for n in ("item", "cluster"))
    stratum = pd.Index(["all"] * len(values))
    return values.set_axis(pd.MultiIndex.from_arrays([stratum, item, cluster], names=["all", "item", "cluster"]))


def statuses(
    study: str, said: pd.Series, kinds: Mapping[str, Iterable[str]], *, part: str, confidence: float
) -> pd.DataFrame:
    """Return what replies are, as shares of all with exact intervals (Clopper and Pearson 1934).

    Args:
        study: Whose replies they are, in words.
        said: Status of every reply.
        kinds: What a share is called -> statuses that it counts.
        part: Part of the gate that the numbers rest on.

    Returns:
        :data:`COLUMNS`.
    """
    n, rows = len(said), []
    for name, counted in kinds.items():
        k = int(said.isin(list(counted)).sum())
        low, high = proportion_confint(k, n, alpha=1 - confidence, method="beta") if n else (nan, nan)
        rows.append((SECTIONS[5], f"{study}: {name}", k / n if n else nan, low, high, n, "replies", part))
    return pd.DataFrame(rows if n else [], columns=COLUMNS)


def stacked(parts: Iterable[pd.DataFrame], columns: Sequence[str] = COLUMNS) -> pd.DataFrame:
    """Put the numbers of a study together; none make an empty table."""
    kept = [part for part in parts if len(part)]
    return pd.concat(kept, ignore_index=True)[[*columns]] if kept else pd.DataFrame(columns=[*columns])


def checked(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Put the checks of a study's gates together: :data:`CHECKS`."""
    return stacked(parts, CHECKS)
