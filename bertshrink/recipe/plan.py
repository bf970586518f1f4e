"""A plan: what will be done, proven to fit before a weight is loaded. All faults are told at once.

Proven here: the model is there and of a known family; the task is known; each stage takes what the one before gives;
its settings fit the model as it will be by then; what it needs (a teacher, texts) is there; paths exist.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bertshrink.engines import ENGINES, is_installed
from bertshrink.errors import BertshrinkError, Faults, MissingPart, RequestError, near
from bertshrink.meters.settings import RunningSettings
from bertshrink.meters.targets import open_target
from bertshrink.meters.variants import read_variant
from bertshrink.model import source as sources
from bertshrink.model.artifact import Artifact, Card, Form
from bertshrink.model.corpus import is_corpus
from bertshrink.model.facts import ARTIFACT_CARD, Facts, own_limit, read_facts, read_start
from bertshrink.model.labels import match_classes
from bertshrink.model.left_behind import left_behind
from bertshrink.model.reading import check_source
from bertshrink.model.task import TASKS
from bertshrink.model.texts import DataSettings
from bertshrink.recipe.fitting import Fitting
from bertshrink.recipe.grid import fit_clock, fit_grid
from bertshrink.recipe.recipe import Recipe
from bertshrink.techniques import TECHNIQUES
from bertshrink.techniques.base import Kind, Technique


@dataclass(frozen=True)
class PlannedStage:
    """One stage that fits.

    Attributes:
        name: `01-distill`: its folder in the run folder.
        technique: its settings.
        place: where the recipe asks for it.
        promise: what it buys, as far as it is known; may be empty.
        form: what an artifact that comes out takes; None: an encoder comes out.
    """

    name: str
    technique: Technique
    place: str
    promise: str = ""
    form: Form | None = None


@dataclass(frozen=True)
class Plan:
    """A recipe that will work as far as can be known without weights.

    Attributes:
        recipe: what was asked.
        kind: of the first model; None: the first stage starts from nothing.
        task: a name in `TASKS`.
        num_leading: how many of the first stages make the model that all others are compared with.
        clock: what stages that choose by the clock time with.
        facts: of that model, where it is an encoder.
        card: of the first model, where it is an artifact.
        stages: in order.
        notes: what the plan decided, one sentence each.
    """

    recipe: Recipe
    kind: Kind | None
    task: str
    facts: Facts | None
    card: Card | None
    stages: tuple[PlannedStage, ...]
    clock: RunningSettings
    num_leading: int = 0
    notes: tuple[str, ...] = ()

    @property
    def data(self) -> DataSettings | None:
        """Where the texts are."""
        return self.recipe.data


def prove(recipe: Recipe) -> Plan:
    """Prove a recipe.

    Raises:
        Faults: several things are wrong; a single one is raised as itself (which may be `ModelRefused` for a damaged
            model folder or `MissingPart` for a hub that cannot be reached).
    """
    faults: list[BertshrinkError] = []
    kind: Kind | None = None
    facts: Facts | None = None
    card: Card | None = None
    if recipe.model is not None:
        kind, facts, card = _model(recipe, recipe.model, recipe.place("model"), faults)
    elif not recipe.stages or recipe.stages[0].technique.takes:
        hint = "add `model:`, a folder or a hub name; or let `pretrain` make one"
        raise RequestError("the recipe names no model to start from", where=recipe.place("stages"), hint=hint)
    if recipe.task not in ("auto", *TASKS):
        faults.append(
            RequestError(f"there is no task `{recipe.task}`", where=recipe.place("task"), hint=near(recipe.task, TASKS))
        )
    _data(recipe, faults)
    _timing(recipe, faults)
    num_leading = _num_leading(recipe)
    notes: list[str] = []
    if num_leading and facts is not None and "encoder" in recipe.stages[0].technique.takes:
        facts = _learns(recipe, facts, faults, notes)
    stages = _stages(recipe, kind, facts, card, faults)
    if kind is None and not faults:
        facts = recipe.stages[0].technique.makes()
    about = facts or card
    task = about.task if about is not None else "auto"
    if task == "mlm":
        _patience(recipe, faults)
    if card is not None and recipe.task in TASKS and recipe.task != task:
        text = f"the model was exported for `{task}`, the recipe says `{recipe.task}`"
        faults.append(
            RequestError(text, where=recipe.place("task"), hint="leave `task` out: an artifact knows its own")
        )
    if card is not None:
        _require(card.engine, recipe.place("model"), faults)
    forms = {recipe.model or "the model": _form(about)} if about is not None else {}
    timed = {stage.name: stage.form for stage in stages if stage.form and stage.technique.depends_on_machine}
    clock = fit_clock(recipe, forms | timed)
    forms |= {stage.name: stage.form for stage in stages if stage.form is not None}
    for i, name in enumerate(recipe.compare):
        _, other, other_card = _model(recipe, name, recipe.place("compare", i), faults)
        beside = other or other_card
        if other_card is not None:
            _require(other_card.engine, recipe.place("compare", i), faults)
        if beside is not None:
            forms[name] = _form(beside)
        if beside is not None and about is not None and recipe.data is not None and recipe.measure.quality:
            _comparable(name, beside, about, recipe.place("compare", i), faults)
    recipe = fit_grid(recipe, forms, faults)
    if faults:
        raise _together(faults)
    if facts is not None:
        notes += [*facts.notes, *left_behind(facts.folder, is_sentence=facts.sentence is not None)]
    if card is not None:
        notes += card.details.get("notes", [])
    return Plan(recipe, kind, task, facts, card, tuple(stages), clock, num_leading, tuple(notes))


def _timing(recipe: Recipe, faults: list[BertshrinkError]) -> None:
    """That there are such targets, and texts to time with."""
    latency = recipe.measure.latency
    if latency is False:
        return
    for key, names, read in (("target", latency.target, open_target), ("engine", latency.engine, read_variant)):
        for at, name in enumerate(names):
            try:
                read(name)
            except RequestError as error:
                error.where = recipe.place("measure", "latency", key, at)
                faults.append(error)
    if latency.texts is not None:
        try:
            check_source(latency.texts, recipe.place("measure", "latency", "texts"))
        except RequestError as error:
            faults.append(error)


def _num_leading(recipe: Recipe) -> int:
    """How many of the first stages make a teacher."""
    makes = [stage.technique.makes_teacher for stage in recipe.stages]
    return next((i for i, leading in enumerate(makes) if not leading), len(makes))


def _learns(recipe: Recipe, facts: Facts, faults: list[BertshrinkError], notes: list[str]) -> Facts:
    """The facts of the teacher that the first stages make: its task as named, as the model's own, or as the data tells.

    Labels are the data's, which the plan does not look into.
    """
    task = recipe.task if recipe.task in TASKS else None
    if task is None and facts.task not in ("embedding", "mlm"):
        task = facts.task
        notes.append(f"no task was named: it is that of the model's own head, {task}")
    if task is None and faults:
        return facts
    if task is None and recipe.data is not None:
        from bertshrink.model.label_checks import check_seen, guess_data_task
        from bertshrink.model.texts import load

        try:
            texts = load(recipe.data)
            check_seen(texts, "finetune")
            task = guess_data_task(texts.train)
        except BertshrinkError as error:
            error.where = error.where or recipe.place("data")
            faults.append(error)
            return facts
        if task is not None:
            notes.append(f"no task was named: the data's labels are for {task}")
    if task is None:
        faults.append(
            RequestError(
                "what the model shall learn cannot be told: neither it nor the data has labels",
                where=recipe.place("task"),
                hint=f"name the task with `task:` or `--task`: {', '.join(TASKS)}",
            )
        )
        return facts
    if task == facts.task:
        return replace(facts, labels=())
    limit = own_limit(facts.shape, facts.config) if facts.sentence is not None else facts.max_length
    return replace(facts, task=task, labels=(), sentence=None, activation="identity", max_length=limit)


def _patience(recipe: Recipe, faults: list[BertshrinkError]) -> None:
    """Running text is streamed whole: nothing of it is kept out of the training to choose by."""
    if recipe.data is None or faults or not is_corpus(recipe.data):
        return
    for stage in recipe.stages:
        if getattr(stage.technique, "patience", None) is not None:
            faults.append(
                RequestError(
                    f"`patience` of `{stage.technique.name}` needs texts to choose by, and running text is learnt from "
                    "as a whole",
                    where=recipe.place(*stage.path, "patience"),
                    hint="leave it out and set `epochs`",
                )
            )


def _together(faults: list[BertshrinkError]) -> BertshrinkError:
    requests = [fault for fault in faults if isinstance(fault, RequestError)]
    if len(faults) == 1 or len(requests) < len(faults):
        return next((fault for fault in faults if not isinstance(fault, RequestError)), faults[0])
    return Faults(requests)


def _model(
    recipe: Recipe, name: str, where: str, faults: list[BertshrinkError]
) -> tuple[Kind, Facts | None, Card | None]:
    """What a model says of itself; both None when a fault was found."""
    try:
        folder = sources.peek(name, where)
        if (folder / ARTIFACT_CARD).is_file():
            return "artifact", None, Artifact.load(folder).card
        if _num_leading(recipe):
            return "encoder", read_start(folder), None
        return "encoder", read_facts(folder, recipe.task if recipe.task in TASKS else "auto"), None
    except BertshrinkError as error:
        error.where = error.where or where
        faults.append(error)
        return "encoder", None, None


def _form(about: Facts | Card) -> Form:
    """What a model that was given takes."""
    return about.form if isinstance(about, Card) else Form(max_length=about.max_length)


def _require(engine: str, where: str, faults: list[BertshrinkError]) -> None:
    """See to it that an engine is there before anything is made for it."""
    if engine in ENGINES and not is_installed(engine):
        what = f"the engine `{engine}` is needed here and is not installed"
        faults.append(MissingPart(what, where=where, hint=ENGINES[engine][2]))


def _stages(
    recipe: Recipe, kind: Kind | None, facts: Facts | None, card: Card | None, faults: list[BertshrinkError]
) -> list[PlannedStage]:
    planned = []
    form = card.form if card is not None else None
    fitting = Fitting(recipe, facts, card)
    for number, stage in enumerate(recipe.stages, start=1):
        technique, where, promise = stage.technique, recipe.place(*stage.path), ""
        if recipe.model is None and number > 1 and technique.makes_teacher:
            faults.append(
                RequestError(
                    f"`{technique.name}` learns from other texts than `{recipe.stages[0].technique.name}`, and a "
                    "recipe has one set",
                    where=where,
                    hint="make it a recipe of its own, with the pre-trained model as its `model`",
                )
            )
        if technique.makes_teacher and number > _num_leading(recipe):
            faults.append(
                RequestError(
                    f"`{technique.name}` makes a teacher, and stands after a stage that makes a model smaller",
                    where=where,
                    hint="put it first; `distill` without `layers` trains a small model on",
                )
            )
        fits = kind in technique.takes if technique.takes else kind is None
        if not fits:
            faults.append(_misfit(technique, kind, where))
        for engine in sorted(technique.extras()):
            _require(engine, where, faults)
        needs = technique.needs()
        if recipe.data is None and needs & {"train", "dev"}:
            faults.append(
                RequestError(
                    f"`{technique.name}` needs texts, and the recipe names none",
                    where=where,
                    hint="add `data:` (or `--data`): a file, a folder, a hub name or `builtin:pydoc`",
                )
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
        except RequestError as error:
            faults.append(_placed(fitting.advised(error, technique), recipe, stage.path, where))
        kind = technique.gives
        made = form if kind == "artifact" else None
        planned.append(PlannedStage(f"{number:02d}-{technique.name}", technique, where, promise, made))
    return planned


def _placed(error: RequestError, recipe: Recipe, path: tuple[str | int, ...], where: str) -> RequestError:
    """Point a technique's complaint at the setting it names."""
    for word in error.what.split("`")[1::2]:
        name = word.partition(":")[0]
        if (*path, name) in recipe.source.places:
            where = recipe.place(*path, name)
            break
    error.where = error.where or where
    return error


def _comparable(
    name: str, beside: Facts | Card, first: Facts | Card, where: str, faults: list[BertshrinkError]
) -> None:
    """Prove that a model can be judged on the first model's texts."""
    if beside.task != first.task:
        faults.append(
            RequestError(
                f"`{name}` is for `{beside.task}`, the first model for `{first.task}`",
                where=where,
                hint="compare models of one task, or leave out `data` and compare only size and speed",
            )
        )
    elif first.labels and TASKS[first.task].has_labels:
        try:
            match_classes(beside.labels, first.labels, name)
        except RequestError as error:
            error.where = where
            faults.append(error)


def _misfit(technique: Technique, kind: Kind | None, where: str) -> RequestError:
    if not technique.takes:
        hint = "leave `model` out and put it first; `finetune --task mlm` trains a model on"
        return RequestError(f"`{technique.name}` starts from nothing, and a model is there", where=where, hint=hint)
    assert kind is not None
    wanted = technique.takes[0]
    makers = [name for name, other in TECHNIQUES.items() if kind in other.takes and other.gives == wanted]
    hint = f"put `{makers[0]}` before it" if makers else f"move it to where the model is still an {wanted}"
    article = {"encoder": "an encoder", "artifact": "an artifact"}
    return RequestError(
        f"`{technique.name}` takes {article[wanted]}, and gets {article[kind]} here", where=where, hint=hint
    )


def _data(recipe: Recipe, faults: list[BertshrinkError]) -> None:
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
    except RequestError as error:
        error.where = error.where or recipe.place("data")
        faults.append(error)
