"""Find a model by name and load it.

A model is named in a parameter or on the command line as

- ``smollm2-135m-instruct``: an entry of ``data/models.toml``;
- ``gguf:PATH``: a GGUF file of one's own, on llama.cpp;
- ``hf:OWNER/NAME@REVISION`` or ``hf:FOLDER``: transformers, from the hub at a pinned revision or from a folder;
- a path to a GGUF file or to such a folder, and ``OWNER/NAME@REVISION``, without ``gguf:`` or ``hf:``;
- ``openai:MODEL``: an OpenAI-compatible endpoint (``OPENAI_BASE_URL``, ``OPENAI_API_KEY``).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from persona_studies.ask import model_files, registry
from persona_studies.ask.backends import Backend
from persona_studies.errors import BackendError, nearest, quoted
from persona_studies.paths import Project

KINDS = ("gguf", "hf", "openai")


def spelled(model: str) -> str:
    """Return a path, or a model of the hub with its revision, in full: with ``gguf:`` or ``hf:``.

    >>> spelled("models/My Model.gguf"), spelled("smollm2-135m-instruct"), spelled("openai:gpt-4o-mini")
    ('gguf:models/My Model.gguf', 'smollm2-135m-instruct', 'openai:gpt-4o-mini')
    """
    kind, _, rest = model.partition(":")
    if kind.lower() in KINDS and rest:
        return model
    # Ollama keeps GGUF files under names without an ending.
    if model.lower().endswith(".gguf") or ("/" in model and Path(model).expanduser().is_file()):
        return f"gguf:{model}"
    if (model and Path(model).expanduser().is_dir()) or re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", model):
        return f"hf:{model}"
    return model


def slug(model: str) -> str:
    """Return the folder name of a model.

    >>> slug("gguf:/models/My Model.Q4.gguf")
    'my-model.q4'
    >>> slug("hf:HuggingFaceTB/SmolLM2-135M-Instruct@0123456789abcdef0123456789abcdef01234567")
    'smollm2-135m-instruct'
    >>> slug("openai:gpt-4o-mini")
    'gpt-4o-mini'
    """
    model = spelled(model)
    kind, _, rest = model.partition(":")
    if kind not in KINDS or not rest:
        return model
    # The parts of a model in several files are one model.
    name = re.sub(r"-\d{5}-of-\d{5}$", "", Path(rest).stem) if kind == "gguf" else rest.partition("@")[0]
    name = name.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-.")


def known(project: Project, model: str, name: str | None = None) -> str:
    """Return the name that a model is recorded under, or refuse a model that cannot be loaded by its name.

    Args:
        model: As described above.
        name: Name to record under; None derives it from the model's.

    Raises:
        BackendError: an unknown model, or a name that cannot name a recording.
    """
    model = spelled(model)
    kind, _, rest = model.partition(":")
    if kind in KINDS and rest != rest.strip():
        raise BackendError(f"Model {quoted(model)} has a blank at an end of its name; take it away.")
    if "://" in model:
        raise BackendError(
            f"{quoted(model)} is an address, not a model. Fetch the file and name its path. The address of an "
            "endpoint stands in OPENAI_BASE_URL, and openai:MODEL has the model's name there."
        )
    if not (kind in KINDS and rest) and model not in (entries := registry.load(project)):
        if re.fullmatch(r"[\w.-]+/[\w.-]+(@.*)?", model) and not model.startswith("."):
            raise BackendError(
                f"{model} looks like a model of the hub, which is named with a pinned revision: "
                f"hf:{model.partition('@')[0]}@REVISION, 40 hexadecimal digits of a commit (the model's page lists "
                "its commits under `Files and versions`). A folder or file of that name is not here."
            )
        if model.startswith(("/", "~", ".")):
            raise BackendError(f"No model file or folder {model}; a file's name ends in .gguf.")
        mended = kind.lower() in KINDS and rest
        hint = f" Did you mean {f'{kind.lower()}:{rest}'!r}?" if mended else nearest(model, entries)
        raise BackendError(
            f"Unknown model {model!r}.{hint} Known: {', '.join(entries)}; or gguf:PATH, hf:OWNER/NAME@REVISION, "
            "openai:MODEL."
        )
    called = name or slug(model)
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,99}", called):
        whose = "" if name else f", which is made of {quoted(model)},"
        raise BackendError(
            f"{quoted(called)}{whose} cannot name a recording: a lower-case letter or digit first, then at most 99 "
            "of these, '.', '_' and '-'. Use --name to give another."
        )
    return called


def checked(project: Project, model: str, name: str | None = None) -> str:
    """Return the name that a model is recorded under, as :func:`known` does, after a look at its file.

    Raises:
        BackendError: an unknown model, or a file that is missing, half there or no model.
    """
    called = known(project, model, name)
    kind, _, rest = spelled(model).partition(":")
    if kind == "gguf":
        model_files.files(Path(rest).expanduser())
    return called


def load(
    project: Project,
    model: str,
    *,
    name: str | None = None,
    backend: str | None = None,
    threads: int = 1,
    precision: str | None = None,
    schedule: str | None = None,
    chat: str | None = None,
    endpoint: dict[str, Any] | None = None,
    recorded: dict[str, Any] | None = None,
) -> Backend:
    """Load a model.

    Args:
        model: As described above.
        name: Name to record under; None derives it from the model's.
        backend: ``llama.cpp`` or ``transformers`` for a GGUF file; None takes llama.cpp.
        threads: CPU threads of llama.cpp.
        precision: Number format of the weights; None takes that of ``recorded``, the registry's, or the default.
        schedule: How tokens are grouped into forward passes; None takes the backend's default.
        chat: How turns are marked, a family or a file; None takes the model's own template.
        endpoint: Further arguments of
            :class:`persona_studies.ask.backends.openai_compatible.OpenAICompatible`.
        recorded: The model of a recording that is to be extended, from its ``record.json``.

    Raises:
        BackendError: unknown name, weights that are not to be had, wrong hash.
    """
    if backend not in (None, "llama.cpp", "transformers"):
        raise BackendError(f"Unknown backend {backend!r} for {model}; known: llama.cpp, transformers.")
    # Before anybody compiles the backend for ten minutes, or installs gigabytes, to learn that the file is wrong.
    called = checked(project, model, name)
    model = spelled(model)
    kind, _, rest = model.partition(":")
    runs_on = "transformers" if kind == "hf" else backend or "llama.cpp"
    if precision is None and recorded is not None and recorded["backend"] == runs_on:
        precision = recorded["precision"]
    settings = {"precision": precision, "schedule": schedule, "chat": chat}
    given = {key: value for key, value in settings.items() if value is not None}
    if kind == "openai" and rest:
        from persona_studies.ask.backends.openai_compatible import OpenAICompatible

        return OpenAICompatible(name=called, model=rest, **(endpoint or {}))
    if kind == "hf" and rest:
        place, _, revision = rest.partition("@")
        if not place.endswith(".gguf"):
            model_files.safetensors(place, revision or None)
        from persona_studies.ask.backends.transformers import Transformers

        return Transformers(place, name=called, revision=revision or None, **_torch(given))
    if kind == "gguf" and rest:
        return _gguf(Path(rest).expanduser(), called, None, backend, threads, given)
    entry = registry.load(project)[model]
    from persona_studies.ask import weights

    if (backend or entry.backend) == "llama.cpp":
        given = {"precision": entry.precision, **given}
    return _gguf(weights.fetch(model, entry), called, entry.sha256, backend, threads, given)


def _gguf(
    path: Path, name: str, sha256: str | None, backend: str | None, threads: int, given: dict[str, str]
) -> Backend:
    if backend == "transformers":
        from persona_studies.ask.backends.transformers import Transformers

        return Transformers(path, name=name, sha256=sha256, **_torch(given))
    from persona_studies.ask.backends.llama_cpp import LlamaCpp

    return LlamaCpp(path, name=name, sha256=sha256, threads=threads, **given)


def _torch(given: dict[str, str]) -> dict[str, Any]:
    """Return arguments in torch's own words."""
    names = {"f32": "float32", "bf16": "bfloat16"}
    precision = given.get("precision")
    if precision is not None and precision not in {*names, *names.values()}:
        raise BackendError(f"Unknown precision {precision!r} of transformers; known: {', '.join(names)}.")
    others = {key: value for key, value in given.items() if key != "precision"}
    return {**others, **({"dtype": names.get(precision, precision)} if precision else {})}
