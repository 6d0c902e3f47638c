"""Personalized Judge, from its released rows: accuracies, contrasts on shared pairs, certainty and order."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from math import nan, sqrt
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats as distributions
from statsmodels.stats.proportion import proportion_confint, proportions_ztest

from persona_choice import published
from persona_studies.analyse import families
from persona_studies.analyse.families import Settings, discordant
from persona_studies.design.protocol import Hypothesis, Protocol
from persona_studies.paths import Project

PRISM = [name for name in published.RUNS if name.startswith("PRISM ")]
PAIRS = {" / ".join(name.removeprefix("PRISM ") for name in pair): pair for pair in permutations(PRISM, 2)}
"""Two runs, as the family ``pj_order`` names them, and their labels."""
Array = NDArray[np.float64]

BINARY = ("PRISM", "OpinionQA", "EC")
"""Tasks with two options whose released files are a task: the Reddit one (PR) is not."""


def rows(project: Project) -> pd.DataFrame:
    """Return the released rows with what they mean.

    Returns:
        The columns of :func:`persona_choice.published.judge_rows`, and ``label`` (the run as it is called here),
        ``valid`` (the reply is A or B), ``tie`` (the gold label is C), ``right``, ``first`` (whether the answer
        that sorts first was chosen, whatever its place), ``longer_right`` (whether the longer answer is the gold
        one; NaN where none is longer), and ``respondent`` (who asked: the profile that the question has in a run
        with whole profiles; the question itself where no such run has it).
    """
    found = published.committed_rows(project)
    names = {run: label for label, run in published.RUNS.items()}
    whole = found[
        found["run"].isin([published.RUNS["PRISM Command R+ all"], published.RUNS["PRISM Command R+ none"]])
    ]
    asked = whole.drop_duplicates("question").set_index("question")["persona"]
    shown = found["answer"].eq("A") == found["order"].eq("AB")
    unequal = found["longer"] != "="
    return found.assign(
        label=found["run"].map(names),
        valid=found["answer"].isin(published.LETTERS),
        tie=found["gold"].eq("C"),
        right=found["answer"].eq(found["gold"]),
        first=shown,
        longer_right=found["longer"].eq(found["gold"]).astype(float).where(unequal),
        respondent=found["question"].map(asked).fillna(found["question"]),
    )


def of(rows: pd.DataFrame, label: str) -> pd.DataFrame:
    """Return the valid rows of one run."""
    return rows[(rows["label"] == label) & rows["valid"]]


def runs(rows: pd.DataFrame, counts: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Return every run with its accuracies, and beside them what the longer answer and the first place would score.

    Args:
        rows: Of :func:`rows`.
        counts: The table ``judge_runs``.

    Returns:
        ``run, printed`` (as the authors' notebook prints it), ``n`` (valid replies), ``accuracy, low, high``
        (Wilson), ``n_untied, untied, untied_low, untied_high`` (tied gold labels dropped), ``invalid_wrong``
        (replies that are neither A nor B counted as wrong), ``longer`` (accuracy of the longer answer, same pairs),
        ``says_a`` (share of replies A). Runs without rows have the printed counts alone.
    """
    known = counts.set_index("run").to_dict("index")
    made = []
    for label, run in published.RUNS.items():
        printed, mine = known[run], rows[rows["label"] == label]
        row: dict[str, Any] = {"run": label, "printed": printed["acc"]}
        valid = mine[mine["valid"]]
        if len(valid):
            untied = valid[~valid["tie"]]
            row |= {"n": len(valid), "k": int(valid["right"].sum())}
            row |= {"n_untied": len(untied), "untied": untied["right"].mean()}
            row["untied_low"], row["untied_high"] = proportion_confint(
                int(untied["right"].sum()), len(untied), alpha=1 - how.confidence, method="wilson"
            )
            row |= {"invalid_wrong": mine["right"].mean(), "longer": untied["longer_right"].mean()}
            row |= {"says_a": valid["answer"].eq("A").mean()}
        else:
            row |= {"n": printed["n_high"] + printed["n_low"], "k": printed["k_high"] + printed["k_low"]}
        row["accuracy"] = row["k"] / row["n"]
        row["low"], row["high"] = proportion_confint(row["k"], row["n"], alpha=1 - how.confidence, method="wilson")
        made.append(row)
    columns = ["run", "printed", "n", "accuracy", "low", "high", "n_untied", "untied", "untied_low", "untied_high"]
    return pd.DataFrame(made).reindex(columns=[*columns, "invalid_wrong", "longer", "says_a"])


# --- Contrasts on shared pairs --------------------------------------------------------------------------------


def shared(rows: pd.DataFrame, one: str, other: str) -> pd.DataFrame:
    """Return the pairs that two runs share, both replies valid and no gold label tied.

    Returns:
        ``pair, respondent`` and, with suffixes ``_1`` and ``_2``, ``right, first, order``.
    """
    columns = ["pair", "right", "first", "order"]
    parts = [mine[~mine["tie"]] for mine in (of(rows, one), of(rows, other))]
    found: pd.DataFrame = parts[0][[*columns, "respondent"]].merge(
        parts[1][columns], on="pair", suffixes=("_1", "_2"), validate="one_to_one"
    )
    return found


def contrasts(protocol: Protocol, rows: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Test the declared contrasts of the released rows.

    Returns:
        As :func:`persona_studies.analyse.families.corrected`, for the families ``pj_features, pj_persona,
        pj_knowledge, pj_order`` and ``pj_length``.
    """
    make: dict[str, Callable[[Hypothesis], dict[str, Any]]] = {
        "pj_features": lambda each: _on_shared(rows, each, how),
        "pj_persona": lambda each: _on_shared(rows, each, how),
        "pj_knowledge": lambda each: knowledge(rows, each, how),
        "pj_order": lambda each: order_effect(rows, each, how),
        "pj_length": lambda each: _beyond_length(rows, each, how),
    }
    parts = []
    for name, test in make.items():
        family = protocol.families[name]
        found = {h: test(contrast) for h, contrast in family.contrasts.items()}
        parts.append(families.corrected(name, family, found, how))
    return pd.concat(parts, ignore_index=True)


def _on_shared(rows: pd.DataFrame, contrast: Hypothesis, how: Settings) -> dict[str, Any]:
    both = shared(rows, f"PRISM {contrast.on} {contrast.first}", f"PRISM {contrast.on} {contrast.second}")
    return families.of_counts(*discordant(both["right_1"], both["right_2"]), contrast=contrast, how=how)


def _beyond_length(rows: pd.DataFrame, contrast: Hypothesis, how: Settings) -> dict[str, Any]:
    mine = of(rows, f"PRISM {contrast.on}")
    mine = mine[~mine["tie"] & mine["longer_right"].notna()]
    return families.of_counts(*discordant(mine["right"], mine["longer_right"] == 1), contrast=contrast, how=how)


def exact(protocol: Protocol, name: str, right: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Test a family of paired shares by exact McNemar tests, as :func:`families.corrected` returns it.

    Args:
        right: Items x conditions, 1 or 0; a condition that is not there counts as p = 1.
    """
    family, found = protocol.families[name], {}
    for h, contrast in family.contrasts.items():
        both = right.reindex(columns=[contrast.first, contrast.second]).dropna().astype(bool)
        found[h] = families.of_counts(*discordant(*(both[each] for each in both)), contrast=contrast, how=how)
    return families.corrected(name, family, found, how)


def shared_pairs(protocol: Protocol, rows: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Return the contrasts of features and persona with their counts, and what a wrong join would have kept.

    Returns:
        ``first, second, pairs`` (shared), ``questions`` (shared), ``only_first, only_second`` (right), ``p`` (exact
        McNemar, not corrected).
    """
    made = []
    for name in ("pj_features", "pj_persona"):
        for contrast in protocol.families[name].contrasts.values():
            one, other = (f"PRISM {contrast.on} {each}" for each in (contrast.first, contrast.second))
            both = shared(rows, one, other)
            b, c, n = discordant(both["right_1"], both["right_2"])
            questions = {*of(rows, one)["question"]} & {*of(rows, other)["question"]}
            p = families.of_counts(b, c, n, contrast=contrast, how=how)["p"]
            row = {"first": one, "second": other, "pairs": n, "questions": len(questions)}
            row |= {"accuracy_first": both["right_1"].mean(), "accuracy_second": both["right_2"].mean()}
            made.append(row | {"only_first": b, "only_second": c, "p": p})
    return pd.DataFrame(made)


# --- Bootstrap over persons -----------------------------------------------------------------------------------


def resampled(sums: Array, how: Settings) -> Array:
    """Return sums over persons drawn with replacement: replicates x columns.

    Args:
        sums: Persons x columns: what each person adds.
    """
    rng = np.random.default_rng(how.seed)
    n, chunk = len(sums), 1000
    parts = [
        rng.multinomial(n, np.full(n, 1 / n), size=min(chunk, how.replicates - start)) @ sums
        for start in range(0, how.replicates, chunk)
    ]
    whole: Array = np.vstack(parts)
    return whole


def bootstrapped(estimate: float, drawn: Array, n: int, contrast: Hypothesis, how: Settings) -> dict[str, Any]:
    """Return an estimate with percentile interval, z test by the bootstrap's standard error, and bound."""
    se = float(np.nanstd(drawn, ddof=1))
    low, high = np.nanquantile(drawn, [0.5 - how.confidence / 2, 0.5 + how.confidence / 2])
    p = float(2 * distributions.norm.sf(abs(estimate) / se)) if se > 0 else (1.0 if estimate == 0 else nan)
    bound = families.bound_p(estimate, se, np.inf, margin=contrast.smallest_effect, direction=contrast.direction)
    row: dict[str, Any] = {"n": n, "estimate": estimate, "se": se, "df": np.inf, "p": p, "p_bound": bound}
    return row | {"low": float(low), "high": float(high)}


def by_person(values: pd.DataFrame, person: pd.Series) -> Array:
    """Return the sums of columns over persons: persons x columns."""
    sums: Array = values.groupby(person.to_numpy(), sort=True).sum().to_numpy(dtype=float)
    return sums


def auroc(wrong: Array, right: Array) -> Array:
    """Return the area under the ROC curve of a score for being right, from counts by ascending score.

    Args:
        wrong: ... x scores: wrong replies with each score.
        right: The same for right replies.

    >>> auroc(np.array([2.0, 1.0]), np.array([1.0, 2.0])).round(3).tolist()
    0.667
    """
    below = np.cumsum(wrong, axis=-1) - wrong
    area: Array = (right * (below + wrong / 2)).sum(axis=-1)
    return np.asarray(area / (wrong.sum(axis=-1) * right.sum(axis=-1)))


def _certainties(mine: pd.DataFrame) -> pd.DataFrame:
    """Return indicators of outcome and certainty, wrong replies first: replies x (2 * scores)."""
    certainty = mine["certainty"].to_numpy(dtype=float, na_value=nan)
    at = certainty[:, None] == np.unique(certainty[~np.isnan(certainty)])
    right = mine["right"].to_numpy(dtype=bool)[:, None]
    return pd.DataFrame(np.hstack([at & ~right, at & right]), index=mine.index, dtype=float)


def _area(counts: Array) -> Array:
    half = counts.shape[-1] // 2
    return auroc(counts[..., :half], counts[..., half:])


def knowledge(rows: pd.DataFrame, contrast: Hypothesis, how: Settings) -> dict[str, Any]:
    """Compare the AUROC of certainty for being right between two runs; persons are drawn for both at once."""
    parts = [of(rows, f"PRISM {contrast.on} {each}") for each in (contrast.first, contrast.second)]
    indicators = [_certainties(part) for part in parts]
    width = indicators[0].shape[1]
    both = pd.concat(
        [part.set_axis([f"{k}-{j}" for j in range(part.shape[1])], axis=1) for k, part in enumerate(indicators)]
    ).fillna(0.0)
    sums = by_person(both, pd.concat([part["respondent"] for part in parts]))
    drawn = resampled(sums, how)
    whole = sums.sum(axis=0)
    estimate = float(_area(whole[:width]) - _area(whole[width:]))
    return bootstrapped(estimate, _area(drawn[:, :width]) - _area(drawn[:, width:]), len(both), contrast, how)


def areas(rows: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Return the AUROC of certainty for being right, run by run of PRISM: ``run, n, scale, auroc, low, high``.

    Without a persona the prompt asks for a certainty of 1 to 5, with one for 1 to 100.
    """
    made = []
    for label in PRISM:
        mine = of(rows, label)
        mine = mine[~mine["tie"] & mine["certainty"].notna()]
        if mine.empty:
            continue
        sums = by_person(_certainties(mine), mine["respondent"])
        low, high = np.nanquantile(
            _area(resampled(sums, how)), [0.5 - how.confidence / 2, 0.5 + how.confidence / 2]
        )
        scale = "1 to 5" if label.endswith("none") else "1 to 100"
        row = {"run": label, "n": len(mine), "scale": scale, "auroc": float(_area(sums.sum(axis=0)))}
        made.append(row | {"low": float(low), "high": float(high)})
    return pd.DataFrame(made)


def _agreement(rows: pd.DataFrame, on: str) -> tuple[pd.DataFrame, Array]:
    """Return shared pairs with agreement, and sums by person: agreeing and all, in the same order and swapped."""
    both = shared(rows, *PAIRS[on])
    both = both.assign(same=both["order_1"] == both["order_2"], agree=both["first_1"] == both["first_2"])
    values = pd.DataFrame(
        {
            "same agree": both["same"] & both["agree"],
            "same": both["same"],
            "swapped agree": ~both["same"] & both["agree"],
            "swapped": ~both["same"],
        }
    ).astype(float)
    return both, by_person(values, both["respondent"])


def order_effect(rows: pd.DataFrame, contrast: Hypothesis, how: Settings) -> dict[str, Any]:
    """Compare how often two runs choose the same answer when its place changed and when it did not."""
    both, sums = _agreement(rows, contrast.on)

    def gap(of: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(of[..., 2] / of[..., 3] - of[..., 0] / of[..., 1])

    return bootstrapped(float(gap(sums.sum(axis=0))), gap(resampled(sums, how)), len(both), contrast, how)


def agreement(protocol: Protocol, rows: pd.DataFrame) -> pd.DataFrame:
    """Return how often two runs choose the same answer: ``runs, pairs, share_same_order, same_order, swapped``."""
    made = []
    for contrast in protocol.families["pj_order"].contrasts.values():
        both, sums = _agreement(rows, contrast.on)
        agree_same, same, agree_swapped, swapped = sums.sum(axis=0)
        row = {"runs": contrast.on, "pairs": len(both), "share_same_order": same / len(both)}
        made.append(row | {"same_order": agree_same / same, "swapped": agree_swapped / swapped})
    return pd.DataFrame(made)


# --- Certainty and accuracy -----------------------------------------------------------------------------------


def strata(rows: pd.DataFrame, counts: pd.DataFrame, high: int) -> pd.DataFrame:
    """Return right and all replies by certainty: ``run, n_high, k_high, n_low, k_low, from_rows``.

    Args:
        rows: Of :func:`rows`.
        counts: The table ``judge_runs``; its counts stand in where a run has no rows, at a certainty of 80.
        high: The certainty that counts as high.
    """
    known = counts.set_index("run").to_dict("index")
    made = []
    for label, run in published.RUNS.items():
        if label.endswith(("with tie", "none")):
            continue
        mine = of(rows, label)
        if len(mine):
            certain = (mine["certainty"].fillna(0) >= high).to_numpy(dtype=bool)
            right = mine["right"].to_numpy()
            numbers = [certain.sum(), (right & certain).sum(), (~certain).sum(), (right & ~certain).sum()]
        elif high == published.HIGH:
            numbers = [known[run][name] for name in ("n_high", "k_high", "n_low", "k_low")]
        else:
            continue
        n_high, k_high, n_low, k_low = map(int, numbers)
        row = {"run": label, "n_high": n_high, "k_high": k_high, "n_low": n_low, "k_low": k_low}
        made.append(row | {"from_rows": bool(len(mine))})
    return pd.DataFrame(made)


def certain(strata: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Judge every run of a binary task by Wilson's limits of its accuracy when certain.

    Returns:
        ``run, n, accuracy, low, high, over`` (the lower limit is above .80), ``under`` (the upper one is below).
    """
    mine = strata[strata["run"].str.startswith(BINARY) & (strata["n_high"] > 0)]
    low, high = proportion_confint(mine["k_high"], mine["n_high"], alpha=1 - how.confidence, method="wilson")
    found = mine[["run"]].assign(
        n=mine["n_high"],
        accuracy=mine["k_high"] / mine["n_high"],
        low=low,
        high=high,
        over=low > 0.8,
        under=high < 0.8,
    )
    return found.reset_index(drop=True)


def strata_tests(protocol: Protocol, strata: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Compare accuracy when certain with accuracy when not, run by run: Fisher's exact test, Newcombe's interval.

    Returns:
        As :func:`persona_studies.analyse.families.corrected`.
    """
    found = {}
    for row in strata.to_dict("records"):
        k, n, j, m = (row[name] for name in ("k_high", "n_high", "k_low", "n_low"))
        if n and m:
            p = float(distributions.fisher_exact([[k, n - k], [j, m - j]]).pvalue)
            one, two = k / n, j / m
            found[str(row["run"])] = {"n": n + m, "p": p, "estimate": one - two, **_newcombe(k, n, j, m, how)}
    return families.corrected("pj_strata", protocol.families["pj_strata"], found, how)


def _newcombe(k: int, n: int, j: int, m: int, how: Settings) -> dict[str, float]:
    """Return the limits of a difference of two proportions (Newcombe 1998, Statistics in Medicine 17, 873-890)."""
    (low, high), (low_2, high_2) = (
        proportion_confint(a, b, alpha=1 - how.confidence, method="wilson") for a, b in ((k, n), (j, m))
    )
    one, two = k / n, j / m
    return {
        "low": one - two - sqrt((one - low) ** 2 + (high_2 - two) ** 2),
        "high": one - two + sqrt((high - one) ** 2 + (two - low_2) ** 2),
    }


def unpaired(k: int, n: int, j: int, m: int, contrast: Hypothesis, how: Settings) -> dict[str, Any]:
    """Compare two shares as papers do, as if they were of different units: z test with a pooled variance."""
    one, two = k / n, j / m
    se = sqrt(one * (1 - one) / n + two * (1 - two) / m)
    p = float(proportions_ztest([k, j], [n, m])[1])
    bound = families.bound_p(one - two, se, np.inf, margin=contrast.smallest_effect, direction=contrast.direction)
    return {"n": n + m, "estimate": one - two, "se": se, "df": np.inf, "p": p, "p_bound": bound} | _newcombe(
        k, n, j, m, how
    )
