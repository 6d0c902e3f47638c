"""The transformers backend on tiny random models; with the embedded model (``live``), against llama.cpp."""

from __future__ import annotations

import json
import random
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.kit.gguf import MODEL as FACTS
from tests.kit.gguf import gguf

torch = pytest.importorskip("torch", reason="extra `gpu` is not installed")
transformers = pytest.importorskip("transformers", reason="extra `gpu` is not installed")

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402

from persona_studies.ask.backends import Request, RequestKey, Response  # noqa: E402
from persona_studies.ask.backends.transformers import Transformers  # noqa: E402
from persona_studies.ask.backends.transformers.loading import Encoder  # noqa: E402
from persona_studies.ask.backends.transformers.model import AHEAD, WINDOW  # noqa: E402
from persona_studies.errors import BackendError  # noqa: E402

CHATML = (Path(__file__).parents[1] / "chat_templates" / "chatml.jinja").read_text("utf-8")
GEMMA = (Path(__file__).parents[1] / "chat_templates" / "gemma.jinja").read_text("utf-8")
PERSONAS = [
    None,
    "You are kind.",
    "You are a lighthouse keeper who speaks in short sentences. You are someone warm and trusting.",
    "You are a lighthouse keeper who speaks in short sentences. You are someone cold and suspicious.",
]
CLAIMS = ["winter is the best season", "tea", "towns need more benches, more trees, more shade and more fountains"]
# Shared starts, a start that is an option itself, one token and many.
OPTIONS = ("I agree.", "I agree", "I disagree.", "I completely agree.", "I completely disagree.", "No", "I")
CORPUS = [*[p for p in PERSONAS if p], *CLAIMS, *OPTIONS, "Statement: Reply with one number."]


def requests() -> list[Request]:
    made = []
    for number, persona in enumerate(PERSONAS):
        for claim in CLAIMS:
            options = OPTIONS if number % 2 else OPTIONS[:3]
            made.append(Request("cloze", persona, "", f"I think that {claim}. Don't you agree?", options))
            made.append(Request("letter", persona, "Reply with one number.\nStatement: ", claim, ("1", "2", "3")))
    return made


def write_tokenizer(folder: Path, chat: str | None) -> int:
    """Train a small byte-level tokeniser, save it and return its size."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator(CORPUS * 3, trainer)
    made.add_special_tokens([AddedToken(text, special=True) for text in specials])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>")
    fast.chat_template = chat
    fast.save_pretrained(folder)
    return len(fast)


def write_model(folder: Path, *, chat: str | None = CHATML, kind: str = "Llama", **config: Any) -> Path:
    """Save a two-layer model with random weights, large enough ones that answers differ."""
    vocabulary = write_tokenizer(folder, chat)
    torch.manual_seed(3)
    shape: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    made = getattr(transformers, f"{kind}ForCausalLM")(
        getattr(transformers, f"{kind}Config")(**{**shape, **config})
    )
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("tiny"))


def ask(source: Path, asked: list[Request], **how: Any) -> list[Response]:
    backend = Transformers(source, name="tiny", **{"dtype": "float32", "device": "cpu", **how})
    found = dict(backend.respond(asked))
    backend.close()
    assert sorted(found) == list(range(len(asked)))
    return [found[place] for place in range(len(asked))]


@pytest.fixture(scope="module")
def single(tiny: Path) -> list[Response]:
    return ask(tiny, requests(), schedule="single")


def assert_same(given: list[Response], expected: list[Response], tolerance: float = 1e-4) -> None:
    for a, b in zip(given, expected, strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=tolerance)
        assert a.option_mass == pytest.approx(b.option_mass, abs=tolerance)
        assert a.entropy == pytest.approx(b.entropy, abs=tolerance)
        assert (a.n_tokens, a.top_token, a.finish) == (b.n_tokens, b.top_token, b.finish)
        assert a.prompt_tokens == b.prompt_tokens


def test_single_schedule_is_the_definition(tiny: Path, single: list[Response]) -> None:
    """Compute one answer of every kind by hand, with nothing of the backend but its tokens."""
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    prompt = (
        "<|im_start|>system\nYou are kind.<|im_end|>\n<|im_start|>user\nI think that tea. Don't you agree?"
        "<|im_end|>\n<|im_start|>assistant\n"
    )
    place = next(
        i for i, r in enumerate(requests()) if (r.kind, r.system) == ("cloze", PERSONAS[1]) and "tea" in r.user
    )
    ids = tokenizer.encode(prompt, add_special_tokens=False)
    assert single[place].prompt_tokens == len(ids)
    with torch.no_grad():
        for option, given in zip(OPTIONS, single[place].logprob, strict=True):
            tail = tokenizer.encode(option, add_special_tokens=False)
            log_p = torch.log_softmax(model(torch.tensor([ids + tail])).logits[0].double(), dim=1)
            total = sum(float(log_p[len(ids) - 1 + i, token]) for i, token in enumerate(tail))
            assert given == pytest.approx(total, abs=1e-4)


def test_answers_differ_between_cells(single: list[Response]) -> None:
    """Without this, every test of agreement could pass on a model that ignores its input."""
    assert len({tuple(np.round(answer.logprob, 2)) for answer in single}) == len(single)


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_batches_agree_with_full_prefill(tiny: Path, single: list[Response], batch: int) -> None:
    assert_same(ask(tiny, requests(), batch=batch), single)


def test_any_order_of_requests_agrees(tiny: Path, single: list[Response]) -> None:
    places = list(range(len(single)))
    random.Random(5).shuffle(places)
    given = ask(tiny, [requests()[place] for place in places], batch=4)
    assert_same(given, [single[place] for place in places])
    assert [answer.request for answer in given] == [
        answer.request for answer in ask(tiny, [requests()[place] for place in places], batch=16)
    ]


def test_long_and_short_neighbours_do_not_change_an_answer(tiny: Path) -> None:
    long = "More benches. " * 25
    asked = [
        Request("letter", None, "", "1", ("1", "2")),
        Request("cloze", None, "", long, OPTIONS),
        Request("cloze", long, "", "tea", OPTIONS[:2]),
        Request("letter", long, "", long, ("A", "B")),
        Request("letter", "", "", "1", ("1", "2")),
    ]
    assert_same(ask(tiny, asked), ask(tiny, asked, schedule="single"))


def test_compiled_pass_agrees(tiny: Path, single: list[Response]) -> None:
    # One batch, one shape: every further one is compiled anew.
    assert_same(ask(tiny, requests()[:8], batch=8, compile=True), single[:8])


def test_bfloat16_is_close(tiny: Path) -> None:
    asked = requests()
    exact = ask(tiny, asked, schedule="single")
    rounded = ask(tiny, asked, dtype="bfloat16")
    apart = [np.abs(np.subtract(a.logprob, b.logprob)).max() for a, b in zip(exact, rounded, strict=True)]
    assert 0 < np.median(apart) < 0.5


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("Qwen2", {}),
        (
            "Gemma2",
            {"head_dim": 12, "sliding_window": 256, "query_pre_attn_scalar": 12, "final_logit_softcapping": 5.0},
        ),
        ("GPTNeoX", {}),
    ],
)
def test_other_architectures_agree(tmp_path: Path, kind: str, config: dict[str, Any]) -> None:
    model = write_model(tmp_path, kind=kind, **config)
    assert_same(ask(model, requests(), batch=8), ask(model, requests(), schedule="single"), 1e-3)


def test_an_architecture_that_cannot_share_is_refused(tmp_path: Path) -> None:
    model = write_model(tmp_path, kind="Granite", logits_scaling=8.0)
    with pytest.raises(BackendError, match=r"granite.*schedule='single'"):
        Transformers(model, name="tiny", dtype="float32", device="cpu")
    assert ask(model, requests()[:2], schedule="single")[0].finish == "scored"


@pytest.mark.parametrize("chat", [None, GEMMA])
def test_models_without_a_system_role_agree(tmp_path: Path, chat: str | None) -> None:
    model = write_model(tmp_path, chat=chat)
    assert_same(ask(model, requests(), batch=8), ask(model, requests(), schedule="single"))


def test_keys_are_those_of_the_request_key(tiny: Path) -> None:
    backend = Transformers(tiny, name="tiny", dtype="float32", device="cpu")
    asked = [*requests(), Request("text", None, "", "Say hello.", (), 3), Request("letter", None, "", "", ("1",))]
    found = dict(backend.respond(asked))
    for place, request in enumerate(asked):
        head, tail = backend.chat.render(request.system, request.shared, request.user)
        whole, start = backend.tokenize(head + tail), backend.tokenize(head)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(start, whole[:-1])))
        decoding: dict[str, int | float | str] = {"kind": request.kind}
        if request.kind == "text":
            decoding |= {"max_tokens": 3, "temperature": 0}
        options = [backend.tokenize(option, special=False) for option in request.options]
        key = RequestKey(backend.info, backend.chat.name, [same, *whole], options, decoding)
        assert found[place].request == key.digest()
    assert len({answer.request for answer in found.values()}) == len(asked)


def test_size_is_what_is_computed(tiny: Path) -> None:
    backend = Transformers(tiny, name="tiny", dtype="float32", device="cpu")
    for place, answer in backend.respond(requests()):
        size = backend.size(requests()[place])
        assert answer.computed_tokens == size.suffix + size.branches
        assert answer.prompt_tokens == size.prefix + size.suffix
        assert size.logical == len(answer.n_tokens) * answer.prompt_tokens + sum(answer.n_tokens) - len(
            answer.n_tokens
        )


def test_text_is_greedy_and_batches_do_not_change_it(tiny: Path) -> None:
    asked = [Request("text", persona, "", claim, (), 6) for persona in PERSONAS for claim in CLAIMS]
    alone = ask(tiny, asked, schedule="single")
    together = ask(tiny, [*asked, requests()[0]], batch=5)
    assert [answer.text for answer in together[:-1]] == [answer.text for answer in alone]
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    backend = Transformers(tiny, name="tiny", schedule="single", device="cpu")
    ids = backend.tokenize("".join(backend.chat.render(asked[0].system, "", asked[0].user)))
    made: list[int] = []
    for _ in range(6):
        with torch.no_grad():
            token = int(model(torch.tensor([ids + made])).logits[0, -1].argmax())
        if token == 2:
            break
        made.append(token)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    assert alone[0].text == tokenizer.decode(made, skip_special_tokens=True)
    assert alone[0].finish == ("length" if len(made) == 6 else "stop")


def test_text_ends_at_the_template_s_marker(tmp_path: Path) -> None:
    """The plain template ends a turn with a line break, which no token stands for alone here."""
    model = write_model(tmp_path, chat=None)
    backend = Transformers(model, name="tiny", dtype="float32", device="cpu")
    [newline] = backend.tokenize("\n")
    weights = backend._model.get_output_embeddings().weight
    with torch.no_grad():
        weights[newline] = 50 * weights.abs().mean() * torch.sign(weights.sum(0))
    found = [answer for _, answer in backend.respond([Request("text", None, "", c, (), 12) for c in CLAIMS])]
    assert all("\n" not in str(answer.text) for answer in found)
    assert {answer.finish for answer in found} <= {"stop", "length"}


def test_a_repository_s_sampling_advice_is_not_followed(tmp_path: Path) -> None:
    model = write_model(tmp_path)
    asked = [Request("text", None, "", claim, (), 8) for claim in CLAIMS]
    before = [answer.text for answer in ask(model, asked)]
    advice = {"do_sample": True, "temperature": 5.0, "repetition_penalty": 9.0, "eos_token_id": [2]}
    (model / "generation_config.json").write_text(json.dumps(advice))
    assert [answer.text for answer in ask(model, asked)] == before


def test_requests_are_drawn_a_bounded_number_ahead(tiny: Path) -> None:
    drawn = 0

    def endless() -> Any:
        nonlocal drawn
        while True:
            drawn += 1
            yield requests()[drawn % 24]

    backend = Transformers(tiny, name="tiny", dtype="float32", device="cpu", batch=4)
    answers = backend.respond(endless())
    for _ in range(40):
        next(answers)
    assert drawn <= 40 + 4 * (WINDOW + AHEAD) + 1


def test_a_batch_that_does_not_fit_is_halved(
    tiny: Path, single: list[Response], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Transformers(tiny, name="tiny", dtype="float32", device="cpu", batch=16)
    launch = backend._launch

    def small(jobs: Any) -> Any:
        if len(jobs) > limit:
            raise torch.OutOfMemoryError("full")
        return launch(jobs)

    monkeypatch.setattr(backend, "_launch", small)
    limit = 3
    found = dict(backend.respond(requests()))
    assert_same([found[place] for place in range(len(single))], single)
    limit = 0
    with pytest.raises(BackendError, match="does not fit into the memory of cpu"):
        list(backend.respond(requests()))


def test_a_compilation_that_fails_is_not_needed(
    tiny: Path, single: list[Response], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any) -> Any:
        raise RuntimeError("no compiler\nhere")

    backend = Transformers(tiny, name="tiny", dtype="float32", device="cpu")
    backend._pass = broken
    with pytest.warns(UserWarning, match="cannot compile tiny; going on without: no compiler"):
        found = dict(backend.respond(requests()))
    assert_same([found[place] for place in range(len(single))], single)
    backend._pass, backend._compile = broken, True
    with pytest.raises(BackendError, match="compile=False"):
        list(backend.respond(requests()))


def test_prompts_beyond_the_context_are_refused_by_name(tiny: Path) -> None:
    backend = Transformers(tiny, name="tiny", dtype="float32", device="cpu")
    with pytest.raises(BackendError, match=r"'tea tea tea.*exceed the 512 of tiny"):
        list(backend.respond([Request("letter", None, "", "tea " * 600, ("1",))]))


def test_options_are_read_as_plain_text(tiny: Path) -> None:
    backend = Transformers(tiny, name="tiny", dtype="float32", device="cpu")
    assert len(backend.tokenize("<|im_end|>")) == 1
    assert len(backend.tokenize("<|im_end|>", special=False)) > 1
    assert len(backend.tokenize("<|im_end|>")) == 1


def test_pieces_between_markers_are_tokenised_as_in_one_text(tiny: Path) -> None:
    encoder = Encoder(transformers.AutoTokenizer.from_pretrained(tiny))
    assert encoder._text.__wrapped__ == encoder._joined
    for text in ("a <|im_end|> b", "<|im_start|><|im_start|>x", "", "no marker", "I agree.<|im_end|>\n\n<|im"):
        assert encoder(text, True) == encoder._whole(text)


def test_markers_that_take_in_spaces_are_not_split(tiny: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("<x>", lstrip=True, special=True)]})
    encoder = Encoder(tokenizer)
    assert encoder("tea <x> tea", True) == encoder._whole("tea <x> tea") != encoder._joined("tea <x> tea")


def test_hub_models_need_a_pinned_revision() -> None:
    for revision in (None, "main", "0123abc", "A" * 40):
        with pytest.raises(BackendError, match=r"owner/model needs a pinned revision, 40 hex.*hf:owner/model@"):
            Transformers("owner/model", name="tiny", revision=revision)


def test_code_of_a_repository_is_never_run(tmp_path: Path) -> None:
    model = write_model(tmp_path)
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "own-code", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}}
    (model / "config.json").write_text(json.dumps(config))
    (model / "own.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').write('ran')\nclass C: pass\nclass M: pass\n"
    )
    with pytest.raises(BackendError, match="code of its own repository, which is never run"):
        Transformers(model, name="tiny")
    assert not (tmp_path / "ran").exists()


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, CHATML)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(BackendError, match="other formats of weights can run code"):
        Transformers(tmp_path, name="tiny")


def test_what_is_loaded_is_what_was_meant(tiny: Path, tmp_path: Path) -> None:
    import hashlib

    expected = hashlib.sha256((tiny / "model.safetensors").read_bytes()).hexdigest()
    info = Transformers(tiny, name="tiny", sha256=expected).info
    assert (info.model_hash, info.backend, info.schedule) == (expected, "transformers", "batched")
    assert (info.precision, info.chat) == ("bfloat16", "chatml")
    assert torch.__version__ in info.version and transformers.__version__ in info.version
    assert Transformers(tiny, name="tiny", schedule="single").info.precision == "float32"
    with pytest.raises(BackendError, match=f"expected {'0' * 64}"):
        Transformers(tiny, name="tiny", sha256="0" * 64)
    (tmp_path / "weights.gguf").write_bytes(gguf(FACTS))
    with pytest.raises(BackendError, match="expected 1"):
        Transformers(tmp_path / "weights.gguf", name="tiny", sha256="1")
    with pytest.raises(BackendError, match="cannot load"):
        Transformers(tmp_path / "weights.gguf", name="tiny")


@pytest.mark.parametrize(
    ("source", "how", "message"),
    [
        ("nowhere.gguf", {}, "No model file nowhere.gguf"),
        ("./nowhere/at/all", {}, "no folder, no GGUF file and no OWNER/NAME"),
        ("x/y", {"schedule": "fast"}, "Unknown schedule 'fast'.*known: batched, single"),
        ("x/y", {"dtype": "int3"}, "Unknown dtype 'int3'.*known: bfloat16, float32"),
    ],
)
def test_what_cannot_be_is_refused(source: str, how: dict[str, Any], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        Transformers(source, name="tiny", **how)


# With the embedded model.

PROJECT = Path(__file__).parents[2]
EMBEDDED = "smollm2-135m-instruct"
LIVE = [
    Request(
        "cloze", "You are a lighthouse keeper.", "", "I think that tea is best. Don't you agree?", OPTIONS[2:5]
    ),
    Request("cloze", None, "", "I think that tea is best. Don't you agree?", OPTIONS[2:5]),
    Request("letter", "You are kind.", "", "Pick one number.\n1. Tea\n2. Coffee  2 of  10", ("1", "2", "3")),
    Request("letter", None, "", "Pick one letter.\nA. Tea\nB. Coffee", ("A", "B")),
    Request("text", None, "", "Say hello.", (), 8),
]


@pytest.fixture(scope="module")
def embedded() -> Any:
    pytest.importorskip("llama_cpp", reason="extra `live` is not installed")
    from persona_studies.ask import models as loading
    from persona_studies.paths import Project

    return lambda **how: loading.load(Project(PROJECT), EMBEDDED, **how)


@pytest.mark.live
def test_embedded_model_agrees_with_llama_cpp(embedded: Any) -> None:
    """Measured on these cells in float32: 4e-5 nats from llama.cpp (0.21 from its own kernels for Q4_1)."""
    reference = embedded(precision="f32")
    expected = dict(reference.respond(LIVE))
    found = {}
    for schedule in ("single", "batched"):
        backend = embedded(backend="transformers", schedule=schedule, precision="f32")
        assert backend.info.model_hash == reference.info.model_hash
        found[schedule] = dict(backend.respond(LIVE))
    texts = {path.read_text()[:20_000] for path in sorted((PROJECT / "data" / "items").rglob("*.csv"))}
    for text in {*texts, "  12  3", "x<|im_end|> y", "naïve — “quotes” 😀", "\n\n\tx", *CORPUS}:
        for special in (True, False):
            assert backend.tokenize(text, special=special) == reference.tokenize(text, special=special)
    reference.close()
    for place in range(len(LIVE)):
        for given in (answers[place] for answers in found.values()):
            assert given.text == expected[place].text
            assert given.logprob == pytest.approx(expected[place].logprob, abs=1e-3)
            assert (given.n_tokens, given.top_token) == (expected[place].n_tokens, expected[place].top_token)
            assert given.prompt_tokens == expected[place].prompt_tokens
        assert (
            found["batched"][place].computed_tokens == expected[place].computed_tokens or LIVE[place].kind == "text"
        )
