"""What recording the studies' full grids would cost with a large model: tokens, GPU hours, money.

Tokens are counted by the planner with the tokeniser of the embedded model, which needs the extra `live` and the
studies' sources. Hours and money follow from assumptions that are arguments: a forward pass takes two operations
per parameter and token, a GPU reaches a share of its peak, an hour has a price. None of these is measured here.
What is measured: that the planner's tokens are those that went through the model in the committed recordings, and
how many a core of this machine computes in a second.

    python benchmarks/cost.py --parameters 70e9 --peak 989e12 --utilisation 0.4 --price 2   # your own assumptions
    python benchmarks/cost.py --count                           # count the tokens again: some minutes
    python benchmarks/cost.py --rates                           # measure this machine again: some minutes
    python benchmarks/cost.py --tables                          # rewrite the generated parts of docs/cost.md
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from persona_studies.analyse import tables
from persona_studies.ask import models, planner, recording, responses
from persona_studies.ask.backends import Backend
from persona_studies.design import protocol
from persona_studies.paths import Project
from persona_studies.publish.readme import render
from persona_studies.reproduce import ready

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE.parent / "docs" / "cost.md"
MODEL = "smollm2-135m-instruct"
COUNTED = 5_000
SAMPLE = 16
# What makes each study's grid as large as its sources and banks allow; an empty list means all.
FULL: dict[str, dict[str, Any]] = {
    "clinical_personas": {},
    "expert_personas": {"questions": 2_000},
    "persona_bias": {"questions_per_set": 100, "replies_per_set": 100},
    "sycophancy": {"personas": 275, "topics": 33, "claims_per_topic": 5},
}


# Tokens of a full grid are counted on few of its personas, with all items, and scaled up to all cells.
THIN: dict[str, dict[str, Any]] = {
    "clinical_personas": {},
    "expert_personas": {},
    "persona_bias": {"questions_per_set": 10, "replies_per_set": 6},
    "sycophancy": {"personas": 10},
}


@dataclass(frozen=True)
class Assumptions:
    """What is not measured.

    Attributes:
        parameters: Of the model.
        peak: Floating-point operations per second of a GPU; that of one H100 (SXM) in dense bf16 by its data sheet.
        utilisation: Share of the peak that prompts reach.
        generating: Share of the peak that generated tokens reach, which wait for memory.
        price: Of a GPU hour, in any currency.
    """

    parameters: float = 70e9
    peak: float = 989e12
    utilisation: float = 0.4
    generating: float = 0.05
    price: float = 3.0

    def hours(self, tokens: float, generated: float = 0.0) -> float:
        """Return the GPU hours of tokens of prompts and of generated ones.

        >>> round(Assumptions(parameters=1e9, peak=1e12, utilisation=0.5, generating=0.1).hours(900_000), 6)
        1.0
        """
        per_token = 2 * self.parameters / self.peak / 3600
        return per_token * (tokens / self.utilisation + generated / self.generating)


def planned(project: Project, study: str, given: dict[str, Any], *, texts: bool) -> pd.DataFrame:
    """Return a study's cells with some parameters other than the notebook's; ``all`` takes every choice."""
    module = ready.study_module(project, study)
    in_force, _ = ready.resolve(project, study, [])
    fields = module.Parameters.model_fields
    values = {
        name: list(get_args(get_args(fields[name].annotation)[0])) if value == "all" else value
        for name, value in given.items()
    }
    in_force = module.Parameters.check(in_force.model_dump(mode="json") | values)
    plan: pd.DataFrame = module.plan(project, protocol.load(project.protocol(study)), in_force, texts=texts)
    return plan


def sampled(cells: pd.DataFrame, at_most: int = COUNTED) -> pd.DataFrame:
    """Return whole runs of cells that share their start, evenly from all of them, about ``at_most`` cells."""
    ordered = planner.order(cells)
    heads = ordered[["system", "shared"]].fillna("\x00none")
    start = heads.ne(heads.shift()).any(axis=1).cumsum()
    step = -(-len(ordered) // at_most)
    return ordered[(start - 1) % step == 0] if step > 1 else ordered


def count(project: Project, backend: Backend) -> pd.DataFrame:
    """Count the tokens of every study's recorded and full grid.

    Returns:
        One row per study, extent and measure: ``study, extent, measure, kind, cells, counted`` (cells whose tokens
        were counted; the rest is scaled up), ``starts`` (computed once for the cells that share them), ``logical``
        (every prompt in full, once per option), ``computed`` (what sharing leaves), ``apart`` (of it, what is a
        cell's own) and ``generated`` (at most, of it).
    """
    rows = []
    for study in FULL:
        usual = planned(project, study, {}, texts=True)
        grids = [("recorded", usual, usual)]
        if FULL[study]:
            thin = planned(project, study, FULL[study] | THIN[study], texts=True)
            grids.append(("full", thin, planned(project, study, FULL[study], texts=False)))
        else:
            grids.append(("full", usual, usual))
        for extent, with_texts, whole in grids:
            n = whole.groupby("measure", observed=True).size()
            for measure, cells in with_texts.groupby("measure", sort=False, observed=True):
                some = sampled(cells)
                scale = n[measure] / len(some)
                apart = sum((size := backend.size(r)).suffix + size.branches for r in recording.requests(some))
                found = planner.cost([str(measure)] * len(some), recording.requests(some), backend).iloc[0]
                generated = int(some["max_tokens"].sum()) if cells["kind"].iloc[0] == "text" else 0
                amounts = {"starts": found["starts"], "logical": found["logical"], "computed": found["computed"]}
                amounts |= {"apart": apart, "generated": generated}
                rows.append(
                    {"study": study, "extent": extent, "measure": measure, "kind": cells["kind"].iloc[0]}
                    | {"cells": n[measure], "counted": len(some)}
                    | {name: round(amount * scale) for name, amount in amounts.items()}
                )
                _say(rows[-1])
    return pd.DataFrame(rows)


def rates(project: Project, backend: Backend) -> pd.DataFrame:
    """Ask neighbours of every measure and time them.

    Returns:
        One row per study and measure: ``study, measure, cells, planned`` (the planner's tokens), ``computed``
        (those that went through the model: generated texts end early), ``seconds``, ``core_seconds`` (processor
        time, which does not count what other programs took), ``load`` and ``date``.
    """
    rows = []
    for study in FULL:
        for measure, cells in planned(project, study, {}, texts=True).groupby("measure", sort=False, observed=True):
            ordered = planner.order(cells)
            some = ordered.iloc[len(ordered) // 2 :].head(SAMPLE)
            found = planner.cost([str(measure)] * len(some), recording.requests(some), backend).iloc[0]
            apart = sum((size := backend.size(r)).suffix + size.branches for r in recording.requests(some))
            for _ in backend.respond(recording.requests(ordered.head(1))):
                pass
            started, processor = time.perf_counter(), time.process_time()
            own = sum(answer.computed_tokens for _, answer in backend.respond(recording.requests(some)))
            rows.append(
                {
                    "study": study,
                    "measure": measure,
                    "cells": len(some),
                    "planned": int(found["computed"]),
                    "computed": int(found["computed"]) - apart + own,
                    "seconds": round(time.perf_counter() - started, 2),
                    "core_seconds": round(time.process_time() - processor, 2),
                    "load": round(os.getloadavg()[0], 1),
                    "date": datetime.date.today().isoformat(),
                }
            )
            _say(rows[-1])
    return pd.DataFrame(rows)


def recorded(project: Project) -> pd.DataFrame:
    """Return what went through the model in the committed recordings, a cell's own tokens: ``study, measure, cells,
    apart``."""
    rows = []
    for study in FULL:
        found = responses.stored(project.responses(study, MODEL))
        for measure, cells in found.groupby("measure", observed=True):
            rows.append((study, str(measure), len(cells), int(cells["computed_tokens"].sum())))
    return pd.DataFrame(rows, columns=["study", "measure", "cells", "apart"])


def price(counted: pd.DataFrame, assumed: Assumptions) -> pd.DataFrame:
    """Return hours and money per study and extent, with the sharing of this engine and without any."""
    rows = []
    for (study, extent), found in counted.groupby(["study", "extent"], sort=False):
        total = found[["cells", "logical", "computed", "generated"]].sum()
        shared = assumed.hours(total["computed"] - total["generated"], total["generated"])
        alone = assumed.hours(total["logical"] - total["generated"], total["generated"])
        rows.append({"study": study, "grid": extent, **total, "hours": shared, "hours_alone": alone})
    frame = pd.DataFrame(rows)
    for extent, found in frame.groupby("grid", sort=False):
        frame.loc[len(frame)] = {"study": "all", "grid": extent, **found.drop(columns=["study", "grid"]).sum()}
    frame["money"], frame["money_alone"] = frame["hours"] * assumed.price, frame["hours_alone"] * assumed.price
    return frame


def blocks(folder: Path, project: Project, assumed: Assumptions | None = None) -> dict[str, str]:
    """Return the generated parts of docs/cost.md."""
    assumed = assumed or Assumptions()
    counted = tables.load(folder / "cost_tokens.csv")
    return {
        "assumptions": _assumptions(assumed),
        "cost": _cost(price(counted, assumed)),
        "planner": _planner(counted[counted["extent"] == "recorded"], recorded(project)),
        "rates": _rates(tables.load(folder / "cost_rates.csv")),
    }


def _assumptions(assumed: Assumptions) -> str:
    return "\n".join(
        [
            f"- a model of {assumed.parameters / 1e9:g} billion parameters, 2 operations per parameter and token; "
            "attention over the prompt, under 1 % of that at 300 tokens, is left out",
            f"- a GPU with a peak of {assumed.peak / 1e12:g} TFLOP/s (989 is one H100 SXM, dense bf16, by its data "
            f"sheet), of which prompts reach {assumed.utilisation:.0%} and generated tokens "
            f"{assumed.generating:.0%}",
            f"- a price of {assumed.price:g} per GPU hour, in whatever currency: a guess, put in yours",
        ]
    )


def _cost(frame: pd.DataFrame) -> str:
    shown = pd.DataFrame(
        {
            "study": frame["study"],
            "grid": frame["grid"],
            "cells": frame["cells"].map("{:,.0f}".format),
            "million tokens, every prompt in full": (frame["logical"] / 1e6).map("{:,.1f}".format),
            "million tokens, shared starts once": (frame["computed"] / 1e6).map("{:,.1f}".format),
            "GPU hours, in full": frame["hours_alone"].map("{:,.1f}".format),
            "GPU hours, shared": frame["hours"].map("{:,.1f}".format),
            "money, in full": frame["money_alone"].map("{:,.1f}".format),
            "money, shared": frame["money"].map("{:,.1f}".format),
        }
    )
    return _table(shown)


def _planner(counted: pd.DataFrame, found: pd.DataFrame) -> str:
    both = counted.merge(found, on=["study", "measure"], suffixes=("_planned", "_recorded"))
    whole = both["counted"] == both["cells_planned"]
    shown = pd.DataFrame(
        {
            "study": both["study"],
            "measure": both["measure"],
            "cells planned": both["cells_planned"].map("{:,}".format),
            "recorded": both["cells_recorded"].map("{:,}".format),
            "own tokens of a cell, planned": (both["apart_planned"] / both["cells_planned"]).map("{:.2f}".format),
            "recorded ": (both["apart_recorded"] / both["cells_recorded"]).map("{:.2f}".format),
            "counted": ["all" if all_ else f"{n:,} cells" for all_, n in zip(whole, both["counted"], strict=True)],
        }
    )
    return _table(shown)


def _rates(frame: pd.DataFrame) -> str:
    shown = frame.assign(rate=frame["computed"] / frame["core_seconds"])
    return _table(
        pd.DataFrame(
            {
                "study": shown["study"],
                "measure": shown["measure"],
                "cells": shown["cells"],
                "tokens planned": shown["planned"].map("{:,}".format),
                "computed": shown["computed"].map("{:,}".format),
                "core seconds": shown["core_seconds"].map("{:.1f}".format),
                "tokens per core second": shown["rate"].map("{:.0f}".format),
                "seconds by the clock": shown["seconds"].map("{:.1f}".format),
                "load average": shown["load"].map("{:.1f}".format),
            }
        )
    )


def _table(frame: pd.DataFrame) -> str:
    return str(frame.to_markdown(index=False, disable_numparse=True))


def _say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Assumptions()
    for name in ("parameters", "peak", "utilisation", "generating", "price"):
        parser.add_argument(f"--{name}", type=float, default=getattr(default, name))
    for name in ("count", "rates", "tables"):
        parser.add_argument(f"--{name}", action="store_true")
    given = parser.parse_args()
    project = Project.find()
    if given.count or given.rates:
        # One thread: those that wait for each other on a busy machine would count as work.
        backend = models.load(project, MODEL, threads=1)
        if given.count:
            tables.save(count(project, backend), RESULTS / "cost_tokens.csv")
        if given.rates:
            tables.save(rates(project, backend), RESULTS / "cost_rates.csv")
        backend.close()
    if given.count or given.rates or given.tables:
        PAGE.write_text(render(PAGE.read_text(encoding="utf-8"), blocks(RESULTS, project)), encoding="utf-8")
        return 0
    names = ("parameters", "peak", "utilisation", "generating", "price")
    assumed = Assumptions(**{name: getattr(given, name) for name in names})
    _say(_assumptions(assumed) + "\n\n" + _cost(price(tables.load(RESULTS / "cost_tokens.csv"), assumed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
