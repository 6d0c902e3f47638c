"""One long prefill on llama.cpp: the tokens of the cells in one row, as fast as the library takes them.

It answers nothing. Its tokens a second are what a schedule that computes the same tokens in pieces can hope for.
"""

from __future__ import annotations

from typing import Any

import job
import llama_cpp

# As many tokens as two full batches of llama.cpp's own default.
TOKENS = 1024


class LongPrefill:
    def __init__(self, given: dict[str, Any]) -> None:
        llama_cpp.llama_backend_init()
        loading = llama_cpp.llama_model_default_params()
        # As this engine loads it, so that both multiply with the same code.
        loading.use_extra_bufts = False
        self.loaded = llama_cpp.llama_model_load_from_file(given["file"].encode(), loading)
        how = llama_cpp.llama_context_default_params()
        how.n_ctx, how.n_batch, how.n_ubatch = TOKENS, TOKENS, 512
        how.n_threads = how.n_threads_batch = given["threads"]
        self.context = llama_cpp.llama_init_from_model(self.loaded, how)
        self.computed: int | None = 0

    def answer(self, cells: list[job.Cell]) -> list[list[float | None]]:
        row = [token for cell in cells for token in cell["tokens"]][:TOKENS]
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        tokens = (llama_cpp.llama_token * len(row))(*row)  # a batch holds only its address
        if llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(tokens, len(row))):
            raise SystemExit("llama.cpp could not decode the prefill")
        self.computed += len(row)
        return [[None] * len(cell["options"]) for cell in cells]


if __name__ == "__main__":
    job.run(LongPrefill)
