"""GGUF files that are none, in part, or not of a model that can be asked; made up by this file."""

from __future__ import annotations

import hashlib
import struct
import sys
from pathlib import Path

import pytest

from persona_studies import files
from persona_studies.ask import model_files, models
from persona_studies.errors import BackendError
from persona_studies.paths import Project
from tests.kit.gguf import MODEL, gguf

PROJECT = Project(Path(__file__).parents[2])


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_whole_file_is_taken_with_its_own_hash(tmp_path: Path) -> None:
    path = write(tmp_path / "My model.gguf", gguf(MODEL))
    assert model_files.files(path) == [path]
    assert files.sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    found = model_files.header(path)
    assert (found.tensors, found.size, found.facts) == (2, len(gguf(MODEL)), MODEL)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty; fetch"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 4\n", "Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"PK\x03\x04", "pickle of PyTorch"),
        (b"\x80\x02\x8a", "pickle of PyTorch"),
        (struct.pack("<Q", 90) + b'{"__metadata__":{}}', "safetensors file; name its folder: hf:FOLDER"),
        (b"tjgg" + bytes(40), "before GGUF"),
        (b"not a model\x1b[31m", r"it begins with 'not a model"),
        (b"GGUF", "ends within its header"),
        (b"GGUF" + bytes(100), "ends within its header"),
        (b"GGUF" + b"\xff" * 1000, "ends within its header"),
        (gguf(MODEL, 0), "a vocabulary only"),
        (gguf(MODEL | {"general.type": "mmproj"}), r"reads images \(mmproj\)"),
        (gguf({"general.architecture": "clip"}), r"reads images \(mmproj\)"),
        (gguf(MODEL | {"general.type": "adapter"}), "adapter"),
        (gguf(MODEL | {"general.architecture": "nomic-bert"}), "embeddings"),
        (gguf(MODEL | {"llama.pooling_type": 3}), "embeddings"),
        (gguf(MODEL | {"llama.attention.causal": False}), "embeddings"),
        (gguf(MODEL | {"general.architecture": "t5"}), "encoder and a decoder"),
        (gguf({"general.architecture": "llama"}), "holds no vocabulary"),
        (gguf(MODEL | {"split.count": 3}), "part of a model in 3 files.*00001-of-00003"),
    ],
)
def test_what_is_no_model_says_what_it_is_in_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    path = write(tmp_path / "model.gguf", data)
    with pytest.raises(BackendError, match=message) as caught:
        model_files.files(path)
    assert "model.gguf" in str(caught.value) and "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    whole = gguf(MODEL)
    for length in range(4, len(whole)):
        with pytest.raises(BackendError, match=r"ends within its header|is cut off"):
            model_files.files(write(tmp_path / "model.gguf", whole[:length]))
    model_files.files(write(tmp_path / "model.gguf", whole))


def test_a_folder_names_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"is a folder, not a GGUF file; .*holds no \*\.gguf"):
        model_files.files(tmp_path)
    write(tmp_path / "a.gguf", gguf(MODEL))
    with pytest.raises(BackendError, match=r"is a folder.*it holds a\.gguf"):
        model_files.files(tmp_path)
    with pytest.raises(BackendError, match="No model file"):
        model_files.files(tmp_path / "b.gguf")


def test_every_part_counts(tmp_path: Path) -> None:
    parts = [
        write(tmp_path / f"big-{i:05}-of-00003.gguf", gguf(MODEL | {"split.count": 3, "split.no": i - 1}, i))
        for i in (1, 2, 3)
    ]
    for path in parts:
        assert model_files.files(path) == parts
    before = files.sha256(*parts)
    assert before == hashlib.sha256(b"".join(path.read_bytes() for path in parts)).hexdigest()
    changed = bytearray(parts[2].read_bytes())
    changed[-1] ^= 1
    parts[2].write_bytes(changed)
    assert files.sha256(*parts) != before
    parts[2].write_bytes(changed[:-5])
    with pytest.raises(BackendError, match=r"big-00003-of-00003\.gguf is cut off"):
        model_files.files(parts[0])
    parts[1].unlink()
    with pytest.raises(BackendError, match=r"1 of the 3 files of big are missing, first big-00002-of-00003\.gguf"):
        model_files.files(parts[0])


def test_a_first_part_may_hold_no_tensors(tmp_path: Path) -> None:
    facts = MODEL | {"split.count": 2}
    first = write(tmp_path / "m-00001-of-00002.gguf", gguf(facts, 0))
    write(tmp_path / "m-00002-of-00002.gguf", gguf(facts))
    assert len(model_files.files(first)) == 2


def test_a_path_is_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    # As Ollama names its files.
    (tmp_path / "sha256-12ab").touch()
    for model, full, name in (
        ("/models/My Model.Q4.gguf", "gguf:/models/My Model.Q4.gguf", "my-model.q4"),
        ("~/x.GGUF", "gguf:~/x.GGUF", "x"),
        ("../x.gguf", "gguf:../x.gguf", "x"),
        ("gguf:/m/big-00001-of-00003.gguf", "gguf:/m/big-00001-of-00003.gguf", "big"),
        ("weights", "hf:weights", "weights"),
        (str(tmp_path / "weights") + "/", f"hf:{tmp_path / 'weights'}/", "weights"),
        (f"owner/Name-1B@{'a' * 40}", f"hf:owner/Name-1B@{'a' * 40}", "name-1b"),
        (str(tmp_path / "sha256-12ab"), f"gguf:{tmp_path / 'sha256-12ab'}", "sha256-12ab"),
    ):
        assert models.spelled(model) == full
        assert models.known(PROJECT, model) == name


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("Qwen/Qwen3-1.7B", "hf:Qwen/Qwen3-1.7B@REVISION, 40 hex"),
        ("Qwen/Qwen3-1.7B@main", "hf:Qwen/Qwen3-1.7B@REVISION, 40 hex"),
        ("/nowhere/model", "No model file or folder /nowhere/model"),
        ("./model.bin", r"No model file or folder \./model\.bin"),
        ("smollm2-135m", "Did you mean 'smollm2-135m-instruct'"),
        ("GGUF:/models/x.gguf", "Did you mean 'gguf:/models/x.gguf'"),
        ("https://hub.example/x.gguf", "is an address.*Fetch the file and name its path"),
        ("openai:http://localhost:8000/v1", "OPENAI_BASE_URL, and openai:MODEL has the model's name"),
    ],
)
def test_what_is_neither_path_nor_model_is_refused(model: str, message: str) -> None:
    with pytest.raises(BackendError, match=message):
        models.known(PROJECT, model)


def test_a_path_with_a_blank_is_looked_for(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="extra `live` is not installed")
    folder = tmp_path / "My models"
    folder.mkdir()
    write(folder / "a b.gguf", b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(BackendError, match=r"a b\.gguf is not a GGUF file: it is a Git LFS pointer"):
        models.load(PROJECT, str(folder / "a b.gguf"))
    write(folder / "a b.gguf", gguf(MODEL))
    with pytest.raises(BackendError, match=r"llama\.cpp \(.*\) cannot load a b\.gguf: .*[a-z]"):
        models.load(PROJECT, str(folder / "a b.gguf"))


def test_a_wrong_file_is_named_before_a_missing_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling llama.cpp takes ten minutes; nobody should learn only then that the file is not there."""
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    monkeypatch.delitem(sys.modules, "persona_studies.ask.backends.llama_cpp", raising=False)
    with pytest.raises(BackendError, match="No model file"):
        models.load(PROJECT, str(tmp_path / "absent.gguf"))


@pytest.mark.parametrize(
    ("held", "model", "message"),
    [
        ("", "", r"holds no \*\.safetensors; other formats can run code"),
        ("a.gguf", "", r"holds no \*\.safetensors; name its GGUF file, .*a\.gguf"),
        ("", "hf:nowhere", "neither a folder nor a GGUF file nor OWNER/NAME"),
        ("", "hf:owner/model", r"needs a pinned revision.*hf:owner/model@REVISION"),
    ],
)
def test_a_wrong_name_is_told_before_gigabytes_are_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: str, model: str, message: str
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    if held:
        write(tmp_path / held, gguf(MODEL))
    with pytest.raises(BackendError, match=message):
        models.load(PROJECT, model or str(tmp_path))
