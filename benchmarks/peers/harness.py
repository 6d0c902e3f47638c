"""lm-evaluation-harness: ``HFLM.loglikelihood``, one request per option, float32.

It lets one-token continuations of a prompt share a forward pass; longer ones each take the whole prompt.
"""

from __future__ import annotations

from typing import Any

import job
import torch
from counting import count_tokens
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM


class Harness:
    def __init__(self, given: dict[str, Any]) -> None:
        torch.set_num_threads(given["threads"])
        self.model = HFLM(
            pretrained=given["weights"], dtype="float32", device="cpu", batch_size=given["arguments"]["batch"]
        )
        self.counted = count_tokens(self.model.model)

    @property
    def computed(self) -> int | None:
        return self.counted["tokens"]

    def answer(self, cells: list[job.Cell]) -> list[list[float | None]]:
        requests = [
            Instance("loglikelihood", {}, (cell["prompt"], option), index)
            for cell in cells
            for index, option in enumerate(cell["options"])
        ]
        found = iter(self.model.loglikelihood(requests, disable_tqdm=True))
        return [[next(found)[0] for _ in cell["options"]] for cell in cells]


if __name__ == "__main__":
    job.run(Harness)
