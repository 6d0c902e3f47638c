"""Model backends behind one small interface.

A backend turns requests into responses. What it must promise is in :class:`Backend`; everything about grids,
storage and resumption is outside.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class ModelInfo:
    """What produced a response, as far as it can change one.

    Attributes:
        name: Short name used in folders and parameters.
        model_hash: sha256 of the weight file, or a pinned revision.
        backend: Name of the backend.
        version: Version of the library behind it.
        schedule: How tokens were grouped into forward passes.
        chat: Name of the chat template.
        precision: Number format that weights are computed in; ``file`` takes them as the file stores them.
    """

    name: str
    model_hash: str
    backend: str
    version: str
    schedule: str
    chat: str
    precision: str = "file"


@dataclass(frozen=True)
class Request:
    """One cell as a model sees it: the shared start of the prompt, its rest, and what is asked of it."""

    kind: str
    system: str | None
    shared: str
    user: str
    options: tuple[str, ...] = ()
    max_tokens: int = 0


@dataclass(frozen=True)
class Response:
    """What came back.

    Attributes:
        request: 16 hexadecimal digits over model, schedule, token ids and decoding parameters.
        logprob: Natural log-probability per option, summed over its tokens; NaN where an endpoint does not
            report it (censored, never 0).
        n_tokens: Tokens per option.
        option_mass: Probability of all distinct first tokens of the options together.
        entropy: Entropy in nats of the first position.
        top_token: Most probable first token, as text.
        text: Greedy text, without the end marker.
        finish: ``scored``, ``stop`` (end marker reached), ``length`` (cut at ``max_tokens``) or ``failed``
            (the model refuses this very request; ``text`` says why).
        prompt_tokens: Length of the prompt.
        computed_tokens: Tokens that went through the model for this cell alone, without the shared start.
    """

    request: str
    finish: str
    prompt_tokens: int
    computed_tokens: int
    logprob: tuple[float, ...] = ()
    n_tokens: tuple[int, ...] = ()
    option_mass: float | None = None
    entropy: float | None = None
    top_token: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class Size:
    """What a request costs, in tokens.

    Attributes:
        head: What requests that share the start of their prompt have in common; equal heads are computed once.
        prefix: Tokens of that start.
        suffix: Tokens of the rest of the prompt.
        branches: Tokens of the options that go through the model, or of the text at most.
        logical: Tokens without any sharing: the whole prompt once per option.
    """

    head: Hashable
    prefix: int
    suffix: int
    branches: int
    logical: int


class Backend(Protocol):
    """A model that answers requests."""

    @property
    def info(self) -> ModelInfo: ...

    def respond(self, requests: Iterable[Request]) -> Iterator[tuple[int, Response]]:
        """Yield ``(place, response)`` for every request as it becomes known, in any order.

        ``place`` counts the requests from 0. Requests are drawn a bounded number ahead, so a grid of any
        length fits into memory. Neighbours with the same start of the prompt are cheap.

        Raises:
            BackendError: the model cannot answer; what was yielded before stays valid.
            BudgetSpent: a cap in calls, tokens or money is reached.
        """
        ...

    def size(self, request: Request) -> Size:
        """Return what a request costs. An endpoint without a tokeniser estimates it from the text's length."""
        ...

    def close(self) -> None: ...


def kinds(backend: Backend) -> tuple[tuple[str, ...], dict[str, str], str | None]:
    """Return the kinds of measures that a model can be asked, why not the others, and what should be known of it.

    An endpoint is asked; a model that runs here has every kind.

    Raises:
        BackendError: the endpoint does not answer.
    """
    interface = getattr(backend, "interface", None)
    if interface is None:
        # Here, because a process that only answers needs no tables.
        from persona_studies.design.plan import KINDS

        return KINDS, {}, None
    found = interface()
    return found.kinds, found.why_not, found.note


@dataclass(frozen=True)
class RequestKey:
    """Everything that can change a response, hashed over canonical JSON.

    ``tokens`` holds the length of the shared start and the token ids of the whole prompt; for an endpoint that
    tokenises by itself, the messages.
    """

    info: ModelInfo
    template: str
    tokens: list[int] | list[dict[str, str]]
    options: list[list[int]]
    decoding: dict[str, int | float | str] = field(default_factory=dict)

    def digest(self) -> str:
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]
