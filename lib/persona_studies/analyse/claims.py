"""The verdict on every claim of a protocol, from its tested families."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import Any

import pandas as pd

from persona_studies.analyse import verdicts
from persona_studies.design.protocol import Claim, Protocol

COLUMNS = [
    *("claim", "statement", "published", "family", "hypothesis", "n", "estimate", "low", "high", "p_adjusted"),
    *("p_bound_adjusted", "power", "detectable", "n_needed", "verdict", "why"),
]


def decided(
    protocol: Protocol, tests: pd.DataFrame, *, failed: Mapping[str, str], not_steerable: Mapping[str, str]
) -> pd.DataFrame:
    """Return the verdict on every claim.

    A claim with further hypotheses (``also``) is decided where all of them come out alike, and else inconclusive.

    Args:
        protocol: Claims.
        tests: Families as :func:`persona_studies.analyse.families.corrected` returns them.
        failed: Family -> why the measure behind it does not count, or nothing; families that are not named rest on
            no measure.
        not_steerable: Family -> what no instruction moved, which is said beside a verdict that an effect is absent.

    Returns:
        :data:`COLUMNS`; numbers are those of the claim's first hypothesis.
    """
    found = tests.set_index(["family", "hypothesis"])
    rows = []
    for name, claim in protocol.claims.items():
        mine = [row for h in (claim.hypothesis, *claim.also) if (row := _row(found, claim, h, failed)) is not None]
        said = [verdict(claim, row, failed) for row in mine] or [verdicts.verdict(claim, None)]
        (word, why), row = said[0], mine[0] if mine else {}
        if len({other for other, _ in said}) > 1:
            word = verdicts.INCONCLUSIVE
            why = "; ".join(f"{r['hypothesis']}: {other}" for r, (other, _) in zip(mine, said, strict=True))
        if word in (verdicts.INCONCLUSIVE, verdicts.SAME_DIRECTION) and row and row["n_needed"] > row["n"]:
            why += f"; {row['n_needed']:,.0f} items would decide it, {row['n']:,.0f} were asked"
        absent = word in (verdicts.REPRODUCED, verdicts.CONTRADICTED, verdicts.INCONCLUSIVE) and not (
            row and row["rejected"]
        )
        if absent and (held := not_steerable.get(claim.family or "")):
            why += f"; not steerable: {held}"
        rows.append(
            {
                "claim": name,
                **{key: getattr(claim, key) or "" for key in ("statement", "published", "family", "hypothesis")},
                **{key: row.get(key, nan) for key in COLUMNS[5:14]},
                "verdict": word,
                "why": why,
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(
    found: pd.DataFrame, claim: Claim, hypothesis: str | None, failed: Mapping[str, str]
) -> dict[Any, Any] | None:
    """Return a claim's hypothesis as tested, or None where the run has nothing to say about it.

    A contrast without items says that none of its sets passed the gate, where it rests on a measure.
    """
    if (claim.family, hypothesis) not in found.index:
        return None
    row = found.xs((claim.family, hypothesis)).to_dict()
    return {**row, "hypothesis": hypothesis} if row["n"] > 0 or claim.family in failed else None


def verdict(claim: Claim, row: Mapping[str, Any], failed: Mapping[str, str]) -> tuple[str, str]:
    """Return the verdict of one hypothesis on its claim."""
    why = failed.get(claim.family or "", "")
    if not row["n"]:
        why = why or "no set of items that this contrast is about passed the gate, or was asked"
    return verdicts.verdict(
        claim,
        verdicts.Evidence(
            estimate=float(row["estimate"]),
            rejected=bool(row["rejected"]),
            equivalent=bool(row["bounded"]),
            power=None if pd.isna(row["power"]) else float(row["power"]),
            informative=not why,
            reason=why,
        ),
    )
