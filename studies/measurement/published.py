"""Readers of released answers. Texts are compared and forgotten; numbers, labels and counts remain."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, cross_val_predict

from measurement import design, psychometrics
from measurement.further import papi_answers

FLAN = ("small", "base", "large", "xl")
GROUPS = ("people", "men", "women", "barbers", "accountants", "doctors")
MBTI = {"ChatGPT": "chatgpt", "GPT-4": "gpt4", "InstructGPT": "instructgpt"}
OPTIONS = (
    *("correct", "generally correct", "partially correct", "neither correct nor wrong"),
    *("partially wrong", "generally wrong", "wrong"),
)
"""MBTI of groups: the seven answers, from most to least correct; the place in this list is the value, 1 to 7."""


# --- flan-t5 -----------------------------------------------------------------------------------------------------


def flan(prompts: Path, answers: dict[str, Path]) -> pd.DataFrame:
    """Count how four models answer an item and its variant.

    Yes when the positive word's largest next-token probability over its case variants exceeds the negative's.

    Args:
        prompts: The prompts, in the order of the answers.
        answers: Model -> next-token probabilities.

    Returns:
        ``kind`` (order, format, word, meaning), ``pattern`` (a digit per model for the item, then one per model for
        its variant; 1 is yes), ``items``.
    """
    asked = pd.DataFrame({k: [*v.values()] for k, v in json.loads(prompts.read_text("utf-8")).items()})
    blocks = len(asked) // 5
    yes = {}
    cases = [f"p({word})" for word in ("True", "true", "False", "false", "Yes", "yes", "No", "no")]
    for model, path in answers.items():
        table = pd.read_csv(path, usecols=cases)
        true = table[["p(True)", "p(true)"]].max(axis=1) > table[["p(False)", "p(false)"]].max(axis=1)
        agree = table[["p(Yes)", "p(yes)"]].max(axis=1) > table[["p(No)", "p(no)"]].max(axis=1)
        yes[model] = np.where(np.arange(len(table)) >= 4 * blocks, agree, true).astype(int).reshape(5, blocks)
    rows = []
    for kind, block in (("word", 1), ("meaning", 2), ("order", 3), ("format", 4)):
        bits = np.vstack([[yes[m][0] for m in FLAN], [yes[m][block] for m in FLAN]]).astype(str)
        pattern = pd.Series(["".join(column) for column in bits.T]).value_counts().sort_index()
        rows += [(kind, str(name), int(count)) for name, count in pattern.items()]
    return pd.DataFrame(rows, columns=["kind", "pattern", "items"])


# --- MBTI of groups ----------------------------------------------------------------------------------------------


def mbti(files: dict[tuple[str, str], Path]) -> pd.DataFrame:
    """Read 1,080 answers about groups.

    Args:
        files: (model, three groups joined by "-") -> answers.

    Returns:
        ``model, group, statement, value`` (1 correct to 7 wrong), ``place`` (of the chosen option in the prompt),
        ``permuted`` (whether the prompt's options are in another order than the usual one), ``unparsed``.
    """
    rows = []
    for (model, together), path in files.items():
        table = pd.read_csv(path, header=0, dtype=str, encoding="utf-8", encoding_errors="replace")
        for k, group in enumerate(together.split("-")):
            for number, (prompt, answer) in enumerate(
                zip(table.iloc[:, 3 * k], table.iloc[:, 3 * k + 1], strict=True), 1
            ):
                shown = _options(str(prompt))
                said = _first(str(answer))
                rows.append(
                    {
                        "model": model,
                        "group": group,
                        "statement": number,
                        "value": OPTIONS.index(said) + 1 if said else None,
                        "place": shown.index(said) + 1 if said and said in shown else None,
                        "permuted": tuple(shown) != OPTIONS,
                        "unparsed": said is None,
                    }
                )
    return pd.DataFrame(rows).astype({"value": "Int64", "place": "Int64"})


def _options(prompt: str) -> list[str]:
    listed = re.search(r"Is it (.*?)\s+(?:for|with) the following", prompt, re.DOTALL)
    return [part.strip() for part in re.split(r",\s*(?:or\s+)?|\s+or\s+", listed[1])] if listed else []


def _first(answer: str) -> str | None:
    """Return the first label that an answer names; longer labels before the shorter ones that they contain."""
    names = "|".join(sorted(OPTIONS, key=len, reverse=True))
    found = re.search(rf"\b({names})\b", answer.lower())
    return found[1] if found else None


# --- PAPI, IPIP and people ----------------------------------------------------------------------------------------


def papi(test: Path, split: Path, keys: pd.DataFrame) -> pd.DataFrame:
    """Score yardsticks as PAPI scores a model: mean |error| on the tested items, summed over five domains.

    ``stored`` compares with the stored answers, which are turned already. ``as the code does`` compares an answer
    to the statement as it stands with the stored one, which is right for plus-keyed items only.

    Returns:
        ``yardstick, coding, people, mean, sd``; the last row is the paired difference that a claim needs.
    """
    stored = papi_answers(test)
    chosen = json.loads(split.read_text("utf-8"))
    tested, given = (np.array(chosen[k]) - 1 for k in ("test_index", "train_index"))
    key, domain = keys["key"].to_numpy(), keys["domain"].to_numpy()
    facet = (keys["domain"] + keys["facet"].astype(str)).to_numpy()
    raw = np.where(key > 0, stored, 6 - stored)
    filled = np.where(np.isnan(stored), np.nanmean(stored, axis=0), stored)
    others = (np.nansum(stored, axis=0) - np.nan_to_num(stored)) / np.maximum(
        (~np.isnan(stored)).sum(axis=0) - ~np.isnan(stored), 1
    )
    own = np.full(stored.shape, 3.0)
    for name in set(facet):
        mine, asked = facet == name, given[facet[given] == name]
        if len(asked):
            own[:, mine] = np.round(np.nanmean(stored[:, asked], axis=1, keepdims=True))
    ridge = np.full(stored.shape, np.nan)
    folds = KFold(10, shuffle=True, random_state=1)
    ridge[:, tested] = cross_val_predict(Ridge(alpha=100.0), filled[:, given], filled[:, tested], cv=folds)
    neutral = np.full(stored.shape, 3.0)

    def error(said: np.ndarray) -> np.ndarray:
        off = np.abs(said - stored)
        summed: np.ndarray = np.sum(
            [np.nanmean(off[:, tested[domain[tested] == name]], axis=1) for name in design.DOMAINS], axis=0
        )
        return summed

    scores = {
        ("true answers", "stored"): error(stored),
        ("true answers", "as the code does"): error(raw),
        ("neutral", "stored"): error(neutral),
        ("others' item mean", "stored"): error(others),
        ("others' item median", "stored"): error(_others_median(stored)),
        ("own facet mean, rounded", "stored"): error(own),
        ("ridge on own answers", "stored"): error(ridge),
        ("true answers - neutral", "as the code does"): error(raw) - error(neutral),
    }
    return pd.DataFrame(
        [(*name, len(v), float(v.mean()), float(v.std(ddof=1))) for name, v in scores.items()],
        columns=["yardstick", "coding", "people", "mean", "sd"],
    )


def _others_median(stored: np.ndarray) -> np.ndarray:
    """Return people x items: the median answer of all other people."""
    made = np.tile(np.nanmedian(stored, axis=0), (len(stored), 1))
    for item, column in enumerate(stored.T):
        known = np.flatnonzero(~np.isnan(column))
        ordered, rank = np.sort(column[known]), column[known].argsort().argsort()
        # Both middle places of the sorted answers that are left; one's own place is skipped.
        middle = np.array([(len(known) - 2) // 2, (len(known) - 1) // 2])
        made[known, item] = ordered[middle + (middle >= rank[:, None])].mean(axis=1)
    return made


PSYCH = {"A": "agreeableness", "C": "conscientiousness", "E": "extraversion", "N": "neuroticism", "O": "openness"}
PSYCH_REVERSED = ("A1", "C4", "C5", "E1", "E2", "O2", "O5")


def psych_answers(file: Path) -> psychometrics.Answers:
    """Return the 2,800 people of psych::bfi who answered all 25 items, 1 to 6."""
    table = pd.read_csv(file).filter(regex=r"^[ACENO][1-5]$").dropna()
    return psychometrics.Answers(
        table.to_numpy(float),
        np.array([-1 if name in PSYCH_REVERSED else 1 for name in table]),
        np.array([PSYCH[str(name)[0]] for name in table]),
        top=6,
    )


def ipip_answers(test: Path, keys: pd.DataFrame, numbers: list[int] | None = None) -> psychometrics.Answers:
    """Return PAPI's people on some items of the IPIP-NEO-300, as answered (not turned), complete rows."""
    stored, key = papi_answers(test), keys["key"].to_numpy()
    raw = np.where(key > 0, stored, 6 - stored)
    chosen = np.arange(300) if numbers is None else np.array(numbers) - 1
    kept = raw[:, chosen]
    whole = kept[~np.isnan(kept).any(axis=1)]
    return psychometrics.Answers(whole, key[chosen], keys["domain"].to_numpy(str)[chosen])


def settings_answers(save: Path, questionnaires: Path) -> psychometrics.Answers:
    """Return LLMPersonality's 2,500 settings x 44 items as answered; reversed orders are turned back already."""
    told = json.loads(questionnaires.read_text("utf-8"))["BFI"]
    where = {n: name.lower() for name, items in told["categories"].items() for n in items}
    rows = [[each["raw"][str(n)] for n in range(1, 45)] for each in json.loads(save.read_text("utf-8"))["data"]]
    keys = np.array([-1 if n in told["reverse"] else 1 for n in range(1, 45)])
    return psychometrics.Answers(np.array(rows, float), keys, np.array([where[n] for n in range(1, 45)]))


def personallm_answers(folder: Path, items: Path) -> tuple[pd.DataFrame, psychometrics.Answers]:
    """Return PersonaLLM's runs (``type, run``) and their 44 answers, runs x items."""
    told = pd.read_csv(items, sep="\t")
    index, rows = [], []
    for path in sorted(folder.glob("*.json")):
        said = json.loads(path.read_text("utf-8"))
        # Five replies name one item twice; the later answer counts, as for their authors.
        found = dict(re.findall(r"\(([a-z]+)\)\s*(\d)", said["annotation"]))
        if len(found) == len(told):
            index.append((said["persona_encoding"], said["iteration"]))
            rows.append([int(found[label]) for label in sorted(found, key=lambda label: (len(label), label))])
    keys = np.where(told["reverse"] == "R", -1, 1)
    answers = psychometrics.Answers(np.array(rows, float), keys, told["trait"].str.lower().to_numpy(str))
    return pd.DataFrame(index, columns=["type", "run"]), answers
