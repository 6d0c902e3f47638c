"""Existing answers to the same vignettes and cases: physicians, lay people, GPT-3, and 15 later models.

What is committed are counts and means over cases; answers to single cases stay at their sources.

    python studies/clinical_personas/published.py   # derive the committed tables from the sources
"""

from __future__ import annotations

import io
from math import sqrt

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from persona_studies.analyse.stats.agreement import cohen_kappa
from persona_studies.analyse.stats.meta_analysis import random_effects
from persona_studies.design import multiple_choice, sources
from persona_studies.paths import Project

URGENCIES = ("Emergent", "1-day", "1-week", "Self-care")
LABELS = {"male": "male", "female": "female", "nb_label_only": "non-binary", "nb_ambiguous": "no label"}
VARIANTS = {
    "female - male": ("Gender", "female", "male"),
    "Asian - White": ("Ethnicity", "Asian", "White"),
    "Black - White": ("Ethnicity", "Black", "White"),
    "Hispanic - White": ("Ethnicity", "Hispanic", "White"),
}
GPT3, GPT3_HALVES = "GPT-3", "GPT-3, two classes"
BINS = 10  # of equal width, as committed
# Of the vignettes' paper, as its authors state them.
REPORTED = {"accuracy": 0.71, "brier": 0.22}


# --- Vignettes ---


def people(project: Project, *, confidence: float) -> pd.DataFrame:
    """Return how often physicians, lay people and GPT-3 assign the right urgency to the vignettes.

    The file does not say whether a person's answer is right by four levels or by two classes (emergency or one day;
    one week or self-care); GPT-3's are given both ways.

    Returns:
        ``who, setting`` (all, critical, primary), ``cases, answers, accuracy, low, high``: mean over vignettes,
        with an interval of Student's t over vignettes.
    """
    raw = pd.read_csv(project.published / "clinical_personas" / "levine2024_accuracy.csv")
    rows = []
    for who, group in raw.groupby("who", sort=False):
        for setting, part in (
            ("all", group),
            ("critical", group[group["place"] < 2]),
            ("primary", group[group["place"] >= 2]),
        ):
            n = int(part["cases"].sum())
            mean = float((part["accuracy"] * part["cases"]).sum() / n)
            within = (part["sd"] ** 2 * (part["cases"] - 1)).sum()
            between = (part["cases"] * (part["accuracy"] - mean) ** 2).sum()
            reach = stats.t.ppf(0.5 + confidence / 2, n - 1) * sqrt((within + between) / (n - 1) / n)
            rows.append(
                {
                    "who": who,
                    "setting": setting,
                    "cases": n,
                    "answers": int(part["answers"].sum()),
                    "accuracy": mean,
                    "low": mean - reach,
                    "high": min(1.0, mean + reach),
                }
            )
    return pd.DataFrame(rows)


def gpt3(project: Project) -> NDArray[np.float64]:
    """Return how often GPT-3 assigned each place: true place x assigned place, ten prompts per vignette."""
    raw = pd.read_csv(project.published / "clinical_personas" / "levine2024_gpt3.csv")
    return raw.pivot_table(index="place", columns="answer", values="replies", aggfunc="sum").to_numpy(dtype=float)


def gpt3_calibration(project: Project, bins: tuple[int, ...]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return how well GPT-3's stated probabilities are calibrated.

    Args:
        bins: Numbers of bins of equal width; those that do not divide ten are left out.

    Returns:
        Reliability: ``probability_is`` (of the label; share of ten prompts; the same for two classes), ``low, high,
        n, probability, frequency``; and scores: ``probability_is, n, accuracy, brier`` (of the stated answer, 0 to
        1), ``skill`` (against always stating the accuracy), and ``ece_...``.
    """
    raw = pd.read_csv(project.published / "clinical_personas" / "levine2024_gpt3_calibration.csv")
    curve = raw.assign(
        low=raw["bin"] / BINS,
        high=(raw["bin"] + 1) / BINS,
        probability=raw["probability_sum"] / raw["n"],
        frequency=raw["right"] / raw["n"],
    )
    rows = []
    for name, group in raw.groupby("probability_is", sort=False):
        n = group["n"].sum()
        right = group["right"].sum() / n
        brier = group["squares_sum"].sum() / n
        row = {"probability_is": name, "n": int(n), "accuracy": right, "brier": brier}
        row["skill"] = 1 - brier / (right * (1 - right))
        for k in bins:
            if BINS % k == 0:
                merged = group.groupby(group["bin"] * k // BINS)[["right", "probability_sum"]].sum()
                row[f"ece_{k}"] = float((merged["right"] - merged["probability_sum"]).abs().sum() / n)
        rows.append(row)
    columns = ["probability_is", "low", "high", "n", "probability", "frequency"]
    return curve[columns], pd.DataFrame(rows)


def gpt3_variants(project: Project, *, confidence: float) -> pd.DataFrame:
    """Return what gender and ethnicity do to the urgency that GPT-3 assigns.

    Returns:
        ``hypothesis, n`` (cases), ``difference`` (places; positive is less urgent), ``low, high, p`` (Student's t
        over cases, not corrected), ``accuracy_difference``.
    """
    raw = pd.read_csv(project.published / "clinical_personas" / "levine2024_gpt3_variants.csv")
    se = raw["sd"] / np.sqrt(raw["cases"])
    reach = stats.t.ppf(0.5 + confidence / 2, raw["cases"] - 1) * se
    return pd.DataFrame(
        {
            "hypothesis": raw["hypothesis"],
            "n": raw["cases"],
            "difference": raw["difference"],
            "low": raw["difference"] - reach,
            "high": raw["difference"] + reach,
            "p": 2 * stats.t.sf(np.abs(raw["difference"]) / se, raw["cases"] - 1),
            "accuracy_difference": raw["accuracy_difference"],
        }
    )


def reproduced(project: Project) -> pd.DataFrame:
    """Compare what the vignettes' paper reports of GPT-3 with its own files.

    Returns:
        ``quantity, published, lowest, highest, agrees``: from the files, with ties of five prompts against five
        counted as wrong and as right; agrees: the published value lies between, at its two decimals.
    """
    raw = pd.read_csv(project.published / "clinical_personas" / "levine2024_gpt3_calibration.csv")
    halves = raw[raw["probability_is"] == "share of prompts, two classes"]
    tied = halves["bin"] == BINS // 2
    n, ties, settled = halves["n"].sum(), halves.loc[tied, "n"].sum(), halves.loc[~tied, "right"].sum()
    brier = halves["squares_sum"].sum() / n
    rows = [
        (
            "accuracy",
            "triage accuracy, majority of prompts",
            settled / n,
            (settled + ties) / n,
        ),
        ("brier", "Brier score, share of prompts", brier, brier),
    ]
    return pd.DataFrame(
        [
            {
                "quantity": f"GPT-3, two classes: {what}",
                "published": REPORTED[name],
                "lowest": float(low),
                "highest": float(high),
                "agrees": bool(round(float(low), 2) <= REPORTED[name] <= round(float(high), 2)),
            }
            for name, what, low, high in rows
        ]
    )


# --- Emergency department cases ---


def models(project: Project, *, confidence: float, replicates: int, seed: int) -> pd.DataFrame:
    """Return how 15 models rate the emergency department cases under each sex label.

    Returns:
        ``model, label, cases, accuracy, low, high`` (Wilson), ``absolute_error, signed_error`` (levels), ``under,
        over, severe`` (shares; under: less urgent than the nurse's level), and for cases without a label ``kappa,
        kappa_low, kappa_high`` (quadratic, bootstrap over cases).
    """
    raw = pd.read_csv(project.published / "clinical_personas" / "yentlbench_confusion.csv", dtype={"model": str})
    rows = []
    for (model, label), group in raw.groupby(["model", "label"], sort=False):
        n = int(group["cases"].sum())
        error = group["answer"] - group["level"]

        def share(which: pd.Series, counts: pd.Series = group["cases"], n: int = n) -> float:
            return float(counts[which].sum() / n)

        low, high = proportion_confint(
            group.loc[error == 0, "cases"].sum(), n, alpha=1 - confidence, method="wilson"
        )
        row = {
            "model": model,
            "label": label,
            "cases": n,
            "accuracy": share(error == 0),
            "low": low,
            "high": high,
            "absolute_error": float((error.abs() * group["cases"]).sum() / n),
            "signed_error": float((error * group["cases"]).sum() / n),
            "under": share(error > 0),
            "over": share(error < 0),
            "severe": share(error >= 2),
        }
        if label == "no label":
            each = group.loc[group.index.repeat(group["cases"]), ["level", "answer"]].reset_index(drop=True)
            kappa = cohen_kappa(
                each,
                categories=range(1, 6),
                weights="quadratic",
                confidence=confidence,
                replicates=replicates,
                seed=seed,
            )
            row |= {"kappa": kappa.estimate, "kappa_low": kappa.low, "kappa_high": kappa.high}
        rows.append(row)
    return pd.DataFrame(rows)


def yardsticks(answers: pd.DataFrame, levels: pd.DataFrame) -> pd.DataFrame:
    """Return what others reached on the same cases: ``dataset, answered_by, who, cases, accuracy, low, high``.

    Args:
        answers: Of :func:`people`.
        levels: Of :func:`models`, those without a label; they also have ``absolute_error``.
    """
    vignettes = answers[answers["setting"] == "all"].assign(dataset="triage")
    cases = levels.rename(columns={"model": "who"}).assign(dataset="esi")
    columns = ["dataset", "answered_by", "who", "cases", "accuracy", "low", "high", "absolute_error"]
    return pd.concat([vignettes, cases], ignore_index=True).assign(answered_by="published").reindex(columns=columns)


def marks(beside: pd.DataFrame) -> pd.DataFrame:
    """Return the lines of a figure: people and GPT-3 on the vignettes, the median of the models on the cases."""
    lines = beside.loc[beside["dataset"] == "triage", ["dataset", "who", "accuracy"]]
    lines = lines[lines["who"].isin(["physicians", "lay people", "GPT-3"])]
    models = beside[beside["dataset"] == "esi"]
    if models.empty:
        return lines
    middle = {
        "dataset": "esi",
        "who": f"{len(models)} models\n(median)",
        "accuracy": models["accuracy"].median(),
    }
    return pd.concat([lines, pd.DataFrame([middle])], ignore_index=True)


def errors_of_others(counted: NDArray[np.float64], levels: pd.DataFrame) -> pd.DataFrame:
    """Return shares of under-, over- and severe under-triage: ``dataset, who, n, under, over, severe``.

    Args:
        counted: Of :func:`gpt3`.
        levels: Of :func:`models`, those without a label.
    """
    true, said = np.indices(counted.shape)
    share = counted / counted.sum()
    kinds = {"under": said > true, "over": said < true, "severe": said >= true + 2}
    gpt = {
        "dataset": "triage",
        "who": "GPT-3",
        "n": 48,
        **{name: share[which].sum() for name, which in kinds.items()},
    }
    others = levels.rename(columns={"model": "who", "cases": "n"}).assign(dataset="esi")
    return pd.concat([pd.DataFrame([gpt]), others[["dataset", "who", "n", *kinds]]], ignore_index=True)


def label_changes(project: Project, *, confidence: float) -> pd.DataFrame:
    """Return how the level that each model assigns to the same case changes with the sex label.

    Returns:
        ``hypothesis, model, cases, more_urgent, less_urgent`` (cases), ``changed`` (share), ``difference`` (levels;
        positive is less urgent), ``se, low, high`` (normal). The variance counts half a case that changes by one
        level more than there is, so that a model without any change has one.
    """
    raw = pd.read_csv(project.published / "clinical_personas" / "yentlbench_changes.csv", dtype={"model": str})
    n = raw["cases"]
    mean = raw["change_sum"] / n
    se = np.sqrt(((raw["change_squares"] + 0.5) / n - mean**2) / (n - 1))
    reach = stats.norm.ppf(0.5 + confidence / 2) * se
    return raw[["hypothesis", "model", "cases", "more_urgent", "less_urgent"]].assign(
        changed=(raw["more_urgent"] + raw["less_urgent"]) / n,
        difference=mean,
        se=se,
        low=mean - reach,
        high=mean + reach,
    )


def labels_combined(changes: pd.DataFrame, *, confidence: float) -> pd.DataFrame:
    """Combine the changes over models by random effects; the unit is the model, the cases are the same for all.

    Returns:
        ``hypothesis, models, difference, se, low, high, prediction_low, prediction_high, i2``; ``changed``, the
        mean share of cases that change at all; ``p``.
    """
    rows = []
    for name, group in changes.groupby("hypothesis", sort=False):
        found = random_effects(group["difference"], group["se"] ** 2, confidence=confidence)
        rows.append(
            {"hypothesis": name, "models": found.k, "difference": found.estimate, "se": found.se}
            | {"low": found.low, "high": found.high}
            | {"prediction_low": found.prediction_low, "prediction_high": found.prediction_high}
            | {"i2": found.i2, "changed": group["changed"].mean(), "p": found.p}
        )
    return pd.DataFrame(rows)


# --- From the sources ---


def derive(project: Project) -> dict[str, str]:
    """Return the committed tables as CSV text, by file name; floats with nine decimals.

    Raises:
        SourceError: a source cannot be had.
    """
    replies = _table(project, "triage-gpt3")
    counted: pd.DataFrame | pd.Series = pd.crosstab(replies["place"], replies["answer"]).stack()
    made = {
        "levine2024_accuracy": _accuracy(project, replies),
        "levine2024_gpt3": pd.Series(counted, name="replies").reset_index(),
        "levine2024_gpt3_calibration": _calibration(replies),
        "levine2024_gpt3_variants": _variants(_table(project, "triage-gpt3-variants")),
    }
    made["yentlbench_confusion"], made["yentlbench_changes"] = _levels(project)
    texts = {}
    for name, frame in made.items():
        buffer = io.StringIO()
        frame.to_csv(buffer, index=False, lineterminator="\n", float_format="%.9f")
        texts[f"{name}.csv"] = buffer.getvalue()
    return texts


def _table(project: Project, source: str) -> pd.DataFrame:
    """Read GPT-3's answers: ``case, place`` (true), ``answer`` (place), ``probability`` and what else there is."""
    raw = pd.read_csv(sources.fetch(project, source), sep="\t", keep_default_na=False)
    return raw.assign(
        case=raw["Problem"] + raw["Additional Details"] if "Case #" not in raw else raw["Case #"],
        place=raw["Correct Triage"].map(URGENCIES.index),
        answer=raw["Predicted Triage"].map(URGENCIES.index),
        probability=np.exp(raw["LogProb Predicted Triage"].astype(float)),
    )


def _accuracy(project: Project, replies: pd.DataFrame) -> pd.DataFrame:
    truth = multiple_choice.questions(project, "triage", domains=("plain",), texts=False)
    place = dict(zip(truth["case"].astype(int), truth["gold"], strict=True))
    physicians = pd.read_csv(sources.fetch(project, "triage-physicians"), sep="\t").assign(who="physicians")
    lay = pd.read_csv(sources.fetch(project, "triage-lay"), sep="\t")
    before = lay["Name"].str.startswith("pre")
    lay["who"] = np.where(before, "lay people", "lay people, after a search")
    # Names such as "posttriage7topdown" hold the number of the vignette.
    rated = pd.concat([physicians, lay], ignore_index=True)
    rated["place"] = rated["Name"].str.extract(r"(\d+)")[0].astype(int).map(place)
    rated = rated.rename(columns={"Accuracy": "right", "N": "answers"})[["who", "place", "right", "answers"]]
    marked = replies.assign(exact=replies["answer"] == replies["place"])
    marked["halves"] = (marked["answer"] < 2) == (marked["place"] < 2)
    for who, column in ((GPT3, "exact"), (GPT3_HALVES, "halves")):
        share = marked.groupby(["place", "case"])[column].agg(["mean", "size"]).reset_index()
        share = share.rename(columns={"mean": "right", "size": "answers"}).assign(who=who)
        rated = pd.concat([rated, share[["who", "place", "right", "answers"]]], ignore_index=True)
    groups = rated.groupby(["who", "place"], sort=False)
    return groups.agg(
        cases=("right", "size"), answers=("answers", "sum"), accuracy=("right", "mean"), sd=("right", "std")
    ).reset_index()


def _calibration(replies: pd.DataFrame) -> pd.DataFrame:
    """Count, for three notions of GPT-3's probability, how often it is right, in bins of width 1/10."""
    stated = replies.assign(right=(replies["answer"] == replies["place"]).astype(float))
    kinds = {"of the label": stated[["probability", "right"]]}
    for name, answer, place in (
        ("share of prompts", replies["answer"], replies["place"]),
        ("share of prompts, two classes", replies["answer"] // 2, replies["place"] // 2),
    ):
        counted = pd.crosstab(replies["case"], answer)
        truth = place.groupby(replies["case"]).first().loc[counted.index]
        # Among ties the more urgent answer.
        best = counted.idxmax(axis=1)
        share = counted.max(axis=1) / counted.sum(axis=1)
        kinds[name] = pd.DataFrame({"probability": share, "right": (best == truth).astype(float)})
    parts = []
    for name, frame in kinds.items():
        # Shares are tenths, which rounding may put below the edge of their bin.
        within = np.minimum((frame["probability"] * BINS + 1e-9).astype(int), BINS - 1)
        squares = (frame["probability"] - frame["right"]) ** 2
        table = frame.assign(bin=within, squares=squares).groupby("bin")
        parts.append(
            pd.DataFrame(
                {
                    "probability_is": name,
                    "bin": list(table.groups),
                    "n": table.size().to_numpy(),
                    "right": table["right"].sum().astype(int).to_numpy(),
                    "probability_sum": table["probability"].sum().to_numpy(),
                    "squares_sum": table["squares"].sum().to_numpy(),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _variants(replies: pd.DataFrame) -> pd.DataFrame:
    marked = replies.assign(right=(replies["answer"] == replies["place"]).astype(float))
    rows = []
    for name, (column, first, second) in VARIANTS.items():
        mean = marked.groupby(["case", column])[["answer", "right"]].mean().unstack()
        change, right = (mean[value][first] - mean[value][second] for value in ("answer", "right"))
        rows.append(
            {
                "hypothesis": name,
                "cases": len(change),
                "difference": change.mean(),
                "sd": change.std(),
                "accuracy_difference": right.mean(),
            }
        )
    return pd.DataFrame(rows)


def _levels(project: Project) -> tuple[pd.DataFrame, pd.DataFrame]:
    path = sources.fetch(project, "yentlbench")
    runs = pd.concat(
        [pd.DataFrame(multiple_choice.esi_runs(path, label)).assign(label=name) for label, name in LABELS.items()],
        ignore_index=True,
    )
    runs["answer"] = runs["answer"].astype(int)
    counted = runs.groupby(["model", "label", "level", "answer"]).size().rename("cases").reset_index()
    wide = runs.pivot(index=["model", "case"], columns="label", values="answer")
    rows = []
    for label in list(LABELS.values())[1:]:
        change = (wide[label] - wide["male"]).groupby(level="model", sort=True)
        for model, values in change:
            rows.append(
                {
                    "hypothesis": f"{label} - male",
                    "model": model,
                    "cases": len(values),
                    "more_urgent": int((values < 0).sum()),
                    "less_urgent": int((values > 0).sum()),
                    "change_sum": int(values.sum()),
                    "change_squares": int((values**2).sum()),
                }
            )
    return counted, pd.DataFrame(rows)


if __name__ == "__main__":
    here = Project.find()
    for name, text in derive(here).items():
        (here.published / "clinical_personas" / name).write_text(text, encoding="utf-8")
