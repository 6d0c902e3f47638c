"""Run commands in processes of their own, several at a time."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Generator, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, TypeVar

from persona_studies.paths import Project

K = TypeVar("K", bound=Hashable)


def cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    project: Project, commands: Mapping[K, Sequence[str]], *, jobs: int, shown: bool = False
) -> Generator[tuple[K, str | None]]:
    """Run commands, so many at a time, and yield each as it ends: its name, and why it failed or None.

    Args:
        commands: Name -> words of the command.
        jobs: So many at the same time.
        shown: Let the commands write to this process's standard output.

    An exception here, or one in the caller's loop, interrupts the running commands, as Ctrl-C would, and waits for
    them.
    """
    alive: list[subprocess.Popen[str]] = []

    def start(command: Sequence[str]) -> str | None:
        with subprocess.Popen(
            command,
            env={**os.environ, "PERSONA_STUDIES_ROOT": str(project.root)},
            stdout=None if shown else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # The terminal's Ctrl-C reaches this process alone, which passes it on once.
            start_new_session=True,
        ) as process:
            alive.append(process)
            _, said = process.communicate()
            alive.remove(process)
        if process.returncode:
            return said.strip() or f"exit code {process.returncode}"
        return None

    # Processes are interrupted before the pool waits for the threads that watch them.
    with ThreadPoolExecutor(jobs) as pool:
        futures: dict[Any, K] = {pool.submit(start, command): name for name, command in commands.items()}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(alive):
                process.send_signal(signal.SIGINT)
            raise
