"""First limits from today's figures: a new `bertshrink.toml`, or one artifact more in the limits that are there."""

from __future__ import annotations

import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import KeyType, SingleKey, Table

from bertshrink.errors import UserError
from bertshrink.gates.baseline.newness import room_above
from bertshrink.gates.figures.figure import Reading
from bertshrink.gates.limits.config import TABLES
from bertshrink.gates.limits.metric_key import MetricKey


def first_config(artifact: Path, report: Path | None, readings: dict[MetricKey, Reading]) -> str:
    """Limits that today's artifact holds, as the text of `bertshrink.toml`."""
    return _limits("[gate]", "artifact", artifact, report, readings)


def with_artifact(
    text: str, name: str, artifact: Path, report: Path | None, readings: dict[MetricKey, Reading], origin: str
) -> str:
    """The text of a configuration with limits for one artifact more; every other line of it stays as it is.

    Where it is about one artifact, that one and its limits become a table of their own: they would hold for the new one
    too.

    Args:
        artifact: relative to its folder.

    Raises:
        UserError: its tables are written in a way that takes no other beside them.
    """
    path = TABLES.get(name, TABLES["bertshrink.toml"])
    kept = _as_several(text, path, origin)
    header = f"[{'.'.join((*path, 'artifacts', json.dumps(artifact.as_posix(), ensure_ascii=False)))}]"
    added = f"{kept.rstrip()}\n\n{_limits(header, 'path', artifact, report, readings)}"
    try:
        tomllib.loads(added)
    except tomllib.TOMLDecodeError:
        raise _refused(origin) from None
    return added


def _as_several(text: str, path: tuple[str, ...], origin: str) -> str:
    """The text with its one artifact as the first of several; itself where it has several already."""
    document = tomlkit.parse(text)
    table: Any = document
    for part in path:
        table = table[part]
    if "artifact" not in table:
        return text
    if not isinstance(table, Table):
        raise _refused(origin)
    name = str(table["artifact"])
    own, stays = tomlkit.table(), {"baseline", "base", "removed", "anchor", "latency"}
    if "anchor" in table:
        stays.add("severity")
        if "severity" in table:
            own.add("severity", table["severity"])
    body: list[tuple[Any, Any]] = table.value.body
    for key, item in list(body):
        if key is None:
            own.add(item)
        elif key.key not in stays:
            own.append("path" if key.key == "artifact" else key, item)
    for each in [each for each in table if each not in stays]:
        table.remove(each)
    body[:] = [(key, item) for key, item in body if key is not None]
    at = next((at for at, (_, item) in enumerate(body) if isinstance(item, Table)), len(body))
    body.insert(at, (None, tomlkit.nl()))
    several = tomlkit.table(is_super_table=True)
    several.append(tomlkit.key(name) if re.fullmatch(r"[\w-]+", name) else SingleKey(name, KeyType.Basic), own)
    table.append("artifacts", several)
    return tomlkit.dumps(document)


def _refused(origin: str) -> UserError:
    hint = "write the limits as tables that follow each other: `[gate]`, `[gate.anchor]`, `[gate.artifacts.NAME]`"
    return UserError("the file's layout does not allow adding limits", where=origin, hint=hint)


def _limits(header: str, key: str, artifact: Path, report: Path | None, readings: dict[MetricKey, Reading]) -> str:
    lines = [header, f"{key} = {json.dumps(artifact.as_posix(), ensure_ascii=False)}"]
    if report is not None:
        lines.append(f"report = {json.dumps(report.as_posix())}")
    lines += ["", "# limits of the figures, and of how much they may grow in one change"]
    lines.append(f'size = "<= {room_above(readings[MetricKey("size")].value, "B")}"')
    lines.append('size_growth = "<= 0.5%"')
    if MetricKey("operators") in readings:
        lines.append('new_operators = "<= 0"')
    headline = next((key for key in readings if key.gauge.source == "quality"), None)
    if headline is not None:
        value = readings[headline].value
        is_lower = headline.gauge.better == "lower"
        floor = math.ceil(value * 101) / 100 if is_lower else math.floor((value - 0.01) * 1000) / 1000
        sign, change = ("<=", "growth") if is_lower else (">=", "drop")
        lines.append(f'{headline} = "{sign} {max(0.0, floor):g}"')
        lines.append(f'{headline}_{change} = "{"<= 1%" if is_lower else "<= 0.5 pt"}"')
    if MetricKey("memory") in readings:
        lines.append('memory_growth = "<= 5%"')
    lines += [f'"{key} growth" = "<= 1%"' for key in readings if key.metric == "instructions"]
    lines += ["", "# timed against another artifact with --base-artifact; a warning only, since machines are noisy"]
    lines.append('"cpu p50 ratio" = { limit = "<= 1.10", severity = "warn" }')
    return "\n".join(lines) + "\n"
