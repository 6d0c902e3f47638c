"""Passes over batches of prompts that share their starts."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from persona_studies.ask.backends import ModelInfo
from persona_studies.ask.backends.transformers.loading import FAR
from persona_studies.ask.backends.transformers.planning import Job, round_up, row_count
from persona_studies.errors import BackendError

ROWS = {"cuda": 1024, "cpu": 16}
# Tokens of shared starts held at once: at most 9 GB for a model of 8 billion parameters.
HELD = 65_536
# Positions that go through the output layer together: 0.8 GB for a vocabulary of 50,000.
READ = 4_096
# Compilation takes about a minute: it pays for work that has already taken as long.
COMPILE_AFTER = 60.0


@dataclass(frozen=True)
class Flight:
    """A batch on the device: ``found`` holds its answers once ``done`` has happened."""

    jobs: list[Job]
    found: Any
    done: Any
    launched: float


class _Starts(transformers.Cache):
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


class Batches:
    """The passes of a model: shared starts once, then rows that continue them."""

    info: ModelInfo

    def __init__(self, model: Any, device: Any, *, batch: int | None, compile: bool | None) -> None:
        """Take a model.

        Args:
            model: Of transformers, on its device.
            device: Of torch.
            batch: Rows per pass; None takes 1,024 on a GPU and 16 on a CPU. Halved when memory runs out.
            compile: Whether to compile the pass; None does so on a GPU once a minute of work is behind it.
        """
        self._model, self._device = model, device
        self._config = model.config.get_text_config()
        self._batch = batch or ROWS.get(device.type, ROWS["cuda"])
        self._held: dict[tuple[int, ...], int] = {}
        self._layers: list[tuple[Any, Any]] = []
        self._compile = compile
        self._pass: Any = None
        self._spent = self._landed = 0.0

    def _hold(self, heads: dict[tuple[int, ...], None]) -> None:
        """Compute shared starts, several in one pass, unless they are still held."""
        if self._held and heads.keys() <= self._held.keys():
            return
        self._layers = []
        width = round_up(max(map(len, heads)))
        # Padding behind a start is never seen: later tokens are masked by its true length.
        ids = np.zeros((row_count(len(heads)), width), dtype=np.int64)
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

    def _launch_fitting(self, jobs: list[Job]) -> Iterator[Flight]:
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

    def _launch(self, jobs: list[Job]) -> Flight:
        """Put a batch on its way; nothing here waits for the device."""
        launched = time.perf_counter()
        n, trees = len(jobs), [job.tree for job in jobs]
        start = np.array([len(job.head) for job in jobs])
        suffix = np.array([len(job.prompt.suffix) for job in jobs])
        nodes = np.array([len(tree.tokens) for tree in trees])
        options = np.array([len(tree.first) for tree in trees])
        rows, width = min(row_count(n), max(self._batch, n)), round_up(int((suffix + nodes).max()))
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
        return Flight(jobs, found, done, launched)

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

    def _on_device(self, array: NDArray[Any]) -> Any:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self._device.type != "cuda":
            return tensor.to(self._device)
        # From pageable memory, a copy would wait for everything that was launched before it.
        return tensor.pin_memory().to(self._device, non_blocking=True)
