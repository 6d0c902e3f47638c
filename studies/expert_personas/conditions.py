"""The personas of the study of expert personas, and which field is what to a question."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field, ValidationInfo, field_validator

from persona_studies.design import banks
from persona_studies.design.conditions import shuffled
from persona_studies.design.plan import text_hash
from persona_studies.paths import Project

REFERENCE = "no persona"
NAMES = {
    "none": REFERENCE,
    "baseline": "intelligent assistant",
    "layperson": "layperson",
    "young_child": "young child",
    "toddler": "toddler",
    "placebo": "placebo trait",
    "filler": "filler",
    "shuffled": "shuffled expert",
}
RELATIONS = ("in_domain", "adjacent", "unrelated")
Kind = Literal["baseline", "expert", "layperson", "young_child", "toddler", "placebo", "filler"]
COLUMNS = ["condition", "kind", "field", "wording", "paraphrase", "placement", "system", "description"]


class Persona(banks.Row):
    """A persona's text; ``{field}`` stands for a name of :class:`Expertise`."""

    unique = (("kind", "wording", "paraphrase"), ("text",))

    kind: Kind
    wording: Literal["short", "elaborate", ""] = ""
    paraphrase: Annotated[int, Field(ge=1, le=3)]
    text: str

    @field_validator("text")
    @classmethod
    def _filled(cls, text: str, info: ValidationInfo) -> str:
        """Refuse a slot that nothing fills, whose braces the model would be shown, and an expert in nothing."""
        if set(re.findall(r"\{.*?\}", text)) - {"{field}"}:
            raise ValueError("has a slot that nothing fills; {field} is the only one")
        if info.data.get("kind") == "expert" and "{field}" not in text:
            raise ValueError("is an expert in nothing; write {field} where the field stands")
        return text


class Expertise(banks.Row):
    """A field that there are experts of, and what a prompt calls it."""

    unique = (("field",), ("name",))

    field: banks.Name
    name: str


class Domain(banks.Row):
    """Which field is in-domain, adjacent and unrelated to a domain of a benchmark."""

    unique = (("benchmark", "domain"),)

    benchmark: banks.Name
    domain: banks.Name
    in_domain: banks.Name
    adjacent: banks.Name
    unrelated: banks.Name


class Subject(banks.Row):
    """Which field is in-domain (empty: there is no expert) and unrelated to a domain, in the second protocol."""

    unique = (("benchmark", "domain"),)

    benchmark: banks.Name
    domain: banks.Name
    in_domain: banks.Name = ""
    unrelated: banks.Name


def fields_of(project: Project) -> dict[str, str]:
    """Return what a prompt calls each field."""
    known = banks.read(project.items / "expert_personas" / "fields.csv", Expertise)
    return dict(zip(known["field"], known["name"], strict=True))


def domain_map(project: Project) -> pd.DataFrame:
    """Return which field is in-domain, adjacent and unrelated: ``benchmark, domain`` and :data:`RELATIONS`."""
    known = fields_of(project)
    return banks.read(project.items / "expert_personas" / "domains.csv", Domain, dict.fromkeys(RELATIONS, known))


def subjects(project: Project) -> pd.DataFrame:
    """Return the subjects of the second protocol: ``benchmark, domain, in_domain, unrelated``."""
    known = fields_of(project)
    return banks.read(
        project.items / "expert_personas" / "subjects.csv", Subject, {"in_domain": known, "unrelated": known}
    )


def conditions(
    project: Project, fields: Iterable[str], *, paraphrases: int = 3, placements: Iterable[str] = ("system", "user")
) -> pd.DataFrame:
    """Return every condition: no persona, then the bank's personas in every placement and wording.

    Args:
        project: Where the bank lies.
        fields: Fields that there are experts of.
        paraphrases: Wordings of each persona.
        placements: ``system`` (the system turn) and ``user`` (the start of the user turn, and no system turn).

    Returns:
        ``condition, kind, field`` (empty where a persona has none), ``wording, paraphrase`` (0 for no persona),
        ``placement, system`` (None: no system turn), ``description`` (for the user turn), ``condition_hash,
        words``.
    """
    bank = banks.read(project.items / "expert_personas" / "personas.csv", Persona)
    bank = bank[bank["paraphrase"] <= paraphrases]
    names = fields_of(project)
    rows: list[tuple[str, str, str, int, str]] = [("none", "", "", 0, "")]
    for kind, wording, paraphrase, text in bank.itertuples(index=False, name=None):
        if "{field}" not in text:
            rows.append((kind, "", wording, paraphrase, text))
            continue
        for field in fields:
            filled = text.replace("{field}", names[field])
            rows.append((kind, field, wording, paraphrase, filled))
            if wording == "elaborate":
                rows.append(("shuffled", field, "", paraphrase, shuffled(filled)))
    made = []
    for kind, field, wording, paraphrase, text in rows:
        for placement in placements if kind != "none" else ("system",):
            parts = [kind.replace("_", "-"), field, wording, str(paraphrase) if paraphrase else ""]
            name = "-".join(part for part in parts if part) + ("" if kind == "none" else f"@{placement}")
            system = text if placement == "system" and kind != "none" else None
            made.append((name, kind, field, wording, paraphrase, placement, system, text if system is None else ""))
    frame = pd.DataFrame(made, columns=COLUMNS)
    frame["condition_hash"] = [text_hash(s, d) for s, d in zip(frame["system"], frame["description"], strict=True)]
    frame["words"] = (frame["system"].fillna("") + frame["description"]).str.split().map(len)
    return frame
