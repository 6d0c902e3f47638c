"""A recorded model: scores of every block, and the declared families about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from math import nan
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats as sp
from scipy.special import expit
from statsmodels.stats.weightstats import DescrStatsW

from measurement import design, psychometrics, released
from measurement.design import Parameters
from persona_studies.analyse import families, scoring
from persona_studies.analyse.families import Settings
from persona_studies.design.protocol import Claim, Hypothesis, Protocol
from persona_studies.paths import Project

FAMILIES = (
    *("order", "negation", "wording", "order_by_domain", "induction", "specificity", "method"),
    *("format_sensitivity", "controls", "frames"),
)
PAIRS = {"true_false": "True/False", "yes_no": "Yes/No"}
INDEX = ["stratum", "item", "cluster"]
EVERY = "mean of all"
"""Stands for the condition where answers are means over all of them."""


@dataclass(frozen=True)
class Scores:
    """Scores of one recording, one row per answered cell; a block that is not recorded is empty.

    Attributes:
        binary: ``block`` (facts, binary), ``pair, condition, item, number, form, domain, key, true, order`` (0: yes
            first), ``log_odds, yes, mass``.
        rating: ``measure, condition, item, number, domain, key, wording, scale, rating`` (raw, turned where the
            scale falls), ``option`` (place of the likeliest label), ``mass``.
        said: ``measure, condition, item, number, domain, key, template, log_odds`` (statement against negation).
        scenario: ``condition, item, domain, template, order, score`` (1 to 5), ``option, mass``.
    """

    binary: pd.DataFrame
    rating: pd.DataFrame
    said: pd.DataFrame
    scenario: pd.DataFrame


def scores(project: Project, recorded: pd.DataFrame) -> Scores:
    """Score a recording; cells without probabilities are left out, and counted where the recording is described."""
    answered = recorded[recorded["logprob"].notna()].rename(columns={"option_mass": "mass"})
    items = design.statements(project)[["item", "number", "form", "domain", "key"]]
    known = design.facts(project)[["item", "form", "true"]]
    asked = pd.concat([items, known], ignore_index=True)
    return Scores(
        _binary(_of(answered, "facts_", "binary_"), asked),
        _rating(_of(answered, "rating_", "induced_rating"), items),
        _said(_of(answered, "statement", "frame"), items),
        _scenario(_of(answered, "scenario"), design.scenarios(project)[["item", "domain"]]),
    )


def _of(recorded: pd.DataFrame, *starts: str) -> pd.DataFrame:
    return recorded[recorded["measure"].str.startswith(starts)].reset_index(drop=True)


def _stacked(cells: pd.DataFrame, width: int) -> NDArray[np.float64]:
    return np.array(cells["logprob"].tolist(), dtype=float) if len(cells) else np.empty((0, width))


def _binary(cells: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
    shown = scoring.in_declared_order(_stacked(cells, 2), cells["order"].to_numpy(int))
    odds = shown[:, 0] - shown[:, 1]
    made = cells[["measure", "condition", "item", "template", "order", "mass"]].assign(
        log_odds=odds,
        yes=expit(odds),
        block=cells["measure"].map(lambda name: name.partition("_")[0]),
        pair=cells["measure"].map(lambda name: name.partition("_")[2]),
    )
    return made.merge(asked, on="item", how="left")


def _rating(cells: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    share = scoring.shares(_stacked(cells, 5))
    wording, scale = (cells["template"].map(lambda name, k=k: name.partition("_")[k]) for k in (0, 2))
    raw = share @ np.arange(1, 6)
    made = cells[["measure", "condition", "item", "mass"]].assign(
        wording=wording,
        scale=scale,
        rating=np.where(scale == "falling", 6 - raw, raw),
        option=share.argmax(axis=1) if len(share) else [],
    )
    return made.merge(items.drop(columns="form"), on="item", how="left")


def _said(cells: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    found = _stacked(cells, 2)
    made = cells[["measure", "condition", "item", "template"]].assign(log_odds=found[:, 0] - found[:, 1])
    return made.merge(items.drop(columns="form"), on="item", how="left")


def _scenario(cells: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    shown = scoring.shares(_stacked(cells, 4))
    own = scoring.in_declared_order(shown, cells["order"].to_numpy(int)) if len(shown) else shown
    made = cells[["condition", "item", "template", "order", "mass"]].assign(
        score=1 + 4 * (own[:, 0] + own[:, 2]), option=shown.argmax(axis=1) if len(shown) else []
    )
    return made.merge(items, on="item", how="left")


# --- Items by condition ------------------------------------------------------------------------------------------


def _indexed(wide: pd.DataFrame, domains: pd.Series) -> pd.DataFrame:
    """Return a table of items with the levels that families need, and their domain."""
    names = wide.index.to_series()
    levels = pd.MultiIndex.from_arrays([["all"] * len(wide), names, names], names=INDEX)
    return wide.set_axis(levels).assign(domain=domains.reindex(names).to_numpy())


def keyed(made: Scores) -> dict[str, pd.DataFrame]:
    """Return items x conditions by outcome (rating, statement, scenario), where high is more of the domain."""
    induced = made.rating[made.rating["measure"] == "induced_rating"]
    turned = induced.assign(value=np.where(induced["key"] > 0, induced["rating"], 6 - induced["rating"]))
    statement = made.said[made.said["measure"] == "statement"]
    statement = statement.assign(value=statement["log_odds"] * statement["key"])
    scenario = made.scenario[made.scenario["template"] == "do"].rename(columns={"score": "value"})
    found = {}
    for name, table in (("rating", turned), ("statement", statement), ("scenario", scenario)):
        if len(table):
            wide = table.pivot_table(index="item", columns="condition", values="value", sort=False)
            found[name] = _indexed(wide, table.drop_duplicates("item").set_index("item")["domain"])
    return found


def differences(made: Scores, people: pd.DataFrame) -> families.Differences:
    """Return how to take the paired differences of a declared contrast; empty where it was not recorded."""
    induced = keyed(made)
    compared = cache(lambda measure, outcome: _compared(made, measure, outcome))
    none = pd.Series(dtype=float, index=pd.MultiIndex.from_arrays([[], [], []], names=INDEX))
    roles = people.groupby("role")["condition"].agg(list)

    def gap(wide: pd.DataFrame | None, first: list[str], second: list[str]) -> pd.DataFrame | None:
        if wide is None or not {*first, *second} <= set(wide):
            return None
        gaps = wide[first].to_numpy().mean(axis=1) - wide[second].to_numpy().mean(axis=1)
        return pd.DataFrame({"gap": gaps, "domain": wide["domain"]})

    def of(contrast: Hypothesis, part: str | None) -> pd.Series:
        wide, first, second = _columns(contrast, induced, compared, roles)
        found = gap(wide, first, second)
        if found is None:
            return none
        if contrast.measure == "evaluation" or contrast.interaction is not None:
            sign = found["domain"].map(psychometrics.DESIRABLE).fillna(1)
            found = found.assign(gap=found["gap"] * sign)
        own = found["domain"] == contrast.on
        mine = found[~own if part == "others" else own] if contrast.on != "all" else found
        chosen: pd.Series = mine["gap"].dropna()
        return chosen

    return of


def _columns(
    contrast: Hypothesis,
    induced: Mapping[str, pd.DataFrame],
    compared: Callable[[str, str], pd.DataFrame | None],
    roles: pd.Series,
) -> tuple[pd.DataFrame | None, list[str], list[str]]:
    """Return the table of a contrast (items x what is compared) and the columns of both sides."""
    first, second = contrast.first, contrast.second
    if contrast.measure == "paragraph":
        names = [f"{each.replace(' ', '-')}-paragraph" for each in (first, second)]
        own = [name if name.startswith(contrast.on) else f"{contrast.on}-{name}" for name in names]
        return induced.get(contrast.outcome), own[:1], own[1:]
    if contrast.measure == "induced_rating":
        return induced.get("rating"), [first.replace(" ", "-")], [second.replace(" ", "-")]
    if contrast.measure == "evaluation":
        return induced.get(contrast.outcome), list(roles[first]), list(roles[second])
    return compared(contrast.measure, contrast.outcome), [first], [second]


def _compared(made: Scores, measure: str, outcome: str) -> pd.DataFrame | None:
    """Return items x orders, frames, wordings or scales; None where the block is not recorded."""
    if measure == "binary":
        cells = made.binary[(made.binary["block"] == "binary") & (made.binary["form"] == "plain")]
        side, value = cells["order"].map({0: "yes first", 1: "yes second"}), cells["yes"]
    elif measure == "frame":
        cells = made.said[made.said["measure"] == "frame"]
        side, value = cells["template"], cells["log_odds"] * cells["key"]
    else:
        # Raw ratings: what shifts all of them cancels in keyed scores of balanced scales.
        name = "rating_" if outcome == "rating" else f"rating_{outcome}"
        cells = made.rating[made.rating["measure"].str.startswith(name)]
        side, value = cells["wording"] if outcome == "rating" else cells["scale"], cells["rating"]
    if cells.empty:
        return None
    wide = cells.assign(side=side, value=value).pivot_table(
        index="item", columns="side", values="value", sort=False
    )
    return _indexed(wide, cells.drop_duplicates("item").set_index("item")["domain"])


# --- Families -----------------------------------------------------------------------------------------------------


def negations(made: Scores, how: Settings, replicates: int) -> dict[str, dict[str, Any]]:
    """Test consistency under negation: the likelier answer to an item, and the turned one to its negation."""
    cells = made.binary[made.binary["block"] == "binary"]
    rows = {}
    for pair, label in PAIRS.items():
        mine = cells[cells["pair"] == pair]
        wide = mine.pivot_table(index=["condition", "number"], columns="form", values="log_odds").dropna()
        for kind in ("word", "meaning"):
            if kind in wide and "plain" in wide:
                per_item = wide.groupby("number")[["plain", kind]].mean()
                plain, other = (per_item[name].to_numpy() > 0 for name in ("plain", kind))
                rows[f"{kind}, {label}"] = released.consistency(
                    plain.astype(int)[None], 1 - other.astype(int)[None], how, replicates
                )
    return rows


def turned(made: Scores) -> pd.DataFrame:
    """Say of every item whether its decision turns with the order of the options, without a system turn.

    A decision is whether the expected score or rating lies above the middle.

    Returns:
        ``test, wording, item, turned`` (0 or 1).
    """
    rated = made.rating[made.rating["measure"].str.startswith("rating_")]
    named = rated["measure"].str.replace("rating_", "rating, ")
    rated = rated.assign(test=named, value=rated["rating"], side=rated["scale"])
    asked = made.scenario
    asked = asked.assign(test="scenario", value=asked["score"], side=asked["order"], wording=asked["template"])
    cells = pd.concat([rated, asked], ignore_index=True)
    cells = cells[cells["condition"] == "none"].assign(high=cells["value"] > 3)
    sides = cells.groupby(["test", "wording", "item"], sort=False)["high"].agg(["size", "nunique"])
    found = sides[sides["size"] == 2].reset_index()
    return found.assign(turned=found["nunique"] - 1.0)[["test", "wording", "item", "turned"]]


def flips(made: Scores, claim: Claim, how: Settings) -> dict[str, dict[str, Any]]:
    """Compare scenarios with ratings by digits, each in its first wording: share of decisions that turn.

    Args:
        claim: Has the direction and the smallest effect.
    """
    every = turned(made)
    parts = []
    for test, wording in (("scenario", "do"), ("rating, digits", "accurate")):
        mine = every[(every["test"] == test) & (every["wording"] == wording)]
        levels = pd.MultiIndex.from_arrays([["all"] * len(mine), mine["item"], mine["item"]], names=INDEX)
        parts.append(mine["turned"].set_axis(levels))
    if not all(map(len, parts)):
        return {}
    row = families.between(parts[0], parts[1], how)
    declared: dict[str, Any] = {"direction": claim.direction, "smallest_effect": claim.smallest_effect}
    bound = families.bound_p(
        row["estimate"], row["se"], row["df"], margin=declared["smallest_effect"], direction=claim.direction
    )
    return {"scenario - rating": {**row, **declared, "p_bound": bound}}


def tests(protocol: Protocol, made: Scores, people: pd.DataFrame, parameters: Parameters) -> pd.DataFrame:
    """Test every family about the model, as :func:`persona_studies.analyse.families.corrected` returns them."""
    of, how, parts = differences(made, people), parameters.settings, []
    for name in FAMILIES:
        family = protocol.families[name]
        if name == "negation":
            rows = negations(made, how, parameters.bootstrap)
        elif name == "format_sensitivity":
            rows = flips(made, protocol.claims["TR1"], how)
        else:
            rows = families.estimated(family.contrasts, of, how)
        parts.append(families.corrected(name, family, rows, how))
    return pd.concat(parts, ignore_index=True)


def questionnaire(made: Scores, block: str = "induced_rating") -> psychometrics.Answers | None:
    """Return ratings as answers of so many people; None where the block is not recorded.

    Args:
        block: ``induced_rating``: conditions stand for people. ``rating_``: settings do, which are condition,
            wording and label set.
    """
    cells = made.rating[made.rating["measure"].str.startswith(block)]
    if cells.empty:
        return None
    who = cells[["condition", "wording", "measure"]].agg(", ".join, axis=1)
    wide = cells.assign(who=who).pivot_table(index="who", columns=["scale", "item"], values="rating", sort=False)
    about = cells.drop_duplicates("item").set_index("item").loc[wide["rising"].columns]
    return psychometrics.Answers(
        wide["rising"].to_numpy(),
        about["key"].to_numpy(int),
        about["domain"].to_numpy(str),
        wide["falling"][about.index].to_numpy(),
    )


# --- Tables -------------------------------------------------------------------------------------------------------


def consistency(made: Scores, confidence: float) -> pd.DataFrame:
    """Return how consistent binary answers are, in the columns of :func:`measurement.released.agreement`.

    ``condition`` is "mean of all", as the family ``negation`` has it, and then each condition by itself.
    """
    cells = made.binary[made.binary["block"] == "binary"]
    cells = pd.concat([cells.assign(condition=EVERY), cells])
    rows = []
    for (pair, condition), mine in cells.groupby(["pair", "condition"], sort=False):
        plain = mine[mine["form"] == "plain"]
        orders = plain.pivot_table(index="number", columns="order", values="log_odds") > 0
        forms = mine.pivot_table(index="number", columns="form", values="log_odds") > 0
        kinds = {"order": (orders[0], orders[1])} if orders.shape[1] == 2 else {}
        kinds |= {kind: (forms["plain"], ~forms[kind]) for kind in ("word", "meaning") if kind in forms}
        for kind, (one, two) in kinds.items():
            first, second = one.to_numpy(int), two.to_numpy(int)
            row = released.agreement(PAIRS[str(pair)], kind, first, second, confidence)
            rows.append({**row, "condition": condition})
    return pd.DataFrame(rows)


def orders(made: Scores, confidence: float) -> pd.DataFrame:
    """Return what the direction of the scale does to ratings without personas, wording by wording.

    Returns:
        ``labels, wording, condition, items, order_r`` (of both scales), ``shift, low, high`` (rising less falling,
        Student's interval over items), ``rating`` (mean of both scales).
    """
    cells = made.rating[made.rating["measure"].str.startswith("rating_")]
    sides = ["measure", "wording", "condition"]
    rows = []
    for name, mine in cells.groupby(sides, sort=False):
        wide = mine.pivot_table(index="item", columns="scale", values="rating")
        if wide.shape[1] < 2:
            continue
        shift = (wide["rising"] - wide["falling"]).to_numpy()
        low, high = DescrStatsW(shift).tconfint_mean(1 - confidence)
        rows.append(
            {
                **dict(zip(sides, name, strict=True)),
                "items": len(wide),
                "order_r": psychometrics.correlate(*wide[["rising", "falling"]].to_numpy().T),
                "shift": float(shift.mean()),
                "low": float(low),
                "high": float(high),
                "rating": float(wide.to_numpy().mean()),
            }
        )
    columns = [*sides, "items", "order_r", "shift", "low", "high", "rating"]
    table = pd.DataFrame(rows, columns=columns).rename(columns={"measure": "labels"})
    return table.assign(labels=table["labels"].str.removeprefix("rating_"))


def halves(made: Scores, people: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Describe every domain of the statements by its two keyed halves, over conditions.

    Returns:
        ``domain, conditions, alpha, pole_r, low, high`` (Fisher's interval), ``plus_shift, minus_shift`` (paragraph
        of the high pole less that of the low one, in nats, of statements keyed to either pole; above 0: towards the
        trait); empty where statements are not recorded.
    """
    found = keyed(made)
    if "statement" not in found:
        return pd.DataFrame()
    key = made.said.drop_duplicates("item").set_index("item")["key"]
    paragraphs = people[people["method"] == "paragraph"].set_index(["trait", "pole"])["condition"]
    rows = []
    for domain, wide in found["statement"].groupby("domain", sort=False):
        table = wide.drop(columns="domain").set_axis(wide.index.get_level_values("item"))
        plus, minus = (table[(key.reindex(table.index) * sign > 0).to_numpy()] for sign in (1, -1))
        one, other = plus.mean().to_numpy(), minus.mean().to_numpy()
        row: dict[str, Any] = {
            "domain": domain,
            "conditions": table.shape[1],
            "alpha": psychometrics.alpha(table.T.to_numpy())[0],
            "pole_r": psychometrics.correlate(one, other),
        }
        if np.isfinite(row["pole_r"]):
            row["low"], row["high"] = sp.pearsonr(one, other).confidence_interval(confidence)
        if {(domain, "high"), (domain, "low")} <= {*paragraphs.index}:
            high, low = (paragraphs[domain, pole] for pole in ("high", "low"))
            row |= {
                f"{name}_shift": float((half[high] - half[low]).mean())
                for name, half in (("plus", plus), ("minus", minus))
                if {high, low} <= {*half}
            }
        rows.append(row)
    return pd.DataFrame(rows)


def trait_scores(made: Scores) -> dict[str, pd.DataFrame]:
    """Return conditions x domains by outcome (rating, statement, scenario): means of keyed items."""
    return {name: wide.groupby("domain", sort=False).mean().T for name, wide in keyed(made).items()}


def trait_methods(made: Scores) -> pd.DataFrame:
    """Return correlations of trait scores over the conditions that two methods share.

    Returns:
        ``method_1, trait_1, method_2, trait_2, conditions, r``, every pair once; empty with fewer than two methods.
    """
    found = trait_scores(made)
    scores = {(method, trait): table[trait] for method, table in found.items() for trait in design.DOMAINS}
    names, rows = list(scores), []
    for k, one in enumerate(names if len(found) > 1 else []):
        for two in names[k + 1 :]:
            both = pd.concat([scores[one], scores[two]], axis=1).dropna().to_numpy()
            rows.append((*one, *two, len(both), psychometrics.correlate(both[:, 0], both[:, 1])))
    return pd.DataFrame(rows, columns=["method_1", "trait_1", "method_2", "trait_2", "conditions", "r"])


def convergence(matrix: pd.DataFrame) -> pd.DataFrame:
    """Summarise a trait-method matrix by pair of methods.

    Returns:
        ``methods, conditions, convergent`` (mean r of one trait by both methods), ``heterotrait`` (mean |r| of
        different traits by both), ``within_first, within_second`` (mean |r| of different traits by one method),
        ``ratio`` (heterotrait over convergent).
    """
    rows = []
    same = matrix["trait_1"] == matrix["trait_2"]
    within = matrix[matrix["method_1"] == matrix["method_2"]].groupby("method_1")["r"].agg(lambda r: r.abs().mean())
    across = matrix[matrix["method_1"] != matrix["method_2"]]
    for (one, two), part in across.groupby(["method_1", "method_2"], sort=False):
        hetero = float(part.loc[~same[part.index], "r"].abs().mean())
        convergent = float(part.loc[same[part.index], "r"].mean())
        rows.append(
            {
                "methods": f"{one}, {two}",
                "conditions": int(part["conditions"].min()),
                "convergent": convergent,
                "heterotrait": hetero,
                "within_first": float(within[str(one)]),
                "within_second": float(within[str(two)]),
                "ratio": hetero / convergent if convergent > 0 else nan,
            }
        )
    return pd.DataFrame(rows)


def crossed(made: Scores) -> pd.DataFrame:
    """Return ratings as given, the mean of both conditions: ``domain, item, wording, scale, labels, value``.

    They are not turned by the item's key: half of the items are, and a shift of a scale would look like theirs.
    """
    cells = made.rating[made.rating["measure"].str.startswith("rating_")]
    table = cells.assign(value=cells["rating"], labels=cells["measure"].str.removeprefix("rating_"))
    cellwise = table.groupby(["domain", "item", "wording", "scale", "labels"], sort=False)["value"].mean()
    return cellwise.reset_index()
