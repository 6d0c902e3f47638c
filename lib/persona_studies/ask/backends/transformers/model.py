"""A model of transformers behind the interface of a backend."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
import transformers

from persona_studies.ask import planner
from persona_studies.ask.backends import ModelInfo, Request, Response, Size
from persona_studies.ask.backends.transformers.batches import HELD, Batches, Flight
from persona_studies.ask.backends.transformers.loading import Encoder, context, load, origin, turns
from persona_studies.ask.backends.transformers.planning import BUCKET, Job, Keys, Tree
from persona_studies.errors import BackendError

SCHEDULES = {"batched": "bfloat16", "single": "float32"}
DTYPES = ("bfloat16", "float32")
TEXTS = 64
# Batches drawn together and sorted by length, and batches on the device that are not read yet.
WINDOW = 4
AHEAD = 3


class Transformers(Batches):
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
        _known(schedule, dtype)
        where, digest = origin(source, revision, sha256)
        dtype = dtype or SCHEDULES[schedule]
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._tokenizer, model = load(where, getattr(torch, dtype))
        super().__init__(model.to(place).eval(), place, batch=batch, compile=compile)
        self._context = context(self._config)
        self._encode = Encoder(self._tokenizer)
        self.chat = turns(self._tokenizer, self._encode, name, chat)
        self._stop = self._ends()
        self.info = ModelInfo(
            name=name,
            model_hash=digest,
            backend="transformers",
            version=f"torch {torch.__version__}, transformers {transformers.__version__}",
            schedule=schedule,
            chat=self.chat.name,
            precision=dtype,
        )
        self._keys = Keys(self.info)
        self._trees: dict[tuple[str, ...], Tree] = {}
        self._pieces: dict[int, str] = {}
        if schedule == "batched":
            self._check()
            if compile:
                self._pass = torch.compile(self._forward)

    def _ends(self) -> set[int]:
        """Return the tokens that end an answer, and forget what a repository recommends for sampling.

        Repetition penalties and temperatures must not enter.
        """
        recommended = self._model.generation_config
        self._model.generation_config = transformers.GenerationConfig()
        ends = [self._tokenizer.eos_token_id, getattr(recommended, "eos_token_id", None)]
        found = {i for end in ends if end is not None for i in (end if isinstance(end, list) else [end])}
        for marker in self.chat.stop:
            tokens = self._encode(marker, True)
            found |= set(tokens) if len(tokens) == 1 else set()
        return found

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
        flights: deque[Flight] = deque()
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

    def _job(self, place: int, request: Request) -> Job:
        prompt = self._tokenise(request)
        if (tree := self._trees.get(request.options)) is None:
            if len(self._trees) > 4096:
                self._trees.clear()
            tree = self._trees[request.options] = Tree.of(prompt.options)
        return Job(place, request, prompt, tuple(prompt.prefix), tree)

    def _windows(self, requests: Iterable[Request]) -> Iterator[list[Job]]:
        """Draw requests in runs that are answered together: all scored, or all texts of one length."""
        jobs: list[Job] = []
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

    def _land(self, flight: Flight) -> Iterator[tuple[int, Response]]:
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
                    self._keys(job),
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

    def _single(self, job: Job) -> tuple[int, Response]:
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
            self._keys(job),
            "scored",
            n,
            computed,
            logprob=tuple(float(np.float32(value)) for value in total),
            n_tokens=tuple(map(len, options)),
            option_mass=float(start[distinct].exp().sum()),
            entropy=float(-(start.exp() * start).sum()),
            top_token=self._piece(int(start.argmax())),
        )

    def _texts(self, jobs: list[Job]) -> Iterator[tuple[int, Response]]:
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
                    self._keys(job),
                    "stop" if cut or length is not None else "length",
                    len(job.prompt.whole),
                    len(job.prompt.whole) + steps,
                    text=text[: min(cut)] if cut else text,
                ),
            )

    def _piece(self, token: int) -> str:
        if (text := self._pieces.get(token)) is None:
            text = self._pieces[token] = self._tokenizer.decode([token], clean_up_tokenization_spaces=False)
        return text

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


def _no_numbers(info: ModelInfo) -> BackendError:
    return BackendError(
        f"{info.name} computes values that are not numbers (NaN or infinite) in {info.precision}: its weights are "
        "damaged, or overflow; try --precision f32, or another model."
    )


def _known(schedule: str, dtype: str | None) -> None:
    """Refuse a schedule or a number format that this backend does not have."""
    for what, value, known in (("schedule", schedule, tuple(SCHEDULES)), ("dtype", dtype, (None, *DTYPES))):
        if value not in known:
            choice = ", ".join(filter(None, known))
            raise BackendError(f"Unknown {what} {value!r} of transformers; known: {choice}.")
