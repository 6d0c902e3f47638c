"""DeepPersona against the World Values Survey: distances of answers, what chance and people would score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats as distributions
from scipy.spatial.distance import jensenshannon

from persona_choice import published
from persona_choice.judge import bootstrapped, resampled
from persona_studies.analyse import families
from persona_studies.analyse.families import Settings
from persona_studies.design.protocol import Protocol
from persona_studies.paths import Project

Array = NDArray[np.float64]

ALIGNED = {"DeepPersona": "human_first_40", "direct": "human_first_100", "OpenCharacter": "human_all"}
"""Method -> the people that the published distances compare it with: as many rows as it has personas."""
OFFERED = {"Q45": 3, "Q46": 4, "Q57": 4, "Q184": 10, "Q218": 3, "Q254": 4}
"""Item -> options that the prompts offer, 1 to this."""
DISTANCES = ("KS", "Wasserstein", "JS")
BINS = 19


def answers(counts: pd.DataFrame, name: str, item: str) -> Array:
    """Return the answers of a set to an item, one per respondent."""
    mine = counts[(counts["set"] == name) & (counts["item"] == item)]
    return np.repeat(mine["answer"].to_numpy(dtype=float), mine["count"])


def distances(item: str, one: Array, other: Array) -> dict[str, float]:
    """Return three distances of two samples of answers.

    ``KS``: largest difference of the cumulative shares. ``Wasserstein``: over the range of the scale, so that the
    item with ten points does not weigh most. ``JS``: scipy's distance (the square root of the divergence, natural
    logarithm) over 19 bins of the observed range, as upstream.
    """
    edges = np.linspace(min(one.min(), other.min()), max(one.max(), other.max()), BINS + 1)
    shares = [np.histogram(each, edges)[0] / len(each) for each in (one, other)]
    return {
        "KS": float(distributions.ks_2samp(one, other).statistic),
        "Wasserstein": float(distributions.wasserstein_distance(one, other)) / (OFFERED[item] - 1),
        "JS": float(jensenshannon(*shares)),
    }


def by_item(counts: pd.DataFrame, people: Mapping[str, str]) -> pd.DataFrame:
    """Return the distances of every method, item by item: ``method, item, n, KS, Wasserstein, JS``.

    Args:
        counts: The table ``survey_counts``.
        people: Method -> set of human answers.
    """
    return pd.DataFrame(
        [
            {"method": method, "item": item, "n": len(own := answers(counts, name, item))}
            | distances(item, own, answers(counts, people[method], item))
            for method, name in published.METHODS.items()
            for item in published.ITEMS
        ]
    )


def item_tests(protocol: Protocol, counts: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Test every method against all human answers, item by item: two-sample Kolmogorov-Smirnov."""
    found = {}
    for method, name in published.METHODS.items():
        for item in published.ITEMS:
            own, people = answers(counts, name, item), answers(counts, "human_all", item)
            test = distributions.ks_2samp(own, people)
            found[f"{method} {item}"] = {"n": len(own), "estimate": float(test.statistic), "p": float(test.pvalue)}
    return families.corrected("dp_items", protocol.families["dp_items"], found, how)


class Items:
    """Distances of resampled answers to the human ones: what a bootstrap over personas needs, item by item."""

    def __init__(self, counts: pd.DataFrame, people: str = "human_all") -> None:
        self.human = {item: answers(counts, people, item) for item in published.ITEMS}

    def of(self, item: str, values: Array, weight: Array) -> dict[str, Array]:
        """Return the three distances for many weightings of the same answers.

        Args:
            values: Distinct answers.
            weight: Weightings x values.
        """
        human = self.human[item]
        grid = np.unique(np.r_[values, human])
        share = weight / weight.sum(axis=1, keepdims=True)
        own = np.cumsum(share @ (values[:, None] == grid[None, :]), axis=1)
        theirs = np.searchsorted(np.sort(human), grid, side="right") / len(human)
        gap = np.abs(own - theirs)
        # The observed range, and with it the bins, is that of the whole sample.
        edges = np.linspace(grid[0], grid[-1], BINS + 1)
        place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, BINS - 1)
        binned = share @ np.eye(BINS)[place]
        q = np.histogram(human, edges)[0] / len(human)
        return {
            "KS": gap.max(axis=1),
            "Wasserstein": (gap[:, :-1] * np.diff(grid)).sum(axis=1) / (OFFERED[item] - 1),
            "JS": np.asarray(jensenshannon(binned, q[None, :], axis=1)),
        }


def means(rows: pd.DataFrame, method: str, people: Items, how: Settings) -> dict[str, tuple[float, Array]]:
    """Return the mean of each distance over the items, and the same for personas drawn with replacement.

    Args:
        rows: The table ``survey_answers``.
        people: Human answers.
        how: Replicates and seed; every method is drawn by itself.
    """
    mine = rows[rows["method"] == method]
    made: dict[str, list[tuple[Array, Array]]] = {name: [] for name in DISTANCES}
    weights = resampled(np.eye(len(mine)), how)
    for item in published.ITEMS:
        values, place = np.unique(mine[item].to_numpy(dtype=float), return_inverse=True)
        member = np.eye(len(values))[place]
        observed = people.of(item, values, member.sum(axis=0, keepdims=True))
        drawn = people.of(item, values, weights @ member)
        for name in DISTANCES:
            made[name].append((observed[name], drawn[name]))
    return {
        name: (float(np.mean([one[0] for one, _ in parts])), np.mean([many for _, many in parts], axis=0))
        for name, parts in made.items()
    }


def method_tests(protocol: Protocol, rows: pd.DataFrame, people: Items, how: Settings) -> pd.DataFrame:
    """Compare the mean distance of DeepPersona with that of the two other methods."""
    reached = {
        method: means(rows, method, people, Settings(**{**vars(how), "seed": how.seed + place}))
        for place, method in enumerate(published.METHODS)
    }
    family = protocol.families["dp_methods"]
    found: dict[str, dict[str, Any]] = {}
    for h, contrast in family.contrasts.items():
        (one, drawn), (other, drawn_other) = (
            reached[each][contrast.outcome] for each in (contrast.first, contrast.second)
        )
        found[h] = bootstrapped(one - other, drawn - drawn_other, len(published.ITEMS), contrast, how)
        found[h] |= {"n": int((rows["method"] == contrast.first).sum())}
    return families.corrected("dp_methods", family, found, how)


def floors(counts: pd.DataFrame, how: Settings, draws: int = 1000) -> pd.DataFrame:
    """Return the mean distance over the items of answers that take no model, and of the three methods.

    Returns:
        ``answers, n, KS, KS_95`` (95th percentile, where drawn), ``Wasserstein, JS``.
    """
    human = {item: answers(counts, "human_all", item) for item in published.ITEMS}
    rows: list[dict[str, Any]] = []

    def mean(given: Mapping[str, Array]) -> dict[str, float]:
        found = pd.DataFrame([distances(item, given[item], human[item]) for item in published.ITEMS]).mean()
        return {str(name): float(value) for name, value in found.items()}

    for method, name in published.METHODS.items():
        given = {item: answers(counts, name, item) for item in published.ITEMS}
        rows.append({"answers": f"{method}, mean of three", "n": len(given["Q45"]), **mean(given)})
    single = {item: answers(counts, "opencharacter_single", item) for item in published.ITEMS}
    rows.append({"answers": "OpenCharacter, single answers", "n": len(single["Q45"]), **mean(single)})
    options = {item: np.arange(1.0, k + 1) for item, k in OFFERED.items()}
    rows.append({"answers": "every option alike", **mean(options)})
    modal = {item: np.array([distributions.mode(human[item]).mode], dtype=float) for item in published.ITEMS}
    rows.append({"answers": "always people's commonest answer", **mean(modal)})
    rng = np.random.default_rng(how.seed)
    for n in (40, 100):
        drawn = [mean({item: rng.choice(human[item], n) for item in human})["KS"] for _ in range(draws)]
        rows.append(
            {"answers": "people drawn at random", "n": n, "KS": np.mean(drawn), "KS_95": np.quantile(drawn, 0.95)}
        )
    return pd.DataFrame(rows).reindex(columns=["answers", "n", "KS", "KS_95", "Wasserstein", "JS"])


def rows(project: Project) -> pd.DataFrame:
    """Return the released answers, one row per persona: ``method, row`` and the six items."""
    return published.committed(project, "survey_answers")


def trusting(counts: pd.DataFrame) -> pd.DataFrame:
    """Return the share that trusts people (Q57): the prompt offers four options, the survey two.

    Model answers are rounded; 1 and 2 both say that most people can be trusted.
    """
    shares = {
        method: (answers(counts, name, "Q57").round() <= 2).mean() for method, name in published.METHODS.items()
    }
    people = {"people": (answers(counts, "human_all", "Q57") == 1).mean()}
    return pd.DataFrame([{"answers": name, "trusting": float(share)} for name, share in (shares | people).items()])
