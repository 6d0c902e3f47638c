"""Recording from an endpoint by the command line: options, caps and what was spent."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from persona_studies import cli
from persona_studies.ask import logs, packing, recording, registry, responses, unfinished
from persona_studies.design import plan as plans
from persona_studies.errors import BackendError, ParameterError, ResponsesError
from persona_studies.paths import Project
from tests.kit.grids import small_plan
from tests.kit.misbehaving_server import CANARY, Body, Server, prompt_of

pytest.importorskip("openai", reason="extra `api` is not installed")
pytestmark = pytest.mark.usefixtures("endpoint")


@pytest.fixture
def cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "toy.ipynb").touch()
    monkeypatch.setenv("PERSONA_STUDIES_ROOT", str(tmp_path))
    plan = small_plan(20)
    plans.save(plan[plan["measure"] == plan["measure"].iloc[0]], tmp_path / "cells.parquet", "toy")
    return tmp_path / "cells.parquet"


def record(cells: Path, *options: str) -> tuple[int, str, BaseException | None]:
    command = ["record", "toy", "--model", "openai:toy-1", "--plan", str(cells), *options]
    done = CliRunner().invoke(cli.app, command)
    return done.exit_code, done.output, done.exception


def test_a_capped_recording_says_what_was_spent_and_goes_on(cells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        options = ("--api", "completions", "--chat", "chatml", "--revision", "a" * 40)
        code, said, raised = record(cells, *options, "--max-calls", "60")
        assert isinstance(raised, SystemExit), raised
        assert code == 1 and "Spent: 60 calls" in said and "run the same command to go on" in said
        code, said, _ = record(cells, *options)
        assert code == 0 and "complete" in said
        assert all(body["prompt"].startswith("<|im_start|>") for body in server.bodies)
    stored = b"".join(path.read_bytes() for path in (cells.parent / "data").rglob("*") if path.is_file())
    assert b"a" * 40 in stored and CANARY.encode() not in stored


def test_a_sample_is_asked_and_no_more(cells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        code, said, raised = record(cells, "--api", "completions", "--chat", "chatml", "--sample", "5")
        assert code == 0, raised
        assert "5 cells planned, 0 recorded, 5 to go" in said and "complete" in said


def test_completions_are_asked_with_a_template_from_a_file(cells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model's own template, of a family that has no name here; the server sets the begin token."""
    path = cells.parent / "llama.jinja"
    turn = "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
    opened = "<|start_header_id|>assistant<|end_header_id|>\n\n"
    path.write_text("{{ bos_token }}{% for m in messages %}" + turn + "{% endfor %}" + opened)
    with Server() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        code, _, raised = record(cells, "--api", "completions", "--chat", str(path))
        assert code == 0, raised
    prompts = {body["prompt"] for body in server.bodies}
    assert all(prompt.startswith("<|start_header_id|>") and opened in prompt for prompt in prompts)
    kept = responses.description(Project(cells.parent).responses("toy", "toy-1"))
    assert kept is not None and kept["model"]["chat"].startswith("own ")


@pytest.fixture
def whole(cells: Path) -> Path:
    """Cells of every kind: whole continuations, letters and words."""
    plan = small_plan(5)
    letters = plan[plan["measure"] == "score"].assign(measure="letters", kind="letter")
    letters["options"] = [("A", "B")] * len(letters)
    plans.save(plans.combine([plan, letters]), cells, "toy")
    return cells


def files(cells: Path) -> set[str]:
    return {path.stem for path in (cells.parent / "data").rglob("*.parquet")}


def test_a_chat_is_asked_letters_and_words(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f" '{server.url}/' ")
        code, said, raised = record(whole)
    assert code == 0, raised
    assert "toy-1 cannot be asked score, which is left out: a chat reports no" in said
    assert files(whole) == {"letters", "talk"} and CANARY not in said


def test_a_chat_without_log_probabilities_is_asked_words(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(behave=lambda body, before: "no-logprobs") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        code, said, raised = record(whole)
        assert code == 0, raised
        assert "cannot be asked letters, which is left out: The server at" in said and files(whole) == {"talk"}
        code, _, raised = record(whole, "--measures", "letters,talk")
        assert isinstance(raised, ParameterError) and "toy-1 cannot be asked letters" in str(raised)
        code, _, raised = record(whole, "--measures", "leters")
        assert isinstance(raised, ParameterError) and "Did you mean 'letters'?" in str(raised)


@pytest.mark.parametrize(
    ("first", "then", "said"),
    [
        (("--extra", '{"top_k": 1}'), (), ("--extra '{\"top_k\": 1}'", "now it is '{}'")),
        ((), ("--extra", '{"top_k": 1}'), ("--extra '{}'", "now it is '{\"top_k\": 1}'")),
        (("--top-logprobs", "5"), (), ("--top-logprobs '5'", "now it is '20'")),
        ((), ("--system-role", "user"), ("another chat (server;", "now server, persona in the user turn")),
        ((), ("--api", "completions", "--chat", "chatml"), ("another chat (server;", "now chatml")),
        ((), ("--revision", "a" * 40), ("another model_hash (toy-1;", "now aaaa")),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_recording_goes_on_with_the_options_it_began_with(
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: tuple[str, ...],
    then: tuple[str, ...],
    said: tuple[str, str],
    packed: bool,
) -> None:
    """From the logs, and from a committed part of it in another checkout."""
    project = Project(whole.parent)
    with Server() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        code, _, raised = record(whole, "--limit", "3", "--measures", "letters", *first)
        assert code == 1 and isinstance(raised, SystemExit), raised
        if packed:
            plan = plans.load(whole, "toy")
            packing.pack(project, "toy", plan[plan["measure"] == "letters"], "toy-1", partly=True)
            shutil.rmtree(project.recordings)
        code, _, raised = record(whole, "--measures", "letters", *then)
        assert isinstance(raised, ResponsesError) and all(words in str(raised) for words in said), raised
        assert "--name" in str(raised)
        # A setting that words do not have does not bind them.
        code, _, raised = record(whole, "--measures", "letters,talk", *first)
        assert code == 0, raised
    kept = responses.description(project.responses("toy", "toy-1"))
    assert kept is not None and kept["served"] == "toy-1"
    given = dict(zip(first[::2], first[1::2]))
    assert kept["settings"] == {
        "extra": json.loads(given.get("--extra", "{}")),
        "top_logprobs": int(given.get("--top-logprobs", 20)),
    }
    again = unfinished.to_record(project, "toy", kept, "")
    flags = shlex.split(shlex.split(again)[4].removeprefix("FLAGS="))
    assert flags[:2] == ["--name", "toy-1"] and {*first} <= {*flags}


def test_what_was_recorded_elsewhere_is_merged_only_where_it_was_asked_alike(
    whole: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with Server() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        record(whole, "--limit", "3")
        record(whole, "--out", str(tmp_path / "same"), "--limit", "3", "--shard", "2/2")
        monkeypatch.setenv("PERSONA_STUDIES_ROOT", str(tmp_path))
    project = Project(whole.parent)
    log = tmp_path / "same" / "toy" / "toy-1" / "model.json"
    shutil.copytree(tmp_path / "same", tmp_path / "other")
    other = tmp_path / "other" / "toy" / "toy-1" / "model.json"
    other.write_text(log.read_text().replace('"extra": {}', '"extra": {"top_k": 1}'))
    with pytest.raises(ResponsesError, match="answers to different calls are not mixed"):
        packing.take_in(project, tmp_path / "other")
    assert packing.take_in(project, tmp_path / "same")["new"].sum() > 0
    shutil.rmtree(project.recordings)
    packing.take_in(project, tmp_path / "same")
    signed = logs.signed(logs.folder(project, "toy", "toy-1"))
    assert signed is not None and signed["served"] == "toy-1" and signed["settings"]["extra"] == {}


def test_a_misbehaving_server_fills_no_recording(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only reasoning comes back, and then the server is mended."""
    thinking = {"content": None, "reasoning_content": "hm"}
    answer = {"choices": [{"message": thinking, "finish_reason": "length"}], "usage": None}
    with Server(behave=lambda body, before: f"raw:{json.dumps(answer)}") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        code, said, raised = record(whole)
        assert code == 1 and isinstance(raised, BackendError) and f"Spent: {server.calls} calls" in said
        assert "The first 8 answers to talk say nothing" in str(raised) and "--extra" in str(raised)
        assert not files(whole) and server.calls < 40
        server.behave = lambda body, before: "ok"
        assert record(whole)[0] == 0 and files(whole) == {"letters", "talk"}


def test_failed_cells_keep_a_recording_open_until_they_are_answered(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flagged(body: Body, before: int) -> str:
        return "status:400 flagged" if "laim 3" in prompt_of(body) else "ok"

    with Server(behave=flagged) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        code, said, _ = record(whole, "--measures", "talk")
        assert code == 1 and "2 cells failed, and are asked again by the same command" in said
        assert not files(whole)
        code, said, _ = record(whole, "--measures", "talk", "--reask", "never")
        assert code == 0 and "2 cells failed, and stay failed" in said and files(whole) == {"talk"}
        server.behave = lambda body, before: "ok"
        code, said, _ = record(whole, "--measures", "talk", "--reask", "failed")
        assert code == 0 and "failed" not in said.replace("--reask", "")


def test_the_options_reach_the_endpoint(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        options = ("--top-logprobs", "5", "--extra", '{"top_k": 1}', "--retries", "0", "--timeout", "30")
        code, _, raised = record(whole, *options, "--system-role", "user")
        assert code == 0, raised
    letters = [body for body in server.bodies if body.get("logprobs")]
    assert letters and all(body["top_logprobs"] == 5 and body["top_k"] == 1 for body in letters)
    assert {m["role"] for body in server.bodies for m in body["messages"]} == {"user"}
    record_ = next((whole.parent / "data").rglob("record.json")).read_text()
    assert json.loads(record_)["model"]["chat"] == "server, persona in the user turn"


def test_every_option_that_the_library_names_exists() -> None:
    """A remedy in a message is an option of some command, and of `record` where an endpoint or a model names it."""
    root = Path(__file__).parents[2]
    commands: Any = typer.main.get_command(cli.app)
    known = {name: {o for p in c.params for o in p.opts} for name, c in commands.commands.items()}
    foreign = {"--no-deps", "--return-tokens-as-token-ids", "--help"}
    named: dict[str, set[str]] = {}
    for path in (root / "lib").rglob("*.py"):
        texts = [n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)]
        found = {o for t in texts if isinstance(t, str) for o in re.findall(r"(?<![\w-])--[a-z][a-z-]+", t)}
        named[path.relative_to(root).as_posix()] = found - foreign
    everything = set().union(*known.values())
    ours = {place: options for place, options in named.items() if "/ask/" in place}
    assert sum(map(len, ours.values())) > 15
    for place, options in ours.items():
        assert options <= everything, place
        if "endpoint" in place or "openai" in place or "first_cells" in place:
            assert options <= known["record"], place


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (("--extra", "[1]"), ParameterError, "is not a JSON object"),
        (("--extra", '{"top_k": NaN}'), ParameterError, "is not a JSON object"),
        (("--extra", '{"temperature": 1}'), ParameterError, "leave it out of --extra"),
        (("--precision", "f32"), ParameterError, "--precision goes with a model that runs here"),
        (("--shard", "²/3"), ParameterError, "is not I/N"),
        (("--name", "a" * 101), BackendError, "cannot name a recording"),
        (("--name", "a/b"), BackendError, "'a/b' cannot name a recording"),
        (("--reask", "all"), ParameterError, "it is failed, or never"),
        (("--system-role", "assistant"), ParameterError, "'system' or 'user'"),
        (("--timeout", "0"), ParameterError, "timeout"),
        (("--retries", "-1"), ParameterError, "retries"),
        (("--top-logprobs", "50"), ParameterError, "1 to 20"),
        (("--measures", " , "), ParameterError, "names none"),
        (("--chat", "chatlm"), BackendError, "Unknown chat template 'chatlm'; known: chatml, gemma, plain"),
        (("--api", "completions"), ParameterError, "chat"),
        (("--max-money", "1"), ParameterError, "price_in"),
    ],
)
def test_bad_options_are_refused_before_a_call(
    cells: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], error: type, message: str
) -> None:
    with Server() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        code, _, raised = record(cells, *options)
        assert code != 0 and isinstance(raised, error) and message in str(raised)
        assert not server.bodies


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("OpenAI:gpt-4o", "Did you mean 'openai:gpt-4o'?"),
        ("openai: gpt-4o", "blank"),
        ("openai:模型", "'', which is made of 'openai:模型', cannot name a recording"),
        ("", "Unknown model ''"),
    ],
)
def test_odd_models_are_named_as_they_were_typed(
    cells: Path, model: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "load", lambda project: {})
    code, _, raised = record(cells, "--model", model)
    assert code != 0 and isinstance(raised, BackendError) and message in str(raised)


@pytest.mark.parametrize(
    "options", [("--api", "chat"), ("--concurrency", "2"), ("--max-calls", "5"), ("--price-in", "1")]
)
def test_what_only_an_endpoint_has_is_refused_for_another_model(cells: Path, options: tuple[str, ...]) -> None:
    code, _, raised = record(cells, "--model", "gguf:model.gguf", *options)
    assert code != 0 and isinstance(raised, ParameterError) and "an endpoint, --model openai:MODEL" in str(raised)


def test_a_place_that_cannot_be_written_is_refused_before_a_call(
    cells: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = cells.parent / "taken"
    taken.write_text("a file")
    with Server() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        for out in (taken, taken / "inside"):
            code, _, raised = record(cells, "--out", str(out))
            assert code == 1 and isinstance(raised, ResponsesError) and f"{taken} is a file" in str(raised)
        closed = SimpleNamespace(access=lambda *_: False, W_OK=os.W_OK, X_OK=os.X_OK)
        monkeypatch.setattr(recording, "os", closed)
        assert "may not be written; name another folder with --out" in str(record(cells)[2])
        assert not server.bodies
