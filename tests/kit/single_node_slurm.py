"""A SLURM cluster of one node in a folder of its own, out of the packages `slurm-wlm` and `munge`, for tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "sinfo")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
WAIT = 60


def absent() -> list[str]:
    """Return the programs that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


@dataclass
class Cluster:
    """The daemons of a cluster; a context manager that starts them, and ends them with every job."""

    folder: Path = field(init=False)
    _daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which SLURM's commands speak to this cluster."""
        path = f"{self.folder / 'bin'}:{PATH}"
        return {**os.environ, "PATH": path, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def __enter__(self) -> Cluster:
        # A short path: that of a socket is limited to 108 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        self.folder.chmod(0o755)
        for name in ("state", "spool", "munge"):
            (self.folder / name).mkdir(mode=0o755)
        # Within a job, Snakemake calls `srun` without the variable that says where the configuration is; on a usual
        # cluster it is found in /etc.
        srun = self.folder / "bin" / "srun"
        srun.parent.mkdir()
        real = shutil.which("srun", path=PATH)
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {real} "$@"\n')
        srun.chmod(0o755)
        key = self.folder / "munge" / "key-file"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        host, user = socket.gethostname().split(".")[0], psutil.Process().username()
        controller, node = _free_ports(2)
        megabytes = int(psutil.virtual_memory().total / 2**20 * 0.9)
        settings = {
            "ClusterName": "one",
            "SlurmctldHost": f"{host}(127.0.0.1)",
            "SlurmUser": user,
            "SlurmdUser": user,
            "AuthType": "auth/munge",
            "CredType": "cred/munge",
            # A job that is queued again waits as long as its credential lives.
            "AuthInfo": f"socket={self.folder}/munge/socket,cred_expire=20",
            "SlurmctldPort": controller,
            "SlurmdPort": node,
            "SlurmctldPidFile": self.folder / "slurmctld.pid",
            "SlurmdPidFile": self.folder / "slurmd.pid",
            "StateSaveLocation": self.folder / "state",
            "SlurmdSpoolDir": self.folder / "spool",
            "SlurmctldLogFile": self.folder / "slurmctld.log",
            "SlurmdLogFile": self.folder / "slurmd.log",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "JobAcctGatherType": "jobacct_gather/none",
            "AccountingStorageType": "accounting_storage/none",
            "MpiDefault": "none",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_CPU",
            "ReturnToService": 2,
            "SlurmdTimeout": 10,
            "MinJobAge": 600,
            "NodeName": f"{host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} RealMemory={megabytes} State=UNKNOWN",
            "PartitionName": f"all Nodes={host} Default=YES MaxTime=INFINITE State=UP",
        }
        (self.folder / "slurm.conf").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        try:
            munge = self.folder / "munge"
            files = ("key-file", "socket", "pid-file", "log-file", "seed-file")
            # --force: only a warning where others can write the parent folder, as they can /tmp.
            self._start("munged", "--foreground", "--force", *(f"--{name}={munge / name}" for name in files))
            self._until(lambda: (self.folder / "munge" / "socket").exists(), "munged")
            self._start("slurmctld", "-D")
            self.start_node()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if "slurmctld" in self._daemons:
            subprocess.run(["scancel", "--me"], env=self.environment, capture_output=True, timeout=60)
        self.kill_node()
        for daemon in self._daemons.values():
            daemon.terminate()
            daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_node(self) -> None:
        """Start the node's daemon and wait until the controller has it."""
        self._start("slurmd", "-D")
        self._until(lambda: self._node_state() in ("idle", "mix", "alloc"), "slurmd")

    def lose_node(self) -> list[int]:
        """Kill the node as :meth:`kill_node` does and wait until the controller has noticed."""
        killed = self.kill_node()
        self._until(lambda: self._node_state() == "down", "slurmctld")
        return killed

    def kill_node(self) -> list[int]:
        """Kill the node's daemon and everything that runs there, as when a machine loses its power."""
        found = set()
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                ours = process.environ().get("SLURM_CONF") == str(self.folder / "slurm.conf")
                if ours and (process.name() == "slurmd" or "SLURM_JOB_ID" in process.environ()):
                    # The daemon of a step shows no variables of its own.
                    found |= {process, *(p for p in process.parents() if p.name() == "slurmstepd")}
        # All at once: a daemon that outlives its job for a moment would report how that ended.
        for act in (psutil.Process.suspend, psutil.Process.kill):
            for process in found:
                with suppress(psutil.Error):
                    act(process)
        if "slurmd" in self._daemons:
            self._daemons["slurmd"].wait()
        return [process.pid for process in found]

    def states(self) -> list[str]:
        """Return the state of every job that the controller remembers."""
        return self._said("squeue", "--states=all", "--noheader", "--format=%T").split()

    def _node_state(self) -> str:
        return self._said("sinfo", "--noheader", "--format=%t").strip().rstrip("*")

    def _said(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        return done.stdout

    def _start(self, name: str, *arguments: str) -> None:
        program = shutil.which(name, path=PATH)
        assert program is not None, f"{name} is not installed"
        with (self.folder / f"{name}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(
                [program, *arguments], env=self.environment, stdout=out, stderr=out, start_new_session=True
            )

    def _until(self, reached: object, name: str) -> None:
        assert callable(reached)
        for _ in range(WAIT * 5):
            if reached():
                return
            if self._daemons[name].poll() is not None:
                break
            time.sleep(0.2)
        raise AssertionError(f"{name} did not come up: {self._logs()}")

    def _logs(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}"
            for path in sorted(
                [*self.folder.glob("*.log"), *self.folder.glob("*.out"), self.folder / "munge" / "log"]
            )
            if path.is_file()
        )


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
