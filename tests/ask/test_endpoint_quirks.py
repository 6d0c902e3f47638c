"""What real servers make of the protocol: read for what it says, and never taken for the model's answer."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from persona_studies.ask.backends import Request, Response
from persona_studies.ask.backends.endpoint import address, answers, calls, tokens
from persona_studies.ask.backends.openai_compatible import OpenAICompatible
from persona_studies.ask.chat import CHATML, PLAIN
from persona_studies.errors import BackendError, ParameterError
from tests.kit.misbehaving_server import CANARY, Body, Server, always, backend, by_text

pytest.importorskip("openai", reason="extra `api` is not installed")
pytestmark = pytest.mark.usefixtures("endpoint")

TEXT = Request("text", None, "", "Say hello.", max_tokens=20)
LETTER = Request("letter", "You are a baker.", "", "Is tea warm?", ("A", "B"))
USAGE = {"prompt_tokens": 9, "completion_tokens": 3}


def asked(raw: str, request: Request = TEXT, **how: Any) -> Response:
    with Server(behave=always(f"raw:{raw}")) as server:
        [(_, found)] = backend(server, **how).respond([request])
    return found


def chat(message: Any, **choice: Any) -> str:
    usage = choice.pop("usage", USAGE)
    return json.dumps(
        {"choices": [{"index": 0, "finish_reason": "stop", "message": message, **choice}], "usage": usage}
    )


def said(content: Any, **choice: Any) -> str:
    return chat({"role": "assistant", "content": content}, **choice)


def first(*alternatives: Any, token: str = "A") -> str:
    entry = {"token": token, "logprob": -0.5, "top_logprobs": list(alternatives)}
    return said(token, logprobs={"content": [entry]})


def top(token: Any, logprob: Any = -0.5, **more: Any) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, **more}


STREAM = "".join(
    f"data: {json.dumps(chunk)}\n\n"
    for chunk in (
        {"choices": [], "prompt_filter_results": []},
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]},
        {"choices": [{"index": 0, "delta": {"content": "Hel"}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {"content": "lo."}, "finish_reason": "stop"}]},
        {"choices": [], "usage": USAGE},
    )
)
GOOD = {
    "parts": said([{"type": "text", "text": "Hel"}, {"type": "output_text", "text": "lo."}]),
    "parts of reasoning": said([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, "Hello."]),
    "one part": said({"type": "text", "text": "Hello."}),
    "part in a part": said([{"type": "text", "text": {"value": "Hello."}}]),
    "text instead of a message": json.dumps({"choices": [{"text": "Hello.", "finish_reason": "stop"}]}),
    "a delta": json.dumps({"choices": [{"delta": {"content": "Hello."}, "finish_reason": "stop"}]}),
    "a choice that is not a list": json.dumps({"choices": {"message": {"content": "Hello."}}}),
    "reasoning beside it": chat({"content": "Hello.", "reasoning_content": "hm"}),
    "thought inside": said("<think>\nhm, hello?\n</think>\n\nHello."),
    "an empty thought": said("<think></think>Hello."),
    "a byte order mark": "\ufeff" + said("Hello."),
    "blank lines before": "\n\n  " + said("Hello."),
    "a null error": json.dumps(json.loads(said("Hello.")) | {"error": None}),
    "a null refusal": chat({"content": "Hello.", "refusal": None, "tool_calls": []}),
    "a stream": STREAM + "data: [DONE]\n\n",
    "a stream with comments": ": OPENROUTER PROCESSING\n\n" + STREAM,
    "a stream with events": STREAM.replace("data:", "event: message\ndata:"),
    "lines of JSON": STREAM.replace("data: ", "").replace("\n\n", "\n"),
    "a stream without pieces": 'data: {"choices": [{"delta": "Hello.", "finish_reason": "stop"}]}\n\n',
    "invisible characters before": said("\u200b\ufeffHello."),
    "thoughts without their beginning": said("hm, (B)?\n</think>\n\nHello."),
    "thoughts of Magistral": said("[THINK]hm[/THINK]Hello."),
    "thoughts of Kimi": said("◁think▷hm◁/think▷Hello."),
    "thoughts of Seed": said("<seed:think>hm</seed:think>Hello."),
    "thoughts of Command A": said(
        "<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>Hello.<|END_RESPONSE|><|END_OF_TURN_TOKEN|>"
    ),
    "two thoughts": said("<think>hm</think><think>hm</think>Hello."),
    "channels": said(
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Hello.<|return|>"
    ),
    "channels without marks": said("analysisHm, (B)?assistantfinalHello."),
    "marks of the turn": said("<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"),
    "a turn of the user behind it": said("Hello.<|im_end|>\n<|im_start|>user\nNo, (B)", finish_reason="length"),
    "an end marker": said("Hello.</s>"),
    "a comment before JSON": ": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n" + said("Hello."),
    "a comment behind JSON": said("Hello.") + "\n: done\n",
    "the end of a stream behind JSON": said("Hello.") + "\ndata: [DONE]\n",
    "an error without words": json.dumps(json.loads(said("Hello.")) | {"error": {"code": 0, "message": ""}}),
    "an error that is success": json.dumps(json.loads(said("Hello.")) | {"error": {"code": "0", "message": "OK"}}),
    "blank reasoning": chat({"content": "Hello.", "reasoning_content": "\n\n"}),
    "thoughts in capitals": said("<THINK>hm</THINK>Hello."),
    "thoughts as control tokens": said("<|think|>hm<|/think|>Hello."),
    "more thoughts": said("<thoughts>hm</thoughts>Hello."),
    "what is left of a mark": said("assistant\n\nHello."),
    "usage null": said("Hello.", usage=None),
    "usage -1": said("Hello.", usage={"prompt_tokens": -1, "completion_tokens": -1}),
    "usage as text": said("Hello.", usage={"prompt_tokens": "9", "completion_tokens": "3"}),
    "usage 0": said("Hello.", usage={"prompt_tokens": 0, "completion_tokens": 0}),
    "usage nonsense": said("Hello.", usage="none"),
    "usage without a prompt": said("Hello.", usage={"total_tokens": 12}),
}


@pytest.mark.parametrize("raw", GOOD.values(), ids=GOOD)
def test_a_reply_is_read_in_every_form(raw: str) -> None:
    found = asked(raw)
    assert (found.text, found.finish) == ("Hello.", "stop")
    assert found.prompt_tokens > 0 and found.computed_tokens > 0


@pytest.mark.parametrize(
    "ended", ["stop", "eos", "eos_token", "EOS", "STOP", "end_turn", "stop_sequence", None, "", "x"]
)
def test_a_text_counts_whatever_its_end_is_called(ended: str | None) -> None:
    assert (asked(said("Hello.", finish_reason=ended)).text, asked(said("Hello.", finish_reason=ended)).finish) == (
        "Hello.",
        "stop",
    )


@pytest.mark.parametrize("ended", ["length", "max_tokens", "MAX_TOKENS", "model_length", {"type": "length"}])
def test_a_cut_is_a_cut_by_any_name(ended: Any) -> None:
    assert asked(said("Hello", finish_reason=ended)).finish == "length"


def test_an_end_without_a_name_after_all_tokens_is_a_cut() -> None:
    full = {"prompt_tokens": 9, "completion_tokens": 20}
    assert asked(said("Hello", finish_reason=None, usage=full)).finish == "length"
    assert asked(said("Hello", finish_reason="stop", usage=full)).finish == "stop"


NO_ANSWER = {
    "null beside reasoning": (chat({"content": None, "reasoning_content": "hm"}), "only reasoning.*--extra"),
    "empty beside reasoning": (chat({"content": "", "reasoning": "hm"}), "only reasoning.*--extra"),
    "reasoning to the end": (
        chat({"content": "", "reasoning_content": "hm"}, finish_reason="length"),
        "reasoning used up all 20 tokens.*enable_thinking",
    ),
    "a thought without an end": (said("<think>hm, hello", finish_reason="length"), "reasoning used up all 20"),
    "thoughts without an end": (said("[THINK]hm, hello", finish_reason="length"), "reasoning used up all 20"),
    "no channel of answers": (said("<|channel|>analysis<|message|>hm, hello"), "only reasoning"),
    "no channel of answers and no marks": (said("analysisHm, hello"), "only reasoning"),
    "the prompt and more": (said("Say hello. " * 20), "40 words where 20 tokens.*Say hello"),
    "hidden reasoning": (said("", usage={"prompt_tokens": 9, "completion_tokens": 20}), "counts 20 tokens"),
    "a tool": (chat({"content": None, "tool_calls": [{}]}, finish_reason="tool_calls"), "tool_calls"),
    "withheld": (said(None, finish_reason="SAFETY"), "content filter .*SAFETY"),
}


@pytest.mark.parametrize(("raw", "reason"), NO_ANSWER.values(), ids=NO_ANSWER)
def test_what_is_no_answer_is_a_failed_cell_with_the_reason(raw: str, reason: str) -> None:
    found = asked(raw)
    assert found.finish == "failed" and re.search(reason, found.text or "")


def test_a_model_may_say_nothing_and_may_refuse() -> None:
    assert (asked(said("", usage=None)).text, asked(said("", usage=None)).finish) == ("", "stop")
    for nothing in (None, "", [], [{"type": "refusal", "refusal": "I will not."}]):
        assert asked(chat({"content": nothing, "refusal": "I will not."}, usage=None)).text == "I will not."


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1e"])
def test_a_character_that_ends_lines_elsewhere_ends_none_in_a_stream(character: str) -> None:
    text = f"One{character}two."
    whole = json.dumps({"choices": [{"delta": {"content": text}, "finish_reason": "stop"}]}, ensure_ascii=False)
    whole = whole.replace("\x0b", "\\u000b").replace("\x0c", "\\u000c").replace("\x1e", "\\u001e")
    assert answers.read(f"data: {whole}\r\n\r\ndata: [DONE]\r\n".encode()).text == text
    assert answers.read(f"{whole}\n{whole}\n".encode()).text == text * 2


def test_bytes_that_are_no_utf_8_are_no_answer() -> None:
    """A replacement character in their place would be the model's answer for ever."""
    assert answers.read(said("Hello.").encode("utf-16")).text == "Hello."
    latin = json.dumps(json.loads(said("Käse.")), ensure_ascii=False).encode("latin-1")
    with pytest.raises(answers.MalformedError, match="no text in UTF-8, at"):
        answers.read(latin)


def test_what_a_server_writes_behind_a_stop_marker_that_it_does_not_know_is_cut_off() -> None:
    text = json.dumps({"choices": [{"text": "Hello.\nUser: And now?", "finish_reason": "length"}]})
    found = asked(text, api="completions", chat=PLAIN)
    assert (found.text, found.finish) == ("Hello.", "stop")


@pytest.mark.parametrize(
    ("token", "text", "agrees"),
    [
        ("A", "A", True),
        (" A", "A", True),
        ("A", "A) tea", True),
        ("An", "A", True),
        ("\n", "A", True),
        ("\ufffd", "é", True),
        ("token_id:32", "A", True),
        ("A", "", True),
        ("Hm", "A", False),
        ("<|im_start|>", "A", False),
        ("user", "B", False),
        ("I", "Sorry, " * 40, False),
    ],
)
def test_log_probabilities_belong_to_the_answer(token: str, text: str, agrees: bool) -> None:
    """A server that lists those of the thoughts, of a mark or of the prompt would give every label a number."""
    listed = [top("A", -1.0), top("B", -2.0)]
    entry = {"content": [{"token": token, "logprob": -1.5, "top_logprobs": listed}]}
    found = asked(said(text, logprobs=entry), LETTER)
    assert (found.finish == "scored") == agrees, found.text
    assert agrees or re.search(r"the answer opens with .*\"enable_thinking\": false}}'$", found.text or "")


STOPS = {
    "an error in an answer of 200": (
        '{"error": {"message": "model is not loaded"}}',
        "200 with an error.*not loaded",
    ),
    "an error as text": (
        '{"error": "Unexpected endpoint or method. (POST /x)"}',
        "Unexpected endpoint.*OPENAI_BASE",
    ),
    "an error in a list": (
        '[{"error": {"code": 404, "message": "no such thing", "status": "NOT_FOUND"}}]',
        "no such",
    ),
    "an object called error": ('{"object": "error", "message": "bad model", "code": 404}', "bad model.*toy-1"),
    "a detail": ('{"detail": "Not Found"}', "Not Found"),
    "an error in the choice": ('{"choices": [{"error": {"code": 401, "message": "who?"}}]}', "who.*OPENAI_API_KEY"),
    "an error in a stream": ('data: {"error": {"message": "engine died", "code": 500}}\n\n', "engine died"),
    "the provider's words": (
        '{"error": {"message": "Provider returned error", "code": 502, "metadata": {"raw": "gpu on fire"}}}',
        "gpu on fire",
    ),
    "a page": ("<!DOCTYPE html><title>Open WebUI</title>", r"page instead of JSON \(Open WebUI\).*OPENAI_BASE_URL"),
    "no choices": ('{"id": "x", "choices": []}', "without choices"),
    "choices null": ('{"id": "x", "choices": null}', "without choices"),
    "nothing": ("", "empty answer"),
    "a word": ("ok", "not JSON: ok"),
    "a number": ("17", "no object: 17"),
    "a stream that ends early": (
        'data: {"choices": [{"delta": {"content": "Hel"}, "finish_reason": null}]}\n\n',
        "breaks off",
    ),
    "a stream of something else": ('data: {"choices": 7}\n\n', "stream without an answer"),
    "a chat of Ollama": ('{"message": {"role": "assistant", "content": "Hi"}, "done": true}', "without choices"),
    "null content": (said(None, usage=None), "content is null"),
    "broken off": (said("He", finish_reason="abort"), "broke the answer off"),
}


@pytest.mark.parametrize(("raw", "words"), STOPS.values(), ids=STOPS)
def test_what_is_no_answer_at_all_stops_with_the_servers_words(raw: str, words: str) -> None:
    with pytest.raises(BackendError, match=words) as caught:
        asked(raw, retries=1)
    assert "\n" not in str(caught.value) and CANARY not in str(caught.value)


def test_without_a_version_in_the_address_the_usual_one_is_named() -> None:
    with Server(
        behave=always('raw:{"error": "Unexpected endpoint or method. (POST /chat/completions)"}')
    ) as server:
        bare = server.url.removesuffix("/v1")
        with pytest.raises(BackendError, match=re.escape(f"OPENAI_BASE_URL={bare}/v1")):
            list(backend(server, base_url=bare).respond([TEXT]))
        assert server.calls == 1


@pytest.mark.parametrize("behaviour", ["gzip:not packed at all", f"gzip:{json.dumps(USAGE)}", "status:204", "raw:"])
def test_what_cannot_be_unpacked_or_is_empty_ends_in_one_line(behaviour: str) -> None:
    with Server(behave=always(behaviour)) as server, pytest.raises(BackendError, match="2 attempts") as caught:
        list(backend(server, retries=1).respond([TEXT]))
    assert "\n" not in str(caught.value) and "kept" in str(caught.value)


def named(name: str) -> str:
    return json.dumps(json.loads(said("Hello.")) | {"model": name})


def test_a_server_that_loads_another_model_meanwhile_stops_the_recording() -> None:
    def behave(body: Body, before: int) -> str:
        return f"raw:{named('toy-2-q4.gguf' if 'other' in str(body) else 'toy-1-2026-01-01')}"

    other = Request("text", None, "", "Say something other.", max_tokens=20)
    with Server(behave=behave) as server:
        model = backend(server, concurrency=1)
        # A dated name, or a file's, is not another model as long as it stays.
        assert [found.text for _, found in model.respond([TEXT, TEXT])] == ["Hello."] * 2
        with pytest.raises(BackendError, match=r"'toy-2-q4.gguf', and before as 'toy-1-2026-01-01'.*--name"):
            list(model.respond([other]))
        assert [found.text for _, found in model.respond([TEXT])] == ["Hello."]


def test_of_several_choices_the_first_is_the_answer() -> None:
    other, first_one = (json.loads(said(text))["choices"][0] for text in ("Not this.", "Hello."))
    assert asked(json.dumps({"choices": [other | {"index": 1}, first_one]})).text == "Hello."


def test_a_redirect_is_shown_and_not_followed() -> None:
    with Server(behave=always("moved:https://elsewhere.example/api/v1/chat/completions")) as server:
        with pytest.raises(BackendError, match=r"a redirect. .*OPENAI_BASE_URL=https://elsewhere.example/api/v1"):
            list(backend(server).respond([TEXT]))
        assert server.calls == 1


SPELLINGS = {
    "plain": (top("A"), top(" A", -1.5)),
    "sentencepiece": (top("A"), top("\u2581A", -1.5)),
    "byte pairs": (top("A"), top("\u0120A", -1.5)),
    "bytes beside": (top("?", bytes=[65]), top("?", -1.5, bytes=[32, 65])),
    "bytes beside an id": (top("token_id:32", bytes=[65]), top("token_id:362", -1.5, bytes=[32, 65])),
    "bytes beside a number": (top(32, bytes=[65]), top(362, -1.5, bytes=[32, 65])),
    "byte tokens": (top("<0x41>"), top(" A", -1.5)),
    "escaped bytes": (top("bytes:\\x41"), top("bytes:\\x20\\x41", -1.5)),
    "numbers as text": (top("A", "-0.5"), top(" A", "-1.5")),
    "probabilities": ({"token": "A", "prob": math.exp(-0.5)}, {"token": " A", "prob": math.exp(-1.5)}),
}


@pytest.mark.parametrize("entries", SPELLINGS.values(), ids=SPELLINGS)
def test_a_label_is_found_in_every_spelling(entries: tuple[dict[str, Any], ...]) -> None:
    found = asked(first(*entries, top("B", -3.0)), LETTER)
    assert found.logprob == pytest.approx((math.log(math.exp(-0.5) + math.exp(-1.5)), -3.0))


@pytest.mark.parametrize("value", [math.nan, None, math.inf, "Infinity", -math.inf, -9999, "x"])
def test_what_is_no_log_probability_is_censored(value: Any) -> None:
    found = asked(first(top("A"), top("B", value)), LETTER)
    assert found.logprob[0] == pytest.approx(-0.5) and math.isnan(found.logprob[1])


WITHOUT = {
    "null": (said("A", logprobs=None), "returns no log-probabilities.*--measures text"),
    "absent": (said("A"), "returns no log-probabilities"),
    "empty": (said("A", logprobs={}), "returns no log-probabilities"),
    "zeros": (first(*(top(t, 0.0) for t in "ABC")), "add up to 3.00"),
    "above 0": (first(top("A", 0.7)), "above 0"),
    "only the token": (said("A", logprobs={"content": [top("A", 0.0)]}), "no alternatives.*--measures text"),
    "nothing known": (said("A", logprobs={"content": [top("A", None)]}), "without a log-probability"),
    "not of the token": (first(top("A", None), top("B", -3.0)).replace("-0.5", "null"), "'A', without a log-prob"),
}


@pytest.mark.parametrize(("raw", "words"), WITHOUT.values(), ids=WITHOUT)
def test_letters_stop_where_there_are_no_log_probabilities(raw: str, words: str) -> None:
    with pytest.raises(BackendError, match=words):
        asked(raw, LETTER, retries=1)


def test_letters_of_the_reasoning_are_not_those_of_the_answer() -> None:
    thought = json.loads(first(top("A"), top("B", -1.0)))
    thought["choices"][0]["message"] = {"content": None, "reasoning_content": "A"}
    found = asked(json.dumps(thought), LETTER)
    assert found.finish == "failed" and re.search(r"belongs to the reasoning.*enable_thinking", found.text or "")


def test_older_forms_of_log_probabilities() -> None:
    mapped = {"content": [top("A", top_logprobs={"A": -0.5, "B": -1.0})]}
    assert asked(said("A", logprobs=mapped), LETTER).logprob == pytest.approx((-0.5, -1.0))
    listed = [top("A"), top("B", -1.0)]
    lists = {"tokens": ["A"], "token_logprobs": [-0.5], "top_logprobs": [listed]}
    assert asked(said("A", logprobs=lists), LETTER).logprob == pytest.approx((-0.5, -1.0))
    probs = [{"tok_str": "A", "prob": 0.5}, {"tok_str": "B", "prob": 0.25}]
    older = said("A", completion_probabilities=[{"content": "A", "probs": probs}])
    assert asked(older, LETTER).logprob == pytest.approx((math.log(0.5), math.log(0.25)))


ODD: list[Any] = [None, 0, -1, 1e999, "", "x", [], {}, [None], {"a": 1}, True, "\ud800", ["a", {"text": 5}]]


def spoilt(found: Any) -> Iterator[Any]:
    """Yield an object with each odd value in each place."""
    yield from ODD
    for key, value in found.items() if isinstance(found, dict) else enumerate(found) if found else ():
        for other in spoilt(value) if isinstance(value, dict | list) else ODD:
            yield {**found, key: other} if isinstance(found, dict) else [*found[:key], other, *found[key + 1 :]]


@pytest.mark.attack
def test_any_value_in_any_place_is_an_answer_or_one_of_three_errors() -> None:
    wholes = [
        json.loads(raw) for raw in (first(top("A", bytes=[65]), top("B", -1.0)), said("Hello."), GOOD["a delta"])
    ]
    for found in (other for whole in wholes for other in spoilt(whole)):
        for raw in (json.dumps(found), f"data: {json.dumps(found)}\n\ndata: [DONE]\n\n"):
            with suppress(answers.MalformedError, answers.ServerError, tokens.NoLogprobsError):
                for position in answers.read(raw.encode()).tokens or ():
                    tokens.check(position)


# Refused fields


def refusing(name: str, message: str, status: int = 400) -> Any:
    """Refuse a field of a call, or a role."""

    def behave(body: Body, before: int) -> str:
        roles = [m["role"] for m in body.get("messages", ())]
        return f"status:{status} {message}" if name in body or name in roles else "ok"

    return behave


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "max_tokens",
            "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.",
        ),
        ("max_tokens", "Unrecognized request argument supplied: max_tokens"),
        ("seed", "Extra inputs are not permitted: seed"),
    ],
)
def test_a_field_by_another_name_is_spelled_so(name: str, message: str) -> None:
    with Server(behave=refusing(name, message)) as server:
        model = backend(server, concurrency=1)
        answers = dict(model.respond([TEXT, TEXT, TEXT]))
        assert [answers[place].finish for place in range(3)] == ["stop"] * 3
        assert server.calls == 4
        assert all(name not in body for body in server.bodies[1:])
        if name == "max_tokens":
            assert server.bodies[-1]["max_completion_tokens"] == 20


def test_a_server_with_a_least_number_of_tokens_is_asked_for_so_many() -> None:
    def least(body: Body, before: int) -> str:
        said = f"Invalid 'max_output_tokens': below minimum value. Expected a value >= 16, got {body['max_tokens']}"
        return "ok" if body["max_tokens"] >= 16 else f"status:400 {said}"

    with Server(behave=least) as server:
        model = backend(server, concurrency=1)
        assert model.interface().kinds == ("letter", "text")
        assert [found.finish for _, found in model.respond([LETTER, LETTER])] == ["scored"] * 2
    assert [body["max_tokens"] for body in server.bodies[-2:]] == [16, 16]


BLOCKED = {
    "empty choices": '{"choices": [], "usage": null}',
    "no message": '{"choices": [{"finish_reason": "content_filter"}]}',
    "no content and no log-probabilities": chat({"role": "assistant"}),
    "an error inside": '{"error": {"message": "Provider returned error", "code": 502}}',
}


@pytest.mark.parametrize("request_", [TEXT, LETTER])
@pytest.mark.parametrize("raw", BLOCKED.values(), ids=BLOCKED)
def test_a_request_that_the_server_cannot_answer_does_not_keep_the_others_from_it(
    raw: str, request_: Request
) -> None:
    blocked = replace(request_, user="Something that is blocked.")
    with Server(behave=by_text([("is blocked", f"raw:{raw}")])) as server:
        found = dict(backend(server, retries=1).respond([request_, blocked, request_]))
        assert [found[place].finish == "failed" for place in range(3)] == [False, True, False]
        assert found[1].text


@pytest.mark.parametrize("behaviour", ["status:500 bad slot", "page:503", "disconnect", "truncated"])
def test_a_failure_of_one_request_only_fails_that_one(behaviour: str) -> None:
    with Server(behave=by_text([("laim 3", behaviour)])) as server:
        asked_for = [replace(TEXT, user=f"Claim {n}.") for n in range(6)]
        found = dict(backend(server, retries=1).respond(asked_for))
    assert [place for place in range(6) if found[place].finish == "failed"] == [3]


def test_limits_by_the_minute_are_outwaited(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def pause(session: object, seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(calls, "BACKOFF", 0.5)
    monkeypatch.setattr(calls.Session, "_pause", pause)
    with Server(behave=always("status:429 3 requests per minute")) as server, pytest.raises(BackendError):
        list(backend(server).respond([TEXT]))
    assert sum(waits) > 60


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("System role not supported", 400),
        ("Conversation roles must alternate user/assistant/user/assistant/...", 400),
        ("Developer instruction is not enabled for models/gemma-3-1b-it", 400),
        ("Only user and assistant roles are supported!", 500),
        ("messages[0].role: unknown variant `system`, expected `user`", 422),
        ("'system' is not a valid role; does not support system prompts", 400),
    ],
)
def test_a_refused_system_message_names_the_way_out(message: str, status: int) -> None:
    with Server(behave=refusing("system", message, status)) as server:
        with pytest.raises(BackendError, match="--system-role user") as caught:
            list(backend(server).respond([LETTER]))
        assert message[:20] in str(caught.value)
        folded = backend(server, system_role="user")
        [(_, found)] = folded.respond([LETTER])
    assert found.finish == "scored"
    assert server.bodies[-1]["messages"] == [{"role": "user", "content": "You are a baker.\n\nIs tea warm?"}]
    assert folded.info.chat == "server, persona in the user turn"
    assert backend(server).info.chat == "server"


# What an endpoint can answer


def test_a_chat_with_alternatives_answers_letters_and_words() -> None:
    with Server() as server:
        found = backend(server).interface()
    assert found.kinds == ("letter", "text") and "completions" in found.why_not["cloze"]


@pytest.mark.parametrize("raw", [said("A"), said("A", logprobs={"content": [top("A", -0.1)]})])
def test_a_chat_without_alternatives_answers_words(raw: str) -> None:
    with Server(behave=always(f"raw:{raw}")) as server:
        found = backend(server).interface()
    assert found.kinds == ("text",) and "--measures text" in found.why_not["letter"]


def test_a_chat_that_refuses_log_probabilities_answers_words() -> None:
    with Server(behave=refusing("logprobs", "logprobs is not supported by this model")) as server:
        assert backend(server).interface().kinds == ("text",)


def test_a_number_of_alternatives_that_is_too_large_is_named() -> None:
    def few(body: Body, before: int) -> str:
        return "ok" if body.get("top_logprobs", 0) <= 5 else "status:400 top_logprobs must be at most 5"

    with Server(behave=few) as server:
        with pytest.raises(BackendError, match=r"at most 5.*--top-logprobs 5"):
            backend(server).interface()
        assert backend(server, top_logprobs=5).interface().kinds == ("letter", "text")


def test_completions_answer_everything_where_the_prompt_comes_back() -> None:
    with Server() as server:
        assert backend(server, api="completions", chat=CHATML).interface().kinds == ("cloze", "letter", "text")
    with Server(echo="no") as server:
        found = backend(server, api="completions", chat=CHATML).interface()
    assert found.kinds == ("letter", "text") and "vLLM" in found.why_not["cloze"]


def test_a_system_message_that_is_dropped_is_noticed() -> None:
    def counted(body: Body, before: int) -> str:
        words = sum(len(m["content"].split()) for m in body["messages"] if m["role"] == "user")
        return f"raw:{said('A', usage={'prompt_tokens': words, 'completion_tokens': 1})}"

    with Server(behave=counted) as server:
        with pytest.raises(BackendError, match=r"drops the system message.*--system-role user"):
            backend(server).interface()
        assert backend(server, system_role="user").interface().kinds == ("text",)
    # A server that always counts alike says nothing about it.
    with Server(behave=always(f"raw:{said('A')}")) as server:
        assert backend(server).interface().kinds == ("text",)


def test_a_system_text_that_the_server_adds_is_told() -> None:
    def counted(default: int, marks: int) -> Any:
        def behave(body: Body, before: int) -> str:
            words = sum(len(m["content"].split()) + marks for m in body["messages"])
            words += default if body["messages"][0]["role"] != "system" else 0
            return f"raw:{said('A', usage={'prompt_tokens': words, 'completion_tokens': 1})}"

        return behave

    with Server(behave=counted(12, 4)) as server:
        note = backend(server).interface().note
        assert note and "a system text of its own" in note and "--api completions" in note
        assert backend(server, system_role="user").interface().note is None
    with Server(behave=counted(0, 4)) as server:
        assert backend(server).interface().note is None


@pytest.mark.parametrize("role", ["system", "user"])
def test_a_server_that_sends_the_prompt_back_is_refused(role: Any) -> None:
    def behave(body: Body, before: int) -> str:
        return f"raw:{said(' '.join(m['content'] for m in body['messages']) + ' A')}"

    with Server(behave=behave) as server, pytest.raises(BackendError, match=r"sends more than the reply.*baker"):
        backend(server, system_role=role).interface()


@pytest.mark.parametrize("behaviour", ["status:401 no", "status:404 no such model", "status:400 bad", "page:200"])
def test_an_endpoint_that_answers_nothing_is_refused(behaviour: str) -> None:
    with Server(behave=always(behaviour)) as server, pytest.raises(BackendError):
        backend(server).interface()


# The address and the key


class TestAddress:
    MENDED: ClassVar = {
        "  http://localhost:8080/v1  ": "http://localhost:8080/v1",
        '"http://localhost:8080/v1"': "http://localhost:8080/v1",
        "'http://localhost:8080/v1/'": "http://localhost:8080/v1",
        "http://localhost:8080/v1/chat/completions": "http://localhost:8080/v1",
        "https://host/api/v1/models": "https://host/api/v1",
    }
    REFUSED: ClassVar = {
        "": "is empty",
        "   ": "is empty",
        '""': "is empty",
        "localhost:8080/v1": "no scheme; write http://localhost:8080/v1",
        "api.example.com/v1": "no scheme; write https://api.example.com/v1",
        "ftp://host/v1": "must be http or https",
        "http://": "names no host",
        "http://host:notaport/v1": "is not an address",
        "http://ho st/v1": "blank",
        "http://host/v1?api-version=2024": "behind the path",
    }

    @pytest.mark.parametrize(("given", "mended"), MENDED.items())
    def test_mended(self, given: str, mended: str, monkeypatch: pytest.MonkeyPatch) -> None:
        assert address.checked(given) == mended
        monkeypatch.setenv("OPENAI_BASE_URL", given)
        assert OpenAICompatible(name="toy", model="toy-1").address == mended

    @pytest.mark.parametrize(("given", "words"), REFUSED.items())
    def test_refused_in_one_line_at_once(self, given: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_BASE_URL", given)
        started = time.perf_counter()
        with pytest.raises(ParameterError, match=words) as caught:
            OpenAICompatible(name="toy", model="toy-1")
        assert time.perf_counter() - started < 5 and "\n" not in str(caught.value)

    def test_a_password_is_not_shown(self) -> None:
        with pytest.raises(ParameterError) as caught:
            address.checked(f"ftp://me:{CANARY}@host/v1")
        assert CANARY not in str(caught.value) and "host" in str(caught.value)


@pytest.fixture
def leaks() -> Iterator[list[str]]:
    yield [
        f"raw:{raw}" for raw in (f'{{"error": "key {CANARY} is wrong"}}', f"<p>{CANARY}</p>", CANARY, f'"{CANARY}"')
    ]


def test_a_key_that_a_server_shows_is_taken_out(leaks: list[str]) -> None:
    for behaviour in leaks:
        with Server(behave=always(behaviour)) as server, pytest.raises(BackendError) as caught:
            list(backend(server, retries=0).respond([TEXT]))
        assert CANARY not in str(caught.value)


def test_extra_cannot_change_what_is_measured() -> None:
    with pytest.raises(ParameterError, match=r"temperature.*leave it out of --extra"):
        OpenAICompatible(name="toy", model="toy-1", extra={"temperature": 1})


def test_an_id_is_told_from_a_text() -> None:
    assert tokens.is_number("token_id:362") and not tokens.is_number("A")
