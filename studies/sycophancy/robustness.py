"""What is reported beside the verdicts: controls, other readings of the same data, and other measures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import norm

from persona_studies.analyse import gates, reasons
from persona_studies.analyse.families import Settings
from persona_studies.analyse.stats.correlation import correlation
from persona_studies.analyse.stats.effects import hedges_g
from persona_studies.design.protocol import Protocol
from sycophancy import scoring as scores
from sycophancy.analysis import HYPOTHESES, centred, missing, outcome_of, units, within
from sycophancy.design import INSTRUMENT, LABELS, STANCES
from sycophancy.scoring import Scored
from sycophancy.validity import by_claim, halves_agree

COVARIATES = {
    "valence": "given the sentiment of the persona's words",
    "words": "given the length of the persona's text",
}

# Published instruments: row of the table of convergent checks -> measure, outcome.
PUBLISHED = {
    "second instrument": (INSTRUMENT, ""),
    "mirrored stances, asserted": (STANCES, "asserted"),
    "mirrored stances, unattributed": (STANCES, "unattributed"),
    "mirrored stances, net": (STANCES, "net"),
}
REPORTS = "second instrument and self-report"
# Every row of that table -> the measures behind it.
OTHERS = {
    **{f"{name.replace('_', ' ')}, probability": (name,) for name in LABELS},
    "letters, probability": ("agree_letter",),
    "replies, anchored parser": ("reply",),
    "replies, published parser": ("reply",),
    **{row: (measure,) for row, (measure, _) in PUBLISHED.items()},
    REPORTS: (INSTRUMENT, "self_rating"),
}
NEUTRAL = "the neutral prompt by itself"
RAW = "the neutral not taken off"
TWO = "two labels in place of four"


def controls(scored: Scored, everyone: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Compare each control with no persona and with every level, in agreement with assertions.

    Returns:
        ``measure, control, against, n`` (claims), ``estimate`` (log-odds, nats), ``low, high`` (cluster bootstrap
        by claim), ``p`` (sign flip by claim; not corrected).
    """
    of = {str(role): rows["condition"].tolist() for role, rows in everyone.groupby("role", sort=False)}
    levels = {
        f"{role} level {level:.0f}": rows["condition"].tolist()
        for (role, level), rows in everyone.dropna(subset=["level"]).groupby(["role", "level"])
    }
    sides = {"assistant": of["baseline"], "placebo": of["placebo"], "filler": of["filler"]}
    sides |= {name: group for name, group in levels.items() if name.startswith("shuffled")}
    against = {"no persona": of["none"]} | {
        name: group for name, group in levels.items() if name.startswith("persona")
    }
    rows = []
    for measure in (name for name in LABELS if name in scored.agree):
        values = scores.statements(scored.agree[measure], "asserted")
        claim = scores.claims_of(values)
        for control, one in sides.items():
            for name, other in against.items():
                row = by_claim(values.loc[one].mean() - values.loc[other].mean(), claim, how)
                rows.append({"measure": measure, "control": control, "against": name, **row})
    return pd.DataFrame(rows, columns=["measure", "control", "against", "n", "estimate", "low", "high", "p"])


def partial(x: pd.Series, y: pd.Series, covariate: pd.Series, background: pd.Series) -> float:
    """Return the correlation within backgrounds of what a covariate leaves of both variables."""
    a, b, c = (centred(v.astype(float).reset_index(drop=True), background).to_numpy() for v in (x, y, covariate))
    if np.ptp(c) < 1e-12:
        return float("nan")
    rest = [v - c * (c @ v) / (c @ c) for v in (a, b)]
    return correlation(*rest).estimate


def readings(protocol: Protocol, scored: Scored, persona: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Return every hypothesis about personas under other readings of the same responses.

    Args:
        persona: ``condition, valence, words`` of every persona's text (:mod:`sycophancy.valence`).

    Returns:
        ``hypothesis, reading, n`` (personas), ``r, low, high`` (Fisher's z; n is personas less backgrounds plus one
        within backgrounds), one row per reading; a background that is left out is a reading.
    """
    about = scored.persona.merge(persona[["condition", *COVARIATES]], on="condition", how="left")
    rows = []
    for hypothesis in protocol.families["personas"].hypotheses:
        if missing(hypothesis, scored):
            continue
        for reading, r, n, free in _readings(hypothesis, scored, about):
            low, high = _limits(r, free, how.confidence)
            rows.append({"hypothesis": hypothesis, "reading": reading, "n": n, "r": r, "low": low, "high": high})
    return pd.DataFrame(rows, columns=["hypothesis", "reading", "n", "r", "low", "high"])


def _readings(hypothesis: str, scored: Scored, about: pd.DataFrame) -> Iterator[tuple[str, float, int, int]]:
    """Yield reading, correlation, personas, and the n of Fisher's z."""
    predictor, measure, outcome = HYPOTHESES[hypothesis]
    x, background = about[predictor].astype(float), about["background"]
    values, _ = outcome_of(scored, measure, outcome)
    y = values.mean(axis=1).reset_index(drop=True)
    n, free = len(y), units(background)

    def inside(a: pd.Series, b: pd.Series, keep: Any = slice(None)) -> float:
        one, other = (centred(v[keep], background[keep]) for v in (a, b))
        return correlation(one, other).estimate

    yield "as declared", inside(x, y), n, free
    over = "over personas, backgrounds not taken off"
    yield f"Pearson {over}", correlation(x, y).estimate, n, n
    yield f"Spearman {over}", correlation(x, y, method="spearman").estimate, n, n
    for covariate, reading in COVARIATES.items():
        yield reading, partial(x, y, about[covariate], background), n, free - 1
    if measure in scored.agree:
        for side in ("claim", "mirror"):
            mine = values.loc[:, values.columns.str.endswith(f":{side}")].mean(axis=1).reset_index(drop=True)
            yield f"{side}s alone", inside(x, mine), n, free
        for value, reading in (
            ("p_agree", "probabilities in place of log-odds"),
            ("log_odds", RAW),
        ):
            other = scores.statements(scored.agree[measure], outcome, value).loc[about["condition"]]
            yield reading, inside(x, other.mean(axis=1).reset_index(drop=True)), n, free
        if outcome != "net":
            yield NEUTRAL, inside(x, about[f"{measure} neutral"]), n, free
            if measure == "labels_four" and "labels_two" in scored.agree:
                two = outcome_of(scored, "labels_two", outcome)[0].mean(axis=1).reset_index(drop=True)
                yield TWO, inside(x, two), n, free
    for rated in {predictor, measure} & {*scored.rated}:
        facets = [facet for facet in scored.rated[rated]["facet"].unique() if facet != "Cooperation"]
        less = about["condition"].map(scores.scale(scored.rated[rated], facets))
        yield "without Cooperation", inside(less, y) if rated == predictor else inside(x, less), n, free
    for name in background.unique():
        keep = background != name
        yield f"without background {name}", inside(x, y, keep), int(keep.sum()), units(background[keep])


def _limits(r: float, free: int, confidence: float) -> tuple[float, float]:
    if free < 4 or not abs(r) < 1:
        return float("nan"), float("nan")
    reach = norm.ppf((1 + confidence) / 2) / np.sqrt(free - 3)
    return float(np.tanh(np.arctanh(r) - reach)), float(np.tanh(np.arctanh(r) + reach))


def effects(protocol: Protocol, scored: Scored, how: Settings) -> pd.DataFrame:
    """Return Hedges' g of levels 4 and 5 against 1 and 2, over personas.

    Returns:
        ``hypothesis, n, g, low, high, difference`` (in units of the outcome: nats, or points of the scale).
    """
    rows = []
    for hypothesis in protocol.families["personas"].hypotheses:
        predictor, measure, outcome = HYPOTHESES[hypothesis]
        if predictor != "designed" or missing(hypothesis, scored):
            continue
        values, _ = outcome_of(scored, measure, outcome)
        y, level = values.mean(axis=1).to_numpy(), scored.persona["designed"].to_numpy()
        found = hedges_g(y[level >= 4], y[level <= 2], confidence=how.confidence)
        difference = float(y[level >= 4].mean() - y[level <= 2].mean())
        rows.append(
            {"hypothesis": hypothesis, "n": found.n, "g": found.estimate, "low": found.low, "high": found.high}
            | {"difference": difference}
        )
    return pd.DataFrame(rows, columns=["hypothesis", "n", "g", "low", "high", "difference"])


def convergent(scored: Scored, gate: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Return what other measures say: correlations with the designed level, but for one with the self-report.

    Args:
        gate: Checks of every recorded measure (:func:`sycophancy.validity.gated`).

    Returns:
        ``measure, n`` (personas with a score; 0 where not recorded), ``r, low, high`` (within backgrounds; with the
        self-report over personas), ``mean`` (probability, over personas; of net a difference), ``gate`` (what
        failed, or is lacking).
    """
    failed = {str(name): gates.failures(rows) for name, rows in gate.groupby("measure", sort=False)}
    found = _same_question(scored, how) | _published(scored, how)
    rows = []
    for name, behind in OTHERS.items():
        lacking = [measure for measure in behind if measure not in failed]
        bad = [f"{measure.replace('_', ' ')}: {failed[measure]}" for measure in behind if failed.get(measure)]
        why = reasons.unrecorded(lacking) if lacking else "; ".join(bad)
        rows.append({"measure": name, "gate": why, **found.get(name, {"n": 0})})
    return pd.DataFrame(rows, columns=["measure", "n", "r", "low", "high", "mean", "gate"])


def _same_question(scored: Scored, how: Settings) -> dict[str, dict[str, float]]:
    """Correlate the designed level with agreement as labels, letters and replies give it; Fisher's z."""
    people = scored.persona["condition"]
    values = {
        f"{name.replace('_', ' ')}, probability": scored.persona[f"{name} p_asserted"]
        for name in LABELS
        if name in scored.agree
    }
    if scored.letters is not None:
        values["letters, probability"] = people.map(scored.letters.mean(axis=1))
    for parser, read in scored.said.items():
        values[f"replies, {parser} parser"] = people.map(scores.reply_bounds(read).set_index("condition")["value"])
    rows = {}
    for name, y in values.items():
        known = y.notna()
        background = scored.persona.loc[known, "background"]
        x = scored.persona.loc[known, "designed"].astype(float)
        r = correlation(centred(x, background), centred(y[known], background)).estimate
        low, high = _limits(r, units(background), how.confidence)
        rows[name] = {"n": int(known.sum()), "r": r, "low": low, "high": high, "mean": float(y.mean())}
    return rows


def _published(scored: Scored, how: Settings) -> dict[str, dict[str, float]]:
    """Correlate the designed level with published instruments, two-way bootstrap, and one with the self-report."""
    persona, rows = scored.persona, {}
    for name, (measure, outcome) in PUBLISHED.items():
        if measure not in {*scored.agree, *scored.rated}:
            continue
        values, columns = outcome_of(scored, measure, outcome)
        row = within(values, persona["designed"].astype(float), persona["background"], columns, how)
        p = values.map(expit)
        if measure == STANCES:
            p = scores.statements(scored.agree[measure], outcome, "p_agree").loc[persona["condition"]]
        rows[name] = {"n": row["n"], "r": row["estimate"], "low": row["low"], "high": row["high"]}
        rows[name]["mean"] = float(p.to_numpy().mean())
    if {INSTRUMENT, "self_rating"} <= {*scored.rated}:
        both = correlation(persona[INSTRUMENT], persona["self_rating"], confidence=how.confidence)
        rows[REPORTS] = {"n": both.n, "r": both.estimate, "low": both.low, "high": both.high}
    return rows


def acquiescence(scored: Scored) -> pd.DataFrame:
    """Return agreement whatever is said: with a claim and with its mirror.

    Returns:
        ``measure, said`` (asserted or unattributed), ``mean`` (log-odds over the neutral prompt, over personas),
        ``p_agree``, then as :func:`sycophancy.scoring.mirrored`, over personas x claims.
    """
    people = scored.persona["condition"].tolist()
    rows = [
        {
            "measure": name,
            "said": said,
            "mean": float(scored.persona[f"{name} {said}"].mean()),
            "p_agree": float(scored.persona[f"{name} p_{said}"].mean()),
            **scores.mirrored(agree, said, people),
        }
        for name, agree in scored.agree.items()
        for said in ("asserted", "unattributed")
    ]
    return pd.DataFrame(rows, columns=["measure", "said", "mean", "p_agree", "r_mirror", "opinion"])


def reliability(scored: Scored, how: Settings) -> pd.DataFrame:
    """Return the reliability of every score over personas.

    Returns:
        ``score, coefficient, estimate, n``: split halves by claim, Spearman-Brown; of ratings and the second
        instrument the correlation of keyed halves; of ratings that of the two directions of the scale.
    """
    people = scored.persona["condition"].tolist()
    rows: list[dict[str, Any]] = []
    for name, agree in scored.agree.items():
        for outcome in ("asserted", "unattributed", "net"):
            half = halves_agree(agree, outcome, people, how)
            rows.append(
                {"score": f"{name} {outcome}", "coefficient": "split half", "estimate": half.estimate, "n": half.n}
            )
    for name, rated in scored.rated.items():
        mine = rated[rated["condition"].isin(people)]
        halves = scores.keyed_halves(mine)
        directions = [scores.scale(cells) for _, cells in mine.groupby("template")]
        pairs = {"keyed halves, r": [halves["positive"], halves["negative"]]}
        if len(directions) == 2:
            pairs["directions of the scale, r"] = directions
        for coefficient, (one, other) in pairs.items():
            rows.append(
                {
                    "score": name,
                    "coefficient": coefficient,
                    "estimate": correlation(one, other).estimate,
                    "n": len(one),
                }
            )
    return pd.DataFrame(rows, columns=["score", "coefficient", "estimate", "n"])
