"""transformers as a first script would use it: rows of whole prompts, batched, logits at every position.

``letter`` takes one row per prompt, ``cloze`` one per option. In float32 this is the reference for agreement.
"""

from __future__ import annotations

from typing import Any

import job
import torch
from counting import count_tokens
from transformers import AutoModelForCausalLM


class FullLogits:
    def __init__(self, given: dict[str, Any]) -> None:
        torch.set_num_threads(given["threads"])
        self.batch = given["arguments"]["batch"]
        self.model = AutoModelForCausalLM.from_pretrained(given["weights"], dtype=torch.float32)
        self.counted = count_tokens(self.model)

    @property
    def computed(self) -> int | None:
        return self.counted["tokens"]

    @torch.inference_mode()
    def answer(self, cells: list[job.Cell]) -> list[list[float | None]]:
        # A row with the options it answers: their place, where they start, their tokens.
        rows: list[tuple[list[int], list[tuple[int, int, list[int]]]]] = []
        answers: list[list[float | None]] = [[None] * len(cell["options"]) for cell in cells]
        owner = []
        for place, cell in enumerate(cells):
            n = len(cell["tokens"])
            asked = [(index, n, option) for index, option in enumerate(cell["option_tokens"])]
            if cell["kind"] == "letter":
                rows.append((cell["tokens"], asked))
                owner.append(place)
                continue
            rows += [(cell["tokens"] + option[:-1], [(index, n, option)]) for index, n, option in asked]
            owner += [place] * len(asked)
        for start in range(0, len(rows), self.batch):
            piece = rows[start : start + self.batch]
            longest = max(len(tokens) for tokens, _ in piece)
            ids = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens, _ in piece])
            mask = torch.tensor([[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens, _ in piece])
            logp = self.model(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)
            for row, (_, asked) in enumerate(piece):
                for index, n, option in asked:
                    total = sum(float(logp[row, n - 1 + i, token]) for i, token in enumerate(option))
                    answers[owner[start + row]][index] = total
        return answers


if __name__ == "__main__":
    job.run(FullLogits)
