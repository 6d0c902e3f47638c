"""Compare a run with the committed reference, artifact by artifact, and say exactly what differs."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from persona_studies import files
from persona_studies.analyse import tables
from persona_studies.ask import responses
from persona_studies.design import protocol
from persona_studies.errors import NotebookError, PersonaStudiesError, visible
from persona_studies.paths import Project
from persona_studies.reproduce import folders, notebooks, ready, runs

IDENTICAL, WITHIN, DIFFERS = "identical", "within tolerance", "differs"
MISSING, NEW, STALE, BROKEN = "missing from the run", "not in the reference", "stale", "broken"
NOT_REBUILT = "not rebuilt"
GOOD = (IDENTICAL, WITHIN)
TOLERANCE = 1e-9
POINTS = 2e-6  # of a coordinate in an SVG, which is written with six decimals
LEVELS = 4  # of a colour's 255; the last digit of a number, which depends on the processor, decides between two
MANY = 5
# What is compared, and what accept replaces, by folder of a run.
KINDS = {"tables": (".csv",), "figures": (".svg", ".png")}


@dataclass(frozen=True)
class Artifact:
    """One compared thing: its path below the study, how it compares, and in what it differs."""

    study: str
    name: str
    status: str
    detail: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it does not differ. What was not rebuilt counts as no difference."""
        return self.status in (*GOOD, NOT_REBUILT)

    def lines(self) -> Iterator[str]:
        """Yield how it compares, then what differs."""
        yield f"{self.status:<20} {self.study}: {self.name}"
        # Details quote files that anybody may have written, a terminal's control characters included.
        yield from (f"{'':<20}   {visible(line, kept='')}" for line in self.detail)


@dataclass(frozen=True)
class Report:
    """The comparison of one or several studies."""

    artifacts: tuple[Artifact, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether there is something to compare and nothing differs."""
        return bool(self.artifacts) and all(artifact.ok for artifact in self.artifacts)

    def lines(self) -> Iterator[str]:
        """Yield one line per artifact, those that differ with what differs below."""
        for artifact in self.artifacts:
            yield from artifact.lines()
        yield self.summary()

    def summary(self) -> str:
        """Count the artifacts that agree, and those that were not rebuilt."""
        good = sum(artifact.status in GOOD for artifact in self.artifacts)
        left = sum(artifact.status == NOT_REBUILT for artifact in self.artifacts)
        apart = f"; {left} not rebuilt, as a source is not available" if left else ""
        return f"{good} of {len(self.artifacts)} artifacts agree with the reference{apart}."

    def to_markdown(self, title: str = "Comparison with the reference") -> str:
        """Return the report as a page."""

        def text(value: str) -> str:
            """Make a text one line without markup, be it HTML, Markdown or the end of a table cell."""
            return re.sub(r"([\\`*\[\]|])", r"\\\1", escape(visible(value, kept=""), quote=False))

        rows = [
            f"| {a.status} | {text(a.study)} | {text(a.name)} | {'<br>'.join(map(text, a.detail))} |"
            for a in self.artifacts
        ]
        head = f"# {text(title)}\n\n{self.summary()}\n\n"
        return head + "| status | study | artifact | detail |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def verify(project: Project, studies: Iterable[str]) -> Report:
    """Compare what ``build/`` holds with the committed reference and check the reference itself.

    Beside every artifact: the recordings against their checksums, every committed input and reference file
    against the manifest that ``accept`` wrote, and whether the build is of the present inputs.
    """
    found: list[Artifact] = []
    for study in studies:
        ready.known(project, study)
        found += _recordings(project, study)
        found += _manifest(project, study)
        folder = project.build / study
        if not (folder / "run.json").is_file():
            found.append(Artifact(study, "build", MISSING, ("Not built; run make reproduce.",)))
            continue
        if folders.description(folder) is None:
            said = f"its run.json cannot be read; delete build/{study}, then run make reproduce."
            found.append(Artifact(study, "build", BROKEN, (said,)))
            continue
        found += _freshness(project, study, folder)
        found += compare(project, study, folder).artifacts
    report = Report(tuple(found))
    project.build.mkdir(exist_ok=True)
    (project.build / "report.md").write_text(report.to_markdown())
    return report


def reference(project: Project, studies: Iterable[str]) -> Report:
    """Check the committed reference itself: recordings against their hashes, files against their manifest."""
    return Report(tuple(a for study in studies for a in [*_recordings(project, study), *_manifest(project, study)]))


def compare(project: Project, study: str, folder: Path) -> Report:
    """Compare what a run wrote into its folder with the reference of its study.

    What cells save that need a source which the run could not have is not rebuilt.

    Raises:
        PersonaStudiesError: the folder holds no run.
    """
    found: list[Artifact] = []
    lacking: dict[str, str] = (folders.description(folder) or {}).get("not_rebuilt", {})
    left = _not_rebuilt(project, study, lacking)
    for kind, reference in (("tables", project.results(study)), ("figures", project.figures(study))):
        written = _written(folder, kind)
        reference.mkdir(parents=True, exist_ok=True)
        names = sorted({*written, *(path.name for path in _references(reference, kind))})
        for name in names:
            ours, theirs = folder / kind / name, reference / name
            label = f"{kind}/{name}"
            if name not in written and label in left:
                found.append(Artifact(study, label, NOT_REBUILT, (f"needs {left[label]}",)))
            elif name not in written or not ours.is_file():
                found.append(Artifact(study, label, MISSING))
            elif not theirs.is_file():
                found.append(Artifact(study, label, NEW))
            elif ours.read_bytes() == theirs.read_bytes():
                found.append(Artifact(study, label, IDENTICAL))
            elif kind == "tables":
                tolerance = protocol.tolerances(project.protocol(study))
                found.append(Artifact(study, label, *compare_tables(theirs, ours, tolerance)))
            else:
                found.append(Artifact(study, label, *compare_figures(theirs, ours)))
    status, detail = compare_notebooks(project.notebook(study), folder / f"{study}.ipynb", lacking)
    found.append(Artifact(study, "notebook", status, detail))
    return Report(tuple(found))


def _not_rebuilt(project: Project, study: str, lacking: Mapping[str, str]) -> dict[str, str]:
    """Return the artifacts that need a source that is not available -> address."""
    if not lacking:
        return {}
    left: dict[str, str] = {}
    notebook = notebooks.read(project.notebook(study))
    for pattern, address in lacking.items():
        for cell in notebooks.needing(notebook, [pattern]):
            for kind, name in notebooks.saved(cell.source):
                left.update({f"{kind}s/{name}{suffix}": address for suffix in KINDS[f"{kind}s"]})
    return left


def compare_tables(reference: Path, ours: Path, tolerance: dict[str, float]) -> tuple[str, tuple[str, ...]]:
    """Compare two CSV files cell by cell.

    Numbers with a fraction may differ by the tolerance of their column, relative and absolute; everything
    else must be equal.

    Returns:
        The status, and for the first cells that differ: row, column, both values.
    """
    try:
        a, b = tables.load(reference), tables.load(ours)
    except (ValueError, OSError) as error:
        return BROKEN, (f"cannot be read: {error}",)
    if list(a.columns) != list(b.columns):
        return DIFFERS, (f"columns {list(a.columns)} in the reference, {list(b.columns)} in this run",)
    if len(a) != len(b):
        return DIFFERS, (f"{len(a)} rows in the reference, {len(b)} in this run",)
    lines = []
    for column in a.columns:
        allowed = tolerance.get(f"{reference.stem}.{column}", tolerance.get("default", TOLERANCE))
        x, y = a[column], b[column]
        floats = pd.api.types.is_float_dtype(x) and pd.api.types.is_float_dtype(y)
        if floats:
            same = np.isclose(x, y, rtol=allowed, atol=allowed, equal_nan=True)
        else:
            same = ((x == y) | (x.isna() & y.isna())).to_numpy()
        for row in np.flatnonzero(~same):
            gap = y.iloc[row] - x.iloc[row] if floats else 0
            lines.append(
                f"row {row + 1} ({_row_name(a, int(row))}), column {column}: "
                f"{_value(x.iloc[row])} in the reference, {_value(y.iloc[row])} in this run"
                + (f" ({gap:+.2g}; {allowed:g} allowed)" if floats and np.isfinite(gap) else "")
            )
    if not lines:
        return WITHIN, ()
    more = (f"and {len(lines) - MANY} more cells",) if len(lines) > MANY else ()
    return DIFFERS, (*lines[:MANY], *more)


def compare_figures(reference: Path, ours: Path) -> tuple[str, tuple[str, ...]]:
    """Compare two figures whose bytes differ: coordinates and colours may be apart by rounding."""
    if reference.suffix == ".svg":
        (text, numbers, colours), (other_text, other_numbers, other_colours) = _drawing(reference), _drawing(ours)
        if (
            text == other_text
            and np.allclose(numbers, other_numbers, rtol=0, atol=POINTS)
            and np.allclose(colours, other_colours, rtol=0, atol=LEVELS)
        ):
            return WITHIN, (f"apart by at most {POINTS} points and {LEVELS} of 255 levels of a colour",)
        pictures = reference.with_suffix(".png"), ours.with_suffix(".png")
        if all(picture.is_file() for picture in pictures) and pictures[0].read_bytes() == pictures[1].read_bytes():
            return DIFFERS, ("the drawing differs although its PNG is identical",)
        return DIFFERS, ("bytes differ",)
    return _compare_pictures(reference, ours)


def _compare_pictures(reference: Path | BytesIO, ours: Path | BytesIO) -> tuple[str, tuple[str, ...]]:
    try:
        with Image.open(reference) as one, Image.open(ours) as other:
            a, b = np.asarray(one.convert("RGBA"), dtype=float), np.asarray(other.convert("RGBA"), dtype=float)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # as Pillow raises them
        return BROKEN, (f"cannot be read: {error}",)
    if a.shape != b.shape:
        return DIFFERS, (f"{a.shape[1]} x {a.shape[0]} pixels in the reference, {b.shape[1]} x {b.shape[0]} here",)
    apart = np.abs(a - b).max(axis=2, initial=0)
    if not apart.any():
        return WITHIN, ("other bytes, identical pixels",)
    if apart.max() <= LEVELS:
        return WITHIN, (
            f"{(apart > 0).mean():.2%} of the pixels apart, by at most {apart.max():.0f} of 255 levels",
        )
    off = math.sqrt(((a - b) ** 2).mean())
    return DIFFERS, (f"{(apart > 0).mean():.2%} of the pixels differ, root mean square {off:.1f}",)


def _drawing(svg: Path) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Return an SVG's text between its numbers, the numbers, and the levels of its colours."""
    text, *rest = re.split(r"(?<=: )#([0-9a-f]{6})\b", svg.read_text("utf-8", errors="replace"))
    colours = [int(colour[at : at + 2], 16) for colour in rest[::2] for at in (0, 2, 4)]
    parts = re.split(r"((?<![#\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?)", "#".join([text, *rest[1::2]]))
    return parts[::2], np.array(parts[1::2], dtype=float), np.array(colours, dtype=float)


def compare_notebooks(
    reference: Path, ours: Path, lacking: Mapping[str, str] | None = None
) -> tuple[str, tuple[str, ...]]:
    """Compare two notebooks by sources and outputs, cell by cell.

    A cell that was not executed for lack of a source has the reference's outputs below a line that says so.
    """
    if not ours.is_file():
        return MISSING, ()
    if reference.read_bytes() == ours.read_bytes():
        return IDENTICAL, ()
    try:
        a, b = notebooks.read(reference), notebooks.read(ours)
    except NotebookError as error:
        return BROKEN, (str(error),)
    if notebooks.sources(a) != notebooks.sources(b):
        return DIFFERS, ("the cells are not the same",)
    lines = []
    own = [[cell for cell in n.cells if "injected-parameters" not in cell.metadata.get("tags", [])] for n in (a, b)]
    pairs = [pair for pair in zip(*own, strict=True) if pair[0].cell_type == "code"]
    kept = [cell.id for cell in notebooks.needing(b, lacking or {})]
    for place, (one, other) in enumerate(pairs, start=1):
        if other.id in kept and other.outputs and notebooks.NOTICE in other.outputs[0].get("metadata", {}):
            other.outputs = other.outputs[1:]
        _settle_pictures(one, other)
        if one.get("outputs") != other.get("outputs"):
            title = (one.source.strip() or "empty").splitlines()[0][:60]
            lines.append(f"code cell {place} ({title}): {_outputs(one, other)}")
    if not lines and kept:
        return NOT_REBUILT, (f"{len(kept)} of {len(pairs)} code cells need {', '.join((lacking or {}).values())}",)
    if not lines:
        return WITHIN, ("other bytes, identical cells and outputs",)
    more = (f"and {len(lines) - MANY} more cells",) if len(lines) > MANY else ()
    return DIFFERS, (*lines[:MANY], *more)


def accept(project: Project, study: str, *, confirm: Callable[[Report], bool]) -> Report | None:
    """Make the build the reference, after showing the difference.

    Args:
        confirm: Called with the difference; the reference is left alone unless it returns True.

    Returns:
        The difference that was accepted, or None.

    Raises:
        PersonaStudiesError: there is no build, it is not of the present inputs or lacks what a source would have
            given, or a recording is damaged.
    """
    folder = project.build / ready.known(project, study)
    built = folders.description(folder)
    if built is None:
        raise PersonaStudiesError(f"{study} is not built; run make reproduce first.")
    if built["not_rebuilt"]:
        addresses = ", ".join(built["not_rebuilt"].values())
        raise PersonaStudiesError(
            f"{study} cannot be accepted: parts of it were not rebuilt, because {addresses} could not be fetched. "
            "Run make reproduce with a connection, or with a folder that holds a copy in PERSONA_STUDIES_MIRROR."
        )
    problems = [*_freshness(project, study, folder), *_recordings(project, study)]
    if bad := [line for artifact in problems if not artifact.ok for line in artifact.detail]:
        raise PersonaStudiesError(f"{study} cannot be accepted: {'; '.join(bad)}")
    if str(project.root) in (folder / f"{study}.ipynb").read_text(encoding="utf-8"):
        raise PersonaStudiesError(
            f"{study} cannot be accepted: its notebook prints {project.root}, as a warning does, and would differ "
            f"elsewhere. Mend what prints it, then run make run-{study}."
        )
    difference = compare(project, study, folder)
    if not confirm(difference):
        return None
    # File by file, each in one step, the manifest last: if this is killed half-way, the earlier manifest names what
    # is new, and accepting again finishes it.
    for kind, reference in (("tables", project.results(study)), ("figures", project.figures(study))):
        written = _written(folder, kind)
        reference.mkdir(parents=True, exist_ok=True)
        for name in written:
            files.write(reference / name, (folder / kind / name).read_bytes())
        for path in _references(reference, kind):
            if path.name not in written:
                path.unlink()
    files.write(project.notebook(study), (folder / f"{study}.ipynb").read_bytes())
    manifest = _digests(project, study)
    files.write(_manifest_path(project, study), json.dumps(manifest, indent=1) + "\n")
    return difference


def _written(folder: Path, kind: str) -> set[str]:
    """Return the names of the tables or figures that the run in a folder wrote; others may lie there too."""
    made = folders.description(folder)
    if made is None:
        raise PersonaStudiesError(f"{folder} holds no run that can be read; run it again.")
    paths = [PurePosixPath(name) for name in made["outputs"]]
    return {path.name for path in paths if path.parent == PurePosixPath(kind) and path.suffix in KINDS[kind]}


def _references(reference: Path, kind: str) -> list[Path]:
    """Return the committed tables or figures of a study."""
    return sorted(path for suffix in KINDS[kind] for path in reference.glob(f"*{suffix}"))


def _manifest_path(project: Project, study: str) -> Path:
    return project.results(study) / "manifest.json"


def _tracked(project: Project, study: str) -> list[str]:
    """Return the committed files that a reference stands on or consists of, relative to the root."""
    places = [
        project.protocol(study),
        *_references(project.results(study), "tables"),
        *_references(project.figures(study), "figures"),
        *project.responses(study).rglob("*.*"),
    ]
    return sorted(path.relative_to(project.root).as_posix() for path in places if path.is_file())


def _digests(project: Project, study: str) -> dict[str, str]:
    """Return the sha256 of everything that a reference stands on or consists of.

    The notebook itself is compared with every build; but where a source is not available, its outputs are all that
    is left of the results, so those count among the committed files.
    """
    found = {path: files.sha256(project.root / path) for path in _tracked(project, study)}
    notebook = notebooks.read(project.notebook(study))
    kept = [cell.outputs for cell in notebooks.needing(notebook, notebooks.source_patterns(notebook))]
    if kept:
        path = project.notebook(study).relative_to(project.root).as_posix()
        text = json.dumps(kept, sort_keys=True)
        found[f"{path}, outputs that need a source,"] = hashlib.sha256(text.encode()).hexdigest()
    return found


def _manifest(project: Project, study: str) -> list[Artifact]:
    """Compare the committed files with the manifest that was written when they were accepted."""
    path = _manifest_path(project, study)
    if not path.is_file():
        return [Artifact(study, "reference", MISSING, ("No reference yet; run make reproduce, then make accept.",))]
    try:
        manifest = dict[str, str](json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        said = f"{path.name} cannot be read ({error}); restore it with git checkout, or run make accept."
        return [Artifact(study, "reference files", BROKEN, (said,))]
    present = _digests(project, study)
    lines = []
    for name in dict.fromkeys([*manifest, *present]):
        if manifest.get(name) != present.get(name):
            what = "is gone" if name not in present else "was changed" if name in manifest else "was added"
            lines.append(f"{name} {what} since the reference was accepted")
    return [Artifact(study, "reference files", DIFFERS if lines else IDENTICAL, tuple(lines))]


def _freshness(project: Project, study: str, folder: Path) -> list[Artifact]:
    """Say which inputs have changed since a build, and whether its files are still its own."""
    built = folders.description(folder)
    # Only a run with the notebook's own parameters may become the reference.
    present = runs.key(project, study, {})
    changed = [part for part, digest in present.items() if not built or built["key"].get(part) != digest]
    if changed:
        return [Artifact(study, "build", STALE, (f"{', '.join(changed)} changed since; run make reproduce.",))]
    if not folders.up_to_date(folder, present):
        return [Artifact(study, "build", STALE, ("its files were changed; run make reproduce.",))]
    return []


def _recordings(project: Project, study: str) -> list[Artifact]:
    if not project.responses(study).is_dir():
        return []
    problems = tuple(responses.check(project, study))
    return [Artifact(study, "recorded responses", BROKEN if problems else IDENTICAL, problems)]


def _row_name(frame: pd.DataFrame, row: int) -> str:
    """Name a row by its leading text columns, at most two."""
    texts = [column for column in frame.columns if not pd.api.types.is_numeric_dtype(frame[column])][:2]
    return ", ".join(str(frame[column].iloc[row])[:60] for column in texts) or "no name"


def _value(value: Any) -> str:
    return "empty" if pd.isna(value) else repr(value.item() if isinstance(value, np.generic) else value)


def _settle_pictures(one: Any, other: Any) -> None:
    """Where two cells show pictures that compare well, take the first's for the second's."""
    for a, b in zip(one.outputs, other.outputs, strict=False):
        pictures = [output.get("data", {}).get("image/png") for output in (a, b)]
        if all(pictures) and pictures[0] != pictures[1]:
            try:
                decoded = [BytesIO(base64.b64decode(picture)) for picture in pictures]
            except ValueError:  # then they differ
                continue
            if _compare_pictures(*decoded)[0] in GOOD:
                b["data"]["image/png"] = pictures[0]


def _outputs(one: Any, other: Any) -> str:
    """Say in what two cells' outputs differ, at the first place that does."""
    if len(one.outputs) != len(other.outputs):
        return f"{len(one.outputs)} outputs in the reference, {len(other.outputs)} in this run"
    for a, b in zip(one.outputs, other.outputs, strict=True):
        for kind in sorted({*a.get("data", {}), *b.get("data", {})}):
            if a.get("data", {}).get(kind) != b.get("data", {}).get(kind):
                return f"{kind} differs"
    return "its output differs"
