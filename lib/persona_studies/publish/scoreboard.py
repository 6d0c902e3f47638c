"""The scoreboard: every claim of every study, what was published, what was found here, and the verdict."""

from __future__ import annotations

import pandas as pd

from persona_studies.analyse import claims, tables, verdicts
from persona_studies.design import protocol
from persona_studies.errors import PersonaStudiesError
from persona_studies.paths import Project

COLUMNS = ("claim", "layer", "statement", "published", "estimate", "low", "high", "verdict", "why")


def load(project: Project) -> pd.DataFrame:
    """Return one row per claim and analysis, study by study, from the committed verdicts.

    Columns: ``study``, those of :data:`COLUMNS`, ``source`` (where the claim is made), ``here`` (the estimate with
    its interval, as text), ``unit`` (a name of :func:`persona_studies.analyse.claims.units`) and ``sign``.

    Raises:
        PersonaStudiesError: a study has no verdicts, they lack a column, or they name a claim that its protocol
            does not declare, a verdict that is none, or an estimate without a unit.
    """
    studies = [_study(project, study) for study in project.names()]
    return pd.concat(studies, ignore_index=True) if studies else pd.DataFrame(columns=["study", *COLUMNS])


def _study(project: Project, study: str) -> pd.DataFrame:
    path = project.results(study) / "verdicts.csv"
    place = path.relative_to(project.root).as_posix()
    if not path.is_file():
        raise PersonaStudiesError(f"{place} is missing; run make study STUDY={study}, then make accept.")
    found = tables.load(path)
    made = {name: claim for each in protocol.versions(project, study) for name, claim in each.claims.items()}
    declared = claims.declared_units(project)
    unit = declared.get(study, {})
    estimated = set(found.loc[found["estimate"].notna(), "claim"]) if set(COLUMNS) <= set(found) else set()
    for wrong, what in (
        (set(COLUMNS) - set(found), "lacks the column"),
        (set(found.get("claim", [])) - set(made), f"names what no protocol of {study} declares, claim"),
        (set(found.get("verdict", [])) - set(verdicts.SIGNS), "holds what is no verdict:"),
        (estimated - set(unit), "estimates what has no unit in data/units.toml:"),
        (set(unit.values()) - set(declared["meanings"]), "has units that data/units.toml gives no meaning:"),
    ):
        if wrong:
            raise PersonaStudiesError(f"{place} {what} {', '.join(sorted(map(repr, wrong)))}.")
    return found[list(COLUMNS)].assign(
        study=study,
        source=[made[name].source for name in found["claim"]],
        here=[_here(*row) for row in found[["estimate", "low", "high"]].itertuples(index=False)],
        unit=[
            "" if pd.isna(estimate) else unit.get(name, "")
            for name, estimate in zip(found["claim"], found["estimate"], strict=True)
        ],
        sign=found["verdict"].map(verdicts.SIGNS),
    )


def _here(estimate: float, low: float, high: float) -> str:
    """Format an estimate and its interval: two decimals, or three where all of it is within a tenth of zero.

    >>> _here(-0.034, -0.06, -0.0004), _here(0.5, float("nan"), float("nan")), _here(*3 * [float("nan")])
    ('−0.034 [−0.060, 0.000]', '0.50', '–')
    """
    if pd.isna(estimate):
        return tables.MISSING
    known = [estimate] if pd.isna(low) or pd.isna(high) else [estimate, low, high]
    decimals = 3 if max(map(abs, known)) < 0.1 else 2
    shown = [f"{value:z.{decimals}f}".replace("-", "−") for value in known]
    return shown[0] if len(shown) == 1 else f"{shown[0]} [{shown[1]}, {shown[2]}]"
