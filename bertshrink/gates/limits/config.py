"""What a team has committed to: limits with their places, from TOML or from a recipe.

    [tool.bertshrink.gate]                     # pyproject.toml; in bertshrink.toml it is [gate]
    artifact = "dist/model"                    # a folder that bertshrink wrote, or a file
    report = "runs/model/report.json"          # quality, memory, instructions; `--report` says otherwise
    size = "<= 25 MB"
    size_growth = "<= 0.5%"
    accuracy_drop = { limit = "<= 0.5 pt", severity = "warn" }

    [tool.bertshrink.gate.anchor]              # stops slow drift: judged against the lock of a tag
    ref = "v1.0.0"
    size_growth = "<= 3%"

    [tool.bertshrink.gate.artifacts.tagger]    # several artifacts; the rules above hold for each of them
    path = "dist/tagger"
    renamed_from = "dist/ner"                  # what the base's lock calls it
    size = "<= 12 MB"

A key that is not known is an error with the nearest name: a limit that is misspelt limits nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertshrink.config.build_settings import fill
from bertshrink.config.checker import Checker, LocatedConfig
from bertshrink.config.located_toml import places_of
from bertshrink.config.located_yaml import read_yaml
from bertshrink.errors import UserError
from bertshrink.files.bounded_text import Reader
from bertshrink.gates.limits.limit import Rule, Severity
from bertshrink.gates.limits.read_limits import HINT, entries, severity_of
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.report.metrics import METRICS

LOCK = "bertshrink.lock.json"
TABLES: dict[str, tuple[str, ...]] = {"bertshrink.toml": ("gate",), "pyproject.toml": ("tool", "bertshrink", "gate")}
"""The files that are looked for, and the table of each that is meant."""

_LIMITS = Reader(
    UserError, "the limits cannot be read", "fix the file, or name another with `--config`", most_bytes=1_000_000
)
_TEXTS = {
    "artifact": "the model that is judged: a folder or a file",
    "report": "a report of it, for what its file does not show",
    "baseline": f"the lock file; `{LOCK}` if left out",
    "base": "the git branch or commit that a change is compared with",
    "severity": "of rules that say nothing else: fail or warn",
    "renamed_from": "what the lock of the base calls this artifact, or where it lay",
}
_OF_ARTIFACT = {
    "path": _TEXTS["artifact"],
    "report": _TEXTS["report"],
    "severity": _TEXTS["severity"],
    "renamed_from": _TEXTS["renamed_from"],
}
_TABLES = ("artifacts", "anchor", "latency", "removed")

MIN_ROUNDS = 5
"""Of timing: fewer leave an interval that proves nothing. With three, Student's factor is 4.3."""


@dataclass(frozen=True)
class Gated:
    """One artifact with the rules that it must hold.

    Attributes:
        name: what it is called in the lock.
        path: as written, relative to the configuration's folder.
        report: likewise; None: there is none.
        renamed_from: its name in the base's lock, where this change renames it.
    """

    name: str
    path: Path
    report: Path | None
    rules: tuple[Rule, ...]
    place: str
    renamed_from: str | None = None


@dataclass(frozen=True)
class Config:
    """A checked configuration; paths are relative to `folder`; `removed` are artifacts that a change takes out."""

    folder: Path
    origin: str
    gated: tuple[Gated, ...]
    rules: tuple[Rule, ...] = ()
    lock: Path = Path(LOCK)
    base: str | None = None
    latency: LatencySettings = field(default_factory=lambda: LatencySettings(batch=(1,), length=(64,), rounds=10))
    removed: tuple[str, ...] = ()


def find_config(folder: Path) -> tuple[Path, tuple[str, ...]] | None:
    """The nearest file, from `folder` upwards, that has a table of limits, and the table's path.

    Raises:
        UserError: two files of one folder have one, or one is not TOML.
    """
    for parent in (folder, *folder.parents):
        tables = [
            (parent / name, table)
            for name, table in TABLES.items()
            if (parent / name).is_file() and _at(_toml(parent / name)[1], table) is not None
        ]
        if len(tables) > 1:
            raise UserError(
                "two files contain limits", where=f"{tables[0][0]}, {tables[1][0]}", hint="keep them in one of the two"
            )
        if tables:
            return tables[0]
        if (parent / ".git").exists():
            return None
    return None


def limits_of(text: str, name: str) -> Any:
    """The table of limits in a file's text, as plain values, for comparison; None where there is none."""
    try:
        if Path(name).suffix in (".yaml", ".yml"):
            return read_yaml(text, name).values.get("gates")
        table = TABLES.get(name, TABLES["bertshrink.toml"])
        return _at(_LIMITS.toml(text, name, table), table)
    except UserError:
        return None


def artifacts_of(limits: Any) -> dict[str, str]:
    """The artifacts that a table of limits names, with their paths as written; nothing where it is none."""
    if not isinstance(limits, dict):
        return {}
    several, single = limits.get("artifacts"), limits.get("artifact")
    paths = {single: single} if isinstance(single, str) else {}
    for name, body in several.items() if isinstance(several, dict) else ():
        path = body.get("path") if isinstance(body, dict) else None
        paths[name] = path if isinstance(path, str) else name
    return paths


def others_in_lock(config: Config) -> set[str]:
    """The names that other configurations beside this one keep in the same lock."""
    lock, own, names = (config.folder / config.lock).resolve(), Path(config.origin).resolve(), set()
    for file in config.folder.glob("*.toml"):
        try:
            limits = limits_of(_LIMITS.read_text(file), file.name) if file.resolve() != own else None
        except UserError:
            continue
        baseline = limits.get("baseline", LOCK) if isinstance(limits, dict) else None
        if isinstance(baseline, str) and (config.folder / baseline).resolve() == lock:
            names |= set(artifacts_of(limits))
    return names


def read_config(path: Path, artifact: Path | None = None) -> Config:
    """Read the limits of one file: TOML, or a recipe's `gates:`.

    Args:
        artifact: replaces the one that the file names.

    Raises:
        UserError: no such file, no table of limits, or something wrong with it: all faults at once.
    """
    if path.suffix in (".yaml", ".yml"):
        source = read_yaml(_LIMITS.read_text(path), str(path))
        table: tuple[str, ...] = ("gates",)
    else:
        text, values = _toml(path)
        table = TABLES.get(path.name, TABLES["bertshrink.toml"])
        source = LocatedConfig(str(path), values, places_of(text, str(path)))
    limits = _at(source.values, table)
    if limits is None:
        raise UserError(
            f"`{path}` has no limits", where=str(path), hint="write some: `bertshrink gate --init ARTIFACT`"
        )
    if not isinstance(limits, dict):
        raise UserError(f"`{'.'.join(table)}` is not a table of limits", where=source.place(table), hint=HINT)
    check = Checker(source, table)
    config = _read(limits, check, path, artifact)
    check.raise_faults()
    return config


def _read(values: dict[str, Any], check: Checker, path: Path, artifact: Path | None) -> Config:
    texts = {key: _string(values[key], key, check) for key in _TEXTS if key in values}
    severity = severity_of(texts.get("severity"), check.at("severity"))
    known = (*_TEXTS, *_TABLES)
    rules = entries({k: v for k, v in values.items() if k not in known}, check, severity, known)
    rules += _anchored(values.get("anchor"), check.at("anchor"), severity)
    latency = None
    if "latency" in values:
        latency = fill(LatencySettings, values["latency"], check.at("latency"), "latency")
        if latency is not None and latency.rounds < MIN_ROUNDS:
            hint = f"use at least {MIN_ROUNDS}, better 10"
            check.at("latency", "rounds").error(f"{latency.rounds} rounds are too few", hint)
    several = values.get("artifacts")
    gated = [] if several is None else _several(several, check.at("artifacts"), rules, texts, severity)
    name = texts.get("artifact") or (artifact.as_posix() if artifact is not None and not gated else None)
    if name is not None and gated:
        check.at("artifact").error("`artifact` and `artifacts` both name what is judged", "keep one of the two")
    elif name is not None:
        report = texts.get("report")
        place = check.at("artifact").place
        own = Path(report) if report else None
        gated = [Gated(name, artifact or Path(name), own, tuple(rules), place, texts.get("renamed_from"))]
    elif not gated and not check.faults:
        check.error("no artifact is named", 'name it: `artifact = "dist/model"`')
    if not check.faults and not any(one.rules for one in gated):
        check.error("there are no limits", HINT)
    removed = _removed(values.get("removed"), gated, check.at("removed"))
    more = {"latency": latency} if latency is not None else {}
    folder = path.resolve().parent
    lock = Path(texts.get("baseline") or LOCK)
    return Config(folder, str(path), tuple(gated), tuple(rules), lock, texts.get("base"), removed=removed, **more)


def _removed(values: Any, gated: list[Gated], check: Checker) -> tuple[str, ...]:
    """The artifacts that this change takes out, by the names that the base's lock has."""
    if values is None:
        return ()
    if not isinstance(values, list) or not all(isinstance(one, str) and one.strip() for one in values):
        hint = 'list them as the lock calls them: `removed = ["dist/old"]`'
        check.error("`removed` is not a list of artifacts", hint)
        return ()
    if kept := [one.name for one in gated if one.name in values]:
        check.error(f"`{kept[0]}` is judged, and removed", "take it out of one of the two")
    return tuple(values)


def _several(
    values: Any, check: Checker, common: list[Rule], texts: Mapping[str, str | None], severity: Severity
) -> list[Gated]:
    if not isinstance(values, dict) or not values:
        check.error("`artifacts` names none", "see docs/ci.md")
        return []
    artifacts = []
    for name, body in values.items():
        here = check.at(name)
        if not isinstance(body, dict) or "path" not in body:
            here.error(f"the artifact `{name}` has no `path`", "give its path")
            continue
        own = {key: _string(body[key], key, here) for key in _OF_ARTIFACT if key in body}
        its = severity_of(own.get("severity"), here.at("severity")) if "severity" in own else severity
        rest = {key: value for key, value in body.items() if key not in _OF_ARTIFACT}
        rules = entries(rest, here, its, tuple(_OF_ARTIFACT))
        taken = {(rule.key, rule.since) for rule in rules}
        rules = [rule for rule in common if (rule.key, rule.since) not in taken] + rules
        report = own.get("report") or texts.get("report")
        path = Path(own.get("path") or name)
        own_report, before = Path(report) if report else None, own.get("renamed_from")
        artifacts.append(Gated(name, path, own_report, tuple(rules), here.place, before))
    return artifacts


def _anchored(values: Any, check: Checker, severity: Severity) -> list[Rule]:
    """The rules that are judged against the lock of an older commit."""
    if values is None:
        return []
    ref = values.get("ref") if isinstance(values, dict) else None
    if not isinstance(ref, str) or not ref:
        check.error("`anchor` has no `ref`", 'name a tag: `ref = "v1.0.0"`')
        return []
    rules = entries({k: v for k, v in values.items() if k != "ref"}, check, severity, ("ref",), ref)
    for rule in rules:
        if not rule.key.is_relative:
            hint = f"write `{rule.key}_growth` or `{rule.key}_drop`"
            what = f"an anchor can only limit changes: `{rule.key}` is not one"
            check.add(UserError(what, where=rule.place, hint=hint))
    return rules


def _string(value: Any, name: str, check: Checker) -> str | None:
    if isinstance(value, str) and value.strip():
        return value
    hint = f"`{name}` is {(_TEXTS | _OF_ARTIFACT)[name]}"
    check.at(name).error(f"`{name}` is `{value}`, which is not text", hint)
    return None


def _at(values: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        values = values.get(name) if isinstance(values, dict) else None
    return values


def _toml(path: Path) -> tuple[str, dict[str, Any]]:
    text = _LIMITS.read_text(path)
    return text, _LIMITS.toml(text, str(path), TABLES.get(path.name, TABLES["bertshrink.toml"]))


assert not {name for name, metric in METRICS.items() if metric.gauge is not None} & {*_TEXTS, *_OF_ARTIFACT, *_TABLES}
