"""README.md and studies/README.md say what the commands say and what the tables hold."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from persona_studies.analyse import tables, verdicts
from persona_studies.paths import Project
from persona_studies.publish import readme, scoreboard, strip

PROJECT = Project(Path(__file__).parents[2])


@pytest.fixture(scope="module")
def documents() -> dict[Path, dict[str, str]]:
    return readme.documents(PROJECT)


GENERATED = ("README.md", "docs/scoreboard.md", "docs/commands.md", "docs/serving.md")


@pytest.mark.parametrize("name", [*GENERATED, "studies/README.md", "data/responses/README.md"])
def test_generated_blocks_are_current(documents: dict[Path, dict[str, str]], name: str) -> None:
    path = PROJECT.root / name
    text, made = path.read_text(encoding="utf-8"), documents[path]
    assert {match[2] for match in readme.BLOCK.finditer(text)} == set(made)
    assert readme.render(text, made) == text, "run make readme"
    assert readme.render(text, dict.fromkeys(made, "other")) != text


def test_documents_that_are_generated_whole_are_current() -> None:
    made = readme.whole(PROJECT)
    assert {path.name for path in made} == {"scoreboard.svg", "how_to_read_a_verdict.md"}
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run make readme"


def test_readme_is_short() -> None:
    assert len((PROJECT.root / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_the_scoreboard_lists_every_claim_once(documents: dict[Path, dict[str, str]]) -> None:
    board = scoreboard.board(PROJECT)
    made = documents[PROJECT.root / "docs" / "scoreboard.md"]["scoreboard"]
    assert {part.study for part in board.parts} == set(PROJECT.names())
    for part in board.parts:
        committed = pd.read_csv(PROJECT.results(part.study) / "verdicts.csv")
        assert sorted(row.claim for row in part.all) == sorted(set(committed["claim"]))
        decides = committed.sort_values("layer", kind="stable").drop_duplicates("claim").set_index("claim")
        for row in part.all:
            assert (row.verdict, row.layer) == tuple(decides.loc[row.claim, ["verdict", "layer"]])
            starts = (f"| {row.statement} ", f"- {row.statement} ")
            (line,) = [line for line in made.splitlines() if line.startswith(starts)]
            assert row.why in line and (row.verdict == verdicts.NOT_TESTABLE or f"**{row.verdict}**" in line)
            assert all(number.text in line for number in row.numbers.values() if row in part.rows)


def test_what_the_front_page_says_adds_up(documents: dict[Path, dict[str, str]]) -> None:
    board = scoreboard.board(PROJECT)
    counts, said = board.counts(), board.sentences()
    rows = [row for part in board.parts for row in part.all]
    papers, own = ([int(n) for n in re.findall(r"\d+", sentence)] for sentence in said)
    assert papers[0] == sum(papers[1:]) and own[0] == sum(own[1:]) == sum(row.ours for row in rows) > 0
    assert papers[0] + own[0] == len(rows) == sum(counts.values())
    for sentence in said:
        assert sentence in documents[PROJECT.root / "README.md"]["scoreboard"]
    picture = strip.draw(board)
    assert picture.count("<use ") == len(rows) + sum(n > 0 for n in counts.values())
    assert f"{own[0]} questions of our own" in picture


def test_the_clearest_findings_are_differences_by_the_rule_that_the_pages_say(
    documents: dict[Path, dict[str, str]],
) -> None:
    board = scoreboard.board(PROJECT)
    for _, row in board.clearest():
        assert row is None or (row.different and not row.ours)
    base = next(
        row for part in board.parts for row in part.rows if row.verdict == verdicts.REPRODUCED and not row.ours
    )
    nothing = replace(base, claim="nothing", clarity=9.0, different=False)
    small = replace(base, claim="small", clarity=9.0, different=True, small="shown to be smaller than 0.05")
    clear = (replace(base, claim=f"{k}", clarity=k, different=True, small="") for k in (1.0, 3.0, 2.0))
    made = scoreboard.Board((), (scoreboard.Part("study", "title", (nothing, small, *clear), ()),))
    assert [row and row.claim for _, row in made.clearest()] == [None, "3.0"]
    assert small.result.endswith(" The difference is shown to be smaller than 0.05.")
    for name in ("README.md", "docs/scoreboard.md"):
        assert scoreboard.CLEAREST in documents[PROJECT.root / name]["scoreboard"]


def test_a_significant_difference_that_is_too_small_to_matter_says_so(
    documents: dict[Path, dict[str, str]],
) -> None:
    loaded = scoreboard.load(PROJECT)
    mine = loaded[(loaded["study"] == "persona_bias") & loaded["claim"].isin(["disability", "gender"])]
    # Behind a failed check nothing is shown, and no difference that was denied is called small besides.
    said = dict(zip(zip(mine["claim"], mine["verdict"], strict=True), mine["small"], strict=True))
    assert {key for key, small in said.items() if small} == {("disability", verdicts.REPRODUCED)} < set(said)
    (line,) = (
        text
        for text in documents[PROJECT.root / "docs" / "scoreboard.md"]["scoreboard"].splitlines()
        if text.startswith("| A physically-disabled person answers worse than a human. ")
    )
    assert "**reproduced** (shown to be smaller than 0.05, the smallest effect of interest)" in line


@pytest.fixture(scope="module")
def judged() -> pd.DataFrame:
    """The committed verdicts of every study."""
    return pd.concat(tables.load(PROJECT.results(study) / "verdicts.csv") for study in PROJECT.names())


def test_a_reason_has_eight_words_at_most(judged: pd.DataFrame) -> None:
    words = judged["why"].str.split().str.len()
    assert words.min() > 0 and words.max() <= 8, judged.loc[words > 8, "why"].to_string()


def test_every_inconclusive_row_says_what_would_decide_it_and_no_other_does(judged: pd.DataFrame) -> None:
    open_ = judged["verdict"] == verdicts.INCONCLUSIVE
    says = judged["would_decide"].fillna("").str.fullmatch(r"([\d,]+|no number of) [a-z ]+")
    assert open_.sum() > 10 and says.equals(open_), judged[says != open_].to_string()


def test_every_verdict_has_a_sign_of_its_own_and_a_meaning() -> None:
    words = {value for name, value in vars(verdicts).items() if name.isupper() and isinstance(value, str)}
    assert set(verdicts.SIGNS) == set(verdicts.MEANINGS) == words
    assert len(set(verdicts.SIGNS.values())) == len(words)


def test_every_artifact_is_listed_with_its_cell() -> None:
    listed = re.findall(
        r"\(\.\./(data/results/[\w/]+\.csv|figures/[\w/]+\.svg)\) *\| *\d+ *\|",
        (PROJECT.studies / "README.md").read_text(),
    )
    for study in PROJECT.names():
        present = [*PROJECT.results(study).glob("*.csv"), *PROJECT.figures(study).glob("*.svg")]
        assert {path.relative_to(PROJECT.root).as_posix() for path in present} <= set(listed)


DOCS = [f"docs/{path.name}" for path in (PROJECT.root / "docs").glob("*.md")]


@pytest.mark.parametrize("name", ["README.md", "studies/README.md", *DOCS])
def test_links_lead_somewhere(name: str) -> None:
    path = PROJECT.root / name
    targets = re.findall(r"\]\((?!https?://)([^)]+)\)", path.read_text(encoding="utf-8"))
    for target in targets:
        file, _, anchor = target.partition("#")
        led = path.parent / file if file else path
        assert led.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", led.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, target
