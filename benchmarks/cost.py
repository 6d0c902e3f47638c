"""What recording the studies' grids would cost with a large model: tokens, GPU hours, money.

The planner counts tokens with the tokeniser of the embedded model, which needs the extra `live` and the studies'
sources. Hours and money follow from assumptions that are arguments: a forward pass takes two operations per
parameter and token, a GPU reaches a share of its peak, an hour has a price. None of these is measured here. The
planner's tokens are compared with those that went through the model in the committed recordings.

    python benchmarks/cost.py --parameters 70e9 --peak 989e12 --utilisation 0.4 --price 2   # your own assumptions
    python benchmarks/cost.py --count                           # count the tokens again: some minutes
    python benchmarks/cost.py --tables                          # rewrite the generated parts of docs/cost.md
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

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


def sampled(cells: pd.DataFrame, at_most: int = COUNTED) -> pd.DataFrame:
    """Return whole runs of cells that share their start, evenly from all of them, about ``at_most`` cells."""
    ordered = planner.order(cells)
    heads = ordered[["system", "shared"]].fillna("\x00none")
    start = heads.ne(heads.shift()).any(axis=1).cumsum()
    step = -(-len(ordered) // at_most)
    return ordered[(start - 1) % step == 0] if step > 1 else ordered


def grids(project: Project) -> dict[str, pd.DataFrame]:
    """Return every cell of each study that asks a model, as its notebook's parameters plan it."""
    found = {}
    for study in project.names():
        module = ready.study_module(project, study)
        if hasattr(module, "plan"):
            in_force, _ = ready.resolve(project, study, [])
            declared = protocol.load(project.protocol(study))
            found[study] = module.plan(project, declared, in_force, texts=True)
    return found


def count(project: Project, backend: Backend) -> pd.DataFrame:
    """Count the tokens of every study's grid.

    Returns:
        One row per study and measure: ``study, measure, kind, cells``; ``counted`` (cells whose tokens are counted,
        the rest is in proportion); ``starts`` (computed once for cells that share them); ``logical`` (every prompt
        in full, once per option); ``computed`` (what sharing leaves); ``apart`` (of it, what is a cell's own);
        ``generated`` (of it, at most).
    """
    rows = []
    for study, plan in grids(project).items():
        for measure, cells in plan.groupby("measure", sort=False, observed=True):
            some = sampled(cells)
            scale = len(cells) / len(some)
            asked = list(recording.requests(some))
            apart = sum((size := backend.size(request)).suffix + size.branches for request in asked)
            kind = cells["kind"].iloc[0]
            generated = int(some["max_tokens"].sum()) if kind == "text" else 0
            amounts = {**planner.cost(asked, backend), "apart": apart, "generated": generated}
            rows.append(
                {"study": study, "measure": measure, "kind": kind, "cells": len(cells), "counted": len(some)}
                | {name: round(amount * scale) for name, amount in amounts.items()}
            )
            _say(rows[-1])
    return pd.DataFrame(rows)


def recorded(project: Project) -> pd.DataFrame:
    """Return what went through the model in the committed recordings, a cell's own tokens: ``study, measure, cells,
    apart``."""
    rows = []
    for study in project.names():
        if MODEL in responses.recordings(project, study):
            found = responses.stored(project.responses(study, MODEL))
            for measure, cells in found.groupby("measure", observed=True):
                rows.append((study, str(measure), len(cells), int(cells["computed_tokens"].sum())))
    return pd.DataFrame(rows, columns=["study", "measure", "cells", "apart"])


def price(counted: pd.DataFrame, assumed: Assumptions) -> pd.DataFrame:
    """Return hours and money per study and of all, with the sharing of this engine and without any."""
    total = counted.groupby("study", sort=False)[["cells", "logical", "computed", "generated"]].sum()
    total.loc["all"] = total.sum()
    for name, tokens in (("hours", "computed"), ("hours_alone", "logical")):
        both = zip(total[tokens], total["generated"], strict=True)
        total[name] = [assumed.hours(every - generated, generated) for every, generated in both]
    total["money"], total["money_alone"] = total["hours"] * assumed.price, total["hours_alone"] * assumed.price
    return total.reset_index()


def blocks(folder: Path, project: Project, assumed: Assumptions | None = None) -> dict[str, str]:
    """Return the generated parts of docs/cost.md."""
    assumed = assumed or Assumptions()
    counted = tables.load(folder / "cost_tokens.csv")
    return {
        "assumptions": _assumptions(assumed),
        "cost": _cost(price(counted, assumed)),
        "planner": _planner(counted, recorded(project)),
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
    for name in ("count", "tables"):
        parser.add_argument(f"--{name}", action="store_true")
    given = parser.parse_args()
    project = Project.find()
    if given.count:
        backend = models.load(project, MODEL, threads=1)
        tables.save(count(project, backend), RESULTS / "cost_tokens.csv")
        backend.close()
    if given.count or given.tables:
        PAGE.write_text(render(PAGE.read_text(encoding="utf-8"), blocks(RESULTS, project)), encoding="utf-8")
        return 0
    names = ("parameters", "peak", "utilisation", "generating", "price")
    assumed = Assumptions(**{name: getattr(given, name) for name in names})
    _say(_assumptions(assumed) + "\n\n" + _cost(price(tables.load(RESULTS / "cost_tokens.csv"), assumed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
