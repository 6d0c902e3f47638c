"""Several processes that ask one model, behind the interface of a backend.

llama.cpp's threads wait for each other, so two threads on a machine that does anything else are slower than one.
Processes do not wait: each loads the model (the file is mapped into memory once for all of them) and answers its
own requests with one thread. The process that records hands out requests, and alone writes what comes back.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from persona_studies.ask.backends import Backend, ModelInfo, Request, Response, Size
from persona_studies.errors import BackendError, ParameterError, PersonaStudiesError

# Requests that are handed out together. They share the start of their prompt, which a process computes once.
SCORED, TEXTS = 32, 4
# Portions a process holds: the one that it answers, and the next.
HELD = 2
# Cells that are worth a process of their own.
FEWEST = 16
# A portion that ends so many processes is not tried again.
TRIES = 2


def idle_cores() -> int:
    """Return how many cores this process may use and nobody else is using, at least 1.

    Counts the cores that the process is allowed on, a limit of its control group, and the load of the last minute.
    """
    cores = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return max(1, min(allowed, round(cores - load), *_quotas(Path("/sys/fs/cgroup"))))


def _quotas(root: Path) -> list[int]:
    """Return the limits that control groups set, in whole cores."""
    found = []
    with contextlib.suppress(OSError, ValueError):
        quota, period = (root / "cpu.max").read_text().split()
        found.append(int(quota) // int(period))
    with contextlib.suppress(OSError, ValueError):
        quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if int(quota) > 0:
            found.append(int(quota) // int(period))
    return [max(1, cores) for cores in found]


@dataclass
class _Portion:
    """Requests that go to one process together, with their places."""

    requests: dict[int, Request]
    tries: int = 0


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    portions: deque[_Portion] = field(default_factory=deque)

    @property
    def fate(self) -> str:
        self.process.join(5)
        code = self.process.exitcode
        if code is None or code >= 0:
            return f"code {code}"
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name + (", perhaps for want of memory" if code == -signal.SIGKILL else "")
        return f"signal {-code}"


class Workers:
    """A backend whose requests are answered by several processes.

    The answers must not depend on what was asked before; those of llama.cpp's canonical schedule do not.
    """

    def __init__(self, front: Backend, load: Callable[[], Backend], number: int) -> None:
        """Start the processes.

        Args:
            front: The model in this process; it counts tokens and answers nothing.
            load: Loads the same model in a process of its own; picklable.
            number: Processes.
        """
        self.info: ModelInfo = front.info
        # The processes run on the same processor.
        self.instructions: str | None = getattr(front, "instructions", None)
        self._front = front
        # A fork would inherit the threads and the locks of whatever this process has loaded.
        context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        for _ in range(number):
            here, there = context.Pipe()
            process = context.Process(target=_work, args=(there, load), daemon=True)
            process.start()
            there.close()
            self._workers.append(_Worker(process, here))
        for worker in list(self._workers):
            try:
                self._heard(worker, worker.pipe.recv())
            except (EOFError, OSError):
                self._bury(worker)
            except BaseException:
                self._stop()
                raise

    @property
    def number(self) -> int:
        """Processes that are left."""
        return len(self._workers)

    def size(self, request: Request) -> Size:
        return self._front.size(request)

    def respond(self, requests: Iterable[Request]) -> Iterator[tuple[int, Response]]:
        """Yield ``(place, response)`` in the order in which the processes answer.

        A process that ends is reported; the others take over what it has not answered.

        Raises:
            BackendError: a request cannot be answered, the model cannot be loaded, or every process has ended.
        """
        fresh = _portions(requests)
        returned: deque[_Portion] = deque()
        try:
            while True:
                # Everyone gets a first portion before anyone gets a second.
                for worker in [one for held in range(HELD) for one in self._workers if len(one.portions) == held]:
                    portion = returned.popleft() if returned else next(fresh, None)
                    if portion is None:
                        break
                    worker.portions.append(portion)
                    with contextlib.suppress(OSError):  # Its end is noticed below.
                        worker.pipe.send(dict(portion.requests))
                if not any(worker.portions for worker in self._workers):
                    return
                ready = wait([worker.pipe for worker in self._workers])
                for worker in [worker for worker in self._workers if worker.pipe in ready]:
                    try:
                        message = worker.pipe.recv()
                    except (EOFError, OSError):
                        returned += self._bury(worker)
                        continue
                    if answer := self._heard(worker, message):
                        yield answer
        except BaseException:
            # What is on its way belongs to requests that nobody waits for any more.
            self._stop()
            raise

    def close(self) -> None:
        self._stop()
        self._front.close()

    def _heard(self, worker: _Worker, message: Any) -> tuple[int, Response] | None:
        """Take in what a process says: which model it loaded, an answer, or an error."""
        if isinstance(message, str):
            raise BackendError(message)
        if isinstance(message, ModelInfo):
            if message != self.info:
                raise BackendError(f"A worker process loaded another model: {message}, not {self.info}.")
            return None
        place, response = message
        del worker.portions[0].requests[place]
        if not worker.portions[0].requests:
            worker.portions.popleft()
        return place, response

    def _bury(self, worker: _Worker) -> Iterable[_Portion]:
        """Forget a process that has ended and return what it has not answered."""
        self._workers.remove(worker)
        worker.pipe.close()
        left = list(worker.portions)
        if left:
            left[0].tries += 1
        told = f"A worker process of {self.info.name} has ended ({worker.fate})"
        if left and left[0].tries >= TRIES:
            told += f", as another did, at {next(iter(left[0].requests.values())).user[:60]!r}"
        elif self._workers:
            tqdm.write(f"{told}; the other {len(self._workers)} go on.", file=sys.stderr)
            return left
        else:
            told += ", and no other is left"
        raise BackendError(
            f"{told}. What was answered is kept, and the same command goes on; --workers 1 needs the least memory."
        )

    def _stop(self) -> None:
        for worker in self._workers:
            worker.pipe.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(5)
            if worker.process.is_alive():
                worker.process.kill()
        self._workers = []


def wanted(
    front: Backend, *, cells: int, workers: int | None = None, threads: int | None = None, shards: int = 1
) -> int:
    """Return how many processes serve a recording; 1 where the model itself serves best.

    Args:
        cells: Cells that are to be asked.
        workers: Processes; None takes one per idle core.
        threads: Threads of a process that were asked for; a choice of threads is one of a single process.
        shards: Recordings that share the work already; each of them is one process.

    Raises:
        ParameterError: several processes of a model whose answers would depend on it.
    """
    alike = front.info.backend == "llama.cpp" and front.info.schedule == "canonical"
    if not alike and workers is not None and workers > 1:
        raise ParameterError(
            f"--workers {workers} goes with llama.cpp and its canonical schedule, not with {front.info.backend} "
            f"({front.info.schedule}); an endpoint has --concurrency, and a GPU answers in batches."
        )
    if workers is None:
        workers = 1 if threads is not None or shards > 1 else idle_cores()
    return min(workers, -(-cells // FEWEST)) if alike else 1


def _portions(requests: Iterable[Request]) -> Iterator[_Portion]:
    """Cut requests into runs that share the start of their prompt."""
    run: dict[int, Request] = {}
    before: tuple[object, ...] | None = None
    for place, request in enumerate(requests):
        start = (request.kind, request.system, request.shared)
        if run and (start != before or len(run) >= (TEXTS if request.kind == "text" else SCORED)):
            yield _Portion(run)
            run = {}
        before = start
        run[place] = request
    if run:
        yield _Portion(run)


def _work(pipe: Connection, load: Callable[[], Backend]) -> None:
    """Answer portions until the other end hangs up. The body of a worker process."""
    # Ctrl-C reaches every process of a terminal; the one that records ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        backend = load()
        pipe.send(backend.info)
        while True:
            portion: dict[int, Request] = pipe.recv()
            places = list(portion)
            for index, response in backend.respond(portion.values()):
                pipe.send((places[index], response))
    except PersonaStudiesError as error:
        with contextlib.suppress(OSError):
            pipe.send(str(error))
    except (EOFError, OSError):
        pass  # Nobody listens any more.
