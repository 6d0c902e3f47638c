"""One model's card in this process and behind llama-cpp-python's server: the numbers agree within a tolerance.

Needs the extras `live` and `api` and the server's packages.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from persona_studies.ask import models
from persona_studies.ask import recorded as recorded_
from persona_studies.ask.backends import Backend
from persona_studies.paths import Project
from persona_studies.publish import report_card
from tests.kit.llama_server import MODEL, PROJECT, endpoint, serve
from tests.kit.runs import linked

pytestmark = pytest.mark.live

# Of a probability. In f32 the process and the server differ by 1e-4 nats; the rest is the second spelling of a
# label, with a space before it, which an endpoint adds.
TOLERANCE = 0.02


def test_a_card_by_chat_is_the_card_of_the_file(tmp_path: Path) -> None:
    """Letters of sycophancy, whose texts need no source; not without a persona, where the server adds one."""
    [part] = [
        p for p in report_card.quick(report_card.parts(PROJECT, print, texts=False)) if p.study == "sycophancy"
    ]
    plan = part.plan[(part.plan["kind"] == "letter") & (part.plan["condition"] != "none")]
    two = plan["item"].unique()[:4]
    asked = [replace(part, plan=plan[plan["item"].isin(two)].reset_index(drop=True))]
    assert len(asked[0].plan) == 40

    def card(project: Project, backend: Backend) -> report_card.Card:
        assert report_card.record(project, asked, {"sycophancy": backend}, None) == (None, 0)
        rows = {"sycophancy": recorded_.answers(project, "sycophancy", backend.info)}
        return report_card.card(project, asked, backend.info.name, rows)

    here = models.load(PROJECT, MODEL, precision="f32")
    mine = card(linked(tmp_path / "file"), here).numbers
    here.close()
    with serve(tmp_path / "log.txt") as address:
        theirs = card(linked(tmp_path / "chat"), endpoint(address, "chat", concurrency=1)).numbers
    assert mine["number"].tolist() == theirs["number"].tolist() and len(mine) >= 7
    assert (mine["n"] == 2).all() and (theirs["n"] == 2).all()
    assert (mine["estimate"] - theirs["estimate"]).abs().max() < TOLERANCE
