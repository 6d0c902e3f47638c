"""transformers on one GPU; on a CPU, the reference that every backend is compared with.

*Batched schedule*: the shared starts of the prompts go through the model once; their cache then serves every
row of a batch. A row is the rest of one prompt followed by the tokens of all its options (each one's last left
out), arranged as a tree: a token sees its shared start, the rest of its prompt and what precedes it in its own
option. So an item costs one forward pass, whatever is asked of it, and only the positions that are read go
through the output layer. A response depends, in its last digits, on what it was batched with.

*Single schedule*: every option by itself, one whole prompt at a time, no cache, the model's own output. Slow,
and as close to the definition as it gets; ``float32`` unless asked otherwise.

Shapes are rounded up (lengths to multiples of 16, rows to powers of two) so that they repeat, and batches are
launched ahead of the ones that are read, so that tokenising goes on while the device computes.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona_studies.ask import model_files, planner
from persona_studies.ask.backends import ModelInfo, Request, Response, Size
from persona_studies.ask.chat import Chat, detect
from persona_studies.errors import BackendError

try:
    import tokenizers  # type: ignore[import-not-found, unused-ignore]
    import torch
    import transformers
except ImportError as missing:  # pragma: no cover - depends on the environment
    raise BackendError(
        "This model runs on transformers and torch, which are not installed here. Install the extra `gpu`: make gpu"
    ) from missing

SCHEDULES = {"batched": "bfloat16", "single": "float32"}
DTYPES = ("bfloat16", "float32")
ROWS = {"cuda": 1024, "cpu": 16}
TEXTS = 64
# Batches drawn together and sorted by length, and batches on the device that are not read yet.
WINDOW = 4
AHEAD = 3
BUCKET = 16
# Tokens of shared starts held at once: at most 9 GB for a model of 8 billion parameters.
HELD = 65_536
# Positions that go through the output layer together: 0.8 GB for a vocabulary of 50,000.
READ = 4_096
# Compilation takes about a minute: it pays for work that has already taken as long.
COMPILE_AFTER = 60.0
FAR = 1 << 30


@dataclass(frozen=True)
class _Tree:
    """The options of a request as branches behind its prompt, in the order of a walk into the depth.

    Attributes:
        tokens: Token of every node.
        depth: Nodes above every node.
        end: Place behind the last node below every node.
        first: First token of every option.
        fresh: Whether no earlier option starts with the same token.
        node, target, option: What is read behind the nodes: the log-probability of ``target`` behind ``node``
            belongs to ``option``.
    """

    tokens: tuple[int, ...]
    depth: NDArray[np.int64]
    end: NDArray[np.int64]
    first: NDArray[np.int64]
    fresh: NDArray[np.bool_]
    node: NDArray[np.int64]
    target: NDArray[np.int64]
    option: NDArray[np.int64]

    @classmethod
    def of(cls, options: Sequence[Sequence[int]]) -> _Tree:
        paths = sorted({tuple(option[:n]) for option in options for n in range(1, len(option))})
        place = {path: i for i, path in enumerate(paths)}
        # Sorting puts a path right before everything that begins with it.
        end = [
            next((j for j in range(i + 1, len(paths)) if paths[j][: len(path)] != path), len(paths))
            for i, path in enumerate(paths)
        ]
        read = sorted(
            (place[tuple(option[:n])], option[n], o)
            for o, option in enumerate(options)
            for n in range(1, len(option))
        )
        first = [option[0] for option in options]
        return cls(
            tokens=tuple(path[-1] for path in paths),
            depth=np.array([len(path) - 1 for path in paths], dtype=np.int64),
            end=np.array(end, dtype=np.int64),
            first=np.array(first, dtype=np.int64),
            fresh=np.array([token not in first[:o] for o, token in enumerate(first)], dtype=bool),
            node=np.array([row[0] for row in read], dtype=np.int64),
            target=np.array([row[1] for row in read], dtype=np.int64),
            option=np.array([row[2] for row in read], dtype=np.int64),
        )


@dataclass(frozen=True)
class _Job:
    place: int
    request: Request
    prompt: planner.Prompt
    head: tuple[int, ...]
    tree: _Tree

    @property
    def length(self) -> int:
        return len(self.prompt.suffix) + len(self.tree.tokens)


@dataclass(frozen=True)
class _Flight:
    """A batch on the device: ``found`` holds its answers once ``done`` has happened."""

    jobs: list[_Job]
    found: Any
    done: Any
    launched: float


class _Starts(transformers.Cache):  # type: ignore[misc]
    """Shared starts as the past of every row. Nothing is stored: a layer's keys are joined when it asks."""

    def __init__(self, layers: Sequence[tuple[Any, Any]], rows: Any) -> None:
        super().__init__(layers=[])
        self._past = layers
        self._rows = rows

    def update(self, keys: Any, values: Any, layer_idx: int, *args: Any, **how: Any) -> tuple[Any, Any]:
        past_keys, past_values = self._past[layer_idx]
        return (
            torch.cat([past_keys.index_select(0, self._rows), keys], dim=2),
            torch.cat([past_values.index_select(0, self._rows), values], dim=2),
        )

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return int(self._past[layer_idx][0].shape[2])


class Transformers:
    """A causal language model in this process."""

    def __init__(
        self,
        source: str | Path,
        *,
        name: str,
        revision: str | None = None,
        dtype: str | None = None,
        schedule: str = "batched",
        batch: int | None = None,
        device: str | None = None,
        compile: bool | None = None,
        sha256: str | None = None,
        chat: str | None = None,
    ) -> None:
        """Load a model, and check that its fast schedule computes what a plain forward pass does.

        Weights are read from safetensors or GGUF only, and no code of a model's repository is run.

        Args:
            source: Folder with safetensors, GGUF file (its weights are dequantised), or ``OWNER/NAME`` on the hub.
            name: Short name of the model.
            revision: Commit of a hub model, 40 hexadecimal digits.
            dtype: ``bfloat16`` or ``float32``; None takes ``bfloat16`` for batches, ``float32`` for singles.
            schedule: ``batched`` or ``single``.
            batch: Requests per pass; None takes 1,024 on a GPU and 16 on a CPU. Halved when memory runs out.
            device: Of torch; None takes the first GPU if there is one.
            compile: Whether to compile the pass; None does so on a GPU once a minute of work is behind it.
            sha256: Expected hash of the GGUF file or of the folder's weights.
            chat: How turns are marked, a family or a file; None takes the model's own template.

        Raises:
            BackendError: the model is missing, has another hash, needs code of its own, has a tokeniser or chat
                template that is not supported, or does not allow for shared starts.
        """
        for what, value, known in (("schedule", schedule, tuple(SCHEDULES)), ("dtype", dtype, (None, *DTYPES))):
            if value not in known:
                choice = ", ".join(filter(None, known))
                raise BackendError(f"Unknown {what} {value!r} of transformers; known: {choice}.")
        where, digest = _origin(source, revision)
        if sha256 is not None and digest != sha256:
            raise BackendError(f"{source} has the hash {digest}, expected {sha256}; fetch the model again.")
        dtype = dtype or SCHEDULES[schedule]
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._tokenizer, self._model = _load(where, getattr(torch, dtype))
        self._model.to(self._device).eval()
        self._config = self._model.config.get_text_config()
        self._context = _context(self._config)
        # What a repository recommends for sampling (repetition penalties, temperatures) must not enter.
        recommended = self._model.generation_config
        self._model.generation_config = transformers.GenerationConfig()
        self._encode = _Encoder(self._tokenizer)
        self.chat = _turns(self._tokenizer, self._encode, name, chat)
        ends = [self._tokenizer.eos_token_id, getattr(recommended, "eos_token_id", None)]
        self._stop = {i for end in ends if end is not None for i in (end if isinstance(end, list) else [end])}
        for marker in self.chat.stop:
            tokens = self._encode(marker, True)
            self._stop |= set(tokens) if len(tokens) == 1 else set()
        self.info = ModelInfo(
            name=name,
            model_hash=digest,
            backend="transformers",
            version=f"torch {torch.__version__}, transformers {transformers.__version__}",
            schedule=schedule,
            chat=self.chat.name,
            precision=dtype,
        )
        self._identity = json.dumps(asdict(self.info), sort_keys=True, separators=(",", ":"))
        self._batch = batch or ROWS.get(self._device.type, ROWS["cuda"])
        self._trees: dict[tuple[str, ...], _Tree] = {}
        self._openings: dict[tuple[str, int, tuple[str, ...]], str] = {}
        self._pieces: dict[int, str] = {}
        self._digits = lru_cache(maxsize=8192)(_digits)
        self._held: dict[tuple[int, ...], int] = {}
        self._layers: list[tuple[Any, Any]] = []
        self._compile = compile
        self._pass: Any = None
        self._spent = self._landed = 0.0
        if schedule == "batched":
            self._check()
            if compile:
                self._pass = torch.compile(self._forward)

    def close(self) -> None:
        del self._model
        self._layers, self._held, self._pass = [], {}, None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Return token ids. ``special`` reads turn markers as such; options are read as plain text."""
        return list(self._encode(text, special))

    def size(self, request: Request) -> Size:
        return self._tokenise(request).size(request.max_tokens)

    def respond(self, requests: Iterable[Request]) -> Iterator[tuple[int, Response]]:
        if self.info.schedule == "single":
            for place, request in enumerate(requests):
                job = self._job(place, request)
                yield from self._texts([job]) if request.kind == "text" else [self._single(job)]
            return
        flights: deque[_Flight] = deque()
        for jobs in self._windows(requests):
            if jobs[0].request.kind == "text":
                yield from self._texts(jobs)
                continue
            self._hold({job.head: None for job in jobs})
            # Stable: where lengths agree, neighbours stay neighbours.
            jobs.sort(key=lambda job: -(-job.length // BUCKET))
            for start in range(0, len(jobs), self._batch):
                for flight in self._launch_fitting(jobs[start : start + self._batch]):
                    flights.append(flight)
                    while len(flights) > AHEAD:
                        yield from self._land(flights.popleft())
        while flights:
            yield from self._land(flights.popleft())

    def _tokenise(self, request: Request) -> planner.Prompt:
        prompt = planner.tokenise(request, self.chat, self._encode, model=self.info.name, marks=self._encode.marks)
        n = len(prompt.prefix) + len(prompt.suffix) + max(map(len, prompt.options), default=1) - 1
        if n + request.max_tokens > self._context:
            raise BackendError(
                f"A prompt of {n} tokens ({(request.shared + request.user)[:60]!r}) and {request.max_tokens} to "
                f"generate exceed the {self._context} of {self.info.name}; shorten it or take another model."
            )
        return prompt

    def _job(self, place: int, request: Request) -> _Job:
        prompt = self._tokenise(request)
        if (tree := self._trees.get(request.options)) is None:
            if len(self._trees) > 4096:
                self._trees.clear()
            tree = self._trees[request.options] = _Tree.of(prompt.options)
        return _Job(place, request, prompt, tuple(prompt.prefix), tree)

    def _windows(self, requests: Iterable[Request]) -> Iterator[list[_Job]]:
        """Draw requests in runs that are answered together: all scored, or all texts of one length."""
        jobs: list[_Job] = []
        heads: set[tuple[int, ...]] = set()
        longest = 0
        for place, request in enumerate(requests):
            job = self._job(place, request)
            text = request.kind == "text"
            longest = max(longest, len(job.head))
            more = len(heads | {job.head}) if job.head not in heads else len(heads)
            if jobs and (
                request.max_tokens != jobs[0].request.max_tokens
                or text != (jobs[0].request.kind == "text")
                or len(jobs) >= (min(self._batch, TEXTS) if text else self._batch * WINDOW)
                or (more > len(heads) and (more > max(1, self._batch // 4) or more * longest > HELD))
            ):
                yield jobs
                jobs, heads, longest = [], set(), len(job.head)
            jobs.append(job)
            heads.add(job.head)
        if jobs:
            yield jobs

    def _hold(self, heads: dict[tuple[int, ...], None]) -> None:
        """Compute shared starts, several in one pass, unless they are still held."""
        if self._held and heads.keys() <= self._held.keys():
            return
        self._layers = []
        width = _up(max(map(len, heads)))
        # Padding behind a start is never seen: later tokens are masked by its true length.
        ids = np.zeros((_rows(len(heads)), width), dtype=np.int64)
        for row, head in enumerate(heads):
            ids[row, : len(head)] = head
        parts: list[list[tuple[Any, Any]]] = []
        step = max(1, HELD // 4 // width)
        with torch.no_grad():
            for start in range(0, len(ids), step):
                cache = transformers.DynamicCache()
                self._model.base_model(
                    input_ids=self._on_device(ids[start : start + step]), past_key_values=cache, use_cache=True
                )
                parts.append([(layer.keys, layer.values) for layer in cache.layers])
            self._layers = [
                (torch.cat([k for k, _ in layer]), torch.cat([v for _, v in layer]))
                for layer in zip(*parts, strict=True)
            ]
        self._held = {head: row for row, head in enumerate(heads)}

    def _forward(self, ids: Any, position: Any, end: Any, start: Any, row: Any, layers: Any) -> Any:
        """Return the hidden states of rows behind their shared starts.

        Args:
            ids, position, end: Per row and column; ``end`` is the first column that no longer sees this one.
            start: Length of each row's shared start.
            row: Which shared start is each row's.
            layers: Keys and values of the shared starts.
        """
        past, own = layers[0][0].shape[2], ids.shape[1]
        slot = torch.arange(past + own, device=ids.device)
        query = slot[past:, None]
        last = torch.cat([torch.where(slot[:past] < start[:, None], FAR, 0), end + past], dim=1)
        seen = (slot <= query) & (query < last[:, None, :])
        mask = torch.where(seen, 0.0, torch.finfo(self._model.dtype).min).to(self._model.dtype)[:, None]
        return self._model.base_model(
            input_ids=ids,
            position_ids=position,
            attention_mask=mask,
            past_key_values=_Starts(layers, row),
            use_cache=True,
        ).last_hidden_state

    def _run(self, *given: Any) -> Any:
        """Do the pass, compiled where that pays."""
        if (
            self._pass is None
            and self._compile is None
            and self._device.type == "cuda"
            and self._spent > COMPILE_AFTER
        ):
            self._pass = torch.compile(self._forward)
        if self._pass is None:
            return self._forward(*given)
        try:
            return self._pass(*given)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            if self._compile:
                raise BackendError(
                    f"torch cannot compile {self.info.name} ({reason}); load it with compile=False."
                ) from error
            warnings.warn(f"torch cannot compile {self.info.name}; going on without: {reason}", stacklevel=2)
            self._compile, self._pass = False, None
            return self._forward(*given)

    def _launch_fitting(self, jobs: list[_Job]) -> Iterator[_Flight]:
        """Launch a batch, in halves where it does not fit into the device's memory."""
        try:
            flight = self._launch(jobs)
        except torch.OutOfMemoryError as error:
            if len(jobs) == 1:
                raise BackendError(
                    f"{self.info.name} does not fit into the memory of {self._device} even with one request at a "
                    "time; take a smaller model, or another device."
                ) from error
            torch.cuda.empty_cache()
            half = self._batch = -(-len(jobs) // 2)
            for part in (jobs[:half], jobs[half:]):
                yield from self._launch_fitting(part)
        else:
            yield flight

    def _launch(self, jobs: list[_Job]) -> _Flight:
        """Put a batch on its way; nothing here waits for the device."""
        launched = time.perf_counter()
        n, trees = len(jobs), [job.tree for job in jobs]
        start = np.array([len(job.head) for job in jobs])
        suffix = np.array([len(job.prompt.suffix) for job in jobs])
        nodes = np.array([len(tree.tokens) for tree in trees])
        options = np.array([len(tree.first) for tree in trees])
        rows, width = min(_rows(n), max(self._batch, n)), _up(int((suffix + nodes).max()))
        column = np.arange(width)
        used = column < (suffix + nodes)[:, None]
        given = np.zeros((3, rows, width), dtype=np.int64)
        ids, position, end = given
        tokens = chain.from_iterable(chain(job.prompt.suffix, job.tree.tokens) for job in jobs)
        ids[:n][used] = np.fromiter(tokens, dtype=np.int64, count=int((suffix + nodes).sum()))
        position[:n] = np.where(used, start[:, None] + column, 0)
        # Padding sees itself only: a row of the softmax must not be empty.
        end[:] = column + 1
        end[:n][column < suffix[:, None]] = FAR
        first = np.arange(n) * width + suffix - 1
        at, target = [np.repeat(np.arange(n), options)], [np.concatenate([tree.first for tree in trees])]
        read = first
        if nodes.any():
            branch = used & (column >= suffix[:, None])
            behind = np.repeat(suffix, nodes)
            end[:n][branch] = behind + np.concatenate([tree.end for tree in trees])
            depth = np.concatenate([tree.depth for tree in trees])
            position[:n][branch] = np.repeat(start, nodes) + behind + depth
            read = np.concatenate([first, np.flatnonzero(branch)])
            offset = n + np.cumsum(nodes) - nodes
            at.append(np.concatenate([place + tree.node for place, tree in zip(offset, trees, strict=True)]))
            target.append(np.concatenate([tree.target for tree in trees]))
        where = np.zeros((2, rows), dtype=np.int64)
        where[0, :n] = start
        where[1, :n] = [self._held[job.head] for job in jobs]
        with torch.no_grad():
            hidden = self._run(*self._on_device(given), *self._on_device(where), self._layers)
            found = self._read(hidden.flatten(0, 1), read, np.concatenate(at), np.concatenate(target), n)
            done = None
            if self._device.type == "cuda":
                # Copied right behind the batch itself: asked for later, it would wait for the batches between.
                host = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
                found, done = host.copy_(found, non_blocking=True), torch.cuda.Event()
                done.record()
        return _Flight(jobs, found, done, launched)

    def _read(
        self, hidden: Any, read: NDArray[np.int64], at: NDArray[np.int64], target: NDArray[np.int64], n: int
    ) -> Any:
        """Return, as one vector, log-probabilities, then the entropy and the best token of the first n places.

        Args:
            hidden: Hidden states, (places, size).
            read: Places that are read.
            at: For every log-probability, which of ``read`` it is read at; ascending.
            target: For every log-probability, the token.
            n: So many of ``read``, the first ones, are ends of prompts.
        """
        places, where, token = (self._on_device(array) for array in (read, at, target))
        scores, entropies, best = [], [], []
        for begin in range(0, len(read), READ):
            stop = min(begin + READ, len(read))
            logits = self._logits(hidden.index_select(0, places[begin:stop]))
            scale = logits.logsumexp(dim=1)
            low, high = np.searchsorted(at, [begin, stop])
            row = where[low:high] - begin
            scores.append(logits[row, token[low:high]] - scale[row])
            if begin < n:
                log_p = logits[: n - begin] - scale[: n - begin, None]
                entropies.append(-(log_p.exp() * log_p).sum(dim=1))
                best.append(log_p.argmax(dim=1).float())
        # Token ids are below 2**24, so a float32 holds them exactly.
        return torch.cat([*scores, *entropies, *best])

    def _logits(self, hidden: Any) -> Any:
        """Return logits in float32: bfloat16's own rounding would move one of 20 by up to 0.06."""
        head = self._model.get_output_embeddings()
        if hidden.is_cuda and hidden.dtype != torch.float32:
            logits = torch.mm(hidden, head.weight.t(), out_dtype=torch.float32)
        else:
            logits = hidden.float() @ head.weight.float().t()
        if getattr(head, "bias", None) is not None:
            logits = logits + head.bias.float()
        if (cap := getattr(self._config, "final_logit_softcapping", None)) is not None:
            logits = torch.tanh(logits / cap) * cap
        return logits

    def _land(self, flight: _Flight) -> Iterator[tuple[int, Response]]:
        """Wait for a batch and yield its responses."""
        if flight.done is not None:
            flight.done.synchronize()
        now = time.perf_counter()
        self._spent += now - max(flight.launched, self._landed)
        self._landed = now
        jobs, found = flight.jobs, flight.found.numpy()
        n = len(jobs)
        options = np.array([len(job.tree.first) for job in jobs])
        begin = np.cumsum(options) - options
        if np.isnan(found).any():
            raise _no_numbers(self.info)
        scores, entropies, best = found[: -2 * n], found[-2 * n : -n], found[-n:]
        first = scores[: options.sum()].astype(np.float64)
        fresh = np.concatenate([job.tree.fresh for job in jobs])
        mass = np.add.reduceat(np.exp(first) * fresh, begin).astype(np.float32).tolist()
        total = first
        if len(scores) > len(first):
            owner = np.concatenate([at + job.tree.option for at, job in zip(begin, jobs, strict=True)])
            np.add.at(total, owner, scores[len(first) :].astype(np.float64))
        logprob = total.astype(np.float32).tolist()
        for job, at, end, own_mass, entropy, token in zip(
            jobs, begin.tolist(), (begin + options).tolist(), mass, entropies.tolist(), best.tolist(), strict=True
        ):
            yield (
                job.place,
                Response(
                    self._key(job),
                    "scored",
                    len(job.head) + len(job.prompt.suffix),
                    job.length,
                    logprob=tuple(logprob[at:end]),
                    n_tokens=tuple(map(len, job.prompt.options)),
                    option_mass=own_mass,
                    entropy=entropy,
                    top_token=self._piece(int(token)),
                ),
            )

    def _single(self, job: _Job) -> tuple[int, Response]:
        """Score every option by a pass of its own over the whole prompt, through the model's own output."""
        whole, options = job.prompt.whole, job.prompt.options
        n = len(whole)
        total, start, computed = [], None, 0
        for option in options:
            ids = self._on_device(np.array([whole + option[:-1]]))
            with torch.no_grad():
                logits = self._model(input_ids=ids, use_cache=False).logits[0, n - 1 :].float()
                log_p = torch.log_softmax(logits, dim=1).cpu()
            start = log_p[0] if start is None else start
            total.append(sum(float(log_p[i, token]) for i, token in enumerate(option)))
            computed += n + len(option) - 1
        assert start is not None
        if not np.isfinite(total).any() or bool(start.isnan().any()):
            raise _no_numbers(self.info)
        distinct = sorted({option[0] for option in options})
        return job.place, Response(
            self._key(job),
            "scored",
            n,
            computed,
            logprob=tuple(float(np.float32(value)) for value in total),
            n_tokens=tuple(map(len, options)),
            option_mass=float(start[distinct].exp().sum()),
            entropy=float(-(start.exp() * start).sum()),
            top_token=self._piece(int(start.argmax())),
        )

    def _texts(self, jobs: list[_Job]) -> Iterator[tuple[int, Response]]:
        """Continue prompts greedily, padded on the left to a common length."""
        limit = jobs[0].request.max_tokens
        width = max(len(job.prompt.whole) for job in jobs)
        given = np.zeros((2, len(jobs), width), dtype=np.int64)
        for row, job in enumerate(jobs):
            given[0, row, width - len(job.prompt.whole) :] = job.prompt.whole
            given[1, row, width - len(job.prompt.whole) :] = 1
        how = transformers.GenerationConfig(
            do_sample=False, max_new_tokens=limit, eos_token_id=sorted(self._stop) or None, pad_token_id=0
        )
        ids, mask = self._on_device(given)
        with torch.no_grad():
            made = self._model.generate(input_ids=ids, attention_mask=mask, generation_config=how)
        for job, row in zip(jobs, made[:, width:].tolist(), strict=True):
            length = next((i for i, token in enumerate(row) if token in self._stop), None)
            text = self._tokenizer.decode(
                row[:length], skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            # A marker that is no token of its own can hide inside one.
            cut = [text.index(marker) for marker in self.chat.stop if marker in text]
            steps = len(row) if length is None else length
            yield (
                job.place,
                Response(
                    self._key(job),
                    "stop" if cut or length is not None else "length",
                    len(job.prompt.whole),
                    len(job.prompt.whole) + steps,
                    text=text[: min(cut)] if cut else text,
                ),
            )

    def _key(self, job: _Job) -> str:
        """Return the digest of the request's :class:`RequestKey`; written out, because that takes a tenth of it."""
        request = job.request
        known = request.kind, request.max_tokens, request.options
        if (opening := self._openings.get(known)) is None:
            decoding: dict[str, int | float | str] = {"kind": request.kind}
            if request.kind == "text":
                decoding |= {"max_tokens": request.max_tokens, "temperature": 0}
            options = json.dumps(job.prompt.options, separators=(",", ":"))
            if len(self._openings) > 4096:
                self._openings.clear()
            opening = self._openings[known] = (
                f'{{"decoding":{json.dumps(decoding, separators=(",", ":"))},"info":{self._identity},'
                f'"options":{options},"template":"{self.chat.name}","tokens":['
            )
        parts = filter(None, (self._digits(job.head), self._digits(tuple(job.prompt.suffix))))
        canonical = f"{opening}{len(job.head)},{','.join(parts)}]}}"
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def _piece(self, token: int) -> str:
        if (text := self._pieces.get(token)) is None:
            text = self._pieces[token] = self._tokenizer.decode([token], clean_up_tokenization_spaces=False)
        return text

    def _on_device(self, array: NDArray[Any]) -> Any:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self._device.type != "cuda":
            return tensor.to(self._device)
        # From pageable memory, a copy would wait for everything that was launched before it.
        return tensor.pin_memory().to(self._device, non_blocking=True)

    def _check(self) -> None:
        """Compare one request with a plain forward pass.

        Raises:
            BackendError: they differ, or the pass fails: windows, recurrent states or scaled outputs.
        """
        request = Request(
            "cloze",
            "One two three.",
            "",
            "The days of the week are Monday, Tuesday and so on. Is it so?",
            ("yes, it is", "yes, it was", "no"),
        )
        try:
            [(_, given)] = self.respond([request])
            _, expected = self._single(self._job(0, request))
            apart = max(abs(a - b) for a, b in zip(given.logprob, expected.logprob, strict=True))
        except BackendError:
            raise
        except Exception as error:
            apart, reason = np.inf, f": {str(error).strip().partition(chr(10))[0]}"
        else:
            reason = f", off by {apart:.2g} nats"
        if not apart < (0.01 if self.info.precision == "float32" else 1.0):
            raise BackendError(
                f"{self.info.name} ({self._config.model_type}) does not compute the same from a shared start as "
                f"from the whole prompt{reason}; load it with schedule='single'."
            )


class _Encoder:
    """Text to token ids, through a cache of the pieces between turn markers.

    Turn markers split a text before anything else does, so a persona and an item are tokenised once, not once
    per cell. Where a tokeniser's markers also take in the spaces around them, or where its result depends on
    what stands before, whole texts are tokenised.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer.backend_tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        marks = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        loose = any(
            token.lstrip or token.rstrip or token.single_word
            for token in tokenizer.added_tokens_decoder.values()
            if token.special
        )
        self._marks = marks
        choice = "|".join(re.escape(mark) for mark in sorted(marks, key=len, reverse=True))
        self.marks = re.compile(choice or r"(?!)")
        self._split = re.compile(f"({choice})")
        self._spoken = lru_cache(maxsize=65_536)(self._whole)
        self._plain = lru_cache(maxsize=4_096)(self._literal)
        self._text = lru_cache(maxsize=256)(self._joined)
        samples = [f"{a}{mark}{b}" for mark in marks for a, b in (("Yes, 12", "so\n"), (" x\n", " y"), ("", "\n"))]
        if not marks or loose or any(self._joined(text) != self._whole(text) for text in samples):
            self._text = lru_cache(maxsize=4_096)(self._whole)

    def __call__(self, text: str, special: bool) -> tuple[int, ...]:
        return self._text(text) if special else self._plain(text)

    def _joined(self, text: str) -> tuple[int, ...]:
        ids: list[int] = []
        for place, piece in enumerate(self._split.split(text)):
            if place % 2:
                ids.append(self._marks[piece])
            elif piece:
                ids += self._spoken(piece)
        return tuple(ids)

    def _whole(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _literal(self, text: str) -> tuple[int, ...]:
        self._tokenizer.encode_special_tokens = True
        try:
            return self._whole(text)
        finally:
            self._tokenizer.encode_special_tokens = False


def _no_numbers(info: ModelInfo) -> BackendError:
    return BackendError(
        f"{info.name} computes values that are no numbers (NaN or infinite) in {info.precision}: its weights are "
        "damaged, or overflow; try --precision f32, or another model."
    )


def _turns(tokenizer: Any, encode: planner.Encode, name: str, chosen: str | None) -> Chat:
    """Return how a model marks turns, with the begin token that its tokeniser sets.

    Raises:
        BackendError: its template cannot be used.
    """
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    texts = {key: str(text) for key, text in tokenizer.special_tokens_map.items() if isinstance(text, str)}
    needed = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    chat = detect(template, texts, chosen=chosen).beginning(tokenizer.bos_token if needed else None)
    planner.check_beginning(chat, encode, tokenizer.bos_token_id, needed=needed, model=name)
    return chat


def _origin(source: str | Path, revision: str | None) -> tuple[dict[str, Any], str]:
    """Return what the loaders are told, and the hash or revision of the weights.

    Raises:
        BackendError: nothing there, or a hub model without a pinned revision.
    """
    path = Path(source).expanduser()
    if path.suffix == ".gguf":
        parts = model_files.files(path)
        if len(parts) > 1:
            raise BackendError(f"transformers reads no GGUF model in {len(parts)} files; take --backend llama.cpp.")
        where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
        return where, model_files.sha256(parts)
    safe = {"pretrained_model_name_or_path": str(source), "use_safetensors": True}
    if path.is_dir():
        weights = sorted(path.glob("*.safetensors"))
        if not weights:
            raise BackendError(
                f"{path} holds no *.safetensors; other formats of weights can run code and are not read."
            )
        return {**safe, "pretrained_model_name_or_path": str(path)}, model_files.sha256(weights)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        raise BackendError(f"{source} is no folder, no GGUF file and no OWNER/NAME of the hub.")
    if revision is None or not re.fullmatch("[0-9a-f]{40}", revision):
        raise BackendError(
            f"The hub model {source} needs a pinned revision, 40 hexadecimal digits of a commit, not {revision!r}: "
            f"hf:{source}@REVISION. The model's page lists its commits under `Files and versions`."
        )
    return {**safe, "revision": revision}, revision


def _load(where: dict[str, Any], dtype: Any) -> tuple[Any, Any]:
    """Return tokeniser and model.

    Raises:
        BackendError: they cannot be loaded without running code of their own, or have no fast tokeniser.
    """
    source = where["pretrained_model_name_or_path"]
    transformers.utils.logging.disable_progress_bar()
    read = {key: value for key, value in where.items() if key != "use_safetensors"}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(**read, trust_remote_code=False)
        model = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=dtype, trust_remote_code=False)
    except Exception as error:  # What a foreign file can set off has no common class.
        reason = str(error).strip().partition("\n")[0]
        if "trust_remote_code" in str(error):
            reason = "it needs code of its own repository, which is never run; take a model that transformers knows"
        raise BackendError(f"transformers cannot load {source}: {reason}") from error
    if getattr(model.config.get_text_config(), "attn_logit_softcapping", None) is not None:
        # Only the plain implementation of attention caps its scores.
        model.set_attn_implementation("eager")
    if "gguf_file" in where and _split_of(Path(source) / where["gguf_file"]) == "smollm":
        # transformers does not read how a GGUF file splits text; this family keeps spaces apart from digits.
        digits = tokenizers.pre_tokenizers.Digits(individual_digits=True)
        level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.backend_tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([digits, level])
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise BackendError(f"{source} has no fast tokeniser; it needs a tokenizer.json.")
    return tokenizer, model


def _split_of(path: Path) -> str | None:
    """Return how a GGUF file says that text is split before it is tokenised."""
    import gguf  # Folders and hub models do without.

    field = gguf.GGUFReader(path).get_field("tokenizer.ggml.pre")
    return None if field is None else str(field.contents())


def _context(config: Any) -> int:
    """Return how many tokens a prompt may have: up to the first window, every layer sees all of it."""
    limit = int(getattr(config, "max_position_embeddings", None) or FAR)
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if window and (kinds is None or "sliding_attention" in kinds):
        limit = min(limit, int(window))
    return limit


def _digits(tokens: tuple[int, ...]) -> str:
    return ",".join(map(str, tokens))


def _up(length: int) -> int:
    return max(BUCKET, -(-length // BUCKET) * BUCKET)


def _rows(n: int) -> int:
    return max(8, 1 << (n - 1).bit_length())
