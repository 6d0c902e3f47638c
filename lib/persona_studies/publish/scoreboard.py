"""The scoreboard: one row per claim of every study, what was published, what was found here, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from persona_studies import files
from persona_studies.analyse import claims, tables, verdicts
from persona_studies.analyse.claims import PUBLISHED_DATA
from persona_studies.design import protocol
from persona_studies.design.protocol import Claim
from persona_studies.errors import PersonaStudiesError
from persona_studies.paths import Project

NEEDED = ("claim", "layer", "statement", "published", "estimate", "low", "high", "verdict", "why")
OPTIONAL = ("model", "recomputed", "gate", "would_decide", "steerable", "details")
MODELS = 3
"""So many recorded models have a column; a study's page shows the others."""
ORDER = claims.ORDER
CLEAREST = (
    "Most clearly: of the published claims that the data decide, the one whose estimate lies farthest from the "
    "value that the claim compares it with, counted in half widths of its interval. Two kinds are left out where "
    "they hold: claims that there is no difference, and differences shown to be smaller than the smallest effect "
    "of interest."
)
"""The rule of :meth:`Board.clearest`, as the pages say it."""
ALPHA = 0.05
"""Error rate of a study whose protocol declares no recording."""
DIFFERS = ("positive", "negative", "either")
"""Directions of a claim that there is a difference."""


@dataclass(frozen=True)
class Number:
    """An estimate as the scoreboard shows it.

    Attributes:
        text: Estimate with its interval.
        unit: A name of :func:`persona_studies.analyse.claims.units`.
        verdict: What this estimate alone comes to.
        gated: Whether it stands behind a failed gate.
    """

    text: str
    unit: str
    verdict: str
    gated: bool


@dataclass(frozen=True)
class Row:
    """A claim as the scoreboard shows it.

    Attributes:
        study: Name of the study.
        claim: Name of the claim.
        layer: The analysis that decides: the declared one where there are two.
        statement: The claim in plain words.
        claimed: What the claim says about the estimate, such as "above 0".
        ours: Whether it is a question of the study itself, which no paper answers.
        source: Where it is claimed.
        published: What was published.
        answered: Who answered behind the number of published data; empty where the claim says so itself.
        recomputed: What the authors' analysis of the authors' rows gives.
        numbers: Model, or :data:`PUBLISHED_DATA`, -> its estimate.
        verdict: The verdict, in words.
        why: The reason, as the study gave it.
        would_decide: How many units would decide it, where it is inconclusive.
        steerable: "no" where no instruction moves the outcome.
        details: What the study says beside the reason.
        small: That the difference, though significant, is shown to be smaller than the smallest effect of
            interest; empty where it is not.
        paper: What the paper's own analysis comes to, where that is another verdict.
        clarity: Distance of the deciding estimate from what the claim compares it with, in half widths of its
            interval; 0 where it has none.
        different: Whether the verdict says that there is something: not where a claim that there is nothing holds.
    """

    study: str
    claim: str
    layer: str
    statement: str
    claimed: str
    ours: bool
    source: str
    published: str
    answered: str
    recomputed: str
    numbers: dict[str, Number]
    verdict: str
    why: str
    would_decide: str
    steerable: str
    details: str
    small: str
    paper: str
    clarity: float
    different: bool

    @property
    def id(self) -> str:
        """The anchor of its row in the study's page."""
        return f"claim-{self.claim}-{self.layer}"

    @property
    def result(self) -> str:
        """What the claim predicts, what was found, and in whose answers; empty where nothing is estimated."""
        for who, number in self.numbers.items():
            whose = f"{who} of {self.answered}" if who == PUBLISHED_DATA and self.answered else who
            study = self.study.replace("_", " ")
            small = f" The difference is {self.small}." if self.small else ""
            return f"Claimed: {number.unit} {self.claimed}. Found: {number.text}, {whose} ({study}).{small}"
        return ""


@dataclass(frozen=True)
class Part:
    """A study's part of the scoreboard: its rows, decided ones first, and those that cannot be tested."""

    study: str
    title: str
    rows: tuple[Row, ...]
    untestable: tuple[Row, ...]

    @property
    def all(self) -> tuple[Row, ...]:
        """Every claim of the study, in the order of the scoreboard."""
        return (*self.rows, *self.untestable)

    @property
    def models(self) -> set[str]:
        """The models, and :data:`PUBLISHED_DATA`, of which any of its claims has a number."""
        return {name for row in self.all for name in row.numbers}

    @property
    def tally(self) -> list[tuple[str, int]]:
        """Verdict -> number of claims, in the order of :data:`ORDER`."""
        said = [row.verdict for row in self.all]
        return [(word, said.count(word)) for word in ORDER if word in said]


@dataclass(frozen=True)
class Board:
    """The scoreboard: recorded models that have a column, and the studies, by how many claims they decide."""

    models: tuple[str, ...]
    parts: tuple[Part, ...]

    def counts(self) -> dict[str, int]:
        """Return the number of claims by verdict, in the order of :data:`ORDER`."""
        said = [row.verdict for part in self.parts for row in part.all]
        return {word: said.count(word) for word in ORDER}

    def clearest(self) -> list[tuple[str, Row | None]]:
        """Return the papers' claims that fail and hold most clearly, by published data and by models recorded here.

        :data:`CLEAREST` says the rule.
        """
        said = []
        for what, verdict in (
            ("Fails most clearly", verdicts.CONTRADICTED),
            ("Holds most clearly", verdicts.REPRODUCED),
        ):
            every = (row for part in self.parts for row in part.rows if not row.ours)
            rows = [row for row in every if row.verdict == verdict and row.clarity and row.different]
            if verdict == verdicts.REPRODUCED:
                rows = [row for row in rows if not row.small]
            for recorded in (False, True)[: 1 + bool(self.models)]:
                mine = (row for row in rows if recorded == (next(iter(row.numbers)) != PUBLISHED_DATA))
                name = what + " in a model recorded here" * recorded
                said.append((name, max(mine, key=lambda row: row.clarity, default=None)))
        return said

    def sentences(self) -> list[str]:
        """Say how many claims of papers came to what, and then how many questions of the studies themselves."""
        rows = [row for part in self.parts for row in part.all]
        papers, own = ([row.verdict for row in rows if row.ours == ours] for ours in (False, True))
        if not rows:
            return ["No study has claims yet."]
        kinds = ((papers, "published claim", ""), (own, "question", " of our own"))
        return [_counted(said, what, whose) for said, what, whose in kinds if said]


def _counted(found: list[str], what: str, whose: str) -> str:
    """Say in one sentence how many verdicts of each kind there are.

    >>> _counted(["reproduced", "inconclusive", "inconclusive"], "published claim", "")
    'Of 3 published claims, 1 holds and 2 stay open with the data at hand.'
    """
    count = {word: found.count(word) for word in ORDER}
    total = len(found)
    said = [
        (count[verdicts.REPRODUCED], "hold", "holds"),
        (count[verdicts.CONTRADICTED], "fail", "fails"),
        (count[verdicts.HETEROGENEOUS], "differ between models or sets", "differs between models or sets"),
        (
            count[verdicts.SAME_DIRECTION] + count[verdicts.INCONCLUSIVE],
            "stay open with the data at hand",
            "stays open with the data at hand",
        ),
        (
            count[verdicts.UNINFORMATIVE],
            "rest on a measure that failed its check",
            "rests on a measure that failed its check",
        ),
        (count[verdicts.NOT_TESTABLE], "cannot be tested here", "cannot be tested here"),
    ]
    parts = [f"{n} {one if n == 1 else many}" for n, many, one in said if n]
    joined = ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + "".join(parts[-1:])
    return f"Of {total} {what}{'' if total == 1 else 's'}{whose}, {joined}."


def load(project: Project) -> pd.DataFrame:
    """Return one row per claim, analysis and model, study by study, from the committed verdicts.

    Columns: ``study``, those of :data:`NEEDED` and :data:`OPTIONAL`, ``source`` (where the claim is made),
    ``answered`` (who answered behind a number of published data), ``claimed`` (what it says about the estimate),
    ``ours`` (whether it is a question of the study itself), ``line`` (the value that it compares it with),
    ``differs`` (whether it claims that the estimate differs from that value), ``small`` (that a significant
    difference is shown to be too small to matter), ``here`` (the estimate with its interval, as text), ``unit`` (a
    name of :func:`persona_studies.analyse.claims.units`) and ``sign``.

    Raises:
        PersonaStudiesError: a study has no verdicts, they lack a column, or they name a claim that its protocol
            does not declare, a verdict that is none, or an estimate without a unit.
    """
    studies = [_study(project, study) for study in project.names()]
    columns = ["study", *NEEDED, *OPTIONAL]
    return pd.concat(studies, ignore_index=True) if studies else pd.DataFrame(columns=columns)


def board(project: Project) -> Board:
    """Return the scoreboard: one row per claim.

    The first row of a claim decides about it, in the declared analysis where there are two; the others give the
    numbers of further models. Studies come by the number of claims that they decide, and a study's claims by their
    verdict, the clearest first.

    Raises:
        PersonaStudiesError: as :func:`load`.
    """
    found = load(project)
    parts = []
    for study, mine in found.groupby("study", sort=False):
        rows = sorted(
            (_row(claim) for _, claim in mine.groupby("claim", sort=False)),
            key=lambda row: (ORDER.index(row.verdict), -row.clarity),
        )
        here = tuple(row for row in rows if row.verdict != verdicts.NOT_TESTABLE)
        rest = tuple(row for row in rows if row.verdict == verdicts.NOT_TESTABLE)
        parts.append(Part(str(study), protocol.load(project.protocol(str(study))).title, here, rest))
    parts.sort(key=lambda part: -sum(row.verdict in verdicts.DECIDED for row in part.rows))
    recorded = found.loc[~found["model"].isin(["", PUBLISHED_DATA]) & found["estimate"].notna(), "model"]
    most = recorded.value_counts(sort=False).sort_values(ascending=False, kind="stable")
    return Board(tuple(most.index[:MODELS]), tuple(parts))


def _study(project: Project, study: str) -> pd.DataFrame:
    path = project.results(study) / "verdicts.csv"
    place = path.relative_to(project.root).as_posix()
    if not path.is_file():
        raise PersonaStudiesError(f"{place} is missing; run make study STUDY={study}, then make accept.")
    found = tables.load(path)
    declared = protocol.load(project.protocol(study))
    made, alpha = declared.claims, declared.confirmatory.alpha if declared.confirmatory else ALPHA
    known = claims.declared_units(project)
    unit = known.get(study, {})
    estimated = set(found.loc[found["estimate"].notna(), "claim"]) if set(NEEDED) <= set(found) else set()
    for wrong, what in (
        (set(NEEDED) - set(found), "lacks the column"),
        (set(found.get("claim", [])) - set(made), f"names what the protocol of {study} does not declare, claim"),
        (set(found.get("verdict", [])) - set(verdicts.SIGNS), "holds what is no verdict:"),
        (estimated - set(unit), "estimates what has no unit in data/units.toml:"),
        (set(unit.values()) - set(known["meanings"]), "has units that data/units.toml gives no meaning:"),
    ):
        if wrong:
            raise PersonaStudiesError(f"{place} {what} {', '.join(sorted(map(repr, wrong)))}.")
    optional: dict[str, Any] = {
        name: found[name].fillna("").astype(str) if name in found else "" for name in OPTIONAL
    }
    mine = [made[name] for name in found["claim"]]
    who = _answered(project, study)
    return found[list(NEEDED)].assign(
        **optional,
        study=study,
        source=[claim.source for claim in mine],
        answered=[who.get(name, who.get("all", "")) for name in found["claim"]],
        claimed=[_claimed(made[name], unit.get(name, "")) for name in found["claim"]],
        ours=[claim.ours for claim in mine],
        line=[claim.line for claim in mine],
        differs=[claim.direction in DIFFERS for claim in mine],
        small=[
            _small(made[row["claim"]], row, alpha) if row["verdict"] in verdicts.DECIDED else ""
            for row in found.to_dict("records")
        ],
        here=[_here(*row) for row in found[["estimate", "low", "high"]].itertuples(index=False)],
        unit=[
            "" if pd.isna(estimate) else unit.get(name, "")
            for name, estimate in zip(found["claim"], found["estimate"], strict=True)
        ],
        sign=found["verdict"].map(verdicts.SIGNS),
    )


def _answered(project: Project, study: str) -> dict[str, str]:
    """Return who answered behind published data, by claim, from ``data/answered.toml``.

    Raises:
        PersonaStudiesError: it cannot be read, or names a claim that the protocol does not declare.
    """
    path = project.data / "answered.toml"
    form = dict[str, dict[str, str]]
    said = files.declared(path, form, PersonaStudiesError).get(study, {}) if path.is_file() else {}
    if strange := set(said) - set(protocol.load(project.protocol(study)).claims) - {"all"}:
        raise PersonaStudiesError(
            f"data/answered.toml names what the protocol of {study} does not declare, claim "
            f"{', '.join(sorted(map(repr, strange)))}; correct the name."
        )
    return said


def _row(found: pd.DataFrame) -> Row:
    """Return one claim's rows as a row of the scoreboard."""
    layers = [name for name in ("corrected", "published") if name in set(found["layer"])]
    own = found[found["layer"] == layers[0]]
    first = own.iloc[0]
    papers = found[found["layer"] == "published"].iloc[0] if len(layers) == 2 else first
    numbers = {
        str(row["model"] or PUBLISHED_DATA): Number(
            row["here"], row["unit"], row["verdict"], row["verdict"] == verdicts.UNINFORMATIVE
        )
        for row in own[own["estimate"].notna()].to_dict("records")
    }
    distance = abs(first["estimate"] - first["line"])
    recomputed = next((text for text in found["recomputed"] if text), tables.MISSING)
    return Row(
        **{
            name: str(first[name])
            for name in (
                *("study", "claim", "layer", "statement", "claimed", "source", "published", "answered", "verdict"),
                *("why", "would_decide", "steerable", "details", "small"),
            )
        },
        ours=bool(first["ours"]),
        recomputed=recomputed,
        numbers=numbers,
        paper="" if papers["verdict"] == first["verdict"] else papers["verdict"],
        clarity=0.0 if pd.isna(first["low"]) else 2 * distance / (first["high"] - first["low"] or math.inf),
        different=bool(first["differs"]) or first["verdict"] == verdicts.CONTRADICTED,
    )


def _claimed(claim: Claim, unit: str = "") -> str:
    """Say what a claim says about its estimate; a share lies between 0 and 1.

    >>> about = {"statement": "", "source": "", "published": "", "family": "f", "hypothesis": "h"}
    >>> _claimed(Claim(**about, smallest_effect=0.02))
    'above 0'
    >>> _claimed(Claim(**about, direction="none", line=1, smallest_effect=0.2), "share of equal answers")
    'at least 0.8'
    """
    line, margin = f"{claim.line:g}", claim.smallest_effect or 0
    low, high = claim.line - margin, claim.line + margin
    between = f"between {low:g} and {high:g}"
    if unit.startswith("share of ") and (low <= 0) != (high >= 1):
        between = f"at most {high:g}" if low <= 0 else f"at least {low:g}"
    said = {
        "positive": f"above {line}",
        "negative": f"below {line}",
        "none": between,
        "not positive": f"at most {line}",
        "not negative": f"at least {line}",
        "either": f"not {line}",
    }[claim.direction]
    return (said if claim.hypothesis else "").replace("-", "−")


def _small(claim: Claim, row: Mapping[Any, Any], alpha: float) -> str:
    """Say that a significant difference is shown to be smaller than the claim's smallest effect of interest.

    >>> about = {"statement": "", "source": "", "published": "", "family": "f", "hypothesis": "h"}
    >>> _small(Claim(**about, smallest_effect=0.05), {"p_adjusted": 0.001, "p_equivalence": 0.001}, 0.05)
    'shown to be smaller than 0.05, the smallest effect of interest'
    >>> _small(Claim(**about, smallest_effect=0.05), {"p_adjusted": 0.001, "p_equivalence": 0.2}, 0.05)
    ''
    """
    both = row.get("p_adjusted", 1) <= alpha and row.get("p_equivalence", 1) <= alpha  # False where one is unknown
    if not (both and claim.direction in DIFFERS):
        return ""
    return f"shown to be smaller than {claim.smallest_effect:g}, the smallest effect of interest"


def _here(estimate: float, low: float, high: float) -> str:
    """Format an estimate and its interval: two decimals, or three where all of it is within a tenth of zero.

    >>> _here(-0.034, -0.06, -0.0004), _here(0.5, float("nan"), float("nan")), _here(*3 * [float("nan")])
    ('−0.034 [−0.060, 0.000]', '0.50', '–')
    """
    if pd.isna(estimate):
        return tables.MISSING
    known: Iterable[Any] = [estimate] if pd.isna(low) or pd.isna(high) else [estimate, low, high]
    decimals = 3 if max(map(abs, known)) < 0.1 else 2
    shown = [f"{value:z.{decimals}f}".replace("-", "−") for value in known]
    return shown[0] if len(shown) == 1 else f"{shown[0]} [{shown[1]}, {shown[2]}]"
