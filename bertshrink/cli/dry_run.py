"""`--dry-run`: what a command would do and what its settings would give, without making anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertshrink import units
from bertshrink.cli.progress import make_progress
from bertshrink.cli.run import print_json
from bertshrink.files.scratch_folder import scratch_folder
from bertshrink.pipeline.needs import check_needs, needs_of
from bertshrink.pipeline.requirements import require_ml
from bertshrink.recipe.plan import Plan, make_plan
from bertshrink.recipe.recipe import Recipe
from bertshrink.sources.resolve import fetch_weights
from bertshrink.techniques.base import Technique, Workbench

if TYPE_CHECKING:
    from bertshrink.data.texts import TextDataset
    from bertshrink.model.model_ref import Model

_CHOSEN_OF = 10_000
"""Training texts, a tenth of which are for choosing: a row of a table is no verdict."""
_UNITS = {"parameters": "count", "bytes": "B", "energy": "fraction"}


def dry_run(recipe: Recipe, *, runs: Path, output: Path | None, as_json: bool, quiet: bool) -> None:
    """Print what each stage buys, and the table of the stages that have one; or all of it as one JSON document.

    Of what makes artifacts also the memory and disk that it needs; `runs` and `output` are where it would write.

    Raises:
        BertshrinkError: what would be wrong with the command without `--dry-run`, too.
    """
    require_ml()
    plan = make_plan(recipe)
    notes: list[str] = []
    if plan.model is not None and plan.model.reference is not None:
        notes.append(fetch_weights(plan.model).compared())
    tables = {
        stage.technique.name: _table(plan, stage.technique, quiet, notes)
        for stage in plan.stages
        if type(stage.technique).explain is not Technique.explain
    }
    stages = [{"stage": stage.technique.label(), "buys": stage.promise} for stage in plan.stages]
    needs = needs_of(plan)
    check_needs(needs, runs / recipe.name, output)
    if needs.memory:
        notes.append(f"it {needs}")
    if as_json:
        print_json({"stages": stages, "tables": tables, "notes": notes})
        return
    from rich.console import Console

    from bertshrink.report.table.window import Fitting

    console = Console()
    for stage in stages:
        console.print(": ".join(filter(None, stage.values())), highlight=False, markup=False)
    for rows in filter(None, tables.values()):
        heads = tuple(rows[0])
        cells = [[_cell(name, value) for name, value in row.items()] for row in rows]
        shown = Fitting(heads, cells, numbers=range(len(heads)))
        console.print()
        console.print(shown)
    console.print()
    for note in notes:
        console.print(f"- {note}", highlight=False, markup=False)


def _table(plan: Plan, technique: Technique, quiet: bool, notes: list[str]) -> list[dict[str, Any]]:
    recipe = plan.recipe
    assert plan.model is not None
    model = fetch_weights(plan.model).load()
    texts = _texts(plan)
    with scratch_folder() as folder:
        bench = Workbench(
            texts,
            None,
            folder,
            task=plan.task,
            seed=recipe.seed,
            max_length=plan.data.max_length if plan.data is not None else None,
            progress=make_progress(quiet),
            choose=_chooser(plan, texts, model),
        )
        rows = technique.explain(model, bench)
    notes += bench.notes
    return rows


def _chooser(plan: Plan, texts: TextDataset | None, model: Model) -> Callable[[Model], float] | None:
    """The headline metric on texts kept for choosing; None: there are none, or the model is no encoder."""
    from bertshrink.meters.quality.evaluation import Evaluation
    from bertshrink.progress import Silent

    length = plan.data.max_length if plan.data is not None else None
    judge = Evaluation(texts, length, plan.recipe.seed, Silent(), plan.recipe.measure.dimensions)
    few = texts and replace(texts, train=texts.train.first(_CHOSEN_OF), dev=texts.dev.first(_CHOSEN_OF // 10), _memo={})
    return judge.chooser(few, lambda: model)


def _texts(plan: Plan) -> TextDataset | None:
    if plan.data is None:
        return None
    from bertshrink.data.load import read_texts

    return read_texts(plan.data, plan.task).as_read(plan.task)


def _cell(name: str, value: float) -> str:
    if name in _UNITS:
        return units.format(value, _UNITS[name])
    return f"{value:.4f}" if isinstance(value, float) else str(value)
