"""Flags that several commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from bertshrink.files.atomic import check_name
from bertshrink.model.tasks import TASKS


def place(text: str) -> Path:
    """A path as a flag gives it. `--output=~/x` reaches the program with its `~`: shells expand it only at a start.

    Raises:
        UserError: the system takes no name of that length.
    """
    given = expanded(text)
    check_name(given)
    return given


def expanded(text: str | Path) -> Path:
    """A path with the home folder in place of its `~`, where there is such a user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


Data = Annotated[
    str | None,
    typer.Option("--data", help="texts: a file, folder, hub name or builtin:pydoc; separate splits as train=A,dev=B"),
]
Text = Annotated[str | None, typer.Option("--text", metavar="COLUMN", help="column of the texts")]
Pair = Annotated[
    str | None,
    typer.Option("--pair", metavar="COLUMN", help="column of the second texts of pairs; `none`: single texts"),
]
Label = Annotated[
    str | None,
    typer.Option(
        "--label",
        metavar="COLUMN",
        help="column of the labels; `none`: unlabelled; several columns of 0 or 1, one per class, as A,B,C",
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns", metavar="NAMES", help="names of all columns of a CSV or TSV without a header, as text,label"
    ),
]
MaxTrain = Annotated[
    int | None, typer.Option("--max-train", min=1, help="use at most N training texts (a fixed sample)")
]
SplitSeed = Annotated[
    int | None,
    typer.Option("--split-seed", min=0, help="seed that selects the rows of the dev split and of limits"),
]
MaxLength = Annotated[int | None, typer.Option("--max-length", min=4, help="truncate texts to N tokens")]
DATA_FLAGS = {
    "text": Text,
    "pair": Pair,
    "label": Label,
    "columns": Columns,
    "max_train": MaxTrain,
    "split_seed": SplitSeed,
}
"""What every command with `--data` takes of the texts beside where they are: settings of `data:` by their names."""
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", parser=place, metavar="PATH", help="output directory for the final model"),
]
Force = Annotated[bool, typer.Option("--force", help="replace the model at `-o`")]
Runs = Annotated[
    Path,
    typer.Option("--runs", parser=place, metavar="PATH", envvar="BERTSHRINK_RUNS", help="directory for run folders"),
]
Json = Annotated[bool, typer.Option("--json", help="print the report as JSON")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="hide progress and log")]
NoLatency = Annotated[bool, typer.Option("--no-latency", help="do not measure latency and memory")]
Measure = Annotated[
    bool,
    typer.Option("--measure/--no-latency", help="also measure latency and memory of all models (takes minutes)"),
]
Task = Annotated[str | None, typer.Option("--task", help=f"auto, {', '.join(TASKS)}")]
Seed = Annotated[int | None, typer.Option("--seed", help="random seed")]


def with_data_flags(command: Callable[..., int]) -> Callable[..., int]:
    """A command with the flags of `DATA_FLAGS` after its `--data`; it takes their values as `about_texts`."""

    def call(**given: Any) -> int:
        about_texts = {name: given.pop(name) for name in DATA_FLAGS}
        return command(**given, about_texts=about_texts)

    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if parameter.name != "about_texts":
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        if parameter.name == "data":
            parameters += [parameter_of(name, kind, None) for name, kind in DATA_FLAGS.items()]
    take_flags(call, parameters)
    call.__doc__ = command.__doc__
    return call


def parameter_of(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    """A flag or argument, as Typer reads it off a function."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def take_flags(call: Callable[..., int], parameters: list[inspect.Parameter]) -> None:
    """Let Typer see these parameters where a function takes whatever it is given."""
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in parameters}
