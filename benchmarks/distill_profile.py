"""Where the time of `distill` goes: part of `distill_throughput --profile`.

Three looks at one and the same training. Parts: a stopwatch around the teacher, the student, the backward pass, the
optimizer and the making of batches; what is left is called the rest. Operators: torch.profiler over the last steps,
whose own cost is on the many small ones, so that their shares are upper bounds. Matrix rates: the layers' products at
the run's own number of tokens, float32 and bfloat16, by themselves; beside them, what training makes of such
operations (the formula of `distill_mfu` without the head), padding included.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

KINDS = (
    ("attention", ("scaled_dot_product", "flash_attention", "bmm")),  # no other product comes in batches
    ("products of matrices", ("mm", "linear", "matmul", "conv")),
    ("optimizer", ("adam", "foreach", "_norm")),
    ("embeddings", ("embedding", "index")),
    ("casts and copies", ("copy", "_to_copy", "fill", "zero", "clone", "contiguous")),
    ("normalization, activations, dropout", ("layer_norm", "gelu", "tanh", "dropout", "bernoulli", "softmax")),
)
PROFILED_STEPS = 10


class Stopwatch:
    """Seconds by part; parts within parts are taken off the outer one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.inner = [0.0]
        self.is_on = False

    @contextmanager
    def part(self, name: str):
        began = time.perf_counter()
        self.inner.append(0.0)
        try:
            yield
        finally:
            took = time.perf_counter() - began
            nested = self.inner.pop()
            self.inner[-1] += took
            if self.is_on:
                self.seconds[name] += took - nested

    def around(self, owner: Any, method: str, name: str) -> Any:
        """A patch under which the method's time counts as part `name`."""
        original = getattr(owner, method)

        @functools.wraps(original)
        def timed(*args, **more):
            with self.part(name):
                return original(*args, **more)

        return mock.patch.object(owner, method, timed)


class Clock:
    """The progress of a training: starts the stopwatch after the warm-up, and the profiler for the last steps."""

    def __init__(self, watch: Stopwatch, profiler: Any, first: int, num_steps: int) -> None:
        self.watch, self.profiler = watch, profiler
        self.first, self.last = first, num_steps - PROFILED_STEPS
        self.marks: list[float] = []
        self.tokens: list[float] = []

    @contextmanager
    def task(self, title: str, total: float | None = None, unit: str = "steps", done: float = 0):
        yield self

    def advance(self, steps: float = 1, **fields: str) -> None:
        """A step's gradients are there: what is between two calls is the work of one whole step."""
        self.marks.append(time.perf_counter())
        self.tokens.append(steps)
        self.watch.is_on = self.first <= len(self.marks) < self.last
        if len(self.marks) == self.last:
            self.profiler.start()

    def log(self, message: str) -> None:
        return None

    def rate(self, warmup: int) -> dict[str, float]:
        """Nothing: `profile` reads the marks itself."""
        return {}


def kind_of(operator: str) -> str:
    """The kind of an operator of torch, by its name."""
    return next((kind for kind, parts in KINDS if any(part in operator for part in parts)), "everything else")


def operators(profiler: Any) -> list[tuple[str, float]]:
    """(kind, share of the operators' own time), the greatest first."""
    found: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        found[kind_of(event.key)] += event.self_cpu_time_total
    total = sum(found.values())
    return sorted(((kind, value / total) for kind, value in found.items()), key=lambda pair: -pair[1])


def gemm_gflops(shapes: list[tuple[int, int, int]], dtype: Any) -> float:
    """GFLOP/s of products (m, k) x (k, n), one by one and without anything between them; the median of up to 15 runs.

    Runs end after two seconds: where the hardware has no bfloat16, a large product takes as long as that.
    """
    import torch

    operands = [(torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype)) for m, k, n in shapes]
    times: list[float] = []
    while len(times) < 2 or (sum(times) < 2 and len(times) < 16):
        began = time.perf_counter()
        for x, weight in operands:
            torch.nn.functional.linear(x, weight)
        times.append(time.perf_counter() - began)
    return sum(2 * m * k * n for m, k, n in shapes) / statistics.median(times[1:]) / 1e9


def profile(args: argparse.Namespace, num_layers: int, ours: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """Train once with a live teacher and print where the time went."""
    import accelerate
    import torch
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as torch_profile

    from bertshrink.model.encoder import Encoder
    from bertshrink.techniques.distill import objective, teacher
    from bertshrink.training.optim import sparse_adamw
    from bertshrink.training.rows import batching

    num_steps = args.steps + args.warmup
    if args.warmup < 1 or args.steps < 2 * PROFILED_STEPS:
        raise SystemExit(f"a profile takes --warmup of 1 and --steps of {2 * PROFILED_STEPS} at least")
    watch = Stopwatch()
    profiler = torch_profile(activities=[ProfilerActivity.CPU])
    clock = Clock(watch, profiler, args.warmup, num_steps)
    shapes: list[tuple[int, int]] = []
    collate = batching.Collator.__call__

    def seen(self, items):
        batch = collate(self, items)
        shapes.append(tuple(batch["input_ids"].shape))
        return batch

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(batching.Collator, "__call__", seen))
        for owner, method, name in (
            (teacher.LiveTeacher, "__call__", "teacher forward"),
            (objective, "ask", "student forward"),
            (objective.DistillationLoss, "forward", "losses"),
            (accelerate.Accelerator, "backward", "student backward"),
            (accelerate.Accelerator, "clip_grad_norm_", "gradient norm"),
            (sparse_adamw, "clip", "gradient norm"),
            (sparse_adamw.RowSparseAdamW, "step", "optimizer"),
            (batching.Collator, "__call__", "making batches"),
        ):
            stack.enter_context(watch.around(owner, method, name))
        told = ours(args, cached=False, clock=clock)
    profiler.stop()

    first, last = args.warmup - 1, clock.last - 1
    seconds, tokens = clock.marks[last] - clock.marks[first], sum(clock.tokens[first + 1 : last + 1])
    counted = shapes[first + 1 : last + 1]
    shape = Encoder.load(Path(args.teacher)).shape
    gflop = 0.0
    for size, length in counted:
        width, inner = shape.hidden_size, shape.intermediate_size
        layer = 8 * width**2 + 4 * width * inner + 4 * width * length
        gflop += (shape.num_layers + 3 * num_layers) * layer * size * length / 1e9
    padded = sum(size * length for size, length in counted)
    rows = round(padded / len(counted))
    rates = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        width, inner = shape.hidden_size, shape.intermediate_size
        layer = [(rows, width, width)] * 4 + [(rows, width, inner), (rows, inner, width)]
        rates[name] = {
            "at the run's shapes": gemm_gflops(layer, dtype),
            "1024^3": gemm_gflops([(1024, 1024, 1024)], dtype),
        }
    parts = dict(sorted(watch.seconds.items(), key=lambda pair: -pair[1]))
    parts["the rest"] = max(0.0, seconds - sum(parts.values()))

    print(f"\n{told['precision']}, {len(counted)} steps, {tokens / seconds:,.0f} tokens/s without padding", end="")
    print(f" ({padded / seconds:,.0f} with it), {1000 * seconds / len(counted):.1f} ms a step\n")
    print("| part of a step | ms | share |\n|---|---|---|")
    for name, value in parts.items():
        print(f"| {name} | {1000 * value / len(counted):.1f} | {value / seconds:.1%} |")
    kinds = operators(profiler)
    print("\n| kind of operator | share of the operators' own time, under the profiler |\n|---|---|")
    for kind, share in kinds:
        print(f"| {kind} | {share:.1%} |")
    print(f"\nTraining made {gflop / seconds:,.0f} GFLOP/s. Products of {rows} tokens alone, and the share reached:\n")
    print("| | GFLOP/s at the run's shapes | share reached | GFLOP/s at 1024^3 | share reached |")
    print("|---|---|---|---|---|")
    for name, by_shape in rates.items():
        cells = [f"{value:,.0f} | {gflop / seconds / value:.1%}" for value in by_shape.values()]
        print(f"| {name} | {' | '.join(cells)} |")
    print()
    return {
        "precision": told["precision"],
        "tokens_per_s": tokens / seconds,
        "padded_tokens_per_s": padded / seconds,
        "step_s": seconds / len(counted),
        "parts_s": parts,
        "operators": dict(kinds),
        "training_gflop_per_s": gflop / seconds,
        "gemm_gflop_per_s": rates,
    }
