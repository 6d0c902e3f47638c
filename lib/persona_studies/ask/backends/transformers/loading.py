"""Loading a model and its tokeniser from a folder, a GGUF file or the hub."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import tokenizers
import transformers

from persona_studies import files
from persona_studies.ask import model_files, planner
from persona_studies.ask.chat import Chat, detect
from persona_studies.errors import BackendError

FAR = 1 << 30


class Encoder:
    """Text to token ids, through a cache of the pieces between turn markers.

    Turn markers split a text before anything else does, so a persona and an item are tokenised once, not once
    per cell. Where a tokeniser's markers also take in the spaces around them, or where its result depends on
    what stands before, whole texts are tokenised.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer.backend_tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        marks = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        loose = any(
            token.lstrip or token.rstrip or token.single_word
            for token in tokenizer.added_tokens_decoder.values()
            if token.special
        )
        self._marks = marks
        choice = "|".join(re.escape(mark) for mark in sorted(marks, key=len, reverse=True))
        self.marks = re.compile(choice or r"(?!)")
        self._split = re.compile(f"({choice})")
        self._spoken = lru_cache(maxsize=65_536)(self._whole)
        self._plain = lru_cache(maxsize=4_096)(self._literal)
        self._text = lru_cache(maxsize=256)(self._joined)
        samples = [f"{a}{mark}{b}" for mark in marks for a, b in (("Yes, 12", "so\n"), (" x\n", " y"), ("", "\n"))]
        if not marks or loose or any(self._joined(text) != self._whole(text) for text in samples):
            self._text = lru_cache(maxsize=4_096)(self._whole)

    def __call__(self, text: str, special: bool) -> tuple[int, ...]:
        return self._text(text) if special else self._plain(text)

    def _joined(self, text: str) -> tuple[int, ...]:
        ids: list[int] = []
        for place, piece in enumerate(self._split.split(text)):
            if place % 2:
                ids.append(self._marks[piece])
            elif piece:
                ids += self._spoken(piece)
        return tuple(ids)

    def _whole(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _literal(self, text: str) -> tuple[int, ...]:
        self._tokenizer.encode_special_tokens = True
        try:
            return self._whole(text)
        finally:
            self._tokenizer.encode_special_tokens = False


def turns(tokenizer: Any, encode: planner.Encode, name: str, wanted: str | None) -> Chat:
    """Return how a model marks turns, with the begin token that its tokeniser sets.

    Raises:
        BackendError: its template cannot be used.
    """
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    texts = {key: str(text) for key, text in tokenizer.special_tokens_map.items() if isinstance(text, str)}
    needed = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    chat = detect(template, texts, wanted=wanted).beginning(tokenizer.bos_token if needed else None)
    planner.check_beginning(chat, encode, tokenizer.bos_token_id, needed=needed, model=name)
    return chat


def origin(source: str | Path, revision: str | None, sha256: str | None) -> tuple[dict[str, Any], str]:
    """Return what the loaders are told, and the hash or revision of the weights.

    Raises:
        BackendError: nothing there, a hub model without a pinned revision, or another hash than the expected one.
    """
    where, digest = _found(source, revision)
    if sha256 is not None and digest != sha256:
        raise BackendError(f"{source} has the hash {digest}, expected {sha256}; fetch the model again.")
    return where, digest


def _found(source: str | Path, revision: str | None) -> tuple[dict[str, Any], str]:
    path = Path(source).expanduser()
    if path.suffix == ".gguf":
        parts = model_files.files(path)
        if len(parts) > 1:
            raise BackendError(f"transformers reads no GGUF model in {len(parts)} files; take --backend llama.cpp.")
        where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
        return where, files.sha256(*parts)
    safe = {"pretrained_model_name_or_path": str(source), "use_safetensors": True}
    if weights := model_files.safetensors(str(source), revision):
        return {**safe, "pretrained_model_name_or_path": str(path)}, files.sha256(*weights)
    return {**safe, "revision": revision}, str(revision)


def load(where: dict[str, Any], dtype: Any) -> tuple[Any, Any]:
    """Return tokeniser and model.

    Raises:
        BackendError: they cannot be loaded without running code of their own, or have no fast tokeniser.
    """
    source = where["pretrained_model_name_or_path"]
    transformers.utils.logging.disable_progress_bar()
    read = {key: value for key, value in where.items() if key != "use_safetensors"}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(**read, trust_remote_code=False)
        model = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=dtype, trust_remote_code=False)
    except Exception as error:  # What a foreign file can set off has no common class.
        reason = str(error).strip().partition("\n")[0]
        if "trust_remote_code" in str(error):
            reason = "it needs code of its own repository, which is never run; take a model that transformers knows"
        raise BackendError(f"transformers cannot load {source}: {reason}") from error
    if getattr(model.config.get_text_config(), "attn_logit_softcapping", None) is not None:
        # Only the plain implementation of attention caps its scores.
        model.set_attn_implementation("eager")
    if "gguf_file" in where and _split_of(Path(source) / where["gguf_file"]) == "smollm":
        # transformers does not read how a GGUF file splits text; this family keeps spaces apart from digits.
        digits = tokenizers.pre_tokenizers.Digits(individual_digits=True)
        level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.backend_tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([digits, level])
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise BackendError(f"{source} has no fast tokeniser; it needs a tokenizer.json.")
    return tokenizer, model


def _split_of(path: Path) -> str | None:
    """Return how a GGUF file says that text is split before it is tokenised."""
    import gguf  # Folders and hub models do without.

    field = gguf.GGUFReader(path).get_field("tokenizer.ggml.pre")
    return None if field is None else str(field.contents())


def context(config: Any) -> int:
    """Return how many tokens a prompt may have: up to the first window, every layer sees all of it."""
    limit = int(getattr(config, "max_position_embeddings", None) or FAR)
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if window and (kinds is None or "sliding_attention" in kinds):
        limit = min(limit, int(window))
    return limit
