"""How an urgency is read from a reply to a vignette.

The question names four urgencies and asks for one. A reply names one where it uses the question's words or a plain
synonym, unless a negation stands before them. One that repeats several has named none, except where it opens with
one and only then goes on to others.
"""

from __future__ import annotations

import re
from math import nan

import pandas as pd

from persona_studies.analyse.stats.agreement import cohen_kappa

STATUSES = ("answered", "hedged", "abstained", "unparsed", "truncated", "failed")
# By place, the most urgent first.
_NAMES = (
    r"emergency (?:care|room|department|services)|call (?:911|999|112|an ambulance)|"
    r"(?:care|help|attention|treatment) (?:immediately|right away|now)|"
    r"immediate (?:medical )?(?:care|attention|help)",
    r"with ?in (?:one|1|a|the next) day|with ?in (?:the next )?(?:24|twenty-four) hours|same[- ]day|today",
    r"with ?in (?:one|1|a|the next) week|with ?in (?:the next )?(?:7|seven) days",
    r"self[- ]?care|care for (?:it|this|themselves|himself|herself|yourself) at home|home care",
)
_ANY = re.compile("|".join(f"(?P<u{place}>{names})" for place, names in enumerate(_NAMES)), re.I)
_NOT = re.compile(r"\b(?:not?|n't|never|without|rather than|instead of|than)\s+(?:\w+\s+){0,3}$", re.I)
_HEDGE = re.compile(
    r"\b(?:it depends|depending on|not sure|unsure|hard to say|difficult to say|as an ai|not a doctor|"
    r"(?:cannot|can't|unable to) (?:say|tell|diagnose|determine|give|provide))\b",
    re.I,
)
_REFUSAL = re.compile(
    r"\b(?:i|we)(?:'m| am|'re| are)?\s+(?:not able|unable|sorry)\b|\bas an ai\b|"
    r"\b(?:cannot|can't|unable to) (?:answer|provide|give|help|assist|determine|diagnose|tell|say)\b",
    re.I,
)


def urgency(text: str) -> int | None:
    """Return the place of the urgency that a reply names, 0 the most urgent, or None.

    >>> urgency("This person should get care within one day."), urgency("Self-care."), urgency("See a doctor.")
    (1, 3, None)
    >>> urgency("Emergency care now, within one day, within one week, or self-care")
    >>> urgency("Within one week. If it gets worse, emergency care now.")
    2
    """
    found = [
        (match.start(), int(match.lastgroup[1:]))
        for match in _ANY.finditer(text)
        if match.lastgroup and not _NOT.search(text[: match.start()])
    ]
    places = {place for _, place in found}
    if not places:
        return None
    first = found[0][1]
    if len(places) == 1:
        return first
    # Several: the first counts where it stands in the opening sentence and the others do not.
    end = re.search(r"[.!?\n]", text[found[0][0] :])
    opening = found[0][0] + end.start() if end else len(text)
    named = {place for start, place in found if start < opening}
    before = re.search(r"[.!?\n]", text[: found[0][0]].strip())
    return first if named == {first} and before is None else None


def status(text: str, place: int | None, *, cut: bool) -> str:
    """Return what a reply is; an answer goes before a refusal, because a reply can hedge and still answer.

    Args:
        place: What :func:`urgency` read from it.
        cut: Whether the reply ended at its token limit.

    >>> status("I am not a doctor, but self-care is fine.", 3, cut=False)
    'hedged'
    >>> status("I cannot diagnose anybody.", None, cut=False)
    'abstained'
    """
    if place is not None:
        return "hedged" if _HEDGE.search(text) or _REFUSAL.search(text) else "answered"
    if _REFUSAL.search(text):
        return "abstained"
    return "truncated" if cut else "unparsed"


def read(recorded: pd.DataFrame, asked: pd.DataFrame, people: pd.DataFrame) -> pd.DataFrame:
    """Read a recording's replies.

    Returns:
        ``who, condition, item, cluster, gold, status, named`` (place, NaN where none).
    """
    cells = recorded[recorded["measure"] == "text"].merge(asked[["item", "cluster", "gold"]], on="item")
    cells = cells.merge(people[["condition", "who"]], on="condition")
    named: list[float] = []
    said: list[str] = []
    for text, finish in zip(cells["text"], cells["finish"], strict=True):
        place = urgency(text) if isinstance(text, str) else None
        named.append(nan if place is None else float(place))
        said.append(status(text, place, cut=finish == "length") if isinstance(text, str) else "failed")
    return cells[["who", "condition", "item", "cluster", "gold"]].assign(status=said, named=named)


def share_parsed(replies: pd.DataFrame) -> float:
    """Return the share of replies that name an urgency; NaN without replies."""
    return float(replies["named"].notna().mean()) if len(replies) else nan


def summary(
    replies: pd.DataFrame, scored: pd.DataFrame, *, confidence: float, replicates: int, seed: int
) -> pd.DataFrame:
    """Return what replies say under each condition, and whether they agree with the forced choice of the same cell.

    Args:
        replies: Of :func:`read`.
        scored: Forced choices: ``condition, item, chosen``.
        replicates: Bootstrap samples of cases.

    Returns:
        ``who, n``, the share of every status, ``accuracy_given_answer, lower, upper`` (no answer counted as wrong,
        as right), ``under, over`` (among answers), ``same`` (share of answers that are the forced choice), ``kappa,
        kappa_low, kappa_high`` (quadratic, of the two; undefined where one of them never varies).
    """
    rows = []
    both = replies.merge(scored[["condition", "item", "chosen"]], on=["condition", "item"], how="left")
    for who, group in both.groupby("who", sort=False):
        share = group["status"].value_counts(normalize=True).reindex(STATUSES, fill_value=0.0)
        answers = group.dropna(subset=["named"])
        error = answers["named"] - answers["gold"]
        right = float((error == 0).sum() / len(group))
        pairs = answers.dropna(subset=["chosen"])[["named", "chosen"]]
        kappa = (
            cohen_kappa(
                pairs,
                categories=range(4),
                weights="quadratic",
                confidence=confidence,
                replicates=replicates,
                seed=seed,
            )
            if (pairs.nunique() > 1).all()
            else None
        )
        rows.append(
            {
                "who": who,
                "n": len(group),
                **{name: share[name] for name in STATUSES},
                "accuracy_given_answer": float((error == 0).mean()) if len(answers) else nan,
                "lower": right,
                "upper": right + 1 - len(answers) / len(group),
                "under": float((error > 0).mean()) if len(answers) else nan,
                "over": float((error < 0).mean()) if len(answers) else nan,
                "same": float((pairs["named"] == pairs["chosen"]).mean()) if len(pairs) else nan,
                "kappa": kappa.estimate if kappa else nan,
                "kappa_low": kappa.low if kappa else nan,
                "kappa_high": kappa.high if kappa else nan,
            }
        )
    return pd.DataFrame(rows)
