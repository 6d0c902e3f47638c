"""A release: one archive of exactly what a commit holds, with hashes and metadata, the same bytes every time.

``python -m persona_studies.publish.release`` writes ``dist/persona-studies-<version>.tar.gz`` and
``dist/SHA256SUMS``. In the archive, beside the commit's files: ``SHA256SUMS`` of each, and
``ro-crate-metadata.json`` (RO-Crate 1.1).
"""

from __future__ import annotations

import datetime
import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import yaml

from persona_studies.ask import responses
from persona_studies.design import protocol
from persona_studies.errors import PersonaStudiesError
from persona_studies.paths import Project
from persona_studies.reproduce import checkout, verify

FORMATS = {
    ".ipynb": "application/x-ipynb+json",
    ".csv": "text/csv",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".toml": "application/toml",
    ".py": "text/x-python",
    ".md": "text/markdown",
}
CC0 = "https://creativecommons.org/publicdomain/zero/1.0/"
MIT = "https://spdx.org/licenses/MIT"
# As README.md says; everything else is under the licence of the whole.
PUBLIC_DOMAIN = ("data/items/", "data/responses/", "data/results/")


def build(project: Project, target: Path) -> Path:
    """Write the archive of the checked-out commit and its hash into a folder, and return the archive.

    Raises:
        PersonaStudiesError: this is not a git checkout, a file differs from the commit, or the reference of a study
            is not what its manifest or its recording's hashes say.
    """
    commit = checkout.commit(project)
    if commit is None:
        raise PersonaStudiesError(
            f"A release is made of a commit, and {project.root} has none: {checkout.absence(project)}."
        )
    if commit.changed:
        raise PersonaStudiesError(
            f"A release holds what a commit holds, and {len(commit.changed)} files differ from it, first "
            f"{commit.changed[0]}; commit them or put them away (git stash -u)."
        )
    report = verify.reference(project, project.names())
    if not report.ok:
        bad = [
            f"{artifact.study}: {artifact.name} {artifact.status}"
            for artifact in report.artifacts
            if not artifact.ok
        ]
        raise PersonaStudiesError(f"The reference is not as accepted: {'; '.join(bad)}. See make verify.")
    version = tomllib.loads((project.root / "pyproject.toml").read_text())["project"]["version"]
    date = int(datetime.datetime.fromisoformat(commit.date).timestamp())
    name = f"persona-studies-{version}"
    files = tracked(project)
    files["ro-crate-metadata.json"] = (metadata(project, files, commit, version), 0o644)
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {path}\n" for path, (data, _) in sorted(files.items()))
    files["SHA256SUMS"] = (sums.encode(), 0o644)
    packed = io.BytesIO()
    # No file name and no time in gzip's header; in tar's the time of the commit and nobody's name.
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path, (data, mode) in sorted(files.items()):
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size, entry.mode, entry.mtime = len(data), mode, date
            archive.addfile(entry, io.BytesIO(data))
    target.mkdir(parents=True, exist_ok=True)
    made = target / f"{name}.tar.gz"
    made.write_bytes(packed.getvalue())
    digest = hashlib.sha256(packed.getvalue()).hexdigest()
    (target / "SHA256SUMS").write_text(f"{digest}  {made.name}\n")
    return made


def tracked(project: Project) -> dict[str, tuple[bytes, int]]:
    """Return the commit's files by path, each with its content and mode, as ``git archive`` gives them."""
    command = ["git", "-C", str(project.root), "archive", "--format=tar", "HEAD"]
    packed = subprocess.run(command, capture_output=True, check=True).stdout
    found = {}
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for entry in archive:
            if entry.isfile():
                file = archive.extractfile(entry)
                assert file is not None
                found[entry.name] = (file.read(), 0o755 if entry.mode & 0o100 else 0o644)
            elif not entry.isdir():
                raise PersonaStudiesError(f"{entry.name} is neither a file nor a folder; a release holds no links.")
    return found


def metadata(project: Project, files: dict[str, tuple[bytes, int]], commit: checkout.Commit, version: str) -> bytes:
    """Return the RO-Crate description of a release: every file with its hash, each study with its paper and data.

    The citation is that of ``CITATION.cff``; the date is the commit's.
    """
    try:
        from rocrate.model.contextentity import ContextEntity
        from rocrate.rocrate import ROCrate
    except ImportError as error:
        raise PersonaStudiesError("The metadata need the package rocrate: make development") from error
    citation = yaml.safe_load(files["CITATION.cff"][0])
    crate = ROCrate(gen_preview=False)
    crate.name = f"{citation['title']} {version}"
    crate.description = citation["abstract"]
    crate.license = MIT
    crate.datePublished = datetime.datetime.fromisoformat(commit.date)
    crate.keywords = ", ".join(citation["keywords"])
    crate.root_dataset["version"] = version
    crate.root_dataset["identifier"] = commit.id
    crate.root_dataset["author"] = [
        crate.add(ContextEntity(crate, f"#{author['name']}", {"@type": "Organization", "name": author["name"]}))
        for author in citation["authors"]
    ]
    for path, (data, _) in sorted(files.items()):
        properties: dict[str, Any] = {
            "contentSize": str(len(data)),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        if path.startswith(PUBLIC_DOMAIN):
            properties["license"] = CC0
        if (kind := FORMATS.get(Path(path).suffix)) is not None:
            properties["encodingFormat"] = kind
        crate.add_file(project.root / path, dest_path=path, properties=properties)
    for study in project.names():
        _study(project, crate, study, files)
    with tempfile.TemporaryDirectory() as folder:
        crate.metadata.write(folder)
        made = json.loads((Path(folder) / "ro-crate-metadata.json").read_text())
    made["@graph"].sort(key=lambda entity: str(entity["@id"]))
    return (json.dumps(made, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()


def _study(project: Project, crate: Any, study: str, files: dict[str, tuple[bytes, int]]) -> None:
    """Say of a notebook which paper it examines and what it is computed from."""
    from rocrate.model.contextentity import ContextEntity

    declared = protocol.load(project.protocol(study))
    paper = declared.paper
    crate.add(
        ContextEntity(
            crate,
            paper.url,
            {
                "@type": "ScholarlyArticle",
                "name": paper.title,
                "author": paper.authors,
                "datePublished": str(paper.year),
                "isPartOf": paper.venue,
            },
        )
    )
    notebook = crate.dereference(f"studies/{study}.ipynb")
    notebook["name"] = declared.title
    notebook["description"] = declared.question
    notebook["citation"] = {"@id": paper.url}
    used = [path for path in sorted(files) if path.startswith((f"data/responses/{study}/", f"studies/{study}/"))]
    made = [path for path in sorted(files) if path.startswith((f"data/results/{study}/", f"figures/{study}/"))]
    notebook["isBasedOn"] = [{"@id": path} for path in used]
    notebook["hasPart"] = [{"@id": path} for path in made]
    for place in sorted(project.responses(study).glob("*/record.json")):
        record = responses.description(place.parent)
        if record is not None:
            entity = crate.dereference(place.relative_to(project.root).as_posix())
            entity["description"] = (
                f"{record['cells']:,} responses of {record['model']['name']}, recorded with "
                f"{record['model']['backend']} {record['model']['version']}, {record['recorded']['first']} to "
                f"{record['recorded']['last']}"
            )


def main() -> int:
    """Build the release of this checkout."""
    project = Project.find()
    try:
        made = build(project, project.root / "dist")
    except PersonaStudiesError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write((made.parent / "SHA256SUMS").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
