"""The page of a model's report card, and the CSV of its numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from persona_studies.analyse import tables
from persona_studies.paths import Project, named
from persona_studies.publish import report_card
from persona_studies.publish.report_card import Card, Infos, Part
from persona_studies.reproduce import pages

# Width of a drawn interval, and the margin beside it, in pixels.
WIDTH, MARGIN = 180, 6
WORDS = {"passed": "passed", "failed": "failed", "partly": "passed in part"}


def write(
    project: Project,
    found: Sequence[Part],
    cards: Sequence[Card],
    infos: Infos,
    *,
    quick: bool,
    notes: Sequence[str],
    served: str | None = None,
) -> Path:
    """Write ``runs/report/<model>/index.html`` and ``numbers.csv``, and return the page's path.

    Args:
        found: Studies and cells of the card.
        cards: The model's own, then those of others.
        infos: Study -> the model.
        quick: Whether only the quick cells count.
        notes: What a reader must know first, one sentence each.
        served: What an endpoint calls the model that answered.
    """
    folder = project.runs / "report" / named(cards[0].model)
    folder.mkdir(parents=True, exist_ok=True)
    table = report_card.long(cards, found)
    partial = folder / ".numbers.csv.partial"
    tables.save(table, partial)
    partial.replace(folder / "numbers.csv")
    mine = cards[0]
    counts = [
        {
            "study": part.study,
            "title": part.protocol.title,
            "planned": len(part.plan),
            "answered": len(mine.used.get(part.study, ())),
            "declared": len(part.whole),
        }
        for part in found
    ]
    pages.write(
        folder / "index.html",
        "report.html",
        facts=report_card.facts(infos, served),
        quick=quick,
        limit=report_card.QUICK,
        notes=list(notes),
        counts=counts,
        models=[one.model for one in cards],
        sections=list(sections(cards)),
        checks=list(checks(cards)),
        width=WIDTH + 2 * MARGIN,
    )
    return folder / "index.html"


def sections(cards: Sequence[Card]) -> Iterator[dict[str, Any]]:
    """Yield the tables of the page, with rows grouped by the part of the gate that they rest on.

    Returns:
        ``title, low, high`` (ends of the scale), ``zero`` (its pixel), ``groups``.
    """
    mine = cards[0].numbers
    keys = ["study", "section", "number"]
    theirs = [one.numbers.set_index(keys) for one in cards[1:]]
    for title, rows in mine.groupby("section", sort=False):
        low, high = _scale([rows, *(one.numbers[one.numbers["section"] == title] for one in cards[1:])])

        def pixel(value: float, low: float = low, high: float = high) -> float:
            inside = min(max(value, low), high)
            return round(MARGIN + WIDTH * (inside - low) / (high - low), 1)

        yield {
            "title": title,
            "low": low,
            "high": high,
            "zero": pixel(0.0) if low < 0 < high else None,
            "groups": [
                {
                    "study": str(study).replace("_", " "),
                    "part": part,
                    "unit": group["unit"].iloc[0],
                    "gate": WORDS[group["gate"].iloc[0]],
                    "checks": group["checks"].iloc[0],
                    "rows": [
                        [
                            None if one is None else _drawn(one, pixel)
                            for one in (row, *(_found(table, [row[key] for key in keys]) for table in theirs))
                        ]
                        for row in group.to_dict("records")
                    ],
                }
                for (study, part), group in rows.groupby(["study", "part"], sort=False)
            ],
        }


def checks(cards: Sequence[Card]) -> Iterator[dict[str, Any]]:
    """Yield every check of the gates with its value for each model; None where it has none."""
    keys = ["study", "part", "check"]
    every = pd.concat([one.checks for one in cards], ignore_index=True).drop_duplicates(keys)
    tabled = [one.checks.set_index(keys) for one in cards]
    for row in every.to_dict("records"):
        values = [_found(table, [row[key] for key in keys]) for table in tabled]
        yield {
            **{key: row[key] for key in (*keys, "threshold")},
            "rule": "at least" if row["rule"] == ">=" else "at most",
            "values": [
                None if one is None or math.isnan(one["value"]) else (float(one["value"]), bool(one["passes"]))
                for one in values
            ],
        }


def _found(table: pd.DataFrame, key: list[Any]) -> dict[str, Any] | None:
    return table.loc[tuple(key)].to_dict() if tuple(key) in table.index else None


def _scale(parts: Sequence[pd.DataFrame]) -> tuple[float, float]:
    """Return the ends of a scale that shows every estimate, and intervals up to half a unit beyond."""
    estimates = pd.concat([part["estimate"] for part in parts]).astype(float).dropna()
    limits = pd.concat([part[end] for part in parts for end in ("low", "high")]).astype(float).dropna()
    if estimates.empty:
        return 0.0, 1.0
    low = min(0.0, max(limits.min() if len(limits) else 0.0, estimates.min() - 0.5))
    high = max(0.5, min(limits.max() if len(limits) else 0.0, estimates.max() + 0.5), estimates.max())
    return math.floor(low * 4) / 4, math.ceil(high * 4) / 4


def _drawn(row: Mapping[Any, Any], pixel: Callable[[float], float]) -> dict[str, Any]:
    """Return a number with the pixels of its mark and interval."""
    bounded = not math.isnan(row["low"])
    return {
        "number": row.get("number"),
        "estimate": float(row["estimate"]),
        "low": float(row["low"]),
        "high": float(row["high"]),
        "bounded": bounded,
        "n": int(row["n"]),
        "passed": row["gate"] == "passed",
        "gate": WORDS[row["gate"]],
        "checks": row["checks"],
        "x": pixel(row["estimate"]),
        "from": pixel(row["low"]) if bounded else None,
        "to": pixel(row["high"]) if bounded else None,
    }
