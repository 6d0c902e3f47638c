"""Contrasts that a protocol declares part by part: estimated, tested, bounded and corrected by one rule.

A family is corrected twice at its declared size: over the tests of a difference, and over the tests that bound the
difference by its smallest effect of interest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from math import inf, nan, sqrt
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from scipy import special
from scipy import stats as distributions

from persona_studies.analyse import multiple_choice, verdicts
from persona_studies.analyse.stats.equivalence import equivalence_paired_proportions
from persona_studies.analyse.stats.multiplicity import Correction, correct
from persona_studies.analyse.stats.paired import mcnemar
from persona_studies.analyse.stats.power import (
    minimum_detectable_mean,
    p_of_more,
    power_mean,
    power_share,
    units_needed,
)
from persona_studies.design.protocol import Family, Hypothesis, Protocol
from persona_studies.errors import ProtocolError

Differences = Callable[[Hypothesis, str | None], pd.Series]
"""Returns the paired differences of a contrast within a part of its items, or over all of them (None).

The index of the series names a stratum first (strata weigh the same), then ``item`` and ``cluster``; a level
``set`` keeps the permutations of an interaction within sets of items.
"""

ESTIMATES = ["n", "estimate", "se", "df", "low", "high", "p", "p_bound"]
COLUMNS = [
    *("family", "hypothesis", "direction", "smallest_effect", "n", "estimate", "se", "df", "low", "high"),
    *("p", "p_adjusted", "rejected", "p_bound", "p_bound_adjusted", "bounded", "power", "detectable", "n_needed"),
]

PARTS = ("first", "second", "on", "part", "outcome")
"""What :class:`persona_studies.design.protocol.Hypothesis` declares and figures and tables name."""


@dataclass(frozen=True)
class Settings:
    """How contrasts are tested.

    Attributes:
        alpha: Error rate of every family.
        confidence: Coverage of every interval.
        correction: Within a family.
        replicates: Sign patterns and permutations.
        seed: Of them.
    """

    alpha: float
    confidence: float
    correction: Correction
    replicates: int
    seed: int

    @classmethod
    def of(cls, protocol: Protocol, *, replicates: int = 100_000, seed: int = 20260411) -> Settings:
        """Return the settings of a protocol's confirmatory run.

        Raises:
            ProtocolError: it declares none.
        """
        run = protocol.confirmatory
        if run is None:
            raise ProtocolError(f"Protocol {protocol.version} of {protocol.study} declares no confirmatory run.")
        return cls(run.alpha, run.confidence, run.correction, replicates, seed)


def contrasts(protocol: Protocol, names: Iterable[str], differences: Differences, how: Settings) -> pd.DataFrame:
    """Test every contrast of some families.

    Args:
        names: Which of them.
        differences: Paired differences of a contrast; empty where it was not asked, which counts as p = 1.

    Returns:
        One row per contrast, with :data:`COLUMNS`: as :func:`estimated`; ``p_adjusted, rejected`` (of the
        difference), ``p_bound_adjusted, bounded`` (inside the smallest effect, or a gain excluded); :func:`able`.
    """
    parts = []
    for name in names:
        family = protocol.families[name]
        parts.append(corrected(name, family, estimated(family.contrasts, differences, how), how))
    return pd.concat(parts, ignore_index=True)


def estimated(
    contrasts: Mapping[str, Hypothesis], differences: Differences, how: Settings
) -> dict[str, dict[str, Any]]:
    """Estimate contrasts.

    Returns:
        Hypothesis -> ``n`` (items), ``estimate, se, df, low, high, p`` (sign flip; for an interaction permutation),
        ``p_bound``. All but ``n`` are undefined (NaN) where a part has fewer than two items.
    """
    rows: dict[str, dict[str, Any]] = {}
    plain: dict[str, pd.Series] = {}
    for name, contrast in contrasts.items():
        within = differences(contrast, contrast.within)
        if contrast.interaction is not None:
            rows[name] = between(within, differences(contrast, contrast.interaction), how)
        else:
            plain[name] = within.dropna()
    # What was not asked keeps its place in the family, and is no column of the permutations.
    plain = {name: values for name, values in plain.items() if len(values)}
    if plain:
        rows |= _paired(pd.concat(plain, axis=1), how)
    for name, row in rows.items():
        row["p_bound"] = bound_p(
            *(row["estimate"], row["se"], row["df"]),
            margin=contrasts[name].smallest_effect,
            direction=contrasts[name].direction,
        )
    return rows


def _paired(differences: pd.DataFrame, how: Settings) -> dict[str, dict[str, Any]]:
    """Estimate mean paired differences, items x hypotheses, all with the same patterns of signs."""
    found = multiple_choice.paired(differences, confidence=how.confidence, replicates=how.replicates, seed=how.seed)
    rows = {}
    for name, row in found.to_dict("index").items():
        strata = differences[name].dropna().index.get_level_values(0).nunique()
        rows[str(name)] = {
            "n": int(row["n"]),
            "estimate": row["difference"],
            "df": max(int(row["n"]) - strata, 0),
            **{key: row[key] for key in ("se", "low", "high", "p")},
        }
    return rows


def bound_p(estimate: float, se: float, df: float, *, margin: float, direction: str) -> float:
    """Return the p-value of the test that a difference lies inside its smallest effect of interest.

    For a hypothesis of no gain (``not positive``) or no loss (``not negative``) one one-sided test, for every other
    the larger p of two (Schuirmann 1987). NaN without a standard error.

    >>> round(bound_p(-0.04, 0.02, 200, margin=0.05, direction="none"), 3)
    0.309
    >>> round(bound_p(-0.04, 0.02, 200, margin=0.05, direction="not positive"), 6)
    6e-06
    """
    if not se > 0:
        return nan
    above = float(special.stdtr(df, (estimate - margin) / se))
    below = float(special.stdtr(df, (-margin - estimate) / se))
    if direction == "not positive":
        return above
    return below if direction == "not negative" else max(above, below)


def between(one: pd.Series, other: pd.Series, how: Settings) -> dict[str, Any]:
    """Compare the differences of two parts that hold different items: an interaction.

    Interval by Welch's t; p by permuting parts among the items of each set, with that t as statistic (Janssen 1997,
    Statistics and Probability Letters 36, 9-21).

    Args:
        one: Differences in the first part, indexed as :data:`Differences` says.
        other: In the second part.

    Returns:
        ``n, estimate`` (first less second), ``se, df, low, high, p``.
    """
    values = pd.concat([one.dropna(), other.dropna()])
    first, n = len(one.dropna()), len(values)
    if first < 2 or n - first < 2:
        return {"n": n, **dict.fromkeys(ESTIMATES[1:], nan)}
    member = np.r_[np.ones(first), np.zeros(n - first)]
    sets = values.index.get_level_values("set") if "set" in values.index.names else np.zeros(n)
    rng = np.random.default_rng(how.seed)
    shuffled = np.empty((how.replicates, n))
    for label in pd.unique(np.asarray(sets)):
        mine = np.flatnonzero(np.asarray(sets) == label)
        order = rng.random((how.replicates, len(mine))).argsort(axis=1)
        shuffled[:, mine] = member[mine][order]
    estimate, se, df = (float(value[0]) for value in _welch(member[None, :], values.to_numpy(dtype=float)))
    gaps, spreads, _ = _welch(shuffled, values.to_numpy(dtype=float))
    if se < 1e-12:
        same = abs(estimate) < 1e-12
        return {"n": n, "estimate": estimate, "se": 0.0, "df": nan, "low": estimate, "high": estimate} | {
            "p": 1.0 if same else nan
        }
    # A permutation without spread is as extreme as can be, unless it has no difference either.
    t = np.divide(np.abs(gaps), spreads, out=np.where(np.abs(gaps) < 1e-12, 0.0, np.inf), where=spreads > 1e-12)
    extreme = int((t >= abs(estimate) / se * (1 - 1e-12)).sum())
    reach = float(distributions.t.ppf(0.5 + how.confidence / 2, df)) * se
    p = (extreme + 1) / (how.replicates + 1)
    return {"n": n, "estimate": estimate, "se": se, "df": df, "low": estimate - reach, "high": estimate + reach} | {
        "p": p
    }


def _welch(member: Any, values: Any) -> tuple[Any, Any, Any]:
    """Return difference of means, standard error and degrees of freedom for rows of memberships (1 and 0)."""
    k = member.sum(axis=1)
    rest = len(values) - k
    total, square = member @ values, member @ values**2
    gap = total / k - (values.sum() - total) / rest
    one = np.maximum(square / k - (total / k) ** 2, 0) / (k - 1)
    two = np.maximum((values**2).sum() - square - (values.sum() - total) ** 2 / rest, 0) / rest / (rest - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        df = (one + two) ** 2 / (one**2 / (k - 1) + two**2 / (rest - 1))
    return gap, np.sqrt(one + two), df


def corrected(name: str, family: Family, rows: Mapping[str, Mapping[str, Any]], how: Settings) -> pd.DataFrame:
    """Correct the tests of one family, and say what they could have shown.

    Args:
        family: As declared; a hypothesis without a row counts as p = 1 where the family allows it.
        rows: Hypothesis -> at least ``n, estimate, low, high, p``; further :data:`ESTIMATES` where there are any,
            and ``direction, smallest_effect`` of a hypothesis that is declared by its name alone.

    Returns:
        :data:`COLUMNS`, in the declared order.
    """
    order = list(family.hypotheses)
    empty = {"n": 0, **dict.fromkeys(ESTIMATES[1:], nan)}
    table = pd.DataFrame([{"hypothesis": h, **empty, **rows.get(h, {})} for h in order]).set_index("hypothesis")
    table = decided(table, family, how)
    declared = [family.contrasts.get(h) for h in order]
    table["family"] = name
    for said, none in (("direction", ""), ("smallest_effect", nan)):
        own = [rows.get(h, {}).get(said, none) for h in order]
        table[said] = [getattr(c, said) if c else mine for c, mine in zip(declared, own, strict=True)]
    strength = [able(row, family.size, how) for row in table.to_dict("records")]
    return table.assign(**pd.DataFrame(strength, index=table.index)).reset_index()[COLUMNS]


def decided(tests: pd.DataFrame, family: Family, how: Settings) -> pd.DataFrame:
    """Return the tests of one family with ``p_adjusted, rejected, p_bound_adjusted, bounded``."""
    made: dict[str, pd.Series] = {}
    for p, to, word in (("p", "p_adjusted", "rejected"), ("p_bound", "p_bound_adjusted", "bounded")):
        # A bound that a statistic does not have is no hole in the family.
        undefined = family.undefined if p == "p" else "one"
        done = correct(
            tests[p].astype(float), size=family.size, alpha=how.alpha, method=how.correction, undefined=undefined
        )
        made |= {to: done["p_adjusted"], word: done["rejected"]}
    return tests.assign(**made)


def declared(protocol: Protocol, tests: pd.DataFrame) -> pd.DataFrame:
    """Return tests with what their contrasts declare, so that nobody has to read it from the hypothesis.

    Args:
        tests: With ``family, hypothesis``.

    Returns:
        ``tests`` and :data:`PARTS`; None where a hypothesis is declared by its name alone.
    """
    pairs = zip(tests["family"], tests["hypothesis"], strict=True)
    found = [protocol.families[family].contrasts.get(hypothesis) for family, hypothesis in pairs]
    parts: dict[str, Any] = {part: [getattr(one, part, None) for one in found] for part in PARTS}
    return tests.assign(**parts)


def more_units(tests: pd.DataFrame, units: int, *, bound: str = "p_bound") -> pd.DataFrame:
    """Return the p-values of tests with so many units each, were estimates and spreads as found; not corrected.

    Args:
        tests: ``n, se, p``, and a column with the p of the test that an effect is small. A test without units keeps
            none; one without a standard error is of a correlation.
        units: Of every other test.
        bound: Name of that column.
    """
    # A correlation, on the scale of Fisher's z, has the standard error of a mean over three units fewer.
    lost = np.where(tests["se"].isna(), 3, 0)
    ratio = ((units - lost) / (tests["n"] - lost)).where(tests["n"] > lost)
    p, small = (
        [p_of_more(p, times, sides=sides) for p, times in zip(tests[name], ratio, strict=True)]
        for name, sides in (("p", 2), (bound, 1))
    )
    # Units that all point one way have the least p that flips of signs can give, however many they are.
    one_way = np.isclose(tests["p"], 2.0 ** (1 - tests["n"]), rtol=1e-9, atol=0)
    return tests.assign(
        n=tests["n"].where(tests["n"] == 0, units), p=np.where(one_way, 2.0 ** (1 - units), p)
    ).assign(**{bound: small})


def able(row: Mapping[Any, Any], size: int, how: Settings) -> dict[str, float]:
    """Return what a contrast could have shown, by its observed standard error and at the family's first step.

    Args:
        row: ``n, se, df, smallest_effect, direction``; ``null`` of a share that is tested exactly.
        size: Of the family: tests are at alpha / size.

    Returns:
        ``power`` (of the test of a difference, for the smallest effect), ``detectable`` (difference found with 80 %
        power), ``n_needed`` (items for 80 % power: to bound a difference that is zero where the hypothesis is that
        there is none, to find the smallest effect elsewhere).
    """
    se, margin, level = row["se"], row["smallest_effect"], how.alpha / size
    null = row.get("null", nan)
    if not se > 0 or np.isnan(margin):
        return {"power": nan, "detectable": nan, "n_needed": nan}
    if not np.isnan(null):
        return _able_share(int(row["n"]), null, -margin if row["direction"] == "negative" else margin, level)
    df = inf if np.isnan(row["df"]) else row["df"]
    tests = {"not positive": (2 * level, 0.8), "not negative": (2 * level, 0.8), "none": (2 * level, 0.9)}
    alpha, power = tests.get(row["direction"], (level, 0.8))
    return {
        "power": power_mean(margin, se, df, alpha=level),
        "detectable": minimum_detectable_mean(se, df, alpha=level, power=0.8),
        "n_needed": float(units_needed(margin, se * sqrt(row["n"]), alpha=alpha, power=power)),
    }


def _able_share(n: int, null: float, effect: float, level: float) -> dict[str, float]:
    """Return what the exact test of a share could have shown (:func:`able`)."""

    def power(units: int) -> float:
        return power_share(effect, units, null=null, alpha=level)

    sign = 1.0 if effect > 0 else -1.0
    reach = np.linspace(0, 1 - null if sign > 0 else null, 1001)
    found = [d for d in reach if power_share(sign * d, n, null=null, alpha=level) >= 0.8]
    return {
        "power": power(n),
        "detectable": float(min(found, default=nan)),
        "n_needed": float(next(units for units in count(2) if power(units) >= 0.8)),
    }


def evidence(
    tests: pd.DataFrame,
    *,
    failed: Mapping[str, str],
    stuck: Mapping[str, bool],
    lines: Mapping[str, float] = MappingProxyType({}),
) -> dict[tuple[str, str, str], verdicts.Evidence]:
    """Return what every hypothesis came to, for :func:`persona_studies.analyse.verdicts.table`.

    Args:
        tests: Families as :func:`corrected` returns them, of one model or of published data.
        failed: Family -> why the measure behind it does not count, or nothing; families that are not named rest on
            no measure. Where ``tests`` has a column ``gate``, that says it row by row.
        stuck: Family -> whether no instruction moves its outcome, which is said beside an effect that is absent.
        lines: Hypothesis -> the value that its estimate is compared with, where that is not 0.
    """
    found = {}
    for row in tests.to_dict("records"):
        family, hypothesis, n = str(row["family"]), str(row["hypothesis"]), row["n"]
        if not n and family not in failed:
            continue
        why = str(row["gate"]) if "gate" in row and family in failed else failed.get(family, "")
        if not n:
            why = why or "no set of items asked about it passed the gate"
        found[family, hypothesis, "corrected"] = verdicts.Evidence.of(
            row,
            reason=why,
            gated=family in failed,
            steerable=False if stuck.get(family) and not row["rejected"] else None,
            needed=needed(row, lines.get(hypothesis, 0.0)),
        )
    return found


def needed(row: Mapping[Any, Any], line: float = 0.0) -> float | None:
    """Return how many units would decide a claim, should it stay open.

    Args:
        row: Of :func:`corrected`.
        line: The value that its estimate is compared with.
    """
    return verdicts.units_to_decide(
        float(row["n_needed"]),
        row["n"],
        direction=str(row["direction"]),
        effect=float(row["estimate"]) - line,
        smallest=float(row["smallest_effect"]),
        detectable=float(row["detectable"]),
    )


def share(
    successes: int, n: int, *, null: float, how: Settings, direction: str = "", smallest_effect: float = nan
) -> dict[str, Any]:
    """Return a share: exact interval (Clopper and Pearson 1934) and exact binomial test of its null value.

    The standard error is that at the null value; power is exact.

    Args:
        successes: Of ``n``.
        null: Value that is tested.
        direction: Of the hypothesis, where its family declares its name alone.
        smallest_effect: Likewise, as a distance from the null value.

    >>> how = Settings(0.05, 0.95, "holm", 1000, 1)
    >>> {k: round(v, 4) for k, v in share(3, 12, null=0.5, how=how).items() if k in ("estimate", "low", "p")}
    {'estimate': 0.25, 'low': 0.0549, 'p': 0.146}
    """
    test = distributions.binomtest(successes, n, null)
    low, high = test.proportion_ci(how.confidence, method="exact")
    found = {"n": n, "estimate": successes / n, "low": float(low), "high": float(high), "p": float(test.pvalue)}
    if smallest_effect > 0:
        found |= {"se": sqrt(null * (1 - null) / n), "smallest_effect": smallest_effect, "null": null}
    return {**found, "direction": direction}


def gaps(wide: pd.DataFrame, contrast: Hypothesis) -> pd.Series:
    """Return a contrast's differences of two columns, of rows that have both; none where a column is missing."""
    if not {contrast.first, contrast.second} <= set(wide):
        return pd.Series(dtype=float, index=wide.index[:0])
    found: pd.Series = (wide[contrast.first] - wide[contrast.second]).dropna()
    return found


def discordant(first: pd.Series | np.ndarray, second: pd.Series | np.ndarray) -> tuple[int, int, int]:
    """Return how many pairs only the first gets right, how many only the second does, and all pairs."""
    return int((first & ~second).sum()), int((second & ~first).sum()), len(first)


def of_counts(b: int, c: int, n: int, *, contrast: Hypothesis, how: Settings) -> dict[str, Any]:
    """Return a difference of paired proportions: exact McNemar, Tango's interval, bound by Tango's score.

    The standard error is Wald's. Where no pair differs that is 0, as if nothing had been sampled; there it is
    Tango's at the smallest effect.

    Args:
        b: Pairs with the outcome under the first condition only.
        c: Under the second only.
        contrast: Direction and smallest effect.
    """
    if n == 0:
        return {"n": 0, **dict.fromkeys(ESTIMATES[1:], nan)}
    test, margin = mcnemar(b, c, n, confidence=how.confidence), contrast.smallest_effect
    lower, upper = equivalence_paired_proportions(b, c, n, margin=margin)
    one = {"not positive": upper, "not negative": lower}
    return {
        "n": n,
        "estimate": test.estimate,
        "se": sqrt(max(b + c - (b - c) ** 2 / n, 0)) / n if b + c else sqrt(margin * (1 - margin) / n),
        "df": nan,
        "low": test.low,
        "high": test.high,
        "p": float(distributions.binomtest(b, b + c).pvalue) if b + c else 1.0,
        "p_bound": one.get(contrast.direction, max(lower, upper)),
    }
