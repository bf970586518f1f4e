"""The program: its commands, and the one place where every failure becomes a message and an exit code."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from bertshrink.cli.bench import bench
from bertshrink.cli.gate import gate
from bertshrink.cli.options import (
    DATA_FLAGS,
    Data,
    Force,
    Json,
    MaxLength,
    Measure,
    NoLatency,
    Output,
    Quiet,
    Runs,
    Seed,
    Task,
    parameter_of,
    take_flags,
    with_data_flags,
)
from bertshrink.cli.streams import Streams
from bertshrink.cli.targets import targets_app
from bertshrink.command_scope import command_scope
from bertshrink.errors import (
    BertshrinkError,
    Interrupted,
    OutputError,
    Stopped,
    Terminated,
    UnsafeModel,
    UserError,
    UserErrors,
)
from bertshrink.model.checks.tokenizer import is_library_panic
from bertshrink.recipe.commands import COMMANDS, Command, flag_of
from bertshrink.techniques import TECHNIQUES
from bertshrink.techniques.base import Technique
from bertshrink.training.distributed.ranks import is_main, shutdown
from bertshrink.training.settings import TrainingSettings
from bertshrink.version import __version__

BUG = 70
STOPPED = 128 + 2
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_PLACE = (errno.EACCES, errno.EPERM, errno.EIO)

# Newer Typers carry their own copy of click, older ones import it: its errors are reached through Typer's own.
_UsageError: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "UsageError")

app = typer.Typer(
    name="bertshrink",
    help="Make a BERT-family encoder small and fast, honestly measured.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
recipe_app = typer.Typer(help="What a recipe may hold.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(recipe_app, name="recipe")
app.add_typer(targets_app, name="targets")

Explain = Annotated[bool, typer.Option("--explain", help="dry run: show expected savings and compare settings")]


def run(argv: list[str]) -> int:
    """Run one command line; returns the exit code."""
    with command_scope(), Streams() as streams:
        code = _run_told(argv)
        try:
            return streams.code(code)
        except OutputError as error:
            _tell(error)
            return code or error.exit_code


def _run_told(argv: list[str]) -> int:
    """Run one command line, with every failure told on stderr."""
    before = _end_in_order()
    try:
        code = app(argv or ["--help"], standalone_mode=False, prog_name="bertshrink", **_narrow())
        if code == STOPPED:  # Typer has already caught the interrupt
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except (Interrupted, Terminated) as stop:
        print(f"{stop.what}; {stop.hint}", file=sys.stderr)  # noqa: T201
        return stop.exit_code
    except BertshrinkError as error:
        _tell(error)
        return error.exit_code
    except typer.Exit as stop:
        return stop.exit_code
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error, file=sys.stderr)  # noqa: T201
            return 2
        context, message = getattr(error, "ctx", None), str(error.format_message())
        place = context.command_path if context else "bertshrink"
        _print_error(message[:1].lower() + message[1:].rstrip("."), f"`{place}`", f"see `{place} --help`")
        return 2
    except Stopped:
        print("stopped by SIGTERM; run the same command to resume", file=sys.stderr)  # noqa: T201
        return Terminated.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("stopped; run the same command to resume", file=sys.stderr)  # noqa: T201
        return STOPPED
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            _print_error("a name is too long for the file system", _shortened(error.filename), "give a shorter one")
            return UserError.exit_code
        if isinstance(error, OSError) and error.errno in _DISK:
            _print_error(f"cannot write: {error.strerror}", error.filename, "free some space, or choose another place")
            return OutputError.exit_code
        if isinstance(error, OSError) and error.errno in _PLACE:
            _print_error(f"cannot read or write: {error.strerror}", error.filename, "fix that, or choose another place")
            return OutputError.exit_code
        return _bug(argv)
    except BaseException as error:
        if not is_library_panic(error):
            raise
        hint = "save the model again; if it comes from elsewhere, do not trust its files"
        _print_error(f"a library could not read a file of the model: {error}", None, hint)
        return UnsafeModel.exit_code
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
        shutdown()


def _narrow() -> dict[str, int]:
    """The width of help texts where the window has fewer columns than the 50 that they take at least."""
    columns = shutil.get_terminal_size().columns
    return {"terminal_width": max(20, columns - 2)} if columns < 52 else {}


def _shortened(name: object) -> str | None:
    text = os.fsdecode(name) if isinstance(name, (str, bytes)) else ""
    return f"{text[:40]}..." if len(text) > 40 else text or None


def _end_in_order() -> Any:
    """Let SIGTERM end the program as an error does, so that no process or folder of its own is left behind.

    Returns:
        What was there before; None where nothing was changed.
    """
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        return signal.signal(signal.SIGTERM, _terminated)
    return None


def _terminated(number: int, frame: types.FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Stopped


def _tell(error: BertshrinkError) -> None:
    for fault in error.faults if isinstance(error, UserErrors) else (error,):
        _print_error(fault.what, fault.where, fault.hint)


def _print_error(what: str, where: str | None, hint: str | None) -> None:
    if not is_main():
        return  # the first of several processes says it
    lines = [f"error: {what}"]
    if where:
        lines.append(f"  --> {where}")
    if hint:
        lines.append(f"hint: {hint}")
    print("\n".join(lines), file=sys.stderr)  # noqa: T201


def _bug(argv: list[str]) -> int:
    """Keep the traceback in a file and say where it is."""
    with tempfile.NamedTemporaryFile("w", prefix="bertshrink-", suffix=".log", delete=False) as log:
        log.write(f"bertshrink {__version__}\npython {sys.version}\nargv {argv}\n\n{traceback.format_exc()}")
    last = traceback.format_exc().strip().splitlines()[-1]
    _print_error(f"this is a bug in bertshrink: {last}", log.name, "please report it with that file")
    return BUG


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


@app.command("run")
@with_data_flags
def _run(
    recipe: Annotated[str, typer.Argument(help="recipe file, or the name of a shipped recipe (quickstart)")],
    data: Data = None,
    model: Annotated[str | None, typer.Option("--model", help="start from this model instead of the recipe's")] = None,
    output: Output = None,
    force: Force = False,
    runs: Runs = Path("runs"),
    as_json: Json = False,
    quiet: Quiet = False,
    no_latency: NoLatency = False,
    *,
    about_texts: dict[str, Any],
) -> int:
    """Carry out a recipe: every stage, measured and compared."""
    from bertshrink.cli.run import carry_out
    from bertshrink.recipe.recipe import read_recipe
    from bertshrink.recipe.shipped import find_recipe

    overrides = {key: value for key, value in (("data", data), ("model", model)) if value is not None}
    asked = read_recipe(find_recipe(recipe), overrides, about_texts)
    return carry_out(
        asked, output=output, force=force, runs=runs, form=_form(as_json), quiet=quiet, with_latency=not no_latency
    )


app.command("bench")(bench)


@app.command("inspect")
def _inspect(
    model: Annotated[str, typer.Argument(help="a model folder, an artifact folder, or a hub name")],
    size: Annotated[
        str | None, typer.Option("--size", help="show which layers, ranks and formats fit into this size, as 10 MB")
    ] = None,
    task: Task = None,
    as_json: Json = False,
) -> None:
    """Show what a model is made of and what could shrink. Loads no weight."""
    if size is not None:
        from bertshrink.cli.inspect_size import show_roads

        show_roads(model, task or "auto", size, as_json)
        return
    from bertshrink.cli.inspect import inspect_model

    inspect_model(model, task or "auto", as_json)


@app.command("doctor")
def _doctor(as_json: Json = False) -> None:
    """Show what this machine can do and what is missing."""
    from bertshrink.cli.doctor import examine

    examine(as_json)


app.command("gate")(gate)


@recipe_app.command("schema")
def _schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    from bertshrink.cli.run import print_schema

    print_schema()


@recipe_app.command("list")
def _list() -> None:
    """Print the recipes that ship, with their first line."""
    from bertshrink.cli.run import print_recipes

    print_recipes()


def _form(as_json: bool) -> Literal["json", "terminal"]:
    return "json" if as_json else "terminal"


def _add(command: Command) -> None:
    """Make a Typer command whose flags are the fields of the command's techniques."""
    # A technique's own settings come before those that all training has.
    fields = dict(sorted(command.fields.items(), key=lambda entry: entry[0] in TrainingSettings.model_fields))
    decided = {name for stage in command.stages for name in command.flag_names(TECHNIQUES[stage]).values()}

    about = {**DATA_FLAGS, "max_length": MaxLength}

    def call(model: str | None = None, **given: Any) -> int:
        from bertshrink.cli.run import carry_out
        from bertshrink.recipe.commands import recipe_of_command

        settings = {name: _read_list(given[name], fields[name].annotation) for name in fields}
        common = {"data": given["data"], "task": given["task"], "seed": given["seed"]}
        about_texts = {name: given[name] for name in about}
        asked = recipe_of_command(command.name, model, settings, common, about_texts)
        if given.get("explain"):
            from bertshrink.cli.explain import explain

            explain(asked, as_json=given["as_json"], quiet=given["quiet"])
            return 0
        return carry_out(
            asked,
            output=given["output"],
            force=given["force"],
            runs=given["runs"],
            form=_form(given["as_json"]),
            quiet=given["quiet"],
            with_latency=given["measure"],
        )

    starts_from_nothing = not command.techniques[0].takes
    argument = parameter_of("model", Annotated[str, typer.Argument(help="a model folder or a hub name")])
    parameters = [] if starts_from_nothing else [argument]
    for name, kind, default in (
        ("data", Data, None),
        *((name, kind, None) for name, kind in about.items()),
        ("output", Output, None),
        *((name, _option(name, field, name in decided), None) for name, field in fields.items()),
        ("task", Task, None),
        ("seed", Seed, None),
        *([("explain", Explain, False)] if any(t.explain is not Technique.explain for t in command.techniques) else []),
        ("force", Force, False),
        ("runs", Runs, Path("runs")),
        ("measure", Measure, False),
        ("as_json", Json, False),
        ("quiet", Quiet, False),
    ):
        parameters.append(parameter_of(name, kind, default))
    take_flags(call, parameters)
    papers = ", ".join(dict.fromkeys(technique.paper for technique in command.techniques))
    app.command(command.name, help=f"{command.help}\n\nSource: {papers}")(call)


def _option(name: str, field: Any, has_default: bool) -> Any:
    """A field as an option that says None when it is not given; a stage that is left out has no defaults to show."""
    shown = f" [default: {field.default}]" if has_default and field.default is not None else ""
    help_text = f"{field.description}{shown}"
    kind = _plain_type(field.annotation)
    flag = flag_of(name)
    names = f"{flag}/--no-{flag[2:]}" if kind is bool else flag
    return Annotated[kind | None, typer.Option(names, help=help_text, show_default=False)]


def _plain_type(annotation: Any) -> Any:
    """int, float, bool or str: how a flag of this type is read; pydantic does the rest."""
    options = [a for a in _members(annotation) if a is not type(None)]
    if len(options) == 1 and options[0] in (int, float, bool):
        return options[0]
    return str


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _read_list(value: Any, annotation: Any) -> Any:
    """`2,4,6` as a list, where the field takes one and the text is none of its words."""
    members = _members(annotation)
    words = [word for member in members if get_origin(member) is Literal for word in get_args(member)]
    takes_list = any(get_origin(member) is tuple for member in members)
    if isinstance(value, str) and takes_list and value not in words:
        return [part.strip() for part in value.split(",")]
    return value


for _command in COMMANDS.values():
    _add(_command)
