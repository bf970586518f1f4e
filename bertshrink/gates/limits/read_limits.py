"""The entries of a configuration that are limits, each with its place; every fault of them at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bertshrink.config.checker import Checker
from bertshrink.errors import UserError, did_you_mean
from bertshrink.gates.limits.limit import Rule, Severity, read_limit
from bertshrink.gates.limits.metric_key import read_key

HINT = 'write them as in `size: "<= 25 MB"`'


def read_rules(values: Any, check: Checker) -> list[Rule]:
    """The limits of a recipe's `gates:`."""
    if not isinstance(values, dict):
        check.error(f"`gates` takes limits by name, not `{values}`", HINT)
        return []
    return entries(values, check, "fail")


def entries(
    values: Mapping[str, Any],
    check: Checker,
    severity: Severity,
    others: tuple[str, ...] = (),
    since: str | None = None,
) -> list[Rule]:
    """The entries that are limits; `others` are keys that may be beside them, for hints."""
    rules: dict[Any, Rule] = {}
    for name, value in values.items():
        here = check.at(name)
        own: Any = value.get("severity") if isinstance(value, dict) else None
        text = value.get("limit") if isinstance(value, dict) else value
        try:
            key = read_key(name, others)
        except UserError as error:
            here.add(error)
            continue
        if isinstance(value, dict) and (wrong := [k for k in value if k not in ("limit", "severity")]):
            hint = did_you_mean(str(wrong[0]), ("limit", "severity"))
            here.error(f"a limit has no setting `{wrong[0]}`", hint)
            continue
        if not isinstance(text, str):
            here.error(f"`{name}` is `{text}`, which is not a limit", _quoted(text))
            continue
        try:
            limit = read_limit(text, key)
        except UserError as error:
            here.error(f"`{name}`: {error.what}", error.hint)
            continue
        default: Severity = "warn" if key.gauge.source == "time" else severity
        decided = default if own is None else severity_of(own, here)
        if key in rules:
            here.error(f"`{name}` repeats an entry above", rules[key].place)
        rules[key] = Rule(key, limit, decided, here.place, since)
    return list(rules.values())


def _quoted(value: object) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f'write it as text, with its sign: "<= {value}"' if is_number else HINT


def severity_of(value: Any, check: Checker) -> Severity:
    """`fail` where nothing is said; anything else but `warn` is a fault."""
    if value in (None, "fail"):
        return "fail"
    if value != "warn":
        check.error(f"`{value}` is not a severity", "a severity is `fail` or `warn`")
    return "warn"
