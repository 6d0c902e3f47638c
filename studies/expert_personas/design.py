"""The grid of the study of expert personas: parameters, personas, questions, and who is asked what."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field, ValidationInfo, field_validator

from persona_studies.analyse.families import Settings
from persona_studies.design import banks, multiple_choice, parameters
from persona_studies.design import plan as plans
from persona_studies.design.conditions import shuffled
from persona_studies.design.plan import text_hash
from persona_studies.design.protocol import Protocol
from persona_studies.paths import Project

NO_PERSONA = "no persona"
NAMES = {
    "none": NO_PERSONA,
    "baseline": "intelligent assistant",
    "layperson": "layperson",
    "toddler": "toddler",
    "placebo": "placebo trait",
    "filler": "filler",
    "shuffled": "shuffled expert",
    "wrong": "wrong on purpose",
}
# A question's relation to an expert's field, and the expert's wording -> what the protocol calls it.
EXPERTS = {
    ("in_domain", "short"): "expert, short",
    ("in_domain", "elaborate"): "expert, elaborate",
    ("unrelated", "short"): "unrelated expert",
}


class Persona(banks.Row):
    """A persona's text; ``{field}`` stands for a name of :class:`Expertise`."""

    unique = (("kind", "wording", "paraphrase"), ("text",))

    kind: Literal["baseline", "expert", "layperson", "toddler", "placebo", "filler"]
    wording: Literal["short", "elaborate", ""] = ""
    paraphrase: Annotated[int, Field(ge=1, le=3)]
    text: str

    @field_validator("text")
    @classmethod
    def _filled(cls, text: str, info: ValidationInfo) -> str:
        """Refuse a slot that nothing fills, whose braces the model would be shown, and an expert in nothing."""
        if set(re.findall(r"\{.*?\}", text)) - {"{field}"}:
            raise ValueError("has a slot that nothing fills; {field} is the only one")
        if info.data.get("kind") == "expert" and "{field}" not in text:
            raise ValueError("is an expert in nothing; write {field} where the field stands")
        return text


class Expertise(banks.Row):
    """A field that there are experts of, and what a prompt calls it."""

    unique = (("field",), ("name",))

    field: banks.Name
    name: str


class Subject(banks.Row):
    """Which field is in-domain (empty: there is no expert) and unrelated to a domain of a benchmark."""

    unique = (("benchmark", "domain"),)

    benchmark: banks.Name
    domain: banks.Name
    in_domain: banks.Name = ""
    unrelated: banks.Name


class Parameters(parameters.Parameters):
    """Parameters of the notebook; the defaults are in its first code cell."""

    models: tuple[str, ...] = Field(
        description="recorded models that are analysed, the first in full; empty means all, the protocol's first"
    )
    live_hours: float = Field(
        ge=0, description="hours that may be spent asking the first model here; 0 only replays"
    )
    questions: int = Field(
        ge=20, le=2000, multiple_of=4, description="half of them MMLU's, a quarter each of the other benchmarks"
    )
    margin: float = Field(gt=0, lt=0.5, description="smallest difference in accuracy of interest")
    alpha: float = Field(gt=0, lt=0.5, description="error rate of every family")
    correction: Literal["holm", "bonferroni", "fdr_bh", "none"] = Field(description="correction within a family")
    confidence: float = Field(gt=0.5, lt=1, description="coverage of every interval")
    replicates: int = Field(ge=1000, le=1_000_000, description="sign patterns of every test")
    seed: int = Field(ge=0, description="of the sign patterns")

    @property
    def settings(self) -> Settings:
        """How hypotheses are tested."""
        return Settings(self.alpha, self.confidence, self.correction, self.replicates, self.seed)

    def judged(self, protocol: Protocol) -> Protocol:
        """Return the protocol with this run's smallest effect of interest, and alpha as the line of the floor.

        The floor is the smallest p-value that the report's permutation test can reach.
        """
        made = protocol.at_margin(self.margin)
        floor = made.claims["permutation_floor"].model_copy(update={"line": self.alpha})
        return made.model_copy(update={"claims": {**made.claims, "permutation_floor": floor}})


def subjects(project: Project) -> pd.DataFrame:
    """Return the domains that are asked and their fields: ``benchmark, domain, in_domain, unrelated``."""
    known = _fields(project)
    folder = project.items / "expert_personas"
    return banks.read(folder / "subjects.csv", Subject, {"in_domain": known, "unrelated": known})


def _fields(project: Project) -> dict[str, str]:
    """Return what a prompt calls each field."""
    known = banks.read(project.items / "expert_personas" / "fields.csv", Expertise)
    return dict(zip(known["field"], known["name"], strict=True))


def questions(
    project: Project, protocol: Protocol, number: int | None = None, *, texts: bool = False
) -> pd.DataFrame:
    """Return the questions of a run; fewer are a part of more.

    Args:
        protocol: Sizes of the benchmarks, which keep their proportions.
        number: Of all questions; None takes the declared sizes.
        texts: Whether texts are wanted; they come from their pinned sources.

    Returns:
        ``item, benchmark, domain, gold, n_options, cluster, item_hash, in_domain, unrelated``: the last two name
        fields of experts, empty where the domain has none of its own; with texts also ``question, options``.
    """
    assert protocol.confirmatory is not None
    fields, design = subjects(project), protocol.design
    sizes = {name: protocol.confirmatory.sizes[name] for name in design["benchmarks"]}
    declared = sum(sizes.values())
    parts = []
    for benchmark, size in sizes.items():
        domains = tuple(fields.loc[fields["benchmark"] == benchmark, "domain"])
        whole = multiple_choice.questions(project, benchmark, domains=domains, texts=texts)
        parts.append(multiple_choice.sample(whole, size * (number or declared) // declared, design["sample_seed"]))
    chosen = pd.concat(parts, ignore_index=True)
    return chosen.merge(fields, on=["benchmark", "domain"], how="left", validate="many_to_one")


def people(project: Project, protocol: Protocol) -> pd.DataFrame:
    """Return the conditions, the reference without a persona first.

    Returns:
        ``condition, kind, field`` (empty where a persona has none), ``wording, paraphrase`` (0 for no persona),
        ``system`` (None: no system turn), ``description`` (empty), ``condition_hash, words``.
    """
    bank = banks.read(project.items / "expert_personas" / "personas.csv", Persona)
    names, domains, wanted = _fields(project), subjects(project), protocol.design["wordings"]
    own, other = set(domains["in_domain"]) - {""}, set(domains["unrelated"])
    rows: list[tuple[str, str, str, int, str | None]] = [("none", "", "", 0, None)]
    for kind, wording, paraphrase, text in bank.itertuples(index=False, name=None):
        if kind != "expert":
            if paraphrase in wanted[kind]:
                rows.append((kind, "", wording, paraphrase, text))
            continue
        for field in sorted(own | other):
            filled = text.replace("{field}", names[field])
            mine = field in own and paraphrase in wanted[f"expert {wording}"]
            if mine or (wording == "short" and field in other and paraphrase in wanted["unrelated expert"]):
                rows.append((kind, field, wording, paraphrase, filled))
            if wording == "elaborate" and field in own and paraphrase in wanted["shuffled"]:
                rows.append(("shuffled", field, "", paraphrase, shuffled(filled)))
    rows.append(("wrong", "", "", 1, protocol.conditions["wrong"].text))
    frame = pd.DataFrame(rows, columns=["kind", "field", "wording", "paraphrase", "system"])
    named = [
        "-".join(filter(None, (kind, field, wording, str(paraphrase)))) + "@system" if paraphrase else kind
        for kind, field, wording, paraphrase in zip(*(frame[c] for c in frame.columns[:4]), strict=True)
    ]
    return frame.assign(
        condition=named,
        description="",
        condition_hash=[text_hash(system, "") for system in frame["system"]],
        words=frame["system"].fillna("").str.split().map(len),
    )


def crossed(asked: pd.DataFrame, everyone: pd.DataFrame) -> pd.DataFrame:
    """Return who answers what, and what the protocol calls that persona: ``item, condition, persona``.

    An expert answers the questions of its own field and, in its first short wording, those of the field that it is
    unrelated to. A shuffled expert answers those of its own field, everybody else all questions.
    """
    facts = asked[["item", "in_domain", "unrelated"]]
    plain, experts = (everyone[(everyone["field"] != "") == named] for named in (False, True))
    both = facts.merge(plain[["condition", "kind"]], how="cross")
    parts = [both.assign(persona=both["kind"].map(NAMES))]
    for relation in ("in_domain", "unrelated"):
        theirs = facts.merge(
            experts[["condition", "kind", "field", "wording", "paraphrase"]], left_on=relation, right_on="field"
        )
        if relation == "unrelated":
            wanted = (theirs["kind"] == "expert") & (theirs["wording"] == "short") & (theirs["paraphrase"] == 1)
            theirs = theirs[wanted]
        name = [
            NAMES["shuffled"] if kind == "shuffled" else EXPERTS[relation, wording]
            for kind, wording in zip(theirs["kind"], theirs["wording"], strict=True)
        ]
        parts.append(theirs.assign(persona=name))
    return pd.concat(parts, ignore_index=True)[["item", "condition", "persona"]]


def plan(
    project: Project, protocol: Protocol, parameters: Parameters | None = None, *, texts: bool = False
) -> pd.DataFrame:
    """Return every cell of a run.

    Args:
        parameters: How many questions; None takes the declared sizes.
        texts: Whether the questions' texts are wanted, which recording needs and analysis does not.
    """
    asked = questions(project, protocol, parameters.questions if parameters else None, texts=texts)
    everyone = people(project, protocol)
    met = crossed(asked, everyone)
    declared = protocol.measures["letter"]
    parts = []
    for condition, mine in met.groupby("condition", sort=False):
        theirs = asked[asked["item"].isin(mine["item"])]
        who = everyone.loc[
            everyone["condition"] == condition, ["condition", "condition_hash", "system", "description"]
        ]
        for n in sorted(set(theirs["n_options"])):
            parts.append(
                plans.measure(
                    "letter",
                    declared.kind,
                    conditions=who,
                    items=multiple_choice.items(theirs[theirs["n_options"] == n]),
                    templates=multiple_choice.lettered(declared.frame(), n),
                    labels=tuple(multiple_choice.LETTERS[:n]),
                    orders=n,
                )
            )
    return plans.combine(parts)
