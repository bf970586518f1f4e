"""From a recipe to what the user sees: prove, run, draw, publish."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from bertshrink.cli.options import expanded
from bertshrink.cli.streams import result_stands
from bertshrink.errors import MissingPart, RequestError, near
from bertshrink.recipe.plan import prove
from bertshrink.recipe.recipe import Recipe
from bertshrink.report.statistics import MARGIN
from bertshrink.training.processes import is_main

if TYPE_CHECKING:
    from bertshrink.model.store import Target
    from bertshrink.report.gate.verdict import Judgement
    from bertshrink.report.report import Report

Form = Literal["terminal", "json", "bench", "markdown"]
"""What is printed: tables for people, the report, the figures of a bench, Markdown."""

REPORT_HTML = "report.html"
REPORT_MARKDOWN = "report.md"


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
    """Prove a recipe, run it, publish its model, measure, and print its report; returns the exit code.

    Raises:
        BertshrinkError: whatever went wrong; nothing is written at `output` then, unless only measuring went wrong.
    """
    plan = prove(recipe if with_latency else recipe.with_measure(latency=False))
    if output is not None and not plan.stages:
        raise RequestError("the recipe has no stages, so there is no model to write", where="-o", hint="leave it out")
    require_ml()
    from bertshrink.cli.handing import Handed
    from bertshrink.cli.show import make_progress
    from bertshrink.model.store import Target
    from bertshrink.pipeline import opened

    target = Target(output, force) if output is not None else None
    command = shlex.join(["bertshrink", *sys.argv[1:]])
    margin = recipe.measure.latency.margin if recipe.measure.latency else MARGIN
    with opened(plan, make_progress(quiet or not is_main()), runs, command, target) as work:
        made = work.make()
        if not is_main():
            return 0
        handed = Handed(plan.recipe, target, margin)
        handed.over(made)
        if made.model is not None and plan.recipe.measure.latency:
            work.progress.log(f"the model is finished: {handed.place(made)}; measuring")
        with handed.named_if_stopped(made):
            finished = work.measure()
        handed.complete(finished)
    result_stands()
    page = _draw(finished.report, finished.folder, margin)
    judgement = handed.judgement
    if form != "terminal":
        typer.echo(_written(finished.report, form, margin), nl=False)
        return _tell_gates(judgement, target) if judgement is not None else 0
    from rich.console import Console

    from bertshrink.model.usage import usage
    from bertshrink.report.render import terminal

    console = Console(soft_wrap=False)
    console.print(terminal.render(finished.report, margin=margin))
    plain: dict[str, Any] = {"soft_wrap": True, "highlight": False, "markup": False}
    console.print(f"report: {page}", **plain)
    place = handed.place(finished)
    if place is not None:
        console.print(f"model:  {place}", **plain)
        console.print(f"\n{usage(place, str(place))}", end="", **plain)
    return _tell_gates(judgement, target) if judgement is not None else 0


def _tell_gates(judgement: Judgement, target: Target | None) -> int:
    """Print what the recipe's gates came to, on stderr, and give their exit code."""
    from rich.console import Console

    from bertshrink.report.gate.show import terminal

    console = Console(stderr=True, soft_wrap=False)
    console.print(terminal.render(judgement))
    if judgement.exit_code and target is not None:
        console.print(f"nothing is written at {target.folder}", soft_wrap=True, highlight=False, markup=False)
    return judgement.exit_code


def _written(report: Report, form: Form, margin: float) -> str:
    """The report as one document for other programs."""
    if form == "json":
        return report.to_json()
    if form == "bench":
        from bertshrink.report import bench

        return bench.to_json(report, margin)
    from bertshrink.report.render import markdown

    return markdown.render(report, margin)


def _draw(report: Report, folder: Path, margin: float) -> Path:
    """Write the report's page and its Markdown beside its JSON; returns the page."""
    from bertshrink.model.files import write_text
    from bertshrink.report.render import html, markdown

    page = folder / REPORT_HTML
    write_text(folder / REPORT_MARKDOWN, markdown.render(report, margin))
    write_text(page, html.render(report, margin))
    return page


def require_ml() -> None:
    """Say at once, with the install line, when the parts that run models are missing."""
    import importlib.util

    missing = [name for name in ("torch", "transformers", "datasets") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingPart(
            f"this command runs models, and these are not installed: {', '.join(missing)}",
            hint="pip install 'bertshrink[ml]'",
        )


def recipe_folders() -> list[Path]:
    """Where shipped recipes lie: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    checkout = package.parent
    beside = [checkout / "recipes"] if (checkout / "pyproject.toml").is_file() else []
    return [folder for folder in (package / "_recipes", *beside) if folder.is_dir()]


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of every recipe that ships."""
    return {path.stem: path for folder in recipe_folders() for path in sorted(folder.glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """A recipe's file, by path or by the name of one that ships.

    Raises:
        RequestError: neither is there.
    """
    path = expanded(name)
    if path.is_file():
        return path
    shipped = shipped_recipes()
    if name in shipped:
        return shipped[name]
    if path.suffix or "/" in name:
        raise RequestError(f"there is no recipe file `{name}`", hint="`bertshrink recipe list` names those that ship")
    raise RequestError(f"there is no recipe `{name}`", hint=near(name, shipped))


def numbers(text: str, flag: str) -> list[int]:
    """`1,8` as [1, 8].

    Raises:
        RequestError: something else.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise RequestError(f"`{text}` is no list of whole numbers", where=flag, hint="write it as 1,8") from None


def print_schema() -> None:
    """Print the JSON Schema of recipes."""
    from bertshrink.recipe.schema import schema

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
