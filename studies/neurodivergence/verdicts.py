"""From tables to evidence, and from evidence to a verdict on every claim of the study of neurodivergence."""

from __future__ import annotations

from math import nan
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from neurodivergence.design import JUDGED, Parameters
from persona_studies.analyse import claims, families, verdicts
from persona_studies.analyse.stats.multiplicity import correct
from persona_studies.analyse.stats.power import units_that_decide
from persona_studies.design.protocol import Claim, Protocol

# What the paper tested where the declared hypothesis is another.
PAPERS_OWN = {"depth: C2 - C0": "mean_step_words: C2 - C0"}
PRIMARY = ("masking_reinforcement", "validation_quality")
DIGIT = 5.1e-4
"""Numbers agree when they differ by less: the paper prints three decimals."""
EVIDENCE = ["family", "hypothesis", "layer", "estimate", "low", "high", "p_adjusted", "p_equivalence"]
MORE = ["rejected", "equivalent", "informative", "reason", "rising", "falling", "n", "se", "sd"]


def tested(
    both: pd.DataFrame,
    single: pd.DataFrame,
    parts: pd.DataFrame,
    seen: pd.DataFrame,
    refitted: pd.DataFrame,
    gated: pd.DataFrame,
    parameters: Parameters,
) -> pd.DataFrame:
    """Return what each declared test came to, by the paper's analysis where it has one, and by the declared one.

    A judged metric is informative when its judges agree: alpha itself in the paper's analysis, in the declared one
    the lower limit of the reliability of their mean. Who judges is compared whether or not judges agree. Over both
    models, ``rising`` and ``falling`` name the models whose own contrast is significant by the layer's analysis.

    Args:
        both, single, parts, seen: The declared contrasts: over models, of each model, of step depth, by judge.
        refitted: The paper's own fits.
        gated: Of :func:`neurodivergence.raters.gated`.

    Returns:
        :data:`EVIDENCE`, :data:`MORE`.
    """
    reach = stats.norm.ppf(0.5 + parameters.confidence / 2)
    fits = {(row["scope"], row["metric"], row["contrast"]): row for row in refitted.to_dict("records")}
    gate = gated.set_index("metric")
    judges = seen[seen["judged"] == "self - cross"] if len(seen) else seen
    rows = []

    def add(row: dict[Any, Any], layer: str) -> None:
        metric, column = row.get("metric"), "passes" if layer == "corrected" else "point_passes"
        doubted = metric in JUDGED and row["family"] != "judges"
        passes = not doubted or (metric in gate.index and bool(gate.loc[str(metric), column]))
        reason = "" if passes else f"judges disagree on {str(metric).replace('_', ' ')}"
        moved = _moved(single, row) if layer == "corrected" else _moved_as_published(fits, row)
        rising, falling = moved if row["family"] == "pooled" else ((), ())
        found = {"layer": layer, "informative": passes, "reason": reason, "rising": rising, "falling": falling}
        rows.append({**row, **found})

    for row in pd.concat([both, single, parts, judges], ignore_index=True).to_dict("records"):
        row["family"] = row["family"] if isinstance(row["family"], str) else "judges"
        add(row, "corrected")
        own = PAPERS_OWN.get(row["hypothesis"])
        source = both.set_index("hypothesis").loc[own].to_dict() if own in set(both["hypothesis"]) else row
        scope = source["model"] if source["family"] == "models" else "pooled"
        place = (scope, source.get("metric"), row["contrast"])
        if row["family"] == "judges" or place not in fits or (row["family"] == "steps" and source is row):
            continue
        fit = fits[place]
        limits = (fit["estimate"] + np.array([-reach, reach]) * fit["se"]) / (source["sd"] or nan)
        found = {"estimate": source["estimate"], "low": limits[0], "high": limits[1], **_significance(fit)}
        add({**row, **found}, "published")
    return pd.DataFrame(rows)[[*EVIDENCE, *MORE]]


def _significance(fit: dict[Any, Any]) -> dict[str, Any]:
    """Return what the paper's own test says of a fit; it tests no equivalence."""
    p = fit["p_holm"]
    return {"p_adjusted": p, "rejected": p <= 0.05, "equivalent": False, "p_equivalence": nan}


def _moved(single: pd.DataFrame, row: dict[Any, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the models that rise and those that fall significantly, each by its own corrected test."""
    own = single[(single["metric"] == row.get("metric")) & (single["contrast"] == row["contrast"])]
    moved = own[own["rejected"].astype(bool)].set_index("model")["estimate"]
    return tuple(moved[moved > 0].index), tuple(moved[moved < 0].index)


def _moved_as_published(fits: dict[Any, Any], row: dict[Any, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the models that rise and those that fall significantly in the paper's own fits of single models."""
    own = {
        scope: fit
        for (scope, metric, contrast), fit in fits.items()
        if scope != "pooled" and (metric, contrast) == (row.get("metric"), row.get("contrast"))
    }
    moved = {scope: fit["estimate"] for scope, fit in own.items() if fit["p_holm"] <= 0.05}
    return (
        tuple(scope for scope, estimate in moved.items() if estimate > 0),
        tuple(scope for scope, estimate in moved.items() if estimate < 0),
    )


def decided(
    protocol: Protocol,
    both: pd.DataFrame,
    gated: pd.DataFrame,
    repeated: dict[str, Any],
    reversed_: int,
    parameters: Parameters,
) -> pd.DataFrame:
    """Return evidence that is no contrast: gates, the share of metrics that change, repetitions, reversals.

    Args:
        protocol: Size of the family of contrasts.
        both: Of :func:`beside`.
        gated: Of :func:`neurodivergence.raters.gated`.
        repeated: Of :func:`differing_calls`.
        reversed_: Estimates of single models with another sign than the pooled one, of :func:`mismatches`.

    Returns:
        As :func:`tested`, with ``why`` where the rule's own words do not fit, and ``details``.
    """
    rows: list[dict[str, Any]] = []

    def add(family: str, hypothesis: str, layer: str, estimate: float, rejected: bool, **how: Any) -> None:
        empty = dict.fromkeys(("low", "high", "p_adjusted", "p_equivalence", "n", "se", "sd", "needed"), nan)
        row = {"family": family, "hypothesis": hypothesis, "layer": layer, "estimate": estimate}
        plain = {"equivalent": False, "informative": True, "reason": "", "rising": (), "falling": ()}
        rows.append({**empty, **plain, **row, "rejected": rejected, **how})

    rest = gated[~gated["metric"].isin(PRIMARY)]
    named = {**{m: gated[gated["metric"] == m] for m in PRIMARY}, "the others": rest.sort_values("alpha").tail(1)}
    for hypothesis, found in named.items():
        for row in found.to_dict("records"):
            alpha, low, high, line = (float(row[name]) for name in ("alpha", "low", "high", "threshold"))
            about = f"alpha of {row['metric'].replace('_', ' ')}"
            add("agreement", hypothesis, "published", alpha, True, details=about)
            side = "lies above" if low > line else "lies below" if high < line else "includes"
            limits = {"low": low, "high": high, "why": f"its interval {side} {line:g}", "details": about}
            add("agreement", hypothesis, "corrected", alpha, low > line or high < line, **limits)
    changing = both[~both["metric"].isin(JUDGED)]
    for layer, significant in (("published", changing["p_wald_holm"] <= 0.05), ("corrected", changing["rejected"])):
        counts = changing.assign(significant=significant).groupby("contrast")["significant"].agg(["sum", "size"])
        if len(counts):
            counts = counts.assign(share=counts["sum"] / counts["size"]).sort_values("share", kind="stable")
            tally = {name: f"{row['sum']:.0f} of {row['size']:.0f}" for name, row in counts.iterrows()}
            share = float(counts["share"].iloc[0])
            more: dict[str, Any] = {"why": f"{next(iter(tally.values()))} metrics change significantly"}
            more["details"] = ", ".join(f"{name}: {n}" for name, n in tally.items())
            if layer == "corrected" and share <= 0.5:
                more["needed"] = _units_for_most(protocol, both, parameters)
            add("scope", "majority", layer, share, share > 0.5, **more)
    # The claim is that calls give the same answer, so its estimate is the share that is the same.
    shown = {"low": 1 - repeated["high"], "high": 1 - repeated["low"], "p_equivalence": repeated["p_equivalence"]}
    differ = bool(repeated["low"] > 0) or (repeated["estimate"] > 0 and np.isnan(repeated["low"]))
    equal = bool(repeated["p_equivalence"] <= parameters.alpha) or repeated["estimate"] == 0
    said = f"{repeated['estimate']:.0%} of repeated calls gave another text"
    same = 1 - repeated["estimate"]
    add("noise", "differing calls", "corrected", same, differ, equivalent=equal, why=said, **shown)
    said = f"the number decides: {reversed_} reversed estimates"
    add("text", "reversals", "published", reversed_, reversed_ > 0, equivalent=reversed_ == 0, why=said)
    return pd.DataFrame(rows)


def _units_for_most(protocol: Protocol, both: pd.DataFrame, parameters: Parameters) -> float:
    """Return the units with which most metrics change significantly, were effects and spreads as estimated."""
    pooled = protocol.families["pooled"]

    def decides(units: int) -> bool:
        more = families.more_units(both, units, bound="p_equivalence").set_index("hypothesis")
        p = more["p"].reindex(list(pooled.hypotheses))
        done = correct(
            p,
            size=pooled.size,
            alpha=parameters.alpha,
            method=parameters.correction,
            undefined=pooled.undefined,
        )
        rejected = done["rejected"]
        judged = more[~more["metric"].isin(JUDGED)]
        return bool(rejected[judged.index].groupby(judged["contrast"]).mean().min() > 0.5)

    return units_that_decide(decides, int(both["n"].max()))


def verdict_table(protocol: Protocol, evidence: pd.DataFrame, parameters: Parameters) -> pd.DataFrame:
    """Return the verdict on every claim, for each analysis that tests it.

    Power and equivalence of the declared tests are those at the claim's own smallest effect; power is at the level
    of the claim's family.

    Args:
        evidence: Of :func:`tested` and :func:`decided`.
    """
    rows = {(row["family"], row["hypothesis"], row["layer"]): row for row in evidence.to_dict("records")}
    found = {}
    for claim in protocol.claims.values():
        for layer in verdicts.LAYERS:
            key = (str(claim.family), str(claim.hypothesis), layer)
            if key in rows:
                level = verdicts.level(
                    protocol.families[key[0]], alpha=parameters.alpha, correction=parameters.correction
                )
                found[key] = _evidence(claim, rows[key], level, parameters)
    return verdicts.table(protocol, found, layer=parameters.layer, model=claims.PUBLISHED_DATA)


def recomputed(
    protocol: Protocol, reproduced: pd.DataFrame, gated: pd.DataFrame, printed: pd.DataFrame
) -> dict[str, str]:
    """Return, by claim, what the paper's analysis of the benchmark's rows gives again.

    Args:
        reproduced: Of :func:`neurodivergence.paper.reproduction`.
        gated: Of :func:`neurodivergence.raters.gated`.
        printed: The published alphas: ``metric, alpha``.

    Returns:
        Claim -> "✓" and the number, or "✗", the number and how far it is from the published one.
    """
    found: dict[str, tuple[str, float, float]] = {}
    for row in reproduced.to_dict("records"):
        scope = "" if row["scope"] == "pooled" else f"{row['scope']} "
        name = row["metric"].replace("_", " ")
        found[f"{scope}{row['metric']}: {row['contrast']}"] = (
            f"difference in {name}",
            row["estimate"],
            row["estimate_off"],
        )
    alphas = printed.set_index("metric")["alpha"]
    known = gated[gated["metric"].isin(alphas.index)]
    pairs = zip(known["metric"], known["alpha"], strict=True)
    again = {name: ("alpha", alpha, abs(alpha - alphas[name])) for name, alpha in pairs}
    rest = [value for name, value in again.items() if name not in PRIMARY]
    if rest:
        again["the others"] = ("largest alpha", max(value for _, value, _ in rest), max(off for *_, off in rest))
    said = {}
    for name, claim in protocol.claims.items():
        source = again if claim.family == "agreement" else {} if claim.family == "judges" else found
        key = PAPERS_OWN.get(str(claim.hypothesis), str(claim.hypothesis))
        if key in source:
            what, value, off = source[key]
            number = f"{what} {0.0 if abs(value) < DIGIT else value:.3g}"
            text = f"✓ {number}" if off <= DIGIT else f"✗ {number}, off by {off:.1g}"
            said[name] = text.replace("-", "−")
    return said


def _evidence(claim: Claim, row: dict[Any, Any], level: float, parameters: Parameters) -> verdicts.Evidence:
    """Return a row as evidence for a claim."""
    estimate, rejected = float(row["estimate"]), bool(row["rejected"])
    how: dict[str, Any] = {
        **{name: float(row[name]) for name in ("low", "high", "p_adjusted")},
        "informative": bool(row["informative"]),
        "reason": str(row["reason"]),
        **{name: row[name] for name in ("rising", "falling")},
        **{name: row[name] for name in ("why", "details") if isinstance(row.get(name), str)},
        # The paper's line for alpha is crossed by a number, not by a test.
        "sampled": (row["family"], row["layer"]) != ("agreement", "published"),
    }
    if row["layer"] == "corrected" and row["n"] > 1 and row["sd"] > 0:
        facts = {"se": row["se"] / row["sd"], "n": int(row["n"]), "level": level, "alpha": parameters.alpha}
        return verdicts.of_mean(claim, estimate=estimate, rejected=rejected, **facts, **how)
    equal, p = bool(row["equivalent"]), float(row["p_equivalence"])
    # The paper tests no equivalence: by its analysis no number of answers shows that there is no effect.
    never = row["layer"] == "published" and claim.direction == "none"
    needed = np.inf if never else None if np.isnan(row["needed"]) else float(row["needed"])
    return verdicts.Evidence(
        estimate=estimate, rejected=rejected, equivalent=equal, p_equivalence=p, needed=needed, **how
    )


def finding(
    both: pd.DataFrame,
    split: pd.DataFrame,
    checked: pd.DataFrame,
    judged: pd.DataFrame,
    parameters: Parameters,
) -> str:
    """Say what was found, from the computed tables."""
    rejected, wald = int(both["rejected"].sum()), int((both["p_wald_holm"] <= 0.05).sum())
    known = both.dropna(subset=["se_ratio"])
    wider = int((known["se_ratio"] > 1).sum())
    depth = split.set_index("hypothesis").loc[["any steps: C2 - C0", "depth: C2 - C0"]]
    passes = checked.loc[checked["passes"].astype(bool), "metric"].tolist() if len(checked) else []
    # Of a claim with both analyses the declared one counts, as in the scoreboard.
    own = judged.sort_values("layer").drop_duplicates("claim")
    said = ", ".join(f"{n} {name}" for name, n in own["verdict"].value_counts().items())
    agreed = ", ".join(name.replace("_", " ") for name in passes)
    threshold = float(checked["threshold"].max()) if len(checked) else nan
    unit = {"query": "queries", "response": "responses"}[parameters.unit]
    any_steps, longer = depth["difference"]
    low, high = (float(depth[name].iloc[1] * depth["sd"].iloc[1]) for name in ("low", "high"))
    return (
        f"**A profile of the user in the system prompt changes the answers in {rejected} of {len(both)} contrasts "
        f"when {unit} are the unit and the whole study is corrected; the paper's analysis finds {wald}. With "
        f"directives too, {100 * any_steps:+.0f} percentage points of answers have numbered steps, and where "
        f"there are steps their length changes by {longer:+.1f} words [{low:+.1f}, {high:+.1f}].** The standard "
        f"error over {unit} exceeds the published one for {wider} of {len(known)} contrasts. The reliability of "
        f"the judges' mean reaches {threshold:.2f} with its lower limit for "
        f"{agreed or 'no judged metric'}. Verdicts on {len(own)} claims: {said}."
    ).replace("-", "−")
