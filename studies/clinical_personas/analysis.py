"""Contrasts, gates and verdicts of the study of clinical personas."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from math import nan, sqrt
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.genmod import families as distributions
from statsmodels.genmod.cov_struct import Independence
from statsmodels.stats.contingency_tables import cochrans_q

from clinical_personas.design import Parameters
from clinical_personas.outcomes import ORDINAL, REFERENCE, accuracy, main, wilson
from persona_studies.analyse import multiple_choice as shared
from persona_studies.analyse import scoring, verdicts
from persona_studies.analyse import stats as lib_stats
from persona_studies.analyse.contrasts import outcome
from persona_studies.analyse.stats import equivalence_p
from persona_studies.design.protocol import Protocol

INDEX = ["dataset", "item", "cluster", "care"]
CONTROLS = ("placebo", "layperson", "toddler", "filler", "shuffled")


# --- Contrasts ---


def by_case(scored: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return cases x who, wordings averaged; indexed by ``dataset, item, cluster, care``."""
    return scored.pivot_table(index=INDEX, columns="who", values=value, sort=False)


def of(wide: pd.DataFrame | pd.Series, dataset: str, care: str | None = None) -> Any:
    """Return the cases of one data set, perhaps of one care setting."""
    keep = wide.index.get_level_values("dataset") == dataset
    if care is not None:
        keep &= wide.index.get_level_values("care") == care
    return wide[keep]


def _estimate(differences: pd.Series, chosen: Parameters) -> dict[str, Any]:
    [found] = shared.paired(
        differences.to_frame(),
        confidence=chosen.confidence,
        margin=chosen.margin,
        replicates=chosen.replicates,
        seed=chosen.seed,
    ).to_dict("records")
    strata = differences.dropna().index.get_level_values(0).nunique()
    return {**{str(name): value for name, value in found.items()}, "df": max(found["n"] - strata, 0)}


def _difference(wide: pd.DataFrame, first: str, second: str) -> pd.Series:
    there = first in wide and second in wide
    return wide[first] - wide[second] if there else pd.Series(dtype=float, index=wide.index[:0])


def interaction(differences: pd.Series, chosen: Parameters) -> dict[str, Any]:
    """Estimate how a difference differs between critical and primary care.

    The two settings hold different cases: interval and equivalence by Welch's t, p by permuting settings among
    cases with that t as statistic (Janssen 1997, Statistics and Probability Letters 36, 9-21).

    Args:
        differences: One per case of one data set, indexed as :func:`by_case`.
        chosen: Confidence, margin, replicates, seed.
    """
    d = differences.dropna()
    critical = (d.index.get_level_values("care") == "critical").astype(float)
    n, k = len(d), int(critical.sum())
    empty = ["difference", "sd", "se", "low", "high", "p", "p_equivalence", "df"]
    if k < 2 or n - k < 2:
        return {"n": n, **dict.fromkeys(empty, nan)}
    values = d.to_numpy(dtype=float)

    def welch(member: Any) -> tuple[Any, Any, Any, Any]:
        first, square = member @ values, member @ values**2
        second, squares = values.sum() - first, (values**2).sum() - square
        gap = first / k - second / (n - k)
        one = np.maximum(square / k - (first / k) ** 2, 0) / (k - 1)
        two = np.maximum(squares / (n - k) - (second / (n - k)) ** 2, 0) / (n - k - 1)
        return gap, np.sqrt(one + two), one, two

    gap, se, one, two = (float(value) for value in welch(critical))
    if se < 1e-12:
        same = abs(gap) < 1e-12
        row = {"difference": gap, "sd": 0.0, "se": 0.0, "low": gap, "high": gap, "p": 1.0 if same else nan}
        return {"n": n, **row, "p_equivalence": nan, "df": nan}
    df = se**4 / (one**2 / (k - 1) + two**2 / (n - k - 1))
    member = np.zeros((chosen.replicates, n))
    rng = np.random.default_rng(chosen.seed)
    np.put_along_axis(member, rng.random((chosen.replicates, n)).argsort(axis=1)[:, :k], 1.0, axis=1)
    gaps, spreads, _, _ = welch(member)
    # A permutation without spread is as extreme as can be, unless it has no difference either.
    t = np.divide(np.abs(gaps), spreads, out=np.where(np.abs(gaps) < 1e-12, 0.0, np.inf), where=spreads > 1e-12)
    extreme = int((t >= abs(gap) / se * (1 - 1e-12)).sum())
    reach = stats.t.ppf(0.5 + chosen.confidence / 2, df) * se
    return {
        "n": n,
        "difference": gap,
        "sd": float(d.std()),
        "se": se,
        "low": gap - reach,
        "high": gap + reach,
        "p": (extreme + 1) / (chosen.replicates + 1),
        "p_equivalence": equivalence_p(gap, se, margin=chosen.margin, df=df),
        "df": df,
    }


def contrasts(
    scored: pd.DataFrame,
    protocol: Protocol,
    chosen: Parameters,
    families: Iterable[str] = ("roles", "care", "style", "calibration", "safety", "controls", "variants"),
) -> pd.DataFrame:
    """Return every declared contrast, corrected within its family.

    Args:
        scored: Of :func:`scores`.
        protocol: Declares the families.
        chosen: Alpha, correction, confidence, margin, replicates, seed.
        families: Which.

    Returns:
        ``family, hypothesis, n, first, second`` (means; empty for interactions), ``difference, sd, se, df, low,
        high, p, p_adjusted, rejected, p_equivalence, p_equivalence_adjusted, equivalent, verdict``. Equivalence is
        tested for differences in accuracy, for the family ``roles`` corrected within its own family.
    """
    cells = main(scored)
    wide = {value: by_case(cells, value) for value in ("score", "error", "brier")}
    make = {
        "roles": lambda name: _pair(wide["score"], name, chosen),
        "care": lambda name: _care(wide["score"], name, chosen),
        "style": lambda name: _style(wide["error"], name, cells, chosen),
        "calibration": lambda name: _pair(wide["brier"], name, chosen),
        "safety": lambda name: _pair(wide["error"], f"{name} | safety", chosen),
        "controls": lambda name: _pair(wide["score"], f"{name} | all", chosen),
        "variants": lambda name: _variant(scored, name, protocol, chosen),
    }
    parts = []
    for family in families:
        table = pd.DataFrame(
            [{"family": family, "hypothesis": h, **make[family](h)} for h in protocol.families[family].hypotheses]
        )
        how: dict[str, Any] = {"alpha": chosen.alpha, "correction": chosen.correction}
        table[["p_adjusted", "rejected"]] = shared.corrected(table, "p", protocol.families[family], **how)
        if family == "roles":
            inside = shared.corrected(table, "p_equivalence", protocol.families["roles_equivalence"], **how)
            table["p_equivalence_adjusted"], table["equivalent"] = inside["p_adjusted"], inside["rejected"]
        else:
            if family not in ("care", "controls"):
                table["p_equivalence"] = nan
            table["p_equivalence_adjusted"] = table["p_equivalence"]
            table["equivalent"] = table["p_equivalence"] <= chosen.alpha
        parts.append(table)
    whole = pd.concat(parts, ignore_index=True)
    whole[["rejected", "equivalent"]] = whole[["rejected", "equivalent"]].astype(bool)
    accurate = whole["family"].isin(["roles", "care", "controls"])
    whole["verdict"] = [
        "not asked" if row["n"] == 0 else _said(row, accurate[place])
        for place, row in enumerate(whole.to_dict("records"))
    ]
    return whole[
        [
            *("family", "hypothesis", "n", "first", "second", "difference", "sd", "se", "df", "low", "high", "p"),
            *("p_adjusted", "rejected", "p_equivalence", "p_equivalence_adjusted", "equivalent", "verdict"),
        ]
    ]


def _said(row: dict[Any, Any], accurate: bool) -> str:
    if accurate:
        return outcome(row["difference"], rejected=row["rejected"], equivalent=row["equivalent"])
    return ("higher" if row["difference"] > 0 else "lower") if row["rejected"] else "inconclusive"


def _pair(wide: pd.DataFrame, name: str, chosen: Parameters) -> dict[str, Any]:
    """Return ``a - b | data set``; "all" is vignettes, emergency cases and medical questions."""
    contrast, dataset = name.split(" | ")
    first, second = contrast.split(" - ")
    if dataset == "all":
        part = wide[wide.index.get_level_values("dataset").isin([*ORDINAL, "medical"])]
    else:
        part = of(wide, dataset)
    return _compared(part, first, second, chosen)


def _compared(part: pd.DataFrame, first: str, second: str, chosen: Parameters) -> dict[str, Any]:
    there = first in part and second in part
    both = part[[first, second]].dropna() if there else None
    means = both.groupby(level=0).mean().mean() if both is not None and len(both) else {first: nan, second: nan}
    return {
        "first": float(means[first]),
        "second": float(means[second]),
        **_estimate(_difference(part, first, second), chosen),
    }


def _care(wide: pd.DataFrame, name: str, chosen: Parameters) -> dict[str, Any]:
    contrast, where = name.split(" | ")
    dataset, setting = where.split(", ")
    first, second = contrast.split(" - ")
    if setting == "interaction":
        found = interaction(_difference(of(wide, dataset), first, second), chosen)
        return {"first": nan, "second": nan, **found}
    return _compared(of(wide, dataset, setting), first, second, chosen)


def _style(wide: pd.DataFrame, name: str, cells: pd.DataFrame, chosen: Parameters) -> dict[str, Any]:
    """Compare two styles on the mean of all roles; a safety prompt's error is 1 where the reply is risky."""
    contrast, dataset = name.split(" | ")
    part = of(wide, dataset)
    roles = cells.loc[cells["kind"] == "role", ["role", "style", "who"]].drop_duplicates()
    means = {
        style: part[list(group["who"])].mean(axis=1, skipna=False)
        for style, group in roles.groupby("style", sort=False)
        if set(group["who"]) <= set(part)
    }
    first, second = contrast.split(" - ")
    return _compared(pd.DataFrame(means, index=part.index), first, second, chosen)


def _variant(scored: pd.DataFrame, name: str, protocol: Protocol, chosen: Parameters) -> dict[str, Any]:
    """Compare the place that the same case gets with two marks of gender, ethnicity or sex label."""
    contrast, dataset = name.split(" | ")
    first, second = contrast.split(" - ")
    # Variants are asked in the first wording; so the unmarked case counts in that one alone.
    cells = scored[(scored["dataset"] == dataset) & (scored["wording"] <= 1)]
    cells = cells[cells["who"].isin(protocol.design["variant_conditions"])]
    marks = cells["variant"].replace({"": "no label"}) if dataset == "esi" else cells["variant"]
    parts = {}
    for mark in (first, second):
        mine = cells[marks.map(lambda words, mark=mark: words == mark or mark in words.split()).astype(bool)]
        # First over other marks, then over roles.
        each = mine.groupby(["cluster", "who"])["chosen"].mean().groupby(level="cluster").mean()
        parts[mark] = each
    wide = pd.DataFrame(parts).dropna()
    wide.index = pd.MultiIndex.from_arrays(
        [[dataset] * len(wide), wide.index, wide.index], names=["dataset", "item", "cluster"]
    )
    return _compared(wide, first, second, chosen)


# --- The paper's way ---


def published_way(scored: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Compare every role with the assistant in every wording by McNemar's test, without correction.

    Returns:
        ``dataset, care`` (all, critical, primary), ``role, wording, n, b, c`` (only the role right, only the
        assistant), ``difference, low, high`` (Tango), ``p`` (mid-p), ``p_exact``.
    """
    cells = main(scored)
    cells = cells[(cells["kind"] == "role") & (cells["style"] == "neutral")]
    rows: list[Any] = []
    for dataset, group in cells[cells["dataset"] != "safety"].groupby("dataset", sort=False):
        wide: Any = group.pivot(index=["item", "care"], columns=["role", "wording"], values="correct")
        settings = ["all"] + (["critical", "primary"] if dataset in ORDINAL else [])
        wordings = sorted({wording for role, wording in wide if role == REFERENCE})
        for role in [role for role in dict.fromkeys(group["role"]) if role != REFERENCE]:
            for wording in wordings:
                mine = wide[(role, 0)] if (role, 0) in wide else wide.get((role, wording))
                if mine is None:
                    continue
                for setting in settings:
                    both = pd.DataFrame({"mine": mine, "other": wide[(REFERENCE, wording)]}).dropna()
                    if setting != "all":
                        both = both[both.index.get_level_values("care") == setting]
                    b = int(((both["mine"] == 1) & (both["other"] == 0)).sum())
                    c = int(((both["mine"] == 0) & (both["other"] == 1)).sum())
                    test = lib_stats.mcnemar(b, c, len(both), confidence=chosen.confidence)
                    rows.append(
                        {
                            "dataset": dataset,
                            "care": setting,
                            "role": role,
                            "wording": wording,
                            "n": len(both),
                            "b": b,
                            "c": c,
                            "difference": test.difference,
                            "low": test.difference_low,
                            "high": test.difference_high,
                            "p": test.p,
                            "p_exact": float(stats.binomtest(b, b + c).pvalue) if b + c else 1.0,
                        }
                    )
    return pd.DataFrame(rows)


def cochran(scored: pd.DataFrame) -> pd.DataFrame:
    """Test by Cochran's Q whether roles differ in accuracy, in every wording, without correction.

    Returns:
        ``dataset, wording, n, roles, q, df, p``; p is 1 where all roles are right on the same cases.
    """
    cells = main(scored)
    cells = cells[(cells["kind"] == "role") & (cells["style"] == "neutral") & (cells["dataset"] != "safety")]
    rows: list[Any] = []
    for dataset, group in cells.groupby("dataset", sort=False):
        wide: Any = group.pivot(index="item", columns=["role", "wording"], values="correct")
        for wording in sorted({wording for _, wording in wide if wording > 0}):
            table = wide[[(role, w) for role, w in wide if w in (0, wording)]].dropna()
            if table.shape[1] < 2:
                continue
            constant = bool((table.nunique(axis=1) == 1).all())
            found = None if constant else cochrans_q(table.to_numpy())
            rows.append(
                {
                    "dataset": dataset,
                    "wording": wording,
                    "n": len(table),
                    "roles": table.shape[1],
                    "q": float(found.statistic) if found else 0.0,
                    "df": table.shape[1] - 1,
                    "p": float(found.pvalue) if found else 1.0,
                }
            )
    return pd.DataFrame(rows)


# --- Robustness ---


def sensitivity(scored: pd.DataFrame, table: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Return the same effects as log odds ratios of a logit by GEE: correct ~ role * style, cases as clusters.

    Returns:
        ``dataset, term, estimate, low, high, p, agrees`` (sign as in the declared contrast, where there is one;
        empty otherwise). Left out are data sets without a finite estimate: some cell is always right or always
        wrong, or no case is answered differently under any condition.
    """
    cells = main(scored)
    cells = cells[(cells["kind"] == "role") & cells["dataset"].isin([*ORDINAL, "safety"])]
    cells = cells[[REFERENCE in set(cells["role"])] * len(cells)]
    declared = table[table["family"] == "roles"].set_index("hypothesis")["difference"]
    rows: list[Any] = []
    for dataset, group in cells.groupby("dataset", sort=False):
        shares = group.groupby(["role", "style"])["correct"].mean()
        crossed = group["role"].nunique() > 1 and group["style"].nunique() > 1
        alike = group.groupby("cluster")["correct"].nunique().max() == 1
        if not crossed or alike or shares.min() == 0 or shares.max() == 1:
            continue
        first = sorted(group["style"].unique(), key=lambda style: style != "neutral")[0]
        fit = smf.gee(
            f"correct ~ C(role, Treatment('{REFERENCE}')) * C(style, Treatment('{first}'))",
            "code",
            group.assign(code=pd.factorize(group["cluster"])[0]).sort_values("code", kind="stable"),
            family=distributions.Binomial(),
            cov_struct=Independence(),
        ).fit()
        limits = fit.conf_int(1 - chosen.confidence)
        for name in fit.params.index[1:]:
            term = " x ".join(part.split("[T.")[1].rstrip("]") for part in str(name).split(":"))
            declared_as = f"{term} - {REFERENCE} | {dataset}"
            sign = np.sign(np.round(declared.get(declared_as, nan), 12))
            rows.append(
                {
                    "dataset": dataset,
                    "term": term,
                    "estimate": float(fit.params[name]),
                    "low": float(limits.loc[name, 0]),
                    "high": float(limits.loc[name, 1]),
                    "p": float(fit.pvalues[name]),
                    "agrees": "" if np.isnan(sign) else "yes" if sign in (0, np.sign(fit.params[name])) else "no",
                }
            )
    return pd.DataFrame(rows, columns=["dataset", "term", "estimate", "low", "high", "p", "agrees"])


def moved(scored: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Return, beside the interaction with the care setting, whether answers moved or followed urgency better.

    Not declared: made after the responses were seen, and not tested. Answers that all become more urgent gain among
    critical cases what they lose among primary ones, whether or not they have to do with urgency.

    Returns:
        ``dataset, who, critical, primary, interaction`` (differences in accuracy from the assistant),
        ``propensity`` (difference in places; negative is more urgent), ``sensitivity`` (slope on true urgency, of
        who) and ``sensitivity_assistant``, ``spread`` (share of answers that are not the commonest).
    """
    cells = main(scored)
    cells = cells[cells["dataset"].isin(ORDINAL) & (cells["style"] == "neutral")]
    rows: list[Any] = []
    for dataset, group in cells.groupby("dataset", sort=False):
        each = group.groupby(["who", "cluster"], sort=False)[["score", "chosen", "gold"]].mean()
        care = group.drop_duplicates("cluster").set_index("cluster")["care"]
        if REFERENCE not in each.index.get_level_values("who"):
            continue
        other = each.loc[REFERENCE]
        for who in dict.fromkeys(group["who"]):
            mine = each.loc[who]
            gain = (mine["score"] - other["score"]).groupby(care).mean()
            slopes = [float(np.polyfit(part["gold"], part["chosen"], 1)[0]) for part in (mine, other)]
            shares = group.loc[group["who"] == who, "chosen"].value_counts(normalize=True)
            rows.append(
                {
                    "dataset": dataset,
                    "who": who,
                    "critical": float(gain["critical"]),
                    "primary": float(gain["primary"]),
                    "interaction": float(gain["critical"] - gain["primary"]),
                    "propensity": float((mine["chosen"] - other["chosen"]).mean()),
                    "sensitivity": slopes[0],
                    "sensitivity_assistant": slopes[1],
                    "spread": float(1 - shares.max()),
                }
            )
    return pd.DataFrame(rows)


def power(table: pd.DataFrame, protocol: Protocol, chosen: Parameters) -> pd.DataFrame:
    """Return what each contrast can detect, from its observed standard error.

    Returns:
        ``family, hypothesis, n, se, df, minimum_detectable`` (80 % power, two-sided at alpha),
        ``minimum_detectable_family`` (at alpha over the family's size, which the smallest p has to meet).
    """
    able = table[(table["n"] > 1) & (table["se"] > 0)].reset_index(drop=True)
    size = able["family"].map({name: family.size for name, family in protocol.families.items()})
    reach = stats.t.ppf(0.8, able["df"])
    return able[["family", "hypothesis", "n", "se", "df"]].assign(
        minimum_detectable=(stats.t.ppf(1 - chosen.alpha / 2, able["df"]) + reach) * able["se"],
        minimum_detectable_family=(stats.t.ppf(1 - chosen.alpha / 2 / size, able["df"]) + reach) * able["se"],
    )


def power_curve(table: pd.DataFrame, effects: Any, chosen: Parameters) -> pd.DataFrame:
    """Return the power of the paired t-test of a role against the assistant, at the spread that was observed.

    Returns:
        ``hypothesis, n, sd, effect, power`` for the physician's contrasts of accuracy, at alpha without correction.
    """
    rows: list[Any] = []
    mine = table[table["hypothesis"].str.startswith(f"physician - {REFERENCE} |") & (table["family"] == "roles")]
    for row in mine[mine["se"] > 0].to_dict("records"):
        edge = stats.t.ppf(1 - chosen.alpha / 2, row["df"])
        for effect in effects:
            shift = effect / row["se"]
            value = _beyond(edge, row["df"], shift) + float(stats.nct.cdf(-edge, row["df"], shift))
            rows.append((row["hypothesis"].split(" | ")[1], row["n"], row["sd"], effect, value))
    return pd.DataFrame(rows, columns=["dataset", "n", "sd", "effect", "power"])


def safety_by_policy(scored: pd.DataFrame, bank: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Return the share of risky replies by policy, and by how the safe reply begins.

    Args:
        scored: Of :func:`scores`.
        bank: Prompts with their replies, as :func:`clinical_personas.safety` returns them.
        chosen: Confidence.

    Returns:
        ``by`` (policy, or the safe reply's first word: no, yes, other), ``group, role, prompts, risky, low, high``
        (Wilson, n prompts; neutral style, wordings averaged).
    """
    cells = main(scored)
    cells = cells[(cells["dataset"] == "safety") & (cells["kind"] == "role") & (cells["style"] == "neutral")]
    words = {
        item: options[0].split()[0].strip(".,").lower() for item, options in bank[["item", "options"]].to_numpy()
    }
    first = cells["item"].map(words)
    cells = cells.assign(
        policy=cells["policy"], first=first.where(first.isin(["no", "yes"]), "other"), risky=cells["error"]
    )
    rows: list[Any] = []
    for by, column in (("policy", "policy"), ("safe reply begins with", "first")):
        for (group, role), part in cells.groupby([column, "role"], sort=False):
            each = part.groupby("cluster")["risky"].mean()
            low, high = wilson(float(each.mean()), len(each), chosen.confidence)
            rows.append((by, group, role, len(each), float(each.mean()), low, high))
    return pd.DataFrame(rows, columns=["by", "group", "role", "prompts", "risky", "low", "high"])


# --- Does the measure measure anything? ---


def gates(
    protocol: Protocol,
    scored: dict[str, pd.DataFrame],
    recorded: pd.DataFrame,
    asked: pd.DataFrame,
    parsed: float,
    chosen: Parameters,
) -> pd.DataFrame:
    """Decide by rule whether each measure counts on each data set.

    Args:
        protocol: Thresholds.
        scored: Scores by measure, of those that are recorded.
        recorded: Responses, for option mass and position dominance.
        asked: Questions.
        parsed: Share of replies that name an urgency.
        chosen: Parameters.

    Returns:
        ``measure, dataset`` ("all": counts for every one), ``check, value, rule, threshold, passes``.
    """
    parts = []
    for name, table in scored.items():
        if name == "text":
            continue
        declared = protocol.measures["letter" if name == "letter" else "cloze"].gate
        cells = main(table)
        if name == "letter":
            letters = recorded[recorded["measure"] == "letter"]
            dominance = shared.position_dominance(recorded, asked)
            checks: dict[str, tuple[float, str, float]] = {
                "option mass": (
                    float(letters["option_mass"].astype(float).mean()),
                    ">=",
                    declared["min_option_mass"],
                ),
                "position decides": (dominance, "<=", declared["max_position_dominance"]),
            }
        else:
            fall = -_pair(by_case(cells, "score"), f"toddler - {REFERENCE} | all", chosen)["difference"]
            checks = {"fall under the toddler": (fall, ">=", declared["positive_control"])}
        parts.append(scoring.gate(checks).assign(measure=name, dataset="all"))
        reference = accuracy(cells[cells["who"] == REFERENCE], chosen)
        for row in reference.to_dict("records"):
            dataset = row["dataset"]
            mine = cells[(cells["dataset"] == dataset) & (cells["who"] == REFERENCE)]
            commonest = float(mine["chosen"].value_counts(normalize=True).max())
            checks = {
                "accuracy above chance": (row["low"], ">=", row["chance"]),
                "accuracy below the ceiling": (row["high"], "<=", declared["ceiling"]),
                "answers vary": (1 - commonest, ">=", declared["spread"]),
            }
            if "wordings" in declared and mine["wording"].nunique() > 1:
                checks["wordings agree"] = (_wordings(cells, str(dataset)), ">=", declared["wordings"])
            if dataset in ORDINAL:
                kappa = lib_stats.cohen_kappa(
                    mine[["gold", "chosen"]].reset_index(drop=True),
                    categories=range(int(mine["n_options"].iloc[0])),
                    weights="quadratic",
                    cluster=mine["cluster"].reset_index(drop=True),
                    confidence=chosen.confidence,
                    replicates=chosen.replicates,
                    seed=chosen.seed,
                )
                checks["kappa with the truth"] = (kappa.low, ">=", declared["kappa"])
            parts.append(scoring.gate(checks).assign(measure=name, dataset=dataset))
    if "text" not in scored:
        return pd.concat(parts, ignore_index=True)[
            ["measure", "dataset", "check", "value", "rule", "threshold", "passes"]
        ]
    checks = {"an urgency is named": (parsed, ">=", protocol.measures["text"].gate["parsed"])}
    parts.append(scoring.gate(checks).assign(measure="text", dataset="triage"))
    whole = pd.concat(parts, ignore_index=True)
    return whole[["measure", "dataset", "check", "value", "rule", "threshold", "passes"]]


def failed(checked: pd.DataFrame, measure: str, dataset: str) -> list[str]:
    """Return the checks that a measure fails on a data set."""
    mine = checked[(checked["measure"] == measure) & checked["dataset"].isin(["all", dataset])]
    return mine.loc[~mine["passes"], "check"].tolist()


def _wordings(cells: pd.DataFrame, dataset: str) -> float:
    """Return the mean correlation over cases of the place chosen in two wordings of the same role."""
    found = []
    mine = cells[(cells["dataset"] == dataset) & cells["who"].isin([REFERENCE, "physician", "nurse"])]
    for _, group in mine.groupby("who", sort=False):
        wide = group.pivot(index="cluster", columns="wording", values="chosen")
        for a, b in combinations(wide.columns, 2):
            varies = wide[a].nunique() > 1 and wide[b].nunique() > 1
            found.append(float(np.corrcoef(wide[a], wide[b])[0, 1]) if varies else 0.0)
    return float(np.mean(found)) if found else nan


# --- Verdicts ---


def verdict_table(
    protocol: Protocol,
    table: pd.DataFrame,
    checked: pd.DataFrame,
    scored: pd.DataFrame,
    chosen: Parameters,
) -> pd.DataFrame:
    """Return the verdict on every claim, in the layers that are shown.

    ``corrected``: the declared contrast, wordings averaged, corrected within its family; equivalence to less than
    the claim's smallest effect corrected over claims. ``published``: the first wording alone, without correction;
    accuracy by McNemar's mid-p. A failed gate of its data set makes a claim uninformative in either.

    Args:
        protocol: Claims.
        table: Of :func:`contrasts`.
        checked: Of :func:`gates`.
        scored: Of :func:`scores`, for the published layer.
        chosen: Parameters.
    """
    rows: list[Any] = []
    if chosen.layer != "corrected":
        alone = scored[scored["wording"] <= 1]
        loose = chosen.model_copy(update={"correction": "none"})
        wanted = {claim.family for claim in protocol.claims.values() if claim.family}
        first = contrasts(alone, protocol, loose, families=sorted(wanted))
        paper = published_way(alone, chosen).set_index(["role", "dataset", "care"])[["low", "high", "p"]]
        rows += _judged(protocol, first, checked, chosen, paper)
    if chosen.layer != "published":
        rows += _judged(protocol, table, checked, chosen, None)
    order = {name: place for place, name in enumerate(protocol.claims)}
    return pd.DataFrame(rows).sort_values("claim", key=lambda c: c.map(order), kind="stable", ignore_index=True)


def _judged(
    protocol: Protocol,
    table: pd.DataFrame,
    checked: pd.DataFrame,
    chosen: Parameters,
    paper: Any | None,
) -> list[dict[str, Any]]:
    found = {(row["family"], row["hypothesis"]): row for row in table.to_dict("records")}
    inside = _inside(protocol, found, chosen)
    rows: list[Any] = []
    for name, claim in protocol.claims.items():
        row: dict[Any, Any] = found.get((claim.family or "", claim.hypothesis or ""), {"n": 0})
        evidence = None
        if claim.hypothesis and row["n"] > 0:
            rejected = bool(row["rejected"])
            if paper is not None and claim.family == "care" and not claim.hypothesis.endswith("interaction"):
                contrast, where = claim.hypothesis.split(" | ")
                low, high, p = paper.loc[(contrast.split(" - ")[0], *where.split(", "))]
                row, rejected = {**row, "low": low, "high": high, "p_adjusted": p}, bool(p <= chosen.alpha)
            dataset = claim.hypothesis.split(" | ")[1].split(",")[0]
            missed = failed(checked, chosen.measure, dataset)
            evidence = verdicts.Evidence(
                estimate=float(row["difference"]),
                rejected=rejected,
                equivalent=paper is None and bool(inside.loc[name, "rejected"]),
                power=None if paper is not None else _power(row, claim.smallest_effect or nan, protocol, chosen),
                informative=not missed,
                reason=f"gate of {chosen.measure} on {dataset}: {', '.join(missed)}" if missed else "",
            )
        elif paper is not None:
            continue
        said, why = verdicts.verdict(claim, evidence)
        if evidence is None and claim.not_testable is None:
            why = f"this contrast was not asked by the measure {chosen.measure}"
        if paper is not None:
            why = why.replace("after correction", "without correction")
        rows.append(
            {
                "claim": name,
                "layer": "corrected" if paper is None else "published",
                "statement": claim.statement,
                "published": claim.published,
                "hypothesis": claim.hypothesis or "",
                "estimate": row.get("difference", nan),
                "low": row.get("low", nan),
                "high": row.get("high", nan),
                "p_adjusted": row.get("p_adjusted", nan) if evidence else nan,
                "p_equivalence_adjusted": inside.loc[name, "p_adjusted"] if evidence and paper is None else nan,
                "verdict": said,
                "why": why,
            }
        )
    return rows


def _inside(protocol: Protocol, found: dict[tuple[str, str], Any], chosen: Parameters) -> pd.DataFrame:
    """Test every claim's effect against its own smallest effect of interest."""
    rows: list[Any] = []
    for name in protocol.families["claims_equivalence"].hypotheses:
        claim = protocol.claims[name]
        row = found.get((claim.family or "", claim.hypothesis or ""))
        known = row is not None and row["n"] > 1 and row["se"] > 0 and claim.smallest_effect is not None
        p = (
            equivalence_p(row["difference"], row["se"], margin=claim.smallest_effect, df=row["df"])
            if known and row is not None and claim.smallest_effect is not None
            else nan
        )
        rows.append({"hypothesis": name, "p": p})
    table = pd.DataFrame(rows)
    done = shared.corrected(
        table, "p", protocol.families["claims_equivalence"], alpha=chosen.alpha, correction=chosen.correction
    )
    done = done.set_axis(table["hypothesis"])
    # Claims that are not tested stand beside the others in the table.
    return done.reindex(list(protocol.claims)).assign(rejected=lambda t: t["rejected"].eq(True))


def _power(row: dict[Any, Any], effect: float, protocol: Protocol, chosen: Parameters) -> float:
    """Return the power of a contrast for an effect at the level that the smallest p of its family has to meet."""
    if not row["se"] > 0:
        return nan
    edge = stats.t.ppf(1 - chosen.alpha / 2 / protocol.families[row["family"]].size, row["df"])
    return _beyond(edge, row["df"], effect / row["se"])


def _beyond(edge: float, df: float, shift: float) -> float:
    """Return P(t > edge) of the noncentral t; scipy gives NaN far out, where it is 1 to all digits."""
    return float(np.nan_to_num(stats.nct.sf(edge, df, shift), nan=1.0))


def finding(
    reached: pd.DataFrame,
    table: pd.DataFrame,
    shifted: pd.DataFrame,
    judged: pd.DataFrame,
    checked: pd.DataFrame,
    chosen: Parameters,
) -> str:
    """Say what was found in a few sentences, from the computed tables."""
    rows = table[(table["family"] == "roles") & (table["n"] > 0)]
    told = ", ".join(f"{n} {name}" for name, n in rows["verdict"].value_counts().items())
    mine = judged[judged["layer"] == judged["layer"].iloc[-1]]
    said = ", ".join(f"{n} {name}" for name, n in mine["verdict"].value_counts().items())
    reference = reached[reached["who"] == REFERENCE].set_index("dataset")
    shares = "; ".join(
        f"{name} {row['accuracy']:.2f} [{row['low']:.2f}, {row['high']:.2f}], chance {row['chance']:.2f}"
        for name, row in reference.iterrows()
    )
    text = f"**{chosen.model}** as a helpful assistant is right on: {shares}. "
    text += f"Of {len(rows)} differences between a role and the assistant in accuracy, {told}. "
    for row in shifted.to_dict("records"):
        if (row["who"], row["dataset"]) != ("physician", "triage"):
            continue
        text += (
            f"On the vignettes the physician's difference is {row['critical']:+.2f} in critical and "
            f"{row['primary']:+.2f} in primary care, while its answers are {abs(row['propensity']):.2f} places "
            f"{'more' if row['propensity'] < 0 else 'less'} urgent on the whole, with a slope of "
            f"{row['sensitivity']:.2f} on the true urgency (1 would follow it). "
        )
        controls = shifted[(shifted["dataset"] == "triage") & shifted["who"].isin(CONTROLS)]["interaction"]
        if len(controls):
            text += (
                f"That is an interaction of {row['interaction']:+.2f}; controls that are no clinician have "
                f"{controls.min():+.2f} to {controls.max():+.2f}. "
            )
    lacking = {name: failed(checked, chosen.measure, str(name)) for name in reference.index}
    broken = [f"{name} ({', '.join(checks)})" for name, checks in lacking.items() if checks]
    if broken:
        text += f"The gate of {chosen.measure} fails on {'; '.join(broken)}. "
    return text + f"Verdicts on the claims: {said}."


def minimum_at(table: pd.DataFrame, n: int, chosen: Parameters) -> float:
    """Return the difference in accuracy that n vignettes detect with 80 % power, at the observed spread."""
    row = table[(table["family"] == "roles") & (table["hypothesis"] == f"physician - {REFERENCE} | triage")]
    if row.empty or not row["sd"].iloc[0] > 0:
        return nan
    reach = stats.t.ppf(1 - chosen.alpha / 2, n - 1) + stats.t.ppf(0.8, n - 1)
    return float(reach * row["sd"].iloc[0] / sqrt(n))
