"""The personas of the study of expert personas, and which field is what to a question."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from persona_studies.design.conditions import shuffled
from persona_studies.design.plan import text_hash
from persona_studies.paths import Project

RELATIONS = ("in_domain", "adjacent", "unrelated")
COLUMNS = ["condition", "kind", "field", "wording", "paraphrase", "placement", "system", "description"]


def domain_map(project: Project) -> pd.DataFrame:
    """Return which field is in-domain, adjacent and unrelated: ``benchmark, domain`` and :data:`RELATIONS`."""
    return pd.read_csv(project.items / "expert_domains.csv")


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
    bank = pd.read_csv(project.items / "expert_personas.csv", keep_default_na=False)
    bank = bank[bank["paraphrase"] <= paraphrases]
    names = pd.read_csv(project.items / "expert_fields.csv").set_index("field")["name"]
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
