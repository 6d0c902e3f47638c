"""Pairs of answers that people rated: from the released rows of Personalized Judge to a bank without texts.

The texts are those of PRISM and stay at their pinned source. The bank that is committed identifies pairs, persons
and prompts by hashes; :func:`bank` makes it anew where the source is at hand.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from persona_studies.design import sources
from persona_studies.design.plan import text_hash
from persona_studies.design.protocol import Protocol
from persona_studies.paths import Project

SOURCE = "personalized-judge-prism-all-command-r-plus"
PERSONAL = ("full", "key", "age", "placebo", "shuffled", "filler")
"""Conditions whose text depends on the pair; the others have one text."""
# How a sentence of a profile begins, by feature.
FEATURES = {
    "age": r"The person is (?:\d\d-\d\d|65\+) years old",
    "gender": r"The person is (?:fe)?male\b|The person is non-binary|The person is prefer not",
    "employment": r"The person is (?:working|student|unemployed|homemaker|retired)",
    "education": r"The person's highest education",
    "marital status": r"The person's marital status",
    "ethnicity": r"Racially, ",
    "religion": r"Religiously, |The person has no ",
    "countries": r"The person is born in",
}
KEY = ("education", "ethnicity", "countries")


def short_hash(text: str) -> str:
    """Return the first 12 hexadecimal digits of a text's sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def pair(question: str, answers: Iterable[str]) -> str:
    """Return the identity of a pair: it does not depend on the order of the two answers.

    >>> pair("Why?", ["No.", "Yes."]) == pair("Why?", ["Yes.", "No."])
    True
    """
    return short_hash("\n".join([question, *sorted(answers)]))


def words(text: str) -> int:
    """Return the number of words of a text."""
    return len(text.split())


def longer(first: str, second: str) -> str:
    """Return which of two answers has more words: ``A``, ``B``, or ``=``."""
    one, two = words(first), words(second)
    return "A" if one > two else "B" if two > one else "="


def features(profile: str) -> dict[str, str]:
    """Return the sentences of a profile by feature, in their order.

    >>> features("The person is 18-24 years old. The person is born in Peru and currently lives in Chile.")["age"]
    'The person is 18-24 years old.'
    """
    found = {}
    for sentence in re.split(r"(?<=\.)\s+(?=The person|Racially|Religiously)", profile.strip()):
        feature = next((name for name, start in FEATURES.items() if re.match(start, sentence)), sentence)
        found[feature] = sentence
    return found


def distance(one: Mapping[str, str], other: Mapping[str, str]) -> int:
    """Return in how many features two profiles differ; one that only one of them has counts."""
    return sum(one.get(name) != other.get(name) for name in {*one, *other})


def strangers(profiles: Sequence[str], least: int, seed: int) -> dict[str, str]:
    """Give every profile another one, each to exactly one, that differs in at least ``least`` features.

    Raises:
        ValueError: there is no such assignment.
    """
    parsed = [features(profile) for profile in profiles]
    near = np.array([[distance(one, other) < least for other in parsed] for one in parsed])
    cost = np.random.default_rng(seed).random(near.shape) + near * 1000.0
    rows, columns = linear_sum_assignment(cost)
    if near[rows, columns].any():
        raise ValueError(f"No assignment of {len(profiles)} profiles differs in {least} features everywhere.")
    return {profiles[row]: profiles[column] for row, column in zip(rows, columns, strict=True)}


def released(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a released file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def sampled(rows: Sequence[Mapping[str, Any]], limit: int, n: int) -> list[dict[str, Any]]:
    """Return ``n`` pairs of at most ``limit`` words: kinds of conversation in turn, each in the order of hashes.

    So every first ``k`` pairs are a sample of the same kind, and hold as many of each kind of conversation.
    """
    strata: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        whole = row["question"] + row["asst_A"] + row["asst_B"]
        if words(whole) <= limit:
            item = pair(row["question"], (row["asst_A"], row["asst_B"]))
            strata.setdefault(row["conversation_type"], []).append({**row, "item": item})
    ordered = [sorted(strata[kind], key=lambda row: str(row["item"])) for kind in sorted(strata)]
    turns = max(map(len, ordered), default=0)
    return [rows[turn] for turn in range(turns) for rows in ordered if turn < len(rows)][:n]


def descriptions(row: Mapping[str, Any], other: str, protocol: Protocol) -> dict[str, str]:
    """Return what stands about the person of a pair, by condition.

    Args:
        row: A released row with its ``item``.
        other: Profile of another person.
        protocol: Texts of the conditions.
    """
    design, profile, mine = protocol.design, str(row["user_info"]), features(str(row["user_info"]))
    number = int(str(row["item"]), 16)
    colours, breakfasts = design["colours"], design["breakfasts"]
    filling = {
        "full": {"profile": profile},
        "key": {"profile": " ".join(mine[name] for name in KEY if name in mine)},
        "age": {"profile": mine["age"]},
        "placebo": {
            "colour": colours[number % len(colours)],
            "breakfast": breakfasts[number // len(colours) % len(breakfasts)],
        },
        "shuffled": {"profile": other},
        "filler": {"filler": " ".join(design["filler"].split()[: words(profile)]).rstrip(".,") + "."},
    }
    return {name: filled(protocol, name, slots) for name, slots in filling.items()}


def filled(protocol: Protocol, condition: str, slots: Mapping[str, str]) -> str:
    """Return the text of a condition with its slots filled."""
    text = protocol.conditions[condition].text or ""
    for name, value in slots.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def texts(project: Project, protocol: Protocol) -> pd.DataFrame:
    """Return the pairs with their texts, from the pinned source.

    Returns:
        The columns of the bank, and ``text`` (the question), ``options`` (both answers as released) and a column
        per condition of :data:`PERSONAL` with its text.

    Raises:
        SourceUnavailable: the source cannot be had.
    """
    sizes = protocol.confirmatory.sizes if protocol.confirmatory else {}
    rows = sampled(released(sources.fetch(project, SOURCE)), protocol.design["words"], sizes["items"])
    profiles = sorted({row["user_info"] for row in rows})
    others = strangers(profiles, protocol.design["distance"], protocol.design["shuffle_seed"])
    made = []
    for row in rows:
        answers = (row["asst_A"], row["asst_B"])
        said = descriptions(row, others[row["user_info"]], protocol)
        made.append(
            {
                "item": row["item"],
                "item_hash": text_hash(row["question"], *answers),
                "respondent": short_hash(row["user_info"]),
                "stranger": short_hash(others[row["user_info"]]),
                "conversation": row["conversation_type"],
                "gold": "AB".index(row["ground_truth"]),
                "longer": {"A": 0, "B": 1, "=": -1}[longer(*answers)],
                "words": words(row["question"] + answers[0] + answers[1]),
                "profile_words": words(row["user_info"]),
                **{f"{name}_hash": text_hash(None, said[name]) for name in PERSONAL},
                "text": row["question"],
                "options": answers,
                **said,
            }
        )
    return pd.DataFrame(made)


def bank(project: Project, protocol: Protocol) -> pd.DataFrame:
    """Return the bank as it is committed: :func:`texts` without texts."""
    return texts(project, protocol).drop(columns=["text", "options", *PERSONAL])
