"""Asking a model: recordings, their store, prompts and backends.

Other wings, studies and notebooks import the modules named here; the rest is the wing's own.
"""

__all__ = [
    "backends",
    "chat",
    "estimate",
    "models",
    "options",
    "packing",
    "recorded",
    "recording",
    "registry",
    "responses",
    "schema",
    "unfinished",
    "weights",
    "workers",
]
