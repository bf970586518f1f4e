"""Options that several commands share, and how a field of settings becomes an option."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_origin

import typer

from bertshrink.config.type_hints import literal_words, union_members
from bertshrink.model.tasks import TASKS
from bertshrink.recipe.command_table import flag_of

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

INPUT, MEASURING, OUTPUT = "Model and data", "Measuring", "Output"
"""Panels of help pages; those between them are named by the techniques (`Technique.panel_of`)."""


def place(text: str) -> Path:
    """A path as a flag gives it. `--output=~/x` reaches the program with its `~`: shells expand it only at a start.

    Raises:
        UserError: the system takes no name of that length.
    """
    from bertshrink.files.atomic import check_name

    given = expanded(text)
    check_name(given)
    return given


def expanded(text: str | Path) -> Path:
    """A path with the home folder in place of its `~`, where there is such a user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def option(panel: str, *names: str, help: str, metavar: str | None = None, **more: Any) -> Any:
    """An option in a panel of the help page."""
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=panel, **more)


_ABOUT_DATA = "texts: a file, folder, hub name or builtin:pydoc; separate splits as train=A,dev=B"
_ABOUT_LABEL = "column of the labels; `none`: unlabelled; several columns of 0 or 1, one per class, as A,B,C"
_ABOUT_PAIR = "column of the second texts of pairs; `none`: single texts"
_ABOUT_COLUMNS = "names of all columns of a CSV or TSV without a header, as text,label"
_ABOUT_SPLIT = "seed that selects the rows of the dev split and of limits"

Data = Annotated[str | None, option(INPUT, "--data", metavar="DATA", help=_ABOUT_DATA)]
Text = Annotated[str | None, option(INPUT, "--text", metavar="COLUMN", help="column of the texts")]
Pair = Annotated[str | None, option(INPUT, "--pair", metavar="COLUMN", help=_ABOUT_PAIR)]
Label = Annotated[str | None, option(INPUT, "--label", metavar="COLUMN", help=_ABOUT_LABEL)]
Columns = Annotated[str | None, option(INPUT, "--columns", metavar="NAMES", help=_ABOUT_COLUMNS)]
MaxTrain = Annotated[
    int | None, option(INPUT, "--max-train", metavar="N", min=1, help="use at most N training texts (a fixed sample)")
]
SplitSeed = Annotated[int | None, option(INPUT, "--split-seed", metavar="N", min=0, help=_ABOUT_SPLIT)]
MaxLength = Annotated[int | None, option(INPUT, "--max-length", metavar="N", min=4, help="truncate texts to N tokens")]
DATA_FLAGS = {
    "text": Text,
    "pair": Pair,
    "label": Label,
    "columns": Columns,
    "max_train": MaxTrain,
    "split_seed": SplitSeed,
}
"""What every command with `--data` takes of the texts beside where they are: settings of `data:` by their names."""
Task = Annotated[str | None, option(INPUT, "--task", metavar="TASK", help=f"auto, {', '.join(TASKS)}")]
Reference = Annotated[
    str | None,
    option(INPUT, "--reference", metavar="FILE", help="texts and their vectors elsewhere, which the model must give"),
]
Measure = Annotated[
    bool,
    option(MEASURING, "--measure/--no-latency", help="also measure latency and memory of all models (takes minutes)"),
]
Dimensions = Annotated[
    str | None,
    option(
        MEASURING,
        "--dimensions",
        metavar="N,...",
        help="also evaluate sentence vectors truncated to these numbers of dimensions, as 256,128 (Matryoshka models)",
    ),
]
NoLatency = Annotated[bool, option(MEASURING, "--no-latency", help="do not measure latency and memory")]
Output = Annotated[
    Path | None,
    option(OUTPUT, "-o", "--output", parser=place, metavar="PATH", help="output directory for the final model"),
]
DryRun = Annotated[bool, option(OUTPUT, "--dry-run", help="make nothing: show what it would give and need")]
Force = Annotated[bool, option(OUTPUT, "--force", help="replace the model at `-o`")]
Runs = Annotated[
    Path,
    option(OUTPUT, "--runs", parser=place, metavar="PATH", envvar="BERTSHRINK_RUNS", help="directory for run folders"),
]
Seed = Annotated[int | None, option(OUTPUT, "--seed", metavar="N", help="random seed")]
Json = Annotated[bool, option(OUTPUT, "--json", help="print the report as JSON")]
Quiet = Annotated[bool, option(OUTPUT, "-q", "--quiet", help="hide progress and log")]


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


def option_of(name: str, field: FieldInfo, panel: str, *, has_default: bool) -> Any:
    """A field as the type of an option that is None when it is not given.

    Args:
        name: what is set by it.
        field: of a technique's settings.
        panel: of the help page.
        has_default: whether the field's default is what is done without it, and is shown.
    """
    kinds = [kind for kind in union_members(field.annotation) if kind is not type(None)]
    kind = kinds[0] if len(kinds) == 1 and kinds[0] in (int, float, bool) else str
    words = "|".join(map(str, literal_words(field.annotation))) if all(get_origin(k) is Literal for k in kinds) else ""
    metavar = {int: "N", float: "X", bool: None, str: words if 0 < len(words) <= _LONGEST_WORDS else "TEXT"}[kind]
    flag = flag_of(name)
    off = f"--no-{flag[2:]}"
    names = f"{flag}/{off}" if kind is bool else flag
    default = (flag if field.default else off) if isinstance(field.default, bool) else field.default
    shown = f" [default: {default}]" if has_default and default not in (None, ()) else ""
    return Annotated[
        kind | None, option(panel, names, metavar=metavar, help=f"{field.description}{shown}", show_default=False)
    ]


def value_of(value: Any, field: FieldInfo) -> Any:
    """What was given for a field: `2,4,6` as a list, where it takes one and the text is none of its words."""
    takes_list = any(get_origin(member) is tuple for member in union_members(field.annotation))
    if isinstance(value, str) and takes_list and value not in literal_words(field.annotation):
        return parts_of(value)
    return value


def parts_of(text: str | None) -> list[str] | None:
    """`2,4,6` as a list; None: nothing was given."""
    return [part.strip() for part in text.split(",")] if text is not None else None


_LONGEST_WORDS = 24
"""Characters of the words that stand for a value in the help; longer ones are in the description."""
