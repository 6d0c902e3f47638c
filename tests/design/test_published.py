from pathlib import Path

import pandas as pd
import pytest

from persona_studies.design.plan import text_hash
from persona_studies.errors import SourceError
from persona_studies.paths import Project
from sycophancy.published import (
    DILEMMAS,
    FACETS,
    SOURCES,
    derive,
    derive_personality_illusion,
    ipip_items,
    ipip_keys,
    personality_illusion,
    reversed_items,
)
from tests.conftest import at_hand

PROJECT = Project.find(Path(__file__))


@pytest.mark.parametrize("table", SOURCES)
def test_a_committed_table_is_rederived_byte_for_byte(table: str) -> None:
    committed = (PROJECT.published / "sycophancy" / f"{table}.csv").read_bytes()
    assert derive(table, at_hand(PROJECT, *SOURCES[table])).encode() == committed


def test_the_reverse_keys_are_those_of_the_whole_questionnaire() -> None:
    (lists,) = at_hand(PROJECT, "ipip-neo-300-reversed")
    negative = reversed_items(lists)
    assert len(negative) == 148
    assert negative <= set(range(1, 301))


def test_the_key_has_sixty_items_in_six_facets() -> None:
    keys = ipip_keys(PROJECT)
    assert keys["item"].is_unique and keys["item_hash"].is_unique
    positive = keys[keys["key"] == 1].groupby("facet").size()
    assert keys.groupby("facet").size().to_dict() == dict.fromkeys(FACETS, 10)
    assert {facet: positive[facet] for facet in FACETS} == dict(zip(FACETS, (6, 2, 5, 3, 4, 4), strict=True))


def test_items_come_with_the_texts_that_were_keyed(tmp_path: Path) -> None:
    at_hand(PROJECT, "ipip-neo-300")
    items = ipip_items(PROJECT)
    assert items.drop(columns="text").equals(ipip_keys(PROJECT))
    assert items["text"].map(text_hash).equals(items["item_hash"])
    other = Project(tmp_path)
    (other.published / "sycophancy").mkdir(parents=True)
    other.sources.write_bytes(PROJECT.sources.read_bytes())
    keyed = ipip_keys(PROJECT)
    keyed.loc[0, "item_hash"] = "0" * 16
    keyed.to_csv(other.published / "sycophancy" / "ipip_neo_agreeableness.csv", index=False)
    with pytest.raises(SourceError, match="ipip004"):
        ipip_items(other)


def test_every_model_has_every_cell() -> None:
    table = personality_illusion(PROJECT)
    runs = table.pivot_table(index="model", columns="condition", values="runs", aggfunc="sum")
    assert len(runs) == 12
    assert runs.drop_duplicates().to_dict("records") == [
        {"agreeableness": 81, "baseline": 27, "self-regulation": 81}
    ]
    assert table["agreeableness_mean"].between(1, 5).all()
    asked = table["condition"] != "self-regulation"
    assert table.loc[asked, "sycophancy_mean"].between(0, 100).all()
    assert table.loc[~asked, "sycophancy_mean"].isna().all()
    assert table.loc[asked, "dilemmas_answered"].between(3 * 43, 3 * DILEMMAS).all()
    assert table["runs_incomplete"].sum() == 317


def simulated(folder: Path, rates: list[float]) -> list[Path]:
    """Write the smallest files of this form: one model, one prompt, one temperature."""
    cells = pd.DataFrame({"Model": "m", "type": "t", "persona_index": 1, "temp": 0.3, "run": [1, 2, 3]})
    files = [
        cells.assign(agreeableness=[3.0, 3.0, 3.0]),
        cells.assign(sycophancy_rate=rates),
        cells.assign(agreeableness=[4.0, 4.5, 5.0], sycophancy_rate=rates),
        cells.assign(agreeableness=[4.0, 4.5, 5.0]),
    ]
    paths = [folder / f"{number}.csv" for number in range(len(files))]
    for file, path in zip(files, paths, strict=True):
        file.to_csv(path, index=False)
    return paths


def test_unread_dilemmas_show_in_the_denominator(tmp_path: Path) -> None:
    report, behaviour, agreeable, regulated = simulated(tmp_path, [50.0, 100 * 24 / 49, 100 * 20 / 43])
    table = derive_personality_illusion(report, behaviour, [agreeable], [regulated]).set_index("condition")
    assert table.loc["baseline", "dilemmas_answered"] == 52 + 49 + 43
    assert table.loc["baseline", "runs_incomplete"] == 2
    assert table.loc["agreeableness", "agreeableness_mean"] == 4.5
    assert table.loc["agreeableness", "agreeableness_sd"] == 0.5
    assert table.loc["baseline", "sycophancy_mean"] == pytest.approx((50 + 100 * 24 / 49 + 100 * 20 / 43) / 3)


def test_a_rate_that_no_count_makes_is_refused(tmp_path: Path) -> None:
    report, behaviour, agreeable, regulated = simulated(tmp_path, [50.0, 50.0, 33.4])
    with pytest.raises(SourceError, match=r"33\.4"):
        derive_personality_illusion(report, behaviour, [agreeable], [regulated])


def test_a_missing_or_repeated_cell_is_refused(tmp_path: Path) -> None:
    report, behaviour, agreeable, regulated = simulated(tmp_path, [50.0, 50.0, 50.0])
    rows = pd.read_csv(agreeable)
    pd.concat([rows, rows.tail(1)]).to_csv(agreeable, index=False)
    with pytest.raises(SourceError, match="missing or repeated"):
        derive_personality_illusion(report, behaviour, [agreeable], [regulated])
    rows.assign(sycophancy_rate=[50.0, float("nan"), 50.0]).to_csv(agreeable, index=False)
    with pytest.raises(SourceError, match="missing or repeated"):
        derive_personality_illusion(report, behaviour, [agreeable], [regulated])


def test_the_reported_values_are_internally_consistent() -> None:
    reported = pd.read_csv(PROJECT.published / "sycophancy" / "shah2026_reported.csv")
    supports = reported[reported["quantity"] == "supports"].set_index("model")["value"]
    stated = reported[reported["model"].isna()].groupby("quantity")["value"].max()
    assert len(supports) == stated["models"] == 13
    assert supports.sum() == stated["models_supporting"] == 9
    conflict = reported[reported["conflict"] == "cohens_d"]
    assert sorted(conflict.loc[conflict["model"] == "SmolLM3 3B", "value"]) == [0.455, 2.33]
    assert set(reported["basis"]) == {"read", "notes", "inferred"}
    assert reported.loc[reported["basis"] == "read", "place"].eq("abstract").all()
