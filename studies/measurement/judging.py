"""From tests to verdicts: gates, claims about several tests, several models, the published layer, responders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats as sp

from measurement import live, psychometrics, released
from measurement.facts import BEHAVIOURS
from persona_studies.analyse import claims, families, gates, reasons, verdicts
from persona_studies.analyse.families import Settings
from persona_studies.analyse.stats.power import units_that_decide
from persona_studies.design.protocol import Claim, Protocol

PUBLISHED = ("SH1", "SH2", "SH2_live", "GU1", "GU2", "MP1", "PA1", "IL1", "IL3", "PL1", "HU1", "HU2")
"""Claims with a layer for the papers' analysis: no correction, and rows as units where a paper does so."""
INDUCED = ("induction", "specificity", "method", "controls")
"""Families about what an instruction does; beside their verdicts stands that no instruction moves the model."""
Found = dict[tuple[str, str, str], verdicts.Evidence]
"""(family, hypothesis, layer) -> what it came to."""
PARTS = {
    "facts": "facts_",
    "plain facts": "facts_",
    "binary labels": "binary_",
    "rating labels": "rating_",
    "rating": "induced_rating",
    "statement": "statement",
    "scenario labels": "scenario",
    "scenario": "scenario",
}
"""Part of the gate -> start of the measures it rests on; of labels only their mass is asked, of plain facts not
whether their negations are told apart."""


def behind(gate: pd.DataFrame, part: str) -> pd.DataFrame:
    """Return the checks of the measures that a part of the gate rests on; none where none of them is recorded."""
    rows = gate[gate["measure"].str.startswith(PARTS[part])] if len(gate) else gate
    if rows.empty or not part.endswith("labels"):
        return rows[rows["check"] != "auc negated"] if len(rows) and part.startswith("plain") else rows
    return rows[rows["check"] == "option mass"]


def with_gate(protocol: Protocol, tests: pd.DataFrame, gate: pd.DataFrame) -> pd.DataFrame:
    """Say of every test about a model what behind it failed, or what is not recorded."""
    said = []
    for family, hypothesis, n in zip(tests["family"], tests["hypothesis"], tests["n"], strict=True):
        rows = [behind(gate, part) for part in _parts(protocol, family, hypothesis)]
        whole = n and all(map(len, rows))
        lacks = "" if whole else reasons.unrecorded(_unrecorded(protocol, family, hypothesis, gate))
        said.append(gates.failures(pd.concat(rows)) or lacks)
    return tests.assign(gate=said)


def _parts(protocol: Protocol, family: str, hypothesis: str) -> list[str]:
    """Return the parts of the gate that a test rests on; a test of one outcome rests on that one alone."""
    parts: list[str] = protocol.design["rests"][family]
    contrast = protocol.families[family].contrasts.get(hypothesis)
    return [contrast.outcome] if contrast is not None and contrast.outcome in parts else parts


def _unrecorded(protocol: Protocol, family: str, hypothesis: str, gate: pd.DataFrame) -> list[str]:
    """Return what a test needs that is not recorded: measures, or where these are, some of their cells."""
    parts = [part for part in _parts(protocol, family, hypothesis) if behind(gate, part).empty]
    return [PARTS[part].rstrip("_") for part in parts] or [_asked(protocol, family, hypothesis)]


def _asked(protocol: Protocol, family: str, hypothesis: str) -> str:
    """Return which answers a test of a recorded model needs."""
    if family == "order_by_domain":
        return f"rating_{protocol.families[family].contrasts[hypothesis].outcome}"
    return {"order": "binary", "negation": "binary", "wording": "rating", "frames": "frame"}.get(
        family, "a condition"
    )


def as_published(tests: pd.DataFrame, facts: released.Facts, how: Settings) -> pd.DataFrame:
    """Return the tests as the papers do them: each p by itself, and Personality-Illusion's rows as units."""
    made = tests.copy()
    mine = made["family"] == "illusion_dissociation"
    if mine.any():
        rows = released.correlations(facts["illusion_scores"].dropna(subset=list(BEHAVIOURS.values())), how)
        for name in ("n", "estimate", "low", "high", "p", "p_bound"):
            made.loc[mine, name] = [rows[hypothesis][name] for hypothesis in made.loc[mine, "hypothesis"]]
    return made.assign(
        p_adjusted=made["p"],
        rejected=made["p"].fillna(1) <= how.alpha,
        p_bound_adjusted=made["p_bound"],
        bounded=made["p_bound"].fillna(1) <= how.alpha,
    )


def counted(
    protocol: Protocol,
    tests: pd.DataFrame,
    declared: Mapping[str, Any],
    smallest: float,
    how: Settings,
    *,
    stuck: bool = False,
) -> verdicts.Evidence | None:
    """Decide a claim about several tests by counting; None where none of them was made.

    Args:
        protocol: Directions of hypotheses, sizes of families.
        tests: All tests, with ``gate``, decided as ``how`` says.
        declared: ``family`` (a pattern) and ``direction`` of the set, and the ``smallest`` effect of its tests
            where that is on another scale than the claim's.
        smallest: Smallest effect of the claim.
        stuck: Whether no instruction moves the model's ratings.
    """
    mine = tests[[fnmatchcase(name, declared["family"]) for name in tests["family"]]]
    valid = mine[(mine["gate"] == "") & mine["estimate"].notna()]
    if mine.empty or not mine["n"].any():
        return None
    if valid.empty:
        why = next(filter(None, mine["gate"]), "the estimates are undefined")
        return verdicts.Evidence(
            estimate=np.nan,
            rejected=False,
            informative=False,
            reason=why,
            gated=True,
            details=_failed(protocol, mine),
        )
    wanted, n, margin = declared["direction"], len(valid), declared.get("smallest", smallest)
    count = _count(protocol, valid, wanted)
    yes, no = int(count.agree.sum()), int(count.against.sum())
    bounded = wanted != "none" and valid["bounded"].all()
    details = [f"{n} of {n} smaller than {margin:g}"] if bounded else []
    if len(mine) > n:
        details.append(f"{len(mine) - n} more are not recorded, failed their check or are undefined")
    return verdicts.Evidence(
        estimate=yes / n,
        rejected=count.rejected,
        equivalent=count.equivalent,
        rising=tuple(valid.loc[count.agree, "hypothesis"]) if count.mixed else (),
        falling=tuple(valid.loc[count.against, "hypothesis"]) if count.mixed else (),
        why=reasons.counted(yes, n, no, none=wanted == "none"),
        details="; ".join(details),
        needed=None if count.decides else _units(protocol, mine, valid, wanted, how),
        unit=f"{protocol.families[valid['family'].iloc[0]].unit} in each test",
        gated=declared["family"] in live.FAMILIES,
        steerable=False if stuck and declared["family"] in INDUCED and not count.rejected else None,
    )


def _failed(protocol: Protocol, tests: pd.DataFrame) -> str:
    """Say what failed behind each outcome of several tests, where they have more than one."""
    by = families.declared(protocol, tests[tests["n"] > 0]).drop_duplicates("outcome")
    return "; ".join(f"{one.outcome}: {one.gate}" for one in by.itertuples()) if len(by) > 1 else ""


@dataclass(frozen=True)
class Count:
    """Decisions of several tests, and what they come to together.

    Attributes:
        agree: Which tests are as claimed.
        against: Which are significant against the claim.
        rejected: Whether more than half agree, or the claim is contradicted.
        equivalent: Whether every effect is shown to be small, and none is significant as claimed.
        mixed: Whether some agree and some are against.
    """

    agree: pd.Series
    against: pd.Series
    rejected: bool
    equivalent: bool
    mixed: bool

    @property
    def decides(self) -> bool:
        """Whether the claim does not stay open."""
        return self.rejected or self.equivalent or self.mixed


def _count(protocol: Protocol, tests: pd.DataFrame, wanted: str) -> Count:
    """Count the decisions of tests, by the rule of the protocol's ``design.sets``."""
    if wanted == "none":
        agree, against = tests["bounded"], tests["rejected"] & ~tests["bounded"]
        most = bool((agree.sum() > len(tests) / 2) or (against.sum() > len(tests) / 2))
        return Count(agree, against, rejected=most, equivalent=False, mixed=False)
    sign = _signs(protocol, tests, wanted)
    agree = tests["rejected"] & (sign * tests["estimate"] > 0)
    against = tests["rejected"] & (sign * tests["estimate"] < 0) & (wanted != "either")
    yes, no = int(agree.sum()), int(against.sum())
    return Count(
        agree,
        against,
        rejected=yes > len(tests) / 2 or (no > 0 and yes == 0),
        equivalent=bool(tests["bounded"].all() and not yes),
        mixed=yes > 0 and no > 0,
    )


def _units(protocol: Protocol, family: pd.DataFrame, tests: pd.DataFrame, wanted: str, how: Settings) -> float:
    """Return with how many units in each test a claim that is open would be decided, were effects as found.

    Args:
        family: All tests of the families, which are corrected together.
        tests: Those that count.
    """

    def decides(units: int) -> bool:
        more = families.more_units(family, units).groupby("family", sort=False)
        again = pd.concat([families.decided(part, protocol.families[str(name)], how) for name, part in more])
        return _count(protocol, again.loc[tests.index], wanted).decides

    return units_that_decide(decides, int(tests["n"].max()))


def _signs(protocol: Protocol, tests: pd.DataFrame, wanted: str) -> np.ndarray:
    if wanted == "either":
        signs: np.ndarray = np.sign(tests["estimate"].to_numpy(dtype=float))
        return signs
    if wanted != "toward the pole":
        return np.full(len(tests), -1.0 if wanted == "negative" else 1.0)
    found = [
        protocol.families[family].contrasts[hypothesis].direction
        for family, hypothesis in zip(tests["family"], tests["hypothesis"], strict=True)
    ]
    return np.array([-1.0 if direction == "negative" else 1.0 for direction in found])


def evidence(
    protocol: Protocol, tests: pd.DataFrame, facts: released.Facts, how: Settings, *, stuck: bool = False
) -> Found:
    """Return what every hypothesis and every set of them came to, in both layers.

    Args:
        tests: Families about released answers, or about one recorded model, with ``gate``.
        facts: Tables of facts, for the published layer.
        stuck: Whether no instruction moves the model's ratings.
    """
    found: Found = {}
    smallest = {str(c.hypothesis): float(c.smallest_effect or np.nan) for c in protocol.claims.values()}
    alone = replace(how, correction="none")
    for layer, table, by in (("corrected", tests, how), ("published", as_published(tests, facts, how), alone)):
        for name, declared in protocol.design["sets"].items():
            together = counted(protocol, table, declared, smallest.get(name, np.nan), by, stuck=stuck)
            if together is not None:
                found["sets", name, layer] = together
        for row in table[table["n"] > 0].to_dict("records"):
            found[row["family"], row["hypothesis"], layer] = _single(row, stuck, corrected=layer == "corrected")
    for name, claim in protocol.claims.items():
        if name not in PUBLISHED:
            for hypothesis in (claim.hypothesis, *claim.also):
                found.pop((str(claim.family), str(hypothesis), "published"), None)
    return found


def judged(
    protocol: Protocol, public: Found, models: Mapping[str, Found], checks: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """Return the verdicts on every claim (:func:`persona_studies.analyse.verdicts.of_models`).

    Args:
        public: Evidence about released answers.
        models: Model -> its evidence, in the declared order.
        checks: Model -> the checks of what is recorded.
    """
    about = [name for name in protocol.claims if about_model(protocol, name)]
    absent = {model: {name: _lacking(protocol, name, gate) for name in about} for model, gate in checks.items()}
    return verdicts.of_models(
        protocol,
        {**models, claims.PUBLISHED_DATA: public},
        absent={**absent, claims.PUBLISHED_DATA: dict.fromkeys(about, "no model is recorded")},
    )


def _lacking(protocol: Protocol, claim: str, gate: pd.DataFrame) -> str:
    """Return what is not recorded yet of what a claim needs."""
    declared = protocol.claims[claim]
    family = _family(protocol, declared)
    needed = [str(declared.hypothesis)] if family == declared.family else protocol.families[family].hypotheses
    names = {name for hypothesis in needed for name in _unrecorded(protocol, family, hypothesis, gate)}
    return reasons.unrecorded(sorted(names))


def _family(protocol: Protocol, claim: Claim) -> str:
    """Return the family of the tests that decide a claim: its own, or that of the set which it is about."""
    return str(protocol.design["sets"].get(claim.hypothesis, {}).get("family", claim.family))


def about_model(protocol: Protocol, claim: str) -> bool:
    """Return whether a claim is decided by answers of a recorded model."""
    return _family(protocol, protocol.claims[claim]) in live.FAMILIES


def _single(row: Mapping[Any, Any], stuck: bool, *, corrected: bool) -> verdicts.Evidence:
    gated = row["family"] in live.FAMILIES
    return verdicts.Evidence.of(
        row,
        reason=row["gate"],
        corrected=corrected,
        steerable=False if stuck and row["family"] in INDUCED and not row["rejected"] else None,
        needed=families.needed(row),
        gated=gated,
    )


def responders(
    protocol: Protocol, keys: np.ndarray, domains: np.ndarray, *, seed: int, people: int | None = None
) -> pd.DataFrame:
    """Return the reference responders as :func:`measurement.psychometrics.summary` sees them, with their flag."""
    declared = protocol.design["responders"]
    rows = []
    for number, (name, rule) in enumerate((k, v) for k, v in declared.items() if k != "people"):
        answers = psychometrics.responder(
            name, keys, domains, people=people or declared["people"], seed=seed + number
        )
        row = psychometrics.summary(answers)
        rows.append({"who": f"simulated: {name}", "rule": rule, **row, "flag": psychometrics.flag(row)})
    return pd.DataFrame(rows)


def released_people(summaries: pd.DataFrame) -> pd.DataFrame:
    """Return the released questionnaires with their flag, by the same rule."""
    rows = [
        {"who": r["dataset"], "rule": "", **r, "flag": psychometrics.flag(r, r["top"])} for r in _rows(summaries)
    ]
    return pd.DataFrame(rows).drop(columns=["dataset", "top"])


def recorded_people(made: live.Scores, model: str) -> pd.DataFrame:
    """Return a recorded model as its settings and as its conditions, with their flags; empty where nothing is."""
    rows = []
    for block, stand in (("rating_", "settings"), ("induced_rating", "conditions")):
        answers = live.questionnaire(made, block)
        if answers is not None:
            row = psychometrics.summary(answers)
            rows.append({"who": f"recorded: {model}, {stand}", "rule": "", **row, "flag": psychometrics.flag(row)})
    return pd.DataFrame(rows)


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def icc(scores: pd.DataFrame, scale: str) -> float:
    """Return ICC(A,1) of a scale over tuned models x settings, two-way random (McGraw and Wong 1996)."""
    tuned = scores[scores["tuned"]]
    setting = tuned[["prompt", "temperature", "run"]].astype(str).agg("-".join, axis=1)
    table = tuned.assign(setting=setting).pivot(index="model", columns="setting", values=scale).to_numpy(float)
    n, k = table.shape
    grand, by_row, by_column = table.mean(), table.mean(axis=1), table.mean(axis=0)
    rows = k * ((by_row - grand) ** 2).sum() / (n - 1)
    columns = n * ((by_column - grand) ** 2).sum() / (k - 1)
    rest = ((table - by_row[:, None] - by_column[None, :] + grand) ** 2).sum() / ((n - 1) * (k - 1))
    return float((rows - rest) / (rows + (k - 1) * rest + k * (columns - rest) / n))


def places(choices: pd.DataFrame) -> pd.DataFrame:
    """Count listed places of chosen options, permuted prompts only: ``model, place, answers, uniform_p``."""
    table = choices[choices["permuted"] & choices["place"].notna()]
    counts = table.groupby(["model", "place"]).size().rename("answers").reset_index()
    p = counts.groupby("model")["answers"].agg(lambda n: float(sp.chisquare(n).pvalue))
    return counts.assign(uniform_p=counts["model"].map(p))
