"""A study asks its model from the notebook: estimate, cap, resumption. The model is simulated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from persona_studies.ask import recording, responses
from persona_studies.design import protocol
from persona_studies.design.parameters import Parameters
from persona_studies.errors import ResponsesError
from persona_studies.paths import Project
from persona_studies.study import Study
from tests.kit.grids import WithMeasure, answer, small_plan
from tests.kit.simulated import SimulatedBackend


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> SimulatedBackend:
    made = SimulatedBackend(answer)
    monkeypatch.setattr(recording, "load", lambda *_, **__: made)
    return made


@pytest.fixture
def study(tmp_path: Path) -> Study:
    declared = protocol.load(Project(Path(__file__).parents[2]).protocol("sycophancy"))
    return Study("toy", Project(tmp_path), declared, Parameters(), tmp_path)


def never() -> pd.DataFrame:
    raise AssertionError("texts were fetched although nothing is asked")


def test_without_hours_nothing_is_asked_and_no_text_fetched(study: Study, backend: SimulatedBackend) -> None:
    assert study.ask(never, "simulated", hours=0) is None
    assert backend.asked == 0


def test_it_estimates_asks_packs_and_asks_nothing_twice(
    study: Study, backend: SimulatedBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = small_plan()
    progress = study.ask(lambda: plan, "simulated", hours=1)
    assert progress is not None and progress.complete
    assert "24 cells" in capsys.readouterr().out
    assert len(study.responses(plan, "simulated")) == len(plan)
    before = backend.asked
    assert study.ask(lambda: plan, "simulated", hours=1) is None
    assert backend.asked == before


def test_the_cap_stops_it_and_the_next_call_goes_on(study: Study, backend: SimulatedBackend) -> None:
    plan = small_plan()
    with pytest.raises(ResponsesError, match=r"1 of 24 cells.*Run this cell again to go on"):
        study.ask(lambda: plan, "simulated", hours=1e-12)
    assert not responses.check(study.project, "toy")
    progress = study.ask(lambda: plan, "simulated", hours=1)
    assert progress is not None and progress.recorded == 24


def test_an_interruption_keeps_every_answer_and_says_so(
    study: Study, backend: SimulatedBackend, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, whole = small_plan(), backend.respond
    monkeypatch.setattr("persona_studies.study.estimate", lambda *_: pd.DataFrame())
    monkeypatch.setattr("persona_studies.study.summary", lambda *_: "24 cells")

    def interrupted(requests: Any) -> Any:
        for place, said in whole(requests):
            if place == 7:
                raise KeyboardInterrupt
            yield place, said

    monkeypatch.setattr(backend, "respond", interrupted)
    with pytest.raises(
        ResponsesError, match=r"Interrupted: 7 of 24 cells .* are kept. Run this cell again to go on"
    ):
        study.ask(lambda: plan, "simulated", hours=1)
    assert "To stop: the square in the toolbar" in capsys.readouterr().out
    monkeypatch.setattr(backend, "respond", whole)
    before = backend.asked
    progress = study.ask(lambda: plan, "simulated", hours=1)
    assert progress is not None and progress.complete and backend.asked == before + 17


def test_names_of_one_s_own_models_are_those_of_their_folders(study: Study, backend: SimulatedBackend) -> None:
    plan = small_plan()
    study.ask(lambda: plan, "simulated", hours=1)
    found: Any = study.responses(plan, "gguf:/models/Simulated.gguf")
    assert len(found) == len(plan)
    assert study.description("hf:someone/simulated@" + "0" * 40)["model"]["name"] == "simulated"


def test_what_a_recording_holds_and_what_is_primary(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    declared = study.protocol.model_copy(update={"primary": ("letter", "cloze", "text")})
    study = Study("toy", study.project, declared, WithMeasure(measure="primary"), study.out)
    letters = pd.DataFrame({"measure": ["agree_letter", "reply"]})
    assert study.has(letters, "letter") and study.has(letters, "agree_letter") and study.has(letters, "text")
    assert capsys.readouterr().out == ""
    assert not study.has(letters, "cloze")
    assert "Markdown" in capsys.readouterr().out
    assert study.missing(letters, "cloze") == (
        "the measure cloze is not part of this recording, which holds agree_letter, reply"
    )
    assert study.primary(letters) == "letter"
    assert study.primary(pd.DataFrame({"measure": ["labels_four", "reply"]})) == "cloze"
    planned = pd.DataFrame({"measure": ["labels_four", "labels_four", "agree_letter"]})
    assert study.accounted(planned, letters)[["measure", "planned", "recorded"]].to_numpy().tolist() == [
        ["labels_four", 2, 0],
        ["agree_letter", 1, 1],
    ]
    chosen = Study("toy", study.project, declared, WithMeasure(measure="text"), study.out)
    assert chosen.primary(letters) == "text"
