"""The environment of make is looked at, mended, and never called ready when it is not. Nothing is downloaded."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import packaging.requirements  # noqa: F401 - the tests hide the folder that it is in
import pytest

from tools import environment
from tools.environment import Fault

ROOT = Path(__file__).parents[2]
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
PINS = {"alpha-beta": "1.0", "gamma": "2.5.1"}


def put(site: Path, name: str, version: str, needs: tuple[str, ...] = ()) -> None:
    """Lay a package into a folder of packages, as an installer does."""
    module = site / name / "__init__.py"
    module.parent.mkdir(parents=True, exist_ok=True)
    module.write_text(f"name = {name!r}\n")
    about = site / f"{name}-{version}.dist-info"
    about.mkdir(exist_ok=True)
    lines = [
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}",
        *(f"Requires-Dist: {need}" for need in needs),
    ]
    (about / "METADATA").write_text("\n".join(lines) + "\n")
    program = site.parents[2] / "bin" / name
    program.parent.mkdir(exist_ok=True)
    program.write_text("#!/usr/bin/python\n")
    rows = [
        f"{name}/__init__.py,sha256={hashlib.sha256(module.read_bytes()).hexdigest()},{module.stat().st_size}",
        f"../../../bin/{name},sha256=x,999",
        f"{name}/__pycache__/__init__.cpython-311.pyc,,",
        f"{about.name}/RECORD,,",
    ]
    (about / "RECORD").write_text("\n".join(rows) + "\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of packages of a .venv that is ready, in a checkout with a blank in its path."""
    root = tmp_path / "My Dokumente"
    packages = root / ".venv" / "lib" / f"python{VERSION}" / "site-packages"
    packages.mkdir(parents=True)
    (root / ".venv" / "pyvenv.cfg").write_text(f"home = /usr/bin\nversion = {sys.version.split()[0]}\n")
    for name, version in PINS.items():
        put(packages, name.replace("-", "_"), version)
    put(packages, "persona_studies", "0.1.0")
    origin = packages / "persona_studies-0.1.0.dist-info" / "direct_url.json"
    origin.write_text(f'{{"url": "{root.as_uri()}", "dir_info": {{"editable": true}}}}')
    (root / ".venv" / "bin" / "python").write_text("")
    monkeypatch.setattr(environment, "ROOT", root)
    monkeypatch.setattr(environment, "VENV", root / ".venv")
    monkeypatch.setattr(environment, "LOG", root / "build" / "environment.log")
    monkeypatch.setattr(environment, "locked", lambda extras: PINS)
    monkeypatch.setattr(sys, "prefix", str(root / ".venv"))
    monkeypatch.setattr(sys, "path", [str(packages)])
    return packages


def fault() -> Fault:
    found = environment.fault_of_venv([])
    assert found is not None
    return found


def test_an_environment_with_every_package_is_ready(site: Path) -> None:
    assert environment.fault_of_venv([]) is None


def test_a_package_that_lacks_or_has_another_version_is_named(site: Path) -> None:
    shutil.rmtree(site / "gamma-2.5.1.dist-info")
    assert fault() == Fault("it lacks gamma==2.5.1", ("gamma==2.5.1",))
    put(site, "gamma", "2.5")
    assert fault().lacking == ("gamma==2.5.1",)


def delete_file(site: Path) -> None:
    (site / "alpha_beta" / "__init__.py").unlink()


def delete_folder(site: Path) -> None:
    shutil.rmtree(site / "alpha_beta")


def cut_file(site: Path) -> None:
    (site / "alpha_beta" / "__init__.py").write_text("")


def delete_record(site: Path) -> None:
    (site / "alpha_beta-1.0.dist-info" / "RECORD").unlink()


def cut_record(site: Path) -> None:
    (site / "alpha_beta-1.0.dist-info" / "RECORD").write_text("alpha_beta/__init__.py,sha2")


@pytest.mark.parametrize("damage", [delete_file, delete_folder, cut_file, delete_record, cut_record])
def test_a_package_with_missing_or_cut_files_is_named(damage: Callable[[Path], None], site: Path) -> None:
    damage(site)
    assert fault() == Fault("files are missing of alpha-beta==1.0", (), ("alpha-beta==1.0",))


def test_programs_may_change_after_they_were_installed(site: Path) -> None:
    (site.parents[2] / "bin" / "gamma").write_text("#!/another/python\n")
    assert environment.fault_of_venv([]) is None


def test_an_environment_that_moved_with_its_folder_is_made_anew(site: Path, tmp_path: Path) -> None:
    (tmp_path / "former").mkdir()
    origin = site / "persona_studies-0.1.0.dist-info" / "direct_url.json"
    for former in (tmp_path / "former", tmp_path / "gone"):
        origin.write_text(f'{{"url": "{former.as_uri()}"}}')
        assert fault() == Fault(f"it was made for the folder {former}", whole=True)


def test_a_library_that_is_not_installed_is_named(site: Path) -> None:
    shutil.rmtree(site / "persona_studies-0.1.0.dist-info")
    assert fault().lacking == ("persona-studies",)


def test_another_python_under_the_same_name_is_noticed(site: Path) -> None:
    (site.parents[2] / "pyvenv.cfg").write_text("version_info = 3.2.1\n")
    assert fault() == Fault(f"it was made for Python 3.2, and its Python is {VERSION} now", whole=True)


def test_a_python_that_does_not_start_is_noticed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/usr")  # another Python looks
    assert fault() == Fault("its Python does not start", whole=True)
    (site.parents[2] / "bin" / "python").unlink()
    assert fault().reason == "it holds no Python"
    shutil.rmtree(site.parents[2])
    assert fault().reason == "there is none"


def test_an_environment_without_the_package_that_reads_versions_is_noticed(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(extras: list[str]) -> dict[str, str]:
        raise ImportError

    monkeypatch.setattr(environment, "locked", lacking)
    assert fault().lacking == ("packaging",)


class Installer:
    """Stands in for uv and pip: notes what it is told, and repairs what it can."""

    def __init__(self, repair: Callable[[int], None]) -> None:
        self.told: list[str] = []
        self.repair = repair

    def __call__(self, command: list[str]) -> None:
        self.told.append(" ".join(command))
        self.repair(len(self.told))


def mend(monkeypatch: pytest.MonkeyPatch, repair: Callable[[int], None], uv: bool = True) -> list[str]:
    installer = Installer(repair)
    which = {"uv": "/usr/bin/uv"} if uv else {}
    monkeypatch.setattr(environment, "install", installer)
    monkeypatch.setattr(environment.shutil, "which", which.get)
    monkeypatch.setattr(environment, "looked_at", environment.fault_of_venv)
    environment.make_venv([])
    return installer.told


def test_what_is_ready_is_not_touched(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mend(monkeypatch, lambda call: None) == []
    assert capsys.readouterr().err == ""


def test_what_lacks_is_added_and_said(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(site / "gamma-2.5.1.dist-info")
    told = mend(monkeypatch, lambda call: put(site, "gamma", "2.5.1"))
    assert told == ["uv sync --frozen --inexact --extra dev"]
    assert capsys.readouterr().err == ".venv: it lacks gamma==2.5.1; installing with uv\n.venv is ready\n"


def test_a_damaged_package_is_installed_once_more_past_the_cache(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete_folder(site)
    told = mend(monkeypatch, lambda call: put(site, "alpha_beta", "1.0"))
    assert told == ["uv sync --frozen --inexact --extra dev --reinstall-package=alpha-beta --no-cache"]


def test_where_adding_does_not_help_the_environment_is_made_anew(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = site.parents[3] / "kept"
    shutil.copytree(site.parents[2], kept)
    delete_folder(site)

    def repair(call: int) -> None:
        if call == 2:
            assert list((site.parents[2]).iterdir()) == []
            shutil.copytree(kept, site.parents[2], dirs_exist_ok=True)

    told = mend(monkeypatch, repair)
    assert [line.split()[1] for line in told] == ["sync", "venv", "sync"]
    assert capsys.readouterr().err.endswith(".venv is ready\n")


def test_an_environment_that_cannot_be_mended_is_never_called_ready(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(site / "gamma-2.5.1.dist-info")
    with pytest.raises(environment.NotReadyError, match="was made anew and still"):
        mend(monkeypatch, lambda call: None)
    assert "ready" not in capsys.readouterr().err


def test_a_folder_that_is_no_environment_is_not_deleted(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(site.parents[2])
    site.parents[2].mkdir()
    (site.parents[2] / "thesis.docx").write_text("")
    with pytest.raises(environment.NotReadyError, match="holds something else than an environment: move it away"):
        mend(monkeypatch, lambda call: None)
    assert (site.parents[2] / "thesis.docx").exists()


def test_without_uv_every_package_comes_from_hashes(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0))
    shutil.rmtree(site / "gamma-2.5.1.dist-info")
    first, second = mend(monkeypatch, lambda call: put(site, "gamma", "2.5.1"), uv=False)
    assert first.endswith("--require-hashes --requirement requirements.lock")
    assert second.endswith("--no-deps --editable .")


# --- An active environment ---------------------------------------------------------------------------------------


@pytest.fixture
def active(site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment of the user's that holds what the project needs, and its folder of packages."""
    monkeypatch.setattr(environment, "required", lambda extras: ["alpha_beta>=1,<2", "gamma>2; python_version>'3'"])
    put(site, "alpha_beta", "1.0", ("delta>=3", "epsilon; extra == 'more'"))
    put(site, "delta", "2.9")
    return site


def complete(monkeypatch: pytest.MonkeyPatch, folder: Path, repair: Callable[[int], None]) -> list[str]:
    installer = Installer(repair)
    monkeypatch.setattr(environment, "install", installer)
    monkeypatch.setattr(environment.shutil, "which", {}.get)
    environment.complete_active(folder, [])
    return [line.partition(" --quiet --no-input ")[2] for line in installer.told]


def test_an_active_environment_with_everything_is_left_alone(
    active: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complete(monkeypatch, active, lambda call: None) == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("folder", "added"),
    [("gamma-2.5.1", "gamma>2"), ("delta-2.9", "delta>=3"), ("persona_studies-0.1.0", "--editable=.")],
)
def test_what_an_active_environment_lacks_is_added(
    folder: str, added: str, active: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _, version = folder.partition("-")
    (active / f"{folder}.dist-info" / "RECORD").unlink()
    shutil.rmtree(active / f"{folder}.dist-info")
    assert complete(monkeypatch, active, lambda call: put(active, name, version)) == [added]


def test_a_too_old_package_of_an_active_environment_is_replaced(
    active: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(active / "gamma-2.5.1.dist-info")
    put(active, "gamma", "1.9")

    def repair(call: int) -> None:
        shutil.rmtree(active / "gamma-1.9.dist-info")
        put(active, "gamma", "2.5.1")

    assert complete(monkeypatch, active, repair) == ["gamma>2"]


def test_a_damaged_package_of_an_active_environment_is_installed_once_more(
    active: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(active / "delta")
    told = complete(monkeypatch, active, lambda call: put(active, "delta", "2.9"))
    assert told == ["--force-reinstall --no-deps delta==2.9"]


def test_an_active_environment_that_stays_incomplete_is_refused(
    active: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(active / "gamma-2.5.1.dist-info")
    with pytest.raises(environment.NotReadyError, match=r"still lacks gamma>2: deactivate it"):
        complete(monkeypatch, active, lambda call: None)


def test_the_library_of_another_checkout_is_noticed(
    active: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    origin = active / "persona_studies-0.1.0.dist-info" / "direct_url.json"
    origin.write_text(f'{{"url": "{tmp_path.as_uri()}"}}')
    assert complete(monkeypatch, active, lambda call: None) == []
    said = capsys.readouterr().err
    assert f"holds the persona-studies of {tmp_path}; make uses the one of {environment.ROOT}" in said


# --- Which Python, and what installers say -----------------------------------------------------------------------


def launcher(tmp_path: Path, *arguments: str, **given: str) -> subprocess.CompletedProcess[str]:
    """Start tools/environment in a checkout whose environment.py says with which Python it was started."""
    shutil.copytree(ROOT / "tools", tmp_path / "tools", dirs_exist_ok=True)
    (tmp_path / "tools" / "environment.py").write_text("import sys; print('started for', sys.argv[1])")
    given = {"PATH": "/usr/bin:/bin"} | given
    return subprocess.run(
        ["tools/environment", *arguments], cwd=tmp_path, env=given, capture_output=True, text=True, check=False
    )


def python(folder: Path, works: bool = True) -> Path:
    """Put a Python into an environment: this one, or one that cannot start."""
    place = folder / "bin" / "python"
    place.parent.mkdir(parents=True)
    place.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n' if works else "#!/nowhere/python\n")
    place.chmod(0o755)
    return folder


def test_the_active_environment_counts_where_it_can_serve(tmp_path: Path) -> None:
    good, dead = python(tmp_path / "Ada's good one"), python(tmp_path / "dead", works=False)
    mine = ".venv/bin/python\n"
    assert launcher(tmp_path, "--which").stdout == mine
    assert launcher(tmp_path, "--which", VIRTUAL_ENV=str(good)).stdout == f"{good}/bin/python\n"
    assert launcher(tmp_path, "--which", VIRTUAL_ENV=str(dead)).stdout == mine
    assert launcher(tmp_path, "--which", VIRTUAL_ENV=str(tmp_path / "gone")).stdout == mine
    assert launcher(tmp_path, "--which", CONDA_PREFIX=str(good), CONDA_DEFAULT_ENV="mine").stdout != mine
    assert launcher(tmp_path, "--which", CONDA_PREFIX=str(good), CONDA_DEFAULT_ENV="base").stdout == mine
    python(tmp_path / ".venv")
    assert launcher(tmp_path, "--which", VIRTUAL_ENV=str(tmp_path / ".venv")).stdout == mine


def test_an_active_environment_that_cannot_serve_is_named(tmp_path: Path) -> None:
    dead = python(tmp_path / "dead", works=False)
    python(tmp_path / ".venv")
    done = launcher(tmp_path, VIRTUAL_ENV=str(dead))
    assert done.stdout == "started for .venv/bin/python\n"
    assert done.stderr == f"the active environment {dead} has no Python 3.11 or newer that starts: .venv is used\n"


def test_another_python_of_the_path_mends_a_dead_environment(tmp_path: Path) -> None:
    python(tmp_path / ".venv", works=False)
    python(tmp_path / "other")
    (tmp_path / "other" / "bin" / "python").rename(tmp_path / "other" / "bin" / "python3.12")
    # A shell and its tools, and no Python beside the one to be found.
    for tool in ("dirname", "sh"):
        (tmp_path / "other" / "bin" / tool).symlink_to(str(shutil.which(tool)))
    done = launcher(tmp_path, PATH=str(tmp_path / "other" / "bin"), PYTHONHOME="/nowhere")
    assert (done.returncode, done.stdout) == (0, "started for .venv/bin/python\n")


def test_a_machine_without_a_python_is_told_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for tool in ("dirname", "sh"):
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    done = launcher(tmp_path, PATH=str(tmp_path / "bin"))
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "Python 3.11 or newer is needed" in done.stderr and "install" in done.stderr


def test_a_failed_installer_ends_in_one_line_that_names_the_wrong_setting(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/missing.pem")
    code = "import sys; print('Collecting x\\nERROR: no http://me:secret@host/simple'); sys.exit(1)"
    with pytest.raises(environment.NotReadyError) as caught:
        environment.install([sys.executable, "-c", code, "pip"])
    said = str(caught.value)
    assert said.startswith("pip failed: no http://***@host/simple. What cannot work in the environment: ")
    assert "SSL_CERT_FILE=/missing.pem (no such file)" in said and "\n" not in said
    assert "Collecting x" in environment.LOG.read_text()


def test_a_failed_installer_without_a_wrong_setting_asks_for_a_connection(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment.network, "advice", lambda: "")
    code = (
        "import sys; print('Temporary failure in name resolution\\nERROR: No matching distribution'); sys.exit(1)"
    )
    with pytest.raises(
        environment.NotReadyError, match=r"pip failed: No matching distribution\. Is there a connection"
    ):
        environment.install([sys.executable, "-c", code, "pip"])


def test_settings_that_lead_elsewhere_do_not_reach_the_installer(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PIP_TARGET", "UV_PROJECT_ENVIRONMENT", "VIRTUAL_ENV", "PYTHONPATH", "PIP_USER"):
        monkeypatch.setenv(name, "/elsewhere")
    environment.install(
        [sys.executable, "-c", "import os; print([n for n, v in os.environ.items() if v == '/elsewhere'])"]
    )
    assert environment.LOG.read_text() == "[]\n"


def test_another_make_is_waited_for(site: Path) -> None:
    with environment.alone() as waited:
        assert not waited
        code = f"import fcntl; fcntl.flock(open({str(environment.LOG.parent / '.environment.lock')!r}), 6)"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "BlockingIOError" in other.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_ends_in_one_line(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(site.parents[2])
    environment.ROOT.chmod(0o500)
    assert environment.main([".venv/bin/python"]) == 1
    environment.ROOT.chmod(0o700)
    assert "The environment cannot be made" in capsys.readouterr().err
