"""The grid of the study of clinical personas: who triages and answers, and what; its sizes are the protocol's."""

from __future__ import annotations

from typing import Literal

import pandas as pd
from pydantic import Field

from persona_studies.analyse.families import Settings
from persona_studies.design import multiple_choice, parameters
from persona_studies.design import plan as plans
from persona_studies.design.conditions import shuffled
from persona_studies.design.plan import text_hash
from persona_studies.design.protocol import Protocol
from persona_studies.paths import Project

FACTS = ["item", "dataset", "gold", "n_options", "cluster", "item_hash", "care"]


class Parameters(parameters.Parameters):
    """Parameters of the notebook; the defaults are in its first code cell."""

    models: tuple[str, ...] = Field(
        description="models whose responses are analysed, as named in data/responses, the first in full; where "
        "none is named, all that are recorded, those of the protocol first"
    )
    live_hours: float = Field(
        ge=0, description="hours that may be spent asking the first model here; 0 only replays"
    )
    cases: tuple[Literal["triage", "esi"], ...] = Field(
        min_length=1, description="cases: triage (vignettes) and esi (emergency department)"
    )
    cost_ratio: float = Field(
        gt=0, le=1000, description="cost of one level too little urgency against one level too much"
    )
    bins: tuple[int, ...] = Field(min_length=1, description="numbers of bins of the expected calibration error")
    alpha: float = Field(gt=0, lt=0.5, description="error rate of every family")
    correction: Literal["holm", "bonferroni", "fdr_bh", "none"] = Field(description="correction within a family")
    confidence: float = Field(gt=0.5, lt=1, description="coverage of every interval")
    replicates: int = Field(ge=1000, le=1_000_000, description="sign patterns and permutations")
    seed: int = Field(ge=0, description="of everything random")

    @property
    def settings(self) -> Settings:
        """How contrasts are tested."""
        return Settings(self.alpha, self.confidence, self.correction, self.replicates, self.seed)


def questions(
    project: Project, protocol: Protocol, cases: tuple[str, ...] = ("triage", "esi"), *, texts: bool = False
) -> pd.DataFrame:
    """Return the cases and the medical questions of the run.

    Args:
        cases: Sets of cases that are wanted.
        texts: Whether texts are wanted.

    Returns:
        ``item, dataset`` (triage, esi, medical), ``gold`` (place of the right option; 0 the most urgent),
        ``n_options, cluster, item_hash, care`` (critical or primary; empty for medical questions); with texts also
        ``question, options``.
    """
    vignettes = multiple_choice.questions(project, "triage", domains=("plain",), texts=texts)
    assert protocol.confirmatory is not None
    n_notes, seed = protocol.confirmatory.sizes["emergency_cases"], protocol.design["sample_seed"]
    notes = multiple_choice.questions(project, "esi", domains=("nb_ambiguous",), texts=texts)
    notes = multiple_choice.sample(notes, n_notes, seed)
    parts = [vignettes.assign(dataset="triage"), notes.assign(dataset="esi")]
    for name, n in protocol.design["medical_questions"].items():
        of_mmlu = name in multiple_choice.MMLU
        whole = multiple_choice.questions(
            project, "mmlu" if of_mmlu else name, domains=(name,) if of_mmlu else None, texts=texts
        )
        chosen = multiple_choice.sample(whole, n, seed)
        parts.append(chosen.assign(dataset="medical"))
    asked = pd.concat(parts, ignore_index=True)
    critical = protocol.design["critical"]
    asked["care"] = [
        "" if dataset not in critical else "critical" if gold in critical[dataset] else "primary"
        for dataset, gold in zip(asked["dataset"], asked["gold"], strict=True)
    ]
    asked = asked[asked["dataset"].isin([*cases, "medical"])].reset_index(drop=True)
    return asked[FACTS + (["question", "options"] if texts else [])]


def people(protocol: Protocol) -> pd.DataFrame:
    """Return the conditions of the run, the one without a system turn first.

    Returns:
        ``condition, who`` (role and style, or a control's name), ``role, style, wording`` (0: no system turn),
        ``system, description, condition_hash, words``.
    """
    design = protocol.design
    rows: list[tuple[str, str, int, str | None]] = []
    for role, noun in design["roles"].items():
        if role == "none":
            rows.append((role, "neutral", 0, None))
            continue
        for style in design["styles"]:
            several = style == "neutral" and role in design["second_wording"]
            for wording, sentence in enumerate(design["wordings"][: 2 if several else 1], start=1):
                persona = a(noun if style == "neutral" else f"{style} {noun}")
                rows.append((role, style, wording, sentence.replace("{persona}", persona)))
    first = design["wordings"][0]
    rows += [(name, "neutral", 1, first.replace("{persona}", a(noun))) for name, noun in design["controls"].items()]
    rows.append(("filler", "neutral", 1, design["filler"]))
    rows.append(("shuffled", "neutral", 1, shuffled(first.replace("{persona}", a(design["roles"]["physician"])))))
    rows += [(name, "neutral", 1, protocol.conditions[name].text) for name in ("wrong", "least-urgent")]
    frame = pd.DataFrame(rows, columns=["role", "style", "wording", "system"])
    frame["who"] = frame["role"] + ("-" + frame["style"]).where(frame["style"] != "neutral", "")
    number = ("-" + frame["wording"].astype(str)).where(frame["wording"] > 0, "")
    frame.insert(0, "condition", frame["who"] + number)
    frame["system"] = frame["system"].astype(object).where(frame["system"].notna(), None)
    frame["description"] = ""
    frame["condition_hash"] = [text_hash(system, "") for system in frame["system"]]
    frame["words"] = frame["system"].fillna("").str.split().map(len)
    return frame


def a(noun: str) -> str:
    """Return a noun with its article.

    >>> a("emergency department nurse"), a("bold assistant")
    ('an emergency department nurse', 'a bold assistant')
    """
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plan(project: Project, protocol: Protocol, parameters: Parameters, *, texts: bool = False) -> pd.DataFrame:
    """Return every cell of the run.

    Everybody answers every case in all cyclic orders. Those whom the protocol names answer the medical questions
    too, or reply to the vignettes in words.

    Args:
        parameters: Name the cases that are asked.
        texts: Whether texts are wanted, which recording needs and analysis does not.
    """
    asked, everyone = questions(project, protocol, parameters.cases, texts=texts), people(protocol)
    first = everyone["wording"] <= 1
    parts: list[pd.DataFrame] = []

    def ask(measure: str, dataset: str, conditions: pd.DataFrame) -> None:
        declared = protocol.measures[measure]
        templates = declared.frame()
        mine = asked[asked["dataset"] == dataset]
        for n in sorted(set(mine["n_options"])):
            parts.append(
                plans.measure(
                    measure,
                    declared.kind,
                    conditions=conditions[["condition", "condition_hash", "system", "description"]],
                    items=multiple_choice.items(mine[mine["n_options"] == n]),
                    templates=multiple_choice.lettered(templates[templates["template"] == dataset], n),
                    labels=tuple(multiple_choice.LETTERS[:n]) if declared.kind == "letter" else (),
                    orders=n if declared.kind == "letter" else 1,
                    max_tokens=declared.max_tokens,
                )
            )

    for dataset in parameters.cases:
        ask("letter", dataset, everyone)
    ask("medical", "medical", everyone[first & everyone["who"].isin(protocol.design["medical"])])
    ask("text", "triage", everyone[first & everyone["who"].isin(protocol.design["text"])])
    return plans.combine(parts)
