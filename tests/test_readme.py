"""README.md says what the commands say and what the tables hold."""

import re
from pathlib import Path

from persona_studies import readme
from persona_studies.paths import Project

PROJECT = Project(Path(__file__).parents[1])
TEXT = (PROJECT.root / "README.md").read_text(encoding="utf-8")


def test_generated_blocks_are_current() -> None:
    made = readme.blocks(PROJECT)
    named = {match[2] for match in readme.BLOCK.finditer(TEXT)}
    assert named == set(made)
    assert readme.render(TEXT, made) == TEXT, "run make readme"


def test_every_artifact_is_listed_with_its_cell() -> None:
    for study in PROJECT.names():
        listed = set(re.findall(r"\((data/results/[\w/]+\.csv|figures/[\w/]+\.svg)\)", TEXT))
        present = [*PROJECT.results(study).glob("*.csv"), *PROJECT.figures(study).glob("*.svg")]
        assert {path.relative_to(PROJECT.root).as_posix() for path in present} <= listed


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)]+)\)", TEXT):
        assert (PROJECT.root / target).exists(), target


def test_a_stale_block_is_noticed() -> None:
    made = dict.fromkeys(readme.blocks(PROJECT), "other")
    assert readme.render(TEXT, made) != TEXT
