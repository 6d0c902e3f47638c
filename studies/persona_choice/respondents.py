"""A survey of personas, after DeepPersona: does a model that is told of a person answer as people do?

Six topics of the World Values Survey in this study's own words, so that Canada's answers (counts) stand beside a
model's. The personas stay at their pinned sources. What is committed of them are hashes; :func:`bank` makes these
anew.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field
from scipy import stats as distributions
from scipy.spatial.distance import jensenshannon

from persona_choice import surveys
from persona_choice.judge import bootstrapped, resampled
from persona_choice.pairs import filled, short_hash, words
from persona_studies.analyse import families, gates, scoring
from persona_studies.analyse.families import Settings
from persona_studies.ask import responses
from persona_studies.design import banks, sources
from persona_studies.design import plan as grid
from persona_studies.design.plan import text_hash
from persona_studies.design.protocol import Protocol
from persona_studies.paths import Project

Array = NDArray[np.float64]

MEASURE = "survey"
KINDS = ("one_line", "demographics", "deep")
"""Personas that a claim or the item by item tests are about."""
PERSONAL = (*KINDS, "scrambled")
"""Conditions with a text for every persona; the others have one text."""
SINGLE = ("country", "colour", "note", "content", "discontent")
CONTROL = ("Q46", "Q254")
"""Items that the positive control names: happiness and pride."""

Hash16 = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class Question(banks.Row):
    """A question in this study's words, its options counted up as people's answers are, and down."""

    unique = (("item",),)

    item: str
    topic: str
    options: Annotated[int, Field(ge=2, le=10)]
    up: str
    down: str


class Respondent(banks.Row):
    """A persona by hashes of its texts; the one-line persona of a row is another person."""

    unique = (("persona",),)

    persona: Annotated[int, Field(ge=1)]
    deep_hash: Hash16
    demographics_hash: Hash16
    scrambled_hash: Hash16
    one_line_hash: Hash16
    words: Annotated[int, Field(ge=1)]


# --- Texts and plan -----------------------------------------------------------------------------------------------


def questions(project: Project) -> pd.DataFrame:
    """Return the bank of questions: the fields of :class:`Question`."""
    return banks.read(project.items / "persona_choice" / "questions.csv", Question)


def respondents(project: Project) -> pd.DataFrame:
    """Return the bank of personas: the fields of :class:`Respondent`."""
    return banks.read(project.items / "persona_choice" / "respondents.csv", Respondent)


def texts(project: Project, protocol: Protocol) -> pd.DataFrame:
    """Return the personas from their pinned sources: the columns of the bank, and a column per kind with its text.

    Both sets stand in the order of their hashes, so that the first ``k`` are a sample. Of the one-line personas as
    many are taken as there are deep ones. Demographics are the first sentence of the deep text, scrambled its words
    in another order.

    Raises:
        SourceUnavailable: a source cannot be had.
    """
    deep, lines = (
        sorted(
            {person[key] for person in json.loads(sources.fetch(project, id).read_text("utf-8")).values()},
            key=short_hash,
        )
        for id, key in (
            ("deeppersona-our-responses.json", "summary"),
            ("deeppersona-opencharacter-responses.json", "persona"),
        )
    )
    rows = []
    for number, (text, line) in enumerate(zip(deep, lines, strict=False), start=1):
        mixed = text.split()
        random.Random(f"{protocol.design['shuffle_seed']}-{number}").shuffle(mixed)
        made = {"one_line": line, "demographics": re.split(r"(?<=[.!?])\s", text)[0], "deep": text}
        made["scrambled"] = " ".join(mixed)
        said = {kind: filled(protocol, kind, {"persona": each}) for kind, each in made.items()}
        hashes = {f"{kind}_hash": text_hash(each) for kind, each in said.items()}
        rows.append({"persona": number, **hashes, "words": words(text), **said})
    return pd.DataFrame(rows)


def bank(project: Project, protocol: Protocol) -> pd.DataFrame:
    """Return the bank as it is committed: :func:`texts` without texts."""
    return texts(project, protocol)[list(Respondent.model_fields)]


def labels(options: int) -> tuple[str, ...]:
    """Return the labels of a scale, of one token each: 1 to the number of options, or 0 to 9 where these are ten.

    >>> labels(3), labels(10)[-1]
    (('1', '2', '3'), '9')
    """
    return tuple(map(str, range(10) if options == 10 else range(1, options + 1)))


def cells(protocol: Protocol, asked: pd.DataFrame, people: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the cells of the survey, as :func:`persona_studies.design.plan.measure` makes them.

    Args:
        asked: Of :func:`questions`.
        people: Of :func:`respondents`, or :func:`texts` where prompts are wanted.
    """
    declared = protocol.measures[MEASURE]
    parts = []
    for condition in (*SINGLE, *PERSONAL):
        if condition in PERSONAL:
            who = people.assign(said=people.get(condition), hashed=people[f"{condition}_hash"])
            who["persona"] = who["persona"].map("{:02d} ".format)
        else:
            text = protocol.conditions[condition].text
            who = pd.DataFrame([{"persona": "", "said": text, "hashed": text_hash(text)}])
        for options in sorted(map(int, asked["options"].unique())):
            some = asked[asked["options"] == options]
            scales = some.melt(["item"], ["up", "down"], "scale", "text")
            each = who.merge(scales, how="cross")
            items = pd.DataFrame(
                {
                    "item": each["persona"] + each["item"] + " " + each["scale"],
                    "item_hash": each["text"].map(text_hash),
                    "condition_hash": each["hashed"],
                    "description": each["said"],
                    "text": each["text"],
                }
            )
            parts.append(
                grid.measure(
                    MEASURE,
                    declared.kind,
                    conditions=pd.DataFrame(
                        [{"condition": condition, "condition_hash": condition, "system": None, "description": None}]
                    ),
                    items=items,
                    templates=declared.frame()[["template", "shared", "user"]],
                    labels=labels(options),
                )
            )
    return parts


# --- Scores -------------------------------------------------------------------------------------------------------


def scores(recorded: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
    """Score every persona and question: the probability of each option, averaged over both scales.

    Args:
        asked: Of :func:`questions`.

    Returns:
        ``condition, persona, item, shares`` (over the options, as people's answers are counted), ``position`` (its
        mean, 0 at the first option and 1 at the last), ``same_side`` (both scales put it on the same side of the
        middle), ``first_label`` (probability of the label that stands first), ``option_mass``.
    """
    mine = recorded[recorded["measure"] == MEASURE].reset_index(drop=True)
    mine = mine.join(
        mine["item"].str.extract(r"^(?:(?P<persona>\d+) )?(?P<question>\S+) (?P<scale>up|down)$").fillna("")
    )
    parts = []
    for options in sorted(map(int, asked["options"].unique())):
        some = asked[asked["options"] == options]
        part = mine[mine["question"].isin(some["item"])].set_index(["condition", "persona", "question"])
        shown = pd.DataFrame(scoring.shares(responses.matrix(part)), part.index)
        down = (part["scale"] == "down").to_numpy()
        # Both scales in one order of cells, and both in the order of people's answers.
        up_label, down_label = shown[~down], shown[down].loc[shown[~down].index]
        up, turned = up_label.to_numpy(), down_label.to_numpy()[:, ::-1]
        scale = np.linspace(0, 1, options)
        place, other = up @ scale, turned @ scale
        mass = part["option_mass"].astype(float).groupby(level=[0, 1, 2], sort=False, dropna=False).mean()
        found = up_label.index.to_frame(index=False).rename(columns={"question": "item"})
        parts.append(
            found.assign(
                shares=list((up + turned) / 2),
                position=(place + other) / 2,
                same_side=(place - 0.5) * (other - 0.5) > 0,
                first_label=(up_label[0].to_numpy() + down_label[0].to_numpy()) / 2,
                option_mass=mass.loc[up_label.index].to_numpy(),
            )
        )
    return pd.concat(parts, ignore_index=True)


def people(counts: pd.DataFrame, asked: pd.DataFrame) -> dict[str, Array]:
    """Return the shares of people's answers, item -> options.

    Pride has a fifth answer (91 people) that no persona is offered; it is left out.

    Args:
        counts: The table ``survey_counts``.
        asked: Of :func:`questions`.
    """
    found = {}
    for item, options in zip(asked["item"], asked["options"], strict=True):
        given = surveys.answers(counts, "human_all", item)
        times = np.array([(given == option).sum() for option in range(1, options + 1)], dtype=float)
        found[str(item)] = times / times.sum()
    return found


def apart(one: Array, other: Array) -> dict[str, Array]:
    """Return three distances of shares over ordered options: ``KS, Wasserstein, JS``.

    Args:
        one: ... x options.
        other: Options. Wasserstein's distance is over the range of the scale; JS is scipy's (the square root of the
            divergence, natural logarithm), over options.

    >>> {name: float(value.round(2)) for name, value in apart(np.array([1.0, 0, 0]), np.array([0, 0, 1.0])).items()}
    {'KS': 1.0, 'Wasserstein': 1.0, 'JS': 0.83}
    """
    gap = np.abs(np.cumsum(one - other, axis=-1))[..., :-1]
    js = jensenshannon(one, np.broadcast_to(other, one.shape), axis=-1)
    return {"KS": gap.max(axis=-1), "Wasserstein": gap.mean(axis=-1), "JS": np.asarray(js)}


def _stacked(scored: pd.DataFrame, condition: str, item: str) -> Array:
    """Return the shares of every persona of a condition: personas x options."""
    mine = scored[(scored["condition"] == condition) & (scored["item"] == item)]
    return np.stack(list(mine["shares"]))


# --- Gate, tests, tables ------------------------------------------------------------------------------------------


def gate(protocol: Protocol, scored: pd.DataFrame) -> pd.DataFrame:
    """Check the measure: mass of the labels, and scales that mean the same."""
    values = {
        "option_mass": float(scored.loc[scored["condition"] == "country", "option_mass"].mean()),
        "same_side": float(scored.loc[scored["condition"].isin(KINDS), "same_side"].mean()),
    }
    return gates.declared(protocol.measures[MEASURE].gate, values)


def moves(protocol: Protocol, scored: pd.DataFrame) -> pd.DataFrame:
    """Check whether what is said moves the answer: personas that say how happy and how proud they are."""
    place = scored[scored["item"].isin(CONTROL)].groupby("condition")["position"].mean()
    values = {"control": float(place["discontent"] - place["content"])}
    return gates.declared(protocol.design["steerability"][MEASURE], values)


def critical(n: int, m: int, level: float) -> float:
    """Return the KS distance from which two samples of answers differ at an error rate (asymptotic).

    >>> round(critical(40, 4018, 0.05), 3), round(critical(40, 4018, 0.05 / 18), 3)
    (0.216, 0.288)
    """
    return float(distributions.kstwobign.isf(level) / np.sqrt(n * m / (n + m)))


def tests(protocol: Protocol, scored: pd.DataFrame, known: Mapping[str, Array], how: Settings) -> pd.DataFrame:
    """Test the families ``survey_items`` and ``survey_methods``.

    Item by item, the mean answer of a kind of personas against people's: Kolmogorov-Smirnov, as if every persona
    gave one answer. Kinds against each other: mean KS over the items, personas drawn with replacement; those of one
    row together, as deep, demographics and scrambled are the same person.

    Args:
        scored: Of :func:`scores`.
        known: Of :func:`people`.
    """
    m = protocol.design["people"]
    found: dict[str, dict[str, Any]] = {}
    reached: dict[str, tuple[float, Array]] = {}
    for condition in (*PERSONAL, *SINGLE):
        shares = {item: _stacked(scored, condition, item) for item in known}
        n = len(shares[next(iter(known))])
        seed = how.seed + (condition == "one_line")
        weight = resampled(np.eye(n), Settings(**{**vars(how), "seed": seed})) / n
        gaps = {item: float(apart(each.mean(axis=0), known[item])["KS"]) for item, each in shares.items()}
        drawn = np.mean([apart(weight @ each, known[item])["KS"] for item, each in shares.items()], axis=0)
        reached[condition] = float(np.mean([*gaps.values()])), drawn
        for item, gap in gaps.items():
            p = float(distributions.kstwobign.sf(gap * np.sqrt(n * m / (n + m))))
            found[f"{condition} {item}"] = {"n": n, "estimate": gap, "p": p}
    items, methods = (protocol.families[name] for name in ("survey_items", "survey_methods"))
    n = int(scored.loc[scored["condition"] == "deep", "persona"].nunique())
    rows = {}
    for h, contrast in methods.contrasts.items():
        (one, drawn), (other, drawn_other) = reached[contrast.first], reached[contrast.second]
        rows[h] = bootstrapped(one - other, drawn - drawn_other, n, contrast, how)
    own = {h: found[h] for h in items.hypotheses}
    return pd.concat(
        [
            families.corrected("survey_items", items, own, how),
            families.corrected("survey_methods", methods, rows, how),
        ],
        ignore_index=True,
    )


def surveyed(scored: pd.DataFrame, known: Mapping[str, Array]) -> pd.DataFrame:
    """Return how near each condition comes to people, and what moves its answers.

    Returns:
        ``condition, personas, KS, Wasserstein, JS`` (of the mean answer, mean over the items), ``spread`` (standard
        deviation of the position over personas, mean over the items), ``first_label, same_side`` (means).
    """
    rows = []
    for condition, part in scored.groupby("condition", sort=False):
        far = [apart(_stacked(scored, str(condition), item).mean(axis=0), known[item]) for item in known]
        spread = part.groupby("item")["position"].std(ddof=1).mean()
        row = {"condition": condition, "personas": int(part.groupby("item").size().max())}
        row |= {name: float(np.mean([each[name] for each in far])) for name in surveys.DISTANCES}
        rows.append(row | {"spread": spread} | part[["first_label", "same_side"]].mean().to_dict())
    return pd.DataFrame(rows)


def floors(known: Mapping[str, Array], n: int, how: Settings, draws: int = 1000) -> pd.DataFrame:
    """Return the mean distances of answers that take no model: ``answers, KS, KS_95, Wasserstein, JS``.

    Args:
        known: Of :func:`people`.
        n: People drawn at random, as many as there are personas; ``KS_95`` is their 95th percentile.
        draws: Samples of these.
    """
    rng = np.random.default_rng(how.seed)
    given = {
        "every option alike": {item: np.full((1, len(q)), 1 / len(q)) for item, q in known.items()},
        "always people's commonest answer": {item: np.eye(len(q))[[q.argmax()]] for item, q in known.items()},
        f"{n} people drawn at random": {item: rng.multinomial(n, q, size=draws) / n for item, q in known.items()},
    }
    rows = []
    for name, answers in given.items():
        far = [apart(each, known[item]) for item, each in answers.items()]
        mean = {distance: np.mean([each[distance] for each in far], axis=0) for distance in surveys.DISTANCES}
        row = {"answers": name, **{distance: float(values.mean()) for distance, values in mean.items()}}
        rows.append(row | {"KS_95": float(np.quantile(mean["KS"], 0.95)) if name.startswith(str(n)) else np.nan})
    return pd.DataFrame(rows)[["answers", "KS", "KS_95", "Wasserstein", "JS"]]
