"""What is reported beside the tests: accuracy, triage errors and their cost, risk by style, calibration, agreement.

Everything rests on the probabilities that letters give to the options of a case, averaged over all option orders; a
persona's wordings are averaged within the case. Definitions are the protocol's.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import nan
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.weightstats import DescrStatsW

from clinical_personas.analysis import CASES, REFERENCE
from clinical_personas.design import Parameters
from persona_studies.analyse.families import Settings
from persona_studies.analyse.stats.agreement import cohen_kappa, gwet_ac, krippendorff_alpha, raw_agreement
from persona_studies.analyse.stats.calibration import calibration_bins, expected_calibration_error
from persona_studies.analyse.stats.resampling import cluster_bootstrap

ROLES = ("none", REFERENCE, "physician", "nurse")


def mean_interval(values: Any, confidence: float) -> tuple[float, float, float]:
    """Return a mean with Student's interval; the interval is undefined for fewer than two values."""
    known = pd.Series(values, dtype=float).dropna().to_numpy()
    if len(known) < 2:
        return (float(known.mean()) if len(known) else nan), nan, nan
    low, high = DescrStatsW(known).tconfint_mean(1 - confidence)
    return float(known.mean()), float(low), float(high)


def groups(scored: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield data set, who, and cells of every group."""
    for (dataset, who), group in scored.groupby(["dataset", "who"], sort=False):
        yield str(dataset), str(who), group


def neutral(scored: pd.DataFrame) -> pd.DataFrame:
    """Return the cells of the four roles in neutral style."""
    return scored[scored["role"].isin(ROLES) & (scored["style"] == "neutral")]


def of_cases(scored: pd.DataFrame) -> pd.DataFrame:
    """Return the cells of vignettes and emergency cases."""
    return scored[scored["dataset"].isin(CASES)]


# --- Accuracy and errors ---


def accuracy(scored: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Return accuracy by data set and who.

    Returns:
        ``dataset, who, role, style, n`` (cases or questions), ``accuracy, low, high`` (probability of the right
        option, Student's t), ``likeliest`` (share whose likeliest option is right), ``chance``, ``base_rate``
        (share of the commonest place; cases only).
    """
    rows = []
    for dataset, who, group in groups(scored):
        each = group.groupby("item")[["score", "correct"]].mean()
        items = group.drop_duplicates("item")
        value, low, high = mean_interval(each["score"], confidence)
        row: dict[str, Any] = {"dataset": dataset, "who": who}
        row |= {"role": group["role"].iloc[0], "style": group["style"].iloc[0], "n": len(each)}
        row |= {"accuracy": value, "low": low, "high": high, "likeliest": float(each["correct"].mean())}
        base = float(items["gold"].value_counts(normalize=True).max()) if dataset in CASES else nan
        rows.append(row | {"chance": float((1 / items["n_options"]).mean()), "base_rate": base})
    return pd.DataFrame(rows)


def cost(error: Any, ratio: float) -> Any:
    """Return the cost per case: places of under-triage times the ratio, plus places of over-triage, over ratio + 1.

    >>> cost(np.array([-1, 0, 2]), 3.0).tolist()
    [0.25, 0.0, 1.5]
    """
    return (ratio * np.maximum(error, 0) + np.maximum(-error, 0)) / (ratio + 1)


def errors(scored: pd.DataFrame, parameters: Parameters) -> pd.DataFrame:
    """Return how likely each kind of triage error is.

    Returns:
        ``dataset, who, n``; mean probabilities over cases with Student's limits: ``under, over, severe`` (under by
        two places or more); ``missed`` (of critical cases, a primary place); ``cost`` at the cost ratio, and
        ``relative_cost``, over that of the best constant answer: above 1 one would do better without the case.
    """
    rows = []
    for dataset, who, group in groups(of_cases(scored)):
        kinds = []
        for p, gold in zip(group["probability"], group["gold"], strict=True):
            step = np.arange(len(p)) - gold
            shares = [p[which].sum() for which in (step > 0, step < 0, step >= 2)]
            kinds.append([*shares, p[2:].sum(), p @ cost(step, parameters.cost_ratio)])
        names = ["under", "over", "severe", "missed", "cost"]
        cells = group[["item", "gold", "care"]].reset_index(drop=True).join(pd.DataFrame(kinds, columns=names))
        each = cells.groupby("item")[[*names, "gold"]].mean()
        row: dict[str, Any] = {"dataset": dataset, "who": who, "n": len(each)}
        for name in names[:3]:
            row[name], row[f"{name}_low"], row[f"{name}_high"] = mean_interval(each[name], parameters.confidence)
        row["missed"] = float(cells.loc[cells["care"] == "critical"].groupby("item")["missed"].mean().mean())
        best = min(cost(place - each["gold"].to_numpy(), parameters.cost_ratio).mean() for place in range(len(p)))
        rows.append(row | {"cost": each["cost"].mean(), "relative_cost": each["cost"].mean() / best})
    return pd.DataFrame(rows)


def confusion(scored: pd.DataFrame) -> pd.DataFrame:
    """Return which place is assigned to cases of which place.

    Returns:
        ``dataset, who, true, n`` (cases), ``assigned, probability`` (mean over cases); places count from 1, the
        most urgent, which for emergency cases is the level of the Emergency Severity Index.
    """
    rows = []
    for dataset, who, group in groups(of_cases(scored)):
        for _, part in group.groupby("gold"):
            mean = np.stack(list(part["probability"])).mean(axis=0)
            n, true = part["item"].nunique(), int(part["gold"].iloc[0]) + 1
            rows += [(dataset, who, true, n, place, p) for place, p in enumerate(mean, start=1)]
    return pd.DataFrame(rows, columns=["dataset", "who", "true", "n", "assigned", "probability"])


# --- Risk by style, and what an interaction may come from ---


def risk(scored: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Return risk propensity and sensitivity by style, for every role and for roles averaged, over all cases.

    Returns:
        ``role`` ("all" averages them), ``style, n, propensity, low, high`` (mean place less the true place,
        Student's t over cases; positive is less urgent), ``sensitivity, sensitivity_low, sensitivity_high`` (slope
        of the mean on the true place, bootstrap over cases; 1 follows urgency).
    """
    cells = of_cases(scored)
    cells = cells[cells["role"].isin(cells.loc[cells["style"] != "neutral", "role"].unique())]
    cells = cells.assign(assigned=cells["place"] + cells["gold"])
    rows: list[dict[str, Any]] = []
    for style, group in cells.groupby("style", sort=False):
        columns = ["place", "assigned", "gold"]
        roles = group.groupby(["item", "role"], sort=False)[columns].mean().astype(float)
        parts = {"all": roles.groupby(level="item").mean()}
        parts |= {str(role): part.droplevel("role") for role, part in roles.groupby(level="role", sort=False)}
        for role, part in parts.items():
            value, low, high = mean_interval(part["place"], how.confidence)
            slope = cluster_bootstrap(
                part["assigned"],
                part["gold"],
                cluster=pd.Series(part.index, index=part.index),
                confidence=how.confidence,
                replicates=min(how.replicates, 10_000),
                seed=how.seed,
            ).loc["slope"]
            row: dict[str, Any] = {"role": role, "style": style, "n": len(part), "propensity": value}
            row |= {"low": low, "high": high, "sensitivity": slope["estimate"]}
            rows.append(row | {"sensitivity_low": slope["low"], "sensitivity_high": slope["high"]})
    return pd.DataFrame(rows)


def moved(scored: pd.DataFrame) -> pd.DataFrame:
    """Return, beside the interaction with the care setting, whether answers moved or followed urgency better.

    Answers that all become more urgent gain among critical cases what they lose among primary ones, whether or not
    they have to do with urgency. Not tested.

    Returns:
        ``who, critical, primary, interaction`` (differences in accuracy from the assistant), ``propensity``
        (difference in places; negative is more urgent), ``sensitivity`` (slope on the true place) and
        ``sensitivity_assistant``.
    """
    cells = of_cases(scored)
    cells = cells.assign(assigned=cells["place"] + cells["gold"])
    each = cells.groupby(["who", "item"], sort=False)[["score", "assigned", "gold"]].mean().astype(float)
    care = cells.drop_duplicates("item").set_index("item")["care"]
    rows = []
    other = each.loc[REFERENCE]
    for who in [who for who in dict.fromkeys(cells["who"]) if who != REFERENCE]:
        mine = each.loc[who]
        gain = (mine["score"] - other["score"]).groupby(care).mean()
        slope, reference = (float(np.polyfit(part["gold"], part["assigned"], 1)[0]) for part in (mine, other))
        shift = float((mine["assigned"] - other["assigned"]).mean())
        both = gain["critical"] - gain["primary"]
        rows.append((who, gain["critical"], gain["primary"], both, shift, slope, reference))
    columns = ["who", "critical", "primary", "interaction", "propensity", "sensitivity", "sensitivity_assistant"]
    return pd.DataFrame(rows, columns=columns)


# --- Calibration and agreement ---


def calibration(scored: pd.DataFrame, parameters: Parameters) -> pd.DataFrame:
    """Return how well each role's probabilities are calibrated, neutral style.

    Returns:
        ``dataset, who, n``; ``brier, brier_low, brier_high`` (0 to 2, Student's t over cases); ``skill`` (1 less
        the Brier score over that of stating the data set's own shares of places); ``confidence`` (mean probability
        of the likeliest option), ``likeliest`` (how often it is right); and the expected calibration error of that
        option, ``ece_5, ece_5_low, ece_5_high`` and so on: bins of equal mass, bootstrap over cases.
    """
    rows = []
    for dataset, who, group in groups(neutral(scored)):
        each = group.groupby("item")[["brier", "confidence", "correct"]].mean()
        row: dict[str, Any] = {"dataset": dataset, "who": who, "n": len(each)}
        row["brier"], row["brier_low"], row["brier_high"] = mean_interval(each["brier"], parameters.confidence)
        items = group.drop_duplicates("item")
        shares = items.groupby("n_options")["gold"].transform(
            lambda gold: 1 - (gold.value_counts(normalize=True) ** 2).sum()
        )
        row["skill"] = 1 - row["brier"] / float(shares.mean())
        row |= {"confidence": float(each["confidence"].mean()), "likeliest": float(each["correct"].mean())}
        for bins in parameters.bins:
            found = expected_calibration_error(
                group["confidence"].to_numpy(dtype=float),
                group["correct"].to_numpy(dtype=float),
                bins=bins,
                binning="mass",
                cluster=group["cluster"].to_numpy(),
                confidence=parameters.confidence,
                replicates=min(parameters.replicates, 10_000),
                seed=parameters.seed,
            )
            row |= {f"ece_{bins}": found.estimate, f"ece_{bins}_low": found.low, f"ece_{bins}_high": found.high}
        rows.append(row)
    return pd.DataFrame(rows)


def reliability(scored: pd.DataFrame, bins: int) -> pd.DataFrame:
    """Return reliability by role in neutral style: ``dataset, who, low, high, n, probability, frequency, gap``."""
    parts = [
        calibration_bins(
            group["confidence"].to_numpy(dtype=float),
            group["correct"].to_numpy(dtype=float),
            bins=bins,
            binning="mass",
        ).assign(dataset=dataset, who=who)
        for dataset, who, group in groups(neutral(scored))
    ]
    return pd.concat(parts, ignore_index=True)


def agreement(scored: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Return how the likeliest place agrees with the true one, per role in neutral style.

    Returns:
        ``dataset, who, coefficient, estimate, low, high``: bootstrap over cases, whose wordings are drawn together.
    """
    rows: list[Any] = []
    for dataset, who, group in groups(neutral(of_cases(scored))):
        pairs = group[["gold", "chosen"]].astype(int).reset_index(drop=True)
        shared: dict[str, Any] = {
            "categories": range(int(group["n_options"].iloc[0])),
            "cluster": group["cluster"].reset_index(drop=True),
            "confidence": how.confidence,
            "replicates": min(how.replicates, 10_000),
            "seed": how.seed,
        }
        for name, found in {
            "raw agreement": raw_agreement(pairs, **shared),
            "kappa, quadratic": cohen_kappa(pairs, weights="quadratic", **shared),
            "Krippendorff alpha, ordinal": krippendorff_alpha(pairs, level="ordinal", **shared),
            "Gwet AC2, quadratic": gwet_ac(pairs, weights="quadratic", **shared),
        }.items():
            rows.append((dataset, who, name, found.estimate, found.low, found.high))
    return pd.DataFrame(rows, columns=["dataset", "who", "coefficient", "estimate", "low", "high"])
