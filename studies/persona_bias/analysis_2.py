"""The declared analysis of the second protocol of the study of persona bias."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from persona_bias import extractors, published
from persona_bias.personas import registry
from persona_studies.analyse import families, gates, multiple_choice
from persona_studies.analyse.conclusions import Analysis, conclude
from persona_studies.analyse.families import Settings
from persona_studies.design.protocol import Hypothesis, Protocol
from persona_studies.paths import Project

PUBLISHED = ("published_share", "published_drop", "published_abstention", "published_extractor")
REFERENCE = "human"
MEAN = "mean of personas"
EXTRACTOR = "lenient"
# Patterns of signs that are held at once.
CHUNK = 5_000


def analyse(
    project: Project,
    protocol: Protocol,
    recorded: pd.DataFrame,
    asked: pd.DataFrame,
    everyone: pd.DataFrame,
    how: Settings,
    *,
    model: str = "",
) -> Analysis:
    """Run the declared analysis of one recording.

    Args:
        project: Holds the published figures.
        protocol: The second protocol.
        recorded: Responses to its letters and, where there are any, replies.
        asked: Of :func:`persona_bias.design_2.questions`.
        everyone: Of :func:`persona_bias.design_2.people`.
        how: Settings; the protocol's are confirmatory.
        model: Who answered.

    Returns:
        ``gate`` has the parts letter and text; ``said`` is of :func:`replies`.
    """
    scored, said = scores(recorded, asked, everyone), replies(recorded, asked, everyone)
    gate = gated(protocol, scored, said, recorded, asked, how)
    tests = model_tests(protocol, by_question(scored, protocol), said, how)
    why = {str(part): gates.failures(rows) for part, rows in gate.groupby("part", sort=False)}
    moved = tests[tests["family"] == "steerability"].iloc[0]
    stuck = not (moved["rejected"] and moved["estimate"] < 0)
    return conclude(
        protocol,
        tests,
        public_tests(project, protocol, how),
        lambda family, hypothesis: why["text" if family == "replies" else "letter"],
        # Whether replies abstain is not what that order is about.
        {name: stuck for name in tests["family"] if name != "replies"},
        model=model,
        scored=scored,
        gate=gate,
        said=said,
    )


def scores(recorded: pd.DataFrame, asked: pd.DataFrame, everyone: pd.DataFrame) -> pd.DataFrame:
    """Score every question under every condition by its letters.

    Returns:
        ``condition, persona, instruction, item, dataset, cluster, n_options, score`` (mean probability of the right
        option over all orders), ``option_mass``.
    """
    found = multiple_choice.choices(recorded, asked.drop(columns="item_hash"), "letter")
    found = found.merge(everyone[["condition", "persona", "instruction"]], on="condition")
    columns = ["condition", "persona", "instruction", "item", "dataset", "cluster", "n_options", "score"]
    return found[[*columns, "option_mass"]]


def by_question(scored: pd.DataFrame, protocol: Protocol) -> pd.DataFrame:
    """Return questions x personas, instructions averaged, with the mean of all personas.

    Returns:
        Indexed by ``dataset, item, cluster``.
    """
    index = ["dataset", "item", "cluster"]
    wide = scored.pivot_table(index=index, columns="persona", values="score", sort=False)
    personas = protocol.design["personas"]
    if set(personas) <= set(wide):
        wide[MEAN] = wide[personas].mean(axis=1, skipna=False)
    return wide


def replies(recorded: pd.DataFrame, asked: pd.DataFrame, everyone: pd.DataFrame) -> pd.DataFrame:
    """Read the replies under every extractor; a letter stands for the option that it was shown beside.

    Returns:
        ``persona, item, extractor, status, correct`` (NaN without an answer).
    """
    cells = recorded[recorded["measure"] == "text"].merge(asked[["item", "gold", "n_options"]], on="item")
    cells = cells.merge(everyone[["condition", "persona"]], on="condition")
    cells["gold"] = (cells["gold"] - cells["order"]) % cells["n_options"]
    cells["cut"] = cells["finish"] == "length"
    read = extractors.under_each(cells[["persona", "item", "gold", "n_options", "cut", "text"]])
    return read[["persona", "item", "extractor", "status", "correct"]]


def gated(
    protocol: Protocol,
    scored: pd.DataFrame,
    said: pd.DataFrame,
    recorded: pd.DataFrame,
    asked: pd.DataFrame,
    how: Settings,
) -> pd.DataFrame:
    """Check the measures as a human, over all sets.

    Returns:
        ``part`` (letter, text), ``check, value, rule, threshold, passes``.
    """
    human = scored[scored["persona"] == REFERENCE]
    values = {
        **gates.letters(human, recorded[recorded["condition"].isin(set(human["condition"]))], asked),
        "above_chance": gates.above_chance(
            human.groupby("item", sort=False)[["score", "n_options"]].mean(), how.confidence
        ),
        "repeatability": gates.repeatability(scored, "persona", "instruction"),
    }
    parsed = {"parsed": extractors.share_answered(said, EXTRACTOR)}
    parts = [
        gates.declared(protocol.measures["letter"], values).assign(part="letter"),
        gates.declared(protocol.measures["text"], parsed).assign(part="text"),
    ]
    return pd.concat(parts, ignore_index=True)[["part", "check", "value", "rule", "threshold", "passes"]]


def differences(wide: pd.DataFrame) -> families.Differences:
    """Return how to take the paired differences of a contrast from questions x personas."""

    def of(contrast: Hypothesis, part: str | None) -> pd.Series:
        mine = wide if contrast.on == "all" else wide[wide.index.get_level_values("dataset") == contrast.on]
        if not {contrast.first, contrast.second} <= set(mine):
            return pd.Series(dtype=float, index=mine.index[:0])
        found: pd.Series = (mine[contrast.first] - mine[contrast.second]).dropna()
        return found

    return of


def model_tests(protocol: Protocol, wide: pd.DataFrame, said: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Test every family about the model, as :func:`persona_studies.analyse.families.corrected` returns them."""
    special = ("share", "omnibus", "replies", *PUBLISHED)
    plain = [name for name in protocol.families if name not in special]
    tests = families.contrasts(protocol, plain, differences(wide), how)
    each = tests[tests["family"] == "persona"]
    share, omnibus, words = (protocol.families[name] for name in ("share", "omnibus", "replies"))
    fallen = int((each["rejected"] & (each["estimate"] < 0)).sum())
    row = families.share(fallen, len(each), null=0.5, how=how) if each["n"].gt(0).all() else {}
    personas = {f"{name} - {REFERENCE} | any set, accuracy": name for name in protocol.design["personas"]}
    counted = {h: _counted(said, contrast, how) for h, contrast in words.contrasts.items()}
    return pd.concat(
        [
            tests,
            families.corrected("share", share, {share.hypotheses[0]: row}, how),
            families.corrected("omnibus", omnibus, any_set(wide, personas, how), how),
            families.corrected("replies", words, counted, how),
        ],
        ignore_index=True,
    )


def any_set(wide: pd.DataFrame, personas: dict[str, str], how: Settings) -> dict[str, dict[str, Any]]:
    """Test each persona against a human for a difference on any set, by permutation.

    The statistic is the sum over sets of the squared t of its differences. Signs are flipped question by question,
    by patterns that all personas and sets share.

    Args:
        wide: Of :func:`by_question`.
        personas: Hypothesis -> persona.
        how: Settings.

    Returns:
        Hypothesis -> ``n`` (questions), ``estimate`` (largest difference of a set, by size), ``p``.
    """
    there = {h: name for h, name in personas.items() if {name, REFERENCE} <= set(wide)}
    gaps = {h: (wide[name] - wide[REFERENCE]).to_numpy() for h, name in there.items()}
    sets = pd.factorize(wide.index.get_level_values("dataset"))[0]
    member = (sets[:, None] == np.arange(sets.max(initial=-1) + 1)).astype(float)
    n = member.sum(axis=0)

    def statistic(sums: np.ndarray, squares: np.ndarray) -> np.ndarray:
        spread = (squares - sums**2 / n) / (n - 1)
        t = np.divide(sums**2 / n, spread, out=np.zeros_like(sums), where=spread > 1e-15)
        total: np.ndarray = t.sum(axis=-1)
        return total

    rng = np.random.default_rng(how.seed)
    extreme = dict.fromkeys(gaps, 0)
    for start in range(0, how.replicates, CHUNK):
        signs = rng.integers(0, 2, (min(CHUNK, how.replicates - start), len(wide))) * 2.0 - 1
        for h, d in gaps.items():
            squares = (d**2) @ member
            seen = statistic(d @ member, squares)
            extreme[h] += int((statistic((signs * d) @ member, squares) >= seen * (1 - 1e-12)).sum())
    rows = {}
    for h, d in gaps.items():
        means = (d @ member) / n
        largest = float(means[np.abs(means).argmax()])
        rows[h] = {"n": len(d), "estimate": largest, "p": (extreme[h] + 1) / (how.replicates + 1)}
    return rows


def _counted(said: pd.DataFrame, contrast: Hypothesis, how: Settings) -> dict[str, Any]:
    """Compare replies: share that abstain, or share right among the questions that both answer."""
    read = said[said["extractor"] == EXTRACTOR]
    mine = {name: read[read["persona"] == name].set_index("item") for name in (contrast.first, contrast.second)}
    both = mine[contrast.first].join(mine[contrast.second], how="inner", rsuffix="_second")
    if contrast.outcome == "abstained":
        one, other = both["status"] == "abstained", both["status_second"] == "abstained"
    else:
        both = both.dropna(subset=["correct", "correct_second"])
        one, other = both["correct"] == 1, both["correct_second"] == 1
    b, c = int((one & ~other).sum()), int((other & ~one).sum())
    return families.of_counts(b, c, len(both), contrast=contrast, how=how)


# --- Published data ---


def public_tests(project: Project, protocol: Protocol, how: Settings) -> pd.DataFrame:
    """Test the families about published figures and public replies."""
    counts = published.rejudge(project, alpha=how.alpha, correction=how.correction, confidence=how.confidence)
    share = protocol.families["published_share"]
    shares = [counts["significant"] > 0, counts["p_count"] <= how.alpha, counts["rejected_count"]]
    drop = protocol.families["published_drop"]
    largest = float(published.drops(project)["drop"].max()) - 70
    error = published.READ_WITHIN
    # Read from a figure: nothing but the error of reading is uncertain.
    read = {"n": 1, "estimate": largest, "low": largest - error, "high": largest + error}
    read["p"] = 0.0 if abs(largest) > error else 1.0
    abstention = protocol.families["published_abstention"]
    runs = published.runs(project)
    run = runs[(runs["model"] == "gpt-3.5-turbo-0613") & (runs["extractor"] == "as filed")].iloc[0]
    errors = int(run["n"] - run["correct"])
    rows: dict[str, dict[str, dict[str, Any]]] = {
        "published_share": {
            h: families.share(int(found.sum()), len(found), null=0.5, how=how)
            for h, found in zip(share.hypotheses, shares, strict=True)
        },
        "published_drop": {drop.hypotheses[0]: read},
        "published_abstention": {
            abstention.hypotheses[0]: families.share(int(run["abstained"]), errors, null=0.5, how=how)
        },
        "published_extractor": extractor_tests(project, protocol, how),
    }
    return pd.concat(
        [families.corrected(name, protocol.families[name], found, how) for name, found in rows.items()],
        ignore_index=True,
    )


def extractor_tests(project: Project, protocol: Protocol, how: Settings) -> dict[str, dict[str, Any]]:
    """Estimate how much a persona's effect in the public Qwen3-8B runs changes with how replies are read."""
    texts = published_names(project)
    raw = pd.read_csv(project.published / "persona_bias" / "gupta2024_public_extractors.csv")
    raw = raw[raw["model"] == "Qwen3-8B"]

    def changes(contrast: Hypothesis, part: str | None) -> pd.Series:
        mine = raw[raw["persona"] == texts[contrast.first]]
        values = np.repeat(mine["change"].to_numpy(dtype=float), mine["questions"])
        names = [str(k) for k in range(len(values))]
        index = pd.MultiIndex.from_arrays([[contrast.on] * len(values), names, names])
        return pd.Series(values, index=index.set_names(["dataset", "item", "cluster"]))

    return families.estimated(protocol.families["published_extractor"].contrasts, changes, how)


def published_names(project: Project) -> dict[str, str]:
    """Return the paper's phrase of every persona."""
    bank = registry(project)
    return dict(zip(bank["persona"], bank["text"], strict=True))
