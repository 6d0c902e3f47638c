"""The declared analysis of the study of persona bias: scores, gates, families and verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from math import asin, nan, sqrt
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.weightstats import DescrStatsW

from persona_bias import extractors, published
from persona_bias.design import registry
from persona_studies.analyse import families, gates, multiple_choice
from persona_studies.analyse.claims import PUBLISHED_DATA
from persona_studies.analyse.conclusions import Analysis, conclude
from persona_studies.analyse.contrasts import outcome
from persona_studies.analyse.families import Settings
from persona_studies.analyse.stats.multiplicity import correct
from persona_studies.design.protocol import Hypothesis, Protocol
from persona_studies.paths import Project

PUBLISHED = ("published_share", "published_drop", "published_abstention", "published_extractor")
REFERENCE = "human"
MEAN = "mean of personas"
EXTRACTOR = "lenient"
INDEX = ["dataset", "item", "cluster"]
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
    extractor: str = EXTRACTOR,
) -> Analysis:
    """Run the declared analysis of one recording.

    Args:
        recorded: Responses of measures that are complete; a claim about another measure waits.
        asked: Of :func:`persona_bias.design.questions`.
        everyone: Of :func:`persona_bias.design.people`.
        extractor: How replies are read.

    Returns:
        ``gate`` has the parts letter and text; ``said`` is of :func:`persona_bias.extractors.read`, by the
        extractor.
    """
    scored, said = scores(recorded, asked, everyone), extractors.read(recorded, asked, everyone)
    said = said[said["extractor"] == extractor]
    gate = gated(protocol, scored, said, recorded, asked, how)
    tests = model_tests(protocol, by_question(scored, protocol), said, how)
    why = {str(part): gates.failures(rows) for part, rows in gate.groupby("part", sort=False)}
    moved = tests[tests["family"] == "steerability"].iloc[0]
    stuck = not (moved["rejected"] and moved["estimate"] < 0)
    return conclude(
        protocol,
        tests,
        public_tests(project, protocol, how),
        lambda family, hypothesis: why.get("text" if family == "replies" else "letter", ""),
        # Whether replies abstain is not what that order is about.
        {name: stuck for name in tests["family"] if name != "replies"},
        model=model,
        scored=scored,
        gate=gate,
        said=said,
        held={*recorded["measure"]},
    )


def scores(recorded: pd.DataFrame, asked: pd.DataFrame, everyone: pd.DataFrame) -> pd.DataFrame:
    """Score every question under every condition by its letters.

    Returns:
        ``condition, persona, instruction, item, dataset, cluster, n_options, score`` (mean probability of the right
        option over all orders), ``correct`` (whether that option is the most probable one), ``option_mass``.
    """
    columns = ["condition", "persona", "instruction", *INDEX, "n_options", "score", "correct", "option_mass"]
    if not (recorded["measure"] == "letter").any():
        return pd.DataFrame(columns=columns)
    found = multiple_choice.choices(recorded, asked.drop(columns="item_hash"), "letter")
    found = found.merge(everyone[["condition", "persona", "instruction"]], on="condition")
    return found[columns]


def by_question(scored: pd.DataFrame, protocol: Protocol, value: str = "score") -> pd.DataFrame:
    """Return questions in each instruction x personas, with the mean of all personas where all were asked.

    A condition without an instruction stands beside every instruction.

    Returns:
        Indexed by ``dataset, item, cluster, instruction``.
    """
    index = [*INDEX, "instruction"]
    if scored.empty:
        return pd.DataFrame(index=pd.MultiIndex.from_arrays([[]] * len(index), names=index))
    given = scored["instruction"] > 0
    wide = scored[given].pivot_table(index=index, columns="persona", values=value, sort=False)
    without = scored[~given].pivot_table(index=INDEX, columns="persona", values=value, sort=False)
    wide = wide.join(without, on=INDEX)
    personas = protocol.design["personas"]
    if set(personas) <= set(wide):
        wide[MEAN] = wide[personas].mean(axis=1, skipna=False)
    return wide


def paired(wide: pd.DataFrame, *names: str) -> pd.DataFrame:
    """Return questions x these personas: the mean over the instructions in which all of them were asked.

    An instruction moves accuracy by itself. Where one persona was asked in two and another in one, the difference
    of their means would be partly that of the instructions.

    Args:
        wide: Of :func:`by_question`.
    """
    shared = wide.reindex(columns=list(names)).astype(float).dropna()
    return shared.groupby(level=INDEX, sort=False).mean()


def gated(
    protocol: Protocol,
    scored: pd.DataFrame,
    said: pd.DataFrame,
    recorded: pd.DataFrame,
    asked: pd.DataFrame,
    how: Settings,
) -> pd.DataFrame:
    """Check the measures that are recorded, as a human, over all sets.

    Returns:
        ``part`` (letter, text), ``check, value, rule, threshold, passes``.
    """
    values: dict[str, dict[str, float]] = {}
    if len(scored):
        human = scored[scored["persona"] == REFERENCE]
        mine = recorded[recorded["condition"].isin(set(human["condition"]))]
        chance = human.groupby("item", sort=False)[["score", "n_options"]].mean()
        values["letter"] = {
            **gates.letters(human, mine, asked),
            "above_chance": gates.above_chance(chance, how.confidence),
            "repeatability": gates.repeatability(scored, "persona", "instruction"),
        }
    if len(said):
        values["text"] = {"parsed": extractors.share_answered(said)}
    columns = ["part", "check", "value", "rule", "threshold", "passes"]
    parts = [
        gates.declared(protocol.measures[part].gate, found).assign(part=part)[columns]
        for part, found in values.items()
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns).astype({"passes": bool})


def differences(wide: pd.DataFrame) -> families.Differences:
    """Return how to take the paired differences of a contrast from questions x personas."""

    def of(contrast: Hypothesis, part: str | None) -> pd.Series:
        mine = wide if contrast.on == "all" else wide[wide.index.get_level_values("dataset") == contrast.on]
        return families.gaps(paired(mine, contrast.first, contrast.second), contrast)

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
    personas = dict(zip(omnibus.hypotheses, protocol.design["personas"], strict=True))
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

    Returns:
        Hypothesis -> ``n`` (questions), ``estimate`` (largest difference of a set, by size), ``p``.
    """
    there = {h: name for h, name in personas.items() if {name, REFERENCE} <= set(wide)}
    both = {h: paired(wide, name, REFERENCE) for h, name in there.items()}
    questions = next(iter(both.values()), wide.iloc[:0]).index
    gaps = {h: (pair[there[h]] - pair[REFERENCE]).reindex(questions).to_numpy() for h, pair in both.items()}
    sets = pd.factorize(questions.get_level_values("dataset"))[0]
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
        signs = rng.integers(0, 2, (min(CHUNK, how.replicates - start), len(questions))) * 2.0 - 1
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
    mine = {name: said[said["persona"] == name].set_index("item") for name in (contrast.first, contrast.second)}
    both = mine[contrast.first].join(mine[contrast.second], how="inner", rsuffix="_second")
    if contrast.outcome == "abstained":
        one, other = both["status"] == "abstained", both["status_second"] == "abstained"
    else:
        both = both.dropna(subset=["correct", "correct_second"])
        one, other = both["correct"] == 1, both["correct_second"] == 1
    return families.of_counts(*families.discordant(one, other), contrast=contrast, how=how)


# --- What stands beside the tests ---


def sizes(wide: pd.DataFrame, first: str, second: str, chance: pd.Series) -> dict[str, float]:
    """Return a difference on the scales that papers use, sets weighing the same.

    Args:
        wide: Of :func:`by_question`.
        first: Who.
        second: Compared with whom.
        chance: Per item, 1 / options.

    Returns:
        ``accuracy, reference, cohens_h, relative_drop`` (fall over the reference's accuracy) and
        ``chance_corrected_drop`` (fall over what the reference has above chance; undefined where that is nothing).
    """
    if not {first, second} <= set(wide):
        return dict.fromkeys(["accuracy", "reference", "cohens_h", "relative_drop", "chance_corrected_drop"], nan)
    both = paired(wide, first, second)
    both = both.assign(chance=chance.reindex(both.index.get_level_values("item")).to_numpy())
    a, b, guess = both.groupby(level="dataset").mean().mean()[[first, second, "chance"]]
    return {
        "accuracy": a,
        "reference": b,
        "cohens_h": 2 * asin(sqrt(a)) - 2 * asin(sqrt(b)),
        "relative_drop": (b - a) / b if b > 0 else nan,
        "chance_corrected_drop": (b - a) / (b - guess) if b > guess else nan,
    }


def sized(found: Analysis, protocol: Protocol, asked: pd.DataFrame) -> pd.DataFrame:
    """Return every contrast of letters with its sizes, and in one word what it came to.

    Returns:
        :data:`persona_studies.analyse.families.COLUMNS`, ``gate``, ``first, second, dataset`` (``all``, or one
        set), the columns of :func:`sizes`, ``outcome``.
    """
    wide = by_question(found.scored, protocol)
    chance = 1 / asked.set_index("item")["n_options"]
    contrasts = {
        (name, h): c
        for name, family in protocol.families.items()
        for h, c in family.contrasts.items()
        if c.measure == "letter"
    }
    keys = zip(found.tests["family"], found.tests["hypothesis"], strict=True)
    table = found.tests[[key in contrasts for key in keys]].reset_index(drop=True)
    mine = [contrasts[key] for key in zip(table["family"], table["hypothesis"], strict=True)]
    parts = {"all": wide, **{str(name): part for name, part in wide.groupby(level="dataset", sort=False)}}
    beside = [sizes(parts.get(c.on, wide.iloc[:0, :0]), c.first, c.second, chance) for c in mine]
    said = [
        outcome(r["estimate"], rejected=r["rejected"], equivalent=r["bounded"], gate=r["gate"])
        for r in table.to_dict("records")
    ]
    named = {"first": [c.first for c in mine], "second": [c.second for c in mine], "dataset": [c.on for c in mine]}
    return table.assign(**named, **pd.DataFrame(beside), outcome=said)


def by_set(table: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Return each persona against a human on each set, also corrected by Benjamini and Hochberg.

    Args:
        table: Of :func:`sized`.
    """
    mine = table[table["family"] == "persona_dataset"].reset_index(drop=True)
    done = correct(mine["p"], alpha=how.alpha, method="fdr_bh", size=len(mine), undefined="one")
    return mine.assign(p_bh=done["p_adjusted"], rejected_bh=done["rejected"])


def counts(table: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Count the sets on which each persona is significantly worse: the paper's way, and corrected.

    Args:
        table: Of :func:`by_set`.

    Returns:
        ``persona, datasets, worse_uncorrected, worse_bh, worse_adjusted, better_uncorrected``.
    """
    worse, better = table["estimate"] < 0, table["estimate"] > 0
    marked = table.assign(
        datasets=1,
        worse_uncorrected=(table["p"] <= how.alpha) & worse,
        worse_bh=table["rejected_bh"].astype(bool) & worse,
        worse_adjusted=table["rejected"].astype(bool) & worse,
        better_uncorrected=(table["p"] <= how.alpha) & better,
    )
    columns = ["datasets", "worse_uncorrected", "worse_bh", "worse_adjusted", "better_uncorrected"]
    return marked.groupby("first", sort=False)[columns].sum().rename_axis("persona").reset_index()


def accuracy(scored: pd.DataFrame, protocol: Protocol, how: Settings) -> pd.DataFrame:
    """Return accuracy as a human on every set, with an interval over questions, beside chance.

    Returns:
        ``dataset, n, accuracy, low, high, chance``.
    """
    wide = paired(by_question(scored, protocol), REFERENCE)[REFERENCE]
    chance = (1 / scored.drop_duplicates("item").set_index("item")["n_options"]).rename("chance")
    rows = []
    for dataset, values in wide.groupby(level="dataset", sort=False):
        low, high = DescrStatsW(values).tconfint_mean(1 - how.confidence)
        guess = chance.loc[values.index.get_level_values("item")].mean()
        rows.append((dataset, len(values), values.mean(), low, high, guess))
    return pd.DataFrame(rows, columns=["dataset", "n", "accuracy", "low", "high", "chance"])


def finding(found: Analysis | None, claims: pd.DataFrame, model: str) -> str:
    """Return the finding in Markdown: one sentence, and what stands beside it, made of the computed numbers.

    Args:
        found: Of the model; None where nobody is recorded.
        claims: Of :func:`persona_studies.analyse.conclusions.claims`.
    """
    own = claims["estimate"].notna() & claims["model"].isin([model, PUBLISHED_DATA])
    rows = claims[own].drop_duplicates("claim").set_index("claim").to_dict("index")

    def interval(row: Mapping[Any, Any] | pd.Series, digits: int = 3) -> str:
        return f"{row['estimate']:z.{digits}f} [{row['low']:z.{digits}f}, {row['high']:z.{digits}f}]"

    def number(name: str, digits: int = 3) -> str:
        return interval(rows[name], digits)

    public = [
        "In the one public run of GPT-3.5, told to be a physically-disabled person, the share of errors that hold "
        f"no answer is {number('published_abstention', 2)}.",
        "In version 1 of the paper the share of personas that differ from a human on more sets than chance gives, "
        f"after correction, is {number('published_share', 2)}; the largest relative drop is "
        f"{number('large_drops', 1)} per cent.",
    ]
    mine: list[str] = []
    decides = False
    if found is not None and len(found.scored):
        each = found.tests[found.tests["family"] == "persona"]
        worse = int((each["rejected"] & (each["estimate"] < 0)).sum())
        failed = found.failed["persona"]
        decides = not failed
        if failed:
            mine.append(
                f"In {model} the letters failed their check ({failed}), so that nothing is decided about it."
            )
        mine.append(
            f"{f'In {model}' if decides else 'Behind that check'}, being told to be one of twelve persons changes "
            f"accuracy by {number('any_persona')} against being told to be a human, over {int(each['n'].max())} "
            f"questions; {worse} of {len(each)} personas answer{'s' * (worse == 1)} significantly worse."
        )
        said = f"As a physically-disabled person the change is {number('disability')}"
        mixed = found.tests[found.tests["hypothesis"] == "shuffled - human | all, accuracy"]
        if mixed["estimate"].notna().any():
            said += f"; with the words of that instruction in random order it is {interval(mixed.iloc[0])}"
        mine.append(f"{said}.")
        mine.append(f"Against a placebo persona the mean change is {number('beyond_placebo')}.")
        if rows.get("abstention", {}).get("gate") == "passed":
            mine.append(
                "In replies, the share that abstains as a physically-disabled person, less that as a human: "
                f"{number('abstention', 2)}."
            )
    else:
        whom = (
            f"{model} has not answered by letters" if found is not None else "No model has answered this protocol"
        )
        mine.append(f"{whom} yet, so that nothing is decided about a model asked here.")
    # What is decided stands first.
    first, *rest = [*mine, *public] if decides else [*public, *mine]
    counted = claims.drop_duplicates("claim")["verdict"].value_counts()
    rest.append(f"Of {counted.sum()} claims: {', '.join(f'{n} {name}' for name, n in counted.items())}.")
    return " ".join([f"**{first}**", *rest])


# --- Published data ---


def public_tests(project: Project, protocol: Protocol, how: Settings) -> pd.DataFrame:
    """Test the families about published figures and public replies."""
    counts = published.rejudge(project, alpha=how.alpha, correction=how.correction, confidence=how.confidence)
    share = protocol.families["published_share"]
    shares = [counts["significant"] > 0, counts["p_count"] <= how.alpha, counts["rejected_count"]]
    drop = protocol.families["published_drop"]
    claim = protocol.claims["published_share"]
    biased: dict[str, Any] = {"direction": claim.direction, "smallest_effect": claim.smallest_effect}
    largest, error = float(published.drops(project)["drop"].max()), published.READ_WITHIN
    line = protocol.claims["large_drops"].line
    # Read from a figure: nothing but the error of reading is uncertain.
    read = {"n": 1, "estimate": largest, "se": 0.0, "low": largest - error, "high": largest + error}
    read["p"] = 0.0 if abs(largest - line) > error else 1.0
    abstention = protocol.families["published_abstention"]
    runs = published.runs(project)
    run = runs[(runs["model"] == "gpt-3.5-turbo-0613") & (runs["extractor"] == "as filed")].iloc[0]
    errors = int(run["n"] - run["correct"])
    rows: dict[str, dict[str, dict[str, Any]]] = {
        "published_share": {
            h: families.share(int(found.sum()), len(found), null=0.5, how=how, **biased)
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
