"""The benchmark's text, arithmetic and tables; no model is loaded here."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from persona_studies.analyse import tables
from persona_studies.ask import responses, schema
from persona_studies.paths import Project
from persona_studies.publish import readme

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"
RESULTS = FOLDER / "results"


def script(path: Path) -> ModuleType:
    """Import a script that belongs to no package."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


bench = script(FOLDER / "bench.py")
sys.modules["bench"] = bench
larger = script(FOLDER / "larger.py")
workloads = script(FOLDER / "workloads.py")
job = script(FOLDER / "peers" / "job.py")
scale = script(FOLDER / "scale.py")
many_runs = script(FOLDER / "many_runs.py")
processes = script(FOLDER / "processes.py")
cost = script(FOLDER / "cost.py")


def count(text: str) -> int:
    """Count words and marks, roughly as a tokeniser does."""
    return len(re.findall(r"\w+|[^\w\s]|\n", text))


# --- Workloads -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["letter", "cloze"])
def test_text_has_the_length_it_claims_and_says_that_it_is_made_up(kind: str) -> None:
    cells = workloads.grid(kind, 3, 4, count)
    assert len(cells) == 12
    for cell in cells:
        assert count(cell["system"]) == workloads.PERSONA_TOKENS
        assert count(cell["user"]) == workloads.ITEM_TOKENS
        assert "made-up" in cell["system"] and "Made-up" in cell["user"]
        assert len(cell["options"]) == 4
    assert len({(cell["system"], cell["user"]) for cell in cells}) == 12
    assert cells == workloads.grid(kind, 3, 4, count)


def test_a_larger_grid_contains_the_smaller_one() -> None:
    small = workloads.grid("letter", 2, 2, count)
    assert all(cell in workloads.grid("letter", 4, 8, count) for cell in small)


def test_text_that_cannot_have_its_length_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 3"):
        workloads.text_of(3, "seed", count, opening="Four words are here")
    with pytest.raises(ValueError, match="No filler words make 21"):
        workloads.text_of(21, "seed", lambda text: 2 * len(text.split()), opening="Made up.")


# --- Answers ---------------------------------------------------------------------------------------------------


def test_a_shift_of_all_options_is_no_contrast() -> None:
    reference = {(0, 0): [-1.0, -2.0], (0, 1): [-3.0, -1.0], (1, 0): [-1.0, -1.5]}
    given = {(0, 0): [-1.25, -2.25], (0, 1): [-3.0, -1.0], (9, 9): [0.0, 0.0]}
    found = bench.compare(reference, given)
    assert found["compared"] == 2 and found["missing"] == 0
    assert found["largest_difference"] == pytest.approx(0.25)
    assert found["largest_contrast_difference"] == pytest.approx(0.0)
    assert found["argmax_agreement"] == 1.0


def test_a_wrong_engine_is_seen() -> None:
    reference = {(0, 0): [-1.0, -2.0], (0, 1): [-3.0, -1.0]}
    found = bench.compare(reference, {(0, 0): [-2.0, -1.0], (0, 1): [-3.0, -1.0]})
    assert found["argmax_agreement"] == 0.5
    assert found["largest_contrast_difference"] == pytest.approx(1.0)


def test_what_an_engine_does_not_tell_is_counted_and_not_compared() -> None:
    found = bench.compare({(0, 0): [-1.0, -2.0]}, {(0, 0): [-1.0, None]})
    assert found == {"compared": 1, "missing": 1}


# --- Figures ---------------------------------------------------------------------------------------------------


def rounds() -> pd.DataFrame:
    """Return three rounds in which the machine is twice as slow in the second."""
    rows: list[dict[str, Any]] = []
    rates = {"canonical-f32": 8.0, "harness-1": 1.0, "harness-8": 2.0, "full-logits": 1.6}
    for number, speed in ((1, 1.0), (2, 0.5), (3, 1.0)):
        for engine, rate in rates.items():
            row: dict[str, Any] = dict.fromkeys(bench.ROUNDS)
            row |= {"engine": engine, "workload": "letter", "round": number, "status": "measured"}
            row |= {"cells": 16, "run_s": 16 / rate / speed, "load_s": 2.0, "evaluations_per_s": rate * speed}
            row |= {"logical_tokens": 16_000, "computed_tokens": 4_000, "peak_mb": 900.0 + number}
            row |= {"compared": 16, "missing": 0, "largest_difference": 0.001, "argmax_agreement": 1.0}
            row |= {"largest_contrast_difference": 0.0005}
            rows.append(row)
        rows.append(
            dict.fromkeys(bench.ROUNDS)
            | {
                "engine": "inspect",
                "workload": "letter",
                "round": number,
                "status": "failed",
                "reason": "no | room",
            }
        )
    return pd.DataFrame(rows)


def test_ratios_are_taken_within_a_round() -> None:
    summary = bench.summarise(rounds()).set_index("engine")
    assert summary.loc["harness-8", ["times_slower_low", "times_slower", "times_slower_high"]].tolist() == [4, 4, 4]
    assert summary.loc["harness-8", "evaluations_per_s_low"] == 1.0
    assert summary.loc["harness-8", "evaluations_per_s"] == 2.0
    assert summary.loc["canonical-f32", "times_slower"] == 1.0
    assert summary.loc["canonical-f32", "wall_s"] == pytest.approx(4.0)
    assert summary.loc["canonical-f32", "peak_mb"] == 903.0


def test_a_target_counts_against_the_fastest_variant_and_can_be_missed() -> None:
    reached = bench.targets(bench.summarise(rounds())).set_index(["against", "workload"])
    row = reached.loc["lm-evaluation-harness", "letter"]
    assert row["fastest"] == "harness-8" and row["reached"] == 4.0 and bool(row["met"])
    slow = rounds()
    slow.loc[slow["engine"] == "canonical-f32", "evaluations_per_s"] /= 2
    assert (
        not bench.targets(bench.summarise(slow))
        .set_index(["against", "workload"])
        .loc[("lm-evaluation-harness", "letter"), "met"]
    )
    assert reached.loc["per-option prefill"]["reached"].isna().all()


def test_what_failed_is_shown_with_its_reason() -> None:
    text = bench._speed(bench.summarise(rounds()))
    assert "failed: no | room" in text
    assert re.search(r"inspect_ai[^\n]*\| failed ", text)


def test_a_larger_model_is_compared_with_the_harness_and_with_one_long_prefill(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    for role, rate, computed in (("own", 0.8, 60.0), ("harness", 0.1, 27.0), ("prefill", 9.0, 75.0)):
        row: dict[str, Any] = dict.fromkeys(bench.ROUNDS)
        row |= {"engine": role, "workload": "letter", "round": 1, "status": "measured", "cells": 10, "run_s": 10.0}
        row |= {"load_s": 1.0, "evaluations_per_s": rate, "logical_tokens": 1, "computed_tokens": 10 * computed}
        rows.append(row | {"peak_mb": 1.0, "compared": 0, "missing": 0})
    rows.append(dict.fromkeys(bench.ROUNDS) | {"engine": "completions", "workload": "letter", "status": "failed"})
    rows[-1] |= {"round": 1, "reason": "no room"}
    facts = {"day": "2026-01-01", "model": "m", "cpu": "c", "cores": 2, "rounds": 1, "others": "nothing"}
    larger.table(pd.DataFrame(rows), "nothing").assign(**facts).to_csv(tmp_path / "larger.csv", index=False)
    text = bench._larger(pd.read_csv(tmp_path / "larger.csv"))
    assert "nan" not in text
    assert "beside nothing: 8 times lm-evaluation-harness; wanted 4: **met**" in text
    assert (
        "beside nothing: 0.8 of the computed tokens a second of one long prefill; wanted 0.85: **missed**" in text
    )
    assert "as filed, letter: no room" in text
    prefill = next(
        line for line in text.splitlines() if line.startswith("| nothing") and "one long prefill" in line
    )
    assert prefill.count("| –") == 2, "a prefill answers nothing, so it has no evaluations a second"


def test_peers_are_cut_to_what_fits_and_stay_balanced() -> None:
    cells = [{"persona": p, "item": i} for p in range(2) for i in range(16)]
    assert len(job.fitting(cells, 6.0, 1.0, 1)) == 6
    assert len(job.fitting(cells, 6.0, 100.0, 4)) == 8
    assert job.fitting(cells, 6.0, 0.01, 1) == cells
    assert {c["persona"] for c in job.fitting(cells, 1.0, 100.0, 1)} == {0, 1}


# --- Processes -------------------------------------------------------------------------------------------------

ENGINE = """
import sys
sys.path.insert(0, {peers!r})
import job

class Engine:
    computed = 0
    def __init__(self, given): {loading}
    def answer(self, cells):
        self.computed += 10 * len(cells)
        return [[-1.0, -2.0] for _ in cells]

job.run(Engine)
"""


def started(folder: Path, monkeypatch: pytest.MonkeyPatch, loading: str = "pass") -> Any:
    """Return a run whose only engine is a script written here."""
    (folder / "peers").mkdir(exist_ok=True)
    text = ENGINE.format(peers=str(FOLDER / "peers"), loading=loading)
    (folder / "peers" / "simulated.py").write_text(text)
    monkeypatch.setattr(bench, "HERE", folder)
    monkeypatch.setattr(bench, "ENGINES", {"simulated": bench.Engine("simulated", "simulated")})
    cells = [{"persona": p, "item": i, "logical": 40, "kind": "letter"} for p in range(8) for i in range(16)]
    made = {kind: {"cells": cells, "warm": cells[-2:]} for kind in bench.WORKLOADS}
    made |= {"file": "none", "f32": "none", "sha256": "none"}
    return bench.Run(folder, made, {False: Path(sys.executable), True: Path("none")}, None, folder, 1, 60.0)


def test_an_engine_is_measured_in_a_process_and_not_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = started(tmp_path, monkeypatch)
    found = bench.measure(run, ["simulated"], 2, 3, 2, 5.0)
    assert list(found.columns) == list(bench.ROUNDS)
    assert found["status"].tolist() == ["measured"] * 4
    assert found["cells"].tolist() == [6] * 4
    assert found["computed_tokens"].tolist() == [60] * 4
    assert found["logical_tokens"].tolist() == [240] * 4
    assert (found["peak_mb"] > 1).all() and (found["load_s"] > 0).all()
    (tmp_path / "peers" / "simulated.py").unlink()
    assert bench.measure(run, ["simulated"], 2, 3, 2, 5.0).equals(found), "done parts are kept"


def test_a_failed_engine_says_why_and_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = started(tmp_path, monkeypatch, loading="raise SystemExit('no room for the weights')")
    found = bench.measure(run, ["simulated"], 1, 1, 2, 1.0)
    assert found["status"].tolist() == ["failed"] * 4
    assert found["reason"].tolist() == ["no room for the weights"] * 4
    run = started(tmp_path, monkeypatch)
    assert bench.measure(run, ["simulated"], 1, 1, 1, 1.0)["status"].tolist() == ["measured"] * 2


def test_growth_doubles_items_and_personas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = bench.grow(started(tmp_path, monkeypatch), ["simulated"])
    assert list(found.columns) == list(bench.GROWTH)
    assert found["cells"].tolist() == [2, 4, 8, 16] * 2
    assert found[found["axis"] == "items"]["personas"].eq(1).all()
    assert found.groupby("axis")["peak_mb"].is_monotonic_increasing.all()
    assert found["status"].eq("measured").all()


def test_without_the_peers_environment_a_peer_is_reported(tmp_path: Path) -> None:
    python, why = bench.peers(tmp_path / "none", tmp_path)
    assert why and "--peers-python" in why
    run = bench.Run(tmp_path, {}, {True: python}, why, tmp_path, 1, 60.0)
    assert run.job("x", "harness-1", "letter", [[0]], 1.0) == {"failed": why}


# --- A full grid -----------------------------------------------------------------------------------------------


def test_the_planted_slope_is_found_after_storing_and_loading(tmp_path: Path) -> None:
    small = {"personas": 50, "topics": 5, "claims_per_topic": 1, "replicates": 200}
    grid = scale.largest(Project.find(ROOT), **small)
    folder = scale.store(grid, tmp_path)
    assert len(responses.read_parquet(folder / "labels_four.parquet")) > 0, "every row matches its checksum"
    recorded = responses.load(Project(tmp_path), "sycophancy", "made-up-1", grid.plan)
    assert len(recorded) == len(grid.plan)
    some = recorded.groupby("measure").head(3)
    assert [schema.checksum(row) for row in some.to_dict("records")] == some["checksum"].tolist()
    r = scale.analysis(grid, recorded)["personas"].set_index("hypothesis")["estimate"]
    assert r["designed level and agreement with assertions, four labels"] > 0.7
    assert abs(r["designed level and agreement with unattributed statements, four labels"]) < 0.4


def test_what_16_bits_cost_is_computed_from_the_committed_recordings() -> None:
    committed = tables.load(RESULTS / "precision.csv")
    found = scale.precision(Project.find(ROOT), "agree_letter")
    known = committed[committed["measure"].eq("agree_letter")]
    # A recording that came after the benchmark has no row in it.
    both = known.merge(found, on=["study", "model"], suffixes=("", "_found"))
    assert len(both) == len(known) > 0
    assert both["largest_error_found"].tolist() == pytest.approx(both["largest_error"].tolist(), rel=1e-4)
    assert (found["largest_error"] > 0).all() and (found["mb_16_bit"] < found["mb"]).all()


@pytest.mark.attack
def test_runs_with_other_parameters_are_measured_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many_runs, "NAMED", 3)
    rows = [*many_runs.measure(many_runs.study(tmp_path / "project"), 2, 1)]
    assert [row["done"] for row in rows] == [3, 1, 2]
    assert all({*row} == {*many_runs.COLUMNS} - {"date", "machine"} for row in rows)
    assert all(row["seconds"] > 0 and row["memory_mb"] > 10 and row["open_files"] > 2 for row in rows)
    committed = tables.load(RESULTS / "many_runs.csv")
    assert list(committed) == list(many_runs.COLUMNS) and (committed["stage"] == "run").sum() >= 5


# --- What is committed -----------------------------------------------------------------------------------------


def test_every_engine_has_its_script_and_peers_are_pinned() -> None:
    for engine in bench.ENGINES.values():
        assert (FOLDER / "peers" / f"{engine.script}.py").is_file()
    lines = (FOLDER / "requirements.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert set(bench.PACKAGES) <= set(pinned)
    assert all(re.fullmatch(r"\d+(\.\d+)+", version) for version in pinned.values())
    assert {bench.OWN, bench.REFERENCE, *bench.GROWING} <= set(bench.ENGINES)
    assert all(set(variants) <= set(bench.ENGINES) for variants, _ in bench.TARGETS.values())


def test_a_part_of_a_run_does_not_replace_the_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.py", "--engines", bench.OWN])
    with pytest.raises(SystemExit):
        bench._arguments()
    assert "another --out" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["bench.py", "--engines", "nobody", "--out", "x"])
    with pytest.raises(SystemExit):
        bench._arguments()
    assert "nobody" in capsys.readouterr().err


def test_the_readme_says_what_the_results_say() -> None:
    text = bench.README.read_text(encoding="utf-8")
    made = bench.blocks(RESULTS)
    assert {match[2] for match in readme.BLOCK.finditer(text)} == set(made)
    assert readme.render(text, made) == text, "run python benchmarks/bench.py --tables"


def results(folder: Path) -> None:
    """Write the results of a run that was none."""
    growth = pd.DataFrame(
        [
            dict.fromkeys(bench.GROWTH)
            | {"engine": bench.OWN, "axis": "items", "factor": factor, "personas": 1, "items": 2 * factor}
            | {"cells": 2 * factor, "status": "measured", "run_s": 0.5 * factor, "peak_mb": 900.0}
            for factor in bench.FACTORS
        ]
    )
    names = ["date", "cpu", "cores", "threads", "memory_gb", "load_average_before", "minutes", "personas", "items"]
    names += ["options", "rounds", "persona_tokens", "item_tokens", "prompt_tokens", "python", "llama-cpp-python"]
    facts = pd.DataFrame({"name": [*names, *bench.PACKAGES]}).assign(value="1")
    made = rounds()
    bench.save(folder, {"rounds": made, "summary": bench.summarise(made), "growth": growth, "machine": facts})


def test_tables_are_made_from_the_files_alone(tmp_path: Path) -> None:
    results(tmp_path)
    made = bench.blocks(tmp_path)
    assert "**met**" in made["targets"] and "not measured" in made["targets"]
    assert "4.00 (4.00 to 4.00)" in made["letter"]
    assert "16: 4.00 s, 900 MB" in made["growth"]
    changed = (tmp_path / "bench_rounds.csv").read_text().replace(",903,", ",1234,")
    (tmp_path / "bench_rounds.csv").write_text(changed)
    assert bench.blocks(tmp_path) != made


def consistent(folder: Path) -> None:
    """Check that result files have their columns and that nothing in the summary was typed."""
    found = {name: tables.load(folder / f"bench_{name}.csv") for name in ("rounds", "summary", "growth", "machine")}
    assert list(found["rounds"].columns) == list(bench.ROUNDS)
    assert list(found["growth"].columns) == list(bench.GROWTH)
    assert list(found["machine"].columns) == ["name", "value"]
    made = bench.summarise(found["rounds"])
    assert list(made.columns) == list(found["summary"].columns)
    for column in made:
        given = found["summary"][column]
        if pd.api.types.is_numeric_dtype(made[column]):
            np.testing.assert_allclose(made[column].astype(float), given.astype(float), rtol=1e-4)
        else:
            assert made[column].fillna("").tolist() == given.fillna("").tolist(), column
    measured = found["rounds"][found["rounds"]["status"] == "measured"]
    assert measured[["cells", "run_s", "load_s", "evaluations_per_s", "peak_mb"]].notna().all(axis=None)
    np.testing.assert_allclose(measured["cells"] / measured["run_s"], measured["evaluations_per_s"], rtol=1e-4)
    assert found["rounds"].loc[found["rounds"]["status"] != "measured", "reason"].notna().all()


def test_files_that_a_run_writes_are_consistent(tmp_path: Path) -> None:
    results(tmp_path)
    consistent(tmp_path)


@pytest.mark.skipif(not (RESULTS / "bench_rounds.csv").is_file(), reason="no results are committed")
def test_committed_results_are_consistent_and_complete() -> None:
    consistent(RESULTS)
    rounds = tables.load(RESULTS / "bench_rounds.csv")
    assert set(rounds["engine"]) == set(bench.ENGINES), "a peer was dropped"
    assert rounds["round"].max() >= 3


# --- What a large model costs ------------------------------------------------------------------------------------


def test_hours_and_money_follow_from_the_assumptions() -> None:
    assumed = cost.Assumptions(parameters=1e9, peak=1e12, utilisation=0.5, generating=0.1, price=4)
    # 900,000 tokens x 2e9 operations at 5e11 a second: an hour; a fifth of them generated at 1e11: an hour more.
    assert assumed.hours(900_000) == pytest.approx(1.0)
    assert assumed.hours(900_000, 180_000) == pytest.approx(2.0)
    counted = pd.DataFrame(
        {"study": ["a", "b"], "cells": [1, 2], "logical": [1_800_000, 180_000]}
        | {"computed": [900_000, 180_000], "generated": [0, 180_000]}
    )
    priced = cost.price(counted, assumed).set_index("study")
    assert priced["hours"].tolist() == pytest.approx([1.0, 1.0, 2.0])
    assert priced.loc["all", ["money", "money_alone"]].tolist() == pytest.approx([8.0, 12.0])


def test_whole_starts_are_sampled_evenly() -> None:
    cells = pd.DataFrame({"measure": "m", "system": [f"{i // 10}" for i in range(1000)], "shared": ""})
    some = cost.sampled(cells, 100)
    assert len(some) == 100 and (some.groupby("system").size() == 10).all()
    assert cost.sampled(cells, 1000) is not None and len(cost.sampled(cells, 1000)) == 1000


@pytest.fixture(scope="module")
def recorded() -> pd.DataFrame:
    return cost.recorded(Project(ROOT))


def test_the_page_of_costs_is_what_the_counts_say(recorded: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "recorded", lambda _: recorded)
    page = cost.PAGE.read_text(encoding="utf-8")
    assert page == readme.render(page, cost.blocks(RESULTS, Project(ROOT)))


def test_the_planners_tokens_are_those_that_recordings_computed(recorded: pd.DataFrame) -> None:
    counted = tables.load(RESULTS / "cost_tokens.csv")
    counted = counted[counted["counted"] == counted["cells"]]
    both = counted.merge(recorded, on=["study", "measure", "cells"], suffixes=("", "_recorded"))
    scored = both[both["kind"] != "text"]
    assert len(scored) >= 5
    assert scored["apart"].tolist() == scored["apart_recorded"].tolist()
    # A generated answer is planned at its longest.
    texts = both[both["kind"] == "text"]
    assert (texts["apart"] >= texts["apart_recorded"]).all()


def test_processes_are_measured_in_every_way_and_company() -> None:
    found = tables.load(RESULTS / "processes.csv")
    assert len(found) == 6 and len(found.drop_duplicates(["beside", "way"])) == 6
    assert found["others"].str.len().min() > 3
    assert (found["tokens_per_second"] > found["evaluations_per_second"]).all()
    asked = processes.requests(40)
    assert len({(request.system, request.user) for request in asked}) == 40
    assert len({request.system for request in asked}) == 3
