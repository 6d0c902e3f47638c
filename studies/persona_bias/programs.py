"""MBPP: problems whose answer is a program. The program is a model's, so it is run in a sandbox or not at all.

The sandbox is bubblewrap: namespaces of its own (no network, no other processes, another user), a file system that
holds the interpreter and the system's programs and libraries and can be written nowhere, an empty environment, no
capabilities. A filter of system calls refuses new processes and threads, and the calls that would get around the
limits of time, memory and output.

What a program prints never decides, and it cannot reach what judges it: its process only computes values. Which
values are expected is not in that process; a second one, which runs nothing a model wrote, compares.
"""

from __future__ import annotations

import ast
import functools
import json
import platform
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import pandas as pd
from pydantic import Field
from statsmodels.stats.proportion import proportion_confint

from persona_studies.analyse import multiple_choice as shared
from persona_studies.design import banks, sources
from persona_studies.design.plan import text_hash
from persona_studies.errors import RunError, SourceError
from persona_studies.paths import Project

if TYPE_CHECKING:
    from persona_bias.design import Parameters

SOURCE = "mbpp-sanitized"
FACTS = ["item", "task", "tests", "item_hash"]
# MBPP's test split; the paper asks its 257 problems (Gupta et al. 2024, Table 4).
SPLIT = range(11, 511)
STATUSES = ("passed", "wrong", "error", "stopped", "no program", "failed")

SECONDS = 10
WALL_SECONDS = 40
LIMITS = {
    "RLIMIT_CPU": SECONDS,
    "RLIMIT_AS": 512 * 2**20,
    # Nothing can be written but the standard output.
    "RLIMIT_FSIZE": 64 * 2**10,
    "RLIMIT_NOFILE": 16,
    "RLIMIT_CORE": 0,
}
ERROR = 4
# Evaluates expressions after pieces of code, and writes the values as literals in the last line of its output.
DRIVER = f"""
import json, os, resource, sys
for name, value in {LIMITS!r}.items():
    resource.setrlimit(getattr(resource, name), (value, value))

def plain(value):
    for kind in (bool, int, float, complex, str, bytes):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, dict):
        return {{plain(key): plain(one) for key, one in value.items()}}
    for kind, made in ((list, list), (tuple, tuple), (set, set), (frozenset, set)):
        if isinstance(value, kind):
            return made(map(plain, value))
    return value

given = json.load(sys.stdin)
space = {{"__name__": "program"}}
try:
    for code in given["code"]:
        exec(compile(code, "program", "exec"), space)
    values = [repr(plain(eval(compile(one, "call", "eval"), space))) for one in given["expressions"]]
    os.write(1, b"\\n" + json.dumps(values).encode())
except BaseException:
    os._exit({ERROR})
os._exit(0)
"""
# What is refused: processes and threads, namespaces and mounts, memory that no limit counts, and ways into the
# kernel or another process; no problem of MBPP needs one. Name, number on x86_64, number on aarch64.
REFUSED = (
    ("clone", 56, 220),
    ("fork", 57, None),
    ("vfork", 58, None),
    ("clone3", 435, 435),
    ("unshare", 272, 97),
    ("setns", 308, 268),
    ("mount", 165, 40),
    ("open_tree", 428, 428),
    ("move_mount", 429, 429),
    ("fsopen", 430, 430),
    ("fsmount", 432, 432),
    ("shmget", 29, 194),
    ("memfd_create", 319, 279),
    ("ptrace", 101, 117),
    ("bpf", 321, 280),
    ("userfaultfd", 323, 282),
    ("perf_event_open", 298, 241),
    ("io_uring_setup", 425, 425),
    ("add_key", 248, 217),
    ("request_key", 249, 218),
    ("keyctl", 250, 219),
)
# Machine -> its number in a filter, and its numbers of what is refused.
MACHINES = {
    "x86_64": (0xC000003E, [x86 for _, x86, _ in REFUSED]),
    "aarch64": (0xC00000B7, [arm for _, _, arm in REFUSED if arm is not None]),
}
RESULT = "result"


@dataclass(frozen=True)
class Check:
    """One test of a problem.

    Attributes:
        call: The call of the program.
        holds: What must hold of its ``result``, as an expression.
    """

    call: str
    holds: str

    @classmethod
    def of(cls, test: str, names: Collection[str]) -> Check:
        """Split an ``assert`` of a problem whose program defines these names.

        Raises:
            SourceError: it is not an ``assert`` with one call of the program.

        >>> Check.of("assert set(f([1, 2])) == {1}", ["f"])
        Check(call='f([1, 2])', holds='set(result) == {1}')
        """
        calls: list[str] = []

        class Cut(ast.NodeTransformer):
            def visit_Call(self, node: ast.Call) -> ast.expr:
                if isinstance(node.func, ast.Name) and node.func.id in names:
                    calls.append(ast.unparse(node))
                    return ast.Name(RESULT, ast.Load())
                self.generic_visit(node)
                return node

        [statement] = ast.parse(test).body
        if isinstance(statement, ast.Assert):
            holds = ast.unparse(Cut().visit(statement.test))
            if len(calls) == 1:
                return cls(calls[0], holds)
        raise SourceError(f"A test of {SOURCE} is not an assert with one call of the program: {test!r}.")


class Problem(banks.Row):
    """A problem of MBPP, without its text."""

    unique = (("item",), ("task",), ("item_hash",))

    item: banks.Name
    task: Annotated[int, Field(ge=1)]
    tests: Annotated[int, Field(ge=1)]
    item_hash: banks.Hash


def problems(project: Project, *, texts: bool = False) -> pd.DataFrame:
    """Return the problems: ``item, task`` (MBPP's number), ``tests`` (how many), ``item_hash``.

    With texts also ``text`` (the problem and its tests, as it is asked), ``checks`` (the tests, each a
    :class:`Check`) and ``imports`` (what the tests import).

    Raises:
        SourceError: the source cannot be had; without texts none is needed.
    """
    if not texts:
        return banks.read(project.items / "persona_bias" / "mbpp.csv", Problem)
    rows = []
    for entry in json.loads(sources.fetch(project, SOURCE).read_text("utf-8")):
        if entry["task_id"] not in SPLIT:
            continue
        shown = "\n".join(entry["test_list"])
        defined = [node.name for node in _parse(entry["code"]).body if isinstance(node, ast.FunctionDef)]
        rows.append(
            {
                "item": f"mbpp/test/{entry['task_id']:03d}",
                "task": entry["task_id"],
                "tests": len(entry["test_list"]),
                "item_hash": text_hash(entry["prompt"], *entry["test_imports"], *entry["test_list"]),
                "text": f"{entry['prompt'].strip()}\n\nThe program must pass these tests:\n{shown}",
                "checks": tuple(Check.of(test, defined) for test in entry["test_list"]),
                "imports": tuple(entry["test_imports"]),
            }
        )
    return pd.DataFrame(rows)


def program(reply: str) -> str | None:
    """Return the program in a reply: its first fenced block, or all from its first definition or import on.

    Lines at the end that are no Python are cut off, because a reply may end in prose or be truncated.

    >>> program("Sure:\\n```python\\ndef f():\\n    return 1\\n```\\nDone.")
    'def f():\\n    return 1'
    >>> program("def f():\\n    return 1\\nThis returns one."), program("I cannot.")
    ('def f():\\n    return 1', None)
    """
    fenced = re.search(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", reply, re.DOTALL | re.IGNORECASE)
    start = re.search(r"^(?:def|import|from|class|@)\b.*", fenced[1] if fenced else reply, re.DOTALL | re.MULTILINE)
    if not start:
        return None
    lines = start[0].rstrip().splitlines()
    while lines:
        try:
            _parse("\n".join(lines))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            lines.pop()
            continue
        return "\n".join(lines).rstrip()
    return None


def _parse(code: str) -> ast.Module:
    # What Python thinks of a foreign program's style is no output of a notebook.
    with warnings.catch_warnings(action="ignore"):
        return ast.parse(code)


def run(code: str, checks: Sequence[Check], imports: Sequence[str] = ()) -> str:
    """Run a program in the sandbox and see whether its tests hold.

    Returns:
        ``passed`` (every test held), ``wrong`` (one did not, or a result is no literal), ``error`` (an exception, a
        limit of memory or output, or an end before the tests) or ``stopped`` (a limit of time).

    Raises:
        RunError: programs cannot be isolated here; nothing was run.
    """
    sandbox()
    return _run(code, checks, imports)


@functools.cache
def sandbox() -> Path:
    """Return bubblewrap, after checking that it isolates here.

    Raises:
        RunError: it is not installed, is refused by this system, or does not keep a program in.
    """
    found, machine = shutil.which("bwrap"), platform.machine()
    if found is None or machine not in MACHINES:
        why = (
            f"no filter of system calls is known for {machine}" if found else "bubblewrap (bwrap) is not installed"
        )
        raise RunError(
            f"Model-written programs cannot be isolated here: {why}. They are not run. Use Linux on "
            f"{' or '.join(MACHINES)} with bubblewrap from the system's packages (apt install bubblewrap, or "
            "dnf install bubblewrap), or leave run_code off."
        )
    trial = "import os\ntry:\n    os.fork()\n    kept = False\nexcept PermissionError:\n    kept = True"
    if (said := _run(trial, [Check("kept", RESULT)])) != "passed":
        raise RunError(
            f"Model-written programs cannot be isolated here: a trial in bubblewrap ended as {said!r}, most often "
            "because this system forbids user namespaces. They are not run; use another machine, or leave run_code "
            "off."
        )
    return Path(found)


def _run(code: str, checks: Sequence[Check], imports: Sequence[str] = ()) -> str:
    values = _evaluate([code, *imports], [check.call for check in checks])
    if isinstance(values, str):
        return values
    if len(values) != len(checks):
        return "error"
    # The values are claims of untrusted code: read as literals, in a process that runs none of it.
    held = _evaluate(
        ["import ast", *imports],
        [
            f"(lambda {RESULT}: bool({check.holds}))(ast.literal_eval({value!r}))"
            for check, value in zip(checks, values, strict=True)
        ],
    )
    return "passed" if held == ["True"] * len(checks) else "wrong"


def _evaluate(code: Sequence[str], expressions: Sequence[str]) -> list[str] | str:
    """Return the values of expressions as Python would write them, or ``error`` or ``stopped``."""
    given = json.dumps({"code": list(code), "expressions": list(expressions)})
    interpreter = Path(sys.executable).resolve()
    places = [Path(sys.base_prefix).resolve(), *map(Path, ("/usr", "/lib", "/lib64", "/bin"))]
    command: list[str | Path] = [
        *(str(shutil.which("bwrap")), "--unshare-all", "--unshare-user", "--die-with-parent", "--new-session"),
        *("--uid", "65534", "--gid", "65534", "--cap-drop", "ALL", "--clearenv"),
        *(part for place in places for part in ("--ro-bind-try", place, place)),
        *("--remount-ro", "/", "--chdir", "/"),
    ]
    with tempfile.TemporaryFile() as calls, tempfile.TemporaryFile() as output:
        calls.write(_filter(platform.machine()))
        calls.seek(0)
        command += ["--seccomp", str(calls.fileno()), interpreter, "-I", "-S", "-c", DRIVER]
        try:
            done = subprocess.run(
                command,
                input=given.encode(),
                stdout=output,
                stderr=subprocess.DEVNULL,
                env={},
                timeout=WALL_SECONDS,
                pass_fds=[calls.fileno()],
            )
        except subprocess.TimeoutExpired:
            return "stopped"
        output.seek(0)
        said = output.read().rpartition(b"\n")[2]
    if done.returncode:
        # bubblewrap passes on the number of the signal that ended a program, plus 128.
        of_time = {128 + signal.SIGKILL, 128 + signal.SIGXCPU}
        return "stopped" if done.returncode in of_time else "error"
    try:
        values = json.loads(said)
    except (ValueError, RecursionError):
        return "error"
    known = isinstance(values, list) and all(isinstance(value, str) for value in values)
    return values if known else "error"


def _filter(machine: str) -> bytes:
    """Return a filter that refuses :data:`REFUSED`, as a classic BPF program.

    It kills what calls by another machine's numbers, or by those of x32 (seccomp(2), "Caveats").
    """
    load, equal, least, give = 0x20, 0x15, 0x35, 0x06
    kill, refuse, allow = 0x80000000, 0x00050001, 0x7FFF0000
    architecture, calls = MACHINES[machine]
    lines = [(load, 0, 0, 4), (equal, 1, 0, architecture), (give, 0, 0, kill), (load, 0, 0, 0)]
    lines += [(least, 0, 1, 0x40000000), (give, 0, 0, kill)]
    lines += [(equal, len(calls) - place, 0, number) for place, number in enumerate(calls)]
    lines += [(give, 0, 0, allow), (give, 0, 0, refuse)]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def solve(recorded: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
    """Run the program of every reply.

    Args:
        recorded: Responses; rows of other measures are passed over.
        asked: Problems, with their tests where there are replies.

    Returns:
        ``condition, item, status, passed``; status is one of :data:`STATUSES`: that of :func:`run`, or ``no
        program`` (the reply holds none), or ``failed`` (the model refused).

    Raises:
        RunError: programs cannot be isolated here.
    """
    cells = recorded[recorded["measure"] == "code"]
    if cells.empty:
        return pd.DataFrame(columns=["condition", "item", "status", "passed"])
    sandbox()
    of = asked.set_index("item")[["checks", "imports"]]
    status = []
    for item, text, finish in cells[["item", "text", "finish"]].itertuples(index=False, name=None):
        code = program(text) if finish != "failed" and isinstance(text, str) else None
        status.append(
            "failed" if finish == "failed" else "no program" if code is None else run(code, *of.loc[item])
        )
    return cells[["condition", "item"]].assign(status=status, passed=[one == "passed" for one in status])


def summary(solved: pd.DataFrame, people: pd.DataFrame, chosen: Parameters) -> pd.DataFrame:
    """Return per persona how many problems are solved, and the difference to the baseline, paired by problem.

    Args:
        solved: Of :func:`solve`.
        people: Conditions, as :func:`persona_bias.people` returns them.
        chosen: Baseline, confidence, margin, replicates, seed.

    Returns:
        ``persona, problems, solved, solved_low, solved_high`` (share, exact binomial interval), ``difference, low,
        high, p`` (sign flip by problem; not corrected; NaN where no problem tells the two apart), and the share of
        every status. No row where nothing was asked.
    """
    columns = ["persona", "problems", "solved", "solved_low", "solved_high"]
    columns += ["difference", "low", "high", "p", *STATUSES]
    if solved.empty:
        return pd.DataFrame(columns=columns)
    cells = solved.merge(people[["condition", "persona"]], on="condition")
    cells = cells.assign(passed=cells["passed"].astype(float), benchmark="mbpp", cluster=cells["item"])
    wide = cells.pivot_table(index=["benchmark", "item", "cluster"], columns="persona", values="passed", sort=False)
    rows = []
    for persona, group in cells.groupby("persona", sort=False):
        there = chosen.baseline in wide and persona != chosen.baseline
        difference = (
            wide[persona] - wide[chosen.baseline] if there else pd.Series(dtype=float, index=wide.index[:0])
        )
        [found] = shared.paired(
            difference.to_frame(),
            confidence=chosen.confidence,
            margin=chosen.margin,
            replicates=chosen.replicates,
            seed=chosen.seed,
        ).to_dict("records")
        # At the floor all differences are 0, which is no certainty.
        told = difference.ne(0).any()
        few = proportion_confint(group["passed"].sum(), len(group), alpha=1 - chosen.confidence, method="beta")
        rows.append(
            {
                "persona": persona,
                "problems": group["item"].nunique(),
                "solved": group["passed"].mean(),
                "solved_low": few[0],
                "solved_high": few[1],
                **{name: found[name] if told else nan for name in ("difference", "low", "high", "p")},
                **{status: (group["status"] == status).mean() for status in STATUSES},
            }
        )
    return pd.DataFrame(rows, columns=columns)


if __name__ == "__main__":
    here = Project.find()
    problems(here, texts=True)[FACTS].to_csv(
        here.items / "persona_bias" / "mbpp.csv", index=False, lineterminator="\n"
    )
