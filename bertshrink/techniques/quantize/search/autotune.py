"""Choice by measurement: every scheme that may serve, made, compared and timed side by side on this machine.

What is fast differs from CPU to CPU: integers pay where the CPU has 8-bit dot products (VNNI, AMX, Arm's dotprod), and
bfloat16 may beat them where it multiplies that natively. So each candidate is made, and all of them are timed in one
interleaved run, in fresh processes; what fails to run is told with its reason, never left out in silence.

    front    candidates that no other one beats in bytes, time and agreement at once (the Pareto front)
    choice   of those within the limits (`min_cosine`, `max_metric_drop`, `max_size`) the fastest; of several that time
             cannot distinguish, the smallest
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bertshrink import units
from bertshrink.hardware import BFLOAT16_FLAGS, INT8_FLAGS
from bertshrink.report.measurement import Interval, Measurement, compare

MAX_SLOWER = 1.05
"""On a busy machine every interval reaches 1, and the smallest file would be taken however slow it is."""

FLOAT = "float32"
"""The name of the float file among the candidates: what all others are compared with."""


@dataclass(frozen=True)
class Candidate:
    """One way to write and run the model.

    Attributes:
        scheme: a name in `size_estimate.SCHEMES`, or `FLOAT`.
        embeddings: as the setting of that name.
        needs: CPU flags of which one must be there; empty: runs well everywhere.
    """

    scheme: str
    options: Mapping[str, Any] = field(default_factory=dict)
    embeddings: str = "auto"
    needs: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """As it is called in tables: `dynamic-int8`, `dynamic-int8+int4`, `float16 as bfloat16`."""
        tables = f"+{self.embeddings}" if self.embeddings != "auto" else ""
        runs_as = f" as {self.options['precision']}" if "precision" in self.options else ""
        return f"{self.scheme}{tables}{runs_as}"


_EVERYWHERE = (Candidate(FLOAT), Candidate("float16"), Candidate("static-int8"))
CANDIDATES: dict[str, tuple[Candidate, ...]] = {
    "onnxruntime": (
        *_EVERYWHERE,
        Candidate("dynamic-int8"),
        Candidate("dynamic-int8", embeddings="int4"),
        Candidate("block-int8"),
        Candidate("block-int4"),
    ),
    "openvino": (
        *_EVERYWHERE,
        Candidate("dynamic-int8"),
        Candidate("float16", {"precision": "bfloat16"}, needs=BFLOAT16_FLAGS),
    ),
}
"""Engine -> what is tried with it. ONNX Runtime multiplies no bfloat16 on CPUs."""


def candidates(engine: str, flags: frozenset[str]) -> list[Candidate]:
    """What a CPU with these feature flags can run well."""
    return [one for one in CANDIDATES[engine] if not one.needs or one.needs & flags]


def describe_cpu(flags: frozenset[str]) -> str:
    """What the CPU multiplies natively besides float32, as a sentence."""
    has = [name for name, wanted in (("8-bit", INT8_FLAGS), ("bfloat16", BFLOAT16_FLAGS)) if wanted & flags]
    flags_used = sorted((INT8_FLAGS | BFLOAT16_FLAGS) & flags)
    if not has:
        return "this CPU has no 8-bit dot products and no bfloat16: neither can be much faster than float32 on it"
    return f"this CPU has {' and '.join(has)} products ({', '.join(flags_used)})"


@dataclass
class Trial:
    """A candidate and its measurements.

    Attributes:
        cosine: of its outputs with the float file's.
        drop: of the task's metric as a share of the float file's; None where nothing is labelled.
        latency: one measurement a shape.
        failure: why it could not be made or run; empty: it was.
    """

    candidate: Candidate
    size_bytes: int = 0
    cosine: float = math.nan
    drop: float | None = None
    latency: tuple[Measurement, ...] = ()
    failure: str = ""
    built: Any = None

    @property
    def latency_s(self) -> float:
        """The geometric mean of its latencies, over shapes."""
        return math.exp(math.fsum(math.log(one.value) for one in self.latency) / len(self.latency))

    def speed_ups(self, base: Trial) -> list[Interval]:
        """How many times as fast as another one it is, by shape."""
        intervals = (compare(ours, theirs) for ours, theirs in zip(self.latency, base.latency, strict=True))
        return [interval for interval in intervals if interval is not None]

    def beats(self, other: Trial) -> bool:
        """Whether it is no worse than the other in bytes, time and agreement, and better in one of them."""
        ours = (self.size_bytes, self.latency_s, -self.cosine)
        theirs = (other.size_bytes, other.latency_s, -other.cosine)
        return all(a <= b for a, b in zip(ours, theirs, strict=True)) and ours != theirs


@dataclass(frozen=True)
class Limits:
    """What a choice must hold.

    Attributes:
        min_cosine: of outputs with the float file's.
        max_drop: of the task's metric, as a share; None: none was named.
        max_size: in bytes; None: none was named.
    """

    min_cosine: float
    max_drop: float | None = None
    max_size: float | None = None

    def broken_by(self, tried: Trial) -> str:
        """Why a candidate may not be chosen; empty: it may."""
        if tried.failure:
            return tried.failure
        if not tried.cosine >= self.min_cosine:
            return f"cosine {tried.cosine:.4f} is below {self.min_cosine}"
        drop = 1 - tried.cosine if tried.drop is None else tried.drop
        if self.max_drop is not None and not drop <= self.max_drop:
            return f"a drop of {units.format(drop, 'fraction')} is more than {units.format(self.max_drop, 'fraction')}"
        if self.max_size is not None and tried.size_bytes > self.max_size:
            return f"{units.format(tried.size_bytes, 'B')} are more than {units.format(self.max_size, 'B')}"
        return ""


def front(all_tried: Sequence[Trial]) -> list[Trial]:
    """The candidates that no other one beats in bytes, time and agreement at once."""
    made = [one for one in all_tried if not one.failure]
    return [one for one in made if not any(other.beats(one) for other in made)]


def choose(all_tried: Sequence[Trial], limits: Limits) -> Trial | None:
    """The fastest within the limits, or the smallest of those that time cannot tell from it; None: none is within."""
    allowed = [one for one in all_tried if not limits.broken_by(one)]
    if not allowed:
        return None
    fastest = min(allowed, key=lambda one: one.latency_s)
    alike = [one for one in allowed if one is fastest or _as_fast(one, fastest)]
    return min(alike, key=lambda one: one.size_bytes)


def _as_fast(one: Trial, fastest: Trial) -> bool:
    """Whether no shape shows the fastest to be faster (each ratio's interval reaches 1), nor the mean over shapes."""
    return one.latency_s <= MAX_SLOWER * fastest.latency_s and all(
        interval.high >= 1 for interval in one.speed_ups(fastest)
    )


def rows(all_tried: Sequence[Trial], chosen: Trial | None, limits: Limits) -> list[dict[str, Any]]:
    """Every candidate as JSON values, for a card."""
    base = next((one for one in all_tried if one.candidate.name == FLOAT and not one.failure), None)
    on_front = {id(one) for one in front(all_tried)}
    table = []
    for one in all_tried:
        row: dict[str, Any] = {"name": one.candidate.name, "chosen": one is chosen}
        if one.failure:
            table.append(row | {"failure": one.failure})
            continue
        row |= {"size_bytes": one.size_bytes, "cosine": one.cosine, "on_front": id(one) in on_front}
        row |= {"drop": one.drop} if one.drop is not None else {}
        row["latency_s"] = {_shape(measured): measured.value for measured in one.latency}
        if base is not None and one is not base:
            row["speed_up"] = [interval.model_dump() for interval in one.speed_ups(base)]
        if reason := limits.broken_by(one):
            row["outside"] = reason
        table.append(row)
    return table


def sentence(row: Mapping[str, Any]) -> str:
    """What a candidate's row says, for the report."""
    if "failure" in row:
        return f"tried {row['name']}: {row['failure']}"
    parts = [units.format(row["size_bytes"], "B"), f"cosine {row['cosine']:.4f}"]
    if "drop" in row:
        parts.append(f"drop {units.format(row['drop'], 'fraction')}")
    parts += [f"{units.format(value, 's')} at {shape}" for shape, value in row["latency_s"].items()]
    if "speed_up" in row:
        gains = ", ".join(f"{gain['value']:.2f}x [{gain['low']:.2f}, {gain['high']:.2f}]" for gain in row["speed_up"])
        parts.append(f"{gains} as fast as float32")
    place = "on the front" if row["on_front"] else "beaten"
    ending = "chosen" if row["chosen"] else f"not allowed: {row['outside']}" if "outside" in row else place
    return f"tried {row['name']}: {', '.join(parts)}; {ending}"


def bfloat16_wins(all_tried: Sequence[Trial]) -> str:
    """What is told where bfloat16 is faster than every integer scheme; else empty."""
    made = [one for one in all_tried if not one.failure]
    halves = [one for one in made if one.candidate.options.get("precision") == "bfloat16"]
    integers = [one for one in made if "int" in one.candidate.scheme]
    if not halves or not integers:
        return ""
    best, rival = min(halves, key=lambda one: one.latency_s), min(integers, key=lambda one: one.latency_s)
    if not all(interval.low > 1 for interval in best.speed_ups(rival)):
        return ""
    return f"on this machine bfloat16 is faster than int8: {best.candidate.name} is faster than {rival.candidate.name}"


def _shape(measured: Measurement) -> str:
    return measured.conditions.case or ""
