"""What was read, in the few lines with which every run begins: rows, columns, labels, and what was left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bertshrink import units
from bertshrink.data.labels.shapes import OneHot, classes_of, is_answers
from bertshrink.model.tasks import TASKS

if TYPE_CHECKING:
    from bertshrink.data.columns.roles import Roles
    from bertshrink.data.texts import Split, TextDataset

_SHOWN = 8
"""Classes or columns that are named before the rest is only counted."""


def data_of(texts: TextDataset) -> dict[str, Any]:
    """The data in a report: name, fingerprint, rows of each side."""
    sides = {"train": len(texts.train), "dev": len(texts.dev)}
    test = {"test": len(texts.test)} if texts.test is not None else {}
    return {"name": texts.name, "fingerprint": texts.fingerprint, **sides, **test}


def account(texts: TextDataset, task: str) -> list[str]:
    """What was read, a line each for the rows, and where there is something to say columns, labels, what is left out.

    Args:
        task: a name in `TASKS`; it decides whether labels are expected.

    Nothing is said of running text, which is not counted before it is read.
    """
    if texts.corpus is not None:
        return []
    sides = [("train", texts.train), ("dev", texts.dev)]
    sides += [("test", texts.test)] if texts.test is not None else []
    lines = {
        "data": f"{', '.join(f'{name} {len(split):,}' for name, split in sides)} rows; evaluated on "
        f"{texts.judged_name}",
        "columns": "; ".join(dict.fromkeys(filter(None, (_columns(split.roles) for _, split in sides)))),
        "labels": _labels(sides, task, texts.judged.labels is not None),
        "left out": "; ".join(_left_out(sides)),
    }
    return [f"{heading}: {line}" for heading, line in lines.items() if line]


def _columns(roles: Roles | None) -> str:
    if roles is None:
        return ""
    used = [f"text `{roles.text}`"] + ([f"pair `{roles.pair}`"] if roles.pair is not None else [])
    used += [f"label {', '.join(f'`{name}`' for name in roles.labels)}"] if roles.labels else []
    if not roles.left_out:
        return ", ".join(used)
    names = [f"`{name}` ({why})" for name, why in roles.left_out.items()]
    rest = [f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return f"{', '.join(used)}; not read: {', '.join([*names[:_SHOWN], *rest])}"


def _labels(sides: Sequence[tuple[str, Split]], task: str, is_judged: bool) -> str:
    own = TASKS.get(task)
    is_wanted = own is not None and own.needs_labels
    told = [f"{name}: {line}" for name, split in sides if (line := _of_side(split))]
    if not told:
        return "unlabelled: quality is agreement with the reference model" if is_wanted else ""
    if not is_judged and is_wanted:
        told.append("unlabelled where models are evaluated: quality is agreement with the reference model")
    return "; ".join(told)


def _of_side(split: Split) -> str:
    """The labels of one side, the frequent ones with their counts."""
    values = [value for value in split.labels or () if value is not None]
    if not values:
        return ""
    missing = len(split) - len(values)
    rest = f", {missing:,} rows without a label" if missing else ""
    if any(map(is_answers, values)) or values == [()] * len(values):
        none = sum(not value for value in values)
        return f"{len(values):,} questions{f', {none:,} of them without an answer' if none else ''}{rest}"
    if all(isinstance(value, float) for value in values):
        return f"scores from {min(values):g} to {max(values):g}{rest}"
    counts = Counter(name for value in values for name in _names(value, split))
    shown = ", ".join(f"{name} {count:,}" for name, count in counts.most_common(_SHOWN))
    more = f", and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else ""
    places = len(values[0]) if isinstance(values[0], OneHot) else 0
    dead = f" ({places - len(counts)} of {places} classes in no row)" if places > len(counts) else ""
    return f"{shown}{more}{dead}{rest}"


def _names(label: Any, split: Split) -> Iterator[str]:
    """The classes of a label, by name where the data names its numbers; of tagged words each tag."""
    names = dict(enumerate(split.label_names))
    own = label if isinstance(label, tuple) and not isinstance(label, OneHot) else classes_of(label)
    yield from (names.get(one, str(one)) for one in own)


def _left_out(sides: Sequence[tuple[str, Split]]) -> Iterator[str]:
    tables = {id(split.roles): split.roles for _, split in sides if split.roles is not None}
    empty = sum(roles.num_empty for roles in tables.values())
    unjudged = sum(roles.num_unjudged for roles in tables.values())
    if empty:
        yield f"{units.counted(empty, 'row')} without text"
    if unjudged:
        yield f"the labels of {unjudged:,} rows that say there is none"
    limited = sum(roles.num_rows - roles.num_empty for roles in tables.values())
    read = sum(len(split) for _, split in sides if split.roles is not None and split.rows is not None)
    if tables and read < limited and all(split.rows is not None for _, split in sides if split.roles is not None):
        yield f"{units.counted(limited - read, 'row')} by `max_train` or `max_dev`"
    train = sides[0][1]
    twice = len(train) - len(set(zip(train.texts, train.pairs or train.texts, strict=True)))
    if twice:
        yield f"none of {units.counted(twice, 'training row')} that repeat another one"
