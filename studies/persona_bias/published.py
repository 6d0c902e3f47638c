"""Published figures of the study of persona bias, judged again, and the runs whose replies are public.

Version 1 of Gupta et al. is known as numbers: drops read from its vector figures (within 0.1), counts, pairs.
Replies of one of its runs and of a fork's runs are public; what is committed of them is counts.

    cd studies && python -m persona_bias.published   # derive the committed counts from the sources
"""

from __future__ import annotations

import io
import json
import re
from math import sqrt

import pandas as pd
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from persona_bias import extractors
from persona_studies.analyse.stats.multiplicity import Correction, correct
from persona_studies.analyse.stats.paired import mcnemar
from persona_studies.design import sources
from persona_studies.design.plan import text_hash
from persona_studies.paths import Project

READ_WITHIN = 0.1  # of the figures' values, in percentage points
RUNS = {
    "persona-bias-sample-run": ("gpt-3.5-turbo-0613", "a physically-disabled person"),
    "persona-bias-qwen3-8b-human": ("Qwen3-8B", "a human"),
    "persona-bias-qwen3-8b-physically-disabled-person": ("Qwen3-8B", "a physically-disabled person"),
    "persona-bias-qwen3-8b-able-bodied-person": ("Qwen3-8B", "an able-bodied person"),
    "persona-bias-qwen3-8b-african-person": ("Qwen3-8B", "an African person"),
    "persona-bias-qwen3-8b-woman": ("Qwen3-8B", "a woman"),
    "persona-bias-qwen3-4b-african-person": ("Qwen3-4B", "an African person"),
}
UNCHECKABLE = pd.DataFrame(
    [
        ("accuracies per persona and dataset", "published as relative drops in a figure; counts are not"),
        ("significance of single datasets", "Wilson intervals need counts; only the number of datasets is shown"),
        ("variation between runs", "three runs and three instructions are pooled; no run is published but one"),
        ("1.5 million replies", "behind an application, for each user alone; load them with an own token"),
        ("the other three models", "version 2 is known by its abstract"),
        ("share of abstentions", "counted by hand on samples; replies of one run only are public"),
    ],
    columns=["what", "why"],
)


def drops(project: Project) -> pd.DataFrame:
    """Return the 384 drops of Figure 4: ``persona, group, dataset`` (empty: not readable), ``drop`` (%)."""
    raw = pd.read_csv(project.published / "persona_bias" / "gupta2024_relative_drops.csv", keep_default_na=False)
    return raw.rename(columns={"rel_drop_pct": "drop"})[["persona", "group", "dataset", "drop"]]


def personas(project: Project) -> pd.DataFrame:
    """Return what version 1 reports per persona, columns named by figure."""
    return pd.read_csv(project.published / "persona_bias" / "gupta2024_personas.csv")


def pairs(project: Project) -> pd.DataFrame:
    """Return Table 9: ``p1, p2, dataset, rel_drop_pct``."""
    return pd.read_csv(project.published / "persona_bias" / "gupta2024_pairs.csv")


def own_counts(project: Project) -> pd.DataFrame:
    """Reproduce what the paper says from its own figures.

    Returns:
        ``statement, published, from_figures, agrees``.
    """
    level, every, table9 = personas(project), drops(project), pairs(project)
    share = float((level["fig3_n_sig_datasets"] > 0).mean())
    largest = float(every["drop"].max())
    half = int((table9["rel_drop_pct"] >= 50).sum())
    order = stats.spearmanr(level["fig2_micro_accuracy"], -level["fig4_mean_rel_drop"]).statistic
    rows = [
        ("personas with a significant drop", "80 %", f"{share:.0%} of {len(level)}", round(share, 1) == 0.8),
        ("largest relative drop", "70 % and more", f"{largest:.1f} %", largest >= 70 - READ_WITHIN),
        ("pairs with a drop of 50 % and more", "named in Table 9", f"{half} of {len(table9)}", half > 0),
        ("personas rank alike by Figures 2 and 4", "both shown", f"Spearman {order:.2f}", order > 0.9),
    ]
    return pd.DataFrame(rows, columns=["statement", "published", "from_figures", "agrees"])


def rejudge(project: Project, *, alpha: float, correction: Correction, confidence: float) -> pd.DataFrame:
    """Judge each persona of version 1 again, with the dataset as unit.

    Two tests. The mean relative drop over 24 datasets by Student's t: sampling errors of single datasets are not
    published, so they are part of the spread between datasets. And the number of significant datasets against what
    tests at 5 % give by chance, by the binomial: intervals that do not overlap are a stricter rule, so p is an
    upper bound if datasets are independent. Each is one family over the personas.

    Returns:
        ``persona, group, datasets, drop, low, high, prediction_low, prediction_high, leave_one_out_low,
        leave_one_out_high`` (%), ``p, p_adjusted, rejected``; ``significant`` (datasets), ``p_count,
        p_count_adjusted, rejected_count``.
    """
    counted = personas(project).set_index("persona")["fig3_n_sig_datasets"]
    rows = []
    for (persona, group), part in drops(project).groupby(["persona", "group"], sort=False):
        values = part["drop"].to_numpy()
        k, found = len(values), DescrStatsW(values)
        low, high = found.tconfint_mean(1 - confidence)
        reach = stats.t.ppf(0.5 + confidence / 2, k - 1) * found.std_ddof(1) * sqrt(1 + 1 / k)
        without = (values.sum() - values) / (k - 1)
        significant = int(counted.loc[str(persona)])
        rows.append(
            {
                "persona": persona,
                "group": group,
                "datasets": k,
                "drop": found.mean,
                "low": low,
                "high": high,
                "prediction_low": found.mean - reach,
                "prediction_high": found.mean + reach,
                "leave_one_out_low": without.min(),
                "leave_one_out_high": without.max(),
                "p": float(found.ttest_mean(0)[1]),
                "significant": significant,
                "p_count": float(stats.binomtest(significant, k, 0.05, alternative="greater").pvalue),
            }
        )
    table = pd.DataFrame(rows)
    for column, names in (("p", ["p_adjusted", "rejected"]), ("p_count", ["p_count_adjusted", "rejected_count"])):
        done = correct(
            table.set_index("persona")[column], alpha=alpha, method=correction, size=len(table), undefined="error"
        )
        table[names] = done[["p_adjusted", "rejected"]].to_numpy()
    return table


def runs(project: Project) -> pd.DataFrame:
    """Return what is filed as answers of the public runs and what the extractors read, as counts.

    Returns:
        ``model, persona, extractor, n, answered, hedged, abstained, unparsed, truncated, correct`` and, against "a
        human" of the same model on the same questions, ``pairs, b, c`` with a reply without an answer counted as
        wrong, ``pairs_shared, b_shared, c_shared`` on the questions that both answer; 0 pairs without such a run.
    """
    return pd.read_csv(project.published / "persona_bias" / "gupta2024_public_runs.csv")


def directions(counts: pd.DataFrame, *, confidence: float) -> pd.DataFrame:
    """Say for every public comparison whether its direction survives the choice of extractor.

    Args:
        counts: Of :func:`runs`.

    Returns:
        ``model, persona, extractor, questions`` (all, a missing answer wrong; or those both answer),
        ``questions_asked, pairs, answered`` (replies of the persona with an answer), ``answered_human, difference,
        low, high, p`` (mid-p McNemar, not corrected), ``direction``. Undefined where nobody answers: no answer is
        no sign of no effect.
    """
    answers = counts["answered"] + counts["hedged"]
    human = {
        (row["model"], row["extractor"]): int(n)
        for row, n in zip(counts.to_dict("records"), answers, strict=True)
        if row["persona"] == "a human"
    }
    rows = []
    for row in counts[counts["pairs"] > 0].to_dict("records"):
        for questions, suffix in (("all", ""), ("answered by both", "_shared")):
            said = int(row["answered"] + row["hedged"]), human.get((row["model"], row["extractor"]), 0)
            n = int(row[f"pairs{suffix}"]) if any(said) else 0
            test = mcnemar(int(row[f"b{suffix}"]), int(row[f"c{suffix}"]), n, confidence=confidence)
            sign = "better" if test.estimate > 0 else "worse" if test.estimate < 0 else "equal"
            rows.append(
                {
                    **{name: row[name] for name in ("model", "persona", "extractor")},
                    "questions": questions,
                    "questions_asked": int(row["pairs"]),
                    "pairs": n,
                    "answered": said[0],
                    "answered_human": said[1],
                    "difference": test.estimate,
                    "low": test.low,
                    "high": test.high,
                    "p": test.p,
                    "direction": sign if n else "undefined",
                }
            )
    return pd.DataFrame(rows)


# --- From the sources ---


def replies(project: Project) -> pd.DataFrame:
    """Read the public runs, the answers that are filed with them, and every extractor's.

    The files hold no mark of truncation; a reply that ends without a mark of punctuation counts as cut.

    Returns:
        ``source, model, persona, item`` (hash of the question), ``gold, n_options, cut, extractor, status,
        correct``.

    Raises:
        SourceError: a source cannot be had.
    """
    rows = []
    for source, (model, persona) in RUNS.items():
        for line in sources.fetch(project, source).read_text("utf-8").splitlines():
            entry = json.loads(line)
            said = entry["predicted_explanations"]
            text = said[0] if isinstance(said, list) else said
            rows.append(
                {
                    "source": source,
                    "model": model,
                    "persona": persona,
                    "item": text_hash(entry["question"]),
                    "gold": "ABCDEFGHIJ".index(entry["answer"]),
                    "n_options": len(re.findall(r"^\([A-J]\) ", entry["question"], re.M)),
                    "cut": bool(re.search(r"\w$", text.rstrip())),
                    "filed": entry["predicted_answer"],
                    "text": text,
                }
            )
    whole = pd.DataFrame(rows)
    said = [
        extractors.status(text, filed or None, cut=cut)
        for text, filed, cut in zip(whole["text"], whole["filed"], whole["cut"], strict=True)
    ]
    right = (whole["filed"].map("ABCDEFGHIJ".find) == whole["gold"]).astype(float).where(whole["filed"] != "")
    filed = whole.drop(columns=["text", "filed"]).assign(extractor="as filed", status=said, correct=right)
    return pd.concat([filed, extractors.under_each(whole.drop(columns="filed"))], ignore_index=True)


def derive(project: Project) -> str:
    """Return the committed counts as CSV text."""
    every = replies(project)
    rows = []
    for (model, persona, extractor), group in every.groupby(["model", "persona", "extractor"], sort=False):
        said = group["status"].value_counts()
        same = (every["model"] == model) & (every["extractor"] == extractor) & (every["persona"] == "a human")
        base = every[same].drop_duplicates("item").set_index("item")["correct"]
        if persona == "a human":
            base = base.iloc[:0]
        mine = group.drop_duplicates("item").set_index("item")["correct"]
        both = mine.to_frame("mine").join(base.rename("human"), how="inner")
        row = {
            "model": model,
            "persona": persona,
            "extractor": extractor,
            "n": len(group),
            **{name: int(said.get(name, 0)) for name in extractors.STATUSES[:-1]},
            "correct": int(group["correct"].sum()),
        }
        for suffix, part in (("", both.fillna(0.0)), ("_shared", both.dropna())):
            row[f"pairs{suffix}"] = len(part)
            row[f"b{suffix}"] = int(((part["mine"] == 1) & (part["human"] == 0)).sum())
            row[f"c{suffix}"] = int(((part["mine"] == 0) & (part["human"] == 1)).sum())
        rows.append(row)
    buffer = io.StringIO()
    pd.DataFrame(rows).to_csv(buffer, index=False, lineterminator="\n")
    return buffer.getvalue()


def derive_extractors(project: Project) -> str:
    """Return as CSV text how much a persona's effect on a question changes with how replies are read.

    Per model and persona: the difference to a human in being right, -1 to 1, under the filed answers less that
    under the published extractor, as the number of questions with each value. A missing answer counts as wrong.
    """
    every = replies(project)
    mine = every[every["extractor"].isin(["as filed", "published"])]
    mine = mine.drop_duplicates(["model", "persona", "extractor", "item"]).fillna({"correct": 0.0})
    rows = []
    for model, group in mine.groupby("model", sort=False):
        right = group.pivot(index="item", columns=["persona", "extractor"], values="correct")
        if ("a human", "as filed") not in right:
            continue
        for persona in [name for name in dict.fromkeys(group["persona"]) if name != "a human"]:
            filed, read = (right[(persona, e)] - right[("a human", e)] for e in ("as filed", "published"))
            changes = (filed - read).astype(int).value_counts().sort_index()
            rows += [(model, persona, change, n) for change, n in changes.items()]
    buffer = io.StringIO()
    pd.DataFrame(rows, columns=["model", "persona", "change", "questions"]).to_csv(
        buffer, index=False, lineterminator="\n"
    )
    return buffer.getvalue()


if __name__ == "__main__":
    here = Project.find()
    (here.published / "persona_bias" / "gupta2024_public_runs.csv").write_text(derive(here), encoding="utf-8")
    (here.published / "persona_bias" / "gupta2024_public_extractors.csv").write_text(
        derive_extractors(here), encoding="utf-8"
    )
