"""The declared analysis of the study of clinical personas: gates, steerability, the families and the verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import sqrt
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats as distributions

from clinical_personas import published, replies
from persona_studies.analyse import families, gates, multiple_choice, verdicts
from persona_studies.analyse.conclusions import Analysis, conclude
from persona_studies.analyse.families import Settings
from persona_studies.analyse.stats.agreement import cohen_kappa
from persona_studies.analyse.stats.multiplicity import correct
from persona_studies.design.protocol import Hypothesis, Protocol
from persona_studies.paths import Project

PUBLISHED = ("published_labels", "published_triage")
CASES = {"triage": "vignettes", "esi": "emergency cases"}
REFERENCE = "assistant"
# Outcome of a contrast -> column of the scores.
VALUES = {"accuracy": "score", "place": "place", "brier": "brier"}
# Measure -> the part of the gate that its contrasts rest on.
PARTS = {"letter": "cases", "medical": "medical", "text": "text"}
NOBODY = pd.DataFrame(index=pd.MultiIndex.from_tuples([], names=["stratum", "care"]))
ABOUT = ["condition", "who", "role", "style", "wording", "item", "dataset", "cluster", "care", "gold", "n_options"]
SCORED = [*ABOUT, "option_mass", "probability", "chosen", "correct", "confidence", "score", "place", "brier"]


def analyse(
    project: Project,
    protocol: Protocol,
    recorded: pd.DataFrame,
    asked: pd.DataFrame,
    everyone: pd.DataFrame,
    how: Settings,
    *,
    model: str = "",
) -> Analysis:
    """Run the declared analysis of one recording.

    Args:
        recorded: Responses to complete measures; of the others nothing is known.
        asked: Of :func:`clinical_personas.design.questions`.
        everyone: Of :func:`clinical_personas.design.people`.

    Returns:
        ``gate`` has a part for every measure that is recorded: cases, medical, text; ``said`` is as
        :func:`clinical_personas.replies.read`.
    """
    scored = scores(recorded, asked, everyone)
    said = replies.read(recorded, asked, everyone)
    gate = gated(protocol, scored, said, recorded, asked, how)
    tests = model_tests(protocol, scored, said, how)
    failed = {str(part): gates.failures(rows) for part, rows in gate.groupby("part", sort=False)}
    found = conclude(
        protocol,
        tests,
        public_tests(project, protocol, how),
        lambda family, hypothesis: failed.get(PARTS[protocol.families[family].contrasts[hypothesis].measure], ""),
        stuck(protocol, tests),
        model=model,
        scored=scored,
        gate=gate,
        said=said,
        held={*recorded["measure"]},
    )
    apart = by_set(protocol, scored, how)
    return replace(found, by_set=apart, evidence={**found.evidence, **_moved_apart(found.evidence, apart)})


def by_set(protocol: Protocol, scored: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Test every interaction with the care setting within vignettes and within emergency cases.

    Returns:
        ``family, hypothesis, cases, n, estimate, low, high, p, p_adjusted, rejected``, corrected over both sets and
        all interactions of a family together; no rows where fewer than two sets are recorded.
    """
    columns = ["family", "hypothesis", "cases", "n", "estimate", "low", "high", "p", "p_adjusted", "rejected"]
    sets = [name for name in CASES if name in {*scored["dataset"]}]
    wide = {
        name: {outcome: by_case(scored[scored["dataset"] == name], column) for outcome, column in VALUES.items()}
        for name in sets
    }
    parts = []
    for family, declared in protocol.families.items():
        mine = {name: each for name, each in declared.contrasts.items() if each.interaction is not None}
        rows = [
            {"family": family, "hypothesis": hypothesis, "cases": CASES[name], **row}
            for name in sets
            for hypothesis, row in families.estimated(mine, differences(wide[name]), how).items()
        ]
        if mine and len(sets) > 1:
            table = pd.DataFrame(rows).sort_values("hypothesis", kind="stable", ignore_index=True)
            done = correct(table["p"], size=len(table), alpha=how.alpha, method=how.correction, undefined="one")
            parts.append(table.assign(p_adjusted=done["p_adjusted"], rejected=done["rejected"])[columns])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def _moved_apart(evidence: verdicts.Found, apart: pd.DataFrame) -> dict[tuple[str, str, str], verdicts.Evidence]:
    """Return the evidence of interactions with the sets of cases that move significantly up, and down."""
    found = {}
    for key, each in evidence.items():
        mine = apart[(apart["family"] == key[0]) & (apart["hypothesis"] == key[1]) & apart["rejected"].astype(bool)]
        rising, falling = (tuple(mine.loc[side, "cases"]) for side in (mine["estimate"] > 0, mine["estimate"] < 0))
        if rising and falling:
            found[key] = replace(each, rising=rising, falling=falling)
    return found


def with_sets(claims: pd.DataFrame, found: Mapping[str, Analysis]) -> pd.DataFrame:
    """Say beside every verdict on an interaction what it is within each set of cases.

    Args:
        claims: Of :func:`persona_studies.analyse.conclusions.claims`.
        found: Model -> analysis.
    """
    details = []
    for row in claims.to_dict("records"):
        model = found.get(row["model"])
        apart = "" if model is None else sets_of(model.by_set, row["hypothesis"])
        details.append("; ".join(filter(None, [row["details"], apart])))
    return claims.assign(details=details)


def sets_of(apart: pd.DataFrame, hypothesis: str) -> str:
    """Return an interaction within each set of cases in words; empty where sets are not told apart."""
    rows = apart[apart["hypothesis"] == hypothesis] if len(apart) else apart
    return ", ".join(
        f"{row['cases']} alone {_size(row)}{'' if row['rejected'] else ' (not significant)'}"
        for row in rows.to_dict("records")
    )


def stuck(protocol: Protocol, tests: pd.DataFrame) -> dict[str, bool]:
    """Say, for every family about the model, whether no instruction moved its outcome: accuracy, or the place."""
    rows = tests[tests["family"] == "steerability"].set_index("hypothesis").to_dict("index")
    still = {}
    for hypothesis, contrast in protocol.families["steerability"].contrasts.items():
        sign, row = (-1 if contrast.direction == "negative" else 1), rows[hypothesis]
        still[contrast.outcome] = row["n"] > 0 and not (row["rejected"] and sign * row["estimate"] > 0)
    found = {}
    for name, family in protocol.families.items():
        if name not in PUBLISHED:
            outcome = next(iter(family.contrasts.values())).outcome
            found[name] = still["place" if outcome == "place" else "accuracy"]
    return found


def scores(recorded: pd.DataFrame, asked: pd.DataFrame, everyone: pd.DataFrame) -> pd.DataFrame:
    """Score every case and question under every condition by its letters.

    Returns:
        ``condition, who, role, style, wording, item, dataset, cluster, care, gold, n_options, option_mass``;
        ``probability`` (of every option, the most urgent first: a mean over all orders), ``chosen`` (place of the
        likeliest), ``correct`` (whether it is right), ``confidence`` (its probability), ``score`` (probability of
        the right one), ``place`` (mean place less the true place), ``brier``. No rows without letters.
    """
    # Medical questions are answered by letter too, and have a measure of their own.
    letters = recorded[recorded["measure"].isin(["letter", "medical"])].assign(measure="letter")
    if letters.empty:
        return pd.DataFrame(columns=SCORED)
    found = multiple_choice.probabilities(letters, asked.drop(columns="item_hash"))
    found = found.merge(everyone[["condition", "who", "role", "style", "wording"]], on="condition")
    gold = found["gold"].to_numpy()
    right = np.array([p[k] for p, k in zip(found["probability"], gold, strict=True)])
    found = found.assign(
        confidence=[p.max() for p in found["probability"]],
        score=right,
        place=[p @ np.arange(len(p)) for p in found["probability"]] - gold,
        brier=np.array([(p**2).sum() for p in found["probability"]]) - 2 * right + 1,
    )
    order = {name: place for place, name in enumerate([*CASES, "medical"])}
    return found.sort_values("dataset", key=lambda names: names.map(order), kind="stable", ignore_index=True)[
        SCORED
    ]


def by_case(scored: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return cases and questions x who, wordings averaged.

    Columns are also the three styles, each the mean of the four roles.

    Returns:
        Indexed by ``stratum`` (cases, which weigh the same whatever their set; or medical), ``set, item, cluster,
        care``.
    """
    cells = scored.assign(
        stratum=np.where(scored["dataset"].isin(CASES), "cases", scored["dataset"]), set=scored["dataset"]
    )
    index = ["stratum", "set", "item", "cluster", "care"]
    wide = cells.pivot_table(index=index, columns="who", values=value, sort=False)
    roles = scored.loc[scored["style"] != "neutral", "role"].unique()
    for style in scored["style"].unique():
        who = [role if style == "neutral" else f"{role}-{style}" for role in roles]
        wide[style] = wide[who].mean(axis=1, skipna=False)
    return wide


def gated(
    protocol: Protocol,
    scored: pd.DataFrame,
    said: pd.DataFrame,
    recorded: pd.DataFrame,
    asked: pd.DataFrame,
    how: Settings,
) -> pd.DataFrame:
    """Check the recorded measures as a helpful assistant.

    Returns:
        ``part`` (cases, medical, text), ``check, value, rule, threshold, passes``.
    """
    held, parts = {*recorded["measure"]}, []
    cells = recorded.assign(measure=recorded["measure"].replace("medical", "letter"))
    reference = scored[scored["who"] == REFERENCE]
    cases = scored[scored["dataset"].isin(CASES)]
    for name, mine in (
        ("letter", reference[reference["dataset"].isin(CASES)]),
        ("medical", reference[reference["dataset"] == "medical"]),
    ):
        if name not in held or mine.empty:
            continue
        asked_so = cells["condition"].isin(mine["condition"]) & cells["item"].isin(mine["item"])
        each = mine.groupby("item", sort=False)[["score", "n_options"]].mean()
        values = gates.letters(mine, cells[asked_so], asked)
        values["above_chance"] = gates.above_chance(each, how.confidence)
        if name == "letter":
            both = cases[cases["who"].isin(protocol.design["second_wording"])]
            # A constant answer has no interval: NaN, which min would pass over and which fails the gate.
            values["kappa"] = float(np.min([_kappa(part, how) for _, part in mine.groupby("dataset", sort=False)]))
            values["repeatability"] = gates.repeatability(both, "who", "wording")
        parts.append(gates.declared(protocol.measures[name].gate, values).assign(part=PARTS[name]))
    if "text" in held:
        parsed = {"parsed": replies.share_parsed(said)}
        parts.append(gates.declared(protocol.measures["text"].gate, parsed).assign(part="text"))
    columns = ["part", "check", "value", "rule", "threshold", "passes"]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    return table[columns].astype({"passes": bool})


def _kappa(scored: pd.DataFrame, how: Settings) -> float:
    """Return the lower limit of quadratic kappa between the likeliest and the true place; cases are clusters."""
    found = cohen_kappa(
        scored[["gold", "chosen"]].reset_index(drop=True),
        categories=range(int(scored["n_options"].iloc[0])),
        weights="quadratic",
        cluster=scored["cluster"].reset_index(drop=True),
        confidence=how.confidence,
        replicates=min(how.replicates, 10_000),
        seed=how.seed,
    )
    return found.low


def differences(wide: Mapping[str, pd.DataFrame]) -> families.Differences:
    """Return how to take the paired differences of a contrast.

    Args:
        wide: Outcome -> cases x who, of :func:`by_case`.
    """

    def of(contrast: Hypothesis, part: str | None) -> pd.Series:
        mine = wide.get(contrast.outcome, NOBODY)
        mine = mine[mine.index.get_level_values("stratum") == contrast.on]
        if part is not None:
            mine = mine[mine.index.get_level_values("care") == part]
        if not {contrast.first, contrast.second} <= set(mine):
            return pd.Series(dtype=float, index=mine.index[:0])
        found: pd.Series = (mine[contrast.first] - mine[contrast.second]).dropna()
        return found

    return of


def model_tests(protocol: Protocol, scored: pd.DataFrame, said: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Test every family about the model, as :func:`persona_studies.analyse.families.corrected` returns them."""
    names = [name for name in protocol.families if name not in ("replies", *PUBLISHED)]
    wide = {outcome: by_case(scored, column) for outcome, column in VALUES.items()} if len(scored) else {}
    tests = families.contrasts(protocol, names, differences(wide), how)
    return pd.concat([tests, reply_tests(protocol, said, how)], ignore_index=True)


def reply_tests(protocol: Protocol, said: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Test what replies say: whether they name an urgency, and which, where both name one."""
    family = protocol.families["replies"]
    if said.empty:
        return families.corrected("replies", family, {}, how)
    wide = said.pivot(index=["item", "cluster"], columns="who", values="named")
    gold = dict(zip(said["item"], said["gold"], strict=True))
    rows: dict[str, dict[str, Any]] = {}
    places = {}
    for name, contrast in family.contrasts.items():
        there = {contrast.first, contrast.second} <= set(wide)
        if contrast.outcome == "answered":
            one, other = (
                (wide[who].notna().to_numpy() if there else np.array([], dtype=bool))
                for who in (contrast.first, contrast.second)
            )
            b, c = int((one & ~other).sum()), int((other & ~one).sum())
            rows[name] = families.of_counts(b, c, len(one), contrast=contrast, how=how)
        else:
            places[name] = contrast
    error = wide.sub(wide.index.get_level_values("item").map(gold), axis=0)
    error.index = pd.MultiIndex.from_arrays(
        [["triage"] * len(error), *(error.index.get_level_values(level) for level in ("item", "cluster"))],
        names=["stratum", "item", "cluster"],
    )

    def between(contrast: Hypothesis, part: str | None) -> pd.Series:
        if not {contrast.first, contrast.second} <= set(error):
            return pd.Series(dtype=float, index=error.index[:0])
        found: pd.Series = (error[contrast.first] - error[contrast.second]).dropna()
        return found

    rows |= families.estimated(places, between, how)
    return families.corrected("replies", family, rows, how)


# --- Published data ---


def public_tests(project: Project, protocol: Protocol, how: Settings) -> pd.DataFrame:
    """Test the families about published answers: sex labels in 15 models; physicians, lay people and GPT-3."""
    changes = published.label_changes(project, confidence=how.confidence)
    combined = (
        published.labels_combined(changes, confidence=how.confidence).set_index("hypothesis").to_dict("index")
    )
    family = protocol.families["published_labels"]
    rows = {}
    for name, contrast in family.contrasts.items():
        found = combined[f"{contrast.first} - {contrast.second}"]
        n, known = found["models"], {key: found[key] for key in ("low", "high", "p")}
        rows[name] = _row(n, found["difference"], found["se"], n - 1, contrast, how) | known
    triage = protocol.families["published_triage"]
    accuracy = pd.read_csv(project.published / "clinical_personas" / "levine2024_accuracy.csv").set_index(
        ["who", "place"]
    )
    gaps = {}
    for name, contrast in triage.contrasts.items():
        one, other = accuracy.loc[contrast.first], accuracy.loc[contrast.second]
        squares = [one["sd"] ** 2 / one["cases"], other["sd"] ** 2 / other["cases"]]
        variance = float(sum(part.sum() for part in squares)) / len(one) ** 2
        # Welch and Satterthwaite over both groups' strata.
        spread = sum(
            float((part**2 / (group["cases"] - 1)).sum()) for part, group in zip(squares, (one, other), strict=True)
        )
        df = (variance * len(one) ** 2) ** 2 / spread
        gap = float((one["accuracy"] - other["accuracy"]).mean())
        gaps[name] = _row(int(one["cases"].sum()), gap, sqrt(variance), df, contrast, how)
    return pd.concat(
        [
            families.corrected("published_labels", family, rows, how),
            families.corrected("published_triage", triage, gaps, how),
        ],
        ignore_index=True,
    )


def _row(n: int, estimate: float, se: float, df: float, contrast: Hypothesis, how: Settings) -> dict[str, Any]:
    """Return an estimate with Student's interval, its test of zero and of the bound."""
    reach = float(distributions.t.ppf(0.5 + how.confidence / 2, df)) * se
    return {
        "n": n,
        "estimate": estimate,
        "se": se,
        "df": df,
        "low": estimate - reach,
        "high": estimate + reach,
        "p": float(2 * distributions.t.sf(abs(estimate) / se, df)),
        "p_bound": families.bound_p(
            estimate, se, df, margin=contrast.smallest_effect, direction=contrast.direction
        ),
    }


# --- The finding in words ---


def finding(claims: pd.DataFrame, found: Analysis | None, public: pd.DataFrame) -> str:
    """Return the finding in Markdown, made of the computed numbers.

    Args:
        claims: One row per claim and model, the deciding one first.
        found: Of the first model; None where none is recorded.
        public: Of :func:`public_tests`.
    """
    rows = public.set_index("hypothesis").to_dict("index")
    gap = _size(rows["physicians - GPT-3, two classes | triage, accuracy"])
    label = _size(rows["female - male | esi, place"])
    others = (
        f"Physicians triage the same vignettes more accurately than GPT-3 did, by {gap}; 15 published models move "
        f"an emergency case by {label} levels where it is marked female and not male."
    )
    verdict = claims.drop_duplicates("claim")["verdict"].value_counts()
    counts = f"Of {verdict.sum()} claims: {', '.join(f'{n} {name}' for name, n in verdict.items())}."
    if found is None or not (found.scored["dataset"].isin(CASES)).any():
        unasked = "No model has been asked under this protocol yet: nothing is known here about personas."
        return f"**{others}** {unasked} {counts}"
    if why := gates.failures(found.gate[found.gate["part"] == PARTS["letter"]]):
        asked = found.scored[(found.scored["who"] == REFERENCE) & found.scored["dataset"].isin(CASES)]
        mine = asked.groupby("dataset", sort=False)[["score", "n_options"]].mean()
        reached = ", ".join(
            f"{name} {row['score']:.2f} (chance {1 / row['n_options']:.2f})" for name, row in mine.iterrows()
        )
        return (
            f"**{others}** In {found.model}, letters fail their checks ({why}), so that "
            f"nothing is decided by its answers. As a helpful assistant it gives the right answer a mean "
            f"probability of: {reached}; at least .10 above chance is asked. {counts}"
        )
    tests = found.tests.set_index("hypothesis").to_dict("index")
    critical, primary, both = (
        tests[f"physician - {REFERENCE} | cases, {part}, accuracy"]
        for part in ("critical", "primary", "critical - primary")
    )
    lay, mixed = (
        tests[f"physician - {who} | cases, critical - primary, accuracy"] for who in ("layperson", "shuffled")
    )
    apart = sets_of(found.by_set, f"physician - {REFERENCE} | cases, critical - primary, accuracy")
    apart = f"; {apart}" if apart else ""
    failed = [f"{part} ({why})" for part, checks in found.gate.groupby("part") if (why := gates.failures(checks))]
    still = [] if not found.stuck["care"] else ["accuracy"]
    still += ["the assigned place"] if found.stuck["style"] else []
    return (
        f"**In {found.model}, the sentence that makes it an emergency physician changes accuracy by "
        f"{_size(critical)} in critical and by {_size(primary)} in primary care against a helpful assistant; the "
        f"two differ by {_size(both)}, which is {'' if both['rejected'] else 'not '}significant "
        f"({int(critical['n'])} and {int(primary['n'])} cases{apart}).** The same difference is {_size(lay)} "
        f"against a layperson and {_size(mixed)} against the physician's words in random order. "
        + (f"Checks that failed: {'; '.join(failed)}. " if failed else "Every recorded measure passed its gate. ")
        + (f"No instruction moves {' or '.join(still)}. " if still else "")
        + f"{others} {counts}"
    )


def _size(row: Mapping[Any, Any]) -> str:
    """Return an estimate with its interval."""
    return f"{row['estimate']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
