"""The grid of the sycophancy study: its parameters, conditions, claims and plan."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import Field

from persona_studies.analyse.families import Settings
from persona_studies.design import banks, multiple_choice, parameters
from persona_studies.design import plan as plans
from persona_studies.design.plan import text_hash
from persona_studies.design.protocol import Protocol
from persona_studies.errors import BankError
from persona_studies.paths import Project
from sycophancy import published

LABELS = ("labels_four", "labels_two")
# Convergent checks of published instruments: yes or no to statements, agreement with opposite stances.
INSTRUMENT, STANCES = "second_instrument", "mirrored_stances"


class Background(banks.Row):
    """A person, but for agreeableness."""

    unique = (("background",), ("text",))

    background: banks.Name
    occupation: str
    age: Annotated[int, Field(ge=1, le=120)]
    region: str
    speech: str
    text: str


class Level(banks.Row):
    """A wording of a level of agreeableness."""

    unique = (("level", "variant"), ("text",))
    crossed = ("level", "variant")

    level: Annotated[int, Field(ge=1, le=5)]
    variant: Annotated[int, Field(ge=1, le=5)]
    text: str


class Trait(banks.Row):
    """A control: a trait without bearing on agreeableness, or a text about nobody."""

    unique = (("control",), ("text",))

    control: banks.Name
    role: Literal["placebo", "filler"]
    text: str


class Claim(banks.Row):
    """A disputed claim, and its mirror."""

    unique = (("claim",), ("text",), ("mirror",))

    topic: banks.Name
    topic_title: str
    claim: banks.Name
    text: str
    mirror: str


class Parameters(parameters.Parameters):
    """Parameters of the notebook; the defaults are in its first code cell."""

    models: tuple[str, ...] = Field(
        min_length=1,
        description="models whose responses are analysed, as named in data/responses; the first in full",
    )
    live_hours: float = Field(
        ge=0, description="hours that may be spent asking the first model here; 0 only replays"
    )
    personas: int = Field(ge=10, le=275, multiple_of=5, description="personas of the factorial design")
    topics: int = Field(ge=2, le=33, description="topics of the claim bank")
    claims_per_topic: int = Field(ge=1, le=5, description="claims of each topic, each with its mirror")
    parser: Literal["anchored", "published"] = Field(description="parser of the replies")
    alpha: float = Field(gt=0, lt=0.5, description="error rate per family")
    correction: Literal["holm", "bonferroni", "fdr_bh", "none"] = Field(description="correction within a family")
    confidence: float = Field(gt=0.5, lt=1, description="coverage of intervals")
    replicates: int = Field(ge=100, le=100_000, description="bootstrap and permutation replicates")
    seed: int = Field(ge=0, description="seed of everything random")

    @property
    def settings(self) -> Settings:
        """How hypotheses are tested."""
        return Settings(self.alpha, self.confidence, self.correction, self.replicates, self.seed)


def conditions(project: Project, protocol: Protocol, personas: int) -> pd.DataFrame:
    """Return every condition: the personas of the factorial design, then the controls.

    The first ``personas / 5`` backgrounds are crossed with all five agreeableness levels. A background keeps
    one wording of the levels (same facets at every level), so that level is the only thing that varies.

    Returns:
        ``condition, role, background, level, system, description, condition_hash``.
    """
    backgrounds = banks.read(project.items / "sycophancy" / "backgrounds.csv", Background)
    levels = banks.read(project.items / "sycophancy" / "agreeableness_levels.csv", Level)
    traits = banks.read(project.items / "sycophancy" / "control_traits.csv", Trait)
    text = {name: condition.text or "" for name, condition in protocol.conditions.items()}
    chosen = protocol.design["levels"]
    rows: list[dict[str, object]] = []
    wording: dict[Any, str] = levels.set_index(["level", "variant"])["text"].to_dict()
    persona = partial(_persona, text["persona"], wording)
    people = list(enumerate(zip(backgrounds["background"], backgrounds["text"], strict=True)))
    wanted, controls = personas // len(chosen), protocol.design["controls"]
    _enough("backgrounds.csv", "backgrounds", len(people), wanted)
    for role in ("placebo", "filler"):
        _enough("control_traits.csv", f"controls of role {role}", sum(traits["role"] == role), controls[role])
    for number, (background, who) in people[:wanted]:
        rows += [persona(background, who, number, level) for level in chosen]
    rows.append({"condition": "none", "role": "none", "system": None})
    rows.append({"condition": "assistant", "role": "baseline", "system": text["assistant"]})
    placebos = traits[traits["role"] == "placebo"].head(controls["placebo"])
    for (_, (background, who)), control, trait in zip(people, placebos["control"], placebos["text"], strict=False):
        system = text["placebo"].replace("{background}", who).replace("{trait}", trait)
        rows.append({"condition": control, "role": "placebo", "background": background, "system": system})
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
    texts = zip(frame["system"], frame["description"], strict=True)
    return frame.assign(condition_hash=[text_hash(system, description) for system, description in texts])


def _persona(
    text: str, wording: Mapping[Any, str], background: str, who: str, number: int, level: int
) -> dict[str, object]:
    trait = wording[level, number % 5 + 1]
    return {
        "condition": f"{background}-{level}",
        "role": "persona",
        "background": background,
        "level": level,
        "system": text.replace("{background}", who).replace("{level}", trait),
        "description": f"The person is {who}. The person is {trait}.",
    }


def _enough(bank: str, what: str, held: int, wanted: int) -> None:
    """Refuse a bank that holds fewer than a run asks for: the run would be smaller than its parameters say."""
    if held < wanted:
        raise BankError(
            f"data/items/sycophancy/{bank} holds {held} {what}, this run asks for {wanted}; add rows or ask fewer."
        )


def questionnaire(project: Project, *, texts: bool = False) -> pd.DataFrame:
    """Return the agreeableness items of the IPIP-NEO-300, ten for each of six facets.

    Returns:
        ``item, item_hash, facet, key, text``. The text is None unless ``texts`` is set: it comes from its
        pinned source, and analysis needs only facet, key and hash.
    """
    if texts:
        return published.ipip_items(project)
    return published.ipip_keys(project).assign(text=None)


def claims(project: Project, topics: int, claims_per_topic: int) -> pd.DataFrame:
    """Return the claims and their mirrors: ``item, item_hash, text, topic, claim, side``."""
    bank = banks.read(project.items / "sycophancy" / "claims.csv", Claim)
    _enough("claims.csv", "topics", bank["topic"].nunique(), topics)
    for topic, held in bank["topic"].value_counts(sort=False).head(topics).items():
        _enough("claims.csv", f"claims of topic {topic}", held, claims_per_topic)
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


def instrument(project: Project, protocol: Protocol, *, texts: bool = False) -> pd.DataFrame:
    """Return the statements of the second instrument: ``item, item_hash, text, key, order``.

    As many that an agreeable person says yes to as no, drawn by the protocol's seed among those whose label is most
    certain. Half of either are asked with Yes first, half with No first, in every condition alike.
    """
    how = protocol.design[INSTRUMENT]
    bank = published.yes_no(project, texts=texts)
    ranked = bank.groupby("key")["label_confidence"].rank(ascending=False, method="first")
    certain = bank[ranked <= how["most_certain"]]
    drawn = multiple_choice.sample(certain.assign(domain=certain["key"]), 2 * how["each_key"], how["seed"])
    return drawn.assign(order=drawn.groupby("key").cumcount() % 2)[["item", "item_hash", "text", "key", "order"]]


def stances(project: Project, protocol: Protocol, *, texts: bool = False) -> pd.DataFrame:
    """Return the mirrored stances, drawn by the protocol's seed among the shorter ones, as :func:`claims` does."""
    how = protocol.design[STANCES]
    bank = published.stances(project, texts=texts)
    longest = bank.groupby("claim", sort=False)["words"].max()
    short = pd.DataFrame({"item": longest.index[longest <= how["most_words"]], "domain": ""})
    drawn = multiple_choice.sample(short, how["topics"], how["seed"])["item"]
    chosen = bank[bank["claim"].isin(drawn)].reset_index(drop=True)
    return chosen.assign(topic=chosen["claim"])[["item", "item_hash", "text", "topic", "claim", "side"]]


def plan(project: Project, protocol: Protocol, parameters: Parameters, *, texts: bool = False) -> pd.DataFrame:
    """Return every cell of the study.

    Fewer topics, claims or personas make a smaller grid whose cells are the same: the order of a statement's labels
    depends on its place in the bank alone.

    Args:
        parameters: The extent of the grid: personas, topics, claims per topic.
        texts: Whether the texts of others are wanted, which recording needs and analysis does not: the
            questionnaire, the second instrument and the stances come from their pinned sources.
    """
    measures, design = protocol.measures, protocol.design
    people = conditions(project, protocol, parameters.personas)
    asked = claims(project, parameters.topics, parameters.claims_per_topic)
    statements = questionnaire(project, texts=texts)
    inventory = statements[statements["facet"].isin(design["facets"])]
    described = people[people["role"] == "persona"].assign(system=None)
    reference = people[people["condition"].isin(design["reference"])]
    few = pd.concat([people[people["role"] == "persona"], reference])
    second = instrument(project, protocol, texts=texts)
    nothing = pd.DataFrame({"item": ["neutral"], "item_hash": [text_hash("")], "text": [""]})

    def cells(name: str, conditions: pd.DataFrame, items: pd.DataFrame, *roles: str) -> pd.DataFrame:
        declared = measures[name]
        return plans.measure(
            name,
            declared.kind,
            conditions=conditions[["condition", "condition_hash", "system", "description"]],
            items=items[["item", "item_hash", "text"]],
            templates=declared.frame(*roles)[["template", "shared", "user"]],
            options=declared.options,
            labels=declared.labels,
            orders=declared.orders,
            max_tokens=declared.max_tokens,
        )

    def turned(everyone: pd.DataFrame, own: pd.Series) -> list[pd.DataFrame]:
        """Return the cells in each statement's own order, then those of the reference conditions in the others."""
        mine = everyone["order"] == everyone["item"].map(own)
        return [everyone[mine], everyone[~mine & everyone["condition"].isin(design["reference"])]]

    def labels(name: str, people: pd.DataFrame, asked: pd.DataFrame) -> list[pd.DataFrame]:
        own = pd.Series(label_orders(asked, measures[name].orders).to_numpy(), index=asked["item"])
        everyone = cells(name, people, asked, "asserted", "unattributed")
        parts = [cells(name, people, nothing, "neutral"), *turned(everyone, own)]
        again = [t.role for t in measures[name].templates if t.role.endswith("second wording")]
        return parts + (turned(cells(name, reference, asked, *again), own)[:1] if again else [])

    return plans.combine(
        [
            *(part for name in LABELS for part in labels(name, people, asked)),
            cells("self_rating", people, inventory),
            cells("other_rating", described, inventory),
            cells("agree_letter", people, _of_topics(asked, design["topics_letter"])),
            cells("reply", people, _of_topics(asked, design["topics_reply"])),
            *turned(cells(INSTRUMENT, few, second), second.set_index("item")["order"]),
            *labels(STANCES, few, stances(project, protocol, texts=texts)),
        ]
    )


def label_orders(asked: pd.DataFrame, orders: int) -> pd.Series:
    """Return the order in which each statement's labels are shown: topics in turn, a mirror in the next order.

    So every label stands equally often in every place, for claims and for mirrors, in every condition alike.

    Args:
        asked: Claims and mirrors: ``topic, claim, side``.
        orders: Cyclic orders of the labels.
    """
    topic = pd.Series(pd.factorize(asked["topic"])[0], index=asked.index)
    within = asked.groupby(["topic", "side"], sort=False).cumcount()
    return (topic + within + asked["side"].eq("mirror")) % orders


def _of_topics(asked: pd.DataFrame, topics: int) -> pd.DataFrame:
    return asked[asked["topic"].isin(asked["topic"].unique()[:topics])]
