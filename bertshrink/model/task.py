"""The table of tasks: which model class, which output, which metrics, what labels must be.

What a task costs in training (its loss) stands with the technique that trains; what it is worth (its metrics) stands in
`meters.quality`. This table holds what both must agree on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bertshrink.errors import RequestError


@dataclass(frozen=True)
class Task:
    """One thing that an encoder is used for.

    Attributes:
        name: as recipes write it.
        auto_class: the transformers class that loads it.
        suffixes: endings of `architectures` in config.json that mean this task.
        output: the name of the array that its sessions give (see `engines`).
        headline: the metric that stands for quality where only one fits.

    """

    name: str
    auto_class: str
    suffixes: tuple[str, ...]
    output: str
    headline: str


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "classification",
            "AutoModelForSequenceClassification",
            ("ForSequenceClassification",),
            "logits",
            headline="accuracy",
        ),
        Task("embedding", "AutoModel", ("Model",), "sentence_embedding", headline="spearman"),
        Task(
            "mlm",
            "AutoModelForMaskedLM",
            ("ForMaskedLM", "ForPreTraining"),
            "logits",
            headline="masked_accuracy",
        ),
    )
}


def guess_task(config: Mapping[str, Any], *, is_sentence_transformer: bool, where: str) -> str:
    """The task that a checkpoint was saved for.

    Raises:
        RequestError: its class is for a task outside the table, or it names no class.

    """
    if is_sentence_transformer:
        return "embedding"
    names = config.get("architectures") or []
    for name in names:
        for task in TASKS.values():
            if str(name).endswith(task.suffixes):
                return task.name
    raise RequestError(
        f"the checkpoint's class, `{', '.join(map(str, names)) or 'not named'}`, is for no task that bertshrink knows",
        where=where,
        hint=f"known tasks: {', '.join(TASKS)}; say which with `task:` in the recipe or `--task`",
    )


def check_classification(config: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The label names of a single-label classifier, in the order of its logits.

    Raises:
        RequestError: it is a regressor or a multi-label classifier, or its label map is not 0..C-1.

    """
    labels = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    problem = config.get("problem_type")
    hint = "save it again as a classifier whose `id2label` numbers its classes 0, 1, ..."
    if not isinstance(labels, Mapping):
        raise RequestError("`id2label` of the model's config.json is no mapping", where=where, hint=hint)
    if len(labels) < 2 or problem in ("regression", "multi_label_classification"):
        kind = problem or "regression"
        raise RequestError(
            f"the model is for `{kind}`; bertshrink handles single-label classification with two classes or more",
            where=where,
            hint="choose a classifier, or say what the model is for with `task:` or `--task`",
        )
    try:
        by_id = {int(key): str(name) for key, name in labels.items()}
        return tuple(by_id[i] for i in range(len(by_id)))
    except (ValueError, KeyError):
        raise RequestError(
            "`id2label` of the model's config.json does not number its labels from 0", where=where, hint=hint
        ) from None


def map_labels(values: Sequence[Any], labels: Sequence[str], where: str, value_names: Sequence[str] = ()) -> list[int]:
    """Turn the labels of a data set into the teacher's class numbers.

    Args:
        values: one label a row, names or numbers.
        labels: the teacher's class names in the order of its logits.
        where: the data, for messages.
        value_names: what the data calls its numbers, where it knows (a hub data set's ClassLabel).

    A value matches by name (any case), or by number when every value is a whole number in 0..C-1.

    Raises:
        RequestError: values that the teacher does not have; the message names both sides.
    """
    by_name = {name.casefold(): i for i, name in enumerate(labels)}
    if value_names and {name.casefold() for name in value_names} <= set(by_name):
        # A hub data set writes -1 where a row has no label.
        known = range(len(value_names))
        values = [value_names[value] if value in known else f"{value} (no label)" for value in values]
    texts = [str(value).strip() for value in values]
    if all(text.casefold() in by_name for text in texts):
        return [by_name[text.casefold()] for text in texts]
    numbers = {str(i): i for i in range(len(labels))}
    if all(text in numbers for text in texts):
        return [numbers[text] for text in texts]
    seen = sorted(set(texts))
    strange = [text for text in seen if text.casefold() not in by_name and text not in numbers] or seen
    raise RequestError(
        f"the data's labels do not match the teacher's: `{'`, `'.join(strange[:5])}` in the data, "
        f"`{'`, `'.join(labels[:10])}` in the teacher",
        where=where,
        hint=f"name the label column with `label:` under `data:`, or use the teacher's names or 0..{len(labels) - 1}",
    )


def match_classes(labels: Sequence[str], reference: Sequence[str], name: str) -> list[int]:
    """Where each class of the reference stands among a model's own: the order that makes their logits comparable.

    Args:
        labels: the model's class names, in the order of its logits.
        reference: the reference's.
        name: the model, for messages.

    Names match in any case. Names that say nothing (`LABEL_0`) stand for the classes in their order.

    Raises:
        RequestError: the classes are others.
    """
    own, wanted = [label.casefold() for label in labels], [label.casefold() for label in reference]
    if len(set(own)) == len(own) and sorted(own) == sorted(wanted):
        return [own.index(label) for label in wanted]
    unnamed = [f"label_{i}" for i in range(len(wanted))]
    if len(own) == len(wanted) and (own == wanted or unnamed in (own, wanted)):
        return list(range(len(wanted)))
    raise RequestError(
        f"`{name}` has the classes `{'`, `'.join(labels[:10])}`, the first model `{'`, `'.join(reference[:10])}`",
        hint="compare models of the same classes, or leave out `data` and compare only size and speed",
    )
