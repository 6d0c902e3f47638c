"""The contrasts of expert personas in other models of the data, and in other language models."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import statsmodels.api as sm
import statsmodels.formula.api as smf
from scipy import stats

from expert_personas.analysis import (
    OVERALL,
    accuracy,
    by_question,
    contrasts,
    extremes,
    gates,
    scores_by_measure,
)
from expert_personas.conditions import REFERENCE
from expert_personas.design import Parameters
from expert_personas.replies import replies
from persona_studies.analyse import gates as checks
from persona_studies.analyse import multiple_choice as shared
from persona_studies.design.protocol import Protocol


def sensitivity(scored: pd.DataFrame, table: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Return each contrast under other models: logit by GEE, and every wording alone.

    Returns:
        ``contrast, model, estimate, low, high, p``: differences in probability, but log odds ratios for the logit.
    """
    reach = stats.norm.ppf(0.5 + chosen.confidence / 2)
    rows = []
    for contrast in table.loc[table["n"] > 0, "hypothesis"].unique():
        cells = scored[scored["persona"].isin([REFERENCE, contrast])].copy()
        cells["treated"] = (cells["persona"] == contrast).astype(float)
        cells["correct_cell"] = cells["correct"]
        fit = smf.gee(
            "correct_cell ~ treated + C(benchmark)"
            if cells["benchmark"].nunique() > 1
            else "correct_cell ~ treated",
            groups="item",
            data=cells,
            family=sm.families.Binomial(),
            cov_struct=sm.cov_struct.Exchangeable(),
        ).fit()
        b, se = fit.params["treated"], fit.bse["treated"]
        rows.append(
            {
                "contrast": contrast,
                "model": "logit, GEE by question (log odds ratio)",
                "estimate": b,
                "low": b - reach * se,
                "high": b + reach * se,
                "p": fit.pvalues["treated"],
            }
        )
        wide = by_question(cells)
        wordings = cells[cells["treated"] == 1].pivot_table(
            index=["benchmark", "item", "cluster"], columns="paraphrase", values="score"
        )
        found = shared.paired(
            wordings.sub(wide[REFERENCE].reindex(wordings.index), axis=0),
            confidence=chosen.confidence,
            margin=chosen.margin,
            replicates=chosen.replicates,
            seed=chosen.seed,
        )
        rows += [
            {
                "contrast": contrast,
                "model": f"wording {paraphrase} alone",
                "estimate": effect["difference"],
                **{name: effect[name] for name in ("low", "high", "p")},
            }
            for paraphrase, effect in found.to_dict("index").items()
        ]
    return pd.DataFrame(rows, columns=["contrast", "model", "estimate", "low", "high", "p"])


def other_models(
    recordings: Mapping[str, pd.DataFrame],
    asked: pd.DataFrame,
    people: pd.DataFrame,
    protocol: Protocol,
    chosen: Parameters,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Analyse further models as this one, each on the questions and wordings that it was asked.

    Args:
        recordings: Responses by model.
        asked: Questions, as :func:`expert_personas.questions` returns them.
        people: Conditions, as :func:`expert_personas.people` returns them.
        protocol: Thresholds and families; each model is a family of its own.
        chosen: Parameters.

    Returns:
        :func:`extremes` (``questions`` for ``n``), :func:`gates` and the overall part of :func:`contrasts`, each
        with a column ``model`` in front.
    """
    states: list[pd.DataFrame] = []
    checked: list[pd.DataFrame] = []
    found: list[pd.DataFrame] = []
    for model, recorded in recordings.items():
        theirs = asked[asked["item"].isin(recorded["item"])]
        scored = scores_by_measure(recorded, theirs, people)
        state = extremes(accuracy(scored[chosen.measure], chosen), protocol.design["ceiling"])
        usable = state.loc[state["status"] == "usable", "benchmark"].tolist()
        gate = gates(protocol, scored, recorded, theirs, replies(recorded, theirs), chosen)
        why = checks.failures(gate, chosen.measure)
        table = contrasts(scored[chosen.measure], protocol, chosen, usable, why)
        overall = table[table["benchmark"] == OVERALL].assign(gate=why)
        for parts, part in ((states, state), (checked, gate), (found, overall)):
            parts.append(part.assign(model=model))
    first = [pd.concat(parts, ignore_index=True) for parts in (states, checked, found)]
    state, gate, table = (whole[["model", *whole.columns.drop("model")]] for whole in first)
    return state, gate, table


def lengths(scored: pd.DataFrame) -> pd.DataFrame:
    """Return effect against length: one row per persona and wording.

    Returns:
        ``persona, kind, paraphrase, words`` (mean over fields), ``n`` (questions), ``difference``: mean over its
        questions, less the same questions without a persona.
    """
    none = scored[scored["persona"] == REFERENCE].set_index("item")["score"]
    rest = scored[scored["persona"] != REFERENCE]
    rest = rest.assign(difference=rest["score"] - rest["item"].map(none))
    groups = rest.groupby(["persona", "kind", "paraphrase"], sort=False)
    return groups.agg(words=("words", "mean"), n=("item", "size"), difference=("difference", "mean")).reset_index()
