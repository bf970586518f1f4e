"""From a recipe to a model at its place and a report beside it: plan, make, publish, measure, draw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bertshrink.errors import UserError
from bertshrink.pipeline.requirements import require_ml
from bertshrink.recipe.plan import make_plan
from bertshrink.report.statistics import MARGIN
from bertshrink.training.distributed.ranks import is_main

if TYPE_CHECKING:
    from bertshrink.gates.verdict import Judgement
    from bertshrink.model.model_ref import ModelRef
    from bertshrink.progress import Progress
    from bertshrink.recipe.recipe import Recipe
    from bertshrink.report.report import Report

REPORT_HTML = "report.html"
REPORT_MARKDOWN = "report.md"


@dataclass(frozen=True)
class Outcome:
    """What a recipe came to.

    Attributes:
        made: the last stage's model in the run folder; None: there was no stage.
        model: where that model is for its user.
        page: the report as HTML.
        margin: what the report counts as the same speed.
        judgement: what the recipe's gates came to; None: it has none.
    """

    report: Report
    folder: Path
    made: ModelRef | None
    model: Path | None
    page: Path
    margin: float
    judgement: Judgement | None


def execute(
    recipe: Recipe,
    progress: Progress,
    *,
    output: Path | None,
    force: bool,
    runs: Path,
    command: str,
    with_latency: bool,
    tell: Callable[[str], None],
) -> Outcome | None:
    """Carry a recipe out.

    Args:
        output: where the last model is published; None: it stays in the run folder.
        force: whether another model of bertshrink's gives way there.
        command: what makes the report again.
        with_latency: whether time and memory are measured where the recipe asks for it.
        tell: says one line, whatever `progress` shows.

    Returns:
        what came of it; None in all but the first of several processes.

    Raises:
        BertshrinkError: whatever went wrong; nothing is written at `output` then, unless only measuring went wrong.
    """
    plan = make_plan(recipe if with_latency else recipe.with_measure(latency=False))
    if output is not None and not plan.stages:
        raise UserError("the recipe has no stages, so there is no model to write", where="-o", hint="leave it out")
    require_ml()
    from bertshrink.pipeline.publish import Delivery
    from bertshrink.pipeline.run import opened
    from bertshrink.pipeline.run_folder import OutputFolder

    target = OutputFolder(output, force) if output is not None else None
    margin = recipe.measure.latency.margin if recipe.measure.latency else MARGIN
    with opened(plan, progress, runs, command, target) as work:
        made = work.make()
        if not is_main():
            return None
        delivery = Delivery(plan.recipe, target, margin)
        delivery.deliver(made)
        if made.model is not None and plan.recipe.measure.latency:
            progress.log(f"the model is finished: {delivery.place(made)}; measuring")
        with delivery.named_if_stopped(made, tell):
            finished = work.measure()
        delivery.complete(finished)
    page = _draw(finished.report, finished.folder, margin)
    place = delivery.place(finished)
    return Outcome(finished.report, finished.folder, finished.model, place, page, margin, delivery.judgement)


def _draw(report: Report, folder: Path, margin: float) -> Path:
    """Write the report's page and its Markdown beside its JSON; returns the page."""
    from bertshrink.files.atomic import write_text
    from bertshrink.report.render import html, markdown

    page = folder / REPORT_HTML
    write_text(folder / REPORT_MARKDOWN, markdown.render(report, margin))
    write_text(page, html.render(report, margin))
    return page
