"""The grid of the study of expert personas: which question is asked under which persona, and how."""

from __future__ import annotations

from typing import Literal

import pandas as pd
from pydantic import Field

from expert_personas import conditions as bank
from expert_personas import design_2
from persona_studies.design import multiple_choice, parameters
from persona_studies.design import plan as plans
from persona_studies.design.protocol import Protocol
from persona_studies.errors import BankError
from persona_studies.paths import Project

LETTERS = multiple_choice.LETTERS
Benchmark = Literal["openbookqa", "commonsenseqa", "mmlu", "mmlu_pro", "gpqa_diamond", "medqa", "piqa", "siqa"]
Kind = Literal["baseline", "expert", "layperson", "young_child", "toddler", "placebo", "filler", "shuffled"]


class Parameters(parameters.Parameters):
    """Parameters of the notebook; the defaults are in its first code cell."""

    model: str = Field(description="model whose responses are analysed, as named in data/responses")
    compare: tuple[str, ...] = Field(description="further recorded models, each shown on what it was asked")
    live_hours: float = Field(ge=0, description="hours that may be spent asking the model here; 0 only replays")
    benchmarks: tuple[Benchmark, ...] = Field(min_length=1, description="sources of the questions")
    domains: tuple[str, ...] = Field(description="domains of the benchmarks; empty means all")
    questions: int = Field(ge=20, le=14042, description="questions of each benchmark")
    conditions: tuple[Kind, ...] = Field(min_length=1, description="kinds of persona beside none")
    placements: tuple[Literal["system", "user"], ...] = Field(min_length=1, description="where the persona stands")
    paraphrases: int = Field(ge=1, le=3, description="wordings of each persona")
    measure: Literal["primary", "cloze", "pmi", "letter", "text"] = Field(description="measure of accuracy")
    permutations: int = Field(ge=0, le=10, description="cyclic option orders of the letters; 0 means all")
    layer: Literal["both", "published", "corrected"] = Field(description="which analysis is shown")
    margin: float = Field(gt=0, lt=0.5, description="equivalence margin for a difference in accuracy")
    alpha: float = Field(gt=0, lt=0.5, description="error rate of every family")
    correction: Literal["holm", "bonferroni", "fdr_bh", "none"] = Field(description="correction within a family")
    confidence: float = Field(gt=0.5, lt=1, description="coverage of every interval")
    replicates: int = Field(ge=1000, le=1_000_000, description="sign patterns and bootstrap replicates")
    seed: int = Field(ge=0, description="of everything random, the choice of questions included")


def questions(project: Project, protocol: Protocol, parameters: Parameters, *, texts: bool = False) -> pd.DataFrame:
    """Return the questions of a run.

    The choice is nested: fewer questions are a part of more.

    Returns:
        ``item, benchmark, domain, gold, n_options, cluster, item_hash, in_domain, adjacent, unrelated``: the
        last three name fields of experts; with texts also ``question, options``.
    """
    parts = []
    for benchmark in parameters.benchmarks:
        whole = multiple_choice.questions(project, benchmark, domains=parameters.domains or None, texts=texts)
        parts.append(multiple_choice.sample(whole, parameters.questions, protocol.design["sample_seed"]))
    chosen = pd.concat(parts, ignore_index=True)
    asked = chosen.merge(bank.domain_map(project), on=["benchmark", "domain"], how="left", validate="many_to_one")
    if len(lacking := asked[asked["in_domain"].isna()]):
        benchmark, domain = lacking[["benchmark", "domain"]].iloc[0]
        raise BankError(
            f"data/items/expert_personas/domains.csv has no row for domain {domain} of {benchmark}; add one."
        )
    return asked


def people(project: Project, protocol: Protocol, parameters: Parameters) -> pd.DataFrame:
    """Return the conditions of a run, the reference without a persona first.

    Returns:
        As :func:`expert_personas_conditions.conditions`.
    """
    asked = questions(project, protocol, parameters)
    fields = sorted({field for relation in bank.RELATIONS for field in asked[relation]})
    made = bank.conditions(project, fields, paraphrases=parameters.paraphrases, placements=parameters.placements)
    in_user_turn = made["kind"].isin(protocol.design["user_kinds"]) & (made["wording"] != "elaborate")
    wanted = made["kind"].isin(["none", *parameters.conditions])
    return made[wanted & ((made["placement"] != "user") | in_user_turn)].reset_index(drop=True)


def kinds(people: pd.DataFrame, protocol: Protocol) -> pd.DataFrame:
    """Return the kinds of condition: ``kind, placement, conditions`` (how many), ``words`` (mean), ``purpose``."""
    groups = people.groupby(["kind", "placement"], sort=False)
    counted = groups.agg(conditions=("condition", "size"), words=("words", "mean")).reset_index()
    return counted.assign(purpose=[protocol.conditions[kind].purpose for kind in counted["kind"]])


def plan(project: Project, protocol: Protocol, parameters: Parameters, *, texts: bool = False) -> pd.DataFrame:
    """Return every cell of the study.

    An expert answers the questions of its own field, and those that its field is adjacent or unrelated to; every
    other persona answers all questions.

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
    few = {
        name: pd.concat(
            [
                multiple_choice.sample(part, design[f"{name}_questions"], design["sample_seed"])
                for _, part in asked.groupby("benchmark", sort=False)
            ]
        )
        for name in ("letter", "text")
    }
    # A free reply may repeat the question, and replies are stored.
    gated = [name for name in parameters.benchmarks if multiple_choice.BENCHMARKS[name].gated]
    few["text"] = few["text"][~few["text"]["benchmark"].isin(gated)]
    first = everyone[everyone["paraphrase"].isin([0, 1]) & everyone["placement"].ne("user")]
    parts = []
    templates = measures["cloze"].frame()
    for placement in ("system", "user"):
        there = everyone["placement"].eq("user") if placement == "user" else everyone["placement"].ne("user")
        parts += _crossed("cloze", everyone[there], asked, templates[templates["template"] == placement], protocol)
    none = everyone[everyone["kind"] == "none"]
    parts += _crossed("cloze", none, asked, templates[templates["template"] == "neutral"], protocol)
    for name in ("letter", "text"):
        some = first[first["kind"].isin(design[f"{name}_kinds"])]
        parts += _crossed(name, some, few[name], measures[name].frame(), protocol, parameters.permutations)
    cells = plans.combine(parts)
    if texts and gated:
        cells.attrs["gated"] = gated
    return cells


def _crossed(
    name: str,
    conditions: pd.DataFrame,
    asked: pd.DataFrame,
    templates: pd.DataFrame,
    protocol: Protocol,
    permutations: int = 1,
) -> list[pd.DataFrame]:
    """Cross the conditions with the questions that each of them answers."""
    declared = protocol.measures[name]
    parts = []
    for (field, kind, wording, placement), group in conditions.groupby(
        ["field", "kind", "wording", "placement"], sort=False
    ):
        # An elaborate or shuffled expert answers its own field only, one in the user turn no adjacent field.
        relations = ["in_domain"] if kind == "shuffled" or wording == "elaborate" else list(bank.RELATIONS)
        if placement == "user":
            relations = [relation for relation in relations if relation != "adjacent"]
        theirs = asked[(asked[relations] == field).any(axis=1)] if field else asked
        for n in sorted(set(theirs["n_options"])):
            items = multiple_choice.items(theirs[theirs["n_options"] == n])
            if declared.kind == "text":
                items["order"] = plans.drawn(items["item"], n, protocol.design["sample_seed"])
            parts.append(
                plans.measure(
                    name,
                    declared.kind,
                    conditions=group[["condition", "condition_hash", "system", "description"]],
                    items=items,
                    templates=multiple_choice.lettered(templates, n),
                    labels=tuple(LETTERS[:n]) if declared.kind == "letter" else (),
                    orders=1 if declared.kind != "letter" else min(permutations or n, n),
                    max_tokens=declared.max_tokens,
                )
            )
    return parts
