"""README.md and studies/README.md say what the commands say and what the tables hold."""

import re
from pathlib import Path

import pandas as pd
import pytest

from persona_studies.analyse import verdicts
from persona_studies.paths import Project
from persona_studies.publish import readme, scoreboard

PROJECT = Project(Path(__file__).parents[1])


@pytest.fixture(scope="module")
def documents() -> dict[Path, dict[str, str]]:
    return readme.documents(PROJECT)


@pytest.mark.parametrize("name", ["README.md", "studies/README.md", "data/responses/README.md", "docs/serving.md"])
def test_generated_blocks_are_current(documents: dict[Path, dict[str, str]], name: str) -> None:
    path = PROJECT.root / name
    text, made = path.read_text(encoding="utf-8"), documents[path]
    assert {match[2] for match in readme.BLOCK.finditer(text)} == set(made)
    assert readme.render(text, made) == text, "run make readme"
    assert readme.render(text, dict.fromkeys(made, "other")) != text


def test_the_scoreboard_holds_every_verdict(documents: dict[Path, dict[str, str]]) -> None:
    board = scoreboard.load(PROJECT)
    made = documents[PROJECT.root / "README.md"]["scoreboard"]
    rows = [line for line in made.splitlines() if line.startswith("|")][2:]
    for study in PROJECT.names():
        committed = pd.read_csv(PROJECT.results(study) / "verdicts.csv")
        mine = board[board["study"] == study]
        assert mine["verdict"].tolist() == committed["verdict"].tolist()
        assert mine["claim"].tolist() == committed["claim"].tolist()
    assert len(rows) == len(board)
    for line, row in zip(rows, board.itertuples(), strict=True):
        assert row.statement in line and f"{row.sign} **{row.verdict}**" in line and row.here in line


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


@pytest.mark.parametrize("name", ["README.md", "studies/README.md", "docs/recording.md", "docs/serving.md"])
def test_links_lead_somewhere(name: str) -> None:
    path = PROJECT.root / name
    targets = re.findall(r"\]\((?!https?://)([^)]+)\)", path.read_text(encoding="utf-8"))
    assert targets
    for target in targets:
        file, _, anchor = target.partition("#")
        led = path.parent / file if file else path
        assert led.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", led.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, target
