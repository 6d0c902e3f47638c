"""From recorded responses to multiple-choice questions to answers, accuracy and paired differences.

What every study with such questions does alike; conditions and hypotheses are each study's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import nan, sqrt
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from persona_studies.analyse import scoring
from persona_studies.analyse.stats.paired import sign_flips
from persona_studies.ask import responses
from persona_studies.design.multiple_choice import LETTERS
from persona_studies.errors import ResponsesError

NOTHING_ASKED = (
    "None of the chosen conditions is asked by the primary measure of this recording: there is nothing to compare. "
    "Choose others, which the protocol asks by it, or another measure (measure=text, ...)."
)


def choices(recorded: pd.DataFrame, asked: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Say which option each cell chooses.

    ``cloze`` takes the option with the highest log-likelihood per character. ``letter`` averages the probability of
    each option, among the labels, over cyclic orders; the mean probability of the right option is the expected
    accuracy of an answer drawn from it.

    Args:
        asked: Questions: ``item, gold, n_options`` and whatever a study needs beside.
        measure: ``cloze`` or ``letter``.

    Returns:
        One row per condition and question: the columns of both, ``chosen`` (0-based), ``correct`` (0 or 1) and
        ``score`` (what is averaged: correct, or the right option's probability).
    """
    parts = []
    for rows, by_option in _by_option(recorded, asked, measure):
        gold = rows["gold"].to_numpy()
        chosen = by_option.argmax(axis=1)
        correct = (chosen == gold).astype(float)
        score = by_option[np.arange(len(gold)), gold] if measure == "letter" else correct
        parts.append(rows.assign(chosen=chosen, correct=correct, score=score))
    whole: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return whole


def probabilities(recorded: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
    """Return the probability of every option among the labels, averaged over cyclic orders.

    Args:
        asked: As in :func:`choices`.

    Returns:
        As :func:`choices`, with ``probability`` (an array over the options as declared) in place of ``score``.
    """
    parts = []
    for rows, by_option in _by_option(recorded, asked, "letter"):
        chosen = by_option.argmax(axis=1)
        correct = (chosen == rows["gold"].to_numpy()).astype(float)
        parts.append(rows.assign(chosen=chosen, correct=correct, probability=list(by_option)))
    whole: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return whole


def _by_option(
    recorded: pd.DataFrame, asked: pd.DataFrame, measure: str
) -> Iterator[tuple[pd.DataFrame, NDArray[np.float64]]]:
    """Yield, by number of options, cells with their questions and the value of every option: the highest wins."""
    cells = recorded[recorded["measure"] == measure].merge(asked, on="item", suffixes=("", "_asked"))
    for n in sorted(set(cells["n_options"])):
        group = cells[cells["n_options"] == n]
        logprob = responses.matrix(group)
        if measure == "cloze":
            yield group, logprob / responses.matrix(group, "n_chars")
            continue
        turned = scoring.in_declared_order(logprob, group["order"].to_numpy())
        chance = pd.DataFrame(scoring.shares(turned), columns=range(n))
        chance[["condition", "item"]] = group[["condition", "item"]].to_numpy()
        value = chance.groupby(["condition", "item"], sort=False).mean()
        mass = group.astype({"option_mass": float}).groupby(["condition", "item"], sort=False)["option_mass"].mean()
        rows = group.drop_duplicates(["condition", "item"]).set_index(["condition", "item"]).loc[value.index]
        yield rows.assign(option_mass=mass).reset_index(), value.to_numpy()


def paired(differences: pd.DataFrame, *, confidence: float, replicates: int, seed: int) -> pd.DataFrame:
    """Estimate mean differences over questions, each with a test of zero.

    Args:
        differences: Questions x hypotheses, indexed by benchmark (first level), ``item`` and ``cluster``; NaN is
            left out. Benchmarks weigh the same, however many questions they have.

    Returns:
        One row per hypothesis: ``n, difference, sd, se, low, high, p``; interval by Student's t, stratified by
        benchmark; p by flipping signs, within clusters together.

    Raises:
        ResponsesError: there is no hypothesis.
    """
    if differences.shape[1] == 0:
        raise ResponsesError(NOTHING_ASKED)
    rows: dict[Any, dict[str, Any]] = {}
    benchmark, _ = pd.factorize(differences.index.get_level_values(0))
    weighted = np.full(differences.shape, nan)
    for place, hypothesis in enumerate(differences):
        values = differences.iloc[:, place].to_numpy(dtype=float)
        known = ~np.isnan(values)
        d, inside = values[known], benchmark[known]
        n, sizes = len(d), np.bincount(inside, minlength=1)
        # Of each benchmark with two questions or more: mean, and square of its standard error.
        strata = [_mean_and_error(d[inside == one]) for one in dict.fromkeys(inside.tolist()) if sizes[one] > 1]
        if not strata:
            rows[hypothesis] = {"n": n, **dict.fromkeys(["difference", "sd", "se", "low", "high"], nan)}
            continue
        means, squares = zip(*strata, strict=True)
        k, estimate = len(strata), float(np.mean(means))
        se = sqrt(sum(squares)) / k
        reach = stats.t.ppf(0.5 + confidence / 2, n - k) * se
        weighted[known, place] = d * (n / (k * sizes[inside]))
        rows[hypothesis] = {
            "n": n,
            "difference": estimate,
            "sd": float(d.std(ddof=1)),
            "se": se,
            "low": estimate - reach,
            "high": estimate + reach,
        }
    flipped = sign_flips(
        pd.DataFrame(weighted, index=differences.index, columns=differences.columns),
        cluster=differences.index.get_level_values("cluster"),
        replicates=replicates,
        seed=seed,
    )
    table = pd.DataFrame.from_dict(rows, orient="index").reindex(differences.columns)
    return table.assign(p=flipped["p"])


def _mean_and_error(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean of values and the square of its standard error."""
    n, mean = len(values), values.sum() / len(values)
    return mean, ((values - mean) ** 2).sum() / n / (n - 1)


def positions(recorded: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
    """Return what the place of an option is worth: mean probability by place, and accuracy by the gold's place.

    Returns:
        ``n_options, place, letter, probability`` (mean over orders; 1 / options when place does not matter),
        ``accuracy`` (share of cells with the gold at that place in which it is the most probable label), ``n``.
    """
    letters = recorded[recorded["measure"] == "letter"].merge(asked[["item", "gold", "n_options"]], on="item")
    rows = []
    for n in sorted(set(letters["n_options"])):
        group = letters[letters["n_options"] == n]
        shares = scoring.shares(responses.matrix(group))
        place = (group["gold"] - group["order"]).to_numpy() % n
        right = shares.argmax(axis=1) == place
        rows += [
            {
                "n_options": n,
                "place": k + 1,
                "letter": LETTERS[k],
                "probability": shares[:, k].mean(),
                "accuracy": right[place == k].mean() if (place == k).any() else nan,
                "n": int((place == k).sum()),
            }
            for k in range(n)
        ]
    return pd.DataFrame(rows, columns=["n_options", "place", "letter", "probability", "accuracy", "n"])


def position_dominance(recorded: pd.DataFrame, asked: pd.DataFrame) -> float:
    """Return how much of a letter's probability its place decides, at worst over numbers of options."""
    letters = recorded[recorded["measure"] == "letter"].merge(asked[["item", "n_options"]], on="item")
    found = [
        scoring.position_dominance(responses.matrix(group), group["order"].to_numpy())
        for _, group in letters.groupby("n_options")
    ]
    return max(found, default=nan)
