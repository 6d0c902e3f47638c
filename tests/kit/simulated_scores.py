"""Other answers to a grid that has been scored, for simulations of many draws in tests: no responses are made."""

from __future__ import annotations

import numpy as np
import pandas as pd


def answered_again(scored: pd.DataFrame, cells: pd.DataFrame, chosen: np.ndarray) -> pd.DataFrame:
    """Return the cloze scores of the same cells with other answers.

    Args:
        scored: Of the study's ``scores`` for the measure ``cloze``.
        cells: The grid: ``condition, item, measure, template``.
        chosen: Per cell, the place of the option that is chosen now.

    Returns:
        ``scored`` with other ``chosen, correct, score``, and ``error`` where there is one; what else it holds (such
        as probabilities) is that of the old answers.
    """
    asked = ((cells["measure"] == "cloze") & (cells["template"] != "neutral")).to_numpy()
    keys = ["condition", "item"]
    answers = pd.Series(chosen[asked], index=pd.MultiIndex.from_frame(cells.loc[asked, keys]))
    now = answers.loc[pd.MultiIndex.from_frame(scored[keys])].to_numpy()
    assert len(now) == len(scored)
    correct = (now == scored["gold"].to_numpy()).astype(float)
    found = scored.assign(chosen=now, correct=correct, score=correct)
    return found.assign(error=(now - scored["gold"]).astype(float)) if "error" in scored else found
