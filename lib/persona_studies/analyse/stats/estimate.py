"""The result every estimator returns, and what counts as usable data."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from persona_studies.errors import StatisticsError

Array = NDArray[np.float64]

CONSTANT = "undefined (constant)"


@dataclass(frozen=True)
class Estimate:
    """One estimated quantity. A list of them makes a table: ``pd.DataFrame([...])``.

    Attributes:
        estimate: Point estimate; NaN where undefined.
        low: Lower limit of the interval; NaN where undefined.
        high: Upper limit.
        p: Two-sided p-value of no effect; NaN where no such test belongs to the method.
        n: Units that entered, after incomplete ones were left out.
        reason: Why something is undefined; empty when nothing is.
    """

    estimate: float
    low: float = nan
    high: float = nan
    p: float = nan
    n: int = 0
    reason: str = ""


def fraction(name: str, value: float) -> float:
    """Return ``value`` when it lies strictly between 0 and 1.

    Raises:
        StatisticsError: it does not.
    """
    if not 0 < value < 1:
        raise StatisticsError(f"{name} must lie strictly between 0 and 1, not {value}.")
    return float(value)


def vector(name: str, values: ArrayLike) -> Array:
    """Return ``values`` as one dimension of floats; NaN stays and means missing.

    Raises:
        StatisticsError: not numbers, not one-dimensional, or infinite.
    """
    array = _finite(name, values)
    if array.ndim != 1:
        raise StatisticsError(f"{name} must be one-dimensional, not of shape {array.shape}.")
    return array


def matrix(name: str, values: ArrayLike) -> Array:
    """Return ``values`` as two dimensions of floats; NaN stays and means missing.

    Raises:
        StatisticsError: not numbers, not two-dimensional, empty, or infinite.
    """
    array = _finite(name, values)
    if array.ndim != 2 or not array.size:
        raise StatisticsError(f"{name} must be a matrix with rows and columns, not of shape {array.shape}.")
    return array


def _finite(name: str, values: ArrayLike) -> Array:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise StatisticsError(f"{name} must hold numbers: {error}") from error
    if np.isinf(array).any():
        raise StatisticsError(f"{name} holds infinite values; a missing value is NaN.")
    return array


def complete(**samples: ArrayLike) -> list[Array]:
    """Return the samples without the units for which any of them is NaN.

    Raises:
        StatisticsError: lengths differ, or Series are indexed by different units.
    """
    same_units(**samples)
    arrays = {name: vector(name, values) for name, values in samples.items()}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise StatisticsError(f"Samples must have the same units, in the same order; lengths are {lengths}.")
    usable = ~np.any([np.isnan(array) for array in arrays.values()], axis=0)
    return [array[usable] for array in arrays.values()]


def same_units(**samples: object) -> None:
    """Check that Series and DataFrames among the samples have one index; anything else pairs by position.

    Raises:
        StatisticsError: two are indexed by different units, or by the same in another order.
    """
    indexed = {name: s.index for name, s in samples.items() if isinstance(s, (pd.Series, pd.DataFrame))}
    for name, index in indexed.items():
        first = next(iter(indexed))
        if not index.equals(indexed[first]):
            raise StatisticsError(
                f"{first} and {name} are indexed by different units, or in another order; align them first, for "
                "instance with reindex, or pass arrays if their order is right."
            )


def codes(name: str, labels: ArrayLike | pd.Series, length: int) -> NDArray[np.intp]:
    """Return cluster labels as integers from 0.

    Raises:
        StatisticsError: missing labels, or not one per unit.
    """
    numbered, _ = pd.factorize(np.asarray(labels), use_na_sentinel=True)
    if len(numbered) != length:
        raise StatisticsError(f"{name} must name one cluster per unit: {len(numbered)} labels for {length} units.")
    if (numbered < 0).any():
        raise StatisticsError(f"{name} has missing labels.")
    return numbered


def is_constant(values: Array) -> bool:
    """Return whether values differ by no more than rounding, relative to the largest of them."""
    return bool(values.size == 0 or np.ptp(values) <= 1e-12 * np.abs(values).max())
