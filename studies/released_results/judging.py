"""From tests to a verdict on every claim, by the rules of the protocol."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from math import inf, isnan, nan
from typing import Any

import numpy as np
import pandas as pd

from persona_studies.analyse import families, reasons, tables, verdicts
from persona_studies.analyse.claims import PUBLISHED_DATA
from persona_studies.analyse.stats.correlation import power_correlation
from persona_studies.analyse.stats.power import minimum_detectable_mean, power_mean, units_needed, units_that_decide
from persona_studies.analyse.verdicts import Verdict
from persona_studies.design.protocol import Claim, Family, Protocol
from persona_studies.paths import Project
from released_results.analysis import ADDED, corrected
from released_results.design import Parameters

SHOWN = (
    *("n", "printed", "estimate", "low", "high", "test", "p", "family_size", "p_adjusted", "p_global"),
    *("minimum_detectable", "margin", "p_equivalence"),
)
ELSEWHERE = "judged in persona_choice"
SAID = ("statement", "published", "verdict", "why", "would_decide")
LEFT_OUT = Verdict(verdicts.NOT_TESTABLE, "left out by the parameter sources")


def smallest_effect(claim: Claim, row: Mapping[Any, Any]) -> float:
    """Return the smallest effect of interest: the parameters' margin on its scale, or else the claim's own."""
    margin = row.get("margin", nan)
    return float(claim.smallest_effect or 0.0) if pd.isna(margin) else float(margin)


def power(row: Mapping[Any, Any], effect: float, family: Family, parameters: Parameters) -> float | None:
    """Return the power of a test for an effect, at alpha over the size of its family.

    By the normal distribution, or for a correlation by its own; None where a correlation has too few units.
    """
    alpha = verdicts.level(family, alpha=parameters.alpha, correction=parameters.correction)
    if pd.isna(row["se"]):
        found = power_correlation(effect, int(row["n"]), alpha=alpha)
        return None if isnan(found) else found
    return power_mean(effect, float(row["se"]), inf, alpha=alpha)


def units(row: Mapping[Any, Any], claim: Claim, family: Family, parameters: Parameters) -> float | None:
    """Return the units with which a test would decide a claim: the smallest effect found, or bounded."""
    level = verdicts.level(family, alpha=parameters.alpha, correction=parameters.correction)
    none, effect = claim.direction == "none", float(row["estimate"])
    n, se, margin, lost = int(row["n"]), float(row["se"]), smallest_effect(claim, row), 0
    if isnan(se):
        # Correlations, on the scale of Fisher's z.
        effect, se, margin, lost = np.arctanh(effect), (n - 3) ** -0.5, np.arctanh(margin), 3
    # Equivalence is not corrected here, as the parameters say.
    tails = {"alpha": 2 * parameters.alpha, "power": 0.9} if none else {"alpha": level, "power": 0.8}
    return verdicts.units_to_decide(
        units_needed(margin, se * (n - lost) ** 0.5, **tails) + lost,
        n,
        direction=claim.direction,
        effect=effect,
        smallest=margin,
        detectable=minimum_detectable_mean(se, inf, alpha=level, power=0.8),
    )


def evidence(row: Mapping[Any, Any], claim: Claim, family: Family, parameters: Parameters) -> verdicts.Evidence:
    """Return what one test came to."""
    return verdicts.Evidence(
        estimate=float(row["estimate"]),
        rejected=bool(row["rejected"]),
        equivalent=bool(row["p_equivalence"] <= parameters.alpha),
        power=power(row, smallest_effect(claim, row), family, parameters),
        needed=units(row, claim, family, parameters),
        unit=family.unit,
        corrected=parameters.layer == "corrected",
    )


def about_set(
    claim: Claim, tests: pd.DataFrame, which: pd.Series, protocol: Protocol, parameters: Parameters
) -> Verdict:
    """Return the verdict on a claim about several tests, by the rule that the protocol's ``design.sets`` states.

    One that stays open says with how many units in each test the same rule would decide, were estimates and spreads
    as found.

    Args:
        tests: All tests of one family, which are corrected together.
        which: Those that the claim is about.
    """
    said, counted = _counted(claim, tests[which])
    if said != verdicts.INCONCLUSIVE:
        return Verdict(said, counted)

    def decides(units: int) -> bool:
        more = families.more_units(tests, units, bound="p_equivalence")
        again = corrected(more.drop(columns=[*ADDED], errors="ignore"), protocol, parameters)
        return _counted(claim, again[which.to_numpy()])[0] in verdicts.DECIDED

    needed = units_that_decide(decides, int(tests.loc[which, "n"].max()))
    return Verdict(said, counted, reasons.would_decide(needed, protocol.families[tests["family"].iloc[0]].unit))


def _counted(claim: Claim, members: pd.DataFrame) -> tuple[str, str]:
    n = len(members)
    equal, rejected = members["equivalent"].astype(bool), members["rejected"].astype(bool)
    if claim.direction == "none":
        against = int((rejected & ~equal).sum())
        counted = reasons.counted(int(equal.sum()), n, against, none=True)
        if equal.all():
            return verdicts.REPRODUCED, counted
        return (verdicts.CONTRADICTED if against else verdicts.INCONCLUSIVE), counted
    claimed = members["estimate"] > 0 if claim.direction == "positive" else members["estimate"] < 0
    for_it, against = int((rejected & claimed).sum()), int((rejected & ~claimed).sum())
    counted = reasons.counted(for_it, n, against)
    if for_it and against:
        return verdicts.HETEROGENEOUS, counted
    if against or equal.all():
        return verdicts.CONTRADICTED, counted if against else reasons.counted(n, n, 0, none=True)
    if for_it > n / 2:
        return verdicts.REPRODUCED, counted
    return (verdicts.SAME_DIRECTION if claimed.all() else verdicts.INCONCLUSIVE), counted


def about_description(claim: Claim, row: Mapping[Any, Any], parameters: Parameters) -> Verdict:
    """Return the verdict on a claim that no test decides, by the purpose of the family ``described``.

    Printed numbers may contradict a claim about themselves, and an equivalence test may contradict an effect.
    Otherwise limits on the claimed side of 0 make it the same direction, and anything else inconclusive.
    """
    if claim.direction == "none":
        off = abs(row["estimate"]) > (claim.smallest_effect or 0.0)
        said = reasons.by_number(claim, float(row["estimate"]))
        return Verdict(verdicts.CONTRADICTED if off else verdicts.REPRODUCED, said)
    if row["p_equivalence"] <= parameters.alpha:
        return Verdict(verdicts.CONTRADICTED, f"shown to be smaller than {claim.smallest_effect:g}")
    sign = 1 if claim.direction == "positive" else -1
    limits = "the cells' range" if "range" in row["test"] else "its interval"
    if min(sign * row["low"], sign * row["high"]) > 0:
        return Verdict(verdicts.SAME_DIRECTION, f"no test; {limits} lies as claimed")
    # Without a test nothing is decided, whatever the number of units.
    units = reasons.would_decide(inf, f"{row['unit']}s")
    return Verdict(verdicts.INCONCLUSIVE, f"no test; {limits} includes 0", units)


def deciding(claim: Claim, members: pd.DataFrame) -> dict[Any, Any]:
    """Return the test that stands for a set: the smallest p for a claim of no effect, else the median estimate."""
    key = "p" if claim.direction == "none" else "estimate"
    ordered = members.sort_values(key, kind="stable")
    return dict(ordered.iloc[0 if claim.direction == "none" else (len(ordered) - 1) // 2])


def _judge(
    claim: Claim, tests: pd.DataFrame, described: pd.DataFrame, protocol: Protocol, parameters: Parameters
) -> tuple[Verdict, dict[Any, Any]]:
    """Return the verdict, and the row that stands for it."""
    if claim.not_testable is not None:
        return verdicts.verdict(claim, None), {}
    if claim.family == "sets":
        kind = protocol.design["sets"][claim.hypothesis]
        named = tests["hypothesis"].map(lambda name: fnmatchcase(name, kind["members"]))
        mine = tests["family"] == kind["family"]
        which = named[mine].astype(bool)
        if not which.any():
            return LEFT_OUT, {}
        return about_set(claim, tests[mine], which, protocol, parameters), deciding(claim, tests[mine][which])
    known = described if claim.family == "described" else tests
    mine = known[(known["family"] == claim.family) & (known["hypothesis"] == claim.hypothesis)]
    if mine.empty:
        return LEFT_OUT, {}
    row = dict(mine.iloc[0])
    own = claim.model_copy(update={"smallest_effect": smallest_effect(claim, row)})
    if claim.family == "described":
        return about_description(own, row, parameters), row
    return verdicts.verdict(own, evidence(row, own, protocol.families[str(own.family)], parameters)), row


def verdict_table(
    protocol: Protocol,
    tests: pd.DataFrame,
    described: pd.DataFrame,
    recomputed: Mapping[str, str],
    details: Mapping[str, str],
    parameters: Parameters,
) -> pd.DataFrame:
    """Return one row per claim: the test that stands for it, the verdict and why.

    Args:
        tests: Of :func:`released_results.analysis.corrected`.
        described: Estimates that are no tests.
        recomputed: Claim -> the printed numbers, recomputed.
        details: Claim -> what to add to the rule's own words.
    """
    described = described[described["source"].isin(parameters.sources)]
    rows = []
    for name, claim in protocol.claims.items():
        said, row = _judge(claim, tests, described, protocol, parameters)
        rows.append(
            {
                "claim": name,
                "source": claim.source.partition(",")[0],
                "layer": parameters.layer,
                "statement": claim.statement,
                "published": claim.published,
                "model": PUBLISHED_DATA if row else "",
                "recomputed": recomputed.get(name, ""),
                "hypothesis": row.get("hypothesis", ""),
                "unit_of_test": row.get("unit", ""),
                **{key: row.get(key, nan) for key in SHOWN},
                "verdict": said.word,
                "why": said.why,
                "would_decide": said.would_decide,
                "details": details.get(name, "") if row else said.details,
            }
        )
    return pd.DataFrame(rows).astype({"n": "Int64", "family_size": "Int64"})


def elsewhere(project: Project, protocol: Protocol) -> pd.DataFrame:
    """Return the verdicts on claims of two papers that another study judges, from its committed results.

    A claim's rows are those whose name is the declared one, or begins with it and an underscore. Until that study
    has results, the verdict says where the claim is judged.

    Returns:
        ``claim, statement, published, verdict, why, would_decide``.
    """
    path = project.results("persona_choice") / "verdicts.csv"
    known = tables.load(path) if path.is_file() else pd.DataFrame(columns=["claim"])
    rows: list[dict[Any, Any]] = []
    for name, declared in protocol.design["elsewhere"].items():
        found = known[(known["claim"] == name) | known["claim"].str.startswith(f"{name}_")]
        if found.empty:
            rows.append({"claim": name, **declared, "verdict": ELSEWHERE, "why": "that study has no results yet"})
        rows += found.reindex(columns=["claim", *SAID]).to_dict("records")
    return pd.DataFrame(rows)


def tally(judged: pd.DataFrame) -> pd.DataFrame:
    """Count the verdicts by paper: ``source`` and one column per verdict, in the order of their definition."""
    counts = pd.crosstab(judged["source"], judged["verdict"])
    order = [name for name in verdicts.SIGNS if name in counts]
    return counts[order].loc[judged["source"].unique()].rename_axis(columns=None).reset_index()


def by_family(tests: pd.DataFrame, protocol: Protocol, parameters: Parameters) -> pd.DataFrame:
    """Count decisions by family: uncorrected, within the family, over all tests; and equivalent ones."""
    rows = []
    for name, found in tests.groupby("family", sort=False):
        rows.append(
            {
                "family": name,
                "size": protocol.families[str(name)].size,
                "p_below_alpha": int((found["p"] <= parameters.alpha).sum()),
                "significant": int(found["rejected"].sum()),
                "significant_globally": int(found["rejected_global"].sum()),
                "negative": int((found["estimate"] < 0).sum()),
                "equivalent": int(found["equivalent"].sum()),
                "largest_detectable": float(np.nanmax(found["minimum_detectable"])),
            }
        )
    columns = ["family", "size", "p_below_alpha", "significant", "significant_globally", "negative", "equivalent"]
    return pd.DataFrame(rows, columns=[*columns, "largest_detectable"])
