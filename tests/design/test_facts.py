"""Whether a committed table of facts is what its source gives."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from persona_studies.design import facts
from persona_studies.errors import SourceError
from persona_studies.paths import Project

TABLE = pd.DataFrame({"who": ["a", "NA", None], "n": [1, 2, 3], "x": [0.1, np.nan, 0.3]})


def fact(made: pd.DataFrame, **how: tuple[str, ...]) -> facts.Fact:
    return facts.Fact(lambda project, find: made, **how)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    (made.published / "toy").mkdir(parents=True)
    facts.rebuild(made, "toy", {"table": fact(TABLE)})
    return made


def compare(
    project: Project, made: pd.DataFrame, tolerance: float = 1e-6, **how: tuple[str, ...]
) -> dict[str, object]:
    return facts.compare(project, "toy", "table", fact(made, **how), tolerance=tolerance)


def test_a_table_comes_back_as_it_was_made(project: Project) -> None:
    found = compare(project, TABLE, tolerance=0)
    assert found == {"table": "table", "committed": 3, "rederived": 3, "columns": 3, "largest_difference": 0.0}
    found = compare(project, TABLE.assign(x=TABLE["x"] + 1e-7))
    assert found["largest_difference"] == pytest.approx(1e-7)


@pytest.mark.parametrize(
    "made",
    [
        TABLE.assign(x=TABLE["x"] + 1e-5),
        TABLE.assign(x=[0.1, 0.2, 0.3]),
        TABLE.assign(n=[1, 2, 4]),
        TABLE.assign(who=["a", None, "NA"]),
        TABLE.head(2),
        TABLE[["n", "who", "x"]],
    ],
)
def test_what_differs_is_refused(project: Project, made: pd.DataFrame) -> None:
    with pytest.raises(SourceError, match=r"data/published/toy/table\.csv is not what its source gives"):
        compare(project, made)


def test_a_source_that_gives_a_part_is_compared_with_that_part(project: Project) -> None:
    part = TABLE.loc[[2, 0], ["n", "x"]].reset_index(drop=True)
    found = compare(project, part, key=("n",))
    assert [found["committed"], found["rederived"], found["columns"]] == [3, 2, 2]
    with pytest.raises(SourceError, match=r"a number differs by 0\.2"):
        compare(project, part.assign(x=part["x"] + 0.2), key=("n",))
