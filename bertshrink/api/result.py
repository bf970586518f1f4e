"""What a call returns: the model, where it is, and everything that was measured of it."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

    from bertshrink.gates.verdict import Judgement
    from bertshrink.report.report import Report

_HTML_WIDTH = 110
"""Columns of a report in a notebook."""


@dataclass(frozen=True)
class Result:
    """The outcome of a call.

    Attributes:
        path: the folder of the model that was made; None where nothing was made (`bench`).
        report: everything that was measured.
        run_folder: the report as files, and every stage that was finished.
        judgement: what the recipe's gates came to; None: it has none.
    """

    path: Path | None
    report: Report = field(repr=False)
    run_folder: Path
    judgement: Judgement | None = None
    margin: float = field(default=0.05, repr=False)

    @cached_property
    def model(self) -> Any:
        """The model, loaded: a stock transformers model, or a `Session` of a file that an engine runs.

        Raises:
            UserError: nothing was made.
        """
        from bertshrink.errors import UserError
        from bertshrink.model.artifact import Artifact
        from bertshrink.model.model_ref import ModelRef

        if self.path is None:
            raise UserError("the call made no model", hint="read `report`, or use `to_dataframe()`")
        model = ModelRef.read(self.path).load()
        return Session(model) if isinstance(model, Artifact) else model.model

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer, loaded."""
        import transformers

        return transformers.AutoTokenizer.from_pretrained(str(self.path))

    def to_dataframe(self) -> pandas.DataFrame:
        """One row per model and metric.

        Columns: `model`, `role`, `metric`, `unit`, `value`, `low` and `high` (the 95 % interval; the value itself where
        it is exact), `samples`, `evidence`, and the conditions (`target`, `engine`, `precision`, `threads`, `batch`,
        `length`).
        """
        import pandas

        rows = []
        for snapshot in self.report.snapshots:
            for one in snapshot.measurements:
                about = {"model": snapshot.label, "role": snapshot.role, "metric": one.metric, "unit": one.unit}
                figure = one.interval().model_dump() | {"samples": len(one.all), "evidence": str(one.evidence)}
                rows.append(about | figure | one.conditions.model_dump())
        return pandas.DataFrame(rows)

    def show(self) -> None:
        """Print the report."""
        from rich.console import Console

        from bertshrink.report.render import terminal

        Console(soft_wrap=False).print(terminal.render(self.report, margin=self.margin))

    def _repr_html_(self) -> str:
        from rich.console import Console

        from bertshrink.report.render import terminal

        # In a notebook Rich would show what is printed besides recording it.
        console = Console(record=True, width=_HTML_WIDTH, file=io.StringIO(), force_jupyter=False)
        console.print(terminal.render(self.report, margin=self.margin))
        frame = '<pre style="white-space:pre;overflow-x:auto;line-height:1.3;font-family:monospace">{code}</pre>'
        return console.export_html(inline_styles=True, code_format=frame)


class Session:
    """A model file of an engine: texts in, arrays out.

    Attributes:
        artifact: what the folder's card says of it.
    """

    def __init__(self, artifact: Any) -> None:
        self.artifact = artifact

    def __call__(self, texts: str | list[str], pairs: list[str] | None = None) -> dict[str, Any]:
        """Run the model.

        Args:
            texts: one, or several.
            pairs: the second text of each.

        Returns:
            name of an output -> array (B, ...); outputs per token are lists of arrays (L, ...), one a text.
        """
        import numpy as np

        given = [texts] if isinstance(texts, str) else list(texts)
        answers = self.artifact.predict(self.artifact.tokenize(given, pairs))
        outputs: dict[str, Any] = {}
        for name in answers[0]:
            values = [answer[name] for answer in answers]
            same = len({value.shape for value in values}) == 1
            outputs[name] = np.stack(values) if same else values
        return outputs

    def __repr__(self) -> str:
        card = self.artifact.card
        return f"Session({card.format}, {card.precision}, {card.engine}, task={card.task!r})"
