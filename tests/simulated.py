"""Simulated models, for tests only: nothing they answer is ever shown as a result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from persona_studies.ask.backends import ModelInfo, Request, RequestKey, Response, Size


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
