"""What a batch consists of: the options of a request as a tree, and a request with its tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from persona_studies.ask import planner
from persona_studies.ask.backends import ModelInfo, Request

BUCKET = 16


@dataclass(frozen=True)
class Tree:
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
    def of(cls, options: Sequence[Sequence[int]]) -> Tree:
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
class Job:
    place: int
    request: Request
    prompt: planner.Prompt
    head: tuple[int, ...]
    tree: Tree

    @property
    def length(self) -> int:
        return len(self.prompt.suffix) + len(self.tree.tokens)


class Keys:
    """The digest of each request, as :class:`persona_studies.ask.backends.RequestKey` defines it.

    Written out, because the general way takes ten times as long.
    """

    def __init__(self, info: ModelInfo) -> None:
        self._chat = info.chat
        self._identity = json.dumps(asdict(info), sort_keys=True, separators=(",", ":"))
        self._openings: dict[tuple[str, int, tuple[str, ...]], str] = {}
        self._digits = lru_cache(maxsize=8192)(_digits)

    def __call__(self, job: Job) -> str:
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
                f'"options":{options},"template":"{self._chat}","tokens":['
            )
        parts = filter(None, (self._digits(job.head), self._digits(tuple(job.prompt.suffix))))
        canonical = f"{opening}{len(job.head)},{','.join(parts)}]}}"
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _digits(tokens: tuple[int, ...]) -> str:
    return ",".join(map(str, tokens))


def round_up(length: int) -> int:
    return max(BUCKET, -(-length // BUCKET) * BUCKET)


def row_count(n: int) -> int:
    return max(8, 1 << (n - 1).bit_length())
