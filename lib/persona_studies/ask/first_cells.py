"""Stop a recording whose first answers say nothing, before they are stored and before the rest is asked.

A server without log-probabilities, a model that only reasons, a refused field: each would fill a recording with
cells that look answered. So the first answers to every measure are held back until one of them says something.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from persona_studies.ask.backends import Response
from persona_studies.ask.logs import Log
from persona_studies.errors import BackendError, visible

ENOUGH = 8
EXAMPLES = 5


class FirstCells:
    """Appends answers to a log, the first ones of a measure once one of them says something."""

    def __init__(
        self, log: Log, sound: Collection[str] = (), few: int = ENOUGH, *, failures_stay: bool = False
    ) -> None:
        """Start with nothing held back.

        Args:
            log: Receives the answers.
            sound: Measures of which something is recorded already. Few answers that say nothing are believed there.
            few: How many answers that say nothing are enough to stop.
            failures_stay: Whether any number of answers that say nothing is believed there.
        """
        self._log, self._known, self._few = log, set(sound), few
        self._sound: set[str] = set(sound) if failures_stay else set()
        self._held: dict[str, list[tuple[Mapping[str, Any], Response]]] = {}

    def append(self, cell: Mapping[str, Any], response: Response) -> None:
        """Store an answer, or hold it back.

        Raises:
            BackendError: so many first answers of a measure say nothing.
            ResponsesError: the log cannot be written.
        """
        measure = str(cell["measure"])
        if measure in self._sound:
            self._log.append(cell, response)
            return
        held = self._held.setdefault(measure, [])
        held.append((cell, response))
        if says_nothing(response):
            if len(held) >= self._few:
                raise BackendError(self._report(measure))
            return
        self._sound.add(measure)
        self._release(measure)

    def finish(self) -> None:
        """Store what is still held back of measures that were recorded before.

        Raises:
            BackendError: all answers to a measure say nothing, though they are few.
        """
        for measure in [name for name, held in self._held.items() if held]:
            if measure not in self._known:
                raise BackendError(self._report(measure))
            self._release(measure)

    def close(self) -> None:
        """Close the log; what is held back is not stored."""
        self._log.close()

    def _release(self, measure: str) -> None:
        for cell, response in self._held.pop(measure, []):
            self._log.append(cell, response)

    def _report(self, measure: str) -> str:
        answers = [response for _, response in self._held[measure]]
        kind = str(self._held[measure][0][0].get("kind", ""))
        failed = Counter(visible(a.text or "no reason given", "") for a in answers if a.finish == "failed")
        scored = [a for a in answers if a.finish == "scored"]
        parts = [f"{n} failed: {reason}" for reason, n in failed.most_common(3)]
        if scored:
            tokens = [repr(t) for t, _ in Counter(a.top_token for a in scored if a.top_token).most_common(EXAMPLES)]
            seen = f"the likeliest first tokens are {', '.join(tokens)}" if tokens else "no token is listed"
            parts.append(f"{len(scored)} give none of the labels a log-probability ({seen})")
        if empty := len(answers) - len(scored) - failed.total():
            parts.append(f"{empty} are empty")
        before = ""
        if measure in self._known:
            before = (
                " Cells of it were answered before; to leave those failed that the model refuses: --reask never."
            )
        return (
            f"The first {len(answers)} answers to {measure} say nothing, so the rest is not asked and these are "
            f"not stored. {'; '.join(parts)}. {_remedy(kind, scored)}{before}"
        )


def says_nothing(response: Response) -> bool:
    """Return whether a response failed, holds no log-probability at all, or an empty text."""
    if response.finish == "failed":
        return True
    if response.finish == "scored":
        return all(math.isnan(value) for value in response.logprob)
    return not (response.text or "").strip()


def _remedy(kind: str, scored: list[Response]) -> str:
    tokens = [a.top_token or "" for a in scored]
    if any(token.strip().lower().startswith(("<think", "<|channel", "<reason")) for token in tokens):
        return "The model reasons first: switch that off with --extra, or ask for words: --measures text."
    if tokens and all(token.removeprefix("token_id:").isdecimal() and len(token) > 1 for token in tokens):
        return (
            "The server lists tokens as ids: have it list their texts (vLLM: without --return-tokens-as-token-ids)."
        )
    if kind in ("letter", "cloze"):
        return "See to the server, or ask for words, which needs no log-probabilities: --measures text."
    return "See to the server; a field that it needs can be given with --extra."
