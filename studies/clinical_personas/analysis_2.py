"""The declared analysis of the second protocol of the study of clinical personas."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats as distributions

from clinical_personas import published, replies
from persona_studies.analyse import families, gates, multiple_choice, stats
from persona_studies.analyse.conclusions import Analysis, conclude
from persona_studies.analyse.families import Settings
from persona_studies.design.protocol import Hypothesis, Protocol
from persona_studies.paths import Project

PUBLISHED = ("published_labels", "published_triage")
CASES = ("triage", "esi")
REFERENCE = "assistant"
# Outcome of a contrast -> column of the scores.
VALUES = {"accuracy": "score", "place": "place", "brier": "brier"}


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
        project: Holds the published answers.
        protocol: The second protocol.
        recorded: Responses to its letters and, where there are any, replies.
        asked: Of :func:`clinical_personas.design_2.questions`.
        everyone: Of :func:`clinical_personas.design_2.people`.
        how: Settings; the protocol's are confirmatory.
        model: Who answered.

    Returns:
        ``gate`` has the parts cases, medical and text; ``said`` is as :func:`clinical_personas.replies.read`.
    """
    scored = scores(recorded, asked, everyone)
    said = replies.read(recorded, asked, everyone)
    gate = gated(protocol, scored, said, recorded, asked, how)
    tests = model_tests(protocol, scored, said, how)
    failed = {str(part): gates.failures(rows) for part, rows in gate.groupby("part", sort=False)}
    return conclude(
        protocol,
        tests,
        public_tests(project, protocol, how),
        lambda family, hypothesis: failed.get(_part(protocol, family, hypothesis), ""),
        stuck(protocol, tests),
        model=model,
        scored=scored,
        gate=gate,
        said=said,
    )


def _part(protocol: Protocol, family: str, hypothesis: str) -> str:
    """Return the part of the gate that a contrast rests on: ``cases``, ``medical`` or ``text``."""
    contrast = protocol.families[family].contrasts[hypothesis]
    return "text" if contrast.measure == "text" else "medical" if contrast.on == "medical" else "cases"


def stuck(protocol: Protocol, tests: pd.DataFrame) -> dict[str, bool]:
    """Say, for every family about the model, whether no instruction moved its outcome: accuracy, or the place."""
    rows = tests[tests["family"] == "steerability"].set_index("hypothesis").to_dict("index")
    still = {}
    for hypothesis, contrast in protocol.families["steerability"].contrasts.items():
        sign = -1 if contrast.direction == "negative" else 1
        still[contrast.outcome] = not (rows[hypothesis]["rejected"] and sign * rows[hypothesis]["estimate"] > 0)
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
        ``chosen`` (place of the likeliest option), ``score`` (probability of the right one), ``place`` (mean place
        less the true place), ``brier``; probabilities are means over all orders.
    """
    letters = recorded[recorded["measure"] == "letter"]
    found = multiple_choice.probabilities(letters, asked.drop(columns="item_hash"), "letter")
    found = found.merge(everyone[["condition", "who", "role", "style", "wording"]], on="condition")
    gold = found["gold"].to_numpy()
    right = np.array([p[k] for p, k in zip(found["probability"], gold, strict=True)])
    found = found.assign(
        score=right,
        place=[p @ np.arange(len(p)) for p in found["probability"]] - gold,
        brier=np.array([(p**2).sum() for p in found["probability"]]) - 2 * right + 1,
    )
    about = ["condition", "who", "role", "style", "wording", "item", "dataset", "cluster", "care", "gold"]
    return found[[*about, "n_options", "option_mass", "chosen", "score", "place", "brier"]]


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
    """Check the measures as a helpful assistant.

    Returns:
        ``part`` (cases, medical, text), ``check, value, rule, threshold, passes``.
    """
    cases = scored[scored["dataset"].isin(CASES)]
    mine = cases[cases["who"] == REFERENCE]
    conditions, items = set(mine["condition"]), set(mine["item"])
    cells = recorded[recorded["condition"].isin(conditions) & recorded["item"].isin(items)]
    both = cases[cases["who"].isin(protocol.design["second_wording"])]
    values = {
        **gates.letters(mine, cells, asked),
        "above_chance": gates.above_chance(
            mine.groupby("item", sort=False)[["score", "n_options"]].mean(), how.confidence
        ),
        "kappa": min(_kappa(part, how) for _, part in mine.groupby("dataset", sort=False)),
        "repeatability": gates.repeatability(both, "who", "wording"),
    }
    letter, text = protocol.measures["letter"], protocol.measures["text"]
    medical = scored[(scored["dataset"] == "medical") & (scored["who"] == REFERENCE)]
    parts = [
        gates.declared(letter, values).assign(part="cases"),
        gates.declared(
            gates.only(letter, ["above_chance"]), {"above_chance": gates.above_chance(medical, how.confidence)}
        ).assign(part="medical"),
        gates.declared(text, {"parsed": replies.share_parsed(said)}).assign(part="text"),
    ]
    return pd.concat(parts, ignore_index=True)[["part", "check", "value", "rule", "threshold", "passes"]]


def _kappa(scored: pd.DataFrame, how: Settings) -> float:
    """Return the lower limit of quadratic kappa between the likeliest and the true place; cases are clusters."""
    found = stats.cohen_kappa(
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
        mine = wide[contrast.outcome]
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
    wide = {outcome: by_case(scored, column) for outcome, column in VALUES.items()}
    tests = families.contrasts(protocol, names, differences(wide), how)
    return pd.concat([tests, reply_tests(protocol, said, how)], ignore_index=True)


def reply_tests(protocol: Protocol, said: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Test what replies say: whether they name an urgency, and which, where both name one."""
    family = protocol.families["replies"]
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
    family = protocol.families["published_labels"]
    rows = {}
    for name, contrast in family.contrasts.items():
        mine = changes[changes["hypothesis"] == f"{contrast.first} - {contrast.second}"]
        found = stats.random_effects(mine["difference"], mine["se"] ** 2, confidence=how.confidence)
        rows[name] = _row(found.k, found.estimate, found.se, found.k - 1, contrast, how) | {
            "low": found.low,
            "high": found.high,
            "p": found.p,
        }
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
