"""Whether a measure measures: checks against the thresholds that its protocol declares."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan

import numpy as np
import pandas as pd
from statsmodels.stats.weightstats import DescrStatsW

from persona_studies.analyse import multiple_choice
from persona_studies.errors import ProtocolError

FAILED = {
    **dict.fromkeys(("position dominance", "same place"), "picks by place"),
    **dict.fromkeys(("order r", "order shift"), "order changes answers"),
    **dict.fromkeys(("one option", "one name", "yes rate"), "one answer prevails"),
    **dict.fromkeys(("repeatability", "wordings"), "wordings disagree"),
    **dict.fromkeys(("half agreement", "pole r"), "keyed halves disagree"),
    **dict.fromkeys(("same side", "direction agreement"), "reversed scale disagrees"),
    "told": "ignores instructions",
    "option mass": "answers outside options",
    "parsed": "replies not readable",
    "above chance": "not above chance",
    "kappa": "agrees by chance",
    "split half": "halves disagree",
    **dict.fromkeys(("auc", "auc plain"), "confuses facts"),
    "auc negated": "confuses negated facts",
    "negation r": "ignores negation",
    "acquiescence": "agrees with everything",
    "floor": "answers at floor",
    "ceiling": "answers at ceiling",
}
"""Check -> what is wrong where it fails, in three words at most, so that a reason can hold two."""


def declared(thresholds: Mapping[str, float], values: Mapping[str, float]) -> pd.DataFrame:
    """Check values against the ``min_`` and ``max_`` thresholds of a gate.

    Args:
        thresholds: Name what is checked: ``min_option_mass = 0.5`` asks for ``values["option_mass"]``.
        values: By name. A value that is not a number fails.

    Returns:
        ``check, value, rule, threshold, passes``, in the declared order.

    Raises:
        ProtocolError: a threshold that is neither a least nor a most, or whose value is not at hand.
    """
    rows = []
    for key, threshold in thresholds.items():
        kind, _, name = key.partition("_")
        if kind not in ("min", "max") or name not in values:
            raise ProtocolError(
                f"The gate has {key!r}; it must be min_ or max_ before one of {', '.join(sorted(values))}."
            )
        value, rule = values[name], ">=" if kind == "min" else "<="
        passes = bool(value >= threshold if kind == "min" else value <= threshold)
        rows.append((name.replace("_", " "), value, rule, threshold, passes))
    return pd.DataFrame(rows, columns=["check", "value", "rule", "threshold", "passes"])


def failures(table: pd.DataFrame) -> str:
    """Say what is wrong where checks failed: the first two things; empty where none failed."""
    bad = [*dict.fromkeys(FAILED.get(check, check) for check in table.loc[~table["passes"].astype(bool), "check"])]
    return ", ".join(bad[:2]) + " and more" * (len(bad) > 2)


def letters(reference: pd.DataFrame, recorded: pd.DataFrame, asked: pd.DataFrame) -> dict[str, float]:
    """Return what letters are worth under a reference condition.

    Args:
        reference: Its scored questions, with ``option_mass``.
        asked: Questions: ``item, n_options``.

    Returns:
        ``option_mass`` (mean over questions), ``position_dominance``.
    """
    mass = reference["option_mass"].astype(float)
    return {
        "option_mass": float(mass.mean()) if len(mass) else nan,
        "position_dominance": multiple_choice.position_dominance(recorded, asked),
    }


def above_chance(reference: pd.DataFrame, confidence: float) -> float:
    """Return the lower limit of accuracy (Student's t over questions) less chance.

    Args:
        reference: Scored questions: ``score, n_options``.
    """
    gain = (reference["score"] - 1 / reference["n_options"]).to_numpy(dtype=float)
    if len(gain) < 2:
        return nan
    return float(DescrStatsW(gain).tconfint_mean(1 - confidence)[0])


def repeatability(scored: pd.DataFrame, who: str, wording: str) -> float:
    """Return how well wordings of one persona agree: least mean correlation of scores over questions.

    Args:
        scored: ``item, score``, and the two columns named.
        who: Column of the persona.
        wording: Column of its wording.

    Returns:
        The least over personas of the mean correlation over pairs of wordings; a persona whose scores do not vary
        counts as 0. NaN where no persona has two wordings.
    """
    found = []
    for _, group in scored.groupby(who, sort=False):
        wide = group.pivot_table(index="item", columns=wording, values="score")
        if wide.shape[1] < 2:
            continue
        r = wide.corr().to_numpy()
        found.append(float(np.nan_to_num(r[np.triu_indices_from(r, 1)]).mean()))
    return min(found, default=nan)
