"""The verdict on a claim, by one rule for every study.

A study hands over what each hypothesis came to (:class:`Evidence`), by family, hypothesis and layer; :func:`table`
makes one row per claim and layer of it. Power and equivalence are always those at the claim's own smallest effect,
and power is at the level of the claim's family (:func:`level`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import pandas as pd
from scipy import stats as distributions

from persona_studies.analyse import reasons, tables
from persona_studies.analyse.stats.equivalence import equivalence_p
from persona_studies.analyse.stats.power import minimum_detectable_mean, power_mean, units_needed
from persona_studies.design.protocol import Claim, Family, Protocol

REPRODUCED = "reproduced"
SAME_DIRECTION = "same direction, not significant"
CONTRADICTED = "contradicted"
HETEROGENEOUS = "heterogeneous"
INCONCLUSIVE = "inconclusive"
UNINFORMATIVE = "uninformative"
NOT_TESTABLE = "not testable here"

SIGNS = {
    REPRODUCED: "✓",
    SAME_DIRECTION: "≈",
    CONTRADICTED: "✗",
    HETEROGENEOUS: "⇄",
    INCONCLUSIVE: "?",
    UNINFORMATIVE: "∅",
    NOT_TESTABLE: "–",
}
"""A second cue beside the words, so that nothing hangs on a colour."""

DECIDED = (REPRODUCED, CONTRADICTED, HETEROGENEOUS)
"""Verdicts that decide about a claim; the others leave it open."""

MEANINGS = {
    REPRODUCED: "the effect has the claimed sign and is significant after correction; where no effect is claimed, "
    "it is shown to be smaller than the smallest one that matters; where nothing is estimated from a sample, the "
    "number lies where the claim puts it",
    SAME_DIRECTION: "the claimed sign, but not significant; the test had a chance of 80 % to detect the smallest "
    "effect that matters, or that chance is not known",
    CONTRADICTED: "the effect is significant with the opposite sign, or shown to be smaller than the smallest one "
    "that matters; where no effect is claimed, it is significant and not shown to be so small; where nothing is "
    "estimated from a sample, the number lies elsewhere",
    HETEROGENEOUS: "models, or sets of items, move significantly in opposite directions",
    INCONCLUSIVE: "not significant, with the opposite sign or a chance below 80 % to detect the smallest effect "
    "that matters; where no effect is claimed, neither significant nor shown to be small",
    UNINFORMATIVE: "a measure behind it failed its check, also called its gate, whatever the p-value",
    NOT_TESTABLE: "what it takes is not public, or is not recorded",
}
"""One line per verdict, for the legend of a table."""

LEAST_POWER = 0.8
"""Power for the smallest effect of interest with which a test that is not significant says something."""

LAYERS = ("published", "corrected")
"""The paper's own analysis, and the declared one."""

COLUMNS = (
    *("claim", "layer", "model", "statement", "published", "hypothesis"),
    *("estimate", "low", "high", "p_adjusted", "p_equivalence", "power", "gate"),
    *("verdict", "why", "would_decide", "steerable", "details"),
)
"""Columns of a table of verdicts."""


@dataclass(frozen=True)
class Evidence:
    """What a hypothesis came to.

    Attributes:
        estimate: Effect on the scale of the claim's smallest effect of interest, compared with the claim's line.
        rejected: Whether its test was rejected within its family after correction.
        equivalent: Whether an equivalence test put the effect inside the smallest effect of interest. For a claim
            of no effect in one direction: whether a one-sided test excluded an effect of that size in it.
        power: Power of the test for the smallest effect of interest, where it can be computed.
        informative: Whether the validity gate of every measure behind it was passed.
        reason: Why not, when it was not.
        gated: Whether a measure with a validity gate stands behind it.
        low: Lower limit of the interval of the estimate.
        high: Upper limit.
        p_adjusted: p of its test, corrected within its family.
        p_equivalence: p of the equivalence test behind ``equivalent``.
        rising: Models or sets of items that move significantly upwards, each by its own corrected test.
        falling: Those that move significantly downwards.
        steerable: Whether any instruction moves the outcome beyond the fillers; None where that was not asked. A
            check beside the verdict, which it never changes.
        needed: Units with which the design would decide the claim, with a power of .8 (:func:`units_to_decide`);
            for a claim that counts tests, those with which it would come out, were estimates and spreads as found.
            Infinite where no number would, None where not known.
        unit: What they are, where the claim's own family does not say it.
        corrected: Whether ``rejected`` is after correction; only the words of the reason depend on it.
        sampled: Whether the estimate comes from a sample. Where it does not, such as the largest of some printed
            numbers, the number itself decides, and the reason says so.
        why: Words for the reason where those of the rule do not fit; at most eight.
        details: What a study's page says beside the reason.
    """

    estimate: float
    rejected: bool
    equivalent: bool = False
    power: float | None = None
    informative: bool = True
    reason: str = ""
    gated: bool = False
    low: float = math.nan
    high: float = math.nan
    p_adjusted: float = math.nan
    p_equivalence: float = math.nan
    rising: tuple[str, ...] = ()
    falling: tuple[str, ...] = ()
    steerable: bool | None = None
    needed: float | None = None
    unit: str = ""
    corrected: bool = True
    sampled: bool = True
    why: str = ""
    details: str = ""

    @classmethod
    def of(cls, row: Mapping[Any, Any], *, reason: str, **more: Any) -> Evidence:
        """Return the evidence of one row of :func:`persona_studies.analyse.families.corrected`.

        A standard error of 0 says that the estimate does not come from a sample.

        Args:
            reason: Why the measure behind it does not count; empty where it does.
            more: Further attributes.
        """
        return cls(
            estimate=float(row["estimate"]),
            low=float(row["low"]),
            high=float(row["high"]),
            p_adjusted=float(row["p_adjusted"]),
            rejected=bool(row["rejected"]),
            equivalent=bool(row["bounded"]),
            p_equivalence=float(row["p_bound_adjusted"]),
            power=None if math.isnan(row["power"]) else float(row["power"]),
            informative=not reason,
            reason=reason,
            sampled=row["se"] != 0,
            **more,
        )


Found = Mapping[tuple[str, str, str], Evidence]
"""(family, hypothesis, layer) -> what it came to."""


class Verdict(NamedTuple):
    """What a claim comes to, in the words that every reader is shown.

    Attributes:
        word: One of :data:`SIGNS`.
        why: The reason, in at most eight words.
        would_decide: Units that would decide an inconclusive claim, such as "202 questions".
        steerable: "no" where no instruction moves the outcome.
        details: What a study's page says beside it.
    """

    word: str
    why: str
    would_decide: str = ""
    steerable: str = ""
    details: str = ""


def verdict(claim: Claim, evidence: Evidence | None, *, unit: str = "items") -> Verdict:
    """Return the verdict on a claim and the reason for it.

    In this order: not testable here; uninformative (a gate failed, or the estimate is undefined); heterogeneous
    (models or sets move significantly in opposite directions); reproduced or contradicted (rejected, by sign);
    contradicted (equivalent to nothing of interest); inconclusive (the power for the smallest effect of interest is
    below :data:`LEAST_POWER`, or the sign is the opposite without being significant); same direction, not
    significant.

    A claim of no effect is reproduced by equivalence alone, contradicted by a rejection that is not equivalent,
    and otherwise inconclusive: a test that is not significant shows nothing. A claim of no effect in one direction
    ("does not improve") is decided alike by that direction alone; a significant effect in the other agrees with it.
    A claim of an effect without a direction is reproduced by either sign. ``unit`` is what the design would need
    more of, in the plural.
    """
    if claim.not_testable is not None or evidence is None:
        return Verdict(NOT_TESTABLE, claim.not_testable or "no evidence in this run", details=claim.details)
    if not evidence.informative or not math.isfinite(evidence.estimate):
        return Verdict(UNINFORMATIVE, evidence.reason or "the estimate is undefined", details=evidence.details)
    if evidence.rising and evidence.falling:
        up, down = evidence.rising, evidence.falling
        names = f"up: {', '.join(up)}; down: {', '.join(down)}"
        return Verdict(HETEROGENEOUS, f"{len(up)} significantly up, {len(down)} significantly down", details=names)
    word, why = _by_direction(claim, evidence)
    if not evidence.sampled and word in (REPRODUCED, CONTRADICTED):
        why = reasons.by_number(claim, evidence.estimate)
    units = ""
    if word == INCONCLUSIVE and evidence.needed is not None:
        units = reasons.would_decide(evidence.needed, evidence.unit or unit)
    return Verdict(word, evidence.why or why, units, "no" if evidence.steerable is False else "", evidence.details)


def units_to_decide(
    planned: float, n: float, *, direction: str, effect: float, smallest: float, detectable: float
) -> float | None:
    """Return how many units would decide a claim with a power of .8; always more than are at hand.

    Where the units at hand are as many as planned and yet decide nothing, the effect is taken to be as estimated:
    it is found, or bounded, whichever takes fewer.

    Args:
        planned: Units that find the smallest effect of interest; that bound no effect where none is claimed.
        n: Units at hand.
        direction: Of the claim.
        effect: Estimate less the claim's line.
        smallest: Smallest effect of interest.
        detectable: Effect that the units at hand find with a power of .8.

    Returns:
        Units; None where they are not known.

    >>> units_to_decide(160, 55, direction="positive", effect=0.1, smallest=0.3, detectable=0.49)
    160
    >>> units_to_decide(20, 24, direction="none", effect=0.14, smallest=0.2, detectable=0.2)
    49
    """
    if math.isnan(planned):
        return None
    if planned > n:
        return planned
    away = {"not positive": effect, "not negative": -effect}.get(direction, abs(effect))
    units = n * (detectable / max(abs(effect), smallest - away)) ** 2
    return max(math.ceil(units), n + 1) if math.isfinite(units) else None if math.isnan(units) else units


def _by_direction(claim: Claim, evidence: Evidence) -> tuple[str, str]:
    """Return verdict and reason for evidence that counts and points one way.

    An estimate on the claim's line has no sign, and agrees with neither direction.
    """
    away, effect = evidence.estimate - claim.line, f"{claim.smallest_effect or 0:g}"
    small = f"within {effect} of {claim.line:g}" if claim.line else f"smaller than {effect}"
    significant = f"significant {'after' if evidence.corrected else 'without'} correction"
    if claim.direction == "none":
        if evidence.equivalent:
            return REPRODUCED, f"shown to be {small}"
        if evidence.rejected:
            return CONTRADICTED, f"significant, not shown {small}"
        return INCONCLUSIVE, f"neither significant nor shown {small}"
    if claim.direction in ("not positive", "not negative"):
        up = claim.direction == "not positive"
        change = f"a {'rise' if up else 'fall'} of {effect}"
        if evidence.equivalent:
            return REPRODUCED, f"{change} or more is excluded"
        if evidence.rejected and (away > 0 if up else away < 0):
            return CONTRADICTED, f"{significant}, opposite to the claim"
        return INCONCLUSIVE, f"{change} neither shown nor excluded"
    as_claimed = away > 0 if claim.direction == "positive" else away < 0
    if claim.direction == "either":
        if evidence.rejected:
            return REPRODUCED, f"{significant}; the claim names no direction"
    elif evidence.rejected:
        sign = "as claimed" if as_claimed else "opposite to the claim"
        return (REPRODUCED if as_claimed else CONTRADICTED), f"{significant}, {sign}"
    if evidence.equivalent:
        return CONTRADICTED, f"shown to be {small}"
    if evidence.power is not None and evidence.power < LEAST_POWER:
        chance = tables.beside(100 * evidence.power, 100 * LEAST_POWER)[0]
        return INCONCLUSIVE, f"not significant; {chance}% chance to detect {effect}"
    if claim.direction == "either":
        return INCONCLUSIVE, f"neither significant nor shown {small}"
    if as_claimed:
        return SAME_DIRECTION, f"not {significant}"
    return INCONCLUSIVE, f"{'opposite sign' if away else 'no difference'}, not {significant}"


def level(family: Family, *, alpha: float, correction: str) -> float:
    """Return the error rate at which one hypothesis of a family is tested in the worst case.

    Holm's and Bonferroni's first step share ``alpha`` over the family; power at this level is what the design can
    promise before the data are seen. Without correction, and under Benjamini-Hochberg when all are false, it is
    ``alpha`` itself.
    """
    return alpha / family.size if correction in ("holm", "bonferroni") else alpha


def of_mean(
    claim: Claim,
    *,
    estimate: float,
    se: float,
    n: int,
    rejected: bool,
    level: float,
    alpha: float,
    **how: Any,
) -> Evidence:
    """Return the evidence of a t test of a mean, or of a mean difference, for one claim.

    Power, equivalence and the units needed are those at the claim's own smallest effect.

    Args:
        claim: Direction and smallest effect.
        estimate: Mean over units.
        se: Its standard error, in the same units.
        rejected: Whether the test was rejected within its family.
        level: Error rate of one test of the family (:func:`level`); power is at this.
        alpha: Error rate of the family. Equivalence, or that a denied effect is excluded, is at ``level`` as well:
            its p is shown times ``alpha / level``.
        how: Further fields of :class:`Evidence`.
    """
    smallest, df, effect = float(claim.smallest_effect or math.nan), n - 1, estimate - claim.line
    if not (se > 0 and smallest > 0 and df >= 1):
        return Evidence(estimate=estimate, rejected=rejected, **how)
    sd, detectable = se * n**0.5, minimum_detectable_mean(se, df, alpha=level, power=0.8)
    if claim.direction in ("not positive", "not negative"):
        sign = 1 if claim.direction == "not positive" else -1
        p = float(distributions.t.sf((smallest - sign * effect) / se, df))
        planned = units_needed(smallest, sd, alpha=2 * level)
    else:
        p = equivalence_p(effect, se, margin=smallest, df=df)
        tails = units_needed(smallest, sd, alpha=2 * level, power=0.9)
        planned = tails if claim.direction == "none" else units_needed(smallest, sd, alpha=level)
    p = min(1.0, p * alpha / level)
    needed = units_to_decide(
        planned, n, direction=claim.direction, effect=effect, smallest=smallest, detectable=detectable
    )
    return Evidence(
        estimate=estimate,
        rejected=rejected,
        equivalent=p <= alpha,
        p_equivalence=p,
        power=power_mean(smallest, se, df, alpha=level),
        needed=needed,
        **how,
    )


def table(
    protocol: Protocol,
    found: Found,
    *,
    layer: str = "both",
    model: str = "",
    absent: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return one row per claim and layer: :data:`COLUMNS`.

    A claim that no layer has evidence for keeps one row, "not testable here". A claim that names further hypotheses
    (``also``) is decided where all of them come out alike; where they contradict each other, or models do in one of
    them, it is heterogeneous.

    Args:
        found: What every hypothesis came to.
        layer: ``published``, ``corrected`` or ``both``.
        model: Whose answers the evidence rests on.
        absent: Claim -> why this run has no evidence for it, such as a measure that was not recorded.

    Raises:
        ValueError: an unknown layer.
    """
    if layer not in (*LAYERS, "both"):
        raise ValueError(f"layer is {layer!r}; known: {', '.join((*LAYERS, 'both'))}.")
    shown = LAYERS if layer == "both" else (layer,)
    rows = []
    for name, claim in protocol.claims.items():
        about: dict[str, Any] = {"claim": name, "statement": claim.statement, "published": claim.published}
        about |= {"hypothesis": claim.hypothesis or ""}
        known = [each for each in shown if (claim.family, claim.hypothesis, each) in found]
        if claim.not_testable is not None or not known:
            said = verdict(claim, None)
            why = said.why if claim.not_testable else (absent or {}).get(name, said.why)
            judged = {"verdict": NOT_TESTABLE, "why": why, "details": said.details}
            rows.append({**about, "layer": shown[-1], **judged})
            continue
        for each in known:
            parts = [found.get((str(claim.family), part, each)) for part in (str(claim.hypothesis), *claim.also)]
            first = parts[0]
            assert first is not None
            said = _together(claim, parts, protocol.families[str(claim.family)].unit)
            judged = dict(zip(COLUMNS[-5:], said, strict=True))
            numbers = {column: getattr(first, column) for column in COLUMNS[6:12]}
            gate = (first.reason or "no estimate") if not first.informative else "passed" if first.gated else ""
            rows.append({**about, "layer": each, "model": model, **numbers, "gate": gate, **judged})
    table = pd.DataFrame(rows).reindex(columns=[*COLUMNS])
    return table.fillna(dict.fromkeys(("model", "gate", *COLUMNS[-3:]), ""))


def of_models(
    protocol: Protocol,
    models: Mapping[str, Found],
    *,
    layer: str = "both",
    absent: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> pd.DataFrame:
    """Return one row per claim, layer and model, as :func:`table`; the first row of a claim and layer decides.

    Every model is judged by itself, and the first one whose gates passed decides: a claim is uninformative only
    where no model passed. It is heterogeneous where models whose gates passed move significantly in opposite
    directions. A model that cannot test a claim has a row only where no other can, and then one model has.

    Args:
        models: Whose answers -> what every hypothesis came to, in the declared order. Published data may be one.
        layer: As in :func:`table`.
        absent: Whose answers -> claim -> why there is no evidence for it.
    """

    def judged(more: Mapping[Any, dict[str, Any]]) -> pd.DataFrame:
        parts = []
        for model, found in models.items():
            mine = {key: replace(each, **more.get(key, {})) for key, each in found.items()}
            made = table(protocol, mine, layer=layer, model=model, absent=absent.get(model))
            # An empty column has no type of its own to be joined with another's.
            parts.append(made.dropna(axis="columns", how="all"))
        return pd.concat(parts, ignore_index=True).reindex(columns=[*COLUMNS])

    alone, together = judged({}), judged(_opposite(protocol, models))
    rank = {UNINFORMATIVE: 1, NOT_TESTABLE: 2}
    places = pd.DataFrame(
        {
            "claim": alone["claim"].map({name: place for place, name in enumerate(protocol.claims)}),
            "layer": alone["layer"].map(LAYERS.index),
            "verdict": alone["verdict"].map(rank).fillna(0),
        }
    )
    order = places.sort_values([*places], kind="stable").index
    alone, together = alone.loc[order], together.loc[order]
    first = ~alone.duplicated(["claim", "layer"])
    decided = [*COLUMNS[-5:]]
    alone.loc[first, decided] = together.loc[first, decided]
    return alone[(alone["verdict"] != NOT_TESTABLE) | ~alone.duplicated("claim")].reset_index(drop=True)


def _opposite(protocol: Protocol, models: Mapping[str, Found]) -> dict[Any, dict[str, Any]]:
    """Return the hypotheses that move significantly both ways in models whose gates passed, with these models."""
    lines = {(c.family, part): c.line for c in protocol.claims.values() for part in (c.hypothesis, *c.also)}
    found = {}
    for key in {key for each in models.values() for key in each}:
        moved = {name: each[key] for name, each in models.items() if key in each}
        up = {
            name: each.estimate > lines.get(key[:2], 0.0)
            for name, each in moved.items()
            if each.informative and each.rejected and each.estimate != lines.get(key[:2], 0.0)
        }
        rising, falling = (tuple(name for name, rises in up.items() if rises == way) for way in (True, False))
        if rising and falling:
            found[key] = {"rising": rising, "falling": falling}
    return found


def _together(claim: Claim, parts: Iterable[Evidence | None], unit: str) -> Verdict:
    """Return the verdict on a claim whose hypotheses must come out alike; the details say what each came to."""
    known = [*parts]
    each = [verdict(claim, part, unit=unit) for part in known]
    words = [one.word for one in each]
    if len({*words}) == 1:
        return each[0]
    word = INCONCLUSIVE
    if UNINFORMATIVE in words:
        word = UNINFORMATIVE
    elif HETEROGENEOUS in words or {REPRODUCED, CONTRADICTED} <= {*words}:
        word = HETEROGENEOUS
    own = next((key for key in (word, SAME_DIRECTION, NOT_TESTABLE) if key in words), "")
    if word == HETEROGENEOUS and own != word:
        why = ", ".join(f"{words.count(key)} {key}" for key in (REPRODUCED, CONTRADICTED))
    else:
        why = f"{words.count(own)} of {len(words)} tests {own}"
    # What has the claimed sign says nothing of units by itself; here it is what keeps the claim open.
    units = [part.needed for part, key in zip(known, words, strict=True) if part and part.needed and key == own]
    would_decide = reasons.would_decide(max(units), unit) if word == INCONCLUSIVE and units else ""
    steerable = next((one.steerable for one in each if one.word == own), "")
    return Verdict(
        word, why, would_decide, steerable, "; ".join(dict.fromkeys(f"{one.word}: {one.why}" for one in each))
    )
