from pathlib import Path

import pytest

from persona_studies.design import protocol
from persona_studies.errors import ProtocolError, ResponsesError
from tests.kit.protocols import GOOD

EACH = """[families.part]
each = ["a", "b"]
purpose = "{each}: which"
size = 1
hypotheses = ["h"]
"""


TYPED = """[families.typed]
purpose = "contrasts"
size = 2
defaults = { on = "all", measure = "agree", outcome = "accuracy", direction = "either", smallest_effect = 0.05 }
hypotheses = [
  { first = "expert", second = "none" },
  { first = "expert", second = "none", within = "hard", interaction = "easy", direction = "positive" },
]

[claims.typed]
statement = "Experts do not gain."
source = "A"
published = "none"
family = "typed"
hypothesis = "expert - none | all, accuracy"
direction = "not positive"
smallest_effect = 0.05

"""
DATED = """[confirmatory]
declared = 2026-11-30
measure = "agree"
alpha = 0.05
sizes = { questions = 300 }
cells = { agree = 1200 }

[[amendments]]
date = 2026-11-30
known = "nothing"
changed = "the first"

[[amendments]]
date = 2026-12-01
commit = "59a5167"
known = "verdicts"
changed = "more questions"

"""


def written(folder: Path, text: str) -> Path:
    path = folder / "toy.toml"
    path.write_text(text, "utf-8")
    return path


def test_a_good_protocol(tmp_path: Path) -> None:
    declared = protocol.load(written(tmp_path, GOOD))
    agree = declared.measures["agree"]
    assert agree.frame()["template"].tolist() == ["plain", "think"]
    assert agree.frame("asserted")["user"].tolist() == ["I think that {text}."]
    assert (agree.orders, agree.labels, agree.gate) == (1, (), {"min_option_mass": 0.05})
    assert declared.claims["rises"].direction == "positive"
    row = declared.family_table().iloc[0]
    assert (row["family"], row["size"], row["sides"], row["undefined"]) == ("main", 2, 2, "counts as p = 1")


def test_a_family_for_each_of_several_parts(tmp_path: Path) -> None:
    text = GOOD.replace("[claims.rises]", EACH + "\n[claims.rises]", 1)
    families = protocol.load(written(tmp_path, text)).families
    assert list(families) == ["main", "part_a", "part_b"]
    assert (families["part_b"].purpose, families["part_b"].hypotheses) == ("b: which", ("h",))


@pytest.mark.parametrize("each", ["[]", '["a", "a"]', '"a"'])
def test_each_lists_different_names(tmp_path: Path, each: str) -> None:
    text = GOOD.replace("[claims.rises]", EACH.replace('["a", "b"]', each) + "\n[claims.rises]", 1)
    with pytest.raises(ProtocolError, match=r"families\.part\.each is .*different names"):
        protocol.load(written(tmp_path, text))


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("version = 1", "version = 1\nstoping_rule = 'x'", "stoping_rule: Extra inputs"),
        ("version = 1\n", "", "version: Field required"),
        ('kind = "cloze"', 'kind = "closed"', "measures.agree.kind: "),
        ('role = "none"', 'role = "nobody"', "conditions.none.role: "),
        ("min_option_mass = 0.05", "min_option_mass = 'much'", "measures.agree.gate.min_option_mass: "),
        ("size = 2", "size = 3", "families.main: Value error, size is 3 but 2 different hypotheses are named"),
        (
            '"level and self-report"]',
            '"level and agreement"]',
            "families.main: Value error, size is 2 but 1 different hypotheses are named",
        ),
        (
            'hypothesis = "level and agreement"',
            'hypothesis = "level and warmth"',
            "claim rises names hypothesis 'level and warmth', which main lacks",
        ),
        ('family = "main"', 'family = "other"', "claim rises names family 'other', which is not declared"),
        (
            'not_testable = "not public"',
            "",
            "claims.elsewhere: Value error, a claim names either its hypothesis or why",
        ),
        (
            "smallest_effect = 0.1",
            'not_testable = "never"',
            "claims.rises: Value error, a claim names either its hypothesis or why",
        ),
        ("version = 1", "version = ", "toy.toml is not valid TOML: "),
    ],
)
def test_a_broken_protocol_is_refused_with_the_place(tmp_path: Path, old: str, new: str, place: str) -> None:
    assert GOOD.count(old) >= 1
    with pytest.raises(ProtocolError) as caught:
        protocol.load(written(tmp_path, GOOD.replace(old, new, 1)))
    assert caught.value.exit_code == 2
    assert "toy.toml" in str(caught.value)
    assert place in str(caught.value)


def added(text: str) -> str:
    return GOOD.replace("[claims.rises]", text + "[claims.rises]", 1)


def test_hypotheses_that_are_declared_part_by_part(tmp_path: Path) -> None:
    declared = protocol.load(written(tmp_path, added(TYPED)))
    family = declared.families["typed"]
    assert family.hypotheses == ("expert - none | all, accuracy", "expert - none | all, hard - easy, accuracy")
    whole, interaction = (family.contrasts[name] for name in family.hypotheses)
    assert (whole.first, whole.second, whole.on, whole.direction, whole.within) == (
        "expert",
        "none",
        "all",
        "either",
        None,
    )
    assert (interaction.direction, interaction.within, interaction.interaction) == ("positive", "hard", "easy")
    assert declared.families["main"].contrasts == {}


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("size = 2", "size = 3", "size is 3 but 2 different hypotheses are named"),
        ('{ first = "expert", second = "none" },', '"expert - none",', "hypotheses are all names or all tables"),
        (', second = "none" }', " }", "second"),
        ('within = "hard", ', "", "an interaction names two different parts"),
        ('within = "hard"', 'within = "easy"', "an interaction names two different parts"),
        ('"positive" }', '"upwards" }', "direction"),
        ("smallest_effect = 0.05 }", "smallest_effect = 0.0 }", "smallest_effect"),
        ("smallest_effect = 0.05 }", "smallest_effect = inf }", "smallest_effect"),
        (
            "smallest_effect = 0.05\n",
            "smallest_effect = 0.1\n",
            "claim typed has smallest_effect 0.1, its hypothesis 0.05",
        ),
        ("all, accuracy", "some, accuracy", "which typed lacks"),
    ],
)
def test_a_broken_hypothesis_is_refused_with_the_place(tmp_path: Path, old: str, new: str, place: str) -> None:
    assert old in TYPED
    with pytest.raises(ProtocolError, match="typed") as caught:
        protocol.load(written(tmp_path, added(TYPED.replace(old, new, 1))))
    assert place in str(caught.value)


def test_what_hypotheses_have_in_common_may_name_the_part(tmp_path: Path) -> None:
    text = TYPED.replace("[families.typed]", '[families.typed]\neach = ["a", "b"]', 1).replace(
        'on = "all"', 'on = "{each}"'
    )
    families = protocol.load(written(tmp_path, added(text[: text.index("[claims")]))).families
    assert families["typed_b"].hypotheses[0] == "expert - none | b, accuracy"
    with pytest.raises(ProtocolError, match=r"typed_a"):
        broken = text[: text.index("[claims")].replace("defaults = {", 'defaults = "all" # {')
        protocol.load(written(tmp_path, added(broken)))


def test_the_confirmatory_run_and_the_log_of_amendments(tmp_path: Path) -> None:
    declared = protocol.load(written(tmp_path, added(DATED)))
    assert declared.confirmatory is not None
    assert (declared.confirmatory.sizes, declared.confirmatory.cells) == ({"questions": 300}, {"agree": 1200})
    assert [amendment.changed for amendment in declared.amendments] == ["the first", "more questions"]
    assert protocol.load(written(tmp_path, GOOD)).confirmatory is None


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("2026-12-01", "2026-11-01", "amendments stand in the order of their dates"),
        ("2026-12-01", '"soon"', "amendments.1.date"),
        ('measure = "agree"', 'measure = "letter"', "confirmatory names measure 'letter', which is not declared"),
        ("agree = 1200", "letter = 1200", "confirmatory names measure 'letter', which is not declared"),
        ("questions = 300", "questions = 0", "confirmatory.sizes.questions"),
        ("alpha = 0.05", "alpha = 5.0", "confirmatory.alpha"),
    ],
)
def test_a_broken_declaration_of_the_run_is_refused(tmp_path: Path, old: str, new: str, place: str) -> None:
    assert old in DATED
    with pytest.raises(ProtocolError) as caught:
        protocol.load(written(tmp_path, added(DATED.replace(old, new, 1))))
    assert place in str(caught.value)


def test_a_claim_may_need_several_hypotheses(tmp_path: Path) -> None:
    first = 'hypothesis = "level and agreement"\n'
    found = protocol.load(written(tmp_path, GOOD.replace(first, f'{first}also = ["level and self-report"]\n')))
    assert found.claims["rises"].also == ("level and self-report",)


@pytest.mark.parametrize("also", ["level and weight", "level and agreement"])
def test_a_further_hypothesis_is_declared_and_another_one(tmp_path: Path, also: str) -> None:
    first = 'hypothesis = "level and agreement"\n'
    with pytest.raises(ProtocolError, match=r"(?s)rises.*(lacks|each once)"):
        protocol.load(written(tmp_path, GOOD.replace(first, f'{first}also = ["{also}"]\n')))


def test_a_byte_order_mark_and_other_line_ends_change_nothing(tmp_path: Path) -> None:
    windows = written(tmp_path, "\ufeff" + GOOD.replace("\n", "\r\n"))
    assert protocol.load(windows) == protocol.load(written(tmp_path, GOOD))


@pytest.mark.parametrize("gate", ["option_mass = 0.05", "min_option_mass = nan", "min_option_mass = inf"])
def test_a_threshold_is_a_finite_least_or_most(tmp_path: Path, gate: str) -> None:
    with pytest.raises(ProtocolError, match=r"measures\.agree\.gate"):
        protocol.load(written(tmp_path, GOOD.replace("min_option_mass = 0.05", gate)))


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    broken = GOOD.replace('kind = "cloze"', 'kind = "closed"').replace("size = 2", "size = 3")
    with pytest.raises(ProtocolError, match=r"(?s)measures\.agree\.kind.*families\.main"):
        protocol.load(written(tmp_path, broken))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "toy.toml"
    path.write_bytes(b'study = "\xff"')
    with pytest.raises(ProtocolError, match=r"toy\.toml is not in UTF-8 .*; save it again as UTF-8"):
        protocol.load(path)


def test_a_missing_protocol_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match=r"No protocol .*/toy\.toml") as caught:
        protocol.load(tmp_path / "toy.toml")
    assert caught.value.exit_code == 2


def test_tolerances(tmp_path: Path) -> None:
    assert protocol.tolerances(written(tmp_path, GOOD)) == {"default": 1e-9, "correlations.r": 1e-6}
    assert protocol.tolerances(written(tmp_path, 'study = "toy"')) == {}


def test_the_primary_measure_is_the_first_that_is_recorded(tmp_path: Path) -> None:
    text = GOOD.replace("version = 1", 'version = 1\nprimary = ["letter", "cloze", "text"]', 1)
    declared = protocol.load(written(tmp_path, text))
    assert declared.primary_measure({"text", "cloze"}) == "cloze"
    assert declared.primary_measure({"text", "letter", "cloze"}) == "letter"
    with pytest.raises(ResponsesError, match=r"letter, cloze, text.*--measures letter"):
        declared.primary_measure({"code"})
