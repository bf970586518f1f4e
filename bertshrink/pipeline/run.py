"""The one loop: a plan in, a report out.

    make       reference = the recipe's model
               for each stage:  finished before with this fingerprint? take it; else make it, prove it, store it
    measure    once, where asked: time and memory of all models, interleaved

Size and quality are part of making. What is made can be given to the user before minutes are spent on measuring it. The
report is written after every stage. Models are loaded only when something has to be made or measured: a run whose
stages are all finished loads none.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertshrink.errors import UserError
from bertshrink.files.atomic import write_text
from bertshrink.meters.quality.evaluation import Evaluation
from bertshrink.meters.targets.timer import Timer
from bertshrink.model.encoder import Encoder
from bertshrink.model.model_ref import ModelRef
from bertshrink.model.quiet import quiet_libraries
from bertshrink.model.round_trip import proof_answers, prove
from bertshrink.model.tasks import TASKS
from bertshrink.pipeline.benchmark import measure_into
from bertshrink.pipeline.prepare import PreparedRun, prepare
from bertshrink.pipeline.run_folder import OutputFolder, RunFolder
from bertshrink.pipeline.snapshots import Snapshots
from bertshrink.progress import Progress
from bertshrink.recipe.plan import Plan, PlannedStage
from bertshrink.report.report import Report, Snapshot
from bertshrink.techniques.base import Technique, Workbench
from bertshrink.training.distributed import ranks

if TYPE_CHECKING:
    from bertshrink.data.texts import TextDataset

REPORT = "report.json"
NOT_YET = "time and memory were not yet measured when this was written"
NOT_TIMED = "time and memory were not measured: `--measure` of a command, `measure:` of a recipe ask for it"


@dataclass(frozen=True)
class RunResult:
    """What a run leaves, so far.

    Attributes:
        model: the last stage's; None when there was no stage.
        key: the last stage's fingerprint.
    """

    report: Report
    folder: Path
    model: ModelRef | None
    key: str


def run(plan: Plan, progress: Progress, runs: Path, command: str, target: OutputFolder | None = None) -> RunResult:
    """Carry a plan out from beginning to end; arguments and errors as of `opened`."""
    with opened(plan, progress, runs, command, target) as work:
        work.make()
        return work.measure()


@contextmanager
def opened(
    plan: Plan, progress: Progress, runs: Path, command: str, target: OutputFolder | None = None
) -> Iterator[Run]:
    """Prove a plan against its texts and weights, and hold its run folder while it is carried out.

    Args:
        target: where the last model is to be published afterwards; that it may be is checked before anything is made.

    Raises:
        BertshrinkError: whatever went wrong; finished stages stay.
    """
    ranks.check_launcher()
    store = RunFolder(runs / plan.recipe.name)
    prepared = prepare(plan, progress, store, command, target if ranks.is_main() else None)
    with store.locked() if ranks.is_main() else nullcontext():
        yield Run(prepared, progress)


class Run:
    """One run, so that the steps read as steps: `make`, then `measure`.

    Args:
        prepared: what it starts from.
        progress: where long work says that it is alive.

    Attributes:
        report: everything found so far.
        made: what the stages made so far.
    """

    def __init__(self, prepared: PreparedRun, progress: Progress) -> None:
        self.prepared = prepared
        self.plan = prepared.plan
        self.recipe = prepared.plan.recipe
        self.progress = progress
        self.store = prepared.store
        self.report = prepared.report
        self.made: list[ModelRef] = []
        texts = self._as_compared() if self.recipe.measure.quality else None
        self.judge = Evaluation(texts, self.max_length, self.recipe.seed, progress, self.recipe.measure.dimensions)
        self.snapshots = Snapshots(self.judge)

    @property
    def reference(self) -> ModelRef | None:
        """The model that all others are compared with; None while it is being made."""
        leading = self.plan.num_leading
        if not leading:
            return self.prepared.given
        return self.made[leading - 1] if len(self.made) >= leading else None

    @property
    def latest(self) -> ModelRef | None:
        """What the next stage takes; None: it starts from nothing."""
        return self.made[-1] if self.made else self.prepared.given

    @property
    def max_length(self) -> int | None:
        """The recipe's cap on tokens per text."""
        return self.plan.data.max_length if self.plan.data else None

    @quiet_libraries()
    def make(self) -> RunResult:
        """Every stage in order; of several processes each but the first one does its share of the trainings."""
        if not ranks.is_main():
            return self._follow()
        write_text(self.store.folder / "recipe.yaml", self.recipe.text)
        if not self.plan.num_leading:
            self._reference()
        for number, (stage, key) in enumerate(self._stages(), start=1):
            self.progress.stage(number, len(self.plan.stages))
            self._stage(stage, key)
            self._save_report()
        self.progress.stage(0, 0)
        if self.recipe.measure.latency is False:
            self.report.notes.append(NOT_TIMED)
        return self._finished()

    def measure(self) -> RunResult:
        """The models to compare with, and time and memory of all of them, where asked for."""
        if ranks.is_main():
            for model in self.prepared.compared:
                self.report.snapshots.append(self.snapshots.take(model, model.name, "compared", self.reference))
            self._running()
            self._save_report()
        return self._finished()

    def _finished(self) -> RunResult:
        last = self.made[-1] if self.made and ranks.is_main() else None
        return RunResult(self.report, self.store.folder, last, self.prepared.keys.stages[-1])

    def _stages(self) -> Iterator[tuple[PlannedStage, str]]:
        """Each stage with its fingerprint."""
        return zip(self.plan.stages, self.prepared.keys.stages[1:], strict=True)

    def _follow(self) -> RunResult:
        """What every process but the first one does: its share of each training, and nothing else."""
        for stage, key in self._stages():
            technique = stage.technique
            if ranks.broadcast_from_main(False) and technique.trains:
                model = self.latest.load().copy() if technique.takes and self.latest is not None else None
                technique(model, self._bench(technique, self.store.work_folder(stage.name, key)))
            ranks.broadcast_from_main(None)  # until it is stored
            self.made.append(self._stored(stage, key))
        return self._finished()

    def _as_compared(self) -> TextDataset | None:
        """The texts as models are compared on them: a sentence encoder, fine-tuned on pairs maybe, reads them apart."""
        texts = self.prepared.texts
        return texts.as_read(self.plan.task) if texts is not None else None

    def _reference(self) -> None:
        """The figures of the model that was given."""
        row = self.prepared.stored_reference()
        if row is None:
            assert self.prepared.given is not None
            row = self.snapshots.of_reference(self.prepared.given).model_dump(mode="json")
            self.prepared.store_reference(row)
        self.report.snapshots.append(Snapshot.model_validate(row))

    def _stage(self, stage: PlannedStage, key: str) -> None:
        """Take the stage as finished, or make, prove, measure and store it."""
        card = self.store.finished(stage.name, key)
        ranks.broadcast_from_main(card is None)
        if card is None:
            card, made = self._make(stage, key)
        else:
            self.progress.log(f"{stage.name}: already finished")
            made = self._stored(stage, key)
        ranks.broadcast_from_main(None)
        self.made.append(made)
        self.report.snapshots += [Snapshot.model_validate(entry) for entry in card["snapshots"]]

    def _stored(self, stage: PlannedStage, key: str) -> ModelRef:
        """The result of a stage that is finished."""
        return ModelRef.read(self.store.stage(stage.name), self.plan.task, key=key)

    def _make(self, stage: PlannedStage, key: str) -> tuple[dict[str, Any], ModelRef]:
        """Make a stage's result, prove it, measure it and store it; returns what is kept of its figures, and itself."""
        technique, before = stage.technique, self.latest
        self.progress.log(": ".join(filter(None, (stage.name, technique.label(), stage.promise))))
        began = time.monotonic()
        model = before.load() if technique.takes and before is not None else None
        was = proof_answers(model) if model is not None and not technique.makes_teacher else None
        bench = self._bench(technique, self.store.work(stage.name, key))
        if model is not None and technique.gives == "encoder":  # which may be made of the one that was given
            model = model.copy()
        result = technique(model, bench)
        del model
        is_reference = len(self.made) + 1 == self.plan.num_leading
        saved: list[ModelRef] = []

        def fill(folder: Path) -> dict[str, Any]:
            result.save(folder)
            made = ModelRef.read(folder, result.task, result.source, name=stage.name, key=key)
            prove(result, made, technique.gives, was)
            saved.append(made)
            reference = made if is_reference else self.reference
            own = self.snapshots.of_stage(made, technique, bench, reference)
            own.seconds = round(time.monotonic() - began, 3)
            beside = [
                self.snapshots.of_baseline(
                    model, f"{stage.name}/{name}", label, bench.work / f"baseline-{name}", reference
                )
                for name, label, model in bench.baselines
            ]
            metric = TASKS[self.plan.task].headline
            if technique.trains:  # what is beside it is where it began, and it closed a gap
                own.notes += [note for other in beside if (note := self.report.gap(own, other, metric)) is not None]
            return {"snapshots": [row.model_dump(mode="json") for row in (own, *beside)]}

        card = self.store.save(stage.name, key, fill)
        return card, saved[0].moved(self.store.stage(stage.name))

    def _bench(self, technique: Technique, work: Path) -> Workbench:
        """What a technique may use for the next stage."""
        texts = self.prepared.texts if technique.makes_teacher else self._as_compared()
        reference, given = self.reference, self.latest
        bench = Workbench(
            texts=texts,
            task=self.plan.task,
            choose=self.judge.chooser(texts, reference.load if reference is not None else None),
            measure=Timer(self.plan.clock, self.progress),
            teacher=self._teacher() if "teacher" in technique.needs() else None,
            work=work,
            cache=self.store.folder.parent / ".cache",
            seed=self.recipe.seed,
            max_length=self.max_length,
            progress=self.progress,
        )
        if given is not None and technique.gives == "artifact":  # what gives an encoder was handed a copy
            bench.unload = given.unload
        return bench

    def _teacher(self) -> Encoder:
        """The model that all others are compared with, as one that can teach."""
        assert self.reference is not None
        teacher = self.reference.load()
        if not isinstance(teacher, Encoder):
            raise UserError("the recipe's first model is an artifact, which cannot be a teacher")
        return teacher

    def _running(self) -> None:
        settings = self.recipe.measure.latency
        if settings is False:
            return
        models = (self.prepared.given, *self.made)[self.plan.num_leading :]  # the reference and what came of it
        shown = [model for model in (*models, *self.prepared.compared) if model is not None]
        measure_into(self.report, self.prepared.targets, shown, settings, self.progress, self.store)

    def _save_report(self) -> None:
        write_text(self.store.folder / REPORT, self.report.to_json())
