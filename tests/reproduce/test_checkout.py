"""Where a checkout lies, whose it is and how it came there: its commit is its own, or there is none."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from persona_studies.errors import PersonaStudiesError
from persona_studies.paths import Project
from persona_studies.reproduce import checkout

ROOT = Path(__file__).parents[2]


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def repository(folder: Path) -> Path:
    """Make a repository with one commit around what is in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "all", "--allow-empty")
    return folder


def project(folder: Path) -> Project:
    (folder / "studies").mkdir(parents=True)
    (folder / "studies" / "größer.txt").write_text("a\n")
    (folder / "pyproject.toml").write_text("")
    return Project(folder)


@pytest.mark.parametrize("name", ["plain", "My Dokumente", "größer", "Ada's", "a&b;c", 'quoted"'])
def test_a_checkout_may_lie_anywhere(name: str, tmp_path: Path) -> None:
    made = project(tmp_path / name)
    repository(made.root)
    found = checkout.commit(made)
    assert found is not None and found.id == git(made.root, "rev-parse", "HEAD") and found.changed == ()
    (made.root / "studies" / "größer.txt").write_text("b\n")
    found = checkout.commit(made)
    assert found is not None and found.changed == ("studies/größer.txt",)


def test_a_copy_inside_another_repository_has_no_commit(tmp_path: Path) -> None:
    made = project(repository(tmp_path / "thesis") / "persona-studies-main")
    assert checkout.commit(made) is None
    assert checkout.absence(made) == "this folder is not a git checkout"


def test_a_checkout_inside_another_repository_has_its_own(tmp_path: Path) -> None:
    made = project(repository(tmp_path / "thesis") / "persona-studies")
    repository(made.root)
    found = checkout.commit(made)
    assert found is not None and found.id == git(made.root, "rev-parse", "HEAD")


def test_a_hook_of_another_repository_does_not_lend_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = repository(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert checkout.commit(project(tmp_path / "copy")) is None


def test_a_checkout_of_another_user_has_no_commit_and_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = project(tmp_path / "Ada's")
    repository(made.root)
    # Git's own switch for its tests of this.
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert checkout.commit(made) is None
    said = checkout.absence(made)
    assert "belongs to another user" in said and f"safe.directory '{tmp_path}/Ada'\"'\"'s'" in said
    subprocess.run(shlex.split(said.partition("if you trust it: ")[2]), check=True)
    assert checkout.commit(made) is not None


def test_without_git_and_without_commits_the_reason_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = project(tmp_path / "new")
    git(made.root, "init", "-q")
    assert checkout.absence(made) == "this checkout has no commit yet"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert checkout.commit(made) is None and checkout.absence(made) == "git is not installed"


def test_files_keep_their_bytes_where_git_is_told_to_change_line_ends(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    (origin / ".gitattributes").write_bytes((ROOT / ".gitattributes").read_bytes())
    files = {
        "a.csv": b"a,b\n1,2\n",
        "b.svg": b"<svg>\n</svg>\n",
        "c.parquet": b"PAR1\n\r\nPAR1",
        "d.png": b"\x89PNG\r\n\n",
    }
    for name, content in files.items():
        (origin / name).write_bytes(content)
    repository(origin)
    for setting in ("core.autocrlf=true", "core.eol=crlf"):
        clone = tmp_path / setting
        git(tmp_path, "clone", "-q", "-c", setting, str(origin), str(clone))
        assert {name: (clone / name).read_bytes() for name in files} == files
        assert git(clone, "status", "--porcelain") == ""


def test_no_committed_text_has_other_line_ends() -> None:
    if checkout.absence(Project(ROOT)):
        pytest.skip("needs the history of git")
    lines = git(ROOT, "ls-files", "--eol").splitlines()
    assert lines and [line for line in lines if line.split()[0] in ("i/crlf", "i/mixed")] == []


def test_the_library_of_another_checkout_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = project(tmp_path / "My Dokumente")
    (made.root / "lib" / "persona_studies").mkdir(parents=True)
    for way in ("folder", "variable"):
        if way == "variable":
            monkeypatch.setenv("PERSONA_STUDIES_ROOT", str(made.root))
        with pytest.raises(
            PersonaStudiesError, match=r"The library that runs is .*, and .*Dokumente has its own"
        ) as caught:
            Project.find(made.root / "studies")
        assert f"--editable '{made.root}'`" in str(caught.value)


def test_the_library_of_this_checkout_serves_through_a_link_too(tmp_path: Path) -> None:
    made = project(tmp_path / "linked")
    (made.root / "lib").symlink_to(ROOT / "lib")
    assert Project.find(made.root) == Project(made.root.resolve())
