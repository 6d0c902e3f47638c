"""Facts of ``data/published/persona_choice``, and the functions that rederive them from what was released.

Run as a script, this file compares every table with what the pinned sources give. Texts are hashed, counted and
forgotten; only hashes, labels and numbers are kept.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from persona_choice.pairs import longer, pair, released, short_hash
from persona_studies.design import facts, sources
from persona_studies.paths import Project

STUDY = "persona_choice"
LETTERS = ("A", "B")
HIGH = 80
ITEMS = ("Q45", "Q46", "Q57", "Q184", "Q218", "Q254")

# --- Personalized Judge ---------------------------------------------------------------------------------------

RUNS = {
    "PRISM GPT-4o all": "prism_all_features_gpt-4o",
    "PRISM GPT-4o key": "prism_all_features_key_features_gpt-4o",
    "PRISM GPT-4o key, rerun": "prism_all_features_key_features_gpt-4o_jun5",
    "PRISM GPT-4o age only": "prism_all_features_least_imp_feature_gpt-4o",
    "PRISM Command R+ all": "prism_all_features_command-r-plus",
    "PRISM Command R+ key": "prism_all_features_key_features_command-r-plus",
    "PRISM Command R+ age only": "prism_all_features_least_imp_feature_command-r-plus",
    "PRISM Command R+ none": "prism_no_persona_command-r-plus_new",
    "PRISM Llama-3-70B all": "prism_all_features_all_features_meta-llama_Meta-Llama-3-70B-Instruct_jun5",
    "PRISM GPT-3.5 all": "prism_all_features_gpt-3.5-turbo",
    "OpinionQA GPT-4o all": "opinionqa_all_features_all_features_gpt-4o_jun_11",
    "OpinionQA GPT-4o key": "opinionqa_all_features_key_features_gpt-4o_jun_11",
    "OpinionQA GPT-4o age only": "opinionqa_all_features_least_imp_feature_gpt-4o_jun_11",
    "OpinionQA Command R+ all": "opinionqa_all_features_all_features_command-r-plus_jun_11",
    "OpinionQA Command R+ key": "opinionqa_all_features_key_features_command-r-plus_jun_11",
    "OpinionQA Command R+ age only": "opinionqa_all_features_least_imp_feature_command-r-plus_jun_11",
    "OpinionQA Llama-3-70B all": "opinionqa_all_features_all_features_meta-llama_Meta-Llama-3-70B-Instruct_jun_11",
    "OpinionQA GPT-3.5 all": "opinionqa_all_features_all_features_gpt-3.5-turbo_jun_11",
    "EC GPT-4o all": "ec_all_features_gpt-4o",
    "EC Command R+ all": "ec_all_features_command-r-plus",
    "EC Command R+ none": "ec_no_persona_all_features_command-r-plus",
    "EC GPT-3.5 all": "ec_all_features_gpt-3.5-turbo",
    "EC Llama-3-70B all": "ec_all_features_all_features_meta-llama_Meta-Llama-3-70B-Instruct",
    "PR GPT-4o all": "ap_all_features_all_features_gpt-4o_jun5",
    "PR Command R+ all": "ap_all_features_all_features_command-r-plus_jun5",
    "PR Llama-3-70B all": "ap_all_features_all_features_meta-llama_Meta-Llama-3-70B-Instruct",
    "PR GPT-3.5 all": "ap_all_features_all_features_gpt-3.5-turbo",
    "PRISM GPT-4o all, with tie": "prism_all_features_with_tie_all_features_gpt-4o",
    "PRISM Command R+ all, with tie": "prism_all_features_with_tie_all_features_command-r-plus",
    "PRISM Llama-3-70B all, with tie": (
        "prism_all_features_with_tie_all_features_meta-llama_Meta-Llama-3-70B-Instruct_jun5"
    ),
    "PRISM GPT-3.5 all, with tie": "prism_all_features_with_tie_all_features_gpt-3.5-turbo",
    "EC GPT-4o all, with tie": "ec_all_features_with_tie_all_features_gpt-4o",
    "EC Command R+ all, with tie": "ec_all_features_with_tie_all_features_command-r-plus",
    "EC Llama-3-70B all, with tie": ("ec_all_features_with_tie_all_features_meta-llama_Meta-Llama-3-70B-Instruct"),
    "EC GPT-3.5 all, with tie": "ec_all_features_with_tie_all_features_gpt-3.5-turbo",
}
"""What a run is called here -> the stem of its released file."""

PINNED = {
    "prism_all_features_command-r-plus": "personalized-judge-prism-all-command-r-plus",
    "prism_all_features_key_features_command-r-plus": "personalized-judge-prism-key-command-r-plus",
    "prism_all_features_least_imp_feature_command-r-plus": "personalized-judge-prism-age-command-r-plus",
    "prism_no_persona_command-r-plus_new": "personalized-judge-prism-none-command-r-plus",
    "prism_all_features_key_features_gpt-4o": "personalized-judge-prism-key-gpt-4o",
    "prism_all_features_least_imp_feature_gpt-4o": "personalized-judge-prism-age-gpt-4o",
    "ec_all_features_command-r-plus": "personalized-judge-ec-all-command-r-plus",
    "ap_all_features_all_features_command-r-plus_jun5": "personalized-judge-pr-all-command-r-plus",
}
"""Runs whose files are pinned by hash -> their source."""

_PR = re.compile(
    r"\[User Profile\]\n(.*?)\n\n?\[Question-Answer Pair A\]\n(.*?)\[Question-Answer Pair B\]\n(.*?)\[Answer\]",
    re.S,
)


def judge_rows(run: str, path: Path) -> pd.DataFrame:
    """Return one row per reply of a released file, without texts.

    The prompt, not the field ``user_info``, says what the judge saw in the Reddit task (PR): that field holds
    another person's profile.

    Returns:
        ``run, row, pair, order`` (AB: the answer that sorts first was shown as A), ``persona, question`` (hashes),
        ``conversation_type, longer`` (A, B or =, by words), ``gold, answer, certainty`` (may be missing).
    """
    made = []
    for number, row in enumerate(released(path)):
        if "res" in row:
            found = _PR.search(row["prompt"])
            assert found is not None, f"row {number} of {run} has no prompt of two answers"
            profile, first, second = found[1], found[2].strip(), found[3].strip()
            question = ""
        else:
            question = str(row.get("question", row.get("article")))
            profile, first, second = row["user_info"], row["asst_A"], row["asst_B"]
        made.append(
            {
                "run": run,
                "row": number,
                "pair": pair(question, (first, second)),
                "order": "AB" if first <= second else "BA",
                "persona": short_hash(profile),
                "question": short_hash(question) if question else "",
                "conversation_type": row.get("conversation_type", ""),
                "longer": longer(first, second),
                "gold": row["ground_truth"],
                "answer": row["answer"],
                "certainty": row["certainty"],
            }
        )
    frame = pd.DataFrame(made)
    return frame.assign(certainty=pd.to_numeric(frame["certainty"], errors="coerce").astype("Int64"))


def committed_rows(project: Project) -> pd.DataFrame:
    """Return the committed rows of 24 runs, as :func:`judge_rows` makes them."""
    return pd.read_parquet(project.published / STUDY / "judge_rows.parquet")


def run_counts(rows: pd.DataFrame) -> dict[str, int]:
    """Return what the notebook of the authors prints about a run, counted from its rows.

    Replies that are neither A nor B count in ``rows`` alone. A certainty of at least 80 is high, none is low.
    """
    valid = rows[rows["answer"].isin(LETTERS)]
    right, high = valid["answer"] == valid["gold"], valid["certainty"].fillna(0) >= HIGH
    return {
        "rows": len(rows),
        "gold_C": int((rows["gold"] == "C").sum()),
        "n_valid": len(valid),
        "correct": int(right.sum()),
        "n_high_rows": int(high.sum()),
        "k_high_rows": int((right & high).sum()),
        "n_low_rows": int((~high).sum()),
        "k_low_rows": int((right & ~high).sum()),
    }


def reddit_task(path: Path) -> pd.DataFrame:
    """Count what the Reddit task (PR) sets against each other, in its prompts.

    Returns:
        ``what, count``: items, different right and wrong answers, persons in the prompts, and items whose field
        ``user_info`` holds another profile than the prompt.
    """
    right, wrong, persons, other = set(), set(), set(), 0
    rows = released(path)
    for number, row in enumerate(rows):
        found = _PR.search(row["prompt"])
        assert found is not None, f"row {number} has no prompt of two answers"
        answers = {"A": short_hash(found[2].strip()), "B": short_hash(found[3].strip())}
        gold = row["ground_truth"]
        right.add(answers[gold])
        wrong.add(answers["B" if gold == "A" else "A"])
        persons.add(short_hash(found[1]))
        other += found[1].strip() != row["user_info"].strip()
    counts = {
        "items": len(rows),
        "different right answers": len(right),
        "different wrong answers": len(wrong),
        "persons": len(persons),
        "items with another person's user_info": other,
    }
    return pd.DataFrame([{"what": what, "count": count} for what, count in counts.items()])


# --- DeepPersona ----------------------------------------------------------------------------------------------

METHODS = {
    "DeepPersona": "deeppersona_mean_of_3",
    "direct": "direct_llm_mean_of_3",
    "OpenCharacter": "opencharacter_mean_of_3",
}
"""Method -> its set of answers."""
MEANS = {
    "deeppersona_mean_of_3": "deeppersona-our-responses.csv",
    "direct_llm_mean_of_3": "deeppersona-llm-responses.csv",
    "opencharacter_mean_of_3": "deeppersona-opencharacter-responses.csv",
}


def answer_counts(name: str, answers: Iterable[tuple[str, float]]) -> pd.DataFrame:
    """Count answers: ``set, item, answer, count``, items in the order of the survey, answers ascending.

    Args:
        answers: Item and answer of every respondent.
    """
    counts = Counter(answers)
    ordered = sorted(counts.items(), key=lambda each: (ITEMS.index(each[0][0]), each[0][1]))
    return pd.DataFrame(
        [{"set": name, "item": item, "answer": answer, "count": n} for (item, answer), n in ordered]
    )


def survey_answers(paths: Mapping[str, Path]) -> pd.DataFrame:
    """Return the answers of every persona, one row each: ``method, row`` and the items.

    Args:
        paths: Method -> file of means of three answers.
    """
    parts = [
        pd.read_csv(path)[[*ITEMS]].rename_axis("row").reset_index().assign(method=method)
        for method, path in paths.items()
    ]
    return pd.concat(parts, ignore_index=True)[["method", "row", *ITEMS]]


def survey_counts(paths: Mapping[str, Path], single: Path) -> pd.DataFrame:
    """Count the answers of the three methods, and the single answers of one of them.

    Args:
        paths: Set -> file of means of three answers.
        single: File with each of three answers.
    """
    parts = []
    for name, path in paths.items():
        frame = pd.read_csv(path)
        parts.append(
            answer_counts(name, ((item, float(value)) for item in ITEMS for value in frame[item].dropna()))
        )
    people: list[dict[str, Any]] = list(json.loads(single.read_text("utf-8")).values())
    each = (
        (item, float(value)) for person in people for item in ITEMS for value in person[f"{item}_raw_responses"]
    )
    parts.append(answer_counts("opencharacter_single", each))
    return pd.concat(parts, ignore_index=True)


# --- What is committed, and what its sources give -------------------------------------------------------------


def committed(project: Project, name: str) -> pd.DataFrame:
    """Return a committed table of numbers."""
    return facts.committed(project, STUDY, name)


def _rows_again(project: Project) -> tuple[pd.DataFrame, pd.DataFrame]:
    known = committed_rows(project)
    made = [judge_rows(run, sources.fetch(project, id)) for run, id in PINNED.items()]
    kept = [known[known["run"] == run] for run in PINNED]
    return pd.concat(made, ignore_index=True), pd.concat(kept, ignore_index=True)


def _runs_again(project: Project) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = committed_rows(project)
    made = pd.DataFrame([{"run": run, **run_counts(part)} for run, part in rows.groupby("run", sort=True)])
    known = committed(project, "judge_runs").set_index("run").loc[made["run"], list(made.columns[1:])]
    return made, known.astype(int).reset_index()


def _counts_again(project: Project) -> tuple[pd.DataFrame, pd.DataFrame]:
    paths = {name: sources.fetch(project, id) for name, id in MEANS.items()}
    made = survey_counts(paths, sources.fetch(project, "deeppersona-opencharacter-responses.json"))
    known = committed(project, "survey_counts")
    kept = known[known["set"].isin(made["set"])]
    key = ["set", "item", "answer"]
    return made.sort_values(key, ignore_index=True), kept.sort_values(key, ignore_index=True)


def _answers_again(project: Project) -> tuple[pd.DataFrame, pd.DataFrame]:
    made = survey_answers({method: sources.fetch(project, MEANS[name]) for method, name in METHODS.items()})
    return made, committed(project, "survey_answers")


def _reddit_again(project: Project) -> tuple[pd.DataFrame, pd.DataFrame]:
    made = reddit_task(sources.fetch(project, PINNED["ap_all_features_all_features_command-r-plus_jun5"]))
    return made, committed(project, "reddit_task")


AGAIN: dict[str, Callable[[Project], tuple[pd.DataFrame, pd.DataFrame]]] = {
    "judge_rows": _rows_again,
    "judge_runs": _runs_again,
    "survey_counts": _counts_again,
    "survey_answers": _answers_again,
    "reddit_task": _reddit_again,
}
"""Table -> how to make again what can be made again of it, beside what is committed of that.

Of ``judge_rows`` eight runs are pinned; the counts of ``judge_runs`` follow from the rows; of ``survey_counts`` the
human answers are microdata of the World Values Survey, which may not be passed on.
"""


def compare(project: Project, name: str) -> dict[str, object]:
    """Make a table again from its sources and compare it with the committed one.

    Returns:
        ``table, committed`` (rows that can be made again), ``rederived`` (rows).

    Raises:
        SourceError: a value differs.
        SourceUnavailable: a source cannot be had.
    """
    made, known = AGAIN[name](project)
    facts.check(f"data/published/{STUDY}/{name}", known[made.columns], made, tolerance=0)
    return {"table": name, "committed": len(known), "rederived": len(made)}


if __name__ == "__main__":
    here = Project.find()
    for table in AGAIN:
        sys.stdout.write(f"{compare(here, table)}\n")
