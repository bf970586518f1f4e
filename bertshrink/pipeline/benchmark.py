"""All models on all targets, one target after the other; what one measured stays when the next one fails."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from bertshrink.files.fingerprint import fingerprint
from bertshrink.meters.environment import environment
from bertshrink.meters.latency.engine_variants import expand_variants, ways_of
from bertshrink.meters.latency.launch import launch_of
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.meters.phone.compatibility import ENGINE, check_mobile
from bertshrink.meters.roofline.roofline import ON_GPU
from bertshrink.meters.targets import TARGETS, Target, TargetResult, kind_of, open_target
from bertshrink.model.model_ref import ModelRef
from bertshrink.pipeline.run_folder import RunFolder
from bertshrink.progress import Progress
from bertshrink.report.measurement import across
from bertshrink.report.report import SCHEMA, Report, Sheet, Snapshot
from bertshrink.worker.job import RunSpec

_ON_A_PHONE = "on a phone"
_EXPORT_FIRST = "the phone checks are for ONNX Runtime files: export it first"


def open_targets(settings: LatencySettings) -> list[Target]:
    """The targets that are asked for, each once. Raises UserError: there is no such target."""
    return [open_target(text) for text in dict.fromkeys(settings.target)]


def measure_into(
    report: Report,
    targets: Sequence[Target],
    models: Sequence[ModelRef],
    settings: LatencySettings,
    progress: Progress,
    store: RunFolder,
) -> None:
    """Measure all models on all targets, and check them for phones where asked, into a report that has their rows.

    The other arguments and errors are as of `measure_everywhere`.
    """
    everywhere = measure_everywhere(targets, models, settings, progress, store)
    report.notes += across_machines(everywhere) if settings.across_machines else []
    add_results(report, everywhere, settings.engine)
    if settings.mobile:
        check_phones(report, models, progress, store)


def measure_everywhere(
    targets: Sequence[Target],
    models: Sequence[ModelRef],
    settings: LatencySettings,
    progress: Progress,
    store: RunFolder,
) -> list[TargetResult]:
    """What each target finds of all models, in their order.

    Args:
        models: as they are on disk; loaded only where something has to be measured.
        store: keeps what each target measured; taken from there again where target, models, settings and this machine
            are the same. Of another machine nothing is known before it is asked, so it always is.

    Raises:
        BertshrinkError: a target's `check` or `measure` raises it; what the others measured before is kept.
    """
    asked = settings.model_dump(mode="json", exclude={"target"})
    named = [(model.name, model.key) for model in models]
    key = fingerprint(SCHEMA, named, asked, environment().model_dump(mode="json"))
    kept: dict[str, Any] = {
        target.name: store.read_entry(_file(target), key) if TARGETS[kind_of(target.name)].is_here else None
        for target in targets
    }
    missing = [target for target in targets if kept[target.name] is None]
    launches = {model.name: launch_of(model.load(), model.folder) for model in models} if missing else {}
    for model in models:
        model.unload()  # the workers should have the memory
    ways = {t.name: expand_variants(launches, settings.engine, on_gpu=kind_of(t.name) == ON_GPU) for t in missing}
    for target in missing:
        target.check(ways[target.name])
    for target in missing:
        kept[target.name] = target.measure(ways[target.name], settings, progress).to_json()
        store.write_entry(_file(target), key, kept[target.name])
    return [TargetResult.from_json(kept[target.name]) for target in targets]


def add_results(report: Report, everywhere: Sequence[TargetResult], asked: Sequence[str] = ()) -> None:
    """Put what targets measured into a report: a model that ran in several of the ways `asked` gets a row for each.

    The first way is in the model's own row, so that everything is compared with the first model's first way.
    """
    rows = {snapshot.name: snapshot for snapshot in report.snapshots}
    ways = ways_of(rows, asked)
    before = {name: snapshot.model_copy(deep=True) for name, snapshot in rows.items()}
    for one in everywhere:
        report.environments[one.environment.id] = one.environment
        report.notes += one.notes
        for name, entries in one.measurements.items():
            if name not in rows:
                model, way = ways[name]
                rows[name] = _row(report, rows[model], before[model], name, way)
            rows[name].measurements += entries
            rows[name].notes += one.details.get(name, [])


def _row(report: Report, model: Snapshot, before: Snapshot, name: str, way: str) -> Snapshot:
    """The row of a way to run a model: the model's own, where no other way is there yet, or a new one.

    Args:
        before: what it was before anything ran.
    """
    label = f"{before.label} ({way})"
    if model.label == before.label:
        model.label = label
        return model
    report.snapshots.append(
        before.model_copy(update={"name": name, "label": label, "role": "compared", "notes": []}, deep=True)
    )
    return report.snapshots[-1]


def check_phones(report: Report, models: Sequence[ModelRef], progress: Progress, store: RunFolder) -> None:
    """Check each file for ONNX Runtime for phones, and put what was found below its figures."""
    rows = {snapshot.name: snapshot for snapshot in report.snapshots}
    with progress.task("checks for phones", total=len(models), unit="models") as task:
        for model in models:
            key = fingerprint(model.key, environment().id)
            file = f"mobile-{_plain(model.name)}.json"
            kept = store.read_entry(file, key)
            if kept is None:
                launch = launch_of(model.load(), model.folder)
                model.unload()
                kept = _phone_sheets(launch) if launch.engine == ENGINE else [[], [_EXPORT_FIRST]]
                store.write_entry(file, key, kept)
            rows[model.name].sheets = [Sheet.model_validate(sheet) for sheet in kept[0]]
            rows[model.name].notes += kept[1]
            task.advance(1, model=model.name)


def _phone_sheets(launch: RunSpec) -> list[list[Any]]:
    """The tables and the sentences of one file's checks, in JSON values."""
    checks = check_mobile(launch)
    needed: dict[str, list[str]] = {}
    for name in sorted(checks.operators):
        domain, _, operator = name.rpartition(":")
        needed.setdefault(domain, []).append(operator)
    operators = [(domain, ", ".join(names)) for domain, names in needed.items()]
    sheets = [
        Sheet(title=_ON_A_PHONE, heading=heading, rows=tuple(rows)).model_dump(mode="json")
        for heading, rows in checks.tables()
    ]
    listed = Sheet(title=_ON_A_PHONE, heading=("domain", "operators that a build needs"), rows=tuple(operators))
    return [[*sheets, listed.model_dump(mode="json")], list(checks.notes)]


def across_machines(by_target: Sequence[TargetResult]) -> list[str]:
    """How each model's latency on the later targets compares with the first one's, a sentence each."""
    told = []
    for first, later in ((by_target[0], other) for other in by_target[1:]):
        for name, entries in later.measurements.items():
            for m in entries:
                bases = [b for b in first.measurements.get(name, []) if m.metric == b.metric == "latency"]
                ratio = next((ratio for b in bases if (ratio := across(b, m)) is not None), None)
                if ratio is not None:
                    told.append(
                        f"{name} at {m.conditions.case}: {m.conditions.target} takes {ratio.value:.2f} times as long "
                        f"as {bases[0].conditions.target} ({ratio.low:.2f} to {ratio.high:.2f}); different machines, "
                        "measured one after the other"
                    )
    return told


def _file(target: Target) -> str:
    """The file of what a target measured: `running-cpu.json`, `running-arm64-a76.json`."""
    return f"running-{_plain(target.name)}.json"


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.") or "model"
