"""Existing answers to vignettes and emergency cases: committed counts against their sources, and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clinical_personas import published
from persona_studies.errors import SourceError
from persona_studies.paths import Project

PROJECT = Project(Path(__file__).parents[2])


def test_the_committed_counts_are_those_of_the_sources() -> None:
    try:
        derived = published.derive(PROJECT)
    except SourceError:
        pytest.skip("the sources are not at hand")
    for name, text in derived.items():
        assert text == (PROJECT.published / "clinical_personas" / name).read_text("utf-8"), name


def test_people_and_gpt3() -> None:
    found = published.people(PROJECT, confidence=0.95).set_index(["who", "setting"])
    # As the vignettes' paper states: physicians 91 %, lay people 74 %.
    assert found.loc[("physicians", "all"), "accuracy"] == pytest.approx(0.91, abs=0.005)
    assert found.loc[("lay people", "all"), "accuracy"] == pytest.approx(0.74, abs=0.005)
    assert found.loc[("GPT-3", "all"), "accuracy"] == pytest.approx(231 / 480)
    # Two strata of 24 vignettes make the whole.
    parts = found.loc["GPT-3"].loc[["critical", "primary"], "accuracy"]
    assert parts.mean() == pytest.approx(231 / 480)


def test_the_interval_is_students_over_vignettes() -> None:
    row = published.people(PROJECT, confidence=0.95).set_index(["who", "setting"]).loc[("lay people", "all")]
    raw = pd.read_csv(PROJECT.published / "clinical_personas" / "levine2024_accuracy.csv").query(
        "who == 'lay people'"
    )
    squares = (raw["sd"] ** 2 * 11 + 12 * (raw["accuracy"] - row["accuracy"]) ** 2).sum()
    assert row["high"] - row["accuracy"] == pytest.approx(2.0117 * np.sqrt(squares / 47 / 48), abs=1e-5)


def test_gpt3s_counts_and_calibration_belong_together() -> None:
    table = published.gpt3(PROJECT)
    assert table.sum() == 480 and np.trace(table) == 231
    curve, scores = published.gpt3_calibration(PROJECT, (5, 10, 7))
    label = scores.set_index("probability_is").loc["of the label"]
    assert label["accuracy"] == pytest.approx(231 / 480)
    mine = curve[curve["probability_is"] == "of the label"]
    gap = (mine["n"] * (mine["frequency"] - mine["probability"]).abs()).sum() / 480
    assert label["ece_10"] == pytest.approx(gap)
    assert label["ece_5"] <= label["ece_10"] and "ece_7" not in scores


def test_what_the_paper_reports_follows_from_its_files() -> None:
    assert published.reproduced(PROJECT)["agrees"].all()


def test_gpt3_and_marks_of_gender_and_ethnicity() -> None:
    found = published.gpt3_variants(PROJECT, confidence=0.95).set_index("hypothesis")
    assert (found["n"] == 47).all() and (found["difference"].abs() < 0.03).all()
    assert ((found["low"] < 0) & (found["high"] > 0)).sum() == 3


def test_models() -> None:
    found = published.models(PROJECT, confidence=0.95, replicates=1000, seed=1)
    assert found["model"].nunique() == 15 and len(found) == 60 and (found["cases"] == 70).all()
    assert np.allclose(found["accuracy"] + found["under"] + found["over"], 1)
    assert found["kappa"].notna().sum() == 15
    row = found[(found["model"] == "google/gemini-2.5-flash") & (found["label"] == "no label")].iloc[0]
    assert row["accuracy"] == pytest.approx(45 / 70)


def test_labels_are_compared_within_cases_and_combined_over_models() -> None:
    changes = published.label_changes(PROJECT, confidence=0.95)
    assert (changes.groupby("hypothesis").size() == 15).all()
    # A mean level per label differs by the mean change.
    levels = published.models(PROJECT, confidence=0.95, replicates=100, seed=1).set_index(["model", "label"])
    row = changes[changes["hypothesis"] == "female - male"].iloc[0]
    by_label = levels.loc[row["model"], "signed_error"]
    assert row["difference"] == pytest.approx(by_label["female"] - by_label["male"])
    assert (changes["se"] > 0).all()
    combined = published.labels_combined(changes, confidence=0.95)
    assert combined["hypothesis"].tolist() == changes["hypothesis"].unique().tolist()
    assert (combined["models"] == 15).all() and (combined["p"] > 0.05).all()
    assert (combined["prediction_low"] < combined["low"]).all()
