"""Compare requirements.lock, from which pip installs, with uv.lock, from which `make lock` makes it. Needs no uv.

Run as a script it prints every disagreement and fails, or with names of extras prints what pip needs for them:

    python tools/lock.py              # for `make check`
    python tools/lock.py live gpu     # requirements with hashes, for this Python and this machine
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
UV_LOCK, PIP_LOCK = ROOT / "uv.lock", ROOT / "requirements.lock"

# What requirements.lock holds beside the dependencies: the tests, and with them endpoints and releases.
EXTRAS = ("dev", "api", "release")

PYTHONS = ("3.11.0", "3.11.9", "3.12.0", "3.12.9", "3.13.0", "3.14.0")
# sys_platform, platform_system, os_name and the names that platform_machine has there.
SYSTEMS = (
    ("linux", "Linux", "posix", ("x86_64", "aarch64")),
    ("darwin", "Darwin", "posix", ("x86_64", "arm64")),
    ("win32", "Windows", "nt", ("AMD64", "ARM64")),
)


@dataclass(frozen=True)
class Pin:
    """A version and the SHA-256 hashes of its files."""

    version: str
    hashes: frozenset[str]


def environments() -> Iterator[dict[str, str]]:
    """Yield the markers of every Python and kind of machine that is compared."""
    for python in PYTHONS:
        for platform, system, name, machines in SYSTEMS:
            for machine in machines:
                yield {
                    "python_full_version": python,
                    "python_version": python.rpartition(".")[0],
                    "implementation_version": python,
                    "implementation_name": "cpython",
                    "platform_python_implementation": "CPython",
                    "sys_platform": platform,
                    "platform_system": system,
                    "os_name": name,
                    "platform_machine": machine,
                }


def in_uv_lock(lock: dict[str, Any], extras: tuple[str, ...], environment: dict[str, str]) -> dict[str, Pin]:
    """Return what uv.lock installs in an environment, by name: the dependencies and those of some extras.

    Args:
        lock: The content of uv.lock.
        extras: Names of optional dependencies of this project.
        environment: Values of the markers.

    Raises:
        KeyError: an extra that the project does not have.
    """
    packages: dict[str, list[dict[str, Any]]] = {}
    for package in lock["package"]:
        packages.setdefault(package["name"], []).append(package)
    (project,) = (package for package in lock["package"] if "editable" in package["source"])
    found: dict[str, Pin] = {}
    seen = set()
    waiting = [(project, ""), *((project, extra) for extra in extras)]
    while waiting:
        package, extra = waiting.pop()
        if (package["name"], extra) in seen:
            continue
        seen.add((package["name"], extra))
        if package is not project:
            files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
            hashes = frozenset(file["hash"].removeprefix("sha256:") for file in files)
            found[package["name"]] = Pin(package["version"], hashes)
        needs = package["optional-dependencies"][extra] if extra else package.get("dependencies", [])
        for need in needs:
            if "marker" in need and not _marker(need["marker"]).evaluate(environment):
                continue
            # A version is named only where the lock holds several.
            (chosen,) = (one for one in packages[need["name"]] if need.get("version") in (None, one["version"]))
            waiting += [(chosen, ""), *((chosen, one) for one in need.get("extra", []))]
    return found


def in_pip_lock(text: str, environment: dict[str, str]) -> dict[str, Pin]:
    """Return what a lock file of pip installs in an environment, by name."""
    return {
        requirement.name: pin
        for requirement, pin in _entries(text)
        if requirement.marker is None or requirement.marker.evaluate(environment)
    }


# Read once, not once for each environment.
_marker = cache(Marker)


@cache
def _entries(text: str) -> list[tuple[Requirement, Pin]]:
    found = []
    for entry in text.replace("\\\n", " ").splitlines():
        if entry.strip() and not entry.startswith("#"):
            words, *hashes = entry.split("--hash=sha256:")
            requirement = Requirement(words)
            version = str(requirement.specifier).removeprefix("==")
            found.append((requirement, Pin(version, frozenset(h.strip() for h in hashes))))
    return found


def disagreements(lock: dict[str, Any], text: str) -> list[str]:
    """Return one line for each package in which the two lock files differ, for whatever Python and machine."""
    lines: dict[str, None] = {}
    for environment in environments():
        uv, pip = in_uv_lock(lock, EXTRAS, environment), in_pip_lock(text, environment)
        for name in sorted(uv.keys() | pip.keys()):
            if name not in pip:
                lines[f"{name} {uv[name].version} is in uv.lock only"] = None
            elif name not in uv:
                lines[f"{name} {pip[name].version} is in requirements.lock only"] = None
            elif uv[name].version != pip[name].version:
                lines[f"{name} is {uv[name].version} in uv.lock, {pip[name].version} in requirements.lock"] = None
            elif uv[name].hashes != pip[name].hashes:
                lines[f"{name} {uv[name].version} has other hashes in requirements.lock"] = None
    return list(lines)


def requirements(lock: dict[str, Any], extras: tuple[str, ...]) -> str:
    """Return pip's requirements, with hashes, of the dependencies and some extras in the running Python."""
    here = {name: str(value) for name, value in default_environment().items()}
    pins = in_uv_lock(lock, extras, here)
    return "".join(
        f"{name}=={pin.version}" + "".join(f" --hash=sha256:{h}" for h in sorted(pin.hashes)) + "\n"
        for name, pin in sorted(pins.items())
    )


def main(extras: list[str]) -> int:
    lock = tomllib.loads(UV_LOCK.read_text(encoding="utf-8"))
    if extras:
        sys.stdout.write(requirements(lock, tuple(extras)))
        return 0
    differ = disagreements(lock, PIP_LOCK.read_text(encoding="utf-8"))
    for line in differ:
        sys.stderr.write(f"{line}\n")
    if differ:
        sys.stderr.write("requirements.lock is not what uv.lock says; `make lock` makes it anew (needs uv).\n")
    return int(bool(differ))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
