"""The picture of the scoreboard: every claim as a mark, one line per study, the verdict as shape and colour."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from persona_studies.analyse import verdicts
from persona_studies.publish.scoreboard import Board

TEMPLATES = Path(__file__).parent / "templates" / "site"
# A shape of 12 by 12 around the origin, and its colour; filled where the verdict decides, open elsewhere.
MARKS = {
    verdicts.REPRODUCED: ("M6 0A6 6 0 1 1 -6 0A6 6 0 1 1 6 0Z", "#0a5a9c"),
    verdicts.CONTRADICTED: ("M-6 -3L-3 -6L0 -3L3 -6L6 -3L3 0L6 3L3 6L0 3L-3 6L-6 3L-3 0Z", "#b8420f"),
    verdicts.HETEROGENEOUS: ("M0 -7L5 -1.5L-5 -1.5ZM0 7L5 1.5L-5 1.5Z", "#5b4a9c"),
    verdicts.SAME_DIRECTION: ("M0 -5.5L5.5 5L-5.5 5Z", "#5b4a9c"),
    verdicts.INCONCLUSIVE: ("M0 -6L6 0L0 6L-6 0Z", "#5b4a9c"),
    verdicts.UNINFORMATIVE: ("M-5 -5H5V5H-5Z", "#6b727a"),
    verdicts.NOT_TESTABLE: ("M-5 0H5", "#6b727a"),
}
# Pixels between marks, between lines; width of the labels; marks in a line.
STEP, LINE, LABEL, WIDE = 18, 22, 128, 18
WIDTH = LABEL + WIDE * STEP + 14


def draw(board: Board) -> str:
    """Return the picture as SVG text, the same bytes for the same verdicts."""
    marks, labels, ours, top = [], [], [], 30
    for part in board.parts:
        labels.append((part.study.replace("_", " "), top + 4))
        for place, row in enumerate(part.all):
            at = (LABEL + 14 + STEP * (place % WIDE), top + LINE * (place // WIDE))
            marks.append((row.verdict, *at))
            ours += [at] * row.ours
        top += LINE * max(1, -(-len(part.all) // WIDE)) + 8
    legend = [(word, n) for word, n in board.counts().items() if n]
    lines = -(-(len(legend) + bool(ours)) // 2)
    places = [(14 + 262 * (n // lines), top + 22 + 22 * (n % lines)) for n in range(2 * lines)]
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, undefined=StrictUndefined
    )
    return environment.get_template("scoreboard.svg.j2").render(
        described=described(board),
        labels=labels,
        marks=marks,
        legend=[(*each, *place) for each, place in zip(legend, places, strict=False)],
        ours=ours,
        own=places[len(legend)] if ours else None,
        shapes=MARKS,
        decided=verdicts.DECIDED,
        label=LABEL,
        width=WIDTH,
        height=top + 22 * lines + 16,
    )


def described(board: Board) -> str:
    """Say what the picture shows, for those who do not see it."""
    counted = {part.study.replace("_", " "): [f"{n} {word}" for word, n in part.tally] for part in board.parts}
    each = [f"{study}: {', '.join(counts)}" for study, counts in counted.items()]
    own = sum(row.ours for part in board.parts for row in part.all)
    said = f" {own} of them are questions of this repository." if own else ""
    return "Every claim as a mark, by study and verdict. " + "; ".join(each) + f".{said}"
