"""Calibration of the probabilities that answers to clinical cases have; definitions are the protocol's."""

from __future__ import annotations

from math import nan
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from scipy.special import softmax
from statsmodels.genmod import families as distributions

from clinical_personas.design import Parameters
from clinical_personas.outcomes import REFERENCE, main, mean_interval
from persona_studies.analyse import stats as lib_stats


def calibration(scored: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Return how well each role's probabilities are calibrated, neutral style.

    Returns:
        ``dataset, who, n`` (cases), ``brier, brier_low, brier_high`` (Student's t over cases, wordings averaged),
        ``skill`` (against the data set's shares of options), ``log_loss, log_loss_low, log_loss_high, confidence``
        (mean), ``accuracy``; ``slope, slope_low, slope_high, intercept`` (logistic recalibration of being right on
        the logit of confidence, clustered by case; 1 and 0 are perfect); and per binning ``ece_5_width, ..._low,
        ..._high`` (units: case and wording, resampled by case).
    """
    cells = _stated(scored)
    rows: list[Any] = []
    for (dataset, who), group in cells.groupby(["dataset", "who"], sort=False):
        each = group.groupby("cluster")[["brier", "log_loss", "confidence", "correct"]].mean()
        row: dict[str, Any] = {"dataset": dataset, "who": who, "n": len(each)}
        for name in ("brier", "log_loss"):
            row[name], row[f"{name}_low"], row[f"{name}_high"] = mean_interval(each[name], chosen.confidence)
        row["skill"] = 1 - row["brier"] / _base_brier(group)
        row["confidence"], row["accuracy"] = float(each["confidence"].mean()), float(each["correct"].mean())
        row |= _recalibration(group, chosen.confidence)
        for bins in chosen.bins:
            binnings: tuple[lib_stats.Binning, ...] = ("width", "mass")
            for binning in binnings:
                found = lib_stats.expected_calibration_error(
                    group["confidence"].to_numpy(),
                    group["correct"].to_numpy(),
                    bins=bins,
                    binning=binning,
                    cluster=group["cluster"].to_numpy(),
                    confidence=chosen.confidence,
                    replicates=chosen.replicates,
                    seed=chosen.seed,
                )
                name = f"ece_{bins}_{binning}"
                row[name], row[f"{name}_low"], row[f"{name}_high"] = found.estimate, found.low, found.high
        rows.append(row)
    return pd.DataFrame(rows)


def _stated(scored: pd.DataFrame) -> pd.DataFrame:
    """Return the cells whose probabilities are judged: roles, neutral style, where the truth varies over cases."""
    cells = main(scored)
    return cells[(cells["kind"] == "role") & (cells["style"] == "neutral") & (cells["dataset"] != "safety")]


def _base_brier(group: pd.DataFrame) -> float:
    """Return the Brier score of a forecast that states each place's share, by number of options."""
    cases = group.drop_duplicates("cluster")
    total = 0.0
    for _, part in cases.groupby("n_options"):
        share = part["gold"].value_counts(normalize=True)
        total += len(part) * float(1 - (share**2).sum())
    return total / len(cases)


def _recalibration(group: pd.DataFrame, confidence: float) -> dict[str, float]:
    right = group["correct"].to_numpy()
    logit = np.log(group["confidence"]) - np.log1p(-np.minimum(group["confidence"], 1 - 1e-12))
    if right.min() == right.max() or logit.std() < 1e-9:
        return dict.fromkeys(["slope", "slope_low", "slope_high", "intercept"], nan)
    fit = smf.glm(
        "right ~ logit",
        pd.DataFrame({"right": right, "logit": logit.to_numpy()}),
        family=distributions.Binomial(),
    ).fit(cov_type="cluster", cov_kwds={"groups": pd.factorize(group["cluster"])[0]})
    low, high = fit.conf_int(1 - confidence).loc["logit"]
    return {
        "slope": float(fit.params["logit"]),
        "slope_low": float(low),
        "slope_high": float(high),
        "intercept": float(fit.params["Intercept"]),
    }


def reliability(scored: pd.DataFrame, bins: int) -> pd.DataFrame:
    """Return reliability by role in neutral style: ``dataset, who, low, high, n, probability, frequency, gap``."""
    cells = _stated(scored)
    parts = [
        lib_stats.calibration_bins(
            group["confidence"].to_numpy(), group["correct"].to_numpy(), bins=bins, binning="mass"
        ).assign(dataset=str(dataset), who=str(who))
        for (dataset, who), group in cells.groupby(["dataset", "who"], sort=False)
    ]
    return pd.concat(parts, ignore_index=True)


def calibration_differences(scored: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Return each role's calibration error less the assistant's, by a bootstrap of cases that both share.

    Returns:
        ``dataset, role, n, bins, difference, low, high`` (bias-corrected percentiles; bins of equal width; not
        corrected). Noise adds to both errors alike, so a difference is less biased than either.
    """
    cells = _stated(scored)
    rows: list[Any] = []
    for dataset, group in cells.groupby("dataset", sort=False):
        clusters, place = np.unique(group["cluster"], return_inverse=True)
        rng = np.random.default_rng(chosen.seed)
        drawn = rng.multinomial(len(clusters), np.full(len(clusters), 1 / len(clusters)), size=chosen.replicates)
        for bins in chosen.bins:
            errors = {}
            for who in dict.fromkeys(group["who"]):
                mine = (group["who"] == who).to_numpy()
                stated, right = group["confidence"].to_numpy()[mine], group["correct"].to_numpy()[mine]
                surplus = np.zeros((len(clusters), bins))
                np.add.at(surplus, (place[mine], np.minimum((stated * bins).astype(int), bins - 1)), right - stated)
                # Every case has as many wordings as any other.
                units = mine.sum() / len(clusters) * len(clusters)
                errors[who] = (
                    np.abs(surplus.sum(axis=0)).sum() / units,
                    np.abs(drawn @ surplus).sum(axis=1) / units,
                )
            if REFERENCE not in errors:
                continue
            for who, (value, sample) in errors.items():
                if who == REFERENCE:
                    continue
                low, high = np.quantile(
                    sample - errors[REFERENCE][1], [(1 - chosen.confidence) / 2, (1 + chosen.confidence) / 2]
                )
                difference = value - errors[REFERENCE][0]
                rows.append((dataset, who, len(clusters), bins, difference, float(low), float(high)))
    return pd.DataFrame(rows, columns=["dataset", "role", "n", "bins", "difference", "low", "high"])


def other_probabilities(recorded: pd.DataFrame, asked: pd.DataFrame, scored: pd.DataFrame) -> pd.DataFrame:
    """Return calibration of the assistant's cloze under other definitions of its probability.

    Returns:
        ``dataset, probability`` (softmax of the declared score, of whole log-likelihoods, or of log-likelihoods per
        character), ``n`` (cells), ``chosen_is_declared`` (share of cells with the same highest option),
        ``confidence, accuracy, brier, ece_10_width``.
    """
    cells = _stated(scored)
    cells = cells[cells["who"] == REFERENCE][["condition", "item", "dataset", "gold", "chosen", "probability"]]
    raw = recorded[(recorded["measure"] == "cloze") & (recorded["template"] != "neutral")]
    cells = cells.merge(raw[["condition", "item", "logprob", "n_chars"]], on=["condition", "item"])
    rows: list[Any] = []
    for dataset, group in cells.groupby("dataset", sort=False):
        logprob = [np.asarray(value, dtype=float) for value in group["logprob"]]
        kinds = {
            "declared": list(group["probability"]),
            "whole": [softmax(value) for value in logprob],
            "per character": [
                softmax(value / np.asarray(n, dtype=float))
                for value, n in zip(logprob, group["n_chars"], strict=True)
            ],
        }
        for name, probability in kinds.items():
            best = np.array([p.argmax() for p in probability])
            top = np.array([p.max() for p in probability])
            gold = group["gold"].to_numpy()
            right = (best == gold).astype(float)
            brier = [(p**2).sum() - 2 * p[k] + 1 for p, k in zip(probability, gold, strict=True)]
            table = lib_stats.calibration_bins(top, right, bins=10)
            rows.append(
                {
                    "dataset": dataset,
                    "probability": name,
                    "n": len(group),
                    "chosen_is_declared": float((best == group["chosen"].to_numpy()).mean()),
                    "confidence": float(top.mean()),
                    "accuracy": float(right.mean()),
                    "brier": float(np.mean(brier)),
                    "ece_10_width": float((table["gap"].abs() * table["n"]).sum() / table["n"].sum()),
                }
            )
    return pd.DataFrame(rows)
