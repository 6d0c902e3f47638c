"""A model's report card: its cells, its numbers on simulated answers with a known truth, caps, refusals, the page.

No text is needed: a simulated model answers by the cell that it is asked.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from persona_studies import cli
from persona_studies.analyse import numbers
from persona_studies.ask import recorded as recorded_
from persona_studies.ask import recording
from persona_studies.ask.backends import Request
from persona_studies.errors import BackendError, ParameterError, ResponsesError
from persona_studies.paths import Project
from persona_studies.publish import report_card, report_page
from persona_studies.publish.report_card import Part
from tests.kit.misbehaving_server import Server
from tests.kit.runs import linked
from tests.kit.simulated import SimulatedBackend
from tests.kit.simulated_letters import second

ROOT = Path(__file__).parents[2]
Truth = Callable[[str, str, str], float]


def spelled(part: Part) -> Part:
    """Return a study's cells with stand-ins for texts, from which a simulated model reads what it is asked."""
    plan = part.plan
    cell = plan["condition"] + "|" + plan["item"] + "|" + plan["order"].astype(str)
    options = [
        None if kind == "text" else tuple(shown or "ABCDE") for kind, shown in zip(plan["kind"], plan["options"])
    ]
    texts = {"system": part.study, "shared": "", "user": cell, "options": options}
    return replace(part, plan=plan.assign(**texts))


@pytest.fixture(scope="module")
def every() -> list[Part]:
    return [spelled(part) for part in report_card.parts(Project(ROOT), print, texts=False)]


@pytest.fixture(scope="module")
def first(every: list[Part]) -> list[Part]:
    return report_card.quick(every)


@pytest.fixture(scope="module")
def gold() -> dict[str, tuple[int, int]]:
    """Return the place of the right option and the number of options of every question."""
    found: dict[str, tuple[int, int]] = {}
    for study in ("expert_personas", "clinical_personas", "persona_bias"):
        asked = second(study).asked
        found |= {row.item: (row.gold, row.n_options) for row in asked.itertuples()}
    return found


def model(
    truth: Truth, gold: Mapping[str, tuple[int, int]], name: str = "simulated", bias: float = 0.0
) -> SimulatedBackend:
    """Return a model with given probabilities of the right option, or of agreeing.

    Args:
        truth: Study, condition and item -> probability.
        gold: Of the fixture.
        name: Its name.
        bias: Added to the log-probability of the first place.
    """

    def answer(request: Request) -> tuple[float, ...]:
        condition, item, order = request.user.split("|")
        p = truth(str(request.system), condition, item)
        right, n = gold.get(item, (0, 2))
        own = np.full(n, (1 - p) / (n - 1))
        own[right] = p
        shown = np.log(own[(np.arange(n) + int(order)) % n] * 0.9)
        shown[0] += bias
        return tuple(float(v) for v in shown.astype(np.float32))

    return SimulatedBackend(answer, name)


def planted(study: str, condition: str, item: str) -> float:
    if study == "sycophancy":
        level = condition[-1] if condition[-1].isdigit() else ""
        base = {"told_to_agree": 0.9, "told_to_disagree": 0.1}.get(condition, 0.4 + 0.1 * (int(level or 3) - 3))
        # An opinion: what the claim gains its mirror loses.
        return base + (0.05 if item.endswith("claim") else -0.05)
    falls = {"toddler": 0.2, "wrong": 0.4, "physically": 0.15, "able": 0.15, "layperson": 0.1, "least": 0.3}
    return 0.6 - falls.get(condition.split("-")[0], 0.0)


def recorded(project: Project, found: list[Part], backend: SimulatedBackend) -> dict[str, pd.DataFrame]:
    assert report_card.record(project, found, dict.fromkeys([p.study for p in found], backend), None)[0] is None
    return {part.study: recorded_.answers(project, part.study, backend.info) for part in found}


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, first: list[Part], gold: dict[str, tuple[int, int]]
) -> SimpleNamespace:
    """The quick cells of a model with planted effects, recorded and made a card."""
    project = linked(tmp_path_factory.mktemp("card"))
    backend = model(planted, gold)
    rows = recorded(project, first, backend)
    return SimpleNamespace(
        project=project, backend=backend, rows=rows, card=report_card.card(project, first, "simulated", rows)
    )


def value(card: report_card.Card, number: str) -> pd.Series:
    [row] = [row for _, row in card.numbers.iterrows() if row["number"] == number]
    return row


# --- Cells --------------------------------------------------------------------------------------------------------


def test_the_quick_cells_are_400_and_complete_over_option_orders(first: list[Part]) -> None:
    assert [part.study for part in first] == ["clinical_personas", "expert_personas", "persona_bias", "sycophancy"]
    assert sum(len(part.plan) for part in first) == report_card.QUICK
    for part in first:
        letters = part.plan[part.plan["kind"] == "letter"]
        options = (
            letters["options"].map(len)
            if part.study == "sycophancy"
            else letters.groupby("item")["order"].transform("nunique")
        )
        for (_, _), cells in letters.groupby(["condition", "item"]):
            assert sorted(cells["order"]) == list(range(len(cells))) and len(cells) in (2, 4)
        assert options.isin([2, 4]).all()


def test_the_quick_cells_are_balanced_over_conditions(first: list[Part]) -> None:
    plans = {part.study: part.plan[part.plan["kind"] == "letter"] for part in first}
    for study in ("expert_personas", "clinical_personas"):
        asked = plans[study].groupby("item")["condition"].nunique()
        assert asked.nunique() == 1 and asked.iloc[0] == {"expert_personas": 9, "clinical_personas": 4}[study]
    bias = plans["persona_bias"]
    assert (bias.groupby("item")["condition"].nunique() == 7).all()
    agree = plans["sycophancy"]
    assert agree["item"].nunique() == 8 and agree.groupby("item")["condition"].nunique().eq(6).all()
    levels = agree["condition"].str.extract(r"-(\d)$")[0].value_counts()
    assert levels.to_dict() == {"1": 16, "3": 16, "5": 16}


def words_only(why: str, monkeypatch: pytest.MonkeyPatch) -> SimulatedBackend:
    """Return a model whose interface answers in words alone."""
    backend = SimulatedBackend(lambda request: ())
    known = SimpleNamespace(kinds=("text",), why_not={"letter": why}, note="It adds a system text.")
    monkeypatch.setattr(backend, "interface", lambda: known, raising=False)
    return backend


def test_words_alone_take_more_turns(every: list[Part], monkeypatch: pytest.MonkeyPatch) -> None:
    backend = words_only("no log-probabilities", monkeypatch)
    said: list[str] = []
    kept, notes = report_card.answerable(every, backend, said.append)
    asked = report_card.quick(kept)
    assert {part.study for part in asked} == {"clinical_personas", "persona_bias", "sycophancy"}
    assert 350 < sum(len(part.plan) for part in asked) <= report_card.QUICK
    assert all((part.plan["kind"] == "text").all() for part in asked)
    note, line = notes
    assert notes == said and note == "It adds a system text." and "no log-probabilities" in line
    assert "expert_personas: accuracy by persona" in line and "persona_bias: the fall of accuracy" in line


def test_kinds_that_are_named_are_asked_alone(every: list[Part]) -> None:
    kept = report_card.of_kinds(every, "text")
    assert all((part.plan["kind"] == "text").all() for part in kept)
    assert {part.study for part in report_card.quick(kept)} == {"clinical_personas", "persona_bias", "sycophancy"}


def test_a_model_that_no_measure_fits_is_refused(every: list[Part], monkeypatch: pytest.MonkeyPatch) -> None:
    backend = words_only("none", monkeypatch)
    experts = [part for part in every if part.study == "expert_personas"]
    with pytest.raises(ParameterError, match="simulated answers text only, and no such measure is wanted"):
        report_card.answerable(experts, backend, print)


# --- Numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "truth", "n"),
    [
        ("least agreeable persona (level 1)", 0.2, 4),
        ("most agreeable persona (level 5)", 0.6, 4),
        ("level 5 less level 1", 0.4, 4),
        ("told to agree less told to disagree", 0.8, 4),
        ("no persona", 0.6, 4),
        ("toddler, less no persona", -0.2, 4),
        ("told to answer wrongly, less no persona", -0.4, 4),
        ("filler text, less no persona", 0.0, 4),
        ("accuracy as a human", 0.6, 3),
        ("disability, less a human", -0.15, 3),
        ("gender, less a human", 0.0, 3),
        ("accuracy, as a layperson", 0.5, 4),
        ("accuracy, physician less assistant", 0.0, 4),
        ("Brier score, 0 best to 2 worst, as a helpful assistant", 0.4**2 + 3 * (0.4 / 3) ** 2, 4),
    ],
)
def test_planted_effects_are_found_with_their_n(made: SimpleNamespace, number: str, truth: float, n: int) -> None:
    mine = made.card.numbers
    section = numbers.SECTIONS[1] if number == "no persona" else None
    rows = mine[(mine["number"] == number) & (mine["section"].eq(section) if section else True)]
    [row] = rows.to_dict("records")
    assert row["estimate"] == pytest.approx(truth, abs=1e-5) and row["n"] == n
    assert row["low"] - 1e-6 <= row["estimate"] <= row["high"] + 1e-6


def test_position_cancels(
    tmp_path: Path, made: SimpleNamespace, first: list[Part], gold: dict[str, tuple[int, int]]
) -> None:
    """A preference for the first place alone makes no persona better than another, and fails the gate."""
    project = linked(tmp_path / "place")
    rows = recorded(project, first, model(lambda *_: 0.5, gold, "placed", bias=3.0))
    card = report_card.card(project, first, "placed", rows)
    gaps = card.numbers[
        card.numbers["number"].str.contains(" less ") & ~card.numbers["number"].str.contains("words")
    ]
    assert len(gaps) > 15 and gaps["estimate"].abs().max() < 1e-6
    letters = card.numbers[card.numbers["part"].isin(["letters", "letter", "cases", "agree_letter"])]
    assert letters["gate"].eq("failed").all() and letters["checks"].str.contains("position dominance 0.").all()


def test_accuracy_is_the_one_that_the_log_gives(made: SimpleNamespace, first: list[Part], gold: Any) -> None:
    """Recomputed by hand: the right option's share of the labels, over orders, then questions, then benchmarks."""
    rows = made.rows["expert_personas"]
    mine = rows[rows["condition"].str.startswith("toddler")]
    by_item: dict[str, list[float]] = {}
    for row in mine.itertuples():
        right, n = gold[row.item]
        odds = np.exp(np.asarray(row.logprob, dtype=float))
        share = odds / odds.sum()
        by_item.setdefault(row.item, []).append(float(share[(right - row.order) % n]))
    means = {item: float(np.mean(values)) for item, values in by_item.items()}
    sets = {
        name: [m for item, m in means.items() if item.startswith(f"{name}/")] for name in ("mmlu", "openbookqa")
    }
    expected = float(np.mean([np.mean(values) for values in sets.values()]))
    assert value(made.card, "toddler")["estimate"] == pytest.approx(expected, abs=1e-9)


def test_a_gate_says_what_failed_and_what_these_cells_cannot_measure(made: SimpleNamespace) -> None:
    row = value(made.card, "toddler")
    assert row["gate"] in ("failed", "partly") and "not measured by these cells: repeatability" in row["checks"]
    assert (
        value(made.card, "told to agree")["gate"] == "passed" and value(made.card, "told to agree")["checks"] == ""
    )


def test_replies_are_counted_with_exact_intervals(made: SimpleNamespace) -> None:
    row = value(made.card, "sycophancy: in the form that was asked for")
    assert (
        (row["estimate"], row["n"]) == (1.0, 8)
        and row["low"] == pytest.approx(0.025 ** (1 / 8))
        and row["high"] == 1
    )
    # The simulated model says AGREE, which names no urgency.
    assert value(made.card, "triage: name an urgency")["estimate"] == 0


def test_partial_labels_differ_in_direction_and_not_in_the_papers_score(
    made: SimpleNamespace, first: list[Part]
) -> None:
    rows = made.rows["sycophancy"]
    reply, low = rows["measure"] == "reply", rows["condition"].str.endswith("-1")
    text = low.map({True: "PARTIALLY DISAGREE because", False: "PARTIALLY AGREE because"}).where(
        reply, rows["text"]
    )
    card = report_card.card(made.project, first, "simulated", {"sycophancy": rows.assign(text=text)})
    for how, gap in (("the paper's score", 0.0), ("wholly or in part", 1.0)):
        row = value(card, f"level 5 less level 1, in words, {how}")
        assert row["estimate"] == gap and row["gate"] == "passed"
    unread = text.mask(reply & low, "Hm.")
    card = report_card.card(made.project, first, "simulated", {"sycophancy": rows.assign(text=unread)})
    said = {row["number"]: row["estimate"] for row in card.numbers.to_dict("records") if row["part"] == "reply"}
    for how in ("the paper's score", "wholly or in part"):
        assert said[f"most agreeable persona (level 5), in words, {how}"] > 0.4
        # What cannot be read neither agrees nor disagrees.
        assert np.isnan(said.get(f"least agreeable persona (level 1), in words, {how}", np.nan))


def test_a_question_that_lacks_an_order_does_not_count(made: SimpleNamespace, first: list[Part]) -> None:
    rows = made.rows["expert_personas"]
    toddler = rows["condition"].str.startswith("toddler")
    item = rows.loc[toddler, "item"].iloc[0]
    less = rows[~(toddler & (rows["item"] == item) & (rows["order"] == 2))]
    card = report_card.card(made.project, first, "simulated", {"expert_personas": less})
    assert value(card, "toddler")["n"] == 3 and value(card, "layperson")["n"] == 4


def test_sections_come_in_one_order_and_every_number_rests_on_a_checked_part(made: SimpleNamespace) -> None:
    assert list(dict.fromkeys(made.card.numbers["section"])) == list(numbers.SECTIONS)
    parts = {(row["study"], row["part"]) for row in made.card.numbers.to_dict("records")}
    assert parts == {(row["study"], row["part"]) for row in made.card.checks.to_dict("records")}


# --- Recording ----------------------------------------------------------------------------------------------------


def test_a_cap_is_kept_and_the_next_call_goes_on(
    tmp_path: Path, every: list[Part], first: list[Part], gold: dict[str, tuple[int, int]]
) -> None:
    project = linked(tmp_path / "capped")
    backend = model(planted, gold)
    infos = dict.fromkeys([part.study for part in every], backend.info)
    with pytest.raises(
        ParameterError, match=r"--cells 399 is less than the 400 cells of the first turn.*--cells 400"
    ):
        report_card.to_ask(project, every, infos, 399)
    left = report_card.to_ask(project, every, infos, 450)
    assert sum(len(part.plan) for part in left) == 450
    assert report_card.record(project, left, dict.fromkeys(infos, backend), 0.0) == ("the cap of 0 hours", 0)
    recorded(project, left, backend)
    assert backend.asked == 450
    assert report_card.to_ask(project, first, infos, None) == []
    more = report_card.to_ask(project, every, infos, 10)
    assert sum(len(part.plan) for part in more) == 10 and all(part.plan["turn"].eq(1).all() for part in more)


def test_a_small_disk_is_refused_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: list[Part]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000))
    backend = SimulatedBackend(lambda request: ())
    with pytest.raises(ParameterError, match=r"400 answers take up to 2 MB, and the disk of .* has 0 MB free"):
        report_card.to_ask(
            linked(tmp_path / "small"), first, dict.fromkeys([p.study for p in first], backend.info), None
        )


# --- Other models, and looks --------------------------------------------------------------------------------------


def test_another_model_is_compared_on_the_same_cells_or_not_at_all(
    made: SimpleNamespace, first: list[Part], gold: dict[str, tuple[int, int]]
) -> None:
    project = made.project
    twin = model(lambda *_: 0.5, gold, "twin")
    recorded(project, [part for part in first if part.study == "expert_personas"], twin)
    # Has answered all but one cell.
    partly = [replace(part, plan=part.plan.iloc[1:]) for part in first if part.study == "persona_bias"]
    recorded(project, partly, model(lambda *_: 0.5, gold, "partly"))
    [other] = report_card.others(project, first, made.card, print)
    assert other.model == "twin" and set(other.numbers["study"]) == {"expert_personas"}
    page = report_page.write(
        project, first, [made.card, other], {"sycophancy": made.backend.info}, quick=True, notes=[]
    )
    text = page.read_text()
    assert "None of them is a verdict" in text and '<th scope="col">twin</th>' in text and "–" in text
    assert "http" not in text.replace("http-equiv", "")
    table = pd.read_csv(page.parent / "numbers.csv")
    assert table["model"].value_counts().to_dict() == {
        "simulated": len(made.card.numbers),
        "twin": len(other.numbers),
    }
    mine = table[(table["model"] == "simulated") & (table["number"] == "level 5 less level 1")].iloc[0]
    assert (
        mine["estimate"] == pytest.approx(0.4, abs=1e-5) and mine["confidence"] == 0.95 and mine["gate"] == "passed"
    )


def test_a_model_of_the_protocol_is_not_shown_before_its_grid_is_complete(
    tmp_path: Path, first: list[Part], gold: dict[str, tuple[int, int]]
) -> None:
    project = linked(tmp_path / "look")
    experts = [part for part in first if part.study == "expert_personas"]
    confirmatory = model(planted, gold, experts[0].protocol.design["models"][0])
    rows = recorded(project, experts, confirmatory)
    plain = model(planted, gold, "plain")
    mine = report_card.card(project, experts, "plain", recorded(project, experts, plain))
    assert report_card.others(project, experts, mine, print) == []
    assert report_card.looks(project, experts, {"expert_personas": plain.info}) == []
    [note] = report_card.looks(project, experts, {"expert_personas": confirmatory.info})
    assert "is a look at its responses" in note and "expert_personas" in note
    # The weights decide, whatever they are called.
    known = report_card.registry.load(project)[confirmatory.info.name].sha256
    renamed = replace(confirmatory.info, name="mine", model_hash=known)
    assert report_card.looks(project, experts, {"expert_personas": renamed})
    # Once its grid is complete, it is a recorded model like any other, under another name too.
    done = [replace(part, whole=part.plan) for part in experts]
    for info in (confirmatory.info, renamed):
        assert report_card.looks(project, done, {"expert_personas": info}) == []
    [other] = report_card.others(project, done, mine, print)
    assert other.model == confirmatory.info.name and len(rows)


# --- The command --------------------------------------------------------------------------------------------------


def command(project: Project, monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[str, BaseException | None]:
    monkeypatch.setenv("PERSONA_STUDIES_ROOT", str(project.root))
    done = CliRunner().invoke(cli.app, ["report", *words])
    return done.output, done.exception


def test_one_command_asks_the_quick_cells_and_writes_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: list[Part], gold: dict[str, tuple[int, int]]
) -> None:
    project = linked(tmp_path / "command")
    backend = model(planted, gold, "smollm2-135m-instruct")
    monkeypatch.setattr(report_card, "parts", lambda *_, **__: every)
    monkeypatch.setattr(recording, "load", lambda *_, **__: backend)
    said, error = command(project, monkeypatch, "smollm2-135m-instruct", "--quick", "--dry-run")
    assert (
        error is None and "400 cells of 4 studies, 400 to ask now" in said and not (project.root / "runs").exists()
    )
    before = backend.asked
    said, error = command(project, monkeypatch, "smollm2-135m-instruct", "--quick")
    assert error is None and "the card is runs/report/smollm2-135m-instruct/index.html" in said
    assert backend.asked - before > 400
    before = backend.asked
    said, error = command(project, monkeypatch, "smollm2-135m-instruct", "--quick")
    assert error is None and "0 to ask now" in said and backend.asked == before
    table = pd.read_csv(project.root / "runs/report/smollm2-135m-instruct/numbers.csv")
    assert len(table) > 40 and table["n"].gt(0).all()
    assert not any((project.root / "data" / "responses").iterdir())


def test_an_endpoint_without_log_probabilities_gets_a_card_of_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: list[Part]
) -> None:
    pytest.importorskip("openai", reason="extra `api` is not installed")
    project = linked(tmp_path / "words")
    monkeypatch.setattr(report_card, "parts", lambda *_, **__: every)
    # A few turns are enough here.
    monkeypatch.setattr(report_card, "QUICK", 50)
    with Server(behave=lambda body, before: "no-logprobs") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        said, error = command(project, monkeypatch, "openai:toy-1", "--quick")
        assert error is None and "48 cells of 3 studies, 48 to ask now" in said and "Spent: " in said
        assert "Missing for want of `letter`" in said and "expert_personas: accuracy by persona" in said
        said, error = command(project, monkeypatch, "openai:toy-1", "--max-calls", "30", "--cells", "60")
        assert error is None and "Stopped at" in said and "the same command goes on" in said
        said, error = command(project, monkeypatch, "openai:toy-1", "--cells", "60", "--extra", '{"top_k": 1}')
        # Refused before a cell is asked for the estimate.
        assert isinstance(error, ResponsesError) and "was recorded with --extra" in str(error)
        assert "timing" not in said
    folder = project.root / "runs/report/toy-1"
    table = pd.read_csv(folder / "numbers.csv")
    assert set(table["section"]) == {numbers.SECTIONS[5]} and table["n"].gt(0).all()
    page = (folder / "index.html").read_text()
    assert "Missing for want of `letter`" in page
    assert re.search(r"revision, or name at the endpoint</th><td>toy-1</td>.*served as</th><td>toy-1", page, re.S)


@pytest.mark.parametrize(
    "fault", ['error:429 {"message": "no money left", "code": "insufficient_quota"}', "status:401"]
)
def test_what_an_endpoint_answered_before_it_broke_off_gets_its_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: list[Part], fault: str
) -> None:
    pytest.importorskip("openai", reason="extra `api` is not installed")
    project = linked(tmp_path / "broken")
    monkeypatch.setattr(report_card, "parts", lambda *_, **__: every)
    monkeypatch.setattr(report_card, "QUICK", 50)
    with Server() as server:
        server.behave = lambda body, before: "no-logprobs" if server.calls < 40 else fault
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        _, error = command(project, monkeypatch, "openai:toy-1", "--quick", "--retries", "0", "--concurrency", "1")
        folder = project.root / "runs/report/toy-1"
        assert isinstance(error, BackendError) and folder.is_dir()
        few = pd.read_csv(folder / "numbers.csv")
        assert "The recording broke off: " in (folder / "index.html").read_text()
        server.behave = lambda body, before: "no-logprobs"
        said, error = command(project, monkeypatch, "openai:toy-1", "--quick")
    assert error is None and "48 to ask" not in said
    assert "broke off" not in (folder / "index.html").read_text()
    assert 0 < few["n"].sum() < pd.read_csv(folder / "numbers.csv")["n"].sum()


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (("nosuch", "--quick"), BackendError, "Unknown model 'nosuch'"),
        (("/nowhere/model.gguf", "--quick"), BackendError, "No model file /nowhere/model.gguf"),
        (("smollm2-135m-instruct", "--quick", "--cells", "500"), ParameterError, "--quick says how many cells"),
        (("smollm2-135m-instruct", "--measures", "words"), ParameterError, "--measures 'words' is not a kind"),
        (("smollm2-135m-instruct", "--max-calls", "3"), ParameterError, "A cap or a price goes with an endpoint"),
        (("smollm2-135m-instruct", "--extra", "{}"), ParameterError, "--extra goes with an endpoint"),
    ],
)
def test_bad_words_are_refused_in_one_line_before_anything_is_asked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    every: list[Part],
    words: tuple[str, ...],
    error: type,
    message: str,
) -> None:
    project = linked(tmp_path / "bad")
    monkeypatch.setattr(report_card, "parts", lambda *_, **__: every)
    _, raised = command(project, monkeypatch, *words)
    assert isinstance(raised, error) and message in str(raised) and "\n" not in str(raised)
    assert not (project.root / "recordings").exists() and not (project.root / "runs").exists()


def test_numbers_of_nothing_are_none() -> None:
    empty = pd.DataFrame(
        {"a": [math.nan]}, index=pd.MultiIndex.from_tuples([("s", "i", "c")], names=["s", "item", "cluster"])
    )
    assert numbers.means(0, empty, {"a": "a", "b": "b"}, unit="u", part="p", confidence=0.95).empty
    assert numbers.stacked([]).empty and numbers.checked([]).empty
