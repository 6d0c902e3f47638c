"""A datasheet of the committed recordings, from what their ``record.json`` and their rows say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from persona_studies.ask import registry, responses, unfinished
from persona_studies.design import protocol
from persona_studies.paths import Project

SHOWN = ["measure", "condition", "item", "template", "order", "repeat", "finish"]


def recordings(project: Project) -> str:
    """Return a section per recording: what answered, how and when, and its cells by measure, in Markdown."""
    places = sorted(path.parent for path in project.data.glob("responses/*/*/record.json"))
    return "\n".join(part for place in places for part in _recording(project, place)).rstrip()


def _recording(project: Project, place: Path) -> Iterator[str]:
    record = responses.description(place)
    assert record is not None
    study, model = record["study"], record["model"]
    named = registry.load(project).get(model["name"]) if (project.data / "models.toml").is_file() else None
    limits = named.limits if named is not None and named.sha256 == model["model_hash"] else ""
    first, last = record["recorded"]["first"], record["recorded"]["last"]
    yield f"## {study}, {model['name']}\n"
    yield _markdown(
        pd.DataFrame(
            {
                "model": model["name"],
                "weights (sha256 or revision)": f"`{model['model_hash']}`",
                "backend": f"{model['backend']} {model['version']}",
                "schedule": model["schedule"],
                "computed in": model["precision"],
                "chat template": model["chat"],
                **({"limits": limits} if limits else {}),
                "decoding": record["decoding"],
                "recorded": first if first == last else f"{first} to {last}",
                **({"served as": record["served"]} if "served" in record else {}),
                **({"asked with": f"`{json.dumps(record['settings'])}`"} if "settings" in record else {}),
                **({"instruction set": " | ".join(record["instructions"])} if "instructions" in record else {}),
                "cells": unfinished.incomplete(record) or f"{record['cells']:,}",
            }.items(),
            columns=["what", "value"],
        )
    )
    declared = [protocol.load(path) for path in sorted(project.folder(study).glob("protocol*.toml"))]
    kinds = {name: measure.kind for each in declared for name, measure in each.measures.items()}
    rows = [
        _file(place / name, file["rows"], kinds.get(Path(name).stem, "")) for name, file in record["files"].items()
    ]
    yield "\n" + _markdown(pd.DataFrame(rows)) + "\n"


def _file(path: Path, rows: int, kind: str) -> dict[str, Any]:
    """Describe a measure's file: how many cells of what kinds."""
    frame = pq.read_table(path, columns=SHOWN).to_pandas()
    finishes = frame["finish"].value_counts().sort_index()
    templates = sorted(map(str, frame["template"].unique()))
    return {
        "file": f"`{path.name}`",
        "kind": kind,
        "cells": f"{rows:,}",
        "conditions": frame["condition"].nunique(),
        "items": f"{frame['item'].nunique():,}",
        "templates": ", ".join(templates),
        "orders": frame["order"].nunique(),
        "repeats": frame["repeat"].nunique(),
        "how they ended": ", ".join(f"{finish} {count:,}" for finish, count in finishes.items() if count),
    }


def _markdown(frame: pd.DataFrame) -> str:
    return str(frame.to_markdown(index=False, disable_numparse=True))
