"""The grid of the study of persona bias: its parameters, personas, questions and plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field

from persona_studies.analyse.families import Settings
from persona_studies.design import banks, multiple_choice, parameters
from persona_studies.design import plan as plans
from persona_studies.design.conditions import shuffled
from persona_studies.design.plan import text_hash
from persona_studies.design.protocol import Protocol
from persona_studies.errors import BankError
from persona_studies.paths import Project

BASELINES = ("human", "average-human", "placebo", "toddler")
# What stands for a person on an axis, where its text does not.
SPELLED = {
    "none": "no persona",
    "filler": "filler text",
    "shuffled": "shuffled words",
    "wrong": "told to answer wrongly",
}
SETS = {"openbookqa": "OpenBookQA", "commonsenseqa": "CommonsenseQA"}


class Persona(banks.Row):
    """A persona: what an instruction is filled with."""

    unique = (("persona",), ("text",))

    persona: banks.Name
    text: str
    role: Literal["persona", "baseline", "placebo", "positive control"]
    group: Literal["disability", "religion", "race", "politics", "gender", "baseline", "control"]
    built: Annotated[str, Field(alias="register")]
    sensitivity: str
    wording: Literal["published", "believed published", "ours"]


class Parameters(parameters.Parameters):
    """Parameters of the notebook; the defaults are in its first code cell."""

    models: tuple[str, ...] = Field(
        description="models whose responses are analysed, the first in full; empty means all that are recorded",
    )
    live_hours: float = Field(
        ge=0, description="hours that may be spent asking the first model here; 0 only replays"
    )
    questions_per_set: int = Field(ge=2, le=100, description="questions of each of the ten sets")
    replies_per_set: int = Field(
        ge=1, le=100, description="of these the first ones, which are answered in words too"
    )
    extractor: Literal["published", "strict", "lenient"] = Field(description="how replies are read")
    margin: float = Field(gt=0, lt=0.5, description="smallest effect of interest on accuracy")
    alpha: float = Field(gt=0, lt=0.5, description="error rate of every family")
    correction: Literal["holm", "bonferroni", "fdr_bh", "none"] = Field(description="correction within a family")
    confidence: float = Field(gt=0.5, lt=1, description="coverage of every interval")
    replicates: int = Field(ge=1000, le=1_000_000, description="sign patterns of every test")
    seed: int = Field(ge=0, description="of the sign patterns")

    @property
    def settings(self) -> Settings:
        """How hypotheses are tested."""
        return Settings(self.alpha, self.confidence, self.correction, self.replicates, self.seed)

    @property
    def sizes(self) -> dict[str, int]:
        """Sizes of the grid, named as in the protocol."""
        return {"questions_per_set": self.questions_per_set, "replies_per_set": self.replies_per_set}


def registry(project: Project) -> pd.DataFrame:
    """Return the personas: ``persona, text, role, group, register, sensitivity, wording``."""
    return banks.read(project.items / "persona_bias" / "personas.csv", Persona)


def names(project: Project, protocol: Protocol) -> dict[str, str]:
    """Return what personas and sets are called in figures: a persona by its text, without the article."""
    bank = registry(project)
    texts = bank["text"].str.replace(r"^an? ", "", regex=True)
    sets = {dataset: dataset.replace("_", " ") for dataset in protocol.design["datasets"]}
    return {**sets, **SETS, **dict(zip(bank["persona"], texts, strict=True)), **SPELLED}


def judged_by(protocol: Protocol, margin: float) -> Protocol:
    """Return a protocol with another smallest effect on accuracy, in its contrasts and in the claims about them."""
    return protocol.at_margin(margin, lambda _, contrast: contrast.measure == "letter")


def questions(
    project: Project, protocol: Protocol, sizes: Mapping[str, int] | None = None, *, texts: bool = False
) -> pd.DataFrame:
    """Return the questions of a run; fewer are a part of more.

    Args:
        sizes: ``questions_per_set, replies_per_set``; None is those of the confirmatory run.
        texts: Whether the questions' texts are wanted, which recording needs and analysis does not.

    Returns:
        ``item, dataset, gold, n_options, cluster, item_hash``; ``replied``: whether it is also asked for a reply in
        words; with texts also ``question, options``.
    """
    if sizes is None:
        assert protocol.confirmatory is not None
        sizes = protocol.confirmatory.sizes
    seed = protocol.design["sample_seed"]
    parts = []
    for dataset in protocol.design["datasets"]:
        of_mmlu = dataset in multiple_choice.MMLU
        whole = multiple_choice.questions(
            project, "mmlu" if of_mmlu else dataset, domains=(dataset,) if of_mmlu else None, texts=texts
        )
        part = multiple_choice.sample(whole, sizes["questions_per_set"], seed)
        few = multiple_choice.sample(whole, sizes["replies_per_set"], seed)
        parts.append(part.assign(dataset=dataset, replied=part["item"].isin(few["item"])))
    asked = pd.concat(parts, ignore_index=True)
    facts = ["item", "dataset", "gold", "n_options", "cluster", "item_hash", "replied"]
    return asked[facts + (["question", "options"] if texts else [])]


def people(project: Project, protocol: Protocol) -> pd.DataFrame:
    """Return the conditions, the one without a system turn first.

    Returns:
        ``condition, persona, group, instruction`` (0: none), ``system, description, condition_hash, words``.

    Raises:
        BankError: the bank lacks a persona that the protocol names.
    """
    design = protocol.design
    bank = registry(project).set_index("persona")
    if lacking := [name for name in [*design["personas"], *BASELINES] if name not in bank.index]:
        raise BankError(
            f"data/items/persona_bias/personas.csv has no {', '.join(lacking)}, which the protocol names; "
            "add a row."
        )
    rows: list[tuple[str, str, int, str | None]] = [("none", "", 0, None)]
    for instruction, sentence in enumerate(design["instructions"], start=1):
        for name in [*design["personas"], *BASELINES]:
            text = sentence.replace("{persona}", bank.loc[name, "text"])
            if instruction == 1 or name in design["second_instruction"]:
                rows.append((name, bank.loc[name, "group"], instruction, text))
            if instruction == 1 and name == design["shuffled_persona"]:
                rows.append(("shuffled", "control", 1, shuffled(text)))
    rows.append(("filler", "control", 1, design["filler"]))
    rows.append(("wrong", "control", 1, protocol.conditions["wrong"].text))
    frame = pd.DataFrame(rows, columns=["persona", "group", "instruction", "system"])
    number = ("-" + frame["instruction"].astype(str)).where(frame["instruction"] > 0, "")
    frame.insert(0, "condition", frame["persona"] + number)
    frame["system"] = frame["system"].astype(object).where(frame["system"].notna(), None)
    frame["description"] = ""
    frame["condition_hash"] = [text_hash(system, "") for system in frame["system"]]
    frame["words"] = frame["system"].fillna("").str.split().map(len)
    return frame


def plan(project: Project, protocol: Protocol, parameters: Parameters, *, texts: bool = False) -> pd.DataFrame:
    """Return every cell of the study.

    Everybody answers every question in all cyclic orders. Those whom the protocol names reply in words to the first
    questions of every set, each in a drawn order.

    Args:
        parameters: The extent of the grid: questions and replies per set.
        texts: Whether the questions' texts are wanted, which recording needs and analysis does not.
    """
    asked, everyone = questions(project, protocol, parameters.sizes, texts=texts), people(project, protocol)
    speakers = everyone[(everyone["instruction"] == 1) & everyone["persona"].isin(protocol.design["text"])]
    parts = []
    for name, conditions, mine in (("letter", everyone, asked), ("text", speakers, asked[asked["replied"]])):
        declared = protocol.measures[name]
        for n in sorted(set(mine["n_options"])):
            items = multiple_choice.items(mine[mine["n_options"] == n])
            if declared.kind == "text":
                items["order"] = plans.drawn(items["item"], n, protocol.design["sample_seed"])
            parts.append(
                plans.measure(
                    name,
                    declared.kind,
                    conditions=conditions[["condition", "condition_hash", "system", "description"]],
                    items=items,
                    templates=multiple_choice.lettered(declared.frame(), n),
                    labels=tuple(multiple_choice.LETTERS[:n]) if declared.kind == "letter" else (),
                    orders=n,
                    max_tokens=declared.max_tokens,
                )
            )
    return plans.combine(parts)
