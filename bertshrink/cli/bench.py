"""`bertshrink bench`: models side by side, measured so that people can believe it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bertshrink.cli.options import (
    INPUT,
    MEASURING,
    OUTPUT,
    Data,
    Dimensions,
    Json,
    Quiet,
    Reference,
    Runs,
    Task,
    option,
    parts_of,
    with_data_flags,
)
from bertshrink.errors import UserError

if TYPE_CHECKING:
    from bertshrink.cli.run import Form

ROUNDS = 10
BUDGET_S = 140.0
"""With the models' loading before, three models at four shapes are done within three minutes."""

QUICK = {"rounds": 1, "seconds": 0.1, "min_samples": 3, "warmup": 0.0, "min_warmup": 2}
"""Enough for an order of magnitude. One round has neither an interval nor a verdict."""


@with_data_flags
def bench(
    models: Annotated[
        list[str],
        typer.Argument(help="models to compare with the first: folders, .onnx, .ort, .pte, hub names"),
    ],
    texts: Annotated[
        str | None,
        option(
            INPUT,
            "--texts",
            metavar="FILE",
            help="file of real texts to run instead, with their own lengths",
        ),
    ] = None,
    padding: Annotated[
        str | None,
        option(
            INPUT,
            "--padding",
            metavar="N",
            help="with --texts: padding to the `longest` of each batch, or to a number of tokens",
        ),
    ] = None,
    data: Data = None,
    task: Task = None,
    reference: Reference = None,
    dimensions: Dimensions = None,
    batch: Annotated[str, option(MEASURING, "--batch", metavar="N,...", help="batch sizes, as 1,8")] = "1,8",
    length: Annotated[
        str | None,
        option(MEASURING, "--length", metavar="N,...", help="input lengths in tokens, as 32,128 [default: 32,128]"),
    ] = None,
    target: Annotated[
        list[str] | None,
        option(
            MEASURING,
            "--target",
            metavar="TARGET",
            help="target; may be repeated; see `bertshrink targets list`",
        ),
    ] = None,
    engine: Annotated[
        list[str] | None,
        option(
            MEASURING,
            "--engine",
            metavar="ENGINE",
            help="engine with options, as torch:bfloat16,compiled; may be repeated",
        ),
    ] = None,
    roofline: Annotated[
        bool, option(MEASURING, "--roofline/--no-roofline", help="also measure the machine's peak rates (roofline)")
    ] = True,
    rounds: Annotated[
        int | None, option(MEASURING, "--rounds", metavar="N", min=1, help="fresh processes per model [default: 10]")
    ] = None,
    seconds: Annotated[
        float | None,
        option(MEASURING, "--seconds", metavar="X", help="sampling time per case and process [default: 0.5]"),
    ] = None,
    budget: Annotated[
        float | None,
        option(
            MEASURING, "--budget", metavar="X", help="time budget in seconds for all rounds of a target [default: 140]"
        ),
    ] = None,
    margin: Annotated[
        float | None,
        option(
            MEASURING, "--margin", metavar="X", help="margin within which speeds count as equivalent [default: 0.05]"
        ),
    ] = None,
    threads: Annotated[
        int | None, option(MEASURING, "--threads", metavar="N", min=1, help="engine threads; default: usable cores")
    ] = None,
    cold: Annotated[bool, option(MEASURING, "--cold", help="load from disk instead of the page cache")] = False,
    mobile: Annotated[bool, option(MEASURING, "--mobile", help="check ONNX Runtime files for use on phones")] = False,
    across_machines: Annotated[
        bool, option(MEASURING, "--across-machines", help="also compare times between targets")
    ] = False,
    quick: Annotated[
        bool, option(MEASURING, "--quick", help="one round per model: a rough estimate without intervals")
    ] = False,
    runs: Runs = Path("runs"),
    as_json: Json = False,
    as_markdown: Annotated[bool, option(OUTPUT, "--markdown", help="print the report as Markdown")] = False,
    quiet: Quiet = False,
    *,
    about_texts: dict[str, Any],
) -> int:
    """Measure models side by side, and how well they agree on texts."""
    from bertshrink.cli.run import carry_out, numbers
    from bertshrink.recipe.from_command_line import recipe_of_bench

    if texts is not None and length is not None:
        raise UserError("texts have their own lengths", where="--length", hint="leave out one of the two")
    if texts is None and padding is not None:
        raise UserError("random tokens need no padding", where="--padding", hint="give texts with `--texts`")
    if as_json and as_markdown:
        raise UserError(
            "only one output format is possible", where="--markdown", hint="leave out `--json` or `--markdown`"
        )
    defaults: dict[str, Any] = QUICK if quick else {"rounds": ROUNDS, "budget": BUDGET_S}
    given = {
        "batch": numbers(batch, "--batch"),
        "length": numbers(length, "--length") if length is not None else None,
        "texts": texts,
        "padding": int(padding) if padding is not None and padding.isdecimal() else padding,
        "target": target or None,
        "engine": engine or None,
        "roofline": (roofline and not quick and texts is None) or None,
        "rounds": rounds,
        "seconds": seconds,
        "budget": budget,
        "margin": margin,
        "threads": threads,
        "cold": cold or None,
        "mobile": mobile or None,
        "across_machines": across_machines or None,
    }
    running = defaults | {key: value for key, value in given.items() if value is not None}
    common = {"data": data, "task": task, "reference": reference, "measure": {"latency": running}}
    asked = recipe_of_bench(models, common, about_texts, parts_of(dimensions))
    form: Form = "bench" if as_json else "markdown" if as_markdown else "terminal"
    return carry_out(asked, output=None, force=False, runs=runs, form=form, quiet=quiet, with_latency=True)
