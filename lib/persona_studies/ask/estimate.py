"""What a recording would take: cells, tokens, time and money."""

from __future__ import annotations

import time

import pandas as pd

from persona_studies.ask import planner
from persona_studies.ask.backends import Backend
from persona_studies.ask.recording import requests

WARM_UP = 12
WARM_UP_GENERATED = 128
COUNTED = 20_000


def estimate(plan: pd.DataFrame, backend: Backend) -> pd.DataFrame:
    """Count tokens, time a few cells of every measure and extrapolate. Nothing is stored.

    Tokens of more than 20,000 cells of a measure are counted on a run of so many and scaled up.

    Returns:
        One row per measure: ``measure, cells, logical, computed, seconds_per_cell, hours, money``. Logical
        tokens are those without any sharing, computed tokens those that go through the model; money is in the
        currency of the endpoint's prices, 0 for a model that runs here.
    """
    rows = []
    for measure, cells in planner.order(plan).groupby("measure", sort=False):
        counted = cells.head(COUNTED)
        scale = len(cells) / len(counted)
        tokens = planner.cost([str(measure)] * len(counted), requests(counted), backend).iloc[0]
        # Neighbours of one condition, as most cells are recorded; a few replies take as long as many labels.
        longest = int(cells["max_tokens"].max())
        n = max(2, min(WARM_UP, WARM_UP_GENERATED // max(longest, 1)))
        sample = cells[cells["condition"] == cells["condition"].iloc[-1]].tail(n)
        warm = planner.cost([str(measure)] * len(sample), requests(sample), backend).iloc[0]
        started = time.perf_counter()
        for _ in backend.respond(requests(sample)):
            pass
        # Labels take time for the prompt's tokens, a reply for its own.
        part = len(sample) / len(cells) if longest else warm["computed"] / (tokens["computed"] * scale)
        seconds = (time.perf_counter() - started) / part
        money = 0.0
        if (budget := getattr(backend, "budget", None)) is not None:
            generated = int((cells["max_tokens"].clip(lower=1)).sum())
            money = budget.price(int(tokens["logical"] * scale), generated)
        rows.append(
            {
                "measure": measure,
                "cells": len(cells),
                "logical": int(tokens["logical"] * scale),
                "computed": int(tokens["computed"] * scale),
                "seconds_per_cell": seconds / len(cells),
                "hours": seconds / 3600,
                "money": money,
            }
        )
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame, shares: int = 1) -> str:
    """Return an estimate as one line: calls, tokens, time and money.

    Args:
        table: Of :func:`estimate`.
        shares: Processes that share the work.
    """
    computed, logical = table["computed"].sum(), table["logical"].sum()
    money, hours = table["money"].sum(), table["hours"].sum() / shares
    return (
        f"{table['cells'].sum():,} cells; {logical:,} tokens, of which sharing leaves {computed:,} to compute "
        f"({logical / max(computed, 1):.1f} times fewer); about "
        + (f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes")
        + (f" in each of {shares} processes" if shares > 1 else "")
        + (f"; about {money:.2f} in the currency of its prices" if money else "; no money")
    )
