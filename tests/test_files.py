"""Files are hashed and written by one helper: a reader never sees a part of one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from persona_studies import files


def test_the_hash_of_several_files_is_that_of_one_after_the_other(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"a" * 3_000_000)
    two.write_bytes(b"b")
    assert files.sha256(one) == hashlib.sha256(b"a" * 3_000_000).hexdigest()
    assert files.sha256(one, two) == hashlib.sha256(b"a" * 3_000_000 + b"b").hexdigest()


@pytest.mark.parametrize("content", ["naïve\r\nlines\n", b"\xff\x00"])
def test_a_file_is_written_as_given(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "file.txt"
    path.write_text("before")
    files.write(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert [*tmp_path.iterdir()] == [path]


def test_an_interrupted_writer_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), files.replaced(path) as partial:
        partial.write_text("half")
        assert path.read_text() == "before" and partial.name == ".file.txt.partial"
        raise KeyboardInterrupt
    assert path.read_text() == "before" and [*tmp_path.iterdir()] == [path]


def test_writers_of_the_same_file_do_not_share_their_part(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with files.replaced(path, "one") as one, files.replaced(path, "two") as two:
        one.write_text("one")
        two.write_text("two")
    assert path.read_text() == "one" and [*tmp_path.iterdir()] == [path]
