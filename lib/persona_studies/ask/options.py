"""What the options of ``persona-studies record`` mean: which measures, which endpoint, which cells again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from persona_studies.ask.backends import Backend, kinds
from persona_studies.ask.chat import detect
from persona_studies.design import plan as plans
from persona_studies.errors import ParameterError, quoted

if TYPE_CHECKING:
    from persona_studies.ask.backends.endpoint.budget import Budget


def answerable(
    cells: pd.DataFrame, asker: Backend, measures: str | None, say: Callable[[str], None], sample: int | None = None
) -> pd.DataFrame:
    """Return the cells that a model can be asked, of the measures that were named.

    Args:
        asker: The model; an endpoint is asked what it can answer.
        measures: Of ``--measures``: names or kinds, separated by commas; None is whatever can be asked.
        say: Is told what is left out, and why.
        sample: Of ``--sample``: so many of these cells; None is all.

    Raises:
        ParameterError: an unknown measure, one that was named and cannot be asked, or nothing is left.
        BackendError: the endpoint does not answer.
    """
    cells = of_measures(cells, measures)
    answered, why_not, note = kinds(asker)
    if note:
        say(note)
    name = asker.info.name
    for kind in [kind for kind in cells["kind"].unique() if kind not in answered]:
        lacking = ", ".join(cells.loc[cells["kind"] == kind, "measure"].unique())
        if measures is not None:
            raise ParameterError(f"{name} cannot be asked {lacking}: {why_not[kind]}")
        say(f"{name} cannot be asked {lacking}, which is left out: {why_not[kind]}")
    kept = cells[cells["kind"].isin(answered)]
    if kept.empty:
        raise ParameterError(f"{name} can be asked nothing of this plan: it answers {', '.join(answered)} only.")
    kept = kept.reset_index(drop=True)
    return kept if sample is None else plans.sample(kept, sample)


def of_measures(cells: pd.DataFrame, measures: str | None) -> pd.DataFrame:
    """Return the cells of the measures of ``--measures``; all without it.

    Raises:
        ParameterError: no measure, or an unknown one.
    """
    if measures is None:
        return cells
    names = [name.strip() for name in measures.split(",") if name.strip()]
    if not names:
        raise ParameterError("--measures names none; write for example --measures letter,text")
    return plans.of_measures(cells, names)


def endpoint(
    model: str,
    budget: Budget | None,
    extra: str | None,
    chat: str | None,
    only: Mapping[str, Any],
    here: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the arguments of an endpoint; none for another model.

    Args:
        model: As ``--model`` names it.
        budget: Caps.
        extra: Of ``--extra``.
        chat: Of ``--chat``.
        only: Further arguments, None unless they were given.
        here: What only a model that runs here has, None unless it was given.

    Raises:
        ParameterError: something is given that the model does not have, or ``--extra`` is not a JSON object.
    """
    given = {name: value for name, value in {**only, "extra": fields(extra)}.items() if value is not None}
    if model.startswith("openai:"):
        if flags := [f"--{name}" for name, value in here.items() if value is not None]:
            raise ParameterError(f"{', '.join(flags)} goes with a model that runs here; {model} is an endpoint.")
        return {"budget": budget, **given, **({"chat": detect(None, wanted=chat)} if chat is not None else {})}
    if given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ParameterError(f"{options} goes with an endpoint, --model openai:MODEL; {model} is none.")
    return {}


def fields(extra: str | None) -> dict[str, Any] | None:
    """Return the fields of ``--extra``.

    Raises:
        ParameterError: it is not a JSON object.
    """
    if extra is None:
        return None
    try:
        found = json.loads(extra)
        json.dumps(found, allow_nan=False)  # NaN and 1e999 can be read, and not be sent
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ParameterError(
            f"""--extra {quoted(extra)} is not a JSON object; write for example '{{"top_k": 1}}'"""
        )
    return found


def asks_again(reask: str) -> bool:
    """Return whether ``--reask`` has failed cells asked again.

    Raises:
        ParameterError: neither ``failed`` nor ``never``.
    """
    if reask not in ("failed", "never"):
        raise ParameterError(f"--reask {quoted(reask)} is unknown; it is failed, or never.")
    return reask == "failed"
