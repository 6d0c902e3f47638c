"""llama-cpp-python's completions: ``letter`` from the top of one generated token, ``cloze`` from the echo.

The library keeps the start that a prompt shares with the one before it.
"""

from __future__ import annotations

from typing import Any

import job
from llama_cpp import Llama, llama_cpp

# Labels below this rank are not reported.
TOP = 1000

defaults = llama_cpp.llama_model_default_params


def as_stored() -> llama_cpp.llama_model_params:
    """Return the defaults without repacked weights, for which ``Llama`` has no argument.

    As this engine loads them; repacked for a processor with AMX, version 0.3.36 ends at the first prompt.
    """
    loading = defaults()
    loading.use_extra_bufts = False
    return loading


class Counting(Llama):
    """Counts the tokens that it evaluates."""

    computed = 0

    def eval(self, tokens: Any) -> None:
        self.computed += len(tokens)
        super().eval(tokens)


class Completions:
    def __init__(self, given: dict[str, Any]) -> None:
        threads = given["threads"]
        # Its array of logits is as long as the context, so the context is no longer than needed.
        longest = max(len(c["tokens"]) + max(map(len, c["option_tokens"])) for c in given["cells"])
        llama_cpp.llama_model_default_params = as_stored
        self.model = Counting(
            given[given["arguments"].get("weights", "f32")],
            n_ctx=longest + 8,
            n_threads=threads,
            n_threads_batch=threads,
            logits_all=True,
            verbose=False,
        )

    @property
    def computed(self) -> int | None:
        return self.model.computed

    def answer(self, cells: list[job.Cell]) -> list[list[float | None]]:
        return [self.letter(cell) if cell["kind"] == "letter" else self.cloze(cell) for cell in cells]

    def letter(self, cell: job.Cell) -> list[float | None]:
        said = self.model.create_completion(cell["prompt"], max_tokens=1, logprobs=TOP, temperature=0)
        top = (said["choices"][0]["logprobs"]["top_logprobs"] or [{}])[0]
        return [float(top[label]) if label in top else None for label in cell["options"]]

    def cloze(self, cell: job.Cell) -> list[float | None]:
        answers: list[float | None] = []
        for option, tokens in zip(cell["options"], cell["option_tokens"], strict=True):
            # max_tokens=0 would generate to the end of the context.
            said = self.model.create_completion(
                cell["prompt"] + option, max_tokens=1, logprobs=1, echo=True, temperature=0
            )
            each = said["choices"][0]["logprobs"]["token_logprobs"]
            # The end marker is not listed when it is what was generated.
            end = len(each) - said["usage"]["completion_tokens"]
            answers.append(float(sum(each[end - len(tokens) : end])))
        return answers


if __name__ == "__main__":
    job.run(Completions)
