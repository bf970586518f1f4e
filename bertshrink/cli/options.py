"""Flags that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bertshrink.model.task import TASKS

Data = Annotated[
    str | None,
    typer.Option("--data", help="texts: a file, a folder, a hub name or builtin:pydoc; sides apart as train=A,dev=B"),
]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="where the finished model shall lie")]
Force = Annotated[bool, typer.Option("--force", help="replace what is at `-o`")]
Runs = Annotated[Path, typer.Option("--runs", envvar="BERTSHRINK_RUNS", help="the folder of run folders")]
Json = Annotated[bool, typer.Option("--json", help="print the report as one JSON document")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="no progress, no log")]
NoLatency = Annotated[bool, typer.Option("--no-latency", help="leave out latency and memory")]
Measure = Annotated[
    bool,
    typer.Option("--measure/--no-latency", help="time all models side by side, too: latency and memory, for minutes"),
]
Task = Annotated[str | None, typer.Option("--task", help=f"auto, {', '.join(TASKS)}")]
Seed = Annotated[int | None, typer.Option("--seed", help="decides everything random")]
