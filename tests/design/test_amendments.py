"""Once responses of a study are committed, its protocol changes by dated amendments only.

``tests/declared.json`` holds what each protocol declares, as a hash, and its number of amendments. After one more:

    python -m tests.design.test_amendments   # writes it anew, and refuses a protocol that changed without one
"""

from __future__ import annotations

import hashlib
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from persona_studies.paths import Project

PROJECT = Project(Path(__file__).parents[2])
WRITTEN = Path(__file__).parents[1] / "declared.json"
BESIDE = ("amendments", "reads", "sources", "tolerance")
"""What does not belong to the design: which files are read, and how exactly a run is compared."""
WORDING = ("details", "not_testable", "purpose", "question", "statement", "title")
"""What says the design in words for readers; other words may say the same."""


def state(text: str) -> dict[str, Any]:
    """Return how many amendments a protocol has, and the hash of its design; comments and wording do not count."""
    whole = tomllib.loads(text)
    design = _without_words({name: value for name, value in whole.items() if name not in BESIDE})
    canonical = json.dumps(design, sort_keys=True, default=str, separators=(",", ":"))
    return {
        "amendments": len(whole.get("amendments", ())),
        "sha256": hashlib.sha256(canonical.encode()).hexdigest(),
    }


def _without_words(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_words(part) for name, part in value.items() if name not in WORDING}
    return [_without_words(part) for part in value] if isinstance(value, list) else value


def unamended(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Return whether a design changed, or its log lost something, without a further amendment."""
    changed = before["sha256"] != now["sha256"]
    return bool(now["amendments"] < before["amendments"] + changed)


def declared() -> dict[str, dict[str, Any]]:
    return {name: state(PROJECT.protocol(name).read_text("utf-8")) for name in PROJECT.names()}


@pytest.mark.parametrize("study", [name for name in PROJECT.names() if PROJECT.responses(name).is_dir()])
def test_a_protocol_changes_by_amendments_only(study: str) -> None:
    before, now = json.loads(WRITTEN.read_text("utf-8")).get(study), declared()[study]
    place = f"studies/{study}/protocol.toml"
    assert before is None or not unamended(before, now), (
        f"{place} changed: say so in [[amendments]], with its date."
    )
    assert before == now, f"{place} has a new amendment: run python -m tests.design.test_amendments."


def test_a_change_needs_an_amendment_and_a_comment_does_not() -> None:
    first = 'study = "toy"\nsources = ["a"]\n[[amendments]]\nchanged = "the first"\n'
    further = first + '[[amendments]]\nchanged = "alpha"\n'
    assert not unamended(state(first), state("# said otherwise\n" + first.replace('["a"]', '["b"]')))
    assert not unamended(state('title = "a"\n' + first), state('title = "b"\n' + first))
    assert unamended(state(first), state("alpha = 0.01\n" + first))
    assert not unamended(state(first), state("alpha = 0.01\n" + further))
    assert unamended(state(further), state(first))


if __name__ == "__main__":
    known = json.loads(WRITTEN.read_text("utf-8")) if WRITTEN.is_file() else {}
    found = declared()
    if wrong := [
        name
        for name, now in found.items()
        if name in known and PROJECT.responses(name).is_dir() and unamended(known[name], now)
    ]:
        sys.exit(f"Changed without an amendment: {', '.join(wrong)}. Say so in [[amendments]], with its date.")
    WRITTEN.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
