"""The grid of the study of questionnaires: items, conditions, and every cell of its seven blocks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

import pandas as pd
from pydantic import Field

from measurement import further
from persona_studies.analyse.families import Settings
from persona_studies.analyse.stats.multiplicity import Correction
from persona_studies.design import banks, parameters
from persona_studies.design import plan as plans
from persona_studies.design.conditions import shuffled
from persona_studies.design.plan import text_hash
from persona_studies.design.protocol import Hypothesis, Protocol
from persona_studies.paths import Project

Domain = Literal["neuroticism", "extraversion", "openness", "agreeableness", "conscientiousness"]
DOMAINS: tuple[str, ...] = get_args(Domain)
Block = Literal["A", "B", "C", "D", "E", "F", "G"]
Labels = Literal["digits", "upper", "lower"]
Pair = Literal["true_false", "yes_no"]
Negation = Literal["word", "meaning"]
Method = Literal["naive", "words", "paragraph"]


class Key(banks.Row):
    """An item of the IPIP-NEO-300; ``key`` is -1 where agreement means less of the domain."""

    unique = (("number",),)

    number: int = Field(ge=1, le=300)
    domain: Domain
    facet: int = Field(ge=1, le=6)
    key: int = Field(ge=-1, le=1)
    item_hash: banks.Hash


class Statement(banks.Row):
    """An item of the short form as it stands, negated by a word, or by its meaning; about "I" and "you"."""

    unique = (("number", "form"), ("i",), ("you",))

    number: int = Field(ge=1, le=300)
    form: Literal["plain", "word", "meaning"]
    i: str
    you: str


class Fact(banks.Row):
    """A statement that everybody knows to be true or false, and its negation."""

    unique = (("fact",), ("plain",))

    fact: banks.Name
    truth: Literal["true", "false"]
    plain: str
    word: str


class Persona(banks.Row):
    """A system turn, and what it is meant to move."""

    unique = (("condition",), ("text",))

    condition: banks.Name
    role: Literal["persona", "baseline", "placebo", "filler", "positive control"]
    trait: Literal["", "neuroticism", "extraversion", "openness", "agreeableness", "conscientiousness"] = ""
    pole: Literal["", "high", "low"] = ""
    method: Literal["", "naive", "words", "paragraph"] = ""
    text: str


class Scenario(banks.Row):
    """A situation with two answers of somebody high on a domain, and two of somebody low."""

    unique = (("item",), ("situation",))

    item: banks.Name
    domain: Domain
    situation: str
    high_1: str
    low_1: str
    high_2: str
    low_2: str


class Parameters(parameters.Parameters):
    """Parameters of the notebook; the defaults are in its first code cell."""

    models: tuple[str, ...] = Field(description="recorded models, the first in full; empty: all that are recorded")
    live_hours: float = Field(
        ge=0, description="hours that may be spent asking the first model here; 0 only replays"
    )
    blocks: tuple[Block, ...] = Field(min_length=1, description="blocks of the grid, A to G")
    items_per_pole: int = Field(ge=1, le=6, description="items per domain and pole")
    wordings: int = Field(ge=1, le=3, description="wordings of a rating")
    labels: tuple[Labels, ...] = Field(min_length=1, description="label sets of a rating")
    pairs: tuple[Pair, ...] = Field(min_length=1, description="pairs of words of a binary answer")
    negations: tuple[Negation, ...] = Field(min_length=1, description="kinds of negation")
    methods: tuple[Method, ...] = Field(min_length=1, description="how a trait is induced")
    culture_items: int = Field(ge=0, le=500, description="opt-in: questions of CulturalPersonas, USA")
    people: int = Field(ge=0, le=300, description="opt-in: people of PAPI as conditions")
    margin_rating: float = Field(gt=0, lt=2, description="equivalence margin of a rating, points of 1 to 5")
    margin_probability: float = Field(gt=0, lt=0.5, description="equivalence margin of a probability")
    alpha: float = Field(gt=0, lt=0.5, description="error rate of every family")
    correction: Correction = Field(description="correction within a family")
    permutations: int = Field(ge=1000, le=1_000_000, description="sign patterns and permutations of a test")
    bootstrap: int = Field(ge=200, le=100_000, description="bootstrap samples of items")
    seed: int = Field(ge=0, description="of everything random")

    @property
    def settings(self) -> Settings:
        """How hypotheses are tested."""
        return Settings(self.alpha, 0.95, self.correction, self.permutations, self.seed)


def judged_by(protocol: Protocol, own: Parameters) -> Protocol:
    """Return a protocol whose equivalence tests use the margins of the parameters, each for its families."""
    margins = protocol.design["margins"]
    for margin in sorted({*margins.values()}):

        def mine(family: str, each: Hypothesis, margin: str = margin) -> bool:
            return margins.get(family) == margin and each.outcome != "statement"

        protocol = protocol.at_margin(getattr(own, margin), mine)
    return protocol


def statements(project: Project, per_pole: int = 6) -> pd.DataFrame:
    """Return the items of the short form, in every form.

    Args:
        per_pole: Items per domain and pole, the lowest numbers first.

    Returns:
        ``item, number, form, domain, facet, key, i, you``; the item's name carries the form of a negation.
    """
    folder = project.items / "measurement"
    keys = banks.read(folder / "ipip_neo_300.csv", Key)
    core = banks.read(folder / "statements.csv", Statement).merge(keys, on="number")
    plain = core[core["form"] == "plain"].sort_values("number")
    kept = plain.groupby(["domain", "key"], sort=False)["number"].head(per_pole)
    core = core[core["number"].isin(kept)]
    suffix = core["form"].map({"plain": "", "word": "-word", "meaning": "-meaning"})
    core.insert(0, "item", core["number"].map("ipip{:03d}".format) + suffix)
    return core[["item", "number", "form", "domain", "facet", "key", "i", "you"]].reset_index(drop=True)


def facts(project: Project) -> pd.DataFrame:
    """Return facts and their negations: ``item, fact, form, true`` (whether the text is true), ``text``."""
    bank = banks.read(project.items / "measurement" / "facts.csv", Fact)
    long = bank.melt(["fact", "truth"], ["plain", "word"], var_name="form", value_name="text")
    true = (long["truth"] == "true") == (long["form"] == "plain")
    return pd.DataFrame(
        {"item": long["fact"] + "-" + long["form"], "fact": long["fact"], "form": long["form"], "true": true}
    ).assign(text=long["text"])


def scenarios(project: Project, per_pole: int = 6) -> pd.DataFrame:
    """Return ``item, domain, situation, options`` (high, low, high, low); two scenarios for each item per pole."""
    bank = banks.read(project.items / "measurement" / "scenarios.csv", Scenario)
    bank = bank.groupby("domain", sort=False).head(2 * per_pole).reset_index(drop=True)
    options = [*bank[["high_1", "low_1", "high_2", "low_2"]].itertuples(index=False, name=None)]
    return bank[["item", "domain", "situation"]].assign(options=pd.Series(options, index=bank.index))


def people(project: Project, protocol: Protocol, methods: Iterable[str] = get_args(Method)) -> pd.DataFrame:
    """Return the conditions, the one without a system turn first.

    Returns:
        ``condition, role, trait, pole, method, system, description, condition_hash``.
    """
    bank = banks.read(project.items / "measurement" / "personas.csv", Persona)
    text = dict(zip(bank["condition"], bank["text"], strict=True))
    made = [
        {"condition": f"shuffled-{number}", "role": "shuffled", "text": shuffled(text[of])}
        for number, of in enumerate(protocol.design["shuffled"], start=1)
    ]
    none = pd.DataFrame([{"condition": "none", "role": "none", "text": None}])
    frame = pd.concat([none, bank, pd.DataFrame(made)], ignore_index=True)
    frame[["trait", "pole", "method"]] = frame[["trait", "pole", "method"]].fillna("")
    frame = frame[(frame["role"] != "persona") | frame["method"].isin([*methods])].reset_index(drop=True)
    system = [value if isinstance(value, str) else None for value in frame["text"]]
    return frame.drop(columns="text").assign(
        system=pd.Series(system, index=frame.index, dtype=object),
        description="",
        condition_hash=[text_hash(value, "") for value in system],
    )


def asked(items: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return items as the plan takes them, with one column as their text."""
    return pd.DataFrame(
        {"item": items["item"], "item_hash": items[column].map(text_hash), "text": items[column]}
    ).reset_index(drop=True)


def choices(situations: pd.DataFrame) -> pd.DataFrame:
    """Return situations (``item, situation, options``) as the plan takes them; the hash is of all texts."""
    items = asked(situations, "situation").assign(options=situations["options"].to_numpy())
    hashes = [text_hash(text, *options) for text, options in zip(items["text"], items["options"], strict=True)]
    return items.assign(item_hash=hashes)


def keys(project: Project) -> pd.DataFrame:
    """Return domain, facet and key of the IPIP-NEO-300, indexed by number."""
    return banks.read(project.items / "measurement" / "ipip_neo_300.csv", Key).set_index("number")


def plan(project: Project, protocol: Protocol, parameters: Parameters, *, texts: bool = False) -> pd.DataFrame:
    """Return every cell of the blocks that are asked for.

    Args:
        protocol: Measures with their templates, and who answers what.
        parameters: Blocks, and how much of each.
        texts: Not needed: all texts are in the banks, or in the sources of the opt-in blocks.

    Raises:
        SourceUnavailable: an opt-in block is asked for, and its source cannot be had.
    """
    cells = Cells(project, protocol, parameters)
    blocks = {
        "A": cells.facts,
        "B": cells.binary,
        "C": cells.ratings,
        "D": cells.induced_ratings,
        "E": cells.induced_statements,
        "F": cells.scenarios,
        "G": cells.frames,
    }
    parts = [part for name in parameters.blocks for part in blocks[name]()]
    return plans.combine([*parts, *cells.culture(), *cells.persons()])


class Cells:
    """Cells of every block. Each method returns the parts of one block."""

    def __init__(self, project: Project, protocol: Protocol, parameters: Parameters) -> None:
        self.project, self.protocol, self.parameters = project, protocol, parameters
        self.forms = statements(project, parameters.items_per_pole)
        self.plain = self.forms[self.forms["form"] == "plain"]
        self.known = facts(project)
        self.situations = scenarios(project, parameters.items_per_pole)
        self.everyone = people(project, protocol, parameters.methods)

    def facts(self) -> list[pd.DataFrame]:
        """Block A: facts and their negations, two pairs of words, both orders, no system turn."""
        return [self._cells(f"facts_{pair}", ["none"], asked(self.known, "text")) for pair in self.parameters.pairs]

    def binary(self) -> list[pd.DataFrame]:
        """Block B: statements and their negations, two pairs of words, both orders."""
        forms = self.forms[self.forms["form"].isin(["plain", *self.parameters.negations])]
        who = self.protocol.design["binary"]
        return [self._cells(f"binary_{pair}", who, asked(forms, "i")) for pair in self.parameters.pairs]

    def ratings(self) -> list[pd.DataFrame]:
        """Block C: three wordings, the scale rising and falling, three label sets."""
        wordings = self.protocol.design["wordings"][: self.parameters.wordings]
        templates = [f"{wording}_{scale}" for wording in wordings for scale in ("rising", "falling")]
        who = self.protocol.design["ratings"]
        items = asked(self.plain, "you")
        return [self._cells(f"rating_{labels}", who, items, templates) for labels in self.parameters.labels]

    def induced_ratings(self) -> list[pd.DataFrame]:
        """Block D: every condition rates every statement, by digits, the scale rising and falling."""
        templates = ["accurate_rising", "accurate_falling"]
        return [self._cells("induced_rating", None, asked(self.plain, "you"), templates)]

    def induced_statements(self) -> list[pd.DataFrame]:
        """Block E: every condition says a statement or its negation."""
        return [self._cells("statement", None, self._against_negation())]

    def scenarios(self) -> list[pd.DataFrame]:
        """Block F: paragraphs choose in scenarios in two orders; no system turn also in two further wordings."""
        measure = self.protocol.measures["scenario"]
        items = choices(self.situations)
        chosen = self.everyone[(self.everyone["method"] == "paragraph") | (self.everyone["role"] == "none")]
        first, *further = [template.template for template in measure.templates]
        return [
            self._cells("scenario", [*chosen["condition"]], items, [first]),
            self._cells("scenario", ["none"], items, further),
        ]

    def frames(self) -> list[pd.DataFrame]:
        """Block G: a statement or its negation, in a post and in a reply."""
        return [self._cells("frame", self.protocol.design["frames"], self._against_negation())]

    def culture(self) -> list[pd.DataFrame]:
        """Opt-in: questions of CulturalPersonas in five orders, no system turn."""
        if not self.parameters.culture_items:
            return []
        items = choices(further.questions(self.project, self.parameters.culture_items))
        return [self._cells("culture", ["none"], items)]

    def persons(self) -> list[pd.DataFrame]:
        """Opt-in: people of PAPI, told 120 of their answers, rate 180 further statements."""
        if not self.parameters.people:
            return []
        told = further.People(self.project, keys(self.project), self.parameters.people)
        return [self._cells("person", told.conditions(), told.items(), ["accurate_rising", "accurate_falling"])]

    def _against_negation(self) -> pd.DataFrame:
        word = self.forms[self.forms["form"] == "word"].set_index("number")["i"]
        items = asked(self.plain, "i")
        pairs = [(text, word[number]) for text, number in zip(items["text"], self.plain["number"], strict=True)]
        return items.assign(
            item_hash=[text_hash(*pair) for pair in pairs], options=pd.Series(pairs, index=items.index)
        )

    def _cells(
        self,
        name: str,
        who: list[str] | pd.DataFrame | None,
        items: pd.DataFrame,
        templates: list[str] | None = None,
    ) -> pd.DataFrame:
        measure = self.protocol.measures[name]
        # All label sets of a rating share the templates of the digits.
        declared = measure.templates or self.protocol.measures["rating_digits"].templates
        kept = [t.model_dump() for t in declared if templates is None or t.template in templates]
        conditions = who if isinstance(who, pd.DataFrame) else self.everyone
        if isinstance(who, list):
            conditions = conditions[conditions["condition"].isin(who)]
        return plans.measure(
            name,
            measure.kind,
            conditions=conditions[["condition", "condition_hash", "system", "description"]],
            items=items,
            templates=pd.DataFrame(kept)[["template", "shared", "user"]],
            options=measure.options,
            labels=measure.labels,
            orders=measure.orders,
        )
