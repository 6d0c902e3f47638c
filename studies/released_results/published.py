"""Facts of ``data/published/released_results``, and the functions that rederive them from what was released.

Run as a script, this file rebuilds every table whose sources ``data/sources.toml`` pins by hash. Texts are counted,
compared and forgotten; only numbers, labels and identifiers are kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from bs4 import BeautifulSoup
from scipy import stats
from sklearn.feature_extraction.text import TfidfVectorizer

from persona_studies.design import facts
from persona_studies.design.facts import Fact, Find
from persona_studies.errors import SourceError
from persona_studies.paths import Project

STUDY = "released_results"

# --- PersoBench -----------------------------------------------------------------------------------------------

BATCH = 200


def persobench_tables(workbooks: Mapping[tuple[str, str], Path]) -> pd.DataFrame:
    """Return the printed means and standard deviations of every workbook.

    Args:
        workbooks: (data set, setting) -> workbook; cells read "0.54 ± 0.68", or one number.

    Returns:
        ``dataset, setting, model, metric, mean, sd``; a metric keeps the name that its column has, misprints too.
    """
    rows = []
    for (dataset, setting), path in workbooks.items():
        for record in pd.read_excel(path).to_dict("records"):
            for metric, cell in list(record.items())[1:]:
                if pd.isna(cell):
                    continue
                mean, _, sd = str(cell).partition("±")
                rows.append((dataset, setting, record["Model"], metric, float(mean), float(sd or 0)))
    return pd.DataFrame(rows, columns=["dataset", "setting", "model", "metric", "mean", "sd"])


def persobench_failures(replies: Mapping[tuple[str, str, str], Path]) -> pd.DataFrame:
    """Count the replies that could not be parsed: those without ``gen_response``.

    Args:
        replies: (data set, model, setting) -> file of replies.

    Returns:
        ``dataset, model, setting, rows, failed, mean_words_valid`` (two decimals).
    """
    rows = []
    for key, path in replies.items():
        text = pd.read_csv(path)["gen_response"]
        words = text.dropna().map(lambda reply: len(reply.split()))
        rows.append((*key, len(text), int(text.isna().sum()), round(float(words.mean()), 2)))
    return pd.DataFrame(rows, columns=["dataset", "model", "setting", "rows", "failed", "mean_words_valid"])


def realigned(metrics: pd.DataFrame, failed: np.ndarray, batch: int = BATCH) -> pd.DataFrame:
    """Put the UniEval columns back into the order of the prompts.

    UniEval scored the parsed replies of a batch first and appended zeros for the others, so that within a batch its
    columns hold the parsed replies in order, then the failures. The other columns are in the order of the prompts.

    Args:
        metrics: One row per prompt, as released.
        failed: Whether the reply to each prompt could not be parsed.
        batch: Prompts per batch.
    """
    columns = [str(name) for name in metrics if str(name).startswith("UniEval")]
    made = metrics.copy()
    for start in range(0, len(metrics), batch):
        places = np.arange(start, min(start + batch, len(metrics)))
        order = places[np.argsort(failed[places], kind="stable")]
        made.loc[order, columns] = metrics.loc[places, columns].to_numpy()
    return made


def persobench_realignment(files: Mapping[str, tuple[Path, Path]]) -> pd.DataFrame:
    """Show which batch size puts the zeros of UniEval on the failed replies.

    UniEval's engagingness is a sum over the sentences of a reply, so it must grow with the words of *its* reply:
    the rank correlation is the second check, independent of the zeros.

    Args:
        files: Model -> (metrics, replies), both in the order of the prompts.

    Returns:
        One row per model and assumed batch (0 is as released): ``failed``, ``zeros_on_failures`` (rows), and
        ``engagingness_words``, Spearman over the parsed replies.
    """
    rows = []
    for model, (metrics, replies) in files.items():
        released, text = pd.read_csv(metrics), pd.read_csv(replies)["gen_response"]
        failed, words = text.isna().to_numpy(), text.fillna("").map(lambda reply: len(reply.split()))
        for batch in (0, 50, 100, BATCH, 250, 500, 1000):
            frame = realigned(released, failed, batch) if batch else released
            zeros = (frame["UniEval Coherence"] == 0).to_numpy()
            rank = stats.spearmanr(frame.loc[~failed, "UniEval Engagingness"], words[~failed]).statistic
            rows.append((model, batch, int(failed.sum()), int((zeros & failed).sum()), float(rank)))
    columns = ["model", "batch", "failed", "zeros_on_failures", "engagingness_words"]
    return pd.DataFrame(rows, columns=columns)


def persobench_pairs(files: Mapping[str, tuple[Path, Path]]) -> pd.DataFrame:
    """Return the sums behind the paired tests of two models.

    Args:
        files: Two models -> (metrics, replies); the difference is the first less the second.

    Returns:
        One row per metric and ``rows``: ``released`` (as filed), ``realigned`` (failures have the worst value) and
        ``valid`` (realigned, prompts that both models answer): ``n, first, second, difference, sd``.
    """
    released = {model: pd.read_csv(metrics) for model, (metrics, _) in files.items()}
    failed = {
        model: pd.read_csv(replies)["gen_response"].isna().to_numpy() for model, (_, replies) in files.items()
    }
    aligned = {model: realigned(frame, failed[model]) for model, frame in released.items()}
    every = np.ones(len(next(iter(failed.values()))), dtype=bool)
    both = ~np.logical_or.reduce(list(failed.values()))
    rows = []
    for metric in [str(name) for name in next(iter(released.values())) if name != "response_time"]:
        for kind, frames, used in (
            ("released", released, every),
            ("realigned", aligned, every),
            ("valid", aligned, both),
        ):
            first, second = (frame.loc[used, metric] for frame in frames.values())
            apart = first - second
            rows.append(
                (metric, kind, int(used.sum()), first.mean(), second.mean(), apart.mean(), apart.std(ddof=1))
            )
    return pd.DataFrame(rows, columns=["metric", "rows", "n", "first", "second", "difference", "sd"])


def persobench_report(report: Path) -> pd.DataFrame:
    """Return the paired t statistics of the authors' report: ``metric, t`` (three decimals)."""
    found = re.findall(r"Metric: (.+?)\n\s+Paired t-test:\s+t = (-?[\d.]+)", report.read_text("utf-8"))
    return pd.DataFrame([(metric, round(float(t), 4)) for metric, t in found], columns=["metric", "t"])


# --- PersonaGym, Open Character Training, CharacterChat -------------------------------------------------------


def personagym_scores(files: Mapping[str, Path]) -> pd.DataFrame:
    """Return ``model, task, score`` of every released score file; ``PersonaScore`` is the printed total."""
    rows = [
        (model, task, score)
        for model, path in files.items()
        for task, score in json.loads(path.read_text("utf-8")).items()
    ]
    return pd.DataFrame(rows, columns=["model", "task", "score"])


def open_character_training_lighteval(results: Path) -> pd.DataFrame:
    """Return ``model, task, mean, se`` of every evaluation, as released."""
    return pd.DataFrame([json.loads(line) for line in results.read_text("utf-8").splitlines()])


def characterchat_ratings(ratings: Path) -> pd.DataFrame:
    """Return the judge's ratings: ``dialogue, mood, solved, active``, 1 to 5.

    Who talked to whom stands in another file (``data/dial_output.json``, 3.7 MB), which is not pinned here.
    """
    rows = [json.loads(line) for line in ratings.read_text("utf-8").splitlines()]
    return pd.DataFrame(
        [(row["index"], *list(row["rating"].values())[:3]) for row in rows],
        columns=["dialogue", "mood", "solved", "active"],
    )


# --- Retrieval by words ---------------------------------------------------------------------------------------


def _similarity(queries: list[str], documents: list[str], *, fitted: list[str]) -> np.ndarray:
    """Return TF-IDF cosines, queries x documents: English stop words, logarithmic term frequency."""
    vectors = TfidfVectorizer(stop_words="english", sublinear_tf=True).fit(fitted)
    return np.asarray((vectors.transform(queries) @ vectors.transform(documents).T).toarray())


def best_recall(gold: list[list[str]], found: set[str]) -> float:
    """Return the share of gold segments that were found, for the combination of segments that is found best.

    Args:
        gold: For each part of the answer, the segments that hold it.
        found: Retrieved segments.

    >>> best_recall([["a"], ["b", "c"]], {"c"})
    0.5
    """
    return max(len(set(chosen) & found) / len(set(chosen)) for chosen in product(*gold))


def personabench_tfidf(
    communities: Mapping[str, tuple[Path, Path, list[Path]]], noise: float, k: int = 5
) -> pd.DataFrame:
    """Return recall at k of a TF-IDF retriever, summed per person.

    A person's documents are the sessions, as JSON without their identifiers; the vocabulary is theirs.

    Args:
        communities: Name -> (questions, gold segments, documents).
        noise: Share of noise in the documents, as their file names say.
        k: Segments retrieved.

    Returns:
        ``noise, person`` (a number), ``questions`` (subjective ones left out), ``recall_sum``, and
        ``integer_answers``: the release's scorer compares these with the words of the question before.
    """
    rows: list[tuple[float, int, int, float, int]] = []
    for questions, gold, documents in communities.values():
        segments = {
            entry["q_id"]: list(entry["segment_id"].values()) for entry in json.loads(gold.read_text("utf-8"))
        }
        sessions: dict[str, list[dict[str, object]]] = {}
        for path in documents:
            for person in json.loads(path.read_text("utf-8")):
                for part in person["Data"]:
                    sessions.setdefault(person["Name"], []).extend(part.get("Conversations", [part]))
        for person in json.loads(questions.read_text("utf-8")):
            if person["Name"] not in sessions:
                continue
            own = sessions[person["Name"]]
            texts = [
                json.dumps({k: v for k, v in one.items() if k not in ("segment_id", "session")}) for one in own
            ]
            asked = [entry for entry in person["Eval_Info"]["qa"] if entry["type"] != "Subjective"]
            near = np.argsort(
                -_similarity([e["question"] for e in asked], texts, fitted=texts), axis=1, kind="stable"
            )
            total = sum(
                best_recall(segments[entry["q_id"]], {str(own[place]["segment_id"]) for place in places})
                for entry, places in zip(asked, near[:, :k], strict=True)
            )
            integers = sum(isinstance(entry["answer"], int) for entry in asked)
            rows.append((noise, len(rows), len(asked), float(total), integers))
    return pd.DataFrame(rows, columns=["noise", "person", "questions", "recall_sum", "integer_answers"])


def synthetic_persona_chat_ranks(conversations: Path) -> pd.DataFrame:
    """Return the rank of a speaker's own persona when his turns are the query, among all distinct personas.

    Speakers without turns are left out. Rank is 1 plus the personas that are strictly more similar.

    Returns:
        ``conversation, speaker`` (1 or 2), ``rank``.
    """
    speakers = []
    for place, row in enumerate(pd.read_csv(conversations).itertuples(index=False)):
        turns: dict[int, list[str]] = {1: [], 2: []}
        for line in str(row[2]).splitlines():
            if said := re.match(r"[\s*]*User ([12])\s*[*\s]*:\s*(.*)", line):
                turns[int(said[1])].append(said[2])
        speakers += [(place, who, row[who - 1], " ".join(turns[who])) for who in (1, 2) if turns[who]]
    frame = pd.DataFrame(speakers, columns=["conversation", "speaker", "persona", "text"])
    personas = sorted(set(frame["persona"]))
    queries = frame["text"].tolist()
    near = _similarity(queries, personas, fitted=personas + queries)
    own = near[np.arange(len(near)), pd.Index(personas).get_indexer(frame["persona"])]
    # Sums in another order differ in the last digits: such ties do not count as more similar.
    return frame[["conversation", "speaker"]].assign(rank=1 + (near > own[:, None] + 1e-12).sum(axis=1))


# --- Tables of README files, and answers of a repository that is too large to pin -----------------------------


def markdown_tables(readme: str) -> list[pd.DataFrame]:
    """Return the Markdown tables of a text; bold marks and symbols before a name are dropped.

    >>> markdown_tables("| Model | GSM8k |\\n|---|---|\\n| :rocket: **A-7B** | **1.5** |")[0].to_dict("records")
    [{'Model': 'A-7B', 'GSM8k': '1.5'}]
    """
    made = []
    for block in re.findall(r"(?:^\|.*\n?)+", readme, flags=re.MULTILINE):
        lines = [
            [re.sub(r":\w+:|\*", "", cell).strip() for cell in line.strip("|\n ").split("|")]
            for line in block.splitlines()
        ]
        made.append(
            pd.DataFrame([line for line in lines[2:] if len(line) == len(lines[0]) and all(line)], columns=lines[0])
        )
    return made


def personamath_table(readme: Path) -> pd.DataFrame:
    """Return ``model, gsm8k_pass1, math_pass1`` in per cent, from the README's table."""
    table = markdown_tables(readme.read_text("utf-8"))[0]
    table.columns = pd.Index(["model", "gsm8k_pass1", "math_pass1"])
    return table.astype({"gsm8k_pass1": float, "math_pass1": float})


def perma_tables(readme: Path) -> pd.DataFrame:
    """Return ``kind, system, condition, metric, value`` from the README's tables of results."""
    standalone, *memory = markdown_tables(readme.read_text("utf-8"))
    rows = []
    for row in standalone.to_dict("records"):
        name, *values = row.values()
        for condition, value in zip(
            ("clean single", "noise single", "clean multi", "noise multi"), values, strict=True
        ):
            rows.append(("standalone", name, condition, "MCQ accuracy", float(value)))
    for condition, table in zip(("clean single", "noise single", "clean multi"), memory, strict=True):
        for row in table.to_dict("records"):
            rows += [
                ("memory system", row["Baseline"], condition, str(metric), float(value))
                for metric, value in list(row.items())[1:]
            ]
    return pd.DataFrame(rows, columns=["kind", "system", "condition", "metric", "value"])


def apc_table(readme: Path) -> pd.DataFrame:
    """Return ``character, method, dAPC_DeBERTa, dAPC_GPT4, human`` from the README's HTML table of performance."""
    rows = []
    page = BeautifulSoup(readme.read_text("utf-8"), "html.parser")
    for tuned, start in ((False, 0), (True, 4)):
        for line in page.select("tbody tr")[start : start + 4]:
            method, *cells = [cell.get_text() for cell in line.find_all("td") if not cell.has_attr("rowspan")]
            values = [float(cell.partition(" ")[0]) for cell in cells]
            name = f"{method}+DPO" if tuned else method
            rows += [(who, name, *values[3 * n : 3 * n + 3]) for n, who in enumerate(("Alice", "Bob", "Eve"))]
    columns = ["character", "method", "dAPC_DeBERTa", "dAPC_GPT4", "human"]
    return pd.DataFrame(rows, columns=columns).sort_values("character", kind="stable", ignore_index=True)


def personamem_32k_gpt4o(questions: Path, blind: Path, retrieval: Path) -> pd.DataFrame:
    """Return one row per question with the right letter and GPT-4o's, without history and with retrieval.

    Raises:
        SourceError: the files do not hold the same questions with the same right letters.
    """
    asked = pd.read_csv(questions)[["persona_id", "question_id", "question_type", "topic"]]
    for name, path in (("gpt4o_none", blind), ("gpt4o_rag", retrieval)):
        answers = pd.read_csv(path, usecols=["question_id", "answer", "p"]).rename(columns={"p": name})
        asked = asked.merge(answers, on="question_id", validate="1:1", suffixes=("", "_other"))
    if len(asked) != len(pd.read_csv(questions)) or (asked["answer"] != asked["answer_other"]).any():
        raise SourceError(
            "The files of PersonaMem answers do not hold the same questions; take the pinned commits."
        )
    made = asked.rename(columns={"answer": "gold"}).drop(columns="answer_other")
    return made.rename_axis("row").reset_index()


# --- What is rebuilt from what --------------------------------------------------------------------------------

PAIR = ("Llama3-1-8B-Instruct", "gpt-4o-mini")
DATASETS = {"Blended Skill Talk": "blended-skill-talk", "FoCus": "focus", "IT-ConvAI2": "it-convai2"}
GYM = ("claude_3.5_sonnet", "claude_3_haiku", "gpt_35", "llama_2_13b", "llama_2_70b", "llama_3_8b")
DOCUMENTS = ("conversation", "user-ai-interaction", "purchase-history")


def _pair(path: Find) -> dict[str, tuple[Path, Path]]:
    return {
        model: (path(f"persobench-metrics-{model.lower()}"), path(f"persobench-replies-{model.lower()}-cot"))
        for model in PAIR
    }


def _tfidf(path: Find) -> pd.DataFrame:
    return pd.concat(
        [
            personabench_tfidf(
                {
                    name: (
                        path(f"personabench-{name}-questions"),
                        path(f"personabench-{name}-gold-{noise}"),
                        [path(f"personabench-{name}-{kind}-{noise}") for kind in DOCUMENTS],
                    )
                    for name in ("0", "1")
                },
                float(noise),
            )
            for noise in ("0.0", "0.5")
        ],
        ignore_index=True,
    )


FACTS = {
    "persobench_tables": Fact(
        lambda _, path: persobench_tables(
            {
                (dataset, setting): path(f"persobench-table-{short}-{setting.lower()}")
                for dataset, short in DATASETS.items()
                for setting in ("COT", "vanilla")
            }
        ),
    ),
    "persobench_failures": Fact(
        lambda _, path: persobench_failures(
            {
                ("FoCus", "Llama3-1-8B-Instruct", "COT"): path("persobench-replies-llama3-1-8b-instruct-cot"),
                ("FoCus", "Qwen2-7B-Instruct", "vanilla"): path("persobench-replies-qwen2-7b-instruct-vanilla"),
                ("FoCus", "gpt-4o-mini", "COT"): path("persobench-replies-gpt-4o-mini-cot"),
            }
        ),
        key=("dataset", "model", "setting"),
    ),
    "persobench_report": Fact(lambda _, path: persobench_report(path("persobench-report"))),
    "persobench_realignment": Fact(lambda _, path: persobench_realignment(_pair(path))),
    "persobench_pairs": Fact(lambda _, path: persobench_pairs(_pair(path))),
    "personagym_scores": Fact(
        lambda _, path: personagym_scores({model: path(f"personagym-{model.replace('_', '-')}") for model in GYM}),
    ),
    "open_character_training_lighteval": Fact(
        lambda _, path: open_character_training_lighteval(path("open-character-training-lighteval")),
    ),
    "characterchat_ratings": Fact(
        lambda _, path: characterchat_ratings(path("characterchat-ratings")), key=("dialogue",)
    ),
    "personabench_tfidf": Fact(lambda _, path: _tfidf(path)),
    "synthetic_persona_chat_ranks": Fact(
        lambda _, path: synthetic_persona_chat_ranks(path("synthetic-persona-chat-test"))
    ),
}
"""Tables that are rederived from files which ``data/sources.toml`` pins by hash."""


def names(project: Project) -> list[str]:
    """Return the names of the committed tables of facts."""
    return sorted(path.stem for path in (project.published / STUDY).glob("*.csv"))


def committed(project: Project, name: str) -> pd.DataFrame:
    """Return a committed table of facts."""
    return facts.committed(project, STUDY, name)


def compare(project: Project, name: str) -> dict[str, object]:
    """Rederive a table and compare it with the committed one (:func:`persona_studies.design.facts.compare`)."""
    return facts.compare(project, STUDY, name, FACTS[name], tolerance=1e-12)


if __name__ == "__main__":
    facts.rebuild(Project.find(), STUDY, FACTS)
