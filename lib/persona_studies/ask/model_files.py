"""GGUF files: which files make one model, and why a file cannot be asked.

Only the header is read. It says what a file holds before gigabytes are hashed and loaded.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from persona_studies.errors import BackendError, visible

FETCH = "fetch the file again"
# Values of a header by their number in the format: struct codes. 8 is a text, 9 a list.
_VALUES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# Weights and bytes of a block of the usual types; files with other types are measured by what is known.
_BLOCKS = {
    **{0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84)},
    **{11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 30: (1, 2)},
}
_LIMIT = 1 << 24
_PART = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf")
_ENCODERS = ("bert", "t5encoder", "embedding")


@dataclass(frozen=True)
class Header:
    """What a GGUF file says about itself.

    Attributes:
        facts: Its texts and numbers by name, without lists.
        tensors: Tensors in this file.
        size: Bytes that the file must have at least.
    """

    facts: dict[str, Any]
    tensors: int
    size: int


def files(path: Path) -> list[Path]:
    """Return all files of the model that a GGUF file belongs to, after a look at each.

    Raises:
        BackendError: a file is missing, or does not hold the weights of a language model.
    """
    if path.is_dir():
        inside = sorted(found.name for found in path.glob("*.gguf"))
        held = f"it holds {', '.join(inside[:3])}" if inside else "it holds no *.gguf"
        raise BackendError(f"{path} is a folder, not a GGUF file; name a file in it ({held}).")
    if not path.is_file():
        raise BackendError(f"No model file {path}.")
    found = [path]
    if part := _PART.fullmatch(path.name):
        count = int(part["parts"])
        found = [path.with_name(f"{part['stem']}-{i:05}-of-{count:05}.gguf") for i in range(1, count + 1)]
        missing = [one.name for one in found if not one.is_file()]
        if missing or not count:
            raise BackendError(
                f"{len(missing)} of the {count} files of {part['stem']} are missing, first {missing[0]}; "
                f"fetch them into {path.parent}."
                if missing
                else f"{path.name} counts no parts; {FETCH}."
            )
    headers = [header(one) for one in found]
    facts, tensors = headers[0].facts, sum(one.tensors for one in headers)
    declared = int(facts.get("split.count", 0) or 1)
    if declared != len(found):
        raise BackendError(
            f"{path.name} is part of a model in {declared} files, whose names end in -00001-of-{declared:05}.gguf "
            "and so on; give the parts those names, in one folder."
        )
    if problem := _unusable(facts, tensors):
        raise BackendError(f"{path.name} {problem}")
    return found


def safetensors(source: str, revision: str | None) -> list[Path]:
    """Return the weight files of a folder; none for a model of the hub, which has them.

    Raises:
        BackendError: the folder has none, or it is no model of the hub at a pinned revision.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        if found := sorted(path.glob("*.safetensors")):
            return found
        inside = sorted(path.glob("*.gguf"))
        others = f"name its GGUF file, {inside[0]}" if inside else "other formats can run code and are not read"
        raise BackendError(f"{path} holds no *.safetensors; {others}.")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise BackendError(f"{source} is neither a folder nor a GGUF file nor OWNER/NAME of the hub.")
    if revision is None or not re.fullmatch("[0-9a-f]{40}", revision):
        raise BackendError(
            f"The hub model {source} needs a pinned revision, 40 hexadecimal digits of a commit, not {revision!r}: "
            f"hf:{source}@REVISION. The model's page lists its commits under `Files and versions`."
        )
    return []


def header(path: Path) -> Header:
    """Read the header of a GGUF file.

    Raises:
        BackendError: it is not a GGUF file, or not a whole one.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            start = file.read(200)
            if problem := _other(start, size):
                raise BackendError(f"{path.name} is not a GGUF file: {problem}")
            file.seek(4)
            found = _header(file)
    except (EOFError, struct.error, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise BackendError(
            f"{path.name} ends within its header ({size:,} bytes), or is damaged; {FETCH}."
        ) from error
    except OSError as error:
        raise BackendError(f"{path} cannot be read: {error.strerror or error}.") from error
    if size < found.size:
        raise BackendError(f"{path.name} is cut off: {size:,} bytes of {found.size:,} at least; {FETCH}.")
    return found


def _header(file: BinaryIO) -> Header:
    version, tensors, count = struct.unpack("<IQQ", _take(file, 20))
    if version not in (2, 3) or max(tensors, count) > _LIMIT:
        raise EOFError
    facts = {}
    for _ in range(count):
        name = _text(file)
        [kind] = struct.unpack("<I", _take(file, 4))
        facts[name] = _value(file, kind)
    facts = {name: value for name, value in facts.items() if value is not None}
    end = 0
    for _ in range(tensors):
        _text(file)
        [dimensions] = struct.unpack("<I", _take(file, 4))
        if dimensions > 8:
            raise EOFError
        shape = struct.unpack(f"<{dimensions}Q", _take(file, 8 * dimensions))
        kind, offset = struct.unpack("<IQ", _take(file, 12))
        weights = 1
        for length in shape:
            weights *= length
        block, width = _BLOCKS.get(kind, (1, 0))
        end = max(end, offset + weights // block * width)
    align = int(facts.get("general.alignment", 32)) or 32
    start = -(-file.tell() // align) * align
    return Header(facts, tensors, start + end if tensors else file.tell())


def _take(file: BinaryIO, n: int) -> bytes:
    data = file.read(n)
    if len(data) < n:
        raise EOFError
    return data


def _text(file: BinaryIO) -> str:
    [length] = struct.unpack("<Q", _take(file, 8))
    if length > _LIMIT:
        raise EOFError
    return _take(file, length).decode(errors="replace")


def _value(file: BinaryIO, kind: int) -> Any:
    """Return a text or number; None for a list, which is passed over."""
    if kind == 8:
        return _text(file)
    if kind in _VALUES:
        code = f"<{_VALUES[kind]}"
        return struct.unpack(code, _take(file, struct.calcsize(code)))[0]
    if kind != 9:
        raise EOFError
    inner, length = struct.unpack("<IQ", _take(file, 12))
    if length > _LIMIT:
        raise EOFError
    if inner in _VALUES:
        _take(file, length * struct.calcsize(f"<{_VALUES[inner]}"))
        return None
    for _ in range(length):
        _value(file, inner)
    return None


def _other(start: bytes, size: int) -> str | None:
    """Return what a file is that is not a GGUF file."""
    if not size:
        return f"it is empty; {FETCH}."
    if start.startswith(b"GGUF"):
        return None
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, which stands for the file; `git lfs pull` in its folder fetches the file."
    if start.startswith(b"../") or start.startswith(b"/annex/"):
        return "it is a git-annex pointer, which stands for the file; `git annex get` fetches the file."
    if start.lstrip()[:1] == b"<":
        return f"it is a web page, perhaps an error or a login; {FETCH} from the link that downloads it."
    if start.startswith((b"PK", b"\x80")):
        return "it is an archive or a pickle of PyTorch, which can run code and is not read; take a GGUF file."
    if start[8:9] == b"{":
        return "it is a safetensors file; name its folder: hf:FOLDER."
    if start[:4] in (b"lmgg", b"tjgg", b"algg"):
        return "it is of the format before GGUF, which llama.cpp no longer reads; take a newer file."
    return f"it begins with {visible(start[:12].decode('latin-1'))!r}; {FETCH}."


def _unusable(facts: dict[str, Any], tensors: int) -> str | None:
    """Return why a GGUF file is not a language model that can be asked."""
    family, kind = str(facts.get("general.architecture", "")), str(facts.get("general.type", "model"))
    if kind == "mmproj" or family == "clip":
        return "is the part of a model that reads images (mmproj); name the file of the language model beside it."
    if kind == "adapter":
        return "is an adapter (LoRA), not a model; merge it into its model and name the merged file."
    if kind == "imatrix" or family == "imatrix":
        return "is an importance matrix for quantising, not a model."
    if not tensors:
        return "holds a vocabulary only and no weights; take the file of the model."
    pooled = facts.get(f"{family}.pooling_type")
    if any(word in family for word in _ENCODERS) or pooled or facts.get(f"{family}.attention.causal") is False:
        return f"turns texts into embeddings ({family}) and does not say what comes next; take a generating model."
    if family == "t5":
        return "is an encoder and a decoder (t5); only models with a decoder alone can be asked."
    if "tokenizer.ggml.model" not in facts:
        return "holds no vocabulary, so no text can be asked; take a whole model."
    return None
