"""Typed parameters of a notebook: refused before anything runs when a name or a value is wrong."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from persona_studies.errors import ParameterError, nearest, quoted

if TYPE_CHECKING:
    import pandas as pd

# A list as the documents show it, behind the name of its parameter, and a list of words in single quotes or none.
_LIST = re.compile(r"""(?:(?<=\s)|^)(\w+=)(\[(?:[^\]"']|"(?:[^"\\]|\\.)*"|'[^']*')*\])""")
_BARE = re.compile(r"\[([^\[\]\"]+)\]")


class Parameters(BaseModel):
    """Base of a study's parameters: frozen, strict, JSON types only.

    Fields carry type, bounds and description. Defaults are in the notebook's ``parameters`` cell and nowhere
    else.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @property
    def correction_name(self) -> str:
        """The parameter ``correction`` as captions write it."""
        names = {
            "holm": "Holm",
            "bonferroni": "Bonferroni",
            "fdr_bh": "Benjamini-Hochberg",
            "none": "no correction",
        }
        return names[self.model_dump()["correction"]]

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> Self:
        """Return the parameters, or say everything that is wrong with them at once.

        Raises:
            ParameterError: an unknown name (with the nearest one), a wrong type, a value out of range.
        """
        # Notebooks and JSON know lists only; a frozen model holds tuples.
        given = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        try:
            made = cls.model_validate(given)
        except ValidationError as error:
            # A mistyped name first: that the right one is missing follows from it.
            found = sorted(error.errors(), key=lambda problem: problem["type"] == "missing")
            raise ParameterError("\n".join(cls._problem(dict(e)) for e in found)) from error
        for name, value in made:
            if isinstance(value, tuple) and (twice := [v for v in value if value.count(v) > 1]):
                raise ParameterError(f"Parameter {name!r} names {quoted(twice[0])} twice; name it once.")
        return made

    @classmethod
    def from_namespace(cls, namespace: Mapping[str, Any]) -> Self:
        """Build the parameters from a notebook's variables, in the cell after the ``parameters`` cell.

        Beside the declared names, every name counts that was assigned in the cells of literals run directly
        before (the ``parameters`` cell and what papermill injects after it), so that an unknown one is
        refused even when papermill is called directly. Variables of later cells do not count: running all
        cells once more in the same kernel is fine.
        """
        names = set(cls.model_fields)
        for source in reversed(list(namespace.get("In", []))[:-1]):
            assigned = _assigned_literals(source)
            if assigned is None:
                break
            names |= assigned
        return cls.check({name: namespace[name] for name in namespace if name in names})

    @classmethod
    def parse(cls, assignments: Iterable[str]) -> dict[str, Any]:
        """Read ``name=value`` pairs from a command line, each value by the type of its field.

        Text stays text (``123e4567`` is not a number); lists are JSON or separated by commas.

        Raises:
            ParameterError: no ``=``, an unknown or repeated name, a value that its type cannot read.
        """
        values: dict[str, Any] = {}
        for assignment in assignments:
            name, equals, text = assignment.partition("=")
            name = name.strip()
            if not equals or not name:
                raise ParameterError(f"{quoted(assignment)} is not of the form NAME=VALUE.")
            try:
                assignment.encode()
            except UnicodeEncodeError as error:
                raise ParameterError(
                    f"{quoted(assignment)} is not valid unicode (UTF-8); type it again."
                ) from error
            if name in values:
                raise ParameterError(f"Parameter {quoted(name)} is given twice; give it once.")
            if name not in cls.model_fields:
                raise ParameterError(cls._unknown(name))
            values[name] = _read(name, text, cls.model_fields[name])
        return values

    @classmethod
    def describe(cls, defaults: Mapping[str, Any] = MappingProxyType({})) -> pd.DataFrame:
        """Return one row per parameter: ``parameter, default, allowed, description``."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "parameter": name,
                    "default": json.dumps(defaults.get(name)),
                    "allowed": _allowed(field),
                    "description": field.description,
                }
                for name, field in cls.model_fields.items()
            ]
        )

    @classmethod
    def is_list(cls, name: str) -> bool:
        """Return whether a parameter is a list."""
        return _is_sequence(cls.model_fields[name].annotation)

    @classmethod
    def _unknown(cls, name: str) -> str:
        hint = nearest(name, cls.model_fields)
        return f"Unknown parameter {quoted(name)}.{hint} Parameters: {', '.join(cls.model_fields)}."

    @classmethod
    def _problem(cls, error: dict[str, Any]) -> str:
        name = str(error["loc"][0]) if error["loc"] else ""
        if error["type"] == "extra_forbidden":
            return cls._unknown(name)
        if error["type"] == "missing":
            return f"Parameter {name!r} is missing from the parameters cell."
        if name not in cls.model_fields:
            return str(error["msg"])
        value = error["input"]
        hint = nearest(str(value), _choices(cls.model_fields[name].annotation))
        allowed = _allowed(cls.model_fields[name])
        return f"Parameter {name!r} cannot be {quoted(value)}: {error['msg']}.{hint} Allowed: {allowed}."


def split(text: str) -> list[str]:
    """Split ``"NAME=VALUE NAME=VALUE"`` at blanks, as a shell does; a list in brackets stays as it is.

    Raises:
        ParameterError: a quotation that does not end.

    >>> split("alpha=0.01 label='two words'")
    ['alpha=0.01', 'label=two words']
    >>> split('frames=["think", "bare"] alpha=0.01')
    ['frames=["think", "bare"]', 'alpha=0.01']
    """
    try:
        return shlex.split(_LIST.sub(lambda found: found[1] + shlex.quote(found[2]), text))
    except ValueError as error:
        raise ParameterError(
            f"{quoted(text)} cannot be split into NAME=VALUE pairs: {error}; close what it opens."
        ) from error


def _assigned_literals(source: str) -> set[str] | None:
    """Return the names that a cell assigns literals to, or None when it does anything else."""
    names = set()
    try:
        for statement in ast.parse(source).body:
            if not isinstance(statement, ast.Assign):
                return None
            ast.literal_eval(statement.value)
            names |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
    except (SyntaxError, ValueError):
        return None
    return names


def _choices(annotation: Any) -> list[str]:
    """Return the literal values that a type names, at any depth."""
    found: list[str] = []
    for part in get_args(annotation):
        found += [part] if isinstance(part, str) else _choices(part)
    return found


def _is_sequence(annotation: Any) -> bool:
    return get_origin(annotation) in (tuple, list)


def _allowed(field: FieldInfo) -> str:
    """Describe the values a field takes, for a person."""
    choices = _choices(field.annotation)
    kind = field.annotation
    if _is_sequence(kind):
        name = "a list"
    elif choices:
        name = "one"
    else:
        name = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}.get(
            kind if isinstance(kind, type) else object, str(kind)
        )
    bounds = []
    for rule in field.metadata:
        for attribute, sign in (
            ("ge", "≥"),
            ("gt", ">"),
            ("le", "≤"),
            ("lt", "<"),
            ("multiple_of", "a multiple of"),
        ):
            if getattr(rule, attribute, None) is not None:
                bounds.append(f"{sign} {getattr(rule, attribute)}")
        if getattr(rule, "min_length", None):
            bounds.append("not empty")
    return name + (f" of {', '.join(choices)}" if choices else "") + (f", {', '.join(bounds)}" if bounds else "")


def _read(name: str, text: str, field: FieldInfo) -> Any:
    kind = field.annotation
    if kind is str or (_choices(kind) and not _is_sequence(kind)):
        return text
    if _is_sequence(kind):
        texts = _choices(kind) or str in get_args(kind)
        try:
            if texts and not text.lstrip().startswith("["):
                return text.split(",") if text else []
            # A shell may have taken the quotation marks, and Python's list has single ones.
            if texts and (bare := _BARE.fullmatch(text.strip())):
                return [item.strip(" '") for item in bare[1].split(",")]
            return json.loads(text if text.lstrip().startswith("[") else f"[{text}]")
        except (ValueError, RecursionError) as error:
            raise ParameterError(f"Parameter {name!r}: {quoted(text)} is not a list (JSON, or a,b,c).") from error
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    # JSON also reads NaN and Infinity; the check of the value refuses them.
    return value
