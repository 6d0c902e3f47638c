"""Result tables: CSV for truth, great_tables for reading."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd

from persona_studies.errors import PersonaStudiesError, visible

MISSING = "–"
MATHS = re.compile(r"[$\\]")
GREY = "#6b727a"
"""Colour of the text of rows behind a failed gate."""


def gated(row: Mapping[Any, Any]) -> bool:
    """Return whether a row stands behind a failed gate: figures and tables draw it grey.

    Its ``gate`` says what failed, or its ``verdict`` is uninformative.

    >>> gated({"gate": "gate: above chance"}), gated({"gate": "passed"}), gated({"gate": ""}), gated({})
    (True, False, False, False)
    >>> gated({"verdict": "uninformative"}), gated({"verdict": "reproduced"}), gated({"gate": float("nan")})
    (True, False, False)
    """
    failed = row.get("gate")
    if isinstance(failed, str):
        said = failed not in ("", "passed") and not failed.startswith("not recorded")
    else:
        said = bool(failed) and not pd.isna(failed)
    return said or row.get("verdict") == "uninformative"


@dataclass(frozen=True, repr=False)
class Table:
    """A table as a notebook shows it: as HTML, or as text where there is none.

    great_tables' own text form names memory addresses, which differ from run to run.
    """

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def save(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV: unrounded, no index, missing values empty, ``\\n`` line ends.

    Raises:
        PersonaStudiesError: the frame has an index of its own, which CSV would lose, or a column twice.
    """
    if not (isinstance(frame.index, pd.RangeIndex) and frame.index.equals(pd.RangeIndex(len(frame)))):
        raise PersonaStudiesError(
            f"Table {path.stem} has an index of its own; call reset_index() before saving it."
        )
    if not frame.columns.is_unique:
        raise PersonaStudiesError(
            f"Table {path.stem} names a column twice: {', '.join(map(str, frame.columns))}; rename one."
        )
    frame.to_csv(path, index=False, lineterminator="\n", encoding="utf-8")


def load(path: Path) -> pd.DataFrame:
    """Read a table that :func:`save` wrote."""
    # Only an empty field is missing: texts such as "None" and "NA" are what they say.
    return pd.read_csv(path, float_precision="round_trip", keep_default_na=False, na_values=[""])


def p_value(p: float) -> str:
    """Format a p-value: three decimals without a leading zero, ``<.001`` below.

    >>> p_value(0.0321), p_value(0.0000004), p_value(1.0)
    ('.032', '<.001', '1.000')
    """
    if p < 0.001:
        return "<.001"
    text = f"{p:.3f}"
    return text.removeprefix("0") if p < 0.9995 else text


def beside(value: float, *limits: float, least: int = 0) -> list[str]:
    """Write a number and its limits with as few decimals as show which is larger, and no fewer than the least.

    >>> beside(0.3003, 0.3), beside(69.28, 70.0), beside(-0.3, -0.3, least=2)
    (['0.3003', '0.3000'], ['69', '70'], ['−0.30', '−0.30'])
    """
    # A limit is a declared number and is written whole.
    least = max(least, *(-int(Decimal(f"{limit:g}").as_tuple().exponent) for limit in limits))
    while least < 9 and any(limit != value and round(value, least) == round(limit, least) for limit in limits):
        least += 1
    return [f"{one:z.{least}f}".replace("-", "−") for one in (value, *limits)]


def show(
    frame: pd.DataFrame,
    *,
    id: str,
    title: str,
    subtitle: str | None = None,
    labels: Mapping[str, str] | None = None,
    decimals: Mapping[str, int] | None = None,
    intervals: Mapping[str, tuple[str, str]] | None = None,
    hide: Sequence[str] = (),
    notes: Sequence[str] = (),
    rows: int | None = None,
    verbatim: Sequence[str] = (),
    below: Mapping[str, Mapping[str, str]] | None = None,
) -> Table:
    """Format a table for reading; its numbers are rounded, the saved ones are not.

    Args:
        frame: One row per thing; those behind a failed gate (:func:`gated`) are grey.
        id: Name of the table in the page. Two renderings are identical.
        title, subtitle: What it shows; unit, n, how it was made.
        labels: Column -> label with unit; otherwise the name with blanks for underscores.
        decimals: Column -> decimals; otherwise two. Columns named ``p`` or ``p_...`` are p-values.
        intervals: Estimate -> (low, high), shown as one column ``estimate [low, high]``; a name that is no
            column is shown as the limits alone.
        hide: Columns that are saved but not shown.
        notes: Lines below the table.
        rows: Show the first so many rows only and say so.
        verbatim: Columns whose line breaks are shown.
        below: Column -> columns whose texts stand below its own, each with what leads to it. A table with such
            columns is one of texts: its letters are small, and all its cells begin at the left, also where a viewer
            drops its style sheet, as JupyterLab does in a notebook that it does not trust.
    """
    shown = frame if rows is None else frame.head(rows)
    text = pd.DataFrame(
        {column: _texts(shown[column], str(column), (decimals or {}).get(str(column), 2)) for column in shown}
    )
    limits = [name for pair in (intervals or {}).values() for name in pair]
    text = _with_intervals(_compared(text, shown), shown, intervals or {})
    stacked = {c: {n: lead for n, lead in more.items() if n not in hide} for c, more in (below or {}).items()}
    text = _stacked(text, stacked).drop(columns=[*hide, *limits, *(n for more in stacked.values() for n in more)])
    numeric = [c for c in text if c in frame and pd.api.types.is_numeric_dtype(frame[c]) and frame[c].dtype != bool]
    if rows is not None and len(frame) > rows:
        notes = [*notes, f"First {rows} of {len(frame)} rows; all are in tables/{id.replace('-', '_')}.csv."]
    html = _drawn(
        text,
        {"id": id, "title": title, "subtitle": subtitle, "labels": labels or {}, "notes": notes},
        right=numeric,
        breaks=[*verbatim, *(c for c, more in stacked.items() if more)],
        grey=[place for place, row in enumerate(shown.to_dict("records")) if gated(row)],
        texts=bool(below),
    )
    return Table(html, f"{title}\n{text.to_string(index=False)}")


def _drawn(
    text: pd.DataFrame,
    said: Mapping[str, Any],
    *,
    right: Sequence[Any],
    breaks: Sequence[str],
    grey: list[int],
    texts: bool,
) -> str:
    """Return a table as HTML.

    Args:
        text: What its cells say.
        said: ``id, title, subtitle, labels, notes`` of :func:`show`.
        right: Columns of numbers.
        breaks: Columns whose line breaks are shown.
        grey: Rows behind a failed gate.
        texts: Whether it is a table of texts, in small letters.
    """
    from great_tables import GT, loc, style  # half of what comparing with the reference would otherwise import

    table = (
        GT(text, id=said["id"])
        .tab_header(title=said["title"], subtitle=said["subtitle"])
        .cols_label({str(c): said["labels"].get(str(c), str(c).replace("_", " ")) for c in text})
        .cols_align("left")
        .tab_options(table_font_size="13px", table_margin_left="0", heading_align="left")
    )
    if right:
        table = table.cols_align("right", columns=[*right])
    if breaks or texts:
        table = table.tab_style(style.css("white-space: pre-wrap;"), loc.body(columns=[*breaks]))
    if texts:
        beginning = style.css("text-align: left; vertical-align: top;")
        table = table.tab_style(beginning, [loc.header(), loc.column_labels(), loc.body()])
    if grey:
        table = table.tab_style(style.text(color=GREY), loc.body(rows=grey))
    for note in said["notes"]:
        table = table.tab_source_note(note)
    html = table.as_raw_html()
    if texts:
        html = html.replace('<table class="gt_table"', '<table style="font-size: 11px" class="gt_table"', 1)
    if text.map(lambda cell: bool(MATHS.search(cell))).to_numpy().any():
        # JupyterLab typesets formulas also in tables: a reply's would hide, move or link what is around it.
        html = f'<div class="tex2jax_ignore mathjax_ignore">{html}</div>'
    return str(html)


def _compared(text: pd.DataFrame, shown: pd.DataFrame) -> pd.DataFrame:
    """Write values and their thresholds so that a reader sees which is larger."""
    for place, pair in enumerate(shown.reindex(columns=["value", "threshold"]).itertuples(index=False)):
        if not any(map(pd.isna, pair)):
            text.loc[place, ["value", "threshold"]] = beside(*pair, least=2)
    return text


def _with_intervals(
    text: pd.DataFrame, shown: pd.DataFrame, intervals: Mapping[str, tuple[str, str]]
) -> pd.DataFrame:
    """Write limits behind their estimate, or in a column of their own."""
    for estimate, (low, high) in intervals.items():
        known = shown[[low, high]].notna().all(axis=1)
        limits = pd.Series([f"[{a}, {b}]" for a, b in zip(text[low], text[high], strict=True)], index=text.index)
        if estimate in text:
            text[estimate] = text[estimate] + (" " + limits).where(known.to_numpy(), "")
        else:
            text.insert(list(text.columns).index(low), estimate, limits.where(known.to_numpy(), MISSING))
    return text


def _stacked(text: pd.DataFrame, below: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    """Write the texts of some columns on lines of their own below another's.

    >>> frame = pd.DataFrame({"why": ["open", "shown"], "units": ["9 ears", ""]})
    >>> _stacked(frame, {"why": {"units": "would decide: "}})["why"].tolist()
    ['open\\nwould decide: 9 ears', 'shown']
    """
    for column, more in below.items():
        for name, lead in more.items():
            known = ~text[name].isin(["", MISSING])
            text[column] = text[column] + ("\n" + lead + text[name]).where(known, "")
    return text


def _texts(values: pd.Series, name: str, decimals: int) -> list[str]:
    """Format one column; great_tables escapes it, as some texts were written by a model."""
    words = name.split("_")
    p, limit = "p" in words, bool({"threshold", "margin", "alpha"} & {*words})

    def one(value: object) -> str:
        if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
            return MISSING
        if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
            return "yes" if value else "no"
        if isinstance(value, float):
            if p and 0 <= value <= 1:
                return p_value(value)
            if limit and value != 0 and round(value, decimals) == 0:  # a limit is never shown as 0 that is none
                return f"{value:.1g}".replace("-", "−")
            # Adding 0 leaves no sign of a zero, which the last digit of a processor would decide.
            return f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", "−")
        if isinstance(value, int):
            return f"{value:,}".replace("-", "−")
        return visible(str(value))

    return [one(value) for value in values.tolist()]
