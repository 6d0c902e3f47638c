"""The only place that knows where things lie."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from persona_studies.errors import ParameterError, PersonaStudiesError, quoted

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


def named(name: str) -> str:
    """Return the name of a study, a model, a measure, a table or a figure, which becomes part of a path.

    Raises:
        ParameterError: it would lead into another folder.

    >>> named("smollm2-135m-instruct")
    'smollm2-135m-instruct'
    """
    if not NAME.fullmatch(name):
        raise ParameterError(
            f"{quoted(name)} cannot name a study, a model, a measure, a table or a figure: use letters, digits, "
            "'.', '_' and '-' only, and no '.' or '-' at its start."
        )
    return name


@dataclass(frozen=True)
class Project:
    """A checkout of the repository, or a test's miniature of one."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Project:
        """Return the project around ``start`` (default: the working directory).

        ``PERSONA_STUDIES_ROOT`` takes precedence. A folder is a project when it holds ``studies/``
        and ``pyproject.toml``. Outside any, the checkout that the library was installed from serves.

        Raises:
            PersonaStudiesError: no project there, or one with a library of its own, which is not the one that runs.
        """
        project = cls._around(start)
        own = project.root / "lib" / "persona_studies"
        if own.is_dir() and not own.samefile(Path(__file__).parent):
            raise PersonaStudiesError(
                f"The library that runs is {Path(__file__).parent}, and {project.root} has its own: use `make` "
                f"there, or its .venv, or `python -m pip install --editable {shlex.quote(str(project.root))}`."
            )
        return project

    @classmethod
    def _around(cls, start: Path | None) -> Project:
        named = os.environ.get("PERSONA_STUDIES_ROOT")
        if named:
            if not (Path(named) / "studies").is_dir():
                raise PersonaStudiesError(
                    f"PERSONA_STUDIES_ROOT={named} holds no studies/ folder; point it at a checkout or unset it."
                )
            return cls(Path(named).resolve())
        here = (start or Path.cwd()).resolve()
        for folder in (here, *here.parents, Path(__file__).resolve().parents[2]):
            if (folder / "studies").is_dir() and (folder / "pyproject.toml").is_file():
                return cls(folder)
        raise PersonaStudiesError(
            f"{here} is not inside a persona-studies checkout; change into one or set PERSONA_STUDIES_ROOT."
        )

    @property
    def studies(self) -> Path:
        return self.root / "studies"

    def names(self) -> list[str]:
        """Return the names of the studies, in alphabetical order, without hidden files, which editors leave."""
        return sorted(path.stem for path in self.studies.glob("[!.]*.ipynb") if path.is_file())

    def notebook(self, study: str) -> Path:
        return self.studies / f"{named(study)}.ipynb"

    def folder(self, study: str) -> Path:
        """Everything of a study but its notebook."""
        return self.studies / named(study)

    def protocol(self, study: str) -> Path:
        """The declared design of a study."""
        return self.folder(study) / "protocol.toml"

    def design(self, study: str) -> Path:
        """The module that declares a study's parameters, conditions and plan."""
        return self.folder(study) / "design.py"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def items(self) -> Path:
        return self.data / "items"

    @property
    def published(self) -> Path:
        return self.data / "published"

    @property
    def sources(self) -> Path:
        return self.data / "sources.toml"

    def responses(self, study: str, model: str | None = None) -> Path:
        folder = self.data / "responses" / named(study)
        return folder / named(model) if model else folder

    def results(self, study: str) -> Path:
        return self.data / "results" / named(study)

    def figures(self, study: str) -> Path:
        return self.root / "figures" / named(study)

    @property
    def build(self) -> Path:
        """Scratch tree that ``make reproduce`` fills and compares with the reference."""
        return self.root / "build"

    @property
    def site(self) -> Path:
        """The static site that ``make site`` builds."""
        return self.build / "site"

    @property
    def runs(self) -> Path:
        """Runs with other parameters."""
        return self.root / "runs"

    @property
    def recordings(self) -> Path:
        """Append-only logs of recordings in progress."""
        return self.root / "recordings"
