"""Opt-in blocks, in no claim: CulturalPersonas' questions for the USA, and the people of PAPI as conditions.

Their texts are not in this repository: a plan with them needs the files that ``data/sources.toml`` pins.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from statsmodels.stats.weightstats import DescrStatsW

from persona_studies.analyse import scoring
from persona_studies.design import sources
from persona_studies.design.plan import text_hash
from persona_studies.paths import Project

GRADES = ("high", "moderately_high", "medium", "moderately_low", "low")
"""CulturalPersonas: the five answers to a question, worth 5 to 1."""
TOLD = "You rated statements about yourself, from 1 (very inaccurate) to 5 (very accurate):"


def questions(project: Project, number: int) -> pd.DataFrame:
    """Return the first questions of CulturalPersonas for the USA: ``item, domain, situation, options``.

    Raises:
        SourceUnavailable: the file cannot be had.
    """
    table = pd.read_csv(sources.fetch(project, "measurement-culture-usa")).head(number)
    options = pd.Series([*table[[*GRADES]].itertuples(index=False, name=None)], index=table.index)
    return pd.DataFrame(
        {
            "item": table["question_id"].map("usa{:03d}".format),
            "domain": table["trait"].str.split().str[0].str.lower(),
            "situation": table["question"],
            "options": options,
        }
    )


def papi_answers(test: Path) -> np.ndarray:
    """Return 300 people x 300 items as stored: already turned where the key is -1; missing is NaN."""
    people = json.loads(test.read_text("utf-8"))
    stored = np.array([[person[f"i{n}"] for n in range(1, 301)] for person in people], dtype=float)
    return np.where(stored == 0, np.nan, stored)


class People:
    """PAPI's people: what they are told that they answered, and what they answered to the tested items.

    Attributes:
        given: Numbers of the 120 items whose answers are given.
        tested: Numbers of the 180 items that are asked.
        raw: People x 300 answers to the statements as they stand; NaN where missing.

    Raises:
        SourceUnavailable: a file cannot be had.
    """

    def __init__(self, project: Project, keys: pd.DataFrame, number: int) -> None:
        split = json.loads(sources.fetch(project, "measurement-papi-mpi-300-split").read_text("utf-8"))
        stored = papi_answers(sources.fetch(project, "measurement-papi-test-set"))[:number]
        bank = json.loads(sources.fetch(project, "ipip-neo-300").read_text("utf-8"))["questions"]
        self._text = {each["id"]: f"You {each['text'][0].lower()}{each['text'][1:]}" for each in bank}
        self.given, self.tested = ([*map(int, split[name])] for name in ("train_index", "test_index"))
        self.keys = keys
        self.raw: NDArray[np.float64] = np.where(keys["key"].to_numpy() > 0, stored, 6 - stored)

    def conditions(self) -> pd.DataFrame:
        """Return ``condition, condition_hash, system, description``: a system turn per person."""
        rows: list[dict[str, Any]] = []
        for place, answers in enumerate(self.raw, start=1):
            known = [n for n in self.given if not np.isnan(answers[n - 1])]
            said = " ".join(f"{self._text[n].rstrip('.')}: {answers[n - 1]:.0f}." for n in known)
            system = f"{TOLD} {said}"
            rows.append({"condition": f"person-{place:03d}", "condition_hash": text_hash(system, "")})
            rows[-1] |= {"system": system, "description": ""}
        return pd.DataFrame(rows)

    def items(self) -> pd.DataFrame:
        """Return the tested items: ``item, item_hash, text``."""
        text = pd.Series([self._text[n] for n in self.tested])
        names = pd.Series([f"ipip{n:03d}" for n in self.tested])
        return pd.DataFrame({"item": names, "item_hash": text.map(text_hash), "text": text})

    def scores(self, recorded: pd.DataFrame) -> pd.DataFrame:
        """Score a model as PAPI does, rightly coded: mean |error| on the tested items, summed over five domains.

        Args:
            recorded: Responses to the measure ``person``.

        Returns:
            ``yardstick, people, mean, low, high``; lower is better; the last row is the paired difference.
        """
        share = scoring.shares(np.array(recorded["logprob"].tolist(), dtype=float))
        rating = share @ np.arange(1, 6)
        falling = recorded["template"].str.endswith("falling")
        said = recorded.assign(rating=np.where(falling, 6 - rating, rating))
        wide = said.pivot_table(index="condition", columns="item", values="rating")
        who = wide.index.str.removeprefix("person-").astype(int).to_numpy() - 1
        number = wide.columns.str.removeprefix("ipip").astype(int).to_numpy()
        true, domain = self.raw[np.ix_(who, number - 1)], self.keys["domain"].loc[number].to_numpy()

        def error(answers: NDArray[np.float64]) -> NDArray[np.float64]:
            off = pd.DataFrame(np.abs(answers - true).T).groupby(domain).mean()
            summed: NDArray[np.float64] = off.sum().to_numpy()
            return summed

        model, neutral = error(wide.to_numpy()), error(np.full(true.shape, 3.0))
        values = {
            "model, told a person's answers": model,
            "always neutral": neutral,
            "model - neutral": model - neutral,
        }
        rows = [(name, len(x), x.mean(), *DescrStatsW(x).tconfint_mean()) for name, x in values.items()]
        return pd.DataFrame(rows, columns=["yardstick", "people", "mean", "low", "high"])


def culture(recorded: pd.DataFrame, bank: pd.DataFrame) -> pd.DataFrame:
    """Score answers to CulturalPersonas by domain.

    Args:
        recorded: Responses to the measure ``culture``, five orders of every question.
        bank: Of :func:`questions`.

    Returns:
        ``domain, questions, mean`` (expected grade, 1 to 5, over orders), ``low, high`` (over questions), ``same``
        (share of questions whose likeliest answer is the same in every order), ``mass`` (median probability of all
        letters together).
    """
    shown = scoring.shares(np.array(recorded["logprob"].tolist(), dtype=float))
    own = scoring.in_declared_order(shown, recorded["order"].to_numpy(int))
    cells = recorded.assign(grade=own @ np.arange(5, 0, -1), choice=own.argmax(axis=1))
    by = cells.groupby("item").agg(
        grade=("grade", "mean"), choices=("choice", "nunique"), mass=("option_mass", "median")
    )
    table = by.reset_index().merge(bank[["item", "domain"]], on="item")
    rows = []
    for domain, part in table.groupby("domain", sort=False):
        low, high = DescrStatsW(part["grade"]).tconfint_mean()
        row = {"domain": domain, "questions": len(part), "mean": part["grade"].mean(), "low": low, "high": high}
        rows.append(row | {"same": (part["choices"] == 1).mean(), "mass": part["mass"].median()})
    return pd.DataFrame(rows)
