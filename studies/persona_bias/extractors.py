"""How an answer is read from a reply: three extractors, and what the choice between them does.

The paper's extractor takes what follows the last "answer is" on its line, or the whole reply where there is none,
and in it the first letter in parentheses; anything else counts as wrong. A reply that says "the answer is D." is
therefore wrong whatever D is, and one that discusses "(A)" without an answer has answered A.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import nan

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from persona_studies.analyse import families
from persona_studies.analyse.stats.paired import mcnemar
from persona_studies.design.multiple_choice import LETTERS

_ANSWER_IS = re.compile(r"answer is:?\s*", re.I)
_PARENTHESES = re.compile(r"\(([a-z])\)", re.I)
_STRICT = re.compile(r"answer is:?\s*\(?([A-J])\)?\s*[.!]?\s*$", re.I)
# Possessive: where nothing follows, thousands of blanks are tried once, not in every division.
_STATED = re.compile(
    r"(?i:\b(?:answer|option|choice))[\"'*]*+(?i:\s++(?:is|(?:would|should|must) be))?\s*+[:=]?\s*+"
    r"[\"'*(]*+([A-J])\b(?!['’])"
)
_BARE = re.compile(r"^\W*\(?([A-J])\)?\W*$")
_REFUSAL = re.compile(
    r"\b(?:i|we)(?:'m| am|'re| are)?\s+(?:not able|unable|sorry)\b"
    r"|\b(?:cannot|can't|could not|not able to|unable to)"
    r" (?:answer|provide|help|assist|determine|give|perform|solve)\b|\bas an ai\b",
    re.I,
)
STATUSES = ("answered", "hedged", "abstained", "unparsed", "truncated", "failed")


def published(text: str) -> str | None:
    """Return the letter that the paper's extractor reads, or None.

    It gives the filed answer of all 99 replies of the paper's public run.

    >>> published("So the answer is: (B) because"), published("The answer is B."), published("(A) may be true.")
    ('B', None, 'A')
    """
    found = list(_ANSWER_IS.finditer(text))
    stated = text[found[-1].end() :].split("\n")[0] if found else text
    letter = _PARENTHESES.search(stated)
    return letter[1].upper() if letter else None


def strict(text: str) -> str | None:
    """Return the letter that the last line states as the answer and ends with, or None.

    >>> strict("Work.\\nThe answer is: (C)."), strict("The answer is (C), or perhaps (D)")
    ('C', None)
    """
    lines = [line for line in text.splitlines() if line.strip()]
    found = _STRICT.search(lines[-1].strip()) if lines else None
    return found[1].upper() if found else None


def lenient(text: str) -> str | None:
    """Return the last letter that is stated as an answer, in parentheses or not, or a line that is one letter.

    >>> lenient("The answer is D."), lenient("B"), lenient("A cat sat on a mat.")
    ('D', 'B', None)
    """
    stated = _STATED.findall(text)
    if stated:
        return str(stated[-1]).upper()
    bare = [found[1] for line in text.splitlines() if (found := _BARE.match(line.strip()))]
    return bare[-1].upper() if bare else None


EXTRACTORS: dict[str, Callable[[str], str | None]] = {"published": published, "strict": strict, "lenient": lenient}


def status(text: str, answer: object, *, cut: bool) -> str:
    """Return what a reply is: an answer goes before a refusal, because a reply can hedge and still answer.

    Args:
        answer: What an extractor read from it, or None.
        cut: Whether the reply ended at its token limit.

    >>> status("I cannot perform calculations. The answer is (B).", "B", cut=False)
    'hedged'
    >>> status("As a person I am unable to answer this.", None, cut=False)
    'abstained'
    """
    refuses = bool(_REFUSAL.search(text))
    if answer is not None:
        return "hedged" if refuses else "answered"
    if refuses:
        return "abstained"
    return "truncated" if cut else "unparsed"


def under_each(texts: pd.DataFrame) -> pd.DataFrame:
    """Read replies under every extractor.

    Args:
        texts: ``text, gold`` (0-based place among the options that the reply saw), ``n_options, cut`` and whatever
            identifies a reply.

    Returns:
        One row per extractor and reply: without ``text``; with ``extractor, status, correct`` (NaN without an
        answer). A letter that is no option is no answer.
    """
    parts = []
    for name, extract in EXTRACTORS.items():
        read: list[str | None] = []
        for text, n in zip(texts["text"], texts["n_options"], strict=True):
            letter = extract(text) if isinstance(text, str) else None
            read.append(letter if letter is not None and letter in LETTERS[: int(n)] else None)
        said = [
            status(text, letter, cut=bool(cut)) if isinstance(text, str) else "failed"
            for text, letter, cut in zip(texts["text"], read, texts["cut"], strict=True)
        ]
        right = [
            nan if letter is None else float(LETTERS.index(letter) == gold)
            for letter, gold in zip(read, texts["gold"], strict=True)
        ]
        parts.append(texts.drop(columns="text").assign(extractor=name, status=said, correct=right))
    return pd.concat(parts, ignore_index=True)


def read(recorded: pd.DataFrame, asked: pd.DataFrame, people: pd.DataFrame) -> pd.DataFrame:
    """Read a recording's replies under every extractor.

    Returns:
        ``persona, item, dataset, gold, n_options, cut, extractor, status, correct``.
    """
    cells = recorded[recorded["measure"] == "text"].merge(
        asked[["item", "dataset", "gold", "n_options"]], on="item"
    )
    cells = cells.merge(people[["condition", "persona"]], on="condition")
    cells["cut"] = cells["finish"] == "length"
    # Order k showed option (i + k) mod n at place i.
    cells["gold"] = (cells["gold"] - cells["order"]) % cells["n_options"]
    cells["text"] = cells["text"].where(cells["finish"] != "failed")
    return under_each(cells[["persona", "item", "dataset", "gold", "n_options", "cut", "text"]])


def share_answered(replies: pd.DataFrame) -> float:
    """Return the share of replies from which an answer is read; NaN without replies."""
    return float(replies["status"].isin(["answered", "hedged"]).mean()) if len(replies) else nan


def sensitivity(replies: pd.DataFrame, *, reference: str) -> pd.DataFrame:
    """Return each persona's replies under each extractor, and the difference among the questions that both answer.

    Args:
        replies: Of :func:`under_each`, with ``persona, item``.
        reference: Persona that the others are compared with, on the same items.

    Returns:
        ``persona, extractor, n, answered, hedged, abstained, unparsed, truncated`` (shares; hedged ones are
        answered, too), ``accuracy_given_answer``, ``lower, upper`` (a reply without an answer counted as wrong, and
        as right), ``pairs, b, c`` (only the persona right, only the reference right), ``difference, low, high, p``
        (mid-p McNemar with Tango's interval).
    """
    rows = []
    for (extractor, persona), group in replies.groupby(["extractor", "persona"], sort=False):
        share = group["status"].value_counts(normalize=True).reindex(STATUSES, fill_value=0.0)
        answered = share["answered"] + share["hedged"]
        right = group["correct"].fillna(0.0).mean()
        base = replies[(replies["extractor"] == extractor) & (replies["persona"] == reference)]
        mine = group.set_index("item")["correct"].to_frame("mine")
        both = mine.join(base.set_index("item")["correct"], how="inner").dropna()
        b, c, _ = families.discordant(both["mine"] == 1, both["correct"] == 1)
        test = mcnemar(b, c, len(both)) if len(both) and persona != reference else None
        rows.append(
            {
                "persona": persona,
                "extractor": extractor,
                "n": len(group),
                "answered": answered,
                **{name: share[name] for name in ("hedged", "abstained", "unparsed", "truncated")},
                "accuracy_given_answer": group["correct"].mean(),
                "lower": right,
                "upper": right + 1 - answered,
                "pairs": len(both),
                "b": b,
                "c": c,
                "difference": test.estimate if test else nan,
                "low": test.low if test else nan,
                "high": test.high if test else nan,
                "p": test.p if test else nan,
            }
        )
    return pd.DataFrame(rows)


def plot_split(table: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Draw right, wrong and not answered by persona, one panel per extractor.

    Args:
        table: Of :func:`sensitivity`.
        names: Of :func:`persona_bias.names`.
    """
    shares = table.assign(right=table["lower"], wrong=table["answered"] - table["lower"])
    shares["no answer"] = 1 - table["answered"]
    extractors = list(dict.fromkeys(shares["extractor"]))
    personas = list(dict.fromkeys(shares["persona"]))
    colours = sns.color_palette("colorblind", 3)
    figure = Figure(figsize=(3.1 * len(extractors) + 1.2, 0.4 * len(personas) + 1.5), layout="constrained")
    axes = figure.subplots(1, len(extractors), sharey=True, squeeze=False)[0]
    for axis, extractor in zip(axes, extractors, strict=True):
        rows = shares[shares["extractor"] == extractor].set_index("persona").reindex(personas)
        left = pd.Series(0.0, index=rows.index)
        for name, colour, hatch in zip(["right", "wrong", "no answer"], colours, ["", "//", ".."], strict=True):
            axis.barh(range(len(rows)), rows[name], left=left, color=colour, hatch=hatch, ec="white", label=name)
            left = left + rows[name]
        axis.set(title=extractor, xlim=(0, 1), xlabel="share of replies", yticks=range(len(rows)))
        axis.set_yticklabels([names.get(persona, persona) for persona in personas])
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure
