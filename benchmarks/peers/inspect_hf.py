"""inspect_ai's own transformers provider: one generated token with its most probable alternatives.

Only ``letter``: the provider returns log-probabilities of what it generates, not of a given continuation.
"""

from __future__ import annotations

import asyncio
from typing import Any

import job
import torch
from counting import count_tokens
from inspect_ai.model import ChatMessageSystem, ChatMessageUser, GenerateConfig, get_model

# Labels below this rank are not reported.
TOP = 1000


class Inspect:
    def __init__(self, given: dict[str, Any]) -> None:
        torch.set_num_threads(given["threads"])
        self.config = GenerateConfig(
            max_tokens=1, logprobs=True, top_logprobs=TOP, max_connections=given["arguments"]["batch"]
        )
        self.model = get_model(
            "hf/bench", model_path=given["weights"], device="cpu", dtype=torch.float32, do_sample=False
        )
        self.counted = count_tokens(self.model.api.model)

    @property
    def computed(self) -> int | None:
        return self.counted["tokens"]

    def answer(self, cells: list[job.Cell]) -> list[list[float | None]]:
        async def ask() -> list[list[float | None]]:
            return list(await asyncio.gather(*(self.one(cell) for cell in cells)))

        return asyncio.run(ask())

    async def one(self, cell: job.Cell) -> list[float | None]:
        turns = [ChatMessageSystem(content=cell["system"]), ChatMessageUser(content=cell["user"])]
        said = await self.model.generate(turns, config=self.config)
        told = {each.token: float(each.logprob) for each in said.choices[0].logprobs.content[0].top_logprobs}
        return [told.get(label) for label in cell["options"]]


if __name__ == "__main__":
    job.run(Inspect)
