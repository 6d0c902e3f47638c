"""The generated parts of README.md: what a command prints and what a table says is never typed by hand.

``python -m persona_studies.readme`` rewrites them; a test compares them with what they should be.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys

import pandas as pd

from persona_studies import notebooks, tables
from persona_studies.paths import Project

BLOCK = re.compile(r"(<!-- generated: ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def blocks(project: Project) -> dict[str, str]:
    """Return every generated block by name."""
    made = {"help": _help(project)}
    for study in project.names():
        made[f"verdicts {study}"] = _verdicts(project, study)
        made[f"artifacts {study}"] = _artifacts(project, study)
        made[f"parameters {study}"] = _parameters(project, study)
    return made


def render(text: str, made: dict[str, str]) -> str:
    """Return a README with its generated blocks as they should be."""
    return BLOCK.sub(lambda m: m[1] + made[m[2]] + "\n" + m[3], text)


def _help(project: Project) -> str:
    # Without the flags of a make that this runs under, which would print folders.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--no-print-directory", "help"]
    said = subprocess.run(
        command, cwd=project.root, env=environment, capture_output=True, text=True, check=True
    ).stdout
    return f"```\n{said.rstrip()}\n```"


def _verdicts(project: Project, study: str) -> str:
    found = tables.load(project.results(study) / "verdicts.csv")
    rows = [
        {
            "claim": row["statement"],
            "analysis": row["layer"],
            "published": row["published"],
            "here": _estimate(row),
            "verdict": f"**{row['verdict']}**",
        }
        for row in found.to_dict("records")
    ]
    return str(pd.DataFrame(rows).to_markdown(index=False))


def _estimate(row: dict[object, float]) -> str:
    if pd.isna(row["estimate"]):
        return "–"
    interval = "" if pd.isna(row["low"]) else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return f"{row['estimate']:.2f}{interval}"


def _artifacts(project: Project, study: str) -> str:
    """Return where each table and figure is made."""
    rows = []
    code = [cell for cell in notebooks.read(project.notebook(study)).cells if cell.cell_type == "code"]
    for place, cell in enumerate(code, start=1):
        for kind, name in saved(cell.source):
            path = f"data/results/{study}/{name}.csv" if kind == "table" else f"figures/{study}/{name}.svg"
            rows.append(
                {"artifact": f"[`{path}`]({path})", "code cell": place, "command": f"`make study STUDY={study}`"}
            )
    return str(pd.DataFrame(rows).to_markdown(index=False))


def saved(source: str) -> list[tuple[str, str]]:
    """Return what a cell saves, in its order: ("table" or "figure", name)."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [
        (call.func.attr, call.args[1].value)
        for call in sorted(calls, key=lambda call: (call.lineno, call.col_offset))
        if isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and (call.func.value.id, call.func.attr) in {("study", "table"), ("study", "figure")}
        and isinstance(call.args[1], ast.Constant)
        and isinstance(call.args[1].value, str)
    ]


def _parameters(project: Project, study: str) -> str:
    from persona_studies import runs

    declared = notebooks.parameters(notebooks.read(project.notebook(study)))
    described = runs.parameters_class(project, study).describe({n: d.value for n, d in declared.items()})
    described["default"] = "`" + described["default"] + "`"
    return str(described.to_markdown(index=False))


def main() -> int:
    """Rewrite README.md."""
    project = Project.find()
    path = project.root / "README.md"
    path.write_text(render(path.read_text(encoding="utf-8"), blocks(project)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
