"""Every metric, in one table: its name, its group, what one should know to read it, and how a gate judges it."""

from dataclasses import dataclass
from typing import Literal

from bertshrink.report.measurement import Better, Conditions, Evidence, Measurement

Group = Literal["size", "quality", "latency", "throughput", "modelled", "work", "time", "memory", "roofline", "other"]
GROUPS: tuple[Group, ...] = (
    "size",
    "quality",
    "latency",
    "throughput",
    "modelled",
    "work",
    "time",
    "memory",
    "roofline",
    "other",
)
"""In the order to show them."""

COSTS: tuple[Group, ...] = ("latency", "throughput", "modelled", "work", "time", "memory", "roofline")
"""What a model costs where it runs; the other groups are about the model itself."""

MACHINE_RATES = ("gemm_rate", "memory_rate")
"""What a machine does at best: figures of it, told with its target, though a model's measurements hold them."""

DRAWN_ONLY = (*MACHINE_RATES, "operation_rate", "byte_rate")
"""What the roofline is made of: its picture and the full list have them, the table has the share."""

Key = tuple[str, Conditions]
"""A metric and the conditions that make it a column of its own."""


Source = Literal["files", "quality", "memory", "instructions", "time"]


@dataclass(frozen=True)
class Gauge:
    """How a gate judges a metric.

    Attributes:
        unit: its base unit, as in `units.py`; "" for a plain figure such as a correlation.
        better: which direction is good.
        source: what shows it: the file, or a report's quality, memory or instructions, or a race of two artifacts.
    """

    unit: str
    better: Better
    source: Source


_BYTES = Gauge("B", "lower", "files")
_COUNT = Gauge("count", "lower", "files")
_SHARE = Gauge("fraction", "higher", "quality")
_CORRELATION = Gauge("", "higher", "quality")
_PEAK = Gauge("B", "lower", "memory")


@dataclass(frozen=True)
class Metric:
    """How a metric is called, what one should know to read it, how a gate judges it (None: it does not), whether one
    picks a model by it, and whether it is compared with the reference's.
    """

    title: str
    group: Group
    meaning: str
    gauge: Gauge | None = None
    decides: bool = True
    is_compared: bool = True


METRICS: dict[str, Metric] = {
    "size": Metric("Size", "size", "bytes of the model's files", _BYTES),
    "compressed_size": Metric("Compressed size", "size", "the same through zlib, as an archive ships it", _BYTES),
    "parameters": Metric("Parameters", "size", "parameter count", _COUNT),
    "nodes": Metric("Nodes", "size", "operations of the graph", _COUNT),
    "operators": Metric("Operators", "size", "different operations of the graph", _COUNT),
    "new_operators": Metric("New operators", "size", "operations that are not in the baseline", _COUNT),
    "flops_per_token": Metric("FLOPs per token", "size", "counted from the shapes", decides=False),
    "accuracy": Metric("Accuracy", "quality", "fraction of texts with the correct label", _SHARE),
    "micro_f1": Metric("Micro F1", "quality", "F1 over all decisions for or against a label", _SHARE),
    "f1": Metric("F1", "quality", "of whole entities, or of the words of answers", _SHARE),
    "precision": Metric(
        "Precision", "quality", "fraction of predicted entities that are correct", _SHARE, decides=False
    ),
    "recall": Metric("Recall", "quality", "fraction of correct entities that are found", _SHARE, decides=False),
    "exact_match": Metric("Exact match", "quality", "fraction of questions answered exactly", _SHARE),
    "sts_spearman": Metric(
        "STS Spearman", "quality", "rank correlation of the similarities of pairs with their scores", _CORRELATION
    ),
    "spearman": Metric(
        "Spearman",
        "quality",
        "rank correlation: of scores with the right ones; of a sentence encoder's similarities with the reference's",
        _CORRELATION,
    ),
    "pearson": Metric(
        "Pearson", "quality", "linear correlation of scores with the right ones", _CORRELATION, decides=False
    ),
    "recall@10": Metric("Recall@10", "quality", "fraction of the reference's ten nearest neighbours found", _SHARE),
    "term_overlap": Metric(
        "Term overlap", "quality", "fraction of the reference's heaviest tokens of a text that are the model's", _SHARE
    ),
    "active_dimensions": Metric(
        "Active dimensions",
        "quality",
        "numbers of a sparse vector that are not 0: what an index has to hold",
        Gauge("count", "lower", "quality"),
        decides=False,
    ),
    "masked_accuracy": Metric("Masked accuracy", "quality", "fraction of masked tokens predicted correctly", _SHARE),
    "macro_f1": Metric("Macro F1", "quality", "F1 of each class, averaged over the classes", _SHARE),
    "pseudo_perplexity": Metric(
        "Pseudo-perplexity", "quality", "exp of the mean loss of the masked tokens", Gauge("", "lower", "quality")
    ),
    "agreement": Metric(
        "Agreement",
        "quality",
        "fraction of answers (labels, tags, tokens) equal to the reference's; for scores, their rank correlation",
        _SHARE,
    ),
    "score_difference": Metric(
        "Score difference",
        "quality",
        "mean distance of scores from the reference's; of a cross-encoder, behind its activation",
        Gauge("", "lower", "quality"),
        decides=False,
        is_compared=False,
    ),
    "latency": Metric("Latency", "latency", "time of one batch, batch x length in tokens"),
    "p50": Metric("p50", "latency", "median time per inference", Gauge("s", "lower", "time")),
    "latency_whole": Metric("Latency with tokenizing", "latency", "time of one batch, from the text to the answer"),
    "device_latency": Metric(
        "Device latency", "latency", "time of one batch by the device's own clock, without copies", decides=False
    ),
    "throughput": Metric("Throughput", "throughput", "tokens without padding"),
    "text_rate": Metric("Texts", "throughput", "texts answered", decides=False),
    "latency_range": Metric(
        "Modelled latency", "modelled", "bounds of the time of one batch, computed, not measured", is_compared=False
    ),
    "instructions": Metric(
        "Instructions",
        "work",
        "of one batch, counted on an emulated core: exact, and no time",
        Gauge("count", "lower", "instructions"),
    ),
    "load_time": Metric("Load", "time", "time from the file to a model ready for inference", decides=False),
    "first_inference": Metric("First inference", "time", "the first batch after loading", decides=False),
    "memory": Metric("Memory", "memory", "peak memory of the process during inference", _PEAK),
    "memory_over_engine": Metric(
        "Memory over engine", "memory", "the same peak minus the engine's import", _PEAK, decides=False
    ),
    "memory_shared": Metric(
        "Memory (PSS)", "memory", "proportional set size at the end: what processes share is divided", decides=False
    ),
    "device_memory_allocated": Metric(
        "Device memory, tensors", "memory", "peak of what tensors took on the device, by PyTorch's allocator"
    ),
    "device_memory_reserved": Metric(
        "Device memory, held", "memory", "peak of what PyTorch's allocator held on the device", decides=False
    ),
    "device_memory_driver": Metric(
        "Device memory, driver",
        "memory",
        "what the process held on the device at the end, by its driver",
        decides=False,
    ),
    "share_of_peak": Metric(
        "Share of peak",
        "roofline",
        "fraction of the machine's peak for the same operations and bytes; 1 is the limit",
        decides=False,
        is_compared=False,
    ),
    "operation_rate": Metric(
        "Operations per second", "roofline", "of matrix products, from the shapes", decides=False, is_compared=False
    ),
    "byte_rate": Metric(
        "Bytes per second",
        "roofline",
        "of weights and looked-up rows, the fewest possible",
        decides=False,
        is_compared=False,
    ),
    "gemm_rate": Metric(
        "GEMM rate", "roofline", "the machine's fastest matrix product of the precision", decides=False
    ),
    "memory_rate": Metric(
        "Memory rate", "roofline", "the machine's fastest read, and copy, of its memory", decides=False
    ),
}
"""The metrics with a name of their own, in the order to show them: what is right before what is alike. Any other metric
becomes a column under the name it has."""


def decides(m: Measurement) -> bool:
    """Whether one picks a model by this figure; of an unknown metric, by a quality only."""
    return METRICS[m.metric].decides if m.metric in METRICS else group_of(m) == "quality"


def group_of(m: Measurement) -> Group:
    """The group of the metric; of an unknown one, what its unit suggests."""
    if m.metric in METRICS:
        return METRICS[m.metric].group
    if m.unit in ("fraction", "point") or (m.unit == "" and m.better != "neither"):
        return "quality"
    return "time" if m.unit == "s" else "other"


def is_compared(m: Measurement) -> bool:
    """Whether the figure is against the reference's: not a share of something else, and not a modelled range."""
    known = METRICS.get(m.metric)
    return (known is None or known.is_compared) and not m.is_range


def is_counted(m: Measurement) -> bool:
    """Whether one look gives the figure, which then has no rounds. A time or a peak that was taken once is not that."""
    if m.is_range or m.evidence == Evidence.EMULATED_INSTRUCTIONS:
        return True
    return m.is_exact and group_of(m) not in ("latency", "throughput", "time", "memory")


def is_early(m: Measurement) -> bool:
    """Whether it is a memory before the model answers steadily: drawn, and left out of the table."""
    return m.unit == "B" and m.conditions.phase not in (None, "steady")


def is_of_target(m: Measurement) -> bool:
    """Whether the figure belongs to the place where the model ran, and not to the model."""
    return group_of(m) in COSTS or m.conditions.target != "cpu"


def is_score(m: Measurement) -> bool:
    """Whether the figure is a quality without a scale, compared as a percentage."""
    return m.unit in ("fraction", "")


def is_time(m: Measurement) -> bool:
    """Whether the figure is a time to save, compared as a speed-up."""
    return m.unit == "s" and m.better != "higher"


def is_speed(m: Measurement) -> bool:
    """Whether one model can be faster than another by this figure: a time, or what was done per second."""
    return is_time(m) or (m.better == "higher" and m.unit.endswith("/s"))
