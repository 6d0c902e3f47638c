"""Beside the verdicts: personas combined over sets, other readings of the same letters, and what could be seen."""

from __future__ import annotations

from math import nan, sqrt
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy import stats
from scipy.special import logit
from statsmodels.discrete.conditional_models import ConditionalLogit

from persona_bias.analysis import MEAN, REFERENCE, by_question, paired
from persona_studies.analyse import families, multiple_choice, scoring
from persona_studies.analyse.families import Settings
from persona_studies.analyse.stats.meta_analysis import random_effects
from persona_studies.analyse.stats.power import minimum_detectable_mean
from persona_studies.ask import responses
from persona_studies.design.protocol import Protocol

GEE = "logit, estimating equations by question"
CONDITIONAL = "conditional logit, strata by question"


def over_sets(table: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Combine each persona's differences over sets by a random-effects model.

    Args:
        table: Of :func:`persona_bias.analysis.by_set`.

    Returns:
        ``persona, datasets, estimate, low, high, p, tau, i2, prediction_low, prediction_high, leave_one_out_low,
        leave_one_out_high`` (range of the estimate without one set). A set without any difference has no standard
        error and is left out.
    """
    rows = []
    for persona, group in table.groupby("first", sort=False):
        kept = group[group["se"] > 0]
        y, v = kept["estimate"].to_numpy(), kept["se"].to_numpy() ** 2
        whole = random_effects(y, v, confidence=how.confidence)
        without = [
            random_effects(np.delete(y, k), np.delete(v, k), confidence=how.confidence).estimate
            for k in range(len(y))
            if len(y) > 1
        ]
        rows.append(
            {
                "persona": persona,
                "datasets": whole.k,
                "estimate": whole.estimate,
                "low": whole.low,
                "high": whole.high,
                "p": whole.p,
                "tau": sqrt(whole.tau2) if whole.k > 1 else nan,
                "i2": whole.i2,
                "prediction_low": whole.prediction_low,
                "prediction_high": whole.prediction_high,
                "leave_one_out_low": min(without, default=nan),
                "leave_one_out_high": max(without, default=nan),
            }
        )
    return pd.DataFrame(rows)


def readings(scored: pd.DataFrame, protocol: Protocol, how: Settings) -> pd.DataFrame:
    """Return each persona against a human under other scores of the same letters.

    Returns:
        ``persona, reading, unit, n`` (questions), ``estimate, low, high, p`` (as declared, not corrected).
    """
    odds = scored.assign(odds=logit(scored["score"].astype(float).clip(1e-6, 1 - 1e-6)))
    values = {
        ("probability of the right option, as declared", "probability"): by_question(scored, protocol),
        ("right option is the most probable", "share"): by_question(scored, protocol, "correct"),
        ("log-odds of the right option", "nats"): by_question(odds, protocol, "odds"),
    }
    parts = []
    for (reading, unit), wide in values.items():
        both = {name: paired(wide, name, REFERENCE) for name in (MEAN, *protocol.design["personas"])}
        gaps = pd.DataFrame({name: pair[name] - pair[REFERENCE] for name, pair in both.items()})
        found = multiple_choice.paired(gaps, confidence=how.confidence, replicates=how.replicates, seed=how.seed)
        found = found.rename(columns={"difference": "estimate"}).rename_axis("persona").reset_index()
        parts.append(found.assign(reading=reading, unit=unit))
    columns = ["persona", "reading", "unit", "n", "estimate", "low", "high", "p"]
    return pd.concat(parts, ignore_index=True)[columns]


def by_instruction(scored: pd.DataFrame, protocol: Protocol, how: Settings) -> pd.DataFrame:
    """Return personas less a human within each instruction, and how far the second moves that difference.

    Exploratory: of the personas that were asked in both instructions.

    Returns:
        ``persona, instruction`` (1, 2, or the second less the first), ``n`` (questions), ``estimate, low, high, p``
        (as :func:`readings`, not corrected).
    """
    names = [name for name in protocol.design["second_instruction"] if name != REFERENCE]
    wide = by_question(scored, protocol).reindex(columns=[*names, REFERENCE]).astype(float)
    gaps = wide[names].sub(wide[REFERENCE], axis=0).dropna()
    asked = gaps.index.get_level_values("instruction")
    first, second = (gaps[asked == number].droplevel("instruction") for number in (1, 2))
    parts = []
    for said, table in (("1", first), ("2", second), ("second less first", (second - first).dropna())):
        found = multiple_choice.paired(table, confidence=how.confidence, replicates=how.replicates, seed=how.seed)
        found = found.rename(columns={"difference": "estimate"}).rename_axis("persona").reset_index()
        parts.append(found.assign(instruction=said))
    columns = ["persona", "instruction", "n", "estimate", "low", "high", "p"]
    return pd.concat(parts, ignore_index=True)[columns].sort_values("persona", kind="stable", ignore_index=True)


def logits(
    recorded: pd.DataFrame, asked: pd.DataFrame, everyone: pd.DataFrame, protocol: Protocol, how: Settings
) -> pd.DataFrame:
    """Return each persona's effect on the most probable letter's being right: log odds ratios against a human.

    Conditional logistic regression with questions as strata, and a logit by estimating equations with questions as
    clusters; the option orders of a question, in the first instruction, are cells of it.

    Returns:
        ``persona, model, cells, estimate, low, high, p`` (not corrected); no row where it is infinite.
    """
    reach = stats.norm.ppf(0.5 + how.confidence / 2)
    cells = first_choices(recorded, asked, everyone)
    rows = []
    for persona in protocol.design["personas"]:
        mine = cells[cells["persona"].isin([REFERENCE, persona])]
        for model, (b, se) in _fitted(mine, persona).items():
            row = {"persona": persona, "model": model, "cells": len(mine), "estimate": b}
            row |= {"low": b - reach * se, "high": b + reach * se}
            rows.append(row | {"p": float(2 * stats.norm.sf(abs(b / se))) if se > 0 else nan})
    return pd.DataFrame(rows, columns=["persona", "model", "cells", "estimate", "low", "high", "p"])


def first_choices(recorded: pd.DataFrame, asked: pd.DataFrame, everyone: pd.DataFrame) -> pd.DataFrame:
    """Return whether the most probable letter is right, cell by cell, in the first instruction: ``persona, item,
    order, right``."""
    letters = recorded[recorded["measure"] == "letter"].merge(asked[["item", "gold", "n_options"]], on="item")
    first = everyone.loc[everyone["instruction"] < 2, ["condition", "persona"]]
    letters = letters.merge(first, on="condition")
    parts = []
    for n, group in letters.groupby("n_options"):
        place = (group["gold"] - group["order"]).to_numpy() % n
        right = scoring.shares(responses.matrix(group)).argmax(axis=1) == place
        parts.append(group[["persona", "item", "order"]].assign(right=right.astype(int)))
    return pd.concat(parts, ignore_index=True)


def _fitted(cells: pd.DataFrame, persona: str) -> dict[str, tuple[float, float]]:
    """Return coefficient and standard error of a persona by each model."""
    treated = (cells["persona"] == persona).astype(float).to_numpy()
    right, groups = cells["right"].to_numpy(), pd.factorize(cells["item"])[0]
    found: dict[str, Any] = {}
    if len(set(right)) == 2:
        design = pd.DataFrame({"const": 1.0, "treated": treated})
        working = sm.cov_struct.Independence()
        marginal = sm.GEE(right, design, groups=groups, family=sm.families.Binomial(), cov_struct=working).fit()
        found[GEE] = marginal.params["treated"], marginal.bse["treated"]
    # Only questions that are answered both ways carry information about a conditional odds ratio.
    share = pd.Series(right).groupby(groups).transform("mean").to_numpy()
    mixed = (share > 0) & (share < 1)
    if mixed.any() and not _separated(right[mixed], treated[mixed], groups[mixed]):
        fit = ConditionalLogit(right[mixed], treated[mixed, None], groups=groups[mixed]).fit(disp=False)
        found[CONDITIONAL] = fit.params[0], fit.bse[0]
    return {model: (float(b), float(se)) for model, (b, se) in found.items()}


def _separated(right: np.ndarray, treated: np.ndarray, groups: np.ndarray) -> bool:
    """Return whether every stratum leans to one side as far as it can, so that the odds ratio is infinite."""
    cells = pd.DataFrame({"right": right, "treated": treated, "both": right * treated})
    by = cells.groupby(groups).agg(
        n=("right", "size"), right=("right", "sum"), treated=("treated", "sum"), both=("both", "sum")
    )
    most = by[["right", "treated"]].min(axis=1)
    least = (by["right"] + by["treated"] - by["n"]).clip(lower=0)
    return bool((by["both"] == most).all() or (by["both"] == least).all())


def power(tests: pd.DataFrame, protocol: Protocol, how: Settings, *, per_set: int) -> pd.DataFrame:
    """Return the difference that would be found with a power of .8, by questions per set.

    From the observed standard error, which shrinks with the root of the number of questions; of a kind of contrast
    the median over its contrasts; at alpha over the family's size, as its first step.

    Args:
        protocol: Sizes of families, and the number of sets.
        per_set: Questions per set of these tests.

    Returns:
        ``contrast, family, questions_per_set, questions, detectable``.
    """
    kinds = {
        "mean of personas against a human": ("overall", MEAN),
        "one persona against a human": ("persona", ""),
        "two personas of a group": ("pairs", ""),
    }
    sets = len(protocol.design["datasets"])
    rows = []
    for kind, (family, first) in kinds.items():
        mine = families.declared(protocol, tests[tests["family"] == family])
        mine = mine[mine["first"] == first] if first else mine
        se = float(mine.loc[mine["se"] > 0, "se"].median())
        for n in sorted({5, 10, 24, 50, 100, per_set}):
            detectable = minimum_detectable_mean(
                se * sqrt(per_set / n), sets * (n - 1), alpha=how.alpha / protocol.families[family].size, power=0.8
            )
            rows.append((kind, family, n, sets * n, detectable))
    return pd.DataFrame(rows, columns=["contrast", "family", "questions_per_set", "questions", "detectable"])
