"""The declared contrasts under other readings of the same answers, and what the design can detect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from clinical_personas.analysis import CASES, VALUES, by_case, differences
from persona_studies.analyse import families
from persona_studies.analyse.families import Settings
from persona_studies.analyse.stats.power import power_mean
from persona_studies.design.protocol import Protocol


def readings(protocol: Protocol, scored: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Return the hypotheses behind the claims about cases under other readings of the same answers.

    Returns:
        ``hypothesis, reading, n`` (cases), ``estimate, low, high, p`` (not corrected); a set of cases, or a place
        of one, that is left out is a reading.
    """
    wanted = {}
    for claim in protocol.claims.values():
        contrasts = protocol.families[claim.family].contrasts if claim.family else {}
        contrast = contrasts.get(str(claim.hypothesis))
        if contrast is not None and contrast.measure == "letter":
            wanted[str(claim.hypothesis)] = contrast
    fewer = replace(how, replicates=min(how.replicates, 5_000))
    rows: list[dict[str, Any]] = []
    for reading, outcomes, cells in _readings(scored[scored["dataset"].isin(CASES)]):
        wide = {outcome: by_case(cells, VALUES[outcome]) for outcome in outcomes}
        mine = {name: contrast for name, contrast in wanted.items() if contrast.outcome in outcomes}
        for name, row in families.estimated(mine, differences(wide), fewer).items():
            if np.isfinite(row["estimate"]):
                kept = {key: row[key] for key in ("n", "estimate", "low", "high", "p")}
                rows.append({"hypothesis": name, "reading": reading, **kept})
    order = {name: place for place, name in enumerate(wanted)}
    return pd.DataFrame(rows).sort_values(
        "hypothesis", key=lambda names: names.map(order), kind="stable", ignore_index=True
    )


def _readings(cells: pd.DataFrame) -> Iterator[tuple[str, list[str], pd.DataFrame]]:
    """Yield a reading, the outcomes that it is about, and its cells."""
    every = list(VALUES)
    yield "as declared", every, cells
    sets = [name for name in CASES if name in set(cells["dataset"])]
    for name in sets if len(sets) > 1 else []:
        yield f"{CASES[name]} alone", every, cells[cells["dataset"] == name]
    for name in sets:
        for gold in sorted(cells.loc[cells["dataset"] == name, "gold"].unique()):
            kept = cells[(cells["dataset"] != name) | (cells["gold"] != gold)]
            yield f"without {CASES[name]} of place {gold + 1}", every, kept
    yield "second wording alone", every, cells[cells["wording"] == 2]
    yield "likeliest option in place of probability", ["accuracy"], cells.assign(score=cells["correct"])
    odds = np.log(cells["score"].astype(float)) - np.log1p(-cells["score"].astype(float))
    yield "log-odds of the right option (nats)", ["accuracy"], cells.assign(score=odds)


def power_curve(protocol: Protocol, tests: pd.DataFrame, effects: Any, level: float) -> pd.DataFrame:
    """Return the power of the physician's contrasts with the assistant, at the spread that was observed.

    Args:
        effects: True differences in accuracy.
        level: Error rate of one test.

    Returns:
        ``contrast`` (critical, primary, critical - primary), ``n, effect, power``.
    """
    care = families.declared(protocol, tests[tests["family"] == "care"])
    mine = care[care["first"] == "physician"]
    rows = [
        (row["part"], row["n"], effect, power_mean(effect, row["se"], row["df"], alpha=level))
        for row in mine[mine["se"] > 0].to_dict("records")
        for effect in effects
    ]
    return pd.DataFrame(rows, columns=["contrast", "n", "effect", "power"])
