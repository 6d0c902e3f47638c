"""Caps on what an endpoint may use: calls, tokens, money."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

from persona_studies.errors import ParameterError


@dataclass(frozen=True)
class Spent:
    """What was used so far.

    Attributes:
        calls: Calls sent, those that failed and were repeated included.
        tokens_in: Tokens of the prompts.
        tokens_out: Tokens generated.
        money: In the currency of the prices.
    """

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    money: float = 0.0


class Budget:
    """Caps on what an endpoint may use.

    Usage is what the server reports. A call is admitted only when its upper bound still fits: one token per
    byte of the prompt, some for turn markers, and the longest answer asked for. A call whose usage the server
    does not report (no ``usage``, a timeout, a lost connection) is counted with that bound, which is about four
    times too high for English; a call that the server refuses uses none.
    """

    def __init__(
        self,
        calls: int | None = None,
        tokens: int | None = None,
        money: float | None = None,
        price_in: float = 0.0,
        price_out: float = 0.0,
    ) -> None:
        """Set the caps; None is no cap.

        Args:
            calls: Calls, including those that are repeated.
            tokens: Tokens of prompts and answers together.
            money: In the currency of the prices.
            price_in: Price of a million prompt tokens.
            price_out: Price of a million generated tokens.

        Raises:
            ParameterError: a negative or undefined value, or a cap on money without prices.
        """
        values = {"calls": calls, "tokens": tokens, "money": money, "price_in": price_in, "price_out": price_out}
        for name, value in values.items():
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ParameterError(f"Budget: {name} = {value} must be a number of at least 0.")
        if money is not None and not (price_in or price_out):
            raise ParameterError("Budget: a cap on money needs price_in and price_out, per million tokens.")
        self.calls, self.tokens, self.money = calls, tokens, money
        self.price_in, self.price_out = price_in, price_out
        self._lock = threading.Lock()
        self._used = (0, 0, 0)
        self._reserved = (0, 0)

    @property
    def spent(self) -> Spent:
        calls, tokens_in, tokens_out = self._used
        return Spent(calls, tokens_in, tokens_out, self.price(tokens_in, tokens_out))

    def price(self, tokens_in: int, tokens_out: int) -> float:
        """Return what so many tokens cost.

        >>> Budget(price_in=2.0, price_out=8.0).price(500_000, 250_000)
        3.0
        """
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6

    def reserve(self, tokens_in: int, tokens_out: int) -> bool:
        """Count a call and set its tokens aside, or return False when a cap would be exceeded."""
        with self._lock:
            calls = self._used[0] + 1
            whole_in = self._used[1] + self._reserved[0] + tokens_in
            whole_out = self._used[2] + self._reserved[1] + tokens_out
            if (
                (self.calls is not None and calls > self.calls)
                or (self.tokens is not None and whole_in + whole_out > self.tokens)
                or (self.money is not None and self.price(whole_in, whole_out) > self.money)
            ):
                return False
            self._used = (calls, *self._used[1:])
            self._reserved = (self._reserved[0] + tokens_in, self._reserved[1] + tokens_out)
            return True

    def settle(self, reserved: tuple[int, int], used: tuple[int, int]) -> None:
        """Replace what was set aside by what was used."""
        with self._lock:
            self._reserved = (self._reserved[0] - reserved[0], self._reserved[1] - reserved[1])
            self._used = (self._used[0], self._used[1] + used[0], self._used[2] + used[1])

    def __str__(self) -> str:
        spent, caps = self.spent, []
        if self.calls is not None:
            caps.append(f"{spent.calls} of {self.calls} calls")
        if self.tokens is not None:
            caps.append(f"{spent.tokens_in + spent.tokens_out} of {self.tokens} tokens")
        if self.money is not None:
            caps.append(f"{spent.money:.4f} of {self.money:.4f} in money")
        return ", ".join(caps) or "no cap"
