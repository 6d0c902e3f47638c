"""Where a study shows the number behind each claim: the figures and tables that the site leads to."""

from __future__ import annotations

from collections.abc import Collection

from persona_studies import files
from persona_studies.design import protocol
from persona_studies.errors import PersonaStudiesError
from persona_studies.paths import Project

Artifact = tuple[str, str]
"""What it is ("table" or "figure"), and its name."""


def load(project: Project, study: str, saved: Collection[Artifact]) -> dict[str, list[Artifact]]:
    """Return the figures and tables behind each claim of a study, from ``data/evidence.toml``.

    Those that are not made yet, because what they show is not recorded, are left out.

    Args:
        saved: What the notebook saves.

    Raises:
        PersonaStudiesError: it cannot be read, or names a claim, family, figure or table that the study lacks.
    """
    path = project.data / "evidence.toml"
    form = dict[str, dict[str, list[str]]]
    said = files.declared(path, form, PersonaStudiesError).get(study, {}) if path.is_file() else {}
    claims = protocol.load(project.protocol(study)).claims
    listed = {about: [_artifact(text) for text in texts] for about, texts in said.items()}
    named = {artifact for artifacts in listed.values() for artifact in artifacts}
    for strange, what in (
        (set(listed) - set(claims) - {claim.family for claim in claims.values()}, "what is no claim and no family"),
        ({" ".join(artifact) for artifact in named - set(saved)}, "what the notebook does not save"),
    ):
        if strange:
            names = ", ".join(sorted(map(repr, strange)))
            raise PersonaStudiesError(f"data/evidence.toml names {what} of {study}: {names}; correct the name.")
    found = {name: listed.get(name, listed.get(str(claim.family), [])) for name, claim in claims.items()}
    return {name: [one for one in artifacts if _exists(project, study, *one)] for name, artifacts in found.items()}


def _artifact(text: str) -> Artifact:
    kind, _, name = text.partition(" ")
    return kind, name


def _exists(project: Project, study: str, kind: str, name: str) -> bool:
    folder, ending = (project.figures(study), "svg") if kind == "figure" else (project.results(study), "csv")
    return (folder / f"{name}.{ending}").is_file()
