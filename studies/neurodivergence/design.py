"""Data of the study of neurodivergence context: the benchmark's raw rows, scores and published tables.

Everything is read from the pinned source; texts are measured here and never shown or kept.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import pandas as pd
from pydantic import Field

from persona_studies.analyse.stats.multiplicity import Correction
from persona_studies.design import parameters, sources
from persona_studies.design.plan import text_hash
from persona_studies.paths import Project

Model = Literal["gpt-5-chat-latest", "claude-sonnet-4-6"]
Metric = Literal[
    "token_count",
    "list_density",
    "heading_count",
    "mean_sentence_words",
    "mean_step_words",
    "whitespace_ratio",
    "flesch_reading_ease",
    "ai_disclaimer_count",
    "softener_count",
    "emoji_count",
    "vader_compound",
    "masking_reinforcement",
    "infantilization",
    "stereotyping",
    "refusal",
    "pathologization",
    "validation_quality",
]
JUDGED = (
    *("masking_reinforcement", "infantilization", "stereotyping"),
    *("refusal", "pathologization", "validation_quality"),
)
CONDITIONS = ("C0", "C1", "C2")
CELL = ["model", "condition_id", "profile_id", "query_id"]

MARKER = re.compile(r"\s*(?:[-*•]|\d+[.)])\s")
NUMBER = re.compile(r"\s*\d+[.)]\s+")
HEADINGS = (
    re.compile(r" {0,3}#{1,6}\s+\S"),  # Markdown
    re.compile(r"\s*\*\*[^*]+\*\*\s*:?\s*$"),  # a line in bold
    re.compile(r"\s*[A-Z][A-Z -]{2,}\s*:\s*$"),  # capitals and a colon
)


PAIRS = {f"{late} - {early}": (late, early) for early, late in (("C0", "C1"), ("C0", "C2"), ("C1", "C2"))}
PLANNED = ("C1 - C0", "C2 - C0")
BINARY = "refusal"


class Parameters(parameters.Parameters):
    """Parameters of the notebook; the defaults are in its first code cell."""

    models: tuple[Model, ...] = Field(min_length=1, description="audited models")
    judges: tuple[Model, ...] = Field(min_length=1, description="models whose scores count; their mean is taken")
    metrics: tuple[Metric, ...] = Field(min_length=1, description="metrics of a response")
    unit: Literal["query", "response"] = Field(
        description="unit of the corrected tests: the query, or a query with a model and a profile"
    )
    layer: Literal["both", "published", "corrected"] = Field(description="which analysis gives verdicts")
    margin: float = Field(gt=0, lt=1, description="equivalence margin, in standard deviations under C0")
    alpha: float = Field(gt=0, lt=0.5, description="error rate of every family")
    correction: Correction = Field(description="correction within a family")
    confidence: float = Field(gt=0.5, lt=1, description="coverage of every interval")
    replicates: int = Field(ge=1000, le=1_000_000, description="sign patterns and bootstrap samples")
    seed: int = Field(ge=0, description="of everything random")


@dataclass(frozen=True)
class Published:
    """The paper's own tables: contrasts pooled and per model, alphas, means."""

    contrasts: pd.DataFrame
    alphas: pd.DataFrame
    summary: pd.DataFrame


def published(project: Project) -> Published:
    """Return the published tables; contrasts carry ``scope, metric, contrast, estimate, se, z, p, p_holm``."""
    both = [
        pd.read_csv(sources.fetch(project, f"ndbench-contrasts{suffix}"), float_precision="round_trip")
        for suffix in ("", "-by-model")
    ]
    contrasts = pd.concat(both, ignore_index=True)
    contrasts["contrast"] = contrasts["contrast"].str.replace("−", "-")
    return Published(
        contrasts,
        pd.read_csv(sources.fetch(project, "ndbench-alphas"), float_precision="round_trip"),
        pd.read_csv(sources.fetch(project, "ndbench-summary")),
    )


def lines(project: Project, id: str) -> list[dict[str, Any]]:
    """Return the rows of a source in JSON lines."""
    text = sources.fetch(project, id).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def answers(project: Project) -> tuple[pd.DataFrame, int]:
    """Return what is measured here of every answer's text, and the number of failed calls that were dropped.

    Columns: the cell, ``text`` (a hash, for comparing answers), and those of :func:`structure`.
    """
    rows = lines(project, "ndbench-responses")
    good = [row for row in rows if row.get("response") and not row.get("error")]
    measured = [
        {**{name: row[name] for name in CELL}, "text": text_hash(row["response"]), **structure(row["response"])}
        for row in good
    ]
    return pd.DataFrame(measured), len(rows) - len(good)


def structure(text: str) -> dict[str, float]:
    """Measure the structure of a text by the benchmark's definitions, and the length of steps by one of ours.

    A step runs from a line that begins with a number to the next such line, or to the *end of the text*: what
    follows a list counts as its last step. ``own_line_words`` counts the words on the numbered lines alone.

    Returns:
        ``heading_count, list_density, whitespace_ratio, step_count, mean_step_words, own_line_words``; the last
        two are 0 without steps, as in the benchmark.

    >>> structure("# Plan\\n1. Open the door\\n2. Leave\\n\\nThat is all.")["mean_step_words"]
    3.5
    """
    every = text.split("\n")
    numbered = [place for place, line in enumerate(every) if NUMBER.match(line + "\n")]
    steps = [
        len(NUMBER.sub("", "\n".join(every[start:end]), count=1).split())
        for start, end in pairwise([*numbered, len(every)])
    ]
    own = [len(NUMBER.sub("", every[place], count=1).split()) for place in numbered]
    return {
        "heading_count": sum(any(form.match(line) for form in HEADINGS) for line in every),
        "list_density": sum(bool(MARKER.match(line + "\n")) for line in every) / len(every),
        "whitespace_ratio": sum(not line.strip() for line in every) / len(every),
        "step_count": len(steps),
        "mean_step_words": sum(steps) / len(steps) if steps else 0.0,
        "own_line_words": sum(own) / len(own) if own else 0.0,
    }


def judgments(project: Project) -> tuple[pd.DataFrame, int]:
    """Return every usable score, and the number of rows without one.

    Columns: the cell, ``judge``, ``query_domain`` and the six judged metrics.
    """
    rows = lines(project, "ndbench-judgments")
    good = [row for row in rows if row.get("scores") and not row.get("error")]
    scores = [
        {
            **dict(zip(CELL, row["response_key"].split("|"), strict=True)),
            "judge": row["judge_model"],
            "query_domain": row["query_domain"],
            **row["scores"],
        }
        for row in good
    ]
    return pd.DataFrame(scores), len(rows) - len(good)


def responses(project: Project, measured: pd.DataFrame, scored: pd.DataFrame, own: Parameters) -> pd.DataFrame:
    """Return one row per response of this run's models: cell, ``query_domain``, metrics, our measures.

    Structural and surface metrics are the benchmark's stored columns; judged ones the mean of this run's judges.
    """
    stored = pd.read_csv(sources.fetch(project, "ndbench-metrics"), float_precision="round_trip")
    judged = scored[scored["judge"].isin(own.judges)].groupby(CELL)[list(JUDGED)].mean().reset_index()
    ours = measured[[*CELL, "text", "step_count", "own_line_words"]]
    whole = stored.merge(judged, on=CELL, validate="1:1").merge(ours, on=CELL, validate="1:1")
    return whole[whole["model"].isin(own.models)].reset_index(drop=True)
