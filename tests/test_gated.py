"""A gated set of questions: fetched with the user's own token, and its texts are nowhere afterwards.

The file is made up in the form of GPQA Diamond; the hub is a local one.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from expert_personas import analysis, replies
from expert_personas import design as study
from persona_studies.design import multiple_choice, sources
from persona_studies.design import plan as plans
from persona_studies.design import protocol as protocols
from persona_studies.errors import ProtocolError
from persona_studies.paths import Project
from tests.local_hub import TOKEN, LocalHub
from tests.simulated_expert_personas import DEFAULTS, Simulation

PROJECT = Project.find(Path(__file__))
PIN = sources.load(PROJECT)["gpqa-diamond"]
CANARY = "made-up-canary"
N = 24
CODE = """
import sys
from pathlib import Path
from persona_studies.design import multiple_choice
from persona_studies.errors import PersonaStudiesError
from persona_studies.paths import Project
try:
    frame = multiple_choice.questions(Project(Path(sys.argv[1])), "gpqa_diamond", texts=False)
except PersonaStudiesError as error:
    sys.exit(f"{type(error).__name__}: {error}")
print(frame.to_json(orient="records"))
"""


def made_up() -> bytes:
    """Return a file in the form of GPQA Diamond, with further columns as there."""
    answers = ["Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"]
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(
        ["Pre-Revision Question", "Question", *answers, "Explanation", "High-level domain", "Record ID"]
    )
    for number in range(N):
        options = [f"{CANARY} {word} {number}\n" for word in ("right", "wrong", "false", "off")]
        domain = ("Physics", "Chemistry", "Biology")[number % 3]
        asked = f"{CANARY}, question {number}?"
        writer.writerow(["older", asked, *options, CANARY, domain, f"rec{number}"])
    return buffer.getvalue().encode()


@pytest.fixture
def server() -> Iterator[LocalHub]:
    made = LocalHub()
    made.gated = True
    made.commits[PIN.revision] = {PIN.path: made_up()}
    yield made
    made.close()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A miniature whose pin is that of the made-up file."""
    (tmp_path / "studies").mkdir()
    (tmp_path / "data").mkdir()
    entry = PIN.model_dump() | {"sha256": hashlib.sha256(made_up()).hexdigest(), "bytes": len(made_up())}
    lines = [f"{name} = {json.dumps(value)}" for name, value in entry.items()]
    (tmp_path / "data" / "sources.toml").write_text("\n".join(["[[source]]", *lines]))
    return Project(tmp_path)


def ask(project: Project, server: LocalHub, token: str | None) -> subprocess.CompletedProcess[str]:
    """Read the questions in a process of its own: the client reads its address when it is imported."""
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("HF_", "HUGGING")) and key != "PERSONA_STUDIES_MIRROR"
    }
    own = {
        "HF_ENDPOINT": server.address,
        "HF_HOME": str(project.root / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "PERSONA_STUDIES_CACHE": str(project.root / "cache"),
        "PYTHONPATH": str(PROJECT.studies),
    }
    environment = inherited | own | ({"HF_TOKEN": token} if token else {})
    command = [sys.executable, "-c", CODE, str(project.root)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert TOKEN not in done.stdout + done.stderr
    return done


def test_with_access_the_facts_are_made_here_and_hold_no_text(project: Project, server: LocalHub) -> None:
    done = ask(project, server, TOKEN)
    assert done.returncode == 0, done.stderr
    frame = pd.DataFrame(json.loads(done.stdout))
    assert list(frame.columns) == [*multiple_choice.Question.model_fields] and len(frame) == N
    assert frame["domain"].value_counts().to_dict() == {"physics": 8, "chemistry": 8, "biology": 8}
    assert set(frame["n_options"]) == {4} and frame["gold"].nunique() > 1
    assert CANARY not in done.stdout + done.stderr
    holding = [path for path in project.root.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert holding == [project.root / "cache" / PIN.location]


@pytest.mark.parametrize(("token", "status"), [(None, "HTTP 401"), ("hf_of_somebody_else", "gated")])
def test_without_access_the_remedy_is_named(
    project: Project, server: LocalHub, token: str | None, status: str
) -> None:
    done = ask(project, server, token)
    assert done.returncode == 1
    assert f"({status}). Accept its conditions at {server.address}/datasets/{PIN.repo}, log in" in done.stderr
    assert not list((project.root / "cache").rglob("*.csv"))


class TestInTheStudy:
    @pytest.fixture(autouse=True)
    def at_hand(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        path = tmp_path / "made-up.csv"
        path.write_bytes(made_up())
        genuine = sources.fetch
        monkeypatch.setattr(sources, "fetch", lambda p, id: path if id == "gpqa-diamond" else genuine(p, id))

    def test_the_right_option_is_where_the_key_says(self) -> None:
        frame = multiple_choice.questions(PROJECT, "gpqa_diamond", texts=True)
        chosen = [options[gold] for options, gold in zip(frame["options"], frame["gold"])]
        assert all(f"{CANARY} right" in option for option in chosen)
        assert frame["item_hash"].is_unique
        with_texts = frame.drop(columns=["question", "options"])
        pd.testing.assert_frame_equal(multiple_choice.questions(PROJECT, "gpqa_diamond", texts=False), with_texts)

    def test_no_free_reply_is_asked_and_no_plan_with_texts_is_written(self, tmp_path: Path) -> None:
        parameters = study.Parameters.check(DEFAULTS | {"benchmarks": ["openbookqa", "gpqa_diamond"]})
        protocol = protocols.load(PROJECT.protocol("expert_personas"))
        bare = study.plan(PROJECT, protocol, parameters)
        theirs = bare[bare["item"].str.startswith("gpqa_diamond/")]
        assert set(theirs["measure"]) == {"cloze", "letter"}
        assert theirs.loc[theirs["template"] != "neutral", "user"].isna().all()
        assert (bare["measure"] == "text").any(), "of the other set"
        alone = study.Parameters.check(DEFAULTS | {"benchmarks": ["gpqa_diamond"]})
        whole = study.plan(PROJECT, protocol, alone, texts=True)
        with pytest.raises(ProtocolError, match="texts of gpqa_diamond, which may not be passed on"):
            plans.save(whole, tmp_path / "cells.parquet", "expert_personas")
        assert not list(tmp_path.glob("*.parquet"))

    def test_nothing_is_committed(self) -> None:
        assert not (PROJECT.items / "questions" / "gpqa_diamond.csv").exists()
        assert PIN.gated and not PIN.redistributable

    def test_a_planted_accuracy_is_found_in_its_answers(self) -> None:
        simulation = Simulation(
            PROJECT, benchmarks=["gpqa_diamond"], conditions=["expert"], placements=["system"], paraphrases=1
        )
        recorded = simulation.responses(seed=1, base=1.0)
        scored = analysis.scores(recorded, simulation.asked, simulation.people, "cloze")
        assert set(scored["benchmark"]) == {"gpqa_diamond"} and (scored["score"] == 1).all()
        read = replies.replies(recorded, simulation.asked)
        assert read.empty and replies.decomposition(read, simulation.people).empty
