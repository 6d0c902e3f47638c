"""From the tests of both parts to the verdicts."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from persona_choice import judge, live, published, surveys
from persona_choice.live import Live
from persona_studies.analyse import families, verdicts
from persona_studies.analyse.claims import PUBLISHED_DATA
from persona_studies.analyse.families import Settings
from persona_studies.analyse.verdicts import Evidence
from persona_studies.design.protocol import Hypothesis, Protocol

Found = dict[tuple[str, str, str], Evidence]
GAIN = 0.317
"""Reduction of the gap to human answers that DeepPersona reports."""


def corrected(tests: pd.DataFrame, certain: pd.DataFrame, reached: pd.DataFrame) -> Found:
    """Return the evidence of the declared analysis of released data.

    Args:
        tests: Of :func:`persona_choice.judge.contrasts` and :func:`persona_choice.surveys.method_tests`.
        certain: Of :func:`persona_choice.judge.certain`.
        reached: Of :func:`persona_choice.surveys.by_item`, against all human answers.
    """
    found: Found = families.evidence(tests, failed={}, stuck={})
    found["pj_certain", "accuracy when certain - .80", "corrected"] = _certain(certain)
    key = ("dp_methods", "DeepPersona - direct | six items, KS", "corrected")
    if key in found:
        found[key] = _nearer(found[key], reached)
    return found


def _certain(certain: pd.DataFrame) -> Evidence:
    """Judge "above 80 % when certain" by Wilson's limits in every run of a binary task."""
    over, under = certain.loc[certain["over"], "run"], certain.loc[certain["under"], "run"]
    first = certain.iloc[0]
    return Evidence(
        estimate=first["accuracy"] - 0.8,
        low=first["low"] - 0.8,
        high=first["high"] - 0.8,
        rejected=bool(len(over) or len(under)),
        corrected=False,
        rising=tuple(over),
        falling=tuple(under),
        why=f"{len(over)} of {len(certain)} runs above 0.8, none below" if not len(under) else "",
    )


def _nearer(evidence: Evidence, reached: pd.DataFrame) -> Evidence:
    """Judge DeepPersona's claim by its own rule: an interval without 0, and a reduction of 31.7 %."""
    means = reached.groupby("method")["KS"].mean()
    reduction = 1 - means["DeepPersona"] / means["direct"]
    apart = evidence.high < 0 or evidence.low > 0
    enough = reduction >= GAIN or evidence.low > 0
    return Evidence(
        estimate=evidence.estimate,
        low=evidence.low,
        high=evidence.high,
        p_adjusted=evidence.p_adjusted,
        rejected=bool(apart and enough),
        why=f"mean KS {reduction:.1%} smaller, its interval {'excludes' if apart else 'includes'} 0",
    )


def as_published(
    protocol: Protocol, rows: pd.DataFrame, counts: pd.DataFrame, aligned: pd.DataFrame, how: Settings
) -> Found:
    """Return the evidence of the papers' own analyses: unpaired, ties as wrong, aligned by row, uncorrected.

    Args:
        rows: Of :func:`persona_choice.judge.rows`.
        counts: The table ``judge_runs``.
        aligned: Of :func:`persona_choice.surveys.by_item`, against the first respondents.
    """
    known = counts.set_index("run").to_dict("index")
    found: Found = {}

    def right(label: str) -> tuple[int, int]:
        row = known[published.RUNS[label]]
        return row["k_high"] + row["k_low"], row["n_high"] + row["n_low"]

    for h, contrast in protocol.families["pj_features"].contrasts.items():
        one, other = (right(f"OpinionQA {contrast.on} {each}") for each in (contrast.first, contrast.second))
        found["pj_features", h, "published"] = _unpaired(one, other, contrast, how, "OpinionQA, unpaired z")
    for h, contrast in protocol.families["pj_persona"].contrasts.items():
        one, other = (right(f"PRISM {contrast.on} {each}") for each in (contrast.first, contrast.second))
        found["pj_persona", h, "published"] = _unpaired(one, other, contrast, how, "ties counted as wrong")
    first = judge.certain(judge.strata(rows, counts, published.HIGH), how).iloc[0]
    found["pj_certain", "accuracy when certain - .80", "published"] = Evidence(
        estimate=first["accuracy"] - 0.8,
        low=first["low"] - 0.8,
        high=first["high"] - 0.8,
        rejected=bool(first["over"] or first["under"]),
        corrected=False,
        why=f"{first['accuracy']:.0%} of {first['n']} certain replies are right",
        details=str(first["run"]),
    )
    means = aligned.groupby("method")["KS"].mean()
    found["dp_methods", "DeepPersona - direct | six items, KS", "published"] = Evidence(
        estimate=float(means["DeepPersona"] - means["direct"]),
        rejected=False,
        corrected=False,
        why=f"mean KS is {1 - means['DeepPersona'] / means['direct']:.1%} smaller, without a test",
        details="against the first 40 and 100 respondents",
    )
    return found


def _unpaired(
    one: tuple[int, int], other: tuple[int, int], contrast: Hypothesis, how: Settings, said: str
) -> Evidence:
    row = judge.unpaired(*one, *other, contrast, how)
    rejected = row["p"] <= how.alpha
    able = families.able({**row, **vars(contrast)}, 1, how)
    return Evidence(
        estimate=row["estimate"],
        low=row["low"],
        high=row["high"],
        p_adjusted=row["p"],
        rejected=rejected,
        corrected=False,
        needed=verdicts.units_to_decide(
            able["n_needed"],
            row["n"],
            direction=contrast.direction,
            effect=row["estimate"],
            smallest=contrast.smallest_effect,
            detectable=able["detectable"],
        ),
        why=f"{one[0] / one[1]:.3f} against {other[0] / other[1]:.3f}, {'' if rejected else 'not '}significant",
        details=said,
    )


def judged(
    protocol: Protocol,
    released: Found,
    everyone: Mapping[str, Live],
    *,
    layer: str = "both",
    runs: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return the verdict per claim, layer and model (:func:`persona_studies.analyse.verdicts.of_models`).

    Args:
        released: Evidence of released data.
        everyone: Model -> what was asked of it.
        layer: ``published``, ``corrected`` or ``both``.
        runs: Of :func:`persona_choice.judge.runs`; what it has of a printed number goes into ``recomputed``.
    """
    found = {
        name: families.evidence(one.tests, failed=one.failed, stuck=one.stuck) for name, one in everyone.items()
    }
    absent = {name: live.absent(protocol, one) for name, one in everyone.items()}
    table = verdicts.of_models(
        protocol,
        {**found, PUBLISHED_DATA: released},
        layer=layer,
        absent={**absent, PUBLISHED_DATA: live.absent(protocol, None)},
    )
    if runs is None:
        return table
    of = runs.set_index("run")
    again = {
        "pj1": ("OpinionQA GPT-4o key", "OpinionQA GPT-4o age only"),
        "pj2": ("PRISM Command R+ all", "PRISM Command R+ none"),
    }
    said = {}
    for claim, names in again.items():
        share = of.loc[[*names], "accuracy"]
        same = bool((share.round(3) == of.loc[[*names], "printed"]).all())
        said[claim] = f"{'✓' if same else '✗'} share right {' against '.join(share.map('{:.3f}'.format))}"
    return table.assign(recomputed=table["claim"].map(said).fillna(""))


def recomputed(runs: pd.DataFrame, reached: pd.DataFrame, aligned: pd.DataFrame) -> pd.DataFrame:
    """Return quantities that no paper prints, under plain names: ``quantity, value, n``.

    Args:
        runs: Of :func:`persona_choice.judge.runs`.
        reached: Distances to all human answers, item by item.
        aligned: Distances to the first respondents.
    """
    none = runs.set_index("run").loc["PRISM Command R+ none"]
    rows = [
        ("accuracy without persona, ties counted as wrong", none["accuracy"], none["n"]),
        ("accuracy without persona, ties dropped", none["untied"], none["n_untied"]),
    ]
    for said, table in (("all people", reached), ("the first respondents", aligned)):
        for method, part in table.groupby("method", sort=False):
            rows.append((f"mean KS over six items, {method}, against {said}", part["KS"].mean(), part["n"].max()))
    return pd.DataFrame(rows, columns=["quantity", "value", "n"]).astype({"n": int})


def sizes(protocol: Protocol) -> pd.DataFrame:
    """Return the declared sizes of the live part: ``what, number``."""
    declared = protocol.confirmatory.sizes if protocol.confirmatory else {}
    return pd.DataFrame([{"what": name.replace("_", " "), "number": number} for name, number in declared.items()])


def methods(aligned: pd.DataFrame, reached: pd.DataFrame) -> pd.DataFrame:
    """Return the mean distances of every method, row-aligned as published and against all people."""
    parts = []
    for people, table in (("first respondents (published)", aligned), ("all people", reached)):
        parts.append(
            table.groupby("method", sort=False)[[*surveys.DISTANCES]].mean().reset_index().assign(people=people)
        )
    whole = pd.concat(parts, ignore_index=True)
    return whole[["people", "method", *surveys.DISTANCES]]
