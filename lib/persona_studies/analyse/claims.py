"""The table of a study's claims: one row per claim, analysis and model, the same columns in every study."""

from __future__ import annotations

import pandas as pd

from persona_studies import files
from persona_studies.analyse import verdicts
from persona_studies.design import protocol
from persona_studies.errors import PersonaStudiesError
from persona_studies.paths import Project

PUBLISHED_DATA = "published data"
"""Stands for the model where the answers were published by others."""

COLUMNS = {
    "claim": "name of the claim in the study's protocol",
    "layer": "published (the paper's own analysis) or corrected (the declared one)",
    "statement": "the claim in plain words",
    "published": "the number that was published",
    "recomputed": "what the authors' analysis of the authors' rows gives; empty where the rows are not public",
    "model": "whose answers: a recorded model, or published data; empty where nothing is at hand",
    "hypothesis": "the declared contrast that decides the claim",
    "estimate": "its effect",
    "low": "lower limit of the interval of the estimate",
    "high": "upper limit",
    "unit": "of estimate, low and high; data/units.toml says what each means",
    "p_adjusted": "p of the test of the claim, corrected within its family",
    "p_equivalence": "p of the test that the effect is smaller than the smallest one of interest",
    "power": "of the test at the claim's own smallest effect and the level of its family",
    "gate": "passed, or the checks of the measure that failed; empty where no measure stands behind the claim",
    "verdict": "one word of persona_studies.analyse.verdicts.SIGNS",
    "why": "the reason in at most eight words",
    "would_decide": "how many units would decide an inconclusive claim, such as 202 questions",
    "steerable": "no, where no instruction moves the answers further than a filler text does",
    "details": "what a study says beside the reason",
}
"""Columns of the table, in order, and what each holds. A study may add others behind them."""

KEY = ("claim", "layer", "model")
ORDER = (*verdicts.DECIDED, *(word for word in verdicts.SIGNS if word not in verdicts.DECIDED))
"""Verdicts as tables list them: decided claims, open ones, those behind a failed gate, what cannot be tested."""
NEEDED = ("claim", "layer", "estimate", "low", "high", "verdict", "why")


def table(project: Project, study: str, found: pd.DataFrame) -> pd.DataFrame:
    """Bring verdicts into the form that every study has: :data:`COLUMNS`, then the columns of its own.

    ``statement, published`` come from the protocol and ``unit`` from ``data/units.toml`` where ``found`` lacks
    them. Claims stand in the order of :data:`ORDER`, by the verdict that decides about them. The rows of a claim
    stay together, in the order given: the first one decides.

    Args:
        found: At least :data:`NEEDED`, such as :func:`persona_studies.analyse.verdicts.table` returns.

    Raises:
        PersonaStudiesError: a column is missing, a claim is not declared or has no row, a word is no verdict, a row
            stands twice, or an estimate has no unit.
    """
    claims = protocol.load(project.protocol(study)).claims
    if lacking := [name for name in NEEDED if name not in found]:
        raise PersonaStudiesError(f"The claims of {study} lack the column {', '.join(lacking)}; give it.")
    unit = units_of(project, study)
    texts = ("model", "recomputed", "hypothesis", "gate", "would_decide", "steerable", "details")
    whole = found.assign(
        **{name: found[name].fillna("") if name in found else "" for name in texts},
        **{name: float("nan") for name in ("p_adjusted", "p_equivalence", "power") if name not in found},
    )
    for wrong, what in (
        (set(whole["claim"]) - set(claims), "are not declared by its protocol:"),
        (set(claims) - set(whole["claim"]), "have no row; judge it, or say why it is not testable:"),
        (set(whole["verdict"]) - set(verdicts.SIGNS), "have an unknown verdict:"),
        (set(whole.loc[whole["estimate"].notna(), "claim"]) - set(unit), "have no unit in data/units.toml:"),
        (set(whole.loc[whole.duplicated([*KEY]), "claim"]), "have two rows of one layer and model:"),
    ):
        if wrong:
            raise PersonaStudiesError(f"Claims of {study} {what} {', '.join(sorted(map(repr, wrong)))}.")
    for name in ("statement", "published"):
        if name not in whole:
            whole[name] = [getattr(claims[claim], name) for claim in whole["claim"]]
    whole["unit"] = [
        "" if pd.isna(estimate) else unit[claim]
        for claim, estimate in zip(whole["claim"], whole["estimate"], strict=True)
    ]
    deciding = whole.sort_values("layer", kind="stable").drop_duplicates("claim")  # corrected before published
    said = dict(zip(deciding["claim"], deciding["verdict"], strict=True))
    known = sorted(dict.fromkeys(whole["claim"]), key=lambda name: ORDER.index(said[name]))
    place = {name: number for number, name in enumerate(known)}
    whole = whole.sort_values("claim", key=lambda names: names.map(place), kind="stable", ignore_index=True)
    return whole[[*COLUMNS, *(name for name in whole if name not in COLUMNS)]]


def units(project: Project) -> dict[str, str]:
    """Return what each unit means, from ``data/units.toml``."""
    return declared_units(project)["meanings"]


def units_of(project: Project, study: str) -> dict[str, str]:
    """Return the unit of the estimate of each claim of a study; none where the project declares no units."""
    return declared_units(project).get(study, {}) if (project.data / "units.toml").is_file() else {}


def declared_units(project: Project) -> dict[str, dict[str, str]]:
    """Return ``data/units.toml``: ``meanings``, and the unit of each claim by study.

    Raises:
        PersonaStudiesError: it is missing, not TOML, or not of that form.
    """
    return files.declared(project.data / "units.toml", dict[str, dict[str, str]], PersonaStudiesError)
