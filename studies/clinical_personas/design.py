"""The grid of the study of clinical personas: who triages, answers and advises, and how."""

from __future__ import annotations

from typing import Literal

import pandas as pd
from pydantic import Field

from clinical_personas import design_2
from persona_studies.design import banks, multiple_choice, parameters
from persona_studies.design import plan as plans
from persona_studies.design.conditions import shuffled
from persona_studies.design.plan import text_hash
from persona_studies.design.protocol import Protocol
from persona_studies.paths import Project

Dataset = Literal["triage", "esi", "medical", "safety"]
Role = Literal["none", "assistant", "physician", "nurse"]
Style = Literal["neutral", "cautious", "bold"]


class Prompt(banks.Row):
    """A patient's question, and a safe and a risky reply."""

    unique = (("prompt",), ("text",))

    prompt: banks.Name
    policy: Literal[
        "harmful advice",
        "overconfident diagnosis",
        "practising without a licence",
        "health misinformation",
        "bias and stigma",
    ]
    text: str
    safe: str
    risky: str
    rubric: str


class Parameters(parameters.Parameters):
    """Parameters of the notebook; the defaults are in its first code cell."""

    model: str = Field(description="model whose responses are analysed, as named in data/responses")
    live_hours: float = Field(ge=0, description="hours that may be spent asking the model here; 0 only replays")
    roles: tuple[Role, ...] = Field(min_length=1, description="roles; the assistant is the reference")
    styles: tuple[Style, ...] = Field(min_length=1, description="interaction styles; neutral is the reference")
    datasets: tuple[Dataset, ...] = Field(min_length=1, description="what is asked")
    measure: Literal["primary", "cloze", "pmi", "letter", "text"] = Field(
        description="measure of the chosen option"
    )
    permutations: int = Field(ge=0, le=5, description="cyclic option orders of the letters; 0 means all")
    cost_ratio: float = Field(
        gt=0, le=1000, description="cost of one level too little urgency against one level too much"
    )
    bins: tuple[int, ...] = Field(min_length=1, description="numbers of bins of the expected calibration error")
    layer: Literal["both", "published", "corrected"] = Field(description="which analysis is shown")
    margin: float = Field(gt=0, lt=0.5, description="equivalence margin for a difference in accuracy")
    alpha: float = Field(gt=0, lt=0.5, description="error rate of every family")
    correction: Literal["holm", "bonferroni", "fdr_bh", "none"] = Field(description="correction within a family")
    confidence: float = Field(gt=0.5, lt=1, description="coverage of every interval")
    replicates: int = Field(ge=1000, le=1_000_000, description="sign patterns and bootstrap samples")
    seed: int = Field(ge=0, description="of everything random")


def questions(project: Project, protocol: Protocol, parameters: Parameters, *, texts: bool = False) -> pd.DataFrame:
    """Return everything that is asked.

    Returns:
        ``item, dataset, gold`` (place of the right option; for triage the true urgency, 0 the most urgent),
        ``n_options, cluster`` (the case), ``item_hash, variant`` (empty in the main analysis), ``care`` (critical
        or primary; empty where neither), ``policy`` (of safety prompts); with texts also ``question, options``.
    """
    parts = []
    if "triage" in parameters.datasets:
        found = multiple_choice.questions(project, "triage", texts=texts)
        found["variant"] = (found["gender"].fillna("") + " " + found["ethnicity"].fillna("")).str.strip()
        parts.append(found.assign(dataset="triage"))
    if "esi" in parameters.datasets:
        found = multiple_choice.questions(project, "esi", texts=texts)
        # A note without any mark of sex is the main analysis's.
        names = {"nb_ambiguous": "", "nb_label_only": "non-binary"}
        parts.append(found.assign(dataset="esi", variant=found["label"].replace(names)))
    if "medical" in parameters.datasets:
        for name, n in protocol.design["medical_questions"].items():
            of_mmlu = name in multiple_choice.MMLU
            whole = multiple_choice.questions(
                project, "mmlu" if of_mmlu else name, domains=(name,) if of_mmlu else None, texts=texts
            )
            chosen = multiple_choice.sample(whole, n, protocol.design["sample_seed"])
            parts.append(chosen.assign(dataset="medical", variant=""))
    if "safety" in parameters.datasets:
        parts.append(safety(project, texts=texts).assign(dataset="safety", variant=""))
    asked = pd.concat(parts, ignore_index=True)
    critical = protocol.design["critical"]
    asked["care"] = [
        "" if dataset not in critical else "critical" if gold in critical[dataset] else "primary"
        for dataset, gold in zip(asked["dataset"], asked["gold"], strict=True)
    ]
    asked["policy"] = asked["policy"].fillna("") if "policy" in asked else ""
    facts = ["item", "dataset", "gold", "n_options", "cluster", "item_hash", "variant", "care", "policy"]
    return asked[facts + (["question", "options"] if texts else [])]


def safety(project: Project, *, texts: bool = True) -> pd.DataFrame:
    """Return the prompts about patients' safety; the first of two replies is the safe one (``gold`` is 0)."""
    bank = banks.read(project.items / "clinical_personas" / "safety_prompts.csv", Prompt)
    options = list(zip(bank["safe"], bank["risky"], strict=True))
    frame = pd.DataFrame(
        {
            "item": "safety/" + bank["prompt"],
            "gold": 0,
            "n_options": 2,
            "cluster": "safety/" + bank["prompt"],
            "item_hash": [text_hash(text, *pair) for text, pair in zip(bank["text"], options, strict=True)],
            "policy": bank["policy"],
        }
    )
    return frame.assign(question=bank["text"], options=pd.Series(options)) if texts else frame


def people(protocol: Protocol, parameters: Parameters) -> pd.DataFrame:
    """Return the conditions of a run, the one without a system turn first.

    Returns:
        ``condition, role`` (a role, or a control's name), ``style, wording`` (0: no system turn), ``kind`` (role or
        control), ``system, description, condition_hash, words``.
    """
    design = protocol.design
    rows: list[tuple[str, str, int, str, str | None]] = []
    for style in parameters.styles:
        for role in parameters.roles:
            noun = design["roles"][role]
            for wording, sentence in enumerate(design["wordings"], start=1):
                if role == "none" and style == "neutral":
                    if wording == 1:
                        rows.append(("none", "neutral", 0, "role", None))
                    continue
                if role == "none":
                    text = design["style_alone"][wording - 1].replace("{style}", style)
                else:
                    text = sentence.replace("{persona}", _a(noun if style == "neutral" else f"{style} {noun}"))
                rows.append((role, style, wording, "role", text))
    for wording, sentence in enumerate(design["wordings"], start=1):
        for name, noun in design["controls"].items():
            rows.append((name, "neutral", wording, "control", sentence.replace("{persona}", _a(noun))))
        physician = sentence.replace("{persona}", _a(design["roles"]["physician"]))
        rows.append(("shuffled", "neutral", wording, "control", shuffled(physician)))
        rows.append(("filler", "neutral", wording, "control", design["fillers"][wording - 1]))
    frame = pd.DataFrame(rows, columns=["role", "style", "wording", "kind", "system"])
    frame.insert(
        0,
        "condition",
        [
            "-".join([role] + ([style] if style != "neutral" else []) + ([str(wording)] if wording else []))
            for role, style, wording, _, _ in rows
        ],
    )
    frame["system"] = frame["system"].astype(object).where(frame["system"].notna(), None)
    frame["description"] = ""
    frame["condition_hash"] = [text_hash(system, "") for system in frame["system"]]
    frame["words"] = frame["system"].fillna("").str.split().map(len)
    return frame


def _a(noun: str) -> str:
    """Return a noun with its article.

    >>> _a("emergency department nurse"), _a("bold assistant")
    ('an emergency department nurse', 'a bold assistant')
    """
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plan(project: Project, protocol: Protocol, parameters: Parameters, *, texts: bool = False) -> pd.DataFrame:
    """Return every cell of the study.

    Cases and safety prompts meet every wording, medical questions and variants the first one; variants, letters and
    replies are asked under the conditions that the protocol names.

    Args:
        project: Where the item banks lie.
        protocol: The declared design.
        parameters: The extent of the grid; the second protocol fixes its own.
        texts: Whether texts are wanted, which recording needs and analysis does not.
    """
    if protocol.version == 2:
        return design_2.plan(project, protocol, texts=texts)
    asked = questions(project, protocol, parameters, texts=texts)
    everyone = people(protocol, parameters)
    design, measures = protocol.design, protocol.measures
    first = everyone["wording"] <= 1
    label = everyone["role"] + ("-" + everyone["style"]).where(everyone["style"] != "neutral", "")
    main = asked[asked["variant"] == ""]
    parts: list[pd.DataFrame] = []

    def ask(measure: str, template: str, conditions: pd.DataFrame, items: pd.DataFrame) -> None:
        declared = measures[measure]
        templates = declared.frame()
        for n in sorted(set(items["n_options"])):
            parts.append(
                plans.measure(
                    measure,
                    declared.kind,
                    conditions=conditions[["condition", "condition_hash", "system", "description"]],
                    items=multiple_choice.items(items[items["n_options"] == n]),
                    templates=multiple_choice.lettered(templates[templates["template"] == template], n),
                    labels=tuple(multiple_choice.LETTERS[:n]) if declared.kind == "letter" else (),
                    orders=1 if declared.kind != "letter" else min(parameters.permutations or n, n),
                    max_tokens=declared.max_tokens,
                )
            )

    for dataset in parameters.datasets:
        mine = main[main["dataset"] == dataset]
        ask("cloze", dataset, everyone[first] if dataset == "medical" else everyone, mine)
        ask("cloze", "neutral", everyone[everyone["wording"] == 0], mine)
        variants = asked[(asked["dataset"] == dataset) & (asked["variant"] != "")]
        ask("cloze", dataset, everyone[first & label.isin(design["variant_conditions"])], variants)
        if dataset != "safety":
            few = (
                mine
                if dataset != "medical"
                else mine.groupby("n_options", sort=False).head(design["letter_questions"])
            )
            ask("letter", dataset, everyone[first & label.isin(design["letter_conditions"])], few)
        if dataset == "triage":
            ask("text", dataset, everyone[first & label.isin(design["text_conditions"])], mine)
    return plans.combine(parts)
