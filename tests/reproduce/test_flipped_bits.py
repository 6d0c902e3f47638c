"""A bit flipped in any kind of committed file is found and the file is named, or nothing that is read changes."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from persona_studies.ask import registry, responses
from persona_studies.design import protocol, sources
from persona_studies.errors import PersonaStudiesError
from persona_studies.paths import Project
from persona_studies.publish import hub
from persona_studies.reproduce import notebooks, verify
from tests.conftest import build
from tests.kit.grids import small_plan
from tests.kit.registers import ENTRY, PINS, register

pytestmark = pytest.mark.attack

ROOT = Path(__file__).parents[2]
BANK = "item,text\none,Tea is warm.\ntwo,Cats purr.\n"


def table(project: Project) -> Any:
    return pd.read_csv(project.results("toy") / "result.csv").to_dict()


def notebook(project: Project) -> Any:
    read = notebooks.read(project.notebook("toy"))
    return notebooks.sources(read), [cell.get("outputs") for cell in read.cells]


# A committed file, what a message calls it, and what is read from it.
KINDS: dict[str, tuple[str, str, Callable[[Project], Any]]] = {
    "table": ("data/results/toy/result.csv", "result.csv", table),
    "drawing": ("figures/toy/plot.svg", "plot.svg", lambda p: (p.figures("toy") / "plot.svg").read_bytes()),
    "picture": ("figures/toy/plot.png", "plot.png", lambda p: (p.figures("toy") / "plot.png").read_bytes()),
    "notebook": ("studies/toy.ipynb", "notebook", notebook),
    "protocol": ("studies/toy/protocol.toml", "toy.toml", lambda p: protocol.tolerances(p.protocol("toy"))),
    "module": ("studies/toy/design.py", "code", lambda p: p.design("toy").read_bytes()),
    "manifest": ("data/results/toy/manifest.json", "reference files", lambda p: verify._manifest(p, "toy")),
    "responses": (
        "data/responses/toy/simulated/score.parquet",
        "score.parquet",
        lambda p: responses.load(p, "toy", "simulated", small_plan(2)).astype(str).to_dict(),
    ),
    "record": (
        "data/responses/toy/simulated/record.json",
        "record.json",
        lambda p: responses.description(p.responses("toy", "simulated")),
    ),
    "sources": ("data/sources.toml", "data", sources.load),
    "recordings": ("data/recordings.toml", "recordings.toml", hub.register),
    "models": ("data/models.toml", "data", registry.load),
    "bank": ("data/items/bank.csv", "data", lambda p: (p.items / "bank.csv").read_bytes()),
    "published": ("data/published/table.csv", "data", lambda p: (p.published / "table.csv").read_bytes()),
    "lock": ("uv.lock", "lock", lambda p: (p.root / "uv.lock").read_bytes()),
}
# Files whose text is anybody's: a hash or an address in them is compared with the file that it is of, when that is
# fetched.
BY_WHAT_THEY_NAME = {"recordings"}


@pytest.fixture
def whole(accepted: Project) -> Project:
    """A project with every kind of committed file, accepted and built."""
    register(accepted.root, ENTRY)
    (accepted.data / "recordings.toml").write_text(PINS)
    (accepted.data / "models.toml").write_bytes((ROOT / "data" / "models.toml").read_bytes())
    (accepted.items / "bank.csv").write_text(BANK)
    (accepted.published / "table.csv").write_text(BANK)
    build(accepted)
    verify.accept(accepted, "toy", confirm=lambda _: True)
    build(accepted)
    assert verify.verify(accepted, ["toy"]).ok
    return accepted


def found(project: Project, read: Callable[[Project], Any]) -> tuple[str, Any]:
    """Return what is said of a project, and what is read from the file."""
    said, value = [], None
    try:
        report = verify.verify(project, ["toy"])
        said += [] if report.ok else report.lines()
    except PersonaStudiesError as error:
        said.append(str(error))
    try:
        value = read(project)
    except (PersonaStudiesError, ValueError) as error:  # pandas and decoding, which `verify` has reported before
        said.append(str(error) if isinstance(error, PersonaStudiesError) else "")
    return "\n".join(said), value


@pytest.mark.parametrize("flips", [12, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_named_or_harmless(whole: Project, kind: str, flips: int) -> None:
    name, called, read = KINDS[kind]
    path = whole.root / name
    sound = path.read_bytes()
    nothing, value = found(whole, read)
    assert nothing == ""
    rng, named = random.Random(f"{kind} {flips}"), 0
    for _ in range(flips):
        place, bit = rng.randrange(len(sound)), rng.randrange(8)
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 1 << bit]) + sound[place + 1 :])
        said, now = found(whole, read)
        assert said or now == value or kind in BY_WHAT_THEY_NAME, f"bit {bit} of byte {place} went unnoticed"
        assert not said or called in said or Path(name).name in said, said
        named += bool(said)
    path.write_bytes(sound)
    assert named > flips * (0.3 if kind in BY_WHAT_THEY_NAME else 0.9)
    assert found(whole, read) == ("", value)


@pytest.mark.parametrize("flips", [6, pytest.param(300, marks=pytest.mark.slow)])
def test_a_flipped_bit_in_a_committed_recording(tmp_path: Path, flips: int) -> None:
    """The smallest real file of every study, read with the hash in record.json, as a notebook reads it."""
    rng = random.Random(flips)
    for record in sorted(ROOT.glob("data/responses/*/*/record.json")):
        files = (responses.description(record.parent) or {})["files"]
        file = min((record.parent / name for name in files), key=lambda path: path.stat().st_size)
        sound, sha256 = file.read_bytes(), files[file.name]["sha256"]
        truth = responses.read_parquet(file, sha256).astype(str)
        for _ in range(flips):
            place = rng.randrange(len(sound))
            (tmp_path / file.name).write_bytes(
                sound[:place] + bytes([sound[place] ^ 1 << rng.randrange(8)]) + sound[place + 1 :]
            )
            try:
                read = responses.read_parquet(tmp_path / file.name, sha256)
            except PersonaStudiesError as error:
                assert file.name in str(error) and "git checkout" in str(error)
                continue
            pd.testing.assert_frame_equal(read.astype(str), truth)
