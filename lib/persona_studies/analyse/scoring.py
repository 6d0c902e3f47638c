"""From raw log-probabilities and texts to scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

Array = NDArray[np.float64]


def in_declared_order(logprob: Array, order: NDArray[np.int_]) -> Array:
    """Undo cyclic option orders: column ``i`` of the result is the i-th option as declared.

    Order ``k`` showed option ``(i + k) mod n`` at place ``i``.

    >>> in_declared_order(np.array([[-1.0, -2.0, -3.0]]), np.array([1])).tolist()
    [[-3.0, -1.0, -2.0]]
    """
    n = logprob.shape[1]
    place = (np.arange(n)[None, :] - np.asarray(order)[:, None]) % n
    return np.take_along_axis(logprob, place, axis=1)


def shares(logprob: Array) -> Array:
    """Return the probability of every label among the labels.

    A censored label, whose log-probability an endpoint does not report, has less probability than any that it
    lists, and takes no share. Where every label is censored, nothing is known.

    Args:
        logprob: cells x labels, natural log-probabilities; NaN: censored.

    >>> shares(np.log([[0.3, 0.1, np.nan], [np.nan, np.nan, np.nan]])).round(2).tolist()
    [[0.75, 0.25, 0.0], [nan, nan, nan]]
    """
    censored = np.isnan(logprob)
    known: Array = softmax(np.where(censored & ~censored.all(axis=1, keepdims=True), -np.inf, logprob), axis=1)
    return known


def expected_rating(logprob: Array, values: Sequence[float]) -> Array:
    """Return the mean of a rating scale under the label probabilities, renormalised to the labels.

    Args:
        logprob: cells x labels.
        values: The value of each label.
    """
    rating: Array = shares(logprob) @ np.asarray(values, dtype=float)
    return rating


def position_dominance(logprob: Array, order: NDArray[np.int_]) -> float:
    """Return how much the place of an option decides: 0 not at all, 1 alone.

    Mean over cells of the largest mean probability that one place attracts over cyclic orders, rescaled so
    that equal shares are 0.

    Args:
        logprob: cells x labels in shown order; every item in all cyclic orders.
        order: cells; the option order.
    """
    found = shares(logprob)
    by_order = np.array([np.nanmean(found[order == k], axis=0) for k in np.unique(order)])
    n = found.shape[1]
    return float((by_order.mean(axis=0).max() - 1 / n) / (1 - 1 / n))
