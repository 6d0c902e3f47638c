"""Recorded models: which blocks each answered, what every test measures in it, and the finding in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from measurement import checks, design, judging, live, psychometrics, released
from measurement.design import Parameters
from persona_studies.analyse import families
from persona_studies.design.protocol import Protocol
from persona_studies.paths import Project

BLOCKS = {
    "facts": "A",
    "binary": "B",
    "rating": "C",
    "induced": "D",
    "statement": "E",
    "scenario": "F",
    "frame": "G",
    "culture": "opt-in",
    "person": "opt-in",
}
"""First word of a measure's name -> its block of the grid."""
TESTS = {
    "true or false": ("", "facts_true_false", "binary_true_false"),
    "yes or no": ("", "facts_yes_no", "binary_yes_no"),
    "rating, 1 to 5": ("", "rating_digits"),
    "rating, A to E": ("", "rating_upper"),
    "rating, a to e": ("", "rating_lower"),
    "rating, with personas": ("rating", "induced_rating"),
    "statement or negation, with personas": ("statement", "statement"),
    "scenario, with personas": ("scenario", "scenario"),
}
"""Test -> outcome of its personas, where it has any, and the measures whose gate it must pass."""


@dataclass(frozen=True)
class Recorded:
    """What one model's recording comes to.

    Attributes:
        scores: By block.
        gate: Checks of every complete measure: ``measure, check, value, rule, threshold, passes``.
        moves: What an instruction moves: ``instruction, told, filler, moved``.
        tests: Every family about a recorded model, with ``gate``.
        stuck: Whether no instruction moves its ratings.
    """

    scores: live.Scores
    gate: pd.DataFrame
    moves: pd.DataFrame
    tests: pd.DataFrame
    stuck: bool


def analyse(
    project: Project, protocol: Protocol, people: pd.DataFrame, recorded: pd.DataFrame, parameters: Parameters
) -> Recorded:
    """Run the declared analysis of one recording.

    Args:
        people: Of :func:`measurement.design.people`.
        recorded: Responses of complete measures.
    """
    scores = live.scores(project, recorded)
    gate, moves = checks.gated(protocol, scores), checks.steerability(scores, people)
    tests = judging.with_gate(protocol, live.tests(protocol, scores, people, parameters), gate)
    smallest = protocol.design["steerability"]["smallest_rating"]
    return Recorded(scores, gate, moves, tests, bool(len(moves)) and not (moves["moved"] >= smallest).any())


def blocks(plan: pd.DataFrame, lacking: Mapping[str, list[str]]) -> pd.DataFrame:
    """Return how much of each block a model answered.

    Args:
        lacking: Model -> measures that are not recorded to the last cell.

    Returns:
        ``block, measures``, and a column per model: "complete", "2 of 3 measures" or "not recorded yet".
    """
    names = plan["measure"].drop_duplicates().reset_index(drop=True)
    block = names.str.partition("_")[0].map(BLOCKS)
    table = names.groupby(block).agg(measures=", ".join).rename_axis("block")
    for model, absent in lacking.items():
        counts = (~names.isin(absent)).groupby(block).agg(["sum", "size"]).itertuples(index=False)
        table[model] = [
            "complete" if k == n else f"{k} of {n} measures" if k else "not recorded yet" for k, n in counts
        ]
    return table.reset_index()


def measured(protocol: Protocol, models: Mapping[str, Recorded]) -> pd.DataFrame:
    """Return what every test measures in every model, by the rule `design.instead` of the protocol.

    Returns:
        ``model, test, measures`` (``statements`` or ``persona``, else the words of the rule), ``passes``,
        ``failed`` (all checks that did; halves that correlate as far below 0 as they should above: acquiescence),
        ``moved`` and ``specific`` (of five traits: whose paragraph moves its own trait, and
        more than the others, both significant after correction; NaN for a test without personas).
    """
    rows = []
    for model, one in models.items():
        scores = live.trait_scores(one.scores)
        for test, (outcome, *needed) in TESTS.items():
            gate = one.gate[one.gate["measure"].isin(needed)]
            row: dict[str, Any] = {"model": model, "test": test, "measures": "not recorded yet", "passes": False}
            if set(needed) <= set(gate["measure"]):
                failed = list(dict.fromkeys(gate.loc[~gate["passes"], "check"]))
                opposite = (gate["check"] == "pole r") & (gate["value"] <= -gate["threshold"])
                failed += ["acquiescence"] if opposite.any() and "acquiescence" not in failed else []
                if outcome:
                    row |= {name: _found(protocol, one.tests, name, outcome) for name in ("moved", "specific")}
                    apart = psychometrics.of_scores(scores[outcome].to_numpy())["heterotrait"]
                    failed += ["heterotrait"] if not apart <= psychometrics.ONE_FACTOR else []
                    failed += ["induction"] if row["moved"] <= len(design.DOMAINS) / 2 else []
                rule = protocol.design["instead"].items()
                words = [word for word, each in rule if {*each["checks"]} & {*failed}]
                content = "persona" if outcome else "statements"
                row |= {"measures": ", ".join(words) or content, "passes": not words, "failed": ", ".join(failed)}
            rows.append(row)
    columns = ["model", "test", "measures", "passes", "failed", "moved", "specific"]
    return pd.DataFrame(rows, columns=columns).fillna({"failed": ""})


def _found(protocol: Protocol, tests: pd.DataFrame, name: str, outcome: str) -> float:
    """Return in how many traits a family found what it looks for in one outcome; NaN where it does not ask that."""
    family = {"moved": "induction", "specific": "specificity"}[name]
    mine = families.declared(protocol, tests[tests["family"] == family])
    mine = mine[mine["outcome"] == outcome]
    return float((mine["rejected"] & (mine["estimate"] > 0)).sum()) if len(mine) else float("nan")


def finding(
    protocol: Protocol, tests: pd.DataFrame, judged: pd.DataFrame, who: pd.DataFrame, consistency: pd.DataFrame
) -> str:
    """Return which test measures what in which model, for somebody who knows tests and not models.

    Args:
        protocol: Says what the words mean.
        tests: Of :func:`measured`.
        who: Of whoever answered a questionnaire, with ``median_pole_r``.
        consistency: Of :func:`measurement.released.flan_table`.
    """
    said = [_of_model(protocol, str(model), part, who) for model, part in tests.groupby("model", sort=False)]
    order = consistency[consistency["who"].str.startswith("flan") & (consistency["kind"] == "order")]["agreement"]
    known = who.set_index("who")["median_pole_r"]
    people = known[known.index.str.startswith("people")]
    row = judged[(judged["claim"] == "SH2") & (judged["layer"] == "corrected")].iloc[0]
    kappa, low, high = (released.CONSISTENT + row[name] for name in ("estimate", "low", "high"))
    own = " ".join(f"**{passed}**{rest}" for passed, rest in said) + " " * bool(said)
    return (
        f"{own}Released answers without a persona fail elsewhere: four flan-t5 models repeat {order.min():.0%} to "
        f"{order.max():.0%} of their answers when the options are swapped, but contradict themselves when a "
        f"statement is negated (mean kappa {kappa:.2f} [{low:.2f}, {high:.2f}]; below .4 is low), and in 2,500 "
        "settings of one chat model the two keyed halves of a scale correlate (median over domains) "
        f"{known['LLMPersonality: settings']:.2f}, where people reach {people.min():.2f} to {people.max():.2f} and "
        f"GPT-4 with assigned personas {known['PersonaLLM: GPT-4']:.2f}."
    )


def _of_model(protocol: Protocol, model: str, tests: pd.DataFrame, who: pd.DataFrame) -> tuple[str, str]:
    """Return how many tests of a model pass, and what else there is to say."""
    recorded = tests[tests["measures"] != "not recorded yet"]
    good, bad = recorded[recorded["passes"]], recorded[~recorded["passes"]]
    means = {word: each["means"] for word, each in protocol.design["instead"].items()}
    counts = bad["measures"].str.split(", ").explode().value_counts()
    other = [f"{means[str(word)]} ({n})" for word, n in counts.items()]
    words = f"In {model}, {len(good) or 'none'} of {len(recorded)} recorded tests pass{'es' * (len(good) < 2)} "
    words += "their checks" if len(good) > 1 else "its checks"
    if 0 < len(good) <= 3:
        words += f" ({'; '.join(good['test'])})"
    more = f" and {len(other) - 3} kinds more" if len(other) > 3 else ""
    rest = f"; {'the others' if len(good) else 'they'} show {', '.join(other[:3])}{more}" if other else ""
    mine = who[who["who"] == f"recorded: {model}, conditions"].dropna(subset=["median_pole_r"])
    for row in mine.to_dict("records"):
        rest += f". Over {row['people']} conditions both keyed halves of a scale of ratings correlate "
        rest += f"{row['median_pole_r']:.2f}" + ("" if row["flag"] == "none" else f" ({row['flag']})")
    moved = recorded.dropna(subset=["moved"])
    if len(moved):
        each = [f"{row['moved']:.0f} ({row['test'].partition(',')[0]})" for row in moved.to_dict("records")]
        rest += f". Paragraphs move {', '.join(each)} of five traits"
        rest += "" if moved["passes"].all() else ", checks passed or not"
    return words, f"{rest}."
