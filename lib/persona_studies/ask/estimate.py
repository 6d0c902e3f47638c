"""What a recording would take: cells, tokens, time and money."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pandas as pd

from persona_studies.ask import planner
from persona_studies.ask.backends import Backend, Request
from persona_studies.ask.recording import requests

# Cells that are timed of a measure, and seconds after which no further one is begun.
WARM_UP = 12
SECONDS = 3.0
# Fewer timed cells than these make a rough estimate.
FEW = 4
# Characters of prompts that are timed where there are any: a thousand tokens take one CPU core half a minute.
SHORT = 1_000
# Cells whose tokens are counted, of so many starts of prompts at least.
COUNTED, STARTS = 2_000, 10


def estimate(plan: pd.DataFrame, backend: Backend, say: Callable[[str], None] = lambda line: None) -> pd.DataFrame:
    """Count tokens, time a few cells of every measure and extrapolate. Nothing is stored.

    Tokens of a measure with more than 2,000 cells are counted on a part of them and scaled up. Timing a measure
    takes three seconds and the cell that is then under way.

    Args:
        plan: Cells with their prompts.
        say: Is told which measure is timed next.

    Returns:
        One row per measure: ``measure, cells, logical, computed, timed, seconds_per_cell, hours, money``. Logical
        tokens are those without any sharing, computed tokens those that go through the model; money is in the
        currency of the endpoint's prices, 0 for a model that runs here.
    """
    rows = []
    for measure, cells in planner.order(plan).groupby("measure", sort=False):
        say(f"{measure}: counting tokens and timing a few of {len(cells):,} cells")
        counted = _counted(cells)
        scale = len(cells) / len(counted)
        tokens = planner.cost(requests(counted), backend)
        sample = _neighbours(cells)
        timed, seconds = _timed(backend, sample)
        warm = planner.cost(requests(sample.head(timed)), backend)
        # Labels take time for the prompt's tokens, a reply for its own.
        words = bool(cells["max_tokens"].max())
        seconds *= len(cells) / timed if words else tokens["computed"] * scale / warm["computed"]
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
                "timed": timed,
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
    rough = table[table["timed"] < table["cells"].clip(upper=FEW)]
    return (
        f"{table['cells'].sum():,} cells; {logical:,} tokens, of which sharing leaves {computed:,} to compute "
        f"({logical / max(computed, 1):.1f} times fewer); about "
        + (f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes")
        + (f" in each of {shares} processes" if shares > 1 else "")
        + (f"; about {money:.2f} in the currency of its prices" if money else "; no money")
        + (
            f". The time is rough: fewer than {FEW} cells were timed of {', '.join(rough['measure'])}"
            if len(rough)
            else ""
        )
    )


def _counted(cells: pd.DataFrame) -> pd.DataFrame:
    """Return a few thousand cells, all where there are no more.

    Of starts of prompts that are spread over the plan, so that starts are shared as they are in the whole. Of one
    start 200 cells are enough: its own tokens hardly count among theirs.
    """
    start = cells.groupby(["condition", "shared"], sort=False, dropna=False).ngroup()
    step = max(1, min(len(cells) // COUNTED, start.nunique() // STARTS))
    few: pd.DataFrame = cells[(start % step == 0) & (cells.groupby(start).cumcount() < COUNTED // STARTS)]
    return few


def _neighbours(cells: pd.DataFrame) -> pd.DataFrame:
    """Return neighbours of one condition, as most cells are recorded, with short prompts where there are any."""
    length = cells["system"].fillna("").str.len() + cells["shared"].str.len() + cells["user"].str.len()
    short = cells[length <= max(SHORT, length.min())]
    mine: pd.DataFrame = short[short["condition"] == short["condition"].iloc[-1]]
    return mine.tail(WARM_UP)


def _timed(backend: Backend, sample: pd.DataFrame) -> tuple[int, float]:
    """Ask cells until SECONDS have passed, one at least; return how many there were, and the seconds."""
    started = time.perf_counter()

    def some() -> Iterator[Request]:
        for place, request in enumerate(requests(sample)):
            if place and time.perf_counter() - started > SECONDS:
                return
            yield request

    timed = sum(1 for _ in backend.respond(some()))
    return timed, time.perf_counter() - started
