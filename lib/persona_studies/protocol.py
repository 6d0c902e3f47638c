"""The declared design of a study, read from ``studies/<study>.toml``.

Everything that could be chosen after seeing the data is written down there: conditions with their role,
templates verbatim, measures with their validity gate, families of hypotheses with their size, the smallest
effect of interest, and a rule per claim.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from persona_studies.errors import ProtocolError, problems

Role = Literal["persona", "none", "baseline", "placebo", "filler", "shuffled", "positive control"]


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Paper(_Declared):
    """The publication a study replicates."""

    authors: str
    title: str
    year: int
    venue: str
    url: str


class Condition(_Declared):
    """A kind of system turn and what it controls for. ``text`` is verbatim, or None where a bank holds it."""

    role: Role
    purpose: str
    text: str | None = None


class Template(_Declared):
    """A prompt, verbatim. ``shared`` opens the user turn and is the same for all items of a condition."""

    template: str
    role: str
    shared: str = ""
    user: str


class Measure(_Declared):
    """What is asked and how it counts. ``gate`` holds the thresholds of its validity checks."""

    kind: Literal["cloze", "letter", "text"]
    purpose: str
    options: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    orders: Annotated[int, Field(ge=1)] = 1
    max_tokens: Annotated[int, Field(ge=0)] = 0
    templates: tuple[Template, ...]
    gate: dict[str, float] = {}

    def frame(self, *roles: str) -> pd.DataFrame:
        """Return the templates as a table, optionally only those with one of ``roles``."""
        return pd.DataFrame([t.model_dump() for t in self.templates if not roles or t.role in roles])


class Family(_Declared):
    """A set of hypotheses that are corrected together. Its size is fixed here, whatever the data allow."""

    purpose: str
    hypotheses: tuple[str, ...]
    size: Annotated[int, Field(ge=1)]
    sides: Literal[1, 2] = 2
    undefined: Literal["error", "one"] = "error"

    @model_validator(mode="after")
    def _counted(self) -> Self:
        if len(set(self.hypotheses)) != self.size:
            raise ValueError(f"size is {self.size} but {len(set(self.hypotheses))} different hypotheses are named")
        return self


class Claim(_Declared):
    """A published statement, the number it rests on, and which result decides about it.

    ``direction`` is the claimed sign of the effect, or ``none`` where the claim is that there is no effect of
    interest.
    """

    statement: str
    source: str
    published: str
    family: str | None = None
    hypothesis: str | None = None
    direction: Literal["positive", "negative", "none"] = "positive"
    smallest_effect: float | None = None
    not_testable: str | None = None

    @model_validator(mode="after")
    def _decidable(self) -> Self:
        if (self.hypothesis is None) == (self.not_testable is None):
            raise ValueError("a claim names either its hypothesis or why it is not testable here")
        if self.hypothesis is not None and self.smallest_effect is None:
            raise ValueError("a claim with a hypothesis declares its smallest_effect of interest")
        return self


class Protocol(_Declared):
    """A study's declared design."""

    study: str
    title: str
    question: str
    version: int
    paper: Paper
    conditions: dict[str, Condition]
    measures: dict[str, Measure]
    families: dict[str, Family]
    claims: dict[str, Claim]
    exclusions: tuple[str, ...]
    stopping_rule: str
    design: dict[str, Any] = {}
    tolerance: dict[str, float] = {}

    @field_validator("families", mode="before")
    @classmethod
    def _expanded(cls, families: Any) -> Any:
        """Write out a family that is declared for each of several parts of the data.

        ``[families.accuracy]`` with ``each = ["mmlu", "piqa"]`` declares ``accuracy_mmlu`` and ``accuracy_piqa``,
        with ``{each}`` filled in its purpose.
        """
        if not isinstance(families, Mapping):
            return families
        written: dict[str, Any] = {}
        for name, family in families.items():
            parts = family.get("each") if isinstance(family, Mapping) else None
            if parts is None:
                written[name] = family
                continue
            if not isinstance(parts, list) or not parts or len(set(map(str, parts))) < len(parts):
                raise ValueError(f"families.{name}.each is {parts!r}; it lists different names, at least one")
            rest = {key: value for key, value in family.items() if key != "each"}
            for part in parts:
                written[f"{name}_{part}"] = {
                    **rest,
                    "purpose": str(rest.get("purpose", "")).replace("{each}", part),
                }
        return written

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, claim in self.claims.items():
            if claim.hypothesis is None:
                continue
            if claim.family not in self.families:
                raise ValueError(f"claim {name} names family {claim.family!r}, which is not declared")
            if claim.hypothesis not in self.families[claim.family].hypotheses:
                raise ValueError(f"claim {name} names hypothesis {claim.hypothesis!r}, which {claim.family} lacks")
        return self

    def family_table(self) -> pd.DataFrame:
        """Return one row per family: its purpose, size, sides and rule for undefined tests."""
        return pd.DataFrame(
            [
                {
                    "family": name,
                    "purpose": family.purpose,
                    "size": family.size,
                    "sides": family.sides,
                    "undefined": {"error": "stops the run", "one": "counts as p = 1"}[family.undefined],
                }
                for name, family in self.families.items()
            ]
        )


def load(path: Path) -> Protocol:
    """Read and check a protocol.

    Raises:
        ProtocolError: the file is missing, is not TOML, or a declaration is missing, unknown or contradictory.
    """
    declared = _toml(path)
    try:
        return Protocol.model_validate(declared)
    except ValidationError as error:
        lines = "\n".join(f"  {line}" for line in problems(error))
        raise ProtocolError(f"{path.name} does not declare a design, mend it there:\n{lines}") from error


def _toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError as error:
        raise ProtocolError(f"No protocol {path.name}; every study declares its design there.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(
            f"{path.name} is not valid TOML: {error}; mend it there or restore it with git checkout."
        ) from error


def tolerances(path: Path) -> dict[str, float]:
    """Return a protocol's tolerances by ``table.column``, and ``default``; empty where none are declared.

    Raises:
        ProtocolError: the file is missing or not TOML, or a tolerance is no number of at least 0.
    """
    declared = _toml(path).get("tolerance", {})
    try:
        return TypeAdapter(dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]).validate_python(declared)
    except ValidationError as error:
        lines = "; ".join(problems(error))
        raise ProtocolError(f"[tolerance] of {path.name} does not hold, mend it there: {lines}") from error


def digest(path: Path) -> str:
    """Return the sha256 of a protocol file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
