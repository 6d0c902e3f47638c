"""Tables of ``data/published/measurement``: numbers that follow from released answers, and how each is rederived.

Run as a script, this file rebuilds every table whose sources are at hand.
"""

from __future__ import annotations

import json
from functools import lru_cache, partial

import numpy as np
import pandas as pd

from measurement import audits, design, psychometrics, published
from persona_studies.design import facts, sources
from persona_studies.design.facts import Fact, Find
from persona_studies.paths import Project

STUDY = "measurement"
SCALES = {
    "openeness": "openness",
    "consciencienes": "conscientiousness",
    "self_regulation": "self-regulation",
} | {name: name for name in ("extraversion", "agreeableness", "neuroticism")}
BEHAVIOURS = {
    "CCT_cold_avg": "risk taking",
    "IAT_Overall": "implicit bias",
    "Consistency": "honesty: self-consistency",
    "Calibaration": "honesty: calibration",
    "sycophancy_rate": "sycophancy",
}
FILES = {
    name: name.replace("_", "-")
    for name in ("portray", "portray_cot", "biography", "biography_cot", "qa", "qa_cot")
}


# --- Tables ----------------------------------------------------------------------------------------------


def keying_audit(project: Project, find: Find) -> pd.DataFrame:
    """Audit five repositories (:func:`measurement.audits.audit`)."""
    questions = json.loads(find("ipip-neo-300").read_text("utf-8"))["questions"]
    told = json.loads(find("measurement-llmpersonality-questionnaires").read_text("utf-8"))["BFI"]
    names = {"mpi_120": "mpi-mpi-120", "mpi_1k": "mpi-mpi-1k", "papi": "papi-mpi-300", "culture_bfi": "culture-bfi"}
    names |= {"culture_120": "culture-ipip-120", "culture_300": "culture-ipip-300"}
    names |= {"personallm": "personallm-bfi-scores"}
    files = {name: find(f"measurement-{id}") for name, id in names.items()}
    return audits.audit(files, design.keys(project), {q["id"]: q["text"] for q in questions}, told["reverse"])


def mbti_choices(project: Project, find: Find) -> pd.DataFrame:
    """Read the answers about groups."""
    together = {"people-men-women": "answer-people-men-women"}
    together |= {"barbers-accountants-doctors": "answer-barbers-accountants-doctors"}
    return published.mbti(
        {
            (model, groups): find(f"measurement-mbti-{folder}-{stem}")
            for model, folder in published.MBTI.items()
            for groups, stem in together.items()
        }
    )


@lru_cache(maxsize=1)
def questionnaires(project: Project) -> dict[str, psychometrics.Answers]:
    """Return answers to questionnaires by people and by models.

    Raises:
        SourceUnavailable: a source cannot be had.
    """
    find = partial(sources.fetch, project)
    split = json.loads(find("measurement-papi-mpi-300-split").read_text("utf-8"))
    test, known = find("measurement-papi-test-set"), design.keys(project)
    core = sorted(design.statements(project)["number"].unique())
    made = {
        "people: IPIP, 120 items": published.ipip_answers(test, known, split["train_index"]),
        "people: IPIP, our 60 items": published.ipip_answers(test, known, core),
        "people: psych::bfi, 25 items": published.psych_answers(find("people-psych-bfi")),
        "LLMPersonality: settings": published.settings_answers(
            find("measurement-llmpersonality-save"), find("measurement-llmpersonality-questionnaires")
        ),
    }
    items = find("measurement-personallm-bfi-scores")
    for model in ("GPT-3.5", "GPT-4"):
        folder = find(f"personallm-replies-{model.lower()}")
        made[f"PersonaLLM: {model}"] = published.personallm_answers(folder, items)[1]
    return made


def profiles(project: Project, find: Find) -> pd.DataFrame:
    """Describe every domain of every released questionnaire (:func:`measurement.psychometrics.scales`)."""
    parts = [
        psychometrics.scales(answers).assign(dataset=name) for name, answers in questionnaires(project).items()
    ]
    table = pd.concat(parts, ignore_index=True)
    return table[["dataset", *table.columns.drop("dataset")]]


def summaries(project: Project, find: Find) -> pd.DataFrame:
    """Describe every released questionnaire (:func:`measurement.psychometrics.summary`)."""
    return pd.DataFrame(
        [
            {"dataset": name, "top": answers.top, **psychometrics.summary(answers)}
            for name, answers in questionnaires(project).items()
        ]
    )


def illusion_scores(project: Project, find: Find) -> pd.DataFrame:
    """Return scale scores and behaviours of Personality-Illusion by run; base models have no behaviour."""
    tuned = pd.read_csv(find("personality-illusion-baseline-self-report"))
    base = pd.read_csv(find("measurement-illusion-base-models-selfreport"))
    deeds = pd.read_csv(find("personality-illusion-baseline-behaviour"))
    at = ["Model", "persona_index", "temp", "run"]
    tuned = tuned.merge(deeds[[*at, *BEHAVIOURS]], on=at, how="left", validate="1:1")
    table = pd.concat([base, tuned], ignore_index=True).rename(columns=SCALES | BEHAVIOURS)
    table["tuned"] = table["type"] != "base"
    names = {"Model": "model", "persona_index": "prompt", "temp": "temperature"}
    kept = ["model", "tuned", "prompt", "temperature", "run", *SCALES.values(), *BEHAVIOURS.values()]
    return table.rename(columns=names)[kept]


def personallm_types(project: Project, find: Find) -> pd.DataFrame:
    """Return each type's mean and standard deviation (ddof 0) over ten runs, and how many scores recompute.

    Returns:
        ``model, type, domain, runs, mean, sd, recomputed`` (scores that follow from the released answers).
    """
    items, parts = find("measurement-personallm-bfi-scores"), []
    for model, stem in (("GPT-3.5", "gpt3.5-turbo-0613"), ("GPT-4", "gpt4-0613")):
        filed = pd.read_csv(find(f"measurement-personallm-{stem}"))
        who, answers = published.personallm_answers(find(f"personallm-replies-{model.lower()}"), items)
        for domain in design.DOMAINS:
            score = answers.keyed[:, answers.domains == domain].mean(axis=1)
            mine = who.assign(score=score)
            told = filed[filed["trait"].str.lower() == domain].rename(columns={"personality_type": "type"})
            both = told.merge(mine, on=["type", "run"], how="left")
            same = (both["score"] - both["mean_score"]).abs() < 1e-9
            grouped = told.groupby("type")["mean_score"]
            parts.append(
                pd.DataFrame(
                    {
                        "model": model,
                        "domain": domain,
                        "runs": grouped.size(),
                        "mean": grouped.mean(),
                        "sd": grouped.std(ddof=0),
                        "recomputed": same.groupby(both["type"]).sum(),
                    }
                ).reset_index()
            )
    table = pd.concat(parts, ignore_index=True)
    return table[["model", "type", "domain", "runs", "mean", "sd", "recomputed"]]


def settings_variance(project: Project, find: Find) -> pd.DataFrame:
    """Return sums of squares of each factor of LLMPersonality's settings on each domain.

    Returns:
        ``factor, domain, levels, ss, ss_total, settings, recomputed`` (scores that the answers give).
    """
    save = find("measurement-llmpersonality-save")
    filed = json.loads(save.read_text("utf-8"))["data"]
    answers = published.settings_answers(save, find("measurement-llmpersonality-questionnaires"))
    told = pd.DataFrame([each["info"] for each in filed])
    rows = []
    for domain in design.DOMAINS:
        score = np.array([each["data"][domain.capitalize()] for each in filed])
        again = answers.keyed[:, answers.domains == domain].mean(axis=1)
        total = float(((score - score.mean()) ** 2).sum())
        for factor in ("template", "version", "language", "label", "order"):
            groups = pd.Series(score).groupby(told[factor])
            between = float((groups.size() * (groups.mean() - score.mean()) ** 2).sum())
            same = int((np.abs(score - again) < 1e-9).sum())
            rows.append((factor, domain, len(groups), between, total, len(score), same))
    return pd.DataFrame(rows, columns=["factor", "domain", "levels", "ss", "ss_total", "settings", "recomputed"])


def settings_induction(project: Project, find: Find) -> pd.DataFrame:
    """Return how far LLMPersonality's personas move every item of the domain that they are about.

    Returns:
        ``file, domain, item, target`` (keyed mean of the high persona less that of the low one), ``off`` (mean
        |shift| of the same two personas on the other four domains).
    """
    told = json.loads(find("measurement-llmpersonality-questionnaires").read_text("utf-8"))["BFI"]
    order = ["openness", "conscientiousness", "extraversion", "agreeableness", "neuroticism"]
    rows = []
    for name, stem in FILES.items():
        filed = json.loads(find(f"measurement-llmpersonality-{stem}").read_text("utf-8"))
        labels = filed["meta"]["append_label"]
        means = {}
        for label in labels:
            mine = [each["raw"] for each in filed["data"] if each["info"]["append_label"] == label]
            means[label] = {
                n: np.mean([6 - run[str(n)] if n in told["reverse"] else run[str(n)] for run in mine])
                for n in range(1, 45)
            }
        for k, domain in enumerate(order):
            low, high = means[labels[k]], means[labels[k + 5]]
            moved = {
                other: float(np.mean([high[n] - low[n] for n in told["categories"][other.capitalize()]]))
                for other in order
            }
            off = float(np.mean([abs(moved[other]) for other in order if other != domain]))
            items = told["categories"][domain.capitalize()]
            rows += [(name, domain, n, float(high[n] - low[n]), off) for n in items]
    return pd.DataFrame(rows, columns=["file", "domain", "item", "target", "off"])


# --- Registry --------------------------------------------------------------------------------------------


FACTS = {
    "keying_audit": Fact(keying_audit, note="numbers of items"),
    "flan_patterns": Fact(
        lambda _, find: published.flan(
            find("measurement-flan-prompts"), {m: find(f"measurement-flan-{m}") for m in published.FLAN}
        ),
        note="counts; no licence stated",
    ),
    "mbti_choices": Fact(mbti_choices, note="labels; MIT"),
    "papi_yardsticks": Fact(
        lambda project, find: published.papi(
            find("measurement-papi-test-set"), find("measurement-papi-mpi-300-split"), design.keys(project)
        ),
        note="means; no licence stated",
    ),
    "profiles": Fact(profiles, note="coefficients by domain", mirrored=True),
    "summaries": Fact(summaries, note="coefficients", mirrored=True),
    "illusion_scores": Fact(illusion_scores, note="scale scores; MIT"),
    "personallm_types": Fact(personallm_types, note="means; MIT", mirrored=True),
    "settings_variance": Fact(settings_variance, note="sums of squares; no licence stated"),
    "settings_induction": Fact(settings_induction, note="means by item; no licence stated"),
}
REPORTED = ("ipip_bfi", "code_audits")
"""Tables that nothing pinned here rederives: what a README reports, and what code says at a named commit."""


def committed(project: Project, name: str) -> pd.DataFrame:
    """Return a committed table of facts."""
    return facts.committed(project, STUDY, name)


def compare(project: Project, name: str) -> dict[str, object]:
    """Rederive a table and compare it with the committed one (:func:`persona_studies.design.facts.compare`).

    Returns:
        ``table, kept, rows, largest_difference`` of the numbers, at most 1e-6.
    """
    found = facts.compare(project, STUDY, name, FACTS[name], tolerance=1e-6)
    return {"table": name, "kept": FACTS[name].note, "rows": found["committed"]} | {
        "largest_difference": found["largest_difference"]
    }


if __name__ == "__main__":
    facts.rebuild(Project.find(), STUDY, FACTS)
