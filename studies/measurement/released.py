"""The declared families about released answers: every test from the committed facts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import nan, sqrt
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats as sp
from scipy.optimize import brentq
from statsmodels.stats.proportion import proportion_confint

from measurement import design, psychometrics
from measurement.facts import BEHAVIOURS, FILES
from measurement.published import FLAN
from persona_studies.analyse import families
from persona_studies.analyse.families import Settings
from persona_studies.analyse.stats.correlation import correlation
from persona_studies.analyse.stats.equivalence import equivalence_correlation
from persona_studies.analyse.stats.paired import sign_flip
from persona_studies.design.protocol import Protocol

Row = dict[str, Any]
Facts = Mapping[str, pd.DataFrame]
FAMILIES = (
    *("flan_negation", "mbti_position", "mbti_fairness", "papi", "illusion_stability", "illusion_structure"),
    *("illusion_dissociation", "personallm", "settings_stability"),
    *(f"settings_induction_{name}" for name in FILES),
)
CONSISTENT = 0.4
"""Cohen's kappa below which agreement is called low."""
NEGLIGIBLE = 0.01
"""Share of variance that a setting may explain and still not matter."""
PAIRS = {
    **dict.fromkeys(("Meta-Llama-3-8B", "Meta-Llama-3-8B-Instruct"), "Llama-3-8B"),
    **dict.fromkeys(("Llama-3.2-3B", "Llama-3.2-3B-Instruct"), "Llama-3.2-3B"),
    **dict.fromkeys(("Mistral-7B-v0.1", "Mistral-7B-Instruct-v0.1"), "Mistral-7B"),
    **dict.fromkeys(("OLMo2-7B-1124", "OLMo-2-1124-7B-Instruct"), "OLMo-2-7B"),
    **dict.fromkeys(("Qwen2.5-1.5B", "Qwen2.5-1.5B-Instruct"), "Qwen2.5-1.5B"),
    **dict.fromkeys(("Qwen2.5-7B", "Qwen2.5-7B-Instruct"), "Qwen2.5-7B"),
}
"""Personality-Illusion: a model's name without its owner -> the family that its two versions share."""


def of_values(
    values: Iterable[float],
    how: Settings,
    *,
    margin: float = nan,
    direction: str = "either",
    p: float | None = None,
) -> Row:
    """Return the mean of independent values: Student's interval, exact sign flip, and the bound at a margin.

    Args:
        values: One per unit.
        direction: Of the hypothesis.
        p: Of another test, in place of the sign flip's.
    """
    x = np.asarray([*values], dtype=float)
    x = x[~np.isnan(x)]
    if len(x) < 2:
        return {"n": len(x), **dict.fromkeys(families.ESTIMATES[1:], nan)}
    mean, se, df = float(x.mean()), float(x.std(ddof=1) / sqrt(len(x))), len(x) - 1
    reach = float(sp.t.ppf(0.5 + how.confidence / 2, df)) * se
    flip = sign_flip(x, replicates=how.replicates, seed=how.seed).p if p is None else p
    bound = families.bound_p(mean, se, df, margin=margin, direction=direction) if margin > 0 else nan
    return {
        **{"n": len(x), "estimate": mean, "se": se, "df": df, "low": mean - reach, "high": mean + reach},
        **{"p": flip, "p_bound": bound},
    }


def kappas(first: NDArray[np.int_], second: NDArray[np.int_]) -> NDArray[np.float64]:
    """Return Cohen's kappa of answers (0 or 1) along the last axis; NaN where both use one answer throughout."""
    agree, a, b = (first == second).mean(axis=-1), first.mean(axis=-1), second.mean(axis=-1)
    chance = a * b + (1 - a) * (1 - b)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: NDArray[np.float64] = np.where(chance < 1, (agree - chance) / (1 - chance), nan)
    return found


def consistency(first: NDArray[np.int_], second: NDArray[np.int_], how: Settings, replicates: int) -> Row:
    """Return kappa less :data:`CONSISTENT`, with an interval and a test by a bootstrap of items.

    Args:
        first: Models x items, 1 for yes; the mean over models is tested.
        second: The answer that would be consistent, likewise.
    """
    n = first.shape[-1]
    drawn = np.random.default_rng(how.seed).integers(0, n, (replicates, n))
    resampled = np.mean([kappas(a[drawn], b[drawn]) for a, b in zip(first, second, strict=True)], axis=0)
    estimate = float(np.mean([kappas(a, b) for a, b in zip(first, second, strict=True)])) - CONSISTENT
    resampled = resampled[~np.isnan(resampled)] - CONSISTENT
    se = float(resampled.std(ddof=1)) if len(resampled) > 1 else nan
    if np.isnan(estimate) or not se > 0:
        return {"n": n, **dict.fromkeys(families.ESTIMATES[1:], nan)}
    tail = (1 - how.confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return {
        **{"n": n, "estimate": estimate, "se": se, "df": nan, "low": float(low), "high": float(high)},
        **{"p": float(2 * sp.norm.sf(abs(estimate) / se)), "p_bound": nan},
    }


# --- flan-t5 and MBTI of groups --------------------------------------------------------------------------


def flan_answers(patterns: pd.DataFrame, kind: str) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Return models x items answers to the item and to its variant, written out from counted patterns."""
    mine = patterns[patterns["kind"] == kind]
    bits = np.array([[*map(int, str(p).zfill(2 * len(FLAN)))] for p in mine["pattern"]]).repeat(
        mine["items"].to_numpy(), axis=0
    )
    return bits[:, : len(FLAN)].T, bits[:, len(FLAN) :].T


def flan_negation(facts: Facts, how: Settings, replicates: int) -> dict[str, Row]:
    """Test kappa against .4 for four models and their mean, two kinds of negation."""
    rows = {}
    for kind in ("word", "meaning"):
        plain, other = flan_answers(facts["flan_patterns"], kind)
        for k, model in enumerate(FLAN):
            rows[f"{model}, {kind}"] = consistency(plain[[k]], 1 - other[[k]], how, replicates)
        rows[f"mean, {kind}"] = consistency(plain, 1 - other, how, replicates)
    return rows


def mbti_position(facts: Facts, how: Settings) -> dict[str, Row]:
    """Test the chosen option's mean place against the middle, and two models' distances from it."""
    table = facts["mbti_choices"]
    place = {
        str(model): part["place"].dropna().to_numpy(float)
        for model, part in table[table["permuted"] & table["place"].notna()].groupby("model")
    }
    rows = {
        model: of_values(x - 4, how, margin=0.5, p=float(sp.ttest_1samp(x, 4).pvalue)) for model, x in place.items()
    }
    one, two = (np.abs(place[model].mean() - 4) for model in ("ChatGPT", "InstructGPT"))
    parts = [place[model].var(ddof=1) / len(place[model]) for model in ("ChatGPT", "InstructGPT")]
    sizes = [len(place[model]) for model in ("ChatGPT", "InstructGPT")]
    gap, se = float(one - two), sqrt(sum(parts))
    # Welch and Satterthwaite: each model's side of the middle is taken as given.
    df = sum(parts) ** 2 / sum(part**2 / (n - 1) for part, n in zip(parts, sizes, strict=True))
    reach = float(sp.t.ppf(0.5 + how.confidence / 2, df)) * se
    rows["ChatGPT - InstructGPT"] = {
        **{"n": sum(sizes), "estimate": gap, "se": se, "df": df, "low": gap - reach, "high": gap + reach},
        "p": float(2 * sp.t.sf(abs(gap) / se, df)),
        "p_bound": families.bound_p(gap, se, df, margin=0.5, direction="either"),
    }
    return rows


def group_gaps(choices: pd.DataFrame) -> pd.DataFrame:
    """Return |difference| of two groups' answers by statement: ``model, pair, statement, gap``."""
    wide = choices.pivot(index=["model", "statement"], columns="group", values="value").astype(float)
    parts = []
    for k, one in enumerate(wide.columns):
        for two in wide.columns[k + 1 :]:
            pair = "men, women" if {one, two} == {"men", "women"} else f"{one}, {two}"
            parts.append((wide[one] - wide[two]).abs().rename("gap").reset_index().assign(pair=pair))
    return pd.concat(parts, ignore_index=True)[["model", "pair", "statement", "gap"]]


def mbti_fairness(facts: Facts, how: Settings) -> dict[str, Row]:
    """Test |men - women| of ChatGPT less that of InstructGPT by statement."""
    gaps = group_gaps(facts["mbti_choices"])
    wide = gaps[gaps["pair"] == "men, women"].pivot(index="statement", columns="model", values="gap")
    difference = (wide["ChatGPT"] - wide["InstructGPT"]).dropna()
    return {"ChatGPT - InstructGPT": of_values(difference, how, margin=0.25, direction="negative")}


def agreement(who: str, kind: str, first: NDArray[np.int_], second: NDArray[np.int_], confidence: float) -> Row:
    """Return how often two answers agree.

    Returns:
        ``who, kind, items, yes`` (share of the first answers), ``agreement, low, high`` (Wilson), ``kappa``.
    """
    same = int((first == second).sum())
    low, high = proportion_confint(same, len(first), alpha=1 - confidence, method="wilson")
    return {
        **{"who": who, "kind": kind, "items": len(first), "yes": float(first.mean())},
        **{"agreement": same / len(first), "low": float(low), "high": float(high)},
        "kappa": float(kappas(first, second)),
    }


def flan_table(facts: Facts, confidence: float) -> pd.DataFrame:
    """Return how consistent four models are; a negation agrees where it is answered the other way."""
    rows = []
    for kind in ("order", "format", "word", "meaning"):
        plain, other = flan_answers(facts["flan_patterns"], kind)
        for k, model in enumerate(FLAN):
            second = 1 - other[k] if kind in ("word", "meaning") else other[k]
            rows.append(agreement(f"flan-t5-{model}", kind, plain[k], second, confidence))
    return pd.DataFrame(rows)


# --- PAPI and Personality-Illusion -----------------------------------------------------------------------


def papi(facts: Facts, how: Settings) -> dict[str, Row]:
    """Test whether people's own true answers beat "always neutral" under the code's coding; lower is better."""
    table = facts["papi_yardsticks"]
    row = table[table["yardstick"] == "true answers - neutral"].to_dict("records")[0]
    n, mean, se = int(row["people"]), float(row["mean"]), float(row["sd"]) / sqrt(row["people"])
    reach = float(sp.t.ppf(0.5 + how.confidence / 2, n - 1)) * se
    return {
        "true answers - neutral": {
            **{"n": n, "estimate": mean, "se": se, "df": n - 1, "low": mean - reach, "high": mean + reach},
            "p": float(2 * sp.t.sf(abs(mean) / se, n - 1)),
            "p_bound": families.bound_p(mean, se, n - 1, margin=0.1, direction="negative"),
        }
    }


def illusion_spread(scores: pd.DataFrame) -> pd.DataFrame:
    """Return each scale's SD within a model, matched families only: ``family, tuned, scale, sd``."""
    names = scores["model"].str.rpartition("/")[2]
    known = scores.assign(family=names.map(PAIRS)).dropna(subset="family")
    wide = known.groupby(["family", "tuned"])[[*SCALE_NAMES]].std(ddof=1)
    return wide.reset_index().melt(["family", "tuned"], var_name="scale", value_name="sd")


SCALE_NAMES = (*design.DOMAINS, "self-regulation")


def illusion_stability(facts: Facts, how: Settings) -> dict[str, Row]:
    """Test log(sd tuned / sd untuned) over six families, by scale."""
    spread = illusion_spread(facts["illusion_scores"]).pivot(
        index=["scale", "family"], columns="tuned", values="sd"
    )
    ratio: pd.Series = (spread[True] / spread[False]).map(np.log)
    return {
        str(scale): of_values(part, how, margin=-np.log(0.75), direction="negative")
        for scale, part in ratio.replace([np.inf, -np.inf], nan).groupby("scale")
    }


def illusion_models(scores: pd.DataFrame) -> pd.DataFrame:
    """Return scales and behaviours, means over all settings of a model; tuned models only."""
    tuned = scores[scores["tuned"]]
    return tuned.groupby("model")[[*SCALE_NAMES, *BEHAVIOURS.values()]].mean()


def illusion_structure(facts: Facts, how: Settings, replicates: int) -> dict[str, Row]:
    """Test mean |r| of five domains over twelve tuned models less that of people, by a bootstrap of models."""
    models = illusion_models(facts["illusion_scores"])[[*design.DOMAINS]].to_numpy()
    table = facts["summaries"].set_index("dataset")["heterotrait"]
    people = float(table["people: psych::bfi, 25 items"])
    rng = np.random.default_rng(how.seed)
    drawn = np.array(
        [
            psychometrics.of_scores(models[rng.integers(0, len(models), len(models))])["heterotrait"]
            for _ in range(replicates)
        ]
    )
    drawn = drawn[~np.isnan(drawn)] - people
    estimate = psychometrics.of_scores(models)["heterotrait"] - people
    se, tail = float(drawn.std(ddof=1)), (1 - how.confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return {
        "models - people": {
            **{"n": len(models), "estimate": estimate, "se": se, "df": nan, "low": float(low), "high": float(high)},
            "p": float(2 * sp.norm.sf(abs(estimate) / se)),
            "p_bound": families.bound_p(estimate, se, np.inf, margin=0.15, direction="none"),
        }
    }


def correlations(table: pd.DataFrame, how: Settings) -> dict[str, Row]:
    """Correlate self-report with behaviour over the rows of a table, with equivalence at .3."""
    rows = {}
    for scale in SCALE_NAMES:
        for deed in BEHAVIOURS.values():
            found = correlation(table[scale].to_numpy(), table[deed].to_numpy(), confidence=how.confidence)
            same = equivalence_correlation(found.estimate, found.n, margin=0.3)
            rows[f"{scale}, {deed}"] = {
                **{"n": found.n, "estimate": found.estimate, "se": nan, "df": nan},
                **{"low": found.low, "high": found.high, "p": found.p, "p_bound": same},
            }
    return rows


def illusion_dissociation(facts: Facts, how: Settings) -> dict[str, Row]:
    """Correlate over models; rows of one model are no independent units."""
    return correlations(illusion_models(facts["illusion_scores"]), how)


# --- PersonaLLM and LLMPersonality -----------------------------------------------------------------------

POLES = dict(
    zip(
        design.DOMAINS,
        (("neur", "emot"), ("extr", "intr"), ("open", "clos"), ("agre", "anta"), ("cons", "unco")),
        strict=True,
    )
)


def _poles(part: pd.DataFrame, domain: str) -> tuple[pd.DataFrame, float]:
    """Return the 16 pairs of types that differ in one trait (means ``high, low``), and their paper's spread.

    The spread pools the two poles: root of the mean of their variances over 160 runs each, ddof 0.
    """
    high, low = POLES[domain]
    mean = part.set_index("type")["mean"]
    pairs = [(mean[name], mean[name.replace(high, low)]) for name in mean.index if high in name]
    of = [part[part["type"].str.contains(pole)] for pole in (high, low)]
    spread = sum((each["sd"] ** 2).mean() + each["mean"].var(ddof=0) for each in of) / 2
    return pd.DataFrame(pairs, columns=["high", "low"]), sqrt(spread)


def personallm(facts: Facts, how: Settings) -> dict[str, Row]:
    """Test d (pooled within a pole, ddof 0) over 16 pairs of types that differ in one trait."""
    rows = {}
    for (model, domain), part in facts["personallm_types"].groupby(["model", "domain"], sort=False):
        pairs, spread = _poles(part, str(domain))
        d = (pairs["high"] - pairs["low"]) / spread
        rows[f"{model}, {domain}"] = of_values(d, how, margin=0.5, direction="positive")
    return rows


def personallm_effects(facts: Facts) -> pd.DataFrame:
    """Return Cohen's d of a persona's poles in two ways, by model and trait.

    Returns:
        ``model, domain, runs`` (per pole), ``high, low`` (means), ``d_paper`` (their formula: runs of both poles as
        two groups, ddof 0), ``pairs, d_paired`` (mean difference of matched types over its standard deviation).
    """
    rows = []
    for (model, domain), part in facts["personallm_types"].groupby(["model", "domain"], sort=False):
        pairs, spread = _poles(part, str(domain))
        gap = pairs["high"] - pairs["low"]
        row = {"model": model, "domain": domain, "runs": int(part["runs"].sum() / 2), **pairs.mean().to_dict()}
        rows.append(row | {"d_paper": gap.mean() / spread, "pairs": len(gap), "d_paired": gap.mean() / gap.std()})
    return pd.DataFrame(rows)


def settings_stability(facts: Facts, how: Settings) -> dict[str, Row]:
    """Test eta squared of every factor on every domain: F, and whether it lies below :data:`NEGLIGIBLE`."""
    rows = {}
    table = facts["settings_variance"]
    explained = table.groupby("domain")["ss"].sum()
    used = table.groupby("domain")["levels"].sum() - table["factor"].nunique()
    for each in table.to_dict("records"):
        domain, n, ss, total = (
            str(each["domain"]),
            int(each["settings"]),
            float(each["ss"]),
            float(each["ss_total"]),
        )
        df1, df2 = int(each["levels"]) - 1, n - 1 - int(used[domain])
        f = (ss / df1) / ((total - float(explained[domain])) / df2)
        tail = (1 - how.confidence) / 2
        low, high = (_noncentrality(f, df1, df2, at) for at in (1 - tail, tail))
        rows[f"{each['factor']}, {domain}"] = {
            **{"n": n, "estimate": ss / total, "se": nan, "df": df2},
            **{"low": low / (low + n), "high": high / (high + n)},
            "p": float(sp.f.sf(f, df1, df2)),
            "p_bound": float(sp.ncf.cdf(f, df1, df2, n * NEGLIGIBLE / (1 - NEGLIGIBLE))),
        }
    return rows


def _noncentrality(f: float, df1: float, df2: float, at: float) -> float:
    """Return the noncentrality for which an F lies at a quantile; 0 where none does (Steiger 2004)."""

    def off(value: float) -> float:
        return float(sp.ncf.cdf(f, df1, df2, value)) - at

    # Far beyond the largest noncentrality that such an F allows, and within what the distribution can compute.
    most = 2 * df1 * f + 100
    return float(brentq(off, 1e-9, most)) if off(1e-9) > 0 else 0.0


def settings_induction(facts: Facts, how: Settings, file: str) -> dict[str, Row]:
    """Test the shift of a domain's items beyond the mean |shift| off target, by item."""
    table = facts["settings_induction"]
    mine = table[table["file"] == file]
    return {
        str(domain): of_values(part["target"] - part["off"], how, margin=0.25, direction="positive")
        for domain, part in mine.groupby("domain", sort=False)
    }


def tests(protocol: Protocol, facts: Facts, how: Settings, replicates: int) -> pd.DataFrame:
    """Test every family about released answers; rows as of :func:`persona_studies.analyse.families.corrected`."""
    made: dict[str, Callable[[], dict[str, Row]]] = {
        "flan_negation": lambda: flan_negation(facts, how, replicates),
        "mbti_position": lambda: mbti_position(facts, how),
        "mbti_fairness": lambda: mbti_fairness(facts, how),
        "papi": lambda: papi(facts, how),
        "illusion_stability": lambda: illusion_stability(facts, how),
        "illusion_structure": lambda: illusion_structure(facts, how, replicates),
        "illusion_dissociation": lambda: illusion_dissociation(facts, how),
        "personallm": lambda: personallm(facts, how),
        "settings_stability": lambda: settings_stability(facts, how),
    }
    parts = []
    for name in FAMILIES:
        file = name.removeprefix("settings_induction_")
        rows = made[name]() if name in made else settings_induction(facts, how, file)
        parts.append(families.corrected(name, protocol.families[name], rows, how))
    return pd.concat(parts, ignore_index=True)
