"""One model behind an endpoint and in this process; needs the extras `live` and `api` and the server's packages.

The server is llama-cpp-python's own, with the weights converted to f32 that the llama.cpp backend uses too. Both
compute in single precision and without flash attention, so what is left between them is the order of summation in
batches of different shapes: 1e-5 to 1e-4 nats a token. TOLERANCE is ten times that; reading a neighbouring
position or another token is off by whole nats.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from persona_studies.ask import models
from persona_studies.ask.backends import Backend, Request, Response
from persona_studies.ask.chat import PLAIN
from persona_studies.errors import BackendError
from tests.kit.llama_server import MODEL, PROJECT, endpoint, serve

pytestmark = pytest.mark.live

TOLERANCE = 1e-3
PERSONA = "You are a baker."
LETTERS = [
    Request("letter", persona, "Reply with one letter, A or B.\n", "Is tea warm?", ("A", "B"))
    for persona in (None, PERSONA)
]
TEXTS = [Request("text", PERSONA, "", "Say hello.", max_tokens=6), Request("text", None, "", "2+2?", max_tokens=12)]
CLOZE = Request("cloze", None, "", "Is tea warm?", ("I agree.", "No, not at all."))


@pytest.fixture(scope="module")
def here() -> Iterator[Backend]:
    backend = models.load(PROJECT, MODEL, precision="f32")
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve(tmp_path_factory.mktemp("server") / "log.txt") as found:
        yield found


@pytest.fixture(autouse=True)
def without_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def ask(backend: Backend, *requests: Request) -> list[Response]:
    answers = dict(backend.respond(requests))
    return [answers[place] for place in range(len(requests))]


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_letters_agree(here: Backend, address: str, api: str) -> None:
    """In the process a label is one token; an endpoint adds the one with a space, where it is listed."""
    # The model's own template adds a system text when there is none, so only personas can be compared by chat.
    letters = [request for request in LETTERS if api == "completions" or request.system]
    spaced = [Request("letter", r.system, r.shared, r.user, (" A", " B")) for r in letters]
    served, exact, variants = ask(endpoint(address, api), *letters), ask(here, *letters), ask(here, *spaced)
    seen = 0
    for there, one, other in zip(served, exact, variants, strict=True):
        assert there.top_token == one.top_token
        assert there.prompt_tokens == one.prompt_tokens
        for value, bare, with_space in zip(there.logprob, one.logprob, other.logprob, strict=True):
            if math.isnan(value):
                continue
            seen += 1
            both = math.log(math.exp(bare) + math.exp(with_space))
            assert min(abs(value - bare), abs(value - both), abs(value - with_space)) < TOLERANCE
    assert seen >= len(letters)


def test_texts_agree(here: Backend, address: str) -> None:
    """With repetition not penalised, which this server does on its own account."""
    for there, one in zip(ask(endpoint(address), *TEXTS), ask(here, *TEXTS), strict=True):
        assert (there.text, there.finish, there.prompt_tokens) == (one.text, one.finish, one.prompt_tokens)


def test_cloze_agrees(here: Backend, address: str) -> None:
    [there], [one] = ask(endpoint(address), CLOZE), ask(here, CLOZE)
    assert there.n_tokens == one.n_tokens
    assert there.prompt_tokens == one.prompt_tokens
    assert there.top_token == one.top_token
    assert there.logprob == pytest.approx(one.logprob, abs=TOLERANCE * max(one.n_tokens))
    assert there.option_mass == pytest.approx(one.option_mass, rel=TOLERANCE)


def test_cloze_is_refused_where_the_server_shifts_the_echo(address: str) -> None:
    """Without a begin-of-text token at the start, this server pairs tokens with their neighbours' numbers."""
    request = Request("cloze", None, "", "Warm?", (" Yes.",))
    with pytest.raises(BackendError, match="cannot be measured"):
        ask(endpoint(address, chat=PLAIN), request)


def test_by_chat_the_servers_template_may_add_a_system_text(address: str) -> None:
    """Why studies with a no-persona control should ask by completions where they can."""
    [chat] = ask(endpoint(address, "chat"), LETTERS[0])
    [completions] = ask(endpoint(address), LETTERS[0])
    assert chat.prompt_tokens > completions.prompt_tokens


def test_a_prompt_beyond_the_context_fails_alone(address: str) -> None:
    long = Request("text", None, "", "word " * 400, max_tokens=5)
    found = ask(endpoint(address), long, TEXTS[0])
    assert [answer.finish for answer in found] == ["failed", "length"]
    assert "context" in (found[0].text or "")


def test_a_study_is_recorded_by_chat(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make record MODEL=openai:...` as users type it: letters and words are asked, sentences left out."""
    from typer.testing import CliRunner

    from persona_studies import cli
    from persona_studies.design import plan as plans
    from tests.kit.grids import small_plan

    (tmp_path / "studies" / "toy").mkdir(parents=True)
    (tmp_path / "studies" / "toy.ipynb").touch()
    plan = small_plan(2)
    letters = plan[plan["measure"] == "score"].assign(measure="letters", kind="letter")
    letters["options"] = [("A", "B")] * len(letters)
    plans.save(plans.combine([plan, letters]), tmp_path / "cells.parquet", "toy")
    monkeypatch.setenv("PERSONA_STUDIES_ROOT", str(tmp_path))
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    command = ["record", "toy", "--model", f"openai:{MODEL}", "--plan", str(tmp_path / "cells.parquet")]
    done = CliRunner().invoke(cli.app, [*command, "--timeout", "600", "--concurrency", "1"])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "cannot be asked score, which is left out" in done.output
    folder = tmp_path / "data" / "responses" / "toy" / MODEL
    assert {path.stem for path in folder.glob("*.parquet")} == {"letters", "talk"}
