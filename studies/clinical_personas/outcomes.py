"""From responses to outcomes: accuracy, triage errors, cost, risk, agreement, calibration, consistency.

Definitions are the protocol's (``design.definitions``); the paper gives none.
"""

from __future__ import annotations

from itertools import combinations
from math import nan
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from clinical_personas import replies
from clinical_personas.design import Parameters
from persona_studies.analyse import multiple_choice as shared
from persona_studies.analyse import scoring
from persona_studies.analyse import stats as lib_stats
from persona_studies.ask import responses
from persona_studies.design.plan import DERIVED

ORDINAL = ("triage", "esi")
REFERENCE = "assistant"


# --- Scores ---


def named(people: pd.DataFrame) -> pd.DataFrame:
    """Return the conditions with ``who``: role and style, whatever the wording."""
    style = ("-" + people["style"]).where(people["style"] != "neutral", "")
    return people.assign(who=people["role"] + style)


def scores(recorded: pd.DataFrame, asked: pd.DataFrame, people: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Score every case under every condition.

    Args:
        recorded: Responses.
        asked: Questions, as :func:`clinical_personas.questions` returns them.
        people: Of :func:`named`.
        measure: ``cloze``, ``pmi``, ``letter`` or ``text`` (replies that name an urgency, without probabilities).

    Returns:
        One row per condition and case, variants included: ``condition, who, role, style, wording, kind`` and the
        question's facts; ``chosen`` (place), ``correct``, ``score`` (correct; with letters the right option's
        probability), ``error`` (chosen minus true place), ``probability`` (an array over options), ``confidence``
        (of the chosen one), ``brier``, ``log_loss``, ``option_mass``.
    """
    if measure == "text":
        found = _named_by_replies(recorded, asked, people)
    else:
        cells = recorded[recorded["measure"] == ("letter" if measure == "letter" else "cloze")]
        if measure == "pmi":
            cells = pd.concat([cells, _contexts(cells, asked)], ignore_index=True)
        found = shared.probabilities(cells, asked.drop(columns="item_hash"), measure)
    about = ["condition", "who", "role", "style", "wording", "kind"]
    found = found.drop(columns=about[1:], errors="ignore").merge(people[about], on="condition")
    gold = found["gold"].to_numpy()
    right = np.array([p[k] for p, k in zip(found["probability"], gold, strict=True)])
    squares = np.array([(p**2).sum() for p in found["probability"]])
    found = found.assign(
        score=right if measure == "letter" else found["correct"],
        error=(found["chosen"] - gold).astype(float),
        confidence=[p.max() for p in found["probability"]],
        brier=squares - 2 * right + 1,
        log_loss=-np.log(np.maximum(right, np.finfo(float).tiny)),
    )
    columns = [
        *("condition", "who", "role", "style", "wording", "kind", "item", "dataset", "cluster", "variant", "care"),
        *("policy", "gold", "n_options", "chosen", "correct", "score", "error", "probability", "confidence"),
        *("brier", "log_loss", "option_mass"),
    ]
    # In the order of questions and conditions, which is the order of every table and figure.
    place = found["item"].map({item: k for k, item in enumerate(asked["item"])})
    turn = found["condition"].map({name: k for k, name in enumerate(people["condition"])})
    order = found.assign(place=place, turn=turn).sort_values(["place", "turn"], kind="stable").index
    return found.loc[order, columns].reset_index(drop=True)


def scores_by_measure(recorded: pd.DataFrame, asked: pd.DataFrame, people: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return :func:`scores` of every measure that is recorded."""
    held = {*recorded["measure"]}
    names = [name for name in ("cloze", "pmi", "letter", "text") if DERIVED.get(name, name) in held]
    return shared.readable({name: scores(recorded, asked, people, name) for name in names}, recorded)


def _named_by_replies(recorded: pd.DataFrame, asked: pd.DataFrame, people: pd.DataFrame) -> pd.DataFrame:
    """Return the cases whose reply names an urgency, as the other measures' cells; probabilities are unknown."""
    read = replies.read(recorded, asked, people).dropna(subset="named")[["condition", "item", "named"]]
    found = read.merge(asked.drop(columns="item_hash"), on="item")
    unknown = found["n_options"].map(lambda n: np.full(n, nan))
    chosen = found["named"].astype(int)
    correct = (chosen == found["gold"]).astype(float)
    return found.assign(chosen=chosen, correct=correct, probability=unknown, option_mass=nan)


def _contexts(cells: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
    """Return neutral contexts for variants: a data set's cases have the same options, so any one's will do."""
    neutral = cells[cells["template"] == "neutral"].merge(asked[["item", "dataset"]], on="item")
    first = neutral.drop_duplicates("dataset").drop(columns="item")
    variants = asked.loc[asked["variant"] != "", ["item", "dataset"]]
    return variants.merge(first, on="dataset").drop(columns="dataset")


def main(scored: pd.DataFrame) -> pd.DataFrame:
    """Return the cells of the main analysis: no variants."""
    return scored[scored["variant"] == ""]


def mean_interval(values: pd.Series, confidence: float) -> tuple[float, float, float]:
    """Return a mean over cases with Student's interval; the interval is undefined for fewer than two."""
    known = values.dropna()
    if len(known) < 2:
        return (float(known.mean()) if len(known) else nan), nan, nan
    low, high = DescrStatsW(known.to_numpy(dtype=float)).tconfint_mean(1 - confidence)
    return float(known.mean()), float(low), float(high)


def wilson(share: float, n: int, confidence: float) -> tuple[float, float]:
    """Return Wilson's interval of a share over n cases; a share of averaged wordings counts as one of cases.

    >>> [round(limit, 3) for limit in wilson(0.5, 48, 0.95)]
    [0.364, 0.636]
    """
    if n == 0 or np.isnan(share):
        return nan, nan
    low, high = proportion_confint(share * n, n, alpha=1 - confidence, method="wilson")
    return float(low), float(high)


# --- Outcomes ---


def accuracy(scored: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Return accuracy per data set and who, beside chance and what the commonest answer would get.

    Returns:
        ``dataset, who, role, style, n, accuracy, low, high`` (Wilson, n cases), ``chance, base_rate``, and for
        vignettes and emergency cases ``halves`` (two classes of urgency), ``absolute_error`` (places).
    """
    cells = main(scored)
    cells = cells.assign(
        absolute=cells["error"].abs(), halves=((cells["chosen"] < 2) == (cells["gold"] < 2)).astype(float)
    )
    rows: list[Any] = []
    for dataset, group in cells.groupby("dataset", sort=False):
        items = group.drop_duplicates("item")
        base = float(items["gold"].value_counts(normalize=True).max()) if dataset in ORDINAL else nan
        for who, part in group.groupby("who", sort=False):
            each = part.groupby("cluster")[["score", "halves", "absolute"]].mean()
            share, n = float(each["score"].mean()), len(each)
            low, high = wilson(share, n, chosen.confidence)
            rows.append(
                {
                    "dataset": dataset,
                    "who": who,
                    "role": str(part["role"].iloc[0]),
                    "style": str(part["style"].iloc[0]),
                    "n": n,
                    "accuracy": share,
                    "low": low,
                    "high": high,
                    "chance": float((1 / items["n_options"]).mean()),
                    "base_rate": base,
                    "halves": float(each["halves"].mean()) if dataset in ORDINAL else nan,
                    "absolute_error": float(each["absolute"].mean()) if dataset in ORDINAL else nan,
                }
            )
    return pd.DataFrame(rows)


def beside_others(reached: pd.DataFrame, others: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Set accuracy under every persona beside what others reached on the same cases, the four roles first.

    Args:
        reached: Of :func:`accuracy`.
        others: Of :func:`clinical_personas.published.yardsticks`.
        chosen: Names the model and the roles.
    """
    ours = reached.rename(columns={"n": "cases"}).assign(answered_by=chosen.model)
    columns = ["dataset", "answered_by", "who", "cases", "accuracy", "low", "high"]
    columns += ["chance", "base_rate", "halves", "absolute_error"]
    whole = pd.concat([ours, others], ignore_index=True).reindex(columns=columns)
    return _first(whole, whole["who"].isin(chosen.roles) | (whole["answered_by"] == "published"))


def kinds_of_error(errors: pd.DataFrame, others: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Set kinds of error beside those of others, the four roles first (:func:`triage_safety`)."""
    whole = pd.concat([errors, others], ignore_index=True)
    return _first(whole, whole["who"].isin([*chosen.roles, *others["who"]]))


def _first(table: pd.DataFrame, shown: pd.Series) -> pd.DataFrame:
    """Return a table with some rows in front, otherwise in its order."""
    return pd.concat([table[shown], table[~shown]], ignore_index=True)


def constant(scored: pd.DataFrame) -> list[str]:
    """Return the data sets in which every role, in neutral style, assigns one and the same place to every case."""
    cells = main(scored)
    cells = cells[(cells["kind"] == "role") & (cells["style"] == "neutral")]
    places = cells.groupby("dataset", sort=False)["chosen"].nunique()
    return [str(name) for name in places.index[places == 1]]


def triage_safety(scored: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Return what kind of triage errors each role and style makes.

    Returns:
        ``dataset, who, n``; shares of cases with Wilson's limits: ``under, over, severe`` (under by two places or
        more); ``missed`` (critical cases that are assigned a primary place, of all critical ones), ``sent_home``
        (critical cases that get the last place); ``cost`` at the cost ratio, ``relative_cost`` (over that of the
        best constant answer), ``net_benefit`` of treating what is assigned a critical place.
    """
    cells = main(scored)
    cells = cells[cells["dataset"].isin(ORDINAL)]
    cells = cells.assign(
        under=cells["error"] > 0,
        over=cells["error"] < 0,
        severe=cells["error"] >= 2,
        cost=cost(cells["error"].to_numpy(), chosen.cost_ratio),
        treated=cells["chosen"] < 2,
        critical=cells["care"] == "critical",
        last=cells["chosen"] == cells["n_options"] - 1,
    )
    rows: list[Any] = []
    for (dataset, who), group in cells.groupby(["dataset", "who"], sort=False):
        each = group.groupby("cluster")[["under", "over", "severe", "cost", "treated", "critical", "last"]].mean()
        n = len(each)
        row: dict[str, Any] = {"dataset": dataset, "who": who, "n": n}
        for name in ("under", "over", "severe"):
            share = float(each[name].mean())
            row[name] = share
            row[f"{name}_low"], row[f"{name}_high"] = wilson(share, n, chosen.confidence)
        urgent = each[each["critical"] == 1]
        gold = group.drop_duplicates("cluster")["gold"].to_numpy()
        row |= {
            "missed": float(1 - urgent["treated"].mean()),
            "sent_home": float(urgent["last"].mean()),
            "cost": float(each["cost"].mean()),
            "relative_cost": float(each["cost"].mean()) / constant_cost(gold, chosen.cost_ratio),
            "net_benefit": float(
                (each["treated"] * each["critical"] - each["treated"] * (1 - each["critical"]) / chosen.cost_ratio)
                .astype(float)
                .mean()
            ),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def cost(error: Any, ratio: float) -> Any:
    """Return the cost per case: places of under-triage times the ratio, plus places of over-triage, over ratio + 1.

    >>> cost(np.array([-1, 0, 2]), 3.0).tolist()
    [0.25, 0.0, 1.5]
    """
    return (ratio * np.maximum(error, 0) + np.maximum(-error, 0)) / (ratio + 1)


def constant_cost(gold: Any, ratio: float) -> float:
    """Return the least mean cost that one and the same answer to every case has."""
    return min(float(cost(place - gold, ratio).mean()) for place in range(int(gold.max()) + 1))


def cost_sweep(scored: pd.DataFrame, ratios: Any, tables: dict[tuple[str, str], Any] | None = None) -> pd.DataFrame:
    """Return cost and net benefit over cost ratios, neutral style.

    Args:
        scored: Of :func:`scores`.
        ratios: Cost ratios.
        tables: Further answers: (data set, name) -> counts, true place x assigned place.

    Returns:
        ``dataset, who, ratio, relative_cost`` (over the best constant answer), ``net_benefit`` (of treating the
        cases whose probability of a critical place is at least 1 / (1 + ratio); by assigned place for further
        answers), and rows ``everybody`` (treated). Treating nobody has a net benefit of 0.
    """
    cells = main(scored)
    cells = cells[cells["dataset"].isin(ORDINAL) & (cells["style"] == "neutral") & (cells["kind"] == "role")]
    rows: list[Any] = []
    for dataset, group in cells.groupby("dataset", sort=False):
        cases = group.drop_duplicates("cluster")
        gold, critical = cases["gold"].to_numpy(), (cases["care"] == "critical").mean()
        best = {ratio: constant_cost(gold, ratio) for ratio in ratios}
        for ratio in ratios:
            rows.append((dataset, "everybody", ratio, nan, critical - (1 - critical) / ratio))
        for who, part in group.groupby("who", sort=False):
            risk = np.array([p[:2].sum() for p in part["probability"]])
            urgent = (part["care"] == "critical").to_numpy()
            error = part["error"].to_numpy()
            for ratio in ratios:
                treated = risk >= 1 / (1 + ratio)
                benefit = (treated & urgent).mean() - (treated & ~urgent).mean() / ratio
                rows.append((dataset, who, ratio, cost(error, ratio).mean() / best[ratio], benefit))
        for (where, who), table in (tables or {}).items():
            if where != dataset:
                continue
            true, said = np.indices(table.shape)
            weight = table / table.sum()
            for ratio in ratios:
                treated = said < 2
                benefit = weight[treated & (true < 2)].sum() - weight[treated & (true >= 2)].sum() / ratio
                value = float((cost(said - true, ratio) * weight).sum()) / best[ratio]
                rows.append((dataset, who, ratio, value, float(benefit)))
    return pd.DataFrame(rows, columns=["dataset", "who", "ratio", "relative_cost", "net_benefit"])


def risk(scored: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Return risk propensity and sensitivity by style, for every role and for roles averaged.

    Returns:
        ``dataset, role`` ("all" averages them), ``style, n, propensity, low, high`` (places, Student's t over
        cases; for safety the share of risky replies), ``sensitivity, sensitivity_low, sensitivity_high`` (slope of
        the assigned on the true place, bootstrap over cases; none for safety).
    """
    cells = main(scored)
    cells = cells[(cells["kind"] == "role") & cells["dataset"].isin([*ORDINAL, "safety"])]
    rows: list[Any] = []
    for (dataset, style), group in cells.groupby(["dataset", "style"], sort=False):
        # Roles weigh the same, though one has fewer wordings.
        roles = group.groupby(["cluster", "role"], sort=False)[["error", "chosen", "gold"]].mean()
        parts = {"all": roles.groupby(level="cluster").mean()}
        parts |= {str(role): part.droplevel("role") for role, part in roles.groupby(level="role", sort=False)}
        for role, part in parts.items():
            value, low, high = mean_interval(part["error"], chosen.confidence)
            row: dict[str, Any] = {"dataset": dataset, "role": role, "style": style, "n": len(part)}
            row |= {"propensity": value, "low": low, "high": high}
            if dataset in ORDINAL:
                slope = lib_stats.cluster_bootstrap(
                    part["chosen"],
                    part["gold"],
                    cluster=pd.Series(part.index, index=part.index),
                    confidence=chosen.confidence,
                    replicates=chosen.replicates,
                    seed=chosen.seed,
                ).loc["slope"]
                row |= {"sensitivity": slope["estimate"]}
                row |= {"sensitivity_low": slope["low"], "sensitivity_high": slope["high"]}
            rows.append(row)
    return pd.DataFrame(rows)


def agreement(scored: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Return how the assigned place agrees with the true one, per role in neutral style.

    Returns:
        ``dataset, who, coefficient, estimate, low, high``: bootstrap over cases, whose wordings are drawn together.
    """
    cells = main(scored)
    cells = cells[cells["dataset"].isin(ORDINAL) & (cells["kind"] == "role") & (cells["style"] == "neutral")]
    rows: list[Any] = []
    for (dataset, who), group in cells.groupby(["dataset", "who"], sort=False):
        pairs = group[["gold", "chosen"]].reset_index(drop=True)
        how: dict[str, Any] = {
            "categories": range(int(group["n_options"].iloc[0])),
            "cluster": group["cluster"].reset_index(drop=True),
            "confidence": chosen.confidence,
            "replicates": chosen.replicates,
            "seed": chosen.seed,
        }
        for name, found in {
            "raw agreement": lib_stats.raw_agreement(pairs, **how),
            "kappa, linear": lib_stats.cohen_kappa(pairs, weights="linear", **how),
            "kappa, quadratic": lib_stats.cohen_kappa(pairs, weights="quadratic", **how),
            "Krippendorff alpha, ordinal": lib_stats.krippendorff_alpha(pairs, level="ordinal", **how),
            "Gwet AC1": lib_stats.gwet_ac(pairs, **how),
            "Gwet AC2, quadratic": lib_stats.gwet_ac(pairs, weights="quadratic", **how),
        }.items():
            rows.append((dataset, who, name, found.estimate, found.low, found.high))
    return pd.DataFrame(rows, columns=["dataset", "who", "coefficient", "estimate", "low", "high"])


# --- Consistency ---


def consistency(
    scored: pd.DataFrame, recorded: pd.DataFrame, asked: pd.DataFrame, chosen: Parameters
) -> pd.DataFrame:
    """Return how often two wordings, or two option orders, assign the same place to a case.

    Returns:
        ``over`` (wordings or option orders), ``dataset, who, n`` (cases), ``consistency, low, high`` (Wilson, n
        cases), ``by_chance`` (what the shares of places give alone).
    """
    rows: list[Any] = []
    cells = main(scored)
    for (dataset, who), group in cells[cells["wording"] > 0].groupby(["dataset", "who"], sort=False):
        wide = group.pivot(index="cluster", columns="wording", values="chosen")
        if wide.shape[1] > 1:
            rows.append(_same(wide, "wordings", str(dataset), str(who), chosen))
    letters = recorded[recorded["measure"] == "letter"].merge(
        asked[["item", "dataset", "cluster", "n_options"]], on="item"
    )
    for (dataset, condition), group in letters.groupby(["dataset", "condition"], sort=False):
        parts = []
        for n, part in group.groupby("n_options"):
            turned = scoring.in_declared_order(responses.matrix(part), part["order"].to_numpy())
            best = part[["cluster", "order"]].assign(chosen=turned.argmax(axis=1), n_options=n)
            parts.append(best.pivot(index="cluster", columns="order", values="chosen"))
        wide = pd.concat(parts)
        if wide.shape[1] > 1:
            rows.append(_same(wide, "option orders", str(dataset), str(condition), chosen))
    columns = ["over", "dataset", "who", "n", "consistency", "low", "high", "by_chance"]
    return pd.DataFrame(rows, columns=columns)


def _same(wide: pd.DataFrame, over: str, dataset: str, who: str, chosen: Parameters) -> dict[str, Any]:
    pairs, chance = [], []
    for a, b in combinations(wide.columns, 2):
        known = wide[[a, b]].dropna()
        pairs.append((known[a] == known[b]).astype(float))
        first, second = (known[column].value_counts(normalize=True) for column in (a, b))
        chance.append(float((first * second).sum()))
    each = pd.concat(pairs, axis=1).mean(axis=1)
    value = float(each.mean())
    low, high = wilson(value, len(each), chosen.confidence)
    return {
        "over": over,
        "dataset": dataset,
        "who": who,
        "n": len(each),
        "consistency": value,
        "low": low,
        "high": high,
        "by_chance": float(np.mean(chance)),
    }
