"""Help pages: plain text that a pipe takes, at any width; options in panels, first the few that most people need.

`--help` shows a command's `primary` options, `--help-all` every one. An option's panel is what Typer keeps of it as
`rich_help_panel`; panels stand in the order in which the command's options name them.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

DOCS = "https://github.com/bertshrink/bertshrink/tree/main/docs"
HELP_ALL = "--help-all"
HELP = ("-h", "--help", HELP_ALL)
CONTEXT = {"help_option_names": list(HELP)}
"""Settings of every command."""

_WIDEST, _NAMES, _TWO_COLUMNS = 100, 30, 60
"""Columns: of a page, of the names in it, and from which on the texts stand beside the names."""

Row = tuple[str, str, str]
"""Panel, names, text."""


class HelpCommand(TyperCommand):
    """A command with such a page; `primary`: the names of the parameters that `--help` shows, none: all."""

    primary: Sequence[str] = ()
    shows_all = False

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words. Help is answered here: Typer would import pydantic to read that a switch is given."""
        if not ctx.resilient_parsing and not set(args).isdisjoint(HELP):
            self.shows_all = HELP_ALL in args
            typer.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page."""
        arguments = [one for one in self.params if one.param_type_name == "argument"]
        options: list[Any] = [one for one in self.params if one.param_type_name == "option"]
        shown = [one for one in options if self.shows_all or not self.primary or one.name in self.primary]
        words = " ".join(["[OPTIONS]", *map(_argument, arguments)])
        rows = [("Arguments", _argument(one), str(getattr(one, "help", ""))) for one in arguments]
        rows += [(one.rich_help_panel or "Options", _names(one), _about(one)) for one in shown]
        more = len(options) - len(shown)
        last = f"{more} more options: `{ctx.command_path} {HELP_ALL}`. " if more else ""
        formatter.write(page(f"{ctx.command_path} {words}", self.help or "", rows, f"{last}Documentation: {DOCS}"))


class HelpGroup(TyperGroup):
    """Commands under one name, with such a page."""

    has_options = True

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words before the command's own; where it comes first, there are no options for pydantic to read."""
        self.has_options = not args or args[0].startswith("-")
        return super().parse_args(ctx, args)

    def get_params(self, ctx: Any) -> list[Any]:
        """The options that are read."""
        return super().get_params(ctx) if self.has_options else []

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands' names; makes none of them."""
        return list(self.commands)

    def rows(self) -> Iterable[Row]:
        """Panel, name and sentence of each command."""
        return (("Commands", name, command.help or "") for name, command in self.commands.items())

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page."""
        options: list[Any] = [*self.params]
        rows = [*self.rows(), *(("Options", _names(one), one.help) for one in options)]
        last = f"More of each: `{ctx.command_path} COMMAND --help`. Documentation: {DOCS}"
        formatter.write(page(f"{ctx.command_path} COMMAND ...", self.help or "", rows, last))


def group(text: str) -> typer.Typer:
    """An application of commands under one name."""
    return typer.Typer(
        cls=HelpGroup,
        help=text,
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        context_settings=CONTEXT,
    )


def page(usage: str, text: str, rows: Sequence[Row], last: str) -> str:
    """A help page for the window.

    Args:
        usage: what is typed.
        text: what it does; paragraphs are lines.
        rows: what can be said, panel by panel.
        last: the line at the end.
    """
    width = max(20, min(_WIDEST, shutil.get_terminal_size().columns) - 1)
    lines = [*_wrapped(f"Usage: {usage}", width, "", " " * 7), ""]
    lines += [line for paragraph in text.splitlines() if paragraph for line in _wrapped(paragraph, width)]
    column = min(_NAMES, max((len(names) for _, names, _ in rows), default=0)) + 4
    for panel in dict.fromkeys(panel for panel, _, _ in rows):
        lines += ["", f"{panel}:"]
        for _, names, about in (row for row in rows if row[0] == panel):
            if width < _TWO_COLUMNS:
                lines += [*_wrapped(names, width, "  ", "    "), *_wrapped(about, width, "      ")]
            elif len(names) > column - 4:
                lines += [f"  {names}", *_wrapped(about, width, " " * column)]
            else:
                lines += _wrapped(about, width, f"  {names}".ljust(column), " " * column) or [f"  {names}"]
    return "\n".join([*lines, "", *_wrapped(last, width)]) + "\n"


def _wrapped(text: str, width: int, first: str = "", rest: str | None = None) -> list[str]:
    later = first if rest is None else rest
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=later, break_on_hyphens=False, break_long_words=False
    )


def _argument(argument: Any) -> str:
    """`MODEL`, `[ARTIFACT]`, `MODELS...`."""
    name = argument.metavar or argument.name.upper()
    name = name if argument.required else f"[{name.strip('[]')}]"
    return f"{name}..." if argument.nargs == -1 else name


def _names(option: Any) -> str:
    """`-o, --output PATH`, `--dropout / --no-dropout`."""
    names = ", ".join(sorted(option.opts, key=len))
    if option.secondary_opts:
        return f"{names} / {option.secondary_opts[0]}"
    return names if option.is_flag else f"{names} {option.metavar or 'TEXT'}"


def _about(option: Any) -> str:
    """An option's help with its default and the variable that may set it."""
    default = option.default
    if isinstance(default, bool):
        default = [*option.secondary_opts, *option.opts][0 if not default else -1] if option.secondary_opts else None
    notes = ["required"] if option.required else []
    notes += [f"default: {default}"] if default is not None and default != [] and option.show_default else []
    notes += [f"or ${option.envvar}"] if option.envvar else []
    return " ".join([option.help or "", *([f"[{'; '.join(notes)}]"] if notes else [])])
