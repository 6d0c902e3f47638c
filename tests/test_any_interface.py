"""Every study that asks a model runs to its end on what a chat endpoint can answer: letters and words, or words.

The recordings are parts of the committed ones; nothing here is a result.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from persona_studies.design import protocol
from persona_studies.errors import ParameterError
from persona_studies.paths import Project
from persona_studies.reproduce import ready, runs

ROOT = Path(__file__).parents[1]
MODEL = "smollm2-135m-instruct"
SMALL = {
    "persona_bias": ["instructions=1", "replicates=1000"],
}
# Notebooks run whole. Those with words alone lack the most and are run by CI (`make test-all`), the others by
# `make test-faults`.
RUNS = [
    pytest.param(model, primary, study, marks=pytest.mark.attack if model == "words" else pytest.mark.slow)
    for model, primary in (("letters", "letter"), ("words", "text"))
    for study in SMALL
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of this one with two more recordings of each study: letters and words, and words alone."""
    root = tmp_path_factory.mktemp("interfaces")
    for name in ("studies", "data", "figures", "pyproject.toml", "uv.lock"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, root / name)
    (root / "lib").mkdir()
    made = Project(root)
    for study in [*SMALL, "sycophancy"]:
        declared = protocol.load(made.protocol(study)).measures
        whole = made.responses(study, MODEL)
        record = json.loads((whole / "record.json").read_text())
        for name, kinds in (("letters", {"letter", "text"}), ("words", {"text"})):
            part = made.responses(study, name)
            part.mkdir()
            kept = {
                file: facts
                for file, facts in record["files"].items()
                if (study != "sycophancy" or file == "agree_letter.parquet")
                and declared[file.removesuffix(".parquet")].kind in kinds
                and file != "code.parquet"
            }
            for file in kept:
                shutil.copy(whole / file, part / file)
            facts = record | {"model": record["model"] | {"name": name}, "files": kept}
            (part / "record.json").write_text(json.dumps(facts))
    return made


@pytest.mark.parametrize(("model", "primary", "study"), RUNS)
def test_a_study_runs_on_what_a_chat_endpoint_answers(
    project: Project, study: str, model: str, primary: str
) -> None:
    done = runs.run(project, study, [f"model={model}", *SMALL[study]])
    counts = pd.read_csv(done.folder / "tables" / "responses.csv")
    counts = counts[counts["model"] == model].set_index("measure")["recorded"]
    kinds = {name: measure.kind for name, measure in protocol.load(project.protocol(study)).measures.items()}
    held = {"letter", "text"} if model == "letters" else {"text"}
    for measure, count in counts.items():
        assert (count > 0) == (kinds[str(measure)] in held), measure
    notebook = nbformat.read(done.folder / f"{study}.ipynb", 4)
    texts = [
        str(output.get("data", {}).get("text/markdown", "")) + str(output.get("data", {}).get("text/html", ""))
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    ]
    assert any(f"primary measure: {primary}" in text for text in texts)
    lines = [text for text in texts if "Not shown:" in text]
    assert all("\n" not in line.strip() for line in lines)
    verdicts = pd.read_csv(done.folder / "tables" / "verdicts.csv")
    newest = protocol.versions(project, study)[-1]
    assert {*verdicts["claim"]} == {*newest.claims}
    missing = verdicts[verdicts["verdict"] == "not testable here"]
    assert missing["why"].notna().all() and (missing["why"].str.len() > 10).all()


@pytest.mark.parametrize("study", SMALL)
def test_a_measure_that_is_not_recorded_is_refused_before_a_kernel_starts(project: Project, study: str) -> None:
    with pytest.raises(ParameterError, match=r"measure=cloze is not in the recording of words.*--measures"):
        ready.prepare(project, study, ["model=words", "measure=cloze"])


def test_sycophancy_runs_on_letters(project: Project) -> None:
    """Its claims need likelihoods of whole labels or ratings; letters are a convergent measure."""
    done = runs.run(project, "sycophancy", ["models=letters", "replicates=200"])
    verdicts = pd.read_csv(done.folder / "tables" / "verdicts.csv").set_index("claim")
    assert {*verdicts.index} == {*protocol.load(project.protocol("sycophancy")).claims}
    assert verdicts.loc["correlation", "why"] == "not recorded yet: labels_four"
    convergent = pd.read_csv(done.folder / "tables" / "convergent.csv")
    assert convergent["measure"].tolist() == ["letters, probability"] and convergent["r"].notna().all()
