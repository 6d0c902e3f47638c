"""Parameters of the audit, and the names that its parts share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from persona_studies.analyse.stats.multiplicity import Correction
from persona_studies.design import parameters

Source = Literal[
    "PersoBench",
    "PersonaGym",
    "Open Character Training",
    "APC",
    "PersonaMem",
    "PERMA",
    "PersonaBench",
    "PersonaMath",
    "CharacterChat",
    "Synthetic-Persona-Chat",
    "Assistant Axis",
]
Layer = Literal["corrected", "published"]


class Parameters(parameters.Parameters):
    """Parameters of the notebook; the defaults are in its first code cell."""

    sources: tuple[Source, ...] = Field(min_length=1, description="releases whose tests and verdicts count")
    layer: Layer = Field(description="which analysis gives the verdicts: the declared one, or the paper's own")
    failures: Literal["worst", "valid"] = Field(
        description="unparsed replies in the paired PersoBench tests: worst value, or only prompts that both answer"
    )
    alpha: float = Field(gt=0, lt=0.5, description="error rate of every family, and of every equivalence test")
    correction: Correction = Field(description="correction within a family, and over all tests")
    confidence: float = Field(gt=0.5, lt=1, description="coverage of every interval")
    power: float = Field(gt=0.5, lt=1, description="power behind every smallest detectable difference")
    margin: float = Field(gt=0, lt=1, description="equivalence margin of a difference between shares")
    margin_r: float = Field(gt=0, lt=1, description="equivalence margin of a correlation")
    perma_single: int = Field(ge=1, description="PERMA: questions on one domain (inferred, not stated)")
    perma_multi: int = Field(ge=1, description="PERMA: questions on several domains (inferred, not stated)")
    replicates: int = Field(ge=1000, le=1_000_000, description="bootstrap samples and permutations")
    seed: int = Field(ge=0, description="of everything random")
