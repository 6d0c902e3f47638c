"""Count the tokens that go through a torch model."""

from __future__ import annotations

from typing import Any


def count_tokens(model: Any) -> dict[str, int]:
    """Return a count that grows with every forward pass; padding counts, as it is computed too."""
    counted = {"tokens": 0}

    def hook(module: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        given = named.get("input_ids")
        counted["tokens"] += int((positional[0] if given is None else given).numel())

    model.register_forward_pre_hook(hook, with_kwargs=True)
    return counted
