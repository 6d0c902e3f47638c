"""Arguments and options that commands take, each with its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Study = Annotated[str, typer.Argument(help="Name of the study.")]
Studies = Annotated[list[str] | None, typer.Argument(help="Names of studies; all when none is given.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="A parameter; may be repeated."),
]
Together = Annotated[
    str, typer.Option("--params", metavar='"NAME=VALUE ..."', help="Several parameters, separated by blanks.")
]

Grid = Annotated[
    str,
    typer.Option(
        "--grid",
        metavar='"NAME=A,B ..."',
        help="Choices of each parameter, separated by commas; by bars where the parameter is a list.",
    ),
]
Model = Annotated[
    str, typer.Option(help="Of data/models.toml, or gguf:PATH, hf:OWNER/NAME@REVISION, openai:MODEL.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Estimate only, record nothing.")]
Shard = Annotated[str, typer.Option(metavar="I/N", help="Record the I-th of N shares, for several processes.")]
Sample = Annotated[
    int | None,
    typer.Option(min=1, help="Ask so many cells only, drawn by a hash: everybody asks the same."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Stop after so many cells.")]
Hours = Annotated[float | None, typer.Option(min=0, help="Stop after so many hours.")]
Cells = Annotated[
    Path | None, typer.Option("--plan", help="Cells that `persona-studies plan` wrote; needs no sources.")
]
Out = Annotated[Path | None, typer.Option(help="Folder for the answers; `persona-studies import` takes them in.")]
Name = Annotated[str | None, typer.Option(help="Name to record under.")]
Runtime = Annotated[str | None, typer.Option(help="llama.cpp or transformers, for a GGUF file.")]
Schedule = Annotated[
    str | None, typer.Option(help="llama.cpp: canonical, parallel; transformers: batched, single.")
]
Precision = Annotated[
    str | None, typer.Option(help="file, f32, f16 or bf16; default: what is recorded already, or the model's.")
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Processes of llama.cpp, of one thread each; default: one per idle core."),
]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of each process of llama.cpp; 1.")]
Api = Annotated[str | None, typer.Option(help="Of an endpoint: chat or completions; chat.")]
Chat = Annotated[
    str | None,
    typer.Option(
        help="How turns are marked: chatml, gemma, plain, or a file with a Jinja template. Default: the model's "
        "own template; needed for --api completions."
    ),
]
Revision = Annotated[
    str | None, typer.Option(help="Of the weights behind an endpoint, which cannot be asked for it.")
]
Concurrency = Annotated[int | None, typer.Option(min=1, help="Calls to an endpoint at the same time; 8.")]
SystemRole = Annotated[
    str | None, typer.Option(help="Where a persona stands in a chat of an endpoint: system, or user; system.")
]
Measures = Annotated[
    str | None,
    typer.Option(metavar="A,B", help="Measures or kinds of measures; default: all that the model can be asked."),
]
Reask = Annotated[str, typer.Option(help="Which cells to ask again: failed, or never (they then stay failed).")]
Timeout = Annotated[float | None, typer.Option(help="Seconds to wait for an endpoint's answer; 60.")]
Retries = Annotated[int | None, typer.Option(help="How often a failed call is repeated; 6.")]
TopLogprobs = Annotated[int | None, typer.Option(help="Alternatives to ask an endpoint for, 1 to 20; 20.")]
Extra = Annotated[str | None, typer.Option(metavar="JSON", help="Further fields of every call to an endpoint.")]
MaxCalls = Annotated[int | None, typer.Option(min=1, help="Cap on calls to an endpoint.")]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Cap on tokens of an endpoint.")]
MaxMoney = Annotated[float | None, typer.Option(min=0, help="Cap on what an endpoint costs.")]
PriceIn = Annotated[float, typer.Option(min=0, help="Price of a million prompt tokens.")]
PriceOut = Annotated[float, typer.Option(min=0, help="Price of a million generated tokens.")]
