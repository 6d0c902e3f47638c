"""Parsers and stores under inputs that nobody thought of: a value or an error of this library, never another."""

from __future__ import annotations

import ast
import json
import math
import string
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import Field

from persona_bias import extractors as persona_bias_extractors
from persona_studies.analyse import tables
from persona_studies.ask import logs, recording, registry, responses, schema
from persona_studies.ask.backends import Response
from persona_studies.cli import shared
from persona_studies.design import parameters, protocol, sources
from persona_studies.design import plan as plans
from persona_studies.errors import NotebookError, ParameterError, PersonaStudiesError, ProtocolError, ResponsesError
from persona_studies.paths import Project
from persona_studies.publish import hub
from persona_studies.reproduce import notebooks
from sycophancy import published as sycophancy_published
from tests.conftest import OPEN, PARAMETERS, notebook
from tests.kit.grids import answer, conditions, small_plan, templates
from tests.kit.protocols import GOOD
from tests.kit.registers import ENTRY, PINS, register
from tests.kit.simulated import SimulatedBackend

quick = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

with_files = settings(quick, max_examples=30)

ANY = st.text(st.characters(codec="utf-8"), max_size=60)
# Pieces that readers of replies look for, and what may stand between them.
PIECES = [
    "answer is",
    "The answer is",
    "(A)",
    "B",
    "(c",
    "D.",
    "I",
    "option",
    "agree",
    "DISAGREE",
    "partially",
    "yes,",
]
PIECES += [
    "I cannot",
    "as an AI",
    "don't ",
    "\n",
    " ",
    "\t",
    "**",
    "’",
    "\x1b[31m",
    "\u202e",
    "<script>",
    "\\frac{1}{2}",
]
REPLY = st.lists(st.sampled_from(PIECES) | ANY, max_size=30).map("".join)


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Change a file in a few places: a bit, a byte, a piece lost, a piece twice."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.integers(1, 40))
        change = draw(st.sampled_from(["bit", "byte", "lost", "twice", "cut"]))
        if change == "bit" and data:
            data = data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
        elif change == "byte":
            data = data[:at] + draw(st.binary(min_size=1, max_size=4)) + data[at:]
        elif change == "lost":
            data = data[:at] + data[at + length :]
        elif change == "twice":
            data = data[: at + length] + data[at:]
        else:
            data = data[:at]
    return data


class Some(parameters.Parameters):
    alpha: float = Field(gt=0, lt=1, description="error rate")
    rounds: int = Field(ge=1, le=10, description="how often")
    label: str = Field(description="a text")
    kinds: tuple[Literal["a", "b"], ...] = Field(min_length=1, description="a list")


DEFAULTS = {"alpha": 0.05, "rounds": 3, "label": "x", "kinds": ["a"]}


@pytest.mark.attack
@quick
@given(st.lists(st.builds("{}={}".format, st.sampled_from([*DEFAULTS, "alhpa", ""]), ANY) | ANY, max_size=4))
def test_assignments(assignments: list[str]) -> None:
    try:
        made = Some.check(DEFAULTS | Some.parse(assignments))
    except ParameterError as error:
        assert str(error)
        return
    assert 0 < made.alpha < 1 and 1 <= made.rounds <= 10 and set(made.kinds) <= {"a", "b"} and made.kinds
    assert Some.check(json.loads(made.model_dump_json())) == made


@pytest.mark.attack
@quick
@given(ANY)
def test_params_string(text: str) -> None:
    try:
        assert all(isinstance(part, str) for part in shared.given(None, text))
    except ParameterError as error:
        assert "NAME=VALUE" in str(error)


@pytest.mark.attack
@quick
@given(damaged(PARAMETERS.encode()) | ANY.map(str.encode))
def test_parameters_cell(source: bytes) -> None:
    try:
        found = notebooks.parameters(notebook(OPEN, parameters=source.decode("utf-8", "replace")))
    except NotebookError:
        return
    ast.literal_eval(repr(found))


def test_a_parameters_cell_of_many_brackets(make_project: Any) -> None:
    for opened in ("(" * 5_000, "[" * 150, "-" * 100_000):
        with pytest.raises(NotebookError):
            notebooks.parameters(notebook(OPEN, parameters=f"alpha = {opened}"))


@pytest.mark.attack
@with_files
@given(damaged(GOOD.encode()))
def test_protocols(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "toy.toml").write_bytes(text)
    for read in (protocol.load, protocol.tolerances):
        try:
            read(tmp_path / "toy.toml")
        except ProtocolError as error:
            assert "toy.toml" in str(error)


ROOT = Path(__file__).parents[2]


@pytest.mark.attack
@with_files
@given(data=st.data())
def test_registers(tmp_path: Path, data: st.DataObject) -> None:
    project = register(tmp_path, ENTRY)
    good = {"sources.toml": project.sources.read_bytes(), "recordings.toml": PINS.encode()}
    good["models.toml"] = (ROOT / "data" / "models.toml").read_bytes()
    readers = {"sources.toml": sources.load, "recordings.toml": hub.register, "models.toml": registry.load}
    for name, read in readers.items():
        path = project.data / name
        path.write_bytes(data.draw(damaged(good[name]), label=name))
        try:
            read(project)
        except PersonaStudiesError as error:
            assert name in str(error)
        path.write_bytes(good[name])
        assert read(project)


# Plans


@st.composite
def banks(draw: st.DrawFn) -> pd.DataFrame:
    names = draw(
        st.lists(st.text(string.ascii_lowercase, min_size=1, max_size=4), min_size=1, max_size=5, unique=True)
    )
    texts = [draw(ANY) for _ in names]
    frame = pd.DataFrame({"item": names, "item_hash": [plans.text_hash(t) for t in texts], "text": texts}).astype(
        object
    )
    if draw(st.booleans()):
        options = [tuple(draw(st.lists(ANY, min_size=2, max_size=4))) for _ in names]
        frame["options"] = pd.Series(options, dtype=object)
    return frame


@pytest.mark.attack
@quick
@given(banks(), st.integers(1, 4), st.integers(1, 3))
def test_a_plan_crosses_whatever_a_bank_holds(items: pd.DataFrame, orders: int, repeats: int) -> None:
    asked = plans.measure(
        "m",
        "cloze",
        conditions=conditions(),
        items=items,
        templates=templates("{text}"),
        options=["x", "y"],
        orders=orders,
        repeats=repeats,
    )
    assert len(asked) == 2 * len(items) * orders * repeats
    assert len(plans.combine([asked])) == len(asked)
    assert {*asked["user"]} == {*items["text"]}
    for shown, own in zip(
        asked["options"], asked.merge(items, on="item")["options_y"] if "options" in items else []
    ):
        assert sorted(shown) == sorted(own)


CHANGES = ["lose a column", "lose a value", "repeat a row", "misname", "spoil a number"]


@pytest.mark.attack
@quick
@given(st.lists(st.sampled_from(CHANGES), max_size=2), st.data())
def test_banks_that_are_not_whole(changes: list[str], data: st.DataObject) -> None:
    frame = pd.DataFrame({"item": ["a", "b"], "item_hash": ["1" * 16, "2" * 16], "text": ["one", "two"]}).astype(
        object
    )
    for change in changes:
        column = data.draw(st.sampled_from(list(frame)), label=change)
        if change == "lose a column":
            frame = frame.drop(columns=column) if len(frame.columns) > 1 else frame
        elif change == "lose a value":
            frame.loc[0, column] = None
        elif change == "repeat a row":
            frame = pd.concat([frame, frame.head(1)], ignore_index=True)
        elif change == "misname":
            frame = frame.rename(columns={column: "other"})
    try:
        asked = plans.measure(
            "m", "cloze", conditions=conditions(), items=frame, templates=templates(), options=["x"]
        )
    except ProtocolError as error:
        assert "the items of measure 'm'" in str(error)
        return
    assert not asked[[*plans.IDENTITY, *plans.HASHES]].isna().to_numpy().any()


@pytest.mark.attack
@with_files
@given(data=st.data())
def test_plan_files(tmp_path: Path, data: st.DataObject) -> None:
    path, plan = tmp_path / "cells.parquet", small_plan(2)
    if not path.exists():
        plans.save(plan, tmp_path / "good.parquet", "toy")
    path.write_bytes(data.draw(damaged((tmp_path / "good.parquet").read_bytes())))
    try:
        read = plans.load(path, "toy")
    except PersonaStudiesError as error:
        assert "cells.parquet" in str(error) or "plan" in str(error) or "measure" in str(error)
        return
    assert not read.duplicated(plans.IDENTITY).any() and {*read["kind"]} <= {*plans.KINDS}


# Replies


@settings(quick, max_examples=40)
@given(REPLY)
def test_readers_of_replies(text: str) -> None:
    read_by_every_reader(text)


@pytest.mark.attack
@settings(quick, max_examples=300)
@given(REPLY)
def test_readers_of_many_replies(text: str) -> None:
    read_by_every_reader(text)


def read_by_every_reader(text: str) -> None:
    for name, extract in persona_bias_extractors.EXTRACTORS.items():
        letter = extract(text)
        assert letter is None or (len(letter) == 1 and letter in string.ascii_uppercase), name
        for cut in (True, False):
            assert persona_bias_extractors.status(text, letter, cut=cut) in persona_bias_extractors.STATUSES
    for read in (sycophancy_published.parse_anchored, sycophancy_published.parse_published):
        reading = read(text)
        assert reading.value is None or 0 <= reading.value <= 1


@pytest.mark.parametrize(
    "piece", [" ", "\n", "(", "*", "the ", "answer ", "answer is ", "is ", "I ", "as a ", "(A", "’"]
)
@pytest.mark.parametrize("opening", ["", "the answer", "as a nurse"])
def test_a_long_reply_is_read_in_no_time(opening: str, piece: str) -> None:
    """Some patterns try a reply of a thousand blanks in a billion ways, which here would never end."""
    text = opening + piece * (20_000 // len(piece))
    for read in (*persona_bias_extractors.EXTRACTORS.values(), sycophancy_published.parse_anchored):
        read(text)
    sycophancy_published.parse_published(text)
    persona_bias_extractors.status(text, None, cut=True)


# The store

FLOATS = st.floats(-1e4, 0, width=32) | st.just(math.nan)
TEXTS = st.none() | st.text(st.characters(codec="utf-8"), max_size=40)
COUNTS = st.integers(0, 2**32 - 1)


@st.composite
def given_responses(draw: st.DrawFn) -> Response:
    n = draw(st.integers(0, 4))
    return Response(
        request=draw(st.text("0123456789abcdef", min_size=16, max_size=16)),
        finish=draw(st.sampled_from(["scored", "stop", "length", "failed"])),
        prompt_tokens=draw(COUNTS),
        computed_tokens=draw(COUNTS),
        logprob=tuple(draw(FLOATS) for _ in range(n)),
        n_tokens=tuple(draw(st.integers(0, 2**16 - 1)) for _ in range(n)),
        option_mass=draw(st.none() | st.floats(0, 1, width=32)),
        entropy=draw(st.none() | st.floats(0, 20, width=32)),
        top_token=draw(TEXTS),
        text=draw(TEXTS),
    )


@pytest.mark.attack
@with_files
@given(st.lists(given_responses(), min_size=1, max_size=6))
def test_any_answer_comes_back_as_it_went(tmp_path: Path, answers: list[Response]) -> None:
    """Appended, read from the log, written as Parquet, read again: every row has its checksum."""
    plan = small_plan(3).head(len(answers))
    log = tmp_path / "log"
    for old in [*log.glob("*"), *(tmp_path / "packed").glob("*")]:
        old.unlink()
    file = logs.Log(log / "1.jsonl")
    for cell, response in zip(plan.to_dict("records"), answers):
        file.append({str(name): value for name, value in cell.items()}, response)
    file.close()
    rows = logs.read(log)
    responses.write(rows, plan, tmp_path / "packed", failed=True)
    stored = responses.stored(tmp_path / "packed").sort_values(schema.KEY)
    for one, other in zip(rows.sort_values(schema.KEY).to_dict("records"), stored.to_dict("records"), strict=True):
        assert one["checksum"] == other["checksum"] == schema.checksum(one) == schema.checksum(other)
    texts = stored[["text", "top_token"]].astype(object)
    said = texts.where(texts.notna(), None).itertuples(index=False, name=None)
    assert {*said} == {(r.text, r.top_token) for r in answers}


TOO_MUCH = {
    "a log-probability in double precision": {"logprob": (-0.1,)},
    "more tokens than are counted": {"n_tokens": (2**16,)},
    "fewer tokens than none": {"prompt_tokens": -1},
    "half a pair of surrogates": {"text": "\ud800"},
    "a mass in double precision": {"option_mass": 0.1},
}


@pytest.mark.parametrize("case", TOO_MUCH)
def test_an_answer_that_would_not_come_back_is_refused(tmp_path: Path, case: str) -> None:
    """Better no answer than one that nobody can read."""
    good: dict[str, Any] = {"request": "0" * 16, "finish": "scored", "prompt_tokens": 1, "computed_tokens": 1}
    [cell] = small_plan(1).head(1).to_dict("records")
    file = logs.Log(tmp_path / "1.jsonl")
    with pytest.raises(ResponsesError, match="cannot be stored"):
        file.append({str(name): value for name, value in cell.items()}, Response(**(good | TOO_MUCH[case])))
    file.close()
    assert (tmp_path / "1.jsonl").read_bytes() == b""


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY,
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)


@pytest.mark.attack
@settings(quick, max_examples=200)
@given(st.sampled_from([*schema.KEY, *schema.VALUES]), JUNK)
def test_a_row_by_another_hand(tmp_path: Path, name: str, value: Any) -> None:
    """A row whose checksum holds and whose value is of the wrong type is refused, or read as what it is."""
    log = tmp_path / "log"
    if not log.exists():
        plan = small_plan(1)
        recording.record(Project(tmp_path), "toy", plan, SimulatedBackend(answer))
        logs.folder(Project(tmp_path), "toy", "simulated").rename(log)
        next(log.glob("*.jsonl")).rename(log / "good")
    first = json.loads((log / "good").read_bytes().splitlines()[0])
    row = first | {name: value}
    row["checksum"] = schema.checksum(row)
    try:
        text = (json.dumps(row) + "\n").encode()
    except UnicodeEncodeError:
        assume(False)
    (log / "1.jsonl").write_bytes(text)
    try:
        [read] = logs.read(log).to_dict("records")
    except ResponsesError:
        return
    assert read["checksum"] == row["checksum"]


@pytest.mark.parametrize("line", ["[" * 100_000, "3", "null", "{}", '{"checksum": 1e999}', '"\\ud800"'])
def test_a_line_that_is_no_row(tmp_path: Path, line: str) -> None:
    (tmp_path / "1.jsonl").write_text(line + "\n")
    with pytest.raises(ResponsesError, match=r"1\.jsonl, line 1, is damaged"):
        logs.read(tmp_path)


# Tables


@pytest.mark.attack
@with_files
@given(
    st.lists(
        # Before Python 3.13 a carriage return is written without quotes and read as the end of a line; pandas 2.2
        # reads no NUL.
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=60),
            st.floats(width=64),
            st.integers(-(2**53), 2**53),
            st.booleans(),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_a_table_comes_back_as_it_went(tmp_path: Path, rows: list[tuple[str, float, int, bool]]) -> None:
    frame = pd.DataFrame(rows, columns=["text", "x", "n", "rejected"])
    frame["text"] = "t" + frame["text"]  # a column of numbers would be read as such, and an empty field as missing
    tables.save(frame, tmp_path / "t.csv")
    read = tables.load(tmp_path / "t.csv")
    assert read["text"].tolist() == frame["text"].tolist()
    np.testing.assert_array_equal(read["x"].to_numpy(float), frame["x"].to_numpy())
    assert read["n"].tolist() == frame["n"].tolist() and read["rejected"].tolist() == frame["rejected"].tolist()


@pytest.mark.attack
@quick
@given(st.lists(ANY | REPLY, min_size=1, max_size=4))
def test_a_table_shows_no_markup_of_a_reply(texts: list[str]) -> None:
    shown = tables.show(pd.DataFrame({"text": texts}), id="t", title="Replies")
    assert "<script" not in shown.html and "\x1b" not in shown.html + shown.text and "\u202e" not in shown.html
