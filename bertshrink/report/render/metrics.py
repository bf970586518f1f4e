"""What the columns are about: the metrics' names, their groups, and the footnote on how one was obtained."""

from dataclasses import dataclass
from typing import Literal

from bertshrink.report.measurement import Conditions, Environment, Measurement
from bertshrink.report.render.figures import plain
from bertshrink.report.report import Snapshot

Group = Literal["size", "quality", "latency", "time", "memory", "other"]
GROUPS: tuple[Group, ...] = ("size", "quality", "latency", "time", "memory", "other")
"""In the order to show them."""

Key = tuple[str, Conditions]
"""A metric and the conditions that make it a column of its own."""


@dataclass(frozen=True)
class Metric:
    """How a metric is called and what one should know to read it."""

    title: str
    group: Group
    meaning: str


METRICS: dict[str, Metric] = {
    "size": Metric("Size", "size", "bytes of the model's files"),
    "parameters": Metric("Parameters", "size", "numbers the model holds"),
    "flops_per_token": Metric("FLOPs per token", "size", "counted from the shapes"),
    "accuracy": Metric("Accuracy", "quality", "share of the texts with the right label"),
    "agreement": Metric("Agreement", "quality", "share of the texts with the same answer as the reference"),
    "spearman": Metric("Spearman", "quality", "rank correlation of the similarities with the reference's"),
    "recall@10": Metric("Recall@10", "quality", "share of the reference's ten nearest neighbours found"),
    "masked_accuracy": Metric("Masked accuracy", "quality", "share of the masked tokens filled in right"),
    "macro_f1": Metric("Macro F1", "quality", "F1 of each class, averaged over the classes"),
    "pseudo_perplexity": Metric("Pseudo-perplexity", "quality", "exp of the mean loss of the masked tokens"),
    "latency": Metric("Latency", "latency", "time of one batch, batch x length in tokens"),
    "load_time": Metric("Load", "time", "from the file to a model that can answer"),
    "first_inference": Metric("First inference", "time", "the first batch after loading"),
    "memory": Metric("Memory", "memory", "peak of the process while it answers"),
    "memory_over_engine": Metric("Memory over engine", "memory", "the same peak less what importing the engine takes"),
}
"""The metrics with a name of their own; any other becomes a column under the name it has."""


def group_of(m: Measurement) -> Group:
    """The group of the metric; of an unknown one, what its unit suggests."""
    if m.metric in METRICS:
        return METRICS[m.metric].group
    if m.unit in ("fraction", "point") or (m.unit == "" and m.better != "neither"):
        return "quality"
    return "time" if m.unit == "s" else "other"


def is_score(m: Measurement) -> bool:
    """Whether the figure is a quality without a scale, compared as a percentage."""
    return m.unit in ("fraction", "")


def is_time(m: Measurement) -> bool:
    """Whether the figure is a time to save, compared as a speed-up."""
    return m.unit == "s" and m.better != "higher"


def footnote(key: Key, found: list[tuple[Snapshot, Measurement]], environments: dict[str, Environment]) -> str:
    """How the column's figures were obtained: meaning, evidence, conditions; the same for all shapes of one metric."""
    metric, conditions = key
    measured = [m for _, m in found]
    parts = [METRICS[metric].meaning if metric in METRICS else plain(metric.replace("_", " "))]
    parts.append(" and ".join(sorted({str(m.evidence) for m in measured})))
    if conditions.dataset or conditions.num_examples is not None:
        name = " ".join(part for part in (conditions.dataset, conditions.split) if part)
        number = f"{conditions.num_examples} texts" if conditions.num_examples is not None else ""
        parts.append(" of ".join(part for part in (number, name) if part) + ", exact for these texts")
    parts.append(_engines(found))
    if conditions.threads is not None:
        parts.append(f"{conditions.threads} thread{'s' if conditions.threads > 1 else ''}")
    if not all(m.is_exact for m in measured):
        parts.append(_effort(measured))
    machines = sorted({m.environment for m in measured if m.environment})
    if len(environments) > 1 and machines:
        parts.append(f"on machine {' and '.join(machines)}")
    return plain("; ".join(part for part in parts if part))


def _engines(found: list[tuple[Snapshot, Measurement]]) -> str:
    """`onnxruntime int8 (quantize), torch (teacher, distill)`, or the one engine that ran them all."""
    ran: dict[str, list[str]] = {}
    for snapshot, m in found:
        how = " ".join(part for part in (m.conditions.engine, m.conditions.precision) if part)
        if how:
            ran.setdefault(how, []).append(snapshot.label)
    if len(ran) == 1 and len(next(iter(ran.values()))) == len(found):
        return next(iter(ran))
    return ", ".join(f"{how} ({', '.join(dict.fromkeys(labels))})" for how, labels in ran.items())


def _effort(measured: list[Measurement]) -> str:
    """`median ± half the 95 % interval over 10 processes of 50 samples`."""
    rounds = _range([len(m.rounds) for m in measured], "process", "processes")
    samples = _range([len(values) for m in measured for values in m.samples if values], "sample", "samples")
    return f"median ± half the 95 % interval over {rounds} of {samples}"


def _range(counts: list[int], one: str, many: str) -> str:
    low, high = min(counts), max(counts)
    return f"{low} {one if low == 1 else many}" if low == high else f"{low} to {high} {many}"
