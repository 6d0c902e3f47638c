"""The grid of the second protocol of the study of persona bias; its sizes stand in ``protocol_2.toml``."""

from __future__ import annotations

import pandas as pd

from persona_bias.personas import registry
from persona_studies.design import multiple_choice
from persona_studies.design import plan as plans
from persona_studies.design.conditions import shuffled
from persona_studies.design.plan import text_hash
from persona_studies.design.protocol import Protocol
from persona_studies.errors import BankError
from persona_studies.paths import Project

BASELINES = ("human", "average-human", "placebo", "toddler")


def questions(project: Project, protocol: Protocol, *, texts: bool = False) -> pd.DataFrame:
    """Return the questions of the confirmatory run.

    Returns:
        ``item, dataset, gold, n_options, cluster, item_hash``; ``replied``: whether it is also asked for a reply in
        words; with texts also ``question, options``.
    """
    assert protocol.confirmatory is not None
    sizes, seed = protocol.confirmatory.sizes, protocol.design["sample_seed"]
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
    """Return the conditions of the confirmatory run, the one without a system turn first.

    Returns:
        ``condition, persona, group, instruction`` (0: none), ``system, description, condition_hash, words``.

    Raises:
        BankError: the bank lacks a persona that the protocol names.
    """
    design = protocol.design
    bank = registry(project)
    bank = bank[bank["paraphrase"] == 1].set_index("persona")
    if lacking := [name for name in [*design["personas"], *BASELINES] if name not in bank.index]:
        raise BankError(
            f"data/items/persona_bias/personas.csv has no {', '.join(lacking)}, which protocol_2.toml names; "
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


def plan(project: Project, protocol: Protocol, *, texts: bool = False) -> pd.DataFrame:
    """Return every cell of the confirmatory run.

    Everybody answers every question in all cyclic orders. Those whom the protocol names reply in words to the first
    questions of every set, each in a drawn order.

    Args:
        project: Where the item banks lie.
        protocol: The second protocol.
        texts: Whether the questions' texts are wanted, which recording needs and analysis does not.
    """
    asked, everyone = questions(project, protocol, texts=texts), people(project, protocol)
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
