"""llama.cpp on a CPU, with the canonical schedule.

*Canonical schedule*: the shared prefix is decoded alone, then one item's suffix alone, then the item's
options as branches of one small batch. What goes through the model together depends on the cell alone, so
a response is bit-identical whatever was asked before it, with any number of threads, and after resumption.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from persona_studies.backends import ModelInfo, Request, RequestKey, Response
from persona_studies.chat import ChatTemplate, detect
from persona_studies.errors import BackendError

try:
    import llama_cpp as llama
except ImportError as missing:  # pragma: no cover - depends on the environment
    raise BackendError(
        "This model runs on llama.cpp, which is not installed here. Install the extra `live`: "
        'pip install -e ".[live]" (compiles for about ten minutes; conda-forge has llama-cpp-python prebuilt).'
    ) from missing

CONTEXT = 2048
BATCH = 512
SEQUENCES = 128


# llama-cpp-python ships no types.
@llama.llama_log_callback  # type: ignore[untyped-decorator]
def _silence(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    """llama.cpp narrates every load on stderr; its errors come back as return codes."""


class LlamaCpp:
    """A GGUF model in this process."""

    def __init__(self, path: Path, *, name: str, sha256: str | None = None, threads: int = 2) -> None:
        """Load a model file after checking what it is.

        Args:
            path: GGUF file.
            name: Short name of the model.
            sha256: Expected hash of the file; None takes the file as it is and records its hash.
            threads: CPU threads. The responses do not depend on it.

        Raises:
            BackendError: the file is missing, has another hash, or cannot be loaded.
        """
        if not path.is_file():
            raise BackendError(f"No model file {path}.")
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 is not None and actual != sha256:
            raise BackendError(f"{path.name} has sha256 {actual}, expected {sha256}; fetch the file again.")
        llama.llama_log_set(_silence, ctypes.c_void_p(0))
        llama.llama_backend_init()
        self._model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
        if not self._model:
            raise BackendError(f"llama.cpp cannot load {path.name}; is it a GGUF file of a supported model?")
        self._vocab = llama.llama_model_get_vocab(self._model)
        self._n_vocab: int = llama.llama_vocab_n_tokens(self._vocab)
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = CONTEXT, BATCH, BATCH
        params.n_seq_max, params.kv_unified = SEQUENCES, True
        params.n_threads = params.n_threads_batch = threads
        self._context = llama.llama_init_from_model(self._model, params)
        self._memory = llama.llama_get_memory(self._context)
        self._batch = llama.llama_batch_init(BATCH, 0, SEQUENCES)
        template = llama.llama_model_chat_template(self._model, None)
        self.chat: ChatTemplate = detect(template.decode() if template else None)
        self._stop = {int(llama.llama_vocab_eos(self._vocab)), int(llama.llama_vocab_eot(self._vocab))}
        self._prefix: list[int] = []
        self.info = ModelInfo(
            name=name,
            model_hash=actual,
            backend="llama.cpp",
            version=version("llama-cpp-python"),
            schedule="canonical",
            chat=self.chat.name,
        )

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

    def respond(self, requests: Iterable[Request]) -> Iterator[Response]:
        for request in requests:
            yield self._respond(request)

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

    def _respond(self, request: Request) -> Response:
        head, tail = self.chat.render(request.system, request.shared, request.user)
        whole = self.tokenize(head + tail)
        prefix = _common(self.tokenize(head), whole)
        suffix = whole[len(prefix) :]
        options = [self.tokenize(option, special=False) for option in request.options]
        if request.kind == "letter" and (
            long := [o for o, t in zip(request.options, options, strict=True) if len(t) != 1]
        ):
            raise BackendError(
                f"Labels {long} are more than one token for {self.info.name}; `letter` needs one-token labels."
            )
        room = max((len(option) for option in options), default=0) + request.max_tokens
        if len(whole) + room > CONTEXT or max(map(len, (prefix, suffix))) > BATCH * 3:
            raise BackendError(f"A prompt of {len(whole)} tokens exceeds the context of {CONTEXT}.")
        decoding: dict[str, int | float | str] = {"kind": request.kind}
        if request.kind == "text":
            decoding |= {"max_tokens": request.max_tokens, "temperature": 0}
        key = RequestKey(self.info, self.chat.name, [len(prefix), *whole], options, decoding).digest()
        computed = self._start(prefix) + self._forward(suffix, len(prefix))
        first = self._logits(-1)
        if request.kind == "text":
            text, finish, steps = self._greedy(first, len(whole), request.max_tokens)
            return Response(key, finish, len(whole), computed + steps, text=text)
        scale = _log_sum_exp(first)
        log_p = first.astype(np.float64) - scale
        mass = float(np.exp(log_p[sorted({option[0] for option in options})]).sum())
        entropy = float(-(np.exp(log_p) * log_p).sum())
        top = self._piece(int(first.argmax()))
        sums, branches = self._branches(options, log_p, len(whole))
        return Response(
            key,
            "scored",
            len(whole),
            computed + branches,
            logprob=tuple(float(np.float32(value)) for value in sums),
            n_tokens=tuple(len(option) for option in options),
            option_mass=float(np.float32(mass)),
            entropy=float(np.float32(entropy)),
            top_token=top,
        )

    def _start(self, prefix: list[int]) -> int:
        """Make the cache hold exactly ``prefix``; return how many tokens that took."""
        if prefix == self._prefix:
            llama.llama_memory_seq_rm(self._memory, 0, len(prefix), -1)
            return 0
        # A shorter or longer common start is not reused: the batch that computed it would differ.
        llama.llama_memory_clear(self._memory, False)
        self._prefix = []
        if prefix:
            self._forward(prefix, 0, logits=False)
        self._prefix = prefix
        return len(prefix)

    def _forward(self, tokens: list[int], position: int, *, logits: bool = True) -> int:
        """Decode ``tokens`` on the main sequence, in pieces of at most one batch."""
        for start in range(0, len(tokens), BATCH):
            piece = tokens[start : start + BATCH]
            last = logits and start + BATCH >= len(tokens)
            self._decode(
                [(token, position + start + i, (0,), last and i == len(piece) - 1) for i, token in enumerate(piece)]
            )
        return len(tokens)

    def _branches(
        self, options: list[list[int]], first: NDArray[np.float64], position: int
    ) -> tuple[list[float], int]:
        """Sum each option's log-probability; starts that options share are decoded once."""
        sums = [float(first[option[0]]) for option in options]
        nodes: dict[tuple[int, ...], list[int]] = {}
        for index, option in enumerate(options):
            for depth in range(1, len(option)):
                nodes.setdefault(tuple(option[:depth]), []).append(index)
        for index in range(len(options)):
            llama.llama_memory_seq_cp(self._memory, 0, index + 1, 0, -1)
        paths = list(nodes)
        for start in range(0, len(paths), BATCH):
            group = paths[start : start + BATCH]
            self._decode(
                [(path[-1], position + len(path) - 1, tuple(i + 1 for i in nodes[path]), True) for path in group]
            )
            for row, path in enumerate(group):
                logits = self._logits(row)
                scale = _log_sum_exp(logits)
                for index in nodes[path]:
                    sums[index] += float(logits[options[index][len(path)]]) - scale
        for index in range(len(options)):
            llama.llama_memory_seq_rm(self._memory, index + 1, -1, -1)
        return sums, len(nodes)

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
        return np.ctypeslib.as_array(pointer, shape=(self._n_vocab,))

    def _piece(self, token: int) -> str:
        buffer = ctypes.create_string_buffer(64)
        size = llama.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, True)
        return buffer.raw[: max(size, 0)].decode(errors="replace")

    def _text(self, tokens: list[int]) -> str:
        buffer = ctypes.create_string_buffer(64 * max(len(tokens), 1))
        ids = (llama.llama_token * len(tokens))(*tokens)
        size = llama.llama_detokenize(self._vocab, ids, len(tokens), buffer, len(buffer), False, False)
        return buffer.raw[: max(size, 0)].decode(errors="replace")


def _common(prefix: list[int], whole: list[int]) -> list[int]:
    """Return the tokens that ``prefix`` and ``whole`` start with alike.

    Tokenising a prompt in two parts may merge differently at the seam; only what agrees may be shared.
    """
    same = 0
    for a, b in zip(prefix, whole, strict=False):
        if a != b:
            break
        same += 1
    return whole[:same]


def _log_sum_exp(logits: NDArray[np.float32]) -> float:
    top = float(logits.max())
    return top + float(np.log(np.exp(logits - np.float32(top)).sum(dtype=np.float64)))
