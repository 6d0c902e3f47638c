"""A release holds exactly a commit's files, described and hashed, and comes out the same twice."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
import tomllib
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from persona_studies.ask import responses
from persona_studies.errors import PersonaStudiesError
from persona_studies.paths import Project
from persona_studies.publish import datasheets, release
from persona_studies.reproduce import checkout

Contents = dict[str, tuple[bytes, int]]
CANARY = f"sk-canary-{uuid4()}"
PROJECT = Project(Path(__file__).parents[2])
PROTOCOLS = sorted(PROJECT.studies.glob("*/protocol.toml"))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clean checkout of this commit."""
    if checkout.commit(PROJECT) is None:
        pytest.skip("not a git checkout")
    root = tmp_path_factory.mktemp("release") / "clone"
    subprocess.run(["git", "clone", "-q", "--depth", "1", PROJECT.root.as_uri(), str(root)], check=True)
    return Project(root)


@pytest.fixture(scope="module")
def built(clone: Project) -> Path:
    return release.build(clone, clone.root / "dist")


def contents(archive: Path) -> Contents:
    with tarfile.open(archive) as opened:
        found = {}
        for entry in opened:
            file = opened.extractfile(entry)
            assert file is not None and entry.uid == entry.gid == 0 and entry.uname == ""
            found[entry.name.partition("/")[2]] = (file.read(), entry.mode)
        return found


@pytest.fixture(scope="module")
def found(built: Path) -> Contents:
    return contents(built)


def test_the_archive_holds_the_tracked_files_and_nothing_else(clone: Project, found: Contents) -> None:
    listed = subprocess.run(
        ["git", "-C", str(clone.root), "ls-files", "-z"], capture_output=True, text=True, check=True
    )
    tracked = set(listed.stdout.split("\0")) - {""}
    assert set(found) == tracked | {"ro-crate-metadata.json", "SHA256SUMS"}
    for path in tracked:
        mine = clone.root / path
        assert found[path] == (mine.read_bytes(), 0o755 if mine.stat().st_mode & 0o100 else 0o644), path


def test_two_builds_are_the_same_bytes_without_a_key_of_the_builder(
    clone: Project, built: Path, found: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key stands in the environment, and in a file that git ignores."""
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    left = clone.recordings / "toy" / "toy" / "1-of-1.jsonl"
    left.parent.mkdir(parents=True)
    left.write_text(CANARY)
    again = release.build(clone, tmp_path)
    assert again.read_bytes() == built.read_bytes() and again.name == built.name
    assert "README.md" in found and not [path for path, (data, _) in found.items() if CANARY.encode() in data]
    digest = hashlib.sha256(built.read_bytes()).hexdigest()
    assert (built.parent / "SHA256SUMS").read_text() == f"{digest}  {built.name}\n"


def test_every_file_is_hashed_and_described(clone: Project, found: Contents, tmp_path: Path) -> None:
    from rocrate.rocrate import ROCrate

    lines = [line.split("  ") for line in found["SHA256SUMS"][0].decode().splitlines()]
    sums = {name: digest for digest, name in lines}
    assert sums == {p: hashlib.sha256(d).hexdigest() for p, (d, _) in found.items() if p != "SHA256SUMS"}
    # Of what was read: tarfile's safe extraction came with Python 3.11.4 only.
    for name, (data, _) in found.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    crate = ROCrate(tmp_path)
    described = {entity.id: entity for entity in crate.data_entities}
    assert set(described) == set(found) - {"ro-crate-metadata.json", "SHA256SUMS"}
    assert all(entity["sha256"] == sums[name] for name, entity in described.items())
    commit = checkout.commit(clone)
    assert commit is not None and crate.root_dataset["identifier"] == commit.id
    for study in clone.names():
        notebook = described[f"studies/{study}.ipynb"]
        assert notebook["citation"]["@type"] == "ScholarlyArticle"
        assert {entity.id for entity in notebook["isBasedOn"]} >= {f"studies/{study}/protocol.toml"}
        assert {entity.id for entity in notebook["hasPart"]} >= {f"data/results/{study}/verdicts.csv"}


def test_nothing_in_the_archive_names_a_place_of_this_machine(clone: Project, found: Contents) -> None:
    made = found["ro-crate-metadata.json"][0].decode()
    assert str(clone.root) not in made and str(PROJECT.root) not in made and "file:" not in made
    assert json.loads(made)["@context"]


def test_a_change_or_a_damaged_reference_is_refused(clone: Project, built: Path, tmp_path: Path) -> None:
    study = clone.names()[0]
    table = clone.results(study) / "verdicts.csv"
    whole = table.read_bytes()
    try:
        table.write_bytes(whole + b"\n")
        with pytest.raises(
            PersonaStudiesError, match=r"1 files differ from it, first data/results/.*verdicts\.csv"
        ):
            release.build(clone, tmp_path)
        git = ["git", "-C", str(clone.root), "-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run([*git, "commit", "-qam", "damage"], check=True)
        with pytest.raises(PersonaStudiesError, match=f"{study}: reference files differs"):
            release.build(clone, tmp_path)
    finally:
        table.write_bytes(whole)
    assert not list(tmp_path.iterdir())


def test_outside_a_checkout_there_is_no_release(tmp_path: Path) -> None:
    with pytest.raises(PersonaStudiesError, match="not a git checkout"):
        release.build(Project(tmp_path), tmp_path / "dist")


def test_every_paper_that_a_study_examines_is_cited() -> None:
    citation = yaml.safe_load((PROJECT.root / "CITATION.cff").read_text(encoding="utf-8"))
    cited = {reference["url"]: reference for reference in citation["references"]}
    for path in PROTOCOLS:
        paper = tomllib.loads(path.read_text(encoding="utf-8"))["paper"]
        reference = cited[paper["url"]]
        assert reference["year"] == paper["year"] and reference["title"].startswith(paper["title"].split(":")[0])
        assert reference["authors"] and reference["type"] in ("conference-paper", "report", "article")


def test_every_recording_has_its_datasheet() -> None:
    made = datasheets.recordings(PROJECT)
    records = [responses.description(path.parent) for path in PROJECT.data.glob("responses/*/*/record.json")]
    assert records and made.count("\n## ") + 1 == len(records)
    for record in records:
        assert record is not None
        for text in (record["model"]["model_hash"], f"{record['cells']:,}", record["model"]["schedule"]):
            assert text in made
        for name, file in record["files"].items():
            assert any(f"`{name}`" in line and f" {file['rows']:,} " in line for line in made.splitlines()), name


def test_every_item_bank_has_a_datasheet() -> None:
    said = (PROJECT.items / "README.md").read_text(encoding="utf-8")
    for path in PROJECT.items.glob("*/*.csv"):
        name = str(path.relative_to(PROJECT.items))
        assert f"`{name}`" in said or name.startswith("questions/"), name
    assert "`questions/*.csv`" in said
