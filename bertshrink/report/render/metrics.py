"""What the columns are about: the metrics' names, their groups, and what one should know to read them."""

from dataclasses import dataclass
from typing import Literal

from bertshrink.report.measurement import Conditions, Measurement
from bertshrink.report.render.figures import plain

Group = Literal["size", "quality", "latency", "time", "memory", "other"]
GROUPS: tuple[Group, ...] = ("size", "quality", "latency", "time", "memory", "other")
"""In the order to show them."""

Key = tuple[str, Conditions]
"""A metric and the conditions that make it a column of its own."""


@dataclass(frozen=True)
class Metric:
    """How a metric is called, what one should know to read it, and whether one picks a model by it."""

    title: str
    group: Group
    meaning: str
    decides: bool = True


METRICS: dict[str, Metric] = {
    "size": Metric("Size", "size", "bytes of the model's files"),
    "parameters": Metric("Parameters", "size", "numbers the model holds"),
    "flops_per_token": Metric("FLOPs per token", "size", "counted from the shapes", decides=False),
    "accuracy": Metric("Accuracy", "quality", "share of the texts with the right label"),
    "micro_f1": Metric("Micro F1", "quality", "F1 over all decisions for or against a label"),
    "f1": Metric("F1", "quality", "of whole entities, or of the words of answers"),
    "precision": Metric("Precision", "quality", "share of the entities found that are right", decides=False),
    "recall": Metric("Recall", "quality", "share of the right entities that are found", decides=False),
    "exact_match": Metric("Exact match", "quality", "share of the questions with a right answer, word for word"),
    "sts_spearman": Metric("STS Spearman", "quality", "rank correlation of the cosines of pairs with their scores"),
    "spearman": Metric(
        "Spearman",
        "quality",
        "rank correlation: of scores with the right ones; of a sentence encoder's similarities with the reference's",
    ),
    "pearson": Metric("Pearson", "quality", "linear correlation of scores with the right ones", decides=False),
    "recall@10": Metric("Recall@10", "quality", "share of the reference's ten nearest neighbours found"),
    "masked_accuracy": Metric("Masked accuracy", "quality", "share of the masked tokens filled in right"),
    "macro_f1": Metric("Macro F1", "quality", "F1 of each class, averaged over the classes"),
    "pseudo_perplexity": Metric("Pseudo-perplexity", "quality", "exp of the mean loss of the masked tokens"),
    "agreement": Metric(
        "Agreement",
        "quality",
        "share of the answers (labels, tags, tokens) that are the reference's; of scores, their rank correlation",
    ),
    "latency": Metric("Latency", "latency", "time of one batch, batch x length in tokens"),
    "load_time": Metric("Load", "time", "from the file to a model that can answer", decides=False),
    "first_inference": Metric("First inference", "time", "the first batch after loading", decides=False),
    "memory": Metric("Memory", "memory", "peak of the process while it answers"),
    "memory_over_engine": Metric(
        "Memory over engine", "memory", "the same peak less what importing the engine takes", decides=False
    ),
}
"""The metrics with a name of their own, in the order to show them: what is right before what is alike. Any other metric
becomes a column under the name it has."""


def title_of(metric: str) -> str:
    """What stands above the metric's columns."""
    return METRICS[metric].title if metric in METRICS else plain(metric.replace("_", " ")).capitalize()


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


def is_score(m: Measurement) -> bool:
    """Whether the figure is a quality without a scale, compared as a percentage."""
    return m.unit in ("fraction", "")


def is_time(m: Measurement) -> bool:
    """Whether the figure is a time to save, compared as a speed-up."""
    return m.unit == "s" and m.better != "higher"
