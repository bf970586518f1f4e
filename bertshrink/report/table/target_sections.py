"""Where the models ran, and what the figures from there are worth: the first thing to know before believing one.

A target is with its evidence class, how its figures were taken, the validity of the worst of them with all reasons,
and what they cannot claim: no verdict from fewer than four rounds, no percentile from too few samples. Figures of the
models themselves (size, quality) belong to no target.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bertshrink.report.measurement import PERCENTILE_NEEDS, Environment, Evidence, Measurement, Validity
from bertshrink.report.metrics import (
    DRAWN_ONLY,
    GROUPS,
    MACHINE_RATES,
    METRICS,
    decides,
    group_of,
    is_counted,
    is_early,
    is_of_target,
    is_time,
)
from bertshrink.report.report import Snapshot
from bertshrink.report.statistics import MIN_VERDICT
from bertshrink.report.table.environments import EVIDENCE
from bertshrink.report.table.figures import Scale, plain
from bertshrink.report.table.footnotes import shared
from bertshrink.report.table.notes import Advice, Measured, doubts

VALIDITIES: dict[Validity, str] = {
    "invalid": "something else influenced these figures: measure again",
    "semivalid": "use with caution: repeat the measurement before relying on it",
    "valid": "no sign of interference",
}
"""What each validity means, the worst first."""

PERCENTILES = (90, 95, 99)
"""Those that a reader may expect."""


@dataclass(frozen=True)
class Standing:
    """One target and what its figures are worth.

    Attributes:
        target: as it was asked for: `cpu`, `arm64:a76`.
        evidence: class and meaning of each kind of evidence, the strongest first.
        how: how the figures were taken: engines, threads, processes, machine.
        validity: of the worst figure.
        models: each model's own validity, where they differ.
        reasons: what speaks against the figures.
        limits: what the figures cannot claim, a sentence each.
    """

    target: str
    evidence: tuple[tuple[str, str], ...]
    how: tuple[str, ...]
    validity: Validity
    models: tuple[tuple[str, Validity], ...]
    reasons: tuple[Advice, ...]
    limits: tuple[str, ...]

    @property
    def badge(self) -> str:
        """The validity in a word; what was only modelled is not called valid."""
        is_modelled = [kind for kind, _ in self.evidence] == [Evidence.MODELLED_RANGE]
        return "modelled" if is_modelled and self.validity == "valid" else self.validity

    @property
    def meaning(self) -> str:
        """What the badge means."""
        return "no measurement" if self.badge == "modelled" else VALIDITIES[self.validity]


def standings(
    snapshots: list[Snapshot], environments: Mapping[str, Environment], only_deciding: bool = False
) -> tuple[Standing, ...]:
    """Every target of these models, in the order first seen; none where nothing ran.

    Args:
        only_deciding: tell how only those figures were taken that one picks a model by.
    """
    by_target: dict[str, list[tuple[Snapshot, Measurement]]] = {}
    for snapshot in snapshots:
        for m in snapshot.measurements:
            if m.rounds and is_of_target(m):
                by_target.setdefault(m.conditions.target, []).append((snapshot, m))
    return tuple(_standing(target, pairs, environments, only_deciding) for target, pairs in by_target.items())


def _standing(target: str, pairs: Measured, environments: Mapping[str, Environment], only_deciding: bool) -> Standing:
    used = {m.evidence for _, m in pairs}
    worst = {plain(s.label): _worst([m for other, m in pairs if other is s]) for s, _ in pairs}
    overall = _worst([m for _, m in pairs])
    return Standing(
        target=plain(target),
        evidence=tuple((str(kind), meaning) for kind, meaning in EVIDENCE.items() if kind in used),
        how=(*_how([(s, m) for s, m in pairs if decides(m) or not only_deciding], environments), *_rates(pairs)),
        validity=overall,
        models=tuple(worst.items()) if len(set(worst.values())) > 1 else (),
        reasons=doubts(pairs),
        limits=tuple(_limits(pairs)),
    )


def _worst(measured: list[Measurement]) -> Validity:
    return next(validity for validity in VALIDITIES if validity in {m.validity for m in measured})


def _how(pairs: Measured, environments: Mapping[str, Environment]) -> tuple[str, ...]:
    """What the metrics have in common, those of one group beside each other."""
    by_metric: dict[str, list[tuple[Snapshot, Measurement]]] = {}
    names = list(METRICS)
    known = [(s, m) for s, m in pairs if m.metric not in DRAWN_ONLY and not is_early(m)]
    for s, m in sorted(known, key=lambda pair: (GROUPS.index(group_of(pair[1])), _place(names, pair[1].metric))):
        by_metric.setdefault(m.metric, []).append((s, m))
    return shared(by_metric, environments)


def _place(names: list[str], metric: str) -> int:
    return names.index(metric) if metric in names else len(names)


def _rates(pairs: Measured) -> list[str]:
    """What the machine itself does at best: `GEMM rate of this machine: onnxruntime float32 95.0 Gop/s`."""
    told = []
    for metric in MACHINE_RATES:
        words = [f"{_of_what(m)} {Scale.of([m]).figure(m)}".strip() for _, m in pairs if m.metric == metric]
        told += [f"{METRICS[metric].title} of this machine: {', '.join(dict.fromkeys(words))}"] if words else []
    return [plain(line) for line in told]


def _of_what(m: Measurement) -> str:
    conditions = m.conditions
    return " ".join(part for part in (conditions.engine, conditions.precision, conditions.phase) if part)


def _limits(pairs: Measured) -> list[str]:
    """What too few rounds and samples leave open. Counted and modelled figures have no rounds."""
    timed = [(s, m) for s, m in pairs if is_time(m) and not is_counted(m)]
    if not timed:
        return []
    rounds = min(len(m.rounds) for _, m in timed)
    told = []
    if rounds == 1:
        told.append(f"no verdict, no ratio, no interval: one round is not enough; a verdict needs {MIN_VERDICT}")
    elif rounds < MIN_VERDICT:
        told.append(f"no verdict on who is faster: {rounds} rounds, of at least {MIN_VERDICT}")
    steady = [m for _, m in timed if group_of(m) == "latency"]
    return [*told, *_missing(steady)]


def _missing(timed: list[Measurement]) -> list[str]:
    """`no p90 in 4 of 12 figures, no p99 in 12: they take 64 and 662 samples, there are 50 to 310`."""
    short = {p: sum(m.percentile(p) is None for m in timed) for p in PERCENTILES}
    short = {p: count for p, count in short.items() if count}
    if not short:
        return []
    parts = [
        f"no p{p} in {count}{'' if number else f' of {len(timed)} figures'}"
        for number, (p, count) in enumerate(short.items())
    ]
    if set(short.values()) == {len(timed)}:
        parts = [f"no p{p}" for p in short]
    counts = [len(m.all) for m in timed]
    needs = _listed([str(PERCENTILE_NEEDS[p]) for p in short])
    there = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    return [f"{', '.join(parts)}: {'they need' if len(short) > 1 else 'it needs'} {needs} samples, there are {there}"]


def _listed(words: list[str]) -> str:
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)
