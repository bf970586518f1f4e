"""How the figures were obtained: a footnote per metric, and what several metrics share, said once.

A footnote tells what the metric means, and of a timed one how many samples each process took, over all of its shapes.
What decides whether figures can be believed and compared (evidence, texts, engines, threads, processes, machines) is
mostly the same for all that was measured in one go, so it is in lines of its own, headed by the metrics it is
about; those of figures that belong to a place where models ran are with it (`target_sections`).
"""

from collections.abc import Mapping

from bertshrink.report.measurement import Environment, Measurement
from bertshrink.report.metrics import METRICS, is_counted
from bertshrink.report.report import Snapshot
from bertshrink.report.table.environments import EVIDENCE
from bertshrink.report.table.figures import plain, title_of

Measured = list[tuple[Snapshot, Measurement]]
"""Every measurement of a metric, over models and shapes."""


_OTHER_TEXTS = (
    "± half the 95 % interval for other texts of their kind (shares Wilson's, correlations Fisher's, else bootstrap)"
)
_NOISE = "within noise: not distinguished from the reference at 5 %, text by text"


def footnote(metric: str, pairs: Measured) -> str:
    """What the metric means, and how many samples a process took where it was not counted once."""
    meaning = METRICS[metric].meaning if metric in METRICS else metric.replace("_", " ")
    counts = [len(values) for _, m in pairs if not is_counted(m) for values in m.samples if values]
    samples = f"; {_range(counts, 'sample', 'samples')} per process" if counts else ""
    return plain(meaning + samples)


def shared(by_metric: Mapping[str, Measured], environments: Mapping[str, Environment]) -> tuple[str, ...]:
    """What metrics have in common: `Latency, Memory: torch float32; 2 threads; ...`.

    Args:
        by_metric: measurements, in the order to name them.
        environments: the report's machines; with a single one, none is named.

    Returns:
        A line for each way that figures were obtained, with its evidence where that differs.
    """
    evidence = {m.evidence for pairs in by_metric.values() for _, m in pairs}
    everyone = [pair for pairs in by_metric.values() for pair in pairs]
    has_one_way = _agree(by_metric)
    lines: dict[str, list[str]] = {}
    for metric, pairs in by_metric.items():
        parts = [_evidence(pairs)] if len(evidence) > 1 else []
        parts += [_texts(pairs), _engines(everyone if has_one_way else pairs) if _has_engine(pairs) else ""]
        parts += [_threads(pairs), _processes(pairs), _machines(pairs) if len(environments) > 1 else ""]
        lines.setdefault(plain("; ".join(part for part in parts if part)), []).append(title_of(metric))
    return tuple(f"{', '.join(titles)}: {how}" for how, titles in lines.items() if how)


def evidence_of_all(by_metric: Mapping[str, Measured]) -> tuple[str, ...]:
    """How all figures were obtained, where that is one way."""
    kinds = {m.evidence for pairs in by_metric.values() for _, m in pairs}
    return tuple(f"All figures: {kind}, {EVIDENCE[kind]}" for kind in kinds) if len(kinds) == 1 else ()


def _evidence(pairs: Measured) -> str:
    return " and ".join(sorted({str(m.evidence) for _, m in pairs}))


def _texts(pairs: Measured) -> str:
    """`872 texts of sst2 dev, exact for these texts; ± half the 95 % interval for others of their kind`."""
    told: dict[str, None] = {}
    for c in (m.conditions for _, m in pairs):
        if c.dataset or c.num_examples is not None:
            name = " ".join(part for part in (c.dataset, c.split) if part)
            number = f"{c.num_examples} texts" if c.num_examples is not None else ""
            told[" of ".join(part for part in (number, name) if part)] = None
    if not told:
        return ""
    has_spread = any(m.sampling is not None and m.sampling[0] < m.sampling[1] for _, m in pairs)
    others = f"; {_OTHER_TEXTS}" if has_spread else ""
    is_compared = any(m.outcomes is not None or m.ahead is not None for _, m in pairs)
    return f"{' and '.join(told)}, exact for these texts{others}{f'; {_NOISE}' if is_compared else ''}"


def _how(m: Measurement) -> str:
    return " ".join(part for part in (m.conditions.engine, m.conditions.precision) if part)


def _has_engine(pairs: Measured) -> bool:
    return any(_how(m) for _, m in pairs)


def _agree(by_metric: Mapping[str, Measured]) -> bool:
    """Whether every model ran in the same engines for each metric that needs one."""
    ran: dict[str, set[frozenset[str]]] = {}
    for pairs in by_metric.values():
        own: dict[str, set[str]] = {}
        for snapshot, m in pairs:
            own.setdefault(snapshot.name, set()).update([_how(m)] if _how(m) else [])
        for name, ways in own.items():
            ran.setdefault(name, set()).update([frozenset(ways)] if ways else [])
    return all(len(ways) <= 1 for ways in ran.values())


def _engines(pairs: Measured) -> str:
    """`onnxruntime int8 (quantize), torch (teacher, distill)`, or the one engine that ran them all."""
    ran: dict[str, list[str]] = {}
    for snapshot, m in pairs:
        if _how(m):
            ran.setdefault(_how(m), []).append(snapshot.label)
    if len(ran) == 1:
        return next(iter(ran))
    return ", ".join(f"{how} ({', '.join(dict.fromkeys(labels))})" for how, labels in ran.items())


def _threads(pairs: Measured) -> str:
    counts = sorted({m.conditions.threads for _, m in pairs if m.conditions.threads is not None})
    if not counts:
        return ""
    return f"{' or '.join(map(str, counts))} thread{'s' if counts[-1] > 1 else ''}"


def _processes(pairs: Measured) -> str:
    """`median ± half the 95 % interval over 10 processes`; nothing for figures that were counted once."""
    rounds = [len(m.rounds) for _, m in pairs if not is_counted(m)]
    if not rounds or max(rounds) == 1:
        return "one process" if rounds else ""
    return f"median ± half the 95 % interval over {_range(rounds, 'process', 'processes')}"


def _machines(pairs: Measured) -> str:
    machines = sorted({m.environment for _, m in pairs if m.environment})
    return f"on machine {' and '.join(machines)}" if machines else ""


def _range(counts: list[int], one: str, many: str) -> str:
    low, high = min(counts), max(counts)
    return f"{low} {one if low == 1 else many}" if low == high else f"{low} to {high} {many}"
