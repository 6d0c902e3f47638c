"""The page that explains a verdict, with one claim followed from the paper to its row of the scoreboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from persona_studies.analyse import claims, tables, verdicts
from persona_studies.design import protocol
from persona_studies.paths import Project
from persona_studies.publish import scoreboard
from persona_studies.publish.scoreboard import Board, Row

TEMPLATES = Path(__file__).parent / "templates"


def page(project: Project, board: Board) -> str:
    """Return the page in Markdown, for ``docs/`` and for the site.

    The example is the first claim that an interval and a corrected p-value decide; where no claim is decided, the
    first one.
    """
    row = _example(project, board)
    column = next(iter(row.numbers), claims.PUBLISHED_DATA)
    number = row.numbers.get(column, scoreboard.Number(tables.MISSING, "", row.verdict, False))
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), trim_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    units = claims.units(project)
    return environment.get_template("how_to_read.md.j2").render(
        row=row,
        column=column,
        number=number,
        steps=_steps(project, row, column, units),
        meanings=verdicts.MEANINGS,
        signs=verdicts.SIGNS,
        units=units,
        data=claims.PUBLISHED_DATA,
    )


def _example(project: Project, board: Board) -> Row:
    rows = [row for part in board.parts for row in part.all]
    decided = (row for row in rows if row.verdict in verdicts.DECIDED and row.clarity)
    return next((row for row in decided if not pd.isna(_saved(project, row).get("p_adjusted"))), rows[0])


def _saved(project: Project, row: Row) -> dict[str, Any]:
    """Return what the study saved about the deciding row."""
    found = tables.load(project.results(row.study) / "verdicts.csv")
    mine = found[(found["claim"] == row.claim) & (found["layer"] == row.layer)]
    return {str(name): value for name, value in mine.iloc[0].items()}


def _steps(project: Project, row: Row, column: str, units: dict[str, str]) -> list[tuple[str, str]]:
    """Return what leads from the claim to its verdict, as what -> text."""
    declared = protocol.load(project.protocol(row.study))
    claim = declared.claims[row.claim]
    saved = _saved(project, row)
    family = declared.families.get(str(claim.family))
    steps = [("The claim", f'"{row.statement}" Source: {claim.source}. Published: {row.published}.')]
    if family is not None:
        text = (
            f"The protocol of {row.study} names the one hypothesis that decides: `{claim.hypothesis}`. The claim "
            f"puts its effect {row.claimed}; the smallest effect that matters is {claim.smallest_effect:g}. It "
            f"belongs to the family *{claim.family}*, which is corrected as a whole: {family.size} "
            f"{'hypothesis' if family.size == 1 else 'hypotheses'}."
        )
        steps.append(("The hypothesis", text))
    if number := row.numbers.get(column):
        who = "The data that others released" if column == claims.PUBLISHED_DATA else f"The answers of {column}"
        steps.append(("The estimate", f"{who} give {number.text}. Unit: {units[number.unit]}."))
    p = saved.get("p_adjusted")
    if isinstance(p, float) and not pd.isna(p):
        shown = tables.p_value(p)
        sign = "" if shown.startswith("<") else "= "
        steps.append(("The test", f"p {sign}{shown} after correction in its family."))
    if gate := str(saved.get("gate") or "").replace("nan", ""):
        steps.append(("The checks of the measure", f"{gate[0].upper()}{gate[1:]}."))
    said = f"{saved['why']}. The verdict is {verdicts.SIGNS[row.verdict]} *{row.verdict}*."
    steps.append(("The verdict", f"{said[0].upper()}{said[1:]}"))
    return steps
