"""A configuration that asks for code of its own, as the configuration of a stock class; or it is refused, with why.

Nothing is run to tell: which code a repository asks for is what its `auto_map` says, and what that code computes is
what the table says of each of its settings. A setting that the table does not know, a value with which the stock class
would compute something else, two settings that contradict each other: all are refused by name. Whether every weight has
its place is asked afterwards, as of any model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bertshrink.errors import UnsafeModel, listed
from bertshrink.model.families import FAMILIES
from bertshrink.model.families.remote_code import ANY, OTHER_CODE, REMOTE_CODE, RemoteCode

_ONNX = "give an ONNX file of it, which `quantize`, `bench` and `gate` take"


@dataclass(frozen=True)
class StockReading:
    """What a stock class reads of a repository with code of its own.

    Attributes:
        config: its config.json for the stock class.
        remark: what whoever uses the model must know.
    """

    config: dict[str, Any]
    remark: str


def asks_for_code(config: Mapping[str, Any]) -> bool:
    """Whether a config.json names code of its own."""
    return bool(config.get("auto_map"))


def as_stock(config: Mapping[str, Any], where: str) -> StockReading:
    """The configuration of the stock class that computes what a repository's own code does.

    Args:
        config: config.json, with an `auto_map`.
        where: its place, for messages.

    Raises:
        UnsafeModel: no stock class does, or a setting is not known to mean the same there.
    """
    row = _row(config, where)
    for name, values in row.only.items():
        if values != ANY and not any(_same(config.get(name), value) for value in values):
            allowed = listed([f"`{_shown(value)}`" for value in values if value is not None], 5) or "nothing"
            raise UnsafeModel(
                f"`{name}: {_shown(config.get(name))}` in config.json: the stock class of {_title(row)} computes "
                f"something else; it takes {allowed}",
                where=where,
                hint=f"no stock class serves this model; {_ONNX}",
            )
    _refuse_unknown(row, config, where)
    _refuse_missing(row, config, where)
    stock = {name: config[name] for name in config if name in row.passed_on and name not in row.only}
    _put(stock, {new: config[old] for old, new in row.renamed.items() if old in config}, row, where)
    try:
        derived = row.derived(config)
    except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError) as error:
        what = str(error) if isinstance(error, ValueError) else "its settings of positions or sizes"
        raise UnsafeModel(
            f"{what} in config.json: that is not known to be what the stock class of {_title(row)} computes",
            where=where,
            hint="fix the value, or download the model again",
        ) from None
    _put(stock, {name: value for name, value in derived.items() if name not in row.replaced}, row, where)
    stock |= {name: value for name, value in derived.items() if name in row.replaced}
    stock |= {"model_type": row.family, "architectures": _architectures(row, config, where)}
    remark = (
        f"read by the stock class of {_title(row)}: its own code (`auto_map`: `{_code(config)}`), which the repository "
        "asks to run, was not run"
    )
    return StockReading(stock, remark)


def _row(config: Mapping[str, Any], where: str) -> RemoteCode:
    """The row of the code that is asked for. Raises UnsafeModel: there is none."""
    asked = config.get("auto_map")
    named = list(asked.values()) if isinstance(asked, Mapping) else [asked]
    for row in REMOTE_CODE:
        if row.model_type == config.get("model_type") and all(row.has(one) for one in named):
            return row
    for one in named:
        path = str(one).rpartition("--")[2]
        if path in OTHER_CODE:
            why, hint = OTHER_CODE[path]
            raise UnsafeModel(
                f"the checkpoint asks to run its own code (`auto_map`: `{one}`), which bertshrink never does: {why}",
                where=where,
                hint=hint,
            )
    known = listed([f"{_title(row)} (`{row.model_type}`)" for row in REMOTE_CODE], len(REMOTE_CODE))
    raise UnsafeModel(
        f"the checkpoint asks to run its own code (`auto_map`: `{_code(config)}`, `model_type: "
        f"{config.get('model_type')}`), which bertshrink never does, and no stock class is known to compute the same",
        where=where,
        hint=f"code that stock classes stand in for is that of {known}; if the model is of a stock family, delete "
        "`auto_map` from the file and load it as that family",
    )


def _code(config: Mapping[str, Any]) -> str:
    """The class that is asked for first of all."""
    asked = config.get("auto_map")
    if not isinstance(asked, Mapping):
        return str(asked)[:120]
    models = [value for key, value in asked.items() if key != "AutoConfig"]
    return str(asked.get("AutoModel", models[0] if models else asked))[:120]


def _refuse_unknown(row: RemoteCode, config: Mapping[str, Any], where: str) -> None:
    known = row.passed_on | row.silent | set(row.only) | set(row.renamed)
    names = [f"`{name}: {_shown(value)}`" for name, value in config.items() if name not in known]
    if names:
        raise UnsafeModel(
            f"config.json sets {listed(names)}, of which it is not known what the code of {_title(row)} makes of it: "
            "the stock class may compute something else",
            where=where,
            hint="delete what changes no answer, in a copy of the model's folder",
        )


def _refuse_missing(row: RemoteCode, config: Mapping[str, Any], where: str) -> None:
    needed = {name: row.renamed.get(name, name) for name in row.required}
    names = [f"`{old}`" for old, new in needed.items() if config.get(old, config.get(new)) is None]
    if names:
        raise UnsafeModel(
            f"config.json leaves out {listed(names)}, whose default in the code that it asks for is not the stock "
            "class's",
            where=where,
            hint="write the value into it; if the stock class saved the model, delete `auto_map`",
        )


def _put(stock: dict[str, Any], values: Mapping[str, Any], row: RemoteCode, where: str) -> None:
    """Add settings under their stock names. Raises UnsafeModel: the file sets that name too, to another value."""
    for name, value in values.items():
        if name in stock and stock[name] is not None and not _same(stock[name], value) and name not in row.only:
            old = next((f"`{old}` is {_shown(value)}" for old, new in row.renamed.items() if new == name), None)
            raise UnsafeModel(
                f"config.json says `{name}: {_shown(stock[name])}`, and by its other settings it is "
                f"{_shown(value)}" + (f" ({old})" if old else ""),
                where=where,
                hint="keep the one that the weights were made with",
            )
        stock[name] = value


def _architectures(row: RemoteCode, config: Mapping[str, Any], where: str) -> list[str]:
    """The stock classes of those that the file names."""
    names = config.get("architectures") or [f"{row.prefix}Model"]
    kinds = [row.kind_of(str(name)) for name in names] if isinstance(names, list) else [None]
    if None in kinds:
        raise UnsafeModel(
            f"config.json names the class `{listed(list(map(str, names)))}`, which is not of the code that it asks for",
            where=where,
            hint="name the class that the weights were saved from, in `architectures`",
        )
    return [f"{row.stock}{str(kind).replace('ForPreTraining', 'ForMaskedLM')}" for kind in kinds]


def _title(row: RemoteCode) -> str:
    return FAMILIES[row.family].title


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:40]}..."
