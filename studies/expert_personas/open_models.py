"""Accuracies of nine open models under personas (Principled Personas), judged by this study's rules.

Luz de Araujo et al., arXiv 2508.19764; the unit is the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan, sqrt
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from scipy import stats as distributions

from persona_studies.analyse.contrasts import outcome
from persona_studies.analyse.stats.equivalence import equivalence_p
from persona_studies.analyse.stats.estimate import Array, fraction, is_constant
from persona_studies.analyse.stats.multiplicity import Correction, correct
from persona_studies.analyse.stats.paired import sign_flip
from persona_studies.errors import SourceError, StatisticsError
from persona_studies.paths import Project

PRINCIPLED_CITATION = "Luz de Araujo et al. 2025, Principled Personas, arXiv 2508.19764"

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

    ``none``; ``question_expert`` (written for each question: its field, subfield, topic); ``field_expert`` (one
    field for all questions); ``low_knowledge``; ``education`` (middle school to graduate level);
    ``placebo_colour``; ``placebo_name``.

    Raises:
        SourceError: no rule for the persona.
    """
    if persona == "empty":
        return "none"
    if persona in ("level1", "level2", "level3"):
        return "question_expert"
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


def derive_accuracies(wide: Path) -> pd.DataFrame:
    """Return the published accuracies on MMLU-Pro, means over its 14 categories, one row per persona and model.

    Args:
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
        benchmark="mmlu_pro",
        role=rows["persona"].map(role),
        series=rows["model"].str.extract(r"^([A-Za-z]+)", expand=False).str.capitalize(),
        citation=PRINCIPLED_CITATION,
    )
    columns = ["benchmark", "persona", "role", "model", "series", "accuracy", "citation"]
    return rows[columns].sort_values(["role", "persona", "model"], ignore_index=True)


def accuracies(project: Project) -> pd.DataFrame:
    """Return the committed table that :func:`derive_accuracies` describes."""
    path = project.published / "expert_personas" / "principled_personas_mmlu_pro.csv"
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
EXPERTS = ("question_expert", "field_expert")
PLACEBOS = ("placebo_colour", "placebo_name")
CONTRASTS = (
    *(Contrast(role, "none", AGAINST_NONE) for role in (*EXPERTS, "low_knowledge", *PLACEBOS)),
    *(Contrast(role, placebo, AGAINST_PLACEBO) for role in EXPERTS for placebo in PLACEBOS),
)

EFFECT_COLUMNS = [
    *("benchmark", "family", "contrast", "model", "series", "personas"),
    *("accuracy", "reference_accuracy", "effect"),
]


def model_effects(table: pd.DataFrame) -> pd.DataFrame:
    """Return every declared contrast in every model.

    Args:
        table: From :func:`accuracies`.

    Returns:
        ``benchmark, family, contrast, model, series, personas`` (behind the role), ``accuracy``,
        ``reference_accuracy``, ``effect`` (the difference of both, in [-1, 1]), in the order declared. A contrast
        of a role that the table lacks is left out.

    Raises:
        StatisticsError: a persona is missing or repeated for a model, or no contrast has both roles.
    """
    means = _role_means(table)
    present = set(means.index.get_level_values("role"))
    rows = []
    for contrast in CONTRASTS:
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


def _role_means(table: pd.DataFrame) -> pd.DataFrame:
    """Return accuracy and number of personas, indexed by role, model and series."""
    cells = table.groupby(["persona", "model"]).size().unstack()
    if (cells != 1).any(axis=None) or table["accuracy"].isna().any():
        raise StatisticsError(
            "Each persona needs exactly one accuracy for each model; some are missing or repeated."
        )
    return table.groupby(["role", "model", "series"]).agg(
        accuracy=("accuracy", "mean"), personas=("persona", "size")
    )


COMBINED = [
    *("benchmark", "family", "contrast", "unit", "k", "positive", "estimate", "low", "high", "sd"),
    *("prediction_low", "prediction_high", "p", "p_adjusted", "rejected", "family_size"),
    *("p_sign_flip", "least_p_sign_flip", "p_equivalence", "p_equivalence_adjusted", "equivalent"),
    *("verdict", "reason"),
]


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
        correction: As in :func:`persona_studies.analyse.stats.multiplicity.correct`.
        margin: Smallest difference in accuracy of interest.
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
    rows = [
        _combined(names, part, unit=unit, margin=margin, confidence=confidence, seed=seed)
        for names, part in effects.groupby(["benchmark", "family", "contrast"], sort=False)
    ]
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
    return table[COMBINED]


def _combined(names: Any, part: pd.DataFrame, *, unit: str, seed: int, **how: float) -> dict[str, object]:
    """Combine one contrast over units; ``names`` are its benchmark, family and contrast."""
    benchmark, family, contrast = names
    if part["model"].duplicated().any() or part["effect"].isna().any():
        raise StatisticsError(f"Contrast {contrast!r} needs one effect for each model; one is missing or repeated.")
    values = part.groupby(unit)["effect"].mean().to_numpy()
    return {
        "benchmark": benchmark,
        "family": family,
        "contrast": contrast,
        "unit": unit,
        "positive": int((values > 0).sum()),
        **_over_units(values, **how),
        "p_sign_flip": sign_flip(values, replicates=1 << 16, seed=seed).p,
        "least_p_sign_flip": 2.0 ** (1 - len(values)),
    }


def _within_families(table: pd.DataFrame, column: str, *, alpha: float, method: Correction) -> pd.DataFrame:
    """Correct a column of p-values within each family of a table of contrasts; undefined counts as p = 1."""
    return pd.concat(
        correct(part[column], size=len(part), alpha=alpha, method=method, undefined="one")
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
        "p_equivalence": equivalence_p(mean, se, margin=margin, df=k - 1),
        "reason": "",
    }
