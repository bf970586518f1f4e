"""The commands: a table, which is all that `bertshrink --help` reads, and how each is made when it is asked for.

A command that makes a model has the fields of its techniques as options (`recipe.command_table`); the others are
functions whose parameters are options.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from bertshrink.cli.help import CONTEXT, HelpCommand, HelpGroup, Row, group
from bertshrink.cli.options import (
    DATA_FLAGS,
    INPUT,
    OUTPUT,
    Data,
    Dimensions,
    DryRun,
    Force,
    Json,
    MaxLength,
    Measure,
    NoLatency,
    Output,
    Quiet,
    Reference,
    Runs,
    Seed,
    Task,
    option,
    option_of,
    parameter_of,
    parts_of,
    place,
    take_flags,
    value_of,
    with_data_flags,
)
from bertshrink.errors import UserError
from bertshrink.recipe.command_table import COMMANDS, Command, flag_of
from bertshrink.version import __version__


@with_data_flags
def run_recipe(
    recipe: Annotated[str, typer.Argument(help="recipe file, or the name of a shipped recipe (quickstart)")],
    data: Data = None,
    model: Annotated[
        str | None, option(INPUT, "--model", metavar="MODEL", help="start from this model instead of the recipe's")
    ] = None,
    reference: Reference = None,
    dimensions: Dimensions = None,
    no_latency: NoLatency = False,
    output: Output = None,
    force: Force = False,
    runs: Runs = Path("runs"),
    as_json: Json = False,
    quiet: Quiet = False,
    *,
    about_texts: dict[str, Any],
) -> int:
    """Carry out a recipe: every stage, measured and compared."""
    from bertshrink.recipe.recipe import read_recipe
    from bertshrink.recipe.shipped import find_recipe

    given = {"data": data, "model": model, "reference": reference}
    overrides = {key: value for key, value in given.items() if value is not None}
    asked = read_recipe(find_recipe(recipe), overrides, about_texts, parts_of(dimensions))
    from bertshrink.cli.run import carry_out  # not before: a wrong recipe is answered without all that runs one

    return carry_out(
        asked,
        output=output,
        force=force,
        runs=runs,
        form="json" if as_json else "terminal",
        quiet=quiet,
        with_latency=not no_latency,
    )


@with_data_flags
def inspect_model(
    model: Annotated[str, typer.Argument(help="a model folder, an artifact folder, or a hub name")],
    size: Annotated[
        str | None,
        option(INPUT, "--size", metavar="SIZE", help="show which layers, ranks and formats fit into this, as 10 MB"),
    ] = None,
    attention: Annotated[
        bool, option(INPUT, "--attention", help="show what the heads do on `--data`, as a page; loads the model")
    ] = False,
    base: Annotated[
        str | None,
        option(INPUT, "--base", metavar="MODEL", help="with --attention: the model that it was fine-tuned from"),
    ] = None,
    data: Data = None,
    max_dev: Annotated[
        int | None,
        option(INPUT, "--max-dev", metavar="N", min=1, help="disable heads on at most N texts [default: 1000]"),
    ] = None,
    max_length: MaxLength = None,
    task: Task = None,
    reference: Reference = None,
    output: Annotated[
        Path | None,
        option(
            OUTPUT,
            "-o",
            "--output",
            parser=place,
            metavar="FILE",
            help="with --attention: file of the page [default: MODEL-attention.html]",
        ),
    ] = None,
    seed: Seed = None,
    as_json: Json = False,
    quiet: Quiet = False,
    *,
    about_texts: dict[str, Any],
) -> int:
    """Show what a model is made of, what could shrink, and what its heads do."""
    from bertshrink.cli import inspect

    if attention:
        from bertshrink.cli.progress import make_progress

        _refuse_beside("--attention", {"--size": size, "--reference": reference})
        inspect.show_attention(
            model,
            {"data": data, "task": task, "seed": seed},
            about_texts | {"max_dev": max_dev, "max_length": max_length},
            base=base,
            output=output,
            as_json=as_json,
            progress=make_progress(quiet),
        )
        return 0
    only = {"--data": data, "--base": base, "--max-dev": max_dev, "--max-length": max_length, "-o": output}
    texts = {flag_of(name): value for name, value in about_texts.items()}
    for flag, value in (only | texts | {"--seed": seed}).items():
        if value is not None:
            raise UserError(f"`{flag}` belongs to `--attention`", where=flag, hint="add `--attention`, or leave it out")
    if size is not None:
        inspect.show_roads(model, task or "auto", size, as_json, reference)
    else:
        inspect.inspect_model(model, task or "auto", as_json, reference)
    return 0


def _refuse_beside(flag: str, others: Mapping[str, Any]) -> None:
    for other, value in others.items():
        if value is not None:
            raise UserError(f"`{flag}` and `{other}` are two questions", where=other, hint="leave out one of the two")


def doctor(as_json: Json = False) -> None:
    """Show what this machine can do and what is missing."""
    from bertshrink.cli.doctor import examine

    examine(as_json)


recipe_app = group("List the shipped recipes, or print the schema of recipes.")


@recipe_app.command("schema", cls=HelpCommand, context_settings=CONTEXT)
def print_schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    from bertshrink.cli.run import print_schema

    print_schema()


@recipe_app.command("list", cls=HelpCommand, context_settings=CONTEXT)
def print_recipes() -> None:
    """Print the recipes that ship, with their first line."""
    from bertshrink.cli.run import print_recipes

    print_recipes()


@dataclass(frozen=True)
class Entry:
    """A command as `bertshrink --help` shows it.

    Attributes:
        panel: that it stands in.
        summary: the first line of its help.
        primary: the parameters that its `--help` shows; none: all.
        origin: `module:name` of its function or Typer application; None: it makes a model.
    """

    panel: str
    summary: str
    primary: tuple[str, ...] = ()
    origin: str | None = None


_MEASURE, _RECIPES, _MACHINES = "Measure and judge", "Recipes", "Targets and machine"

ENTRIES: dict[str, Entry] = {
    **{name: Entry("Make a model", command.help, command.primary) for name, command in COMMANDS.items()},
    "bench": Entry(
        _MEASURE,
        "Measure models side by side, and how well they agree on texts.",
        ("data", "engine", "target", "batch", "length"),
        "bertshrink.cli.bench:bench",
    ),
    "inspect": Entry(
        _MEASURE,
        "Show what a model is made of, what could shrink, and what its heads do.",
        ("size", "attention", "data", "base", "output"),
        origin="bertshrink.cli.commands:inspect_model",
    ),
    "gate": Entry(
        _MEASURE,
        "Judge artifacts by committed limits and a committed baseline: size, operators, quality, memory, time.",
        ("report", "config", "base", "init", "update"),
        "bertshrink.cli.gate:gate",
    ),
    "run": Entry(
        _RECIPES,
        "Carry out a recipe: every stage, measured and compared.",
        ("model", "data", "no_latency", "output", "force"),
        "bertshrink.cli.commands:run_recipe",
    ),
    "recipe": Entry(
        _RECIPES,
        "List the shipped recipes, or print the schema of recipes.",
        origin="bertshrink.cli.commands:recipe_app",
    ),
    "targets": Entry(
        _MACHINES,
        "List, prepare and calibrate the targets that models run on.",
        origin="bertshrink.cli.targets:targets_app",
    ),
    "doctor": Entry(
        _MACHINES, "Show what this machine can do and what is missing.", origin="bertshrink.cli.commands:doctor"
    ),
}


@cache
def made(name: str) -> Any:
    """The command of an entry, as Typer makes it of its function."""
    entry = ENTRIES[name]
    call = _function(COMMANDS[name]) if entry.origin is None else _imported(entry.origin)
    if isinstance(call, typer.Typer):
        return typer.main.get_command(call)
    shell = typer.Typer(add_completion=False, rich_markup_mode=None)
    shell.command(name, cls=HelpCommand, context_settings=CONTEXT)(call)
    command: Any = typer.main.get_command(shell)
    command.primary = entry.primary
    return command


def _imported(origin: str) -> Any:
    module, _, name = origin.partition(":")
    return getattr(import_module(module), name)


def _function(command: Command) -> Callable[..., int]:
    """A function whose parameters are the options of a command that makes a model."""
    from bertshrink.techniques import TECHNIQUES
    from bertshrink.techniques.base import Technique

    fields, panels = command.fields, command.panels
    decided = {name for stage in command.stages for name in command.flag_names(TECHNIQUES[stage]).values()}
    about = {**DATA_FLAGS, "max_length": MaxLength}

    def call(model: str | None = None, *, data: str | None, task: str | None, seed: int | None, **given: Any) -> int:
        from bertshrink.recipe.from_command_line import recipe_of_command

        settings = {name: value_of(given[name], field) for name, field in fields.items()}
        about_texts = {name: given[name] for name in about}
        common = {"data": data, "task": task, "seed": seed, "reference": given.get("reference")}
        dimensions = parts_of(given["dimensions"])
        asked = recipe_of_command(command.name, model, settings, common, about_texts, dimensions=dimensions)
        if given.get("dry_run"):
            from bertshrink.cli.dry_run import dry_run

            places = {"runs": given["runs"], "output": given["output"]}
            dry_run(asked, **places, as_json=given["as_json"], quiet=given["quiet"])
            return 0
        from bertshrink.cli.run import carry_out

        return carry_out(
            asked,
            output=given["output"],
            force=given["force"],
            runs=given["runs"],
            form="json" if given["as_json"] else "terminal",
            quiet=given["quiet"],
            with_latency=given["measure"],
        )

    call.__doc__ = f"{command.help}\n\nSource: {', '.join(dict.fromkeys(t.paper for t in command.techniques))}"
    argument = Annotated[str, typer.Argument(help="a model folder or a hub name")]
    can_tell = any(t.gives == "artifact" or t.explain is not Technique.explain for t in command.techniques)
    order = list(dict.fromkeys(panels.values()))
    shown = sorted(panels, key=lambda name: (panels[name] == "Training", order.index(panels[name])))
    take_flags(
        call,
        [
            *([parameter_of("model", argument)] if command.techniques[0].takes else []),
            *(parameter_of(name, kind, None) for name, kind in {"data": Data, **about, "task": Task}.items()),
            *([parameter_of("reference", Reference, None)] if command.techniques[0].takes else []),
            *(
                parameter_of(name, option_of(name, fields[name], panels[name], has_default=name in decided), None)
                for name in shown
            ),
            parameter_of("dimensions", Dimensions, None),
            parameter_of("measure", Measure, False),
            parameter_of("output", Output, None),
            *([parameter_of("dry_run", DryRun, False)] if can_tell else []),
            parameter_of("force", Force, False),
            parameter_of("runs", Runs, Path("runs")),
            parameter_of("seed", Seed, None),
            parameter_of("as_json", Json, False),
            parameter_of("quiet", Quiet, False),
        ],
    )
    return call


class _Made(Mapping[str, Any]):
    """Name -> command, made when it is asked for."""

    def __getitem__(self, name: str) -> Any:
        return made(name)

    def __iter__(self) -> Iterator[str]:
        return iter(ENTRIES)

    def __len__(self) -> int:
        return len(ENTRIES)


class _Program(HelpGroup):
    """`bertshrink`: its commands are made one by one."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: Any = _Made()

    def rows(self) -> Iterable[Row]:
        """What the table says."""
        return ((entry.panel, name, entry.summary) for name, entry in ENTRIES.items())


app = typer.Typer(
    name="bertshrink",
    cls=_Program,
    no_args_is_help=True,
    context_settings=CONTEXT,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bertshrink {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """Make a BERT-family encoder small and fast, honestly measured."""
