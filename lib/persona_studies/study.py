"""What a notebook opens: the protocol, the parameters in force, the responses, and where results go."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
from IPython.core.getipython import get_ipython
from IPython.display import Markdown, display

from persona_studies import files
from persona_studies.analyse import claims, figures, tables
from persona_studies.ask import chat, models, packing, recording, responses, schema
from persona_studies.ask.backends import kinds
from persona_studies.ask.estimate import estimate, summary
from persona_studies.design import protocol
from persona_studies.design.parameters import Parameters
from persona_studies.design.plan import IDENTITY
from persona_studies.design.protocol import Protocol
from persona_studies.errors import NotebookError, ResponsesError, quoted
from persona_studies.paths import Project
from persona_studies.reproduce import imports, notebooks, reads

HOW_TO_STOP = "To stop: the square in the toolbar, or the key I twice. Every answer is kept."
BUTTON = (
    '<button type="button" class="jp-mod-styled jp-mod-warn" '
    'data-commandlinker-command="notebook:interrupt-kernel">Stop</button>'
    " or the square in the toolbar, or the key I twice. Every answer is kept."
)


@dataclass(frozen=True)
class Study:
    """One run of a study.

    Attributes:
        name: Name of the study.
        project: The checkout.
        protocol: The declared design.
        parameters: The parameters in force.
        out: Folder that receives tables and figures.
    """

    name: str
    project: Project
    protocol: Protocol
    parameters: Parameters
    out: Path
    _alt: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, name: str, parameters: Parameters) -> Study:
        """Read the protocol, set the figure style and make the output folder.

        The runner names the folder in ``PERSONA_STUDIES_OUT``; in JupyterLab results go to
        ``runs/<study>/interactive/``, never to the reference.

        Raises:
            NotebookError: the notebook or the parameters are another study's.
        """
        project = Project.find()
        _own(project, name, parameters)
        named = os.environ.get("PERSONA_STUDIES_OUT")
        out = Path(named) if named else project.runs / name / "interactive"
        for folder in (out / "tables", out / "figures"):
            folder.mkdir(parents=True, exist_ok=True)
        figures.style()
        reads.hold_to(project, name)
        imports.hold_to(project, name, asks=parameters.model_dump().get("live_hours", 0) > 0)
        return cls(name, project, protocol.load(project.protocol(name)), parameters, out)

    def deviations(self) -> pd.DataFrame:
        """Return the parameters that differ from the notebook's own: ``parameter, declared, this_run``."""
        declared = notebooks.parameters(notebooks.read(self.project.notebook(self.name)))
        return pd.DataFrame(
            [
                {"parameter": name, "declared": json.dumps(default), "this_run": json.dumps(value)}
                for name, default in declared.items()
                if (value := self.parameters.model_dump(mode="json")[name]) != default
            ],
            columns=["parameter", "declared", "this_run"],
        )

    def responses(self, plan: pd.DataFrame, model: str, *, partly: bool = False) -> pd.DataFrame:
        """Return the recorded response of every planned cell (:func:`persona_studies.ask.responses.load`)."""
        return responses.load(self.project, self.name, models.slug(model), plan, partly=partly)

    def model(self) -> str:
        """Return the model of this run: the parameter ``model``, or the only recorded one; empty where none is."""
        return responses.meant(self.project, self.name, self.parameters.model_dump()["model"])

    def is_recorded(self, model: str) -> bool:
        """Return whether responses of a model are recorded."""
        return bool(model) and models.slug(model) in responses.recordings(self.project, self.name)

    def how_to_record(self) -> str:
        """Return in words that nothing is recorded, with the command that records it."""
        model = self.protocol.design.get("models", ["smollm2-135m-instruct"])[0]
        return f"no responses recorded yet; to record: `make record STUDY={self.name} MODEL={model}`"

    def complete(self, plan: pd.DataFrame) -> tuple[dict[str, pd.DataFrame], dict[str, list[str]]]:
        """Return the responses of measures that are recorded to the last cell, for each model of this run.

        These are the models of the parameter ``models`` or, where it is empty, all that are recorded, those of the
        protocol (``design.models``) first. A measure in progress is not looked at.

        Returns:
            Model -> responses, where a measure is complete; model -> measures that are not complete.
        """
        known = responses.recordings(self.project, self.name)
        named = [models.slug(name) for name in self.parameters.model_dump()["models"]]
        if not named:
            first = [models.slug(name) for name in self.protocol.design["models"]]
            named = [name for name in dict.fromkeys([*first, *known]) if name in known]
        found, lacking = {}, {}
        for model in named:
            lacking[model] = [
                str(measure)
                for measure, cells in plan.groupby("measure", sort=False)
                if responses.answered(self.project, self.name, model, cells) < len(cells)
            ]
            whole = plan[~plan["measure"].isin(lacking[model])]
            if len(whole):
                found[model] = responses.load(self.project, self.name, model, whole)
        return found, lacking

    def accounted(self, plan: pd.DataFrame, recorded: pd.DataFrame) -> pd.DataFrame:
        """Return how much of each measure is planned and recorded: ``measure, planned, recorded, purpose``."""
        planned = plan["measure"].value_counts(sort=False).rename("planned").rename_axis("measure").reset_index()
        count = recorded["measure"].value_counts()
        purposes = {name: measure.purpose for name, measure in self.protocol.measures.items()}
        return planned.assign(
            recorded=[int(count.get(name, 0)) for name in planned["measure"]],
            purpose=planned["measure"].map(purposes),
        )

    def has(self, recorded: pd.DataFrame, measure: str) -> bool:
        """Return whether a recording holds a measure; show in one line that it does not.

        Args:
            measure: Name of a measure, or a kind: any measure of it will do.
        """
        if measure in self._held(recorded):
            return True
        display(Markdown(f"*Not shown: {self.missing(recorded, measure)}.*"))
        return False

    def missing(self, recorded: pd.DataFrame, measure: str) -> str:
        """Return in words why nothing is known from a measure, for a section or a claim that needs it."""
        held = ", ".join(recorded["measure"].unique()) or "nothing yet"
        return f"the measure {measure} is not part of this recording, which holds {held}"

    def primary(self, recorded: pd.DataFrame) -> str:
        """Return the primary measure: the parameter ``measure``, or by the protocol's rule where it is ``primary``.

        Raises:
            ResponsesError: none of the measures that can be primary is recorded.
        """
        asked: str = self.parameters.model_dump()["measure"]
        if asked != "primary":
            return asked
        return self.protocol.primary_measure(self._held(recorded))

    def _held(self, recorded: pd.DataFrame) -> set[str]:
        """Return the recorded measures and their kinds."""
        names = {*recorded["measure"]}
        return names | {m.kind for name, m in self.protocol.measures.items() if name in names}

    def ask(
        self, cells: Callable[[], pd.DataFrame], model: str, *, hours: float, **how: Any
    ) -> recording.Progress | None:
        """Ask a model the cells that have no response yet; with 0 hours, ask nothing.

        Prints the estimate first (cells, tokens, time, money), then shows progress, and stops at the cap;
        whatever was answered is kept, and the next call goes on from there.

        Args:
            cells: Returns the plan with its texts; called only where something is to be asked.
            model: A model's name, see :mod:`persona_studies.ask.models`.
            hours: Cap on the time of this call.
            how: Passed to :func:`persona_studies.ask.recording.load`.

        Raises:
            BackendError: the model cannot be loaded or does not answer.
            ResponsesError: the cap was reached, or the kernel interrupted, before every cell had an answer.
        """
        if hours == 0:
            return None
        plan, backend = cells(), recording.load(self.project, self.name, model, **how)
        plan = plan[plan["kind"].isin(kinds(backend)[0])].reset_index(drop=True)
        left = recording.pending(self.project, self.name, plan, backend.info)
        progress = None
        if len(left):
            try:
                print(summary(estimate(left, backend, print)))
                with _stop_button():
                    progress = recording.record(self.project, self.name, plan, backend, hours=hours)
            except KeyboardInterrupt:
                kept = len(plan) - len(recording.pending(self.project, self.name, plan, backend.info))
                backend.close()
                raise ResponsesError(
                    f"Interrupted: {kept:,} of {len(plan):,} cells have an answer and are kept. "
                    "Run this cell again to go on."
                ) from None
            if not progress.complete:
                why = f"stopped at {progress.stopped}" if progress.stopped else f"{progress.failed:,} failed"
                raise ResponsesError(
                    f"{progress.recorded:,} of {progress.planned:,} cells have an answer; {why}. Run this cell "
                    "again to go on; `persona-studies record --reask never` leaves cells failed that are refused."
                )
        backend.close()
        packing.pack(self.project, self.name, plan, backend.info.name)
        return progress

    def description(self, model: str) -> dict[str, Any]:
        """Return what is known about a recording: model, hash, backend, schedule, dates, files."""
        known = responses.description(self.project.responses(self.name, models.slug(model)))
        if known is None:
            raise ResponsesError(f"No recorded responses of model {model!r} for {self.name}; record it first.")
        return known

    def claims(self, found: pd.DataFrame, **how: Any) -> tables.Table:
        """Write and show the one table of the study's claims, ``verdicts.csv``.

        Its columns are :data:`persona_studies.analyse.claims.COLUMNS`, then those that only this study has, which
        are saved and not shown. Rows of one claim stand together: the first decides, further models follow.

        Args:
            found: One row per claim, layer and model, as :func:`persona_studies.analyse.verdicts.table` returns;
                every claim of the protocol has one.
            how: Passed to :func:`persona_studies.analyse.tables.show`.

        Raises:
            PersonaStudiesError: the table does not hold (:func:`persona_studies.analyse.claims.table`).
        """
        whole = claims.table(self.project, self.name, found)
        shown = ("statement", "published", "recomputed", "model", "estimate", "unit", "verdict", "why")
        more = {"would_decide": "would decide: ", "steerable": "steerable: ", "details": ""}
        empty = [name for name in (*shown[2:4], "unit", *more) if not whole[name].astype(bool).any()]
        hidden = [name for name in whole if name not in (*shown, *more, "low", "high", "layer")] + empty
        hidden += ["layer"] if whole["layer"].nunique() == 1 else []
        how = {
            "subtitle": f"{whole['claim'].nunique()} claims; here: estimate with its interval",
            "labels": {"statement": "claim", "estimate": "here"},
            "decimals": dict.fromkeys(["estimate", "low", "high"], 3),
            "hide": hidden,
            "below": {"estimate": {"unit": ""}, "why": more},
            **how,
        }
        intervals = {"estimate": ("low", "high")}
        return self.table(whole, "verdicts", "Claims and verdicts", intervals=intervals, **how)

    def recorded(self) -> tables.Table:
        """Write and show what is recorded of every model, ``responses.csv``.

        One row per model and measure: ``model, measure, planned, recorded``, then how the answers ended: ``scored``
        (log-probabilities), ``replies``, ``truncated`` (replies cut at the most tokens allowed), ``failed``, and
        ``backend, precision, dates``. A recording in progress has fewer cells recorded than planned.
        """
        rows = []
        for model in responses.recordings(self.project, self.name):
            record = self.description(model)
            info, planned = record["model"], record.get("unfinished", {}).get("planned", {})
            counts = responses.statuses(self.project, self.name, model)
            for measure in dict.fromkeys([*counts, *planned]):
                status = counts.get(measure, {})
                known = sum(status.values())
                rows.append(
                    {"model": info["name"], "measure": measure, "planned": max(planned.get(measure, 0), known)}
                    | {"recorded": known, "scored": status.get("scored", 0), "replies": status.get("stop", 0)}
                    | {"truncated": status.get("length", 0), "failed": status.get("failed", 0)}
                    | {"backend": f"{info['backend']} {info['version']}, {info['schedule']}"}
                    | {"precision": info["precision"], "dates": _span(record["recorded"])}
                )
        names = ("model", "measure", "planned", "recorded", "scored", "replies", "truncated", "failed")
        table = pd.DataFrame(rows, columns=[*names, "backend", "precision", "dates"])
        return self.table(table, "responses", "What is recorded", subtitle="cells by model and measure")

    def provenance(self, also: Mapping[str, str] = MappingProxyType({})) -> tables.Table:
        """Write and show where the numbers come from, ``provenance.csv``: models, protocols, parameters.

        Args:
            also: Further lines, what -> value, which stand first.
        """
        rows = dict(also)
        for model in responses.recordings(self.project, self.name):
            record = self.description(model)
            info = record["model"]
            rows |= {
                f"{info['name']}: file (sha256)": info["model_hash"],
                f"{info['name']}: asked by": f"{info['backend']} {info['version']}, schedule {info['schedule']}, "
                f"weights computed in {info['precision']}, chat template {info['chat']}",
                f"{info['name']}: recorded": _span(record["recorded"]),
            }
        rows["protocol.toml (sha256)"] = self.protocol_digest()
        rows["parameters"] = self.parameters.model_dump_json()
        table = pd.DataFrame(list(rows.items()), columns=["what", "value"])
        return self.table(table, "provenance", "Provenance")

    def example(
        self, row: pd.Series, plan: pd.DataFrame, model: str, scores: Mapping[str, str | float]
    ) -> tables.Table:
        """Write and show one cell of the experiment, ``example.csv``: prompt, recorded row, score.

        Args:
            plan: The plan that it is a cell of. Texts that a licence keeps out of this repository are None there;
                the template stands for them, with its places in braces.
            model: The model that answered, whose turn marks the prompt has.
            scores: What is made of the row: formula or rule in words -> value.
        """
        info = self.description(model)["model"]
        # A question that is answered in words may have been asked in another option order than is planned now.
        plan = schema.as_recorded(plan, pd.DataFrame([row]))
        cell = plan[(plan[IDENTITY] == row[IDENTITY]).all(axis=1)].iloc[0]
        template = self._template(str(cell["measure"]), str(cell["template"]))
        parts = [cell[name] if isinstance(cell[name], str) else template[name] for name in ("shared", "user")]
        if cell["kind"] == "letter" and isinstance(cell["options"], tuple):
            lines = "\n".join(f"{letter}. {{option {k}}}" for k, letter in enumerate(cell["options"], start=1))
            parts[1] = parts[1].replace("{lettered options}", lines)
        system = cell["system"] if isinstance(cell["system"], str) else None
        style = chat.FAMILIES.get(info["chat"], chat.PLAIN)
        rows = {
            "asked": f"measure {cell['measure']}, condition {cell['condition']}, item {cell['item']}, "
            f"option order {cell['order']}",
            f"prompt, as {info['name']} saw it": "".join(style.render(system, *parts)),
            **_answer(row, cell),
        }
        return self._once({**rows, **scores}, "one prompt, one recorded row, and the score made of it")

    def released_example(self, steps: Mapping[str, str | float]) -> tables.Table:
        """Write and show one released row, ``example.csv``, where no model is asked.

        Args:
            steps: From what was released to the primary outcome: what it is -> value.
        """
        return self._once(steps, "what was released, and the score made of it")

    def _once(self, steps: Mapping[str, str | float], subtitle: str) -> tables.Table:
        said = [(what, f"{value:.3f}" if isinstance(value, float) else str(value)) for what, value in steps.items()]
        table = pd.DataFrame(said, columns=["what", "value"])
        return self.table(table, "example", "The experiment, once", subtitle=subtitle, verbatim=["value"])

    def _template(self, measure: str, name: str) -> dict[str, str]:
        """Return ``shared`` and ``user`` of a template."""
        known = self.protocol.measures
        for template in known[measure].templates if measure in known else ():
            if template.template == name:
                return {"shared": template.shared, "user": template.user}
        raise ResponsesError(f"The protocol of {self.name} has no template {name!r} of the measure {measure!r}.")

    def protocol_digest(self) -> str:
        """Return the sha256 of the protocol file."""
        return files.sha256(self.project.protocol(self.name))

    def published(self, name: str) -> pd.DataFrame:
        """Return a table of figures that publications report, from ``data/published/<study>/``."""
        return pd.read_csv(self.project.published / self.name / f"{name}.csv")

    def table(self, frame: pd.DataFrame, name: str, title: str, **how: Any) -> tables.Table:
        """Write a result table as CSV, unrounded, and return it formatted for reading.

        Args:
            frame: One row per thing; no index.
            name: Stem of the CSV file.
            title: What the table shows.
            how: Passed to :func:`persona_studies.analyse.tables.show`.
        """
        tables.save(frame, self.out / "tables" / f"{name}.csv")
        return tables.show(frame, id=name.replace("_", "-"), title=title, **how)

    def figure(self, figure: Any, name: str, *, alt: str, caption: str, tables: Sequence[str] = ()) -> None:
        """Write a figure as SVG and PNG and show it with its caption.

        Args:
            figure: Matplotlib figure; closed afterwards.
            name: Stem of the files.
            alt: What the figure shows, for those who do not see it.
            caption: What it is, with n.
            tables: The saved tables that it draws. The site reads them from the cell and links to them.
        """
        _, png = figures.save(figure, self.out / "figures" / name)
        self._alt[name] = alt
        figures.show(png, alt=alt, caption=caption)

    def image(self, name: str) -> Any:
        """Return a figure that this run has drawn, to be shown once more."""
        return figures.image(self.out / "figures" / f"{name}.png", alt=self._alt[name])


def _span(recorded: Mapping[str, str]) -> str:
    """Return the days of a recording.

    >>> _span({"first": "2026-11-29", "last": "2026-11-30"}), _span({"first": "2026-11-30", "last": "2026-11-30"})
    ('2026-11-29 to 2026-11-30', '2026-11-30')
    """
    return " to ".join(dict.fromkeys(recorded[name] for name in ("first", "last")))


def _answer(row: pd.Series, cell: pd.Series) -> dict[str, str]:
    """Return what a recorded row holds: of each option its log-probability, or the reply."""
    if cell["kind"] == "text":
        return {"recorded: reply": str(row["text"]), "recorded: it ended by": str(row["finish"])}
    values = [float(value) for value in row["logprob"]]
    known = cell["options"] if isinstance(cell["options"], tuple) else (None,) * len(values)
    named = [text or f"option {place}" for place, text in enumerate(known, start=1)]
    lengths = [f" over {n} characters" if cell["kind"] == "cloze" else "" for n in row["n_chars"]]
    shown = "\n".join(f"{text}: {value:.3f}{n}" for text, value, n in zip(named, values, lengths, strict=True))
    rows = {"recorded: log-probability": shown}
    if cell["kind"] == "letter":
        rows["recorded: probability of all labels together"] = f"{float(row['option_mass']):.3f}"
    return rows


def _own(project: Project, name: str, parameters: Parameters) -> None:
    """Refuse a notebook that was copied from another study and still opens that one."""
    package = type(parameters).__module__.split(".")[0]
    # JupyterLab names the notebook of a kernel; elsewhere the runner has looked into it.
    notebook = Path(os.environ.get("JPY_SESSION_NAME", "")).stem
    for other in (package, notebook):
        if other != name and other in project.names():
            what = "parameters are" if other == package else "notebook is"
            raise NotebookError(
                f"Study.open names {quoted(name)}, but the {what} of {other!r}; "
                f'write Study.open("{other}", parameters), and import from {other!r}.'
            )


@contextlib.contextmanager
def _stop_button() -> Iterator[None]:
    """Say how to stop while a model is asked, in JupyterLab with a button.

    JupyterLab runs the button's command itself, so that it works while the kernel is busy; a widget's would wait
    for the kernel. Where the button is not understood, the sentence beside it says what to do.
    """
    if get_ipython() is None:
        print(HOW_TO_STOP)
        yield
        return
    shown = display({"text/plain": HOW_TO_STOP, "text/html": BUTTON}, raw=True, display_id=True)
    try:
        yield
    finally:
        shown.update({"text/plain": "", "text/html": ""}, raw=True)
