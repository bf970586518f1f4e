"""Every command as a function: the same short recipe, run by the same loop, its result returned.

A command that makes a model becomes a function by its row in `COMMANDS`; what can be set is what its techniques'
fields say. Errors are exceptions with what, where and how to fix it (`bertshrink.errors`).
"""

from __future__ import annotations

import inspect as introspection
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertshrink.api.inputs import data_settings, model_name
from bertshrink.api.result import Result
from bertshrink.command_scope import command_scope
from bertshrink.data.settings import DataSettings
from bertshrink.errors import UserError, did_you_mean
from bertshrink.progress import Progress, Silent
from bertshrink.recipe.command_table import COMMANDS, Command
from bertshrink.recipe.from_command_line import recipe_of_bench, recipe_of_command
from bertshrink.training.distributed.ranks import is_main

if TYPE_CHECKING:
    from bertshrink.gates.verdict import Judgement
    from bertshrink.recipe.recipe import Recipe

_WHERE = ("path", "train", "dev", "test", "unlabelled")
_ABOUT_TEXTS = tuple(name for name in DataSettings.model_fields if name not in _WHERE)
"""Settings of `data:` beside where it is: arguments of every function that takes data."""


@command_scope()
def run(
    recipe: str | Path | Mapping[str, Any],
    *,
    model: Any = None,
    reference: str | Path | None = None,
    data: Any = None,
    dimensions: Sequence[int] | None = None,
    output: str | Path | None = None,
    seed: int | None = None,
    measure: bool = True,
    force: bool = False,
    runs: str | Path = "runs",
    progress: bool = True,
    **about_texts: Any,
) -> Result:
    """Run a recipe.

    Args:
        recipe: a file, the name of one that ships, or its keys as a dictionary.
        model: in place of the recipe's.
        reference: in place of the recipe's.
        data: in place of the recipe's.
        dimensions: in place of those of the recipe's `measure`.
        output: where the last model is written; None: it stays in the run folder.
        seed: in place of the recipe's.
        measure: whether time and memory are measured where the recipe asks for it.
        force: whether to replace a model that bertshrink wrote at `output`.
        runs: directory for run folders.
        progress: whether to show the progress of long work.
        about_texts: settings of `data` beside where it is: `text`, `label`, `max_train` ...

    Raises:
        BertshrinkError: whatever is wrong, or went wrong; finished stages stay.
    """
    from bertshrink.recipe.recipe import read_recipe, recipe_of_values
    from bertshrink.recipe.shipped import find_recipe

    home = Path(runs)
    _refuse_unknown("run", about_texts, _ABOUT_TEXTS)
    overrides = {
        "model": model_name(model, home) if model is not None else None,
        "reference": str(reference) if reference is not None else None,
        "data": data_settings(data, home),
        "seed": seed,
    }
    overrides = {name: value for name, value in overrides.items() if value is not None}
    if isinstance(recipe, Mapping):
        asked = recipe_of_values(recipe, overrides, about_texts, dimensions)
    else:
        asked = read_recipe(find_recipe(str(recipe)), overrides, about_texts, dimensions)
    return _result(asked, output=output, force=force, runs=home, measure=measure, progress=progress)


@command_scope()
def bench(
    models: Any,
    *,
    data: Any = None,
    task: str | None = None,
    reference: str | Path | None = None,
    dimensions: Sequence[int] | None = None,
    seed: int | None = None,
    runs: str | Path = "runs",
    progress: bool = True,
    **settings: Any,
) -> Result:
    """Measure models side by side: latency, memory, size, and how well they agree on texts.

    Args:
        models: one, or several; the first is what the others are compared with.
        data: texts that judge them.
        task: what they are for; None: what the first one says.
        reference: a file of texts and their vectors elsewhere, which the first one must give, too.
        dimensions: to each of which sentence vectors are truncated and evaluated again.
        seed: random seed.
        runs: directory for run folders.
        progress: whether to show the progress of long work.
        settings: of timing, as in a recipe's `measure: latency:` (`batch`, `length`, `rounds`, `target` ...), and of
            `data` beside where it is.

    Raises:
        BertshrinkError: whatever is wrong, or went wrong.
    """
    from bertshrink.meters.latency.settings import LatencySettings

    home = Path(runs)
    latency = tuple(LatencySettings.model_fields)
    _refuse_unknown("bench", settings, (*latency, *_ABOUT_TEXTS))
    several = models if isinstance(models, list | tuple) and not _is_pair(models) else [models]
    timing = {name: value for name, value in settings.items() if name in latency}
    asked = recipe_of_bench(
        [model_name(one, home) for one in several],
        {
            "data": data_settings(data, home),
            "task": task,
            "reference": str(reference) if reference is not None else None,
            "seed": seed,
            "measure": {"latency": timing},
        },
        {name: value for name, value in settings.items() if name in _ABOUT_TEXTS},
        dimensions,
    )
    return _result(asked, output=None, force=False, runs=home, measure=True, progress=progress)


@command_scope()
def inspect(
    model: Any,
    *,
    task: str = "auto",
    reference: str | Path | None = None,
    attention: bool = False,
    data: Any = None,
    base: Any = None,
    output: str | Path | None = None,
    seed: int | None = None,
    runs: str | Path = "runs",
    progress: bool = True,
    **about_texts: Any,
) -> dict[str, Any]:
    """What a model is made of and what could shrink, from its headers alone; or what its heads do.

    Args:
        model: a name, a folder, or a model in memory.
        task: what it is for; `auto`: what it says.
        reference: a file of texts and their vectors elsewhere, which it must give, too; it is loaded then.
        attention: whether its heads are looked at instead, and disabled, on texts; it is loaded then.
        data: those texts.
        base: what it was fine-tuned from, to compare maps with.
        output: file of a page on its heads; None: there is none.
        seed: random seed, of orders in which heads are removed.
        runs: where a model in memory is written.
        progress: whether to show the progress of long work.
        about_texts: settings of `data` beside where it is: `max_dev` (of heads: 1000), `max_length`, `label` ...

    Returns:
        JSON values; of heads those of `AttentionReport`.

    Raises:
        BertshrinkError: no such model, an unknown family, a refused file, texts that it cannot be judged by.
    """
    from bertshrink.cli.inspect import attention_of, facts_of, refuse_place, write_page

    home = Path(runs)
    _refuse_unknown("inspect", about_texts, _ABOUT_TEXTS)
    vectors = str(reference) if reference is not None else None
    if not attention:
        only = {"data": data, "base": base, "output": output, "seed": seed} | about_texts
        for name in (name for name, value in only.items() if value is not None):
            raise UserError(f"`{name}` belongs to heads", where=name, hint="add `attention=True`, or leave it out")
        return facts_of(model_name(model, home), task, vectors)
    if reference is not None:
        raise UserError("`attention` and `reference` are two questions", where="reference", hint="leave out one")
    page = Path(output) if output is not None else None
    if page is not None:
        refuse_place(page)
    report = attention_of(
        model_name(model, home),
        {"data": data_settings(data, home), "task": task, "seed": seed},
        about_texts,
        base=model_name(base, home) if base is not None else None,
        progress=_progress(progress),
    )
    if page is not None:
        write_page(page, report)
    return report.model_dump(mode="json", by_alias=True)


@command_scope()
def gate(
    artifact: str | Path | None = None,
    *,
    report: str | Path | None = None,
    base_artifact: str | Path | None = None,
    base: str | None = None,
    config: str | Path | None = None,
    files_only: bool = False,
    strict: bool = False,
    progress: bool = True,
) -> Judgement:
    """Judge artifacts by committed limits and a committed baseline.

    Args:
        artifact: one of several, by its name; or a file or folder instead of the only one that is named.
        report: a run's report.json, for quality, memory and instructions.
        base_artifact: what the artifact is timed against, in turn, on this machine.
        base: the branch or commit that the change is for; None: what CI or git says.
        config: where the limits are; None: bertshrink.toml or pyproject.toml, from here upwards.
        files_only: check only rules that need no report.
        strict: treat inconclusive results as failures.
        progress: whether to show the progress of long work.

    Returns:
        the judgement: `exit_code`, `findings`.

    Raises:
        BertshrinkError: it cannot be judged.
    """
    from bertshrink.gates.checkout import judge_checkout
    from bertshrink.pipeline.requirements import require_ml

    if base_artifact is not None:
        require_ml()
    places = (Path(place) if place is not None else None for place in (artifact, report, base_artifact, config))
    one, its_report, other, limits = places
    judgement, _ = judge_checkout(
        _progress(progress),
        artifact=one,
        report=its_report,
        base_artifact=other,
        base=base,
        config=limits,
        files_only=files_only,
        strict=strict,
    )
    return judgement


def _function(command: Command) -> Callable[..., Result]:
    """A command that makes a model as a function."""
    fields = command.fields
    from_nothing = not command.techniques[0].takes

    @command_scope()
    def call(*args: Any, **given: Any) -> Result:
        _refuse_unknown(command.name, given, tuple(signature.parameters))
        try:
            bound = signature.bind(*args, **given)
        except TypeError as error:
            raise TypeError(f"{command.name}(): {error}") from None
        bound.apply_defaults()
        values = dict(bound.arguments)
        home = Path(values["runs"])
        model = None if from_nothing else model_name(values["model"], home)
        asked = recipe_of_command(
            command.name,
            model,
            {name: values[name] for name in fields},
            {
                "data": data_settings(values["data"], home),
                "task": values["task"],
                "reference": str(values["reference"]) if values.get("reference") is not None else None,
                "seed": values["seed"],
            },
            {name: values[name] for name in _ABOUT_TEXTS},
            dimensions=values["dimensions"],
            name_of=str,
        )
        output = values["output"]
        return _result(
            asked,
            output=output,
            force=values["force"],
            runs=home,
            measure=values["measure"],
            progress=values["progress"],
        )

    kinds = introspection.Parameter
    parameters = [] if from_nothing else [kinds("model", kinds.POSITIONAL_OR_KEYWORD)]
    defaults = {
        "data": None,
        "output": None,
        **dict.fromkeys(fields),
        **{name: None for name in _ABOUT_TEXTS if name not in fields},
        "task": None,
        **({} if from_nothing else {"reference": None}),
        "seed": None,
        "dimensions": None,
        "measure": False,
        "force": False,
        "runs": "runs",
        "progress": True,
    }
    parameters += [kinds(name, kinds.KEYWORD_ONLY, default=value) for name, value in defaults.items()]
    signature = introspection.Signature(parameters, return_annotation="Result")
    call.__name__ = call.__qualname__ = command.name
    call.__doc__ = _doc(command, fields, from_nothing)
    call.__signature__ = signature  # type: ignore[attr-defined]
    return call


def _doc(command: Command, fields: Mapping[str, Any], from_nothing: bool) -> str:
    lines = [command.help, "", "Args:"]
    vectors = "    reference: a file of texts and their vectors elsewhere, which the model must give, too."
    if not from_nothing:
        lines.append("    model: a name, a folder, or a model in memory (transformers, sentence-transformers).")
    lines += [
        "    data: a name, a path, a datasets.Dataset or DatasetDict, a DataFrame, or a list of (text, label).",
        "    output: where the model is written; None: it stays in the run folder.",
        *(f"    {name}: {field.description}" for name, field in fields.items()),
        *(f"    {name}: {DataSettings.model_fields[name].description}" for name in _ABOUT_TEXTS if name not in fields),
        "    task: what the model is for; None: what it, or the data, says.",
        *([] if from_nothing else [vectors]),
        "    seed: random seed.",
        "    dimensions: to each of which sentence vectors are truncated and evaluated again (Matryoshka models).",
        "    measure: whether time and memory of all models are measured, too.",
        "    force: whether to replace a model that bertshrink wrote at `output`.",
        "    runs: directory for run folders.",
        "    progress: whether to show the progress of long work.",
        "",
        "Raises:",
        "    BertshrinkError: whatever is wrong, or went wrong; finished stages stay.",
    ]
    return "\n".join(lines)


def _is_pair(models: Sequence[Any]) -> bool:
    """Whether two things are one model with its tokenizer."""
    return len(models) == 2 and hasattr(models[1], "save_pretrained") and not hasattr(models[1], "parameters")


def _refuse_unknown(function: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise UserError(f"`{function}` has no argument `{name}`", where=name, hint=did_you_mean(name, known))


def _progress(is_shown: bool) -> Progress:
    if not is_shown or not is_main():
        return Silent()
    from bertshrink.cli.progress import make_progress

    return make_progress(quiet=False)


def _result(
    asked: Recipe, *, output: str | Path | None, force: bool, runs: Path, measure: bool, progress: bool
) -> Result:
    from bertshrink.pipeline.execute import execute

    shown = _progress(progress)
    outcome = execute(
        asked,
        shown,
        output=Path(output) if output is not None else None,
        force=force,
        runs=runs,
        command=f"bertshrink, from Python: {asked.name}",
        with_latency=measure,
        tell=shown.log,
    )
    if outcome is None:
        raise UserError("only the first process has a result", hint="ask `is_main()`")
    return Result(outcome.model, outcome.report, outcome.folder, outcome.judgement, outcome.margin)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: _function(command) for name, command in COMMANDS.items()},
    "bench": bench,
    "gate": gate,
    "inspect": inspect,
    "run": run,
}
"""What `import bertshrink` offers, by name."""
