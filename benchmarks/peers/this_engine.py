"""This engine: the start of the prompt once per persona, options as branches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import job

from persona_studies.ask.backends import Request
from persona_studies.ask.backends.llama_cpp import LlamaCpp


class Shared:
    def __init__(self, given: dict[str, Any]) -> None:
        how = {"threads": given["threads"], **given["arguments"]}
        self.model = LlamaCpp(Path(given["file"]), name="bench", sha256=given["sha256"], **how)
        self.computed: int | None = 0
        self.start: tuple[int, ...] = ()

    def answer(self, cells: list[job.Cell]) -> list[list[float | None]]:
        requests = [Request(c["kind"], c["system"], "", c["user"], tuple(c["options"])) for c in cells]
        found = dict(self.model.respond(requests))
        for place, cell in enumerate(cells):
            start = tuple(cell["tokens"][: cell["prefix"]])
            # A response counts what was computed for it alone; a new start comes on top.
            self.computed += found[place].computed_tokens + (len(start) if start != self.start else 0)
            self.start = start
        return [list(found[place].logprob) for place in range(len(cells))]


if __name__ == "__main__":
    job.run(Shared)
