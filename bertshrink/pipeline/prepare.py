"""Before a run: the plan meets its texts, weights and targets, and whatever is wrong with them is found.

Nothing is written yet. What a run needs is in `PreparedRun`, so that there is no run that was not prepared.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bertshrink.data.labels.checks import check_texts
from bertshrink.data.summary import account, data_of
from bertshrink.errors import OutputError, UserError
from bertshrink.files.fingerprint import fingerprint
from bertshrink.model.checkpoint_info import CheckpointInfo, check_weights
from bertshrink.model.folder.layer_weights import check_layers
from bertshrink.model.model_ref import ModelRef
from bertshrink.pipeline.benchmark import open_targets
from bertshrink.pipeline.needs import check_needs, needs_of
from bertshrink.pipeline.run_folder import OutputFolder, RunFolder
from bertshrink.progress import Progress
from bertshrink.recipe.plan import Plan
from bertshrink.recipe.stage_keys import Keys, keys_of
from bertshrink.report.report import Report
from bertshrink.sources.resolve import fetch_weights
from bertshrink.version import __version__

if TYPE_CHECKING:
    from bertshrink.data.texts import TextDataset
    from bertshrink.meters.targets import Target

REFERENCE = "reference"
_REFERENCE_FILE = "reference.json"


@dataclass(frozen=True)
class PreparedRun:
    """A plan with all that it needs at hand.

    Attributes:
        plan: proven.
        texts: the recipe's, as the first stage reads them; None: it names none.
        targets: where the models are timed.
        keys: what decides each result.
        given: the first model, all of it on this machine; None: the first stage starts from nothing.
        compared: other models, measured beside, by names of their own.
        report: what is known by now.
        store: the run folder.
    """

    plan: Plan
    texts: TextDataset | None
    targets: list[Target]
    keys: Keys
    given: ModelRef | None
    compared: tuple[ModelRef, ...]
    report: Report
    store: RunFolder

    def stored_reference(self) -> Any:
        """The figures of the model that was given, where an earlier run took them; None: none did."""
        return self.store.read_entry(_REFERENCE_FILE, self.keys.reference)

    def store_reference(self, row: dict[str, Any]) -> None:
        """Keep the figures of the model that was given."""
        self.store.write_entry(_REFERENCE_FILE, self.keys.reference, row)


def prepare(plan: Plan, progress: Progress, store: RunFolder, command: str, target: OutputFolder | None) -> PreparedRun:
    """Prove a plan against its texts, weights and targets; the first model is loaded where something is made of it.

    Arguments and errors are as of `run.opened`.
    """
    report = Report(
        name=plan.recipe.name,
        version=__version__,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=command,
        model=plan.recipe.model or "made from scratch",
        task=plan.task,
        recipe=plan.recipe.text,
        notes=list(plan.notes),
    )
    try:
        texts = _texts(plan, progress, report)
    except UserError as error:
        error.where = error.where or plan.recipe.place("data")
        raise
    latency = plan.recipe.measure.latency
    targets = open_targets(latency) if latency else []
    for place in targets:
        place.check({})
    given = fetch_weights(plan.model) if plan.model is not None else None
    content = given.content_key(plan.task) if given is not None else fingerprint(None)
    keys = keys_of(plan, content, texts.fingerprint if texts is not None else None)
    if target is not None:
        target.check(keys.stages[-1], store.folder)
    if given is not None:
        given = replace(given, name=REFERENCE, key=keys.stages[0])
    _check_room(plan, keys, store, target)
    prepared = PreparedRun(plan, texts, targets, keys, given, (), report, store)
    if given is not None:
        _compare_vectors(given, "", report, progress)
        if _is_used(prepared):
            given.load()
        else:
            given.unload()
    return replace(prepared, compared=_compared(plan, report, progress))


def _check_room(plan: Plan, keys: Keys, store: RunFolder, target: OutputFolder | None) -> None:
    """Prove that there is memory and disk for what is still to be made.

    Raises:
        UserError: too little memory.
        OutputError: too little disk.
    """
    output = target.folder if target is not None else None
    try:
        check_needs(needs_of(plan), store.folder, output)
    except (UserError, OutputError):
        stages = zip(plan.stages, keys.stages[1:], strict=True)
        finished = [stage.name for stage, key in stages if store.finished(stage.name, key) is not None]
        check_needs(needs_of(plan, finished), store.folder, output)  # which takes a while to find out


def _is_used(run: PreparedRun) -> bool:
    """Whether the first model itself has to be there: a stage is to be made of it, or its figures are to be taken."""
    if run.plan.num_leading:
        return run.store.finished(run.plan.stages[0].name, run.keys.stages[1]) is None
    return run.stored_reference() is None


def _texts(plan: Plan, progress: Progress, report: Report) -> TextDataset | None:
    """The recipe's texts, told in the report."""
    if plan.data is None:
        return None
    from bertshrink.data.load import read_texts

    progress.log(f"reading {plan.data.path or plan.data.train}")
    texts = read_texts(plan.data, plan.task)
    if not plan.num_leading:
        texts = texts.as_read(plan.task)
    lines = (*account(texts, plan.task), *texts.notes)
    for line in lines:
        progress.log(line)
    needed = any(stage.technique.needs_labels(plan.task) for stage in plan.stages)
    check_texts(texts, plan.task, None if plan.num_leading else plan.about.labels, needs_labels=needed)
    report.data = data_of(texts)
    report.notes += lines
    return texts


def _compare_vectors(model: ModelRef, prefix: str, report: Report, progress: Progress) -> None:
    """Compare a model with its reference vectors, where there are some, and tell the figure in the report."""
    if model.reference is not None:
        progress.log(f"comparing {model.label} with {len(model.reference.texts)} reference vectors")
        report.notes.append(f"{prefix}{model.compared()}")


def _compared(plan: Plan, report: Report, progress: Progress) -> tuple[ModelRef, ...]:
    """The models to compare with, all of them on this machine."""
    taken = {REFERENCE, *(stage.name for stage in plan.stages)}
    models = []
    for named in plan.compared:
        model = fetch_weights(named)
        if model.kind == "encoder":
            with model.named_as_given():
                check_weights(model.folder)
                check_layers(model.folder, model.about.pooling if isinstance(model.about, CheckpointInfo) else None)
            _compare_vectors(model, f"{model.label}: ", report, progress)
            model.unload()
        name = next(n for n in (model.name, *(f"{model.name} ({i})" for i in range(2, 100))) if n not in taken)
        taken.add(name)
        models.append(replace(model, name=name, key=model.content_key(plan.recipe.task)))
    return tuple(models)
