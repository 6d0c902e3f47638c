"""Measure the transformers backend on one GPU: speed, how cost grows, and agreement with fp32.

The texts are made up from a list of words (an equal seed gives equal texts); nothing is said about any persona.
Every prompt has the same length: 96 tokens of persona, 64 of item, turn markers included. ``letter`` reads four
labels, ``cloze`` four sentences of four to six tokens. An evaluation is one item under one persona. What is
timed is the whole way from requests to responses, tokenising and hashing included.

Compared within one run: full logits (transformers as its tutorials use it: whole prompts in batches, logits of
every position, one row per cell for ``letter`` and one per option for ``cloze``), and the backend as it is and
compiled. Compilation and the first batches are left out of the times; how long they took is a column.

    python benchmarks/gpu.py                    # minutes on an H200; random weights in SmolLM2-135M's shape
    python benchmarks/gpu.py --model FOLDER     # or a GGUF file: the same with real weights
    python benchmarks/gpu.py --small            # a look, on any machine; its figures mean nothing

Without network. Where the library is not installed, ``PYTHONPATH=lib`` is enough.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tokenizers
import torch
import transformers

from persona_studies.ask.backends import Request
from persona_studies.ask.backends.transformers import Transformers

RESULTS = Path(__file__).parent / "results"
VOCABULARY = """
time year people way day man thing woman life child world school state family student group country problem
hand part place case week company system program question work government number night point home water room
mother area money story fact month lot right study book eye job word business issue side kind head house
service friend father power hour game line end member law car city name team minute idea body back parent face
others level office door health person art war history party result change morning reason research girl guy
moment air teacher force education
"""
WORDS = VOCABULARY.split()
LABELS = ("A", "B", "C", "D")
PERSONA, ITEM = 96, 64
# One layer of SmolLM2-135M is like the next; so many of these.
SHAPE = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rope_theta": 100000.0,
    "tie_word_embeddings": True,
}
SMALL = {"hidden_size": 72, "intermediate_size": 144, "num_hidden_layers": 2, "vocab_size": 1024}
CUDA = torch.cuda.is_available()


def made_up_model(folder: Path, shape: dict[str, Any]) -> Path:
    """Save a model with random weights and a tokeniser that knows the words above."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=1000, special_tokens=marks, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator([" ".join(["", *WORDS])] * 9, trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>")
    fast.chat_template = "<|im_start|>"
    fast.save_pretrained(folder)
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(1)
    config = transformers.LlamaConfig(**shape, bos_token_id=1, eos_token_id=2, initializer_range=0.04)
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


class Texts:
    """Requests of exact lengths, made of words that are one token each."""

    def __init__(self, backend: Transformers) -> None:
        self._backend = backend
        self._words = [word for word in WORDS if len(backend.tokenize(f" {word}", special=False)) == 1]
        bare = backend.size(Request("letter", "", "", "", LABELS))
        self._persona, self._item = PERSONA - bare.prefix, ITEM - bare.suffix

    def _some(self, seed: list[int], n: int) -> str:
        return "".join(f" {word}" for word in np.random.default_rng(seed).choice(self._words, n))

    def requests(self, workload: str, personas: int, items: int) -> list[Request]:
        """Return the cells of a grid, persona by persona."""
        options = LABELS
        if workload == "cloze":
            start = self._some([3], 2)
            options = tuple(
                self._some([4, i], 4 + i % 3) if i % 2 else start + self._some([4, i], 2 + i % 3) for i in range(4)
            )
        systems = [self._some([1, p], self._persona) for p in range(personas)]
        asked = [self._some([2, i], self._item) for i in range(items)]
        made = [Request(workload, system, "", user, options) for system in systems for user in asked]
        size = self._backend.size(made[-1])
        assert (size.prefix, size.suffix) == (PERSONA, ITEM), f"A prompt of {size.prefix} and {size.suffix} tokens."
        return made


def full_logits(backend: Transformers, requests: list[Request], rows: int) -> None:
    """Score as tutorials do: whole prompts in a batch, logits of every position."""
    model, device = backend._model, backend._device
    for start in range(0, len(requests), rows):
        batch: list[list[int]] = []
        reads: list[tuple[int, int, int]] = []
        for request in requests[start : start + rows]:
            prompt = backend.tokenize("".join(backend.chat.render(request.system, request.shared, request.user)))
            options = [backend.tokenize(option, special=False) for option in request.options]
            if request.kind == "letter":
                reads += [(len(batch), len(prompt) - 1, option[0]) for option in options]
                batch.append(prompt)
            else:
                for option in options:
                    reads += [(len(batch), len(prompt) - 1 + i, token) for i, token in enumerate(option)]
                    batch.append(prompt + option)
        width = max(map(len, batch))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in batch], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch], device=device)
        row, place, token = torch.tensor(reads, device=device).T
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            at = logits[row, place].float()
            (at[torch.arange(len(token), device=device), token] - at.logsumexp(dim=1)).cpu()


def timed(work: Callable[[], object], repeats: int) -> float:
    """Return the median of the seconds that a piece of work takes."""
    took = []
    for _ in range(repeats):
        if CUDA:
            torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        took.append(time.perf_counter() - started)
    return statistics.median(took)


def drain(answers: Iterator[Any]) -> None:
    for _ in answers:
        pass


def measure(model: Path, given: argparse.Namespace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return speeds, and how time grows with items and personas."""
    personas, items, base = (4, 8, (2, 4)) if given.small else (256, 256, (32, 128))
    speeds, growth = [], []
    for engine in ("full logits", "batched", *(["batched, compiled"] if CUDA or given.compile else [])):
        compiled = engine.endswith("compiled")
        backend = Transformers(model, name="measured", batch=given.batch, compile=compiled)
        texts = Texts(backend)
        for workload in ("letter", "cloze"):
            # What is slow is measured on a part: speed does not depend on how much there is.
            n = max(1, personas // 16) if engine == "full logits" else personas
            asked = texts.requests(workload, n, items)
            if CUDA:
                torch.cuda.reset_peak_memory_stats()
            if engine == "full logits":
                rows = 8 if given.small else 256 if workload == "letter" else 64
                work: Callable[[], object] = lambda a=asked, r=rows, b=backend: full_logits(b, a, r)  # noqa: E731
                warm = lambda a=asked, r=rows, b=backend: full_logits(b, a[: 2 * r], r)  # noqa: E731
            else:
                work = lambda a=asked, b=backend: drain(b.respond(a))  # noqa: E731
                # Every shape that the work meets, so that none is compiled while the clock runs.
                warm = work
            first = timed(warm, 1)
            seconds = timed(work, given.repeats)
            speeds.append(
                {
                    "workload": workload,
                    "engine": engine,
                    "personas": n,
                    "items": items,
                    "evaluations": len(asked),
                    "seconds": seconds,
                    "per_second": len(asked) / seconds,
                    "warm_up_seconds": first,
                    "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if CUDA else float("nan"),
                }
            )
            sys.stderr.write(f"{workload}, {engine}: {len(asked) / seconds:,.0f} evaluations/s\n")
            if engine == "full logits" or workload == "cloze":
                continue
            for axis in ("items", "personas"):
                for factor in (1, 2, 4, 8):
                    p, i = (
                        base[0] * (factor if axis == "personas" else 1),
                        base[1] * (factor if axis == "items" else 1),
                    )
                    grid = texts.requests(workload, p, i)
                    drain(backend.respond(grid))
                    took = timed(lambda g=grid, b=backend: drain(b.respond(g)), given.repeats)  # type: ignore[misc]
                    growth.append(
                        {
                            "engine": engine,
                            "axis": axis,
                            "factor": factor,
                            "personas": p,
                            "items": i,
                            "seconds": took,
                        }
                    )
        backend.close()
    speed = pd.DataFrame(speeds)
    slowest = speed[speed["engine"] == "full logits"].set_index("workload")["per_second"]
    speed["times_full_logits"] = speed["per_second"] / speed["workload"].map(slowest)
    table = pd.DataFrame(growth)
    once = table[table["factor"] == 1].set_index(["engine", "axis"])["seconds"]
    table["times"] = [row.seconds / once[row.engine, row.axis] for row in table.itertuples()]
    return speed, table


def agreement(model: Path, given: argparse.Namespace) -> pd.DataFrame:
    """Compare batches with single passes in fp32: largest difference in nats, and how often the best agrees."""
    asked: list[Request] = []
    answers: dict[tuple[str, str], list[np.ndarray]] = {}
    for schedule, dtype in (("single", "float32"), ("batched", "float32"), ("batched", "bfloat16")):
        backend = Transformers(model, name="compared", schedule=schedule, dtype=dtype, compile=False)
        if not asked:
            n = 3 if given.small else 8
            texts = Texts(backend)
            asked = [r for workload in ("letter", "cloze") for r in texts.requests(workload, n, n)]
        found = dict(backend.respond(asked))
        answers[schedule, dtype] = [np.array(found[i].logprob) for i in range(len(asked))]
        backend.close()
    reference = answers.pop(("single", "float32"))
    rows = []
    for (schedule, dtype), given_answers in answers.items():
        for workload in ("letter", "cloze"):
            pairs = [
                (a, b)
                for request, a, b in zip(asked, reference, given_answers, strict=True)
                if request.kind == workload
            ]
            rows.append(
                {
                    "workload": workload,
                    "schedule": schedule,
                    "dtype": dtype,
                    "cells": len(pairs),
                    "largest_difference_nats": max(np.abs(a - b).max() for a, b in pairs),
                    "argmax_agreement": np.mean([a.argmax() == b.argmax() for a, b in pairs]),
                }
            )
    return pd.DataFrame(rows)


def main() -> None:
    """Print the tables and write them to ``results/gpu*.csv``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="folder with safetensors, or GGUF file; default: random weights")
    parser.add_argument("--batch", type=int, help="rows per pass; default: the backend's")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--compile", action="store_true", help="compile on a CPU, too")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    with tempfile.TemporaryDirectory() as folder:
        model = given.model or made_up_model(Path(folder), {**SHAPE, **(SMALL if given.small else {})})
        speed, growth = measure(model, given)
        parity = agreement(model, given)
    where = {
        "device": torch.cuda.get_device_name() if CUDA else f"CPU {platform.machine()}",
        "weights": given.model.name
        if given.model
        else "random" + (", tiny" if given.small else ", SmolLM2-135M's shape"),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    given.out.mkdir(parents=True, exist_ok=True)
    for name, table in (("gpu", speed), ("gpu-growth", growth), ("gpu-parity", parity)):
        sys.stdout.write(f"\n{table.to_string(index=False, float_format='{:.4g}'.format)}\n")
        table.assign(**where).to_csv(
            given.out / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n"
        )
    sys.stdout.write(f"\n{'; '.join(map(str, where.values()))}\n")


if __name__ == "__main__":
    main()
