"""Programs in replies: found, run in a sandbox that keeps them in, and counted; without one, nothing runs."""

from __future__ import annotations

import ast
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from persona_bias import design as study
from persona_bias import programs
from persona_bias.programs import Check
from persona_studies import cli
from persona_studies.design import protocol as protocols
from persona_studies.design import sources
from persona_studies.errors import ParameterError, RunError, SourceError
from persona_studies.paths import Project
from tests.simulated_persona_bias import DEFAULTS

PROJECT = Project(Path(__file__).parents[1])
PROTOCOL = protocols.load(PROJECT.protocol("persona_bias"))
CANARY = "sk-canary-of-the-user"
try:
    programs.sandbox()
    WHY = ""
except RunError as error:
    WHY = str(error)
isolated = pytest.mark.skipif(bool(WHY), reason=WHY)


def parameters(**given: object) -> study.Parameters:
    return study.Parameters.check(DEFAULTS | {"run_code": True, "items": 20} | given)


def raises(action: str, error: str = "Exception") -> str:
    """Return a program that tries something and keeps whether it was refused."""
    body = "\n".join(f"    {line}" for line in action.splitlines())
    return f"import os, socket, threading\ntry:\n{body}\n    refused = False\nexcept {error}:\n    refused = True"


def checked(*conditions: str) -> list[Check]:
    """Return checks of names that a program leaves behind."""
    return [Check(condition, "result is True") for condition in conditions]


REFUSED = checked("refused")
ONE_MORE = [Check("f(1)", "result == 2"), Check("f(5)", "result == 6")]
# Programs that do not solve the problem and set out to be marked as if they did.
DECEIVERS = {
    "prints": "print('passed', '[\"True\", \"True\"]', '0 failures')\ndef f(x):\n    return x",
    "prints and leaves": "import os\nprint('passed', flush=True)\nos._exit(0)",
    "exits": "import sys\nsys.exit(0)",
    "exits in the test": "def f(x):\n    raise SystemExit(0)",
    "no exit": "import os\nos._exit = lambda code: None\ndef f(x):\n    return x",
    "no exit, error": "import os\nos._exit = lambda code: None\nraise ValueError",
    "equal to all": "class Any:\n    def __eq__(self, other):\n        return True\ndef f(x):\n    return Any()",
    "equal number": "class Any(int):\n"
    "    def __eq__(self, other):\n        return True\ndef f(x):\n    return Any(0)",
    "no assertion": "import builtins\nbuiltins.AssertionError = type('Never', (BaseException,), {})\n"
    "builtins.bool = builtins.all = lambda *_: True\ndef f(x):\n    return x",
    "another json": 'import json\njson.dumps = lambda values: \'["True", "True"]\'\ndef f(x):\n    return x',
    "the checker": "import __main__\nfor name in list(vars(__main__)):\n"
    "    if name == 'given':\n        __main__.given['expressions'] = ['True', 'True']\ndef f(x):\n    return x",
    "code for a value": "class Code(str):\n    def __repr__(self):\n        return '__import__(\"os\")._exit(0)'\n"
    "def f(x):\n    return [Code()]",
}


@isolated
class TestSandbox:
    @pytest.mark.parametrize(
        ("code", "status"),
        [
            ("def f(x):\n    return x + 1", "passed"),
            ("def f(x):\n    print('x' * 99)\n    return x + 1.0", "passed"),
            ("def f(x):\n    return x", "wrong"),
            ("def f(x):\n    return 2", "wrong"),
            ("def f(x):\n    return (n for n in [x + 1])", "wrong"),
            ("def g(x):\n    return x", "error"),
            ("def f(x):\n    return x +", "error"),
            ("import math, re, collections, itertools, heapq\ndef f(x):\n    return math.floor(x + 1)", "passed"),
        ],
    )
    def test_the_tests_decide(self, code: str, status: str) -> None:
        assert programs.run(code, ONE_MORE) == status

    @pytest.mark.parametrize("name", DECEIVERS)
    def test_nothing_that_a_program_does_to_what_judges_it_helps(self, name: str) -> None:
        assert programs.run(DECEIVERS[name], ONE_MORE) in {"wrong", "error"}

    def test_a_program_does_not_see_what_is_expected(self) -> None:
        """It looks through all that its process holds for the string that a test compares with."""
        code = (
            "import gc, sys\n"
            "def f():\n"
            "    frame, seen = sys._getframe(), []\n"
            "    while frame:\n"
            "        seen += [repr(frame.f_globals), repr(frame.f_locals)]\n"
            "        frame = frame.f_back\n"
            "    seen += [repr(one) for one in gc.get_objects() if isinstance(one, (dict, list, tuple))]\n"
            "    text = ' '.join(seen)\n"
            "    return ['-'.join(['only', 'expected']) in text, 'f()' in text]"
        )
        checks = [Check("f()", "result == [False, True] and 'only-expected' > ''")]
        assert programs.run(code, checks) == "passed"

    @pytest.mark.parametrize(
        ("value", "holds"),
        [
            ("collections.Counter('aab')", "result == {'a': 2, 'b': 1}"),
            ("collections.namedtuple('P', 'x y')(1, {2: [None]})", "result == (1, {2: [None]})"),
            ("[set(), frozenset([1]), 2j, b'x', -0.5, True]", "result == [set(), {1}, 2j, b'x', -0.5, True]"),
            ("10 ** 300 / 7", "math.isclose(result, 10 ** 300 / 7, rel_tol=1e-9)"),
        ],
    )
    def test_results_come_back_as_they_are(self, value: str, holds: str) -> None:
        code = f"import collections\ndef f():\n    return {value}"
        assert programs.run(code, [Check("f()", holds)], ["import math"]) == "passed"

    def test_an_endless_loop_is_stopped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(programs, "WALL_SECONDS", 2)
        assert programs.run("while True:\n    pass", []) == "stopped"
        assert programs.run("import time\ntime.sleep(3600)", []) == "stopped"
        assert programs.run("def f(x):\n    while True:\n        pass", ONE_MORE) == "stopped"

    def test_time_of_the_processor_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            programs, "DRIVER", programs.DRIVER.replace(f"'RLIMIT_CPU': {programs.SECONDS}", "'RLIMIT_CPU': 1")
        )
        assert programs.run("while True:\n    pass", []) == "stopped"

    @pytest.mark.parametrize(
        "code",
        [
            "hog = ' ' * 2**31",
            "hog = []\nwhile True:\n    hog.append(' ' * 2**24)",
            "while True:\n    print('x' * 999)",
            "import os\nwhile True:\n    os.write(1, b'x' * 999)",
            "def f(x):\n    return 'x' * 2**20",
        ],
    )
    def test_memory_and_output_are_bounded(self, code: str) -> None:
        assert programs.run(code, ONE_MORE) == "error"

    @pytest.mark.parametrize(
        "action",
        [
            "os.fork()",
            "while True:\n    os.fork()",
            "os.posix_spawn('/bin/sh', ['sh'], {})",
            "import subprocess\nsubprocess.run(['true'])",
            "threading.Thread(target=print).start()",
        ],
    )
    def test_no_process_and_no_thread_is_started(self, action: str) -> None:
        assert programs.run(raises(action), REFUSED) == "passed"

    def test_ways_around_the_limits_are_refused(self) -> None:
        """Each call of the filter, with arguments that without it mean success or another error."""
        _, numbers = programs.MACHINES[programs.platform.machine()]
        code = (
            "import ctypes\n"
            "libc = ctypes.CDLL(None, use_errno=True)\n"
            "def said(number):\n"
            "    ctypes.set_errno(0)\n"
            "    return libc.syscall(number, 0, 0, 0, 0, 0), ctypes.get_errno()\n"
            f"refused = all(said(number) == (-1, 1) for number in {numbers})\n"
            "kept = said(10**6) == (-1, 38)"
        )
        assert programs.run(code, checked("refused", "kept")) == "passed"

    def test_files_are_neither_seen_nor_written(self, tmp_path: Path) -> None:
        mine = tmp_path / "mine.txt"
        mine.write_text(CANARY)
        for action in (
            f"open({str(mine)!r})",
            f"open({str(mine)!r}, 'w')",
            f"os.remove({str(mine)!r})",
            "open('/here', 'w')",
            "open('/tmp/here', 'w')",
            "os.mkdir('/usr/here')",
            "open(os.__file__, 'a')",
            "open('/etc/passwd')",
            "os.listdir('/proc')",
        ):
            assert programs.run(raises(action, "OSError"), REFUSED) == "passed", action
        assert mine.read_text() == CANARY and list(tmp_path.iterdir()) == [mine]

    def test_the_environment_is_not_handed_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", CANARY)
        tests = checked("'OPENAI_API_KEY' not in os.environ", "set(os.environ) <= {'PWD', 'LC_CTYPE'}")
        assert programs.run("import os", tests) == "passed"

    def test_there_is_no_network(self, listener: tuple[int, list[object]]) -> None:
        port, met = listener
        action = f"socket.create_connection(('127.0.0.1', {port}), timeout=2)"
        assert programs.run(raises(action, "OSError"), REFUSED) == "passed"
        assert met == []

    def test_the_user_is_nobody_without_capabilities(self) -> None:
        assert programs.run("import os", checked("os.getuid() == os.getgid() == 65534")) == "passed"
        assert programs.run(raises("os.chroot('/usr')", "OSError"), REFUSED) == "passed"
        assert programs.run(raises("os.setuid(0)", "OSError"), REFUSED) == "passed"

    def test_the_programs_of_the_authors_pass_and_mutilated_ones_do_not(self) -> None:
        entries = authors()
        asked = programs.problems(PROJECT, texts=True).set_index("task").iloc[::32]
        assert len(asked) > 8
        for task, checks, imports in asked[["checks", "imports"]].itertuples(name=None):
            theirs = entries[task]["code"]
            assert programs.run(theirs, checks, imports) == "passed", task
            nothing = re.sub(r"^(\s*)return .*$", r"\1return -12345", theirs, flags=re.MULTILINE)
            assert programs.run(nothing, checks, imports) in {"wrong", "error"}, task


def authors() -> dict[int, dict[str, str]]:
    """Return the entries of the source, by number."""
    try:
        return {
            one["task_id"]: one for one in json.loads(sources.fetch(PROJECT, programs.SOURCE).read_text("utf-8"))
        }
    except SourceError:
        pytest.skip("the source is not at hand")


@pytest.mark.parametrize("test", ["f(1)", "assert g(1) == 2", "assert f(1) == f(2)", "assert 1 == 1"])
def test_a_test_that_cannot_be_judged_apart_is_refused(test: str) -> None:
    with pytest.raises(SourceError, match="one call of the program"):
        Check.of(test, ["f"])


def test_every_test_of_the_source_is_a_call_and_a_condition() -> None:
    """Put together again, they are the tests of the source."""
    entries = authors()
    for task, checks in programs.problems(PROJECT, texts=True)[["task", "checks"]].itertuples(
        index=False, name=None
    ):
        whole = [f"assert {one.holds.replace('result', one.call, 1)}" for one in checks]
        assert whole == [ast.unparse(ast.parse(test)) for test in entries[task]["test_list"]], task


@pytest.fixture
def listener() -> Iterator[tuple[int, list[object]]]:
    """A port of this machine, and who has come."""
    met: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def wait() -> None:
            try:
                met.append(server.accept())
            except OSError:
                return

        threading.Thread(target=wait, daemon=True).start()
        yield server.getsockname()[1], met
        server.shutdown(socket.SHUT_RDWR)


class TestRefusal:
    @pytest.fixture(autouse=True)
    def afresh(self) -> Iterator[None]:
        programs.sandbox.cache_clear()
        yield
        programs.sandbox.cache_clear()

    def refused(self, message: str) -> None:
        cells = pd.DataFrame({"measure": ["code"], "condition": ["none"], "item": ["a"], "text": ["def f(): 1"]})
        asked = pd.DataFrame({"item": ["a"], "checks": [()], "imports": [()]})
        for error, act in (
            (RunError, lambda: programs.run("", [])),
            (RunError, lambda: programs.solve(cells.assign(finish="stop"), asked)),
            # Before anything is asked of a model or recorded.
            (ParameterError, parameters),
        ):
            with pytest.raises(error, match=message):
                act()

    def test_without_bubblewrap(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        self.refused(
            r"bubblewrap \(bwrap\) is not installed. They are not run. .*apt install bubblewrap.*run_code off"
        )

    def test_where_namespaces_are_forbidden(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        broken = tmp_path / "bwrap"
        broken.write_text("#!/bin/sh\nexit 1\n")
        broken.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        self.refused("a trial in bubblewrap ended as 'error'")

    def test_where_programs_are_not_kept_in(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A stand-in that runs what it is given without any wall."""
        open_door = tmp_path / "bwrap"
        open_door.write_text('#!/bin/sh\nwhile [ "$1" != "-I" ]; do last=$1; shift; done\nexec "$last" "$@"\n')
        open_door.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        self.refused("a trial in bubblewrap ended as 'wrong'")

    def test_on_a_machine_without_a_filter(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "bwrap").touch(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(programs.platform, "machine", lambda: "s390x")
        self.refused("no filter of system calls is known for s390x")

    @pytest.mark.parametrize("command", ["run", "record"])
    def test_a_command_is_refused_before_it_starts(
        self, command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.chdir(PROJECT.root)
        with pytest.raises(ParameterError, match=r"'run_code' cannot be True: .*apt install bubblewrap"):
            cli.app([command, "persona_bias", "-p", "run_code=true"], standalone_mode=False)

    def test_where_nothing_was_asked_nothing_is_needed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        none = pd.DataFrame(columns=["measure", "condition", "item", "text", "finish"])
        solved = programs.solve(none, programs.problems(PROJECT))
        made = programs.summary(solved, pd.DataFrame(columns=["condition", "persona"]), parameters(run_code=False))
        assert solved.empty and made.empty


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (
            "Here:\n```python\nimport math\n\ndef f():\n    return 1\n```\nIt returns one.",
            "import math\n\ndef f():\n    return 1",
        ),
        ("```\ndef f():\n    return 1\n", "def f():\n    return 1"),
        ("Of course!\ndef f():\n    return 1\n\nThis is how it works.", "def f():\n    return 1"),
        ("def f():\n    x = 1\n    return (x", "def f():\n    x = 1"),
        ("As such a person I cannot write programs.", None),
        ("", None),
        ("def", None),
    ],
)
def test_a_program_is_found_in_a_reply(reply: str, code: str | None) -> None:
    assert programs.program(reply) == code


class TestGrid:
    @pytest.fixture(autouse=True)
    def anywhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Planning runs no program."""
        monkeypatch.setattr(programs, "sandbox", lambda: Path("bwrap"))

    def test_programs_are_asked_with_run_code_only(self) -> None:
        off = study.plan(PROJECT, PROTOCOL, parameters(run_code=False))
        on = study.plan(PROJECT, PROTOCOL, parameters())
        assert "code" not in set(off["measure"])
        mine = on[on["measure"] == "code"]
        people = study.people(PROJECT, PROTOCOL, parameters()).set_index("condition")
        # No persona, two humans, nineteen personas in the first instruction.
        assert len(mine) == 20 * 22 and set(people.loc[mine["condition"], "instruction"]) == {0, 1}
        pd.testing.assert_frame_equal(on[on["measure"] != "code"].reset_index(drop=True), off)

    def test_the_committed_table_is_that_of_the_source_and_holds_no_text(self) -> None:
        committed = programs.problems(PROJECT)
        assert list(committed) == programs.FACTS and len(committed) == 257 and committed["item_hash"].is_unique
        try:
            read = programs.problems(PROJECT, texts=True)
        except SourceError:
            pytest.skip("the source is not at hand")
        pd.testing.assert_frame_equal(read[programs.FACTS], committed, check_dtype=False)
        asked = study.plan(PROJECT, PROTOCOL, parameters(datasets=["commonsenseqa"]), texts=True)
        assert asked.loc[asked["measure"] == "code", "user"].str.contains("assert ").all()


@isolated
def test_the_recorded_programs_of_the_embedded_model() -> None:
    """A model of 135 million parameters writes programs, and they do not pass."""
    try:
        asked = programs.problems(PROJECT, texts=True)
    except SourceError:
        pytest.skip("the source is not at hand")
    recorded = pd.read_parquet(PROJECT.responses("persona_bias", "smollm2-135m-instruct") / "code.parquet")
    replies = recorded[recorded["condition"].isin(["none", "human-1"])]
    solved = programs.solve(replies, asked)
    counts = solved[["condition", "status"]].astype(str).value_counts().to_dict()
    assert counts == {
        ("human-1", "wrong"): 8,
        ("human-1", "error"): 1,
        ("human-1", "no program"): 1,
        ("none", "wrong"): 6,
        ("none", "error"): 4,
    }


@isolated
def test_a_planted_difference_in_solved_problems_is_found() -> None:
    """Simulated replies: a human solves every problem, one persona every other one, another writes no program."""
    asked = pd.DataFrame(
        {
            "item": [f"p{k}" for k in range(12)],
            "checks": [(Check("f()", "result == 1"),)] * 12,
            "imports": [()] * 12,
        }
    )
    right, wrong = "```python\ndef f():\n    return 1\n```", "```python\ndef f():\n    return 2\n```"
    replies = {
        "human-1": [right] * 12,
        "man-1": [right, wrong] * 6,
        "woman-1": ["I cannot write programs."] * 12,
    }
    recorded = pd.DataFrame(
        [
            {"measure": "code", "condition": condition, "item": item, "text": text, "finish": "stop"}
            for condition, texts in replies.items()
            for item, text in zip(asked["item"], texts, strict=True)
        ]
    )
    people = pd.DataFrame({"condition": list(replies), "persona": ["human", "man", "woman"]})
    made = programs.summary(programs.solve(recorded, asked), people, parameters()).set_index("persona")
    assert made["solved"].to_dict() == {"human": 1.0, "man": 0.5, "woman": 0.0}
    assert made.loc["man", "difference"] == -0.5 and made.loc["man", "low"] < -0.5 < made.loc["man", "high"] < 0
    assert made.loc["man", "p"] == pytest.approx(2 / 2**6, abs=0.01)
    assert made.loc["woman", ["no program", "wrong"]].tolist() == [1.0, 0.0]
    assert made.loc["human", "problems"] == 12 and pd.isna(made.loc["human", "difference"])
    floor = programs.solve(recorded.assign(text=wrong), asked)
    nothing = programs.summary(floor, people, parameters())
    assert (nothing["solved"] == 0).all() and nothing[["difference", "low", "high", "p"]].isna().all(axis=None)
    # Clopper and Pearson: (alpha / 2) ** (1 / n).
    assert made.loc["human", ["solved_low", "solved_high"]].tolist() == pytest.approx([0.025 ** (1 / 12), 1])
