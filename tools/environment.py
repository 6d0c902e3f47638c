"""Make the environment ready in which `make` works, or say in one line why it cannot be. See tools/environment.

An active virtual or conda environment is used as it is: what the project needs and it lacks is added. Otherwise
`.venv` gets the versions of the lock files, by uv where there is one, else by pip with hashes. Nothing marks an
environment as ready: each call looks whether the packages are there, with all their files, and for this folder.

Needs nothing but Python; what it knows of versions and markers comes from the environment's own `packaging`.
"""

from __future__ import annotations

import csv
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
LOG = ROOT / "build" / "environment.log"
sys.path[:0] = [str(ROOT / "lib"), str(ROOT)]

from persona_studies import network  # noqa: E402 - found through the line above

PATIENCE_SECONDS = 30
# Variables that would lead pip or uv to another place, or keep packages back.
MISLEADING = {
    *("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_NO_DEPS", "PIP_CONSTRAINT", "PIP_PYTHON"),
    *("UV_PROJECT", "UV_WORKING_DIRECTORY", "UV_SYSTEM_PYTHON", "UV_LOCKED", "UV_FROZEN", "UV_NO_EDITABLE"),
    *("UV_PYTHON", "UV_EXCLUDE_NEWER", "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME"),
}
# What installers say where they reach nothing.
UNREACHED = re.compile(r"connection|name resolution|resolve|dns error|timed? ?out|unreachable", re.IGNORECASE)


class NotReadyError(Exception):
    """The environment cannot be made ready; the message is for the user."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with an environment.

    Attributes:
        reason: In words.
        lacking: Requirements that are not met.
        damaged: Packages with files that are missing or changed, as `name==version`.
        whole: Whether only making the environment anew helps.
    """

    reason: str
    lacking: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    whole: bool = False


@dataclass(frozen=True)
class Package:
    """An installed package: its version, and the folder that describes it."""

    version: str
    about: Path


def main(arguments: list[str]) -> int:
    python, *words = arguments
    try:
        if words[:1] == ["--check"]:
            fault = fault_of_venv(words[1:])
            sys.stdout.write(json.dumps(asdict(fault) if fault else None))
        elif words[:1] == ["--separate"]:
            make_separate(Path(words[1]), Path(words[2]))
        elif python == ".venv/bin/python":
            make_venv(words)
        else:
            complete_active(Path(python).parents[1], words)
    except NotReadyError as error:
        say(str(error))
        return 1
    except OSError as error:
        say(f"The environment cannot be made: {error}. Make room, or the place writable, and run the same command.")
        return 1
    except KeyboardInterrupt:
        say("Interrupted; the same command goes on.")
        return 130
    return 0


# --- .venv --------------------------------------------------------------------------------------------------


def make_venv(words: list[str]) -> None:
    """Bring .venv to the versions of the lock files, and to requirements that are in none."""
    extras = [word for word in words if word in optional()]
    fault = fault_of_venv(extras)
    if fault:
        mend(extras, fault)
    loose = [word for word in words if word not in extras]
    if loose and fault:
        # What is installed now only .venv's own Python sees.
        os.execv(VENV / "bin" / "python", [sys.executable, __file__, ".venv/bin/python", *words])
    if lacking := unmet(loose, installed())[0]:
        say(f".venv: installing {some(lacking)}, of which no lock file has a version")
        install([*installer(str(VENV / "bin" / "python")), *lacking])


def mend(extras: list[str], fault: Fault) -> None:
    """Install in .venv what it lacks; make it anew where that does not help."""
    with alone() as waited:
        if waited and not looked_at(extras):
            return  # another make has done it
        by = "uv" if shutil.which("uv") else "pip, from hashes"
        left: Fault | None = fault
        if not fault.whole:
            say(f".venv: {fault.reason}; installing with {by}")
            add(extras, fault)
            left = looked_at(extras)
        if left:
            say(f".venv: {left.reason}; making it with {by}, which takes a minute or two")
            empty(VENV)
            make(VENV)
            add(extras, Fault(""))
            left = looked_at(extras)
        if left and left.damaged:
            # The files that uv keeps are the same as those of .venv, and damaged with them.
            add(extras, left)
            left = looked_at(extras)
        if left:
            raise NotReadyError(f".venv was made anew and still {left.reason}; what was said is in {LOG}.")
    say(".venv is ready")


def fault_of_venv(extras: list[str]) -> Fault | None:
    """Return what is wrong with .venv, or None. To be called by its own Python, where that starts."""
    if not os.path.lexists(VENV / "bin" / "python"):
        return Fault("it holds no Python" if VENV.exists() else "there is none", whole=True)
    if not same(Path(sys.prefix), VENV):
        return Fault("its Python does not start", whole=True)
    about = (VENV / "pyvenv.cfg").read_text("utf-8")
    made_for = re.search(r"^version(?:_info)? *= *(\d+\.\d+)", about, re.MULTILINE)
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if made_for and made_for[1] != here:
        return Fault(f"it was made for Python {made_for[1]}, and its Python is {here} now", whole=True)
    packages = installed()
    checkout = checkout_of(packages)
    if checkout and not same(checkout, ROOT):
        return Fault(f"it was made for the folder {checkout}", whole=True)
    try:
        wanted = locked(extras)
    except ImportError:
        return Fault("it lacks packaging, and perhaps more", lacking=("packaging",))
    lacking = [f"{n}=={pin}" for n, pin in wanted.items() if n not in packages or packages[n].version != pin]
    damaged = [f"{n}=={pin}" for n, pin in wanted.items() if n in packages and is_damaged(packages[n])]
    if not checkout:
        lacking.append("persona-studies")
    said = [f"it lacks {some(lacking)}"] * bool(lacking) + [f"files are missing of {some(damaged)}"] * bool(damaged)
    return Fault(" and ".join(said), tuple(lacking), tuple(damaged)) if said else None


def looked_at(extras: list[str]) -> Fault | None:
    """Return what .venv's own Python finds wrong with .venv, or None."""
    command = [str(VENV / "bin" / "python"), __file__, "", "--check", *extras]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return Fault("its Python does not start", whole=True)
    if done.returncode:
        return Fault(f"its Python fails: {done.stderr.strip()[-200:]}", whole=True)
    found = json.loads(done.stdout)
    return Fault(**found) if found else None


def locked(extras: list[str]) -> dict[str, str]:
    """Return the versions that .venv is to have, by name."""
    from packaging.markers import default_environment

    from tools import lock

    here = {name: str(value) for name, value in default_environment().items()}
    pins = lock.in_pip_lock(lock.PIP_LOCK.read_text("utf-8"), here)
    if not set(extras) <= set(lock.EXTRAS):
        pins |= lock.in_uv_lock(tomllib.loads(lock.UV_LOCK.read_text("utf-8")), tuple(extras), here)
    return {name: pin.version for name, pin in pins.items()}


def add(extras: list[str], fault: Fault) -> None:
    """Install in .venv what the lock files say and it lacks, and the library itself, editable."""
    python = str(VENV / "bin" / "python")
    if shutil.which("uv"):
        wanted = [word for extra in dict.fromkeys(["dev", *extras]) for word in ("--extra", extra)]
        again = [f"--reinstall-package={one.partition('==')[0]}" for one in fault.damaged]
        install(["uv", "sync", "--frozen", "--inexact", *wanted, *again, *(["--no-cache"] if again else [])])
        return
    pip = installer(python)
    if subprocess.run([python, "-c", "import pip"], capture_output=True, check=False).returncode:
        install([python, "-m", "ensurepip"])
    install([*pip, "--require-hashes", "--requirement", "requirements.lock"])
    if not set(extras) <= {"dev", "api", "release"}:
        # Their versions and hashes stand in uv.lock only.
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            lines = subprocess.run(
                [python, "tools/lock.py", *extras], cwd=ROOT, capture_output=True, text=True, check=True
            )
            file.write(lines.stdout)
            file.flush()
            install([*pip, "--require-hashes", "--requirement", file.name])
    if fault.damaged:
        install([*pip, "--force-reinstall", "--no-deps", *fault.damaged])
    install([*pip, "--no-deps", "--editable", "."])


def make(folder: Path) -> None:
    """Make an environment without packages, with the base of the Python that runs."""
    base = str(getattr(sys, "_base_executable", sys.executable))
    if sys.version_info >= (3, 14):
        say(f"Python {sys.version_info.major}.{sys.version_info.minor} is newer than what is tested, 3.11 to 3.13")
    if shutil.which("uv"):
        install(["uv", "venv", "--python", base, str(folder)])
    else:
        install([base, "-m", "venv", str(folder)])


def empty(folder: Path) -> None:
    """Delete the content of an environment; refuse to delete anything else."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise NotReadyError(f"{folder} is in the place of the environment and is not a folder: move it away.")
    if (
        any(folder.iterdir())
        and not (folder / "pyvenv.cfg").is_file()
        and not os.path.lexists(folder / "bin" / "python")
    ):
        raise NotReadyError(f"{folder} holds something else than an environment: move it away.")
    for entry in list(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


# --- An active environment, and separate ones ---------------------------------------------------------------


def complete_active(folder: Path, extras: list[str]) -> None:
    """Add to the active environment what the project needs and it lacks."""
    wanted = required(extras)
    packages = installed()
    lacking, damaged = unmet(wanted, packages)
    if "persona-studies" not in packages:
        lacking.append("--editable=.")
    if lacking or damaged:
        with alone():
            say(f"{folder}: installing {some([*lacking, *damaged])}")
            into = installer(str(folder / "bin" / "python"))
            if lacking:
                install([*into, *lacking])
            if damaged:
                again = "--reinstall" if shutil.which("uv") else "--force-reinstall"
                install([*into, again, "--no-deps", *damaged])
        lacking, damaged = unmet(wanted, installed())
        if lacking or damaged:
            raise NotReadyError(
                f"{folder} was completed and still lacks {some([*lacking, *damaged])}: deactivate it, and `make` "
                f"makes .venv. What was said is in {LOG}."
            )
    checkout = checkout_of(installed())
    if checkout and not same(checkout, ROOT):
        say(f"{folder} holds the persona-studies of {checkout}; make uses the one of {ROOT}")


def required(extras: list[str]) -> list[str]:
    """Return the requirements of the project with some extras; another word is a requirement itself."""
    return [*project()["dependencies"], *(text for word in extras for text in optional().get(word, [word]))]


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return found


def optional() -> dict[str, list[str]]:
    found: dict[str, list[str]] = project()["optional-dependencies"]
    return found


def unmet(wanted: list[str], packages: dict[str, Package]) -> tuple[list[str], list[str]]:
    """Return the requirements that are not met, and the packages with missing files, among all that is needed.

    Of what the requirements need in turn, any version serves: that is the installer's business.
    """
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return [*wanted], []
    lacking: dict[str, None] = {}
    damaged: dict[str, None] = {}
    seen = set()
    waiting = [(text, "", True) for text in wanted]
    while waiting:
        text, extra, direct = waiting.pop()
        one = Requirement(text)
        if (text, extra) in seen or (one.marker and not one.marker.evaluate({"extra": extra})):
            continue
        seen.add((text, extra))
        package = packages.get(normal(one.name))
        if package is None or (direct and not one.specifier.contains(package.version, prereleases=True)):
            lacking[text.partition(";")[0].strip()] = None
            continue
        if is_damaged(package, sizes=False):
            damaged[f"{one.name}=={package.version}"] = None
        needs = metadata.Distribution.at(package.about).requires or []
        waiting += [(need, name, False) for need in needs for name in ("", *one.extras)]
    return list(lacking), list(damaged)


def make_separate(folder: Path, requirements: Path) -> None:
    """Make an environment of its own from a file of pinned requirements, unless it is there with all of them."""
    lines = requirements.read_text("utf-8").split("\n")
    wanted = {tuple(line.split("==")) for line in lines if line and not line.startswith("#")}
    python = folder / "bin" / "python"
    code = f"from importlib.metadata import version; assert all(version(n) == v for n, v in {wanted!r})"
    if python.exists() and not subprocess.run([python, "-c", code], capture_output=True, check=False).returncode:
        return
    with alone():
        say(f"making {folder}")
        empty(folder)
        make(folder)
        install([*installer(str(python)), "--requirement", str(requirements)])


# --- What is installed --------------------------------------------------------------------------------------


def installed() -> dict[str, Package]:
    """Return the packages that the running Python finds, by name."""
    found: dict[str, Package] = {}
    for place in reversed(
        [Path(place) for place in sys.path if place.endswith(("site-packages", "dist-packages"))]
    ):
        for entry in os.scandir(place) if place.is_dir() else ():
            if entry.name.endswith(".dist-info"):
                name, _, version = entry.name.removesuffix(".dist-info").rpartition("-")
                found[normal(name)] = Package(version, Path(entry.path))
    return found


def is_damaged(package: Package, *, sizes: bool = True) -> bool:
    """Return whether a file that was installed is missing, or is not of the size that it had.

    Files without a hash are not looked at: compiled ones, and the list itself. Programs and settings outside the
    packages' folder may have changed since, and conda's packages do not keep to their sizes.
    """
    place = str(package.about.parent)
    try:
        with (package.about / "RECORD").open(encoding="utf-8", newline="") as file:
            for path, digest, size in csv.reader(file):
                if not digest:
                    continue
                length = os.stat(f"{place}/{path}").st_size  # noqa: PTH116 - 27,000 times
                if sizes and size and not path.startswith("..") and length != int(size):
                    return True
    except (OSError, ValueError):
        return True
    return False


def checkout_of(packages: dict[str, Package]) -> Path | None:
    """Return the folder that persona-studies is installed from."""
    if "persona-studies" not in packages:
        return None
    text = metadata.Distribution.at(packages["persona-studies"].about).read_text("direct_url.json")
    found = re.search(r'"url": *"(file:[^"]*)"', text or "")
    return Path(url2pathname(urlsplit(found[1]).path)) if found else packages["persona-studies"].about


# --- Small things -------------------------------------------------------------------------------------------


def installer(python: str) -> list[str]:
    """Return the command that installs packages for a Python."""
    if shutil.which("uv"):
        return ["uv", "pip", "install", "--python", python]
    return [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-input"]


def install(command: list[str]) -> None:
    """Run an installer; where it fails, say why in one line.

    Raises:
        NotReadyError: it failed.
    """
    LOG.parent.mkdir(exist_ok=True)
    clean = {name: value for name, value in os.environ.items() if name not in MISLEADING}
    clean |= {"UV_PROJECT_ENVIRONMENT": ".venv", "PIP_USER": "0"}
    started = time.monotonic()
    with LOG.open("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=clean, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            while process.poll() is None:
                try:
                    process.wait(PATIENCE_SECONDS)
                except subprocess.TimeoutExpired:
                    say(f"  still installing, {time.monotonic() - started:.0f} s")
        finally:
            process.terminate()
        log.seek(0)
        said = log.read()
    if process.returncode:
        tool = next(name for name in ("uv", "ensurepip", "venv", "pip") if name in map(os.path.basename, command))
        advice = network.advice() or (
            " Is there a connection to a package index?" if UNREACHED.search(said) else ""
        )
        raise NotReadyError(f"{tool} failed: {reason(said)}.{advice} All that it said is in {LOG}.")


def reason(said: str) -> str:
    """Return the line in which an installer says why it failed."""
    lines = [line.strip(" ×╰─▶→|├│") for line in said.splitlines() if line.strip()]
    causes = [line for line in lines if re.match(r"(ERROR|error|Caused by|WARNING: Retrying)\b", line)]
    chosen = causes[-1:] or lines[-1:] or ["it said nothing"]
    return re.sub(r"^(ERROR|error|Caused by):\s*", "", network.without_password(chosen[0])).rstrip(".")


@contextmanager
def alone() -> Iterator[bool]:
    """Hold the lock of those that make environments here; yield whether another held it before."""
    LOG.parent.mkdir(exist_ok=True)
    with (LOG.parent / ".environment.lock").open("w") as lock:
        waited = False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another make that makes the environment")
            waited = True
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield waited


def same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def some(names: list[str]) -> str:
    """Return the first of some names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
