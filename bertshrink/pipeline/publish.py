"""When the finished model reaches its user: at `-o`, and before minutes are spent on measuring it.

gates that need no timing, or none     judged, published, measured; then the report at `-o` is completed
gates of time, memory, instructions    measured, judged, published
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bertshrink.errors import Interrupted, Terminated

if TYPE_CHECKING:
    from bertshrink.gates.verdict import Judgement
    from bertshrink.model.model_ref import ModelRef
    from bertshrink.pipeline.run import RunResult
    from bertshrink.pipeline.run_folder import OutputFolder
    from bertshrink.recipe.recipe import Recipe
    from bertshrink.report.report import Report

_REPORT = "report.json"
_OF_THE_CALL = ("created", "command")
"""Of a report: what says nothing about the models."""


class Delivery:
    """The last model of a run, on its way to `-o`.

    Args:
        target: where it should be; None: in the run folder alone.
        margin: what the report counts as the same speed.

    Attributes:
        judgement: what the recipe's gates came to; None: there are none, or they are not judged yet.
    """

    def __init__(self, recipe: Recipe, target: OutputFolder | None, margin: float) -> None:
        self.recipe = recipe
        self.target = target
        self.margin = margin
        self.judgement: Judgement | None = None
        self._is_new = False

    @property
    def is_held(self) -> bool:
        """Whether no gate keeps the model from `-o`, as far as they are judged."""
        return self.judgement is None or self.judgement.exit_code == 0

    @property
    def _waits(self) -> bool:
        """Whether there is a gate that only measuring can answer."""
        return any(rule.needs_running for rule in self.recipe.gates)

    @property
    def _is_measured(self) -> bool:
        return self.recipe.measure.latency is not False

    def deliver(self, made: RunResult) -> None:
        """Judge and publish what was made, unless a gate has to wait for what measuring finds.

        Raises:
            UserError: something else is at `-o` by now.
            OutputError: it cannot be written there.
        """
        if made.model is None or self._waits:
            return
        self._judge(made)
        from bertshrink.pipeline.run import NOT_YET

        report = made.report
        if self._is_measured:
            report = report.model_copy(update={"notes": [*report.notes, NOT_YET]})
        self._publish(made, report)

    @contextmanager
    def named_if_stopped(self, made: RunResult, tell: Callable[[str], None]) -> Iterator[None]:
        """Measure inside; whatever ends it before its time, `tell` names the model that is finished."""
        try:
            yield
        except BaseException as stop:
            if made.model is not None:
                is_stop = isinstance(stop, KeyboardInterrupt | Interrupted | Terminated)
                what = "was stopped" if is_stop else "failed; run the same command to measure again"
                tell(f"the model is finished: {self.place(made)}; only measuring {what}")
            raise

    def place(self, made: RunResult) -> Path | None:
        """Where the model is for its user by now; None: nothing was made."""
        is_there = self.target is not None and self.is_held and not (self._waits and self.judgement is None)
        if self.target is not None and is_there:
            return self.target.folder
        return made.model.folder if made.model is not None else None

    def complete(self, finished: RunResult) -> None:
        """Judge and publish what had to wait, or bring the report at `-o` up to what measuring has found.

        Raises:
            UserError: what is at `-o` is not what was published there.
            OutputError: it cannot be written there.
        """
        if finished.model is None:
            return
        if self._waits:
            self._judge(finished)
            self._publish(finished, finished.report)
        if self.target is None or not self.is_held:
            return
        has_more = self._is_measured or (self._is_new and self.recipe.compare)
        if has_more and not _tells(self.target.folder / _REPORT, finished.report):
            self.target.complete(finished.key, self._papers(finished.report, finished.model))

    def _judge(self, finished: RunResult) -> None:
        if self.recipe.gates and finished.model is not None:
            from bertshrink.gates.recipe_gates import judge_run

            self.judgement = judge_run(self.recipe.gates, finished.report, finished.model.folder)

    def _publish(self, finished: RunResult, report: Report) -> None:
        if self.target is not None and finished.model is not None and self.is_held:
            papers = self._papers(report, finished.model)
            self._is_new = self.target.publish(finished.model.folder, finished.key, papers)

    def _papers(self, report: Report, model: ModelRef) -> dict[str, str]:
        from bertshrink.files.atomic import MODEL_CARD
        from bertshrink.model.folder.usage_snippet import usage
        from bertshrink.report.render import markdown

        text = markdown.render(report, self.margin)
        if self.target is not None:
            text += f"\n## Use it\n\n```python\n{usage(model, self.target.folder.name)}```\n"
        return {_REPORT: report.to_json(), MODEL_CARD: text}


def _tells(path: Path, report: Report) -> bool:
    """Whether a report's file says the same as this one, but for when and by which command it was made."""
    try:
        there, new = json.loads(path.read_text(encoding="utf-8")), json.loads(report.to_json())
    except (OSError, ValueError):
        return False
    return {k: v for k, v in there.items() if k not in _OF_THE_CALL} == {
        k: v for k, v in new.items() if k not in _OF_THE_CALL
    }
