"""The store under interruption, damage and change. The model is simulated; the real one is in test_llama_cpp."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

from persona_studies.ask import logs, models, packing, planner, recording, responses, unfinished
from persona_studies.ask.backends import Request, Response, Size
from persona_studies.ask.estimate import estimate, summary
from persona_studies.errors import BackendError, BudgetSpent, ResponsesError
from persona_studies.paths import Project
from persona_studies.publish import datasheets
from tests.kit.grids import LABELS, answer, contents, packed, small_plan, straight
from tests.kit.runs import registered
from tests.kit.simulated import SimulatedBackend


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "studies").mkdir()
    return Project(tmp_path)


def test_round_trip(project: Project) -> None:
    plan = small_plan()
    backend = SimulatedBackend(answer)
    progress = recording.record(project, "toy", plan, backend)
    assert progress.complete and backend.asked == len(plan) == 24
    packing.pack(project, "toy", plan, "simulated")
    loaded = responses.load(project, "toy", "simulated", plan)
    assert len(loaded) == len(plan)
    scored = loaded[loaded["measure"] == "score"]
    asked = plan[plan["measure"] == "score"]
    expected = [answer(Request("cloze", s, "", u, tuple(LABELS))) for s, u in zip(asked["system"], asked["user"])]
    np.testing.assert_array_equal(responses.matrix(scored), np.array(expected))
    assert (loaded.loc[loaded["measure"] == "talk", "text"] == "AGREE because.").all()
    assert responses.check(project, "toy") == []


def test_resumed_equals_uninterrupted_and_asks_nothing_twice(project: Project, tmp_path: Path) -> None:
    plan = small_plan()
    backend = SimulatedBackend(answer)
    for sitting in range(30):
        before = backend.asked
        progress = recording.record(project, "toy", plan, backend, limit=sitting % 3 + 1)
        if progress.complete:
            break
        assert backend.asked - before == sitting % 3 + 1
    assert backend.asked == len(plan)
    assert packed(project, plan) == straight(tmp_path / "other", plan.sample(frac=1, random_state=0))


def test_shards_together_are_the_whole(project: Project, tmp_path: Path) -> None:
    plan = small_plan()
    for part in (2, 1):
        progress = recording.record(project, "toy", plan, SimulatedBackend(answer), shard=(part, 2))
    assert progress.complete
    assert packed(project, plan) == straight(tmp_path / "whole", plan)


def test_shards_that_start_late_keep_their_share(project: Project) -> None:
    plan = small_plan()
    first, second = SimulatedBackend(answer), SimulatedBackend(answer)
    recording.record(project, "toy", plan, first, shard=(1, 2), limit=7)
    recording.record(project, "toy", plan, second, shard=(2, 2))
    recording.record(project, "toy", plan, first, shard=(1, 2))
    assert (first.asked, second.asked) == (12, 12)


def test_a_torn_tail_is_dropped_and_asked_again(project: Project) -> None:
    plan = small_plan()
    recording.record(project, "toy", plan, SimulatedBackend(answer), limit=5)
    log = next(logs.folder(project, "toy", "simulated").glob("*.jsonl"))
    log.write_bytes(log.read_bytes()[:-20])
    backend = SimulatedBackend(answer)
    assert recording.record(project, "toy", plan, backend).complete
    assert backend.asked == len(plan) - 4


def test_a_flipped_bit_in_a_log_is_named(project: Project) -> None:
    plan = small_plan()
    recording.record(project, "toy", plan, SimulatedBackend(answer))
    log = next(logs.folder(project, "toy", "simulated").glob("*.jsonl"))
    lines = log.read_text().splitlines(keepends=True)
    lines[2] = lines[2].replace('"option_mass": 0.5', '"option_mass": 0.6')
    log.write_text("".join(lines))
    with pytest.raises(ResponsesError, match="line 3, is damaged"):
        recording.record(project, "toy", plan, SimulatedBackend(answer))


def test_no_flipped_bit_is_ever_read(project: Project) -> None:
    plan = small_plan(3)
    recording.record(project, "toy", plan, SimulatedBackend(answer))
    folder = logs.folder(project, "toy", "simulated")
    log = next(folder.glob("*.jsonl"))
    sound = log.read_bytes()
    truth = logs.read(folder).astype(str)
    rng = random.Random(3)
    refused = 0
    for _ in range(300):
        damaged = bytearray(sound)
        damaged[rng.randrange(len(sound))] ^= 1 << rng.randrange(8)
        log.write_bytes(damaged)
        try:
            read = logs.read(folder).astype(str)
        except ResponsesError:
            refused += 1
            continue
        # A flip in the last line break makes a torn tail; one in an exponent's letter changes nothing.
        pd.testing.assert_frame_equal(read, truth.iloc[: len(read)])
        assert len(read) >= len(truth) - 1
    assert refused > 250


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """The operating system refuses to let the log grow; the recording goes on once there is room."""
    script = textwrap.dedent(
        """
        import resource, sys
        from pathlib import Path
        from persona_studies.ask import recording
        from persona_studies.errors import ResponsesError
        from persona_studies.paths import Project
        from tests.kit.simulated import SimulatedBackend
        from tests.kit.grids import answer, small_plan

        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
        try:
            recording.record(Project(Path(sys.argv[1])), "toy", small_plan(), SimulatedBackend(answer))
        except ResponsesError as error:
            sys.exit(f"{error}")
        """
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "cannot be written" in done.stderr and "make room" in done.stderr
    project, plan, backend = Project(tmp_path), small_plan(), SimulatedBackend(answer)
    log = next(logs.folder(project, "toy", "simulated").glob("*.jsonl"))
    kept = log.read_bytes()
    assert kept.endswith(b"\n") and 0 < kept.count(b"\n") < len(plan)
    assert recording.record(project, "toy", plan, backend).complete
    assert backend.asked == len(plan) - kept.count(b"\n")
    assert log.read_bytes().startswith(kept)


@pytest.mark.attack
def test_killed_at_random_moments_nothing_is_lost(tmp_path: Path) -> None:
    """SIGKILL a recorder several times; what a finished line says is kept and the result is the same."""
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from persona_studies.ask import recording
        from persona_studies.paths import Project
        from tests.kit.simulated import SimulatedBackend
        from tests.kit.grids import answer, small_plan

        def slow(request):
            time.sleep(0.005)
            return answer(request)

        recording.record(Project(Path(sys.argv[1])), "toy", small_plan(40), SimulatedBackend(slow))
        """
    )
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    plan = small_plan(40)
    project = Project(tmp_path)
    rng = random.Random(1)
    kept = 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], env=environment)
        log = logs.folder(project, "toy", "simulated")
        target = kept + rng.randint(3, 25)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            lines = sum(path.read_bytes().count(b"\n") for path in log.glob("*.jsonl")) if log.exists() else 0
            if lines >= target:
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = len(plan) - len(recording.pending(project, "toy", plan, SimulatedBackend(answer).info))
        assert found >= min(target, len(plan))
        kept = found
    assert recording.record(project, "toy", plan, SimulatedBackend(answer)).complete
    assert packed(project, plan) == straight(tmp_path / "other", plan)


def test_two_writers_of_one_shard_are_kept_apart(project: Project) -> None:
    folder = logs.folder(project, "toy", "simulated")
    folder.mkdir(parents=True)
    with FileLock(folder / "1-of-1.lock"), pytest.raises(ResponsesError, match="Another process"):
        recording.record(project, "toy", small_plan(), SimulatedBackend(answer))


def test_another_model_in_the_same_folder_is_refused(project: Project) -> None:
    plan = small_plan()
    recording.record(project, "toy", plan, SimulatedBackend(answer), limit=1)
    other = SimulatedBackend(answer)
    other.info = dataclasses.replace(other.info, model_hash="1" * 64)
    with pytest.raises(ResponsesError, match="another model_hash"):
        recording.record(project, "toy", plan, other)


def test_incomplete_recordings_are_not_packed(project: Project) -> None:
    plan = small_plan()
    recording.record(project, "toy", plan, SimulatedBackend(answer), limit=3)
    with pytest.raises(ResponsesError, match=r"9 of 12 cells of score"):
        packing.pack(project, "toy", plan, "simulated")


def test_a_part_is_packed_and_another_checkout_goes_on_from_it(project: Project, tmp_path: Path) -> None:
    plan = small_plan()
    recording.record(project, "toy", plan, SimulatedBackend(answer), limit=5)
    folder = packing.pack(project, "toy", plan, "simulated", partly=True, asked_with="-p items=20")
    record = json.loads((folder / "record.json").read_text())
    assert record["complete"] is False
    assert record["unfinished"]["planned"] == {"score": 12, "talk": 12}
    assert record["unfinished"]["recorded"] == {"score": 5, "talk": 0}
    assert "5 of 24" in datasheets.recordings(project)

    fresh = Project(tmp_path / "fresh")
    shutil.copytree(project.data, fresh.data)
    other = SimulatedBackend(answer)
    assert len(recording.pending(fresh, "toy", plan, other.info)) == 19
    done = recording.record(fresh, "toy", plan, other)
    assert done.complete
    whole = packing.pack(fresh, "toy", plan, "simulated")
    assert not {"complete", "unfinished"} & {*json.loads((whole / "record.json").read_text())}
    assert contents(whole) == straight(tmp_path / "straight", plan)


@pytest.mark.parametrize("limit", [5, 15])
def test_a_part_is_refused_with_the_command_that_completes_it(project: Project, limit: int) -> None:
    plan = small_plan()
    recording.record(project, "toy", plan, SimulatedBackend(answer), limit=limit)
    packing.pack(project, "toy", plan, "simulated", partly=True, asked_with="-p items=20")
    with pytest.raises(ResponsesError) as refused:
        responses.load(project, "toy", "simulated", plan)
    said = str(refused.value)
    assert f"not complete, {limit} of 24 planned cells have a response" in said
    assert said.endswith('make record STUDY=toy MODEL=simulated FLAGS="-p items=20"')
    assert "\n" not in said


def test_a_smaller_grid_that_is_complete_is_no_part(project: Project) -> None:
    """Two grids under one name: the one that is complete can be analysed, and the other stays unfinished."""
    small, large = small_plan(2), small_plan(6)
    recording.record(project, "toy", small, SimulatedBackend(answer))
    recording.record(project, "toy", large, SimulatedBackend(answer), limit=3)
    folder = packing.pack(project, "toy", large, "simulated", partly=True)
    assert len(responses.load(project, "toy", "simulated", small)) == len(small)
    packing.pack(project, "toy", small, "simulated")
    record = json.loads((folder / "record.json").read_text())
    assert record["unfinished"]["planned"] == {"score": 12, "talk": 12}


def test_a_datasheet_says_what_a_model_of_the_registry_is_not_for(project: Project) -> None:
    facts = (
        'title = "t"\nbackend = "llama.cpp"\nfile = "f.gguf"\nbytes = 5\nlicence = "l"\nlimits = "For code only."'
    )
    source = '[[simulated.sources]]\npackage = "p"\nversion = "1"\nfile = "f.gguf"'
    recording.record(project, "toy", small_plan(), SimulatedBackend(answer))
    packing.pack(project, "toy", small_plan(), "simulated")
    for sha256, said in (("0" * 64, True), ("1" * 64, False)):  # another file of that name is another model
        registry = f'[simulated]\n{facts}\nsha256 = "{sha256}"\n{source}\n'
        (project.data / "models.toml").write_text(registry)
        assert ("For code only." in datasheets.recordings(project)) == said


def test_nothing_is_no_part(project: Project) -> None:
    plan = small_plan()
    with pytest.raises(ResponsesError, match="Nothing of simulated is recorded for toy"):
        packing.pack(project, "toy", plan, "simulated", partly=True)


def test_answers_may_come_in_any_order(project: Project, tmp_path: Path) -> None:
    class Late(SimulatedBackend):
        def respond(self, requests: Iterable[Request]) -> Iterator[tuple[int, Response]]:
            yield from reversed(list(super().respond(requests)))

    plan = small_plan()
    recording.record(project, "toy", plan, Late(answer))
    assert packed(project, plan) == straight(tmp_path / "other", plan)


class Failing(SimulatedBackend):
    """Answers some requests and then raises."""

    def __init__(self, answers: int, error: Exception) -> None:
        super().__init__(answer)
        self._answers, self._error = answers, error

    def respond(self, requests: Iterable[Request]) -> Iterator[tuple[int, Response]]:
        yield from itertools.islice(super().respond(requests), self._answers)
        raise self._error


def test_what_was_answered_before_a_failure_is_kept(project: Project) -> None:
    plan = small_plan()
    with pytest.raises(BackendError, match="gone"):
        recording.record(project, "toy", plan, Failing(5, BackendError("gone")))
    backend = SimulatedBackend(answer)
    assert recording.record(project, "toy", plan, backend).complete
    assert backend.asked == len(plan) - 5


def test_caps_stop_cleanly(project: Project) -> None:
    plan = small_plan()
    spent = recording.record(project, "toy", plan, Failing(4, BudgetSpent("the cap of 4 calls")))
    assert (spent.recorded, spent.stopped, spent.complete) == (4, "the cap of 4 calls", False)
    late = recording.record(project, "toy", plan, SimulatedBackend(answer), hours=0)
    assert (late.recorded, late.stopped) == (5, "the cap of 0 hours")
    few = recording.record(project, "toy", plan, SimulatedBackend(answer), limit=2)
    assert (few.recorded, few.mine, few.stopped) == (7, len(plan) - 7, "the cap of 2 cells")


class Spoilt(SimulatedBackend):
    """Spoils the answers at some places of a sitting."""

    def __init__(self, spoil: Callable[[int, Request], dict[str, Any] | None]) -> None:
        super().__init__(answer)
        self.spoil = spoil

    def respond(self, requests: Iterable[Request]) -> Iterator[tuple[int, Response]]:
        listed = list(requests)
        for place, given in super().respond(listed):
            yield place, dataclasses.replace(given, **(self.spoil(place, listed[place]) or {}))


FAILED = {"finish": "failed", "logprob": (), "n_tokens": (), "text": "400 flagged"}


class TestFailed:
    def test_a_failed_cell_is_asked_again_and_is_not_complete(self, project: Project) -> None:
        plan = small_plan()
        progress = recording.record(project, "toy", plan, Spoilt(lambda place, _: FAILED if place == 3 else None))
        assert (progress.recorded, progress.failed, progress.mine, progress.complete) == (23, 1, 1, False)
        with pytest.raises(ResponsesError, match=r"1 of 24 planned cells failed, .*400 flagged.*--reask never"):
            packing.pack(project, "toy", plan, "simulated")
        backend = SimulatedBackend(answer)
        progress = recording.record(project, "toy", plan, backend)
        assert progress.complete and not progress.failed and backend.asked == 1
        record = packing.pack(project, "toy", plan, "simulated") / "record.json"
        assert "failed" not in json.loads(record.read_text())
        assert not (responses.load(project, "toy", "simulated", plan)["finish"] == "failed").any()

    def test_it_stays_failed_on_request_and_the_record_counts_it(self, project: Project) -> None:
        plan = small_plan()
        backend = Spoilt(lambda place, _: FAILED if place == 3 else None)
        progress = recording.record(project, "toy", plan, backend, reask=False)
        assert progress.complete and progress.failed == 1
        again = SimulatedBackend(answer)
        recording.record(project, "toy", plan, again, reask=False)
        assert again.asked == 0
        record = packing.pack(project, "toy", plan, "simulated", failed=True) / "record.json"
        assert json.loads(record.read_text())["failed"] == 1
        assert (responses.load(project, "toy", "simulated", plan)["finish"] == "failed").sum() == 1
        # Asked again later, the answer replaces it, in the committed form too.
        recording.record(project, "toy", plan, again)
        packing.pack(project, "toy", plan, "simulated")
        assert again.asked == 1
        assert not (responses.load(project, "toy", "simulated", plan)["finish"] == "failed").any()

    def test_a_cell_that_fails_twice_is_stored_once(self, project: Project) -> None:
        plan = small_plan()
        for _ in range(2):
            recording.record(project, "toy", plan, Spoilt(lambda _, r: FAILED if "claim 3" in r.user else None))
        packing.pack(project, "toy", plan, "simulated", failed=True)
        assert len(responses.load(project, "toy", "simulated", plan)) == 24


def test_a_server_that_has_another_model_loaded_later_is_refused(project: Project) -> None:
    backend: Any = SimulatedBackend(answer)
    for served, limit in (("/models/a.gguf", 3), (None, 3), ("/moved/a.gguf", 3)):
        backend.served = served
        recording.record(project, "toy", small_plan(), backend, limit=limit)
    backend.served, asked = "/models/b.gguf", backend.asked
    with pytest.raises(ResponsesError, match=r"'/models/a.gguf', and now '/models/b.gguf' answers.*--name"):
        recording.record(project, "toy", small_plan(), backend)
    assert backend.asked == asked


class TestFirstCells:
    SILENT: ClassVar = {
        "failed": ("text", FAILED, r"8 failed: 400 flagged\..*--extra"),
        "empty": ("text", {"text": " "}, r"8 are empty\..*--extra"),
        "without labels": (
            "cloze",
            {"logprob": (math.nan, math.nan), "top_token": "<think>"},
            r"8 give none of the labels .*'<think>'.*--measures text",
        ),
        "ids": ("cloze", {"logprob": (math.nan, math.nan), "top_token": "token_id:362"}, "lists tokens as ids"),
    }

    @pytest.mark.parametrize("case", SILENT.values(), ids=SILENT)
    def test_a_measure_that_says_nothing_stops_before_it_is_stored(
        self, project: Project, case: tuple[str, dict[str, Any], str]
    ) -> None:
        kind, spoilt, said = case
        plan = small_plan(20)
        backend = Spoilt(lambda _, request: spoilt if request.kind == kind else None)
        with pytest.raises(BackendError, match=said):
            recording.record(project, "toy", plan, backend)
        rows = logs.read(logs.folder(project, "toy", "simulated"))
        measure = {"text": "talk", "cloze": "score"}[kind]
        assert (rows["measure"] != measure).all()
        assert backend.asked < len(plan) - 30 or kind == "text"

    def test_one_answer_is_enough_to_go_on_and_nothing_is_lost(self, project: Project) -> None:
        plan = small_plan(20)
        talk = plan[plan["measure"] == "talk"].reset_index(drop=True)
        backend = Spoilt(lambda place, _: {"text": ""} if place != 7 else None)
        progress = recording.record(project, "toy", talk, backend)
        assert progress.complete and progress.recorded == 40
        rows = logs.read(logs.folder(project, "toy", "simulated"))
        assert (rows["text"] == "").sum() == 39

    def test_few_cells_that_say_nothing_are_not_stored_either(self, project: Project) -> None:
        plan = small_plan(2)
        with pytest.raises(BackendError, match="The first 4 answers to talk say nothing"):
            recording.record(project, "toy", plan, Spoilt(lambda _, r: {"text": ""} if r.kind == "text" else None))
        # Where the measure is recorded already, few are believed.
        recording.record(project, "toy", plan, SimulatedBackend(answer))
        progress = recording.record(project, "toy", small_plan(3), Spoilt(lambda _, r: {"text": ""}))
        assert progress.complete

    def test_cells_that_fail_for_ever_can_be_left_failed(self, project: Project) -> None:
        """Answered first, interrupted, and what is left is refused to the last cell."""
        recording.record(project, "toy", small_plan(20), SimulatedBackend(answer), limit=70)
        refusing = Spoilt(lambda _, request: FAILED)
        with pytest.raises(BackendError, match=r"The first 8 answers to talk .*--reask never"):
            recording.record(project, "toy", small_plan(20), refusing)
        progress = recording.record(project, "toy", small_plan(20), refusing, reask=False)
        assert progress.complete and progress.failed == 10


class TestCommitted:
    """A fresh clone has the committed recording and no logs."""

    @pytest.fixture
    def clone(self, project: Project) -> Project:
        straight(project.root, small_plan())
        shutil.rmtree(project.recordings)
        return project

    def test_a_larger_grid_asks_only_what_is_new(self, clone: Project) -> None:
        larger, backend = small_plan(8), SimulatedBackend(answer)
        assert recording.record(clone, "toy", larger, backend).complete
        assert backend.asked == len(larger) - len(small_plan())
        packing.pack(clone, "toy", larger, "simulated")
        assert len(responses.load(clone, "toy", "simulated", larger)) == len(larger)

    def test_a_smaller_grid_takes_nothing_away(self, clone: Project) -> None:
        before = contents(clone.responses("toy", "simulated"))
        assert recording.record(clone, "toy", small_plan(2), SimulatedBackend(answer)).complete
        packing.pack(clone, "toy", small_plan(2), "simulated")
        assert contents(clone.responses("toy", "simulated")) == before

    def test_a_changed_text_replaces_only_its_cells(self, clone: Project) -> None:
        plan = small_plan()
        plan.loc[0, "item_hash"] = "f" * 16
        backend = SimulatedBackend(answer)
        assert recording.record(clone, "toy", plan, backend).complete
        assert backend.asked == 1
        packing.pack(clone, "toy", plan, "simulated")
        assert len(responses.load(clone, "toy", "simulated", plan)) == len(plan)
        assert len(responses.stored(clone.responses("toy", "simulated"))) == len(plan)

    @pytest.mark.parametrize(
        ("name", "how", "precision"),
        [
            ("begun", {}, "bf16"),
            ("begun", {"precision": "f32"}, "f32"),
            ("begun", {"backend": "transformers"}, None),
            ("new", {}, None),
        ],
    )
    @pytest.mark.parametrize("packed", [True, False])
    def test_it_goes_on_in_its_precision(
        self,
        project: Project,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
        how: dict[str, str],
        precision: str | None,
        packed: bool,
    ) -> None:
        plan, first = small_plan(), SimulatedBackend(answer)
        first.info = dataclasses.replace(first.info, name="begun", backend="llama.cpp", precision="bf16")
        recording.record(project, "toy", plan, first, limit=None if packed else 2)
        if packed:
            packing.pack(project, "toy", plan, "begun")
            shutil.rmtree(project.recordings)
        seen = []
        monkeypatch.setattr(models, "_gguf", lambda *given: seen.append(given[-1]))
        monkeypatch.setattr(models, "checked", models.known)
        recording.load(project, "toy", "gguf:/no/file.gguf", name=name, **how)
        assert seen == [{} if precision is None else {"precision": precision}]

    def test_a_message_tells_how_to_go_on(self, project: Project) -> None:
        """A name in data/models.toml is enough; weights of one's own are named as they were the first time."""
        registered(project.root)
        for name in ("smollm2-135m-instruct", "mine"):
            backend = SimulatedBackend(answer)
            backend.info = dataclasses.replace(backend.info, name=name, backend="llama.cpp")
            recording.record(project, "toy", small_plan(), backend)
            packing.pack(project, "toy", small_plan(), name)
        command = 'make record STUDY=toy MODEL={} PARAMS="n=7"'.format
        expected = {
            "smollm2-135m-instruct": command("smollm2-135m-instruct"),
            "mine": command("gguf:FILE") + ' FLAGS="--name mine"',
        }
        for name, said in expected.items():
            record = responses.description(project.responses("toy", name))
            assert record is not None and unfinished.to_record(project, "toy", record, "n=7") == said

    def test_another_model_is_refused(self, clone: Project) -> None:
        other = SimulatedBackend(answer)
        other.info = dataclasses.replace(other.info, precision="f32")
        with pytest.raises(ResponsesError, match=r"another precision \(file; now f32\).*--name"):
            recording.record(clone, "toy", small_plan(), other)


class TestTakeIn:
    """Recorded elsewhere, merged here."""

    @pytest.fixture
    def here(self, tmp_path: Path) -> Project:
        (tmp_path / "here" / "studies").mkdir(parents=True)
        (tmp_path / "here" / "studies" / "toy.ipynb").touch()
        return Project(tmp_path / "here")

    def elsewhere(self, project: Project, out: Path, part: int, plan: pd.DataFrame) -> None:
        recording.record(project, "toy", plan, SimulatedBackend(answer), shard=(part, 2), out=out)

    def test_shards_from_two_machines_are_the_whole(self, project: Project, here: Project, tmp_path: Path) -> None:
        plan = small_plan()
        for part in (1, 2):
            self.elsewhere(Project(tmp_path / f"machine-{part}"), tmp_path / f"out-{part}", part, plan)
        first = packing.take_in(here, tmp_path / "out-1")
        assert first[["rows", "new"]].to_numpy().tolist() == [[12, 12]]
        with pytest.raises(ResponsesError, match="not recorded"):
            packing.pack(here, "toy", plan, "simulated")
        packing.take_in(here, tmp_path / "out-2")
        recording.record(project, "toy", plan, SimulatedBackend(answer))
        assert packed(here, plan) == packed(project, plan)

    def test_taken_in_twice_is_taken_in_once(self, here: Project, tmp_path: Path) -> None:
        self.elsewhere(Project(tmp_path / "machine"), tmp_path / "out", 1, small_plan())
        packing.take_in(here, tmp_path / "out")
        again = packing.take_in(here, tmp_path / "out")
        assert again[["rows", "new"]].to_numpy().tolist() == [[12, 0]]

    def test_a_damaged_row_refuses_the_whole(self, here: Project, tmp_path: Path) -> None:
        out = tmp_path / "out"
        self.elsewhere(Project(tmp_path / "machine"), out, 1, small_plan())
        log = next(out.rglob("*.jsonl"))
        log.write_text(log.read_text().replace('"entropy": 1.0', '"entropy": 1.5', 1))
        with pytest.raises(ResponsesError, match="line 1, is damaged"):
            packing.take_in(here, out)
        assert not logs.folder(here, "toy", "simulated").exists()

    def test_other_answers_to_the_same_cells_are_refused(self, here: Project, tmp_path: Path) -> None:
        self.elsewhere(Project(tmp_path / "machine"), tmp_path / "out", 1, small_plan())
        recording.record(here, "toy", small_plan(), SimulatedBackend(lambda request: (-1.0, -2.0)), limit=4)
        with pytest.raises(ResponsesError, match="4 cells were recorded twice with different answers"):
            packing.take_in(here, tmp_path / "out")

    def test_another_model_under_the_same_name_is_refused(self, here: Project, tmp_path: Path) -> None:
        self.elsewhere(Project(tmp_path / "machine"), tmp_path / "out", 1, small_plan())
        other = SimulatedBackend(answer)
        other.info = dataclasses.replace(other.info, version="1")
        recording.record(here, "toy", small_plan(), other, limit=1)
        with pytest.raises(ResponsesError, match="another version"):
            packing.take_in(here, tmp_path / "out")

    def test_a_folder_without_recordings_is_named(self, here: Project, tmp_path: Path) -> None:
        with pytest.raises(ResponsesError, match="holds no recording"):
            packing.take_in(here, tmp_path)
        packed = tmp_path / "sent" / "toy" / "simulated"
        packed.mkdir(parents=True)
        (packed / "record.json").touch()
        with pytest.raises(ResponsesError, match=r"toy/simulated is packed already.* copy it to .*data/responses/"):
            packing.take_in(here, tmp_path / "sent")

    def test_an_unknown_study_is_named(self, tmp_path: Path, project: Project) -> None:
        self.elsewhere(Project(tmp_path / "machine"), tmp_path / "out", 1, small_plan())
        with pytest.raises(ResponsesError, match="belongs to no study"):
            packing.take_in(project, tmp_path / "out")


class TestLoad:
    @pytest.fixture
    def recorded(self, project: Project) -> Project:
        straight(project.root, small_plan())
        return project

    def test_unknown_model_names_the_known_ones(self, recorded: Project) -> None:
        with pytest.raises(ResponsesError, match=r"'other'.*recorded: simulated.*make record STUDY=toy"):
            responses.load(recorded, "toy", "other", small_plan())

    def test_cells_beyond_the_recording_are_counted(self, recorded: Project) -> None:
        with pytest.raises(ResponsesError, match="4 of 16 planned cells of score are not recorded"):
            responses.load(recorded, "toy", "simulated", small_plan(8))

    def test_a_part_of_the_plan_can_be_read(self, recorded: Project) -> None:
        found = responses.load(recorded, "toy", "simulated", small_plan(8), partly=True)
        pd.testing.assert_frame_equal(found, responses.load(recorded, "toy", "simulated", small_plan()))
        beyond = small_plan(8)
        beyond = beyond[~beyond["item"].isin(small_plan()["item"])]
        with pytest.raises(ResponsesError, match="simulated for toy holds none of the 8 planned cells"):
            responses.load(recorded, "toy", "simulated", beyond, partly=True)

    def test_a_measure_that_is_not_recorded_is_left_out(self, project: Project) -> None:
        plan = small_plan()
        talk = plan[plan["measure"] == "talk"]
        recording.record(project, "toy", talk, SimulatedBackend(answer))
        packing.pack(project, "toy", talk, "simulated")
        assert set(responses.load(project, "toy", "simulated", plan)["measure"]) == {"talk"}
        with pytest.raises(ResponsesError, match="holds none of the 12 planned cells"):
            responses.load(project, "toy", "simulated", plan[plan["measure"] == "score"])

    def test_a_lost_file_is_no_missing_measure(self, recorded: Project) -> None:
        (recorded.responses("toy", "simulated") / "score.parquet").unlink()
        with pytest.raises(ResponsesError, match=r"score.parquet is missing, which record.json names"):
            responses.load(recorded, "toy", "simulated", small_plan())

    def test_a_reply_counts_in_whatever_order_it_was_recorded(self, recorded: Project) -> None:
        """Text cells are asked in one drawn order; scored ones in each that is planned."""
        plan = small_plan()
        turned = plan.assign(order=1)
        found = responses.load(recorded, "toy", "simulated", turned[turned["measure"] == "talk"])
        assert set(found["order"]) == {0} and len(found) == 12
        with pytest.raises(ResponsesError, match="12 of 12 planned cells of score are not recorded"):
            responses.load(recorded, "toy", "simulated", turned[turned["measure"] == "score"])
        both = pd.concat([plan, turned])
        with pytest.raises(ResponsesError, match="12 of 24 planned cells of talk are not recorded"):
            responses.load(recorded, "toy", "simulated", both[both["measure"] == "talk"])

    def test_a_changed_item_text_is_noticed(self, recorded: Project) -> None:
        plan = small_plan()
        plan.loc[0, "item_hash"] = "f" * 16
        with pytest.raises(ResponsesError, match="recorded with another item text"):
            responses.load(recorded, "toy", "simulated", plan)

    def test_a_tampered_row_is_noticed(self, recorded: Project) -> None:
        path = recorded.responses("toy", "simulated") / "score.parquet"
        frame = pd.read_parquet(path)
        frame["entropy"] = frame["entropy"].where(frame.index != 3, 0.25)
        frame.to_parquet(path, index=False)
        with pytest.raises(ResponsesError, match=r"row 3 .*does not match its checksum"):
            responses.load(recorded, "toy", "simulated", small_plan())
        assert len(responses.check(recorded, "toy")) == 1

    def test_a_missing_row_and_a_missing_file_are_noticed(self, recorded: Project) -> None:
        path = recorded.responses("toy", "simulated") / "score.parquet"
        frame = pd.read_parquet(path)
        frame.drop(index=3).to_parquet(path, index=False)
        assert "11 rows" in responses.check(recorded, "toy")[0]
        path.unlink()
        assert "missing" in responses.check(recorded, "toy")[0]

    def test_a_file_that_an_older_record_json_does_not_name_is_noticed(self, recorded: Project) -> None:
        folder = recorded.responses("toy", "simulated")
        record = json.loads((folder / "record.json").read_text())
        del record["files"]["score.parquet"]
        (folder / "record.json").write_text(json.dumps(record))
        [problem] = responses.check(recorded, "toy")
        assert problem.startswith("simulated/score.parquet is not named by record.json")

    def test_a_file_that_is_not_parquet(self, recorded: Project) -> None:
        path = recorded.responses("toy", "simulated") / "score.parquet"
        path.write_bytes(path.read_bytes()[:200])
        with pytest.raises(ResponsesError, match="cannot be read"):
            responses.load(recorded, "toy", "simulated", small_plan())


def test_estimate_counts_every_measure_and_stores_nothing(project: Project) -> None:
    table = estimate(small_plan(), SimulatedBackend(answer))
    assert (table["logical"] > table["computed"]).all()
    assert "24 cells" in summary(table) and "no money" in summary(table)
    assert dict(zip(table["measure"], table["cells"])) == {"score": 12, "talk": 12}
    assert (table["hours"] > 0).all()
    assert not logs.folder(project, "toy", "simulated").exists()


@pytest.mark.parametrize(("each", "asked"), [(0.1, 12), (0.5, 7), (100.0, 1)])
def test_an_estimate_asks_few_cells_and_stops_after_some_seconds(
    monkeypatch: pytest.MonkeyPatch, each: float, asked: int
) -> None:
    """Every reply takes equally long, whatever its prompt."""
    plan = small_plan(200).query("measure == 'talk'").assign(max_tokens=100)
    backend = SimulatedBackend(answer)
    monkeypatch.setattr(recording.time, "perf_counter", lambda: backend.asked * each)
    said: list[str] = []
    table = estimate(plan, backend, said.append)
    assert backend.asked == asked and table["timed"].tolist() == [asked]
    assert table["seconds_per_cell"].tolist() == pytest.approx([each])
    assert said == [f"talk: counting tokens and timing a few of {len(plan):,} cells"]
    assert ("rough: fewer than 4 cells were timed of talk" in summary(table)) == (asked < 4)
    hours = table["hours"].sum()
    assert (f"about {hours:.1f} hours" if hours >= 1 else f"about {60 * hours:.1f} minutes") in summary(table)


class Watched(SimulatedBackend):
    """Keeps what it is asked and how many prompts it was asked the size of."""

    def __init__(self) -> None:
        super().__init__(answer)
        self.users: list[str] = []
        self.sized = 0

    def size(self, request: Request) -> Size:
        self.sized += 1
        return super().size(request)

    def _respond(self, request: Request) -> Response:
        self.users.append(request.user)
        return super()._respond(request)


@pytest.mark.parametrize("starts", ["few", "many"])
def test_an_estimate_times_short_prompts_and_counts_a_part_of_a_large_plan(starts: str) -> None:
    plan = small_plan(4_000).query("measure == 'score'")
    long = plan["condition"] == plan["condition"].iloc[-1]
    plan = plan.assign(user=plan["user"].where(~long, plan["user"] + " more" * 1_000))
    if starts == "many":
        plan = plan.assign(shared=[f"Part {place // 5}. " for place in range(len(plan))])
    backend = Watched()
    table = estimate(plan, backend)
    assert backend.sized < 3_000
    assert len(backend.users) == 12 and not any("more" in user for user in backend.users)
    whole = planner.cost(recording.requests(planner.order(plan)), backend)
    assert table["logical"][0] == pytest.approx(whole["logical"], rel=0.02)
    assert table["computed"][0] == pytest.approx(whole["computed"], rel=0.02)


def test_record_names_its_model_and_files(project: Project) -> None:
    plan = small_plan()
    recording.record(project, "toy", plan, SimulatedBackend(answer))
    record = json.loads((packing.pack(project, "toy", plan, "simulated") / "record.json").read_text())
    assert record["model"]["backend"] == "simulated"
    assert record["cells"] == 24
    assert set(record["files"]) == {"score.parquet", "talk.parquet"}


def test_a_plan_without_texts_cannot_be_recorded(project: Project) -> None:
    plan = small_plan()
    plan.loc[0, "user"] = None
    with pytest.raises(ResponsesError, match="1 cells have no text"):
        recording.record(project, "toy", plan, SimulatedBackend(answer))
