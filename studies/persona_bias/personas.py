"""The personas of the study of persona bias."""

from __future__ import annotations

from typing import Annotated, Literal

import pandas as pd
from pydantic import Field

from persona_studies.design import banks
from persona_studies.paths import Project

Group = Literal["disability", "religion", "race", "politics", "gender"]


class Persona(banks.Row):
    """A persona: what an instruction is filled with."""

    unique = (("persona", "paraphrase"), ("text",))

    persona: banks.Name
    text: str
    role: Literal["persona", "baseline", "placebo", "positive control"]
    group: Literal[Group, "baseline", "assistant", "control"]
    built: Annotated[str, Field(alias="register")]
    sensitivity: str
    paraphrase: Annotated[int, Field(ge=1, le=3)]
    wording: Literal["published", "believed published", "ours"]


def registry(project: Project) -> pd.DataFrame:
    """Return the personas: ``persona, text, role, group, register, sensitivity, paraphrase, wording``."""
    return banks.read(project.items / "persona_bias" / "personas.csv", Persona)
