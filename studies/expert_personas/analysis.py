"""The declared analysis of the study of expert personas: gate, steerability, families, verdicts, the finding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.contingency_tables import cochrans_q
from statsmodels.stats.weightstats import DescrStatsW

from expert_personas import open_models, published
from expert_personas.design import NO_PERSONA, crossed
from persona_studies.analyse import families, gates, multiple_choice
from persona_studies.analyse.conclusions import Analysis, conclude
from persona_studies.analyse.families import Settings
from persona_studies.design.protocol import Hypothesis, Protocol
from persona_studies.paths import Project

PUBLISHED = ("open_models_none", "open_models_placebo", "permutation_floor")
IN_DOMAIN = ("mmlu", "openbookqa")
LOW_KNOWLEDGE = ["layperson", "toddler"]


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
        asked: Of :func:`expert_personas.design.questions`.
        everyone: Of :func:`expert_personas.design.people`.
    """
    scored = scores(recorded, asked, everyone)
    gate, usable = gated(protocol, scored, recorded, asked, how)
    tests = model_tests(protocol, by_question(scored), usable, how)
    why = gates.failures(gate[gate["benchmark"] == "all"])
    moved = tests[tests["family"] == "steerability"].iloc[0]
    stuck = not (moved["rejected"] and moved["estimate"] < 0)
    return conclude(
        protocol,
        tests,
        public_tests(project, protocol, how),
        lambda family, hypothesis: why,
        dict.fromkeys(tests["family"], stuck),
        model=model,
        scored=scored,
        gate=gate,
        usable=usable,
    )


def scores(recorded: pd.DataFrame, asked: pd.DataFrame, everyone: pd.DataFrame) -> pd.DataFrame:
    """Score every question under every condition by its letters; one with a failed answer is left out there.

    Returns:
        ``condition, persona`` (as the protocol's contrasts name it), ``paraphrase, words`` (of the persona),
        ``item, benchmark, cluster, n_options, score`` (mean probability of the right option over all orders),
        ``correct`` (whether it has the highest, 0 or 1), ``option_mass``. A short expert that is unrelated to one
        question and in-domain for another has the persona of that question.
    """
    failed = recorded.loc[recorded["finish"] == "failed", ["condition", "item"]]
    keys = pd.MultiIndex.from_frame(recorded[["condition", "item"]])
    found = multiple_choice.choices(
        recorded[~keys.isin(pd.MultiIndex.from_frame(failed))], asked.drop(columns="item_hash"), "letter"
    )
    found = found.merge(crossed(asked, everyone), on=["condition", "item"], validate="one_to_one")
    found = found.merge(everyone[["condition", "paraphrase", "words"]], on="condition")
    columns = ["condition", "persona", "paraphrase", "words", "item", "benchmark", "cluster", "n_options", "score"]
    return found[[*columns, "correct", "option_mass"]]


def by_question(scored: pd.DataFrame, value: str = "score") -> pd.DataFrame:
    """Return questions x personas, wordings averaged, indexed by ``benchmark, item, cluster``.

    Low knowledge is the mean of layperson and toddler.
    """
    wide = scored.pivot_table(index=["benchmark", "item", "cluster"], columns="persona", values=value, sort=False)
    if set(LOW_KNOWLEDGE) <= set(wide):
        wide["low knowledge"] = wide[LOW_KNOWLEDGE].mean(axis=1, skipna=False)
    return wide


def gated(
    protocol: Protocol, scored: pd.DataFrame, recorded: pd.DataFrame, asked: pd.DataFrame, how: Settings
) -> tuple[pd.DataFrame, list[str]]:
    """Check the measure under no persona.

    Returns:
        ``benchmark, check, value, rule, threshold, passes``, where ``all`` is the measure's own gate, which needs
        one benchmark that passes; and the benchmarks that pass.
    """
    measure = protocol.measures["letter"]
    none = scored[scored["persona"] == NO_PERSONA]
    gains = {str(b): gates.above_chance(part, how.confidence) for b, part in none.groupby("benchmark", sort=False)}
    values = {
        **gates.letters(none, recorded[recorded["condition"] == "none"], asked),
        "above_chance": max(gains.values(), default=float("nan")),
        "repeatability": gates.repeatability(scored, "persona", "paraphrase"),
    }
    whole = gates.declared(measure.gate, values).assign(benchmark="all")
    least = {"min_above_chance": measure.gate["min_above_chance"]}
    single = [gates.declared(least, {"above_chance": gain}).assign(benchmark=b) for b, gain in gains.items()]
    table = pd.concat([whole, *single], ignore_index=True)
    usable = [str(row["benchmark"]) for part in single for row in part.to_dict("records") if row["passes"]]
    return table[["benchmark", "check", "value", "rule", "threshold", "passes"]], usable


def pooled(on: str, usable: list[str]) -> list[str]:
    """Return the usable benchmarks that a contrast is about."""
    names = {"all": usable, "in-domain": [b for b in usable if b in IN_DOMAIN]}
    return names.get(on, [on])


def differences(wide: pd.DataFrame, usable: list[str]) -> families.Differences:
    """Return how to take the paired differences of a contrast from questions x personas."""

    def of(contrast: Hypothesis, part: str | None) -> pd.Series:
        mine = wide[wide.index.get_level_values("benchmark").isin(pooled(contrast.on, usable))]
        return families.gaps(mine, contrast)

    return of


def model_tests(protocol: Protocol, wide: pd.DataFrame, usable: list[str], how: Settings) -> pd.DataFrame:
    """Test every family about the model, as :func:`persona_studies.analyse.families.corrected` returns them."""
    special = ("thresholds", "omnibus", *PUBLISHED)
    plain = [name for name in protocol.families if name not in special]
    mine = wide[wide.index.get_level_values("benchmark").isin(pooled("in-domain", usable))]
    family = protocol.families["thresholds"]
    counted = {h: _counted(mine, contrast, protocol, how) for h, contrast in family.contrasts.items()}
    omnibus = protocol.families["omnibus"]
    return pd.concat(
        [
            families.contrasts(protocol, plain, differences(wide, usable), how),
            families.corrected("thresholds", family, counted, how),
            families.corrected("omnibus", omnibus, {omnibus.hypotheses[0]: any_condition(mine, protocol)}, how),
        ],
        ignore_index=True,
    )


def passing(accuracy: pd.Series | pd.DataFrame, least: int, trials: int) -> np.ndarray:
    """Say which questions pass "at least k of m": where the binomial of the expected accuracy gives at least half.

    >>> passing(pd.Series([0.5, 0.52, 0.9]), 13, 25).tolist()
    [True, True, True]
    >>> passing(pd.Series([0.5, 0.9, 0.96]), 23, 25).tolist()
    [False, True, True]
    """
    found: np.ndarray = stats.binom.sf(least - 1, trials, accuracy.to_numpy(dtype=float)) >= 0.5
    return found


def _counted(wide: pd.DataFrame, contrast: Hypothesis, protocol: Protocol, how: Settings) -> dict[str, float]:
    if not {contrast.first, contrast.second} <= set(wide):
        return families.of_counts(0, 0, 0, contrast=contrast, how=how)
    both = wide[[contrast.first, contrast.second]].dropna()
    least, trials = (int(word) for word in contrast.outcome.split() if word.isdigit())
    one, other = (passing(both[column], least, trials) for column in both)
    return families.of_counts(*families.discordant(one, other), contrast=contrast, how=how)


def any_condition(wide: pd.DataFrame, protocol: Protocol) -> dict[str, float]:
    """Test by Cochran's Q whether conditions differ in the share of questions that pass 13 of 25.

    Returns:
        ``n`` (questions), ``estimate`` (largest less smallest share), ``p``.
    """
    design = protocol.design["thresholds"]
    both = wide.drop(columns="low knowledge", errors="ignore").dropna()
    if both.shape[0] < 2 or both.shape[1] < 2:
        return {"n": len(both)}
    passed = passing(both, design["correct"][0], design["trials"])
    shares = passed.mean(axis=0)
    constant = bool((passed.min(axis=1) == passed.max(axis=1)).all())
    p = 1.0 if constant else float(cochrans_q(passed.astype(int)).pvalue)
    return {"n": len(both), "estimate": float(shares.max() - shares.min()), "p": p}


def public_tests(project: Project, protocol: Protocol, how: Settings) -> pd.DataFrame:
    """Test the families about published data: nine open models, and what 5,000 permutations can show."""
    effects = open_models.model_effects(open_models.accuracies(project))
    combined = open_models.combine(effects, confidence=how.confidence, seed=how.seed).set_index("contrast")
    parts = []
    for name in ("open_models_none", "open_models_placebo"):
        rows = {}
        for h, contrast in protocol.families[name].contrasts.items():
            found = combined.xs(f"{contrast.first} - {contrast.second}").to_dict()
            se, df = found["sd"] / np.sqrt(found["k"]), found["k"] - 1
            bound = families.bound_p(
                found["estimate"], se, df, margin=contrast.smallest_effect, direction=contrast.direction
            )
            rows[h] = {"n": found["k"], "se": se, "df": df, "p_bound": bound} | {
                key: found[key] for key in ("estimate", "low", "high", "p")
            }
        parts.append(families.corrected(name, protocol.families[name], rows, how))
    floor = published.permutation_floor().set_index("family").xs("all pairwise tests").to_dict()
    least = float(floor["smallest_adjusted_p"])
    family = protocol.families["permutation_floor"]
    # Arithmetic: nothing is estimated, so the answer is certain and has no interval.
    row = {"n": int(floor["tests"]), "estimate": least, "se": 0.0, "p": 0.0}
    parts.append(families.corrected("permutation_floor", family, {family.hypotheses[0]: row}, how))
    return pd.concat(parts, ignore_index=True)


def accuracy(scored: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Return accuracy per benchmark and persona with an interval over questions, beside chance.

    Returns:
        ``benchmark, persona, n, accuracy, low, high`` (Student's t), ``chance``: the mean of 1 / options.
    """
    wide = by_question(scored).drop(columns="low knowledge", errors="ignore")
    chance = 1 / scored.drop_duplicates("item").set_index("item")["n_options"]
    rows = []
    for benchmark, group in wide.groupby(level="benchmark", sort=False):
        for persona, values in group.items():
            if len(values := values.dropna()) > 1:
                low, high = DescrStatsW(values).tconfint_mean(1 - how.confidence)
                rows.append(
                    {"benchmark": benchmark, "persona": persona, "n": len(values), "accuracy": values.mean()}
                    | {"low": low, "high": high, "chance": chance.loc[values.index.get_level_values("item")].mean()}
                )
    return pd.DataFrame(rows)


def finding(claims: pd.DataFrame, analyses: Mapping[str, Analysis]) -> str:
    """Say in a few sentences what was found, made of the computed numbers.

    Args:
        claims: Of :func:`persona_studies.analyse.conclusions.claims`.
        analyses: Model -> analysis, the deciding one first.
    """
    rows = claims[claims["estimate"].notna()].drop_duplicates("claim").set_index("claim").to_dict("index")

    def shown(row: Mapping[Any, Any]) -> str:
        return f"{row['estimate']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"

    def size(name: str) -> str:
        return shown(rows[name])

    others = (
        "In nine open models on MMLU-Pro, an expert persona written for the question changes accuracy by "
        f"{size('open_question_expert')} against no persona, and a persona that knows little by "
        f"{size('open_low_knowledge')}."
    )
    if not analyses:
        return f"**{others}** No model has been asked all of this study's questions yet."
    model, first = next(iter(analyses.items()))
    none = by_question(first.scored)[NO_PERSONA].groupby(level="benchmark", sort=False).mean()
    reached = ", ".join(f"{benchmark} {none[benchmark]:.2f}" for benchmark in first.usable or none.index)
    if why := gates.failures(first.gate[first.gate["benchmark"] == "all"]):
        return (
            f"**{others}** In {model}, letters fail their checks ({why}), so that nothing is decided by its "
            f"answers. Accuracy without a persona: {reached}."
        )
    tests = first.tests.drop_duplicates("hypothesis").set_index("hypothesis").to_dict("index")
    filler = tests[f"filler - {NO_PERSONA} | all, accuracy"]
    alike = tests["low knowledge - placebo trait | all, accuracy"]
    short = tests[f"expert, short - {NO_PERSONA} | in-domain, accuracy"]
    return (
        f"**In {model}, an elaborate expert persona of the question's field changes accuracy by "
        f"{size('in_domain')} against no persona, a short one by {shown(short)}, an unrelated field's expert by "
        f"{size('off_domain')}, and a persona that knows little by {size('low_knowledge')}.** A filler text that "
        f"describes nobody changes it by {shown(filler)}. Against a placebo trait the expert changes it by "
        f"{size('placebo_yardstick')}, and the persona that knows little by {shown(alike)}. "
        f"Accuracy without a persona: {reached}. {others}"
    )


def recomputed(protocol: Protocol, claims: pd.DataFrame) -> pd.DataFrame:
    """Return claims with what the published accuracies give, where a claim is about their mean over models.

    A mark says whether that is the published number to its last digit.
    """
    contrasts = [pair for family in protocol.families.values() for pair in family.contrasts.items()]
    means = claims["hypothesis"].isin([name for name, contrast in contrasts if contrast.on == "mmlu_pro"])
    shown = [
        f"{'✓' if published.startswith(f'{estimate:+.3f}'.replace('0.', '.')) else '✗'} {estimate:+.3f}"
        for estimate, published in zip(claims["estimate"], claims["published"], strict=True)
    ]
    return claims.assign(recomputed=pd.Series(shown, index=claims.index).str.replace("-", "−").where(means, ""))
