"""llama.cpp on a CPU.

*Canonical schedule*: the shared prefix is decoded alone, then one item's suffix with all its options as
branches, in one pass. What goes through the model together depends on the cell alone, so a response is
bit-identical whatever was asked before it, with any number of threads, and after resumption.

*Parallel schedule*: the same for several items that share a prefix, in one pass. Faster, but a response
depends, in its last digits, on what it was batched with.

*Precision*: kernels for quantised weights quantise the activations too, so that a difference in the seventh digit
can tip a rounding and grow. With Q4_K_M of 1.5 billion parameters the two schedules differ by .06 nats in the
median of 32 cells, by .2 at most; with Q4_0 and Q4_1 by up to half a nat. Repacked weights depend on the shape of
the batch as well. Weights that are converted to ``f32`` on loading agree to about 1e-4. The conversion is
llama.cpp's own and is cached.
"""

from __future__ import annotations

import ctypes
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from persona_studies import files
from persona_studies.ask import model_files, planner
from persona_studies.ask.backends import ModelInfo, Request, RequestKey, Response, Size
from persona_studies.ask.chat import Chat, detect
from persona_studies.design.sources import cache_folder
from persona_studies.errors import BackendError, visible

try:
    import llama_cpp as llama
except ImportError as missing:  # pragma: no cover - depends on the environment
    raise BackendError(
        "This model runs on llama.cpp, which is not installed here. Install the extra `live`: "
        "make live (compiles for about ten minutes; conda-forge has llama-cpp-python prebuilt)."
    ) from missing

CONTEXT = 2048
BATCH = 512
SEQUENCES = 128
PARALLEL = 8
# A question asked in two ways on loading. Rounding of quantised weights makes up to half a nat of difference.
PROBE, PROBE_OPTIONS = "Two sheep and one more are", (" three sheep", " three", " none")
MOST_APART = 2.0
# llama.cpp's own numbers of file types; `file` leaves the weights as they are.
PRECISIONS = {"file": None, "f32": 0, "f16": 1, "bf16": 32}
SCHEDULES = ("canonical", "parallel")


# llama.cpp's level of messages that are errors, and the last ones.
ERROR = 4
_said: deque[str] = deque(maxlen=4)


# llama-cpp-python ships no types.
@llama.llama_log_callback  # type: ignore[untyped-decorator]
def _silence(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    """llama.cpp narrates every load on stderr; its errors come back as return codes, and the last one is kept."""
    if level == ERROR and (said := text.decode(errors="replace").strip()):
        _said.append(visible(said.partition("error loading model: ")[2] or said))


def _start() -> None:
    """Start llama.cpp, silent."""
    llama.llama_log_set(_silence, ctypes.c_void_p(0))
    llama.llama_backend_init()


class LlamaCpp:
    """A GGUF model in this process."""

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        sha256: str | None = None,
        threads: int = 1,
        precision: str = "file",
        schedule: str = "canonical",
        chat: str | None = None,
    ) -> None:
        """Load a model file after checking what it is.

        Args:
            path: GGUF file.
            name: Short name of the model.
            sha256: Expected hash of the file; None takes the file as it is and records its hash.
            threads: CPU threads. The responses do not depend on it.
            precision: ``file``, or ``f32``, ``f16``, ``bf16`` to convert the weights first (4 or 2 bytes each).
            schedule: ``canonical`` or ``parallel``.
            chat: How turns are marked, a family or a file; None takes the model's own template.

        Raises:
            BackendError: the file is missing, has another hash, or cannot be loaded or converted.
        """
        for what, value, known in (("precision", precision, PRECISIONS), ("schedule", schedule, SCHEDULES)):
            if value not in known:
                raise BackendError(f"Unknown {what} {value!r} of llama.cpp; known: {', '.join(known)}.")
        parts = model_files.files(path)
        path, actual = parts[0], files.sha256(*parts)
        if sha256 is not None and actual != sha256:
            raise BackendError(f"{path.name} has sha256 {actual}, expected {sha256}; fetch the file again.")
        _start()
        weights = path if PRECISIONS[precision] is None else _converted(path, actual, precision)
        self._model = _loaded(weights, path.name)
        self._most = min(CONTEXT, llama.llama_model_n_ctx_train(self._model))
        self._vocab = llama.llama_model_get_vocab(self._model)
        self._n_vocab: int = llama.llama_vocab_n_tokens(self._vocab)
        self._context = _context(self._model, threads, precision, path.name)
        self._memory = llama.llama_get_memory(self._context)
        self._batch = llama.llama_batch_init(BATCH, 0, SEQUENCES)
        self._marks = self._control_tokens()
        self.chat = self._turns(name, chat)
        self._stop = {int(llama.llama_vocab_eos(self._vocab)), int(llama.llama_vocab_eot(self._vocab))}
        for marker in self.chat.stop:
            tokens = self.tokenize(marker)
            self._stop |= set(tokens) if self._marks.fullmatch(marker) and len(tokens) == 1 else set()
        self._prefix: list[int] = []
        self._check_sharing(name)
        self.info = ModelInfo(
            name=name,
            model_hash=actual,
            backend="llama.cpp",
            version=version("llama-cpp-python"),
            schedule=schedule if schedule == "canonical" else f"parallel-{PARALLEL}",
            chat=self.chat.name,
            precision=precision,
        )
        # Kernels for quantised weights differ between processors, and with them the last digits.
        self.instructions = " ".join(re.findall(r"(\w+) = 1", llama.llama_print_system_info().decode()))

    def close(self) -> None:
        llama.llama_batch_free(self._batch)
        llama.llama_free(self._context)
        llama.llama_model_free(self._model)

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Return token ids. ``special`` reads turn markers as such; options are read as plain text."""
        data = text.encode()
        buffer = (llama.llama_token * (len(data) + 8))()
        count = llama.llama_tokenize(self._vocab, data, len(data), buffer, len(buffer), False, special)
        return list(buffer[:count])

    def size(self, request: Request) -> Size:
        return self._tokenise(request).size(request.max_tokens)

    def respond(self, requests: Iterable[Request]) -> Iterator[tuple[int, Response]]:
        group: list[tuple[int, Request, planner.Prompt]] = []
        for place, request in enumerate(requests):
            prompt = self._tokenise(request)
            if group and not self._together([p for _, _, p in group], prompt, request.kind):
                yield from self._respond(group)
                group = []
            group.append((place, request, prompt))
            if self.info.schedule == "canonical" or request.kind == "text":
                yield from self._respond(group)
                group = []
        if group:
            yield from self._respond(group)

    def naive_logprob(self, tokens: list[int], start: int) -> float:
        """Return the log-probability of ``tokens[start:]`` by one full prefill, without any sharing.

        The reference that the canonical schedule is compared with.
        """
        llama.llama_memory_clear(self._memory, False)
        self._prefix = []
        self._decode([(token, i, (0,), i >= start - 1) for i, token in enumerate(tokens)])
        total = 0.0
        for i in range(start, len(tokens)):
            logits = self._logits(i - 1)
            total += float(logits[tokens[i]]) - _log_sum_exp(logits)
        return total

    def _check_sharing(self, name: str) -> None:
        """Ask one cell as every cell is asked, and by full prefill, and refuse a model whose answers differ.

        Kinds of models that cannot share a start are known by name, but not all of them; a wrong answer would be
        recorded as any other.
        """
        options = [tokens for text in PROBE_OPTIONS if (tokens := self.tokenize(text, special=False))]
        whole = self.tokenize(PROBE, special=False)
        prompt = planner.Prompt(whole[: len(whole) // 2], whole[len(whole) // 2 :], options)
        try:
            self._start(prompt.prefix)
            _, (shared,) = self._tree([prompt])
            plain = [self.naive_logprob(whole + option, len(whole)) for option in options]
        except BackendError as error:
            raise BackendError(f"{name} does not answer as a chat model does: {error}") from None
        llama.llama_memory_clear(self._memory, False)
        if (apart := float(np.abs(np.subtract(shared, plain)).max())) > MOST_APART:
            raise BackendError(
                f"{name} answers differently where options share the start of a prompt, by {apart:.2g} nats in a "
                f"question asked for this check ({MOST_APART:g} is the most allowed). Serve it with llama-server "
                "and record openai:NAME (docs/recording.md)."
            )

    def _turns(self, name: str, wanted: str | None) -> Chat:
        """Return how the model marks turns, with the begin token that it expects."""
        first, last = llama.llama_vocab_bos(self._vocab), llama.llama_vocab_eos(self._vocab)
        tokens = {"bos_token": first, "eos_token": last}
        texts = {key: self._piece(token) if token >= 0 else "" for key, token in tokens.items()}
        template = llama.llama_model_chat_template(self._model, None)
        chat = detect(template.decode(errors="replace") if template else None, texts, wanted=wanted)
        needed = bool(llama.llama_vocab_get_add_bos(self._vocab))
        chat = chat.beginning(texts["bos_token"] if needed else None)
        planner.check_beginning(chat, self._encode, first, needed=needed, model=name)
        return chat

    def _control_tokens(self) -> re.Pattern[str]:
        """Return what finds the model's turn markers in a text."""
        marks = {
            llama.llama_vocab_get_text(self._vocab, token).decode(errors="replace")
            for token in range(self._n_vocab)
            if llama.llama_vocab_is_control(self._vocab, token)
        }
        # The longest first: one marker may begin another. An expression without a choice would match everywhere.
        return re.compile("|".join(map(re.escape, sorted(filter(None, marks), key=len, reverse=True))) or r"(?!)")

    def _encode(self, text: str, special: bool) -> list[int]:
        return self.tokenize(text, special=special)

    def _tokenise(self, request: Request) -> planner.Prompt:
        prompt = planner.tokenise(request, self.chat, self._encode, model=self.info.name, marks=self._marks)
        n = len(prompt.prefix) + len(prompt.suffix)
        # Beyond what a model was trained on, an answer is none of its own; positions that are learned end there.
        if n + prompt.branches + request.max_tokens > self._most:
            trained = (
                f", all that {self.info.name} was trained on; take another model" if self._most < CONTEXT else ""
            )
            raise BackendError(
                f"A prompt of {n} tokens and its answer exceed the context of {self._most}{trained}."
            )
        return prompt

    def _together(self, group: list[planner.Prompt], prompt: planner.Prompt, kind: str) -> bool:
        """Return whether one more prompt fits into the batch of a group."""
        everyone = [*group, prompt]
        return (
            kind != "text"
            and prompt.prefix == group[0].prefix
            and len(everyone) <= PARALLEL
            and sum(len(p.suffix) + p.branches for p in everyone) <= BATCH
            and len(prompt.prefix) + sum(len(p.suffix) + p.branches for p in everyone) <= CONTEXT
            and sum(len(p.options) for p in everyone) < SEQUENCES
        )

    def _respond(self, group: list[tuple[int, Request, planner.Prompt]]) -> Iterator[tuple[int, Response]]:
        """Answer requests that share a prefix, in one pass."""
        try:
            self._start(group[0][2].prefix)
            yield from self._answers(group)
        except BackendError:
            # Whatever broke off may have left tokens in the cache.
            llama.llama_memory_clear(self._memory, False)
            self._prefix = []
            raise

    def _answers(self, group: list[tuple[int, Request, planner.Prompt]]) -> Iterator[tuple[int, Response]]:
        place, request, prompt = group[0]
        if request.kind == "text":
            self._forward(prompt.suffix, len(prompt.prefix))
            n = len(prompt.whole)
            text, finish, steps = self._greedy(self._logits(-1), n, request.max_tokens)
            computed = len(prompt.suffix) + steps
            yield place, Response(self._key(request, prompt), finish, n, computed, text=text)
            return
        first, sums = self._tree([prompt for _, _, prompt in group])
        for (place, request, prompt), log_p, total in zip(group, first, sums, strict=True):
            mass = float(np.exp(log_p[sorted({option[0] for option in prompt.options})]).sum())
            yield (
                place,
                Response(
                    self._key(request, prompt),
                    "scored",
                    len(prompt.whole),
                    len(prompt.suffix) + prompt.branches,
                    logprob=tuple(float(np.float32(value)) for value in total),
                    n_tokens=tuple(len(option) for option in prompt.options),
                    option_mass=float(np.float32(mass)),
                    entropy=float(np.float32(-(np.exp(log_p) * log_p).sum())),
                    top_token=self._piece(int(log_p.argmax())),
                ),
            )

    def _key(self, request: Request, prompt: planner.Prompt) -> str:
        decoding: dict[str, int | float | str] = {"kind": request.kind}
        if request.kind == "text":
            decoding |= {"max_tokens": request.max_tokens, "temperature": 0}
        tokens = [len(prompt.prefix), *prompt.whole]
        return RequestKey(self.info, self.chat.name, tokens, prompt.options, decoding).digest()

    def _start(self, prefix: list[int]) -> None:
        """Make the cache hold exactly ``prefix``."""
        # A model that keeps a running state besides its cache (LFM2, Granite 4) cannot go back behind a reply.
        if prefix == self._prefix and llama.llama_memory_seq_rm(self._memory, 0, len(prefix), -1):
            return
        # A shorter or longer common start is not reused: the batch that computed it would differ.
        llama.llama_memory_clear(self._memory, False)
        self._prefix = []
        if prefix:
            self._forward(prefix, 0, logits=False)
        self._prefix = prefix

    def _forward(self, tokens: list[int], position: int, *, logits: bool = True) -> None:
        """Decode ``tokens`` on the main sequence, in pieces of at most one batch."""
        for start in range(0, len(tokens), BATCH):
            piece = tokens[start : start + BATCH]
            last = logits and start + BATCH >= len(tokens)
            self._decode(
                [(token, position + start + i, (0,), last and i == len(piece) - 1) for i, token in enumerate(piece)]
            )

    def _tree(self, prompts: list[planner.Prompt]) -> tuple[list[NDArray[np.float64]], list[list[float]]]:
        """Decode the suffix and the options of every prompt, each on sequences of its own.

        A suffix belongs to the sequences of all its options; a start that options share is decoded once.

        Returns:
            Per prompt, the log-probabilities of the token after it, and the sum of each option's.
        """
        batch: list[tuple[int, int, tuple[int, ...], bool]] = []
        # What a row with logits stands for: a prompt, and the start of an option (empty: the prompt's end).
        rows: dict[int, tuple[int, tuple[int, ...]]] = {}
        below: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        sequence = 0
        for place, prompt in enumerate(prompts):
            own = tuple(range(sequence + 1, sequence + len(prompt.options) + 1))
            for each in own:
                llama.llama_memory_seq_cp(self._memory, 0, each, 0, -1)
            sequence = own[-1]
            start, n = len(prompt.prefix), len(prompt.whole)
            batch += [(token, start + i, own, False) for i, token in enumerate(prompt.suffix)]
            batch[-1] = (*batch[-1][:3], True)
            rows[len(batch) - 1] = place, ()
            for index, option in enumerate(prompt.options):
                for depth in range(1, len(option)):
                    below.setdefault((place, tuple(option[:depth])), []).append(index)
            for (_, path), options in ((node, o) for node, o in below.items() if node[0] == place):
                rows[len(batch)] = place, path
                batch.append((path[-1], n + len(path) - 1, tuple(own[o] for o in options), True))
        first: list[NDArray[np.float64]] = []
        sums = [[0.0] * len(prompt.options) for prompt in prompts]
        for start in range(0, len(batch), BATCH):
            piece = batch[start : start + BATCH]
            self._decode(piece)
            for row in range(len(piece)):
                if start + row not in rows:
                    continue
                place, path = rows[start + row]
                logits = self._logits(row)
                scale = _log_sum_exp(logits)
                if not path:
                    first.append(logits.astype(np.float64) - scale)
                for index in below[place, path] if path else range(len(sums[place])):
                    sums[place][index] += float(logits[prompts[place].options[index][len(path)]]) - scale
        for used in range(1, sequence + 1):
            llama.llama_memory_seq_rm(self._memory, used, -1, -1)
        return first, sums

    def _greedy(self, logits: NDArray[np.float32], position: int, max_tokens: int) -> tuple[str, str, int]:
        pieces: list[int] = []
        while len(pieces) < max_tokens:
            token = int(logits.argmax())
            if token in self._stop:
                return self._text(pieces), "stop", len(pieces)
            pieces.append(token)
            if len(pieces) < max_tokens:
                self._decode([(token, position + len(pieces) - 1, (0,), True)])
                logits = self._logits(-1)
        return self._text(pieces), "length", len(pieces)

    def _decode(self, batch: Sequence[tuple[int, int, tuple[int, ...], bool]]) -> None:
        """Run one forward pass over ``(token, position, sequences, wants logits)``."""
        self._batch.n_tokens = len(batch)
        for i, (token, position, sequences, logits) in enumerate(batch):
            self._batch.token[i] = token
            self._batch.pos[i] = position
            self._batch.n_seq_id[i] = len(sequences)
            for j, sequence in enumerate(sequences):
                self._batch.seq_id[i][j] = sequence
            self._batch.logits[i] = logits
        code = llama.llama_decode(self._context, self._batch)
        if code:
            raise BackendError(f"llama.cpp could not decode a batch of {len(batch)} tokens (code {code}).")

    def _logits(self, row: int) -> NDArray[np.float32]:
        pointer = llama.llama_get_logits_ith(self._context, row)
        if not pointer:
            raise BackendError("it gives no probabilities of next tokens, as models that embed texts do not.")
        logits = np.ctypeslib.as_array(pointer, shape=(self._n_vocab,))
        # The largest of values with a NaN among them is NaN.
        if not np.isfinite(logits.max()):
            raise BackendError(
                f"{self.info.name} computes values that are not numbers (NaN or infinite) in precision "
                f"{self.info.precision}: its weights are damaged or overflow. Try --precision f32, or another file."
            )
        return logits

    def _piece(self, token: int) -> str:
        buffer = ctypes.create_string_buffer(64)
        size = llama.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, True)
        return buffer.raw[: max(size, 0)].decode(errors="replace")

    def _text(self, tokens: list[int]) -> str:
        buffer = ctypes.create_string_buffer(64 * max(len(tokens), 1))
        ids = (llama.llama_token * len(tokens))(*tokens)
        size = llama.llama_detokenize(self._vocab, ids, len(tokens), buffer, len(buffer), False, False)
        return buffer.raw[: max(size, 0)].decode(errors="replace")


def _loaded(weights: Path, name: str) -> Any:
    """Return llama.cpp's model of a file.

    Raises:
        BackendError: llama.cpp cannot load it.
    """
    loading = llama.llama_model_default_params()
    # Repacked weights depend on the shape of the batch and are slower for prompts (Q4_K_M of 1.5 billion
    # parameters, 64 tokens, one thread: 51 tokens a second against 69). They are also copied into every
    # process; the mapped file is shared by all.
    loading.use_extra_bufts = False
    model = llama.llama_model_load_from_file(str(weights).encode(), loading)
    if not model:
        said = f": {_said[-1]}" if _said else ""
        release = version("llama-cpp-python")
        raise BackendError(f"llama.cpp ({release}) cannot load {name}{said}. Does it know this model?")
    if llama.llama_model_is_recurrent(model):
        raise BackendError(
            f"{name} keeps a running state and no cache (as Mamba and RWKV do), which options cannot share. Serve "
            "it with llama-server and record openai:NAME (docs/recording.md)."
        )
    if llama.llama_model_is_diffusion(model):
        raise BackendError(f"{name} does not write from left to right (diffusion); take a model that does.")
    return model


def _context(model: Any, threads: int, precision: str, name: str) -> Any:
    """Return a context of a model, in which sequences share a cache.

    Raises:
        BackendError: llama.cpp cannot make one.
    """
    params = llama.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = CONTEXT, BATCH, BATCH
    params.n_seq_max, params.kv_unified = SEQUENCES, True
    params.n_threads = params.n_threads_batch = threads
    if precision == "f32":
        # Flash attention keeps half-precision intermediates: 0.01 nats, against 1e-5 without it.
        params.type_k = params.type_v = 0  # GGML_TYPE_F32
        params.flash_attn_type = 0  # LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama.llama_init_from_model(model, params)
    if not context:
        said = f": {_said[-1]}" if _said else ""
        raise BackendError(f"llama.cpp cannot run {name}{said}. Is there memory for its {CONTEXT} tokens?")
    return context


def _converted(path: Path, digest: str, precision: str) -> Path:
    """Return the cached copy of a model file in another number format; make it the first time.

    The copy's own hash lies beside it and is checked on every load.

    Raises:
        BackendError: llama.cpp cannot convert the file, or the disk is full.
    """
    target = cache_folder() / "weights" / f"{digest[:16]}-{precision}.gguf"
    seal = target.with_suffix(".sha256")
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if target.is_file() and seal.is_file() and seal.read_text() == files.sha256(target):
            return target
        options = llama.llama_model_quantize_default_params()
        options.ftype, options.allow_requantize = PRECISIONS[precision], True
        with files.replaced(target) as partial:
            code = llama.llama_model_quantize(str(path).encode(), str(partial).encode(), ctypes.byref(options))
            if code:
                raise BackendError(
                    f"llama.cpp cannot convert {path.name} to {precision} in {target.parent} (code {code}); is "
                    "there room on the disk? Otherwise load it with precision `file`."
                )
            seal.write_text(files.sha256(partial))
    return target


def _log_sum_exp(logits: NDArray[np.float32]) -> float:
    top = float(logits.max())
    return top + float(np.log(np.exp(logits - np.float32(top)).sum(dtype=np.float64)))
