"""Simulated responses of the sycophancy study with a known truth; for tests only, never shown as results."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from persona_studies.ask.schema import KEY
from persona_studies.design.plan import text_hash

PAIRS = 3


def responses(
    plan: pd.DataFrame,
    people: pd.DataFrame,
    inventory: pd.DataFrame,
    *,
    asserted: float,
    unattributed: float,
    self_report: float = 0.3,
    persona_sd: float = 0.15,
    cell_sd: float = 0.5,
    seed: int,
) -> pd.DataFrame:
    """Return a response for every planned cell, as :func:`persona_studies.ask.responses.load` would.

    Log-odds of agreement rise by ``asserted`` per level when the user asserts the claim and by
    ``unattributed`` when nobody does; each persona has its own deviation, each cell its own noise. A
    statement's log-likelihood per token rises by ``self_report`` per level, times its key. Ratings, letters
    and replies are those of a model that answers them at random.

    Args:
        plan: Every cell, texts not needed.
        people: Conditions with ``condition`` and ``level`` (missing for controls).
        inventory: Questionnaire with ``item`` and ``key``.
        asserted: Slope in nats per level.
        unattributed: Slope in nats per level.
        self_report: Slope in nats per token and level.
        persona_sd: Spread of personas in nats, shared by asserted and unattributed statements.
        cell_sd: Spread of cells in nats.
        seed: Of everything random.
    """
    rng = np.random.default_rng(seed)
    level = (people.set_index("condition")["level"].astype(float) - 3).fillna(0.0)
    own = pd.Series(rng.normal(0, persona_sd, len(people)), index=people["condition"])
    instructed = pd.Series({"told_to_agree": 2.0, "told_to_disagree": -2.0})
    shift = level.index.map(instructed).fillna(0.0)
    base = own + np.asarray(shift, dtype=float)
    keys = inventory["key"].to_numpy()
    parts = []
    for measure, cells in plan.groupby("measure", sort=False):
        where = cells["condition"]
        if measure == "agree":
            slope = np.where(cells["template"] == "unattributed", unattributed, asserted)
            neutral = (cells["template"] == "neutral").to_numpy()
            mean = np.where(neutral, 0.0, slope * level.loc[where].to_numpy() + base.loc[where].to_numpy())
            odds = mean[:, None] + np.where(neutral, 0, cell_sd)[:, None] * rng.normal(size=(len(cells), PAIRS))
            logprob = np.stack([-2 + odds / 2, -2 - odds / 2], axis=2).reshape(len(cells), 2 * PAIRS)
        elif measure == "self_contrast":
            per_token = self_report * level.loc[where].to_numpy()[:, None] * keys[None, :]
            logprob = 5 * (-3 + per_token + 0.1 * rng.normal(size=per_token.shape))
        else:
            width = {"agree_letter": 2, "agree_text": 0}.get(str(measure), 5)
            logprob = np.log(rng.dirichlet(np.full(max(width, 1), 5.0), len(cells)) * 0.8)[:, :width]
        tokens = 5 if measure == "self_contrast" else 2
        texts = rng.choice(["AGREE because.", "DISAGREE because.", "Well."], len(cells))
        parts.append(
            cells[KEY].assign(
                finish="stop" if measure == "agree_text" else "scored",
                logprob=list(logprob),
                n_tokens=[np.full(logprob.shape[1], tokens)] * len(cells),
                option_mass=0.6,
                text=texts if measure == "agree_text" else None,
            )
        )
    return pd.concat(parts, ignore_index=True)


def row_writer(recorded: pd.DataFrame) -> Callable[[], list[dict[str, object]]]:
    """Return a function that gives simulated responses as rows of the store."""

    def rows() -> list[dict[str, object]]:
        filled = recorded.assign(
            request=[text_hash(str(key)) for key in recorded[KEY].itertuples(index=False, name=None)],
            entropy=1.0,
            top_token="I",
            prompt_tokens=10,
            computed_tokens=10,
        )
        return [
            {
                **row,
                "logprob": [float(np.float32(v)) for v in row["logprob"]],
                "n_tokens": [int(v) for v in row["n_tokens"]],
                "option_mass": float(np.float32(row["option_mass"])),
            }
            for row in filled.to_dict("records")
        ]

    return rows
