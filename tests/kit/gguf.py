"""Files in the form of a GGUF model, without weights."""

from __future__ import annotations

import struct
from typing import Any

MODEL: dict[str, Any] = {"general.architecture": "llama", "tokenizer.ggml.model": "gpt2"}


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf(facts: dict[str, Any], tensors: int = 2, *, more: bytes = b"") -> bytes:
    """Return a GGUF file with tensors of 8 numbers in single precision each."""
    data = b"GGUF" + struct.pack("<IQQ", 3, tensors, len(facts) + 2)
    for name, value in facts.items():
        data += text(name)
        if isinstance(value, bool):
            data += struct.pack("<I?", 7, value)
        elif isinstance(value, int):
            data += struct.pack("<II", 4, value)
        else:
            data += struct.pack("<I", 8) + text(value)
    data += text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 3) + text("a") + text("ü") + text("")
    data += text("tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 6, 3) + struct.pack("<3f", 1, 2, 3)
    for i in range(tensors):
        data += text(f"t{i}") + struct.pack("<IQIQ", 1, 8, 0, 32 * i)
    return data + bytes(-len(data) % 32) + bytes(range(32)) * tensors + more
