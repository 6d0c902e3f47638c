"""What the weights' number format does: recorded cells scored again with the weights converted to f32.

A protocol's ``precision_sample`` says how many cells are drawn, and with which seed, from what is recorded.

    python benchmarks/as_filed.py                    # every study that a larger model answered; 7 GB of memory
    python benchmarks/as_filed.py expert_personas    # one study, about ten minutes of one core
    python benchmarks/bench.py --tables              # rewrite the generated parts of README.md
"""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from parity import compare
from tqdm import tqdm

from persona_studies.ask import models, planner, responses
from persona_studies.ask.recording import requests
from persona_studies.cli.shared import planned
from persona_studies.design.plan import IDENTITY
from persona_studies.design.protocol import load as load_protocol
from persona_studies.paths import Project

RESULT = Path(__file__).parent / "results" / "as_filed.csv"
MODEL = "qwen2.5-coder-1.5b-instruct"


def sample(project: Project, study: str, model: str) -> pd.DataFrame:
    """Return recorded cells of scored options, drawn as the protocol declares, with texts and answers."""
    declared = load_protocol(project.protocol(study)).design["precision_sample"]
    plan = planned(project, study, [])
    answered = responses.load(project, study, model, plan, partly=True)
    scored = answered[answered["finish"].eq("scored")]
    drawn = scored.sample(min(declared["cells"], len(scored)), random_state=declared["seed"])
    return planner.order(plan.merge(drawn[[*IDENTITY, "logprob"]], on=[*IDENTITY]))


def scored_again(project: Project, model: str, cells: pd.DataFrame) -> list[np.ndarray]:
    """Return the log-probabilities of the cells' options with the weights in f32."""
    loaded = models.load(project, model, precision="f32", threads=1)
    found = dict(tqdm(loaded.respond(requests(cells)), total=len(cells), desc="f32"))
    loaded.close()
    return [np.array(found[place].logprob) for place in range(len(cells))]


def main() -> None:
    """Write ``results/as_filed.csv``, one row per study and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="*", help="default: all that declare a sample and hold the recording")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    project = Project.find()
    declaring = [
        study
        for study in project.names()
        if given.model in responses.recordings(project, study)
        and "precision_sample" in load_protocol(project.protocol(study)).design
    ]
    for study in given.studies or declaring:
        cells = sample(project, study, given.model)
        again = scored_again(project, given.model, cells)
        rows = []
        for measure, part in cells.reset_index(drop=True).groupby("measure"):
            filed = [np.array(part.loc[place, "logprob"]) for place in part.index]
            row = compare([again[place] for place in part.index], filed)
            rows.append({"study": study, "model": given.model, "measure": measure, "cells": len(part), **row})
        table = pd.DataFrame(rows).assign(date=datetime.datetime.now(datetime.UTC).date().isoformat())
        if given.out.is_file():
            before = pd.read_csv(given.out)
            table = pd.concat([before[~(before["study"].eq(study) & before["model"].eq(given.model))], table])
        table.sort_values(["study", "model", "measure"]).to_csv(
            given.out, index=False, lineterminator="\n", float_format="%.6g"
        )
        sys.stdout.write(table.to_string(index=False) + "\n")


if __name__ == "__main__":
    main()
