"""Protocols of the model studies: their grids are as large as declared, and stay as they are."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
import pytest

from persona_studies.analyse import claims
from persona_studies.design import plan as plans
from persona_studies.errors import SourceUnavailable
from persona_studies.paths import Project
from tests.kit import simulated_letters
from tests.kit.simulated_letters import Second

PROJECT = Project(Path(__file__).parents[2])
STUDIES = ["expert_personas", "clinical_personas", "persona_bias"]
# Of identity and hashes of every cell: a text that changes after the recording began is another cell.
DIGESTS = {
    "expert_personas": "cb2bd6f75652835b",
    "clinical_personas": "472aab3df1f50856",
    # Replies of 400 tokens since the amendment of 2026-12-01; 96013dbae9bee2be with 96 tokens.
    "persona_bias": "15b17b54b62338a8",
}


@pytest.fixture(scope="module", params=STUDIES)
def second(request: pytest.FixtureRequest) -> Second:
    return simulated_letters.second(str(request.param))


@pytest.fixture(scope="module")
def plan(second: Second) -> pd.DataFrame:
    return second.plan


def test_the_grid_has_the_declared_cells(second: Second, plan: pd.DataFrame) -> None:
    declared = second.protocol
    assert declared.version == 2 and declared.confirmatory is not None
    assert plan.groupby("measure").size().to_dict() == declared.confirmatory.cells


def test_the_grid_is_the_one_that_was_declared(second: Second, plan: pd.DataFrame) -> None:
    cells = plan[[*plans.IDENTITY, *plans.HASHES]].astype(str).agg("\t".join, axis=1)
    assert hashlib.sha256("\n".join(sorted(cells)).encode()).hexdigest()[:16] == DIGESTS[second.study]


def test_letters_come_in_every_cyclic_order(plan: pd.DataFrame) -> None:
    letters = plan[plan["measure"] == "letter"]
    for _, cells in letters.groupby(["condition", "item"], sort=False):
        n = len(cells["options"].iloc[0])
        assert cells["order"].tolist() == list(range(n))


def test_every_cell_has_its_texts_and_shares_the_question(second: Second, plan: pd.DataFrame) -> None:
    try:
        written = second.planned(texts=True)
    except SourceUnavailable as error:
        pytest.skip(str(error))
    assert written[[*plans.IDENTITY, *plans.HASHES]].equals(plan[[*plans.IDENTITY, *plans.HASHES]])
    assert written[["shared", "user"]].notna().all(axis=None)
    assert written["system"].isna().equals(written["condition"] == "none")
    assert not written["user"].str.contains("{", regex=False).any()
    letters = written[written["measure"] == "letter"]
    starts = letters.groupby(["condition", "item"])["shared"].nunique()
    assert (starts == 1).all() and (letters["shared"].str.len() > 10).all()


def test_every_claim_is_decided_by_a_contrast_and_steerability_by_none(second: Second) -> None:
    declared = second.protocol
    assert "steerability" in declared.families
    controls = {name for name, condition in declared.conditions.items() if condition.role == "positive control"}
    assert controls
    for name, claim in declared.claims.items():
        assert claim.family != "steerability", name
        contrast = declared.families[claim.family].contrasts.get(claim.hypothesis or "") if claim.family else None
        if contrast is not None:
            assert not {contrast.first, contrast.second} & controls, name


def test_every_persona_of_a_claim_stands_beside_placebo_filler_and_shuffled(second: Second) -> None:
    declared = second.protocol
    tested = [c for family in declared.families.values() for c in family.contrasts.values()]
    for claim in declared.claims.values():
        if claim.family not in ("experts", "care", "overall"):
            continue
        first = declared.families[claim.family].contrasts[claim.hypothesis or ""].first
        beside = {c.second.split(" ")[0] for c in tested if c.first == first}
        assert {"placebo", "filler"} <= beside
        assert "shuffled" in beside or first == "unrelated expert"


def test_every_estimate_of_a_claim_has_a_unit(second: Second) -> None:
    declared = second.protocol
    units = claims.units_of(PROJECT, second.study)
    assert {name for name, claim in declared.claims.items() if claim.hypothesis} <= set(units)
    assert set(units.values()) <= set(claims.units(PROJECT))


def test_amendments_tell_when_the_second_protocol_was_declared(second: Second) -> None:
    declared = second.protocol
    assert declared.confirmatory is not None
    assert declared.amendments[-1].date >= declared.confirmatory.declared
    # What changed on one day may stand in one commit, which an amendment in it cannot name.
    last = declared.amendments[-1].date
    assert all(amendment.commit for amendment in declared.amendments if amendment.date < last)
