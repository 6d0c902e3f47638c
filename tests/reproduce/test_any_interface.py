"""A study runs to its end on what a chat endpoint can answer: letters and words.

The recording is a part of the committed one; nothing here is a result.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from persona_studies.design import protocol
from persona_studies.paths import Project
from persona_studies.reproduce import runs
from tests.kit.runs import copied

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A copy of this one with another recording of sycophancy: its letters alone."""
    made = copied(tmp_path)
    whole = made.responses("sycophancy", "smollm2-135m-instruct")
    record = json.loads((whole / "record.json").read_text())
    part = made.responses("sycophancy", "letters")
    part.mkdir()
    name = "agree_letter.parquet"
    shutil.copy(whole / name, part / name)
    facts = record | {"model": record["model"] | {"name": "letters"}, "files": {name: record["files"][name]}}
    (part / "record.json").write_text(json.dumps(facts))
    return made


def test_sycophancy_runs_on_letters(project: Project) -> None:
    """Its claims need likelihoods of whole labels or ratings; letters are a convergent measure."""
    done = runs.run(project, "sycophancy", ["models=letters", "replicates=200"])
    verdicts = pd.read_csv(done.folder / "tables" / "verdicts.csv").set_index("claim")
    assert {*verdicts.index} == {*protocol.load(project.protocol("sycophancy")).claims}
    assert verdicts.loc["correlation", "why"] == "not recorded yet: labels_four"
    convergent = pd.read_csv(done.folder / "tables" / "convergent.csv")
    assert convergent.loc[convergent["r"].notna(), "measure"].tolist() == ["letters, probability"]
    others = convergent[convergent["r"].isna()]
    assert len(others) and others["gate"].str.startswith("not recorded yet: ").all()
