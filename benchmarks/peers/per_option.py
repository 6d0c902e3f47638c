"""Per-option prefill on llama.cpp: every option with its whole prompt, nothing shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import job

from persona_studies.ask.backends.llama_cpp import LlamaCpp


class PerOption:
    def __init__(self, given: dict[str, Any]) -> None:
        how = {"threads": given["threads"], **given["arguments"]}
        self.model = LlamaCpp(Path(given["file"]), name="bench", sha256=given["sha256"], **how)
        self.computed: int | None = 0

    def answer(self, cells: list[job.Cell]) -> list[list[float | None]]:
        answers: list[list[float | None]] = []
        for cell in cells:
            answers.append([])
            for option in cell["option_tokens"]:
                whole = cell["tokens"] + option
                answers[-1].append(self.model.naive_logprob(whole, len(cell["tokens"])))
                self.computed += len(whole)
        return answers


if __name__ == "__main__":
    job.run(PerOption)
