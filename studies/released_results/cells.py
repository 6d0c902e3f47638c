"""Releases of which only printed cells exist: PersonaGym, Open Character Training, APC, PERMA, PersonaMath."""

from __future__ import annotations

from itertools import product
from math import sqrt
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats as sp

from persona_studies.design.protocol import Protocol
from released_results import analysis
from released_results.design import Parameters

# --- PersonaGym -----------------------------------------------------------------------------------------------


def task_means(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the printed PersonaScore and the mean of the five tasks: ``model, printed, task_mean, difference``."""
    wide = scores.pivot(index="model", columns="task", values="score")
    mean = wide.drop(columns="PersonaScore").mean(axis=1)
    made = pd.DataFrame(
        {"printed": wide["PersonaScore"], "task_mean": mean, "difference": wide["PersonaScore"] - mean}
    )
    return made.reset_index()


# --- Open Character Training ----------------------------------------------------------------------------------

TASKS = {
    "leaderboard|truthfulqa:mc|0": ("TruthfulQA", 817),
    "leaderboard|winogrande|5": ("WinoGrande", 1267),
    "leaderboard|hellaswag|10": ("HellaSwag", 10042),
    "leaderboard|arc:challenge|25": ("ARC", 1172),
    "mmlu": ("MMLU", 14042),
}
"""Task -> its short name and its number of questions, which the release does not state."""
PERSONAS = ("goodness", "loving", "misalignment")
BASES = {"llama-3.1-8b-it": "Llama", "qwen-2.5-7b-it": "Qwen", "gemma-3-4b-it": "Gemma"}


CAPABILITY = "{} {}: {}"


def capability_names() -> pd.DataFrame:
    """Return what each of the 45 hypotheses is about: ``hypothesis, model, persona, task``."""
    parts = product(BASES.values(), PERSONAS, [short for short, _ in TASKS.values()])
    rows = [(CAPABILITY.format(*part), *part) for part in parts]
    return pd.DataFrame(rows, columns=["hypothesis", "model", "persona", "task"])


def capabilities(results: pd.DataFrame, parameters: Parameters, layer: str) -> pd.DataFrame:
    """Contrast every tuned model with its base, task by task: 45 unpaired z tests.

    In the published layer standard errors are the released ones. MMLU's is that of a mean over 57 subjects, eight
    times the binomial one; the corrected layer takes sqrt(m (1 - m) / 14,042) for it.
    """
    frame = results.assign(
        base=results["model"].str.extract(r"^(.*?-it)", expand=False),
        persona=results["model"].str.extract(r"-it-(.*)$", expand=False),
        short=results["task"].map(lambda name: TASKS[name][0]),
        questions=results["task"].map(lambda name: TASKS[name][1]),
    )
    if layer == "corrected":
        binomial = np.sqrt(frame["mean"] * (1 - frame["mean"]) / frame["questions"])
        frame["se"] = frame["se"].where(frame["short"] != "MMLU", binomial)
    plain = frame[frame["persona"].isna()].set_index(["base", "short"])
    found = []
    tuned = frame[frame["persona"].notna()]
    tuned = tuned.sort_values("persona", key=lambda names: names.map(PERSONAS.index), kind="stable")
    for row in tuned.to_dict("records"):
        other = plain.loc[(row["base"], row["short"])]
        found.append(
            {
                "source": "Open Character Training",
                "family": "oct",
                "hypothesis": CAPABILITY.format(BASES[row["base"]], row["persona"], row["short"]),
                "unit": "printed cell",
                "n": row["questions"],
                "test": analysis.UNPAIRED,
                "printed": 0.0,
                **analysis.difference(
                    row["mean"] - float(other["mean"]), float(np.hypot(row["se"], other["se"])), parameters
                ),
            }
        )
    return analysis.rows(found)


def capability_layers(results: pd.DataFrame, protocol: Protocol, parameters: Parameters) -> pd.DataFrame:
    """Count the decisions on the 45 contrasts by the released and by the binomial standard error of MMLU.

    Returns:
        ``layer, contrasts, p_below_alpha, significant, equivalent, negative, smallest, largest``; significant after
        the parameters' correction in both layers.
    """
    own = parameters.model_copy(update={"sources": ("Open Character Training",), "layer": "corrected"})
    rows = []
    for layer in ("published", "corrected"):
        found = analysis.corrected(capabilities(results, own, layer), protocol, own)
        rows.append(
            {
                "layer": layer,
                "contrasts": len(found),
                "p_below_alpha": int((found["p"] <= own.alpha).sum()),
                "significant": int(found["rejected"].sum()),
                "equivalent": int(found["equivalent"].sum()),
                "negative": int((found["estimate"] < 0).sum()),
                "smallest": float(found["estimate"].min()),
                "largest": float(found["estimate"].max()),
            }
        )
    return pd.DataFrame(rows)


def smallest_by_task(results: pd.DataFrame, parameters: Parameters) -> pd.DataFrame:
    """Return each task's smallest detectable difference, from its mean released standard error times sqrt(2)."""
    named = results.assign(task=results["task"].map(lambda name: TASKS[name][0]))
    mean = named.groupby("task", sort=False)["se"].mean()
    binomial = sqrt(2 * 0.25 / TASKS["mmlu"][1])
    made = pd.DataFrame(
        {
            "mean_se": mean,
            "minimum_detectable": [analysis.minimum_detectable(sqrt(2) * s, parameters) for s in mean],
        }
    )
    made.loc["MMLU, binomial"] = [binomial / sqrt(2), analysis.minimum_detectable(binomial, parameters)]
    return made.reset_index()


# --- APC ------------------------------------------------------------------------------------------------------

AUTOMATIC = {"DeBERTa": "dAPC_DeBERTa", "GPT-4": "dAPC_GPT4"}


def faithfulness(table: pd.DataFrame, parameters: Parameters) -> pd.DataFrame:
    """Correlate each automatic score with the human one over the seven methods, within a character."""
    found = []
    for name, column in AUTOMATIC.items():
        for character, part in table.groupby("character"):
            found.append(
                {
                    "source": "APC",
                    "family": "apc",
                    "hypothesis": f"{name}: {character}",
                    "unit": "method",
                    "test": "Pearson, Fisher z",
                    **analysis.tested_correlation(part[column], part["human"], parameters),
                }
            )
    return analysis.rows(found)


def faithfulness_otherwise(table: pd.DataFrame, parameters: Parameters) -> pd.DataFrame:
    """Return the same correlations pooled, centred within a character, and without the untuned baseline Gemma-7B.

    Pooled cells are not independent: the three characters share their methods.
    """
    centred = table.assign(
        **{
            name: table[name] - table.groupby("character")[name].transform("mean")
            for name in (*AUTOMATIC.values(), "human")
        }
    )
    without = table[table["method"] != "Gemma-7B"]
    frames = {"pooled": table, "centred within characters": centred}
    frames |= {f"without Gemma-7B: {who}": part for who, part in without.groupby("character")}
    rows = [
        {"what": what, "score": name, **analysis.tested_correlation(part[column], part["human"], parameters)}
        for what, part in frames.items()
        for name, column in AUTOMATIC.items()
    ]
    return pd.DataFrame(rows)[["what", "score", "n", "estimate", "low", "high"]]


def preference_gains(table: pd.DataFrame) -> pd.DataFrame:
    """Return the human score with tuning less without: ``character, method, gain``."""
    wide = table.pivot(index="character", columns="method", values="human")
    rows = [
        (who, name, wide.loc[who, f"{name}+DPO"] - wide.loc[who, name])
        for who in wide.index
        for name in ("EU", "LCM", "RAG")
    ]
    return pd.DataFrame(rows, columns=["character", "method", "gain"])


# --- PERMA ----------------------------------------------------------------------------------------------------

RETRIEVAL = "RAG (BGE-M3)"
SYSTEMS = ("MemOS", "Mem0", "Lightmem", "Memobase", "EverMemOS", "Supermemory")
CONDITIONS = ("clean single", "noise single", "clean multi")
SYSTEM = "{}: {}"
SHARES = ("MCQ accuracy", "MCQ Acc.", "Completion", "Turn=1", "Turn≤2")


def _questions(condition: pd.Series, parameters: Parameters) -> pd.Series:
    return condition.str.endswith("single").map({True: parameters.perma_single, False: parameters.perma_multi})


def memory_names() -> pd.DataFrame:
    """Return what each of the 18 hypotheses is about: ``hypothesis, system, setting``."""
    rows = [(SYSTEM.format(*part), *part) for part in product(SYSTEMS, CONDITIONS)]
    return pd.DataFrame(rows, columns=["hypothesis", "system", "setting"])


def memory(tables: pd.DataFrame, parameters: Parameters) -> pd.DataFrame:
    """Contrast the accuracy of every memory system with retrieval alone: 18 unpaired z tests."""
    wide = tables[tables["metric"] == "MCQ Acc."].pivot(index="system", columns="condition", values="value")
    accuracy = wide.to_dict("index")
    found = []
    for system in [name for name in accuracy if name != RETRIEVAL]:
        for condition in CONDITIONS:
            n = parameters.perma_single if condition.endswith("single") else parameters.perma_multi
            first, second = float(accuracy[system][condition]), float(accuracy[RETRIEVAL][condition])
            found.append(
                {
                    "source": "PERMA",
                    "family": "perma",
                    "hypothesis": SYSTEM.format(system, condition),
                    "unit": "printed cell",
                    "n": n,
                    "test": analysis.UNPAIRED,
                    "printed": first - second,
                    **analysis.two_proportions(first, second, n, parameters),
                }
            )
    return analysis.rows(found)


def noise(tables: pd.DataFrame) -> pd.Series:
    """Return by standalone model the accuracy with noise less without, on questions of one domain."""
    alone = tables[tables["kind"] == "standalone"].pivot(index="system", columns="condition", values="value")
    return alone["noise single"] - alone["clean single"]


def tokens(tables: pd.DataFrame) -> pd.DataFrame:
    """Return the context tokens of every memory system over those of retrieval alone, less 1."""
    used = tables[tables["metric"] == "Context Token"].pivot(index="system", columns="condition", values="value")
    return used.drop(index=RETRIEVAL) / used.loc[RETRIEVAL] - 1


# --- PersonaMath ----------------------------------------------------------------------------------------------

BENCHMARKS = {"GSM8K": ("gsm8k_pass1", 1319), "MATH": ("math_pass1", 5000)}
DATA = {"PersonaMathQA": 70.3, "MetaMathQA": 395.0, "MathInstruct": 260.0}
"""Rows of the training sets in thousands, as the papers state them."""


def _math(table: pd.DataFrame, first: str, second: str, parameters: Parameters) -> list[dict[str, Any]]:
    share = (table.set_index("model") / 100).to_dict("index")
    made = []
    for name, (column, n) in BENCHMARKS.items():
        one, other = float(share[first][column]), float(share[second][column])
        row = {
            "source": "PersonaMath",
            "hypothesis": name,
            "unit": "printed cell",
            "n": n,
            "test": analysis.UNPAIRED,
        }
        made.append({**row, "printed": one - other, **analysis.two_proportions(one, other, n, parameters)})
    return made


def mathematics(table: pd.DataFrame, parameters: Parameters) -> pd.DataFrame:
    """Contrast the tuned LLaMA-2 models with MetaMath of the same size: four unpaired z tests."""
    found = [
        {**row, "family": "personamath", "hypothesis": f"{size}: {row['hypothesis']}"}
        for size in ("7B", "13B")
        for row in _math(table, f"PersonaMath-LLaMA-2-{size}", f"MetaMath-{size}", parameters)
    ]
    return analysis.rows(found)


def mathematics_qwen(table: pd.DataFrame, parameters: Parameters) -> pd.DataFrame:
    """Contrast the tuned Qwen2.5-7B with the untuned one (ours; in no family)."""
    found = _math(table, "PersonaMath-Qwen2.5-7B", "Qwen2.5-7B", parameters)
    return analysis.rows([{**row, "family": ""} for row in found])


# --- All printed shares ---------------------------------------------------------------------------------------


def printed_shares(
    failures: pd.DataFrame,
    capability: pd.DataFrame,
    perma: pd.DataFrame,
    maths: pd.DataFrame,
    parameters: Parameters,
) -> pd.DataFrame:
    """Collect every printed share whose number of questions is known: ``source, what, value, n, decimals``.

    Accuracies of Open Character Training are released to ten decimals, so that k must be exact to that precision.
    TruthfulQA's is a mean of probabilities and MMLU's a mean over subjects: neither need be k of n.
    """
    ratios = failures.assign(
        source="PersoBench", what="failure ratio", value=failures["printed"], n=failures["rows"], decimals=3
    )
    exact = capability.assign(short=capability["task"].map(lambda name: TASKS[name][0]))
    exact = exact[exact["short"].isin(["WinoGrande", "HellaSwag", "ARC"])]
    exact = exact.assign(
        source="Open Character Training",
        what=exact["short"],
        value=exact["mean"],
        n=exact["task"].map(lambda name: TASKS[name][1]),
        decimals=9,
    )
    shares = perma[perma["metric"].isin(SHARES)]
    shares = shares.assign(
        source="PERMA",
        what=shares["condition"].str.replace(r"\w+ ", "", regex=True),
        n=_questions(shares["condition"], parameters),
        decimals=3,
    )
    long = maths.melt("model", var_name="column")
    number = dict(BENCHMARKS.values())
    long = long.assign(
        source="PersonaMath",
        what=long["column"].map({column: name for name, (column, _) in BENCHMARKS.items()}),
        n=long["column"].map(number),
        decimals=np.where((long["value"] * 10 - (long["value"] * 10).round()).abs() < 1e-9, 3, 4),
        value=long["value"] / 100,
    )
    parts = [part[["source", "what", "value", "n", "decimals"]] for part in (ratios, exact, shares, long)]
    return pd.concat(parts, ignore_index=True)


def _description(source: str, hypothesis: str, unit: str, n: int, test: str, **values: float) -> dict[str, Any]:
    about = {"source": source, "family": "described", "hypothesis": hypothesis, "unit": unit, "n": n, "test": test}
    return {**about, **values}


def described(
    gym: pd.DataFrame, apc: pd.DataFrame, perma: pd.DataFrame, parameters: Parameters
) -> list[dict[str, Any]]:
    """Return what is decided without a test: printed means, pooled correlations, gains, tokens, noise.

    Where ``test`` says range, the limits are the least and the largest cell.
    """
    apart = task_means(gym)["difference"].to_numpy()
    pooled = faithfulness_otherwise(apc, parameters).query("what == 'pooled'").sort_values("estimate")
    weaker: dict[Any, Any] = pooled.iloc[0].to_dict()
    limits = {name: float(weaker[name]) for name in ("estimate", "low", "high")}
    gain = preference_gains(apc)["gain"].to_numpy()
    saved = tokens(perma).to_numpy().ravel()
    change = noise(perma).to_numpy()
    mean = analysis.difference(float(change.mean()), float(sp.sem(change)), parameters, df=len(change) - 1)
    both = "method and character"
    return [
        _description(
            "PersonaGym",
            "printed means",
            "printed total",
            len(apart),
            "largest difference of six",
            printed=0.0,
            estimate=float(apart[np.abs(apart).argmax()]),
        ),
        _description("APC", "pooled", both, int(weaker["n"]), "Pearson, cells not independent", **limits),
        _description(
            "APC",
            "tuned by preference",
            both,
            len(gain),
            "mean and range of nine dependent cells",
            printed=float(gain.mean()),
            estimate=float(gain.mean()),
            low=float(gain.min()),
            high=float(gain.max()),
        ),
        _description(
            "PERMA",
            "tokens",
            "printed cell",
            len(saved),
            "median and range of eighteen cells",
            estimate=float(np.median(saved)),
            low=float(saved.min()),
            high=float(saved.max()),
        ),
        _description("PERMA", "noise", "model", len(change), "mean, t over models", **{**mean, "p": np.nan}),
    ]
