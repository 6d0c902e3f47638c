"""Simulated models, for tests only: nothing they answer is ever shown as a result."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterable, Iterator

from persona_studies.ask.backends import ModelInfo, Request, RequestKey, Response, Size
from persona_studies.errors import BackendError


def by_request(request: Request) -> tuple[float, ...]:
    """Answer by the request alone, as the canonical schedule does."""
    rng = random.Random(f"{request.system}{request.user}")
    return tuple(-rng.randrange(1, 4096) / 1024 for _ in request.options)


class SimulatedBackend:
    """Answers by a given function instead of a model."""

    def __init__(self, answer: Callable[[Request], tuple[float, ...]], name: str = "simulated") -> None:
        self._answer = answer
        self.asked = 0
        self.info = ModelInfo(name, "0" * 64, "simulated", "0", "canonical", "plain")

    def size(self, request: Request) -> Size:
        prefix, rest = len(f"{request.system}{request.shared}"), len(request.user)
        n = max(len(request.options), 1)
        return Size((request.system, request.shared), prefix, rest, request.max_tokens, n * (prefix + rest))

    def respond(self, requests: Iterable[Request]) -> Iterator[tuple[int, Response]]:
        yield from enumerate(map(self._respond, requests))

    def _respond(self, request: Request) -> Response:
        self.asked += 1
        prompt = f"{request.system}|{request.shared}|{request.user}|{request.options}"
        key = RequestKey(self.info, "plain", list(prompt.encode()), []).digest()
        if request.kind == "text":
            return Response(key, "stop", 1, 1, text="AGREE because.")
        else:
            return Response(
                key,
                "scored",
                1,
                1,
                logprob=self._answer(request),
                n_tokens=(1,) * len(request.options),
                option_mass=0.5,
                entropy=1.0,
                top_token="I",
            )

    def close(self) -> None:
        pass


# Backends of processes of their own; they import no more than this file does.


class Slow(SimulatedBackend):
    """Takes its time, and says which process answered."""

    def __init__(self, pause: float = 0.0, unanswerable: str = "", deadly: str = "") -> None:
        super().__init__(by_request)
        self.pause, self.unanswerable, self.deadly = pause, unanswerable, deadly

    def respond(self, requests: Iterable[Request]) -> Iterator[tuple[int, Response]]:
        for place, request in enumerate(requests):
            time.sleep(self.pause)
            if self.unanswerable and self.unanswerable in request.user:
                raise BackendError(f"{request.user} exceeds the context.")
            if self.deadly and self.deadly in request.user:
                os.kill(os.getpid(), signal.SIGKILL)
            yield place, self._respond(request)


class Other(SimulatedBackend):
    def __init__(self) -> None:
        super().__init__(by_request, name="other")


class Local(Slow):
    """Names itself as llama.cpp's canonical schedule, whose answers depend on nothing else."""

    def __init__(self, schedule: str = "canonical", pause: float = 0.0) -> None:
        super().__init__(pause)
        self.info = ModelInfo("local", "0" * 64, "llama.cpp", "0", schedule, "plain")
