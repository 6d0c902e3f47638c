"""The tables that every study has: claims, what is recorded, provenance, and one cell of the experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from persona_studies.analyse import claims, tables, verdicts
from persona_studies.ask import recording, schema
from persona_studies.design import protocol
from persona_studies.errors import PersonaStudiesError
from persona_studies.paths import Project
from persona_studies.reproduce import notebooks
from persona_studies.study import Study
from tests.kit.grids import WithMeasure, answer, small_plan
from tests.kit.simulated import SimulatedBackend

ROOT = Path(__file__).parents[2]
DECLARED = {
    "a": {"statement": "A holds.", "published": "1 of 2", "direction": "none"},
    "b": {"statement": "B holds.", "published": "2 of 2", "not_testable": "no rows are public"},
}
ROW = {"claim": "a", "layer": "corrected", "estimate": 0.1, "low": 0.0, "high": 0.2, "verdict": "inconclusive"} | {
    "why": "too few"
}
ABSENT = {"claim": "b", "layer": "corrected", "verdict": "not testable here", "why": "no rows are public"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "units.toml").write_text('[meanings]\naccuracy = "a share"\n[toy]\na = "accuracy"\n')
    first = protocol.load(Project(ROOT).protocol("sycophancy"))
    made = {
        name: protocol.Claim(
            source="a paper",
            family=None if "not_testable" in fields else "f",
            hypothesis=None if "not_testable" in fields else "h",
            smallest_effect=None if "not_testable" in fields else 0.1,
            **fields,
        )
        for name, fields in DECLARED.items()
    }
    declared = first.model_copy(update={"version": 2, "claims": made})
    monkeypatch.setattr(protocol, "load", lambda _: declared)
    return Project(tmp_path)


def test_the_table_has_the_documented_columns_and_keeps_a_study_s_own(project: Project) -> None:
    models = [{**ROW, "model": name, "n": n} for name, n in (("one", 10), ("two", 20))]
    found = claims.table(project, "toy", pd.DataFrame([models[0], ABSENT, models[1]]))
    assert list(found) == [*claims.COLUMNS, "n"]
    assert found[["claim", "model"]].to_numpy().tolist() == [["a", "one"], ["a", "two"], ["b", ""]]
    assert found["unit"].tolist() == ["accuracy", "accuracy", ""]
    assert found["statement"].tolist() == ["A holds.", "A holds.", "B holds."]


def test_decided_claims_stand_first_and_what_cannot_be_tested_last(project: Project) -> None:
    found = claims.table(project, "toy", pd.DataFrame([ABSENT, ROW]))
    assert found["claim"].tolist() == ["a", "b"]
    # Of two layers the declared one decides, wherever it stands.
    layers = [{**ROW, "layer": "published", "verdict": "reproduced"}, {**ROW, "verdict": "uninformative"}]
    other = {**ABSENT, "verdict": "inconclusive"}
    assert claims.table(project, "toy", pd.DataFrame([*layers, other]))["claim"].tolist() == ["b", "a", "a"]
    assert claims.ORDER[:3] == verdicts.DECIDED and claims.ORDER[-2:] == ("uninformative", "not testable here")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{**ROW, "claim": "c"}, ROW, ABSENT], "are not declared by its protocol: 'c'"),
        ([ROW], "have no row; .*'b'"),
        ([{**ROW, "verdict": "superior"}, ABSENT], "unknown verdict: 'superior'"),
        ([ROW, ROW, ABSENT], "two rows of one layer and model: 'a'"),
        ([ROW, {**ABSENT, "estimate": 1.0}], "no unit in data/units.toml: 'b'"),
        ([{k: v for k, v in ROW.items() if k != "why"}], "lack the column why"),
    ],
)
def test_what_does_not_hold_is_refused(project: Project, rows: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(PersonaStudiesError, match=said):
        claims.table(project, "toy", pd.DataFrame(rows))


def test_what_is_recorded_and_where_numbers_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = protocol.load(Project(ROOT).protocol("sycophancy"))
    (tmp_path / "studies" / "toy").mkdir(parents=True)
    (tmp_path / "studies" / "toy" / "protocol.toml").write_text("version = 1\n")
    (tmp_path / "tables").mkdir()
    study = Study("toy", Project(tmp_path), declared, WithMeasure(measure="text"), tmp_path)
    plan = small_plan()
    monkeypatch.setattr(recording, "load", lambda *_, **__: SimulatedBackend(answer))
    study.ask(lambda: plan, "simulated", hours=1)
    study.recorded()
    kept = tables.load(tmp_path / "tables" / "responses.csv")
    assert kept["recorded"].sum() == kept["planned"].sum() == len(plan)
    assert (kept[["scored", "replies", "truncated", "failed"]].sum(axis=1) == kept["recorded"]).all()
    assert kept.set_index("measure")["recorded"].to_dict() == plan["measure"].value_counts().to_dict()
    study.provenance({"source": "a commit"})
    known = tables.load(tmp_path / "tables" / "provenance.csv").set_index("what")["value"]
    assert known["source"] == "a commit" and known["protocol.toml (sha256)"] == study.protocol_digest()
    assert '"measure":"text"' in known["parameters"]
    assert known["simulated: file (sha256)"] == study.description("simulated")["model"]["model_hash"]

    row = study.responses(plan, "simulated").iloc[0]
    monkeypatch.setattr(Study, "_template", lambda *_: {"shared": "", "user": "Question: {text}"})
    shown = study.example(row, plan, "simulated", {"score = mean": 0.25})
    lines = tables.load(tmp_path / "tables" / "example.csv").set_index("what")["value"]
    asked = plan.merge(row[schema.KEY].to_frame().T, on=list(schema.KEY)).iloc[0]
    assert str(asked["user"]) in lines["prompt, as simulated saw it"] and lines["score = mean"] == "0.250"
    assert "pre-wrap" in shown.html
    study.example(row, plan.assign(user=None), "simulated", {})
    without = tables.load(tmp_path / "tables" / "example.csv").set_index("what")["value"]
    assert "Question: {text}" in without["prompt, as simulated saw it"]


def test_a_cell_that_writes_them_names_their_files() -> None:
    source = 'study.claims(found)\nstudy.table(t, "gates", "Gate")\nstudy.provenance()\nother.claims(found)'
    assert notebooks.saved(source) == [("table", "verdicts"), ("table", "gates"), ("table", "provenance")]
