"""The real backend with the embedded model; needs the extra `live` and is run by `make test-live`."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persona_studies import models
from persona_studies.backends import Request, Response
from persona_studies.errors import BackendError
from persona_studies.paths import Project

pytest.importorskip("llama_cpp", reason="extra `live` is not installed")
pytestmark = pytest.mark.live

PROJECT = Project(Path(__file__).parents[1])
MODEL = "smollm2-135m-instruct"
PERSONAS = [
    None,
    "You are a helpful assistant.",
    "You are a lighthouse keeper who speaks in short sentences. You are someone warm and trusting.",
    "You are a lighthouse keeper who speaks in short sentences. You are someone cold and suspicious.",
]
CLAIMS = ["winter is the best season", "tea tastes better than coffee", "towns need more benches"]
OPTIONS = ("I agree.", "I disagree.", "I completely agree.", "I completely disagree.", "That is right.")


def requests() -> list[Request]:
    scored = [
        Request("cloze", persona, "", f"I think that {claim}. Don't you agree?", OPTIONS)
        for persona in PERSONAS
        for claim in CLAIMS
    ]
    labelled = [
        Request("letter", persona, "Reply with one number.\nStatement: ", claim, ("1", "2", "3"))
        for persona in PERSONAS
        for claim in CLAIMS
    ]
    return [*scored, *labelled, Request("text", PERSONAS[1], "", "Say hello.", (), 8)]


def comparable(response: Response) -> dict[str, Any]:
    """Everything but the number of computed tokens, which depends on what the neighbour shared."""
    return {name: value for name, value in asdict(response).items() if name != "computed_tokens"}


@pytest.fixture(scope="module")
def answers() -> Iterator[list[dict[str, Any]]]:
    backend = models.load(PROJECT, MODEL, threads=2)
    yield [comparable(answer) for answer in backend.respond(requests())]
    backend.close()


def test_canonical_schedule_is_bit_identical_in_any_order(answers: list[dict[str, Any]]) -> None:
    backend = models.load(PROJECT, MODEL, threads=2)
    places = list(range(len(answers)))
    random.Random(7).shuffle(places)
    shuffled = backend.respond([requests()[place] for place in places])
    for place, answer in zip(places, shuffled, strict=True):
        assert comparable(answer) == answers[place]
    backend.close()


def test_canonical_schedule_is_bit_identical_with_one_thread(answers: list[dict[str, Any]]) -> None:
    backend = models.load(PROJECT, MODEL, threads=1)
    assert [comparable(answer) for answer in backend.respond(requests())] == answers
    backend.close()


def test_shared_prefix_and_branches_agree_with_full_prefill(answers: list[dict[str, Any]]) -> None:
    """Score each option by itself from an empty cache, as a naive implementation would."""
    from persona_studies.backends.llama_cpp import LlamaCpp

    backend = models.load(PROJECT, MODEL, threads=2)
    assert isinstance(backend, LlamaCpp)
    for request, answer in list(zip(requests(), answers, strict=True))[:6]:
        head, tail = backend.chat.render(request.system, request.shared, request.user)
        for option, expected in zip(request.options, answer["logprob"], strict=True):
            tokens = backend.tokenize(head + tail) + backend.tokenize(option, special=False)
            start = len(tokens) - len(backend.tokenize(option, special=False))
            naive = backend.naive_logprob(tokens, start)
            # Quantised kernels differ with the batch shape; the prediction must not.
            assert naive == pytest.approx(expected, abs=0.35)
    backend.close()


def test_no_persona_sends_no_system_text() -> None:
    from persona_studies.backends.llama_cpp import LlamaCpp

    backend = models.load(PROJECT, MODEL)
    assert isinstance(backend, LlamaCpp)
    prompt = "".join(backend.chat.render(None, "", "Hello."))
    assert prompt == "<|im_start|>user\nHello.<|im_end|>\n<|im_start|>assistant\n"
    backend.close()


def test_probabilities_are_probabilities(answers: list[dict[str, Any]]) -> None:
    scored = [answer for answer in answers if answer["finish"] == "scored"]
    assert all(np.isfinite(answer["logprob"]).all() and max(answer["logprob"]) < 0 for answer in scored)
    assert all(0 < answer["option_mass"] <= 1 and answer["entropy"] > 0 for answer in scored)
    letters = [answer for answer in scored if len(answer["logprob"]) == 3]
    for answer in letters:
        assert np.exp(answer["logprob"]).sum() == pytest.approx(answer["option_mass"], rel=1e-4)


def test_request_keys_tell_every_cell_apart(answers: list[dict[str, Any]]) -> None:
    assert len({answer["request"] for answer in answers}) == len(answers)


def test_labels_must_be_one_token() -> None:
    backend = models.load(PROJECT, MODEL)
    with pytest.raises(BackendError, match="one-token labels"):
        next(iter(backend.respond([Request("letter", None, "", "Hello.", ("Strongly agree", "B"))])))
    backend.close()


def test_a_prompt_beyond_the_context_is_refused() -> None:
    backend = models.load(PROJECT, MODEL)
    with pytest.raises(BackendError, match="exceeds the context"):
        next(iter(backend.respond([Request("cloze", None, "", "word " * 3000, ("Yes", "No"))])))
    backend.close()


def test_a_file_with_another_hash_is_refused(tmp_path: Path) -> None:
    from persona_studies.backends.llama_cpp import LlamaCpp

    path = tmp_path / "model.gguf"
    path.write_bytes(b"not a model")
    with pytest.raises(BackendError, match="expected 0000"):
        LlamaCpp(path, name="x", sha256="0" * 64)
    with pytest.raises(BackendError, match="cannot load"):
        LlamaCpp(path, name="x")
    with pytest.raises(BackendError, match="No model file"):
        LlamaCpp(tmp_path / "absent.gguf", name="x")
