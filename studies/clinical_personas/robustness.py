"""What the paper's own way would show, and the contrasts of clinical personas in other models of the data."""

from __future__ import annotations

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
from clinical_personas.outcomes import ORDINAL, REFERENCE, main, wilson
from persona_studies.analyse import stats as lib_stats

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


# --- Other models of the data ---


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
    declared = table[table["family"] == "roles"].set_index("hypothesis")["estimate"]
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


# --- What the design can detect ---


def power_curve(table: pd.DataFrame, effects: Any, level: float) -> pd.DataFrame:
    """Return the power of the paired t-test of a role against the assistant, at the spread that was observed.

    Args:
        table: Of :func:`clinical_personas.analysis.contrasts`.
        effects: True differences in accuracy.
        level: Error rate of one test.

    Returns:
        ``dataset, n, effect, power`` for the physician's contrasts of accuracy.
    """
    mine = table[table["hypothesis"].str.startswith(f"physician - {REFERENCE} |") & (table["family"] == "roles")]
    rows = [
        (row["hypothesis"].split(" | ")[1], row["n"], effect, power)
        for row in mine[mine["se"] > 0].to_dict("records")
        for effect in effects
        for power in [lib_stats.power_mean(effect, row["se"], row["df"], alpha=level)]
    ]
    return pd.DataFrame(rows, columns=["dataset", "n", "effect", "power"])


def minimum_at(table: pd.DataFrame, n: int, level: float) -> float:
    """Return the difference in accuracy that n vignettes detect with 80 % power, at the observed spread."""
    row = table[(table["family"] == "roles") & (table["hypothesis"] == f"physician - {REFERENCE} | triage")]
    if row.empty or not row["se"].iloc[0] > 0:
        return nan
    spread = float(row["se"].iloc[0]) * sqrt(float(row["n"].iloc[0]))
    return lib_stats.minimum_detectable_mean(spread / sqrt(n), n - 1, alpha=level, power=0.8)
