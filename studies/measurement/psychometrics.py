"""What a questionnaire shows about whoever answers it: models, people and simulations, by the same rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
import pandas as pd
import pingouin as pg
from numpy.typing import NDArray

from persona_studies.analyse.stats.reliability import omega

Array = NDArray[np.float64]
ONE_FACTOR = 0.6
"""Mean |r| of different domains above which they are one factor."""
DESIRABLE = {"neuroticism": -1}
"""Domains whose high pole is the undesirable one."""


@dataclass(frozen=True)
class Answers:
    """Ratings of a questionnaire, each 1 to ``top``, where high is agreement.

    Attributes:
        rising: People x items, asked with a rising scale, or with the only one there is.
        keys: Items; 1 or -1.
        domains: Items.
        falling: The same people and items with a falling scale, turned so that high is agreement.
        top: Highest rating.
    """

    rising: Array
    keys: NDArray[np.int_]
    domains: NDArray[np.str_]
    falling: Array | None = None
    top: int = 5

    @property
    def raw(self) -> Array:
        """People x items: the mean over both scales."""
        return self.rising if self.falling is None else (self.rising + self.falling) / 2

    @property
    def keyed(self) -> Array:
        """People x items: turned where the key is -1, so that high is more of the domain."""
        return np.where(self.keys > 0, self.raw, self.top + 1 - self.raw)


def correlate(x: Array, y: Array) -> float:
    """Return Pearson's r over complete pairs; NaN where either does not vary (by less than rounding)."""
    both = ~(np.isnan(x) | np.isnan(y))
    x, y = x[both], y[both]
    if len(x) < 3 or x.std() < 1e-9 or y.std() < 1e-9:
        return nan
    return float(np.corrcoef(x, y)[0, 1])


def alpha(items: Array, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return Cronbach's alpha and its interval (Feldt) over complete rows; NaN where nothing varies."""
    whole = items[~np.isnan(items).any(axis=1)]
    if len(whole) < 3 or whole.sum(axis=1).std() < 1e-9:
        return nan, nan, nan
    value, limits = pg.cronbach_alpha(pd.DataFrame(whole), ci=confidence)
    return float(value), float(limits[0]), float(limits[1])


def scales(answers: Answers, confidence: float = 0.95) -> pd.DataFrame:
    """Describe every domain.

    Returns:
        ``domain, people, items, mean, acquiescence`` (mean of both raw halves less the middle), ``alpha, alpha_low,
        alpha_high`` (keyed), ``alpha_unkeyed, omega`` (undefined with no more people than items), ``pole_r`` (the
        plus-keyed half with the turned minus-keyed half, over people), ``item_rest`` (mean), ``extreme`` (share at
        either end).
    """
    keyed, raw, middle = answers.keyed, answers.raw, (answers.top + 1) / 2
    rows = []
    for domain in dict.fromkeys(answers.domains.tolist()):
        mine = answers.domains == domain
        plus, minus = mine & (answers.keys > 0), mine & (answers.keys < 0)
        value, low, high = alpha(keyed[:, mine], confidence)
        own = keyed[:, mine]
        rest = [correlate(own[:, k], np.delete(own, k, axis=1).mean(axis=1)) for k in range(own.shape[1])]
        halves = (keyed[:, plus].mean(axis=1), keyed[:, minus].mean(axis=1)) if minus.any() and plus.any() else None
        varies = own.shape[0] > own.shape[1] and (np.nanstd(own, axis=0) > 1e-9).all()
        rows.append(
            {
                "domain": domain,
                "people": len(own),
                "items": int(mine.sum()),
                "mean": float(np.nanmean(own)),
                "acquiescence": nan
                if halves is None
                else float((np.nanmean(raw[:, plus]) + np.nanmean(raw[:, minus])) / 2 - middle),
                "alpha": value,
                "alpha_low": low,
                "alpha_high": high,
                "alpha_unkeyed": alpha(raw[:, mine], confidence)[0],
                "omega": omega(own).estimate if varies else nan,
                "pole_r": nan if halves is None else correlate(*halves),
                "item_rest": float(np.mean(rest)),
                "extreme": float(np.mean((np.round(own) <= 1) | (np.round(own) >= answers.top))),
            }
        )
    return pd.DataFrame(rows)


def structure(answers: Answers) -> dict[str, float]:
    """Return mean |r| of different domains and the share of the first eigenvalue, over people."""
    names = list(dict.fromkeys(answers.domains.tolist()))
    scores = np.column_stack([np.nanmean(answers.keyed[:, answers.domains == name], axis=1) for name in names])
    return of_scores(scores)


def of_scores(scores: Array) -> dict[str, float]:
    """Return ``heterotrait`` (mean |r| of columns) and ``first_share`` (of the first eigenvalue), over rows."""
    if len(scores) < 3 or (scores.std(axis=0) < 1e-9).any():
        return {"heterotrait": nan, "first_share": nan}
    r = np.atleast_2d(np.corrcoef(scores, rowvar=False))
    return {
        "heterotrait": float(np.abs(r[np.triu_indices_from(r, 1)]).mean()),
        "first_share": float(np.linalg.eigvalsh(r)[-1] / len(r)),
    }


def summary(answers: Answers, confidence: float = 0.95) -> dict[str, Any]:
    """Return one row about whoever answered: means over domains, and what position and agreement do.

    Returns:
        ``people, items, median_pole_r`` (over domains), ``alpha, alpha_unkeyed`` (means), ``raw_mean`` (both halves
        weigh the same), ``heterotrait, first_share, order_r`` (of items' means under both scales), ``order_shift``
        (rising less falling), ``one_option`` (largest share of one rounded rating).
    """
    per = scales(answers, confidence)
    poles = per["pole_r"].dropna().to_numpy(dtype=float)
    raw, plus = answers.raw, answers.keys > 0
    # An answer is rounded by itself: the mean of two opposite ends is no answer.
    said = answers.rising if answers.falling is None else np.stack([answers.rising, answers.falling])
    rounded = np.round(said[~np.isnan(said)])
    both = {"order_r": nan, "order_shift": nan}
    if answers.falling is not None:
        one, two = np.nanmean(answers.rising, axis=0), np.nanmean(answers.falling, axis=0)
        both = {"order_r": correlate(one, two), "order_shift": float(one.mean() - two.mean())}
    return {
        "people": len(raw),
        "items": raw.shape[1],
        "median_pole_r": float(np.median(poles)) if len(poles) else nan,
        "alpha": float(per["alpha"].mean()),
        "alpha_unkeyed": float(per["alpha_unkeyed"].mean()),
        "raw_mean": float((np.nanmean(raw[:, plus]) + np.nanmean(raw[:, ~plus])) / 2),
        **structure(answers),
        **both,
        "one_option": float(np.unique(rounded, return_counts=True)[1].max() / len(rounded)),
    }


def flag(row: Mapping[str, Any], top: int = 5) -> str:
    """Return what is wrong with whoever answered, by the rule that the protocol declares; the first that holds.

    Args:
        row: Of :func:`summary`.
        top: Highest rating; thresholds are points of 5.
    """
    point, middle = (top - 1) / 4, (top + 1) / 2
    if abs(row["order_shift"]) > point or row["order_r"] < 0:
        return "position"
    if row["median_pole_r"] <= -0.3 or abs(row["raw_mean"] - middle) > 0.5 * point:
        return "acquiescence"
    if not row["median_pole_r"] >= 0.3:
        return "no signal"
    return "one factor" if row["heterotrait"] > ONE_FACTOR else "none"


# --- Reference responders --------------------------------------------------------------------------------

LOADING = 0.8
"""Correlation of an answer with the level behind it, before it is rounded to the scale."""


def responder(name: str, keys: NDArray[np.int_], domains: NDArray[np.str_], *, people: int, seed: int) -> Answers:
    """Simulate people who answer by one rule.

    Args:
        name: ``ideal``, ``uniform``, ``first``, ``yes`` or ``desirable``.
        keys: Items.
        domains: Items.
        people: How many.

    Raises:
        KeyError: an unknown rule.
    """
    rng = np.random.default_rng(seed)
    shape = (people, len(keys))
    names = list(dict.fromkeys(domains.tolist()))
    own = rng.normal(size=(people, len(names)))[:, [names.index(each) for each in domains]]
    one = rng.normal(size=(people, 1))
    toward = keys * np.array([DESIRABLE.get(each, 1) for each in domains])
    noise = np.sqrt(1 - LOADING**2) * rng.normal(size=shape)
    rules: dict[str, Callable[[], tuple[Array, Array]]] = {
        "ideal": lambda: _same(_rated(LOADING * own * keys + noise)),
        "uniform": lambda: (
            rng.integers(1, 6, size=shape).astype(float),
            rng.integers(1, 6, size=shape).astype(float),
        ),
        "first": lambda: (np.full(shape, 1.0), np.full(shape, 5.0)),
        "yes": lambda: _same(_rated(LOADING * one + noise + 1.4)),
        "desirable": lambda: _same(_rated(LOADING * one * toward + noise)),
    }
    rising, falling = rules[name]()
    return Answers(rising, keys, domains, falling)


def _rated(level: Array) -> Array:
    rated: Array = np.clip(np.round(3 + 1.2 * level), 1, 5)
    return rated


def _same(rated: Array) -> tuple[Array, Array]:
    return rated, rated


# --- Generalisability ------------------------------------------------------------------------------------


def components(table: pd.DataFrame, value: str, facets: list[str]) -> pd.DataFrame:
    """Return variance components of a fully crossed design with one observation per cell, all facets random.

    Mean squares of every combination of facets are set equal to their expectation; the highest combination is the
    residual. Negative estimates become 0 and are flagged (Brennan 2001, Generalizability Theory, chapter 3).

    Args:
        table: One row per cell, every combination of the facets once.
        value: Column of the score.
        facets: Columns.

    Returns:
        ``component`` (facets joined by " x "), ``variance, share, negative``.

    Raises:
        ValueError: a combination is missing or there twice.
    """
    levels = [list(dict.fromkeys(table[facet])) for facet in facets]
    shape = tuple(map(len, levels))
    cube = table.set_index(facets)[value]
    if len(cube) != int(np.prod(shape)) or cube.index.has_duplicates:
        raise ValueError(f"{len(cube)} cells do not cross {' x '.join(map(str, shape))} levels")
    return _components(cube.reindex(pd.MultiIndex.from_product(levels)).to_numpy(float).reshape(shape), facets)


def _components(cube: Array, facets: list[str]) -> pd.DataFrame:
    n, axes = cube.shape, range(cube.ndim)
    subsets = [tuple(k for k in axes if mask >> k & 1) for mask in range(1, 2**cube.ndim)]
    effects: dict[tuple[int, ...], Array] = {(): cube.mean(keepdims=True)}
    squares: dict[tuple[int, ...], float] = {}
    for subset in sorted(subsets, key=len):
        mean = cube.mean(axis=tuple(k for k in axes if k not in subset), keepdims=True)
        effects[subset] = mean - sum(effect for part, effect in effects.items() if set(part) < set(subset))
        rest = np.prod([n[k] for k in axes if k not in subset])
        df = np.prod([n[k] - 1 for k in subset])
        squares[subset] = float(rest * (effects[subset] ** 2).sum() / df) if df else nan
    found: dict[tuple[int, ...], float] = {}
    raw: dict[tuple[int, ...], float] = {}
    for subset in sorted(subsets, key=len, reverse=True):
        above = sum(
            raw[part] * np.prod([n[k] for k in axes if k not in part]) for part in raw if set(subset) < set(part)
        )
        raw[subset] = float((squares[subset] - above) / np.prod([n[k] for k in axes if k not in subset]))
        found[subset] = max(raw[subset], 0.0)
    total = sum(found.values())
    return pd.DataFrame(
        [
            {
                "component": " x ".join(facets[k] for k in subset),
                "variance": found[subset],
                "share": found[subset] / total if total > 0 else nan,
                "negative": raw[subset] < -1e-12,
            }
            for subset in sorted(subsets, key=lambda s: (len(s), s))
        ]
    )


def generalisability(
    table: pd.DataFrame,
    value: str,
    facets: list[str],
    *,
    strata: str,
    replicates: int,
    seed: int,
    confidence: float,
) -> pd.DataFrame:
    """Return variance components of items within strata, averaged over strata, with a bootstrap over items.

    Args:
        table: One row per cell; the first facet is the item.
        value: Column of the score.
        facets: Facets, items first.
        strata: Column of the domain that an item belongs to.
        replicates: Bootstrap samples of items within strata.

    Returns:
        ``component, variance, low, high, share, negative`` (in how many strata an estimate was negative).
    """
    cubes = []
    for _, part in table.groupby(strata, sort=False):
        levels = [list(dict.fromkeys(part[facet])) for facet in facets]
        cube = part.set_index(facets)[value].reindex(pd.MultiIndex.from_product(levels)).to_numpy(float)
        cubes.append(cube.reshape(tuple(map(len, levels))))
    point = [_components(cube, facets) for cube in cubes]
    rng = np.random.default_rng(seed)
    drawn = np.array(
        [
            np.mean(
                [
                    _components(cube[rng.integers(0, len(cube), len(cube))], facets)["variance"].to_numpy()
                    for cube in cubes
                ],
                axis=0,
            )
            for _ in range(replicates)
        ]
    )
    # An item that is drawn twice does not vary against itself: its components come out too small by (n - 1) / n.
    n = len(cubes[0])
    drawn *= np.where(point[0]["component"].str.contains(facets[0]), n / (n - 1), 1.0)
    tail = (1 - confidence) / 2
    mean = np.mean([part["variance"].to_numpy() for part in point], axis=0)
    return pd.DataFrame(
        {
            "component": point[0]["component"],
            "variance": mean,
            "low": np.quantile(drawn, tail, axis=0),
            "high": np.quantile(drawn, 1 - tail, axis=0),
            "share": mean / mean.sum(),
            "negative": np.sum([part["negative"].to_numpy() for part in point], axis=0),
        }
    )


def dependability(keyed: Array, items: list[int]) -> pd.DataFrame:
    """Return phi of a mean over so many items, with people crossed with items: the D-study curve.

    Args:
        keyed: People x items, one domain.
        items: Numbers of items.

    Returns:
        ``items, phi``.
    """
    people, n = keyed.shape
    table = pd.DataFrame(
        {"person": np.repeat(range(people), n), "item": np.tile(range(n), people), "value": keyed.ravel()}
    )
    found = components(table, "value", ["person", "item"]).set_index("component")["variance"]
    error = found["item"] + found["person x item"]
    phi = [found["person"] / (found["person"] + error / k) if found.sum() > 0 else nan for k in items]
    return pd.DataFrame({"items": items, "phi": phi})
