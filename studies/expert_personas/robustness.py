"""The contrasts of expert personas under other readings of the same answers."""

from __future__ import annotations

import pandas as pd
import statsmodels.api as sm
import statsmodels.formula.api as smf
from scipy import stats

from expert_personas.analysis import LOW_KNOWLEDGE, by_question, pooled
from expert_personas.design import NO_PERSONA
from persona_studies.analyse import multiple_choice
from persona_studies.analyse.families import Settings
from persona_studies.design.protocol import Protocol

COLUMNS = ["contrast", "reading", "n", "estimate", "low", "high", "p"]


def readings(protocol: Protocol, scored: pd.DataFrame, usable: list[str], how: Settings) -> pd.DataFrame:
    """Return every contrast of accuracy with no persona under other readings of the same answers.

    These are a logit of the right option's probability (log odds ratio, by GEE with questions as clusters), the
    likeliest letter in place of its probability, and each wording by itself.

    Args:
        scored: Of :func:`expert_personas.analysis.scores`.
        usable: Benchmarks that pass the gate.
        how: Settings; nothing is corrected.

    Returns:
        ``contrast, reading, n`` (questions), ``estimate, low, high, p``.
    """
    rows = []
    for name in ("experts", "low_knowledge", "controls"):
        for contrast in protocol.families[name].contrasts.values():
            if contrast.second != NO_PERSONA:
                continue
            mine = LOW_KNOWLEDGE if contrast.first == "low knowledge" else [contrast.first]
            cells = scored[scored["benchmark"].isin(pooled(contrast.on, usable))]
            cells = cells[cells["persona"].isin([NO_PERSONA, *mine])]
            with_persona = cells.loc[cells["persona"] != NO_PERSONA, "item"]
            cells = cells[cells["item"].isin(with_persona)]
            if with_persona.nunique() < 2:
                continue
            about = {"contrast": contrast.name}
            rows += [about | row for row in (_logit(cells, how), *_means(cells, contrast.first, how))]
    return pd.DataFrame(rows, columns=COLUMNS)


def _logit(cells: pd.DataFrame, how: Settings) -> dict[str, object]:
    """Return the log odds ratio of the right option's probability, with a persona against without one."""
    data = cells.assign(treated=(cells["persona"] != NO_PERSONA).astype(float))
    several = data["benchmark"].nunique() > 1
    fit = smf.gee(
        "score ~ treated + C(benchmark)" if several else "score ~ treated",
        groups="item",
        data=data,
        family=sm.families.Binomial(),
        # Answers to one question correlate near 1, where the estimate of an exchangeable correlation can diverge.
        cov_struct=sm.cov_struct.Independence(),
    ).fit()
    b, reach = fit.params["treated"], stats.norm.ppf(0.5 + how.confidence / 2) * fit.bse["treated"]
    return {"reading": "logit, GEE by question (log odds ratio)", "n": data["item"].nunique(), "estimate": b} | {
        "low": b - reach,
        "high": b + reach,
        "p": fit.pvalues["treated"],
    }


def _means(cells: pd.DataFrame, persona: str, how: Settings) -> list[dict[str, object]]:
    """Return the mean difference by the likeliest letter and, where a persona has several, by each wording."""
    right, wide = by_question(cells, "correct"), by_question(cells)
    found = {"likeliest letter": right[persona] - right[NO_PERSONA]}
    wordings = cells[cells["persona"] == persona].pivot_table(
        index=["benchmark", "item", "cluster"], columns="paraphrase", values="score"
    )
    if wordings.shape[1] > 1:
        gaps = wordings.sub(wide[NO_PERSONA].reindex(wordings.index), axis=0)
        found |= {f"wording {paraphrase} alone": gaps[paraphrase] for paraphrase in gaps}
    table = multiple_choice.paired(
        pd.concat(found, axis=1), confidence=how.confidence, replicates=how.replicates, seed=how.seed
    )
    return [
        {"reading": reading, "estimate": row["difference"], **{key: row[key] for key in ("n", "low", "high", "p")}}
        for reading, row in table.to_dict("index").items()
    ]


def lengths(scored: pd.DataFrame) -> pd.DataFrame:
    """Return effect against length: one row per persona and wording.

    Returns:
        ``persona, paraphrase, words`` (mean over fields), ``n`` (questions), ``difference``: mean over its
        questions, less the same questions without a persona.
    """
    none = scored[scored["persona"] == NO_PERSONA].set_index("item")["score"]
    rest = scored[scored["persona"] != NO_PERSONA]
    rest = rest.assign(difference=rest["score"] - rest["item"].map(none))
    groups = rest.groupby(["persona", "paraphrase"], sort=False)
    return groups.agg(words=("words", "mean"), n=("item", "size"), difference=("difference", "mean")).reset_index()
