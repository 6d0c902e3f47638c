"""Tables that a person edits: banks of items, personas and claims, each read through a declared schema.

A schema is a subclass of :class:`Row`, one field per column. :func:`read` returns the table, or refuses it and
names the file, the row as a spreadsheet numbers it, the column, the value and the remedy.

How a table is written down does not matter: with or without byte order mark, any line ends, every cell quoted or
none, commas, semicolons or tabs between cells, columns in any order. What it holds does. Nothing is dropped or
repaired: an empty row, a blank at the end of a cell or a second row of the same name is refused. Every word is
text, "NA" and "None" too.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, get_args

import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from persona_studies.errors import BankError, nearest, quoted

SEPARATORS = ",;\t"
AGAIN = 'save it again as "CSV UTF-8", with commas between cells'
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
# What a spreadsheet leaves where a formula failed.
FAILED = re.compile(r"#(REF!|NAME\?|VALUE!|DIV/0!|N/A|NUM!|NULL!|SPILL!|CALC!)|Err:\d{3}")
# What a spreadsheet makes of a name such as MAR1 or 1-2.
DATE = re.compile(r"(\d{1,4}[-./ ]){1,2}\d{1,4}\.?|(\d{1,2}-)?[A-Z][a-z]{2}-\d{2}")
# Joiners are letters' neighbours in Persian or Hindi; elsewhere nobody sees them.
JOINER = re.compile(r"(?<=[^\x00-\x7f])[\u200c\u200d](?=[^\x00-\x7f])")


def _name(value: str) -> str:
    if DATE.fullmatch(value):
        raise ValueError("is a date, perhaps made by a spreadsheet of a name; write the name, with a letter first")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9._/-]*", value):
        raise ValueError("is not a name; use letters, digits, '.', '_', '/' and '-' only, and a letter first")
    return value


def _hexadecimal(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{16}", value):
        raise ValueError(
            "is not a hash of 16 hexadecimal digits; restore it, and let the spreadsheet read the column as text"
        )
    return value


Name = Annotated[str, AfterValidator(_name)]
"""What code and other tables call a row by."""
Hash = Annotated[str, AfterValidator(_hexadecimal)]
"""Identity of a text (:func:`persona_studies.design.plan.text_hash`)."""
LINES = "several lines"
Lines = Annotated[str, LINES]
"""A text of several lines; every other text is one line."""


class Row(BaseModel):
    """Base of a schema: one field per column, each with its type and bounds.

    A cell may be empty where its field has a default. A column whose name Python or pydantic needs, such as
    ``class`` or ``copy``, is declared by a field with another name, whose ``alias`` is the column's.

    Attributes:
        unique: Columns, or sets of columns, that tell every row from the others.
        crossed: Columns of which every combination of values has a row.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    unique: ClassVar[tuple[tuple[str, ...], ...]] = ()
    crossed: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def columns(cls) -> dict[str, FieldInfo]:
        """Return the field of every column."""
        return {field.alias or name: field for name, field in cls.model_fields.items()}


def read(path: Path, row: type[Row], among: Mapping[str, Collection[str]] = MappingProxyType({})) -> pd.DataFrame:
    """Read a table that a person edits.

    Args:
        path: A CSV file in UTF-8.
        row: Its schema.
        among: Column -> names that it may hold beside an empty cell, where another table declares them.

    Returns:
        One row per row of the file, in its order; the columns that the schema declares, in the schema's order.

    Raises:
        BankError: the file is missing, is no such table, or a value does not fit.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BankError(
            f"{_place(path)} cannot be read ({error.strerror}); restore it with git checkout."
        ) from error
    try:
        frame = _read(data, row).copy()
        for number, values in enumerate(zip(*(frame[column] for column in among), strict=True), start=2):
            for (column, known), value in zip(among.items(), values, strict=True):
                if value and value not in known:
                    raise BankError(_at(number, column, value, f"is not known.{_near(value, known)}"))
    except BankError as error:
        raise BankError(f"{_place(path)}{error}") from error.__cause__
    return frame


def _place(path: Path) -> str:
    """Return a path as messages name it, from the root of the project on."""
    roots = [folder for folder in path.parents if (folder / "pyproject.toml").is_file()]
    return str(path.relative_to(roots[0])) if roots else str(path)


def _at(number: int, column: str, value: str, problem: str) -> str:
    return f", row {number}, column {column}: {quoted(value)} {problem}"


def _near(value: str, known: Collection[str]) -> str:
    return nearest(value, known) or f" Known: {quoted(', '.join(sorted(known)))[1:-1]}."


@lru_cache(maxsize=32)
def _read(data: bytes, row: type[Row]) -> pd.DataFrame:
    header, *rows = _rows(_decoded(data), row)
    kinds = {name: _number(field.annotation) for name, field in row.columns().items()}
    lines = {name for name, field in row.columns().items() if LINES in field.metadata}
    values: list[dict[str, Any]] = []
    problems: list[str] = []
    for number, cells in enumerate(rows, start=2):
        texts = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
        wrong = {name: what for name, cell in texts.items() if (what := _strange(cell, kinds[name], name in lines))}
        if not wrong:
            try:
                given = {name: kinds[name](cell) for name, cell in texts.items()}
                values.append(row.model_validate(given).model_dump(by_alias=True))
            except ValidationError as error:
                wrong = dict(map(_misfit, error.errors(include_url=False)))
        problems += [_at(number, name, texts.get(name, ""), what) for name, what in wrong.items()]
    if problems:
        more = f" ({len(problems) - 1:,} more cells do not fit.)" if len(problems) > 1 else ""
        raise BankError(f"{problems[0]}{more}")
    for together in row.unique:
        _distinct(together, [tuple(value[name] for name in together) for value in values])
    _complete(row.crossed, [tuple(value[name] for name in row.crossed) for value in values])
    return pd.DataFrame(values)


def _decoded(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\x00" in data[:4]:
        raise BankError(f" is in UTF-16, not in UTF-8; {AGAIN}.")
    if data[:4] == b"PK\x03\x04":
        raise BankError(f" is a workbook, not a table of text; {AGAIN}.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, place = data.count(b"\n", 0, error.start) + 1, error.start
        near = data[max(place - 10, 0) : place + 10].decode("cp1252", errors="replace")
        raise BankError(
            f" is not in UTF-8 (line {line}; in Windows-1252 it reads {quoted(near)}); {AGAIN}."
        ) from error
    return unicodedata.normalize("NFC", text)


def _rows(text: str, row: type[Row]) -> list[list[str]]:
    """Return the header and the rows below it; every row has a cell for every column."""
    declared = [*row.columns()]
    rows: list[list[str]] = []
    try:
        for cells in csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text, declared), strict=True):
            rows.append(cells)
    except csv.Error as error:
        raise BankError(
            f", row {len(rows) + 1}: {error}; put a text that holds quotation marks between quotation marks, "
            'and double those inside: "a ""good"" one".'
        ) from error
    if not rows or not any(rows[0]):
        raise BankError(f", row 1 names no columns; write {','.join(declared)} there.")
    _header(rows[0], declared)
    for number, cells in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in cells):
            empty = [n for n, row in enumerate(rows, start=1) if not any(cell.strip() for cell in row)]
            more = f" (and {len(empty) - 1} more)" if len(empty) > 1 else ""
            raise BankError(f", row {number}{more} is empty; delete it.")
        if len(cells) != len(declared):
            raise BankError(
                f", row {number} has {len(cells)} cells, its header {len(declared)} columns, first "
                f"{quoted(cells[0])}; put a text that holds a comma between quotation marks, or fill in what lacks."
            )
    if len(rows) == 1:
        raise BankError(" has no row below its header; write one, or restore the file with git checkout.")
    return rows


def _separator(text: str, declared: Collection[str]) -> str:
    """Return the separator that tells the most declared columns apart in the header."""

    first = re.split(r"[\r\n]", text, maxsplit=1)[0]

    def known(separator: str) -> int:
        header = next(csv.reader([first], delimiter=separator), [])
        return len({cell.strip() for cell in header} & {*declared})

    return max(SEPARATORS, key=known)


def _header(header: list[str], declared: list[str]) -> None:
    missing = [name for name in declared if name not in header]
    for place, name in enumerate(header, start=1):
        if not name.strip():
            raise BankError(f", row 1: column {place} has no name; delete it or name it.")
        if header.count(name) > 1:
            raise BankError(f", row 1: column {quoted(name)} is there twice; delete one.")
        if name not in declared:
            hint = _near(name.strip(), missing) if missing else " Delete it."
            raise BankError(f", row 1: unknown column {quoted(name)}.{hint}")
    if missing:
        raise BankError(f", row 1: column {', '.join(missing)} is missing; add it.")


def _number(annotation: Any) -> Callable[[str], str | int | float]:
    """Return what turns a cell of a column into its value: the column holds whole numbers, numbers or texts."""
    kinds = {annotation, *get_args(annotation)}
    return int if int in kinds else float if float in kinds else _lines


def _lines(cell: str) -> str:
    return cell.replace("\r\n", "\n")


def _strange(cell: str, kind: Callable[[str], object], lines: bool) -> str | None:
    """Return what is wrong with a cell and the remedy, None where nothing is."""
    if cell != cell.strip():
        return "begins or ends with a blank; delete it."
    if kind is int and not re.fullmatch(r"-?[0-9]{1,18}", cell):
        return "is no whole number; write digits only."
    if kind is float and not NUMBER.fullmatch(cell):
        return "is not a number; write digits, with a point before decimals."
    if FAILED.fullmatch(cell):
        return "is what a spreadsheet writes for a formula that failed; write the value."
    if cell[0] in "=@+-" and not NUMBER.fullmatch(cell):
        return f"begins with {cell[0]!r}, which a spreadsheet takes for a formula; begin with a letter."
    seen = JOINER.sub("", _lines(cell).replace("\n", "") if lines else cell)
    if odd := [c for c in seen if not c.isprintable() or c == "\ufffd"]:
        what = "LINE BREAK" if odd[0] in "\r\n" else unicodedata.name(odd[0], "CONTROL CHARACTER")
        return f"holds the character U+{ord(odd[0]):04X} {what}; write a plain blank, or nothing."
    if not cell.isascii() and (meant := _misread(cell)):
        return f"was saved in one encoding and read in another; write {quoted(meant)}."
    return None


def _misread(cell: str) -> str | None:
    """Return a text that was UTF-8 and was read as Windows-1252, as it was before; None where it was not."""
    try:
        meant = cell.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return None
    return meant if meant != cell else None


def _misfit(problem: ErrorDetails) -> tuple[str, str]:
    """Return the column and, in words, how its value does not fit its type."""
    column, kind, context = ".".join(map(str, problem["loc"])), problem["type"], problem.get("ctx", {})
    if kind == "missing":
        return column, "is empty; fill it in."
    if kind == "value_error":
        return column, f"{context['error']}."
    if kind == "literal_error":
        hint = nearest(str(problem["input"]), re.findall(r"'([^']*)'", context["expected"]))
        return column, f"must be {context['expected']}.{hint}"
    return column, f"does not fit: {problem['msg'][:1].lower()}{problem['msg'][1:]}."


def _distinct(together: tuple[str, ...], keys: list[tuple[object, ...]]) -> None:
    first: dict[tuple[object, ...], int] = {}
    for number, key in enumerate(keys, start=2):
        if key in first:
            where, what = " and ".join(together), ", ".join(map(str, key))
            raise BankError(_at(number, where, what, f"stands in row {first[key]} already; change or delete one."))
        first[key] = number


def _complete(crossed: tuple[str, ...], keys: list[tuple[object, ...]]) -> None:
    for combination in product(*(dict.fromkeys(column) for column in zip(*keys, strict=True))):
        if combination not in keys:
            what = ", ".join(f"{name} {value}" for name, value in zip(crossed, combination, strict=True))
            raise BankError(f" has no row for {what}; every combination of {' and '.join(crossed)} needs one.")
