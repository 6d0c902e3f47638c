"""Guess-Who and the survey of persona_choice, and several models: grid, planted effects, nulls, gates and power."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pandas as pd
import pytest

from persona_choice import analysis, figures, guess, live, published, respondents
from persona_studies.analyse import verdicts
from persona_studies.ask import planner
from persona_studies.design.plan import HASHES, IDENTITY
from tests.conftest import at_hand
from tests.kit.simulated_persona_choice import (
    HOW,
    PROJECT,
    PROTOCOL,
    bank,
    by_share,
    guessed,
    plan,
    recorded,
    surveyed,
)

DIGEST = "ddb001a629e689c4"
"""Of identity and hashes of every cell of both parts: a text that changes after recording is another cell."""
CHARACTERS = guess.characters(PROJECT)
QUESTIONS = respondents.questions(PROJECT)
PEOPLE = respondents.people(published.committed(PROJECT, "survey_counts"), QUESTIONS)
KNOWS = {"S": 0.2, "P": 0.1, "C": 0.75, "SP": 0.25, "SC": 0.8, "PC": 0.75, "SPC": 0.85}


def analysed(answers: pd.DataFrame) -> live.Live:
    return live.analyse(PROJECT, PROTOCOL, answers, bank(), HOW)


def judged(**everyone: pd.DataFrame) -> pd.DataFrame:
    found = {name: analysed(answers) for name, answers in everyone.items()}
    return analysis.judged(PROTOCOL, {}, found, layer="corrected")


def first_row(table: pd.DataFrame, claim: str) -> pd.Series:
    row: pd.Series = table[table["claim"] == claim].iloc[0]
    return row


# --- The grid -----------------------------------------------------------------------------------------------------


def test_the_cells_are_those_that_were_declared() -> None:
    mine = plan()[plan()["measure"].isin([guess.MEASURE, guess.OPEN, respondents.MEASURE])]
    cells = mine[[*IDENTITY, *HASHES]].astype(str).agg("\t".join, axis=1)
    assert hashlib.sha256("\n".join(sorted(cells)).encode()).hexdigest()[:16] == DIGEST


def test_a_profile_goes_before_the_seam_once_for_every_context_that_holds_it() -> None:
    known = CHARACTERS.head(3)
    known = known.assign(
        **{part: [f"{part} of {name}." for name in known["name"]] for part in ("S", "P", "C", "open")}
    )
    cells = planner.order(pd.concat(guess.cells(PROTOCOL, known), ignore_index=True))
    whole = cells[(cells["measure"] == guess.MEASURE) & cells["condition"].isin(guess.CONTEXTS)]
    starts = whole["shared"].tolist()
    # Seven contexts of three characters: three starts each, side by side.
    assert len(whole) == 21 and starts == sorted(starts, key=starts.index) and len(set(starts)) == 9
    row = whole[(whole["condition"] == "SPC") & (whole["item"] == "1")].iloc[0]
    assert "P of Sheldon." in row["shared"] and "S of Sheldon.\n\nC of Sheldon." in row["user"]
    assert row["options"] == tuple(CHARACTERS["name"]) and row["user"].endswith("Reply with the name only.")
    same = pd.concat(guess.cells(PROTOCOL, CHARACTERS.head(3)), ignore_index=True)
    assert same["user"].isna().sum() > 0  # without texts there is no prompt, and the same cell
    both = cells[[*IDENTITY, *HASHES]].merge(same[[*IDENTITY, *HASHES]])
    assert len(both) == len(cells) == len(same)


def test_names_and_places_are_masked_and_sentences_stay_readable() -> None:
    said = guess.masked(
        "[Top 5 Things]\n- Paris and Rome\nI'm with Amy at the Empire Hotel. We eat on Monday.",
        ["Amy"],
        proper=True,
    )
    assert said == "[Top 5 Things]\n- Paris and [name]\nI'm with [name] at the [name]. We eat on Monday."
    assert guess.masked("Middle Class, Western Europe", ["Amy"], proper=False) == "Middle Class, Western Europe"


def test_a_scale_counted_down_is_the_same_question_turned_round() -> None:
    for row in QUESTIONS.to_dict("records"):
        shown = [row[scale].partition("? ")[2] for scale in ("up", "down")]
        if row["options"] < 10:
            options = [re.findall(r"\d = (.*?)(?:, (?=\d)|\.$)", text) for text in shown]
            assert options[0] == options[1][::-1] and len(options[0]) == row["options"], row["item"]
        assert row["up"].partition("?")[0] == row["down"].partition("?")[0]
    assert {len(respondents.labels(n)) for n in (2, 3, 4, 10)} == {2, 3, 4, 10}


def test_the_banks_are_what_their_sources_give() -> None:
    at_hand(
        PROJECT, "spectrum-profiles", "deeppersona-our-responses.json", "deeppersona-opencharacter-responses.json"
    )
    names = CHARACTERS[["character", "name", "surname", "series"]]
    pd.testing.assert_frame_equal(guess.bank(PROJECT, names), CHARACTERS, check_dtype=False)
    people = respondents.respondents(PROJECT)
    pd.testing.assert_frame_equal(respondents.bank(PROJECT, PROTOCOL), people, check_dtype=False)
    said = respondents.texts(PROJECT, PROTOCOL).iloc[0]
    words = {kind: said[kind].removeprefix("About a person in Canada: ").split() for kind in respondents.PERSONAL}
    assert sorted(words["scrambled"]) == sorted(words["deep"]) and words["scrambled"] != words["deep"]
    assert words["deep"][: len(words["demographics"])] == words["demographics"]
    # No profile says the name that is asked for, and no sentence of a persona stands in a bank.
    texts = guess.texts(PROJECT, names)
    for row in texts.to_dict("records"):
        assert not any(f" {row['name']} " in f" {row[part]} " for part in ("S", "P", "C"))
    committed = "".join(path.read_text("utf-8") for path in (PROJECT.items / "persona_choice").glob("*.csv"))
    assert not any(text[:60] in committed for text in [*texts["open"], *texts["P"], said["deep"]])


# --- Guess-Who ----------------------------------------------------------------------------------------------------


def test_a_model_that_knows_characters_by_their_daily_life_is_found() -> None:
    answers = guessed(KNOWS, 1)
    table = judged(a=answers)
    for claim in ("own_character", "daily_life"):
        assert first_row(table, claim)["verdict"] == verdicts.REPRODUCED, claim
    # 45 characters cannot show that two contexts are alike.
    assert first_row(table, "daily_life_enough")["verdict"] == verdicts.INCONCLUSIVE
    scored = guess.scores(answers, CHARACTERS)
    shown = guess.contexts(scored, CHARACTERS, HOW).set_index("condition")
    assert shown.loc["SPC", "low"] < 0.85 < shown.loc["SPC", "high"]
    assert shown.loc["SPC", "chance"] == pytest.approx(1 / 45)
    assert shown.loc["SPC", "chance_show"] == pytest.approx(6 / 45)
    assert (shown["right_show"] >= shown["right"]).all()
    # Famous names win without the empty profile, and no more than by chance with it.
    assert shown.loc["SPC", "raw"] < shown.loc["SPC", "right"]
    assert guess.together(scored).loc[0, ["df", "n"]].tolist() == [6, 45]
    assert guess.together(scored).loc[0, "p"] < 0.001


def test_anothers_profile_is_that_of_the_next_of_the_series() -> None:
    scored = guess.scores(guessed(dict.fromkeys(guess.CONTEXTS, 1.0), 2), CHARACTERS)
    other = scored[scored["condition"] == guess.STRANGER].set_index("item")
    assert len(other) == 45 and not other["right"].any()
    assert other["chosen"].loc[[0, 6, 7, 44]].tolist() == [1, 0, 8, 40]
    assert set(other["chosen"]) == set(range(45))


def test_guessing_at_random_finds_nothing_and_says_so() -> None:
    for seed in range(4):
        found = analysed(guessed({}, seed))
        assert not found.tests.loc[found.tests["family"] == "guess", "rejected"].any()
        checks = found.gate.set_index("check")
        assert checks.loc["told", "passes"] and not checks.loc["above chance", "passes"]
    assert first_row(judged(a=guessed({}, 1)), "own_character")["verdict"] == verdicts.UNINFORMATIVE


def test_equal_contexts_differ_no_more_often_than_alpha() -> None:
    alike = dict.fromkeys(guess.CONTEXTS, 0.4)
    tested = [analysed(guessed(alike, seed)).tests.set_index("hypothesis") for seed in range(5)]
    own = [h for h in PROTOCOL.families["guess"].hypotheses if "another" not in h]
    false = sum(table.loc[own, "rejected"].any() for table in tested)
    # Binomial(5, .05): 3 or more have a probability of .001.
    assert false <= 2
    assert sum(table.loc["SPC - another's SPC | characters, share named", "rejected"] for table in tested) >= 4


def test_a_model_that_does_not_repeat_a_name_or_has_one_answer_fails_the_gate() -> None:
    deaf = analysed(guessed(KNOWS, 1, told=0.2)).gate.set_index("check")
    assert not deaf.loc["told", "passes"] and deaf.loc["above chance", "passes"]
    stuck = guessed(KNOWS, 1)
    mine = (stuck["condition"] == "SPC").to_numpy()
    stuck["logprob"] = [
        p + 9 * np.eye(45)[3] if is_spc else p for p, is_spc in zip(stuck["logprob"], mine, strict=True)
    ]
    checks = analysed(stuck).gate.set_index("check")
    assert checks.loc["one name", "value"] == 1 and not checks.loc["one name", "passes"]


def test_what_45_characters_can_show() -> None:
    table = guess.power(PROTOCOL, 45, HOW).set_index("level")
    assert table.loc[0.05, "discordant"] == 6 and table.loc[0.05 / 6, "discordant"] == 8
    assert (table["equivalence"] < 0.1).all()


# --- The survey ---------------------------------------------------------------------------------------------------


def test_deep_personas_that_answer_like_people_are_nearer() -> None:
    answers = surveyed({"country": 0.2, "deep": 0.9, "one_line": 0.4, "demographics": 0.5}, 1)
    table = judged(a=answers)
    for claim in ("deep_persona", "deep_over_line", "deep_in_order"):
        assert first_row(table, claim)["verdict"] == verdicts.REPRODUCED, claim
        assert first_row(table, claim)["high"] < 0
    found = analysed(answers)
    assert found.gate["passes"].all()
    shown = respondents.surveyed(respondents.scores(answers, QUESTIONS), PEOPLE).set_index("condition")
    assert shown.loc["deep", "KS"] < shown.loc["one_line", "KS"] < shown.loc["country", "KS"]
    assert shown.loc["deep", "personas"] == 20 and shown.loc["country", "personas"] == 1
    assert shown.loc["deep", "spread"] > 0


def test_personas_without_effect_are_no_nearer() -> None:
    false = 0
    for seed in range(5):
        found = analysed(surveyed({"country": 0.6}, seed)).tests
        mine = found[found["family"] == "survey_methods"].set_index("hypothesis")
        false += bool(mine.drop(index=[h for h in mine.index if "country" in h])["rejected"].any())
        assert (mine["estimate"].abs() < 0.1).all()
    # Three tests of a family of five: at most .03 a draw; 3 of 5 have a probability of .0003.
    assert false <= 2


def test_people_themselves_are_not_told_from_people() -> None:
    found = analysed(surveyed(dict.fromkeys(["country", *respondents.PERSONAL], 1.0), 3, noise=0.1)).tests
    assert not found.loc[found["family"] == "survey_items", "rejected"].any()
    far = analysed(surveyed({"country": 0.0}, 3)).tests
    assert far.loc[far["family"] == "survey_items", "rejected"].all()


def test_answers_by_label_fail_the_gate_and_cancel() -> None:
    by_label = analysed(surveyed({"country": 0.5}, 1, by_label=0.95)).gate.set_index("check")
    assert not by_label.loc["same side", "passes"]
    deaf = analysed(surveyed({"country": 0.5}, 1, control=0.0))
    assert deaf.gate["passes"].all() and not deaf.moves["passes"].any() and deaf.stuck["survey_items"]
    assert (
        first_row(judged(a=surveyed({"country": 0.2, "deep": 0.9}, 1, by_label=0.95)), "deep_persona")["verdict"]
        == verdicts.UNINFORMATIVE
    )


def test_distances_and_floors_of_the_survey() -> None:
    assert sum(map(len, PEOPLE.values())) == 3 + 4 + 2 + 10 + 3 + 4
    assert PEOPLE["Q254"][0] == pytest.approx(2001 / (4018 - 91))
    table = respondents.floors(PEOPLE, 20, HOW).set_index("answers")
    drawn = table.loc["20 people drawn at random"]
    assert 0.05 < drawn["KS"] < 0.15 and drawn["KS"] < drawn["KS_95"] < 0.2
    assert table.loc["every option alike", "KS"] > drawn["KS_95"]
    # Against scipy's distances of the answers themselves.
    one, other = np.array([1, 1, 2, 4]), np.array([1, 3, 4, 4])
    shares = [np.array([(each == k).mean() for k in range(1, 5)]) for each in (one, other)]
    from scipy.stats import ks_2samp, wasserstein_distance

    found = respondents.apart(*shares)
    assert found["KS"] == pytest.approx(ks_2samp(one, other).statistic)
    assert found["Wasserstein"] == pytest.approx(wasserstein_distance(one, other) / 3)


# --- Several models, and parts that are not recorded --------------------------------------------------------------


def test_what_is_not_recorded_waits_and_says_for_what() -> None:
    table = judged(a=guessed(KNOWS, 1))
    assert first_row(table, "deep_persona")["why"] == "not recorded yet: survey"
    assert first_row(table, "own_profile")["why"] == "not recorded yet: letter"
    assert first_row(table, "own_character")["model"] == "a"
    nobody = analysis.judged(PROTOCOL, {}, {}, layer="corrected")
    assert first_row(nobody, "deep_persona")["why"] == "no model is recorded"
    assert set(nobody["claim"]) == set(PROTOCOL.claims)


def test_the_first_model_decides_and_an_opposite_one_makes_a_claim_heterogeneous() -> None:
    near, far = {"country": 0.2, "deep": 0.9}, {"country": 0.9, "deep": 0.2}
    table = judged(a=surveyed(near, 1), b=surveyed(far, 2))
    rows = table[table["claim"] == "deep_persona"]
    assert rows["model"].tolist() == ["a", "b"]
    assert rows["verdict"].tolist() == [verdicts.HETEROGENEOUS, verdicts.CONTRADICTED]
    # A model whose gate failed makes nothing heterogeneous, and does not decide where another passed.
    passed, failed = surveyed(near, 1), surveyed(far, 2, by_label=0.95)
    for table in (judged(a=passed, b=failed), judged(b=failed, a=passed)):
        assert first_row(table, "deep_persona")[["model", "verdict"]].tolist() == ["a", verdicts.REPRODUCED]


def test_models_stand_side_by_side() -> None:
    everyone = {
        "a": analysed(pd.concat([guessed(KNOWS, 1), recorded(by_share({"none": 0.5, "full": 0.7}, 3))])),
        "b": analysed(guessed(KNOWS, 2)),
    }
    table = live.over_models(PROTOCOL, everyone, HOW)
    rows = table[table["claim"] == "own_character"]
    assert rows["model"].tolist() == ["a", "b", "random effects"] and rows["n"].tolist() == [45, 45, 2]
    assert table.loc[table["claim"] == "profile", "model"].tolist() == ["a"]
    # Shares of pairs and of characters have an axis each, and conditions their names for readers.
    drawn = figures.models(PROTOCOL, table, 0.05)
    shown = [axis.get_xlabel() for axis in drawn.axes]
    assert sorted(shown) == sorted(figures.OUTCOMES[name] for name in ("share right", "share named"))
    said = [label.get_text() for axis in drawn.axes for label in axis.get_yticklabels()]
    assert "whole profile less nothing, a" in said and len(said) == len(table)
    assert "deep_persona" not in set(table["claim"])
