"""The generated parts of the README files: what a command, a recording or a table says is never typed by hand.

``python -m persona_studies.publish.readme`` rewrites them; a test compares them with what they should be.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd

from persona_studies.analyse import claims, verdicts
from persona_studies.design import protocol
from persona_studies.paths import Project
from persona_studies.publish import datasheets, guide, scoreboard, strip
from persona_studies.publish.scoreboard import Board
from persona_studies.reproduce import notebooks, ready

BLOCK = re.compile(r"(<!-- generated: ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def documents(project: Project) -> dict[Path, dict[str, str]]:
    """Return every document that has generated blocks, and these by name."""
    board = scoreboard.board(project)
    docs = project.root / "docs"
    return {
        project.root / "README.md": {"scoreboard": _at_a_glance(board)},
        docs / "scoreboard.md": {"scoreboard": _scoreboard(board)},
        docs / "commands.md": {"help": _help(project)},
        project.data / "responses" / "README.md": {"recordings": datasheets.recordings(project)},
        docs / "serving.md": {"load": _load(project)},
        project.studies / "README.md": {"studies": _studies(project)},
    }


def whole(project: Project) -> dict[Path, str]:
    """Return every document that is generated as a whole, and its text."""
    board = scoreboard.board(project)
    docs = project.root / "docs"
    return {
        docs / "scoreboard.svg": strip.draw(board),
        docs / "how_to_read_a_verdict.md": guide.page(project, board),
    }


def render(text: str, made: dict[str, str]) -> str:
    """Return a document with its generated blocks as they should be."""
    return BLOCK.sub(lambda m: m[1] + made[m[2]] + "\n" + m[3], text)


def _help(project: Project) -> str:
    # Without the flags of a make that this runs under, which would print folders.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--no-print-directory", "help"]
    said = subprocess.run(
        command, cwd=project.root, env=environment, capture_output=True, text=True, check=True
    ).stdout
    return f"```\n{said.rstrip()}\n```"


def _at_a_glance(board: Board) -> str:
    """Return the scoreboard's sentence, its picture, and the studies with their verdicts."""
    rows = [
        {
            "study": f"[{part.study}](studies/{part.study}.ipynb)",
            "asks": part.title,
            "verdicts": ", ".join(f"{n} {word}" for word, n in part.tally),
        }
        for part in board.parts
    ]
    picture = f"[![{strip.described(board)}](docs/scoreboard.svg)](docs/scoreboard.md)"
    return "\n\n".join([*_counts(board), picture, _table(pd.DataFrame(rows))])


def _counts(board: Board) -> list[str]:
    first, *rest = board.sentences()
    clearest = [
        f"- **{said}:** {f'{row.statement} {row.result}' if row else 'none, by the rule below.'}"
        for said, row in board.clearest()
    ]
    return [f"**{first}**", *rest, "\n".join(clearest), f"*{scoreboard.CLEAREST}*"]


def _scoreboard(board: Board) -> str:
    """Return a section per study: its claims in a table, and below it those that cannot be tested here."""
    parts = []
    for part in board.parts:
        columns = [name for name in (*board.models, claims.PUBLISHED_DATA) if name in part.models]
        rows = [
            {
                "claim": row.statement,
                "published": f"{row.published} ({row.source})" if row.source else row.published,
                "recomputed": row.recomputed,
                **{name: _number(row, name) for name in columns},
                "verdict": f"{verdicts.SIGNS[row.verdict]} **{row.verdict}**"
                + (" (not steerable)" if row.steerable else "")
                + (f" (paper's analysis: {row.paper})" if row.paper else "")
                + (f" ({row.small})" if row.small else ""),
                "why": row.why,
                "would decide": row.would_decide,
            }
            for row in part.rows
        ]
        absent = [
            f"- {row.statement} *{row.published}*: {row.why}" + (f". {row.details}" if row.details else "")
            for row in part.untestable
        ]
        parts += [
            f"## {part.title}\n\nNotebook: [{part.study}](../studies/{part.study}.ipynb)",
            *([_table(pd.DataFrame(rows))] if rows else []),
            *(["Not testable here:\n\n" + "\n".join(absent)] if absent else []),
        ]
    return "\n\n".join([*_counts(board), *parts])


def _number(row: scoreboard.Row, name: str) -> str:
    number = row.numbers.get(name)
    if number is None:
        return ""
    who = f" ({row.answered})" if name == claims.PUBLISHED_DATA and row.answered else ""
    text = f"{number.text} {number.unit}; claimed {row.claimed}{who}"
    return f"*({text}; behind a failed check)*" if number.gated else text


def _studies(project: Project) -> str:
    """Return the list of the studies with their questions, then each of them."""
    questions = {name: protocol.load(project.protocol(name)).question for name in project.names()}
    listed = [f"- [{name}]({name}.ipynb): {question}" for name, question in questions.items()]
    return "\n".join([*listed, "", *(_study(project, name) for name in questions)])


def _load(project: Project) -> str:
    """Return the rates that the tests of many calls at a time measured."""
    return _table(pd.read_csv(project.root / "benchmarks" / "results" / "load.csv").rename(columns=_spaced))


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _study(project: Project, study: str) -> str:
    """Return what a study asks, its main figure, its parameters, and where each table and figure is made."""
    declared = protocol.load(project.protocol(study))
    paper = declared.paper
    first = notebooks.first_drawing(project, study)
    modules = sorted(f"{study}/{path.name}" for path in project.folder(study).glob("*.py") if path.stat().st_size)
    files = [f"{study}.ipynb", f"{study}/protocol.toml", *modules]
    return f"""## {study}

{declared.question}

**Found:** {notebooks.finding(notebooks.read(project.notebook(study)))}

Examines {paper.authors} ({paper.year}), [{paper.title}]({paper.url}), {paper.venue}. \
Notebook, declared design, functions: {", ".join(f"[{name}]({name})" for name in files)}.

![{first.alt}](../figures/{study}/{first.name}.svg)

<details><summary>Parameters of {study}</summary>

{_parameters(project, study)}

</details>

<details><summary>Where each table and figure of {study} comes from</summary>

`make study STUDY={study}` makes them all.

{_artifacts(project, study)}

</details>
"""


def _artifacts(project: Project, study: str) -> str:
    rows = []
    code = [cell for cell in notebooks.read(project.notebook(study)).cells if cell.cell_type == "code"]
    for place, cell in enumerate(code, start=1):
        for kind, name in notebooks.saved(cell.source):
            path = f"data/results/{study}/{name}.csv" if kind == "table" else f"figures/{study}/{name}.svg"
            # Some are written with other parameters only and are no part of the reference.
            if (project.root / path).exists():
                rows.append({"artifact": f"[`{path}`](../{path})", "code cell": place})
    return _table(pd.DataFrame(rows))


def _parameters(project: Project, study: str) -> str:

    declared = notebooks.parameters(notebooks.read(project.notebook(study)))
    described = ready.parameters_class(project, study).describe(declared)
    described["default"] = "`" + described["default"] + "`"
    return _table(described)


def _table(frame: pd.DataFrame) -> str:
    """Format a table; a bar in a text would end its cell."""
    texts = frame.map(lambda value: value.replace("|", r"\|") if isinstance(value, str) else value)
    return str(texts.to_markdown(index=False, disable_numparse=True))


def main() -> int:
    """Rewrite the documents."""
    project = Project.find()
    for path, text in whole(project).items():
        path.write_text(text, encoding="utf-8")
    for path, made in documents(project).items():
        path.write_text(render(path.read_text(encoding="utf-8"), made), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
