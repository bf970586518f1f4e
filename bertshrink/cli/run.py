"""From a recipe to what the user sees: prove, run, draw, publish."""

from __future__ import annotations

import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from bertshrink.cli.streams import result_stands
from bertshrink.errors import UserError
from bertshrink.pipeline.execute import execute
from bertshrink.recipe.recipe import Recipe
from bertshrink.recipe.shipped import shipped_recipes
from bertshrink.training.distributed.ranks import is_main

if TYPE_CHECKING:
    from bertshrink.gates.verdict import Judgement
    from bertshrink.report.report import Report

Form = Literal["terminal", "json", "bench", "markdown"]
"""What is printed: tables for people, the report, the figures of a bench, Markdown."""


def carry_out(
    recipe: Recipe,
    *,
    output: Path | None,
    force: bool,
    runs: Path,
    form: Form,
    quiet: bool,
    with_latency: bool,
) -> int:
    """Carry a recipe out and print its report; returns the exit code.

    Raises:
        BertshrinkError: whatever went wrong; nothing is written at `output` then, unless only measuring went wrong.
    """
    from bertshrink.cli.progress import make_progress

    outcome = execute(
        recipe,
        make_progress(quiet or not is_main()),
        output=output,
        force=force,
        runs=runs,
        command=shlex.join(["bertshrink", *sys.argv[1:]]),
        with_latency=with_latency,
        tell=partial(typer.echo, err=True),
    )
    if outcome is None:
        return 0
    result_stands()
    if form != "terminal":
        typer.echo(_written(outcome.report, form, outcome.margin), nl=False)
        return _tell_gates(outcome.judgement, output) if outcome.judgement is not None else 0
    from rich.console import Console

    from bertshrink.model.folder.usage_snippet import usage
    from bertshrink.report.render import terminal

    console = Console(soft_wrap=False)
    console.print(terminal.render(outcome.report, margin=outcome.margin))
    plain: dict[str, Any] = {"soft_wrap": True, "highlight": False, "markup": False}
    console.print(f"report: {outcome.page}", **plain)
    if outcome.made is not None:
        console.print(f"model:  {outcome.model}", **plain)
        console.print(f"\n{usage(outcome.made, str(outcome.model))}", end="", **plain)
    return _tell_gates(outcome.judgement, output) if outcome.judgement is not None else 0


def _tell_gates(judgement: Judgement, output: Path | None) -> int:
    """Print what the recipe's gates came to, on stderr, and give their exit code."""
    from rich.console import Console

    from bertshrink.gates.show import terminal

    console = Console(stderr=True, soft_wrap=False)
    console.print(terminal.render(judgement))
    if judgement.exit_code and output is not None:
        console.print(f"nothing is written at {output}", soft_wrap=True, highlight=False, markup=False)
    return judgement.exit_code


def _written(report: Report, form: Form, margin: float) -> str:
    if form == "json":
        return report.to_json()
    if form == "bench":
        from bertshrink.report import bench_json

        return bench_json.to_json(report, margin)
    from bertshrink.report.render import markdown

    return markdown.render(report, margin)


def numbers(text: str, flag: str) -> list[int]:
    """`1,8` as [1, 8]. Raises UserError: something else."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"`{text}` is not a list of whole numbers", where=flag, hint="write it as 1,8") from None


def print_schema() -> None:
    """Print the JSON Schema of recipes."""
    from bertshrink.recipe.json_schema import schema

    typer.echo(json.dumps(schema(), indent=2))


def print_recipes() -> None:
    """Print the recipes that ship."""
    for name, path in shipped_recipes().items():
        first = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        whole = first if first.endswith(".") else first[: first.rfind(". ") + 1] or first
        typer.echo(f"{name}  {whole}")


def print_json(value: Any) -> None:
    """Print one JSON document."""
    typer.echo(json.dumps(value, indent=1, sort_keys=True))
