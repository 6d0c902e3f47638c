"""The live part: which answer a model chooses for a person, and what the choice follows."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from persona_choice import judge
from persona_choice.design import CONTROLS
from persona_studies.analyse import families, gates, multiple_choice
from persona_studies.analyse.families import Settings
from persona_studies.analyse.stats.calibration import calibration_bins
from persona_studies.analyse.stats.power import minimum_detectable_mean, power_mean
from persona_studies.ask import responses
from persona_studies.design.protocol import Hypothesis, Protocol

FAMILIES = ("choice", "probability", "beyond_length")
ORDER = ("none", "full", "key", "age", "placebo", "shuffled", "filler", *CONTROLS)


@dataclass(frozen=True)
class Analysis:
    """What one model's recording comes to.

    Attributes:
        measure: The measure of the choice.
        scored: Of :func:`scores`.
        gate: Checks of the measure.
        moves: Whether the positive control moves the choice, as the gate's checks.
        tests: The families of the live part.
    """

    measure: str
    scored: pd.DataFrame
    gate: pd.DataFrame
    moves: pd.DataFrame
    tests: pd.DataFrame


def analyse(
    protocol: Protocol, recorded: pd.DataFrame, asked: pd.DataFrame, measure: str, how: Settings
) -> Analysis:
    """Run the declared analysis of one recording.

    Args:
        measure: ``letter`` or ``cloze``.
    """
    scored = scores(recorded, asked, measure)
    checks = gate(protocol, scored, recorded, measure)
    return Analysis(measure, scored, checks, moves(protocol, scored, measure), tests(protocol, scored, how))


def scores(recorded: pd.DataFrame, asked: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Score every pair under every condition; position cancels over both orders.

    Args:
        measure: Of the choice; the probability of an answer is averaged over its two places.

    Returns:
        ``condition, item, respondent, conversation, gold, longer, chosen`` (0 or 1, as released), ``right`` (bool),
        ``p_gold, p_first`` (probability of the released first answer), ``p_longer`` (NaN where none is longer),
        ``option_mass``.
    """
    mine = recorded[recorded["measure"] == measure]
    pairs = asked.drop(columns=[name for name in asked if str(name).endswith("_hash")]).assign(n_options=2)
    found = multiple_choice.choices(mine.assign(measure="letter"), pairs, "letter")
    first = np.where(found["gold"] == 0, found["score"], 1 - found["score"])
    longer = np.where(found["longer"] == 0, first, np.where(found["longer"] == 1, 1 - first, nan))
    columns = ["condition", "item", "respondent", "conversation", "gold", "longer", "chosen"]
    made = found[columns].assign(
        right=found["correct"] == 1,
        p_gold=found["score"],
        p_first=first,
        p_longer=longer,
        option_mass=found["option_mass"],
    )
    rank = made["condition"].map({name: place for place, name in enumerate(ORDER)})
    return made.iloc[np.argsort(rank, kind="stable")].reset_index(drop=True)


def places(recorded: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Return what the place decides: ``condition, item, first_place`` (P of what stands first) and ``same``.

    ``same`` says whether the same place wins in every order that was asked: the choice then follows the place, not
    the answer. With one order it says nothing and is NaN.
    """
    mine = recorded[recorded["measure"] == measure]
    logprob = responses.matrix(mine)
    with np.errstate(invalid="ignore"):
        first = 1 / (1 + np.exp(logprob[:, 1] - logprob[:, 0]))
    cells = mine[["condition", "item", "order"]].assign(first_place=first, wins=first > 0.5)
    grouped = cells.groupby(["condition", "item"], sort=False)
    found = grouped.agg(first_place=("first_place", "mean"), wins=("wins", "mean"), orders=("order", "size"))
    same = found["wins"].isin([0.0, 1.0]).astype(float).where(found["orders"] > 1)
    return found.assign(same=same)[["first_place", "same"]].reset_index()


def gate(protocol: Protocol, scored: pd.DataFrame, recorded: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Check a measure: ``check, value, rule, threshold, passes``."""
    placed = places(recorded, measure)
    values = {
        "option_mass": float(scored.loc[scored["condition"] == "none", "option_mass"].mean()),
        "same_place": float(placed.loc[placed["condition"] == "none", "same"].mean()),
    }
    return gates.declared(protocol.measures[measure].gate, values)


def moves(protocol: Protocol, scored: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Check whether what is said moves the choice: P(longer) told "the longer", less told "the shorter"."""
    longer = scored.groupby("condition")["p_longer"].mean()
    values = {"control": float(longer.get("longer", nan) - longer.get("shorter", nan))}
    return gates.declared(protocol.design["steerability"][measure], values)


def tests(protocol: Protocol, scored: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Test the families of the live part, as :func:`persona_studies.analyse.families.corrected` returns them."""
    right = scored.pivot(index="item", columns="condition", values="right")
    wide = scored.assign(stratum="pairs").pivot(
        index=["stratum", "item", "respondent"], columns="condition", values="p_gold"
    )
    wide.index = wide.index.set_names("cluster", level="respondent")
    once = scored.drop_duplicates("item").set_index("item")
    right["longer answer"] = (once["longer"] == once["gold"]).where(once["longer"] >= 0)

    def differences(contrast: Hypothesis, part: str | None) -> pd.Series:
        if not {contrast.first, contrast.second} <= set(wide):
            return pd.Series(dtype=float, index=wide.index[:0])
        found: pd.Series = (wide[contrast.first] - wide[contrast.second]).dropna()
        return found

    parts = [families.contrasts(protocol, ["probability"], differences, how)]
    parts += [judge.exact(protocol, name, right, how) for name in ("choice", "beyond_length")]
    return pd.concat(parts, ignore_index=True)


def conditions(recorded: pd.DataFrame, scored: pd.DataFrame, measure: str, how: Settings) -> pd.DataFrame:
    """Return what the choice follows, condition by condition.

    Returns:
        ``condition, n, right, low, high`` (share of pairs whose debiased choice is the answer rated best; Wilson),
        ``p_gold``, ``longer_right`` (what choosing the longer answer would score on the same pairs),
        ``picks_longer`` (share of debiased choices), ``first_place`` (mean probability of the answer in the first
        place), ``same_place`` (share of pairs where one place wins in both orders), ``as_none`` (share of pairs
        chosen as without a persona).
    """
    placed = places(recorded, measure).groupby("condition")[["first_place", "same"]].mean().to_dict("index")
    none = scored[scored["condition"] == "none"].set_index("item")["chosen"]
    rows = []
    for condition, part in scored.groupby("condition", sort=False):
        k, n = int(part["right"].sum()), len(part)
        low, high = proportion_confint(k, n, alpha=1 - how.confidence, method="wilson")
        unequal = part[part["longer"] >= 0]
        row = {"condition": condition, "n": n, "right": k / n, "low": low, "high": high}
        row |= {"p_gold": part["p_gold"].mean(), "longer_right": (unequal["longer"] == unequal["gold"]).mean()}
        row |= {"picks_longer": (unequal["chosen"] == unequal["longer"]).mean()}
        row |= {"first_place": placed[condition]["first_place"], "same_place": placed[condition]["same"]}
        shared = part[part["item"].isin(none.index)]
        rows.append(row | {"as_none": (shared["chosen"] == shared["item"].map(none)).mean()})
    return pd.DataFrame(rows)


def finding(chosen: pd.DataFrame, model: str) -> str:
    """Say what a model's choice follows, without a full stop.

    Args:
        chosen: Of :func:`conditions`.
    """
    by = chosen.set_index("condition")
    none = by.loc["none"]
    if "full" not in by.index:
        return (
            f"{model}, asked here without a profile, picks the answer rated best in {none['right']:.0%} of "
            f"{none['n']:.0f} pairs; the longer answer alone is that in {none['longer_right']:.0%}"
        )
    full, other = by.loc["full"], by["right"].get("shuffled")
    beside = f"without a profile {none['right']:.0%}" + (f", with another person's {other:.0%}" if other else "")
    return (
        f"{model}, asked here with the person's whole profile, picks the answer rated best in {full['right']:.0%} "
        f"[{full['low']:.0%}, {full['high']:.0%}] of {full['n']:.0f} pairs ({beside}); the longer answer alone is "
        f"that in {none['longer_right']:.0%}. It chooses as without a profile in {full['as_none']:.0%} of pairs, "
        f"and the longer answer in {full['picks_longer']:.0%}; one place wins in both orders in "
        f"{full['same_place']:.0%}"
    )


def calibration(scored: pd.DataFrame) -> pd.DataFrame:
    """Return how certainty fits being right: ``condition, n, brier, auroc, certainty``.

    The Brier score is that of the probability of the released first answer; a constant .5 scores .25. AUROC is that
    of |P - .5| for being right; NaN where all choices are right, or all wrong.
    """
    rows = []
    for condition, part in scored.groupby("condition", sort=False):
        certainty, right = (part["p_first"] - 0.5).abs(), part["right"]
        area = float(roc_auc_score(right, certainty)) if right.nunique() == 2 else nan
        row = {"condition": condition, "n": len(part), "brier": ((1 - part["p_gold"]) ** 2).mean()}
        rows.append(row | {"auroc": area, "certainty": certainty.mean()})
    return pd.DataFrame(rows)


def bins(scored: pd.DataFrame) -> pd.DataFrame:
    """Return stated against observed share of the released first answer, in ten bins, condition by condition."""
    parts = [
        calibration_bins(part["p_first"], (part["gold"] == 0).astype(int), bins=10).assign(condition=condition)
        for condition, part in scored.groupby("condition", sort=False)
    ]
    return pd.concat(parts, ignore_index=True)[["condition", "low", "high", "n", "probability", "frequency", "gap"]]


def layouts(recorded: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
    """Compare pair first with profile first on the pairs that have both: shares right, and agreement."""
    one, other = (scores(recorded, asked, measure) for measure in ("letter", "letter_profile_first"))
    both = one.merge(other, on=["condition", "item"], suffixes=("", "_profile_first"))
    grouped = both.assign(agree=both["chosen"] == both["chosen_profile_first"]).groupby("condition", sort=False)
    return grouped.agg(
        n=("item", "size"),
        pair_first=("right", "mean"),
        profile_first=("right_profile_first", "mean"),
        agree=("agree", "mean"),
    ).reset_index()


def power(
    discordance: tuple[float, ...], pairs: tuple[int, ...], margin: float, how: Settings, size: int
) -> pd.DataFrame:
    """Return what a paired design can show: ``discordance, n, detectable, detectable_family, equivalence``.

    Args:
        discordance: Shares of pairs that two conditions decide differently.
        pairs: Numbers of pairs.
        size: Of the family; its first step is at alpha over this.

    Returns:
        Smallest difference found with 80 % power at alpha, and at the first step of the family; power of the
        equivalence test for a true difference of 0. The standard error is sqrt(discordance / n).
    """
    rows = []
    for share in discordance:
        for n in pairs:
            se = float(np.sqrt(share / n))
            inside = 2 * power_mean(margin, se, np.inf, alpha=2 * how.alpha) - 1
            row = {"discordance": share, "n": n, "equivalence": max(inside, 0.0)}
            for name, level in (("detectable", how.alpha), ("detectable_family", how.alpha / size)):
                row[name] = minimum_detectable_mean(se, np.inf, alpha=level, power=0.8)
            rows.append(row)
    return pd.DataFrame(rows)
