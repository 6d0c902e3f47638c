"""What others published on expert personas and accuracy, judged again by this study's rules.

Two layers. *Prompting Science Report 4* (Basil et al., "Playing Pretend", arXiv 2512.05858): the contrasts that
notes on the report name, second-hand and selected; the tests of their families that are not at hand count as not
rejected. *Principled Personas* (Luz de Araujo et al., arXiv 2508.19764): accuracies of nine open models under every
persona of two benchmarks; the unit is the model. Run as a script, this file rebuilds these accuracies from their
pinned source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from math import ceil, nan, sqrt
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats as distributions

from persona_studies.analyse import stats
from persona_studies.analyse.contrasts import INFERIOR, SUPERIOR, outcome
from persona_studies.analyse.stats.estimate import Array, fraction, is_constant
from persona_studies.analyse.stats.multiplicity import Correction
from persona_studies.design import sources
from persona_studies.errors import SourceError, StatisticsError
from persona_studies.paths import Project


def _corrected(p: pd.Series, *, size: int, alpha: float, method: Correction) -> pd.DataFrame:
    """Correct the reported tests of a family of ``size``; tests that are not at hand count as p = 1."""
    if size < len(p):
        raise StatisticsError(f"A family of {size} tests cannot hold the {len(p)} reported ones; enlarge its size.")
    rest = pd.Series(nan, index=[("not at hand", number) for number in range(size - len(p))], dtype=float)
    named = p.set_axis([("reported", place) for place in p.index])
    corrected = stats.correct(pd.concat([named, rest]), size=size, alpha=alpha, method=method, undefined="one")
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

    The standard error is the width of the 95 % interval over 2 x 1.96, and p that of estimate over standard error
    in the normal distribution. A contrast without an interval keeps its reported p, or the bound of it; its
    standard error is then that of the normal distribution at this p, or an upper bound. Only some contrasts are at
    hand. Families are per benchmark and have the size of the design; the others count as p = 1. Under Holm that is
    exact as long as no other p is smaller, and conservative otherwise. Equivalence tests are families of their own,
    of the same size. A p from the normal distribution may fall below what the report's permutations could show
    (:func:`permutation_floor`).

    Args:
        contrasts: From :func:`reported`.
        alpha: Error rate of a family, and of each one-sided equivalence test.
        correction: As in :func:`persona_studies.analyse.stats.correct`.
        margin: Smallest difference in accuracy of interest.
        confidence: Coverage of the intervals returned.
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
    unknown = sorted(set(contrasts["relation"]) - set(FAMILY))
    if unknown:
        raise StatisticsError(f"No family for the relations {', '.join(unknown)}; known are {', '.join(FAMILY)}.")
    fraction("confidence", confidence)
    frame = contrasts.reset_index(drop=True)
    estimate, reported_p = frame["estimate"], frame["p"]
    at_hand = frame["low"].notna()
    from_p = estimate.abs() / distributions.norm.isf(reported_p / 2)
    se = ((frame["high"] - frame["low"]) / (2 * _z(PAPER_CONFIDENCE))).where(at_hand, from_p)
    bound = ~at_hand & (frame["p_relation"] != "=")
    half = (se * _z(confidence)).mask(bound)
    p = pd.Series(2 * distributions.norm.sf(estimate.abs() / se)).where(at_hand, reported_p)
    table = frame[["benchmark", "domain", "model", "persona", "relation"]].assign(
        family=frame["relation"].map(FAMILY),
        questions=pd.array(
            [QUESTIONS.get(place) for place in zip(frame["benchmark"], frame["domain"], strict=True)], dtype="Int64"
        ),
        estimate=estimate,
        low=estimate - half,
        high=estimate + half,
        se=se,
        se_relation=np.where(bound, "<=", "="),
        p_reported=reported_p,
        p_relation=frame["p_relation"],
        paper_significant=reported_p <= PAPER_ALPHA,
        p=p,
        p_basis=np.where(at_hand, "interval", "reported"),
    )
    table["p_equivalence"] = [stats.equivalence_p(d, s, margin=margin) for d, s in zip(estimate, se, strict=True)]
    corrected, equivalence = [], []
    for (_, family), rows in table.groupby(["benchmark", "family"], sort=False):
        if family not in sizes:
            raise StatisticsError(f"No size is given for the family {family!r}, only for {', '.join(sizes)}.")
        size = sizes[str(family)]
        corrected.append(_corrected(rows["p"], size=size, alpha=alpha, method=correction))
        equivalence.append(_corrected(rows["p_equivalence"], size=size, alpha=alpha, method=correction))
    within, small = pd.concat(corrected), pd.concat(equivalence)
    together = _corrected(table["p"], size=tests, alpha=alpha, method=correction)
    table = table.assign(
        family_size=within["family_size"],
        p_adjusted=within["p_adjusted"],
        rejected=within["rejected"],
        p_adjusted_all=together["p_adjusted"],
        rejected_all=together["rejected"],
        p_equivalence_adjusted=small["p_adjusted"],
        equivalent=small["rejected"],
    )
    direction = np.where(estimate > 0, SUPERIOR, INFERIOR)
    table["verdict_paper"] = np.where(table["paper_significant"], direction, "not significant")
    table["verdict"] = [
        outcome(d, rejected=r, equivalent=e)
        for d, r, e in zip(estimate, table["rejected"], table["equivalent"], strict=True)
    ]
    table["changed"] = table["paper_significant"] & ~table["rejected"]
    return table


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
        replicates: Random permutations.
        alpha: Error rate of a family.
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


def design_power(
    contrasts: pd.DataFrame,
    *,
    margins: Sequence[float] = (0.02, 0.05, 0.1),
    alpha: float = 0.05,
    power: float = 0.8,
    tests: Sequence[int] = (1,),
) -> pd.DataFrame:
    """Return what the report's design can show, from the standard errors that its intervals imply.

    The intervals at hand belong to contrasts that were worth a note, so they need not be typical; the smallest, the
    middle and the largest standard error of each scope are taken. Normal approximation.

    Args:
        contrasts: From :func:`reported`.
        margins: Equivalence margins, differences in accuracy.
        alpha: Error rate, divided by the number of tests.
        power: Power at which a detectable effect and a number of questions are stated.
        tests: Sizes of a family of which the first Holm step is taken; 1 is a single test.

    Returns:
        One row per scope, spread, size and margin: ``benchmark, questions, intervals`` (at hand), ``spread``
        (smallest, median, largest; only, where one interval is at hand), ``se, sd`` (of a paired difference per
        question, se x sqrt(questions)), ``tests, alpha, margin, power_equivalence`` (of two one-sided tests when
        the true effect is 0), ``detectable`` (smallest effect that a two-sided test finds with the given power),
        ``questions_needed`` (for that power of the equivalence test).

    Raises:
        StatisticsError: no interval at hand, or a parameter out of range.

    References:
        Julious (2004), Statistics in Medicine 23, 1921-1986, for the power of two one-sided tests.
    """
    fraction("alpha", alpha)
    fraction("power", power)
    if not margins or min(margins) <= 0 or not tests or min(tests) < 1:
        raise StatisticsError(
            f"Margins must be positive and sizes at least 1, not {list(margins)} and {list(tests)}."
        )
    judged = rejudge(contrasts)
    known = judged[(judged["p_basis"] == "interval") & judged["questions"].notna()]
    if known.empty:
        raise StatisticsError("No contrast has an interval and a known number of questions; none implies a spread.")
    z = distributions.norm
    rows = []
    for _, scope in known.groupby(["benchmark", "questions"]):
        benchmark, questions = scope["benchmark"].iloc[0], int(scope["questions"].iloc[0])
        spreads = (("smallest", 0.0), ("median", 0.5), ("largest", 1.0)) if len(scope) > 1 else (("only", 0.5),)
        for (spread, share), size, margin in product(spreads, tests, margins):
            se, level = float(scope["se"].quantile(share)), alpha / size
            sd = se * sqrt(questions)
            needed = (z.isf(level) + z.isf((1 - power) / 2)) * sd / margin
            rows.append(
                {
                    "benchmark": benchmark,
                    "questions": questions,
                    "intervals": len(scope),
                    "spread": spread,
                    "se": se,
                    "sd": sd,
                    "tests": size,
                    "alpha": level,
                    "margin": margin,
                    "power_equivalence": max(0.0, float(2 * z.cdf(margin / se - z.isf(level)) - 1)),
                    "detectable": float(se * (z.isf(level / 2) + z.ppf(power))),
                    "questions_needed": ceil(needed**2),
                }
            )
    return pd.DataFrame(rows)


def _z(confidence: float) -> float:
    return float(distributions.norm.ppf((1 + confidence) / 2))


# --- Principled Personas ------------------------------------------------------------------------------------------

PRINCIPLED_CITATION = "Luz de Araujo et al. 2025, Principled Personas, arXiv 2508.19764"

Benchmark = Literal["mmlu_pro", "truthfulqa"]

SOURCES = {
    "principled_personas_mmlu_pro": "principled-personas-mmlu-pro",
    "principled_personas_truthfulqa": "principled-personas-truthfulqa",
}

# Questions of the MMLU-Pro test set by category. Published accuracies are unweighted means over the 14 categories.
MMLU_PRO_QUESTIONS = {
    "biology": 717,
    "business": 789,
    "chemistry": 1132,
    "computer science": 410,
    "economics": 844,
    "engineering": 969,
    "health": 818,
    "history": 381,
    "law": 1101,
    "math": 1351,
    "other": 924,
    "philosophy": 499,
    "physics": 1299,
    "psychology": 798,
}
TRUTHFULQA_QUESTIONS = 817

LOW_KNOWLEDGE = ("an uneducated person", "a person with primary school level education")
NAMES = (
    "Alexander",
    "Amit",
    "Anastasia",
    "Aparna",
    "Fatima",
    "Gustavo",
    "Isabelle",
    "Kai",
    "Larissa",
    "Muhammad",
    "Victor",
    "Yumi",
)


def role(persona: str) -> str:
    """Return what a persona of Principled Personas is for.

    ``none``; ``question_expert`` (written for each question: its field, subfield, topic); ``task_expert`` (of the
    whole benchmark: fact-checking for TruthfulQA); ``field_expert`` (one field for all questions);
    ``low_knowledge``; ``education`` (middle school to graduate level); ``placebo_colour``; ``placebo_name``.

    Raises:
        SourceError: no rule for the persona.
    """
    if persona == "empty":
        return "none"
    if persona in ("level1", "level2", "level3"):
        return "question_expert"
    if persona == "an expert in fact-checking":
        return "task_expert"
    if persona.startswith("an expert in "):
        return "field_expert"
    if persona in LOW_KNOWLEDGE:
        return "low_knowledge"
    if persona.endswith("level education"):
        return "education"
    if persona.startswith("favorite color is "):
        return "placebo_colour"
    if persona in NAMES:
        return "placebo_name"
    raise SourceError(f"Principled Personas has no persona {persona!r} with a known role; see role().")


def derive_accuracies(benchmark: Benchmark, wide: Path) -> pd.DataFrame:
    """Return the published accuracies, one row per persona and model.

    Args:
        benchmark: ``mmlu_pro`` (mean of 14 category accuracies) or ``truthfulqa`` (817 questions).
        wide: CSV with a row per persona and a column per model; personas without a value for every model are left
            out.

    Returns:
        ``benchmark, persona, role, model, series`` (Llama, Qwen or Gemma), ``accuracy, citation``, sorted by role,
        persona and model.

    Raises:
        SourceError: a persona is repeated or has no role, ``empty`` is missing, or an accuracy lies outside [0, 1].
    """
    table = pd.read_csv(wide, index_col=0, float_precision="round_trip").dropna()
    if table.index.has_duplicates or "empty" not in table.index:
        raise SourceError(f"{wide.name} repeats a persona or lacks 'empty'; check its pin in data/sources.toml.")
    if not ((table >= 0) & (table <= 1)).all(axis=None):
        raise SourceError(f"{wide.name} holds accuracies outside [0, 1]; check its pin in data/sources.toml.")
    rows = table.rename_axis("persona").reset_index().melt("persona", var_name="model", value_name="accuracy")
    rows = rows.assign(
        benchmark=benchmark,
        role=rows["persona"].map(role),
        series=rows["model"].str.extract(r"^([A-Za-z]+)", expand=False).str.capitalize(),
        citation=PRINCIPLED_CITATION,
    )
    columns = ["benchmark", "persona", "role", "model", "series", "accuracy", "citation"]
    return rows[columns].sort_values(["role", "persona", "model"], ignore_index=True)


def derive(table: str, wide: Path) -> str:
    """Return a derived table of ``data/published``, a key of ``SOURCES``, as CSV."""
    benchmark: Benchmark = "mmlu_pro" if table == "principled_personas_mmlu_pro" else "truthfulqa"
    return str(derive_accuracies(benchmark, wide).to_csv(index=False, lineterminator="\n"))


def accuracies(project: Project, benchmark: Benchmark = "mmlu_pro") -> pd.DataFrame:
    """Return the committed table that :func:`derive_accuracies` describes."""
    path = project.published / "expert_personas" / f"principled_personas_{benchmark}.csv"
    return pd.read_csv(path, float_precision="round_trip")


@dataclass(frozen=True)
class Contrast:
    """One declared contrast: mean accuracy over the personas of a role, less that of a reference role."""

    role: str
    reference: str
    family: str

    @property
    def name(self) -> str:
        return f"{self.role} - {self.reference}"


AGAINST_NONE = "against no persona"
AGAINST_PLACEBO = "against placebo"
EXPERTS = ("question_expert", "task_expert", "field_expert")
PLACEBOS = ("placebo_colour", "placebo_name")
CONTRASTS = (
    *(Contrast(role, "none", AGAINST_NONE) for role in (*EXPERTS, "low_knowledge", *PLACEBOS)),
    *(Contrast(role, placebo, AGAINST_PLACEBO) for role in EXPERTS for placebo in PLACEBOS),
)

EFFECT_COLUMNS = [
    *("benchmark", "family", "contrast", "model", "series", "personas"),
    *("accuracy", "reference_accuracy", "effect"),
]


def model_effects(table: pd.DataFrame, contrasts: Sequence[Contrast] = CONTRASTS) -> pd.DataFrame:
    """Return every declared contrast in every model.

    Contrasts of a role that the benchmark lacks (``task_expert`` on MMLU-Pro) are left out, on the grounds of the
    design, not of the data.

    Args:
        table: From :func:`accuracies`, one benchmark.
        contrasts: The declared contrasts.

    Returns:
        ``benchmark, family, contrast, model, series, personas`` (behind the role), ``accuracy``,
        ``reference_accuracy``, ``effect`` (the difference of both, in [-1, 1]), in the order declared.

    Raises:
        StatisticsError: several benchmarks, or a persona is missing or repeated for a model.
    """
    means = _role_means(table)
    present = set(means.index.get_level_values("role"))
    rows = []
    for contrast in contrasts:
        if not {contrast.role, contrast.reference} <= present:
            continue
        parts = means.loc[contrast.role].join(means.loc[contrast.reference], rsuffix="_reference")
        rows.append(
            parts.reset_index().assign(
                benchmark=table["benchmark"].iloc[0],
                family=contrast.family,
                contrast=contrast.name,
                reference_accuracy=parts["accuracy_reference"].to_numpy(),
                effect=(parts["accuracy"] - parts["accuracy_reference"]).to_numpy(),
            )
        )
    if not rows:
        raise StatisticsError(f"No declared contrast has both roles; the table has {', '.join(sorted(present))}.")
    return pd.DataFrame(pd.concat(rows, ignore_index=True), columns=EFFECT_COLUMNS)


def persona_effects(table: pd.DataFrame) -> pd.DataFrame:
    """Return every single persona against no persona, in every model; its role is the family.

    Args:
        table: From :func:`accuracies`, one benchmark.

    Returns:
        Columns as :func:`model_effects`; ``contrast`` is the persona.

    Raises:
        StatisticsError: several benchmarks, or a persona is missing or repeated for a model.
    """
    none = _role_means(table).loc["none"].reset_index().set_index("model")["accuracy"]
    rows = table[table["role"] != "none"].rename(columns={"role": "family", "persona": "contrast"})
    rows = rows.assign(personas=1, reference_accuracy=rows["model"].map(none))
    rows = rows.assign(effect=rows["accuracy"] - rows["reference_accuracy"])
    return rows[EFFECT_COLUMNS].reset_index(drop=True)


def _role_means(table: pd.DataFrame) -> pd.DataFrame:
    """Return accuracy and number of personas, indexed by role, model and series."""
    benchmarks = sorted(set(table["benchmark"]))
    if len(benchmarks) != 1:
        raise StatisticsError(f"One benchmark at a time, not {len(benchmarks)}: {', '.join(benchmarks)}.")
    cells = table.groupby(["persona", "model"]).size().unstack()
    if (cells != 1).any(axis=None) or table["accuracy"].isna().any():
        raise StatisticsError(
            "Each persona needs exactly one accuracy for each model; some are missing or repeated."
        )
    return table.groupby(["role", "model", "series"]).agg(
        accuracy=("accuracy", "mean"), personas=("persona", "size")
    )


def combine(
    effects: pd.DataFrame,
    *,
    alpha: float = 0.05,
    correction: Correction = "holm",
    margin: float = 0.05,
    confidence: float = 0.95,
    unit: Literal["model", "series"] = "model",
    seed: int = 0,
) -> pd.DataFrame:
    """Combine each contrast over models, with the model as the unit.

    Accuracies come without answers to single questions, so nothing is known of the sampling error of a difference
    within a model, and none is made up: each model counts once, by Student's t over models. Models of a series
    share training data and method; ``series`` averages them first, which leaves three units. Families are those of
    the frame, complete; equivalence tests are families of their own.

    Args:
        effects: From :func:`model_effects` or :func:`persona_effects`.
        alpha: Error rate of a family, and of each one-sided equivalence test.
        correction: As in :func:`persona_studies.analyse.stats.correct`.
        margin: Smallest difference in accuracy of interest.
        confidence: Coverage of both intervals.
        unit: What counts once.
        seed: Of the sign-flip test, which is exact up to 36 units and ignores it there.

    Returns:
        One row per contrast, in the order given:

        - ``benchmark, family, contrast, unit, k`` (units), ``positive`` (units with an effect above 0),
        - ``estimate, low, high, sd`` (between units), ``prediction_low, prediction_high`` (effect that a further
          unit would show, sampling error included: estimate ± t(k - 1) sd sqrt(1 + 1/k)),
        - ``p`` (t test), ``p_adjusted, rejected, family_size``,
        - ``p_sign_flip, least_p_sign_flip`` (smallest that k units allow, 2/2^k),
        - ``p_equivalence, p_equivalence_adjusted, equivalent, verdict, reason`` (what is undefined, and why).

    Raises:
        StatisticsError: a model is repeated or has no effect, or a parameter out of range.
    """
    fraction("confidence", confidence)
    rows = []
    for (benchmark, family, contrast), part in effects.groupby(["benchmark", "family", "contrast"], sort=False):
        if part["model"].duplicated().any() or part["effect"].isna().any():
            raise StatisticsError(
                f"Contrast {contrast!r} needs one effect for each model; one is missing or repeated."
            )
        values = part.groupby(unit)["effect"].mean().to_numpy()
        summary = _over_units(values, margin=margin, confidence=confidence)
        flip = stats.sign_flip(values, replicates=1 << 16, seed=seed)
        rows.append(
            {
                "benchmark": benchmark,
                "family": family,
                "contrast": contrast,
                "unit": unit,
                "positive": int((values > 0).sum()),
                **summary,
                "p_sign_flip": flip.p,
                "least_p_sign_flip": 2.0 ** (1 - len(values)),
            }
        )
    table = pd.DataFrame(rows)
    for column, decided in (("p", "rejected"), ("p_equivalence", "equivalent")):
        corrected = _within_families(table, column, alpha=alpha, method=correction)
        table[f"{column}_adjusted"] = corrected["p_adjusted"]
        table[decided] = corrected["rejected"]
        table["family_size"] = corrected["family_size"]
    table["verdict"] = [
        outcome(d, rejected=r, equivalent=e)
        for d, r, e in zip(table["estimate"], table["rejected"], table["equivalent"], strict=True)
    ]
    columns = [
        *("benchmark", "family", "contrast", "unit", "k", "positive", "estimate", "low", "high", "sd"),
        *("prediction_low", "prediction_high", "p", "p_adjusted", "rejected", "family_size"),
        *("p_sign_flip", "least_p_sign_flip", "p_equivalence", "p_equivalence_adjusted", "equivalent"),
        *("verdict", "reason"),
    ]
    return table[columns]


def _within_families(table: pd.DataFrame, column: str, *, alpha: float, method: Correction) -> pd.DataFrame:
    """Correct a column of p-values within each family of a table of contrasts; undefined counts as p = 1."""
    return pd.concat(
        stats.correct(part[column], size=len(part), alpha=alpha, method=method, undefined="one")
        for _, part in table.groupby(["benchmark", "family"], sort=False)
    )


def _over_units(values: Array, *, margin: float, confidence: float) -> dict[str, object]:
    """Return the one-sample t statistics of effects, one per unit."""
    k = len(values)
    names = ("low", "high", "sd", "prediction_low", "prediction_high", "p", "p_equivalence")
    undefined: dict[str, object] = {"k": k, "estimate": float(values.mean()), **dict.fromkeys(names, nan)}
    if k < 2:
        return {**undefined, "reason": "interval and tests undefined (one unit)"}
    sd = float(values.std(ddof=1))
    if is_constant(values):
        return {**undefined, "sd": sd, "reason": "interval and tests undefined (identical effects)"}
    mean, se = float(values.mean()), sd / sqrt(k)
    quantile = float(distributions.t.ppf((1 + confidence) / 2, k - 1))
    further = quantile * sd * sqrt(1 + 1 / k)
    return {
        "k": k,
        "estimate": mean,
        "low": mean - quantile * se,
        "high": mean + quantile * se,
        "sd": sd,
        "prediction_low": mean - further,
        "prediction_high": mean + further,
        "p": float(2 * distributions.t.sf(abs(mean) / se, k - 1)),
        "p_equivalence": stats.equivalence_p(mean, se, margin=margin, df=k - 1),
        "reason": "",
    }


def sampling_variance(accuracy: pd.Series, benchmark: str) -> pd.Series:
    """Return the binomial variance of published accuracies, as if each question were drawn afresh.

    For MMLU-Pro, the mean of 14 category accuracies: accuracy x (1 - accuracy) x sum(1/questions)/14², taking every
    category to be as hard as the whole.

    Examples:
        >>> half = pd.Series([0.5])
        >>> [round(float(sampling_variance(half, name)[0] ** 0.5), 4) for name in ("truthfulqa", "mmlu_pro")]
        [0.0175, 0.0049]
    """
    if benchmark == "truthfulqa":
        return accuracy * (1 - accuracy) / TRUTHFULQA_QUESTIONS
    if benchmark != "mmlu_pro":
        raise StatisticsError(
            f"The questions of {benchmark!r} are not known; benchmarks are mmlu_pro and truthfulqa."
        )
    counts = MMLU_PRO_QUESTIONS.values()
    return accuracy * (1 - accuracy) * sum(1 / n for n in counts) / len(counts) ** 2


def combine_random(
    effects: pd.DataFrame,
    *,
    correlation: float = 0.0,
    alpha: float = 0.05,
    correction: Correction = "holm",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Combine each contrast by a random-effects model, under an assumed sampling error within models.

    The assumption: binomial variances (:func:`sampling_variance`) and a correlation between the two accuracies of
    a difference, which share their questions. The published tables do not tell it. At 0 the variances are upper
    bounds for any correlation that is not negative, so tau² is a lower bound; a mean over several personas is taken
    to vary as much as one. A sensitivity analysis: conclusions rest on :func:`combine`.

    Args:
        effects: From :func:`model_effects`.
        correlation: Of both accuracies over repeated questions, in [0, 1).
        alpha: Error rate of a family.
        correction: As in :func:`persona_studies.analyse.stats.correct`.
        confidence: Coverage of both intervals.

    Returns:
        ``benchmark, family, contrast, correlation``, the fields of
        :class:`persona_studies.analyse.stats.RandomEffects` (Paule-Mandel,
        Hartung-Knapp-Sidik-Jonkman), ``p_adjusted`` and ``rejected``.

    Raises:
        StatisticsError: the correlation is out of range.
    """
    if not 0 <= correlation < 1:
        raise StatisticsError(f"The correlation between two accuracies must lie in [0, 1), not at {correlation}.")
    rows = []
    for (benchmark, family, contrast), part in effects.groupby(["benchmark", "family", "contrast"], sort=False):
        first, second = (
            sampling_variance(part[name], str(benchmark)) for name in ("accuracy", "reference_accuracy")
        )
        variances = first + second - 2 * correlation * np.sqrt(first * second)
        pooled = stats.random_effects(part["effect"].to_numpy(), variances.to_numpy(), confidence=confidence)
        names = {"benchmark": benchmark, "family": family, "contrast": contrast, "correlation": correlation}
        rows.append({**names, **asdict(pooled)})
    table = pd.DataFrame(rows)
    corrected = _within_families(table, "p", alpha=alpha, method=correction)
    return table.assign(p_adjusted=corrected["p_adjusted"], rejected=corrected["rejected"])


def leave_one_out(
    effects: pd.DataFrame, *, confidence: float = 0.95, by: Literal["model", "series"] = "model"
) -> pd.DataFrame:
    """Combine each contrast over models without one model, or without one series of models.

    Args:
        effects: From :func:`model_effects` or :func:`persona_effects`.
        confidence: Coverage.
        by: What is left out.

    Returns:
        ``benchmark, family, contrast, left_out, k`` (models left), ``estimate, low, high, p`` (t test,
        uncorrected), ``reason``.

    Raises:
        StatisticsError: nothing would be left, or the confidence is out of range.
    """
    fraction("confidence", confidence)
    rows = []
    for (benchmark, family, contrast), part in effects.groupby(["benchmark", "family", "contrast"], sort=False):
        for left_out in part[by].unique():
            rest = part.loc[part[by] != left_out, "effect"].to_numpy()
            if not len(rest):
                raise StatisticsError(
                    f"Without {left_out} no model of {contrast!r} is left; there is only one {by}."
                )
            summary = _over_units(rest, margin=1.0, confidence=confidence)
            kept = {name: summary[name] for name in ("k", "estimate", "low", "high", "p", "reason")}
            rows.append(
                {"benchmark": benchmark, "family": family, "contrast": contrast, "left_out": left_out, **kept}
            )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    here = Project.find()
    for name, id in SOURCES.items():
        table = here.published / "expert_personas" / f"{name}.csv"
        table.write_text(derive(name, sources.fetch(here, id)), "utf-8", newline="\n")
