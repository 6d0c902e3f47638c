"""The live part of persona_choice: its grid, what is shared, planted effects, nulls, gates and power."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest

from persona_choice import analysis, choice, design, live, pairs
from persona_studies.analyse import verdicts
from persona_studies.ask import planner
from persona_studies.ask.backends import Request
from persona_studies.ask.chat import CHATML
from persona_studies.design.plan import HASHES, IDENTITY, text_hash
from persona_studies.errors import ParameterError
from tests.conftest import at_hand
from tests.kit.simulated_persona_choice import (
    DEFAULTS,
    HOW,
    PROJECT,
    PROTOCOL,
    bank,
    by_share,
    parameters,
    plan,
    recorded,
)

DIGEST = "c90a46021bd88cd4"
"""Of identity and hashes of every cell: a text that changes after recording began is another cell."""


def judged(answers: pd.DataFrame, column: str = "verdict") -> pd.Series:
    found = live.analyse(PROJECT, PROTOCOL, answers, bank(), HOW)
    table = analysis.judged(PROTOCOL, {}, {"a": found}, layer="corrected")
    return table.set_index("claim")[column]


# --- The grid -------------------------------------------------------------------------------------------------


def test_the_grid_has_the_declared_cells_and_texts() -> None:
    assert PROTOCOL.confirmatory is not None
    assert plan(600).groupby("measure").size().to_dict() == PROTOCOL.confirmatory.cells
    first = plan(600)["measure"].isin(["letter", "cloze", "letter_profile_first"])
    cells = plan(600).loc[first, [*IDENTITY, *HASHES]].astype(str).agg("\t".join, axis=1)
    assert hashlib.sha256("\n".join(sorted(cells)).encode()).hexdigest()[:16] == DIGEST


def test_fewer_pairs_are_the_first_ones_and_balanced() -> None:
    few = plan(60)[[*IDENTITY, *HASHES]].agg(tuple, axis=1)
    assert set(few) <= set(plan(300)[[*IDENTITY, *HASHES]].agg(tuple, axis=1))
    assert set(bank(60)["conversation"].value_counts()) == {20}
    # The gold answer is the first one about as often as the second: position alone cannot be right.
    assert abs(bank(600)["gold"].mean() - 0.5) < 0.05


def test_conditions_without_the_reference_are_refused() -> None:
    with pytest.raises(ParameterError, match="none"):
        design.Parameters.check(DEFAULTS | {"conditions": ["full", "key"]})


def made_up() -> pd.DataFrame:
    """Return a pair with texts, as the pinned source would give it."""
    example = PROTOCOL.design["example"]
    row = {"item": "0123456789ab", "user_info": example["profile"]}
    row["user_info"] += " The person's highest education level is some secondary."
    said = pairs.descriptions(row, "The person is 65+ years old.", PROTOCOL)
    hashes = {f"{name}_hash": text_hash(None, text) for name, text in said.items()}
    about = {"item": [row["item"]], "item_hash": ["0" * 16], "text": [example["question"]]}
    options = pd.Series([tuple(example["answers"])])
    return pd.DataFrame(about).assign(options=options, **said, **hashes)


def requests() -> pd.DataFrame:
    from persona_studies.design import plan as grid

    declared = PROTOCOL.measures["letter"]
    parts = []
    for name in DEFAULTS["conditions"]:
        who = pd.DataFrame([{"condition": name, "condition_hash": name, "system": None, "description": None}])
        parts.append(
            grid.measure(
                "letter",
                "letter",
                conditions=who,
                items=design.said(PROTOCOL, made_up(), name),
                templates=declared.frame()[["template", "shared", "user"]],
                labels=declared.labels,
                orders=2,
            )
        )
    return grid.combine(parts)


def test_seven_conditions_branch_from_one_pair() -> None:
    cells = planner.order(requests())
    prompts = [
        planner.tokenise(
            Request("letter", None, row["shared"], row["user"], row["options"], 0),
            CHATML,
            lambda text, special: list(text.encode()),
            model="bytes",
        )
        for row in cells.to_dict("records")
    ]
    heads = [tuple(prompt.prefix) for prompt in prompts]
    # Two orders, seven conditions each, side by side: the pair goes through the model twice, not fourteen times.
    assert len(cells) == 14 and len(set(heads)) == 2 and heads == sorted(heads, key=heads.index)
    for text in PROTOCOL.design["example"]["answers"]:
        assert all(text.encode() in bytes(head) for head in heads)
    logical = sum(len(prompt.whole) for prompt in prompts)
    computed = sum(map(len, set(heads))) + sum(len(prompt.suffix) for prompt in prompts)
    assert computed < 0.7 * logical
    # Whatever stands about the person comes behind the seam, and the question comes last.
    assert all(bytes(prompt.suffix).rstrip().endswith(b"assistant") for prompt in prompts)
    assert all(b"Reply with A or B only." in bytes(prompt.suffix) for prompt in prompts)


def test_conditions_say_what_they_are_called() -> None:
    said = made_up().iloc[0]
    assert "35-44" in said["full"] and "35-44" in said["age"] and "working" not in said["age"]
    assert "education" in said["key"] and "35-44" not in said["key"]
    assert "65+" in said["shuffled"] and "favourite colour" in said["placebo"]
    profile = said["full"].removeprefix("About the person who asked: ").split()
    filler = said["filler"].removeprefix("A note on something else: ").split()
    assert len(profile) == len(filler) and "person" not in said["filler"]


def test_a_stranger_differs_in_three_features_and_is_given_once() -> None:
    ages, places = ("18-24", "25-34", "35-44", "45-54"), ("Peru", "Chile", "Kenya", "Spain", "Japan")
    profiles = [
        f"The person is {age} years old. Racially, The person is {place}n. The person is born in {place} and lives "
        f"there. The person's highest education level is {place[::-1]}."
        for age in ages
        for place in places
    ]
    given = pairs.strangers(profiles, 3, seed=1)
    assert sorted(given.values()) == sorted(profiles)
    assert all(pairs.distance(pairs.features(a), pairs.features(b)) >= 3 for a, b in given.items())
    with pytest.raises(ValueError, match="differs in 3"):
        pairs.strangers(profiles[:2] + profiles[:1], 3, seed=1)


# --- Planted effects and nulls --------------------------------------------------------------------------------


def test_a_model_that_uses_the_profile_is_found() -> None:
    shares = {"none": 0.5, "full": 0.75, "key": 0.72}
    answers = recorded(by_share(shares, 3))
    found = choice.analyse(PROTOCOL, answers, bank(), "letter", HOW)
    assert found.gate["passes"].all()
    said = judged(answers)
    live = [name for name, claim in PROTOCOL.claims.items() if claim.family == "choice"]
    assert set(said[live]) == {verdicts.REPRODUCED}
    rows = found.tests.set_index(["family", "hypothesis"])
    planted = rows.loc[("choice", "full - none | pairs, share right")]
    assert planted["low"] < 0.25 < planted["high"] and planted["n"] == 300
    assert rows.loc[("probability", "full - shuffled | pairs, P(gold)"), "rejected"]


def test_without_an_effect_nothing_is_found_more_often_than_alpha() -> None:
    false = 0
    cells = plan().query("measure == 'letter' and order == 0")[["condition", "item"]].merge(bank(), on="item")
    for seed in range(12):
        right = by_share({"none": 0.6}, seed)(cells)
        scored = cells.assign(right=right > 0.5, p_gold=right)
        tested = choice.tests(PROTOCOL, scored, HOW)
        false += bool(tested.loc[tested["family"] == "choice", "rejected"].any())
    # Binomial(12, .05): 4 or more have a probability of .002.
    assert false <= 3


def test_a_model_that_likes_what_everybody_likes_does_not_use_the_persona() -> None:
    liked = by_share(dict.fromkeys(DEFAULTS["conditions"], 0.75), 5)
    said = judged(recorded(liked))
    assert verdicts.REPRODUCED not in set(said[["own_profile", "profile", "key_features"]])


def test_a_model_that_picks_the_longer_answer_is_seen_by_the_baseline() -> None:
    def longer(met: pd.DataFrame) -> np.ndarray:
        return np.where(met["longer"] == met["gold"], 0.8, 0.2)

    answers = recorded(longer)
    found = choice.analyse(PROTOCOL, answers, bank(), "letter", HOW)
    table = choice.conditions(answers, found.scored, "letter", HOW).set_index("condition")
    assert table.loc["full", "picks_longer"] == 1 and table.loc["full", "longer_right"] > 0.55
    beyond = found.tests[found.tests["family"] == "beyond_length"]
    assert (beyond["estimate"] == 0).all() and not beyond["rejected"].any()
    assert verdicts.REPRODUCED not in set(judged(answers))


def test_a_choice_by_place_fails_the_gate_and_cancels() -> None:
    answers = recorded(by_share({"none": 0.5, "full": 0.8}, 2), place_bias=6.0)
    found = choice.analyse(PROTOCOL, answers, bank(), "letter", HOW)
    checks = found.gate.set_index("check")
    assert not checks.loc["same place", "passes"] and checks.loc["same place", "value"] == 1
    assert judged(answers)["profile"] == verdicts.UNINFORMATIVE
    # The debiased choice still knows what the letters hide.
    free = recorded(by_share({"none": 0.5, "full": 0.8}, 2))
    same = choice.scores(free, bank(), "letter")["chosen"].to_numpy()
    assert (found.scored["chosen"].to_numpy() == same).all()


def test_a_model_that_no_instruction_moves_is_judged_and_said_to_be_so() -> None:
    answers = recorded(by_share({"none": 0.6}, 1), control=0.5)
    found = choice.analyse(PROTOCOL, answers, bank(), "letter", HOW)
    assert found.gate["passes"].all()
    assert found.moves[["check", "passes"]].to_numpy().tolist() == [["control", False]]
    free = recorded(by_share({"none": 0.6}, 1))
    assert judged(answers)["own_profile"] == judged(free)["own_profile"] != verdicts.UNINFORMATIVE
    assert judged(answers, "steerable")["own_profile"] == "no"
    assert judged(free, "steerable")["own_profile"] == ""


def test_the_finding_says_what_the_choice_follows() -> None:
    answers = recorded(by_share({"none": 0.5, "full": 0.9, "shuffled": 0.5}, 1))
    chosen = choice.conditions(answers, choice.scores(answers, bank(), "letter"), "letter", HOW)
    by = chosen.set_index("condition")
    said = choice.finding(chosen, "a")
    assert f"in {by.loc['full', 'right']:.0%} [" in said and f"of {by.loc['full', 'n']} pairs" in said
    assert f"without a profile {by.loc['none', 'right']:.0%}" in said
    assert f"with another person's {by.loc['shuffled', 'right']:.0%}" in said
    alone = choice.finding(chosen[chosen["condition"] == "none"], "a")
    assert f"in {by.loc['none', 'right']:.0%} of" in alone and "whole profile" not in alone


def test_conditions_that_were_not_asked_count_as_undefined() -> None:
    answers = recorded(by_share({"none": 0.6}, 1))
    part = answers[answers["condition"].isin(["none", "full", "longer", "shorter"])]
    found = choice.analyse(PROTOCOL, part, bank(), "letter", HOW).tests.set_index("hypothesis")
    assert found.loc["key - none | pairs, share right", "n"] == 0
    assert found.loc["key - none | pairs, share right", "p_adjusted"] == 1


# --- Calibration, power ---------------------------------------------------------------------------------------


def test_calibration_of_known_probabilities() -> None:
    scored = choice.scores(
        recorded(lambda met: np.where(met["conversation"] == "unguided", 0.9, 0.6)), bank(), "letter"
    )
    row = choice.calibration(scored).set_index("condition").loc["none"]
    share = (bank()["conversation"] == "unguided").mean()
    assert row["brier"] == pytest.approx(share * 0.01 + (1 - share) * 0.16, abs=1e-6)
    assert np.isnan(row["auroc"])  # every choice is right, so nothing can be ranked
    binned = choice.bins(scored)
    assert binned.groupby("condition")["n"].sum().loc["none"] == 300


def test_power_is_that_of_the_declared_design() -> None:
    table = choice.power((0.15, 0.25), (300, 600, 1000), 0.05, HOW, 5).set_index(["discordance", "n"]).round(3)
    # The design's own figures, which were found by exact tests; these are by the normal distribution.
    near = {"abs": 0.0015}
    assert table.loc[0.25, "detectable"].tolist() == pytest.approx([0.081, 0.058, 0.045], **near)
    assert table.loc[0.25, "detectable_family"].tolist() == pytest.approx([0.099, 0.070, 0.054], **near)
    assert table["equivalence"].loc[0.25].tolist()[1:] == pytest.approx([0.58, 0.87], abs=0.006)
    assert table["equivalence"].loc[0.15].tolist()[1:] == pytest.approx([0.87, 0.99], abs=0.006)


def test_another_margin_is_another_smallest_effect_everywhere() -> None:
    wide = PROTOCOL.at_margin(0.1)
    assert {each.smallest_effect for each in wide.families["choice"].contrasts.values()} == {0.1}
    assert wide.claims["profile"].smallest_effect == 0.1 and PROTOCOL.claims["profile"].smallest_effect == 0.05


def test_the_bank_is_what_its_source_gives() -> None:
    at_hand(PROJECT, pairs.SOURCE)
    at_hand(PROJECT, "spectrum-profiles", "deeppersona-our-responses.json")
    pd.testing.assert_frame_equal(pairs.bank(PROJECT, PROTOCOL), design.pairs(PROJECT), check_dtype=False)
    whole = design.plan(PROJECT, PROTOCOL, parameters(items=60), texts=True)
    assert (whole[[*IDENTITY, *HASHES]] == plan(60)[[*IDENTITY, *HASHES]]).all(axis=None)
    assert whole["user"].notna().all() and whole.attrs["gated"][0] == "PRISM"
