"""The declared design of a study, read from ``studies/<study>/protocol.toml``.

Everything that could be chosen after seeing the data is written down there: conditions with their role,
templates verbatim, measures with their validity gate, families of hypotheses with their size, the smallest
effect of interest, and a rule per claim.
"""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from persona_studies import files
from persona_studies.errors import ProtocolError, ResponsesError, problems, quoted

Role = Literal["persona", "none", "baseline", "placebo", "filler", "shuffled", "positive control"]
OURS = "our question"
"""How ``published`` begins where a claim is no paper's."""
Direction = Literal["positive", "negative", "none", "not positive", "not negative", "either"]


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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
    """What is asked and how it counts.

    ``gate`` holds the thresholds of its validity checks: ``min_`` or ``max_`` before what is checked.
    """

    kind: Literal["cloze", "letter", "text"]
    purpose: str
    options: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    orders: Annotated[int, Field(ge=1)] = 1
    max_tokens: Annotated[int, Field(ge=0)] = 0
    templates: tuple[Template, ...]
    gate: dict[Annotated[str, Field(pattern="^(min|max)_")], float] = {}

    def frame(self, *roles: str) -> pd.DataFrame:
        """Return the templates as a table, optionally only those with one of ``roles``."""
        return pd.DataFrame([t.model_dump() for t in self.templates if not roles or t.role in roles])


class Hypothesis(_Declared):
    """A contrast, declared part by part: ``first`` less ``second``, as mean ``outcome`` of ``measure`` over ``on``.

    Attributes:
        first: A condition, a persona or a set of them, named as the study's analysis names it.
        second: What it is compared with.
        on: The items: a data set, or a set of data sets that weigh the same.
        measure: A measure of this protocol, or where the published numbers come from.
        outcome: What is averaged, such as ``accuracy``.
        direction: What the study expects, or ``either``. ``none`` expects no difference of interest.
            ``not positive`` expects no gain: superiority by ``smallest_effect`` or more is excluded, one-sided.
        smallest_effect: Smallest difference of interest, in units of the outcome.
        within: Only items of this part of ``on``.
        interaction: A part of ``on``. The hypothesis is then the difference within ``within`` less that within it.
    """

    first: str
    second: str
    on: str
    measure: str
    outcome: str
    direction: Direction
    smallest_effect: Annotated[float, Field(gt=0)]
    within: str | None = None
    interaction: str | None = None

    @model_validator(mode="after")
    def _parts(self) -> Self:
        if self.interaction is not None and self.within in (None, self.interaction):
            raise ValueError("an interaction names two different parts, within and interaction")
        return self

    @property
    def part(self) -> str | None:
        """The part of ``on`` that it is about: of an interaction one less the other; None where it is all."""
        return self.within if self.interaction is None else f"{self.within} - {self.interaction}"

    @property
    def name(self) -> str:
        """Return the hypothesis in words.

        >>> facts = dict(on="triage", measure="letter", outcome="accuracy", direction="either", smallest_effect=0.1)
        >>> Hypothesis(first="nurse", second="assistant", **facts).name
        'nurse - assistant | triage, accuracy'
        >>> Hypothesis(first="nurse", second="assistant", within="a", interaction="b", **facts).name
        'nurse - assistant | triage, a - b, accuracy'
        """
        where = self.on if self.part is None else f"{self.on}, {self.part}"
        return f"{self.first} - {self.second} | {where}, {self.outcome}"


class Family(_Declared):
    """A set of hypotheses that are corrected together. Its size is fixed here, whatever the data allow.

    Hypotheses are names, or tables as :class:`Hypothesis` describes; a table ``defaults`` declares what they have
    in common. ``contrasts`` holds the tables by name, and is empty where hypotheses are names; ``measure`` is then
    the measure of this protocol that they rest on, if any. ``unit`` is what a test counts as independent, in the
    plural.
    """

    purpose: str
    hypotheses: tuple[str, ...]
    contrasts: dict[str, Hypothesis] = {}
    size: Annotated[int, Field(ge=1)]
    measure: str | None = None
    unit: str = "items"
    sides: Literal[1, 2] = 2
    undefined: Literal["error", "one"] = "error"

    @model_validator(mode="before")
    @classmethod
    def _typed(cls, family: Any) -> Any:
        """Read hypotheses that are declared as tables; what all of them share is declared once, as defaults."""
        if not isinstance(family, Mapping):
            return family
        shared, declared = family.get("defaults", {}), family.get("hypotheses")
        rest = {key: value for key, value in family.items() if key != "defaults"}
        if not isinstance(declared, list) or not any(isinstance(each, Mapping) for each in declared):
            if shared:
                raise ValueError("defaults are for hypotheses that are tables; name each hypothesis's parts")
            return rest
        if not isinstance(shared, Mapping):
            raise ValueError(f"defaults is {shared!r}; it is a table of what the hypotheses have in common")
        if not all(isinstance(each, Mapping) for each in declared):
            raise ValueError("hypotheses are all names or all tables")
        tables = [Hypothesis.model_validate({**shared, **each}) for each in declared]
        names = [table.name for table in tables]
        return {**rest, "hypotheses": tuple(names), "contrasts": dict(zip(names, tables, strict=True))}

    @model_validator(mode="after")
    def _counted(self) -> Self:
        if len(set(self.hypotheses)) != self.size:
            raise ValueError(f"size is {self.size} but {len(set(self.hypotheses))} different hypotheses are named")
        return self


class Claim(_Declared):
    """A published statement, the number it rests on, and which result decides about it.

    ``direction`` is the claimed sign of the effect. ``none`` claims that there is no effect of interest, and
    ``not positive`` or ``not negative`` that there is none in that direction, which is a one-sided claim.
    ``either`` claims an effect without saying in which direction. ``line`` is the value that the estimate is
    compared with: 0 for a difference, .67 for a reliability that should reach .67. Hypotheses in ``also`` must come
    out as the first one does, or the claim is not decided. A question of the study itself, which no paper
    answers, begins ``published`` with :data:`OURS`. What no data at hand can decide says why in ``not_testable``,
    in at most eight words; ``details`` has room for more.
    """

    statement: str
    source: str
    published: str
    family: str | None = None
    hypothesis: str | None = None
    also: tuple[str, ...] = ()
    direction: Direction = "positive"
    line: float = 0.0
    smallest_effect: float | None = None
    not_testable: str | None = None
    details: str = ""

    @property
    def ours(self) -> bool:
        """Whether it is a question of the study itself, which no paper answers."""
        return self.published.startswith(OURS)

    @model_validator(mode="after")
    def _decidable(self) -> Self:
        if (self.hypothesis is None) == (self.not_testable is None):
            raise ValueError("a claim names either its hypothesis or why it is not testable here")
        if len((self.not_testable or "").split()) > 8:
            raise ValueError("not_testable says why in at most eight words; details has room for more")
        if self.details and self.not_testable is None:
            raise ValueError("details stand beside not_testable; those of a tested claim come from its analysis")
        if self.hypothesis is not None and self.smallest_effect is None:
            raise ValueError("a claim with a hypothesis declares its smallest_effect of interest")
        if self.also and (self.hypothesis is None or len({self.hypothesis, *self.also}) <= len(self.also)):
            raise ValueError("also names further hypotheses beside the claim's first one, each once")
        return self


class Amendment(_Declared):
    """A look at responses, or a change of the protocol after one, with what was known by then."""

    date: datetime.date
    commit: str | None = None
    known: str
    changed: str


class Confirmatory(_Declared):
    """The run that decides about the claims: fixed before its first response was looked at.

    Attributes:
        declared: Date of the declaration.
        measure: Primary measure.
        alpha: Error rate of every family.
        correction: Correction within a family.
        confidence: Coverage of every interval.
        sizes: Numbers of what is asked, by name.
        cells: Planned cells by measure.
    """

    declared: datetime.date
    measure: str
    alpha: Annotated[float, Field(gt=0, lt=0.5)]
    correction: Literal["holm"] = "holm"
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    sizes: dict[str, Annotated[int, Field(ge=1)]]
    cells: dict[str, Annotated[int, Field(ge=1)]]


class Protocol(_Declared):
    """A study's declared design.

    ``primary`` lists what the parameter ``measure`` can be, the preferred one first (:meth:`primary_measure`).
    ``reads`` names the files and folders below ``data/`` that the study reads, ``sources`` patterns of ids in
    ``data/sources.toml``; a run depends on these and on nothing else there.
    """

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
    confirmatory: Confirmatory | None = None
    amendments: tuple[Amendment, ...] = ()
    primary: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    design: dict[str, Any] = {}
    tolerance: dict[str, float] = {}

    @field_validator("families", mode="before")
    @classmethod
    def _expanded(cls, families: Any) -> Any:
        """Write out a family that is declared for each of several parts of the data.

        ``[families.accuracy]`` with ``each = ["mmlu", "piqa"]`` declares ``accuracy_mmlu`` and ``accuracy_piqa``,
        with ``{each}`` filled in its purpose, and in what its hypotheses have in common (``defaults``).
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
                    **({"defaults": _filled(rest["defaults"], part)} if "defaults" in rest else {}),
                }
        return written

    @model_validator(mode="after")
    def _dated(self) -> Self:
        dates = [amendment.date for amendment in self.amendments]
        if dates != sorted(dates):
            raise ValueError("amendments stand in the order of their dates")
        if self.confirmatory is not None:
            for name in {self.confirmatory.measure, *self.confirmatory.cells} - {*self.measures}:
                raise ValueError(f"confirmatory names measure {name!r}, which is not declared")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, claim in self.claims.items():
            if claim.hypothesis is None:
                continue
            if claim.family not in self.families:
                raise ValueError(f"claim {name} names family {claim.family!r}, which is not declared")
            family = self.families[claim.family]
            for hypothesis in (claim.hypothesis, *claim.also):
                if hypothesis not in family.hypotheses:
                    raise ValueError(f"claim {name} names hypothesis {hypothesis!r}, which {claim.family} lacks")
                declared = family.contrasts.get(hypothesis)
                if declared is not None and declared.smallest_effect != claim.smallest_effect:
                    raise ValueError(
                        f"claim {name} has smallest_effect {claim.smallest_effect}, its hypothesis "
                        f"{declared.smallest_effect}; write the same number"
                    )
        return self

    def primary_measure(self, measures: Collection[str]) -> str:
        """Return the primary measure of a recording: the first of ``primary`` that it holds.

        Its validity gate has no say in this. A measure that fails makes the claims uninformative; another one in
        its place would be chosen by its results.

        Args:
            measures: The measures that the recording holds, as ``primary`` spells them.

        Raises:
            ResponsesError: the recording holds none of them.
        """
        held = [name for name in self.primary if name in measures]
        if not held:
            raise ResponsesError(
                f"The recording holds none of the measures that can be primary in {self.study} "
                f"({', '.join(self.primary)}); record one of them: --measures {self.primary[0]}"
            )
        return held[0]

    def at_margin(self, margin: float, where: Callable[[str, Hypothesis], bool] = lambda *_: True) -> Self:
        """Return the protocol with another smallest effect of interest, in contrasts and in the claims about them.

        Args:
            where: Says of a family's name and a contrast whether it is for that.
        """
        families, claims = {}, {}
        for name, family in self.families.items():
            contrasts = {
                hypothesis: each.model_copy(update={"smallest_effect": margin}) if where(name, each) else each
                for hypothesis, each in family.contrasts.items()
            }
            families[name] = family.model_copy(update={"contrasts": contrasts})
        for name, claim in self.claims.items():
            contrast = families[claim.family].contrasts.get(str(claim.hypothesis)) if claim.family else None
            effect = claim.smallest_effect if contrast is None else contrast.smallest_effect
            claims[name] = claim.model_copy(update={"smallest_effect": effect})
        return self.model_copy(update={"families": families, "claims": claims})

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


def _place(path: Path) -> str:
    """Return a protocol's path as messages name it: every study has a file of the same name."""
    return f"{path.parent.name}/{path.name}"


def _filled(defaults: Any, part: str) -> Any:
    """Fill ``{each}`` in what hypotheses have in common; the family's own checks refuse anything but a table."""
    if not isinstance(defaults, Mapping):
        return defaults
    return {
        key: value.replace("{each}", part) if isinstance(value, str) else value for key, value in defaults.items()
    }


def load(path: Path) -> Protocol:
    """Read and check a protocol.

    Raises:
        ProtocolError: the file is missing, is not TOML, declares the study of another folder, or a declaration is
            missing, unknown or contradictory.
    """
    declared = _toml(path)
    folder = path.parent
    if folder.parent.name == "studies" and (name := declared.get("study", folder.name)) != folder.name:
        raise ProtocolError(
            f'{_place(path)} declares the study {quoted(name)}; write study = "{folder.name}" there.'
        )
    try:
        return Protocol.model_validate(declared)
    except ValidationError as error:
        lines = "\n".join(f"  {line}" for line in problems(error))
        raise ProtocolError(f"{_place(path)} does not declare a design, mend it there:\n{lines}") from error


def _toml(path: Path) -> Mapping[str, Any]:
    try:
        return files.toml(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ProtocolError(f"No protocol {_place(path)}; every study declares its design there.") from error
    except UnicodeDecodeError as error:
        raise ProtocolError(f"{_place(path)} is not in UTF-8 ({error}); save it again as UTF-8.") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ProtocolError(
            f"{_place(path)} is not valid TOML: {error}; mend it there or restore it with git checkout."
        ) from error


def tolerances(path: Path) -> dict[str, float]:
    """Return a protocol's tolerances by ``table.column``, and ``default``; empty where none are declared.

    Raises:
        ProtocolError: the file is missing or not TOML, or a tolerance is not a number of at least 0.
    """
    declared = _toml(path).get("tolerance", {})
    try:
        return TypeAdapter(dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]).validate_python(declared)
    except ValidationError as error:
        lines = "; ".join(problems(error))
        raise ProtocolError(f"[tolerance] of {_place(path)} does not hold, mend it there: {lines}") from error
