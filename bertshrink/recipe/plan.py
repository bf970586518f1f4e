"""A plan: what will be done, proven to fit before a weight is loaded. All faults are told at once.

Proven here: the model is there and of a known family; the task is known; each stage takes what the one before gives;
its settings fit the model as it will be by then; what it needs (a teacher, texts) is there; paths exist.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bertshrink.config.checker import Checker
from bertshrink.data.labels.labels import match_classes
from bertshrink.data.load import is_corpus
from bertshrink.data.readers import check_source
from bertshrink.data.settings import DataSettings
from bertshrink.engines import ENGINES, is_installed
from bertshrink.errors import BertshrinkError, MissingDependency, UserError, did_you_mean
from bertshrink.meters.latency.engine_variants import read_variant
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.meters.targets import open_target
from bertshrink.model.artifact import ArtifactCard, ArtifactSpec
from bertshrink.model.checkpoint_info import CheckpointInfo, own_limit
from bertshrink.model.checks.tokenizer import require_tokenizer
from bertshrink.model.folder.dropped_files import left_behind
from bertshrink.model.model_ref import Kind, ModelRef
from bertshrink.model.tasks import TASKS
from bertshrink.recipe.latency_shapes import fit_clock, fit_grid
from bertshrink.recipe.recipe import Recipe
from bertshrink.recipe.size_budget import Fitting
from bertshrink.sources.resolve import find_model
from bertshrink.techniques import TECHNIQUES
from bertshrink.techniques.base import Technique


@dataclass(frozen=True)
class PlannedStage:
    """One stage that fits.

    Attributes:
        name: `01-distill`: its folder in the run folder.
        place: where the recipe asks for it.
        promise: what it buys, as far as it is known; may be empty.
        form: what an artifact that comes out takes; None: an encoder comes out.
    """

    name: str
    technique: Technique
    place: str
    promise: str = ""
    form: ArtifactSpec | None = None


@dataclass(frozen=True)
class Plan:
    """A recipe that will work as far as can be known without weights.

    Attributes:
        model: the first one; None: the first stage starts from nothing.
        compared: other models, measured beside.
        about: what the model that all others are compared with says of itself, or will.
        task: a name in `TASKS`.
        clock: what stages that choose by the clock time with.
        num_leading: how many of the first stages make the model that all others are compared with.
        notes: what the plan decided, one sentence each.
    """

    recipe: Recipe
    model: ModelRef | None
    compared: tuple[ModelRef, ...]
    about: CheckpointInfo | ArtifactCard
    task: str
    stages: tuple[PlannedStage, ...]
    clock: LatencySettings
    num_leading: int = 0
    notes: tuple[str, ...] = ()

    @property
    def data(self) -> DataSettings | None:
        """Where the texts are."""
        return self.recipe.data


def make_plan(recipe: Recipe) -> Plan:
    """Prove a recipe.

    Raises:
        UserErrors: several things are wrong; a single one is raised as itself (which may be `UnsafeModel` for a damaged
            model folder or `MissingDependency` for a hub that cannot be reached).
    """
    check = Checker(recipe.source)
    num_leading = _num_leading(recipe)
    model = recipe.model_ref
    if model is None and recipe.model is not None:
        model = _look_at(recipe, recipe.model, check.at("model"), is_base=num_leading > 0, reference=recipe.reference)
    elif recipe.model is None and (not recipe.stages or recipe.stages[0].technique.takes):
        hint = "add `model:`, a folder or a hub name; or let `pretrain` make one"
        raise UserError("the recipe names no model to start from", where=recipe.place("stages"), hint=hint)
    if recipe.model is None and recipe.reference is not None:
        check.at("reference").error("`reference` has vectors of a model, and the recipe names none", "leave it out")
    if recipe.task not in ("auto", *TASKS):
        check.at("task").error(f"there is no task `{recipe.task}`", did_you_mean(recipe.task, TASKS))
    _data(recipe, check)
    _timing(recipe, check)
    notes: list[str] = []
    about = model.about if model is not None else None
    if num_leading and isinstance(about, CheckpointInfo) and "encoder" in recipe.stages[0].technique.takes:
        about = _learns(recipe, about, check, notes)
    stages = _stages(recipe, model, about, check)
    if recipe.model is None and not check.faults:
        about = recipe.stages[0].technique.makes()
    task = about.task if about is not None else "auto"
    if task in TASKS and TASKS[task].is_masked:
        _patience(recipe, check)
    if isinstance(about, ArtifactCard):
        if recipe.task in TASKS and recipe.task != task:
            text = f"the model was exported for `{task}`, the recipe says `{recipe.task}`"
            check.at("task").error(text, "leave `task` out: an artifact has its own")
        _require(about.engine, check.at("model"))
        assert model is not None
        _readable(recipe, model, check.at("model"))
    if about is not None:
        _dimensions(recipe, about, check)
    forms = {recipe.model or "the model": _form(about)} if about is not None else {}
    timed = {stage.name: stage.form for stage in stages if stage.form and stage.technique.depends_on_machine}
    clock = fit_clock(recipe, forms | timed)
    forms |= {stage.name: stage.form for stage in stages if stage.form is not None}
    compared = []
    for i, name in enumerate(recipe.compare):
        own = check.at("compare", i)
        other = _look_at(recipe, name, own)
        if other is None:
            continue
        compared.append(other)
        if isinstance(other.about, ArtifactCard):
            _require(other.about.engine, own)
            _readable(recipe, other, own)
        forms[name] = _form(other.about)
        if about is not None and recipe.data is not None and recipe.measure.quality:
            _comparable(name, other.about, about, own)
    recipe = fit_grid(recipe, forms, check)
    check.raise_faults()
    assert about is not None
    if isinstance(about, ArtifactCard):
        notes += about.details.get("notes", [])
    else:
        notes += [*about.notes, *left_behind(about.folder, is_sentence=about.sentence is not None)]
    for other in compared:
        if isinstance(other.about, CheckpointInfo):
            notes += [f"{other.label}: {remark}" for remark in other.about.remarks]
    return Plan(recipe, model, tuple(compared), about, task, tuple(stages), clock, num_leading, tuple(notes))


def _timing(recipe: Recipe, check: Checker) -> None:
    """That there are such targets, and texts to time with."""
    latency = recipe.measure.latency
    if latency is False:
        return
    for key, names, read in (("target", latency.target, open_target), ("engine", latency.engine, read_variant)):
        for at, name in enumerate(names):
            try:
                read(name)
            except UserError as error:
                error.where = None  # the flag that it names may not have been used
                check.at("measure", "latency", key, at).add(error)
    if latency.texts is not None:
        try:
            check_source(latency.texts, recipe.place("measure", "latency", "texts"))
        except UserError as error:
            check.add(error)


def _dimensions(recipe: Recipe, about: CheckpointInfo | ArtifactCard, check: Checker) -> None:
    """That there are sentence vectors to truncate, and longer ones."""
    asked, own = recipe.measure.dimensions, check.at("measure", "dimensions")
    if not asked:
        return
    if not (TASKS[about.task].is_vector and TASKS[about.task].is_bare):
        own.error(f"`dimensions` truncates sentence vectors, and the task is `{about.task}`", "leave it out")
    elif recipe.data is None or not recipe.measure.quality:
        own.error("`dimensions` is about quality, and nothing is evaluated", "name texts with `data:`, or leave it out")
    elif isinstance(about, CheckpointInfo) and about.pooling is not None:
        whole = about.pooling.dimension or about.pooling.width(about.shape.hidden_size)
        for at, number in enumerate(asked):
            if number >= whole:
                what = f"`dimensions` has {number}, and the sentence vectors have {whole} numbers"
                check.at("measure", "dimensions", at).error(what, "give smaller numbers")


def _num_leading(recipe: Recipe) -> int:
    """How many of the first stages make a teacher."""
    makes = [stage.technique.makes_teacher for stage in recipe.stages]
    return next((i for i, leading in enumerate(makes) if not leading), len(makes))


def _learns(recipe: Recipe, facts: CheckpointInfo, check: Checker, notes: list[str]) -> CheckpointInfo:
    """The facts of the teacher that the first stages make: its task as named, as the model's own, or as the data tells.

    Labels are the data's, which the plan does not look into.
    """
    task = recipe.task if recipe.task in TASKS else None
    if task is None and TASKS[facts.task].needs_labels:
        task = facts.task
        notes.append(f"task: {task}, from the model's own head")
    if task is None and check.faults:
        return facts
    if task is None and recipe.data is not None:
        from bertshrink.data.labels.checks import check_seen, guess_data_task
        from bertshrink.data.load import load

        try:
            texts = load(recipe.data)
            check_seen(texts, "finetune")
            task = guess_data_task(texts.train)
        except BertshrinkError as error:
            check.at("data").add(error)
            return facts
        if task is not None:
            notes.append(f"task: {task}, from the data's labels")
    if task is None:
        check.at("task").error(
            "cannot infer the task: neither the model nor the data has labels",
            f"name the task with `task:` or `--task`: {', '.join(TASKS)}",
        )
        return facts
    if task == facts.task:
        return replace(facts, labels=())
    limit = own_limit(facts.shape, facts.config) if facts.sentence is not None else facts.max_length
    return replace(facts, task=task, labels=(), sentence=None, activation="identity", max_length=limit)


def _patience(recipe: Recipe, check: Checker) -> None:
    """Running text is streamed whole: nothing of it is kept out of the training to choose by."""
    if recipe.data is None or check.faults or not is_corpus(recipe.data):
        return
    for stage in recipe.stages:
        if getattr(stage.technique, "early_stopping_patience", None) is not None:
            check.at(*stage.path, "early_stopping_patience").error(
                f"`early_stopping_patience` of `{stage.technique.name}` needs a dev split, and running text is "
                "used whole for training",
                "leave it out and set `epochs`",
            )


def _look_at(
    recipe: Recipe, name: str, check: Checker, *, is_base: bool = False, reference: str | None = None
) -> ModelRef | None:
    """A model that the recipe names; None when a fault was found."""
    task = recipe.task if recipe.task in TASKS else "auto"
    try:
        return find_model(name, check.place, task=task, is_base=is_base, reference=reference)
    except BertshrinkError as error:
        check.add(error)
        return None


def _form(about: CheckpointInfo | ArtifactCard) -> ArtifactSpec:
    return about.form if isinstance(about, ArtifactCard) else ArtifactSpec(max_length=about.max_length)


def _require(engine: str, check: Checker) -> None:
    if engine in ENGINES and not is_installed(engine):
        what = f"the engine `{engine}` is needed here and is not installed"
        check.add(MissingDependency(what, hint=ENGINES[engine].install))


def _readable(recipe: Recipe, model: ModelRef, check: Checker) -> None:
    """What a file for an engine needs where texts are run through it: a tokenizer, and a task that is known."""
    latency = recipe.measure.latency
    has_texts = bool(recipe.stages) or recipe.data is not None
    if has_texts or (latency and latency.texts is not None):
        try:
            require_tokenizer(model.folder, model.source or model.name)
        except UserError as error:
            check.add(error)
    if has_texts and isinstance(model.about, ArtifactCard) and not model.about.is_task_known:
        check.error(
            f"nothing says which task `{model.source or model.name}` is for",
            f"name it with `task:` or `--task`: {', '.join(TASKS)}; or put the model's config.json beside the file",
        )


def _stages(
    recipe: Recipe,
    model: ModelRef | None,
    about: CheckpointInfo | ArtifactCard | None,
    check: Checker,
) -> list[PlannedStage]:
    planned = []
    kind: Kind | None = None
    if recipe.model is not None:  # one that cannot be read is taken for what most are
        kind = model.kind if model is not None else "encoder"
    facts = about if isinstance(about, CheckpointInfo) else None
    form = about.form if isinstance(about, ArtifactCard) else None
    fitting = Fitting(recipe, model, about)
    for number, stage in enumerate(recipe.stages, start=1):
        technique, here, promise = stage.technique, check.at(*stage.path), ""
        if recipe.model is None and number > 1 and technique.makes_teacher:
            here.error(
                f"`{technique.name}` needs other texts than `{recipe.stages[0].technique.name}`, and a recipe "
                "has one dataset",
                "use a separate recipe with the pre-trained model as its `model`",
            )
        if technique.makes_teacher and number > _num_leading(recipe):
            here.error(
                f"`{technique.name}` makes a teacher, but comes after a stage that makes the model smaller",
                "put it first; `distill` without `layers` continues training a small model",
            )
        fits = kind in technique.takes if technique.takes else kind is None
        if not fits:
            _misfit(technique, kind, here)
        for engine in sorted(technique.extras()):
            _require(engine, here)
        needs = technique.needs()
        if recipe.data is None and needs & {"train", "dev"}:
            here.error(
                f"`{technique.name}` needs texts, and the recipe names none",
                "add `data:` (or `--data`): a file, a folder, a hub name or `builtin:pydoc`",
            )
        try:
            if fits and kind is None:
                facts = technique.makes()
            elif fits and kind == "encoder" and facts is not None:
                before, facts = facts, technique.fit(facts)
                promise = technique.promise(before, facts)
            if fits:
                fitting.after(technique, facts)
            if fits and technique.gives == "artifact":
                form = technique.form(form if kind == "artifact" else None)
        except UserError as error:
            its = here if error.setting is None else here.at(error.setting)
            its.add(fitting.advised(error, technique))
        kind = technique.gives
        made = form if kind == "artifact" else None
        planned.append(PlannedStage(f"{number:02d}-{technique.name}", technique, here.place, promise, made))
    return planned


def _comparable(
    name: str,
    beside: CheckpointInfo | ArtifactCard,
    first: CheckpointInfo | ArtifactCard,
    check: Checker,
) -> None:
    """Prove that a model can be judged on the first model's texts."""
    if beside.task != first.task:
        check.error(
            f"`{name}` is for `{beside.task}`, the first model for `{first.task}`",
            "compare models of one task, or leave out `data` and compare only size and speed",
        )
    elif first.labels and TASKS[first.task].has_labels:
        try:
            match_classes(beside.labels, first.labels, name)
        except UserError as error:
            error.where = check.place
            check.add(error)


def _misfit(technique: Technique, kind: Kind | None, check: Checker) -> None:
    if not technique.takes:
        hint = "leave `model` out and put it first; `finetune --task mlm` continues training a model"
        check.error(f"`{technique.name}` creates its own model, but the recipe names one", hint)
        return
    assert kind is not None
    wanted = technique.takes[0]
    makers = [name for name, other in TECHNIQUES.items() if kind in other.takes and other.gives == wanted]
    hint = f"put `{makers[0]}` before it" if makers else f"move it to a point where the model is still an {wanted}"
    article = {"encoder": "an encoder", "artifact": "an artifact"}
    check.error(f"`{technique.name}` takes {article[wanted]}, and gets {article[kind]} here", hint)


def _data(recipe: Recipe, check: Checker) -> None:
    if recipe.data is None:
        return
    base = ("data",) if ("data", "path") not in recipe.source.places else ("data", "path")
    try:
        if recipe.data.path is not None:
            check_source(recipe.data.path, recipe.place(*base))
        for side in ("train", "dev", "test", "unlabelled"):
            name = getattr(recipe.data, side)
            if name is not None:
                check_source(name, recipe.place("data", side))
    except UserError as error:
        check.at("data").add(error)
