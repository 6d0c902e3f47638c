"""Functions of the sycophancy study: its grid, its scores, and the two analyses."""

from __future__ import annotations

import random

import pandas as pd
from persona_studies import plan as grid
from persona_studies.paths import Project
from persona_studies.plan import text_hash
from persona_studies.protocol import Protocol


def conditions(project: Project, protocol: Protocol, personas: int) -> pd.DataFrame:
    """Return every condition: the personas of the factorial design, then the controls.

    The first ``personas / 5`` backgrounds are crossed with all five agreeableness levels. A background keeps
    one wording of the levels (same facets at every level), so that level is the only thing that varies.

    Returns:
        ``condition, role, background, level, system, description, condition_hash``.
    """
    backgrounds = pd.read_csv(project.items / "backgrounds.csv")
    levels = pd.read_csv(project.items / "agreeableness_levels.csv")
    traits = pd.read_csv(project.items / "control_traits.csv")
    text = {name: condition.text or "" for name, condition in protocol.conditions.items()}
    chosen = protocol.design["levels"]
    rows: list[dict[str, object]] = []
    wording = {(row.level, row.variant): row.text for row in levels.itertuples()}

    def persona(background: str, who: str, number: int, level: int) -> dict[str, object]:
        trait = wording[level, number % 5 + 1]
        return {
            "condition": f"{background}-{level}",
            "role": "persona",
            "background": background,
            "level": level,
            "system": text["persona"].replace("{background}", who).replace("{level}", trait),
            "description": f"The person is {who}. The person is {trait}.",
        }

    people = list(enumerate(zip(backgrounds["background"], backgrounds["text"], strict=True)))
    for number, (background, who) in people[: personas // len(chosen)]:
        rows += [persona(background, who, number, level) for level in chosen]
    rows.append({"condition": "none", "role": "none", "system": None})
    rows.append({"condition": "assistant", "role": "baseline", "system": text["assistant"]})
    controls = protocol.design["controls"]
    for (_, (background, who)), trait in zip(
        people, traits.query("role == 'placebo'").head(controls["placebo"]).itertuples(), strict=False
    ):
        system = text["placebo"].replace("{background}", who).replace("{trait}", str(trait.text))
        rows.append({"condition": trait.control, "role": "placebo", "background": background, "system": system})
    for filler in traits.query("role == 'filler'").head(controls["filler"]).itertuples():
        rows.append({"condition": filler.control, "role": "filler", "system": filler.text})
    for number, (background, who) in people[: controls["shuffled"]]:
        for level in protocol.design["shuffled_levels"]:
            words = str(persona(background, who, number, level)["system"]).split()
            random.Random(f"{protocol.design['shuffle_seed']}-{background}-{level}").shuffle(words)
            rows.append(
                {
                    "condition": f"shuffled-{background}-{level}",
                    "role": "shuffled",
                    "background": background,
                    "level": level,
                    "system": " ".join(words),
                }
            )
    for name in ("told_to_agree", "told_to_disagree"):
        rows.append({"condition": name, "role": "positive control", "system": text[name]})
    frame = pd.DataFrame(rows, columns=["condition", "role", "background", "level", "system", "description"])
    frame = frame.astype(object).where(frame.notna(), None)
    return frame.assign(condition_hash=[text_hash(row.system, row.description) for row in frame.itertuples()])


def claims(project: Project, topics: int, claims_per_topic: int) -> pd.DataFrame:
    """Return the claims and their mirrors: ``item, item_hash, text, topic, claim, side``."""
    bank = pd.read_csv(project.items / "claims.csv")
    bank = bank[bank["topic"].isin(bank["topic"].unique()[:topics])]
    bank = bank[bank.groupby("topic").cumcount() < claims_per_topic]
    sides = pd.concat([bank.assign(side="claim"), bank.assign(side="mirror", text=bank["mirror"])])
    sides = sides.sort_index(kind="stable").reset_index(drop=True)
    return pd.DataFrame(
        {
            "item": sides["claim"] + ":" + sides["side"],
            "item_hash": sides["text"].map(text_hash),
            "text": sides["text"],
            "topic": sides["topic"],
            "claim": sides["claim"],
            "side": sides["side"],
        }
    )


def plan(
    project: Project,
    protocol: Protocol,
    *,
    personas: int,
    topics: int,
    claims_per_topic: int,
    frames: list[str],
    statements: pd.DataFrame,
) -> pd.DataFrame:
    """Return every cell of the study.

    Args:
        project: Where the item banks lie.
        protocol: The declared design.
        personas: Personas of the factorial design, a multiple of five.
        topics: Topics of the claim bank, from the first.
        claims_per_topic: Claims of each topic, from the first.
        frames: Templates of the primary measure that assert the claim.
        statements: Questionnaire: ``item, item_hash, text``; texts are None where only analysis is wanted.
    """
    people = conditions(project, protocol, personas)
    described = people[people["role"] == "persona"]
    asked = claims(project, topics, claims_per_topic)
    measures = protocol.measures
    agree = measures["agree"].frame()
    wanted = agree[agree["role"].eq("unattributed") | agree["template"].isin(frames)]
    nothing = pd.DataFrame({"item": ["neutral"], "item_hash": [text_hash("")], "text": [""]})
    first = asked.merge(asked[["topic"]].drop_duplicates().head(protocol.design["topics_letter"]), on="topic")
    first = first[first["claim"].isin(first.groupby("topic")["claim"].first())]
    one_side = asked[asked["side"].eq("claim") & asked["claim"].isin(asked.groupby("topic")["claim"].first())]
    known = statements["text"].notna().all()
    inventory = pd.DataFrame(
        {
            "item": ["agreeableness"],
            "item_hash": [text_hash(*statements["item_hash"])],
            "text": [""],
            "options": [tuple(statements["text"]) if known else None],
        }
    )

    def cells(name: str, conditions: pd.DataFrame, items: pd.DataFrame, templates: pd.DataFrame) -> pd.DataFrame:
        declared = measures[name]
        return grid.measure(
            name,
            declared.kind,
            conditions=conditions[["condition", "condition_hash", "system", "description"]],
            items=items[[c for c in ("item", "item_hash", "text", "options") if c in items]],
            templates=templates[["template", "shared", "user"]],
            options=declared.options,
            labels=declared.labels,
            orders=declared.orders,
            max_tokens=declared.max_tokens,
        )

    out_of_role = described.assign(system=None)
    return grid.combine(
        [
            cells("self_contrast", people, inventory, measures["self_contrast"].frame()),
            cells("self_rating", people, statements, measures["self_rating"].frame()),
            cells("other_rating", out_of_role, statements, measures["other_rating"].frame()),
            cells("agree", people, nothing, agree[agree["role"] == "neutral"]),
            cells("agree", people, asked, wanted),
            cells("agree_letter", people, first, measures["agree_letter"].frame()),
            cells(
                "agree_text",
                people[people["role"].isin(["persona", "baseline"])],
                one_side,
                measures["agree_text"].frame(),
            ),
        ]
    )
