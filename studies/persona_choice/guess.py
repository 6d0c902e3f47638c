"""Guess-Who, after SPeCtrum: which of 45 television characters does a profile describe?

The profiles stay at their pinned source. What is committed are the characters' names, as the source lists them, and
hashes of the texts. :func:`bank` makes the hashes anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field
from scipy import stats as distributions
from scipy.special import softmax
from statsmodels.stats.contingency_tables import cochrans_q
from statsmodels.stats.proportion import proportion_confint

from persona_choice.judge import by_person, exact, resampled
from persona_choice.pairs import words
from persona_studies.analyse import gates
from persona_studies.analyse.families import Settings
from persona_studies.ask import responses
from persona_studies.design import banks, sources
from persona_studies.design import plan as grid
from persona_studies.design.plan import text_hash
from persona_studies.design.protocol import Protocol
from persona_studies.paths import Project

MEASURE, OPEN = "guess_who", "guess_open"
CONTEXTS = ("S", "P", "C", "SP", "SC", "PC", "SPC")
"""What a model is told: demographics, personality and values, daily life and likes, and what is made of these."""
STRANGER = "another's SPC"
# The part that goes before the seam is the longest one of a context: it is decoded once for all that share it.
HEADS = "PCS"
FILES = {"S": ("S",), "P": ("P_personality", "P_value"), "C": ("C_behavior", "C_lovehate")}
MASK = "[name]"
# Capitalised words within a sentence that name nobody and nothing.
PLAIN = re.compile(r"I\b.*|AM|PM|TV|DIY|CEO|(Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)days?")

Hash16 = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class Character(banks.Row):
    """A character, by the name that is asked for, with its profile by hashes."""

    unique = (("character",), ("name",))

    character: Annotated[int, Field(ge=0, le=44)]
    name: str
    surname: str = ""
    series: str
    s_hash: Hash16
    p_hash: Hash16
    c_hash: Hash16
    open_hash: Hash16
    s_words: Annotated[int, Field(ge=1)]
    p_words: Annotated[int, Field(ge=1)]
    c_words: Annotated[int, Field(ge=1)]
    masked: Annotated[int, Field(ge=0)]


# --- Texts --------------------------------------------------------------------------------------------------------


def characters(project: Project) -> pd.DataFrame:
    """Return the bank: the fields of :class:`Character`, in the order of the source."""
    return banks.read(project.items / "persona_choice" / "characters.csv", Character)


def masked(text: str, names: Iterable[str], *, proper: bool) -> str:
    """Replace names by a mask.

    Args:
        text: Part of a profile.
        names: Words that names are made of; they are masked wherever they stand.
        proper: Whether every capitalised word within a sentence is masked too: a place, an employer, a series.

    >>> masked("I work at Caltech with Amy. Amy is fun.", ["Amy"], proper=True)
    'I work at [name] with [name]. [name] is fun.'
    """
    known = re.compile(rf"\b({'|'.join(map(re.escape, names))})\b")
    lines = []
    for line in text.splitlines():
        found = known.sub(MASK, line)
        if proper and not line.startswith("["):  # "[Top 5 Things ...]" is a heading
            found = re.sub(r"[A-Z][\w’'&-]*", _hidden, found)
        lines.append(re.sub(rf"{re.escape(MASK)}(?:,? {re.escape(MASK)})+", MASK, found))
    return "\n".join(lines)


def _hidden(word: re.Match[str]) -> str:
    """Return the mask for a capitalised word within a sentence; any other word as it is."""
    before = re.sub(r"^\s*(?:\d+\.|-)?\s*[\"“(]?", "", word.string[: word.start()])
    begins = not before.strip() or re.search(r"[.!?:—]['\"”)]?\s*[\"“(]?$", before) is not None
    return word[0] if begins or PLAIN.fullmatch(word[0]) else MASK


def texts(project: Project, names: pd.DataFrame) -> pd.DataFrame:
    """Return the profiles from their pinned source: the columns of the bank, and the texts ``S, P, C, open``.

    ``open`` is C without a mask.

    Args:
        names: ``character, name, surname, series``.

    Raises:
        SourceUnavailable: the source cannot be had.
    """
    folder = sources.fetch(project, "spectrum-profiles")
    parts = sorted(
        {word for name in names["name"] + " " + names["surname"] for word in re.findall(r"[A-Z]\w+", name)}
    )
    rows = []
    for row in names[["character", "name", "surname", "series"]].to_dict("records"):
        raw = {
            part: "\n\n".join(
                (folder / f"{row['character']}_{file}.txt").read_text("utf-8").strip() for file in files
            )
            for part, files in FILES.items()
        }
        said = {part: masked(text, parts, proper=part == "C") for part, text in raw.items()}
        said["open"] = raw["C"]
        row |= {f"{part.lower()}_hash": text_hash(text) for part, text in said.items()}
        row |= {f"{part.lower()}_words": words(raw[part]) for part in FILES}
        rows.append(row | {"masked": said["C"].count(MASK), **said})
    return pd.DataFrame(rows)


def bank(project: Project, names: pd.DataFrame) -> pd.DataFrame:
    """Return the bank as it is committed: :func:`texts` without texts."""
    return texts(project, names)[list(Character.model_fields)]


# --- Plan ---------------------------------------------------------------------------------------------------------


def cells(protocol: Protocol, known: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the cells of both measures, as :func:`persona_studies.design.plan.measure` makes them.

    Args:
        known: Of :func:`characters`, or :func:`texts` where prompts are wanted.
    """
    told = [(protocol.conditions["told"].text or "").replace("{name}", name) for name in known["name"]]
    known = known.assign(told=told, told_hash=[text_hash(text) for text in told])
    made = [
        _asked(protocol, MEASURE, "nobody", known.head(1).assign(character="nobody")),
        _asked(protocol, MEASURE, "told", known, "told"),
    ]
    for context in CONTEXTS:
        head = next(part for part in HEADS if part in context)
        made.append(_asked(protocol, MEASURE, context, known, head, *context.replace(head, "")))
    return [*made, _asked(protocol, OPEN, "C", known, "open")]


def _asked(protocol: Protocol, measure: str, condition: str, known: pd.DataFrame, *parts: str) -> pd.DataFrame:
    """Return the cells of one context: its first part goes before the seam, the others behind it.

    A cell is known by the hashes of its parts, so that it is the same cell with and without texts.
    """
    declared = protocol.measures[measure]

    def said(names: tuple[str, ...]) -> list[str | None]:
        if not {*names} <= {*known}:
            return [None] * len(known)
        return ["".join(f"{text}\n\n" for text in row) for row in known[[*names]].to_numpy()]

    hashes = known[[f"{part.lower()}_hash" for part in parts]].to_numpy()
    items = pd.DataFrame(
        {
            "item": known["character"].astype(str),
            "item_hash": [text_hash(*row[1:]) for row in hashes],
            "condition_hash": [text_hash(*row[:1]) for row in hashes],
            "description": said(parts[:1]),
            "text": said(parts[1:]),
        }
    )
    return grid.measure(
        measure,
        declared.kind,
        conditions=pd.DataFrame(
            [{"condition": condition, "condition_hash": condition, "system": None, "description": None}]
        ),
        items=items,
        templates=declared.frame()[["template", "shared", "user"]],
        options=declared.options,
    )


# --- Analysis -----------------------------------------------------------------------------------------------------


def scores(recorded: pd.DataFrame, known: pd.DataFrame, measure: str = MEASURE) -> pd.DataFrame:
    """Score every profile: the name that gains most over the empty profile is chosen (mutual information).

    Args:
        recorded: Responses; ``guess_who`` is among them, for the empty profile.
        known: Of :func:`characters`.
        measure: ``guess_who`` or ``guess_open``.

    Returns:
        ``condition, item`` (number of the character), ``series, chosen`` (number), ``right`` (among all names),
        ``right_show`` (among those of the series), ``p`` (softmax of the gain), ``raw`` (right by the likelihood
        alone), ``n_options``. The condition ``another's SPC`` reads the whole profile of the next character of the
        series: how often does it give this one's name?
    """
    mine = recorded[recorded["measure"] == measure]
    base = recorded[(recorded["measure"] == MEASURE) & (recorded["condition"] == "nobody")]
    asked = mine[mine["condition"] != "nobody"].assign(item=lambda cells: cells["item"].astype(int))
    names, series = known["character"].to_numpy(), known["series"].to_numpy()
    whole = asked[asked["condition"] == "SPC"]
    before = known.groupby("series")["character"].transform(np.roll, 1)
    other = whole.assign(
        condition=STRANGER, item=whole["item"].map(dict(zip(known["character"], before, strict=True)))
    )
    asked = pd.concat([asked, other], ignore_index=True)
    raw = responses.matrix(asked)
    gain = raw - responses.matrix(base)
    place = np.searchsorted(names, asked["item"].to_numpy())
    inside = series[place][:, None] == series[None, :]
    chance = softmax(gain, axis=1)
    return pd.DataFrame(
        {
            "condition": asked["condition"],
            "item": asked["item"],
            "series": series[place],
            "chosen": names[gain.argmax(axis=1)],
            "right": gain.argmax(axis=1) == place,
            "right_show": np.where(inside, gain, -np.inf).argmax(axis=1) == place,
            "p": chance[np.arange(len(place)), place],
            "raw": raw.argmax(axis=1) == place,
            "n_options": len(names),
        }
    )


def gate(protocol: Protocol, scored: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Check the measure: does a name that is told come out, does a profile help, is one name always chosen?"""
    by = scored.groupby("condition")
    whole = scored[scored["condition"] == "SPC"]
    values = {
        "told": float(by["right"].mean()["told"]),
        "above_chance": gates.above_chance(whole.assign(score=whole["right"].astype(float)), how.confidence),
        "one_name": float(whole["chosen"].value_counts(normalize=True).iloc[0]),
    }
    return gates.declared(protocol.measures[MEASURE].gate, values)


def tests(protocol: Protocol, scored: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Test the family ``guess``: exact McNemar on the characters."""
    right = scored.pivot(index="item", columns="condition", values="right")
    return exact(protocol, "guess", right, how)


def contexts(scored: pd.DataFrame, known: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Return what each context gives away.

    Returns:
        ``condition, n, right, low, high`` (share named among all; Wilson), ``show_low, show_high`` (series drawn
        whole: six clusters, so these describe and test nothing), ``chance``, ``right_show, chance_show`` (among the
        names of the series), ``p, raw`` (as :func:`scores`), ``commonest`` (share of the name chosen most often).
    """
    size = known.groupby("series")["character"].size()
    rows = []
    for condition, part in scored.groupby("condition", sort=False):
        k, n = int(part["right"].sum()), len(part)
        low, high = proportion_confint(k, n, alpha=1 - how.confidence, method="wilson")
        drawn = resampled(by_person(part.assign(one=1.0)[["right", "one"]].astype(float), part["series"]), how)
        show_low, show_high = np.quantile(
            drawn[:, 0] / drawn[:, 1], [0.5 - how.confidence / 2, 0.5 + how.confidence / 2]
        )
        rows.append(
            {"condition": condition, "n": n, "right": k / n, "low": low, "high": high}
            | {"show_low": show_low, "show_high": show_high, "chance": 1 / part["n_options"].iloc[0]}
            | {"right_show": part["right_show"].mean(), "chance_show": (1 / part["series"].map(size)).mean()}
            | {"p": part["p"].mean(), "raw": part["raw"].mean()}
            | {"commonest": part["chosen"].value_counts(normalize=True).iloc[0]}
        )
    return pd.DataFrame(rows)


def together(scored: pd.DataFrame) -> pd.DataFrame:
    """Test whether the seven contexts give away alike much (Cochran's Q): ``contexts, n, q, df, p``.

    q and p are undefined where every character is named under all contexts or under none.
    """
    wide = scored.pivot(index="item", columns="condition", values="right")[[*CONTEXTS]].astype(int)
    row = {"contexts": len(CONTEXTS), "n": len(wide), "q": np.nan, "df": len(CONTEXTS) - 1, "p": np.nan}
    if (wide.nunique(axis=1) > 1).any():
        found = cochrans_q(wide.to_numpy())
        row |= {"q": float(found.statistic), "p": float(found.pvalue)}
    return pd.DataFrame([row])


def power(protocol: Protocol, n: int, how: Settings) -> pd.DataFrame:
    """Return what so few characters can show.

    Returns:
        ``level, discordant, difference, equivalence``: error rate of a test; fewest characters that one context
        alone must name for it to be significant; that as a share; power to show that a true difference of 0 is
        below the smallest effect, at a discordance of .25.
    """
    family = protocol.families["guess"]
    margin = next(iter(family.contrasts.values())).smallest_effect
    rows = []
    for level in (how.alpha, how.alpha / family.size):
        least = next(k for k in range(1, 1000) if distributions.binomtest(k, k).pvalue <= level)
        inside = 2 * distributions.norm.cdf(margin / np.sqrt(0.25 / n) - distributions.norm.ppf(1 - level)) - 1
        rows.append(
            {"level": level, "discordant": least, "difference": least / n, "equivalence": max(float(inside), 0.0)}
        )
    return pd.DataFrame(rows)
