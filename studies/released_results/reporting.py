"""What the notebook says in words and small tables: the finding, reasons, and what was recomputed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats as sp

from persona_studies.analyse import verdicts
from released_results.cells import DATA

ROUNDING = 0.0051
"""Numbers with two decimals agree when they differ by less."""


def minus(text: str) -> str:
    """Write the sign of a negative number as a minus, and leave hyphens.

    >>> minus("GPT-4: -0.20 to -.1")
    'GPT-4: −0.20 to −.1'
    """
    return re.sub(r"(?<![\w-])-(?=\.?\d)", "−", text)


@dataclass(frozen=True)
class Found:
    """Tables that the notebook has computed, by what they hold.

    Attributes:
        scored: Of :func:`released_results.persobench.scores`.
        gained: Of :func:`released_results.persobench.gains`.
        agreement: Of :func:`released_results.persobench.rank_agreement`.
        ratios: Of :func:`released_results.persobench.failure_ratios`.
        paired: Of :func:`released_results.persobench.paired_t`.
        bounded: Of :func:`released_results.persobench.bounds`.
        totals: Of :func:`released_results.cells.task_means`.
        capability: Of :func:`released_results.cells.capabilities`, in the published layer.
        otherwise: Of :func:`released_results.cells.faithfulness_otherwise`.
        raised: Of :func:`released_results.cells.preference_gains`.
        tokens: Of :func:`released_results.cells.tokens`.
        noise: Of :func:`released_results.cells.noise`.
        letters: Of :func:`released_results.items.letters`.
    """

    scored: pd.DataFrame
    gained: pd.DataFrame
    agreement: float
    ratios: pd.DataFrame
    paired: pd.DataFrame
    bounded: pd.DataFrame
    totals: pd.DataFrame
    capability: pd.DataFrame
    otherwise: pd.DataFrame
    raised: pd.DataFrame
    tokens: pd.DataFrame
    noise: pd.Series
    letters: pd.DataFrame


def by(frame: pd.DataFrame, key: str) -> dict[Any, dict[Any, Any]]:
    """Return the rows of a table by the value of a column."""
    return frame.set_index(key).to_dict("index")


def finding(judged: pd.DataFrame) -> str:
    """Say in one sentence what was found."""
    counts = judged["verdict"].value_counts()
    testable = len(judged) - int(counts.get(verdicts.NOT_TESTABLE, 0))
    said = (
        f"Of {testable} claims that the released results of eleven persona papers can test, "
        f"{int(counts.get(verdicts.REPRODUCED, 0))} are reproduced and {int(counts.get(verdicts.CONTRADICTED, 0))} "
        "contradicted"
    )
    ranking = by(judged, "claim")["persobench_ranking"]
    if not isnan(ranking["estimate"]):
        said += (
            ": PersoBench, for instance, ranks models by how often their replies can be parsed (correlation of "
            f"score and unparsed share {ranking['estimate']:.2f} [{ranking['low']:.2f}, {ranking['high']:.2f}], "
            f"{int(ranking['n'])} models)"
        )
    return minus(f"**{said}.**")


def details(found: Found) -> dict[str, str]:
    """Return, by claim, what the rule's own words leave out: the numbers behind a verdict."""
    plain = found.scored[found.scored["setting"] == "vanilla"].set_index("model")["valid"]
    gained, raised = found.gained, found.raised["gain"]
    limits, t, guess = by(found.bounded, "metric"), by(found.paired, "metric"), by(found.letters, "letter")
    pooled = by(found.otherwise[found.otherwise["what"] == "pooled"], "score")
    apart = found.totals["difference"].abs()
    printed = found.totals.iloc[int(apart.to_numpy().argmax())].to_dict()
    most = float(found.tokens.loc["EverMemOS"].to_numpy().max()) + 1
    made = {
        "persobench_ranking": (
            f"parsed replies rank otherwise (Spearman {found.agreement:.2f} with the printed ranking): "
            f"{plain.idxmax()} first with {plain.max():.1f}, {plain.idxmin()} last with {plain.min():.1f}"
        ),
        "persobench_cot": (
            f"of printed gains up to {gained['printed_gain'].max():.1f} points, parsed replies keep "
            f"{gained['valid_gain'].min():.1f} to {gained['valid_gain'].max():.1f}"
        ),
        "persobench_cot_valid": (
            f"positive in {int((gained['valid_gain'] > 0).sum())} of {len(gained)} models, conditional on being "
            f"parsed: bounds of the C score's gain include 0 in {int((gained['c_gain_low'] < 0).sum())}"
        ),
        "personagym_mean": (
            f"{printed['model']} is printed {printed['printed']:.2f}, its tasks average "
            f"{printed['task_mean']:.2f}; {int((apart <= ROUNDING).sum())} of {len(apart)} agree"
        ),
        "apc_pooled": (
            f"GPT-4 {pooled['GPT-4']['estimate']:.2f}; the cells are not independent, so there is no test"
        ),
        "apc_dpo": (
            f"{int((raised > 0).sum())} of {len(raised)} gains positive, {raised.min():+.1f} to "
            f"{raised.max():+.1f}; dependent cells, so there is no test"
        ),
        "personamem_history": (
            f"blind, the letter a is chosen {guess['a']['blind']} times; it is right {guess['a']['gold']} times"
        ),
        "perma_tokens": (
            f"{int((found.tokens.to_numpy() < 0).sum())} of {found.tokens.size} cells use fewer, EverMemOS up to "
            f"{most:.1f} times as many"
        ),
    }
    for claim, metric in (("persobench_consistency", "C Score"), ("persobench_naturalness", "UniEval Naturalness")):
        made[claim] = (
            f"t = {t[metric]['realigned']:.3f} realigned, {t[metric]['valid']:.3f} where both are parsed; "
            f"bounds {limits[metric]['low']:.2f} to {limits[metric]['high']:.2f}"
        )
    return {name: minus(text) for name, text in made.items()}


def recomputed_by_claim(found: Found) -> dict[str, str]:
    """Return, by claim with a printed number, what the authors' analysis of the authors' numbers gives here.

    Returns:
        Claim -> "✓" where every printed number comes out to the digit, else "✗", and what was compared.
    """
    off = (found.scored["printed"] - found.scored["recomputed"]).abs()
    agree = f"{int((off <= ROUNDING).sum())} of {len(off)} scores agree, largest difference {off.max():.2f} points"
    printed = found.gained["printed_gain"]
    t, total = by(found.paired, "metric"), found.totals.set_index("model")["printed"].to_dict()
    apart, raised = found.totals["difference"].abs(), found.raised["gain"]
    above = 100 * (total["claude_3.5_sonnet"] / total["gpt_35"] - 1)
    made = {
        "persobench_ranking": (off.max() <= ROUNDING, agree),
        "persobench_cot": (off.max() <= ROUNDING, f"{agree}; gains {printed.min():.1f} to {printed.max():.1f}"),
        "personagym_sonnet": (abs(above - 2.97) <= ROUNDING, f"{above:.2f} %"),
        "personagym_mean": (
            apart.max() <= ROUNDING,
            f"{int((apart <= ROUNDING).sum())} of {len(apart)} agree, largest difference {apart.max():.2f} points",
        ),
        "apc_dpo": (
            bool((raised > 0).all()),
            f"{int((raised > 0).sum())} of {len(raised)} rise, {raised.min():+.1f} to {raised.max():+.1f}",
        ),
    }
    for claim, metric in (("persobench_consistency", "C Score"), ("persobench_naturalness", "UniEval Naturalness")):
        made[claim] = (t[metric]["off"] <= 0.000051, f"t = {t[metric]['as_filed']:.3f}")
    return {name: minus(f"{'✓' if agrees else '✗'} {text}") for name, (agrees, text) in made.items()}


def recomputed(found: Found) -> pd.DataFrame:
    """Return every printed number that the released rows or cells give again, and how far off the result is.

    To *recompute* is to get the authors' number by the authors' analysis of the authors' rows; it is no verdict.

    Returns:
        ``source, what, numbers, to_the_digit, largest_difference, note``.
    """
    off = (found.scored["printed"] - found.scored["recomputed"]).abs().to_numpy()
    departing = ", ".join(found.scored.loc[off > ROUNDING, "model"])
    ratio_off = (found.ratios["printed"] - found.ratios["counted"]).abs().to_numpy()
    t_off = found.paired["off"].dropna().to_numpy()
    total = found.totals.set_index("model")["printed"].to_dict()
    gain_off = abs(100 * (total["claude_3.5_sonnet"] / total["gpt_35"] - 1) - 2.97)
    mean_off = found.totals["difference"].abs().to_numpy()
    odd = ", ".join(found.totals.loc[mean_off > ROUNDING, "model"])
    sizes = {"MetaMathQA": 17.8, "MathInstruct": 27.0}
    size_off = np.array([abs(100 * DATA["PersonaMathQA"] / DATA[name] - said) for name, said in sizes.items()])
    z = found.capability["estimate"] / found.capability["se"]
    count_off = abs(int((2 * sp.norm.sf(z.abs()) < 0.05).sum()) - 19)
    gym, bench = "PersonaGym", "PersoBench"
    rows: list[tuple[str, str, np.ndarray, float, str]] = [
        (bench, "ranking scores", off, ROUNDING, f"with chain of thought, {departing}: a term was typed by hand"),
        (bench, "failure ratios", ratio_off, 0.00051, "48 of 55 reply files have a table"),
        (bench, "paired t", t_off, 0.000051, "as filed"),
        (gym, "PersonaScore, mean of tasks", mean_off, ROUNDING, f"departs: {odd}"),
        (gym, "Claude 3.5 Sonnet above GPT-3.5, %", np.array([gain_off]), ROUNDING, ""),
        (
            "Open Character Training",
            "contrasts with p < .05",
            np.array([count_off]),
            0.5,
            "released standard errors",
        ),
        ("PersonaMath", "training rows as % of others'", size_off, 0.051, "70.3 of 395 and of 260 thousand"),
    ]
    return pd.DataFrame(
        [
            {
                "source": source,
                "what": what,
                "numbers": len(apart),
                "to_the_digit": int((apart <= digit).sum()),
                "largest_difference": float(apart.max()),
                "note": note,
            }
            for source, what, apart, digit, note in rows
        ]
    )
