"""The entries of a configuration that are limits, each with its place; every fault of them at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bertshrink.config.located_yaml import LocatedConfig
from bertshrink.errors import UserError, did_you_mean
from bertshrink.gates.limits.limits import Rule, Severity, read_limit
from bertshrink.gates.limits.metric_key import read_key

HINT = 'write them as in `size: "<= 25 MB"`'


def read_rules(values: Any, source: LocatedConfig, path: tuple[str | int, ...], faults: list[UserError]) -> list[Rule]:
    """The limits of a recipe's `gates:`; faults are appended."""
    if not isinstance(values, dict):
        faults.append(UserError(f"`gates` takes limits by name, not `{values}`", where=source.place(path), hint=HINT))
        return []
    return entries(values, source, path, "fail", faults)


def entries(
    values: Mapping[str, Any],
    source: LocatedConfig,
    at: tuple[str | int, ...],
    severity: Severity,
    faults: list[UserError],
    others: tuple[str, ...] = (),
    since: str | None = None,
) -> list[Rule]:
    """The entries that are limits; `others` are keys that may be beside them, for hints."""
    found: dict[Any, Rule] = {}
    for name, value in values.items():
        place = source.place((*at, name))
        own: Any = value.get("severity") if isinstance(value, dict) else None
        text = value.get("limit") if isinstance(value, dict) else value
        try:
            key = read_key(name, others)
        except UserError as error:
            error.where = place
            faults.append(error)
            continue
        if isinstance(value, dict) and (wrong := [k for k in value if k not in ("limit", "severity")]):
            hint = did_you_mean(str(wrong[0]), ("limit", "severity"))
            faults.append(UserError(f"a limit has no setting `{wrong[0]}`", where=place, hint=hint))
            continue
        if not isinstance(text, str):
            faults.append(UserError(f"`{name}` is `{text}`, which is not a limit", where=place, hint=_quoted(text)))
            continue
        try:
            limit = read_limit(text, key)
        except UserError as error:
            faults.append(UserError(f"`{name}`: {error.what}", where=place, hint=error.hint))
            continue
        default: Severity = "warn" if key.gauge.source == "time" else severity
        decided = default if own is None else severity_of(own, source, (*at, name), faults)
        if key in found:
            faults.append(UserError(f"`{name}` repeats an entry above", where=place, hint=found[key].place))
        found[key] = Rule(key, limit, decided, place, since)
    return list(found.values())


def _quoted(value: object) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f'write it as text, with its sign: "<= {value}"' if is_number else HINT


def severity_of(value: Any, source: LocatedConfig, at: tuple[str | int, ...], faults: list[UserError]) -> Severity:
    """`fail` where nothing is said; anything else but `warn` is a fault."""
    if value in (None, "fail"):
        return "fail"
    if value != "warn":
        faults.append(
            UserError(f"`{value}` is not a severity", where=source.place(at), hint="a severity is `fail` or `warn`")
        )
    return "warn"
