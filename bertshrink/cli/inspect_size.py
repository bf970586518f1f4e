"""`bertshrink inspect MODEL --size "10 MB"`: every road to a size, told from sizes alone in a second."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from bertshrink import units
from bertshrink.cli.inspect import find_model_for
from bertshrink.cli.run import print_json
from bertshrink.errors import UserError
from bertshrink.files.headers import read_onnx
from bertshrink.model.checkpoint import CheckpointInfo
from bertshrink.model.size_estimate import Sizes, of_file
from bertshrink.recipe.size_options import FORMATS, Roads, roads

_SHOWN = 12
"""Roads in the table; all of them are in the JSON."""


def show_roads(name: str, task: str, size: str, as_json: bool) -> None:
    """Print which layers, width of tables and number format together fit into a size, with the commands.

    Raises:
        BertshrinkError: no such model, one whose sizes are unknown, or no size.
    """
    try:
        limit = units.size(size)
    except ValueError as error:
        raise UserError(str(error), where="--size", hint="write it as `10 MB`") from None
    found = roads(_model(name, task), limit)
    if as_json:
        print_json(_document(name, found))
        return
    _print(name, found)


def _model(name: str, task: str) -> CheckpointInfo | Sizes:
    model = find_model_for(name, task)
    card = model.about
    if isinstance(card, CheckpointInfo):
        return card
    sizes = of_file(read_onnx(model.file), card.family) if card.format == "onnx" else None
    if sizes is None or not sizes.is_float:
        what = f"`{name}` is {card.precision} in the format {card.format}: it cannot be made into another"
        raise UserError(what, where="--size", hint="give the encoder that it was made from")
    return sizes


def _document(name: str, found: Roads) -> dict[str, Any]:
    fit = [
        {key: value for key, value in asdict(road).items() if not key.startswith("cuts")}
        | {"commands": road.commands(name)}
        for road in found.fit
    ]
    return {"model": name, "limit": found.limit, "num_bytes": found.now, "fit": fit, "least_of_misses": found.misses}


def _print(name: str, found: Roads) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()

    def line(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    limit = units.format(found.limit, "B")
    line(f"{name}: {units.format(found.now, 'B')}; estimated from sizes alone, right within 2 %")
    line(f"what fits into {limit}, smallest change first:\n" if found.fit else f"nothing fits into {limit}")
    rows = Table(box=None, pad_edge=False)
    for column, side in (("", "right"), ("layers", "right"), ("rank", "right"), ("format", "left"), ("size", "right")):
        rows.add_column(column, justify=side)  # type: ignore[arg-type]
    shown = found.fit[:_SHOWN]
    for number, road in enumerate(shown, start=1):
        layers, rank = ("-" if value is None else str(value) for value in (road.layers, road.rank))
        rows.add_row(str(number), layers, rank, road.format, units.format(road.num_bytes, "B"))
    if shown:
        console.print(rows)
    if len(found.fit) > _SHOWN:
        line(f"   and {len(found.fit) - _SHOWN} more, with larger changes: `--json` lists all")
    for format_ in FORMATS:
        if format_ in found.misses:
            line(f"   not in {format_}: {units.format(found.misses[format_], 'B')} at least")
    for number, road in enumerate(shown, start=1):
        commands = road.commands(name) or ["nothing to do: it fits as it is"]
        line(f"\n{number}  {commands[0]}" + "".join(f"\n   {command}" for command in commands[1:]))
