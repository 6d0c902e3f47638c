"""A study of 60 cells that a real model records in a minute, for tests of what works recordings and runs off."""

from __future__ import annotations

from pathlib import Path

from persona_studies.paths import Project
from tests.conftest import MODULE, PARAMETERS, project_at
from tests.kit.protocols import GOOD

CELLS = 60
PLAN = '''    model: str = Field(description="a model")


PEOPLE = {"none": None, "baker": "You are a baker.", "nurse": "You are a nurse.", "judge": "You are a judge."}
THINGS = ("tea", "snow", "chess", "rain", "jazz")


def plan(project, protocol, parameters, *, texts=False):
    """Cross four people with five statements per round."""
    import pandas as pd
    from persona_studies.design.plan import combine, measure, text_hash

    statements = [f"{thing} is number {n}" for n in range(1, parameters.rounds + 1) for thing in THINGS]
    people = {"condition": list(PEOPLE), "system": list(PEOPLE.values()), "description": None}
    people["condition_hash"] = [text_hash(system) for system in PEOPLE.values()]
    items = {"item": statements, "item_hash": list(map(text_hash, statements)), "text": statements}
    template = {"template": ["say"], "shared": [""], "user": ["I say that {text}."]}
    return combine(
        [
            measure(
                "agree",
                "cloze",
                conditions=pd.DataFrame(people, dtype=object),
                items=pd.DataFrame(items),
                templates=pd.DataFrame(template),
                options=["Yes.", "No."],
            )
        ]
    )
'''
WORK = """import os
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from persona_studies.analyse import figures, tables
from persona_studies.ask import responses
from persona_studies.paths import Project

out = Path(os.environ["PERSONA_STUDIES_OUT"])
for name in ("tables", "figures"):
    (out / name).mkdir(exist_ok=True)
project = Project(Path(os.environ["PERSONA_STUDIES_ROOT"]))
rows = responses.stored(project.responses("toy", parameters.model))
rows = rows[rows["item"].astype(str).str.split().str[-1].astype(int) <= parameters.rounds]
contrast = [yes - no for yes, no in rows["logprob"]]
contrast = pd.DataFrame({"condition": rows["condition"].astype(str), "yes": contrast})
found = contrast.groupby("condition", as_index=False)["yes"].mean().assign(alpha=parameters.alpha)
tables.save(found, out / "tables" / "yes.csv")
figures.style()
figure, axes = plt.subplots()
axes.barh(found["condition"], found["yes"])
figures.save(figure, out / "figures" / "yes")
print(len(rows))"""


def make(root: Path) -> Project:
    """Make a project whose study ``toy`` plans 20 cells a round, 60 with its own parameters."""
    project = project_at(root, WORK, parameters=PARAMETERS + '\nmodel = "none"  # a model')
    project.design("toy").write_text(MODULE + PLAN)
    project.protocol("toy").write_text(GOOD)
    (project.data / "models.toml").write_text("")
    return project
