"""The one loop: a plan in, a report out.

    make       reference = the recipe's model
               for each stage:  finished before with this fingerprint? take it; else make it, prove it, store it
    measure    once, where asked: time and memory of all models, interleaved

Size and quality are part of making. What is made can be given to the user before minutes are spent on measuring it. The
report is written after every stage. Models are loaded only when something has to be made or measured: a run whose
stages are all finished loads none.
"""

from __future__ import annotations

import datetime
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertshrink.data.labels.checks import check_texts
from bertshrink.data.summary import account, data_of
from bertshrink.errors import UserError
from bertshrink.files.atomic import write_text
from bertshrink.files.fingerprint import fingerprint
from bertshrink.files.hub import local_path
from bertshrink.meters.quality.evaluation import Evaluation
from bertshrink.meters.targets.timer import Timer
from bertshrink.model.checkpoint import ARTIFACT_CARD, check_weights, read_base_info, read_facts
from bertshrink.model.encoder import quiet_libraries
from bertshrink.model.loading import describe, folder_key, load_model, weights_sha256
from bertshrink.model.round_trip import proof_answers, prove
from bertshrink.model.tasks import TASKS
from bertshrink.pipeline.handle import ModelHandle
from bertshrink.pipeline.run_folder import OutputFolder, RunFolder
from bertshrink.pipeline.timing import measure_into, open_targets
from bertshrink.progress import Progress
from bertshrink.recipe.plan import Plan, PlannedStage
from bertshrink.recipe.stage_keys import keys_of
from bertshrink.report.report import Report, Snapshot
from bertshrink.sources import resolve as sources
from bertshrink.techniques.base import Technique, Workbench
from bertshrink.training.distributed import ranks
from bertshrink.version import __version__

if TYPE_CHECKING:
    from bertshrink.data.texts import TextDataset
    from bertshrink.meters import targets as meters
    from bertshrink.model.loading import Model

REFERENCE = "reference"
REPORT = "report.json"
NOT_YET = "time and memory were not yet measured when this was written"
NOT_TIMED = "time and memory were not measured: `--measure` of a command, `measure:` of a recipe ask for it"


@dataclass(frozen=True)
class RunResult:
    """What a run leaves, so far.

    Attributes:
        model: the last stage's folder; None when there was no stage.
        key: the last stage's fingerprint.
    """

    report: Report
    folder: Path
    model: Path | None
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
    work = Run(plan, progress, store, command)
    work.prepare(target if ranks.is_main() else None)
    with store.locked() if ranks.is_main() else nullcontext():
        yield work


class Run:
    """One run's state, so that the steps read as steps: `make`, then `measure`."""

    def __init__(self, plan: Plan, progress: Progress, store: RunFolder, command: str) -> None:
        self.plan = plan
        self.recipe = plan.recipe
        self.progress = progress
        self.store = store
        self.standing: list[ModelHandle] = []
        self.reference: ModelHandle | None = None
        self.keys: tuple[str, ...] = ()
        self.reference_key = ""
        self.report = Report(
            name=self.recipe.name,
            version=__version__,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            command=command,
            model=self.recipe.model or "made from scratch",
            task=plan.task,
            recipe=self.recipe.text,
            notes=list(plan.notes),
        )

    def prepare(self, target: OutputFolder | None) -> None:
        """Find whatever is wrong with texts, weights and target; nothing is written yet."""
        try:
            self._texts_into_report()
        except UserError as error:
            error.where = error.where or self.recipe.place("data")
            raise
        for place in self.targets:
            place.check({})
        given = folder_key(self._folder, self.plan.task) if self.recipe.model is not None else fingerprint(None)
        keys = keys_of(self.plan, given, self.texts.fingerprint if self.texts else None)
        self.keys, self.reference_key = keys.stages, keys.reference
        if target is not None:
            target.check(self.keys[-1], self.store.folder)
        leading = self.plan.num_leading
        if self.recipe.model is None:
            self.standing.append(ModelHandle(REFERENCE, Path(), self.keys[0]))
            return
        folder = self._folder
        facts = None
        if not (folder / ARTIFACT_CARD).is_file():
            facts = read_base_info(folder) if leading else read_facts(folder, self.plan.task)
        first = ModelHandle(REFERENCE, folder, self.keys[0], facts, self.recipe.model)
        self.standing.append(first)
        if not leading:
            self.reference = first
        if (leading and self.store.finished(self.plan.stages[0].name, self.keys[1]) is None) or (
            not leading and self._stored_reference() is None
        ):
            first.load()
        for i, name in enumerate(self.recipe.compare):
            other = sources.locate_model(name, self.recipe.place("compare", i))
            if not (other / ARTIFACT_CARD).is_file():
                check_weights(other)

    def make(self) -> RunResult:
        """Every stage in order; of several processes each but the first one does its share of the trainings."""
        quiet_libraries()
        if not ranks.is_main():
            return self._follow()
        write_text(self.store.folder / "recipe.yaml", self.recipe.text)
        if not self.plan.num_leading:
            self._reference()
        for stage, key in zip(self.plan.stages, self.keys[1:], strict=True):
            self._stage(stage, key)
            self._save_report()
        self.progress.stage(0, 0)
        if self.recipe.measure.latency is False:
            self.report.notes.append(NOT_TIMED)
        return self._finished()

    def measure(self) -> RunResult:
        """The models to compare with, and time and memory of all of them, where asked for."""
        if ranks.is_main():
            for name in self.recipe.compare:
                self._compared(name)
            self._running()
            self._save_report()
        return self._finished()

    def _finished(self) -> RunResult:
        last = self.store.stage(self.plan.stages[-1].name) if self.plan.stages and ranks.is_main() else None
        return RunResult(self.report, self.store.folder, last, self.keys[-1])

    def _follow(self) -> RunResult:
        """What every process but the first one does: its share of each training, and nothing else."""
        for stage, key in zip(self.plan.stages, self.keys[1:], strict=True):
            technique = stage.technique
            if ranks.broadcast_from_main(False) and technique.trains:
                before = self.standing[-1]
                model = before.load().copy() if technique.takes else None
                technique(model, self._bench(technique, self.store.work_folder(stage.name, key)))
            ranks.broadcast_from_main(None)  # until it is stored
            self._stand(ModelHandle(stage.name, self.store.stage(stage.name), key))
        return self._finished()

    @cached_property
    def texts(self) -> TextDataset | None:
        """The recipe's texts, read once."""
        if self.plan.data is None:
            return None
        from bertshrink.data.load import read_texts

        self.progress.log(f"reading {self.plan.data.path or self.plan.data.train}")
        texts = read_texts(self.plan.data, self.plan.task)
        return texts if self.plan.num_leading else self._as_read(texts)

    def _as_read(self, texts: TextDataset | None) -> TextDataset | None:
        """What models are compared on: a sentence encoder, fine-tuned on pairs maybe, reads the two texts apart."""
        return texts.as_read(self.plan.task) if texts is not None else None

    @cached_property
    def targets(self) -> list[meters.Target]:
        """Where the models are timed."""
        latency = self.recipe.measure.latency
        return open_targets(latency) if latency else []

    @property
    def max_length(self) -> int | None:
        """The recipe's cap on tokens per text."""
        return self.plan.data.max_length if self.plan.data else None

    @cached_property
    def judge(self) -> Evaluation:
        """Who judges the models."""
        texts = self._as_read(self.texts) if self.recipe.measure.quality else None
        return Evaluation(texts, self.max_length, self.recipe.seed, self.progress)

    def _texts_into_report(self) -> None:
        texts = self.texts
        if texts is None:
            return
        plan = self.plan
        about = plan.facts or plan.card
        labels = None if plan.num_leading or about is None else about.labels
        needed = any(stage.technique.needs_labels(plan.task) for stage in plan.stages)
        lines = account(texts, plan.task)
        for line in (*lines, *texts.notes):
            self.progress.log(line)
        check_texts(texts, plan.task, labels, needs_labels=needed)
        self.report.data = data_of(texts)
        self.report.notes += (*lines, *texts.notes)

    @cached_property
    def _folder(self) -> Path:
        assert self.recipe.model is not None
        return sources.locate_model(self.recipe.model, self.recipe.place("model"))

    def _reference(self) -> None:
        reference = self.standing[0]
        stored = self._stored_reference()
        if stored is None:
            name = self.recipe.model or ""
            label = Path(name).name or name
            snapshot = self._snapshot(reference.load(), reference.folder, REFERENCE, label, "reference")
            snapshot.path = str(local_path(name)) if sources.is_path(name) else None
            snapshot.notes += getattr(reference.load(), "notes", ())
            self.store.write_entry("reference.json", self.reference_key, snapshot.model_dump(mode="json"))
        else:
            snapshot = Snapshot.model_validate(stored)
        self.report.snapshots.append(snapshot)

    def _stored_reference(self) -> Any:
        return self.store.read_entry("reference.json", self.reference_key)

    def _stage(self, stage: PlannedStage, key: str) -> None:
        """Take the stage as finished, or make, prove, measure and store it."""
        self.progress.stage(self.plan.stages.index(stage) + 1, len(self.plan.stages))
        before = self.standing[-1]
        card = self.store.finished(stage.name, key)
        ranks.broadcast_from_main(card is None)
        made = None
        if card is None:
            card, made = self._make(stage, before, key)
        else:
            self.progress.log(f"{stage.name}: already finished")
        ranks.broadcast_from_main(None)
        self._stand(ModelHandle(stage.name, self.store.stage(stage.name), key, loaded=made))
        self.report.snapshots += [Snapshot.model_validate(entry) for entry in card["snapshots"]]

    def _make(self, stage: PlannedStage, before: ModelHandle, key: str) -> tuple[dict[str, Any], Model]:
        technique = stage.technique
        self.progress.log(": ".join(filter(None, (stage.name, technique.label(), stage.promise))))
        began = time.monotonic()
        model = before.load() if technique.takes else None
        was = proof_answers(model) if model is not None and not technique.makes_teacher else None
        bench = self._bench(technique, self.store.work(stage.name, key))
        if model is not None and technique.gives == "encoder":  # which may be made of the one that was given
            model = model.copy()
        made = technique(model, bench)
        del model
        stored: dict[str, Model] = {}

        def fill(folder: Path) -> dict[str, Any]:
            made.save(folder)
            stored["model"] = prove(made, folder, technique.gives, was)
            is_reference = len(self.standing) == self.plan.num_leading
            if is_reference:
                self.reference = ModelHandle(stage.name, folder, key, loaded=stored["model"])
            role = "reference" if is_reference else "stage"
            own = self._snapshot(stored["model"], folder, stage.name, technique.label(), role)
            own.technique, own.paper = technique.name, technique.paper
            own.settings = technique.model_dump(mode="json", exclude_none=True)
            own.path, own.notes, own.history = stage.name, bench.notes, bench.history
            own.seconds = round(time.monotonic() - began, 3)
            beside = [self._baseline(bench.work, stage, name, label, m) for name, label, m in bench.baselines]
            metric = TASKS[self.plan.task].headline
            if technique.trains:  # what is beside it is where it began, and it closed a gap
                own.notes += [note for other in beside if (note := self.report.gap(own, other, metric)) is not None]
            return {"snapshots": [s.model_dump(mode="json") for s in (own, *beside)]}

        card = self.store.save(stage.name, key, fill)
        return card, load_model(self.store.stage(stage.name)) if technique.gives == "artifact" else stored["model"]

    def _stand(self, standing: ModelHandle) -> None:
        """A stage's result becomes what the next one takes, and maybe what all others are compared with."""
        self.standing.append(standing)
        if len(self.standing) - 1 == self.plan.num_leading:
            self.reference = standing

    def _bench(self, technique: Technique, work: Path) -> Workbench:
        texts = self.texts if technique.makes_teacher else self._as_read(self.texts)
        return Workbench(
            texts=texts,
            task=self.plan.task,
            choose=self.judge.chooser(texts, self.reference.load if self.reference is not None else None),
            measure=Timer(self.plan.clock, self.progress),
            teacher=self._teacher() if "teacher" in technique.needs() else None,
            work=work,
            cache=self.store.folder.parent / ".cache",
            seed=self.recipe.seed,
            max_length=self.max_length,
            progress=self.progress,
        )

    def _reference_model(self) -> Model:
        assert self.reference is not None
        return self.reference.load()

    def _teacher(self) -> Any:
        from bertshrink.model.encoder import Encoder

        teacher = self._reference_model()
        if not isinstance(teacher, Encoder):
            raise UserError("the recipe's first model is an artifact, which cannot be a teacher")
        return teacher

    def _baseline(self, work: Path, stage: PlannedStage, name: str, label: str, model: Model) -> Snapshot:
        folder = work / f"baseline-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        model.save(folder)
        snapshot = self._snapshot(model, folder, f"{stage.name}/{name}", label, "baseline")
        shutil.rmtree(folder)
        return snapshot

    def _compared(self, name: str) -> None:
        folder = sources.locate_model(name, self.recipe.place("compare"))
        taken = {standing.name for standing in self.standing}
        unique = next(n for n in (name, *(f"{name} ({i})" for i in range(2, 100))) if n not in taken)
        is_artifact = (folder / ARTIFACT_CARD).is_file()
        facts = None if is_artifact else read_facts(folder, self.recipe.task)
        standing = ModelHandle(unique, folder, folder_key(folder, self.recipe.task), facts, name)
        self.standing.append(standing)
        self.report.snapshots.append(self._snapshot(standing.load(), folder, unique, unique, "compared"))

    def _snapshot(self, model: Model, folder: Path, name: str, label: str, role: Any) -> Snapshot:
        from bertshrink.meters import size

        found = size.measure(model, folder)
        # A model on its way to the teacher has no answers yet.
        quality = self.judge.quality(model, self._reference_model) if self.reference is not None else []
        return Snapshot(
            name=name,
            label=label,
            role=role,
            kind="artifact" if (folder / ARTIFACT_CARD).is_file() else "encoder",
            facts=describe(model) | {"sha256": weights_sha256(model, folder)},
            components=found.components,
            measurements=[*found.measurements, *quality],
        )

    def _running(self) -> None:
        settings = self.recipe.measure.latency
        if settings is False:
            return
        shown = self.standing[self.plan.num_leading :]  # the reference and what came of it
        measure_into(self.report, self.targets, shown, settings, self.progress, self.store)

    def _save_report(self) -> None:
        write_text(self.store.folder / REPORT, self.report.to_json())
