"""The grid of the study of persona bias: who is asked which question, and how."""

from __future__ import annotations

from typing import Literal, get_args

import pandas as pd
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from persona_bias import design_2, programs
from persona_bias.personas import Group, registry
from persona_studies.design import multiple_choice, parameters
from persona_studies.design import plan as plans
from persona_studies.design.conditions import shuffled
from persona_studies.design.plan import text_hash
from persona_studies.design.protocol import Protocol
from persona_studies.errors import ParameterError, RunError
from persona_studies.paths import Project

# The paper's sets but one (MBPP, whose answers are programs, is asked with run_code), and six more.
Dataset = Literal[
    "abstract_algebra",
    "anatomy",
    "college_biology",
    "college_chemistry",
    "college_computer_science",
    "college_mathematics",
    "college_physics",
    "computer_security",
    "conceptual_physics",
    "high_school_chemistry",
    "high_school_government_and_politics",
    "high_school_world_history",
    "human_sexuality",
    "logical_fallacies",
    "machine_learning",
    "management",
    "moral_scenarios",
    "professional_accounting",
    "professional_law",
    "professional_medicine",
    "professional_psychology",
    "sociology",
    "sports_understanding",
    "openbookqa",
    "commonsenseqa",
    "logiqa",
    "piqa",
    "siqa",
    "bbq",
]
SETS = {
    "openbookqa": "OpenBookQA",
    "commonsenseqa": "CommonsenseQA",
    "logiqa": "LogiQA",
    "piqa": "PIQA",
    "siqa": "SIQA",
    "bbq": "BBQ",
}


class Parameters(parameters.Parameters):
    """Parameters of the notebook; the defaults are in its first code cell."""

    model: str = Field(description="model whose responses are analysed, as named in data/responses")
    live_hours: float = Field(ge=0, description="hours that may be spent asking the model here; 0 only replays")
    groups: tuple[Group, ...] = Field(min_length=1, description="groups of personas")
    personas: tuple[str, ...] = Field(description="personas of these groups; empty means all")
    instructions: tuple[Literal[1, 2, 3], ...] = Field(min_length=1, description="the paper's instructions")
    datasets: tuple[Dataset, ...] = Field(min_length=1, description="sources of the questions")
    items: int = Field(ge=20, le=2000, description="questions of each dataset")
    choice: Literal["random", "first"] = Field(description="which questions of a dataset that has more")
    baseline: Literal["human", "average-human", "none"] = Field(description="what personas are compared with")
    measure: Literal["primary", "cloze", "pmi", "letter", "text"] = Field(description="measure of accuracy")
    permutations: int = Field(ge=0, le=10, description="cyclic option orders of the letters; 0 means all")
    extractor: Literal["published", "strict", "lenient"] = Field(description="how replies are read")
    abstention: Literal["apart", "wrong"] = Field(description="a reply without an answer: apart, or wrong")
    run_code: bool = Field(description="ask MBPP, and run the model's programs in a sandbox (Linux, bubblewrap)")
    mbpp_problems: int = Field(ge=10, le=257, description="problems of MBPP that are asked with run_code")
    layer: Literal["both", "published", "corrected"] = Field(description="which analysis is shown")
    margin: float = Field(gt=0, lt=0.5, description="equivalence margin for a difference in accuracy")
    alpha: float = Field(gt=0, lt=0.5, description="error rate of every family")
    correction: Literal["holm", "bonferroni", "fdr_bh", "none"] = Field(description="correction within a family")
    confidence: float = Field(gt=0.5, lt=1, description="coverage of every interval")
    replicates: int = Field(ge=1000, le=1_000_000, description="sign patterns of every test")
    seed: int = Field(ge=0, description="of everything random")

    @field_validator("run_code")
    @classmethod
    def _isolated(cls, value: bool) -> bool:
        """Refuse before anything is asked or recorded what could not be run in the end."""
        if value:
            try:
                programs.sandbox()
            except RunError as error:
                raise PydanticCustomError("isolation", "{why}", {"why": str(error).removesuffix(".")}) from error
        return value


def names(registry: pd.DataFrame) -> dict[str, str]:
    """Return what personas and datasets are called in figures: a persona by its text, without the article."""
    texts = registry["text"].str.replace(r"^an? ", "", regex=True)
    once = ~registry["persona"].duplicated(keep=False)
    key = registry["persona"].where(once, registry["persona"] + " " + registry["paraphrase"].astype(str))
    sets = {dataset: dataset.replace("_", " ") for dataset in get_args(Dataset)}
    return {
        **sets,
        **SETS,
        **dict(zip(key, texts, strict=True)),
        "none": "no persona",
        "shuffled": "shuffled words",
    }


def questions(project: Project, protocol: Protocol, parameters: Parameters, *, texts: bool = False) -> pd.DataFrame:
    """Return the questions of a run; fewer questions are a part of more.

    Returns:
        ``item, dataset, benchmark, domain, gold, n_options, cluster, item_hash, rank`` (place in the choice), and
        ``unknown`` (place of BBQ's third option); with texts also ``question, options``.
    """
    parts = []
    for dataset in parameters.datasets:
        of_mmlu = dataset in multiple_choice.MMLU
        whole = multiple_choice.questions(
            project, "mmlu" if of_mmlu else dataset, domains=(dataset,) if of_mmlu else None, texts=texts
        )
        part = chosen(whole, parameters.items, protocol, parameters)
        parts.append(part.assign(dataset=dataset))
    return pd.concat(parts, ignore_index=True)


def chosen(frame: pd.DataFrame, n: int, protocol: Protocol, parameters: Parameters) -> pd.DataFrame:
    """Return ``n`` questions of a dataset: at random, or the first ones, as the paper's code does."""
    if parameters.choice == "first":
        return frame.head(n)
    return multiple_choice.sample(frame, n, protocol.design["sample_seed"])


def people(project: Project, protocol: Protocol, parameters: Parameters) -> pd.DataFrame:
    """Return the conditions of a run, the one without a system turn first.

    Returns:
        ``condition, persona, group, kind`` (persona, baseline, mitigated, placebo, filler, shuffled, positive
        control or none), ``instruction`` (0: none), ``variant`` (mitigation or paraphrase), ``system,
        description, condition_hash, words``.

    Raises:
        ParameterError: a persona is unknown, or of a group that is not asked for.
    """
    bank = registry(project)
    asked = bank[(bank["role"] == "persona") & bank["group"].isin(parameters.groups)]
    unknown = set(parameters.personas) - set(asked["persona"])
    if unknown:
        raise ParameterError(
            f"No persona {', '.join(sorted(unknown))} in groups {', '.join(parameters.groups)}; "
            f"known: {', '.join(asked['persona'])}."
        )
    if parameters.personas:
        asked = asked[asked["persona"].isin(parameters.personas)]
    design = protocol.design
    rows: list[tuple[str, str, str, int, str, str | None]] = [("none", "", "none", 0, "", None)]
    for instruction in parameters.instructions:
        wording = design["instructions"][instruction - 1]
        for row in [*asked.to_dict("records"), *bank[bank["role"] != "persona"].to_dict("records")]:
            name, group = row["persona"], row["group"]
            if name == "assistant" and instruction != min(parameters.instructions):
                continue
            text = wording.replace("{persona}", row["text"])
            variant = str(row["paraphrase"]) if name == "assistant" else ""
            rows.append((name, group, row["role"], instruction, variant, text))
            if name == design["shuffled_persona"]:
                rows.append(("shuffled", "control", "shuffled", instruction, "", shuffled(text)))
            if instruction == 3 and name in design["mitigated_personas"]:
                rows += [
                    (name, group, "mitigated", 3, mitigation, f"{text} {sentence}")
                    for mitigation, sentence in design["mitigations"].items()
                ]
        rows.append(("filler", "control", "filler", instruction, "", design["fillers"][instruction - 1]))
    frame = pd.DataFrame(rows, columns=["persona", "group", "kind", "instruction", "variant", "system"])
    frame.insert(
        0,
        "condition",
        [
            "-".join(part for part in (persona, str(instruction or ""), variant) if part)
            for persona, _, _, instruction, variant, _ in rows
        ],
    )
    frame["system"] = frame["system"].astype(object).where(frame["system"].notna(), None)
    frame["description"] = ""
    frame["condition_hash"] = [text_hash(system, "") for system in frame["system"]]
    frame["words"] = frame["system"].fillna("").str.split().map(len)
    return frame


def plan(project: Project, protocol: Protocol, parameters: Parameters, *, texts: bool = False) -> pd.DataFrame:
    """Return every cell of the study.

    Personas, the two humans and no persona answer every question; controls, mitigations, letters and replies are
    asked on fewer, which the protocol names.

    Args:
        project: Where the item banks lie.
        protocol: The declared design.
        parameters: The extent of the grid; the second protocol fixes its own.
        texts: Whether the questions' texts are wanted, which recording needs and analysis does not; they come
            from their pinned sources.
    """
    if protocol.version == 2:
        return design_2.plan(project, protocol, texts=texts)
    asked = questions(project, protocol, parameters, texts=texts)
    everyone = people(project, protocol, parameters)
    design, measures = protocol.design, protocol.measures
    whole = everyone["persona"].isin(["none", "human", "average-human"]) | everyone["kind"].eq("persona")
    mitigated = everyone["kind"] == "mitigated"
    first = everyone["instruction"].isin([0, min(parameters.instructions)]) & ~mitigated

    def few(name: str) -> pd.DataFrame:
        n = design[f"{name}_items"]
        return pd.concat(
            [chosen(part, n, protocol, parameters) for _, part in asked.groupby("dataset", sort=False)]
        )

    templates = measures["cloze"].frame()
    main, neutral = (templates[templates["template"] == name] for name in ("asked", "neutral"))
    none = everyone[everyone["kind"] == "none"]
    parts = [
        *_crossed("cloze", everyone[whole & ~mitigated], asked, main, protocol),
        *_crossed("cloze", none, asked, neutral, protocol),
        *_crossed("cloze", everyone[~whole & ~mitigated], few("control"), main, protocol),
    ]
    if mitigated.any():
        parts += _crossed("cloze", everyone[mitigated], few("mitigated"), main, protocol)
    for name in ("letter", "text"):
        some = everyone[first & everyone["persona"].isin(design[f"{name}_personas"])]
        parts += _crossed(name, some, few(name), measures[name].frame(), protocol, parameters.permutations)
    if parameters.run_code:
        parts.append(
            plans.measure(
                "code",
                measures["code"].kind,
                conditions=everyone[first & whole][["condition", "condition_hash", "system", "description"]],
                items=problems(project, protocol, parameters, texts=texts).reindex(
                    columns=["item", "item_hash", "text"]
                ),
                templates=measures["code"].frame()[["template", "shared", "user"]],
                max_tokens=measures["code"].max_tokens,
            )
        )
    return plans.combine(parts)


def problems(project: Project, protocol: Protocol, parameters: Parameters, *, texts: bool = False) -> pd.DataFrame:
    """Return the programming problems of a run, as :func:`persona_bias_programs.problems`.

    Fewer are a part of more.
    """
    whole = programs.problems(project, texts=texts).assign(domain="mbpp")
    return chosen(whole, parameters.mbpp_problems, protocol, parameters)


def _crossed(
    name: str,
    conditions: pd.DataFrame,
    asked: pd.DataFrame,
    templates: pd.DataFrame,
    protocol: Protocol,
    permutations: int = 1,
) -> list[pd.DataFrame]:
    declared = protocol.measures[name]
    parts = []
    for n in sorted(set(asked["n_options"])):
        letters = multiple_choice.LETTERS[:n]
        items = multiple_choice.items(asked[asked["n_options"] == n])
        if declared.kind == "text":
            items["order"] = plans.drawn(items["item"], n, protocol.design["sample_seed"])
        parts.append(
            plans.measure(
                name,
                declared.kind,
                conditions=conditions[["condition", "condition_hash", "system", "description"]],
                items=items,
                templates=multiple_choice.lettered(templates, n),
                labels=tuple(letters) if declared.kind == "letter" else (),
                orders=1 if declared.kind != "letter" else min(permutations or n, n),
                max_tokens=declared.max_tokens,
            )
        )
    return parts
