"""The grid of the second protocol of the study of expert personas; its sizes stand in ``protocol_2.toml``."""

from __future__ import annotations

import pandas as pd

from expert_personas import conditions as bank
from persona_studies.design import multiple_choice
from persona_studies.design import plan as plans
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


def questions(project: Project, protocol: Protocol, *, texts: bool = False) -> pd.DataFrame:
    """Return the questions of the confirmatory run.

    Returns:
        ``item, benchmark, domain, gold, n_options, cluster, item_hash, in_domain, unrelated``: the last two name
        fields of experts, empty where the domain has none of its own; with texts also ``question, options``.
    """
    fields = bank.subjects(project)
    sizes = protocol.confirmatory.sizes if protocol.confirmatory else {}
    parts = []
    for benchmark in protocol.design["benchmarks"]:
        domains = tuple(fields.loc[fields["benchmark"] == benchmark, "domain"])
        whole = multiple_choice.questions(project, benchmark, domains=domains, texts=texts)
        parts.append(multiple_choice.sample(whole, sizes[benchmark], protocol.design["sample_seed"]))
    chosen = pd.concat(parts, ignore_index=True)
    return chosen.merge(fields, on=["benchmark", "domain"], how="left", validate="many_to_one")


def people(project: Project, protocol: Protocol) -> pd.DataFrame:
    """Return the conditions of the confirmatory run, the reference without a persona first.

    Returns:
        ``condition, kind, field`` (empty where a persona has none), ``wording, paraphrase, system, description,
        condition_hash, words``.
    """
    fields = bank.subjects(project)
    own, other = set(fields["in_domain"]) - {""}, set(fields["unrelated"])
    made = bank.conditions(project, sorted(own | other), placements=["system"])
    wanted = protocol.design["wordings"]
    rows = []
    for row in made.to_dict("records"):
        kind, field, wording = row["kind"], row["field"], row["wording"]
        asked = set(wanted.get(kind, []))
        if kind == "none":
            asked = {0}
        elif kind == "expert":
            asked = set(wanted[f"expert {wording}"]) if field in own else set()
            if wording == "short" and field in other:
                asked |= set(wanted["unrelated expert"])
        elif kind == "shuffled" and field not in own:
            asked = set()
        if row["paraphrase"] in asked:
            rows.append(row)
    text = protocol.conditions["wrong"].text
    assert text is not None
    wrong = {
        **dict.fromkeys(["field", "wording", "description"], ""),
        "condition": "wrong-1@system",
        "kind": "wrong",
        "paraphrase": 1,
        "placement": "system",
        "system": text,
        "condition_hash": text_hash(text, ""),
        "words": len(text.split()),
    }
    return pd.DataFrame([*rows, wrong]).drop(columns="placement")


def crossed(asked: pd.DataFrame, everyone: pd.DataFrame) -> pd.DataFrame:
    """Return who answers what, and what the protocol calls that persona: ``item, condition, persona``.

    An expert answers the questions of its own field and, in its first short wording, those of the field that it is
    unrelated to. A shuffled expert answers those of its own field, everybody else all questions.
    """
    facts = asked[["item", "in_domain", "unrelated"]]
    parts = []
    plain = everyone[everyone["field"] == ""]
    both = facts.merge(plain[["condition", "kind"]], how="cross")
    parts.append(both.assign(persona=both["kind"].map(NAMES)))
    experts = everyone[everyone["field"] != ""]
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


def plan(project: Project, protocol: Protocol, *, texts: bool = False) -> pd.DataFrame:
    """Return every cell of the confirmatory run.

    Args:
        project: Where the item banks lie.
        protocol: The second protocol.
        texts: Whether the questions' texts are wanted, which recording needs and analysis does not.
    """
    asked, everyone = questions(project, protocol, texts=texts), people(project, protocol)
    met = crossed(asked, everyone)
    declared = protocol.measures["letter"]
    parts = []
    for condition, mine in met.groupby("condition", sort=False):
        theirs = asked[asked["item"].isin(mine["item"])]
        for n in sorted(set(theirs["n_options"])):
            parts.append(
                plans.measure(
                    "letter",
                    declared.kind,
                    conditions=everyone.loc[
                        everyone["condition"] == condition,
                        ["condition", "condition_hash", "system", "description"],
                    ],
                    items=multiple_choice.items(theirs[theirs["n_options"] == n]),
                    templates=multiple_choice.lettered(declared.frame(), n),
                    labels=tuple(multiple_choice.LETTERS[:n]),
                    orders=n,
                )
            )
    return plans.combine(parts)
