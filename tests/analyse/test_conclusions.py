"""From a recording to claims: nothing but the recording is needed for them to appear."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from expert_personas import analysis
from persona_studies.analyse import claims, conclusions, tables
from persona_studies.analyse.families import Settings
from persona_studies.analyse.stats.meta_analysis import random_effects
from persona_studies.ask import packing, recording, responses, schema
from persona_studies.ask.backends import ModelInfo
from persona_studies.design import protocol as protocols
from persona_studies.design.parameters import Parameters
from persona_studies.design.protocol import Claim, Family, Hypothesis, Protocol
from persona_studies.paths import Project
from persona_studies.reproduce import runs
from persona_studies.study import Study
from tests.kit import runs as kit_runs
from tests.kit import simulated_letters
from tests.kit.grids import answer, small_plan
from tests.kit.simulated import SimulatedBackend
from tests.kit.simulated_letters import Second, answers, questions_with_level

ROOT = Path(__file__).parents[2]


FACTS: dict[str, Any] = {"second": "none", "on": "all", "measure": "letter", "outcome": "accuracy"}


def small_protocol() -> Protocol:
    """Return a protocol with a claim about a model, one about published data, and one nobody can test."""
    contrast = Hypothesis(first="expert", direction="positive", smallest_effect=0.05, **FACTS)
    families = {
        name: Family(purpose="", hypotheses=(contrast.name,), contrasts={contrast.name: contrast}, size=1)
        for name in ("own", "public")
    }
    both = {
        name: Claim(
            statement=name,
            source="",
            published="",
            family=name,
            hypothesis=contrast.name,
            direction="positive",
            smallest_effect=0.05,
        )
        for name in families
    }
    nobody = Claim(statement="nobody", source="", published="", not_testable="no rows are public")
    return Protocol.model_construct(
        version=2, families=families, claims={**both, "nobody": nobody}, measures={"letter": None}
    )


def row_of(family: str, estimate: float, *, rejected: bool) -> pd.DataFrame:
    [name] = small_protocol().families[family].hypotheses
    row = {"family": family, "hypothesis": name, "n": 100, "estimate": estimate, "se": 0.01, "rejected": rejected}
    row |= {"low": estimate - 0.02, "high": estimate + 0.02, "p_adjusted": 0.01, "bounded": False}
    row |= {"direction": "positive", "smallest_effect": 0.05, "detectable": 0.03}
    return pd.DataFrame([row | {"p_bound_adjusted": 1.0, "power": 0.9, "n_needed": 50.0, "gate": ""}])


def one(model: str, estimate: float, *, gate: str = "", rejected: bool = True) -> conclusions.Analysis:
    return conclusions.conclude(
        small_protocol(),
        row_of("own", estimate, rejected=rejected),
        row_of("public", 0.2, rejected=True),
        lambda *_: gate,
        {"own": False},
        model=model,
        scored=pd.DataFrame(),
        gate=pd.DataFrame(),
    )


def judged(*analyses: conclusions.Analysis) -> pd.DataFrame:
    each = {analysis.model: analysis for analysis in analyses}
    return conclusions.claims(small_protocol(), row_of("public", 0.2, rejected=True), each)


def test_before_a_recording_a_claim_about_a_model_waits() -> None:
    table = judged()
    assert table["claim"].tolist() == ["own", "public", "nobody"]
    assert table["model"].tolist() == ["", claims.PUBLISHED_DATA, ""]
    assert table["verdict"].tolist() == ["not testable here", "reproduced", "not testable here"]
    assert table["why"].tolist()[0] == "not recorded yet: letter"


def test_the_first_model_that_passed_decides_and_stands_first() -> None:
    failed = "option mass"
    for order in (
        [one("capable", -0.1), one("small", 0.1, gate=failed)],
        [one("small", 0.1, gate=failed), one("capable", -0.1)],
    ):
        own = judged(*order).query("claim == 'own'")
        assert own["model"].tolist() == ["capable", "small"]
        assert own["verdict"].tolist() == ["contradicted", "uninformative"]
    # Where no model passed, the first one stands first.
    own = judged(one("small", 0.1, gate=failed), one("capable", -0.1, gate="parsed")).query("claim == 'own'")
    assert own[["model", "verdict"]].to_numpy().tolist() == [
        ["small", "uninformative"],
        ["capable", "uninformative"],
    ]


@pytest.mark.parametrize(("gate", "said"), [("", "heterogeneous"), ("option mass", "contradicted")])
def test_models_that_pass_and_move_apart_make_the_first_row_heterogeneous(gate: str, said: str) -> None:
    table = judged(one("capable", -0.1), one("other", 0.1, gate=gate))
    own = table[table["claim"] == "own"].set_index("model")
    assert own.loc["capable", "verdict"] == said
    assert own.loc["other", "verdict"] == ("uninformative" if gate else "reproduced")
    assert own.loc["other", "gate"] == (gate or "passed")


class Models(Parameters):
    models: tuple[str, ...]


def test_a_measure_is_looked_at_when_its_last_cell_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    declared = protocols.load(Project(ROOT).protocol("sycophancy"))
    declared = declared.model_copy(update={"design": {"models": ["simulated", "absent"]}})
    study = Study("toy", Project(tmp_path), declared, Models(models=()), tmp_path)
    whole = small_plan()
    assert study.complete(whole) == ({}, {})
    monkeypatch.setattr(recording, "load", lambda *_, **__: SimulatedBackend(answer))
    study.ask(lambda: whole[whole["measure"] == "score"], "simulated", hours=1)
    found, lacking = study.complete(whole)
    assert found["simulated"]["measure"].eq("score").all() and len(found["simulated"]) == 12
    assert lacking == {"simulated": ["talk"]}
    named = Study("toy", Project(tmp_path), declared, Models(models=("absent", "simulated")), tmp_path)
    study.ask(lambda: whole, "simulated", hours=1)
    found, lacking = named.complete(whole)
    assert len(found["simulated"]) == len(whole)
    assert lacking == {"absent": ["score", "talk"], "simulated": []}
    capsys.readouterr()


def test_a_claim_waits_for_its_measure_and_says_which() -> None:
    declared = small_protocol()
    assert conclusions.unrecorded(declared, {"letter"}) == {}
    waiting = conclusions.conclude(
        declared,
        row_of("own", float("nan"), rejected=False).assign(n=0),
        row_of("public", 0.2, rejected=True),
        lambda *_: "",
        {"own": False},
        model="small",
        scored=pd.DataFrame(),
        gate=pd.DataFrame(),
        held=("text",),
    )
    own = conclusions.claims(declared, public := row_of("public", 0.2, rejected=True), {"small": waiting})
    own = own.set_index("claim").loc["own"]
    assert [own["verdict"], own["why"]] == ["not testable here", "not recorded yet: letter"]
    how = Settings(0.05, 0.95, "holm", 1000, 1)
    assert conclusions.forest(declared, {"small": waiting}, "accuracy", how)["family"].tolist() == ["public"]
    assert conclusions.forest(declared, {}, "accuracy", how).empty
    # A model that has it stands alone; where nobody has, the claim waits.
    table = conclusions.claims(declared, public, {"small": waiting, "capable": one("capable", 0.1)})
    assert table["model"].tolist() == ["capable", claims.PUBLISHED_DATA, ""]


def test_a_claim_about_a_named_hypothesis_waits_for_its_familys_measure() -> None:
    families_ = {"own": Family(purpose="", hypotheses=("share",), size=1, measure="letter")}
    claim = Claim(statement="", source="", published="", family="own", hypothesis="share", smallest_effect=0.3)
    named = Protocol.model_construct(
        version=2, families=families_, claims={"own": claim}, measures={"letter": None}
    )
    assert conclusions.unrecorded(named, ()) == {"own": "not recorded yet: letter"}
    assert conclusions.unrecorded(named, {"letter"}) == {}


def test_models_on_either_side_of_a_line_move_apart() -> None:
    declared = small_protocol()
    claims_ = {name: claim.model_copy(update={"line": 0.5}) for name, claim in declared.claims.items()}
    declared = declared.model_copy(update={"claims": claims_})

    def said(*models: conclusions.Analysis) -> str:
        public = row_of("public", 0.9, rejected=True)
        table = conclusions.claims(declared, public, {each.model: each for each in models})
        row = table.query("claim == 'own'").iloc[0]
        return str(row["details"] if row["verdict"] == "heterogeneous" else row["verdict"])

    assert said(one("a", 0.9)) == said(one("a", 0.9), one("c", 0.8)) == "reproduced"
    assert said(one("a", 0.9), one("b", 0.1)) == "up: a; down: b"
    # A failed model in front changes nothing, and what is not significant does not move.
    failed = one("small", 0.9, gate="option mass")
    assert said(failed, one("b", 0.1), one("a", 0.9)) == "up: a; down: b"
    assert said(failed, one("a", 0.9), one("b", 0.1, rejected=False)) == "reproduced"


def test_models_side_by_side_and_combined() -> None:
    [name] = small_protocol().families["own"].hypotheses
    each = [one("a", 0.1), one("b", 0.2), one("c", 0.9, gate="option mass")]
    how = Settings(0.05, 0.95, "holm", 1000, 1)
    tests = {analysis.model: analysis.tests for analysis in each}
    table = conclusions.over_models(tests, [("own", name)], how)
    assert table["model"].tolist() == ["a", "b", "c", "random effects"]
    combined, expected = table.iloc[-1], random_effects([0.1, 0.2], [0.01**2] * 2, confidence=0.95)
    assert combined["n"] == 2 and combined["estimate"] == pytest.approx(0.15)
    assert [combined["low"], combined["high"]] == pytest.approx([expected.low, expected.high])
    assert conclusions.over_models({"a": tests["a"]}, [("own", name)], how)["model"].tolist() == ["a"]
    declared = small_protocol()
    shown = conclusions.forest(declared, {analysis.model: analysis for analysis in each}, "accuracy", how)
    assert shown["label"].iloc[0] == "expert - none, a" and set(shown["family"]) == {"own", "public"}


# --- A simulated recording of a study ---


def packed(project: Project, model: str, effects: dict[str, float], share: float = 1.0) -> Second:
    """Pack simulated answers to the study of experts, or the first of them, as a recording leaves them."""
    second = simulated_letters.second("expert_personas")
    met = second.design.crossed(second.asked, second.people)
    who = dict(zip(zip(met["condition"], met["item"], strict=True), met["persona"], strict=True))
    level = questions_with_level(second.asked, 1)

    def probability(cells: pd.DataFrame) -> np.ndarray:
        added = [effects.get(who[key], 0.0) for key in zip(cells["condition"], cells["item"], strict=True)]
        noise = np.random.default_rng(1).normal(0, 0.05, len(cells))
        return np.clip(cells["item"].map(level).to_numpy() + np.array(added) + noise, 0.01, 0.99)

    rows = answers(second.plan, second.asked, probability).assign(
        request="0" * 16, entropy=0.5, top_token="A", prompt_tokens=9, computed_tokens=9
    )
    rows["checksum"] = schema.checksums(rows)
    folder, planned = project.responses("expert_personas", model), {"letter": len(rows)}
    rows = rows.head(int(share * len(rows)))
    counts = responses.write(rows, second.plan, folder, partly=share < 1)
    state = {"complete": False, "unfinished": {"planned": planned, "recorded": counts}} if share < 1 else {}
    info = ModelInfo(model, "0" * 64, "simulated", "0", "canonical", "chatml")
    packing._seal(folder, "expert_personas", info, {"started": "2026-11-30"}, counts, state)
    return second


@pytest.fixture
def copied(tmp_path: Path) -> Project:
    """A copy of this project without recordings of the study of experts."""
    project = kit_runs.copied(tmp_path)
    shutil.rmtree(project.responses("expert_personas"), ignore_errors=True)
    return project


@pytest.mark.slow
def test_the_notebook_shows_the_claims_of_recordings_without_further_work(copied: Project) -> None:
    first, further = "qwen2.5-coder-1.5b-instruct", "another"
    second = packed(copied, first, {"expert, elaborate": 0.1, "wrong on purpose": -0.3})
    packed(copied, further, {"expert, elaborate": -0.1, "wrong on purpose": -0.3})
    done = runs.run(copied, "expert_personas", ["questions=60", "replicates=1000"])
    table = tables.load(done.folder / "tables" / "verdicts.csv")
    own = table[table["model"] == first].set_index("claim")
    assert set(own.index) == {n for n, c in second.protocol.claims.items() if c.family not in analysis.PUBLISHED}
    assert own.loc["in_domain", "verdict"] == "heterogeneous"
    assert table[table["model"] == further].set_index("claim").loc["in_domain", "verdict"] == "reproduced"
    assert own.loc["off_domain", "verdict"] == "reproduced" and own.loc["low_knowledge", "verdict"] != "reproduced"
    for name in ("contrasts", "models"):
        assert (done.folder / "tables" / f"{name}.csv").is_file()
        assert (done.folder / "figures" / f"{name}.svg").is_file()


@pytest.mark.slow
def test_the_notebook_runs_on_a_recording_in_progress_and_does_not_look_at_it(copied: Project) -> None:
    packed(copied, "another", {}, share=0.5)
    done = runs.run(copied, "expert_personas", ["alpha=0.01", "replicates=1000"])
    table = tables.load(done.folder / "tables" / "verdicts.csv").set_index("claim")
    assert table.loc["in_domain", "why"] == "not recorded yet: letter"
    assert table.loc["open_question_expert", "verdict"] == "reproduced"
    assert not (done.folder / "tables" / "accuracy.csv").is_file()


def test_a_packed_recording_is_read_back_and_judged(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "data" / "items", tmp_path / "data" / "items")
    project = Project(tmp_path)
    second = packed(project, "simulated", {"expert, elaborate": 0.1, "wrong on purpose": -0.3})
    assert responses.answered(project, "expert_personas", "simulated", second.plan) == len(second.plan)
    rows = responses.load(project, "expert_personas", "simulated", second.plan)
    found = analysis.analyse(
        Project(ROOT),
        second.protocol,
        rows,
        second.asked,
        second.people,
        Settings(0.05, 0.95, "holm", 1000, 1),
        model="simulated",
    )
    table = conclusions.claims(
        second.protocol,
        found.tests[found.tests["family"].isin(analysis.PUBLISHED)],
        {"simulated": found},
    )
    assert len(table) == len(second.protocol.claims)
    said = table.set_index("claim")
    assert said.loc["in_domain", "verdict"] == "contradicted" and said.loc["in_domain", "model"] == "simulated"
    assert said.loc["open_field_expert", "model"] == claims.PUBLISHED_DATA
