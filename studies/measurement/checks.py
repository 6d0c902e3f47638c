"""Whether each measure of a recorded model passes its declared checks, and whether an instruction moves it."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from measurement import design, psychometrics
from measurement.live import Scores, keyed
from persona_studies.analyse import gates
from persona_studies.design.protocol import Protocol


def gated(protocol: Protocol, made: Scores) -> pd.DataFrame:
    """Check every recorded measure against its declared thresholds.

    Returns:
        ``measure, check, value, rule, threshold, passes``.
    """
    values: dict[str, dict[str, float]] = {}
    for (block, pair), cells in made.binary.groupby(["block", "pair"], sort=False):
        values[f"{block}_{pair}"] = _of_facts(cells) if block == "facts" else _of_binary(cells)
    for measure, cells in made.rating.groupby("measure", sort=False):
        each = [_of_rating(part) for _, part in cells.groupby("wording", sort=False)]
        values[str(measure)] = _worst(each, protocol.measures[str(measure)].gate)
    found = keyed(made)
    if "rating" in found:
        values["induced_rating"]["pole_r"] = _pole_r(found["rating"], made.rating)
    if "statement" in found:
        values["statement"] = {"pole_r": _pole_r(found["statement"], made.said)}
    if len(made.scenario):
        cells = made.scenario[made.scenario["template"] == "do"]
        values["scenario"] = _between(cells, "score", "order") | {
            "option_mass": float(cells["mass"].median()),
            "one_option": float(cells["option"].value_counts(normalize=True).max()),
        }
    parts = [gates.declared(protocol.measures[name].gate, of).assign(measure=name) for name, of in values.items()]
    columns = ["measure", "check", "value", "rule", "threshold", "passes"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _between(cells: pd.DataFrame, value: str, by: str) -> dict[str, float]:
    """Return how items under one condition agree under two orders: ``order_r, order_shift``."""
    wide = cells.pivot_table(index=["condition", "item"], columns=by, values=value)
    if wide.shape[1] < 2:
        return {"order_r": nan, "order_shift": nan}
    one, two = (wide.iloc[:, k].to_numpy() for k in (0, 1))
    return {"order_r": psychometrics.correlate(one, two), "order_shift": float(abs(one.mean() - two.mean()))}


def _worst(wordings: list[dict[str, float]], gate: Mapping[str, float]) -> dict[str, float]:
    """Return the worst value of every check over wordings: in their mean, opposite effects of order cancel."""
    table = pd.DataFrame(wordings)
    least = pd.Series([f"min_{name}" in gate for name in table], index=table.columns)
    worst = table.min(skipna=False).where(least, table.max(skipna=False))
    return {str(name): float(value) for name, value in worst.items()}


def _of_facts(cells: pd.DataFrame) -> dict[str, float]:
    mean = cells.groupby("item").agg(true=("true", "first"), form=("form", "first"), log_odds=("log_odds", "mean"))
    plain = mean["form"] == "plain"
    return {
        "option_mass": float(cells["mass"].median()),
        "auc": _auc(mean),
        "auc_plain": _auc(mean[plain]),
        "auc_negated": _auc(mean[~plain]),
    }


def _auc(known: pd.DataFrame) -> float:
    """Return how often a true statement has higher log-odds of True or Yes than a false one."""
    true = known["true"].astype(bool)
    return float(roc_auc_score(true, known["log_odds"])) if true.nunique() == 2 else nan


def _of_binary(cells: pd.DataFrame) -> dict[str, float]:
    plain = cells[cells["form"] == "plain"]
    odds = cells.pivot_table(index=["condition", "number"], columns="form", values="log_odds")
    negation = odds["word"].to_numpy() if "word" in odds else np.full(len(odds), nan)
    yes = float((plain["yes"] > 0.5).mean())
    return {
        "option_mass": float(cells["mass"].median()),
        **_between(plain, "yes", "order"),
        "negation_r": psychometrics.correlate(odds["plain"].to_numpy(), negation),
        "yes_rate": float(plain["yes"].mean()),
        "one_option": max(yes, 1 - yes),
    }


def _of_rating(cells: pd.DataFrame) -> dict[str, float]:
    halves = cells.groupby("key")["rating"].mean()
    return {
        "option_mass": float(cells["mass"].median()),
        **_between(cells, "rating", "scale"),
        "acquiescence": float(abs(halves.mean() - 3)),
        "one_option": float(cells["option"].value_counts(normalize=True).max()),
    }


def _pole_r(wide: pd.DataFrame, cells: pd.DataFrame) -> float:
    """Return the mean over domains of r, over conditions, between plus-keyed and minus-keyed halves, both keyed."""
    key = cells.drop_duplicates("item").set_index("item")["key"]
    key = pd.Series(key.reindex(wide.index.get_level_values("item")).to_numpy(), index=wide.index)
    table, found = wide.drop(columns="domain"), []
    for domain in design.DOMAINS:
        mine = wide["domain"] == domain
        found.append(
            psychometrics.correlate(
                table[mine & (key > 0)].mean().to_numpy(), table[mine & (key < 0)].mean().to_numpy()
            )
        )
    return float(np.mean(found))


def steerability(made: Scores, people: pd.DataFrame) -> pd.DataFrame:
    """Return how far instructions move raw ratings beyond the fillers; empty where not recorded.

    Returns:
        ``instruction, told`` (mean rating, or falling less rising scale, under it), ``filler`` (the same under the
        fillers), ``moved`` (the difference), all in points.
    """
    induced = made.rating[made.rating["measure"] == "induced_rating"]
    if induced.empty:
        return pd.DataFrame(columns=["instruction", "told", "filler", "moved"])
    mean = induced.pivot_table(index="condition", columns="scale", values="rating")
    # A model that takes what stands first does so without being told: only the difference to fillers is steering.
    seen = pd.DataFrame({"agree": mean.mean(axis=1), "first": mean["falling"] - mean["rising"]})
    fillers = seen.loc[people.loc[people["role"] == "filler", "condition"]].mean()
    told = {"say that it applies": "agree", "choose the first option": "first"}
    rows = [(words, seen.loc[name, name], fillers[name]) for words, name in told.items()]
    table = pd.DataFrame(rows, columns=["instruction", "told", "filler"])
    return table.assign(moved=table["told"] - table["filler"])
