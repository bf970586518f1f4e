"""Rows of a run's report: what each model is, how large it is, and how well it answers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertshrink.files.hub import local_path
from bertshrink.meters.quality.evaluation import Evaluation
from bertshrink.model.model_ref import ModelRef, describe
from bertshrink.report.report import Snapshot
from bertshrink.sources.resolve import is_path

if TYPE_CHECKING:
    from bertshrink.model.model_ref import Model
    from bertshrink.techniques.base import Technique, Workbench


class Snapshots:
    """Takes the rows of one run.

    Args:
        judge: who judges its models.
    """

    def __init__(self, judge: Evaluation) -> None:
        self._judge = judge

    def take(self, model: ModelRef, label: str, role: Any, reference: ModelRef | None) -> Snapshot:
        """Size and quality of a model.

        Args:
            model: as it is on disk.
            label: as tables show it.
            role: of `Snapshot`.
            reference: the model that all others are compared with; None: it is not there yet, and a model on its way to
                it has no answers.
        """
        from bertshrink.meters import size

        measured = size.measure(model.load(), model.folder)
        quality = self._judge.quality(model.load(), reference.load) if reference is not None else []
        return Snapshot(
            name=model.name,
            label=label,
            role=role,
            kind=model.kind,
            facts=describe(model.load()) | {"sha256": model.sha256},
            components=measured.components,
            measurements=[*measured.measurements, *quality],
        )

    def of_reference(self, given: ModelRef) -> Snapshot:
        """The row of the model that was given and is what all others are compared with."""
        row = self.take(given, given.label, "reference", given)
        name = given.source or given.name
        row.path = str(local_path(name)) if is_path(name) else None
        row.notes += getattr(given.load(), "notes", ())
        return row

    def of_stage(self, made: ModelRef, technique: Technique, bench: Workbench, reference: ModelRef | None) -> Snapshot:
        """The row of a stage's result; `reference` may be that result itself."""
        row = self.take(made, technique.label(), "reference" if reference is made else "stage", reference)
        row.technique, row.paper = technique.name, technique.paper
        row.settings = technique.model_dump(mode="json", exclude_none=True)
        row.path, row.notes, row.history = made.name, bench.notes, bench.history
        return row

    def of_baseline(self, model: Model, name: str, label: str, scratch: Path, reference: ModelRef | None) -> Snapshot:
        """The row of a model that a technique shows beside its result: saved into a folder only to be measured."""
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        model.save(scratch)
        saved = ModelRef.read(scratch, model.task, name=name)
        saved.loaded = model
        row = self.take(saved, label, "baseline", reference)
        shutil.rmtree(scratch)
        return row
