"""The turn marks of known families, as templates that models bring along."""

from __future__ import annotations

from pathlib import Path

TEMPLATES = Path(__file__).parents[1] / "chat_templates"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def source(name: str) -> str:
    return (TEMPLATES / f"{name}.jinja").read_text("utf-8")
