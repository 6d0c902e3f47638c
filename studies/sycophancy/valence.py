"""Sentiment of the personas' texts: mean valence of their words in the VADER lexicon.

``python -m sycophancy.valence``, in ``studies/``, rebuilds ``data/published/sycophancy/persona_valence.csv``.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from persona_studies.design import protocol as protocols
from persona_studies.design import sources
from persona_studies.errors import SourceError
from persona_studies.paths import Project
from sycophancy import design

MOST = 275


def lexicon(path: Path) -> dict[str, float]:
    """Return the valence of every word, -4 to 4 (Hutto and Gilbert 2014, ICWSM 8, 216-225)."""
    lines = [line.split("\t") for line in path.read_text("utf-8").splitlines() if line.strip()]
    return {parts[0]: float(parts[1]) for parts in lines}


def of(text: str, words: dict[str, float]) -> tuple[int, float]:
    """Return the words of a text and their mean valence; an unknown word has none.

    Grammar is passed over: "never unkind" is as negative as "unkind". A compound that the lexicon lacks is looked
    up without its hyphen, then by its parts.

    >>> of("A kind, soft-hearted man", {"kind": 2.4, "softhearted": 2.0})
    (4, 1.1)
    """
    found = re.findall(r"[a-z]+(?:[-'][a-z]+)*", text.lower())
    values = [
        words.get(word, words.get(word.replace("-", ""), sum(words.get(part, 0.0) for part in word.split("-"))))
        for word in found
    ]
    return len(found), sum(values) / max(len(found), 1)


def derive(project: Project, source: Path) -> str:
    """Return the committed table as CSV: ``condition, condition_hash, words, valence`` of all 275 personas.

    Args:
        source: Source ``vader-lexicon``.
    """
    people = design.conditions(project, protocols.load(project.protocol("sycophancy")), MOST)
    people = people[people["role"] == "persona"].reset_index(drop=True)
    words = lexicon(source)
    counted = pd.DataFrame([of(str(text), words) for text in people["system"]], columns=["words", "valence"])
    table = people[["condition", "condition_hash"]].join(counted).round({"valence": 6})
    return str(table.to_csv(index=False, lineterminator="\n"))


def load(project: Project, everyone: pd.DataFrame) -> pd.DataFrame:
    """Return ``condition, words, valence`` of the personas of a run.

    Args:
        everyone: Of :func:`sycophancy.design.conditions`.

    Raises:
        SourceError: a persona's text is not the one that was counted.
    """
    table = pd.read_csv(project.published / "sycophancy" / "persona_valence.csv")
    people = everyone.loc[everyone["role"] == "persona", ["condition", "condition_hash"]]
    found = people.merge(table, on=["condition", "condition_hash"], how="left")
    if changed := found.loc[found["valence"].isna(), "condition"].tolist():
        raise SourceError(
            f"The text of persona {changed[0]} is not the one in data/published/sycophancy/persona_valence.csv; "
            "rebuild that file with python -m sycophancy.valence, in studies/."
        )
    return found[["condition", "words", "valence"]]


if __name__ == "__main__":
    here = Project.find()
    made = derive(here, sources.fetch(here, "vader-lexicon"))
    (here.published / "sycophancy" / "persona_valence.csv").write_text(made, "utf-8", newline="\n")
