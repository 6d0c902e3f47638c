"""The backend for OpenAI-compatible endpoints against a local server that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import math
import os
import random
import re
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from persona_studies.ask.backends import Request, Response
from persona_studies.ask.backends.openai_compatible import Budget, OpenAICompatible, Spent
from persona_studies.ask.chat import CHATML, GEMMA, PLAIN
from persona_studies.errors import BackendError, BudgetSpent, ParameterError
from tests.kit.misbehaving_server import (
    CANARY,
    Body,
    Server,
    always,
    backend,
    by_text,
    in_turn,
    logprob_of,
    prompt_of,
    tokens_of,
)

pytest.importorskip("openai", reason="extra `api` is not installed")
pytestmark = pytest.mark.usefixtures("endpoint")

LETTER = Request("letter", "You are a baker.", "Choose a letter.\n", "Is tea warm?", ("A", "B", "C"))
TEXT = Request("text", None, "", "Say hello.", max_tokens=20)
CLOZE = Request("cloze", "You are a baker.", "", "Is tea warm?", ("I agree.", "I do not agree at all."))


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    yield
    assert not [thread.name for thread in threading.enumerate() if thread.name == "openai-compatible"]


def ask(model: OpenAICompatible, *requests: Request) -> list[Response]:
    """Return the responses in the order of the requests."""
    answers = dict(model.respond(requests))
    assert sorted(answers) == list(range(len(requests)))
    return [answers[place] for place in range(len(requests))]


def many(n: int, kind: str = "letter") -> list[Request]:
    options = ("A", "B") if kind == "letter" else ()
    return [Request(kind, None, "", f"Question number {i}?", options, 0 if options else 20) for i in range(n)]


# What is asked and what is read


def test_letter_by_chat() -> None:
    with Server() as server:
        [found] = ask(backend(server), LETTER)
    assert found.finish == "scored"
    # C is listed with a space before it only.
    assert found.logprob == pytest.approx((-0.5, -1.5, -2.5))
    assert found.option_mass == pytest.approx(sum(map(math.exp, (-0.5, -1.5, -2.5))))
    assert (found.top_token, found.entropy, found.n_tokens) == ("A", None, (1, 1, 1))
    [body] = server.bodies
    assert body["messages"] == [
        {"role": "system", "content": "You are a baker."},
        {"role": "user", "content": "Choose a letter.\nIs tea warm?"},
    ]
    assert (body["max_tokens"], body["logprobs"], body["top_logprobs"]) == (1, True, 20)
    assert found.prompt_tokens == len(tokens_of(prompt_of(body)))


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_no_persona_sends_no_system_text(api: str) -> None:
    bare = Request("letter", None, "", "Is tea warm?", ("A", "B"))
    silent = Request("letter", "", "", "Is tea warm?", ("A", "B"))
    with Server() as server:
        ask(backend(server, api=api, concurrency=1), bare, silent)
    without, empty = server.bodies
    if api == "chat":
        assert [message["role"] for message in without["messages"]] == ["user"]
        assert [message["role"] for message in empty["messages"]] == ["system", "user"]
    else:
        assert without["prompt"] == "<|im_start|>user\nIs tea warm?<|im_end|>\n<|im_start|>assistant\n"
        assert empty["prompt"].startswith("<|im_start|>system\n<|im_end|>\n")


@pytest.mark.parametrize("behaviour", ["ok", "server-form"])
def test_letter_by_completions_in_both_forms(behaviour: str) -> None:
    with Server(behave=always(behaviour)) as server:
        [found] = ask(backend(server, api="completions", top_logprobs=7), LETTER)
    assert found.logprob == pytest.approx((-0.5, -1.5, -2.5))
    assert server.bodies[0]["logprobs"] == 7
    assert server.bodies[0]["prompt"] == "".join(CHATML.render(LETTER.system, LETTER.shared, LETTER.user))


def test_an_absent_label_is_censored_not_zero() -> None:
    with Server(behave=always("missing-label")) as server:
        [found] = ask(backend(server), LETTER)
    assert found.logprob[0] == pytest.approx(-0.5)
    assert math.isnan(found.logprob[1])
    assert found.option_mass == pytest.approx(math.exp(-0.5) + math.exp(-2.5))


def test_a_label_marked_as_very_unlikely_is_censored() -> None:
    with Server(behave=always("very-unlikely")) as server:
        [found] = ask(backend(server), LETTER)
    assert found.logprob[0] == pytest.approx(-0.1)
    assert math.isnan(found.logprob[1]) and math.isnan(found.logprob[2])


def test_variants_of_a_label_are_added_and_repetitions_are_not() -> None:
    with Server(behave=always("variants")) as server:
        [found] = ask(backend(server), LETTER)
    assert math.exp(found.logprob[0]) == pytest.approx(math.exp(-0.5) + math.exp(-2.0))
    # Neither "B." nor "a" is a label.
    assert found.logprob[1] == pytest.approx(-1.5)
    assert found.option_mass is not None and found.option_mass < 1


def test_an_end_marker_as_first_token_censors_every_label() -> None:
    with Server(behave=always("end-at-once")) as server:
        [found] = ask(backend(server), LETTER)
    assert all(map(math.isnan, found.logprob))
    assert (found.option_mass, found.top_token) == (0.0, None)


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_text(api: str) -> None:
    with Server() as server:
        [found] = ask(backend(server, api=api), TEXT)
    [body] = server.bodies
    assert (body["temperature"], body["seed"], body["max_tokens"]) == (0, 0, 20)
    assert body.get("stop") == (None if api == "chat" else ["<|im_end|>"])
    assert found.finish == "stop"
    assert re.fullmatch(r"Answer \d+", found.text or "")


def test_text_that_cannot_be_stored_is_mended() -> None:
    with Server(behave=always("surrogate")) as server:
        [found] = ask(backend(server), TEXT)
    assert found.text == "half ? a pair"


def test_cloze_sums_the_tokens_of_the_options() -> None:
    with Server() as server:
        [found] = ask(backend(server, api="completions"), CLOZE)
    prompt = "".join(CHATML.render(CLOZE.system, CLOZE.shared, CLOZE.user))
    for option, value, count in zip(CLOZE.options, found.logprob, found.n_tokens, strict=True):
        tokens = tokens_of(option)
        expected = [logprob_of(prompt + "".join(tokens[:i]), token) for i, token in enumerate(tokens)]
        assert count == len(tokens)
        assert value == pytest.approx(sum(expected))
    # Both options start with the same token, which counts once.
    assert found.option_mass == pytest.approx(math.exp(logprob_of(prompt, "I")))
    assert found.prompt_tokens == len(tokens_of(prompt))
    assert found.top_token is not None and found.top_token.startswith("~")


def test_cloze_does_not_depend_on_how_a_server_counts_offsets() -> None:
    found = []
    for echo in ("yes", "begin"):
        with Server(echo=echo) as server:
            found.append(ask(backend(server, api="completions"), CLOZE)[0].logprob)
    assert found[0] == found[1]


def test_cloze_counts_a_space_that_ends_the_prompt_with_the_option() -> None:
    with Server() as server:
        [found] = ask(backend(server, api="completions", chat=PLAIN), CLOZE)
    prompt = "".join(PLAIN.render(CLOZE.system, CLOZE.shared, CLOZE.user))
    assert prompt.endswith("Assistant: ")
    tokens = tokens_of(" I agree.")
    expected = [logprob_of(prompt[:-1] + "".join(tokens[:i]), token) for i, token in enumerate(tokens)]
    assert found.logprob[0] == pytest.approx(sum(expected))


def test_cloze_finds_options_with_characters_beyond_ascii() -> None:
    options = ("Ja, natürlich schön.", "çok")
    with Server() as server:
        [found] = ask(backend(server, api="completions"), Request("cloze", None, "", "Größe?", options))
    assert found.n_tokens == tuple(len(tokens_of(option)) for option in options)


def test_cloze_refuses_a_cell_whose_option_merges_with_the_prompt() -> None:
    glued = CHATML.__class__("glued", "", None, "", "answer", ())
    with Server() as server:
        merged, fine = ask(
            backend(server, api="completions", chat=glued),
            Request("cloze", None, "", "x ", ("yes",)),
            Request("cloze", None, "", "x ", (".",)),
        )
    assert (merged.finish, fine.finish) == ("failed", "scored")
    assert merged.text is not None and "merges" in merged.text


@pytest.mark.parametrize("echo", ["no", "shifted"])
def test_cloze_is_refused_when_the_echo_is_missing_or_belongs_to_other_tokens(echo: str) -> None:
    with Server(echo=echo) as server, pytest.raises(BackendError, match="vLLM"):
        ask(backend(server, api="completions"), CLOZE)


def test_cloze_by_chat_is_refused_before_anything_is_sent() -> None:
    with Server() as server:
        with pytest.raises(BackendError, match="--api completions"):
            ask(backend(server), CLOZE)
        assert server.calls == 0


def test_begin_of_text_is_left_to_the_server() -> None:
    with Server() as server:
        ask(backend(server, api="completions", chat=GEMMA), TEXT)
    assert server.bodies[0]["prompt"].startswith("<start_of_turn>user\n")


def test_info_says_what_is_and_is_not_known() -> None:
    with Server() as server:
        info = backend(server).info
        pinned = backend(server, revision="abc123", api="completions").info
    assert (info.backend, info.schedule, info.chat) == ("openai-compatible", "requests", "server")
    assert (info.model_hash, pinned.model_hash, pinned.chat) == ("toy-1", "abc123", "chatml")


def test_request_keys_tell_every_cell_apart_and_repeat() -> None:
    cells = [
        LETTER,
        TEXT,
        Request("text", "", "", "Say hello.", max_tokens=20),
        Request("text", None, "", "Say hello.", max_tokens=21),
        Request("letter", LETTER.system, LETTER.shared, LETTER.user, ("B", "A", "C")),
    ]
    with Server() as server:
        first = [answer.request for answer in ask(backend(server), *cells)]
        again = [answer.request for answer in ask(backend(server, concurrency=1), *cells)]
        other = [answer.request for answer in ask(backend(server, revision="2"), *cells)]
    assert first == again
    assert len(set(first + other)) == 2 * len(cells)


def test_extra_fields_are_sent_and_part_of_the_key() -> None:
    extra = {"repetition_penalty": 1.0, "chat_template_kwargs": {"enable_thinking": False}}
    with Server() as server:
        [plain] = ask(backend(server), TEXT)
        [told] = ask(backend(server, extra=extra), TEXT)
    assert server.bodies[1] == server.bodies[0] | extra
    assert plain.request != told.request
    with Server(behave=always("status:400 Unrecognized request argument: repetition_penalty")) as server:
        assert ask(backend(server), TEXT)[0].finish == "failed"
        with pytest.raises(BackendError, match="leave it out of --extra"):
            ask(backend(server, extra=extra), TEXT)


def test_values_are_rounded_as_they_are_stored() -> None:
    with Server(labels={"A": -0.123456789012, "B": -2.1}) as server:
        [found] = ask(backend(server), LETTER)
    assert found.logprob[0] == float(np.float32(found.logprob[0]))
    assert found.option_mass == float(np.float32(found.option_mass))


def test_size_is_estimated_from_the_length() -> None:
    with Server() as server:
        model = backend(server)
    size = model.size(Request("text", "x" * 40, "y" * 40, "z" * 20, max_tokens=7))
    assert (size.prefix, size.suffix, size.branches, size.logical) == (20, 5, 7, 32)
    assert model.size(LETTER).head == (LETTER.system, LETTER.shared)
    assert model.size(CLOZE).logical == 7 + 2 + 1 + 7 + 6 + 1


# Order, concurrency, interruption


def test_answers_belong_to_their_places_whatever_order_they_come_in() -> None:
    dice = random.Random(3)
    with Server(delay=lambda body: dice.random() * 0.05) as server:
        answers = list(backend(server).respond(many(40, "text")))
        alone = ask(backend(server, concurrency=1), *many(40, "text"))
    assert [place for place, _ in answers] != list(range(40))
    assert [response for _, response in sorted(answers, key=lambda pair: pair[0])] == alone
    assert len({response.text for response in alone}) > 30


@pytest.mark.parametrize("concurrency", [1, 3, 16])
def test_no_more_calls_than_allowed_are_on_their_way(concurrency: int) -> None:
    # The first calls are answered only once as many as allowed are on their way.
    together = threading.Barrier(concurrency)

    def delay(body: Body) -> float:
        if int(re.findall(r"number (\d+)", prompt_of(body))[0]) < concurrency:
            together.wait(60)
        return 0.01

    with Server(delay=delay) as server:
        ask(backend(server, concurrency=concurrency), *many(3 * concurrency + 4))
        assert server.most_in_flight == concurrency


def test_requests_are_drawn_a_bounded_number_ahead() -> None:
    drawn = 0

    def endless() -> Iterator[Request]:
        nonlocal drawn
        for drawn in itertools.count(1):
            yield Request("letter", None, "", f"Question {drawn}?", ("A", "B"))

    with Server() as server:
        answers = backend(server, concurrency=4).respond(endless())
        for count, _ in enumerate(itertools.islice(answers, 50), start=1):
            assert drawn <= count + 4
        answers.close()  # type: ignore[attr-defined]
        assert server.calls <= drawn


def test_closing_early_cancels_what_is_on_its_way() -> None:
    with Server(
        behave=by_text([("number 0?", "ok")]), delay=lambda b: 0 if "number 0?" in str(b) else 30
    ) as server:
        started = time.monotonic()
        answers = backend(server, timeout=60).respond(many(20))
        assert next(answers)[0] == 0
        answers.close()  # type: ignore[attr-defined]
        # The server would have taken half a minute for every other call.
        assert time.monotonic() - started < 25


def test_an_abandoned_iterator_leaves_no_thread() -> None:
    with Server(delay=lambda b: 0 if "number 0?" in str(b) else 30) as server:
        answers = backend(server, timeout=60).respond(many(20))
        next(answers)
        del answers
        gc.collect()
        assert "openai-compatible" not in [thread.name for thread in threading.enumerate()]


def test_an_interruption_cancels_what_is_on_its_way() -> None:
    with Server(delay=lambda body: 30) as server:
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            ask(backend(server, timeout=60), *many(20))
        timer.join()
        assert server.calls <= 8


def test_it_works_inside_a_running_event_loop() -> None:
    async def cell() -> list[Response]:
        return ask(backend(server), *many(5))

    with Server() as server:
        assert len(asyncio.run(cell())) == 5


def test_a_failing_source_of_requests_is_passed_on() -> None:
    def source() -> Iterator[Request]:
        yield from many(3)
        raise ZeroDivisionError

    with Server() as server, pytest.raises(ZeroDivisionError):
        ask(backend(server), *source())
    with Server() as server, pytest.raises(ZeroDivisionError):
        list(backend(server).respond(source()))


# Trouble that passes

PASSING = {
    "rate limit": "wait:0",
    "rate limit until a date": "wait-date:0",
    "nonsense as pause": "wait:soon",
    "request timeout": "status:408",
    "conflict": "status:409",
    "server error": "status:500",
    "gateway's page": "page:502",
    "truncated JSON": "truncated",
    "cut answer": "cut",
    "wrong schema": "schema",
    "no choices": "empty",
    "positive log-probability": "positive",
    "disconnect": "disconnect",
}


@pytest.mark.parametrize("behaviour", PASSING.values(), ids=PASSING)
def test_passing_trouble_is_repeated_until_it_is_over(behaviour: str) -> None:
    with Server() as server:
        expected = ask(backend(server), LETTER)
    with Server(behave=in_turn(behaviour, behaviour)) as server:
        assert ask(backend(server), LETTER) == expected
        assert server.calls == 3


@pytest.mark.parametrize("behaviour", ["slow:30", "trickle"])
def test_an_answer_beyond_the_timeout_is_asked_for_again(behaviour: str) -> None:
    with Server(behave=in_turn(behaviour)) as server:
        assert ask(backend(server, timeout=0.4), LETTER)[0].finish == "scored"
        assert server.calls == 2


@pytest.mark.attack
def test_a_mixture_under_concurrency_loses_nothing() -> None:
    dice = random.Random(11)
    kinds = [*PASSING.values(), "no-usage", "ok", "ok"]
    requests = [*many(60), *many(30, "text")]
    script = {prompt: [dice.choice(kinds) for _ in range(3)] for prompt in map(str, range(60))}

    def behave(body: Body, before: int) -> str:
        turns = script[re.findall(r"number (\d+)\?", prompt_of(body))[0]]
        # What only spoils log-probabilities leaves a text whole.
        return "ok" if before >= 3 else turns[before]

    with Server() as server:
        expected = ask(backend(server), *requests)
    with Server(behave=behave, delay=lambda body: dice.random() * 0.01) as server:
        model = backend(server, concurrency=6)
        found = ask(model, *requests)
        assert server.most_in_flight <= 6
        assert model.budget.spent.calls == server.calls
    lengths = ("prompt_tokens", "computed_tokens")
    for a, b in zip(found, expected, strict=True):
        # Without `usage` the number of tokens is an estimate.
        assert {k: v for k, v in asdict(a).items() if k not in lengths} == {
            k: v for k, v in asdict(b).items() if k not in lengths
        }


@pytest.mark.parametrize("behaviour", ["wait:1", "wait-date:2"])
def test_a_pause_that_the_server_asks_for_is_kept_by_every_call(behaviour: str) -> None:
    with Server(behave=lambda body, before: behaviour if server.calls == 1 else "ok") as server:
        ask(backend(server, concurrency=1), *many(3))
        # A date has whole seconds, so up to one of them is already over.
        assert server.times[1] - server.times[0] > 0.9


def test_a_pause_beyond_reason_is_reported() -> None:
    with Server(behave=always("wait:86400")) as server, pytest.raises(BackendError, match="asks to wait 86400 s"):
        ask(backend(server), LETTER)


def test_missing_usage_is_estimated() -> None:
    with Server(behave=always("no-usage")) as server:
        [found] = ask(backend(server), LETTER)
    assert found.prompt_tokens == math.ceil(len("You are a baker.Choose a letter.\nIs tea warm?") / 4)


def test_cached_tokens_were_not_computed() -> None:
    with Server(behave=always("cached")) as server:
        [found] = ask(backend(server), LETTER)
    assert found.computed_tokens == 2


# Trouble that stays


@pytest.mark.parametrize(
    "behaviour", ["status:400 flagged by the content filter", "status:422 no", "status:413 too long", "filtered"]
)
@pytest.mark.parametrize("kind", ["letter", "text"])
def test_one_refused_request_does_not_stop_the_others(behaviour: str, kind: str) -> None:
    with Server(behave=by_text([("number 2?", behaviour)])) as server:
        found = ask(backend(server), *many(6, kind))
        assert server.calls == 6
    finishes = [response.finish for response in found]
    assert finishes[2] == "failed"
    assert "failed" not in finishes[:2] + finishes[3:]
    assert found[2].text and len({response.request for response in found}) == 6


def test_a_reason_is_escaped_and_trimmed() -> None:
    with Server(behave=always("status:400 \x1b[31mred\n" + "long " * 200)) as server:
        [found] = ask(backend(server), LETTER)
    assert found.text is not None
    assert found.text.isprintable() and len(found.text) == 300
    assert "\\x1b[31mred\\n" in found.text


def test_an_answer_that_calls_a_tool_is_a_failed_text() -> None:
    with Server(behave=always("tools")) as server:
        [found] = ask(backend(server), TEXT)
    assert found.finish == "failed" and "tool_calls" in (found.text or "")


@pytest.mark.parametrize(
    ("behaviour", "remedy"),
    [
        ("status:401 wrong key", "OPENAI_API_KEY"),
        ("status:402 pay", "credit"),
        ("status:403 not you", "toy-1"),
        ("status:404 no such model", "OPENAI_BASE_URL.*toy-1"),
        ("status:405 no", "OPENAI_BASE_URL"),
        ('error:429 {"message": "quota", "code": "insufficient_quota"}', "credit"),
        ('error:400 {"message": "no", "code": "unsupported_parameter", "param": "max_tokens"}', "another model"),
        ('error:400 {"message": "too many logprobs"}', "--top-logprobs"),
        ("status:500 not supported for models created with logits_all=False", "logits_all"),
    ],
)
def test_what_would_fail_every_request_stops_at_once(behaviour: str, remedy: str) -> None:
    with Server(behave=always(behaviour)) as server:
        with pytest.raises(BackendError, match=remedy) as caught:
            ask(backend(server, concurrency=1), *many(5))
        assert server.calls == 1
        assert f"{server.url}/ answered " in str(caught.value)


def test_a_server_without_logprobs_is_reported() -> None:
    with Server(behave=always("no-logprobs")) as server:
        with pytest.raises(BackendError, match="returns no log-probabilities"):
            ask(backend(server, concurrency=1), LETTER)
        assert server.calls == 2, "this label, and a harmless text"


def test_after_all_retries_what_was_answered_is_yielded_first() -> None:
    down = by_text([("number 9?", "status:500 down"), ("Say hello.", "status:500 down")])
    with Server(behave=down) as server:
        found = []
        with pytest.raises(BackendError, match=r"in 4 attempts; the last: 500 down"):
            for place, _ in backend(server, retries=3, concurrency=4).respond(many(200)):
                found.append(place)
        assert set(range(9)) <= set(found)
        assert server.calls == len(found) + 5


def test_calls_on_their_way_are_yielded_when_another_fails() -> None:
    with Server(
        behave=by_text([("number 0?", "status:401 no")]),
        delay=lambda body: 0.0 if "number 0?" in prompt_of(body) else 0.3,
    ) as server:
        found = []
        with pytest.raises(BackendError, match="401"):
            for place, _ in backend(server, concurrency=4).respond(many(50)):
                found.append(place)
        # What was sent before the refusal was known, and nothing else.
        assert len(found) == server.calls - 1 <= 3


def test_nobody_listens() -> None:
    with Server() as server:
        address = server.url
    model = OpenAICompatible(name="toy", model="toy-1", base_url=address, retries=2)
    with pytest.raises(BackendError, match=r"3 attempts.*connection failed"):
        ask(model, LETTER)
    assert model.budget.spent.tokens_in == 0


# Budget


def test_calls_never_exceed_the_cap() -> None:
    with Server(behave=in_turn("status:500"), delay=lambda body: 0.01) as server:
        model, found = backend(server, budget=Budget(calls=25)), []
        with pytest.raises(BudgetSpent, match="25 of 25 calls"):
            for place, _ in model.respond(many(100)):
                found.append(place)
        assert server.calls == 25 == model.budget.spent.calls
        # Every second call was answered, apart from those whose repetition no longer fitted.
        assert 12 - 8 <= len(found) <= 12


@pytest.mark.parametrize("cap", [0, 100, 1000, pytest.param(3000, marks=pytest.mark.attack)])
def test_tokens_never_exceed_the_cap(cap: int) -> None:
    with Server(delay=lambda body: 0.005) as server:
        model, found = backend(server, budget=Budget(tokens=cap)), []
        with pytest.raises(BudgetSpent, match=f"of {cap} tokens"):
            for place, _ in model.respond(many(1000, "text")):
                found.append(place)
        spent = model.budget.spent
        assert server.tokens == spent.tokens_in + spent.tokens_out <= cap
        assert len(found) == server.calls
        # What is left over is less than the upper bound of one call.
        assert cap - server.tokens < 120


def test_money_never_exceeds_the_cap() -> None:
    with Server() as server:
        model = backend(server, budget=Budget(money=0.01, price_in=2.0, price_out=8.0))
        with pytest.raises(BudgetSpent, match="in money"):
            ask(model, *many(2000, "text"))
        spent = model.budget.spent
    assert spent.money == pytest.approx((spent.tokens_in * 2 + spent.tokens_out * 8) / 1e6)
    assert 0.009 < spent.money <= 0.01


def test_a_server_whose_template_adds_text_is_learned_from() -> None:
    """Turn markers that the backend cannot see must not break the cap more than once."""
    with Server() as server:
        original = tokens_of("<|im_start|>user\n<|im_end|>\n")
        model = backend(server, budget=Budget(tokens=500), concurrency=1)
        with pytest.raises(BudgetSpent):
            ask(model, *[Request("letter", None, "", "?", ("A",)) for _ in range(500)])
        assert len(original) > 1 and server.tokens <= 500


def test_usage_that_is_not_reported_counts_with_its_upper_bound() -> None:
    with Server(behave=always("no-usage")) as server:
        model = backend(server)
        ask(model, LETTER)
        assert model.budget.spent.tokens_in > server.tokens
    with Server(behave=in_turn("status:500")) as server:
        model = backend(server)
        ask(model, LETTER)
        assert (model.budget.spent.calls, model.budget.spent.tokens_in) == (2, server.tokens - 1)


def test_without_a_budget_usage_is_counted() -> None:
    with Server() as server:
        model = backend(server)
        ask(model, *many(10, "text"))
        spent = model.budget.spent
        assert (spent.calls, spent.tokens_in + spent.tokens_out, spent.money) == (10, server.tokens, 0.0)


def test_a_budget_lasts_over_several_recordings() -> None:
    with Server() as server:
        model = backend(server, budget=Budget(calls=5))
        ask(model, *many(5))
        with pytest.raises(BudgetSpent):
            ask(model, *many(1))
        assert server.calls == 5


@pytest.mark.parametrize("values", [{"calls": -1}, {"price_in": math.nan}, {"money": 1.0}, {"tokens": -5}])
def test_senseless_caps_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match="Budget"):
        Budget(**values)


def test_price() -> None:
    assert Budget(price_in=1.0, price_out=4.0).price(1_000_000, 500_000) == 3.0
    assert Budget().spent == Spent()


# Keys and parameters

LEAKS = {
    **PASSING,
    **{f"shown by {status}": f"leak:{status}" for status in (400, 401, 403, 404, 422, 429, 500)},
    "timeout": "slow:30",
    "filtered": "filtered",
    "no log-probabilities": "no-logprobs",
}


@pytest.mark.parametrize("behaviour", LEAKS.values(), ids=LEAKS)
def test_the_key_is_in_no_error_log_or_traceback(behaviour: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    shown = []
    with Server(behave=always(behaviour)) as server:
        model = backend(server, timeout=0.3, retries=1)
        try:
            shown += [repr(answer) for answer in ask(model, LETTER)]
        except BackendError as error:
            chain: BaseException | None = error
            while chain is not None:
                found = traceback.TracebackException.from_exception(chain, capture_locals=True)
                shown += [*found.format(), repr(chain)]
                chain = chain.__cause__ or chain.__context__
        assert server.keys == [f"Bearer {CANARY}"] * server.calls
    shown += [caplog.text, repr(model), str(model), repr(vars(model)), repr(model.budget)]
    assert shown and CANARY not in "".join(shown)


def test_an_address_with_a_password_is_shown_without_it() -> None:
    with Server(behave=always("status:401 no")) as server:
        address = server.url.replace("http://", f"http://user:{CANARY}@")
        with pytest.raises(BackendError) as caught:
            ask(OpenAICompatible(name="toy", model="toy-1", base_url=address), LETTER)
    assert CANARY not in str(caught.value) and "127.0.0.1" in str(caught.value)


def test_a_key_with_a_line_break_is_refused_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY + "\n")
    with pytest.raises(BackendError, match="line break") as caught:
        OpenAICompatible(name="toy", model="toy-1")
    assert CANARY not in str(caught.value)


def test_a_local_server_needs_no_key_and_a_hosted_model_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with Server() as server:
        assert ask(backend(server), LETTER)[0].finish == "scored"
    with pytest.raises(BackendError, match="OPENAI_API_KEY"):
        OpenAICompatible(name="toy", model="toy-1")


@pytest.mark.parametrize(
    "values",
    [
        {"api": "assistants"},
        {"api": "completions"},
        {"concurrency": 0},
        {"retries": -1},
        {"timeout": 0.0},
        {"top_logprobs": 0},
        {"top_logprobs": 21},
    ],
)
def test_senseless_parameters_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=next(iter(values))):
        OpenAICompatible(**({"name": "toy", "model": "toy-1"} | values))


@pytest.mark.parametrize(
    "request_",
    [
        Request("rank", None, "", "Hello.", ("A",)),
        Request("letter", None, "", "Hello.", ("A", "")),
        Request("letter", None, "", "Hello."),
        Request("text", None, "", "Hello."),
    ],
)
def test_senseless_requests_are_refused_before_anything_is_sent(request_: Request) -> None:
    with Server() as server:
        with pytest.raises(BackendError):
            ask(backend(server), request_)
        assert server.calls == 0
