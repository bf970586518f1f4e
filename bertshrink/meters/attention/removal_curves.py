"""The metric with more and more heads zeroed, in several orders.

    fisher           the least important first
    class            those whose class one would miss least first: what looks at separators, then at neighbours, ...
    class reversed   the other way round
    random           `NUM_RANDOM` orders, between whose worst and best an order says nothing (EMNLP 2020, main 260:
                     what heads look like is a poor guide to which can go)

Nothing is trained again after heads are removed, and importance is not computed again between steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bertshrink.report.attention import ROLES, Curve, Order, Point, Role

if TYPE_CHECKING:
    from bertshrink.meters.attention.disabling import Judge
    from bertshrink.progress import Progress

NUM_RANDOM = 10
STEPS = 10
"""Points of a curve beyond its first: tenths, as in arXiv:1905.10650."""


def steps_of(num_heads: int) -> list[int]:
    """How many heads are gone at each point."""
    return sorted({round(num_heads * step / STEPS) for step in range(STEPS + 1)})


def orders_of(importance_NA: Any, roles: Sequence[Role], seed: int) -> dict[Order, list[list[int]]]:
    """Name of a curve -> orders of head numbers (layer by layer), one or several."""
    import numpy as np

    dice = np.random.default_rng(seed)
    num = len(roles)
    random = [dice.permutation(num).tolist() for _ in range(NUM_RANDOM)]
    by_class = sorted(random[0], key=lambda i: ROLES.index(roles[i]))  # of one class in random order
    return {
        "fisher": [np.argsort(np.ravel(importance_NA), kind="stable").tolist()],
        "class": [by_class],
        "class reversed": [by_class[::-1]],
        "random": random,
    }


def curves(judge: Judge, orders: dict[Order, list[list[int]]], progress: Progress) -> list[Curve]:
    """The metric along each order; a set of heads is judged once, whatever order it comes from."""
    import torch

    shape = judge.heads.num_layers, judge.heads.num_heads
    num = shape[0] * shape[1]
    known: dict[frozenset[int], float] = {frozenset(): judge.before.value}
    wanted = {frozenset(order[:k]) for several in orders.values() for order in several for k in steps_of(num)}
    with progress.task("remove heads step by step", len(wanted), "models") as task:
        for removed in sorted(wanted, key=lambda chosen: (len(chosen), sorted(chosen))):
            if removed not in known:
                disabled = torch.zeros(num, dtype=torch.bool)
                disabled[sorted(removed)] = True
                known[removed] = judge.without(disabled.view(shape), "zeroed").value
            task.advance()
    return [
        Curve(
            order=name,
            points=[
                Point(num_removed=k, values=[known[frozenset(order[:k])] for order in several]) for k in steps_of(num)
            ],
        )
        for name, several in orders.items()
    ]
