"""What Prompting Science Report 4 reports on expert personas and accuracy, judged again by this study's rules.

Basil et al., "Playing Pretend", arXiv 2512.05858: the contrasts that notes on the report name, second-hand and
selected; the tests of their families that are not at hand count as not rejected.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, nan
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats as distributions

from persona_studies.analyse.contrasts import INFERIOR, SUPERIOR, outcome
from persona_studies.analyse.stats.equivalence import equivalence_p
from persona_studies.analyse.stats.estimate import fraction
from persona_studies.analyse.stats.multiplicity import Correction, correct
from persona_studies.errors import SourceError, StatisticsError
from persona_studies.paths import Project


def _corrected(p: pd.Series, *, size: int, alpha: float, method: Correction) -> pd.DataFrame:
    """Correct the reported tests of a family of ``size``; tests that are not at hand count as p = 1."""
    if size < len(p):
        raise StatisticsError(f"A family of {size} tests cannot hold the {len(p)} reported ones; enlarge its size.")
    rest = pd.Series(nan, index=[("not at hand", number) for number in range(size - len(p))], dtype=float)
    named = p.set_axis([("reported", place) for place in p.index])
    corrected = correct(pd.concat([named, rest]), size=size, alpha=alpha, method=method, undefined="one")
    return corrected.head(len(p)).set_axis(p.index)


# --- Prompting Science Report 4 -----------------------------------------------------------------------------------

PSR4_CITATION = "Basil et al. 2025, Prompting Science Report 4, arXiv 2512.05858"

# The report's own rule and resampling, and its count of pairwise tests.
PAPER_ALPHA = 0.05
PAPER_REPLICATES = 5000
PAPER_TESTS = 432
# Confidence of the intervals that the report prints.
PAPER_CONFIDENCE = 0.95

# One benchmark and one outcome has 3 domains x 6 models, once in domain and twice off domain (adjacent, unrelated),
# and on all its questions 3 low-knowledge and 5 expert personas x 6 models. Counted from the design.
FAMILY = {
    "in_domain": "in-domain",
    "adjacent": "off-domain",
    "unrelated": "off-domain",
    "low_knowledge": "low-knowledge",
    "expert": "any expert",
}
FAMILY_SIZES: Mapping[str, int] = {"in-domain": 18, "off-domain": 36, "low-knowledge": 18, "any expert": 30}
ALL_SIZES: Mapping[str, int] = {**FAMILY_SIZES, "all pairwise tests": PAPER_TESTS}

QUESTIONS = {
    ("gpqa_diamond", "all"): 198,
    ("mmlu_pro_300", "all"): 300,
    ("mmlu_pro_300", "engineering"): 100,
    ("mmlu_pro_300", "law"): 100,
    ("mmlu_pro_300", "chemistry"): 100,
}


def derive_reported(notes: Path) -> pd.DataFrame:
    """Return the report's contrasts, one row each, from notes on its text.

    Args:
        notes: CSV ``benchmark, domain, model, persona, relation, rd, ci_low, ci_high, p, threshold, note``, p as
            text with ``<`` or ``<=`` where only a bound is stated.

    Returns:
        ``benchmark, domain, model, persona, relation, outcome, estimate, low, high, p_relation, p, basis, note,
        citation``: difference of accuracies against the baseline, its 95 % interval where stated.

    Raises:
        SourceError: a relation, a p or an interval cannot be read.
    """
    rows = pd.read_csv(notes, dtype={"p": str})
    parts = rows["p"].str.extract(r"^(<=|<)?\s*([01]?\.\d+)$")
    between = (rows["ci_low"] <= rows["rd"]) & (rows["rd"] <= rows["ci_high"])
    bare = rows[["ci_low", "ci_high"]].isna().all(axis=1)
    unread = parts[1].isna() | ~rows["relation"].isin(FAMILY) | ~(between | bare)
    if unread.any():
        raise SourceError(
            f"Rows {rows.index[unread].tolist()} of {notes.name} have no readable p, relation or interval."
        )
    return pd.DataFrame(
        {
            **{name: rows[name] for name in ("benchmark", "domain", "model", "persona", "relation")},
            "outcome": rows["threshold"],
            "estimate": rows["rd"],
            "low": rows["ci_low"],
            "high": rows["ci_high"],
            "p_relation": parts[0].fillna("="),
            "p": parts[1].astype(float),
            "basis": "notes",
            "note": rows["note"],
            "citation": PSR4_CITATION,
        }
    )


def reported(project: Project) -> pd.DataFrame:
    """Return the committed table that :func:`derive_reported` describes."""
    return pd.read_csv(project.published / "expert_personas" / "psr4_reported.csv")


def rejudge(
    contrasts: pd.DataFrame,
    *,
    alpha: float = 0.05,
    correction: Correction = "holm",
    margin: float = 0.05,
    confidence: float = 0.95,
    sizes: Mapping[str, int] = FAMILY_SIZES,
    tests: int = PAPER_TESTS,
) -> pd.DataFrame:
    """Judge the report's contrasts by its rule, in declared families, and in one family of all its tests.

    Only some contrasts are at hand. Families are per benchmark and have the size of the design; the others count as
    p = 1. Under Holm that is exact as long as no other p is smaller, and conservative otherwise. Equivalence tests
    are families of their own, of the same size.

    Args:
        contrasts: From :func:`reported`.
        alpha: Error rate of a family, and of each one-sided equivalence test.
        correction: As in :func:`persona_studies.analyse.stats.multiplicity.correct`.
        margin: Smallest difference in accuracy of interest.
        sizes: Tests in each family of one benchmark.
        tests: Tests in the family of everything.

    Returns:
        One row per contrast, in the order given:

        - ``benchmark, domain, model, persona, relation, family, questions`` (missing where the size is not known),
        - ``estimate, low, high, se, se_relation`` (``<=``: an upper bound; no interval then),
        - ``p_reported, p_relation, paper_significant`` (reported p at most .05, uncorrected),
        - ``p, p_basis`` (``interval`` or ``reported``), ``family_size, p_adjusted, rejected``,
        - ``p_adjusted_all, rejected_all`` (one family of ``tests``),
        - ``p_equivalence, p_equivalence_adjusted, equivalent``,
        - ``verdict_paper`` (superior, inferior, not significant), ``verdict``, ``changed`` (significant in the
          report, not rejected in its family).

    Raises:
        StatisticsError: a parameter is out of range, a family smaller than its reported tests, or a relation
            unknown.
    """
    table = _restored(contrasts, margin, confidence)
    within, small = (_within(table, p, sizes, alpha, correction) for p in ("p", "p_equivalence"))
    together = _corrected(table["p"], size=tests, alpha=alpha, method=correction)
    direction = np.where(table["estimate"] > 0, SUPERIOR, INFERIOR)
    table = table.assign(
        family_size=within["family_size"],
        p_adjusted=within["p_adjusted"],
        rejected=within["rejected"],
        p_adjusted_all=together["p_adjusted"],
        rejected_all=together["rejected"],
        p_equivalence_adjusted=small["p_adjusted"],
        equivalent=small["rejected"],
        verdict_paper=np.where(table["paper_significant"], direction, "not significant"),
    )
    judged = zip(table["estimate"], table["rejected"], table["equivalent"], strict=True)
    table["verdict"] = [outcome(d, rejected=r, equivalent=e) for d, r, e in judged]
    table["changed"] = table["paper_significant"] & ~table["rejected"]
    return table


def _within(
    table: pd.DataFrame, p: str, sizes: Mapping[str, int], alpha: float, correction: Correction
) -> pd.DataFrame:
    """Correct a column of p-values within the families of each benchmark."""
    if lacking := [family for family in table["family"].unique() if family not in sizes]:
        raise StatisticsError(f"No size is given for the family {lacking[0]!r}, only for {', '.join(sizes)}.")
    return pd.concat(
        _corrected(rows[p], size=sizes[str(family)], alpha=alpha, method=correction)
        for (_, family), rows in table.groupby(["benchmark", "family"], sort=False)
    )


def _restored(contrasts: pd.DataFrame, margin: float, confidence: float) -> pd.DataFrame:
    """Return the report's contrasts with standard errors and p-values, uncorrected.

    The standard error is the width of the 95 % interval over 2 x 1.96, and p that of estimate over standard error
    in the normal distribution; it may fall below what the report's permutations could show
    (:func:`permutation_floor`). A contrast without an interval keeps its reported p, or the bound of it; its
    standard error is then that of the normal distribution at this p, or an upper bound.
    """
    unknown = sorted(set(contrasts["relation"]) - set(FAMILY))
    if unknown:
        raise StatisticsError(f"No family for the relations {', '.join(unknown)}; known are {', '.join(FAMILY)}.")
    fraction("confidence", confidence)
    frame = contrasts.reset_index(drop=True)
    estimate, reported_p, at_hand = frame["estimate"], frame["p"], frame["low"].notna()
    from_p = estimate.abs() / distributions.norm.isf(reported_p / 2)
    se = ((frame["high"] - frame["low"]) / (2 * _z(PAPER_CONFIDENCE))).where(at_hand, from_p)
    bound = ~at_hand & (frame["p_relation"] != "=")
    half = (se * _z(confidence)).mask(bound)
    places = zip(frame["benchmark"], frame["domain"], strict=True)
    return frame[["benchmark", "domain", "model", "persona", "relation"]].assign(
        family=frame["relation"].map(FAMILY),
        questions=pd.array([QUESTIONS.get(place) for place in places], dtype="Int64"),
        estimate=estimate,
        low=estimate - half,
        high=estimate + half,
        se=se,
        se_relation=np.where(bound, "<=", "="),
        p_reported=reported_p,
        p_relation=frame["p_relation"],
        paper_significant=reported_p <= PAPER_ALPHA,
        p=pd.Series(2 * distributions.norm.sf(estimate.abs() / se)).where(at_hand, reported_p),
        p_basis=np.where(at_hand, "interval", "reported"),
        p_equivalence=[equivalence_p(d, s, margin=margin) for d, s in zip(estimate, se, strict=True)],
    )


def permutation_floor(
    *,
    replicates: int = PAPER_REPLICATES,
    alpha: float = 0.05,
    sizes: Mapping[str, int] = ALL_SIZES,
    precision: float = 0.1,
) -> pd.DataFrame:
    """Return whether a permutation test with so many replicates can reject in a family of a given size.

    The smallest p of a permutation test is 1/(replicates + 1) (Phipson and Smyth 2010, Statistical Applications in
    Genetics and Molecular Biology 9, 39). The first step of Holm and of Bonferroni asks for p at most alpha over
    the size.

    Args:
        sizes: Tests in each family.
        precision: Relative Monte-Carlo standard error of p at the first threshold that counts as precise.

    Returns:
        ``family, tests, replicates, smallest_p, first_threshold, reachable, smallest_adjusted_p`` (smallest p times
        size, at most 1), ``replicates_needed`` (fewest that reach the threshold), ``replicates_precise`` (fewest
        with the given precision there).

    Raises:
        StatisticsError: replicates or a size below 1, or alpha or precision not in (0, 1).
    """
    fraction("alpha", alpha)
    fraction("precision", precision)
    if replicates < 1 or min(sizes.values(), default=1) < 1:
        raise StatisticsError(f"Replicates ({replicates}) and family sizes ({dict(sizes)}) must be at least 1.")
    smallest = 1 / (replicates + 1)
    rows = []
    for family, tests in sizes.items():
        threshold = alpha / tests
        rows.append(
            {
                "family": family,
                "tests": tests,
                "replicates": replicates,
                "smallest_p": smallest,
                "first_threshold": threshold,
                "reachable": smallest <= threshold,
                "smallest_adjusted_p": min(1.0, smallest * tests),
                # The small term keeps 432/.05 = 8640.000000000002 from being rounded up.
                "replicates_needed": ceil(tests / alpha - 1e-9) - 1,
                "replicates_precise": ceil((1 - threshold) / (threshold * precision**2) - 1e-6),
            }
        )
    return pd.DataFrame(rows)


def _z(confidence: float) -> float:
    return float(distributions.norm.ppf((1 + confidence) / 2))
